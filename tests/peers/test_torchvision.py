"""torchvision's and timm's own models; ``nox -s peers-torchvision``."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

import densenet_multi as dm
from cases import images, random_weights
from densenet_multi import formats
from densenet_multi.tasks import convert
from peer import check_answers, same_tensors

SIZES = {"densenet121": (224, 96, 99), "densenet161": (96,), "densenet169": (99,)}
SIZES["densenet201"] = (64,)  # timm and torchvision have the same four
PEERS = {
    "torchvision": lambda variant, classes: getattr(torchvision.models, variant)(
        num_classes=classes
    ),
    "timm": lambda variant, classes: timm.create_model(variant, num_classes=classes),
}


def filled(peer, variant, dtype, classes=1000):
    """A peer's model in which no weight and no statistic is trivial."""
    spec = dm.get_spec(variant, num_classes=classes)
    model = PEERS[peer](variant, classes).to(dtype).eval()
    state = {n: torch.tensor(a, dtype=dtype) for n, a in random_weights(spec).items()}
    counters = {n: t + 7 for n, t in model.state_dict().items() if "num_batches_tracked" in n}
    model.load_state_dict(state | counters, strict=True)
    return spec, model


@pytest.mark.parametrize("variant", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("peer", PEERS)
def test_all_backends_answer_as_the_peer(tmp_path, deviations, peer, dtype, variant):
    spec, model = filled(peer, variant, dtype)
    path = tmp_path / f"{peer}-{variant}.pth"
    torch.save(model.state_dict(), path)
    answers = {}
    for size in SIZES[variant]:
        x = torch.tensor(images(spec, size), dtype=dtype)
        with torch.inference_mode():
            answers[size] = x.numpy(), model(x).numpy()
    name = str(dtype).removeprefix("torch.")
    checkpoint = check_answers(path, spec, answers, deviations, name)

    formats.write(tmp_path / "back.pth", checkpoint)
    again = PEERS[peer](variant, 1000).to(dtype)
    again.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True), strict=True)
    first, second = model.state_dict(), again.state_dict()
    same_tensors({n: t for n, t in first.items() if "tracked" not in n},
                 {n: t for n, t in second.items() if "tracked" not in n})  # fmt: skip


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("classes", [3, 1000])
def test_safetensors_goes_into_the_peer_as_it_is(tmp_path, peer, classes):
    spec, model = filled(peer, "densenet121", torch.float32, classes)
    save_file(model.state_dict(), tmp_path / "theirs.safetensors")
    checkpoint = formats.read(tmp_path / "theirs.safetensors")
    assert checkpoint.spec == spec
    dm.save_weights(tmp_path / "ours.safetensors", spec, checkpoint.weights, checkpoint.usage)
    again = PEERS[peer]("densenet121", classes)
    missing, unexpected = again.load_state_dict(
        load_file(tmp_path / "ours.safetensors"), strict=False
    )
    assert not unexpected
    assert all("num_batches_tracked" in name for name in missing)
    x = torch.tensor(images(spec, 64), dtype=torch.float32)
    with torch.inference_mode():
        np.testing.assert_array_equal(again.eval()(x).numpy(), model(x).numpy())


def test_the_verification_asks_torchvisions_own_model(tmp_path):
    spec, model = filled("torchvision", "densenet121", torch.float32)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    x = images(spec, 64).astype(np.float32)
    answer, who, independent = convert.logits(
        tmp_path / "x.pth", "torchvision", formats.read(tmp_path / "x.pth"), x
    )
    assert (who, independent) == (f"torchvision {torchvision.__version__}", True)
    with torch.inference_mode():
        np.testing.assert_array_equal(answer, model(torch.tensor(x)).numpy())


# --- The doctor ---------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["", "batch_statistics", "bn_epsilon"])
def test_the_doctor_names_what_is_wrong_with_torchvisions_model(convention):
    config = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16}
    spec = dm.get_spec("densenet121", num_classes=10, **config)
    weights = random_weights(spec)
    model = torchvision.models.DenseNet(**config, num_classes=10).eval()
    state = {name: torch.tensor(array) for name, array in weights.items()}
    model.load_state_dict(state, strict=False)
    if convention == "bn_epsilon":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3
    model.train(convention == "batch_statistics")

    def port(x):
        with torch.no_grad():
            return model(torch.from_numpy(x))

    found = dm.diagnose(spec, weights, port)
    assert [each.convention for each in found.findings] == ([convention] if convention else [])
    assert found.same == (not convention)
