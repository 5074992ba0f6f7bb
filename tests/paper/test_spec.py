"""A configuration refuses impossible values, and resolves to a spec that states every number."""

import copy
import inspect
import json
import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from densenet_multi import spec as spec_module
from densenet_multi._checks import floor_of_decimal
from densenet_multi._spec_dict import KINDS, from_dict, to_dict
from densenet_multi.spec import SCHEMA_VERSION
from strategies import configs, decimals

FIELDS = [field.name for field in fields(dm.DenseNetConfig)]
NOT_INTEGERS = [True, False, np.True_, 32.0, "32", None, 1.5, math.nan, math.inf, [32]]
NOT_NUMBERS = [True, np.True_, "0.5", b"0.5", None, [0.5], math.nan, math.inf]
NOT_NUMBERS += [np.array([0.5]), np.array([0.5, 0.5]), 0.5 + 0j, np.complex64(0.5)]
TOO_LARGE_FOR_A_FLOAT = 10**400


def described(value: object) -> str:
    """A test id that distinguishes True from np.True_."""
    return f"{type(value).__name__}-{value!r}"


def refusal(**given_values: object) -> str:
    """The message with which these fields are refused."""
    with pytest.raises(dm.ConfigError) as caught:
        dm.DenseNetConfig(**given_values)
    return str(caught.value)


def widths(spec: dm.DenseNetSpec) -> list[int]:
    """Channels after each transition, and at the end."""
    after = [transition.conv.out_channels for _, transition in spec.stages if transition]
    return [*after, spec.norm5.num_features]


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["growth_rate", "num_init_features", "in_channels", "bn_size"])
@pytest.mark.parametrize("given_value", [0, -1, *NOT_INTEGERS], ids=described)
def test_a_width_is_a_positive_integer(field, given_value):
    if field == "bn_size" and given_value is None:  # None: no bottleneck
        assert dm.DenseNetConfig(bn_size=None).bn_size is None
        return
    message = refusal(**{field: given_value})
    assert message == f"{field}: expected an integer from 1 to 1,048,576; found {given_value!r}"


@pytest.mark.parametrize("given_value", [-1, *NOT_INTEGERS], ids=described)
def test_the_number_of_classes_is_an_integer_from_zero(given_value):
    message = refusal(num_classes=given_value)
    assert message == f"num_classes: expected an integer from 0 to 1,048,576; found {given_value!r}"
    assert dm.DenseNetConfig(num_classes=0).num_classes == 0


@pytest.mark.parametrize("given_value", [0, -1, *NOT_INTEGERS], ids=described)
def test_a_block_has_a_positive_integer_of_layers_and_the_message_says_which_block(given_value):
    message = refusal(block_config=(6, given_value, 3))
    assert message == f"block_config[1]: expected an integer of at least 1; found {given_value!r}"


@pytest.mark.parametrize("given_value", [(), [], 6, "66", None, {6: 6}, range(6)], ids=described)
def test_the_blocks_are_a_list_or_tuple_that_is_not_empty(given_value):
    message = refusal(block_config=given_value)
    assert message.startswith("block_config: expected one or more positive integers")
    assert message.endswith(f"found {given_value!r}")


@pytest.mark.parametrize(
    ("field", "outside", "allowed"),
    [
        ("compression", [0, 0.0, -0.5, 1.0001, 2], "a number above 0 and at most 1"),
        ("drop_rate", [-0.1, 1, 1.0, 2], "a number from 0 up to but not including 1"),
        ("bn_eps", [0, 0.0, -1e-5], "a finite number above 0"),
        ("bn_decay", [-0.1, 1, 1.0, 1.5], "a number from 0 up to but not including 1"),
    ],
)
def test_a_number_outside_its_range_is_refused_with_the_range(field, outside, allowed):
    for given_value in [*outside, *NOT_NUMBERS, -math.inf, TOO_LARGE_FOR_A_FLOAT]:
        message = refusal(**{field: given_value})
        assert message == f"{field}: expected {allowed}; found {given_value!r}"


