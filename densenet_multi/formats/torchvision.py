"""torchvision's and timm's checkpoints: ``.pth`` and ``.safetensors``. Their names are canonical.

Files differ in names of before 2018 (``norm.1`` for ``norm1``), DataParallel's ``module.``, a
training checkpoint around the ``state_dict``, and PyTorch's counters.
Source: https://github.com/pytorch/vision/blob/main/torchvision/models/densenet.py
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files import replacing
from ..backends import framework
from ..portable import Checkpoint, check_size, read_safetensors, to_float
from ..weights import WeightsError
from . import differences, is_safetensors
from .recognize import checkpoint_of

BACKEND = "torch"
OLD_NAME = re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
AROUND = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")


def looks_like(path: Path, head: bytes) -> bool:
    """Whether it is PyTorch's zip or bare pickle."""
    if head[:4] == b"PK\x03\x04":
        return any(name.endswith("data.pkl") for name in _names_in_zip(path))
    return head[:2] == b"\x80\x02"


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(f"expected a zip archive, found a damaged one ({error})") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return []  # PyTorch does not compress; what is small could become huge
    return [entry.filename for entry in entries]


def read(path: Path) -> Checkpoint:
    """The checkpoint; its running variances are PyTorch's unbiased ones."""
    notes: list[str] = []
    weights = canonical(_state(path, notes), notes)
    return checkpoint_of(weights, "unbiased", f"torchvision or timm: {path.name}", notes)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """``.safetensors`` by that name, otherwise PyTorch's own format."""
    state: dict[str, Any] = {}
    for name, array in checkpoint.weights.items():
        state[name] = np.ascontiguousarray(array)
        if name.endswith(".running_var"):  # torchvision's order has the counter here
            state[name.replace("running_var", "num_batches_tracked")] = np.array(0, np.int64)
    if path.name.endswith(".safetensors"):
        from safetensors.numpy import save_file

        with replacing(path) as temporary:
            save_file(state, temporary, metadata={"format": "pt"})
    else:
        with framework("torch", "torch"):
            import torch
        with replacing(path) as temporary:
            torch.save({name: torch.from_numpy(array) for name, array in state.items()}, temporary)
    return tuple(differences(checkpoint, "torchvision's models", 1e-5, "PyTorch's", "unbiased"))


def peer_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], str]:
    """Of torchvision's own model. ``LookupError`` where that cannot be this network."""
    import torch
    import torchvision

    config = checkpoint.spec.config
    fields = {"in_channels": 3, "stem": "imagenet", "conv_bias": False, "compression": 0.5}
    unlike = any(getattr(config, f) != value for f, value in fields.items())
    if unlike or not config.bn_size or not config.num_classes:
        raise LookupError
    model = torchvision.models.DenseNet(
        growth_rate=config.growth_rate,
        block_config=config.block_config,
        num_init_features=config.num_init_features,
        bn_size=config.bn_size,
        num_classes=config.num_classes,
    )
    counters = {n: t for n, t in model.state_dict().items() if "num_batches_tracked" in n}
    state = {n: torch.tensor(array) for n, array in checkpoint.weights.items()}
    model.load_state_dict(state | counters)
    with torch.inference_mode():
        answer: npt.NDArray[np.float32] = model.eval()(torch.tensor(images)).numpy()
    return answer, f"torchvision {torchvision.__version__}"


def canonical(state: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The tensors of a ``state_dict`` under canonical names, without counters."""
    prefix = ""
    while not any(name.startswith(f"{prefix}features.") for name in state):
        longer = [p for p in PREFIXES if any(name.startswith(prefix + p) for name in state)]
        if not longer or len(prefix) > 50:
            break
        prefix += longer[0]
    if prefix:
        notes.append(f"the prefix {prefix!r} was taken off every name")
    weights = {}
    old = 0
    for full, array in state.items():
        name = full.removeprefix(prefix)
        if name.endswith("num_batches_tracked"):
            continue
        renamed = OLD_NAME.sub(r"\1\2", name)
        old += renamed != name
        if renamed in weights:
            raise WeightsError(f"{full}: found twice, as {renamed} too")
        weights[renamed] = array
    if old:
        notes.append(f"{old} names of before 2018 (norm.1) became today's (norm1)")
    return weights


def _state(path: Path, notes: list[str]) -> dict[str, Any]:
    check_size(path)
    with path.open("rb") as file:
        head = file.read(512)
    if is_safetensors(head):
        return read_safetensors(path)[1]
    if looks_like(path, head):
        return _unpickle(path, notes)
    raise WeightsError("expected PyTorch's format or safetensors, found another kind of file")


def _unpickle(path: Path, notes: list[str]) -> dict[str, Any]:
    with framework("torch", "torch"):
        import torch
    try:
        # weights_only: an unpickler that knows tensors and containers, and runs nothing
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the unpickler meets in a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"expected a checkpoint of tensors, found one that PyTorch does not read with "
            f"weights_only=True ({first})"
        ) from None
    for name in AROUND:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            notes.append(f"the weights were in the entry {name!r} of a training checkpoint")
    if not isinstance(loaded, dict):
        raise WeightsError(f"expected a state_dict, found {type(loaded).__name__}")
    state = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if len(state) < len(loaded):
        notes.append(f"{len(loaded) - len(state)} entries that are no tensors were left out")
    return {name: _to_numpy(name, tensor) for name, tensor in state.items()}


def _to_numpy(name: str, tensor: Any) -> Any:
    import torch

    try:
        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        return to_float(wide.detach().numpy())
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{name}: expected a dense tensor, found {error}") from None
