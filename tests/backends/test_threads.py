"""Several threads may call ``predict`` and ``features`` with one model at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from cases import images, random_weights, small

THREADS = 4
CALLS = {"torch": 12}  # its models have a mode; fewer calls would not overlap


@pytest.fixture
def model(backend):
    """A model in training mode, if models have modes; one BatchNorm is in evaluation mode."""
    spec = small("bottleneck", drop_rate=0.4)
    model = backend.build(spec, dtype="float64")
    backend.import_weights(model, random_weights(spec))
    if hasattr(model, "train"):  # PyTorch and Flax
        model.train()
        model.features.denseblock1.denselayer1.norm1.eval()
    return model


def modes_of(backend, model):
    return [m.training for m in model.modules()] if backend.NAME == "torch" else None


@pytest.mark.parametrize("optimized", [pytest.param(False, marks=pytest.mark.long), True])
def test_threads_get_the_results_of_a_single_thread(backend, model, optimized):
    batches = [images(model.spec, 35 + seed, seed=seed) for seed in range(THREADS)]
    twin = backend.optimize(model) if optimized else model
    expected = [(backend.predict(twin, x), backend.features(twin, x)) for x in batches]
    model = backend.optimize(model) if optimized else model  # not called yet if optimized
    before, modes = backend.export_weights(model), modes_of(backend, model)
    barrier = Barrier(THREADS)

    def answers(number):
        barrier.wait()
        for _ in range(CALLS.get(backend.NAME, 3)):
            x, (logits, maps) = batches[number], expected[number]
            np.testing.assert_array_equal(backend.predict(model, x), logits)
            np.testing.assert_equal(backend.features(model, x), maps)

    with ThreadPoolExecutor(THREADS) as pool:
        assert len(list(pool.map(answers, range(THREADS)))) == THREADS
    assert modes_of(backend, model) == modes
    for name, array in backend.export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])
