"""Checkpoints of other projects: reading, writing and refusing them without a framework."""

import json
import re
import struct
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

import densenet_multi as dm
from cases import SMALL, as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.checkpoint import IMAGENET
from densenet_multi.commands import main
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats import gluon_zoo
from densenet_multi.formats.recognize import recognize, variant_name
from densenet_multi.tasks import convert
from strategies import configs

BOTTLENECK = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)
FREE = {"torchvision": ".safetensors", "nnx": ".safetensors", "gluon": ".params"}


@pytest.fixture
def checkpoint():
    return dm.Checkpoint(BOTTLENECK, as_float32(random_weights(BOTTLENECK)))


def same(first, second):
    assert list(first) == list(second)
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name], err_msg=name)


# --- Recognition --------------------------------------------------------------------------------


def shapes(spec):
    return {name: info.shape for name, info in dm.tensors(spec).items()}


@pytest.mark.parametrize("variant", dm.VARIANTS)
@pytest.mark.parametrize(
    "overrides", [{}, {"num_classes": 7, "in_channels": 2}, {"num_classes": 0}]
)
def test_every_variant_is_recognised_from_names_and_shapes(variant, overrides):
    spec = dm.get_spec(variant, **overrides)
    found = recognize(shapes(spec))
    assert found == spec.config
    assert variant_name(found) == variant


@settings(deadline=None, max_examples=100)
@given(configs())
def test_any_network_is_recognised_as_one_with_the_same_tensors(config):
    spec = config.resolve()
    known = {f: getattr(config, f) for f in ("bn_eps", "bn_decay", "drop_rate")}
    assert shapes(recognize(shapes(spec), **known).resolve()) == shapes(spec)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("features.denseblock1.denselayer999999999.norm1.weight", (3,)),
        ("features.denseblock2.denselayer1.conv2.weight", (0, 4, 3, 3)),
    ],
)
def test_tensors_that_promise_a_huge_or_an_empty_network_are_refused(name, shape):
    with pytest.raises(dm.WeightsError, match=r"expected non-empty tensors for \d+ dense layers"):
        recognize({**shapes(BOTTLENECK), name: shape})


def test_what_is_missing_is_what_the_message_expects():
    found = {"features.conv0.weight": (64, 3, 7, 7), "features.norm0.weight": (64,)}
    with pytest.raises(dm.WeightsError) as caught:
        recognize(found)
    expected, _, others = str(caught.value).partition("; found 2 others: ")
    assert "features.conv0.weight" not in expected
    assert others == "features.conv0.weight, features.norm0.weight"


def test_a_networks_tensors_that_are_no_densenets_are_refused():
    resnet = {"conv1.weight": (64, 3, 7, 7), "layer1.0.bn1.weight": (64,), "fc.weight": (1000, 512)}
    with pytest.raises(dm.WeightsError, match=r"expected a DenseNet's tensors.*conv1\.weight"):
        recognize(resnet)


# --- There and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_checkpoint_comes_back_bit_by_bit(tmp_path, checkpoint, name, dtype):
    weights = {n: a.astype(dtype) for n, a in checkpoint.weights.items()}
    path = tmp_path / f"file{FREE[name]}"
    formats.write(path, dm.Checkpoint(BOTTLENECK, weights), name)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert formats.guess(path) == name
    back = formats.read(path)
    assert back.spec == BOTTLENECK
    same(back.weights, weights)


@pytest.mark.parametrize("name", ["torchvision", "nnx"])
@pytest.mark.parametrize("kind", SMALL)
def test_networks_of_every_kind_come_back(tmp_path, name, kind):
    spec = small(kind, bn_eps=1e-5, bn_decay=0.9)
    weights = as_float32(random_weights(spec))
    path = tmp_path / "file.safetensors"
    formats.write(path, dm.Checkpoint(spec, weights), name)
    back = formats.read(path)
    assert shapes(back.spec) == shapes(spec)
    same(back.weights, weights)


