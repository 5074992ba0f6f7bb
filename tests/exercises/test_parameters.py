"""Exercise 2: what is counted, what a ResNet of the same accuracy needs, and how it is drawn."""

import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

import densenet_multi as dm
from densenet_multi.exercises import Settings, exercise, parameters
from densenet_multi.exercises.parameters import interpolated
from densenet_multi.exercises.resnet import ResNetConfig


def run_of(accuracy, seed=0):
    return {"seed": seed, "test_accuracy": accuracy, "test_accuracies": [accuracy], "seconds": 9.0}


def trained(**accuracies):
    names = dict(zip("abcdef", parameters.TRAINED, strict=True))
    found = {}
    for letter, values in accuracies.items():
        found[names[letter]] = parameters._described(parameters.TRAINED[names[letter]])
        found[names[letter]]["runs"] = [run_of(each, i) for i, each in enumerate(values)]
    return found


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr(parameters, "installed_backends", list)
    return exercise("parameters").run(Settings())


def test_counts_need_no_framework(result):
    assert result["trained"] == {}
    tables = exercise("parameters").tables(result)
    assert len(tables) == 6
    rows = {row[0]: row for row in tables[0].rows}
    assert rows["resnet50"][1:4] == ("50", "25,557,032", "25,557,032")
    drawn = exercise("parameters").draw(result)
    assert ">25.6 million<" in drawn
    assert "test accuracy" not in drawn


def test_without_pytorch_everyone_is_told_that_nothing_was_trained(result):
    assert result["notes"] == ["PyTorch is not installed: counts only"]
    assert "PyTorch is not installed: counts only." in parameters.tables(result)[0].note


def test_another_backend_is_refused_and_a_requested_pytorch_must_be_installed(monkeypatch):
    with pytest.raises(dm.ConfigError, match="backend: expected 'torch', the only backend that"):
        exercise("parameters").run(Settings(backend="flax"))
    missing = Mock(side_effect=dm.BackendNotInstalledError("backend 'torch' needs 'torch'"))
    monkeypatch.setattr(parameters, "load_backend", missing)
    with pytest.raises(dm.BackendNotInstalledError, match="needs 'torch'"):
        exercise("parameters").run(Settings(backend="torch"))


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_a_resnet_that_is_not_written_natively_is_refused_and_not_trained_as_another(name):
    wrong = {"resnet50": "bottleneck: expected False", "resnet18": "stem: expected 'cifar'"}
    with pytest.raises(dm.ConfigError, match=wrong[name]):
        parameters.check_resnet(parameters.RESNETS[name])


def test_parameters_by_stage_and_by_kind_are_complete_in_each_row(result):
    tables = exercise("parameters").tables(result)
    for table in tables[1:5]:
        for name, *cells in table.rows:
            network = result["networks"][name]
            in_all = network["parameters"] / 1e6
            if "multiply-adds" in table.title:
                in_all = network["multiply_adds"] / 1e9
            assert math.isclose(sum(map(float, cells)), in_all, abs_tol=0.004)


def test_the_growth_rate_of_densenet121_is_in_the_table(result):
    rows = {row[0]: row for row in exercise("parameters").tables(result)[5].rows}
    assert list(rows) == ["8", "12", "16", "24", "32", "40", "48"]
    assert rows["32"][1:] == ("7,978,856", "1.00", "2.834", "1.00")
    config = dm.DenseNetConfig(growth_rate=8, num_init_features=16)
    assert rows["8"][1] == f"{dm.count_parameters(config.resolve()).trainable:,}"


def test_a_resnet_of_equal_accuracy_is_interpolated_over_the_logarithm_of_its_size():
    points = [(0.9, 1000), (0.92, 10_000), (0.93, 20_000)]
    assert math.isclose(interpolated(0.91, points), 1000 * math.sqrt(10))
    assert math.isclose(interpolated(0.92, points), 10_000)
    assert math.isclose(interpolated(0.91, points[::-1]), 1000 * math.sqrt(10))


@pytest.mark.parametrize("accuracy", [0.89, 0.94])
def test_outside_the_range_nothing_is_extrapolated(accuracy):
    assert interpolated(accuracy, [(0.9, 1000), (0.93, 20_000)]) is None
    assert interpolated(accuracy, []) is None


def test_the_table_has_mean_spread_and_what_a_resnet_needs(result):
    result["trained"] = trained(a=[0.91, 0.93], b=[0.92, 0.92], e=[0.88, 0.90], f=[0.93, 0.93])
    table = exercise("parameters").tables(result)[-1]
    rows = {row[0]: row for row in table.rows}
    assert rows["DenseNet k=12"][1] == "100,066"
    # 174,970 / 100,066; seed 0: three quarters of the way from width 8 to 16; seed 1: width 24
    assert rows["DenseNet k=12"][3:6] == ("0.9200", "0.0141", "1.7x (1.2-3.9)")
    assert rows["ResNet width 16"][3:6] == ("0.9200", "0.0000", "")
    assert [row[0] for row in table.rows][1:] == [
        "ResNet width 8", "ResNet width 16", "ResNet width 24"
    ]  # fmt: skip
    assert "mean over 2 seeds" in table.note
    assert "In parentheses: of single seeds" in table.note
    assert "'modern', which was made for a DenseNet" in table.note
    assert "learning rate 0.2, weight decay 0.0005." in table.note


