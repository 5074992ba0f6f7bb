"""``densenet-multi bench``: compare the backends' speed with that of other implementations, and
measure how much memory memory-efficient training saves, and at what cost in speed.

Every case runs in its own child process (see bench_child.py). The cases of one backend take turns,
one round of steps each, so that background load affects all of them alike. Two cases are compared
within each round.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .._checks import bad, check_names, function, integer, texts
from ..backends import SHARED_GPU, framework_versions
from ..manifest import min_image_size
from .bench_child import CASES, PRODUCTS, network
from .child_process import Child, Message, started
from .machine import cpus, gpu, processor

WARMUP = 2  # steps; the first one includes compilation
USUAL = {  # work -> its network, pixels per side, images per step
    "training": ("d2l", 96, 64),
    "inference": ("densenet121", 224, 8),
    "memory": ("densenet_bc100_k12", 32, 64),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# With these, glibc returns every freed array to the OS, so a process holds only memory in use.
# Huge pages make up for the time that this takes.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def bench(
    *,
    backends: list[str],
    work: str = "training",
    variant: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    depth: int | None = None,
    rounds: int = 5,
    steps: int = 2,
    threads: int | None = None,
    device: str = "cpu",
    step: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure the images per second of each case (``CASES`` in bench_child.py) in each backend.

    Arguments:
        backends: names of backends, measured one after the other.
        work: "training": ``fit`` in float32 and, if the processor supports it, in bfloat16. A plain
            loop, as a beginner would write it, trains a beginner's network, the backend's model and
            the framework's own DenseNet (Flax has none: a beginner's network replaces it). Case
            "feeding" only prepares the batches for ``fit``. Case "products" computes only the
            network's matrix products, in NumPy (in PyTorch for bfloat16 or a GPU).
            "inference": ``predict`` with ``optimize(model)``, with the model as built, with
            ``optimize(model, bfloat16=True)``, with the framework's own DenseNet; ONNX Runtime and
            OpenVINO with the ONNX graph of this network, where installed; and the products.
            "memory": ``fit`` with ``build(spec, memory_efficient="some")``, with ``"max"``, and
            with the model as built (in Gluon, static allocation is turned off to save memory). On a
            CPU, environment variables (``EXACT``) make memory measurable.
        variant: the network. A beginner's network exists only for "d2l", a framework's own only for
            "densenet121" and the like. None selects the default for ``work`` (``USUAL``).
        image_size: pixels per side; None selects the default.
        batch_size: images per step, at least 2 for training; None selects the default.
        depth: depth (L) of the paper's DenseNet-BC with k = 12; for "memory" without a variant.
        rounds: how many rounds each case runs.
        steps: steps per round.
        threads: how many CPUs each process may use; None is all that this process may use.
        device: "cpu", or "gpu" (an error if none is found). On a GPU, the GPU's memory is measured
            (in Flax, its peak since the start, including compilation), and products are computed
            in TF32, like the frameworks' convolutions.
        step: called with a line of text before each round, at most ``progress_steps`` times.

    Returns JSON-serializable data. Its ``backends`` maps names to {``versions``, ``status``, and,
    if the framework is installed, ``cases``: {name: see ``summary_of``}}. Every case but the first
    has ``ratio``: the first case's images per second divided by this case's (the median over the
    rounds). With work="memory", it also has ``memory_ratio``: the first case's ``grown_bytes``
    divided by this case's. ``share`` is a case's images per second divided by those of the products
    in its precision, if measured. If a case ended early, ``status`` is "failed"; ``failed`` maps
    such cases to the reasons. If ``status`` is not "ok", ``error`` summarizes the reasons.
    Raises ``ConfigError``.
    """
    backends, step = texts("backends", backends), function("step", step)
    usable = cpus(threads)
    check_names("work", [work], CASES)
    check_names("device", [device], ("cpu", "gpu"))
    usual = USUAL[work]
    given, variant = variant, usual[0] if variant is None else variant
    if depth is not None and work != "memory":
        raise bad("depth", depth, f"none with {work=}, since it is for work='memory'")
    if depth is not None and given is not None:
        raise bad("depth", depth, f"none with variant={given!r}")
    spec = network(variant, depth)
    size = usual[1] if image_size is None else image_size
    size = integer("image_size", size, min_image_size(spec))
    count = usual[2] if batch_size is None else batch_size
    settings: dict[str, Any] = {
        "work": work,
        "variant": variant if depth is None else None,
        "depth": depth,
        "image_size": size,
        "batch_size": integer("batch_size", count, 1 if work == "inference" else 2),
        "rounds": integer("rounds", rounds, 1),
        "steps": integer("steps", steps, 1),
        "warmup": WARMUP,
        "cpus": usable,
        "device": device,
    }
    reports = {}
    for name in backends:
        reports[name] = {
            "versions": framework_versions(name),
            **_turns({**settings, "backend": name}, step),
        }
    return {
        **settings,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        **({"gpu": gpu()} if device == "gpu" else {}),
        "backends": reports,
    }


def progress_steps(backends: list[str], work: str, rounds: int) -> int:
    """Return the maximum number of ``step`` calls, reached if every backend has every case."""
    return len(backends) * len(CASES[work]) * (1 + rounds)


