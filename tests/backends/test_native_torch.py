"""The PyTorch model is an ordinary nn.Module, with torchvision's keys."""

import copy
import hashlib
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import densenet_multi as dm
import densenet_multi.torch as dt
from cases import images, labels, random_weights, small, tiny
from densenet_multi.comparison.deviation import deviation
from densenet_multi.spec import PoolSpec
from densenet_multi.torch.faster import _memory as memory
from densenet_multi.torch.faster import _packed as packed
from densenet_multi.torch.faster import inference
from densenet_multi.torch.layers import max_pool

# sha256 of "\n".join(torchvision.models.densenet121().state_dict()), torchvision 0.29.1
TORCHVISION_KEYS = "366ea3ff24f18b7cc9996c31900a69ed5d2966aadbf7f96b444bce8a1825123e"


def test_state_dict_has_exactly_torchvisions_keys_in_its_order():
    keys = list(dt.DenseNet(dm.get_spec("densenet121")).state_dict())
    assert sum("num_batches_tracked" in key for key in keys) == 121
    assert hashlib.sha256("\n".join(keys).encode()).hexdigest() == TORCHVISION_KEYS


def test_state_dict_loads_strictly_into_another_model():
    spec = small("bottleneck")
    first, second = dt.build(spec, seed=1), dt.DenseNet(spec)
    second.load_state_dict(first.state_dict(), strict=True)
    x = images(spec, 32)
    np.testing.assert_array_equal(dt.predict(first, x), dt.predict(second, x))


def test_an_optimized_model_loads_and_copies_and_compiles():
    spec = small("bottleneck")
    first, second = (dt.optimize(dt.build(spec, seed=seed)) for seed in (1, 2))
    x = images(spec, 32)
    expected = dt.predict(first, x)
    assert not np.array_equal(dt.predict(second, x), expected)
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(dt.predict(second, x), expected)
    np.testing.assert_array_equal(dt.predict(copy.deepcopy(second), x), expected)
    third = dt.optimize(dt.build(spec, seed=3))
    third.classifier.load_state_dict(first.classifier.state_dict())
    third.features.load_state_dict(first.features.state_dict())
    np.testing.assert_array_equal(dt.predict(third, x), expected)
    second.compile(backend="aot_eager")
    np.testing.assert_allclose(dt.predict(second, x), expected, rtol=1e-5, atol=1e-6)


def test_an_optimized_model_is_as_exact_in_another_dtype():
    spec = small("bottleneck")
    plain, x = dt.build(spec), images(spec, 32)
    optimized = dt.optimize(plain).double()
    assert deviation(dt.predict(optimized, x), dt.predict(plain.double(), x)) < 1e-6
    expected = dm.reference.forward(optimized.spec, dt.export_weights(optimized), x).logits
    assert deviation(dt.predict(optimized, x), expected) < 1e-13


def test_an_optimized_model_has_gradients_of_its_input():
    spec = small("bottleneck")
    model = dt.build(spec, dtype="float64")
    dt.import_weights(model, random_weights(spec))
    found = []
    for network in (model.eval(), dt.optimize(model)):
        x = torch.tensor(images(spec, 32), requires_grad=True)
        network(x).square().sum().backward()
        found.append(x.grad.numpy())
    assert deviation(found[1], found[0]) < 1e-12


@pytest.mark.parametrize("bfloat16", [False, True])
def test_reordered_kernels_compute_what_pytorchs_own_convolution_computes(monkeypatch, bfloat16):
    spec = small("bottleneck")
    model = dt.build(spec)
    dt.import_weights(model, {n: a.astype("f") for n, a in random_weights(spec).items()})
    optimized, x = dt.optimize(model, bfloat16=bfloat16), images(spec, 33).astype(np.float32)
    assert packed.is_usable(torch.zeros(1), optimized.features.conv0.weight)
    found = dt.predict(optimized, x)
    convolutions = [m for m in optimized.modules() if isinstance(m, inference.InferenceConv)]
    assert optimized.features.conv0.packed.kernel.layout == torch._mkldnn
    with monkeypatch.context() as patched:
        patched.setattr(packed, "CONVOLVE", None)  # as in a PyTorch without it
        expected = dt.predict(optimized, x)
    kernels = [array for array in dt.export_weights(model).values() if array.ndim == 4]
    assert len(convolutions) == len(kernels)
    assert deviation(found, expected) < (2e-2 if bfloat16 else 1e-6)
    again = pickle.loads(pickle.dumps(optimized))  # noqa: S301  # our own
    np.testing.assert_array_equal(dt.predict(again, x), found)


