"""Exercise 3: what is measured is what is asked for, compared with the specification."""

from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

import densenet_multi as dm
from densenet_multi.comparison import bench, bench_child
from densenet_multi.comparison.bench import Turns
from densenet_multi.comparison.machine import cpus
from densenet_multi.exercises import Settings, exercise, memory
from densenet_multi.exercises.parameters import GROWTH_RATES, _grown

GROWN = {"plain": 1.0, "efficient": 0.5, "max": 0.25, "bfloat16": 0.6}  # of the maps
GROWN |= {"model": 0.9, "accumulated": 0.3}
SECONDS = {"plain": 1.0, "efficient": 1.5, "max": 2.0, "bfloat16": 0.5}
SECONDS |= {"model": 1.25, "accumulated": 1.5}
FIXED = 40 * 2**20
ABSENT = "MXNet 1.9.1 does not support bfloat16"
NO_GPU = "no GPU"


def message(seconds, grown):
    return {"seconds": [seconds], "peak_memory_bytes": grown, "grown_bytes": grown}


@pytest.fixture
def turns(monkeypatch):
    """Answers for the child processes, which take minutes; returns the settings of each."""
    asked = []

    def take_turns(cases, step):
        found = Turns()
        device = {case["device"] for case in cases.values()}.pop()
        if device not in devices:
            return Turns(message={"status": "failed", "error": NO_GPU})
        asked.append(cases)
        for name, case in cases.items():
            step(name)
            spec = bench_child.network(case["variant"], None, case.get("changes", {}))
            if case["case"] == "bfloat16" and case["backend"] == "gluon":
                found.absent[name] = ABSENT
                continue
            maps = memory.predicted(spec, case["image_size"], case["batch_size"])["maps"]
            grown = int(GROWN[case["case"]] * maps) + FIXED
            seconds = SECONDS[case["case"]] * case["batch_size"]
            found.received[name] = [message(seconds, grown)] * (1 + case["rounds"])
        return found

    devices = {"cpu"}
    monkeypatch.setattr(memory, "take_turns", take_turns)
    monkeypatch.setattr(bench, "take_turns", take_turns)
    monkeypatch.setattr(memory, "installed_backends", lambda: ["gluon", "torch"])
    monkeypatch.setattr(memory, "chosen_backend", lambda given: given.backend or "torch")
    return SimpleNamespace(asked=asked, devices=devices)


def test_the_prediction_is_the_maps_of_all_images_a_gradient_and_a_velocity():
    found = memory.predicted(dm.get_spec("densenet121"), 224, 8)
    assert found["maps"] / 8 / 2**20 == pytest.approx(126.34, abs=0.005)  # as summary prints it
    assert found["parameters"] == 2 * 4 * 7_978_856


def test_each_backend_measures_both_networks_at_each_size_and_one_the_remedies(turns):
    result = exercise("memory").run(Settings())
    sizes = [
        (case["backend"], case["variant"], case["image_size"], case["batch_size"], case["case"])
        for cases in turns.asked[:2]
        for case in cases.values()
    ]
    assert sizes == [
        (backend, variant, size, memory.NETWORKS[variant], "plain")
        for backend in ("gluon", "torch")
        for variant in ("d2l", "densenet121")
        for size in (96, 160, 224)
    ]
    assert len(turns.asked) == 4
    assert "remedies" not in result["devices"]["cpu"]["gluon"]
    remedies = turns.asked[2]
    assert [case["backend"] for case in remedies.values()] == ["torch"] * len(memory.REMEDIES)
    cases = [case["case"] for case in remedies.values()]
    expected = ["plain", "efficient", "max", "bfloat16", "model", "accumulated", "plain"]
    assert cases == expected
    assert {case["batch_size"] for case in remedies.values()} == {16}
    assert remedies["growth"]["changes"] == {"growth_rate": 16, "num_init_features": 32}
    assert {case["image_size"] for case in remedies.values()} == {224}
    assert {case["rounds"] for case in remedies.values()} == {1}
    usual = {"rounds": memory.REMEDY_ROUNDS, "exact": False}
    assert turns.asked[3] == {name: {**case, **usual} for name, case in remedies.items()}
    assert all(case["work"] == "memory" and case["device"] == "cpu" for case in remedies.values())
    assert list(result["devices"]) == ["cpu"]
    assert result["not_on_gpu"] == {"gluon": NO_GPU, "torch": NO_GPU}
    assert "No GPU was measured." in memory.tables(result)[0].note


