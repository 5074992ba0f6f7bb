"""``densenet-multi bench``: cases take turns, and their reports are about the same work."""

import io
import json
import os
import sys
import time
from contextlib import nullcontext, redirect_stdout
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from subprocess import run
from types import SimpleNamespace
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import _figures as figures
from densenet_multi.commands import main
from densenet_multi.comparison import bench, bench_child, machine, rivals
from densenet_multi.comparison.child_process import MARK, FinishedError, run_child, started
from densenet_multi.comparison.matrix_products import matrix_products
from densenet_multi.comparison.rounds import Rounds
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


def message(seconds, grown=1):
    return {"seconds": [seconds], "peak_memory_bytes": 1, "grown_bytes": grown}


ABSENT = {"status": "ok", "absent": "no such thing"}


def pretend(monkeypatch, messages):
    """Replace children by ones that only send ``messages(case, 0)``, ``messages(case, 1)``, …"""

    def started(settings):
        received = map(partial(messages, settings["case"]), count())
        return nullcontext(SimpleNamespace(receive=received.__next__, proceed=lambda: None))

    monkeypatch.setattr(bench, "_started", started)


def said(capsys):
    """The messages that this process has sent, as if it were a child."""
    return [json.loads(line.removeprefix(MARK)) for line in capsys.readouterr().out.splitlines()]


def measured(settings, monkeypatch, capsys):
    """The messages of a child with these settings."""
    monkeypatch.setattr("sys.argv", ["bench_child", json.dumps(settings)])
    run_child(bench_child.measure)
    return said(capsys)


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
            return self

        def __exit__(self, *_):
            turns.append(f"end {self.case}")

        def proceed(self):
            turns.append(f"{self.case} go")

        def receive(self):
            turns.append(self.case)
            if self.case not in grown:
                return ABSENT
            return message(next(seconds), grown[self.case])

    grown = {"fit": 30, "beginner": 40}
    monkeypatch.setattr(bench, "_started", Case)
    said = []
    settings = {"backend": "any", "work": "training", "rounds": 3, "batch_size": 60}
    found = bench._turns(settings, said.append)
    assert turns == [
        *bench_child.CASES["training"],
        *("beginner go", "beginner", "fit go", "fit"),
        *("fit go", "fit", "beginner go", "beginner"),
        *("beginner go", "beginner", "fit go", "fit"),
        *(f"end {case}" for case in reversed(bench_child.CASES["training"])),
    ]
    assert len(said) == 14 < bench.progress_steps(["any"], "training", 3) == 32
    assert found["cases"].keys() == {"fit", "beginner"}  # the others were absent
    # rounds of fit took 4, 5, 8 seconds, those of the beginner's code 3, 6, 7
    assert found["cases"]["beginner"]["ratio"] == pytest.approx(7 / 8)
    assert "ratio" not in found["cases"]["fit"]
    assert "memory_ratio" not in found["cases"]["beginner"]


@pytest.mark.parametrize("with_torch", [True, False])
def test_rows_say_what_share_of_the_products_in_their_precision_they_reach(monkeypatch, with_torch):
    seconds = {"fit": 6, "bfloat16": 4, "feeding": 1, "products": 3}
    if with_torch:
        seconds["bfloat16 products"] = 1

    pretend(monkeypatch, lambda case, _: message(seconds[case]) if case in seconds else ABSENT)
    settings = {"backend": "any", "work": "training", "rounds": 2, "batch_size": 60}
    cases = bench._turns(settings, lambda _: None)["cases"]
    shares = {name: case["share"] for name, case in cases.items() if "share" in case}
    assert shares == {"fit": 1 / 2, **({"bfloat16": 1 / 4} if with_torch else {})}


def test_memory_has_a_ratio_of_its_own(monkeypatch):
    grown = {"efficient": 30, "max": 20, "plain": 40}
    pretend(monkeypatch, lambda case, _: message(1, grown[case]))
    settings = {"backend": "any", "work": "memory", "rounds": 2, "batch_size": 60}
    found = bench._turns(settings, lambda _: None)
    assert found["cases"]["plain"]["memory_ratio"] == pytest.approx(3 / 4)
    assert found["cases"]["max"]["memory_ratio"] == pytest.approx(3 / 2)
    assert "memory_ratio" not in found["cases"]["efficient"]


