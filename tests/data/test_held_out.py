"""Test images: by default none that the network was trained on, and the user is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densenet_multi as dm
from densenet_multi.data import DataError, load_data, load_held_out, load_sample, sources
from densenet_multi.data.folder import fingerprints, recognized

CLASSES = ("cat", "dog")


def write(root: Path, classes=CLASSES, count: int = 10, start: int = 0) -> Path:
    """Write a folder for each class; no two images are equal, even if their names are."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            color = (start + i, 50 * label, len(root.name))
            Image.new("RGB", (4, 4), color).save(root / name / f"{i}.png")
    return root


def loaded(root: Path, **options):
    return load_data(f"folder:{root}", **{"image_size": 4, **options})


def held_out(root: Path, usage: dm.Usage | None = None, **options):
    return load_held_out(f"folder:{root}", image_size=4, usage=usage, **options)


def trained_on(root: Path, seed: int = 0) -> dm.Usage:
    """Return the usage that is recorded for a network trained on this folder."""
    data = loaded(root, seed=seed)
    return dm.Usage(split_seed=data.split_seed, trained_on=data.fingerprints())


def names(examples) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in examples.paths]


def everything(examples) -> np.ndarray:
    return examples.take(np.arange(len(examples)))


# --- One folder ---------------------------------------------------------------------------------


def test_of_another_folder_than_that_of_training_all_images_are_used(tmp_path):
    usage = trained_on(write(tmp_path / "train"))
    write(tmp_path / "other", start=100)
    found = held_out(tmp_path / "other", usage)
    assert (found.split, len(found.examples)) == ("all", 20)
    assert found.examples.labels.tolist() == [0] * 10 + [1] * 10
    why = "since the network was not trained on this folder"
    assert found.notes == (f"{tmp_path / 'other'}: testing with 20 images, all of them, {why}",)


@pytest.mark.parametrize("seed", [0, 3])
def test_of_the_folder_of_training_only_what_was_set_apart_is_used(tmp_path, seed):
    usage = trained_on(write(tmp_path / "train"), seed)
    found = held_out(tmp_path / "train", usage)
    assert found.split == "test"
    assert names(found.examples) == names(loaded(tmp_path / "train", seed=seed).test)
    (note,) = found.notes
    assert "testing with 4 images of 20, the fifth of each class that was held out when" in note


def test_the_folder_of_training_is_recognized_where_it_was_moved_and_its_files_renamed(tmp_path):
    root = write(tmp_path / "train")
    usage = trained_on(root, seed=2)
    before = everything(held_out(root, usage).examples)
    for path in root.glob("*/*.png"):
        path.rename(path.with_name(f"photo {path.name}"))
    root.rename(tmp_path / "moved")
    found = held_out(tmp_path / "moved", usage)
    assert found.split == "test"
    np.testing.assert_array_equal(everything(found.examples), before)
    assert len(found.notes) == 1


def test_images_of_the_training_in_another_folder_are_named(tmp_path):
    usage = trained_on(write(tmp_path / "train"))
    other = write(tmp_path / "other", start=100)
    seen = loaded(tmp_path / "train").train.paths[0]
    shutil.copy(seen, other / "dog" / "copy.png")
    found = held_out(other, usage)
    assert (found.split, len(found.examples)) == ("all", 21)
    assert "(1 of the 16 recorded images): the results are better" in found.notes[1]


def test_a_folder_that_has_changed_since_the_training_is_not_trusted(tmp_path):
    usage = trained_on(write(tmp_path / "train"))
    for i in range(10, 17):  # which changes the images that are set apart
        Image.new("RGB", (4, 4), (i, 9, 9)).save(tmp_path / "train" / "cat" / f"{i}.png")
    found = held_out(tmp_path / "train", usage)
    assert found.split == "test"
    both = set(recognized(found.examples.paths, usage.trained_on))
    assert both
    assert f"({len(both)} of the 16 recorded images)" in found.notes[1]


