"""The network for tables: its specification, its counts, its reference and its file."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given

import densenet_multi as dm
from cases import TABULAR, random_weights, rows, small_table, trained_on_rows
from densenet_multi import backends, formats
from densenet_multi.commands import main
from densenet_multi.formats._safetensors import read_safetensors, write_safetensors
from densenet_multi.formats.portable import load_tabular
from densenet_multi.tabular import TabularConfig, plain, predict
from strategies import tabular_configs

# --- The specification --------------------------------------------------------------------------


def test_every_dense_layer_reads_all_features_before_it():
    widths = {"growth_rate": 8, "num_init_features": 20, "compression": 0.29}
    spec = TabularConfig(300, block_config=(2, 1), normalization="batch", **widths).resolve()
    assert (spec.stem.in_features, spec.stem.out_features) == (300, 20)
    found = [(layer.name, layer.linear, layer.concatenate) for layer in spec.layers]
    assert [(name, x.in_features, x.out_features, dense) for name, x, dense in found] == [
        ("block1_layer1", 20, 8, True),
        ("block1_layer2", 28, 8, True),
        ("transition1", 36, 10, False),  # floor(0.29 * 36)
        ("block2_layer1", 10, 8, True),
        ("regressor", 18, 1, False),
    ]
    assert [layer.norm.num_features for layer in spec.layers] == [20, 28, 36, 10, 18]


def test_dropout_follows_dense_layers_only():
    spec = TabularConfig(3, block_config=(1, 1), drop_rate=0.25).resolve()
    assert {layer.name: layer.drop_rate for layer in spec.layers} == {
        "block1_layer1": 0.25, "transition1": 0, "block2_layer1": 0.25, "regressor": 0
    }  # fmt: skip


@given(tabular_configs())
def test_counts_are_those_of_the_layers_by_hand(config):
    spec = config.resolve()
    linears = [spec.stem, *(layer.linear for layer in spec.layers)]
    widths = [layer.linear.in_features for layer in spec.layers]
    normalized = sum(widths) if config.normalization == "batch" else 0
    matrices = sum(x.in_features * x.out_features + x.out_features for x in linears)
    assert dm.count_parameters(spec) == dm.ParameterCount(matrices + 2 * normalized, 2 * normalized)


@given(tabular_configs())
def test_the_plain_chain_has_the_closest_count(config):
    chain = plain(config)
    width = chain.growth_rate
    assert {layer.linear.in_features for layer in chain.resolve().layers} == {width}
    assert not any(layer.concatenate for layer in chain.resolve().layers)
    assert len(chain.resolve().layers) == len(config.resolve().layers)

    def distance(width):
        other = replace(chain, growth_rate=width, num_init_features=width).resolve()
        wanted = dm.count_parameters(config.resolve()).trainable
        return abs(dm.count_parameters(other).trainable - wanted)

    neighbors = [n for n in range(width - 2, width + 3) if n > 0]
    assert distance(width) == min(map(distance, neighbors))


@given(tabular_configs())
def test_a_configuration_survives_json(config):
    assert TabularConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"growth_rate": 0}, "growth_rate: expected an integer from 1"),
        ({"block_config": (2, 0)}, r"block_config\[1\]: expected an integer from 1"),
        ({"normalization": "layer"}, "normalization: expected 'batch' or 'none'"),
        ({"activation": "rellu"}, r"activation: expected .* did you mean 'relu'"),
        ({"drop_rate": 1.0}, "drop_rate: expected a number from 0 up to"),
        ({"concatenate": 1}, "concatenate: expected True or False"),
        ({"compress": 0.5}, "field 'compress' does not exist; did you mean 'compression'"),
    ],
)
def test_a_wrong_hyper_parameter_is_refused_by_name(change, message):
    with pytest.raises(dm.ConfigError, match=message):
        TabularConfig(5, **change)


def test_a_transition_that_would_keep_nothing_is_refused():
    config = TabularConfig(5, num_init_features=2, growth_rate=1, block_config=(1, 1))
    with pytest.raises(dm.ConfigError, match=r"compression: expected at least 1/3; found 0.1"):
        replace(config, compression=0.1).resolve()


# --- The reference ------------------------------------------------------------------------------


def test_the_reference_computes_the_formulas_by_hand():
    spec = small_table("silu")
    w, (x, _) = random_weights(spec), rows(spec)

    def layer(name, x):
        n = {leaf: w[f"{name}.norm.{leaf}"] for leaf in ("weight", "bias")}
        mean, var = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
        z = (x - mean) / np.sqrt(var + 1e-5) * n["weight"] + n["bias"]
        return (z / (1 + np.exp(-z))) @ w[f"{name}.linear.weight"].T + w[f"{name}.linear.bias"]

    z = x @ w["stem.weight"].T + w["stem.bias"]
    for name in ("block1_layer1", "block1_layer2"):
        z = np.hstack([z, layer(name, z)])  # old features first
    np.testing.assert_allclose(predict(spec, w, x), layer("regressor", z)[:, 0], rtol=1e-12)


def test_without_concatenation_each_output_replaces_the_input():
    spec = small_table("bare", concatenate=False, compression=1.0, activation="tanh")
    w, (z, _) = random_weights(spec), rows(spec)
    expected = z @ w["stem.weight"].T + w["stem.bias"]
    for layer in spec.layers:
        matrix, bias = (w[f"{layer.name}.linear.{leaf}"] for leaf in ("weight", "bias"))
        expected = np.tanh(expected) @ matrix.T + bias
    np.testing.assert_allclose(predict(spec, w, z), expected[:, 0], rtol=1e-12)


def test_training_updates_each_running_statistic():
    spec = small_table("dense")
    w, (x, _) = random_weights(spec), rows(spec)
    first = x @ w["stem.weight"].T + w["stem.bias"]
    for unbiased in (False, True):
        _, statistics = trained_on_rows(spec, w, x, unbiased=unbiased)
        assert len(statistics) == 2 * len(spec.layers)
        name = "block1_layer1.norm.running_var"
        batch = first.var(axis=0, ddof=int(unbiased))
        np.testing.assert_allclose(statistics[name], 0.875 * w[name] + 0.125 * batch, rtol=1e-12)


# --- Wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"rows: expected shape \(N, 5\) with N at least 1, found \(5,\)"),
        (lambda x: x[:, :4], r"expected shape \(N, 5\) .* found \(7, 4\)"),
        (lambda x: x[:0], "N at least 1"),
        (lambda x: np.where(x == x.max(), np.nan, x), "rows: expected finite numbers"),
        (lambda x: x.astype(str), "rows: expected finite numbers, found others .dtype <U"),
        (lambda x: x > 0, "rows: expected finite numbers, found others .dtype bool"),
    ],
)
def test_wrong_rows_are_refused_by_name(change, message):
    spec = small_table("dense")
    with pytest.raises(dm.ImageError, match=message):
        predict(spec, random_weights(spec), change(rows(spec)[0]))


def test_a_network_for_images_and_one_for_tables_are_not_confused():
    table, net = small_table("dense"), dm.get_spec("d2l", block_config=(1,))
    with pytest.raises(dm.ConfigError, match=r"spec: expected a DenseNetSpec.* found TabularSpec"):
        dm.reference.predict(table, random_weights(table), np.zeros((1, 1, 32, 32)))
    with pytest.raises(dm.ConfigError, match=r"spec: expected a TabularSpec.* found DenseNetSpec"):
        predict(net, dm.init_weights(net), rows(table)[0])
    with pytest.raises(dm.WeightsError, match=r"stem.weight: missing.*"):
        dm.check_weights(table, dm.init_weights(net))


# --- The portable file --------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABULAR)
def test_a_portable_file_returns_every_bit_and_the_preprocessing(tmp_path, name):
    spec, path = small_table(name), tmp_path / "houses.safetensors"
    weights = random_weights(spec)
    prepared = {"columns": ["area", "übrig"], "mean": [1.5, None], "log": {"mean": 12.0}}
    dm.save_weights(path, spec, weights, preprocessing=prepared)
    found, loaded, preprocessing = load_tabular(path)
    assert (found, preprocessing) == (spec, prepared)
    assert dm.load_weights(path)[0] == spec
    for tensor, array in weights.items():
        np.testing.assert_array_equal(loaded[tensor], array)
    dm.save_weights(path, spec, weights)
    assert load_tabular(path)[2] == {}


def test_a_file_of_the_other_kind_is_refused_by_name(tmp_path):
    table, net = small_table("dense"), dm.get_spec("d2l", block_config=(1,))
    house, image = tmp_path / "house.safetensors", tmp_path / "image.safetensors"
    dm.save_weights(house, table, random_weights(table))
    dm.save_weights(image, net, dm.init_weights(net))
    expected = r"house.safetensors: expected a network for images, found one for tables"
    for read in (dm.load_checkpoint, formats.read):
        with pytest.raises(dm.WeightsError, match=expected):
            read(house)
    with pytest.raises(dm.WeightsError, match=r"image.*: expected a network for tables"):
        load_tabular(image)
    backend = dm.backend_names()[0]
    for command in (
        ["predict", house, image],
        ["convert", house, tmp_path / "new.pth"],
        ["evaluate", house, "--data", "sample"],
        ["compare", "--weights", house, "--backends", backend],
        ["lockstep", "--weights", house, "--backends", backend],
        ["train", "--weights", house, "--data", "sample", "--backend", backend],
        ["inspect", house],
    ):
        done = CliRunner().invoke(main, [*map(str, command)])
        assert done.exit_code == 1, command
        assert re.search(expected, done.stderr), (command, done.stderr)


def test_what_a_file_cannot_hold_is_refused_by_name(tmp_path):
    table, net = small_table("dense"), dm.get_spec("d2l", block_config=(1,))
    path = tmp_path / "net.safetensors"
    for spec, extra, message in (
        (net, {"preprocessing": {}}, "preprocessing: expected None for a network for images"),
        (table, {"usage": dm.Usage()}, "usage: expected None for a network for tables"),
        (table, {"preprocessing": {"a": {1}}}, "preprocessing: expected what JSON can store"),
    ):
        with pytest.raises(dm.ConfigError, match=message):
            dm.save_weights(path, spec, random_weights(spec), **extra)
        assert not path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": 3}, "configuration: expected"),
        ({"config": {"in_features": 5}}, "config: expected an object with the fields in_features"),
        ({"schema_version": 2}, "schema_version: expected 1"),
    ],
)
def test_a_damaged_header_is_refused_by_name(tmp_path, change, message):
    spec, path = small_table("dense"), tmp_path / "house.safetensors"
    dm.save_weights(path, spec, random_weights(spec))
    metadata, weights = read_safetensors(path)
    header = json.loads(metadata["densenet_multi"]) | change
    write_safetensors(path, weights, {"densenet_multi": json.dumps(header)})
    with pytest.raises(dm.WeightsError, match=f"house.safetensors: .*{message}"):
        load_tabular(path)


def test_a_small_file_cannot_request_a_large_network(tmp_path):
    spec, path = small_table("dense"), tmp_path / "house.safetensors"
    dm.save_weights(path, spec, random_weights(spec))
    metadata, weights = read_safetensors(path)
    header = json.loads(metadata["densenet_multi"])
    header["config"]["block_config"] = [100_000]
    write_safetensors(path, weights, {"densenet_multi": json.dumps(header)})
    with pytest.raises(dm.WeightsError, match=r"expected tensors for 100000 dense layers"):
        load_tabular(path)


def test_a_backend_without_networks_for_tables_is_named(monkeypatch):
    monkeypatch.setattr(backends, "load_backend", lambda _: json)  # a package without tabular.py
    message = "^backend: expected one with networks for tables, found 'other'"
    with pytest.raises(backends.BackendError, match=message):
        backends.load_tabular("other")