def test_what_a_source_says_about_its_use_is_carried_along(tmp_path):
    spec = dm.get_spec("densenet121")
    path = tmp_path / "file.params"
    formats.write(path, dm.Checkpoint(spec, dm.init_weights(spec)), "gluon")
    usage = formats.read(path).usage
    assert usage.mean == (0.485, 0.456, 0.406)
    assert (usage.image_size, usage.value_range) == (224, (0.0, 1.0))
    assert usage.running_variance == "biased"
    assert "file.params" in usage.source


@pytest.mark.parametrize("name", FREE)
def test_what_a_file_cannot_say_is_told(tmp_path, checkpoint, name):
    def notes(usage=None, **overrides):
        made = dm.Checkpoint(
            small("bottleneck", **overrides), checkpoint.weights, usage or dm.Usage()
        )
        return " ".join(formats.write(tmp_path / f"file{FREE[name]}", made, name))

    plain = notes(bn_eps=1e-5, bn_decay=0.9)
    for word in ("epsilon", "decay", "class names", "image size", "drop rate"):
        assert word not in plain
    assert "epsilon of 1e-05, these weights 0.001" in notes(bn_eps=1e-3)
    assert "decay of 0.9, these weights 0.99" in notes(bn_decay=0.99)
    assert "portable file can store the weights' drop rate" in notes(drop_rate=0.1)
    usage = dm.Usage(image_size=33, class_names=("a", "b", "c", "d"))
    assert "weights' image size, class names" in notes(usage)


def test_what_a_reader_infers_is_not_called_lost(tmp_path):
    spec = dm.get_spec("densenet121", num_classes=3)
    for usage, lost in ((IMAGENET, False), (replace(IMAGENET, image_size=288), True)):
        made = dm.Checkpoint(spec, dm.init_weights(spec), usage)
        notes = formats.write(tmp_path / "x.params", made)
        assert any("image size" in note for note in notes) == lost


def test_the_zoo_refuses_what_its_models_cannot_be(tmp_path):
    spec = small("plain")
    with pytest.raises(dm.WeightsError, match="expected a network of the zoo's kind"):
        formats.write(tmp_path / "x.params", dm.Checkpoint(spec, dm.init_weights(spec)))
    assert not list(tmp_path.iterdir())


# --- Names of other times and programs ----------------------------------------------------------


def old_name(name):
    """Return norm.1 for norm1, inside dense layers only."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
@pytest.mark.parametrize("old", [False, True])
def test_old_names_prefixes_and_counters_are_understood(tmp_path, checkpoint, prefix, old):
    state = {}
    for name, array in checkpoint.weights.items():
        state[prefix + (old_name(name) if old else name)] = array
    state[f"{prefix}features.norm0.num_batches_tracked"] = np.array(3)
    save_file(state, tmp_path / "x.safetensors")
    back = formats.read(tmp_path / "x.safetensors")
    same(back.weights, checkpoint.weights)
    assert any(repr(prefix) in note for note in back.notes) == bool(prefix)
    assert any("before 2018" in note for note in back.notes) == old


def test_prefixed_names_of_the_zoo_are_understood(tmp_path, checkpoint):
    path = tmp_path / "x.params"
    formats.write(path, checkpoint, "gluon")
    content = path.read_bytes()
    for canonical, structural in gluon_zoo.structural_names(BOTTLENECK).items():
        old = f"densenet0_{prefixed(canonical)}"
        before = struct.pack("<Q", len(structural)) + structural.encode()
        assert content.count(before) == 1
        content = content.replace(before, struct.pack("<Q", len(old)) + old.encode())
    path.write_bytes(content)
    same(formats.read(path).weights, checkpoint.weights)


def prefixed(canonical):
    """Return Gluon's name for the parameter when it numbers layers in creation order."""
    *_, layer, leaf = canonical.split(".")
    leaf = gluon_zoo.LEAF.get(f"norm.{leaf}", leaf) if "norm" in layer else leaf
    kind = "batchnorm" if "norm" in layer else "conv"
    if "denselayer" in canonical:
        block, number = canonical.split(".")[1:3]
        at = 2 * (int(number.removeprefix("denselayer")) - 1) + int(layer[-1]) - 1
        return f"stage{block.removeprefix('denseblock')}_{kind}{at}_{leaf}"
    if "transition" in canonical:
        at = int(canonical.split(".")[1].removeprefix("transition"))
    else:
        at = len(BOTTLENECK.stages) if layer == "norm5" else 0
    return f"dense0_{leaf}" if layer == "classifier" else f"{kind}{at}_{leaf}"


