"""README and the pages show code that runs, and tables made from results; breaks still apply."""

import re
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import densenet_multi as dm
import mutants
import side_by_side
from densenet_multi import data, formats
from densenet_multi.comparison.compare_child import code_lines
from densenet_multi.data import load_sample
from densenet_multi.formats.pretrained import SOURCES
from extensions import measured
from extensions.pages import page_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.compile(
    r"^ *`{3,}(?:python|py|\{code(?:-block)?\} python)\n(.*?)^ *`{3,}$", re.DOTALL | re.MULTILINE
)
RUN_BY = {  # each fence contains exactly one of these texts -> the test that runs it
    "# Flax NNX": "test_the_readme_shows_the_four_translations_as_they_are",
    "dt.build(spec)": "test_the_import_of_each_backend_builds_what_the_readme_says",
    "df.import_weights(": "test_snippets_load_weights",
    "b.fit(": "test_the_snippet_of_the_page_on_training_goes_on_to_the_same_weights",
    "scene.paste(": "test_the_scene_has_two_photos_of_the_folder",
    "formats.read(": "test_the_snippet_of_the_page_on_formats_reads_a_file",
    "dm.DenseNetConfig(": "test_the_snippet_of_the_page_on_variants_counts_parameters",
    "b.optimize(": "test_the_snippet_of_the_page_on_speed_computes_the_same_logits",
}


def fences(part: str = "") -> list[str]:
    """Return the Python fences of README, CONTRIBUTING and the pages that contain this part."""
    pages = ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in page_names())]
    found = [code for page in pages for code in PYTHON.findall((ROOT / page).read_text("utf-8"))]
    return [code for code in found if part in code]


def only_fence(part: str) -> str:
    (code,) = fences(part)
    return code


def test_a_test_runs_every_python_fence():
    assert [code for code in fences() if sum(part in code for part in RUN_BY) != 1] == []
    assert [part for part in RUN_BY if not fences(part)] == []
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in RUN_BY.values() if f"def {name}(" not in tests] == []


def test_lines_of_pages_are_at_most_as_long_as_those_of_code():
    code = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$", re.DOTALL | re.MULTILINE)  # and outputs
    long = [
        (name, line)
        for name in page_names()
        for line in code.sub("", (ROOT / "docs" / f"{name}.md").read_text("utf-8")).splitlines()
        if len(line) > 100 and not re.match(r"\||\[[^]]*\]\(\S+$", line)  # a table, a link
    ]
    assert long == []


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


def test_snippets_load_weights(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = dm.get_spec("d2l", block_config=(1,))
    weights = dm.init_weights(spec, seed=1)
    for code in fences("df.import_weights("):
        (file,) = re.findall(r'load_weights\("(.*)"\)', code)
        dm.save_weights(file, spec, weights)
        names = {"dm": dm, "df": backend}  # README imports them in the fence above
        ours = code.replace("densenet_multi.flax", f"densenet_multi.{backend.NAME}")
        exec(ours, names)  # noqa: S102  # the page's own code
        for name, array in backend.export_weights(names["model"]).items():
            np.testing.assert_array_equal(array, weights[name])


def test_the_snippet_of_the_page_on_formats_reads_a_file(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = only_fence("formats.read(")
    (file,) = re.findall(r'formats\.read\("(.*)"\)', code)
    spec = dm.get_spec("d2l", block_config=(1,))
    weights = dm.init_weights(spec, seed=1)
    formats.write(file, dm.Checkpoint(spec, weights), "portable")  # its content tells its format
    requested = []
    monkeypatch.setattr(
        dm, "from_pretrained", lambda name, source: requested.append((source, name)), raising=False
    )
    names: dict[str, object] = {}
    code = re.sub(r'load_backend\("\w+"\)', f'load_backend("{backend.NAME}")', code)
    exec(code, names)  # noqa: S102  # the page's own code
    for name, array in backend.export_weights(names["model"]).items():
        np.testing.assert_array_equal(array, weights[name])
    assert requested
    assert all(name in SOURCES[source] for source, name in requested)


def test_the_snippet_of_the_page_on_variants_counts_parameters(capsys):
    names: dict[str, object] = {}
    exec(only_fence("dm.DenseNetConfig("), names)  # noqa: S102
    count = sum(
        each.size
        for name, each in dm.init_weights(names["spec"]).items()
        if dm.tensors(names["spec"])[name].role == "trainable"
    )
    assert capsys.readouterr().out == f"{count}\n"


def test_the_snippet_of_the_page_on_speed_computes_the_same_logits(backend):
    names: dict[str, object] = {}
    code = only_fence("b.optimize(")
    code = re.sub(r'load_backend\("\w+"\)', f'load_backend("{backend.NAME}")', code)
    code = code.replace('get_spec("densenet121")', 'get_spec("d2l", block_config=(2, 2))')
    exec(code, names)  # noqa: S102  # the page's own code
    images = np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype(np.float32)
    fast, plain = (backend.predict(names[name], images) for name in ("fast", "model"))
    np.testing.assert_allclose(fast, plain, atol=1e-5 * np.abs(plain).max())


@pytest.fixture(params=[100, pytest.param(1000, marks=pytest.mark.long)], ids="{} images".format)
def examples(request, monkeypatch):
    """How many images each split of the sample has in this test; the real number is 1,000."""

    def few(split: str) -> tuple[object, ...]:
        return tuple(array[: request.param] for array in load_sample(split))

    monkeypatch.setattr(data, "load_sample", few)
    monkeypatch.setattr(data.fashion_mnist, "load_sample", few)
    return request.param


@pytest.mark.long("keras", "flax")
def test_the_snippet_of_the_page_on_training_goes_on_to_the_same_weights(backend, examples, capsys):
    names: dict[str, object] = {}
    snippet = only_fence("b.fit(")
    snippet = snippet.replace('"torch"', repr(backend.NAME), 1)
    snippet = snippet.replace("batch_size=100", f"batch_size={examples // 10}")
    exec(snippet, names)  # noqa: S102  # the page's own code
    assert capsys.readouterr().out.count("Step(") == 20
    expected = backend.export_weights(names["model"])
    for name, array in backend.export_weights(names["again"]).items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_readme_shows_what_compare_printed():
    stored = measured.printed_by("compare", ROOT / "tests" / "browser")
    (shown,) = re.findall(r"^```\n(64 Fashion-MNIST.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert shown == stored.rstrip() + "\n"


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
