"""What a PyTorch file holds besides its tensors: class names and modules."""

from __future__ import annotations

from ..._pickles import StandIn
from ...checkpoint import names_in_order
from .files import OF_MODULES, Tree

NAMES = (
    *("class_names", "classes", "label_names", "labels", "idx_to_class", "id2label"),
    *("class_to_idx", "class_indices"),
)


def class_names(tree: Tree, count: int) -> tuple[str, tuple[str, ...]] | None:
    """The entry with the names of this many classes, which trainers save, and the names."""
    for path, each in tree:
        names = names_in_order(each) if path and path[-1] in NAMES else None
        if names and len(names) == count:
            return ".".join(path), tuple(names)
    return None


def modules_of(tree: Tree) -> dict[str, StandIn]:
    """{name: module} of the modules in a file, named as their tensors are."""
    return {
        ".".join(key for key in path if key not in OF_MODULES): each
        for path, each in tree
        if isinstance(each, StandIn) and "_parameters" in each.attributes
    }
