"""PyTorch's own files: what a .pth may contain, and that no code in it ever runs."""

import argparse
import datetime as dt
import io
import os
import pathlib
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import densenet_multi as dm
from cases import as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.formats import torchvision
from densenet_multi.formats._torch.files import open_torch, tensors_in

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


@pytest.fixture
def torchvision_stands_in(monkeypatch):
    """Replace torchvision, which needs another PyTorch, by one with this package's DenseNet."""
    import densenet_multi.torch as dt

    def made(**fields):
        return dt.DenseNet(dm.DenseNetConfig(**fields).resolve())

    models = SimpleNamespace(DenseNet=made)
    stand_in = SimpleNamespace(models=models, __version__="0.0")
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)


@pytest.mark.usefixtures("torchvision_stands_in")
@pytest.mark.parametrize("kind", ["pth", "nested pth", "safetensors"])
def test_the_librarys_model_gets_what_pytorch_reads_not_what_was_read_here(tmp_path, kind):
    spec = small("bottleneck", bn_eps=1e-5, bn_decay=0.9, compression=0.5)
    weights, x = as_float32(random_weights(spec)), images(spec, 33).astype(np.float32)
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    formats.write(path, dm.Checkpoint(spec, weights), "torchvision")
    if kind == "nested pth":
        torch.save({"state_dict": torch.load(path), "epoch": 3}, path)
    misread = dm.Checkpoint(spec, as_float32(random_weights(spec, seed=7)))
    found, who = torchvision.library_logits(path, misread, x)
    assert who == "torchvision 0.0"
    expected = dm.reference.predict(spec, weights, x)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.usefixtures("torchvision_stands_in")
def test_the_librarys_model_is_not_asked_for_what_pytorch_refuses(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "x.pth")  # a complete model
    spec = small("bottleneck", compression=0.5)
    checkpoint = dm.Checkpoint(spec, as_float32(random_weights(spec)))
    with pytest.raises(LookupError):
        torchvision.library_logits(tmp_path / "x.pth", checkpoint, images(spec, 33))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("around", [None, "state_dict", "model"])
def test_old_files_and_training_checkpoints_are_read(tmp_path, weights, legacy, around):
    state = {f"module.{name}": tensor for name, tensor in state_dict(weights).items()}
    saved = {around: state, "epoch": 3, "optimizer": {"lr": 0.1}} if around else state
    path = tmp_path / "x.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    assert formats.guess(path) == "torchvision"
    notes = " ".join(same(path, weights).notes)
    assert f"the prefix {(f'{around}.' if around else '') + 'module.'!r} was removed" in notes


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
    assert "the entry 'state_dict_ema', an average of these weights, was ignored" in notes


def test_few_numbers_that_look_like_many_take_no_memory(tmp_path, weights):
    state = state_dict(weights)
    width = weights["classifier.weight"].shape[1]
    state["classifier.weight"] = torch.zeros(1).expand(10**9, width)
    state["classifier.bias"] = torch.zeros(1).expand(10**9)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(dm.WeightsError, match="expected tensors that fit in the file, found"):
        formats.read(tmp_path / "x.pth")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")  # noqa: PTH110
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
    assert not os.path.exists(trap)  # noqa: PTH110  # the attack would have created it
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


UNUSUAL = {
    "a sparse tensor": lambda w: w.to_sparse(),
    "a quantized tensor": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "a tensor of int8": lambda w: w.to(torch.int8),
    "a tensor of complex64": lambda w: w.to(torch.complex64),
    "a tensor of float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_weight_that_is_not_dense_or_no_float_is_refused_by_name(tmp_path, weights, kind, legacy):
    path, state = tmp_path / "x.pth", state_dict(weights)
    state["classifier.weight"] = UNUSUAL[kind](state["classifier.weight"])
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    refused = f"classifier.weight: expected a dense tensor of floats, found {kind}"
    with pytest.raises(dm.WeightsError, match=refused):
        formats.read(path)
    beside = {"net": state_dict(weights), "other": state["classifier.weight"]}
    torch.save(beside, path, _use_new_zipfile_serialization=not legacy)
    same(path, weights)


# --- What is beside the weights -----------------------------------------------------------------

BESIDE = {
    "numpy.float64": np.float64(0.9),
    "argparse.Namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/a")),
    "datetime": dt.datetime(2020, 1, 2),  # noqa: DTZ001
    "defaultdict": defaultdict(list, {"loss": [0.1, 0.2]}),
    "arrays": {"names": np.array(["a", "b"]), "any": np.array([None], object), "x": np.arange(3)},
    "random states": {"numpy": np.random.get_state(), "torch": torch.get_rng_state()},  # noqa: NPY002
    "torch": [torch.float32, torch.device("cpu"), torch.Size([1]), torch.zeros(0, 3)],
    "an optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    "a loss": nn.CrossEntropyLoss(weight=torch.ones(4)),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", BESIDE)
