"""Parse an ONNX file, within bounds, and return its arrays.

An ONNX file is one protobuf message. Before it is parsed, its fields are counted: a message of two
bytes may need hundreds in memory.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._checks import listed
from ..._installed import framework
from ...weights import WeightsError
from .._limits import check_size
from .._protobuf import BYTES, walk
from .._safetensors import to_float

LARGEST_MESSAGE = 2**31 - 1  # bytes that protobuf can parse
LARGEST_GRAPH = 2**23  # bytes besides the weights; densenet264 needs 2 * 10**5
MOST_ENTRIES = 1_000_000  # fields of nodes and initializers; densenet264 has 2 * 10**4
GRAPH, INITIALIZER, NODE = 7, 5, 1  # fields of a model and of a graph
DATA = (4, 5, 9)  # fields of a tensor: floats, halves, raw bytes
AGAIN = "download or copy it again"
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def parse(path: Path) -> Any:
    """Return a file's ModelProto. Raises ``WeightsError``, ``OSError``.

    Raises ``BackendNotInstalledError`` if the package onnx is not installed.
    """
    with framework("onnx", "onnx", user="an ONNX file"):
        import onnx
    size = check_size(path)
    if size > LARGEST_MESSAGE:
        raise WeightsError(f"expected at most 2 GiB, as ONNX files have, found {size:,} bytes")
    content = path.read_bytes()
    try:
        _check_size(memoryview(content))
        model = onnx.ModelProto.FromString(content)
    except WeightsError:
        raise
    except Exception as error:  # ValueError, or an error of protobuf's own
        raise damaged() from error
    if not model.graph.node or not all(isinstance(text, str) for text in _texts(model)):
        raise damaged()
    _refuse_unreadable(path, model)
    return model


def damaged() -> WeightsError:
    return WeightsError(
        f"expected an ONNX network, found a damaged or truncated one, or no graph; {AGAIN}"
    )


def _check_size(content: memoryview) -> None:
    """Raise ``WeightsError`` for too many entries, or too many bytes besides the weights."""
    rest, entries = len(content), 0
    for held, inside in _messages(content):
        rest -= held
        entries += inside
        if entries > MOST_ENTRIES:
            raise WeightsError(
                f"expected the graph of a DenseNet, found more than {MOST_ENTRIES:,} entries in it"
            )
    if rest > LARGEST_GRAPH:
        raise WeightsError(
            f"expected at most {LARGEST_GRAPH:,} bytes besides the initializers, found {rest:,}; "
            "if its weights are nodes (Constant), export it again with initializers"
        )


def _messages(content: memoryview) -> Iterator[tuple[int, int]]:
    """Yield (bytes of weights, 1) for each field of the graph, of its nodes and initializers."""
    for number, wire, graph in walk(content):
        yield 0, 1
        if number != GRAPH or wire != BYTES:
            continue
        for field, kind, inside in walk(graph):
            yield 0, 1
            if kind != BYTES or field not in (NODE, INITIALIZER):
                continue
            for part, packed, data in walk(inside):
                is_data = field == INITIALIZER and part in DATA and packed == BYTES
                yield len(data) if is_data else 0, 1


def _texts(model: Any) -> Iterator[object]:
    """Yield all names of a model, and its metadata; protobuf returns bytes if one is not UTF-8."""
    graph = model.graph
    for named in (*graph.initializer, *graph.input, *graph.output, *model.functions):
        yield named.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    yield from (opset.domain for opset in model.opset_import)


def _refuse_unreadable(path: Path, model: Any) -> None:
    """Raise ``WeightsError`` for external data, local functions, and operators of others."""
    external = [tensor.name for tensor in model.graph.initializer if _is_external(tensor)]
    if external:
        raise WeightsError(
            f"expected weights in the file itself, found external data for {listed(external)}; put "
            "them in one file; type in Python: import onnx; "
            f"onnx.save(onnx.load({str(path)!r}), 'NEW.onnx')"
        )
    if model.functions:
        raise WeightsError(
            "expected ONNX's own operators, found functions "
            f"({listed(function.name for function in model.functions)}); inline them; type in "
            "Python: import onnx, onnx.inliner; "
            f"onnx.save(onnx.inliner.inline_local_functions(onnx.load({str(path)!r})), 'NEW.onnx')"
        )
    if model.graph.sparse_initializer:
        raise WeightsError("expected dense weights, found sparse initializers; export it again")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise WeightsError(
                f"expected ONNX's own operators, found {node.op_type} of {node.domain!r} "
                f"({node.name or 'without a name'}), which ONNX does not define; export the "
                "network again, without quantization and without a runtime's optimizations"
            )


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location or tensor.external_data)


def to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor's array; float16 and bfloat16 as float32. Raises ``WeightsError``."""
    import onnx

    if _is_external(tensor):
        raise WeightsError(f"{tensor.name}: expected data in the file itself, found external data")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # of whatever its fields lead to
        raise WeightsError(
            f"{tensor.name}: expected as many values as its shape {tuple(tensor.dims)} has, found "
            f"others ({error}); {AGAIN}"
        ) from error
    return np.asarray(to_float(array))


def kind_of(tensor: Any) -> str:
    """Return the name of a tensor's element type, such as "FLOAT16"."""
    import onnx

    known = onnx.TensorProto.DataType
    return known.Name(tensor.data_type) if tensor.data_type in known.values() else "unknown"
