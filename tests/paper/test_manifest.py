"""Names, shapes and counts are the published ones, to the last parameter and the last pixel."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import densenet_multi as dm
from densenet_multi import manifest
from densenet_multi.spec import BatchNormSpec, ConvSpec
from strategies import configs

# trainable parameters, BatchNorm statistics, Keras' count_params(); 1000 classes, 3 channels
IMAGENET_COUNTS = {
    "densenet121": (7_978_856, 83_648, 8_062_504),
    "densenet161": (28_681_000, 219_936, 28_900_936),
    "densenet169": (14_149_480, 158_400, 14_307_880),
    "densenet201": (20_013_928, 229_056, 20_242_984),
    "densenet264": (33_337_704, 398_528, 33_736_232),
}

# trainable parameters and the millions that the paper's Table 2 prints; 10 classes, 3 channels
CIFAR_COUNTS = {
    "densenet40_k12": (1_019_722, "1.0"),
    "densenet100_k12": (6_979_642, "7.0"),
    "densenet100_k24": (27_249_082, "27.2"),
    "densenet_bc100_k12": (769_162, "0.8"),
    "densenet_bc250_k24": (15_324_406, "15.3"),
    "densenet_bc190_k40": (25_624_430, "25.6"),
}

OUR_OWN = [("densenet_bc32_k32", 847_114, 9_472), ("densenet10_k32", 121_098, 1_456)]

TINY = dm.DenseNetConfig(  # a bottleneck net of two layers and one transition
    growth_rate=2,
    block_config=(1, 1),
    num_init_features=4,
    bn_size=3,
    num_classes=7,
    in_channels=3,
    conv_bias=True,
)


# --- Counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", IMAGENET_COUNTS)
def test_imagenet_nets_have_the_published_counts(variant):
    trainable, statistics, keras = IMAGENET_COUNTS[variant]
    count = dm.count_parameters(dm.get_spec(variant))
    assert (count.trainable, count.statistics, count.total) == (trainable, statistics, keras)


@pytest.mark.parametrize("variant", CIFAR_COUNTS)
def test_cifar_nets_have_the_published_counts(variant):
    trainable, millions = CIFAR_COUNTS[variant]
    count = dm.count_parameters(dm.get_spec(variant))
    assert count.trainable == trainable
    assert f"{count.trainable / 1e6:.1f}" == millions


def test_the_chapters_net_has_758226_parameters_and_6608_statistics():
    assert dm.count_parameters(dm.get_spec("d2l")) == dm.ParameterCount(758_226, 6_608)


@pytest.mark.parametrize(("variant", "trainable", "statistics"), OUR_OWN)
def test_our_own_variants_have_as_many_parameters_and_statistics_as_ever(
    variant, trainable, statistics
):
    count = dm.count_parameters(dm.get_spec(variant))
    assert count == dm.ParameterCount(trainable, statistics)


def test_every_variant_has_a_count_on_this_page():
    own = {variant for variant, *_ in OUR_OWN}
    assert {*IMAGENET_COUNTS, *CIFAR_COUNTS, "d2l", *own} == set(dm.VARIANTS)


def test_the_bottleneck_net_of_fashion_mnist_has_768730_parameters():
    count = dm.count_parameters(dm.get_spec("densenet_bc100_k12", in_channels=1))
    assert count.trainable == 768_730


def test_the_well_known_wrong_count_needs_a_wide_stem_and_compression_to_appear():
    """L=40 k=12 has 599,050 parameters with the stem and compression of a bottleneck net."""
    config = dm.cifar_config(40, 12, bottleneck=False, num_init_features=24, compression=0.5)
    assert dm.count_parameters(config.resolve()).trainable == 599_050


def test_only_the_count_tells_the_chapters_net_from_one_that_restarts_its_channels_per_block():
    """The mistake of the chapter's JAX tab: every transition leaves 96 channels."""
    spec = dm.get_spec("d2l")
    stages = []
    for width, (_, transition) in zip((64, 96, 96, 96), spec.stages, strict=True):
        block = dm.dense_block(4, width, 32, conv_bias=True)
        stages.append((block, transition and dm.transition(width + 128, 96, conv_bias=True)))
    wrong = replace(
        spec,
        stages=tuple(stages),
        norm5=BatchNormSpec(224),
        classifier=replace(spec.classifier, in_features=224),
    )
    assert dm.count_parameters(wrong).trainable == 700_586
    assert dm.count_parameters(spec).trainable == 758_226


