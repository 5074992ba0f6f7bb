"""Initial weights never change, errors list all bad weights, files are complete or absent."""

import errno
import hashlib
import importlib
import json
import math
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import weights as module
from densenet_multi._files import replace_file
from densenet_multi.formats._safetensors import read_safetensors
from strategies import small_configs

D2L = dm.get_spec("d2l")


# --- Initial weights: the same forever ----------------------------------------------------------


def test_the_initial_weights_of_the_chapters_net_are_pinned_to_the_bit():
    """On every machine, with every NumPy: a run with seed 0 can be repeated in ten years."""
    digest = hashlib.sha256()
    for name, array in dm.init_weights(D2L, seed=0).items():
        digest.update(name.encode() + array.astype("<f4").tobytes())
    assert digest.hexdigest() == "1649bfaf2cc73af3a5640c04437164768621d03976ab4d386e4b82c30ce798c3"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "features.conv0.weight",
            [0.011647146195173264, 0.040639180690050125, 0.01975751295685768, 0.008861461654305458],
        ),
        (
            "features.transition1.conv.weight",
            [-0.2157612293958664, 0.11991358548402786, 0.12741219997406006, 0.03307982161641121],
        ),
        (
            "classifier.weight",
            [-0.018533268943429, -0.04720158874988556, -0.006949310190975666, 0.04061805456876755],
        ),
    ],
)
def test_the_first_values_of_a_tensor_are_pinned(name, values):
    np.testing.assert_array_equal(dm.init_weights(D2L)[name].ravel()[:4], np.float32(values))


def test_initial_weights_are_float32_arrays_of_the_manifest_in_its_order():
    weights = dm.init_weights(D2L)
    assert [(n, a.shape) for n, a in weights.items()] == [
        (n, info.shape) for n, info in dm.tensors(D2L).items()
    ]
    assert {array.dtype.name for array in weights.values()} == {"float32"}


def test_another_head_leaves_the_body_as_it_was():
    body = dm.init_weights(dm.get_spec("d2l", num_classes=0))
    for num_classes in (10, 1000):
        weights = dm.init_weights(dm.get_spec("d2l", num_classes=num_classes))
        for name, array in body.items():
            np.testing.assert_array_equal(weights[name], array)


def test_one_more_block_leaves_the_ones_before_as_they_were():
    shallow = dm.init_weights(dm.get_spec("d2l", block_config=(4, 4), num_classes=0))
    deep = dm.init_weights(dm.get_spec("d2l", block_config=(4, 4, 4), num_classes=0))
    for name, array in shallow.items():
        if "norm5" not in name:
            np.testing.assert_array_equal(deep[name], array)


def drawn(spec: dm.DenseNetSpec, **options: object) -> dict[str, np.ndarray]:
    """The weights that are random: those of convolutions and of the classifier."""
    infos = dm.tensors(spec)
    weights = dm.init_weights(spec, **options)
    return {n: a for n, a in weights.items() if infos[n].kind in ("conv.weight", "linear.weight")}


def test_another_seed_draws_other_values_in_every_tensor():
    one, other = drawn(D2L, seed=1), drawn(D2L, seed=2)
    assert len(one) == 1 + 16 + 3 + 1
    for name in one:
        assert (one[name] != other[name]).mean() > 0.99, name


def test_every_tensor_has_its_own_stream():
    starts = [tuple(np.float32(a.ravel()[:9] / a.std())) for a in drawn(D2L).values()]
    assert len({start[0] for start in starts}) == len(starts)
    pairs = np.corrcoef([a.ravel()[:500] for a in drawn(D2L).values()])
    assert np.abs(pairs - np.eye(len(pairs))).max() < 0.25  # 5 sigma of 500 independent pairs


@pytest.mark.parametrize("initialization", ["he_fan_out", "he_fan_in"])
def test_convolutions_are_normal_with_variance_two_by_the_fan(initialization):
    spec = dm.get_spec("densenet121")
    for name, array in drawn(spec, initialization=initialization).items():
        if name == "classifier.weight":
            continue
        out_channels, in_channels, k, _ = array.shape
        fan = k * k * (out_channels if initialization == "he_fan_out" else in_channels)
        standard = array.astype(np.float64).ravel() / math.sqrt(2 / fan)
        n = standard.size
        # each within 5 standard errors of what a standard normal distribution has
        assert abs(standard.mean()) < 5 / math.sqrt(n), name
        assert abs(standard.var() - 1) < 5 * math.sqrt(2 / n), name
        assert abs((standard**3).mean()) < 5 * math.sqrt(15 / n), name
        assert abs((standard**4).mean() - 3) < 5 * math.sqrt(96 / n), name
        assert abs((np.abs(standard) < 1).mean() - 0.6827) < 5 * math.sqrt(0.25 / n), name
        assert abs((standard > 2).mean() - 0.02275) < 5 * math.sqrt(0.025 / n), name


