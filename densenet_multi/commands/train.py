"""``densenet-multi train``: train a network with a recipe, and keep it in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from .. import ConfigError, backend_names, get_spec
from .._checks import check_names
from .._memory import keep_memory
from ..backends import first_installed
from ..variants import default_image_size
from .flags import flag_of
from .options import (
    AT_LEAST_0,
    AT_LEAST_1,
    AT_LEAST_2,
    BACKEND,
    IMAGE_SIZE,
    RECIPE,
    VARIANT,
    NewPath,
    Seconds,
    device_option,
    example,
    format_option,
)
from .output import errors_as_exit_codes, fitting, print_result, say

if TYPE_CHECKING:
    from rich.table import Table

    from ..tasks.train import Options

WIDTH_OF_LOSS = 9  # columns of text, that of "test loss"


@click.command(
    epilog=example(
        "densenet-multi train --backend torch --data sample --image-size 32 --epochs 3 --output run"
    )
)
@click.option(
    "--backend",
    "backend_name",
    type=BACKEND,
    help="Backend that trains.  [default: the first installed]",
)
@click.option("--recipe", type=RECIPE, help="chapter, paper, modern or quick.  [default: chapter]")
@click.option("--variant", type=VARIANT, help="Network.  [default: the recipe's]")
@click.option(
    "--data",
    help="fashion-mnist, sample, cifar10:PATH, folder:PATH, or just the PATH of your images.  "
    "[default: fashion-mnist]",
)
@click.option("--data-dir", help="Folder with the Fashion-MNIST files.", type=click.Path())
@click.option("--image-size", type=IMAGE_SIZE, help="Pixels per side.  [default: the recipe's]")
@click.option(
    "--epochs", type=AT_LEAST_1, help="Passes over the training images.  [default: the recipe's]"
)
@click.option("--batch-size", type=AT_LEAST_2, help="Images per step.  [default: the recipe's]")
@click.option("--learning-rate", type=float, help="Peak rate.  [default: the recipe's]")
@click.option("--initialization", help="he_fan_out, he_fan_in or xavier.  [default: the recipe's]")
@click.option(
    "--seed", type=AT_LEAST_0, help="Seed of weights, order, augmentation, split.  [default: 0]"
)
@device_option
@click.option("--bfloat16", is_flag=True, default=None, help="Multiply in bfloat16.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Portable file to start from; if the classes differ, the classifier is replaced.",
)
@click.option(
    "--freeze", "train_features", flag_value=False, default=None, help="Train only the classifier."
)
@click.option(
    "--recalibrate",
    type=AT_LEAST_0,
    help="Finally, recompute the running statistics on N batches.  [default: the recipe's]",
    metavar="N",
)
@click.option(
    "--average",
    type=click.FloatRange(min=0, max=1),
    help="At the end, average the weights of the last FRACTION of the epochs: 0.5 averages the "
    "last 5 of 10.  [default: the recipe's]",
    metavar="FRACTION",
)
@click.option(
    "--output",
    type=NewPath(file_okay=False),
    help="Run folder: state, weights, history, curve and report.",
)
@click.option(
    "--memory-efficient",
    type=click.Choice(["some", "max"]),
    is_flag=False,
    flag_value="some",
    help="Save memory: recompute part of each dense block in the backward pass; max: everything "
    "but its feature maps.  [without a value: some]",
)
@click.option(
    "--save-every",
    type=Seconds(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between saves within an epoch.",
)
@click.option("--resume", is_flag=True, help="Resume the run in --output, in any backend.")
@format_option
@errors_as_exit_codes
def train(  # noqa: PLR0917  # click passes options by name
    output: Path | None,
    resume: bool,
    save_every: float,
    device: str | None,
    output_format: str,
    memory_efficient: Literal["some", "max"] | None,
    **given: Any,
) -> None:
    """Train a network on Fashion-MNIST, CIFAR-10 or your own images.

    The default network and recipe are those of the DenseNet chapter of the book "Dive into Deep
    Learning", on Fashion-MNIST. Every backend starts from the same initial weights and sees the
    same images in the same order, with the same augmentation.
    """
    from ..tasks.train import train as run_training
    from ..training.recipe import RECIPES
    from ..training.run_folder import read_config

    if resume and output is None:
        raise click.UsageError(
            "--resume: expected a run folder as --output, found none; add --output DIR"
        )
    check_names("backend", filter(None, [given["backend_name"]]), backend_names())
    check_names("recipe", filter(None, [given["recipe"]]), RECIPES)
    config = read_config(output) if output is not None and resume else None
    options = options_from(given, config)
    keep_memory(options.backend_name)
    report = run_training(
        options,
        output=output,
        resume=resume,
        save_every=save_every,
        device=device,
        memory_efficient=memory_efficient or False,
        say=say,
    )
    print_result(report, output_format, table)


# --- From flags to options ----------------------------------------------------------------------


def options_from(given: dict[str, Any], config: dict[str, Any] | None) -> Options:
    """Return the options of a new or resumed run.

    Arguments:
        given: {parameter: value}; None if not typed. ``recipe`` is a name; ``variant`` and other
            fields of ``Recipe`` override the recipe's.
        config: the ``config.json`` of a resumed run. Options that are typed must agree with it,
            except the backend and the data folder.

    Raises ``ConfigError`` if they disagree, and ``RunError``.
    """
    from dataclasses import asdict, replace

    from .._files import resolved
    from ..data.sources import spelled_out
    from ..tasks.train import Options

    typed = {name: value for name, value in given.items() if value is not None}
    if "data" in typed:  # the run may be resumed in another working folder
        typed["data"] = spelled_out(typed["data"])
    if "data_dir" in typed:
        typed["data_dir"] = str(resolved(typed["data_dir"]))
    if config is None:
        return _new_options(typed)
    options = Options.from_dict(config)
    free: dict[str, Any] = {
        name: str(typed.pop(name)) for name in ("backend_name", "data_dir") if name in typed
    }
    began = {**asdict(options), **asdict(options.recipe), "recipe": options.recipe_name}
    for name, value in typed.items():
        if value != began[name]:
            raise ConfigError(
                f"{flag_of(train, name)}: expected {began[name]!r}, as this run began, found "
                f"{value!r}; omit it, or start a new run with another --output"
            )
    return replace(options, **free)


def _new_options(typed: dict[str, Any]) -> Options:
    from dataclasses import fields, replace

    from ..tasks.train import Options
    from ..training.recipe import RECIPES, Recipe

    if "variant" in typed and "weights" in typed:
        raise ConfigError("--weights determines the network: omit --variant")
    if "initialization" in typed and "weights" in typed:
        raise ConfigError("--weights replaces the initial weights: omit --initialization")
    if "train_features" in typed and "weights" not in typed:
        raise ConfigError("--freeze needs trained features, found none; add --weights")
    name = typed.get("recipe", "chapter")
    changes = {f.name: typed[f.name] for f in fields(Recipe) if f.name in typed}
    if "train_features" in changes:
        changes.setdefault("recalibrate", 0)  # keep the features' running statistics
    elif changes.get("recalibrate") == 0:
        if changes.setdefault("average", 0):  # averaged weights need recomputed statistics
            raise ConfigError("--average needs --recalibrate of at least 1, found 0")
    elif changes.get("average") and RECIPES[name].recalibrate == 0:
        changes.setdefault("recalibrate", RECIPES["chapter"].recalibrate)
    if "image_size" not in changes and ("variant" in changes or "weights" in typed):
        changes["image_size"] = _usual_image_size(changes.get("variant"), typed.get("weights"))
    own = {n: typed[n] for n in ("data", "data_dir", "weights") if n in typed}
    recipe = replace(RECIPES[name], **changes)  # validates every field
    return Options(
        backend_name=typed.get("backend_name") or first_installed(),
        **own,
        recipe=recipe,
        recipe_name=name,
    )


def _usual_image_size(variant: str | None, weights: str | None) -> int:
    from ..formats.portable import load_checkpoint

    if weights is None:
        return default_image_size(get_spec(variant or "d2l"))
    checkpoint = load_checkpoint(weights)
    return checkpoint.usage.image_size or default_image_size(checkpoint.spec)


# --- The table ----------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> Table:
    """Return one row per epoch, and one for the final weights."""
    from rich import box
    from rich.table import Table

    from ..tasks.train import origin_of

    recipe = report["recipe"]
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=f"{report['weights'] or recipe['variant']} in {report['framework']}, "
        f"{report['train_examples']:,} images of {report['data']}, "
        f"{recipe['image_size']}x{recipe['image_size']}",
        title_justify="left",
    )
    drawn.add_column("epoch", justify="right", no_wrap=True)
    for heading in ("train loss", "train accuracy", "test loss", "test accuracy"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("images/s", justify="right")
    for epoch in report["epochs"]:
        drawn.add_row(
            str(epoch["number"]),
            fitting(epoch["loss"], WIDTH_OF_LOSS),
            f"{epoch['accuracy']:.4f}",
            fitting(epoch["validation_loss"], WIDTH_OF_LOSS),
            f"{epoch['validation_accuracy']:.4f}",
            f"{epoch['images_per_second']:,.0f}",
        )
    if final := report.get("final"):
        drawn.add_section()
        loss = fitting(final["test_loss"], WIDTH_OF_LOSS)
        drawn.add_row("final", "", "", loss, f"{final['test_accuracy']:.4f}", "")
        drawn.caption = (
            f"final: {origin_of(final)}\n"
            "test accuracy of an epoch: with running statistics, which lag behind the weights"
        )
        drawn.caption_justify = "left"
    return drawn
