"""The tables of the pages in docs/results, from the JSON files in docs/results/data.

    python docs/results/scripts/tables.py

prints them (a test compares them with the pages) and draws growth.svg.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from densenet_multi._figures import powers

DEPTHS = (40, 100, 190, 250)
HERE = Path(__file__).parents[1] / "data"
BACKENDS = ("torch", "keras", "gluon", "flax")


def read(name: str) -> Any:
    """What a JSON file of docs/results/data holds."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def rows(heading: str, *lines: str) -> str:
    """A Markdown table: a heading, numbers to the right of the first column, lines."""
    return "\n".join([f"| {heading} |", "|---" + "|--:" * heading.count("|") + "|", *lines, ""])


def run(report: dict[str, Any]) -> str:
    """Epoch by epoch, what ``report.json`` of a run says, and of its final weights."""
    lines, epochs = [], report["epochs"]
    unit, name = (60, "min") if sum(e["seconds"] for e in epochs) > 600 else (1, "s")
    for epoch in epochs:
        seconds = sum(e["seconds"] for e in epochs[: epoch["number"]])
        lines.append(
            f"| {epoch['number']} | {epoch['loss']:.3f} | {epoch['accuracy']:.4f} "
            f"| {epoch['validation_loss']:.3f} | {epoch['validation_accuracy']:.4f} "
            f"| {seconds / unit:.0f} {name} |"
        )
    if final := report.get("final"):
        lines.append(f"| final | | | {final['test_loss']:.3f} | {final['test_accuracy']:.4f} | |")
    return rows("epoch | loss | accuracy | test loss | test accuracy | time", *lines)


def first_epochs(reports: list[dict[str, Any]]) -> str:
    """The first epoch of several runs."""
    lines = []
    for report in reports:
        epoch = report["epochs"][0]
        dtype = "bfloat16" if report["recipe"]["bfloat16"] else "float32"
        versions = ", ".join(f"{name} {found}" for name, found in report["versions"].items())
        lines.append(
            f"| {report['framework']} ({versions}), {dtype} | {epoch['loss']:.3f} "
            f"| {epoch['accuracy']:.4f} | {epoch['validation_loss']:.3f} "
            f"| {epoch['validation_accuracy']:.4f} |"
        )
    return rows("framework | loss | accuracy | test loss | test accuracy", *lines)


def recalibrated() -> str:
    """Test accuracies of two runs, as trained and with ``evaluate --recalibrate``."""
    lines = []
    for seed, suffix in enumerate(("", "-1")):
        epochs = read(f"chapter-torch{suffix}")["epochs"]
        best = read(f"chapter-torch{suffix}")["best_epoch"]
        for name, number in (("best", best), ("last", len(epochs))):
            before = epochs[number - 1]["validation_accuracy"]
            after = read(f"recalibrated-{name}{suffix}")["accuracy"]
            lines.append(f"| {seed}, {name} ({number}) | {before:.4f} | {after:.4f} |")
    return rows("seed, weights (epoch) | as trained | recalibrated", *lines)


def speed(result: dict[str, Any]) -> str:
    """What ``densenet-multi bench --format json`` printed."""
    lines = []
    for name, found in result["backends"].items():
        for case, measured in found["cases"].items():
            ratio = f"{measured['ratio']:.2f}" if "ratio" in measured else ""
            spread = f"{measured['lowest']:.1f}-{measured['highest']:.1f}"
            speed = f"{measured['images_per_second']:.1f} ({spread})"
            first = f"{measured['first_step_seconds']:.1f} s"
            share = f"{measured['share']:.2f}" if "share" in measured else ""
            lines.append(f"| {name}, {case} | {ratio} | {speed} | {share} | {first} |")
    return rows("backend, case | ratio | images/s | of products | first step", *lines)


def steps(prefix: str = "steps", backends: Sequence[str] = BACKENDS) -> str:
    """What ``steps.py`` printed, step by step: images per second, and the gain so far."""
    lines = []
    for name in backends:
        found = read(f"{prefix}-{name}")
        plain = next(iter(found.values()))
        lines += [f"| {name}, {k} | {v:.1f} | {v / plain:.2f} |" for k, v in found.items()]
    return rows("backend, step | images/s | gain", *lines)