def test_xavier_is_uniform_up_to_six_by_the_sum_of_the_fans():
    for name, array in drawn(D2L, initialization="xavier").items():
        if array.ndim < 2:
            continue
        k = math.prod(array.shape[2:])
        bound = math.sqrt(6 / (k * (array.shape[0] + array.shape[1])))
        standard, n = array.astype(np.float64).ravel() / bound, array.size
        assert 1 - 20 / n < np.abs(standard).max() <= 1 + 1e-6, name
        # each within 5 standard errors of what a uniform distribution from -1 to 1 has
        assert abs(standard.mean()) < 5 * math.sqrt(1 / 3 / n), name
        assert abs((standard**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n), name


def test_neighbouring_values_of_a_draw_are_independent():
    values = dm.init_weights(D2L)["features.denseblock4.denselayer4.conv1.weight"].ravel()
    half = values.size // 2
    for first, second in [(values[:-1], values[1:]), (values[:half], values[half : 2 * half])]:
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(half)
        # an angle's sine and cosine are uncorrelated, but their squares are not
        assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 5 / math.sqrt(half)


def test_the_classifier_is_uniform_within_one_by_the_root_of_its_inputs():
    spec = dm.get_spec("densenet121")
    standard = dm.init_weights(spec)["classifier.weight"].astype(np.float64) * math.sqrt(1024)
    n = standard.size
    assert -1 <= standard.min() < -0.9999
    assert 0.9999 < standard.max() <= 1
    assert abs(standard.mean()) < 5 / math.sqrt(3 * n)
    assert abs(standard.var() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


def test_batch_norm_starts_as_the_identity_and_biases_at_zero():
    weights = dm.init_weights(D2L)
    for name, info in dm.tensors(D2L).items():
        if info.kind in ("norm.weight", "norm.running_var"):
            np.testing.assert_array_equal(weights[name], 1)
        elif info.kind not in ("conv.weight", "linear.weight"):
            np.testing.assert_array_equal(weights[name], 0)


@pytest.mark.parametrize(
    "seed", [-1, 0.0, "0", None, True, 2**64, pytest.param(10**5000, id="huge")]
)
def test_a_seed_is_an_integer_of_64_bits(seed):
    expected = r"^seed: expected an integer from 0 to 18,446,"
    with pytest.raises(dm.ConfigError, match=expected):
        dm.init_weights(D2L, seed)
    assert dm.init_weights(small("plain"), 2**64 - 1)


def test_an_unknown_initialization_is_refused_with_the_known():
    with pytest.raises(dm.ConfigError) as caught:
        dm.init_weights(D2L, initialization="glorot")
    assert str(caught.value) == (
        "initialization 'glorot' does not exist; did you mean 'xavier'? known: he_fan_out, "
        "he_fan_in, xavier"
    )


# --- The check ----------------------------------------------------------------------------------


def test_one_error_lists_every_problem_by_name():
    spec = small("bottleneck")
    good = random_weights(spec)
    weights = good | {
        "features.conv0.weight": good["features.conv0.weight"].transpose(2, 3, 1, 0),
        "features.norm0.weight": good["features.norm0.weight"].astype("int64"),
        "features.norm0.bias": np.full(8, np.nan),
        "features.norm0.running_mean": np.array([0, np.inf, 0, -np.inf, 0, 0, 0, 0]),
        "features.norm0.running_var": np.full(8, -1e-9),
        "features.norm5.bias": good["features.norm5.bias"].astype("complex128"),
        "conv0": np.zeros(3),
        7: np.zeros(3),
    }
    del weights["classifier.bias"]
    with pytest.raises(dm.WeightsError) as caught:
        dm.check_weights(spec, weights)
    title, *problems = str(caught.value).splitlines()
    assert title == "weights do not fit the network, 9 problem(s):"
    assert [problem.strip() for problem in problems] == [
        "conv0: unexpected",
        "7: unexpected",
        "features.conv0.weight: expected shape (8, 3, 7, 7), found (7, 7, 3, 8)",
        "features.norm0.weight: expected float64 (or narrower floats), found int64",
        "features.norm0.bias: expected finite values, found 8 that are not",
        "features.norm0.running_mean: expected finite values, found 2 that are not",
        "features.norm0.running_var: expected variances of at least 0, found -1e-09",
        "features.norm5.bias: expected float64 (or narrower floats), found complex128",
        "classifier.bias: missing, expected shape (4,)",
    ]
    assert isinstance(caught.value, ValueError)


def test_pytorchs_counters_are_no_weights():
    spec = small("bottleneck")
    good = random_weights(spec)
    counters = {
        name.replace("running_var", "num_batches_tracked"): np.array(7)
        for name in good
        if "running_var" in name
    }
    checked = dm.check_weights(spec, counters | good)
    assert list(checked) == list(dm.tensors(spec))
    with pytest.raises(dm.WeightsError, match="num_batches_tracked_twice: unexpected"):
        dm.check_weights(spec, good | {"norm.num_batches_tracked_twice": np.array(7)})


def test_weights_that_fit_come_back_in_the_manifests_order():
    spec = small("plain")
    good = random_weights(spec)
    checked = dm.check_weights(spec, dict(reversed(good.items())))
    assert list(checked) == list(dm.tensors(spec))
    np.testing.assert_equal(checked, good)


@pytest.mark.parametrize(
    ("given_dtype", "asked", "fits"),
    [
        ("float16", "float32", True),
        ("float32", "float32", True),
        ("float32", "float64", True),
        ("float64", "float64", True),
        ("float64", "float32", False),
        ("int8", "float32", False),
        ("bool", "float32", False),
        ("object", "float64", False),
    ],
)
def test_a_dtype_is_accepted_if_it_converts_without_loss(given_dtype, asked, fits):
    spec = small("plain")
    ones = {n: np.ones(info.shape, given_dtype) for n, info in dm.tensors(spec).items()}
    if fits:
        checked = dm.check_weights(spec, ones, asked)
        assert {array.dtype.name for array in checked.values()} == {asked}
    else:
        with pytest.raises(dm.WeightsError, match=rf"expected {asked} .*, found {given_dtype}"):
            dm.check_weights(spec, ones, asked)


def test_a_variance_of_zero_is_one():
    spec = small("plain")
    weights = random_weights(spec)
    weights["features.norm5.running_var"][:] = 0
    dm.check_weights(spec, weights)


# --- The file -----------------------------------------------------------------------------------


@given(small_configs())
@settings(deadline=None, max_examples=25)
def test_a_file_gives_back_the_spec_and_every_bit(tmp_path_factory, config):
    spec = config.resolve()
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    for weights in (random_weights(spec), as_float32(random_weights(spec))):
        dm.save_weights(path, spec, weights)
        read_spec, read = dm.load_weights(path)
        assert read_spec == spec
        assert list(read) == list(weights)
        for name, array in weights.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def spec():
    return small("bottleneck")


@pytest.fixture
def weights(spec):
    return dm.init_weights(spec)


@pytest.fixture
def saved(path, spec, weights):
    dm.save_weights(path, spec, weights)
    return path


def test_the_same_weights_give_the_same_bytes_in_whatever_order_they_come(saved, spec, weights):
    first = saved.read_bytes()
    dm.save_weights(saved, spec, dict(reversed(weights.items())))
    assert saved.read_bytes() == first


def test_a_path_may_be_a_string(path, spec, weights):
    dm.save_weights(str(path), spec, weights)
    assert dm.load_weights(str(path))[0] == spec


def test_the_file_is_plain_safetensors_with_the_spec_in_its_metadata(saved, spec):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__").keys() == {"densenet_multi"}
    assert header.keys() == dm.tensors(spec).keys()
    assert header["features.conv0.weight"]["dtype"] == "F32"
    assert header["features.conv0.weight"]["shape"] == [8, 3, 7, 7]


def test_the_version_of_safetensors_that_corrupts_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.8.0")
    monkeypatch.delitem(sys.modules, "densenet_multi.formats._safetensors")
    with pytest.raises(ImportError, match=r"found 0\.8\.0, which saves wrong values"):
        importlib.import_module("densenet_multi.formats._safetensors")


def test_a_transposed_kernel_is_saved_as_it_looks_not_as_it_lies_in_memory(path):
    spec = small("cubic")  # kernels of shape (3, 3, 3, 3): transposed ones fit too
    weights = as_float32(random_weights(spec))
    looks = {n: a for n, a in weights.items() if a.ndim > 1}
    lies = {n: np.array(a.T, order="C").T for n, a in looks.items()}
    assert not any(array.flags.c_contiguous for array in lies.values())
    dm.save_weights(path, spec, weights | lies)
    read = dm.load_weights(path)[1]
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)


def test_every_array_that_safetensors_gets_is_contiguous(monkeypatch, path, spec, weights):
    """Version 0.8.0 silently writes an array's memory in the order in which it is stored."""
    given_arrays = {}

    def save_file(tensors, filename, metadata):
        given_arrays.update(tensors)
        filename.write_text(json.dumps(metadata))

    monkeypatch.setattr("safetensors.numpy.save_file", save_file)
    turned = {n: np.array(a.T, order="C").T for n, a in weights.items()}
    dm.save_weights(path, spec, turned)
    assert given_arrays.keys() == weights.keys()
    assert all(array.flags.c_contiguous for array in given_arrays.values())


def test_weights_that_do_not_fit_are_not_saved_and_the_old_file_stays(saved, spec, weights):
    before = saved.read_bytes()
    weights["features.norm5.bias"] = np.full(18, np.nan, np.float32)
    with pytest.raises(dm.WeightsError, match=r"features\.norm5\.bias"):
        dm.save_weights(saved, spec, weights)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_while_saving_leaves_the_old_file_and_nothing_else(monkeypatch, saved, step):
    before = saved.read_bytes()
    spec, _ = dm.load_weights(saved)

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space left"):
        dm.save_weights(saved, spec, dm.init_weights(spec, seed=1))
    assert [saved] == list(saved.parent.iterdir())
    assert saved.read_bytes() == before


def test_a_file_is_on_the_disk_before_it_gets_its_name(monkeypatch, path, spec, weights):
    """fsync, then rename: after a power failure, the file under this name is complete or absent."""
    order = []

    def noted(function):
        def call(*arguments):
            order.append((function.__name__, path.exists()))
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted(os.fsync))
    monkeypatch.setattr(os, "replace", noted(os.replace))
    dm.save_weights(path, spec, weights)
    assert order == [("fsync", False), ("replace", False), ("fsync", True)]  # the file, the folder
    assert path.exists()


