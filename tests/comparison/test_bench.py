"""``densenet-multi bench``: cases take turns, and what they report is about the same work."""

import io
import json
import os
import time
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import _figures as figures
from densenet_multi.commands import main
from densenet_multi.comparison import bench, bench_case
from densenet_multi.comparison import process as _process
from densenet_multi.data import Pixels, Preparation, load_sample
from densenet_multi.training.history import Step

FEW = {"image_size": 32, "batch_size": 4, "rounds": 2, "steps": 2, "device": "cpu"}


def report(**ratios):
    speeds = {"images_per_second": 10.0, "lowest": 9.0, "highest": 12.0, "rounds": [9.0, 12.0]}
    case = {**speeds, "first_step_seconds": 1.5, "peak_memory_bytes": 2**30, "grown_bytes": 2**28}
    others = {name: {**case, "ratio": ratio, "memory_ratio": 0.5} for name, ratio in ratios.items()}
    return {"status": "ok", "versions": {}, "cases": {"fit": case, **others}}


def result(**reports):
    return {
        **FEW,
        "work": "training",
        "variant": "d2l",
        "depth": None,
        "cpus": [0],
        "backends": reports,
    }


# --- Without a framework ------------------------------------------------------------------------


def test_a_round_is_images_over_seconds():
    warmup = {"seconds": [3.0, 1.0], "peak_memory_bytes": 5}
    rounds = [
        {"seconds": s, "peak_memory_bytes": 7, "grown_bytes": 6} for s in ([1, 3], [1, 1], [2, 6])
    ]
    found = bench.summary_of(warmup, rounds, 10)
    assert found["rounds"] == [5, 10, 2.5]
    assert (found["images_per_second"], found["lowest"], found["highest"]) == (5, 2.5, 10)
    assert (found["first_step_seconds"], found["peak_memory_bytes"]) == (3, 7)
    assert found["grown_bytes"] == 6


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
        if case.case not in grown:
            return {"absent": "no such thing"}
        return {"seconds": [next(seconds)], "peak_memory_bytes": 1, "grown_bytes": grown[case.case]}

    grown = {"fit": 30, "chapter": 40}
    monkeypatch.setattr(bench, "_started", Case)
    monkeypatch.setattr(bench, "_answer", answer)
    said = []
    settings = {"backend": "any", "work": "training", "rounds": 3, "batch_size": 60}
    found = bench._turns(settings, said.append)
    assert turns == [
        *bench_case.CASES["training"],
        *("chapter go", "fit go", "fit go", "chapter go"),
        *(
            "chapter go",
            "fit go",
            *(f"end {case}" for case in reversed(bench_case.CASES["training"])),
        ),
    ]
    assert len(said) == 14 < bench.parts(["any"], "training", 3) == 32
    assert found["cases"].keys() == {"fit", "chapter"}  # the others were absent
    # rounds of fit took 4, 5, 8 seconds, those of the chapter's code 3, 6, 7
    assert found["cases"]["chapter"]["ratio"] == pytest.approx(7 / 8)
    assert "ratio" not in found["cases"]["fit"]
    assert "memory_ratio" not in found["cases"]["chapter"]


@pytest.mark.parametrize("with_torch", [True, False])
def test_rows_say_what_share_of_the_products_in_their_precision_they_reach(monkeypatch, with_torch):
    seconds = {"fit": 6, "bfloat16": 4, "feeding": 1, "products": 3}
    if with_torch:
        seconds["bfloat16 products"] = 1

    def answer(case, _, **__):
        if case not in seconds:
            return {"absent": "no such thing"}
        return {"seconds": [seconds[case]], "peak_memory_bytes": 1, "grown_bytes": 1}

    monkeypatch.setattr(bench, "_started", lambda settings: nullcontext((settings["case"], None)))
    monkeypatch.setattr(bench, "_answer", answer)
    settings = {"backend": "any", "work": "training", "rounds": 2, "batch_size": 60}
    cases = bench._turns(settings, lambda _: None)["cases"]
    shares = {name: case["share"] for name, case in cases.items() if "share" in case}
    assert shares == {"fit": 1 / 2, **({"bfloat16": 1 / 4} if with_torch else {})}


