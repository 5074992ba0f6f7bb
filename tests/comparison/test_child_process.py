"""A child process and its parent: messages, what is left of a child that dies, what ends it."""

import json
import os
from pathlib import Path

import pytest

import densenet_multi as dm
from densenet_multi.backends import framework_versions
from densenet_multi.comparison.child_process import (
    MARK,
    FinishedError,
    report_of,
    run_child,
    say,
    started,
    wait,
)

IMPORTS = "from densenet_multi.comparison.child_process import run_child, say, wait\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module for a child to run, and returns its name."""

    def write(source: str) -> str:
        (tmp_path / "pretended_child.py").write_text(source, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "pretended_child"

    return write


def report(module: str, receive=lambda _: None):
    name = dm.backend_names()[0]
    found = report_of(module, {"backend": name}, receive)
    assert found.pop("versions") == framework_versions(name)
    return found


# --- What is received --------------------------------------------------------------------------


def test_messages_are_heard_before_the_report_and_what_else_is_printed_is_not(module):
    received = []
    source = f"""{IMPORTS}
def measure(settings):
    print("a word of the framework")
    say({{"step": 1}})
    print("half a line", end="")
    say({{"step": 2}})
    print("more", end="")
    return {{"measured": settings["backend"]}}
run_child(measure)
"""
    found = report(module(source), received.append)
    assert found == {"status": "ok", "measured": dm.backend_names()[0]}
    assert received == [{"step": 1}, {"step": 2}]


def test_a_child_that_waits_goes_on_when_it_is_told_to(module):
    source = f"""{IMPORTS}
def measure(settings):
    for number in range(settings["count"]):
        say({{"number": number}})
        wait()
    return {{}}
run_child(measure)
"""
    with started(module(source), {"count": 2}) as child:
        assert child.receive() == {"number": 0}
        child.proceed()
        assert child.receive() == {"number": 1}
        child.proceed()
        assert child.receive() == {"status": "ok"}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("BackendNotInstalledError('type this')", ("not installed", "type this")),
        ("ValueError('found 3')", ("failed", "ValueError: found 3")),
    ],
)
def test_what_a_child_raises_is_its_report(module, raised, expected):
    source = f"""{IMPORTS}
from densenet_multi.backends import BackendNotInstalledError
def measure(settings):
    raise {raised}
run_child(measure)
"""
    assert tuple(report(module(source)).values()) == expected


# --- How a child ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("sys.exit('out of order')", "exit code 1: it says:\nout of order"),
        ("sys.exit()", "exit code 0: it says:"),
        ("os.abort()", "signal SIGABRT: it says:"),
        # earlier output does not explain a kill
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
    ],
)
def test_a_child_that_ends_without_a_report_has_failed_and_the_parent_says_how(
    module, ending, expected
):
    source = f"import os, sys\nprint('it says:', file=sys.stderr, flush=True)\n{ending}"
    error = f"its process ended with {expected}"
    assert report(module(source)) == {"status": "failed", "error": error}


def test_a_child_that_has_died_is_told_to_go_on_in_vain(module):
    source = f"{IMPORTS}\nsay({{}})\nimport os\nos._exit(3)"
    with started(module(source), {}) as child:
        assert child.receive() == {}
        ended = {"status": "failed", "error": "its process ended with exit code 3"}
        assert child.receive() == ended
        child.proceed()
        assert child.receive() == ended


def test_a_message_that_is_cut_off_is_not_heard(module):
    source = f"import os\nos.write(1, b'{MARK}[1')\nos.kill(os.getpid(), 9)"
    assert report(module(source))["error"] == "its process ended with signal SIGKILL"


def test_an_interruption_ends_the_child(module):
    source = f"{IMPORTS}\nimport os, time\nsay({{'id': os.getpid()}})\ntime.sleep(60)"
    received = []

    def interrupt(message):
        received.append(message["id"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report(module(source), interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(received[0], 0)


def test_a_child_without_a_parent_ends_by_itself(monkeypatch, capsys, tmp_path):
    (tmp_path / "empty").touch()
    with Path(tmp_path / "empty").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        monkeypatch.setattr("sys.argv", ["child", json.dumps({})])

        def measure(_):
            say({"round": 1})
            wait()
            raise AssertionError

        run_child(measure)  # sends no report
        assert capsys.readouterr().out == f'{MARK}{{"round": 1}}\n'
        with pytest.raises(FinishedError):
            wait()


def test_a_folder_named_like_a_framework_does_not_shadow_it(module, tmp_path, monkeypatch):
    (tmp_path / "here" / "torch").mkdir(parents=True)
    (tmp_path / "here" / "torch" / "__init__.py").touch()
    source = f"""{IMPORTS}
from importlib.util import find_spec
def measure(_):
    found = find_spec("torch")
    return {{"found": bool(found and found.origin.startswith({str(tmp_path)!r}))}}
run_child(measure)
"""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    assert report(module(source)) == {"status": "ok", "found": False}
