"""keras.applications' own models, in all four backends; ``nox -s peers-keras``."""

import numpy as np
import pytest
from tensorflow import keras

import densenet_multi as dm
from cases import images, random_weights
from densenet_multi import formats
from densenet_multi.formats.keras_applications import native_layer
from densenet_multi.formats.keras_files import TO_KERAS
from peers.peer import check_answers

LEAF = {
    "conv.weight": "kernel",
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "moving_mean",
    "norm.running_var": "moving_variance",
    "linear.weight": "kernel",
    "linear.bias": "bias",
}


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def filled(name, size, spec):
    """A model of keras.applications in which no weight and no statistic is trivial."""
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    weights = random_weights(spec)
    for tensor, info in dm.tensors(spec).items():
        variable = getattr(
            model.get_layer(native_layer(tensor.rpartition(".")[0])), LEAF[info.kind]
        )
        variable.assign(weights[tensor].transpose(TO_KERAS[weights[tensor].ndim]))
    return model


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("DenseNet121", (224, 96, 99)), ("DenseNet169", (99,)), ("DenseNet201", (64,))],
)
def test_all_backends_answer_as_keras_applications(tmp_path, deviations, dtype, name, sizes):
    spec = dm.get_spec(name.lower(), bn_eps=1.001e-5, bn_decay=0.99)
    answers = {}
    for size in sizes:
        model = filled(name, size, spec)
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
