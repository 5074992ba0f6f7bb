"""DenseNet, specified once and implemented natively in PyTorch, Keras, MXNet Gluon and Flax.

The paper: "Densely Connected Convolutional Networks", https://arxiv.org/abs/1608.06993.
The files, in reading order:

- spec.py: the paper as data. variants.py: the paper's networks by name, and "d2l", the network of
  the DenseNet chapter in the book "Dive into Deep Learning". manifest.py: the tensor names, shapes
  and counts of a network. reference.py: what each operation computes, in NumPy. weights.py: random
  initial weights, and the validation of weights.
- torch/, keras/, gluon/, flax/: the same network in four frameworks. Each has the files layers.py,
  model.py, weights.py, predict.py, train.py. backends.py: what every backend offers.
- checkpoint.py: a trained network in memory. class_maps.py: where it sees a class. data/ (images),
  formats/ (weights files), training/ (training runs), tasks/ (such as evaluation and conversion),
  comparison/ (backends side by side), exercises/ (the chapter's questions, measured), drawing/
  (figures), commands/ (the command line). tabular.py: a DenseNet of fully connected layers.

To learn DenseNet, you can ignore the last group, every faster/ folder, and all files whose names
begin with an underscore.

``import densenet_multi as dm`` imports neither a framework nor NumPy; both are imported on first
use. To get a backend: ``dm.load_backend("flax")``, or ``import densenet_multi.flax``.

>>> import densenet_multi as dm
>>> spec = dm.get_spec("d2l", num_classes=7)
>>> f"{dm.count_parameters(spec).trainable:,} trainable parameters"
'757,479 trainable parameters'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._checks import ConfigError
from .backends import BackendError, BackendNotInstalledError, backend_names, load_backend
from .manifest import (
    ImageSizeError,
    ParameterCount,
    StageProfile,
    TensorInfo,
    count_parameters,
    min_image_size,
    profile,
    shape_trace,
    tensors,
)
from .spec import DenseNetConfig, DenseNetSpec, dense_block, transition
from .variants import VARIANTS, cifar_config, get_spec

if TYPE_CHECKING:
    from . import reference
    from ._download import DownloadError
    from ._inputs import ImageError
    from .checkpoint import Checkpoint, Usage
    from .class_maps import class_activation_map
    from .diagnosis import diagnose
    from .formats.portable import load_checkpoint, load_weights, save_weights
    from .formats.pretrained import from_pretrained
    from .training.history import History
    from .training.recipe import RECIPES, Recipe
    from .training.run import TrainingError
    from .weights import WeightsError, check_weights, init_weights

__version__ = "0.1.0"

__all__ = [
    "RECIPES",
    "VARIANTS",
    "BackendError",
    "BackendNotInstalledError",
    "Checkpoint",
    "ConfigError",
    "DenseNetConfig",
    "DenseNetSpec",
    "DownloadError",
    "History",
    "ImageError",
    "ImageSizeError",
    "ParameterCount",
    "Recipe",
    "StageProfile",
    "TensorInfo",
    "TrainingError",
    "Usage",
    "WeightsError",
    "backend_names",
    "check_weights",
    "cifar_config",
    "class_activation_map",
    "count_parameters",
    "dense_block",
    "diagnose",
    "from_pretrained",
    "get_spec",
    "init_weights",
    "load_backend",
    "load_checkpoint",
    "load_weights",
    "min_image_size",
    "profile",
    "reference",
    "save_weights",
    "shape_trace",
    "tensors",
    "transition",
]

_LAZY = {  # public name -> its module, imported on first use; most of these import NumPy
    "RECIPES": "training.recipe",
    "Checkpoint": "checkpoint",
    "DownloadError": "_download",
    "History": "training.history",
    "ImageError": "_inputs",
    "Recipe": "training.recipe",
    "TrainingError": "training.run",
    "Usage": "checkpoint",
    "WeightsError": "weights",
    "check_weights": "weights",
    "class_activation_map": "class_maps",
    "diagnose": "diagnosis",
    "from_pretrained": "formats.pretrained",
    "init_weights": "weights",
    "load_checkpoint": "formats.portable",
    "load_weights": "formats.portable",
    "save_weights": "formats.portable",
}


def __getattr__(name: str) -> Any:
    if name == "reference":
        return import_module(".reference", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
