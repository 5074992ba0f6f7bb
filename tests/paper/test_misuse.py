"""Every function names an argument of the wrong type, in an error of this package.

The errors of Python, NumPy, Pillow or a framework would name neither the argument nor the remedy.
"""

import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, labels, small
from densenet_multi import data, formats, reference
from densenet_multi.backends import framework_versions, place
from densenet_multi.comparison.bench import bench
from densenet_multi.comparison.compare import compare
from densenet_multi.comparison.lockstep import lockstep
from densenet_multi.data.digest import digest
from densenet_multi.data.examples import Together
from densenet_multi.data.held_out import load_held_out
from densenet_multi.spec import (
    BatchNormSpec,
    ConvSpec,
    DenseBlockSpec,
    DenseLayerSpec,
    LinearSpec,
    PoolSpec,
    StemSpec,
    TransitionSpec,
)
from densenet_multi.tasks.convert import convert, logits
from densenet_multi.tasks.convert import inspect as inspect_file
from densenet_multi.tasks.evaluate import evaluate
from densenet_multi.tasks.predict import predict, sigmoid, softmax
from densenet_multi.tasks.train import Options, train
from densenet_multi.training.recipe import Recipe
from densenet_multi.training.run import Run, Subject
from densenet_multi.training.state import TrainingState, load_state, save_state
from densenet_multi.training.statistics import measure_statistics

SPEC = small("plain", num_classes=2, in_channels=1)
BLOCK, TRANSITION = SPEC.stages[0]
LAYER = BLOCK.layers[0]
WEIGHTS = dm.init_weights(SPEC)
CHECKPOINT = dm.Checkpoint(SPEC, WEIGHTS)
PREPARE = data.Preparation(8, 1)
IMAGES, LABELS = images(SPEC, 8), labels(SPEC)
BYTES = np.zeros((2, 28, 28), np.uint8)
EXAMPLES = data.Arrays(IMAGES, LABELS)
BACKEND = SimpleNamespace(build=print, export_weights=lambda _: WEIGHTS)
OWN = (
    *(dm.ConfigError, dm.ImageError, dm.WeightsError, data.DataError, data.IdxError),
    dm.BackendNotInstalledError,
)


class Hostile:
    """An object that cannot be shown, compared, counted or turned into an array."""

    __hash__ = None

    def __repr__(self):
        raise RuntimeError

    __eq__ = __len__ = __array__ = __bool__ = __index__ = __iter__ = __fspath__ = lambda *_: 1 / 0


WRONG = {
    "None": None,
    "dict": {1: 2},
    "ragged": [[1], [2, 3]],
    "text": "a\0b",
    "bytes": b"x",
    "nan": float("nan"),
    "negative": -1.5,
    "huge": -(10**5000),
    "complex": 1j,
    "number of NumPy": np.float32(1.5),
    "structured": np.zeros(2, [("a", int)]),
    "objects": np.full((2, 1, 8, 8), None),
    "masked images": np.ma.masked_array(IMAGES, IMAGES > 0.5),
    "masked labels": np.ma.masked_array(LABELS, [True, False]),
    "masked integer": np.ma.masked_array(3, mask=True),
    "duration": np.timedelta64(1, "s"),
    "a class": int,
    "a spec": SPEC,
    "hostile": Hostile(),
}


def fields_of(part):
    return {field.name: getattr(part, field.name) for field in fields(part)}


