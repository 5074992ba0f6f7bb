"""The commands evaluate and predict: the numbers, the names, and what is refused."""

import json
import warnings
import zipfile
from dataclasses import replace
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import densenet_multi as dm
from cases import images, labels, random_weights, small
from densenet_multi import _figures as figures
from densenet_multi import backends
from densenet_multi.checkpoint import Checkpoint
from densenet_multi.commands import main
from densenet_multi.commands.evaluate import confused_with, table
from densenet_multi.commands.output import _drawn
from densenet_multi.data import (
    CLASSES,
    Arrays,
    epoch_order,
    load_data,
    load_sample,
    read_image,
    to_input,
)
from densenet_multi.tasks import _trained_by, evaluate, predict

FASHION = {"in_channels": 1, "num_classes": 10}  # as Fashion-MNIST needs
GREY = small("cubic", **FASHION)
COLOUR = small("cubic")  # three channels, three classes
PIXELS = {"value_range": (0.0, 1.0), "activation": "softmax"}
NAME = dm.backend_names()[0]
RGB = ("red", "green", "blue")
SHADES = {"red": (204, 51, 0), "green": (51, 204, 0), "blue": (0, 51, 204)}


def saved(path, spec=GREY, image_size=32, **usage):
    usage = dm.Usage(image_size=image_size, **usage)
    dm.save_weights(path, spec, random_weights(spec), usage)
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def weights(tmp_path):
    return saved(tmp_path / "w.safetensors", **PIXELS)


class Fake:
    """Replaces a backend: ``logits`` computes the answers, ``seen`` keeps the given images."""

    FRAMEWORK = "Fake"

    def __init__(self, monkeypatch, logits):
        self.logits, self.seen = logits, []
        self.build, self.import_weights, self.export_weights = Mock(), Mock(), Mock()
        self.use_gpu = Mock()
        self.load = Mock(return_value=self)
        monkeypatch.setattr(predict, "load_backend", self.load)

    def predict(self, _, images):
        self.seen.append(images)
        return self.logits(images)


def projected(images):
    """Return ten logits for each image."""
    rows = images.reshape(len(images), -1)
    return rows @ np.random.default_rng(4).normal(0, 0.3, (rows.shape[1], 10))


def means(images):
    """Return logits of the classes red, green and blue."""
    return 100 * images.mean(axis=(2, 3))


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch, projected)


@pytest.fixture
def colours(monkeypatch):
    return Fake(monkeypatch, means)


@pytest.fixture
def folder(tmp_path):
    """Write five images of each color, in the folders blue, green and red."""
    for name, shade in SHADES.items():
        (tmp_path / "colours" / name).mkdir(parents=True)
        for i in range(5):
            image = Image.new("RGB", (8 + i, 9), shade)
            image.save(tmp_path / "colours" / name / f"{i}.png")
    return tmp_path / "colours"


# --- The numbers --------------------------------------------------------------------------------


def test_confusions_are_counted_by_true_class_and_predicted_class():
    counts = evaluate.confusion_counts([0, 0, 1, 0, 2], [0, 1, 1, 1, 0], 4)
    expected = [[1, 2, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(counts, expected)


def test_labels_of_narrow_integers_do_not_overflow():
    last = np.array([199], np.uint8)
    assert evaluate.confusion_counts(last, last, 200)[199, 199] == 1


def test_the_accuracy_of_a_class_is_its_share_and_none_without_images():
    assert evaluate.class_accuracies(np.array([[3, 1], [0, 0]])) == [0.75, None]


def test_a_class_is_confused_with_the_one_it_was_most_often_taken_for():
    counts = np.array([[9, 1, 2], [0, 5, 0], [4, 4, 0]])
    assert confused_with(counts) == [(2, 2), None, (0, 4)]


def test_probabilities_are_a_stable_softmax_in_float64():
    logits = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4]], np.float32)
    actual = predict.softmax(logits)
    assert actual.dtype == np.float64
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(actual, [[share, 1 - share, 0], [1 / 3] * 3], rtol=1e-15)


def test_the_highest_come_first_and_of_equal_ones_the_first():
    np.testing.assert_array_equal(predict.highest(np.array([1, 3, 2, 3]), 3), [1, 3, 2])
    assert len(predict.highest(np.array([1, 3]), 5)) == 2


def order(own, names):
    spec = small("cubic", num_classes=len(own or names))
    usage = dm.Usage(class_names=own)
    return evaluate.output_order(Checkpoint(spec, {}, usage), names).tolist()


def test_classes_are_matched_by_name_or_in_order_where_the_network_has_no_names():
    assert order(("c", "a", "b"), ("a", "b", "c")) == [1, 2, 0]
    assert order(None, ("a", "b", "c")) == [0, 1, 2]
    assert order(("a", "a", "b"), ("a", "a", "b")) == [0, 1, 2]


