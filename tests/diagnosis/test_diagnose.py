"""The doctor names what a port does differently, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, random_weights, small
from densenet_multi.diagnosis import CONVENTIONS, diagnose, diagnose_outputs
from densenet_multi.diagnosis.conventions import STATISTICS, Pixels, suspects
from densenet_multi.diagnosis.network import OUTPUT, Change, Network

IMAGENET = STATISTICS["ImageNet"]
NORMALIZED = dm.Usage(value_range=(0, 1), mean=IMAGENET[0], std=IMAGENET[1])
FIXED = {  # identifiers that others rely on
    "same_padding", "pool_padding", "bn_epsilon", "channels_reversed", "value_range",
    "kernel_transposed", "kernel_flipped", "batch_statistics", "relu_missing", "concat_order",
    "max_pool", "softmax_output",
}  # fmt: skip
# what logits cannot show: the ReLU of the head follows anyway
ONLY_IN_MAPS = {"features_after_relu"}


def port_of(spec, weights, *changed, layout="NCHW", maps=False, dtype=np.float32):
    """A port that breaks conventions, in the precision of ``dtype``."""
    network = Network(spec, weights)
    changes = [change for suspect in changed for change in suspect.changes]

    def port(x):
        x = x.astype(np.float64)
        x = x.transpose(0, 3, 1, 2) if layout == "NHWC" else x
        if x.shape[1] != spec.config.in_channels:
            raise ValueError(f"expected {spec.config.in_channels} channels, found {x.shape[1]}")
        with np.errstate(all="ignore"):
            found = {k: v.astype(dtype) for k, v in network.outputs(x, changes).items()}
        found.pop("input")
        if layout == "NHWC":
            found = {k: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for k, v in found.items()}
        return found if maps else found[OUTPUT]

    return port


def named(diagnosis):
    """What was found, by convention."""
    return [finding.convention for finding in diagnosis.findings]


BROKEN = [
    pytest.param(name, number, id=f"{name}-{suspect.convention}-{number}")
    for name in ("bottleneck", "plain with bias")
    for number, suspect in enumerate(suspects(small(name)))
    if suspect.convention not in ONLY_IN_MAPS
]


@pytest.mark.parametrize(("name", "number"), BROKEN)
def test_every_broken_convention_is_named_from_float32_logits(name, number):
    spec = small(name)
    weights, broken = random_weights(spec), suspects(small(name))[number]
    found = diagnose(spec, weights, port_of(spec, weights, broken), most=1)
    if found.same:  # an epsilon that float32 cannot tell from the right one
        assert broken.convention == "bn_epsilon"
        assert any(broken.text in note for note in found.notes)
        return
    if not np.isfinite(found.deviation):  # no number to compare: what may cause it is listed
        assert not found.findings
        assert f"a port that {broken.text} does this too" in found.unexplained
        return
    (finding,) = found.findings
    told = [finding.text, *finding.or_else]
    assert any(f"the port {broken.text}" in text for text in told) or (
        broken.convention == finding.convention == "half_precision"
    )
    assert found.unexplained is None
    assert finding.before > found.tolerance
    if broken.convention != "half_precision":
        assert finding.after < 1e-6


def test_the_identifiers_are_those_that_others_rely_on():
    assert CONVENTIONS.keys() >= FIXED
    for name, convention in CONVENTIONS.items():
        assert name == convention.name
        assert convention.rule.endswith(".")
        assert convention.remedy
        assert convention.remedy.keys() <= {"", "torch", "keras", "gluon", "flax"}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["bottleneck", "plain with bias", "plain", "cubic"])
def test_nothing_is_found_in_a_port_that_is_right(name, layout):
    spec = small(name)
    weights = random_weights(spec)
    found = diagnose(spec, weights, port_of(spec, weights, layout=layout))
    assert found.same
    assert found.findings == ()
    assert found.deviation < 1e-6
    if spec.config.in_channels > 1:
        assert all(layout in call for call in found.asked)
    with_maps = diagnose(spec, weights, port_of(spec, weights, layout=layout, maps=True))
    assert with_maps.same


@pytest.mark.parametrize(
    "pair",
    [
        ("same_padding", "pool_padding"),
        ("bn_epsilon", "softmax_output"),
        ("channels_reversed", "concat_order"),
        ("relu_missing", "kernel_transposed"),
        ("value_range", "max_pool"),
    ],
)
def test_two_broken_conventions_are_both_named(pair):
    spec = small("bottleneck")
    weights = random_weights(spec)
    known = suspects(spec)
    broken = [next(s for s in known if s.convention == name) for name in pair]
    found = diagnose(spec, weights, port_of(spec, weights, *broken), most=2)
    assert sorted(named(found)) == sorted(pair)


def test_a_convention_that_is_broken_in_one_stage_is_named_there():
    spec = small("bottleneck")
    weights = random_weights(spec)
    epsilon = next(s for s in suspects(spec) if s.text == "has an epsilon of 1e-05")
    found = diagnose(spec, weights, port_of(spec, weights, epsilon.within("denseblock2")))
    (finding,) = found.findings
    assert (finding.convention, finding.stage) == ("bn_epsilon", "denseblock2")
    assert "in denseblock2 only" in finding.text
    assert finding.remedy["keras"] == "BatchNormalization(epsilon=0.001)"


def test_with_maps_a_defect_in_the_stem_does_not_hide_one_in_a_block():
    spec = small("bottleneck")
    weights, known = random_weights(spec), suspects(small("bottleneck"))
    padding = next(s for s in known if s.convention == "same_padding")
    order = next(s for s in known if s.convention == "concat_order").within("denseblock2")
    missing = next(s for s in known if "in the transitions" in s.text and "ReLU" in s.text)
    after = next(s for s in known if s.convention == "features_after_relu")
    port = port_of(spec, weights, padding, order, missing, after, maps=True)
    found = diagnose(spec, weights, port)
    assert {f.convention: f.stage for f in found.findings} == {
        "same_padding": "stem",
        "relu_missing": "transition1, transition2",
        "concat_order": "denseblock2",
        "features_after_relu": "norm5",
    }


def leaky(_op, _at, x):
    return np.where(x > 0, x, 0.01 * x)


UNKNOWN = {
    "a leaky ReLU": Change("activation", leaky, lambda _: True),
    "a factor in one layer": Change(
        "convolution", lambda op, at, *a: 1.01 * op(at, *a), lambda p: p.stage == "denseblock2"
    ),
    "noise": Change("result", lambda op, at, x: op(at, x) + 1e-2 * np.sin(1e5 * x), lambda _: True),
    "another classifier": Change(
        "classification", lambda op, at, x, w, b: op(at, x, w[::-1], b), lambda _: True
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_defect_that_is_not_in_the_list_is_not_blamed_on_one_that_is(name):
    spec = small("bottleneck")
    weights = random_weights(spec)
    unknown = replace(suspects(spec)[0], changes=(UNKNOWN[name],))
    found = diagnose(spec, weights, port_of(spec, weights, unknown), most=2)
    assert named(found) == []
    assert found.unexplained.startswith("none of the known conventions")
    assert not found.same


def test_an_explanation_must_hold_for_every_answer():
    spec = small("bottleneck")
    weights = random_weights(spec)
    padding = next(s for s in suspects(spec) if s.convention == "same_padding")
    padded = port_of(spec, weights, padding)

    def port(x):
        return padded(x) * (1.1 if x.shape[2] % 2 else 1)

    found = diagnose(spec, weights, port, most=1)
    assert named(found) == []
    assert found.unexplained


def test_with_maps_the_first_stage_that_differs_is_named():
    spec = small("bottleneck")
    weights = random_weights(spec)
    unknown = replace(suspects(spec)[0], changes=(UNKNOWN["a factor in one layer"],))
    found = diagnose(spec, weights, port_of(spec, weights, unknown, maps=True), most=1)
    assert named(found) == []
    assert found.unexplained.endswith("in denseblock2")  # nothing comes near


def test_a_port_that_returns_something_else_each_time_is_random():
    spec = small("bottleneck")
    weights, rng = random_weights(spec), np.random.default_rng(0)
    right = port_of(spec, weights)
    found = diagnose(spec, weights, lambda x: right(x) * rng.uniform(0.9, 1.1))
    assert named(found) == ["dropout_active"]
    assert found.findings[0].remedy["torch"] == "model.eval()"


def test_pixels_that_were_not_normalized_are_named():
    spec = small("bottleneck")
    weights = random_weights(spec)
    pixels = Pixels(*IMAGENET)
    for broken in suspects(spec, pixels):
        if broken.convention in ("value_range", "pixel_statistics"):
            port = port_of(spec, weights, broken)
            found = diagnose(spec, weights, port, usage=NORMALIZED, most=1)
            assert named(found) == [broken.convention]
            assert broken.text in found.findings[0].text


def test_float64_shows_an_epsilon_that_float32_hides():
    spec = small("bottleneck", bn_eps=1e-5)
    weights = random_weights(spec)
    broken = next(s for s in suspects(spec) if "1.001e-05" in s.text)
    port = port_of(spec, weights, broken, dtype=np.float64)
    found = diagnose(spec, weights, port)
    assert found.same
    assert any("1.001e-05" in note for note in found.notes)
    exact = diagnose(spec, weights, port, dtype="float64")
    assert named(exact) == ["bn_epsilon"]
    assert "1.001e-05" in exact.findings[0].text


def test_a_port_of_one_size_is_asked_at_that_size():
    spec = small("bottleneck")
    weights = random_weights(spec)
    right = port_of(spec, weights)

    def only_32(x):
        if x.shape[2:] != (32, 32):
            raise ValueError("expected 32x32")
        return right(x)

    found = diagnose(spec, weights, only_32)
    assert found.same
    assert all("32x32" in call for call in found.asked)


def test_outputs_that_were_saved_elsewhere_are_enough():
    spec = small("bottleneck")
    weights = random_weights(spec)
    broken = next(s for s in suspects(spec) if s.convention == "same_padding")
    x = images(spec, 44).astype(np.float32)
    logits = port_of(spec, weights, broken)(x)
    found = diagnose_outputs(spec, weights, x, {"logits": logits})
    assert named(found) == ["same_padding"]
    channels_last = x.transpose(0, 2, 3, 1)
    assert named(diagnose_outputs(spec, weights, channels_last, {"output": logits})) == [
        "same_padding"
    ]
    assert diagnose_outputs(spec, weights, x, {"logits": port_of(spec, weights)(x)}).same


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (lambda x: x[:, :2].mean((2, 3)), "expected logits of shape"),
        (lambda x: np.zeros((4, len(x))), "expected logits of shape"),
        (
            lambda x: {"block1": x, "output": np.zeros((len(x), 4))},
            "maps of stem, .*found 'block1'",
        ),
        (lambda x: {"stem": x}, "expected the logits as output, .*found only stem"),
        (lambda _: None, "expected NumPy arrays, found NoneType"),
        (lambda _: [[1, 2], [3]], "expected NumPy arrays, found list"),
        (lambda _: 1 / 0, "found that it raised ZeroDivisionError"),
    ],
    ids=["too few", "transposed", "unknown map", "no logits", "nothing", "ragged", "raises"],
)
def test_a_port_that_is_no_port_is_refused_by_name(port, message):
    spec = small("bottleneck")
    with pytest.raises(dm.ImageError, match=message):
        diagnose(spec, random_weights(spec), port)
    with pytest.raises(dm.ConfigError, match="dtype: expected"):
        diagnose(spec, random_weights(spec), port, dtype="float16")