def test_memory_has_a_ratio_of_its_own(monkeypatch):
    grown = {"efficient": 30, "max": 20, "plain": 40}
    monkeypatch.setattr(bench, "_started", lambda settings: nullcontext((settings["case"], None)))

    def answer(case, _, *, go=False):
        return {"seconds": [1 + go], "peak_memory_bytes": 1, "grown_bytes": grown[case]}

    monkeypatch.setattr(bench, "_answer", answer)
    settings = {"backend": "any", "work": "memory", "rounds": 2, "batch_size": 60}
    found = bench._turns(settings, lambda _: None)
    assert found["cases"]["plain"]["memory_ratio"] == pytest.approx(3 / 4)
    assert found["cases"]["max"]["memory_ratio"] == pytest.approx(3 / 2)
    assert "memory_ratio" not in found["cases"]["efficient"]


def test_a_process_that_ends_too_early_is_a_row_with_its_last_words():
    settings = {**FEW, "work": "training", "variant": "d2l", "depth": None, "warmup": 1}
    settings |= {"backend": "nothing", "cpus": sorted(os.sched_getaffinity(0))}
    found = bench._turns(settings, lambda _: None)
    assert found["status"] == "failed"
    narrow = {"bfloat16"} if bench_case.multiplies_bfloat16() else set()  # elsewhere it is absent
    assert found["failed"].keys() == {"fit", "chapter", "model", "framework", *narrow}
    assert found["error"].startswith("fit, ")
    assert (
        ": its process ended with exit code 1: densenet_multi._checks.ConfigError" in found["error"]
    )
    assert "backend 'nothing' does not exist" in found["error"]
    assert found["cases"].keys() >= {"feeding", "products"}  # they need no backend
    assert not any("ratio" in case for case in found["cases"].values())


@pytest.mark.parametrize("round_", [0, 2])
def test_a_case_that_is_killed_leaves_the_others_as_they_are(monkeypatch, round_):
    answers = dict.fromkeys(bench_case.CASES["memory"], 0)

    def answer(case, _, *, go=False):
        answers[case] += 1
        if case == "plain" and answers[case] > round_:
            raise bench.CaseError("its process ended with signal SIGKILL")
        return {"seconds": [1 + go], "peak_memory_bytes": 1, "grown_bytes": 2}

    monkeypatch.setattr(bench, "_started", lambda settings: nullcontext((settings["case"], None)))
    monkeypatch.setattr(bench, "_answer", answer)
    settings = {"backend": "any", "work": "memory", "rounds": 3, "batch_size": 60}
    found = bench._turns(settings, lambda _: None)
    assert found["status"] == "failed"
    assert found["failed"] == {"plain": "its process ended with signal SIGKILL"}
    assert found["error"] == "plain: its process ended with signal SIGKILL"
    assert list(found["cases"]) == ["efficient", "max"]
    assert len(found["cases"]["max"]["rounds"]) == 3
    assert found["cases"]["max"]["memory_ratio"] == 1

    monkeypatch.setattr(bench, "bench", lambda **_: result(any=found) | {"work": "memory"})
    done = CliRunner().invoke(main, ["bench", "--work", "memory"])
    assert done.exit_code == 1
    assert ["plain", "failed"] in [line.split() for line in done.stdout.splitlines()]
    assert "plain: its process ended with signal SIGKILL" in done.stderr


