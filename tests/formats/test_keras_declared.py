"""Networks that Keras files declare: which ones are read, and which are refused by name.

The declarations are built by hand, as Keras 3 and Keras 2 write them; no framework is needed.
test_native_keras_declared.py tests models that Keras itself saved.
"""

import time

import numpy as np
import pytest

import densenet_multi as dm
from densenet_multi.data import Preparation
from densenet_multi.data.images import normalize
from densenet_multi.formats._keras.declared import declared_network
from densenet_multi.formats._keras.entries import READ
from densenet_multi.formats._keras.graph import (
    MOST_LAYERS,
    Layer,
    UndeclaredError,
    graph_of,
)
from densenet_multi.formats._keras.models import STOCK, classes_in
from densenet_multi.formats._keras.own import own_config
from densenet_multi.formats._keras.pixels import pixels_of, with_declared_pixels
from densenet_multi.formats.keras_applications import trained_with
from keras_declarations import USUAL, Model, conv, network, norm_relu


def read(m, *outputs):
    return declared_network(graph_of(m.declared(*outputs)))


def found(keras=3, **changes):
    m = Model(keras)
    return read(m, network(m, **changes))


def refused(keras=3, **changes):
    with pytest.raises(dm.WeightsError) as caught:
        found(keras, **changes)
    return str(caught.value)


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("keras", [3, 2])
def test_a_declared_densenet_has_its_layers_in_their_places(keras):
    declared = found(keras)
    spec = dm.get_spec(
        "densenet121", growth_rate=4, block_config=(2, 1), num_init_features=4, num_classes=4
    )
    expected = {name.rpartition(".")[0] for name in dm.tensors(spec)}
    assert set(declared.layers) == expected
    assert declared.layers["features.denseblock1.denselayer2.conv1"].config["kernel_size"] == [1, 1]
    assert declared.layers["features.transition1.conv"].name < declared.end.name
    assert declared.fields == {
        "transition_pool": "avg",
        "global_pool": "avg",
        "bn_eps": 1e-3,
        "bn_decay": 0.9,
        "drop_rate": 0.0,
    }
    assert (declared.image_size, declared.activation, declared.notes) == (32, "none", [])


@pytest.mark.parametrize("keras", [3, 2])
@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"eps": 1.001e-5}, "bn_eps", 1.001e-5),
        ({"pool": "MaxPooling2D"}, "transition_pool", "max"),
        ({"global": "GlobalMaxPooling2D"}, "global_pool", "max"),
        ({"drop": 0.2}, "drop_rate", 0.2),
    ],
)
def test_what_no_tensor_shows_is_taken_from_the_declaration(keras, changes, field, expected):
    assert found(keras, **changes).fields[field] == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"stem": "cifar"},
        {"stem": "cifar", "bottleneck": False},
        {"joins": "all"},
        {"relu": "Activation", "relu_config": {"activation": "relu"}},
        {"relu": "Relu", "relu_config": {}},
        {"size": None},
        {"blocks": (1, 2, 3)},
    ],
)
def test_the_same_function_may_be_written_in_other_ways(changes):
    assert found(**changes).notes == []


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("linear", "none"), ("softmax", "softmax"), ("sigmoid", "sigmoid"), (None, "none")],
)
def test_the_last_activation_is_what_the_outputs_mean(activation, expected):
    assert found(activation=activation).activation == expected
    m = Model()
    x = network(m, activation="linear")
    last = m("Activation", x, activation=activation)
    assert read(m, last).activation == expected


def test_an_activation_of_ones_own_is_not_keras_own():
    own = {"module": "builtins", "class_name": "function", "config": "softmax"}
    declared = found(activation={**own, "registered_name": "function"})
    assert declared.activation is None
    assert "num_classes=N)" in declared.notes[0]
    assert "a custom one, relu" in refused(
        relu="Activation", relu_config={"activation": {**own, "config": "relu"}}
    )
    assert "a layer ReLU" in refused(
        relu="Activation",
        relu_config={"activation": {"module": "keras.layers", "class_name": "ReLU", "config": {}}},
    )


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (("SparseCategoricalCrossentropy", True), "softmax"),
        (("BinaryCrossentropy", True), "sigmoid"),
        (("BinaryCrossentropy", False), None),
        (("MeanSquaredError", True), None),
    ],
)
def test_logits_mean_what_their_loss_makes_of_them(loss, expected):
    name, from_logits = loss
    given = {"class_name": name, "config": {"from_logits": from_logits}}
    assert trained_with({"compile_config": {"loss": given}}) == expected
    assert trained_with({"compile_config": {"loss": {**given, "registered_name": "my>x"}}}) is None
    assert trained_with({"compile_config": {"loss": name}}) is None


# --- Padding ------------------------------------------------------------------------------------


