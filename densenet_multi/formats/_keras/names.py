"""Convert layer names to and from those of keras.applications' DenseNets.

An example is ``conv2_block1_1_conv``. In the oldest files, the stem is ``conv1/conv`` and
``conv1/bn``, and the head is ``fc1000``.
Source: https://github.com/keras-team/keras/blob/master/keras/src/applications/densenet.py
"""

from __future__ import annotations

import re

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
    """Return ``features.denseblock1.denselayer2.conv1`` for ``conv2_block2_1_conv``.

    None if the name is unknown.
    """
    if match := re.fullmatch(r"conv(\d{1,3})_block(\d{1,3})_(\d_\w+)", name):
        leaf = BACK.get(match[3], match[3])
        return f"features.denseblock{int(match[1]) - 1}.denselayer{int(match[2])}.{leaf}"
    if match := re.fullmatch(r"pool(\d{1,3})_(bn|conv)", name):
        leaf = "norm" if match[2] == "bn" else "conv"
        return f"features.transition{int(match[1]) - 1}.{leaf}"
    return FIXED.get(name)


def native_layer(name: str) -> str:
    """Return Keras 3's name of a canonical layer; the inverse of ``canonical_layer``."""
    if match := re.fullmatch(r"features\.denseblock(\d+)\.denselayer(\d+)\.(\w+)", name):
        return f"conv{int(match[1]) + 1}_block{match[2]}_{INSIDE[match[3]]}"
    if match := re.fullmatch(r"features\.transition(\d+)\.(norm|conv)", name):
        return f"pool{int(match[1]) + 1}_{'bn' if match[2] == 'norm' else 'conv'}"
    return next(theirs for theirs, ours in FIXED.items() if ours == name)
