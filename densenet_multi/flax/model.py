"""DenseNet in Flax NNX: modules, which are pytrees of arrays, called on NHWC images.

../spec.py explains each class, and all four model.py files have one structure. faster/ may swap
a module instance's class for one that computes the same function faster or in less memory.
"""

from typing import Any

from flax import nnx
from jax import Array

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


class Stem(nnx.Module):
    def __init__(self, spec: StemSpec, *, rngs: nnx.Rngs) -> None:
        self.spec: Any = spec
        self.conv0 = conv(spec.conv0, rngs=rngs)
        self.norm0 = batch_norm(spec.norm0, rngs=rngs) if spec.norm0 else None
        self.pool0 = max_pool(spec.pool0) if spec.pool0 else None

    def __call__(self, x: Array) -> Array:
        x = self.conv0(x)
        if self.pool0 is not None:
            x = self.pool0(relu(self.norm0(x)))
        return x


class DenseLayer(nnx.Module):
    def __init__(self, spec: DenseLayerSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.norm1 = batch_norm(spec.norm1, rngs=rngs)
        self.conv1 = conv(spec.conv1, rngs=rngs)
        self.norm2 = batch_norm(spec.norm2, rngs=rngs) if spec.norm2 else None
        self.conv2 = conv(spec.conv2, rngs=rngs) if spec.conv2 else None
        self.dropout = dropout(spec.drop_rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.conv1(relu(self.norm1(x)))
        if self.conv2 is not None:
            x = self.conv2(relu(self.norm2(x)))
        return self.dropout(x)  # N, H, W, k


class DenseBlock(nnx.Module):
    def __init__(self, spec: DenseBlockSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        for layer in spec.layers:
            setattr(self, layer.name, DenseLayer(layer, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        for layer in self.spec.layers:
            x = concat(x, getattr(self, layer.name)(x))
        return x


class Transition(nnx.Module):
    def __init__(self, spec: TransitionSpec, *, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.norm = batch_norm(spec.norm, rngs=rngs)
        self.conv = conv(spec.conv, rngs=rngs)
        self.averages = spec.pool_kind == "avg"
        self.pool = avg_pool(spec.pool) if self.averages else max_pool(spec.pool)

    def __call__(self, x: Array) -> Array:
        x = relu(self.norm(x))
        if self.averages:  # commutes with the 1x1 convolution, which costs 1/4 after pooling
            return self.conv(self.pool(x))
        return self.pool(self.conv(x))


class Features(Stem):
    def __init__(self, spec: DenseNetSpec, *, rngs: nnx.Rngs) -> None:
        super().__init__(spec.stem, rngs=rngs)
        self.spec = spec
        for block, transition in spec.stages:
            setattr(self, block.name, DenseBlock(block, rngs=rngs))
            if transition:
                setattr(self, transition.name, Transition(transition, rngs=rngs))
        self.norm5 = batch_norm(spec.norm5, rngs=rngs)

    def stages(self, x: Array) -> dict[str, Array]:
        x = super().__call__(x)
        maps = {"stem": x}
        for block, transition in self.spec.stages:
            x = maps[block.name] = getattr(self, block.name)(x)
            if transition:
                x = maps[transition.name] = getattr(self, transition.name)(x)
        maps["norm5"] = self.norm5(x)
        return maps

    def __call__(self, x: Array) -> Array:
        return self.stages(x)["norm5"]


class DenseNet(nnx.Module):
    def __init__(self, spec: DenseNetSpec, *, rngs: nnx.Rngs | None = None) -> None:
        rngs = rngs or nnx.Rngs(0)
        self.spec = check_spec(spec)
        self.features = Features(spec, rngs=rngs)
        self.global_pool = global_avg_pool if spec.global_pool == "avg" else global_max_pool
        self.classifier = linear(spec.classifier, rngs=rngs) if spec.classifier else None

    def __call__(self, x: Array) -> Array:
        x = self.global_pool(relu(self.features(x)))  # N, C
        if self.classifier is not None:
            x = self.classifier(x)
        return x