def test_keras_total_is_trainable_and_statistics_together():
    assert dm.ParameterCount(trainable=3, statistics=2).total == 5


# --- Names --------------------------------------------------------------------------------------


def test_tensors_of_a_small_net_have_torchvisions_names_shapes_and_order():
    assert [(name, info.shape) for name, info in dm.tensors(TINY.resolve()).items()] == [
        ("features.conv0.weight", (4, 3, 7, 7)),
        ("features.conv0.bias", (4,)),
        ("features.norm0.weight", (4,)),
        ("features.norm0.bias", (4,)),
        ("features.norm0.running_mean", (4,)),
        ("features.norm0.running_var", (4,)),
        ("features.denseblock1.denselayer1.norm1.weight", (4,)),
        ("features.denseblock1.denselayer1.norm1.bias", (4,)),
        ("features.denseblock1.denselayer1.norm1.running_mean", (4,)),
        ("features.denseblock1.denselayer1.norm1.running_var", (4,)),
        ("features.denseblock1.denselayer1.conv1.weight", (6, 4, 1, 1)),
        ("features.denseblock1.denselayer1.conv1.bias", (6,)),
        ("features.denseblock1.denselayer1.norm2.weight", (6,)),
        ("features.denseblock1.denselayer1.norm2.bias", (6,)),
        ("features.denseblock1.denselayer1.norm2.running_mean", (6,)),
        ("features.denseblock1.denselayer1.norm2.running_var", (6,)),
        ("features.denseblock1.denselayer1.conv2.weight", (2, 6, 3, 3)),
        ("features.denseblock1.denselayer1.conv2.bias", (2,)),
        ("features.transition1.norm.weight", (6,)),
        ("features.transition1.norm.bias", (6,)),
        ("features.transition1.norm.running_mean", (6,)),
        ("features.transition1.norm.running_var", (6,)),
        ("features.transition1.conv.weight", (3, 6, 1, 1)),
        ("features.transition1.conv.bias", (3,)),
        ("features.denseblock2.denselayer1.norm1.weight", (3,)),
        ("features.denseblock2.denselayer1.norm1.bias", (3,)),
        ("features.denseblock2.denselayer1.norm1.running_mean", (3,)),
        ("features.denseblock2.denselayer1.norm1.running_var", (3,)),
        ("features.denseblock2.denselayer1.conv1.weight", (6, 3, 1, 1)),
        ("features.denseblock2.denselayer1.conv1.bias", (6,)),
        ("features.denseblock2.denselayer1.norm2.weight", (6,)),
        ("features.denseblock2.denselayer1.norm2.bias", (6,)),
        ("features.denseblock2.denselayer1.norm2.running_mean", (6,)),
        ("features.denseblock2.denselayer1.norm2.running_var", (6,)),
        ("features.denseblock2.denselayer1.conv2.weight", (2, 6, 3, 3)),
        ("features.denseblock2.denselayer1.conv2.bias", (2,)),
        ("features.norm5.weight", (5,)),
        ("features.norm5.bias", (5,)),
        ("features.norm5.running_mean", (5,)),
        ("features.norm5.running_var", (5,)),
        ("classifier.weight", (7, 5)),
        ("classifier.bias", (7,)),
    ]


def test_a_plain_layer_has_norm1_and_conv1_only_and_conv1_is_its_3x3():
    first_layer = [
        (name.removeprefix("features.denseblock1.denselayer1."), info.shape)
        for name, info in dm.tensors(dm.get_spec("d2l")).items()
        if name.startswith("features.denseblock1.denselayer1.")
    ]
    assert first_layer == [
        ("norm1.weight", (64,)),
        ("norm1.bias", (64,)),
        ("norm1.running_mean", (64,)),
        ("norm1.running_var", (64,)),
        ("conv1.weight", (32, 64, 3, 3)),
        ("conv1.bias", (32,)),
    ]


@pytest.mark.parametrize("block_config", [(1,), (1, 1), (1, 1, 1, 1, 1)])
def test_the_last_batch_norm_is_norm5_whatever_the_number_of_blocks(block_config):
    names = list(dm.tensors(dm.DenseNetConfig(block_config=block_config, num_classes=0).resolve()))
    assert names[-1] == "features.norm5.running_var"


