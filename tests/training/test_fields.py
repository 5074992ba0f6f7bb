"""JSON of the wrong shape in a run folder: the error names the file and the field."""

import json
import re
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi._files import read_file
from densenet_multi.formats._safetensors import read_safetensors, write_safetensors
from densenet_multi.tasks.train import REPORT_SHAPE, Options
from densenet_multi.training import run_folder
from densenet_multi.training.began import Began
from densenet_multi.training.fields import FieldError, parsed
from densenet_multi.training.history import EPOCH, STEP, Epoch, Step
from densenet_multi.training.run_folder import (
    Recorder,
    RunError,
    read_config,
    read_history,
    read_json,
)
from densenet_multi.training.state import TrainingState, load_state, save_state

SPEC = small("cubic", in_channels=1, num_classes=10)
DEEP = "[" * 100_000
HUGE = 10**400
STEP_1 = Step(1, 1, 2.0, 0.5, 0.1)
EPOCH_1 = Epoch(1, 4, 2.0, 0.5, 1.5, 0.25, 3.0, 100.0)
FOUND = {"class_names": ["a", "b"], "train_examples": 4, "test_examples": 2}
FINAL = {"epochs": [1], "recalibrate": 2, "test_loss": 1.0, "test_accuracy": 0.5}

SHAPES = [  # refused in every file: not JSON, too deep, or not an object
    (b"\xff\xfe{}", "expected JSON, found something else .'utf-8' codec"),
    (DEEP.encode(), "expected JSON, found values nested too deeply"),
    (b'{"schema": NaN}', "expected JSON, found something else .NaN is not a finite number"),
    (b'{"schema": 1e999}', "expected JSON, found something else .1e999 is not a finite"),
    (b'{"schema": ' + b"9" * 5000 + b"}", "expected JSON, found something else"),
    (b"[]", "expected an object, found a list"),
    (b"null", "expected an object, found null"),
]


def shortened(value):
    return str(value)[:20]


def config():
    written = Options(backend_name="torch", weights="w").to_dict() | {"found": FOUND}
    return json.loads(json.dumps(written))


def report():
    epochs = {"epochs": [asdict(EPOCH_1)], "final": FINAL}
    return config() | {"framework": "PyTorch", "train_examples": 4} | epochs


def history():
    return {"kind": "epoch", **asdict(EPOCH_1)}


def changed(content, place, value):
    """Replace the value at a place such as ``found.class_names.0``; ``...`` removes it."""
    content = json.loads(json.dumps(content))
    *within, last = (int(key) if key.isdecimal() else key for key in place.split("."))
    inside = content
    for key in within:
        inside = inside[key]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return content


@pytest.mark.parametrize(("kind", "shape"), [(Step, STEP), (Epoch, EPOCH)])
def test_every_field_of_the_history_has_a_shape(kind, shape):
    assert list(shape) == [field.name for field in fields(kind)]


@pytest.mark.parametrize(("text", "expected"), SHAPES, ids=shortened)
def test_what_is_no_json_object_is_named(tmp_path, text, expected):
    for name, read in ("config.json", read_config), ("report.json", read_report):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(RunError, match=rf"{name}: {expected}"):
            read(tmp_path)
    (tmp_path / "history.jsonl").write_bytes(json.dumps(history()).encode() + b"\n" + text + b"\n")
    with pytest.raises(RunError, match=rf"history\.jsonl: line 2: {expected}"):
        read_history(tmp_path / "history.jsonl")


def read_report(folder):
    return read_json(folder / "report.json", REPORT_SHAPE)


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        ("schema", True, "schema: expected 1, found true"),
        ("backend", ["torch"], "backend: expected a string, found a list"),
        ("data", 5, "data: expected a string, found 5"),
        ("data", "folder:a\0b", "data: expected a string"),
        ("data_dir", ["/"], "data_dir: expected a string or null, found a list"),
        ("data_dir", "\ud800", "data_dir: expected a string or null"),
        ("weights", {}, "weights: expected a string or null, found an object"),
        ("recipe", [], "recipe: expected an object, found a list"),
        ("recipe_name", ..., "recipe_name: expected a string, found none"),
        ("found", 5, "found: expected an object, found 5"),
        ("found.class_names", "ab", 'found.class_names: expected a list, found "ab"'),
        ("found.class_names.1", None, "found.class_names[1]: expected a string, found null"),
        ("found.test_examples", 2.0, "found.test_examples: expected an integer from 0 to 2**53"),
        ("found.train_examples", HUGE, "found.train_examples: expected an integer from 0 to 2**53"),
    ],
    ids=shortened,
)
def test_a_field_of_config_that_is_another_is_named(tmp_path, place, value, error):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config()))
    assert read_config(tmp_path) == config()
    path.write_text(json.dumps(changed(config(), place, value)))
    with pytest.raises(RunError) as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(f"{path}: {error}")
    last = str(tmp_path / "last.safetensors")
    advice = f"; fix it, or start another run with weights={last!r} and another output="
    assert str(caught.value).endswith(advice)
    assert len(str(caught.value)) < len(f"{path}{advice}") + 150


