"""ONNX files: ours become portable files again; those of other exporters are read or refused."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import densenet_multi as dm
from cases import SMALL, as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.commands import main
from densenet_multi.comparison.deviation import TOLERANCES, deviation
from densenet_multi.formats._onnx import content
from densenet_multi.formats.onnx_file import FOLDED
from densenet_multi.onnx import to_proto
from densenet_multi.tasks import convert as conversion

USAGE = dm.Usage(image_size=40, mean=[0.5] * 3, std=[0.25] * 3, activation="softmax")


def checkpoint_of(name="bottleneck", dtype="float32", **overrides):
    spec = small(name, **overrides)
    weights = {name: array.astype(dtype) for name, array in random_weights(spec).items()}
    return dm.Checkpoint(spec, weights, USAGE if spec.config.in_channels == 3 else dm.Usage())


def same(one, other):
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], name)


# --- Our own files ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMALL)
def test_a_file_becomes_the_portable_file_that_it_was_made_from(tmp_path, name, dtype):
    checkpoint = checkpoint_of(name, dtype)
    formats.write(tmp_path / "x.safetensors", checkpoint)
    notes = formats.write(tmp_path / "x.onnx", checkpoint)
    assert [note for note in notes if "float64" in note] == list(notes)
    assert bool(notes) == (dtype == "float64")
    found = formats.read(tmp_path / "x.onnx")
    assert (found.spec, found.usage, found.notes) == (checkpoint.spec, checkpoint.usage, ())
    same(found.weights, checkpoint.weights)
    formats.write(tmp_path / "y.safetensors", found)
    contents = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "xy"]
    assert contents[0] == contents[1]


def test_probabilities_and_any_name_are_read_too(tmp_path):
    checkpoint = checkpoint_of()
    formats.write(tmp_path / "x.bin", checkpoint, "onnx", probabilities=True)
    assert formats.guess(tmp_path / "x.bin") == "onnx"
    found = formats.read(tmp_path / "x.bin")
    assert found.usage == USAGE
    same(found.weights, checkpoint.weights)


def test_half_returns_the_float32_values_of_what_is_stored(tmp_path):
    checkpoint = checkpoint_of()
    (note,) = formats.write(tmp_path / "x.onnx", checkpoint, half=True)
    assert "float16" in note
    found = formats.read(tmp_path / "x.onnx")
    (note,) = found.notes
    assert "stored in float16" in note
    halves = {n: a.astype(np.float16).astype(np.float32) for n, a in checkpoint.weights.items()}
    same(found.weights, halves)


def test_a_folded_file_is_refused_by_name(tmp_path):
    (note,) = formats.write(tmp_path / "x.onnx", checkpoint_of(), folded=True)
    assert "cannot be converted back" in note
    with pytest.raises(dm.WeightsError, match=r"BatchNorms are folded.*folded=True") as caught:
        formats.read(tmp_path / "x.onnx")
    assert str(caught.value).startswith(f"{tmp_path / 'x.onnx'}: Relu 'features.relu0': expected")


def test_a_folded_file_is_described_although_it_cannot_be_read(tmp_path):
    checkpoint = checkpoint_of()
    formats.write(tmp_path / "x.onnx", checkpoint, folded=True)
    found = conversion.inspect(tmp_path / "x.onnx")
    assert found["config"] == asdict(checkpoint.spec.config)
    assert found["usage"]["mean"] == (0.5, 0.5, 0.5)
    assert found["notes"][0] == FOLDED
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "x.onnx")]).stdout
    assert "cannot be converted back" in shown
    formats.write(tmp_path / "x.onnx", checkpoint)
    assert conversion.inspect(tmp_path / "x.onnx")["dtype"] == "float32"


def test_probabilities_need_a_stated_activation(tmp_path):
    checkpoint = checkpoint_of()
    for usage, found in ((dm.Usage(), "states none"), (dm.Usage(activation="none"), "'none'")):
        with pytest.raises(dm.ConfigError, match=rf"^probabilities: .*{found}.*activation='soft"):
            formats.write(
                tmp_path / "x.onnx",
                dm.Checkpoint(checkpoint.spec, checkpoint.weights, usage),
                probabilities=True,
            )
    with pytest.raises(dm.ConfigError, match="classifier"):
        formats.write(tmp_path / "x.onnx", checkpoint_of(num_classes=0), probabilities=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transition_pool", "max"),
        ("global_pool", "max"),
        ("bn_eps", 2e-3),
        ("activation", "sigmoid"),
    ],
)
def test_metadata_that_contradicts_the_graph_is_refused(tmp_path, field, value):
    checkpoint = checkpoint_of()
    formats.write(tmp_path / "x.onnx", checkpoint, probabilities=True)
    model = onnx.load(tmp_path / "x.onnx")
    old = {"bn_eps": '"bn_eps": 0.001', "activation": '"activation": "softmax"'}
    old = old.get(field, f'"{field}": "avg"')
    entry = model.metadata_props[0]
    assert old in entry.value
    new = f'"{field}": {value}' if field == "bn_eps" else f'"{field}": "{value}"'
    entry.value = entry.value.replace(old, new)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(dm.WeightsError, match=rf"{field} {value}, as its metadata states"):
        formats.read(tmp_path / "x.onnx")


# --- Files of other exporters -------------------------------------------------------------------


def exported(checkpoint):
    """Our graph as PyTorch exports torchvision's: other names, one concatenation per layer."""
    model = to_proto(checkpoint.spec, checkpoint.weights)
    graph, parts, given = model.graph, {}, {}
    for number, tensor in enumerate(graph.initializer):
        given[tensor.name] = tensor.name = f"onnx::{number}"
    for number, node in enumerate(graph.node):
        if node.op_type == "Concat":
            flat = [part for name in node.input for part in parts.get(name, [name])]
            parts[node.output[0]] = flat
            node.input[:] = flat
        node.name = f"/{node.op_type}_{number}"
        node.input[:] = [given.get(name, name) for name in node.input]
    return model


