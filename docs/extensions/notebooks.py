"""Make a notebook of the chapter for each framework: ``python -m extensions.notebooks``.

The command runs in docs/ and writes ``notebooks/densenet-<framework>.ipynb``. It needs neither
Sphinx nor a framework, and writes the same bytes from the same page.

Text becomes Markdown cells. ``{run}`` blocks of the framework and of ``python`` become code cells,
and so does a ``{drawing}``. A ``{dropdown}`` becomes ``<details>``, and ``{sources}`` the shipped
code of the framework; pictures become attachments. An unknown directive is an error, so that
nothing is missing unnoticed.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from .pages import DOCS, FENCE, LABELS, PageError, split_options
from .shipped import ROOT, definitions, framework_of

PAGE = "chapter"
FOLDER = DOCS / "notebooks"
ADMONITIONS = {"note", "tip", "important", "warning", "seealso"}
OMITTED = {"toctree"}  # navigation of the site
INSTALL = """\
This notebook is a page of the documentation of densenet_multi, for {label}, as one program. Run its
cells in order. It was made from docs/{page}.md in the repository, so every change belongs there.
Other pages that it names are in the same documentation, which `nox -s docs` builds in a clone.

It needs the package with {label}. In a clone of the repository:

```sh
pip install -c constraints.txt '.[{framework}]' jupyter
```

From a wheel:

```sh
pip install 'densenet_multi-{version}-py3-none-any.whl[{framework}]' jupyter
```"""
DRAW = """\
import densenet_multi as dm
from densenet_multi.drawing import draw

draw({arguments})"""


@dataclass(frozen=True)
class Cell:
    """A cell, with ``kind`` ``"markdown"`` or ``"code"``; ``files`` are the pictures in it."""

    kind: str
    text: str
    files: tuple[Path, ...] = ()


def cells(text: str, framework: str) -> list[Cell]:
    """Return the cells of a page for one framework, the one about installing first but the title.

    Raises ``PageError`` for a directive that has no meaning in a notebook.
    """
    title, *rest = _split(_cells(text.splitlines(), framework))
    install = INSTALL.format(
        page=PAGE, label=LABELS[framework], framework=framework, version=_version()
    )
    return [title, Cell("markdown", install), *rest]


def notebook(framework: str, docs: Path = DOCS) -> str:
    """Return the notebook of a framework as JSON (nbformat 4.5)."""
    found = cells((docs / f"{PAGE}.md").read_text("utf-8"), framework)
    made = {
        "cells": [_as_json(cell, number) for number, cell in enumerate(found, 1)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def path_of(framework: str, folder: Path = FOLDER) -> Path:
    """Return the path of a framework's notebook."""
    return folder / f"densenet-{framework}.ipynb"


def _as_json(cell: Cell, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "cell_type": cell.kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": cell.text.splitlines(keepends=True),
    }
    if cell.files:  # inside the notebook, which then needs no other file
        made["attachments"] = {
            file.name: {"image/svg+xml": b64encode(_on_white(file).encode()).decode()}
            for file in cell.files
        }
    return made | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {})


def _version() -> str:
    text = (ROOT / "densenet_multi" / "__init__.py").read_text("utf-8")
    (version,) = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    return str(version)


# --- From MyST to cells -------------------------------------------------------------------------


def _cells(lines: list[str], framework: str) -> list[Cell]:
    """The cells of these lines: text up to a directive, what the directive becomes, and so on."""
    found: list[Cell] = []
    text: list[str] = []
    number = 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number])
        number += 1
        if not fence:
            text.append(lines[number - 1])
            continue
        end = next(
            (n for n in range(number, len(lines)) if lines[n].rstrip() == fence["marks"]), None
        )
        if end is None:
            raise PageError(f"{PAGE}.md:{number}: this fence is never closed")
        body = lines[number:end]
        if fence["directive"] is None:
            text += lines[number - 1 : end + 1]
        else:
            found += [Cell("markdown", "\n".join(text)), *_directive(fence, body, framework)]
            text = []
        number = end + 1
    return [*found, Cell("markdown", "\n".join(text))]


def _directive(fence: re.Match[str], body: list[str], framework: str) -> list[Cell]:
    name, argument = fence["directive"], fence["rest"].strip()
    options, content = split_options(body)
    found: list[Cell] = []
    if name == "run":
        if argument in {framework, "python"}:
            found = [Cell("code", "\n".join(content))]
    elif name == "only-in":
        if argument == framework:
            found = _cells(content, framework)
    elif name == "drawing":
        found = [Cell("code", DRAW.format(arguments=_arguments(argument, options)))]
    elif name in {"source", "sources"}:
        found = _code(name, argument, framework)
    elif name == "dropdown":
        found = _details(argument, _cells(content, framework))
    elif name == "raw" and options.get("file", "").endswith(".svg"):
        found = [_picture(DOCS / options["file"])]
    elif name in ADMONITIONS:
        quoted = "\n".join(f"> {line}".rstrip() for line in content)
        found = [Cell("markdown", f"> **{name.capitalize()}**\n>\n{quoted}")]
    elif name not in OMITTED:
        raise PageError(
            f"{PAGE}.md: a notebook cannot show {{{name}}}; see extensions/notebooks.py"
        )
    return found