@pytest.mark.parametrize("place", ["epochs", "batch_size", "shift", "image_size", "recalibrate"])
def test_a_recipe_with_an_enormous_integer_is_refused(place):
    written = changed(config(), f"recipe.{place}", HUGE)
    expected = rf"^config\.json: {place}: expected an integer from [012] to"
    with pytest.raises(dm.ConfigError, match=expected):
        Options.from_dict(written)
    with pytest.raises(dm.ConfigError, match=r"^config\.json: variant: expected the name"):
        Options.from_dict(changed(config(), "recipe.variant", ["d2l"]))


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        ("epochs", {}, "epochs: expected a list, found an object"),
        ("epochs", [], "epochs: expected a list, found an empty list"),
        ("epochs.0", 1, "epochs[0]: expected an object, found 1"),
        ("epochs.0.loss", ..., "epochs[0].loss: expected a finite number, found none"),
        ("epochs.0.validation_loss", None, "epochs[0].validation_loss: expected a finite number"),
        ("epochs.0.loss", HUGE, "epochs[0].loss: expected a finite number, found 1000"),
        ("recipe.variant", ..., "recipe.variant: expected a string, found none"),
        ("weights", ..., "weights: expected a string or null, found none"),
        ("framework", None, "framework: expected a string, found null"),
        ("train_examples", "4", 'train_examples: expected an integer from 0 to 2**53, found "4"'),
        ("test_accuracy", [[1]], "test_accuracy: expected a number from 0 to 1, found a list"),
        ("final", [], "final: expected an object, found a list"),
        ("final.epochs", [], "final.epochs: expected a list, found an empty list"),
        ("final.test_loss", False, "final.test_loss: expected a finite number, found false"),
    ],
    ids=shortened,
)
def test_a_field_of_the_report_that_is_another_is_named(tmp_path, place, value, error):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report()))
    assert read_report(tmp_path) == report()
    path.write_text(json.dumps(changed(report(), place, value)))
    with pytest.raises(RunError) as caught:
        read_report(tmp_path)
    assert str(caught.value).startswith(f"{path}: {error}")


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        ("kind", "batch", 'kind: expected step or epoch, found "batch"'),
        ("kind", [], "kind: expected step or epoch, found a list"),
        ("number", 0, "number: expected an integer from 1 to 2**53, found 0"),
        ("number", HUGE, "number: expected an integer from 1 to 2**53, found 1000"),
        ("steps", 0, "steps: expected an integer from 1 to 2**53, found 0"),
        ("loss", "1", 'loss: expected a finite number, found "1"'),
        ("accuracy", ..., "accuracy: expected a number from 0 to 1, found none"),
        (
            "validation_accuracy",
            [],
            "validation_accuracy: expected a number from 0 to 1 or null",
        ),
        ("seconds", -1, "seconds: expected a finite number of at least 0, found -1"),
        ("accuracy", 1.5, "accuracy: expected a number from 0 to 1, found 1.5"),
    ],
    ids=shortened,
)
def test_a_line_of_the_history_that_is_another_is_named(tmp_path, place, value, error):
    path = tmp_path / "history.jsonl"
    lines = history(), changed(history(), place, value)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(RunError) as caught:
        read_history(path)
    assert str(caught.value).startswith(f"{path}: line 2: {error}")
    assert str(caught.value).endswith("; fix or remove that line")


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        ("1.loss", 0.9, "line 2: loss: expected 1.0, as in checkpoint.safetensors, found 0.9"),
        ("1.validation_accuracy", None, "line 2: validation_accuracy: expected 0.5, as in check"),
        ("2.epoch", 1, "line 3: epoch: expected 2, as in checkpoint.safetensors, found 1"),
        ("2.number", 10, "line 3: number: expected a number above 10, found 10"),
    ],
    ids=shortened,
)
def test_a_history_that_is_not_that_of_the_state_is_refused(tmp_path, place, value, error):
    epoch, steps = Epoch(1, 19, 1.0, 0.5, 1.0, 0.5, 1.0, 9.0), [Step(10, 1, 1.0, 0.5, 0.1)]
    steps.append(replace(steps[0], number=20, epoch=2))
    state = TrainingState(random_weights(SPEC, 0), {}, 20, (epoch,), (steps[1],), 1.0)
    save_state(tmp_path / "checkpoint.safetensors", SPEC, state)
    writer = Recorder(tmp_path, SPEC, dm.Usage(), Began(dm.Recipe()))
    for event in steps[0], epoch, steps[1]:
        writer.record(event)
    path = tmp_path / "history.jsonl"
    lines = read_history(path)
    assert writer.resume().steps == 20
    assert read_history(path) == lines
    path.write_text("".join(f"{json.dumps(line)}\n" for line in changed(lines, place, value)))
    with pytest.raises(RunError) as caught:
        writer.resume()
    assert str(caught.value).startswith(f"{path}: {error}")
    assert str(caught.value).endswith("; fix or remove that line")


