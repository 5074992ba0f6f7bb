"""DenseNets for CIFAR from other projects, some of which put new channels first."""

import numpy as np
import pytest

import densenet_multi as dm
from cases import as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats._flax_files import nested
from densenet_multi.formats._layouts import TO_CHANNELS_LAST
from densenet_multi.formats._msgpack import to_msgpack
from densenet_multi.formats._networks import find_network
from densenet_multi.formats._new_first import _order, old_first
from densenet_multi.formats._other_names import PROJECTS
from densenet_multi.formats.nnx import LEAVES
from densenet_multi.formats.recognize import checkpoint_of
from densenet_multi.reference import _Network, relu

SPEC = small(
    "bottleneck", stem="cifar", block_config=(3, 2, 2), compression=0.5, bn_eps=1e-5, bn_decay=0.9
)
NOTE, NOTE_OF_OLD_FIRST = (names.note for names in PROJECTS)


def names(spec, layers=".{0}.", block="dense", number="", last="linear"):
    """Return {pytorch-cifar's name: canonical}; ``layers`` formats numbers from 0 and from 1."""
    found = {}
    for name in dm.tensors(spec):
        *parts, leaf = name.split(".")
        numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in parts]
        kind = "bn" if "norm" in parts[-1] else "conv"
        if len(parts) == 2:
            place = {"conv0": "conv1", "norm5": f"bn{number}"}[parts[1]]
        elif parts == ["classifier"]:
            place = last
        elif "transition" in name:
            place = f"trans{numbers[1]}.{kind}{number}"
        else:
            layer = layers.format(numbers[2] - 1, numbers[2])
            place = f"{block}{numbers[1]}{layer}{kind}{numbers[3]}"
        found[f"{place}.{leaf}"] = name
    return found


class NewFirst(_Network):
    """The reference, except that dense blocks put new channels first."""

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
    found = find_network(shapes)
    assert (found.names, found.new_first, found.notes[0]) == (expected, True, NOTE)


OLD_FIRST = {
    "bamos": {"layers": ".{0}.", "block": "dense"},
    "andreasveit": {"layers": ".layer.{0}.", "block": "block"},
}


def of_old_first(project, spec=SPEC):
    return names(spec, **OLD_FIRST[project], number="1", last="fc")


@pytest.mark.parametrize("project", OLD_FIRST)
@pytest.mark.parametrize("around", ["", "module."])
def test_names_of_projects_that_put_old_channels_first_are_known(around, project):
    expected = {f"{around}{name}": canonical for name, canonical in of_old_first(project).items()}
    shapes = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in expected.items()}
    found = find_network(shapes)
    assert (found.names, found.new_first, found.notes[0]) == (expected, False, NOTE_OF_OLD_FIRST)
    with pytest.raises(dm.WeightsError, match="expected only a DenseNet's layers, found"):
        find_network(shapes | {f"{around}{OLD_FIRST[project]['block']}1.se.weight": (4, 4)})
    file = {name: shape for name, shape in shapes.items() if f"{around}bn1." not in name}
    with pytest.raises(dm.WeightsError, match="expected a DenseNet's tensors"):
        find_network(file)


def test_networks_without_bottleneck_have_these_names_too():
    spec = small("plain", stem="cifar", compression=1.0, bn_eps=1e-5, bn_decay=0.9)
    theirs = of_old_first("andreasveit", spec)
    found = find_network({name: dm.tensors(spec)[own].shape for name, own in theirs.items()})
    assert found.names == theirs


def test_a_wide_resnet_with_these_names_is_no_densenet():
    shapes = {"conv1.weight": (16, 3, 3, 3), "bn1.weight": (32,), "fc.weight": (10, 32)}
    for block in (1, 2, 3):
        for number in (1, 2):
            shapes[f"block{block}.layer.0.conv{number}.weight"] = (32, 16, 3, 3)
            shapes[f"block{block}.layer.0.bn{number}.weight"] = (16,)
    with pytest.raises(dm.WeightsError, match="expected a DenseNet's tensors"):
        find_network(shapes)


