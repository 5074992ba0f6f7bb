"""One training step in Gluon's own idiom."""

import numpy as np
import numpy.typing as npt
from mxnet import autograd, gluon

from ..inputs import check_images, check_labels
from .model import DenseNet
from .weights import dtype_of, native_parameters, to_native


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model))
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    with autograd.record():
        loss = cross_entropy(model(to_native(x)), to_native(y)).mean()
    loss.backward()
    gradients = {
        name: parameter.grad().asnumpy()
        for name, parameter in native_parameters(model).items()
        if parameter.grad_req != "null"
    }
    return loss.asscalar().item(), gradients