def test_nnx_names_may_be_joined_by_slashes_and_other_state_is_left_out(tmp_path, checkpoint):
    from densenet_multi.formats.nnx import to_nnx

    state = {n.replace(".", "/"): a for n, a in to_nnx(BOTTLENECK, checkpoint.weights).items()}
    state["features/dropout/count"] = np.zeros(1, np.float32)
    save_file(state, tmp_path / "x.safetensors")
    back = formats.read(tmp_path / "x.safetensors")
    same(back.weights, checkpoint.weights)
    assert "features/dropout/count" in back.notes[0]


# --- Portable means portable --------------------------------------------------------------------


def test_the_portable_file_is_torchvisions_but_for_the_counters(tmp_path, checkpoint):
    formats.write(tmp_path / "a.safetensors", checkpoint)
    formats.write(tmp_path / "b.safetensors", checkpoint, "torchvision")
    portable, theirs = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    counters = {n: theirs.pop(n) for n in list(theirs) if n.endswith("num_batches_tracked")}
    assert len(counters) == sum(n.endswith("running_var") for n in portable)
    assert {a.dtype for a in counters.values()} == {np.dtype("int64")}
    for name, array in theirs.items():
        np.testing.assert_array_equal(portable[name], array)


# --- A new classifier ---------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, 1, 9])
def test_a_new_classifier_leaves_the_body_alone(checkpoint, classes):
    new = formats.with_classes(checkpoint, classes)
    assert new.spec.config.num_classes == classes
    for name, array in new.weights.items():
        if not name.startswith("classifier."):
            np.testing.assert_array_equal(array, checkpoint.weights[name])
    said = f"a new one for {classes}" if classes else "was removed: the outputs are features"
    assert said in new.notes[-1]
    features = dm.reference.forward(new.spec, new.weights, images(new.spec, 32)).stages["norm5"]
    expected = dm.reference.forward(BOTTLENECK, checkpoint.weights, images(BOTTLENECK, 32))
    np.testing.assert_array_equal(features, expected.stages["norm5"])


# --- Damaged files ------------------------------------------------------------------------------


def refusal(path, **arguments):
    start = time.perf_counter()
    with pytest.raises((dm.WeightsError, dm.ConfigError)) as caught:
        formats.read(path, **arguments)
    assert time.perf_counter() - start < 5
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\0" * 99]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    pickled = content[:2] == b"\x80\x02"  # PyTorch reads it: see test_native_torch_formats.py
    for name in ("portable", "nnx", "gluon", *(() if pickled else (None,))):
        refusal(path, file_format=name)
    if not pickled and content[:2] != b"PK":
        refusal(path, file_format="torchvision")


def test_a_header_of_too_many_tensors_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "many.safetensors"
    entry = b'"t%06d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % i for i in range(150_000)) + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(dm.WeightsError, match="a header of at most 8,388,608 bytes, found one of"):
        formats.read(path)


@pytest.mark.parametrize("name", ["portable", *FREE])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, checkpoint, name):
    path = tmp_path / f"file{FREE.get(name, '.safetensors')}"
    formats.write(path, checkpoint, name)
    content = path.read_bytes()
    for kept in [*range(0, 64, 3), *np.linspace(64, len(content) - 1, 40).astype(int)]:
        path.write_bytes(content[:kept])
        refusal(path, file_format=name)


