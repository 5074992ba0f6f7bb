"""Exercise 3: how much memory training needs, and what the remedies save and cost.

Every measurement is a process of ``bench`` (see comparison/bench_child.py): peak memory of a
training step, minus what the process held before the first step. It is compared with what the
manifest predicts: the maps that a step keeps, and a gradient and a velocity for each parameter.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from itertools import cycle
from statistics import median
from typing import Any

from .._progress import progress
from ..backends import BackendError, BackendNotInstalledError
from ..comparison.bench import WARMUP, Turns, summary_of, take_turns
from ..comparison.bench_child import network
from ..comparison.machine import cpus, gpu
from ..drawing.svg import (
    INPUT,
    LAST,
    MARGIN,
    NEW,
    QUIET,
    WIDTH,
    Figure,
    document,
    path,
    plural,
    rect,
    text,
    width_of,
)
from ..manifest import count_parameters, profile
from ..spec import DenseNetSpec
from ._exercise import Exercise, Result, Settings, Table, chosen_backend, header, installed_backends

NETWORKS = {"d2l": 64, "densenet121": 16}  # -> images per step: about as many multiply-adds
SIZES, FULL_SIZES = (96, 224), (96, 160, 224)
REMEDY_ROUNDS, FULL_ROUNDS = 3, 5
MIB = 2**20
PARTS = 4  # in "quarter", which accumulates the gradients of this many parts of a batch
REMEDIES: dict[str, dict[str, Any]] = {  # name -> what differs from "plain"
    "plain": {"case": "plain"},
    "some": {"case": "efficient"},
    "max": {"case": "max"},
    "bfloat16": {"case": "bfloat16"},
    "quarter": {"case": "plain", "batch_size": NETWORKS["densenet121"] // PARTS},
    "growth": {"case": "plain", "growth_rate": 16},
}
LABELS = {
    "plain": "plain",
    "some": "recompute concatenations, norms and ReLUs",
    "max": "recompute 1x1 convolutions too",
    "bfloat16": "bfloat16",
    "quarter": "four quarter batches, gradients added up",
    "growth": "growth rate 16 instead of 32",
}
PRICES = {
    "plain": "",
    "some": "none: the same gradients",
    "max": "none: the same gradients",
    "bfloat16": "products have 8 bits of precision",
    "quarter": "batch statistics of a quarter of the images",
    "growth": "another network: ",
}
DEVICES = {"cpu": "CPU", "gpu": "GPU"}
MEASURED = (
    "Measured: the peak minus what the process held before its first step. Predicted: the maps "
    "that a step keeps, and a gradient and a velocity for each parameter."
)

Step = Callable[[str], object]


def measure(settings: Settings) -> Result:
    """Measure both networks in every installed backend, and the remedies in one (full: in all).

    Raises ``BackendNotInstalledError`` for a requested backend that is not installed, and
    ``BackendError`` if no backend can train.
    """
    backends = [settings.backend] if settings.backend else installed_backends()
    with_remedies = backends if settings.full else [chosen_backend(settings)]
    devices = ["cpu", *(["gpu"] if shutil.which("nvidia-smi") else [])]
    sizes = FULL_SIZES if settings.full else SIZES
    rounds = FULL_ROUNDS if settings.full else REMEDY_ROUNDS
    found: dict[str, dict[str, Any]] = {}
    with progress() as bar:
        each = 2 * len(NETWORKS) * len(sizes)
        total = len(backends) * each + len(with_remedies) * len(REMEDIES) * (1 + rounds)
        task = bar.add_task("", total=len(devices) * total)

        def step(line: str) -> None:
            bar.update(task, description=line)
            bar.advance(task)

        for device in devices:
            found[device] = {
                name: measured(name, device, sizes, rounds, step, remedies=name in with_remedies)
                for name in backends
            }
    _check(found, settings.backend)
    return {
        **header("memory", settings, backends),
        **({"gpu": gpu()} if "gpu" in devices else {}),
        "networks": NETWORKS,
        "warmup": WARMUP,
        "rounds": rounds,
        "devices": found,
    }


def _check(found: Mapping[str, Any], requested: str | None) -> None:
    """Raise an error if the requested backend, or every backend, measured nothing on the CPU."""
    errors = {name: each["error"] for name, each in found["cpu"].items() if not each["sizes"]}
    if requested and found["cpu"][requested].get("not_installed"):
        raise BackendNotInstalledError(errors[requested])
    if len(errors) == len(found["cpu"]):
        why = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise BackendError(f"backend: expected one that can train, found none: {why}")


def measured(
    name: str, device: str, sizes: tuple[int, ...], rounds: int, step: Step, *, remedies: bool
) -> dict[str, Any]:
    """Measure one backend on one device.

    Returns ``sizes`` (a list; see ``_sized``), ``fits`` ({network: see ``fit``}), ``remedies``
    ({name: see ``_compared``}, if requested) and the ``failed`` and ``absent`` ones ({case: why}).
    If the backend cannot run here, ``sizes`` is empty, and ``error`` states why.
    """
    base: dict[str, Any] = {
        "backend": name,
        "device": device,
        "work": "memory",
        "case": "plain",
        "depth": None,
        "warmup": WARMUP,
        "rounds": 1,
        "steps": 1,
        "cpus": cpus(None),
    }
    cases = {
        f"{variant}, {size}x{size}": {
            **base,
            "variant": variant,
            "image_size": size,
            "batch_size": batch,
        }
        for variant, batch in NETWORKS.items()
        for size in sizes
    }
    turns = take_turns(cases, step)
    if turns.message is not None or not turns.received:
        return _nothing(turns)
    found = [_sized(cases[case], messages) for case, messages in turns.received.items()]
    result: dict[str, Any] = {
        "sizes": found,
        "fits": {
            variant: fit([each for each in found if each["network"] == variant])
            for variant in NETWORKS
        },
        "failed": turns.failed,
        "absent": turns.absent,
    }
    if remedies:
        largest = cases[f"densenet121, {sizes[-1]}x{sizes[-1]}"] | {"rounds": rounds}
        changed = {remedy: {**largest, **change} for remedy, change in REMEDIES.items()}
        turns = take_turns(changed, step)
        result["remedies"] = _compared(changed, turns)
        result["failed"] |= turns.failed
        result["absent"] |= turns.absent
    return result


def _nothing(turns: Turns) -> dict[str, Any]:
    message = turns.message or {"error": "; ".join(turns.failed.values())}
    missing = message.get("status") == "not installed"
    return {"sizes": [], "error": message["error"], "not_installed": missing}


def predicted(spec: DenseNetSpec, size: int, batch: int) -> dict[str, int]:
    """Return the bytes that the manifest predicts for a training step in float32.

    ``maps`` are the activations of all images; ``parameters`` a gradient and a velocity for each
    trainable parameter. The weights themselves are there before the first step.
    """
    maps = sum(stage.activation_bytes() for stage in profile(spec, size, size))
    return {"maps": batch * maps, "parameters": 2 * 4 * count_parameters(spec).trainable}


def _spec_of(case: Mapping[str, Any]) -> DenseNetSpec:
    return network(case["variant"], None, case.get("growth_rate"))


def _sized(case: Mapping[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a network, its images, its memory (measured and predicted) and their ratio."""
    first, *rest = messages
    grown = summary_of(first, rest, case["batch_size"])["grown_bytes"]
    expected = predicted(_spec_of(case), case["image_size"], case["batch_size"])
    return {
        "network": case["variant"],
        "image_size": case["image_size"],
        "batch_size": case["batch_size"],
        "measured_bytes": grown,
        "predicted_bytes": sum(expected.values()),
        "predicted": expected,
        "ratio": grown / sum(expected.values()),
    }


