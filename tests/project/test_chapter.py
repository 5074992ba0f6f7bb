"""The chapter's pictures and numbers are those of the stored results."""

import json
import re
from math import log, sqrt
from pathlib import Path
from runpy import run_path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import densenet_multi as dm

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CHAPTER = " ".join((RESULTS.parent / "chapter.md").read_text("utf-8").split())
NAMES = tuple(f"chapter-{name}" for name in ("curves", "confusion", "reading", "weights", "memory"))


def read(name):
    return json.loads((RESULTS / "data" / f"{name}.json").read_text("utf-8"))


def ends_of(schedule):
    """The lowest and the highest test accuracy after the last epoch, over the four frameworks."""
    runs = [read(f"sample-curves-{name}") for name in ("torch", "keras", "gluon", "flax")]
    last = [run["epochs"][schedule][-1]["validation_accuracy"] for run in runs]
    return [min(last), max(last)]


def inside(matrix):
    """What the layers 2 and later of each block read, without the reader after the block."""
    return [value for rows in matrix.values() for row in rows for value in row[1:-1] if value]


def columns(rows):
    """What the layers 2 to 4 of a block read, with their numbers counted from 0."""
    return list(enumerate(zip(*rows, strict=True)))[1:-1]


def losses_of(schedule):
    """The lowest and the highest training loss of the last epoch, over the four frameworks."""
    runs = [read(f"sample-curves-{name}") for name in ("torch", "keras", "gluon", "flax")]
    last = [run["epochs"][schedule][-1]["loss"] for run in runs]
    return [min(last), max(last)]


def memory_of(depth, case, backend="torch"):
    """The memory of a training step in GiB."""
    cases = read(f"growth-{depth}")["backends"][backend]["cases"]
    return cases[case]["grown_bytes"] / 2**30


def counted(depth):
    """The memory of an image in MiB, as counted."""
    spec = dm.cifar_config(depth, growth_rate=12, bottleneck=True).resolve()
    return sum(stage.activation_bytes() for stage in dm.profile(spec, 32, 32)) / 2**20


def millions(depth, growth_rate):
    """How many parameters the paper's DenseNet-BC has."""
    spec = dm.cifar_config(depth, growth_rate=growth_rate, bottleneck=True).resolve()
    return dm.count_parameters(spec).trainable / 1e6


def saved_by_pooling_first():
    """How many billion multiply-adds of densenet121; a quarter of each convolution is left."""
    stages = dm.profile(dm.get_spec("densenet121"), 224, 224)
    work = sum(stage.multiply_adds for stage in stages if "transition" in stage.name)
    return 3 / 4 * work / 1e9


def slower(name, backend):
    """By what factor recomputation lengthens a training step."""
    return 1 / read(name)["backends"][backend]["cases"]["plain"]["ratio"]


READING = read("reading")
FIRST_SOURCES = [rows[0][-1] for rows in READING["cut_off"].values()]
FIRST_WEIGHTS, LAST_WEIGHTS = (  # what each transition reads, and the classifier
    [rows[source][-1] for rows in READING["reading"].values()] for source in (0, -1)
)
ENDS = [*ends_of("linear"), *ends_of("constant")]
MEAN, GPU = read("chapter-torch-mean"), read("gpu-chapter")
N, SHARE = r"(\d+(?:\.\d+)?)", r"(0\.\d{2,})"
SAID = {  # what the chapter says -> its numbers in the stored results
    rf"{SHARE} to {SHARE},? (?:instead of|against|rather than) {SHARE} to {SHARE}": ENDS,
    rf"between {SHARE} and {SHARE} with the constant": losses_of("constant"),
    rf"between {SHARE} and {SHARE} with the falling": losses_of("linear"),
    rf"1,000 images has a standard error of about {SHARE}": [
        sqrt(np.mean(ENDS) * (1 - np.mean(ENDS)) / 1000)
    ],
    rf"DenseNet-BC, \$k = 12\$ \| 100 \| {N} million": [millions(100, 12)],
    rf"DenseNet-BC, \$k = 40\$ \| 190 \| {N} million": [millions(190, 40)],
    rf"saves densenet121 {SHARE} billion": [saved_by_pooling_first()],
    rf"took {N} minutes": [MEAN["training_seconds"] / 60],
    rf"{N} seconds on (?:one|a) GPU": [GPU["training_seconds"]],
    rf"statistics recomputed \| {SHARE} \| {SHARE}": [
        each["final"]["test_accuracy"] for each in (MEAN, GPU)
    ],
    rf"{N}% of the images": [100 * read("recalibrated-best")["accuracy"]],
    rf"from {SHARE} to {SHARE}": [
        read("chapter-torch-1")["epochs"][-1]["validation_accuracy"],
        read("recalibrated-last-1")["accuracy"],
    ],
    rf"test accuracy (?:is|was) {SHARE}[.,;]": [READING["test_accuracy"]],
    rf"differ little: they are between {SHARE} and {N}\.": [
        each(inside(READING["reading"])) for each in (min, max)
    ],
    rf"input with {SHARE} to {SHARE} and the last layer with {N} to {N}\.": [
        each(ends[:-1]) for ends in (FIRST_WEIGHTS, LAST_WEIGHTS) for each in (min, max)
    ],
    rf"classifier reads the block's input with {SHARE} and the last layer with {N}\.": [
        FIRST_WEIGHTS[-1],
        LAST_WEIGHTS[-1],
    ],
    rf"loss, which is {SHARE}": [READING["loss"]],
    rf"input, the loss rises by {SHARE} to {SHARE}": [min(FIRST_SOURCES), max(FIRST_SOURCES)],
    rf"input most, by {SHARE} to {SHARE}": [
        min(FIRST_SOURCES[:-1]),
        max(FIRST_SOURCES[:-1]),
    ],
    rf"newest layer most, by {SHARE}, and the block's input by {SHARE}": [
        READING["cut_off"]["denseblock4"][-1][-1],
        FIRST_SOURCES[-1],
    ],
    rf"without it the loss rises by {SHARE} to {SHARE}": [
        each(rows[0][0] for rows in READING["cut_off"].values()) for each in (min, max)
    ],
    rf"block's input by {SHARE} at most": [max(inside(READING["cut_off"]))],
    rf"any other source by {SHARE} at most": [
        max(inside({block: rows[1:] for block, rows in READING["cut_off"].items()}))
    ],
    rf"without recomputation needs {N} GiB": [memory_of(250, "plain")],
    rf"With recomputation, the step needs {N} GiB": [memory_of(250, "efficient")],
    rf"the count above says: {N} MiB": [counted(250)],
    rf"plain step needs {N} GiB there and {N} GiB in Keras": [
        memory_of(190, "plain", backend) for backend in ("torch", "keras")
    ],
    rf"{N} to {N} times\]": [
        each(slower("bench-memory", name) for name in ("flax", "gluon", "keras", "torch"))
        for each in (min, max)
    ],
    rf"up to {N}% more time": [100 * slower("bench-memory", "flax") - 100],
    rf"{N} times\]\(results/gpu": [slower("gpu-memory", "torch")],
    rf"after the last epoch \| {SHARE} \| {SHARE}": [
        each["epochs"][-1]["validation_accuracy"] for each in (MEAN, GPU)
    ],
    rf"to the power of {N} in PyTorch": [
        log(memory_of(250, "plain") / memory_of(40, "plain")) / log(250 / 40)
    ],
}


