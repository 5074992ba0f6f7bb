"""Flax Linen's files without Flax: MessagePack, names, what is assumed, and what is refused."""

import copy
import json
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import formats
from densenet_multi.formats import _msgpack
from densenet_multi.formats._flax_files import nested, read_arrays
from densenet_multi.formats._limits import LARGEST_METADATA, MOST_ARRAYS
from densenet_multi.formats._msgpack import is_msgpack, read_msgpack, to_msgpack
from densenet_multi.formats.nnx import LEAVES, to_nnx

SPEC = small("bottleneck", bn_eps=1e-5, bn_decay=0.99)
CIFAR = small("cubic", bn_decay=0.99)


def variables(spec, around="", seed=1):
    """Return {collection.torchvision's name: array} of random weights, and those weights."""
    weights = as_float32(random_weights(spec, seed))
    found = {}
    for name, array in to_nnx(spec, weights).items():
        collection = "batch_stats" if name.endswith((".mean", ".var")) else "params"
        found[f"{around}{collection}.{name}"] = array
    return found, weights


def numbered(spec, weights):
    """Return {collection.place: array in Flax's layout}; places are class names with numbers."""
    found = {}
    for name, info in dm.tensors(spec).items():
        layers = name.split(".")[:-1]
        kind = "BatchNorm" if info.kind.startswith("norm") else "Conv"
        numbers = [int("".join(filter(str.isdigit, key)) or 0) - 1 for key in layers]
        if layers == ["classifier"]:
            place = "Dense_0"
        elif len(layers) == 2:  # the stem, and the last BatchNorm
            place = f"{kind}_{int(layers[1] == 'norm5' and spec.stem.norm0 is not None)}"
        elif layers[1].startswith("transition"):
            place = f"TransitionLayer_{numbers[1]}.{kind}_0"
        else:
            place = f"DenseBlock_{numbers[1]}.DenseLayer_{numbers[2]}.{kind}_{numbers[3]}"
        collection = "batch_stats" if info.role == "statistic" else "params"
        axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(info.shape)]
        found[f"{collection}.{place}.{LEAVES[info.kind]}"] = weights[name].transpose(axes)
    return found


def written(path, arrays):
    path.write_bytes(to_msgpack(nested(arrays)))
    return path


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["features.", "", "backbone.", "encoder.model."])
def test_torchvisions_names_are_found_behind_any_word(tmp_path, word):
    arrays, weights = variables(SPEC)
    arrays = {name.replace("features.", word): array for name, array in arrays.items()}
    read = formats.read(written(tmp_path / "x.msgpack", arrays))
    assert read.spec == SPEC
    same(read.weights, weights)
    assert "assumed: an epsilon of 1e-05, a decay of 0.99, padding" in read.notes[-1]


def test_numbered_layers_are_found_with_another_module_around(tmp_path):
    weights = variables(CIFAR)[1]
    arrays = numbered(CIFAR, weights)
    same(formats.read(written(tmp_path / "x", arrays)).weights, weights)
    inside = {n.replace("params.", "params.Net_0."): a for n, a in arrays.items()}
    inside = {n.replace("batch_stats.", "batch_stats.Net_0."): a for n, a in inside.items()}
    same(formats.read(written(tmp_path / "y", inside)).weights, weights)


def test_half_precision_becomes_float32(tmp_path):
    arrays, _ = variables(SPEC)
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    read = formats.read(written(tmp_path / "x.msgpack", halves)).weights
    stem = halves["params.features.conv0.kernel"].astype(np.float32)
    np.testing.assert_array_equal(read["features.conv0.weight"], stem.transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("separator", "joined"), [(".", "_"), (".denselayer", "_denselayer")], ids=["all", "layers"]
)
def test_names_that_are_joined_by_underscores_are_known(tmp_path, separator, joined):
    arrays, weights = variables(SPEC)

    def renamed(name):
        collection, _, rest = name.partition(".features.")
        layer, dot, leaf = rest.rpartition(".")
        return f"{collection}.{layer.replace(separator, joined)}{dot}{leaf}" if rest else name

    arrays = {renamed(name): array for name, array in arrays.items()}
    same(formats.read(written(tmp_path / "x.msgpack", arrays)).weights, weights)
    block = next(name for name in arrays if "denseblock1" in name).split(".")[1]
    arrays[f"params.{block}_se.kernel"] = np.ones((4, 4), np.float32)
    with pytest.raises(dm.WeightsError, match="expected only a DenseNet's layers, found"):
        formats.read(written(tmp_path / "y.msgpack", arrays))