def test_the_long_version_measures_remedies_in_every_backend(turns):
    result = exercise("memory").run(Settings(full=True))
    for report in result["devices"]["cpu"].values():
        assert report["remedies"]["plain"]["memory"] == 1
    assert len(turns.asked) == 6
    assert turns.asked[2]["plain"]["rounds"] == memory.FULL_ROUNDS
    assert result["devices"]["cpu"]["gluon"]["absent"] == {"bfloat16": ABSENT}
    assert f"gluon, bfloat16, was not measured: {ABSENT}." in memory.tables(result)[0].note


def test_measured_memory_is_split_into_maps_and_the_rest(turns):
    result = exercise("memory").run(Settings(backend="torch"))
    assert len(turns.asked) == 3
    report = result["devices"]["cpu"]["torch"]
    for found in report["lines"].values():
        assert found["rate"] == pytest.approx(1, abs=1e-6)
        assert found["fixed_bytes"] == pytest.approx(FIXED, abs=10)
        assert found["residual"] == pytest.approx(0, abs=1e-6)
    first = report["sizes"][0]
    assert first["ratio"] == first["measured_bytes"] / first["predicted_bytes"]


def test_a_line_states_its_residual_if_there_is_one():
    def sized(*points):
        return [{"predicted": {"maps": x}, "measured_bytes": y} for x, y in points]

    found = memory.line_through(sized((0, 10), (1, 10), (2, 40)))
    assert found == pytest.approx({"rate": 15, "fixed_bytes": 5, "residual": 1})  # 20 for 10
    assert memory.line_through(sized((0, 10), (2, 40)))["residual"] is None
    assert memory.line_through(sized((0, 10))) is None


def test_remedies_are_relative_to_plain_training_per_image(turns):
    result = exercise("memory").run(Settings(backend="torch"))
    found = result["devices"]["cpu"]["torch"]["remedies"]
    times = {name: each["time"] for name, each in found.items()}
    expected = {"plain": 1, "efficient": 1.5, "max": 2, "bfloat16": 0.5, "growth": 1}
    expected |= {"loop": 1.25, "accumulated": 1.2}  # 1.5 instead of 1.25
    assert times == pytest.approx(expected)
    plain = found["plain"]["measured_bytes"]
    assert found["max"]["memory"] == found["max"]["measured_bytes"] / plain < 0.3
    in_exercise_2 = {each["growth_rate"]: each["parameters"] for each in map(_grown, GROWTH_RATES)}
    assert found["growth"]["parameters"] == in_exercise_2[16]
    assert found["plain"]["parameters"] == in_exercise_2[32]
    assert turns.asked[1]["plain"]["cpus"] == cpus(None)


def test_time_is_the_median_of_rounds_compared_in_pairs():
    case = {"variant": "d2l", "batch_size": 2, "image_size": 32}
    turns = Turns()
    turns.received["plain"] = [message(9, 100), *(message(s, 100) for s in (1, 10, 2))]
    turns.received["max"] = [message(9, 50), *(message(s, 50) for s in (2, 11, 6))]
    found = memory._compared({"plain": case, "max": case}, turns, turns)
    assert found["max"]["time"] == pytest.approx(2)  # of 2, 1.1 and 3
    assert found["max"]["memory"] == 0.5


def test_without_plain_training_nothing_is_relative_and_the_rest_is_drawn(turns, monkeypatch):
    answers = memory.take_turns

    def take_turns(cases, step):
        found = answers(cases, step)
        if found.received.pop("plain", None):
            found.failed["plain"] = "out of memory"
        return found

    monkeypatch.setattr(memory, "take_turns", take_turns)
    result = exercise("memory").run(Settings(backend="torch"))
    assert "plain" in turns.asked[1]
    remedies = result["devices"]["cpu"]["torch"]["remedies"]
    assert remedies["max"].keys().isdisjoint({"memory", "time"})
    assert remedies["accumulated"].keys() >= {"memory", "time"}  # has a baseline of its own
    sizes, _, table = memory.tables(result)
    assert "torch, plain, was not measured: out of memory." in sizes.note
    assert [row[3] for row in table.rows] == ["", "", "", "0.35x", ""]
    spoken = "".join(ET.fromstring(memory.draw(result)).itertext())  # noqa: S314  # ours
    assert "densenet121 at 224" in spoken
    assert memory.LABELS["accumulated"] in spoken
    assert memory.LABELS["max"] not in spoken


