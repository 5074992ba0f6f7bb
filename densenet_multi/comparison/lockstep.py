"""Train backends from the same weights on the same batches, step by step, and measure how far apart
they come: in float64 from each other, in float32 each from its own float64 run.

``python -m densenet_multi.lockstep FOLDER BACKEND`` reads ``weights.safetensors``, ``images.npy``,
``labels.npy`` and ``recipe.json`` in FOLDER, trains once in each dtype, prints a line after every
step, and writes ``BACKEND.json`` and ``BACKEND-DTYPE.safetensors`` there. ``lockstep`` starts one
such process per backend.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import bad
from .._inputs import check_images, check_labels
from ..backends import Backend, hide_gpus
from ..data import Examples
from ..formats.portable import load_weights, save_weights
from ..manifest import tensors
from ..spec import DenseNetSpec
from ..training.history import Epoch, Step
from ..training.recipe import Recipe
from ..weights import Weights
from .process import in_its_own_process, report_of, write_report
from .report import deviation

DTYPES = ("float64", "float32")
CHUNK = 64  # images that are prepared at once
TOLERANCES = {
    # Rounding, which every step amplifies. Between all four, with d2l, 20 batches of 32 real
    # images of 96x96 and the chapter's recipe: loss 3.3e-11, weights 7.0e-12.
    "float64": 1e-9,
    # MXNet stores BatchNorm's decay as float32, 0.9 as 0.89999998, which reaches only statistics.
    "float64 running means": 1e-6,
    # float32 rounding in one forward pass, amplified by small batch variances: the row "loss
    # float32" of tests/support/tolerances.py. Later steps are not judged: ReLUs flip.
    "float32 first step": 1e-5,
}


@dataclass(frozen=True)
class Trajectory:
    """One run: the loss of each step in nats, and every tensor after the last one."""

    losses: list[float]
    weights: Weights


@dataclass(frozen=True)
class Repeated:
    """As many examples as labels; the images are taken in turn, from the first again at the end."""

    images: npt.NDArray[np.floating[Any]]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        """The images of these examples."""
        taken: npt.NDArray[np.floating[Any]] = self.images[indices % len(self.images)]
        return taken


def lockstep(
    spec: DenseNetSpec,
    weights: Weights,
    data: Examples,
    recipe: Recipe,
    *,
    backends: list[str],
    steps: int,
    step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Every backend's losses over ``steps`` steps in each dtype, and how far the runs deviate.

    All start from ``weights`` as float32 holds them, and take one epoch of the first
    ``steps * recipe.batch_size`` examples of ``data``, counted again from the first where there are
    fewer. ``step`` is called with a line of text as the work goes on (``parts`` times). Returns
    plain data for JSON: ``backends`` maps names to reports, ``float64`` and ``float32`` are those
    of ``merge``. Raises ``ConfigError``, ``ImageError``, ``ImageSizeError``.
    """
    if spec.config.drop_rate:
        allowed = "0 in lockstep, since each framework draws its own dropout"
        raise bad("drop_rate", spec.config.drop_rate, allowed)
    # float64 has no use for bfloat16, and nothing is left to do at the end
    recipe = replace(recipe, epochs=1, bfloat16=False, average=0, recalibrate=0)
    reports: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Trajectory]] = {}
    with tempfile.TemporaryDirectory(prefix="densenet_multi-") as name:
        folder = Path(name)
        start = {n: np.asarray(array, np.float32) for n, array in weights.items()}
        save_weights(folder / "weights.safetensors", spec, start)
        _save_examples(folder, spec, data, steps * recipe.batch_size)
        (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
        for backend in backends:
            step(f"backend {backend}")

            def hear(line: str, backend: str = backend) -> None:
                if line.startswith("step "):  # and not what a framework prints
                    step(f"backend {backend}, {line.removeprefix('step ')}")

            found = in_its_own_process("densenet_multi.comparison.lockstep", backend, folder, hear)
            reports[backend] = found
            if found["status"] == "ok":
                runs[backend] = {
                    dtype: Trajectory(
                        found["losses"][dtype],
                        load_weights(folder / f"{backend}-{dtype}.safetensors")[1],
                    )
                    for dtype in DTYPES
                }
    return {
        "config": json.loads(spec.to_json())["config"],
        "recipe": asdict(recipe),
        "steps": steps,
        "tolerances": TOLERANCES,
        "backends": reports,
        **merge(spec, runs),
    }


def parts(backends: list[str], steps: int) -> int:
    """How often ``lockstep`` will call its ``step`` if every backend runs."""
    return len(backends) * (1 + len(DTYPES) * steps)


def merge(spec: DenseNetSpec, runs: Mapping[str, Mapping[str, Trajectory]]) -> dict[str, Any]:
    """The deviations of finite runs {backend: {dtype: run}}.

    ``float64``: the largest between any two backends (0 for one alone, None for none), and between
    which. ``float32``: {backend: those of its float32 run from its float64 run}. Each has
    ``losses``, the relative deviation of the loss at every step; ``loss``, the largest of them;
    ``weights`` and ``running_means``, those of all such tensors after the last step in L2;
    ``max_relative_deviation``, the larger of loss and weights; and ``same``, the verdict.
    """
    return {
        "float64": _between({name: run["float64"] for name, run in runs.items()}, spec),
        "float32": {name: _own(run, spec) for name, run in runs.items()},
    }


def _between(runs: Mapping[str, Trajectory], spec: DenseNetSpec) -> dict[str, Any]:
    names = list(runs)
    pairs = list(combinations(names, 2)) or [(name, name) for name in names]
    found = {pair: _deviations(runs[pair[1]], runs[pair[0]], spec) for pair in pairs}
    if not found:
        keys = ("max_relative_deviation", "loss", "weights", "running_means")
        return {**dict.fromkeys(keys), "losses": [], "between": [], "same": True}
    largest = {
        key: max(one[key] for one in found.values())
        for key in ("max_relative_deviation", "loss", "weights", "running_means")
    }
    losses = np.max([one["losses"] for one in found.values()], axis=0).tolist()
    worst = max(pairs, key=lambda pair: found[pair]["max_relative_deviation"])
    same = largest["max_relative_deviation"] <= TOLERANCES["float64"]
    same = same and largest["running_means"] <= TOLERANCES["float64 running means"]
    return {**largest, "losses": losses, "between": list(worst), "same": same}


def _own(run: Mapping[str, Trajectory], spec: DenseNetSpec) -> dict[str, Any]:
    found = _deviations(run["float32"], run["float64"], spec)
    first = found["losses"][0]
    return {**found, "first_step": first, "same": first <= TOLERANCES["float32 first step"]}


def _deviations(actual: Trajectory, expected: Trajectory, spec: DenseNetSpec) -> dict[str, Any]:
    losses = [deviation(a, e) for a, e in zip(actual.losses, expected.losses, strict=True)]
    described = tensors(spec)
    trained = [name for name, info in described.items() if info.role == "trainable"]
    means = [name for name, info in described.items() if info.kind == "norm.running_mean"]
    found = {
        "loss": max(losses),
        "weights": _l2(trained, actual.weights, expected.weights),
        "running_means": _l2(means, actual.weights, expected.weights),
    }
    return {
        "max_relative_deviation": max(found["loss"], found["weights"]),
        **found,
        "losses": losses,
    }


def _l2(names: Iterable[str], actual: Weights, expected: Weights) -> float:
    """The L2 norm of the difference of these tensors, all in one, over that of the expected."""
    difference = total = 0.0
    for name in names:
        wanted = expected[name].astype(np.float64)
        difference += float(np.square(actual[name] - wanted).sum())
        total += float(np.square(wanted).sum())
    return float(np.sqrt(difference / max(total, np.finfo(np.float64).tiny)))


def _save_examples(folder: Path, spec: DenseNetSpec, data: Examples, count: int) -> None:
    labels = check_labels(data.labels, len(data), spec.config.num_classes)
    needed = min(count, len(data))
    first = check_images(spec, data.take(np.arange(1)))
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.float32, (needed, *first.shape[1:])
    )
    for start in range(0, needed, CHUNK):
        indices = np.arange(start, min(start + CHUNK, needed))
        images[indices] = data.take(indices)
    images.flush()
    np.save(folder / "labels.npy", labels[np.arange(count) % len(data)])