def test_saving_into_a_folder_that_does_not_exist_is_an_os_error(tmp_path, spec, weights):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dm.save_weights(tmp_path / "nowhere" / "net.safetensors", spec, weights)


def test_saving_over_a_folder_is_an_os_error_that_leaves_nothing_behind(tmp_path, spec, weights):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        dm.save_weights(tmp_path / "folder", spec, weights)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_missing_file_is_an_os_error_that_names_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        dm.load_weights(tmp_path / "missing")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "an empty folder"),
        (["history.jsonl", "config.json", "last.safetensors"], "the folder of a training run; use"),
        (["_METADATA"], "a folder, as written by Orbax or KerasHub; for another project's"),
    ],
)
def test_a_folder_is_refused_for_what_it_is(tmp_path, files, found):
    for name in files:
        (tmp_path / name).touch()
    assert refusal(tmp_path).startswith(f"expected a safetensors file, found {found}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 40, "an HDF5 file"),
        (b"\x80\x04K\x01.", "a pickle"),
        (b"\x12\x01" + b"\0" * 30, "an MXNet file"),
    ],
)
def test_a_file_of_another_project_is_refused_with_how_to_convert_it(path, content, found):
    path.write_bytes(content)
    reason = refusal(path)
    assert reason.startswith(f"expected a safetensors file, found {found}")
    assert f"convert({str(path)!r}, 'NEW.safetensors')" in reason


