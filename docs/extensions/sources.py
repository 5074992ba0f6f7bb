"""Show shipped code: ``{source}`` and ``{sources}`` take it from the package at build time.

    ```{source} densenet_multi/torch/model.py DenseLayer
    ```
    ```{sources} model.py DenseLayer
    ```

The first may name several definitions of its file. The second shows the four backends' code in
tabs; adjacent ``{source}`` fences, each with a file of another backend, become tabs too. Each file
that is shown also gets a page of its own, ``sources/<path>.html``, to which the code links.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .pages import LABELS
from .shipped import ROOT, SourceError, definitions, framework_of
from .tabs import choice

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

FOLDER = "sources"  # of the pages with complete files


class Source(SphinxDirective):
    """Show definitions of one file, or a complete file."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True  # the last one may be several names

    def run(self) -> list[nodes.Node]:
        """Return the code; a backend's code becomes a tab."""
        file, *names = " ".join(self.arguments).split()
        return [self.shown(file, *names)]

    def shown(self, file: str, *names: str) -> choice:
        """Return the code with a link to its file."""
        path = ROOT / file
        try:
            code, line = definitions(path, *names) if names else (path.read_text("utf-8"), 1)
        except (OSError, SourceError) as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(path)
        shown_sources(self.env).setdefault(self.env.docname, set()).add(file)
        block = nodes.literal_block(code, code, language="python")
        block["classes"].append("source")
        self.set_source_info(block)
        up = "../" * self.env.docname.count("/")
        target = f"{up}{FOLDER}/{file}.html#line-{line}"
        link = nodes.reference("", "", nodes.literal(file, file), refuri=target, internal=True)
        caption = nodes.paragraph("", "", link, classes=["source-file"], translatable=False)
        found = choice("", block, caption, framework=framework_of(file), classes=["source"])
        self.set_source_info(found)
        return found


class Sources(Source):
    """Show the same definitions of the four backends."""

    def run(self) -> list[nodes.Node]:
        """Return the four, which become tabs."""
        file, *names = " ".join(self.arguments).split()
        return [self.shown(f"densenet_multi/{backend}/{file}", *names) for backend in LABELS]


# --- The pages with complete files --------------------------------------------------------------


def shown_sources(env: BuildEnvironment) -> dict[str, set[str]]:
    """Return which files each page shows, {page: files}."""
    if not hasattr(env, "shown_sources"):
        env.shown_sources = {}
    found: dict[str, set[str]] = env.shown_sources
    return found


def forget(_app: Sphinx, env: BuildEnvironment, page: str) -> None:
    """Forget what a page showed before it is read again."""
    shown_sources(env).pop(page, None)


def merge(_app: Sphinx, env: BuildEnvironment, pages: list[str], other: BuildEnvironment) -> None:
    """Collect what another process read."""
    kept = {page: files for page, files in shown_sources(other).items() if page in pages}
    shown_sources(env).update(kept)


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file that is shown: its name, its context, its template."""
    for file in sorted(set().union(*shown_sources(app.env).values())):
        code = (ROOT / file).read_text("utf-8")
        highlighted = app.builder.highlighter.highlight_block(
            code, "python", linenos="inline", lineanchors="line", anchorlinenos=True
        )
        body = f"<h1>{file}</h1>\n{highlighted}"
        yield f"{FOLDER}/{file}", {"title": file, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives and the pages."""
    app.add_directive("source", Source)
    app.add_directive("sources", Sources)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", file_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
