"""The outputs in the documentation are what the code printed (docs/extensions/).

No test here needs Sphinx. Those with a backend run the pages' blocks again.
"""

import ast
import json
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import densenet_multi as dm
from extensions import child, execute, follow, pages, pictures, shipped, stamp

PACKAGE = Path(dm.__file__).parent
ROOT = pages.DOCS.parent
TEXT = """# A page

```{run} torch
:varies:

x = 1
```
```{run} keras
y = 2
```

````{only-in} torch
```{run} torch
:alt: A dot
x + 1
```
````

::::{dropdown} Why?
:::{note}
```{run} python
z = 3
```
:::
::::

```python
not_run = 1
```

````
```{run} torch
shown, not run
```
````

:::{run} torch
x + 2
:::
"""


# --- Pages --------------------------------------------------------------------------------------


def test_the_blocks_of_a_page_are_found_with_their_lines_and_options():
    found = pages.parse("page", TEXT)
    torch = [(block.line, block.code, block.options) for block in found.pop("torch")]
    assert torch == [
        (6, "x = 1", {"varies": ""}),
        (15, "x + 1", {"alt": "A dot"}),
        (38, "x + 2", {}),
    ]
    others = {name: [(b.line, b.code) for b in blocks] for name, blocks in found.items()}
    assert others == {"keras": [(9, "y = 2")], "python": [(22, "z = 3")]}
    lines = TEXT.splitlines()
    assert all(lines[line - 1] == code for line, code, _ in torch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n```{run} caffe\nx\n```\n", "page.md:2: expected one of torch, keras, .* found 'caffe'"),
        ("```{run} torch\n:hide:\nx\n```\n", "page.md:1: {run} has no option 'hide'"),
        ("text\n```{run} torch\nx\n", "page.md:2: this fence is never closed"),
        (":::{note}\n\n:::{tip}\ntext. :::\n", "page.md:3: this fence is never closed"),
    ],
)
def test_a_block_that_cannot_be_read_is_an_error_with_page_and_line(text, message):
    with pytest.raises(pages.PageError, match=message):
        pages.parse("page", text)


def keys(text: str) -> dict[str, list[str]]:
    return {name: [b.key for b in blocks] for name, blocks in pages.parse("page", text).items()}


def test_a_changed_block_changes_those_after_it_in_the_same_framework():
    before, after = keys(TEXT), keys(TEXT.replace("x + 1", "x + 7"))
    assert [a == b for a, b in zip(before["torch"], after["torch"], strict=True)] == [
        True, False, False
    ]  # fmt: skip
    assert before["keras"] == after["keras"]
    assert before["python"] == after["python"]


def test_an_option_does_not_change_a_block():
    assert keys(TEXT.replace(":varies:\n", "")) == keys(TEXT)


# --- Freshness ----------------------------------------------------------------------------------

CODE = """
import densenet_multi as dm
import densenet_multi.torch as dt
from densenet_multi.data import load_sample
b = dm.load_backend("keras")
dt.DenseBlock, b.fit, dm.reference.convolve, dm.RECIPES["chapter"], dm.get_spec("d2l").config
"""


def sources(package: Path, code: str = CODE) -> dict[str, str]:
    (found,) = stamp.sources_of([pages.Block("page", "torch", 0, 1, code, "")], package)
    return found


@pytest.fixture
def site(tmp_path):
    """A copy of the package, and a page whose outputs are fresh: {"docs": ..., "package": ...}."""
    package = tmp_path / "densenet_multi"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    (docs := tmp_path / "docs").mkdir()
    code = "```{run} python\nimport densenet_multi as dm\ndm.get_spec\n```\n"
    (docs / "page.md").write_text(f"{code}\n```{{run}} python\ndm.count_parameters\n```\n")
    blocks = pages.blocks_of("page", docs)["python"]
    found = zip(blocks, stamp.sources_of(blocks, package), strict=True)
    empty = {"outputs": [], "made": stamp.hash_of([])}
    entries = [{"key": block.key, "sources": used, **empty} for block, used in found]
    (docs / "outputs").mkdir()
    stamp.output_path("page", "python", docs).write_text(json.dumps({"blocks": entries}))
    assert stamp.problems(docs, package) == []
    return {"docs": docs, "package": package}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_what_a_block_uses_of_the_package_is_found_through_its_imports():
    installed = {path.parent.name for path in PACKAGE.glob("*/model.py")}
    expected = {
        "densenet_multi.torch.DenseBlock", "densenet_multi.keras.fit", "densenet_multi.RECIPES",
        "densenet_multi.data.load_sample", "densenet_multi.get_spec",
        "densenet_multi.load_backend", "densenet_multi.reference.convolve",
    }  # fmt: skip
    gone = {n for n in expected if n.split(".")[1] in {"torch", "keras"} - installed}
    assert sources(PACKAGE).keys() == expected - gone