def read(path, model):
    path.write_bytes(model.SerializeToString())
    return formats.read(path)


@pytest.mark.parametrize("name", SMALL)
def test_a_file_without_our_names_is_ordered_by_its_graph(tmp_path, name):
    checkpoint = checkpoint_of(name)
    found = read(tmp_path / "x.onnx", exported(checkpoint))
    assert found.spec == checkpoint.spec  # the epsilon too: 1e-5, not 9.99999975e-06
    same(found.weights, checkpoint.weights)
    assert "order in the graph" in found.notes[0]


def test_other_ways_to_write_the_same_function_are_read(tmp_path):
    """A product and a sum, a mean over axes, a border, an activation, NHWC, constants as nodes."""
    checkpoint = checkpoint_of()
    model = exported(checkpoint)
    graph = model.graph
    gemm = graph.node[-1]
    matrix, bias = (t for t in graph.initializer if t.name in gemm.input)
    matrix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(matrix).T.copy(), matrix.name))
    product = helper.make_node("MatMul", [gemm.input[0], matrix.name], ["product"], "product")
    added = helper.make_node("Add", ["product", "constant"], ["sum"], "sum")
    constant = helper.make_node("Constant", [], ["constant"], "c", value=bias)
    probabilities = helper.make_node("Softmax", ["sum"], [graph.output[0].name], "s", axis=-1)
    graph.initializer.remove(bias)
    del graph.node[-1]
    graph.node.extend([constant, product, added, probabilities])
    (pool,) = (node for node in graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type = "ReduceMean"
    pool.attribute.extend([helper.make_attribute("axes", [-1, -2])])
    first = graph.node[0]
    next(a for a in first.attribute if a.name == "pads").ints[:] = [0, 0, 0, 0]
    axes = helper.make_node("Transpose", ["images"], ["channels first"], "t", perm=[0, 3, 1, 2])
    pads = [0, 0, 3, 3, 0, 0, 3, 3]
    graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [8], pads))
    border = helper.make_node("Pad", ["channels first", "pads"], ["padded"], "p")
    first.input[0] = "padded"
    graph.node.insert(0, border)
    graph.node.insert(0, axes)
    found = read(tmp_path / "x.onnx", model)
    assert found.spec == checkpoint.spec
    assert found.usage.activation == "softmax"
    same(found.weights, checkpoint.weights)


def test_a_classifier_without_a_bias_gets_a_zero_bias(tmp_path):
    model = exported(checkpoint_of())
    del model.graph.node[-1].input[2:]
    found = read(tmp_path / "x.onnx", model)
    assert not found.weights["classifier.bias"].any()
    assert "no bias" in "".join(found.notes)


def node(model, op, number=0):
    return [each for each in model.graph.node if each.op_type == op][number]


