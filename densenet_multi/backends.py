"""Which backends exist, what each must offer, and how to load one.

``Backend`` is the contract: the functions, parameters and docstrings that all backends share. A
backend is a subpackage registered as an entry point in the group ``densenet_multi.backends`` (see
pyproject.toml), so adding or removing one changes no other code.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from ._checks import (
    DTYPES,
    ConfigError,
    bad,
    check_backend,
    check_names,
    check_of,
    instance,
    one_of,
    text,
)
from ._installed import BackendError as BackendError  # noqa: PLC0414  # re-exported
from ._installed import BackendNotInstalledError as BackendNotInstalledError  # noqa: PLC0414  # re-exported
from ._installed import framework as framework  # noqa: PLC0414  # re-exported

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .manifest import ParameterCount
    from .spec import DenseNetSpec
    from .tabular import TabularSpec
    from .training.history import History
    from .training.recipe import Recipe
    from .training.run import Callback, Data, Keep
    from .training.state import TrainingState

    Array = npt.NDArray[np.floating]
    Images = npt.ArrayLike
    Labels = npt.ArrayLike

GROUP = "densenet_multi.backends"
DEVICES = ("cpu", "gpu")
Level: TypeAlias = Literal[False, "some", "max"]  # of memory_efficient
# by default, JAX and TensorFlow each reserve most of a GPU's memory
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class Backend(Protocol):
    """What every backend module offers: constants, classes, and functions of a model.

    Images are NumPy arrays (N, C, H, W), labels are (N,), tensor names are canonical.

    ``NAME`` is the backend's name (``"torch"``), ``FRAMEWORK`` that of its framework.
    ``RUNNING_VARIANCE`` is ``"biased"`` or ``"unbiased"``: the estimator of the batch variance
    with which this framework's BatchNorm updates its running variance (see docs/conventions.md).

    ``predict`` and ``features`` do not change a model and are thread-safe. Every other function
    needs exclusive access to the model.
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
        memory_efficient: bool | Literal["some", "max"] = False,
    ) -> Any:
        """Build a model of this framework from a specification, with seeded initial weights.

        Arguments:
            spec: what ``get_spec`` or ``DenseNetConfig.resolve`` returns.
            seed: seeds the initial weights (``init_weights``), the same in every backend.
            dtype: "float32" or "float64".
            memory_efficient: "some" recomputes the concatenations, BatchNorms and ReLUs of the
                dense blocks in the backward pass instead of keeping them; "max" also recomputes
                the first convolution of each bottleneck. Training computes the same results in less
                memory. False keeps everything; True means "some".

        Raises ``ConfigError``. The network is that of https://arxiv.org/abs/1608.06993.
        densenet_multi/spec.py describes it as data. This backend's model.py implements it in this
        framework's classes; the other three backends have classes of the same names.
        ``help(densenet_multi)`` lists what you can ignore.
        Example::

            model = build(dm.get_spec("d2l"), seed=1)
        """

    def optimize(self, model: Any, *, bfloat16: bool = False) -> Any:
        """Return a faster, inference-only copy of the model: the same logits up to rounding.

        BatchNorms are folded into convolutions; memory layout and compilation suit this framework.
        Later changes to the model's weights do not reach the copy. ``predict`` and ``features``
        accept it; training raises ``ConfigError``. With ``bfloat16``, the features are computed in
        bfloat16; weights, classifier and logits stay float32 (Gluon has no ``bfloat16``). On a
        CPU, PyTorch's copy keeps memory for the maps of its largest batch.
        """

    def use_gpu(self, model: Any) -> bool:
        """Move the model to the GPU if this framework finds one; return whether it does."""

    def import_weights(self, model: Any, weights: Mapping[str, Array]) -> None:
        """Overwrite every tensor of the model, or none if there is an error.

        ``weights`` is {canonical name: array} in canonical layout, as returned by the
        ``export_weights`` of any backend. Raises ``WeightsError``, which lists every tensor that
        does not fit.
        """

    def export_weights(self, model: Any) -> dict[str, Array]:
        """Return copies of all tensors, {canonical name: array}, in the model's dtype."""

    def predict(self, model: Any, images: Images) -> Array:
        """Return the logits (N, num_classes) of images (N, C, H, W), in the model's dtype.

        The model runs in evaluation mode. Images are floating point, scaled as the network expects.
        Raises ``ImageError``, and ``ImageSizeError`` for too few pixels. Example::

            predict(model, np.zeros((1, 1, 96, 96), "float32")).shape  # (1, 10) for "d2l"
        """

    def features(self, model: Any, images: Images) -> dict[str, Array]:
        """Return the feature map (N, C, H, W) after each stage, {stage: array}.

        The model runs in evaluation mode. The stages are those of ``shape_trace``: "stem",
        "denseblock1", … "norm5". Raises the same errors as ``predict``.
        """

    def loss_and_gradients(
        self, model: Any, images: Images, labels: Labels
    ) -> tuple[float, dict[str, Array]]:
        """Compute a batch's mean cross entropy in nats, and gradients, {canonical name: array}.

        The model runs in training mode: BatchNorm uses the statistics of the batch, and the running
        statistics are updated once. Parameters that are frozen in the framework's own way have no
        gradient. Labels are integers (N,). Raises ``ImageError``, ``ConfigError``.
        """

    def count_parameters(self, model: Any) -> ParameterCount:
        """Count the elements of the model's own tensors: parameters and running statistics.

        Frozen parameters count as trainable.
        """

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
        """Train the model in place, in this framework's own loop (update rule: training/recipe.py).

        Arguments:
            model: what ``build`` returned; its training or evaluation mode is restored afterwards.
            data: a pair of images (N, C, H, W) and labels (N,), or an object such as
                ``data.FashionMNIST``.
            recipe: a ``Recipe``: epochs, batch size, learning rate and more.
            validation: like ``data``, evaluated after every epoch; None skips this.
            callbacks: each is called with every ``Step`` and every ``Epoch``.
            checkpoint: called after the callbacks, with a function that returns the current
                ``TrainingState``.
            resume: a ``TrainingState`` to resume from, also of another backend. Its run must have
                had the same recipe, which is checked, and the same data, which is not. To
                continue with another recipe on purpose, start a new run from ``resume.weights``, or
                pass ``dataclasses.replace(resume, began=None)``.

        Raises ``ConfigError``, ``ImageError``, and ``TrainingError`` if the loss or a weight is not
        finite. Example::

            history = fit(model, (images, labels), dm.Recipe(epochs=1, batch_size=32))
        """


