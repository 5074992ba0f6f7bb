"""Open every page of the built site in Chromium and check it: ``nox -s docs-browser``.

    python tests/browser/check_site.py docs/_build [--output FOLDER] [--only chapter]

Each page is opened in light and dark, at 390 and 1280 pixels:

- the console reports no error, and no request leaves the site's own server;
- axe-core finds no violation, in every framework's tab, with every hint and answer unfolded;
- at 390 pixels nothing is cut off: what is wider has its own scroll bar, in every framework's tab;
- text in drawings is at least 11 pixels tall.

Two reports of ``densenet-multi compare`` are checked in the same way: one of compare.json, the
stored result of a run, and one of this result with a backend that differs and one that is missing.

Tabs switch everywhere at once, by mouse and keyboard, after a reload and on the next page, follow
``?framework=``, and work without JavaScript. Screenshots go into FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

import densenet_multi as dm
from densenet_multi.comparison.report.page import report_page

THEMES = ("light", "dark")
WIDTHS = (390, 1280)
FRAMEWORKS = ("torch", "keras", "gluon", "flax")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SKIPPED = ("_static", "_sources", "_images", "screenshots")

SMALLEST = 11  # pixels, of text in a drawing
REPORTS = ("compare-same.html", "compare-differs.html")
COMPARED = Path(__file__).with_name("compare.json")

UNFOLD = "() => document.querySelectorAll('details').forEach(each => { each.open = true; })"
CHOOSE = """id => document.querySelectorAll(`label[data-sync-id="${id}"]`).forEach(label => {
    const input = document.getElementById(label.htmlFor);
    input.checked = true;
    input.dispatchEvent(new Event("change", { bubbles: true })); })"""
# the sync ids of the open tabs, one for each set
CHOSEN = """() => [...document.querySelectorAll(
    '.sd-tab-set > input:checked + label[data-sync-group="framework"]'
)].map(label => label.dataset.syncId)"""
# elements that extend beyond the right edge, outside any box in the article that scrolls
CUT_OFF = """() => {
    const limit = document.documentElement.clientWidth;
    const found = [];
    if (document.documentElement.scrollWidth > limit) {
        found.push(`the page is ${document.documentElement.scrollWidth} pixels wide`);
    }
    for (const element of document.querySelectorAll('.main *, .announcement *, main *')) {
        const box = element.getBoundingClientRect();
        if (!box.width || !box.height || box.right <= limit + 1) continue;
        if (element.closest('.toc-drawer, .visually-hidden')) continue;
        let around = element.parentElement;
        const scrolls = node => ['auto', 'scroll'].includes(getComputedStyle(node).overflowX);
        while (around && around.localName !== 'article' && !scrolls(around)) {
            around = around.parentElement;
        }
        if (!around || around.localName === 'article') {
            const text = element.textContent.trim().slice(0, 40);
            const classes = element.getAttribute('class') || '';
            found.push(`<${element.localName} class="${classes}"> ${text}`);
        }
    }
    return found.slice(0, 5);
}"""
SMALL_TEXT = """smallest => [...document.querySelectorAll('svg text')].map(text => {
    const matrix = text.getScreenCTM();
    const scale = Math.hypot(matrix.b, matrix.d);
    const shown = text.getBoundingClientRect().width > 0;
    return [shown ? scale * parseFloat(getComputedStyle(text).fontSize) : smallest, text];
}).filter(([size]) => size < smallest - 0.01).map(
    ([size, text]) => `${size.toFixed(1)} pixels: ${text.textContent.trim().slice(0, 40)}`
).slice(0, 2)"""


@dataclass
class Site:
    """The built site on a local server, and the problems found so far."""

    url: str
    output: Path
    pages: list[str]
    problems: dict[str, list[str]] = field(default_factory=partial(defaultdict, list))
    tab_sets: dict[str, int] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)

    def report(self, page: str, problem: str) -> None:
        """Add a problem of a page, once."""
        if problem not in self.problems[page]:
            self.problems[page].append(problem)

    def address(self, page: str) -> str:
        """Return the address of a page."""
        return f"{self.url}/{page}"


def pages_of(root: Path, only: list[str]) -> list[str]:
    """Return the paths of all pages in a built site; with ``only``, of these pages.

    Untranslated pages of the Vietnamese site are omitted: they are the same as in English.
    """
    paths = sorted(path.relative_to(root) for path in root.rglob("*.html"))
    names = [path.as_posix() for path in paths if path.parts[0] not in SKIPPED]
    return [
        name
        for name in names
        if (not only or name.removesuffix(".html") in only)
        and not (name.startswith("vi/") and ' lang="en"' in (root / name).read_text("utf-8")[:300])
    ]


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve a folder on this machine only; yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Report nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def belongs(url: str, site: str) -> bool:
    """Return whether a request stays on the site's server: the same scheme, host and port."""
    return urlsplit(url).scheme in ("data", "blob") or urlsplit(url)[:2] == urlsplit(site)[:2]


