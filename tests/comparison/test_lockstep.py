"""Backends that train in lockstep: what is measured, what is judged, and with which exit code."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from available import AVAILABLE
from cases import random_weights, small, tiny
from densenet_multi.commands import lockstep as lockstep_command
from densenet_multi.commands import main
from densenet_multi.commands.output import NARROWEST
from densenet_multi.comparison import lockstep, lockstep_child
from densenet_multi.comparison.lockstep import TOLERANCES, Trajectory
from densenet_multi.data import Arrays, load_data

SPEC = tiny(in_channels=1, num_classes=10)
STEPS, BATCH = 3, 4
DEVIATIONS = ("max_relative_deviation", "loss", "weights", "running_means")


def arguments(folder, *names: str) -> list[str]:
    """The command line for a few steps of a small net, with the result in folder/result.json."""
    dm.save_weights(folder / "small.safetensors", SPEC, dm.init_weights(SPEC))
    given = {
        "--backends": ",".join(names), "--weights": folder / "small.safetensors",
        "--steps": STEPS, "--batch-size": BATCH, "--image-size": 32,
        "--format": "json", "--output": folder / "result.json",
    }  # fmt: skip
    return ["lockstep", *(str(text) for pair in given.items() for text in pair)]


def in_a_process(*given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "densenet_multi", *given]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- With the real backends ---------------------------------------------------------------------


def check_result(folder, *names: str) -> dict[str, object]:
    done = in_a_process(*arguments(folder, *names))
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert list(result["backends"]) == list(result["float32"]) == list(names)
    assert result["steps"] == STEPS
    for report in result["backends"].values():
        assert report["status"] == "ok"
        assert None not in report["versions"].values()
        assert [len(losses) for losses in report["losses"].values()] == [STEPS, STEPS]
        assert all(seconds > 0 for seconds in report["seconds"].values())
    among = result["float64"]
    assert len(among["losses"]) == STEPS
    assert max(among["losses"]) == among["loss"] <= TOLERANCES["float64"]
    assert among["weights"] <= TOLERANCES["float64"]
    assert among["max_relative_deviation"] == max(among["loss"], among["weights"])
    # float32 holds the net's decay, 7/8, exactly
    assert among["running_means"] <= TOLERANCES["float64"]
    for run in result["float32"].values():
        assert 0 < run["first_step"] == run["losses"][0] <= TOLERANCES["float32 first step"]
        assert 0 < run["weights"] <= run["max_relative_deviation"]
    return result


@pytest.mark.long("keras", "flax")  # all four: test_all_backends_keep_step
def test_a_backend_alone_takes_the_steps_of_its_fit(backend, tmp_path):
    result = check_result(tmp_path, backend.NAME)
    assert [result["float64"][key] for key in DEVIATIONS] == [0, 0, 0, 0]
    images = load_data("sample", image_size=32).train
    count = STEPS * BATCH
    first = images.take(np.arange(count)), images.labels[:count]
    recipe = replace(dm.RECIPES["chapter"], epochs=1, batch_size=BATCH)
    for dtype, measured in result["backends"][backend.NAME]["losses"].items():
        history = backend.fit(backend.build(SPEC, dtype=dtype), first, recipe)
        losses = [step.loss for step in history.steps]
        np.testing.assert_allclose(measured, losses, rtol=1e-12 if dtype == "float64" else 1e-3)


@pytest.mark.together
def test_all_backends_keep_step(tmp_path):
    check_result(tmp_path, *AVAILABLE)
    # they differ only in the order of additions
    assert json.loads((tmp_path / "result.json").read_text())["float64"]["loss"] > 0


# --- What is measured and judged ----------------------------------------------------------------


def pair(**changes: float) -> dict[str, dict[str, Trajectory]]:
    """Runs of backends a and b: b's float64 run is changed; float32 weights are rounded ones."""
    weights = random_weights(SPEC)
    exact = Trajectory([2.0, 1.5, 1.25], weights)
    rounded = {name: array.astype(np.float32) for name, array in weights.items()}
    runs = {"float64": exact, "float32": Trajectory([2.0000002, 1.6, 1.5], rounded)}
    losses, other = list(exact.losses), dict(weights)
    for what, change in changes.items():
        if what.startswith("loss"):
            losses[int(what[-1])] *= 1 + change
        else:
            (name,) = (n for n in weights if n.endswith(what.replace("__", ".")))
            other[name] = other[name] * (1 + change)
    return {"a": runs, "b": {**runs, "float64": Trajectory(losses, other)}}


