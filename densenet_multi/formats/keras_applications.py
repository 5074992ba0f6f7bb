"""Read complete Keras models, which declare their layers, and weights of keras.applications.

The files are Keras 3's ``.keras`` and ``.weights.h5``, and the older ``.h5``. See _keras/files.py
for their layout, _keras/declared.py for declarations, _keras/names.py for layer names.
Source: https://github.com/keras-team/keras/blob/master/keras/src/applications/densenet.py
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import listed
from ..checkpoint import Checkpoint
from ..manifest import layers
from ..weights import WeightsError
from ._hdf5 import is_keras
from ._keras.declared import declared_network
from ._keras.files import DECAY, EPSILON, read_declared, read_weights
from ._keras.graph import Graph, UndeclaredError, graph_of
from ._keras.models import declared_models_logits, in_dtype_of, loaded, nchw_answer
from ._keras.names import canonical_layer, native_layer
from ._keras.own import (
    declared_around,
    own_config,
    own_groups,
    own_layer,
    read_inside,
    read_our_weights,
    read_ours,
)
from ._keras.pixels import pixels_of, with_declared_pixels
from ._keras.texts import declaration, has_layers_called, layers_have_names, names_in
from ._keras.writing import different_conventions, write_weights
from ._notes import unstored
from ._stated import NOTHING, Stated
from .recognize import checkpoint_of

BACKEND = "keras"
FAMILY = {  # settings of every DenseNet in keras.applications
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


LOSSES = {  # loss -> the activation that it applies to logits
    "CategoricalCrossentropy": "softmax",
    "SparseCategoricalCrossentropy": "softmax",
    "CategoricalFocalCrossentropy": "softmax",
    "BinaryCrossentropy": "sigmoid",
    "BinaryFocalCrossentropy": "sigmoid",
}
ASSUMED = (
    "layers connected as in keras.applications (zero padding on all sides instead of SAME, old "
    "channels concatenated before new ones, average pooling in transitions and before the "
    f"classifier), an epsilon of {EPSILON:g}, and logits as outputs (no tensor shows an activation "
    "after the classifier)"
)
SHARD = re.compile(r"(.+)_\d{5}\.weights\.h5")
SAVE = "Save the complete model (model.save('NAME.keras')), which declares what it computes"


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a file is Keras', but not KerasHub's."""
    return is_keras(path, head) and not names_in(path, head, KERASHUB)


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; their running variances are biased, as Keras computes them.

    A declaration of layers is trusted: see _keras/declared.py. A weights-only file is assumed to be
    keras.applications' if its layers have the names used there or no names, or if the user states
    both format and variant.
    """
    _refuse_shard(path)
    declared = declaration(path)
    config = own_config(declared)
    if config is not None:
        return read_ours(path, config)
    notes = []
    if declared is not None:
        try:
            graph = graph_of(declared)
        except UndeclaredError as error:
            notes.append(f"the model is of a custom class ({error}), which declares no layers")
        else:
            return _declared(path, graph, declared)
    if groups := own_groups(path):
        return read_our_weights(path, groups, notes)
    weights, more = read_weights(path, canonical_layer)
    if not any(name.startswith("features.") for name in weights):
        some = listed(dict.fromkeys(name.rpartition(".")[0] for name in weights))
        raise WeightsError(
            "expected layer names as in keras.applications (conv2_block1_1_conv), or Keras' "
            f"default names (conv2d_12); found {some or 'none'}, which do not identify the layers "
            f"of a DenseNet. {SAVE}"
        )
    source = f"keras.applications: {path.name}"
    known = {"bn_eps": EPSILON, "bn_decay": DECAY}
    found = checkpoint_of(weights, "biased", source, [*notes, *more], **known)
    return replace(found, notes=(*found.notes, _reason(path, found, stated, own=bool(notes))))


def _refuse_shard(path: Path) -> None:
    """Raise ``WeightsError`` for one shard of ``save_weights(..., max_shard_size=)``."""
    match = SHARD.fullmatch(path.name)
    index = path.with_name(f"{match[1]}.weights.json") if match else None
    if index is not None and index.exists():
        raise WeightsError(
            f"expected all weights in one file, found one of the shards listed in {index.name}; "
            f"join them in Keras: model.load_weights({str(index)!r}), then model.save('NAME.keras')"
        )


def _reason(path: Path, found: Checkpoint, stated: Stated, *, own: bool) -> str:
    """Return a note on why weights are treated as keras.applications', or raise ``WeightsError``.

    ``own``: whether they are from a complete model of a custom class, which declares no layers.
    """
    old = {"features.conv0": [b"conv1/conv"], "features.norm0": [b"conv1/bn"]}
    body = [layer for layer, _ in layers(found.spec) if layer != "classifier"]
    with suppress(KeyError, StopIteration):  # a layer that keras.applications has no name for
        names = [[native_layer(layer).encode(), *old.get(layer, [])] for layer in body]
        if has_layers_called(path, names):
            return f"weights alone do not show what is computed; assumed: {ASSUMED}"
    if stated.file_format and stated.variant:
        return f"treated as keras.applications' layers, as you stated; assumed: {ASSUMED}"
    if not layers_have_names(path):
        return f"the file does not store its layers' names; assumed: {ASSUMED}"
    save = (
        "The model is of a custom class: save the functional model inside it (model.BODY.save("
        "'NAME.keras')), which declares what it computes"
        if own
        else SAVE
    )
    raise WeightsError(
        "expected layer names as in keras.applications, such as conv2_block1_1_conv, found other "
        "names: even with the same number of layers, a network may pad, concatenate and pool "
        f"differently. {save}; or, if you know that your network computes the same function as "
        "keras.applications', pass source_format='keras' and variant='densenet121'"
    )


def _declared(path: Path, graph: Graph, declaration: dict[str, Any]) -> Checkpoint:
    """Read a complete model's network, and the usage that its layers and its loss declare."""
    if own := own_layer(graph):
        declared = declared_around(graph, *own)
        found = read_inside(path, *own, declared)
    else:
        declared = declared_network(graph)
        weights, declared.stored = read_declared(path, declared)
        found = checkpoint_of(weights, "biased", f"Keras: {path.name}", (), **declared.fields)
    notes = [*declared.notes, *(note for note in found.notes if note not in declared.notes)]
    try:
        given, note = pixels_of(declared.before, declared.stored, found.spec.config.in_channels)
    except WeightsError as error:
        raise WeightsError(f"{error}. {declared.alone}" if declared.alone else str(error)) from None
    activation = declared.activation
    if activation == "none" and (trained := trained_with(declaration)):
        activation = trained
        notes.append(f"the model outputs logits; its activation is taken from its loss: {trained}")
    usage = with_declared_pixels(found.usage, given).stating(
        image_size=declared.image_size, activation=activation
    )
    notes += [note] if note else []
    return replace(found, usage=usage.fits(found.spec), notes=tuple(notes))


