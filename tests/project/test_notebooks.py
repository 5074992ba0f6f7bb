"""The chapter's notebooks are generated from its source, and they run."""

import json
import re
from base64 import b64decode

import pytest

from extensions import notebooks
from extensions.pages import LABELS, PageError

MAKE = "in docs/, type: python -m extensions.notebooks"

PAGE = """\
# Title

(a-target)=
## First

Download {download}`this <notebooks/x.ipynb>`.

A {term}`growth rate`, see [the words](glossary.md#a), [Glossary](glossary.md), the
[specification](../densenet_multi/spec.py) and [below](#second).

```{run} torch
import torch
```
```{run} keras
import keras
```

````{only-in} keras
Keras stores channels last.

```{run} keras
print(keras)
```
````

## Second

```{run} python
:varies:
total = 1
```

:::{dropdown} Why?
Because of $k$.
:::

```{drawing} growth
:variant: densenet121
:alt: Channels.
```
"""


def made(framework: str) -> list[tuple[str, str]]:
    return [(cell.kind, cell.text) for cell in notebooks.cells(PAGE, framework)]


def code(framework: str) -> list[str]:
    return [text for kind, text in made(framework) if kind == "code"]


def test_a_notebook_has_the_blocks_of_its_framework_in_order():
    arguments = '"growth", dm.get_spec("densenet121"), prefix="growth-densenet121"'
    draw = notebooks.DRAW.format(arguments=arguments)
    assert code("torch") == ["import torch", "total = 1", draw]
    assert code("keras") == ["import keras", "print(keras)", "total = 1", draw]


def test_a_notebook_has_the_text_as_plain_markdown():
    kinds = [kind for kind, _ in made("torch")]
    texts = [text for _, text in made("torch")]
    assert texts[0] == "# Title"
    assert "pip install" in texts[1]
    assert texts[2] == (
        "## First\n\nA growth rate, see the words (page *Glossary*), "
        "Glossary (a page of the documentation), the\n"
        "specification (`densenet_multi/spec.py` in the repository) and below."
    )
    assert "<details>\n<summary>Why?</summary>\n\nBecause of $k$.\n\n</details>" in texts
    assert "Keras stores" not in "".join(texts)
    assert "Keras stores channels last." in "".join(text for _, text in made("keras"))
    assert kinds.count("markdown") == 5


def test_a_picture_of_the_page_is_inside_the_notebook(tmp_path, monkeypatch):
    (tmp_path / "a.svg").write_text("<svg><title>A &amp; B</title></svg>", "utf-8")
    monkeypatch.setattr(notebooks, "DOCS", tmp_path)
    page = "# Title\n\n## First\n\n<div\n  class='scroll'>\n\n"
    page += "```{raw} html\n:file: a.svg\n```\n\n</div>\n\nText.\n"
    *_, picture = notebooks.cells(page, "torch")
    assert picture.text == "## First\n\n![A & B](attachment:a.svg)\n\nText."
    (tmp_path / "chapter.md").write_text(page, "utf-8")
    *_, made = json.loads(notebooks.notebook("torch", tmp_path))["cells"]
    image = b64decode(made["attachments"]["a.svg"]["image/svg+xml"]).decode()
    assert image.startswith('<svg><rect width="100%" height="100%" fill="#fff"/><title>')


def test_a_directive_that_no_notebook_can_show_is_an_error():
    with pytest.raises(PageError, match="unheard-of"):
        notebooks.cells("# Title\n\n```{unheard-of}\n```\n", "torch")


@pytest.mark.parametrize("framework", LABELS)
def test_the_notebooks_are_up_to_date(framework):
    assert notebooks.path_of(framework).read_text("utf-8") == notebooks.notebook(framework), MAKE


@pytest.mark.parametrize("framework", LABELS)
def test_a_notebook_can_be_read_alone(framework):
    cells = json.loads(notebooks.path_of(framework).read_text("utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert re.findall(r"\]\((?!https://)[^)]*\.(?:md|py|json|cff)[#)]", text) == []
    drawn = [
        each for cell in cells for each in re.findall('prefix="(.*?)"', "".join(cell["source"]))
    ]
    assert drawn
    assert len(drawn) == len(set(drawn))


@pytest.mark.parametrize("framework", LABELS)
def test_a_notebook_follows_the_format(framework):
    found = json.loads(notebooks.path_of(framework).read_text("utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in found["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in found["cells"]:
        assert "".join(cell["source"]).strip()
        assert "{run}" not in "".join(cell["source"])


@pytest.mark.long("torch", "keras", "flax")
def test_every_cell_runs_in_order(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as from a wheel: without the repository's files
    path = notebooks.path_of(backend.NAME)
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            compiled = compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec")
            exec(compiled, names)  # noqa: S102  # the chapter's own code