@pytest.mark.parametrize(
    ("field", "value"),
    [("compression", 1), ("compression", 1e-300), ("drop_rate", 0), ("bn_decay", 0), ("bn_eps", 1)],
)
def test_the_ends_of_a_range_that_belong_to_it_are_accepted_and_stored_as_floats(field, value):
    stored = getattr(dm.DenseNetConfig(**{field: value}), field)
    assert stored == value
    assert type(stored) is float


@pytest.mark.parametrize("given_value", [0, 1, "True", None, 1.0])
def test_the_bias_switch_is_true_or_false(given_value):
    assert refusal(conv_bias=given_value) == (
        f"conv_bias: expected True or False; found {given_value!r}"
    )


@pytest.mark.parametrize("given_value", ["ImageNet", "", None, 7])
def test_the_stem_is_one_of_the_two(given_value):
    assert refusal(stem=given_value) == (
        f"stem: expected 'imagenet' or 'cifar'; found {given_value!r}"
        + ("; did you mean 'imagenet'?" if given_value == "ImageNet" else "")
    )


def test_every_error_of_a_configuration_is_a_value_error():
    assert issubclass(dm.ConfigError, ValueError)


UNKNOWN_FIELD = {
    "DenseNetConfig": lambda: dm.DenseNetConfig(growth_rat=12),
    "get_spec": lambda: dm.get_spec("d2l", growth_rat=12),
    "from_json": lambda: dm.DenseNetConfig.from_json(json_of(growth_rat=12)),
    "cifar_config": lambda: dm.cifar_config(40, 12, bottleneck=False, growth_rat=12),
}


@pytest.mark.parametrize("through", UNKNOWN_FIELD)
def test_an_unknown_field_is_refused_with_the_nearest_name(through):
    with pytest.raises(dm.ConfigError) as caught:
        UNKNOWN_FIELD[through]()
    assert str(caught.value) == (
        f"field 'growth_rat' does not exist; did you mean 'growth_rate'? known: {', '.join(FIELDS)}"
    )


def test_a_name_like_no_field_gets_no_guess_but_the_list():
    assert refusal(zzz=1) == f"field 'zzz' does not exist; known: {', '.join(FIELDS)}"


@pytest.mark.parametrize(
    ("given_name", "nearest"),
    [
        ("densenet-121", "densenet121"),
        ("densenet_bc_100_k12", "densenet_bc100_k12"),
        ("D2l", "d2l"),
    ],
)
def test_an_unknown_variant_is_refused_with_the_nearest_name(given_name, nearest):
    with pytest.raises(dm.ConfigError) as caught:
        dm.get_spec(given_name)
    assert str(caught.value) == (
        f"variant {given_name!r} does not exist; did you mean {nearest!r}? "
        f"known: {', '.join(dm.VARIANTS)}"
    )


@pytest.mark.parametrize("not_a_name", [None, 121, ["d2l"]])
def test_a_variant_that_is_no_name_at_all_is_unknown_too(not_a_name):
    with pytest.raises(dm.ConfigError, match="does not exist"):
        dm.get_spec(not_a_name)


def test_a_compression_that_leaves_a_transition_without_channels_names_the_transition():
    config = dm.DenseNetConfig(growth_rate=1, block_config=(1, 1), num_init_features=1,
                               compression=0.4)  # fmt: skip
    with pytest.raises(dm.ConfigError) as caught:
        config.resolve()
    assert str(caught.value) == (
        "compression: expected at least 1/2: transition1 would keep none of 2 channels; found 0.4"
    )
    assert widths(replace(config, compression=0.5).resolve()) == [1, 2]


# --- What is kept -------------------------------------------------------------------------------


def test_numpy_numbers_are_stored_as_pythons():
    config = dm.DenseNetConfig(
        growth_rate=np.int64(12),
        block_config=[np.int32(4), np.uint8(4)],
        bn_size=np.int16(4),
        compression=np.float32(0.5),
        bn_eps=np.float64(1e-5),
    )
    assert type(config.growth_rate) is type(config.bn_size) is int
    assert [type(n) for n in config.block_config] == [int, int]
    assert type(config.compression) is type(config.bn_eps) is float


def test_a_list_of_blocks_is_stored_as_a_tuple():
    assert dm.DenseNetConfig(block_config=[4, 4]).block_config == (4, 4)


