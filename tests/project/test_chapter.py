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
    found = script["reading"](spec, weights)["denseblock1"]["weights"]
    assert [row[2] for row in found] == [0.667, 2.0, 0.667, None, None]


def test_reading_can_include_the_scale_of_the_normalization(script):
    spec = dm.get_spec("d2l")
    weights = dict(dm.init_weights(spec))
    layer = "features.denseblock1.denselayer3"
    weights[f"{layer}.conv1.weight"] = np.ones_like(weights[f"{layer}.conv1.weight"])
    scale = np.ones(128, np.float32)
    scale[96:] = 0  # layer 2 is switched off
    weights[f"{layer}.norm1.weight"] = scale
    found = script["reading"](spec, weights)["denseblock1"]
    assert [row[2] for row in found["weights"]] == [1.0, 1.0, 1.0, None, None]
    assert found["scaled"][2][2] == 0.0
