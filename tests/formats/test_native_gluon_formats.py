"""The Gluon zoo's models and MXNet's reader agree with what this package reads and writes."""

import numpy as np
import pytest

import densenet_multi as dm
import densenet_multi.gluon as dg  # before mxnet, which it makes importable with current NumPy

import mxnet as mx  # isort: skip
from mxnet import gluon
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision

from cases import SMALL as SMALL_SPECS
from cases import images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats.gluon_zoo import structural_names
from densenet_multi.tasks import convert

SMALL = {"num_init_features": 8, "growth_rate": 4, "block_config": (1, 2, 1, 1)}


def zoo(seed=0, dtype="float32", **overrides):
    """Return an initialized model of the zoo, its spec, and random canonical weights for it."""
    given = {**SMALL, **overrides}
    spec = dm.get_spec("densenet121", num_classes=7, **given)
    with mx.name.NameManager():
        model = vision.DenseNet(*given.values(), classes=7)
    model.cast(dtype)
    model.initialize()
    weights = {n: a.astype(dtype) for n, a in random_weights(spec, seed).items()}
    return model, spec, weights


def fill(model, spec, weights):
    model(mx.nd.zeros((1, 3, 224, 224), dtype=weights["classifier.bias"].dtype))  # creates them
    parameters = model._collect_params_with_prefix()
    for name, structural in structural_names(spec).items():
        array = np.ascontiguousarray(weights[name])
        parameters[structural].set_data(mx.nd.from_numpy(array, zero_copy=False))
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("prefixed", [False, True])
def test_files_of_the_zoo_are_read_bit_by_bit(tmp_path, dtype, prefixed):
    model, spec, weights = zoo(dtype=dtype)
    fill(model, spec, weights)
    path = tmp_path / "x.params"
    model.collect_params().save(str(path)) if prefixed else model.save_parameters(str(path))
    back = formats.read(path)
    assert back.spec == spec
    assert back.notes == ()  # the zoo's settings are known
    for name, array in weights.items():
        assert back.weights[name].dtype == dtype
        np.testing.assert_array_equal(back.weights[name], array)


def test_the_zoo_loads_what_is_written_and_answers_the_same(tmp_path):
    model, spec, weights = zoo(dtype="float64")
    formats.write(tmp_path / "x.params", dm.Checkpoint(spec, weights))
    model.load_parameters(str(tmp_path / "x.params"))
    model.save_parameters(str(tmp_path / "again.params"))
    assert (tmp_path / "again.params").read_bytes() == (tmp_path / "x.params").read_bytes()
    x = images(spec, 224)
    answer = model(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()
    assert deviation(answer, dm.reference.predict(spec, weights, x)) < 1e-13
    ours = dg.build(spec, dtype="float64")
    dg.import_weights(ours, formats.read(tmp_path / "x.params").weights)
    assert deviation(dg.predict(ours, x), answer) < 1e-13


def test_an_exported_model_is_read_too(tmp_path):
    model, spec, weights = zoo()
    fill(model, spec, weights)
    model.hybridize()
    model(mx.nd.zeros((1, 3, 224, 224)))
    model.export(str(tmp_path / "m"))
    back = formats.read(tmp_path / "m-0000.params")
    assert "arg: and aux:" in back.notes[0]
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)


class Layers(gluon.Block):
    """A dense block as the chapter nests it: each layer's output is appended to its input."""

    def __init__(self, count, growth):
        super().__init__()
        self.net = nn.Sequential()
        for _ in range(count):
            self.net.add(unit(growth, 3))

    def forward(self, x):
        for layer in self.net:
            x = mx.nd.concat(x, layer(x), dim=1)
        return x


