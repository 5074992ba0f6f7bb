"""A beginner's network in each framework, in float64, and its tensors in canonical layout.

The tensors are in the order of ``dm.tensors(spec)``, which is that of the forward pass. Each
backend has its own branch, as in native.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Tensor(NamedTuple):
    """A tensor of a network, as functions that read and overwrite it."""

    read: Callable[[], Array]
    write: Callable[[Array], object]


@contextmanager
def beginners_network(
    backend_name: str, rival: Any, size: int
) -> Iterator[tuple[Any, list[Tensor]]]:
    """Yield the network for images of this size, and its tensors; inside, everything is float64."""
    if backend_name == "torch":
        network = rival.beginners_network(size).double()
        yield network, list(_of_torch(network))
    elif backend_name == "keras":
        from tensorflow import keras

        policy = keras.config.dtype_policy()
        keras.config.set_floatx("float64")  # of images and metrics
        keras.config.set_dtype_policy("float64")
        try:
            network = rival.beginners_network(size)
            yield network, list(_of_keras(network))
        finally:
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy(policy)
    elif backend_name == "gluon":
        import mxnet as mx

        network = rival.beginners_network(size)
        network.cast("float64")
        network(mx.nd.zeros((1, 1, size, size), dtype="float64"))  # now every shape is known
        yield network, list(_of_gluon(network))
    else:
        from densenet_multi.flax.weights import precision

        with precision("float64"):
            network = rival.beginners_network(size)
            yield network, list(_of_flax(network))


def _of_torch(network: Any) -> Iterator[Tensor]:
    import torch

    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            yield Tensor(lambda t=tensor: t.numpy(), lambda a, t=tensor: t.copy_(torch.tensor(a)))


def _of_keras(network: Any) -> Iterator[Tensor]:
    for layer in network.layers:
        for variable in layer.weights:
            yield Tensor(
                lambda v=variable: _canonical(v.numpy()),
                lambda a, v=variable: v.assign(_channels_last(a)),
            )


def _of_gluon(network: Any) -> Iterator[Tensor]:
    import mxnet as mx

    for parameter in network.collect_params().values():
        yield Tensor(
            lambda p=parameter: p.data().asnumpy(),
            lambda a, p=parameter: p.set_data(mx.nd.from_numpy(a, zero_copy=False)),
        )


def _of_flax(network: Any) -> Iterator[Tensor]:
    from flax import nnx

    layers = [network.conv, network.norm0]
    for part in network.body:
        layers += [part.norm, part.conv]
    for layer in [*layers, network.norm1, network.classifier]:
        norm = isinstance(layer, nnx.BatchNorm)
        for leaf in ("scale", "bias", "mean", "var") if norm else ("kernel", "bias"):
            yield Tensor(
                lambda o=layer, n=leaf: _canonical(np.asarray(getattr(o, n)[...])),
                lambda a, o=layer, n=leaf: nnx.update(o, {n: _channels_last(a)}),
            )


def _canonical(array: Array) -> Array:
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim])


def _channels_last(array: Array) -> Array:
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])
