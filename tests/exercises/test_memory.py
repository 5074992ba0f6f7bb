"""Exercise 3: what is measured is what is asked for, compared with the specification."""

from xml.etree import ElementTree as ET

import pytest

import densenet_multi as dm
from densenet_multi.comparison import bench_child
from densenet_multi.comparison.bench import Turns
from densenet_multi.exercises import Settings, exercise, memory

GROWN = {"plain": 1.0, "efficient": 0.5, "max": 0.25, "bfloat16": 0.6}  # of the maps
SECONDS = {"plain": 1.0, "efficient": 1.5, "max": 2.0, "bfloat16": 0.5}
FIXED = 40 * 2**20
ABSENT = "MXNet 1.9.1 does not support bfloat16"


def message(seconds, grown):
    return {"seconds": [seconds], "peak_memory_bytes": grown, "grown_bytes": grown}


@pytest.fixture
def turns(monkeypatch):
    """Answers for the child processes, which take minutes; returns the settings of each."""
    asked = []

    def take_turns(cases, step):
        asked.append(cases)
        found = Turns()
        for name, case in cases.items():
            step(name)
            spec = bench_child.network(case["variant"], None, case.get("growth_rate"))
            if case["case"] == "bfloat16" and case["backend"] == "gluon":
                found.absent[name] = ABSENT
                continue
            maps = memory.predicted(spec, case["image_size"], case["batch_size"])["maps"]
            grown = int(GROWN[case["case"]] * maps) + FIXED
            seconds = SECONDS[case["case"]] * case["batch_size"]
            found.received[name] = [message(seconds, grown)] * (1 + case["rounds"])
        return found

    monkeypatch.setattr(memory, "take_turns", take_turns)
    monkeypatch.setattr(memory, "installed_backends", lambda: ["gluon", "torch"])
    monkeypatch.setattr(memory, "chosen_backend", lambda given: given.backend or "torch")
    monkeypatch.setattr(memory.shutil, "which", lambda _: None)
    return asked


def test_the_prediction_is_the_maps_of_all_images_a_gradient_and_a_velocity():
    found = memory.predicted(dm.get_spec("densenet121"), 224, 8)
    assert found["maps"] / 8 / 2**20 == pytest.approx(126.34, abs=0.005)  # as summary prints it
    assert found["parameters"] == 2 * 4 * 7_978_856


def test_each_backend_measures_both_networks_at_each_size_and_one_the_remedies(turns):
    result = exercise("memory").run(Settings())
    sizes = [
        (case["backend"], case["variant"], case["image_size"], case["batch_size"], case["case"])
        for cases in (turns[0], turns[1])
        for case in cases.values()
    ]
    assert sizes == [
        (backend, variant, size, memory.NETWORKS[variant], "plain")
        for backend in ("gluon", "torch")
        for variant in ("d2l", "densenet121")
        for size in (96, 224)
    ]
    assert len(turns) == 3
    assert "remedies" not in result["devices"]["cpu"]["gluon"]
    remedies = turns[2]
    assert [case["backend"] for case in remedies.values()] == ["torch"] * len(memory.REMEDIES)
    cases = [case["case"] for case in remedies.values()]
    assert cases == ["plain", "efficient", "max", "bfloat16", "plain", "plain"]
    assert remedies["quarter"]["batch_size"] * memory.PARTS == remedies["plain"]["batch_size"]
    assert remedies["growth"]["growth_rate"] == 16
    assert {case["image_size"] for case in remedies.values()} == {224}
    assert all(case["work"] == "memory" and case["device"] == "cpu" for case in remedies.values())


def test_the_long_version_measures_remedies_everywhere_and_a_third_size(turns):
    result = exercise("memory").run(Settings(full=True))
    for report in result["devices"]["cpu"].values():
        assert {each["image_size"] for each in report["sizes"]} == {96, 160, 224}
        assert report["remedies"]["plain"]["memory"] == 1
    assert len(turns) == 4
    assert turns[1]["plain"]["rounds"] == memory.FULL_ROUNDS
    assert result["devices"]["cpu"]["gluon"]["absent"] == {"bfloat16": ABSENT}
    assert f"gluon, bfloat16, was not measured: {ABSENT}." in memory.tables(result)[0].note


