"""The page that ``compare --output report.html`` writes: complete, safe, offline, and honest."""

import re
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi.commands import main
from densenet_multi.comparison import compare, compare_child
from densenet_multi.comparison.compare_rows import table_rows
from densenet_multi.comparison.deviation import TOLERANCES
from densenet_multi.comparison.report import texts
from densenet_multi.comparison.report.charts import Line, deviations
from densenet_multi.comparison.report.page import report_page

STAGES = ("stem", "denseblock1", "norm5")
VOID = {"meta", "link", "input"}  # elements without an end tag
ATTRIBUTES = {
    "aria-hidden", "aria-label", "aria-labelledby", "aria-live", "charset", "checked", "class",
    "content", "cx", "cy", "d", "dx", "for", "height", "href", "http-equiv", "id", "lang", "name",
    "r", "rel", "role", "rx", "scope", "tabindex", "text-anchor", "transform", "type", "viewbox",
    "width", "x", "y",
}  # fmt: skip


def report(framework: str = "PyTorch", deviation: float | None = 4e-7, **others: object):
    row = {
        "status": "ok",
        "framework": framework,
        "versions": {"it": "2.13.0"},
        "output_shape": [64, 10],
        "trainable": 758_226,
        "statistics": 6_608,
        "max_deviation": deviation,
        "same": deviation is not None and deviation <= 1e-5,
        "agreeing": 63,
        "first_call_seconds": 1.23,
        "later_call_seconds": 0.45,
        "images_per_second": 142.2,
        "peak_memory_bytes": 440 * 2**20,
        "model_lines": 107,
        "stages": {"stem": 3e-7, "denseblock1": deviation, "norm5": deviation},
    }
    return {**row, **others}


MISSING = {"status": "not installed", "versions": {"it": None}, "error": "type: pip install it"}
FAILED = {"status": "failed", "versions": {"it": "1.0"}, "error": "its process ended with SIGKILL"}


def result(**reports: dict[str, object]) -> dict[str, object]:
    return {
        "weights": "d2l, seed 0",
        "config": {"growth_rate": 32, "block_config": [4, 4]},
        "images": "test images",
        "gray_repeated_over_channels": False,
        "image_size": 96,
        "batch_size": 64,
        "dtype": "float32",
        "tolerance": 1e-5,
        "stage_images": 8,
        "cpus": [0, 1],
        "python": "3.11.7",
        "platform": "Linux",
        "processor": "a processor",
        "backends": reports,
    }


