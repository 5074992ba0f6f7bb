"""Convert specs to and from plain data, for frameworks that save a layer's arguments.

This module uses only the standard library.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from . import spec
from ._checks import ConfigError, check_names


def kinds_in(module: ModuleType) -> dict[str, Any]:
    """Return {name: class} of the dataclasses in a module."""
    return {n: kind for n, kind in vars(module).items() if is_dataclass(kind) and callable(kind)}


KINDS = kinds_in(spec)


def to_dict(part: object) -> Any:
    """Convert a spec, or a part of one, to dictionaries, lists and plain values for JSON."""
    if is_dataclass(part):
        values = {f.name: to_dict(getattr(part, f.name)) for f in fields(part)}
        return {"spec": type(part).__name__, **values}
    return [to_dict(item) for item in part] if isinstance(part, tuple) else part


def from_dict(data: Any, kinds: dict[str, Any] = KINDS) -> Any:
    """Rebuild what ``to_dict`` converted. Raises ``ConfigError`` for an unknown spec or field."""
    if isinstance(data, dict):
        if data.get("spec") == "FoldedNormSpec":  # older files have it in place of None
            return None
        check_names("spec", [data.get("spec", "")], kinds)
        values = {name: from_dict(value, kinds) for name, value in data.items() if name != "spec"}
        try:
            return kinds[data["spec"]](**values)
        except TypeError as error:  # a field is missing or unknown
            raise ConfigError(f"{data['spec']}: {error}") from None
    return tuple(from_dict(item, kinds) for item in data) if isinstance(data, list) else data