def test_what_a_killed_process_said_last_is_not_why_it_ended(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import os, sys\nprint('no driver', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bench, "started", lambda _, *a, **k: _process.started("own", *a, **k))
    settings = {"work": "training", "cpus": [0], "device": "cpu"}
    with (
        bench._started(settings) as process,
        pytest.raises(bench.CaseError, match=r"^its process ended with signal SIGKILL$"),
    ):
        bench._answer(*process)


def test_on_a_gpu_memory_is_what_the_framework_holds_there(monkeypatch, capsys):
    peaks = iter([100, 700, 400])
    peer = SimpleNamespace(peak_gpu_memory=lambda: next(peaks), forget_peak_gpu_memory=Mock())
    monkeypatch.setattr(bench_case, "_beside", lambda *_: peer)
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n"))
    rounds = bench_case._rounds("backend", {"device": "gpu", "steps": 1, "warmup": 1})
    rounds()
    with pytest.raises(bench_case.FinishedError):
        rounds()
    found = [
        json.loads(x.removeprefix(bench_case.MARK)) for x in capsys.readouterr().out.split("\n")[:2]
    ]
    assert [each["grown_bytes"] for each in found] == [600, 300]
    assert peer.forget_peak_gpu_memory.call_count == 2  # before the first step, and after it


@pytest.mark.parametrize("sees", [False, True])
def test_products_on_a_gpu_are_those_of_a_pytorch_that_sees_it(monkeypatch, capsys, sees):
    beside = SimpleNamespace(
        products=lambda *_: (np.ones, np.matmul, lambda: None) if sees else None
    )
    monkeypatch.setattr(bench_case, "load_backend", lambda _: None)
    monkeypatch.setattr(bench_case, "_beside", lambda *_: beside)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    settings = {**FEW, "work": "training", "case": "products", "variant": "d2l", "depth": None}
    settings |= {"backend": "any", "warmup": 1, "cpus": sorted(os.sched_getaffinity(0))}
    bench_case.run({**settings, "device": "gpu"})
    (answer,) = map(json.loads, capsys.readouterr().out.replace(bench_case.MARK, "").splitlines())
    assert ("seconds" in answer, answer.get("absent")) == (
        sees,
        None if sees else "PyTorch sees no GPU",
    )


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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no such file here")
def test_memory_is_that_of_later_steps_over_what_was_there_before(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n"))
    np.ones(200 << 20, np.uint8)  # while the network is built
    rounds = bench_case.Rounds(steps=1, warmup=1)
    for size in (150, 50):
        np.ones(size << 20, np.uint8)
        with suppress(bench_case.FinishedError):
            rounds()
    lines = capsys.readouterr().out.splitlines()
    first, later = (json.loads(line.removeprefix(bench_case.MARK)) for line in lines)
    assert (140 << 20) < first["grown_bytes"] < (190 << 20)
    assert (40 << 20) < later["grown_bytes"] < (90 << 20)


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
    with bench._started({"work": "training", "cpus": [0, 1, 2], "device": "cpu"}) as (process, _):
        assert process.stdout.read() == "3\n"


def test_memory_is_counted_where_what_is_freed_is_given_back(monkeypatch):
    found = {}
    monkeypatch.setattr(bench, "started", lambda *_, **given: found.update(given))
    bench._started({"work": "memory", "cpus": [0], "device": "cpu"})
    assert found["environment"].items() > bench.EXACT.items()
    for work, device in [("training", "cpu"), ("memory", "gpu")]:
        bench._started({"work": work, "cpus": [0], "device": device})
        assert not found["environment"].keys() & bench.EXACT.keys()
    assert found["environment"].items() > bench.SHARED.items()


@pytest.mark.parametrize(
    ("case", "efficient"), [("efficient", True), ("max", "max"), ("plain", False)]
)
def test_memory_compares_three_ways_to_train_one_network(monkeypatch, case, efficient):
    built = []

    class Backend:
        @staticmethod
        def build(spec, *, memory_efficient):
            built.append((dm.count_parameters(spec), memory_efficient))
            return "model"

        @staticmethod
        def fit(model, data, recipe, callbacks):
            assert (model, len(data), recipe.batch_size) == ("model", 12, 2)
            assert data.take(np.arange(2)).shape == (2, 3, 32, 32)
            (rounds,) = callbacks
            rounds()
            assert calculated.call_count == 1  # the first step has its own time
            with pytest.raises(bench_case.FinishedError):
                rounds()
            assert calculated.call_count == 2  # before the clock stops

    calculated = Mock()
    beside = SimpleNamespace(calculated=calculated)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(bench_case, "_beside", lambda *_: beside)
    monkeypatch.setattr(bench_case, "load_backend", lambda _: Backend)
    settings = {**FEW, "work": "memory", "case": case, "backend": "any", "variant": None}
    bench_case._train({**settings, "depth": 40, "warmup": 2, "batch_size": 2})
    expected = dm.cifar_config(40, 12, bottleneck=True).resolve()
    assert built == [(dm.count_parameters(expected), efficient)]


def test_gluons_plain_network_is_hybridized_without_static_allocation(monkeypatch):
    class Model:
        def hybridize(self, *active, **given):
            hybridized.append((active, given))

    def fit(model, *_, **__):
        model.hybridize(static_alloc=True)

    hybridized = []
    backend = SimpleNamespace(build=lambda *_, **__: Model(), fit=fit)
    monkeypatch.setattr(bench_case, "_beside", lambda *_: None)
    monkeypatch.setattr(bench_case, "load_backend", lambda _: backend)
    settings = {**FEW, "work": "memory", "case": "plain", "backend": "gluon", "variant": None}
    bench_case._train({**settings, "depth": 40, "warmup": 1, "batch_size": 2})
    assert hybridized == [((True,), {})]


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(1, [[True], [False, True]]), (3, [[True, False, True], [False, True]])],
)
def test_the_clock_stops_when_what_was_asked_for_is_calculated(
    monkeypatch, capsys, warmup, expected
):
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n"))
    rounds = bench_case.Rounds(steps=2, warmup=warmup, calculated=lambda: time.sleep(0.1))
    for _ in range(warmup + 1):
        rounds()
    with pytest.raises(bench_case.FinishedError):
        rounds()
    lines = capsys.readouterr().out.splitlines()
    taken = [json.loads(line.removeprefix(bench_case.MARK))["seconds"] for line in lines]
    assert [[one >= 0.1 for one in seconds] for seconds in taken] == expected


