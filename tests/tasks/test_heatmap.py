"""A heatmap: where the network sees a class, over the picture that was classified."""

import io
import json
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import colormaps
from PIL import Image

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi import _heatmap
from densenet_multi.commands import main
from densenet_multi.tasks import predict

NAME = dm.backend_names()[0]
USAGE = {"value_range": (0.0, 1.0), "activation": "softmax"}
DARK, BRIGHT = (np.array(colormaps[_heatmap.COLORS](x)[:3]) for x in (0.0, 1.0))


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Return a function that saves a network of 16x16; its backend is the reference."""

    def save(spec=None, size=16, **usage):
        spec = spec or small("cubic")
        weights = {name: array.astype(np.float32) for name, array in random_weights(spec).items()}
        path = tmp_path / "w.safetensors"
        dm.save_weights(path, spec, weights, dm.Usage(image_size=size, **USAGE | usage))
        backend = Mock(FRAMEWORK="Fake")
        backend.predict = lambda _, x: dm.reference.predict(spec, weights, x)
        backend.features = lambda _, x: dm.reference.forward(spec, weights, x).stages
        monkeypatch.setattr(predict, "load_backend", Mock(return_value=backend))
        return path

    return save


@pytest.fixture
def photo(tmp_path):
    return picture(tmp_path / "photo.png", 40, 24)


def picture(path, width, height, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def invoke(*arguments):
    words = ["predict", *map(str, arguments), "--backend", NAME]
    return CliRunner().invoke(main, words)


# --- The picture --------------------------------------------------------------------------------


def drawn(shape, values):
    made = Image.open(io.BytesIO(_heatmap.over(np.zeros(shape, np.float32), np.array(values))))
    assert (made.format, made.mode) == ("PNG", "RGB")
    return np.asarray(made) / 255


def test_the_colors_lie_where_the_map_is_high_and_low():
    half = drawn((20, 60), [[0.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    np.testing.assert_allclose(half[-1, -1], _heatmap.SHARE_OF_COLOR * BRIGHT, atol=0.01)
    for corner in (half[0, 0], half[0, -1], half[-1, 0]):
        np.testing.assert_allclose(corner, _heatmap.SHARE_OF_COLOR * DARK, atol=0.01)
    between = half[-1, 40]  # halfway between the centers of the last two places
    middle = np.array(colormaps[_heatmap.COLORS](0.5)[:3])
    np.testing.assert_allclose(between, _heatmap.SHARE_OF_COLOR * middle, atol=0.02)


def test_a_map_without_differences_and_a_picture_of_one_pixel_are_drawn():
    cases = {(4, 6): [[2.5, 2.5]], (1, 1): [[-3.0]], (1, 2): [[1.0, 2.0], [0.0, 3.0]]}
    for shape, values in cases.items():
        assert drawn(shape, values).shape == (*shape, 3)
    dark = _heatmap.SHARE_OF_COLOR * DARK
    np.testing.assert_allclose(drawn((1, 1), [[-3.0]])[0, 0], dark, atol=0.01)


def test_the_picture_is_seen_through_the_colors():
    white = np.ones((8, 8), np.float32)
    light, dark = (
        np.asarray(Image.open(io.BytesIO(_heatmap.over(x, np.zeros((2, 2)))))) / 255
        for x in (white, 0 * white)
    )
    np.testing.assert_allclose(light - dark, 1 - _heatmap.SHARE_OF_COLOR, atol=0.01)


# --- The command --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_the_heatmap_has_the_size_of_the_picture(saved, tmp_path, mode):
    path, file = saved(), tmp_path / "map.png"
    done = invoke(path, picture(tmp_path / "p.png", 50, 21, mode), "--heatmap", file)
    assert done.exit_code == 0, done.output
    with Image.open(file) as made:
        assert (made.size, made.mode) == ((50, 21), "RGB")


def test_the_heatmap_of_a_turned_photograph_is_upright(saved, tmp_path):
    with Image.open(picture(tmp_path / "p.png", 50, 20)) as upright:
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees to display
        upright.save(tmp_path / "p.jpg", exif=exif)
    done = invoke(saved(), tmp_path / "p.jpg", "--heatmap", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "map.png") as made:
        assert made.size == (20, 50)


def test_the_map_in_json_adds_up_to_the_output_of_the_first_class_or_the_named(saved, photo):
    path = saved(class_names=["a", "b", "c"], activation="none")
    file = photo.with_name("map.png")
    for chosen in ((), ("--class", "a"), ("--class", "c"), ("--class", "1")):
        done = invoke(path, photo, "--heatmap", file, *chosen, "--format", "json")
        assert done.exit_code == 0, done.output
        (entry,) = json.loads(done.stdout)
        found = entry["heatmap"]
        outputs = {row["class"]: row["output"] for row in entry["top"]}
        wanted = {"1": "b"}.get(chosen[-1], chosen[-1]) if chosen else entry["top"][0]["class"]
        assert (found["class"], found["index"]) == (wanted, "abc".index(wanted))
        assert found["file"] == str(file)
        total = np.mean(found["map"]) + found["bias"]
        assert total == pytest.approx(outputs[wanted], abs=1e-12)
        shown = invoke(path, photo, "--heatmap", file, *chosen).stdout.splitlines()
        low, high = np.min(found["map"]), np.max(found["map"])
        assert shown[-2] == f"  adds to {wanted}: {low:.2f} (dark) to {high:.2f} (bright)"
        assert shown[-1].endswith(f"= output {outputs[wanted]:.2f}")


def test_the_bright_spot_follows_what_moves(saved, tmp_path):
    """The map is of the picture: of a mirrored picture and mirrored kernels, it is mirrored."""
    path = saved()
    spec, weights = dm.load_weights(path)
    mirrored = {n: a[..., ::-1] if a.ndim == 4 else a for n, a in weights.items()}
    with Image.open(picture(tmp_path / "p.png", 16, 16)) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "q.png")
    maps = []
    for name, used in (("p", weights), ("q", mirrored)):
        predict.load_backend().features = lambda _, x, w=used: (
            dm.reference.forward(spec, w, x).stages
        )
        file = tmp_path / f"{name}-map.png"
        assert (
            invoke(path, tmp_path / f"{name}.png", "--heatmap", file, "--class", 2).exit_code == 0
        )
        with Image.open(file) as made:
            maps.append(np.asarray(made).astype(int))
    assert abs(maps[0] - maps[1][:, ::-1]).max() <= 1
    assert abs(maps[0] - maps[1]).max() > 20


def test_a_last_map_of_one_pixel_is_said_to_show_no_places(saved, photo):
    path, file = saved(size=2), photo.with_name("map.png")
    done = invoke(path, photo, "--heatmap", file)
    assert done.exit_code == 0, done.output
    assert "the network's last map has one pixel" in done.stderr
    assert "pass a larger --image-size" in done.stderr
    assert "one pixel" not in invoke(path, photo, "--heatmap", file, "--image-size", 16).stderr


# --- What is refused ----------------------------------------------------------------------------


def refused(path, *arguments, **expected):
    """Run the command, which must fail before it loads a backend; return its message."""
    before = predict.load_backend.call_count
    done = invoke(path, *arguments)
    assert done.exit_code == expected.get("code", 2), done.output
    assert predict.load_backend.call_count == before
    assert not done.stdout
    return done.stderr


def test_what_cannot_be_drawn_is_refused_by_name_before_anything_is_loaded(saved, photo):
    path, file = saved(), photo.with_name("map.png")
    text = refused(path, photo, photo, "--heatmap", file)
    assert "--heatmap: expected one image, found 2" in text
    text = refused(path, photo, "--heatmap", photo.with_name("map.jpg"))
    assert "--heatmap: expected a name that ends in .png, found map.jpg" in text
    with pytest.raises(dm.ConfigError, match=r"heatmap: expected a name that ends in \.png; found"):
        predict.predict(path, photo, heatmap="map.svg", backend_name=NAME)
    text = refused(path, photo, "--class", "class 1")
    assert "--class: expected none without --heatmap; found 'class 1'" in text
    text = refused(saved(small("cubic", global_pool="max")), photo, "--heatmap", file)
    assert f"{path}: spec: expected a classifier of the average of the last map" in text
    text = refused(saved(small("cubic", num_classes=0), activation=None), photo, "--heatmap", file)
    assert "found one without (num_classes=0)" in text
    assert not file.exists()


def test_an_unknown_class_is_refused_with_the_known_ones(saved, photo):
    file = photo.with_name("map.png")
    path = saved(class_names=["bag", "shirt", "shoe"])
    text = refused(path, photo, "--heatmap", file, "--class", "shoes")
    assert "--class: expected a class of the network or its number, found 'shoes'" in text
    assert "did you mean 'shoe'? known: bag, shirt, shoe" in text
    assert "found '3'; known: bag" in refused(path, photo, "--heatmap", file, "--class", "3")
    path = saved(class_names=["crane", "bag", "crane"])
    text = refused(path, photo, "--heatmap", file, "--class", "crane")
    assert (
        "expected one class, found 'crane' as classes 0 and 2; type the number: --class 0" in text
    )
    assert invoke(path, photo, "--heatmap", file, "--class", "2").exit_code == 0


def test_a_file_that_is_read_is_not_replaced(saved, photo):
    path, before = saved(), photo.read_bytes()
    link = photo.with_name("link.png")
    link.symlink_to(photo)
    for same in (photo, link):
        text = refused(path, photo, "--heatmap", same)
        assert f"--heatmap: expected a new file, found {photo}, which is read" in text
    assert photo.read_bytes() == before


def test_a_heatmap_that_fails_keeps_the_old_file(saved, photo, monkeypatch):
    path, file = saved(), photo.with_name("map.png")
    file.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", Mock(side_effect=OSError(28, "No space left")))
    assert invoke(path, photo, "--heatmap", file).exit_code == 1
    assert file.read_bytes() == b"old"
    assert sorted(each.name for each in file.parent.iterdir()) == [
        "map.png", "photo.png", "w.safetensors"
    ]  # fmt: skip