@pytest.mark.parametrize(
    ("place", "value"),
    [("epochs.0.loss", 0.9), ("unfinished.0.accuracy", 0.25), ("averaged", 1), ("sha256", ...)],
)
def test_numbers_of_a_state_that_were_changed_are_noticed(tmp_path, place, value):
    path, weights = tmp_path / "checkpoint.safetensors", random_weights(SPEC, 0)
    state = TrainingState(weights, {}, 5, (EPOCH_1,), (STEP_1,), 1.0, began=Began(dm.Recipe()))
    save_state(path, SPEC, state)
    metadata, arrays = read_safetensors(path)
    ((entry, text),) = metadata.items()
    assert load_state(path)[1].epochs == (EPOCH_1,)
    write_safetensors(path, arrays, {entry: json.dumps(changed(json.loads(text), place, value))})
    with pytest.raises(dm.WeightsError, match=r"training state; sha256: expected .*found"):
        load_state(path)
    position = {name: each for name, each in json.loads(text).items() if name != "sha256"}
    del position["began"]  # as an older version saved it
    write_safetensors(path, arrays, {entry: json.dumps(position)})
    assert load_state(path)[1].epochs == (EPOCH_1,)


def test_only_the_last_line_may_be_half_written(tmp_path):
    path, line = tmp_path / "history.jsonl", json.dumps(history()).encode()
    for half in (line[:20], b'{"kind": "st\xc3', b"\0\0\0"):
        path.write_bytes(line + b"\n" + half)
        assert read_history(path) == [history()]
        path.write_bytes(half + b"\n" + line)
        with pytest.raises(RunError, match="line 1"):
            read_history(path)


def test_empty_lines_of_the_history_are_skipped_and_counted(tmp_path):
    path, line = tmp_path / "history.jsonl", json.dumps(history())
    path.write_text(f"\n{line}\r\n \t\n\n")
    assert read_history(path) == [history()]
    path.write_text(f"\n{line}\n\n{{}}\n")
    with pytest.raises(RunError, match="line 4: kind: expected step or epoch, found none"):
        read_history(path)
    state = TrainingState(random_weights(SPEC, 0), {}, 4, (EPOCH_1,), (), 1.0)
    save_state(tmp_path / "checkpoint.safetensors", SPEC, state)
    path.write_text(f"\n{line}\n\n{line}\n")
    writer = Recorder(tmp_path, SPEC, dm.Usage(), Began(dm.Recipe()))
    with pytest.raises(RunError, match="line 4: number: expected a number above 1, found 1"):
        writer.resume()
    path.write_text(f"{line}\n\n")
    writer.resume()
    assert path.read_text() == f"{line}\n"


def test_a_line_of_the_history_takes_little_memory(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(history() | {"more": [[]] * 100}) + "\n")
    assert read_history(path) == [history()]  # unneeded fields are dropped
    path.write_text(json.dumps(history() | {"more": [[]] * 50_000}) + "\n")
    with pytest.raises(RunError, match="line 1: expected at most 131,072 bytes, found 200,1"):
        read_history(path)