@pytest.mark.parametrize("ending", [".pth", ".PTH", ".weights.h5", ".keras", ".params", ".msgpack"])
def test_a_portable_file_does_not_get_another_formats_name(tmp_path, spec, weights, ending):
    with pytest.raises(dm.ConfigError, match=r"such as NEW\.safetensors.* formats\.write\("):
        dm.save_weights(tmp_path / f"net{ending}", spec, weights)
    assert not list(tmp_path.iterdir())


def refusal(path) -> str:
    with pytest.raises(dm.WeightsError) as caught:
        dm.load_weights(path)
    assert str(caught.value).startswith(f"{path}: ")  # it names the file
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1])
def test_a_truncated_file_is_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert refusal(saved).startswith("expected a safetensors file, found")


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\xff" * 64, b"{}" * 32, b"\x80\x04K\x01."])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    assert refusal(path).startswith("expected a safetensors file, found")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux has files without a size")
def test_a_file_that_cannot_be_mapped_is_named():
    with pytest.raises(OSError, match=r"^/proc/version: .*os error"):
        read_safetensors("/proc/version")


def test_more_bytes_than_the_header_tells_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert refusal(saved).startswith("expected a safetensors file, found")


def write(path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], metadata=None) -> None:
    """Write a safetensors file by hand."""
    header, content = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        content += data
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_refused(path, metadata):
    write(path, {"weight": ("F32", (1,), bytes(4))}, metadata)
    assert refusal(path) == (
        "expected a portable file, found no spec in its metadata; for another project's "
        f"checkpoint: convert({str(path)!r}, 'NEW.safetensors')"
    )


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_narrow_floats_become_float32_without_loss(path, spec, weights, kind):
    wide = {n: np.abs(a).astype(np.float16).astype(np.float32) for n, a in weights.items()}
    wide = {n: (a.view(np.uint32) >> 16 << 16).view(np.float32) for n, a in wide.items()}
    parts = {}
    for name, array in wide.items():
        halves = array.astype("<f2") if kind == "F16" else (array.view("<u4") >> 16).astype("<u2")
        parts[name] = (kind, array.shape, halves.tobytes())
    write(path, parts, {"densenet_multi": spec.to_json()})
    _, read = dm.load_weights(path)
    assert {array.dtype for array in read.values()} == {np.dtype("float32")}
    np.testing.assert_equal(read, wide)
    dm.save_weights(path, spec, {n: a.astype(np.float16) for n, a in wide.items()})
    assert dm.load_weights(path)[1].keys() == wide.keys()