def test_every_output_on_the_site_is_fresh():
    """If this fails, run ``nox -s outputs``."""
    there = {"python", *(path.parent.name for path in PACKAGE.glob("*/model.py"))}
    assert [str(p) for p in stamp.problems() if p.framework in there] == []
    assert stamp.leftovers() == []


def test_every_output_has_a_stamp():
    for path in pages.OUTPUTS.rglob("*.json"):
        kept = json.loads(path.read_text("utf-8"))
        assert {"Python", "NumPy", "densenet_multi"} <= kept["versions"].keys()
        assert date.fromisoformat(kept["date"]) <= date.today()  # noqa: DTZ011
        assert kept["machine"]
        assert kept["seconds"] > 0


def test_the_outputs_are_those_of_the_pinned_versions():
    for path in pages.OUTPUTS.rglob("*.json"):
        stored = json.loads(path.read_text("utf-8"))["versions"]
        assert stored.pop("densenet_multi") == dm.__version__
        pins = pinned(stored.pop("Python"))
        stored["numpy"] = stored.pop("NumPy")
        found = {name: version.split("+")[0] for name, version in stored.items()}
        assert found == {name: pins[name] for name in found}, path.name


def pinned(python: str) -> dict[str, str]:
    """The versions in constraints*.txt for a version of Python."""
    text = "".join((ROOT / f"constraints{name}.txt").read_text("utf-8") for name in ("", "-torch"))
    lines = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    wanted = {"python_version": python.rpartition(".")[0]}
    found = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate(wanted)]
    return {requirement.name: str(requirement.specifier)[2:] for requirement in found}


def test_a_changed_block_is_stale_and_so_is_the_next(site):
    replaced(site["docs"] / "page.md", "dm.get_spec", "dm.get_spec  # why")
    problems = stamp.problems(**site)
    assert [problem.line for problem in problems] == [2, 7]
    message = "docs/page.md:2: the python output is stale: its code, or code before it, has changed"
    assert str(problems[0]) == f"{message}; run: nox -s outputs"


def test_a_new_block_has_no_output(site):
    with (site["docs"] / "page.md").open("a") as page:
        page.write("\n```{run} torch\n1\n```\n")
    (problem,) = stamp.problems(**site)
    assert str(problem) == "docs/page.md:11: the torch output is missing; run: nox -s outputs"


def test_changed_code_of_the_package_is_stale_where_it_is_used(site):
    replaced(site["package"] / "manifest.py", "def count_param", "@print\ndef count_param")
    (problem,) = stamp.problems(**site)
    assert (problem.line, problem.reason) == (
        7, "is stale: densenet_multi.count_parameters, or code that it uses, has changed"
    )  # fmt: skip


EPSILON = "torch/layers.py", "eps=spec.eps", "eps=2 * spec.eps"
BYTES = "manifest.py", "    def activation_bytes(self", "    @print\n    def activation_bytes(self"


@pytest.mark.parametrize(
    ("change", "used", "same"),
    [
        (EPSILON, "densenet_multi.torch.build", False),
        (EPSILON, "densenet_multi.torch.fit", False),
        (EPSILON, "densenet_multi.profile", True),
        (BYTES, "densenet_multi.profile", False),
        (BYTES, "densenet_multi.reference.convolve", True),
        (BYTES, "densenet_multi.spec", True),
        (("weights.py", "Return random", "Return"), "densenet_multi.init_weights", True),
        (("torch/train.py", "# swaps", "# exchanges"), "densenet_multi.torch.fit", True),
        (("reference.py", "def relu(", "@print\ndef relu("), "densenet_multi.reference", False),
    ],
)
def test_what_a_name_uses_in_turn_counts(site, change, used, same):
    file, old, new = change
    if not (site["package"] / "torch").exists():
        pytest.skip("this backend was deleted")
    before = follow.code_of(site["package"]).hash_of(used)
    assert before
    replaced(site["package"] / file, old, new)
    assert (follow.code_of(site["package"]).hash_of(used) == before) == same


