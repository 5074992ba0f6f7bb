"""Measure what ``train`` and ``evaluate`` gain by keeping freed memory, and what it costs.

In docs/results/data, on an idle machine with Fashion-MNIST (about ten minutes each on two cores):

    python ../scripts/kept_memory.py train torch > kept-memory-train-torch.json
    python ../scripts/kept_memory.py evaluate torch > kept-memory-evaluate-torch.json

Pages of 2 MiB, which PyTorch can request, are measured as well. Each run is a process of its own;
the cases take turns.

Starting a process and importing a framework do not count: ``train`` reports the speed of each
epoch, of which the first is omitted; ``evaluate`` runs with few images and with many, and the
difference of the times belongs to the difference of the images.
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
from densenet_multi._memory import VARIABLE
from densenet_multi.backends import framework_versions
from densenet_multi.comparison.machine import cpus, processor

ROUNDS = 5
RETURNED = {VARIABLE: "0"}
CASES = {
    "kept": {VARIABLE: "1"},
    "returned": RETURNED,
    "large": RETURNED | {"THP_MEM_ALLOC_ENABLE": "1"},
    "both": {VARIABLE: "1", "THP_MEM_ALLOC_ENABLE": "1"},
}
PROGRAM = [sys.executable, "-P", "-m", "densenet_multi"]
TRAINED = ["--data", "sample", "--batch-size", "256", "--epochs", "3", "--recalibrate", "0"]
TESTED = ("sample", "fashion-mnist")  # 1,000 and 10,000 test images


def commands(work: str, name: str, weights: Path) -> list[list[str]]:
    """Return the arguments of the measured commands."""
    common = ["--backend", name, "--format", "json"]
    if work == "train":
        return [["train", *TRAINED, *common]]
    return [["evaluate", str(weights), "--data", data, *common] for data in TESTED]


def run(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], float, int]:
    """Run a command; return its report, its seconds, and the peak of its memory in bytes."""
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
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, PROGRAM + arguments)
        output.seek(0)
        return json.load(output), seconds, usage.ru_maxrss * 1024


def measured(runs: list[tuple[dict[str, Any], float, int]]) -> dict[str, float]:
    """Return the speed and the peak of memory, from one run of ``train`` or two of ``evaluate``."""
    peak = max(each for _, _, each in runs)
    if len(runs) == 1:
        ((report, _, _),) = runs
        speeds = [epoch["images_per_second"] for epoch in report["epochs"][1:]]
        return {"images_per_second": sum(speeds) / len(speeds), "peak_bytes": peak}
    (few, start, _), (many, end, _) = runs
    speed = (many["examples"] - few["examples"]) / (end - start)
    return {"images_per_second": speed, "peak_bytes": peak}


def main(work: str, name: str, rounds: str = str(ROUNDS)) -> None:
    """Print the numbers of one backend as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        weights, spec = Path(folder, "weights.safetensors"), dm.get_spec("d2l")
        usage = dm.Usage(image_size=96, value_range=(0.0, 1.0), activation="softmax")
        dm.save_weights(weights, spec, dm.init_weights(spec), usage)
        given = commands(work, name, weights)
        found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(int(rounds)):
            for case, environment in CASES.items():
                found[case].append(measured([run(each, environment) for each in given]))
    shown = [["WEIGHTS" if word == str(weights) else word for word in each] for each in given]
    report = {
        "commands": [" ".join(["densenet-multi", *each]) for each in shown],
        "environment": CASES,
        "processor": processor(),
        "threads": len(cpus(None)),
        "versions": framework_versions(name),
        "runs": found,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
