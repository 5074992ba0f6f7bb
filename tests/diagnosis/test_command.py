"""``densenet-multi doctor``: exit codes, JSON, and wrong inputs."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from cases import images, random_weights, small
from densenet_multi.commands import main

PORT = """
import densenet_multi as dm
spec, weights = dm.load_weights({path!r})

def right(images):
    return dm.reference.predict(spec, weights, images).astype("f")

def reversed_channels(images):
    return right(images[:, ::-1])

def broken(images):
    raise RuntimeError("not today")

number = 3
"""


@pytest.fixture
def port(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = small("bottleneck")
    weights = {name: array.astype("f") for name, array in random_weights(spec).items()}
    dm.save_weights("net.safetensors", spec, weights)
    (tmp_path / "port.py").write_text(PORT.format(path=str(tmp_path / "net.safetensors")))
    return spec, weights


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", "net.safetensors", *arguments])


@pytest.mark.usefixtures("port")
def test_a_port_that_is_right_exits_with_0():
    done = run("--model", "port.py:right")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("the same up to rounding: deviation ")
    assert "called with: 2 images of 68x68, NCHW, float32" in done.stdout


@pytest.mark.usefixtures("port")
def test_a_broken_convention_exits_with_1_and_is_in_the_json():
    done = run("--model", "port:reversed_channels", "--format", "json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    (finding,) = found["findings"]
    assert finding["convention"] == "channels_reversed"
    assert finding["stage"] == "input"
    assert finding["after"] < 1e-6 < found["tolerance"] < finding["before"] == found["deviation"]
    assert finding["remedy"].keys() == {""}
    assert found["unexplained"] is None
    human = run("--model", "port.py:reversed_channels")
    assert human.exit_code == 1
    assert "input: channels_reversed" in human.stdout


def test_saved_outputs_are_enough(port):
    spec, weights = port
    x = images(spec, 44).astype("f")
    logits = dm.reference.predict(spec, weights, x[:, ::-1])
    np.savez("port.npz", inputs=x, logits=logits.astype("f"))
    done = run("--outputs", "port.npz", "--format", "json")
    assert [f["convention"] for f in json.loads(done.stdout)["findings"]] == ["channels_reversed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: expected one of --model, --outputs and --step, found none"),
        (["--model", "port.py"], "--model: expected MODULE:CALLABLE"),
        (["--model", "absent.py:right"], "--model: expected a Python file, found none"),
        (["--model", "absent_module:right"], "expected a module 'absent_module', found none"),
        (["--model", "port.py:wrong"], "--model: expected a function 'wrong' in port.py"),
        (["--model", "port.py:number"], "--model: expected a function 'number' in port.py"),
        (["--model", "port.py:broken"], "RuntimeError: not today"),
        (["--outputs", "port.py"], "--outputs: expected a file of numpy.savez"),
        (["--outputs", "other.npz"], "--outputs: expected arrays named inputs and logits"),
        (["--outputs", "pickled.npz"], "--outputs: expected a file of numpy.savez"),
    ],
)
@pytest.mark.usefixtures("port")
def test_wrong_inputs_are_refused_by_name(arguments, message):
    np.savez("other.npz", x=np.zeros(3))
    np.savez("pickled.npz", inputs=np.array([{}]), logits=np.zeros(3))
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
