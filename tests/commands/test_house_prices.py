"""``house-prices``: its table, its JSON, its files, and what it refuses to do."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import densenet_multi as dm
from densenet_multi.commands import main
from densenet_multi.data import table as tables
from densenet_multi.exercises import house_prices as exercise
from densenet_multi.formats import portable
from densenet_multi.tabular import predict
from densenet_multi.tasks import house_prices as task

ROWS = 40


def csv_of(rows, *, prices=True):
    draw = np.random.default_rng(0)
    lines = ["Id,Area,Street,Country" + ",SalePrice" * prices]
    for i in range(rows):
        area = int(draw.integers(50, 300))
        price = f",{1000 * area}" * prices
        lines.append(
            f"{i + 1 if prices else 1461 + i},{area},{'Pave' if i % 3 else 'NA'},US{price}"
        )
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tables, and a backend that does not train."""

    def build(spec, seed):
        return SimpleNamespace(spec=spec, weights=dm.init_weights(spec, seed))

    backend = SimpleNamespace(
        build=build,
        predict=lambda model, x: predict(model.spec, model.weights, x),
        export_weights=lambda model: model.weights,
        fit=lambda _model, _data, recipe: recipes.append(recipe),
        recipes=(recipes := []),
    )
    monkeypatch.setattr(task, "load_tabular", lambda _: backend)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(csv_of(ROWS))
    (tmp_path / "test.csv").write_text(csv_of(4, prices=False))
    return SimpleNamespace(path=tmp_path, backend=backend)


def run(*arguments):
    return CliRunner().invoke(main, ["house-prices", *arguments])


TRAIN = ("train.csv", "--target", "SalePrice", "--backend", "torch")
SUBMIT = ("--test", "test.csv", "--submission", "out.csv")
SAVED = ("--model", "train.safetensors", *SUBMIT)


def test_folds_are_printed_and_the_model_and_the_submission_written(folder):
    done = run(*TRAIN, *SUBMIT)
    assert done.exit_code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0] in "12345"] == list("12345")
    assert "40 houses, 3 inputs, torch" in done.stdout
    assert "Wrote house-prices.safetensors, out.csv." in " ".join(done.stdout.split())
    assert "column 'Country' is dropped: all its cells are equal or missing" in done.stderr
    spec, _, fitted = portable.load_tabular(folder.path / "house-prices.safetensors")
    assert spec.config.in_features == 3
    assert fitted["target"] == "SalePrice"
    written = (folder.path / "out.csv").read_text().splitlines()
    assert written[0] == "Id,SalePrice"
    assert [line.split(",")[0] for line in written[1:]] == ["1461", "1462", "1463", "1464"]


def test_json_has_the_folds_and_options_reach_the_network(folder):
    chosen = ("--normalization", "batch", "--activation", "relu", "--drop-rate", "0.2")
    chosen += ("--epochs", "3", "--learning-rate", "0.5", "--seed", "7")
    done = run(*TRAIN, *chosen, "--format", "json")
    report = json.loads(done.stdout)
    assert [fold["fold"] for fold in report["folds"]] == [1, 2, 3, 4, 5]
    assert report["constant"] == ["Country"]
    found = {(each.epochs, each.learning_rate, each.seed) for each in folder.backend.recipes}
    assert found == {(3, 0.5, 7)}
    config = portable.load_tabular("house-prices.safetensors")[0].config
    assert (config.normalization, config.activation, config.drop_rate) == ("batch", "relu", 0.2)


def test_compare_has_every_model_and_saves_none(folder, monkeypatch):
    monkeypatch.setattr(exercise, "compare", small_comparison(exercise.compare))
    done = run(*TRAIN, "--compare", "--format", "json")
    assert done.exit_code == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert list(models) == ["densenet", "mlp", "ridge"]
    assert all({"mean", "std"} == model["rmse_log"].keys() for model in models.values())
    assert not (folder.path / "house-prices.safetensors").exists()


def small_comparison(compare):
    def small(houses, network, seeds, step):
        assert seeds == 3
        return compare(houses, network, seeds, ("densenet", "mlp", "ridge"), step)

    return small


