"""Exercise 3: how much memory training needs, and what the remedies save and cost.

Every measurement is a process of ``bench`` (see comparison/bench_child.py): peak memory of a
training step, minus what the process held before the first step. It is compared with what the
manifest predicts: the maps that a step keeps, and a gradient and a velocity for each parameter.
A GPU is measured too, in the frameworks that see one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from statistics import median
from typing import Any

from .._progress import progress
from ..backends import BackendError, BackendNotInstalledError, installed_backends
from ..comparison.bench import WARMUP, Turns, run_alone, summary_of, take_turns
from ..comparison.bench_child import PARTS, network
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
from ._exercise import Exercise, Result, Settings, Table, chosen_backend, header
from ._layers import with_growth_rate

NETWORKS = {"d2l": 64, "densenet121": 16}  # -> images per step: about as many multiply-adds
SIZES = (96, 160, 224)  # three: a line through two points would explain anything
REMEDY_ROUNDS, FULL_ROUNDS = 3, 5
MIB = 2**20
GROWTH_RATE = 16  # in "growth"
REMEDIES: dict[str, dict[str, Any]] = {  # name -> what differs from "plain"
    "plain": {"case": "plain"},
    "efficient": {"case": "efficient"},
    "max": {"case": "max"},
    "bfloat16": {"case": "bfloat16"},
    "loop": {"case": "model"},
    "accumulated": {"case": "accumulated"},
    "growth": {"case": "plain", "changes": with_growth_rate(GROWTH_RATE)},
}
BASELINES = {"accumulated": "loop"}  # fit does not accumulate: compare two plain loops
LABELS = {  # without "loop", which is no remedy
    "plain": "plain",
    "efficient": "recompute concatenations, norms and ReLUs",
    "max": "recompute 1x1 convolutions too",
    "bfloat16": "bfloat16",
    "accumulated": f"accumulate gradients over {PARTS['accumulated']} parts of a batch",
    "growth": f"growth rate {GROWTH_RATE} instead of 32",
}
PRICES = {
    "plain": "",
    "efficient": "none: the same gradients",
    "max": "none: the same gradients",
    "bfloat16": "products have 8 bits of precision",
    "accumulated": f"batch statistics of 1/{PARTS['accumulated']} of the images",
    "growth": "another network: ",
}
DEVICES = {"cpu": "CPU", "gpu": "GPU"}
MEASURED = (
    "Measured: the peak minus what the process held before its first step. Predicted: the maps "
    "that a step keeps, and a gradient and a velocity for each parameter."
)

# what a table's note adds, if this backend is in it
RETURNED = (
    "On the CPU, glibc is told to return every freed block to the system, so that a process holds "
    "only memory in use; normally it holds more."
)
GLUON = "gluon: without static allocation, which fit uses, which is faster and needs more memory."
FLAX = "flax: the peak on a GPU includes compilation."

Step = Callable[[str], object]


def measure(settings: Settings) -> Result:
    """Measure both networks in every installed backend, and the remedies in one (full: in all).

    Raises ``BackendNotInstalledError`` for a requested backend that is not installed, and
    ``BackendError`` if no backend can train.
    """
    backends = [settings.backend] if settings.backend else installed_backends()
    with_remedies = backends if settings.full else [chosen_backend(settings)]
    rounds = FULL_ROUNDS if settings.full else REMEDY_ROUNDS
    cases = 2 * len(NETWORKS) * len(SIZES) * len(backends)
    cases += len(REMEDIES) * (1 + 1 + 1 + rounds) * len(with_remedies)  # two warm-ups
    found: dict[str, dict[str, Any]] = {}
    with progress() as bar:
        for device in DEVICES:
            task = bar.add_task("", total=cases)

            def step(line: str, task: Any = task) -> None:
                bar.update(task, description=line)
                bar.advance(task)

            found[device] = {
                name: measured(name, device, rounds, step, remedies=name in with_remedies)
                for name in backends
            }
            if device == "cpu":
                _check(found["cpu"], settings.backend)
    without = {name: each["error"] for name, each in found["gpu"].items() if not each["sizes"]}
    if len(without) == len(backends):
        del found["gpu"]
    return {
        **header("memory", settings, backends),
        **({"gpu": gpu()} if "gpu" in found else {}),
        "not_on_gpu": without,
        "networks": NETWORKS,
        "warmup": WARMUP,
        "rounds": rounds,
        "devices": found,
    }


def _check(found: Mapping[str, Any], requested: str | None) -> None:
    """Raise an error if the requested backend, or every backend, measured nothing."""
    errors = {name: each["error"] for name, each in found.items() if not each["sizes"]}
    if requested and found[requested].get("not_installed"):
        raise BackendNotInstalledError(errors[requested])
    if len(errors) == len(found):
        why = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise BackendError(f"backend: expected one that can train, found none: {why}")


def measured(name: str, device: str, rounds: int, step: Step, *, remedies: bool) -> dict[str, Any]:
    """Measure one backend on one device.

    Cases take turns on a CPU. A GPU may not have the memory for all their networks, so each runs
    alone there.

    Returns ``sizes`` (a list; see ``_sized``), ``lines`` ({network: see ``line_through``}),
    ``remedies`` ({name: see ``_compared``}, if requested) and the ``failed`` and ``absent`` ones
    ({case: why}). If the backend cannot run here, ``sizes`` is empty, and ``error`` states why.
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
        for size in SIZES
    }
    run = take_turns if device == "cpu" else run_alone
    turns = run(cases, step)
    if turns.message is not None or not turns.received:
        return _nothing(turns)
    found = [_sized(cases[case], messages) for case, messages in turns.received.items()]
    result: dict[str, Any] = {
        "sizes": found,
        "lines": {
            variant: line_through([each for each in found if each["network"] == variant])
            for variant in NETWORKS
        },
        "failed": turns.failed,
        "absent": turns.absent,
    }
    if remedies:
        largest = cases[f"densenet121, {SIZES[-1]}x{SIZES[-1]}"]
        changed = {remedy: {**largest, **change} for remedy, change in REMEDIES.items()}
        turns = run(changed, step)
        # returning freed memory makes it measurable, and slows down whoever needs much of it
        usual = {"rounds": rounds, "exact": False}
        timed = run({remedy: {**case, **usual} for remedy, case in changed.items()}, step)
        result["remedies"] = _compared(changed, turns, timed)
        for each in (turns, timed):
            result["failed"] |= each.failed
            result["absent"] |= each.absent
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
    return network(case["variant"], None, case.get("changes", {}))


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


