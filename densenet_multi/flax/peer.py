"""Flax has no DenseNet of its own: ``bench`` compares with none."""

from .chapter import train

__all__ = ["peer_net", "train"]


def peer_net(variant: str, image_size: int) -> None:
    return None
