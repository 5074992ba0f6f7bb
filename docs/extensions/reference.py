"""What the reference tables say: the variants, and the commands with their options.

Plain data without Sphinx, so that tests can read it. ``tables.py`` turns it into a page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

import densenet_multi as dm
from densenet_multi.commands import GROUPS, main
from densenet_multi.commands.flags import PROGRAM
from densenet_multi.variants import default_image_size

SOURCES = {  # variant -> where its numbers are published
    "d2l": "Dive into Deep Learning",
    "densenet121": "paper, Table 1",
    "densenet161": "the authors' code",
    "densenet169": "paper, Table 1",
    "densenet201": "paper, Table 1",
    "densenet264": "paper, Table 1",
    "densenet40_k12": "paper, Table 2",
    "densenet100_k12": "paper, Table 2",
    "densenet100_k24": "paper, Table 2",
    "densenet_bc100_k12": "paper, Table 2",
    "densenet_bc250_k24": "paper, Table 2",
    "densenet_bc190_k40": "paper, Table 2",
    "densenet_bc32_k32": "this project",
    "densenet10_k32": "this project",
}
COLUMNS = ("variant", "source", "depth", "k", "blocks", "parameters", "multiply-adds", "at")


def depth(spec: dm.DenseNetSpec) -> int:
    """Count the layers with weights, as the paper does: convolutions and the classifier."""
    kinds = [tensor.kind for tensor in dm.tensors(spec).values()]
    return kinds.count("conv.weight") + kinds.count("linear.weight")


def variant_rows() -> list[tuple[str, ...]]:
    """One row of ``COLUMNS`` for each variant; every number is computed from its specification."""
    rows: list[tuple[str, ...]] = []
    for name, config in dm.VARIANTS.items():
        spec = config.resolve()
        size = default_image_size(spec)
        work = sum(stage.multiply_adds for stage in dm.profile(spec, size, size))
        rows.append(
            (
                name,
                SOURCES[name],
                str(depth(spec)),
                str(config.growth_rate),
                ", ".join(map(str, config.block_config)),
                f"{dm.count_parameters(spec).trainable:,}",
                f"{work:,}",
                f"{size}x{size}",
            )
        )
    return rows


@dataclass(frozen=True)
class CommandText:
    """A command as its help describes it.

    Attributes:
        name: such as ``"train"``.
        usage: the line that its help starts with.
        paragraphs: its description.
        options: (flags with placeholder, help) of each option, in the order of the help.
        example: a command line to copy.
    """

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    example: str


def command_groups() -> dict[str, list[CommandText]]:
    """Return {heading: its commands}, grouped and ordered as ``densenet-multi --help`` does."""
    root = click.Context(main, info_name=PROGRAM, **main.context_settings)
    return {
        heading: [_described(command, root) for command in commands]
        for heading, commands in GROUPS.items()
    }


def introduction() -> tuple[str, ...]:
    """Return the paragraphs with which ``densenet-multi --help`` starts."""
    return _paragraphs(main.help)


def _described(command: click.Command, root: click.Context) -> CommandText:
    context = click.Context(command, info_name=command.name, parent=root)
    options = (one for one in command.get_params(context) if isinstance(one, click.Option))
    records = (option.get_help_record(context) for option in options)
    return CommandText(
        str(command.name),
        " ".join([context.command_path, *command.collect_usage_pieces(context)]),
        _paragraphs(command.help),
        tuple((names, _line(text)) for names, text in filter(None, records)),
        str(command.epilog or "").partition("Example:\n")[2].strip(),
    )


def _paragraphs(text: str | None) -> tuple[str, ...]:
    return tuple(_line(part) for part in re.split(r"\n\s*\n", text or "") if part.strip())


def _line(text: str) -> str:
    return " ".join(text.replace("\b", "").split())
