"""The examples in docstrings run, and give the results that they show."""

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import densenet_multi as dm

PACKAGE = Path(dm.__file__).parent
MODULES = [  # those that need no framework and have examples
    *("__init__", "checkpoint", "class_maps", "manifest", "reference", "spec"),
    *("tabular", "variants", "weights"),
    *("data.augment", "data.examples", "data.fashion_mnist", "data.folder", "data.idx"),
    "diagnosis.diagnose",
    *("data.images", "data.held_out", "data.order", "data.resize", "data.sources"),
    *("drawing.__init__", "exercises._interval", "formats.__init__", "formats._channels"),
    "formats.portable",
]


def examples_of(name: str) -> list[doctest.DocTest]:
    module = import_module(f"densenet_multi.{name}".removesuffix(".__init__"))
    found = doctest.DocTestFinder().find(module, extraglobs={"dm": dm, "np": np})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = examples_of(name)
    assert tests, f"densenet_multi.{name}: expected an example (>>> ...) in a docstring"
    for test in tests:
        lines: list[str] = []
        result = doctest.DocTestRunner().run(test, out=lines.append)
        assert not result.failed, "".join(lines)


def test_no_example_is_forgotten():
    paths = (path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text("utf-8"))
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths}
    assert found == set(MODULES)
