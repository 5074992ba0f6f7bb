"""Run the blocks of the pages and store what they print: ``nox -s outputs``.

Only stale pages run, each page and framework in a process of its own. ``-- --all`` runs all pages,
``-- --framework torch`` and ``-- --page chapter`` only these (both may be repeated). The commands
of a page run if all frameworks that they need are among these. ``-- --check`` stores nothing: it
runs the pages and reports outputs that differ from the stored ones. Text and integers have to be
equal, other numbers nearly. In a block with ``:varies:``, only the text has to;
with ``:varies: lines``, only the number of lines.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from densenet_multi._files import replace_file
from densenet_multi.comparison.machine import processor

from . import stamp
from .pages import DOCS, FRAMEWORKS, Block, PageError, blocks_of, frameworks_of, page_names

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
QUIET |= {"OMP_WAIT_POLICY": "passive"}  # threads that spin slow down whatever else runs
LIMIT = 1800  # seconds for one page in one framework, on a busy machine too
TOLERANCE = 0.02  # relative, of numbers that are no integers: another version rounds differently
SMALL = 1e-5  # below it, numbers are rounding errors

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[-+]?\d+)?(?!\w)")
SVG_TEXT = re.compile(r">([^<>]+)<")


class BlockError(Exception):
    """A block of a page raised an error."""


# --- Which pages run ----------------------------------------------------------------------------


def stale(blocks: list[Block], kept: dict[str, Any]) -> bool:
    """Whether the stored outputs of a page in a framework have to be made again."""
    pairs = zip(blocks, stamp.sources_of(blocks), strict=True)
    old = any(stamp.why_stale(block, sources, kept) for block, sources in pairs)
    return old or len(kept["blocks"]) != len(blocks)


def chosen(arguments: argparse.Namespace) -> dict[tuple[str, str], list[Block]]:
    """Return what the arguments ask for, {(page, framework): blocks}. Raises ``PageError``."""
    found = {}
    for page in arguments.page or page_names():
        for framework, blocks in blocks_of(page).items():
            wanted = frameworks_of(blocks) <= set(arguments.framework or FRAMEWORKS)
            every = arguments.all or arguments.check
            if wanted and (stale(blocks, stamp.stored(page, framework)) or every):
                found[page, framework] = blocks
    return found


# --- Running ------------------------------------------------------------------------------------


def executed(page: str, framework: str, blocks: list[Block]) -> dict[str, Any]:
    """Run the blocks in a new process; return what is stored. Raises ``BlockError``."""
    source = str(DOCS / f"{page}.md")
    sources = stamp.sources_of(blocks)  # now: the files may change while the blocks run
    asked_for = [
        {"code": b.code, "line": b.line, "commands": [c._asdict() for c in b.commands]}
        for b in blocks
    ]
    needs = sorted(frameworks_of(blocks))
    request = {"source": source, "frameworks": needs, "blocks": asked_for}
    path = os.pathsep.join(filter(None, [str(DOCS), os.environ.get("PYTHONPATH", "")]))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "request.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(request), "utf-8")
        (work := Path(folder, "work")).mkdir()  # where the blocks may write files
        command = [sys.executable, "-P", "-m", f"{__package__}.child", str(asked), str(answer)]
        try:
            process = subprocess.run(  # noqa: S603  # this interpreter, this package
                command,
                cwd=work,
                env={**os.environ, **QUIET, "PYTHONPATH": path},
                timeout=LIMIT,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BlockError(f"docs/{page}.md ({framework}): no end after {LIMIT} s") from error
        if not answer.exists():
            last = "\n".join(process.stderr.splitlines()[-20:])
            raise BlockError(f"docs/{page}.md ({framework}): the process ended: {last}")
        result = json.loads(answer.read_text("utf-8"))
    if "error" in result:
        where = f"docs/{page}.md:{result['line']}"
        raise BlockError(f"{where}: the {framework} block raised an error\n{result['error']}")
    entries = [
        {"key": block.key, "sources": used, "made": stamp.hash_of(ran["outputs"]), **ran}
        for block, used, ran in zip(blocks, sources, result["blocks"], strict=True)
    ]
    return {
        "page": page,
        "framework": framework,
        "versions": result["versions"],
        "date": datetime.now(UTC).date().isoformat(),
        "machine": processor(),
        "seconds": round(time.perf_counter() - began, 1),
        "blocks": entries,
    }


def store(result: dict[str, Any]) -> None:
    """Write the outputs of a page in a framework, atomically."""
    path = stamp.output_path(result["page"], result["framework"])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    replace_file(path, text.encode())


# --- Comparing ----------------------------------------------------------------------------------


def differences(blocks: list[Block], old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what new outputs say otherwise than the stored ones, as readable differences."""
    found = []
    entries = old.get("blocks", [])
    for block, entry, again in zip(blocks, entries, new["blocks"], strict=False):
        before, after = _text(entry), _text(again)
        if not alike(before, after, varies=block.options.get("varies")):
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), "stored", "now", lineterm="", n=0
            )
            where = f"docs/{block.page}.md:{block.line}, {block.framework}"
            found.append("\n".join([where, *list(lines)[2:]]))
    if len(entries) != len(blocks):
        found.append(f"docs/{new['page']}.md, {new['framework']}: some outputs are not stored")
    return found


