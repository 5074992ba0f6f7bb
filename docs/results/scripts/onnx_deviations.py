"""Measure how far ONNX Runtime's logits are from the reference's, for every variant.

In docs/results/data, with the extra ``onnx`` (ten minutes on two cores):

    python ../scripts/onnx_deviations.py > onnx-deviations.json

Weights are random, with random running statistics. Each network is asked at an even and at an odd
image size. The evaluator of the package ``onnx`` computes small networks in float64.
"""

import json
import sys

import numpy as np
import onnxruntime
from onnx.reference import ReferenceEvaluator
from random_weights import random_weights  # beside this script

import densenet_multi as dm
from densenet_multi.comparison.deviation import deviation
from densenet_multi.onnx import to_proto
from densenet_multi.variants import VARIANTS
from densenet_multi.weights import Weights

SIZES = {"imagenet": (64, 65), "cifar": (32, 33)}  # by stem


def in_runtime(spec: dm.DenseNetSpec, weights: Weights, x: np.ndarray, **options: bool) -> float:
    """Return the largest deviation of ONNX Runtime from the reference."""
    graph = to_proto(spec, weights, **options).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": x})
    return deviation(logits, dm.reference.predict(spec, weights, x))


def main() -> None:
    """Print {variant: {kind of file: largest deviation}} as JSON."""
    found: dict[str, dict[str, float]] = {}
    kinds = {"float32": {}, "folded": {"folded": True}, "half": {"half": True}}
    for variant in VARIANTS:
        spec = dm.get_spec(variant)
        weights, channels = random_weights(spec, 0), spec.config.in_channels
        found[variant] = dict.fromkeys(kinds, 0.0)
        for size in SIZES[spec.config.stem]:
            x = np.random.default_rng(1).random((2, channels, size, size), np.float32)
            for kind, options in kinds.items():
                one = in_runtime(spec, weights, x, **options)
                found[variant][kind] = max(found[variant][kind], one)
        print(variant, found[variant], file=sys.stderr)
    spec = dm.get_spec("d2l", block_config=(2, 2))
    weights = {name: a.astype(np.float64) for name, a in random_weights(spec, 0).items()}
    x = np.random.default_rng(1).random((2, 1, 33, 33))
    evaluator = ReferenceEvaluator(to_proto(spec, weights))
    (logits,) = evaluator.run(None, {"images": x})
    exact = deviation(logits, dm.reference.predict(spec, weights, x))
    about = {"onnxruntime": onnxruntime.__version__, "evaluator_float64": exact}
    print(json.dumps({**about, "variants": found}, indent=1))


if __name__ == "__main__":
    main()