def test_sorted_channels_give_the_answers_of_new_ones_first():
    theirs = random_weights(SPEC)
    x = images(SPEC, 13)
    expected = NewFirst(theirs, training=False, unbiased=False).run(SPEC, x).logits
    read = checkpoint_of(old_first(theirs), "unbiased", "pytorch-cifar")
    assert read.spec == SPEC
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13
    assert deviation(dm.reference.predict(SPEC, theirs, x), expected) > 1e-3


def test_channels_are_sorted_oldest_first():
    # 3 channels, then two layers of 2: the map is new2 new2 new1 new1 old old old
    assert _order(3, 2, 2) == [4, 5, 6, 2, 3, 0, 1]
    assert _order(3, 2, 0) == [0, 1, 2]


def shapes_of(around=""):
    expected = {name: dm.tensors(SPEC)[canonical].shape for name, canonical in names(SPEC).items()}
    return {f"{around}{name}": shape for name, shape in expected.items()}


TORCHVISIONS = {name: info.shape for name, info in dm.tensors(SPEC).items()}


@pytest.mark.parametrize("lost", ["conv1.weight", "bn.weight", "dense"])
def test_other_networks_are_none_of_these(lost):
    file = {name: shape for name, shape in shapes_of().items() if not name.startswith(lost)}
    with pytest.raises(dm.WeightsError, match="expected a DenseNet's tensors"):
        find_network(file)
    assert not find_network(TORCHVISIONS).new_first


@pytest.mark.parametrize("name", ["dense1.0.act.weight", "bn1.weight", "trans1.se.fc.bias"])
@pytest.mark.parametrize("around", ["", "net."])
def test_other_layers_among_these_are_refused_by_name(around, name):
    file = shapes_of(around) | {f"{around}{name}": (1,)}
    with pytest.raises(dm.WeightsError, match="expected only a DenseNet's layers"):
        find_network(file)


def test_of_several_one_is_chosen_by_its_prefix():
    file = {**shapes_of("a."), **shapes_of("b.")}
    with pytest.raises(dm.WeightsError, match=r"found 2; choose one with\n  prefix='a\.'\n"):
        find_network(file)
    assert set(find_network(file, "b").names) == set(shapes_of("b."))
    mixed = {**shapes_of("student."), **{f"teacher.{n}": s for n, s in TORCHVISIONS.items()}}
    with pytest.raises(dm.WeightsError, match=r"found 2; choose one with"):
        find_network(mixed)
    assert not find_network(mixed, "teacher").new_first
    assert find_network(mixed, "student").new_first


@pytest.mark.parametrize(("own", "average"), [("net.", "net_ema."), ("", "ema.")])
def test_of_weights_and_their_average_the_weights_are_read(own, average):
    found = find_network({**shapes_of(own), **shapes_of(average)})
    assert set(found.names) == set(shapes_of(own))


HEADS = {
    "another width": {"linear.weight": (4, 99)},
    "two that fit": {"linear.weight": (3, 15), "fc.weight": (5, 15)},
    "two layers": {"linear.0.weight": (9, 15), "linear.2.weight": (4, 9)},
}


@pytest.mark.parametrize("head", HEADS)
def test_another_head_is_told(head):
    width = dm.tensors(SPEC)["features.norm5.weight"].shape[0]
    body = {n: shape for n, shape in shapes_of().items() if not n.startswith("linear")}
    found = find_network(
        body | {n: (a, width if b == 15 else b) for n, (a, b) in HEADS[head].items()}
    )
    assert set(found.names) == set(body)
    assert "only its body was read, which computes features" in " ".join(found.notes)


def test_what_is_beside_it_is_told_or_refused_as_with_torchvisions_names():
    file = {**shapes_of("net."), "loss.weight": (4,), "best_acc": ()}
    told = "ignored, because they are not part of the network: loss.weight, best_acc"
    assert told in find_network(file).notes
    body = {n: shape for n, shape in shapes_of("net.").items() if "linear" not in n}
    width = dm.tensors(SPEC)["features.norm5.weight"].shape[0]
    outside = find_network(body | {"fc.weight": (7, width), "fc.bias": (7,)})
    assert outside.names["fc.weight"] == "classifier.weight"
    with pytest.raises(dm.WeightsError, match=r"^pre: expected no layer before the network, found"):
        find_network(shapes_of("net.") | {"pre.weight": (3, 1, 1, 1)})


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