def test_a_configuration_cannot_be_changed():
    for field in FIELDS:
        with pytest.raises(FrozenInstanceError):
            setattr(dm.DenseNetConfig(), field, 1)


def test_a_spec_and_its_parts_cannot_be_changed():
    spec = dm.get_spec("d2l")
    parts = [spec, spec.stem, spec.stem.conv0, spec.stem.norm0, spec.stem.pool0, spec.classifier]
    parts += [spec.stages[0][0], spec.stages[0][0].layers[0], spec.stages[0][1]]
    for part in parts:
        with pytest.raises(FrozenInstanceError):
            setattr(part, fields(part)[0].name, None)


@given(configs())
@settings(deadline=None, max_examples=25)
def test_equal_configurations_give_equal_specs_with_equal_hashes(config):
    same = dm.DenseNetConfig(**{name: getattr(config, name) for name in FIELDS})
    assert same == config
    assert hash(same) == hash(config)
    assert same.resolve() == config.resolve()
    assert len({same.resolve(), config.resolve()}) == 1


@pytest.mark.parametrize("field", FIELDS)
def test_a_difference_in_any_field_makes_another_configuration_and_another_spec(field):
    other = {
        "growth_rate": 12, "block_config": (6, 12), "num_init_features": 16, "bn_size": None,
        "compression": 1.0, "drop_rate": 0.2, "num_classes": 10, "in_channels": 1,
        "stem": "cifar", "conv_bias": True, "bn_eps": 1e-3, "bn_decay": 0.99,
        "transition_pool": "max", "global_pool": "max",
    }  # fmt: skip
    changed = dm.DenseNetConfig(**{field: other[field]})
    assert changed != dm.DenseNetConfig()
    parts = ("stem", "stages", "norm5", "classifier", "global_pool")
    resolved, default = changed.resolve(), dm.DenseNetConfig().resolve()
    assert any(getattr(resolved, p) != getattr(default, p) for p in parts)


@given(configs())
@settings(deadline=None, max_examples=25)
def test_a_configuration_and_its_spec_survive_pickle_and_copy(config):
    spec = config.resolve()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for whole in (config, spec):
            assert pickle.loads(pickle.dumps(whole, protocol)) == whole  # noqa: S301 (our own)
    assert copy.copy(spec) == copy.deepcopy(spec) == spec
    assert copy.copy(config) == copy.deepcopy(config) == config


# --- JSON ---------------------------------------------------------------------------------------


def json_of(**changes: object) -> str:
    """A configuration as JSON, with fields replaced, added, or (``...``) removed."""
    data = json.loads(dm.DenseNetConfig().to_json())
    data["config"].update(changes)
    data["config"] = {name: value for name, value in data["config"].items() if value is not ...}
    return json.dumps(data)


@given(configs())
@settings(deadline=None, max_examples=100)
def test_any_configuration_survives_json(config):
    text = config.to_json()
    assert dm.DenseNetConfig.from_json(text) == config
    assert dm.DenseNetSpec.from_json(config.resolve().to_json()) == config.resolve()
    assert "\n" not in text


def test_the_json_of_a_configuration_is_its_fields_and_a_schema_version():
    assert json.loads(dm.VARIANTS["d2l"].to_json()) == {
        "schema_version": 1,
        "config": {
            "growth_rate": 32,
            "block_config": [4, 4, 4, 4],
            "num_init_features": 64,
            "bn_size": None,
            "compression": 0.5,
            "drop_rate": 0.0,
            "num_classes": 10,
            "in_channels": 1,
            "stem": "imagenet",
            "conv_bias": True,
            "bn_eps": 1e-05,
            "bn_decay": 0.9,
            "transition_pool": "avg",
            "global_pool": "avg",
        },
    }


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version_is_refused_with_both_versions(version):
    text = json.dumps({"schema_version": version, "config": {}})
    with pytest.raises(dm.ConfigError) as caught:
        dm.DenseNetConfig.from_json(text)
    assert str(caught.value) == (
        f"schema_version: expected {SCHEMA_VERSION} in this version; found {version!r}"
    )


