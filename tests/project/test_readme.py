"""What README and tests/README print is what runs."""

import re
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import densenet_multi as dm
import mutants
import side_by_side
from densenet_multi import data
from densenet_multi.comparison.compare_child import code_lines
from densenet_multi.data import load_sample

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_is_short_enough_to_read():
    lines = README.splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 100


def test_the_readme_shows_the_four_translations_as_they_are():
    assert f"```python\n{side_by_side.block()}```" in README


def test_the_import_of_each_backend_builds_what_the_readme_says(backend):
    pattern = rf"^(import densenet_multi\.{backend.NAME} as .*)  # (\S*) is an? (\S+), "
    ((line, build, kind),) = re.findall(pattern, README, re.MULTILINE)
    names = {"spec": dm.get_spec("d2l", block_config=(1,))}
    exec(line, names)  # noqa: S102  # README's own code
    model = eval(build, names)  # noqa: S307
    assert isinstance(model, backend.DenseNet)
    bases = [f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__]
    package, name = kind.rpartition(".")[::2]
    assert any(base.endswith(f".{name}") and package[:2] in base for base in bases)


@pytest.fixture(params=[100, pytest.param(1000, marks=pytest.mark.long)], ids="{} images".format)
def examples(request, monkeypatch):
    """How many images each half of the sample has in this test; in truth, 1,000."""

    def few(split: str) -> tuple[object, ...]:
        return tuple(array[: request.param] for array in load_sample(split))

    monkeypatch.setattr(data, "load_sample", few)
    monkeypatch.setattr(data.fashion_mnist, "load_sample", few)
    return request.param


@pytest.mark.long("keras", "flax")
def test_the_snippet_of_the_page_on_training_goes_on_to_the_same_weights(backend, examples, capsys):
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    snippet = snippet.replace('"torch"', repr(backend.NAME), 1)
    snippet = snippet.replace("batch_size=100", f"batch_size={examples // 10}")
    exec(snippet, names)  # noqa: S102  # the page's own code
    assert capsys.readouterr().out.count("Step(") == 20
    expected = backend.export_weights(names["model"])
    for name, array in backend.export_weights(names["again"]).items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_comparison_counts_the_lines_of_each_model_as_it_is(backend):
    (heading,) = re.findall(r"^ {20,}(flax .*)$", README, re.MULTILINE)
    (counts,) = re.findall(r"^  lines of model.py (.*)$", README, re.MULTILINE)
    lines = dict(zip(heading.split(), counts.split(), strict=True))[backend.NAME]
    assert int(lines) == code_lines(sys.modules[backend.DenseNet.__module__])


def test_the_tables_of_results_are_made_from_the_files_beside_them():
    folder = ROOT / "docs" / "results"
    for name, tables in run_path(str(folder / "scripts" / "tables.py"))["tables"]().items():
        page = (folder / f"{name}.md").read_text("utf-8")
        assert [table for table in tables if table not in page] == []
        assert page.count("|---|") == len(tables)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.promise.replace(" ", "_"))
def test_each_break_applies_to_the_code_as_it_is(mutant):
    source = mutant.source()
    if not source.parent.is_dir():
        pytest.skip(f"backend {source.parent.name} was removed")
    assert source.read_text("utf-8").count(mutant.old) == 1
