"""The run folder stores a training run, so that a killed run can resume in any backend.

While the run trains, the folder holds ``config.json`` (the run's options),
``checkpoint.safetensors`` (its state: see state.py), ``last.safetensors`` and ``best.safetensors``
(portable weights), ``history.jsonl`` (a line for every epoch and every ``LOG_EVERY``-th step) and
``curve.svg``. ``report.json`` follows at the end, and ``final.safetensors`` if the recipe averages
weights or recomputes running statistics. Each file is replaced atomically; only the history is
appended to. Files derived from the state are written after it. Resuming rewrites them to match it.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .._files import check_file, open_own, read_file, replace_file, replacing
from ..checkpoint import Usage
from ..formats.portable import save_weights
from ..spec import DenseNetSpec
from ..weights import WeightsError
from .began import Began
from .fields import COUNT, OBJECT, TEXT, FieldError, Kind, check, exactly, or_null, parsed
from .history import EPOCH, STEP, Epoch, Step
from .run import check_finite
from .state import TrainingState, load_state, save_state

SCHEMA = 1  # of config.json and report.json
LOG_EVERY = 10  # steps
SAVE_EVERY = 60.0  # seconds
CONFIG, REPORT, HISTORY = "config.json", "report.json", "history.jsonl"
STATE = "checkpoint.safetensors"  # a TrainingState; the name is older than the class Checkpoint
LOCK = ".lock"
LAST, BEST, FINAL = "last.safetensors", "best.safetensors", "final.safetensors"
FILES = (CONFIG, REPORT, HISTORY, STATE, LAST, BEST, FINAL, "curve.svg")
LARGEST_CONFIG = 2**20  # bytes; 10,000 class names need 2 * 10**5
LARGEST_JSON = 2**24  # bytes; a report of 10,000 epochs needs 4 * 10**6
LARGEST_HISTORY = 2**27  # bytes; ten million steps, the maximum of a recipe, need 1.3 * 10**8
LARGEST_LINE = 2**17  # bytes of a line of the history; 300 are normal


CONFIG_SHAPE = {
    "schema": exactly(SCHEMA),
    "backend": TEXT,
    "data": TEXT,
    "data_dir?": or_null(TEXT),
    "weights?": or_null(TEXT),
    "recipe": OBJECT,  # Recipe checks its fields
    "recipe_name": TEXT,
    "found?": {"class_names": [TEXT], "train_examples": COUNT, "test_examples": COUNT},
}
LINES = {"step": STEP, "epoch": EPOCH}
LINE = {"kind": Kind("step or epoch", lambda value: isinstance(value, str) and value in LINES)}


MEND_LINE = "fix or remove that line"
MEND_FILE = "fix or remove it"


class RunError(ValueError):
    """A run folder cannot be used for this run; the message states why and what to do."""


class Stopped(KeyboardInterrupt):
    """The run was stopped after it was saved."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Create the run folder if missing, and lock it for this process; a context manager.

    The lock ends with its process. Half-written files of a killed process are deleted here. If no
    run begins inside the context, the lock and any folders created here are removed.

    Raises ``RunError`` if the folder cannot be used or is locked; ``OSError``.
    """
    import fcntl  # missing on some systems

    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        taken = Path(error.filename)
        found = "a broken link" if taken.is_symlink() else "a file"
        raise RunError(
            f"{taken}: expected a folder or nothing, found {found}; pass another output="
        ) from None
    is_new = not (path / LOCK).exists()
    with open_own(path / LOCK, RunError) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{path}: expected a free run folder, found another process writing to it; "
                "wait for it, or pass another output="
            ) from None
        try:
            for file in FILES:
                if (path / file).exists():
                    check_file(path / file, error=RunError, advice="remove it")
                for half_written in path.glob(f".{file}.*"):
                    half_written.unlink()
            yield
        finally:
            if is_new and not any((path / name).exists() for name in (CONFIG, STATE, REPORT)):
                (path / LOCK).unlink()  # the run never began
                for folder in created:
                    with suppress(OSError):  # it is not empty
                        folder.rmdir()


def read_config(path: Path) -> dict[str, Any] | None:
    """Read the run folder's ``config.json``; None if it does not exist.

    Raises ``RunError`` if its content is invalid; ``OSError`` if it is a broken link or a symlink
    loop.
    """
    if not os.path.lexists(path / CONFIG):
        return None
    advice = f"fix it, or {_another_run(path)}"
    return read_json(path / CONFIG, CONFIG_SHAPE, advice, LARGEST_CONFIG)


def _another_run(path: Path) -> str:
    return f"start another run with weights={str(path / LAST)!r} and another output="


def read_json(
    file: Path, shape: Any, advice: str = "fix it", largest: int = LARGEST_JSON
) -> dict[str, Any]:
    """Read the JSON object in a file of at most ``largest`` bytes; see fields.py for its shape.

    Raises ``RunError``, which names the file and the field, for any other content; ``OSError``.
    """
    with _naming(file, advice):
        content: dict[str, Any] = parsed(read_file(file, largest, RunError, advice), shape)
        return content


@contextmanager
def _naming(where: object, advice: str) -> Iterator[None]:
    """Turn a ``FieldError`` raised inside into a ``RunError``, adding the file and the advice."""
    try:
        yield
    except FieldError as error:
        raise RunError(f"{where}: {error}; {advice}") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON atomically. Raises ``OSError``."""
    replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read ``history.jsonl``: each line as a dict of ``kind`` and the ``Step`` or ``Epoch`` fields.

    Empty lines are skipped, and so is a line that a killed process left half-written.

    Raises ``RunError``, which names the line and the field, if a complete line is neither a step
    nor an epoch; ``OSError``.
    """
    return [line for _, line in _numbered(path)]


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, line) for each line that ``read_history`` returns."""
    content = read_file(path, LARGEST_HISTORY, RunError, MEND_FILE) if path.exists() else b""
    for number, text in enumerate(io.BytesIO(content), 1):
        if not text.strip():
            continue
        is_complete = text.endswith(b"\n")
        with _naming(f"{path}: line {number}", MEND_LINE) if is_complete else suppress(FieldError):
            yield number, _read_line(text)


