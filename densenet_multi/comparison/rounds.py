"""Count the steps of a ``bench`` child in rounds, and wait for the parent between rounds."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..training.history import Step
from .child_process import say, wait
from .machine import forget_peak_memory, peak_memory


class Rounds:
    """A counter to call after every step. After each round, it reports the times and waits.

    The warm-up is the first round. Its first step includes compilation and is timed separately.

    Arguments:
        steps: steps in each round but the first.
        warmup: steps in the first round.
        finish: waits until all pending computation has finished.
        peak: returns the peak memory since the last call of ``forget``, in bytes.
        forget: see ``peak``.
    """

    def __init__(
        self,
        steps: int,
        warmup: int,
        finish: Callable[[], object] = lambda: None,
        *,
        peak: Callable[[], int] = peak_memory,
        forget: Callable[[], object] = forget_peak_memory,
    ) -> None:
        self._steps, self._wanted, self._finish = steps, warmup, finish
        self._peak, self._forget = peak, forget
        self._first, self._seconds = True, list[float]()
        forget()  # exclude the peak of building the network
        self._before = peak()
        self._last = time.perf_counter()

    def __call__(self, event: object = None) -> None:
        """Count a step if ``event`` is a ``Step`` of ``fit`` or None; ignore other events.

        Raises ``FinishedError`` if the parent wants no further round.
        """
        if event is not None and not isinstance(event, Step):
            return
        if self._first or len(self._seconds) + 1 == self._wanted:
            self._finish()
            self._first = False
        self._seconds.append(time.perf_counter() - self._last)
        if len(self._seconds) == self._wanted:
            peak = self._peak()
            grown = peak - self._before
            say({"seconds": self._seconds, "peak_memory_bytes": peak, "grown_bytes": grown})
            wait()
            self._seconds, self._wanted = [], self._steps
            self._forget()  # exclude the peak of tracing and compiling
        self._last = time.perf_counter()
