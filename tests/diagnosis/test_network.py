"""The network of the doctor is the reference, taken apart."""

from itertools import pairwise

import numpy as np
import pytest

import densenet_multi as dm
from cases import SMALL, images, random_weights, small
from densenet_multi.diagnosis.network import OPERATIONS, OUTPUT, Change, Network


@pytest.mark.parametrize("name", SMALL)
def test_without_a_change_every_stage_is_that_of_the_reference(name):
    spec = small(name)
    weights, x = random_weights(spec), images(spec, 44, 37)
    expected = dm.reference.forward(spec, weights, x)
    found = Network(spec, weights).outputs(x)
    assert list(found) == ["input", *expected.stages, OUTPUT]
    for stage, maps in expected.stages.items():
        np.testing.assert_array_equal(found[stage], maps)
    np.testing.assert_array_equal(found[OUTPUT], expected.logits)


def test_stages_can_be_computed_one_at_a_time():
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 44)
    network = Network(spec, weights)
    found = network.outputs(x)
    for before, stage in pairwise(network.stages):
        np.testing.assert_array_equal(network.stage(stage, found[before]), found[stage])
    with pytest.raises(ValueError, match="stage: expected one of"):
        network.stage("denseblock9", x)


def test_a_change_applies_where_it_says():
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 44)
    network = Network(spec, weights)
    plain = network.outputs(x)
    for operation in OPERATIONS:
        places = network.places(operation)
        assert places, operation
        for place in {places[0], places[-1]}:
            change = Change(operation, lambda op, at, *args: -op(at, *args), place.__eq__)
            found = network.outputs(x, [change])
            stages = network.stages
            first = next(s for s in stages if not np.array_equal(found[s], plain[s]))
            assert first == place.stage
