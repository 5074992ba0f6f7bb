"""Flax Linen's own networks and files: after reading, they give the same answers."""

import pickle

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from flax.training.train_state import TrainState
from safetensors.numpy import save_file

import densenet_multi as dm
from cases import as_float32, images, random_weights, small
from densenet_multi import formats
from densenet_multi.comparison.deviation import deviation
from densenet_multi.flax.weights import precision

# On every restore without a target, Orbax warns that it reads the shardings from the file
pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


def norm(name=None):
    return nn.BatchNorm(use_running_average=True, name=name)


class DenseLayer(nn.Module):
    """Names from class and number, as in the UvA's tutorial, or torchvision's names."""

    bn_size: int
    growth: int
    named: bool = False

    @nn.compact
    def __call__(self, x):
        names = ["norm1", "conv1", "norm2", "conv2"] if self.named else [None] * 4
        y = nn.relu(norm(names[0])(x))
        y = nn.Conv(self.bn_size * self.growth, (1, 1), use_bias=False, name=names[1])(y)
        y = nn.relu(norm(names[2])(y))
        y = nn.Conv(self.growth, (3, 3), use_bias=False, name=names[3])(y)
        return jnp.concatenate([x, y], axis=-1)


class DenseBlock(nn.Module):
    layers: int
    bn_size: int
    growth: int
    named: bool = False

    @nn.compact
    def __call__(self, x):
        for i in range(1, self.layers + 1):
            name = f"denselayer{i}" if self.named else None
            x = DenseLayer(self.bn_size, self.growth, self.named, name=name)(x)
        return x


class TransitionLayer(nn.Module):
    width: int
    named: bool = False

    @nn.compact
    def __call__(self, x):
        names = ["norm", "conv"] if self.named else [None] * 2
        x = nn.relu(norm(names[0])(x))
        x = nn.Conv(self.width, (1, 1), use_bias=False, name=names[1])(x)
        return nn.avg_pool(x, (2, 2), strides=(2, 2))


class Numbered(nn.Module):
    """A network with a 3x3 stem that has a bias, as in the UvA's tutorial."""

    classes: int = 3
    layers: tuple[int, ...] = (11, 2)
    bn_size: int = 2
    growth: int = 3

    @nn.compact
    def __call__(self, x):
        width = self.bn_size * self.growth
        x = nn.Conv(width, (3, 3))(x)
        for i, layers in enumerate(self.layers):
            x = DenseBlock(layers, self.bn_size, self.growth)(x)
            width += layers * self.growth
            if i < len(self.layers) - 1:
                width //= 2
                x = TransitionLayer(width)(x)
        x = nn.relu(norm()(x)).mean((1, 2))
        return nn.Dense(self.classes)(x)


class Named(nn.Module):
    """A network with torchvision's names and padding, except ``backbone`` for ``features``."""

    spec: dm.DenseNetSpec

    @nn.compact
    def __call__(self, x):
        x = Features(self.spec, name="backbone")(x)
        return nn.Dense(self.spec.config.num_classes, name="classifier")(x.mean((1, 2)))


