"""KerasHub's own models: bit by bit the same weights, and the same function at some sizes only.

``nox -s peers-kerashub`` runs these tests in a separate environment. The models use SAME padding.
"""

from dataclasses import replace

import numpy as np
import pytest
from keras_hub.models import DenseNetBackbone, DenseNetImageClassifier

import densenet_multi as dm
from cases import as_float32, images, random_weights
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats import keras_applications, kerashub
from keras_peer import filled, in_dtype
from peer import check_answers

BLOCKS = (1, 2, 1)
AGREE = {225: True, 65: True, 97: True, 224: False, 96: False, 99: False}  # True: 1 modulo 4


def backbone(blocks=BLOCKS, **overrides):
    return DenseNetBackbone(stackwise_num_repeats=list(blocks), **overrides)


def answer(model, x):
    return np.asarray(model(x.transpose(0, 2, 3, 1), training=False))


def read(path):
    head = path.read_bytes()[:512]
    assert kerashub.looks_like(path, head)
    assert not keras_applications.looks_like(path, head)
    checkpoint = kerashub.read(path)
    assert kerashub.SAME in checkpoint.notes
    return checkpoint


@pytest.fixture
def double():
    with in_dtype("float64"):
        yield


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with in_dtype(request.param) as name:
        yield name


@pytest.mark.parametrize(
    ("blocks", "sizes"),  # KerasHub has no DenseNet-161
    [((6, 12, 24, 16), (225, 97)), ((6, 12, 32, 32), (97,)), ((6, 12, 48, 32), (65,))],
)
def test_all_backends_answer_as_kerashub_at_sizes_that_are_1_modulo_4(
    tmp_path, deviations, dtype, blocks, sizes
):
    spec = dm.get_spec("densenet121", block_config=blocks, bn_eps=1.001e-5, bn_decay=0.99)
    model = filled(DenseNetImageClassifier(backbone(blocks), 1000))
    xs = {size: images(spec, size).astype(dtype) for size in sizes}
    answers = {size: (x, answer(model, x)) for size, x in xs.items()}
    path = tmp_path / "x.weights.h5"
    model.save_weights(path)
    checkpoint = check_answers(path, spec, answers, deviations, dtype)

    formats.write(tmp_path / "back.weights.h5", checkpoint, "kerashub")
    other = filled(DenseNetImageClassifier(backbone(blocks), 1000), seed=1)
    other.load_weights(tmp_path / "back.weights.h5")
    for mine, theirs in zip(other.variables, model.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", AGREE)
def test_the_function_is_the_same_at_sizes_that_are_1_modulo_4_only(tmp_path, size):
    model = filled(DenseNetImageClassifier(backbone(), 5))
    model.save_weights(tmp_path / "x.weights.h5")
    checkpoint = read(tmp_path / "x.weights.h5")
    assert checkpoint.spec == dm.get_spec(
        "densenet121", block_config=BLOCKS, num_classes=5, bn_eps=1.001e-5, bn_decay=0.99
    )
    x = images(checkpoint.spec, size)
    expected = answer(model, x)
    found = {"reference": dm.reference.predict(checkpoint.spec, checkpoint.weights, x)}
    for name in dm.backend_names():
        backend = dm.load_backend(name)
        ours = backend.build(checkpoint.spec, dtype="float64")
        backend.import_weights(ours, checkpoint.weights)
        found[name] = backend.predict(ours, x)
    for name, logits in found.items():
        apart = deviation(logits, expected)
        assert apart < 1e-12 if AGREE[size] else 1e-3 < apart < 1, (name, apart)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
@pytest.mark.parametrize("head", [True, False])
def test_what_is_written_is_loaded_bit_by_bit(tmp_path, ending, head):
    shape = {"growth_rate": 16, "compression_ratio": 0.57, "image_shape": (None, None, 2)}

    def new(seed):
        body = backbone(**shape)
        return filled(DenseNetImageClassifier(body, 3) if head else body, seed)

    model, other, path = new(0), new(1), tmp_path / f"x{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    checkpoint = read(path)
    config = checkpoint.spec.config
    assert (config.growth_rate, config.in_channels, config.num_classes) == (16, 2, 3 * head)
    notes = kerashub.write(tmp_path / "back.weights.h5", checkpoint)
    assert notes == (kerashub.SAME,)
    other.load_weights(tmp_path / "back.weights.h5")
    for mine, theirs in zip(other.variables, model.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("head", [True, False])
def test_a_presets_folder_is_read(tmp_path, head):
    model = filled(DenseNetImageClassifier(backbone(), 3))
    (model if head else model.backbone).save_to_preset(str(tmp_path / "preset"))
    model.save_weights(tmp_path / "x.weights.h5")
    found, expected = kerashub.read(tmp_path / "preset"), read(tmp_path / "x.weights.h5")
    assert found.spec.config.num_classes == 3 * head
    assert len(found.weights) == len(expected.weights) - 2 * (not head)
    for name, array in found.weights.items():
        np.testing.assert_array_equal(array, expected.weights[name])


def test_densenet121_in_full(tmp_path):
    spec = dm.get_spec("densenet121", bn_eps=1.001e-5, bn_decay=0.99)
    weights, path = as_float32(random_weights(spec)), tmp_path / "x.weights.h5"
    kerashub.write(path, dm.Checkpoint(spec, weights))
    model = DenseNetImageClassifier(backbone((6, 12, 24, 16)), 1000)
    model.load_weights(path)
    model.save_weights(tmp_path / "again.weights.h5")
    back = read(tmp_path / "again.weights.h5")
    assert back.spec == spec
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    x = images(spec, 65, count=1).astype(np.float32)
    found, who = kerashub.library_logits(path, back, x)
    assert who.startswith("KerasHub 0.")
    assert deviation(found, dm.reference.predict(spec, weights, x)) < 1e-5


def test_without_a_classifier_the_peer_gives_pooled_features(tmp_path):
    spec = dm.get_spec("densenet121", block_config=BLOCKS, num_classes=0, bn_eps=1.001e-5)
    checkpoint = dm.Checkpoint(spec, random_weights(spec))
    kerashub.write(tmp_path / "x.weights.h5", checkpoint)
    x = images(spec, 65)
    misread = replace(checkpoint, weights={n: 2 * a for n, a in checkpoint.weights.items()})
    # the library reads the file, and ignores these weights
    found, _ = kerashub.library_logits(tmp_path / "x.weights.h5", misread, x)
    assert found.dtype == np.float64
    assert deviation(found, dm.reference.predict(spec, checkpoint.weights, x)) < 1e-12
    cifar = dm.Checkpoint(dm.get_spec("densenet121", stem="cifar"), {})
    with pytest.raises(LookupError):
        kerashub.library_logits(tmp_path / "x", cifar, x)


def test_the_doctor_names_the_padding(tmp_path):
    model = filled(DenseNetImageClassifier(backbone(), 5))
    model.save_weights(tmp_path / "x.weights.h5")
    checkpoint = read(tmp_path / "x.weights.h5")
    found = dm.diagnose(checkpoint.spec, checkpoint.weights, lambda x: model(x, training=False))
    assert {each.convention for each in found.findings} == {"same_padding", "pool_padding"}
