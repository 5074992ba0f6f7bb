"""DenseNet in tf.keras (Keras 3 on TensorFlow): ``import densenet_multi.keras as dk``.

Read layers.py, then model.py: the paper's network (../spec.py) in this framework's own idiom. Then
read weights.py, predict.py and train.py. torch/, keras/, gluon/ and flax/ contain the same files,
one set for each framework. Ignore faster/, tabular.py (a network for tables) and files whose
names start with an underscore.
"""

from ..backends import framework, publish

with framework("keras", "tensorflow"):
    from . import _startup  # noqa: F401  # first: it checks Keras' engine
    from .model import DenseBlock as DenseBlock
    from .model import DenseLayer as DenseLayer
    from .model import DenseNet as DenseNet
    from .model import Features as Features
    from .model import Stem as Stem
    from .model import Transition as Transition
    from .predict import build as build
    from .predict import features as features
    from .predict import optimize as optimize
    from .predict import predict as predict
    from .predict import use_gpu as use_gpu
    from .train import fit as fit
    from .train import loss_and_gradients as loss_and_gradients
    from .weights import count_parameters as count_parameters
    from .weights import export_weights as export_weights
    from .weights import import_weights as import_weights

NAME = "keras"
FRAMEWORK = "tf.keras"
RUNNING_VARIANCE = "biased"

publish(globals())  # help() shows the docstrings of backends.py
