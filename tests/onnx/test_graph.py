"""The graph that ONNX files hold: ONNX Runtime and onnx's evaluator compute the reference's logits.

Both are judges of their own: neither shares code with this package. Only ONNX defines the nodes.
"""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import densenet_multi as dm
from cases import SMALL, as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.manifest import tensors
from densenet_multi.onnx import to_proto
from parity import amplification
from strategies import small_configs

RUNTIME, EVALUATOR = "ORT", "onnx"  # as the table of deviations calls them
THOROUGH = settings.get_current_profile_name() == "thorough"
SLOW = {"densenet100_k12", "densenet100_k24", "densenet_bc190_k40", "densenet_bc250_k24"}
SLOW |= {"densenet161", "densenet201", "densenet264"}
SIZES = [
    pytest.param(name, size, marks=pytest.mark.long if name in SLOW else ())
    for name, config in dm.VARIANTS.items()
    for size in ((32, 35) if config.stem == "cifar" else (64, 67))
]
OPTIONS = [{}, {"folded": True}, {"half": True}, {"activation": "softmax"}]


def in_runtime(model, x):
    """The output that ONNX Runtime computes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x})
    return found


def in_evaluator(model, x):
    (found,) = ReferenceEvaluator(model).run(None, {"images": x})
    return found


def as_stored(spec):
    """The spec with the epsilon that a file has: ONNX's attributes are float32.

    The nearest float32 to 1e-3 is 1.00000005e-3. That changes a logit by 1e-10 of itself, and by
    less for a smaller epsilon: nothing in float32, but more than float64's own rounding.
    """
    epsilon = float(np.float32(spec.config.bn_eps))
    return dataclasses.replace(spec.config, bn_eps=epsilon).resolve()


# --- The judges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "size"), SIZES)
def test_onnx_runtime_computes_the_references_logits_of_every_variant(deviations, variant, size):
    spec = dm.get_spec(variant)
    weights = as_float32(random_weights(spec))
    x = images(spec, size, size + 1, count=1).astype(np.float32)
    expected = dm.reference.predict(spec, weights, x)
    for options in ({}, {"folded": True}):
        found = in_runtime(to_proto(spec, weights, **options), x)
        assert found.dtype == np.float32
        deviations.check("onnx float32", RUNTIME, deviation(found, expected), f"{options}")
    halves = in_runtime(to_proto(spec, weights, half=True), x)
    assert halves.dtype == np.float32
    deviations.check("onnx float16", RUNTIME, deviation(halves, expected), "half")


@pytest.mark.parametrize("size", [32, 33, 35])
@pytest.mark.parametrize("name", SMALL)
def test_onnx_runtime_computes_the_logits_of_every_kind_of_network(deviations, name, size):
    spec = small(name)
    weights = as_float32(random_weights(spec))
    x = images(spec, size, size + 2).astype(np.float32)
    expected = dm.reference.predict(spec, weights, x)
    for options in ({}, {"folded": True}):
        found = in_runtime(to_proto(spec, weights, **options), x)
        deviations.check("onnx float32", RUNTIME, deviation(found, expected), f"{options}")


@pytest.mark.parametrize("size", [32, 33, 35])
@pytest.mark.parametrize("name", SMALL)
def test_the_evaluator_of_onnx_computes_the_references_logits_in_float64(deviations, name, size):
    spec, weights = small(name), random_weights(small(name))
    x = images(spec, size, size + 2)
    for options in ({}, {"folded": True}):
        found = in_evaluator(to_proto(spec, weights, **options), x)
        assert found.dtype == np.float64
        expected = dm.reference.predict(as_stored(spec), weights, x)
        # folding uses the spec's own epsilon; the BatchNorms that remain use the file's
        tier = "onnx epsilon" if options else "onnx float64"
        deviations.check(tier, EVALUATOR, deviation(found, expected), f"{options}")
        exact = dm.reference.predict(spec, weights, x)
        deviations.check("onnx epsilon", EVALUATOR, deviation(found, exact), "the epsilon")


@settings(
    max_examples=100 if THOROUGH else 10,
    derandomize=not THOROUGH,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(config=small_configs(least_classes=0), beyond=st.integers(0, 5), wider=st.integers(0, 3))
def test_drawn_networks_have_the_references_logits(deviations, config, beyond, wider):
    spec = config.resolve()
    height = dm.min_image_size(spec) + beyond
    weights, x = random_weights(spec), images(spec, height, height + wider)
    stored = as_stored(spec)
    factor = amplification(stored, weights, x)["logits"]
    expected = dm.reference.predict(stored, weights, x)
    value = deviation(in_evaluator(to_proto(spec, weights), x), expected)
    deviations.check("onnx float64", EVALUATOR, value, "the output", amplified=factor)
    weights, x = as_float32(weights), x.astype(np.float32)
    expected = dm.reference.predict(spec, weights, x)
    value = deviation(in_runtime(to_proto(spec, weights), x), expected)
    deviations.check("onnx float32", RUNTIME, value, "the output", amplified=factor)


def test_onnx_runtime_has_no_float64_convolution_on_cpus():
    """If this fails, ONNX Runtime can judge float64 too, and the note in onnx_file.py is wrong."""
    model = to_proto(small("plain"), random_weights(small("plain")))
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*Conv"):
        in_runtime(model, images(small("plain"), 32))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_the_activation_of_the_logits(activation):
    spec = small("bottleneck")
    weights = as_float32(random_weights(spec))
    x = images(spec, 33).astype(np.float32)
    model = to_proto(spec, weights, activation=activation)
    assert [value.name for value in model.graph.output] == ["probabilities"]
    logits = dm.reference.predict(spec, weights, x)
    powers = np.exp(logits)
    expected = powers / powers.sum(1, keepdims=True) if activation == "softmax" else None
    expected = powers / (1 + powers) if expected is None else expected
    np.testing.assert_allclose(in_runtime(model, x), expected, rtol=1e-5)


def test_images_may_have_any_batch_size_height_and_width():
    spec = small("plain with bias")
    weights = as_float32(random_weights(spec))
    model = to_proto(spec, weights)
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimensions] == ["batch", 1, "height", "width"]
    for count, height, width in [(1, 32, 47), (3, 51, 32)]:
        x = images(spec, height, width, count).astype(np.float32)
        expected = dm.reference.predict(spec, weights, x)
        assert deviation(in_runtime(model, x), expected) < 2e-6


# --- The graph ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_the_checker_of_onnx_accepts_every_network(name, options):
    spec = small(name)
    model = to_proto(spec, as_float32(random_weights(spec)), **options)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    assert onnx.helper.find_min_ir_version_for(model.opset_import) <= model.ir_version == 8


def test_nodes_and_tensors_have_the_names_of_their_stage_and_layer():
    spec = small("bottleneck")
    model = to_proto(spec, as_float32(random_weights(spec)))
    assert [tensor.name for tensor in model.graph.initializer] == list(tensors(spec))
    nodes = {node.name: node for node in model.graph.node}
    assert len(nodes) == len(model.graph.node)
    first = "features.denseblock2.denselayer1"
    assert [name.removeprefix(f"{first}.") for name in nodes if name.startswith(first)] == [
        "norm1", "relu1", "conv1", "norm2", "relu2", "conv2", "concat"
    ]  # fmt: skip
    assert list(nodes[f"{first}.conv1"].input) == [f"{first}.relu1", f"{first}.conv1.weight"]
    assert nodes["features.transition1.conv"].input[0] == "features.transition1.pool"
    assert [*nodes][:4] == [f"features.{name}" for name in ("conv0", "norm0", "relu0", "pool0")]
    assert [*nodes][-4:] == ["features.relu5", "global_pool", "flatten", "classifier"]
    assert [(value.name) for value in model.graph.output] == ["logits"]


def test_without_a_classifier_the_output_is_features():
    spec = small("bottleneck", num_classes=0)
    model = to_proto(spec, as_float32(random_weights(spec)))
    assert [value.name for value in model.graph.output] == ["features"]


@pytest.mark.parametrize("variant", ["d2l", "densenet121"])
def test_no_concatenation_has_a_single_input(variant):
    """Such a node crashes ONNX Runtime's static quantization."""
    spec = dm.get_spec(variant)
    model = to_proto(spec, dm.init_weights(spec))
    joined = [node for node in model.graph.node if node.op_type == "Concat"]
    assert len(joined) == sum(spec.config.block_config)
    assert {len(node.input) for node in joined} == {2}


