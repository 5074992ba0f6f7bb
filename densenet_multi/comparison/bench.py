"""``densenet-multi bench``: how fast backends train and predict, beside other ways to do it, and
what memory-efficient training costs and saves.

Every case is a child process of its own (see bench_child.py). The cases of one backend take turns,
one round of steps each, so that background load affects all of them alike; what is compared is the
ratio within a round.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from statistics import median
from typing import Any

from .._checks import bad, check_names, function, integer, texts
from ..backends import SHARED_GPU, framework_versions
from ..manifest import min_image_size
from .bench_child import CASES, PRODUCTS, network
from .child_process import Child, Message, started
from .machine import cpus, gpu, processor

WARMUP = 2  # steps; the first one compiles
USUAL = {  # work -> its network, pixels per side, images per step
    "training": ("d2l", 96, 64),
    "inference": ("densenet121", 224, 8),
    "memory": ("densenet_bc100_k12", 32, 64),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# With these, glibc returns an array to the OS when it is freed, so a process holds what is in use.
# Large pages make up for the time that this takes.
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
    """Images per second of each case (see ``CASES`` of bench_child.py), in each backend.

    Arguments:
        backends: which ones; they are measured one after the other.
        work: "training": ``fit``, in float32 and, where the processor has it, in bfloat16. Beside
            it, in a plain loop as a beginner would write it: a beginner's network, the backend's
            model, and the framework's own DenseNet (Flax has none; there, a beginner's). "feeding"
            makes the batches that ``fit`` takes and does nothing with them. "products" are the
            network's matrix products alone, in NumPy (bfloat16, or on a GPU: PyTorch).
            "inference": ``predict`` with ``optimize(model)``, with the model as it is, in bfloat16,
            with the framework's own DenseNet; and the products.
            "memory": ``fit`` with ``build(spec, memory_efficient="some")``, with ``"max"``, and
            with the model as it is (in Gluon without static allocation, which takes less memory),
            in an environment (``EXACT``) that makes memory measurable.
        variant: the network; a beginner's is "d2l", the frameworks' own are "densenet121" and its
            like. None, here as in what follows, is the usual one (``USUAL``).
        image_size: pixels per side.
        batch_size: images per step; at least 2 to train.
        depth: for memory, in place of a variant: the depth (L) of the paper's DenseNet-BC, k = 12.
        rounds: how often the cases of a backend take turns.
        steps: in each round.
        threads: CPUs that a process may use; None is all that this one may.
        device: "cpu", or "gpu", which must be there. On a GPU, memory is the GPU's (in Flax, its
            peak since the start, including compilation), and products are in TF32, as the
            frameworks' convolutions are.
        step: called with a line of text before each of at most ``progress_steps`` steps.

    Returns plain data for JSON; its ``backends`` maps names to {``versions``, ``status``, and,
    where the framework is installed, ``cases``: {name: see ``summary_of``}}. Every case but the
    first has ``ratio``: the first one's images per second over this one's, median over the rounds;
    for memory, also ``memory_ratio``: the first one's ``grown_bytes`` over this one's. Where the
    products were measured in a case's precision, it has ``share``: its images per second over
    theirs. Where cases ended too early, ``status`` is "failed", and ``failed`` maps their names to
    the reasons; then, and where it is "not installed", ``error`` is a summary.
    Raises ``ConfigError``.
    """
    backends, step = texts("backends", backends), function("step", step)
    usable = cpus(threads)
    check_names("work", [work], CASES)
    check_names("device", [device], ("cpu", "gpu"))
    usual = USUAL[work]
    given, variant = variant, usual[0] if variant is None else variant
    if depth is not None and work != "memory":
        raise bad("depth", depth, f"none for {work}; it goes with work 'memory'")
    if depth is not None and given is not None:
        raise bad("depth", depth, f"none beside variant {given!r}")
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
    """How often ``bench`` calls its ``step`` at most: if every backend has every case."""
    return len(backends) * len(CASES[work]) * (1 + rounds)


def summary_of(warmup: dict[str, Any], rounds: list[dict[str, Any]], size: int) -> dict[str, Any]:
    """What is reported of one case.

    Arguments:
        warmup: its process's first message: ``seconds`` of each step, ``peak_memory_bytes``.
        rounds: the same of each round, and ``grown_bytes``, by how much that peak is above what
            the process held before the first step.
        size: images per step.

    Returns ``images_per_second`` (median of the rounds), ``lowest``, ``highest``, ``rounds`` (of
    each), ``first_step_seconds`` (tracing and compilation are in it), ``peak_memory_bytes``,
    ``grown_bytes``.
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


def _turns(settings: dict[str, Any], step: Callable[[str], object]) -> dict[str, Any]:
    """One backend's cases, round by round, in reverse order in every other one.

    A case that ends too early, for lack of memory perhaps, does not affect the others.
    """
    children, heard, failed = dict[str, Child](), dict[str, list[Message]](), dict[str, str]()
    with ExitStack() as stack:
        for case in CASES[settings["work"]]:
            step(f"{settings['backend']}, {case}: warming up")
            children[case] = stack.enter_context(_started({**settings, "case": case}))
            message = children[case].hear()
            status = message.get("status")
            if status == "not installed":
                return message
            if status == "failed":
                failed[case] = message["error"]
            elif status is None:  # "ok": there is no such case here
                heard[case] = [message]
        for number in range(settings["rounds"]):
            for case in list(heard)[:: 1 if number % 2 else -1]:
                step(f"{settings['backend']}, {case}: round {number + 1}")
                children[case].go_on()
                message = children[case].hear()
                if "status" in message:
                    failed[case] = message["error"]
                    del heard[case]
                else:
                    heard[case].append(message)
    cases = _compared(settings, heard)
    if not failed:
        return {"status": "ok", "cases": cases}
    same = {why: [case for case in failed if failed[case] == why] for why in failed.values()}
    whole = "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
    return {"status": "failed", "error": whole, "cases": cases, "failed": failed}


def _compared(settings: dict[str, Any], heard: dict[str, list[Any]]) -> dict[str, Any]:
    """The summaries of the cases that were measured to the end, each compared with the first."""
    size = settings["batch_size"]
    cases = {case: summary_of(first, rest, size) for case, (first, *rest) in heard.items()}
    ours = CASES[settings["work"]][0]
    for case in cases.keys() - {ours} if ours in cases else ():
        cases[case]["ratio"] = _ratio(cases[ours], cases[case])
        if settings["work"] == "memory":
            grown = max(1, cases[case]["grown_bytes"])
            cases[case]["memory_ratio"] = cases[ours]["grown_bytes"] / grown
    for case in cases.keys() - {"feeding", *PRODUCTS}:
        products = cases.get("bfloat16 products" if case == "bfloat16" else "products")
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
    elif settings["work"] == "memory":
        environment |= EXACT
    return started(f"{__package__}.bench_child", settings, environment)
