"""Counted layer by layer: DenseNets as the manifest counts them, ResNets as published."""

import pytest

import densenet_multi as dm
from densenet_multi.exercises._layers import KINDS, STAGES, layers_of, summed
from densenet_multi.exercises.parameters import DENSENETS, PUBLISHED, counted
from densenet_multi.exercises.resnet import (
    RESNETS,
    ResNetConfig,
    layers_of_resnet,
    resnet_depth,
)


@pytest.mark.parametrize("size", [33, 96, 224])
@pytest.mark.parametrize("variant", ["d2l", "densenet121", "densenet_bc32_k32"])
def test_the_layers_of_a_densenet_add_up_to_its_profile(variant, size):
    spec = dm.get_spec(variant)
    found = summed(layers_of(spec, size), "stage")
    expected = {stage: {"parameters": 0, "multiply_adds": 0} for stage in found}
    blocks = len(spec.stages)
    for each in dm.profile(spec, size, size):
        number = each.name.removeprefix("denseblock").removeprefix("transition")
        stage = f"stage {blocks if each.name == 'norm5' else number}"
        stage = each.name if each.name in ("stem", "classifier") else stage
        expected[stage]["parameters"] += each.parameters.trainable
        expected[stage]["multiply_adds"] += each.multiply_adds
    assert found == expected


def test_a_layers_kind_is_that_of_its_specification():
    found = {each.name: each.kind for each in layers_of(dm.get_spec("densenet121"), 224)}
    layer = "features.denseblock1.denselayer1"
    names = ["features.conv0", f"{layer}.norm1", f"{layer}.conv1", f"{layer}.conv2", "classifier"]
    assert [found[name] for name in names] == ["7x7", "BatchNorm", "1x1", "3x3", "linear"]


# torchvision's documentation of its pretrained weights: num_params; GFLOPS; the depth in the name
@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        ("resnet18", 11_689_512, 1.81),
        ("resnet34", 21_797_672, 3.66),
        ("resnet50", 25_557_032, 4.09),
        ("resnet101", 44_549_160, 7.80),
        ("resnet152", 60_192_808, 11.51),
        ("densenet121", 7_978_856, 2.83),
        ("densenet161", 28_681_000, 7.73),
        ("densenet169", 14_149_480, 3.36),
        ("densenet201", 20_013_928, 4.29),
    ],
)
def test_a_network_has_the_published_counts(name, parameters, gflops):
    found = counted(name)
    assert (found["parameters"], round(found["multiply_adds"] / 1e9, 2)) == (parameters, gflops)
    assert PUBLISHED[name] == (parameters, gflops)
    assert found["depth"] == int(name.removeprefix("resnet").removeprefix("densenet"))
    assert set(found["stages"]) <= set(STAGES)
    assert set(found["kinds"]) <= set(KINDS)
    for group in ("stages", "kinds"):
        for what in ("parameters", "multiply_adds"):
            assert sum(each[what] for each in found[group].values()) == found[what]


def test_every_network_of_the_exercise_has_a_published_count():
    assert set(PUBLISHED) == {*RESNETS, *DENSENETS}


def test_a_bottlenecks_3x3_convolution_has_the_stride():
    found = {each.name: each for each in layers_of_resnet(RESNETS["resnet50"], 224)}
    assert found["layer2.0.conv1"].multiply_adds == 56 * 56 * 256 * 128
    assert found["layer2.0.conv2"].multiply_adds == 28 * 28 * 128 * 128 * 9
    assert found["layer2.0.downsample.0"].multiply_adds == 28 * 28 * 256 * 512
    assert "layer2.1.downsample.0" not in found


def test_a_small_resnet_by_hand():
    config = ResNetConfig((1, 1), width=2, in_channels=1, num_classes=3, stem="cifar")
    found = {
        each.name: (each.parameters, each.multiply_adds) for each in layers_of_resnet(config, 5)
    }
    assert found == {
        "conv1": (18, 450),
        "bn1": (4, 0),
        "layer1.0.conv1": (36, 900),
        "layer1.0.bn1": (4, 0),
        "layer1.0.conv2": (36, 900),
        "layer1.0.bn2": (4, 0),
        "layer2.0.conv1": (72, 648),
        "layer2.0.bn1": (8, 0),
        "layer2.0.conv2": (144, 1296),
        "layer2.0.bn2": (8, 0),
        "layer2.0.downsample.0": (8, 72),
        "layer2.0.downsample.1": (8, 0),
        "fc": (15, 12),
    }
    assert resnet_depth(config) == 6