def fit(sized: list[dict[str, Any]]) -> dict[str, float] | None:
    """Explain a network's measured memory over its image sizes: rate * maps + fixed.

    Least squares. ``rate`` is the memory for maps, measured, divided by the prediction: above 1,
    the framework keeps or needs more per pixel. ``fixed_bytes`` does not depend on the image size:
    gradients and velocity, compiled code, workspaces. None for fewer than two sizes.
    """
    x = [each["predicted"]["maps"] for each in sized]
    y = [each["measured_bytes"] for each in sized]
    if len(set(x)) < 2:
        return None
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    shared = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    rate = shared / sum((a - mean_x) ** 2 for a in x)
    return {"rate": rate, "fixed_bytes": mean_y - rate * mean_x}


def _compared(cases: Mapping[str, dict[str, Any]], turns: Turns) -> dict[str, Any]:
    """Compare each remedy with plain training.

    ``memory`` and ``time`` (per image, the median over the rounds) are relative to plain.
    """
    found = dict[str, dict[str, Any]]()
    for remedy, (first, *rest) in turns.received.items():
        case = cases[remedy]
        summary = summary_of(first, rest, case["batch_size"])
        found[remedy] = {
            "batch_size": case["batch_size"],
            "image_size": case["image_size"],
            "parameters": count_parameters(_spec_of(case)).trainable,
            "measured_bytes": summary["grown_bytes"],
            "images_per_second": summary["images_per_second"],
            "rounds": summary["rounds"],
        }
    if "plain" not in found:
        return found
    plain = found["plain"]
    for each in found.values():
        each["memory"] = each["measured_bytes"] / plain["measured_bytes"]
        pairs = zip(plain["rounds"], each["rounds"], strict=True)
        each["time"] = median(a / b for a, b in pairs)
    return found


