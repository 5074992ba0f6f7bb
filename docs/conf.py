"""How Sphinx builds the documentation: ``nox -s docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the package `extensions`

project = "densenet_multi"
author = "The densenet_multi authors"
language = "en"  # `-D language=vi` builds the Vietnamese site
locale_dirs = ["locale"]
gettext_compact = False  # one file of translations for each page
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "extensions",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "extensions", "locale", "notebooks", "outputs", "static"]
html_theme = "furo"
html_title = "densenet_multi"
html_static_path = ["static"]
html_css_files = ["custom.css"]
html_js_files = ["tabs.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
copybutton_selector = ":not(.output) > div.highlight > pre"  # code, not what it prints
autodoc_member_order = "bysource"
autodoc_typehints = "description"
suppress_warnings = ["ref.python"]
nitpicky = (
    True  # a link that leads nowhere fails, but for types, not all of which have a place here
)
nitpick_ignore_regex = [
    ("py:.*", r"(?!densenet_multi).*"),
    ("py:class", r"densenet_multi\.(spec\.\w+Spec|data\.augment\.Floating|drawing\.svg\.Drawing)"),
]