def test_without_any_record_of_the_folder_the_split_of_the_training_is_used_and_said(tmp_path):
    write(tmp_path / "train")
    found = held_out(tmp_path / "train", dm.Usage(split_seed=4))
    assert names(found.examples) == names(loaded(tmp_path / "train", seed=4).test)
    assert "the fifth of each class that seed 4 holds out" in found.notes[0]
    assert "does not record the training folder: if it was another one" in found.notes[0]


def test_of_a_network_that_was_trained_on_no_folder_all_images_are_used(tmp_path):
    found = held_out(write(tmp_path / "own"), dm.Usage())
    assert (found.split, len(found.examples)) == ("all", 20)
    assert "the file records no training folder" in found.notes[0]


@pytest.mark.parametrize(("split", "count"), [("test", 4), ("train", 16), ("all", 20)])
def test_the_split_can_be_chosen(tmp_path, split, count):
    root = write(tmp_path / "train")
    usage = trained_on(root, seed=1)
    found = held_out(root, usage, split=split)
    assert (found.split, len(found.examples)) == (split, count)
    assert len(found.notes) == (2 if split == "all" else 1)
    if split != "all":
        assert names(found.examples) == names(getattr(loaded(root, seed=1), split))


def test_a_seed_requests_the_images_that_it_sets_apart(tmp_path):
    write(tmp_path / "train")
    other = write(tmp_path / "other", start=100)
    found = held_out(other, trained_on(tmp_path / "train"), seed=7)
    assert names(found.examples) == names(loaded(other, seed=7).test)
    assert "that seed 7 holds out" in found.notes[0]


def test_statistics_are_recomputed_on_other_images_than_those_of_the_test(tmp_path):
    found = held_out(write(tmp_path / "own"), with_train=True)
    assert found.split == "test"
    assert not set(names(found.examples)) & set(names(found.train))
    assert len(found.train) == 16


def test_one_image_of_a_class_is_enough_to_test_with(tmp_path):
    root = write(tmp_path / "own", count=1)
    assert len(held_out(root).examples) == 2
    with pytest.raises(DataError, match=r"cat: expected at least two images.*found 1"):
        held_out(root, split="test")


def test_at_most_32_images_are_recorded_and_evenly_spread(tmp_path):
    images = loaded(write(tmp_path / "train", count=40)).train
    recorded = fingerprints(images)
    assert len(set(recorded)) == 32
    found = recognized(images.paths, recorded)
    positions = [i for i, path in enumerate(images.paths) if path in found]
    assert positions[0] == 0
    assert positions[-1] == len(images) - 1
    assert set(np.diff(positions)) <= {2, 3}


def test_published_data_are_not_recorded_and_their_splits_can_be_chosen():
    data = load_data("sample", image_size=28)
    assert (data.fingerprints(), data.split_seed, data.notes) == (None, None, ())
    labels = {split: load_sample(split)[1] for split in ("train", "test")}
    labels["all"] = np.concatenate([labels["train"], labels["test"]])
    for split, expected in labels.items():
        found = load_held_out("sample", image_size=28, split=split)
        np.testing.assert_array_equal(found.examples.labels, expected)
    assert load_held_out("sample", image_size=28).split == "test"
    picked = np.array([1999, 3, 1000, 0])
    expected = np.concatenate([everything(data.train), everything(data.test)])[picked]
    np.testing.assert_array_equal(found.examples.take(picked), expected)


def test_another_split_does_not_exist():
    with pytest.raises(dm.ConfigError, match="split: expected 'test' or 'train' or 'all'"):
        load_held_out("sample", image_size=28, split="val")


# --- Folders with parts -------------------------------------------------------------------------


def write_parts(root: Path, *parts: str, **options) -> Path:
    for i, part in enumerate(parts):
        write(root / part, start=50 * i, **options)
    return root