def test_measured_memory_is_split_into_maps_and_the_rest(turns):
    result = exercise("memory").run(Settings(backend="torch"))
    assert len(turns) == 2
    report = result["devices"]["cpu"]["torch"]
    for found in report["fits"].values():
        assert found["rate"] == pytest.approx(1, abs=1e-6)
        assert found["fixed_bytes"] == pytest.approx(FIXED, abs=10)
    first = report["sizes"][0]
    assert first["ratio"] == first["measured_bytes"] / first["predicted_bytes"]
    assert memory.fit(report["sizes"][:1]) is None


def test_remedies_are_relative_to_plain_training_per_image(turns):
    result = exercise("memory").run(Settings(backend="torch"))
    found = result["devices"]["cpu"]["torch"]["remedies"]
    times = {name: each["time"] for name, each in found.items()}
    expected = {"plain": 1, "some": 1.5, "max": 2, "bfloat16": 0.5, "quarter": 1, "growth": 1}
    assert times == pytest.approx(expected)
    plain = found["plain"]["measured_bytes"]
    assert found["max"]["memory"] == found["max"]["measured_bytes"] / plain < 0.3
    assert found["growth"]["parameters"] < found["plain"]["parameters"] / 3
    assert len(turns[1]["plain"]["cpus"]) >= 1


def test_time_is_the_median_of_rounds_compared_in_pairs():
    case = {"variant": "d2l", "batch_size": 2, "image_size": 32}
    turns = Turns()
    turns.received["plain"] = [message(9, 100), *(message(s, 100) for s in (1, 10, 2))]
    turns.received["max"] = [message(9, 50), *(message(s, 50) for s in (2, 11, 6))]
    found = memory._compared({"plain": case, "max": case}, turns)
    assert found["max"]["time"] == pytest.approx(2)  # of 2, 1.1 and 3
    assert found["max"]["memory"] == 0.5


def test_without_plain_training_nothing_is_relative():
    case = {"variant": "d2l", "batch_size": 2, "image_size": 32}
    turns = Turns(received={"max": [message(1, 50)] * 2})
    found = memory._compared({"max": case}, turns)
    assert found["max"].keys().isdisjoint({"memory", "time"})


def test_a_gpu_is_measured_where_there_is_one(turns, monkeypatch):
    monkeypatch.setattr(memory.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(memory, "gpu", lambda: "NVIDIA H200")
    result = exercise("memory").run(Settings(backend="torch"))
    assert [cases[next(iter(cases))]["device"] for cases in turns] == ["cpu", "cpu", "gpu", "gpu"]
    assert result["gpu"] == "NVIDIA H200"
    assert len(memory.tables(result)) == 6


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
    assert len(turns) > 0


def test_tables_and_drawing_have_every_measurement(turns):
    result = exercise("memory").run(Settings())
    sizes, explained, remedies = memory.tables(result)
    assert len(sizes.rows) == 2 * 2 * 2
    assert sizes.is_number == (False, False, True, True, True, True, True)
    assert explained.rows[0] == ("gluon", "d2l", "1.00", "40 MiB")
    assert len(remedies.rows) == len(memory.REMEDIES)
    assert remedies.rows[-1][-1] == "another network: 2.3 million parameters"
    spoken = "".join(ET.fromstring(memory.draw(result)).itertext())  # noqa: S314  # ours
    for row in sizes.rows:
        assert f"{row[4]}, {row[0]}" in spoken
    assert "0.50x, torch" in spoken
    assert len(turns) == 3


def test_a_child_trains_with_the_requested_growth_rate():
    settings = {"variant": "densenet121", "depth": None, "image_size": 32, "batch_size": 2}
    settings |= {"warmup": 1, "steps": 1, "rounds": 1}
    spec, *_ = bench_child._to_train({**settings, "growth_rate": 16})
    assert spec == dm.get_spec("densenet121", growth_rate=16)
    spec, *_ = bench_child._to_train(settings)
    assert spec == dm.get_spec("densenet121")
