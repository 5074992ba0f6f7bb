"""Tables at 80 columns: whatever the numbers are, none of them is cut off."""

import json

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

import densenet_multi as dm
from densenet_multi.commands import bench, compare, info, lockstep, main, train
from densenet_multi.commands.output import (
    errors_as_exit_codes,
    facts,
    fitting,
    print_failures,
    print_result,
    say,
)
from densenet_multi.comparison.bench_child import CASES
from densenet_multi.weights import WeightsError

BACKENDS = ("torch", "keras", "gluon", "flax")
LARGE = (2.3026, 12_345.6789, 12_345_678.9, 1e30, 1e300)


@pytest.fixture
def printed(capsys):
    def lines(result, table):
        print_result(result, "human", table)
        out = capsys.readouterr().out
        assert "…" not in out
        return out.splitlines()

    return lines


@pytest.mark.parametrize("size", [224, 1024])
@pytest.mark.parametrize("variant", dm.VARIANTS)
def test_every_number_of_a_summary_is_complete(variant, size):
    done = CliRunner().invoke(main, ["summary", variant, "--image-size", str(size)])
    assert done.exit_code == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for stage in dm.profile(dm.get_spec(variant), size, size):
        row = rows[stage.name]
        assert str(stage.shape) in row
        for number in (stage.parameters.trainable, stage.parameters.statistics):
            assert f" {number:,} " in row
        assert f" {stage.multiply_adds:,} " in row
        assert row.endswith(f" {stage.activation_bytes() / 2**20:,.2f} MiB")
    usual = size == 224 and dm.VARIANTS[variant].stem == "imagenet"
    assert max(map(len, rows.values())) <= 80 or not usual


def test_the_largest_summary_is_wider_than_a_terminal_rather_than_cut_off():
    done = CliRunner().invoke(main, ["summary", "densenet161", "--image-size", "40000"])
    stages = dm.profile(dm.get_spec("densenet161"), 40_000, 40_000)
    work = sum(stage.multiply_adds for stage in stages)
    memory = sum(stage.activation_bytes() for stage in stages) / 2**20
    (total,) = (line for line in done.stdout.splitlines() if line.startswith(" total"))
    assert total.endswith(f" 28,681,000    219,936 {work:,} {memory:,.2f} MiB")


def test_large_losses_of_a_training_run_are_complete(printed):
    report = {
        "weights": None,
        "framework": "PyTorch 2.13.0",
        "data": "fashion-mnist",
        "train_examples": 60_000,
        "recipe": {"variant": "densenet_bc100_k12", "image_size": 224},
        "epochs": [
            {
                "number": 100 + number,
                "loss": loss,
                "accuracy": 0.1,
                "validation_loss": 2 * loss,
                "validation_accuracy": 0.12345,
                "images_per_second": 123_456.7,
            }
            for number, loss in enumerate(LARGE)
        ],
        "final": {"test_loss": 12_345_678.9, "test_accuracy": 0.1, "kind": "last", "weights": "x"},
    }
    lines = printed({**report, "final": None}, train.table)
    assert max(map(len, lines)) <= 80
    for text in ("12345.679", "24691.358", "24691358", "1.000e+30", "2.000e+300", "123,457"):
        assert text in " ".join(lines).split()


def test_large_losses_of_four_backends_are_complete(printed):
    count = len(LARGE)
    apart = {"losses": [1.5e-300] * count, "loss": 0.1, "weights": 1e300, "running_means": 0.1}
    result = {
        "steps": count,
        "recipe": {"batch_size": 32},
        "data": "sample",
        "image_size": 96,
        "recipe_name": "chapter",
        "weights": "d2l, seed 0",
        "float64": {**apart, "same": True},
        "float32": {name: {**apart, "same": False} for name in BACKENDS},
        "backends": {
            name: {
                "status": "ok",
                "framework": name,
                "versions": {name: "2.21.0"},
                "losses": {"float64": LARGE},
            }
            for name in BACKENDS
        },
        "tolerances": {
            "float64": 1e-9,
            "float64 running means": 1e-9,
            "float32 first step": 1e-5,
        },
    }
    words = " ".join(printed(result, lockstep.table)).split()
    for text in ("2.3026", "12345.7", "1.2e+07", "1.0e+30", "1.0e+300"):
        assert words.count(text) >= 4
    assert words.count("1.5e-300") >= 5 * count
    small = {**apart, "losses": [1.5e-15] * count, "weights": 0.1}
    result |= {
        "float64": {**small, "same": True},
        "float32": {name: {**small, "same": True} for name in BACKENDS},
    }
    for report in result["backends"].values():
        report["losses"] = {"float64": [1e30] * count}
    assert max(map(len, printed(result, lockstep.table))) <= 80


