"""keras.applications' DenseNets: Keras 3's ``.weights.h5`` and ``.keras``, and the older ``.h5``.

Layers are called ``conv2_block1_1_conv``; in the oldest files the stem is ``conv1/conv``,
``conv1/bn`` and the head ``fc1000``. How the files are built: see keras_files.py.
Source: https://github.com/keras-team/keras/blob/master/keras/src/applications/densenet.py
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..checkpoint import Checkpoint, Usage
from ..weights import WeightsError
from ._keras_declared import Declared, affine, declared_network
from ._keras_graph import UndeclaredError, graph_of
from ._keras_models import declared_models_logits, in_dtype_of, loaded, nchw_answer
from ._notes import unsaid
from ._told import NOTHING, Told
from .keras_files import (
    DECAY,
    EPSILON,
    declaration,
    different_conventions,
    is_keras,
    layers_have_names,
    names_in,
    read_declared,
    read_weights,
    write_weights,
)
from .recognize import checkpoint_of

BACKEND = "keras"
FAMILY = {  # what every DenseNet of keras.applications has
    "growth_rate": 32,
    "num_init_features": 64,
    "bn_size": 4,
    "compression": 0.5,
    "stem": "imagenet",
    "conv_bias": False,
    "transition_pool": "avg",
    "global_pool": "avg",
}
KERASHUB = (b"stack1_block1_1_conv", b"dense_net_backbone", b"DenseNetBackbone")
SIZES = {
    (6, 12, 24, 16): "DenseNet121",
    (6, 12, 32, 32): "DenseNet169",
    (6, 12, 48, 32): "DenseNet201",
}


def looks_like(path: Path, head: bytes) -> bool:
    """Whether it is Keras', and not KerasHub's."""
    return is_keras(path, head) and not names_in(path, head, KERASHUB)


def read(path: Path, told: Told = NOTHING) -> Checkpoint:
    """The weights; their running variances are biased, as Keras' are.

    A file that declares its layers is believed: see _keras_declared.py. One of weights alone is
    taken for a network of keras.applications if its layers are called as there, or if the user
    says so.
    """
    if (declared := declaration(path)) is not None:
        try:
            return _declared(path, declared_network(graph_of(declared)))
        except UndeclaredError as error:
            own = f"the model is a class of its own ({error}), whose inside is not declared"
            kept = [f"{own}; assumed: {ASSUMED}"]
    else:
        kept = _reasons(path, told)
    weights = read_weights(path, canonical_layer)
    return checkpoint_of(weights, "biased", _source(path), kept, bn_eps=EPSILON, bn_decay=DECAY)


ASSUMED = (
    "that its layers are connected as in keras.applications, with an average over the last maps "
    "and logits, whatever activation follows"
)


def _source(path: Path) -> str:
    return f"keras.applications: {path.name}"


def _reasons(path: Path, told: Told) -> list[str]:
    """Why weights alone are taken for keras.applications', as a note. Raises ``WeightsError``."""
    with path.open("rb") as file:
        head = file.read(512)
    if names_in(path, head, (b"pool2_conv", b"conv5_block1_1_conv")):
        return [f"weights alone do not say what is computed; assumed: {ASSUMED}"]
    if told.file_format and told.variant:
        return [f"taken for keras.applications' layers, because you said so; assumed: {ASSUMED}"]
    if not layers_have_names(path):
        return [f"the file does not store its layers' names; assumed: {ASSUMED}"]
    raise WeightsError(
        "expected layers that are called as in keras.applications, such as conv2_block1_1_conv, "
        "found others: networks whose layers merely count the same may pad, order and pool "
        "otherwise. Save the whole model (model.save('NAME.keras')), which declares what it "
        "computes; or, if you know that it is the same function, pass source_format='keras' and "
        "variant='densenet121'"
    )


def _declared(path: Path, declared: Declared) -> Checkpoint:
    weights, declared.stored = read_declared(path, declared)
    notes = declared.notes
    usage = usage_of(declared, notes)
    source = f"Keras: {path.name}"
    found = checkpoint_of(weights, "biased", source, notes, **declared.fields)
    known = {f.name: getattr(usage, f.name) for f in fields(Usage)}
    given = {name: value for name, value in known.items() if value is not None}
    if declared.before:
        given = {"mean": None, "std": None, **given}
    return replace(found, usage=replace(found.usage, **given).fits(found.spec))


def usage_of(declared: Declared, notes: list[str]) -> Usage:
    """How the declaration says that pixels are prepared, and what the outputs mean."""
    prepared = affine(declared.before, declared.stored)
    size = declared.image_size
    if prepared is None:
        return Usage(image_size=size, activation=declared.activation)
    scale, shift = prepared
    means = [-b / a for a, b in zip(*_same_length(scale, shift), strict=True)]
    high = 255.0 if max(abs(a) for a in scale) < 0.2 or max(means) > 2 else 1.0
    notes.append(
        f"its layers {', '.join(map(str, declared.before))} prepare pixels from 0 to {high:.0f}, "
        "which is assumed; they became the file's range, mean and std"
    )
    if len(set(scale)) == len(set(shift)) == 1:
        low, top = shift[0], shift[0] + high * scale[0]
        return Usage(image_size=size, activation=declared.activation, value_range=(low, top))
    stds = [1 / a for a in _same_length(scale, shift)[0]]
    return Usage(
        image_size=size,
        activation=declared.activation,
        value_range=(0.0, high),
        mean=tuple(means),
        std=tuple(stds),
    )