def test_densenet121_has_121_weighted_layers_and_121_batch_norms():
    kinds = Counter(info.kind for info in dm.tensors(dm.get_spec("densenet121")).values())
    assert kinds["conv.weight"] + kinds["linear.weight"] == 121
    assert kinds["norm.weight"] == 121


def test_running_means_and_variances_are_statistics_and_all_else_is_trainable():
    for name, info in dm.tensors(TINY.resolve()).items():
        running = name.endswith(("running_mean", "running_var"))
        assert info.role == ("statistic" if running else "trainable")


def test_a_kind_says_which_layer_a_tensor_belongs_to_and_what_it_is_there():
    kinds = {name: info.kind for name, info in dm.tensors(TINY.resolve()).items()}
    assert kinds["features.conv0.weight"] == "conv.weight"
    assert kinds["features.transition1.conv.bias"] == "conv.bias"
    assert kinds["features.denseblock1.denselayer1.conv2.weight"] == "conv.weight"
    assert kinds["features.norm0.weight"] == "norm.weight"
    assert kinds["features.denseblock1.denselayer1.norm2.bias"] == "norm.bias"
    assert kinds["features.norm5.running_mean"] == "norm.running_mean"
    assert kinds["features.transition1.norm.running_var"] == "norm.running_var"
    assert kinds["classifier.weight"] == "linear.weight"
    assert kinds["classifier.bias"] == "linear.bias"


def test_no_classes_means_no_classifier_and_nothing_else():
    full, headless = TINY.resolve(), replace(TINY, num_classes=0).resolve()
    body = {n: i for n, i in dm.tensors(full).items() if not n.startswith("classifier")}
    assert dm.tensors(headless) == body
    head = dm.count_parameters(full).trainable - dm.count_parameters(headless).trainable
    assert head == 7 * 5 + 7
    assert dm.shape_trace(full, 32, 32) == dm.shape_trace(headless, 32, 32)
    assert dm.profile(headless, 32, 32)[-1].name == "norm5"


# --- Sizes --------------------------------------------------------------------------------------


def test_the_chapters_net_takes_96_pixels_to_24_12_6_and_3():
    assert dm.shape_trace(dm.get_spec("d2l"), 96, 96) == [
        ("stem", (64, 24, 24)),
        ("denseblock1", (192, 24, 24)),
        ("transition1", (96, 12, 12)),
        ("denseblock2", (224, 12, 12)),
        ("transition2", (112, 6, 6)),
        ("denseblock3", (240, 6, 6)),
        ("transition3", (120, 3, 3)),
        ("denseblock4", (248, 3, 3)),
        ("norm5", (248, 3, 3)),
    ]


def test_a_cifar_net_keeps_the_size_of_the_image_up_to_the_first_transition():
    sizes = [shape[1:] for _, shape in dm.shape_trace(dm.get_spec("densenet40_k12"), 32, 48)]
    assert sizes == [(32, 48), (32, 48), (16, 24), (16, 24), (8, 12), (8, 12), (8, 12)]


@pytest.mark.parametrize(
    ("pixels", "sizes"),
    [(29, (8, 4, 2, 1)), (31, (8, 4, 2, 1)), (33, (9, 4, 2, 1)), (65, (17, 8, 4, 2)),
     (97, (25, 12, 6, 3)), (99, (25, 12, 6, 3)), (224, (56, 28, 14, 7)), (225, (57, 28, 14, 7))],
)  # fmt: skip
def test_odd_sizes_are_halved_downwards_by_transitions_and_upwards_by_the_stem(pixels, sizes):
    trace = dict(dm.shape_trace(dm.get_spec("densenet121"), pixels, 2 * pixels))
    stages = ["stem", "transition1", "transition2", "transition3"]
    assert tuple(trace[stage][1] for stage in stages) == sizes


def test_an_image_that_is_too_small_is_refused_with_the_stage_and_the_smallest_size():
    with pytest.raises(dm.ImageSizeError) as caught:
        dm.shape_trace(dm.get_spec("d2l"), 28, 28)
    assert str(caught.value) == (
        "image size: 28x28 pixels are too few: transition3 gets 1x1 and would leave 0x0; "
        "the smallest is 29"
    )
    assert isinstance(caught.value, dm.ConfigError)


