"""Check all modules of a complete PyTorch model, and read the settings that no tensor shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..._pickles import StandIn
from ...manifest import layers
from ...spec import BatchNormSpec, ConvSpec, DenseNetSpec, LinearSpec
from ...weights import WeightsError
from .tree import ANOTHER, Item, expect, in_order, is_relu, kind_of, loose, missing, unlike

POOLS = {"AvgPool2d": "avg", "MaxPool2d": "max"}
GLOBAL_POOLS = {"AdaptiveAvgPool2d": "avg", "AdaptiveMaxPool2d": "max"}
OUTPUTS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "softmax"}
BESIDE = ("torch.nn.modules.loss.", "torch.nn.modules.distance.", "torchmetrics.")
OWN_MAXIMUM = "densenet_multi.torch.layers.global_max_pool"
MOST_DEEP = 100  # levels of nested modules
KNOWN = ("torch.nn.", "timm.", "apex.")  # packages whose class names are trusted
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
KINDS = {  # classes that compute a layer; others may pad, scale or normalize differently
    ConvSpec: ("Conv2d",),
    BatchNormSpec: ("BatchNorm2d", "SyncBatchNorm", "BatchNormAct2d"),  # the last is timm's
    LinearSpec: ("Linear", "NonDynamicallyQuantizableLinear"),
}


@dataclass
class Shown:
    """The settings that a complete model's modules show, but no tensor does.

    Attributes:
        fields: of ``DenseNetConfig``.
        activation: what follows the classifier, as in ``Usage``; None if nothing follows it.
        hooked: the names of modules with forward hooks, which may change the modules' outputs.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    activation: str | None = None
    hooked: list[str] = field(default_factory=list)


def shown_by_modules(
    modules: Mapping[str, StandIn], names: Mapping[str, str], spec: DenseNetSpec
) -> Shown | None:
    """Check the complete model around a network, and return the settings that its modules show.

    Returns None if the network's tensors are in no module. A file stores a module's class and
    attributes, not what it computes. A module of one of PyTorch's own classes must be what this
    package builds in that place, have no effect at inference, or correspond to a field of
    ``DenseNetConfig`` or to an activation. For any other class, only the submodules are known, not
    the order in which the class calls them.

    Raises ``WeightsError``, which names the module, for anything else.

    Arguments:
        modules: {name in the file: module}.
        names: {tensor's name in the file: canonical name}.
        spec: the network recognized from its tensors.
    """
    places = {
        canonical.rpartition(".")[0]: name.rpartition(".")[0] for name, canonical in names.items()
    }
    if places["features.conv0"] not in modules:
        return None
    model = _Model(modules, places, spec)
    return model.shown() if model.body.issubset(model.root.layers) else None


