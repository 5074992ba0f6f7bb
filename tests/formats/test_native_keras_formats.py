"""keras.applications' own models agree with what is read and written; damaged files are refused."""

import re
import time
import warnings
import zipfile

import h5py
import numpy as np
import pytest
from keras.src.applications.densenet import DenseNet  # accepts any blocks; not public
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from tensorflow import keras

import densenet_multi as dm
import densenet_multi.keras as dk
from cases import as_float32, images, random_weights
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats import _hdf5, keras_applications, kerashub
from densenet_multi.formats._keras.models import in_dtype_of
from densenet_multi.formats._keras.writing import write_weights
from densenet_multi.tasks import convert
from keras_peer import filled, in_dtype

BLOCKS = (1, 2, 1, 1)
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with in_dtype(request.param) as name:
        yield name


def peer(size=32, channels=3, seed=0, **arguments):
    """Return a model of keras.applications with nontrivial weights that outputs logits."""
    given = {"weights": None, "classes": 5, "classifier_activation": None, **arguments}
    return filled(DenseNet(list(BLOCKS), input_shape=(size, size, channels), **given), seed)


def answer(model, x):
    return model(x.transpose(0, 2, 3, 1), training=False).numpy()


def read(path):
    with path.open("rb") as file:
        head = file.read(512)
    assert keras_applications.looks_like(path, head)
    assert not kerashub.looks_like(path, head)
    return keras_applications.read(path)


def same(first, second):
    assert list(first) == list(second)
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name], err_msg=name)


# --- The same function --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [pytest.param(224, marks=pytest.mark.long), 64, 67])
def test_the_same_answers_as_keras_applications(tmp_path, dtype, size):
    model, path = peer(size), tmp_path / "x.weights.h5"
    model.save_weights(path)
    checkpoint = read(path)
    assert checkpoint.spec == dm.get_spec(
        "densenet121", block_config=BLOCKS, num_classes=5, bn_eps=1.001e-5, bn_decay=0.99
    )
    assert checkpoint.usage.running_variance == "biased"
    assert "weights alone do not show what is computed" in checkpoint.notes[0]
    x = images(checkpoint.spec, size).astype(dtype)
    expected = answer(model, x)
    reference = dm.reference.predict(checkpoint.spec, checkpoint.weights, x)
    assert deviation(reference, expected) < TOLERANCE[dtype]
    ours = dk.build(checkpoint.spec, dtype=dtype)
    dk.import_weights(ours, checkpoint.weights)
    assert deviation(dk.predict(ours, x), expected) < TOLERANCE[dtype]


@pytest.mark.long  # smaller ones: test_other_heads_and_channels_go_there_and_back
@pytest.mark.parametrize("variant", ["DenseNet121"])  # 169, 201: nox -s peers-keras
def test_the_models_that_users_have_load_what_is_written_bit_by_bit(tmp_path, variant):
    spec = dm.get_spec(variant.lower(), bn_eps=1.001e-5, bn_decay=0.99)
    weights = as_float32(random_weights(spec))
    path, again = tmp_path / "x.weights.h5", tmp_path / "again.weights.h5"
    notes = keras_applications.write(path, dm.Checkpoint(spec, weights))
    assert [note for note in notes if "softmax" not in note] == []
    model = getattr(keras.applications, variant)(weights=path, classifier_activation=None)
    model.save_weights(again)
    back = read(again)
    assert back.spec == spec
    assert back.usage.image_size == 224
    same(back.weights, weights)
    ours = dk.build(spec)
    dk.import_weights(ours, weights)
    x = images(spec, 224, count=1).astype(np.float32)
    assert deviation(dk.predict(ours, x), answer(model, x)) < TOLERANCE["float32"]