def test_same_padding_is_refused_where_it_pads_unequally_and_noted_where_it_does_not():
    assert "Conv2D): expected zero padding of 3, found SAME" in refused(stem="same")
    assert "2 before and 3 after" in refused(stem="same")
    assert "Keep using this model in Keras" in refused(stem="same")
    assert "found SAME" in refused(stem="same", size=None)
    # 33 -> 17 -> 9 -> 4: at odd sizes, SAME pads both sides equally, by 3 and then by 1
    assert "the outputs agree for 33x33 images" in found(stem="same", size=33).notes[0]


def test_same_pooling_in_a_transition_is_the_same_for_even_maps_alone():
    assert "for 32x32 images" in found(pool_padding="same").notes[0]
    assert "expected padding valid" in refused(pool_padding="same", size=36)  # 36 -> 18 -> 9
    assert "expected padding valid" in refused(pool_padding="same", size=None)


@pytest.mark.parametrize(
    ("before", "config"),
    [("ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}), ("ZeroPadding2D", {"padding": 2})],
)
def test_zeros_where_the_paper_has_none_are_refused(before, config):
    m = Model()
    x = m("InputLayer", batch_shape=[None, 32, 32, 3])
    x = conv(m, x, 3)
    new = conv(m, m(before, norm_relu(m, x, USUAL), **config), 1)
    m("Concatenate", x, conv(m, norm_relu(m, new, USUAL), 3), axis=-1)
    with pytest.raises(dm.WeightsError, match=r"Conv2D\): expected no zero padding"):
        read(m, m.layers[-1]["name"])


# --- Refused by name ----------------------------------------------------------------------------


@pytest.mark.parametrize("keras", [3, 2])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "new first"}, r"concatenate_\d+ \(Concatenate\): expected a block's maps"),
        ({"relu": "LeakyReLU", "relu_config": {}}, r"leakyrelu_\d+ \(LeakyReLU\): expected a ReLU"),
        ({"relu_config": {"max_value": 6.0}}, r"relu_\d+ \(ReLU\): expected a ReLU after"),
        ({"relu": "Activation", "relu_config": {"activation": "silu"}}, "found silu"),
        ({"global": "Flatten"}, r"flatten_\d+ \(Flatten\): expected a global pooling"),
        ({"global_config": {"data_format": "channels_first"}}, "data_format channels_last, found"),
        ({"pool": "GlobalMaxPooling2D"}, "expected 2x2 average or max pooling"),
    ],
)  # fmt: skip
def test_another_function_is_refused_by_the_layer_that_differs(keras, changes, message):
    with pytest.raises(dm.WeightsError, match=message):
        found(keras, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dilation_rate": [2, 2]}, "expected dilation_rate"),
        ({"groups": 2}, "expected groups 1"),
        ({"activation": "relu"}, "without activation, found relu"),
        ({"data_format": "channels_first"}, "expected data_format channels_last"),
        ({"strides": [2, 2]}, r"expected strides \[1, 1\]"),
        ({"kernel_size": [5, 5]}, "a 3x3 kernel, found"),
    ],
)
def test_a_convolution_with_another_option_is_refused(change, message):
    m = Model()
    x = network(m)
    wanted = [e for e in m.layers if e["config"].get("kernel_size") == [3, 3]][1]
    wanted["config"] |= change
    with pytest.raises(dm.WeightsError, match=message) as caught:
        read(m, x)
    assert str(caught.value).startswith(f"{wanted['name']} (Conv2D): ")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epsilon": 1e-5}, "one epsilon"), ({"axis": 1}, "on axis 3"), ({"scale": False}, "scale")],
)
def test_a_batchnorm_with_another_option_is_refused(change, message):
    m = Model()
    x = network(m)
    norms = [entry for entry in m.layers if entry["class_name"] == "BatchNormalization"]
    norms[2]["config"] |= change
    with pytest.raises(dm.WeightsError, match=message):
        read(m, x)


def test_a_class_of_ones_own_is_not_keras_class_of_this_name():
    m = Model()
    x = network(m)
    (wanted, *_) = [entry for entry in m.layers if entry["class_name"] == "Conv2D"]
    wanted |= {"module": "my.layers", "registered_name": "my>Conv2D"}
    with pytest.raises(dm.WeightsError, match=r"my>Conv2D\): expected a Conv2D layer"):
        read(m, x)
    wanted |= {"registered_name": "Conv2D"}
    with pytest.raises(dm.WeightsError, match=r"\(my\.layers\.Conv2D\): expected"):
        read(m, x)


def test_code_in_a_file_is_refused_by_its_name():
    m = Model()
    x = m("InputLayer", batch_shape=[None, 32, 32, 3])
    x = network(m, m("Lambda", x, function="x / 255"))
    with pytest.raises(dm.WeightsError, match=r"lambda_1 \(Lambda\): .* code .* is never run"):
        read(m, x)


