"""``train`` and ``evaluate`` let glibc keep freed memory: in their process, and nobody else's."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

import densenet_multi as dm
from densenet_multi import _memory

IS_GLIBC = "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "") if hasattr(os, "confstr") else False
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason="another C library has other settings")

MAPPED = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def is_mapped():
    # glibc stores a block's size before it; bit 1 of it tells a block that munmap will return
    address = libc.malloc(2**26) - ctypes.sizeof(ctypes.c_size_t)
    return bool(ctypes.c_size_t.from_address(address).value & 2)
"""
COMMAND = """
import json, sys
from unittest.mock import Mock
from click.testing import CliRunner
import densenet_multi as dm
from densenet_multi.commands import main
from densenet_multi.tasks import evaluate, predict, train

seen = [is_mapped()]
stop = lambda *_, **__: seen.append(is_mapped()) or (_ for _ in ()).throw(dm.ConfigError("stop"))
for module in (evaluate, predict, train):
    name = module.__name__.rpartition(".")[2]
    setattr(module, name, stop)
done = CliRunner().invoke(main, sys.argv[1:])
assert "stop" in done.stderr, done.output
print(json.dumps(seen))
"""


def in_process(code, *arguments, **environment):
    """What the code prints in a process without settings of malloc but ``environment``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", _memory.TUNABLES))}
    done = subprocess.run(
        [sys.executable, "-c", MAPPED + code, *map(str, arguments)],
        env=kept | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.touch()
    return path


@needs_glibc
def test_evaluate_keeps_freed_memory_and_predict_does_not(file):
    assert in_process(COMMAND, "evaluate", file) == [True, False]
    assert in_process(COMMAND, "predict", file, file) == [True, True]


@needs_glibc
@pytest.mark.parametrize("name", dm.backend_names())
def test_only_a_backend_that_gains_keeps_freed_memory_in_training(name):
    gains = name in _memory.GAINING
    assert in_process(COMMAND, "train", "--backend", name) == [True, not gains]


@needs_glibc
def test_training_that_saves_memory_returns_freed_memory():
    (name,) = _memory.GAINING
    if name in dm.backend_names():
        arguments = ("train", "--backend", name, "--memory-efficient")
        assert in_process(COMMAND, *arguments) == [True, True]


@needs_glibc
def test_a_gpu_leaves_the_memory_alone(file):
    assert in_process(COMMAND, "evaluate", file, "--device", "gpu") == [True, True]
    assert in_process(COMMAND, "evaluate", file, "--device", "cpu") == [True, False]


@needs_glibc
def test_the_library_leaves_the_memory_of_its_users_alone():
    code = """
import contextlib, json, sys
import densenet_multi as dm
from densenet_multi.commands import evaluate, train  # to import them is not to run them
from densenet_multi.tasks import evaluate, train
with contextlib.suppress(OSError, ValueError):
    train.train(train.Options(backend_name="none"))
with contextlib.suppress(OSError, ValueError):
    evaluate.evaluate("none.safetensors")
print(json.dumps(is_mapped()))
"""
    assert in_process(code) is True


@needs_glibc
@pytest.mark.parametrize(
    "chosen",
    [
        {"MALLOC_TRIM_THRESHOLD_": "65536"},
        {"MALLOC_MMAP_THRESHOLD_": "65536"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"},
    ],
    ids=lambda chosen: next(iter(chosen)),
)
def test_what_the_user_has_set_stays(file, chosen):
    assert in_process(COMMAND, "evaluate", file, **chosen) == [True, True]
    code = "import json; from densenet_multi import _memory; print(json.dumps(_memory.obstacle()))"
    assert in_process(code, **chosen) == f"set by {next(iter(chosen))}"


def test_a_tunable_of_something_else_is_no_setting_of_memory(monkeypatch):
    monkeypatch.setattr(_memory, "_is_glibc", lambda: True)
    for name in list(os.environ):
        if name.startswith("MALLOC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.x86_shstk=off")
    assert _memory.obstacle() is None


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda _: None, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert _memory.obstacle() == "the C library is not glibc"
    assert not _memory.keep_freed_memory(None)


def test_info_tells_whether_freed_memory_is_kept(monkeypatch):
    from click.testing import CliRunner

    from densenet_multi.commands import main

    def shown():
        return json.loads(CliRunner().invoke(main, ["info", "--format", "json"]).stdout)

    monkeypatch.setattr("densenet_multi.commands.info.obstacle", lambda: None)
    assert shown()["freed_memory"] == "kept by train and evaluate, with torch on a CPU"
    monkeypatch.undo()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setattr(_memory, "_is_glibc", lambda: True)
    found = shown()
    assert found["freed_memory"].startswith("as the C library does (set by ")
    assert "MALLOC_TRIM_THRESHOLD_" in found["freed_memory"]
    assert found["settings"]["MALLOC_TRIM_THRESHOLD_"] == "65536"
