"""Show ``model.py`` and ``layers.py`` of two backends, which the reader chooses, side by side.

The page has one column for each backend's text. Radio buttons select two columns, in CSS alone.
Each line's CSS classes name the columns in which that line is different, so the CSS can mark it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

from ...backends import source_folder
from .markup import escaped

FILES = ("model.py", "layers.py")
ALIKE = 0.3  # minimum similarity, from 0 to 1, of lines that are set side by side

Definitions = dict[str, list[str]]
Row = tuple[str | None, ...]  # a line of each text; None where the text has none


# --- The sources --------------------------------------------------------------------------------


def sources(names: list[str]) -> dict[str, dict[str, Definitions]]:
    """Return {backend: {file: {class or function: its lines}}} of backends that have both files.

    Source files are read, not imported, so the frameworks need not be installed.
    """
    found = {}
    for name in names:
        folder = source_folder(name)
        if folder is not None and all((folder / file).is_file() for file in FILES):
            with suppress(SyntaxError, UnicodeDecodeError):  # in another package's file
                found[name] = {file: definitions(folder / file) for file in FILES}
    return found


def definitions(path: Path) -> Definitions:
    """Return the lines of each class and function of a module, {name: lines}, in their order."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[node.name] = lines[start - 1 : node.end_lineno]
    return found


def framework_of(name: str) -> str:
    """Return the framework's name as a backend's source states it, or else the backend's name."""
    folder = source_folder(name)
    stated = name
    with suppress(OSError, SyntaxError, UnicodeDecodeError):
        text = (folder / "__init__.py").read_text(encoding="utf-8") if folder else ""
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FRAMEWORK":
                stated = str(ast.literal_eval(node.value))
    return stated


# --- Their lines side by side -------------------------------------------------------------------


def aligned(texts: list[list[str]]) -> list[Row]:
    """Return rows with a line of each text, so that similar lines are in the same row."""
    rows: list[Row] = [(line,) for line in texts[0]]
    for count, lines in enumerate(texts[1:], start=1):
        pairs = _pairs(rows, lines)
        rows = [
            (*(rows[i] if i is not None else (None,) * count), None if j is None else lines[j])
            for i, j in pairs
        ]
    return rows


def _pairs(rows: list[Row], lines: list[str]) -> list[tuple[int | None, int | None]]:
    """Return pairs of indices, each used once and in order, with the largest total similarity."""
    best = [[0.0] * (len(lines) + 1) for _ in range(len(rows) + 1)]
    for i in reversed(range(len(rows))):
        for j in reversed(range(len(lines))):
            together = best[i + 1][j + 1] + _gain(rows[i], lines[j])
            best[i][j] = max(together, best[i + 1][j], best[i][j + 1])
    pairs: list[tuple[int | None, int | None]] = []
    i = j = 0
    while i < len(rows) and j < len(lines):
        if best[i][j] == best[i + 1][j + 1] + _gain(rows[i], lines[j]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    rest_of_rows = [(each, None) for each in range(i, len(rows))]
    return [*pairs, *rest_of_rows, *((None, each) for each in range(j, len(lines)))]


def _gain(row: Row, line: str) -> float:
    return max(_similarity(each, line) for each in row if each is not None) - ALIKE


@cache
def _similarity(one: str, other: str) -> float:
    """Return the fraction of words and punctuation that two lines share; 1 for equal lines."""
    if one == other:
        return 1.0
    words = [Counter(re.findall(r"\w+|[^\w\s]", line.lower())) for line in (one, other)]
    common, both = (words[0] & words[1]).total(), words[0].total() + words[1].total()
    return 2 * common / both if both else 0.0


# --- As HTML ------------------------------------------------------------------------------------


def side_by_side(labels: dict[str, str]) -> str:
    """Return the texts of these backends ({name: label}) with buttons that select two of them.

    The result is empty if fewer than two backends have the files.
    """
    found = sources(list(labels))
    if len(found) < 2:
        return ""
    names = [labels[name] for name in found]
    parts = "".join(
        f'<h3 id="{file[:-3]}">{file}</h3>{_file([texts[file] for texts in found.values()], names)}'
        for file in FILES
    )
    inputs = "".join(
        f'<input type="radio" class="pick" name="{side}" id="{side}{i}"'
        f' aria-label="{where} framework: {escaped(name)}"{" checked" if i == first else ""}>'
        for side, where, first in (("l", "first", 0), ("r", "second", 1))
        for i, name in enumerate(names)
    )
    labels_ = "".join(
        f'<p class="choice" aria-hidden="true"><span>{where}</span>'
        + "".join(f'<label for="{side}{i}">{escaped(name)}</label>' for i, name in enumerate(names))
        + "</p>"
        for side, where in (("l", "first"), ("r", "second"))
    )
    return (
        f"<style>{_selection(len(names))}</style>{inputs}"
        f'<div class="choices">{labels_}<p id="count" aria-live="polite"></p></div>'
        f'<div class="texts">{parts}</div>'
    )


def _file(texts: list[Definitions], names: list[str]) -> str:
    parts = []
    for name in dict.fromkeys(name for text in texts for name in text):
        rows = aligned([text.get(name, []) for text in texts])
        columns = "".join(_column(rows, i, name, names) for i in range(len(names)))
        absent = "".join(f" x{i}" for i, text in enumerate(texts) if name not in text)
        inside = f'<h4>{escaped(name)}</h4><div class="columns">{columns}</div>'
        parts.append(f'<div class="part{absent}">{inside}</div>')
    return "".join(parts)


def _column(rows: list[Row], i: int, part: str, names: list[str]) -> str:
    lines = []
    for row in rows:
        others = [k for k in range(len(row)) if k != i]
        if row[i] is None:
            classes = " ".join(["gap", *(f"e{k}" for k in others if row[k] is None)])
            lines.append(f'<span class="{classes}"></span>')
        else:
            classes = " ".join(["line", *(f"d{k}" for k in others if row[k] != row[i])])
            lines.append(f'<span class="{classes}">{escaped(row[i])}\n</span>')
    who, what = escaped(names[i]), escaped(part)
    if all(row[i] is None for row in rows):
        lines = ['<span class="line none">(none)\n</span>']
    return (
        f'<div class="column c{i}"><p class="who">{who}</p>'
        f'<pre tabindex="0" role="group" aria-label="{what} in {who}"><code>{"".join(lines)}'
        "</code></pre></div>"
    )


def _selection(count: int) -> str:
    """Return the CSS rules that show the two selected columns and mark the lines that differ."""
    rules = []
    for i in range(count):
        for side, order in (("l", 1), ("r", 2)):
            chosen, label = f"#{side}{i}", f"label[for={side}{i}]"
            rules += [
                f"{chosen}:checked~.texts .c{i}{{display:block;order:{order}}}",
                f"{chosen}:checked~.choices {label}{{background:var(--accent);color:var(--paper)}}",
                f"{chosen}:focus-visible~.choices {label}{{outline:3px solid var(--accent)}}",
            ]
        for k in range(count):
            if k != i:
                both = f"#l{i}:checked~#r{k}:checked~.texts"
                marked = f":is({both} .c{i} .d{k},{both} .c{k} .d{i})"
                rules += [
                    f"{marked}{{background:var(--mark)}}",
                    f'{marked}::before{{content:"≠"}}',
                    f":is({both} .c{i} .e{k},{both} .c{k} .e{i}){{display:none}}",
                    f"{both} .x{i}.x{k}{{display:none}}",
                ]
    return "".join(rules)