def test_a_prefix_is_refused_where_no_name_has_one(tmp_path, checkpoint):
    path = tmp_path / "net.safetensors"
    formats.write(path, checkpoint)
    with pytest.raises(dm.WeightsError, match=r"expected no prefix \(no name has one\)"):
        formats.read(path, prefix="backbone.")


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["portable", *FREE])
def test_damaged_files_are_refused_or_differ_in_values_only(tmp_path, checkpoint, name, count):
    """Flipped bits in names, shapes and headers are detected; in weights' values they cannot be."""
    path = tmp_path / f"file{FREE.get(name, '.safetensors')}"
    formats.write(path, checkpoint, name)
    content = path.read_bytes()
    structure = content_without_values(content, checkpoint)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(count):
        damaged = bytearray(content)
        where = structure if number % 2 else range(len(content))
        for at in rng.choice(len(where), rng.integers(1, 4)):
            damaged[where[at]] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        start = time.perf_counter()
        try:
            back = formats.read(path, name)
        except (dm.WeightsError, dm.ConfigError):
            refused += 1
        else:
            assert {name: a.shape for name, a in back.weights.items()} == shapes(back.spec)
            assert all(np.isfinite(array).all() for array in back.weights.values())
        assert time.perf_counter() - start < 2
    assert refused > 0.3 * count


def content_without_values(content, checkpoint):
    """Return the positions of all bytes that hold no tensor's values."""
    free = np.ones(len(content), bool)
    for array in checkpoint.weights.values():
        for values in (array, array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T):
            at = content.find(np.ascontiguousarray(values).tobytes())
            if at >= 0 and array.size > 1:
                free[at : at + array.nbytes] = False
    return np.flatnonzero(free)


@pytest.mark.parametrize("name", ["portable", *FREE])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "expected finite values, found 1"),
        ("missing", "missing, expected shape"),
        ("shape", "expected shape"),
        ("variance", "expected variances of at least 0"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, monkeypatch, checkpoint, name, what, message):
    tensor = "features.denseblock2.denselayer1.norm2.running_var"
    weights = {n: a.copy() for n, a in checkpoint.weights.items()}
    if what == "nan":
        weights[tensor][3] = np.nan
    elif what == "variance":
        weights[tensor][3] = -1
    elif what == "shape":
        weights[tensor] = np.ones(5, np.float32)
    path = tmp_path / f"file{FREE.get(name, '.safetensors')}"
    write_unchecked(monkeypatch, path, dm.Checkpoint(BOTTLENECK, weights), name)
    if what == "missing":
        remove(path, name, tensor)
    text = refusal(path, file_format=name)
    assert message in text
    assert tensor in text


def write_unchecked(monkeypatch, path, checkpoint, name):
    with monkeypatch.context() as patch:
        patch.setattr(
            "densenet_multi.formats.portable.check_weights", lambda _, weights, __: weights
        )
        formats.write(path, checkpoint, name)


def remove(path, name, tensor):
    if name == "gluon":
        content = path.read_bytes()
        structural = gluon_zoo.structural_names(BOTTLENECK)[tensor].encode()
        path.write_bytes(content.replace(structural, structural.replace(b"features", b"feathers")))
        return
    state, spec = load_file(path), BOTTLENECK.to_json()
    native = {"nnx": tensor.replace("running_var", "var")}.get(name, tensor)
    del state[native]
    save_file(state, path, metadata={"densenet_multi": spec} if name == "portable" else None)


def test_two_tensors_of_equal_shape_that_were_swapped_cannot_be_found(tmp_path, checkpoint):
    """Nothing in a file tells them apart; only the answers reveal the swap (docs/formats.md)."""
    first, second = (f"features.denseblock2.denselayer{i}.norm2.weight" for i in (1, 2))
    weights = dict(checkpoint.weights)
    weights[first], weights[second] = weights[second], weights[first]
    formats.write(tmp_path / "x.safetensors", dm.Checkpoint(BOTTLENECK, weights))
    back = formats.read(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(back.weights[first], checkpoint.weights[second])


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**8)
    assert path.stat().st_size < 200_000
    refusal(path)
    refusal(path, file_format="torchvision")


def test_an_array_list_that_promises_too_much_allocates_nothing(tmp_path):
    path = tmp_path / "x.params"
    for header in (
        struct.pack("<QQQ", 0x112, 0, 2**60),
        struct.pack("<QQQIiI2qiii", 0x112, 0, 1, 0xF993FAC9, 0, 2, 2**40, 2**40, 1, 0, 0),
        struct.pack("<QQQIiI2qiii", 0x112, 0, 1, 0xF993FAC9, 0, 2, -1, 4, 1, 0, 0),
        struct.pack("<QQQIiI", 0x112, 0, 1, 0xF993FAC9, 0, 2**31),
    ):
        path.write_bytes(header)
        refusal(path)


