"""The reference pages of the documentation describe the package as it is."""

import io
import json
import re
from pathlib import Path
from runpy import run_path
from statistics import median

import numpy as np
import pytest
from PIL import Image

import densenet_multi as dm
from densenet_multi._heatmap import over
from densenet_multi.commands import main
from densenet_multi.commands.output import print_result
from densenet_multi.commands.predict import blocks
from densenet_multi.data import load_data, read_image
from extensions import floors, reference
from tolerances import TIERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DATA = DOCS / "results" / "data"
SCENE = {"bag": (8, 8), "sneaker": (70, 40)}  # left, top; photos of 28x28 in 112x84 pixels


def test_the_table_of_variants_has_each_with_its_depth_and_count():
    found = reference.variant_rows()
    rows = {row[0]: dict(zip(reference.COLUMNS, row, strict=True)) for row in found}
    assert list(rows) == list(dm.VARIANTS)
    assert rows["densenet121"]["depth"] == "121"
    assert rows["densenet_bc100_k12"]["depth"] == "100"
    assert rows["d2l"]["parameters"] == "758,226"
    assert rows["d2l"]["multiply-adds"] == "129,077,168"


def test_the_page_of_commands_has_each_command_and_option():
    described = [text for texts in reference.command_groups().values() for text in texts]
    assert sorted(text.name for text in described) == sorted(main.commands)
    for text in described:
        flags = " ".join(names for names, _ in text.options)
        for parameter in main.commands[text.name].params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in flags
        assert text.example.startswith(f"densenet-multi {text.name}")


def test_the_house_has_a_floor_for_each_public_part_of_the_package():
    shown = {name for names, _ in floors.floors() for name in names}
    package = Path(dm.__path__[0])
    parts = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert shown == {part for part in parts if not part.startswith("_")}


def test_a_floor_without_a_purpose_is_an_error(monkeypatch):
    monkeypatch.delitem(floors.PURPOSES, "formats")
    with pytest.raises(KeyError, match="formats"):
        floors.floors()


def test_the_floors_of_the_house_fit_a_phone():
    for names, purpose in floors.floors():
        assert 14 + len(", ".join(names)) * 8.5 < floors.WIDTH  # 14 px monospace: 8.4 px each
        assert 14 + len(purpose) * 7 < floors.WIDTH  # 13 px sans-serif: about 6.5 px each


