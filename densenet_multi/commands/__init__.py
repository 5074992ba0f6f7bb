"""The command line: one module per command, with its options, its table and its exit code.

``options`` has the shared options and the parameter types. ``output`` prints results and turns
errors into exit codes. ``flags`` translates Python arguments in the library's messages into flags.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from .. import __version__
from . import (
    bench,
    compare,
    conventions,
    convert,
    doctor,
    draw,
    evaluate,
    exercise,
    house_prices,
    info,
    inspect,
    lockstep,
    predict,
    summary,
    train,
)
from .flags import PROGRAM, flag
from .output import plain_lines

GROUPS = {  # purpose -> its commands
    "Describe a network": (summary.summary, draw.draw),
    "Compare the frameworks": (compare.compare, lockstep.lockstep, bench.bench),
    "Train and use a network": (train.train, evaluate.evaluate, predict.predict),
    "Answer the chapter's exercises": (exercise.exercise, house_prices.house_prices),
    "Move a checkpoint between frameworks": (inspect.inspect, convert.convert),
    "Check a port": (doctor.doctor, conventions.conventions),
    "Report a problem": (info.info,),
}


class UsageError(click.UsageError):
    """Invalid options or arguments, reported on one line like any other error of a command."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, with control characters escaped, and how to get help."""
        path = self.ctx.command_path if self.ctx else PROGRAM
        text = f"{PROGRAM}: {plain_lines(self.message)}; for the options: {path} --help"
        click.echo(text, file=file, err=file is None)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # of click 8.2: prints the help
            raise
        text = error.format_message()
        if type(error) is click.BadParameter and error.param:
            text = f"{flag(error.param)}: {error.message}"
        raise UsageError(text.rstrip("."), error.ctx) from None


class Program(click.Group):
    """The command group; its help groups the commands by purpose."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the options before the command's name."""
        with _in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        """Parse the command's options and run it."""
        with _in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each group under its heading."""
        widest = max(map(len, self.commands))
        for heading, commands in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (
                            f"{each.name:{widest}}",
                            each.get_short_help_str(ctx.max_content_width or 80),
                        )
                        for each in commands
                    ]
                )


@click.group(
    cls=Program,
    epilog="Tab completion: add this line to ~/.bashrc (zsh: to ~/.zshrc, with zsh_source).\n\n\b\n"
    f'eval "$(_DENSENET_MULTI_COMPLETE=bash_source {PROGRAM})"',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """One DenseNet specification, implemented natively in four frameworks.

    Each implementation is a backend: torch (PyTorch), keras (tf.keras), gluon (MXNet Gluon) or
    flax (Flax NNX).

    Exit codes: 0 success, 1 a failed check or a file that cannot be used, 2 invalid arguments,
    3 backend not installed, 4 data not available or not readable, 130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow logs missing libraries
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # absl, JAX and Orbax: meant for developers
    context.call_on_close(lambda: logging.disable(before))


for grouped in GROUPS.values():
    for command in grouped:
        main.add_command(command)
