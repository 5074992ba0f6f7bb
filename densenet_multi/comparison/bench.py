"""``densenet-multi bench``: how fast each backend trains and predicts, and other code beside it;
what memory-efficient training costs and saves.

Every case is a process of its own. Those of one backend take turns, one round of steps each, so
that what else a machine does meets all of them; what is compared is the ratio within a round.
``products`` are the network's matrix products alone, in NumPy (in bfloat16, or on a GPU, PyTorch).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import IO, Any

from .._checks import bad, check_names, integer
from ..backends import BackendNotInstalledError, framework_versions
from ..manifest import min_image_size
from .bench_case import CASES, MARK, PRODUCTS, network
from .process import ending, last_lines, started

WARMUP = 2  # steps; the first one compiles
USUAL = {  # work -> its network, pixels per side, images per step
    "training": ("d2l", 96, 64),
    "inference": ("densenet121", 224, 8),
    "memory": ("densenet_bc100_k12", 32, 64),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# glibc then gives an array back when it is freed: a process holds what is in use. Large pages
# make up for the time that takes.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# JAX and TensorFlow each take most of a GPU's memory for themselves unless they are told not to
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class CaseError(RuntimeError):
    """A case's process has ended too early; the message has its last line."""


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
    """Images per second of each case (see ``CASES`` of bench_case.py), in each backend.

    Arguments:
        backends: which; one after the other.
        work: "training": ``fit``, in float32 and in bfloat16 where the processor has it, and in a
            loop as a framework's beginners write it: the chapter's own network, the model as it
            is, the framework's own DenseNet (Flax has none; there, one in plain NNX); and
            "feeding", which makes the batches that ``fit`` takes and does nothing with them;
            "inference": ``predict`` with ``optimize(model)``, with the model as it is, in bfloat16,
            and the framework's own DenseNet;
            "memory": ``fit`` with ``build(spec, memory_efficient=True)``, with ``"max"``, and with
            the model as it is (in Gluon not allocated statically, which takes less), in an
            environment (``EXACT``) in which memory can be told.
        variant: the network; the chapter's is "d2l", a framework's own are "densenet121" and its
            like. None, as in what follows, is the usual one (``USUAL``).
        image_size: pixels per side.
        batch_size: images per step; to train, from 2.
        depth: for memory, in place of a variant: the depth (L) of the paper's DenseNet-BC, k = 12.
        rounds: how often the cases of a backend take turns.
        steps: in each round.
        threads: CPUs that a process may use; None is all that this one may.
        device: "cpu", or "gpu", which must be there; memory is then the GPU's (in Flax
            since the start, compilation and all), and the products are PyTorch's (float32 ones in
            TF32, as the frameworks' convolutions are).
        step: called with a line of text before each part of the work (``parts`` of them).

    Returns plain data for JSON; its ``backends`` maps names to {``status``, ``versions``, and,
    where the framework is installed, ``cases``: {name: see ``summary_of``, and, but for the first,
    ``ratio``: the first one's images per second over this one's, median over the rounds; where the
    products were measured in the same precision, ``share``: this one's images per second over
    theirs; for memory, ``memory_ratio``: the first one's ``grown_bytes`` over this one's}}. Where
    cases ended too early, ``status`` is "failed", and ``failed`` maps their names to why; then, or
    where it is "not installed", ``error`` says it in a line.
    Raises ``ConfigError``.
    """
    cpus = _cpus(threads)
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
        "cpus": cpus,
        "device": device,
    }
    reports = {}
    for backend in backends:
        reports[backend] = {
            "versions": framework_versions(backend),
            **_turns({**settings, "backend": backend}, step),
        }
    return {
        **settings,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        **({"gpu": _gpu()} if device == "gpu" else {}),
        "backends": reports,
    }


def parts(backends: list[str], work: str, rounds: int) -> int:
    """How often ``bench`` will call its ``step``, at most."""
    return len(backends) * len(CASES[work]) * (1 + rounds)


def summary_of(warmup: dict[str, Any], rounds: list[dict[str, Any]], size: int) -> dict[str, Any]:
    """What is reported of one case.

    Arguments:
        warmup: what its process printed at first: ``seconds`` of each step, ``peak_memory_bytes``.
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
    """One backend's cases, round by round, in turned order in every other one.

    A case that ends too early, for want of memory perhaps, leaves the others as they are.
    """
    processes, heard, failed = dict[str, Any](), dict[str, list[Any]](), dict[str, str]()
    with ExitStack() as stack:
        for case in CASES[settings["work"]]:
            step(f"{settings['backend']}, {case}: warming up")
            processes[case] = stack.enter_context(_started({**settings, "case": case}))
            try:
                answer = _answer(*processes[case])
            except CaseError as error:
                _, missing, text = str(error).partition(f"{BackendNotInstalledError.__name__}: ")
                if missing:
                    return {"status": "not installed", "error": text}
                failed[case] = str(error)
            else:
                if "absent" not in answer:
                    heard[case] = [answer]
        for number in range(settings["rounds"]):
            for case in list(heard)[:: 1 if number % 2 else -1]:
                step(f"{settings['backend']}, {case}: round {number + 1}")
                try:
                    heard[case].append(_answer(*processes[case], go=True))
                except CaseError as error:
                    failed[case] = str(error)
                    del heard[case]
    cases = _compared(settings, heard)
    if not failed:
        return {"status": "ok", "cases": cases}
    same = {why: [case for case in failed if failed[case] == why] for why in failed.values()}
    whole = "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
    return {"status": "failed", "error": whole, "cases": cases, "failed": failed}


def _compared(settings: dict[str, Any], heard: dict[str, list[Any]]) -> dict[str, Any]:
    """What is reported of the cases that came to an end, each beside the first."""
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


def _started(settings: dict[str, Any]) -> AbstractContextManager[Any]:
    count = str(len(settings["cpus"]))
    environment = dict.fromkeys(THREADS, count)
    if settings["device"] == "gpu":
        environment |= SHARED
    elif settings["work"] == "memory":
        environment |= EXACT
    return started(
        "densenet_multi.comparison.bench_case",
        json.dumps(settings),
        stdin=subprocess.PIPE,
        environment=environment,
    )


def _answer(process: Any, errors: IO[str], *, go: bool = False) -> Any:
    """The next line of JSON that a case prints, after it was told to go on."""
    with suppress(BrokenPipeError):
        if go:
            process.stdin.write("go\n")
            process.stdin.flush()
        for line in process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
    with suppress(BrokenPipeError):
        process.stdin.close()  # what could not be written is still there
    process.wait()
    # killed, a process says nothing of it: what it said last was about something else
    last = last_lines(errors, 1) if process.returncode > 0 else ""
    raise CaseError(f"its process ended with {ending(process)}" + (last and f": {last}"))


def _cpus(threads: int | None) -> list[int]:
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    usable = usable or list(range(os.cpu_count() or 1))
    count = len(usable) if threads is None else integer("threads", threads, 1)
    return usable[:count]


def _processor() -> str:
    lines = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu() -> str:
    """The names of NVIDIA's GPUs, as their driver's own tool says."""
    with suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            return ", ".join(found.stdout.splitlines())
    return "a GPU"
