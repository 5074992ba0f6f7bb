"""The runtimes that ``bench`` compares with compute the network of the specification."""

import sys

import pytest

import densenet_multi as dm
from cases import images, random_weights, small
from densenet_multi.comparison import bench_child
from densenet_multi.comparison.deviation import deviation

pytestmark = pytest.mark.onnx


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [("onnxruntime", 2e-6), ("openvino", 2e-6), ("bfloat16 openvino", 5e-2)],
)
def test_a_runtime_predicts_what_the_reference_predicts(monkeypatch, case, tolerance):
    spec = small("bottleneck")
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    x = images(spec, 33).astype("f")
    monkeypatch.setattr(bench_child, "init_weights", lambda _: weights)
    predict = bench_child._in_a_runtime({"case": case, "cpus": [0]}, spec)
    found = deviation(predict(x), dm.reference.predict(spec, weights, x))
    assert found < tolerance
    if case.startswith("bfloat16") and bench_child.multiplies_bfloat16():
        assert found > 1e-4  # it is in bfloat16


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_is_absent(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(bench_child.AbsentError, match=f"needs '{name}', which is not installed"):
        bench_child._in_a_runtime({"case": name, "cpus": [0]}, small("bottleneck"))
