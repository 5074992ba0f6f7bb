"""The command line: data on stdout, everything else on stderr.

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 a backend is not installed, 4 data not available.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import (
    VARIANTS,
    BackendNotInstalledError,
    ConfigError,
    __version__,
    backend_names,
    count_parameters,
    get_spec,
    profile,
)
from .._checks import check_names
from ..backends import framework_versions, package_versions
from ..variants import default_image_size
from .bench import picture as bench_picture
from .bench import table as bench_table
from .compare import exit_code as compare_exit_code
from .compare import table as compare_table
from .lockstep import exit_code as lockstep_exit_code
from .lockstep import table as lockstep_table

if TYPE_CHECKING:
    from rich.console import RenderableType

NARROWEST = 80  # columns, also where stdout is no terminal


def errors_as_exit_codes(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a user's input can cause into one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        # the same as Ctrl-C: processes that were started end, temporary folders go
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            code = command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("densenet-multi: interrupted", err=True)
            code = 128 + signal.SIGINT
        except MemoryError as error:
            click.echo(
                f"densenet-multi: not enough memory; try smaller images or batches ({error})",
                err=True,
            )
            code = 1
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except (BackendNotInstalledError, ValueError, OSError) as error:
            code = _exit_code(error)
            click.echo(f"densenet-multi: {_message(error)}", err=True)
        sys.exit(code or 0)

    return run


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def _exit_code(error: Exception) -> int:
    from .._inputs import ImageError
    from ..data import DataError, IdxError
    from ..training.run_folder import RunError

    if isinstance(error, BackendNotInstalledError):
        return 3
    if isinstance(error, (DataError, IdxError)):
        return 4
    return 2 if isinstance(error, (ConfigError, ImageError, RunError)) else 1


format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="A table to look at, or JSON.",
)


AT_LEAST_1 = click.IntRange(min=1)

image_size_option = click.option(
    "--image-size", type=AT_LEAST_1, help="Pixels per side.  [default: 96; CIFAR nets: 32]"
)


class NewPath(click.Path):
    """Where something will be written; an empty path would be the current folder."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A ``Path``."""
        if not str(value):
            self.fail("expected a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A number, which not-a-number is not."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A float."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:  # noqa: PLR0124
            self.fail("expected a number of seconds, found nan", param, ctx)
        return seconds


backends_option = click.option(
    "--backends", help="Comma-separated, such as torch,flax.  [default: all]"
)
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    help="Where it computes.  [default: a GPU where there is one]",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where the files of fashion-mnist are.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="densenet-multi")
def main() -> None:
    """One DenseNet specification, four native implementations, one function.

    Exit codes: 0 ok, 1 a check failed, 2 usage, 3 backend not installed, 4 data not available,
    130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports what it did not find


@main.command(epilog=f"Variants: {', '.join(VARIANTS)}.")
@click.argument("variant", default="d2l")
@image_size_option
@click.option("--num-classes", type=int, help="Another classifier; 0 for none.")
@click.option("--in-channels", type=int, help="Another number of image channels.")
@format_option
@errors_as_exit_codes
def summary(
    variant: str,
    image_size: int | None,
    num_classes: int | None,
    in_channels: int | None,
    output_format: str,
) -> None:
    """Stages, shapes, parameters and work of VARIANT (default: d2l).

    Both are counted in the paper's order; the backends pool before a transition's convolution.
    Multiply-adds count the taps on zero padding too. Activations are what training keeps for the
    backward pass without recomputation, in float32, per image.
    """
    given = {"num_classes": num_classes, "in_channels": in_channels}
    spec = get_spec(variant, **{name: value for name, value in given.items() if value is not None})
    size = image_size if image_size is not None else default_image_size(spec)
    stages = profile(spec, size, size)
    rows = [
        {
            "stage": stage.name,
            "shape": stage.shape,
            "trainable": stage.parameters.trainable,
            "statistics": stage.parameters.statistics,
            "multiply_adds": stage.multiply_adds,
            "activation_bytes": stage.activation_bytes(),
        }
        for stage in stages
    ]
    counts = count_parameters(spec)
    total = {
        "trainable": counts.trainable,
        "statistics": counts.statistics,
        "multiply_adds": sum(stage.multiply_adds for stage in stages),
        "activation_bytes": sum(stage.activation_bytes() for stage in stages),
    }
    config = json.loads(spec.to_json())["config"]
    result = {"variant": variant, "config": config, "image_size": size, "stages": rows}
    _print(
        {**result, "total": total},
        output_format,
        lambda: _summary_table(variant, size, rows, total),
    )


@main.command()
@click.option("--variant", help=f"One of: {', '.join(VARIANTS)}.  [default: d2l]")
@backends_option
@click.option(
    "--batch-size", type=AT_LEAST_1, default=64, show_default=True, help="Number of images."
)
@image_size_option
@click.option("--seed", type=click.IntRange(min=0), help="Of the initial weights.  [default: 0]")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A portable .safetensors file instead of a variant with initial weights.",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True
)
@format_option
@click.option(
    "--output",
    type=NewPath(dir_okay=False, writable=True),
    help="Write there instead of to stdout.",
)
@errors_as_exit_codes
def compare(  # noqa: PLR0917  # click passes options by name
    variant: str | None,
    backends: str | None,
    batch_size: int,
    image_size: int | None,
    seed: int | None,
    weights: Path | None,
    dtype: str,
    output_format: str,
    output: Path | None,
) -> int:
    """Lay the backends side by side, on real Fashion-MNIST images.

    Each backend gets the same weights and images in a process of its own, and is compared with the
    NumPy reference in float64. A variant is built with one input channel and 10 classes.
    """
    from ..comparison import compare as comparison
    from ..formats.portable import load_weights
    from ..weights import init_weights

    asked = _asked(backends)
    _check_output(output)
    if weights:
        if variant or seed is not None:
            raise click.UsageError("--weights decides the network: leave --variant and --seed out")
        spec, values = load_weights(weights)
    else:
        variant, seed = variant or "d2l", seed or 0
        spec = get_spec(variant, in_channels=1, num_classes=10)
        values = init_weights(spec, seed)
    chosen = asked or backend_names()
    with _progress(comparison.steps(chosen, batch_size)) as step:
        result = comparison.compare(
            spec,
            values,
            backends=chosen,
            image_size=image_size if image_size is not None else default_image_size(spec),
            batch_size=batch_size,
            dtype=dtype,
            step=step,
        )
    result = {"weights": str(weights) if weights else f"{variant}, seed {seed}", **result}
    _print(result, output_format, lambda: compare_table(result), output)
    _print_errors(result)
    return compare_exit_code(result, asked)


@main.command()
@click.option("--variant", help=f"One of: {', '.join(VARIANTS)}.  [default: d2l]")
@backends_option
@click.option("--steps", type=AT_LEAST_1, default=50, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=32, show_default=True)
@image_size_option
@click.option(
    "--data",
    default="sample",
    show_default=True,
    help="Or fashion-mnist, folder:PATH, cifar10:PATH.",
)
@data_dir_option
@click.option(
    "--recipe", default="chapter", show_default=True, help="Learning rate, momentum and the rest."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the initial weights and of the order of the images.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Start from a portable .safetensors file, not from a variant's initial weights.",
)
@format_option
@click.option(
    "--output",
    type=NewPath(dir_okay=False, writable=True),
    help="Write there instead of to stdout.",
)
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
    """Train the backends from the same weights on the same batches: in float64 they stay together.

    Each backend trains in a process of its own, once in float64 and once in float32, and is
    compared step by step: in float64 with the others, in float32 with itself in float64.
    """
    from dataclasses import replace

    import numpy as np

    from ..comparison import lockstep as training
    from ..data import load_data
    from ..formats.portable import load_checkpoint
    from ..training.recipe import RECIPES
    from ..weights import init_weights

    asked = _asked(backends)
    _check_output(output)
    check_names("recipe", [recipe], RECIPES)
    if weights and variant:
        raise click.UsageError("--weights decides the network: leave --variant out")
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
    chosen = asked or backend_names()
    with _progress(training.parts(chosen, steps)) as step:
        result = training.lockstep(
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
    _print(result, output_format, lambda: lockstep_table(result), output)
    _print_errors(result)
    return lockstep_exit_code(result, asked)


@main.command()
@click.option("--backend", help="Which one trains.  [default: the first that is installed]")
@click.option("--recipe", help="chapter, paper or modern.  [default: chapter]")
@click.option("--variant", help="Another network than the recipe's.")
@click.option("--data", help="fashion-mnist, sample, folder:PATH or cifar10:PATH.")
@click.option("--data-dir", help="Where Fashion-MNIST's files are.", type=click.Path())
@click.option("--image-size", type=AT_LEAST_1, help="Pixels per side.")
@click.option("--epochs", type=AT_LEAST_1)
@click.option("--batch-size", type=click.IntRange(min=2))
@click.option("--learning-rate", type=float)
@click.option("--initialization", help="he_fan_out, he_fan_in or xavier.  [default: the recipe's]")
@click.option("--seed", type=click.IntRange(min=0), help="Of the initial weights and the order.")
@device_option
@click.option("--bfloat16", is_flag=True, default=None, help="Multiply in bfloat16.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="A portable file to begin with; other classes get a new classifier.",
)
@click.option("--freeze", "frozen", is_flag=True, default=None, help="Train the classifier alone.")
@click.option(
    "--recalibrate",
    type=click.IntRange(min=0),
    help="Measure the running statistics anew at the end, on N batches.  [default: the recipe's]",
    metavar="N",
)
@click.option(
    "--average",
    type=click.FloatRange(min=0, max=1),
    help="End with the mean of the weights that the last FRACTION of the epochs ended with; 0.5 of "
    "ten are five.  [default: the recipe's]",
    metavar="FRACTION",
)
@click.option(
    "--output",
    type=NewPath(file_okay=False),
    help="The run's folder: checkpoints, history, curve, report.",
)
@click.option(
    "--memory-efficient",
    type=click.Choice(["some", "max"]),
    is_flag=False,
    flag_value="some",
    help="Calculate part of each dense block again in the backward pass, and do not keep it; max: "
    "all but its maps.  [without a word: some]",
)
@click.option(
    "--save-every",
    type=Seconds(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between checkpoints within an epoch.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --output, in any backend.")
@format_option
@errors_as_exit_codes
def train(  # noqa: PLR0917  # click passes options by name
    output: Path | None,
    resume: bool,
    save_every: float,
    device: str | None,
    frozen: bool | None,
    output_format: str,
    memory_efficient: str | None,  # click passes options by name
    **given: Any,
) -> None:
    """Train a network on real images and show what came out.

    Without other options, it is the chapter's network and recipe on Fashion-MNIST. The data order,
    the augmentation and the initial weights are the same in every backend.
    """
    from ..tasks import train as training
    from ..training.recipe import RECIPES
    from ..training.run_folder import read_config

    if resume and output is None:
        raise click.UsageError("--resume needs --output, the folder of the run")
    check_names("backend", [given["backend"]] if given["backend"] else [], backend_names())
    check_names("recipe", [given["recipe"]] if given["recipe"] else [], RECIPES)
    given["train_features"] = None if frozen is None else False
    found = read_config(output) if output is not None and resume else None
    report = training.train(
        training.options_from(given, found),
        output=output,
        resume=resume,
        save_every=save_every,
        device=device,
        memory_efficient={None: False, "some": True}.get(memory_efficient, "max"),
        say=_say,
    )
    _print(report, output_format, lambda: training.table(report))


@main.command()
@backends_option
@click.option(
    "--work",
    type=click.Choice(["training", "inference", "memory"]),
    default="training",
    show_default=True,
)
@click.option("--variant", help="The network.  [default: d2l; densenet121; densenet_bc100_k12]")
@click.option("--depth", type=AT_LEAST_1, help="For memory: L of a DenseNet-BC, k = 12.")
@click.option("--image-size", type=AT_LEAST_1, help="Pixels per side.  [default: 96; 224; 32]")
@click.option("--batch-size", type=AT_LEAST_1, help="Images per step.  [default: 64; 8; 64]")
@click.option("--rounds", type=AT_LEAST_1, default=5, show_default=True, help="Turns of each case.")
@click.option("--steps", type=AT_LEAST_1, default=2, show_default=True, help="In each round.")
@click.option("--threads", type=AT_LEAST_1, help="CPUs of each case.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Where it computes.",
)
@format_option
@click.option(
    "--output",
    type=NewPath(dir_okay=False, writable=True),
    help="FILE.svg for a picture.",
)
@errors_as_exit_codes
def bench(
    backends: str | None,
    output_format: str,
    output: Path | None,
    work: str,
    rounds: int,
    **given: Any,
) -> int:
    """How fast each backend trains or predicts, with the chapter's own code and the framework's own
    DenseNet beside it; or what memory-efficient training costs and saves.

    Each case is a process of its own; they take turns, so that what else the machine
    does meets all of them. The ratio is what counts.
    """
    from .._files import replace_file
    from ..comparison import bench as benchmark

    asked = _asked(backends)
    _check_svg(output)
    chosen = asked or backend_names()
    with _progress(benchmark.parts(chosen, work, rounds)) as step:
        result = benchmark.bench(backends=chosen, work=work, rounds=rounds, **given, step=step)
    if output:
        replace_file(output, bench_picture(result))
    _print(result, output_format, lambda: bench_table(result))
    _print_errors(result)
    return compare_exit_code(result, asked)


@main.command()
@click.argument("weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--backend", help="Which one predicts.  [default: the first that is installed]")
@click.option(
    "--data",
    default="fashion-mnist",
    show_default=True,
    help="Or sample, folder:PATH, cifar10:PATH.",
)
@data_dir_option
@click.option(
    "--image-size", type=AT_LEAST_1, help="Pixels per side.  [default: as WEIGHTS say, or usual]"
)
@click.option("--batch-size", type=AT_LEAST_1, default=64, show_default=True)
@device_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Decides which images of a folder are for the test.  [default: as in training]",
)
@click.option(
    "--recalibrate",
    type=click.IntRange(min=0),
    default=0,
    help="Measure the running statistics anew, on N batches of 256 training images.",
    metavar="N",
)
@click.option("--bfloat16", is_flag=True, help="Predict in bfloat16, with an optimized model.")
@format_option
@click.option(
    "--output",
    type=NewPath(dir_okay=False, writable=True),
    help="FILE.svg for a picture of the confusion matrix.",
)
@errors_as_exit_codes
def evaluate(weights: Path, output_format: str, output: Path | None, **given: Any) -> None:
    """Accuracy, loss, accuracy per class and confusions of WEIGHTS, a portable file, on test
    images.
    """
    from .._files import replace_file
    from ..tasks import evaluate as evaluation

    _check_svg(output)
    result = evaluation.evaluate(weights, **given, say=_say)
    if output:
        replace_file(output, evaluation.picture(result))
    _print(result, output_format, lambda: evaluation.table(result))


@main.command()
@click.argument("weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument(
    "images",
    metavar="IMAGE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--backend", help="Which one predicts.  [default: the first that is installed]")
@click.option("--top", type=AT_LEAST_1, default=5, show_default=True, help="Classes per image.")
@click.option(
    "--image-size", type=AT_LEAST_1, help="Pixels per side.  [default: as WEIGHTS say, or usual]"
)
@click.option("--batch-size", type=AT_LEAST_1, default=64, show_default=True)
@device_option
@format_option
@errors_as_exit_codes
def predict(weights: Path, images: tuple[Path, ...], output_format: str, **given: Any) -> None:
    """The most probable classes of each IMAGE, in the eyes of WEIGHTS, a portable file.

    An IMAGE is a PNG or JPEG file of any size and mode. It is resized to a square, not cropped.
    """
    from ..tasks import evaluate as evaluation

    found = evaluation.predict(weights, images, **given, say=_say)
    _print(found, output_format, lambda: evaluation.predictions(found))


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("dest", type=NewPath())
@click.option("--from", "source_format", help="Format of SOURCE.  [default: by its content]")
@click.option("--to", "dest_format", help="Format of DEST.  [default: by its name]")
@click.option("--variant", help="Where names and shapes shall not decide.")
@click.option("--num-classes", type=click.IntRange(min=0), help="A new classifier; 0 for none.")
@click.option("--verify", is_flag=True, help="Run both models on real images before writing DEST.")
@format_option
@errors_as_exit_codes
def convert(  # noqa: PLR0917  # click passes options by name
    source: Path,
    dest: Path,
    source_format: str | None,
    dest_format: str | None,
    variant: str | None,
    num_classes: int | None,
    verify: bool,
    output_format: str,
) -> None:
    """Turn the checkpoint SOURCE into DEST: torchvision, timm, Keras, the Gluon zoo, Flax NNX, or
    the portable file that all commands here read.

    Known formats: see --help of inspect. A file is written whole or not at all.
    """
    from ..tasks import convert as conversion

    if dest.exists() and source.resolve() == dest.resolve():
        raise click.UsageError("SOURCE and DEST are the same file")
    done = conversion.convert(
        source,
        dest,
        source_format,
        dest_format,
        variant=variant,
        num_classes=num_classes,
        verify=verify,
    )
    _print({"source": str(source), "dest": str(dest), **done}, output_format, lambda: _facts(done))


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "file_format", help="Its format.  [default: by its content]")
@format_option
@errors_as_exit_codes
def inspect(file: Path, file_format: str | None, output_format: str) -> None:
    """What the checkpoint FILE is: format, variant, counts, how to use it, what is unusual.

    Formats: portable, torchvision (also timm), keras, kerashub, gluon (the MXNet zoo), nnx.
    """
    from ..tasks import convert as conversion

    result = conversion.inspect(file, file_format)
    _print(result, output_format, lambda: _facts(result))


@main.command()
@format_option
@errors_as_exit_codes
def info(output_format: str) -> None:
    """Platform, versions, backends, threads: what a bug report needs."""
    import platform

    settings = ("_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "XLA_FLAGS", "KERAS_BACKEND")
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    result = {
        "densenet_multi": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable),
        "settings": {k: os.environ[k] for k in sorted(os.environ) if k.endswith(settings)},
        "packages": package_versions(),
        "backends": {name: framework_versions(name) for name in backend_names()},
    }
    _print(result, output_format, lambda: _info_table(result))


def _asked(backends: str | None) -> list[str]:
    """The backends that were asked for, each once; none if that was left out."""
    asked = [] if backends is None else [name.strip() for name in backends.split(",")]
    check_names("backend", asked, backend_names())
    return list(dict.fromkeys(asked))


# --- Output -------------------------------------------------------------------------------------


def _check_svg(output: Path | None) -> None:
    _check_output(output)
    if output and output.suffix != ".svg":
        raise click.BadParameter(
            f"expected a name that ends in .svg, found {output.name}; for numbers: --format json",
            param_hint="--output",
        )


def _check_output(path: Path | None) -> None:
    """Before the work, not after it."""
    if path and not (path.name and os.access(path.parent, os.W_OK)):
        raise click.BadParameter(f"no folder to write to: {path.parent}", param_hint="--output")


def _print_errors(result: dict[str, Any]) -> None:
    for name, report in result["backends"].items():
        if report["status"] != "ok":
            click.echo(f"{name}: {report['error']}", err=True)


def _say(text: str) -> None:
    # not click.echo: a progress bar, while it is drawn, replaces sys.stderr to write above itself
    print(f"densenet-multi: {text}", file=sys.stderr)  # noqa: T201


def _print(
    result: dict[str, Any] | list[dict[str, Any]],
    output_format: str,
    table: Callable[[], RenderableType],
    path: Path | None = None,
) -> None:
    from .._files import replace_file

    if output_format == "json":
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    else:
        from rich.console import Console

        wide = sys.stdout is not None and sys.stdout.isatty() and path is None
        width = max(Console().width, NARROWEST) if wide else NARROWEST
        # names of files and classes may look like markup
        console = Console(
            width=width, no_color=not wide, highlight=False, markup=False, emoji=False
        )
        with console.capture() as capture:
            console.print(table())
        text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    if path is None:
        click.echo(text, nl=False)
    else:
        replace_file(path, text.encode())


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr, on a terminal only; yields the function that takes the next step."""
    from .._progress import progress

    with progress() as bar:
        task = bar.add_task("", total=total)
        begun = -1

        def step(text: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, description=text, completed=begun)

        yield step