class Features(nn.Module):
    spec: dm.DenseNetSpec

    @nn.compact
    def __call__(self, x):
        config = self.spec.config
        both = [(3, 3), (3, 3)]
        x = nn.Conv(config.num_init_features, (7, 7), (2, 2), both, use_bias=False, name="conv0")(x)
        x = nn.relu(norm("norm0")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for block, transition in self.spec.stages:
            sizes = (len(block.layers), config.bn_size, config.growth_rate)
            x = DenseBlock(*sizes, named=True, name=block.name)(x)
            if transition:
                x = TransitionLayer(transition.conv.out_channels, True, name=transition.name)(x)
        return nn.relu(norm("norm5")(x))


class ConvBlock(nn.Module):
    """The chapter's classes: convolution block, dense block, transition. Linen names the layers."""

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([x, nn.Conv(4, (3, 3))(nn.relu(norm()(x)))], axis=-1)


class ChapterBlock(nn.Module):
    def setup(self):
        self.net = nn.Sequential([ConvBlock(), ConvBlock()])

    def __call__(self, x):
        return self.net(x)


class TransitionBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(6, (1, 1))(nn.relu(norm()(x)))


class Chapter(nn.Module):
    def setup(self):
        stem = [nn.Conv(4, (7, 7), (2, 2), padding="same"), norm(), nn.relu, lambda x: x]
        last = [norm(), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(10)]
        inside = [ChapterBlock(), TransitionBlock(), ChapterBlock()]
        self.net = nn.Sequential([*stem, *inside, *last])

    def __call__(self, x):
        return self.net(x)


def drawn(network, size=9, channels=3, seed=5):
    """Return random variables for the network in float64, none of them trivial."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        spread = 1 / max(np.sqrt(leaf.size / leaf.shape[-1]), 1) if len(leaf.shape) > 1 else 0.2
        is_positive = path[-1].key in ("scale", "var")
        return rng.normal(0, spread, leaf.shape) + is_positive

    return jax.tree.map_with_path(draw, shapes)


def answers(network, variables, x):
    with precision("float64"):
        return np.asarray(network.apply(variables, jnp.asarray(x.transpose(0, 2, 3, 1))))


def save(variables, path, kind):
    if kind == "msgpack":
        path.write_bytes(serialization.to_bytes(variables))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(jax.tree.map(jnp.asarray, variables)))
    elif kind == "frozen pickle":
        path.write_bytes(pickle.dumps(flax.core.freeze(variables)))
    elif kind == "safetensors":
        flat = flax.traverse_util.flatten_dict(variables, sep="/")
        save_file({name: np.ascontiguousarray(array) for name, array in flat.items()}, path)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, variables)


def test_numbered_layers_answer_as_what_is_read_of_them(tmp_path):
    network = Numbered()
    variables = drawn(network)
    save(variables, tmp_path / "x", "msgpack")
    read = formats.read(tmp_path / "x")
    config = read.spec.config
    assert (config.stem, config.block_config, config.bn_size) == ("cifar", (11, 2), 2)
    assert (config.bn_eps, config.bn_decay) == (1e-5, 0.99)
    x = images(read.spec, 9)
    expected = answers(network, variables, x)
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13
    told = "of its convolutions, only the first has a bias: zero biases were added"
    assert told in read.notes


def test_torchvisions_names_answer_as_what_is_read_of_them(tmp_path):
    spec = small("bottleneck", bn_eps=1e-5, bn_decay=0.99, compression=0.5)
    network = Named(spec)
    variables = drawn(network, 33)
    save(variables, tmp_path / "x", "msgpack")
    read = formats.read(tmp_path / "x")
    assert read.spec == spec
    assert read.usage.running_variance == "biased"
    x = images(spec, 34)
    expected = answers(network, variables, x)
    assert deviation(dm.reference.predict(read.spec, read.weights, x), expected) < 1e-13


@pytest.mark.parametrize("kind", ["msgpack", "pickle", "frozen pickle", "safetensors", "orbax"])
def test_every_kind_of_file_gives_the_same_weights(tmp_path, kind):
    network = Numbered(layers=(1, 1))
    variables = jax.tree.map(np.float32, drawn(network))
    save(variables, tmp_path / f"x.{kind.split()[-1]}", kind)
    read = formats.read(tmp_path / f"x.{kind.split()[-1]}")
    assert formats.guess(tmp_path / f"x.{kind.split()[-1]}") == "linen"
    params, stats = variables["params"], variables["batch_stats"]
    layer = params["DenseBlock_1"]["DenseLayer_0"]
    for name, expected in {
        "features.conv0.weight": params["Conv_0"]["kernel"].transpose(3, 2, 0, 1),
        "features.denseblock2.denselayer1.conv2.weight": layer["Conv_1"]["kernel"].transpose(
            3, 2, 0, 1
        ),
        "features.transition1.norm.weight": params["TransitionLayer_0"]["BatchNorm_0"]["scale"],
        "features.norm5.running_var": stats["BatchNorm_0"]["var"],
        "classifier.weight": params["Dense_0"]["kernel"].T,
    }.items():
        np.testing.assert_array_equal(read.weights[name], expected)


@pytest.mark.parametrize("of", ["jax", "numpy"])
def test_a_pickle_of_bfloat16_is_read_bit_for_bit(tmp_path, of):
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), drawn(Numbered(layers=(1, 1))))
    expected = jax.tree.map(lambda a: np.asarray(a, np.float32), variables)
    save(expected, tmp_path / "wide", "msgpack")
    given = jax.tree.map(np.asarray, variables) if of == "numpy" else variables
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(given))
    read = formats.read(tmp_path / "x.pkl")
    for name, array in formats.read(tmp_path / "wide").weights.items():
        assert read.weights[name].dtype == np.float32
        np.testing.assert_array_equal(read.weights[name], array)


def test_the_state_of_a_training_is_read_without_its_optimizer(tmp_path):
    class State(TrainState):
        batch_stats: dict

    variables = jax.tree.map(np.float32, drawn(Numbered(layers=(1, 1))))
    state = State.create(apply_fn=None, tx=optax.sgd(0.1, momentum=0.9), **variables)
    state = state.replace(step=3)
    save(state, tmp_path / "x.msgpack", "msgpack")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "folder", {"model": state, "epoch": 2})
    save(variables, tmp_path / "plain.msgpack", "msgpack")
    expected = formats.read(tmp_path / "plain.msgpack").weights
    for path in ("x.msgpack", "folder"):
        read = formats.read(tmp_path / path)
        assert read.weights.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(read.weights[name], array)
        assert any("opt_state" in note for note in read.notes)


def test_the_chapters_network_is_refused_because_it_may_pad_same(tmp_path):
    save(drawn(Chapter(), 32, 1), tmp_path / "x", "msgpack")
    with pytest.raises(dm.WeightsError) as caught:
        formats.read(tmp_path / "x")
    assert "the network of the chapter in Dive into Deep Learning in Flax Linen" in str(
        caught.value
    )
    assert "SAME padding in the stem's convolution and max pooling" in str(caught.value)
    assert "no tensor shows it" in str(caught.value)


def test_what_is_written_is_what_flax_writes_and_reads(tmp_path):
    spec = small("bottleneck", bn_eps=1e-5, bn_decay=0.99)
    weights = as_float32(random_weights(spec))
    formats.write(tmp_path / "x.msgpack", dm.Checkpoint(spec, weights))
    content = (tmp_path / "x.msgpack").read_bytes()
    variables = serialization.msgpack_restore(content)
    assert set(variables) == {"params", "batch_stats"}
    assert serialization.to_bytes(variables) == content
    stem = variables["params"]["features"]["conv0"]["kernel"]
    np.testing.assert_array_equal(stem.transpose(3, 2, 0, 1), weights["features.conv0.weight"])
    back = formats.read(tmp_path / "x.msgpack")
    assert back.spec == spec
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