def code(found: dict[str, object], **reports: str) -> int:
    given = {name: {"status": reports.get(name, "ok")} for name in ("a", "b")}
    return lockstep_command.exit_code({"backends": given, **found}, ["a", "b"])


def test_equal_runs_do_not_deviate_and_float32_is_measured_against_its_own_float64_run():
    found = lockstep.merge(SPEC, pair())
    assert [found["float64"][key] for key in DEVIATIONS] == [0, 0, 0, 0]
    assert found["float64"]["losses"] == [0, 0, 0]
    for run in found["float32"].values():
        np.testing.assert_allclose(run["losses"], [1e-7, 1 / 15, 0.2], rtol=1e-6)
        np.testing.assert_allclose(run["first_step"], 1e-7, rtol=1e-6)
        assert run["max_relative_deviation"] == run["loss"] == max(run["losses"])
        assert 1e-9 < run["weights"] < 1e-7
    assert code(found) == 0  # later float32 steps are shown, not judged


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"loss0": 2e-9}, "loss"),
        ({"loss2": -2e-9}, "loss"),
        ({"classifier__weight": 1e-6}, "weights"),
        ({"features__norm5__bias": 1e-6}, "weights"),
        ({"features__norm5__running_mean": 1e-3}, "running_means"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else given,
)
def test_a_float64_run_that_leaves_the_others_is_noticed(changes, key):
    found = lockstep.merge(SPEC, pair(**changes))
    assert found["float64"][key] > (1e-6 if key == "running_means" else 1e-9)
    others = {"loss", "weights", "running_means"} - {key}
    assert [found["float64"][other] for other in others] == [0, 0]
    assert set(found["float64"]["between"]) == {"a", "b"}
    assert not found["float64"]["same"]
    assert code(found) == 1


def test_the_weights_deviation_is_in_l2_over_all_trainable_tensors():
    change = {"features__conv0__weight": 0.01, "features__norm0__running_var": 0.5}
    found = lockstep.merge(SPEC, pair(**change))["float64"]
    weights, described = random_weights(SPEC), dm.tensors(SPEC)
    trained = [w for n, w in weights.items() if described[n].role == "trainable"]
    expected = 0.01 * np.linalg.norm(weights["features.conv0.weight"])
    expected /= np.sqrt(sum(np.square(array).sum() for array in trained))
    np.testing.assert_allclose(found["weights"], expected, rtol=1e-9)


def test_the_largest_deviation_between_any_two_is_found():
    runs = pair(loss1=1e-6)
    third = pair(loss1=-1e-6)["b"]
    found = lockstep.merge(SPEC, {"b": runs["b"], "a": runs["a"], "c": third})["float64"]
    assert found["between"] == ["b", "c"]
    np.testing.assert_allclose(found["losses"], [0, 2e-6, 0], rtol=1e-5)


def test_a_first_float32_step_that_deviates_is_noticed():
    runs = pair()
    losses = [2.0001, 1.5, 1.25]
    runs["b"]["float32"] = replace(runs["b"]["float32"], losses=losses)
    found = lockstep.merge(SPEC, runs)
    assert [run["same"] for run in found["float32"].values()] == [True, False]
    assert code(found) == 1


def test_exit_codes_of_backends_that_did_not_run():
    runs = pair()
    found = lockstep.merge(SPEC, {"a": runs["a"]})
    assert code(found) == 0
    assert code(found, b="failed") == 1
    assert code(found, b="not installed") == 3
    assert found["float64"]["max_relative_deviation"] == 0
    assert lockstep.merge(SPEC, {})["float64"]["max_relative_deviation"] is None


# --- The command, with processes that only pretend to train -------------------------------------


class Pretended:
    """Replaces ``report_of``: backends only add a number to their weights.

    ``trains`` maps a backend to the number that it adds in float64, or to a complete report.
    """

    def __init__(self, **trains: object) -> None:
        self.trains, self.seen = trains, []

    def __call__(self, module, settings, receive=None):
        assert module == "densenet_multi.comparison.lockstep_child"
        if settings.get("suspect"):
            what = "bn_epsilon in stem: ..." if self.trains.get(settings["backend"]) else ""
            return {"status": "ok", "suspect": what}
        backend, folder = settings["backend"], Path(settings["folder"])
        spec, weights = dm.load_weights(folder / "weights.safetensors")
        self.seen.append(
            {
                "weights": weights,
                "images": np.load(folder / "images.npy"),
                "labels": np.load(folder / "labels.npy"),
                "recipe": dm.Recipe.from_json((folder / "recipe.json").read_text()),
            }
        )
        added = self.trains.get(backend, 0.0)
        if isinstance(added, dict):
            return {"versions": {}, **added}
        recipe, labels = self.seen[-1]["recipe"], self.seen[-1]["labels"]
        steps = len(labels) // recipe.batch_size
        for dtype in lockstep.DTYPES:
            moved = {n: a + (added if dtype == "float64" else 0) for n, a in weights.items()}
            moved = {n: array.astype(dtype) for n, array in moved.items()}
            dm.save_weights(folder / f"{backend}-{dtype}.safetensors", spec, moved)
            for step in range(steps):
                receive({"dtype": dtype, "step": step + 1})
        losses = [12.5 / (i + 1) for i in range(steps)]
        return {
            "status": "ok", "versions": {"it": "2.13.0+cpu"}, "framework": "PyTorch",
            "losses": dict.fromkeys(lockstep.DTYPES, losses),
            "seconds": dict.fromkeys(lockstep.DTYPES, 1.0),
        }  # fmt: skip


