"""A child process of ``bench``: run one case, round by round.

``python -m densenet_multi.comparison.bench_child SETTINGS`` trains a network or predicts with it,
using a backend or a rival implementation (see rivals/). After every round, the process reports the
times and waits until the parent lets it continue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from .._checks import ConfigError
from ..backends import Backend, BackendError, hide_gpus, load_backend, place
from ..data import Pixels, Preparation, load_sample
from ..spec import DenseNetSpec
from ..training.recipe import RECIPES, Recipe
from ..training.run import Run, Subject
from ..variants import cifar_config, get_spec
from ..weights import init_weights
from .child_process import Message, run_child
from .machine import multiplies_bfloat16
from .matrix_products import matrix_products
from .rivals import Rival, load_rival
from .rounds import Rounds

PRODUCTS = ("products", "bfloat16 products")
RUNTIMES = ("onnxruntime", "openvino", "bfloat16 openvino")  # in inference, without the framework
PLAIN_LOOP = ("beginner", "model", "framework")  # in training: a rival's loop instead of `fit`
PARTS = {"accumulated": 4}  # case -> of each batch, in a rival's loop
CASES = {  # work -> its cases; the first is compared with each of the others
    "training": ("fit", "bfloat16", *PLAIN_LOOP, "feeding", *PRODUCTS),
    "inference": ("optimized", "model", "bfloat16", "framework", *RUNTIMES, *PRODUCTS),
    "memory": ("efficient", "max", "plain"),
}
MEMORY_EFFICIENT: dict[str, Literal["some", "max"]] = {"efficient": "some", "max": "max"}
DIFFERENT = 4  # distinct batches, which a plain loop repeats


class AbsentError(Exception):
    """Raised if a case does not exist here; the message states why."""


def measure(settings: dict[str, Any]) -> Message:
    """Run rounds until the parent wants no more; if none can run, return the reason.

    This is {"absent": why} for this case alone, or a failed report with ``for_all`` for all cases.
    """
    case = settings["case"]
    if settings["device"] == "cpu":
        hide_gpus()
    elif case in RUNTIMES:
        return {"absent": "only measured on a CPU"}
    elif case not in PRODUCTS:
        try:
            _require_gpu(settings["backend"])
        except BackendError as error:
            return {"status": "failed", "error": str(error), "for_all": True}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["cpus"])
    work: Callable[[dict[str, Any]], None] = _fit
    if case in PRODUCTS:
        work = _multiply
    elif settings["work"] == "inference":
        work = _predict
    elif case == "feeding":
        work = _feed
    elif case in (*PLAIN_LOOP, *PARTS):
        work = _train_in_a_plain_loop
    narrow = case.startswith("bfloat16") and settings["device"] == "cpu"
    if narrow and not multiplies_bfloat16():
        return {"absent": "this processor has no instructions for bfloat16"}
    try:
        work(settings)
    except AbsentError as error:
        return {"absent": str(error)}
    raise RuntimeError("the work ended before the last round")


def network(
    variant: str, depth: int | None, changes: Mapping[str, Any] = MappingProxyType({})
) -> DenseNetSpec:
    """Return the network: a variant, or the paper's DenseNet-BC (k = 12) of this depth.

    ``changes`` are fields that replace the variant's own.
    """
    if depth is not None:
        return cifar_config(depth, 12, bottleneck=True).resolve()
    return get_spec(variant, **changes)


def _require_gpu(backend_name: str) -> None:
    """Raise ``BackendError`` if the framework sees no GPU."""
    backend = load_backend(backend_name)
    place(backend, backend.build(cifar_config(10, 12, bottleneck=True).resolve()), "gpu")


# --- The cases ----------------------------------------------------------------------------------


def _fit(settings: dict[str, Any]) -> None:
    backend = load_backend(settings["backend"])
    spec, data, recipe = _to_train(settings)
    case = settings["case"]
    model = backend.build(spec, memory_efficient=MEMORY_EFFICIENT.get(case, False))
    place(backend, model, settings["device"])
    rival = load_rival(settings["backend"])
    if case == "plain" and rival:
        rival.free_arrays_early(model)
    rounds = [_rounds(rival, settings)]
    if case == "bfloat16":
        with _absent_if_refused():
            backend.fit(model, data, replace(recipe, bfloat16=True), callbacks=rounds)
    else:
        backend.fit(model, data, recipe, callbacks=rounds)


def _train_in_a_plain_loop(settings: dict[str, Any]) -> None:
    backend = load_backend(settings["backend"])
    rival = _rival(settings)
    spec, data, recipe = _to_train(settings)
    case = settings["case"]
    if case in ("model", *PARTS):
        net = backend.build(spec)
        place(backend, net, settings["device"])
        if settings["work"] == "memory":
            rival.free_arrays_early(net)
    elif case == "framework":
        net = _framework_network(backend, rival, settings)
    elif settings["variant"] == "d2l":
        net = rival.beginners_network(settings["image_size"])
    else:
        raise AbsentError(f"there is no beginner's network for {settings['variant']}")
    if case in ("beginner", "framework") and settings["device"] == "gpu":
        rival.use_gpu(net)
    # prepared in advance, so that reading images is not measured
    size = recipe.batch_size
    batches = [
        (data.take(indices), data.labels[indices].astype(np.int64))
        for indices in np.arange(min(len(data), DIFFERENT * size)).reshape(-1, size)
    ]
    enough = list(islice(cycle(batches), len(data) // size))
    rounds = _rounds(rival, settings)
    rival.train(net, enough, recipe.learning_rate, rounds, PARTS.get(case, 1))


def _feed(settings: dict[str, Any]) -> None:
    """Prepare batches one after the other. (``fit`` prepares them concurrently with its steps.)"""
    spec, data, recipe = _to_train(settings)
    run = Run(Subject(spec, "float32"), data, recipe)
    rounds = Rounds(settings["steps"], settings["warmup"])
    for index in range(run.steps_per_epoch):
        run.batch(0, index)
        rounds()


def _predict(settings: dict[str, Any]) -> None:
    spec = get_spec(settings["variant"])
    size = settings["image_size"]
    shape = settings["batch_size"], spec.config.in_channels, size, size
    images = np.random.default_rng(0).random(shape, np.float32)
    if settings["case"] in RUNTIMES:
        logits = _in_a_runtime(settings, spec)
        rounds = Rounds(settings["steps"], settings["warmup"])
        while True:
            logits(images)
            rounds()
    backend = load_backend(settings["backend"])
    if settings["case"] == "framework":
        rival = _rival(settings)
        net = _framework_network(backend, rival, settings)
        if settings["device"] == "gpu":
            rival.use_gpu(net)
        logits = partial(rival.logits, net)
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


def _in_a_runtime(settings: dict[str, Any], spec: DenseNetSpec) -> Callable[[Any], Any]:
    """Return what predicts without the backend. Raises ``AbsentError`` if it is not installed."""
    weights, threads = init_weights(spec), len(settings["cpus"])
    try:
        from . import runtimes

        if settings["case"] == "onnxruntime":
            return runtimes.onnx_runtime(spec, weights, threads)
        bfloat16 = settings["case"].startswith("bfloat16")
        return runtimes.openvino(spec, weights, threads, bfloat16=bfloat16)
    except ImportError as error:
        raise AbsentError(str(error)) from None


def _multiply(settings: dict[str, Any]) -> None:
    """Compute only the network's matrix products: once for inference, three times for training.

    NumPy supports neither bfloat16 nor GPUs, so PyTorch is used for these, if it is installed.
    """
    dtype = "bfloat16" if settings["case"] == "bfloat16 products" else "float32"
    ones: Callable[[int], Any] = partial(np.ones, dtype=np.float32)
    matmul: Callable[..., Any] = np.matmul
    finish: list[Callable[[], object]] = []
    if dtype == "bfloat16" or settings["device"] == "gpu":
        try:
            pytorch: Any = load_rival("torch")
            found = pytorch.multiplication(dtype, settings["device"])
        except (ConfigError, ImportError) as error:
            raise AbsentError(str(error)) from None
        if found is None:
            raise AbsentError("PyTorch sees no GPU")
        ones, matmul, *finish = found
    spec = network(settings["variant"], settings["depth"])
    shapes = list(matrix_products(spec, settings["image_size"], settings["batch_size"]))
    left, right, out = (
        ones(max(map(size, shapes)))
        for size in (lambda s: s[0] * s[1], lambda s: s[1] * s[2], lambda s: s[0] * s[2])
    )
    rounds = Rounds(settings["steps"], settings["warmup"], *finish)
    while True:
        for _ in range(3 if settings["work"] == "training" else 1):
            for m, k, n in shapes:
                a, b = left[: m * k].reshape(m, k), right[: k * n].reshape(k, n)
                matmul(a, b, out=out[: m * n].reshape(m, n))
        rounds()


# --- Shared by the cases ------------------------------------------------------------------------


def _to_train(settings: dict[str, Any]) -> tuple[DenseNetSpec, Pixels, Recipe]:
    """Return the network, enough examples for all rounds, and the recipe."""
    spec = network(settings["variant"], settings["depth"], settings.get("changes", {}))
    pixels, labels = load_sample("train")
    steps = settings["warmup"] + settings["steps"] * settings["rounds"]
    order = np.arange(steps * settings["batch_size"]) % len(labels)
    prepare = Preparation(settings["image_size"], spec.config.in_channels)
    data = Pixels(pixels[order, np.newaxis], labels[order], prepare)
    return spec, data, replace(RECIPES["chapter"], epochs=1, batch_size=settings["batch_size"])


def _rounds(rival: Rival | None, settings: dict[str, Any]) -> Rounds:
    """Return a counter of training steps; on a GPU, it measures the framework's GPU memory."""
    if rival is None:
        return Rounds(settings["steps"], settings["warmup"])
    memory: dict[str, Any] = {}
    if settings["device"] == "gpu":
        memory = {"peak": rival.peak_gpu_memory, "forget": rival.forget_peak_gpu_memory}
    return Rounds(settings["steps"], settings["warmup"], rival.finish, **memory)


def _rival(settings: dict[str, Any]) -> Rival:
    rival = load_rival(settings["backend"])
    if rival is None:
        raise AbsentError(f"{settings['backend']} has no rival implementation")
    return rival


def _framework_network(backend: Backend, rival: Rival, settings: dict[str, Any]) -> Any:
    net = rival.framework_network(settings["variant"], settings["image_size"])
    if net is None:
        raise AbsentError(f"{backend.FRAMEWORK} has no {settings['variant']} of this size here")
    return net


@contextmanager
def _absent_if_refused() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise AbsentError(str(error)) from None


if __name__ == "__main__":
    run_child(measure)