def line_through(sized: list[dict[str, Any]]) -> dict[str, float | None] | None:
    """Explain a network's measured memory over its image sizes: rate * maps + fixed.

    Least squares. ``rate`` is the memory that the maps add, measured, divided by the prediction:
    above 1, the framework keeps or needs more per pixel. ``fixed_bytes`` does not depend on the
    image size: gradients and velocity, compiled code, workspaces. ``residual`` is the largest
    distance of a measurement from the line, relative to the measurement; None for two sizes, whose
    line explains anything. Returns None for fewer sizes.
    """
    x = [each["predicted"]["maps"] for each in sized]
    y = [each["measured_bytes"] for each in sized]
    if len(set(x)) < 2:
        return None
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    shared = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    rate = shared / sum((a - mean_x) ** 2 for a in x)
    fixed = mean_y - rate * mean_x
    distances = [abs(b - rate * a - fixed) / b for a, b in zip(x, y, strict=True)]
    residual = max(distances) if len(set(x)) > 2 else None
    return {"rate": rate, "fixed_bytes": fixed, "residual": residual}


def _compared(cases: Mapping[str, dict[str, Any]], turns: Turns, timed: Turns) -> dict[str, Any]:
    """Compare each remedy with plain training, or with another baseline (``BASELINES``).

    ``memory``, of ``turns``, and ``time`` per image, the median over the rounds of ``timed``, are
    relative to it. They are absent if the baseline was not measured.
    """
    found = dict[str, dict[str, Any]]()
    for remedy, messages in turns.received.items():
        if remedy not in timed.received:
            continue
        case = cases[remedy]
        first, *rest = messages
        summary = summary_of(first, rest, case["batch_size"])
        first, *rest = timed.received[remedy]
        speed = summary_of(first, rest, case["batch_size"])
        found[remedy] = {
            "batch_size": case["batch_size"],
            "image_size": case["image_size"],
            "parameters": count_parameters(_spec_of(case)).trainable,
            "measured_bytes": summary["grown_bytes"],
            "images_per_second": speed["images_per_second"],
            "rounds": speed["rounds"],
        }
    for remedy, each in found.items():
        baseline = found.get(BASELINES.get(remedy, "plain"))
        if baseline:
            each["memory"] = each["measured_bytes"] / baseline["measured_bytes"]
            pairs = zip(baseline["rounds"], each["rounds"], strict=True)
            each["time"] = median(a / b for a, b in pairs)
    return found


