"""A backend that is absent says how to install it; a broken one says what is broken; none hides.

Everything runs in a Python of its own with made-up packages, so that no framework is needed.
"""

import importlib.resources
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

import densenet_multi as dm

PACKAGE = Path(dm.__file__).parent
BACKENDS = dm.backend_names()
PACKAGES = {  # backend -> the packages it imports, the first one first
    "torch": ["torch"],
    "keras": ["tensorflow"],
    "gluon": ["mxnet"],
    "flax": ["flax", "jax", "optax"],
}
only_with_keras = pytest.mark.skipif("keras" not in BACKENDS, reason="keras was removed")


def python(*arguments: str, folders: list[Path], **environment: str) -> subprocess.CompletedProcess:
    """A fresh Python that looks for packages in these folders first."""
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    path = os.pathsep.join(map(str, [*folders, PACKAGE.parent]))
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env=inherited | {"PYTHONPATH": path} | environment,
        cwd=folders[0],
        capture_output=True,
        text=True,
        check=False,
    )


def result_of(code: str, folder: Path, **environment: str) -> object:
    """What the code leaves in ``result``."""
    done = python("-c", f"{code}\nimport json; print('\\n' + json.dumps(result))", folders=[folder],
                  **environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def error_of(statement: str, folder: Path, setup: str = "", **environment: str) -> dict:
    """The error that a statement raises: its classes, its text, its name, its cause."""
    return result_of(
        f"""{setup}
import densenet_multi as dm
try:
    {statement}
except Exception as error:
    result = {{
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "name": getattr(error, "name", None),
        "cause": type(error.__cause__).__name__,
    }}
else:
    result = {{"kinds": [], "text": "no error"}}
""",
        folder,
        **environment,
    )


def without(backend: str) -> str:
    """Code that makes a framework absent, installed or not."""
    return f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {PACKAGES[backend]}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def ways_to_import(backend: str) -> list[str]:
    return [f"dm.load_backend({backend!r})", f"import densenet_multi.{backend}"]


# --- Absent and broken --------------------------------------------------------------------------


NOTES = {"gluon": " (MXNet 1.9.1 has wheels for Linux and for macOS on Intel)"}


@pytest.mark.parametrize("word", BACKENDS)
def test_an_absent_framework_is_reported_with_the_line_that_installs_it(word, tmp_path):
    for statement in ways_to_import(word):
        error = error_of(statement, tmp_path, without(word))
        assert error["kinds"][:2] == ["BackendNotInstalledError", "ImportError"]
        assert error["name"] == PACKAGES[word][0]
        assert error["cause"] == "ModuleNotFoundError"
        assert error["text"] == (
            f"backend {word!r} needs {PACKAGES[word][0]!r}, which is not installed; in a clone of "
            f"densenet_multi, install it with: pip install '.[{word}]'{NOTES.get(word, '')}"
        )


BREAKS = {
    "a library that does not load": 'raise ImportError("libc10.so: cannot open shared object")',
    "another package that is missing": "import a_package_that_the_framework_needs",
    "a part of itself that is missing": "import {package}.core_that_was_not_copied",
    "a version conflict": 'raise RuntimeError("compiled against another version of NumPy")',
    "an attribute that NumPy removed": "raise AttributeError(\"module 'numpy' has no 'bool'\")",
}


@pytest.mark.parametrize("word", BACKENDS)
@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_framework_raises_its_own_error_unchanged(what, word, tmp_path):
    package = PACKAGES[word][0]
    source = BREAKS[what].format(package=package)
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(source)
    expected = error_of(f"import {package}", tmp_path)
    assert expected["kinds"], "the made-up package is broken"
    assert "BackendNotInstalledError" not in expected["kinds"]
    for statement in ways_to_import(word):
        assert error_of(statement, tmp_path) == expected


def test_a_missing_backend_is_an_import_error_and_a_wrong_setting_a_value_error():
    assert issubclass(dm.BackendNotInstalledError, ImportError)
    assert issubclass(dm.backends.BackendError, ValueError)


@only_with_keras
def test_another_engine_of_keras_is_refused_by_name_before_anything_is_imported(tmp_path):
    for statement in ways_to_import("keras"):
        error = error_of(statement, tmp_path, without("keras"), KERAS_BACKEND="jax")
        assert error["kinds"][:2] == ["BackendError", "ValueError"]
        assert "expected Keras on 'tensorflow', found 'jax'; unset KERAS_BACKEND" in error["text"]


@only_with_keras
def test_another_engine_from_keras_own_settings_file_is_refused_too(tmp_path):
    fake = "class keras:\n    class config:\n        backend = staticmethod(lambda: 'torch')\n"
    (tmp_path / "tensorflow.py").write_text(fake)
    error = error_of("import densenet_multi.keras", tmp_path)
    assert error["kinds"][0] == "BackendError"
    assert "expected Keras on 'tensorflow', found 'torch'" in error["text"]


def test_an_unknown_backend_is_refused_with_the_nearest_name_and_all_of_them():
    for name in BACKENDS:
        with pytest.raises(dm.ConfigError) as caught:
            dm.load_backend(f"{name}2")
        assert str(caught.value) == (
            f"backend '{name}2' does not exist; did you mean {name!r}? known: {', '.join(BACKENDS)}"
        )


# --- The registry -------------------------------------------------------------------------------


def test_the_registered_backends_are_the_folders_of_the_package():
    entries = entry_points(group="densenet_multi.backends")
    folders = {path.parent.name for path in PACKAGE.glob("*/model.py")}
    assert {entry.name: entry.value for entry in entries} == {
        name: f"densenet_multi.{name}" for name in folders
    }
    assert set(BACKENDS) == folders


def write_distribution(folder: Path, name: str, entries: str = "", requires: object = ()) -> None:
    """What pip writes about an installed package."""
    info = folder / f"{name}-9.9.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 9.9"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(entries)


def test_a_backend_of_another_package_needs_an_entry_point_and_nothing_else(tmp_path):
    entry = "[densenet_multi.backends]\ntiny = somebodys_backend\n"
    write_distribution(tmp_path, "somebody", entry)
    (tmp_path / "somebodys_backend.py").write_text("NAME = 'tiny'")
    code = "result = [dm.backend_names(), dm.load_backend('tiny').NAME]"
    names, name = result_of(f"import densenet_multi as dm; {code}", tmp_path)
    assert sorted(names) == sorted([*BACKENDS, "tiny"])
    assert name == "tiny"


def test_versions_of_a_framework_come_from_metadata_and_nothing_is_imported(tmp_path):
    """A framework that is broken, or absent, still has its line in a bug report."""
    write_distribution(
        tmp_path,
        "somebodys_backend",
        "[densenet_multi.backends]\nmine = somebodys_backend\n",
        requires=[
            "numpy>=1.26",
            "present-thing[extra]>=2; extra == 'mine'",
            "absent_thing==1.0; (sys_platform == 'linux') and extra == 'mine'",
            'quoted.thing; extra == "mine"',
            "other_thing; extra == 'mine-not'",
        ],
    )
    write_distribution(tmp_path, "present_thing")
    (tmp_path / "present_thing.py").write_text("raise RuntimeError('imported')")
    code = """
import sys
from densenet_multi.backends import framework_versions
result = [framework_versions("mine"), framework_versions("nobodys"), "present_thing" in sys.modules]
"""
    versions, nobodys, imported = result_of(code, tmp_path)
    assert versions == {"present-thing": "9.9", "absent_thing": None, "quoted.thing": None}
    assert nobodys == {}
    assert not imported


@pytest.mark.parametrize("word", BACKENDS)
def test_every_backend_has_an_extra_with_the_framework_in_it(word):
    from densenet_multi.backends import framework_versions

    assert PACKAGES[word][0] in framework_versions(word)


# --- Deletable ----------------------------------------------------------------------------------


def removed(names: list[str], folder: Path) -> Path:
    """An installation from which backends were removed: their folder, entry point and extra."""
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "densenet_multi", ignore=no_caches)
    for name in names:
        shutil.rmtree(folder / "densenet_multi" / name)
    kept = [f"{name} = densenet_multi.{name}" for name in BACKENDS if name not in names]
    requires = [
        requirement
        for requirement in distribution("densenet_multi").requires or []
        if not any(f"extra == '{name}'" in requirement.replace('"', "'") for name in names)
    ]
    entries = "\n".join(["[densenet_multi.backends]", *kept])
    write_distribution(folder, "densenet_multi", entries, requires)
    return folder