@pytest.fixture(scope="module")
def script():
    return run_path(str(RESULTS / "scripts" / "chapter.py"))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_drawn_from_the_stored_results(script, name):
    stored = (RESULTS / "data" / f"{name}.svg").read_text("utf-8")
    assert script["PICTURES"][name]() == stored


@pytest.mark.parametrize("name", NAMES)
def test_pictures_describe_themselves_and_bring_no_background(name):
    root = ET.parse(RESULTS / "data" / f"{name}.svg").getroot()  # noqa: S314  # our own file
    said = {child.tag.rpartition("}")[2]: child.text for child in root}
    assert said["title"]
    assert said["desc"]
    assert root.get("role") == "img"
    assert root.get("fill") == "currentColor"


def test_reading_finds_the_source_that_a_layer_reads_most(script):
    spec = dm.get_spec("d2l")
    weights = dict(dm.init_weights(spec))
    name = "features.denseblock1.denselayer3.conv1.weight"
    weights[name] = np.ones_like(weights[name])
    weights[name][:, 64:96] = 3  # what layer 1 wrote, after the 64 channels of the block's input
    found = script["reading"](spec, weights)["denseblock1"]
    assert [row[2] for row in found] == [0.6667, 2.0, 0.6667, None, None]
    norm = "features.denseblock1.denselayer3.norm1.weight"
    weights[norm] = np.ones_like(weights[norm])
    weights[norm][64:96] = -1 / 3  # the scale undoes it; its sign does not matter
    found = script["reading"](spec, weights)["denseblock1"]
    assert [row[2] for row in found] == [1.0, 1.0, 1.0, None, None]


def test_a_reader_is_cut_off_from_one_source_at_a_time(script):
    spec = dm.get_spec("d2l", block_config=(2,))
    weights = dm.init_weights(spec)

    def loss(changed):  # the first and the last channel whose scale is 0, as one number
        norms = [name for name in weights if (changed[name] != weights[name]).any()]
        zeros = {norm: np.flatnonzero(changed[norm] == 0) for norm in norms}
        return sum(at.min() * 1000 + at.max() for at in zeros.values())

    found = script["cut_off"](spec, weights, loss)["denseblock1"]
    first, second, third = 63, 64_095, 96_127  # channels 0 to 63, 64 to 95, 96 to 127
    assert found == [[first, first, first], [None, second, second], [None, None, third]]


def test_layers_read_their_newest_maps_most_and_the_input_less_than_average():
    layers = [
        column[: i + 1] for rows in READING["reading"].values() for i, column in columns(rows)
    ]
    assert len(layers) == 12
    assert all(read_by[0] < 1 for read_by in layers)
    assert sum(read_by[-1] == max(read_by) for read_by in layers) >= 11  # "almost all"


@pytest.mark.parametrize("pattern", SAID)
def test_the_numbers_of_the_text_are_those_of_the_stored_results(pattern):
    found = [each if isinstance(each, tuple) else (each,) for each in re.findall(pattern, CHAPTER)]
    assert found, f"no sentence of docs/chapter.md fits {pattern!r}; adapt the pattern"
    for numbers in found:
        digits = [len(number.partition(".")[2]) for number in numbers]
        expected = [f"{v:.{d}f}" for v, d in zip(SAID[pattern], digits, strict=True)]
        assert list(numbers) == expected
