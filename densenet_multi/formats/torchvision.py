"""PyTorch files with torchvision's tensor names: ``.pth`` and ``.safetensors``.

This package's canonical names are torchvision's. timm, MONAI and many others use them too, with
other prefixes and beside other tensors: see _networks.py. The files are read without PyTorch,
and no code in them is run: see _torch/files.py.
Source: https://github.com/pytorch/vision/blob/main/torchvision/models/densenet.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import listed
from .._files import replacing
from .._installed import framework
from ..checkpoint import Checkpoint
from ..spec import DenseNetConfig
from ..weights import COUNTER, WeightsError
from . import _chapter
from ._chapter import chapter_names
from ._found import Found, Shapes, is_counter, layers_of, left_out, listed_names
from ._heads import another_head
from ._networks import find_network
from ._new_first import old_first
from ._notes import assumed, differences, unstored
from ._safetensors import (
    PORTABLE_ENTRY,
    is_safetensors,
    read_safetensors,
    write_safetensors,
)
from ._stated import NOTHING, Stated
from ._torch.beside import class_names, modules_of
from ._torch.files import (
    ZIP,
    OtherTensor,
    Tree,
    first_line,
    is_torch_file,
    open_torch,
    tensors_in,
    to_numpy,
)
from ._torch.whole import shown_by_modules
from .recognize import checkpoint_of

BACKEND = "torch"
LIBRARY = "torchvision"
EPSILON, DECAY = 1e-5, 0.9  # PyTorch's defaults, which torchvision's models use
THEIRS = {  # fields that are fixed in torchvision's class
    "stem": "imagenet",
    "conv_bias": False,
    "compression": 0.5,
    "transition_pool": "avg",
    "global_pool": "avg",
}


def looks_like(path: Path, head: bytes) -> bool:
    """Return whether a file is a PyTorch zip, a bare pickle or safetensors.

    A Flax file may be a pickle or safetensors too, so Flax's formats are tried first.
    """
    return is_safetensors(head) or is_torch_file(path, head)


def read(path: Path, stated: Stated = NOTHING) -> Checkpoint:
    """Read the weights; their running variances are unbiased, as PyTorch computes them."""
    with path.open("rb") as file:
        head = file.read(512)
    if is_safetensors(head):
        metadata, tensors = read_safetensors(path)
        if PORTABLE_ENTRY in metadata:
            raise WeightsError(
                "expected another project's file, found a portable file, whose usage would be "
                "lost; omit source_format='torchvision'"
            )
        return _with_assumed(_checkpoint(path, tensors, stated)[0])
    if head[:4] != ZIP and not is_torch_file(path, head):
        raise WeightsError("expected PyTorch's format or safetensors, found another kind of file")
    with open_torch(path) as tree:
        checkpoint, found = _checkpoint(path, tensors_in(tree), stated)
    return _with_more(checkpoint, tree, found)


def _checkpoint(path: Path, state: Mapping[str, Any], stated: Stated) -> tuple[Checkpoint, Found]:
    """Return the network among the tensors from ``tensors_in``, and where it was found."""
    shapes = {n: tuple(tensor.shape) for n, tensor in state.items() if not is_counter(n)}
    if (chapter := chapter_names(shapes, stated.prefix)) is not None:
        found = Found(chapter, "", notes=[_chapter.NOTE, *_beside(shapes, chapter)])
    else:
        found = find_network(shapes, stated.prefix)
    for name, tensor in state.items():  # an unreadable head is an error, not another kind of head
        if isinstance(tensor, OtherTensor) and name.startswith(found.prefix):
            to_numpy(name, tensor)
    _check_fits(path, sum(state[name].nbytes for name in found.names))
    weights = {canonical: to_numpy(name, state[name]) for name, canonical in found.names.items()}
    if found.new_first:
        weights = old_first(weights)
    source = f"torchvision or timm: {path.name}"
    return checkpoint_of(weights, "unbiased", source, found.notes), found


def _beside(shapes: Shapes, chapter: Mapping[str, str]) -> list[str]:
    """Return notes on the tensors that do not belong to the chapter's network."""
    others = [name for name in shapes if name not in chapter]
    layers = layers_of(shapes, others)
    if layers and "classifier.weight" not in chapter.values():
        return [another_head(shapes, layers)]
    return left_out(shapes, others)


def _check_fits(path: Path, needed: int) -> None:
    """Raise ``WeightsError`` if the tensors need more bytes than the file can hold."""
    size = path.stat().st_size
    if needed > 2 * size:  # float16 and bfloat16 become float32
        raise WeightsError(
            f"expected tensors that fit in the file, found {needed:,} bytes of tensors in a file "
            f"of {size:,}"
        )