@pytest.mark.parametrize(("height", "width"), [(28, 96), (96, 28)])
def test_one_side_is_enough_to_be_too_small(height, width):
    with pytest.raises(dm.ImageSizeError, match=f"{height}x{width} pixels are too few"):
        dm.shape_trace(dm.get_spec("d2l"), height, width)


@pytest.mark.parametrize("side", [0, -1, 96.0, "96", None, True])
def test_a_side_is_a_positive_integer(side):
    with pytest.raises(dm.ConfigError, match=r"^height: expected an integer from 1 to"):
        dm.shape_trace(dm.get_spec("d2l"), side, 96)
    with pytest.raises(dm.ConfigError, match=r"^width: expected an integer from 1 to"):
        dm.shape_trace(dm.get_spec("d2l"), 96, side)


@given(configs())
@settings(deadline=None, max_examples=100)
def test_the_smallest_image_size_works_and_one_pixel_less_does_not(config):
    spec = config.resolve()
    smallest = dm.min_image_size(spec)
    assert all(min(shape) >= 1 for _, shape in dm.shape_trace(spec, smallest, smallest))
    if smallest > 1:
        with pytest.raises(dm.ImageSizeError, match=f"the smallest is {smallest}$"):
            dm.shape_trace(spec, smallest - 1, smallest - 1)


@given(configs(), st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None, max_examples=50)
def test_every_size_is_how_often_a_window_fits(config, more_height, more_width):
    """Count the positions of the window one by one, instead of by the formula."""

    def fit(layer, size):
        last = size + 2 * layer.padding - layer.kernel_size
        return len(range(0, last + 1, layer.stride))

    spec = config.resolve()
    h, w = dm.min_image_size(spec) + more_height, dm.min_image_size(spec) + more_width
    trace = dict(dm.shape_trace(spec, h, w))
    for layer in [spec.stem.conv0, spec.stem.pool0]:
        h, w = (fit(layer, h), fit(layer, w)) if layer else (h, w)
    assert trace["stem"] == (config.num_init_features, h, w)
    for block, transition in spec.stages:
        assert trace[block.name] == (block.out_channels, h, w)
        if transition:
            h, w = fit(transition.pool, h), fit(transition.pool, w)
            assert trace[transition.name] == (transition.conv.out_channels, h, w)
    assert trace["norm5"] == (spec.norm5.num_features, h, w)


# --- Work and memory ----------------------------------------------------------------------------


def test_densenet121_at_224_does_2834161664_multiply_adds():
    stages = dm.profile(dm.get_spec("densenet121"), 224, 224)
    assert sum(stage.multiply_adds for stage in stages) == 2_834_161_664


