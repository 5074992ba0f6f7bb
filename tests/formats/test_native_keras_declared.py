"""Models that users saved with Keras: read as the same function, or refused by name."""

import io
import itertools
import json
import re
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from keras.src.applications.densenet import DenseNet  # accepts any blocks; not public
from tensorflow import keras

import densenet_multi as dm
import densenet_multi.keras as dk
from cases import as_float32, random_weights
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.data import Preparation
from densenet_multi.formats import keras_applications
from densenet_multi.formats._keras.declared import declared_network
from densenet_multi.formats._keras.graph import graph_of
from densenet_multi.formats._keras.layers import IDLE
from densenet_multi.formats._stated import Stated
from densenet_multi.manifest import layers
from keras_declarations import Model, network
from keras_peer import filled

L = keras.layers
SIZE = 32  # the smallest image that keras.applications accepts
APPLY = {
    "none": lambda x: x,
    None: lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
}


def images_in():
    return keras.Input((SIZE, SIZE, 3))


def hand_written(x=None, relu=L.ReLU, pool=L.AveragePooling2D, glob=L.GlobalAveragePooling2D):
    """Return input and features of a DenseNet as people write it in Keras, with a 3x3 stem."""
    start = images_in()
    x = start if x is None else x(start)

    def cell(x, filters, kernel):
        x = relu()(L.BatchNormalization(epsilon=1e-3)(x))
        return L.Conv2D(filters, kernel, padding="same", use_bias=False)(x)

    x = L.Conv2D(6, 3, padding="same", use_bias=False)(x)
    for block in range(2):
        for _ in range(2 - block):
            x = L.Concatenate()([x, cell(cell(x, 8, 1), 4, 3)])
        if block == 0:
            x = pool(2, 2)(cell(x, 7, 1))
    return start, glob()(relu()(L.BatchNormalization(epsilon=1e-3)(x)))


def with_head(*layers, **how):
    start, x = hand_written(**how)
    for layer in layers:
        x = layer(x)
    return keras.Model(start, x)


def adapted(**how):
    norm = L.Normalization(**how)
    norm.adapt(np.random.default_rng(0).uniform(0, [200, 255, 100], (4, 6, 6, 3)))
    return norm


def applications(**how):
    given = {"weights": None, "include_top": False, "input_shape": (SIZE, SIZE, 3), **how}
    return DenseNet([1, 1, 1, 1], **given)


def augmented(x):
    flips = keras.Sequential([L.RandomFlip(), L.RandomRotation(0.1), L.RandomContrast(0.1)])
    return keras.applications.densenet.preprocess_input(flips(x))


def inside_inside():
    start, x = hand_written(L.Rescaling(1 / 255))
    body = keras.Model(start, x, name="head")
    middle = keras.Sequential([images_in(), body, L.Dropout(0.1, name="outer")], name="middle")
    return keras.Sequential([images_in(), middle, L.Dense(3, name="head")], name="outer")


