"""``densenet-multi bench``: cases take turns, and what they report is about the same work."""

import json
import os
from contextlib import nullcontext
from importlib import import_module
from itertools import repeat
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import _process, bench, bench_case, cli
from densenet_multi.data import Pixels, Preparation, load_sample
from densenet_multi.history import Step

FEW = {"image_size": 32, "batch_size": 4, "rounds": 2, "steps": 2}


def report(ratio=2.0):
    speeds = {"images_per_second": 10.0, "lowest": 9.0, "highest": 12.0, "rounds": [9.0, 12.0]}
    case = {**speeds, "first_step_seconds": 1.5, "peak_memory_bytes": 2**30}
    return {"status": "ok", "versions": {}, "ratio": ratio, "fit": case, "chapter": case}


def result(**reports):
    return {**FEW, "cpus": [0], "backends": reports}


# --- Without a framework ------------------------------------------------------------------------


def test_a_round_is_images_over_seconds():
    warmup = {"seconds": [3.0, 1.0], "peak_memory_bytes": 5}
    rounds = [{"seconds": s, "peak_memory_bytes": 7} for s in ([1, 3], [1, 1], [2, 6])]
    found = bench.summary_of(warmup, rounds, 10)
    assert found["rounds"] == [5, 10, 2.5]
    assert (found["images_per_second"], found["lowest"], found["highest"]) == (5, 2.5, 10)
    assert (found["first_step_seconds"], found["peak_memory_bytes"]) == (3, 7)


def test_cases_take_turns_and_each_is_first_as_often(monkeypatch):
    seconds = iter(range(1, 100))
    turns = []

    class Case:
        def __init__(self, settings):
            self.case = settings["case"]

        def __enter__(self):
            return (self, None)

        def __exit__(self, *_):
            turns.append(f"end {self.case}")

    def answer(case, _, *, go=False):
        turns.append(f"{case.case}{' go' if go else ''}")
        return {"seconds": [next(seconds)], "peak_memory_bytes": 1}

    monkeypatch.setattr(bench, "_started", Case)
    monkeypatch.setattr(bench, "_answer", answer)
    said = []
    found = bench._turns({"backend": "any", "rounds": 3, "batch_size": 60}, said.append)
    assert turns == [
        *("fit", "chapter", "chapter go", "fit go", "fit go", "chapter go", "chapter go", "fit go"),
        *("end chapter", "end fit"),
    ]
    assert len(said) == bench.parts(["any"], 3) == 8
    # rounds of fit took 4, 5, 8 seconds, those of the chapter's code 3, 6, 7
    assert found["ratio"] == pytest.approx(7 / 8)


def test_a_process_that_ends_too_early_is_a_row_with_its_last_words():
    settings = {**FEW, "warmup": 1, "cpus": sorted(os.sched_getaffinity(0)), "backend": "nothing"}
    found = bench._turns(settings, lambda _: None)
    assert found["status"] == "failed"
    assert found["error"].startswith("its process ended with 1: densenet_multi._checks.ConfigError")
    assert "backend 'nothing' does not exist" in found["error"]


def test_a_case_reports_after_each_round_and_ends_when_nobody_asks(monkeypatch, capsys):
    class Lines:
        def __init__(self, *lines):
            self.readline = iter(lines).__next__

    monkeypatch.setattr("sys.stdin", Lines("go\n", ""))
    rounds = bench_case.Rounds(steps=2, warmup=1)
    step = Step(1, 1, 0.0, 0.0, 0.1)
    rounds(step)
    rounds("an epoch is no step")
    rounds(step)
    with pytest.raises(bench_case.FinishedError):
        rounds()
    lines = capsys.readouterr().out.splitlines()
    counts = [len(json.loads(line.removeprefix(bench_case.MARK))["seconds"]) for line in lines]
    assert counts == [1, 2]


def test_threads_are_cpus_that_this_process_may_use():
    usable = sorted(os.sched_getaffinity(0))
    assert bench._cpus(None) == usable
    assert bench._cpus(1) == usable[:1]
    with pytest.raises(dm.ConfigError, match="threads: expected an integer of at least 1"):
        bench._cpus(0)


def test_the_threads_of_a_case_are_those_that_are_reported(monkeypatch, tmp_path):
    (tmp_path / "own.py").write_text("import os\nprint(os.environ['OMP_NUM_THREADS'])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's, for other programs
    monkeypatch.setattr(bench, "started", lambda _, *a, **k: _process.started("own", *a, **k))
    with bench._started({"cpus": [0, 1, 2]}) as (process, _):
        assert process.stdout.read() == "3\n"


def test_the_table_begins_with_ratios_and_the_picture_is_whole_xml(monkeypatch, tmp_path):
    given = result(torch=report(1.25), gluon={"status": "not installed", "error": "pip"})
    monkeypatch.setattr(bench, "bench", lambda **_: given)
    done = CliRunner().invoke(cli.main, ["bench", "--output", str(tmp_path / "bench.svg")])
    assert done.exit_code == 0, done.stderr
    words = done.stdout.split()
    assert words.index("1.25") < words.index("(9-12)")
    assert "not installed" in done.stdout
    root = ET.fromstring((tmp_path / "bench.svg").read_bytes())  # noqa: S314  # our own
    assert root.tag.endswith("svg")
    refused = CliRunner().invoke(cli.main, ["bench", "--output", str(tmp_path / "bench.png")])
    assert (refused.exit_code, ".svg" in refused.stderr) == (2, True)


def test_a_backend_without_its_framework_is_not_installed(monkeypatch):
    def missing(*_):
        raise bench.CaseError("ended with 1: x.BackendNotInstalledError: type pip install this")

    monkeypatch.setattr(bench, "_answer", missing)
    monkeypatch.setattr(bench, "_started", lambda _: nullcontext((None, None)))
    found = bench._turns({"backend": "torch"}, lambda _: None)
    assert found == {"status": "not installed", "error": "type pip install this"}


# --- With one -----------------------------------------------------------------------------------


def test_the_chapters_code_trains_until_it_is_stopped(backend):
    chapter = import_module(f"{backend.__name__}.chapter")
    pixels, labels = load_sample("train")
    data = Pixels(pixels[:32, np.newaxis], labels[:32], Preparation(32, 1))
    batch = data.take(np.arange(32)), labels[:32].astype(np.int64)
    rounds = iter([1, 2])

    def hear(*_):
        if next(rounds, None) is None:
            raise bench_case.FinishedError

    with pytest.raises(bench_case.FinishedError):
        chapter.train_chapter(repeat(batch), 0.1, hear)


def test_bench_measures_fit_and_the_chapters_code(backend):
    arguments = ["bench", "--backends", backend.NAME, "--image-size", "32", "--batch-size", "4"]
    arguments += ["--rounds", "2", "--steps", "1", "--threads", "1", "--format", "json"]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["cpus"]) == 1
    measured = found["backends"][backend.NAME]
    pairs = zip(measured["fit"]["rounds"], measured["chapter"]["rounds"], strict=True)
    assert measured["ratio"] == pytest.approx(np.median([ours / theirs for ours, theirs in pairs]))
    for case in bench.CASES:
        assert measured[case]["first_step_seconds"] > 0
        assert measured[case]["lowest"] <= measured[case]["images_per_second"]