@given(configs(), st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_multiply_adds_are_those_of_each_layer_at_its_own_size(config, more):
    """Each weight of a convolution is used once for each output pixel."""
    spec = config.resolve()
    side = dm.min_image_size(spec) + more
    areas = {stage: h * w for stage, (_, h, w) in dm.shape_trace(spec, side, side)}
    conv0 = spec.stem.conv0
    after_conv0 = (side + 2 * conv0.padding - conv0.kernel_size) // conv0.stride + 1
    tensors, expected = dm.tensors(spec), Counter()
    for name, layer in manifest.layers(spec):
        stage = name.removeprefix("features.").split(".")[0]
        if name == "features.conv0":
            stage, area = "stem", after_conv0**2
        elif stage.startswith("transition"):  # it convolves before it pools
            area = areas[f"denseblock{stage.removeprefix('transition')}"]
        else:
            area = areas.get(stage, 1)
        if not isinstance(layer, BatchNormSpec):
            expected[stage] += tensors[f"{name}.weight"].size * area
    actual = {stage.name: stage.multiply_adds for stage in dm.profile(spec, side, side)}
    assert {name: n for name, n in actual.items() if n} == expected


@given(configs())
@settings(deadline=None, max_examples=25)
def test_parameters_of_the_stages_add_up_to_those_of_the_net(config):
    spec = config.resolve()
    stages = dm.profile(spec, dm.min_image_size(spec), 128)
    assert dm.count_parameters(spec) == dm.ParameterCount(
        sum(stage.parameters.trainable for stage in stages),
        sum(stage.parameters.statistics for stage in stages),
    )


def test_stages_of_a_profile_hold_their_own_parameters():
    held = {stage.name: stage.parameters for stage in dm.profile(TINY.resolve(), 32, 32)}
    assert held == {
        "stem": dm.ParameterCount(4 * 3 * 49 + 4 + 8, 8),
        "denseblock1": dm.ParameterCount(8 + (6 * 4 + 6) + 12 + (2 * 6 * 9 + 2), 8 + 12),
        "transition1": dm.ParameterCount(12 + 3 * 6 + 3, 12),
        "denseblock2": dm.ParameterCount(6 + (6 * 3 + 6) + 12 + (2 * 6 * 9 + 2), 6 + 12),
        "norm5": dm.ParameterCount(10, 10),
        "classifier": dm.ParameterCount(7 * 5 + 7, 0),
    }


def test_activations_of_a_small_net_are_what_each_operation_writes():
    stages = dm.profile(TINY.resolve(), 32, 32)
    assert {stage.name: stage.activation_elements for stage in stages} == {
        "stem": 4 * 16 * 16 + 4 * 16 * 16 + 4 * 8 * 8,  # convolution, ReLU, max pooling
        # ReLU, 1x1, ReLU, 3x3, concatenation
        "denseblock1": (4 + 6 + 6 + 2 + (4 + 2)) * 8 * 8,
        "transition1": 6 * 8 * 8 + 3 * 8 * 8 + 3 * 4 * 4,  # ReLU, 1x1, average pooling
        "denseblock2": (3 + 6 + 6 + 2 + (3 + 2)) * 4 * 4,
        "norm5": 5 * 4 * 4 + 5,  # ReLU, global average pooling
        "classifier": 7,
    }


def test_activations_of_a_plain_cifar_net_are_what_each_operation_writes():
    spec = dm.DenseNetConfig(growth_rate=2, block_config=(2,), num_init_features=4, bn_size=None,
                             num_classes=0, stem="cifar").resolve()  # fmt: skip
    written = {stage.name: stage.activation_elements for stage in dm.profile(spec, 5, 7)}
    assert written == {
        "stem": 4 * 35,
        "denseblock1": (4 + 2 + (4 + 2)) * 35 + (6 + 2 + (6 + 2)) * 35,  # ReLU, 3x3, concatenation
        "norm5": 8 * 35 + 8,
    }


# --- Growth -------------------------------------------------------------------------------------


def test_work_grows_linearly_with_depth():
    """Measured in function calls, not in seconds."""
    calls = {layers: _calls_to_describe(layers) for layers in (100, 500, 3_000)}
    per_layer = [(calls[n] - calls[100]) / (n - 100) for n in (500, 3_000)]
    assert per_layer[0] == pytest.approx(per_layer[1], rel=0.01)


def _calls_to_describe(layers: int) -> int:
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        spec = dm.DenseNetConfig(block_config=(layers,), growth_rate=1, num_classes=0).resolve()
        tensors = dm.tensors(spec)
        dm.count_parameters(spec)
        dm.profile(spec, 32, 32)
    finally:
        sys.setprofile(before)
    assert len(tensors) == 5 + 10 * layers + 4  # stem, two convolutions and norms per layer, norm5
    return calls


def test_sizes_are_exact_integers_however_large():
    assert dm.TensorInfo((3**30, 3**30), "trainable", "linear.weight").size == 3**60
    assert manifest._multiply_adds(ConvSpec(3**12, 3**12, 3), 3**40) == 3**66


@pytest.mark.parametrize("given", ["d2l", dm.VARIANTS["d2l"], None], ids=repr)
def test_something_else_than_a_spec_is_refused_with_what_to_type(given):
    for function in (dm.count_parameters, dm.tensors, dm.init_weights, dm.min_image_size):
        with pytest.raises(
            dm.ConfigError, match=r"spec: expected a DenseNetSpec.*get_spec\('d2l'\)"
        ):
            function(given)
    with pytest.raises(dm.ConfigError, match="spec: expected a DenseNetSpec"):
        dm.shape_trace(given, 96, 96)
    for training in (False, True):
        with pytest.raises(dm.ConfigError, match="spec: expected a DenseNetSpec"):
            dm.reference.forward(given, {}, np.zeros((1, 1, 96, 96)), training=training)
