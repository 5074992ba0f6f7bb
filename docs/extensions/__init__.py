"""The Sphinx extension of this site.

- pages.py finds the executed blocks of a page; stamp.py and follow.py say whether their stored
  outputs are fresh; execute.py, child.py and pictures.py run them (``nox -s outputs``); shipped.py
  finds code of the package; measured.py reads the stored results of commands. None of these needs
  Sphinx, and so the tests can use them.
- run.py, tabs.py, sources.py, math.py and the others each add directives or a renderer: a module
  with a function ``setup`` is loaded here.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Load every module of this package that has a function ``setup``."""
    for module in iter_modules(__path__, f"{__name__}."):
        if hasattr(import_module(module.name), "setup"):
            app.setup_extension(module.name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
