"""``densenet-multi conventions``: what the installed frameworks do where ports go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._checks import function, texts
from .child_process import report_of
from .machine import processor
from .probes import PROBES


def conventions(
    backends: Sequence[str], step: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Ask each framework, in a process of its own, what it does by default.

    ``step`` is called with a line of text before each backend. Returns JSON-serializable data:
    ``questions``, {probe: its question}, and ``backends``, {name: report} with the ``answers`` and
    the ``versions``.
    """
    names, step = texts("backends", backends), function("step", step)
    reports = {}
    for name in names:
        step(f"backend {name}")
        reports[name] = report_of(f"{__package__}.probe_child", {"backend": name})
    questions = {name: probe.question for name, probe in PROBES.items()}
    return {"questions": questions, "processor": processor(), "backends": reports}