# --- Tables -------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return, for each device, the memory at each size, what explains it, and the remedies."""
    found = []
    for device, backends in result["devices"].items():
        ran = {name: each for name, each in backends.items() if each["sizes"]}
        if ran:
            found += [_sizes(device, backends), _explained(device, ran)]
        compared = {name: each for name, each in ran.items() if each.get("remedies")}
        if compared:
            found.append(_remedies(device, compared, result["rounds"]))
    return found


def _sizes(device: str, backends: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            each["network"],
            f"{each['image_size']}x{each['image_size']}",
            str(each["batch_size"]),
            _mib(each["measured_bytes"]),
            _mib(each["predicted_bytes"]),
            f"{each['ratio'] - 1:+.0%}",
        )
        for name, report in backends.items()
        for each in report["sizes"]
    ]
    return Table(
        f"Peak memory of a training step in float32, {DEVICES[device]}",
        ("backend", "network", "image", "images", "measured", "predicted", "difference"),
        tuple(rows),
        " ".join([MEASURED, *_excuses(backends)]),
    )


def _excuses(backends: Mapping[str, Any]) -> list[str]:
    """Say what was not measured, and why."""
    said = []
    for name, report in backends.items():
        if not report["sizes"]:
            said.append(f"{name} was not measured: {_sentence(report['error'])}")
        for case, why in {**report.get("failed", {}), **report.get("absent", {})}.items():
            said.append(f"{name}, {LABELS.get(case, case)}, was not measured: {_sentence(why)}")
    return said


def _sentence(words: str) -> str:
    return f"{' '.join(words.split()).rstrip('.')}."


def _explained(device: str, backends: Mapping[str, Any]) -> Table:
    rows = [
        (name, variant, f"{each['rate']:.2f}", _mib(each["fixed_bytes"]))
        for name, report in backends.items()
        for variant, each in report["fits"].items()
        if each
    ]
    return Table(
        f"What the measured memory consists of, {DEVICES[device]}",
        ("backend", "network", "maps: measured / predicted", "independent of the image"),
        tuple(rows),
        "The line through the sizes above: memory = ratio x predicted maps + the rest. A ratio "
        "above 1: the framework needs more than the maps. The rest includes the gradients and "
        f"velocity ({_of_parameters(backends)}), compiled code and workspaces.",
    )


def _of_parameters(backends: Mapping[str, Any]) -> str:
    found = {
        each["network"]: _mib(each["predicted"]["parameters"])
        for report in backends.values()
        for each in report["sizes"]
    }
    return ", ".join(f"{name}: {bytes_}" for name, bytes_ in found.items())


def _remedies(device: str, backends: Mapping[str, Any], rounds: int) -> Table:
    rows = [
        (
            name,
            LABELS[remedy],
            _mib(each["measured_bytes"]),
            _relative(each, "memory"),
            _relative(each, "time"),
            _price(remedy, each),
        )
        for name, report in backends.items()
        for remedy, each in report["remedies"].items()
    ]
    cases = {name: each for r in backends.values() for name, each in r["remedies"].items()}
    batch = max(each["batch_size"] for each in cases.values())
    size = next(iter(cases.values()))["image_size"]
    notes = [f"Relative to plain training; time: the median of {plural(rounds, 'round')}."]
    if "quarter" in cases:
        notes.append(
            "Quarter batches: fit does not add up gradients, so steps with "
            f"{plural(cases['quarter']['batch_size'], 'image')} were measured; {PARTS} of them "
            "make one update and need the memory of one."
        )
    return Table(
        f"What helps: densenet121, {plural(batch, 'image')} of {size}x{size}, {DEVICES[device]}",
        ("backend", "remedy", "memory", "relative", "time per image", "what else it costs"),
        tuple(rows),
        " ".join(notes),
    )


def _relative(each: Mapping[str, Any], key: str) -> str:
    return f"{each[key]:.2f}x" if key in each else ""


def _price(remedy: str, each: Mapping[str, Any]) -> str:
    if remedy == "growth":
        return f"{PRICES[remedy]}{each['parameters'] / 1e6:.1f} million parameters"
    return PRICES[remedy]


def _mib(count: float) -> str:
    return f"{count / MIB:,.0f} MiB"


# --- The drawing --------------------------------------------------------------------------------

COLORS = (INPUT, NEW, LAST, QUIET)
BAR, ROW, GAP = 12, 17, 12  # height of a bar, from bar to bar, between groups
LEFT = 190


