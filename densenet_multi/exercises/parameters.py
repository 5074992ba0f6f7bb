"""Exercise 2: why does a DenseNet need fewer parameters than a ResNet?

Counts the parameters and the multiply-adds of both by stage and by kind of layer, and those of
densenet121 for other growth rates. Then trains small networks of both kinds by one recipe, in
PyTorch, and compares the parameters that an accuracy costs.

The published counts are those of torchvision's pretrained weights (``num_params``, ``GFLOPS``):
https://pytorch.org/vision/stable/models/resnet.html and ".../densenet.html".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from statistics import fmean
from typing import Any

from .._checks import bad
from ..backends import installed_backends, load_backend
from ..drawing.svg import (
    INPUT,
    LAST,
    MARGIN,
    NEW,
    OTHER,
    QUIET,
    TIMES,
    WIDTH,
    Figure,
    document,
    element,
    group,
    path,
    rect,
    text,
    width_of,
)
from ..spec import DenseNetConfig
from ..training.recipe import RECIPES, Recipe
from ..variants import get_spec
from ._exercise import Exercise, Result, Settings, Table, header
from ._interval import spread
from ._layers import KINDS, STAGES, Layer, layers_of, summed, with_growth_rate
from .resnet import RESNETS, ResNetConfig, layers_of_resnet, resnet_depth
from .table1 import PUBLISHED as PUBLISHED_DENSENETS
from .table1 import count_layers, counts_table

IMAGE_SIZE = 224
DENSENETS = ("densenet121", "densenet169", "densenet201", "densenet161")
PUBLISHED = {
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
    **PUBLISHED_DENSENETS,
}
GROWTH_RATES = (8, 12, 16, 24, 32, 40, 48)
RIVALS = "..comparison.rivals.resnet.torch"

SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 10, "stem": "cifar"}
TRAINED: dict[str, DenseNetConfig | ResNetConfig] = {  # Fashion-MNIST, images of 28x28
    "DenseNet k=12": DenseNetConfig(
        growth_rate=12, block_config=(2, 4, 6), num_init_features=24, **SMALL
    ),
    "ResNet width 16": ResNetConfig((2, 2, 2), width=16, **SMALL),
    "DenseNet k=6": DenseNetConfig(
        growth_rate=6, block_config=(2, 4, 6), num_init_features=12, **SMALL
    ),
    "DenseNet k=18": DenseNetConfig(
        growth_rate=18, block_config=(2, 4, 6), num_init_features=36, **SMALL
    ),
    "ResNet width 8": ResNetConfig((2, 2, 2), width=8, **SMALL),
    "ResNet width 24": ResNetConfig((2, 2, 2), width=24, **SMALL),
}
PAIR = 2  # networks that train without full=True
TRAINED_SIZE = 28
EPOCHS = {"fashion-mnist": 3, "sample": 30}  # the sample has a sixtieth of the images
RECIPE_NAME = "modern"
RECIPE = replace(RECIPES[RECIPE_NAME], image_size=TRAINED_SIZE)
SEEDS, FULL_SEEDS = 1, 3
NOT_TRAINED = "PyTorch is not installed: counts only"


def measure(settings: Settings) -> Result:
    """Count the networks, and train some of them, on the CPU, if PyTorch is installed.

    Raises ``BackendNotInstalledError`` if PyTorch is requested and is not installed.
    """
    if settings.backend:
        load_backend(settings.backend)
    here = "torch" in installed_backends()
    return {
        **header("parameters", settings, ["torch"] if here else []),
        "notes": [] if here else [NOT_TRAINED],
        "device": "cpu",
        "image_size": IMAGE_SIZE,
        "networks": {name: counted(name) for name in (*RESNETS, *DENSENETS)},
        "growth": [_grown(rate) for rate in GROWTH_RATES],
        "recipe": {"name": RECIPE_NAME, **_fields(_recipe(settings))},
        "trained": _trained(settings) if here else {},
    }


def counted(name: str) -> dict[str, Any]:
    """Count a network of ``RESNETS`` or ``VARIANTS``: in all, by stage and by kind of layer."""
    if name in RESNETS:
        depth = resnet_depth(RESNETS[name])
        found = list(layers_of_resnet(RESNETS[name], IMAGE_SIZE))
    else:
        depth = sum(count_layers(get_spec(name)).values())
        found = list(layers_of(get_spec(name), IMAGE_SIZE))
    published, gflops = PUBLISHED[name]
    return {
        "depth": depth,
        **totals(found),
        "published_parameters": published,
        "published_gflops": gflops,
        "stages": summed(found, "stage"),
        "kinds": summed(found, "kind"),
    }


def totals(layers: Iterable[Layer]) -> dict[str, int]:
    """Return the parameters and the multiply-adds of some layers."""
    found = list(layers)
    return {
        "parameters": sum(each.parameters for each in found),
        "multiply_adds": sum(each.multiply_adds for each in found),
    }


def _grown(rate: int) -> dict[str, int]:
    """Count densenet121 with another growth rate k; its stem has 2k channels."""
    spec = get_spec("densenet121", **with_growth_rate(rate))
    return {"growth_rate": rate, **totals(layers_of(spec, IMAGE_SIZE))}


# --- Training -----------------------------------------------------------------------------------


def _recipe(settings: Settings) -> Recipe:
    return replace(RECIPE, epochs=EPOCHS[settings.data])


def _fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields, without those that each run and each network have of their own."""
    own = ("seed", "variant")
    return {name: value for name, value in asdict(recipe).items() if name not in own}