def _arguments(figure: str, options: dict[str, str]) -> str:
    variant = options.get("variant", "d2l")
    numbers = [(name, options[name]) for name in ("block", "image-size") if name in options]
    given = [f"{name.replace('-', '_')}={number}" for name, number in numbers]
    # all drawings of a notebook are in one page of HTML, where ids must differ
    prefix = "-".join([figure, variant.replace("_", "-"), *(number for _, number in numbers)])
    return ", ".join([f'"{figure}"', f'dm.get_spec("{variant}")', *given, f'prefix="{prefix}"'])


def _code(directive: str, argument: str, framework: str) -> list[Cell]:
    """The code that {source} or {sources} shows, unless it is that of another framework."""
    file, *names = argument.split()
    if directive == "sources":
        file = f"densenet_multi/{framework}/{file}"
    elif framework_of(file) not in {framework, "python"}:
        return []
    path = ROOT / file
    code = definitions(path, *names)[0] if names else path.read_text("utf-8").rstrip()
    return [Cell("markdown", f"In `{file}`:\n\n```python\n{code}\n```")]


def _picture(path: Path) -> Cell:
    """A drawing of the site, with its title as the text for those who do not see it."""
    title = re.search(r"<title[^>]*>([^<]*)</title>", path.read_text("utf-8"))
    label = " ".join(unescape(title[1]).split()) if title else path.stem
    return Cell("markdown", f"![{label}](attachment:{path.name})", (path,))


def _on_white(path: Path) -> str:
    """The drawing on white: as an image its text is black, in a dark notebook too."""
    start, end, rest = path.read_text("utf-8").partition(">")
    return f'{start}{end}<rect width="100%" height="100%" fill="#fff"/>{rest}'


def _details(summary: str, inner: list[Cell]) -> list[Cell]:
    """A fold; code in it follows the fold, because cells do not nest."""
    text = "\n\n".join(cell.text.strip() for cell in inner if cell.kind == "markdown")
    fold = f"<details>\n<summary>{summary}</summary>\n\n{text.strip()}\n\n</details>"
    return [Cell("markdown", fold), *(cell for cell in inner if cell.kind == "code")]


# --- Plain Markdown -----------------------------------------------------------------------------


def _split(found: list[Cell]) -> list[Cell]:
    """Join neighboring text, and start a new cell at each heading."""
    joined: list[Cell] = []
    for cell in found:
        parts = [cell.text] if cell.kind == "code" else _sections(plain(cell.text))
        for index, part in enumerate(parts):
            last = joined[-1] if joined else None
            if not part.strip():
                continue
            if cell.kind == "markdown" and index == 0 and last and last.kind == "markdown":
                joined[-1] = Cell(
                    "markdown", f"{last.text}\n\n{part.strip()}", last.files + cell.files
                )
            else:
                text = part.strip() if cell.kind == "markdown" else part
                joined.append(Cell(cell.kind, text, cell.files))
    return joined


def _sections(text: str) -> list[str]:
    """Split before each heading; the first part is what comes before the first heading."""
    parts, fenced = [""], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if line.startswith("#") and not fenced:
            parts.append("")
        parts[-1] += f"{line}\n"
    return parts


def plain(text: str) -> str:
    """Turn MyST into Markdown that is complete without the other pages and files.

    It has no targets and no roles. A link to a page becomes the page's title, since the notebook
    may have been downloaded alone.
    """
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)  # a target
    text = re.sub(r"^</?div[^>]*>$", "", text, flags=re.MULTILINE)  # a box of the site
    text = re.sub(r"\n{3,}", "\n\n", text)
    parts = text.split("\n\n")
    text = "\n\n".join(part for part in parts if "{download}" not in part)  # of this notebook
    text = re.sub(r"\{(?:term|ref|doc)\}`([^`<]*?)\s*(?:<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"\{py:\w+\}`~?([^`]*)`", r"`\1`", text)
    text = re.sub(r"\[([^\]]*)\]\(#[^)]*\)", r"\1", text)  # links within the page
    ends = r"\.(?:md|py|json|cff)"
    return re.sub(rf"\[([^\]]*)\]\((?!https?://)([^)#]*{ends})(?:#[^)]*)?\)", _named, text)


def _named(link: re.Match[str]) -> str:
    """The text of a link, and the title of the page or the path of the file that it leads to."""
    path = (DOCS / link[2]).resolve()
    if path.suffix != ".md":
        return f"{link[1]} (`{path.relative_to(ROOT)}` in the repository)"
    title = path.read_text("utf-8").partition("# ")[2].partition("\n")[0]
    if title.casefold() == " ".join(link[1].split()).casefold():
        return f"{link[1]} (a page of the documentation)"
    return f"{link[1]} (page *{title}*)"


def main() -> None:
    """Write the four notebooks."""
    FOLDER.mkdir(exist_ok=True)
    for framework in LABELS:
        path_of(framework).write_text(notebook(framework), "utf-8")
        print(path_of(framework).relative_to(ROOT))


if __name__ == "__main__":
    main()
