"""An absent backend says how to install it, a broken one what is broken; neither is hidden.

Everything runs in a fresh Python with made-up packages, so no framework is needed.
"""

import importlib.resources
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

import available
import densenet_multi as dm

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dm.__file__).parent
BACKENDS = dm.backend_names()
PACKAGES = {  # backend -> the packages it imports; errors name the first
    "torch": ["torch"],
    "keras": ["tensorflow"],
    "gluon": ["mxnet"],
    "flax": ["flax", "jax", "optax"],
}
only_with_gluon = pytest.mark.skipif("gluon" not in BACKENDS, reason="gluon was removed")
only_with_keras = pytest.mark.skipif("keras" not in BACKENDS, reason="keras was removed")


PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
TRIED = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)


def python(*arguments: str, folders: list[Path], **environment: str) -> subprocess.CompletedProcess:
    """Run a fresh Python that looks for packages in these folders first."""
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
    """The value that the code assigns to ``result``."""
    done = python("-c", f"{code}\nimport json; print('\\n' + json.dumps(result))", folders=[folder],
                  **environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def error_of(statement: str, folder: Path, setup: str = "", **environment: str) -> dict:
    """The error that a statement raises: its classes, text, name and cause."""
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
    """Code that hides a framework, whether or not it is installed."""
    return absent(*PACKAGES[backend])


def absent(*packages: str) -> str:
    return f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def on_python(*version: int) -> str:
    """Code that makes the package believe that it runs on this Python version."""
    return f"""
from types import SimpleNamespace
import densenet_multi._installed
densenet_multi._installed.sys = SimpleNamespace(version_info={version})
"""


def ways_to_import(backend: str) -> list[str]:
    return [f"dm.load_backend({backend!r})", f"import densenet_multi.{backend}"]


# --- Absent and broken --------------------------------------------------------------------------


NOTES = {"gluon": " (MXNet 1.9.1 has wheels for Linux and for macOS on Intel)"}


@pytest.mark.parametrize("word", BACKENDS)
def test_an_absent_framework_is_reported_with_the_line_that_installs_it(word, tmp_path):
    for statement in ways_to_import(word):
        error = error_of(statement, tmp_path, without(word) + on_python(3, 12))
        assert error["kinds"][:2] == ["BackendNotInstalledError", "ImportError"]
        assert error["name"] == PACKAGES[word][0]
        assert error["cause"] == "ModuleNotFoundError"
        assert error["text"] == (
            f"backend {word!r} needs {PACKAGES[word][0]!r}, which is not installed; in a clone of "
            f"densenet_multi, install it with: pip install '.[{word}]'{NOTES.get(word, '')}"
        )


def test_the_page_on_installing_shows_the_error_about_an_absent_framework(tmp_path):
    error = error_of("dm.load_backend('torch')", tmp_path, without("torch"))
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    shown = page.partition("```text\n")[2].partition("\n```")[0]
    assert " ".join(shown.split()) == error["text"]


@only_with_gluon
def test_without_distutils_gluon_is_not_installed_and_its_extra_brings_it(tmp_path):
    """Python 3.12 dropped it; MXNet imports it."""
    (tmp_path / "mxnet.py").write_text("import distutils.version")
    for statement in ways_to_import("gluon"):
        error = error_of(statement, tmp_path, absent("distutils") + on_python(3, 12))
        assert error["kinds"][0] == "BackendNotInstalledError"
        assert error["name"] == "distutils"
        assert error["text"] == (
            "backend 'gluon' needs 'distutils' of setuptools, which is not installed; in a clone "
            f"of densenet_multi, install it with: pip install '.[gluon]'{NOTES['gluon']}"
        )
    extra = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]["gluon"]
    assert "setuptools" in requested_on("3.12", extra)