def test_harmless_objects_beside_the_weights_are_left_out(tmp_path, weights, name, legacy):
    saved = {"more": BESIDE[name], "state_dict": state_dict(weights), "epoch": 3}
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    same(tmp_path / "x.pth", weights)


@pytest.mark.parametrize(
    ("entry", "names"),
    [("class_to_idx", {"class_to_idx": {"cat": 0, "dog": 1, "eel": 2, "fox": 3}}),
     ("args.class_names", {"args": argparse.Namespace(class_names=["cat", "dog", "eel", "fox"])})],
    ids=str,
)  # fmt: skip
def test_names_of_the_classes_beside_the_weights_are_kept(tmp_path, weights, entry, names):
    torch.save({"net": state_dict(weights), **names}, tmp_path / "x.pth")
    read = same(tmp_path / "x.pth", weights)
    assert read.usage.class_names == ("cat", "dog", "eel", "fox")
    told = f"its class names are from the entry {entry!r}: cat, dog, eel, ..."
    assert told in read.notes


def entry(path, name):
    """Return where an entry of a zip archive starts, and its size."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
        return path.read_bytes().index(archive.read(info), info.header_offset), info.file_size


def flip(path, name):
    content = bytearray(path.read_bytes())
    content[entry(path, name)[0] + 1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_noticed_in_the_weights_and_not_read_in_what_is_beside(tmp_path, weights):
    path = tmp_path / "x.pth"
    torch.save({"net": state_dict(weights), "exp_avg": torch.rand(100)}, path)
    flip(path, f"x/data/{len(weights)}")
    same(path, weights)
    flip(path, "x/data/0")
    with pytest.raises(dm.WeightsError, match=r"conv0\.weight: expected an intact file"):
        formats.read(path)


def test_a_flipped_bit_is_noticed_in_a_storage_that_several_tensors_share(tmp_path, weights):
    flat = torch.cat([torch.tensor(array).ravel() for array in weights.values()])
    parts = flat.split([array.size for array in weights.values()])
    pairs = zip(weights.items(), parts, strict=True)
    state = {name: part.view(array.shape) for (name, array), part in pairs}
    torch.save(state, tmp_path / "x.pth")
    same(tmp_path / "x.pth", weights)
    flip(tmp_path / "x.pth", "x/data/0")
    with pytest.raises(dm.WeightsError, match=r"found a damaged file; download or copy it again"):
        formats.read(tmp_path / "x.pth")


def test_a_flipped_bit_in_the_order_of_bytes_is_noticed(tmp_path, weights):
    torch.save(state_dict(weights), tmp_path / "x.pth")
    flip(tmp_path / "x.pth", "x/byteorder")
    with pytest.raises(dm.WeightsError, match="found a damaged file"):
        formats.read(tmp_path / "x.pth")


def test_a_flipped_bit_in_the_description_is_noticed(tmp_path, weights):
    torch.save(state_dict(weights), tmp_path / "x.pth")
    flip(tmp_path / "x.pth", "x/data.pkl")
    with pytest.raises(dm.WeightsError, match=r"found a damaged file; download .* again"):
        formats.read(tmp_path / "x.pth")


def test_a_file_without_checksums_is_read(tmp_path, weights):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state_dict(weights), tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    same(tmp_path / "x.pth", weights)


# --- Tensors ------------------------------------------------------------------------------------


def packed_again(path, change):
    """Rewrite the archive with ``change`` applied to the name and content of each entry."""
    with zipfile.ZipFile(path) as archive:
        entries = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)


def test_a_file_of_a_big_endian_machine_is_read(tmp_path, weights):
    def swapped(name, content):
        if name.endswith("byteorder"):
            return name, b"big"
        is_storage = "/data/" in name
        return name, np.frombuffer(content, "<f4").byteswap().tobytes() if is_storage else content

    torch.save(state_dict(weights), tmp_path / "x.pth")
    packed_again(tmp_path / "x.pth", swapped)
    same(tmp_path / "x.pth", weights)


def test_an_archive_with_the_paths_of_windows_is_read(tmp_path, weights):
    torch.save(state_dict(weights), tmp_path / "x.pth")
    packed_again(tmp_path / "x.pth", lambda name, content: (name.replace("/", "\\"), content))
    same(tmp_path / "x.pth", weights)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_share_a_storage_are_read_each_from_its_place(tmp_path, weights, legacy):
    flat = torch.cat([tensor.flatten() for tensor in state_dict(weights).values()])
    ends = np.cumsum([array.size for array in weights.values()])
    state = {
        name: flat[end - array.size : end].view(array.shape)
        for (name, array), end in zip(weights.items(), ends.tolist(), strict=True)
    }
    saved = {"net": state, "best_net": dict(state)}  # together as many bytes as one of them
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(dm.WeightsError, match="expected one network, found 2"):
        formats.read(tmp_path / "x.pth")
    back = formats.read(tmp_path / "x.pth", prefix="best_net.")
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
        back.weights[name][:] = 0  # each array has its own, writable memory
    np.testing.assert_array_equal(
        formats.read(tmp_path / "x.pth", prefix="net.").weights[name], array
    )


class Described:
    """A tensor as a file may describe it: arguments of a rebuilding function, and a state."""

    def __init__(self, shape, strides, offset=0, state=None):
        args = (torch.arange(4.0)._typed_storage(), offset, shape, strides, False, OrderedDict())
        self.reduced = torch._utils._rebuild_tensor_v2, args, state

    def __reduce__(self):
        return self.reduced if self.reduced[2] else self.reduced[:2]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "tensor",
    [
        Described((4,), (1,), 1),
        Described((2, 2), (3, 1)),
        Described((1, 5), (2**50, 1)),
        Described((1000,), (1,)),
    ],
    ids=["offset", "strides", "width", "length"],
)
def test_numbers_outside_a_storage_are_never_read(tmp_path, tensor, legacy):
    torch.save({"x": tensor}, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with (
        pytest.raises(dm.WeightsError, match="expected a tensor within its storage"),
        open_torch(tmp_path / "x.pth") as tree,
    ):
        tensors_in(tree)["x"].array()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("shape", [((-1,), (1,)), ((1,), (-1,)), ((1,), (1, 1)), ((2.0,), (1,))])
def test_an_impossible_shape_is_refused(tmp_path, shape):
    torch.save({"x": Described(*shape)}, tmp_path / "x.pth")
    with (
        pytest.raises(dm.WeightsError, match="expected a tensor's shape and strides"),
        open_torch(tmp_path / "x.pth"),
    ):
        pass


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_state_in_the_file_moves_no_tensor(tmp_path):
    state = {"shape": (2,), "strides": (-(10**6),), "offset": -(10**6)}
    torch.save({"x": Described((4,), (1,), state=state)}, tmp_path / "x.pth")
    with open_torch(tmp_path / "x.pth") as tree:
        np.testing.assert_array_equal(tensors_in(tree)["x"].array(), [0, 1, 2, 3])


def test_a_parameter_of_pytorch_0_is_read(tmp_path):
    class Old:
        def __reduce__(self):
            return nn.Parameter, (torch.arange(3.0),), (True, False, OrderedDict())

    torch.save({"x": Old()}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with open_torch(tmp_path / "x.pth") as tree:
        np.testing.assert_array_equal(tensors_in(tree)["x"].array(), [0, 1, 2])


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_weights_of_pickle_dump_are_read(tmp_path, weights, kind, protocol):
    saved = dict(weights) if kind == "arrays" else state_dict(weights)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(saved, protocol))
    back = same(tmp_path / "x.pkl", weights)
    assert all(array.flags.writeable for array in back.weights.values())


class Within:
    def __init__(self, raw):
        self.raw = raw

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.raw,)


def test_files_in_files_are_read_to_the_first(tmp_path):
    content = b"nothing"
    for _ in range(50):
        content = pickle.dumps(Within(content), 4)
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(dm.WeightsError, match="found no tensors"):
        formats.read(tmp_path / "x.pkl", "torchvision")


# --- Complete models ----------------------------------------------------------------------------


class DenseLayer(nn.Sequential):
    def __init__(self, width, growth, size):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(width, size * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(size * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(size * growth, growth, 3, padding=1, bias=False)


class DenseBlock(nn.ModuleDict):
    def forward(self, x):
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


def sequence(**modules):
    return nn.Sequential(OrderedDict(modules))


class Whole(nn.Module):
    """A model like torchvision's, with the tensors of ``SPEC``."""

    def __init__(self, weights):
        super().__init__()
        config, parts = SPEC.config, OrderedDict()
        width = config.num_init_features
        parts["conv0"] = nn.Conv2d(config.in_channels, width, 7, 2, 3, bias=False)
        parts["norm0"], parts["relu0"] = nn.BatchNorm2d(width), nn.ReLU()
        parts["pool0"] = nn.MaxPool2d(3, 2, 1)
        for number, (block, transition) in enumerate(SPEC.stages, 1):
            parts[f"denseblock{number}"] = DenseBlock()
            for i in range(1, len(block.layers) + 1):
                layer = DenseLayer(width, config.growth_rate, config.bn_size)
                parts[f"denseblock{number}"][f"denselayer{i}"] = layer
                width += config.growth_rate
            if transition:
                conv = nn.Conv2d(width, transition.conv.out_channels, 1, bias=False)
                parts[f"transition{number}"] = sequence(
                    norm=nn.BatchNorm2d(width), relu=nn.ReLU(), conv=conv, pool=nn.AvgPool2d(2, 2)
                )
                width = transition.conv.out_channels
        parts["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(width, config.num_classes)
        missing, unexpected = self.load_state_dict(state_dict(weights), strict=False)
        assert all("num_batches_tracked" in name for name in missing)
        assert not unexpected

    def forward(self, x):
        maps = nn.functional.relu(self.features(x))
        return self.classifier(self.pooled(maps).flatten(1))

    def pooled(self, maps):
        """Apply the user's own pooling if there is one."""
        own = getattr(self, "pool", None)
        return own(maps) if own else nn.functional.adaptive_avg_pool2d(maps, 1)


def put(**changed):
    """Return a change that puts modules at places such as features__pool0."""

    def change(model):
        for place, module in changed.items():
            parent, _, name = place.replace("__", ".").rpartition(".")
            model.get_submodule(parent).add_module(name, module)
        return model

    return change


def saved_model(tmp_path, weights, change):
    """Return the changed model and its file."""
    model = change(Whole(weights)).eval()
    torch.save(model, tmp_path / "x.pth")
    return model, tmp_path / "x.pth"


@pytest.mark.parametrize("way", ["zip", "legacy", "pickle", "data parallel", "in a checkpoint"])
def test_a_whole_model_is_read_without_its_classes(tmp_path, weights, way):
    path, model = tmp_path / "x.pth", Whole(weights)
    if way == "pickle":
        path.write_bytes(pickle.dumps(model))
    else:
        saved = {"data parallel": nn.DataParallel(model), "in a checkpoint": {"model": model}}
        torch.save(saved.get(way, model), path, _use_new_zipfile_serialization=way != "legacy")
    assert "the file holds a complete model" in " ".join(same(path, weights).notes)


def test_a_whole_model_shows_epsilon_decay_and_pooling(tmp_path, weights):
    model = Whole(weights)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.01
    for number in (1, 2):
        model.features.get_submodule(f"transition{number}").pool = nn.MaxPool2d(2, 2)
    torch.save(model, tmp_path / "x.pth")
    config = same(tmp_path / "x.pth", weights).spec.config
    assert (config.bn_eps, config.bn_decay, config.transition_pool) == (1e-3, 0.99, "max")


def in_transitions(model, **changed):
    return put(**{f"features__transition{i}__{n}": m for i in (1, 2) for n, m in changed.items()})(
        model
    )


def with_poolings_first(model):
    for name, part in model.features.named_children():
        if name.startswith("transition"):
            pool = nn.AvgPool2d(2, 2)
            parts = {"norm": part.norm, "relu": nn.ReLU(), "pool": pool, "conv": part.conv}
            model.features.add_module(name, sequence(**parts))
    return model


def all_in_one(model):
    after = [nn.ReLU(), nn.Dropout2d(), nn.AdaptiveMaxPool2d((1, 1)), nn.Flatten()]
    return nn.Sequential(nn.Identity(), *model.features.children(), *after, model.classifier)


SAME = {
    "nothing": lambda model: model,
    "a global maximum": put(pool=nn.AdaptiveMaxPool2d(1)),
    "a mean": put(pool=nn.AvgPool2d(4)),
    "maxima in transitions": lambda model: in_transitions(model, pool=nn.MaxPool2d(2)),
    "means before convolutions": with_poolings_first,
    "an epsilon": lambda model: [
        setattr(module, "eps", 0.1) for module in model.modules() if hasattr(module, "eps")
    ] and model,
    "without effect": put(features__drop5=nn.Dropout2d(), drop=nn.Dropout(), flatten=nn.Flatten(),
                          features__relu5=nn.ReLU(), none=nn.Sequential()),
    "a loss": put(loss=nn.CrossEntropyLoss(), near=nn.CosineSimilarity(), focal=nn.SmoothL1Loss()),
    "a head of its own": lambda model: put(classifier=nn.Sequential(
        nn.ReLU(), nn.Dropout(), model.classifier))(model),
    "a second name": lambda model: put(
        backbone=model.features, first=model.features.denseblock1)(model),
    "all in one sequence": all_in_one,
    "wrapped twice": lambda model: nn.DataParallel(nn.Sequential(nn.Dropout(), model)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_whole_model_answers_as_what_is_read_of_it(tmp_path, weights, name):
    model, path = saved_model(tmp_path, weights, SAME[name])
    x, found = images(SPEC, 65).astype(np.float32), formats.read(path)
    model = model.module if isinstance(model, nn.DataParallel) else model
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    assert deviation(dm.reference.predict(found.spec, found.weights, x), expected) < 1e-5
    assert found.usage.activation is None


class Strange(nn.Module):
    """A custom class; the file does not contain its ``forward``."""


def deleted(*names):
    def change(model):
        for name in names:
            parent, _, own = name.rpartition(".")
            delattr(model.get_submodule(parent), own)
        return model

    return change


def in_classes(model):
    """Make the transitions modules of a custom class, one of them without its ReLU."""
    for name, part in model.features.named_children():
        if name.startswith("transition"):
            model.features.add_module(name, Strange())
            for inside, module in part.named_children():
                model.features.get_submodule(name).add_module(inside, module)
    return deleted("features.transition2.relu")(model)


def body_in_a_class(pool0):
    def change(model):
        features, own = model.features, Strange()
        model.features = own
        for name, part in features.named_children():
            own.add_module(name, pool0 if name == "pool0" else part)
        return model

    return change


def in_sequence(*around):
    return lambda model: nn.Sequential(*(model if each is None else each for each in around))


def second_first(model):
    parts = dict(model.features.named_children())
    return put(features=sequence(norm5=parts.pop("norm5"), **parts))(model)


ANOTHER = {
    "padding": (put(features__conv0=nn.Conv2d(3, 8, 7, 2, 3, bias=False, padding_mode="reflect")),
                r"features\.conv0 \(Conv2d\): expected padding_mode zeros, found 'reflect'"),
    "norm": (put(features__norm0=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
             r"features\.norm0: expected BatchNorm2d, found InstanceNorm2d"),
    "smaller pool": (put(features__pool0=nn.MaxPool2d(2, 2)),
                     r"pool0 \(MaxPool2d\): expected kernel_size 3, found 2"),
    "ceil": (put(features__pool0=nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "ceil_mode False, found"),
    "no pool": (put(features__pool0=nn.Identity()), r"pool0: expected MaxPool2d, found Identity"),
    "pool deleted": (deleted("features.pool0"), r"denseblock1: expected MaxPool2d between"),
    "mean in the stem": (put(features__pool0=nn.AvgPool2d(3, 2, 1)),
                         r"pool0: expected MaxPool2d, found AvgPool2d"),
    "SiLU": (put(features__relu0=nn.SiLU()), r"features\.relu0: expected ReLU, found SiLU"),
    "one maximum": (put(features__transition1__pool=nn.MaxPool2d(2, 2)),
                    r"expected the pooling of the other transitions"),
    "ceil between": (lambda m: in_transitions(m, pool=nn.AvgPool2d(2, ceil_mode=True)),
                     r"transition1\.pool \(AvgPool2d\): expected ceil_mode False"),
    "no pool between": (put(features__transition2__pool=nn.Identity()),
                        r"transition2\.pool: expected AvgPool2d or MaxPool2d, found Identity"),
    "ReLU after the mean": (lambda m: put(features__transition1=sequence(
        norm=m.features.transition1.norm, pool=nn.AvgPool2d(2), relu=nn.ReLU(),
        conv=m.features.transition1.conv))(m), "relu: expected ReLU before the pooling"),
    "no ReLU between": (put(features__transition1__relu=nn.Identity()),
                        r"transition1\.relu: expected ReLU, found Identity"),
    "one ReLU deleted": (deleted("features.transition1.relu"),
                         r"transition1\.conv: expected ReLU between"),
    "one ReLU fewer": (in_classes, r"transition2: expected as many ReLUs as in other transitions"),
    "no ReLU in a layer": (put(features__denseblock1__denselayer1__relu2=nn.Identity()),
                           r"denselayer1\.relu2: expected ReLU, found Identity"),
    "ELU in a layer": (put(features__denseblock1__denselayer1__relu2=nn.ELU()),
                       r"denselayer1\.relu2: expected ReLU, found ELU"),
    "a pool in a layer": (put(features__denseblock1__denselayer1__up=nn.AdaptiveMaxPool2d(1)),
                          r"up: expected no other module, found AdaptiveMaxPool2d"),
    "more in a layer": (put(features__denseblock1__denselayer1__up=Strange()),
                        r"up: expected no other module, found .*Strange; if it changes no output"),
    "more at the end": (put(features__pool5=nn.MaxPool2d(2)), r"pool5: expected Adaptive"),
    "larger maps": (put(features__up=nn.Upsample(scale_factor=2)),
                    r"up: expected no other module, found Upsample; if it changes no output, rep"),
    "another order": (second_first, r"conv0: expected classifier after features"),
    "body of a class": (body_in_a_class(nn.Identity()), r"pool0: expected MaxPool2d, found Id"),
    "mean in its stem": (body_in_a_class(nn.AvgPool2d(3, 2, 1)), r"pool0: expected MaxPool2d, fou"),
    "a point in its stem": (body_in_a_class(nn.AdaptiveAvgPool2d(1)), r"pool0: expected MaxPool2d"),
    "Sigmoid in its body": (lambda m: put(features__out=nn.Sigmoid())(
        body_in_a_class(nn.MaxPool2d(3, 2, 1))(m)), r"features\.out: expected ReLU, found Sigmoid"),
    "more in its body": (lambda m: put(features__more=Strange())(
        body_in_a_class(nn.MaxPool2d(3, 2, 1))(m)), r"features\.more: expected no other module"),
    "before": (in_sequence(nn.Upsample(scale_factor=2), None), r"0: expected no other module"),
    "normalized": (in_sequence(nn.BatchNorm2d(3), None), r"0: expected no layer before"),
    "two outputs": (in_sequence(None, nn.Sigmoid(), nn.Sigmoid()), r"2: expected .* found 1, 2"),
    "over images": (in_sequence(None, nn.Softmax(0)), r"1: expected .* found Softmax over dim 0"),
    "Tanh": (lambda m: put(classifier=nn.Sequential(nn.Tanh(), m.classifier))(m),
             r"classifier\.0: expected ReLU, found Tanh"),
    "LayerNorm": (lambda m: put(classifier=nn.Sequential(
        nn.LayerNorm(13, elementwise_affine=False), m.classifier))(m),
        r"classifier\.0: expected no other module, found LayerNorm"),
    "own pooling": (put(pool=Strange()), r"pool: expected AdaptiveAvgPool2d or AdaptiveMaxPool2d"),
    "learned": (put(act=nn.PReLU()), r"act: expected ReLU, found PReLU"),
    "two by two": (put(pool=nn.AdaptiveAvgPool2d(2)), r"pool \(AdaptiveAvgPool2d\): expected outp"),
    "two poolings": (put(pool=nn.AdaptiveAvgPool2d(1), pool2=nn.AdaptiveMaxPool2d(1)),
                     r"expected one global pooling layer, found pool, pool2"),
    "two activations": (put(one=nn.Softmax(1), two=nn.Sigmoid()),
                        r"expected one activation after the classifier, found one, two"),
    "loose Upsample": (put(up=nn.Upsample(scale_factor=2)), r"up: expected no other module"),
    "loose Identity": (put(relu=nn.Identity()), r"relu: expected ReLU, found Identity"),
    "loose GELU": (put(act=nn.GELU()), r"act: expected ReLU, found GELU"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANOTHER)
def test_a_whole_model_of_another_function_is_refused_by_its_module(tmp_path, weights, name):
    change, message = ANOTHER[name]
    _, path = saved_model(tmp_path, weights, change)
    with pytest.raises(dm.WeightsError, match=message):
        formats.read(path)


def test_modules_within_modules_without_end_are_refused(tmp_path, weights):
    change = Whole(weights)
    for _ in range(120):
        change = nn.Sequential(change)
    _, path = saved_model(tmp_path, weights, lambda _: change)
    with pytest.raises(dm.WeightsError, match="expected at most 100 levels of nested modules"):
        formats.read(path)


class BatchNormAct2d(nn.BatchNorm2d):
    """Like timm's class, which contains its ReLU."""

    def __init__(self, width, act):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), act


@pytest.mark.parametrize("act", [nn.ReLU(), nn.Identity(), nn.SiLU()], ids=str)
def test_a_norm_of_timm_has_its_relu_inside(tmp_path, weights, act):
    def change(model):
        features = model.features
        for name, module in list(features.named_modules()):
            if isinstance(module, nn.BatchNorm2d) and "denselayer" not in name:
                norm = BatchNormAct2d(module.num_features, nn.ReLU() if name == "norm5" else act)
                norm.load_state_dict(module.state_dict())
                put(**{name.replace(".", "__"): norm})(features)
        return deleted("relu0", "transition1.relu", "transition2.relu")(features) and model

    _, path = saved_model(tmp_path, weights, change)
    if isinstance(act, nn.ReLU):
        same(path, weights)
    else:
        with pytest.raises(dm.WeightsError, match=r"norm0\.act: expected ReLU, found"):
            formats.read(path)


class SelectAdaptivePool2d(nn.Module):
    """Like timm's class, which states how it pools."""

    def __init__(self, pool_type):
        super().__init__()
        self.pool_type = pool_type


@pytest.mark.parametrize(("kind", "read"), [("avg", "avg"), ("fast", "avg"), ("max", "max")])
def test_timms_pooling_is_read(tmp_path, weights, kind, read):
    _, path = saved_model(tmp_path, weights, put(global_pool=SelectAdaptivePool2d(kind)))
    assert same(path, weights).spec.config.global_pool == read
    _, path = saved_model(tmp_path, weights, put(global_pool=SelectAdaptivePool2d("avgmax")))
    with pytest.raises(dm.WeightsError, match="global_pool: expected AdaptiveAvgPool2d or"):
        formats.read(path)


@pytest.mark.parametrize("pools", [("max", "avg"), ("avg", "max"), ("max", "max")])
def test_a_whole_model_of_this_package_keeps_its_poolings(tmp_path, weights, pools):
    import densenet_multi.torch as dt

    fields = {"transition_pool": pools[0], "global_pool": pools[1]}
    spec = small("bottleneck", bn_eps=1e-5, bn_decay=0.9, **fields)
    model = dt.build(spec)
    dt.import_weights(model, weights)
    torch.save(nn.DataParallel(model), tmp_path / "x.pth")
    assert same(tmp_path / "x.pth", weights).spec.config == spec.config


def test_a_module_beside_a_state_dict_is_no_whole_model(tmp_path, weights):
    state = {"net": state_dict(weights), "scheduler": nn.Sequential(nn.Linear(3, 3), nn.Tanh())}
    torch.save(state, tmp_path / "x.pth")
    assert "complete model" not in " ".join(formats.read(tmp_path / "x.pth").notes)


def test_a_body_whose_head_is_another_is_read_whatever_the_head_is(tmp_path, weights):
    def change(model):
        width = SPEC.classifier.in_features
        head = nn.Sequential(nn.Linear(width, 9), nn.Tanh(), nn.Linear(9, 2), nn.LogSoftmax(1))
        return put(classifier=head, up=nn.Upsample(scale_factor=2), pool=Strange())(model)

    _, path = saved_model(tmp_path, weights, change)
    assert formats.read(path).spec.config.num_classes == 0
    _, path = saved_model(tmp_path, weights, lambda m: put(features__more=nn.ELU())(change(m)))
    with pytest.raises(dm.WeightsError, match=r"features\.more: expected ReLU, found ELU"):
        formats.read(path)


@pytest.mark.parametrize(
    "change",
    [
        in_sequence(None, nn.Sigmoid()),
        in_sequence(nn.Sequential(nn.Dropout()), None, nn.Sigmoid()),
        put(out=nn.Sigmoid()),
    ],
    ids=["after", "around", "beside"],
)
def test_an_activation_around_a_whole_model_is_kept(tmp_path, weights, change):
    _, path = saved_model(tmp_path, weights, change)
    assert same(path, weights).usage.activation == "sigmoid"


def test_what_follows_the_classifier_of_a_whole_model_is_kept_or_refused(tmp_path, weights):
    model = Whole(weights)
    linear = model.classifier
    for last, activation in ((nn.Sigmoid(), "sigmoid"), (nn.Softmax(1), "softmax"), (None, None)):
        model.classifier = nn.Sequential(nn.Dropout(), linear, *[last][: last is not None])
        torch.save(model, tmp_path / "x.pth")
        assert same(tmp_path / "x.pth", weights).usage.activation == activation
    model.classifier = nn.Sequential(linear, nn.Tanh())
    torch.save(model, tmp_path / "x.pth")
    with pytest.raises(dm.WeightsError, match="nothing after the classifier, found Tanh"):
        formats.read(tmp_path / "x.pth")


# --- Damage -------------------------------------------------------------------------------------


def small_files():
    for legacy in (False, True):
        buffer = io.BytesIO()
        saved = {"x": torch.arange(4.0), "y": [torch.ones(2, 2).T, np.arange(3.0)]}
        torch.save(saved, buffer, _use_new_zipfile_serialization=not legacy)
        yield buffer.getvalue()


@pytest.mark.parametrize("content", list(small_files()), ids=["zip", "legacy"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=6))
def test_a_damaged_file_is_read_or_refused(tmp_path, content, places):
    damaged = bytearray(content)
    for place, bit in places:
        damaged[int(place * (len(content) - 1))] ^= 1 << bit
    (tmp_path / "x.pth").write_bytes(damaged)
    with suppress(dm.WeightsError, OSError), open_torch(tmp_path / "x.pth") as tree:
        for tensor in tensors_in(tree).values():
            getattr(tensor, "array", lambda: None)()


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


class Conv2d(nn.Conv2d):
    """A class named like PyTorch's, as weight standardization may define it."""


def recast(model):
    model.features.conv0.__class__ = Conv2d
    return model


def test_a_class_that_is_only_called_as_pytorchs_is_refused(tmp_path, weights):
    _, path = saved_model(tmp_path, weights, recast)
    with pytest.raises(
        dm.WeightsError, match=r"conv0: expected Conv2d, found .*test_native.*Conv2d"
    ):
        formats.read(path)


def test_a_softmax_over_images_beside_the_classifier_is_refused(tmp_path, weights):
    _, path = saved_model(tmp_path, weights, put(last=nn.Softmax(dim=0)))
    with pytest.raises(dm.WeightsError, match="last: expected"):
        formats.read(path)


def double(_, __, output):
    return 2 * output


def hooked(model):
    model.features.register_forward_hook(double)
    return model


def test_forward_hooks_are_told(tmp_path, weights):
    _, path = saved_model(tmp_path, weights, hooked)
    notes = " ".join(formats.read(path).notes)
    assert "its forward hooks were ignored, but may change its outputs: features" in notes


def test_modules_in_a_dictionary_are_no_whole_model(tmp_path, weights):
    model, path = saved_model(tmp_path, weights, lambda model: model)
    parts = {"features": dict(model.features.named_children()), "classifier": model.classifier}
    torch.save(parts, path)
    assert "the file holds a complete model" not in " ".join(formats.read(path).notes)
    parts = OrderedDict(classifier=model.classifier, features=model.features)
    torch.save(nn.Sequential(parts), path)
    with pytest.raises(dm.WeightsError, match="expected nothing after classifier"):
        formats.read(path)
