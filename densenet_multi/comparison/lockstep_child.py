"""A child process of ``lockstep``: train one backend on prepared weights and batches.

``python -m densenet_multi.comparison.lockstep_child SETTINGS`` reads ``weights.safetensors``,
``images.npy``, ``labels.npy`` and ``recipe.json``. The settings name the folder of these files and
the backend. The process trains once in each dtype, reports every step, and writes
``BACKEND-DTYPE.safetensors`` into the folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import hide_gpus, load_backend
from ..formats.portable import load_checkpoint, save_weights
from ..training.history import Epoch, Step
from ..training.recipe import Recipe
from .child_process import run_child, say
from .suspects import suspect_in_evaluation, suspect_in_training

DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Repeated:
    """One example per label; if there are fewer images than labels, the images repeat."""

    images: npt.NDArray[np.floating[Any]]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        """Return the images of these examples."""
        taken: npt.NDArray[np.floating[Any]] = self.images[indices % len(self.images)]
        return taken


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the losses and seconds of ``settings["backend"]`` in each dtype.

    With ``settings["suspect"]``, train nothing: return which convention the backend breaks.

    The seconds are those of ``fit``, including any compilation. Every backend trains on the CPU: a
    GPU may compute float32 with reduced precision, and not every framework can use it.
    """
    hide_gpus()
    backend, folder = load_backend(settings["backend"]), Path(settings["folder"])
    checkpoint = load_checkpoint(folder / "weights.safetensors")
    spec, weights = checkpoint.spec, checkpoint.weights
    if settings.get("suspect"):
        found = suspect_in_evaluation(backend, spec, weights)
        return {"suspect": found or suspect_in_training(backend, spec, weights)}
    recipe = Recipe.from_json((folder / "recipe.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    data = Repeated(images, np.load(folder / "labels.npy"))
    losses, seconds = {}, {}
    for dtype in DTYPES:
        model = backend.build(spec, dtype=dtype)
        backend.import_weights(model, {n: array.astype(dtype) for n, array in weights.items()})
        start = time.perf_counter()
        history = backend.fit(model, data, recipe, callbacks=[SayStep(dtype)])
        seconds[dtype] = time.perf_counter() - start
        losses[dtype] = [step.loss for step in history.steps]
        exported = backend.export_weights(model)
        save_weights(folder / f"{settings['backend']}-{dtype}.safetensors", spec, exported)
    return {"framework": backend.FRAMEWORK, "losses": losses, "seconds": seconds}


@dataclass(frozen=True)
class SayStep:
    """A callback of ``fit`` that reports every step to the parent."""

    dtype: str

    def __call__(self, event: Step | Epoch) -> None:
        """Report the number of a step; ignore epochs."""
        if isinstance(event, Step):
            say({"dtype": self.dtype, "step": event.number})


if __name__ == "__main__":
    run_child(measure)
