"""Quantize networks to int8 with ONNX Runtime, and measure accuracy, size and speed.

In docs/results/data, with Fashion-MNIST and the extra ``onnx`` (about ten minutes on two cores):

    python ../scripts/int8.py final.safetensors > int8.json

``final.safetensors`` is any network for Fashion-MNIST, such as that of ``train --recipe quick``.
densenet121 with its initial weights follows: only its size and speed mean something. ``quantize``
is the recipe: copy it.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import densenet_multi as dm
from densenet_multi import formats
from densenet_multi.comparison.machine import cpus, processor
from densenet_multi.data import Examples, load_data
from densenet_multi.tasks.evaluate import evaluate

CALIBRATION = 512  # training images
BATCH = 64
ROUNDS = 5


class Calibration(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Batches of images, prepared as for training."""

    def __init__(self, images: Iterator[np.ndarray[Any, Any]]) -> None:
        self.images = images

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch as the network's inputs, or None."""
        images = next(self.images, None)
        return None if images is None else {"images": images}


def quantize(source: Path, destination: Path, images: Iterator[np.ndarray[Any, Any]]) -> None:
    """Write an ONNX file with int8 weights and activations; ``images`` show their ranges."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            destination,
            Calibration(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],  # a BatchNorm in int8 costs accuracy
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def batches(examples: Examples, count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield float32 batches of the first ``count`` images."""
    for start in range(0, count, BATCH):
        yield examples.take(np.arange(start, min(start + BATCH, count))).astype(np.float32)


def speeds(paths: list[Path], images: np.ndarray[Any, Any]) -> list[float]:
    """Return the images per second of each file, the median of rounds in turn."""
    sessions = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths
    ]
    found: list[list[float]] = [[] for _ in paths]
    for _ in range(1 + ROUNDS):
        for session, seconds in zip(sessions, found, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": images})
            seconds.append(time.perf_counter() - start)
    return [len(images) / statistics.median(seconds[1:]) for seconds in found]


def measured(folder: Path, checkpoint: dm.Checkpoint, size: int) -> dict[str, Any]:
    """Quantize a network; return both files' bytes and speeds, and accuracies if it is trained."""
    paths = [folder / "float32.onnx", folder / "int8.onnx"]
    formats.write(paths[0], checkpoint, folded=True)
    config = checkpoint.spec.config
    trained = config.num_classes == 10
    if trained:
        data = load_data("fashion-mnist", image_size=size, usage=checkpoint.usage)
        examples = data.train
        images = batches(examples, CALIBRATION)
        shown = next(batches(examples, BATCH))
    else:
        shape = BATCH // 8, config.in_channels, size, size
        shown = np.random.default_rng(0).random(shape, np.float32)
        images = iter([shown])
    quantize(paths[0], paths[1], images)
    report: dict[str, Any] = {
        "bytes": [path.stat().st_size for path in paths],
        "image_size": size,
        "images": len(shown),
        "images_per_second": speeds(paths, shown),
    }
    if trained:
        report["accuracy"] = [evaluate(path)["accuracy"] for path in paths]
    return report


def main(path: str) -> None:
    """Print the numbers as JSON; float32 first, int8 second."""
    trained = dm.load_checkpoint(path)
    spec = dm.get_spec("densenet121")
    untrained = dm.Checkpoint(spec, dm.init_weights(spec))
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "quick": measured(Path(folder), trained, trained.usage.image_size or 28),
            "densenet121": measured(Path(folder), untrained, 224),
        }
    about = {"processor": processor(), "threads": len(cpus(None))}
    about["onnxruntime"] = onnxruntime.__version__
    print(json.dumps({**about, "calibration": CALIBRATION, **report}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