def test_the_table_begins_with_ratios_and_the_picture_is_whole_xml(monkeypatch, tmp_path):
    given = result(
        torch=report(chapter=1.25),
        keras=report(),
        gluon={"status": "not installed", "error": "pip"},
    )
    monkeypatch.setattr(bench, "bench", lambda **_: given)
    done = CliRunner().invoke(main, ["bench", "--output", str(tmp_path / "bench.svg")])
    assert done.exit_code == 0, done.stderr
    words = done.stdout.split()
    assert words.index("chapter", words.index("fit")) < words.index("1.25")
    assert "not installed" in done.stdout
    root = ET.fromstring((tmp_path / "bench.svg").read_bytes())  # noqa: S314  # our own
    assert root.tag.endswith("svg")
    refused = CliRunner().invoke(main, ["bench", "--output", str(tmp_path / "bench.png")])
    assert (refused.exit_code, ".svg" in refused.stderr) == (2, True)


def test_powers_are_drawn_with_their_names_and_places():
    lines = {"plain": ([40.0, 100.0], [1.0, 6.0]), "efficient": ([40.0, 100.0], [1.0, 2.5])}
    drawn = figures.powers(lines, "depth (L)", "memory (MiB)")
    texts = {element.text for element in ET.fromstring(drawn).iter() if element.text}  # noqa: S314
    assert texts >= {"plain", "efficient", "40", "100", "depth (L)", "memory (MiB)"}
    assert drawn == figures.powers(lines, "depth (L)", "memory (MiB)")


