"""A run that resumes has the recipe, the weights and the data that it began with."""

import json
import os
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi.data import load_data
from densenet_multi.data.digest import digest
from densenet_multi.data.folder import ImageFiles
from densenet_multi.data.images import Preparation
from densenet_multi.tasks.train import Options, train
from densenet_multi.training.began import BEGAN, Began
from densenet_multi.training.run_folder import Recorder, RunError
from densenet_multi.training.state import TrainingState, load_state, save_state

SPEC = small("cubic", in_channels=1, num_classes=10)
RECIPE = dm.Recipe(epochs=3, milestones=(0.5,), momentum=0.9)
PIXELS = {"in_channels": 1, "value_range": [0.0, 1.0], "mean": None, "std": None}
DATA = {"training images": "12" * 32, "test images": "34" * 32, "pixels": PIXELS}
RUN = Began(RECIPE, "chapter", "a.safetensors", DATA)


def state(began=None, steps=4):
    weights = random_weights(SPEC, 0)
    return TrainingState(weights, {}, steps, (), (), 1.0, began=began)


def recorder(path, began):
    path.mkdir(exist_ok=True)
    return Recorder(path, SPEC, dm.Usage(), began)


def folder(path, images):
    """Write a folder of images, given as {name: gray level}."""
    for name, level in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), level).save(path / name)
    return path


IMAGES = {f"{name}/{number}.bmp": 20 * number for name in "ab" for number in range(6)}


def digests(path, **given):
    return load_data(f"folder:{path}", image_size=8, **given).digests()


def test_the_record_has_a_shape_for_each_of_its_fields():
    assert list(BEGAN) == [field.name for field in fields(Began)] == list(RUN.to_dict())
    assert Began.from_dict(json.loads(json.dumps(RUN.to_dict()))) == RUN


