"""keras.applications' own models, in all four backends; ``nox -s peers-keras``."""

import numpy as np
import pytest
from tensorflow import keras

import densenet_multi as dm
from cases import images
from densenet_multi import formats
from keras_peer import filled, in_dtype
from peer import check_answers


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with in_dtype(request.param) as name:
        yield name


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("DenseNet121", (224, 96, 99)), ("DenseNet169", (99,)), ("DenseNet201", (64,))],
)
def test_all_backends_answer_as_keras_applications(tmp_path, deviations, dtype, name, sizes):
    spec = dm.get_spec(name.lower(), bn_eps=1.001e-5, bn_decay=0.99)
    answers = {}
    for size in sizes:
        build = getattr(keras.applications, name)
        shape = (size, size, 3)
        model = filled(build(weights=None, input_shape=shape, classifier_activation=None))
        x = images(spec, size).astype(dtype)
        answers[size] = x, model(x.transpose(0, 2, 3, 1), training=False).numpy()
    path = tmp_path / f"{name}.weights.h5"
    model.save_weights(path)
    checkpoint = check_answers(path, spec, answers, deviations, dtype)

    formats.write(tmp_path / "back.weights.h5", checkpoint)
    before = [np.array(variable) for variable in model.variables]
    for variable in model.variables:
        variable.assign(np.ones(variable.shape))
    model.load_weights(tmp_path / "back.weights.h5")
    for variable, expected in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), expected, err_msg=variable.path)


@pytest.mark.parametrize("convention", ["", "value_range", "softmax_output"])
def test_the_doctor_names_what_is_wrong_with_keras_applications(tmp_path, convention):
    """``value_range``: the network gets pixels from 0 to 255, without ``preprocess_input``."""
    activation = "softmax" if convention == "softmax_output" else None
    model = filled(keras.applications.DenseNet121(weights=None, classifier_activation=activation))
    model.save_weights(tmp_path / "x.weights.h5")
    checkpoint = formats.read(tmp_path / "x.weights.h5")
    usage = checkpoint.usage
    assert usage.mean == pytest.approx((0.485, 0.456, 0.406))

    def port(x):
        if x.shape[-1] != 3:
            raise ValueError("expected NHWC")
        pixels = 255 * (x * np.float32(usage.std) + np.float32(usage.mean))
        mended = keras.applications.densenet.preprocess_input(pixels.copy())
        return model(pixels if convention == "value_range" else mended, training=False)

    found = dm.diagnose(checkpoint.spec, checkpoint.weights, port, usage=usage, most=1)
    assert [each.convention for each in found.findings] == ([convention] if convention else [])
    assert found.same == (not convention)
