"""Exercise 5: a DenseNet of fully connected layers predicts house prices, beside other models.

All models get the same prepared inputs in the same folds. A seed chooses the folds, the networks'
initial weights and the order of their examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from statistics import mean
from time import process_time
from typing import Any

import numpy as np

from .._checks import ConfigError
from .._installed import framework
from ..data.table import read_csv
from ..drawing.svg import INPUT, MARGIN, NEW, WIDTH, Figure, document, element, path, text
from ..manifest import count_parameters
from ..tabular import plain
from ..tasks import house_prices as task
from ._exercise import Exercise, Result, Settings, Table, chosen_backend, header
from ._interval import interval, spread

SEEDS = 3
TARGETS = ("SalePrice", "Sale_Price")  # Kaggle's name of the column, and AmesHousing's
CHOICES: dict[str, tuple[Any, ...]] = {
    "normalization": ("none", "batch"),
    "activation": ("relu", "silu", "tanh"),
    "drop_rate": (0.0, 0.1),
}
NAMES = {
    "densenet": "DenseNet",
    "mlp": "plain MLP",
    "ridge": "ridge regression",
    "gradient_boosting": "gradient boosting",
    "mlp_sklearn": "scikit-learn's MLP",
}
NETWORKS = ("densenet", "mlp")


def measure(settings: Settings) -> Result:
    """Compare the models, then the network's options one by one.

    With ``full``, all combinations of options are compared, and those of the plain MLP too.
    """
    if settings.csv is None:
        raise ConfigError("csv: expected a table such as Kaggle's train.csv, found none; add csv=")
    table, backend_name = read_csv(settings.csv), chosen_backend(settings)
    target = next((name for name in TARGETS if name in table.columns), TARGETS[0])
    houses = task.read_houses(table, target)
    seeds = SEEDS if settings.seeds is None else settings.seeds
    network, options = task.Network(backend_name), []
    result = compare(houses, network, seeds)
    names = NETWORKS if settings.full else NETWORKS[:1]
    for values in product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values, strict=True))
        config = replace(network.config, **chosen)
        changed = sum(getattr(network.config, name) != value for name, value in chosen.items())
        if changed < 2 or settings.full:
            other = replace(network, config=config)
            found = compare(houses, other, seeds, names) if changed else result
            measured = {name: found["models"][name] for name in names}
            options.append({**chosen, "changed": changed, **measured})
    return {**header("house-prices", settings, [backend_name]), **result, "options": options}


def compare(
    houses: task.Houses,
    network: task.Network,
    seeds: int,
    names: Sequence[str] = tuple(NAMES),
    step: task.Step = lambda _: None,
) -> Result:
    """Cross-validate the models ``names`` with the seeds 0, 1, …; the result is JSON.

    The ``rmse_log`` of a model is the mean over its folds: mean and standard deviation over seeds.
    """
    features = task.inputs(task.fit_preprocessing(houses), houses.cells).shape[1]
    config = replace(network.config, in_features=features)
    chain = plain(config)
    hidden = (chain.growth_rate,) * len(chain.resolve().layers)  # the stem's, and so on
    counted = {"densenet": config, "mlp": chain, "mlp_sklearn": chain}
    counts = {name: count_parameters(of.resolve()).trainable for name, of in counted.items()}
    models: Result = {}
    for name in names:
        began, errors = process_time(), []
        for seed in range(seeds):
            step(f"{NAMES[name]}, seed {seed}")
            make = partial(_regressor, name, network, seed, hidden)
            with warnings.catch_warnings():  # the MLP ends after as many epochs as ours
                warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
                errors.append(task.cross_validate(make, houses, seed))
        models[name] = {
            "parameters": counts.get(name),
            "seconds": (process_time() - began) / seeds / task.FOLDS,
            "folds": errors,
            "rmse_log": spread([mean(each) for each in errors]),
        }
    about: Result = {
        "target": houses.target,
        "rows": len(houses.log_price),
        "features": features,
        "constant": houses.constant,
        "notes": houses.notes,
    }
    about["scikit-learn"] = version("scikit-learn")
    return {
        "backend": network.backend_name,
        **about,
        "recipe": asdict(network.recipe),
        "models": models,
    }


def _regressor(name: str, network: task.Network, seed: int, hidden: tuple[int, ...]) -> Any:
    with framework("tabular", "sklearn", user="house-prices"):
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.linear_model import RidgeCV
        from sklearn.neural_network import MLPRegressor
    if name in NETWORKS:
        return replace(network, recipe=replace(network.recipe, seed=seed), chain=name == "mlp")
    if name == "ridge":
        return RidgeCV(np.logspace(-1, 3, 9))
    if name == "mlp_sklearn":
        return MLPRegressor(
            hidden_layer_sizes=hidden,
            activation="tanh",
            alpha=0.3,
            max_iter=network.recipe.epochs,
            random_state=seed,
        )
    trees = {"learning_rate": 0.03, "max_iter": 500, "max_leaf_nodes": 15}
    return HistGradientBoostingRegressor(**trees, random_state=seed)


# --- Tables and drawing -------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return the comparison of the models and, if they were measured, of the options."""
    models = result["models"]
    best = models["gradient_boosting"]["rmse_log"]["mean"]
    rows: list[tuple[str, ...]] = [
        (
            NAMES[name],
            f"{each['parameters']:,}" if each["parameters"] else "",
            *_error(each),
            f"{each['rmse_log']['mean'] / best - 1:+.1%}",
            f"{each['seconds']:.1f}",
        )
        for name, each in models.items()
    ]
    seeds = [[mean(folds) for folds in models[name]["folds"]] for name in NETWORKS]
    found = interval([dense - chain for dense, chain in zip(*seeds, strict=True)])
    note = f"Root mean square error of log({result['target']}): mean over {task.FOLDS} folds, then "
    note += f"mean and standard deviation over {len(seeds[0])} seeds. DenseNet minus plain MLP: "
    note += f"{found['mean']:+.4f}"
    if found["low"] is not None:
        note += f", 95% interval {found['low']:+.4f} to {found['high']:+.4f} (paired by seed)"
    title = f"{result['rows']:,} houses, {result['features']:,} inputs, {result['backend']}"
    heads: tuple[str, ...] = (
        "model",
        "parameters",
        "RMSE",
        "std",
        "to boosting",
        "CPU seconds per fit",
    )
    first = Table(title, heads, tuple(rows), f"{note}.")
    options = result.get("options", ())
    if not options:
        return [first]
    options = sorted(options, key=lambda each: each["densenet"]["rmse_log"]["mean"])
    rows = [
        (
            *(str(each[name]) for name in CHOICES),
            *(cell for name in NETWORKS if name in each for cell in _error(each[name])),
            "" if each["changed"] else "default",
        )
        for each in options
    ]
    names = (cell for name in NETWORKS if name in options[0] for cell in (NAMES[name], "std"))
    heads = (*(name.replace("_", " ") for name in CHOICES), *names, "note")
    return [first, Table("Options, sorted by the error of DenseNet", heads, tuple(rows))]


