"""The Keras model is an ordinary keras.Model."""

import os
import subprocess
import sys
from zipfile import ZipFile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import densenet_multi as dm
import densenet_multi.keras as dk
from cases import images, labels, rows, small, small_table
from densenet_multi.keras import tabular
from densenet_multi.keras.layers import max_pool
from densenet_multi.spec import PoolSpec

# replaces TensorFlow, whose import takes long
STUB = """
import os
print("tensorflow", os.environ["TF_ENABLE_ONEDNN_OPTS"])
class keras:
    class config:
        backend = staticmethod(lambda: "a stub")
"""
IMPORT = """
try:
    import densenet_multi.keras
except ValueError as error:
    assert "found 'a stub'" in str(error)
"""


def what_happens(folder, first="", **environment):
    """What stubs of triton and TensorFlow print when this backend is imported."""
    (folder / "triton.py").write_text("print('triton')")
    (folder / "tensorflow.py").write_text(STUB)
    inherited = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    done = subprocess.run(
        [sys.executable, "-c", first + IMPORT],
        env=inherited | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_triton_is_loaded_before_tensorflow_and_never_after(tmp_path):
    # the triton that comes with PyTorch for CUDA crashes the process when loaded after TensorFlow
    assert what_happens(tmp_path) == ["triton", "tensorflow 1"]
    given = {"first": "import tensorflow", "TF_ENABLE_ONEDNN_OPTS": "0"}
    assert what_happens(tmp_path, **given) == ["tensorflow 0"]


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_onednn_is_used_unless_it_is_forbidden(tmp_path, given, expected):
    assert what_happens(tmp_path, **given) == ["triton", f"tensorflow {expected}"]


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.fixture
def spec():
    return small("plain with bias", drop_rate=0.1)


def test_summary_has_the_counts_of_the_manifest(spec):
    lines: list[str] = []
    dk.build(spec).summary(print_fn=lambda line, **_: lines.append(line))
    text = "\n".join(lines)
    counts = dm.count_parameters(spec)
    for number in (counts.total, counts.trainable, counts.statistics):
        assert f"{number:,}" in text
    assert dk.build(spec).count_params() == counts.total


def test_fit_trains_and_updates_the_statistics(spec):
    model = dk.build(spec)
    before = dk.export_weights(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    x, y = nhwc(images(spec, 32, count=16)), labels(spec, 16)
    history = model.fit(x, y, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    after = dk.export_weights(model)
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert {name for name in before if "running" in name} <= set(moved)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_and_reload_gives_the_same_model(spec, dtype, tmp_path):
    model, x = dk.build(spec, dtype=dtype), images(spec, 32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, dk.DenseNet)
    assert loaded.spec == spec
    np.testing.assert_array_equal(dk.predict(loaded, x), dk.predict(model, x))
    assert dk.predict(loaded, x).dtype == dtype
    assert keras.config.dtype_policy().name == "float32"
    other = dk.build(spec, seed=1, dtype=dtype)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(dk.predict(other, x), dk.predict(model, x))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_an_optimized_model_can_be_saved_and_summarized(tmp_path, bfloat16):
    spec = small("bottleneck")
    model, x = dk.optimize(dk.build(spec), bfloat16=bfloat16), images(spec, 32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(dk.predict(loaded, x), dk.predict(model, x))
    assert not loaded.trainable_variables
    lines = []
    loaded.summary(print_fn=lines.append)
    assert f"Non-trainable params: {model.count_params():,}" in "".join(lines)


@pytest.mark.parametrize("old", ["OptimizedDenseNet", "WholeDenseNet"])
def test_a_model_that_was_saved_before_its_class_was_renamed_is_restored(tmp_path, old):
    spec = small("bottleneck")
    model = dk.build(spec, memory_efficient="max")
    model = dk.optimize(model) if old == "OptimizedDenseNet" else model
    model.save(tmp_path / "new.keras")
    new = type(model).__name__
    with ZipFile(tmp_path / "new.keras") as source, ZipFile(tmp_path / "old.keras", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                assert content.count(new.encode()) == 2  # the class name and the registered name
                content = content.replace(new.encode(), old.encode())
                folded = b'{"spec": "FoldedNormSpec", "num_features": 8}'
                content = content.replace(b'"norm0": null', b'"norm0": ' + folded)
                content = content.replace(b'"norm2": null', b'"norm2": ' + folded)
            target.writestr(name, content)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    assert (type(loaded), loaded.spec) == (type(model), model.spec)
    x = images(spec, 32)
    np.testing.assert_array_equal(dk.predict(loaded, x), dk.predict(model, x))


@pytest.mark.parametrize("level", [False, True, "max"])
def test_functional_use_and_its_reload(spec, level, tmp_path):
    inputs = keras.Input((None, None, spec.config.in_channels))
    network = dk.build(spec, memory_efficient=level)
    model = keras.Model(inputs, keras.ops.softmax(network(inputs)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = nhwc(images(spec, 35)).astype(np.float32)
    expected = keras.ops.softmax(dk.predict(network, images(spec, 35)))
    np.testing.assert_allclose(loaded(x), expected, rtol=1e-5)


def test_building_blocks_can_be_saved_in_a_sequential_model(tmp_path):
    block, transition = dm.dense_block(2, 3, growth_rate=10), dm.transition(23, 10)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), dk.DenseBlock(block), dk.Transition(transition)]
    )
    assert model.output_shape == (None, 4, 4, 10)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].spec == block


def test_evaluation_and_training_follow_the_training_argument(spec):
    model, x = dk.build(spec), nhwc(images(spec, 32)).astype(np.float32)
    np.testing.assert_array_equal(model(x), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x))


def test_the_dtype_of_a_network_is_that_of_the_layers_inside(spec, tmp_path):
    model = dk.DenseNet(spec, dtype="float64")
    assert {w.dtype for w in model.weights if "seed" not in w.name} == {"float64"}
    assert dk.predict(model, images(spec, 32)).dtype == np.float64
    assert keras.config.dtype_policy().name == "float32"
    mixed = dk.DenseNet(spec, dtype="mixed_bfloat16")
    assert mixed(nhwc(images(spec, 32))).dtype == "bfloat16"
    mixed.save(tmp_path / "mixed.keras")
    loaded = keras.models.load_model(tmp_path / "mixed.keras")
    assert loaded.features.conv0.dtype_policy.name == "mixed_bfloat16"


def test_a_network_that_was_never_called_can_be_counted(spec):
    assert dk.count_parameters(dk.DenseNet(spec)) == dm.count_parameters(spec)


def test_frozen_layers_count_but_have_no_gradient(spec):
    model = dk.build(spec)
    model.features.conv0.trainable = False
    assert dk.count_parameters(model) == dm.count_parameters(spec)
    _, gradients = dk.loss_and_gradients(model, images(spec, 32), labels(spec))
    assert not {"features.conv0.weight", "features.conv0.bias"} & set(gradients)
    assert len(gradients) == sum(t.role == "trainable" for t in dm.tensors(spec).values()) - 2
    model.trainable = False
    loss, gradients = dk.loss_and_gradients(model, images(spec, 32), labels(spec))
    assert loss > 0
    assert not gradients


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [True, "max"])
def test_a_memory_efficient_model_may_be_frozen_in_parts(level, dtype):
    spec = small("bottleneck", conv_bias=True)
    results = []
    for efficient in (False, level):
        model = dk.build(spec, dtype=dtype, seed=1, memory_efficient=efficient)
        first, second = model.features.denseblock1.denselayer1, model.features.denseblock2
        for layer in (model.features.conv0, first.norm1, first.conv2, second.denselayer1):
            layer.trainable = False
        _, gradients = dk.loss_and_gradients(model, images(spec, 32, count=4), labels(spec, 4))
        results.append((gradients, dk.export_weights(model)))
    (gradients, after), (same_gradients, same_after) = results
    assert list(same_gradients) == list(gradients)
    rounding = 1e-6 if dtype == "float32" else 1e-14
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():  # of a bias before a BatchNorm: only rounding
        assert np.abs(same_gradients[name] - gradient).max() <= rounding * largest, name
    for name, array in after.items():
        assert np.abs(same_after[name] - array).max() <= rounding * np.abs(array).max(), name


def test_a_memory_efficient_model_names_the_layer_that_it_would_pass_by():
    x = np.zeros((2, 32, 32, 3), np.float32)
    for change in ("synchronized", "lora"):
        model = dk.build(small("bottleneck"), memory_efficient=True)
        layer = model.features.denseblock1.denselayer1
        if change == "lora":
            layer.conv1.enable_lora(2)
        else:
            layer.norm1.synchronized = True
        with pytest.raises(dm.ConfigError, match=r"expected single-device Batch.*; build the"):
            model(x, training=True)
        assert model(x).shape == (2, 4)


def test_a_memory_efficient_step_compiles_with_xla():
    spec = small("bottleneck")
    x, y = nhwc(images(spec, 32, count=4)).astype(np.float32), labels(spec, 4)
    ends = []
    for xla in (False, True):
        model = dk.build(spec, seed=1, memory_efficient=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=xla)
        model.train_on_batch(x, y)
        ends.append(dk.export_weights(model))
    plain, compiled = ends
    for name, array in plain.items():
        np.testing.assert_allclose(compiled[name], array, rtol=1e-4, atol=1e-4)


def test_the_layout_does_not_depend_on_the_configuration_of_keras(spec):
    expected = dk.predict(dk.build(spec), images(spec, 33))
    keras.config.set_image_data_format("channels_first")
    try:
        actual = dk.predict(dk.build(spec), images(spec, 33))
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(actual, expected)


def test_layers_that_the_user_froze_stay_frozen_after_fit():
    spec = small("bottleneck")
    model = dk.build(spec)
    model.features.denseblock1.trainable = False
    data = images(spec, 32, count=4).astype(np.float32), labels(spec, 4)
    dk.fit(model, data, dm.Recipe(epochs=1, batch_size=2, train_features=False))
    assert not model.features.denseblock1.trainable
    assert model.features.denseblock2.trainable


def test_a_fitted_model_is_saved_with_its_optimizer(tmp_path):
    spec = small("bottleneck")
    model = dk.build(spec)
    data = images(spec, 32, count=4).astype(np.float32), labels(spec, 4)
    dk.fit(model, data, dm.Recipe(epochs=1, batch_size=2, momentum=0.9))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    np.testing.assert_array_equal(dk.predict(loaded, data[0]), dk.predict(model, data[0]))


def test_of_equal_maxima_one_receives_the_gradient():
    x = tf.zeros((1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = max_pool(PoolSpec(2, 2, 0))(x)
    gradient = tape.gradient(y, x).numpy()
    np.testing.assert_array_equal(gradient.reshape(2, 2, 2, 2).sum(axis=(1, 3)), np.ones((2, 2)))
    assert np.count_nonzero(gradient) == 4


def test_a_network_for_tables_is_saved_and_restored(tmp_path):
    spec = small_table("dense", drop_rate=0.5)
    model, (x, _) = tabular.build(spec, seed=3), rows(spec)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.spec == spec
    np.testing.assert_array_equal(tabular.predict(loaded, x), tabular.predict(model, x))
