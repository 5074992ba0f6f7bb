"""The picture of the package: one floor for each layer of imports, read from pyproject.toml.

Plain data without Sphinx, so that tests can read it. ``house.py`` puts it on a page.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from densenet_multi.drawing.svg import element, escaped

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PURPOSES = {  # name -> what it is; the four backends share a line
    "commands": "the command line: one file per command",
    "exercises": "the chapter's questions, measured",
    "tasks": "the work of a command, with any backend",
    "comparison": "backends side by side",
    "torch": "the network, four times",
    "backends": "the contract that all four keep",
    "training": "everything about a run except its steps",
    "formats": "weights files, also of other projects",
    "onnx": "the network as an ONNX graph",
    "diagnosis": "what a port does differently",
    "data": "images: read, prepare, augment, order",
    "drawing": "figures of a specification",
    "tabular": "a DenseNet for tables, without images",
    "reference": "the formulas in NumPy",
    "checkpoint": "a network in memory",
    "weights": "initial weights, and the check of weights",
    "manifest": "names, shapes, counts",
    "variants": "networks by name",
    "spec": "the paper as data",
}
WIDTH, HEIGHT, GAP = 360, 46, 8
TITLE = "The package as a house: each floor imports only from the floors below it"


def floors(pyproject: Path = PYPROJECT) -> list[tuple[tuple[str, ...], str]]:
    """Return (names, purpose) of each floor, from the top, without private modules.

    Raises ``KeyError`` for a floor without a purpose.
    """
    contracts = tomllib.loads(pyproject.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract["containers"] == ["densenet_multi"]
    )
    found = []
    for layer in layers:
        words = layer.replace("|", " ").replace(":", " ").split()
        if names := tuple(word for word in words if not word.startswith("_")):
            found.append((names, _purpose(names)))
    return found


def _purpose(names: tuple[str, ...]) -> str:
    stated = [PURPOSES[name] for name in names if name in PURPOSES]
    if not stated:
        raise KeyError(f"PURPOSES of {__name__}: expected {', '.join(names)}, found none")
    return "; ".join(stated)


def svg() -> str:
    """Draw the floors, readable without scaling on a phone, in the color of the page's text."""
    parts = [
        element("title", TITLE, id="house-title"),
        element("desc", escaped(f"From the top: {_in_words()}."), id="house-floors"),
    ]
    y, line = GAP, {"fill": "none", "stroke": "currentColor"}
    for names, purpose in floors():
        bold = {"font_family": "monospace", "font_size": 14, "font_weight": "bold"}
        parts += [
            element("rect", x=2, y=y, width=WIDTH - 4, height=HEIGHT, rx=6, **line),
            element("text", escaped(", ".join(names)), x=14, y=y + 19, **bold),
            element("text", escaped(purpose), x=14, y=y + 37, font_size=13),
        ]
        y += HEIGHT + GAP
    return element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {y}",
        width=WIDTH,
        role="img",
        aria_labelledby="house-title house-floors",
        fill="currentColor",
        font_family="sans-serif",
        style="max-width: 100%; height: auto",
    )


def _in_words() -> str:
    return "; ".join(f"{', '.join(names)} ({purpose})" for names, purpose in floors())