@pytest.mark.usefixtures("folder")
def test_a_data_set_of_openml_replaces_the_file(monkeypatch):
    table = tables.read_csv("train.csv")
    monkeypatch.setattr(tables, "fetch_openml", lambda name: {"house_prices": table}[name])
    done = run("--openml", "house_prices", *TRAIN[1:])
    assert done.exit_code == 0, done.stderr
    assert "40 houses" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (TRAIN[1:], 2, "expected TRAIN, a CSV file, or --openml NAME"),
        (("train.csv",), 2, "expected --target COLUMN"),
        ((*SAVED, "--target", "SalePrice"), 2, "--model trains nothing: give it --test and"),
        ((*SAVED, "train.csv"), 2, "--model trains nothing: give it --test and"),
        ((*SAVED, "--epochs", "3"), 2, "--model trains nothing: give it --test and"),
        (SAVED[:2], 2, "--model trains nothing: give it --test and"),
        (SAVED, 1, "train.safetensors: expected a safetensors file"),
        ((*SAVED[:5], "train.safetensors"), 2, "expected a name that ends in .csv"),
        ((*TRAIN, "--openml", "house_prices"), 2, "expected TRAIN, a CSV file, or --openml NAME"),
        ((*TRAIN, "--test", "test.csv"), 2, "--test and --submission belong together"),
        ((*TRAIN, *SUBMIT[2:]), 2, "--test and --submission belong together"),
        ((*TRAIN, *SUBMIT, "--compare"), 2, "without --compare"),
        (("train.csv", "--target", "Price"), 2, "column 'Price' does not exist; did you mean"),
        (("train.csv", "--target", "Street"), 2, "expected a price above 0 in column 'Street'"),
        (("train.png", "--target", "SalePrice"), 4, "found another encoding or binary data"),
        ((*TRAIN, "--test", "train.csv", *SUBMIT[2:]), 2, "found others; remove 'SalePrice'"),
        ((*TRAIN, "--activation", "gelu"), 2, "densenet-multi: --activation: expected 'relu'"),
        ((*TRAIN, "--compare", "--seed", "5"), 2, "omit --output and --seed"),
        ((*TRAIN, "--compare", "--output", "n.safetensors"), 2, "omit --output and --seed"),
        ((*TRAIN, *SUBMIT[:3], "train.csv"), 2, "--submission: train.csv is read; choose another"),
        ((*TRAIN, *SUBMIT[:3], "test.csv"), 2, "--submission: test.csv is read; choose another"),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_trained(folder, arguments, code, message):
    (folder.path / "train.png").write_bytes(b"\x89PNG\0")
    (folder.path / "train.safetensors").write_bytes(b"\x89PNG\0")
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert not folder.backend.recipes


def test_a_saved_network_predicts_the_same_prices_later(folder):
    assert run(*TRAIN, *SUBMIT).exit_code == 0
    folder.backend.recipes.clear()
    later = ("--model", "house-prices.safetensors", "--test", "test.csv")
    done = run(*later, "--submission", "later.csv")
    assert done.exit_code == 0, done.stderr
    assert (folder.path / "later.csv").read_bytes() == (folder.path / "out.csv").read_bytes()
    assert done.stdout.startswith("Wrote later.csv: 4 prices from ")
    report = json.loads(run(*later, "--submission", "l.csv", "--format", "json").stdout)
    lines = (folder.path / "l.csv").read_text().splitlines()[1:]
    prices = [float(line.split(",")[1]) for line in lines]
    assert (report["lowest"], report["highest"]) == (min(prices), max(prices))
    assert not folder.backend.recipes


def test_rows_without_an_id_are_numbered_and_that_is_said(folder):
    for name, prices in (("train.csv", True), ("test.csv", False)):
        lines = [line.partition(",")[2] for line in csv_of(ROWS, prices=prices).splitlines()]
        (folder.path / name).write_text("\n".join(lines))
    done = run(*TRAIN, *SUBMIT)
    assert done.exit_code == 0, done.stderr
    assert "test.csv has no column Id: its rows are numbered from 1" in done.stderr
    later = run("--model", "house-prices.safetensors", *SUBMIT)
    assert "test.csv has no column Id: its rows are numbered from 1" in later.stderr
    lines = (folder.path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["Id", *map(str, range(1, ROWS + 1))]


@pytest.mark.usefixtures("folder")
def test_without_scikit_learn_the_exit_code_is_3(monkeypatch):
    def missing(*_):
        raise dm.BackendNotInstalledError("house-prices needs 'sklearn'")

    monkeypatch.setattr(task, "fit_preprocessing", missing)
    assert run(*TRAIN).exit_code == 3