@pytest.mark.parametrize("arguments", [{"include_top": False}, {"classes": 3}, {"channels": 1}])
def test_other_heads_and_channels_go_there_and_back(tmp_path, dtype, arguments):
    model = peer(**arguments)
    model.save_weights(tmp_path / "x.weights.h5")
    checkpoint = read(tmp_path / "x.weights.h5")
    config = checkpoint.spec.config
    assert config.in_channels == arguments.get("channels", 3)
    assert config.num_classes == (
        arguments.get("classes", 5) if "include_top" not in arguments else 0
    )
    assert {array.dtype for array in checkpoint.weights.values()} == {np.dtype(dtype)}
    keras_applications.write(tmp_path / "y.weights.h5", checkpoint)
    other = peer(seed=1, **arguments)
    other.load_weights(tmp_path / "y.weights.h5")
    for mine, theirs in zip(other.variables, model.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_peer_logits_are_what_keras_makes_of_the_file(tmp_path):
    spec = dm.get_spec("densenet121", num_classes=3, bn_eps=1.001e-5, bn_decay=0.99)
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    path = tmp_path / "named.as.you.like"
    with pytest.raises(dm.ConfigError, match=r"ends in \.weights\.h5, by which Keras"):
        keras_applications.write(path, checkpoint)
    keras_applications.write(tmp_path / "x.weights.h5", checkpoint)
    (tmp_path / "x.weights.h5").rename(path)
    x = images(spec, 65, count=1).astype(np.float32)
    found, who = keras_applications.library_logits(path, checkpoint, x)
    assert who == f"keras.applications of Keras {keras.__version__}"
    assert deviation(found, dm.reference.predict(spec, checkpoint.weights, x)) < 1e-5
    with pytest.raises(LookupError):
        keras_applications.library_logits(path, checkpoint, x[:, :, :31, :31])  # Keras needs 32
    other = dm.Checkpoint(dm.get_spec("densenet161"), checkpoint.weights)
    with pytest.raises(LookupError):
        keras_applications.library_logits(path, other, x)


def test_kerass_defaults_are_left_as_they_were():
    spec = small_spec()
    checkpoint = dm.Checkpoint(spec, random_weights(spec))
    with in_dtype_of(checkpoint):
        assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float64",) * 2
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32",) * 2


# --- Every kind of file -------------------------------------------------------------------------


def whole_model(model, path):
    model.save(path)


def trained(model, path):
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9), "mse", metrics=["mae"], run_eagerly=True)
    weights = model.get_weights()
    model.fit(np.zeros((2, 32, 32, 3)), np.zeros((2, 5)), verbose=0)
    model.set_weights(weights)
    model.save(path)