def test_the_optimizer_and_counters_are_left_out_and_told(tmp_path):
    arrays, weights = variables(SPEC)
    arrays |= {f"opt_state.0.mu.{name}": array * 0 for name, array in arrays.items()}
    arrays |= {"step": np.int32(3) * np.ones((), np.int32), "loss_scale": np.ones(2)}
    read = formats.read(written(tmp_path / "x.msgpack", arrays))
    same(read.weights, weights)
    assert "ignored" in read.notes[-1]
    assert "opt_state.0.mu.params.features.conv0.kernel" in read.notes[-1]


def test_a_head_of_several_layers_leaves_the_body(tmp_path):
    arrays = numbered(CIFAR, variables(CIFAR)[1])
    arrays |= {"params.Dense_1.kernel": np.ones((3, 2), np.float32)}
    read = formats.read(written(tmp_path / "x", arrays))
    assert read.spec.config.num_classes == 0
    assert any("Dense_1" in note for note in read.notes)


def test_biases_are_completed_with_zeros(tmp_path):
    arrays = numbered(CIFAR, variables(CIFAR)[1])
    lost = [n for n in arrays if ".Conv_" in n and n.endswith(".bias") and "DenseLayer" in n]
    fewer = {name: array for name, array in arrays.items() if name not in lost}
    del fewer["params.Dense_0.bias"]
    read = formats.read(written(tmp_path / "x", fewer))
    assert not read.weights["features.denseblock1.denselayer1.conv1.bias"].any()
    assert not read.weights["classifier.bias"].any()
    np.testing.assert_array_equal(read.weights["features.conv0.bias"], arrays["params.Conv_0.bias"])
    assert "of its convolutions, only 2 of 10 have a bias: zero biases were added" in read.notes
    assert "its classifier has no bias: a zero bias was added" in read.notes


def test_two_networks_are_told_apart_by_a_prefix(tmp_path):
    first, _ = variables(SPEC, "student.")
    second, weights = variables(SPEC, "teacher.", 2)
    path = written(tmp_path / "x.msgpack", first | second)
    listed = r"choose one with\n  prefix='student'\n  prefix='teacher'$"
    with pytest.raises(dm.WeightsError, match=listed):
        formats.read(path)
    same(formats.read(path, prefix="teacher").weights, weights)
    with pytest.raises(dm.WeightsError, match=r"'student' or 'teacher', found prefix="):
        formats.read(path, prefix="other")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_read_and_nothing_in_it_is_run(tmp_path):
    arrays, weights = variables(SPEC)
    tree = nested(arrays) | {"note": Payload(tmp_path / "made")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree))
    same(formats.read(tmp_path / "x.pkl").weights, weights)
    assert not (tmp_path / "made").exists()


def test_a_pickled_state_of_nnx_is_nnxs_and_not_pytorchs(tmp_path):
    weights = as_float32(random_weights(SPEC))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(nested(to_nnx(SPEC, weights))))
    assert formats.guess(tmp_path / "x.pkl") == "nnx"
    same(formats.read(tmp_path / "x.pkl").weights, weights)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_is_read(tmp_path, protocol):
    arrays, weights = variables(SPEC)
    for name, tree in (("linen", nested(arrays)), ("nnx", nested(to_nnx(SPEC, weights)))):
        (tmp_path / name).write_bytes(pickle.dumps(tree, protocol))
        assert formats.guess(tmp_path / name) == name
        same(formats.read(tmp_path / name).weights, weights)


@pytest.mark.parametrize("value", ["raw_value", "_raw_value"])  # before Flax 0.12.1, and since
def test_nnxs_objects_are_looked_into(tmp_path, value):
    arrays = to_nnx(SPEC, variables(SPEC)[1])
    state = {"_mapping": nested({f"{name}.{value}": array for name, array in arrays.items()})}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state))
    assert formats.guess(tmp_path / "x.pkl") == "nnx"
    same(formats.read(tmp_path / "x.pkl").weights, variables(SPEC)[1])