def test_large_numbers_of_a_comparison_are_complete(printed):
    row = {
        "status": "ok",
        "framework": "TensorFlow",
        "versions": {"tensorflow": "2.21.0"},
        "max_deviation": 1e-7,
        "same": True,
        "agreeing": 1000,
        "output_shape": [1000, 1000],
        "trainable": 33_337_704,
        "statistics": 398_528,
        "first_call_seconds": 12_345.67,
        "later_call_seconds": 1234.56,
        "images_per_second": 123_456.7,
        "peak_memory_bytes": 2**37,
        "model_lines": 100,
    }
    result = {
        "image_size": 1024,
        "batch_size": 1000,
        "images": "images",
        "gray_repeated_over_channels": True,
        "dtype": "float64",
        "tolerance": 1e-5,
        "backends": dict.fromkeys(BACKENDS, row),
    }
    lines = printed(result, compare.table)
    assert max(map(len, lines)) <= 80
    for text in ("33,337,704", "398,528", "12345.67 s", "1234.56 s", "123,457", "131,072 MiB"):
        assert sum(line.count(f" {text}") for line in lines) == 4


def test_a_comparison_tells_what_differs_and_what_did_not_run(printed):
    row = {
        "status": "ok",
        "framework": "PyTorch",
        "versions": {"torch": "2.13.0"},
        "max_deviation": None,
        "same": False,
        "agreeing": 63,
        "output_shape": [64, 10],
        "trainable": 758_226,
        "statistics": 6_608,
        "first_call_seconds": 0.2,
        "later_call_seconds": 0.1,
        "images_per_second": 640.0,
        "peak_memory_bytes": 2**29,
        "model_lines": 100,
    }
    same = {**row, "max_deviation": 1e-7, "same": True, "agreeing": 64}
    result = {
        "image_size": 96,
        "batch_size": 64,
        "images": "images",
        "gray_repeated_over_channels": False,
        "dtype": "float32",
        "tolerance": 1e-5,
        "backends": {"flax": same, "gluon": {"status": "not installed"}, "torch": row},
    }
    rows = {line[:27].strip(): line[27:].split() for line in printed(result, compare.table)}
    assert rows["same function (to 1e-05)"] == ["yes", "NO"]
    assert rows["deviation from reference"] == ["1.0e-07", "not", "finite"]
    assert rows["same predicted class"] == ["64", "of", "64", "63", "of", "64"]
    assert rows["running statistics"] == ["6,608", "6,608"]
    assert "not installed" in "\n".join(printed(result, compare.table))


@pytest.mark.parametrize("work", CASES)
def test_large_numbers_of_a_benchmark_are_complete(printed, work):
    case = {
        "ratio": 123.456,
        "images_per_second": 12_345.6,
        "lowest": 11_111.1,
        "highest": 13_579.2,
        "first_step_seconds": 1234.56,
        "grown_bytes": 2**37,
        "share": 123.456,
        "memory_ratio": 123.456,
    }
    result = {
        "work": work,
        "image_size": 1024,
        "batch_size": 1000,
        "cpus": [0, 1],
        "rounds": 5,
        "variant": "densenet264",
        "backends": {
            n: {"status": "ok", "cases": dict.fromkeys(CASES[work], case)} for n in BACKENDS
        },
    }
    lines = printed(result, bench.table)
    text = "\n".join(lines)
    rows = 4 * len(CASES[work])
    is_memory = work == "memory"
    assert text.count("12346 (11111-13579)") == text.count("123.46x as fast") == rows
    assert text.count("131,072 MiB") == text.count("123.46x as much") == rows * is_memory
    assert text.count("1234.6 s") == rows * (not is_memory)
    assert max(map(len, lines)) <= (90 if is_memory else 80)