@pytest.fixture
def pretend(monkeypatch):
    def start(**trains: object) -> Pretended:
        pretended = Pretended(**trains)
        monkeypatch.setattr(lockstep, "report_of", pretended)
        return pretended

    return start


def invoke(*given: str):
    return CliRunner().invoke(main, ["lockstep", *given])


NAMES = dm.backend_names()
FAST = ("--steps", "2", "--batch-size", "4", "--image-size", "32")


def test_the_table_fits_80_columns_and_says_what_was_found(pretend):
    pretend()
    done = invoke(*FAST, "--steps", "12")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= NARROWEST
    assert "…" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["12"] + ["1.0417"] * len(NAMES) + ["0.0e+00"] in rows
    assert ["12"] + ["0.0e+00"] * len(NAMES) in rows
    runs = len(NAMES) + (len(NAMES) > 1)  # one backend has no row between backends
    assert done.stdout.count("same\n") == runs
    assert "12 steps of 4 images, sample, 32x32, chapter recipe" in " ".join(done.stdout.split())
    assert not done.stderr


@pytest.mark.skipif(len(NAMES) < 2, reason="needs two backends")
def test_a_wrong_weight_is_exit_code_1(pretend):
    pretend(**{NAMES[1]: 1e-3})
    done = invoke(*FAST)
    assert done.exit_code == 1
    (row,) = (line for line in done.stdout.splitlines() if "between backends" in line)
    assert "DIFFERS" in row
    assert done.stderr == f"{NAMES[1]}: suspect: bn_epsilon in stem: ...\n"


def test_a_backend_that_is_not_installed_is_exit_code_3(pretend):
    missing = {"status": "not installed", "error": "pip install it"}
    pretend(**dict.fromkeys(NAMES, missing))
    done = invoke(*FAST)
    assert done.exit_code == 3
    assert done.stderr.count("pip install it") == len(NAMES)
    pretend(**{NAMES[0]: missing})
    assert invoke(*FAST, "--backends", NAMES[0]).exit_code == 3
    assert invoke(*FAST).exit_code == (0 if len(NAMES) > 1 else 3)  # not requested by name


def test_a_backend_that_fails_is_a_row_and_exit_code_1(pretend):
    pretend(**{NAMES[0]: {"status": "failed", "error": "TrainingError: infinite"}})
    done = invoke(*FAST, "--format", "json")
    assert done.exit_code == 1
    assert f"{NAMES[0]}: TrainingError: infinite" in done.stderr
    result = json.loads(done.stdout)
    assert result["backends"][NAMES[0]]["status"] == "failed"
    assert NAMES[0] not in result["float32"]
    assert f"{NAMES[0]}: failed" in invoke(*FAST).stdout


def test_every_process_gets_the_same_float32_weights_and_examples(pretend, tmp_path):
    spec = small("bottleneck", num_classes=10)  # unlike the sample, 3 channels
    dm.save_weights(tmp_path / "w.safetensors", spec, random_weights(spec))
    pretended = pretend()
    given = ("--weights", str(tmp_path / "w.safetensors"), "--recipe", "paper", "--seed", "7")
    assert invoke("--steps", "300", *FAST[2:], *given).exit_code == 0
    assert len(pretended.seen) == len(NAMES)
    for seen in pretended.seen:
        assert {a.dtype.name for a in seen["weights"].values()} == {"float32"}
        for name, array in random_weights(spec).items():
            np.testing.assert_array_equal(seen["weights"][name], array.astype(np.float32))
        assert seen["images"].shape == (1000, 3, 32, 32)  # all that the sample has
        assert len(seen["labels"]) == 1200
        np.testing.assert_array_equal(seen["labels"][1000:], seen["labels"][:200])
        paper = dm.RECIPES["paper"]
        assert seen["recipe"] == replace(paper, epochs=1, batch_size=4, seed=7)
    repeated = lockstep_child.Repeated(seen["images"], seen["labels"])
    np.testing.assert_array_equal(repeated.take(np.array([1001])), seen["images"][1:2])
    assert len(repeated) == 1200