def test_classes_that_differ_are_named():
    with pytest.raises(dm.ConfigError, match=r"found 'x', 'y' in place of 'a', 'c'$"):
        order(("x", "y", "b"), ("a", "b", "c"))
    with pytest.raises(dm.ConfigError, match=r"found some twice in place of 'c'$"):
        order(("a", "a", "b"), ("a", "b", "c"))
    with pytest.raises(dm.ConfigError, match=r"'o4', 3 more in place of 'n0'"):
        order(tuple(f"o{i}" for i in range(8)), tuple(f"n{i}" for i in range(8)))
    with pytest.raises(dm.ConfigError, match="expected 2 classes as in the data, found 3"):
        evaluate.output_order(Checkpoint(COLOUR, {}, dm.Usage()), ("a", "b"))


def test_the_first_installed_backend_is_the_first_that_lacks_nothing(monkeypatch):
    versions = {"a": {"a": "1", "b": None}, "b": {"b": "1"}, "c": {"c": "1"}}
    monkeypatch.setattr(backends, "backend_names", lambda: list(versions))
    monkeypatch.setattr(backends, "framework_versions", versions.get)
    assert backends.first_installed() == "b"
    versions["b"] = versions["c"] = {"x": None}
    with pytest.raises(dm.BackendNotInstalledError, match=r"one of a, b, c, found none.*install"):
        backends.first_installed()


# --- evaluate -----------------------------------------------------------------------------------


def test_the_numbers_are_those_of_all_test_images_at_once(fake, weights):
    result = evaluate.evaluate(weights, backend_name=NAME, data="sample", batch_size=300)
    images, labels = load_sample("test")
    x = to_input(images, 32)
    logits = projected(x)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, predicted), 1)
    np.testing.assert_array_equal(result["confusion"], confusion)
    assert 0 < result["accuracy"] == (predicted == labels).mean()
    assert result["loss"] == pytest.approx(dm.reference.cross_entropy(logits, labels), rel=1e-12)
    accuracies = [(predicted[labels == i] == i).mean() for i in range(10)]
    assert result["per_class"] == dict(zip(CLASSES, accuracies, strict=True))
    assert list(map(len, fake.seen)) == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(fake.seen), x)


def test_a_batch_of_large_images_is_divided(fake, weights, monkeypatch):
    monkeypatch.setattr(predict, "MOST_VALUES", 100 * 32 * 32 + 1)
    evaluate.evaluate(weights, backend_name=NAME, data="sample", batch_size=300)
    assert list(map(len, fake.seen)) == [100] * 10


