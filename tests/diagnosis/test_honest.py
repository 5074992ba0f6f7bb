"""What the doctor says about ports that cannot be judged, or only in part."""

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi import reference
from densenet_multi.commands import main
from densenet_multi.diagnosis import diagnose, diagnose_outputs

SPEC = small("bottleneck")
WEIGHTS = random_weights(SPEC)


def port(x, dtype=np.float32):
    if x.shape[1] != SPEC.config.in_channels:
        raise ValueError("NHWC")
    return reference.predict(SPEC, WEIGHTS, x).astype(dtype)


def with_maps(x):
    found = reference.forward(SPEC, WEIGHTS, x)
    return {**found.stages, "output": found.logits}


def test_outputs_that_are_not_finite_are_said_at_once():
    trials = []

    def infinite(x):
        return np.full_like(port(x), np.nan)

    found = diagnose(SPEC, WEIGHTS, infinite, advance=trials.append)
    assert not found.findings
    assert not trials
    assert found.unexplained.startswith("the port returns NaN or infinity in output: in 8 of 8")
    assert "a port that exchanges mean and variance of the BatchNorms does" in found.unexplained


def test_images_of_one_value_are_refused():
    for value in (0.0, 0.5):
        x = np.full((2, SPEC.config.in_channels, 40, 40), value)
        with pytest.raises(dm.ImageError, match=f"inputs: expected images, found {value:g} in eve"):
            diagnose_outputs(SPEC, WEIGHTS, x, {"logits": port(x)})


def test_a_float32_port_that_is_asked_in_float64_is_compared_in_float32():
    found = diagnose(SPEC, WEIGHTS, port, dtype="float64")
    assert found.same
    assert found.tolerance == 1e-5
    assert "the port read float64, but its outputs are float32" in found.notes[0]
    exact = diagnose(SPEC, WEIGHTS, lambda x: port(x, np.float64), dtype="float64")
    assert exact.tolerance == 1e-11


def test_what_changes_nothing_is_not_said_to_be_rounding():
    fresh = dm.init_weights(SPEC)
    found = diagnose(SPEC, fresh, lambda x: reference.predict(SPEC, fresh, x).astype("f"))
    exchanged = [note for note in found.notes if "exchanges mean and variance" in note]
    assert exchanged == [] or "in nothing, with these weights at this image size" in exchanged[0]
    assert any("in nothing, with these weights at this image size" in note for note in found.notes)


def test_every_call_is_listed_once_and_a_port_of_one_size_is_noted():
    assert diagnose(SPEC, WEIGHTS, port).asked == (
        "2 images of 68x68, NCHW, float32 (twice)",
        "2 images of 65x65, NCHW, float32",
    )

    def of_one_size(x):
        if x.shape[2] != 96:
            raise ValueError(f"expected 96 pixels, found {x.shape[2]}")
        return port(x)

    found = diagnose(SPEC, WEIGHTS, of_one_size)
    assert found.same
    assert "other image sizes than 96x96, which the port refuses" in found.notes[0]


def test_a_map_of_another_shape_is_named_with_both_shapes():
    def cropped(x):
        found = with_maps(x)
        found["denseblock2"] = found["denseblock2"][:, :, :-1]
        return found

    found = diagnose(SPEC, WEIGHTS, cropped, most=1)
    assert "that denseblock2 has the shape (2, " in found.unexplained
    assert "instead of (2, " in found.unexplained


def test_maps_may_have_their_channels_last_whatever_the_images_have():
    def last(x):
        found = with_maps(x)
        return {n: m.transpose(0, 2, 3, 1) if m.ndim == 4 else m for n, m in found.items()}

    assert diagnose(SPEC, WEIGHTS, last).same


def test_a_map_of_other_channels_is_refused():
    x = np.random.default_rng(0).random((2, SPEC.config.in_channels, 40, 40))
    for wrong, message in (
        (np.zeros((2, 99, 10, 10)), r"outputs: expected maps of \d+ channels for stem, found"),
        (np.zeros((2, 99)), r"outputs: expected maps \(N, C, H, W\) for stem, found \(2, 99\)"),
    ):
        with pytest.raises(dm.ImageError, match=message):
            diagnose_outputs(SPEC, WEIGHTS, x, {"stem": wrong, "logits": port(x)})


def test_an_error_in_the_port_has_its_line():
    def broken(_):
        raise SystemExit("no license")

    with pytest.raises(dm.ImageError, match=r"SystemExit: no license \(line \d+ of .*honest\.py\)"):
        diagnose(SPEC, WEIGHTS, broken)


def test_a_usage_of_other_channels_is_refused():
    usage = dm.Usage(mean=[0.5], std=[0.5])
    with pytest.raises(dm.ConfigError, match=r"^mean: expected \d values for this network"):
        diagnose(SPEC, WEIGHTS, port, usage=usage)


def test_no_convention_at_all_cannot_be_looked_for():
    with pytest.raises(dm.ConfigError, match=r"^most: expected"):
        diagnose(SPEC, WEIGHTS, port, most=0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def port(x:\n", "--model: expected Python, found "),
        ("import nothing_of_this_name", "found no module 'nothing_of_this_name', which it imports"),
        ("raise SystemExit(3)", "found SystemExit: 3 (line 1 of "),
        ("1 / 0", "found ZeroDivisionError: division by zero (line 1 of "),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_message(tmp_path, monkeypatch, code, message):
    monkeypatch.chdir(tmp_path)
    dm.save_weights("net.safetensors", SPEC, {n: a.astype("f") for n, a in WEIGHTS.items()})
    (tmp_path / "its_port.py").write_text(code)
    for model in ("its_port.py:port", "its_port:port"):
        done = CliRunner().invoke(main, ["doctor", "net.safetensors", "--model", model])
        assert done.exit_code == 2, done.output
        assert message in done.stderr
        assert done.stdout == ""


def test_a_map_alone_that_differs_is_not_said_of_the_logits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dm.save_weights("net.safetensors", SPEC, {n: a.astype("f") for n, a in WEIGHTS.items()})
    x = np.random.default_rng(0).random((2, SPEC.config.in_channels, 40, 40), np.float32)
    found = with_maps(x)
    np.savez("port.npz", inputs=x, **found | {"norm5": found["norm5"].clip(0)})
    done = CliRunner().invoke(main, ["doctor", "net.safetensors", "--outputs", "port.npz"])
    assert done.exit_code == 1
    assert done.stdout.startswith("the logits are the same up to rounding, a map is not")
    assert "norm5: features_after_relu" in done.stdout
