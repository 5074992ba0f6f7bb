"""Training in less memory: a convolution's input is made again when its gradient is wanted.

Keras' and Flax' memory.py are the same text; Gluon's calculates whole layers again.
"""

from collections.abc import Sequence

from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .layers import concat, relu
from .model import DenseBlock, DenseLayer, DenseNet, Features


class RecomputingLayer(DenseLayer):
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = recomputed(self.norm1, self.conv1, maps)
        if self.norm2 is not None:
            x = recomputed(self.norm2, self.conv2, [x])
        return self.dropout(x)  # N, k, H, W


class RecomputingBlock(DenseBlock):
    layer_class = RecomputingLayer

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.spec.layers:
            maps.append(getattr(self, layer.name)(maps))
        return concat(*maps)


class RecomputingFeatures(Features):
    block_class = RecomputingBlock


class RecomputingDenseNet(DenseNet):
    features_class = RecomputingFeatures


def recomputed(norm: nn.BatchNorm2d, conv: nn.Conv2d, maps: Sequence[Tensor]) -> Tensor:
    if not (norm.training and is_grad_enabled()):
        return conv(relu(norm(concat(*maps))))
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum

    def forward(*maps: Tensor) -> Tensor:
        nonlocal momentum
        x = F.batch_norm(
            concat(*maps),
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=True,
            momentum=momentum,
            eps=norm.eps,
        )
        if not is_compiling():  # which moves the running statistics once by itself
            momentum = 0.0  # from now on they stay as they are
        return conv(x.relu_())  # once: checkpoint stops when it has what was missing

    return checkpoint(forward, *maps, use_reentrant=False, preserve_rng_state=False)