def attribute(op, number=0, **values):
    """Return a function that changes attributes of a node."""

    def change(model):
        found = node(model, op, number)
        kept = [each for each in found.attribute if each.name not in values]
        del found.attribute[:]
        new = [helper.make_attribute(name, value) for name, value in values.items()]
        found.attribute.extend([*kept, *new])

    return change


def skip(op, number=0):
    """Return a function that removes a node; its readers then read its input."""

    def change(model):
        gone = node(model, op, number)
        for each in model.graph.node:
            each.input[:] = [gone.input[0] if n == gone.output[0] else n for n in each.input]
        model.graph.node.remove(gone)

    return change


def renamed(op, new, number=0, **fields):
    def change(model):
        found = node(model, op, number)
        found.op_type = new
        for name, value in fields.items():
            setattr(found, name, value)

    return change


def swapped(model):
    first, second = node(model, "Concat").input
    node(model, "Concat").input[:] = [second, first]


def pooled_first(model):
    """Let a transition compute the maximum before the convolution, which is another function."""
    pool = node(model, "AveragePool")
    pool.op_type = "MaxPool"
    kept = [each for each in pool.attribute if each.name != "count_include_pad"]
    del pool.attribute[:]
    pool.attribute.extend(kept)


def external(model):
    tensor = model.graph.initializer[3]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")


def constant(name, value):
    def change(model):
        setattr(model.opset_import[0], name, value)

    return change


def computed(model):
    node(model, "Conv", 1).input[1] = "images"


def twice(model):
    model.graph.output.append(model.graph.output[0])


def function(model):
    model.functions.append(helper.make_function("d", "F", [], [], [], model.opset_import))


def padded(model):
    """Insert a border of zeros before the first ReLU."""
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    model.graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [8], pads))
    relu = node(model, "Relu")
    border = helper.make_node("Pad", [relu.input[0], "pads"], ["border"], "p")
    relu.input[0] = "border"
    model.graph.node.insert(2, border)


OTHERS = {  # what is refused: (the change, words of the error)
    "stride": (attribute("Conv", strides=[1, 1]), r"Conv '/Conv_0': expected strides \[2, 2\]"),
    "padding": (attribute("Conv", 2, pads=[0, 0, 2, 2]), r"pads \[1, 1, 1, 1\].*\[0, 0, 2, 2\]"),
    "auto_pad": (attribute("Conv", auto_pad="SAME_UPPER"), "auto_pad SAME_UPPER"),
    "dilation": (attribute("Conv", 2, dilations=[2, 2]), r"dilations \[1, 1\]"),
    "groups": (attribute("Conv", group=3), "group 1, found 3"),
    "kernel": (attribute("MaxPool", kernel_shape=[2, 2]), r"kernel_shape \[3, 3\]"),
    "ceil_mode": (attribute("MaxPool", ceil_mode=1), "ceil_mode 0, found 1"),
    "ceil_mode of averages": (attribute("AveragePool", ceil_mode=1), "ceil_mode 0, found 1"),
    "padding of averages": (attribute("AveragePool", pads=[1] * 4), r"pads \[0, 0, 0, 0\]"),
    "epsilon": (
        attribute("BatchNormalization", 1, epsilon=1e-5),
        "one epsilon in all BatchNorms, found 1e-05 and 0.001",
    ),
    "training": (attribute("BatchNormalization", training_mode=1), r"found training; export model"),
    "an unknown attribute": (attribute("Conv", scale=2), "found scale"),
    "alpha": (attribute("Gemm", alpha=0.5), "alpha 1.0, found 0.5"),
    "a transposed input": (attribute("Gemm", transA=1), "transA 0, found 1"),
    "a flattened batch": (attribute("Flatten", axis=0), "expected axis 1, found axis 0"),
    "a border where none may be": (padded, "an input without a border, found a padded one"),
    "an axis": (attribute("Concat", axis=2), "along axis 1"),
    "new channels first": (swapped, "the output of the layers before it, found another input"),
    "no ReLU": (skip("Relu", 1), "expected Relu here, found Conv"),
    "no BatchNorm": (skip("BatchNormalization", 2), "BatchNorms are folded"),
    "no first BatchNorm": (skip("BatchNormalization"), "BatchNorms are folded"),
    "a layer that is not read": (skip("Concat"), "expected the output of the layers|Batch"),
    "another activation": (renamed("Relu", "LeakyRelu"), "found LeakyRelu"),
    "maximum, then convolution": (pooled_first, "expected the convolution first"),
    "both kinds of pooling": (
        lambda model: (pooled_first(model), swap_pool(model)),
        "expected one kind of pooling",
    ),
    "a BatchNorm in pieces, as Keras exports it": (
        renamed("BatchNormalization", "Mul", 1),
        r"^.*: Mul \(/BatchNorm.*\): expected a BatchNorm, found none.*with Keras",
    ),
    "a quantized network": (renamed("Conv", "QLinearConv"), "it is quantized"),
    "an operator of others": (
        renamed("Conv", "FusedConv", domain="com.microsoft"),
        r"FusedConv of 'com\.microsoft' \(/Conv_0\)",
    ),
    "external data": (external, "external data for onnx::3; .*onnx.save"),
    "functions": (function, "found functions .F.; inline them"),
    "an old opset": (constant("version", 7), "opset 9 or later, found 7"),
    "a computed weight": (computed, "'images', which is computed"),
    "two outputs": (twice, r"one output, found .* 2 \(logits, logits\)"),
    "an inner output": (
        lambda model: setattr(model.graph.output[0], "name", "flatten"),
        "the network's output, found an inner value",
    ),
}