@pytest.mark.parametrize(
    ("parts", "tested"),
    [
        (["train", "val", "test"], "val"),
        (["train", "test"], "test"),
        (["Training", "validation"], "validation"),
        (["train", "Valid", "TEST"], "Valid"),
        (["train", "testing"], "testing"),
    ],
)
def test_training_uses_the_part_for_it_and_validates_with_the_other(tmp_path, parts, tested):
    root = write_parts(tmp_path / "data", *parts)
    data = loaded(root)
    assert (data.class_names, data.split_seed) == (CLASSES, None)
    assert {path.parent.parent.name for path in data.train.paths} == {parts[0]}
    assert {path.parent.parent.name for path in data.test.paths} == {tested}
    assert (len(data.train), len(data.test)) == (20, 20)
    (note,) = data.notes
    assert f"training on {parts[0]} (20 images), testing with {tested} (20 images)" in note
    assert (f"; not used: {parts[-1]}" in note) == (len(parts) == 3)


@pytest.mark.parametrize(
    ("parts", "split", "expected"),
    [
        (["train", "val", "test"], None, ["test"]),
        (["train", "val"], None, ["val"]),
        (["val", "test"], None, ["test"]),
        (["train", "val", "test"], "train", ["train"]),
        (["train", "val", "test"], "all", ["train", "val", "test"]),
    ],
)
def test_a_network_is_tested_with_the_part_for_it_and_that_is_said(
    tmp_path, parts, split, expected
):
    found = held_out(write_parts(tmp_path / "data", *parts), split=split)
    assert len(found.examples) == len(found.examples.labels) == 20 * len(expected)
    note = found.notes[0]
    assert note.partition("images from ")[2].partition(";")[0].split(", ") == expected
    assert note.endswith("; there is no test folder") == (expected == ["val"])
    assert everything(found.examples).shape == (20 * len(expected), 3, 4, 4)


def test_the_training_images_of_parts_are_recorded_and_recognized(tmp_path):
    root = write_parts(tmp_path / "data", "train", "val")
    usage = trained_on(root)
    assert usage.split_seed is None
    assert len(held_out(root, usage).notes) == 1
    found = held_out(root / "train", usage)
    assert (found.split, len(found.examples)) == ("all", 20)
    assert "trained on all of this folder" in found.notes[0]
    assert "20 of the 20" in found.notes[1]
    assert len(held_out(root / "val", usage).notes) == 1


def test_statistics_are_recomputed_on_the_part_to_train_on(tmp_path):
    found = held_out(write_parts(tmp_path / "data", "train", "val", "test"), with_train=True)
    assert {path.parent.parent.name for path in found.train.paths} == {"train"}
    assert {path.parent.parent.name for path in found.examples.paths} == {"test"}


def test_a_part_may_lack_a_class_but_have_none_of_its_own(tmp_path):
    root = tmp_path / "data"
    write(root / "train", ("ant", "bee", "cat"))
    write(root / "val", ("bee", "cat"))
    data = loaded(root)
    assert data.class_names == ("ant", "bee", "cat")
    assert sorted(set(data.test.labels.tolist())) == [1, 2]
    write(root / "val", ("fox", "gnu"))
    with pytest.raises(DataError, match=r"expected only the classes .*train, found also fox, g"):
        loaded(root)
    for path in (root / "train" / "ant").iterdir():
        path.unlink()
    for name in ("fox", "gnu"):
        shutil.rmtree(root / "val" / name)
    with pytest.raises(DataError, match=r"train/ant: expected at least one image, for training"):
        loaded(root)


def test_classes_that_are_called_like_parts_are_classes(tmp_path):
    data = loaded(write(tmp_path / "own", ("train", "test", "plane")))
    assert data.class_names == ("plane", "test", "train")
    assert data.split_seed == 0


def test_a_seed_splits_no_folder_with_parts_and_that_is_said(tmp_path):
    found = held_out(write_parts(tmp_path / "data", "train", "test"), seed=7)
    assert found.notes[-1].endswith("data: seed=7 is not used: this folder already has splits")
    assert {path.parent.parent.name for path in found.examples.paths} == {"test"}


