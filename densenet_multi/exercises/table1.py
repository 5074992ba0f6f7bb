"""Exercise 4: the networks of the paper's Table 1, from the specification, and one step of each.

The published numbers, for 1,000 classes and images of 224x224:

- Output sizes, and the number of layers in a name: the paper's Table 1,
  https://arxiv.org/abs/1608.06993. (densenet161 is another network of the authors, with k = 48.)
- Parameters and multiply-adds (which it calls GFLOPS): the documentation of torchvision's
  pretrained weights, https://pytorch.org/vision/stable/models/densenet.html. torchvision has no
  densenet264, and the paper prints neither number.
"""

from __future__ import annotations

from typing import Any

from .._progress import progress
from ..backends import (
    BackendError,
    BackendNotInstalledError,
    installed_backends,
    load_backend,
)
from ..comparison.child_process import report_of
from ..drawing.svg import (
    INPUT,
    LAST,
    MARGIN,
    NEW,
    WIDTH,
    Figure,
    document,
    element,
    group,
    rect,
    text,
    width_of,
)
from ..manifest import count_parameters, layers, profile, size_after
from ..spec import ConvSpec, DenseNetSpec, LinearSpec
from ..variants import get_spec
from ._exercise import Exercise, Result, Settings, Table, header

NAMES = ("densenet121", "densenet169", "densenet201", "densenet264", "densenet161")
IMAGE_SIZE = 224  # of the counts
STEP = {"image_size": 64, "batch_size": 4}  # of the training step: 4x4 pixels in the last block

PAPER_SIZES = {  # Table 1: the output size of each row
    "convolution": 112,
    "stem": 56,
    "denseblock1": 56,
    "transition1": 28,
    "denseblock2": 28,
    "transition2": 14,
    "denseblock3": 14,
    "transition3": 7,
    "denseblock4": 7,
    "classifier": 1,
}
PUBLISHED = {  # torchvision: num_params, and GFLOPS with two decimals
    "densenet121": (7_978_856, 2.83),
    "densenet161": (28_681_000, 7.73),
    "densenet169": (14_149_480, 3.36),
    "densenet201": (20_013_928, 4.29),
}
LABELS = {
    "convolution": "stem: convolution",
    "stem": "stem: max pooling",
    "denseblock": "dense block",
    "transition": "transition",
    "classifier": "classifier",
}


def count_layers(spec: DenseNetSpec) -> dict[str, int]:
    """Walk a network, and count the layers that a name counts: {part: layers}.

    These are the convolutions and the classifier. The parts are "stem", "denseblock1",
    "transition1", …, "classifier".
    """
    found: dict[str, int] = {}
    for name, layer in layers(spec):
        if isinstance(layer, (ConvSpec, LinearSpec)):
            part = name.removeprefix("features.").split(".")[0]
            part = "stem" if part == "conv0" else part
            found[part] = found.get(part, 0) + 1
    return found


def measure(settings: Settings) -> Result:
    """Count every variant, and let it take one training step in each backend.

    Raises ``BackendNotInstalledError`` for a requested backend that is not installed, and
    ``BackendError`` if a step fails.
    """
    if settings.backend is not None:
        load_backend(settings.backend)
    backends = [settings.backend] if settings.backend else installed_backends()
    return {
        **header("table1", settings, backends),
        "image_size": IMAGE_SIZE,
        "variants": {name: _counted(name) for name in NAMES},
        "step": STEP,
        "backends": _steps(backends),
    }


