"""The order of the examples in an epoch, the same for every backend and every NumPy version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._checks import LARGEST_COUNT, check_seed, integer

LARGEST_EPOCH = 2**32 - 1  # must fit into one 32-bit word of the seed sequence
ORDER, AUGMENTATION = 0, 1  # what random numbers are used for; each use has its own stream


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle 0 … n-1 by sorting n random 64-bit numbers.

    ``Generator.permutation`` would be simpler, but its result may change in a later NumPy. NumPy
    guarantees only that the output of ``PCG64`` and ``SeedSequence`` never changes
    (https://numpy.org/neps/nep-0019-rng-policy.html). A stable sort keeps ties in order.

    Raises ``ConfigError`` if an argument is out of range.

    Arguments:
        n: the number of examples.
        seed: the seed of the run, from 0 to 2**64 - 1.
        epoch: counted from 0, up to 2**32 - 1.

    Returns:
        int64 of shape (n,): each index once, in the order of the epoch.

    >>> from densenet_multi import data
    >>> data.epoch_order(5, seed=0, epoch=1)
    array([4, 1, 2, 0, 3])
    """
    n = integer("n", n, 0, LARGEST_COUNT)
    bits = np.random.PCG64(stream(seed, epoch, ORDER)).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)


def stream(seed: int, epoch: int, use: int) -> np.random.SeedSequence:
    """Return the ``SeedSequence`` of random numbers, different for each (seed, epoch, use)."""
    seed, epoch = check_seed(seed), integer("epoch", epoch, 0, LARGEST_EPOCH)
    return np.random.SeedSequence([seed % 2**32, epoch, use, seed >> 32])  # 32-bit words
