"""Train in less memory: recompute each convolution's input in the backward pass.

In PyTorch, each layer does this itself; in the other three backends, a block does it for its
layers.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..._checks import ConfigError
from ...backends import Level
from ..layers import concat, relu
from ..model import DenseBlock, DenseLayer
from .exchange import Kinds


class RecomputingLayer(DenseLayer):
    keeps_convolutions = True  # keeps the output of a bottleneck's 1x1 convolution

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pairs = [(self.norm1, self.conv1), (self.norm2, self.conv2)]
        pairs = [(norm, conv) for norm, conv in pairs if norm is not None]
        for together in [[pair] for pair in pairs] if self.keeps_convolutions else [pairs]:
            maps = [recomputed(together, maps)]
        return self.dropout(maps[0])  # N, k, H, W


class FullyRecomputingLayer(RecomputingLayer):
    keeps_convolutions = False


class RecomputingBlock(DenseBlock):
    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.spec.layers:
            maps.append(getattr(self, layer.name)(maps))
        return concat(*maps)


RECOMPUTING: dict[Level, Kinds] = {
    "some": {DenseLayer: RecomputingLayer, DenseBlock: RecomputingBlock},
    "max": {DenseLayer: FullyRecomputingLayer, DenseBlock: RecomputingBlock},
}


def recomputed(pairs: Sequence[tuple[Any, nn.Conv2d]], maps: Sequence[Tensor]) -> Tensor:
    if not (is_grad_enabled() and all(norm.training for norm, _ in pairs)):
        x = concat(*maps)
        for norm, conv in pairs:
            x = conv(relu(norm(x)))
        return x
    for norm, _ in pairs:
        if (
            type(norm) is not nn.BatchNorm2d  # F.batch_norm would bypass another class
            or norm.momentum is None
            or not norm.track_running_stats
        ):
            raise ConfigError(
                "a memory-efficient layer: expected BatchNorm2d with momentum and running "
                f"statistics, found {norm}; build the model without memory_efficient"
            )
        norm.num_batches_tracked.add_(1)
    recomputing = False

    def forward(*maps: Tensor) -> Tensor:
        nonlocal recomputing
        x = concat(*maps)
        for norm, conv in pairs:
            x = F.batch_norm(
                x,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                training=True,
                momentum=0.0 if recomputing else norm.momentum,  # update statistics once
                eps=norm.eps,
            )
            x = conv(x.relu_())
        if not is_compiling():  # a compiled graph updates the running statistics once by itself
            recomputing = True
        return x  # not reached in recomputation: checkpoint stops at the last tensor it needs

    return checkpoint(forward, *maps, use_reentrant=False, preserve_rng_state=False)
