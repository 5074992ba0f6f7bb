"""Assemble the report: one HTML page that loads nothing, and that any browser can show offline."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from ..compare_rows import NO, deviation_text, table_rows
from .charts import OUTPUT, Line, bars, deviations
from .markup import escaped, fold, table
from .texts import framework_of, side_by_side

PURPOSE = "Do they compute the same function?"
HERE = Path(__file__).parent


def report_page(result: dict[str, Any], *, command: str, version: str) -> str:
    """Return the result of ``compare`` as an HTML page.

    Arguments:
        result: what ``compare`` returned, plus ``weights``: a path, or variant and seed.
        command: the command line that produced the result.
        version: the version of this package.
    """
    labels = {
        name: report.get("framework") or framework_of(name)
        for name, report in result["backends"].items()
    }
    headline, sentence, kind = verdict(result, labels)
    style, script = _own("report.css"), _own("report.js")
    body = "".join(
        [
            f"<header><p class='from'>{PURPOSE}</p><h1>{escaped(headline)}</h1>",
            f'<p class="verdict {kind}"><strong>{_unbroken(sentence)}</strong></p>',
            f"<p>{escaped(_compared(result))}</p>{_absent(result, labels)}</header>",
            _comparison(result),
            _by_stage(result, labels),
            _cost(result, labels),
            _texts(labels),
            _machine(result, labels, command, version),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escaped(headline)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )


def verdict(result: dict[str, Any], labels: dict[str, str]) -> tuple[str, str, str]:
    """Return a headline, a sentence, and "same", "differs" or "none"."""
    network, ran = Path(result.get("weights", "the network")).name, _ran(result)
    tolerance = result["tolerance"]
    differing = [name for name, report in ran.items() if not report["same"]]
    same = [labels[name] for name in ran if name not in differing]
    if not ran:
        return f"{network}: nothing was compared", "No framework ran.", "none"
    failed = [n for n, report in result["backends"].items() if report["status"] == "failed"]
    also = f" {_listed([labels[name] for name in failed])} failed." if failed else ""
    agree = (
        f"{_listed(same)} {'computes' if len(same) == 1 else 'compute'} the same function as the "
        f"reference, to within {tolerance:.0e}."
    )
    if not differing:
        count = f"in {len(ran)} frameworks" if len(ran) > 1 else f"in {same[0]}"
        kind = "differs" if failed else "same"
        headline = f"{network}: the same function {count}{';' + also[:-1] if failed else ''}"
        return headline, f"{'✗' if failed else '✓'} {agree}{also}", kind
    names = _listed([labels[name] for name in differing])
    sentences = [_difference(labels[name], ran[name], tolerance) for name in differing]
    text = " ".join([f"✗ {names} {_differs(differing)}.", *sentences, *([agree] if same else [])])
    return f"{network}: {names} {_differs(differing)}", text + also, "differs"


def _differs(names: list[str]) -> str:
    return "DIFFERS" if len(names) == 1 else "DIFFER"


def _difference(label: str, report: dict[str, Any], tolerance: float) -> str:
    value = report["max_deviation"]
    if value is None:
        how = "its outputs are not finite, or their shape is wrong"
    else:
        times = f"{value / tolerance:,.{0 if value >= 10 * tolerance else 1}f}"
        how = f"its outputs deviate by {value:.1e}, {times} times the tolerance"
    above = [s for s, v in report.get("stages", {}).items() if v is None or v > tolerance]
    where = f"; the first stage above it is {above[0]}" if above else ""
    return f"{label} computes another function: {how}{where}."


def _compared(result: dict[str, Any]) -> str:
    size = result["image_size"]
    gray = ", gray repeated over the channels" if result["gray_repeated_over_channels"] else ""
    return (
        f"Each framework used the same weights ({result.get('weights', 'as given')}) and the same "
        f"{result['batch_size']} {result['images']}, {size}x{size}{gray}, in {result['dtype']}. "
        "The reference is NumPy in float64."
    )


def _absent(result: dict[str, Any], labels: dict[str, str]) -> str:
    """Return a line for each backend that has no results."""
    lines = "".join(
        f"<li><strong>{escaped(labels[name])} ({escaped(name)}): {escaped(report['status'])}."
        f"</strong> {escaped(report.get('error', ''))}</li>"
        for name, report in result["backends"].items()
        if report["status"] != "ok"
    )
    return f'<ul class="absent">{lines}</ul>' if lines else ""


# --- The sections -------------------------------------------------------------------------------


def _comparison(result: dict[str, Any]) -> str:
    shown = table(list(result["backends"]), table_rows(result), name="Comparison", alarming=NO)
    return _section(
        "Comparison",
        f"{shown}<p class='note'>Deviation: the largest absolute difference from the reference, "
        "divided by the largest absolute value of the reference.</p>",
    )


def _by_stage(result: dict[str, Any], labels: dict[str, str]) -> str:
    ran = {name: report for name, report in _ran(result).items() if report.get("stages")}
    if not ran:
        return ""
    stages = list(dict.fromkeys(stage for report in ran.values() for stage in report["stages"]))
    places = [*stages, OUTPUT]
    values = {
        name: [*(report["stages"].get(stage) for stage in stages), report["max_deviation"]]
        for name, report in ran.items()
    }
    lines = [Line(labels[name], color(name), values[name]) for name in ran]
    tolerance = result["tolerance"]
    drawn = "".join(deviations(places, lines, tolerance, wide=wide) for wide in (True, False))
    rows = [
        (place, [deviation_text(values[name][i]) for name in ran]) for i, place in enumerate(places)
    ]
    numbers = table([labels[name] for name in ran], [rows], name="Deviations")
    return _section(
        "Deviation after each stage",
        "<p>Rounding alone stays below the tolerance. If a framework computes another function, "
        "the difference begins at the first stage above the tolerance. Stages are measured on the "
        f"first {result['stage_images']} images, the output on all "
        f"{result['batch_size']}.</p>"
        '<div class="scroll" tabindex="0" role="group" aria-label="Deviations, drawn">'
        f"{drawn}</div>"
        f"{fold('The numbers', numbers)}",
    )


def _cost(result: dict[str, Any], labels: dict[str, str]) -> str:
    ran = _ran(result)
    if not ran:
        return ""
    drawn = ""
    for title, key, unit, digits, scale in (
        ("First call, which may compile", "first_call_seconds", "s", 2, 1),
        ("Later calls", "later_call_seconds", "s", 2, 1),
        ("Peak memory of the process", "peak_memory_bytes", "MiB", 0, 2**20),
    ):
        rows = [
            (labels[n], color(n), r[key], f"{r[key] / scale:,.{digits}f} {unit}")
            for n, r in ran.items()
        ]
        drawn += bars(title, rows)
    return _section(
        "Speed and memory",
        f"<p>Prediction of {result['batch_size']} images; shorter is better. Each framework ran in "
        "its own process, one after the other.</p>"
        f'<div class="three">{drawn}</div>',
    )


def _texts(labels: dict[str, str]) -> str:
    order = [name for name in _colored() if name in labels]
    shown = side_by_side({name: labels[name] for name in dict.fromkeys([*order, *labels])})
    if not shown:
        return ""
    return _section(
        "The code, side by side",
        "<p>Choose two frameworks. Lines that differ are highlighted and marked ≠.</p>" + shown,
    )


def _machine(result: dict[str, Any], labels: dict[str, str], command: str, version: str) -> str:
    versions = [
        (
            f"{labels[name]} ({name})",
            ", ".join(f"{n} {v or 'not installed'}" for n, v in report["versions"].items()) or "",
        )
        for name, report in result["backends"].items()
    ]
    facts = [
        ("densenet_multi", version),
        *versions,
        ("processor", result["processor"]),
        ("CPUs", len(result["cpus"])),
        ("system", result["platform"]),
        ("Python", result["python"]),
    ]
    config = [(name.replace("_", " "), value) for name, value in result["config"].items()]
    return _section(
        "Versions and machine",
        f"{_facts(facts)}<p>The command that made this page:</p>"
        f'<pre class="command" tabindex="0"><code>{escaped(command)}</code></pre>'
        f"{fold('The network', _facts(config))}",
    )


def _facts(pairs: list[tuple[str, Any]]) -> str:
    lines = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in pairs)
    return f"<dl>{lines}</dl>"


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{inside}</section>"


# --- Parts --------------------------------------------------------------------------------------


def color(name: str) -> str:
    """Return the CSS class that colors a backend, the same everywhere."""
    return name if name in _colored() else "other"


@cache
def _colored() -> tuple[str, ...]:
    """Return the backends that report.css has a color for, in its order; the last is "other"."""
    return tuple(re.findall(r"^path\.(\w+) ", _own("report.css"), re.MULTILINE))


def _unbroken(text: str) -> str:
    """Return the text as HTML, with no line break inside a number such as 1e-05."""
    number = r"\b\d(?:\.\d)?e-\d\d\b"
    return re.sub(number, r'<span class="number">\g<0></span>', escaped(text))


def _ran(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {n: report for n, report in result["backends"].items() if report["status"] == "ok"}


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return a content security policy that forbids all requests, and all scripts but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