def memory(result: dict[str, Any]) -> str:
    """What ``densenet-multi bench --work memory --format json`` printed."""
    lines = []
    for name, found in result["backends"].items():
        plain = found["cases"]["plain"]
        for case in ("plain", "efficient", "max"):
            measured = found["cases"][case]
            grown = f"{measured['grown_bytes'] / 2**20:,.0f} MiB"
            ratio = measured["grown_bytes"] / plain["grown_bytes"]
            pairs = zip(plain["rounds"], measured["rounds"], strict=True)
            time = median(ours / theirs for ours, theirs in pairs)
            lines.append(f"| {name}, {case} | {grown} | {ratio:.2f} | {time:.2f} |")
    return rows("backend, case | memory | over plain | time over plain", *lines)


def profile(name: str) -> str:
    """What ``profiles.py`` printed: milliseconds of each operation, of those that take some."""
    found = read(name)
    total = {case: sum(times.values()) for case, times in found.items()}
    most = {n: max(times.get(n, 0) for times in found.values()) for t in found.values() for n in t}
    names = sorted(most, key=most.__getitem__, reverse=True)
    shown = [n for n in names if any(found[c].get(n, 0) > 0.01 * total[c] for c in found)]
    lines = [
        f"| {n} | " + " | ".join(f"{found[c].get(n, 0):,.0f}" for c in found) + " |" for n in shown
    ]
    rest = {c: total[c] - sum(found[c].get(n, 0) for n in shown) for c in found}
    for label, values in (("others", rest), ("all", total)):
        lines.append(f"| {label} | " + " | ".join(f"{v:,.0f}" for v in values.values()) + " |")
    return rows(" | ".join(["operation", *(f"{case}, ms" for case in found)]), *lines)


def at_depths(name: str, case: str, what: str) -> dict[int, float]:
    """One number of a case at every depth that was measured."""
    found = {depth: read(f"growth-{depth}")["backends"].get(name, {}) for depth in DEPTHS}
    ended = {depth: got.get("cases", {}).get(case) for depth, got in found.items()}
    return {depth: got[what] for depth, got in ended.items() if got}


def growth(what: str, unit: str, scale: float) -> str:
    """A number of each case at every depth, and the exponent of the power through them."""
    lines = []
    for name in BACKENDS:
        for case in ("plain", "efficient"):
            values = at_depths(name, case, what)
            exponent = np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0]
            cells = " | ".join(
                f"{values[depth] / scale:,.3g} {unit}" if depth in values else ""
                for depth in DEPTHS
            )
            lines.append(f"| {name}, {case} | {cells} | {exponent:.2f} |")
    depths = " | ".join(f"L = {depth}" for depth in DEPTHS)
    return rows(f"backend, case | {depths} | exponent", *lines)


def picture() -> bytes:
    """Memory against depth."""
    lines = {}
    for name in BACKENDS:
        for case in ("plain", "efficient"):
            values = at_depths(name, case, "grown_bytes")
            depths = [float(depth) for depth in values]
            lines[f"{name}, {case}"] = depths, [value / 2**20 for value in values.values()]
    return powers(lines, "depth (L)", "memory (MiB)")


def tables() -> dict[str, list[str]]:
    """All of each page, in its order."""
    epochs = [read("chapter-torch"), *(read(f"epoch-{name}") for name in BACKENDS[1:])]
    return {
        "training": [
            run(read("chapter-torch-mean")),
            run(read("chapter-torch")),
            run(read("chapter-torch-1")),
            recalibrated(),
            first_epochs(epochs),
            run(read("modern-torch")),
        ],
        "gpu": [
            run(read("gpu-chapter")),
            speed(read("gpu-training")),
            memory(read("gpu-memory")),
            speed(read("gpu-inference")),
        ],
        "speed": [
            speed(read("bench-inference")),
            speed(read("bench-inference-1")),
            speed(read("bench-inference-64")),
            speed(read("torchvision-inference")),
            speed(read("torchvision-inference-1")),
            steps(),
            steps("steps-many", ["torch"]),
            profile("profile-torch"),
            profile("profile-gluon"),
            profile("profile-gluon-1"),
            speed(read("bench-training")),
            speed(read("bench-training-densenet121")),
            profile("profile-gluon-training"),
            steps("steps-training"),
            memory(read("bench-memory")),
            growth("grown_bytes", "GiB", 2**30),
            growth("first_step_seconds", "s", 1),
        ],
    }


if __name__ == "__main__":
    for page, found in tables().items():
        print(f"{page}.md\n", *found, sep="\n")
    (HERE / "growth.svg").write_bytes(picture())
