"""What a PyTorch file says beside its tensors: the modules of a whole model, and class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._pickles import StandIn, contents
from ..manifest import layers
from ..spec import BatchNormSpec, ConvSpec, DenseNetSpec
from ..weights import WeightsError
from ._torch_files import OF_MODULES

NAMES = ("class_names", "classes", "label_names", "labels", "idx_to_class", "id2label")
POOLS = {"AvgPool2d": "avg", "MaxPool2d": "max"}


def class_names(root: Any, count: int) -> tuple[str, ...] | None:
    """The names of this many classes, as trainers save them beside the weights; None without."""
    for path, each in contents(root):
        key = path[-1] if path else ""
        found: Any = None
        if key == "class_to_idx" and isinstance(each, dict):
            numbers = {index: name for name, index in each.items() if type(index) is int}
            found = [numbers.get(i) for i in range(len(each))]
        elif key in NAMES and isinstance(each, dict):
            found = [each.get(i, each.get(str(i))) for i in range(len(each))]
        elif key in NAMES and isinstance(each, (list, tuple)):
            found = list(each)
        if found and len(found) == count and all(isinstance(name, str) for name in found):
            return tuple(found)
    return None


def modules_of(root: Any) -> dict[str, StandIn]:
    """{name: module} of the whole models in a file, named as their tensors are."""
    return {
        ".".join(key for key in path if key not in OF_MODULES): each
        for path, each in contents(root)
        if isinstance(each, StandIn) and "_parameters" in each.attributes
    }


def conventions(
    modules: Mapping[str, StandIn], names: Mapping[str, str], spec: DenseNetSpec
) -> dict[str, Any]:
    """Fields of ``DenseNetConfig`` that the modules of a whole model show and no tensor does.

    Raises ``WeightsError``, which names the module, where it is not what this package builds.

    Arguments:
        modules: {name in the file: module}.
        names: {tensor's name in the file: canonical name}.
        spec: the network that its tensors show.
    """
    found: dict[str, Any] = {}
    places = {
        canonical.rpartition(".")[0]: name.rpartition(".")[0] for name, canonical in names.items()
    }
    for layer, piece in layers(spec):
        module = modules.get(places.get(layer, ""))
        for name, value in _said(places.get(layer, ""), module, piece) if module else ():
            if found.setdefault(name, value) != value:
                raise WeightsError(
                    f"{places[layer]}: expected the {name} of other layers, {found[name]}, found "
                    f"{value}"
                )
    for name, module in modules.items():
        kind = module.name.rpartition(".")[2]
        if kind in POOLS and ".transition" in f".{name}":
            if found.setdefault("transition_pool", POOLS[kind]) != POOLS[kind]:
                raise WeightsError(f"{name}: expected the pooling of the other transitions")
            _expect(name, module, "kernel_size", 2)
    return found


def _said(name: str, module: StandIn, piece: object) -> Iterator[tuple[str, Any]]:
    said = module.attributes
    if isinstance(piece, ConvSpec):
        for attribute in ("stride", "padding"):
            _expect(name, module, attribute, getattr(piece, attribute))
        _expect(name, module, "dilation", 1)
        _expect(name, module, "groups", 1)
    if isinstance(piece, BatchNormSpec):
        if isinstance(said.get("eps"), float):
            yield "bn_eps", said["eps"]
        if isinstance(said.get("momentum"), float):
            yield "bn_decay", round(1 - said["momentum"], 15)


def _expect(name: str, module: StandIn, attribute: str, expected: int) -> None:
    given = module.attributes.get(attribute, expected)
    if given not in (expected, (expected, expected), [expected, expected]):
        raise WeightsError(
            f"{name} ({module.name.rpartition('.')[2]}): expected {attribute} {expected}, found "
            f"{given}: the same weights would be another function"
        )
