"""Images and labels that do not fit are refused, with what would, before a framework sees them."""

import numpy as np
import pytest

import densenet_multi as dm
from densenet_multi._inputs import check_images, check_labels

SPEC = dm.get_spec("d2l", in_channels=3)


def refusal(function, *arguments) -> str:
    with pytest.raises(dm.ImageError) as caught:
        function(*arguments)
    return str(caught.value)


# --- Images -------------------------------------------------------------------------------------


def test_the_expected_and_the_given_shape_are_in_the_message():
    assert refusal(check_images, SPEC, np.zeros((2, 1, 96, 96))) == (
        "images: expected shape (N, 3, height, width) with N at least 1, found (2, 1, 96, 96)"
    )


def test_channels_last_images_get_the_transpose_to_type():
    images = np.zeros((2, 96, 64, 3))
    message = refusal(check_images, SPEC, images)
    assert message == (
        "images: expected shape (N, 3, height, width) with N at least 1, found (2, 96, 64, 3); "
        "for channels-last images: images.transpose(0, 3, 1, 2)"
    )
    assert check_images(SPEC, images.transpose(0, 3, 1, 2)).shape == (2, 3, 96, 64)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (3, 96, 96), (2, 3, 96), (2, 3, 96, 96, 1)])
def test_an_array_of_another_rank_is_refused(shape):
    assert refusal(check_images, SPEC, np.zeros(shape)).endswith(f"found {shape}")


def test_an_empty_batch_is_refused():
    assert refusal(check_images, SPEC, np.zeros((0, 3, 96, 96))).endswith("found (0, 3, 96, 96)")


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "complex64"])
def test_pixels_that_are_not_floating_point_are_refused_with_how_to_scale_them(dtype):
    assert refusal(check_images, SPEC, np.zeros((1, 3, 96, 96), dtype)) == (
        f"images: expected floating point, found {dtype}; "
        "scale pixels first, e.g. images.astype('float32') / 255"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_are_not_finite_are_refused(value):
    images = np.zeros((1, 3, 96, 96))
    images[0, 1, 2, :2] = value
    assert refusal(check_images, SPEC, images, "float32") == (
        "images: expected finite pixels, found 2 not finite in float32"
    )


def test_images_that_are_too_small_are_refused_with_the_smallest_size():
    with pytest.raises(dm.ImageSizeError, match=r"28x28 pixels are too few.*the smallest is 29$"):
        check_images(SPEC, np.zeros((1, 3, 28, 28)))


def test_images_without_a_single_pixel_are_refused():
    with pytest.raises(dm.ConfigError, match=r"^width: expected an integer from 1 to .*; found 0"):
        check_images(SPEC, np.zeros((1, 3, 29, 0)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_images_that_fit_come_back_as_they_are_or_in_the_asked_dtype(dtype):
    images = np.random.default_rng(0).random((2, 3, 29, 31)).astype(dtype)
    assert check_images(SPEC, images).dtype == dtype
    np.testing.assert_array_equal(check_images(SPEC, images), images)
    wide = check_images(SPEC, images, "float64")
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, images)


def test_images_come_back_contiguous_and_lists_become_arrays():
    turned = np.zeros((2, 29, 31, 3)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    assert check_images(SPEC, turned).flags.c_contiguous
    np.testing.assert_array_equal(check_images(SPEC, turned.tolist()), turned)


def test_every_error_about_images_is_a_value_error():
    assert issubclass(dm.ImageError, ValueError)
    assert issubclass(dm.ImageSizeError, ValueError)


# --- Labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_labels_of_any_integer_type_come_back_as_int64(dtype):
    checked = check_labels(np.array([0, 9, 4], dtype), 3, 10)
    assert checked.dtype == np.int64
    np.testing.assert_array_equal(checked, [0, 9, 4])
    np.testing.assert_array_equal(check_labels([0, 9, 4], 3, 10), [0, 9, 4])


@pytest.mark.parametrize(("labels", "found"), [([0, 10], "0 to 10"), ([-1, 9], "-1 to 9")])
def test_labels_that_are_no_class_are_refused_with_their_range(labels, found):
    expected = f"labels: expected values from 0 to 9, found {found}"
    assert refusal(check_labels, labels, 2, 10) == expected


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.zeros(3, "int64"), "int64 of shape (3,)"),  # not one for each of two images
        (np.zeros((2, 1), "int64"), "int64 of shape (2, 1)"),
        (np.zeros((), "int64"), "int64 of shape ()"),
        (np.zeros(2, "float32"), "float32 of shape (2,)"),
        (np.zeros(2, "bool"), "bool of shape (2,)"),
        (np.zeros((2, 10)), "float64 of shape (2, 10)"),  # one-hot
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_labels_of_another_form_are_refused_with_the_expected_one(labels, found):
    expected = f"labels: expected 2 integers, shape (2,); found {found}"
    assert refusal(check_labels, labels, 2, 10) == expected


def test_a_network_without_a_classifier_has_no_loss():
    assert refusal(check_labels, [0], 1, 0) == (
        "labels: expected a network with classes, found no classifier (num_classes=0)"
    )
