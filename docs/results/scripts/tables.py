"""Print the tables of docs/results and draw its curves, from the JSON files in docs/results/data.

    python docs/results/scripts/tables.py

A test compares these tables with the pages.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from densenet_multi._figures import powers, training_curve
from densenet_multi.commands.bench import LABELS

DEPTHS = (40, 100, 190, 250)
HERE = Path(__file__).parents[1] / "data"
BACKENDS = ("torch", "keras", "gluon", "flax")
MEMORY = {
    "kept": "kept",
    "returned": "returned",
    "large": "returned, large pages",
    "both": "kept, large pages",
}
PREDICTED = {  # -> the file of its measurement
    "densenet121, 1 image": "bench-inference-1",
    "densenet121, 8 images": "bench-inference",
    "d2l, 64 images": "bench-inference-d2l",
}
FASTEST = {
    "optimized": "optimized",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "bfloat16": "optimized, bfloat16",
    "bfloat16 openvino": "OpenVINO, bfloat16",
}
CURVES = ("chapter-torch", "chapter-torch-mean", "quick-torch-0", "modern-torch")
PROFILED = {"ours": "this package", "zoo": "MXNet's zoo"}


def read(name: str) -> Any:
    """Load a JSON file of docs/results/data."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def rows(heading: str, *lines: str, texts: int = 1) -> str:
    """Return a Markdown table: ``texts`` columns of text, then right-aligned numbers."""
    numbers = heading.count("|") + 1 - texts
    return "\n".join([f"| {heading} |", "|---" * texts + "|--:" * numbers + "|", *lines, ""])


def run(report: dict[str, Any]) -> str:
    """Return the table of a run's ``report.json``: each epoch, then the final weights."""
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
        tested = f"{final['test_loss']:.3f} | {final['test_accuracy']:.4f}"
        lines.append(f"| final weights | | | {tested} | |")
    heading = "epoch | training loss | training accuracy | test loss | test accuracy"
    return rows(f"{heading} | time since the start", *lines)


def first_epochs(reports: list[dict[str, Any]]) -> str:
    """Return the table of the first epoch of several runs."""
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
    heading = "framework | training loss | training accuracy | test loss | test accuracy"
    return rows(heading, *lines)


def recalibrated() -> str:
    """Return the table of test accuracies, as trained and after ``evaluate --recalibrate``."""
    lines = []
    for seed, suffix in enumerate(("", "-1")):
        epochs = read(f"chapter-torch{suffix}")["epochs"]
        best = read(f"chapter-torch{suffix}")["best_epoch"]
        for name, number in (("best", best), ("last", len(epochs))):
            before = epochs[number - 1]["validation_accuracy"]
            after = read(f"recalibrated-{name}{suffix}")["accuracy"]
            lines.append(f"| {seed} | {name} (epoch {number}) | {before:.4f} | {after:.4f} |")
    heading = "seed | weights | test accuracy, as trained | test accuracy, recalibrated"
    return rows(heading, *lines, texts=2)


def speed(result: dict[str, Any]) -> str:
    """Return the table of ``densenet-multi bench --format json``, a row for each case."""
    lines, labels = [], LABELS[result["work"]]
    for name, found in result["backends"].items():
        for case, measured in found["cases"].items():
            ratio = f"{measured['ratio']:.2f}x as fast" if "ratio" in measured else ""
            spread = f"{measured['lowest']:.1f}-{measured['highest']:.1f}"
            speed = f"{measured['images_per_second']:.1f} ({spread})"
            first = f"{measured['first_step_seconds']:.1f} s"
            share = f"{measured['share']:.2f}x" if "share" in measured else ""
            lines.append(f"| {name} | {labels[case]} | {speed} | {ratio} | {share} | {first} |")
    heading = f"backend | case | images per second | {next(iter(labels.values()))} is"
    return rows(f"{heading} | relative to matrix products | first step", *lines, texts=2)


def steps(
    prefix: str = "steps", backends: Sequence[str] = BACKENDS, case: str = "up to this step"
) -> str:
    """Return the table of ``steps.py``: images per second, also relative to the first row."""
    lines = []
    for name in backends:
        found = read(f"{prefix}-{name}")
        plain = next(iter(found.values()))
        lines += [f"| {name} | {k} | {v:.1f} | {v / plain:.2f}x |" for k, v in found.items()]
    heading = f"backend | {case} | images per second | relative to the first row"
    return rows(heading, *lines, texts=2)


