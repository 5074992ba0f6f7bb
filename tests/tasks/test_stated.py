"""Stated class names, in files as other programs write them, and stated image sizes."""

import json
import os

import pytest

import densenet_multi as dm
from densenet_multi.tasks._stated import read_class_names, with_stated_pixels

CRANES = {"0": ["n01440764", "tench"], "1": ["n02012849", "crane"], "2": ["n03126707", "crane"]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps(CRANES), ("tench", "crane (n02012849)", "crane (n03126707)")),
        (json.dumps({"id2label": {"1": "b", "0": "a", "2": "c"}, "layers": 3}), ("a", "b", "c")),
        ("0 a\n1 b c\n2 d\n", ("a", "b c", "d")),  # Teachable Machine's labels.txt
        ("1 a\n2 b\n3 c\n", ("1 a", "2 b", "3 c")),
        ("0 a\n1 b\nc\n", ("0 a", "1 b", "c")),
        ("0\n1\n2\n", ("0", "1", "2")),
        ("a\rb\rc\r", ("a", "b", "c")),  # line endings of the first Macs
    ],
)
def test_class_names_are_read_as_other_programs_write_them(tmp_path, content, expected):
    path = tmp_path / "names.txt"
    path.write_bytes(content.encode())
    assert read_class_names(path, 3) == expected


@pytest.mark.parametrize(
    ("encoding", "option"), [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"), ("latin-1", "LATIN1")]
)
def test_names_in_another_encoding_are_refused_with_how_to_convert_them(tmp_path, encoding, option):
    path = tmp_path / "names.txt"
    start = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes(f"{start}gr\u00fcn\nrot\n".encode(encoding))
    with pytest.raises(dm.ConfigError) as caught:
        read_class_names(path, 2)
    assert str(caught.value).endswith(f"; type: iconv -f {option} -t UTF-8 {path} > NEW.txt")


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize("outputs", [1, 2])
def test_an_empty_text_is_not_taken_for_a_file(text, outputs):
    with pytest.raises(dm.ConfigError, match="one name per line; found an empty string"):
        read_class_names(text, outputs)


def test_a_size_that_no_image_has_is_refused_with_the_largest():
    spec = dm.get_spec("densenet121", growth_rate=4, num_init_features=8, block_config=(1, 1))
    checkpoint = dm.Checkpoint(spec, {})
    assert with_stated_pixels(checkpoint, image_size=2**12).usage.image_size == 2**12
    with pytest.raises(dm.ConfigError, match=r"image_size: expected an integer from 1 to 4,096"):
        with_stated_pixels(checkpoint, image_size=10**8)


def test_a_pipe_of_names_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "names.txt")
    with pytest.raises(dm.ConfigError, match=r"^class_names: .*names\.txt: .*, found a pipe; "):
        read_class_names(tmp_path / "names.txt", 3)
