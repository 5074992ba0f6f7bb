"""One case of ``densenet-multi bench``, in a process of its own that computes when told to.

``python -m densenet_multi.bench_case SETTINGS`` (JSON) trains the chapter's network with one
backend, by its ``fit`` or by the chapter's own code. After every round of steps it prints a line of
JSON, and waits until a line comes in; it ends when none does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from importlib import import_module
from itertools import cycle, islice
from typing import Any

import numpy as np

from .backends import Backend, hide_gpus, load_backend
from .data import Pixels, Preparation, load_sample
from .history import Step
from .recipe import RECIPES
from .report import peak_memory
from .variants import get_spec

MARK = "densenet-multi bench: "  # frameworks print too
CASES = ("fit", "chapter")
DIFFERENT = 4  # batches for the chapter's code


class FinishedError(Exception):
    """No further round is wanted."""


class Rounds:
    """Called after every step; between rounds it reports and waits."""

    def __init__(self, steps: int, warmup: int) -> None:
        self._steps, self._wanted = steps, warmup
        self._seconds: list[float] = []
        self._last = time.perf_counter()

    def __call__(self, event: object = None) -> None:
        """Count a step (``event``: a ``Step``, or None); other events are none."""
        if event is not None and not isinstance(event, Step):
            return
        self._seconds.append(time.perf_counter() - self._last)
        if len(self._seconds) == self._wanted:
            report = {"seconds": self._seconds, "peak_memory_bytes": peak_memory()}
            print(MARK + json.dumps(report), flush=True)  # noqa: T201  # the other end reads it
            if not sys.stdin.readline():
                raise FinishedError
            self._seconds, self._wanted = [], self._steps
        self._last = time.perf_counter()


def run(settings: dict[str, Any]) -> None:
    """Train until nobody asks for another round."""
    hide_gpus()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["cpus"])
    size, batch_size = settings["image_size"], settings["batch_size"]
    steps, warmup = settings["steps"], settings["warmup"]
    pixels, labels = load_sample("train")
    needed = (warmup + steps * settings["rounds"]) * batch_size
    order = np.arange(needed) % len(labels)
    data = Pixels(pixels[order, np.newaxis], labels[order], Preparation(size, 1))
    backend = load_backend(settings["backend"])
    rounds = Rounds(steps, warmup)
    try:
        if settings["case"] == "fit":
            _fit(backend, data, batch_size, rounds)
        else:
            _chapter(backend, data, batch_size, rounds)
    except FinishedError:
        return


def _fit(backend: Backend, data: Pixels, batch_size: int, rounds: Rounds) -> None:
    recipe = replace(RECIPES["chapter"], epochs=1, batch_size=batch_size)
    backend.fit(backend.build(get_spec("d2l")), data, recipe, callbacks=[rounds])


def _chapter(backend: Any, data: Pixels, batch_size: int, rounds: Rounds) -> None:
    # made beforehand: how the chapter reads its images is not measured
    batches = [
        (data.take(indices), data.labels[indices].astype(np.int64))
        for indices in np.arange(min(len(data), DIFFERENT * batch_size)).reshape(-1, batch_size)
    ]
    chapter = import_module(f"{backend.__name__}.chapter")
    endless = islice(cycle(batches), len(data) // batch_size)
    chapter.train_chapter(endless, RECIPES["chapter"].learning_rate, rounds)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
