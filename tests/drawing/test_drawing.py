"""Figures: well-formed, accessible, self-contained, and true to the specification."""

import re
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from densenet_multi.commands import main
from densenet_multi.drawing import (
    FIGURES,
    MOST_BLOCKS,
    OF_A_BLOCK,
    OF_A_NETWORK,
    SIZED,
    draw,
    svg,
)
from densenet_multi.drawing.block import MOST_BARS
from strategies import configs, small_configs

SVG = "{http://www.w3.org/2000/svg}"
D2L = dm.get_spec("d2l")
EXTREMES = {
    "one layer of one channel": dm.DenseNetConfig(
        growth_rate=1, block_config=(1,), num_init_features=1, bn_size=None, num_classes=0
    ),
    "100 layers per block": dm.DenseNetConfig(block_config=(100, 100), growth_rate=12),
    "as many layers as allowed": dm.DenseNetConfig(
        block_config=(10_000,), growth_rate=1, num_classes=1, stem="cifar"
    ),
    "as many channels as allowed": dm.DenseNetConfig(
        block_config=(3,), growth_rate=2**18, num_init_features=2**18, in_channels=2**20
    ),
    "wide beside narrow": dm.DenseNetConfig(
        block_config=(2, 2), growth_rate=1, num_init_features=2**20 - 2, bn_size=1
    ),
    "as many blocks as drawn": dm.DenseNetConfig(block_config=(1,) * MOST_BLOCKS, stem="cifar"),
    "almost nothing kept": dm.DenseNetConfig(block_config=(50, 50, 50), compression=0.001),
}
SPECS = {**dm.VARIANTS, **EXTREMES}


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314  # it is ours


def texts(drawing: str) -> list[str]:
    return [each.text for each in parsed(drawing).iter(f"{SVG}text")]


def spoken(drawing: str) -> str:
    return parsed(drawing).findtext(f"{SVG}desc")


def check(drawing: str) -> None:
    """Check what holds for every drawing."""
    root = parsed(drawing)
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    assert root.get("role") == "img"
    names = [root.find(f".//*[@id='{name}']") for name in root.get("aria-labelledby").split()]
    assert [each.tag for each in names] == [f"{SVG}title", f"{SVG}desc"]
    assert all(each.text for each in names)
    assert not root.get("width")
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top, width) == (0, 0, 700)
    outside = re.sub('xmlns="[^"]*"', "", drawing)
    assert not re.search(r"href|url\(|@import|https?:|<script|<image|nan|inf\b", outside)
    for each in root.iter(f"{SVG}text"):
        before = {None: 0, "middle": 0.5, "end": 1}[each.get("text-anchor")]
        start = float(each.get("x")) - before * svg.width_of(each.text)
        assert start > -1, each.text
        assert start + svg.width_of(each.text) < 701, each.text
        assert 10 < float(each.get("y")) < height - 2, each.text
    for each in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(each.get(name)) for name in ("x", "y", "width", "height"))
        assert min(x, y) >= 0, each.attrib
        assert x + wide < 701, each.attrib
        assert y + high < height, each.attrib


def overlaps(drawing: str) -> list[tuple[str, str]]:
    """Pairs of texts that overlap, by their estimated widths."""
    boxes = []
    for each in parsed(drawing).iter(f"{SVG}text"):
        width = 0.92 * svg.width_of(each.text)
        before = {None: 0, "middle": 0.5, "end": 1}[each.get("text-anchor")]
        x, y = float(each.get("x")) - before * width, float(each.get("y"))
        boxes.append((x, x + width, y - 10, y + 1, each.text))
    return [
        (a[4], b[4])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]


# --- Every drawing --------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("name", SPECS)
def test_a_drawing_is_accessible_stands_alone_and_cuts_nothing_off(name, figure):
    drawing = draw(figure, SPECS[name].resolve())
    check(drawing)
    assert not overlaps(drawing)
    assert len(drawing) < 250_000


@pytest.mark.parametrize("figure", FIGURES)
@settings(max_examples=15)
@given(st.one_of(configs(), small_configs(least_classes=0)))
def test_any_network_can_be_drawn(figure, config):
    check(draw(figure, config.resolve()))


