"""The pages with answers show what the exercises measured, and nothing else."""

import json
import re

import pytest

from densenet_multi.exercises import NAMES, exercise
from densenet_multi.exercises._exercise import FASTEST
from extensions import measured
from extensions.pages import DOCS

PAGES = sorted((DOCS / measured.PAGES).glob("*.md"))
SHOWN = re.compile(r"^```\{exercise\} (\S+)\n(?::show: (.*)\n)?```$", re.MULTILINE)


@pytest.fixture
def data(tmp_path):
    """A copy of the stored results in folders of the same names, to change."""
    folder = tmp_path / "docs" / "results" / "data"
    folder.mkdir(parents=True)
    for path in measured.DATA.glob("exercise-*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_shows_every_table_and_the_drawing_of_its_exercise(path):
    shown = SHOWN.findall(path.read_text("utf-8"))
    assert {name for name, _ in shown} == {path.stem} <= set(NAMES)
    shows = {show for _, show in shown}
    numbers = {int(word) for show in shows for word in show.split() if word.isdecimal()}
    count = len(measured.tables_of(path.stem, ""))
    assert "" in shows or numbers == set(range(1, count + 1))  # "" shows all
    assert {"drawing", "machine"} <= shows
    assert measured.drawing_of(path.stem).startswith("<svg")


def test_each_exercise_leads_to_its_answer_once_there_is_one():
    page = (DOCS / "exercises.md").read_text("utf-8")
    assert re.findall(r"^```\{answer\} (\S+)$", page, re.MULTILINE) == list(NAMES)
    assert [measured.has_page(name) for name in NAMES].count(True) == len(PAGES)


def test_a_page_says_how_to_repeat_its_result():
    for path in PAGES:
        assert f"densenet-multi exercise {path.stem}" in path.read_text("utf-8")
        sentence = measured.measured_on(path.stem)
        result = measured.result_of(path.stem)
        assert f"exercise {path.stem}" in sentence
        assert result["machine"]["processor"] in sentence
        assert result["versions"]["python"] in sentence


def _measured_on(data, name, **changed):
    result = measured.result_of("table1") | {"exercise": name} | changed
    (data / f"exercise-{name}.json").write_text(json.dumps(result), "utf-8")
    return measured.measured_on(name, data)


def test_a_page_says_which_data_and_which_device_were_used(data):
    settings = {"backend": None, "data": "sample", "seeds": 4, "full": True, "csv": None}
    machine = {"processor": "Xeon", "cpus": 2}
    pooling = {"settings": settings, "machine": machine}
    sentence = _measured_on(data, "pooling", **pooling)
    assert "exercise pooling --data sample --seeds 4 --full on 2 CPUs (Xeon); Python" in sentence
    sentence = _measured_on(data, "pooling", **pooling, device="gpu", gpu="NVIDIA H200")
    assert "--full on NVIDIA H200, beside 2 CPUs (Xeon);" in sentence
    sentence = _measured_on(data, "memory", **pooling, gpu="NVIDIA H200")
    assert "--full on 2 CPUs (Xeon) and on NVIDIA H200;" in sentence
    assert "--data" not in sentence  # memory has none


def test_a_changed_number_changes_the_page(data):
    path = data / "exercise-table1.json"
    result = json.loads(path.read_text("utf-8"))
    before = measured.tables_of("table1", "2", data)
    result["variants"]["densenet121"]["parameters"] += 1
    path.write_text(json.dumps(result), "utf-8")
    (after,) = measured.tables_of("table1", "2", data)
    assert before[0].rows[0][2] == "7,978,856"
    assert after.rows[0][2] == "7,978,857"


def test_the_command_measures_again_what_is_counted(monkeypatch):
    """The stored counts are those of today's networks; only the steps need a framework."""
    from densenet_multi.exercises import Settings, table1

    monkeypatch.setattr(table1, "installed_backends", list)
    now, stored = exercise("table1").run(Settings()), measured.result_of("table1")
    assert now["variants"] == stored["variants"]


def test_a_result_that_is_missing_or_anothers_is_an_error(data):
    path = data / "exercise-table1.json"
    path.unlink()
    with pytest.raises(measured.ResultError, match="densenet-multi exercise table1 --output"):
        measured.tables_of("table1", "", data)
    path.write_text('{"exercise": "memory"}', "utf-8")
    with pytest.raises(measured.ResultError, match="a result of table1"):
        measured.drawing_of("table1", data)


@pytest.mark.parametrize("shown", ["0", "9", "drawings", "1 9"])
def test_a_table_that_the_result_does_not_have_is_an_error(shown):
    with pytest.raises(measured.ResultError, match="expected tables from 1 to 3"):
        measured.tables_of("table1", shown)


def test_a_page_shows_what_a_command_prints_for_a_stored_result(data, monkeypatch, capsys):
    from densenet_multi.commands import lockstep

    result = {"float64": {"losses": []}, "text": "a table"}
    (data / "lockstep.json").write_text(json.dumps(result), "utf-8")
    monkeypatch.setattr(lockstep, "table", lambda found: found["text"])
    assert measured.printed_by("lockstep", data) == "a table\n"
    assert capsys.readouterr().out == ""


def test_a_command_without_a_stored_result_is_an_error(data):
    message = r"docs/results/data/bench\.json, found none; run: densenet-multi bench --format json"
    with pytest.raises(measured.ResultError, match=message):
        measured.printed_by("bench", data)


def test_the_fastest_backends_are_those_of_the_documented_measurement():
    stored = json.loads((measured.DATA / "bench-training.json").read_text("utf-8"))
    speeds = {
        name: found["cases"]["fit"]["images_per_second"]
        for name, found in stored["backends"].items()
    }
    assert list(FASTEST) == sorted(speeds, key=speeds.get, reverse=True)


def test_tables_are_shown_in_the_order_of_their_numbers():
    first, second, _ = measured.tables_of("table1", "")
    assert measured.tables_of("table1", "2 1") == [second, first]
