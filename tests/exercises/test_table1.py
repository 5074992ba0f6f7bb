"""Exercise 4: the networks of Table 1 are the paper's, and each can take a step."""

from unittest.mock import Mock

import numpy as np
import pytest

import densenet_multi as dm
from densenet_multi.exercises import Settings, exercise, table1, table1_child

SIZES = {  # (channels, side) of densenet121 after each part, from the paper's Table 1
    "convolution": (64, 112), "stem": (64, 56), "denseblock1": (256, 56), "transition1": (128, 28),
    "denseblock2": (512, 28), "transition2": (256, 14), "denseblock3": (1024, 14),
    "transition3": (512, 7), "denseblock4": (1024, 7), "classifier": (1000, 1),
}  # fmt: skip
STEPPED = {
    "loss": 6.9123456, "finite": True, "trainable_tensors": 364, "trainable_moved": 364,
    "statistics_tensors": 242, "statistics_moved": 242, "parameters": 7, "seconds": 1.0,
    "logits_shape": [4, 1000],
}  # fmt: skip

SPEC = dm.get_spec("d2l", block_config=(1,))  # quick to build


@pytest.fixture
def child(monkeypatch):
    """Answers for the child processes, which take minutes."""
    reported = Mock(side_effect=lambda *_: {"status": "ok", "versions": {}, **STEPPED})
    monkeypatch.setattr(table1, "report_of", reported)
    monkeypatch.setattr(table1, "installed_backends", lambda: ["torch", "flax"])
    return reported


@pytest.mark.parametrize(
    ("name", "depth"),
    # blocks of 6, 12, 64 and 48 layers, as Table 1 lists them, are 265 by the others' count
    [("121", 121), ("169", 169), ("201", 201), ("264", 265), ("161", 161)],
)
def test_walking_a_network_finds_the_number_in_its_name(name, depth):
    parts = table1.count_layers(dm.get_spec(f"densenet{name}"))
    assert sum(parts.values()) == depth
    assert (parts["stem"], parts["transition2"], parts["classifier"]) == (1, 1, 1)
    assert parts["denseblock2"] == 2 * 12


def test_a_network_without_classifier_or_bottlenecks_has_fewer_layers():
    spec = dm.get_spec("densenet40_k12")
    assert sum(table1.count_layers(spec).values()) == 40
    spec = dm.get_spec("densenet40_k12", num_classes=0)
    assert sum(table1.count_layers(spec).values()) == 39


@pytest.mark.usefixtures("child")
def test_output_sizes_are_those_of_table_1():
    result = exercise("table1").run(Settings())
    shapes = result["variants"]["densenet121"]["shapes"]
    assert {stage: tuple(shape[:2]) for stage, shape in shapes.items()} == SIZES
    for variant in result["variants"].values():
        sides = {stage: shape[1] for stage, shape in variant["shapes"].items()}
        assert sides == table1.PAPER_SIZES == {stage: side for stage, (_, side) in SIZES.items()}


@pytest.mark.usefixtures("child")
def test_counts_are_the_published_ones_where_there_are_any():
    variants = exercise("table1").run(Settings())["variants"]
    assert [name for name, each in variants.items() if each["published_parameters"] is None] == [
        "densenet264"
    ]
    for each in variants.values():
        if each["published_parameters"]:
            assert each["parameters"] == each["published_parameters"]
            assert round(each["multiply_adds"] / 1e9, 2) == each["published_gflops"]


def test_every_installed_backend_takes_a_step_of_every_variant(child):
    result = exercise("table1").run(Settings())
    asked = [call.args[1] for call in child.call_args_list]
    assert [(each["backend"], each["variant"]) for each in asked] == [
        (backend, name) for backend in ("torch", "flax") for name in table1.NAMES
    ]
    tables = exercise("table1").tables(result)
    assert tables[-1].columns == ("variant", "torch", "flax", "weights moved", "statistics moved")
    assert tables[-1].rows[0][1:] == ("6.91235", "6.91235", "364 of 364", "242 of 242")
    assert tables[-1].title.endswith("the loss in torch and flax")


