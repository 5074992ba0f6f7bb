"""Run folders: what they contain, what survives a kill, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cases
import densenet_multi as dm
from available import AVAILABLE
from cases import random_weights, small
from densenet_multi.commands import main
from densenet_multi.commands.train import options_from
from densenet_multi.data import load_data
from densenet_multi.formats._safetensors import read_safetensors, write_safetensors
from densenet_multi.tasks import evaluate
from densenet_multi.tasks.train import (
    MULTIPLY_ADDS_PER_SECOND,
    Options,
    _duration,
    _prepare,
    expected_seconds,
    saving_on_signals,
    train,
)
from densenet_multi.training.began import Began
from densenet_multi.training.history import Epoch, Step
from densenet_multi.training.run_folder import (
    FILES,
    Recorder,
    RunError,
    claimed,
    read_config,
    read_history,
    read_json,
)
from densenet_multi.training.state import TrainingState, load_state, save_state

SPEC = small("cubic", in_channels=1, num_classes=10)
BEGAN = Began(dm.Recipe())
SIZE = 16  # pixels per side of the images that real backends train on here


def epoch(number, accuracy):
    return Epoch(number, 4 * number, 1.0, 0.5, 0.9, accuracy, 1.0, 100.0)


def state(steps=4, epochs=(), unfinished=(), seed=1, dtype="float32"):
    weights = {n: a.astype(dtype) for n, a in random_weights(SPEC, seed).items()}
    velocity = {n: -a for n, a in weights.items() if dm.tensors(SPEC)[n].role == "trainable"}
    return TrainingState(weights, velocity, steps, tuple(epochs), tuple(unfinished), 1.5)


def step(number, in_epoch=1):
    return Step(number, in_epoch, 1 / number, 0.5, 0.1)


# --- The state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_survives_its_file_bit_for_bit(tmp_path, dtype):
    mean = state(seed=2, dtype=dtype).weights
    saved = replace(state(5, [epoch(1, 0.75)], [step(5, 2)], dtype=dtype), mean=mean, averaged=1)
    save_state(tmp_path / "state", SPEC, saved)
    spec, loaded = load_state(tmp_path / "state")
    assert spec == SPEC
    for name in ("weights", "velocity", "mean"):
        before, after = getattr(saved, name), getattr(loaded, name)
        assert before.keys() == after.keys()
        for tensor, array in before.items():
            np.testing.assert_array_equal(after[tensor], array)
            assert after[tensor].dtype == dtype
    rest = {"weights": {}, "velocity": {}, "mean": None}
    assert replace(loaded, **rest) == replace(saved, **rest)


def test_a_state_with_weights_that_are_not_finite_is_not_written(tmp_path):
    saved = state()
    saved.weights["classifier.bias"][0] = np.nan
    with pytest.raises(dm.WeightsError, match=r"classifier\.bias"):
        save_state(tmp_path / "state", SPEC, saved)
    assert not list(tmp_path.iterdir())


def test_a_damaged_mean_is_named(tmp_path):
    save_state(tmp_path / "state", SPEC, replace(state(), mean=state().weights, averaged=1))
    metadata, arrays = read_safetensors(tmp_path / "state")
    del arrays["mean.classifier.bias"]
    write_safetensors(tmp_path / "state", arrays, metadata)
    with pytest.raises(dm.WeightsError, match=r"state: mean\..*\n.*classifier\.bias: missing"):
        load_state(tmp_path / "state")


def test_other_files_are_no_state(tmp_path):
    dm.save_weights(tmp_path / "weights", SPEC, state().weights)
    with pytest.raises(dm.WeightsError, match="weights: expected the state of a training run"):
        load_state(tmp_path / "weights")
    save_state(tmp_path / "state", SPEC, state())
    with pytest.raises(dm.WeightsError, match=r"its weights are in last\.safetensors"):
        dm.load_weights(tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    for end in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "state").write_bytes(whole[:end])
        with pytest.raises(dm.WeightsError, match="state: "):
            load_state(tmp_path / "state")
    (tmp_path / "state").write_bytes(whole.replace(b'\\"steps\\"', b'\\"stips\\"'))
    with pytest.raises(dm.WeightsError, match="expected a complete training state"):
        load_state(tmp_path / "state")


# --- The folder ---------------------------------------------------------------------------------


def recorder(path, **arguments):
    path.mkdir(exist_ok=True)
    return Recorder(path, SPEC, dm.Usage(image_size=32), BEGAN, **arguments)


def test_last_and_best_are_portable_weights(tmp_path):
    writer = recorder(tmp_path / "run")
    epochs = []
    for number, accuracy in enumerate((0.5, 0.75, 0.75, 0.25), start=1):
        epochs.append(epoch(number, accuracy))
        writer.record(epochs[-1])
        writer.keep(lambda: state(4 * number, epochs, seed=number))  # noqa: B023  # called at once
    for file, seed in ("last", 4), ("best", 2):
        checkpoint = dm.load_checkpoint(tmp_path / "run" / f"{file}.safetensors")
        assert checkpoint.usage.image_size == 32
        expected = state(seed=seed).weights["classifier.weight"]
        np.testing.assert_array_equal(checkpoint.weights["classifier.weight"], expected)
    assert ET.parse(tmp_path / "run" / "curve.svg").getroot().tag.endswith("svg")  # noqa: S314  # ours


def test_the_curve_is_the_same_bytes_for_the_same_history(tmp_path):
    for name in "ab":
        writer = recorder(tmp_path / name)
        for number in range(1, 41):
            writer.record(step(number))
        writer.record(replace(epoch(1, 0.5), steps=40))
        writer.save(state(40, [epoch(1, 0.5)]))
    first, second = ((tmp_path / name / "curve.svg").read_bytes() for name in "ab")
    assert first == second
    for text in (b"training, single steps", b"loss", b"accuracy", b"test", b"epoch"):
        assert text in first


def test_the_curve_ends_with_the_accuracy_of_the_final_weights(tmp_path):
    writer = recorder(tmp_path)
    for number, accuracy in enumerate((0.5, 0.75), start=1):
        writer.record(epoch(number, accuracy))
    writer.draw(0.8125)
    assert b"test, final weights: 0.8125" in (tmp_path / "curve.svg").read_bytes()


def test_the_state_within_an_epoch_is_saved_when_it_is_time_and_when_it_is_to_stop(tmp_path):
    patient, eager = recorder(tmp_path / "patient"), recorder(tmp_path / "eager", save_every=0)
    asked = []

    def now():
        asked.append(1)
        return state()

    patient.record(step(1))
    patient.keep(now)
    assert not asked  # copying the weights takes time
    eager.keep(now)
    assert len(asked) == 1
    assert (tmp_path / "eager" / "checkpoint.safetensors").exists()
    patient.stop = True
    with pytest.raises(KeyboardInterrupt):
        patient.keep(now)
    assert (tmp_path / "patient" / "checkpoint.safetensors").exists()


SIGNALS = [(signal.SIGINT, KeyboardInterrupt, ()), (signal.SIGTERM, SystemExit, (143,))]


@pytest.mark.parametrize(("number", "error", "code"), SIGNALS)
def test_a_signal_during_the_last_save_or_after_it_stops_a_run_that_resumes(
    tmp_path, number, error, code
):
    def saved(during=lambda: None):
        during()
        return state(8)

    def while_it_saves(writer, _):
        writer.keep(partial(saved, partial(signal.raise_signal, number)))

    def between_the_save_and_the_end(writer, all_is_saved):
        writer.keep(saved)
        signal.raise_signal(number)
        all_is_saved()

    def while_it_ends(writer, all_is_saved):
        writer.keep(saved)
        all_is_saved()
        signal.raise_signal(number)

    def within_a_destructor(writer, all_is_saved):
        writer.keep(saved)
        all_is_saved()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        all_is_saved()

    moments = while_it_saves, between_the_save_and_the_end, while_it_ends, within_a_destructor
    for moment in moments:
        said, writer = [], recorder(tmp_path / moment.__name__)
        writer.record(epoch(2, 0.5))
        with pytest.raises(error) as caught, saving_on_signals(writer, said.append) as all_is_saved:
            moment(writer, all_is_saved)
        assert caught.value.args == code, moment
        assert f"saved; resume with: train(output={str(writer.path)!r}, resume=True)" in said
        assert load_state(writer.path / "checkpoint.safetensors")[1].steps == 8


def test_weights_that_are_not_finite_leave_the_last_good_state(tmp_path):
    writer = recorder(tmp_path / "run")
    writer.save(state(3, seed=3))
    for part in ("weights", "velocity"):
        bad = state(4, seed=4)
        getattr(bad, part)["classifier.bias"][0] = np.inf
        with pytest.raises(dm.TrainingError, match=r"step 4: expected finite .* classifier\.bias"):
            writer.save(bad)
    assert load_state(tmp_path / "run" / "checkpoint.safetensors")[1].steps == 3


def test_resuming_makes_every_file_agree_with_the_state(tmp_path):
    writer = recorder(tmp_path / "run")
    for number in range(1, 21):
        writer.record(step(number))
    writer.record(epoch(1, 0.5))
    writer.save(state(20, [epoch(1, 0.5)], seed=1))
    expected = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}
    # as if killed later, between any two of the files that it writes
    for number in range(21, 41):
        writer.record(step(number, 2))
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write('{"kind": "ep')
    for name in ("last.safetensors", "best.safetensors", "curve.svg"):
        (tmp_path / "run" / name).unlink()
    assert recorder(tmp_path / "run").resume().steps == 20
    for name, content in expected.items():
        assert (tmp_path / "run" / name).read_bytes() == content, name


def test_without_a_state_the_run_begins_anew(tmp_path):
    writer = recorder(tmp_path / "run")
    writer.record(step(10))
    assert recorder(tmp_path / "run").resume() is None
    assert (tmp_path / "run" / "history.jsonl").read_text() == ""


def test_a_state_of_another_network_is_refused(tmp_path):
    recorder(tmp_path / "run").save(state())
    (tmp_path / "run" / "last.safetensors").replace(tmp_path / "run" / "checkpoint.safetensors")
    with pytest.raises(dm.WeightsError, match=r"state of a training run.*; start another run with"):
        recorder(tmp_path / "run").resume()
    recorder(tmp_path / "run").save(state())
    other = Recorder(tmp_path / "run", small("plain"), dm.Usage(), BEGAN)
    with pytest.raises(RunError, match=r"expected the network of config\.json, found another"):
        other.resume()


HOLD = """
import sys, time, pathlib
from densenet_multi.training.run_folder import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_write_one_folder_and_a_killed_one_leaves_no_claim(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match="found another process writing to it"),
            claimed(tmp_path / "run"),
        ):
            pass
        half_written = tmp_path / "run" / ".checkpoint.safetensors.0badcafe"
        half_written.write_bytes(b"half")
        holder.kill()
    with claimed(tmp_path / "run"):
        assert not half_written.exists()


