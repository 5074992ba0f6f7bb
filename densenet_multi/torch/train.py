"""One training step in PyTorch's own idiom."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..inputs import check_images, check_labels
from .model import DenseNet
from .weights import dtype_of, to_numpy


def loss_and_gradients(
    model: DenseNet, images: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[float, dict[str, npt.NDArray[np.floating]]]:
    x = check_images(model.spec, images, dtype_of(model))
    y = check_labels(labels, len(x), model.spec.config.num_classes)
    device = model.features.conv0.weight.device
    was_training = model.training
    model.train()
    loss = F.cross_entropy(model(torch.tensor(x, device=device)), torch.tensor(y, device=device))
    names, parameters = zip(*model.named_parameters(), strict=True)
    # autograd.grad leaves the parameters' .grad alone
    gradients = torch.autograd.grad(loss, parameters)
    model.train(was_training)
    return loss.item(), dict(zip(names, map(to_numpy, gradients), strict=True))
