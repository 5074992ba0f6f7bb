"""Figures drawn from a specification, as SVG; standard library only.

One module per figure. ``svg`` has the elements, the colors and the document around a figure. A
drawing works alone, or in a page beside others: it loads nothing, it has a title and a
description, and it follows a page's light or dark theme. The same specification gives the same
bytes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from .._checks import LARGEST_COUNT, bad, check_names, integer
from ..manifest import min_image_size
from ..spec import DenseBlockSpec, DenseNetSpec, check_spec
from ..variants import default_image_size
from .block import block as dense_block
from .concatenation import addition_and_concatenation
from .cost import cost
from .growth import growth
from .network import network
from .svg import Drawing, Figure, document

OF_A_BLOCK = MappingProxyType(
    {"addition-and-concatenation": addition_and_concatenation, "block": dense_block}
)
OF_A_NETWORK = MappingProxyType({"network": network, "growth": growth, "cost": cost})
FIGURES = MappingProxyType({**OF_A_BLOCK, **OF_A_NETWORK})  # name -> its function
SIZED = ("network", "cost")  # figures that depend on the size of an image
MOST_BLOCKS = 24  # dense blocks that a figure of a network has room for


def draw(
    figure: str,
    spec: DenseNetSpec | DenseBlockSpec,
    *,
    image_size: int | None = None,
    block: int | None = None,
    title: str | None = None,
    prefix: str | None = None,
) -> Drawing:
    """Draw a figure of a network; the result is an SVG document as text.

    Arguments:
        figure: ``"addition-and-concatenation"``, ``"block"``, ``"network"``, ``"growth"`` or
            ``"cost"``.
        spec: the network. The first two figures also accept a dense block.
        image_size: pixels per side, for ``"network"`` and ``"cost"``; None is the network's
            default, or the smallest possible size if that is larger.
        block: number of the network's dense block, from 1, for the first two figures; None is 1.
        title: replaces the figure's title, which screen readers read.
        prefix: start of all ids. Two drawings in one page need different prefixes; None is the
            figure's name.

    Raises ``ConfigError``, also for a size or a block that the figure does not use;
    ``ImageSizeError`` for an image that is too small.

    >>> from densenet_multi.drawing import draw
    >>> drawing = draw("block", dm.dense_block(2, in_channels=3, growth_rate=10))
    >>> "23 channels out" in drawing
    True
    """
    check_names("figure", [figure], FIGURES)
    uses = "block" if figure in OF_A_BLOCK else "image_size" if figure in SIZED else ""
    for name, value in (("image_size", image_size), ("block", block)):
        if value is not None and name != uses:
            only = f"only {uses}=" if uses else "no size and no block"
            raise bad(name, value, f"nothing (figure={figure!r} uses {only})")
    if figure in OF_A_BLOCK:
        drawn = OF_A_BLOCK[figure](_block_of(spec, block))
    else:
        drawn = _of_a_network(figure, check_spec(spec), image_size)
    return document(drawn, prefix if prefix is not None else f"drawing-{figure}", title)


def _block_of(spec: Any, block: int | None) -> DenseBlockSpec:
    if isinstance(spec, DenseBlockSpec):
        if block is not None:
            raise bad("block", block, "nothing (the specification is that of one block)")
        return spec
    blocks = [each for each, _ in check_spec(spec).stages]
    number = 1 if block is None else block
    return blocks[integer("number of the dense block", number, 1, len(blocks)) - 1]


def _of_a_network(figure: str, spec: DenseNetSpec, image_size: int | None) -> Figure:
    if len(spec.stages) > MOST_BLOCKS:
        allowed = f"at most {MOST_BLOCKS} dense blocks to draw (figure='block' draws one of them)"
        raise bad("block_config", spec.config.block_config, allowed)
    if figure == "growth":
        return growth(spec)
    if image_size is None:
        image_size = max(default_image_size(spec), min_image_size(spec))
    size = integer("image_size", image_size, 1, LARGEST_COUNT)
    return (network if figure == "network" else cost)(spec, size)