# --- Tables -------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return, for each device, the memory at each size, what explains it, and the remedies."""
    found = []
    for device, backends in result["devices"].items():
        ran = {name: each for name, each in backends.items() if each["sizes"]}
        if ran:
            found += [_sizes(device, backends, result), _explained(device, ran)]
        compared = {name: each for name, each in ran.items() if each.get("remedies")}
        if compared:
            found.append(_remedies(device, compared, result))
    return found


def _sizes(device: str, backends: Mapping[str, Any], result: Result) -> Table:
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
        " ".join([MEASURED, *_how(device, backends, result), *_not_measured(backends)]),
    )


def _how(device: str, backends: Mapping[str, Any], result: Result) -> list[str]:
    """Say how the memory measured differs from what a user's process holds."""
    said = [RETURNED] if device == "cpu" else []
    said += [GLUON] if backends.get("gluon", {}).get("sizes") else []
    said += [FLAX] if device == "gpu" and backends.get("flax", {}).get("sizes") else []
    return [*said, *([] if "gpu" in result["devices"] else ["No GPU was measured."])]


def _not_measured(backends: Mapping[str, Any]) -> list[str]:
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
        (
            name,
            variant,
            f"{each['rate']:.2f}",
            _mib(each["fixed_bytes"]),
            "" if each["residual"] is None else f"{each['residual']:.1%}",
        )
        for name, report in backends.items()
        for variant, each in report["lines"].items()
        if each
    ]
    return Table(
        f"What the measured memory consists of, {DEVICES[device]}",
        (
            "backend",
            "network",
            "maps: measured / predicted",
            "independent of the image",
            "largest residual",
        ),
        tuple(rows),
        "The line through the sizes above: memory = ratio x predicted maps + the rest. A ratio "
        "above 1: the framework needs more than the maps. The rest includes the gradients and "
        f"velocity ({_of_parameters(backends)}), compiled code and workspaces. A negative rest is "
        "no memory: the need grows faster than in proportion to the maps. Residual: the distance "
        "of a measurement from the line, relative to it.",
    )


def _of_parameters(backends: Mapping[str, Any]) -> str:
    found = {
        each["network"]: _mib(each["predicted"]["parameters"])
        for report in backends.values()
        for each in report["sizes"]
    }
    return ", ".join(f"{name}: {bytes_}" for name, bytes_ in found.items())


def _remedies(device: str, backends: Mapping[str, Any], result: Result) -> Table:
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
        if remedy in LABELS
    ]
    cases = {name: each for r in backends.values() for name, each in r["remedies"].items()}
    batch = result["networks"]["densenet121"]
    size = next(iter(cases.values()))["image_size"]
    notes = [
        f"Relative to plain training; time: the median of {plural(result['rounds'], 'round')}"
        + (", in processes that keep freed memory as usual." if device == "cpu" else ".")
    ]
    if "accumulated" in cases:
        notes.append(
            "Accumulated gradients: fit does not offer this, so a plain loop with it is compared "
            "with the same loop without it."
        )
    if device == "gpu":
        notes.append("Each network ran alone; on a CPU, they take turns.")
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
        compared = {
            name: {
                remedy: found
                for remedy, found in each.get("remedies", {}).items()
                if remedy in LABELS and "memory" in found
            }
            for name, each in ran.items()
        }
        if any(compared.values()):
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
    known = [remedy for remedy in LABELS if any(remedy in each for each in backends.values())]
    left = MARGIN + max(width_of(LABELS[remedy]) for remedy in known) + 8
    longest = WIDTH - MARGIN - left - width_of("100%, time 10.00x, gluon") - 6
    most = max(each["memory"] for found in backends.values() for each in found.values())
    title = f"Memory relative to plain training, densenet121, {DEVICES[device]}; time per image"
    parts, spoken, y = [text(MARGIN, top + 24, title, bold=True)], list[str](), top + 40
    for remedy in known:
        parts.append(text(MARGIN, y + BAR, LABELS[remedy]))
        for name, found in backends.items():
            if remedy not in found:
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
    duration="20 minutes on two cores; 1 hour with full=True",
    measure=measure,
    tables=tables,
    draw=draw,
    uses=("backend", "full"),
)
