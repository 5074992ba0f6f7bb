"""Flax's own files: Orbax folders that contain an nnx.State or plain dictionaries."""

import os
import pickle
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization
from safetensors.numpy import save_file

import densenet_multi as dm
import densenet_multi.flax as df
from cases import as_float32, random_weights, small
from densenet_multi import formats
from densenet_multi.tasks import convert

SPEC = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)

# On every restore without a target, Orbax warns that it reads the shardings from the file
pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


@pytest.fixture
def weights():
    return as_float32(random_weights(SPEC))


def test_an_orbax_folder_goes_there_and_back(tmp_path, weights):
    formats.write(tmp_path / "folder", dm.Checkpoint(SPEC, weights), "nnx")
    assert formats.guess(tmp_path / "folder") == "nnx"
    back = formats.read(tmp_path / "folder")
    assert back.usage.running_variance == "biased"
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    with pytest.raises(FileExistsError):
        formats.write(tmp_path / "folder", dm.Checkpoint(SPEC, weights), "nnx")


def test_an_orbax_folder_is_on_the_disk_with_all_that_is_in_it(tmp_path, weights, monkeypatch):
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (fsync(d), synced.add(os.fstat(d).st_ino)))
    formats.write(tmp_path / "folder", dm.Checkpoint(SPEC, weights), "nnx")
    assert {path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*"))} <= synced


def test_the_state_of_a_model_is_read_without_its_random_numbers(tmp_path, weights):
    spec = small("bottleneck", drop_rate=0.1)
    model = df.build(spec)
    df.import_weights(model, weights)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(model))
    back = formats.read(tmp_path / "state", drop_rate=0.1)
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    assert "rngs" in back.notes[0]
    assert back.spec.config.drop_rate == 0.1


def test_a_checkpoint_of_a_training_is_read_without_its_optimizer(tmp_path, weights):
    model = df.build(SPEC)
    df.import_weights(model, weights)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    with ocp.StandardCheckpointer() as checkpointer:
        both = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
        checkpointer.save(tmp_path / "state", both)
    back = formats.read(tmp_path / "state")
    assert back.spec == SPEC
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    assert "optimizer.opt_state" in back.notes[0]


@pytest.mark.parametrize("kind", ["state", "pure dictionary", "with its optimizer"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_a_pickled_state_is_read_without_random_numbers_and_optimizer(
    tmp_path, weights, kind, drop_rate
):
    model = df.build(small("bottleneck", bn_eps=1e-5, bn_decay=0.9, drop_rate=drop_rate))
    df.import_weights(model, weights)
    state = nnx.state(model)
    if kind == "with its optimizer":
        optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
        state = nnx.state((model, optimizer))
    elif kind == "pure dictionary":
        state = nnx.to_pure_dict(state)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state))
    assert formats.guess(tmp_path / "x.pkl") == "nnx"
    back = formats.read(tmp_path / "x.pkl")
    assert back.spec == SPEC
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)
    notes = " ".join(back.notes)
    assert ("dropout.rngs.key" in notes) == bool(drop_rate)
    if not drop_rate:  # with dropout there are too many names to list them all
        assert ("1.opt_state" in notes) == (kind == "with its optimizer")
    assert "an epsilon of 1e-05, a decay of 0.9, average pooling" in back.notes[-1]


def test_a_pickle_of_bfloat16_is_read_bit_for_bit(tmp_path, weights):
    model = df.build(SPEC)
    df.import_weights(model, weights)
    tree = jax.tree.map(lambda a: a.astype(jnp.bfloat16), nnx.to_pure_dict(nnx.state(model)))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree))
    back = formats.read(tmp_path / "x.pkl").weights
    for name, array in weights.items():
        halves = np.asarray(jnp.asarray(array, jnp.bfloat16), np.float32)
        np.testing.assert_array_equal(back[name], halves)


def test_a_step_of_a_checkpoint_manager_is_read_where_one_item_is_a_checkpoint(tmp_path, weights):
    model = df.build(SPEC)
    df.import_weights(model, weights)
    tree = nnx.to_pure_dict(nnx.state(model))
    saved = ocp.args.StandardSave(tree)
    with ocp.CheckpointManager(tmp_path / "one") as manager:
        manager.save(5, args=saved)
    with ocp.CheckpointManager(tmp_path / "composite") as manager:
        manager.save(5, args=ocp.args.Composite(state=saved, about=ocp.args.JsonSave({"a": 1})))
    for folder in ("one", "composite"):
        back = formats.read(tmp_path / folder / "5")
        assert back.spec == SPEC
        for name, array in weights.items():
            np.testing.assert_array_equal(back.weights[name], array)
    with ocp.CheckpointManager(tmp_path / "two") as manager:
        manager.save(5, args=ocp.args.Composite(a=saved, b=saved))
    inside = f"{tmp_path / 'two' / '5' / 'a'}, {tmp_path / 'two' / '5' / 'b'}"
    with pytest.raises(dm.WeightsError, match=re.escape(f"use one of them: {inside}")):
        formats.read(tmp_path / "two" / "5")


@pytest.mark.parametrize("kind", ["msgpack", "safetensors with slashes"])
def test_a_state_as_a_dictionary_is_read_from_other_files(tmp_path, weights, kind):
    model = df.build(SPEC)
    df.import_weights(model, weights)
    tree = nnx.to_pure_dict(nnx.state(model))
    if kind == "msgpack":
        (tmp_path / "x").write_bytes(serialization.to_bytes(tree))
    else:
        flat = flax.traverse_util.flatten_dict(tree, sep="/")
        save_file(
            {name: np.array(array, order="C") for name, array in flat.items()}, tmp_path / "x"
        )
    assert formats.guess(tmp_path / "x") == "nnx"
    back = formats.read(tmp_path / "x")
    assert back.spec == SPEC
    for name, array in weights.items():
        np.testing.assert_array_equal(back.weights[name], array)


def test_arrays_that_are_packed_too_well_are_not_unpacked(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "bomb", {"kernel": np.zeros(2**25, np.float32)})
    with pytest.raises(dm.WeightsError, match="bytes of files, found 134,21"):
        formats.read(tmp_path / "bomb")


def test_a_failure_leaves_nothing(tmp_path, monkeypatch, weights):
    def fails(*arguments):
        arguments[1].mkdir()
        raise ValueError("no space")

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", fails)
    with pytest.raises(ValueError, match="no space"):
        formats.write(tmp_path / "folder", dm.Checkpoint(SPEC, weights), "nnx")
    assert not list(tmp_path.iterdir())


def test_a_verified_folder_replaces_nothing(tmp_path, weights):
    formats.write(tmp_path / "a.safetensors", dm.Checkpoint(SPEC, weights))
    for name in ("folder", "file"):
        (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).touch()
        with pytest.raises(FileExistsError, match=f"found a {name} of this name"):
            convert.convert(
                tmp_path / "a.safetensors", tmp_path / name, destination_format="nnx", verify=True
            )
    done = convert.convert(
        tmp_path / "a.safetensors", tmp_path / "new", destination_format="nnx", verify=True
    )
    assert done["destination_model"] == "densenet_multi.flax"
    assert formats.read(tmp_path / "new").spec == SPEC


def test_a_damaged_folder_is_refused(tmp_path):
    (tmp_path / "_METADATA").write_text('{"tree_metadata": {"x": 7}}')
    with pytest.raises(dm.WeightsError, match="expected an Orbax checkpoint, found a folder"):
        formats.read(tmp_path)