LATER = ("transition_pool", "global_pool")


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in LATER])
def test_json_without_one_of_the_fields_is_refused(field):
    with pytest.raises(dm.ConfigError, match=r"config: expected an object with the fields"):
        dm.DenseNetConfig.from_json(json_of(**{field: ...}))


@pytest.mark.parametrize("field", LATER)
def test_json_of_before_a_field_existed_pools_by_averages(field):
    assert getattr(dm.DenseNetConfig.from_json(json_of(**{field: ...})), field) == "avg"


@pytest.mark.parametrize("field", LATER)
def test_a_pooling_is_by_averages_or_by_the_maximum(field):
    with pytest.raises(dm.ConfigError, match=f"{field}: expected 'avg' or 'max'; found 'min'"):
        dm.DenseNetConfig(**{field: "min"})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "{}", '{"schema_version": 1}', '{"config": {}}',
     '{"schema_version": 1, "config": []}', '{"schema_version": 1, "config": {}, "more": 1}'],
)  # fmt: skip
def test_text_of_another_form_is_refused(text):
    with pytest.raises(dm.ConfigError, match=r"^config"):
        dm.DenseNetConfig.from_json(text)


def test_a_bad_value_in_json_is_refused_like_one_in_python():
    for field, value in [("growth_rate", 0), ("bn_eps", math.nan), ("block_config", [])]:
        with pytest.raises(dm.ConfigError, match=rf"^{field}: expected"):
            dm.DenseNetConfig.from_json(json_of(**{field: value}))


# --- Parts as plain data ------------------------------------------------------------------------


@given(configs())
@settings(deadline=None, max_examples=25)
def test_every_part_of_a_spec_survives_plain_data_and_json(config):
    spec = config.resolve()
    block, last = spec.stages[0]
    leaves = [spec.norm5, spec.classifier]
    for part in [config, spec, spec.stem, block, block.layers[0], last, *leaves]:
        plain = to_dict(part)
        assert from_dict(plain) == part
        assert from_dict(json.loads(json.dumps(plain))) == part


def test_plain_data_of_an_unknown_kind_is_refused():
    with pytest.raises(dm.ConfigError, match="'ConvSpek' does not exist; did you mean 'ConvSpec'"):
        from_dict({"spec": "ConvSpek"})
    with pytest.raises(dm.ConfigError, match="does not exist"):
        from_dict({"in_channels": 3})


def test_plain_data_has_every_kind_of_part():
    kinds = {v for v in vars(spec_module).values() if isinstance(v, type) and v.__module__
             == spec_module.__name__}  # fmt: skip
    assert set(KINDS.values()) == kinds


# --- What a configuration resolves to -----------------------------------------------------------


def test_transitions_of_the_chapters_net_keep_96_112_and_120_channels():
    assert widths(dm.get_spec("d2l")) == [96, 112, 120, 248]


def test_transitions_of_densenet121_keep_128_256_and_512_channels():
    assert widths(dm.get_spec("densenet121")) == [128, 256, 512, 1024]


def test_a_transition_keeps_the_floor_of_the_decimal_product():
    assert floor_of_decimal(0.29, 100) == 29  # in floats, 28.999999999999996
    spec = dm.DenseNetConfig(
        growth_rate=12, block_config=(3, 1), num_init_features=64, compression=0.29
    ).resolve()
    assert widths(spec)[0] == 29
    assert floor_of_decimal(1e-05, 100_000) == 1  # as Python prints it, with an exponent


@given(decimals, st.integers(1, 10_000))
@settings(deadline=None)
def test_the_floor_is_that_of_exact_hundredths(compression, channels):
    hundredths = round(compression * 100)
    assert floor_of_decimal(compression, channels) == hundredths * channels // 100