class Page(HTMLParser):
    """A parsed page: its elements, the text inside each, and whether all of them are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.elements, self.inside = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for tag, _ in self.open:
            self.inside.setdefault(tag, []).append(data)

    def text(self, tag: str = "body") -> str:
        return "".join(self.inside.get(tag, []))

    def of_class(self, name: str) -> list[str]:
        """The tags of elements that have this class."""
        return [tag for tag, attrs in self.elements if name in attrs.get("class", "").split()]


def page_of(found, command: str = "densenet-multi compare") -> tuple[str, Page]:
    text = report_page(found, command=command, version="0.1.0")
    return text, Page(text)


ALL_SAME = result(torch=report(), keras=report("tf.keras", 5e-7))
ONE_DIFFERS = result(torch=report(), keras=report("tf.keras", 3.2e-3), gluon=report("Gluon", None))
ONE_IS_MISSING = result(torch=report(), keras=MISSING)
ONE_FAILED = result(torch=report(), keras=FAILED)
NONE_RAN = result(torch=MISSING, keras=FAILED)
EVERY = [ALL_SAME, ONE_DIFFERS, ONE_IS_MISSING, ONE_FAILED, NONE_RAN]


# --- The page as a document ---------------------------------------------------------------------


@pytest.mark.parametrize("found", EVERY)
def test_the_page_is_well_formed_and_loads_nothing(found):
    text, page = page_of(found)
    assert text.startswith("<!DOCTYPE html>")
    assert [tag for tag, _ in page.elements].count("h1") == 1
    for tag, attrs in page.elements:
        assert set(attrs) <= ATTRIBUTES, tag
        assert attrs.get("href", "#")[0] == "#" or attrs["href"] == "data:,"
    assert "://" not in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("found", EVERY)
def test_the_page_has_every_number_of_the_table(found):
    _, page = page_of(found)
    cells = page.inside["td"]
    for rows in table_rows(found):
        for label, values in rows:
            assert label in page.inside["th"]
            assert all(value in cells or f"✗ {value}" in cells for value in values if value)
    for word in ("densenet-multi compare", "a processor", "Linux", "3.11.7", "0.1.0", "[4, 4]"):
        assert word in page.text()


HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script></style>&amp;"


def test_hostile_names_and_messages_stay_text():
    hidden = f"{HOSTILE}\x1b[31m\u202e"
    stages = {HOSTILE: 1e-7, "norm5": None}
    found = result(
        **{
            HOSTILE: report(HOSTILE, versions={HOSTILE: HOSTILE}, stages=stages),
            "torch": report(HOSTILE, 1.0, stages=stages),
            "keras": {**FAILED, "error": hidden},
        }
    )
    for name in ("weights", "images", "dtype", "python", "platform", "processor"):
        found[name] = hidden
    found["config"] = {HOSTILE: hidden}
    text, page = page_of(found, command=hidden)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert not {"img", "a", "iframe"} & set(tags)
    assert all(set(attrs) <= ATTRIBUTES for _, attrs in page.elements)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert page.text().count("<img src=x onerror=alert(1)>") > 10
    assert "\\x1b[31m" in page.text()


# --- The verdict --------------------------------------------------------------------------------


def test_agreement_is_the_verdict_and_the_title():
    _, page = page_of(ALL_SAME)
    assert page.text("title").startswith("d2l, seed 0: the same function in 2 frameworks")
    assert page.of_class("same") == ["p"]
    assert "PyTorch and tf.keras compute the same function" in page.text("strong")
    assert not page.of_class("alarm") + page.of_class("over") + page.of_class("differs")


def test_a_difference_cannot_be_overlooked():
    _, page = page_of(ONE_DIFFERS)
    for tag in ("h1", "strong"):
        assert "tf.keras and Gluon DIFFER" in page.text(tag)
    assert "deviate by 3.2e-03, 320 times the tolerance" in page.text("strong")
    assert "first stage above it is denseblock1" in page.text("strong")
    assert "not finite, or their shape is wrong" in page.text("strong")
    assert "PyTorch computes the same function" in page.text("strong")
    assert page.of_class("differs") == ["p"]
    assert not page.of_class("same")
    assert page.of_class("alarm") == ["td", "td"]
    drawings, above = 2, 3 + 3  # denseblock1, norm5 and the output, in two frameworks
    assert page.of_class("over") == ["circle"] * drawings * above


@pytest.mark.parametrize(
    ("found", "kind"), [(ONE_IS_MISSING, "same"), (ONE_FAILED, "differs"), (NONE_RAN, "none")]
)
def test_backends_without_a_result_are_named_and_the_others_shown(found, kind):
    _, page = page_of(found)
    assert kind in {a.get("class", "").removeprefix("verdict ") for _, a in page.elements}
    for row in found["backends"].values():
        if row["status"] != "ok":
            assert f"{row['status']}. {row['error']}" in page.text("li")
    ran = found is not NONE_RAN
    assert bool(page.of_class("bars")) == bool(page.of_class("tolerance")) == ran
    assert "tf.keras (keras)" in page.text("li")  # known without an import
    assert page.of_class("column")  # its text needs no framework


# --- The drawing --------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("tolerance", TOLERANCES.values())
def test_what_is_above_the_tolerance_is_drawn_above_its_line(wide, tolerance):
    values = [0.0, tolerance / 100, tolerance * 0.9, tolerance * 1.1, 1e3, None]
    drawn = deviations(list("abcdef"), [Line("PyTorch", "torch", values)], tolerance, wide=wide)
    (limit,) = re.findall(r'class="tolerance" d="M\d+ ([\d.]+)H', drawn)
    heights = [float(y) for y in re.findall(r'class="dot torch" d="M[\d.]+ ([\d.]+)', drawn)]
    assert heights == sorted(heights, reverse=True)
    assert [y < float(limit) for y in heights] == [False] * 3 + [True] * 3
    assert drawn.count('class="over"') == 3
    assert "above the tolerance from d on" in drawn


@pytest.mark.parametrize("wide", [True, False])
def test_names_beside_the_lines_are_apart_and_inside_the_drawing(wide):
    lines = [Line("MXNet Gluon", "gluon", [1e-7, 1e-6]) for _ in range(4)]
    drawn = deviations(["stem", "output"], lines, 1e-5, wide=wide)
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*class="name gluon"', drawn)
    heights = sorted(float(y) for _, y in found)
    assert len(heights) == 4
    assert min(np.diff(heights)) >= 16
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawn)[0])
    assert all(float(x) + 8.8 * len("MXNet Gluon") <= width for x, _ in found)
    assert heights[-1] < height


def test_each_backend_that_the_style_knows_has_a_color_of_its_own():
    _, page = page_of(result(torch=report(), keras=report("tf.keras"), mine=report("Mine")))
    for kind in ("torch", "keras", "other"):
        assert {"path", "text", "rect"} <= set(page.of_class(kind))


# --- The texts ----------------------------------------------------------------------------------

LINES = st.lists(st.sampled_from(["", "a = 1", "a = 2", "def call(x):", "return x"]), max_size=6)


@given(st.lists(LINES, min_size=1, max_size=4))
def test_aligned_texts_keep_every_line_in_order(several):
    rows = texts.aligned(several)
    for i, lines in enumerate(several):
        assert [row[i] for row in rows if row[i] is not None] == lines


def test_lines_that_say_the_same_are_in_one_row():
    one = ["class A(nn.Module):", "    super().__init__()", "    def forward(self, x):", "return x"]
    other = ["class A(Block):", "    def call(self, x):", "return x"]
    rows = texts.aligned([one, other])
    assert rows == [(one[0], other[0]), (one[1], None), (one[2], other[1]), (one[3], other[2])]


def test_each_pair_of_columns_marks_exactly_the_lines_that_differ():
    names = {name: name for name in dm.backend_names()}
    shown = texts.side_by_side(names)
    if len(texts.sources(list(names))) < 2:
        assert not shown
        return
    columns: dict[int, list[tuple[set[str], str]]] = {}
    for i, code in re.findall(r'class="column c(\d+)">.*?<code>(.*?)</code>', shown, re.DOTALL):
        lines = re.findall(r'<span class="line ?([^"]*)">(.*?)\n</span>', code)
        columns.setdefault(int(i), []).extend((set(kinds.split()), line) for kinds, line in lines)
    for i, k in permutations(columns, 2):
        alike = [line for kinds, line in columns[i] if not kinds & {f"d{k}", "none"}]
        same = [line for kinds, line in columns[k] if not kinds & {f"d{i}", "none"}]
        assert alike == same
        assert f"#l{i}:checked~#r{k}:checked~.texts .c{i} .d{k}" in shown  # without a script


def test_sources_are_read_without_their_framework():
    for name, files in texts.sources(dm.backend_names()).items():
        folder = Path(dm.__path__[0]) / name
        assert list(files["model.py"])[:2] == ["Stem", "DenseLayer"]
        for file, parts in files.items():
            for lines in parts.values():
                assert "\n".join(lines) in (folder / file).read_text("utf-8")
        assert f'FRAMEWORK = "{texts.framework_of(name)}"' in (folder / "__init__.py").read_text(
            "utf-8"
        )
    assert texts.framework_of("no-such-backend") == "no-such-backend"


# --- The command --------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_names_itself(tmp_path, monkeypatch):
    found = {name: value for name, value in ONE_DIFFERS.items() if name != "weights"}
    monkeypatch.setattr(compare, "compare", lambda *_, **__: found)
    path = tmp_path / "a report.html"
    done = CliRunner().invoke(main, ["compare", "--seed", "3", "--output", str(path)])
    assert (done.exit_code, done.stdout) == (1, "")
    page = Page(path.read_text("utf-8"))
    assert "d2l, seed 3: tf.keras and Gluon DIFFER" in page.text("title")
    assert f"densenet-multi compare --seed 3 --output '{path}'" in page.text("code")


def test_a_page_is_no_json(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "compare", lambda *_, **__: dict(ALL_SAME))
    path = tmp_path / "report.HTML"
    done = CliRunner().invoke(main, ["compare", "--format", "json", "--output", str(path)])
    assert done.exit_code == 2
    assert "omit --format json" in " ".join(done.stderr.split())
    assert not path.exists()


# --- The stages ---------------------------------------------------------------------------------


def test_stages_show_where_a_difference_begins(backend, tmp_path):
    spec = small("bottleneck", block_config=(1, 1))
    weights = random_weights(spec)
    images = np.random.default_rng(0).random((2, spec.config.in_channels, 32, 32))
    expected = dm.reference.forward(spec, weights, images)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", expected.logits)
    np.savez(tmp_path / "stages.npz", **expected.stages)
    dm.save_weights(tmp_path / "weights.safetensors", spec, weights)
    measured = compare_child.measure_backend(backend, tmp_path)
    names = [name for name, _ in dm.shape_trace(spec, 32, 32)]
    assert list(measured["stages"]) == names
    assert max(measured["stages"].values()) <= TOLERANCES["float64"]

    broken = "features.denseblock2.denselayer1.conv1.weight"
    weights[broken] = weights[broken] * 1.001
    dm.save_weights(tmp_path / "weights.safetensors", spec, weights)
    measured = compare_child.measure_backend(backend, tmp_path)
    above = [name for name in names if measured["stages"][name] > TOLERANCES["float64"]]
    assert above == names[names.index("denseblock2") :]
    assert not measured["same"]
