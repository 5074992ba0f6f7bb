"""Options that several commands share, and parameter types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import VARIANTS
from .._checks import LARGEST_SIDE, ConfigError, check_names
from .._files import quoted, resolved
from ..backends import backend_names
from ..training.recipe import RECIPES


def example(command: str) -> str:
    """Return the epilog of a command's help: one command line to copy."""
    return f"\b\nExample:\n  {command}"


# --- Types --------------------------------------------------------------------------------------


class Integer(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """An integer of at least ``least``, and at most ``most`` unless that is None."""

    name = "integer"

    def __init__(self, least: int, most: int | None = None) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int."""
        try:
            number = int(value)
        except ValueError:  # also for thousands of digits
            number = self.least - 1
        if number < self.least or (self.most is not None and number > self.most):
            most = "" if self.most is None else f" and at most {self.most:,}"
            self.fail(
                f"expected an integer of at least {self.least}{most}, found {value}", param, ctx
            )
        return number


AT_LEAST_0, AT_LEAST_1, AT_LEAST_2 = Integer(0), Integer(1), Integer(2)
IMAGE_SIZE = Integer(1, LARGEST_SIDE)  # pixels per side


class ExistingPath(click.Path):
    """An existing file or folder; a broken link is reported as a broken link.

    Arguments:
        dir_okay: whether folders are accepted.
        kwargs: passed to ``click.Path``.
    """

    def __init__(self, *, dir_okay: bool = True, **kwargs: Any) -> None:
        super().__init__(exists=True, dir_okay=dir_okay, path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``."""
        if os.path.islink(value) and not os.path.exists(value):  # noqa: PTH110, PTH114
            target = Path(value).readlink()
            found = f"found a broken link to {target}"
            self.fail(f"{value}: expected an existing path, {found}", param, ctx)
        if not os.path.lexists(value):
            kind = "file or folder" if self.dir_okay else "file"
            self.fail(f"expected an existing {kind}, found none: {value}", param, ctx)
        if not self.dir_okay and Path(value).is_dir():
            self.fail(f"{value}: expected a file, found a folder; name a file in it", param, ctx)
        return super().convert(value, param, ctx)


EXISTING_FILE = ExistingPath(dir_okay=False)


class NewPath(click.Path):
    """A path to write to; an empty one, which would mean the current folder, is an error."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``."""
        if not str(value):
            self.fail("expected a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


class NewEntry(NewPath):
    """A file or folder that the command writes last; it checks first that it may.

    The parent folder must exist and be writable.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``."""
        path = super().convert(value, param, ctx)
        folder = path.parent
        if path.is_symlink() and (path.is_file() or not path.exists()):
            try:
                folder = resolved(path).parent
            except OSError:
                self.fail(f"{path}: expected a path, found a link to itself; remove it", param, ctx)
        if not folder.is_dir():
            found = "a file" if folder.exists() else "none"
            hint = "" if folder.exists() else f"; type: mkdir -p {quoted(folder)}"
            text = f"{path}: expected an existing parent folder, found {found}: {folder}{hint}"
            self.fail(text, param, ctx)
        if not path.name:
            self.fail(f"{value}: expected the name of a new file, found a folder", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"{path}: expected permission to write in {folder}, found none", param, ctx)
        return path


class NewFile(NewEntry):
    """A file to write at the end.

    Arguments:
        ending: the suffix that its name must have.
        hint: advice in the error about a name without this suffix.
    """

    def __init__(self, ending: str = "", hint: str = "for numbers: --format json") -> None:
        super().__init__(dir_okay=False, writable=True)
        self.ending, self.hint = ending, hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``."""
        path = super().convert(value, param, ctx)
        if not path.name.endswith(self.ending):
            self.fail(
                f"expected a name that ends in {self.ending}, found {path.name}; {self.hint}",
                param,
                ctx,
            )
        return path


class Seconds(click.FloatRange):
    """A number of seconds; refuses NaN, which passes every range check."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:  # noqa: PLR0124
            self.fail("expected a number of seconds, found nan", param, ctx)
        return seconds


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """Comma-separated numbers."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(number) for number in str(value).split(","))
        except ValueError:
            found = f"expected numbers separated by commas, such as 0.5,0.5,0.5, found {value!r}"
            self.fail(found, param, ctx)


class Name(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """A name, or several separated by commas, with shell completion; the library validates it.

    Arguments:
        known: returns the known names.
    """

    name = "name"

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        self.known = known

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the known names that complete the last one typed."""
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in self.known()
            if name.startswith(last)
        ]


VARIANT = Name(lambda: VARIANTS)
BACKEND = Name(backend_names)
RECIPE = Name(lambda: RECIPES)

# --- Options ------------------------------------------------------------------------------------

format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="A table for humans, or JSON.",
)
output_option = click.option(
    "--output", type=NewFile(), help="Write the result to FILE instead of stdout."
)
image_size_option = click.option(
    "--image-size", type=IMAGE_SIZE, help="Pixels per side.  [default: 96; CIFAR variants: 32]"
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with the Fashion-MNIST files.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    help="Device to compute on.  [default: a GPU if available]",
)

# of summary and draw
num_classes_option = click.option(
    "--num-classes",
    type=AT_LEAST_0,
    help="Number of classes; 0 for no classifier.  [default: the variant's]",
)
in_channels_option = click.option(
    "--in-channels", type=AT_LEAST_1, help="Number of image channels.  [default: the variant's]"
)

# of convert and doctor; of inspect, the second
variant_option = click.option(
    "--variant", type=VARIANT, help="Override the variant detected from names and shapes."
)
prefix_option = click.option(
    "--prefix", help="Prefix of the tensor names, if the file holds several networks."
)

# of evaluate and predict
weights_argument = click.argument("weights", type=ExistingPath())
backend_option = click.option(
    "--backend",
    "backend_name",
    type=BACKEND,
    help="Backend that predicts.  [default: the one that trained WEIGHTS, or the first installed]",
)
weights_image_size_option = click.option(
    "--image-size",
    type=IMAGE_SIZE,
    help="Pixels per side.  [default: from WEIGHTS, else the variant's]",
)
batch_size_option = click.option(
    "--batch-size", type=AT_LEAST_1, default=64, show_default=True, help="Images per batch."
)

# of compare, lockstep and bench
backends_option = click.option(
    "--backends", type=BACKEND, help="Backends, such as torch,flax.  [default: all]"
)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were typed: {parameter: value}."""
    return {name: value for name, value in options.items() if value is not None}


def requested_backends(text: str | None) -> list[str]:
    """Return the distinct names in ``--backends``; [] without it. Raises ``ConfigError``."""
    requested = [] if text is None else [name.strip() for name in text.split(",")]
    if "" in requested:
        raise ConfigError("backends: expected names such as torch,flax, found an empty one")
    check_names("backend", requested, backend_names())
    return list(dict.fromkeys(requested))