def test_the_chapters_classes_are_refused_because_they_pad_same():
    entries = [
        {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 96, 96, 1]}},
        *({"class_name": kind, "module": "__main__", "registered_name": kind,
           "config": {"name": kind}} for kind in ("DenseBlock", "TransitionBlock")),
    ]  # fmt: skip
    sequential = {"class_name": "Sequential", "config": {"layers": entries}}
    with pytest.raises(dm.WeightsError, match="found the Keras network of the chapter"):
        declared_network(graph_of(sequential))


def test_a_model_without_concatenations_is_no_densenet():
    m = Model()
    x = conv(m, m("InputLayer", batch_shape=[None, 32, 32, 3]), 3)
    with pytest.raises(dm.WeightsError, match="found a model without a Concatenate layer"):
        read(m, x)


def test_keras_2_layers_that_are_told_to_train_are_refused():
    m = Model(2)
    x = network(m)
    norms = [entry for entry in m.layers if entry["class_name"] == "BatchNormalization"]
    norms[1]["inbound_nodes"][0][0][3]["training"] = True
    with pytest.raises(dm.WeightsError, match=r"BatchNormalization\): .* found training=True"):
        read(m, x)


def test_shared_layers_are_refused_by_their_name():
    m = Model()
    x = network(m)
    m.layers[3]["inbound_nodes"] *= 2
    with pytest.raises(dm.WeightsError, match=f"{m.layers[3]['name']}: .* used 2 times"):
        read(m, x)
    inside, m = Model(), Model()
    nested(m, inside.declared(network(inside)), m("InputLayer", batch_shape=[None, 32, 32, 3]),
           name="both")  # fmt: skip
    m.layers[-1]["inbound_nodes"] *= 2
    with pytest.raises(dm.WeightsError, match=r"own: model\.get_layer\('both'\)\.save\('NAME"):
        read(m, "both")


def layer_of(m, kind, number, **change):
    """Change the config of the model's layer ``number`` of this class; return its name."""
    wanted = [entry for entry in m.layers if entry["class_name"] == kind][number]
    wanted["config"] |= change
    return wanted["name"]


@pytest.mark.parametrize(
    ("number", "change", "named", "message"),
    [  # the convolutions: 0 stem; 1 to 4 dense layers; 5 transition; 6 and 7 dense layer
        (0, {"use_bias": True}, 1, "expected use_bias True as in {}, found False"),
        (3, {"use_bias": True}, 3, "expected use_bias False as in {}, found True"),
        (3, {"filters": 12}, 3, "expected filters 4 as in {}, found 12"),
        (7, {"filters": 12}, 7, "expected filters 4 as in {}, found 12"),
    ],
)
def test_layers_that_differ_from_the_others_are_refused_by_their_names(
    number, change, named, message
):
    m = Model()
    x = network(m)
    names = [layer_of(m, "Conv2D", i, use_bias=False) for i in range(8)]
    layer_of(m, "Conv2D", number, **change)
    first = {3: 1, 7: 2}[number] if "filters" in change else 0
    with pytest.raises(dm.WeightsError) as caught:
        read(m, x)
    said = f"{names[named]} (Conv2D): {message.format(f'{names[first]} (Conv2D)')}"
    assert str(caught.value).startswith(said)
    assert "Keep using this model in Keras" in str(caught.value)


def test_transitions_that_pool_differently_are_refused_by_their_names():
    m = Model()
    x = network(m, blocks=(1, 1, 1))
    (_, last) = [entry for entry in m.layers if entry["class_name"] == "AveragePooling2D"]
    last["class_name"] = "MaxPooling2D"
    match = (
        rf"{last['name']} \(MaxPooling2D\): expected the same pooling in all transitions, found "
    )
    with pytest.raises(dm.WeightsError, match=match):
        read(m, x)


@pytest.mark.parametrize("mode", ["int8", "int4/128", "float8"])
def test_quantized_weights_are_refused_as_such(mode):
    m = Model()
    x = network(m)
    policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": mode, "source_name": "x"}}
    name = layer_of(m, "Dense", 0, dtype=policy)
    with pytest.raises(dm.WeightsError) as caught:
        read(m, x)
    assert f"{name} (Dense): expected floating-point weights, found quantized ones ({mode})" in (
        str(caught.value)
    )
    assert str(caught.value).endswith("save the model before quantize() changes it")


def test_a_model_that_is_used_for_each_of_several_images_is_named():
    m = Model()
    x = m("InputLayer", batch_shape=[None, 4, 32, 32, 3])
    inside = Model()
    x = m("TimeDistributed", x, layer=inside.declared(network(inside)), name="each")
    message = r"each \(TimeDistributed\): .*: model\.get_layer\('each'\)\.layer\.save\('NAME"
    with pytest.raises(dm.WeightsError, match=message):
        read(m, x)


