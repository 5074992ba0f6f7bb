"""Measure what ``train`` and ``evaluate`` gain by large pages, and the memory that these cost.

In docs/results/data, on an idle machine:

    python ../scripts/large_pages.py train torch > large-pages-train-torch.json
    python ../scripts/large_pages.py evaluate torch > large-pages-evaluate-torch.json

Each run is a process of its own, and the two cases take turns.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import densenet_multi as dm
from densenet_multi._large_pages import VARIABLE
from densenet_multi.backends import framework_versions
from densenet_multi.comparison.machine import cpus, processor

ROUNDS = 5
CASES: dict[str, dict[str, str]] = {"large": {}, "small": {VARIABLE: "0"}}
PROGRAM = [sys.executable, "-P", "-m", "densenet_multi"]
TRAINED = ["--data", "sample", "--batch-size", "256", "--epochs", "3", "--recalibrate", "0"]
TESTED = 10_000  # test images of Fashion-MNIST


def command(work: str, name: str, weights: Path) -> list[str]:
    """Return the arguments of the measured command."""
    if work == "train":
        return ["train", "--backend", name, *TRAINED, "--format", "json"]
    return ["evaluate", str(weights), "--backend", name, "--format", "json"]


def run(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command, and return its images per second and the peak of its memory in bytes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603
            PROGRAM + arguments,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        report: dict[str, Any] = json.load(output)
    speeds = [epoch["images_per_second"] for epoch in report.get("epochs", ())]
    speed = sum(speeds[1:]) / len(speeds[1:]) if speeds else TESTED / seconds
    return {"images_per_second": speed, "peak_bytes": usage.ru_maxrss * 1024}


def main(work: str, name: str, rounds: str = str(ROUNDS)) -> None:
    """Print the numbers of one backend as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        weights, spec = Path(folder, "weights.safetensors"), dm.get_spec("d2l")
        usage = dm.Usage(image_size=96, value_range=(0.0, 1.0), activation="softmax")
        dm.save_weights(weights, spec, dm.init_weights(spec), usage)
        arguments = command(work, name, weights)
        found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(int(rounds)):
            for case, environment in CASES.items():
                found[case].append(run(arguments, environment))
    shown = ["densenet-multi", *("WEIGHTS" if a == str(weights) else a for a in arguments)]
    report = {
        "command": " ".join(shown),
        "processor": processor(),
        "threads": len(cpus(None)),
        "versions": framework_versions(name),
        "runs": found,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
