"""DenseNet as an ONNX graph: modules that record nodes when they are called on an NCHW value.

../spec.py explains each class, and all five model.py files have one structure. An identity stands
in for a folded BatchNorm, as in the backends' faster/.
"""

from typing import Any

from ..spec import (
    DenseBlockSpec,
    DenseLayerSpec,
    DenseNetSpec,
    StemSpec,
    TransitionSpec,
    check_spec,
)
from ._graph import Module, Value
from .layers import (
    avg_pool,
    batch_norm,
    concat,
    conv,
    dropout,
    global_avg_pool,
    global_max_pool,
    linear,
    max_pool,
    relu,
)


class Stem(Module):
    def __init__(self, spec: StemSpec) -> None:
        self.spec: Any = spec
        self.conv0 = conv(spec.conv0)
        self.norm0 = batch_norm(spec.norm0) if spec.norm0 else None
        self.pool0 = max_pool(spec.pool0) if spec.pool0 else None

    def __call__(self, x: Value) -> Value:
        x = self.conv0(x)
        if self.pool0 is not None:
            x = self.pool0(relu(self.norm0(x)))
        return x


class DenseLayer(Module):
    def __init__(self, spec: DenseLayerSpec) -> None:
        self.spec = spec
        self.norm1 = batch_norm(spec.norm1)
        self.conv1 = conv(spec.conv1)
        self.norm2 = batch_norm(spec.norm2) if spec.norm2 else None
        self.conv2 = conv(spec.conv2) if spec.conv2 else None
        self.dropout = dropout(spec.drop_rate)

    def __call__(self, x: Value) -> Value:
        x = self.conv1(relu(self.norm1(x)))
        if self.conv2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, k, H, W


class DenseBlock(Module):
    def __init__(self, spec: DenseBlockSpec) -> None:
        self.spec = spec
        for layer in spec.layers:
            setattr(self, layer.name, DenseLayer(layer))

    def __call__(self, x: Value) -> Value:
        for layer in self.spec.layers:
            x = concat(x, getattr(self, layer.name)(x))
        return x


class Transition(Module):
    def __init__(self, spec: TransitionSpec) -> None:
        self.spec = spec
        self.norm = batch_norm(spec.norm)
        self.conv = conv(spec.conv)
        self.averages = spec.pool_kind == "avg"
        self.pool = avg_pool(spec.pool) if self.averages else max_pool(spec.pool)

    def __call__(self, x: Value) -> Value:
        x = relu(self.norm(x))
        if self.averages:  # commutes with the 1x1 convolution, which costs 1/4 after pooling
            return self.conv(self.pool(x))
        return self.pool(self.conv(x))


class Features(Stem):
    def __init__(self, spec: DenseNetSpec) -> None:
        super().__init__(spec.stem)
        self.spec = spec
        for block, transition in spec.stages:
            setattr(self, block.name, DenseBlock(block))
            if transition:
                setattr(self, transition.name, Transition(transition))
        self.norm5 = batch_norm(spec.norm5)

    def stages(self, x: Value) -> dict[str, Value]:
        x = super().__call__(x)
        maps = {"stem": x}
        for block, transition in self.spec.stages:
            x = maps[block.name] = getattr(self, block.name)(x)
            if transition:
                x = maps[transition.name] = getattr(self, transition.name)(x)
        maps["norm5"] = self.norm5(x)
        return maps

    def __call__(self, x: Value) -> Value:
        return self.stages(x)["norm5"]


class DenseNet(Module):
    def __init__(self, spec: DenseNetSpec) -> None:
        self.spec = check_spec(spec)
        self.features = Features(spec)
        self.global_pool = global_avg_pool if spec.global_pool == "avg" else global_max_pool
        self.classifier = linear(spec.classifier) if spec.classifier else None

    def __call__(self, x: Value) -> Value:
        x = self.global_pool(relu(self.features(x)))  # N, C
        if self.classifier is not None:
            x = self.classifier(x)
        return x
