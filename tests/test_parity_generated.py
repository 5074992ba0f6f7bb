"""The same promises for networks that nobody chose: Hypothesis draws the specification."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from cases import as_float32, images, random_weights
from parity import check_forward, check_training
from strategies import small_configs

few = settings(
    max_examples=8,
    derandomize=True,  # the same networks in every run, here as in CI
    deadline=None,  # frameworks compile
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@few
@given(config=small_configs(), beyond=st.integers(0, 5), wider=st.integers(0, 3))
def test_shapes_counts_weights_and_logits(backend, deviations, config, beyond, wider):
    spec = config.resolve()
    height = dm.min_image_size(spec) + beyond
    weights, x = random_weights(spec), images(spec, height, height + wider)
    check_forward(backend, spec, weights, x, deviations)
    check_forward(backend, spec, as_float32(weights), x.astype(np.float32), deviations)
    model = backend.build(spec)
    assert backend.count_parameters(model) == dm.count_parameters(spec)
    backend.import_weights(model, as_float32(weights))
    for name, exported in backend.export_weights(model).items():
        np.testing.assert_array_equal(exported, as_float32(weights)[name])


@few
@given(config=small_configs())
def test_loss_statistics_and_gradients(backend, deviations, config):
    spec = config.resolve()
    check_training(backend, spec, random_weights(spec), deviations)
