"""Train in less memory: recompute each convolution's input in the backward pass.

In PyTorch, each layer does this itself. Here, as in Gluon and Flax, a block does it for its
layers: in the backward pass a layer's input is a slice of the block's output, which is faster than
concatenating many narrow maps. ``tf.recompute_grad`` would copy all of its arguments and compute
mean and variance a second time.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from ..._checks import ConfigError
from ...backends import Level
from .._layers import BatchNormalization, Conv2D, biased, fused_batch_norm
from ..layers import concat, relu
from ..model import DenseBlock, DenseNet
from .exchange import Kinds, exchange


class RecomputingBlock(DenseBlock):
    keeps_convolutions = True  # keeps the output of a bottleneck's 1x1 convolution

    def call(self, x: Any) -> Any:
        if not called_for_training(x):
            return super().call(x)
        plan, masks = list[list[Pair]](), list[Any]()
        for spec in self.spec.layers:
            layer = getattr(self, spec.name)
            both = (layer.norm1, layer.conv1), (layer.norm2, layer.conv2)
            plan.append([Pair(norm, conv) for norm, conv in both if norm is not None])
            shape = [*tf.unstack(tf.shape(x)[:3]), plan[-1][-1].conv.filters]
            masks.append(layer.dropout(tf.ones(shape, x.dtype)) if spec.drop_rate else None)
        maps, found = recomputed(self.keeps_convolutions, plan, masks, x)
        for pairs, its in zip(plan, found, strict=True):
            for pair, values in zip(pairs, its, strict=True):
                pair.move(values)
        return maps


class FullyRecomputingBlock(RecomputingBlock):
    keeps_convolutions = False


class RecomputingDenseNet(DenseNet):
    """A DenseNet that swaps its layers' classes in ``__init__``, which also runs on loading."""

    level: Level = "some"

    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        exchange(self, RECOMPUTING[self.level])


class FullyRecomputingDenseNet(RecomputingDenseNet):
    level = "max"


RECOMPUTING: dict[Level, Kinds] = {
    "some": {DenseNet: RecomputingDenseNet, DenseBlock: RecomputingBlock},
    "max": {DenseNet: FullyRecomputingDenseNet, DenseBlock: FullyRecomputingBlock},
}

# files saved before the class was renamed contain this name
keras.utils.get_custom_objects()["densenet_multi>WholeDenseNet"] = FullyRecomputingDenseNet


class TrainingSwitch(keras.layers.Layer):
    """A layer that records whether a call is for training. A block cannot: Keras passes
    ``training`` only to a layer whose ``call`` had that parameter before classes were exchanged."""

    def call(self, x: Any, training: Any = None) -> Any:
        self.on = bool(training)
        return x


def called_for_training(x: Any) -> bool:
    switch = TrainingSwitch(autocast=False)
    switch(x)
    return switch.on


class Pair:
    """A BatchNorm, a ReLU and a convolution, as a function of their variables."""

    def __init__(self, norm: Any, conv: Any) -> None:
        usual = type(norm) is BatchNormalization and type(conv) is Conv2D
        # the code below would ignore what other layers do
        if not usual or norm.synchronized or conv.lora_enabled:
            raise ConfigError(
                "a memory-efficient layer: expected single-device BatchNormalization and Conv2D "
                f"without LoRA, found {norm} and {conv}; build the model without memory_efficient"
            )
        self.norm, self.conv = norm, conv
        self.variables = [[v.value for v in layer.variables] for layer in (norm, conv)]

    def __call__(self, variables: Any, x: Any, known: Sequence[Any] = ()) -> tuple[Any, Any, Any]:
        """Return the output, the new running statistics, and what a recomputation can reuse."""
        (gamma, beta, *running), (kernel, *bias) = variables
        if x.dtype == tf.float64 or not self.norm.trainable:
            trained = len(self.norm.trainable_variables)
            given = [gamma, beta, *running]
            # a stateless call returns the new statistics and assigns nothing
            x, after = self.norm.stateless_call(given[:trained], given[trained:], x, training=True)
            x, running = relu(x), after[-2:]
        elif known:
            x = rectified_again(x, gamma, beta, self.norm.epsilon, known)
        else:
            x, *known = fused_batch_norm(x, gamma, beta, self.norm.epsilon)
            x, running = relu(x), self.norm.moved(running, known, x)
        x = self.conv.convolution_op(x, tf.cast(kernel, x.dtype))
        if bias:
            x += tf.cast(bias[0], x.dtype)
        return x, running, known

    def move(self, statistics: Sequence[Any]) -> None:
        self.norm.moving_mean.assign(statistics[0])
        self.norm.moving_variance.assign(statistics[1])


