"""Exercise 1: the average or the maximum in a transition, trained in pairs and looked into.

Both networks of a pair start from the same weights and see the same batches; only the transitions'
pooling differs. Three questions are asked of them: how accurate are they, how many of the inputs of
a pooling window receive a gradient, and how much of a map survives the pooling?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..backends import Backend, load_backend
from ..comparison.machine import gpu
from ..data import load_data
from ..data.sources import DataSet
from ..drawing.svg import (
    INPUT,
    MARGIN,
    NEW,
    QUIET,
    WIDTH,
    Figure,
    document,
    element,
    path,
    rect,
    text,
)
from ..drawing.svg import number as coordinate
from ..reference import Array, average_pool, before_pooling, max_pool
from ..spec import DenseNetSpec, PoolSpec, TransitionSpec
from ..training.recipe import RECIPES, Recipe
from ..variants import get_spec
from ._exercise import Exercise, Result, Settings, Table, chosen_backend, header
from ._interval import interval, spread

POOLS = {"avg": average_pool, "max": max_pool}
WORDS = {"avg": "average", "max": "maximum"}
SEEDS, FULL_SEEDS = 3, 5
EPOCHS = {  # data -> passes over its training images, in the short and in the long version
    "fashion-mnist": (2, 6),
    "sample": (20, 40),
}
LOOKED_AT = 1000  # test images, for gradients and energy
AT_ONCE = 100  # of them
STEP = 1e-6  # of a difference quotient, in standard deviations of the map


def measure(settings: Settings) -> Result:
    """Train pairs of networks, and inspect the transitions of each.

    Trains on a GPU if the framework sees one; the result's ``device`` states which it was.

    Raises ``BackendNotInstalledError`` and the errors of ``load_data``.
    """
    name = chosen_backend(settings)
    backend = load_backend(name)
    recipe = _recipe(settings)
    data = load_data(settings.data, image_size=recipe.image_size)
    default = FULL_SEEDS if settings.full else SEEDS
    looked_at = min(LOOKED_AT, len(data.test))
    runs = [
        _run(backend, replace(recipe, seed=seed), pool, data, looked_at)
        for seed in range(default if settings.seeds is None else settings.seeds)
        for pool in POOLS
    ]
    device = runs[0]["device"]
    given = asdict(recipe)
    del given["seed"]  # each run has its own
    return {
        **header("pooling", settings, [name]),
        "backend": name,
        "device": device,
        **({"gpu": gpu()} if device == "gpu" else {}),
        "data": settings.data,
        "recipe": given,
        "train_examples": len(data.train),
        "test_examples": len(data.test),
        "looked_at": looked_at,
        "runs": runs,
        **summary(runs),
    }


def summary(runs: list[dict[str, Any]]) -> Result:
    """Summarize the runs: accuracies, their paired difference, and each transition's means.

    ``difference`` is that of the accuracies, average minus maximum, of the runs with equal seeds.
    """
    of = {pool: [run for run in runs if run["pool"] == pool] for pool in POOLS}
    pairs = zip(of["avg"], of["max"], strict=True)
    transitions = {}
    for name in runs[0]["transitions"]:
        found = {pool: [run["transitions"][name] for run in of[pool]] for pool in POOLS}
        transitions[name] = {
            pool: {key: spread([each[key] for each in found[pool]]) for key in found[pool][0]}
            for pool in POOLS
        }
    return {
        "accuracy": {pool: spread([run["accuracy"] for run in of[pool]]) for pool in POOLS},
        "difference": interval([a["accuracy"] - b["accuracy"] for a, b in pairs]),
        "transitions": transitions,
    }


def _recipe(settings: Settings) -> Recipe:
    epochs = EPOCHS[settings.data][settings.full]
    return replace(RECIPES["modern"], variant="d2l", image_size=32, epochs=epochs)


def _run(
    backend: Backend, recipe: Recipe, pool: str, data: DataSet, looked_at: int
) -> dict[str, Any]:
    """Train one network of a pair, and inspect it on the first ``looked_at`` test images."""
    classes = len(data.class_names)
    channels = data.test.take(np.arange(1)).shape[1]
    spec = get_spec(recipe.variant, in_channels=channels, num_classes=classes, transition_pool=pool)
    model = backend.build(spec, seed=recipe.seed)
    device = "gpu" if backend.use_gpu(model) else "cpu"
    epochs = backend.fit(model, data.train, recipe, validation=data.test).epochs
    return {
        "pool": pool,
        "seed": recipe.seed,
        "device": device,
        "accuracy": epochs[-1].validation_accuracy,
        "loss": epochs[-1].validation_loss,
        "accuracies": [epoch.validation_accuracy for epoch in epochs],
        "seconds": sum(epoch.seconds for epoch in epochs),
        "transitions": inspect_transitions(backend, model, data.test.take, looked_at),
    }


# --- Inside a network ---------------------------------------------------------------------------


def inspect_transitions(backend: Backend, model: Any, take: Any, count: int) -> dict[str, Any]:
    """Measure what each transition's pooling does to the maps of a trained network.

    Arguments:
        backend: the module (a ``Backend``) that built the model.
        model: the native model.
        take: a function that returns the test images at some indices.
        count: how many images, from the first.

    Returns {transition: {"receivers", "share", "ties", "energy_avg", "energy_max"}}: see
    ``gradient_of`` (of the network's own pooling) and ``energy_kept`` (of both).
    """
    spec: DenseNetSpec = model.spec
    weights = backend.export_weights(model)
    read: dict[str, list[Array]] = {t.name: [] for t, _ in _transitions(spec)}
    for start in range(0, count, AT_ONCE):
        images = take(np.arange(start, min(start + AT_ONCE, count)))
        stages = backend.features(model, images)
        for transition, block in _transitions(spec):
            read[transition.name].append(before_pooling(transition, weights, stages[block]))
    found = {}
    for transition, _ in _transitions(spec):
        maps = np.concatenate(read.pop(transition.name))
        found[transition.name] = gradient_of(transition.pool_kind, transition.pool, maps) | {
            f"energy_{kind}": energy_kept(kind, transition.pool, maps) for kind in POOLS
        }
    return found


def _transitions(spec: DenseNetSpec) -> Iterator[tuple[TransitionSpec, str]]:
    """Yield each transition, and the name of the block before it."""
    for block, transition in spec.stages:
        if transition:
            yield transition, block.name


def gradient_of(kind: str, pool: PoolSpec, maps: Array) -> dict[str, float]:
    """Measure which inputs of a pooling window receive a gradient, on maps (N, C, H, W).

    The pooled map's derivative is a difference quotient, which is exact here: both poolings are
    linear in between the points where two inputs of a window are equal.

    Returns means over all windows: ``receivers``, the number of inputs that receive a gradient;
    ``share``, the derivative of a receiver; ``ties``, the fraction of windows whose maximum occurs
    more than once. There, the quotient is not 0 for each of the equal inputs, but all four
    frameworks give the gradient to one of them, so one is counted.
    """
    step = STEP * float(maps.std()) or STEP
    k, size = pool.kernel_size, pool.stride
    slopes = []
    for i in range(k):
        for j in range(k):  # the windows do not overlap: move this input of all of them at once
            moved = np.zeros_like(maps)
            moved[:, :, i::size, j::size] = step
            up, down = (POOLS[kind](pool, maps + sign * moved) for sign in (1, -1))
            slopes.append((up - down) / (2 * step))
    found = np.stack(slopes)  # (k * k, N, C, H', W')
    receives = np.abs(found) > 1e-3
    ties = 0.0
    if kind == "max":
        tied = receives.sum(axis=0) > 1
        ties = float(tied.mean())
        receives &= receives.cumsum(axis=0) == 1  # the first of equal inputs
        found = np.where(tied, receives, found)
    return {
        "receivers": float(receives.sum(axis=0).mean()),
        "share": float(found[receives].mean()),
        "ties": ties,
    }


def energy_kept(kind: str, pool: PoolSpec, maps: Array) -> float:
    """Return how much of the energy of maps (N, C, H, W) can be read linearly from the pooled maps.

    Energy is the variance of each channel over images and pixels, added up over the channels. Each
    pixel is predicted from its window's pooled value by the best line for its channel; what the
    lines predict is kept. For the average, this is the variance of the windows' means. No other
    number per window keeps more, so on the same map the maximum cannot keep more than the average:
    this is a theorem about least squares. Only how much less it keeps is a measurement.

    Energy rather than rank: pooling acts on each channel alone, so what it can lose is detail
    within a window. The rank of the matrix of channels does not see that.
    """
    k, size = pool.kernel_size, pool.stride
    pooled = POOLS[kind](pool, maps)
    height, width = pooled.shape[2:]
    means = average_pool(pool, maps)
    inside = maps[:, :, : (height - 1) * size + k, : (width - 1) * size + k]
    axes = (0, 2, 3)
    total = inside.var(axis=axes)
    about = means - means.mean(axis=axes, keepdims=True)
    shared, variance = (pooled * about).mean(axis=axes), pooled.var(axis=axes)
    kept = np.divide(shared**2, variance, out=np.zeros_like(shared), where=variance > 0)
    return float(kept.sum() / total.sum()) if total.sum() > 0 else 1.0


# --- Tables -------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return the accuracies, and what each transition does."""
    return [_accuracies(result), _pooled(result)]


def _accuracies(result: Result) -> Table:
    seeds = sorted({run["seed"] for run in result["runs"]})
    accuracy = {(run["pool"], run["seed"]): run["accuracy"] for run in result["runs"]}
    rows = [
        (f"seed {seed}", *(f"{accuracy[pool, seed]:.4f}" for pool in POOLS), f"{each:+.4f}")
        for seed, each in zip(seeds, result["difference"]["each"], strict=True)
    ]
    spreads = [*(result["accuracy"][pool] for pool in POOLS), result["difference"]]
    means = [*(f"{each['mean']:.4f}" for each in spreads[:2]), f"{spreads[2]['mean']:+.4f}"]
    rows.append(("mean", *means))
    if len(seeds) > 1:
        rows.append(("standard deviation", *(f"{each['std']:.4f}" for each in spreads)))
    recipe = result["recipe"]
    size = f"{recipe['image_size']}x{recipe['image_size']}"
    return Table(
        f"Test accuracy of {recipe['variant']}: {result['train_examples']:,} images of {size} "
        f"({result['data']}), {recipe['epochs']} epochs, {_trained_on(result)}",
        ("runs", "average", "maximum", "difference"),
        tuple(rows),
        f"{_conclusion(result['difference'])} Runs with equal seeds start from the same weights "
        f"and see the same batches; all are tested on the same {result['test_examples']:,} images.",
    )


def _trained_on(result: Result) -> str:
    return f"{result['backend']} on {result.get('gpu', 'the CPU')}"


def _conclusion(difference: dict[str, Any]) -> str:
    low, high = difference["low"], difference["high"]
    if low is None:
        return "One pair says nothing about spread; run more seeds."
    pairs = f"{len(difference['each'])} pairs"
    where = f"from {low:+.4f} to {high:+.4f}"
    seen = "does not contain 0" if low > 0 or high < 0 else "contains 0"
    return (
        f"The 95% interval of the mean difference is {where} (Student's t, {pairs}); it {seen}. It "
        "covers the spread over seeds, not that of another choice of test images."
    )


def _pooled(result: Result) -> Table:
    rows = []
    for name, kinds in result["transitions"].items():
        for pool, found in kinds.items():
            rows.append(
                (
                    name,
                    WORDS[pool],
                    f"{found['receivers']['mean']:.3f}",
                    f"{found['share']['mean']:.3f}",
                    f"{found['ties']['mean']:.2%}" if pool == "max" else "",
                    f"{found['energy_avg']['mean']:.1%}",
                    f"{found['energy_max']['mean']:.1%}",
                )
            )
    return Table(
        "What a transition's pooling does, in the networks trained with it",
        (
            "transition",
            "trained with",
            "inputs of 4 with a gradient",
            "each gets",
            "ties",
            "energy: average keeps",
            "maximum keeps",
        ),
        tuple(rows),
        f"Means over seeds, {result['looked_at']:,} test images and all windows. Energy: variance "
        "of the map before pooling that a line predicts, pixel by pixel, from the pooled map. Both "
        "poolings are applied to the map of each trained network. Within a row, the average keeps "
        "more by construction: no other number per window predicts more linearly. Ties: windows "
        "with several equal maxima; one of them receives the gradient.",
    )


# --- The drawing --------------------------------------------------------------------------------

COLORS = {"avg": INPUT, "max": NEW}
SHADES = (
    (".receives-avg", "fill:var(--c0);fill-opacity:.25"),
    (".receives-max", "fill:var(--c1);fill-opacity:.4"),
    (".axis", "opacity:.3"),
)
TOP, BOTTOM = 78, 268  # of the pairs
BAR, PITCH = 14, 52


def draw(result: Result) -> str:
    """Draw the accuracies in pairs, a window of each pooling, and the energy that it keeps."""
    names = list(result["transitions"])
    bars = 340 + PITCH * len(names)
    parts = [*_pairs(result, MARGIN, 300), *_windows(result, 400), *_energies(result, 340)]
    mean = result["difference"]
    accuracy = result["accuracy"]
    spoken = (
        f"Mean accuracy with the average {accuracy['avg']['mean']:.4f}, with the maximum "
        f"{accuracy['max']['mean']:.4f}. {_conclusion(mean)} Energy that pooling keeps of each "
        "network's own maps: "
        + "; ".join(
            f"{name}: average {_own(result, name, 'avg'):.1%}, maximum "
            f"{_own(result, name, 'max'):.1%}"
            for name in names
        )
    )
    figure = Figure("The average and the maximum in transitions", spoken, bars + 14, parts, SHADES)
    return document(figure, "pooling")


def _own(result: Result, name: str, pool: str) -> float:
    """The energy that a network's own pooling keeps in a transition."""
    mean: float = result["transitions"][name][pool][f"energy_{pool}"]["mean"]
    return mean


def _pairs(result: Result, left: float, right: float) -> list[str]:
    """A line for each seed, from its accuracy with the average to that with the maximum."""
    values: list[float] = [run["accuracy"] for run in result["runs"]]
    low, high = min(values), max(values)
    x = {"avg": left + 90, "max": right - 60}

    def y(value: float) -> float:
        return BOTTOM - (value - low) / (high - low or 1) * (BOTTOM - TOP)

    parts = [text(left, 24, "Test accuracy, a line for each seed", bold=True)]
    for pool, at in x.items():
        parts.append(text(at, 48, WORDS[pool], anchor="middle", color=COLORS[pool]))
        parts.append(path([(at, 56), (at, BOTTOM + 8)], class_="axis"))
    extremes = sorted({low, high})
    parts += [text(left + 78, y(each) + 4, f"{each:.4f}", anchor="end") for each in extremes]
    accuracy = {(run["pool"], run["seed"]): run["accuracy"] for run in result["runs"]}
    for seed in sorted({run["seed"] for run in result["runs"]}):
        ends = [(x[pool], y(accuracy[pool, seed])) for pool in POOLS]
        parts.append(path(ends, QUIET, stroke_width=1.5))
        parts += [_dot(*end, COLORS[pool]) for pool, end in zip(POOLS, ends, strict=True)]
    difference = result["difference"]
    said = f"difference {difference['mean']:+.4f}"
    if difference["low"] is not None:
        said += f", 95%: {difference['low']:+.4f} to {difference['high']:+.4f}"
    return [*parts, text(left, BOTTOM + 34, said)]


def _dot(x: float, y: float, color: str) -> str:
    return element("circle", cx=coordinate(x), cy=coordinate(y), r=4, class_=color)


def _windows(result: Result, left: float) -> list[str]:
    """A window of each pooling: the inputs that receive a gradient, and how much of it."""
    side, parts = 56, [text(left, 24, "Gradient of a window's four inputs", bold=True)]
    for number, pool in enumerate(POOLS):
        found = next(iter(result["transitions"].values()))[pool]
        receivers = round(found["receivers"]["mean"])
        x, y = left + number * 145, TOP
        parts.append(text(x, 48, WORDS[pool], color=COLORS[pool]))
        for i in range(4):
            across, down = x + i % 2 * side, y + i // 2 * side
            receives = i < receivers
            look = {"stroke": "currentColor", "stroke_dasharray": None if receives else "3 3"}
            shade = f"receives-{pool}" if receives else "empty"
            parts.append(rect(across, down, side, side, shade, **look))
            share = f"{found['share']['mean']:.2f}" if receives else "0"
            parts.append(text(across + side / 2, down + side / 2 + 5, share, anchor="middle"))
        means = [each[pool]["receivers"]["mean"] for each in result["transitions"].values()]
        extremes = sorted({f"{min(means):.2f}", f"{max(means):.2f}"})
        parts.append(text(x, y + 2 * side + 24, f"{' to '.join(extremes)} of 4"))
    parts.append(text(left, TOP + 2 * side + 44, "receive one, on average over"))
    parts.append(text(left, TOP + 2 * side + 62, "all windows of a transition"))
    return parts


def _energies(result: Result, top: float) -> list[str]:
    """Two bars for each transition: what each network's own pooling keeps."""
    left, longest = MARGIN + 120, WIDTH - 2 * MARGIN - 120 - 150
    title = "Energy that each network's own pooling keeps of its own maps, read linearly"
    parts = [text(MARGIN, top - 10, title, bold=True)]
    for i, name in enumerate(result["transitions"]):
        y = top + 6 + PITCH * i
        parts.append(text(MARGIN, y + BAR + 4, name))
        for j, pool in enumerate(POOLS):
            kept, at = _own(result, name, pool), y + j * (BAR + 4)
            parts.append(rect(left, at, longest * kept, BAR, COLORS[pool]))
            said = f"{kept:.1%} {WORDS[pool]}"
            parts.append(text(left + longest * kept + 6, at + BAR - 3, said))
    return parts


EXERCISE = Exercise(
    name="pooling",
    question="Why does a transition average, and what would change with the maximum?",
    duration="15 minutes on two cores; 75 minutes with full=True",
    measure=measure,
    tables=tables,
    draw=draw,
)
