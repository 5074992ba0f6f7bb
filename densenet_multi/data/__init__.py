"""Images with labels, found, checked and prepared once for all backends."""

from densenet_multi.data.augment import augment
from densenet_multi.data.cifar10 import load_cifar10
from densenet_multi.data.examples import Arrays, Examples, FashionMNIST, Pixels
from densenet_multi.data.fashion_mnist import CLASSES, load_directory, load_sample, to_input
from densenet_multi.data.folder import ImageFiles, load_folder
from densenet_multi.data.idx import IdxError, read_idx, write_idx
from densenet_multi.data.images import DataError, Preparation, normalise, read_image
from densenet_multi.data.order import epoch_order
from densenet_multi.data.resize import resize
from densenet_multi.data.sources import DataSet, load_data

__all__ = [
    "CLASSES",
    "Arrays",
    "DataError",
    "DataSet",
    "Examples",
    "FashionMNIST",
    "IdxError",
    "ImageFiles",
    "Pixels",
    "Preparation",
    "augment",
    "epoch_order",
    "load_cifar10",
    "load_data",
    "load_directory",
    "load_folder",
    "load_sample",
    "normalise",
    "read_idx",
    "read_image",
    "resize",
    "to_input",
    "write_idx",
]