@given(configs())
@settings(deadline=None, max_examples=50)
def test_every_layer_takes_the_channels_that_the_one_before_it_gives(config):
    """Section 3 of the paper: layer l of a block reads C + (l - 1) k channels."""
    spec = config.resolve()
    k, width = config.growth_rate, spec.stem.conv0.out_channels
    assert spec.stem.conv0.in_channels == config.in_channels
    assert width == config.num_init_features
    assert [len(block.layers) for block, _ in spec.stages] == list(config.block_config)
    for i, (block, transition) in enumerate(spec.stages, 1):
        assert (block.name, block.in_channels) == (f"denseblock{i}", width)
        for j, layer in enumerate(block.layers, 1):
            convs = [conv for conv in (layer.conv1, layer.conv2) if conv]
            norms = [norm for norm in (layer.norm1, layer.norm2) if norm]
            inner = [] if config.bn_size is None else [config.bn_size * k]
            assert layer.name == f"denselayer{j}"
            assert [conv.in_channels for conv in convs] == [width, *inner]
            assert [norm.num_features for norm in norms] == [width, *inner]
            assert [conv.out_channels for conv in convs] == [*inner, k]
            assert [conv.kernel_size for conv in convs] == [1 for _ in inner] + [3]
            assert [conv.padding for conv in convs] == [0 for _ in inner] + [1]
            assert layer.drop_rate == config.drop_rate
            width += k
        assert block.out_channels == width
        assert (transition is None) == (i == len(spec.stages))
        if transition:
            assert transition.name == f"transition{i}"
            assert transition.norm.num_features == transition.conv.in_channels == width
            width = math.floor(Fraction(repr(config.compression)) * width)
            assert (transition.conv.out_channels, transition.conv.kernel_size) == (width, 1)
            assert transition.pool == spec_module.PoolSpec(kernel_size=2, stride=2)
    assert spec.norm5.num_features == width
    classifier = spec_module.LinearSpec(width, config.num_classes) if config.num_classes else None
    assert spec.classifier == classifier


@given(configs())
@settings(deadline=None, max_examples=50)
def test_epsilon_decay_and_the_bias_switch_reach_every_layer(config):
    found = list(dm.manifest.layers(config.resolve()))
    for _, layer in found:
        if isinstance(layer, spec_module.BatchNormSpec):
            assert (layer.eps, layer.decay) == (config.bn_eps, config.bn_decay)
        if isinstance(layer, spec_module.ConvSpec):
            assert layer.bias == config.conv_bias


def test_the_imagenet_stem_is_a_7x7_convolution_and_a_3x3_max_pooling_both_of_stride_2():
    stem = dm.get_spec("densenet121").stem
    assert stem.conv0 == spec_module.ConvSpec(3, 64, kernel_size=7, stride=2, padding=3)
    assert stem.norm0 == spec_module.BatchNormSpec(64, eps=1e-5, decay=0.9)
    assert stem.pool0 == spec_module.PoolSpec(kernel_size=3, stride=2, padding=1)


def test_the_cifar_stem_is_a_3x3_convolution_alone():
    stem = dm.get_spec("densenet40_k12").stem
    assert stem.conv0 == spec_module.ConvSpec(3, 16, kernel_size=3, stride=1, padding=1)
    assert stem.norm0 is stem.pool0 is None


def test_a_spec_remembers_its_configuration():
    config = dm.DenseNetConfig(growth_rate=12)
    assert config.resolve().config == config


# --- Building blocks ----------------------------------------------------------------------------


def test_the_chapters_block_takes_3_channels_to_23_and_its_transition_those_to_10():
    block = dm.dense_block(2, in_channels=3, growth_rate=10)
    assert (block.in_channels, block.out_channels) == (3, 23)
    assert [layer.conv1.in_channels for layer in block.layers] == [3, 13]
    transition = dm.transition(23, 10)  # not floor(compression * 23)
    assert (transition.conv.in_channels, transition.conv.out_channels) == (23, 10)


TOO_MANY = 10**18
BOUNDS = {
    "block_config": (TOO_MANY,),
    "growth_rate": TOO_MANY,
    "num_init_features": TOO_MANY,
    "bn_size": TOO_MANY,
    "in_channels": TOO_MANY,
    "num_classes": TOO_MANY,
}


@pytest.mark.parametrize("field", BOUNDS)
def test_a_network_that_no_machine_holds_is_refused_before_it_is_made(field):
    most = "at most 10,000 layers in all" if field == "block_config" else "to 1,048,576"
    expected = rf"^{field}: expected .*{most}; found"
    with pytest.raises(dm.ConfigError, match=expected):
        dm.get_spec("densenet121", **{field: BOUNDS[field]})
    stored = json.loads(dm.DenseNetConfig().to_json())
    stored["config"][field] = BOUNDS[field]
    with pytest.raises(dm.ConfigError, match=expected):
        dm.DenseNetConfig.from_json(json.dumps(stored))