def test_what_a_user_overrides_is_not_told_as_assumed(tmp_path):
    spec = dm.get_spec("d2l", num_classes=3)
    path = tmp_path / "x.safetensors"
    formats.write(path, dm.Checkpoint(spec, dm.init_weights(spec)), "torchvision")
    assert "assumed: an epsilon of 1e-05" in formats.read(path).notes[-1]
    read = formats.read(path, bn_eps=1e-3)
    assert (read.notes, read.spec.config.bn_eps) == ((), 1e-3)


# --- Stems that were changed --------------------------------------------------------------------


def written(path, arrays):
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def test_a_stem_alone_may_have_a_bias(tmp_path, checkpoint):
    bias = np.arange(len(checkpoint.weights["features.conv0.weight"]), dtype=np.float32)
    path = written(tmp_path / "x", {**checkpoint.weights, "features.conv0.bias": bias})
    read = formats.read(path)
    assert read.spec.config.conv_bias
    assert "of its convolutions, only the first has a bias: zero biases were added" in read.notes
    mean = "features.norm0.running_mean"  # subtracting from it acts as a bias before norm0
    moved = {**checkpoint.weights, mean: checkpoint.weights[mean] - bias}
    x = images(read.spec, 33)
    logits = dm.reference.predict(read.spec, read.weights, x)
    assert deviation(logits, dm.reference.predict(checkpoint.spec, moved, x)) < 1e-6
    another = {**checkpoint.weights, "features.transition1.conv.bias": bias}
    with pytest.raises(dm.WeightsError):
        formats.read(written(tmp_path / "y", another))


def test_a_stem_of_another_kind_is_refused_as_that(tmp_path, checkpoint):
    kernel = checkpoint.weights["features.conv0.weight"][:, :, 2:5, 2:5]
    path = written(tmp_path / "x", {**checkpoint.weights, "features.conv0.weight": kernel})
    with pytest.raises(
        dm.WeightsError, match=r"found a 3x3 stem with it: no tensor shows the stri"
    ):
        formats.read(path)


def test_counters_of_any_dtype_are_no_weights(tmp_path, checkpoint):
    counters = {"features.norm0.num_batches_tracked": np.ones((), np.float16)}
    read = formats.read(written(tmp_path / "x", {**checkpoint.weights, **counters}))
    same(read.weights, checkpoint.weights)
    assert read.notes == formats.read(written(tmp_path / "y", checkpoint.weights)).notes


@pytest.mark.parametrize(
    ("variant", "is_told"), [("densenet121", False), ("d2l", True), ("densenet_bc100_k12", True)]
)
def test_weights_of_pytorch_tell_what_is_assumed_unless_they_are_torchvisions(
    tmp_path, variant, is_told
):
    spec = dm.get_spec(variant, num_classes=3)
    read = formats.read(written(tmp_path / "x", dm.init_weights(spec)))
    told = [note.startswith("no tensor shows its settings; assumed: ") for note in read.notes]
    assert told == [True] * is_told


# --- Names of formats ---------------------------------------------------------------------------


def test_a_format_that_does_not_exist_is_refused_with_the_nearest(tmp_path, checkpoint):
    with pytest.raises(dm.ConfigError, match="did you mean 'torchvision'"):
        formats.write(tmp_path / "x", checkpoint, "torch-vision")
    for other, meant in ("tensorflow", "keras"), ("MXNet", "gluon"), ("JAX", "nnx"):
        with pytest.raises(dm.ConfigError, match=f"did you mean '{meant}'"):
            formats.write(tmp_path / "x", checkpoint, other)
    with pytest.raises(dm.ConfigError, match=r"expected a name ending in \.safetensors"):
        formats.write(tmp_path / "x.txt", checkpoint)