@pytest.mark.parametrize("figure", FIGURES)
def test_the_same_network_gives_the_same_bytes(figure):
    again = dm.DenseNetSpec.from_json(D2L.to_json())
    assert draw(figure, D2L) == draw(figure, again)


@pytest.mark.parametrize("figure", FIGURES)
def test_drawings_of_one_page_share_no_id(figure):
    def ids(prefix):
        return set(re.findall('id="([^"]*)"', draw(figure, D2L, prefix=prefix)))

    assert ids("a")
    assert not ids("a") & ids("b")


@pytest.mark.parametrize("figure", FIGURES)
def test_the_css_of_a_drawing_is_for_drawings_only(figure):
    css = parsed(draw(figure, D2L)).findtext(f"{SVG}style")
    css = re.sub(r"@media [^{]*\{(.*?\})\}", r"\1", css)
    selectors = re.findall(r"([^{}]+)\{[^{}]*\}", css)
    assert len(selectors) > 10
    assert all(f".{svg.SCOPE}" in selector for selector in selectors)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_color_has_one_for_dark_pages_and_one_for_viewers_without_css(figure):
    root = parsed(draw(figure, D2L))
    css = root.findtext(f"{SVG}style")
    named = r"(c\d|quiet|mix\d)(-line)?"
    used = [e for e in root.iter() if re.match(named, e.get("class", ""))]
    assert used
    for each in used:
        name, is_line = re.match(named, each.get("class")).groups()
        light, dark = re.findall(rf"--{name}:[^,]*,(#\w+)", css)[:2]
        assert light != dark
        assert each.get("stroke" if is_line else "fill") == light


def luminance(color: str) -> float:
    parts = [each / 255 for each in bytes.fromhex(color[1:])]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", svg.COLORS)
def test_colors_are_seen_on_light_and_on_dark_pages(name):
    light, dark = map(luminance, svg.COLORS[name])
    assert 1.05 / (light + 0.05) >= 3
    assert (dark + 0.05) / (luminance("#1a1c1e") + 0.05) >= 3


def test_text_is_escaped():
    drawing = draw("block", D2L, title='<script>"&\x1b')
    assert parsed(drawing).findtext(f"{SVG}title") == '<script>"&\ufffd'


def test_a_notebook_shows_a_drawing():
    drawing = draw("growth", D2L)
    assert drawing._repr_svg_() == str(drawing)


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", dm.VARIANTS)
def test_the_network_has_the_shapes_of_the_manifest(variant):
    spec = dm.get_spec(variant)
    expected = [stage.shape for stage in dm.profile(spec, 64, 64)]
    written = texts(draw("network", spec, image_size=64))
    by = f" {svg.TIMES} "
    numbers = [t.replace(",", "").split(by) for t in written if by in t and t[0].isdigit()]
    shapes = [tuple(map(int, each)) for each in numbers]
    assert shapes == [(spec.config.in_channels, 64, 64), *expected]


def test_the_network_is_to_scale():
    root = parsed(draw("network", D2L))
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("class") == svg.OTHER]
    transitions = [t.shape for t in dm.profile(D2L, 96, 96) if t.name.startswith("transition")]
    widths = [
        float(bar.get("width")) / shape[0] for bar, shape in zip(bars, transitions, strict=True)
    ]
    heights = [
        float(bar.get("height")) / shape[1] for bar, shape in zip(bars, transitions, strict=True)
    ]
    assert widths == pytest.approx([widths[0]] * 3, rel=1e-3)
    assert heights == pytest.approx([heights[0]] * 3, rel=1e-2)


@pytest.mark.parametrize("variant", ["d2l", "densenet121", "densenet_bc100_k12"])
def test_a_block_has_an_arc_for_each_map_that_a_layer_reads(variant):
    spec = dm.get_spec(variant)
    block, _ = spec.stages[1]
    drawing = draw("block", spec, block=2)
    layers = [g for g in parsed(drawing).iter(f"{SVG}g") if g.get("class") == "layer"]
    arcs = [[p for p in g if "arc" in (p.get("class") or "").split()] for g in layers]
    assert [len(each) for each in arcs] == [i + 1 for i in range(len(block.layers))]
    written = texts(drawing)
    for layer in block.layers:
        assert f"{layer.norm1.num_features:,}" in written
    assert written.count(f"+{spec.config.growth_rate}") == len(block.layers)
    assert f"{block.out_channels:,} channels out" in " ".join(written)