@pytest.fixture
def run_snippet(tmp_path, monkeypatch):
    """Return a function that runs the Python fence of training.md with this text."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "training.md").read_text("utf-8")
    snippets = re.findall(r"```(?:python|{run} python)\n(.*?)```", page, re.DOTALL)

    def run(part):
        (snippet,) = (code for code in snippets if part in code)
        exec(snippet, {})  # noqa: S102  # the page's own code

    return run


def test_the_code_that_makes_photos_makes_a_folder_to_train_on(run_snippet):
    run_snippet("Image.fromarray")
    found = load_data("folder:photos", image_size=64)
    assert (len(found.train), len(found.test)) == (192, 48)
    assert found.train.take([0]).shape == (1, 3, 64, 64)  # in color


def test_the_scene_has_two_photos_of_the_folder(run_snippet):
    run_snippet("Image.fromarray")
    run_snippet("scene.paste(")
    with Image.open("scene.png") as scene:
        pixels = np.asarray(scene).max(axis=2).astype(int)
    assert pixels.shape == (336, 448)
    bag, sneaker = pixels[32:144, 32:144], pixels[160:272, 280:392]
    assert min(bag.max(), sneaker.max()) > 60
    assert bag.sum() + sneaker.sum() > 0.95 * pixels.sum()


@pytest.fixture(scope="module")
def heatmaps():
    """What docs/results/scripts/heatmaps.py has measured."""
    return json.loads((DATA / "heatmaps.json").read_text("utf-8"))


@pytest.mark.parametrize("name", SCENE)
def test_the_heatmaps_of_the_page_are_drawn_from_their_values(heatmaps, run_snippet, capsys, name):
    run_snippet("Image.fromarray")
    run_snippet("scene.paste(")
    found = heatmaps["predicted"][name]
    drawn = over(read_image("scene.png", 1)[0], np.array(found["heatmap"]["map"]))
    stored, made = (
        np.asarray(Image.open(file)).astype(int)
        for file in (DATA / f"heatmap-{name}.png", io.BytesIO(drawn))
    )
    assert stored.shape == made.shape
    assert abs(stored - made).max() <= 2  # of 255; versions of Pillow may round differently
    print_result([found], "human", blocks)
    assert capsys.readouterr().out == (DATA / f"heatmap-{name}.txt").read_text("utf-8")


def parts_of_the_scene(height, width):
    """Return {part: mask of the map's places}: at least half on an object, or on none at all."""
    covered = {}
    for name, (left, top) in SCENE.items():
        x, y = (
            np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
            for edges, start, end in (
                (np.linspace(0, 112, width + 1), left, left + 28),
                (np.linspace(0, 84, height + 1), top, top + 28),
            )
        )
        covered[name] = np.outer(y, x) / (112 * 84 / width / height)
    masks = {name: share >= 0.5 for name, share in covered.items()}
    return masks | {"background": sum(covered.values()) == 0}


def test_the_page_says_what_the_heatmaps_show(heatmaps):
    page = (DOCS / "training.md").read_text("utf-8")
    maps = {n: np.array(f["heatmap"]["map"]) for n, f in heatmaps["predicted"].items()}
    parts = parts_of_the_scene(*maps["bag"].shape)
    for part, mask in parts.items():
        means = " | ".join(f"{maps[name][mask].mean():.2f}" for name in SCENE)
        assert f"| {part} | {means} |" in page
    highest = {n: np.unravel_index(values.argmax(), values.shape) for n, values in maps.items()}
    assert parts["bag"][highest["bag"]]
    assert not parts["sneaker"][highest["sneaker"]]
    assert heatmaps["predicted"]["bag"]["top"][0]["class"] == "sneaker"


def test_the_page_on_training_has_the_memory_that_was_measured():
    page = (DOCS / "training.md").read_text("utf-8")
    here, gpu = (
        json.loads((DATA / f"{name}.json").read_text("utf-8"))["backends"]
        for name in ("bench-memory", "gpu-memory")
    )
    for case, option in {"efficient": "", "max": " max"}.items():
        memory = [ratio(each["cases"], case, "grown_bytes") for each in here.values()]
        time = [time_ratio(each["cases"], case) for each in here.values()]
        on_gpu = time_ratio(gpu["torch"]["cases"], case)
        (row,) = re.findall(rf"^\| `--memory-efficient{option}` \|.*$", page, re.MULTILINE)
        assert f"| {min(memory):.2f} to {max(memory):.2f} " in row
        assert f"time: {min(time):.2f} to {max(time):.2f} times on a CPU" in row
        assert f"{on_gpu:.2f} times on a GPU" in row
    spec = dm.get_spec("densenet_bc100_k12")
    predicted = 64 * sum(part.activation_bytes() for part in dm.profile(spec, 32, 32)) / 2**20
    plain = [each["cases"]["plain"]["grown_bytes"] / 2**20 for each in here.values()]
    text = " ".join(page.split())
    sentence = f"it is {predicted:,.0f} MiB, where the four frameworks took {min(plain):,.0f} to"
    assert f"{sentence} {max(plain):,.0f} MiB" in text


def ratio(cases, case, key):
    return cases[case][key] / cases["plain"][key]


def time_ratio(cases, case):
    pairs = zip(cases["plain"]["rounds"], cases[case]["rounds"], strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def test_the_page_says_how_much_of_its_photos_is_background(run_snippet):
    run_snippet("Image.fromarray")
    page = " ".join((DOCS / "training.md").read_text("utf-8").split())
    shares = {
        folder.name: np.mean([np.asarray(Image.open(p)).any(axis=2) for p in folder.iterdir()])
        for folder in Path("photos").iterdir()
    }
    sentence = (
        "a sneaker covers {sneaker:.0%} of its photo, trousers {trousers:.0%}, "
        "a t-shirt {t-shirt:.0%} and a bag {bag:.0%}"
    )
    assert sentence.format(**shares) in page


def test_the_tables_of_the_page_on_lockstep_are_made_from_the_measured_steps():
    tables = run_path(str(ROOT / "docs" / "results" / "scripts" / "tables.py"))
    page = (ROOT / "docs" / "lockstep.md").read_text("utf-8")
    assert [each for each in ("changed_steps", "threads") if tables[each]() not in page] == []
    step = tables["read"]("lockstep-torch")["step"]
    changed, text = step["changed"], " ".join(page.split())
    assert f"{step['relu_inputs']:,} values reach a ReLU" in text
    assert f"another value in {changed['float32']['windows']} windows" in text
    assert f"other gradients change by {changed['float32']['gradients_after_max_pool']:.1e}" in text
    for change in ("1e-07", "3e-07"):
        factor = changed[change]["gradients"] / float(change)
        assert f"the gradients change by {factor:.0f} times as much" in text


def test_the_citation_has_the_version_of_the_package():
    for name in ("CITATION.cff", "docs/cite.md"):
        text = (ROOT / name).read_text("utf-8")
        assert re.search(r"^ *version *[:=] *\{?([\d.]+)", text, re.MULTILINE)[1] == dm.__version__


def test_the_page_on_sameness_has_the_tolerances_that_the_tests_use():
    tiers = {
        "logits and every stage, float64": "forward float64",
        "logits and every stage, float32": "forward float32",
        "loss, float64": "loss float64",
        "gradients, float64": "gradients float64",
        "running statistics after a step, float64": "statistics float64",
        "weights after eight steps of training, float64": "trajectory float64",
        "another project's model, float64": "peer float64",
    }
    page = (DOCS / "sameness.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+) \| (\d\S*) \| (\d\S*) \|$", page, re.MULTILINE)
    found = {what: (float(tolerance), float(measured)) for what, tolerance, measured in rows}
    known = {what: TIERS[name] for what, name in tiers.items()}
    assert found == {what: (tier.tolerance, tier.measured) for what, tier in known.items()}