def test_a_variant_that_is_given_must_fit(tmp_path):
    spec = dm.get_spec("densenet_bc100_k12", num_classes=3)
    path = tmp_path / "x.safetensors"
    formats.write(path, dm.Checkpoint(spec, dm.init_weights(spec)), "torchvision")
    assert formats.read(path, variant="densenet_bc100_k12").spec == spec
    assert formats.read(path, drop_rate=0.2).spec.config.drop_rate == 0.2
    with pytest.raises(
        dm.WeightsError,
        match="expected the tensors of densenet121, found those of "
        r"densenet_bc100_k12: \d+ differ",
    ):
        formats.read(path, variant="densenet121")


# --- The command line ---------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_convert_verifies_on_real_images(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(convert, "load_backend", lambda _: exec("raise ImportError"))  # noqa: S102
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)
    done = run("convert", source, dest, "--to", "nnx", "--verify", "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["from"], result["to"]) == ("portable", "nnx")
    assert result["max_deviation"] == 0
    assert result["source_model"] == result["destination_model"] == "the NumPy reference"
    same(formats.read(dest).weights, checkpoint.weights)


def test_a_conversion_that_changes_the_answers_is_refused_and_leaves_no_file(
    tmp_path, checkpoint, monkeypatch
):
    monkeypatch.setattr(convert, "load_backend", lambda _: exec("raise ImportError"))  # noqa: S102
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)
    moved = {n: a * 1.001 for n, a in checkpoint.weights.items()}
    honest = formats.write
    monkeypatch.setattr(
        formats,
        "write",
        lambda path, made, name: honest(path, dm.Checkpoint(made.spec, moved), name),
    )
    done = run("convert", source, dest, "--to", "nnx", "--verify")
    assert done.exit_code == 1
    assert "expected the source's logits" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_deviation_that_a_known_convention_explains_is_called_by_its_name(
    tmp_path, checkpoint, monkeypatch
):
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)

    def logits(path, _format, found, x):
        flipped = {n: a[..., ::-1, ::-1] if a.ndim == 4 else a for n, a in found.weights.items()}
        weights = flipped if path == source else found.weights
        return dm.reference.predict(found.spec, weights, x), path.name, True

    monkeypatch.setattr(convert, "logits", logits)
    done = run("convert", source, dest, "--to", "nnx", "--verify")
    assert done.exit_code == 1
    assert "Suspect in a.safetensors: kernel_flipped in stem: the port flips the" in done.stderr
    assert not dest.exists()


@pytest.fixture
def alone(monkeypatch):
    """Verify with the NumPy reference, as if no framework were installed."""
    monkeypatch.setattr(convert, "load_backend", lambda _: exec("raise ImportError"))  # noqa: S102


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("verify", [(), ("--verify",)])
@pytest.mark.parametrize("to", ["nnx", "portable"])
def test_a_folder_that_exists_is_never_replaced(tmp_path, checkpoint, verify, to):
    formats.write(tmp_path / "a.safetensors", checkpoint)
    thesis = tmp_path / "folder" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    done = run("convert", tmp_path / "a.safetensors", thesis.parent, "--to", to, *verify)
    assert done.exit_code == 1
    assert f"{thesis.parent}: expected a new name, found a folder" in done.stderr
    assert thesis.read_text() == "years of work"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("verify", [(), ("--verify",)])
def test_a_link_stays_a_link_and_a_device_a_device(tmp_path, checkpoint, verify):
    formats.write(tmp_path / "a.safetensors", checkpoint)
    for name, target in (("file", tmp_path / "b.safetensors"), ("device", Path("/dev/null"))):
        target.touch()
        link = tmp_path / name
        link.symlink_to(target)
        done = run("convert", tmp_path / "a.safetensors", link, "--to", "portable", *verify)
        assert done.exit_code == 0, done.output
        assert link.is_symlink()
    same(formats.read(tmp_path / "b.safetensors").weights, checkpoint.weights)
    assert Path("/dev/null").is_char_device()
    names = ["a.safetensors", "b.safetensors", "device", "file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("verify", [(), ("--verify",)])
def test_what_is_converted_keeps_the_permissions_of_what_it_replaces(tmp_path, checkpoint, verify):
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)
    dest.touch(0o600)
    done = run("convert", source, dest, "--to", "portable", *verify)
    assert done.exit_code == 0, done.output
    assert dest.stat().st_mode & 0o777 == 0o600
    same(formats.read(dest).weights, checkpoint.weights)


