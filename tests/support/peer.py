"""The checks that all peers share: their files are read, and run in all four backends."""

import numpy as np

import densenet_multi as dm
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation


def check_answers(path, spec, answers, deviations, dtype):
    """Check that every backend, with the weights of the peer's file, gives the peer's answers.

    ``answers`` is {image size: (images, the peer's logits)}.
    """
    checkpoint = formats.read(path)
    assert checkpoint.spec == spec
    for name in dm.backend_names():
        backend = dm.load_backend(name)
        model = backend.build(spec, dtype=dtype)
        backend.import_weights(model, checkpoint.weights)
        for size, (x, expected) in answers.items():
            value = deviation(backend.predict(model, x), expected)
            deviations.check(f"peer {dtype}", name, value, f"{path.name} at {size}x{size}")
    return checkpoint


def same_tensors(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(second[name]), err_msg=name)
