"""The ResNet in PyTorch: what the counter counts, trained as ``fit`` trains a DenseNet."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import densenet_multi as dm
from densenet_multi.comparison.rivals.resnet import torch as rival
from densenet_multi.data import epoch_order, load_data
from densenet_multi.exercises import Settings, parameters
from densenet_multi.exercises.resnet import ResNetConfig, layers_of_resnet

LIKE = dm.DenseNetConfig(block_config=(1,), **parameters.SMALL).resolve()
SMALL = [each for each in parameters.TRAINED.values() if isinstance(each, ResNetConfig)]
RECIPE = dm.Recipe(
    epochs=1, batch_size=4, learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2
)


def numbers(count, size=9):
    random = np.random.default_rng(0)
    return random.random((count, 1, size, size), np.float32), random.integers(10, size=count)


@pytest.mark.parametrize("config", [*SMALL, ResNetConfig((3, 1, 2), width=4, **parameters.SMALL)])
def test_it_has_the_parameters_that_the_counter_counts(config):
    network = rival.build(config.blocks, config.width, seed=0)
    layers = [each.parameters for each in layers_of_resnet(config, 28)]
    found = [sum(p.numel() for p in module.parameters()) for module in network.modules()
             if not list(module.children())]  # fmt: skip
    assert sorted(n for n in found if n) == sorted(layers)
    assert sum(p.numel() for p in network.parameters()) == sum(layers)


def test_its_maps_have_the_sizes_that_the_counter_multiplies():
    config = SMALL[0]
    network, work = rival.build(config.blocks, config.width, seed=0), []

    def count(module, _inputs, output):
        area = output.shape[2] * output.shape[3] if output.ndim == 4 else 1
        work.append(module.weight.numel() * area)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(2, 1, 28, 28))
    assert sum(work) == sum(each.multiply_adds for each in layers_of_resnet(config, 28))


def test_a_seed_gives_the_same_weights_and_leaves_pytorchs_own_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = rival.build((1, 1), 4, seed=1)
    assert torch.rand(1) == expected
    same, other = rival.build((1, 1), 4, seed=1), rival.build((1, 1), 4, seed=2)
    assert torch.equal(first.conv1.weight, same.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_it_takes_the_steps_of_the_recipes_rule():
    """By hand: the rule of training/recipe.py, on the batches of ``epoch_order``."""
    images, labels = numbers(8)
    network, expected = (rival.build((1, 1), 4, seed=0) for _ in range(2))
    rival.fit(network, LIKE, (images, labels), RECIPE)
    order = epoch_order(8, RECIPE.seed, 0)
    velocities = {name: torch.zeros_like(p) for name, p in expected.named_parameters()}
    rate, decay, momentum = (
        RECIPE.rounded().learning_rate, RECIPE.rounded().weight_decay, RECIPE.rounded().momentum
    )  # fmt: skip
    for indices in (order[:4], order[4:]):
        loss = cross_entropy(expected(torch.tensor(images[indices])), torch.tensor(labels[indices]))
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(expected.named_parameters(), gradients, strict=True):
                g = gradient + decay * p
                velocities[name] = momentum * velocities[name] + g
                p.sub_(rate * (g + momentum * velocities[name]))
    for (name, p), q in zip(network.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5), name


@pytest.mark.parametrize(
    ("field", "message"),
    [({"bfloat16": True}, "bfloat16: expected False"),
     ({"train_features": False}, "train_features: expected True")],
)  # fmt: skip
def test_what_it_would_ignore_is_refused(field, message):
    network = rival.build((1,), 4, seed=0)
    with pytest.raises(dm.ConfigError, match=message):
        rival.fit(network, LIKE, numbers(8), replace(RECIPE, **field))


def test_its_history_has_the_accuracy_on_the_validation_images():
    images, labels = numbers(12)
    network = rival.build((1,), 4, seed=0)
    recipe = replace(RECIPE, epochs=2, momentum=0, nesterov=False)
    history = rival.fit(network, LIKE, (images, labels), recipe, validation=(images, labels))
    network.eval()
    with torch.inference_mode():
        scores = network(torch.tensor(images))
    expected = (scores.argmax(1).numpy() == labels).mean()
    loss = cross_entropy(scores, torch.tensor(labels)).item()
    assert [epoch.number for epoch in history.epochs] == [1, 2]
    assert history.epochs[-1].validation_accuracy == expected
    assert math.isclose(history.epochs[-1].validation_loss, loss, rel_tol=1e-4)
    assert len(history.steps) == 6


def test_the_exercise_trains_a_pair(monkeypatch):
    sample = load_data("sample", image_size=parameters.TRAINED_SIZE)
    few = SimpleNamespace(train=(sample.train.take(range(8)), sample.train.labels[:8]),
                  test=(sample.test.take(range(4)), sample.test.labels[:4]))  # fmt: skip
    monkeypatch.setattr("densenet_multi.data.load_data", lambda *_, **__: few)
    monkeypatch.setattr(parameters, "RECIPE", replace(parameters.RECIPE, batch_size=4))
    monkeypatch.setitem(parameters.EPOCHS, "sample", 1)
    found = parameters._trained(Settings(data="sample"))
    for each in found.values():
        (run,) = each["runs"]
        assert run["test_accuracy"] in (0, 0.25, 0.5, 0.75, 1)
        assert run["seconds"] > 0