def test_json_has_all_there_is_to_know(fake, weights):
    done = invoke("evaluate", weights, "--backend", NAME, "--data", "sample", "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["examples"], result["backend"]) == (1000, NAME)
    assert result["versions"] == dm.backends.framework_versions(NAME)
    assert result["class_names"] == list(CLASSES)
    assert result["data_from"] == "the sample in this package"
    assert (result["weights"], result["data"]) == (str(weights), "sample")
    assert np.sum(result["confusion"]) == 1000
    assert not done.stderr
    assert fake.load.call_args.args == (NAME,)


@pytest.mark.usefixtures("fake")
def test_a_table_shows_each_class_in_80_columns(weights):
    done = invoke("evaluate", weights, "--backend", NAME, "--data", "sample")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (trouser,) = (line.split() for line in lines if line.startswith("  Trouser"))
    result = evaluate.evaluate(weights, backend_name=NAME, data="sample")
    assert trouser[:3] == ["Trouser", "100", f"{result['per_class']['Trouser']:.4f}"]
    assert f"{result['accuracy']:.4f}" in next(line for line in lines if line.startswith("  all"))
    assert f"mean cross entropy {result['loss']:.4f}" in done.stdout


def test_no_number_of_a_table_is_cut_off_however_long_the_names_are():
    names = ["a" * 90, "Tyrannosaurus rex of the late Cretaceous, in a museum", "b"]
    confusion = [[9_123_456, 7_654_321, 0], [8_765_432, 9, 1], [0, 0, 0]]
    result = {
        "class_names": names,
        "confusion": confusion,
        "per_class": dict(zip(names, [0.5438, 0.0001, None], strict=True)),
        "examples": 25_543_219,
        "accuracy": 0.3572,
        "loss": 12_345.6789,
        "weights": "/a/" + "long/" * 30 + "w.safetensors",
        "data": "folder:/" + "b" * 100,
        "split": "test",
        "image_size": 1024,
        "backend": "torch",
        "bfloat16": True,
    }
    text = _drawn(table(result), to_file=True)
    assert max(map(len, text.splitlines())) <= 80
    numbers = ("16,777,777", "8,765,442", "25,543,219", "7,654,321", "8,765,432", "0.5438",
               "0.0001", "0.3572", "12345.6789")  # fmt: skip
    for number in numbers:
        assert number in text
    letters = "".join(text.split())
    for name in (*names, result["weights"], result["data"]):
        assert len([c for c in letters if c == name[0]]) >= name.count(name[0])
    assert "…" not in text


def test_the_network_is_built_in_the_dtype_of_its_weights(fake, weights):
    evaluate.evaluate(weights, backend_name=NAME, data="sample")
    assert fake.build.call_args.kwargs == {"dtype": "float64"}
    checkpoint = dm.load_checkpoint(weights)
    assert fake.build.call_args.args == (checkpoint.spec,)
    model, given = fake.import_weights.call_args.args
    assert model is fake.build.return_value
    np.testing.assert_array_equal(
        given["classifier.bias"], checkpoint.weights["classifier.bias"], strict=True
    )


@pytest.mark.parametrize("own", [RGB, ("blue", "green", "red")])
def test_folders_are_matched_with_the_networks_classes_by_name(colours, folder, tmp_path, own):
    path = saved(tmp_path / "w.safetensors", COLOUR, class_names=own, **PIXELS)
    result = evaluate.evaluate(path, backend_name=NAME, data=f"folder:{folder}")
    assert (result["examples"], result["class_names"]) == (15, ["blue", "green", "red"])
    right = 1.0 if own == RGB else 0.0  # the fake's outputs are red, green, blue
    assert result["per_class"] == {"blue": right, "green": 1.0, "red": right}
    assert result["confusion"] == (5 * (np.eye(3) if own == RGB else np.eye(3)[::-1])).tolist()
    assert len(colours.seen) == 1


def test_pixels_are_prepared_as_the_weights_say(colours, folder, tmp_path):
    normal = {"value_range": (0.0, 255.0), "mean": (1.0, 2.0, 3.0), "std": (2.0, 4.0, 8.0)}
    path = saved(tmp_path / "w.safetensors", COLOUR, **normal)
    evaluate.evaluate(path, backend_name=NAME, data=f"folder:{folder}", image_size=40)
    (seen,) = colours.seen
    assert seen.shape == (15, 3, 40, 40)
    shades = np.repeat([SHADES[name] for name in ("blue", "green", "red")], 5, axis=0)
    expected = (shades - [1, 2, 3]) / [2, 4, 8]
    np.testing.assert_allclose(seen.mean(axis=(2, 3)), expected, rtol=1e-5)


def test_the_seed_decides_which_images_of_a_folder_are_for_the_test(colours, folder, tmp_path):
    path = saved(tmp_path / "w.safetensors", COLOUR, **PIXELS)
    for i in range(5):  # the shade tells them apart
        Image.new("RGB", (9, 9), (10 * i, 0, 200)).save(folder / "blue" / f"{i}.png")
    for seed in range(3):
        data = ["--backend", NAME, "--data", f"folder:{folder}", "--seed", seed]
        assert invoke("evaluate", path, *data).exit_code == 0
        test = load_data(f"folder:{folder}", image_size=32, seed=seed).test
        np.testing.assert_array_equal(colours.seen[-1], test.take(np.arange(3)))
    assert len({images[0, 0, 0, 0] for images in colours.seen}) > 1


def test_a_folder_is_split_as_it_was_when_the_weights_were_trained(colours, folder, tmp_path):
    path = saved(tmp_path / "w.safetensors", COLOUR, split_seed=4, **PIXELS)
    for i in range(5):
        Image.new("RGB", (9, 9), (10 * i, 0, 200)).save(folder / "blue" / f"{i}.png")
    said = []
    evaluate.evaluate(path, backend_name=NAME, data=f"folder:{folder}", say=said.append)
    test = load_data(f"folder:{folder}", image_size=32, seed=4).test
    np.testing.assert_array_equal(colours.seen[-1], test.take(np.arange(3)))
    (sentence,) = said
    assert "testing with 3 images of 15, the fifth of each class that seed 4 holds" in sentence
    evaluate.evaluate(path, backend_name=NAME, data=f"folder:{folder}", seed=5, say=said.append)
    assert "seed 5 moves some of the training images" in said[2]


def test_all_images_of_a_folder_are_used_that_the_network_was_not_trained_on(
    colours, folder, tmp_path
):
    trained_on = ("1:0", "2:0")  # fingerprints of other images
    path = saved(tmp_path / "w.safetensors", COLOUR, split_seed=4, trained_on=trained_on, **PIXELS)
    common = ["evaluate", path, "--backend", NAME, "--data", folder]  # a folder needs no prefix
    done = invoke(*common, "--format", "json")
    result = json.loads(done.stdout)
    assert (result["examples"], result["split"], len(colours.seen[0])) == (15, "all", 15)
    assert f"{folder}: testing with 15 images, all of them, since the network was" in done.stderr
    assert "all images of" in invoke(*common).stdout
    for split, count in ("test", 3), ("train", 12), ("all", 15):
        done = invoke(*common, "--split", split, "--format", "json")
        result = json.loads(done.stdout)
        assert (result["examples"], result["split"]) == (count, split)
        assert f"testing with {count} images" in done.stderr
    refused = invoke(*common, "--split", "half")
    assert (refused.exit_code, "'test', 'train', 'all'" in refused.stderr) == (2, True)


def test_what_to_type_for_another_folder_is_said_in_flags(colours, folder, tmp_path):
    path = saved(tmp_path / "w.safetensors", COLOUR, split_seed=4, **PIXELS)
    done = invoke("evaluate", path, "--backend", NAME, "--data", f"folder:{folder}")
    assert "if it was another one, pass --split all" in done.stderr
    assert len(colours.seen[0]) == 3
    deeper = invoke("evaluate", path, "--backend", NAME, "--data", folder.parent)
    assert (deeper.exit_code, f"--data folder:{folder}" in deeper.stderr) == (4, True)


def test_without_a_backend_the_one_that_trained_is_used(colours, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(_trained_by, "first_installed", lambda: NAME)
    monkeypatch.setattr(_trained_by, "framework_versions", lambda _: {"x": "1"})
    last = dm.backend_names()[-1]
    if last == NAME:
        pytest.skip("needs two backends")
    source = f"densenet_multi, {last}, sample"
    path = saved(tmp_path / "w.safetensors", COLOUR, source=source, **PIXELS)
    monkeypatch.setattr(evaluate, "framework_versions", lambda name: {name: "1"})
    done = invoke("evaluate", path, "--data", folder, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["backend"] == last
    assert colours.load.call_args.args == (last,)
    assert f"using {last}, which trained it; to use another, pass --backend {NAME}" in done.stderr


# --- What outputs mean --------------------------------------------------------------------------

TWO = ("blue", "red")
RANGE = {"value_range": (0.0, 1.0)}


@pytest.fixture
def two(folder):
    """The folder without its green images."""
    for path in (folder / "green").iterdir():
        path.unlink()
    (folder / "green").rmdir()
    return folder


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("own", [("red",), ("blue",), None])
def test_one_output_with_a_sigmoid_tells_two_classes_apart_at_one_half(
    monkeypatch, two, tmp_path, own, activation
):
    spec = small("cubic", num_classes=1)
    path = saved(tmp_path / "w", spec, class_names=own, activation=activation, **RANGE)
    sign = -1 if own == ("blue",) else 1
    offset = [-0.5, 0.25, 0.25, 0.25, 0.25] * 2  # one image of each class gets the wrong sign

    def logits(images):
        redness = images.mean(axis=(2, 3))[:, :1] - images.mean(axis=(2, 3))[:, 2:]
        return sign * np.sign(redness) * np.reshape(offset, (10, 1)) * 4

    Fake(monkeypatch, logits)
    said = []
    result = evaluate.evaluate(path, backend_name=NAME, data=str(two), say=said.append)
    assert result["class_names"] == list(TWO)
    assert result["confusion"] == [[4, 1], [1, 4]]
    assert result["accuracy"] == 0.8
    probability = 1 / (1 + np.exp([2.0, -1, -1, -1, -1]))  # that of the right class
    assert result["loss"] == pytest.approx(-np.log(probability).mean(), rel=1e-12)
    assumed = "does not state which class the network's single output represents; assuming 'red'"
    assert any(assumed in sentence for sentence in said) == (own is None)


def test_classes_that_do_not_exclude_each_other_have_no_accuracy(colours, folder, tmp_path):
    path = saved(tmp_path / "w.safetensors", COLOUR, activation="sigmoid", **RANGE)
    done = invoke("evaluate", path, "--backend", NAME, "--data", folder)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        "mutually exclusive classes, one per image, found a sigmoid for each of the 3"
        in done.stderr
    )
    assert f"probability of each class, use: densenet-multi predict {path} IMAGE" in done.stderr
    colours.load.assert_not_called()


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        ({"activation": "sigmoid", "class_names": ("fox",)}, "'blue', 'red', found 'fox'; train a"),
        ({"activation": "softmax"}, "found one output with activation 'softmax'; train a new"),
        ({"activation": "none"}, "found one output with activation 'none'; train a new"),
    ],
)
@pytest.mark.usefixtures("colours")
def test_one_output_of_another_meaning_is_refused(two, tmp_path, usage, message):
    path = saved(tmp_path / "w.safetensors", small("cubic", num_classes=1), **usage, **RANGE)
    done = invoke("evaluate", path, "--backend", NAME, "--data", two)
    assert (done.exit_code, message in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("names", "restated"),
    [
        (("Red", "BLUE", "green"), "red,blue,green"),  # in the file's order
        (("rot", "blau", "green"), "NAMES"),
    ],
)
@pytest.mark.usefixtures("colours")
def test_class_names_that_are_spelled_otherwise_can_be_restated(folder, tmp_path, names, restated):
    path = saved(tmp_path / "w.safetensors", COLOUR, class_names=names, **RANGE)
    done = invoke("evaluate", path, "--backend", NAME, "--data", folder)
    call = f"densenet-multi convert {path} NEW.safetensors --class-names {restated}"
    assert done.stderr.rstrip().endswith(f"if only the names differ, replace them: {call}")
    assert "train a new classifier with: densenet-multi train" in done.stderr
    fewer = saved(tmp_path / "f.safetensors", small("cubic", num_classes=4), **RANGE)
    assert "restate" not in invoke("evaluate", fewer, "--backend", NAME, "--data", folder).stderr


