"""Flags: only commands/ names them; it replaces argument names in the library's messages."""

import ast
import re
from pathlib import Path

import click
import pytest

import densenet_multi as dm
from densenet_multi.commands import main
from densenet_multi.commands.flags import in_flags

PACKAGE = Path(dm.__path__[0])
LIBRARY = sorted({*PACKAGE.rglob("*.py")} - {*PACKAGE.rglob("commands/*.py")})
FLAGS = {
    flag
    for command in main.commands.values()
    for parameter in command.params
    for flag in parameter.opts
    if flag.startswith("--")
}


def test_the_library_names_no_flag():
    found = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in LIBRARY
        for line in path.read_text("utf-8").splitlines()
        if FLAGS & set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)) and "nvidia-smi" not in line
    }
    assert not found


def test_the_library_types_no_command_line():
    """The library names calls, which a command translates; a docstring may name a ``command``."""
    found = {
        f"{path.relative_to(PACKAGE)}: {node.value}"
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"(?<!`)densenet-multi [a-z]", node.value)
    }
    assert not found


def spoken(command, text, **typed):
    context = click.Context(main.commands[command], parent=click.Context(main))
    context.params = typed
    return in_flags(text, context)


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("train", "seed: expected 0; found -1", "--seed: expected 0; found -1"),
        ("bench", "a.b.BackendError: device: expected a", "a.b.BackendError: --device: expected a"),
        ("convert", "x, or destination_format=FORMAT; known", "x, or --to FORMAT; known"),
        ("inspect", "pass file_format='keras'", "pass --from keras"),
        ("train", "pass resume=True, or another output=", "pass --resume, or another --output"),
        ("train", "use data='folder:a b'.", "use --data 'folder:a b'."),
        ("train", r"use data='it\'s'", """use --data 'it'"'"'s'"""),
        ("train", "try batch_size=32.", "try --batch-size 32."),
        ("train", "with train_features=False", "with --freeze"),
        ("train", "with resume=False", "with no --resume"),
        ("evaluate", "places: data_dir=None", "places: no --data-dir"),
        ("summary", "variant: expected a name", "VARIANT: expected a name"),
        ("convert", "found Config(f=(1,), num_classes=10)", "found Config(f=(1,), num_classes=10)"),
        ("evaluate", "look: weights='w', weights=", "look: w, WEIGHTS"),
        (
            "evaluate",
            "type: train(weights='a/w (1)', data='sample', output='RUN', resume=True)",
            "type: densenet-multi train --weights 'a/w (1)' --data sample --output RUN --resume",
        ),
        ("train", "with: inspect('a/w')", "with: densenet-multi inspect a/w"),
        ("train", "with: evaluate(weights='w')", "with: densenet-multi evaluate w"),
        ("train", "with: evaluate(weights='-w')", "with: densenet-multi evaluate ./-w"),
        ("train", "with: inspect('-w')", "with: densenet-multi inspect ./-w"),
    ],
)
def test_arguments_and_calls_are_said_as_they_are_typed(command, text, expected):
    assert spoken(command, text) == expected


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("evaluate", "found one without (num_classes=0)"),  # an option of other commands
        ("train", "growth_rate: expected 32"),
        ("train", "config.json: seed: expected 0"),  # not what was typed
        ("train", "a/seed=3: expected a folder"),
        ("train", "train(lr=3)"),
        ("train", "train(a b)"),
        ("train", "retrain('X')"),
        ("info", "seed: expected 0, with data='sample'"),
    ],
)
def test_what_is_no_argument_of_the_command_stays_as_it_is(command, text):
    assert spoken(command, text) == text


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("seed=3", "seed=3: expected a folder without a run, found one"),
        ("seed=3", "seed=3/report.json: expected JSON"),
        ("output", "output: expected a folder"),
    ],
)
def test_what_was_typed_is_no_argument(typed, text):
    assert spoken("train", text, output=Path(typed)) == text
    resumed = spoken("train", f"{text}; pass resume=True", output=Path(typed))
    assert resumed == f"{text}; pass --resume"


def test_a_folder_called_as_a_command_or_a_flag_does_not_hide_it():
    text = "train: resume with: train(output='train', resume=True), or another output="
    expected = "train: resume with: densenet-multi train --output train --resume, or another "
    assert spoken("train", text, output=Path("train")) == expected + "--output"


def test_every_argument_of_every_command_has_one_name_that_is_typed():
    for command in main.commands.values():
        for parameter in command.params:
            expected = parameter.human_readable_name
            if isinstance(parameter, click.Option):
                (expected,) = (flag for flag in parameter.opts if flag.startswith("--"))
            assert spoken(command.name, f"{parameter.name}: expected") == f"{expected}: expected"