def test_a_case_that_fails_is_a_row_with_its_error():
    settings = {**FEW, "work": "training", "variant": "d2l", "depth": None, "warmup": 1}
    settings |= {"backend": "nothing", "cpus": sorted(os.sched_getaffinity(0))}
    found = bench._turns(settings, lambda _: None)
    assert found["status"] == "failed"
    narrow = {"bfloat16"} if machine.multiplies_bfloat16() else set()  # otherwise it is absent
    assert found["failed"].keys() == {"fit", *bench_child.PLAIN_LOOP, *narrow}
    assert found["error"].startswith("fit, ")
    assert ": ConfigError: backend 'nothing' does not exist" in found["error"]
    assert found["cases"].keys() >= {"feeding", "products"}  # they need no backend
    assert not any("ratio" in case for case in found["cases"].values())


@pytest.mark.parametrize("round_", [0, 2])
def test_a_case_that_is_killed_leaves_the_others_as_they_are(monkeypatch, round_):
    killed = {"status": "failed", "error": "its process ended with signal SIGKILL"}

    def messages(case, number):
        return killed if case == "plain" and number >= round_ else message(1 + number, 2)

    pretend(monkeypatch, messages)
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


def test_on_a_gpu_memory_is_what_the_framework_holds_there(monkeypatch, capsys):
    peaks = iter([100, 700, 400])
    rival = SimpleNamespace(
        peak_gpu_memory=lambda: next(peaks), forget_peak_gpu_memory=Mock(), finish=Mock()
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    rounds = bench_child._rounds(rival, {"device": "gpu", "steps": 1, "warmup": 1})
    rounds()
    with pytest.raises(FinishedError):
        rounds()
    assert [each["grown_bytes"] for each in said(capsys)] == [600, 300]
    assert rival.forget_peak_gpu_memory.call_count == 2  # before the first step, and after it


@pytest.mark.parametrize("sees", [False, True])
def test_products_on_a_gpu_are_those_of_a_pytorch_that_sees_it(monkeypatch, capsys, sees):
    pytorch = SimpleNamespace(
        multiplication=lambda *_: (np.ones, np.matmul, lambda: None) if sees else None
    )
    monkeypatch.setattr(bench_child, "load_rival", lambda _: pytorch)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    settings = {**FEW, "work": "training", "case": "products", "variant": "d2l", "depth": None}
    settings |= {"backend": "any", "warmup": 1, "cpus": sorted(os.sched_getaffinity(0))}
    (answer,) = measured({**settings, "device": "gpu"}, monkeypatch, capsys)
    assert ("seconds" in answer, answer.get("absent")) == (
        sees,
        None if sees else "PyTorch sees no GPU",
    )


def test_a_case_reports_after_each_round_and_ends_when_nobody_asks(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    rounds = Rounds(steps=2, warmup=1)
    step = Step(1, 1, 0.0, 0.0, 0.1)
    rounds(step)
    rounds("an epoch is no step")
    rounds(step)
    with pytest.raises(FinishedError):
        rounds()
    assert [len(each["seconds"]) for each in said(capsys)] == [1, 2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no such file here")
def test_memory_is_that_of_later_steps_over_what_was_there_before():
    code = """
from contextlib import suppress
import numpy as np
from densenet_multi.comparison.child_process import FinishedError
from densenet_multi.comparison.rounds import Rounds
np.ones(200 << 20, np.uint8)  # while the network is built
rounds = Rounds(steps=1, warmup=1)
for size in (150, 50):
    np.ones(size << 20, np.uint8)
    with suppress(FinishedError):
        rounds()
"""
    # a separate process, so that nothing else frees memory between the steps
    done = run([sys.executable, "-c", code], input="\n", capture_output=True, text=True, check=True)
    first, later = (json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines())
    assert (140 << 20) < first["grown_bytes"] < (190 << 20)
    assert (40 << 20) < later["grown_bytes"] < (90 << 20)


def test_threads_are_cpus_that_this_process_may_use():
    usable = sorted(os.sched_getaffinity(0))
    assert machine.cpus(None) == usable
    assert machine.cpus(1) == usable[:1]
    for threads in (0, len(usable) + 1):
        with pytest.raises(
            dm.ConfigError, match=f"threads: expected an integer from 1 to {len(usable)}"
        ):
            machine.cpus(threads)


def test_the_threads_of_a_case_are_those_that_are_reported(monkeypatch, tmp_path):
    (tmp_path / "own.py").write_text(
        "import os\n"
        "from densenet_multi.comparison.child_process import run_child\n"
        "run_child(lambda _: {'threads': os.environ['OMP_NUM_THREADS']})"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's, for other programs
    monkeypatch.setattr(bench, "started", lambda _, *given: started("own", *given))
    with bench._started({"work": "training", "cpus": [0, 1, 2], "device": "cpu"}) as child:
        assert child.receive() == {"status": "ok", "threads": "3"}


def test_memory_is_counted_where_what_is_freed_is_given_back(monkeypatch):
    found = {}
    monkeypatch.setattr(bench, "started", lambda _, __, given: found.update(environment=given))
    bench._started({"work": "memory", "cpus": [0], "device": "cpu"})
    assert found["environment"].items() > bench.EXACT.items()
    bench._started({"work": "memory", "cpus": [0], "device": "cpu", "exact": False})
    assert not found["environment"].keys() & bench.EXACT.keys()
    for work, device in [("training", "cpu"), ("memory", "gpu")]:
        bench._started({"work": work, "cpus": [0], "device": device})
        assert not found["environment"].keys() & bench.EXACT.keys()
    assert found["environment"].items() > dm.backends.SHARED_GPU.items()


@pytest.mark.parametrize(
    ("case", "efficient"), [("efficient", "some"), ("max", "max"), ("plain", False)]
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
            assert rival.finish.call_count == 1  # the first step is timed separately
            with pytest.raises(FinishedError):
                rounds()
            assert rival.finish.call_count == 2  # before the clock stops

    rival = SimpleNamespace(finish=Mock(), free_arrays_early=Mock())
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(bench_child, "load_rival", lambda _: rival)
    monkeypatch.setattr(bench_child, "load_backend", lambda _: Backend)
    settings = {**FEW, "work": "memory", "case": case, "backend": "any", "variant": None}
    bench_child._fit({**settings, "depth": 40, "warmup": 2, "batch_size": 2})
    expected = dm.cifar_config(40, 12, bottleneck=True).resolve()
    assert built == [(dm.count_parameters(expected), efficient)]
    assert rival.free_arrays_early.call_count == (case == "plain")


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(1, [[True], [False, True]]), (3, [[True, False, True], [False, True]])],
)
def test_the_clock_stops_when_what_was_asked_for_is_computed(monkeypatch, capsys, warmup, expected):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    rounds = Rounds(steps=2, warmup=warmup, finish=lambda: time.sleep(0.1))
    for _ in range(warmup + 1):
        rounds()
    with pytest.raises(FinishedError):
        rounds()
    taken = [each["seconds"] for each in said(capsys)]
    assert [[one >= 0.1 for one in seconds] for seconds in taken] == expected


def test_the_table_begins_with_ratios_and_the_picture_is_whole_xml(monkeypatch, tmp_path):
    given = result(
        torch=report(beginner=1.25),
        keras=report(),
        gluon={"status": "not installed", "error": "pip"},
    )
    monkeypatch.setattr(bench, "bench", lambda **_: given)
    done = CliRunner().invoke(main, ["bench", "--output", str(tmp_path / "bench.svg")])
    assert done.exit_code == 0, done.stderr
    words = done.stdout.split()
    assert words.index("beginner's", words.index("fit")) < words.index("1.25x")
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
    missing = {"status": "not installed", "error": "type pip install this"}
    pretend(monkeypatch, lambda *_: missing)
    assert bench._turns({"backend": "torch", "work": "training"}, lambda _: None) == missing


@pytest.mark.parametrize(
    ("work", "case"),
    [
        *(("inference", case) for case in ("optimized", "model", "framework")),
        *(("training", case) for case in ("fit", *bench_child.PLAIN_LOOP)),
        *(("memory", case) for case in ("efficient", "plain")),
    ],
)
def test_what_is_measured_is_put_on_the_device(monkeypatch, work, case):
    placed = []

    def use_gpu(net):
        placed.append(net)
        if len(placed) == 2:  # the first checks that there is a GPU
            raise dm.backends.BackendError("far enough")
        return True

    backend = SimpleNamespace(
        build=lambda *_, **__: "ours",
        use_gpu=lambda net: use_gpu(net) if net == "ours" else pytest.fail("no model of ours"),
        FRAMEWORK="any",
        __name__="any",
    )
    rival = SimpleNamespace(
        framework_network=lambda *_: "other's",
        beginners_network=lambda _: "other's",
        logits=None,
        use_gpu=use_gpu,
    )
    monkeypatch.setattr(bench_child, "load_backend", lambda _: backend)
    monkeypatch.setattr(bench_child, "load_rival", lambda _: rival)
    monkeypatch.setattr(bench_child, "hide_gpus", hidden := Mock())
    settings = {**FEW, "work": work, "case": case, "backend": "any", "variant": "d2l", "warmup": 1}
    settings |= {"depth": None, "cpus": sorted(os.sched_getaffinity(0)), "device": "gpu"}
    with pytest.raises(dm.backends.BackendError, match="far enough"):
        bench_child.measure(settings)
    assert placed == ["ours", "other's" if case in ("beginner", "framework") else "ours"]
    assert not hidden.called


@pytest.mark.parametrize("case", bench_child.PLAIN_LOOP)
def test_a_backend_from_elsewhere_has_no_rival(monkeypatch, case):
    monkeypatch.setattr(rivals, "load_backend", lambda _: None)
    assert rivals.load_rival("elsewhere") is None
    monkeypatch.setattr(bench_child, "load_backend", lambda _: None)
    monkeypatch.setattr(bench_child, "hide_gpus", lambda: None)  # it would, in this process
    settings = {**FEW, "work": "training", "case": case, "backend": "elsewhere"}
    answer = bench_child.measure({**settings, "cpus": sorted(os.sched_getaffinity(0))})
    assert answer == {"absent": "elsewhere has no rival implementation"}


@pytest.mark.parametrize("has_it", [False, True])
def test_bfloat16_is_a_case_where_machine_and_backend_have_it(monkeypatch, has_it):
    class Backend:
        __name__ = FRAMEWORK = "any"

        @staticmethod
        def build(_):
            return "model"

        @staticmethod
        def optimize(_, *, bfloat16):
            raise dm.ConfigError(f"bfloat16: expected False, found {bfloat16}")

    monkeypatch.setattr(bench_child, "load_backend", lambda _: Backend)
    monkeypatch.setattr(bench_child, "multiplies_bfloat16", lambda: has_it)
    monkeypatch.setattr(bench_child, "hide_gpus", lambda: None)  # it would, in this process
    settings = {**FEW, "case": "bfloat16", "backend": "any", "variant": "d2l", "warmup": 1}
    settings |= {"work": "inference", "cpus": sorted(os.sched_getaffinity(0))}
    answer = bench_child.measure(settings)
    assert ("expected False, found True" in answer["absent"]) == has_it


def test_a_processor_says_whether_it_has_bfloat16(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    for text, expected in [
        ("flags\t: fpu avx512_bf16\nbugs\t: bf16\n", True),
        ("Features\t: asimd bf16\n", True),
        ("flags\t: fpu avx2\nbugs\t: bf16\n", False),
    ]:
        cpuinfo.write_text(text)
        assert machine.multiplies_bfloat16(cpuinfo) == expected
    assert not machine.multiplies_bfloat16(tmp_path / "none")


def test_the_products_multiply_as_often_as_the_network():
    spec = dm.get_spec("densenet121", num_classes=0)
    found = list(matrix_products(spec, 64, 2))
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
        ({"depth": 40}, "depth: expected none with work='training', since it is for work='memory'"),
        ({"work": "memory", "depth": 0}, "depth: expected an integer of at least 10"),
        ({"work": "memory", "depth": 40, "variant": "d2l"}, "depth: expected none with variant"),
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


class InThisProcess:
    """Stand-in for a child: it runs to its end on entry, and its messages are received later."""

    def __init__(self, settings, monkeypatch):
        self.settings, self.monkeypatch = settings, monkeypatch

    def __enter__(self):
        printed = io.StringIO()
        with self.monkeypatch.context() as patch, redirect_stdout(printed):
            patch.setattr("sys.argv", ["bench_child", json.dumps(self.settings)])
            patch.setattr("sys.stdin", io.StringIO("\n" * self.settings["rounds"]))
            patch.setattr(os, "sched_setaffinity", lambda *_: None)
            run_child(bench_child.measure)
        lines = printed.getvalue().splitlines()
        self.messages = iter([json.loads(x.removeprefix(MARK)) for x in lines if MARK in x])
        return self

    def __exit__(self, *_):
        pass

    def receive(self):
        return next(self.messages)

    def proceed(self):
        pass


@pytest.fixture
def in_this_process(monkeypatch):
    """Run cases in this process: starting one and importing a framework takes longer."""
    really_started = bench._started

    def started(settings):
        if settings["case"] == "bfloat16 products":  # imports PyTorch as well
            return really_started(settings)
        return InThisProcess(settings, monkeypatch)

    monkeypatch.setattr(bench, "_started", started)
    # small networks, except the beginner's, which is always as deep as the chapter's
    least = partial(dm.get_spec, block_config=(1, 1))
    monkeypatch.setattr(bench_child, "get_spec", least)


@pytest.mark.long
@pytest.mark.parametrize("work", bench_child.CASES)
def test_bench_measures_each_case_in_a_process_of_its_own(backend, work):
    check_each_case(backend, work)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("work", bench_child.CASES)
@pytest.mark.long("keras", "flax")
def test_bench_measures_each_case(backend, work):
    check_each_case(backend, work)


def check_each_case(backend, work):
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
    absent = {"framework"}  # no framework has a d2l
    bfloat16 = machine.multiplies_bfloat16()
    if backend.NAME == "gluon" or not bfloat16:
        absent.add("bfloat16")
    if not bfloat16 or not find_spec("torch"):
        absent.add("bfloat16 products")
    for case in bench_child.RUNTIMES if work == "inference" else ():
        installed = find_spec("onnx") and find_spec(case.removeprefix("bfloat16 "))
        if not installed or (case.startswith("bfloat16") and not bfloat16):
            absent.add(case)
    first, *others = (name for name in bench_child.CASES[work] if name not in absent)
    cases = measured["cases"]
    assert list(cases) == [first, *others]
    for name in others:
        pairs = zip(cases[first]["rounds"], cases[name]["rounds"], strict=True)
        expected = np.median([ours / theirs for ours, theirs in pairs])
        assert cases[name]["ratio"] == pytest.approx(expected)
    limited = set() if work == "memory" else {*cases} - {"feeding", *bench_child.PRODUCTS}
    if "bfloat16 products" in absent:
        limited.discard("bfloat16")
    assert {name for name, case in cases.items() if "share" in case} == limited
    for case in cases.values():
        assert case["first_step_seconds"] > 0
        assert case["lowest"] <= case["images_per_second"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(backend):
    arguments = ["bench", "--backends", backend.NAME, "--work", "memory", "--depth", "10"]
    done = CliRunner().invoke(main, [*arguments, "--device", "gpu", "--rounds", "1"])
    assert done.exit_code == 1
    expected = f"--device: expected a GPU that {backend.FRAMEWORK} sees, found none"
    assert done.stderr.count(expected) == 1
    assert f"{backend.NAME}: {expected}; use --device cpu\n" in done.stderr  # names no case
