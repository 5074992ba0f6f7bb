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
from .._checks import ConfigError
from .._files import as_path
from ..diagnosis import Diagnosis, diagnose, diagnose_outputs
from ..diagnosis.port import loaded
from ..formats.recognize import variant_name

INPUTS = "inputs"


def doctor(
    weights: str | os.PathLike[str],
    *,
    model: str | Callable[[Any], Any] | None = None,
    outputs: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    prefix: str | None = None,
    dtype: str = "float32",
    most: int = 3,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return a diagnosis as a dictionary: see ``diagnosis.Diagnosis`` for its entries.

    Raises ``ConfigError``, ``ImageError``, and the errors of ``formats.read``.

    Arguments:
        weights: a checkpoint of any known format.
        model: the port, a function from NumPy images to logits, or ``"module:name"``.
        outputs: instead of ``model``, a file of ``numpy.savez``: ``inputs`` (normalized images),
            ``logits``, and possibly maps of stages.
        variant: as for ``formats.read``.
        prefix: as for ``formats.read``.
        dtype: of the images that ``model`` is asked with.
        most: how many broken conventions to look for at once.
        advance: called with a line of text after every trial.
    """
    if (model is None) == (outputs is None):
        raise ConfigError("model: expected model= or outputs=, one of the two")
    path = as_path(weights)
    checkpoint = formats.read(path, variant=variant, prefix=prefix)
    how: dict[str, Any] = {"usage": checkpoint.usage, "most": most, "advance": advance}
    spec, arrays = checkpoint.spec, checkpoint.weights
    if model is not None:
        port = loaded(model) if isinstance(model, str) else model
        found = diagnose(spec, arrays, port, dtype=dtype, **how)
    else:
        saved = _saved(outputs)
        found = diagnose_outputs(spec, arrays, saved.pop(INPUTS), saved, **how)
    return {"weights": str(path), "variant": variant_name(spec.config), **as_json(found)}


def _saved(outputs: Any) -> dict[str, npt.NDArray[Any]]:
    path = as_path(outputs)
    try:
        with np.load(path, allow_pickle=False) as archive:
            saved = {name: archive[name] for name in archive}
    except (ValueError, EOFError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"outputs: expected a file of numpy.savez, found another in {path}; type in Python: "
            "numpy.savez('port.npz', inputs=images, logits=logits)"
        ) from error
    if INPUTS not in saved or not {"logits", "output"} & saved.keys():
        raise ConfigError(
            f"outputs: expected arrays named inputs and logits in {path}, found "
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
