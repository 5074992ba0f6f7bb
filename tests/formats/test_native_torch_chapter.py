"""The chapter's network as a reader of the book saves it in PyTorch, and this package's own."""

import numpy as np
import pytest
import torch
from torch import nn

import densenet_multi as dm
import densenet_multi.torch as dt
from cases import as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats._chapter import chapter_names
from densenet_multi.formats.recognize import checkpoint_of

SPEC = small("plain with bias")


class Layers(nn.Module):
    """A dense block as the chapter nests it: each layer's output is appended to its input."""

    def __init__(self, count, width, growth):
        super().__init__()
        self.net = nn.Sequential(*(unit(width + i * growth, growth, 3) for i in range(count)))

    def forward(self, x):
        for layer in self.net:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def unit(width, out, kernel):
    conv = nn.Conv2d(width, out, kernel, padding=kernel // 2)
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv)


def readers_network(edition):
    """Build the network of ``SPEC`` from the modules of an edition."""
    stem = SPEC.stem.conv0
    first = nn.Sequential(
        nn.Conv2d(stem.in_channels, stem.out_channels, 7, 2, 3),
        nn.BatchNorm2d(stem.out_channels),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    )
    parts = {"0": first}
    for i, (block, transition) in enumerate(SPEC.stages, 1):
        growth = SPEC.config.growth_rate
        parts[f"dense_blk{i}"] = Layers(len(block.layers), block.in_channels, growth)
        if transition:
            conv = transition.conv
            parts[f"tran_blk{i}"] = unit(conv.in_channels, conv.out_channels, 1)
            parts[f"tran_blk{i}"].append(nn.AvgPool2d(2, 2))
    width, classes = SPEC.classifier.in_features, SPEC.classifier.out_features
    last = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    last.append(nn.Linear(width, classes))
    if edition == 1:
        return nn.Sequential(*parts.values(), *last).double().eval()
    network = nn.Module()
    network.net = nn.Sequential()
    for name, part in parts.items():
        network.net.add_module(name, part)
    network.net.add_module("last", nn.Sequential(*last))
    network.forward = network.net.forward
    return network.double().eval()


@pytest.mark.parametrize("edition", [1, 2])
def test_a_readers_network_answers_as_what_is_read_of_it(edition):
    network = readers_network(edition)
    rng = np.random.default_rng(edition)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():  # no scale of 1, no shift of 0, no negative variance
                tensor.copy_(torch.from_numpy(rng.uniform(0.3, 1.3, tensor.shape) / 2))
                tensor.sub_(0.3 * (tensor.ndim > 1 or name.endswith("bias")))
    state = {n: t.numpy() for n, t in network.state_dict().items() if t.is_floating_point()}
    found = chapter_names({name: array.shape for name, array in state.items()})
    read = checkpoint_of({c: state[n] for n, c in found.items()}, "unbiased", "a reader's")
    x = images(SPEC, 33)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13


MODULES = {  # {reader's change: (the chapter's class, its replacement, fields or error)}
    "maxima": (nn.AvgPool2d, lambda _: nn.MaxPool2d(2, 2), {"transition_pool": "max"}),
    "global maximum": (
        nn.AdaptiveAvgPool2d,
        lambda _: nn.AdaptiveMaxPool2d((1, 1)),
        {"global_pool": "max"},
    ),
    "epsilon": (nn.BatchNorm2d, lambda old: setattr(old, "eps", 0.1) or old, {"bn_eps": 0.1}),
    "LeakyReLU": (nn.ReLU, lambda _: nn.LeakyReLU(), "expected ReLU, found LeakyReLU"),
    "no ReLU": (nn.ReLU, lambda _: nn.Identity(), "expected ReLU, found Identity"),
    "no pooling": (nn.MaxPool2d, lambda _: nn.Identity(), "expected MaxPool2d, found Identity"),
    "none between": (nn.AvgPool2d, lambda _: nn.Identity(), "expected AvgPool2d or MaxPool2d, f"),
    "padding": (nn.MaxPool2d, lambda _: nn.MaxPool2d(3, 2), "expected padding 1, found 0"),
}


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_a_readers_whole_network_are_read_or_refused(tmp_path, name, edition):
    network = readers_network(edition)
    if edition == 2:
        del network.forward  # which cannot be pickled
    kind, another, expected = MODULES[name]
    for parent in list(network.modules()):
        for key, module in list(parent.named_children()):
            if isinstance(module, kind):
                parent.add_module(key, another(module))
    torch.save(network, tmp_path / "x.pt")
    if isinstance(expected, str):
        with pytest.raises(dm.WeightsError, match=expected):
            formats.read(tmp_path / "x.pt")
        return
    found, x = formats.read(tmp_path / "x.pt"), images(SPEC, 65)
    for field, value in expected.items():
        assert getattr(found.spec.config, field) == value
    with torch.inference_mode():
        logits = (network.net if edition == 2 else network)(torch.from_numpy(x)).numpy()
    assert deviation(dm.reference.predict(found.spec, found.weights, x), logits) < 1e-13


def test_a_state_dict_of_this_package_is_imported_with_its_counters(tmp_path):
    spec = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)
    weights = as_float32(random_weights(spec))
    model = dt.build(spec)
    dt.import_weights(model, weights)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert any("num_batches_tracked" in name for name in state)
    other = dt.build(spec, seed=7)
    dt.import_weights(other, state)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    for found in (dt.export_weights(other), formats.read(tmp_path / "own.pth").weights):
        for name, array in weights.items():
            np.testing.assert_array_equal(found[name], array)