def trained_with(declaration: dict[str, Any]) -> str | None:
    """Return the activation that a compiled model's loss applies to its logits, if declared."""
    compiled = declaration.get("compile_config")
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    if not isinstance(loss, dict) or loss.get("registered_name") is not None:
        return None  # a custom loss
    given = loss.get("config")
    if not isinstance(given, dict) or given.get("from_logits") is not True:
        return None
    return LOSSES.get(str(loss.get("class_name")))


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write a ``.weights.h5`` that ``keras.applications.DenseNet121(weights=path)`` loads."""
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
    return (*notes, *unstored(checkpoint))


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.floating], str]:
    """Return the logits and the name of the declared model, or else of keras.applications' model.

    Keras itself loads the file into that model. Raises ``LookupError`` if the model cannot
    represent this network or accept these images.
    """
    from tensorflow import keras

    given = declaration(path)
    if own_config(given) is not None or own_groups(path):
        raise LookupError("the model is this package's own")
    with suppress(UndeclaredError):
        if given is not None:
            graph = graph_of(given)
            if own_layer(graph):
                raise LookupError("the model contains one of this package's own")
            declared = declared_network(graph)
            _, declared.stored = read_declared(path, declared)
            with in_dtype_of(checkpoint):
                dtype = checkpoint.weights["features.conv0.weight"].dtype.name
                answer = declared_models_logits(path, given, declared, images, dtype)
            return answer, f"your own model in Keras {keras.__version__}, as the file declares it"
    config = checkpoint.spec.config
    unlike = [f for f, value in FAMILY.items() if getattr(config, f) != value]
    if unlike or config.block_config not in SIZES or config.in_channels != 3:
        raise LookupError("keras.applications has no network of this kind")
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
