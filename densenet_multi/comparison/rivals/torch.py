"""PyTorch: a beginner's ``nn.Module`` and loop, and torchvision's DenseNet."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth_rate: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth_rate, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        new = self.conv(F.relu(self.norm(x)))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, kernel_size=1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(F.relu(self.norm(x))))


class BeginnersDenseNet(nn.Module):
    def __init__(self, growth_rate: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        channels = 64
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.body = nn.Sequential()
        for stage in range(4):
            if stage > 0:
                self.body.append(Transition(channels))
                channels //= 2
            for _ in range(4):
                self.body.append(DenseLayer(channels, growth_rate))
                channels += growth_rate
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.body(self.stem(x))))
        return self.classifier(x.mean(dim=(2, 3)))


def beginners_network(image_size: int) -> nn.Module:
    return BeginnersDenseNet()


def framework_network(variant: str, image_size: int) -> nn.Module | None:
    try:
        from torchvision import models
    except ImportError:
        return None
    make = getattr(models, variant, None)
    return make and make(weights=None)


def use_gpu(network: Any) -> None:
    network.to("cuda")


def train(
    network: Any,
    batches: Sequence[Any],
    learning_rate: float,
    after_step: Callable[[], object],
    parts: int = 1,
) -> None:
    device = next(network.parameters()).device
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    network.train()
    for batch in batches:
        optimizer.zero_grad()
        for images, labels in zip(*(np.split(array, parts) for array in batch), strict=True):
            x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
            scores = network(x)
            loss = F.cross_entropy(scores, y)
            (loss / parts).backward()  # adds to the gradients
            loss.item(), (scores.argmax(dim=1) == y).sum().item()
        optimizer.step()
        after_step()


def free_arrays_early(model: Any) -> None:
    pass  # fit already does


def logits(network: Any, images: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    network.eval()
    with torch.inference_mode():
        x = torch.tensor(images, device=next(network.parameters()).device)
        return network(x).cpu().numpy()


def finish() -> None:
    pass  # reading the loss or the logits already waits


def peak_gpu_memory() -> int:
    return torch.cuda.max_memory_allocated()


def forget_peak_gpu_memory() -> None:
    torch.cuda.reset_peak_memory_stats()


def multiplication(
    dtype: str, device: str
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[], object]] | None:
    """Return ``ones``, ``matmul`` and a function that waits for both; None if no GPU is found.
    Only PyTorch's rival defines it, to replace NumPy, which supports neither bfloat16 nor GPUs."""
    ones = partial(torch.ones, dtype=getattr(torch, dtype))
    if device == "cpu":
        return ones, torch.matmul, lambda: None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = True  # PyTorch's default for convolutions
    return partial(ones, device="cuda"), torch.matmul, torch.cuda.synchronize
