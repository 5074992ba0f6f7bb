"""Which backends exist, what each must offer, and how one is loaded.

A backend is a subpackage registered as an entry point of the group ``densenet_multi.backends``
(see pyproject.toml): adding or removing one touches no other code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from ._checks import ConfigError, bad, check_names, truth

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .manifest import ParameterCount
    from .spec import DenseNetSpec
    from .training.history import History
    from .training.recipe import Recipe
    from .training.run import Callback, Data, Keep
    from .training.state import TrainingState

    Array = npt.NDArray[np.floating]
    Images = npt.ArrayLike
    Labels = npt.ArrayLike

GROUP = "densenet_multi.backends"
DTYPES = ("float32", "float64")


class BackendNotInstalledError(ImportError):
    """A backend's framework is not installed; the message has the command that installs it."""


class BackendError(ValueError):
    """A backend's framework is set up in a way that this package cannot use."""


class Backend(Protocol):
    """What a backend module offers. Images are NumPy (N, C, H, W), labels (N,), names canonical.

    ``RUNNING_VARIANCE`` is ``"biased"`` or ``"unbiased"``: which estimate of the batch variance
    this framework's own BatchNorm adds to the running one (see docs/conventions.md).
    """

    NAME: str
    FRAMEWORK: str
    RUNNING_VARIANCE: str
    Stem: Any
    DenseLayer: Any
    DenseBlock: Any
    Transition: Any
    Features: Any
    DenseNet: Any

    def build(
        self,
        spec: DenseNetSpec,
        *,
        seed: int = 0,
        dtype: str = "float32",
        memory_efficient: bool | str = False,
    ) -> Any:
        """A native model with the weights of ``init_weights(spec, seed)``.

        With ``memory_efficient``, it trains the same in less memory: True calculates the
        concatenations, BatchNorms and ReLUs of dense blocks again in the backward pass, and keeps
        what the convolutions made; ``"max"`` calculates these again too, and keeps a layer's new
        maps alone.
        """

    def optimize(self, model: Any, *, bfloat16: bool = False) -> Any:
        """Another model for evaluation alone: the same logits up to rounding, sooner.

        BatchNorms are folded (see fold.py), layout and compilation chosen for this framework. It
        has copies of the weights as they are now. ``predict`` and ``features`` take it; training
        refuses it with ``ConfigError``. With ``bfloat16``, the features are calculated in it;
        weights, classifier and logits stay float32.
        """

    def use_gpu(self, model: Any) -> bool:
        """Move the model to the GPU, unless it is there; False where this framework sees none."""

    def import_weights(self, model: Any, weights: Mapping[str, Array]) -> None:
        """Overwrite every tensor, or raise ``WeightsError`` and leave the model as it was."""

    def export_weights(self, model: Any) -> dict[str, Array]:
        """Copies of every tensor, in canonical layout and the model's dtype."""

    def predict(self, model: Any, images: Images) -> Array:
        """Logits (N, num_classes) in evaluation mode, in the model's dtype."""

    def features(self, model: Any, images: Images) -> dict[str, Array]:
        """The map (N, C, H, W) after each stage of ``shape_trace``, in evaluation mode."""

    def loss_and_gradients(
        self, model: Any, images: Images, labels: Labels
    ) -> tuple[float, dict[str, Array]]:
        """Mean cross entropy and its gradients, in training mode: running statistics move once.

        What is frozen in the framework's own way has no gradient.
        """

    def count_parameters(self, model: Any) -> ParameterCount:
        """Counted from the native model's own tensors; frozen ones count as trainable."""

    def fit(
        self,
        model: Any,
        data: Data,
        recipe: Recipe,
        *,
        validation: Data | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: Keep | None = None,
        resume: TrainingState | None = None,
    ) -> History:
        """Train the model in place, by the rule of recipe.py, in this framework's own loop.

        ``data`` and ``validation`` are pairs of images (N, C, H, W) and labels (N,), or objects
        such as ``data.FashionMNIST``. Each callback is called with every ``Step`` and ``Epoch``;
        then ``checkpoint``, with a function that returns the ``TrainingState`` of that moment,
        from which ``resume`` goes on, in this framework or another. Afterwards the model is in
        the mode that it was in before.
        """


