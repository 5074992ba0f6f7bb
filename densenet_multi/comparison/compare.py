"""``densenet-multi compare``: compare backends with the reference, on the same weights and images.

Each backend runs in its own child process (see compare_child.py) on files in a temporary folder.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import reference
from .._checks import DTYPES, function, integer, one_of, texts
from ..data import load_sample, to_input
from ..formats.portable import save_weights
from ..spec import DenseNetSpec, check_spec
from ..weights import Weights
from .child_process import report_of
from .deviation import TOLERANCES
from .machine import cpus, processor

CHUNK = 8  # images per call of the reference, whose float64 feature maps are large


def compare(
    spec: DenseNetSpec,
    weights: Weights,
    *,
    backends: list[str],
    image_size: int,
    batch_size: int,
    dtype: str = "float32",
    step: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Run each backend on ``batch_size`` real test images of ``image_size`` pixels per side.

    The gray images are repeated to fill ``in_channels``. ``step`` is called with a line of text
    ``progress_steps`` times. Returns JSON-serializable data; its ``backends`` maps names to
    reports (see compare_child.py). Their ``stages`` are deviations over the first ``stage_images``
    images. Raises ``ImageSizeError``, ``ConfigError``, ``WeightsError``.
    """
    check_spec(spec)
    backends, step = texts("backends", backends), function("step", step)
    one_of("dtype", dtype, DTYPES)
    images = _images(spec, integer("image_size", image_size, 1), batch_size, dtype)
    chunks: list[reference.Forward] = []
    for start in range(0, batch_size, CHUNK):
        step(f"NumPy reference, image {start + 1} of {batch_size}")
        chunk = reference.forward(spec, weights, images[start : start + CHUNK])
        # the feature maps of all images could fill the memory
        chunks.append(chunk if start == 0 else reference.Forward(chunk.logits, {}))
    reports = {}
    with tempfile.TemporaryDirectory(prefix="densenet_multi-") as temporary:
        folder = Path(temporary)
        save_weights(folder / "weights.safetensors", spec, weights)
        np.save(folder / "images.npy", images)
        np.save(folder / "expected.npy", np.concatenate([chunk.logits for chunk in chunks]))
        stages: dict[str, Any] = dict(chunks[0].stages)
        np.savez(folder / "stages.npz", **stages)
        for name in backends:
            step(f"backend {name}")
            reports[name] = report_of(
                f"{__package__}.compare_child",
                {"backend": name, "folder": str(folder)},
            )
    return {
        "config": json.loads(spec.to_json())["config"],
        "images": "Fashion-MNIST test images (the packaged sample)",
        "gray_repeated_over_channels": spec.config.in_channels > 1,
        "image_size": image_size,
        "batch_size": batch_size,
        "dtype": dtype,
        "tolerance": TOLERANCES[dtype],
        "stage_images": len(chunks[0].logits),
        "cpus": cpus(None),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "backends": reports,
    }


def progress_steps(backends: list[str], batch_size: int) -> int:
    """Return the number of times that ``compare`` calls ``step``."""
    return len(range(0, batch_size, CHUNK)) + len(backends)


def _images(spec: DenseNetSpec, image_size: int, batch_size: int, dtype: str) -> Any:
    pixels, _ = load_sample("test")
    batch_size = integer("batch_size", batch_size, 1, len(pixels))
    images = to_input(pixels[:batch_size], image_size)
    return images.repeat(spec.config.in_channels, axis=1).astype(dtype)
