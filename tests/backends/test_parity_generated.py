"""The promises of test_parity.py for random networks: Hypothesis draws their specifications.

By default, these are few, and the same in every run. ``pytest --hypothesis-profile=thorough`` draws
100 new ones per promise.
"""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from cases import as_float32, images, random_weights, small
from parity import amplification, check_forward, check_training, training_batch
from strategies import small_configs

MANY_DIGITS = float(np.float32(0.987654321))  # MXNet's BatchNorm stores its decay in float32
THOROUGH = settings.get_current_profile_name() == "thorough"
drawn = settings(  # frameworks compile each network, which takes seconds
    max_examples=100 if THOROUGH else 4,
    derandomize=not THOROUGH,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@drawn
@given(config=small_configs(least_classes=0), beyond=st.integers(0, 5), wider=st.integers(0, 3))
def test_shapes_counts_weights_and_logits(backend, deviations, config, beyond, wider):
    spec = config.resolve()
    height = dm.min_image_size(spec) + beyond
    weights, x = random_weights(spec), images(spec, height, height + wider)
    amplified = amplification(spec, weights, x)
    check_forward(backend, spec, weights, x, deviations, amplified)
    check_forward(backend, spec, as_float32(weights), x.astype(np.float32), deviations, amplified)
    model = backend.build(spec)
    assert backend.count_parameters(model) == dm.count_parameters(spec)
    backend.import_weights(model, as_float32(weights))
    for name, exported in backend.export_weights(model).items():
        np.testing.assert_array_equal(exported, as_float32(weights)[name])


@drawn
@given(config=small_configs())
@example(config=small("plain", bn_decay=MANY_DIGITS).config)
def test_loss_statistics_and_gradients(backend, deviations, config):
    spec = config.resolve()
    weights = random_weights(spec)
    amplified = amplification(spec, weights, *training_batch(spec))
    check_training(backend, spec, weights, deviations, amplified)
    check_training(backend, spec, as_float32(weights), deviations, amplified)