@only_with_gluon
def test_where_a_framework_ends_before_this_python_the_error_says_where_it_does_not(tmp_path):
    for statement in ways_to_import("gluon"):
        error = error_of(statement, tmp_path, without("gluon") + on_python(3, 13))
        assert error["kinds"][:2] == ["BackendNotInstalledError", "ImportError"]
        assert error["text"] == (
            "backend 'gluon' needs Python 3.12 or earlier, because 'mxnet' does not support "
            "Python 3.13; in a clone of densenet_multi, type: python3.12 -m venv .venv-gluon && "
            ".venv-gluon/bin/pip install '.[gluon]'"
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
    folders = {path.parent.name for path in PACKAGE.glob("*/faster")}
    assert {entry.name: entry.value for entry in entries} == {
        name: f"densenet_multi.{name}" for name in folders
    }
    assert set(BACKENDS) == folders


def write_distribution(folder: Path, name: str, entries: str = "", requires: object = ()) -> None:
    """Write the metadata that pip writes for an installed package."""
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


# --- Pythons ------------------------------------------------------------------------------------


def requested_on(python: str, requirements: list[str]) -> dict[str, Requirement]:
    """{name: requirement} of those whose marker applies to this Python, on Linux x86-64."""
    place = {"python_version": python, "python_full_version": f"{python}.0"}
    place |= {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
    kept = [r for r in map(Requirement, requirements) if not r.marker or r.marker.evaluate(place)]
    names = [re.sub(r"[-_.]+", "-", requirement.name).lower() for requirement in kept]
    assert len(set(names)) == len(names)
    return dict(zip(names, kept, strict=True))


TRIED_FILES = ("constraints.txt", "constraints-torch.txt")
TOOLS_FILES = ("constraints-tools.txt",)


def pins_on(python: str, files: tuple[str, ...] = TRIED_FILES) -> dict[str, str]:
    """{name: version} of constraints.txt and what it includes, or of other files."""
    lines = [
        line.partition("#")[0].strip()
        for file in files
        for line in (ROOT / file).read_text("utf-8").splitlines()
    ]
    pins = requested_on(python, [line for line in lines if line and not line.startswith("-c")])
    return {name: str(pin.specifier).removeprefix("==") for name, pin in pins.items()}


def test_the_pythons_that_are_promised_are_those_that_are_tried():
    assert TRIED == ["3.11", "3.12", "3.13"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert (
        re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
        == [", ".join(f'"{version}"' for version in TRIED)] * 2
    )
    *first, last = TRIED
    for name in ("README.md", "docs/install.md"):
        page = " ".join((ROOT / name).read_text("utf-8").split())
        assert f"Python {', '.join(first)} or {last}" in page
    assert f'requires-python = ">={first[0]}"' in PYPROJECT


@pytest.mark.parametrize("version", TRIED)
def test_the_pins_fulfil_what_the_package_asks_for_on_each_python(version):
    project = tomllib.loads(PYPROJECT)["project"]
    pins = pins_on(version)
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        for name, requirement in requested_on(version, requirements).items():
            if name != "densenet-multi":  # required by the extra `all`
                assert requirement.specifier.contains(pins[name]), name


@only_with_gluon
@pytest.mark.parametrize("version", TRIED)
def test_numpy_1_is_pinned_where_mxnet_is_and_nowhere_else(version):
    """NumPy 1 has no wheel for Python 3.13: pip would spend half an hour compiling it."""
    extra = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]["gluon"]
    pins = pins_on(version)
    assert ("mxnet" in requested_on(version, extra)) == (version != "3.13")
    assert pins["numpy"].startswith("1.") == ("mxnet" in pins) == (version != "3.13")


@pytest.mark.skipif(not BACKENDS, reason="every backend was removed")
def test_a_backend_that_this_python_cannot_have_is_left_out_with_the_reason(monkeypatch):
    """Tests of all backends together then use the others; ``--backends`` with its name fails."""
    first, *others = BACKENDS
    requires = [f"gone==1.5; python_version < '3' and extra == '{first}'", "numpy>=1.26"]
    requires += [f"here>=2; extra == '{name}'" for name in others]
    monkeypatch.setattr(available, "distribution", lambda _: SimpleNamespace(requires=requires))
    (reason,) = available.left_out().items()
    version = platform.python_version()
    assert reason == (first, f"gone==1.5 does not exist for Python {version} on this platform")


def of_groups(*names: str) -> list[str]:
    """The requirements of dependency groups, and of those that they include."""
    entries = [
        entry for name in names for entry in tomllib.loads(PYPROJECT)["dependency-groups"][name]
    ]
    included = [entry["include-group"] for entry in entries if isinstance(entry, dict)]
    plain = [entry for entry in entries if isinstance(entry, str)]
    return plain + (of_groups(*included) if included else [])


@pytest.mark.parametrize(
    ("files", "requirements"),
    [
        (TRIED_FILES, [*of_groups("dev"), "setuptools", "wheel"]),
        (TOOLS_FILES, of_groups("lint", "typecheck", "docs", "browser")),
        (TOOLS_FILES, ["build", "hatchling", "twine"]),
        (TOOLS_FILES, tomllib.loads(PYPROJECT)["build-system"]["requires"]),
        (TOOLS_FILES, tomllib.loads(PYPROJECT)["project"]["dependencies"]),
    ],
    ids=[
        "the tried environment",
        "the groups",
        "the tools",
        "the build backend",
        "what the tools are about",
    ],
)
@pytest.mark.parametrize("version", TRIED)
def test_tools_are_pinned_as_the_package_asks_for_them(version, files, requirements):
    pins = pins_on(version, files)
    for requirement in map(Requirement, requirements):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(pins[name]), name


def test_both_files_of_pins_have_the_same_versions_of_all_but_numpy():
    tried, tools = pins_on("3.11"), pins_on("3.11", TOOLS_FILES)
    differ = {name for name in tried.keys() & tools.keys() if tried[name] != tools[name]}
    assert differ == {"numpy"}


def installed_for(requirements: list[str], pins: dict[str, str]) -> set[str]:
    """The names of the installed packages that these requirements need, directly or indirectly.

    A package whose version is not the pinned one may require something else: it is not followed.
    """
    found: set[str] = set()
    ahead = [(Requirement(text), "") for text in requirements]
    while ahead:
        requirement, extra = ahead.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        with suppress(PackageNotFoundError):
            installed = distribution(name)
            requires = installed.requires or []
            found.add(name)
            # not PyTorch: its build for CUDA requires NVIDIA's packages
            if installed.version == pins.get(name) and name != "torch":
                extras = requirement.extras or {""}
                ahead += [(Requirement(text), e) for text in requires for e in extras]
    return found


def test_whatever_is_installed_with_the_package_is_pinned():
    project = tomllib.loads(PYPROJECT)["project"]
    extras = [text for each in project["optional-dependencies"].values() for text in each]
    extras = [text for text in extras if not text.startswith("densenet_multi[")]  # the extra `all`
    pins = pins_on(f"{sys.version_info.major}.{sys.version_info.minor}")
    names = installed_for([*project["dependencies"], *extras, *of_groups("dev")], pins)
    assert {"numpy", "pytest"} <= names
    assert names - pins.keys() == set()


def test_what_ci_installs_is_pinned():
    files = [".github/workflows/ci.yml", ".readthedocs.yaml"]
    text = "\n".join((ROOT / file).read_text("utf-8") for file in files)
    installs = re.findall(r"pip install .*", text)
    assert len(installs) == 6
    assert all(" -c constraints" in command for command in installs)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "pip install -q -c constraints-tools.txt nox \\\n" in readme
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    for session in ("lint", "typecheck", "build", "docs", "docs_browser"):
        body = noxfile.partition(f"\ndef {session}(")[2].partition("\n\n\n")[0]
        assert [", *TOOLS" in line for line in re.findall(r"session\.install\(.*", body)] == [True]
    builds = noxfile.count('install(".", ') + noxfile.count('"wheel", ')
    assert builds == noxfile.count("env=BUILD)") == 5


def test_dependabot_covers_actions_and_pins():
    text = (ROOT / ".github" / "dependabot.yml").read_text("utf-8")
    assert re.findall(r"package-ecosystem: ([\w-]+)", text) == ["github-actions", "pip"]


def test_hooks_are_pinned_by_the_commit_or_by_versions():
    """A tag can be moved; a commit cannot. Local hooks use the same tool versions as the checks."""
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert text.count("repo: http") == len(
        re.findall(r"rev: [0-9a-f]{40}  # frozen: v[\d.]+\n", text)
    )
    tools = pins_on("3.11", TOOLS_FILES)
    assert f"# frozen: v{tools['codespell']}\n    hooks:\n      - id: codespell" in text
    local = text.partition("repo: local")[2]
    assert local.count("- id: ") == local.count("additional_dependencies:")
    lists = re.findall(r"additional_dependencies: \[(.*)\]|^ {10}- (.*)$", local, re.MULTILINE)
    packages = [one or other for one, other in lists]
    assert len(packages) >= local.count("additional_dependencies:")
    for package in packages:
        name, _, version = package.partition("==")
        assert version == tools.get(name, version) != ""


def test_torch_is_pinned_in_one_place():
    files = ["pyproject.toml", "noxfile.py", ".ci/run", "constraints.txt", "constraints-tools.txt"]
    files += ["constraints-torch.txt"]
    pins = [re.findall(r"^torch==.*", (ROOT / f).read_text("utf-8"), re.MULTILINE) for f in files]
    assert [len(found) for found in pins] == [0, 0, 0, 0, 0, 1]


def test_the_readme_asks_for_no_python_by_its_minor_version():
    """`python3` also exists where `python3.11` does not."""
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^\S*python\S* -m venv.*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv ") for command in commands)


# --- Deletable ----------------------------------------------------------------------------------


def removed(names: list[str], folder: Path) -> Path:
    """Copy the installation without these backends: their folders, entry points and extras."""
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


FIRST, OTHERS, LAST = BACKENDS[:1], BACKENDS[1:], BACKENDS[-1:]
REMOVALS = [names for names in (LAST, BACKENDS) if names]
# together with these, each backend is removed alone
LONG_REMOVALS = [names for names in (FIRST, OTHERS, *([name] for name in OTHERS[:-1])) if names]


def files_without(tests: Path, names: list[str]) -> list[Path]:
    """The test files that run on an installation from which these backends were removed."""
    if names == BACKENDS:
        files = ["spec", "rules"]
    elif names in (FIRST, OTHERS):
        # a test that needs one particular backend fails without the first, or with the first alone
        files = ["rules", "inputs", "commands", "readme", "evaluate", "lockstep"]
    else:
        files = ["rules", "inputs"]
    return [next(tests.rglob(f"test_{file}.py")) for file in files]


@pytest.mark.long
def test_without_any_backend_everything_about_the_paper_works(tmp_path, pytestconfig):
    tests = Path(__file__).parents[1]
    files = [tests / "paper" / f"test_{name}.py" for name in ("spec", "manifest", "weights")]
    check_tests(removed(BACKENDS, tmp_path), files, pytestconfig)


@pytest.mark.parametrize(
    "names",
    [*REMOVALS, *(pytest.param(names, marks=pytest.mark.long) for names in LONG_REMOVALS)],
    ids="+".join,
)
def test_without_a_backend_the_rest_works(names, tmp_path, pytestconfig):
    """Without a backend's folder, entry point and extra, the package and its tests still work."""
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
    """Check that these tests pass on the installation in the folder."""
    done = python(
        *["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(pytestconfig.inipath)],
        # each_break tests source text, not behavior
        *["--backends", "none", "-k", "not each_break", *map(str, files)],
        folders=[folder],
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_the_package_says_that_it_is_typed_and_brings_its_sample_and_licence():
    files = importlib.resources.files("densenet_multi")
    assert files.joinpath("py.typed").is_file()
    assert "MIT" in files.joinpath("data/sample/LICENSE").read_text()
    assert len([f for f in files.joinpath("data/sample").iterdir() if f.name.endswith(".gz")]) == 4
