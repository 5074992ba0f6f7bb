"""One case of ``densenet-multi bench``, in a process of its own that computes when told to.

``python -m densenet_multi.bench_case SETTINGS`` (JSON) trains a network or predicts with it, with
one backend or with other people's code in its framework. After every round of steps it prints a
line of JSON, and waits until a line comes in; it ends when none does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import ConfigError
from ..backends import hide_gpus, load_backend, place
from ..data import Pixels, Preparation, load_sample
from ..manifest import shape_trace
from ..spec import DenseNetSpec
from ..training.history import Step
from ..training.recipe import RECIPES
from ..training.run import Training
from ..variants import cifar_config, get_spec
from .report import forget_peak_memory, peak_memory

MARK = "densenet-multi bench: "  # frameworks print too
PRODUCTS = ("products", "bfloat16 products")
CASES = {  # work -> what is compared: the first with each of the others
    "training": ("fit", "bfloat16", "chapter", "model", "framework", "feeding", *PRODUCTS),
    "inference": ("optimized", "model", "bfloat16", "framework", *PRODUCTS),
    "memory": ("efficient", "max", "plain"),
}
DIFFERENT = 4  # batches for a beginner's loop


class FinishedError(Exception):
    """No further round is wanted."""


class AbsentError(Exception):
    """There is no such case here; the message says why."""


class Rounds:
    """Called after every step; between rounds it reports and waits.

    A round, and the very first step, end when all that was asked for is calculated: ``calculated``
    waits for it. ``peak`` is how much memory was held at most, in bytes, since ``forget``.
    """

    def __init__(
        self,
        steps: int,
        warmup: int,
        calculated: Callable[[], object] = lambda: None,
        *,
        peak: Callable[[], int] = peak_memory,
        forget: Callable[[], object] = forget_peak_memory,
    ) -> None:
        self._steps, self._wanted, self._calculated = steps, warmup, calculated
        self._peak, self._forget = peak, forget
        self._first, self._seconds = True, list[float]()
        forget()  # building the network had its own
        self._before = peak()
        self._last = time.perf_counter()

    def __call__(self, event: object = None) -> None:
        """Count a step (``event``: a ``Step``, or None); other events are none."""
        if event is not None and not isinstance(event, Step):
            return
        if self._first or len(self._seconds) + 1 == self._wanted:
            self._calculated()
            self._first = False
        self._seconds.append(time.perf_counter() - self._last)
        if len(self._seconds) == self._wanted:
            peak = self._peak()
            grown = peak - self._before
            _say({"seconds": self._seconds, "peak_memory_bytes": peak, "grown_bytes": grown})
            if not sys.stdin.readline():
                raise FinishedError
            self._seconds, self._wanted = [], self._steps
            self._forget()  # tracing and compiling have theirs
        self._last = time.perf_counter()


def run(settings: dict[str, Any]) -> None:
    """Work until nobody asks for another round."""
    if settings["device"] == "cpu":
        hide_gpus()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["cpus"])
    try:
        narrow = settings["case"].startswith("bfloat16")
        if narrow and settings["device"] == "cpu" and not multiplies_bfloat16():
            raise AbsentError("this processor has no instructions for bfloat16")  # noqa: TRY301
        if settings["case"] in PRODUCTS:
            _multiply(settings)
        elif settings["work"] == "inference":
            _predict(settings)
        else:
            _train(settings)
    except FinishedError:
        pass
    except AbsentError as error:
        _say({"absent": str(error)})


def products(
    spec: DenseNetSpec, image_size: int, batch_size: int
) -> Iterator[tuple[int, int, int]]:
    """(m, k, n) of each matrix product (m, k) x (k, n) that a convolution of the network is.

    A transition's convolution comes after its pooling, as in the backends.
    """
    sizes = {name: h * w for name, (_, h, w) in shape_trace(spec, image_size, image_size)}
    conv0 = spec.stem.conv0
    side = (image_size + 2 * conv0.padding - conv0.kernel_size) // conv0.stride + 1
    convolutions = [(conv0, side**2)]
    for block, transition in spec.stages:
        for layer in block.layers:
            convolutions += [(c, sizes[block.name]) for c in (layer.conv1, layer.conv2) if c]
        if transition:
            convolutions.append((transition.conv, sizes[transition.name]))
    for conv, area in convolutions:
        yield batch_size * area, conv.in_channels * conv.kernel_size**2, conv.out_channels


def _multiply(settings: dict[str, Any]) -> None:
    """The network's matrix products alone; training multiplies three times as much.

    NumPy has no bfloat16 and no GPU: PyTorch multiplies there, where it is installed.
    """
    dtype = "bfloat16" if settings["case"] == "bfloat16 products" else "float32"
    ones, matmul, rest = partial(np.ones, dtype=np.float32), np.matmul, ()
    if dtype == "bfloat16" or settings["device"] == "gpu":
        try:
            found = _beside(load_backend("torch"), "peer").products(dtype, settings["device"])
        except (ConfigError, ImportError) as error:
            raise AbsentError(str(error)) from None
        if found is None:
            raise AbsentError("PyTorch sees no GPU")
        ones, matmul, *rest = found
    spec = network(settings["variant"], settings["depth"])
    shapes = list(products(spec, settings["image_size"], settings["batch_size"]))
    left, right, out = (
        ones(max(map(size, shapes)))
        for size in (lambda s: s[0] * s[1], lambda s: s[1] * s[2], lambda s: s[0] * s[2])
    )
    rounds = Rounds(settings["steps"], settings["warmup"], *rest)
    while True:
        for _ in range(3 if settings["work"] == "training" else 1):
            for m, k, n in shapes:
                a, b = left[: m * k].reshape(m, k), right[: k * n].reshape(k, n)
                matmul(a, b, out=out[: m * n].reshape(m, n))
        rounds()


def _predict(settings: dict[str, Any]) -> None:
    backend = load_backend(settings["backend"])
    spec = get_spec(settings["variant"])
    size = settings["image_size"]
    shape = settings["batch_size"], spec.config.in_channels, size, size
    images = np.random.default_rng(0).random(shape, np.float32)
    if settings["case"] == "framework":
        net = _peer_net(backend, settings)
        place(backend, net, settings["device"])
        logits = partial(_beside(backend, "peer").logits, net)
    else:
        model = backend.build(spec)
        place(backend, model, settings["device"])
        if settings["case"] == "optimized":
            model = backend.optimize(model)
        elif settings["case"] == "bfloat16":
            with _absent_if_refused():
                model = backend.optimize(model, bfloat16=True)
        logits = partial(backend.predict, model)
    rounds = Rounds(settings["steps"], settings["warmup"])
    while True:
        logits(images)
        rounds()


def _train(settings: dict[str, Any]) -> None:
    batch_size, steps, warmup = settings["batch_size"], settings["steps"], settings["warmup"]
    spec = network(settings["variant"], settings["depth"])
    pixels, labels = load_sample("train")
    needed = (warmup + steps * settings["rounds"]) * batch_size
    order = np.arange(needed) % len(labels)
    prepare = Preparation(settings["image_size"], spec.config.in_channels)
    data = Pixels(pixels[order, np.newaxis], labels[order], prepare)
    recipe = replace(RECIPES["chapter"], epochs=1, batch_size=batch_size)
    case = settings["case"]
    if case == "feeding":
        _feed(Training(spec, "float32", recipe, data), Rounds(steps, warmup))
        return
    backend: Any = load_backend(settings["backend"])
    new_rounds = partial(_rounds, backend, settings)
    if case in ("chapter", "model", "framework"):
        loop = _beside(backend, "chapter" if case == "chapter" else "peer")
        if case == "chapter":
            net = _chapter_net(loop, settings)
        else:
            net = backend.build(spec) if case == "model" else _peer_net(backend, settings)
        place(backend, net, settings["device"])
        # made beforehand: how others read their images is not measured
        batches = [
            (data.take(indices), data.labels[indices].astype(np.int64))
            for indices in np.arange(min(len(data), DIFFERENT * batch_size)).reshape(-1, batch_size)
        ]
        endless = islice(cycle(batches), len(data) // batch_size)
        loop.train(net, endless, recipe.learning_rate, new_rounds())
        return
    level = {"efficient": True, "max": "max"}.get(case, False)
    model = backend.build(spec, memory_efficient=level)
    place(backend, model, settings["device"])
    if case == "plain" and settings["backend"] == "gluon":
        # allocated statically, each array has its own place for good: the most memory of all
        model.hybridize = lambda active=True, **_: type(model).hybridize(model, active)
    rounds = [new_rounds()]
    if case == "bfloat16":
        with _absent_if_refused():
            backend.fit(model, data, replace(recipe, bfloat16=True), callbacks=rounds)
    else:
        backend.fit(model, data, recipe, callbacks=rounds)


def _feed(run: Training, rounds: Rounds) -> None:
    """Batches as ``fit`` gets them, one after the other; a fit makes them beside its steps."""
    for index in range(run.steps_per_epoch):
        run.batch(0, index)
        rounds()


def _rounds(backend: Any, settings: dict[str, Any]) -> Rounds:
    """Of steps of this backend; on a GPU, memory is what the framework holds there."""
    peer, memory = _beside(backend, "peer"), {}
    if settings["device"] == "gpu":
        memory = {"peak": peer.peak_gpu_memory, "forget": peer.forget_peak_gpu_memory}
    # Gluon alone goes on calculating when a step has returned
    calculated = getattr(peer, "calculated", lambda: None)
    return Rounds(settings["steps"], settings["warmup"], calculated, **memory)


def _beside(backend: Any, module: str) -> Any:
    """What the backend brings for comparison: its ``chapter`` or ``peer``."""
    return import_module(f"{backend.__name__}.{module}")


def _chapter_net(chapter: Any, settings: dict[str, Any]) -> Any:
    if settings["variant"] != "d2l":
        raise AbsentError(f"the chapter has no {settings['variant']}")
    return chapter.chapter_net()


def _peer_net(backend: Any, settings: dict[str, Any]) -> Any:
    net = _beside(backend, "peer").peer_net(settings["variant"], settings["image_size"])
    if net is None:
        raise AbsentError(f"{backend.FRAMEWORK} has no {settings['variant']} of this size here")
    return net


@contextmanager
def _absent_if_refused() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise AbsentError(str(error)) from None


def network(variant: str, depth: int | None) -> DenseNetSpec:
    """The network that is measured: a variant, or the paper's DenseNet-BC (k = 12) of a depth."""
    if depth is not None:
        return cifar_config(depth, 12, bottleneck=True).resolve()
    return get_spec(variant)


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16, as far as Linux says so."""
    flags: set[str] = set()
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags.update(line.split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _say(report: dict[str, Any]) -> None:
    print(MARK + json.dumps(report), flush=True)  # noqa: T201  # the other end reads it


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