def before(kind, channels=3, **config):
    """Read a model in which this layer is before the network."""
    m = Model()
    x = m("InputLayer", batch_shape=[None, 32, 32, channels])
    return read(m, network(m, m(kind, *[x] * (3 if kind == "Concatenate" else 1), **config)))


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("Cropping2D", {}, r"cropping2d_1 \(Cropping2D\): expected a Conv2D layer"),
        (
            "Normalization",
            {"axis": [1, 2, 3]},
            r"normalization_1 \(Normalization\): .* \[1, 2, 3\]",
        ),
        (
            "Cast",
            {"dtype": "float16"},
            r"cast_1 \(Cast\): expected a cast to float32, found float16",
        ),
        ("Concatenate", {"channels": 1}, r"concatenate_1 \(Concatenate\): .* with in_channels=1"),
    ],
)
def test_what_is_before_the_network_is_refused_with_how_to_save_the_network_alone(
    kind, config, message
):
    with pytest.raises(dm.WeightsError, match=message) as caught:
        before(kind, **config)
    part = "keras.Model(model.get_layer('zeropadding2d_2').input, model.output).save('NAME.keras')"
    assert str(caught.value).endswith(part)


def test_a_cast_to_float32_changes_nothing():
    declared = before("Cast", dtype="float32")
    assert (declared.before, declared.notes) == ([], [])
    m = Model(2)
    x = m("InputLayer", batch_input_shape=[None, 32, 32, 3])
    x = m("TFOpLambda", x, function="cast", dtype="float32", name="tf.cast")
    m.layers[-1]["inbound_nodes"] = [[[m.layers[0]["name"], 0, 0, {"dtype": "float32"}]]]
    assert read(m, network(m, x)).before == []
    m.layers[1]["inbound_nodes"][0][0][3]["dtype"] = "uint8"
    with pytest.raises(dm.WeightsError, match=r"tf\.cast \(Cast\): .* found uint8"):
        read(m, m.layers[-1]["name"])


def test_a_head_that_reads_maps_is_refused_with_how_to_save_what_is_before_it():
    m = Model()
    x = network(m, head=None, **{"global": None})
    with pytest.raises(dm.WeightsError) as caught:
        read(m, m("Dense", m("Flatten", x)))
    part = f"keras.Model(model.input, model.get_layer({x!r}).output).save('NAME.keras')"
    assert str(caught.value).endswith(f"save the part before the head: {part}")


# --- Heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        [("Dense", {"activation": "relu"}), ("Dense", {})],
        [("BatchNormalization", {}), ("Dense", {})],
        [("Dense", {"activation": "relu"})],
        [("Activation", {"activation": "relu"}), ("Dense", {})],
        [("Lambda", {}), ("Dense", {})],
        [("Dense", {"activation": "softmax"}), ("Activation", {"activation": "sigmoid"})],
    ],
)
def test_another_head_is_left_out_with_a_note_that_names_it(head):
    m = Model()
    x = network(m, head=None)
    for kind, config in head:
        x = m(kind, x, **config)
    declared = read(m, x)
    assert "classifier" not in declared.layers
    assert declared.activation is None
    (note,) = declared.notes
    assert all(f"({kind})" in note for kind, _ in head)
    assert "num_classes=N)" in note


def test_layers_that_change_nothing_may_be_around_the_classifier():
    m = Model()
    x = network(m, head=None)
    x = m("Dropout", m("Flatten", x), rate=0.5)
    x = m("Softmax", m("Reshape", m("Dense", x), target_shape=[-1]), axis=-1)
    declared = read(m, x)
    assert declared.layers["classifier"].kind == "Dense"
    assert declared.activation == "softmax"
    assert declared.notes == []


SOFTMAX = ("Softmax", {"axis": -1})
AFTER_6_OUTPUTS = {  # case: (layers after Dense(6), activation), None if the head is omitted
    "no groups": ([SOFTMAX], "softmax"),
    "in pairs": ([("Reshape", {"target_shape": [3, 2]}), SOFTMAX], None),
    "in pairs, by name": (
        [("Reshape", {"target_shape": [3, 2]}), ("Activation", {"activation": "softmax"})],
        None,
    ),
    "in pairs, over the first axis": (
        [("Reshape", {"target_shape": [3, -1]}), ("Softmax", {"axis": 1})],
        None,
    ),
    "of one each": ([("Reshape", {"target_shape": [1, 6]}), ("Softmax", {"axis": 1})], None),
    "over all, reshaped": ([("Reshape", {"target_shape": [1, -1]}), SOFTMAX], "softmax"),
    "over all, of two axes": (
        [("Reshape", {"target_shape": [6, 1]}), ("Softmax", {"axis": [1]})],
        "softmax",
    ),
    "in pairs and back": (
        [("Reshape", {"target_shape": [3, 2]}), ("Flatten", {}), SOFTMAX],
        "softmax",
    ),
    "over the images": ([("Softmax", {"axis": 0})], None),
    "over two axes": ([("Softmax", {"axis": [1, 2]})], None),
    "sigmoids in pairs": (
        [("Activation", {"activation": "sigmoid"}), ("Reshape", {"target_shape": [3, 2]})],
        "sigmoid",
    ),
}


