"""The matrix products in a network: a lower bound on its work, as if all other work were free."""

from collections.abc import Iterator

from ..manifest import shape_trace, size_after
from ..spec import DenseNetSpec


def matrix_products(
    spec: DenseNetSpec, image_size: int, batch_size: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (m, k, n) for each convolution: it costs as much as a product (m, k) x (k, n).

    A transition with average pooling pools before its convolution, as in the backends.
    """
    sizes = {name: h * w for name, (_, h, w) in shape_trace(spec, image_size, image_size)}
    conv0 = spec.stem.conv0
    convolutions = [(conv0, size_after(conv0, image_size) ** 2)]
    for block, transition in spec.stages:
        for layer in block.layers:
            convolutions += [(c, sizes[block.name]) for c in (layer.conv1, layer.conv2) if c]
        if transition:
            at = transition if transition.pool_kind == "avg" else block
            convolutions.append((transition.conv, sizes[at.name]))
    for conv, area in convolutions:
        yield batch_size * area, conv.in_channels * conv.kernel_size**2, conv.out_channels