class _Model:
    """The tree of modules, from the outermost module around a network down to its layers."""

    def __init__(
        self, modules: Mapping[str, StandIn], places: Mapping[str, str], spec: DenseNetSpec
    ) -> None:
        self.modules = modules
        self.places = places
        self.spec = spec
        self.order = [canonical for canonical, _ in layers(spec)]
        self.numbers = {places[canonical]: i for i, canonical in enumerate(self.order)}
        self.body = {i for i, name in enumerate(self.order) if name != "classifier"}
        self.fields: dict[str, Any] = {}
        self.pooled: dict[str, str] = {}  # {transition: name of its pooling}
        self.pools: dict[str, str] = {}  # {name: kind} of pooling layers before the classifier
        self.outputs: dict[str, str] = {}  # {name: kind} of activations after the classifier
        self.loose: dict[str, str] = {}  # {name: kind} of activations that may follow it
        self.root = self._root()
        complete = [item for item in self.root.within() if self.body.issubset(item.layers)]
        self.container = complete[-1] if complete else self.root

    def shown(self) -> Shown:
        for canonical, layer in layers(self.spec):
            place = self.places[canonical]
            if place in self.modules:
                self._layer(place, self.modules[place], layer)
        self._run(in_order(self.root))
        self._same_activations()
        if len(set(self.pools.values())) > 1 and self.spec.classifier:
            raise WeightsError(
                f"expected one global pooling layer, found {', '.join(self.pools)}: the file does "
                "not show which of them precedes the classifier; delete the others and save "
                "the model again"
            )
        if set(self.pools.values()) == {"max"}:
            self.fields["global_pool"] = "max"
        outputs = self.loose | self.outputs
        if len(meant := set(outputs.values())) > 1:
            raise WeightsError(
                f"expected one activation after the classifier, found {', '.join(outputs)}: the "
                "file does not show which of them is used; delete the others and save the "
                "model again"
            )
        hooked = [
            item.name or "the model"
            for item in self.root.within()
            if any(item.module.attributes.get(hooks) for hooks in HOOKS)
        ]
        return Shown(self.fields, next(iter(meant), None), hooked)

    # --- The tree -------------------------------------------------------------------------------

    def _root(self) -> Item:
        """Return the outermost module whose submodules include the stem's convolution."""
        parts = self.places["features.conv0"].split(".")
        for length in range(len(parts) + 1):
            name = ".".join(parts[:length])
            if name in self.modules:
                root = self._item(name, parts[length - 1] if length else "", set())
                if 0 in root.layers:
                    return root
        raise AssertionError("the stem's convolution is a module in itself")

    def _item(self, name: str, key: str, seen: set[int], depth: int = 0) -> Item:
        if depth > MOST_DEEP:
            raise WeightsError(f"{name}: expected at most {MOST_DEEP} levels of nested modules")
        module = self.modules[name]
        item = Item(name, key, module)
        held = [module.attributes.get(part) for part in ("_parameters", "_buffers")]
        item.learns = any(
            value is not None for part in held if isinstance(part, dict) for value in part.values()
        )
        below = module.attributes.get("_modules")
        children = below if isinstance(below, dict) else {}
        if id(module) in seen:  # a second name of a module; its tensors have the first name
            item.learns |= any(isinstance(child, StandIn) for child in children.values())
            return item
        seen.add(id(module))
        if name in self.numbers:
            item.layers = [self.numbers[name]]
        for child, value in children.items():
            inside = f"{name}.{child}" if name else str(child)
            if isinstance(value, StandIn) and inside in self.modules:
                item.inside.append(self._item(inside, str(child), seen, depth + 1))
                item.layers += item.inside[-1].layers
                item.learns |= item.inside[-1].learns
        return item

    def _stages(self, item: Item) -> set[str]:
        """Return the stages whose layers the module contains, such as "denseblock1"."""
        return {self.order[i].removeprefix("features.").partition(".")[0] for i in item.layers}

    def _is_in_blocks(self, item: Item) -> bool:
        return all(stage.startswith("denseblock") for stage in self._stages(item))

    # --- Layers ---------------------------------------------------------------------------------

    def _layer(self, name: str, module: StandIn, layer: object) -> None:
        """Check a layer's class and settings, and record the fields that it shows."""
        kinds = next((kinds for spec, kinds in KINDS.items() if isinstance(layer, spec)), ())
        kind = kind_of(module)
        is_own = kind in kinds[:1] and not module.name.startswith(KNOWN)  # only named as PyTorch's
        if kinds and (kind not in kinds or is_own):
            found = module.name if is_own else kind
            raise WeightsError(
                f"{name}: expected {kinds[0]}, found {found}: the file does not store what that "
                "class computes"
            )
        if isinstance(layer, ConvSpec):
            expect(name, module, stride=layer.stride, padding=layer.padding, dilation=1, groups=1)
            expect(name, module, padding_mode="zeros")
        said = module.attributes
        if isinstance(layer, BatchNormSpec):
            if isinstance(said.get("eps"), float):
                self._keep("bn_eps", said["eps"], name, "other layers")
            if isinstance(said.get("momentum"), float):
                self._keep("bn_decay", round(1 - said["momentum"], 15), name, "other layers")

    def _keep(self, field_name: str, value: Any, name: str, others: str) -> None:
        if self.fields.setdefault(field_name, value) != value:
            raise WeightsError(
                f"{name}: expected the {field_name} of {others}, {self.fields[field_name]}, found "
                f"{value}"
            )

    # --- Modules that run in a known order ------------------------------------------------------

    def _run(self, items: Sequence[Item]) -> None:
        """Check modules that run in sequence, some of which contain layers."""
        bearing = [i for i, item in enumerate(items) if item.layers]
        for left, right in pairwise([-1, *bearing, len(items)]):
            before = items[left] if left >= 0 else None
            after = items[right] if right < len(items) else None
            self._between(before, after, items[left + 1 : right])
        for i in bearing:
            self._inside(items[i])

    def _between(self, before: Item | None, after: Item | None, items: Sequence[Item]) -> None:
        """Check what runs between two modules with layers, or before the first, or after the last.

        If both are layers or in dense blocks, only the items can run between them, so the items
        must include everything that the network has there.
        """
        if before and after and min(after.layers) != max(before.layers) + 1:
            following = [*self.order, "nothing"][max(before.layers) + 1]
            raise WeightsError(
                f"{after.name}: expected {following} after {before.name}, found "
                f"{self.order[min(after.layers)]}"
            )
        at = max(before.layers) if before else min(after.layers) - 1 if after else -1
        layer = self.order[at] if at >= 0 else ""
        if layer == "classifier":
            self._after_the_classifier(items)
            return
        if layer == "features.norm5" and not self.spec.classifier:
            items = self._until_another_head(items)
        is_complete = before and after and self._shows_all(before) and self._shows_all(after)
        has_relu, has_pool = self._after(layer, before, items, is_complete=bool(is_complete))
        relu, pool = self._expected(layer)
        if before and after and is_complete:
            if relu and not has_relu:
                raise missing("ReLU", before, after, items)
            if layer == self._last_of_stem and pool and not has_pool:
                raise missing(pool, before, after, items)
            stage = layer.split(".")[1]
            if layer == f"features.{stage}.conv" and stage not in self.pooled:
                raise missing(pool, before, after, items)

    def _after(
        self, layer: str, before: Item | None, items: Sequence[Item], *, is_complete: bool
    ) -> tuple[bool, bool]:
        """Return whether ReLU and whether pooling follow a layer; raise for anything else."""
        relu, pool = self._expected(layer)
        has_relu = before is not None and before.kind == "BatchNormAct2d"
        has_pool = False
        for item in items:
            if item.is_without_effect:
                continue
            if relu and is_relu(item):
                averaged = has_pool and layer != self._last_of_stem and is_complete
                if averaged and not has_relu and "max" not in self.pools.values():
                    raise WeightsError(
                        f"{item.name}: expected ReLU before the pooling, found it after the "
                        f"pooling{ANOTHER}"
                    )
                has_relu = True
            elif pool and not has_pool and self._pooling(item, layer):
                has_pool = True
            else:
                raise unlike(item, relu, pool)
        return has_relu, has_pool

    @property
    def _last_of_stem(self) -> str:
        return "features.norm0" if self.spec.stem.norm0 else "features.conv0"

    def _expected(self, layer: str) -> tuple[str, str]:
        """Return the activation and the pooling that the network has after a layer; "" for none."""
        if layer == self._last_of_stem:
            return ("ReLU", "MaxPool2d") if self.spec.stem.pool0 else ("", "")
        if layer == "features.norm5":
            return "ReLU", "AdaptiveAvgPool2d or AdaptiveMaxPool2d"
        if ".transition" in layer:  # average pooling may also precede the convolution
            if layer.endswith(".norm"):
                return "ReLU", "AvgPool2d"
            return "", "AvgPool2d or MaxPool2d"
        return ("ReLU" if ".norm" in layer and layer != "features.norm0" else ""), ""

    def _pooling(self, item: Item, layer: str) -> bool:
        """Return whether the item is pooling that the network may have after a layer; record it."""
        if layer == "features.norm5":
            return self._global_pooling(item)
        if not item.is_stock or item.kind not in POOLS:
            return False
        if layer == self._last_of_stem:
            return self._stem_pooling(item)
        if layer.endswith(".norm") and item.kind != "AvgPool2d":
            return False
        return self._transition_pooling(item, layer.split(".")[1])

    def _stem_pooling(self, item: Item) -> bool:
        if not self.spec.stem.pool0 or not item.is_stock or item.kind != "MaxPool2d":
            return False
        expect(item.name, item.module, kernel_size=3, stride=2, padding=1)
        expect(item.name, item.module, dilation=1, ceil_mode=False)
        return True

    def _transition_pooling(self, item: Item, stage: str) -> bool:
        if stage in self.pooled:
            return False
        self.pooled[stage] = item.name
        kind = POOLS[item.kind]
        if self.fields.setdefault("transition_pool", kind) != kind:
            raise WeightsError(
                f"{item.name}: expected the pooling of the other transitions "
                f"({self.fields['transition_pool']}), found {kind}"
            )
        expect(item.name, item.module, kernel_size=2, stride=2, padding=0)
        expect(item.name, item.module, dilation=1, ceil_mode=False, divisor_override=None)
        return True

    def _global_pooling(self, item: Item) -> bool:
        if item.is_stock and item.kind in GLOBAL_POOLS:
            if self.spec.classifier:
                expect(item.name, item.module, output_size=1)
            self.pools[item.name] = GLOBAL_POOLS[item.kind]
            return True
        if item.kind.startswith("SelectAdaptivePool"):  # timm's
            kind = str(item.module.attributes.get("pool_type")).removeprefix("fast") or "avg"
            self.pools[item.name] = kind
            return kind in ("avg", "max")
        is_another = not item.is_stock and "AvgPool" in item.kind  # FastAdaptiveAvgPool2d, ...
        return is_another or (item.is_stock and item.kind == "AvgPool2d")

    def _after_the_classifier(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.is_without_effect:
                continue
            if not item.is_stock or item.kind not in OUTPUTS or not _is_over_classes(item):
                dim = item.module.attributes.get("dim")
                found = item.kind if _is_over_classes(item) else f"{item.kind} over dim {dim}"
            elif self.outputs:
                found = ", ".join([*self.outputs, item.name])
            else:
                self.outputs[item.name] = OUTPUTS[item.kind]
                continue
            raise WeightsError(
                f"{item.name}: expected a sigmoid, a softmax or nothing after the classifier, "
                f"found {found}; to use the logits, save only the weights: "
                "torch.save(model.state_dict(), 'NEW.pth')"
            )

    def _shows_all(self, item: Item) -> bool:
        """Return whether only layers of the network can run first and last in the module."""
        return item.name in self.numbers or self._is_in_blocks(item)

    # --- Modules whose order is not in the file -------------------------------------------------

    def _inside(self, parent: Item) -> None:
        """Check the submodules of a class that may call them in any order, or not at all."""
        for child in parent.inside:
            if child.layers:
                self._run(in_order(child))
            else:
                for item in loose(child):
                    self._beside(item, parent)
        pool = parent.module.attributes.get("global_pool")  # a function of this package
        if getattr(pool, "name", "") == OWN_MAXIMUM:
            self.pools[f"{parent.name}.global_pool".lstrip(".")] = "max"

    def _beside(self, item: Item, parent: Item) -> None:
        """Check a module that contains no layer, but whose parent contains or is a layer."""
        stage = ".".join(self._stages(parent))
        if item.is_without_effect:
            self._placeholder(item, parent)
        elif is_relu(item):
            pass
        elif stage.startswith("transition") and "." not in stage:
            if not (item.is_stock and item.kind in POOLS and self._transition_pooling(item, stage)):
                raise unlike(item, "ReLU", "AvgPool2d or MaxPool2d")
        elif self._is_in_blocks(parent) or parent.name in self.numbers:
            raise unlike(item, "ReLU", "")
        elif not self._pools_there(item, parent):
            if not self._is_around(parent):
                raise unlike(item, "ReLU", "")
            self._around(item)

    def _placeholder(self, item: Item, parent: Item) -> None:
        """Raise ``WeightsError`` for a module without effect that replaces a ReLU or pooling."""
        key = item.key.lower()
        if "relu" in key or (key.startswith("act") and not self._is_around(parent)):
            raise unlike(item, "ReLU", "")
        if "pool" in key and all(stage.startswith("trans") for stage in self._stages(parent)):
            raise unlike(item, "", "AvgPool2d or MaxPool2d")
        if key == "pool0" and self._has_stem(parent):
            raise unlike(item, "", "MaxPool2d")

    def _pools_there(self, item: Item, parent: Item) -> bool:
        """Return whether the module is the network's stem pooling or global pooling."""
        if self._has_stem(parent):
            if self._stem_pooling(item):
                return True
            is_stems = not any(each.kind == "MaxPool2d" for each in parent.inside)
            if item.key == "pool0" or (item.kind == "AvgPool2d" and is_stems):
                raise unlike(item, "", "MaxPool2d")
        return self._global_pooling(item)

    def _around(self, item: Item) -> None:
        """Check a module that may run before the network, after it, or not at all."""
        word = f"{item.key} {item.kind}".lower()
        if item.module.name.startswith(BESIDE) or "loss" in word or "criterion" in word:
            return
        if not self.spec.classifier:  # only the body is read; a note reports any other head
            return
        if item.is_stock and item.kind in OUTPUTS and _is_over_classes(item):
            self.loose[item.name] = OUTPUTS[item.kind]
        elif item.is_activation or not item.learns or "pool" in word or "gem" in word:
            raise unlike(item, "ReLU", "AdaptiveAvgPool2d or AdaptiveMaxPool2d")

    def _has_stem(self, item: Item) -> bool:
        """Return whether the stem's convolution is a direct submodule, and the stem has pooling."""
        is_there = any(child.layers == [0] for child in item.inside)
        return is_there and self.spec.stem.pool0 is not None

    def _is_around(self, item: Item) -> bool:
        """Return whether the module has the classifier, or a submodule with the complete body."""
        is_more = not self.body.issuperset(item.layers)
        return is_more or any(self.body.issubset(child.layers) for child in item.inside)

    def _until_another_head(self, items: Sequence[Item]) -> list[Item]:
        """Return the items that compute features, up to a head unknown to this package."""
        kinds = (*GLOBAL_POOLS, "AvgPool2d", "ReLU")
        inside = f"{self.container.name}." if self.container.name else ""
        for i, item in enumerate(items):
            is_known = item.is_without_effect or item.is_activation or item.kind in kinds
            is_inside = item.name.startswith(inside) and item.is_stock and not item.learns
            if not is_known and not is_inside:
                return list(items[:i])
        return list(items)

    def _same_activations(self) -> None:
        """Check that all dense layers have the same number of ReLUs, and all transitions too."""
        innermost = {tuple(item.layers): item for item in self.root.within()}
        units: dict[str, list[int]] = {}
        for i, name in enumerate(self.order):
            if ".transition" in name or ".denselayer" in name:
                units.setdefault(name.rpartition(".")[0], []).append(i)
        for word, kind in ((".transition", "transitions"), (".denselayer", "dense layers")):
            found = [innermost.get(tuple(units[unit])) for unit in units if word in unit]
            counts = {item: sum(map(is_relu, item.within())) for item in found if item}
            for item, count in counts.items():
                if count != max(counts.values()):
                    raise WeightsError(
                        f"{item.name}: expected as many ReLUs as in other {kind} "
                        f"({max(counts.values())}), found {count}{ANOTHER}"
                    )


def _is_over_classes(item: Item) -> bool:
    return item.module.attributes.get("dim") in (None, 1, -1)