USERS = {  # what users make: (how, expected fields of the usage)
    "keras.applications, pooling by maximum": (
        lambda: applications(pooling="max"),
        {"activation": None},
    ),
    "transfer learning": (
        lambda: keras.Sequential(
            [images_in(), L.Rescaling(1 / 127.5, offset=-1), applications(),
             L.GlobalAveragePooling2D(), L.Dropout(0.2), L.Dense(3, activation="softmax")]
        ),
        {"activation": "softmax", "value_range": (-1.0, 1.0)},
    ),
    "augmentation, preprocess_input": (
        lambda: with_head(L.Dense(3), x=augmented),
        {"value_range": (0.0, 255.0), "std": (58.395, 57.12, 57.375), "activation": "none"},
    ),
    "fixed normalization, no bias": (
        lambda: with_head(
            L.Dense(2, use_bias=False),
            x=L.Normalization(mean=[123, 117, 104], variance=[3364, 3249, 3600]),
        ),
        {"mean": (123, 117, 104), "std": (58, 57, 60)},
    ),
    "adapted normalization, one class": (
        lambda: with_head(L.Dense(1, activation="sigmoid", name="my_head"), x=adapted()),
        {"activation": "sigmoid"},
    ),
    "adapted to one number, many labels": (
        lambda: with_head(L.Dense(4), L.Activation("sigmoid"), x=adapted(axis=None)),
        {"mean": None, "activation": "sigmoid"},
    ),
    "mean pixels, pooling by maximum": (
        lambda: with_head(
            L.Dense(2),
            x=lambda x: x - np.float32([123, 117, 104]),
            pool=L.MaxPooling2D,
            glob=L.GlobalMaxPooling2D,
        ),
        {"mean": (123, 117, 104), "std": (1, 1, 1)},
    ),
    "model in model in model": (inside_inside, {"value_range": (0.0, 1.0)}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.clear_session()


def drawn(model):
    """Fill the model with small random weights, except what was adapted; return it."""
    moments = [la for la in model._flatten_layers() if isinstance(la, L.Normalization)]
    adapted_ones = [[v.numpy() for v in layer.weights] for layer in moments]
    filled(model)
    for layer, values in zip(moments, adapted_ones, strict=True):
        for variable, value in zip(layer.weights, values, strict=True):
            variable.assign(value)
        layer.finalize_state()
    for variable in model.variables:
        if variable.name == "kernel" and len(variable.shape) == 2:
            variable.assign(variable / 10)  # no probability is 0 or 1
    return model


@pytest.mark.parametrize("user", USERS)
def test_a_users_model_is_the_same_function_as_read_here(tmp_path, user):
    make, expected = USERS[user]
    model = drawn(make())
    pixels = np.random.default_rng(1).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    path, legacy = tmp_path / "x.keras", tmp_path / "x.h5"
    model.save(path)
    checkpoint = formats.read(path)
    usage = checkpoint.usage
    for name, value in expected.items():
        found = getattr(usage, name)
        assert found == value or found == pytest.approx(value, rel=1e-6), name
    assert usage.image_size == SIZE
    prepared = Preparation(SIZE, 3, usage)(pixels.transpose(0, 3, 1, 2))
    given = pixels * 255 if any("0 to 255" in note for note in checkpoint.notes) else pixels
    theirs = np.asarray(model(given, training=False))
    logits = dm.reference.predict(checkpoint.spec, checkpoint.weights, prepared)
    assert deviation(APPLY[usage.activation](logits), theirs) < 2e-6
    own, who = keras_applications.library_logits(path, checkpoint, prepared)
    assert deviation(own, logits) < 2e-6
    assert who.startswith("your own model in Keras 3")
    model.save(legacy)
    again = formats.read(legacy)
    assert again.spec == checkpoint.spec
    assert replace(again.usage, source=None) == replace(usage, source=None)
    for name, array in checkpoint.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)


def shared():
    body, x = with_head(L.Dense(3)), images_in()
    return keras.Model(x, L.Add()([body(x), body(x)]))


REFUSED = {
    "Lambda": (
        lambda: with_head(L.Dense(3), x=L.Lambda(lambda x: x / 255)),
        r"\(Lambda\): .* code inside the file, which is never run",
    ),
    "swish": (
        lambda: with_head(L.Dense(3), relu=lambda: L.Activation("swish")),
        r"\(Activation\): expected a ReLU .*, found silu",
    ),
    "Flatten": (
        lambda: with_head(L.Dense(3), glob=L.Flatten),
        r"\(Flatten\): expected a global pooling",
    ),
    "shared": (
        shared,
        "expected a layer that is used once, found one that is used 2 times",
    ),
    "1 - x": (
        lambda: with_head(L.Dense(3), x=lambda x: 1 - x / 255),
        r"\(Subtract\): expected pixels scaled by a positive",
    ),
}


@pytest.mark.parametrize("user", REFUSED)
def test_another_function_is_refused_by_its_layer(tmp_path, user):
    make, message = REFUSED[user]
    model = make()
    for path in (tmp_path / "x.keras", tmp_path / "x.h5"):
        model.save(path)
        with pytest.raises(dm.WeightsError, match=message):
            formats.read(path)


ALONE = {  # what surrounds a DenseNet: how to make the model
    "cropped": lambda: with_head(L.Dense(3), x=L.Cropping2D(1)),
    "convolution before": lambda: with_stem_7(L.Conv2D(3, 1)),
    "gray, repeated": lambda: with_stem_7(lambda x: L.Concatenate()([x[..., :1]] * 3)),
    "attention": lambda: with_head(L.Flatten(), L.Dense(3), glob=L.LayerNormalization),
    "before a model": lambda: keras.Sequential(
        [keras.Input((SIZE + 4, SIZE + 4, 3)), L.Cropping2D(2), applications(pooling="avg")]
    ),
    "after a model": lambda: keras.Sequential(
        [applications(), L.LayerNormalization(), L.Flatten()]
    ),
    "each of several": lambda: keras.Sequential(
        [keras.Input((2, SIZE, SIZE, 3)), L.TimeDistributed(applications(pooling="avg"))]
    ),
    "used twice": shared,
}


def with_stem_7(before):
    x = images_in()
    top = DenseNet([1, 1, 1, 1], weights=None, input_tensor=before(x), classes=3)
    return keras.Model(x, top.output)


@pytest.mark.parametrize("case", ALONE)
def test_what_a_refusal_says_to_type_saves_a_model_that_is_read(tmp_path, case):
    model = ALONE[case]()
    path, alone = tmp_path / "x.keras", tmp_path / "alone.keras"
    model.save(path)
    with pytest.raises(dm.WeightsError) as caught:
        formats.read(path)
    (typed,) = re.findall(r": ((?:keras|model)\.\S.*)\.save\('NAME\.keras'\)", str(caught.value))
    eval(typed, {"keras": keras, "model": model}).save(alone)  # noqa: S307
    assert formats.read(alone).spec.config.block_config in ((2, 1), (1, 1, 1, 1))


def test_layers_in_float16_are_compared_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = filled(with_head(L.Dense(3, activation="softmax", dtype="float32")))
    finally:
        keras.config.set_dtype_policy("float32")
    path = tmp_path / "x.keras"
    model.save(path)
    checkpoint = formats.read(path)
    assert "its layers compute in mixed_float16" in checkpoint.notes[0]
    x = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    found, _ = keras_applications.library_logits(path, checkpoint, x)
    assert found.dtype == np.float32
    assert deviation(found, dm.reference.predict(checkpoint.spec, checkpoint.weights, x)) < 1e-5


def test_logits_of_a_compiled_model_mean_what_its_loss_says(tmp_path):
    model = with_head(L.Dense(3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    for path in (tmp_path / "x.keras", tmp_path / "x.h5"):
        model.save(path)
        assert formats.read(path).usage.activation == "softmax"


def test_layers_that_are_left_out_change_nothing_in_a_prediction():
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    arguments = {
        "SpatialDropout2D": [0.5], "Dropout": [0.5], "GaussianNoise": [1.0], "AlphaDropout": [0.5],
        "GaussianDropout": [0.5], "RandomRotation": [0.3], "RandomZoom": [0.3],
        "RandomContrast": [0.3], "RandomBrightness": [0.3], "RandomTranslation": [0.3, 0.3],
        "RandomHeight": [0.3], "RandomWidth": [0.3], "RandomHue": [0.3],
        "RandomSaturation": [0.3], "RandomSharpness": [0.3],
        "RandomShear": [0.3], "RandomPosterization": [4], "RandomColorDegeneration": [0.3],
    }  # fmt: skip
    known = [name for name in IDLE if hasattr(L, name)]  # the others are in Keras 2 only
    assert len(known) > 25
    for name in known:
        layer = getattr(L, name)(*arguments.get(name, []))
        np.testing.assert_array_equal(layer(x, training=False), x, err_msg=name)


# --- Keras 2 ------------------------------------------------------------------------------------

OLD = {
    "weight": {1: "gamma", 2: "kernel", 4: "kernel"},
    "bias": {1: "bias"},
    "running_mean": {1: "moving_mean"},
    "running_var": {1: "moving_variance"},
}


def written_by_keras_2(path, declared, weights, change=lambda name: name):
    """Write a complete model as Keras 2's .h5; its layers' names may contain slashes."""
    places = {
        canonical: layer.name
        for canonical, layer in declared_network(graph_of(declared)).layers.items()
    }
    with h5py.File(path, "w") as file:
        for name, array in weights.items():
            canonical, _, leaf = name.rpartition(".")
            old = OLD[leaf][array.ndim]
            old = "beta" if old == "bias" and "norm" in canonical else old
            group = places[canonical]
            native = array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])
            file[f"model_weights/{group}/{change(group)}/{old}:0"] = native
        file.attrs["model_config"] = json.dumps(declared).encode()


@pytest.mark.parametrize("change", ["", "_1"])
def test_a_complete_model_of_keras_2_is_read_by_its_names(tmp_path, change):
    m = Model(2)
    last = network(m)
    text = json.dumps(m.declared(last))
    declared = json.loads(text.replace('"conv2d_', '"conv1/conv_'))  # as in 2018
    spec = dm.get_spec(
        "densenet121", growth_rate=4, num_init_features=4, block_config=(2, 1), num_classes=4,
        bn_size=1, compression=0.34, bn_eps=1e-3,
    )  # fmt: skip
    weights = as_float32(random_weights(spec))
    path = tmp_path / "x.h5"
    written_by_keras_2(path, declared, weights, lambda name: name + change)
    checkpoint = formats.read(path)
    assert checkpoint.spec == spec
    for tensor, array in weights.items():
        np.testing.assert_array_equal(checkpoint.weights[tensor], array, err_msg=tensor)


# --- Weights alone ------------------------------------------------------------------------------


class Subclass(keras.Model):
    """A model of a custom class around one of keras.applications."""

    def __init__(self, *head):
        super().__init__()
        self.backbone, self.my_head = applications(pooling="avg"), list(head)

    def call(self, x):
        x = self.backbone(x)
        for layer in self.my_head:
            x = layer(x)
        return x


def saved_subclass(path, *head):
    model = Subclass(*head)
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    filled(model)
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)
    return model


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5"])
def test_the_only_linear_layer_that_fits_is_the_classifier(tmp_path, name):
    model = saved_subclass(tmp_path / name, L.Dense(3))
    checkpoint = formats.read(tmp_path / name)
    assert ("Subclass), which declares no layers" in " ".join(checkpoint.notes)) == (
        name == "x.keras"
    )
    assert "assumed: layers connected as in keras.app" in checkpoint.notes[-1]
    x = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    logits = dm.reference.predict(checkpoint.spec, checkpoint.weights, x.transpose(0, 3, 1, 2))
    assert deviation(logits, np.asarray(model(x, training=False))) < 1e-5


