"""Other implementations of DenseNet for ``bench`` to compare with, one module per framework.

A *beginner's network* is "d2l" as a beginner might write it: someone who has read the paper and
knows the framework, but does not use this package. The tests check that it computes the same
function as this package's "d2l". A *framework's network* is the DenseNet that the framework's own
project ships. Flax ships none, so a beginner's network takes its place. Both are trained in a plain
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from ...backends import load_backend

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.floating]
    Batch = tuple[Images, npt.NDArray[np.int64]]


class Rival(Protocol):
    """The functions of each module here. Images are NumPy arrays (N, C, H, W), labels (N,)."""

    def beginners_network(self, image_size: int) -> Any:
        """Return the "d2l" network, initialized by the framework's defaults."""

    def framework_network(self, variant: str, image_size: int) -> Any | None:
        """Return the framework's own DenseNet; None if it has none for this name and image size."""

    def use_gpu(self, network: Any) -> None:
        """Move any network of this framework to the GPU, unless it was created there."""

    def train(
        self,
        network: Any,
        batches: Sequence[Batch],
        learning_rate: float,
        after_step: Callable[[], object],
        parts: int = 1,
    ) -> None:
        """Train a network with SGD, and compute the loss and accuracy of every step.

        With several ``parts``, each step divides its batch into this many equal parts, computes
        them one after the other, and then updates the weights by the mean of the parts' gradients.
        BatchNorm normalizes each part by the part's own statistics.
        """

    def free_arrays_early(self, model: Any) -> None:
        """Make ``fit`` free the arrays of a backend's model as early as plain code does."""

    def logits(self, network: Any, images: Images) -> Images:
        """Return the logits of images, in evaluation mode."""

    def finish(self) -> None:
        """Wait until all pending computation has finished."""

    def peak_gpu_memory(self) -> int:
        """Return the framework's peak memory on the GPU, in bytes."""

    def forget_peak_gpu_memory(self) -> None:
        """Reset the peak that ``peak_gpu_memory`` returns."""


def load_rival(backend_name: str) -> Rival | None:
    """Return the rival of a backend's framework; None for a third-party backend.

    ``load_backend`` is called first, since it prepares the framework's import. Raises the same
    errors as ``load_backend``.
    """
    load_backend(backend_name)
    name = f"{__name__}.{backend_name}"
    return cast("Rival", import_module(name)) if find_spec(name) else None