def test_an_alias_of_a_module_uses_all_of_it(site):
    code = "import densenet_multi as dm\nref = dm.reference\nref.convolve"
    before = sources(site["package"], code)
    assert before.keys() == {"densenet_multi.reference"}
    replaced(site["package"] / "reference.py", "def convolve(", "@print\ndef convolve(")
    assert sources(site["package"], code) != before


def test_an_output_that_was_edited_by_hand_is_not_shown(site):
    path = stamp.output_path("page", "python", site["docs"])
    kept = json.loads(path.read_text("utf-8"))
    kept["blocks"][1]["outputs"] = [{"text": "0.93"}]
    path.write_text(json.dumps(kept), "utf-8")
    (problem,) = stamp.problems(**site)
    assert (problem.line, problem.reason) == (
        7, "was not made by its code: the file was edited"
    )  # fmt: skip


def test_outputs_that_cannot_be_read_are_an_error_with_advice(site):
    stamp.output_path("page", "python", site["docs"]).write_text("<<<<<<< HEAD\n{}")
    message = r"docs/outputs/page-python\.json: expected JSON, .* delete it, run: nox -s outputs"
    with pytest.raises(pages.PageError, match=message):
        stamp.problems(**site)


def test_a_name_that_is_gone_is_stale(site):
    replaced(site["package"] / "__init__.py", "    count_parameters,\n", "")
    (problem,) = stamp.problems(**site)
    assert problem.reason == "is stale: densenet_multi.count_parameters is gone"


def test_docstrings_and_comments_do_not_count(site):
    before = sources(site["package"])
    replaced(site["package"] / "variants.py", "def get_spec(", "# a comment\ndef get_spec(")
    replaced(
        site["package"] / "data" / "fashion_mnist.py", "def load_sample(", "#\ndef load_sample("
    )
    for path in site["package"].glob("*/model.py"):
        text = path.read_text("utf-8").replace("class DenseBlock(", "# why\nclass DenseBlock(")
        path.write_text(text, "utf-8")
    assert sources(site["package"]) == before
    documented = 'def f(x):\n    """One."""\n    return x  # one'
    plain = "def f(x):\n    return x"
    one, other = (follow.source_hash(ast.parse(text).body[0]) for text in (documented, plain))
    assert one == other
    assert one != follow.source_hash(ast.parse("def f(x):\n    return 1").body[0])


def test_outputs_of_pages_that_are_gone_are_found(site):
    (site["docs"] / "page.md").write_text("No blocks.\n")
    assert [path.name for path in stamp.leftovers(site["docs"])] == ["page-python.json"]


# --- Shipped code -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ConvSpec", "dense_block", "DenseNetConfig.resolve", "ADDED"])
def test_shipped_code_is_shown_without_its_docstring(name):
    path = shipped.ROOT / "densenet_multi" / "spec.py"
    code, line = shipped.definition(path, name)
    (shown,) = ast.parse(code).body
    assert path.read_text("utf-8").splitlines()[line - 1].strip() == code.splitlines()[0]
    last = name.split(".")[-1]
    assert last in (getattr(shown, "name", None), ast.unparse(shown).split(" ")[0].rstrip(":"))
    if isinstance(shown, ast.ClassDef | ast.FunctionDef):
        assert ast.get_docstring(shown) is None


def test_the_code_around_a_docstring_stays(tmp_path):
    path = tmp_path / "code.py"
    path.write_text('@one\ndef f(x):\n    """Long\n    text.\n    """\n\n    # why\n    return x\n')
    assert shipped.definition(path, "f") == ("@one\ndef f(x):\n    # why\n    return x", 1)
    path.write_text("a = 1\n\nb = 2\n\nc = 3\n")
    assert shipped.definitions(path, "b", "a") == ("b = 2\n\n\na = 1", 3)