def old_weights(model, path):
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def names_of_2018(model, path):
    old = {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn", "predictions": "fc1000"}
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            name = old.get(layer.name, layer.name)
            for variable in layer.variables:
                file[f"{name}/{name}/{variable.name}:0"] = variable.numpy()


def nameless(path):
    """Remove the layers' names, as in files of Keras before 3.10."""
    whole = path.rename(path.with_name("named"))
    with h5py.File(whole) as old, h5py.File(path, "w") as new:
        old.copy("layers", new, without_attrs=True)


def without_names(model, path):
    model.save_weights(path)
    nameless(path)


def keras_2_13(model, path):
    without_names(model, path)
    with h5py.File(path, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")


def deflated(model, path):
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


KINDS = {
    "keras": (".keras", whole_model),
    "trained keras": (".keras", trained),
    "deflated keras": (".keras", deflated),
    "whole h5": (".h5", whole_model),
    "trained h5": (".h5", trained),
    "old weights": (".h5", old_weights),
    "names of 2018": (".h5", names_of_2018),
    "without names": (".weights.h5", without_names),
    "Keras 2.13": (".weights.h5", keras_2_13),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_has_the_same_weights(tmp_path, kind):
    ending, save = KINDS[kind]
    model = peer()
    model.save_weights(tmp_path / "x.weights.h5")
    save(model, tmp_path / f"other{ending}")
    found, expected = read(tmp_path / f"other{ending}"), read(tmp_path / "x.weights.h5")
    assert found.spec == expected.spec
    same(found.weights, expected.weights)


def test_a_new_head_on_a_body_is_the_classifier(tmp_path):
    body = peer(include_top=False, pooling="avg", classes=None)
    model = filled(keras.Sequential([body, keras.layers.Dropout(0.1), keras.layers.Dense(3)]))
    model.save_weights(tmp_path / "x.weights.h5")
    checkpoint = read(tmp_path / "x.weights.h5")
    x = images(checkpoint.spec, 32).astype(np.float32)
    logits = dm.reference.predict(checkpoint.spec, checkpoint.weights, x)
    assert deviation(logits, answer(model, x)) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns of each layer that it does not find
        _, who, _ = convert.logits(tmp_path / "x.weights.h5", "keras", checkpoint, x)
    assert who == "densenet_multi.keras, because keras.applications has no network of this kind"
    twice = filled(keras.Sequential([body, keras.layers.Dense(4), keras.layers.Dense(3)]))
    twice.save_weights(tmp_path / "x.weights.h5")
    body_alone = read(tmp_path / "x.weights.h5")
    assert body_alone.spec.config.num_classes == 0
    assert "layers/dense (4, 76), " in body_alone.notes[0]
    assert "num_classes=N)" in body_alone.notes[0]


def test_bfloat16_and_big_endian_numbers_are_read_without_loss(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = peer()
    finally:
        keras.config.set_dtype_policy("float32")
    model.save_weights(tmp_path / "x.weights.h5")
    found = read(tmp_path / "x.weights.h5").weights["features.conv0.weight"]
    expected = model.get_layer("conv1_conv").kernel.numpy().astype(np.float32)
    np.testing.assert_array_equal(found, expected.transpose(3, 2, 0, 1))
    with h5py.File(tmp_path / "x.weights.h5", "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = expected.astype(">f8")
    swapped = read(tmp_path / "x.weights.h5").weights["features.conv0.weight"]
    assert swapped.dtype == np.float64
    np.testing.assert_array_equal(swapped, found)


# --- Writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (dm.get_spec("densenet161"), r"growth_rate 48, num_init_features 96$"),
        (dm.get_spec("d2l"), r"bn_size None, conv_bias True$"),
        (dm.get_spec("densenet121", block_config=(1, 1, 1)), r"found 3 blocks$"),
        (dm.get_spec("densenet121", compression=1.0), r"found compression 1\.0$"),
    ],
)
def test_another_family_is_refused_by_what_differs(tmp_path, spec, found):
    checkpoint = dm.Checkpoint(spec, dm.init_weights(spec))
    with pytest.raises(dm.WeightsError, match=found):
        keras_applications.write(tmp_path / "x.weights.h5", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_other_conventions_are_told(tmp_path):
    spec = dm.get_spec("densenet121", block_config=BLOCKS, num_classes=0)
    usage = dm.Usage(running_variance="unbiased")
    checkpoint = dm.Checkpoint(spec, dm.init_weights(spec), usage)
    notes = keras_applications.write(tmp_path / "x.weights.h5", checkpoint)
    assert [note.split(",")[0] for note in notes] == [
        "keras.applications' models have an epsilon of 1.001e-05",
        "keras.applications' models have a decay of 0.99",
        "the running variances are unbiased; Keras' own are biased",
        "keras.applications has DenseNet121",
    ]


def test_the_same_weights_give_the_same_bytes(tmp_path):
    spec = small_spec()
    first, second = tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"
    for path in (first, second):
        write_weights(path, dm.Checkpoint(spec, dm.init_weights(spec)), NATIVE)
        time.sleep(1.1)  # HDF5 could note the time, in seconds
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


# --- Damage -------------------------------------------------------------------------------------

NATIVE = keras_applications.native_layer
STEM = "layers/conv2d/vars/0"


def small_spec():
    return dm.get_spec(
        "densenet121", growth_rate=4, num_init_features=8, block_config=(1, 2), num_classes=3
    )


@pytest.fixture
def path(tmp_path):
    """A complete file of a small network, with the layers' names."""
    spec = small_spec()
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    write_weights(tmp_path / "x.weights.h5", checkpoint, NATIVE)
    return tmp_path / "x.weights.h5"


def refused(path):
    """Return the error, which must come quickly."""
    started = time.monotonic()
    with pytest.raises(dm.WeightsError) as caught:
        keras_applications.read(path)
    assert time.monotonic() - started < 2
    return str(caught.value)


def as_keras(path):
    """Put the weights into a .keras file."""
    inside = path.with_name("x.keras")
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("config.json", '{"name": "pool2_conv"}')
        archive.writestr("model.weights.h5", path.read_bytes())
    return inside


@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_a_truncated_file_is_refused(path, kind):
    whole = path if kind == "h5" else as_keras(path)
    content = whole.read_bytes()
    for length in np.linspace(0, len(content) - 1, 20).astype(int):
        whole.write_bytes(content[:length])
        assert "expected" in refused(whole)


def outside_of_tensors(path):
    """Return the positions of a file's structure: names, shapes, addresses.

    A flip inside a tensor gives another number, which cannot be detected.
    """
    content = path.read_bytes()
    is_data = np.zeros(len(content), bool)

    def mark(_, item):
        if isinstance(item, h5py.Dataset):
            start = item.id.get_offset()
            is_data[start : start + item.id.get_storage_size()] = True

    with h5py.File(path) as file:
        file.visititems(mark)
    near = np.convolve(np.frombuffer(content, np.uint8) > 0, np.ones(9), "same") > 0  # no padding
    return np.flatnonzero(near & ~is_data)


def test_three_hundred_flips_in_the_structure_are_refused_or_harmless(path):
    whole, at = path.read_bytes(), outside_of_tensors(path)
    expected = keras_applications.read(path)
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for byte in rng.choice(at, rng.choice([1, 2, 8])):
            damaged[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        started = time.monotonic()
        try:
            keras_applications.looks_like(path, bytes(damaged[:512]))
            found = keras_applications.read(path)
        except dm.WeightsError:
            refusals += 1
        else:
            assert found.spec == expected.spec
        assert time.monotonic() - started < 2
    assert refusals > 150


def test_every_flip_in_a_keras_files_weights_is_refused(path):
    whole = as_keras(path)
    content = whole.read_bytes()
    rng = np.random.default_rng(0)
    start = content.index(b"\x89HDF")
    for byte in rng.integers(start, start + path.stat().st_size, 100):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << int(rng.integers(8))
        whole.write_bytes(damaged)
        assert "damaged zip" in refused(whole)


def replaced(file, value, place=STEM, **options):
    del file[place]
    return file.create_dataset(place, data=value, **options)


def kernel(value=0.0):
    return np.full((7, 7, 3, 8), value, np.float32)


def virtual(file):
    del file[STEM]
    layout = h5py.VirtualLayout((7, 7, 3, 8), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (7, 7, 3, 8))
    file.create_virtual_dataset(STEM, layout)


def elsewhere(file):
    del file[STEM]
    stored = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(STEM, (7, 7, 3, 8), np.float32, external=stored)


def linked(file, link):
    del file[STEM]
    file[STEM] = link


def cycle(file):
    file["layers/conv2d/again"] = file["layers"]


def fork(file):
    file["layers/a"] = file["layers/b"] = file["/"]


def huge_chunk(file):
    del file[STEM]
    file.create_dataset(STEM, (10**6, 10**6, 3, 8), np.float32, chunks=(1, 1, 3, 8))


def huge(file):
    del file[STEM]
    file.create_dataset(STEM, (10**6, 10**6, 3, 8), np.float32)  # not allocated: nothing is written


DAMAGES = {
    "missing": (lambda f: f.__delitem__(STEM), "found 7 convolutions and 9 batch normalizations"),
    "missing norm": (
        lambda f: f.__delitem__("layers/batch_normalization/vars/2"),
        r"norm0\.running_mean: missing",
    ),
    "extra": (
        lambda f: f.create_dataset("layers/dense_1/vars/0", data=kernel()),
        r"layers/dense_1\.weight: unexpected",
    ),
    "extra number": (
        lambda f: f.create_dataset("layers/conv2d/vars/7", data=kernel()),
        r"conv0\.7: unexpected",
    ),
    "extra class": (
        lambda f: f.create_dataset("layers/other/vars/0", data=kernel()),
        r"layers/other\.0: unexpected",
    ),
    "extra at the root": (
        lambda f: f.create_dataset("x", data=kernel()),
        r"the file\.x: unexpected",
    ),
    "extra name": (
        lambda f: f.create_dataset("conv1_conv/conv1_conv/kernel:0", data=kernel()),
        r"found twice, as features\.conv0\.weight",
    ),
    "another model": (
        lambda f: f.move("layers/batch_normalization", "x/batch_normalization"),
        r"8 convolutions and 9 batch normalizations in 1 model\(s\)",
    ),
    "NaN": (lambda f: replaced(f, kernel(np.nan)), "expected finite values, found 1176"),
    "misshapen": (
        lambda f: replaced(f, np.ones(9, "f4"), "layers/batch_normalization/vars/0"),
        r"norm0\.weight: expected shape \(8,\), found \(9,\)",
    ),
    "no pixels": (lambda f: replaced(f, np.zeros((7, 7, 3, 0), "f4")), "1, 2 or 4 dimensions"),
    "a number": (lambda f: replaced(f, np.float32(1)), "1, 2 or 4 dimensions"),
    "nothing": (lambda f: replaced(f, h5py.Empty("f4")), "1, 2 or 4 dimensions"),
    "integers": (lambda f: replaced(f, kernel().astype(int)), "float16 or bfloat16, found int64"),
    "quadruple": (lambda f: replaced(f, kernel().astype("f16")), "bfloat16, found float128"),
    "text": (lambda f: replaced(f, ["a", "b"]), "float16 or bfloat16, found object"),
    "twice": (
        lambda f: f.copy("layers/conv2d", "layers/conv2d_01"),
        "found 9 convolutions and 9 batch normalizations",
    ),
    "named type": (lambda f: f.__setitem__("t", np.dtype("f4")), "a group or a dataset, found"),
    "soft link": (lambda f: linked(f, h5py.SoftLink("/x")), "found a SoftLink"),
    "link out": (lambda f: linked(f, h5py.ExternalLink("/etc/x", "y")), "found a ExternalLink"),
    "virtual": (virtual, "a contiguous array"),
    "external": (elsewhere, "a contiguous array"),
    "compressed": (lambda f: replaced(f, kernel(), compression="gzip"), "a contiguous array"),
    "huge": (huge, "fits in the file"),
    "huge chunk": (huge_chunk, "a contiguous array"),
    "the same bytes often": (
        lambda f: [f.__setitem__(f"layers/dense_{i}/vars/0", f[STEM]) for i in range(40)],
        "no larger in total than the file",
    ),
    "cycle": (cycle, "expected at most 20,000 groups and datasets, 12 deep"),
    "fork": (fork, "expected at most 20,000 groups and datasets, 12 deep"),
    "deep": (lambda f: f.create_group("a/" * 20), "12 deep"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_what_it_should_be_is_refused_at_once(path, damage):
    change, message = DAMAGES[damage]
    with h5py.File(path, "r+") as file:
        change(file)
    error = refused(path)
    assert re.search(message, error), error


def test_a_file_of_very_many_groups_is_refused(path, monkeypatch):
    with h5py.File(path) as file:
        objects = sum(1 for _ in _hdf5.walk(file))
    monkeypatch.setattr(_hdf5, "MOST_OBJECTS", objects)
    keras_applications.read(path)
    with h5py.File(path, "r+") as file:
        file.create_group("layers/one_more")
    assert f"expected at most {objects} groups and datasets" in refused(path)


def test_the_random_state_of_dropout_and_optimizers_are_left_out(path):
    expected = keras_applications.read(path)
    with h5py.File(path, "r+") as file:
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file["optimizer/vars/0"] = np.array(7)
        file["optimizer_weights/sgd/conv1_conv_momentum/kernel:0"] = kernel()
    same(keras_applications.read(path).weights, expected.weights)


def zipped(path, members, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_zips_that_are_no_keras_files_are_refused(tmp_path):
    path = tmp_path / "x.keras"
    config = {"config.json": b"{}"}
    zipped(path, {"model.weights.h5": b"", **config})
    assert "h5py cannot read" in refused(path)
    zipped(path, {"data.pkl": b"x"})
    assert "found a zip without config.json" in refused(path)
    zipped(path, config)
    assert "found a zip without model.weights.h5" in refused(path)
    zipped(path, {"model.weights.h5": bytes(10**8), **config}, zipfile.ZIP_DEFLATED)
    assert "20 times the compressed size, found 100,000,000" in refused(path)
    zipped(path, {"model.weights.h5": bytes(10**6), **config}, zipfile.ZIP_LZMA)
    assert "expected a stored or deflated entry" in refused(path)
    zipped(path, {"config.json": b" " * (2**25 + 1)}, zipfile.ZIP_DEFLATED)
    assert "expected at most 33,554,432 bytes" in refused(path)


def test_a_zip_that_claims_to_be_larger_than_it_is_is_refused(path):
    whole = as_keras(path)
    content = bytearray(whole.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = b"\xff\xff\xff\xf0" * 2  # compressed and uncompressed size
    whole.write_bytes(content)
    assert "separate zip entries, found 'model.weights.h5' overlapping another" in refused(whole)


def test_other_files_look_like_neither(tmp_path):
    model = keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3)])
    for ending in (".weights.h5", ".keras"):
        path = tmp_path / f"x{ending}"
        model.save_weights(path) if ending == ".weights.h5" else model.save(path)
        head = path.read_bytes()[:512]
        assert not kerashub.looks_like(path, head)
        expected = "a DenseNet's layers" if ending == ".weights.h5" else "without a Concatenate"
        with pytest.raises(dm.WeightsError, match=expected):
            keras_applications.read(path)
    for content in (b"", b"PK\x03\x04", b"\x89HDF", b"\x80\x02", bytes(100)):
        path.write_bytes(content)
        assert not keras_applications.looks_like(path, content)
        assert not kerashub.looks_like(path, content)


def test_a_missing_file_or_a_folder_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        keras_applications.read(tmp_path / "x.weights.h5")
    with pytest.raises(IsADirectoryError):
        keras_applications.read(tmp_path)


# --- KerasHub's files, without KerasHub (tests/peers uses KerasHub itself) ----------------------


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("names", [True, False])
def test_kerashubs_files_go_there_and_back(tmp_path, classes, names):
    spec = dm.get_spec(
        "densenet121", num_classes=classes, block_config=(1, 2), bn_eps=1.001e-5, bn_decay=0.99
    )
    weights, path = as_float32(random_weights(spec)), tmp_path / "x.weights.h5"
    notes = kerashub.write(path, dm.Checkpoint(spec, weights))
    assert notes == (kerashub.SAME,)
    if not names:
        nameless(path)
    head = path.read_bytes()[:512]
    assert kerashub.looks_like(path, head) == (names or classes > 0)  # else nothing identifies it
    assert keras_applications.looks_like(path, head) != kerashub.looks_like(path, head)
    back = kerashub.read(path)
    assert back.notes[0] == kerashub.SAME
    assert back.spec == spec
    same(back.weights, weights)


def test_a_presets_folder_is_read_as_a_whole(tmp_path):
    spec = dm.get_spec("densenet121", num_classes=3, block_config=(1, 1))
    weights = as_float32(random_weights(spec))
    kerashub.write(tmp_path / "x.weights.h5", dm.Checkpoint(spec, weights))
    folder = tmp_path / "preset"
    with pytest.raises(FileNotFoundError):
        kerashub.read(folder)
    folder.mkdir()
    with pytest.raises(dm.WeightsError, match=r"found one without model\.weights\.h5"):
        kerashub.read(folder)
    with (
        h5py.File(tmp_path / "x.weights.h5") as file,
        h5py.File(folder / "model.weights.h5", "w") as backbone,
        h5py.File(folder / "task.weights.h5", "w") as task,
    ):
        file.copy("layers/dense_net_backbone/layers", backbone)
        file.copy("layers/dense", task, "layers/dense")
    same(kerashub.read(folder).weights, weights)


@pytest.mark.parametrize(
    "overrides",
    [{"num_init_features": 96}, {"bn_size": 2}, {"bn_size": None}, {"conv_bias": True}],
)
def test_networks_that_kerashub_cannot_make_are_refused(tmp_path, overrides):
    spec = dm.get_spec("densenet121", block_config=(1, 1), **overrides)
    with pytest.raises(dm.WeightsError, match="expected a network of KerasHub's kind"):
        kerashub.write(tmp_path / "x.weights.h5", dm.Checkpoint(spec, dm.init_weights(spec)))
    assert list(tmp_path.iterdir()) == []
