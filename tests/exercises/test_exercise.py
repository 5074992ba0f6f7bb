"""The room of the exercises and its command: what it refuses, prints and writes."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import exercises
from densenet_multi.commands import exercise as exercise_command
from densenet_multi.commands import main
from densenet_multi.data import DataError
from densenet_multi.drawing.svg import Figure, document, text
from densenet_multi.exercises import Exercise, Settings, Table
from densenet_multi.exercises._exercise import chosen_backend, header, installed_backends

ROOM = Path(exercises.__file__).parent
PRESENT = [name for name in exercises.NAMES if (ROOM / f"{name.replace('-', '_')}.py").is_file()]


def measured(settings):
    return header("pooling", settings) | {"counts": {"a": 3, "b": 12_345.5}}


def as_tables(result):
    rows = tuple((name, f"{value:,}", "") for name, value in result["counts"].items())
    return [Table("Counts", ("name", "count", "[note]"), rows, "Counted once.")] * 2


def drawn(result):
    said = ", ".join(result["counts"])
    return document(Figure("Counts", said, 20, [text(0, 15, said)]), "counts")


COUNTING = Exercise("pooling", "How many?", "1 s; 2 s with full=True", measured, as_tables, drawn)


@pytest.fixture
def counting(monkeypatch):
    def use(exercise=COUNTING):
        monkeypatch.setattr(exercise_command, "load_exercise", lambda _: exercise)

    use()
    return use


def run(*arguments):
    return CliRunner().invoke(main, ["exercise", *map(str, arguments)])


@pytest.mark.parametrize("name", PRESENT)
def test_each_name_is_an_exercise(name):
    found = exercises.exercise(name)
    assert isinstance(found, Exercise)
    assert found.name == name
    assert found.question.endswith("?")
    assert set(found.uses) <= set(Settings.__dataclass_fields__)


def test_an_unknown_name_is_refused_and_the_nearest_suggested():
    with pytest.raises(dm.ConfigError, match="did you mean 'pooling'"):
        exercises.exercise("poling")


@pytest.mark.usefixtures("counting")
def test_tables_are_printed_and_the_duration_is_stated_on_stderr():
    done = run("pooling", "--data", "sample")
    assert done.exit_code == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines.count("Counts") == 2
    assert " a           3" in lines  # numbers are aligned right
    assert " b    12,345.5" in lines
    assert "[note]" in done.stdout
    assert lines[-1] == "Counted once."
    assert "takes about 1 s; 2 s with --full" in done.stderr


@pytest.mark.usefixtures("counting")
def test_json_has_every_digit_the_settings_and_the_machine():
    done = run("pooling", "--data", "sample", "--seeds", "4", "--format", "json")
    result = json.loads(done.stdout)
    assert result["counts"] == {"a": 3, "b": 12_345.5}
    expected = {"backend": None, "data": "sample", "seeds": 4, "full": False, "csv": None}
    assert result["settings"] == expected
    assert result["machine"].keys() == {"platform", "processor", "cpus"}
    assert result["versions"]["densenet_multi"] == dm.__version__


@pytest.mark.usefixtures("counting")
def test_a_folder_gets_the_numbers_and_the_drawing(tmp_path):
    folder = tmp_path / "new"
    done = run("pooling", "--data", "sample", "--output", folder, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["pooling.json", "pooling.svg"]
    assert (folder / "pooling.json").read_text("utf-8") == done.stdout
    assert (folder / "pooling.svg").read_text("utf-8") == drawn(json.loads(done.stdout))


def test_a_drawing_that_fails_leaves_no_files(counting, tmp_path):
    counting(replace(COUNTING, draw=Mock(side_effect=dm.ConfigError("no ink"))))
    done = run("pooling", "--data", "sample", "--output", tmp_path / "new")
    assert (done.exit_code, done.stdout) == (2, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["poling"], "did you mean 'pooling'"),
        (["pooling", "--seeds", "0"], "--seeds: expected an integer of at least 1"),
        (["pooling", "--data", "cifar10"], "--data"),
        (["pooling", "--output", "nowhere/x"], "expected an existing folder, found none: nowhere"),
        (["pooling", "--output", __file__], "is a file"),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_measured(arguments, message, monkeypatch):
    measure = Mock()
    found = replace(COUNTING, measure=measure)
    monkeypatch.setattr(exercise_command, "load_exercise", exercise_of(found))
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not done.stdout
    measure.assert_not_called()


def exercise_of(found):
    return lambda name: found if name == found.name else exercises.exercise(name)


@pytest.mark.usefixtures("counting")
def test_the_sample_is_used_and_named_where_fashion_mnist_is_missing(monkeypatch):
    monkeypatch.setattr("densenet_multi.data.load_data", Mock(side_effect=DataError("not found")))
    done = run("pooling", "--format", "json")
    assert json.loads(done.stdout)["settings"]["data"] == "sample"
    assert "sample of 1,000 images (--data sample): not found" in done.stderr


def test_an_exercise_without_data_looks_for_none(counting, monkeypatch):
    monkeypatch.setattr("densenet_multi.data.load_data", Mock(side_effect=DataError("not found")))
    counting(replace(COUNTING, uses=("backend",)))
    done = run("pooling")
    assert done.exit_code == 0, done.stderr
    assert "sample" not in done.stderr


def test_a_result_that_is_not_a_number_is_refused():
    broken = replace(COUNTING, measure=lambda _: {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        broken.run(Settings())


def test_a_column_of_numbers_is_one_where_each_cell_is_a_number_or_empty():
    rows = (("a1", "1,000", "-0.5%", ""), ("b", "", "+2 min", ""), ("c", "±3", "0.1 to 0.2", ""))
    table = Table("", ("a", "b", "c", "d"), rows)
    assert table.is_number == (False, True, True, False)


def test_the_fastest_installed_backend_is_chosen_unless_one_is_named(monkeypatch):
    room = "densenet_multi.exercises._exercise"
    monkeypatch.setattr(f"{room}.installed_backends", lambda: ["flax", "keras"])
    assert chosen_backend(Settings()) == "keras"
    assert chosen_backend(Settings(backend="flax")) == "flax"
    monkeypatch.setattr(f"{room}.installed_backends", list)
    monkeypatch.setattr(f"{room}.first_installed", Mock(side_effect=dm.BackendNotInstalledError))
    with pytest.raises(dm.BackendNotInstalledError):
        chosen_backend(Settings())


def test_a_header_names_the_version_of_each_backend_and_no_folder():
    found = header("memory", Settings(csv=Path("/home/me/train.csv")), installed_backends())
    assert found["settings"]["csv"] == "train.csv"
    for name in installed_backends():
        assert None not in found["versions"][name].values()