def recomputed(
    keeps_convolutions: bool, plan: Sequence[Sequence[Pair]], masks: Sequence[Any], x: Any
) -> tuple[Any, Any]:
    """Return the maps of a block, and the new running statistics of each pair of each layer."""

    @tf.custom_gradient
    def block(variables: Any, x: Any) -> Any:
        variables = tf.nest.map_structure(tf.stop_gradient, variables)  # else a tape keeps them
        maps, moved, kept = tf.stop_gradient(x), [], []
        for pairs, its, mask in zip(plan, variables, masks, strict=True):
            reads, found = [maps], []
            for pair, of_pair in zip(pairs, its, strict=True):
                new, *more = pair(of_pair, reads[-1])
                reads.append(new)
                found.append(more)
            running, known = zip(*found, strict=True)
            moved.append(running)
            kept.append((reads[1:-1] if keeps_convolutions else [], known))
            maps = concat(maps, new if mask is None else new * mask)

        def gradients(gradient: Any, *_: Any) -> Any:
            of_variables = list[Any]()
            for pairs, its, mask, (inner, known) in reversed(
                [*zip(plan, variables, masks, kept, strict=True)]
            ):
                start = gradient.shape[-1] - pairs[-1].conv.filters
                of_new = gradient[..., start:]
                if mask is not None:
                    of_new *= mask
                with tf.control_dependencies([gradient]):  # else TensorFlow slices all at once
                    first = maps[..., :start]
                of_its = list[Any]()
                for number, read in reversed([*enumerate([first, *inner])]):
                    part = slice(number, number + 1 if keeps_convolutions else None)
                    of_part, of_new = recomputed_gradients(
                        pairs[part], its[part], known[part], read, of_new
                    )
                    of_its = [*of_part, *of_its]
                gradient = gradient[..., :start] + of_new
                of_variables.insert(0, of_its)
            return of_variables, gradient

        return (maps, moved), gradients

    return block([[pair.variables for pair in pairs] for pairs in plan], x)


def recomputed_gradients(
    pairs: Sequence[Pair], variables: Any, known: Any, x: Any, gradient: Any
) -> tuple[Any, Any]:
    """Return the gradients of one or two pairs, given the gradient of their output."""
    with tf.GradientTape() as tape:
        tape.watch([variables, x])
        y = x
        for pair, its, found in zip(pairs, variables, known, strict=True):
            y, *_ = pair(its, y, found)
    return tape.gradient(y, [variables, x], gradient)


def rectified_again(x: Any, gamma: Any, beta: Any, epsilon: float, known: Sequence[Any]) -> Any:
    """Recompute a BatchNorm and a ReLU with the mean and variance that the forward pass computed.

    These are not constants: the gradient flows through them too.
    """

    @tf.custom_gradient
    def forward(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, *rest: Any) -> Any:
        y = relu(fused_batch_norm(x, gamma, beta, epsilon, (mean, biased(variance, x)))[0])

        def gradients(gradient: Any) -> Any:
            found = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=tf.raw_ops.ReluGrad(gradients=gradient, features=y),
                x=x,
                scale=gamma,
                reserve_space_1=rest[0],
                reserve_space_2=rest[1],
                reserve_space_3=rest[2],
                epsilon=epsilon,
                is_training=True,
            )
            return [*found[:3], *[None for _ in known]]

        return y, gradients

    return forward(x, gamma, beta, *known)