def _summary_table(
    variant: str, size: int, rows: list[dict[str, Any]], total: dict[str, int]
) -> Any:
    from rich import box
    from rich.table import Table

    title = f"{variant}, {size}x{size}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title=title, show_footer=True)
    columns = ("trainable", "statistics", "multiply_adds", "activation_bytes")
    headings = ("trainable", "statistics", "multiply-adds", "activations")
    table.add_column("stage", "total")
    table.add_column("output (C, H, W)")
    for heading, column in zip(headings, columns, strict=True):
        table.add_column(heading, _amount(column, total[column]), justify="right")
    for row in rows:
        amounts = (_amount(column, row[column]) for column in columns)
        table.add_row(row["stage"], str(tuple(row["shape"])), *amounts)
    return table


def _amount(column: str, value: int) -> str:
    return f"{value / 2**20:,.2f} MiB" if column == "activation_bytes" else f"{value:,}"


def _info_table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in result.items():
        if isinstance(value, dict):
            entries = [f"{key}: {_versions(entry)}" for key, entry in value.items()]
            table.add_row(name, "\n".join(entries) or "none")
        else:
            table.add_row(name, str(value))
    return table


def _facts(result: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in result.items():
        entries = [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else [value]
        entries = value if isinstance(value, list) else entries
        text = "\n".join(_shortened(entry) for entry in entries if entry is not None) or "none"
        table.add_row(name.replace("_", " "), text)
    return table


def _shortened(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _versions(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    if None in entry.values():
        missing = ", ".join(name for name, version in entry.items() if version is None)
        return f"not installed (lacks {missing})"
    return ", ".join(f"{name} {version}" for name, version in entry.items())
