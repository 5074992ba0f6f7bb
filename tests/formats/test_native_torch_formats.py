"""PyTorch's own files: what a .pth may hold, and that nothing in one is ever run."""

import io
import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import formats

SPEC = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)


@pytest.fixture
def weights():
    return as_float32(random_weights(SPEC))


def state_dict(weights):
    return {name: torch.tensor(array) for name, array in weights.items()}


def same(path, weights):
    back = formats.read(path)
    assert list(back.weights) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    return back


def test_a_pth_file_goes_there_and_back_and_loads_strictly(tmp_path, weights):
    import densenet_multi.torch as dt

    path = tmp_path / "x.pth"
    formats.write(path, dm.Checkpoint(SPEC, weights))
    assert formats.guess(path) == "torchvision"
    same(path, weights)
    model = dt.DenseNet(SPEC)
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    for name, array in dt.export_weights(model).items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("around", [None, "state_dict", "model"])
def test_old_files_and_training_checkpoints_are_read(tmp_path, weights, legacy, around):
    state = {f"module.{name}": tensor for name, tensor in state_dict(weights).items()}
    saved = {around: state, "epoch": 3, "optimizer": {"lr": 0.1}} if around else state
    path = tmp_path / "x.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    assert formats.guess(path) == "torchvision"
    notes = " ".join(same(path, weights).notes)
    assert f"the prefix {(f'{around}.' if around else '') + 'module.'!r} was taken off" in notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read_without_loss(tmp_path, weights, dtype):
    state = {name: tensor.to(dtype) for name, tensor in state_dict(weights).items()}
    torch.save(state, tmp_path / "x.pth")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    same(tmp_path / "x.pth", {n: t.to(wide).numpy() for n, t in state.items()})


def test_the_content_decides_and_not_the_name(tmp_path, weights):
    torch.save(state_dict(weights), tmp_path / "x.safetensors")
    same(tmp_path / "x.safetensors", weights)


def test_of_weights_and_their_average_the_weights_are_read_and_that_is_told(tmp_path, weights):
    average = {name: tensor + 1 for name, tensor in state_dict(weights).items()}
    torch.save({"state_dict_ema": average, "state_dict": state_dict(weights)}, tmp_path / "x.pth")
    notes = " ".join(same(tmp_path / "x.pth", weights).notes)
    assert "the entry 'state_dict_ema', an average of these weights, was left out" in notes


def test_few_numbers_that_look_like_many_take_no_memory(tmp_path, weights):
    state = state_dict(weights)
    width = weights["classifier.weight"].shape[1]
    state["classifier.weight"] = torch.zeros(1).expand(10**9, width)
    state["classifier.bias"] = torch.zeros(1).expand(10**9)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(dm.WeightsError, match="expected tensors that fit in the file together"):
        formats.read(tmp_path / "x.pth")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")  # noqa: PTH110
def test_a_full_disk_is_an_oserror(tmp_path, weights):
    (tmp_path / "x.pth").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"x\.pth: could not be written"):
        formats.write(tmp_path / "x.pth", dm.Checkpoint(SPEC, weights))


def test_views_and_transposed_tensors_are_read_as_they_look(tmp_path, weights):
    state = state_dict(weights)
    name = "features.conv0.weight"
    state[name] = state[name].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    state["classifier.bias"] = torch.cat([state["classifier.bias"]] * 2)[:4]
    torch.save(state, tmp_path / "x.pth")
    same(tmp_path / "x.pth", weights)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("where", ["alone", "nested", "legacy", "bare pickle"])
def test_code_in_a_pickle_never_runs_and_the_tensors_beside_it_are_read(tmp_path, weights, where):
    trap, path = str(tmp_path / "trap"), tmp_path / "x.pth"
    attack = {"state_dict": state_dict(weights), "more": Attack(trap)}
    if where == "bare pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        saved = Attack(trap) if where == "alone" else attack
        torch.save(saved, path, _use_new_zipfile_serialization=where != "legacy")
    if where == "alone":
        with pytest.raises(dm.WeightsError, match="expected a DenseNet's tensors"):
            formats.read(path, "torchvision")
    else:
        same(path, weights)
    assert not os.path.exists(trap)  # noqa: PTH110  # as the attack would have made it
    pickle.loads(pickle.dumps(Attack(trap)))  # noqa: S301  # the trap itself works
    assert os.path.exists(trap)  # noqa: PTH110


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.zeros(3), "expected a DenseNet's tensors"),
        ([1, 2], "expected a DenseNet's tensors"),
        ({}, "expected a DenseNet's tensors"),
        ({"layer1.0.conv1.weight": torch.zeros(3, 3, 3, 3)}, "expected a DenseNet's tensors"),
    ],
)
def test_another_content_is_refused_by_what_it_is(tmp_path, saved, message):
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(tmp_path / "x.pth")


def test_a_sparse_or_quantized_tensor_is_refused_by_name(tmp_path, weights):
    state = state_dict(weights)
    state["classifier.weight"] = state["classifier.weight"].to_sparse()
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(dm.WeightsError, match=r"classifier\.weight: expected a dense tensor"):
        formats.read(tmp_path / "x.pth")


def test_three_hundred_damaged_files_are_refused_or_read(tmp_path, weights):
    buffer = io.BytesIO()
    torch.save(state_dict(weights), buffer)
    content, path = buffer.getvalue(), tmp_path / "x.pth"
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(300):
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            for at in rng.integers(len(damaged), size=8):
                damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with suppress(dm.WeightsError, dm.ConfigError):
            formats.read(path, "torchvision")
            refused -= 1
        refused += 1
    assert refused > 100
