"""ONNX files: written for any runtime; read if they hold a DenseNet in inference mode.

A file that this package writes has the portable file's header in its metadata, and tensors with
canonical names, so that it becomes a portable file again. See onnx/ for the graph, and _onnx/ for
reading other exporters' files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, truth
from .._files import replacing
from .._fold import without_pairs
from .._installed import framework
from ..checkpoint import Checkpoint, Usage
from ..manifest import tensors
from ..spec import DenseNetConfig
from ..weights import WeightsError, check_depth, check_weights, widest
from ._header import about_images, from_header, to_header
from ._onnx.content import parse
from ._onnx.graph import Network, check_function, decimal, find_network
from ._protobuf import is_onnx
from ._safetensors import PORTABLE_ENTRY
from ._stated import NOTHING, Stated
from .recognize import checkpoint_of

BACKEND = None  # a runtime's format, not a framework's
LIBRARY = "onnxruntime"
OPTIONS = ("probabilities", "folded", "half")  # arguments of ``write``
FOLDED = "its BatchNorms are folded: this file cannot be converted back"
HALF = "its weights are stored in float16 (3 digits); the values are now float32"
QUANTIZED = "its graph is quantized: ONNX Runtime runs it as it is"
NO_FLOAT64 = (
    "its weights and its computation are float64, for which ONNX Runtime has no convolution on CPUs"
)


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a file has the fields of an ONNX model."""
    return path.is_file() and is_onnx(path)


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; of a file that this package wrote, also the usage."""
    model = parse(path)
    network = find_network(model)
    header = _header_of(model)
    found = _of_others(path, network) if header is None else _own(header, network)
    check_function(network, found.spec)
    notes = (HALF,) if network.half else ()
    return replace(found, notes=(*found.notes, *notes))


def _header_of(model: Any) -> str | None:
    """Return the portable file's header in the metadata of a ModelProto; None in others' files."""
    return {entry.key: entry.value for entry in model.metadata_props}.get(PORTABLE_ENTRY)


def _own(header: str, network: Network) -> Checkpoint:
    """Return the checkpoint of a file with a header, whose graph must be that of the header."""
    config, usage = from_header(header)
    if not isinstance(config, DenseNetConfig) or not isinstance(usage, Usage):
        raise WeightsError("expected a network for images, found one for tables")
    check_depth(config, network.weights)
    spec = config.resolve()
    shown: dict[str, tuple[object, object]] = {
        "bn_eps": (decimal(config.bn_eps), decimal(network.epsilon)),
        "transition_pool": (config.transition_pool, network.transition_pool),
        "global_pool": (config.global_pool, network.global_pool),
    }
    if len(config.block_config) == 1:
        shown.pop("transition_pool")
    if network.activation:
        shown["activation"] = (usage.activation, network.activation)
    for name, (expected, found) in shown.items():
        if expected != found:
            raise WeightsError(
                f"expected {name} {expected}, as its metadata states, found {found} in its graph"
            )
    checked = check_weights(spec, network.weights, widest(network.weights))
    return Checkpoint(spec, checked, usage.fits(spec))


def _of_others(path: Path, network: Network) -> Checkpoint:
    """Return the checkpoint of another exporter's file."""
    found = checkpoint_of(
        network.weights,
        "unbiased",
        f"ONNX: {path.name}",
        ("its layers were recognized by their order in the graph",),
        bn_eps=network.epsilon,
        bn_decay=network.decay,
        transition_pool=network.transition_pool,
        global_pool=network.global_pool,
    )
    usage = replace(found.usage, running_variance=None)
    return replace(found, usage=usage.stating(activation=network.activation))


def write(
    path: Path,
    checkpoint: Checkpoint,
    *,
    probabilities: bool = False,
    folded: bool = False,
    half: bool = False,
) -> tuple[str, ...]:
    """Write a network for inference; the same arguments give the same bytes.

    Arguments:
        path: the file.
        checkpoint: the network; dropout is omitted.
        probabilities: apply the activation that the usage states: the output is then
            ``probabilities`` instead of ``logits``.
        folded: fold each BatchNorm that follows a convolution into it. Such a file cannot be read.
        half: store weights and compute in float16; input and output remain float32.
    """
    for name, value in {"probabilities": probabilities, "folded": folded, "half": half}.items():
        truth(name, value)
    with framework("onnx", "onnx", user="an ONNX file"):
        from ..onnx import to_proto
    spec = checkpoint.spec
    model = to_proto(
        spec,
        checkpoint.weights,
        {PORTABLE_ENTRY: to_header(spec, about_images(spec, checkpoint.usage))},
        activation=_activation(checkpoint) if probabilities else None,
        folded=folded,
        half=half,
    )
    with replacing(path) as temporary:
        Path(temporary).write_bytes(model.SerializeToString(deterministic=True))
    notes = []
    if half:
        notes.append("weights and computation are float16: logits have about 3 digits")
    elif widest(checkpoint.weights) == "float64":
        notes.append(NO_FLOAT64)
    if folded and without_pairs(spec) != spec:
        notes.append(FOLDED)
    return tuple(notes)


def _activation(checkpoint: Checkpoint) -> str:
    """Return the stated activation. Raises ``ConfigError`` if there is none."""
    activation = checkpoint.usage.activation
    if not checkpoint.spec.config.num_classes:
        raise ConfigError("probabilities: expected a network with a classifier, found none")
    if activation not in ("softmax", "sigmoid"):
        found = "'none'" if activation == "none" else "a network that states none"
        raise ConfigError(
            f"probabilities: expected a stated activation, found {found}; state it: "
            "activation='softmax' or activation='sigmoid'"
        )
    return activation


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.floating], str]:
    """Return the logits that ONNX Runtime computes with a file, and its name.

    Raises ``LookupError`` if ONNX Runtime cannot compute the file on a CPU, because it is float64,
    or cannot compute these images, because the file's image or batch size is fixed.
    """
    from ..onnx import predict as runtime

    model = runtime.load(parse(path), checkpoint.spec)
    try:
        answer = runtime.predict(model, images)
    except ConfigError as error:
        raise LookupError(f"ONNX Runtime cannot compute the test images ({error})") from error
    return answer, f"{runtime.FRAMEWORK} {model.versions[LIBRARY]}"


def describe(path: Path) -> Checkpoint:
    """Return the network of a file and its usage, also if BatchNorms are folded.

    The weights are absent, {}, if a file of ours has folded BatchNorms, or has been quantized. The
    graph of a quantized file is not compared with its network. Raises as ``formats.read``.
    """
    try:
        return _described(path)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def _described(path: Path) -> Checkpoint:
    model = parse(path)
    header = _header_of(model)
    if header is not None:
        config, usage = from_header(header)
        if isinstance(config, DenseNetConfig) and isinstance(usage, Usage):
            spec = config.resolve()
            if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
                return Checkpoint(spec, {}, usage.fits(spec), (QUANTIZED,))
            shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
            expected = {n: info.shape for n, info in tensors(without_pairs(spec)).items()}
            if shapes == expected and without_pairs(spec) != spec:
                return Checkpoint(spec, {}, usage.fits(spec), (FOLDED,))
    return read(path)