def test_folders_beside_the_parts_are_not_used_and_that_is_said(tmp_path):
    root = write_parts(tmp_path / "data", "train", "val")
    (root / "annotations").mkdir()
    data = loaded(root)
    assert (data.class_names, len(data.train)) == (CLASSES, 20)
    assert data.notes[0].endswith("; not used: annotations")


def test_two_folders_for_one_part_are_ambiguous(tmp_path):
    root = write_parts(tmp_path / "data", "train", "val", "valid")
    with pytest.raises(DataError, match="only one of the folders val and valid, found both"):
        loaded(root)


def test_parts_without_one_to_train_on_are_refused_with_what_to_type(tmp_path):
    root = write_parts(tmp_path / "data", "val", "test")
    with pytest.raises(DataError, match=r"named train beside val, test, found none; .*data='fo"):
        loaded(root)
    with pytest.raises(DataError, match=r"folder named train, found val, test; .*split='all'"):
        held_out(root, split="train")


# --- At another level ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("below", "advice"),
    [
        (
            "train",
            "in train: cat, dog; to use these as the classes, pass data='folder:{}/train'",
        ),
        ("images", "in images: cat, dog; to use these as the classes, pass data='folder:{}/im"),
    ],
)
def test_classes_one_level_deeper_are_found_and_what_to_type_is_said(tmp_path, below, advice):
    root = write(tmp_path / "data" / below).parent
    for load in loaded, held_out:
        with pytest.raises(DataError) as error:
            load(root)
        assert f"{root}: expected one folder per class, with the images directly in it" in str(
            error.value
        )
        assert advice.format(root) in str(error.value)


def test_a_folder_train_beside_images_without_classes_is_the_one_to_type(tmp_path):
    root = write(tmp_path / "data" / "train").parent
    (root / "test").mkdir()
    Image.new("L", (4, 4)).save(root / "test" / "1.png")
    with pytest.raises(DataError, match=f"as the classes, pass data='folder:{root}/train'"):
        loaded(root)


def test_parts_inside_the_classes_are_to_be_turned_around(tmp_path):
    for name in CLASSES:
        write(tmp_path / "data" / name, ("train", "test"))
    with pytest.raises(DataError, match=r"into the split folders, as in .*data/test/cat"):
        loaded(tmp_path / "data")


def test_images_in_a_folder_of_their_own_inside_the_class_are_to_be_moved(tmp_path):
    for name in CLASSES:
        write(tmp_path / "data" / name, ("images",))
    with pytest.raises(DataError, match=r"move the files in .*data/cat/images to .*data/cat$"):
        loaded(tmp_path / "data")


def test_images_without_folders_are_counted(tmp_path):
    root = write(tmp_path / "data", ("cat",)) / "cat"
    with pytest.raises(DataError, match="found 10 images but no folder; put images into"):
        loaded(root)


# --- What is no image ---------------------------------------------------------------------------


def test_all_files_that_are_no_images_are_listed_at_once(tmp_path):
    root = write(tmp_path / "data", count=3)
    (root / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "cat" / "desktop.ini").write_text("[x]")
    (root / "cat" / "LICENSE").write_text("x")
    (root / "dog" / "a.webp").write_bytes(b"x")
    (root / "dog" / "b.png").write_bytes(b"")
    (root / "dog" / "c.jpg").symlink_to("gone.jpg")
    (root / "dog" / "d.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:")
    (root / "dog" / "more").mkdir()
    (root / "dog" / ".DS_Store").write_bytes(b"x")  # hidden, so ignored
    with pytest.raises(DataError) as error:
        loaded(root)
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"{root}: expected only PNG, JPEG, WebP, BMP, TIFF or GIF images in")
    assert "found 8 other files; convert or remove them:" in first
    assert lines == [
        "  cat/LICENSE: a file without a suffix",
        "  cat/Thumbs.db: a file with the suffix .db",
        "  cat/desktop.ini: a file with the suffix .ini",
        "  dog/a.webp: a file that starts with 78",
        "  dog/b.png: an empty file; copy it again, or remove it",
        "  dog/c.jpg: a broken link, to gone.jpg; fix or remove it",
        "  dog/d.png: a Git LFS pointer to a file; type 'git lfs pull' in its repository",
        "  dog/more: a folder",
    ]


