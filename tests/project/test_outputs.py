"""The outputs in the documentation are what the code printed (docs/extensions/).

No test here needs Sphinx. Those with a backend run the pages' blocks again.
"""

import argparse
import ast
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import densenet_multi as dm
from densenet_multi.backends import installed_backends
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
        ("```{run} torch flax\nx\n```\n", "page.md:1: expected one of .* found 'torch flax'"),
        ("```{run} shell caffe\nx\n```\n", "page.md:1: expected frameworks of .* found 'caffe'"),
        ("```{run} shell\nrm a\n```\n", "page.md:2: expected densenet-multi COMMAND .* 'rm a'"),
        ("```{run} shell\ndensenet-multi -h\n```\n", "page.md:2: expected densenet-multi COMMAND"),
        ("```{run} torch\n:varies: all\nx\n```\n", "page.md:1: expected :varies: or .* 'all'"),
        ("```{run} torch\n:hide:\nx\n```\n", "page.md:1: {run} has no option 'hide'"),
        ("text\n```{run} torch\nx\n", "page.md:2: this fence is never closed"),
        (":::{note}\n\n:::{tip}\ntext. :::\n", "page.md:3: this fence is never closed"),
    ],
)
def test_a_block_that_cannot_be_read_is_an_error_with_page_and_line(text, message):
    with pytest.raises(pages.PageError, match=message):
        pages.parse("page", text)


COMMANDS = """```{run} python
import densenet_multi as dm
dm.save_weights("a b.safetensors", dm.get_spec("d2l"), dm.init_weights(dm.get_spec("d2l")))
```
```{run} shell torch flax
:varies:
densenet-multi summary d2l \\
    --image-size 96  # "pixels
densenet-multi inspect "a b.safetensors"
```
```{run} keras
x = 1
```
```{run} shell torch
densenet-multi info
```
"""


def test_the_commands_of_a_page_are_found_with_its_code_without_a_framework():
    found = pages.parse("page", COMMANDS)
    assert found.keys() == {"shell", "keras"}
    assert [(b.line, b.needs) for b in found["shell"]] == [
        (2, ()), (7, ("torch", "flax")), (15, ("torch",))
    ]  # fmt: skip
    code, two, one = (block.commands for block in found["shell"])
    assert code == ()
    assert [(c.words, c.line) for c in two] == [
        (["summary", "d2l", "--image-size", "96"], 7), (["inspect", "a b.safetensors"], 9)
    ]  # fmt: skip
    assert two[0].text == 'densenet-multi summary d2l \\\n    --image-size 96  # "pixels'
    assert one[0].words == ["info"]
    assert pages.frameworks_of(found["shell"]) == {"torch", "flax"}
    assert pages.frameworks_of(found["shell"][:1]) == {"python"}


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
    installed = {path.parent.name for path in PACKAGE.glob("*/faster")}
    expected = {
        "densenet_multi.torch.DenseBlock", "densenet_multi.keras.fit", "densenet_multi.RECIPES",
        "densenet_multi.data.load_sample", "densenet_multi.get_spec",
        "densenet_multi.load_backend", "densenet_multi.reference.convolve",
    }  # fmt: skip
    gone = {n for n in expected if n.split(".")[1] in {"torch", "keras"} - installed}
    assert sources(PACKAGE).keys() == expected - gone


def test_every_output_on_the_site_is_fresh():
    """If this fails, run ``nox -s outputs``."""
    there = {"python", *(path.parent.name for path in PACKAGE.glob("*/faster"))}
    assert [str(p) for p in stamp.problems() if p.needs <= there] == []
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


@pytest.mark.parametrize(
    ("file", "old", "same"),
    [
        ("commands/convert.py", "def convert(", False),
        ("tasks/convert.py", "def convert(", False),
        ("formats/linen.py", "def read(", False),  # imported by a name from a table
        ("torch/model.py", "class DenseNet(", False),  # the block names it
        ("commands/lockstep.py", "def table(", True),
        ("comparison/lockstep_child.py", "def measure(", True),
    ],
)
def test_what_a_command_uses_in_turn_counts(site, file, old, same):
    text = "```{run} shell torch\ndensenet-multi convert a b\n```\n"
    blocks = pages.parse("page", text)["shell"]
    if not (site["package"] / "torch").exists():
        pytest.skip("this backend was deleted")
    (before,) = stamp.sources_of(blocks, site["package"])
    assert before.keys() == {"densenet_multi.commands.convert", "densenet_multi.torch"}
    replaced(site["package"] / file, old, f"@print\n{old}")
    assert (stamp.sources_of(blocks, site["package"]) == [before]) == same


def test_a_module_that_runs_in_a_process_of_its_own_counts(site):
    used = "densenet_multi.comparison.compare"
    before = follow.code_of(site["package"]).hash_of(used)
    child = site["package"] / "comparison" / "compare_child.py"
    replaced(child, "def measure(", "@print\ndef measure(")
    assert follow.code_of(site["package"]).hash_of(used) != before


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


