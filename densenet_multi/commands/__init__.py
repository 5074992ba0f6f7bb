"""The command line: one file for each command, with its options, its table and its exit code.

``options`` has the options that several commands share and the types of what is typed, ``output``
prints results and turns errors into exit codes, and ``flags`` rewrites the library's arguments and
calls as what is typed.
"""

from __future__ import annotations

import logging
import os

import click

from .. import __version__
from . import (
    bench,
    compare,
    convert,
    evaluate,
    info,
    inspect,
    lockstep,
    predict,
    summary,
    train,
)
from .flags import PROGRAM
from .output import plain_lines

GROUPS = {  # what a user wants -> the commands for it
    "See what a network is": (summary.summary,),
    "Compare the frameworks": (compare.compare, lockstep.lockstep, bench.bench),
    "Train and use a network": (train.train, evaluate.evaluate, predict.predict),
    "Move a checkpoint between frameworks": (inspect.inspect, convert.convert),
    "Report a problem": (info.info,),
}


class Program(click.Group):
    """A group that lists its commands by what a user wants."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; a terminal obeys no text of others in an error about what was typed."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.message = plain_lines(error.message)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each of ``GROUPS`` under its heading."""
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
    epilog="Completion by the Tab key in bash (zsh and fish alike), for ~/.bashrc:\n\n\b\n"
    f'eval "$(_DENSENET_MULTI_COMPLETE=bash_source {PROGRAM})"',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """DenseNet, written once as a specification and four times as native code: in PyTorch,
    tf.keras, MXNet Gluon and Flax NNX.

    Exit codes: 0 ok, 1 a check failed, 2 usage, 3 backend not installed, 4 data not available,
    130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports what it did not find
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # absl, JAX and Orbax warn their own developers
    context.call_on_close(lambda: logging.disable(before))


for grouped in GROUPS.values():
    for command in grouped:
        main.add_command(command)