def swap_pool(model):
    """Let the first transition compute its convolution first."""
    pool = node(model, "MaxPool", 1)
    conv = next(each for each in model.graph.node if pool.output[0] in each.input)
    before, between, after = pool.input[0], pool.output[0], conv.output[0]
    conv.input[0], conv.output[0] = before, between
    pool.input[0], pool.output[0] = between, after
    nodes = list(model.graph.node)
    i, j = nodes.index(pool), nodes.index(conv)
    nodes[i], nodes[j] = nodes[j], nodes[i]
    copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


@pytest.mark.parametrize("what", OTHERS)
def test_a_graph_of_another_function_is_refused_and_named(tmp_path, what):
    change, words = OTHERS[what]
    model = exported(checkpoint_of())
    change(model)
    with pytest.raises(dm.WeightsError, match=words) as caught:
        read(tmp_path / "x.onnx", model)
    assert str(caught.value).startswith(f"{tmp_path / 'x.onnx'}: ")


# --- Safety -------------------------------------------------------------------------------------


def written(tmp_path):
    path = tmp_path / "x.onnx"
    formats.write(path, checkpoint_of("plain"))
    return path, path.read_bytes()


@pytest.mark.parametrize("kept", [1, 40, 0.3, 0.9, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path, whole = written(tmp_path)
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else kept])
    with pytest.raises(dm.WeightsError, match=r"truncated.*; download or copy it again"):
        formats.read(path)


def test_damaged_files_are_refused_or_are_another_networks(tmp_path):
    """Whatever byte is changed, the answer is a checkpoint or an error of this package."""
    path, whole = written(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 8)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(formats.read(path), dm.Checkpoint)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017


def test_a_graph_of_a_million_empty_nodes_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "x.onnx"
    nodes = b"\x0a\x00" * (content.MOST_ENTRIES + 1)
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    path.write_bytes(b"\x08\x08\x3a" + length + nodes + b"\x42\x02\x10\x11")
    with pytest.raises(dm.WeightsError, match="more than 1,000,000 entries"):
        formats.read(path, "onnx")


def test_a_large_graph_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path, whole = written(tmp_path)
    monkeypatch.setattr(content, "LARGEST_GRAPH", 1000)
    with pytest.raises(dm.WeightsError, match="at most 1,000 bytes besides the initializers"):
        formats.read(path)
    assert len(whole) > 1000


def test_more_values_than_stored_are_refused(tmp_path):
    path, whole = written(tmp_path)
    model = onnx.ModelProto.FromString(whole)
    model.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(dm.WeightsError, match=r"^.*features\.conv0\.weight: expected as many"):
        read(path, model)


# --- Conversion and commands --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"folded": True}, {"half": True}, {"probabilities": True}])
def test_verify_asks_onnx_runtime(tmp_path, options):
    formats.write(tmp_path / "x.safetensors", checkpoint_of())
    done = conversion.convert(
        tmp_path / "x.safetensors", tmp_path / "x.onnx", verify=True, **options
    )
    assert done["destination_model"].startswith("ONNX Runtime ")
    assert done["verified"]
    limit = TOLERANCES["float16" if "half" in options else "float32"]
    assert done["max_deviation"] <= (limit if "half" in options else 2e-6)