@pytest.mark.parametrize("name", ["torchvision", "linen", "nnx"])  # read without a library
def test_a_format_that_is_not_the_contents_is_refused_with_that(tmp_path, checkpoint, name):
    path = tmp_path / "a.params"
    formats.write(path, checkpoint)
    with pytest.raises(dm.WeightsError, match=r"expected .*; the content looks like 'gluon'"):
        formats.read(path, name)


@pytest.mark.usefixtures("alone")
def test_a_prefix_that_no_name_has_is_named_as_it_is_typed(tmp_path, checkpoint):
    formats.write(tmp_path / "a.safetensors", checkpoint, "torchvision")
    given = "--from", "torchvision", "--prefix", "model."
    done = run("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors", *given)
    assert done.exit_code == 1
    found = "a.safetensors: expected no prefix (no name has one), found --prefix model."
    assert found in done.stderr


@pytest.mark.usefixtures("alone")
def test_errors_while_verifying_name_the_destination(tmp_path):
    dest = "b.params"
    spec = small("plain")  # the zoo has no such network
    dm.save_weights(tmp_path / "a.safetensors", spec, dm.init_weights(spec))
    done = run("convert", tmp_path / "a.safetensors", tmp_path / dest, "--verify")
    assert done.exit_code == 1
    assert f"{tmp_path / dest}" in done.stderr
    assert convert.PREFIX not in done.stderr


@pytest.mark.usefixtures("alone")
def test_a_verification_that_cannot_tell_networks_apart_says_so(tmp_path, checkpoint):
    weights = {n: 0 * a if "classifier" in n else a for n, a in checkpoint.weights.items()}
    formats.write(tmp_path / "a.safetensors", dm.Checkpoint(BOTTLENECK, weights))
    done = convert.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", verify=True)
    assert "all images produce the same logits" in done["notes"][-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
@pytest.mark.parametrize("name", ["portable", *FREE])
def test_a_full_disk_is_an_oserror(tmp_path, checkpoint, name):
    path = tmp_path / f"file{FREE.get(name, '.safetensors')}"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        formats.write(path, checkpoint, name)


def test_convert_replaces_the_classifier_and_says_so(tmp_path, checkpoint):
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)
    done = run("convert", source, dest, "--num-classes", 2)
    assert done.exit_code == 0, done.stderr
    assert "a new one for 2" in " ".join(done.stdout.split())
    assert dm.load_weights(dest)[0].config.num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.safetensors", "a.safetensors"], 2, "the same file"),
        (["nowhere", "b.safetensors"], 2, "expected an existing file or folder, found none"),
        (["a.safetensors", "b.txt"], 2, "--to FORMAT"),
        (["a.safetensors", "b.safetensors", "--to", "tensorflow"], 2, "does not exist"),
        (["text", "b.safetensors"], 1, "expected a DenseNet checkpoint"),
        (
            ["a.safetensors", "no/folder/b.safetensors"],
            2,
            "expected an existing parent folder, found none",
        ),
        (["a.safetensors", "b.params", "--variant", "d2l"], 1, "expected the tensors of d2l"),
    ],
)
def test_convert_refuses_in_one_message(
    tmp_path, monkeypatch, checkpoint, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    formats.write("a.safetensors", checkpoint)
    (tmp_path / "text").write_text("hello")
    done = run("convert", *arguments)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "text"]


def test_inspect_says_what_a_checkpoint_is(tmp_path):
    spec = dm.get_spec("densenet121", num_classes=3)
    path = tmp_path / "x.params"
    formats.write(path, dm.Checkpoint(spec, dm.init_weights(spec)))
    result = json.loads(run("inspect", path, "--format", "json").stdout)
    assert (result["format"], result["variant"]) == ("gluon", "densenet121")
    assert result["trainable"] == dm.count_parameters(spec).trainable
    assert result["usage"]["running_variance"] == "biased"
    assert "densenet121" in run("inspect", path).stdout


