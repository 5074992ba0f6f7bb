#!/usr/bin/env -S uv run --script

# /// script
# dependencies = ["nox>=2025.10.14"]
# ///
"""Sessions for maintainers: ``nox -s tests``, ``nox -s tests-flax``, ``nox --list``.

Tests run against the installed wheel. Plain ``pytest`` in your own environment works too.
"""

import shutil
from pathlib import Path
from platform import python_version

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "virtualenv"

BACKENDS = ("torch", "keras", "gluon", "flax")
PROJECT = nox.project.load_toml("pyproject.toml")
TORCH = ("-c", "constraints-torch.txt")
TRIED = ("-c", "constraints.txt")
TOOLS = ("-c", "constraints-tools.txt")
SITE = Path("docs", "_build")
BUILD = {"PIP_BUILD_CONSTRAINT": TOOLS[1]}  # of hatchling, where a wheel is built
# Python then ignores the folder it runs in: what is tested is never ./densenet_multi
INSTALLED = {"PYTHONSAFEPATH": "1"}
# Most tests trace and compile small networks on one core: two at a time take half as long.
# With more cores: nox -s tests -- -n 4 (each process holds a framework, up to 3 GB)
PYTEST = ("pytest", "-n", "2", "--dist", "worksteal")
ONE_BY_ONE = ("--dist", "load", "--maxschedchunk", "1")  # for a few tests that take long


def available() -> list[str]:
    """The backends that this Python on this platform can have, by the markers of their extras."""
    extras = PROJECT["project"]["optional-dependencies"]
    frameworks = {name: Requirement(extras[name][0]) for name in BACKENDS}  # the first of each
    return [name for name, f in frameworks.items() if f.marker is None or f.marker.evaluate()]


def group(name: str) -> list[str]:
    """The requirements of a dependency group in pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


def install_wheel(session: nox.Session, extra: str, *constraints: str) -> None:
    """Build the wheel and install it with an extra: what users get, not what the checkout holds."""
    folder = Path(session.create_tmp()).resolve()
    for old in folder.glob("*.whl"):
        old.unlink()
    wheel_of = ("pip", "wheel", "-q", "--no-deps", "-w", str(folder), ".")
    session.run_install(*wheel_of, silent=True, env=BUILD)
    (wheel,) = folder.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)  # without a framework
    session.install(wanted, *group("test"), *constraints)


def all_in_one(session: nox.Session) -> list[str]:
    """The one environment that holds all four frameworks, or those that can be: their names."""
    install_wheel(session, "all", *TRIED)
    backends = available()
    for name in set(BACKENDS) - set(backends):
        wanted = PROJECT["project"]["optional-dependencies"][name][0].split(";")[0]
        python = python_version()
        session.warn(
            f"without {name}: {wanted} does not exist for Python {python} on this platform"
        )
    return backends


def tests_of(name: str) -> None:
    """Make the session of one backend."""

    @nox.session(name=f"tests-{name}", default=False)
    def run(session: nox.Session) -> None:
        """The tests with one backend alone, in its newest versions (torch: as constrained)."""
        install_wheel(session, f"{name},tabular", *TORCH)
        session.run(*PYTEST, "--backends", name, *session.posargs, env=INSTALLED)


for name in BACKENDS:
    tests_of(name)


@nox.session(name="tests-onnx", default=False)
def tests_onnx(session: nox.Session) -> None:
    """The tests of ONNX files, without any framework: the graph against the reference."""
    install_wheel(session, "onnx", *TRIED)
    session.install("openvino", *TRIED)  # a case of bench
    chosen = ("tests/onnx", "--backends", "onnx", "-m", "onnx")
    session.run(*PYTEST, *chosen, *session.posargs, env=INSTALLED)


@nox.session
def tests(session: nox.Session) -> None:
    """Every test but the long ones, in the one tried environment: one process per backend."""
    backends = all_in_one(session)

    def pytest(*arguments: str) -> None:
        session.run(*PYTEST, *arguments, *session.posargs, env=INSTALLED)

    pytest("--backends", "none")
    for backend in backends:
        pytest("--backends", backend, "-m", "backend")
    pytest("--backends", ",".join(backends), "-m", "together", *ONE_BY_ONE)


@nox.session(name="tests-long", default=False)
def tests_long(session: nox.Session) -> None:
    """The same promises at full size, which take long. ``-- torch flax``: only these backends."""
    backends = all_in_one(session)
    chosen = [word for word in session.posargs if word in ("none", *BACKENDS)]
    rest = [argument for argument in session.posargs if argument not in chosen]
    together = ",".join(backends)
    marks = {"none": "long", together: "together and long"}
    for names in chosen or ("none", *backends, together):
        mark = marks.get(names, "backend and long")
        session.run(*PYTEST, "--backends", names, "-m", mark, *rest, env=INSTALLED)


def peers(session: nox.Session, test: str, *packages: str) -> None:
    """Run the tests against another project's own models, with all four backends beside them."""
    install_wheel(session, "all", *packages)
    files = f"tests/peers/test_{test}.py"
    every = ",".join(available())
    session.run(*PYTEST, files, "--backends", every, *session.posargs, env=INSTALLED)


