"""Find a DenseNet in an ONNX graph, whatever its tensors are called.

A DenseNet's layers have one order, so the order of a graph's nodes shows which layer each one is.
Every connection, and every attribute that changes the function, is compared with the
specification: what the graph computes is what the specification says, or an error names the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._checks import listed
from ...manifest import layers
from ...spec import BatchNormSpec, ConvSpec, DenseNetSpec, PoolSpec
from ...weights import Weights, WeightsError
from .content import FLOATS, kind_of, to_numpy

Pads = tuple[int, ...]
UNPADDED: Pads = (0, 0, 0, 0)  # top, left, bottom, right
POOLS = {"AveragePool": "avg", "MaxPool": "max"}
GLOBAL = {
    "GlobalAveragePool": "avg",
    "GlobalMaxPool": "max",
    "ReduceMean": "avg",
    "ReduceMax": "max",
}
SHAPING = ("Flatten", "Reshape", "Squeeze")  # of the pooled features
SAME = ("Identity", "Cast", "Dropout")  # in inference, they change no value
ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
PADDED = ("Conv", "MaxPool")  # layers whose padding may be a node of its own
ARITHMETIC = ("Mul", "Add", "Sub")  # what tf2onnx makes of a BatchNorm that it cannot fold
FOLDED = (
    "expected a BatchNorm, found none: BatchNorms are folded into convolutions, which cannot be "
    "undone; convert the weights that the file was made from (with PyTorch: "
    "torch.save(model.state_dict(), 'NEW.pth'); with Keras: model.save('NEW.keras')), or export it "
    "again without folding (with PyTorch: dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False; with this package: "
    "without folded=True)"
)
OTHER = "it computes another function than a DenseNet of this package"
OLDEST_OPSET = 9


@dataclass(frozen=True)
class Map:
    """A value in the graph: the concatenation of nodes' outputs, padded with zeros."""

    parts: tuple[int, ...]
    pads: Pads = UNPADDED


@dataclass(frozen=True)
class Step:
    """A node that computes something, and what it reads."""

    node: Any
    reads: Map
    number: int
    attributes: dict[str, Any]
    tensors: tuple[npt.NDArray[Any], ...] = ()

    @property
    def op(self) -> str:
        return str(self.node.op_type)

    @property
    def output(self) -> Map:
        return Map((self.number,))

    def __str__(self) -> str:
        return f"{self.op} {self.node.name!r}" if self.node.name else self.op


@dataclass
class Network:
    """A DenseNet that was found in a graph.

    Attributes:
        weights: {canonical name: array}.
        steps: {canonical name of a layer or pooling: its node}.
        transition_pool, global_pool: "avg" or "max".
        epsilon: of all BatchNorms.
        decay: of all BatchNorms, where the nodes agree; else 0.9.
        activation: "softmax", "sigmoid", or None.
        half: whether a tensor is stored in float16.
    """

    weights: Weights = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    transition_pool: str = "avg"
    global_pool: str = "avg"
    epsilon: float = 1e-5
    decay: float = 0.9
    activation: str | None = None
    half: bool = False


def find_network(model: Any) -> Network:
    """Return the network in a ModelProto. Raises ``WeightsError``, which names the node."""
    graph = _Graph(model)
    return _Reader(graph).read()


# --- From nodes to steps ------------------------------------------------------------------------


