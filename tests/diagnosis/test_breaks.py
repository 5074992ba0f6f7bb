"""Breaks of the backends' own code (support/mutants.py) that are conventions: all are named.

The doctor does not know the switches here: a line of a backend is changed in a copy of the package,
and the backend is asked from outside, first for logits, then for a step of training.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mutants import MUTANTS, PACKAGE

SUPPORT = Path(__file__).parents[1] / "support"
NAMED = {  # promise of the break -> what the doctor must name
    "the stem is padded by 3 on every side, not SAME": "same_padding",
    "the stem is padded by 3 on every side, not SAME (Flax)": "same_padding",
    "epsilon is 1e-5, not 1.001e-5": "bn_epsilon",
    "epsilon is not Keras' default of 1e-3": "bn_epsilon",
    "a ReLU follows the stem's BatchNorm": "relu_missing",
    "a ReLU precedes the transition's convolution": "relu_missing",
    "a transition uses max pooling if the spec says so": "max_pool",
    "max pooling follows a transition's convolution": "pool_order",
    "the final pooling is a global maximum if the spec says so": "global_pool",
    "old channels come first": "concat_order",
    "kernels are transposed, even if all sizes are equal (OIHW read as HWIO)": "kernel_reshaped",
    "height and width are not exchanged": "kernel_transposed",
    "an odd row and column are dropped by the transition's pooling": "pool_rounding",
    "the stem's max pooling is padded": "pool_padding",
    "prediction runs in evaluation mode": "batch_statistics",
    "decay is the weight of the old value (PyTorch's momentum is its complement)": "bn_momentum",
    "decay is the weight of the old value (Gluon)": "bn_momentum",
    "the step runs in training mode": "statistics_frozen",
    "a step updates the running statistics": "statistics_frozen",
    "the loss is a mean over the batch": "loss_sum",
}
INVISIBLE = {  # conventions that neither logits nor one step can show, and why
    "weight decay comes before the momentum": "the velocity is 0 before the first step",
    "the learning rate is outside the velocity": "the velocity is 0 before the first step",
    "the learning rate follows the recipe's milestones": "one step has one rate",
    "dropout is applied": "the network that is asked has none",
    "dropout uses the spec's rate": "the network that is asked has none",
}
NETWORKS = {  # promise -> the network in which the break shows
    "a transition uses max pooling if the spec says so": {"transition_pool": "max"},
    "max pooling follows a transition's convolution": {"transition_pool": "max"},
    "the final pooling is a global maximum if the spec says so": {"global_pool": "max"},
    "kernels are transposed, even if all sizes are equal (OIHW read as HWIO)": {
        "growth_rate": 3,
        "num_init_features": 3,
        "block_config": (1,),
        "stem": "cifar",
        "bn_size": None,
        "in_channels": 3,
    },
}
BREAKS = {mutant.promise: mutant for mutant in MUTANTS}
CODE = """
import sys
import densenet_multi as dm
from cases import random_weights
from densenet_multi.comparison.suspects import suspect_in_evaluation, suspect_in_training

name, changed = sys.argv[1], eval(sys.argv[2])
backend = dm.load_backend(name)
config = {"block_config": (2, 1), "growth_rate": 4, "num_init_features": 6, "bn_eps": 1e-5}
spec = dm.DenseNetConfig(**{**config, "in_channels": 2, "num_classes": 5, **changed}).resolve()
weights = random_weights(spec)
found = suspect_in_evaluation(backend, spec, weights)
print("FOUND", found or suspect_in_training(backend, spec, weights))
"""


@pytest.mark.parametrize("promise", [*NAMED, *INVISIBLE])
def test_a_listed_break_exists(promise):
    assert promise in BREAKS


def answer(promise, tmp_path):
    """What the doctor says about a backend that is broken like this."""
    break_ = BREAKS[promise]
    name = break_.file.split("/")[0]
    copy = tmp_path / "densenet_multi"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = break_.source(copy)
    text = path.read_text("utf-8")
    assert text.count(break_.old) == 1
    path.write_text(text.replace(break_.old, break_.new), "utf-8")
    folders = os.pathsep.join([str(tmp_path), str(SUPPORT)])
    changed = repr(NETWORKS.get(promise, {}))
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE, name, changed],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    return line.removeprefix("FOUND").strip()


@pytest.mark.long
@pytest.mark.backend
@pytest.mark.parametrize("promise", NAMED)
def test_the_doctor_names_a_break_of_a_backend(backend, promise, tmp_path):
    if not BREAKS[promise].file.startswith(f"{backend.NAME}/"):
        pytest.skip("a break of another backend")
    found = answer(promise, tmp_path)
    assert found.startswith(f"{NAMED[promise]} in "), found


@pytest.mark.long
@pytest.mark.backend
@pytest.mark.parametrize("promise", INVISIBLE)
def test_what_one_step_cannot_show_is_not_blamed_on_anything(backend, promise, tmp_path):
    if not BREAKS[promise].file.startswith(f"{backend.NAME}/"):
        pytest.skip("a break of another backend")
    assert answer(promise, tmp_path) == ""