def memory(result: dict[str, Any]) -> str:
    """Return the table of ``densenet-multi bench --work memory --format json``."""
    lines = []
    for name, found in result["backends"].items():
        plain = found["cases"]["plain"]
        for case in ("plain", "efficient", "max"):
            measured = found["cases"][case]
            grown = f"{measured['grown_bytes'] / 2**20:,.0f} MiB"
            ratio = measured["grown_bytes"] / plain["grown_bytes"]
            pairs = zip(plain["rounds"], measured["rounds"], strict=True)
            time = median(ours / theirs for ours, theirs in pairs)
            label = LABELS["memory"][case]
            lines.append(f"| {name} | {label} | {grown} | {ratio:.2f}x | {time:.2f}x |")
    heading = "backend | case | memory | memory relative to plain | time relative to plain"
    return rows(heading, *lines, texts=2)


def profile(name: str) -> str:
    """Return the table of ``profiles.py``: milliseconds of each operation that takes over 1%."""
    found = read(name)
    total = {case: sum(times.values()) for case, times in found.items()}
    most = {n: max(times.get(n, 0) for times in found.values()) for t in found.values() for n in t}
    names = sorted(most, key=most.__getitem__, reverse=True)
    shown = [n for n in names if any(found[c].get(n, 0) > 0.01 * total[c] for c in found)]
    lines = [
        f"| {n} | " + " | ".join(f"{found[c].get(n, 0):,.0f}" for c in found) + " |" for n in shown
    ]
    rest = {c: total[c] - sum(found[c].get(n, 0) for n in shown) for c in found}
    for label, values in (("other operations", rest), ("total", total)):
        lines.append(f"| {label} | " + " | ".join(f"{v:,.0f}" for v in values.values()) + " |")
    cases = (PROFILED.get(case, case) for case in found)
    return rows(" | ".join(["operation", *(f"{case} (ms)" for case in cases)]), *lines)


def at_depths(name: str, case: str, what: str) -> dict[int, float]:
    """Return one measurement of a case, ``what``, for every depth that was measured."""
    found = {depth: read(f"growth-{depth}")["backends"].get(name, {}) for depth in DEPTHS}
    ended = {depth: got.get("cases", {}).get(case) for depth, got in found.items()}
    return {depth: got[what] for depth, got in ended.items() if got}


def growth(what: str, unit: str, scale: float) -> str:
    """Return the table of one measurement at every depth, with the exponent of a power law."""
    lines = []
    for name in BACKENDS:
        for case in ("plain", "efficient"):
            values = at_depths(name, case, what)
            exponent = np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0]
            cells = " | ".join(
                f"{values[depth] / scale:,.3g} {unit}" if depth in values else ""
                for depth in DEPTHS
            )
            lines.append(f"| {name} | {case} | {cells} | {exponent:.2f} |")
    depths = " | ".join(f"L = {depth}" for depth in DEPTHS)
    return rows(f"backend | case | {depths} | exponent of L", *lines, texts=2)


def fastest() -> str:
    """Return the table of everything that predicts: its speed relative to ONNX Runtime's."""
    measured = [read(name)["backends"] for name in PREDICTED.values()]
    lines = []
    for case, label in FASTEST.items():
        ours = case in ("optimized", "bfloat16")
        for name in BACKENDS if ours else ("",):
            # a runtime was measured beside each backend
            ratios = [
                [relative(backends[b]["cases"], case) for b in ([name] if name else BACKENDS)]
                for backends in measured
            ]
            if all(None not in each for each in ratios):
                cells = " | ".join(f"{median(each):.2f}x" for each in ratios)
                lines.append(f"| {name} | {label} | {cells} |")
    return rows(" | ".join(["backend", "case", *PREDICTED]), *lines, texts=2)


