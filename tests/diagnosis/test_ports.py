"""Ports written by hand in each framework: those of docs/doctor.md, each with a mistake."""

import numpy as np
import pytest

import densenet_multi as dm
from extensions import pages

pytestmark = pytest.mark.backend
MISTAKES = {
    "torch": "batch_statistics",
    "keras": "same_padding",
    "gluon": "concat_order",
    "flax": "pool_padding",
}


# MXNet's nd.array asks whether its argument is one of SciPy's sparse matrices
@pytest.mark.filterwarnings("ignore:Please import .csr_matrix.:DeprecationWarning")
def test_the_mistake_in_a_port_written_by_hand_is_named(backend, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page's step saves its weights
    names: dict[str, object] = {}
    port, asked, mended, step = pages.blocks_of("doctor")[backend.NAME]
    exec(port.code, names)  # noqa: S102  # our own page
    found = dm.diagnose(names["spec"], names["weights"], names["port"])
    assert [finding.convention for finding in found.findings] == [MISTAKES[backend.NAME]]
    assert found.findings[0].remedy[backend.NAME]
    exec(asked.code, names)  # noqa: S102
    exec(mended.code, names)  # noqa: S102
    assert capsys.readouterr().out.endswith("True\n")  # it is the same now
    exec(step.code, names)  # noqa: S102
    assert capsys.readouterr().out.startswith("statistics_frozen: ")


def test_this_backends_own_model_is_right(backend):
    spec = dm.get_spec("d2l", block_config=(1, 1))
    model = backend.build(spec, seed=3)
    weights = backend.export_weights(model)
    found = dm.diagnose(spec, weights, lambda x: backend.predict(model, x))
    assert found.same
    assert found.deviation < 1e-6
    with_maps = dm.diagnose(
        spec,
        weights,
        lambda x: {**backend.features(model, x), "output": backend.predict(model, x)},
    )
    assert with_maps.same
    exact = backend.build(spec, seed=3, dtype="float64")
    asked = dm.diagnose(
        spec, weights, lambda x: backend.predict(exact, np.asarray(x)), dtype="float64"
    )
    assert asked.same
    assert asked.deviation < 1e-13
