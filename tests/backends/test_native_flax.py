"""The Flax model is an ordinary nnx.Module."""

from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import densenet_multi as dm
import densenet_multi.flax as df
from cases import images, labels, small, tiny
from densenet_multi.comparison.deviation import deviation
from densenet_multi.flax._layers import MaxPool
from densenet_multi.flax.faster import for_training
from densenet_multi.flax.faster._training_layers import BatchNorm, PointwiseConv
from densenet_multi.flax.faster.training import SharingBlock
from densenet_multi.flax.weights import precision
from densenet_multi.spec import PoolSpec


@pytest.fixture
def spec():
    return small("bottleneck", drop_rate=0.1)


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32)


def test_works_under_nnx_jit(spec):
    model = df.build(spec)
    x = images(spec, 32)
    expected = df.predict(model, x)
    model.eval()
    actual = nnx.jit(lambda model, x: model(x))(model, nhwc(x))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def test_splits_and_merges(spec):
    model = df.build(spec)
    graphdef, state = nnx.split(model)
    merged = nnx.merge(graphdef, state)
    x = images(spec, 32)
    np.testing.assert_array_equal(df.predict(merged, x), df.predict(model, x))
    assert hash(nnx.split(df.build(spec, seed=1))[0]) == hash(graphdef)  # jit compiles once


