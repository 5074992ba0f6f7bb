"""What is known about the use of a network, what is assumed, and when either is dropped."""

import json
from dataclasses import replace

import pytest
from safetensors.numpy import load_file, save_file

import densenet_multi as dm
from cases import random_weights, small
from densenet_multi import formats
from densenet_multi.checkpoint import IMAGENET, MAY_BE_ASSUMED, names_in_order
from densenet_multi.formats.recognize import imagenet_classes, implied_usage

SPEC = small("bottleneck")  # 3 channels, 4 classes
ASSUMED = replace(IMAGENET, class_names=tuple("abcd"), assumed=MAY_BE_ASSUMED)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("activation", [None, "none", "softmax", "sigmoid"])
def test_what_outputs_mean_and_what_is_assumed_is_kept_in_the_portable_file(path, activation):
    usage = replace(ASSUMED, activation=activation)
    dm.save_weights(path, SPEC, random_weights(SPEC), usage)
    assert dm.load_checkpoint(path).usage == usage


def test_a_portable_file_from_before_has_no_activation_and_assumes_nothing(path):
    header = json.loads(SPEC.to_json())
    header["usage"] = {"image_size": 33, "mean": [0, 0, 0], "std": [1, 1, 1], "class_names": None}
    dm.save_weights(path, SPEC, random_weights(SPEC))
    save_file(load_file(path), path, metadata={"densenet_multi": json.dumps(header)})
    usage = dm.load_checkpoint(path).usage
    assert usage == dm.Usage(image_size=33, mean=(0, 0, 0), std=(1, 1, 1))
    assert (usage.activation, usage.assumed) == (None, ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation": "tanh"}, "activation: expected 'none' or 'softmax' or 'sigmoid'; found"),
        ({"activation": 1}, "activation: expected"),
        ({"assumed": ["means"]}, "assumed 'means' does not exist; did you mean 'mean'"),
        ({"assumed": "mean"}, "assumed: expected a list of names"),
        ({"assumed": [1]}, "assumed: expected a list of names"),
    ],
)
def test_wrong_values_are_refused_also_in_a_file(path, given, message):
    with pytest.raises(dm.ConfigError, match=message):
        dm.Usage(**given)
    header = {**json.loads(SPEC.to_json()), "usage": given}
    dm.save_weights(path, SPEC, random_weights(SPEC))
    save_file(load_file(path), path, metadata={"densenet_multi": json.dumps(header)})
    with pytest.raises(dm.WeightsError, match=message):
        dm.load_checkpoint(path)


def test_a_wrong_number_of_class_names_is_said_with_the_right_one():
    usage = dm.Usage(class_names=tuple("abcdef"))
    with pytest.raises(
        dm.ConfigError, match=r"expected 4 values .* output; found 6: a, b, c, \.\.\."
    ):
        usage.fits(SPEC)
    with pytest.raises(
        dm.ConfigError, match=r"expected 1 .* found 2: no, yes; name the class whose"
    ):
        dm.Usage(class_names=("no", "yes")).fits(small("bottleneck", num_classes=1))


# --- Stated and assumed -------------------------------------------------------------------------


def test_what_is_stated_is_no_longer_assumed():
    usage = ASSUMED.stating(image_size=288, class_names=list("efgh"), mean=None)
    assert usage.assumed == ("value_range", "mean", "std")
    assert (usage.image_size, usage.class_names) == (288, tuple("efgh"))
    assert usage.mean == IMAGENET.mean
    assert (usage.stated("image_size"), usage.stated("mean")) == (288, None)


def test_a_stated_range_drops_the_mean_and_std_that_were_assumed_for_another():
    usage = ASSUMED.stating(value_range=(0, 255))
    assert (usage.value_range, usage.mean, usage.std) == ((0, 255), None, None)
    stated = IMAGENET.stating(value_range=(0, 255))  # values that a file states stay
    assert (stated.mean, stated.std) == (IMAGENET.mean, IMAGENET.std)


def test_a_stated_mean_is_of_the_range_that_is_assumed():
    usage = ASSUMED.stating(mean=(0.5,) * 3, std=(0.2,) * 3)
    assert usage.value_range == (0, 1)
    assert usage.assumed == ("image_size", "value_range", "class_names")


def test_a_value_that_is_gone_is_not_assumed():
    assert replace(ASSUMED, class_names=None).assumed == (
        "image_size",
        "value_range",
        "mean",
        "std",
    )


