"""``train`` and ``evaluate`` keep freed memory for PyTorch: in their process, and nobody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi import _memory
from densenet_multi.commands import main
from densenet_multi.commands import train as train_command
from densenet_multi.tasks import evaluate, train

SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "scripts" / "kept_memory.py"


@pytest.fixture
def unset(monkeypatch):
    """A system where memory is kept, and no setting of the user."""
    for name in (_memory.VARIABLE, *_memory.TUNED, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_memory.platform, "libc_ver", lambda: ("glibc", "2.36"))


@pytest.fixture
def calls(monkeypatch):
    """What glibc is told, in place of glibc."""
    found = []

    def mallopt(*arguments):
        found.append(arguments)
        return 1

    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    return found


@pytest.mark.usefixtures("unset")
def test_freed_memory_is_kept_for_pytorch_alone(calls):
    assert _memory.keep_memory("torch")
    assert calls == [(_memory.M_MMAP_MAX, 0), (_memory.M_TRIM_THRESHOLD, _memory.MOST)]
    calls.clear()
    assert not any(map(_memory.keep_memory, ("keras", "gluon", "flax", "onnxruntime")))
    assert not calls


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (_memory.VARIABLE, "0"),
        ("MALLOC_TRIM_THRESHOLD_", "1"),
        ("MALLOC_MMAP_THRESHOLD_", "1"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ],
)
def test_what_the_user_has_set_stays(calls, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not _memory.keep_memory("torch")
    assert not calls
    assert _memory.obstacle() == f"{name} is set to {value!r}"
    monkeypatch.setenv(name, "1" if name == _memory.VARIABLE else value)
    assert (_memory.obstacle() is None) == (name == _memory.VARIABLE)


@pytest.mark.usefixtures("unset")
def test_another_system_is_left_alone(calls, monkeypatch):
    monkeypatch.setattr(_memory.platform, "libc_ver", lambda: ("", ""))
    assert not _memory.keep_memory("torch")
    assert not calls


def test_both_commands_tell_which_backend_works(monkeypatch, tmp_path):
    told = []

    def stop(name):
        told.append(name)
        raise dm.ConfigError("stopped")

    monkeypatch.setattr(train_command, "keep_memory", stop)
    monkeypatch.setattr(_memory, "keep_memory", stop)
    spec, path = dm.get_spec("d2l"), tmp_path / "w.safetensors"
    dm.save_weights(path, spec, dm.init_weights(spec))
    for arguments in (["train"], ["evaluate", str(path)]):
        options = ["--data", "folder:absent", "--backend", "torch"]
        done = CliRunner().invoke(main, [*arguments, *options])
        assert "stopped" in done.stderr, done.output
    assert told == ["torch", "torch"]


def test_the_library_leaves_the_processes_of_its_users_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: pytest.fail("glibc was told something"))
    monkeypatch.delenv(_memory.VARIABLE)
    with pytest.raises((OSError, ValueError)):
        train.train(train.Options(backend_name="none", data=f"folder:{tmp_path}"))
    with pytest.raises((OSError, ValueError)):
        evaluate.evaluate(tmp_path / "none.safetensors")


@pytest.mark.usefixtures("unset")
def test_info_tells_whether_freed_memory_is_kept(monkeypatch):
    def shown():
        return json.loads(CliRunner().invoke(main, ["info", "--format", "json"]).stdout)

    assert shown()["freed_memory"] == "kept by train and evaluate, in PyTorch"
    monkeypatch.setenv(_memory.VARIABLE, "0")
    found = shown()
    why = f"({_memory.VARIABLE} is set to '0')"
    assert found["freed_memory"] == f"returned to the system {why}"
    assert found["settings"][_memory.VARIABLE] == "0"


CODE = """
import resource, sys
import numpy as np
from densenet_multi import _memory
if sys.argv[1] == "kept":
    assert _memory.keep_memory("torch")
np.ones(2**23)  # 64 MiB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(_memory.platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize("what", ["kept", "returned"])
def test_glibc_then_needs_no_new_page_for_an_array_like_the_last(what):
    settings = {name: value for name, value in os.environ.items() if name != _memory.VARIABLE}
    command = [sys.executable, "-c", CODE, what]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 if what == "kept" else int(done.stdout) > 100


def test_the_script_that_measures_does_not_count_the_start_of_a_process():
    measured = run_path(str(SCRIPT))["measured"]
    few, many = ({"examples": 1_000}, 10.0, 5), ({"examples": 10_000}, 55.0, 7)
    assert measured([few, many]) == {"images_per_second": 200.0, "peak_bytes": 7}
    epochs = [{"images_per_second": speed} for speed in (1.0, 50.0, 70.0)]
    found = measured([({"epochs": epochs}, 100.0, 9)])
    assert found == {"images_per_second": 60.0, "peak_bytes": 9}
