"""Measure the gain of each optimization: images per second, with one more optimization per row.

In docs/results/data:

    python ../scripts/steps.py torch > steps-torch.json
    python ../scripts/steps.py torch training > steps-training-torch.json
    python ../scripts/steps.py torch many > steps-many-torch.json

By default, the optimizations are those of ``optimize``, with densenet121 and 8 images of 224x224 in
float32. With ``training`` they are those of ``fit``, with the chapter's network and 64 images of
96x96. ``many`` compares predicting 64 images of 224x224 at once and a few at a time (PyTorch only).
The cases take turns.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

import densenet_multi as dm
from densenet_multi.comparison.machine import multiplies_bfloat16
from densenet_multi.comparison.rivals import load_rival
from densenet_multi.data import Pixels, Preparation, load_sample
from densenet_multi.training.history import Step

ROUNDS = 9
FITS, BATCHES = 3, 5


def models(b: Any) -> dict[str, Any]:
    """Return models of the same function, each with one more optimization than the previous one."""
    plain = b.build(dm.get_spec("densenet121"))
    faster = import_module(f"{b.__name__}.faster.inference")

    def as_written() -> Any:
        """Return what ``optimize`` returns, but with the classes of model.py."""
        with patch.object(faster, "exchange", lambda model, _: model):
            return b.optimize(plain)

    steps = {"as built": plain, "BatchNorms folded": as_written()}
    if b.NAME == "torch":
        import torch

        steps["BatchNorms folded"].to(memory_format=torch.contiguous_format)
        steps["channels last"] = as_written()
    elif b.NAME == "keras":
        faster.exchange(steps["BatchNorms folded"], {faster.InferenceDenseNet: b.DenseNet})
    elif b.NAME == "gluon":
        steps["BatchNorms folded"].hybridize(active=False)
        steps["hybridized"] = as_written()
    last = {
        "torch": "clamped, one array per block",
        "keras": "traced (tf.function)",
        "gluon": "no slice after a concatenation",
        "flax": "one array per block",
    }
    return {**steps, last[b.NAME]: b.optimize(plain)}


def inference(b: Any) -> dict[str, list[float]]:
    """Return the seconds of each call of each model."""
    x = np.random.default_rng(0).random((8, 3, 224, 224), np.float32)
    run: dict[str, Callable[[], Any]] = {
        step: partial(b.predict, model, x) for step, model in models(b).items()
    }
    if b.NAME == "torch":
        last, call = run.popitem()
        packed = import_module(f"{b.__name__}.faster._packed")
        run[last] = patch.object(packed, "CONVOLVE", None)(call)  # PyTorch's own convolution
        run["kernels reordered once, with the ReLU"] = call
    expected = run["as built"]()
    for predict in run.values():
        difference = np.abs(predict() - expected).max() / np.abs(expected).max()
        assert difference < 1e-5, difference  # noqa: S101  # the same function
    return in_turn(run)


def in_turn(run: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the seconds of each call of each case; the cases take turns."""
    seconds: dict[str, list[float]] = {step: [] for step in run}
    for _ in range(ROUNDS):
        for step, call in run.items():
            start = time.perf_counter()
            call()
            seconds[step].append(time.perf_counter() - start)
    return seconds


def many(b: Any) -> dict[str, list[float]]:
    """Return the seconds of each prediction of 64 images, in PyTorch."""
    x = np.random.default_rng(0).random((64, 3, 224, 224), np.float32)
    plain = b.build(dm.get_spec("densenet121"))
    module = import_module(f"{b.__name__}.predict")
    ways = {"all at once": sys.maxsize, "a few at a time": module.KEPT}
    return in_turn(
        {
            f"{name}, {way}": patch.object(module, "KEPT", kept)(partial(b.predict, model, x))
            for name, model in {"as built": plain, "optimized": b.optimize(plain)}.items()
            for way, kept in ways.items()
        }
    )