def test_trains_under_nnx_grad_with_an_optax_optimizer(spec):
    model = df.build(spec)
    model.train()
    optimizer = nnx.Optimizer(model, optax.sgd(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    x, y = nhwc(images(spec, 32, count=8)), jnp.asarray(labels(spec, 8))
    before = df.export_weights(model)
    losses = [float(step(model, optimizer, x, y)) for _ in range(10)]
    assert losses[-1] < losses[0]
    after = df.export_weights(model)
    assert not any(np.array_equal(before[name], after[name]) for name in before)


def test_a_memory_efficient_model_names_the_batch_norm_that_it_would_pass_by(spec):
    model = df.build(spec, memory_efficient=True)
    model.features.denseblock1.set_attributes(axis_name="devices", raise_if_not_found=False)
    x = nhwc(images(spec, 32))
    model.train()
    with pytest.raises(dm.ConfigError, match="single-device BatchNorm with scale and bias, found"):
        model(x)
    model.eval()
    assert model(x).shape == (2, 4)


@pytest.mark.parametrize("level", [False, pytest.param("some", marks=pytest.mark.long), "max"])
def test_nnx_grad_equals_the_contracts_gradients(level):
    spec = small("bottleneck")
    x, y = images(spec, 32), labels(spec)
    plain, model = df.build(spec), df.build(spec, memory_efficient=level)
    _, expected = df.loss_and_gradients(plain, x, y)
    model.train()

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(nhwc(x)), y).mean()

    gradients = nnx.jit(nnx.grad(loss))(model)
    kernel = np.asarray(gradients.features.conv0.kernel[...]).transpose(3, 2, 0, 1)
    assert deviation(kernel, expected["features.conv0.weight"]) < 1e-5
    after = df.export_weights(model)
    for name, array in df.export_weights(plain).items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("level", [pytest.param("some", marks=pytest.mark.long), "max"])
def test_a_memory_efficient_layers_batch_norm_can_be_frozen_alone(level):
    spec = small("bottleneck")
    x, y = images(spec, 32, count=4), labels(spec, 4)

    def loss(model, x):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    found = []
    for how in (False, level):
        with precision("float64"):
            model = df.build(spec, dtype="float64", memory_efficient=how)
            model.train()
            model.features.denseblock1.denselayer1.norm2.eval()
            inputs = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float64)
            gradients = nnx.jit(nnx.grad(loss))(model, inputs)
        found.append([gradients, nnx.state(model)])
    for actual, expected in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_max_pooling_and_its_gradient_are_nnxs_where_numbers_are_equal_too(kernel_size, stride):
    padding = kernel_size // 2
    ours = MaxPool(PoolSpec(kernel_size, stride, padding))
    window = (kernel_size,) * 2, (stride,) * 2, ((padding, padding),) * 2

    @jax.jit
    def both(x):
        found = []
        for pool in (ours, lambda x: nnx.max_pool(x, *window)):
            y, back = jax.vjp(pool, x)
            found.append((y, back(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))[0]))
        return found

    for size in ((7, 9), (8, 8), (12, 5)):
        x = np.random.default_rng(0).integers(0, 4, (2, *size, 3)).astype(np.float32)
        for actual, expected in zip(*both(x), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_layers_that_train_fast_are_nnxs_with_their_gradients_and_those_of_gradients():
    class Both(nnx.Module):
        def __init__(self):
            given = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
            self.conv = nnx.Conv(3, 4, (1, 1), use_bias=False, **given)
            self.norm = nnx.BatchNorm(4, use_fast_variance=False, **given)
            for name, value in (("mean", 0.0), ("var", 1.0)):  # NNX makes them float32
                setattr(self.norm, name, nnx.BatchStat(jnp.full(4, value, jnp.float64)))

        def __call__(self, x):
            return self.norm(self.conv(x))

    def loss(model, x):
        return jnp.mean(jnp.square(model(x) - target))

    def slope(model, x):
        return jnp.vdot(x * x, jax.grad(lambda x: loss(nnx.clone(model), x))(x))

    rng = np.random.default_rng(0)
    with precision("float64"):
        x, target = (jnp.asarray(rng.normal(2, 1, (6, 33, 7, channels))) for channels in (3, 4))
        model = Both()
        for_training(fast := nnx.clone(model))
        assert (type(fast.conv), type(fast.norm)) == (PointwiseConv, BatchNorm)
        for function in (loss, slope):
            found, expected = (
                nnx.value_and_grad(function, argnums=(0, 1))(each, x) for each in (fast, model)
            )
            for actual, wanted in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
                np.testing.assert_allclose(actual, wanted, rtol=1e-8, atol=1e-13)
        for name, before in (("mean", 0), ("var", 1)):
            actual, wanted = (getattr(each.norm, name)[...] for each in (fast, model))
            np.testing.assert_allclose(actual, wanted, rtol=1e-12)
            assert (actual != before).all()
        fast.eval()
        model.eval()
        np.testing.assert_allclose(fast(x), model(x), rtol=1e-9, atol=1e-12)


def test_maps_that_are_read_as_one_are_what_they_were():
    deep = small("bottleneck", block_config=(2 * SharingBlock.group + 1, 1))
    found = []
    for level in (False, "some"):  # "some" computes each map's moments separately
        model = for_training(df.build(deep, dtype="float64"), memory_efficient=level)
        _, gradients = df.loss_and_gradients(model, images(deep, 32), labels(deep))
        found.append((df.export_weights(model), gradients))
    for actual, expected in zip(*found, strict=True):
        for name, array in expected.items():
            largest = np.abs(array).max()
            np.testing.assert_allclose(
                actual[name], array, rtol=1e-10, atol=1e-12 * largest, err_msg=name
            )


def test_a_step_outside_fit_is_model_pys(monkeypatch):
    refuse = Mock(side_effect=AssertionError("classes were exchanged"))
    monkeypatch.setattr("densenet_multi.flax.train.for_training", refuse)
    spec = tiny(growth_rate=5)  # no other test has compiled its step
    loss, _ = df.loss_and_gradients(df.build(spec), images(spec, 32), labels(spec))
    assert loss > 0
    with pytest.raises(AssertionError, match="classes were exchanged"):
        df.fit(df.build(spec), (images(spec, 32), labels(spec)), dm.Recipe(epochs=1, batch_size=2))


def test_prediction_leaves_the_models_mode_alone(spec):
    model = df.build(spec)
    for mode in (model.train, model.eval):
        mode()
        before = model.features.norm5.use_running_average
        df.predict(model, images(spec, 32))
        df.loss_and_gradients(model, images(spec, 32), labels(spec))
        assert model.features.norm5.use_running_average == before


def test_float64_is_a_property_of_the_model_not_of_the_process(spec):
    model = df.build(spec, dtype="float64")
    assert df.predict(model, images(spec, 32)).dtype == np.float64
    assert jnp.asarray(np.float64(1)).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_is_an_ordinary_class_with_or_without_rngs():
    spec = small("plain")
    for model in (df.DenseNet(spec), df.DenseNet(spec, rngs=nnx.Rngs(3))):
        assert model(jnp.ones((2, 8, 8, 3))).shape == (2, 5)
        assert float(model.features.conv0.kernel[...].std()) > 0


def test_arrays_taken_from_a_model_outlive_its_training():
    """Steps donate their buffers, but the first step must not donate the caller's."""
    spec = small("plain")
    model = df.build(spec)
    kernel = model.classifier.kernel[...]
    before = np.array(kernel)
    data = images(spec, 8, count=4), labels(spec, 4)
    df.fit(model, data, dm.Recipe(epochs=1, batch_size=2))
    np.testing.assert_array_equal(np.asarray(kernel), before)
    assert np.abs(np.asarray(model.classifier.kernel[...]) - before).max() > 0


def test_an_interrupt_inside_a_step_leaves_a_model_that_works(spec, monkeypatch):
    step = df.train._update

    def interrupted(*given):
        step(*given)
        raise KeyboardInterrupt  # the old state is donated, the new one is not stored yet

    monkeypatch.setattr(df.train, "_update", interrupted)
    model = df.build(spec)
    before = df.export_weights(model)
    with pytest.raises(KeyboardInterrupt):
        df.fit(model, (images(spec, 32), labels(spec)), dm.Recipe(batch_size=2))
    after = df.export_weights(model)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize("part", ["DenseNet", "Stem"])
@pytest.mark.parametrize("wrong", [0, {}, "params", nnx.Param])
def test_rngs_of_another_type_are_refused(part, wrong):
    spec = tiny()
    of = {"DenseNet": spec, "Stem": spec.stem}[part]
    with pytest.raises(dm.ConfigError, match=r"^rngs: expected a Rngs; found "):
        getattr(df, part)(of, rngs=wrong)


def test_of_equal_maxima_one_receives_the_gradient():
    pool = MaxPool(PoolSpec(2, 2, 0))
    gradient = np.asarray(jax.grad(lambda x: pool(x).sum())(jnp.zeros((1, 4, 4, 1))))
    np.testing.assert_array_equal(gradient.reshape(2, 2, 2, 2).sum(axis=(1, 3)), np.ones((2, 2)))
    assert np.count_nonzero(gradient) == 4