def test_folding_removes_the_batch_norms_that_follow_convolutions():
    spec = small("bottleneck")
    weights = as_float32(random_weights(spec))
    models = [to_proto(spec, weights, folded=folded) for folded in (False, True)]
    plain, folded = ([node.name for node in model.graph.node] for model in models)
    gone = [name for name in plain if name not in folded]
    layers = sum(spec.config.block_config)
    assert len(gone) == 1 + layers
    assert {name.rpartition(".")[2] for name in gone} == {"norm0", "norm2"}


def test_dropout_is_left_out():
    spec = small("bottleneck", drop_rate=0.5)
    nodes = to_proto(spec, as_float32(random_weights(spec))).graph.node
    assert not [node for node in nodes if node.op_type in ("Dropout", "Identity")]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_network_is_the_same_bytes(tmp_path, options):
    spec = small("cubic")
    written = {name: value for name, value in options.items() if name != "activation"}
    if "activation" in options:
        written["probabilities"] = True
    usage = dm.Usage(activation="softmax", class_names=["a", "b", "c"])
    contents = []
    for _ in range(2):
        checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)), usage)
        formats.write(tmp_path / "x.onnx", checkpoint, **written)
        contents.append((tmp_path / "x.onnx").read_bytes())
    assert contents[0] == contents[1]


def test_the_metadata_is_the_portable_files_header(tmp_path):
    spec = small("cubic")
    usage = dm.Usage(image_size=33, mean=[0.5] * 3, std=[0.2] * 3, class_names=["a", "b", "c"])
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)), usage)
    formats.write(tmp_path / "x.onnx", checkpoint)
    formats.write(tmp_path / "x.safetensors", checkpoint)
    (entry,) = onnx.load(tmp_path / "x.onnx").metadata_props
    assert entry.key == "densenet_multi"
    header = json.loads(entry.value)
    assert header["usage"]["class_names"] == ["a", "b", "c"]
    content = (tmp_path / "x.safetensors").read_bytes()
    assert json.dumps(entry.value).encode() in content


def test_half_stores_float16_and_refuses_what_it_cannot_store():
    spec = small("cubic")
    weights = as_float32(random_weights(spec))
    model = to_proto(spec, weights, half=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
    weights["features.norm5.running_var"][0] = 1e5
    with pytest.raises(dm.WeightsError, match=r"^features\.norm5\.running_var: .*65,504.*100000"):
        to_proto(spec, weights, half=True)