def _trained(settings: Settings) -> dict[str, dict[str, Any]]:
    from ..data import load_data

    images = load_data(settings.data, image_size=TRAINED_SIZE)
    seeds = settings.seeds or (FULL_SEEDS if settings.full else SEEDS)
    names = list(TRAINED) if settings.full else list(TRAINED)[:PAIR]
    found: dict[str, dict[str, Any]] = {name: _described(TRAINED[name]) for name in names}
    recipe = _recipe(settings)
    for seed in range(seeds):  # the networks take turns
        for name in names:
            run = _run(TRAINED[name], images, replace(recipe, seed=seed))
            found[name]["runs"].append(run)
    return found


def check_resnet(config: ResNetConfig) -> None:
    """Raise ``ConfigError`` for a ResNet that can be counted, but is not written natively."""
    if config.bottleneck:
        raise bad("bottleneck", True, "False: a ResNet to train has basic blocks")
    if config.stem != "cifar":
        raise bad("stem", config.stem, "'cifar': a ResNet to train is for small images")


def _described(config: DenseNetConfig | ResNetConfig) -> dict[str, Any]:
    if isinstance(config, ResNetConfig):
        kind, found = "ResNet", totals(layers_of_resnet(config, TRAINED_SIZE))
    else:
        kind, found = "DenseNet", totals(layers_of(config.resolve(), TRAINED_SIZE))
    return {"kind": kind, **found, "runs": []}


def _run(config: DenseNetConfig | ResNetConfig, images: Any, recipe: Recipe) -> dict[str, Any]:
    """Train a network, and return its accuracy on the test images after the last epoch."""
    backend, seed = load_backend("torch"), recipe.seed
    if isinstance(config, ResNetConfig):
        rival = import_module(RIVALS, __package__)
        check_resnet(config)
        channels: dict[str, Any] = {
            "in_channels": config.in_channels,
            "num_classes": config.num_classes,
        }
        like = DenseNetConfig(stem=config.stem, **channels).resolve()
        network = rival.build(config.blocks, config.width, seed=seed, **channels)
        history = rival.fit(network, like, images.train, recipe, validation=images.test)
    else:
        model = backend.build(config.resolve(), seed=seed)
        history = backend.fit(model, images.train, recipe, validation=images.test)
    return {
        "seed": seed,
        "test_accuracy": history.epochs[-1].validation_accuracy,
        "test_accuracies": [epoch.validation_accuracy for epoch in history.epochs],
        "seconds": sum(epoch.seconds for epoch in history.epochs),
    }


# --- Tables -------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return the counts, where they are, what the growth rate costs, and what was trained."""
    found = [
        _counts(result),
        _by(result, "stages", STAGES, "parameters"),
        _by(result, "stages", STAGES, "multiply_adds"),
        _by(result, "kinds", KINDS, "parameters"),
        _by(result, "kinds", KINDS, "multiply_adds"),
        _growth(result),
    ]
    return [*found, _accuracies(result)] if result["trained"] else found


def _counts(result: Result) -> Table:
    notes = "".join(f" {note}." for note in result["notes"])
    return counts_table(
        f"Parameters and work, counted layer by layer, for images of {IMAGE_SIZE}x{IMAGE_SIZE}",
        "network",
        result["networks"],
        "Published: torchvision. Layers: as in the name, without the convolutions of shortcuts."
        f"{notes}",
    )


