"""Measure the doctor: what it names, what nobody would notice, and how long it takes.

In docs/results/data, with the extra ``torch`` (an hour on two cores, of which ``sets`` takes 30
minutes):

    densenet-multi train --data sample --recipe quick --backend torch --output run
    python ../scripts/doctor.py singles > doctor-singles.json
    python ../scripts/doctor.py sets 30 > doctor-sets.json
    python ../scripts/doctor.py accuracy run/last.safetensors > doctor-accuracy.json
    python ../scripts/doctor.py seconds > doctor-seconds.json

A port is the network with some of its operations exchanged, which answers in float32.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from random_weights import random_weights  # beside this script

import densenet_multi as dm
from densenet_multi.data import Preparation, load_sample, to_input
from densenet_multi.diagnosis.conventions import STATISTICS, Pixels, Suspect, suspects
from densenet_multi.diagnosis.network import OUTPUT, Network
from densenet_multi.formats.portable import load_checkpoint
from densenet_multi.weights import Weights

Array = npt.NDArray[Any]
MEAN, STD = STATISTICS["ImageNet"]
PIXELS, USAGE = Pixels(MEAN, STD), dm.Usage(value_range=(0.0, 1.0), mean=MEAN, std=STD)
INVISIBLE = ("features_after_relu", "half_precision")  # seen in maps; recognized otherwise
SMALL = {
    "bottleneck": dm.DenseNetConfig(block_config=(2, 2), growth_rate=8, num_init_features=16),
    "plain, with biases": dm.get_spec("d2l", block_config=(2, 2), in_channels=3).config,
    "CIFAR's stem": dm.get_spec("densenet_bc100_k12", block_config=(2, 2), in_channels=3).config,
}


def port_of(network: Network, broken: Sequence[Suspect], calls: list[int]) -> Callable[[Any], Any]:
    """Return a port that breaks conventions; it counts its calls."""
    changes = [change for suspect in broken for change in suspect.changes]

    def port(x: Array) -> Array:
        if x.shape[1] != network.spec.config.in_channels:
            raise ValueError("NHWC")
        calls.append(len(x))
        with np.errstate(all="ignore"):
            return network.outputs(x.astype(np.float64), changes)[OUTPUT].astype(np.float32)

    return port


def ask(
    spec: dm.DenseNetSpec, weights: Weights, broken: Sequence[Suspect], most: int = 3
) -> dict[str, Any]:
    """Return what the doctor finds in a port that breaks conventions."""
    calls: list[int] = []
    port = port_of(Network(spec, weights), broken, calls)
    start = time.perf_counter()
    found = dm.diagnose(spec, weights, port, usage=USAGE, most=most)
    return {
        "broken": [each.convention for each in broken],
        "named": [each.convention for each in found.findings]
        + [each.convention for each in broken if each.text in (found.unexplained or "")],
        "or": [text for each in found.findings for text in each.or_else],
        "texts": [each.text for each in found.findings],
        "before": found.deviation if np.isfinite(found.deviation) else None,
        "same": found.same,
        "calls": len(calls),
        "seconds": time.perf_counter() - start,
    }


def singles() -> dict[str, Any]:
    """Break every convention alone, in each small network."""
    found: dict[str, Any] = {}
    for name, config in SMALL.items():
        spec = config.resolve()
        weights = random_weights(spec, 0)
        found[name] = [
            {**ask(spec, weights, [each]), "text": each.text}
            for each in suspects(spec, PIXELS)
            if each.convention not in INVISIBLE
        ]
    return found


def sets(minutes: str = "30") -> dict[str, Any]:
    """Break random pairs and triples, in turn, until the time is over."""
    rng, end = np.random.default_rng(0), time.perf_counter() + 60 * float(minutes)
    specs = {name: config.resolve() for name, config in SMALL.items()}
    found: dict[str, Any] = {"2": [], "3": []}
    while time.perf_counter() < end:
        for size in (2, 3):
            name = str(rng.choice(list(specs)))
            spec = specs[name]
            known = [s for s in suspects(spec, PIXELS) if s.convention not in INVISIBLE]
            drawn: list[Suspect] = []
            while len(drawn) < size:
                other = known[rng.integers(len(known))]
                if other.convention not in [each.convention for each in drawn]:
                    drawn.append(other)
            answer = ask(spec, random_weights(spec, int(rng.integers(1000))), drawn)
            found[str(size)].append({**answer, "drawn": [each.text for each in drawn]})
    return found


def accuracy(path: str, images: str = "1000") -> dict[str, Any]:
    """Count how many images a trained network still gets right with each mistake."""
    checkpoint = load_checkpoint(path)
    spec, usage = checkpoint.spec, checkpoint.usage
    gray, labels = load_sample("test")
    prepare = Preparation(usage.image_size or 28, spec.config.in_channels, usage)
    x = prepare(to_input(gray[: int(images)])).astype(np.float64)
    network, labels = Network(spec, checkpoint.weights), labels[: len(x)]
    read = Pixels(tuple(usage.mean), tuple(usage.std)) if usage.mean and usage.std else Pixels()
    found: dict[str, Any] = {"images": len(x), "right": _share(network, x, labels, ())}
    found["broken"] = [
        {
            "convention": each.convention,
            "text": each.text,
            "accuracy": _share(network, x, labels, each.changes),
        }
        for each in suspects(spec, read)
        if each.convention not in INVISIBLE[:1]
    ]
    return found


def _share(network: Network, x: Array, labels: Array, changes: Any) -> float:
    with np.errstate(all="ignore"):
        parts = [
            network.outputs(x[start : start + 100], changes)[OUTPUT]
            for start in range(0, len(x), 100)
        ]
    return float((np.concatenate(parts).argmax(axis=1) == labels).mean())


def seconds() -> dict[str, Any]:
    """Time a right port, one mistake, two, and one that is not known."""
    found: dict[str, Any] = {}
    for variant in ("d2l", "densenet121"):
        spec = dm.get_spec(variant, in_channels=3)
        weights = random_weights(spec, 0)
        known = {each.text: each for each in suspects(spec, PIXELS)}
        named = {each.convention: each for each in known.values()}
        cases = {
            "none": [],
            "one": [named["concat_order"]],
            "two": [named["bn_epsilon"], named["kernel_flipped"]],
        }
        found[variant] = {name: ask(spec, weights, broken) for name, broken in cases.items()}

        def unknown(x: Array, spec: Any = spec, weights: Any = weights) -> Array:
            if x.shape[1] != spec.config.in_channels:
                raise ValueError("NHWC")
            logits = dm.reference.predict(spec, weights, x)
            return (logits * np.linspace(1, 2, logits.shape[1])).astype(np.float32)

        start = time.perf_counter()
        answer = dm.diagnose(spec, weights, unknown, usage=USAGE)
        found[variant]["one that it does not know"] = {
            "named": [each.convention for each in answer.findings],
            "unexplained": answer.unexplained,
            "seconds": time.perf_counter() - start,
        }
    return found


if __name__ == "__main__":
    work = {"singles": singles, "sets": sets, "accuracy": accuracy, "seconds": seconds}
    print(json.dumps(work[sys.argv[1]](*sys.argv[2:]), indent=1))