def _error(model: Result) -> tuple[str, str]:
    std = model["rmse_log"]["std"]
    return f"{model['rmse_log']['mean']:.4f}", "" if std is None else f"{std:.4f}"


def draw(result: Result) -> str:
    """Draw a dot for each seed, and a line at the mean, for each model and each option."""
    lines = {NAMES[name]: each for name, each in result["models"].items()}
    for each in result.get("options", ()):
        if each["changed"] == 1:
            name = next(k for k in CHOICES if each[k] != getattr(task.ANY_INPUTS, k))
            lines[f"DenseNet, {name.replace('_', ' ')} {each[name]}"] = each["densenet"]
    dots: dict[str, list[float]] = {
        name: [mean(folds) for folds in each["folds"]] for name, each in lines.items()
    }
    low, high = min(map(min, dots.values())), max(map(max, dots.values()))
    left, right = 260, WIDTH - MARGIN - 60

    def x(value: float) -> float:
        return left + (value - low) / (high - low or 1) * (right - left)

    parts = [text(MARGIN, 24, "RMSE of the logarithm, a dot for each seed", bold=True)]
    for i, (name, values) in enumerate(dots.items()):
        y, middle = 56 + 26 * i, mean(values)
        color = INPUT if name.startswith("DenseNet") else NEW
        parts += [text(MARGIN, y + 4, name), path([(left, y), (right, y)], class_="faint")]
        parts += [element("circle", cx=x(value), cy=y, r=4, class_=color) for value in values]
        parts.append(path([(x(middle), y - 9), (x(middle), y + 9)], color, stroke_width=2))
        parts.append(text(right + 12, y + 4, f"{middle:.4f}"))
    said = "; ".join(f"{name}: {mean(values):.4f}" for name, values in dots.items())
    figure = Figure("Errors of the predicted house prices", f"{said}.", 56 + 26 * len(dots), parts)
    return document(figure, "house-prices")


EXERCISE = Exercise(
    name="house-prices",
    question="How well does a DenseNet of fully connected layers predict house prices?",
    duration="3 minutes on two cores; 12 minutes with full=True",
    measure=measure,
    tables=tables,
    draw=draw,
    uses=("backend", "seeds", "full", "csv"),
)