def test_the_layers_of_all_blocks_count_together():
    assert sum(dm.DenseNetConfig(block_config=(5_000, 5_000)).block_config) == 10_000
    with pytest.raises(dm.ConfigError, match="at most 10,000 layers in all; found"):
        dm.DenseNetConfig(block_config=(5_000, 5_001))


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_layers": TOO_MANY},
        {"in_channels": TOO_MANY},
        {"growth_rate": TOO_MANY},
        {"bn_size": TOO_MANY},
        {"num_layers": 2, "growth_rate": 2**19},
        {"bn_size": 2**10, "growth_rate": 2**11},
    ],
)
def test_a_block_that_no_machine_holds_is_refused_before_it_is_made(arguments):
    given = {"num_layers": 1, "in_channels": 3, "growth_rate": 10, **arguments}
    with pytest.raises(dm.ConfigError, match=r": expected .*(10,000|1,048,576)"):
        dm.dense_block(**given)


def test_a_block_that_is_too_wide_says_how_wide_its_widest_map_would_be():
    with pytest.raises(dm.ConfigError) as caught:
        dm.dense_block(2_000, in_channels=3, growth_rate=1_000)
    assert str(caught.value) == (
        "denseblock1: expected at most 1,048,576 channels in a map, found 2,000,003; "
        "choose a smaller growth_rate or fewer layers"
    )


def test_a_value_of_any_length_is_shown_in_a_short_message():
    assert len(refusal(growth_rate="x" * 10**6)) < 600
    assert refusal(growth_rate=10**5_000).endswith("found an integer with thousands of digits")


@pytest.mark.parametrize("argument", ["num_layers", "in_channels", "growth_rate"])
def test_a_block_of_impossible_widths_is_refused(argument):
    arguments = {"num_layers": 2, "in_channels": 3, "growth_rate": 10}
    allowed = "an integer from 1 to"
    for bad in (0, -1, 2.0, True):
        with pytest.raises(dm.ConfigError, match=rf"^{argument}: expected {allowed}"):
            dm.dense_block(**{**arguments, argument: bad})


@pytest.mark.parametrize("argument", ["in_channels", "out_channels"])
def test_a_transition_of_impossible_widths_is_refused(argument):
    allowed = "an integer from 1 to"
    for bad in (0, -1, 2.0, True):
        with pytest.raises(dm.ConfigError, match=rf"^{argument}: expected {allowed}"):
            dm.transition(**{"in_channels": 23, "out_channels": 10, argument: bad})


@pytest.mark.parametrize(
    "bad",
    [{"bn_size": 0}, {"bn_size": 1.5}, {"drop_rate": -1}, {"drop_rate": 1}, {"bn_eps": 0},
     {"bn_decay": 1}, {"conv_bias": None}],
    ids=str,
)  # fmt: skip
def test_a_block_checks_its_options_as_a_configuration_does(bad):
    (field,) = bad
    with pytest.raises(dm.ConfigError, match=rf"^{field}: expected"):
        dm.dense_block(2, 3, 10, **bad)
    if field not in ("bn_size", "drop_rate"):
        with pytest.raises(dm.ConfigError, match=rf"^{field}: expected"):
            dm.transition(23, 10, **bad)


def test_a_block_of_numpy_widths_is_the_block_of_pythons():
    block = dm.dense_block(np.int64(2), np.int64(3), np.int64(10))
    assert json.dumps(to_dict(block)) == json.dumps(to_dict(dm.dense_block(2, 3, 10)))


# --- Variants -----------------------------------------------------------------------------------


def test_the_table_of_variants_is_complete_and_cannot_be_changed():
    assert list(dm.VARIANTS) == [
        "d2l",
        "densenet121",
        "densenet161",
        "densenet169",
        "densenet201",
        "densenet264",
        "densenet40_k12",
        "densenet100_k12",
        "densenet100_k24",
        "densenet_bc100_k12",
        "densenet_bc250_k24",
        "densenet_bc190_k40",
        "densenet_bc32_k32",
        "densenet10_k32",
    ]
    with pytest.raises(TypeError):
        dm.VARIANTS["d2l"] = dm.DenseNetConfig()


