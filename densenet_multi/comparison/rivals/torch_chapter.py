"""The code that *Dive into Deep Learning* prints in its chapter 7.7: ``bench`` compares with it.

The four chapter.py are plain; nothing else uses them. Batches are NumPy arrays.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def conv_block(input_channels: int, num_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(input_channels),
        nn.ReLU(),
        nn.Conv2d(input_channels, num_channels, kernel_size=3, padding=1),
    )


class DenseBlock(nn.Module):
    def __init__(self, num_convs: int, input_channels: int, num_channels: int) -> None:
        super().__init__()
        layer = [
            conv_block(num_channels * i + input_channels, num_channels) for i in range(num_convs)
        ]
        self.net = nn.Sequential(*layer)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        for blk in self.net:
            Y = blk(X)
            X = torch.cat((X, Y), dim=1)
        return X


def transition_block(input_channels: int, num_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(input_channels),
        nn.ReLU(),
        nn.Conv2d(input_channels, num_channels, kernel_size=1),
        nn.AvgPool2d(kernel_size=2, stride=2),
    )


def chapter_net() -> nn.Module:
    b1 = nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )
    num_channels, growth_rate = 64, 32
    blks: list[nn.Module] = []
    for i in range(4):
        blks.append(DenseBlock(4, num_channels, growth_rate))
        num_channels += 4 * growth_rate
        if i != 3:
            blks.append(transition_block(num_channels, num_channels // 2))
            num_channels //= 2
    return nn.Sequential(
        b1,
        *blks,
        nn.BatchNorm2d(num_channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(num_channels, 10),
    )


def train(net: Any, batches: Iterable[Any], lr: float, hear: Callable[[], object]) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    loss = nn.CrossEntropyLoss()
    device = next(net.parameters()).device
    net.train()
    for images, labels in batches:
        X, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        optimizer.zero_grad()
        y_hat = net(X)
        l = loss(y_hat, y)
        l.backward()
        optimizer.step()
        with torch.no_grad():
            float(l), float((y_hat.argmax(dim=1) == y).sum())
        hear()