def test_a_seed_without_an_equal_resnet_is_counted(result):
    result["trained"] = trained(a=[0.91, 0.95], b=[0.94, 0.94], e=[0.90, 0.90])
    (cell,) = {row[5] for row in exercise("parameters").tables(result)[-1].rows if row[5]}
    assert cell.endswith("; 1 of 2 seeds)")
    result["trained"] = trained(a=[0.85, 0.97], b=[0.94, 0.94], e=[0.90, 0.90])
    (cell,) = {row[5] for row in exercise("parameters").tables(result)[-1].rows if row[5]}
    assert cell.endswith("x (0 of 2 seeds)")


def test_one_seed_and_one_resnet_have_neither_spread_nor_interpolation(result):
    result["trained"] = trained(a=[0.92], b=[0.91])
    table = exercise("parameters").tables(result)[-1]
    expected = ("network", "parameters", "10^6\nmult-adds", "test\naccuracy", "seconds")
    assert table.columns == expected
    assert table.rows[0][3:] == ("0.9200", "9")
    assert "of one seed, so without spread" in table.note
    assert "ResNet needs" not in table.note


@pytest.mark.parametrize(
    "accuracies",
    [{"a": [0.92], "b": [0.92]}, {"a": [0.0, 1.0], "b": [0.5, 0.6]}, {"a": [0.9101], "b": [0.91]}],
)
def test_the_plot_has_every_network_inside_its_frame(result, accuracies):
    result["trained"] = trained(**accuracies)
    drawn = exercise("parameters").draw(result)
    for name in result["trained"]:
        assert f">{name}<" in drawn
    found = [mean for each in accuracies.values() for mean in each]
    ticks = parameters._ticks(min(found), max(found))
    assert ticks[0] < min(found) <= max(found) < ticks[-1]
    assert len(ticks) >= 4


@pytest.mark.parametrize(
    ("settings", "networks", "seeds"),
    [
        (Settings(data="sample"), 2, 1),
        (Settings(data="sample", full=True), 6, 3),
        (Settings(data="sample", seeds=2), 2, 2),
        (Settings(data="sample", full=True, seeds=1), 6, 1),
    ],
)
def test_more_seeds_and_more_networks_are_trained_if_asked(monkeypatch, settings, networks, seeds):
    train = Mock(side_effect=lambda _config, _images, recipe: run_of(0.9, recipe.seed))
    monkeypatch.setattr(parameters, "_run", train)
    found = parameters._trained(settings)
    assert len(found) == networks
    assert {len(each["runs"]) for each in found.values()} == {seeds}
    kinds = [found[name]["kind"] for name in list(found)[:2]]
    assert kinds == ["DenseNet", "ResNet"]
    recipes = [call.args[2] for call in train.call_args_list]
    assert [recipe.seed for recipe in recipes] == sorted([*range(seeds)] * networks)
    assert {recipe.epochs for recipe in recipes} == {30}  # of 1,000 images: three of 60,000 are 180


def test_both_kinds_train_on_the_same_data_by_the_same_recipe(monkeypatch):
    history = SimpleNamespace(epochs=[SimpleNamespace(validation_accuracy=0.5, seconds=2.0)] * 2)
    ours, theirs = Mock(), Mock()
    ours.fit.return_value = theirs.fit.return_value = history
    monkeypatch.setattr(parameters, "load_backend", lambda _: ours)
    monkeypatch.setattr(parameters, "import_module", lambda *_: theirs)
    images, recipe = SimpleNamespace(train="train", test="test"), dm.Recipe(seed=7)
    resnet = ResNetConfig((1,), width=5, in_channels=3, num_classes=7, stem="cifar")
    for config in (dm.DenseNetConfig(block_config=(1,)), resnet):
        found = parameters._run(config, images, recipe)
        assert found == {
            "seed": 7, "test_accuracy": 0.5, "test_accuracies": [0.5, 0.5], "seconds": 4.0
        }  # fmt: skip
    (_, *first), (_, _, *second) = ours.fit.call_args.args, theirs.fit.call_args.args
    assert first == second
    assert first == ["train", recipe]
    assert ours.fit.call_args.kwargs == theirs.fit.call_args.kwargs == {"validation": "test"}
    assert ours.build.call_args.kwargs == {"seed": 7}
    channels = {"in_channels": 3, "num_classes": 7}
    assert theirs.build.call_args == (((1,), 5), {"seed": 7, **channels})
    config = theirs.fit.call_args.args[1].config
    assert {name: getattr(config, name) for name in channels} == channels
