"""Find class names and modules, which a PyTorch file may hold besides its tensors."""

from __future__ import annotations

from ..._pickles import StandIn
from ...checkpoint import names_in_order
from .files import OF_MODULES, Tree

NAMES = (
    *("class_names", "classes", "label_names", "labels", "idx_to_class", "id2label"),
    *("class_to_idx", "class_indices"),
)


def class_names(tree: Tree, count: int) -> tuple[str, tuple[str, ...]] | None:
    """Return (entry, class names) of the first entry with ``count`` names, or None."""
    for path, each in tree:
        names = names_in_order(each) if path and path[-1] in NAMES else None
        if names and len(names) == count:
            return ".".join(path), tuple(names)
    return None


def modules_of(tree: Tree) -> dict[str, StandIn]:
    """Return {name: module} of a file; a module's name is the prefix of its tensors' names."""
    return {
        ".".join(key for key in path if key not in OF_MODULES): each
        for path, each in tree
        if isinstance(each, StandIn) and "_parameters" in each.attributes
    }