def _text(entry: dict[str, Any]) -> str:
    """Return the text of a block's outputs, that in pictures included."""
    lines = []
    for output in entry["outputs"]:
        words = SVG_TEXT.findall(output.get("svg", ""))
        lines += [output["text"]] if "text" in output else ["(a picture)", *map(str.strip, words)]
    return "\n".join(lines)


def alike(before: str, after: str, *, varies: str | None = None) -> bool:
    """Whether two texts agree. Numbers that are no integers may differ a little.

    How many spaces there are does not count, because they align numbers. ``varies`` is the value of
    this option: None without it; "" if all numbers may differ; "lines" if all but the number of
    lines may.
    """
    if varies == "lines":
        return before.count("\n") == after.count("\n")
    texts = [[part.split() for part in NUMBER.split(text)] for text in (before, after)]
    pairs = zip(NUMBER.findall(before), NUMBER.findall(after), strict=False)
    return texts[0] == texts[1] and (varies == "" or all(_near(*pair) for pair in pairs))


def _near(one: str, other: str) -> bool:
    one, other = one.replace(",", ""), other.replace(",", "")
    if one.lstrip("+-").isdecimal() or other.lstrip("+-").isdecimal():
        return one == other
    return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=SMALL)


# --- The command --------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    """Run what the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser("nox -s outputs --", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also what is fresh")
    parser.add_argument("--check", action="store_true", help="store nothing, report differences")
    parser.add_argument("--framework", action="append", choices=FRAMEWORKS)
    parser.add_argument("--page", action="append", choices=page_names())
    arguments = parser.parse_args(words)
    try:
        work = chosen(arguments)
    except PageError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    failed, reports, began = [], [], time.perf_counter()
    for number, ((page, framework), blocks) in enumerate(work.items(), 1):
        kept = stamp.stored(page, framework)
        expected = f", about {kept['seconds']:.0f} s" if kept else ""
        head = f"[{number}/{len(work)}] {page}, {framework}: {len(blocks)} blocks"
        print(f"{head}{expected} ...", flush=True)  # noqa: T201  # progress
        try:
            result = executed(page, framework, blocks)
        except BlockError as error:
            failed.append(str(error))
            print(error, file=sys.stderr, flush=True)  # noqa: T201
            continue
        if arguments.check:
            reports += differences(blocks, kept, result)
        else:
            store(result)
        print(f"    {result['seconds']} s", flush=True)  # noqa: T201
    if not arguments.check:
        for path in stamp.leftovers():
            path.unlink()
            print(f"deleted {path.name}: its page has no such blocks")  # noqa: T201
    for report in reports:
        print(f"\n{report}")  # noqa: T201
    seconds = time.perf_counter() - began
    summary = f"{len(work)} page-framework pairs in {seconds:.0f} s, {len(failed)} failed"
    print(f"{summary}, {len(reports)} outputs differ" if arguments.check else summary)  # noqa: T201
    return bool(failed or reports)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
