"""The state of a training run: everything that any backend's ``fit`` needs to resume it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._checks import ConfigError, bad, check_seconds, instance, integer, items
from .._files import as_path
from ..formats._safetensors import TRAINING_STATE_ENTRY, read_safetensors, write_safetensors
from ..manifest import tensors
from ..spec import DenseNetConfig, DenseNetSpec
from ..weights import Weights, WeightsError, check_depth, check_mapping, check_weights, widest
from .began import BEGAN, Began
from .fields import AMOUNT, COUNT, OBJECT, TEXT, parsed
from .history import EPOCH, STEP, Epoch, Step

VELOCITY = "velocity."  # prefix of a weight's canonical name, for its velocity
MEAN = "mean."  # prefix of a weight's canonical name, for its mean over the averaged epochs
POSITION = {  # the shape of a state's metadata entry: see fields.py
    "config": OBJECT,
    "steps": COUNT,
    "epochs": [EPOCH],
    "unfinished": [STEP],
    "seconds": AMOUNT,
    "averaged?": COUNT,
    "began?": BEGAN,
    "sha256?": TEXT,
}


@dataclass(frozen=True)
class TrainingState:
    """The state of a training run between two steps.

    Attributes:
        weights: every tensor, {canonical name: array}.
        velocity: v of the rule in recipe.py, for each trained tensor (all, or the classifier's).
        steps: the number of completed steps.
        epochs: the completed epochs.
        unfinished: the completed steps of the current epoch.
        seconds: the duration of those steps.
        mean: the mean of the weights after each of the ``averaged`` epochs; None before the first.
        averaged: the number of epochs that ``mean`` includes.
        began: what the run began with, which must be the same when it resumes; None if unknown,
            and then not compared.
    """

    weights: Weights
    velocity: Weights
    steps: int
    epochs: tuple[Epoch, ...]
    unfinished: tuple[Step, ...]
    seconds: float
    mean: Weights | None = None
    averaged: int = 0
    began: Began | None = None

    def __post_init__(self) -> None:
        check_mapping(self.weights)
        check_mapping(self.velocity, "velocity")
        if self.mean is not None:
            check_mapping(self.mean, "mean")
        for name in ("steps", "averaged"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 0))
        for name, kind in (("epochs", Epoch), ("unfinished", Step)):
            allowed = f"a list of {kind.__name__} objects"
            found = items(name, getattr(self, name), allowed)
            if not all(isinstance(each, kind) for each in found):
                raise bad(name, found, allowed)
            object.__setattr__(self, name, found)
        check_seconds("seconds", self.seconds)


def save_state(path: str | os.PathLike[str], spec: DenseNetSpec, state: TrainingState) -> None:
    """Write a run's state atomically, as one safetensors file.

    Raises ``WeightsError`` if a tensor does not fit the spec or is not finite; ``OSError`` if the
    file cannot be written.
    """
    instance("state", state, TrainingState, "a TrainingState")
    dtype = widest(state.weights)
    arrays = dict(check_weights(spec, state.weights, dtype))
    check_velocity(spec, state.velocity)
    arrays |= {VELOCITY + name: array for name, array in state.velocity.items()}
    if state.mean is not None:
        mean = _checked_mean(spec, state.mean, dtype)
        arrays |= {MEAN + name: array for name, array in mean.items()}
    position = {
        "config": json.loads(spec.to_json()),
        "steps": state.steps,
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "unfinished": [asdict(step) for step in state.unfinished],
        "seconds": state.seconds,
        "averaged": state.averaged,
        **({"began": state.began.to_dict()} if state.began else {}),
    }
    position["sha256"] = _digest(position)
    write_safetensors(
        as_path(path), arrays, {TRAINING_STATE_ENTRY: json.dumps(position, sort_keys=True)}
    )


def load_state(path: str | os.PathLike[str]) -> tuple[DenseNetSpec, TrainingState]:
    """Read and validate the state of a training run, as written by ``save_state``.

    Raises ``WeightsError`` unless it is the complete state of a training run; ``OSError`` if
    the file cannot be read.
    """
    metadata, arrays = read_safetensors(as_path(path))
    if TRAINING_STATE_ENTRY not in metadata:
        raise WeightsError(
            f"{path}: expected the state of a training run, found none in its metadata; "
            f"to start from weights alone, pass weights={str(path)!r}"
        )
    try:
        position = parsed(metadata[TRAINING_STATE_ENTRY], POSITION)
        config = DenseNetConfig.from_json(json.dumps(position["config"]))
        velocity, mean = (_taken(arrays, prefix) for prefix in (VELOCITY, MEAN))
        weights = arrays
        check_depth(config, weights)
        spec = config.resolve()
        first = weights.get("features.conv0.weight")  # check_weights reports if it is missing
        dtype = "float32" if first is None else first.dtype.name
        checked = check_weights(spec, weights, dtype)
        check_velocity(spec, velocity)
        state = TrainingState(
            checked,
            velocity,
            position["steps"],
            tuple(Epoch(**_fields(epoch, EPOCH)) for epoch in position["epochs"]),
            tuple(Step(**_fields(step, STEP)) for step in position["unfinished"]),
            position["seconds"],
            _checked_mean(spec, mean, dtype) if mean else None,
            position.get("averaged", 0),
            Began.from_dict(position["began"]) if "began" in position else None,
        )
        _check_digest(position)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except ValueError as error:
        raise WeightsError(f"{path}: expected a complete training state; {error}") from None
    return spec, state


def _digest(position: Mapping[str, Any]) -> str:
    """Return the SHA256 of a position's entries except "sha256", to detect edited numbers."""
    rest = {name: value for name, value in position.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_digest(position: Mapping[str, Any]) -> None:
    if "sha256" not in position and "began" not in position:  # an older version saved it
        return
    found, stated = _digest(position), position.get("sha256")
    if found != stated:
        raise ConfigError(f"sha256: expected {stated}, as when it was saved, found {found}")


def _fields(given: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in shape}


def _taken(arrays: dict[str, Any], prefix: str) -> Weights:
    """Remove the arrays whose names start with a prefix; return them without the prefix."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def _checked_mean(spec: DenseNetSpec, mean: Weights, dtype: str) -> Weights:
    try:
        return check_weights(spec, mean, dtype)
    except WeightsError as error:
        raise WeightsError(f"{MEAN}…: {error}") from None


def check_velocity(spec: DenseNetSpec, velocity: Mapping[str, Any]) -> None:
    """Raise ``WeightsError`` if a velocity does not fit the spec or is not finite."""
    known = tensors(spec)
    check_mapping(velocity, "velocity")
    for name, array in velocity.items():
        expected = known[name].shape if name in known else None
        is_floats = getattr(getattr(array, "dtype", None), "kind", "") == "f"
        if not is_floats or array.shape != expected or not np.isfinite(array).all():
            found = getattr(array, "shape", type(array).__name__)
            raise WeightsError(
                f"{VELOCITY}{name}: expected finite values of shape {expected}, found {found}"
            )
