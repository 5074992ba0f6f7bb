"""Put a network's nodes and weights together in one ONNX model, the content of a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .._fold import fill_folded, fold
from ..spec import DenseNetSpec
from ..weights import Weights, WeightsError, check_weights, widest
from ._graph import Identity, Value
from .layers import ACTIVATIONS, cast
from .model import DenseNet

# No operation of a DenseNet has changed since opset 17, which ONNX Runtime reads since 1.13
# (October 2022). IR version 8 is the one that belongs to it.
OPSET, IR_VERSION = 17, 8
KINDS = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}
INPUT, LOGITS, FEATURES, PROBABILITIES = "images", "logits", "features", "probabilities"
LARGEST = 2**31 - 2**20  # bytes of weights; protobuf's messages have at most 2 GiB


def to_proto(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[np.floating]],
    metadata: Mapping[str, str] | None = None,
    *,
    activation: str | None = None,
    folded: bool = False,
    half: bool = False,
) -> ModelProto:
    """Return a network as an ONNX model in inference mode. Equal arguments give equal bytes.

    Its input ``images`` is (batch, C, height, width), with any batch size, height and width. Its
    output is ``logits`` (batch, num_classes); without a classifier, it is the pooled ``features``
    (batch, C). A node and its output have the name of the layer, and an initializer has the
    tensor's canonical name.

    Raises ``WeightsError`` if the weights do not fit the spec, or do not fit into float16 or 2 GiB.

    Arguments:
        spec: the network.
        weights: {canonical name: array}, float32 or float64, which is also the computation's dtype.
        metadata: {key: text}, for the file's metadata.
        activation: "softmax" or "sigmoid", to add it; the output is then ``probabilities``.
        folded: fold each BatchNorm that follows a convolution into it: see _fold.py.
        half: store weights and compute in float16; input and output remain float32.
    """
    dtype = widest(weights)
    arrays = check_weights(spec, weights, dtype)
    if folded:
        spec, arrays = fold(spec, arrays)
    if half:
        arrays = _halves(arrays)
        dtype = "float32"
    size = sum(array.nbytes for array in arrays.values())
    if size > LARGEST:
        raise WeightsError(
            f"expected weights of at most {LARGEST:,} bytes, which fit into an ONNX file, found "
            f"{size:,} bytes"
        )
    x = Value(INPUT, INPUT, [])
    if half:
        x = cast(x, "to_float16", TensorProto.FLOAT16)
    model = DenseNet(spec)
    if folded:
        fill_folded(model, Identity)
    x = model(x)
    if half:
        x = cast(x, "to_float32", TensorProto.FLOAT)
    output = LOGITS if spec.classifier else FEATURES
    x.nodes[-1].output[0] = output
    if activation:
        x = ACTIVATIONS[activation](Value(output, output, x.nodes))
        x.nodes[-1].output[0] = output = PROBABILITIES
    channels = spec.config.in_channels
    width = spec.config.num_classes or spec.norm5.num_features
    graph = helper.make_graph(
        x.nodes,
        "DenseNet",
        [
            helper.make_tensor_value_info(
                INPUT, KINDS[dtype], ["batch", channels, "height", "width"]
            )
        ],
        [helper.make_tensor_value_info(output, KINDS[dtype], ["batch", width])],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
    )
    proto = helper.make_model(
        graph,
        producer_name="densenet_multi",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(proto, dict(metadata or {}))
    return proto


def _halves(arrays: Weights) -> dict[str, npt.NDArray[Any]]:
    """Round weights to float16. Raises ``WeightsError`` if one is too large."""
    with np.errstate(over="ignore"):
        found: dict[str, npt.NDArray[Any]] = {n: a.astype(np.float16) for n, a in arrays.items()}
    infinite = [name for name, array in found.items() if not np.isfinite(array).all()]
    if infinite:
        largest = float(np.abs(arrays[infinite[0]]).max())
        raise WeightsError(
            f"{infinite[0]}: expected values of at most 65,504, the largest float16, found "
            f"{largest:g}; write float32: omit half=True"
        )
    return found