CALLS = {  # a function -> its valid arguments; each is replaced by every wrong value in turn
    dm.DenseNetConfig: {"growth_rate": 4, "block_config": (1,), "stem": "cifar", "bn_eps": 1e-5},
    dm.DenseNetConfig.from_json: {"text": SPEC.to_json()},
    dm.get_spec: {"variant": "d2l", "growth_rate": 4},
    dm.cifar_config: {"depth": 22, "growth_rate": 4, "bottleneck": True},
    dm.dense_block: {"num_layers": 1, "in_channels": 3, "growth_rate": 2, "name": "denseblock1"},
    dm.transition: {"in_channels": 4, "out_channels": 2, "pool_kind": "avg", "name": "transition1"},
    ConvSpec: fields_of(SPEC.stem.conv0),
    BatchNormSpec: fields_of(SPEC.norm5),
    PoolSpec: {"kernel_size": 2, "stride": 2, "padding": 0},
    LinearSpec: {"in_features": 4, "out_features": 2},
    StemSpec: fields_of(SPEC.stem),
    DenseLayerSpec: fields_of(LAYER),
    DenseBlockSpec: fields_of(BLOCK),
    TransitionSpec: fields_of(TRANSITION),
    dm.DenseNetSpec: fields_of(SPEC),
    dm.count_parameters: {"spec": SPEC},
    dm.profile: {"spec": SPEC, "height": 8, "width": 8},
    dm.init_weights: {"spec": SPEC, "seed": 0, "initialization": "xavier"},
    dm.check_weights: {"spec": SPEC, "weights": WEIGHTS, "dtype": "float32"},
    dm.load_backend: {"name": "none of them"},
    dm.load_checkpoint: {"path": "none.safetensors"},
    dm.save_weights: {"path": "x.safetensors", "spec": SPEC, "weights": WEIGHTS},
    dm.Checkpoint: {"spec": SPEC, "weights": WEIGHTS, "usage": dm.Usage(), "notes": ()},
    dm.Usage().fits: {"spec": SPEC},
    dm.Usage().stated: {"name": "mean"},
    dm.Recipe: {"variant": "d2l", "epochs": 1, "flip": True, "milestones": (), "seed": 0},
    dm.Recipe.from_json: {"text": dm.Recipe().to_json()},
    dm.Recipe().learning_rates: {"steps": 3},
    reference.forward: {
        "spec": SPEC, "weights": WEIGHTS, "images": IMAGES,
        "training": True, "variance": "biased",
    },
    reference.cross_entropy: {"logits": np.zeros((2, 2)), "labels": LABELS},
    reference.convolve: {
        "x": IMAGES, "kernel": np.zeros((2, 1, 3, 3)), "stride": 1, "padding": 1
    },
    reference.max_pool: {"pool": PoolSpec(2, 2), "x": IMAGES},
    reference.average_pool: {"pool": PoolSpec(2, 2), "x": IMAGES},
    data.augment: {
        "images": IMAGES, "seed": 0, "epoch": 0, "indices": LABELS,
        "flip": True, "shift": 1, "fill": 0.0,
    },
    data.epoch_order: {"n": 5, "seed": 0, "epoch": 0},
    data.resize: {"images": IMAGES, "height": 4, "width": 4},
    data.to_input: {"images": BYTES},
    data.normalize: {"images": IMAGES, "usage": dm.Usage(mean=(0.5,), std=(0.5,))},
    data.Preparation: {"image_size": 8, "channels": 1},
    PREPARE.__call__: {"images": IMAGES},
    data.read_image: {"path": "none.png", "channels": 1},
    data.read_idx: {"path": "none", "max_bytes": 9},
    data.write_idx: {"path": "x.idx", "array": BYTES},
    data.load_sample: {"split": "test"},
    data.load_directory: {"path": ".", "split": "test"},
    data.load_cifar10: {"path": ".", "split": "test"},
    data.load_folder: {"path": ".", "prepare": PREPARE, "seed": 0},
    data.load_data: {"name": "sample", "image_size": 8, "seed": 0},
    load_held_out: {"name": "sample", "image_size": 8, "with_train": True},
    data.Arrays: {"images": IMAGES, "labels": LABELS},
    EXAMPLES.take: {"indices": LABELS},
    data.Pixels: {"pixels": BYTES[:, None], "labels": LABELS, "prepare": PREPARE},
    data.FashionMNIST: {"pixels": BYTES, "labels": LABELS, "image_size": 8},
    data.ImageFiles: {"paths": ("x.png",), "labels": LABELS, "prepare": PREPARE},
    formats.read: {"path": "none"},
    formats.write: {"path": "x.safetensors", "checkpoint": CHECKPOINT},
    formats.guess: {"path": "none"},
    formats.guess_from_name: {"path": "x.pth"},
    formats.module: {"name": "portable"},
    formats.with_classes: {"checkpoint": CHECKPOINT, "num_classes": 4, "seed": 0},
    formats.with_channels: {"checkpoint": CHECKPOINT, "in_channels": 3},
    logits: {
        "path": Path("none"), "file_format": "portable", "checkpoint": CHECKPOINT, "images": IMAGES
    },
    convert: {"source": "none", "destination": "x.safetensors", "verify": False},
    inspect_file: {"path": "none"},
    predict: {"path": "none", "images": ["none.png"], "batch_size": 1, "say": print},
    evaluate: {"path": "none", "data": "sample", "bfloat16": False, "say": print},
    Options: {"backend_name": "torch", "data": "sample", "recipe": Recipe()},
    train: {
        "options": Options(backend_name="torch"), "resume": False, "callbacks": (),
        "save_every": 1.0, "say": print, "memory_efficient": False,
    },
    softmax: {"logits": np.zeros((2, 3))},
    sigmoid: {"logits": np.zeros((2, 3))},
    digest: {"examples": data.Pixels(BYTES[:, None], LABELS, PREPARE)},
    measure_statistics: {
        "backend": BACKEND, "model": Subject(SPEC, "float32"),
        "examples": EXAMPLES, "batches": 1, "batch_size": 2,
    },
    compare: {
        "spec": SPEC, "weights": WEIGHTS, "backends": [], "image_size": 8, "batch_size": 1,
        "dtype": "float32", "step": print,
    },
    lockstep: {
        "spec": SPEC, "weights": WEIGHTS, "data": EXAMPLES,
        "recipe": dm.Recipe(epochs=1, batch_size=2), "backends": [], "steps": 1, "step": print,
    },
    bench: {"backends": [], "work": "training", "batch_size": 2, "rounds": 1, "step": print},
    place: {"backend": BACKEND, "model": None, "device": "cpu"},
    framework_versions: {"name": "torch"},
    Together: {"parts": (EXAMPLES,)},
    data.DataSet: {
        "name": "sample", "train": EXAMPLES, "test": EXAMPLES, "class_names": ("a", "b"),
        "where": "here", "split_seed": 0, "notes": (),
    },
    data.HeldOut: {
        "split": "test", "examples": EXAMPLES, "train": EXAMPLES, "class_names": ("a", "b"),
        "where": "here", "notes": (),
    },
    Together((EXAMPLES,)).take: {"indices": LABELS},
    load_state: {"path": "none"},
    save_state: {
        "path": "none", "spec": SPEC, "state": TrainingState(WEIGHTS, {}, 0, (), (), 0.0)
    },
    TrainingState: {
        "weights": WEIGHTS, "velocity": {}, "steps": 0, "epochs": (), "unfinished": (),
        "seconds": 0.0,
    },
    Run: {
        "model": Subject(SPEC, "float32"), "data": (IMAGES, LABELS),
        "recipe": dm.Recipe(epochs=1, batch_size=2), "callbacks": (),
    },
}  # fmt: skip


