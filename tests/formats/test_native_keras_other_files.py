"""TensorFlow's files without Keras weights: the error names each, and what to save instead."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import densenet_multi as dm
from densenet_multi import formats


def refusal(path):
    with pytest.raises(dm.WeightsError) as caught:
        formats.read(path)
    return str(caught.value)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])


def test_a_saved_model_is_called_so_and_so_is_each_of_its_files(tmp_path, capsys, model):
    model.export(tmp_path / "exported", verbose=False)
    text = refusal(tmp_path / "exported")
    assert "found a TensorFlow SavedModel; " in text
    assert "model.save('NEW.keras')" in text
    for path in (tmp_path / "exported").rglob("*"):
        if path.is_file():
            assert ("TensorFlow" in refusal(path)) or ("SavedModel" in refusal(path)), path
    assert not capsys.readouterr().err


def test_a_checkpoint_of_tensorflow_is_called_so(tmp_path):
    variable = tf.Variable(tf.ones(3))
    tf.train.Checkpoint(v=variable).save(tmp_path / "cp")
    for path in (tmp_path, *tmp_path.iterdir()):
        text = refusal(path)
        assert "TensorFlow" in text
        assert "model.save_weights('NEW.weights.h5')" in text


def test_graphs_and_networks_for_phones_are_called_so(tmp_path, model):
    function = tf.function(model).get_concrete_function(tf.TensorSpec((1, 8, 8, 3)))
    (tmp_path / "x.pb").write_bytes(function.graph.as_graph_def().SerializeToString())
    assert "found a TensorFlow graph; " in refusal(tmp_path / "x.pb")
    (tmp_path / "x.json").write_text(model.to_json())
    assert "a Keras network without its weights" in refusal(tmp_path / "x.json")


def test_an_hdf5_file_that_ends_too_early_says_how_much_is_there(tmp_path):
    for latest in (False, True):
        with h5py.File(tmp_path / "x.h5", "w", libver="latest" if latest else None) as file:
            file["numbers"] = np.arange(10.0)
        whole = (tmp_path / "x.h5").read_bytes()
        (tmp_path / "x.h5").write_bytes(whole[:-10])
        expected = f"found {len(whole) - 10:,} of the {len(whole):,} bytes of an HDF5 file"
        assert expected in refusal(tmp_path / "x.h5")