@pytest.mark.parametrize("name", ["_METADATA", "array_metadatas/process_0", "x/.zarray"])
def test_an_orbax_folder_with_huge_metadata_is_refused_before_orbax_reads_it(tmp_path, name):
    """Orbax need not be installed."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as opened:
        opened.truncate(LARGEST_METADATA + 1)
    expected = f"{file.name}: expected at most 8,388,608 bytes, found 8,388,609"
    with pytest.raises(dm.WeightsError, match=expected):
        read_arrays(tmp_path)


def test_an_orbax_folder_of_very_many_arrays_is_refused_before_orbax_opens_them(tmp_path):
    entries = {str(i): {"key_metadata": [{"key": str(i)}]} for i in range(MOST_ARRAYS + 1)}
    (tmp_path / "_METADATA").write_text(json.dumps({"tree_metadata": entries}))
    with pytest.raises(dm.WeightsError, match=r"at most 20,000 arrays, found 20,001"):
        read_arrays(tmp_path)


def test_an_older_orbax_folder_is_described_in_messagepack_of_the_usual_bounds(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_msgpack, "MOST_OBJECTS", 10)
    (tmp_path / "checkpoint").write_bytes(b"\x9f" + bytes(15))
    with pytest.raises(dm.WeightsError, match="expected at most 10 objects"):
        read_arrays(tmp_path)


def test_names_that_are_the_same_without_nnxs_objects_are_refused(tmp_path):
    tree = nested(to_nnx(SPEC, variables(SPEC)[1]))
    inside = {"_mapping": copy.deepcopy(tree)}
    for state in (inside | tree, tree | inside):
        (tmp_path / "x").write_bytes(pickle.dumps(state))
        with pytest.raises(
            dm.WeightsError, match=r"conv0\.kernel: found twice, as .*conv0\.kernel"
        ):
            formats.read(tmp_path / "x", "nnx")


def test_weights_of_nnx_tell_what_is_assumed(tmp_path):
    arrays = to_nnx(SPEC, variables(SPEC)[1])
    read = formats.read(written(tmp_path / "x", arrays))
    told = "no tensor shows its settings; assumed: an epsilon of 1e-05, a decay of 0.9, average "
    assert [note.partition("pooling")[0] for note in read.notes] == [told]
    assert (read.spec.config.bn_eps, read.spec.config.bn_decay) == (1e-5, 0.9)


def in_chapter(spec, weights):
    """Return {collection.the chapter's name: array in Flax's layout}."""
    found = {}
    for name, info in dm.tensors(spec).items():
        layers = name.split(".")[:-1]
        kind = "BatchNorm" if info.kind.startswith("norm") else "Conv"
        numbers = [int("".join(filter(str.isdigit, key)) or 0) for key in layers]
        last = 3 + 2 * len(spec.stages)
        if len(layers) < 3:  # a ReLU and a pooling follow norm5
            places = {"conv0": 0, "norm0": 1, "norm5": last, "classifier": last + 3}
            place = f"layers_{places[layers[-1]]}"
        elif layers[1].startswith("transition"):
            place = f"layers_{3 + 2 * numbers[1]}.{kind}_0"
        else:
            place = f"layers_{2 + 2 * numbers[1]}.net.layers_{numbers[2] - 1}.{kind}_0"
        collection = "batch_stats" if info.role == "statistic" else "params"
        axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(info.shape)]
        found[f"{collection}.net.{place}.{LEAVES[info.kind]}"] = weights[name].transpose(axes)
    return found


@pytest.mark.parametrize("variant", ["d2l", None])
def test_the_chapters_network_is_read_where_you_say_that_it_pads_as_here(tmp_path, variant):
    size = {} if variant else {"block_config": (11, 2), "growth_rate": 3, "num_init_features": 5}
    spec = dm.get_spec("d2l", bn_decay=0.99, num_classes=7, **size)
    zeros = {n: np.zeros(info.shape, np.float32) for n, info in dm.tensors(spec).items()}
    rng = np.random.default_rng(0)
    weights = {n: rng.random(a.shape, np.float32) if a.ndim == 1 else a for n, a in zeros.items()}
    arrays = in_chapter(spec, weights)
    path = written(tmp_path / "x", dict(sorted(arrays.items())))
    advice = "variant='d2l'" if variant else "name its layers as torchvision does"
    message = rf"own code uses SAME padding .*; no tensor shows it; if the network .*{advice}"
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(path)
    if variant:
        read = formats.read(path, "linen", variant=variant)
        assert read.spec == spec
        same(read.weights, weights)
        assert "as you stated" in read.notes[0]
        assert "padding and average pooling as in this package" in read.notes[1]


# --- What is refused ----------------------------------------------------------------------------


def test_another_linen_network_is_named_for_what_it_is(tmp_path):
    arrays = {
        "params.Conv_0.kernel": np.ones((7, 7, 1, 4), np.float32),
        "params.BatchNorm_0.scale": np.ones(4, np.float32),
        "batch_stats.BatchNorm_0.mean": np.ones(4, np.float32),
        "batch_stats.BatchNorm_0.var": np.ones(4, np.float32),
        "params.Dense_0.kernel": np.ones((4, 10), np.float32),
    }
    message = "expected a DenseNet of Flax Linen .* another Linen network: Conv_0, .*Dense_0"
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(written(tmp_path / "x", arrays))


def test_layers_in_the_order_of_a_densenets_that_do_not_fit_get_no_advice(tmp_path):
    arrays = {"params.Dense_0.kernel": np.ones((4, 3), np.float32)}
    for i in range(3):  # as in a ResNet, the number of channels does not grow
        arrays[f"params.Conv_{i}.kernel"] = np.ones((3, 3, 4 if i else 1, 4), np.float32)
        for leaf in ("scale", "bias", "mean", "var"):
            collection = "params" if leaf in ("scale", "bias") else "batch_stats"
            arrays[f"{collection}.BatchNorm_{i}.{leaf}"] = np.ones(4, np.float32)
    with pytest.raises(dm.WeightsError, match="another Linen network") as caught:
        formats.read(written(tmp_path / "x", arrays))
    assert "variant" not in str(caught.value)


def test_another_normalization_is_the_reason_that_is_told(tmp_path):
    arrays = numbered(CIFAR, variables(CIFAR)[1])
    arrays = {n.replace("BatchNorm", "GroupNorm"): a for n, a in arrays.items() if "params" in n}
    message = r"a different normalization in this .*: DenseBlock_0\.DenseLayer_0\.GroupNorm_0"
    with pytest.raises(dm.WeightsError, match=message) as caught:
        formats.read(written(tmp_path / "x", arrays))
    assert "batch_stats" not in str(caught.value)


@pytest.mark.parametrize("kept", ["params.", ""])
def test_parameters_without_statistics_are_refused_with_what_to_save(tmp_path, kept):
    arrays = {
        name.removeprefix("params."): array
        for name, array in numbered(CIFAR, variables(CIFAR)[1]).items()
        if name.startswith("params.")
    }
    arrays = {f"{kept}{name}": array for name, array in arrays.items()}
    with pytest.raises(dm.WeightsError, match=r"Linen.*{'params': \.\.\., 'batch_stats'"):
        formats.read(written(tmp_path / "x", arrays))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: name.replace("DenseLayer", "Bottleneck"), "unknown classes or modules"),
        (None, "a stem that may use SAME padding"),
    ],
)
def test_what_no_tensor_shows_must_be_said(tmp_path, change, message):
    spec = CIFAR if change else dm.get_spec("densenet121", num_classes=2)
    zeros = {n: np.zeros(info.shape, np.float32) for n, info in dm.tensors(spec).items()}
    arrays = {(change or str)(name): array for name, array in numbered(spec, zeros).items()}
    path = written(tmp_path / "x.msgpack", arrays)
    with pytest.raises(dm.WeightsError, match=f"{message}: no tensor shows padding") as caught:
        formats.read(path)
    assert ("variant='densenet121'" in str(caught.value)) == (not change)
    assert ("name its layers as torchvision does" in str(caught.value)) == bool(change)
    if not change:
        read = formats.read(path, "linen", variant="densenet121")
        assert read.spec.config == dm.get_spec("densenet121", num_classes=2, bn_decay=0.99).config


@pytest.mark.parametrize("place", ["PReLU_0", "DenseBlock_0.DenseLayer_0.PReLU_1"])
def test_what_computes_in_the_network_is_not_left_out(tmp_path, place):
    arrays = numbered(CIFAR, variables(CIFAR)[1])
    slope = {f"params.{place}.negative_slope": np.ones((), np.float32)}
    with pytest.raises(dm.WeightsError, match=f"another kind of parameter .*{place}"):
        formats.read(written(tmp_path / "x", arrays | slope))
    scale = {f"params.{place.replace('PReLU', 'LayerNorm')}.scale": np.ones(3, np.float32)}
    with pytest.raises(dm.WeightsError, match="another Linen network"):
        formats.read(written(tmp_path / "y", arrays | scale))


def test_what_computes_in_a_network_of_nnx_is_not_left_out(tmp_path):
    arrays = to_nnx(SPEC, variables(SPEC)[1])
    arrays["features.denseblock1.denselayer1.act.negative_slope"] = np.ones((), np.float32)
    with pytest.raises(dm.WeightsError, match=r"act\.negative_slope: expected only DenseN"):
        formats.read(written(tmp_path / "x", arrays))


@pytest.mark.parametrize("in_blocks", [False, True])
def test_layers_that_are_only_numbered_are_read_in_order_where_that_is_said(tmp_path, in_blocks):
    spec = dm.get_spec("densenet_bc32_k32")
    weights = {n: np.zeros(info.shape, np.float32) for n, info in dm.tensors(spec).items()}
    rng = np.random.default_rng(0)
    weights |= {n: rng.random(a.shape, np.float32) for n, a in weights.items() if a.ndim == 1}
    arrays, counts = {}, {}
    for name, array in numbered(spec, weights).items():
        collection, *path, leaf = name.split(".")
        inside = f"{path[0]}." * (in_blocks and len(path) > 1)
        kind = path[-1].partition("_")[0]
        seen = counts.setdefault((inside, kind), [])  # layers of this kind in this module
        layer = ".".join(path)
        seen += [layer] * (layer not in seen)
        arrays[f"{collection}.{inside}{kind}_{seen.index(layer)}.{leaf}"] = array
    arrays = dict(sorted(arrays.items()))  # as JAX sorts them: Conv_10 comes before Conv_2
    path = written(tmp_path / "x", arrays)
    message = "unknown classes or modules.*source_format='linen', variant='densenet_bc32_k32'"
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(path)
    read = formats.read(path, "linen", variant="densenet_bc32_k32")
    same(read.weights, weights)


def test_a_stack_of_images_is_no_image(tmp_path):
    arrays, _ = variables(SPEC)
    name = "params.features.denseblock1.denselayer1.conv1.kernel"
    arrays[name] = arrays[name][None]
    with pytest.raises(dm.WeightsError, match="that of a 3D network"):
        formats.read(written(tmp_path / "x", arrays))


# --- MessagePack --------------------------------------------------------------------------------


def test_numbers_texts_and_lists_are_read_as_written():
    content = b"\x84\xa1a\x93\x01\xff\xcb" + struct.pack(">d", 0.5)
    content += b"\xa1b\xd9\x02hi\xa1c\xc4\x01\x07\xa1d\xdc\x00\x02\xc0\xc3"
    expected = {"a": [1, -1, 0.5], "b": "hi", "c": b"\x07", "d": [None, True]}
    assert is_msgpack(content)
    assert read_msgpack(content) == expected


@given(st.lists(st.integers(0, 70_000), max_size=3), st.sampled_from(["float32", "int64"]))
@settings(deadline=None, max_examples=30)
def test_arrays_of_any_shape_come_back(shape, dtype):
    if np.prod(shape, dtype=float) > 100_000:
        shape = shape[:1]
    array = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    back = read_msgpack(to_msgpack({"x": array}))["x"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_is_refused_or_read_and_nothing_else(where, byte):
    content = to_msgpack({"params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}})
    for damaged in (
        content[: where % len(content)],
        content[: where % len(content)] + bytes([byte]) + content[where % len(content) + 1 :],
    ):
        try:
            read_msgpack(damaged)
        except dm.WeightsError as error:
            assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xdf\xff\xff\xff\xff\xa1a", "ends within the next"),
        (b"\x81" * 500, "100 levels deep"),
        (b"\xdd\x00\xff\xff\xff" + b"\xc0" * 300, "ends within the next"),
        (b"\x82\xa1a\x01\xa1a\x02", "a: found twice"),
        (b"\x81\xa1a\xc1", "an object that starts with 0xc1"),
        (b"\x81\xa1a\x01\x01", "expected the end of the file"),
        (b"\x81\xa1a\xc7\x03\x01\x93\x01\x02", "ends within the next"),
    ],
)
def test_a_file_that_promises_more_than_it_has_is_refused(content, message):
    with pytest.raises(dm.WeightsError, match=message):
        read_msgpack(content)


def test_an_array_must_have_the_bytes_of_its_shape():
    good = to_msgpack({"x": np.zeros((2, 3), np.float32)})
    at = good.index(b"\x92\x02\x03")
    with pytest.raises(dm.WeightsError, match=r"expected an array of shape \[2, 4\]"):
        read_msgpack(good[:at] + b"\x92\x02\x04" + good[at + 3 :])


def test_too_many_objects_are_refused(monkeypatch):
    monkeypatch.setattr(_msgpack, "MOST_OBJECTS", 10)
    with pytest.raises(dm.WeightsError, match="expected at most 10 objects"):
        read_msgpack(b"\x9f" + b"\xc0" * 15)