def _by(result: Result, group: str, parts: tuple[str, ...], what: str) -> Table:
    unit = 1e6 if what == "parameters" else 1e9
    of = "Millions of parameters" if what == "parameters" else "10^9 multiply-adds"
    rows = [
        (name, *(f"{each[group].get(part, {what: 0})[what] / unit:.3f}" for part in parts))
        for name, each in result["networks"].items()
    ]
    by = "stage" if group == "stages" else "kind of layer"
    note = {
        "stages": "Stages 1 to 4 have maps of 56x56, 28x28, 14x14 and 7x7. A transition belongs "
        "to the stage that it ends.",
        "kinds": "1x1, 3x3, 7x7: convolutions with kernels of this size.",
    }[group]
    return Table(f"{of} by {by}", ("network", *parts), tuple(rows), note)


def _growth(result: Result) -> Table:
    base = next(each for each in result["growth"] if each["growth_rate"] == 32)
    rows = [
        (
            str(each["growth_rate"]),
            f"{each['parameters']:,}",
            f"{each['parameters'] / base['parameters']:.2f}",
            f"{each['multiply_adds'] / 1e9:.3f}",
            f"{each['multiply_adds'] / base['multiply_adds']:.2f}",
        )
        for each in result["growth"]
    ]
    return Table(
        "The growth rate k of densenet121",
        ("k", "parameters", "of k = 32", "10^9 multiply-adds", "of k = 32"),
        tuple(rows),
        "The stem has 2k channels. Of k = 32: as a fraction of densenet121's own number.",
    )


def _accuracies(result: Result) -> Table:
    by_size = sorted(result["trained"].items(), key=lambda item: _kind_and_size(item[1]))
    each_row = [(name, each, *_mean_and_spread(each)) for name, each in by_size]
    columns = {
        "network": [name for name, *_ in each_row],
        "parameters": [f"{each['parameters']:,}" for _, each, *_ in each_row],
        "10^6\nmult-adds": [f"{each['multiply_adds'] / 1e6:.1f}" for _, each, *_ in each_row],
        "test\naccuracy": [f"{mean:.4f}" for *_, mean, _ in each_row],
        "spread": ["" if found is None else f"{found:.4f}" for *_, found in each_row],
        "ResNet\nneeds": [_factor(result, name) for name, *_ in each_row],
        "seconds": [f"{fmean(r['seconds'] for r in each['runs']):.0f}" for _, each, *_ in each_row],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    recipe, data = result["recipe"], result["settings"]["data"]
    return Table(
        f"Trained on {data} for {recipe['epochs']} epochs, images of "
        f"{recipe['image_size']}x{recipe['image_size']}",
        tuple(shown),
        tuple(zip(*shown.values(), strict=True)),
        f"{_explained(shown, len(each_row[0][1]['runs']))} {_by_recipe(recipe)}",
    )


def _by_recipe(recipe: dict[str, Any]) -> str:
    return (
        f"Trained in PyTorch on the CPU, both by the recipe {recipe['name']!r}, which was made for "
        f"a DenseNet: learning rate {recipe['learning_rate']:g}, weight decay "
        f"{recipe['weight_decay']:g}. Other values could favor the ResNets."
    )


def _explained(shown: Container[str], seeds: int) -> str:
    """The note below the table of what was trained, on the columns that it has."""
    sentences = [
        f"Accuracy after the last epoch, {_runs(seeds)}; seconds of training, without the tests."
    ]
    if "spread" in shown:
        sentences.append("Spread: standard deviation over the seeds.")
    if "ResNet\nneeds" in shown:
        sentences.append(
            "ResNet needs: how many times as many parameters a ResNet of the same accuracy has, "
            "interpolated between the ResNets in this table; empty outside their range."
        )
        if seeds > 1:
            sentences.append("In parentheses: of single seeds, those inside the range.")
    return " ".join(sentences)


def _kind_and_size(trained: dict[str, Any]) -> tuple[str, int]:
    return trained["kind"], trained["parameters"]


def _runs(count: int) -> str:
    return "of one seed, so without spread" if count == 1 else f"mean over {count} seeds"


def _mean_and_spread(trained: dict[str, Any]) -> tuple[float, float | None]:
    found = spread([run["test_accuracy"] for run in trained["runs"]])
    return found["mean"], found["std"]


def _factor(result: Result, name: str) -> str:
    """How many times as many parameters a ResNet needs: of the means, and of single seeds."""
    each = result["trained"][name]
    if each["kind"] != "DenseNet":
        return ""
    mean = _needed(result, name, lambda trained: _mean_and_spread(trained)[0])
    if mean is None:
        return ""
    seeds = range(len(each["runs"]))
    singles = [_needed(result, name, partial(_accuracy_of, i)) for i in seeds]
    inside = [single for single in singles if single is not None]
    if len(seeds) == 1:
        return f"{mean:.1f}x"
    spread = [f"{min(inside):.1f}-{max(inside):.1f}"] if inside else []
    counted = [f"{len(inside)} of {len(seeds)} seeds"] if len(inside) < len(seeds) else []
    return f"{mean:.1f}x ({'; '.join(spread + counted)})"


def _accuracy_of(run: int, trained: dict[str, Any]) -> float:
    accuracy: float = trained["runs"][run]["test_accuracy"]
    return accuracy


def _needed(result: Result, name: str, accuracy: Callable[[Result], float]) -> float | None:
    each = result["trained"][name]
    resnets = [
        (accuracy(other), other["parameters"])
        for other in result["trained"].values()
        if other["kind"] == "ResNet"
    ]
    needed = interpolated(accuracy(each), resnets)
    return None if needed is None else needed / each["parameters"]


def interpolated(accuracy: float, points: list[tuple[float, int]]) -> float | None:
    """Return the parameters at an accuracy, between (accuracy, parameters) of some networks.

    The logarithm of the parameters is interpolated linearly, between the two neighbors in size
    that enclose the accuracy. None if no two do.
    """
    by_size = sorted(points, key=lambda point: point[1])
    for (low, fewer), (high, more) in pairwise(by_size):
        if low <= accuracy <= high and low < high:
            part = (accuracy - low) / (high - low)
            return math.exp(math.log(fewer) + part * (math.log(more) - math.log(fewer)))
    return None


# --- The drawing --------------------------------------------------------------------------------

COLORS = dict(zip(KINDS, (INPUT, NEW, OTHER, LAST, QUIET), strict=True))
PLOT_TOP, PLOT_BOTTOM, PLOT_LEFT = 46, 250, 74
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)  # distances; accuracies span 1
BAR, PITCH, TOP = 18, 28, 66  # of the bars, and the y of the first one below their heading