def test_what_a_run_began_with_is_in_its_state(tmp_path):
    recorder(tmp_path / "run", RUN).save(state())
    assert load_state(tmp_path / "run" / "checkpoint.safetensors")[1].began == RUN
    again = recorder(tmp_path / "run", RUN)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    again.save(again.resume())
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"recipe": replace(RECIPE, seed=1)}, "seed: expected 0, found 1;"),
        ({"recipe": replace(RECIPE, learning_rate=0.2)}, "learning_rate: expected 0.1, found 0.2;"),
        ({"recipe": replace(RECIPE, epochs=4)}, "epochs: expected 3, found 4;"),
        ({"recipe": replace(RECIPE, milestones=())}, "milestones: expected [0.5], found [];"),
        ({"recipe_name": "paper"}, 'recipe: expected "chapter", found "paper";'),
        ({"weights": None}, 'weights: expected "a.safetensors", found none;'),
        (
            {"data": DATA | {"training images": "56" * 32}},
            "training images: expected SHA256 121212121212, found SHA256 565656",
        ),
        ({"data": DATA | {"test images": "56" * 32}}, "test images: expected SHA256 3434"),
        ({"data": DATA | {"pixels": PIXELS | {"mean": [0.5]}}}, "mean: expected none, found [0.5]"),
    ],
)
def test_a_run_that_began_with_something_else_is_refused(tmp_path, changed, error):
    path = tmp_path / "run"
    recorder(path, RUN).save(state())
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(RunError) as caught:
        recorder(path, replace(RUN, **changed)).resume()
    assert str(caught.value).startswith(f"{path}: expected the run as it began, found changes: ")
    assert error in str(caught.value)
    assert f"start another run with weights='{path / 'last.safetensors'}'" in str(caught.value)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_state_of_an_older_version_resumes_and_records_since_when(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    save_state(path / "checkpoint.safetensors", SPEC, state())
    older = recorder(path, RUN)
    assert older.resume().began is None
    older.save(state(steps=7))
    again = recorder(path, RUN)
    again.resume()
    again.save(state(steps=9))
    found = load_state(path / "checkpoint.safetensors")[1].began
    assert found == replace(RUN, recorded_after_step=4)


def test_a_state_of_fit_knows_its_recipe_alone(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    save_state(path / "checkpoint.safetensors", SPEC, state(began=Began(RECIPE)))
    with pytest.raises(RunError, match="found changes: seed: expected 0, found 1; undo"):
        recorder(path, replace(RUN, recipe=replace(RECIPE, seed=1))).resume()
    later = recorder(path, RUN)
    assert later.resume().began == Began(RECIPE)
    assert later.began == replace(RUN, recorded_after_step=4)


def test_another_recipe_is_refused_before_the_backend_and_the_data_are_looked_at(tmp_path):
    path = tmp_path / "run"
    recorder(path, RUN).save(state())
    options = Options(backend_name="b", weights="a.safetensors", recipe=RECIPE, data="none")
    (path / "config.json").write_text(json.dumps(options.to_dict()))
    with pytest.raises(RunError, match="found changes: seed: expected 0, found 1; undo them"):
        train(replace(options, recipe=replace(RECIPE, seed=1)), output=path, resume=True)
    with pytest.raises(dm.ConfigError, match=r"^backend"):
        train(options, output=path, resume=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (Options(backend_name="b", recipe=replace(RECIPE, epochs=5)), "epochs: expected 3, found"),
        (Options(backend_name="b", recipe=RECIPE, recipe_name="paper"), "recipe: expected"),
        (Options(backend_name="b", recipe=RECIPE, weights="other"), "weights: expected none, fou"),
    ],
)
def test_the_report_of_a_complete_run_is_that_of_another(tmp_path, options, error):
    done = Options(backend_name="a", recipe=RECIPE).to_dict()
    epoch = {"number": 1, "steps": 4, "loss": 1.0, "accuracy": 0.5, "validation_loss": 1.0}
    epoch |= {"validation_accuracy": 0.5, "seconds": 1.0, "images_per_second": 9.0}
    report = done | {"framework": "A", "train_examples": 4, "epochs": [epoch]}
    for name, content in ("config.json", done), ("report.json", report):
        (tmp_path / name).write_text(json.dumps(content))
    same = Options(backend_name="b", recipe=RECIPE, data="folder:elsewhere")
    said = []
    found = train(same, output=tmp_path, resume=True, say=said.append)
    assert found == json.loads(json.dumps(report))
    assert said == [f"{tmp_path}: this run is complete; its data were not compared"]
    with pytest.raises(RunError, match=error):
        train(options, output=tmp_path, resume=True)


# --- Digests ------------------------------------------------------------------------------------


def test_a_folder_may_move_and_be_touched(tmp_path):
    first = folder(tmp_path / "first", IMAGES)
    expected = digests(first)
    shutil.copytree(first, tmp_path / "second")
    os.utime(tmp_path / "second" / "a" / "0.bmp")
    (tmp_path / "second" / "notes.txt").touch()
    assert digests(tmp_path / "second") == expected


def test_a_folder_with_other_pixels_names_or_split_is_another(tmp_path):
    path = folder(tmp_path / "own", IMAGES)
    was = digests(path)
    parts = "training images", "test images"
    assert all(digests(path, seed=1)[part] != was[part] for part in parts)
    chosen = load_data(f"folder:{path}", image_size=8).train.paths[0]
    before = chosen.read_bytes()
    folder(chosen.parent, {chosen.name: 99})  # a .bmp, so the file size stays the same
    found = digests(path)
    assert (found["test images"], found["pixels"]) == (was["test images"], was["pixels"])
    assert found["training images"] != was["training images"]
    chosen.write_bytes(before)
    assert digests(path) == was
    chosen.rename(chosen.with_stem(f"{chosen.stem}x"))  # which keeps the order
    assert digests(path)["training images"] != was["training images"]
    usage = dm.Usage(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert digests(path, usage=usage)["pixels"]["mean"] == [0.5] * 3


def test_a_device_among_the_images_has_no_digest():
    images = ImageFiles((os.devnull,), np.zeros(1, np.int64), Preparation(8, 1, None))
    with pytest.raises(OSError, match=f"{os.devnull}: expected a file, found a device"):
        digest(images)


def test_arrays_with_other_pixels_labels_or_shape_are_others():
    data = load_data("sample", image_size=8).train
    small = replace(data, pixels=data.pixels[:6].copy(), labels=data.labels[:6])
    was = digest(small)
    assert digest(replace(small, labels=small.labels.astype(np.int64))) == was
    others = [replace(small, pixels=small.pixels.reshape(6, 1, 14, 56))]
    others += [replace(small, labels=small.labels[::-1]), replace(small, pixels=data.pixels[1:7])]
    assert was not in {digest(other) for other in others}
    assert digest(replace(small, pixels=np.asfortranarray(small.pixels))) == was