@pytest.mark.parametrize("case", AFTER_6_OUTPUTS)
def test_a_softmax_is_one_over_all_outputs_or_it_is_another_head(case):
    layers, expected = AFTER_6_OUTPUTS[case]
    m = Model()
    x = m("Dense", network(m, head=None), units=6)
    for kind, config in layers:
        x = m(kind, x, **config)
    declared = read(m, x)
    assert declared.activation == expected
    assert ("classifier" in declared.layers) == (expected is not None)
    if expected is None:
        assert all(f"({kind})" in declared.notes[0] for kind, _ in layers)


def test_a_dense_on_groups_of_features_is_another_head():
    m = Model()
    x = m("Reshape", network(m, head=None), target_shape=[4, -1])
    declared = read(m, m("Dense", x))
    assert "classifier" not in declared.layers
    assert "(Reshape)" in declared.notes[0]


@pytest.mark.parametrize(("axis", "expected"), [(-1, "softmax"), (3, "softmax"), (1, None)])
def test_a_softmax_of_maps_of_one_pixel_is_over_their_channels(axis, expected):
    m = Model()
    x = network(m, head=None, global_config={"keepdims": True})
    assert read(m, m("Softmax", m("Dense", x), axis=axis)).activation == expected


def test_several_heads_leave_the_body_and_several_outputs_the_last():
    m = Model()
    pooled = network(m, head=None)
    heads = [m("Dense", pooled), m("Dense", pooled)]
    declared = read(m, *heads)
    assert "classifier" not in declared.layers
    assert "num_classes=N" in declared.notes[0]
    m = Model()
    x = network(m)
    relu = [entry["name"] for entry in m.layers if entry["class_name"] == "ReLU"][-1]
    declared = read(m, relu, x)
    assert "classifier" in declared.layers
    assert f"its other outputs were ignored: {relu}" in declared.notes[0]


def test_a_pooling_of_fixed_size_is_global_at_the_declared_size_alone():
    def pooled(side, **changes):
        m = Model()
        x = m("AveragePooling2D", network(m, head=None, **{"global": None}, **changes),
              pool_size=[side, side])  # fmt: skip
        return read(m, m("Dense", m("Flatten", x)))

    declared = pooled(4)  # 32 -> 16 -> 8 -> 4
    assert declared.fields["global_pool"] == "avg"
    assert "for 32x32 images" in declared.notes[0]
    for side, changes in ((2, {}), (4, {"size": None}), (4, {"size": 64})):
        with pytest.raises(dm.WeightsError, match=r"AveragePooling2D\): expected pooling over"):
            pooled(side, **changes)


@pytest.mark.parametrize("kind", ["AveragePooling2D", "MaxPooling2D"])
@pytest.mark.parametrize(
    ("strides", "padding", "expected"),
    [([1, 1], "valid", True), ([4, 4], "same", True), (None, "same", True), (1, "same", False)],
)
def test_a_pooling_that_leaves_several_pixels_is_not_global(kind, strides, padding, expected):
    m = Model()
    x = network(m, head=None, **{"global": None})
    x = m(kind, x, pool_size=[4, 4], strides=strides, padding=padding)
    if expected:
        assert f"its pooling layer {x} ({kind}) has a fixed window" in read(m, x).notes[0]
        return
    with pytest.raises(
        dm.WeightsError, match=rf"{x} \({kind}\): .* strides \[1, 1\], padding 'same'"
    ):
        read(m, x)


def test_a_flatten_is_a_pooling_where_the_map_is_of_one_pixel():
    def flattened(size):
        m = Model()
        x = m("Flatten", network(m, head=None, size=size, **{"global": None}))
        return read(m, m("Dense", x))

    declared = flattened(8)  # 8 -> 4 -> 2 -> 1
    assert declared.fields["global_pool"] == "avg"
    assert "(Flatten) reads a 1x1 map" in declared.notes[0]
    assert "for 8x8 images" in declared.notes[0]
    for size in (16, None):
        with pytest.raises(dm.WeightsError, match=r"Flatten\): expected a global pooling"):
            flattened(size)


