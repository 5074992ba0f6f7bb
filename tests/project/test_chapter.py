"""The chapter's pictures: each is what its script draws from the stored results."""

from pathlib import Path
from runpy import run_path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import densenet_multi as dm

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NAMES = ("chapter-curves", "chapter-confusion", "chapter-reading", "chapter-memory")


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


def test_a_reader_is_cut_off_from_one_source_at_a_time(script):
    spec = dm.get_spec("d2l", block_config=(2,))
    weights = dm.init_weights(spec)

    def loss(changed):  # where the only changed scale is 0, as bits
        norms = [name for name in weights if (changed[name] != weights[name]).any()]
        zeros = {norm: np.flatnonzero(changed[norm] == 0) for norm in norms}
        return sum(at.min() * 1000 + at.max() for at in zeros.values())

    found = script["cut_off"](spec, weights, loss)["denseblock1"]
    first, second, third = 63, 64_095, 96_127  # channels 0 to 63, 64 to 95, 96 to 127
    assert found == [[first, first, first], [None, second, second], [None, None, third]]
