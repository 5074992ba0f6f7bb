"""``train`` and ``evaluate`` let PyTorch use large pages: in their process, and nobody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import _large_pages
from densenet_multi.commands import main
from densenet_multi.tasks import evaluate, predict, train

NAME = dm.backend_names()[0]
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "scripts" / "large_pages.py"


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Check that no test leaves the variable to later tests and their processes: conftest.py."""
    before = os.environ.get(_large_pages.VARIABLE)
    yield
    assert os.environ.get(_large_pages.VARIABLE) == before


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.touch()
    return path


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Return a function that sets what the system offers; at first, large pages on request."""
    monkeypatch.delenv(_large_pages.VARIABLE, raising=False)

    def offer(text):
        switch = tmp_path / "enabled"
        switch.write_text(text)
        monkeypatch.setattr(_large_pages, "SWITCH", switch)

    offer("always [madvise] never\n")
    return offer


@pytest.fixture
def variable_in(monkeypatch):
    """Return a function: the variable's value when the work of a command begins."""

    def run(*arguments):
        seen = []

        def stop(*_, **__):
            seen.append(os.environ.get(_large_pages.VARIABLE))
            raise dm.ConfigError("stopped")

        for module in (evaluate, predict, train):
            monkeypatch.setattr(module, module.__name__.rpartition(".")[2], stop)
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert "stopped" in done.stderr, done.output
        (value,) = seen
        return value

    return run


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("name", ["train", "evaluate", "predict"])
def test_train_and_evaluate_request_large_pages_and_predict_does_not(variable_in, file, name):
    arguments = {"train": ["--backend", NAME], "evaluate": [file], "predict": [file, file]}
    assert variable_in(name, *arguments[name]) == (None if name == "predict" else "1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("always madvise [never]", "the system offers none; "),
        ("", "the system offers none; "),
        ("[always] madvise never", "the system uses them without a request"),
    ],
)
def test_nothing_is_requested_in_vain(offered, variable_in, file, text, reason):
    offered(text)
    assert variable_in("evaluate", file) is None
    assert _large_pages.obstacle().startswith(reason)


@pytest.mark.usefixtures("offered")
def test_a_system_without_this_switch_is_left_alone(variable_in, file, monkeypatch):
    monkeypatch.setattr(_large_pages, "SWITCH", file.with_name("none"))
    assert variable_in("evaluate", file) is None
    assert _large_pages.obstacle().endswith("none: no such file")


@pytest.mark.usefixtures("offered")
def test_what_the_user_has_set_stays(variable_in, file, monkeypatch):
    monkeypatch.setenv(_large_pages.VARIABLE, "0")
    assert not _large_pages.request_large_pages()
    assert variable_in("evaluate", file) == "0"


def test_the_library_leaves_the_processes_of_its_users_alone():
    code = """
import contextlib, os
import densenet_multi as dm
from densenet_multi.commands import evaluate, info, train  # to import them is not to run them
from densenet_multi.tasks import evaluate, train
before = dict(os.environ)
with contextlib.suppress(OSError, ValueError):
    train.train(train.Options(backend_name="none", data="folder:none"))
with contextlib.suppress(OSError, ValueError):
    evaluate.evaluate("none.safetensors")
print(os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""
    kept = {name: value for name, value in os.environ.items() if name != _large_pages.VARIABLE}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.usefixtures("offered")
def test_info_tells_whether_large_pages_are_requested(monkeypatch):
    def shown():
        return json.loads(CliRunner().invoke(main, ["info", "--format", "json"]).stdout)

    assert shown()["large_pages"] == "requested by train and evaluate, for PyTorch on a CPU"
    assert _large_pages.VARIABLE not in os.environ
    monkeypatch.setenv(_large_pages.VARIABLE, "0")
    found = shown()
    assert found["large_pages"] == f"not requested ({_large_pages.VARIABLE} is set to '0')"
    assert found["settings"][_large_pages.VARIABLE] == "0"


def test_the_script_that_measures_does_not_count_the_start_of_a_process():
    measured = run_path(str(SCRIPT))["measured"]
    few, many = ({"examples": 1_000}, 10.0, 5), ({"examples": 10_000}, 55.0, 7)
    assert measured([few, many]) == {"images_per_second": 200.0, "peak_bytes": 7}
    epochs = [{"images_per_second": speed} for speed in (1.0, 50.0, 70.0)]
    found = measured([({"epochs": epochs}, 100.0, 9)])
    assert found == {"images_per_second": 60.0, "peak_bytes": 9}
