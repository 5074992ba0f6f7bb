"""The command line: what it prints, where, and with which exit code."""

import io
import json
import logging
import re
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from rich.console import Console

import densenet_multi as dm
from densenet_multi.backends import framework_versions
from densenet_multi.commands import compare as compare_command
from densenet_multi.commands import main
from densenet_multi.commands.output import NARROWEST, errors_as_exit_codes, exit_code
from densenet_multi.comparison import compare, compare_child
from densenet_multi.comparison.child_process import report_of
from densenet_multi.comparison.deviation import TOLERANCES, deviation

SPEC = dm.get_spec("d2l", block_config=(1,))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "densenet_multi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_version_and_help():
    assert dm.__version__ in run("--version").stdout
    assert "compare" in run("--help").stdout


AS_A_PROCESS = """
import signal, sys
from types import SimpleNamespace
from densenet_multi.__main__ import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
stop = lambda: signal.raise_signal(signal.Signals[sys.argv[1]])
sys.modules["densenet_multi.commands"] = SimpleNamespace(main=stop)
run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_quietly_and_a_command_tidily(number):
    command = [sys.executable, "-c", AS_A_PROCESS, number.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-number, "")  # before and after a command

    @click.command()
    @errors_as_exit_codes
    def stop():
        signal.raise_signal(number)

    before = signal.signal(signal.SIGINT, signal.SIG_DFL), signal.getsignal(signal.SIGTERM)
    try:
        assert CliRunner().invoke(stop).exit_code == 128 + number
        after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        assert after == (signal.SIG_DFL, before[1])
    finally:
        signal.signal(signal.SIGINT, before[0])


def test_summary_prints_the_papers_table():
    done = run("summary", "densenet121", "--image-size", "224")
    assert done.returncode == 0
    for text in ("7,978,856", "83,648", "2,834,161,664", "(1024, 7, 7)", "denseblock4"):
        assert text in done.stdout


def test_summary_as_json_has_every_stage():
    result = json.loads(run("summary", "d2l", "--format", "json").stdout)
    assert result["total"]["trainable"] == 758_226
    assert result["stages"][0] == {
        "stage": "stem",
        "shape": [64, 24, 24],
        "trainable": 3328,
        "statistics": 128,
        "multiply_adds": 48 * 48 * 64 * 49,
        "activation_bytes": 4 * 64 * (2 * 48 * 48 + 24 * 24),
    }
    assert sum(stage["trainable"] for stage in result["stages"]) == 758_226


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path):
    spec = dm.get_spec("densenet40_k12", num_classes=2)
    usage = dm.Usage(class_names=("[red]", ":cat:"))
    path = tmp_path / "x[" / "b].safetensors"  # "x[/b].safetensors"
    path.parent.mkdir()
    dm.save_weights(path, spec, dm.init_weights(spec), usage)
    done = run("inspect", str(path))
    assert done.returncode == 0, done.stderr
    for text in ("[red]", ":cat:"):
        assert text in done.stdout


def test_info_names_every_backend_and_library():
    result = json.loads(run("info", "--format", "json").stdout)
    assert result["packages"].keys() >= {"click", "matplotlib", "numpy", "pillow", "rich"}
    assert result["packages"]["numpy"] == np.__version__
    assert result["extras"].keys() == {"onnx", "tabular"}
    assert result["extras"]["onnx"].keys() == {"onnx", "onnxruntime"}
    assert list(result["backends"]) == dm.backend_names()
    assert result["densenet_multi"] == dm.__version__


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["summary", "densenet12"], 2, "did you mean 'densenet121'"),
        (["summary", "d2l", "--image-size", "28"], 2, "the smallest is 29"),
        (["summary", "d2l", "--num-classes", "-1"], 2, "--num-classes: expected"),
        (["compare", "--backends", "jax"], 2, "backend 'jax' does not exist"),
        (
            ["summary", "d2l", "--image-size", "0"],
            2,
            "--image-size: expected an integer of at least 1",
        ),
        (["compare", "--batch-size", "0"], 2, "of at least 1, found 0"),
        (["compare", "--batch-size", "1001"], 2, "an integer from 1 to 1,000"),
        (["compare", "--image-size", "28"], 2, "the smallest is 29"),
        (["compare", "--weights", "nowhere.safetensors"], 2, "nowhere.safetensors"),
        (["compare", "--weights", "."], 2, "expected a file, found a folder"),
        (["compare", "--weights", __file__], 1, "expected a safetensors file"),
        (["compare", "--weights", __file__, "--variant", "d2l"], 2, "--weights determines"),
        (["compare", "--weights", __file__, "--seed", "1"], 2, "--weights determines"),
        (
            ["compare", "--output", "no-such-folder/x"],
            2,
            "expected an existing parent folder, found none: no-such-folder",
        ),
        (["compare", "--output", ""], 2, "found an empty one"),
        (["train", "--output", ""], 2, "found an empty one"),
        (
            ["compare", "--backends", ""],
            2,
            "--backends: expected names such as torch,flax, found an empty",
        ),
        (["compare", "--output", "."], 2, "is a directory"),
        (["train", "--seed", str(2**64)], 2, "--seed: expected an integer from 0 to 18,446,"),
        (["train", "--save-every", "nan"], 2, "a number of seconds"),
        (["compare", "--dtype", "float16"], 2, "float16"),
    ],
)
def test_wrong_input_is_one_message_on_stderr(arguments, code, message):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_an_error_is_one_message_in_a_process_too():
    done = run("summary", "densenet12")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'densenet121'" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_frameworks_log_is_not_printed_and_only_while_a_command_runs(monkeypatch, caplog):
    def warn(*_, **__):
        logging.getLogger("absl").warning("Metadata file does not exist")
        raise ValueError("damaged")

    monkeypatch.setattr("densenet_multi.tasks.convert.inspect", warn)
    done = CliRunner().invoke(main, ["inspect", __file__])
    assert done.stderr == "densenet-multi: damaged\n"
    assert not caplog.records
    logging.getLogger("absl").warning("after the command")
    assert len(caplog.records) == 1


def test_what_the_system_says_has_the_name_first(tmp_path):
    dm.save_weights(tmp_path / "x.safetensors", SPEC, dm.init_weights(SPEC))
    within = tmp_path / "x.safetensors" / "y.safetensors"
    done = run(
        "train", "--backend", dm.backend_names()[0], "--data", "sample", "--output", str(within)
    )
    assert done.returncode in (1, 2)
    assert f"{within}: not a directory" in done.stderr


def test_unreadable_data_are_exit_code_4(monkeypatch):
    from densenet_multi import data

    monkeypatch.setattr(data, "load_sample", Mock(side_effect=data.DataError("damaged")))
    monkeypatch.setattr(compare, "load_sample", data.load_sample)
    done = CliRunner().invoke(main, ["compare"])
    assert done.exit_code == 4
    assert "damaged" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "densenet_multi", "summary", "densenet264"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert not process.stderr.read()


def test_tables_fit_a_terminal_of_80_columns():
    for arguments in (["info"], ["summary", "densenet264"]):
        assert max(map(len, run(*arguments).stdout.splitlines())) <= 80


@pytest.mark.long("keras", "flax")
def test_compare_runs_a_backend_on_real_images(backend, tmp_path, monkeypatch):
    for name in ("torch", "tensorflow", "mxnet", "flax"):  # folders here must not shadow them
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadow')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    path = tmp_path / "result.json"
    arguments = ["--backends", backend.NAME, "--batch-size", "3", "--image-size", "32"]
    given = ["compare", *arguments, "--format", "json", "--output", str(path)]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.stderr
    row = json.loads(path.read_text())["backends"][backend.NAME]
    assert (row["status"], row["same"], row["agreeing"]) == ("ok", True, 3)
    assert row["output_shape"] == [3, 10]
    assert (row["trainable"], row["statistics"]) == (758_226, 6_608)
    assert 0 < row["max_deviation"] < TOLERANCES["float32"]


@pytest.mark.long("keras", "flax")
def test_compare_repeats_gray_over_the_channels_of_given_weights(backend, tmp_path):
    spec = dm.get_spec("densenet_bc100_k12", block_config=(1, 1, 1), num_classes=4)
    dm.save_weights(tmp_path / "w.safetensors", spec, dm.init_weights(spec))
    arguments = ["--backends", backend.NAME, "--batch-size", "2"]
    given = ["compare", *arguments, "--weights", str(tmp_path / "w.safetensors")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.stderr
    assert "gray repeated over the channels" in " ".join(done.stdout.split())
    assert "(2, 4)" in done.stdout


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (1e-3, False), (np.nan, False)])
def test_a_backend_that_is_another_function_differs(tmp_path, shift, same):
    spec = dm.get_spec("d2l")
    weights, images = dm.init_weights(spec), np.ones((2, 1, 32, 32), np.float32)
    expected = dm.reference.forward(spec, weights, images)
    logits, stages = expected.logits, expected.stages
    dm.save_weights(tmp_path / "weights.safetensors", spec, weights)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", logits)
    np.savez(tmp_path / "stages.npz", **stages)
    fake = SimpleNamespace(
        FRAMEWORK="MXNet Gluon",
        DenseNet=SimpleNamespace,
        build=Mock(),
        import_weights=Mock(),
        predict=Mock(return_value=logits + shift * np.abs(logits).max()),
        features=Mock(return_value={**stages, "norm5": stages["norm5"][:, 1:]}),
        count_parameters=Mock(return_value=dm.count_parameters(spec)),
    )
    measured = compare_child.measure_backend(fake, tmp_path)
    row = {"status": "ok", "versions": {"it": "2.13.0"}, **measured}
    assert row["same"] == same
    assert row["stages"] == {name: None if name == "norm5" else 0.0 for name in stages}
    result = {
        "backends": {"fake": row, "gone": {"status": "not installed"}},
        "dtype": "float32",
        "image_size": 32,
        "batch_size": 2,
        "images": "images",
        "tolerance": 1e-5,
        "gray_repeated_over_channels": False,
    }
    assert exit_code(result, []) == (0 if same else 1)
    console = Console(width=NARROWEST, file=io.StringIO())
    console.print(compare_command.table(result))
    assert "…" not in console.file.getvalue()
    text = console.file.getvalue()
    (verdict,) = (line.split()[-1] for line in text.splitlines() if "same function" in line)
    assert verdict == ("yes" if same else "NO")
    assert "not installed" in text.split("gone")[1]


def test_help_lists_every_command_once_under_what_a_user_wants():
    lines = run("--help").stdout.splitlines()
    listed = [line.split()[0] for line in lines if re.match("  [a-z][a-z-]*  ", line)]
    assert sorted(listed) == sorted(main.commands)
    assert listed.index("train") < listed.index("convert")


@pytest.mark.parametrize("name", main.commands)
def test_the_example_in_the_help_of_a_command_is_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    paths = ["densenet121.pth", "net.safetensors", "photo.jpg", "run/final.safetensors"]
    for path in (*paths, "train.csv", "test.csv"):
        (tmp_path / path).touch()
    text = main.commands[name].get_help(main.make_context("densenet-multi", [name]))
    (example,) = re.findall(rf"Example:\n    densenet-multi {name} ?(.*)", text)
    assert main.commands[name].make_context(name, example.split()).params


def test_a_shell_completes_names():
    complete = ShellComplete(main, {}, "densenet-multi", "_DENSENET_MULTI_COMPLETE")

    def after(*words: str, typed: str) -> list[str]:
        return [item.value for item in complete.get_completions(list(words), typed)]

    assert after("train", "--variant", typed="densenet12") == ["densenet121"]
    assert after("train", "--recipe", typed="") == list(dm.RECIPES)
    first, *_ = dm.backend_names()
    assert after("compare", "--backends", typed=f"{first},{first[:3]}") == [f"{first},{first}"]


def result_of(**reports: dict[str, object]) -> dict[str, object]:
    return {"backends": reports}


OK = {"status": "ok", "same": True}
MISSING = {"status": "not installed"}


def test_exit_codes_of_a_comparison():
    assert exit_code(result_of(a=OK, b=OK), ["a"]) == 0
    assert exit_code(result_of(a=OK, b=MISSING), []) == 0
    assert exit_code(result_of(a=OK, b=MISSING), ["a", "b"]) == 3
    assert exit_code(result_of(a=MISSING), []) == 3
    assert exit_code(result_of(a=OK, b={"status": "failed"}), []) == 1
    assert exit_code(result_of(a={"status": "ok", "same": False}), []) == 1


def test_not_a_number_is_a_deviation():
    assert deviation(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == float("inf")
    assert deviation(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.25


def compare_child_report(name, folder):
    settings = {"backend": name, "folder": str(folder)}
    return report_of(compare_child.__name__, settings)


def test_a_backend_whose_process_dies_is_a_row(tmp_path):
    row = compare_child_report("no-such-backend", tmp_path)
    assert row["status"] == "failed"
    assert "does not exist" in row["error"]


def test_a_process_that_a_signal_ends_says_which_and_what_was_installed(tmp_path, monkeypatch):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "dies.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    name = dm.backend_names()[0]
    assert report_of("dies", {"backend": name}) == {
        "status": "failed",
        "error": "its process ended with signal SIGKILL",
        "versions": framework_versions(name),
    }


@pytest.mark.parametrize(
    ("leads_to", "expected"),
    [("loop.json", "found a link to itself"), ("gone/x", "expected an existing parent folder")],
)
def test_where_nothing_can_be_written_is_noticed_before_the_work(tmp_path, leads_to, expected):
    (tmp_path / "loop.json").symlink_to(leads_to)
    (tmp_path / "no weights").touch()
    arguments = ["convert", str(tmp_path / "no weights"), str(tmp_path / "loop.json")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert expected in " ".join(done.stderr.split())


@pytest.mark.parametrize("option", ["--data", "--data-dir"])
def test_a_link_to_itself_is_an_error_and_no_traceback(tmp_path, option):
    (tmp_path / "loop").symlink_to("loop")
    given = {"--data": f"folder:{tmp_path / 'loop'}", "--data-dir": str(tmp_path / "loop")}
    arguments = ["train", "--backend", dm.backend_names()[0], option, given[option]]
    done = CliRunner().invoke(main, arguments)
    assert isinstance(done.exception, SystemExit)
    assert f"{tmp_path / 'loop'}: too many levels of symbolic links" in done.stderr


def test_the_name_of_a_file_that_is_not_utf8_is_printed_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a longer path would be wrapped
    path = "w\udcff.safetensors"
    dm.save_weights(path, SPEC, dm.init_weights(SPEC))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", errors="strict"))
    with pytest.raises(SystemExit) as ended:
        main(["inspect", path])
    sys.stdout.flush()
    assert ended.value.code == 0
    assert rb"w\udcff.safetensors" in written.getvalue()
