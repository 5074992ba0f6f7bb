"""The Gluon zoo's own models and MXNet's own reader agree with what is read and written here."""

import numpy as np
import pytest

import densenet_multi as dm
import densenet_multi.gluon as dg  # before mxnet: it makes mxnet importable on current NumPys

import mxnet as mx  # isort: skip
from mxnet.gluon.model_zoo import vision

from cases import images, random_weights
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats.gluon_zoo import structural_names
from densenet_multi.tasks import convert

SMALL = {"num_init_features": 8, "growth_rate": 4, "block_config": (1, 2, 1, 1)}


def zoo(seed=0, dtype="float32", **overrides):
    """A model of the zoo in which nothing is trivial, and its canonical weights."""
    given = {**SMALL, **overrides}
    spec = dm.get_spec("densenet121", num_classes=7, **given)
    with mx.name.NameManager():
        model = vision.DenseNet(*given.values(), classes=7)
    model.cast(dtype)
    model.initialize()
    weights = {n: a.astype(dtype) for n, a in random_weights(spec, seed).items()}
    return model, spec, weights


def fill(model, spec, weights):
    model(mx.nd.zeros((1, 3, 224, 224), dtype=weights["classifier.bias"].dtype))  # makes parameters
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


def test_peer_logits_are_the_zoos_own(tmp_path):
    _, spec, weights = zoo()
    checkpoint, path = dm.Checkpoint(spec, weights), tmp_path / "x.params"
    formats.write(path, checkpoint)
    x = images(spec, 224).astype(np.float32)
    answer, who = convert.logits(path, "gluon", checkpoint, x)
    assert "Gluon zoo of MXNet 1.9.1" in who
    assert deviation(answer, dm.reference.predict(spec, weights, x)) < 1e-5
    _, who = convert.logits(path, "gluon", checkpoint, images(spec, 65).astype(np.float32))
    assert who == "densenet_multi.gluon"  # the zoo's pooling is fixed


@pytest.mark.parametrize("prefixed", [False, True])
def test_the_zoo_reads_the_file_itself_and_not_what_was_read_here(tmp_path, prefixed):
    model, spec, weights = zoo()
    fill(model, spec, weights)
    path = tmp_path / "x.params"
    model.collect_params().save(str(path)) if prefixed else model.save_parameters(str(path))
    misread = dm.Checkpoint(spec, {name: array * 0.9 for name, array in weights.items()})
    x = images(spec, 224).astype(np.float32)
    answer, who = convert.logits(path, "gluon", misread, x)
    assert "Gluon zoo" in who
    assert deviation(answer, dm.reference.predict(spec, weights, x)) < 1e-5