def draw(result: Result) -> str:
    """Draw the measured memory beside the prediction, and the remedies relative to plain."""
    parts, spoken, y = list[str](), list[str](), 0.0
    for device, backends in result["devices"].items():
        ran = {name: each for name, each in backends.items() if each["sizes"]}
        if not ran:
            continue
        colors = dict(zip(backends, cycle(COLORS), strict=False))
        drawn, said, y = _memory_bars(device, ran, colors, y)
        parts += drawn
        spoken += said
        compared = {name: each["remedies"] for name, each in ran.items() if each.get("remedies")}
        if compared:
            drawn, said, y = _remedy_bars(device, compared, colors, y)
            parts += drawn
            spoken += said
    figure = Figure("Memory of a training step", f"{'; '.join(spoken)}.", y + 10, parts)
    return document(figure, "memory")


def _memory_bars(
    device: str, backends: Mapping[str, Any], colors: Mapping[str, str], top: float
) -> tuple[list[str], list[str], float]:
    """Draw a bar for each network, size and backend, and a line where the prediction is."""
    found = [each for report in backends.values() for each in report["sizes"]]
    most = max(max(each["measured_bytes"], each["predicted_bytes"]) for each in found)
    longest = WIDTH - MARGIN - LEFT - width_of("000,000 MiB, gluon")
    title = f"Memory of a step, {DEVICES[device]}; the line: predicted from the specification"
    parts, spoken, y = [text(MARGIN, top + 24, title, bold=True)], list[str](), top + 40
    for network_name, size in dict.fromkeys((e["network"], e["image_size"]) for e in found):
        group = [
            (name, each)
            for name, report in backends.items()
            for each in report["sizes"]
            if (each["network"], each["image_size"]) == (network_name, size)
        ]
        batch = group[0][1]["batch_size"]
        parts.append(text(MARGIN, y + BAR, f"{network_name}, {size}x{size}"))
        parts.append(text(MARGIN, y + BAR + ROW, f"{batch} images"))
        start = y
        for name, each in group:
            length = longest * each["measured_bytes"] / most
            color = colors[name]
            memory = _mib(each["measured_bytes"])
            parts.append(rect(LEFT, y, length, BAR, color))
            end = max(LEFT + length, _line(each, most, longest))
            parts.append(text(end + 6, y + BAR, f"{memory}, {name}"))
            spoken.append(f"{network_name} at {size}, {DEVICES[device]}, {name}: {memory}")
            y += ROW
        line = _line(group[0][1], most, longest)
        parts.append(path([(line, start - 3), (line, y - ROW + BAR + 3)], stroke_width=2))
        y = max(y, start + 2 * ROW) + GAP
    return parts, spoken, y


def _line(each: Mapping[str, Any], most: float, longest: float) -> float:
    """The x of the predicted memory."""
    return LEFT + longest * float(each["predicted_bytes"]) / most


def _remedy_bars(
    device: str, backends: Mapping[str, Any], colors: Mapping[str, str], top: float
) -> tuple[list[str], list[str], float]:
    """Draw, for each remedy and backend, the memory relative to plain; the time is written."""
    known = [remedy for remedy in REMEDIES if any(remedy in each for each in backends.values())]
    left = MARGIN + max(width_of(LABELS[remedy]) for remedy in known) + 8
    longest = WIDTH - MARGIN - left - width_of("100%, time 10.00x, gluon") - 6
    most = max(each["memory"] for r in backends.values() for each in r.values() if "memory" in each)
    title = f"Memory relative to plain training, densenet121, {DEVICES[device]}; time per image"
    parts, spoken, y = [text(MARGIN, top + 24, title, bold=True)], list[str](), top + 40
    for remedy in known:
        parts.append(text(MARGIN, y + BAR, LABELS[remedy]))
        for name, found in backends.items():
            if "memory" not in found.get(remedy, {}):
                continue
            each = found[remedy]
            length = longest * each["memory"] / max(most, 1)
            label = f"{each['memory']:.0%}, time {each['time']:.2f}x, {name}"
            parts.append(rect(left, y, length, BAR, colors[name]))
            parts.append(text(left + length + 6, y + BAR, label))
            spoken.append(f"{LABELS[remedy]}, {DEVICES[device]}: {label}")
            y += ROW
        y += GAP
    return parts, spoken, y


EXERCISE = Exercise(
    name="memory",
    question="Is memory a problem when DenseNets train, and what helps?",
    duration="15 minutes on two cores; 1 hour with full=True",
    measure=measure,
    tables=tables,
    draw=draw,
    uses=("backend", "full"),
)