def test_a_gpu_is_measured_where_a_framework_sees_one_and_one_case_at_a_time(turns, monkeypatch):
    turns.devices.add("gpu")
    monkeypatch.setattr(memory, "gpu", lambda: "NVIDIA H200")
    result = exercise("memory").run(Settings(backend="gluon"))
    count = len(memory.NETWORKS) * len(memory.SIZES)
    two = [len(memory.REMEDIES)] * 2  # for memory and for time
    assert [len(cases) for cases in turns.asked[:3]] == [count, *two]
    alone = turns.asked[3:]
    assert [len(cases) for cases in alone] == [1] * (count + sum(two))
    assert {case["device"] for cases in alone for case in cases.values()} == {"gpu"}
    assert result["gpu"] == "NVIDIA H200"
    assert result["not_on_gpu"] == {}
    of_both = [result["devices"][device]["gluon"] for device in ("cpu", "gpu")]
    assert of_both[0] == of_both[1]
    assert of_both[1]["absent"] == {"bfloat16": ABSENT}
    tables = memory.tables(result)
    assert len(tables) == 6
    assert "glibc" in tables[0].note
    assert "glibc" not in tables[3].note
    assert "ran alone" in tables[5].note


def test_notes_state_how_the_measured_memory_differs_from_a_users(turns, monkeypatch):
    turns.devices.add("gpu")
    monkeypatch.setattr(memory, "REMEDIES", {"plain": memory.REMEDIES["plain"]})
    monkeypatch.setattr(memory, "SIZES", (96,))
    assert turns.asked == []
    for name, note in (("gluon", memory.GLUON), ("torch", "")):
        of_cpu, of_gpu = memory.tables(exercise("memory").run(Settings(backend=name)))[::3]
        assert (memory.GLUON in of_cpu.note) == bool(note)
        assert memory.RETURNED in of_cpu.note
        assert memory.FLAX not in of_gpu.note
    of_flax = memory.tables(exercise("memory").run(Settings(backend="flax")))
    assert memory.FLAX in of_flax[3].note
    assert memory.FLAX not in of_flax[0].note


def test_a_backend_that_cannot_train_is_an_error_unless_another_can(turns, monkeypatch):
    answers = memory.take_turns
    missing = {"status": "not installed", "error": "backend 'gluon' needs 'mxnet'"}
    failed = {"status": "failed", "error": "no GPU"}

    def first(message):
        def take_turns(cases, step):
            case = next(iter(cases.values()))
            gone = case["backend"] == "gluon"
            return Turns(message=message) if gone else answers(cases, step)

        monkeypatch.setattr(memory, "take_turns", take_turns)

    first(missing)
    with pytest.raises(dm.BackendNotInstalledError, match="mxnet"):
        exercise("memory").run(Settings(backend="gluon"))
    first(failed)
    with pytest.raises(dm.BackendError, match="gluon: no GPU"):
        exercise("memory").run(Settings(backend="gluon"))
    result = exercise("memory").run(Settings())
    assert "gluon was not measured: no GPU." in memory.tables(result)[0].note
    assert "gluon" not in memory.draw(result)
    assert {case["backend"] for cases in turns.asked for case in cases.values()} == {"torch"}


def test_tables_and_drawing_have_every_measurement(turns):
    result = exercise("memory").run(Settings())
    sizes, explained, remedies = memory.tables(result)
    assert len(sizes.rows) == 2 * 2 * 3
    assert sizes.is_number == (False, False, True, True, True, True, True)
    assert explained.rows[0] == ("gluon", "d2l", "1.00", "40 MiB", "0.0%")
    assert len(remedies.rows) == len(memory.LABELS)
    assert remedies.rows[-1][-1] == "another network: 2.3 million parameters"
    spoken = "".join(ET.fromstring(memory.draw(result)).itertext())  # noqa: S314  # ours
    for row in sizes.rows:
        assert f"{row[4]}, {row[0]}" in spoken
    assert "0.50x, torch" in spoken
    assert len(turns.asked) == 4


@pytest.mark.long
def test_real_children_measure_what_a_step_needs(backend, monkeypatch):
    monkeypatch.setattr(memory, "NETWORKS", {"d2l": 8})
    monkeypatch.setattr(memory, "SIZES", (32, 96))
    found = memory.measured(backend.NAME, "cpu", 1, lambda _: None, remedies=False)
    assert found["failed"] == found["absent"] == {}
    small, large = found["sizes"]
    assert 0 < small["measured_bytes"] < large["measured_bytes"]
    assert large["ratio"] > 0.5
    assert found["lines"]["d2l"]["rate"] > 0.5


def test_a_child_trains_with_the_requested_growth_rate():
    settings = {"variant": "densenet121", "depth": None, "image_size": 32, "batch_size": 2}
    settings |= {"warmup": 1, "steps": 1, "rounds": 1}
    spec, *_ = bench_child._to_train({**settings, "changes": {"growth_rate": 16}})
    assert spec == dm.get_spec("densenet121", growth_rate=16)
    spec, *_ = bench_child._to_train(settings)
    assert spec == dm.get_spec("densenet121")
