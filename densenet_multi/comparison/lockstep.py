"""``densenet-multi lockstep``: train backends from the same weights on the same batches.

Each backend trains in its own child process (see lockstep_child.py), in float64 and in float32.
Step by step, the float64 runs are compared with each other, and each float32 run with the same
backend's float64 run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import bad, function, instance, integer, texts
from .._inputs import check_images, check_labels
from ..data import Examples
from ..data.examples import check_examples
from ..formats.portable import load_weights, save_weights
from ..manifest import tensors
from ..spec import DenseNetSpec, check_spec
from ..training.recipe import Recipe
from ..weights import Weights, check_weights
from .child_process import Message, report_of
from .deviation import deviation
from .lockstep_child import DTYPES

MOST_STEPS = 100_000
CHUNK = 64  # images prepared at a time
TOLERANCES = {
    # Rounding error, which every step amplifies. Measured between all four backends: loss 3.3e-11,
    # weights 7.0e-12 (d2l, 20 batches of 32 real 96x96 images, the chapter's recipe).
    "float64": 1e-9,
    # MXNet rounds BatchNorm's decay to float32, 0.89999998. Only running statistics are affected.
    "float64 running means": 1e-6,
    # float32 rounding in one forward pass, amplified by small batch variances: the row "loss
    # float32" of tests/support/tolerances.py. No later step is checked: rounding flips ReLUs.
    "float32 first step": 1e-5,
}


@dataclass(frozen=True)
class Trajectory:
    """The result of one run: the loss of each step in nats, and all tensors after the last step."""

    losses: list[float]
    weights: Weights


def lockstep(
    spec: DenseNetSpec,
    weights: Weights,
    data: Examples,
    recipe: Recipe,
    *,
    backends: list[str],
    steps: int,
    step: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Train each backend for ``steps`` steps in each dtype, and measure how far the runs deviate.

    All runs start from ``weights``, rounded to float32. They train for one epoch on the first
    ``steps * recipe.batch_size`` examples of ``data`` (repeated if there are fewer), for at most
    100,000 steps. ``step`` is called with a line of text before each backend and after each step.
    Returns JSON-serializable data: ``backends``, {name: report of lockstep_child.py}, the settings,
    and the result of ``merge``. If the float64 runs differ, each report has a ``suspect``: the
    convention that this backend breaks, or "". Raises ``ConfigError``, ``ImageError``,
    ``ImageSizeError``.
    """
    check_examples("data", data)
    instance("recipe", recipe, Recipe, "a Recipe, such as Recipe(batch_size=32)")
    steps = integer("steps", steps, 1, MOST_STEPS)
    backends, step = texts("backends", backends), function("step", step)
    if check_spec(spec).config.drop_rate:
        allowed = "0 in lockstep, since each framework draws its own dropout masks"
        raise bad("drop_rate", spec.config.drop_rate, allowed)
    # float64 excludes bfloat16; the weights are compared as they are after the last step
    recipe = replace(recipe, epochs=1, bfloat16=False, average=0, recalibrate=0)
    reports: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Trajectory]] = {}
    with tempfile.TemporaryDirectory(prefix="densenet_multi-") as temporary:
        folder = Path(temporary)
        start = {n: a.astype(np.float32) for n, a in check_weights(spec, weights).items()}
        save_weights(folder / "weights.safetensors", spec, start)
        _save_examples(folder, spec, data, steps * recipe.batch_size)
        (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
        for name in backends:
            step(f"backend {name}")
            found = report_of(
                f"{__package__}.lockstep_child",
                {"backend": name, "folder": str(folder)},
                partial(_hear, step, name),
            )
            reports[name] = found
            if found["status"] == "ok":
                runs[name] = {
                    dtype: Trajectory(
                        found["losses"][dtype],
                        load_weights(folder / f"{name}-{dtype}.safetensors")[1],
                    )
                    for dtype in DTYPES
                }
        merged = merge(spec, runs)
        if not merged["float64"]["same"]:
            for name in runs:
                asked = {"backend": name, "folder": str(folder), "suspect": True}
                reports[name]["suspect"] = report_of(f"{__package__}.lockstep_child", asked).get(
                    "suspect"
                )
    return {
        "config": json.loads(spec.to_json())["config"],
        "recipe": asdict(recipe),
        "steps": steps,
        "tolerances": TOLERANCES,
        "backends": reports,
        **merged,
    }


def progress_steps(backends: list[str], steps: int) -> int:
    """Return the number of times that ``lockstep`` calls ``step`` if every backend runs."""
    return len(backends) * (1 + len(DTYPES) * steps)


def merge(spec: DenseNetSpec, runs: Mapping[str, Mapping[str, Trajectory]]) -> dict[str, Any]:
    """Compute how far the runs {backend: {dtype: run}} deviate; all their values must be finite.

    ``float64`` has the largest deviations between any two backends (0 if one ran, None if none);
    ``between`` names the two. ``float32`` maps each backend to the deviations of its float32 run
    from its float64 run. The keys of both: ``losses``, the relative deviation of every step's loss;
    ``loss``, the largest of ``losses``; ``weights`` and ``running_means``, these tensors' relative
    L2 deviation after the last step; ``max_relative_deviation``, the larger of ``loss`` and
    ``weights``; and ``same``, the verdict by ``TOLERANCES``.
    """
    return {
        "float64": _between({name: run["float64"] for name, run in runs.items()}, spec),
        "float32": {name: _own(run, spec) for name, run in runs.items()},
    }


def _hear(step: Callable[[str], object], name: str, message: Message) -> None:
    step(f"backend {name}, {message['dtype']}, step {message['step']}")


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
    """Return the L2 norm of all differences, relative to that of all expected values."""
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