def test_each_command_has_its_output_and_sees_the_files_of_those_before_it():
    text = COMMANDS.replace("{run} shell torch flax", "{run} shell").replace(" --image-size 96", "")
    blocks = pages.parse("page", text)["shell"][:2]
    result = execute.executed("page", "shell", blocks)
    code, commands = (entry["outputs"] for entry in result["blocks"])
    assert code == []
    summary, inspected = (output["text"] for output in commands)
    assert summary.split("\n")[0].strip() == "d2l, 96x96"
    assert "d2l" in inspected
    assert "758,226" in inspected


def test_the_folder_in_which_commands_run_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = f"192 images of folder:{tmp_path}/photos\n"
    done = subprocess.CompletedProcess([], 0, printed, "")
    monkeypatch.setattr(child.subprocess, "run", lambda *_, **__: done)
    command = {"words": ["train"], "text": "densenet-multi train", "line": 1}
    assert child.run_commands([command]) == [{"text": "192 images of folder:photos"}]


def test_a_command_that_prints_nothing_has_an_empty_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "```{run} shell\ndensenet-multi draw d2l --output net.svg\n```\n"
    (command,) = pages.parse("page", page)["shell"][0].commands
    assert child.run_commands([command._asdict()]) == [{"text": ""}]
    assert (tmp_path / "net.svg").exists()


def test_a_command_that_fails_stops_with_its_line_and_its_message():
    page = "```{run} shell\ndensenet-multi summary d2l\ndensenet-multi summary d2m\n```\n"
    blocks = pages.parse("page", page)["shell"]
    message = r"docs/page\.md:3: (.|\n)*summary d2m: expected exit code 0, found 2\n(.|\n)*'d2m'"
    with pytest.raises(execute.BlockError, match=message):
        execute.executed("page", "shell", blocks)


@pytest.mark.parametrize(
    ("frameworks", "runs"),
    [(["keras", "flax"], True), (["keras"], False), (["torch", "python"], False), (None, True)],
)
def test_commands_run_if_all_frameworks_that_they_need_do(monkeypatch, frameworks, runs):
    text = "```{run} shell keras flax\ndensenet-multi convert a b\n```\n"
    monkeypatch.setattr(execute, "blocks_of", lambda page: pages.parse(page, text))
    asked = argparse.Namespace(page=["page"], framework=frameworks, all=True, check=False)
    assert list(execute.chosen(asked)) == ([("page", "shell")] if runs else [])


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
    assert execute.alike("epoch 1: loss 2.338", "epoch 1: loss 1.9", varies="")
    assert not execute.alike("epoch 1: loss 2.338", "epoch 1: cost 2.338", varies="")
    assert not execute.alike("1: 2.3\n2: 1.9", "1: 2.3", varies="")


def test_where_words_vary_the_number_of_lines_still_counts():
    assert execute.alike("0.9 bag\n0.1 shirt", "0.8 shirt\n0.2 bag", varies="lines")
    assert not execute.alike("0.9 bag\n0.1 shirt", "1.0 bag", varies="lines")


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


def needing(page: str, wanted: Callable[[set[str]], bool]) -> dict[str, list[pages.Block]]:
    """The blocks of a page that need frameworks like these, {"torch" or "shell": blocks}."""
    found = pages.blocks_of(page)
    return {n: blocks for n, blocks in found.items() if wanted(pages.frameworks_of(blocks))}


def with_blocks(wanted: Callable[[set[str]], bool]) -> list[object]:
    """The pages with blocks that need frameworks like these, as parameters."""
    found = []
    for page in pages.page_names():
        here = needing(page, wanted)
        slow = any(stamp.stored(page, name).get("seconds", 0) > QUICK for name in here)
        if here:
            found.append(pytest.param(page, marks=[pytest.mark.long] if slow else []))
    return found


def is_none(needs: set[str]) -> bool:
    return needs == {"python"}


def is_one(needs: set[str]) -> bool:
    return len(needs) == 1 and not is_none(needs)


def is_several(needs: set[str]) -> bool:
    return len(needs) > 1 and needs <= set(installed_backends())


@pytest.mark.parametrize("page", with_blocks(is_none))
def test_the_blocks_without_a_framework_print_what_is_stored(page):
    assert_as_stored(page, needing(page, is_none))


@pytest.mark.parametrize("page", with_blocks(is_one))
def test_the_blocks_of_a_page_print_what_is_stored_in_each_framework(page, backend):
    assert_as_stored(page, needing(page, lambda needs: needs == {backend.NAME}))


@pytest.mark.together
@pytest.mark.parametrize("page", with_blocks(is_several))
def test_the_commands_of_a_page_that_need_several_frameworks_print_what_is_stored(page):
    assert_as_stored(page, needing(page, is_several))


def assert_as_stored(page: str, found: dict[str, list[pages.Block]]) -> None:
    for framework, blocks in found.items():
        again = execute.executed(page, framework, blocks)
        assert execute.differences(blocks, stamp.stored(page, framework), again) == []