@contextmanager
def opened(browser: Browser, site: Site, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """Open a window; yield its page, and the list of what went wrong in it."""
    wrong: list[str] = []
    with browser.new_context(**options) as context:

        def guard(route: Any) -> None:
            if belongs(route.request.url, site.url):
                route.continue_()
            else:
                wrong.append(f"a request leaves the site: {route.request.url}")
                route.abort()

        context.route("**/*", guard)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"))
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and wrong.append(f"console: {m.text}"),
        )
        yield page, wrong


@contextmanager
def started() -> Iterator[Browser]:
    """Start Chromium, with a new profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def check_view(site: Site, theme: str, width: int) -> Site:
    """Check every page in one color scheme and width; return the site with what was found."""
    size = {"width": width, "height": 844 if width < 600 else 900}
    view = f"at {width} pixels, {theme}"
    options = {"color_scheme": theme, "viewport": size}
    with started() as browser, opened(browser, site, **options) as (page, wrong):
        for number, name in enumerate(site.pages, 1):
            began = time.perf_counter()
            wrong.clear()
            page.goto(site.address(name), wait_until="load")
            picture = f"{name.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
            page.screenshot(path=site.output / picture, full_page=True)
            page.evaluate(UNFOLD)
            site.tab_sets[name] = len(page.evaluate(CHOSEN))
            part = None  # first the complete page; then only the tabs
            for framework in FRAMEWORKS if site.tab_sets[name] else ("",):
                if framework:
                    page.evaluate(CHOOSE, framework)
                for violation in Axe().run(page, part).response["violations"]:
                    site.report(name, f"axe, {view} {framework}: {described(violation)}")
                part = ".sd-tab-set"
                for what in page.evaluate(CUT_OFF):
                    site.report(name, f"cut off, {view} {framework}: {what}")
                for what in page.evaluate(SMALL_TEXT, SMALLEST):
                    site.report(name, f"small text, {view} {framework}: {what}")
            for message in wrong:
                site.report(name, message)
            site.seconds[name] += time.perf_counter() - began
            found = [f"{view}: {number} of {len(site.pages)}, {name}", *site.problems[name]]
            print("\n    ".join(found), flush=True)
    return site


def described(violation: dict[str, Any]) -> str:
    """Return an axe rule with the first two elements that violate it."""
    targets = [str(node["target"][0]) for node in violation["nodes"]]
    more = f" and {len(targets) - 2} more" if len(targets) > 2 else ""
    return f"{violation['id']}: {'; '.join(targets[:2])}{more}"


def expect_all(site: Site, page: Page, name: str, framework: str, after: str) -> None:
    """Report tab sets that do not show this framework."""
    chosen = page.evaluate(CHOSEN)
    if not chosen or set(chosen) != {framework}:
        site.report(name, f"tabs {after}: expected {framework} in all, found {chosen}")


def check_tabs(browser: Browser, site: Site) -> None:
    """Check that tabs switch everywhere at once: mouse, keyboard, reload, next page, address."""
    with_tabs = [name for name in site.pages if site.tab_sets[name]]
    phone = {"width": 390, "height": 844}
    for index, name in enumerate(with_tabs):
        with opened(browser, site, viewport=phone) as (page, wrong):
            page.goto(site.address(name))
            last = page.locator('label[data-sync-id="flax"]:visible').last
            last.scroll_into_view_if_needed()
            before = last.bounding_box()
            last.click()
            expect_all(site, page, name, "flax", "after a click")
            after = last.bounding_box()
            if before and after and abs(before["y"] - after["y"]) > 2:
                site.report(name, f"tabs: a click moves its tab from {before} to {after}")
            page.reload()
            expect_all(site, page, name, "flax", "after a reload")
            following = with_tabs[(index + 1) % len(with_tabs)]
            page.goto(site.address(following))
            expect_all(site, page, following, "flax", f"after a choice on {name}")
            page.goto(site.address(name))
            page.locator(".sd-tab-set > input:checked").first.focus()
            page.keyboard.press("ArrowLeft")
            expect_all(site, page, name, "gluon", "after an arrow key")
            outline = page.evaluate(
                "() => getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
            )
            if outline in ("none", ""):
                site.report(name, "tabs: the focus is not visible")
            page.goto(site.address(name) + "?framework=keras")
            expect_all(site, page, name, "keras", "after ?framework=keras")
            page.goto(site.address(name) + "?framework=unknown")
            expect_all(site, page, name, "keras", "after ?framework=unknown")
            inside = page.evaluate(
                """() => [...document.querySelectorAll('label[data-sync-id="flax"]')].map(
                label => document.getElementById(label.getAttribute('aria-controls')).id)[0]"""
            )
            page.goto("about:blank")
            page.goto(site.address(name) + "#" + inside)
            expect_all(site, page, name, "flax", f"after #{inside}")
            for message in wrong:
                site.report(name, message)
        with opened(browser, site, viewport=phone, java_script_enabled=False) as (page, _):
            page.goto(site.address(name))
            for framework in "keras", "torch":
                label = page.locator(f'label[data-sync-id="{framework}"]').first
                label.click()
                panel = page.locator("#" + str(label.get_attribute("aria-controls")))
                if not panel.is_visible():
                    site.report(name, f"tabs without JavaScript: {framework} does not open")


def check_columns(browser: Browser, site: Site) -> None:
    """Check the two columns of the page "Side by side"."""
    for name in (n for n in site.pages if n.endswith("side-by-side.html")):
        with opened(browser, site, viewport={"width": 1280, "height": 900}) as (page, wrong):
            page.goto(site.address(name))
            tables = page.locator("table.columns")
            if not tables.count() or tables.count() != page.locator(".side-by-side").count():
                site.report(name, f"columns: found {tables.count()}")
                continue
            if page.locator(".side-by-side:visible").count():
                site.report(name, "columns: the tabs are shown as well")
            page.locator("table.columns select").nth(1).select_option("flax")
            values = page.evaluate(
                "() => [...document.querySelectorAll('table.columns select')].map(s => s.value)"
            )
            if set(values[1::2]) != {"flax"} or set(values[::2]) != {"torch"}:
                site.report(name, f"columns: expected torch and flax everywhere, found {values}")
            for kind in "same", "changed", "right":
                if not page.locator(f"table.columns tr.{kind}").count():
                    site.report(name, f"columns: no line is marked as {kind}")
            for message in wrong:
                site.report(name, message)
        with opened(browser, site, viewport={"width": 390, "height": 844}) as (page, _):
            page.goto(site.address(name))
            if page.locator("table.columns:visible").count():
                site.report(name, "columns: shown on a phone")


def check_views(site: Site) -> None:
    """Check every page in every view, in several processes."""
    views = list(product(THEMES, WIDTHS))
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for seen in processes.map(check_view, [site] * len(views), *zip(*views, strict=True)):
            site.tab_sets |= seen.tab_sets
            site.seconds += seen.seconds
            for name, found in seen.problems.items():
                for problem in found:
                    site.report(name, problem)


def check_reports(site: Site, names: list[str]) -> None:
    """Check reports of ``compare`` as if they were pages of the site."""
    same, differs = (json.loads(COMPARED.read_text(encoding="utf-8")) for _ in REPORTS)
    wrong = differs["backends"]["keras"]
    wrong |= {
        "same": False,
        "max_deviation": 3.2e-3,
        "stages": dict.fromkeys(wrong["stages"], 2e-3),
    }
    differs["backends"]["gluon"] = {"status": "not installed", "versions": {}, "error": "type: pip"}
    with tempfile.TemporaryDirectory() as folder:
        for name, compared in zip(REPORTS, (same, differs), strict=True):
            html = report_page(compared, command="densenet-multi compare", version=dm.__version__)
            Path(folder, name).write_text(html, encoding="utf-8")
        with served(Path(folder)) as url:
            reports = Site(url, site.output, names)
            check_views(reports)
    site.pages += names
    site.problems |= reports.problems
    site.tab_sets |= reports.tab_sets
    site.seconds += reports.seconds


def main() -> int:
    """Check the site, print what was found, and return the exit status."""
    parser = argparse.ArgumentParser(description="Check the built site in Chromium.")
    parser.add_argument("site", type=Path)
    parser.add_argument("--output", type=Path, help="for screenshots; default: SITE/screenshots")
    parser.add_argument("--only", nargs="*", default=[], help="names of pages")
    chosen = parser.parse_args()
    if chromium() is None:
        print(f"expected one of {', '.join(BROWSERS)}, found none; type: apt-get install chromium")
        return 2
    if not (chosen.site / "index.html").exists():
        print(f"expected a built site in {chosen.site}, found none; type: nox -s docs")
        return 2
    reports = [name for name in REPORTS if not chosen.only or Path(name).stem in chosen.only]
    known = {name.removesuffix(".html") for name in [*pages_of(chosen.site, []), *REPORTS]}
    if unknown := sorted(set(chosen.only) - known):
        print(f"expected names of pages after --only, found {', '.join(unknown)}")
        return 2
    output = chosen.output or chosen.site / "screenshots"
    output.mkdir(parents=True, exist_ok=True)
    with served(chosen.site) as url:
        site = Site(url, output, pages_of(chosen.site, chosen.only))
        check_views(site)
        with started() as browser:
            check_tabs(browser, site)
            check_columns(browser, site)
        check_reports(site, reports)
    for name in site.pages:
        found = site.problems[name]
        state = f"{len(found)} problems" if found else "ok"
        print(f"{name}: {state}, {site.tab_sets[name]} tab sets, {site.seconds[name]:.1f} s")
        for problem in found:
            print(f"    {problem}")
    broken = sum(map(bool, site.problems.values()))
    print(f"{len(site.pages)} pages in 4 views: {broken} with problems; see {output}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