@nox.session(name="peers-torchvision", default=False)
def peers_torchvision(session: nox.Session) -> None:
    """Torchvision's and timm's DenseNets (5.6 GB: PyPI's torchvision needs the CUDA build)."""
    peers(session, "torchvision", "torch==2.14.1", "torchvision==0.29.1", "timm")


@nox.session(name="peers-keras", default=False)
def peers_keras(session: nox.Session) -> None:
    """The DenseNets of keras.applications."""
    peers(session, "keras_applications", *TRIED)


@nox.session(name="peers-kerashub", default=False)
def peers_kerashub(session: nox.Session) -> None:
    """KerasHub's DenseNets, which pad SAME."""
    peers(session, "kerashub", "keras-hub", *TRIED)


@nox.session(name="peers-gluon", default=False)
def peers_gluon(session: nox.Session) -> None:
    """The MXNet Gluon zoo's DenseNets."""
    peers(session, "gluon_zoo", *TRIED)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the code in known ways, one at a time: the tests must notice each."""
    all_in_one(session)
    session.run("python", "tests/support/mutants.py", *session.posargs)


@nox.session(default=False)
def compare(session: nox.Session) -> None:
    """The comparison that README shows."""
    all_in_one(session)
    session.run("densenet-multi", "compare", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """How fast each backend trains, in turn with a beginner's code."""
    all_in_one(session)
    session.run("densenet-multi", "bench", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import rules, and the habits of a scientific Python project."""
    session.install(".", *group("lint"), *TOOLS, env=BUILD)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("lint-imports")
    session.run("repo-review", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Types; the frameworks need not be installed."""
    session.install(".", *group("typecheck"), *TOOLS, env=BUILD)
    session.run("mypy")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """The wheel and the source distribution, into dist/."""
    session.install("build", "hatchling", "twine", *TOOLS)
    session.run("python", "-m", "build", "--no-isolation")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation as HTML, in both languages, into docs/_build."""
    session.install(".", *group("docs"), *TOOLS, env=BUILD)
    kept = Path(session.create_tmp()).resolve()
    shutil.rmtree(SITE, ignore_errors=True)  # pages that are gone
    languages = {"en": SITE, "vi": SITE / "vi"}
    for language, target in languages.items():
        if language != "en" and not Path("docs", "locale", language).exists():
            session.error(f"docs/locale/{language} is missing")  # Sphinx would build it in English
        options = ["-d", f"{kept}/{language}", "-D", f"language={language}"]
        if language == "en":
            options += ["-t", "vietnamese"]  # the home page then links to it
        build = ("sphinx-build", "-q", "-E", "-W", "--keep-going", *options)
        session.run(*build, "docs", str(target))
    session.log(f"built {SITE}/index.html; to read it: nox -s docs-serve")


@nox.session(name="docs-serve", default=False, venv_backend="none")
def docs_serve(session: nox.Session) -> None:
    """The built documentation on this machine alone. ``-- 8001``: another port."""
    if not (SITE / "index.html").exists():
        session.error(f"{SITE} is empty; first run: nox -s docs")
    (port,) = session.posargs or ["8000"]
    session.log(f"http://127.0.0.1:{port}/ until Ctrl-C")
    local = ("--bind", "127.0.0.1", "--directory", str(SITE), port)
    session.run("python", "-m", "http.server", *local, external=True)


@nox.session(default=False)
def outputs(session: nox.Session) -> None:
    """Run the documentation's blocks whose outputs are stale, and store what they print.

    ``-- --all`` runs all, ``-- --page chapter --framework torch`` only these. ``-- --check`` stores
    nothing and reports what differs; with ``--newest`` in the newest versions of one framework, or
    of NumPy (``--framework python``).
    """
    arguments = [word for word in session.posargs if word != "--newest"]
    if arguments == session.posargs:
        all_in_one(session)
    else:  # newest versions: of one framework, since all four do not fit together
        chosen = {name for name in (*BACKENDS, "python") if name in arguments}
        if len(chosen) != 1 or "--check" not in arguments:
            session.error("expected `--check --newest --framework NAME`")
        install_wheel(session, chosen.pop().replace("python", ""), *TORCH)
    pages = {"PYTHONPATH": str(Path("docs").resolve())}
    session.run("python", "-m", "extensions.execute", *arguments, env=INSTALLED | pages)


@nox.session(name="docs-browser", default=False)
def docs_browser(session: nox.Session) -> None:
    """Every page of docs/_build in Chromium: tabs, accessibility, phone; needs ``nox -s docs``."""
    session.install(".", *group("browser"), *TOOLS, env=BUILD)
    check = ("python", "tests/browser/check_site.py", str(SITE))
    session.run(*check, *session.posargs, env={"PYTHONUNBUFFERED": "1"})


if __name__ == "__main__":
    nox.main()
