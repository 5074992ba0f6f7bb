"""Other implementations of DenseNet, one module per framework: ``bench`` compares with them.

A *beginner's network* is the one that this package calls "d2l", as somebody might write it who has
read the paper, knows the framework, and has neither a specification nor a library to lean on. The
tests prove it to be the same function. A *framework's network* is the DenseNet that the framework's
own project ships; Flax ships none, and a beginner's takes its place. Both are trained in a plain
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
    """What each module here offers. Images are NumPy (N, C, H, W), labels (N,)."""

    def beginners_network(self, image_size: int) -> Any:
        """The network of the variant "d2l", with native initial weights."""

    def framework_network(self, variant: str, image_size: int) -> Any | None:
        """The framework's own DenseNet; None where it has none of this name and size."""

    def train(
        self,
        network: Any,
        batches: Sequence[Batch],
        learning_rate: float,
        after_step: Callable[[], object],
    ) -> None:
        """Train any network of this framework by SGD; every step reports loss and accuracy."""

    def free_arrays_early(self, model: Any) -> None:
        """Let ``fit`` free the arrays of this package's model early, as plain code does."""

    def logits(self, network: Any, images: Images) -> Images:
        """Predict in evaluation mode."""

    def finish(self) -> None:
        """Wait until everything that was asked for has been computed."""

    def peak_gpu_memory(self) -> int:
        """The most memory that the framework held on the GPU, in bytes."""

    def forget_peak_gpu_memory(self) -> None:
        """Let ``peak_gpu_memory`` count from now on."""


def load_rival(backend_name: str) -> Rival | None:
    """The module of a backend's framework, imported now; None for a backend from elsewhere.

    Raises as ``load_backend``, which comes first: it prepares the framework's import.
    """
    load_backend(backend_name)
    name = f"{__name__}.{backend_name}"
    return cast("Rival", import_module(name)) if find_spec(name) else None
