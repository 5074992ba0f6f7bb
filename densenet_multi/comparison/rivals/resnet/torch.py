"""PyTorch: a ResNet of basic blocks for small images, trained as our networks are.

He et al., https://arxiv.org/abs/1512.03385, sections 3.3 and 4.2, with torchvision's names and
shortcuts (a 1x1 convolution and a BatchNorm).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from ...._checks import bad
from ....training.history import History
from ....training.recipe import Recipe
from ....training.run import Data, Run, Subject


class BasicBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if stride > 1 or channels != out_channels:
            self.downsample.append(nn.Conv2d(channels, out_channels, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        new = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(new)) + self.downsample(x))


class ResNet(nn.Module):
    def __init__(
        self, blocks: Sequence[int], width: int, in_channels: int = 1, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.Sequential()
        channels = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                out_channels, stride = width * 2**stage, 2 if stage and not i else 1
                self.layers.append(BasicBlock(channels, out_channels, stride))
                channels = out_channels
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def build(blocks: Sequence[int], width: int, *, seed: int, **given: int) -> ResNet:
    """Return a ResNet whose initial weights have the distributions of ``init_weights``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(blocks, width, **given)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(network.fc.bias)
    return network


def fit(
    network: ResNet, like: Any, data: Data, recipe: Recipe, *, validation: Data | None = None
) -> History:
    """Train a ResNet as ``fit`` of the backend trains a DenseNet, and return the history.

    The order, the batches, the augmentation, the schedule, the loss and the update are the same.
    ``like`` is the specification of that DenseNet; images and labels are checked against it.

    Raises ``ConfigError`` for a recipe that computes in bfloat16 or trains the classifier alone,
    and the errors of ``Run``.
    """
    if recipe.bfloat16:
        raise bad("bfloat16", True, "False for a ResNet")
    if not recipe.train_features:
        raise bad("train_features", False, "True for a ResNet")
    run = Run(Subject(like, "float32"), data, recipe, validation=validation)
    recipe = run.recipe
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=run.rates[0],
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )

    def logits(x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        network.eval()
        with torch.inference_mode():
            scores = network(torch.tensor(x)).numpy()
        network.train()
        return scores

    def snapshot() -> tuple[dict[str, Any], dict[str, Any]]:
        return {name: tensor.numpy() for name, tensor in network.state_dict().items()}, {}

    network.train()
    with run.started(logits, snapshot):
        for _ in run.epochs_left:
            for x, y, rate in run.batches():
                optimizer.param_groups[0]["lr"] = rate
                images = torch.tensor(x).to(memory_format=torch.channels_last)
                targets = torch.tensor(y)
                scores = network(images)
                loss = F.cross_entropy(scores, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right = (scores.argmax(dim=1) == targets.argmax(dim=1)).double().mean()
                run.record(loss.item(), right.item())
            run.finish_epoch()
    return run.history
