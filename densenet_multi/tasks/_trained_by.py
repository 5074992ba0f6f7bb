"""Find the backend that trained a network: the default backend for using that network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .._checks import check_names
from .._installed import BackendNotInstalledError
from ..backends import backend_names, first_installed, framework_versions
from ..checkpoint import Checkpoint
from ..training.fields import COUNT, OBJECT, TEXT
from ..training.run_folder import CONFIG, LARGEST_CONFIG, RunError, read_json

PACKAGE = "densenet_multi"


def source_of(backend_name: str, data: str) -> str:
    """Return the ``usage.source`` that ``train`` writes into its weights."""
    return f"{PACKAGE}, {backend_name}, {data}"


def backend_of(path: str | Path, checkpoint: Checkpoint) -> str | None:
    """Return the name of the backend that trained a network, or None if unknown.

    ``train`` writes the name into ``usage.source`` (see ``source_of``). A file without a source may
    be in a run folder, whose ``config.json`` names the backend that the run began with.
    """
    words = [word.strip() for word in (checkpoint.usage.source or "").split(",")]
    if len(words) > 1 and words[0] == PACKAGE:
        named = words[1]
    elif checkpoint.usage.source is None:
        named = _of_run(Path(path).parent / CONFIG)
    else:  # from another program, so its folder is not a run folder
        return None
    return named if named in backend_names() else None


def backend_to_use(
    given: str | None,
    path: str | Path,
    checkpoint: Checkpoint,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Return the requested backend, or the one that trained the network, or the first installed.

    ``say`` reports the choice if a backend other than the first installed trained the network.

    Raises ``ConfigError`` if the requested backend does not exist, and ``BackendNotInstalledError``
    if no backend is installed.
    """
    if given is not None:
        check_names("backend", [given], backend_names())
        return given
    try:
        first, trained = first_installed(), backend_of(path, checkpoint)
    except BackendNotInstalledError as error:
        how = f"convert({str(path)!r}, 'NEW.onnx'), which predicts without any"
        raise BackendNotInstalledError(f"{error}; or use: {how}") from None
    if trained in (None, first):
        return first
    if None in framework_versions(trained).values():
        say(f"{path}: trained in {trained}, which is not installed; using {first}")
        return first
    say(f"{path}: using {trained}, which trained it; to use another, pass backend_name={first!r}")
    return trained


def _of_run(config: Path) -> str:
    """Return the backend that a run's ``config.json`` names, or ""."""
    try:
        shape = {"schema": COUNT, "recipe": OBJECT, "backend": TEXT}
        return str(read_json(config, shape, largest=LARGEST_CONFIG)["backend"])
    except (OSError, RunError):
        return ""
