"""``densenet-multi lockstep``: train the backends on the same batches, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import VARIANTS, backend_names, get_spec
from .._checks import check_names
from ..variants import default_image_size
from .options import (
    AT_LEAST_0,
    AT_LEAST_1,
    AT_LEAST_2,
    EXISTING_FILE,
    RECIPE,
    VARIANT,
    backends_option,
    data_dir_option,
    example,
    format_option,
    image_size_option,
    output_option,
    requested_backends,
)
from .output import errors_as_exit_codes, fitting, print_failures, print_result, progress_bar
from .output import exit_code as exit_code_of_backends

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


@click.command(epilog=example("densenet-multi lockstep --backends torch,keras --steps 5"))
@click.option("--variant", type=VARIANT, help=f"One of: {', '.join(VARIANTS)}.  [default: d2l]")
@backends_option
@click.option(
    "--steps", type=AT_LEAST_1, default=50, show_default=True, help="Training steps per run."
)
@click.option(
    "--batch-size",
    type=AT_LEAST_2,
    default=32,
    show_default=True,
    help="Images per step.",
)
@image_size_option
@click.option(
    "--data",
    default="sample",
    show_default=True,
    help="sample, fashion-mnist, cifar10:PATH or folder:PATH.",
)
@data_dir_option
@click.option(
    "--recipe",
    type=RECIPE,
    default="chapter",
    show_default=True,
    help="Hyperparameters: chapter, paper, modern or quick.",
)
@click.option(
    "--seed",
    type=AT_LEAST_0,
    default=0,
    show_default=True,
    help="Seed of the initial weights and the data order.",
)
@click.option(
    "--weights",
    type=EXISTING_FILE,
    help="Portable file (.safetensors) to start from, instead of a variant's initial weights.",
)
@format_option
@output_option
@errors_as_exit_codes
def lockstep(  # noqa: PLR0917  # click passes options by name
    variant: str | None,
    backends: str | None,
    steps: int,
    batch_size: int,
    image_size: int | None,
    data: str,
    data_dir: Path | None,
    recipe: str,
    seed: int,
    weights: Path | None,
    output_format: str,
    output: Path | None,
) -> int:
    """Train each backend on the same batches; check that losses agree.

    Each backend trains in its own process, once in float64 and once in float32, from the same
    weights. Step by step, the float64 runs are compared with each other; they agree up to rounding.
    Each float32 run is compared with the same backend's float64 run.
    """
    from dataclasses import replace

    import numpy as np

    from ..comparison.lockstep import lockstep as train_in_lockstep
    from ..comparison.lockstep import progress_steps
    from ..data import load_data
    from ..formats.portable import load_checkpoint
    from ..training.recipe import RECIPES
    from ..weights import init_weights

    requested = requested_backends(backends)
    check_names("recipe", [recipe], RECIPES)
    if weights and variant:
        raise click.UsageError("--weights determines the network: omit --variant")
    variant = variant or "d2l"
    checkpoint = load_checkpoint(weights) if weights else None
    spec = checkpoint.spec if checkpoint else get_spec(variant)
    meant_for = checkpoint.usage.image_size if checkpoint else None
    size = image_size or meant_for or default_image_size(spec)
    examples = load_data(
        data,
        image_size=size,
        in_channels=spec.config.in_channels if checkpoint else None,
        usage=checkpoint.usage if checkpoint else None,
        data_dir=data_dir,
        seed=seed,
    )
    if checkpoint:
        values = checkpoint.weights
    else:
        channels = examples.train.take(np.arange(1)).shape[1]
        spec = get_spec(variant, in_channels=channels, num_classes=len(examples.class_names))
        values = init_weights(spec, seed)
    chosen = requested or backend_names()
    with progress_bar(progress_steps(chosen, steps)) as step:
        result = train_in_lockstep(
            spec,
            values,
            examples.train,
            replace(RECIPES[recipe], batch_size=batch_size, seed=seed),
            backends=chosen,
            steps=steps,
            step=step,
        )
    start = str(weights) if weights else f"{variant}, seed {seed}"
    result = {"weights": start, "data": data, "recipe_name": recipe, "image_size": size, **result}
    print_result(result, output_format, table, output)
    print_failures(result)
    return exit_code(result, requested)


def exit_code(result: dict[str, Any], requested: list[str]) -> int:
    """Return 0 if the float64 runs and all first float32 steps agree, 1 if one differs or a backend
    failed, 3 if a requested backend or all backends are not installed."""
    same = [result["float64"]["same"], *(run["same"] for run in result["float32"].values())]
    return exit_code_of_backends(result, requested) if all(same) else 1


def table(result: dict[str, Any]) -> Group:
    """Return the losses step by step, the float32 deviations, and a summary of the runs."""
    from rich.console import Group

    if not result["float32"]:
        return Group(*_summary(result))
    return Group(*_losses(result), *_float32(result), *_summary(result))


def _losses(result: dict[str, Any]) -> tuple[str, Table]:
    drawn = _drawn()
    names = list(result["float32"])
    for heading in ("step", *names, "relative difference"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for i in range(result["steps"]):
        drawn.add_row(
            str(i + 1),
            *(fitting(result["backends"][name]["losses"]["float64"][i], 7) for name in names),
            f"{result['float64']['losses'][i]:.1e}",
        )
    title = (
        f"{result['steps']} steps of {result['recipe']['batch_size']} images, {result['data']}, "
        f"{result['image_size']}x{result['image_size']}, {result['recipe_name']} recipe, "
        f"from {result['weights']}\n\nLoss in float64"
    )
    return title, drawn


def _float32(result: dict[str, Any]) -> tuple[str, Table]:
    drawn = _drawn()
    for heading in ("step", *result["float32"]):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for i in range(result["steps"]):
        losses = (found["losses"][i] for found in result["float32"].values())
        drawn.add_row(str(i + 1), *(f"{loss:.1e}" for loss in losses))
    title = (
        "Loss in float32: relative difference from the same backend's loss in float64. Only the "
        "first step is checked: once rounding flips the sign of a ReLU's input, its gradient "
        "changes and the two runs diverge."
    )
    return title, drawn


def _summary(result: dict[str, Any]) -> tuple[str, Table]:
    drawn = _drawn()
    for heading in ("run", "first step", "all steps", "weights", "means", "verdict"):
        drawn.add_column(heading, no_wrap=True)
    among = result["float64"]
    if len(result["float32"]) > 1:
        drawn.add_row("float64, between backends", *_row(among), end_section=True)
    for name, report in result["backends"].items():
        if report["status"] != "ok":
            drawn.add_row(f"{name}: {report['status']}")
            continue
        version = next(iter(report["versions"].values()), "")
        run = f"float32, {report['framework']} {version}"
        drawn.add_row(run, *_row(result["float32"][name]))
    tolerances = result["tolerances"]
    title = (
        "Largest relative differences of losses, and of final weights and running means (L2 norm "
        f"over all tensors). Same: up to {tolerances['float64']:.0e} in float64 (running means: "
        f"{tolerances['float64 running means']:.0e}), and up to "
        f"{tolerances['float32 first step']:.0e} at the first step in float32."
    )
    return title, drawn


def _row(found: dict[str, Any]) -> list[str]:
    measured = (found["losses"][0], found["loss"], found["weights"], found["running_means"])
    return [*(f"{value:.1e}" for value in measured), "same" if found["same"] else "DIFFERS"]


def _drawn() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