def test_images_are_as_the_weights_are_meant_to_be_used(pretend, tmp_path):
    pretended = pretend()
    usage = dm.Usage(image_size=40, mean=(1.0,), std=(0.5,))
    dm.save_weights(tmp_path / "w.safetensors", SPEC, dm.init_weights(SPEC), usage)
    assert invoke(*FAST[:4], "--weights", str(tmp_path / "w.safetensors")).exit_code == 0
    images = pretended.seen[0]["images"]
    assert images.shape == (8, 1, 40, 40)
    assert -2 == images.min() < images.max() <= 0


def test_a_recipe_in_bfloat16_is_trained_without(pretend):
    pretended = pretend()
    images = np.zeros((4, 1, 32, 32), np.float32)
    data, recipe = Arrays(images, np.zeros(4, int)), dm.Recipe(batch_size=4, bfloat16=True)
    lockstep.lockstep(SPEC, dm.init_weights(SPEC), data, recipe, backends=["a"], steps=1)
    assert not pretended.seen[0]["recipe"].bfloat16


def test_the_bar_is_told_of_every_step(pretend):
    pretend()
    told = []
    data = Arrays(np.zeros((4, 1, 32, 32), np.float32), np.zeros(4, int))
    names, recipe = ["a", "b"], dm.Recipe(batch_size=4)
    lockstep.lockstep(
        SPEC, dm.init_weights(SPEC), data, recipe, backends=names, steps=3, step=told.append
    )
    assert len(told) == lockstep.progress_steps(names, 3) == 14
    assert told[:2] == ["backend a", "backend a, float64, step 1"]
    assert told[-1] == "backend b, float32, step 3"


@pytest.mark.parametrize(
    ("given", "exit_code", "message"),
    [
        (["--backends", "jax"], 2, "backend 'jax' does not exist"),
        (["--steps", "0"], 2, "of at least 1, found 0"),
        (["--batch-size", "1"], 2, "of at least 2, found 1"),
        (["--image-size", "28"], 2, "the smallest is 29"),
        (["--recipe", "paprika"], 2, "did you mean 'paper'"),
        (["--data", "samples"], 2, "did you mean 'sample'"),
        (["--data", "folder:no/such/folder"], 4, "no/such/folder"),
        (["--data-dir", "."], 2, "only for 'fashion-mnist'"),
        (["--variant", "d2"], 2, "did you mean 'd2l'"),
        (["--weights", "nowhere.safetensors"], 2, "nowhere.safetensors"),
        (["--weights", __file__], 1, "expected a safetensors file"),
        (["--weights", __file__, "--variant", "d2l"], 2, "--weights determines"),
        (
            ["--output", "no-such-folder/x"],
            2,
            "expected an existing parent folder, found none: no-such-folder",
        ),
    ],
)
def test_wrong_input_is_one_message_and_trains_nothing(pretend, given, exit_code, message):
    pretended = pretend()
    done = invoke(*FAST, *given)
    assert message in done.stderr
    assert done.exit_code == exit_code
    assert not done.stdout
    assert not pretended.seen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, "labels: expected values from 0 to 3, found 0 to 9"),
        ({"num_classes": 0}, "no classifier"),
        ({"num_classes": 10, "drop_rate": 0.2}, "each framework draws its own dropout"),
    ],
    ids=["classes", "no classifier", "dropout"],
)
def test_a_network_that_cannot_keep_step_is_refused(pretend, tmp_path, changes, message):
    pretended = pretend()
    spec = small("bottleneck", **changes)
    dm.save_weights(tmp_path / "w.safetensors", spec, dm.init_weights(spec))
    done = invoke(*FAST, "--weights", str(tmp_path / "w.safetensors"))
    assert message in done.stderr
    assert done.exit_code == 2
    assert not pretended.seen


def test_every_backend_trains_on_the_cpu(monkeypatch):
    hiding = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    for name in hiding:
        monkeypatch.setenv(name, "0")

    def load_backend(_):
        raise dm.BackendError({n: os.environ[n] for n in hiding} == hiding)

    monkeypatch.setattr(lockstep_child, "load_backend", load_backend)
    with pytest.raises(dm.BackendError, match="True"):
        lockstep_child.measure({"backend": "it", "folder": "anywhere"})
