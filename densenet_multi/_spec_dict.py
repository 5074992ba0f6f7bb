"""Convert specs to and from plain data, for frameworks that save a layer's arguments.

This module uses only the standard library.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from . import spec
from ._checks import ConfigError, check_names

KINDS = {
    name: kind for name, kind in vars(spec).items() if is_dataclass(kind) and isinstance(kind, type)
}


def to_dict(part: object) -> Any:
    """Convert a spec, or a part of one, to dictionaries, lists and plain values for JSON."""
    if is_dataclass(part):
        values = {f.name: to_dict(getattr(part, f.name)) for f in fields(part)}
        return {"spec": type(part).__name__, **values}
    return [to_dict(item) for item in part] if isinstance(part, tuple) else part


def from_dict(data: Any) -> Any:
    """Rebuild what ``to_dict`` converted. Raises ``ConfigError`` for an unknown spec or field."""
    if isinstance(data, dict):
        if data.get("spec") == "FoldedNormSpec":  # older files have it in place of None
            return None
        check_names("spec", [data.get("spec", "")], KINDS)
        values = {name: from_dict(value) for name, value in data.items() if name != "spec"}
        try:
            return KINDS[data["spec"]](**values)
        except TypeError as error:  # a field is missing or unknown
            raise ConfigError(f"{data['spec']}: {error}") from None
    return tuple(from_dict(item) for item in data) if isinstance(data, list) else data
