"""Build HTML from untrusted text: names, paths, error messages and source lines."""

from __future__ import annotations

import html


def escaped(value: object) -> str:
    """Return a value as HTML text that cannot become markup, nor leave a quoted attribute.

    Characters that are not printable, such as ESC and those that reverse the direction of text, are
    escaped as in Python.
    """
    text = "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in str(value)
    )
    return html.escape(text)


def table(
    head: list[str], groups: list[list[tuple[str, list[str]]]], *, name: str, alarming: str = ""
) -> str:
    """Return a table that scrolls on a narrow screen; cells equal to ``alarming`` stand out.

    Arguments:
        head: the heading of each column but the first.
        groups: rows, each with its heading.
        name: what the table shows, for screen readers.
        alarming: the text of such cells, such as "NO"; "" for none.
    """
    above = "".join(f'<th scope="col">{escaped(text)}</th>' for text in head)
    bodies = "".join(f"<tbody>{_rows(rows, alarming)}</tbody>" for rows in groups)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escaped(name)}"><table>'
        f"<thead><tr><td></td>{above}</tr></thead>{bodies}</table></div>"
    )


def _rows(rows: list[tuple[str, list[str]]], alarming: str) -> str:
    lines = []
    for label, texts in rows:
        cells = "".join(_cell(text, bool(alarming) and text == alarming) for text in texts)
        lines.append(f'<tr><th scope="row">{escaped(label)}</th>{cells}</tr>')
    return "".join(lines)


def _cell(text: str, alarm: bool) -> str:
    return f'<td class="alarm">✗ {escaped(text)}</td>' if alarm else f"<td>{escaped(text)}</td>"


def fold(summary: str, inside: str) -> str:
    """Return HTML that unfolds below a line of text."""
    return f"<details><summary>{escaped(summary)}</summary>{inside}</details>"
