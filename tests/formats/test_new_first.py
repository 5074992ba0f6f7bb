"""Networks whose layers put new channels first: the same function once the channels are sorted."""

import numpy as np
import pytest

import densenet_multi as dm
from cases import as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats._flax_files import nested
from densenet_multi.formats._layouts import TO_CHANNELS_LAST
from densenet_multi.formats._msgpack import to_msgpack
from densenet_multi.formats._new_first import (
    NOTE,
    _order,
    find_new_first,
    names_of_new_first,
    old_first,
)
from densenet_multi.formats.nnx import LEAVES
from densenet_multi.formats.recognize import checkpoint_of
from densenet_multi.reference import _Network, relu

SPEC = small(
    "bottleneck", stem="cifar", block_config=(3, 2, 2), compression=0.5, bn_eps=1e-5, bn_decay=0.9
)


def names(spec, layers=".{0}."):
    """{pytorch-cifar's name: canonical name}; ``layers`` are numbered from 0 and from 1."""
    found = {}
    for name in dm.tensors(spec):
        *parts, leaf = name.split(".")
        numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in parts]
        kind = "bn" if "norm" in parts[-1] else "conv"
        if len(parts) == 2:
            place = {"conv0": "conv1", "norm5": "bn"}[parts[1]]
        elif parts == ["classifier"]:
            place = "linear"
        elif "transition" in name:
            place = f"trans{numbers[1]}.{kind}"
        else:
            layer = layers.format(numbers[2] - 1, numbers[2])
            place = f"dense{numbers[1]}{layer}{kind}{numbers[3]}"
        found[f"{place}.{leaf}"] = name
    return found


class NewFirst(_Network):
    """The reference, but for the order of channels in a dense block."""

    def dense_block(self, name, block, x):
        for layer in block.layers:
            place = f"{name}.{layer.name}"
            y = relu(self.batch_norm(f"{place}.norm1", layer.norm1, x))
            y = self.conv(f"{place}.conv1", layer.conv1, y)
            y = relu(self.batch_norm(f"{place}.norm2", layer.norm2, y))
            x = np.concatenate([self.conv(f"{place}.conv2", layer.conv2, y), x], axis=1)
        return x


@pytest.mark.parametrize("layers", [".{0}.", ".block_{0}.", ".block{1}.", "_{0}."])
@pytest.mark.parametrize("around", ["", "module.", "net.module."])
def test_pytorch_cifars_names_are_known(layers, around):
    expected = {f"{around}{name}": canonical for name, canonical in names(SPEC, layers).items()}
    shapes = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in expected.items()}
    shapes[f"{around}bn.num_batches_tracked"] = ()
    assert names_of_new_first(shapes) == expected


def test_sorted_channels_give_the_answers_of_new_ones_first():
    theirs = random_weights(SPEC)
    x = images(SPEC, 13)
    expected = NewFirst(theirs, training=False, unbiased=False).run(SPEC, x).logits
    read = checkpoint_of(old_first(theirs), "unbiased", "pytorch-cifar")
    assert read.spec == SPEC
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13
    assert deviation(dm.reference.predict(SPEC, theirs, x), expected) > 1e-3


def test_channels_are_sorted_oldest_first():
    # given 3 channels, then two layers of 2: the map is new2 new2 new1 new1 old old old
    assert _order(3, 2, 2) == [4, 5, 6, 2, 3, 0, 1]
    assert _order(3, 2, 0) == [0, 1, 2]


@pytest.mark.parametrize("lost", ["conv1.weight", "bn.weight", "dense"])
def test_other_networks_are_none_of_these(lost):
    shapes = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in names(SPEC).items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(lost)}
    assert names_of_new_first(shapes) is None
    assert names_of_new_first({n: info.shape for n, info in dm.tensors(SPEC).items()}) is None


def shapes_of(around=""):
    expected = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in names(SPEC).items()}
    return {f"{around}{name}": shape for name, shape in expected.items()}


def test_of_several_one_is_chosen_by_its_prefix():
    file = {**shapes_of("a."), **shapes_of("b.")}
    with pytest.raises(dm.WeightsError, match=r"found 2; choose one with\n  prefix='a\.'\n"):
        find_new_first(file)
    assert set(find_new_first(file, "b").names) == set(shapes_of("b."))
    averaged = find_new_first({**shapes_of("net."), **shapes_of("net_ema.")})
    assert set(averaged.names) == set(shapes_of("net."))


def test_what_is_beside_it_is_told():
    found = find_new_first({**shapes_of(), "loss.weight": (4,), "best_acc": ()})
    assert "left out, because they are no part of the network: loss.weight, best_acc" in found.notes
    file = shapes_of()
    del file["linear.bias"]
    assert find_new_first(file).biasless
    file |= {"linear2.weight": (9, 4)}
    found = find_new_first(file)
    assert "a head of several layers or of several heads" not in " ".join(found.notes)
    assert "(linear2 (9, 4)); its body was read" in " ".join(found.notes)
    assert not any("classifier" in canonical for canonical in found.names.values())


@pytest.mark.parametrize("name", ["dense1.0.act.weight", "bn1.weight", "trans1.se.fc.bias"])
def test_networks_with_other_layers_are_none_of_these(name):
    shapes = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in names(SPEC).items()}
    assert names_of_new_first(shapes)
    assert names_of_new_first(shapes | {name: (1,)}) is None


def test_another_head_is_left_out():
    shapes = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in names(SPEC).items()}
    shapes["linear.weight"] = (4, 99)
    found = names_of_new_first(shapes)
    assert not any(canonical.startswith("classifier") for canonical in found.values())
    assert len(found) == len(shapes) - 2


def test_a_linen_network_with_these_names_is_read(tmp_path):
    theirs = as_float32(random_weights(SPEC))
    arrays = {}
    for name, canonical in names(SPEC, ".block_{0}.").items():
        layer, _, leaf = name.rpartition(".")
        kind = dm.tensors(SPEC)[canonical].kind
        array = theirs[canonical]
        collection = "batch_stats" if leaf.startswith("running") else "params"
        arrays[f"{collection}.{layer}.{LEAVES[kind]}"] = array.transpose(
            TO_CHANNELS_LAST[array.ndim]
        )
    (tmp_path / "x.msgpack").write_bytes(to_msgpack(nested(arrays)))
    read = formats.read(tmp_path / "x.msgpack")
    assert read.notes[0] == NOTE
    for name, array in old_first(theirs).items():
        np.testing.assert_array_equal(read.weights[name], array)