@pytest.mark.parametrize(
    ("file", "framework"),
    [
        ("densenet_multi/keras/model.py", "keras"),
        ("densenet_multi/comparison/rivals/flax.py", "flax"),
        ("densenet_multi/spec.py", "python"),
        ("noxfile.py", "python"),
    ],
)
def test_shown_code_is_that_of_a_framework_or_of_all(file, framework):
    assert shipped.framework_of(file) == framework


def test_code_that_is_not_there_is_an_error():
    path = shipped.ROOT / "densenet_multi" / "spec.py"
    with pytest.raises(shipped.SourceError, match=r"densenet_multi/spec\.py has no Convolution$"):
        shipped.definition(path, "Convolution")


# --- Running ------------------------------------------------------------------------------------


def test_a_block_shows_what_it_prints_and_then_its_last_expression():
    names: dict[str, object] = {}
    assert child.run_block("x = 2\nprint('a')\nx * 3", names, "page.md", 1) == [
        {"text": "a"}, {"text": "6"}
    ]  # fmt: skip
    assert child.run_block("x += 1", names, "page.md", 5) == []
    assert child.run_block("print(x)", names, "page.md", 6) == [{"text": "3"}]
    bar = "print('1/2', end='\\r'); print('2/2')"
    assert child.run_block(bar, names, "page.md", 7) == [{"text": "2/2"}]


def test_a_picture_is_part_of_the_page_and_takes_its_colors():
    bytes_ = b'<?xml version="1.0"?>\n<svg width="1"></svg>'
    assert pictures.picture_of(bytes_) == '<svg width="1"></svg>'
    assert pictures.picture_of("text") is None
    code = "from matplotlib.figure import Figure\nf = Figure()\nf.subplots().set_title('Size')\nf"
    ((kind, svg),) = child.run_block(code, {}, "page.md", 1)[0].items()
    assert kind == "svg"
    assert ">Size</text>" in svg
    assert "#000000" not in svg
    assert "<style" not in svg
    assert child.run_block(code, {}, "page.md", 1) == [{"svg": svg}]


def test_two_pictures_of_a_page_share_no_id_and_each_is_described():
    svg = '<svg aria-labelledby="a b"><g id="a" data-id="a"/><use href="#a" '
    svg += 'clip-path="url(#b)"/></svg>'
    expected = '<svg aria-labelledby="x-a x-b"><g id="x-a" data-id="a"/><use href="#x-a" '
    assert pictures.own_ids(svg, "x-") == f'{expected}clip-path="url(#x-b)"/></svg>'
    assert pictures.described("<svg >", 'a "b"').startswith(
        '<svg role="img" aria-label="a &quot;b&quot;"'
    )


def test_an_error_names_the_line_of_the_page():
    result = child.run("page.md", [{"code": "x = 1\ny = 0\nx / y", "line": 11}])
    assert result["line"] == 13
    assert result["error"].endswith("ZeroDivisionError: division by zero\n")
    assert child.run("page.md", [{"code": "x = = 1", "line": 4}])["line"] == 4


def test_a_block_that_fails_stops_with_the_page_and_the_line():
    blocks = pages.parse("page", "text\n\n```{run} python\nx = 0\n1 / x\n```\n")["python"]
    message = r"docs/page\.md:5: the python block raised an error\n(.|\n)*division by zero"
    with pytest.raises(execute.BlockError, match=message):
        execute.executed("page", "python", blocks)


def test_a_block_whose_process_dies_names_the_page():
    (block,) = pages.parse("page", "```{run} python\nimport os\nos._exit(3)\n```\n")["python"]
    with pytest.raises(execute.BlockError, match=r"docs/page\.md \(python\): the process ended"):
        execute.executed("page", "python", [block])


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("7 of 1000", "8 of 1000", False),
        ("1,000,000 bytes", "1,000,001 bytes", False),
        ("[3. 3. 0.]", "[ 3.  3.  0.]", True),
        ("[3. 3. 0.]", "[3. 4. 0.]", False),
        ("loss 2", "loss 2.0", False),
        ("loss 2.338", "loss 2.339", True),
        ("loss 2.338", "loss 2.938", False),
        ("deviation 1.2e-07", "deviation 3.4e-07", True),
        ("deviation 1.2e-07", "deviation 3.4e-03", False),
        ("758,226 parameters", "758,226 parameters", True),
        ("758,226 parameters", "858,226 parameters", False),
        ("(4, 23, 8, 8)", "(4, 8, 8, 23)", False),
        ("a map of 23 channels", "a map with 23 channels", False),
        ("1\n2", "1", False),
    ],
)
def test_numbers_may_differ_by_rounding_and_integers_not_at_all(before, after, same):
    assert execute.alike(before, after) == same