def _same_length(one: list[float], other: list[float]) -> tuple[list[float], list[float]]:
    size = max(len(one), len(other))
    return one * (size // len(one)), other * (size // len(other))


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write a ``.weights.h5`` that ``keras.applications.DenseNet121(weights=path)`` reads."""
    config = checkpoint.spec.config
    expected = [f"{name} {value}" for name, value in FAMILY.items()]
    found = [f"{f} {getattr(config, f)}" for f, v in FAMILY.items() if getattr(config, f) != v]
    if len(config.block_config) != 4:
        found.append(f"{len(config.block_config)} blocks")
    if found:
        raise WeightsError(
            f"{path}: expected a network of keras.applications' family (4 blocks, "
            f"{', '.join(expected)}), found {', '.join(found)}"
        )
    write_weights(path, checkpoint, native_layer)
    notes = different_conventions(checkpoint, "keras.applications' models")
    if config.block_config not in SIZES:
        blocks = ", ".join(map(str, config.block_config))
        notes.append(
            f"keras.applications has {', '.join(SIZES.values())}; none has blocks {blocks}"
        )
    if config.num_classes:
        notes.append(
            "keras.applications' models end in a softmax: for this network's logits, build them "
            "with classifier_activation=None"
        )
    return (*notes, *unsaid(checkpoint))


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.floating], str]:
    """The logits of the user's model, as its file declares it, or of keras.applications' own; who.

    Either loads the file itself. Raises ``LookupError`` where that cannot be this network, or
    accept these images.
    """
    from tensorflow import keras

    given = declaration(path)
    with suppress(UndeclaredError):
        if given is not None:
            declared = declared_network(graph_of(given))
            _, declared.stored = read_declared(path, declared)
            with in_dtype_of(checkpoint):
                answer = declared_models_logits(path, given, declared, images)
            return answer, f"your own model in Keras {keras.__version__}, as the file declares it"
    config = checkpoint.spec.config
    unlike = [f for f, value in FAMILY.items() if getattr(config, f) != value]
    if unlike or config.block_config not in SIZES or config.in_channels != 3:
        raise LookupError
    build = getattr(keras.applications, SIZES[config.block_config])
    size = (*images.shape[2:], config.in_channels)
    head = {"classes": config.num_classes} if config.num_classes else {"pooling": "avg"}
    with in_dtype_of(checkpoint):
        try:
            model = build(
                include_top=bool(config.num_classes),
                weights=None,
                input_shape=size,
                classifier_activation=None,
                **head,
            )
        except ValueError as error:  # images below 32 pixels
            raise LookupError(str(error)) from None
        answer = nchw_answer(loaded(model, path), images)
        return answer, f"keras.applications of Keras {keras.__version__}"


# --- Names --------------------------------------------------------------------------------------

INSIDE = {"norm1": "0_bn", "conv1": "1_conv", "norm2": "1_bn", "conv2": "2_conv"}
BACK = {theirs: ours for ours, theirs in INSIDE.items()}
FIXED = {
    "conv1_conv": "features.conv0",
    "conv1/conv": "features.conv0",
    "conv1_bn": "features.norm0",
    "conv1/bn": "features.norm0",
    "bn": "features.norm5",
    "predictions": "classifier",
    "fc1000": "classifier",
}


def canonical_layer(name: str) -> str | None:
    """``features.denseblock1.denselayer2.conv1`` for ``conv2_block2_1_conv``; None if unknown."""
    if match := re.fullmatch(r"conv(\d{1,3})_block(\d{1,3})_(\d_\w+)", name):
        leaf = BACK.get(match[3], match[3])
        return f"features.denseblock{int(match[1]) - 1}.denselayer{int(match[2])}.{leaf}"
    if match := re.fullmatch(r"pool(\d{1,3})_(bn|conv)", name):
        leaf = "norm" if match[2] == "bn" else "conv"
        return f"features.transition{int(match[1]) - 1}.{leaf}"
    return FIXED.get(name)


def native_layer(name: str) -> str:
    """The reverse of ``canonical_layer``, in Keras 3's names."""
    if match := re.fullmatch(r"features\.denseblock(\d+)\.denselayer(\d+)\.(\w+)", name):
        return f"conv{int(match[1]) + 1}_block{match[2]}_{INSIDE[match[3]]}"
    if match := re.fullmatch(r"features\.transition(\d+)\.(norm|conv)", name):
        return f"pool{int(match[1]) + 1}_{'bn' if match[2] == 'norm' else 'conv'}"
    return next(theirs for theirs, ours in FIXED.items() if ours == name)
