"""What each step of ``optimize`` buys: images per second, step after step, in turn.

    python docs/results/steps.py torch > docs/results/steps-torch.json

Densenet121, 8 images of 224x224, float32.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

import densenet_multi as dm
from densenet_multi.fold import fold

ROUNDS = 9


def models(b: Any) -> dict[str, Any]:
    """Models of one function, each with one step more than the one before."""
    plain = b.build(dm.get_spec("densenet121"))
    spec, weights = fold(plain.spec, b.export_weights(plain))

    def folded() -> Any:
        return b._made(b.DenseNet, spec, weights, "float32")  # noqa: SLF001  # as optimize does

    steps = {"as built": plain, "BatchNorms folded": folded()}
    if b.NAME == "torch":
        import torch

        steps["channels last"] = folded().to(memory_format=torch.channels_last)
    elif b.NAME == "gluon":
        steps["hybridized"] = folded()
        steps["hybridized"].hybridize(static_alloc=True, static_shape=True)
    last = {
        "torch": "clamped, one array per block",
        "keras": "traced (tf.function)",
        "gluon": "joined without a slice",
        "flax": "one array per block",
    }
    return {**steps, last[b.NAME]: b.optimize(plain)}


def main(name: str) -> None:
    """Print the numbers of one backend as JSON."""
    b = dm.load_backend(name)
    x = np.random.default_rng(0).random((8, 3, 224, 224), np.float32)
    run: dict[str, Callable[[], Any]] = {
        step: partial(b.predict, model, x) for step, model in models(b).items()
    }
    expected = run["as built"]()
    for predict in run.values():
        difference = np.abs(predict() - expected).max() / np.abs(expected).max()
        assert difference < 1e-5, difference  # noqa: S101  # the same function
    seconds: dict[str, list[float]] = {step: [] for step in run}
    for _ in range(ROUNDS):
        for step, predict in run.items():
            start = time.perf_counter()
            predict()
            seconds[step].append(time.perf_counter() - start)
    print(json.dumps({step: len(x) / median(found) for step, found in seconds.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