def test_where_numbers_vary_the_text_still_counts():
    assert execute.alike("epoch 1: loss 2.338", "epoch 1: loss 1.9", varies=True)
    assert not execute.alike("epoch 1: loss 2.338", "epoch 1: cost 2.338", varies=True)
    assert not execute.alike("1: 2.3\n2: 1.9", "1: 2.3", varies=True)


def test_what_differs_is_reported_with_page_and_line():
    blocks = pages.parse("page", TEXT)["torch"][:1]
    old, new = ({"blocks": [{"outputs": [{"text": f"a\n{x}"}]}], "page": "page"} for x in "bc")
    assert execute.differences(blocks, old, old) == []
    assert execute.differences(blocks, old, new) == ["docs/page.md:6, torch\n@@ -2 +2 @@\n-b\n+c"]
    one, same, other = (
        {"blocks": [{"outputs": [{"svg": f"<svg {a}><text>{t}</text></svg>"}]}], "page": "page"}
        for a, t in [("", "Loss"), ("id='1'", "Loss"), ("", "Size")]
    )
    assert execute.differences(blocks, one, same) == []
    assert execute.differences(blocks, one, other)


def test_numbers_that_vary_are_no_difference_in_their_block_alone():
    blocks = pages.parse("page", TEXT)["torch"][:2]  # only the first is marked as varying
    old, new = (
        {"blocks": [{"outputs": [{"text": f"loss {x}"}]}] * 2, "page": "page", "framework": "torch"}
        for x in (2.3, 1.9)
    )
    (found,) = execute.differences(blocks, old, new)
    assert found.startswith("docs/page.md:15, torch")


def test_outputs_are_stored_with_the_sources_that_ran(site, monkeypatch):
    """A file that changes while the blocks run makes their outputs stale."""
    blocks = pages.blocks_of("page", site["docs"])["python"]
    order = []
    monkeypatch.setattr(execute.stamp, "sources_of", lambda _: order.append("hash") or [{}, {}])
    run = subprocess.run
    monkeypatch.setattr(
        execute.subprocess, "run", lambda *a, **k: order.append("run") or run(*a, **k)
    )
    result = execute.executed("page", "python", blocks)
    assert order == ["hash", "run"]
    assert all(entry["made"] == stamp.hash_of(entry["outputs"]) for entry in result["blocks"])


def test_a_write_that_fails_keeps_the_stored_outputs(tmp_path, monkeypatch):
    path = tmp_path / "page-python.json"
    path.write_text("old")
    monkeypatch.setattr(execute.stamp, "output_path", lambda *_: path)
    with pytest.raises(UnicodeEncodeError):
        execute.store({"page": "page", "framework": "python", "text": "\ud800"})
    assert path.read_text() == "old"


QUICK = 30  # seconds; slower pages run in long tests, and in CI's weekly check of outputs


def with_blocks(*frameworks: str) -> list[object]:
    """The pages with blocks of one of these frameworks, as parameters."""
    found = []
    for page in pages.page_names():
        here = pages.blocks_of(page).keys() & set(frameworks)
        slow = any(stamp.stored(page, name).get("seconds", 0) > QUICK for name in here)
        if here:
            found.append(pytest.param(page, marks=[pytest.mark.long] if slow else []))
    return found


@pytest.mark.parametrize("page", with_blocks("python"))
def test_the_blocks_without_a_framework_print_what_is_stored(page):
    assert_as_stored(page, "python", pages.blocks_of(page)["python"])


@pytest.mark.parametrize("page", with_blocks(*pages.LABELS))
def test_the_blocks_of_a_page_print_what_is_stored_in_each_framework(page, backend):
    blocks = pages.blocks_of(page).get(backend.NAME)
    if blocks:
        assert_as_stored(page, backend.NAME, blocks)


def assert_as_stored(page: str, framework: str, blocks: list[pages.Block]) -> None:
    again = execute.executed(page, framework, blocks)
    assert execute.differences(blocks, stamp.stored(page, framework), again) == []