def summary_of(warmup: dict[str, Any], rounds: list[dict[str, Any]], size: int) -> dict[str, Any]:
    """Summarize the measurements of one case.

    Arguments:
        warmup: the case's first message: the ``seconds`` of each step and ``peak_memory_bytes``.
        rounds: such a message for each round, with ``grown_bytes``: the peak minus the memory that
            was in use before the first step.
        size: images per step.

    Returns ``images_per_second`` (the median over the rounds), ``lowest``, ``highest``, ``rounds``
    (the images per second of every round), ``first_step_seconds`` (including tracing and
    compilation), ``peak_memory_bytes`` and ``grown_bytes`` (the largest of any round).
    """
    speeds = [size * len(r["seconds"]) / sum(r["seconds"]) for r in rounds]
    return {
        "images_per_second": median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "rounds": speeds,
        "first_step_seconds": warmup["seconds"][0],
        "peak_memory_bytes": max(r["peak_memory_bytes"] for r in rounds),
        "grown_bytes": max(r["grown_bytes"] for r in rounds),
    }


@dataclass
class Turns:
    """What the cases of one backend have sent.

    Attributes:
        received: {case: its warm-up's message, then a message for each round}, without ``failed``.
        failed, absent: {case: why}: it ended early, or it does not exist here.
        message: the report that ended all cases, if the backend cannot run any.
    """

    received: dict[str, list[Message]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    message: Message | None = None


def take_turns(cases: Mapping[str, dict[str, Any]], step: Callable[[str], object]) -> Turns:
    """Run one backend's cases round by round, in reverse order in every other round.

    A case that ends early, perhaps for lack of memory, does not affect the other cases. All of them
    hold their networks until the last round: see ``run_alone``.

    Arguments:
        cases: {name: the settings of its child}, all with the same number of ``rounds``.
        step: called with a line of text before each round.
    """
    children, found = dict[str, Child](), Turns()
    received = found.received
    with ExitStack() as stack:
        for case, settings in cases.items():
            step(f"{settings['backend']}, {case}: warming up")
            children[case] = stack.enter_context(_started(settings))
            message = children[case].receive()
            status = message.get("status")
            if status == "not installed" or message.pop("for_all", False):
                return Turns(message=message)
            if status == "failed":
                found.failed[case] = message["error"]
            elif status is None:
                received[case] = [message]
            else:
                found.absent[case] = message["absent"]
        for number in range(max(settings["rounds"] for settings in cases.values())):
            for case in list(received)[:: 1 if number % 2 else -1]:
                step(f"{cases[case]['backend']}, {case}: round {number + 1}")
                children[case].proceed()
                message = children[case].receive()
                if "status" in message:
                    found.failed[case] = message["error"]
                    del received[case]
                else:
                    received[case].append(message)
    return found


def run_alone(cases: Mapping[str, dict[str, Any]], step: Callable[[str], object]) -> Turns:
    """Run one backend's cases one after the other, so that each has the whole memory.

    Arguments and result are those of ``take_turns``.
    """
    found = Turns()
    for case, settings in cases.items():
        alone = take_turns({case: settings}, step)
        if alone.message is not None:
            return alone
        found.received |= alone.received
        found.failed |= alone.failed
        found.absent |= alone.absent
    return found


def _turns(settings: dict[str, Any], step: Callable[[str], object]) -> dict[str, Any]:
    """Run one backend's cases of a work, and return its report."""
    found = take_turns({c: {**settings, "case": c} for c in CASES[settings["work"]]}, step)
    if found.message is not None:
        return found.message
    cases, failed = _compared(settings, found.received), found.failed
    if not failed:
        return {"status": "ok", "cases": cases}
    same = {why: [case for case in failed if failed[case] == why] for why in failed.values()}
    whole = "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
    return {"status": "failed", "error": whole, "cases": cases, "failed": failed}


def _compared(settings: dict[str, Any], received: dict[str, list[Any]]) -> dict[str, Any]:
    """Summarize the completed cases, and compare each of them with the first case."""
    size = settings["batch_size"]
    cases = {case: summary_of(first, rest, size) for case, (first, *rest) in received.items()}
    ours = CASES[settings["work"]][0]
    for case in cases.keys() - {ours} if ours in cases else ():
        cases[case]["ratio"] = _ratio(cases[ours], cases[case])
        if settings["work"] == "memory":
            grown = max(1, cases[case]["grown_bytes"])
            cases[case]["memory_ratio"] = cases[ours]["grown_bytes"] / grown
    for case in cases.keys() - {"feeding", *PRODUCTS}:
        products = cases.get("bfloat16 products" if case.startswith("bfloat16") else "products")
        if products is not None:
            cases[case]["share"] = _ratio(cases[case], products)
    return cases


def _ratio(case: dict[str, Any], other: dict[str, Any]) -> float:
    pairs = zip(case["rounds"], other["rounds"], strict=True)
    return float(median(a / b for a, b in pairs))


def _started(settings: dict[str, Any]) -> AbstractContextManager[Child]:
    count = str(len(settings["cpus"]))
    environment = dict.fromkeys(THREADS, count)
    if settings["device"] == "gpu":
        environment |= SHARED_GPU
    elif settings["work"] == "memory" and settings.get("exact", True):
        environment |= EXACT
    return started(f"{__package__}.bench_child", settings, environment)