def test_verify_notices_a_file_of_another_function(tmp_path, monkeypatch):
    formats.write(tmp_path / "x.safetensors", checkpoint_of())
    original = formats.module("onnx").write

    def wrong(path, checkpoint, **options):
        weights = checkpoint.weights | {
            "classifier.bias": checkpoint.weights["classifier.bias"] + 1e-3
        }
        return original(path, dm.Checkpoint(checkpoint.spec, weights, checkpoint.usage), **options)

    monkeypatch.setattr(formats.module("onnx"), "write", wrong)
    with pytest.raises(conversion.ConversionError, match="ONNX Runtime"):
        conversion.convert(tmp_path / "x.safetensors", tmp_path / "x.onnx", verify=True)
    assert not (tmp_path / "x.onnx").exists()


def test_a_float64_file_is_verified_with_the_reference_and_the_reason(tmp_path):
    formats.write(tmp_path / "x.safetensors", checkpoint_of(dtype="float64"))
    done = conversion.convert(tmp_path / "x.safetensors", tmp_path / "x.onnx", verify=True)
    assert done["destination_model"].endswith("ONNX Runtime has no float64 convolution on CPUs")
    assert not done["verified"]


def test_a_file_for_one_image_of_a_fixed_size_is_verified_with_the_reference(tmp_path):
    """PyTorch's exporter writes such files by default."""
    model = exported(checkpoint_of())
    for size, dimension in zip(
        (1, 3, 40, 40), model.graph.input[0].type.tensor_type.shape.dim, strict=True
    ):
        dimension.dim_value = size
    onnx.save(model, tmp_path / "x.onnx")
    done = conversion.convert(tmp_path / "x.onnx", tmp_path / "x.safetensors", verify=True)
    assert done["source_model"].startswith("the NumPy reference, because ONNX Runtime cannot ")
    assert "expected height 40, the only one that this ONNX file accepts" in done["source_model"]
    assert not done["verified"]


def test_a_folded_file_needs_onnx_runtime_to_be_verified(tmp_path, monkeypatch):
    formats.write(tmp_path / "x.safetensors", checkpoint_of())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(dm.BackendNotInstalledError, match=r"onnxruntime.*pip install '\.\[onnx\]'"):
        conversion.convert(
            tmp_path / "x.safetensors", tmp_path / "x.onnx", verify=True, folded=True
        )
    done = conversion.convert(tmp_path / "x.safetensors", tmp_path / "x.onnx", verify=True)
    assert done["destination_model"] == "the NumPy reference"


def test_the_command_writes_verifies_and_reads_back(tmp_path):
    formats.write(tmp_path / "x.safetensors", checkpoint_of())
    there = ["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "x.onnx"), "--verify"]
    back = ["convert", str(tmp_path / "x.onnx"), str(tmp_path / "y.safetensors"), "--verify"]
    for command in (there, back, [*there, "--half", "--folded", "--probabilities"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        assert "ONNX Runtime" in done.output
    contents = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "xy"]
    assert contents[0] == contents[1]


def test_the_command_says_how_to_state_an_activation(tmp_path):
    spec = small("plain")
    dm.save_weights(tmp_path / "x.safetensors", spec, as_float32(random_weights(spec)))
    command = ["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "x.onnx")]
    done = CliRunner().invoke(main, [*command, "--probabilities"])
    assert done.exit_code == 2
    assert "--probabilities: expected a stated activation" in done.output
    assert "--activation softmax" in done.output


def test_reading_an_onnx_file_loads_no_runtime(tmp_path):
    path, _ = written(tmp_path)
    code = "import sys; from densenet_multi import formats; formats.read(sys.argv[1]); "
    code += "assert 'onnx' in sys.modules and 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_logits_of_a_file_are_those_of_its_checkpoint(tmp_path):
    checkpoint = checkpoint_of()
    formats.write(tmp_path / "x.onnx", checkpoint, probabilities=True)
    x = images(checkpoint.spec, 40).astype(np.float32)
    found, who, independent = formats.logits(tmp_path / "x.onnx", "onnx", checkpoint, x)
    expected = dm.reference.predict(checkpoint.spec, checkpoint.weights, x)
    assert deviation(found, expected) < 2e-6
    assert independent
    assert who.startswith("ONNX Runtime")
