"""What outputs mean: one class per image, a probability for each class, or plain numbers."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi.commands import main
from densenet_multi.commands.predict import blocks
from densenet_multi.tasks import _trained_by, predict

NAME = dm.backend_names()[0]
LOGITS = {4: [[0.5, -2.0, 3.0, 0.0], [-1.0, 1.5, -3.0, 0.25]], 1: [[2.0], [-0.75]]}
KNOWN = {"value_range": (0.0, 1.0)}


def logistic(x):
    return 1 / (1 + np.exp(-np.array(x)))


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.new("RGB", (20, 20), "teal").save(path)
    return paths


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Return a function that saves a portable file, with a backend that returns ``LOGITS``."""

    def save(classes, logits=None, **usage):
        spec = small("cubic", num_classes=classes)
        path = tmp_path / "w.safetensors"
        dm.save_weights(path, spec, random_weights(spec), dm.Usage(image_size=16, **usage))
        backend = Mock(FRAMEWORK="Fake")
        backend.predict = lambda _, images: np.array(logits or LOGITS[classes])[: len(images)]
        monkeypatch.setattr(predict, "load_backend", Mock(return_value=backend))
        return path

    return save


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def answers(path, pictures, *options):
    """Return the JSON and stderr of the command."""
    done = invoke("predict", path, *pictures, "--backend", NAME, "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout), done.stderr


# --- Several outputs ----------------------------------------------------------------------------


def test_labels_of_their_own_are_all_shown_with_the_probability_of_each(saved, pictures):
    path = saved(4, activation="sigmoid", class_names=list("wxyz"), **KNOWN)
    found, said = answers(path, pictures)
    assert not said
    for entry, logits in zip(found, LOGITS[4], strict=True):
        assert entry["activation"] == "sigmoid"
        expected = sorted(zip(logistic(logits), "wxyz", strict=True), reverse=True)
        actual = [(row["probability"], row["class"]) for row in entry["top"]]
        assert [name for _, name in actual] == [name for _, name in expected]
        np.testing.assert_allclose([p for p, _ in actual], [p for p, _ in expected], rtol=1e-12)


def test_more_labels_than_five_are_shown_unless_fewer_are_requested(saved, pictures):
    logits = np.random.default_rng(0).normal(size=(2, 9)).tolist()
    path = saved(9, logits, activation="sigmoid", **KNOWN)
    assert {len(entry["top"]) for entry in answers(path, pictures)[0]} == {9}
    assert {len(entry["top"]) for entry in answers(path, pictures, "--top", 2)[0]} == {2}
    path = saved(9, logits, activation="softmax", **KNOWN)
    assert {len(entry["top"]) for entry in answers(path, pictures)[0]} == {5}


def test_numbers_that_are_no_probabilities_are_not_called_so(saved, pictures):
    path = saved(4, activation="none", **KNOWN)
    found, said = answers(path, pictures)
    assert not said
    assert (found[0]["activation"], found[0]["image_size"]) == ("none", 16)
    assert found[0]["top"][0] == {"class": "output 2", "index": 2, "output": 3.0}
    assert [row["output"] for row in found[1]["top"]] == [1.5, 0.25, -1.0, -3.0]
    shown = invoke("predict", path, pictures[0], "--backend", NAME).stdout.splitlines()
    assert shown[-6] == "  resized to 16x16"
    assert shown[-5].split(maxsplit=1) == ["output", "(no probability)"]
    assert shown[-4].split() == ["3.0000", "output", "2"]


def test_a_softmax_that_no_file_states_is_called_assumed(saved, pictures):
    exact = np.exp(LOGITS[4][0]) / np.exp(LOGITS[4][0]).sum()
    for usage, is_said in (({}, True), ({"activation": "softmax"}, False)):
        path = saved(4, **usage, **KNOWN)
        found, said = answers(path, pictures)
        assert found[0]["activation"] == "softmax"
        assert found[0]["top"][0]["probability"] == pytest.approx(exact[2], rel=1e-12)
        assert (f"{path}: does not state what its outputs mean; assuming a softmax" in said) == (
            is_said
        )


# --- One output ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "name", "said"),
    [
        ({"activation": "sigmoid", "class_names": ["tumor"]}, "tumor", ""),
        ({"activation": "sigmoid"}, "positive class", ""),
        ({}, "positive class", "does not state what its outputs mean; assuming a sigmoid"),
    ],
)
def test_one_output_is_the_probability_of_one_class_never_a_softmax(
    saved, pictures, usage, name, said
):
    path = saved(1, **usage, **KNOWN)
    found, told = answers(path, pictures)
    assert said in told
    assert bool(said) == bool(told)
    for entry, logits in zip(found, LOGITS[1], strict=True):
        (row,) = entry["top"]
        assert (entry["activation"], row["class"], row["index"]) == ("sigmoid", name, 0)
        assert row["probability"] == pytest.approx(logistic(logits[0]), rel=1e-12)


def test_a_softmax_of_one_output_is_said_to_be_1_and_the_output_is_shown(saved, pictures):
    found, said = answers(saved(1, activation="softmax", **KNOWN), pictures)
    assert "the softmax of one output is 1 for every image" in said
    assert [entry["top"][0]["output"] for entry in found] == [2.0, -0.75]


def test_the_probability_of_one_class_is_never_rounded_to_certainty():
    for probability, expected in ((1 - 1e-9, "> 0.9999"), (1e-9, "< 0.0001"), (0.25, "0.2500")):
        row = {"class": "x", "index": 0, "probability": probability}
        console = invoke_blocks(
            [{"image": "a.png", "image_size": 16, "activation": "sigmoid", "top": [row]}]
        )
        assert console.splitlines()[-1].split("  ")[1:] == [expected, "x"]


def invoke_blocks(found):
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(blocks(found))
    return capture.get().rstrip()


def test_a_sigmoid_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        actual = predict.sigmoid([[-1e4, -30, 0, 30, 1e4]])
    expected = [[0, np.exp(-30) / (1 + np.exp(-30)), 0.5, 1 / (1 + np.exp(-30)), 1]]
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


# --- What is assumed ----------------------------------------------------------------------------


def test_what_is_assumed_about_pixels_and_names_is_said(saved, pictures):
    usage = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "class_names": list("abcd"), **KNOWN}
    path = saved(4, activation="softmax", assumed=("mean", "std", "class_names"), **usage)
    found, said = answers(path, pictures)
    pixels = "does not state which pixel values the network expects; assuming 0 to 1, mean 0.5, 0.5"
    assert f"{path}: {pixels}, 0.5, std 0.2, 0.2, 0.2\n" in said
    assert f"{path}: does not state its class names; assuming ImageNet's (a, b, c, ...)" in said
    assert found[0]["top"][0]["class"] == "c"
    assert not answers(saved(4, activation="softmax", **usage), pictures)[1]


# --- Which backend ------------------------------------------------------------------------------


def test_the_backend_that_trained_predicts_unless_another_is_requested(
    saved, pictures, monkeypatch
):
    monkeypatch.setattr(_trained_by, "framework_versions", lambda _: {"x": "1"})
    first, other = NAME, dm.backend_names()[-1]
    monkeypatch.setattr(_trained_by, "first_installed", lambda: first)
    path = saved(4, activation="softmax", source=f"densenet_multi, {other}, sample", **KNOWN)
    said: list[str] = []
    predict.predict(path, pictures, say=said.append)
    predict.load_backend.assert_called_once_with(other)
    assert f"using {other}, which trained it" in said[0]
    predict.predict(path, pictures, backend_name=first, say=said.append)
    predict.load_backend.assert_called_with(first)
    assert len(said) == 1