@pytest.mark.parametrize("variant", dm.VARIANTS)
def test_a_variant_without_overrides_is_its_entry_in_the_table(variant):
    assert dm.get_spec(variant) == dm.VARIANTS[variant].resolve()


def test_any_field_of_a_variant_can_be_overridden_and_the_table_stays():
    before = dm.VARIANTS["densenet121"]
    spec = dm.get_spec("densenet121", in_channels=1, num_classes=10, bn_eps=1.001e-5)
    assert spec.config == replace(before, in_channels=1, num_classes=10, bn_eps=1.001e-5)
    assert dm.VARIANTS["densenet121"] == before
    with pytest.raises(dm.ConfigError, match=r"^growth_rate: expected an integer"):
        dm.get_spec("densenet121", growth_rate=-1)


def test_a_plain_cifar_net_has_a_third_of_the_depth_per_block_and_16_channels_to_start():
    assert dm.cifar_config(40, 12, bottleneck=False) == dm.DenseNetConfig(
        growth_rate=12, block_config=(12, 12, 12), num_init_features=16, bn_size=None,
        compression=1.0, num_classes=10, stem="cifar",
    )  # fmt: skip


def test_a_bottleneck_cifar_net_has_a_sixth_of_the_depth_per_block_and_2k_channels_to_start():
    assert dm.cifar_config(100, 12, bottleneck=True) == dm.DenseNetConfig(
        growth_rate=12, block_config=(16, 16, 16), num_init_features=24, bn_size=4,
        compression=0.5, num_classes=10, stem="cifar",
    )  # fmt: skip


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 12])
def test_the_depth_of_a_cifar_net_counts_its_weighted_layers(layers, bottleneck):
    """One stem, two transitions, one classifier, and one or two convolutions per dense layer."""
    depth = 4 + 3 * layers * (2 if bottleneck else 1)
    spec = dm.cifar_config(depth, 12, bottleneck=bottleneck).resolve()
    kinds = [info.kind for info in dm.tensors(spec).values()]
    assert kinds.count("conv.weight") + kinds.count("linear.weight") == depth


@pytest.mark.parametrize(
    ("depth", "bottleneck", "expected"),
    [
        (41, False, "4 plus a multiple of 3, such as 40 or 43"),
        (42, False, "4 plus a multiple of 3, such as 40 or 43"),
        (99, True, "4 plus a multiple of 6, such as 94 or 100"),
        (101, True, "4 plus a multiple of 6, such as 100 or 106"),
        (4, False, "an integer of at least 7"),
        (7, True, "an integer of at least 10"),
        (40.0, False, "an integer of at least 7"),
    ],
)
def test_a_depth_that_does_not_divide_is_refused_with_its_neighbours(depth, bottleneck, expected):
    with pytest.raises(dm.ConfigError) as caught:
        dm.cifar_config(depth, 12, bottleneck=bottleneck)
    assert str(caught.value) == f"depth: expected {expected}; found {depth!r}"


def test_a_growth_rate_of_a_cifar_net_is_checked_and_its_other_fields_can_be_overridden():
    with pytest.raises(dm.ConfigError, match=r"^growth_rate: expected an integer of at least 1"):
        dm.cifar_config(40, 0, bottleneck=True)
    assert dm.cifar_config(40, 12, bottleneck=True, in_channels=1).in_channels == 1


@pytest.mark.parametrize("data", [{"spec": "ConvSpec"}, {"spec": "PoolSpec", "size": 2}])
def test_plain_data_with_missing_or_unknown_fields_is_refused(data):
    with pytest.raises(dm.ConfigError, match=data["spec"]):
        from_dict(data)


def test_a_specification_comes_from_text():
    with pytest.raises(dm.ConfigError, match="expected JSON, found"):
        dm.DenseNetSpec.from_json(None)


def test_the_signature_names_every_field_with_its_default():
    signature = inspect.signature(dm.DenseNetConfig)
    assert list(signature.parameters) == [f.name for f in fields(dm.DenseNetConfig)]
    assert signature.parameters["growth_rate"].default == 32