def test_another_head_beside_weights_is_left_out_with_a_note(tmp_path):
    saved_subclass(tmp_path / "x.weights.h5", L.BatchNormalization(), L.Dense(3))
    checkpoint = formats.read(tmp_path / "x.weights.h5")
    assert checkpoint.spec.config.num_classes == 0
    assert "num_classes=N)" in checkpoint.notes[0]


def test_weights_of_a_hand_written_network_are_refused_unless_you_say_what_they_are(tmp_path):
    spec = dm.get_spec("densenet121", growth_rate=4, num_init_features=8, block_config=(1, 2))
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    path = tmp_path / "x.weights.h5"
    formats._keras.writing.write_weights(path, checkpoint, lambda layer: f"my_{layer}")
    with pytest.raises(dm.WeightsError, match="even with the same number of layers, a network may"):
        formats.read(path)
    with h5py.File(path, "r+") as file:  # one name of keras.applications among the others
        for layer, group in (("features.conv0", "layers/conv2d/vars"),):
            file[group].attrs["name"] = keras_applications.native_layer(layer)
    with pytest.raises(dm.WeightsError, match="even with the same number of layers, a network may"):
        formats.read(path)


def renamed_as_in_2_12(path, name):
    """Copy a .keras or .weights.h5 file, with its groups named as in TensorFlow 2.12."""
    content = path.read_bytes()
    is_zip = path.suffix == ".keras"
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
        content = files["model.weights.h5"]
    new = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as old, h5py.File(new, "w") as file:

        def copy(place, item):
            if isinstance(item, h5py.Dataset):
                file[place.replace("layers/", "_layer_checkpoint_dependencies/")] = item[()]

        old.visititems(copy)
    copied = path.with_name(name)
    if not is_zip:
        copied.write_bytes(new.getvalue())
        return copied
    with zipfile.ZipFile(copied, "w") as archive:
        for entry, inside in (files | {"model.weights.h5": new.getvalue()}).items():
            archive.writestr(entry, inside)
    return copied


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_groups_are_read_as_tensorflow_2_12_called_them(tmp_path, ending):
    model = drawn(keras.Sequential([images_in(), applications(pooling="avg"), L.Dense(3)]))
    path = tmp_path / f"x{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    expected = formats.read(path)
    older = renamed_as_in_2_12(path, f"older{ending}")
    checkpoint = formats.read(older)
    assert checkpoint.spec == expected.spec
    for name, array in expected.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[name], array, err_msg=name)
    if ending == ".keras":  # Keras itself finds the same
        x = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
        found, _ = keras_applications.library_logits(older, checkpoint, x)
        logits = dm.reference.predict(expected.spec, expected.weights, x)
        assert deviation(found, logits) < 2e-6