def test_the_maps_of_a_block_are_as_wide_as_their_channels():
    root = parsed(draw("block", dm.dense_block(3, in_channels=30, growth_rate=10)))
    widths = [float(each.get("width")) for each in root.iter(f"{SVG}rect")
              if each.get("class") != "column"]  # fmt: skip
    maps, output = widths[:4], widths[4:]
    assert maps == output
    assert [width / maps[1] for width in maps] == pytest.approx([3, 1, 1, 1], rel=1e-3)


def test_each_bar_of_a_long_block_stands_for_several_layers_and_the_drawing_states_it():
    drawing = draw("block", dm.dense_block(100, in_channels=64, growth_rate=12))
    layers = [g for g in parsed(drawing).iter(f"{SVG}g") if g.get("class") == "layer"]
    assert len(layers) == 25 <= MOST_BARS
    shown = " ".join(texts(drawing))
    assert "Each of the 25 bars represents 4 layers." in shown
    assert f"1{svg.DASH}4" in shown
    assert f"97{svg.DASH}100" in shown
    assert "+48" in shown
    odd = draw("block", dm.dense_block(33, in_channels=64, growth_rate=12))
    assert "2 layers, the last one for fewer" in spoken(odd)


def test_a_sum_keeps_its_width_and_a_concatenation_grows():
    drawing = draw("addition-and-concatenation", dm.dense_block(2, in_channels=3, growth_rate=10))
    written = texts(drawing)
    assert written.count("3 channels") == 4  # three sums, and the input that is concatenated
    assert {"13 = 3 + 10 channels", "23 = 3 + 10 + 10 channels"} <= set(written)


@pytest.mark.parametrize("variant", ["d2l", "densenet121", "densenet_bc100_k12"])
def test_growth_has_the_channels_at_each_turn_and_at_the_end_of_both_lines(variant):
    spec = dm.get_spec(variant)
    written = texts(draw("growth", spec))
    for _, transition in spec.stages[:-1]:
        assert f"{transition.conv.in_channels:,}" in written
        assert f"{transition.conv.out_channels:,}" in written
    whole = dm.get_spec(variant, compression=1.0)
    for each in (spec, whole):
        assert f"{each.stages[-1][0].out_channels:,}" in written
    assert {"compression 0.5", "without compression"} <= set(written)


def test_growth_without_compression_is_compared_with_half():
    written = texts(draw("growth", dm.get_spec("densenet40_k12")))
    half = dm.get_spec("densenet40_k12", compression=0.5)
    assert {"448", f"{half.stages[-1][0].out_channels}", "compression 0.5"} <= set(written)


@pytest.mark.parametrize("variant", dm.VARIANTS)
def test_costs_are_those_of_the_manifest(variant):
    spec = dm.get_spec(variant)
    written = texts(draw("cost", spec, image_size=64))
    stages = dm.profile(spec, 64, 64)
    for stage in stages:
        assert f"{stage.parameters.trainable:,}" in written
        assert f"{stage.multiply_adds:,}" in written
    assert f"{dm.count_parameters(spec).trainable:,}" in written
    assert f"{sum(stage.multiply_adds for stage in stages):,}" in written
    memory = sum(stage.activation_bytes() for stage in stages) / 2**20
    assert f"{memory:,.2f} MiB" in written


def test_the_largest_costs_are_marked():
    root = parsed(draw("cost", D2L))
    bold = {each.text for each in root.iter(f"{SVG}text") if each.get("font-weight")}
    stages = {stage.name: stage for stage in dm.profile(D2L, 96, 96)}
    assert f"{stages['denseblock4'].parameters.trainable:,}" in bold
    assert f"{stages['denseblock1'].multiply_adds:,}" in bold
    assert "parameters: denseblock4; multiply-adds: denseblock1" in spoken(draw("cost", D2L))


