"""DenseNet as an ONNX graph, for inference in any runtime.

Read layers.py, then model.py: the paper's network (../spec.py) once more, as in the backends. A
model is called on a symbolic value, and records the nodes of a graph. weights.py adds the weights.
"""

from .._installed import framework

with framework("onnx", "onnx", user="an ONNX file"):
    from .model import DenseBlock as DenseBlock
    from .model import DenseLayer as DenseLayer
    from .model import DenseNet as DenseNet
    from .model import Features as Features
    from .model import Stem as Stem
    from .model import Transition as Transition
    from .weights import to_proto as to_proto