# values of WRONG that are valid for an argument: (value, argument) or (value, argument, function)
RIGHT = {
    *(("a spec", "spec"), ("a class", "say"), ("number of NumPy", "bn_eps")),
    *(("number of NumPy", "seconds"), ("number of NumPy", "save_every")),
    *(("number of NumPy", "fill"), ("negative", "fill"), ("nan", "fill")),
    *(("dict", "weights", TrainingState), ("dict", "velocity", TrainingState)),
    *(("dict", "weights", dm.Checkpoint), ("text", "variant", dm.Recipe)),
    *(("text", "name", dm.dense_block), ("text", "name", dm.transition)),
    *(("text", "data", Options), ("text", "backend_name", Options)),
    ("None", "usage"),
    *(("text", "name", part) for part in (DenseLayerSpec, DenseBlockSpec, TransitionSpec)),
    *(("None", name) for name in ("norm0", "pool0", "norm2", "conv2", "classifier")),
    ("number of NumPy", "eps"),
    *(("text", "name", framework_versions), ("None", "device")),
    *(("text", "name", data.DataSet), ("None", "split_seed"), ("text", "where")),
    ("text", "split", data.HeldOut),
    *(("a class", "step"), ("None", "batch_size", bench)),
    ("text", "data", evaluate),  # evaluate reads the weights before the data
}
CALLED = {  # an argument -> what errors may call it
    "text": ("configuration", "recipe"),
    "name": ("backend", "data", "field", "format"),
    "file_format": ("format",),
}
CASES = [(function, name) for function, given in CALLS.items() for name in given if name != "model"]