@pytest.mark.parametrize("kind", ["F8_E4M3", "I32", "U8", "BOOL"])
def test_what_is_no_float_is_refused_by_name(path, spec, weights, kind):
    parts = {n: ("F32", a.shape, a.tobytes()) for n, a in weights.items()}
    shape = weights["classifier.bias"].shape
    parts["classifier.bias"] = (kind, shape, bytes(shape[0] * (4 if kind == "I32" else 1)))
    write(path, parts, {"densenet_multi": spec.to_json()})
    assert refusal(path).startswith(
        "expected tensors of type F64, F32, F16, BF16\n  classifier.bias: found"
    )


def test_a_file_larger_than_any_network_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(2**32 + 1)  # sparse: takes no space
    assert refusal(path).startswith("expected at most 4,294,967,296 bytes, found 4,294,967,297")


def test_usage_is_kept(path, spec, weights):
    usage = dm.Usage(
        image_size=224,
        value_range=(0, 1),
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        class_names=list("abcd"),
        running_variance="unbiased",
        source="a test",
    )
    dm.save_weights(path, spec, weights, usage)
    checkpoint = dm.load_checkpoint(path)
    assert checkpoint.usage == usage
    assert (checkpoint.spec, checkpoint.notes) == (spec, ())
    np.testing.assert_equal(checkpoint.weights, weights)
    first = path.read_bytes()
    dm.save_weights(path, spec, weights, usage)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.5]}, "mean: expected 3 values for this network"),
        ({"class_names": ["a"]}, "class_names: expected 4 values"),
        ({"split_seed": -1}, "split_seed: expected an integer from 0 to 18,446,"),
        ({"class_names": "abcd"}, "class_names: expected a list of names"),
        ({"std": [1, 1, "1"]}, "std: expected a list of numbers"),
        ({"std": [1, 0, 1]}, "std: expected numbers above 0"),
        ({"value_range": [1, 0]}, "value_range: expected two numbers, the lower first"),
        ({"value_range": [0, 1, 2]}, "value_range: expected two numbers, the lower first"),
        ({"mean": [0, float("nan"), 0]}, "mean: expected finite numbers"),
        ({"mean": [0, 10**400, 0]}, "mean: expected finite numbers"),
        ({"image_size": "224"}, "image_size: expected an integer from 1 to 4,096"),
        ({"image_size": 0}, "image_size: expected an integer from 1 to 4,096"),
        ({"source": ["x"]}, "source: expected a string or None"),
        ({"running_variance": "both"}, "running_variance: expected 'biased'"),
        ({"image_sise": 3}, "did you mean 'image_size'"),
        ([], "usage: expected an object"),
    ],
)
def test_a_usage_that_does_not_fit_is_refused(path, spec, weights, given, message):
    parts = {n: ("F32", a.shape, a.tobytes()) for n, a in weights.items()}
    header = {**json.loads(spec.to_json()), "usage": given}
    write(path, parts, {"densenet_multi": json.dumps(header)})
    assert message in refusal(path)