def _read_line(text: bytes) -> dict[str, Any]:
    if len(text) > LARGEST_LINE:
        raise FieldError(f"expected at most {LARGEST_LINE:,} bytes, found {len(text):,}")
    line = parsed(text, LINE)
    shape = LINES[line["kind"]]
    check(line, shape)
    return {"kind": line["kind"], **{name: line[name] for name in shape}}


def load_run(path: Path) -> tuple[DenseNetSpec, TrainingState] | None:
    """Load the spec and the state of the run in a folder; None if no state was saved yet.

    Raises ``WeightsError`` if the state is damaged.
    """
    if not (path / STATE).exists():
        return None
    try:
        return load_state(path / STATE)
    except WeightsError as error:
        raise WeightsError(f"{error}; {_another_run(path)}") from None


class Recorder:
    """Recorder of a training run in its run folder; use it inside ``claimed``.

    Pass ``record`` to ``fit`` as a callback, and ``keep`` as ``checkpoint``.

    Arguments:
        path: the run folder.
        spec, usage: those of the trained network.
        began: what a new run would begin with; ``resume`` compares the saved run with it.
        save_every: seconds between saves within an epoch.

    Attributes:
        began: what the run began with, as recorded in its state.
        stop: set it to True, for example in a signal handler, to save after this step and stop.
    """

    def __init__(
        self,
        path: Path,
        spec: DenseNetSpec,
        usage: Usage,
        began: Began,
        save_every: float = SAVE_EVERY,
    ) -> None:
        self.path, self._spec, self._usage, self._save_every = path, spec, usage, save_every
        self._saved, self._epoch_ended = time.monotonic(), False
        self.began, self.stop = began, False
        self._lines: list[dict[str, Any]] = []  # of the history, as written so far

    def resume(self, run: tuple[DenseNetSpec, TrainingState] | None = None) -> TrainingState | None:
        """Return the run's state, and rewrite the other files to match; None if none was saved.

        If the folder may hold a run, call this before training.

        Raises ``RunError`` if the state belongs to another network, or to a run that began
        differently; ``WeightsError`` if the state is damaged.

        Arguments:
            run: what ``load_run`` returned for this folder, if already called.
        """
        run = run or load_run(self.path)
        if run is None:
            replace_file(self.path / HISTORY, b"")
            return None
        spec, state = run
        self._check_began(state)
        if spec != self._spec:
            raise RunError(f"{self.path / STATE}: expected the network of {CONFIG}, found another")
        self._lines = list(_lines_before(state, self.path / HISTORY))
        with replacing(self.path / HISTORY) as file, file.open("w", encoding="utf-8") as text:
            text.writelines(f"{json.dumps(line)}\n" for line in self._lines)
        self._write_weights(state)
        return state

    def _check_began(self, state: TrainingState) -> None:
        refuse_changes(self.path, state.began, self.began)
        if state.began is None or not state.began.data:  # saved by an older version, or fit alone
            self.began = replace(self.began, recorded_after_step=state.steps)
        else:
            self.began = state.began

    def record(self, event: Step | Epoch) -> None:
        """Append an epoch, or every ``LOG_EVERY``-th step, to ``history.jsonl``."""
        self._epoch_ended = isinstance(event, Epoch)
        if isinstance(event, Step) and event.number % LOG_EVERY:
            return
        line = {"kind": "step" if isinstance(event, Step) else "epoch", **asdict(event)}
        with (self.path / HISTORY).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(line)

    def keep(self, now: Callable[[], TrainingState]) -> None:
        """Save after every epoch, every ``save_every`` seconds, and once ``stop`` is set.

        Raises ``Stopped`` after saving if ``stop`` is set.
        """
        stop = self.stop  # a signal may arrive at any moment, also between these lines
        if self._epoch_ended or stop or time.monotonic() - self._saved > self._save_every:
            self.save(now())
            stop = self.stop
        if stop:
            raise Stopped

    def save(self, state: TrainingState) -> None:
        """Save the state, then the files derived from it.

        Raises ``TrainingError`` if a weight is not finite, and then keeps the last saved state.
        """
        check_finite(state.steps, state.weights, state.velocity)
        save_state(self.path / STATE, self._spec, replace(state, began=self.began))
        self._write_weights(state)
        self._saved = time.monotonic()

    def _write_weights(self, state: TrainingState) -> None:
        save_weights(self.path / LAST, self._spec, state.weights, self._usage)
        if state.epochs and not state.unfinished:
            if state.epochs[-1] == best_epoch(state.epochs):
                save_weights(self.path / BEST, self._spec, state.weights, self._usage)
            self.draw()

    def draw(self, final_accuracy: float | None = None) -> None:
        """Draw ``curve.svg``, with the test accuracy of the final weights once known."""
        from .._figures import training_curve

        replace_file(self.path / "curve.svg", training_curve(self._lines, final_accuracy))