# --- Errors, and the command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("blok", D2L), {}, "did you mean 'block'"),
        (("network", "d2l"), {}, "spec: expected a DenseNetSpec"),
        (("block", None), {}, "spec: expected a DenseNetSpec"),
        (("network", dm.dense_block(1, 1, 1)), {}, "spec: expected a DenseNetSpec"),
        (("block", D2L), {"block": 5}, "from 1 to 4; found 5"),
        (("block", D2L), {"block": 0}, "from 1 to 4; found 0"),
        (("block", D2L), {"image_size": 64}, "image_size: .*'block' uses only block=.* found 64"),
        (("network", D2L), {"block": 1}, "block: .*'network' uses only image_size=.* found 1"),
        (("growth", D2L), {"image_size": 64}, "'growth' uses no size and no block"),
        (("block", dm.dense_block(1, 1, 1)), {"block": 1}, "block: expected nothing"),
        (("cost", D2L), {"image_size": 28}, "the smallest is 29"),
        (("network", D2L), {"image_size": "96"}, "image_size: expected an integer"),
        (("block", D2L), {"prefix": "1 2"}, "prefix: expected letters"),
        (("block", D2L), {"prefix": ""}, "prefix: expected letters"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, options, message):
    with pytest.raises(dm.ConfigError, match=message):
        draw(*arguments, **options)


@pytest.mark.parametrize("figure", OF_A_NETWORK)
def test_a_network_of_very_many_blocks_is_refused_but_each_block_is_drawn(figure):
    spec = dm.DenseNetConfig(block_config=(1,) * (MOST_BLOCKS + 1), stem="cifar").resolve()
    with pytest.raises(dm.ConfigError, match="at most 24 dense blocks to draw"):
        draw(figure, spec)
    for drawn in OF_A_BLOCK:
        check(draw(drawn, spec, block=MOST_BLOCKS + 1))


def run(*arguments: str):
    return CliRunner().invoke(main, ["draw", *arguments])


@pytest.mark.parametrize("figure", FIGURES)
def test_the_command_writes_the_drawing(figure, tmp_path):
    path = tmp_path / "net.svg"
    size = ["--image-size", "64"] if figure in SIZED else []
    done = run("densenet121", "--figure", figure, "--output", str(path), *size)
    assert (done.exit_code, done.output) == (0, "")
    expected = draw(figure, dm.get_spec("densenet121"), image_size=64 if size else None)
    assert path.read_text("utf-8") == expected


def test_the_command_draws_the_requested_network_on_stdout():
    done = run("d2l", "--num-classes", "0", "--in-channels", "3", "--figure", "cost")
    assert done.exit_code == 0
    assert done.stdout == draw("cost", dm.get_spec("d2l", num_classes=0, in_channels=3))
    done = run("--figure", "block", "--block", "3")
    assert done.stdout == draw("block", D2L, block=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["d3l"], "did you mean 'd2l'"),
        (["d2l", "--figure", "blok"], "--figure: 'blok' is not one of"),
        (["d2l", "--output", "net.png"], "ends in .svg, found net.png; draw writes SVG"),
        (["d2l", "--output", "nowhere/net.svg"], "type: mkdir -p nowhere"),
        (["d2l", "--image-size", "20"], "the smallest is 29"),
        (["d2l", "--image-size", "0"], "--image-size: expected an integer of at least 1"),
        (["d2l", "--block", "5", "--figure", "block"], "from 1 to 4; found 5"),
        (["--image-size", "64", "--figure", "block"], "(--figure block uses only --block)"),
        (["--block", "2"], "--block: expected nothing (--figure network uses only --image-size)"),
        (["--num-classes", "5", "--figure", "growth"], "--num-classes: expected nothing"),
    ],
)
def test_the_commands_errors_are_one_line_each(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_variants_and_figures_are_completed():
    draw_command = main.commands["draw"]
    options = {each.name: each for each in draw_command.params}

    def completed(name, start):
        return [
            each.value for each in options[name].type.shell_complete(None, options[name], start)
        ]

    assert completed("variant", "densenet40") == ["densenet40_k12"]
    assert completed("figure", "co") == ["cost"]
