"""Predict with an ONNX file in ONNX Runtime, without any framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto

from .._checks import ConfigError
from .._inputs import check_images
from .._installed import framework
from ..spec import DenseNetSpec

FRAMEWORK = "ONNX Runtime"
ACTIVATIONS = ("Softmax", "Sigmoid")
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


@dataclass(frozen=True)
class Model:
    """A network in ONNX Runtime.

    Attributes:
        spec: the network.
        session: ONNX Runtime's session.
        channels_last: whether its images are NHWC, as in files that Keras exports.
        batch: the only number of images that the file accepts; None if any.
        size: the only height and width that the file accepts; None each if any.
    """

    spec: DenseNetSpec
    session: Any
    channels_last: bool
    batch: int | None
    size: tuple[int | None, int | None]

    @property
    def versions(self) -> dict[str, str]:
        """As ``framework_versions`` returns them for a backend."""
        return {"onnxruntime": _onnx_runtime().__version__}


def load(proto: ModelProto, spec: DenseNetSpec) -> Model:
    """Load a network that has this spec; its output is its logits, also if it has probabilities.

    Raises ``LookupError`` for a float64 network, for which ONNX Runtime has no convolution on CPUs.
    """
    runtime = session(_with_logits(proto).SerializeToString())
    (given,) = runtime.get_inputs()
    first = next(node for node in proto.graph.node if given.name in node.input)
    channels_last = first.op_type == "Transpose"
    batch, *sides = (side if isinstance(side, int) else None for side in given.shape)
    height, width = (sides[:2] if channels_last else sides[1:]) if len(sides) == 3 else (None, None)
    return Model(spec, runtime, channels_last, batch, (height, width))


def predict(model: Model, images: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Return the logits (N, num_classes) of images (N, C, H, W), in float32.

    A file may accept only one batch size: the last images are then completed by zeros. Raises
    ``ImageError``, and ``ConfigError`` if the file accepts only another image size.
    """
    x = check_images(model.spec, images, "float32")
    for side, expected, found in zip(("height", "width"), model.size, x.shape[2:], strict=True):
        if expected not in (None, found):
            raise ConfigError(
                f"images: expected {side} {expected}, the only one that this ONNX file accepts, "
                f"found {found}; pass image_size={expected}, or export the network again with a "
                "dynamic size"
            )
    (given,) = model.session.get_inputs()
    wanted = model.session.get_outputs()[0].name
    count = len(x)
    if model.batch is not None:
        x = np.concatenate([x, np.zeros_like(x[:1]).repeat(-count % model.batch, axis=0)])
    x = (x.transpose(0, 2, 3, 1) if model.channels_last else x).astype(DTYPES[given.type])
    size = model.batch or count
    parts = (x[start : start + size] for start in range(0, len(x), size))
    try:
        logits = [model.session.run([wanted], {given.name: part})[0] for part in parts]
    except Exception as error:  # its own classes, below Exception
        shape = "x".join(map(str, given.shape))
        raise ConfigError(
            f"images: expected what this ONNX file accepts ({shape}), found "
            f"{'x'.join(map(str, x.shape))}, which ONNX Runtime refuses: {error}"
        ) from error
    answer: npt.NDArray[np.floating] = np.concatenate(logits)[:count].astype(np.float32)
    return answer


def _with_logits(proto: ModelProto) -> ModelProto:
    """Return a copy whose first output is the input of the activation at its end, if it has one."""
    (output,) = proto.graph.output
    last = next(node for node in proto.graph.node if output.name in node.output)
    found = ModelProto()
    found.CopyFrom(proto)
    if last.op_type in ACTIVATIONS:
        logits = ValueInfoProto()
        logits.CopyFrom(output)
        logits.name = last.input[0]
        found.graph.output.insert(0, logits)
    return found


def _onnx_runtime() -> Any:
    with framework("onnx", "onnxruntime", user="predicting with an ONNX file"):
        import onnxruntime
    return onnxruntime


def session(content: bytes, threads: int = 0) -> Any:
    """Return ONNX Runtime's session of a file on this many threads; 0 is ONNX Runtime's choice.

    Raises ``BackendNotInstalledError``, and ``LookupError`` as ``load``.
    """
    onnxruntime = _onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, too
    try:
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # its own classes, below Exception
        if "NOT_IMPLEMENTED" in str(error):
            raise LookupError("ONNX Runtime has no float64 convolution on CPUs") from error
        raise