def resave(path, spec: dm.DenseNetSpec, weights: dict[str, np.ndarray]) -> None:
    """Write the file that save_weights would write without its checks."""
    kinds = {"float32": "F32", "float64": "F64", "int32": "I32"}
    parts = {n: (kinds[a.dtype.name], a.shape, a.tobytes()) for n, a in weights.items()}
    write(path, parts, {"densenet_multi": spec.to_json()})


def test_a_file_written_by_hand_is_read(path, spec, weights):
    resave(path, spec, weights)
    np.testing.assert_equal(dm.load_weights(path)[1], weights)


def test_tensors_that_do_not_fit_the_spec_in_the_file_are_listed(path, spec, weights):
    name = "features.norm0.bias"
    for problem, broken in [
        (r"unexpected", weights | {"more": np.zeros(1, np.float32)}),
        (r"missing, expected shape \(8,\)", {n: a for n, a in weights.items() if n != name}),
        (r"expected shape \(8,\), found \(7,\)", weights | {name: np.zeros(7, np.float32)}),
        (r"expected finite values, found 8", weights | {name: np.full(8, np.nan, np.float32)}),
    ]:
        resave(path, spec, broken)
        with pytest.raises(dm.WeightsError, match=problem) as caught:
            dm.load_weights(path)
        assert str(caught.value).startswith(f"{path}: weights do not fit the network, 1 problem(s)")


def test_a_short_file_cannot_ask_for_a_huge_network(path, spec, weights):
    parts = {n: ("F32", a.shape, a.tobytes()) for n, a in weights.items()}
    for layers, expected in {
        10_000: "expected tensors for 10000 dense layers, found ",
        10**18: "block_config: expected at most 10,000 layers in all; found (1000000000000000000,)",
    }.items():
        config = {**json.loads(spec.to_json())["config"], "block_config": [layers]}
        text = json.dumps({"schema_version": 1, "config": config})
        write(path, parts, {"densenet_multi": text})
        assert refusal(path).startswith(expected)
    write(path, parts, {"densenet_multi": "[" * 100_000})
    assert refusal(path).startswith("configuration: expected JSON, found")


def test_a_spec_that_was_changed_after_it_was_resolved_is_not_saved(path, spec, weights):
    changed = replace(spec, classifier=replace(spec.classifier, out_features=99))
    with pytest.raises(dm.WeightsError, match=r"expected a spec that config\.resolve"):
        dm.save_weights(path, changed, weights)
    assert not path.exists()


def test_writers_of_one_file_at_once_leave_one_of_them(path):
    contents = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: replace_file(path, content), contents * 8))
    assert path.read_bytes() in contents
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(path, b"new")
    assert caught.value.filename == str(path)


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    replace_file("/dev/null", b"new")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        replace_file(tmp_path, b"new")


def test_a_spec_that_is_none_is_refused(path, spec, weights):
    for text in ["", "{}", spec.to_json().replace('"schema_version": 1', '"schema_version": 2')]:
        parts = {n: ("F32", a.shape, a.tobytes()) for n, a in weights.items()}
        write(path, parts, {"densenet_multi": text})
        assert refusal(path).startswith(("configuration: ", "schema_version: expected 1"))


def test_what_is_read_can_be_trained_on(saved):
    before = saved.read_bytes()
    for array in dm.load_weights(saved)[1].values():
        array[...] = 1  # the array's own memory, not a view of the file
    assert saved.read_bytes() == before


def test_uniform_numbers_are_above_zero_so_that_their_logarithm_is_finite(monkeypatch):
    class Zeros:
        def __init__(self, _):
            pass

        def random_raw(self, count):
            return np.zeros(count, np.uint64)

    monkeypatch.setattr(np.random, "PCG64", Zeros)
    assert module._uniform([0], 2).tolist() == [2.0**-53] * 2
    assert np.isfinite(module._normal([0], 3)).all()
