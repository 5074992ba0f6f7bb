"""What a user states about a network's use when converting a file: kept, shown, checked."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from cases import as_float32, random_weights, small
from densenet_multi import formats
from densenet_multi.checkpoint import IMAGENET, MAY_BE_ASSUMED
from densenet_multi.commands import main
from densenet_multi.formats.recognize import implied_usage
from densenet_multi.manifest import min_image_size
from densenet_multi.tasks import convert
from densenet_multi.tasks._stated import read_class_names, with_outputs, with_stated_pixels

SPEC = small("bottleneck", bn_eps=1e-5, bn_decay=0.9)  # 3 channels, 4 classes
THREE = "0.5,0.4,0.3"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Make a folder with a file of SPEC in torchvision's format the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convert, "load_backend", lambda _: exec("raise ImportError"))  # noqa: S102
    made = dm.Checkpoint(SPEC, as_float32(random_weights(SPEC)))
    formats.write("a.safetensors", made, "torchvision")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def converted(*options, source="a.safetensors"):
    """Convert to a portable file; return its checkpoint and the result that was printed."""
    done = run("convert", source, "b.safetensors", "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    return dm.load_checkpoint("b.safetensors"), json.loads(done.stdout)


def refused(*options):
    done = run("convert", "a.safetensors", "b.safetensors", *options)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.stderr
    with pytest.raises(FileNotFoundError):
        dm.load_checkpoint("b.safetensors")
    return done.stderr


# --- Each option --------------------------------------------------------------------------------


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--class-names", "w, x,y,z"], {"class_names": ("w", "x", "y", "z")}),
        (["--activation", "sigmoid"], {"activation": "sigmoid"}),
        (["--activation", "none"], {"activation": "none"}),
        (["--mean", THREE, "--std", "1,2,3"], {"mean": (0.5, 0.4, 0.3), "std": (1, 2, 3)}),
        (["--value-range", -1, 1], {"value_range": (-1, 1)}),
        (["--image-size", 97], {"image_size": 97}),
    ],
)
def test_what_is_stated_is_kept_in_a_portable_file_and_shown(options, expected):
    found, result = converted(*options)
    assert {name: getattr(found.usage, name) for name in expected} == expected
    assert result.get("activation") == expected.get("activation")
    shown = json.loads(run("inspect", "b.safetensors", "--format", "json").stdout)["usage"]
    for name, value in expected.items():
        assert shown[name] == (list(value) if isinstance(value, tuple) else value)
        assert name in run("inspect", "b.safetensors").stdout


@pytest.mark.usefixtures("files")
def test_a_later_conversion_keeps_it_and_overrides_what_it_states():
    converted("--class-names", "w,x,y,z", "--activation", "sigmoid", "--image-size", 97)
    done = run("convert", "b.safetensors", "c.safetensors", "--activation", "softmax")
    assert done.exit_code == 0, done.stderr
    usage = dm.load_checkpoint("c.safetensors").usage
    assert (usage.class_names, usage.activation) == (("w", "x", "y", "z"), "softmax")
    assert usage.image_size == 97


@pytest.mark.usefixtures("files")
def test_what_a_destination_cannot_say_is_told():
    options = ["--to", "nnx", "--class-names", "w,x,y,z", "--activation", "sigmoid"]
    told = " ".join(run("convert", "a.safetensors", "c.safetensors", *options).stdout.split())
    assert "only a portable file can store the weights' class names, activation" in told


@pytest.mark.usefixtures("files")
def test_what_is_stated_belongs_to_the_new_classifier_and_the_old_channels():
    found, _ = converted(
        "--num-classes", 2, "--class-names", "no,yes", "--activation", "softmax",
        "--in-channels", 1, "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2",
    )  # fmt: skip
    assert (found.spec.config.num_classes, found.spec.config.in_channels) == (2, 1)
    assert (found.usage.class_names, found.usage.activation) == (("no", "yes"), "softmax")
    assert (found.usage.mean, found.usage.std) == ((0.5,), (0.2,))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("usage", [[], ["--mean", THREE, "--std", THREE]])
def test_a_stem_for_other_channels_is_verified_on_both_sides(usage):
    found, result = converted("--in-channels", 1, "--verify", *usage)
    assert found.spec.config.in_channels == 1
    assert result["max_deviation"] < 1e-5
    assert "(original channels), the NumPy reference (original and new)" in result["source_model"]
    kept = next(note for note in result["notes"] if "logits of gray images deviate" in note)
    deviation = float(kept.split(" by ")[1].split()[0])
    assert deviation < (1e-2 if usage else 1e-6)


@pytest.mark.parametrize("channels", [3, 1])
def test_a_source_that_was_misread_is_found_also_where_the_stem_is_changed(
    files, monkeypatch, channels
):
    asked = convert.logits

    def wrong(path, file_format, of, images):
        logits, who, independent = asked(path, file_format, of, images)
        own = of.spec.config.in_channels == channels
        return logits * (1.001 if own else 1), who, independent

    monkeypatch.setattr(convert, "logits", wrong)
    done = run("convert", "a.safetensors", "b.safetensors", "--in-channels", 1, "--verify")
    assert done.exit_code == 1
    assert "deviation of 1.0e-03" in " ".join(done.stderr.split())
    assert not (files / "b.safetensors").exists()


@pytest.mark.usefixtures("files")
def test_one_of_several_networks_is_converted_and_inspected_by_its_prefix():
    from safetensors.numpy import load_file, save_file

    state = load_file("a.safetensors")
    two = {f"student.{name}": array for name, array in state.items()}
    two |= {f"teacher.{name}": array for name, array in state.items()}
    two["teacher.features.conv0.weight"] = 2 * state["features.conv0.weight"]
    save_file(two, "two.safetensors")
    found, _ = converted("--prefix", "teacher.", source="two.safetensors")
    np.testing.assert_array_equal(
        found.weights["features.conv0.weight"], 2 * state["features.conv0.weight"]
    )
    shown = run("inspect", "two.safetensors", "--prefix", "teacher.", "--format", "json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["config"]["num_classes"] == 4


# --- What is assumed ----------------------------------------------------------------------------


@pytest.mark.usefixtures("files")
def test_what_no_file_states_is_listed_by_convert_and_inspect():
    _, result = converted()
    expected = [
        "which pixel values the network expects: 0 to 1",
        "what its outputs mean: a softmax, so that every image has one of the classes",
    ]
    assert result["assumed"] == expected
    shown = json.loads(run("inspect", "b.safetensors", "--format", "json").stdout)
    assert shown["assumed"] == expected
    assert "which pixel values the network expects: 0 to 1" in " ".join(
        run("inspect", "b.safetensors").stdout.split()
    )
    _, result = converted("--activation", "softmax", "--value-range", 0, 1)
    assert result["assumed"] == []


def test_imagenets_usage_is_assumed_until_it_is_stated(tmp_path):
    spec = dm.get_spec("densenet121")
    usage = implied_usage(spec.config)
    dm.save_weights(tmp_path / "a.safetensors", spec, dm.init_weights(spec), usage)
    back = dm.load_checkpoint(tmp_path / "a.safetensors")
    assert back.usage.assumed == MAY_BE_ASSUMED
    assert back.usage.class_names[:2] == ("tench", "goldfish")
    shown = run("inspect", tmp_path / "a.safetensors").stdout
    assert "ostrich, ..." in shown  # ends the first ten
    assert "brambling" not in shown
    stated = with_stated_pixels(back, mean=IMAGENET.mean, std=IMAGENET.std, image_size=224)
    assert stated.usage.assumed == ("value_range", "class_names")


def test_an_assumed_mean_is_dropped_with_a_note_where_another_range_is_stated():
    spec = dm.get_spec("densenet121", num_classes=2)
    assumed = dm.Checkpoint(spec, {}, implied_usage(spec.config))
    stated = with_stated_pixels(assumed, value_range=(0, 255))
    assert (stated.usage.mean, stated.usage.std) == (None, None)
    assert "usual mean and std were dropped" in stated.notes[-1]
    assert with_stated_pixels(assumed, image_size=96).notes == ()


# --- Class names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\nred fox\n",
        "cat\r\ndog \r\nred fox",
        "\ufeffcat\ndog\nred fox\n\n\n",
        '["cat", "dog", "red fox"]',
        '{"dog": 1, "red fox": 2, "cat": 0}',
        '{"2": "red fox", "0": "cat", "1": "dog"}',
    ],
)
def test_class_names_are_read_from_the_files_that_people_have(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_text(content, "utf-8", newline="")
    assert read_class_names(str(path), 3) == ("cat", "dog", "red fox")
    assert read_class_names(path, 3) == ("cat", "dog", "red fox")


def test_class_names_are_a_list_or_a_text_with_commas():
    assert read_class_names(["a", "b, c"], 2) == ("a", "b, c")
    assert read_class_names("a, b c ,d", 3) == ("a", "b c", "d")
    assert read_class_names("tumor", 1) == ("tumor",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "a,b,c",
            "--class-names: expected 4 values for this network, one for each output; found 3",
        ),
        ("a,b,,d", "--class-names: expected names, found '' as name 3"),
        ("a,b,c,a", "--class-names: expected unique names, found 'a' more than once"),
        ("nowhere.txt", "--class-names: expected names separated by commas, or a file"),
        ("nowhere", "found no file 'nowhere'"),
        ("blank.txt", "expected a name in each line, found none in line 3 of blank.txt"),
        ("empty.txt", "expected a name in each line, found none in line 1 of empty.txt"),
        ("three.txt", "expected 4 values for this network, one for each output; found 3: a, b, c"),
        ("binary.txt", "expected UTF-8 text, found another encoding in binary.txt"),
        ("gap.json", "expected JSON with a list of names, {name: index} or {index: name}"),
        ("half.json", "expected JSON with a list of names"),
        ("deep.json", "found ['d'] as name 4"),
        (
            "huge.txt",
            "huge.txt: expected at most 1,048,576 bytes, found 1,048,577; use a file",
        ),
    ],
)
def test_class_names_that_do_not_fit_are_refused_and_nothing_is_written(files, given, message):
    contents = {
        "blank.txt": b"a\nb\n\nd\n",
        "empty.txt": b"\n",
        "three.txt": b"a\nb\nc\n",
        "binary.txt": b"\xff\xfe\x00a",
        "gap.json": b'{"a": 0, "b": 1, "c": 2, "d": 4}',
        "half.json": b'{"a": 0',
        "deep.json": b'["a", "b", "c", ["d"]]',
        "huge.txt": b"a" * (2**20 + 1),
    }
    for name, content in contents.items():
        (files / name).write_bytes(content)
    assert message in " ".join(refused("--class-names", given).split())


# --- Wrong values -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [True, False])
def test_a_library_that_could_be_asked_is_named_where_it_is_absent(monkeypatch, is_there):
    found = {"torchvision": object()} if is_there else {}
    monkeypatch.setattr(convert, "find_spec", found.get)
    said = "; install torchvision to compare with its own model"
    assert convert._absent("torchvision", "portable", "gluon") == ("" if is_there else said)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "0.5,x,0.5"], "expected numbers separated by commas, such as 0.5,0.5,0.5"),
        (["--mean", ""], "expected numbers separated by commas"),
        (["--mean", THREE], "--mean: expected --std as well, found none"),
        (["--std", THREE], "--std: expected --mean as well, found none"),
        (["--mean", "0.5", "--std", THREE], "--mean: expected 3 values for this network, one for"),
        (["--mean", THREE, "--std", "1,1"], "--std: expected 3 values for this network, one for"),
        (["--mean", "0,nan,0", "--std", THREE], "--mean: expected finite numbers"),
        (["--mean", THREE, "--std", "1,0,1"], "--std: expected numbers above 0"),
        (
            ["--mean", "124,116,104", "--std", "58,57,57"],
            "found 124.0, 116.0, 104.0; for pixels in another range, add --value-range",
        ),
        (
            ["--mean", THREE, "--std", THREE, "--value-range", 0, 255],
            "--std: expected numbers above 1, one gray level of pixels from 0 to 255; found 0.5",
        ),
        (["--value-range", 1, 0], "--value-range: expected two numbers, the lower first"),
        (["--value-range", 0], "requires 2 arguments"),
        (["--value-range", 0, "nan"], "--value-range: expected finite numbers"),
        (["--image-size", 0], "of at least 1 and at most 4,096, found 0"),
        (
            ["--image-size", min_image_size(SPEC) - 1],
            f"--image-size: expected at least {min_image_size(SPEC)} pixels per side",
        ),
        (["--activation", "tanh"], "--activation: expected 'none' or 'softmax' or 'sigmoid'"),
        (["--in-channels", 0], "of at least 1, found 0"),
        (["--num-classes", 1, "--activation", "softmax"], "its softmax is always 1"),
        (["--num-classes", 1, "--class-names", "no,yes"], "found 2: no, yes; name the class whose"),
        (["--num-classes", 0, "--class-names", "a,b"], "expected a network with a classifier"),
        (["--num-classes", 0, "--activation", "none"], "expected a network with a classifier"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_nothing_is_written(options, message):
    assert message in " ".join(refused(*options).split())


def test_stating_nothing_changes_nothing():
    made = dm.Checkpoint(SPEC, {}, dm.Usage(mean=(0, 0, 0), image_size=5))
    assert with_stated_pixels(made) == made
    assert with_outputs(made, None, None) == made


@pytest.mark.usefixtures("files")
def test_a_verification_by_our_own_reading_is_called_no_verification():
    for source, destination, *options, verified in [
        ("a.safetensors", "b.safetensors", False),
        # only this package defines what a portable file means
        ("b.safetensors", "c.safetensors", True),
        ("b.safetensors", "d.safetensors", "--to", "torchvision", False),
    ]:
        done = run("convert", source, destination, "--verify", "--format", "json", *options)
        assert done.exit_code == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["verified"] == verified
        said = "compared only with this package's own code" in " ".join(result["notes"])
        assert said != verified