def legacy(path, checkpoint, names):
    """Write a legacy weights-only .h5; ``names`` are those of the layers, in creation order."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in names.values()])
        for tensor, array in checkpoint.weights.items():
            layer, _, leaf = tensor.rpartition(".")
            old = OLD[leaf][array.ndim]
            old = "beta" if old == "bias" and "norm" in layer else old
            native = array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])
            file[f"{names[layer]}/{names[layer]}/{old}:0"] = native


def test_a_legacy_file_of_numbered_layers_is_read_as_weights_h5_is_if_you_say_what_it_is(tmp_path):
    spec = dm.get_spec("densenet121", growth_rate=4, num_init_features=8, block_config=(6, 12),
                       num_classes=3)  # fmt: skip
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    numbers = {"Conv": itertools.count(8), "Norm": itertools.count(), "Dense": itertools.count(2)}
    kinds = {"Conv": "conv2d", "Norm": "batch_normalization", "Dense": "dense"}
    names = {}
    for layer, _ in layers(spec):
        kind = "Conv" if "conv" in layer else "Norm" if "norm" in layer else "Dense"
        number = next(numbers[kind])
        names[layer] = f"{kinds[kind]}_{number}" if number else kinds[kind]
    path = tmp_path / "x.h5"
    legacy(path, checkpoint, names)
    with pytest.raises(
        dm.WeightsError, match="or, if you know that your network computes the same function"
    ):
        formats.read(path)
    found = keras_applications.read(path, Stated(file_format=True, variant="densenet121"))
    assert found.spec.config.block_config == (6, 12)
    for tensor, array in checkpoint.weights.items():
        np.testing.assert_array_equal(found.weights[tensor], array, err_msg=tensor)
    assert "as you stated" in found.notes[-1]
    legacy(path, checkpoint, {layer: f"my_{layer}" for layer in names})
    for stated in (Stated(), Stated(file_format=True, variant="densenet121")):
        with pytest.raises(dm.WeightsError, match=r"found my_.*Save the complete model"):
            keras_applications.read(path, stated)


def test_what_is_assumed_of_weights_without_names_is_told_completely(tmp_path):
    path = tmp_path / "x.weights.h5"
    drawn(applications(pooling="avg")).save_weights(path)
    nameless = renamed_as_in_2_12(path, "nameless.weights.h5")
    note = formats.read(nameless).notes[-1]
    assert note.startswith("the file does not store its layers' names; assumed: ")
    for word in ("zero padding on all sides", "channels concatenated before new ones",
                 "average pooling in", "before the classifier", "epsilon of 1.001e-05",
                 "logits"):  # fmt: skip
        assert word in note, word


def test_one_of_several_files_of_weights_is_refused_with_how_to_join_them(tmp_path):
    drawn(applications(pooling="avg")).save_weights(
        tmp_path / "x.weights.json", max_shard_size=0.0005
    )
    (first, *_) = sorted(tmp_path.glob("x_*.weights.h5"))
    with pytest.raises(
        dm.WeightsError, match=r"one of the shards listed in x\.weights\.json; join"
    ):
        formats.read(first)


# --- The package's own --------------------------------------------------------------------------

OWN = {
    "bottleneck": {"drop_rate": 0.2, "transition_pool": "max", "bn_eps": 1e-4},
    "plain": {"bn_size": None, "stem": "cifar", "conv_bias": True, "global_pool": "max"},
    "features": {"num_classes": 0},
}


def own_model(case):
    spec = dm.DenseNetConfig(
        **{"growth_rate": 4, "block_config": (1, 2), "num_init_features": 8, "num_classes": 3,
           **OWN[case]}
    ).resolve()  # fmt: skip
    weights = as_float32(random_weights(spec))
    dk.build(spec)  # so that the next model's layer numbers do not start at 0
    model = dk.build(spec)
    dk.import_weights(model, weights)
    return spec, weights, model


@pytest.mark.parametrize("case", OWN)
def test_this_packages_models_saved_by_keras_are_read_bit_by_bit(tmp_path, case):
    spec, weights, model = own_model(case)
    model.save(tmp_path / "x.keras")
    model.save(tmp_path / "x.h5")
    model.save_weights(tmp_path / "x.weights.h5")
    for name in ("x.keras", "x.h5", "x.weights.h5"):
        check_own(tmp_path / name, spec, weights)


def check_own(path, spec, weights):
    checkpoint = formats.read(path)
    if ".weights" in path.name:
        assert (
            "assumed: an epsilon of 1e-05, a decay of 0.9, average pooling" in checkpoint.notes[0]
        )
        shown = {"bn_eps": 1e-5, "drop_rate": 0.0, "transition_pool": "avg", "global_pool": "avg"}
        usual = dm.DenseNetConfig(**{**vars(spec.config), **shown})
        assert checkpoint.spec.config == usual
    else:
        assert checkpoint.spec == spec
        assert checkpoint.notes == ()
    assert list(checkpoint.weights) == list(weights)
    for tensor, array in weights.items():
        np.testing.assert_array_equal(checkpoint.weights[tensor], array, err_msg=tensor)


def around(model, *after, before=()):
    return keras.Sequential([images_in(), *before, model, *after])


AROUND = {  # what surrounds this package's model: (how, case in OWN, expected usage)
    "pixels and a softmax": (
        lambda model: around(model, L.Softmax(), before=[L.Rescaling(1 / 127.5, -1)]),
        "bottleneck",
        {"value_range": (-1.0, 1.0), "activation": "softmax"},
    ),
    "a functional model": (
        lambda model: keras.Model(
            x := images_in(), L.Activation("sigmoid")(model(L.Dropout(0.5)(x)))
        ),
        "plain",
        {"value_range": None, "activation": "sigmoid"},
    ),
    "a model around a model": (
        lambda model: around(around(model), before=[L.Rescaling(1 / 255)]),
        "bottleneck",
        {"value_range": (0.0, 1.0), "activation": "none"},
    ),
    "pixels of the data, and a classifier": (
        lambda model: around(model, L.Dropout(0.5), L.Dense(5, "softmax"), before=[adapted()]),
        "features",
        {"activation": "softmax"},
    ),
    "a classifier without a bias": (
        lambda model: around(model, L.Dense(1, use_bias=False)),
        "features",
        {"activation": "none"},
    ),
}


@pytest.mark.parametrize("kind", AROUND)
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_this_packages_model_is_read_inside_another(tmp_path, kind, ending):
    make, case, expected = AROUND[kind]
    spec, weights, model = own_model(case)
    outer = make(model)
    outer.compile("adam", "mse")
    path = tmp_path / f"x.{ending}"
    outer.save(path)
    checkpoint = formats.read(path)
    usage = checkpoint.usage
    assert replace(checkpoint.spec.config, num_classes=spec.config.num_classes) == spec.config
    for tensor, array in weights.items():
        np.testing.assert_array_equal(checkpoint.weights[tensor], array, err_msg=tensor)
    assert {name: getattr(usage, name) for name in expected} == expected
    assert usage.image_size == SIZE
    pixels = np.random.default_rng(1).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    given = pixels * 255 if any("0 to 255" in note for note in checkpoint.notes) else pixels
    prepared = Preparation(SIZE, 3, usage)(pixels.transpose(0, 3, 1, 2))
    logits = dm.reference.predict(checkpoint.spec, checkpoint.weights, prepared)
    assert deviation(APPLY[usage.activation](logits), np.asarray(outer(given))) < 1e-5
    with pytest.raises(LookupError, match="this package's own"):
        keras_applications.library_logits(path, checkpoint, prepared)


@pytest.mark.parametrize("is_trained", [False, True])
def test_weights_alone_of_this_packages_model_inside_another_are_read_with_a_note(
    tmp_path, is_trained
):
    spec, weights, model = own_model("bottleneck")
    outer = around(model, L.Softmax(), before=[L.Rescaling(1 / 255)])
    if is_trained:  # Keras stores the state of the optimizer in the inner model, too
        model.compile("adam", "mse")
        model.fit(np.zeros((2, SIZE, SIZE, 3)), np.zeros((2, 3)), verbose=0)
        dk.import_weights(model, weights)
    outer.save_weights(tmp_path / "x.weights.h5")
    checkpoint = formats.read(tmp_path / "x.weights.h5", bn_eps=spec.config.bn_eps)
    assert "nested in another one, at layers/dense_net/; the layers around" in checkpoint.notes[0]
    assert len(checkpoint.notes) == 1  # the epsilon was given
    for tensor, array in weights.items():
        np.testing.assert_array_equal(checkpoint.weights[tensor], array, err_msg=tensor)
    around(model, L.Dense(2)).save_weights(tmp_path / "y.weights.h5")
    with pytest.raises(dm.WeightsError, match=r"found other layers .* model\.save\('NEW\.keras'\)"):
        formats.read(tmp_path / "y.weights.h5")
    x = images_in()
    keras.Model(x, [model(x), dk.build(spec)(x)]).save_weights(tmp_path / "z.weights.h5")
    with pytest.raises(dm.WeightsError, match="expected one network, found 2: layers/dense_net/"):
        formats.read(tmp_path / "z.weights.h5")


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda model: around(model, L.Dense(2)), "Dense"),
        (lambda model: around(model, before=[L.Conv2D(3, 1)]), "Conv2D"),
        (lambda model: around(model, L.Activation("tanh")), "Activation"),
        (lambda model: keras.Model(x := images_in(), [y := model(x), L.Softmax()(y)]), "DenseNet"),
        (
            lambda model: keras.Model(x := images_in(), L.Add()([y := model(x), L.ReLU()(y)])),
            "ReLU",
        ),
    ],
)
def test_what_is_around_this_packages_model_is_refused_by_name(tmp_path, make, layer):
    make(own_model("bottleneck")[2]).save(tmp_path / "x.keras")
    message = rf"{layer}\): expected this package's model dense_net.* model\.get_layer\('dense_net"
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(tmp_path / "x.keras")


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_keras_loads_what_it_saved_of_this_packages_models(tmp_path, ending):
    _, weights, model = own_model("bottleneck")
    model.save(tmp_path / f"x.{ending}")
    loaded = keras.models.load_model(tmp_path / f"x.{ending}")
    assert type(loaded) is dk.DenseNet
    for tensor, array in dk.export_weights(loaded).items():
        np.testing.assert_array_equal(array, weights[tensor], err_msg=tensor)
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{ending}"]


def test_a_model_rewritten_for_inference_is_refused_with_what_to_save(tmp_path):
    dk.optimize(own_model("bottleneck")[2]).save(tmp_path / "x.keras")
    with pytest.raises(dm.WeightsError, match="save the model that it was made from"):
        formats.read(tmp_path / "x.keras")


# --- Hostile files ------------------------------------------------------------------------------


def with_config(path, change):
    """Replace the declaration of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"])
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