Point = tuple[int, float, float | None]  # parameters, mean accuracy, standard deviation
Place = Callable[[float, float], tuple[float, float]]  # parameters, accuracy -> in the drawing


def draw(result: Result) -> str:
    """Draw the accuracy over the parameters, and the parameters by kind of layer."""
    parts: list[str] = []
    spoken, y = "", 0.0
    if result["trained"]:
        plotted, spoken = _plot(result["trained"])
        parts, y = plotted, PLOT_BOTTOM + 70
    bars, said = _bars(result["networks"], y)
    height = y + TOP + PITCH * len(result["networks"]) + 10
    title = "Parameters of DenseNets and ResNets"
    return document(Figure(title, f"{spoken}{said}", height, [*parts, *bars]), "drawing-parameters")


def _plot(trained: dict[str, dict[str, Any]]) -> tuple[list[str], str]:
    points = {name: (each["parameters"], *_mean_and_spread(each)) for name, each in trained.items()}
    accuracies = [run["test_accuracy"] for each in trained.values() for run in each["runs"]]
    ticks = _ticks(min(accuracies), max(accuracies))
    low, high = ticks[0], ticks[-1]
    sizes = [math.log10(size) for size, *_ in points.values()]
    first, last = min(sizes) - 0.2, max(sizes) + 0.1
    right = WIDTH - MARGIN - max(map(width_of, points)) / 2

    def place(size: float, accuracy: float) -> tuple[float, float]:
        x = PLOT_LEFT + (math.log10(size) - first) / (last - first) * (right - PLOT_LEFT)
        return x, PLOT_BOTTOM - (accuracy - low) / (high - low) * (PLOT_BOTTOM - PLOT_TOP)

    parts = [text(MARGIN, 24, "test accuracy over parameters (logarithmic)", bold=True)]
    for tick in ticks:
        _, y = place(1, tick)
        parts.append(path([(PLOT_LEFT, y), (right, y)], class_="faint"))
        parts.append(text(PLOT_LEFT - 8, y + 4, f"{tick:.3f}", anchor="end"))
    for size in _sizes_between(10**first, 10**last):
        x, _ = place(size, low)
        parts.append(path([(x, PLOT_BOTTOM), (x, PLOT_BOTTOM + 5)]))
        parts.append(text(x, PLOT_BOTTOM + 20, f"{size:,}", anchor="middle"))
    middle = (PLOT_LEFT + right) / 2
    parts.append(text(middle, PLOT_BOTTOM + 40, "parameters", anchor="middle", bold=True))
    for kind, color in (("DenseNet", INPUT), ("ResNet", NEW)):
        names = sorted((n for n in points if trained[n]["kind"] == kind), key=lambda n: points[n])
        line = [place(points[name][0], points[name][1]) for name in names]
        if len(line) > 1:
            parts.append(path(line, color, stroke_width=2))
        for name, (x, y) in zip(names, line, strict=True):
            parts += _errors(points[name], place, color)
            parts.append(rect(x - 4, y - 4, 8, 8, color, rx=4 if kind == "DenseNet" else 0))
            parts.append(_name(name, points[name], place, above=kind == "DenseNet"))
    said = "; ".join(
        f"{name}: {size:,} parameters, accuracy {mean:.4f}"
        for name, (size, mean, _) in points.items()
    )
    return parts, f"{said}. "


