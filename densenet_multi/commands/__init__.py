"""The command line: one module per command, with its options, its table and its exit code.

``options`` has the shared options and the parameter types. ``output`` prints results and turns
errors into exit codes. ``flags`` translates Python arguments in the library's messages into flags.
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

GROUPS = {  # purpose -> its commands
    "Describe a network": (summary.summary,),
    "Compare the frameworks": (compare.compare, lockstep.lockstep, bench.bench),
    "Train and use a network": (train.train, evaluate.evaluate, predict.predict),
    "Move a checkpoint between frameworks": (inspect.inspect, convert.convert),
    "Report a problem": (info.info,),
}


class Program(click.Group):
    """The command group; its help groups the commands by purpose."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; escape control characters in usage errors."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(plain_lines(error.format_message()), error.ctx) from None

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
    epilog="Tab completion: add this line to ~/.bashrc (for zsh: zsh_source, in ~/.zshrc).\n\n\b\n"
    f'eval "$(_DENSENET_MULTI_COMPLETE=bash_source {PROGRAM})"',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """One DenseNet specification, implemented natively in four frameworks.

    Each implementation is a backend: torch (PyTorch), keras (tf.keras), gluon (MXNet Gluon) or
    flax (Flax NNX).

    Exit codes: 0 success, 1 failure or a failed check, 2 invalid input, 3 backend not installed,
    4 data not available, 130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow logs missing libraries
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # absl, JAX and Orbax: meant for developers
    context.call_on_close(lambda: logging.disable(before))


for grouped in GROUPS.values():
    for command in grouped:
        main.add_command(command)
