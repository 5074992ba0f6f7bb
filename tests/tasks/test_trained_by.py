"""Which backend uses a network: the requested one, the one that trained it, or the first."""

import json
from pathlib import Path

import pytest
from PIL import Image

import densenet_multi as dm
from cases import small
from densenet_multi.tasks import _trained_by, evaluate, train
from densenet_multi.tasks._trained_by import backend_of, backend_to_use, source_of

SPEC = dm.get_spec("d2l")


@pytest.fixture
def three(monkeypatch):
    """Three backends; "c" is not installed."""
    versions = {"a": {"a": "1"}, "b": {"b": "1"}, "c": {"c": None}}
    monkeypatch.setattr(_trained_by, "backend_names", lambda: list(versions))
    monkeypatch.setattr(_trained_by, "framework_versions", versions.get)
    monkeypatch.setattr(_trained_by, "first_installed", lambda: "a")


def checkpoint(source=None):
    return dm.Checkpoint(SPEC, {}, dm.Usage(source=source))


def of_run(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text)
    return backend_of(folder / "best.safetensors", checkpoint())


@pytest.mark.usefixtures("three")
def test_the_source_of_trained_weights_names_the_backend(tmp_path):
    path = tmp_path / "w.safetensors"
    assert backend_of(path, checkpoint(source_of("b", "folder:/x, y"))) == "b"
    assert backend_of(path, checkpoint(source_of("c", "sample"))) == "c"
    for other in (None, "", "torchvision", "timm, b", "densenet_multi", source_of("x", "sample")):
        assert backend_of(path, checkpoint(other)) is None


@pytest.mark.usefixtures("three")
def test_otherwise_the_run_folder_that_the_file_is_in_names_it(tmp_path):
    assert of_run(tmp_path, {"schema": 1, "backend": "b", "recipe": {}}) == "b"
    assert backend_of(tmp_path / "w.safetensors", checkpoint("torchvision")) is None
    for other in (
        {"backend": "b"},
        {"schema": 1, "backend": 5, "recipe": {}},
        {"schema": 1, "backend": "x", "recipe": {}},
        [],
        "{",
        "[" * 100_000,
    ):
        assert of_run(tmp_path, other) is None


@pytest.mark.usefixtures("three")
def test_a_device_beside_a_file_of_weights_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    monkeypatch.setattr(Path, "open", None)
    assert backend_of(tmp_path / "best.safetensors", checkpoint()) is None


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("given", "trained", "used", "sentence"),
    [
        (None, None, "a", None),
        (None, "a", "a", None),
        (None, "b", "b", "w: using b, which trained it; to use another, pass backend_name='a'"),
        (None, "c", "a", "w: trained in c, which is not installed; using a"),
        ("a", "b", "a", None),
        ("c", "b", "c", None),  # loading c then fails and says what to install
    ],
)
def test_the_user_is_told_where_it_is_neither_requested_nor_the_first(
    given, trained, used, sentence
):
    said = []
    found = checkpoint(trained and source_of(trained, "sample"))
    assert backend_to_use(given, "w", found, said.append) == used
    assert said == ([sentence] if sentence else [])


@pytest.mark.usefixtures("three")
def test_without_any_backend_the_message_shows_the_way_to_onnx(monkeypatch):
    def none():
        raise dm.BackendNotInstalledError("backend: expected one of a, found none installed")

    monkeypatch.setattr(_trained_by, "first_installed", none)
    with pytest.raises(dm.BackendNotInstalledError, match=r"or use: convert\('w.s', 'NEW.onnx'\)"):
        backend_to_use(None, "w.s", checkpoint())


def test_a_backend_that_does_not_exist_is_refused():
    with pytest.raises(dm.ConfigError, match="backend 'd' does not exist"):
        backend_to_use("d", "w", checkpoint())


@pytest.mark.long("keras", "flax")
def test_a_network_is_recognized_by_what_train_records(backend, tmp_path):
    for part in ("own", "other"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                image = Image.new("RGB", (8, 8), (10 * i, 100 * label, len(part)))
                image.save(tmp_path / part / name / f"{i}.png")
    spec = small("bottleneck", num_classes=2)
    usage = dm.Usage(value_range=(0, 255), activation="sigmoid", assumed=("value_range",))
    dm.save_weights(tmp_path / "w.safetensors", spec, dm.init_weights(spec), usage)
    options = train.Options(
        backend_name=backend.NAME,
        data=str(tmp_path / "own"),
        weights=str(tmp_path / "w.safetensors"),
        recipe=dm.Recipe(image_size=32, batch_size=4, epochs=1, seed=3),
    )
    train.train(options, output=tmp_path / "run")
    path = tmp_path / "run" / "last.safetensors"
    recorded = dm.load_checkpoint(path).usage
    assert (recorded.split_seed, len(recorded.trained_on)) == (3, 8)
    assert (recorded.activation, recorded.assumed) == ("softmax", ())
    assert recorded.value_range == (0, 255)

    for part, count in ("own", 2), ("other", 10):
        said = []
        result = evaluate.evaluate(path, data=str(tmp_path / part), say=said.append)
        assert (result["backend"], result["examples"]) == (backend.NAME, count)
        assert f"testing with {count} images" in " ".join(said)


@pytest.mark.long("keras", "flax")
def test_a_run_says_which_parts_it_uses(backend, tmp_path):
    for part, count in ("train", 4), ("val", 2):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (8, 8), (10 * i, 100 * label, 7))
                image.save(tmp_path / part / name / f"{i}.png")
    said = []
    spec = small("bottleneck", num_classes=2)
    dm.save_weights(tmp_path / "w.safetensors", spec, dm.init_weights(spec))
    options = train.Options(
        backend_name=backend.NAME,
        data=f"folder:{tmp_path}",
        weights=str(tmp_path / "w.safetensors"),
        recipe=dm.Recipe(image_size=32, batch_size=4, epochs=1),
    )
    report = train.train(options, say=said.append)
    assert (report["train_examples"], report["test_examples"]) == (8, 4)
    assert any("training on train (8 images), testing with val (4 images)" in s for s in said)
