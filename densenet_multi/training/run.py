"""The parts of a training run that all backends share: checks, batches, history, progress.

Each backend has its own training loop: see its ``train.py``.
"""

from __future__ import annotations

import inspect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from .._checks import COUNTED, ConfigError, bad, check_bfloat16, function, instance, items, listed
from .._inputs import ImageError, check_image_shape, check_images, check_labels, check_trainable
from .._progress import progress
from ..data import Arrays, Examples, epoch_order
from ..data.augment import augment
from ..manifest import tensors
from ..reference import cross_entropy
from ..spec import DenseNetSpec
from ..weights import Weights
from .began import Began
from .history import Epoch, History, Step
from .recipe import Recipe
from .state import TrainingState, check_velocity

Array = npt.NDArray[np.floating[Any]]
Batch = tuple[Array, Array]
Data = Examples | tuple[Any, Any]
Callback = Callable[[Step | Epoch], object]
Keep = Callable[[Callable[[], TrainingState]], object]
P = ParamSpec("P")
R = TypeVar("R", bound="Run")


class TrainingError(ValueError):
    """The run cannot continue; the message states the step and what to change."""


def check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple. Raises ``ConfigError`` unless each is a function."""
    found = items("callbacks", callbacks, "a list of functions")
    return tuple(function(f"callbacks[{i}]", each) for i, each in enumerate(found))


def check_finite(step: int, weights: Weights, velocity: Weights) -> None:
    """Raise ``TrainingError`` if a weight or a velocity is not finite after a step."""
    arrays = [*weights.items(), *velocity.items()]
    broken = [name for name, array in arrays if not np.isfinite(array).all()]
    if broken:
        raise TrainingError(
            f"step {step}: expected finite weights and velocities, found NaN or infinity in "
            f"{listed(broken, 1, COUNTED)}; try a lower learning rate"
        )


@dataclass(frozen=True)
class Subject:
    """What a ``Run`` needs to know about its model: the spec and the dtype."""

    spec: DenseNetSpec
    dtype: str


class Run:
    """One training run. A backend's loop gets batches from the run and records each step in it::

        with run.started(logits, snapshot):
            for _ in run.epochs_left:
                for x, targets, rate in run.batches():
                    ...
                    run.record(loss, accuracy)
                run.finish_epoch()

    The parameters of ``Run`` are those of every backend's ``fit``: see ``fit_with``.

    Arguments:
        model: the ``Subject``; its network must have a classifier.
        data: training examples, or a pair (images (N, C, H, W), labels (N,)).
        recipe: the hyper-parameters; its numbers are rounded once (``Recipe.rounded``).
        validation: examples or a pair to validate with after every epoch, or None.
        callbacks: functions called with every ``Step`` and every ``Epoch``.
        checkpoint: a function called after the callbacks. Its argument is a function that copies
            the weights and returns the current ``TrainingState``.
        resume: the ``TrainingState`` to resume from, of a run with the same recipe and data. The
            recipes are compared; the data are not.

    Raises ``ConfigError``, ``ImageError`` or ``ImageSizeError`` if arguments do not fit together.
    """

    def __init__(
        self,
        model: Any,
        data: Data,
        recipe: Recipe,
        *,
        validation: Data | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: Keep | None = None,
        resume: TrainingState | None = None,
    ) -> None:
        instance("recipe", recipe, Recipe, "a Recipe, such as Recipe(epochs=3)")
        self._callbacks = check_callbacks(callbacks)
        self._checkpoint = None if checkpoint is None else function("checkpoint", checkpoint)
        spec, dtype = model.spec, model.dtype
        check_trainable(spec)
        self.recipe = recipe.rounded()
        self.history = History(recipe)
        self._began = Began(recipe)
        self._spec, self._dtype = spec, dtype
        self._data = self._checked("data", data)
        self._validation = None if validation is None else self._checked("validation", validation)
        self._check_recipe(recipe)
        count, size = len(self._data), recipe.batch_size
        if size > count:
            raise ConfigError(f"batch_size: expected at most the {count} examples, found {size}")
        self._order = lru_cache(maxsize=2)(partial(epoch_order, count, recipe.seed))
        self.steps_per_epoch = count // size + (count % size > 1)  # without a batch of one
        self.rates = self.recipe.learning_rates(recipe.epochs * self.steps_per_epoch)
        self.steps, self._seconds = 0, 0.0
        trained = ("",) if recipe.train_features else ("classifier.",)
        self.velocity = {  # the initial v of the rule in recipe.py
            name: np.zeros(info.shape, dtype)
            for name, info in tensors(spec).items()
            if info.role == "trainable" and name.startswith(trained)
        }
        if resume is not None:
            self._resume_from(resume)

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return len(self.history.epochs)

    @property
    def epochs_left(self) -> range:
        """The remaining epochs, starting with the current one."""
        return range(self.epoch, self.recipe.epochs)

    @contextmanager
    def started(
        self, logits: Callable[[Any], Any], snapshot: Callable[[], tuple[Weights, Weights]]
    ) -> Iterator[None]:
        """Start the run's clock, and show a progress bar inside this context.

        ``logits`` computes NumPy logits (n, classes) of images (n, C, H, W) in evaluation mode.
        ``snapshot`` returns copies of the weights and of the velocity, by canonical name.
        """
        self._logits, self._snapshot = logits, snapshot
        self._progress = self._new_bar()
        self._bar = self._progress.add_task(
            "training", total=len(self.rates), completed=self.steps, status=""
        )
        self._ended, self._durations = time.perf_counter(), deque[float](maxlen=50)
        self._start = self._ended - self._seconds
        with self._progress:
            yield

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the images (n, C, H, W) and targets (n, classes) of one step of an epoch.

        Epoch and index are counted from 0. The same arguments always produce the same batch.
        """
        recipe, size = self.recipe, self.recipe.batch_size
        indices = self._order(epoch)[index * size : (index + 1) * size]
        x = self._images("data", self._data, indices)
        if recipe.flip or recipe.shift:
            drawn = recipe.seed, epoch, indices
            fill = getattr(self._data, "black", 0.0)
            x = augment(x, *drawn, flip=recipe.flip, shift=recipe.shift, fill=fill)
        classes, smooth = self._spec.config.num_classes, recipe.label_smoothing
        one_hot = np.eye(classes)[np.asarray(self._data.labels)[indices]]
        targets = (1 - smooth) * one_hot + smooth / classes
        return x, targets.astype(self._dtype)

    def batches(self) -> Iterator[tuple[Array, Array, float]]:
        """Yield (images, targets, learning rate) for each remaining step of the current epoch.

        A thread prepares the next batch while the current one is in use.
        """
        epoch = self.epoch
        indices = range(self.steps - epoch * self.steps_per_epoch, self.steps_per_epoch)
        with ThreadPoolExecutor(1) as thread:
            coming = [thread.submit(self.batch, epoch, index) for index in indices[:1]]
            for index in indices:
                batch = coming.pop().result()
                if index + 1 < self.steps_per_epoch:
                    coming.append(thread.submit(self.batch, epoch, index + 1))
                yield *batch, self.rates[self.steps]

    def record(self, loss: float, accuracy: float) -> None:
        """Record a step. Raises ``TrainingError`` if the loss is not finite."""
        rate = self.rates[self.steps]
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {self.steps + 1} (epoch {self.epoch + 1}): expected a finite loss, found "
                f"{loss}; try a learning rate below {rate:g}"
            )
        self.steps += 1
        self._durations.append(time.perf_counter() - self._ended)
        step = Step(self.steps, self.epoch + 1, loss, accuracy, rate)
        self.history.steps.append(step)
        self._show(step)
        self._call_back(step, keep=self.steps % self.steps_per_epoch != 0)

    def finish_epoch(self) -> None:
        """Evaluate on the validation data and record the epoch.

        Raises ``TrainingError`` if weights, velocities or the validation loss are not finite.
        MXNet's ReLU turns NaN into 0, so the losses that ``record`` checks can stay finite.
        """
        seconds = time.perf_counter() - self._start
        weights, velocity = self._snapshot()
        check_finite(self.steps, weights, velocity)
        steps = self.history.steps[-self.steps_per_epoch :]
        size, count = self.recipe.batch_size, len(self._data)
        sizes = np.diff([*range(0, count, size), count])[: len(steps)]
        tested = self._test(self._logits)
        if tested[0] is not None and not math.isfinite(tested[0]):
            raise TrainingError(
                f"epoch {self.epoch + 1}: expected a finite validation loss, found {tested[0]}; "
                f"try a learning rate below {self.rates[self.steps - 1]:g}"
            )
        epoch = Epoch(
            self.epoch + 1,
            self.steps,
            float(np.average([step.loss for step in steps], weights=sizes)),
            float(np.average([step.accuracy for step in steps], weights=sizes)),
            *tested,
            seconds,
            int(sizes.sum()) / seconds,
        )
        self.history.epochs.append(epoch)
        if count := self._averaged_after(epoch.number):
            self._average(weights, count)
        self._start = time.perf_counter()
        self._call_back(epoch, keep=True)

    def _now(self) -> TrainingState:
        weights, velocity = self._snapshot()
        unfinished = self.steps - self.epoch * self.steps_per_epoch
        return TrainingState(
            weights,
            velocity,
            self.steps,
            tuple(self.history.epochs),
            tuple(self.history.steps[len(self.history.steps) - unfinished :]),
            time.perf_counter() - self._start,
            self.history.mean,
            self._averaged_after(self.epoch),
            self._began,
        )

    def _averaged_after(self, epoch: int) -> int:
        """Return how many epochs the mean of the weights includes after this epoch."""
        return sum(number <= epoch for number in self.recipe.averaged_epochs)

    def _average(self, weights: Weights, count: int) -> None:
        """Add the weights of the ``count``-th averaged epoch to the mean."""
        mean = self.history.mean or weights
        self.history.mean = {n: mean[n] + (weights[n] - mean[n]) / count for n in weights}

    def _resume_from(self, resume: TrainingState) -> None:
        expected_state = "a TrainingState, such as load_state(PATH)[1]"
        instance("resume", resume, TrainingState, expected_state)
        self._check_began(resume.began)
        epochs, unfinished = len(resume.epochs), len(resume.unfinished)
        expected = epochs * self.steps_per_epoch + unfinished
        if resume.steps != expected or epochs > self.recipe.epochs:
            raise bad(
                "resume",
                f"{resume.steps} steps and {epochs} epochs",
                f"the state of this run of {self.recipe.epochs} epochs "
                f"with {self.steps_per_epoch} steps each",
            )
        if resume.velocity.keys() != self.velocity.keys():
            raise bad(
                "resume",
                f"a velocity for {len(resume.velocity)} tensors",
                f"the state of this run, which trains {len(self.velocity)} tensors",
            )
        check_velocity(self._spec, resume.velocity)
        averaged = self._averaged_after(epochs)
        if resume.averaged != averaged or (resume.mean is None) != (averaged == 0):
            raise bad(
                "resume",
                f"a mean over {resume.averaged} epochs",
                f"the state of this run, which after epoch {epochs} has a mean over {averaged} "
                f"epochs (average={self.recipe.average:g}, epochs={self.recipe.epochs})",
            )
        self.velocity = {name: v.astype(self._dtype) for name, v in resume.velocity.items()}
        self.history.epochs.extend(resume.epochs)
        self.history.steps.extend(resume.unfinished)
        self.history.mean = resume.mean
        self.steps, self._seconds = resume.steps, resume.seconds

    def _check_began(self, began: Began | None) -> None:
        if began is None:  # an older version saved the state
            return
        if changes := began.changes(replace(began, recipe=self.history.recipe)):
            raise ConfigError(
                f"resume: expected the recipe that this run began with, found changes: "
                f"{'; '.join(changes)}; pass recipe=STATE.began.recipe, or start another run with "
                "import_weights(model, STATE.weights)"
            )
        self._began = began

    def _check_recipe(self, recipe: Recipe) -> None:
        check_bfloat16(recipe.bfloat16, self._dtype)
        if not recipe.train_features and self._spec.config.drop_rate:
            rate = self._spec.config.drop_rate
            raise bad("drop_rate", rate, "0 with train_features=False")

    def _test(self, logits: Callable[[Any], Any]) -> tuple[float | None, float | None]:
        data, size = self._validation, self.recipe.batch_size
        if data is None:
            return None, None
        loss = right = 0.0
        task = self._progress.add_task("testing", total=len(data), status="")
        for start in range(0, len(data), size):
            indices = np.arange(start, min(start + size, len(data)))
            labels = np.asarray(data.labels)[indices]
            scores = logits(self._images("validation", data, indices))
            loss += cross_entropy(scores, labels) * len(indices)
            right += int((scores.argmax(axis=1) == labels).sum())
            self._progress.update(task, advance=len(indices))
        self._progress.remove_task(task)
        return loss / len(data), right / len(data)

    def _checked(self, what: str, data: Data) -> Examples:
        pair = isinstance(data, (tuple, list)) and len(data) == 2
        given: Any = data
        if not pair and not isinstance(data, Examples):
            expected = "(images, labels), or an object like data.FashionMNIST"
            raise ConfigError(f"{what}: expected {expected}; found {type(data).__name__}")
        try:
            examples = Arrays(*given) if pair else given
            if len(examples) == 0:
                raise ImageError("images: expected at least one, found none")
            check_labels(examples.labels, len(examples), self._spec.config.num_classes)
            if pair:  # check the complete shape, not only that of one example
                check_image_shape(self._spec, np.shape(given[0]))
            check_images(self._spec, examples.take(np.arange(1)))
        except ValueError as error:
            raise type(error)(f"{what}: {error}") from None
        checked: Examples = examples
        return checked

    def _images(self, what: str, data: Examples, indices: npt.NDArray[np.int64]) -> Array:
        """Return the validated images at these indices; an error names the first bad example."""
        try:
            return check_images(self._spec, data.take(indices), self._dtype)
        except ImageError:
            for index in np.sort(indices):
                try:
                    check_images(self._spec, data.take(np.array([index])), self._dtype)
                except ImageError as error:
                    raise ImageError(f"{what}: example {index}: {error}") from None
            raise

    def _call_back(self, event: Step | Epoch, *, keep: bool) -> None:
        for callback in self._callbacks:
            callback(event)
        if keep and self._checkpoint is not None:
            self._checkpoint(self._now)
        self._ended = time.perf_counter()  # the next step begins

    def _show(self, step: Step) -> None:
        # durations exclude validation and saving; their median also ignores compilation
        speed = self.recipe.batch_size / median(self._durations)
        status = f"loss {step.loss:.3f}  accuracy {step.accuracy:.3f}  {speed:,.0f} images/s"
        text = f"epoch {step.epoch}/{self.recipe.epochs}"
        self._progress.update(self._bar, description=text, completed=self.steps, status=status)

    def _new_bar(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        text, status = TextColumn("{task.description}"), TextColumn("{task.fields[status]}")
        return progress(text, BarColumn(), MofNCompleteColumn(), status, TimeRemainingColumn())


def fit_with(
    head: Callable[P, R],
    dtype_of: Callable[[Any], str],
    import_weights: Callable[[Any, Weights], None],
) -> Callable[[Callable[[Any, R], None]], Callable[P, History]]:
    """Turn a backend's training loop, ``loop(model, run)``, into its ``fit``.

    ``fit`` creates the run, imports the weights of ``resume`` if given, runs the loop and returns
    the history.

    Arguments:
        head: ``Run``, or ``RowRun`` for rows; ``fit`` gets its signature, which editors and
            ``inspect.signature`` show.
        dtype_of: a function that returns the dtype of a native model.
        import_weights: a function that imports weights into a native model.
    """

    def decorate(loop: Callable[[Any, R], None]) -> Callable[P, History]:
        def fit(*args: Any, **kwargs: Any) -> History:
            given = signature.bind(*args, **kwargs).arguments
            model, resume = given.pop("model"), given.get("resume")
            make = cast("Callable[..., R]", head)
            run = make(Subject(model.spec, dtype_of(model)), **given)
            if resume is not None:
                import_weights(model, resume.weights)
            loop(model, run)
            return run.history

        for name, value in {
            "__module__": loop.__module__,
            "__name__": "fit",
            "__qualname__": "fit",
            "__signature__": signature,
        }.items():
            setattr(fit, name, value)
        return cast("Callable[P, History]", fit)

    signature = inspect.signature(head).replace(return_annotation=History)
    return decorate
