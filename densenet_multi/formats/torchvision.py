"""torchvision's and timm's files: ``.pth`` and ``.safetensors``. Their names are canonical.

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
from .._installed import framework
from ..checkpoint import Checkpoint
from ..weights import WeightsError
from ._limits import check_size
from ._notes import differences, unsaid
from ._safetensors import (
    is_safetensors,
    names_in_safetensors,
    read_safetensors,
    to_float,
    write_safetensors,
)
from .recognize import checkpoint_of

BACKEND = "torch"
OLD_NAME = re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
AROUND = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")


def looks_like(path: Path, head: bytes) -> bool:
    """Whether it is PyTorch's zip or bare pickle, or safetensors without NNX' names."""
    if is_safetensors(head):
        return not any(name.endswith("kernel") for name in names_in_safetensors(path))
    return _is_pickle(path, head)


def _is_pickle(path: Path, head: bytes) -> bool:
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
        return []  # PyTorch does not compress; a small file could become huge
    return [entry.filename for entry in entries]


def read(path: Path) -> Checkpoint:
    """The weights; their running variances are PyTorch's unbiased ones."""
    notes: list[str] = []
    weights = canonical(_state(path, notes), notes)
    return checkpoint_of(weights, "unbiased", f"torchvision or timm: {path.name}", notes)


def write(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write safetensors if the name ends in ``.safetensors``, otherwise PyTorch's own format."""
    state: dict[str, Any] = {}
    for name, array in checkpoint.weights.items():
        state[name] = np.ascontiguousarray(array)
        if name.endswith(".running_var"):  # torchvision's order has the counter here
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
            except RuntimeError as error:  # which is no OSError, not even on a full disk
                raise OSError(f"{path}: could not be written ({_first_line(error)})") from None
    return (
        *differences(checkpoint, "torchvision's models", (1e-5, 0.9), "PyTorch's", "unbiased"),
        *unsaid(checkpoint),
    )


def library_logits(
    path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], str]:
    """The logits of torchvision's own model, and its name.

    Raises ``LookupError`` where that cannot be this network.
    """
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
    if _is_pickle(path, head):
        return _unpickle(path, notes)
    raise WeightsError("expected PyTorch's format or safetensors, found another kind of file")


def _unpickle(path: Path, notes: list[str]) -> dict[str, Any]:
    with framework("torch", "torch"):
        import torch
    try:
        with path.open("rb") as file:  # of a path, PyTorch looks at the name too
            # weights_only: an unpickler that knows tensors and containers, and runs nothing
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the unpickler meets in a damaged file
        text = "expected a checkpoint of tensors, found one that PyTorch does not read with"
        if name := re.search(r"\bGLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"{text} weights_only=True, because it holds {name[1]}, and to make that could run "
                "any code; if you trust it: torch.save(model.state_dict(), 'NEW.pth')"
            ) from None
        raise WeightsError(f"{text} weights_only=True ({_first_line(error)})") from None
    for _ in AROUND:
        inside = [n for n in AROUND if isinstance(loaded, dict) and isinstance(loaded.get(n), dict)]
        if inside:
            loaded = loaded[inside[0]]
            notes.append(f"the weights were in the entry {inside[0]!r} of a training checkpoint")
            notes.extend(f"its entry {name!r} was left out" for name in inside[1:])
    if not isinstance(loaded, dict):
        raise WeightsError(f"expected a state_dict, found {type(loaded).__name__}")
    state = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if len(state) < len(loaded):
        notes.append(f"{len(loaded) - len(state)} entries that are no tensors were left out")
    needed, size = sum(t.numel() * t.element_size() for t in state.values()), path.stat().st_size
    if needed > size:  # few numbers in the file may be seen as many
        raise WeightsError(
            f"expected tensors that fit in the file together, found {needed:,} bytes of them in "
            f"{size:,}"
        )
    return {name: _to_numpy(name, tensor) for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith("WeightsUnpickler error:")]
    return next(iter(told or lines), type(error).__name__)


def _to_numpy(name: str, tensor: Any) -> Any:
    import torch

    try:
        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        return to_float(wide.detach().numpy())
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{name}: expected a dense tensor, found {error}") from None
