"""``predict`` and ``evaluate`` run an ONNX file in ONNX Runtime, without any framework."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densenet_multi as dm
from cases import images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats._onnx.content import parse
from densenet_multi.formats.onnx_file import QUANTIZED, describe
from densenet_multi.onnx import predict as runtime
from densenet_multi.onnx import to_proto
from densenet_multi.tasks.convert import inspect
from densenet_multi.tasks.evaluate import evaluate
from densenet_multi.tasks.predict import predict

pytestmark = pytest.mark.onnx
TOLERANCE = 2e-6
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
CLASSES += ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture
def checkpoint():
    spec = dm.get_spec("d2l", block_config=(2, 2), num_init_features=8)
    usage = dm.Usage(
        class_names=CLASSES, image_size=28, value_range=(0.0, 1.0), activation="softmax"
    )
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    return dm.Checkpoint(spec, weights, usage)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    "options", [{}, {"folded": True}, {"probabilities": True}, {"folded": True, "half": True}]
)
def test_a_file_answers_as_its_portable_file_does(tmp_path, checkpoint, photo, options):
    path = tmp_path / "net.onnx"
    formats.write(path, checkpoint, **options)
    ((found),) = predict(path, photo)
    x = np.asarray(Image.open(photo), np.float64)[np.newaxis, np.newaxis] / 255
    (logits,) = dm.reference.predict(checkpoint.spec, checkpoint.weights, x)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    first = found["top"][0]
    assert first["class"] == CLASSES[expected.argmax()]
    tolerance = 2e-2 if options.get("half") else 1e-5
    assert first["probability"] == pytest.approx(expected.max(), rel=tolerance)


def test_evaluation_counts_what_the_reference_predicts(tmp_path, checkpoint):
    path = tmp_path / "net.onnx"
    formats.write(path, checkpoint, folded=True, probabilities=True)
    found = evaluate(path, data="sample")
    pixels, labels = dm.data.load_sample("test")
    x = pixels[:, np.newaxis] / 255
    logits = dm.reference.predict(checkpoint.spec, checkpoint.weights, x)
    assert found["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
    assert found["loss"] == pytest.approx(dm.reference.cross_entropy(logits, labels), rel=1e-5)
    assert found["backend"] == "onnxruntime"
    assert list(found["versions"]) == ["onnxruntime"]


def resized(proto, *sides):
    for dimension, side in zip(proto.graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
        dimension.dim_value = side
    return proto


def test_a_file_may_accept_one_batch_size_and_one_image_size():
    spec = small("bottleneck")
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    x = images(spec, 32, count=5).astype("f")
    channels = spec.config.in_channels
    model = runtime.load(resized(to_proto(spec, weights), 2, channels, 32, 32), spec)
    expected = dm.reference.predict(spec, weights, x)
    assert deviation(runtime.predict(model, x), expected) < TOLERANCE
    with pytest.raises(dm.ConfigError, match=r"expected width 32.* found 40; pass image_size=32"):
        runtime.predict(model, np.zeros((1, channels, 32, 40)))


def test_a_file_may_expect_the_channels_last():
    spec = small("bottleneck")
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    proto = to_proto(spec, weights)
    turn = type(proto.graph.node[0])(op_type="Transpose", input=["images"], output=["nchw"])
    turn.attribute.add(name="perm", ints=[0, 3, 1, 2], type=7)
    proto.graph.node[0].input[0] = "nchw"
    proto.graph.node.insert(0, turn)
    sides = proto.graph.input[0].type.tensor_type.shape
    shape = [sides.dim[i] for i in (0, 2, 3, 1)]
    turned = type(sides)(dim=shape)
    sides.CopyFrom(turned)
    x = images(spec, 33).astype("f")
    model = runtime.load(proto, spec)
    assert model.channels_last
    expected = dm.reference.predict(spec, weights, x)
    assert deviation(runtime.predict(model, x), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (predict, {"backend_name": "torch"}),
        (predict, {"device": "gpu"}),
        (predict, {"heatmap": "map.png"}),
        (evaluate, {"backend_name": "torch"}),
        (evaluate, {"bfloat16": True}),
        (evaluate, {"recalibrate": 1}),
    ],
)
def test_what_onnx_runtime_cannot_do_is_refused_by_name(tmp_path, checkpoint, photo, call, given):
    path = tmp_path / "net.onnx"
    formats.write(path, checkpoint)
    (name,) = given
    about = [photo] if call is predict else []
    more = {} if call is predict else {"data": "sample"}
    with pytest.raises(dm.ConfigError, match=f"^{name}: expected a portable file, .* an ONNX"):
        call(path, *about, **given, **more)
    assert not (tmp_path / "map.png").exists()


def test_float64_is_refused_because_onnx_runtime_cannot_convolve_it(tmp_path, checkpoint, photo):
    path = tmp_path / "net.onnx"
    weights = {name: array.astype("d") for name, array in checkpoint.weights.items()}
    formats.write(path, replace(checkpoint, weights=weights))
    with pytest.raises(dm.ConfigError, match=r"net\.onnx: .*no float64 convolution"):
        predict(path, photo)


def test_a_file_that_was_quantized_is_evaluated(tmp_path, checkpoint):
    script = Path(__file__).parents[2] / "docs" / "results" / "scripts" / "int8.py"
    described = importlib.util.spec_from_file_location("int8", script)
    int8 = importlib.util.module_from_spec(described)
    described.loader.exec_module(int8)
    paths = [tmp_path / "float32.onnx", tmp_path / "int8.onnx"]
    formats.write(paths[0], checkpoint, folded=True, probabilities=True)
    pixels, _ = dm.data.load_sample("train")
    shown = (pixels[:64, np.newaxis] / 255).astype("f")
    int8.quantize(*paths, iter([shown]))
    assert paths[1].stat().st_size < paths[0].stat().st_size
    answers = []
    for path in paths:
        model = runtime.load(parse(path), describe(path).spec)
        answers.append(runtime.predict(model, shown))
    assert 1e-4 < deviation(answers[1], answers[0]) < 0.1  # 8 bits
    assert evaluate(paths[1], data="sample")["examples"] == 1000
    with pytest.raises(dm.WeightsError, match="it is quantized"):
        formats.read(paths[1])
    found = inspect(paths[1])
    assert (found["dtype"], found["notes"]) == (None, [QUANTIZED])


def test_another_file_is_refused_by_name_and_a_changed_header_too(tmp_path, checkpoint, photo):
    path = tmp_path / "net.onnx"
    formats.write(path, checkpoint, folded=True)
    proto = parse(path)
    proto.graph.initializer[0].dims[0] = 1
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(dm.WeightsError, match=r"net\.onnx: "):
        predict(path, photo)


def test_a_damaged_file_with_this_name_is_not_taken_for_another_format(tmp_path, photo):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x80\x04 a pickle")
    for call in (lambda: predict(path, photo), lambda: evaluate(path, data="sample")):
        with pytest.raises(dm.WeightsError, match=r"net\.onnx: expected an ONNX network"):
            call()


def test_other_classes_are_learned_from_a_portable_file(tmp_path):
    spec = small("plain", num_classes=3)
    path = tmp_path / "net.onnx"
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    formats.write(path, dm.Checkpoint(spec, weights))
    with pytest.raises(dm.ConfigError) as caught:
        evaluate(path, data="sample")
    first = f"convert({str(path)!r}, 'NEW.safetensors') and then train(weights='NEW.safetensors'"
    assert first in str(caught.value)


def test_without_onnx_runtime_the_message_says_how_to_install_it(
    tmp_path, checkpoint, photo, monkeypatch
):
    path = tmp_path / "net.onnx"
    formats.write(path, checkpoint)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(dm.BackendNotInstalledError, match=r"pip install '\.\[onnx\]'"):
        predict(path, photo)
