"""What a PyTorch file says beside its tensors: the modules of a whole model, and class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._pickles import StandIn, shown
from ..checkpoint import names_in_order
from ..manifest import layers
from ..spec import BatchNormSpec, ConvSpec, DenseNetSpec, LinearSpec
from ..weights import WeightsError
from ._torch_files import OF_MODULES, Tree

NAMES = (
    *("class_names", "classes", "label_names", "labels", "idx_to_class", "id2label"),
    *("class_to_idx", "class_indices"),
)
POOLS = {"AvgPool2d": "avg", "MaxPool2d": "max"}
OUTPUTS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "softmax"}
WITHOUT_EFFECT = ("Dropout", "Identity", "Flatten")
KINDS = {  # classes that compute what a layer does; another one may pad, scale or normalize else
    ConvSpec: ("Conv2d",),
    BatchNormSpec: ("BatchNorm2d", "SyncBatchNorm", "BatchNormAct2d"),  # the last is timm's
    LinearSpec: ("Linear", "NonDynamicallyQuantizableLinear"),
}


def class_names(tree: Tree, count: int) -> tuple[str, ...] | None:
    """The names of this many classes, as trainers save them beside the weights; None without."""
    for path, each in tree:
        names = names_in_order(each) if path and path[-1] in NAMES else None
        if names and len(names) == count:
            return tuple(names)
    return None


def modules_of(tree: Tree) -> dict[str, StandIn]:
    """{name: module} of the whole models in a file, named as their tensors are."""
    return {
        ".".join(key for key in path if key not in OF_MODULES): each
        for path, each in tree
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
    for canonical, layer in layers(spec):
        place = places.get(canonical, "")
        module = modules.get(place)
        for name, value in _said(place, module, layer) if module else ():
            if found.setdefault(name, value) != value:
                raise WeightsError(
                    f"{place}: expected the {name} of other layers, {found[name]}, found {value}"
                )
    stem = places["features.conv0"].rpartition(".")[0]
    for name, module in modules.items():
        kind = _kind(module)
        if not name.startswith(f"{stem}." if stem else ""):
            continue
        if ".modules.activation." in module.name and kind != "ReLU":
            raise WeightsError(f"{name}: expected ReLU, found {kind}, which no DenseNet here has")
        if kind in POOLS and ".transition" in f".{name}":
            if found.setdefault("transition_pool", POOLS[kind]) != POOLS[kind]:
                raise WeightsError(f"{name}: expected the pooling of the other transitions")
            _expect(name, module, kernel_size=2, stride=2, padding=0)
        if name.rpartition(".")[2] == "pool0":
            _expect(name, module, kernel_size=3, stride=2, padding=1)
    return found


def activation(modules: Mapping[str, StandIn], names: Mapping[str, str]) -> str | None:
    """What follows the classifier in its own ``Sequential``, as a usage has it; None: nothing.

    Raises ``WeightsError`` where that is another function.
    """
    places = {canonical: name.rpartition(".")[0] for name, canonical in names.items()}
    parent, _, place = places.get("classifier.weight", "").rpartition(".")
    siblings = modules[parent].attributes.get("_modules") if parent in modules else None
    if not isinstance(siblings, dict) or place not in siblings:
        return None
    after = list(siblings)[list(siblings).index(place) + 1 :]
    kinds = [_kind(siblings[key]) for key in after if isinstance(siblings[key], StandIn)]
    kinds = [kind for kind in kinds if kind not in WITHOUT_EFFECT]
    if kinds and (len(kinds) > 1 or kinds[0] not in OUTPUTS):
        raise WeightsError(
            f"{parent}: expected a sigmoid, a softmax or nothing after the classifier, found "
            f"{', '.join(kinds)}; to use the logits, save the weights alone: "
            "torch.save(model.state_dict(), 'NEW.pth')"
        )
    return OUTPUTS[kinds[0]] if kinds else None


def _kind(module: StandIn) -> str:
    return module.name.rpartition(".")[2]


def _said(name: str, module: StandIn, layer: object) -> Iterator[tuple[str, Any]]:
    said = module.attributes
    kinds = next((kinds for spec, kinds in KINDS.items() if isinstance(layer, spec)), ())
    if kinds and _kind(module) not in kinds:
        raise WeightsError(
            f"{name}: expected {kinds[0]}, found {_kind(module)}: what that computes is not in the "
            "file"
        )
    if isinstance(layer, ConvSpec):
        _expect(name, module, stride=layer.stride, padding=layer.padding, dilation=1, groups=1)
        _expect(name, module, padding_mode="zeros")
    if isinstance(layer, BatchNormSpec):
        if isinstance(said.get("eps"), float):
            yield "bn_eps", said["eps"]
        if isinstance(said.get("momentum"), float):
            yield "bn_decay", round(1 - said["momentum"], 15)


def _expect(name: str, module: StandIn, **expected: Any) -> None:
    for attribute, value in expected.items():
        given = module.attributes.get(attribute, value)
        each = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given,)
        if any(one != value for one in each):
            raise WeightsError(
                f"{name} ({_kind(module)}): expected {attribute} {value}, found "
                f"{' x '.join(map(shown, each))}: the same weights would be another function"
            )
