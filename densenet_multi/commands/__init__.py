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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """One DenseNet specification, four native implementations, one function.

    Exit codes: 0 ok, 1 a check failed, 2 usage, 3 backend not installed, 4 data not available,
    130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports what it did not find
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # absl, JAX and Orbax warn their own developers
    context.call_on_close(lambda: logging.disable(before))


for command in (
    summary.summary,
    compare.compare,
    lockstep.lockstep,
    bench.bench,
    train.train,
    evaluate.evaluate,
    predict.predict,
    convert.convert,
    inspect.inspect,
    info.info,
):
    main.add_command(command)