# --- Models inside models -----------------------------------------------------------------------


def nested(m, inside, *reads, name):
    """Call the model ``inside`` as a layer of ``m``."""
    x = m("Functional", *reads, name=name)
    m.layers[-1]["config"] |= inside["config"]
    m.layers[-1]["module"] = "keras.src.models.functional"
    return x


def test_models_inside_models_are_one_network_whatever_their_layers_are_called():
    body = Model()
    inside = body.declared(network(body, head=None))
    for depth in range(2):
        m = Model()
        x = m("InputLayer", batch_shape=[None, 32, 32, 3])
        x = nested(m, inside, m("Rescaling", x, scale=1 / 255, offset=0.0), name=f"model{depth}")
        inside = m.declared(x if depth == 0 else m("Dense", x, name=body.layers[2]["name"]))
    declared = declared_network(graph_of(inside))
    stem = declared.layers["features.conv0"]
    assert stem.path == ("model1", "model0", body.layers[2]["name"])
    assert stem.place == "layers/functional/layers/functional/layers/conv2d"
    assert declared.layers["classifier"].path == (stem.name,)
    assert [layer.path[:-1] for layer in declared.before] == [(), ("model1",)]


def test_the_output_that_is_read_is_the_one_with_its_number():
    body = Model()
    pooled = network(body, head=None)
    relu = body.layers[-2]["name"]
    m = Model()
    x = nested(m, body.declared(relu, pooled), m("InputLayer", batch_shape=[None, 32, 32, 3]),
               name="two")  # fmt: skip
    dense = m("Dense", x)
    m.layers[-1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"][2] = 1
    assert "classifier" in declared_network(graph_of(m.declared(dense))).layers
    m.layers[-1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"][2] = 2
    with pytest.raises(dm.WeightsError, match="two: expected a layer with one output"):
        graph_of(m.declared(dense))


@pytest.mark.parametrize("config", [{}, {"layers": [6, 12, 24]}, {"layers": 3}])
def test_a_class_of_ones_own_without_layers_is_undeclared(config):
    with pytest.raises(UndeclaredError, match="MyNet"):
        graph_of({"class_name": "MyNet", "registered_name": "MyNet", "config": config})


def test_a_class_of_ones_own_that_declares_its_layers_is_read_with_a_note():
    m = Model()
    declared = m.declared(network(m)) | {"class_name": "MyNet", "module": "my.nets"}
    read = declared_network(graph_of(declared))
    assert "of a custom class (my.nets.MyNet), which may compute something other" in read.notes[0]


# --- Pixels -------------------------------------------------------------------------------------


def steps(*calls):
    """Return layers before the stem, given as (kind, config or call arguments)."""
    return [
        Layer(
            kind,
            (kind.lower(),),
            f"layers/{i}",
            with_ if isinstance(with_, dict) else {},
            [],
            [] if isinstance(with_, dict) else with_,
        )
        for i, (kind, with_) in enumerate(calls)
    ]


NORMS = {"axis": [-1], "mean": [120.0, 110, 100], "variance": [3600.0, 2500, 1600]}
PREPROCESS = [  # keras.applications.densenet.preprocess_input
    ("TrueDivide", [READ, 255.0]),
    ("Subtract", [READ, {"class_name": "__tensor__",
                         "config": {"value": [[[[0.485, 0.456, 0.406]]]]}}]),
    ("TrueDivide", [READ, [0.229, 0.224, 0.225]]),
]  # fmt: skip
CASES = {
    "tutorial": ([("Rescaling", {"scale": 1 / 255, "offset": 0})], lambda x: x / 255, 255),
    "-1 to 1": ([("Rescaling", {"scale": 1 / 127.5, "offset": -1})], lambda x: x / 127.5 - 1, 255),
    "channels": (
        [("Normalization", NORMS)],
        lambda x: (x - [120, 110, 100]) / [60, 50, 40],
        255,
    ),
    "preprocess_input": (
        PREPROCESS,
        lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        255,
    ),
    "mean pixels": ([("Subtract", [READ, [123.0, 117, 104]])], lambda x: x - [123, 117, 104], 255),
    "two layers": (
        [("Rescaling", {"scale": 1 / 255, "offset": 0}), ("Normalization", {
            "axis": None, "mean": 0.5, "variance": 0.25})],
        lambda x: (x / 255 - 0.5) / 0.5,
        255,
    ),
    "0 to 1": ([("Normalization", {"axis": -1, "mean": [0.4, 0.5, 0.6], "variance": [0.04] * 3})],
               lambda x: (x - [0.4, 0.5, 0.6]) / 0.2, 1),
    "stored": ([("Normalization", {"axis": -1})], lambda x: (x - [90, 80, 70]) / [9, 8, 7], 255),
}  # fmt: skip
STORED = {"layers/0": (np.array([90.0, 80, 70]), np.array([81.0, 64, 49]))}


@pytest.mark.parametrize("case", CASES)
def test_the_preparation_of_the_usage_is_what_the_layers_do(case):
    calls, rule, high = CASES[case]
    images = np.random.default_rng(0).uniform(0, 1, (2, 5, 5, 3)).astype(np.float32)
    expected = rule(images.astype(np.float64) * high)
    given, note = pixels_of(steps(*calls), STORED, 3)
    usage = with_declared_pixels(dm.Usage(), given)
    actual = normalize(images.transpose(0, 3, 1, 2), usage).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())
    prepared = Preparation(5, 3, usage)(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(prepared, actual.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-4)
    assert usage.assumed == ("value_range",)
    assert f"from 0 to {high} is assumed" in note


def test_an_assumed_mean_is_dropped_where_layers_state_the_pixels():
    imagenet = dm.Usage(
        image_size=224, value_range=(0, 1), mean=(0.4,), std=(0.2,),
        assumed=("image_size", "value_range", "mean", "std"),
    )  # fmt: skip
    usage = with_declared_pixels(imagenet, {"value_range": (-1.0, 1.0)})
    assert (usage.mean, usage.std, usage.image_size) == (None, None, 224)
    assert set(usage.assumed) == {"image_size", "value_range"}
    assert with_declared_pixels(imagenet, {}) is imagenet


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (
            [("Subtract", [1.0, READ])],
            r"subtract \(Subtract\): expected pixels scaled by a positive",
        ),
        ([("TrueDivide", [255.0, READ])], r"truedivide \(TrueDivide\): expected numbers"),
        ([("Rescaling", {"scale": 0, "offset": 0})], "a positive factor, found 0"),
        ([("Normalization", {**NORMS, "invert": True})], "expected numbers"),
        ([("Normalization", {**NORMS, "axis": [1, 2, 3]})], "expected numbers"),
        ([("Normalization", {"axis": -1, "mean": None})], "expected numbers"),
        ([("Add", [READ, READ])], r"add \(Add\): expected numbers"),
        ([("Add", [READ, [1.0, 2]]), ("Add", [READ, [1.0, 2, 3]])], "one number for each channel"),
        ([("TrueDivide", [READ, 0.0])], "expected numbers"),
    ],
)
def test_layers_that_no_usage_says_are_refused_by_name(calls, message):
    with pytest.raises(dm.WeightsError, match=message):
        pixels_of(steps(*calls), {}, 3)