def test_the_history_is_read_once_and_not_after_each_epoch(tmp_path, monkeypatch):
    read, drawn = [], []
    monkeypatch.setattr(
        run_folder, "read_file", lambda *given: (read.append(1), read_file(*given))[1]
    )
    monkeypatch.setattr(
        "densenet_multi._figures.training_curve", lambda it, _: drawn.append([*it]) or b""
    )
    Recorder(tmp_path, SPEC, dm.Usage(), Began(dm.Recipe())).record(EPOCH_1)
    epochs, weights = [EPOCH_1], random_weights(SPEC, 0)
    save_state(
        tmp_path / "checkpoint.safetensors", SPEC, TrainingState(weights, {}, 4, epochs, (), 1.0)
    )
    writer = Recorder(tmp_path, SPEC, dm.Usage(), Began(dm.Recipe()))
    writer.resume()
    for number in 2, 3:
        epochs.append(replace(EPOCH_1, number=number, steps=4 * number))
        writer.record(epochs[-1])
        writer.save(TrainingState(weights, {}, 4 * number, epochs, (), 1.0))
    assert [len(lines) for lines in drawn] == [1, 2, 3]
    assert drawn[-1] == read_history(tmp_path / "history.jsonl")
    assert len(read) == 2  # in resume, and just above


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        ("steps", 1.9, "steps: expected an integer from 0 to 2**53, found 1.9"),
        ("steps", HUGE, "steps: expected an integer from 0 to 2**53, found 1000"),
        ("steps", True, "steps: expected an integer from 0 to 2**53, found true"),
        ("seconds", "1", 'seconds: expected a finite number of at least 0, found "1"'),
        ("seconds", float("nan"), "expected JSON, found something else (NaN is not a finite"),
        ("epochs", None, "epochs: expected a list, found null"),
        ("epochs.0.loss", HUGE, "epochs[0].loss: expected a finite number, found 1000"),
        ("unfinished.0", [], "unfinished[0]: expected an object, found a list"),
        ("unfinished.0.number", 1.5, "unfinished[0].number: expected an integer from 1 to 2**53"),
        ("averaged", "all", 'averaged: expected an integer from 0 to 2**53, found "all"'),
        ("config", 5, "config: expected an object, found 5"),
        ("config.config.growth_rate", HUGE, "growth_rate: expected an integer from 1 to 1,048,576"),
        ("config.config.block_config", [10**9], "expected at most 10,000 layers in all"),
    ],
    ids=shortened,
)
def test_a_field_of_the_state_that_is_another_is_named(saved, tmp_path, place, value, error):
    (entry, text), arrays = saved
    path = tmp_path / "checkpoint.safetensors"
    metadata = {entry: json.dumps(changed(json.loads(text), place, value))}
    write_safetensors(path, arrays, metadata)
    with pytest.raises(dm.WeightsError, match=re.escape(str(path))) as caught:
        load_state(path)
    assert error in str(caught.value)
    for text in (DEEP, "[]", "{"):
        write_safetensors(path, {"classifier.bias": arrays["classifier.bias"]}, {entry: text})
        with pytest.raises(dm.WeightsError, match="expected a complete training state; expected"):
            load_state(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the entry and text of a state's position, and its arrays."""
    weights = random_weights(SPEC, 0)
    velocity = {"classifier.bias": np.zeros_like(weights["classifier.bias"])}
    path = tmp_path_factory.mktemp("state") / "state"
    save_state(path, SPEC, TrainingState(weights, velocity, 5, (EPOCH_1,), (STEP_1,), 1.0))
    metadata, arrays = read_safetensors(path)
    return next(iter(metadata.items())), arrays


def test_a_pipe_or_an_enormous_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("densenet_multi.training.run_folder.LARGEST_CONFIG", 100)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    with pytest.raises(RunError, match=r"config\.json: expected at most 100 bytes, found "):
        read_config(tmp_path)
    monkeypatch.undo()
    for name, read, bound in (
        ("config.json", read_config, 2**20),
        ("report.json", read_report, 2**24),
        ("history.jsonl", lambda path: read_history(path / "history.jsonl"), 2**27),
    ):
        with (tmp_path / name).open("wb") as file:
            file.truncate(bound + 1)
        with pytest.raises(RunError, match=f"{name}: expected at most {bound:,} bytes, found"):
            read(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(RunError, match=r"config\.json: expected a file, found a "):
        read_config(tmp_path)


def test_fields_that_are_not_named_may_be_anything():
    assert parsed('{"a": {"b": [1]}}', {"c?": [1]}) == {"a": {"b": [1]}}
    with pytest.raises(FieldError, match=r"^expected JSON"):
        parsed("{")
