"""The modules of a complete PyTorch model as a tree, and facts about PyTorch's own classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._pickles import StandIn, shown
from ...weights import WeightsError

SEQUENCES = (  # classes that run their children in order
    "torch.nn.modules.container.Sequential",
    "torchvision.models.densenet._Transition",
)
CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")  # PyTorch's own
WITHOUT_EFFECT = ("Identity", "Flatten", "DropPath", "DropBlock2d")  # and every kind of dropout
REPLACE = "; if it changes no output, replace it with torch.nn.Identity() and save the model again"
ANOTHER = ": such a model computes a function that no DenseNet of this package computes"


@dataclass(eq=False)
class Item:
    """A module and its submodules.

    Attributes:
        layers: the indices of the network's layers that the module contains.
        learns: whether the module or a submodule has tensors. Also True for a second name of a
            module with submodules.
    """

    name: str
    key: str
    module: StandIn
    layers: list[int] = field(default_factory=list)
    inside: list[Item] = field(default_factory=list)
    learns: bool = False

    @property
    def kind(self) -> str:
        return kind_of(self.module)

    @property
    def is_stock(self) -> bool:
        return self.module.name.startswith("torch.nn.")

    @property
    def is_without_effect(self) -> bool:
        """Whether the module returns its input's values at inference, maybe reshaped."""
        if self.is_stock and self.kind in CONTAINERS and not self.learns:
            return all(item.is_without_effect for item in self.inside)
        return self.kind in WITHOUT_EFFECT or "Dropout" in self.kind

    @property
    def is_activation(self) -> bool:
        return self.module.name.startswith("torch.nn.modules.activation.")

    def within(self) -> Iterator[Item]:
        """Yield the module itself and all modules in it."""
        yield self
        for item in self.inside:
            yield from item.within()


def unlike(item: Item, relu: str, pool: str) -> WeightsError:
    """Return the error for a module that no network of this package has in that place."""
    wanted = "no other module"
    if relu and (item.is_activation or item.is_without_effect):
        wanted = relu
    elif pool and ("pool" in f"{item.key} {item.kind}".lower() or item.is_without_effect):
        wanted = pool
    end = REPLACE if wanted == "no other module" else ANOTHER
    kind = item.kind if item.is_stock else item.module.name
    return WeightsError(f"{item.name}: expected {wanted}, found {kind}{end}")


def in_order(item: Item) -> list[Item]:
    """Return the module, or its children in order if its class is known to run them in sequence."""
    if item.module.name not in SEQUENCES or item.is_without_effect:
        return [item]
    return [each for child in item.inside for each in in_order(child)]


def loose(item: Item) -> list[Item]:
    """Return the module, or its contents if it is a PyTorch container without tensors."""
    is_container = item.is_stock and item.kind in CONTAINERS
    if not is_container or item.learns or item.is_without_effect:
        return [item]
    return [each for child in item.inside for each in loose(child)]


def missing(wanted: str, before: Item, after: Item, items: Sequence[Item]) -> WeightsError:
    """Return the error for a sequence without the ReLU or pooling that the network has there."""
    word = "relu" if wanted == "ReLU" else "pool"
    for item in sorted(items, key=lambda item: word not in item.key.lower()):
        if item.is_without_effect:
            return WeightsError(f"{item.name}: expected {wanted}, found {item.kind}{ANOTHER}")
    between = f"between {before.name} and {after.name}"
    return WeightsError(f"{after.name}: expected {wanted} {between}, found none{ANOTHER}")


def is_relu(item: Item) -> bool:
    return item.is_stock and item.kind == "ReLU"


def kind_of(module: StandIn) -> str:
    return module.name.rpartition(".")[2]


def expect(name: str, module: StandIn, **expected: Any) -> None:
    """Raise ``WeightsError`` unless a module's attributes have the expected values."""
    for attribute, value in expected.items():
        given = module.attributes.get(attribute, value)
        each = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given,)
        if any(one != value for one in each):
            raise WeightsError(
                f"{name} ({kind_of(module)}): expected {attribute} {value}, found "
                f"{' x '.join(map(shown, each))}: the same weights would compute a "
                "different function"
            )
