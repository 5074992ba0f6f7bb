"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import compare as comparison

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def exit_code(result: dict[str, Any], asked: list[str]) -> int:
    """0: the float64 runs and every first float32 step agree; 1: one deviates by more than
    ``TOLERANCES``, or a backend failed; 3: as ``compare.exit_code``."""
    same = [result["float64"]["same"], *(run["same"] for run in result["float32"].values())]
    return comparison.exit_code(result, asked) if all(same) else 1


def table(result: dict[str, Any]) -> Group:
    """The losses step by step, and the deviations of the whole run."""
    from rich.console import Group

    trained = [_losses(result)] if result["float32"] else []
    return Group(*trained, _summary(result))


def _losses(result: dict[str, Any]) -> Table:
    names = list(result["float32"])
    drawn = _drawn(
        f"{result['steps']} steps of {result['recipe']['batch_size']} images, "
        f"{result['data']}, {result['image_size']}x{result['image_size']}, "
        f"{result['recipe_name']} recipe, from {result['weights']}",
        "loss: in float64. apart: the largest relative deviation between two of these losses. "
        "float32: the relative deviation of each loss from the same backend's in float64. Once "
        "a rounding error carries a value across a ReLU's kink, its gradient is another one and "
        "the two runs part; so only the first float32 step is judged.",
        padding=0,  # nine columns
    )
    drawn.add_column("\nstep", justify="right", no_wrap=True)
    for name in names:
        drawn.add_column(f"{name}\nloss", justify="right", no_wrap=True)
    drawn.add_column("\napart", justify="right", no_wrap=True)
    for name in names:
        drawn.add_column(f"{name}\nfloat32", justify="right", no_wrap=True)
    for i in range(result["steps"]):
        drawn.add_row(
            str(i + 1),
            *(f"{result['backends'][name]['losses']['float64'][i]:.4f}" for name in names),
            f"{result['float64']['losses'][i]:.1e}",
            *(f"{result['float32'][name]['losses'][i]:.1e}" for name in names),
        )
    return drawn


def _summary(result: dict[str, Any]) -> Table:
    drawn = _drawn(
        "Largest relative deviations",
        f"float64 runs are the same up to {result['tolerances']['float64']:.0e} (running means: "
        f"{result['tolerances']['float64 running means']:.0e}), a first float32 step up to "
        f"{result['tolerances']['float32 first step']:.0e}. weights, running means: L2 of the difference "
        "after the last step, all tensors in one, over L2 of the other run.",
        padding=1,
    )
    for heading in ("run", "first\nstep", "loss", "weights", "running\nmeans", "verdict"):
        drawn.add_column(heading, no_wrap=True)
    among = result["float64"]
    if len(result["float32"]) > 1:
        drawn.add_row("float64, between backends", *_row(among), end_section=True)
    for name, report in result["backends"].items():
        if report["status"] != "ok":
            drawn.add_row(f"{name}: {report['status']}")
            continue
        version = next(iter(report["versions"].values()), "")
        title = f"float32, {report['framework']} {version}"
        drawn.add_row(title, *_row(result["float32"][name]))
    return drawn


def _row(found: dict[str, Any]) -> list[str]:
    measured = (found["losses"][0], found["loss"], found["weights"], found["running_means"])
    return [*(f"{value:.1e}" for value in measured), "same" if found["same"] else "DIFFERS"]


def _drawn(title: str, caption: str, *, padding: int) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, padding),
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
