"""Fashion-MNIST without a download, prepared once for all backends."""

from densenet_multi.data.examples import Arrays, Examples, FashionMNIST
from densenet_multi.data.fashion_mnist import (
    CLASSES,
    DataError,
    load_directory,
    load_sample,
    to_input,
)
from densenet_multi.data.idx import IdxError, read_idx, write_idx
from densenet_multi.data.order import epoch_order
from densenet_multi.data.resize import resize

__all__ = [
    "CLASSES",
    "Arrays",
    "DataError",
    "Examples",
    "FashionMNIST",
    "IdxError",
    "epoch_order",
    "load_directory",
    "load_sample",
    "read_idx",
    "resize",
    "to_input",
    "write_idx",
]