def _errors(point: Point, place: Place, color: str) -> list[str]:
    size, mean, deviation = point
    if not deviation:
        return []
    return [path([place(size, mean - deviation), place(size, mean + deviation)], color)]


def _name(name: str, point: Point, place: Place, *, above: bool) -> str:
    size, mean, deviation = point
    x, y = place(size, mean + (deviation or 0) * (1 if above else -1))
    return text(x, y + (-9 if above else 19), name, anchor="middle")


def _ticks(low: float, high: float) -> list[float]:
    """Four or more round accuracies that enclose both."""
    step = next(step for step in TICKS if high - low <= 4 * step)
    first = math.floor(low / step - 0.5)
    last = max(first + 3, math.ceil(high / step + 0.5))
    return [i * step for i in range(first, last + 1)]


def _sizes_between(low: float, high: float) -> list[int]:
    sizes = [digit * 10**power for power in range(3, 9) for digit in (1, 2, 5)]
    return [size for size in sizes if low <= size <= high]


def _bars(networks: dict[str, dict[str, Any]], y: float) -> tuple[list[str], str]:
    left = MARGIN + max(map(width_of, networks)) + 14
    label = width_of("00.0 million")
    most = max(each["parameters"] for each in networks.values())
    unit = (WIDTH - MARGIN - left - label - 8) / most
    parts = [text(MARGIN, y + 24, "parameters by kind of layer", bold=True)]
    x: float = left
    for kind, color in COLORS.items():
        parts += [rect(x, y + 36, 12, 12, color), text(x + 17, y + 47, _named(kind))]
        x += 17 + width_of(_named(kind)) + 14
    spoken = []
    for i, (name, each) in enumerate(networks.items()):
        top, x = y + TOP + PITCH * i, left
        parts.append(text(MARGIN, top + BAR - 5, name))
        for kind, color in COLORS.items():
            count = each["kinds"].get(kind, {"parameters": 0})["parameters"]
            title = element("title", f"{name}, {_named(kind)}: {count:,}")
            parts.append(group(title, rect(x, top, unit * count, BAR, color)))
            x += unit * count
        parts.append(text(x + 8, top + BAR - 5, f"{each['parameters'] / 1e6:.1f} million"))
        inside = ", ".join(f"{_named(k)} {v['parameters']:,}" for k, v in each["kinds"].items())
        spoken.append(f"{name}: {each['parameters']:,} parameters ({inside})")
    return parts, f"{'; '.join(spoken)}."


def _named(kind: str) -> str:
    return kind.replace("x", TIMES) if kind in ("1x1", "3x3", "7x7") else kind


EXERCISE = Exercise(
    name="parameters",
    question="Why does a DenseNet need fewer parameters than a ResNet of the same accuracy?",
    duration="12 minutes on two cores; 2 hours with full=True",
    measure=measure,
    tables=tables,
    draw=draw,
    uses=("backend", "data", "seeds", "full"),
    backend="torch",
)