@pytest.mark.usefixtures("colours")
def test_one_output_does_not_tell_three_classes_apart(folder, tmp_path):
    path = saved(tmp_path / "w.safetensors", small("cubic", num_classes=1), **RANGE)
    done = invoke("evaluate", path, "--backend", NAME, "--data", folder)
    assert "expected 3 classes as in the data, found one output" in done.stderr


@pytest.mark.parametrize(
    ("spec", "usage", "message"),
    [
        ({"num_classes": 4}, {}, "expected 10 classes as in the data, found 4; train a new"),
        ({"num_classes": 0}, {}, "a classifier, found one without (num_classes=0); train a new"),
        (
            {},
            {"class_names": ("Hat", *CLASSES[1:])},
            "found 'Hat' in place of 'T-shirt/top'; train a new",
        ),
    ],
)
def test_classes_that_do_not_fit_are_refused_with_the_command_that_helps(
    fake, tmp_path, spec, usage, message
):
    path = saved(tmp_path / "w.safetensors", small("cubic", **(FASHION | spec)), **usage)
    done = invoke("evaluate", path, "--backend", NAME, "--data", "sample")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert f"densenet-multi train --weights {path} --data sample" in done.stderr
    fake.load.assert_not_called()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backend", "jax"], 2, "backend 'jax' does not exist"),
        (["--data", "sampel"], 2, "did you mean 'sample'"),
        (["--data", "folder:nowhere"], 4, "nowhere: expected a folder"),
        (["--data", "sample", "--image-size", "1"], 2, "the smallest is"),
        (["--data", "sample", "--batch-size", "0"], 2, "of at least 1, found 0"),
        (["--data", "sample", "--seed", "3"], 2, "--seed: expected none with --data sample"),
        (
            ["--output", "no-such-folder/c.svg"],
            2,
            "expected an existing parent folder, found none: no-such-folder",
        ),
        (["--output", "c.json"], 2, "a name that ends in .svg, found c.json"),
    ],
)
def test_wrong_options_are_one_message(fake, weights, arguments, code, message):
    done = invoke("evaluate", weights, "--backend", NAME, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    fake.load.assert_not_called()


def test_a_checkpoint_of_another_project_is_named_with_the_command_that_converts_it(tmp_path):
    from safetensors.numpy import save_file

    path, pickled = tmp_path / "theirs.safetensors", tmp_path / "theirs.pth"
    save_file({"features.conv0.weight": np.zeros((2, 2), np.float32)}, path)
    with zipfile.ZipFile(pickled, "w") as file:  # as PyTorch writes them
        file.writestr("theirs/data.pkl", b"\x80\x02}.")
    for file in (path, pickled):
        for command in ["evaluate", file], ["predict", file, file]:
            done = invoke(*command, "--backend", NAME)
            assert done.exit_code == 1
            assert f"densenet-multi convert {file}" in done.stderr


def test_a_backend_that_is_not_installed_is_exit_code_3(fake, weights, picture):
    fake.load.side_effect = dm.BackendNotInstalledError("it is not there")
    for command in ["evaluate", weights, "--data", "sample"], ["predict", weights, picture]:
        done = invoke(*command, "--backend", NAME)
        assert (done.exit_code, done.stdout) == (3, "")


def test_answers_that_are_not_finite_are_refused(fake, weights, picture):
    fake.logits = lambda images: np.full((len(images), 10), np.nan)
    for command in ["evaluate", weights, "--data", "sample"], ["predict", weights, picture]:
        done = invoke(*command, "--backend", NAME)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "expected finite logits, found NaN or infinity for images 0 to" in done.stderr


# --- The picture --------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_the_picture_is_whole_xml_and_the_same_bytes_every_time(weights, tmp_path):
    arguments = ["evaluate", weights, "--backend", NAME, "--data", "sample", "--output"]
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        assert invoke(*arguments, path).exit_code == 0
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    texts = {node.text for node in ET.fromstring(first).iter() if node.tag.endswith("}text")}  # noqa: S314  # ours
    result = evaluate.evaluate(weights, backend_name=NAME, data="sample")
    counts = {f"{count:,}" for row in result["confusion"] for count in row if count}
    assert texts == {*CLASSES, *counts, "predicted", "true"}
    assert sorted(path.name for path in tmp_path.glob("*svg*")) == ["a.svg", "b.svg"]


@pytest.mark.parametrize(
    "names", [("$\\x{$", "<&>"), ("a" * 80, "b"), ("$a$", "$b$"), ("猫", "犬")]
)
def test_any_class_name_is_shown_as_it_is(names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = ET.fromstring(figures.confusion_matrix(np.array([[1, 2], [3, 0]]), names))  # noqa: S314
    assert {node.text for node in drawn.iter()} >= set(names)


def test_many_classes_are_a_picture_of_a_readable_size():
    names = tuple(f"class {i}" for i in range(300))
    drawn = ET.fromstring(figures.confusion_matrix(np.eye(300, dtype=np.int64), names))  # noqa: S314
    assert float(drawn.get("width").removesuffix("pt")) < 1500
    assert not {node.text for node in drawn.iter()} & set(names)


# --- predict ------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path):
    Image.new("L", (30, 20), 128).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_the_answers_are_the_softmax_of_the_logits_in_order(fake, tmp_path, picture):
    path = saved(tmp_path / "w.safetensors", class_names=CLASSES, **PIXELS)
    Image.fromarray(load_sample("test")[0][0]).save(tmp_path / "shirt.png")
    images = [picture, tmp_path / "shirt.png", picture]
    found = predict.predict(path, images, backend_name=NAME, batch_size=2)
    assert [entry["image"] for entry in found] == list(map(str, images))
    assert list(map(len, fake.seen)) == [2, 1]
    seen = np.concatenate(fake.seen)
    np.testing.assert_array_equal(seen[1:2], to_input(load_sample("test")[0][:1], 32))
    for logits, entry in zip(projected(seen), found, strict=True):
        exact = np.exp(logits) / np.exp(logits).sum()
        assert [row["index"] for row in entry["top"]] == np.argsort(exact)[::-1][:5].tolist()
        for row in entry["top"]:
            assert row["class"] == CLASSES[row["index"]]
            assert row["probability"] == pytest.approx(exact[row["index"]], rel=1e-12)


MODES = {  # mode -> an image of it, and the mean of its red, green, blue
    "L": (Image.new("L", (7, 50), 51), (0.2, 0.2, 0.2)),
    "RGB": (Image.new("RGB", (500, 3), (51, 102, 153)), (0.2, 0.4, 0.6)),
    "RGBA": (Image.new("RGBA", (32, 32), (51, 102, 153, 128)), (0.2, 0.4, 0.6)),
    "P": (Image.new("RGB", (40, 1), (51, 102, 153)).quantize(4), (0.2, 0.4, 0.6)),
    "I;16": (Image.new("I;16", (33, 31), 13107), (0.2, 0.2, 0.2)),
    "1": (Image.new("1", (1, 1), 1), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize(
    ("own", "asked", "expected"), [(40, None, 40), (None, None, 32), (40, 48, 48)]
)
def test_the_image_size_is_as_asked_or_that_of_the_weights_or_the_usual(
    fake, tmp_path, picture, own, asked, expected
):
    fake.logits = lambda images: np.zeros((len(images), 10))
    path = saved(tmp_path / "w.safetensors", image_size=own, **PIXELS)
    predict.predict(path, [picture], backend_name=NAME, image_size=asked)
    result = evaluate.evaluate(path, backend_name=NAME, data="sample", image_size=asked)
    assert result["image_size"] == expected
    assert {images.shape[2:] for images in fake.seen} == {(expected, expected)}


@pytest.mark.parametrize("mode", MODES)
def test_images_of_any_mode_and_size_are_read(colours, tmp_path, mode):
    image, expected = MODES[mode]
    assert image.mode == mode
    image.save(tmp_path / "i.png")
    path = saved(tmp_path / "w.safetensors", COLOUR, **PIXELS)
    predict.predict(path, [tmp_path / "i.png"], backend_name=NAME)
    assert colours.seen[0].shape == (1, 3, 32, 32)
    np.testing.assert_allclose(colours.seen[0].mean(axis=(2, 3)), [expected], rtol=1e-5)


def test_images_are_stretched_not_cropped(colours, tmp_path):
    half = Image.new("RGB", (200, 20), "red")
    half.paste("blue", (0, 0, 100, 20))
    half.save(tmp_path / "i.png")
    path = saved(tmp_path / "w.safetensors", COLOUR, **PIXELS)
    predict.predict(path, [tmp_path / "i.png"], backend_name=NAME, image_size=64)
    np.testing.assert_array_equal(colours.seen[0][0, 2, :, 0], np.ones(64))
    np.testing.assert_array_equal(colours.seen[0][0, 0, :, -1], np.ones(64))
    assert "square, not cropped" in " ".join(invoke("predict", "--help").stdout.split())


def test_json_of_predictions_is_a_list_of_images(colours, tmp_path):
    path = saved(tmp_path / "w.safetensors", COLOUR, **PIXELS)
    image = tmp_path / "i.jpg"
    Image.new("RGB", (9, 9), SHADES["green"]).save(image)
    done = invoke("predict", path, image, image, "--backend", NAME, "--format", "json")
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    assert first == second
    assert first["image"] == str(image)
    assert [row["class"] for row in first["top"]] == ["class 1", "class 0", "class 2"]
    assert set(first["top"][0]) == {"class", "index", "probability"}
    assert sum(row["probability"] for row in first["top"]) == pytest.approx(1)
    assert len(colours.seen) == 1


@pytest.mark.usefixtures("colours")
def test_a_block_for_each_image_shows_as_many_classes_as_asked(tmp_path):
    path = saved(
        tmp_path / "w.safetensors", COLOUR, class_names=("[red]", "green", ":b:"), **PIXELS
    )
    for name in "ab":
        Image.new("RGB", (9, 9), SHADES["red"]).save(tmp_path / f"{name}.png")
    images = tmp_path / "a.png", tmp_path / "b.png"
    done = invoke("predict", path, *images, "--backend", NAME, "--top", "2")
    assert done.exit_code == 0, done.stderr
    first, second = done.stdout.split("\n\n")
    for block, image in zip((first, second), images, strict=True):
        assert str(image) in block.replace("\n", "")
        assert [line.split() for line in block.splitlines()[-2:]] == [
            ["1.0000", "[red]"],
            ["0.0000", "green"],
        ]


@pytest.mark.parametrize("content", ["nothing of the kind", "half of it"])
def test_a_bad_image_among_several_is_named_and_nothing_is_printed(colours, tmp_path, content):
    path = saved(tmp_path / "w.safetensors", COLOUR, **PIXELS)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(good)
    bad.write_bytes(good.read_bytes()[:2000] if content == "half of it" else content.encode())
    done = invoke("predict", path, good, bad, good, "--backend", NAME, "--batch-size", "1")
    assert (done.exit_code, done.stdout) == (4, "")
    assert f"{bad}: expected a PNG, JPEG, WebP, BMP, TIFF or GIF image" in done.stderr
    if content != "half of it":
        colours.load.assert_not_called()


@pytest.mark.usefixtures("fake")
def test_what_is_assumed_about_pixels_is_said_on_stderr(tmp_path, picture, weights):
    silent = saved(tmp_path / "silent.safetensors")
    for command in ["evaluate", "--data", "sample"], ["predict", picture]:
        name, *rest = command
        assert not invoke(name, weights, *rest, "--backend", NAME).stderr
        done = invoke(name, silent, *rest, "--backend", NAME, "--format", "json")
        assert done.exit_code == 0
        assert f"{silent}: does not state which pixel values" in done.stderr
        assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'IMAGE...'"),
        (["nowhere.png"], 2, "nowhere.png"),
        (["PICTURE", "--top", "0"], 2, "of at least 1, found 0"),
        (["PICTURE", "--backend", "jax"], 2, "backend 'jax' does not exist"),
    ],
)
def test_wrong_arguments_of_predict_are_one_message(weights, picture, arguments, code, message):
    given = [picture if word == "PICTURE" else word for word in arguments]
    done = invoke("predict", weights, *given)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_network_without_a_classifier_predicts_nothing(tmp_path, picture):
    path = saved(tmp_path / "w.safetensors", small("cubic", in_channels=1, num_classes=0))
    done = invoke("predict", path, picture, "--backend", NAME)
    assert done.exit_code == 2
    assert "found one without (num_classes=0)" in done.stderr


# --- With each backend --------------------------------------------------------------------------


@pytest.mark.long("keras", "flax")
def test_a_backends_numbers_are_those_of_its_own_logits(backend, tmp_path, picture):
    path = saved(tmp_path / "w.safetensors", image_size=16, class_names=CLASSES, **PIXELS)
    checkpoint = dm.load_checkpoint(path)
    model = backend.build(checkpoint.spec, dtype="float64")
    backend.import_weights(model, checkpoint.weights)

    done = invoke(
        "evaluate", path, "--backend", backend.NAME, "--data", "sample", "--batch-size", "500",
        "--format", "json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    images, labels = load_sample("test")
    logits = np.concatenate([backend.predict(model, to_input(x, 16)) for x in np.split(images, 2)])
    right = logits.argmax(axis=1) == labels
    assert result["accuracy"] == right.mean()
    assert result["loss"] == pytest.approx(dm.reference.cross_entropy(logits, labels), rel=1e-12)
    expected = {name: right[labels == i].mean() for i, name in enumerate(CLASSES)}
    assert result["per_class"] == expected

    (entry,) = predict.predict(path, [picture], backend_name=backend.NAME, top=10)
    prepared = np.full((1, 1, 16, 16), read_image(picture, 1)[0, 0, 0])
    (exact,) = predict.softmax(backend.predict(model, prepared))
    for row in entry["top"]:
        assert row["probability"] == pytest.approx(exact[row["index"]], rel=1e-9)


# --- Device -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_device_that_was_asked_for(weights, picture, fake, monkeypatch, command):
    monkeypatch.setattr(predict, "hide_gpus", hide := Mock())
    what = ["--backend", NAME, *(["--data", "sample"] if command == "evaluate" else [picture])]
    fake.use_gpu.return_value = False  # there is none
    refused = invoke(command, weights, *what, "--device", "gpu")
    assert (refused.exit_code, "found none; use --device cpu" in refused.stderr) == (1, True)
    assert not hide.called
    fake.use_gpu.reset_mock()
    assert invoke(command, weights, *what, "--device", "cpu").exit_code == 0
    assert (hide.call_count, fake.use_gpu.called) == (1, False)
    assert invoke(command, weights, *what).exit_code == 0
    assert fake.use_gpu.called


@pytest.mark.long("keras", "flax")
def test_recalibrated_statistics_are_means_over_batches(backend):
    spec = small("bottleneck", num_classes=3)
    weights = random_weights(spec)
    examples = Arrays(images(spec, 32, count=10), labels(spec, 10))
    found = evaluate.recalibrated(
        backend.NAME, Checkpoint(spec, weights), examples, 2, batch_size=4
    )
    assert list(found) == list(weights)
    batches = [
        dm.reference.forward(
            replace(spec.config, bn_decay=0.0).resolve(),
            weights,
            examples.take(epoch_order(10, 0, 0)[start : start + 4]),
            training=True,
            variance=backend.RUNNING_VARIANCE,
        ).statistics
        for start in (0, 4)
    ]
    for name, array in weights.items():
        expected = np.mean([b[name] for b in batches], axis=0) if name in batches[0] else array
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


@pytest.mark.usefixtures("fake")
def test_evaluation_with_statistics_measured_anew(weights, monkeypatch):
    anew = Mock(side_effect=lambda _, checkpoint, *__, **___: checkpoint.weights)
    monkeypatch.setattr(evaluate, "recalibrated", anew)
    common = ["evaluate", weights, "--backend", NAME, "--data", "sample", "--format", "json"]
    plain, again = invoke(*common), invoke(*common, "--recalibrate", 7)
    assert (plain.exit_code, again.exit_code) == (0, 0)
    (name, _, examples, batches), given = anew.call_args
    assert (name, len(examples), batches, given) == (NAME, 1000, 7, {"device": None})
    assert json.loads(again.stdout)["recalibrate"] == 7
    assert json.loads(plain.stdout)["recalibrate"] == anew.call_count - 1 == 0


def test_evaluation_in_bfloat16_takes_an_optimized_model(weights, fake):
    fake.optimize = Mock(return_value="optimized")
    fake.predict = Mock(
        side_effect=lambda model, images: projected(images) * (model == "optimized")
    )
    common = ["evaluate", weights, "--backend", NAME, "--data", "sample"]
    done = invoke(*common, "--bfloat16", "--format", "json")
    fake.optimize.assert_called_once_with(fake.build.return_value, bfloat16=True)
    found = json.loads(done.stdout)
    assert found["bfloat16"] is True
    assert found["loss"] != pytest.approx(np.log(10))  # the other model's equal logits
    assert f"in {NAME}, bfloat16" in invoke(*common, "--bfloat16").stdout
    assert json.loads(invoke(*common, "--format", "json").stdout)["bfloat16"] is False
    assert fake.optimize.call_count == 2
