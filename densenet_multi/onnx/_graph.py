"""Modules that record nodes: ONNX itself has only a list of nodes, without a hierarchy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onnx import NodeProto, helper


@dataclass(frozen=True)
class Value:
    """A tensor that a runtime will compute.

    Attributes:
        name: its name in the graph.
        path: the path of the module that returned it; differs from the name after an identity.
        nodes: all nodes recorded so far.
    """

    name: str
    path: str
    nodes: list[NodeProto]

    def record(self, op: str, path: str, *others: str, **attributes: Any) -> Value:
        """Record a node that reads this value, then the others; return its output.

        The node and its output are both called ``path``.
        """
        self.nodes.append(helper.make_node(op, [self.name, *others], [path], path, **attributes))
        return Value(path, path, self.nodes)


class Module:
    """A part of the network, whose path consists of the attributes that lead to it."""

    path = ""
    spec: Any

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Module):
            value.moved_to(f"{self.path}.{name}".lstrip("."))

    def __getattr__(self, name: str) -> Any:  # for mypy: setattr adds blocks and layers by name
        raise AttributeError(f"{type(self).__name__} {self.path!r} has no attribute {name!r}")

    def moved_to(self, path: str) -> None:
        """Set the path of this module and of all modules in it."""
        self.path = path
        for name, value in vars(self).items():
            if isinstance(value, Module):
                value.moved_to(f"{path}.{name}")


class Layer(Module):
    """A layer that is one node. Its tensors are initializers with canonical names."""

    def __init__(self, op: str, *tensors: str, **attributes: Any) -> None:
        self.op, self.tensors, self.attributes = op, tensors, attributes

    def __call__(self, x: Value) -> Value:
        tensors = (f"{self.path}.{tensor}" for tensor in self.tensors)
        return x.record(self.op, self.path, *tensors, **self.attributes)


class Identity(Module):
    """A layer that records nothing: dropout in inference, or a folded BatchNorm."""

    def __call__(self, x: Value) -> Value:
        return replace(x, path=self.path)
