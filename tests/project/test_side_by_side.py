"""The page "Side by side" shows all of the lesson's code, and only names that exist."""

import ast
import re
from pathlib import Path

import pytest

import densenet_multi as dm

PACKAGE = Path(dm.__file__).parent
BACKENDS = sorted(path.parent.name for path in PACKAGE.glob("*/faster"))
PAGE = (Path(__file__).parents[2] / "docs" / "side-by-side.md").read_text("utf-8")
FENCES = re.findall(r"^```\{side-by-side\} (.*)\n((?::.*\n)*)```$", PAGE, re.MULTILINE)


def shown(backend: str) -> set[str]:
    """The names that the page shows for one backend."""
    names = set()
    for everywhere, options in FENCES:
        own = dict(re.findall(r"^:(\w+): (.*)$", options, re.MULTILINE))
        assert own.keys() <= set(BACKENDS)
        names |= set(own.get(backend, everywhere).split())
    return names


def defined(backend: str, file: str) -> set[str]:
    """The classes and functions of one file of a backend."""
    body = ast.parse((PACKAGE / backend / file).read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_every_fence_is_read():
    assert len(FENCES) == PAGE.count("{side-by-side}") > 15


@pytest.mark.parametrize("folder", BACKENDS)
def test_every_class_every_layer_and_the_loop_are_shown(folder):
    layers = defined(folder, "layers.py") - {"operators"}  # Gluon's helper
    assert shown(folder) >= defined(folder, "model.py") | layers | {"fit"}


@pytest.mark.parametrize("folder", BACKENDS)
def test_every_name_that_is_shown_exists(folder):
    files = ("model.py", "layers.py", "train.py")
    assert shown(folder) <= set().union(*(defined(folder, file) for file in files))


def test_every_comparison_has_a_sentence_on_why_the_frameworks_differ():
    heading = re.compile(r"^#+ ", re.MULTILINE)
    for part in heading.split(PAGE)[1:]:
        text, fence, _ = part.partition("```{side-by-side}")
        sentences = text.partition("\n")[2].strip()
        assert not fence or sentences.endswith("."), part
