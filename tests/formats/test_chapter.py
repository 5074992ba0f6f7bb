"""The network of the chapter in Dive into Deep Learning, recognized by its layers' places."""

import numpy as np
import pytest

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi.formats._chapter import (
    chapter_names,
    is_chapter_in_keras,
    names_in_order,
    pads_same,
)
from densenet_multi.formats.recognize import checkpoint_of, variant_name

D2L = dm.get_spec("d2l")
GLUON = {"norm.weight": "gamma", "norm.bias": "beta"}


def places(spec, edition):
    """Return {canonical layer: its place in the network of an edition}."""
    last = len(spec.config.block_config) - 1
    found = {"features.conv0": "0.0", "features.norm0": "0.1"}
    block, between = "{0}", "{0}"
    step, first = 2, 1
    if edition in ("mxnet", "chinese"):  # the stem's layers are not in a Sequential of their own
        found = {"features.conv0": "0", "features.norm0": "1"}
        first = 4
    if edition == "chinese":
        block, between, step = "DenseBlosk_{1}", "transition_block_{1}", 0
        found |= {"features.norm5": "BN", "classifier": "fc.1"}
    elif edition == "torch 2":
        found = {name: f"net.{place}" for name, place in found.items()}
        block, between = "net.dense_blk{2}", "net.tran_blk{2}"
        found |= {"features.norm5": "net.last.0", "classifier": "net.last.4"}
    else:
        end = first + 2 * last + 1
        found |= {"features.norm5": str(end), "classifier": str(end + (4, 3)[edition == "mxnet"])}
    for i, layers in enumerate(spec.config.block_config):
        at = first + step * i
        for j in range(layers):
            for leaf, inside in (("norm1", 0), ("conv1", 2)):
                name = f"features.denseblock{i + 1}.denselayer{j + 1}.{leaf}"
                found[name] = f"{block.format(at, i, i + 1)}.net.{j}.{inside}"
        if i < last:
            for leaf, inside in (("norm", 0), ("conv", 2)):
                place = between.format(at + 1, i, i + 1)
                found[f"features.transition{i + 1}.{leaf}"] = f"{place}.{inside}"
    return found


def names(spec, edition, around=""):
    """Return {name in the file: (canonical name, shape)}."""
    where = places(spec, edition)
    found = {}
    for name, info in dm.tensors(spec).items():
        layer, _, leaf = name.rpartition(".")
        leaf = GLUON.get(info.kind, leaf) if edition == "mxnet" else leaf
        found[f"{around}{where[layer]}.{leaf}"] = (name, info.shape)
    return found


def shapes(spec, edition, around=""):
    return {name: shape for name, (_, shape) in names(spec, edition, around).items()}


EDITIONS = ["torch 1", "torch 2", "mxnet", "chinese"]


@pytest.mark.parametrize("around", ["", "module.", "state_dict.model."])
@pytest.mark.parametrize("edition", EDITIONS)
def test_every_edition_gives_each_tensor_its_name(edition, around):
    written = names(D2L, edition, around)
    expected = {name: canonical for name, (canonical, _) in written.items()}
    assert chapter_names(shapes(D2L, edition, around)) == expected


@pytest.mark.parametrize("edition", EDITIONS)
def test_names_in_another_order_are_the_same_network(edition):
    # safetensors sorts names, so that layer 10 comes before layer 2
    spec = small("plain with bias", block_config=(11, 1, 1, 2))
    written = names(spec, edition)
    expected = {name: canonical for name, (canonical, _) in written.items()}
    assert chapter_names(dict(sorted(shapes(spec, edition).items()))) == expected


def test_weights_come_back_as_the_variant_d2l():
    weights = as_float32(random_weights(D2L))
    found = chapter_names(shapes(D2L, "torch 2"))
    read = checkpoint_of({c: weights[c] for c in found.values()}, "unbiased", "a reader")
    assert variant_name(read.spec.config) == "d2l"
    for name, array in weights.items():
        np.testing.assert_array_equal(read.weights[name], array)


@pytest.mark.parametrize(
    "overrides",
    [
        {"growth_rate": 12, "num_init_features": 24},
        {"block_config": (6, 12)},
        {"num_classes": 3, "in_channels": 3, "compression": 1.0},
    ],
)
def test_a_reader_may_have_chosen_other_numbers(overrides):
    spec = dm.get_spec("d2l", **overrides)
    found = chapter_names(shapes(spec, "torch 1"))
    assert sorted(found.values()) == sorted(dm.tensors(spec))


@pytest.mark.parametrize(
    "others",
    [
        {"conv1.weight": (64, 3, 7, 7), "layer1.0.bn1.weight": (64,), "fc.weight": (9, 64)},
        {f"0.net.0.0.{leaf}": (8,) for leaf in ("weight", "bias")},
        {name: info.shape for name, info in dm.tensors(small("bottleneck")).items()},
    ],
)
def test_other_networks_are_none_of_the_chapters(others):
    assert chapter_names(others) is None