@pytest.mark.parametrize(
    ("usage", "classes", "expected"),
    [
        (dm.Usage(value_range=(0, 1), activation="none"), 4, {}),
        (dm.Usage(activation="none"), 4, {"which pixel values the network expects": "0 to 1"}),
        (
            replace(ASSUMED, activation="softmax"),
            4,
            {
                "which pixel values the network expects": "0 to 1, mean 0.485, 0.456, 0.406, std "
                "0.229, 0.224, 0.225",
                "its image size": "224 x 224 pixels",
                "its class names": "ImageNet's (a, b, c, ...)",
            },
        ),
        (
            dm.Usage(value_range=(0, 1)),
            4,
            {"what its outputs mean": "a softmax, so that every image has one of the classes"},
        ),
        (
            dm.Usage(value_range=(0, 1)),
            1,
            {
                "what its outputs mean": "a sigmoid, so that its single output becomes the "
                "probability of one class"
            },
        ),
        (dm.Usage(value_range=(0, 1)), 0, {}),
    ],
)
def test_what_no_file_states_is_listed_with_what_is_assumed_instead(usage, classes, expected):
    spec = small("bottleneck", num_classes=classes)
    assert dm.Checkpoint(spec, {}, usage).unstated() == expected


# --- ImageNet -----------------------------------------------------------------------------------


def test_imagenets_classes_are_a_thousand_different_names_in_order():
    names = imagenet_classes()
    assert (len(names), len(set(names))) == (1000, 1000)
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 285: "Egyptian cat"}
    known |= {340: "zebra", 404: "airliner", 463: "bucket", 717: "pickup", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known
    assert all(name and name == name.strip() for name in names)


@pytest.mark.parametrize(
    ("variant", "changes", "preprocessing", "names"),
    [
        ("densenet121", {}, True, True),
        ("densenet264", {}, True, True),
        ("densenet121", {"num_classes": 10}, True, False),
        ("densenet121", {"in_channels": 1}, False, False),
        ("densenet_bc100_k12", {"num_classes": 1000}, False, False),
        ("d2l", {"num_classes": 1000}, False, False),
    ],
)
def test_what_is_implied_for_imagenets_networks_is_assumed(variant, changes, preprocessing, names):
    usage = implied_usage(dm.get_spec(variant, **changes).config)
    assert usage.mean == (IMAGENET.mean if preprocessing else None)
    assert usage.class_names == (imagenet_classes() if names else None)
    pixels = ("image_size", "value_range", "mean", "std") if preprocessing else ()
    assert usage.assumed == (*pixels, *(["class_names"] if names else []))


def test_what_is_implied_is_not_called_lost_and_what_was_stated_is(tmp_path):
    spec = dm.get_spec("densenet121")
    usage, weights = implied_usage(spec.config), dm.init_weights(spec)

    def lost(**stated):
        made = dm.Checkpoint(spec, weights, usage.stating(**stated))
        notes = formats.write(tmp_path / "x.params", made)
        return "".join(note for note in notes if "only a portable file" in note)

    assert not lost()
    assert not lost(activation="softmax")  # assumed anyway if nothing is stated
    assert "weights' activation" in lost(activation="sigmoid")
    assert "weights' class names" in lost(class_names=[str(i) for i in range(1000)])


@pytest.mark.parametrize(
    ("classes", "activation", "said"),
    [(1, "sigmoid", False), (1, "none", True), (4, "none", True), (4, "softmax", False)],
)
def test_an_activation_that_would_not_be_assumed_is_called_lost(
    tmp_path, classes, activation, said
):
    spec = small("bottleneck", num_classes=classes, bn_eps=1e-5, bn_decay=0.9)
    made = dm.Checkpoint(spec, random_weights(spec), dm.Usage(activation=activation))
    notes = formats.write(tmp_path / "x.safetensors", made, "torchvision")
    assert any("activation" in note for note in notes) == said


def test_a_new_classifier_has_neither_names_nor_an_activation():
    usage = replace(ASSUMED, activation="sigmoid")
    new = formats.with_classes(dm.Checkpoint(SPEC, random_weights(SPEC), usage), 4)
    assert (new.usage.class_names, new.usage.activation) == (None, None)
    assert new.usage.assumed == ("image_size", "value_range", "mean", "std")


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["b", "a"], ["b", "a"]),
        ({"b": 1, "a": 0}, ["a", "b"]),
        ({"1": "b", "0": "a"}, ["a", "b"]),
        ({"01": "b", "00": "a"}, ["a", "b"]),
        ({"b": 2, "a": 0}, None),
        ({"a": [0], "b": 1}, None),
        ({"a": 0.0, "b": 1}, None),
        (["a", 1], None),
        ("ab", None),
    ],
)
def test_names_of_classes_are_put_in_order(found, names):
    assert names_in_order(found) == names


def test_what_no_index_can_be_takes_no_time():
    deep = []
    for _ in range(60):
        deep = [deep, deep]
    assert names_in_order({"a": deep, "b": 1}) is None