@pytest.mark.parametrize(
    ("changes", "dtype", "note"),
    [
        ({}, "float32", None),
        ({"num_classes": 0}, "float32", "no classifier"),
        ({"num_classes": 7}, "float32", "usually has 1,000 classes"),
        ({"in_channels": 1}, "float32", "usually reads images with 3 channels"),
        ({}, "float16", "all weights have float16 precision"),
        ({}, "bfloat16", "all weights have bfloat16 precision"),
    ],
)
def test_inspect_says_what_is_unusual(tmp_path, changes, dtype, note):
    spec = dm.get_spec("densenet121", **changes)
    weights = dm.init_weights(spec)
    if dtype == "float16":
        weights = {name: a.astype(np.float16).astype(np.float32) for name, a in weights.items()}
    elif dtype == "bfloat16":
        weights = {
            name: (a.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            for name, a in weights.items()
        }
    dm.save_weights(tmp_path / "x.safetensors", spec, weights)
    notes = json.loads(run("inspect", tmp_path / "x.safetensors", "--format", "json").stdout)[
        "notes"
    ]
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_a_replaced_classifier_is_verified_on_both_sides(tmp_path, checkpoint, monkeypatch):
    source, dest = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    formats.write(source, checkpoint)
    done = run("convert", source, dest, "--num-classes", 2, "--verify", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "(original classifier)" in json.loads(done.stdout)["source_model"]
    asked = convert.logits

    def wrong(path, file_format, of, images):  # as if the source had been misread
        logits, who, independent = asked(path, file_format, of, images)
        own = path == source and of.spec == checkpoint.spec and not seen
        seen.append(own)
        return logits * (1.001 if own else 1), who, independent

    seen: list[bool] = []
    monkeypatch.setattr(convert, "logits", wrong)
    dest.unlink()
    done = run("convert", source, dest, "--num-classes", 2, "--verify")
    assert done.exit_code == 1
    assert "deviation of 1.0e-03" in " ".join(done.stderr.split())
    assert not dest.exists()


def test_verification_images_are_normalized_as_the_usage_says(checkpoint):
    usage = dm.Usage(image_size=40, value_range=(0, 255), mean=(100, 0, 0), std=(50, 1, 2))
    x = convert.verification_images(dm.Checkpoint(BOTTLENECK, checkpoint.weights, usage))
    plain = convert.verification_images(
        dm.Checkpoint(BOTTLENECK, checkpoint.weights, dm.Usage(image_size=40))
    )
    assert x.shape == (4, 3, 40, 40)
    np.testing.assert_allclose(x[:, 0], (plain[:, 0] * 255 - 100) / 50, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x[:, 2], plain[:, 2] * 255 / 2, rtol=1e-5, atol=1e-5)
    assert 0.9 < plain.max() <= 1


@pytest.mark.parametrize("field", ["transition_pool", "global_pool"])
def test_formats_whose_models_pool_by_averages_refuse_another_pooling_or_say_so(tmp_path, field):
    spec = dm.get_spec("densenet121", block_config=(1, 1, 1, 1), num_classes=2, **{field: "max"})
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    for name, file_format in [("x.weights.h5", "keras"), ("x.params", "gluon")]:
        with pytest.raises(dm.WeightsError, match="expected a network of"):
            formats.write(tmp_path / name, checkpoint, file_format)
    notes = formats.write(tmp_path / "x.safetensors", checkpoint, "torchvision")
    assert f"only a portable file can store the weights' {field.replace('_', ' ')}" in " ".join(
        notes
    )
    dm.save_weights(tmp_path / "y", spec, checkpoint.weights)
    assert dm.load_checkpoint(tmp_path / "y").spec == spec


def test_a_portable_file_is_not_read_as_torchvisions(tmp_path):
    spec = small("bottleneck")
    usage = dm.Usage(class_names=tuple("abcd"))
    dm.save_weights(tmp_path / "x.safetensors", spec, as_float32(random_weights(spec)), usage)
    with pytest.raises(dm.WeightsError, match="found a portable file, whose usage would be lost"):
        formats.read(tmp_path / "x.safetensors", "torchvision")
