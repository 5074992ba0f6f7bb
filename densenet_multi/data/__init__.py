"""Find, validate and prepare images with labels, in one way for all backends."""

from .augment import augment
from .cifar10 import load_cifar10
from .examples import Arrays, Examples, FashionMNIST, Pixels
from .fashion_mnist import CLASSES, load_directory, load_sample, to_input
from .folder import ImageFiles, load_folder
from .held_out import HeldOut, load_held_out
from .idx import IdxError, read_idx, write_idx
from .images import DataError, DataNotFoundError, Preparation, normalize, read_image
from .order import epoch_order
from .resize import resize
from .sources import DataSet, load_data

__all__ = [
    "CLASSES",
    "Arrays",
    "DataError",
    "DataNotFoundError",
    "DataSet",
    "Examples",
    "FashionMNIST",
    "HeldOut",
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
    "load_held_out",
    "load_sample",
    "normalize",
    "read_idx",
    "read_image",
    "resize",
    "to_input",
    "write_idx",
]