def test_a_backend_without_its_framework_is_not_installed(monkeypatch):
    def missing(*_):
        raise bench.CaseError("ended with 1: x.BackendNotInstalledError: type pip install this")

    monkeypatch.setattr(bench, "_answer", missing)
    monkeypatch.setattr(bench, "_started", lambda _: nullcontext((None, None)))
    found = bench._turns({"backend": "torch", "work": "training"}, lambda _: None)
    assert found == {"status": "not installed", "error": "type pip install this"}


@pytest.mark.parametrize(
    ("work", "case"),
    [
        *(("inference", case) for case in ("optimized", "model", "framework")),
        *(("training", case) for case in ("fit", "chapter", "model", "framework")),
        *(("memory", case) for case in ("efficient", "plain")),
    ],
)
def test_what_is_measured_is_put_on_the_device(monkeypatch, work, case):
    placed = []

    def use_gpu(net):
        placed.append(net)
        raise dm.backends.BackendError("far enough")

    backend = SimpleNamespace(
        build=lambda *_, **__: "ours", use_gpu=use_gpu, FRAMEWORK="any", __name__="any"
    )
    beside = SimpleNamespace(peer_net=lambda *_: "other's", chapter_net=lambda: "other's")
    monkeypatch.setattr(bench_case, "load_backend", lambda _: backend)
    monkeypatch.setattr(bench_case, "_beside", lambda *_: beside)
    monkeypatch.setattr(bench_case, "hide_gpus", hidden := Mock())
    settings = {**FEW, "work": work, "case": case, "backend": "any", "variant": "d2l", "warmup": 1}
    settings |= {"depth": None, "cpus": sorted(os.sched_getaffinity(0)), "device": "gpu"}
    with pytest.raises(dm.backends.BackendError, match="far enough"):
        bench_case.run(settings)
    assert placed == ["other's" if case in ("chapter", "framework") else "ours"]
    assert not hidden.called


@pytest.mark.parametrize("machine", [False, True])
def test_bfloat16_is_a_case_where_machine_and_backend_have_it(monkeypatch, capsys, machine):
    class Backend:
        __name__ = FRAMEWORK = "any"

        @staticmethod
        def build(_):
            return "model"

        @staticmethod
        def optimize(_, *, bfloat16):
            raise dm.ConfigError(f"bfloat16: expected False, found {bfloat16}")

    monkeypatch.setattr(bench_case, "load_backend", lambda _: Backend)
    monkeypatch.setattr(bench_case, "multiplies_bfloat16", lambda: machine)
    monkeypatch.setattr(bench_case, "hide_gpus", lambda: None)  # it would, in this process
    settings = {**FEW, "case": "bfloat16", "backend": "any", "variant": "d2l", "warmup": 1}
    bench_case.run({**settings, "work": "inference", "cpus": sorted(os.sched_getaffinity(0))})
    answer = json.loads(capsys.readouterr().out.removeprefix(bench_case.MARK))
    assert ("expected False, found True" in answer["absent"]) == machine


