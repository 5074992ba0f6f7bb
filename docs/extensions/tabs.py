"""Tabs per framework: adjacent ``{run}``, ``{only-in}`` and ``{source}`` become one tab set.

Each of these directives returns a ``choice``, and a transform merges neighbors into sphinx-design's
tabs. All tab sets of the site share the sync group ``framework``, with the ids torch, keras, gluon
and flax, so that one click switches all.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx_design.shared import create_component

from .pages import LABELS

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator as HTMLTranslator


class choice(nodes.container):  # noqa: N801  # docutils' spelling of nodes
    """What a page shows for one framework: node["framework"]."""


class OnlyIn(SphinxDirective):
    """Show text for one framework only."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the text."""
        framework = self.arguments[0]
        if framework not in LABELS:
            raise self.error(f"expected one of {', '.join(LABELS)}, found {framework!r}")
        shown = choice("", framework=framework, classes=["only-in"])
        self.set_source_info(shown)
        self.state.nested_parse(self.content, self.content_offset, shown)
        return [shown]


class Merge(SphinxTransform):
    """Merge neighboring choices into tabs."""

    default_priority = 15  # before translation (20), which keeps the structure

    def apply(self) -> None:
        """Replace each run of choices."""
        for first in list(self.document.findall(choice)):
            in_tabs = "sd-tab-content" in first.parent["classes"]
            if in_tabs or first["framework"] not in LABELS:
                continue  # merged before, or the same for all frameworks
            parent, place = first.parent, first.parent.index(first)
            group = neighbors(parent.children[place:])
            del parent[place : place + len(group)]
            parent.insert(place, tab_set(group))


def neighbors(siblings: list[nodes.Node]) -> list[choice]:
    """Return the first choices, up to the second one of the same framework."""
    seen: set[str] = set()

    def another(node: nodes.Node) -> bool:
        if not isinstance(node, choice) or node["framework"] not in LABELS.keys() - seen:
            return False
        seen.add(node["framework"])
        return True

    return list(takewhile(another, siblings))


def tab_set(choices: list[choice]) -> nodes.container:
    """Return sphinx-design's tab set with one tab for each choice."""
    tabs = create_component("tab-set", classes=["sd-tab-set", "frameworks"])
    for one in choices:
        label = LABELS[one["framework"]]
        title = nodes.rubric(label, label, classes=["sd-tab-label"])
        title["sync_group"], title["sync_id"] = "framework", one["framework"]
        content = create_component("tab-content", children=[one], classes=["sd-tab-content"])
        item = create_component(
            "tab-item", classes=["sd-tab-item"], children=[title, content], selected=False
        )
        item.source, item.line = one.source, one.line
        tabs += item
    tabs.source, tabs.line = choices[0].source, choices[0].line
    return tabs


def visit(self: HTMLTranslator, node: choice) -> None:
    """Open a choice in HTML."""
    self.visit_container(node)


def depart(self: HTMLTranslator, node: choice) -> None:
    """Close it."""
    self.depart_container(node)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, the node and the transform."""
    app.setup_extension("sphinx_design")
    app.add_node(choice, html=(visit, depart))
    app.add_directive("only-in", OnlyIn)
    app.add_transform(Merge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
