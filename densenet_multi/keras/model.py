"""DenseNet in Keras: layers that contain layers, called on NHWC images.

../spec.py explains each class, and all four model.py files have one structure. faster/ may swap
a layer instance's class for one that computes the same function faster or in less memory.
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
from ._saving import Block, Network
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


class Stem(Block):
    def __init__(self, spec: StemSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec: Any = spec
        self.conv0 = conv(spec.conv0)
        self.norm0 = batch_norm(spec.norm0) if spec.norm0 else None
        self.pool0 = max_pool(spec.pool0) if spec.pool0 else None

    def call(self, x: Any) -> Any:
        x = self.conv0(x)
        if self.pool0 is not None:
            x = self.pool0(relu(self.norm0(x)))
        return x


class DenseLayer(Block):
    def __init__(self, spec: DenseLayerSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.norm1 = batch_norm(spec.norm1)
        self.conv1 = conv(spec.conv1)
        self.norm2 = batch_norm(spec.norm2) if spec.norm2 else None
        self.conv2 = conv(spec.conv2) if spec.conv2 else None
        self.dropout = dropout(spec.drop_rate)

    def call(self, x: Any) -> Any:
        x = self.conv1(relu(self.norm1(x)))
        if self.conv2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, H, W, k


class DenseBlock(Block):
    def __init__(self, spec: DenseBlockSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        for layer in spec.layers:
            setattr(self, layer.name, DenseLayer(layer))

    def call(self, x: Any) -> Any:
        for layer in self.spec.layers:
            x = concat(x, getattr(self, layer.name)(x))
        return x


class Transition(Block):
    def __init__(self, spec: TransitionSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.norm = batch_norm(spec.norm)
        self.conv = conv(spec.conv)
        self.averages = spec.pool_kind == "avg"
        self.pool = avg_pool(spec.pool) if self.averages else max_pool(spec.pool)

    def call(self, x: Any) -> Any:
        x = relu(self.norm(x))
        if self.averages:  # commutes with the 1x1 convolution, which costs 1/4 after pooling
            return self.conv(self.pool(x))
        return self.pool(self.conv(x))


class Features(Stem):
    def __init__(self, spec: DenseNetSpec, **kwargs: Any) -> None:
        super().__init__(spec.stem, **kwargs)
        self.spec = spec
        for block, transition in spec.stages:
            setattr(self, block.name, DenseBlock(block))
            if transition:
                setattr(self, transition.name, Transition(transition))
        self.norm5 = batch_norm(spec.norm5)

    def stages(self, x: Any) -> dict[str, Any]:
        x = super().call(x)
        maps = {"stem": x}
        for block, transition in self.spec.stages:
            x = maps[block.name] = getattr(self, block.name)(x)
            if transition:
                x = maps[transition.name] = getattr(self, transition.name)(x)
        maps["norm5"] = self.norm5(x)
        return maps

    def call(self, x: Any) -> Any:
        return self.stages(x)["norm5"]


class DenseNet(Network):
    def __init__(self, spec: DenseNetSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = check_spec(spec)
        self.features = Features(spec)
        self.global_pool = global_avg_pool if spec.global_pool == "avg" else global_max_pool
        self.classifier = linear(spec.classifier) if spec.classifier else None

    def call(self, x: Any, training: Any = None) -> Any:
        x = self.global_pool(relu(self.features(x)))  # N, C
        if self.classifier is not None:
            x = self.classifier(x)
        return x