def test_of_many_files_that_are_no_images_the_first_are_listed_and_the_others_counted(tmp_path):
    root = write(tmp_path / "data", count=3)
    for i in range(25):
        (root / "cat" / f"{i:02}.xml").write_text("x")
    with pytest.raises(DataError) as error:
        loaded(root)
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert (lines[20], lines[21]) == ("  cat/19.xml: a file with the suffix .xml", "  and 5 more")


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        (lambda path: path.symlink_to("gone.png"), "to gone.png; fix or remove it"),
        (lambda path: path.write_bytes(b""), "an empty file; copy it again, or remove it"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:"),
            "a Git LFS pointer to a file; type 'git lfs pull' in its repository",
        ),
        (lambda path: path.write_bytes(b"GIF7"), "47 49 46 37; convert or remove it"),
    ],
)
def test_what_is_to_be_done_about_a_file_follows_from_what_it_is(tmp_path, spoil, advice):
    root = write(tmp_path / "data", count=3)
    spoil(root / "cat" / "x.png")
    with pytest.raises(DataError) as error:
        loaded(root)
    assert str(error.value).endswith(advice)


@pytest.mark.parametrize("place", ["", "train", "train/cat", "val"])
def test_what_macos_adds_to_archives_is_ignored_everywhere(tmp_path, place):
    for part in ("train", "val"):
        write(tmp_path / "data" / part, count=3)
    found = loaded(tmp_path / "data")
    added = tmp_path / "data" / place / "__MACOSX" / "cat"
    added.mkdir(parents=True)
    (added / "._1.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "data" / "train" / "cat" / "._1.png").write_bytes(b"\0\5\26\7")
    again = loaded(tmp_path / "data")
    assert (again.class_names, again.notes) == (found.class_names, found.notes)
    assert (len(again.train), len(again.test)) == (len(found.train), len(found.test))


def test_a_broken_link_to_the_folder_of_a_class_is_not_overlooked(tmp_path):
    root = write(tmp_path / "data", count=3)
    (root / "fox").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"fox: expected a folder for each class, found a broken l"):
        loaded(root)


# --- Names --------------------------------------------------------------------------------------


def test_an_existing_folder_needs_no_prefix(tmp_path, monkeypatch):
    root = write(tmp_path / "own")
    data = load_data(str(root), image_size=4)
    assert (data.name, data.where, len(data.train)) == ("folder", str(root), 16)
    monkeypatch.chdir(tmp_path)
    assert load_data("own", image_size=4).where == "own"
    assert sources.spelled_out("own") == f"folder:{root}"
    assert sources.spelled_out("folder:own") == f"folder:{root}"
    write(tmp_path / "sample")
    assert load_data("sample", image_size=4).where == "the sample in this package"
    assert sources.spelled_out("sample") == "sample"
    assert load_data("./sample", image_size=4).name == "folder"
    (tmp_path / "a:b").symlink_to(root)
    assert sources.find("a:b") == ("folder", "a:b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/own", "data: expected an existing folder; found 'nowhere/own'"),
        ("pictures.zip", r"data: expected a folder of images \(unpack an archive first\)"),
        ("fashon-mnist", "did you mean 'fashion-mnist'"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures.zip").write_bytes(b"PK")
    with pytest.raises(dm.ConfigError, match=message):
        load_data(name, image_size=4)
    assert sources.spelled_out(name) == name
