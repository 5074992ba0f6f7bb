"""KerasHub's DenseNets: ``.weights.h5`` and ``.keras`` of a backbone or a classifier, and the
folder of a preset, which has one file for the backbone and one for the rest of a classifier.

The layer names differ from keras.applications', and so does the function: KerasHub uses SAME
padding. In a classifier's file, the backbone is a nested model.
Source: https://github.com/keras-team/keras-hub/blob/v0.32.0/keras_hub/src/models/densenet/densenet_backbone.py
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._installed import framework
from ..checkpoint import Checkpoint
from ..spec import DenseNetConfig, DenseNetSpec
from ..weights import Weights, WeightsError
from ._keras.files import DECAY, EPSILON, read_weights
from ._keras.models import in_dtype_of, loaded, nchw_answer
from ._keras.texts import names_in
from ._keras.writing import different_conventions, write_weights
from ._notes import unstored
from ._stated import NOTHING, Stated
from .keras_applications import KERASHUB
from .recognize import checkpoint_of

BACKEND = "keras"
LIBRARY = "keras_hub"
BACKBONE = "dense_net_backbone"
PRESET = ("model.weights.h5", "task.weights.h5")  # the backbone, and what a task adds
OPTIMIZER = {  # a new classifier has an Adam optimizer, whose state it expects in a file
    "optimizer/vars/0": np.array(0, np.int64),  # iterations
    "optimizer/vars/1": np.array(5e-5, np.float32),  # learning rate
}
SAME = (
    "KerasHub uses SAME padding; torchvision and this package pad as the paper does: the same "
    "weights compute the same function only for images whose sides are 1 modulo 4 (225, not 224)"
)


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a path is a Keras file with KerasHub's names, or the folder of a preset."""
    if path.is_dir():
        return (path / PRESET[0]).exists()
    return bool(names_in(path, head, KERASHUB))


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:  # ``stated`` is unused
    """Read the weights; their running variances are biased, as Keras computes them."""
    notes = [SAME]
    files = [path]
    if path.is_dir():
        files = [path / name for name in PRESET if os.path.lexists(path / name)]
    if not files:
        raise WeightsError(f"expected a preset folder, found one without {PRESET[0]}")
    weights: Weights = {}
    for file in files:
        found, more = read_weights(file)
        weights |= found
        notes += more
    source = f"KerasHub: {path.name}"
    return checkpoint_of(weights, "biased", source, notes, bn_eps=EPSILON, bn_decay=DECAY)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write a ``.weights.h5`` for a ``DenseNetImageClassifier``, or for a ``DenseNetBackbone`` if
    the network has no classifier."""
    config = checkpoint.spec.config
    if _is_not_kerashubs(checkpoint.spec):
        raise WeightsError(
            f"{path}: expected a network of KerasHub's kind (7x7 stem of 64 channels, bottlenecks "
            f"of 4 times the growth rate, no biases on convolutions), found {config}"
        )
    if config.num_classes:
        write_weights(path, checkpoint, native_layer, f"layers/{BACKBONE}/", OPTIMIZER)
    else:
        write_weights(path, checkpoint, native_layer)
    return (SAME, *different_conventions(checkpoint, "KerasHub's models"), *unstored(checkpoint))


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.floating], str]:
    """Load the file into KerasHub's own model; return the model's logits and name.

    Raises ``LookupError`` if that model cannot represent this network.
    """
    if _is_not_kerashubs(checkpoint.spec):
        raise LookupError("KerasHub has no network of this kind")
    if path.is_dir():
        raise LookupError("KerasHub's model does not load a preset folder")
    with framework("keras", "keras_hub"):
        import keras_hub

    with in_dtype_of(checkpoint):
        answer = nchw_answer(loaded(_library_model(checkpoint.spec.config), path), images)
    pooled = answer if answer.ndim == 2 else answer.mean(axis=(1, 2))
    return pooled, f"KerasHub {keras_hub.__version__}"


def _library_model(config: DenseNetConfig) -> Any:
    from keras_hub.models import DenseNetBackbone, DenseNetImageClassifier

    backbone = DenseNetBackbone(
        stackwise_num_repeats=list(config.block_config),
        image_shape=(None, None, config.in_channels),
        compression_ratio=config.compression,
        growth_rate=config.growth_rate,
    )
    if not config.num_classes:
        return backbone
    return DenseNetImageClassifier(backbone, config.num_classes)


def _is_not_kerashubs(spec: DenseNetSpec) -> bool:
    config = spec.config
    fixed = {"num_init_features": 64, "bn_size": 4, "stem": "imagenet", "conv_bias": False}
    fixed |= {"transition_pool": "avg", "global_pool": "avg"}
    widths = [t.conv for _, t in spec.stages if t]
    rounded = all(
        conv.out_channels == int(conv.in_channels * config.compression) for conv in widths
    )  # floored in binary floating point; this package floors the exact decimal product
    return not rounded or any(getattr(config, f) != value for f, value in fixed.items())


# --- Names --------------------------------------------------------------------------------------

INSIDE = {"norm1": "1_bn", "conv1": "1_conv", "norm2": "2_bn", "conv2": "2_conv"}
FIXED = {
    "features.conv0": "conv1_conv",
    "features.norm0": "conv1_bn",
    "features.norm5": "bn",
    "classifier": "predictions",
}


def native_layer(name: str) -> str:
    """Return ``stack1_block2_1_conv`` for ``features.denseblock1.denselayer2.conv1``."""
    if match := re.fullmatch(r"features\.denseblock(\d+)\.denselayer(\d+)\.(\w+)", name):
        return f"stack{match[1]}_block{match[2]}_{INSIDE[match[3]]}"
    if match := re.fullmatch(r"features\.transition(\d+)\.(norm|conv)", name):
        return f"transition{match[1]}_{'bn' if match[2] == 'norm' else 'conv'}"
    return FIXED[name]