def unit(out, kernel):
    made = nn.Sequential()
    made.add(nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(out, kernel, padding=kernel // 2))
    return made


def readers_network(spec, activation=None):
    """Build ``spec`` as a reader of the chapter does, with random parameters in float64."""
    network = nn.Sequential()
    network.add(nn.Conv2D(spec.config.num_init_features, 7, 2, 3), nn.BatchNorm())
    network.add(activation or nn.Activation("relu"), nn.MaxPool2D(3, 2, 1))
    for block, transition in spec.stages:
        network.add(Layers(len(block.layers), spec.config.growth_rate))
        if transition:
            network.add(unit(transition.conv.out_channels, 1))
            network[-1].add(nn.AvgPool2D(2, 2))
    network.add(nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(7))
    network.cast("float64")
    network.initialize()
    network(mx.nd.zeros((1, 1, 33, 33), dtype="float64"))
    rng = np.random.default_rng(3)
    for parameter in network.collect_params().values():
        drawn = rng.uniform(0.5, 1.5, parameter.shape)
        if len(parameter.shape) > 1:
            drawn = (drawn - 1) * np.sqrt(6 / np.prod(parameter.shape[1:]))
        parameter.set_data(mx.nd.from_numpy(drawn, zero_copy=False))
    return network


@pytest.mark.parametrize("numbered", [False, True])
def test_a_readers_network_answers_as_what_is_read_of_it(tmp_path, numbered):
    spec = small("plain with bias")
    network = readers_network(spec)
    path = str(tmp_path / "net.params")
    network.collect_params().save(path) if numbered else network.save_parameters(path)
    read = formats.read(path)
    assert read.spec.config == spec.config
    x = images(spec, 34)
    expected = network(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13
    assert "assumed" in " ".join(read.notes)


@pytest.mark.parametrize("numbered", [False, True])
def test_a_readers_other_activation_is_not_left_out(tmp_path, numbered):
    network = readers_network(small("plain with bias"), nn.PReLU())
    path = str(tmp_path / "net.params")
    network.collect_params().save(path) if numbered else network.save_parameters(path)
    with pytest.raises(dm.WeightsError, match=r"alpha: (unexpected|expected only the chapter's)"):
        formats.read(path)


@pytest.mark.parametrize("kind", SMALL_SPECS)
@pytest.mark.parametrize("way", ["save_parameters", "collect_params", "export"])
def test_this_packages_models_are_read_back(tmp_path, kind, way):
    spec = small(kind, bn_eps=1e-5, bn_decay=0.9)
    weights = {name: a.astype(np.float32) for name, a in random_weights(spec).items()}
    _, model = dg.DenseNet(spec), dg.DenseNet(spec)  # the second one's numbering continues
    model.initialize()
    dg.import_weights(model, weights)
    if way == "save_parameters":
        model.save_parameters(str(tmp_path / "m-0000.params"))
    elif way == "collect_params":
        model.collect_params().save(str(tmp_path / "m-0000.params"))
    else:
        model.hybridize()
        model(mx.nd.zeros((1, spec.config.in_channels, 33, 33)))
        model.export(str(tmp_path / "m"))
    back = formats.read(tmp_path / "m-0000.params")
    assert dm.tensors(back.spec) == dm.tensors(spec)
    assert "zoo" not in back.usage.source
    told = [note for note in back.notes if "an epsilon of 1e-05, a decay of 0.9, " in note]
    assert len(told) == 1
    assert "average pooling" in told[0]
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)


def test_peer_logits_are_the_zoos_own(tmp_path):
    _, spec, weights = zoo()
    checkpoint, path = dm.Checkpoint(spec, weights), tmp_path / "x.params"
    formats.write(path, checkpoint)
    x = images(spec, 224).astype(np.float32)
    answer, who, _ = convert.logits(path, "gluon", checkpoint, x)
    assert "Gluon zoo of MXNet 1.9.1" in who
    assert deviation(answer, dm.reference.predict(spec, weights, x)) < 1e-5
    _, who, _ = convert.logits(path, "gluon", checkpoint, images(spec, 65).astype(np.float32))
    assert who == "densenet_multi.gluon"  # the zoo's pooling window is fixed


@pytest.mark.parametrize("prefixed", [False, True])
def test_the_zoo_reads_the_file_itself_and_not_what_was_read_here(tmp_path, prefixed):
    model, spec, weights = zoo()
    fill(model, spec, weights)
    path = tmp_path / "x.params"
    model.collect_params().save(str(path)) if prefixed else model.save_parameters(str(path))
    misread = dm.Checkpoint(spec, {name: array * 0.9 for name, array in weights.items()})
    x = images(spec, 224).astype(np.float32)
    answer, who, _ = convert.logits(path, "gluon", misread, x)
    assert "Gluon zoo" in who
    assert deviation(answer, dm.reference.predict(spec, weights, x)) < 1e-5