def test_a_processor_says_whether_it_has_bfloat16(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    for text, expected in [
        ("flags\t: fpu avx512_bf16\nbugs\t: bf16\n", True),
        ("Features\t: asimd bf16\n", True),
        ("flags\t: fpu avx2\nbugs\t: bf16\n", False),
    ]:
        cpuinfo.write_text(text)
        assert bench_case.multiplies_bfloat16(cpuinfo) == expected
    assert not bench_case.multiplies_bfloat16(tmp_path / "none")


def test_the_products_multiply_as_often_as_the_network():
    spec = dm.get_spec("densenet121", num_classes=0)
    found = list(bench_case.products(spec, 64, 2))
    assert found[0] == (2 * 32 * 32, 7 * 7 * 3, 64)
    convolutions = [name for name, info in dm.tensors(spec).items() if info.kind == "conv.weight"]
    assert len(found) == len(convolutions) == 120
    # after pooling, a transition has a quarter of the work that the profile counts
    work = {stage.name: stage.multiply_adds for stage in dm.profile(spec, 64, 64)}
    saved = sum(3 * count // 4 for name, count in work.items() if name.startswith("transition"))
    assert sum(m * k * n for m, k, n in found) == 2 * (sum(work.values()) - saved)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"work": "play"}, "work 'play' does not exist"),
        ({"device": "tpu"}, "device 'tpu' does not exist"),
        ({"depth": 40}, "depth: expected none for training; it goes with work 'memory'"),
        ({"work": "memory", "depth": 0}, "depth: expected an integer of at least 10"),
        ({"work": "memory", "depth": 40, "variant": "d2l"}, "depth: expected none beside variant"),
        (
            {"work": "memory", "depth": 41},
            "depth: expected 4 plus a multiple of 6",
        ),
        ({"batch_size": 1}, "batch_size: expected an integer of at least 2"),
        ({"work": "inference", "image_size": 8}, "image_size: expected an integer of at least 29"),
    ],
)
def test_wrong_settings_are_refused_by_name(given, message):
    with pytest.raises(dm.ConfigError, match=message):
        bench.bench(backends=[], **given)


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
        chapter.train(chapter.chapter_net(), repeat(batch), 0.1, hear)


@pytest.mark.parametrize("work", bench_case.CASES)
def test_bench_measures_each_case(backend, work):
    arguments = ["bench", "--backends", backend.NAME, "--image-size", "32", "--batch-size", "4"]
    arguments += ["--rounds", "2", "--steps", "1", "--threads", "1", "--format", "json"]
    arguments += [
        "--work",
        work,
        *(["--depth", "10"] if work == "memory" else ["--variant", "d2l"]),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (len(found["cpus"]), found["device"]) == (1, "cpu")
    measured = found["backends"][backend.NAME]
    assert measured["status"] == "ok"
    absent = {"framework"}  # has no d2l
    bfloat16 = bench_case.multiplies_bfloat16()
    if backend.NAME == "gluon" or not bfloat16:
        absent.add("bfloat16")
    if not bfloat16 or not find_spec("torch"):
        absent.add("bfloat16 products")
    first, *others = (name for name in bench_case.CASES[work] if name not in absent)
    cases = measured["cases"]
    assert list(cases) == [first, *others]
    for name in others:
        pairs = zip(cases[first]["rounds"], cases[name]["rounds"], strict=True)
        expected = np.median([ours / theirs for ours, theirs in pairs])
        assert cases[name]["ratio"] == pytest.approx(expected)
    limited = set() if work == "memory" else {*cases} - {"feeding", *bench_case.PRODUCTS}
    if "bfloat16 products" in absent:
        limited.discard("bfloat16")
    assert {name for name, case in cases.items() if "share" in case} == limited
    for case in cases.values():
        assert case["first_step_seconds"] > 0
        assert case["lowest"] <= case["images_per_second"]


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(backend):
    arguments = ["bench", "--backends", backend.NAME, "--image-size", "32", "--batch-size", "4"]
    done = CliRunner().invoke(main, [*arguments, "--device", "gpu", "--rounds", "1"])
    assert done.exit_code == 1
    assert f"--device: expected a GPU that {backend.FRAMEWORK} sees, found none" in done.stderr


def test_the_frameworks_own_network_answers_as_ours_does(backend):
    peer = import_module(f"{backend.__name__}.peer")
    net = peer.peer_net("densenet121", 224)
    if net is None:
        assert backend.NAME == "torch"  # torchvision is not installed here
        return
    x = np.random.default_rng(0).random((2, 3, 224, 224), np.float32)
    model = backend.build(dm.get_spec("densenet121"))
    assert peer.logits(net, x).shape == backend.predict(model, x).shape == (2, 1000)
    assert peer.peer_net("d2l", 224) is None