class TabularBackend(Protocol):
    """What every backend's module ``tabular`` offers: networks of fully connected layers.

    Rows are NumPy arrays (N, in_features) of prepared numbers, targets are (N,). The functions
    without a docstring of their own here do what those of ``Backend`` do.
    """

    TabularLayer: Any
    TabularNet: Any

    def build(self, spec: TabularSpec, *, seed: int = 0, dtype: str = "float32") -> Any:
        """Build a model from ``TabularConfig(...).resolve()``, with weights of ``init_weights``.

        They are initialized as "xavier", the usual choice for fully connected layers. Example::

            model = build(TabularConfig(in_features=300).resolve(), seed=1)
        """

    import_weights: Any = Backend.import_weights
    export_weights: Any = Backend.export_weights
    count_parameters: Any = Backend.count_parameters

    def predict(self, model: Any, rows: npt.ArrayLike) -> Array:
        """Return the predictions (N,) for rows, in the model's dtype and evaluation mode."""

    def loss_and_gradients(
        self, model: Any, rows: npt.ArrayLike, targets: npt.ArrayLike
    ) -> tuple[float, dict[str, Array]]:
        """Compute the mean squared error of two or more rows, and gradients by canonical name.

        As in ``Backend``, the model runs in training mode, and running statistics are updated.
        """

    def fit(
        self,
        model: Any,
        data: tuple[Any, Any],
        recipe: Recipe,
        *,
        validation: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> History:
        """Train the model in place on (rows, targets): ``Backend.fit`` with mean squared error.

        The history's accuracies are NaN. Raises ``ConfigError``, also for a recipe's fields that
        only images have; ``ImageError`` and ``TrainingError``.
        """


def backend_names() -> list[str]:
    """Return the names of all registered backends, whether their framework is installed or not."""
    return list(_registered())


def load_backend(name: str) -> Backend:
    """Import a backend, and return its module: see ``backends.Backend``.

    Raises ``ConfigError`` for an unknown name, ``BackendNotInstalledError`` if the framework is not
    installed; a framework that is installed but broken raises its own error. Example::

        torch = dm.load_backend("torch")
        model = torch.build(dm.get_spec("d2l"))
    """
    registered = _registered()
    if not registered:
        raise ConfigError(
            f"backend {name!r} does not exist: no backend is registered; in a clone of this "
            "package, type: pip install ."
        )
    check_names("backend", [name], registered)
    return cast("Backend", registered[name].load())


def load_tabular(name: str) -> TabularBackend:
    """Import a backend's networks for tables: see ``TabularBackend`` and ``load_backend``."""
    backend: Any = load_backend(name)
    module = f"{backend.__name__}.tabular"
    try:
        return cast("TabularBackend", import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise BackendError(
            f"backend: expected one with networks for tables, found {name!r}"
        ) from None


def source_folder(name: str) -> Path | None:
    """Return the folder of a backend's source files, without importing its framework.

    None if the backend is not a package in a folder.
    """
    from importlib.util import find_spec

    entry = _registered().get(text("name", name))
    found = None
    with suppress(ImportError, ValueError):  # another package registers it, and is broken
        found = find_spec(entry.module) if entry else None
    folders = list((found and found.submodule_search_locations) or [])
    return Path(folders[0]) if folders else None


def framework_versions(name: str) -> dict[str, str | None]:
    """Return {distribution: installed version or None} of the requirements of a backend's extra.

    The extra belongs to the package that registers the backend. Versions come from metadata, so
    nothing is imported, and a broken installation shows its version too.
    """
    entry = _registered().get(text("name", name))
    return _versions((entry and entry.dist and entry.dist.requires) or [], extra=name)


def package_versions(extra: str | None = None) -> dict[str, str | None]:
    """Return {distribution: installed version or None} of this package's own requirements.

    With an extra, such as ``"onnx"``, of what that extra adds.
    """
    from importlib.metadata import requires

    return _versions(requires("densenet_multi") or [], extra=extra)


def hide_gpus() -> None:
    """Hide all GPUs from every framework that this process imports from now on."""
    # with a GPU build and no visible GPU, JAX starts only if the platform is set
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def place(backend: Backend, model: Any, device: str | None) -> None:
    """Place a model on "gpu" (an error if none is found) or "cpu"; None uses a GPU if available.

    For "cpu", call ``hide_gpus`` before importing the framework. Raises ``BackendError`` or
    ``ConfigError``.
    """
    check_device(device)
    check_backend(backend)
    if device != "cpu" and not backend.use_gpu(model) and device == "gpu":
        raise BackendError(
            f"device: expected a GPU that {backend.FRAMEWORK} sees, found none; use device='cpu'"
        )


def installed_backends() -> list[str]:
    """Return the names of the backends whose framework is installed, in any version."""
    return [name for name in backend_names() if None not in framework_versions(name).values()]


def first_installed() -> str:
    """Return the first backend whose framework is installed, in any version.

    Raises ``BackendNotInstalledError`` if there is none.
    """
    if installed := installed_backends():
        return installed[0]
    raise BackendNotInstalledError(
        f"backend: expected one of {', '.join(backend_names())}, found none installed; in a "
        "clone of densenet_multi, install one with: pip install '.[torch]'"
    )


# --- What a backend's __init__ offers ------------------------------------------------------------

CLASSES = {  # public class -> the spec that it is built from
    "Stem": "StemSpec",
    "DenseLayer": "DenseLayerSpec",
    "DenseBlock": "DenseBlockSpec",
    "Transition": "TransitionSpec",
    "Features": "DenseNetSpec",
    "DenseNet": "DenseNetSpec",
}
TABULAR_CLASSES = {"TabularLayer": "TabularLayerSpec", "TabularNet": "TabularSpec"}
OWN_DOCSTRINGS = {
    "Features": "Everything before the classifier: stem, dense blocks, transitions, norm5.",
    "DenseNet": "The complete network: features, ReLU, global pooling, classifier. Call it "
    "on a batch of images; it returns logits.",
}


def publish(module: dict[str, Any], contract: type = Backend) -> None:
    """Set a backend's ``__all__``, ``dir()``, docstrings and argument checks from the contract.

    ``module`` is the ``globals()`` of the backend's ``__init__``, or of its tabular.py, whose
    contract is ``TabularBackend``. Its functions get the contract's docstrings, its classes those
    of their specs; ``__all__`` and ``dir()`` list exactly these names and the constants. The
    functions are wrapped to accept only this backend's models, and the classes only their kind of
    spec, so no backend needs these checks itself.
    """
    from . import spec, tabular

    specs: Any = spec if contract is Backend else tabular
    classes = CLASSES if contract is Backend else TABULAR_CLASSES
    framework_name = sys.modules[module["__package__"]].FRAMEWORK
    constants = [name for name in contract.__annotations__ if name.isupper()]
    functions = [name for name, value in vars(contract).items() if _is_public_function(name, value)]
    for name in functions:
        module[name].__doc__ = inspect.cleandoc(getattr(contract, name).__doc__)
        if "model" in inspect.signature(getattr(contract, name)).parameters:
            module[name] = _for_models(module[name], module, module[[*classes][-1]])
    for name, of in classes.items():
        text = OWN_DOCSTRINGS.get(name) or inspect.cleandoc(getattr(specs, of).__doc__)
        how = f"Built from a ``{of}``, in {framework_name}'s own layers."
        module[name].__doc__ = f"{text}\n\n{how}"
        module[name].__init__ = _from_spec(module[name].__init__, getattr(specs, of))
    if "Features" in classes:
        module["Features"].stages.__doc__ = "The map after each stage, {stage: map}."
    names = [*sorted(constants), *sorted([*classes, *functions])]
    module["__all__"] = names
    module["__dir__"] = names.copy


def _for_models(function: Any, module: Mapping[str, Any], kind: type) -> Any:
    """Wrap a function so that it accepts only a model of this kind, which the module builds."""
    name = module["__name__"]

    @wraps(function)
    def checked(model: Any, *args: Any, **kwargs: Any) -> Any:
        # torch.compile wraps a model in a module of another class
        if not isinstance(getattr(model, "_orig_mod", model), kind):
            found = type(model)
            raise ConfigError(
                f"model: expected a model of {name}, found a "
                f"{found.__module__}.{found.__qualname__}; type: model = {name}.build(spec)"
            )
        return function(model, *args, **kwargs)

    return checked


def _from_spec(make: Any, kind: type) -> Any:
    """Wrap a class's ``__init__`` so that it accepts only its own kind of spec."""
    expected = f"a {kind.__name__}: get_spec('d2l'), or a part of it"
    own = {  # other arguments: Flax's rngs
        name: check_of(parameter.annotation, name)
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }

    @wraps(make)
    def init(self: Any, spec: Any, **kwargs: Any) -> None:
        instance("spec", spec, kind, expected)
        for name in own.keys() & kwargs.keys():
            own[name](name, kwargs[name])
        make(self, spec, **kwargs)

    return init


def _is_public_function(name: str, value: Any) -> bool:
    return inspect.isfunction(value) and not name.startswith("_")


def check_dtype(dtype: str) -> str:
    """Return ``dtype`` if every backend offers it; otherwise raise ``ConfigError``."""
    return one_of("dtype", dtype, DTYPES)


def check_device(device: str | None) -> str | None:
    """Return ``device`` if it is "cpu", "gpu" or None; otherwise raise ``ConfigError``."""
    return None if device is None else one_of("device", device, DEVICES)


def check_memory_efficient(level: object) -> Level:
    """Return False, "some" or "max"; True means "some". Raises ``ConfigError`` otherwise."""
    if level is True:
        return "some"
    if level is False:
        return False
    if not isinstance(level, str) or level not in ("some", "max"):
        raise bad("memory_efficient", level, "False, 'some' or 'max'")
    return "some" if level == "some" else "max"


def _versions(requirements: Iterable[str], *, extra: str | None) -> dict[str, str | None]:
    import re
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for requirement in requirements:
        found = re.search(r"extra == ['\"]([\w.-]+)['\"]", requirement)
        if (found and found[1]) != extra:
            continue
        distribution = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            versions[distribution] = None
    return versions


def _registered() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}
