"""Programs that PyTorch saved: the error names them and prints Python that saves the weights."""

import shlex
import shutil
import subprocess

import numpy as np
import pytest
import torch

import densenet_multi as dm
import densenet_multi.torch as dt
from cases import as_float32, random_weights, small
from densenet_multi import formats

SPEC = small("bottleneck", bn_eps=1e-5)
IMAGES = torch.zeros(1, SPEC.config.in_channels, 32, 32)


@pytest.fixture
def weights():
    return as_float32(random_weights(SPEC))


@pytest.fixture
def model(weights):
    model = dt.build(SPEC).eval()
    dt.import_weights(model, weights)
    return model


def same(path, weights):
    back = formats.read(path).weights
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array)


def printed_line(path) -> str:
    with pytest.raises(dm.WeightsError) as caught:
        formats.read(path)
    assert caught.value.args[0].startswith(f"{path}: expected a DenseNet checkpoint, found a ")
    return str(caught.value).split("type in Python: ")[1]


@pytest.mark.filterwarnings("ignore")
def test_the_line_that_is_printed_takes_the_weights_out_of_torchscript(
    tmp_path, monkeypatch, model, weights
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my 'best' net.pt"
    torch.jit.trace(model, IMAGES).save(str(path))
    line = printed_line(path)
    assert "torch.jit.load" in line
    exec(line, {"torch": torch})  # noqa: S102  # it was printed
    same("NEW.pth", weights)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_line_that_is_printed_takes_the_weights_out_of_an_exported_program(
    tmp_path, monkeypatch, model, weights
):
    monkeypatch.chdir(tmp_path)
    torch.export.save(torch.export.export(model, (IMAGES,)), "net.pt2")
    line = printed_line(tmp_path / "net.pt2")
    assert "torch.export.load" in line
    exec(line, {"torch": torch})  # noqa: S102  # it was printed
    same("NEW.pth", weights)


def test_a_file_of_torch_save_that_was_unpacked_can_be_packed_again(tmp_path, model, weights):
    torch.save(model.state_dict(), tmp_path / "x.pth")
    shutil.unpack_archive(tmp_path / "x.pth", tmp_path / "my folder", "zip")
    (folder,) = (tmp_path / "my folder").iterdir()
    with pytest.raises(dm.WeightsError, match="a PyTorch file that was unpacked") as caught:
        formats.read(folder)
    command = str(caught.value).split("; type: ")[1]
    assert shlex.split(command)[:3] == ["cd", str(folder.parent), "&&"]
    if shutil.which("zip"):  # not on every system
        subprocess.run(command, shell=True, check=True)  # noqa: S602  # it was printed
        same(folder.parent / "NEW.pth", weights)
