"""Train one network in one backend on real data; a killed run can be resumed from its folder."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._checks import ConfigError, bad, check_seconds, function, instance, listed, text, truth
from .._files import as_path, check_file
from ..backends import (
    Backend,
    check_device,
    check_memory_efficient,
    framework_versions,
    hide_gpus,
    load_backend,
    place,
)
from ..checkpoint import Checkpoint
from ..data.sources import DataSet, load_data
from ..formats import with_classes
from ..formats.portable import load_checkpoint, save_weights
from ..manifest import count_parameters, profile
from ..reference import cross_entropy
from ..spec import DenseNetSpec
from ..training.began import Began
from ..training.fields import (
    AMOUNT,
    COUNT,
    FRACTION,
    NUMBER,
    ORDINAL,
    TEXT,
    FieldError,
    check,
    or_null,
)
from ..training.history import EPOCH, History
from ..training.recipe import RECIPES, Recipe
from ..training.run import Callback, TrainingError, check_callbacks
from ..training.run_folder import (
    BEST,
    CONFIG,
    CONFIG_SHAPE,
    FILES,
    FINAL,
    HISTORY,
    LAST,
    LOCK,
    REPORT,
    SAVE_EVERY,
    SCHEMA,
    STATE,
    Recorder,
    RunError,
    Stopped,
    best_epoch,
    claimed,
    load_run,
    read_config,
    read_json,
    refuse_changes,
    write_json,
)
from ..training.statistics import measure_statistics
from ..variants import get_spec
from ..weights import Weights, init_weights
from ._trained_by import source_of
from .predict import Say, batches_of_logits

# What two CPU cores do in training, in the fastest backend: docs/results/training.md, "quick".
MULTIPLY_ADDS_PER_SECOND = 48e9
TESTED = EPOCH | {"validation_loss": NUMBER, "validation_accuracy": FRACTION}
REPORT_SHAPE = {
    **{name: shape for name, shape in CONFIG_SHAPE.items() if name != "found?"},
    "weights": or_null(TEXT),
    "recipe": {"variant": TEXT, "image_size": ORDINAL},
    "framework": TEXT,
    "train_examples": COUNT,
    "epochs": [TESTED, ...],
    "trainable?": COUNT,
    "test_examples?": COUNT,
    "test_accuracy?": FRACTION,
    "best_epoch?": ORDINAL,
    "best_test_accuracy?": FRACTION,
    "training_seconds?": AMOUNT,
    "recorded_after_step?": COUNT,
    "final?": {
        "epochs": [ORDINAL, ...],
        "recalibrate": COUNT,
        "test_loss": NUMBER,
        "test_accuracy": FRACTION,
    },
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that define a run, stored in ``config.json``.

    Attributes:
        backend_name: the backend to train in; called ``backend`` in ``config.json``.
        data, data_dir: see ``data.load_data``.
        weights: a portable file to start from, instead of a randomly initialized network; its
            classifier is replaced if the data have other classes.
        recipe: the recipe, with this run's variant and image size.
        recipe_name: the name in ``RECIPES`` of the recipe that ``recipe`` is based on.
    """

    backend_name: str
    data: str = "fashion-mnist"
    data_dir: str | None = None
    weights: str | None = None
    recipe: Recipe = RECIPES["chapter"]
    recipe_name: str = "chapter"

    def __post_init__(self) -> None:
        for name in ("backend_name", "data", "recipe_name"):
            text(name, getattr(self, name))
        for name in ("data_dir", "weights"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(as_path(getattr(self, name), name)))
        instance("recipe", self.recipe, Recipe, "a Recipe, such as RECIPES['chapter']")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        values = asdict(self)
        return {"schema": SCHEMA, "backend": values.pop("backend_name"), **values}

    @classmethod
    def from_dict(cls, given: dict[str, Any], where: str | Path = CONFIG) -> Options:
        """Restore the options from ``to_dict``'s result. Raises ``RunError``, ``ConfigError``.

        Arguments:
            given: the content of ``config.json``, or a report, which starts with the same keys.
            where: the file it was read from, for error messages.
        """
        try:
            check(given, CONFIG_SHAPE)
            recipe = Recipe(**given["recipe"])
        except FieldError as error:
            raise RunError(f"{where}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        known: dict[str, Any] = {field.name: given.get(field.name) for field in fields(cls)}
        known["recipe"] = recipe
        return cls(**{**known, "backend_name": given["backend"]})


def train(
    options: Options,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
    save_every: float = SAVE_EVERY,
    device: str | None = None,
    memory_efficient: bool | Literal["some", "max"] = False,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Train a network, and return the report that is also written to ``report.json``.

    Arguments:
        options: what to train, on which data, and how.
        output: the run folder; None saves nothing.
        resume: whether to resume the run in ``output``.
        callbacks: as for ``fit``.
        save_every: seconds between saves of the state within an epoch.
        device: "gpu" (an error if none is found) or "cpu"; None uses a GPU if available.
        memory_efficient: as for a backend's ``build``; a run may be resumed with or without it.
        say: called with sentences for the user.

    Raises ``RunError`` if the folder contains a run and ``resume`` is False, or if that run began
    with a different recipe, weights or data; ``TrainingError`` if training diverges; otherwise as
    ``load_data``, ``load_backend`` and ``load_checkpoint``. For a complete run, the data are not
    compared, and its report is returned. On Ctrl-C (or SIGTERM), a run with a folder saves
    after the current step and raises ``KeyboardInterrupt`` (or ``SystemExit``). Only Python's main
    thread receives signals; in another thread, a run is saved only every ``save_every`` seconds and
    at the end of an epoch.
    """
    instance("options", options, Options, "Options, such as Options(backend_name='torch')")
    callbacks = check_callbacks(callbacks)
    check_seconds("save_every", save_every)
    check_memory_efficient(memory_efficient)
    function("say", say)
    if truth("resume", resume) and output is None:
        raise bad("resume", resume, "False without output=, the folder of the run")
    if check_device(device) == "cpu":
        hide_gpus()
    how: dict[str, Any] = {"device": device, "memory_efficient": memory_efficient}
    if output is None:
        return _train(options, None, callbacks, say, **how)
    output = as_path(output, "output")
    with claimed(output):
        found = _run_in(output, resume=resume)
        if REPORT in found:
            done = read_json(output / REPORT, REPORT_SHAPE, "remove it to write a new one")
            began = Options.from_dict(done, output / REPORT)
            refuse_changes(output, _began(began), _began(options))
            say(f"{output}: this run is complete; its data were not compared")
            return done
        if not found:
            write_json(output / CONFIG, options.to_dict())
        try:
            return _train(
                options, output, callbacks, say, resume=resume, save_every=save_every, **how
            )
        except TrainingError:
            raise  # keep the history, which shows how the run diverged
        except (ImportError, OSError, ValueError):
            if not found and not (output / STATE).exists():  # the run never began
                for name in (CONFIG, HISTORY):
                    (output / name).unlink(missing_ok=True)
            raise


def _run_in(output: Path, *, resume: bool) -> list[str]:
    """Return the names of a run's files in the folder; [] for a new run.

    Raises ``RunError``, and ``OSError`` if ``config.json`` is a broken link.
    """
    if resume and os.path.lexists(output / CONFIG):
        check_file(output / CONFIG, error=RunError)  # it may be a broken link, or a link to itself
    found = [name for name in FILES if (output / name).exists()]
    others = sorted(each.name for each in output.iterdir() if each.name != LOCK)
    if found and not resume:
        raise RunError(
            f"{output}: expected a folder without a run, found a run ({listed(found)}); pass "
            "resume=True to resume it, or another output="
        )
    if resume and not found and others:
        raise RunError(
            f"{output}: expected a run folder, or an absent or empty folder, found a "
            f"folder with {listed(others)}; for a new run, omit resume=True"
        )
    if found and CONFIG not in found:
        raise RunError(
            f"{output}: expected {CONFIG}, which states how this run began, found {found[0]} "
            f"without it; start another run with weights={str(output / LAST)!r}"
        )
    return found


def _train(
    options: Options,
    output: Path | None,
    callbacks: tuple[Callback, ...],
    say: Say,
    *,
    resume: bool = False,
    save_every: float = SAVE_EVERY,
    device: str | None = None,
    memory_efficient: bool | Literal["some", "max"] = False,
) -> dict[str, Any]:
    began = _began(options)
    run = None if output is None else load_run(output)
    if output is not None and run is not None:  # before reading the data, which takes time
        refuse_changes(output, run[1].began, began)
    backend = load_backend(options.backend_name)
    start, data = _prepare(options, output if resume else None, say)
    for note in data.notes:
        say(note)
    usage = replace(
        start.usage,
        image_size=options.recipe.image_size,
        value_range=start.usage.value_range or (0.0, 1.0),
        class_names=data.class_names,
        running_variance=backend.RUNNING_VARIANCE,
        activation="softmax",
        split_seed=data.split_seed,
        trained_on=data.fingerprints(),
        assumed=(),  # training with these values makes them true
        source=source_of(options.backend_name, options.data),
    )
    if not resume:
        say(_duration(start.spec, options.recipe, len(data.train)))
    model = backend.build(start.spec, memory_efficient=memory_efficient)
    backend.import_weights(model, start.weights)
    place(backend, model, device)
    arguments: dict[str, Any] = {"validation": data.test, "callbacks": callbacks}
    guard: Any = nullcontext(lambda: None)
    if output is not None:
        _check_data(output, data)
        began = replace(began, data=data.digests())
        recorder = Recorder(output, start.spec, usage, began, save_every)
        state = recorder.resume(run)
        began = recorder.began
        if state is not None and not (state.began and state.began.data):
            say(
                f"{output}: this run was saved without its recipe and data, by an older version or "
                "by fit alone; the current recipe and data are recorded as of now"
            )
        if resume:
            say(_where(output, state.steps if state else 0, options))
        arguments["callbacks"] = (recorder.record, *callbacks)
        arguments |= {"checkpoint": recorder.keep, "resume": state}
        guard = saving_on_signals(recorder, say)
    with guard as all_is_saved:
        try:
            history = backend.fit(model, data.train, options.recipe, **arguments)
        except TrainingError as error:
            raise _diverged(error, output) from None
        all_is_saved()
        report = _report(options, backend, start, data, history)
        report["recorded_after_step"] = began.recorded_after_step
        kept = [LAST, f"{BEST} (epoch {report['best_epoch']})"]
        if options.recipe.recalibrate or history.mean is not None:
            weights, report["final"] = _finished(backend, model, options, data, history)
            if output is not None:
                save_weights(output / FINAL, start.spec, weights, usage)
                recorder.draw(report["final"]["test_accuracy"])
                kept.append(f"{FINAL} ({origin_of(report['final'])})")
        if output is not None:
            all_is_saved()
            write_json(output / REPORT, report)
    if output is not None:
        say(f"{output}: {', '.join(kept)}, curve.svg")
    return report


def expected_seconds(spec: DenseNetSpec, recipe: Recipe, examples: int) -> float:
    """Estimate how long a recipe trains on two CPU cores, in float32, from its multiply-adds.

    The backward pass takes twice as many as the forward pass. Trust the result within a factor of
    two: speed differs between networks, frameworks and processors.
    """
    stages = profile(spec, recipe.image_size, recipe.image_size)
    work = sum(stage.multiply_adds for stage in stages) * examples * recipe.epochs
    return (3 if recipe.train_features else 1) * work / MULTIPLY_ADDS_PER_SECOND


def _duration(spec: DenseNetSpec, recipe: Recipe, examples: int) -> str:
    seconds = expected_seconds(spec, recipe, examples)
    units = {"hour": 3600, "minute": 60}
    unit = next((unit for unit, size in units.items() if seconds > 1.5 * size), None)
    rough = "less than 2 minutes"
    if unit:
        rough = f"about {round(seconds / units[unit])} {unit}s"
    return f"training takes {rough} on two CPU cores in the fastest backend"


def _began(options: Options) -> Began:
    """Return the record of what a run with these options begins with, except its data."""
    weights = None if options.weights is None else Path(options.weights).name
    return Began(options.recipe, options.recipe_name, weights)


def _diverged(error: TrainingError, output: Path | None) -> TrainingError:
    """Return the error for a run that diverged, with advice on how to start again."""
    if output is None:
        return error
    if not (output / STATE).exists():
        how = f"{output / HISTORY} is kept; start again with another output="
        return TrainingError(f"{error}; {how}")
    how = f"weights={str(output / LAST)!r}, another output= and a lower learning_rate="
    return TrainingError(f"{error}; the last good weights are kept; start again with {how}")


def _finished(
    backend: Backend, model: Any, options: Options, data: DataSet, history: History
) -> tuple[Weights, dict[str, Any]]:
    """Return the recipe's final weights, with their loss and accuracy on test images."""
    recipe, labels = options.recipe, np.asarray(data.test.labels)
    if history.mean is not None:
        backend.import_weights(model, history.mean)
    if recipe.recalibrate:
        measure_statistics(backend, model, data.train, recipe.recalibrate, recipe.batch_size)
    loss = right = 0.0
    batches = batches_of_logits("final weights", backend, model, data.test, recipe.batch_size)
    for indices, logits in batches:
        loss += cross_entropy(logits, labels[indices]) * len(indices)
        right += int((logits.argmax(axis=1) == labels[indices]).sum())
    return backend.export_weights(model), {
        "epochs": list(recipe.averaged_epochs) or [recipe.epochs],
        "recalibrate": recipe.recalibrate,
        "test_loss": loss / len(labels),
        "test_accuracy": right / len(labels),
    }


def _check_data(output: Path, data: DataSet) -> None:
    """Record a description of the data when a run begins; compare it when the run resumes."""
    found = {
        "class_names": list(data.class_names),
        "train_examples": len(data.train),
        "test_examples": len(data.test),
    }
    config = read_config(output) or {}
    began = config.setdefault("found", found)
    if began != found:
        raise RunError(
            f"{output}: expected the data that this run began with, {_counted(began)}, found "
            f"{_counted(found)}; restore the former data, or start another run with "
            f"weights={str(output / LAST)!r}"
        )
    write_json(output / CONFIG, config)


def _counted(found: dict[str, Any]) -> str:
    names = found["class_names"]
    return (
        f"{found['train_examples']:,} training and {found['test_examples']:,} test images of "
        f"{len(names)} classes ({', '.join(names)})"
    )


def _prepare(options: Options, run: Path | None, say: Say) -> tuple[Checkpoint, DataSet]:
    """Return the network with its initial weights, and the data prepared for it.

    A resumed ``run`` has the network in its folder, so it no longer needs ``options.weights``.
    """
    recipe = options.recipe
    path: str | Path | None = options.weights
    if path is not None and run is not None and (run / STATE).exists() and (run / LAST).exists():
        path = run / LAST  # without a state, the run starts from the beginning
    given = None if path is None else load_checkpoint(path)
    data = load_data(
        options.data,
        image_size=recipe.image_size,
        in_channels=given.spec.config.in_channels if given else None,
        usage=given.usage if given else None,
        data_dir=None if options.data_dir is None else Path(options.data_dir),
        seed=recipe.seed,
    )
    classes = len(data.class_names)
    if given is None:
        channels = data.train.take(np.arange(1)).shape[1]
        spec = get_spec(recipe.variant, in_channels=channels, num_classes=classes)
        return Checkpoint(spec, init_weights(spec, recipe.seed, recipe.initialization)), data
    if given.spec.config.num_classes != classes or (
        given.usage.stated("class_names") not in (None, data.class_names)
    ):
        say(f"{options.weights}: a new classifier for the {classes} classes of {options.data}")
        given = with_classes(given, classes, recipe.seed)
    weights = {name: array.astype(np.float32) for name, array in given.weights.items()}
    return replace(given, weights=weights), data


@contextmanager
def saving_on_signals(recorder: Recorder, say: Say) -> Iterator[Callable[[], None]]:
    """Save and stop after the current step on Ctrl-C or SIGTERM; stop at once on a second signal.

    Call the yielded function after the last step: it stops the run if a signal has arrived. From
    then on, even the first signal stops the run at once, since nothing is left to save. A stopped
    run can be resumed.
    """
    received: list[int] = []
    is_saved = False

    def handle(number: int, _: Any) -> None:
        received.append(number)
        restore()
        recorder.stop = True
        if is_saved:
            raise Stopped  # recorder.stop stays set, in case a destructor swallows Stopped
        say("saving after this step or the current test; press Ctrl-C again to stop at once")

    def all_is_saved() -> None:
        nonlocal is_saved
        is_saved = True
        if recorder.stop:
            raise Stopped

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    in_main = threading.current_thread() is threading.main_thread()  # only it receives signals
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before: dict[int, Any] = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield all_is_saved
    except Stopped:
        say(f"saved; {_how_to_resume(recorder.path)}")
        if received == [signal.SIGTERM]:
            sys.exit(128 + signal.SIGTERM)
        raise
    except (KeyboardInterrupt, SystemExit):
        if is_saved:
            say(_how_to_resume(recorder.path))
        raise
    finally:
        restore()


def _how_to_resume(output: Path) -> str:
    return f"resume with: train(output={str(output)!r}, resume=True)"


def origin_of(final: dict[str, Any]) -> str:
    """Describe which epochs a report's final weights come from."""
    first, last = final["epochs"][0], final["epochs"][-1]
    whose = f"epoch {last}" if first == last else f"the mean of epochs {first} to {last}"
    return f"{whose}, with running statistics recomputed" if final["recalibrate"] else whose


def _where(output: Path, steps: int, options: Options) -> str:
    if not steps:
        network = options.weights or options.recipe.variant
        what = f"{network}, {options.recipe_name} recipe, {options.data}"
        return f"{output}: no saved state yet; starting from the beginning ({what})"
    return f"{output}: resuming after step {steps:,}"


def _report(
    options: Options, backend: Backend, start: Checkpoint, data: DataSet, history: History
) -> dict[str, Any]:
    last, best = history.epochs[-1], best_epoch(history.epochs)
    counts = count_parameters(start.spec)
    return {
        **options.to_dict(),
        "framework": backend.FRAMEWORK,
        "versions": framework_versions(options.backend_name),
        "platform": platform.platform(),
        "trainable": counts.trainable,
        "data_from": data.where,
        "train_examples": len(data.train),
        "test_examples": len(data.test),
        "epochs": [asdict(epoch) for epoch in history.epochs],
        "test_accuracy": last.validation_accuracy,
        "best_epoch": best.number,
        "best_test_accuracy": best.validation_accuracy,
        "training_seconds": sum(epoch.seconds for epoch in history.epochs),
    }
