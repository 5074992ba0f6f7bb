"""Name the conventions that a port breaks, from weights in a file and the port's outputs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import formats
from .._checks import ConfigError, listed, shown
from .._files import as_path
from .._inputs import ImageError
from ..backends import first_installed, load_backend
from ..checkpoint import Checkpoint
from ..diagnosis import Diagnosis, diagnose, diagnose_outputs
from ..diagnosis.diagnose import batch, channels_first
from ..diagnosis.port import Port, loaded, to_array, to_number
from ..diagnosis.step import Step, diagnose_step
from ..formats.recognize import variant_name

INPUTS = "inputs"


def doctor(
    weights: str | os.PathLike[str],
    *,
    model: str | Callable[[Any], Any] | None = None,
    outputs: str | os.PathLike[str] | None = None,
    step: str | Callable[[Any, Any], Mapping[str, Any]] | None = None,
    after: str | os.PathLike[str] | None = None,
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    decayed: str = "all",
    variant: str | None = None,
    prefix: str | None = None,
    dtype: str = "float32",
    most: int = 3,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return a diagnosis as a dictionary: see ``diagnosis.Diagnosis`` for its entries.

    Raises ``ConfigError``, ``ImageError``, and the errors of ``formats.read``. A training step also
    needs an installed backend, which computes the right gradients: ``BackendNotInstalledError``.

    Arguments:
        weights: a checkpoint of any known format.
        model: the port, a function from NumPy images to logits, or ``"module:name"``.
        outputs: instead of ``model``, a file of ``numpy.savez``: ``inputs`` (normalized images),
            ``logits``, and possibly maps of stages; with ``after``, instead of logits, ``labels``
            and possibly ``loss``.
        step: instead of ``model``, a function that takes one training step from these weights: from
            images and labels to {``"loss"``, ``"weights"``}. The weights are all tensors after the
            step, {canonical name: array}, or the path of a checkpoint.
        after: a checkpoint of any known format: the weights after a step on ``outputs``.
        learning_rate: of the step.
        weight_decay: of the step.
        decayed: which weights the step decays: "all", "kernels", "without-biases",
            "without-norms" or "none".
        variant: as for ``formats.read``.
        prefix: as for ``formats.read``.
        dtype: of the images that ``model`` is asked with.
        most: how many broken conventions to look for at once.
        advance: called with a line of text after every trial.
    """
    is_step = step is not None or after is not None
    if after is not None and outputs is None:
        raise ConfigError("after: expected outputs= as well, the batch of the step; found none")
    named = {"model=": model, "outputs=": outputs, "step=": step}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            "model: expected one of model=, outputs= and step=, found "
            f"{' and '.join(given) or 'none of them'}"
        )
    if learning_rate is not None and not is_step:
        raise ConfigError("learning_rate: expected step= or after= as well, found neither")
    if is_step and learning_rate is None:
        raise ConfigError("learning_rate: expected the rate of the training step, found none")
    path = as_path(weights)
    checkpoint = formats.read(path, variant=variant, prefix=prefix)
    how: dict[str, Any] = {"usage": checkpoint.usage, "most": most, "advance": advance}
    spec, arrays = checkpoint.spec, checkpoint.weights
    if is_step:
        taken = _taken(checkpoint, step, outputs, after, dtype)
        rule: dict[str, Any] = {
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "decayed": decayed,
        }
        gradients = _gradients(checkpoint, taken["images"], taken["labels"])
        variance = checkpoint.usage.running_variance
        found = diagnose_step(
            spec, arrays, Step(**taken, **rule, gradients=gradients, variance=variance)
        )
    elif model is not None:
        port = loaded(model) if isinstance(model, str) else model
        found = diagnose(spec, arrays, port, dtype=dtype, **how)
    else:
        saved = _saved(outputs, {"logits", "output"})
        found = diagnose_outputs(spec, arrays, saved.pop(INPUTS), saved, **how)
    return {"weights": str(path), "variant": variant_name(spec.config), **as_json(found)}


# --- A training step ----------------------------------------------------------------------------


def _taken(
    checkpoint: Checkpoint, step: Any, outputs: Any, after: Any, dtype: str
) -> dict[str, Any]:
    """Return a step's images, labels, loss, and the weights after it."""
    if step is None:
        saved = _saved(outputs, {"labels"})
        images, _ = channels_first(checkpoint.spec, saved[INPUTS])
        labels = saved["labels"]
        returned: Any = {"weights": after, "loss": saved.get("loss")}
    else:
        images, labels = batch(checkpoint.spec, checkpoint.usage)
        images = images.astype(dtype)
        function = loaded(step) if isinstance(step, str) else step
        port = Port(checkpoint.spec, function, dtype, "step")
        returned = port.ask(images, labels)
        if not isinstance(returned, Mapping) or "weights" not in returned:
            raise ImageError(
                "step: expected a dictionary with 'weights' and 'loss' from the function, found "
                + (listed(returned) if isinstance(returned, Mapping) else shown(returned))
            )
    weights = returned["weights"]
    if isinstance(weights, str | os.PathLike):
        weights = formats.read(as_path(weights)).weights
    arrays = {name: to_array(name, array, "step") for name, array in dict(weights).items()}
    loss = returned.get("loss")
    kinds = {str(getattr(array, "dtype", "")).rpartition(".")[2] for array in weights.values()}
    return {
        "images": images,
        "labels": labels,
        "weights": arrays,
        "loss": None if loss is None else to_number("loss", loss, "step"),
        "dtype": "float64" if kinds == {"float64"} and dtype == "float64" else "float32",
    }


def _gradients(checkpoint: Checkpoint, images: Any, labels: Any) -> dict[str, Any]:
    """Return the gradients of a batch, computed by the first installed backend in float64."""
    backend = load_backend(first_installed())
    model = backend.build(checkpoint.spec, dtype="float64")
    backend.import_weights(model, checkpoint.weights)
    return backend.loss_and_gradients(model, np.asarray(images, np.float64), labels)[1]


# --- Files --------------------------------------------------------------------------------------


def _saved(outputs: Any, needed: set[str]) -> dict[str, npt.NDArray[Any]]:
    path = as_path(outputs)
    try:
        with np.load(path, allow_pickle=False) as archive:
            saved = {name: archive[name] for name in archive}
    except (ValueError, EOFError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"outputs: expected a file of numpy.savez, found another in {path}; type in Python: "
            "numpy.savez('port.npz', inputs=images, logits=logits)"
        ) from error
    if INPUTS not in saved or not needed & saved.keys():
        raise ConfigError(
            f"outputs: expected arrays named inputs and {min(needed)} in {path}, found "
            f"{', '.join(saved) or 'none'}"
        )
    return saved


def as_json(found: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON has it; a deviation that is not finite is None."""
    result: dict[str, Any] = asdict(found)
    result["findings"] = [_finite(each) for each in result["findings"]]
    return {**_finite(result), "same": found.same}


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }
