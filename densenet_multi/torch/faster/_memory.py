"""Arrays for feature maps that are used again, instead of memory from the system for every map.

PyTorch has no cache of freed memory on a CPU, and glibc returns large arrays to the system, which
then gives out new memory page by page.
"""

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST = 4 * 2**20  # bytes; smaller arrays cost little
LINE = 64  # bytes of a cache line, at whose beginning an array starts


class Memory:
    """Blocks of memory. Each one that nobody holds any more, not even a view of it, is free again.

    A copy of the network gets a memory of its own.
    """

    def __init__(self) -> None:
        self.free: dict[int, Any] = {}

    def __reduce__(self) -> Any:
        return Memory, ()

    def like(self, x: Tensor, count: int, channels: int, height: int, width: int) -> Tensor:
        """Return an array (N, C, H, W) with any content, in the channels-last layout."""
        shape = count, height, width, channels
        size = count * height * width * channels * x.itemsize
        if size < SMALLEST or x.device.type != "cpu" or torch.compiler.is_compiling():
            return x.new_empty(shape).permute(0, 3, 1, 2)
        block = self._take(size)
        lent = block[:size]  # PyTorch holds this object until the last view is gone
        weakref.finalize(lent, self.free.setdefault, id(block), block).atexit = False
        return torch.from_numpy(lent).view(x.dtype).view(shape).permute(0, 3, 1, 2)

    def _take(self, size: int) -> Any:
        """Return the smallest free block that is large enough, or a new one in place of another."""
        for block in sorted(self.free.values(), key=len):
            if len(block) >= size and self.free.pop(id(block), None) is not None:
                return block  # and no other thread
        if self.free:
            self.free.pop(next(iter(self.free)), None)
        new = np.empty(size + LINE, np.uint8)  # NumPy asks for pages of 2 MiB, PyTorch does not
        return new[-new.ctypes.data % LINE :]