def undone(b: Any) -> dict[str, Any]:
    """Return each optimization of ``fit`` with the patch that undoes it."""
    model, layers, train, faster = (
        import_module(f"{b.__name__}.{module}")
        for module in ("model", "layers", "train", "faster.training")
    )

    def pooled_last(self: Any, x: Any) -> Any:
        return self.pool(self.conv(model.relu(self.norm(x))))

    if b.NAME == "torch":
        import torch

        return {
            "pooled before the convolution": patch.object(model.Transition, "forward", pooled_last),
            "channels last": patch.object(torch, "channels_last", torch.contiguous_format),
        }
    if b.NAME == "keras":
        from tensorflow import keras

        norm, own = layers.BatchNormalization, keras.layers.BatchNormalization
        return {
            "pooled before the convolution": patch.object(model.Transition, "call", pooled_last),
            "TensorFlow's fused BatchNorm": patch.object(norm, "call", own.call),
        }
    if b.NAME == "gluon":

        def hybrid_forward(self: Any, _: Any, x: Any) -> Any:
            return pooled_last(self, x)

        return {
            "pooled before the convolution": patch.object(
                model.Transition, "hybrid_forward", hybrid_forward
            ),
            "oneDNN's ReLU": patch.object(model, "relu", lambda x: x.relu()),
            "no slice after a concatenation": patch.object(train, "for_training", lambda _: None),
            "hybridized": patch.object(model.DenseNet, "hybridize", lambda *_, **__: None),
        }
    from flax import nnx

    def kept(*kinds: type) -> Any:
        """Return a patch that keeps the classes of these modules."""
        return patch.dict(faster.TRAINING[False], {kind: kind for kind in kinds})

    def max_pool(self: Any, x: Any) -> Any:
        size, stride = (self.spec.kernel_size,) * 2, (self.spec.stride,) * 2
        return nnx.max_pool(x, size, stride, ((self.spec.padding, self.spec.padding),) * 2)

    return {
        "pooled before the convolution": patch.object(model.Transition, "__call__", pooled_last),
        "sums axis by axis, 1x1 as products": kept(nnx.BatchNorm, nnx.Conv),
        "statistics once per map": kept(model.DenseLayer, model.DenseBlock),
        "largest by comparisons": patch.object(layers.MaxPool, "__call__", max_pool),
    }


def training(b: Any) -> dict[str, list[float]]:
    """Return the seconds of each training step of ``fit``, without the two that compile."""
    spec = dm.get_spec("d2l")
    pixels, labels = load_sample("train")
    count = 64 * BATCHES
    data = Pixels(pixels[:count, np.newaxis], labels[:count], Preparation(96, 1))
    recipe = replace(dm.RECIPES["chapter"], epochs=1, batch_size=64)
    patches = undone(b)
    names = ["none of them", *patches]
    if b.NAME in ("torch", "keras") and multiplies_bfloat16():
        names.append("bfloat16")
    rival: Any = load_rival(b.NAME)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(FITS):
        for number, name in enumerate(names):
            ends = list[float]()

            def hear(event: Any, ends: list[float] = ends) -> None:
                if isinstance(event, Step):
                    rival.finish()
                    ends.append(time.perf_counter())

            with ExitStack() as stack:
                for each in [*patches.values()][number:]:
                    stack.enter_context(each)
                if b.NAME == "flax":
                    import jax

                    jax.clear_caches()  # code compiled earlier would ignore a patch
                model = b.build(spec)
                chosen = replace(recipe, bfloat16=name == "bfloat16")
                b.fit(model, data, chosen, callbacks=[hear])
            seconds[name] += np.diff(ends)[1:].tolist()
    return seconds


def main(name: str, work: str = "inference") -> None:
    """Print the numbers of one backend as JSON."""
    works = {"inference": (8, inference), "training": (64, training), "many": (64, many)}
    size, measure = works[work]
    seconds = measure(dm.load_backend(name))
    print(json.dumps({step: size / median(found) for step, found in seconds.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
