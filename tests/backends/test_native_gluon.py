"""The Gluon model is an ordinary HybridBlock."""

import gc
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import densenet_multi as dm
import densenet_multi.gluon as dg  # before mxnet, which it makes importable with a current NumPy

import mxnet as mx  # isort: skip
from cases import images, labels, random_weights, small, tiny
from densenet_multi.gluon.faster import for_training
from densenet_multi.gluon.layers import max_pool
from densenet_multi.gluon.weights import to_native
from densenet_multi.spec import PoolSpec

COPIES = """
import os
import numpy as np
import densenet_multi.gluon as dg
import mxnet as mx
a = mx.nd.ones((1000, 1000))
mx.nd.dot(a, a).wait_to_read()
before = len(os.listdir("/proc/self/task"))
mx.nd.from_numpy(np.ones((1000, 1000)), zero_copy=False).asnumpy()
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process' threads")
def test_copies_start_no_threads_unless_configured():
    found = []
    for size in ({}, {"MXNET_CPU_PARALLEL_SIZE": "1000"}):
        environment = {k: v for k, v in os.environ.items() if k != "MXNET_CPU_PARALLEL_SIZE"}
        environment |= {"OMP_NUM_THREADS": "2", **size}
        done = subprocess.run(
            [sys.executable, "-c", COPIES],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(int(done.stdout))
    assert found == [0, 1]


@pytest.mark.parametrize("static", [False, True])
def test_hybridized_prediction_is_the_imperative_one(static):
    spec = small("bottleneck")
    model, x = dg.build(spec), images(spec, 32)
    expected = dg.predict(model, x)
    model.hybridize(static_alloc=static, static_shape=static)
    for size in (32, 37):  # the first size compiles, the second differs
        assert dg.predict(model, images(spec, size)).shape == (2, 4)
    np.testing.assert_allclose(dg.predict(model, x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", [True, "max"])
@pytest.mark.parametrize("frozen", ["(conv|norm)0", "((conv|norm)0|denseblock1)", "norm1"])
def test_a_memory_efficient_network_may_be_frozen_in_part(level, frozen):
    spec = small("bottleneck")
    x, y = images(spec, 32), labels(spec)
    found = []
    for efficient in (False, level):
        model = dg.build(spec, dtype="float64", memory_efficient=efficient)
        for name, parameter in model._collect_params_with_prefix().items():
            if re.search(frozen, name):
                parameter.grad_req = "null"
        found.append(dg.loss_and_gradients(model, x, y)[1])
    expected, gradients = found
    assert gradients.keys() == expected.keys() < dg.export_weights(model).keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-14)


def test_accumulated_gradients_are_refused_in_a_memory_efficient_network():
    spec = small("bottleneck")
    model = dg.build(spec, memory_efficient=True)
    model.collect_params().setattr("grad_req", "add")
    with (
        pytest.raises(dm.ConfigError, match="expected grad_req 'write' or 'null', found 'add'"),
        mx.autograd.record(),
    ):
        model(to_native(images(spec, 32).astype(np.float32)))


@pytest.mark.parametrize(("growth_rate", "aligned"), [(32, True), (16, True), (12, False)])
def test_a_concatenation_has_its_slice_where_onednn_would_fail(growth_rate, aligned):
    model = dg.build(dm.get_spec("d2l", growth_rate=growth_rate, block_config=(2, 2)))
    expected = dg.predict(model, images(model.spec, 32))
    for_training(model)
    outputs = model(mx.sym.var("data")).get_internals().list_outputs()
    assert any("slice" in name for name in outputs) != aligned
    np.testing.assert_array_equal(dg.predict(model, images(model.spec, 32)), expected)


@pytest.mark.parametrize("level", [True, "max"])
def test_a_memory_efficient_step_leaves_nothing_behind(level):
    spec = small("bottleneck")
    model = dg.build(spec, memory_efficient=level)
    x, y = images(spec, 32, count=31), labels(spec, 31)
    for _ in range(2):
        dg.loss_and_gradients(model, x, y)
    gc.collect()
    arrays = [each for each in gc.get_objects() if issubclass(type(each), mx.nd.NDArray)]
    assert arrays  # the weights
    assert not [array.shape for array in arrays if array.shape[:1] == (31,)]


def test_a_second_backward_pass_of_a_memory_efficient_network_is_refused(capfd):
    spec = small("bottleneck")
    model = dg.build(spec, memory_efficient=True)
    with mx.autograd.record():
        total = model(to_native(images(spec, 32).astype(np.float32))).sum()
    total.backward(retain_graph=True)
    with pytest.raises(mx.base.MXNetError):
        total.backward(), mx.nd.waitall()
    assert "expected one backward pass, found a second" in capfd.readouterr().out


@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_hybridized_gradients_are_the_imperative_ones(static, memory_efficient):
    spec = small("bottleneck", bn_decay=0.875)
    plain = dg.build(spec, dtype="float64")
    hybrid = dg.build(spec, dtype="float64", memory_efficient=memory_efficient)
    for model in (plain, hybrid):
        dg.import_weights(model, random_weights(spec))
    hybrid.hybridize(static_alloc=static, static_shape=static)
    x, y = images(spec, 32), labels(spec)
    loss, gradients = dg.loss_and_gradients(plain, x, y)
    hybrid_loss, hybrid_gradients = dg.loss_and_gradients(hybrid, x, y)
    assert abs(loss - hybrid_loss) < 1e-13
    for name, expected in gradients.items():
        np.testing.assert_allclose(hybrid_gradients[name], expected, rtol=1e-9, atol=1e-13)
    after = dg.export_weights(hybrid)
    for name, expected in dg.export_weights(plain).items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-12)


@pytest.mark.parametrize(("stem_width", "growth_rate"), [(24, 12), (48, 24), (16, 8), (80, 40)])
def test_hybridized_float32_training_runs_at_the_papers_widths(stem_width, growth_rate):
    # oneDNN's gradient of a concatenation would fail here on some processors: see gluon/layers.py
    spec = dm.DenseNetConfig(
        num_init_features=stem_width, growth_rate=growth_rate, block_config=(2, 2), stem="cifar"
    ).resolve()
    model = dg.build(spec)
    model.hybridize()
    _, gradients = dg.loss_and_gradients(model, images(spec, 16, count=4), labels(spec, 4))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_every_concatenation_is_sliced_as_the_papers_widths_need_on_some_processors():
    model = dg.build(small("bottleneck"))
    nodes = json.loads(model(mx.sym.var("data")).tojson())["nodes"]
    readers = [
        node["op"] for node in nodes for number, *_ in node["inputs"]
        if nodes[number]["op"] == "Concat"
    ]  # fmt: skip
    assert set(readers) == {"slice_axis"}
    layers = sum(len(block.layers) for block, _ in model.spec.stages)
    assert len(readers) == layers


# SymbolBlock.imports queries the type of an input that has none yet
@pytest.mark.filterwarnings("ignore:Cannot decide type for the following arguments:UserWarning")
def test_exports_and_imports_as_a_symbol(tmp_path):
    spec = small("plain with bias")
    model, x = dg.build(spec), images(spec, 32)
    expected = dg.predict(model, x)
    model.hybridize()
    dg.predict(model, x)
    path = str(tmp_path / "model")
    model.export(path)
    loaded = mx.gluon.SymbolBlock.imports(f"{path}-symbol.json", ["data"], f"{path}-0000.params")
    actual = loaded(mx.nd.from_numpy(x.astype(np.float32), zero_copy=False)).asnumpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_saves_and_loads_parameters_by_structure(tmp_path):
    spec = small("plain with bias")
    first, second = dg.build(spec, seed=1), dg.DenseNet(spec)
    path = str(tmp_path / "model.params")
    first.save_parameters(path)
    second.load_parameters(path)
    x = images(spec, 32)
    np.testing.assert_array_equal(dg.predict(second, x), dg.predict(first, x))
    assert "features.denseblock1.denselayer1.conv1.weight" in first._collect_params_with_prefix()


def test_parameter_names_do_not_depend_on_models_built_before():
    spec = small("plain")
    names = [list(dg.build(spec).collect_params()) for _ in range(2)]
    assert names[0] == names[1]


def test_numpy_bool_exists_because_mxnet_reads_it():
    assert "bool" in np.__dict__
    ones = mx.nd.from_numpy(np.ones((2, 2), np.float32), zero_copy=False)
    assert (ones.asnumpy() > 0).dtype == np.__dict__["bool"]


def test_prediction_is_in_evaluation_mode_also_while_the_caller_records():
    spec = small("bottleneck", drop_rate=0.5)
    model, x = dg.build(spec), images(spec, 32)
    expected, maps = dg.predict(model, x), dg.features(model, x)
    with mx.autograd.record():
        np.testing.assert_array_equal(dg.predict(model, x), expected)
        for stage, array in dg.features(model, x).items():
            np.testing.assert_array_equal(array, maps[stage])


def test_a_step_leaves_the_parameters_own_gradients_alone():
    spec = small("plain")
    model, x, y = dg.build(spec), images(spec, 8), labels(spec)
    expected = dg.loss_and_gradients(model, x, y)[1]
    model.collect_params().setattr("grad_req", "add")
    model.collect_params().zero_grad()
    for _ in range(2):
        for name, gradient in dg.loss_and_gradients(model, x, y)[1].items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert not model.classifier.weight.grad().asnumpy().any()


def test_frozen_parameters_count_but_have_no_gradient():
    spec = small("plain")
    model = dg.build(spec)
    model.features.conv0.weight.grad_req = "null"
    assert dg.count_parameters(model) == dm.count_parameters(spec)
    _, gradients = dg.loss_and_gradients(model, images(spec, 8), labels(spec))
    assert set(dm.tensors(spec)) - set(gradients) == {"features.conv0.weight"} | {
        name for name in dm.tensors(spec) if "running" in name
    }
    model.collect_params().setattr("grad_req", "null")
    loss, gradients = dg.loss_and_gradients(model, images(spec, 8), labels(spec))
    assert loss > 0
    assert not gradients


def test_an_uninitialized_model_says_what_to_type():
    spec = small("plain")
    model = dg.DenseNet(spec)
    assert dg.count_parameters(model) == dm.count_parameters(spec)
    for use in (
        lambda: dg.predict(model, images(spec, 8)),
        lambda: dg.import_weights(model, dm.init_weights(spec)),
    ):
        with pytest.raises(dm.BackendError, match=r"call model\.initialize\(\) first"):
            use()


@pytest.mark.parametrize("function", ["predict", "features"])
def test_threads_that_predict_first_build_one_graph_after_the_other(function, monkeypatch):
    model = dg.optimize(dg.build(tiny()))
    x, build = images(model.spec, 32), mx.gluon.HybridBlock._build_cache
    expected = dg.predict(dg.optimize(dg.build(tiny())), x)
    building, most = [], []

    def slowly(block, *args):
        building.append(block)
        most.append(len(building))
        time.sleep(0.02)
        build(block, *args)
        building.remove(block)

    monkeypatch.setattr(mx.gluon.HybridBlock, "_build_cache", slowly)
    barrier = Barrier(2)

    def call(_):
        barrier.wait()
        getattr(dg, function)(model, x)
        return dg.predict(model, x)

    with ThreadPoolExecutor(2) as pool:
        for logits in pool.map(call, range(2)):
            np.testing.assert_array_equal(logits, expected)
    assert max(most) == 1


def test_of_equal_maxima_one_receives_the_gradient():
    x = mx.nd.zeros((1, 1, 4, 4))
    x.attach_grad()
    with mx.autograd.record():
        y = max_pool(PoolSpec(2, 2, 0))(x)
    y.backward()
    gradient = x.grad.asnumpy()
    np.testing.assert_array_equal(gradient.reshape(2, 2, 2, 2).sum(axis=(1, 3)), np.ones((2, 2)))
    assert np.count_nonzero(gradient) == 4
