"""Which backends a run tests, and the table of deviations it measured.

``pytest`` tests every installed backend. ``--backends torch,flax`` tests exactly these; one that
cannot be imported then fails. ``--backends none`` runs only the framework-free tests.

The tests of ONNX files, in tests/onnx, run where ``onnx`` and ``onnxruntime`` are installed.
``--backends onnx`` requests them, as the name of a backend requests that backend's.

A backend that cannot be installed here, such as Gluon on Python 3.13, is named with the reason.
Tests of all backends together then use the others.

Tests run on the CPU, or with ``--device gpu`` on a GPU, which is then required. Tests marked
``long`` are deselected unless ``-m`` names the marker: ``pytest -m long``.
"""

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

import densenet_multi as dm
from available import AVAILABLE, left_out
from densenet_multi._memory import VARIABLE
from densenet_multi.backends import SHARED_GPU, hide_gpus, installed_backends, place
from tolerances import TIERS, Deviations

# Before any framework is imported. Threads that spin while they wait for work starve the other
# frameworks on a small machine; XLA's optimizer takes longer than these small networks do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FLAGS = ["--xla_backend_optimization_level=0"]
with suppress(PackageNotFoundError):
    # later versions do not know this flag, and abort
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
os.environ[VARIABLE] = "0"  # tests run commands in their own process

ONNX = "onnx"  # an extra, and the folder of its tests
DEVIATIONS = pytest.StashKey[Deviations]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backends", help="comma-separated, or 'none'; default: those installed")
    parser.addoption("--device", choices=["cpu", "gpu"], default="cpu", help="default: cpu")


settings.register_profile("untimed", deadline=None)  # slowness on a busy machine is no failure
settings.load_profile("untimed")
settings.register_profile("thorough", max_examples=100)  # see test_parity_generated.py


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DEVIATIONS] = Deviations()
    if config.getoption("--device") == "cpu":
        hide_gpus()
    else:  # compute float32 without TF32, and let processes share the memory
        os.environ |= SHARED_GPU | {"NVIDIA_TF32_OVERRIDE": "0"}
    if len(selected(config)) > 1:
        # as densenet_multi/keras/_startup.py does, before the tests import TensorFlow
        with suppress(ImportError):
            import triton  # noqa: F401


def selected(config: pytest.Config) -> list[str]:
    asked = config.getoption("--backends")
    if asked is None:
        return installed_backends()
    return [name for name in asked.split(",") if name not in ("none", ONNX)]


def with_onnx(config: pytest.Config) -> bool:
    asked = config.getoption("--backends")
    if asked is None:
        return all(find_spec(name) for name in (ONNX, "onnxruntime"))
    return ONNX in asked.split(",")


def pytest_report_header(config: pytest.Config) -> str:
    names = selected(config)
    onnx = "with" if with_onnx(config) else "without"
    header = f"backends: {', '.join(names) or 'none'}, {onnx} ONNX files; "
    header += f"densenet_multi from {dm.__path__[0]}"
    return "\n".join([header, *(f"without {name}: {why}" for name, why in left_out().items())])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name = collection_path.name
    if ONNX in (name, collection_path.parent.name):  # the folder may be named
        return None if with_onnx(config) else True
    if name == "peers":  # other projects' models: nox -s peers-torchvision, ...
        return True
    if name.startswith("test_native_"):
        word, *_ = name.removeprefix("test_native_").removesuffix(".py").split("_")
        return word not in selected(config)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", selected(metafunc.config), indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = selected(config)
    with_long = "long" in config.option.markexpr
    kept, dropped = [], []
    for item in items:
        needs_backend = "backend" in getattr(item, "fixturenames", ())
        if needs_backend or item.path.name.startswith("test_native_"):
            item.add_marker("backend")
        if item.path.parent.name == ONNX:
            item.add_marker(ONNX)
        if item.get_closest_marker("together"):
            wanted = set(names) == set(AVAILABLE)
        else:
            wanted = bool(names) or not needs_backend
        wanted = wanted and (with_long or not is_long(item))
        (kept if wanted else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def is_long(item: pytest.Item) -> bool:
    """Whether a test is marked ``long``, for every backend or for the one that it runs with."""
    callspec = getattr(item, "callspec", None)
    backend = callspec and callspec.params.get("backend")
    return any(not each.args or backend in each.args for each in item.iter_markers("long"))


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Any:
    found: Any = dm.load_backend(request.param)
    if request.config.getoption("--device") == "cpu":
        return found

    def build(*args: Any, **given: Any) -> Any:
        model = found.build(*args, **given)
        place(found, model, "gpu")
        return model

    return SimpleNamespace(**vars(found) | {"build": build})


@pytest.fixture
def deviations(request: pytest.FixtureRequest) -> Deviations:
    return request.config.stash[DEVIATIONS]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):  # a worker process of `-n 2`
        largest = config.stash[DEVIATIONS].largest
        config.workeroutput["deviations"] = [[*key, value] for key, value in largest.items()]


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_testnodedown(node: Any) -> None:
    for tier, name, value in getattr(node, "workeroutput", {}).get("deviations", ()):
        node.config.stash[DEVIATIONS].note(tier, name, value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = terminalreporter.config.stash[DEVIATIONS].largest
    if measured:
        terminalreporter.section("largest deviations from the reference")
    for (tier, name), value in sorted(measured.items()):
        limit = TIERS[tier].tolerance
        terminalreporter.write_line(f"{tier:28} {name:6} {value:8.1e}  (tolerance {limit:.0e})")
