"""The chapter and the glossary are completely translated into Vietnamese.

``sphinx-build -b gettext docs pot`` and ``sphinx-intl update -p pot -l vi`` (in docs/) add what is
new to docs/locale/vi/LC_MESSAGES; a person then translates it. These tests read the page and the
translations without Sphinx.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("chapter", "glossary")
NOT_TEXT = re.compile(r"\s*(\([\w-]+\)=|:[\w-]+:.*|-{3,}|\|[-: |]+\|)")  # targets, options, rules
DIRECTIVES = "run|source|sources|drawing|toctree|raw|variants"  # without text to translate
BOX = re.compile(r"^</?div[^>]*>$", re.MULTILINE)
FORMULA = re.compile(r"^\$\$(.*?)\$\$$", re.DOTALL | re.MULTILINE)
CODE = re.compile(
    rf"^(`{{3,}}|:{{3,}})(?:\w+|\{{(?:{DIRECTIVES})\}}[^\n]*)\n.*?^\1$", re.DOTALL | re.MULTILINE
)


def translations(page: str) -> dict[str, tuple[str, bool]]:
    """Return {original: (translation, whether it is marked fuzzy)} of a .po file."""
    found = {}
    text = (DOCS / "locale" / "vi" / "LC_MESSAGES" / f"{page}.po").read_text("utf-8")
    for entry in text.split("\n\n")[1:]:
        lines = [line for line in entry.splitlines() if not line.startswith("#~")]
        original, _, translated = "\n".join(
            line for line in lines if not line.startswith("#")
        ).partition("\nmsgstr ")
        if original:
            fuzzy = any(line.startswith("#,") and "fuzzy" in line for line in lines)
            found[strings(original.removeprefix("msgid "))] = (strings(translated), fuzzy)
    return found


def strings(lines: str) -> str:
    return "".join(ast.literal_eval(line) for line in lines.splitlines() if line)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs, items, terms and titles of a page, in order."""
    text = BOX.sub("", FORMULA.sub("", CODE.sub("", text)))
    found, current, in_glossary = [], [], False
    for line in [*text.splitlines(), ""]:
        fence = re.fullmatch(r"(?:`{3,}|:{3,})(?:\{([\w-]+)\} ?(.*))?", line)
        term = in_glossary and line[:1] not in {"", " ", "`"}
        item = re.match(r"\s*(?:#+|[-*]|\d+\.) (.*)", line)
        if current and (fence or term or item or not line.strip() or NOT_TEXT.fullmatch(line)):
            found.append(" ".join(" ".join(current).split()))
            current = []
        if fence:
            in_glossary = fence[1] == "glossary"
            found += [fence[2]] if fence[1] == "dropdown" else []
        elif term or line.startswith("#"):
            found.append(item[1] if item else line)
        elif line.startswith("|") and not NOT_TEXT.fullmatch(line):
            found += [cell.strip() for cell in line.strip("|").split("|") if cell.strip()]
        elif line.strip() and not NOT_TEXT.fullmatch(line):
            current.append(item[1] if item else line)
    return found


def parts(text: str) -> Counter[str]:
    """Count what a translation must keep: code, formulas, links, and the targets of roles."""
    roles = re.findall(r"\{\w+\}`(?:[^`<]*<)?([^`>]*)>?`", text)
    text = re.sub(r"\{\w+\}`[^`]*`", "", text)
    kept = re.findall(r"`[^`]+`|\$[^$]+\$|\]\([^)]*\)", text)
    return Counter(roles + kept)


def numbers(text: str) -> Counter[str]:
    """Count the numbers outside code, formulas and links; 0.9 and 0,9 are the same number.

    0 is not counted, because the translation writes it for "zeros" and "negative" too.
    """
    for kept in (r"\{\w+\}`[^`]*`", r"`[^`]+`", r"\$[^$]+\$", r"\]\([^)]*\)"):
        text = re.sub(kept, " ", text)
    found = Counter(re.sub("[.,]", "", each) for each in re.findall(r"\d+(?:[.,]\d+)*", text))
    del found["0"]
    return found


def test_the_paragraphs_of_a_page_are_found():
    page = """\
(target)=
# Title

One
paragraph.

- an item
  of two lines
- another

| a | table |
|---|--:|
| of | 1.5% |

```{run} torch
print("code")
```

$$x = 1$$

:::{dropdown} Why?
Because.
:::

```{glossary}
term
  Its meaning,
  continued.
```
"""
    expected = ["Title", "One paragraph.", "an item of two lines", "another"]
    expected += ["a", "table", "of", "1.5%", "Why?", "Because."]
    assert paragraphs(page) == [*expected, "term", "Its meaning, continued."]


@pytest.mark.parametrize("page", PAGES)
def test_every_paragraph_has_a_translation(page):
    known = translations(page)
    text = (DOCS / f"{page}.md").read_text("utf-8")
    missing = [said for said in paragraphs(text) if not known.get(said, ("", False))[0]]
    assert missing == []
    assert [said for said, (_, fuzzy) in known.items() if fuzzy] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_is_of_what_the_page_says(page):
    text = (DOCS / f"{page}.md").read_text("utf-8")
    formulas = [" ".join(formula.split()) for formula in FORMULA.findall(text)]
    assert translations(page).keys() - {*paragraphs(text), *formulas} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_keeps_code_formulas_and_links(page):
    changed = [
        (said, parts(said) - parts(translated), parts(translated) - parts(said))
        for said, (translated, _) in translations(page).items()
        if parts(said) != parts(translated)
    ]
    assert changed == []


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_has_the_numbers_of_the_original(page):
    changed = [
        (said, numbers(said) - numbers(translated), numbers(translated) - numbers(said))
        for said, (translated, _) in translations(page).items()
        if numbers(said) != numbers(translated)
    ]
    assert changed == []


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_uses_the_terms_of_the_community(page):
    text = " ".join(translated for translated, _ in translations(page).values()).lower()
    mistakes = ["chuyển thuyền", "mạng phức tạp", "lớp chuyển tiếp", "dày dàng", "tổng hợp tối đa"]
    assert [mistake for mistake in mistakes if mistake in text] == []
    assert "tầng chuyển tiếp" in text
    assert "khối dày đặc" in text