ATTACKS = [
    {"class_name": "Lambda", "module": "keras.layers"},
    {"class_name": "Dropout", "module": "touches"},
    {"class_name": "Dropout", "module": "keras_touches.layers"},
    {"class_name": "Dropout", "module": "touches", "registered_name": "my>Dropout"},
]


@pytest.mark.parametrize("position", ["before", "head"])
def test_nothing_that_a_file_names_is_imported_or_run(tmp_path, monkeypatch, position):
    touched = tmp_path / "touched"
    code = f"import pathlib\npathlib.Path({str(touched)!r}).touch()\n"
    (tmp_path / "touches.py").write_text(code)
    (tmp_path / "keras_touches").mkdir()
    (tmp_path / "keras_touches" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "x.keras"
    dropped = L.Dropout(0.1, name="bad")
    head = (dropped, L.Dense(3)) if position == "head" else (L.Dense(3),)
    with_head(*head, x=dropped if position == "before" else None).save(path)

    for attack in ATTACKS:

        def change(layers, attack=attack):
            (bad,) = (layer for layer in layers if layer["name"] == "bad")
            bad |= {"registered_name": None, **attack}
            bad["config"] |= {"function": f"__import__('pathlib').Path({str(touched)!r}).touch()"}

        with_config(path, change)
        if position == "before":
            with pytest.raises(dm.WeightsError, match=r"bad \("):
                formats.read(path)
        else:
            checkpoint = formats.read(path)  # the body, and a note on the head
            assert "bad (" in checkpoint.notes[0]
            x = np.zeros((1, 3, SIZE, SIZE), np.float32)
            with pytest.raises(LookupError, match="layers that are not Keras' own"):
                keras_applications.library_logits(path, checkpoint, x)
        assert not touched.exists()


def test_a_head_that_is_larger_than_its_file_is_not_built(tmp_path):
    path = tmp_path / "x.keras"
    with_head(L.Dense(3)).save(path)
    checkpoint = formats.read(path)
    with_config(path, lambda layers: layers[-1]["config"].update(units=10**9))
    with pytest.raises(LookupError, match="larger than its file"):
        keras_applications.library_logits(path, checkpoint, np.zeros((1, 3, SIZE, SIZE)))