# --- In the backend's own process ---------------------------------------------------------------


def run(name: str, folder: Path) -> dict[str, Any]:
    """One backend's report: ``losses`` and ``seconds`` of each dtype; see ``_process.report_of``.

    The seconds are those of ``fit``, with the compilation that some frameworks begin with. All
    train on the CPU: on a GPU, float32 may be a narrower type, and not all would find it.
    """
    hide_gpus()
    return report_of(name, lambda backend: _train(backend, folder))


def _train(backend: Backend, folder: Path) -> dict[str, Any]:
    spec, weights = load_weights(folder / "weights.safetensors")
    recipe = Recipe.from_json((folder / "recipe.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    data = Repeated(images, np.load(folder / "labels.npy"))
    losses, seconds = {}, {}
    for dtype in DTYPES:
        say = _Say(dtype)
        model = backend.build(spec, dtype=dtype)
        backend.import_weights(model, {n: array.astype(dtype) for n, array in weights.items()})
        start = time.perf_counter()
        history = backend.fit(model, data, recipe, callbacks=[say])
        seconds[dtype] = time.perf_counter() - start
        losses[dtype] = [step.loss for step in history.steps]
        exported = backend.export_weights(model)
        save_weights(folder / f"{backend.NAME}-{dtype}.safetensors", spec, exported)
    return {"framework": backend.FRAMEWORK, "losses": losses, "seconds": seconds}


@dataclass(frozen=True)
class _Say:
    dtype: str

    def __call__(self, event: Step | Epoch) -> None:
        if isinstance(event, Step):
            print(f"step {self.dtype}, step {event.number}", flush=True)  # noqa: T201  # to hear


if __name__ == "__main__":
    write_report(run)