def test_a_head_of_several_layers_is_left_out():
    given = shapes(D2L, "torch 1")
    given |= {"14.weight": (3, 10), "14.bias": (3,)}
    found = chapter_names(given)
    assert {given[n] for n in given.keys() - found.keys()} == {(10, 248), (10,), (3, 10), (3,)}
    assert sorted(found.values()) == sorted(dm.tensors(dm.get_spec("d2l", num_classes=0)))


@pytest.mark.parametrize("name", ["1.net.0.1.weight", "2.1.weight", "9.weight", "0.2.alpha"])
def test_a_layer_among_the_chapters_is_not_left_out(name):
    with pytest.raises(dm.WeightsError, match=f"{name}: expected only the chapter's layers"):
        chapter_names(shapes(D2L, "torch 1") | {name: (1,)})


def test_what_is_beside_the_network_is_left_out():
    given = shapes(D2L, "torch 2", "model.") | {"criterion.weight": (10,), "model.f1.total": (10,)}
    given |= {"model.net.0.1.num_batches_tracked": ()}
    assert len(chapter_names(given)) == len(given) - 3


def test_several_networks_are_told_apart_by_a_prefix():
    given = shapes(D2L, "torch 1", "model.") | shapes(D2L, "torch 1", "ema.")
    with pytest.raises(dm.WeightsError, match=r"found 2; choose one with\n  prefix='ema\.'\n"):
        chapter_names(given)
    assert set(chapter_names(given, "ema")) == set(shapes(D2L, "torch 1", "ema."))
    with pytest.raises(dm.ConfigError, match=r"'ema\.' or 'model\.', found prefix="):
        chapter_names(given, "student")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.0.weight": None, "0.0.bias": None}, "expected the chapter's stem"),
        ({"2.2.weight": None, "2.2.bias": None}, "found 2 transitions and 2.0"),
        ({"15.0.weight": (3, 3, 1, 1)}, r"transitions and 8, 15\.0"),
    ],
)
def test_what_the_chapter_has_not_is_named(change, message):
    given = shapes(D2L, "torch 1") | change
    with pytest.raises(dm.WeightsError, match=message):
        chapter_names({name: shape for name, shape in given.items() if shape})


def restarted(after):
    """Return the chapter's shapes with the widths ``after`` its transitions, in PyTorch's names."""
    before = {}
    for block, width in enumerate([64, *after], 1):
        for layer in range(1, 5):
            before[f"denseblock{block}.denselayer{layer}"] = width + 32 * (layer - 1)
        before[f"transition{block}"] = width + 128
    found = {}
    for name, (canonical, shape) in names(D2L, "torch 2").items():
        _, stage, *inside = canonical.split(".")
        width = before.get(".".join([stage, *inside[:-2]]))
        found[name] = shape
        if width and len(shape) == 4:
            out = after[int(stage[-1]) - 1] if stage.startswith("transition") else shape[0]
            found[name] = (out, width, *shape[2:])
        elif width and "norm" in inside[-2]:
            found[name] = (width,)
    return found


def test_widths_that_restart_at_each_block_are_refused_by_that():
    with pytest.raises(dm.WeightsError) as caught:
        chapter_names(restarted([96, 96, 96]))
    assert "found 96 of 192, 96 of 224, 96 of 224" in str(caught.value)
    assert "chapter's newest JAX edition" in str(caught.value)
    with pytest.raises(dm.WeightsError) as caught:
        chapter_names(restarted([96, 100, 96]))
    assert "found 96 of 192, 100 of 224, 96 of 228" in str(caught.value)
    assert "JAX" not in str(caught.value)
    assert chapter_names(restarted([96, 112, 120])).keys() == names(D2L, "torch 2").keys()


@pytest.mark.parametrize(
    "inside",
    ["listLayers/conv_block_1/bn/vars/0", "sequential/dense_block/conv_block/conv2d_1/bias"],
)
def test_the_chapters_classes_in_keras_are_known_by_their_groups(inside):
    block, between = f"layers/dense_block_2/{inside}", "layers/transition_block/conv/vars/0"
    assert is_chapter_in_keras([block, between, "layers/dense/vars/0"])
    assert not is_chapter_in_keras([block])
    assert not is_chapter_in_keras([between, "conv2_block1_1_conv/vars/0", "dense_block/x"])
    assert "found the Keras network of the chapter" in pads_same("Keras")


# --- Layers in the order of their calls ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "plain with bias", "bottleneck", "cubic"])
def test_numbered_layers_are_found_by_their_kernels(kind):
    spec = small(kind)
    convs, norms, expected = [], [], {}
    for name, info in dm.tensors(spec).items():
        layer = name.rpartition(".")[0]
        if info.kind == "conv.weight":
            convs.append((f"conv{len(convs) + 5}", info.shape))
            expected[convs[-1][0]] = layer
        elif info.kind == "norm.weight":
            norms.append(f"batchnorm{len(norms)}")
            expected[norms[-1]] = layer
    expected["dense3"] = "classifier"
    assert names_in_order(convs, norms, ["dense3"]) == expected
    assert names_in_order(convs, norms[1:-1], ["dense3"]) is None
    assert names_in_order(convs, norms, ["dense3", "dense4"]) is None
