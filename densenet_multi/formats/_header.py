"""The text that describes a network in a file's metadata: JSON, the same in every format with it.

Its fields are those of the configuration, with a schema version, and ``"usage"``, how to use the
network. A network for tables (tabular.py) has ``"preprocessing"`` in place of the usage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from .._checks import bad, check_names
from ..checkpoint import Usage, check_usage
from ..manifest import AnySpec
from ..spec import DenseNetConfig, DenseNetSpec
from ..tabular import TabularConfig


def about_images(spec: DenseNetSpec, usage: Usage | None) -> dict[str, Any]:
    """Return the header's part on usage. Raises ``ConfigError`` if it does not fit the network."""
    return {"usage": asdict((Usage() if usage is None else check_usage(usage)).fits(spec))}


def to_header(spec: AnySpec, about: Mapping[str, Any]) -> str:
    """Return the header of a network. Raises ``TypeError`` for what JSON cannot store."""
    return json.dumps({**json.loads(spec.config.to_json()), **about}, sort_keys=True)


def from_header(text: str) -> tuple[Any, Usage | dict[str, Any]]:
    """Return a header's configuration, and its usage or preprocessing. Raises ``ConfigError``."""
    try:
        header = json.loads(text)
        given = header.pop("usage", {})
    except (ValueError, TypeError, AttributeError, RecursionError):
        given, header = {}, text  # DenseNetConfig.from_json reports what is wrong with it
    if isinstance(header, dict) and isinstance(header.get("preprocessing"), dict):
        preprocessing = header.pop("preprocessing")
        return TabularConfig.from_json(json.dumps(header)), preprocessing
    if not isinstance(given, dict):
        raise bad("usage", given, "an object")
    check_names("usage", given, [f.name for f in fields(Usage)])
    config = DenseNetConfig.from_json(header if isinstance(header, str) else json.dumps(header))
    return config, Usage(**given)
