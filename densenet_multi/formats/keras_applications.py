"""keras.applications' DenseNets: Keras 3's ``.weights.h5`` and ``.keras``, and the older ``.h5``.

Layers are called ``conv2_block1_1_conv``; in the oldest files the stem is ``conv1/conv``,
``conv1/bn`` and the head ``fc1000``. How the files are built: see keras_files.py.
Source: https://github.com/keras-team/keras/blob/master/keras/src/applications/densenet.py
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..checkpoint import Checkpoint
from ..weights import WeightsError
from ._notes import unsaid
from ._told import NOTHING, Told
from .keras_files import (
    DECAY,
    EPSILON,
    different_conventions,
    in_dtype_of,
    loaded,
    names_in,
    nchw_answer,
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
}
KERASHUB = (b"stack1_block1_1_conv", b"dense_net_backbone", b"DenseNetBackbone")
SIZES = {
    (6, 12, 24, 16): "DenseNet121",
    (6, 12, 32, 32): "DenseNet169",
    (6, 12, 48, 32): "DenseNet201",
}


def looks_like(path: Path, head: bytes) -> bool:
    """Whether it is Keras' and has keras.applications' names, or numbers only."""
    names = names_in(path, head, (*KERASHUB, b"pool2_conv", b"conv2d_1", b"batch_normalization_1"))
    if not names.isdisjoint(KERASHUB):
        return False
    return b"pool2_conv" in names or {b"conv2d_1", b"batch_normalization_1"} <= names


def read(path: Path, told: Told = NOTHING) -> Checkpoint:  # told nothing else
    """The weights; their running variances are biased, as Keras' are."""
    notes = []
    weights = read_weights(path, canonical_layer)
    if "classifier.weight" in weights:
        notes.append(
            "keras.applications' models end in a softmax, unless built with "
            "classifier_activation=None; this network gives the logits before it"
        )
    source = f"keras.applications: {path.name}"
    return checkpoint_of(weights, "biased", source, notes, bn_eps=EPSILON, bn_decay=DECAY)


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
    """The logits of keras.applications' own model, which loads the file itself, and its name.

    Raises ``LookupError`` where that cannot be this network, or accept these images.
    """
    from tensorflow import keras

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