@pytest.mark.parametrize(
    ("function", "name"), CASES, ids=[f"{function.__qualname__}-{name}" for function, name in CASES]
)
def test_an_argument_of_the_wrong_type_is_named(function, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong, value in WRONG.items():
        if {(wrong, name), (wrong, name, function)} & RIGHT:
            continue
        try:
            function(**{**CALLS[function], name: value})
        except OWN as error:
            words = "|".join((name, *CALLED.get(name, ())))
            if not re.search(rf"\b({words})\b[:=\[.]|^({words}) ", str(error)):
                pytest.fail(f"{name}={wrong}: not named in {error}")
        else:
            pytest.fail(f"{name}={wrong}: accepted")


def test_a_wrong_value_is_shown_in_a_few_words():
    with pytest.raises(dm.ConfigError) as caught:
        dm.DenseNetConfig(growth_rate=list(range(10_000)))
    assert len(str(caught.value)) < 600
    with pytest.raises(dm.ConfigError, match="found a value of type Hostile"):
        dm.DenseNetConfig(growth_rate=Hostile())


def test_a_part_of_a_spec_names_itself_and_its_field():
    with pytest.raises(
        dm.ConfigError,
        match=r"^ConvSpec.kernel_size: expected an integer from 1 to 1,048,576; found True$",
    ):
        ConvSpec(3, 4, True)
    with pytest.raises(dm.ConfigError, match=r"^DenseNetSpec.stages\[0\]: expected 2 values"):
        replace(SPEC, stages=((BLOCK,),))
    with pytest.raises(dm.ConfigError, match=r"^DenseNetSpec.stages\[2\]\[0\]: expected a DenseBl"):
        replace(SPEC, stages=(*SPEC.stages, (TRANSITION, None)))
    found = replace(LAYER.conv1, padding=np.int8(1), bias=False)
    assert found == LAYER.conv1
    assert type(found.padding) is int


def test_numbers_of_a_usage_are_pythons():
    usage = dm.Usage(mean=[np.float32(0.5)], value_range=(np.int64(0), 255))
    assert usage == dm.Usage(mean=(0.5,), value_range=(0, 255))
    assert {type(n) for n in (*usage.mean, *usage.value_range)} == {float, int}
    for wrong in (True, np.True_, "1", 1j, float("nan")):
        with pytest.raises(dm.ConfigError, match=r"^mean: expected"):
            dm.Usage(mean=(wrong,))


@pytest.mark.parametrize("guise", ["read-only", "reversed", "big-endian", "subclass", "list"])
def test_an_array_in_another_guise_is_the_same(guise):
    class Subclass(np.ndarray):
        pass

    def disguised(array):
        if guise == "reversed":
            return array[..., ::-1].copy()[..., ::-1]
        if guise == "big-endian":
            return array.astype(array.dtype.newbyteorder(">"))
        if guise == "list":
            return array.tolist()
        array = array.copy().view(Subclass) if guise == "subclass" else array.copy()
        array.flags.writeable = guise != "read-only"
        return array

    weights = {name: disguised(array) for name, array in WEIGHTS.items()}
    weights = WEIGHTS if guise == "list" else weights  # the list is float64: not to be rounded
    expected = reference.predict(SPEC, WEIGHTS, IMAGES)
    np.testing.assert_array_equal(reference.predict(SPEC, weights, disguised(IMAGES)), expected)
    for name, array in dm.check_weights(SPEC, weights, "float32").items():
        assert array.dtype == WEIGHTS[name].dtype
        np.testing.assert_array_equal(array, WEIGHTS[name])
    arrays = data.Arrays(disguised(IMAGES), disguised(LABELS))
    np.testing.assert_array_equal(arrays.take(disguised(np.array([1, 0]))), IMAGES[::-1])


def test_no_indices_are_no_images():
    assert Together((EXAMPLES, EXAMPLES)).take([]).shape == (0, *IMAGES.shape[1:])


def test_maps_in_which_no_window_fits_are_refused():
    x = np.zeros((1, 2, 4, 3))
    for shape in ((5, 3, 3, 3), (5, 2, 3, 2), (5, 2, 4, 4), (5, 2, 0, 0)):
        with pytest.raises(
            dm.ImageError, match=r"^kernel: expected shape \(O, 2, k, k\) with k fr"
        ):
            reference.convolve(x, np.zeros(shape))
    assert reference.convolve(x, np.zeros((5, 2, 4, 4)), padding=1).shape == (1, 5, 3, 2)
    for pool in (reference.max_pool, reference.average_pool):
        with pytest.raises(
            dm.ImageError, match=r"^x: expected height and width of at least 4, fou"
        ):
            pool(PoolSpec(4, 2), x)
