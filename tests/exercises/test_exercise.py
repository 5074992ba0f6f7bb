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
from densenet_multi.data import DataError, DataNotFoundError
from densenet_multi.drawing.svg import Figure, document, text
from densenet_multi.exercises import Exercise, Settings, Table
from densenet_multi.exercises._exercise import chosen_backend, header

ROOM = "densenet_multi.exercises._exercise"


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


@pytest.mark.parametrize("name", exercises.NAMES)
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


def test_a_drawing_that_fails_loses_no_numbers_and_leaves_no_older_drawing(counting, tmp_path):
    folder = tmp_path / "new"
    run("pooling", "--data", "sample", "--output", folder, "--seeds", "3")
    counting(replace(COUNTING, draw=Mock(side_effect=dm.ConfigError("no ink"))))
    done = run("pooling", "--data", "sample", "--output", folder, "--format", "json")
    assert done.exit_code == 2
    assert "no ink" in done.stderr
    assert json.loads(done.stdout)["settings"]["seeds"] is None
    assert [path.name for path in folder.iterdir()] == ["pooling.json"]
    assert (folder / "pooling.json").read_text("utf-8") == done.stdout


def test_tables_that_fail_lose_no_numbers(counting, tmp_path):
    counting(replace(COUNTING, tables=Mock(side_effect=dm.ConfigError("no columns"))))
    done = run("pooling", "--data", "sample", "--output", tmp_path)
    assert done.exit_code == 2
    assert json.loads((tmp_path / "pooling.json").read_text("utf-8"))["counts"]["a"] == 3


def test_notes_on_the_result_are_on_stderr(counting):
    measure = Mock(side_effect=lambda given: measured(given) | {"notes": ["half with seeds=2"]})
    counting(replace(COUNTING, measure=measure))
    assert "half with --seeds 2" in run("pooling", "--data", "sample").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["poling"], "did you mean 'pooling'"),
        (["table1", "--seeds", "2"], "--seeds: expected nothing (the exercise 'table1' has none)"),
        (["parameters", "--backend", "flax"], "--backend: expected 'torch', the only backend"),
        (["pooling", "--seeds", "0"], "--seeds: expected an integer of at least 1"),
        (["pooling", "--data", "cifar10"], "--data"),
        (["pooling", "--output", "nowhere/x"], "parent folder, found none: nowhere"),
        (["pooling", "--output", __file__], "is a file"),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_measured(arguments, message, monkeypatch):
    measure = Mock(return_value={})
    monkeypatch.setattr(
        exercise_command,
        "load_exercise",
        lambda name: replace(exercises.exercise(name), measure=measure),
    )
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not done.stdout
    measure.assert_not_called()


@pytest.fixture
def search(monkeypatch):
    """The search for Fashion-MNIST, which finds nothing."""
    found = Mock(side_effect=DataNotFoundError("not found in:\n  one place"))
    monkeypatch.setattr("densenet_multi.data.load_data", found)
    return found


@pytest.mark.usefixtures("counting", "search")
def test_the_sample_is_used_and_named_where_fashion_mnist_is_missing():
    done = run("pooling", "--format", "json")
    assert json.loads(done.stdout)["settings"]["data"] == "sample"
    assert "sample of 1,000 images (--data sample): not found in\n" in done.stderr


@pytest.mark.usefixtures("counting")
def test_damaged_data_are_an_error_and_not_replaced_by_the_sample(search):
    search.side_effect = DataError("damaged")
    done = run("pooling")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "damaged" in done.stderr


@pytest.mark.usefixtures("counting")
def test_the_duration_is_stated_before_anything_is_downloaded(search, monkeypatch):
    said = []
    monkeypatch.setattr(exercise_command, "say", said.append)
    search.side_effect = lambda *_, **__: said.append("download")
    run("pooling")
    assert ["takes about" in each for each in said] == [True, False]


@pytest.mark.usefixtures("search")
def test_an_exercise_without_data_looks_for_none(counting):
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
    monkeypatch.setattr(f"{ROOM}.installed_backends", lambda: ["flax", "keras"])
    assert chosen_backend(Settings()) == "keras"
    assert chosen_backend(Settings(backend="flax")) == "flax"
    monkeypatch.setattr(f"{ROOM}.installed_backends", list)
    monkeypatch.setattr(f"{ROOM}.first_installed", Mock(side_effect=dm.BackendNotInstalledError))
    with pytest.raises(dm.BackendNotInstalledError):
        chosen_backend(Settings())


def test_a_header_names_the_version_of_each_backend_and_no_folder(monkeypatch):
    monkeypatch.setattr(f"{ROOM}.framework_versions", lambda name: {f"lib{name}": "1.2"})
    found = header("memory", Settings(csv=Path("/home/me/train.csv")), ["torch", "flax"])
    assert found["settings"]["csv"] == "train.csv"
    assert found["versions"]["torch"] == {"libtorch": "1.2"}
    assert found["versions"]["flax"] == {"libflax": "1.2"}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"backend": 3}, "backend: expected a string"),
        ({"data": "folder:x"}, "data: expected 'fashion-mnist' or 'sample'"),
        ({"seeds": 0}, "seeds: expected an integer of at least 1"),
        ({"seeds": -1}, "seeds: expected an integer of at least 1"),
        ({"full": 1}, "full: expected True or False"),
        ({"csv": "train.csv"}, "csv: expected a Path"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(field, message):
    with pytest.raises(dm.ConfigError, match=message):
        Settings(**field)