def refuse_changes(path: Path, was: Began | None, now: Began) -> None:
    """Raise ``RunError`` if the run in a folder began differently; ``was`` is None if unknown."""
    if was is not None and (changes := was.changes(now)):
        raise RunError(
            f"{path}: expected the run as it began, found changes: {'; '.join(changes)}; undo them "
            f"(in {CONFIG}, or in the data), or {_another_run(path)}"
        )


def best_epoch(epochs: tuple[Epoch, ...] | list[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation accuracy; without validation, the last."""
    if epochs[-1].validation_accuracy is None:
        return epochs[-1]
    return max(epochs, key=lambda epoch: epoch.validation_accuracy or 0.0)


def _lines_before(state: TrainingState, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of the history up to the step and epoch of the state.

    Raises ``RunError`` if a line is out of order or contradicts the state.
    """
    saved = {("epoch", each.number): asdict(each) for each in state.epochs}
    saved |= {("step", each.number): asdict(each) for each in state.unfinished}
    before = dict.fromkeys(LINES, 0)
    for index, line in _numbered(path):
        kind, number = line["kind"], line["number"]
        with _naming(f"{path}: line {index}", MEND_LINE):
            if number <= before[kind]:
                raise FieldError(f"number: expected a number above {before[kind]}, found {number}")
            for name, value in saved.get((kind, number), {}).items():
                if line[name] != value:
                    raise FieldError(f"{name}: expected {value}, as in {STATE}, found {line[name]}")
        before[kind] = number
        if number <= (len(state.epochs) if kind == "epoch" else state.steps):
            yield line