def test_a_lock_that_is_a_link_is_refused_and_nothing_is_emptied(tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to("../thesis.txt")
    expected = r"\.lock: expected a file or nothing, found a symbolic link; remove it"
    with pytest.raises(RunError, match=expected), claimed(run):
        pass
    (run / ".lock").unlink()
    (run / ".lock").write_text("of an earlier version")
    with claimed(run):
        pass
    assert thesis.read_text() == "years of work"
    assert (run / ".lock").read_text() == "of an earlier version"


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "report.json"])
def test_a_file_of_a_run_that_would_never_end_is_refused(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/zero")
    expected = rf"{name}: expected a file, found a device; "
    with pytest.raises(RunError, match=expected), claimed(tmp_path):
        pass
    read = {"config.json": read_config, "history.jsonl": lambda path: read_history(path / name)}
    with pytest.raises(RunError, match=f"^{tmp_path}.*{expected}"):
        read.get(name, lambda path: read_json(path / name, {}))(tmp_path)


def test_a_pipe_is_no_state(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(dm.WeightsError, match="pipe: expected a file, found a pipe"):
        load_state(tmp_path / "pipe")


def test_a_file_of_a_run_may_be_a_link_and_stays_one(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "history"
    run.mkdir()
    (run / "history.jsonl").symlink_to(elsewhere)
    with claimed(run):
        recorder = Recorder(run, SPEC, dm.Usage(), BEGAN)
        assert recorder.resume() is None
        recorder.record(epoch(1, 0.5))
    assert (run / "history.jsonl").is_symlink()
    assert read_history(elsewhere) == read_history(run / "history.jsonl") != []


# --- Options and --resume -----------------------------------------------------------------------


def test_options_survive_their_json():
    options = options_from({"backend_name": "b", "recipe": "paper", "epochs": 3, "seed": 5}, None)
    assert (options.recipe.epochs, options.recipe.seed) == (3, 5)
    assert options.recipe.variant == "densenet_bc100_k12"
    written = json.loads(json.dumps(options.to_dict()))
    assert Options.from_dict(written) == options
    names = ["schema", "backend", "data", "data_dir", "weights", "recipe", "recipe_name"]
    assert list(written) == names
    written["recipe"]["epochs"] = 0
    with pytest.raises(dm.ConfigError, match=r"^config\.json: epochs: expected an integer"):
        Options.from_dict(written)


def test_another_network_has_its_usual_image_size():
    given = {"backend_name": "b", "recipe": None}
    assert options_from({**given, "variant": "densenet40_k12"}, None).recipe.image_size == 32
    assert options_from({**given, "variant": "densenet121"}, None).recipe.image_size == 96
    chosen = {**given, "variant": "densenet40_k12", "image_size": 28}
    assert options_from(chosen, None).recipe.image_size == 28


def test_what_is_typed_with_resume_must_agree_except_the_backend_and_the_place_of_the_data():
    found = options_from({"backend_name": "b", "epochs": 3}, None).to_dict()
    assert options_from({"backend_name": None, "epochs": 3}, found).backend_name == "b"
    assert options_from({"backend_name": "c", "data_dir": "d"}, found).backend_name == "c"
    assert options_from({"recipe": "chapter"}, found).recipe.epochs == 3
    for typed, flag in (
        ({"epochs": 4}, "--epochs: expected 3"),
        ({"recipe": "paper"}, "--recipe: expected 'chapter'"),
        ({"data": "sample"}, "--data: expected 'fashion-mnist'"),
        ({"seed": 1}, "--seed: expected 0"),
    ):
        with pytest.raises(dm.ConfigError, match=flag):
            options_from(typed, found)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2, "recipe": {}}', "{"])
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: (\w+: )?expected"):
        options_from({}, read_config(tmp_path))


@pytest.mark.parametrize("name", ["he_fan_in", "xavier"])
def test_a_run_begins_with_the_weights_of_its_recipe(name):
    given = {"backend_name": "torch", "data": "sample", "initialization": name, "seed": 3}
    start, _ = _prepare(options_from(given, None), None, lambda _: None)
    for tensor, array in dm.init_weights(start.spec, 3, name).items():
        np.testing.assert_array_equal(start.weights[tensor], array)


def test_weights_decide_the_network():
    with pytest.raises(dm.ConfigError, match="omit --variant"):
        options_from({"weights": "file", "variant": "d2l"}, None)
    with pytest.raises(dm.ConfigError, match="omit --initialization"):
        options_from({"weights": "file", "initialization": "xavier"}, None)
    with pytest.raises(dm.ConfigError, match="--freeze needs trained features"):
        options_from({"train_features": False}, None)
    typed = {"train_features": False, "weights": "file", "image_size": 32, "backend_name": "b"}
    frozen = options_from(typed, None).recipe
    assert (frozen.recalibrate, frozen.average) == (0, 0.5)  # only classifiers are averaged
    assert options_from({"backend_name": "b", "recalibrate": 0}, None).recipe.average == 0
    averaged = options_from({"backend_name": "b", "recipe": "modern", "average": 0.5}, None).recipe
    assert averaged.recalibrate == dm.RECIPES["chapter"].recalibrate > 0  # the mean needs it
    with pytest.raises(dm.ConfigError, match="--average needs --recalibrate of at least 1"):
        options_from({"backend_name": "b", "average": 0.5, "recalibrate": 0}, None)
    with pytest.raises(dm.ConfigError, match="recalibrate: expected 0 with train_features=F"):
        options_from({**typed, "recalibrate": 5}, None)


def test_a_folder_with_anything_of_a_run_is_refused_without_resume(tmp_path):
    options = options_from({"backend_name": "b"}, None)
    for name in FILES:
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(RunError, match="pass resume=True to resume"):
            train(options, output=folder)
        if name != "config.json":
            with pytest.raises(RunError, match=rf"expected config\.json.*found {name} without it"):
                train(options, output=folder, resume=True)
        assert (folder / name).read_text() == "{}"


def test_a_run_without_a_state_begins_again_with_the_weights_it_began_with(tmp_path):
    begin, recipe = saved_weights(tmp_path), dm.Recipe(image_size=SIZE)
    options = Options(backend_name="b", weights=str(begin), data="sample", recipe=recipe)
    dm.save_weights(tmp_path / "last.safetensors", SPEC, state().weights)
    for name, expected in (
        ("", dm.init_weights(SPEC)),
        ("checkpoint.safetensors", state().weights),
    ):
        (tmp_path / name).touch()
        found = _prepare(options, tmp_path, print)[0].weights["features.conv0.weight"]
        np.testing.assert_array_equal(found, expected["features.conv0.weight"])


def test_a_folder_of_something_else_is_not_resumed(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(
        RunError, match=r"a folder with thesis\.tex; for a new run, omit resume=True"
    ):
        train(options_from({"backend_name": "b"}, None), output=tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_config_that_is_a_link_to_nothing_is_named(tmp_path):
    config = tmp_path / "config.json"
    (tmp_path / "last.safetensors").touch()
    for target, expected in (config, "levels of symbolic links"), ("absent", "No such file"):
        config.symlink_to(target)
        for read in (
            read_config,
            lambda path: train(Options(backend_name="b"), output=path, resume=True),
        ):
            with pytest.raises(OSError, match=rf"{expected}.*config\.json"):
                read(tmp_path)
        config.unlink()


def test_an_output_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name, found in ("loop", "a broken link"), ("file", "a file"):
        expected = rf"{name}: expected a folder or nothing, found {found}; pass another output="
        with pytest.raises(RunError, match=expected):
            train(Options(backend_name="b"), output=tmp_path / name)


def test_outside_the_main_thread_a_run_is_recorded_without_signals(tmp_path):
    recorder = Recorder(tmp_path, SPEC, dm.Usage(), BEGAN)

    def run():
        with saving_on_signals(recorder, print):
            return "ran"

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(run).result() == "ran"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"options": {}}, r"^options: expected Options.*; found dict"),
        ({"resume": {}}, "^resume: expected True or False; found {}"),
        ({"resume": True, "output": None}, "^resume: expected False without output="),
        ({"output": b"run"}, "^output: expected a path"),
        ({"callbacks": [None]}, r"^callbacks\[0\]: expected a function; found None"),
        ({"save_every": "60"}, "^save_every: expected a number of seconds"),
        ({"device": "tpu"}, "^device: expected 'cpu' or 'gpu'; found 'tpu'"),
        ({"memory_efficient": "all"}, "^memory_efficient: expected False, 'some' or 'max'"),
        ({"say": "yes"}, "^say: expected a function"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_train_is_named_before_a_folder_is_made(tmp_path, wrong, message):
    given = {"options": Options(backend_name="b"), "output": tmp_path / "run", **wrong}
    with pytest.raises(dm.ConfigError, match=message):
        train(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("existing", ["", "a", "a/b"])
def test_what_never_began_leaves_no_folder_that_it_created(tmp_path, existing, resume):
    (tmp_path / existing).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(dm.ConfigError, match="backend 'b' does not exist"):
        train(options_from({"backend_name": "b"}, None), output=tmp_path / "a/b", resume=resume)
    assert sorted(tmp_path.rglob("*")) == before


def test_paths_are_kept_so_that_a_run_may_go_on_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = options_from({"backend_name": "b", "data": "folder:own"}, None)
    assert options.data == f"folder:{tmp_path.resolve() / 'own'}"
    assert options_from({"data": "folder:own"}, options.to_dict()) == options


# --- Killed -------------------------------------------------------------------------------------

LOOP = """
import sys, time, pathlib
sys.path[:0] = sys.argv[2:]
from test_run_folder import BEGAN, SPEC, state, step, epoch
from densenet_multi.training.run_folder import Recorder, claimed
import densenet_multi as dm
path = pathlib.Path(sys.argv[1])
with claimed(path):
    recorder = Recorder(path, SPEC, dm.Usage(), BEGAN, save_every=0)
    begun = recorder.resume()
    taken = begun.steps if begun else 0
    print("resumed", taken, flush=True)
    while True:
        taken += 1
        epochs = [epoch(n, n / 1000) for n in range(1, taken // 4 + 1)]
        recorder.record(step(taken, taken // 4 + 1))
        if taken % 4 == 0:
            recorder.record(epochs[-1])
        done = [step(n, taken // 4 + 1) for n in range(taken // 4 * 4 + 1, taken + 1)]
        recorder.keep(lambda: state(taken, epochs, done, seed=taken))
        print("saved", taken, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.long)])
def test_no_kill_loses_a_saved_state_nor_needs_cleaning(kills, tmp_path):
    rng = np.random.default_rng(0)
    command = [
        sys.executable,
        "-c",
        LOOP,
        str(tmp_path / "run"),
        str(Path(__file__).parent),
        str(Path(cases.__file__).parent),
    ]
    completed = 0
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            word, steps = process.stdout.readline().split()
            assert word == "resumed"
            # at most one step more than reported, if killed between saving and reporting
            assert completed <= int(steps) <= completed + 1
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            lines = process.stdout.read().split("\n")
        completed = max([int(steps), *(int(line.split()[1]) for line in lines if "saved " in line)])
        steps = load_state(tmp_path / "run" / "checkpoint.safetensors")[1].steps if completed else 0
        assert steps >= completed
    assert completed >= kills
    with claimed(tmp_path / "run"):
        found = recorder(tmp_path / "run").resume()
    last = dm.load_weights(tmp_path / "run" / "last.safetensors")[1]
    np.testing.assert_array_equal(last["classifier.weight"], found.weights["classifier.weight"])
    numbers = [line["number"] for line in read_history(tmp_path / "run" / "history.jsonl")
               if line["kind"] == "epoch"]  # fmt: skip
    assert numbers == list(range(1, len(found.epochs) + 1))


# --- The command, in every backend --------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    return saved_weights(tmp_path)


def saved_weights(folder):
    path = folder / "begin.safetensors"
    dm.save_weights(path, SPEC, dm.init_weights(SPEC), dm.Usage(image_size=SIZE))
    return path


def arguments(backend, weights, output, *more):
    return [
        *(sys.executable, "-P", "-m", "densenet_multi", "train", "--backend", backend.NAME),
        *("--weights", str(weights), "--data", "sample", "--epochs", "2", "--batch-size", "125"),
        *("--output", str(output), "--save-every", "0", "--average", "1", *more),
    ]  # fmt: skip


BATCHES = "--recalibrate", "2"


@pytest.fixture(scope="module")
def whole(backend, tmp_path_factory):
    """Return the folder of an uninterrupted run, and the command's result."""
    folder = tmp_path_factory.mktemp("whole")
    weights, output = saved_weights(folder), folder / "run"
    return output, called(backend, weights, output, *BATCHES, "--format", "json")


@pytest.mark.long("torch", "keras", "flax")
def test_a_killed_run_ends_as_if_it_had_not_been_killed(backend, weights, whole, tmp_path):
    uninterrupted, done = whole
    assert done.exit_code == 0, done.output
    assert "images/s" not in done.stderr  # no bar where there is no terminal
    report = json.loads(done.stdout)
    assert [line["number"] for line in report["epochs"]] == [1, 2]
    assert report["test_accuracy"] == report["epochs"][-1]["validation_accuracy"]
    assert json.loads((uninterrupted / "report.json").read_text()) == report

    output = tmp_path / "killed"
    for ending in (signal.SIGKILL, signal.SIGINT):
        resume = ["--resume"] if output.exists() else []
        command = arguments(backend, weights, output, *BATCHES, *resume)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_for_another_step(output, process)
            process.send_signal(ending)
            message = process.stderr.read()
        expected = -signal.SIGKILL if ending == signal.SIGKILL else 128 + signal.SIGINT
        assert process.returncode == expected, message
    assert "saved; resume with" in message
    resumed = called(backend, weights, output, *BATCHES, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming after step" in resumed.stderr
    names = "last", "best", "final", "checkpoint"
    for file in (f"{name}.safetensors" for name in names):
        if file == "checkpoint.safetensors":  # it also stores how long the epochs took
            actual, expected = (load_state(path / file)[1] for path in (output, uninterrupted))
            for name, array in expected.velocity.items():
                np.testing.assert_array_equal(actual.velocity[name], array)
        else:
            assert (output / file).read_bytes() == (uninterrupted / file).read_bytes()
    lines = [read_history(path / "history.jsonl") for path in (output, uninterrupted)]
    for line in (*lines[0], *lines[1]):
        line.pop("seconds", None)
        line.pop("images_per_second", None)
    assert lines[0] == lines[1]

    again = called(backend, weights, output, "--resume")
    assert (again.exit_code, "this run is complete" in again.stderr) == (0, True)
    hidden = called(backend, weights, tmp_path / "gpu", "--device", "gpu")
    if hidden.exit_code:  # no GPU here
        assert (hidden.exit_code, "use --device cpu" in hidden.stderr) == (1, True)
        assert not (tmp_path / "gpu" / "config.json").exists()  # so that you can try again
    refused = called(backend, weights, output)
    assert (refused.exit_code, "pass --resume to resume" in refused.stderr) == (2, True)


@pytest.mark.long("keras", "flax")
def test_a_run_ends_with_statistics_measured_anew(backend, weights, whole, tmp_path):
    output, done = whole
    assert done.exit_code == 0, done.output
    assert "final.safetensors (the mean of epochs 1 to 2, with running statistics " in done.stderr
    reported = json.loads(done.stdout)["final"]
    assert (reported["epochs"], reported["recalibrate"]) == ([1, 2], 2)
    path = output / "final.safetensors"
    found = evaluate.evaluate(path, backend_name=backend.NAME, data="sample")
    assert reported["test_accuracy"] == found["accuracy"]
    assert reported["test_loss"] == pytest.approx(found["loss"], rel=1e-5)
    trained, anew = (
        dm.load_checkpoint(output / f"{name}.safetensors") for name in ("last", "final")
    )
    assert anew.usage == trained.usage
    mean = load_state(output / "checkpoint.safetensors")[1].mean
    averaged = replace(trained, weights=mean)
    examples = load_data("sample", image_size=SIZE, usage=trained.usage).train
    expected = evaluate.recalibrated(backend.NAME, averaged, examples, 2, batch_size=125)
    for name, array in anew.weights.items():
        np.testing.assert_array_equal(array, expected[name])
        learns = dm.tensors(SPEC)[name].role == "trainable"
        assert np.array_equal(array, averaged.weights[name]) == learns, name
        assert not np.array_equal(array, trained.weights[name]), name
    frozen = "--epochs", "1", "--freeze", "--average", "0"
    without = called(backend, weights, tmp_path / "frozen", *frozen)
    assert without.exit_code == 0, without.output
    assert not (tmp_path / "frozen" / "final.safetensors").exists()


@pytest.mark.long("keras", "flax")
def test_a_run_stopped_while_it_ends_says_how_to_go_on(backend, weights, tmp_path, monkeypatch):
    given = "--epochs", "1", *BATCHES, "--resume"
    for number, moment in (
        (signal.SIGINT, "training.run_folder.best_epoch"),  # within the last save
        (signal.SIGTERM, "tasks.train.measure_statistics"),
    ):
        with monkeypatch.context() as patch:
            stop = Mock(side_effect=lambda *_, number=number: signal.raise_signal(number))
            patch.setattr(f"densenet_multi.{moment}", stop)
            done = called(backend, weights, tmp_path / "run", *given)
        assert done.exit_code == 128 + number, done.output
        assert f"train --output {tmp_path / 'run'} --resume" in done.stderr
        assert not (tmp_path / "run" / "report.json").exists()
    assert called(backend, weights, tmp_path / "run", *given).exit_code == 0
    for broken, found in ("{", "expected JSON"), ("{}", "schema: expected 1, found none"):
        (tmp_path / "run" / "report.json").write_text(broken)
        done = called(backend, weights, tmp_path / "run", *given)
        assert done.exit_code == 2
        assert f"report.json: {found}" in done.stderr
        assert "remove it to write a new one" in done.stderr
        assert "complete" not in done.stderr


def called(*given):
    """Run the same command in this process."""
    return CliRunner().invoke(main, arguments(*given)[4:])


def wait_for_another_step(output, process):
    """Wait until a newer state is saved; fail if the run ends first."""
    path = output / "checkpoint.safetensors"
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        time.sleep(0.002)
    assert process.returncode is None, process.stderr.read()


@pytest.mark.long("keras", "flax")
def test_a_loss_that_is_not_finite_keeps_the_last_good_state(backend, weights, tmp_path):
    recipe = dm.Recipe(epochs=2, batch_size=100, image_size=32, learning_rate=1e30)
    options = Options(backend_name=backend.NAME, data="sample", weights=str(weights), recipe=recipe)
    with pytest.raises(dm.TrainingError, match=r"expected .*finite") as caught:
        train(options, output=tmp_path / "run", save_every=0)
    path = tmp_path / "run" / "checkpoint.safetensors"
    if path.exists():
        assert all(np.isfinite(a).all() for a in load_state(path)[1].weights.values())
        assert str(tmp_path / "run") in str(caught.value)
    with pytest.raises(dm.TrainingError, match=r"history\.jsonl is kept; start again with another"):
        train(options, output=tmp_path / "short")
    assert read_config(tmp_path / "short")["weights"] == str(weights)
    assert (tmp_path / "short" / "history.jsonl").exists()


@pytest.mark.long("keras", "flax")
def test_a_run_goes_on_in_less_memory(backend, weights, tmp_path, monkeypatch):
    built, build = [], backend.build

    def listening(spec, **given):
        built.append(given["memory_efficient"])
        return build(spec, **given)

    monkeypatch.setattr(backend, "build", listening)
    common = ["--epochs", "1", "--batch-size", "500", "--average", "0", "--recalibrate", "0"]
    assert called(backend, weights, tmp_path / "run", *common).exit_code == 0
    for level in (["--memory-efficient"], ["--memory-efficient", "max"]):
        (tmp_path / "run" / "report.json").unlink()
        done = called(backend, weights, tmp_path / "run", *common, "--resume", *level)
        assert done.exit_code == 0, done.output
    assert built == [False, "some", "max"]


def test_the_expected_time_follows_from_the_multiply_adds():
    spec, recipe = dm.get_spec("d2l"), dm.Recipe(epochs=2)
    work = 3 * 2 * 1000 * sum(stage.multiply_adds for stage in dm.profile(spec, 96, 96))
    expected = expected_seconds(spec, recipe, 1000)
    assert expected == pytest.approx(work / MULTIPLY_ADDS_PER_SECOND)
    frozen = replace(recipe, train_features=False)
    assert expected_seconds(spec, frozen, 1000) == pytest.approx(expected / 3)  # no backward pass
    said = [_duration(spec, recipe, int(seconds * 1000 / expected)) for seconds in (80, 600, 7e3)]
    assert [line.split(" on ")[0].removeprefix("training takes ") for line in said] == [
        "less than 2 minutes",
        "about 10 minutes",
        "about 2 hours",
    ]


def test_a_run_says_how_long_it_takes_before_it_starts(backend, weights, monkeypatch):
    recipe, said = dm.Recipe(image_size=32, batch_size=500), list[str]()
    monkeypatch.setattr(backend, "fit", Mock(side_effect=RuntimeError))
    options = Options(backend_name=backend.NAME, data="sample", weights=str(weights), recipe=recipe)
    with pytest.raises(RuntimeError):
        train(options, say=said.append)
    assert said == ["training takes less than 2 minutes on two CPU cores in the fastest backend"]


def test_a_start_that_fails_leaves_no_run_behind(backend, weights, tmp_path):
    recipe = dm.Recipe(image_size=32, batch_size=5000)
    options = Options(backend_name=backend.NAME, data="sample", weights=str(weights), recipe=recipe)
    with pytest.raises(dm.ConfigError, match="batch_size: expected at most the 1000 examples"):
        train(options, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long("keras", "flax")
def test_a_run_goes_on_with_the_data_it_began_with(backend, weights, tmp_path):
    for name in ("a", "b"):
        for number in range(4):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 40 * number).save(tmp_path / "own" / name / f"{number}.png")
    recipe = dm.Recipe(image_size=32, batch_size=3, epochs=1, seed=6)
    data = f"folder:{tmp_path / 'own'}"
    options = Options(backend_name=backend.NAME, data=data, weights=str(weights), recipe=recipe)
    train(options, output=tmp_path / "run")
    assert dm.load_checkpoint(tmp_path / "run" / "last.safetensors").usage.split_seed == 6
    (tmp_path / "run" / "report.json").unlink()
    weights.unlink()  # a run that has begun no longer needs them
    other = replace(options, recipe=replace(recipe, seed=7))
    with pytest.raises(RunError, match=r"found changes: seed: expected 6, found 7; undo"):
        train(other, output=tmp_path / "run", resume=True)
    content = (tmp_path / "own" / "a" / "2.png").read_bytes()
    Image.new("L", (32, 32), 81).save(tmp_path / "own" / "a" / "2.png")
    with pytest.raises(RunError, match=r"found changes: (training|test) images: expected SHA256"):
        train(options, output=tmp_path / "run", resume=True)
    (tmp_path / "own" / "a" / "2.png").write_bytes(content)
    state = tmp_path / "run" / "checkpoint.safetensors"
    spec, saved = load_state(state)
    said = []
    for began, recorded in (saved.began, 0), (None, saved.steps):  # None: by an older version
        save_state(state, spec, replace(saved, began=began))
        report = train(options, output=tmp_path / "run", resume=True, say=said.append)
        assert report["recorded_after_step"] == recorded
        assert any("saved without its recipe" in text for text in said) == bool(recorded)
        (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "own" / "b").rename(tmp_path / "own" / "A")
    began = r"expected the data that this run began with.* 2 classes \(a, b\), found"
    with pytest.raises(RunError, match=began):
        train(options, output=tmp_path / "run", resume=True)


@pytest.mark.together
def test_a_run_goes_on_in_every_other_framework(deviations):
    spec = replace(SPEC.config, bn_decay=0.875, block_config=(1, 1)).resolve()
    rng = np.random.default_rng(0)
    data = rng.random((12, 1, 16, 16)), rng.integers(0, 10, 12)
    recipe = dm.Recipe(epochs=2, batch_size=4, momentum=0.9, nesterov=True, weight_decay=1e-2)
    states, finals = {}, {}
    for backend in map(dm.load_backend, AVAILABLE):
        model = backend.build(spec, dtype="float64")
        found = {}
        backend.fit(model, data, recipe, checkpoint=lambda now: found.update({now().steps: now()}))  # noqa: B023  # called at once
        states[backend.NAME], finals[backend.NAME] = found[2], backend.export_weights(model)
    for before, after in [*pairwise(AVAILABLE), (AVAILABLE[-1], AVAILABLE[0])]:
        backend = dm.load_backend(after)
        model = backend.build(spec, dtype="float64", seed=9)
        backend.fit(model, data, recipe, resume=states[before])
        # relative to the largest: a bias before a BatchNorm has only rounding errors as gradient
        largest = max(np.abs(array).max() for array in finals[before].values())
        for tensor, array in backend.export_weights(model).items():
            if not tensor.endswith("running_var"):  # each framework's own estimate
                value = np.abs(array - finals[before][tensor]).max() / largest
                deviations.check("trajectory float64", after, value, f"{tensor} from {before}")