def test_keras_2_functions_of_tensorflow_are_read_as_they_are_written():
    m = Model(2)
    m("InputLayer", batch_input_shape=[None, 32, 32, 3], name="input_1")
    for name, read_from, function, given in (
        ("tf.math.truediv", "input_1", "math.truediv", {"y": 255.0, "name": None}),
        ("tf.nn.bias_add", "tf.math.truediv", "nn.bias_add",
         {"bias": [-0.485, -0.456, -0.406], "data_format": "channels_last"}),
        ("tf.math.truediv_1", "tf.nn.bias_add", "math.truediv",
         {"y": [0.229, 0.224, 0.225], "name": None}),
    ):  # fmt: skip
        m("TFOpLambda", name=name, function=function)
        m.layers[-1]["inbound_nodes"] = [[read_from, 0, 0, given]]
    declared = read(m, network(m, "tf.math.truediv_1"))
    given, _ = pixels_of(declared.before, {}, 3)
    np.testing.assert_allclose(given["mean"], np.multiply(255, [0.485, 0.456, 0.406]))
    np.testing.assert_allclose(given["std"], np.multiply(255, [0.229, 0.224, 0.225]))


def test_what_resizes_is_left_out_and_gives_the_size():
    m = Model()
    x = m("InputLayer", batch_shape=[None, 40, 50, 3])
    x = network(m, m("RandomFlip", m("Resizing", x, height=32, width=32)))
    declared = read(m, x)
    assert declared.image_size == 32
    assert "40x50" in declared.notes[0]
    assert "resizing_1 (Resizing) was ignored" in declared.notes[1]


# --- This package's own -------------------------------------------------------------------------