def test_every_case_of_a_benchmark_has_a_label():
    assert {work: tuple(labels) for work, labels in bench.LABELS.items()} == CASES


def test_names_are_broken_and_numbers_are_not(printed):
    def table(_):
        drawn = Table(box=None)
        drawn.add_column("name")
        drawn.add_column("count", justify="right")
        drawn.add_row("x" * 200, f"{10**60:,}")
        return drawn

    lines = printed({}, table)
    assert sum(line.count("x") for line in lines) == 200
    assert sum(f" {10**60:,}" in line for line in lines) == 1


def test_long_words_among_facts_and_versions_are_broken(printed):
    path = "/" + "x" * 300
    for lines in (
        printed({"path": path, "count": 10**9}, facts),
        printed({"platform": path, "packages": {"numpy": path}}, info.table),
    ):
        assert max(map(len, lines)) <= 80
        assert sum(line.count("x") for line in lines) % 300 == 0


HOSTILE = "\x1b]0;owned\x07\x1b[31mcat\r\nverified\u202etac\u2028x\x9b2J"
HARMLESS = r"\x1b]0;owned\x07\x1b[31mcat\r\nverified\u202etac\u2028x\x9b2J"


def test_text_from_files_reaches_a_terminal_without_what_it_would_obey(printed):
    names = [
        "Käse",
        "柴犬",
        "family \U0001f468\u200d\U0001f469",
        "\u0645\u06cc\u200c\u062e",
        "a\xa0b",
    ]
    result = {"source": HOSTILE, "names": [HOSTILE, *names], "usage": {HOSTILE: HOSTILE}}
    lines = printed(result, facts)
    text = "".join(line.strip() for line in lines)
    assert text.replace(" ", "").count(HARMLESS) == 4
    assert not set("\x1b\x07\r\u202e\u2028\x9b") & set(text)
    assert all(name in "".join(lines) for name in names)


@pytest.mark.parametrize("keys", [("\x1b", r"\x1b"), (r"\x1b", "\x1b")])
def test_names_that_are_shown_alike_keep_their_lines(printed, keys):
    lines = printed({"usage": dict(zip(keys, ("first", "second"), strict=True))}, facts)
    expected = ["usage", r"\x1b:", "first", r"\x1b", "(another):", "second"]
    assert "".join(f"{line}\n" for line in lines).split() == expected


def test_a_result_in_json_keeps_the_text(capsys):
    print_result({"name": HOSTILE}, "json", facts)
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": HOSTILE}
    assert out.isascii()
    assert "\x1b" not in out


def test_text_in_errors_and_notes_is_escaped_and_begins_no_line():
    @click.command()
    @errors_as_exit_codes
    def fails():
        say(f"a note on {HOSTILE}")
        failed = {"torch": {"status": "failed", "error": f"{HOSTILE}: expected a shape"}}
        print_failures({"backends": failed})
        raise WeightsError(f"{HOSTILE}: found twice\n  b: missing")

    done = CliRunner().invoke(fails)
    assert done.exit_code == 1
    lines = done.stderr.split("\n")
    rest = r"verified\u202etac\u2028x\x9b2J"
    start = r"\x1b]0;owned\x07\x1b[31mcat\r"
    assert lines == [
        f"densenet-multi: a note on {start}",
        f"  {rest}",
        f"torch: {start}",
        f"  {rest}: expected a shape",
        f"densenet-multi: {start}",
        f"  {rest}: found twice",
        "  b: missing",
        "",
    ]


def test_text_in_errors_about_what_was_typed_is_escaped(tmp_path):
    (tmp_path / "link").symlink_to(HOSTILE)
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "link")])
    assert done.exit_code == 2
    assert r"\x1b]0;owned\x07\x1b[31mcat\r" in done.stderr
    assert not set("\x1b\x07\r\u202e") & set(done.stderr)


def test_a_number_has_as_many_decimals_as_fit():
    values = {2.30259: "2.3026", 100.12345: "100.123", 99999.96: "100000", 1e6: "1000000"}
    for value, text in (values | {1e7: "1.0e+07", 0.0: "0.0000", 1e300: "1.0e+300"}).items():
        assert fitting(value, 7) == text
    assert fitting(12_345_678.9, 9) == "12345679"
    assert fitting(float("nan"), 7) == "nan"
