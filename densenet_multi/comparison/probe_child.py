"""A child process of ``conventions``: asks one framework every question of ``PROBES``.

``python -m densenet_multi.comparison.probe_child SETTINGS``. The settings name the backend.
"""

from importlib import import_module
from typing import Any

from ..backends import load_backend
from .child_process import run_child
from .probes import PROBES


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the framework's answers, {probe: text}; what a probe raises is its answer."""
    name = settings["backend"]
    load_backend(name)  # an error here says how to install the framework
    framework: Any = import_module(f"{__package__}.probes.{name}")
    answers = {}
    for probe, about in PROBES.items():
        try:
            answers[probe] = about.answer(framework)
        except Exception as error:  # noqa: BLE001  # the answer of a release that changed
            answers[probe] = f"failed: {type(error).__name__}: {error}"
    return {"answers": answers}


if __name__ == "__main__":
    run_child(measure)
