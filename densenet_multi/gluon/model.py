"""DenseNet in Gluon: HybridBlocks, which run imperatively until ``hybridize()`` is called.

../spec.py explains each class, and all four model.py files have one structure. faster/ may swap
a block instance's class for one that computes the same function faster or in less memory.
The argument ``F`` is unused: layers.py selects the operators.
"""

from typing import Any

from mxnet.gluon import HybridBlock

from ..spec import (
    DenseBlockSpec,
    DenseLayerSpec,
    DenseNetSpec,
    StemSpec,
    TransitionSpec,
    check_spec,
)
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


class Stem(HybridBlock):
    def __init__(self, spec: StemSpec) -> None:
        super().__init__()
        self.spec: Any = spec
        self.conv0 = conv(spec.conv0)
        self.norm0 = batch_norm(spec.norm0) if spec.norm0 else None
        self.pool0 = max_pool(spec.pool0) if spec.pool0 else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.conv0(x)
        if self.pool0 is not None:
            x = self.pool0(relu(self.norm0(x)))
        return x


class DenseLayer(HybridBlock):
    def __init__(self, spec: DenseLayerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm1 = batch_norm(spec.norm1)
        self.conv1 = conv(spec.conv1)
        self.norm2 = batch_norm(spec.norm2) if spec.norm2 else None
        self.conv2 = conv(spec.conv2) if spec.conv2 else None
        self.dropout = dropout(spec.drop_rate)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.conv1(relu(self.norm1(x)))
        if self.conv2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, k, H, W


class DenseBlock(HybridBlock):
    def __init__(self, spec: DenseBlockSpec) -> None:
        super().__init__()
        self.spec = spec
        for layer in spec.layers:
            setattr(self, layer.name, DenseLayer(layer))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        for layer in self.spec.layers:
            x = concat(x, getattr(self, layer.name)(x))
        return x


class Transition(HybridBlock):
    def __init__(self, spec: TransitionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = batch_norm(spec.norm)
        self.conv = conv(spec.conv)
        self.averages = spec.pool_kind == "avg"
        self.pool = avg_pool(spec.pool) if self.averages else max_pool(spec.pool)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
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

    def stages(self, F: Any, x: Any) -> dict[str, Any]:
        x = super().hybrid_forward(F, x)
        maps = {"stem": x}
        for block, transition in self.spec.stages:
            x = maps[block.name] = getattr(self, block.name)(x)
            if transition:
                x = maps[transition.name] = getattr(self, transition.name)(x)
        maps["norm5"] = self.norm5(x)
        return maps

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.stages(F, x)["norm5"]


class DenseNet(HybridBlock):
    def __init__(self, spec: DenseNetSpec) -> None:
        super().__init__()
        self.spec = check_spec(spec)
        self.features = Features(spec)
        self.global_pool = global_avg_pool if spec.global_pool == "avg" else global_max_pool
        self.classifier = linear(spec.classifier) if spec.classifier else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.global_pool(relu(self.features(x)))  # N, C
        if self.classifier is not None:
            x = self.classifier(x)
        return x