def _with_more(checkpoint: Checkpoint, tree: Tree, found: Found) -> Checkpoint:
    """Add what a file states besides its tensors: a model's settings and the class names."""
    spec, usage, notes = checkpoint.spec, checkpoint.usage, list(checkpoint.notes)
    if said := shown_by_modules(modules_of(tree), found.names, spec):
        notes.append(
            "the file holds a complete model: its tensors and its layers' settings were read, and "
            "no code was run; the file does not store what its classes compute, so torchvision's "
            "computation is assumed"
        )
        if said.hooked:
            hooked = listed_names(said.hooked)
            notes.append(f"its forward hooks were ignored, but may change its outputs: {hooked}")
        spec = replace(spec.config, **said.fields).resolve()
        usage = usage.stating(activation=said.activation)
    if named := class_names(tree, spec.config.num_classes):
        entry, names = named
        usage = usage.stating(class_names=names)
        notes.append(f"its class names are from the entry {entry!r}: {listed(names)}")
    found_in = replace(checkpoint, spec=spec, usage=usage, notes=tuple(notes))
    return found_in if said else _with_assumed(found_in)


def _with_assumed(checkpoint: Checkpoint) -> Checkpoint:
    """Add a note on what no tensor shows, unless torchvision's class can build this network."""
    if _is_torchvisions(checkpoint.spec.config):
        return checkpoint
    return replace(checkpoint, notes=(*checkpoint.notes, assumed(EPSILON, DECAY)))


def _is_torchvisions(config: DenseNetConfig) -> bool:
    """Return whether torchvision's class can build this network, with its number of classes."""
    return bool(config.bn_size) and all(getattr(config, n) == value for n, value in THEIRS.items())


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write safetensors if the name ends in ``.safetensors``, otherwise PyTorch's own format."""
    state: dict[str, Any] = {}
    for name, array in checkpoint.weights.items():
        state[name] = np.ascontiguousarray(array)
        if name.endswith(".running_var"):  # torchvision's state_dict has the counter here
            state[name.replace("running_var", "num_batches_tracked")] = np.array(0, np.int64)
    if path.name.endswith(".safetensors"):
        write_safetensors(path, state, {"format": "pt"})
    else:
        with framework("torch", "torch"):
            import torch
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        with replacing(path) as temporary:
            try:
                torch.save(tensors, temporary)
            except RuntimeError as error:  # PyTorch raises no OSError, not even on a full disk
                raise OSError(f"{path}: could not be written ({first_line(error)})") from None
    return (
        *differences(checkpoint, "torchvision's models", (EPSILON, DECAY), "PyTorch's", "unbiased"),
        *unstored(checkpoint),
    )


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], str]:
    """Return the logits and the name of torchvision's own model, with weights read by PyTorch.

    Raises ``LookupError`` if torchvision cannot build this network, or PyTorch rejects the file.
    """
    import torch
    import torchvision

    config = checkpoint.spec.config
    if not _is_torchvisions(config) or config.in_channels != 3 or not config.num_classes:
        raise LookupError
    model = torchvision.models.DenseNet(
        growth_rate=config.growth_rate,
        block_config=config.block_config,
        num_init_features=config.num_init_features,
        bn_size=config.bn_size,
        num_classes=config.num_classes,
    )
    counters = {n: t for n, t in model.state_dict().items() if n.endswith(COUNTER)}
    model.load_state_dict(_state_by_pytorch(path) | counters)
    with torch.inference_mode():
        answer: npt.NDArray[np.float32] = model.eval()(torch.tensor(images)).numpy()
    return answer, f"torchvision {torchvision.__version__}"


def _state_by_pytorch(path: Path) -> dict[str, Any]:
    """Return {canonical name: tensor} of a tensors-only file, as PyTorch itself reads it.

    Raises ``LookupError`` if PyTorch rejects the file, or it does not hold exactly one network.
    """
    import pickle

    import torch
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            bare = is_safetensors(file.read(512))
        tree = load_file(path) if bare else torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(_tensors_below(tree, torch.Tensor))
        found = find_network({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise LookupError from error
    state = {canonical: tensors[name].float() for name, canonical in found.names.items()}
    if "classifier.weight" in state and "classifier.bias" not in state:
        state["classifier.bias"] = torch.zeros(len(state["classifier.weight"]))
    return state


def _tensors_below(tree: Any, kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, kind):
            yield f"{prefix}{key}", value
        yield from _tensors_below(value, kind, f"{prefix}{key}.")