def _counted(name: str) -> dict[str, Any]:
    spec = get_spec(name)
    stages = profile(spec, IMAGE_SIZE, IMAGE_SIZE)
    conv0 = spec.stem.conv0
    side = size_after(conv0, IMAGE_SIZE)
    shapes = {each.name: list(each.shape) for each in stages if each.name != "norm5"}
    parameters, gflops = PUBLISHED.get(name, (None, None))
    counts = count_layers(spec)
    return {
        "growth_rate": spec.config.growth_rate,
        "block_config": list(spec.config.block_config),
        "shapes": {"convolution": [conv0.out_channels, side, side], **shapes},
        "layers": counts,
        "depth": sum(counts.values()),
        "parameters": count_parameters(spec).trainable,
        "published_parameters": parameters,
        "multiply_adds": sum(each.multiply_adds for each in stages),
        "published_gflops": gflops,
    }


def _steps(backends: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {backend: {} for backend in backends}
    with progress() as bar:
        task = bar.add_task("", total=len(backends) * len(NAMES))
        for backend in backends:
            for name in NAMES:
                bar.update(task, description=f"{name} in {backend}")
                found[backend][name] = _step(backend, name)
                bar.advance(task)
    return found


def _step(backend: str, name: str) -> dict[str, Any]:
    settings = {"backend": backend, "variant": name, **STEP}
    report = report_of(f"{__package__}.table1_child", settings)
    status = report.pop("status")
    report.pop("versions")
    if status == "not installed":
        raise BackendNotInstalledError(report["error"])
    if status != "ok" or not report["finite"]:
        why = report.get("error", "the logits or weights are not finite")
        raise BackendError(f"backend {backend}: {name}: expected a training step, found: {why}")
    return report


# --- Tables -------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return the output sizes, the counts and the steps."""
    found = [_sizes(result), _counts(result)]
    return [*found, _taken(result)] if result["backends"] else found


def _sizes(result: Result) -> Table:
    variants = result["variants"]
    first = next(iter(variants.values()))["shapes"]
    rows = []
    for stage in first:
        shapes = [each["shapes"][stage] for each in variants.values()]
        sizes = sorted({f"{height}x{width}" for _, height, width in shapes})
        paper = f"{PAPER_SIZES[stage]}x{PAPER_SIZES[stage]}"
        rows.append((_label(stage), paper, ", ".join(sizes), *(f"{c:,}" for c, *_ in shapes)))
    return Table(
        f"Output of each stage for an image of {_image(result)}: height x width, and channels",
        ("stage", "Table 1", "all five", *(name.removeprefix("densenet") for name in variants)),
        tuple(rows),
        "Table 1: the paper's heights and widths. Under 121 to 161: the channels of DenseNet-121 "
        "to DenseNet-161, which Table 1 does not list.",
    )


def _label(stage: str) -> str:
    word = stage.rstrip("0123456789")
    return f"{LABELS[word]} {stage.removeprefix(word)}".strip()


def _counts(result: Result) -> Table:
    return counts_table(
        "Layers, parameters and work, counted by walking the network",
        "variant",
        result["variants"],
        "Layers: convolutions and the classifier. Published: torchvision; it has no densenet264.",
    )


def counts_table(title: str, first: str, networks: dict[str, Any], note: str) -> Table:
    """Return the table of counted networks beside the published numbers, where there are any."""
    rows = [
        (
            name,
            str(each["depth"]),
            f"{each['parameters']:,}",
            _or_none(each["published_parameters"], "{:,}"),
            f"{each['multiply_adds'] / 1e9:.3f}",
            _or_none(each["published_gflops"], "{:.2f}"),
        )
        for name, each in networks.items()
    ]
    return Table(
        title,
        (
            first,
            "layers",
            "parameters",
            "published",
            "10^9 multiply-adds",
            "published (GFLOPS)",
        ),
        tuple(rows),
        note,
    )


def _or_none(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _taken(result: Result) -> Table:
    backends = result["backends"]
    rows = [
        (
            name,
            *(f"{steps[name]['loss']:.5f}" for steps in backends.values()),
            _moved([steps[name] for steps in backends.values()], "trainable"),
            _moved([steps[name] for steps in backends.values()], "statistics"),
        )
        for name in result["variants"]
    ]
    size, count = result["step"]["image_size"], result["step"]["batch_size"]
    note = "Loss in float32. Moved: tensors that the step has changed. All results are finite."
    if len(backends) > 1:
        note += (
            " Every backend has the same weights, images and labels; the losses of a variant "
            f"differ by at most {_farthest(result):.1e} of the loss. Moved: in the backend with "
            "the fewest."
        )
    return Table(
        f"One training step on {count} images of {size}x{size}: the loss in {_and(list(backends))}",
        ("variant", *backends, "weights moved", "statistics moved"),
        tuple(rows),
        note,
    )


def _farthest(result: Result) -> float:
    """The largest difference between two backends' losses of a variant, relative to the lower."""
    steps = result["backends"].values()
    losses: list[list[float]] = [
        [step[name]["loss"] for step in steps] for name in result["variants"]
    ]
    return max((max(each) - min(each)) / min(each) for each in losses)


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _moved(steps: list[dict[str, Any]], which: str) -> str:
    moved = min(step[f"{which}_moved"] for step in steps)
    return f"{moved} of {steps[0][f'{which}_tensors']}"


def _image(result: Result) -> str:
    return f"{result['image_size']}x{result['image_size']}"


# --- The drawing --------------------------------------------------------------------------------

BAR, PITCH, TOP = 26, 72, 56


def draw(result: Result) -> str:
    """Draw each network's layers as a bar: a part for each dense block, in order of depth."""
    variants = result["variants"]
    deepest = max(each["depth"] for each in variants.values())
    left = MARGIN + max(map(width_of, variants)) + 22
    unit = (WIDTH - MARGIN - left - width_of("000 layers")) / deepest
    parts = _legend(left)
    for i, (name, each) in enumerate(variants.items()):
        y = TOP + PITCH * i
        parts.append(text(MARGIN, y + BAR - 8, name, bold=True))
        note = f"k = {each['growth_rate']}, {each['parameters'] / 1e6:.1f} million parameters"
        parts.append(text(left, y + BAR + 16, note))
        x = left
        for part, count in each["layers"].items():
            parts += _segment(x, y, unit * count, part, count)
            x += unit * count
        parts.append(text(x + 8, y + BAR - 8, f"{each['depth']} layers"))
    spoken = "; ".join(
        f"{name}: {each['depth']} layers, "
        + ", ".join(f"{_label_of_part(part)} {count}" for part, count in each["layers"].items())
        for name, each in variants.items()
    )
    height = TOP + PITCH * len(variants)
    figure = Figure("The depth of the paper's networks", f"{spoken}.", height, parts)
    return document(figure, "drawing-table1")


def _legend(left: float) -> list[str]:
    parts, x = [], left
    for color, label in ((INPUT, "dense block"), (NEW, "transition"), (LAST, "stem, classifier")):
        parts += [rect(x, 14, 14, 14, color), text(x + 20, 26, label)]
        x += 20 + width_of(label) + 18
    return parts


def _segment(x: float, y: float, width: float, part: str, count: int) -> list[str]:
    color = {"denseblock": INPUT, "transition": NEW}.get(part.rstrip("0123456789"), LAST)
    gap = 1 if part.startswith("denseblock") else 0
    label = element("title", f"{_label_of_part(part)}: {count}")
    drawn = [group(label, rect(x, y, width - gap, BAR, color))]
    if part.startswith("denseblock") and width > width_of(str(count)):
        drawn.append(text(x + width / 2, y - 5, str(count), anchor="middle"))
    return drawn


def _label_of_part(part: str) -> str:
    return "stem" if part == "stem" else _label(part)


EXERCISE = Exercise(
    name="table1",
    question="Which networks does the paper's Table 1 describe, and is each of them right?",
    duration="15 minutes on two cores with all four frameworks, of which Flax takes 13",
    measure=measure,
    tables=tables,
    draw=draw,
    uses=("backend",),
)
