"""The MXNet Gluon zoo's own models, at 224 only, as their last pooling has a fixed size.

``nox -s peers-gluon``
"""

import numpy as np
import pytest

import densenet_multi as dm
from cases import images, random_weights
from densenet_multi import formats
from densenet_multi.formats.gluon_zoo import structural_names
from peer import check_answers

dm.load_backend("gluon")  # before mxnet: it makes mxnet importable on current NumPys
import mxnet as mx  # noqa: E402
from mxnet.gluon.model_zoo import vision  # noqa: E402


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        ("densenet121", "float64"),
        ("densenet121", "float32"),
        ("densenet161", "float32"),
        ("densenet169", "float32"),
        ("densenet201", "float32"),
    ],
)
def test_all_backends_answer_as_the_zoo(tmp_path, deviations, variant, dtype):
    spec = dm.get_spec(variant)
    model = getattr(vision, variant)()
    model.cast(dtype)
    model.initialize()
    model(mx.nd.zeros((1, 3, 224, 224), dtype=dtype))  # allocates the parameters
    parameters = model._collect_params_with_prefix()
    weights = random_weights(spec)
    for name, structural in structural_names(spec).items():
        array = np.ascontiguousarray(weights[name], dtype)
        parameters[structural].set_data(mx.nd.from_numpy(array, zero_copy=False))
    path = tmp_path / f"zoo-{variant}.params"
    model.save_parameters(str(path))
    x = images(spec, 224).astype(dtype)
    expected = model(mx.nd.from_numpy(x, zero_copy=False)).asnumpy()
    checkpoint = check_answers(path, spec, {224: (x, expected)}, deviations, dtype)

    formats.write(tmp_path / "back.params", checkpoint)
    assert (tmp_path / "back.params").read_bytes() == path.read_bytes()
    model.load_parameters(str(tmp_path / "back.params"))