def test_the_declaration_of_this_packages_model_holds_its_configuration():
    config = dm.DenseNetConfig(transition_pool="max", drop_rate=0.1, bn_eps=1e-4)
    spec = {"spec": "DenseNetSpec", "config": {"spec": "DenseNetConfig", **vars(config)}}
    ours = {"class_name": "DenseNet", "config": {"spec": spec}}
    named = [{"module": "densenet_multi.keras.model"}, {"class_name": "densenet_multi>DenseNet"}]
    for more in (*named, {}):
        assert own_config({**ours, **more}) == config
    assert own_config({**ours, "module": "others.model"}) is None
    assert own_config({"class_name": "Functional", "config": {"layers": []}}) is None
    for name in ("InferenceDenseNet", "OptimizedDenseNet"):  # the second name is in older files
        with pytest.raises(dm.WeightsError, match="rewritten for inference"):
            own_config({**ours, "class_name": f"densenet_multi>{name}"})
    spec["config"]["unknown"] = 1
    with pytest.raises(dm.WeightsError, match="found a damaged one"):
        own_config(ours)


# --- Damaged and hostile ------------------------------------------------------------------------


def quickly(declared):
    started = time.monotonic()
    with pytest.raises(dm.WeightsError) as caught:
        declared_network(graph_of(declared))
    assert time.monotonic() - started < 2
    return str(caught.value)


def test_a_circle_is_refused():
    m = Model()
    x = network(m)
    m.layers[3]["inbound_nodes"][0]["args"].append(m.tensor(x))
    assert "found a missing or circular one" in quickly(m.declared(x))


def test_a_layer_that_leads_nowhere_is_refused():
    m = Model()
    x = network(m)
    relu = [entry["name"] for entry in m.layers if entry["class_name"] == "ReLU"][-1]
    assert f"{x} (Dense): expected a layer that leads to an output" in quickly(m.declared(relu))


def test_a_million_layers_are_refused_before_they_are_read():
    entry = {"class_name": "ReLU", "config": {"name": "x"}}
    declared = {"class_name": "Sequential", "config": {"layers": [entry] * 10**6}}
    assert f"expected at most {MOST_LAYERS:,} layers" in quickly(declared)


def test_layers_in_reverse_order_take_no_longer():
    m = Model()
    x = m("InputLayer", batch_shape=[None, 32, 32, 3])
    first = x
    for _ in range(10_000):
        x = m("ReLU", x)
    m.layers.reverse()
    assert "without a Concatenate" in quickly(m.declared(x, inputs=first))


def test_concatenations_of_concatenations_do_not_explode():
    m = Model()
    x = conv(m, m("InputLayer", batch_shape=[None, 32, 32, 3]), 3)
    new = conv(m, norm_relu(m, x, USUAL), 3)
    for _ in range(60):
        x = m("Concatenate", x, x, axis=-1)
    last = norm_relu(m, m("Concatenate", x, new, axis=-1), USUAL)
    expected = "expected all maps of the block so far, found different ones"
    assert expected in quickly(m.declared(last))


def test_models_nested_very_deeply_are_refused():
    declared = {"class_name": "Sequential", "config": {"name": "x", "layers": []}}
    for _ in range(5000):
        declared = {"class_name": "Sequential", "config": {"name": "x", "layers": [declared]}}
    assert "nested too deeply" in quickly(declared)


@pytest.mark.parametrize(
    "declared",
    [
        None,
        [],
        {"class_name": "Functional"},
        {"class_name": "Functional", "config": {"layers": []}},
        {"class_name": "Functional", "config": {"layers": [1], "input_layers": []}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReLU"}]}},
        {"class_name": "Sequential", "config": [{"class_name": None, "config": None}]},
    ],
)
def test_a_damaged_declaration_is_refused(declared):
    assert "expected" in quickly(declared)


def test_every_value_of_a_declaration_may_be_damaged():
    rng = np.random.default_rng(0)
    values = [None, -1, 0, 2**70, 1e400, "x", [], {}, [[]], True, {"class_name": "x"}]
    refusals = 0
    for _ in range(300):
        m = Model(int(rng.choice([2, 3])))
        declared = m.declared(network(m, blocks=(1, 1)))
        at = m.layers[rng.integers(len(m.layers))]
        at = at["config"] if rng.random() < 0.6 else at
        at[rng.choice(list(at))] = values[rng.integers(len(values))]
        try:
            declared_network(graph_of(declared))
        except (dm.WeightsError, UndeclaredError):
            refusals += 1
    assert refusals > 150


def test_only_stock_layers_of_keras_may_be_rebuilt():
    m = Model()
    declared = m.declared(network(m))
    assert classes_in(declared) - STOCK == set()
    for change in (
        {"class_name": "Lambda"},
        {"module": "os", "class_name": "Dense"},
        {"module": "keras_of_mine.layers", "class_name": "Dense"},
        {"registered_name": "my>Dense"},
    ):
        m.layers[-1] |= {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
        assert classes_in(declared) - STOCK == set()
        m.layers[-1] |= change
        assert classes_in(declared) - STOCK, change
    m.layers[-1] |= {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    m.layers[-1]["config"]["activation"] = {"class_name": "function", "config": "system"}
    assert classes_in(declared) - STOCK == {"function"}