def backend_names() -> list[str]:
    """The registered backends, installed or not."""
    return list(_registered())


def load_backend(name: str) -> Backend:
    """The backend's module, imported now.

    Raises ``ConfigError`` for an unknown name, ``BackendNotInstalledError`` where the framework is
    absent; a framework that is present but broken raises its own error.
    """
    registered = _registered()
    if not registered:
        raise ConfigError(
            f"backend {name!r} does not exist: none is registered; in a clone, type: pip install ."
        )
    check_names("backend", [name], registered)
    return cast("Backend", registered[name].load())


def framework_versions(name: str) -> dict[str, str | None]:
    """{distribution: installed version or None} for what the backend's extra asks for.

    The extra is that of the package which registers the backend. Read from metadata: nothing is
    imported, and a broken install shows its version.
    """
    import re

    entry = _registered().get(name)
    requirements = (entry and entry.dist and entry.dist.requires) or []
    return _versions(r for r in requirements if re.search(rf"extra == ['\"]{name}['\"]", r))


def package_versions() -> dict[str, str | None]:
    """{distribution: installed version or None} for what this package needs without a backend."""
    from importlib.metadata import requires

    return _versions(r for r in requires("densenet_multi") or [] if "extra ==" not in r)


def hide_gpus() -> None:
    """Let every framework that is imported from now on compute on the CPU, in this process."""
    # JAX for GPUs would not start without one
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def place(backend: Backend, model: Any, device: str | None) -> None:
    """Let a model compute on "gpu", which must be there, or "cpu"; None is a GPU if there is one.

    For "cpu", ``hide_gpus`` comes before the framework. Raises ``BackendError``.
    """
    if device != "cpu" and not backend.use_gpu(model) and device == "gpu":
        raise BackendError(
            f"--device: expected a GPU that {backend.FRAMEWORK} sees, found none; type --device cpu"
        )


def first_installed() -> str:
    """The first backend whose framework is installed, in any version.

    Raises ``BackendNotInstalledError`` where there is none.
    """
    for name in backend_names():
        if None not in framework_versions(name).values():
            return name
    raise BackendNotInstalledError(
        f"backend: expected one of {', '.join(backend_names())}, found none; in a clone of "
        "densenet_multi, install one with: pip install '.[torch]'"
    )


@contextmanager
def framework(backend: str, *packages: str, note: str = "") -> Iterator[None]:
    """Around a backend's imports: an absent framework becomes ``BackendNotInstalledError``.

    Its message ends with ``note``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages:  # present but broken: its own error says more than ours
            raise
        raise BackendNotInstalledError(
            f"backend {backend!r} needs {error.name!r}, which is not installed; in a clone of "
            f"densenet_multi, install it with: pip install '.[{backend}]'{note}",
            name=error.name,
        ) from error


def check_dtype(dtype: str) -> str:
    """``dtype`` if it is one that every backend offers; otherwise ``ConfigError``."""
    if dtype not in DTYPES:
        raise bad("dtype", dtype, " or ".join(map(repr, DTYPES)))
    return dtype


def check_memory_efficient(level: bool | str) -> bool | str:
    """``level`` if ``build`` knows it; otherwise ``ConfigError``."""
    if level != "max" and not isinstance(level, bool):
        raise bad("memory_efficient", level, "True, False or 'max'")
    return level


def check_bfloat16(bfloat16: bool, dtype: str) -> str:
    """The ``dtype`` of a network that may calculate in bfloat16; otherwise ``ConfigError``."""
    if truth("bfloat16", bfloat16) and dtype != "float32":
        raise bad("bfloat16", True, f"False for a network in {dtype}")
    return dtype


def _versions(requirements: Iterable[str]) -> dict[str, str | None]:
    import re
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for requirement in requirements:
        distribution = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            versions[distribution] = None
    return versions


def _registered() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}