FIRST, OTHERS = BACKENDS[:1], BACKENDS[1:]
REMOVALS = [[name] for name in BACKENDS]
REMOVALS += [names for names in (OTHERS, BACKENDS) if names and names not in REMOVALS]


def files_without(tests: Path, names: list[str]) -> list[Path]:
    """The files of tests that run on an installation from which these backends were removed."""
    if names == BACKENDS:
        files = ["spec", "rules"]
    elif names in (FIRST, OTHERS):
        # a test that counts on any one backend goes red without the first, or with nothing but it
        files = ["rules", "inputs", "cli", "readme", "evaluate", "lockstep"]
    else:
        files = ["rules", "inputs"]
    return [next(tests.rglob(f"test_{file}.py")) for file in files]


@pytest.mark.long
def test_without_any_backend_everything_about_the_paper_works(tmp_path, pytestconfig):
    tests = Path(__file__).parents[1]
    files = [tests / "paper" / f"test_{name}.py" for name in ("spec", "manifest", "weights")]
    check_tests(removed(BACKENDS, tmp_path), files, pytestconfig)


@pytest.mark.parametrize("names", REMOVALS, ids="+".join)
def test_without_a_backend_the_rest_works(names, tmp_path, pytestconfig):
    """One folder, one entry point, one extra: then nothing in the package or its tests knows it."""
    folder = removed(names, tmp_path)
    code = """
import densenet_multi as dm, numpy as np
spec = dm.get_spec("d2l")
logits = dm.reference.predict(spec, dm.init_weights(spec), np.zeros((1, 1, 29, 29)))
result = [dm.__file__, dm.backend_names(), logits.shape]
"""
    file, left, shape = result_of(code, folder)
    assert Path(file).parent == folder / "densenet_multi"
    assert sorted(left) == sorted(set(BACKENDS) - set(names))
    assert shape == [1, 10]
    for name in names:
        error = error_of(f"dm.load_backend({name!r})", folder)
        assert error["kinds"][0] == "ConfigError"
        assert f"backend {name!r} does not exist" in error["text"]

    check_tests(folder, files_without(Path(__file__).parents[1], names), pytestconfig)


def check_tests(folder: Path, files: list[Path], pytestconfig: pytest.Config) -> None:
    """These tests are green on the installation in the folder."""
    done = python(
        *["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(pytestconfig.inipath)],
        *["--backends", "none", *map(str, files)],
        folders=[folder],
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_the_package_says_that_it_is_typed_and_brings_its_sample_and_licence():
    files = importlib.resources.files("densenet_multi")
    assert files.joinpath("py.typed").is_file()
    assert "MIT" in files.joinpath("data/sample/LICENSE").read_text()
    assert len([f for f in files.joinpath("data/sample").iterdir() if f.name.endswith(".gz")]) == 4