class _Graph:
    """The steps of a graph, and the value that it returns."""

    def __init__(self, model: Any) -> None:
        graph = model.graph
        opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        if not opsets or max(opsets) < OLDEST_OPSET:
            raise WeightsError(
                f"expected opset {OLDEST_OPSET} or later, found {listed(opsets) or 'none'}; type "
                "in Python: import onnx.version_converter; "
                "onnx.save(onnx.version_converter.convert_version(onnx.load('OLD'), 17), 'NEW')"
            )
        self.opset = max(opsets)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        inputs = [value.name for value in graph.input if value.name not in self.tensors]
        outputs = [value.name for value in graph.output]
        if len(inputs) != 1 or len(outputs) != 1:
            raise WeightsError(
                "expected one input and one output, found "
                f"{len(inputs)} ({listed(inputs)}) and {len(outputs)} ({listed(outputs)})"
            )
        self.values: dict[str, Map] = {inputs[0]: Map((0,))}
        self.sums: dict[str, tuple[Any, Map, npt.NDArray[Any]]] = {}
        self.steps: list[Step] = []
        for number, node in enumerate(graph.node, 1):
            self.add(number, node)
        if outputs[0] not in self.values:
            raise WeightsError(f"{outputs[0]}: expected an output of a node, found none")
        self.returned = self.values[outputs[0]]

    def add(self, number: int, node: Any) -> None:
        """Add a node: as a step, or to what is known about values and tensors."""
        op, attributes = node.op_type, _attributes(node)
        if op == "Constant":
            if "value" in attributes and len(node.output) == 1:
                self.tensors[node.output[0]] = attributes["value"]
            return
        if node.input and all(name in self.tensors for name in node.input) and op in SAME:
            self.tensors[node.output[0]] = self.tensors[node.input[0]]
            return
        if not node.input or node.input[0] not in self.values or not node.output:
            raise self.unknown(node)
        x, output = self.values[node.input[0]], node.output[0]
        if op in SAME and (op != "Dropout" or not self.is_training(node)):
            self.values[output] = x
        elif op == "Concat":
            self.values[output] = self.joined(node, attributes)
        elif op == "Transpose" and x.parts == (0,) and attributes.get("perm") == [0, 3, 1, 2]:
            self.values[output] = Map(x.parts, x.pads)
        elif op == "Pad":
            self.values[output] = Map(x.parts, self.padded(node, attributes, x))
        elif op in SHAPING and self.steps and self.steps[-1].op in GLOBAL:
            if op == "Flatten" and attributes.get("axis", 1) not in (1, -3):
                raise _wrong(node, "axis 1", f"axis {attributes['axis']}")
            self.values[output] = x
        elif op == "Add" and self.steps and self.steps[-1].op == "MatMul":
            self.biased(node, x, output)
        else:
            self.step(number, node, attributes, x)

    def step(self, number: int, node: Any, attributes: dict[str, Any], x: Map) -> None:
        if node.op_type not in STEPS:
            raise self.unknown(node)
        known = STEPS[node.op_type]
        if others := [name for name in attributes if name not in known]:
            raise _wrong(node, f"attributes {', '.join(known)}", listed(others))
        constant = node.op_type in GLOBAL  # the axes, which newer opsets have as an input
        tensors = tuple(
            self.array(node, name, constant=constant) for name in node.input[1:] if name
        )
        self.steps.append(Step(node, x, number, attributes, tensors))
        self.values[node.output[0]] = Map((number,))

    def array(self, node: Any, name: str, *, constant: bool = False) -> npt.NDArray[Any]:
        """Return the array of a node's input. Raises ``WeightsError`` if it is computed."""
        if name not in self.tensors:
            raise _wrong(node, "weights that the file stores", f"{name!r}, which is computed")
        tensor = self.tensors[name]
        if not constant and kind_of(tensor) not in FLOATS:
            raise _wrong(
                node, f"weights of type {', '.join(FLOATS)}", f"{name!r}: {kind_of(tensor)}"
            )
        if name not in self.arrays:
            self.arrays[name] = to_numpy(tensor)
        return self.arrays[name]

    def joined(self, node: Any, attributes: dict[str, Any]) -> Map:
        unknown = [name for name in node.input if name not in self.values]
        maps = [self.values[name] for name in node.input if name in self.values]
        if unknown or attributes.get("axis") not in (1, -3) or any(any(m.pads) for m in maps):
            raise _wrong(node, "a concatenation of maps along axis 1", "another one")
        parts = tuple(part for each in maps for part in each.parts)
        if len(parts) > len(self.steps) + 1:  # a map with itself, again and again
            raise _wrong(node, "each map once", "some of them twice")
        return Map(parts)

    def padded(self, node: Any, attributes: dict[str, Any], x: Map) -> Pads:
        amounts: Any = attributes.get("pads")
        if amounts is None and len(node.input) > 1:
            amounts = self.array(node, node.input[1], constant=True).tolist()
        value = attributes.get("value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            value = float(self.array(node, node.input[2], constant=True).sum())
        mode = attributes.get("mode", b"constant")
        is_spatial = isinstance(amounts, list) and len(amounts) == 8
        if mode != b"constant" or value or not is_spatial or any(x.pads):
            raise _wrong(node, "a border of zeros", "other padding")
        if any(amounts[i] for i in (0, 1, 4, 5)):
            raise _wrong(node, "padding of height and width", "padding of channels")
        return (*amounts[2:4], *amounts[6:8])

    def biased(self, node: Any, x: Map, output: str) -> None:
        """Add the bias of a classifier, which is a product and a sum, to the product."""
        last = self.steps[-1]
        if x != last.output or len(last.tensors) != 1 or len(node.input) != 2:
            raise self.unknown(node)
        bias = self.array(node, node.input[1])
        self.steps[-1] = Step(
            last.node, last.reads, last.number, last.attributes, (*last.tensors, bias)
        )
        self.values[output] = x

    def is_training(self, node: Any) -> bool:
        if len(node.input) < 3 or not node.input[2]:
            return False
        return bool(self.array(node, node.input[2], constant=True).any())

    def unknown(self, node: Any) -> WeightsError:
        name = f" ({node.name})" if node.name else ""
        if node.op_type in ARITHMETIC:
            return WeightsError(f"{node.op_type}{name}: {FOLDED}")
        advice = ""
        if node.op_type in ("QLinearConv", "DequantizeLinear", "QuantizeLinear", "ConvInteger"):
            advice = "; it is quantized: use the network that it was made from"
        return WeightsError(
            f"expected the nodes of a DenseNet, found {node.op_type}{name}: {OTHER}{advice}"
        )


WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")
STEPS = {  # operator -> attributes that are understood
    "Conv": (*WINDOW, "group"),
    "BatchNormalization": ("epsilon", "momentum", "training_mode", "spatial"),
    "Relu": (),
    "MaxPool": (*WINDOW, "ceil_mode", "storage_order"),
    "AveragePool": (*WINDOW, "ceil_mode", "count_include_pad"),
    "GlobalAveragePool": (),
    "GlobalMaxPool": (),
    "ReduceMean": ("axes", "keepdims", "noop_with_empty_axes"),
    "ReduceMax": ("axes", "keepdims", "noop_with_empty_axes"),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "MatMul": (),
    "Softmax": ("axis",),
    "Sigmoid": (),
}


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    try:
        return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    except Exception as error:  # an attribute of no type, or of another
        raise _wrong(node, "attributes with values", "a damaged attribute") from error


def _wrong(node: Any, expected: str, found: str) -> WeightsError:
    name = f" {node.name!r}" if node.name else ""
    return WeightsError(f"{node.op_type}{name}: expected {expected}, found {found}: {OTHER}")


# --- From steps to the network ------------------------------------------------------------------


class _Reader:
    """Read steps in the order of a DenseNet's layers."""

    def __init__(self, graph: _Graph) -> None:
        self.graph = graph
        self.at = 0
        self.found = Network()

    def read(self) -> Network:
        features = self.blocks(self.stem())
        pool = self.next(*GLOBAL, reads=self.next("Relu", reads=features).output)
        self.check_axes(pool)
        self.found.global_pool = GLOBAL[pool.op]
        last = pool
        if self.peek() in ("Gemm", "MatMul"):
            last = self.next("Gemm", "MatMul", reads=last.output)
            self.classifier(last)
        if self.peek() in ACTIVATIONS:
            last = self.next(*ACTIVATIONS, reads=last.output)
            if last.attributes.get("axis", -1) not in (1, -1):
                raise _wrong(last.node, "axis 1", f"axis {last.attributes['axis']}")
            self.found.activation = ACTIVATIONS[last.op]
        if self.at < len(self.graph.steps):
            raise self.graph.unknown(self.graph.steps[self.at].node)
        if self.graph.returned != last.output:
            raise _wrong(last.node, "the network's output", "an inner value")
        self.conventions()
        return self.found

    def peek(self, ahead: int = 0) -> str:
        steps = self.graph.steps
        return steps[self.at + ahead].op if self.at + ahead < len(steps) else ""

    def next(self, *ops: str, reads: Map) -> Step:
        """Return the next step, which must be one of these operators on this map."""
        if self.at == len(self.graph.steps):
            raise WeightsError(
                f"expected {' or '.join(ops)} next, found the end of the graph: {OTHER}"
            )
        step = self.graph.steps[self.at]
        if step.op not in ops:
            raise WeightsError(
                f"{step}: expected {' or '.join(ops)} here, found {step.op}: {OTHER}"
            )
        if step.reads.parts != reads.parts:
            raise _wrong(step.node, "the output of the layers before it", "another input")
        if any(step.reads.pads) and step.op not in PADDED:
            raise _wrong(step.node, "an input without a border", "a padded one")
        self.at += 1
        return step

    def stem(self) -> Map:
        conv0 = self.layer("features.conv0", "Conv", Map((0,)))
        if [self.peek(i) for i in range(3)] == ["BatchNormalization", "Relu", "MaxPool"]:
            norm0 = self.layer("features.norm0", "BatchNormalization", conv0)
            return self.pool("features.pool0", self.next("Relu", reads=norm0).output, "MaxPool")
        return conv0

    def blocks(self, x: Map) -> Map:
        """Read all blocks and transitions; return the output of the last BatchNorm."""
        block, layer = 1, 0
        kinds: set[str] = set()
        while True:
            if self.peek() in ("Relu", "Conv"):
                raise WeightsError(f"{self.graph.steps[self.at]}: {FOLDED}")
            after = self.peek(2)
            if after in GLOBAL:
                return self.layer("features.norm5", "BatchNormalization", x)
            if layer and (after in POOLS or (after == "Conv" and self.peek(3) in POOLS)):
                x = self.transition(f"features.transition{block}", x, kinds)
                block, layer = block + 1, 0
                continue
            layer += 1
            x = self.dense_layer(f"features.denseblock{block}.denselayer{layer}", x)

    def dense_layer(self, name: str, x: Map) -> Map:
        new = self.norm_relu_conv(name, "1", x)
        if self.peek() == "Relu":
            raise WeightsError(f"{self.graph.steps[self.at]}: {FOLDED}")
        upcoming = self.graph.steps[self.at : self.at + 1]
        if upcoming and upcoming[0].reads.parts == new.parts:
            new = self.norm_relu_conv(name, "2", new)
        return Map((*x.parts, *new.parts))

    def norm_relu_conv(self, name: str, number: str, x: Map) -> Map:
        norm = self.layer(f"{name}.norm{number}", "BatchNormalization", x)
        return self.layer(f"{name}.conv{number}", "Conv", self.next("Relu", reads=norm).output)

    def transition(self, name: str, x: Map, kinds: set[str]) -> Map:
        norm = self.layer(f"{name}.norm", "BatchNormalization", x)
        x = self.next("Relu", reads=norm).output
        if self.peek() == "MaxPool":  # an average commutes with a 1x1 convolution, a maximum not
            raise _wrong(self.graph.steps[self.at].node, "the convolution first", "the pooling")
        first = self.peek() in POOLS
        x = self.pool(f"{name}.pool", x, *POOLS) if first else x
        x = self.layer(f"{name}.conv", "Conv", x)
        x = x if first else self.pool(f"{name}.pool", x, *POOLS)
        kinds.add(POOLS[self.found.steps[f"{name}.pool"].op])
        if len(kinds) > 1:
            raise WeightsError(
                f"expected one kind of pooling in all transitions, found both: {OTHER}"
            )
        (self.found.transition_pool,) = kinds
        return x

    def pool(self, name: str, x: Map, *ops: str) -> Map:
        step = self.found.steps[name] = self.next(*ops, reads=x)
        return step.output

    def layer(self, name: str, op: str, x: Map) -> Map:
        step = self.found.steps[name] = self.next(op, reads=x)
        leaves = ["weight", "bias", "running_mean", "running_var"]
        if op == "Conv":
            del leaves[2:]
        least = 4 if op == "BatchNormalization" else 1
        if not least <= len(step.tensors) <= len(leaves):
            raise _wrong(step.node, f"{least} to {len(leaves)} tensors", str(len(step.tensors)))
        inputs = [given for given in step.node.input[1:] if given]
        for leaf, array, given in zip(leaves, step.tensors, inputs, strict=False):
            self.found.weights[f"{name}.{leaf}"] = array
            self.found.half |= kind_of(self.graph.tensors[given]) == "FLOAT16"
        return step.output

    def classifier(self, step: Step) -> None:
        given = step.attributes
        for name, value in {"alpha": 1.0, "beta": 1.0, "transA": 0}.items():
            if given.get(name, value) != value:
                raise _wrong(step.node, f"{name} {value}", str(given[name]))
        if not step.tensors or step.tensors[0].ndim != 2:
            raise _wrong(step.node, "a matrix of weights", "none")
        matrix, *bias = step.tensors
        if not given.get("transB", 0):
            matrix = np.ascontiguousarray(matrix.T)
        self.found.weights["classifier.weight"] = matrix
        if bias:
            self.found.weights["classifier.bias"] = bias[0].reshape(-1)
        self.found.steps["classifier"] = step

    def check_axes(self, pool: Step) -> None:
        if not pool.op.startswith("Reduce"):
            return
        axes = pool.attributes.get("axes")
        if axes is None and pool.tensors:
            axes = pool.tensors[0].tolist()
        if not isinstance(axes, list) or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise _wrong(pool.node, "axes 2 and 3", f"axes {axes}")

    def conventions(self) -> None:
        """Read epsilon and decay, which all BatchNorms must share."""
        norms = [s for s in self.found.steps.values() if s.op == "BatchNormalization"]
        for step in norms:
            if step.attributes.get("training_mode", 0) or not step.attributes.get("spatial", 1):
                raise _wrong(step.node, "inference", "training; export model.eval()")
        epsilons = {decimal(step.attributes.get("epsilon", 1e-5)) for step in norms}
        if len(epsilons) > 1:
            several = " and ".join(f"{value:g}" for value in sorted(epsilons))
            raise WeightsError(f"expected one epsilon in all BatchNorms, found {several}: {OTHER}")
        decays = {decimal(step.attributes.get("momentum", 0.9)) for step in norms}
        (self.found.epsilon,) = epsilons
        self.found.decay = decays.pop() if len(decays) == 1 else 0.9


def decimal(value: float) -> float:
    """Return the shortest decimal that is this float32: 1e-5, not 9.99999974737875e-06."""
    return float(str(np.float32(value)))


# --- Whether a network is that of a specification -----------------------------------------------


def check_function(network: Network, spec: DenseNetSpec) -> None:
    """Raise ``WeightsError`` if a node's attributes mean something else than the specification."""
    expected: dict[str, ConvSpec | PoolSpec] = {
        name: layer for name, layer in layers(spec) if isinstance(layer, ConvSpec)
    }
    norms = [name for name, layer in layers(spec) if isinstance(layer, BatchNormSpec)]
    if spec.stem.pool0:
        expected["features.pool0"] = spec.stem.pool0
    for _, transition in spec.stages:
        if transition:
            expected[f"features.{transition.name}.pool"] = transition.pool
    if missing := [name for name in (*expected, *norms) if name not in network.steps]:
        raise WeightsError(f"expected {listed(missing)}, found no such nodes: {OTHER}")
    for name, layer in expected.items():
        _check_window(network.steps[name], layer)


def _check_window(step: Step, layer: ConvSpec | PoolSpec) -> None:
    given, size = dict(step.attributes), layer.kernel_size
    auto = given.pop("auto_pad", b"NOTSET")
    if auto not in (b"NOTSET", b"VALID", b""):
        raise _wrong(step.node, "explicit padding", f"auto_pad {auto.decode('utf-8', 'replace')}")
    own = given.pop("pads", [0] * 4) if auto != b"VALID" else [0] * 4
    if len(own) != 4:
        raise _wrong(step.node, "four numbers of padding", listed(own))
    pads = [a + b for a, b in zip(own, step.reads.pads, strict=True)]
    values = {
        "kernel_shape": (given.get("kernel_shape", [size] * 2), [size] * 2),
        "strides": (given.get("strides", [1, 1]), [layer.stride] * 2),
        "pads": (pads, [layer.padding] * 4),  # an average has none: count_include_pad is any
        "dilations": (given.get("dilations", [1, 1]), [1, 1]),
        "group": (given.get("group", 1), 1),
        "ceil_mode": (given.get("ceil_mode", 0), 0),
        "storage_order": (given.get("storage_order", 0), 0),
    }
    for name, (found, expected) in values.items():
        if found != expected:
            raise _wrong(step.node, f"{name} {expected}", str(found))
