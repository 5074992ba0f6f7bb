"""All four frameworks in one process. Nothing in the design leans on it; it is convenient."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest

import densenet_multi as dm
from cases import SMALL, images, labels, random_weights, small
from parity import gradient_scale

pytestmark = pytest.mark.together


@pytest.mark.parametrize("name", SMALL)
def test_gradients_agree_by_name_between_all_backends(deviations, name):
    spec = small(name)
    weights, x, y = random_weights(spec), images(spec, 33, count=3), labels(spec, 3)
    gradients = {}
    for backend in map(dm.load_backend, dm.backend_names()):
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
    for backend in map(dm.load_backend, dm.backend_names()):
        model = backend.build(spec, dtype="float64")
        backend.import_weights(model, weights)
        np.testing.assert_allclose(backend.predict(model, x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", list(permutations(dm.backend_names()))[::5], ids="-".join)
def test_frameworks_import_in_any_order(order):
    code = "; ".join(f"import densenet_multi.{name}" for name in order)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