def test_the_note_says_how_far_losses_differ_and_of_one_backend_it_compares_nothing(child):
    def report(_, settings):
        farther = (settings["backend"], settings["variant"]) == ("flax", "densenet201")
        return {"status": "ok", "versions": {}, **STEPPED, "loss": 4.02 if farther else 4.0}

    child.side_effect = report
    result = exercise("table1").run(Settings())
    assert "differ by at most 5.0e-03 of the loss" in table1.tables(result)[-1].note
    del result["backends"]["flax"]
    alone = table1.tables(result)[-1]
    assert alone.title.endswith("the loss in torch")
    assert "backend" not in alone.note


def test_the_backend_that_moves_the_fewest_weights_is_shown(child):
    child.side_effect = lambda _, settings: {
        "status": "ok",
        "versions": {},
        **STEPPED,
        "trainable_moved": 364 if settings["backend"] == "torch" else 363,
    }
    result = exercise("table1").run(Settings())
    assert exercise("table1").tables(result)[-1].rows[0][-2] == "363 of 364"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"status": "failed", "error": "no memory"}, "torch: densenet121: .* no memory"),
        ({"status": "ok", **STEPPED, "finite": False}, "densenet121: .* not finite"),
    ],
)
def test_a_step_that_fails_is_an_error_that_names_the_variant(child, report, message):
    child.side_effect = lambda *_: {"versions": {}, **report}
    with pytest.raises(ValueError, match=message):
        exercise("table1").run(Settings())


def test_a_backend_that_is_missing_is_an_error(child):
    child.side_effect = lambda *_: {"versions": {}, "status": "not installed", "error": "install"}
    with pytest.raises(dm.BackendNotInstalledError, match="install"):
        exercise("table1").run(Settings())


def test_without_a_framework_there_are_still_counts(child, monkeypatch):
    monkeypatch.setattr(table1, "installed_backends", list)
    result = exercise("table1").run(Settings())
    assert len(exercise("table1").tables(result)) == 2
    child.assert_not_called()


@pytest.mark.usefixtures("child")
def test_the_drawing_has_a_bar_of_each_depth():
    result = exercise("table1").run(Settings())
    drawn = exercise("table1").draw(result)
    for name, each in result["variants"].items():
        assert f">{name}<" in drawn
        assert f">{each['depth']} layers<" in drawn
    assert ">dense block 3: 128<" in drawn


# --- In a backend -------------------------------------------------------------------------------


@pytest.fixture
def stepped(backend, monkeypatch):
    def step(**changed):
        monkeypatch.setattr(table1_child, "get_spec", lambda _: SPEC)
        settings = {"backend": backend.NAME, "variant": "any", "image_size": 32, "batch_size": 4}
        return table1_child.measure(settings | changed)

    return step


def test_a_step_moves_every_weight_and_statistic(stepped):
    found = stepped()
    assert found["finite"]
    assert 1 < found["loss"] < 10
    assert found["logits_shape"] == [4, 10]
    names = list(dm.tensors(SPEC))
    statistics = sum(name.endswith(("mean", "var")) for name in names)
    assert found["statistics_moved"] == found["statistics_tensors"] == statistics
    assert found["trainable_tensors"] == len(names) - statistics
    # the chapter's biases before a BatchNorm have no gradient but rounding
    biases = sum(name.endswith(("conv0.bias", "conv1.bias")) for name in names)
    assert found["trainable_moved"] >= found["trainable_tensors"] - biases


def test_weights_that_do_not_move_are_not_counted(stepped, backend, monkeypatch):
    same = backend.export_weights(backend.build(SPEC))
    fake = Mock(wraps=backend, NAME=backend.NAME)
    fake.export_weights = lambda _: same
    monkeypatch.setattr(table1_child, "load_backend", lambda _: fake)
    found = stepped()
    assert (found["trainable_moved"], found["statistics_moved"]) == (0, 0)


def test_a_weight_that_is_not_finite_is_reported(stepped, backend, monkeypatch):
    broken = backend.export_weights(backend.build(SPEC))
    broken["classifier.bias"] = np.full(10, np.nan)
    fake = Mock(wraps=backend, NAME=backend.NAME)
    fake.export_weights = lambda _: broken
    monkeypatch.setattr(table1_child, "load_backend", lambda _: fake)
    assert not stepped()["finite"]
