"""Cases of ``bench``: ONNX Runtime and OpenVINO predict with this package's ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._installed import framework
from ..onnx import to_proto
from ..onnx.predict import session

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..spec import DenseNetSpec

    Array = npt.NDArray[np.floating]

Predict = Callable[["Array"], "Array"]


def onnx_runtime(spec: DenseNetSpec, weights: Mapping[str, Array], threads: int) -> Predict:
    """Return a function from images (N, C, H, W) to logits, on this many threads.

    Raises ``BackendNotInstalledError``.
    """
    runtime = session(to_proto(spec, weights, folded=True).SerializeToString(), threads)
    return lambda images: runtime.run(["logits"], {"images": images})[0]


def openvino(
    spec: DenseNetSpec, weights: Mapping[str, Array], threads: int, *, bfloat16: bool = False
) -> Predict:
    """Return a function from images (N, C, H, W) to logits, on this many threads.

    OpenVINO uses bfloat16 by default where the processor has it, so the precision is always stated.
    Raises ``BackendNotInstalledError``.
    """
    with framework("onnx", "openvino", user="this case", note=" openvino"):
        import openvino as ov
    hints: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    core = ov.Core()
    graph = to_proto(spec, weights, folded=True).SerializeToString()
    compiled = core.compile_model(core.read_model(graph), "CPU", hints)
    return lambda images: next(iter(compiled(images).values()))
