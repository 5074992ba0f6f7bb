"""All frameworks work in one process. That is convenient; the design does not depend on it."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from available import AVAILABLE
from cases import SMALL, images, labels, random_weights, small
from parity import gradient_scale
from strategies import small_configs

pytestmark = pytest.mark.together


@pytest.mark.parametrize("name", SMALL)
def test_gradients_agree_by_name_between_all_backends(deviations, name):
    spec = small(name)
    weights, x, y = random_weights(spec), images(spec, 33, count=3), labels(spec, 3)
    gradients = {}
    for backend in map(dm.load_backend, AVAILABLE):
        model = backend.build(spec, dtype="float64")
        backend.import_weights(model, weights)
        _, gradients[backend.NAME] = backend.loss_and_gradients(model, x, y)
    first, *others = gradients.values()
    for other, backend in zip(others, list(gradients)[1:], strict=True):
        assert list(other) == list(first)
        for tensor, expected in first.items():
            value = np.abs(other[tensor] - expected).max() / gradient_scale(first)
            deviations.check("gradients together", backend, value, tensor)


def test_every_backend_predicts_the_same_in_one_process():
    spec = small("bottleneck")
    weights, x = random_weights(spec), images(spec, 32)
    expected = dm.reference.predict(spec, weights, x)
    for backend in map(dm.load_backend, AVAILABLE):
        model = backend.build(spec, dtype="float64")
        backend.import_weights(model, weights)
        np.testing.assert_allclose(backend.predict(model, x), expected, rtol=1e-12, atol=1e-14)


ORDERS = [tuple(AVAILABLE), tuple(reversed(AVAILABLE))]  # every pair in both orders


@pytest.mark.parametrize(
    "order",
    [
        *ORDERS,
        *(
            pytest.param(order, marks=pytest.mark.long)
            for order in list(permutations(AVAILABLE))[::5]
            if order not in ORDERS
        ),
    ],
    ids="-".join,
)
def test_frameworks_import_in_any_order(order):
    code = "; ".join(f"import densenet_multi.{name}" for name in order)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_any_to_any(spec, folder, dtype="float32"):
    """Load and save through each backend in turn, and back: the file's bytes never change."""
    weights = {name: a.astype(dtype) for name, a in random_weights(spec).items()}
    dm.save_weights(folder / "first", spec, weights)
    expected = (folder / "first").read_bytes()
    for name in [*AVAILABLE, *reversed(AVAILABLE)]:
        backend = dm.load_backend(name)
        model = backend.build(spec, dtype=dtype)
        backend.import_weights(model, dm.load_weights(folder / "first")[1])
        dm.save_weights(folder / "first", spec, backend.export_weights(model))
        assert (folder / "first").read_bytes() == expected, name


# for the larger variants, test_parity.py imports and exports every tensor
@pytest.mark.parametrize(
    "variant", ["d2l", pytest.param("densenet_bc100_k12", marks=pytest.mark.long)]
)
def test_a_variant_passes_from_any_backend_to_any_other_bit_for_bit(variant, tmp_path):
    check_any_to_any(dm.get_spec(variant), tmp_path)


@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(config=small_configs(least_classes=0), dtype=st.sampled_from(["float32", "float64"]))
def test_a_drawn_network_passes_from_any_backend_to_any_other_bit_for_bit(config, dtype, tmp_path):
    check_any_to_any(config.resolve(), tmp_path, dtype)