def test_a_kernel_that_has_changed_is_reordered_again():
    spec = small("bottleneck")
    optimized, x = dt.optimize(dt.build(spec)), images(spec, 32).astype(np.float32)
    before = dt.features(optimized, x)["denseblock1"]
    with torch.no_grad():
        optimized.features.denseblock1.denselayer1.conv2.weight.mul_(2)
    after = dt.features(optimized, x)["denseblock1"]
    start = spec.stages[0][0].layers[0].norm1.num_features
    new = slice(start, start + spec.config.growth_rate)
    np.testing.assert_array_equal(after[:, new], 2 * before[:, new])


def test_maps_that_are_held_elsewhere_are_not_overwritten(monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST", 0)
    spec = small("bottleneck")
    optimized = dt.optimize(dt.build(spec))
    first, second = images(spec, 32).astype(np.float32), images(spec, 32, seed=1).astype(np.float32)
    block, held = optimized.features.denseblock1, []
    hook = block.register_forward_hook(lambda _module, _inputs, maps: held.append(maps[:, :3]))
    predicted = dt.predict(optimized, first)
    stages = dt.features(optimized, first)
    expected = {name: array.copy() for name, array in stages.items()}
    hooked = held[0].clone()
    for _ in range(3):
        dt.predict(optimized, second)
    for name, array in stages.items():
        np.testing.assert_array_equal(array, expected[name])
    np.testing.assert_array_equal(held[0], hooked)
    np.testing.assert_array_equal(hooked, expected["denseblock1"][:, :3])
    np.testing.assert_array_equal(dt.predict(optimized, first), predicted)
    hook.remove()
    del stages, held[:], array
    free = block.memory.free
    assert free  # nobody holds these any more
    before = set(free)
    dt.predict(optimized, second)
    assert set(free) == before  # the same blocks were used again, and no other
    assert copy.deepcopy(optimized).features.denseblock1.memory.free == {}


def test_threads_that_share_an_optimized_model_share_no_maps(monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST", 0)
    spec = small("bottleneck")
    optimized = dt.optimize(dt.build(spec))
    inputs = [images(spec, 32, seed=seed).astype(np.float32) for seed in range(4)]
    expected = [dt.predict(optimized, x) for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            for found, alone in zip(
                threads.map(partial(dt.predict, optimized), inputs), expected, strict=True
            ):
                np.testing.assert_array_equal(found, alone)


def test_prediction_and_gradients_leave_mode_and_grad_alone():
    spec = small("bottleneck")
    model = dt.build(spec)
    for training in (True, False):
        model.train(training)
        dt.predict(model, images(spec, 32))
        dt.loss_and_gradients(model, images(spec, 32), [0, 1])
        assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("optimized", [False, True])
def test_many_images_are_predicted_a_few_at_a_time(monkeypatch, optimized):
    spec = small("bottleneck")
    model = dt.build(spec, dtype="float64")
    dt.import_weights(model, random_weights(spec))
    model = dt.optimize(model) if optimized else model
    x = images(spec, 32, count=5)
    expected, counts = dt.predict(model, x), []
    model.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    dt.predict(model, x)
    largest = max(np.prod(shape) for _, shape in dm.shape_trace(spec, 32, 32))
    monkeypatch.setattr(
        import_module("densenet_multi.torch.predict"), "KEPT", int(2.5 * 8 * largest)
    )
    assert deviation(dt.predict(model, x), expected) < 1e-14
    monkeypatch.setattr(import_module("densenet_multi.torch.predict"), "KEPT", 1)
    dt.predict(model, x[:2])
    assert counts == [5, 2, 2, 1, 1, 1]


def test_to_moves_dtype_and_memory_format():
    spec = small("bottleneck")
    model = dt.build(spec)
    x = images(spec, 32)
    expected = dt.predict(model, x)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    np.testing.assert_allclose(dt.predict(channels_last, x), expected, rtol=1e-4, atol=1e-6)
    double = copy.deepcopy(model).to(torch.float64)
    assert dt.predict(double, x).dtype == np.float64
    np.testing.assert_allclose(dt.predict(double, x), expected, rtol=1e-4, atol=1e-6)
    assert next(dt.DenseNet(spec).to("meta").parameters()).is_meta


LEAST = {"block_config": (1,), "stem": "cifar"}  # inductor runs g++ for many operations


# inductor imports a PyTorch module that still uses torch.jit.script_method
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning")
@pytest.mark.parametrize(
    ("engine", "network"),
    [
        ("aot_eager", {}),
        *(pytest.param("inductor", network, marks=pytest.mark.long) for network in (LEAST, {})),
    ],
    ids=["aot_eager", "inductor", "inductor, three blocks"],
)
def test_compiles(engine, network):
    if engine == "inductor" and not shutil.which("g++"):
        pytest.skip("torch.compile's default needs a C++ compiler: no g++ here")
    spec = small("bottleneck", **network)
    model = dt.build(spec).eval()
    x = torch.tensor(images(spec, 32), dtype=torch.float32)
    with torch.no_grad():
        compiled = torch.compile(model, backend=engine, fullgraph=True)(x)
        torch.testing.assert_close(compiled, model(x), rtol=1e-4, atol=1e-6)


def a_step(model, forward, x, y):
    """The loss, the gradients and the model's tensors after the step."""
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(forward(x), y)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return loss.detach(), gradients, {name: t.clone() for name, t in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning")
@pytest.mark.parametrize(
    ("engine", "level", "network"),
    [
        pytest.param("aot_eager", True, {}, marks=pytest.mark.long),
        ("aot_eager", "max", {}),
        pytest.param("inductor", True, {}, marks=pytest.mark.long),
    ],
    ids=["aot_eager-True", "aot_eager-max", "inductor"],
)
def test_a_memory_efficient_model_compiles_whole_and_moves_its_statistics_once(
    engine, level, network
):
    if engine == "inductor" and not shutil.which("g++"):
        pytest.skip("torch.compile's default needs a C++ compiler: no g++ here")
    spec = small("bottleneck", **network)
    x, y = torch.tensor(images(spec, 32, count=4)), torch.tensor(labels(spec, 4))
    plain, efficient = (
        dt.build(spec, dtype="float64", memory_efficient=how).train() for how in (False, level)
    )
    compiled = torch.compile(efficient, backend=engine, fullgraph=True)
    for _ in range(2):
        expected, found = a_step(plain, plain, x, y), a_step(efficient, compiled, x, y)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("level", [True, "max"])
def test_a_memory_efficient_layers_batch_norm_can_be_frozen_alone(level):
    spec = small("bottleneck")
    x, y = torch.tensor(images(spec, 32, count=4)), torch.tensor(labels(spec, 4))
    found = []
    for how in (False, level):
        model = dt.build(spec, dtype="float64", memory_efficient=how).train()
        model.features.denseblock1.denselayer1.norm2.eval()
        found.append(a_step(model, model, x, y))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-13)


def test_a_memory_efficient_model_names_the_batch_norm_that_it_would_pass_by():
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(
        dt.build(small("bottleneck"), memory_efficient=True)
    )
    refused = r"expected BatchNorm2d with .*, found SyncBatchNorm\(.*\); build"
    with pytest.raises(dm.ConfigError, match=refused):
        model(torch.zeros(2, 3, 32, 32))
    model.eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    model = dt.build(small("bottleneck"), memory_efficient=True)
    model.features.denseblock1.denselayer1.norm1.momentum = None  # None: a mean over all batches
    with pytest.raises(dm.ConfigError, match=r"found BatchNorm2d\(.*momentum=None.*\); build"):
        model(torch.zeros(2, 3, 32, 32))


RANK = """
import os
import sys
import torch
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
import densenet_multi as dm
import densenet_multi.torch as dt

meeting, rank, saved = sys.argv[1], int(sys.argv[2]), sys.argv[3]
init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
spec = dm.cifar_config(10, 4, bottleneck=True, num_classes=5).resolve()
x = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
results = []
for level in (False, True, "max"):
    model = dt.build(spec, dtype="float64", memory_efficient=level).train()
    wrapped = DistributedDataParallel(model)
    for _ in range(2):
        wrapped.zero_grad()
        logits = wrapped(x[rank::2])
        torch.nn.functional.cross_entropy(logits, torch.arange(8)[rank::2] % 5).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    results.append([gradients, model.state_dict()])
torch.save(results, saved)
destroy_process_group()
os._exit(0)  # a PyTorch thread that requests the GIL during shutdown would abort the process
"""


def test_a_memory_efficient_model_trains_in_several_processes(tmp_path):
    meeting = (tmp_path / "meeting").as_uri()
    saved = [tmp_path / "0.pt", tmp_path / "1.pt"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, meeting, str(rank), str(path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, path in enumerate(saved)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    first, second = (torch.load(path, weights_only=True) for path in saved)
    for (gradients, moved), (same_gradients, others) in zip(first, second, strict=True):
        torch.testing.assert_close(same_gradients, gradients, rtol=0, atol=0)  # averaged over both
        mean = "features.norm5.running_mean"
        assert not torch.equal(moved[mean], others[mean])  # each process has its own images
    for found in (first, second):
        for level in found[1:]:
            torch.testing.assert_close(level, found[0], rtol=1e-12, atol=1e-14)


def test_is_an_ordinary_class_with_its_own_initialization():
    torch.manual_seed(0)
    model = dt.DenseNet(small("plain"))
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert model.features.conv0.weight.std() > 0
    assert model.features.norm5.momentum == 0.1  # PyTorch's momentum is 1 - decay


@pytest.mark.parametrize("variant", ["d2l", "densenet_bc100_k12"])
def test_pytorch_counts_our_multiply_adds(variant):
    spec, size = dm.get_spec(variant), 96
    with FlopCounterMode(display=False) as counter:
        dt.predict(dt.build(spec), np.zeros((1, spec.config.in_channels, size, size), np.float32))
    pooled_first = dm.profile(spec, size, size)
    saved = sum(s.multiply_adds * 3 / 4 for s in pooled_first if s.name.startswith("transition"))
    expected = sum(stage.multiply_adds for stage in pooled_first) - saved
    assert counter.get_total_flops() / 2 == expected


def test_every_module_gets_its_own_mode_back():
    spec = small("bottleneck")
    model = dt.build(spec)
    model.train()
    model.features.norm5.eval()  # frozen, as in fine-tuning
    before = {module: module.training for module in model.modules()}
    x, y = images(spec, 32, count=4), labels(spec, 4)
    for use in (
        lambda: dt.predict(model, x),
        lambda: dt.loss_and_gradients(model, x, y),
        lambda: dt.fit(model, (x, y), dm.Recipe(epochs=1, batch_size=2), validation=(x, y)),
    ):
        use()
        assert {module: module.training for module in model.modules()} == before


def test_the_contract_accepts_a_compiled_model():
    spec = small("plain")
    model = dt.build(spec)
    compiled = torch.compile(model, backend="eager")
    x, y = images(spec, 8), labels(spec)
    np.testing.assert_allclose(dt.predict(compiled, x), dt.predict(model, x), rtol=1e-4)
    loss, gradients = dt.loss_and_gradients(model, x, y)
    assert list(dt.export_weights(compiled)) == list(dm.tensors(spec))
    dt.import_weights(compiled, dm.init_weights(spec))
    compiled_loss, compiled_gradients = dt.loss_and_gradients(compiled, x, y)
    assert abs(compiled_loss - loss) < 1e-5
    assert list(compiled_gradients) == list(gradients)


def test_validation_does_not_switch_the_modes_of_the_model():
    spec = tiny()
    data = images(spec, 32, count=4), labels(spec, 4)
    model = dt.build(spec).eval()
    seen = []
    model.register_forward_hook(lambda module, *_: seen.append((module.training, model.training)))
    dt.fit(model, data, dm.Recipe(epochs=1, batch_size=2), validation=data)
    assert set(seen) == {(True, True), (False, True)}
    assert not model.training


@pytest.mark.long
def test_fit_accepts_a_model_that_compiles_itself():
    spec = tiny()
    data = images(spec, 32, count=4).astype(np.float32), labels(spec, 4)
    recipe = dm.Recipe(epochs=2, batch_size=2, momentum=0.9)
    eager, compiled = dt.build(spec), dt.build(spec)
    compiled.compile(backend="aot_eager")
    expected = dt.fit(eager, data, recipe, validation=data)
    history = dt.fit(compiled, data, recipe, validation=data)
    losses = [[step.loss for step in h.steps] for h in (history, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_frozen_parameters_count_but_have_no_gradient():
    spec = small("plain")
    model = dt.build(spec)
    model.features.conv0.weight.requires_grad = False
    assert dt.count_parameters(model) == dm.count_parameters(spec)
    _, gradients = dt.loss_and_gradients(model, images(spec, 8), labels(spec))
    assert set(dm.tensors(spec)) - set(gradients) == {"features.conv0.weight"} | {
        name for name in dm.tensors(spec) if "running" in name
    }
    model.requires_grad_(False)
    loss, gradients = dt.loss_and_gradients(model, images(spec, 8), labels(spec))
    assert loss > 0
    assert not gradients
    model = dt.build(spec)
    model.features.conv0.weight.requires_grad = False
    data = images(spec, 8, count=4), labels(spec, 4)
    before = dt.export_weights(model)
    dt.fit(model, data, dm.Recipe(epochs=1, batch_size=2, weight_decay=0.1))
    after = dt.export_weights(model)
    same = [name for name in before if np.array_equal(before[name], after[name])]
    assert same == ["features.conv0.weight"]


def test_another_dtype_is_refused_by_name():
    spec = small("plain")
    model = dt.build(spec).to(torch.bfloat16)
    for use in (
        lambda: dt.predict(model, images(spec, 8)),
        lambda: dt.import_weights(model, dm.init_weights(spec)),
    ):
        with pytest.raises(dm.ConfigError, match="dtype: expected 'float32' or 'float64'; found"):
            use()


def test_of_equal_maxima_one_receives_the_gradient():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    max_pool(PoolSpec(2, 2, 0))(x).sum().backward()
    gradient = x.grad.numpy()
    np.testing.assert_array_equal(gradient.reshape(2, 2, 2, 2).sum(axis=(1, 3)), np.ones((2, 2)))
    assert np.count_nonzero(gradient) == 4