def relative(cases: dict[str, Any], case: str, to: str = "onnxruntime") -> float | None:
    """Return the median, over rounds in turn, of the ratio of two cases' speeds."""
    if case not in cases:
        return None
    pairs = zip(cases[case]["rounds"], cases[to]["rounds"], strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def deviations() -> str:
    """Return the table of ``onnx_deviations.py``."""
    found = read("onnx-deviations")
    lines = [
        f"| {name} | " + " | ".join(f"{value:.1e}" for value in each.values()) + " |"
        for name, each in found["variants"].items()
    ]
    lines.append(f"| float64, in the evaluator | {found['evaluator_float64']:.1e} | | |")
    return rows("variant | float32 | --folded | --half", *lines)


def int8() -> str:
    """Return the table of ``int8.py``."""
    found, lines = read("int8"), []
    for name, label in (("quick", "recipe quick"), ("densenet121", "densenet121, untrained")):
        each = found[name]
        for place, kind in enumerate(("float32", "int8")):
            accuracy = f"{each['accuracy'][place]:.4f}" if "accuracy" in each else ""
            speed = each["images_per_second"][place]
            lines.append(
                f"| {label} | {kind} | {accuracy} | {each['bytes'][place] / 1e6:.2f} MB "
                f"| {speed:,.0f} | {speed / each['images_per_second'][0]:.2f}x |"
            )
    heading = "network | weights | test accuracy | file | images per second"
    return rows(f"{heading} | relative to float32", *lines, texts=2)


def seeds(name: str) -> str:
    """Return the table of several runs that differ in the seed, and their mean."""
    paths = sorted(HERE.glob(f"{name}-[0-9].json"))
    found = {path.stem[-1]: read(path.stem) for path in paths}
    accuracies = [report["test_accuracy"] for report in found.values()]
    lines = [
        f"| {seed} | {accuracy:.4f} |" for seed, accuracy in zip(found, accuracies, strict=True)
    ]
    average = f"{mean(accuracies):.4f} (standard deviation {stdev(accuracies):.4f})"
    return rows("seed | test accuracy of the last epoch", *lines, f"| mean | {average} |")


def kept_memory() -> str:
    """Return the table of ``kept_memory.py``."""
    lines = []
    for work in ("train", "evaluate"):
        runs = read(f"kept-memory-{work}-torch")["runs"]
        returned = middle(runs["returned"], "images_per_second")
        for case, found in runs.items():
            speed, peak = middle(found, "images_per_second"), middle(found, "peak_bytes")
            lines.append(
                f"| {work} | {MEMORY[case]} | {speed:.0f} | {speed / returned:.2f}x "
                f"| {peak / 2**30:.2f} GiB |"
            )
    heading = "command | freed memory is | images per second | relative to returned | peak memory"
    return rows(heading, *lines, texts=2)


def conventions() -> str:
    """Return the table of ``densenet-multi conventions``, for docs/conventions.md."""
    found = read("conventions")
    reports = {name: found["backends"][name] for name in BACKENDS}
    heads = [" ".join(next(iter(each["versions"].items()))) for each in reports.values()]
    heads = [head.partition("+")[0] for head in heads]
    lines = [
        f"| {question} | {' | '.join(r['answers'][probe] for r in reports.values())} |"
        for probe, question in found["questions"].items()
    ]
    return rows(" | ".join(["by default", *heads]), *lines, texts=5)


# --- The doctor ---------------------------------------------------------------------------------


def verdict(answer: dict[str, Any]) -> str:
    """Return how much of what a port breaks was named: all, part, other or nothing."""
    broken, named = set(answer["broken"]), set(answer["named"])
    if named == broken:
        return "all"
    if not named:
        return "nothing"
    return "part" if named < broken else "other"


def counted(answers: Sequence[dict[str, Any]]) -> str:
    """Return the cells of a row: how many answers there are of each kind."""
    kinds = [verdict(answer) for answer in answers]
    shares = (kinds.count(kind) for kind in ("all", "part", "nothing", "other"))
    return f"{len(answers)} | {' | '.join(map(str, shares))}"


def named() -> str:
    """Return what the doctor says about ports with one, two and three mistakes."""
    singles = [each for answers in read("doctor-singles").values() for each in answers]
    lines = [f"| one, each in turn | {counted(singles)} |"]
    for size, answers in read("doctor-sets").items():
        word = {"2": "two", "3": "three"}[size]
        lines.append(f"| {word}, at random | {counted(answers)} |")
    heading = "mistakes | ports | all named | some named | none named | another explanation"
    return rows(heading, *lines)


def unnoticed() -> str:
    """Return the accuracy that is left with each mistake, the highest first."""
    found = read("doctor-accuracy")
    broken = sorted(found["broken"], key=lambda each: -each["accuracy"])
    lines = [f"| | none | {found['right']:.3f} |"]
    lines += [f"| `{b['convention']}` | {b['text']} | {b['accuracy']:.3f} |" for b in broken]
    return rows("mistake | the port | accuracy", *lines, texts=2)


def doctors_time() -> str:
    """Return the seconds of a diagnosis, and how often it calls the port."""
    lines = []
    for variant, cases in read("doctor-seconds").items():
        for case, answer in cases.items():
            calls = answer.get("calls", 3)
            lines.append(f"| {variant} | {case} | {answer['seconds']:.0f} | {calls} |")
    return rows("network | mistakes | seconds | calls of the port", *lines, texts=2)


def middle(runs: list[dict[str, float]], key: str) -> float:
    """Return the median of a value over runs."""
    return median(each[key] for each in runs)


def changed_steps() -> str:
    """Return the table of ``lockstep.py``: what small changes do to one step."""
    lines = []
    for change, found in read("lockstep-torch")["step"]["changed"].items():
        how = f"all weights by {change.replace('e-0', 'e-')}"
        how = "float32 instead of float64" if change == "float32" else how
        deviations = f"{found['loss']:.1e} | {found['gradients']:.1e}"
        lines.append(f"| {how} | {deviations} | {found['flips']} | {found['windows']} |")
    return rows("what is changed | loss | gradients, L2 | flipped signs | pool windows", *lines)


def threads() -> str:
    """Return the table of ``lockstep.py``: a few losses with one thread and with two."""
    one, two = read("lockstep-torch")["threads"].values()
    lines = [
        f"| {i + 1} | {one[i]:.6f} | {two[i]:.6f} | {abs(two[i] - one[i]) / one[i]:.1e} |"
        for i in range(len(one))
    ]
    return rows("step | 1 thread | 2 threads | relative difference", *lines)


def picture() -> bytes:
    """Draw memory against depth."""
    lines = {}
    for name in BACKENDS:
        for case in ("plain", "efficient"):
            values = at_depths(name, case, "grown_bytes")
            depths = [float(depth) for depth in values]
            lines[f"{name}, {case}"] = depths, [value / 2**20 for value in values.values()]
    return powers(lines, "depth (L)", "memory (MiB)")


def training_curve_of(report: dict[str, Any]) -> bytes:
    """Draw loss and accuracy over the epochs of a ``report.json``, which does not store steps."""
    epochs = [{"kind": "epoch", **epoch} for epoch in report["epochs"]]
    return training_curve(epochs, report.get("final", {}).get("test_accuracy"))


def tables() -> dict[str, list[str]]:
    """Return the tables of each page of docs/results, in the order of the page."""
    epochs = [read("chapter-torch"), *(read(f"epoch-{name}") for name in BACKENDS[1:])]
    return {
        "training": [
            run(read("chapter-torch-mean")),
            run(read("chapter-torch")),
            run(read("chapter-torch-1")),
            recalibrated(),
            first_epochs(epochs),
            run(read("quick-torch-0")),
            seeds("quick-torch"),
            run(read("modern-torch")),
        ],
        "gpu": [
            run(read("gpu-chapter")),
            speed(read("gpu-training")),
            memory(read("gpu-memory")),
            speed(read("gpu-inference")),
        ],
        "onnx": [deviations(), int8()],
        "doctor": [named(), unnoticed(), doctors_time()],
        "speed": [
            fastest(),
            speed(read("bench-inference")),
            speed(read("bench-inference-1")),
            speed(read("bench-inference-64")),
            speed(read("torchvision-inference")),
            speed(read("torchvision-inference-1")),
            steps(),
            steps("steps-many", ["torch"], "model, images"),
            profile("profile-torch"),
            profile("profile-torch-1"),
            profile("profile-gluon"),
            profile("profile-gluon-1"),
            speed(read("bench-training")),
            speed(read("bench-training-densenet121")),
            profile("profile-gluon-training"),
            steps("steps-training"),
            memory(read("bench-memory")),
            growth("grown_bytes", "GiB", 2**30),
            growth("first_step_seconds", "s", 1),
            kept_memory(),
        ],
    }


if __name__ == "__main__":
    for page, found in tables().items():
        print(f"{page}.md\n", *found, sep="\n")
    print("lockstep.md\n", changed_steps(), threads(), sep="\n")
    (HERE / "growth.svg").write_bytes(picture())
    for curve in CURVES:
        (HERE / f"{curve}.svg").write_bytes(training_curve_of(read(curve)))
