"""The rules of CONTRIBUTING.md, each as a test. They read source text: no framework is imported.

A text in four translations stays one text only while a test compares them word by word.
"""

import ast
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import densenet_multi as dm

PACKAGE = Path(dm.__file__).parent
BACKENDS = sorted(path.parent.name for path in PACKAGE.glob("*/faster"))
GRAPH = "onnx"  # the same network as a graph, not a backend
TEXTS = [*BACKENDS, GRAPH]
LESSON = ["layers", "model", "weights", "predict", "train"]  # in every backend, in reading order
BESIDE = ["tabular"]  # another network, which the lesson does not need
FASTER = ["exchange", "inference", "recompute", "training"]
# in order of import; files with an underscore are a framework's own helpers, and come first
ORDER = ["layers", "model", "weights", "faster", "predict", "train", *BESIDE, "__init__"]

FRAMEWORKS = {  # backend -> the packages that are its framework
    "torch": {"torch", "torchvision"},  # torchvision: only to compare speeds with
    "keras": {"h5py", "keras", "tensorflow", "triton"},  # triton: must load before TensorFlow
    "gluon": {"mxnet"},
    "flax": {"flax", "jax", "optax"},
}
EVERY_FRAMEWORK = set().union(*FRAMEWORKS.values())

BESIDE_THE_STANDARD_LIBRARY = {  # module or subpackage -> libraries that it may import
    "__init__": set(),
    "__main__": set(),
    "_checks": set(),
    "_download": {"rich"},
    "_figures": {"matplotlib", "numpy"},
    "_files": set(),
    "_fold": {"numpy"},
    "_heatmap": {"matplotlib", "numpy", "PIL"},
    "_inputs": {"numpy"},
    "_installed": set(),
    "_memory": set(),
    "_pickles": {"numpy"},
    "_progress": {"rich"},
    "_spec_dict": set(),
    "backends": {"numpy"},  # only for annotations
    "checkpoint": set(),
    "class_maps": {"numpy"},
    "commands": {"click", "numpy", "rich"},
    "comparison": {"numpy", "onnxruntime", "openvino"},
    "data": {"numpy", "PIL", "sklearn"},
    "diagnosis": {"numpy"},
    "drawing": set(),
    "exercises": {"numpy", "sklearn"},
    "manifest": set(),
    "onnx": {"numpy", "onnx", "onnxruntime"},
    "reference": {"numpy"},
    "spec": set(),
    "tabular": {"numpy"},
    "tasks": {"numpy", "sklearn"},
    "training": {"numpy", "rich"},
    "variants": set(),
    "weights": {"numpy"},
}
FOREIGN = ("comparison/rivals/", "comparison/probes/")  # these import the frameworks
OTHER_PROJECTS = ("formats/", *FOREIGN)  # these import the projects' libraries


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def framework_free_files() -> list[Path]:
    files = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted(path for path in files if path.parts[0] not in BACKENDS)


def backend_files(folder: str) -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in (PACKAGE / folder).rglob("*.py"))


EVERY_BACKEND_FILE = [path for folder in BACKENDS for path in backend_files(folder)]


# --- Imports ------------------------------------------------------------------------------------


def imports(node: ast.AST, package: str) -> Iterator[str]:
    """The full name of everything imported below the node, also under TYPE_CHECKING."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        parents = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*parents, node.module] if node.module else parents)
        yield from (f"{base}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package)


def third_party(names: Iterator[str]) -> set[str]:
    roots = {name.split(".")[0] for name in names}
    return roots - set(sys.stdlib_module_names) - {"densenet_multi"}


def imported_by(path: Path) -> list[str]:
    """What a file of the package imports; ``path`` is relative to the package."""
    package = ".".join(["densenet_multi", *path.parts[:-1]])
    return list(imports(tree(PACKAGE / path), package))


def imported_when_loaded(path: Path) -> list[str]:
    """The same, without the imports inside top-level functions."""
    module = tree(PACKAGE / path)
    module.body = [node for node in module.body if not isinstance(node, ast.FunctionDef)]
    return list(imports(module, ".".join(["densenet_multi", *path.parts[:-1]])))


def test_imports_are_found_wherever_and_however_they_are_written():
    source = """
import os, numpy as np
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import typing_only
def f():
    import torch.nn
    from .. import weights
    from ..spec import ConvSpec
    from .layers import conv
    from . import model
"""
    assert sorted(imports(ast.parse(source), "densenet_multi.flax")) == [
        "densenet_multi.flax.layers.conv",
        "densenet_multi.flax.model",
        "densenet_multi.spec.ConvSpec",
        "densenet_multi.weights",
        "numpy",
        "os",
        "torch.nn",
        "typing.TYPE_CHECKING",
        "typing_only",
    ]


@pytest.mark.parametrize("path", framework_free_files(), ids=str)
def test_a_framework_free_module_imports_no_framework_and_no_backend(path):
    # a format's library is imported when a file of that format is read or written
    names = imported_when_loaded(path) if path.parts[0] == "formats" else imported_by(path)
    if not path.as_posix().startswith(FOREIGN):
        assert not third_party(iter(names)) & EVERY_FRAMEWORK
    own = [name.split(".") for name in names if name.startswith("densenet_multi.")]
    assert not [parts for parts in own if parts[1] in BACKENDS]


@pytest.mark.parametrize("path", framework_free_files(), ids=str)
def test_a_module_imports_no_library_but_its_own(path):
    if path.as_posix().startswith(OTHER_PROJECTS):
        return
    allowed = BESIDE_THE_STANDARD_LIBRARY[path.parts[0].removesuffix(".py")]
    assert third_party(iter(imported_by(path))) <= allowed


@pytest.mark.parametrize("path", EVERY_BACKEND_FILE, ids=str)
def test_a_backend_imports_its_own_framework_and_numpy_and_no_other_backend(path):
    names = imported_by(path)
    assert third_party(iter(names)) <= FRAMEWORKS[path.parts[0]] | {"numpy"}
    assert "importlib" not in {name.split(".")[0] for name in names}  # it could evade this test
    others = {name for name in names if name.startswith("densenet_multi.")}
    for other in set(BACKENDS) - {path.parts[0]}:
        assert not {name for name in others if name.split(".")[1] == other}


@pytest.mark.parametrize("path", EVERY_BACKEND_FILE, ids=str)
def test_a_file_of_a_backend_imports_only_the_files_before_it(path):
    """The lesson up to weights.py (layers, model, weights) thus never imports faster/."""
    own = [name.split(".") for name in imported_by(path)]
    own = {parts[2] for parts in own if parts[:2] == ["densenet_multi", path.parts[0]]}
    place = path.parts[1].removesuffix(".py")
    after = ORDER.index(place) + (place == "faster") if place in ORDER else 0
    earlier = set(ORDER[:after])
    assert {name for name in own if not name.startswith("_")} <= earlier


@pytest.mark.parametrize("path", EVERY_BACKEND_FILE, ids=str)
def test_faster_is_known_by_two_names(path):
    if path.parts[1] == "faster":
        return
    word = f"densenet_multi.{path.parts[0]}.faster"
    names = {name.removeprefix(f"{word}.") for name in imported_by(path) if name.startswith(word)}
    expected = {"predict.py": {"for_inference", "for_training"}, "train.py": {"for_training"}}
    assert names == expected.get(path.parts[1], set())


@pytest.mark.parametrize("path", EVERY_BACKEND_FILE, ids=str)
def test_only_exchange_changes_a_class(path):
    assert ("__class__" in (PACKAGE / path).read_text("utf-8")) == (path.name == "exchange.py")


def test_a_model_speaks_only_the_words_of_its_glossary():
    """From the package, it imports only the spec, its own layers.py and the two helpers below."""
    for backend in TEXTS:
        own = [n for n in imported_by(Path(backend, "model.py")) if n.startswith("densenet_multi")]
        sources = {name.rpartition(".")[0] for name in own}
        helpers = {"keras": {"densenet_multi.keras._saving"}, GRAPH: {"densenet_multi.onnx._graph"}}
        own_helpers = helpers.get(backend, set())
        assert sources == {"densenet_multi.spec", f"densenet_multi.{backend}.layers"} | own_helpers


def loaded_by(code: str, *folders: Path) -> set[str]:
    """Packages outside the standard library that a fresh Python loads while it runs this code."""
    program = f"""
import json, sys
before = set(sys.modules)
try:
    {code}
except SystemExit as stop:
    assert not stop.code, stop.code
roots = {{name.split(".")[0] for name in set(sys.modules) - before}}
print("\\n" + json.dumps(sorted(roots - set(sys.stdlib_module_names))))
"""
    path = os.pathsep.join(map(str, [*folders, PACKAGE.parent]))
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_loads_the_standard_library_alone():
    assert loaded_by("import densenet_multi") == {"densenet_multi"}


def test_resolving_counting_and_tracing_need_no_numpy():
    code = "import densenet_multi as dm; spec = dm.get_spec('d2l', num_classes=7); "
    code += "dm.count_parameters(spec); dm.profile(spec, 96, 96); spec.from_json(spec.to_json()); "
    code += "from densenet_multi import drawing; [drawing.draw(f, spec) for f in drawing.FIGURES]"
    assert loaded_by(code) == {"densenet_multi"}


def test_the_commands_help_loads_no_framework():
    code = "import runpy; sys.argv = ['densenet-multi', '--help']; "
    code += "runpy.run_module('densenet_multi', run_name='__main__')"
    assert not loaded_by(code) & EVERY_FRAMEWORK


def test_the_reference_loads_numpy_and_no_framework():
    loaded = loaded_by("import densenet_multi as dm; dm.reference, dm.init_weights, dm.ImageError")
    assert "numpy" in loaded
    assert not loaded & EVERY_FRAMEWORK


@pytest.mark.parametrize("framework", sorted(EVERY_FRAMEWORK))
def test_the_proof_that_nothing_is_loaded_can_fail(framework, tmp_path):
    (tmp_path / f"{framework}.py").touch()
    code = f"import densenet_multi, {framework}"
    assert loaded_by(code, tmp_path) == {"densenet_multi", framework}


# --- The public names ---------------------------------------------------------------------------


def test_every_public_name_exists_and_nothing_else_is_offered():
    assert dm.__all__ == sorted(dm.__all__, key=lambda name: (not name.isupper(), name))
    bound = {name for name in vars(dm) if not name.startswith("_")}  # by importing it
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert bound - modules <= set(dm.__all__) | {
        "TYPE_CHECKING",
        "Any",
        "annotations",
        "import_module",
    }
    for name in dm.__all__:
        assert getattr(dm, name) is not None
    with pytest.raises(AttributeError, match="module 'densenet_multi' has no attribute 'nothing'"):
        dm.nothing  # noqa: B018


# --- The files of a backend ---------------------------------------------------------------------


@pytest.mark.parametrize("folder", BACKENDS)
def test_every_backend_has_the_same_files(folder):
    files = {path.stem for path in (PACKAGE / folder).glob("*.py")}
    assert {name for name in files if not name.startswith("_")} == {*LESSON, *BESIDE}
    faster = {path.stem for path in (PACKAGE / folder / "faster").glob("*.py")}
    assert {name for name in faster if not name.startswith("_")} == set(FASTER)


@pytest.mark.parametrize("folder", BACKENDS)
def test_the_lesson_is_short(folder):
    lines = {name: len(source(folder, name).splitlines()) for name in LESSON}
    assert lines["layers"] <= 90
    assert lines["model"] <= 135


def source(backend: str, name: str) -> str:
    return (PACKAGE / backend / f"{name}.py").read_text(encoding="utf-8")


def test_the_listing_shows_the_lesson():
    """At most a dozen public modules, beside the four translations and these subpackages."""
    modules = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    assert len(modules) <= 12
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - set(BACKENDS) == {
        "commands", "comparison", "data", "diagnosis", "drawing", "exercises", "formats", "onnx",
        "tasks", "training",
    }  # fmt: skip


@pytest.mark.parametrize("folder", TEXTS)
def test_a_model_calculates_nothing(folder):
    """Numbers of channels come from the spec; the only operator is the | of annotations."""
    nodes = list(ast.walk(tree(PACKAGE / folder / "model.py")))
    operators = [n for n in nodes if isinstance(n, ast.BinOp | ast.AugAssign | ast.UnaryOp)]
    assert {type(node.op) for node in operators} <= {ast.BitOr}
    numbers = [n.value for n in ast.walk(folded(folder)) if isinstance(n, ast.Constant)]
    assert not [number for number in numbers if type(number) in (int, float)]


CONVENTIONS = {"epsilon", "eps", "decay", "momentum", "axis", "axes", "dim", "dims"}
CONVENTIONS |= {"padding", "pad", "stride", "strides", "kernel"}


@pytest.mark.parametrize("folder", TEXTS)
def test_a_model_never_names_a_convention(folder):
    """Epsilon, decay, padding and axes belong in layers.py; not even comments here name them."""
    text = (PACKAGE / folder / "model.py").read_text(encoding="utf-8")
    assert not set(re.split(r"[^a-z]+", text.lower())) & CONVENTIONS


# --- One text -----------------------------------------------------------------------------------


class Fold(ast.NodeTransformer):
    """Removes what each framework requires to be written in its own way, and nothing else.

    Imports, docstrings, annotations, base classes of the framework; the name of the forward pass;
    Gluon's F; Flax's rngs; Keras' training=None and **kwargs; ``super().__init__()``, which Flax
    does without.
    """

    FORWARD = ("__call__", "call", "forward", "hybrid_forward")

    def visit_Module(self, node):
        self.classes = {part.name for part in node.body if isinstance(part, ast.ClassDef)}
        return self.generic_visit(node)

    def visit_Import(self, _node):
        return None

    visit_ImportFrom = visit_Import  # noqa: N815 (ast's own spelling)

    def visit_Expr(self, node):
        node = self.generic_visit(node)
        text = ast.unparse(node)
        is_docstring = isinstance(node.value, ast.Constant)
        return None if is_docstring or text == "super().__init__()" else node

    def visit_ClassDef(self, node):
        node.bases = [base for base in node.bases if ast.unparse(base) in self.classes]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.returns = None
        if node.name in self.FORWARD:
            node.name = "forward"
        return self.generic_visit(node)

    def visit_arguments(self, node):
        node.args = [a for a in node.args if a.arg != "F"]
        if node.args and node.args[-1].arg == "training":
            node.args.pop(), node.defaults.pop()
        if node.kwonlyargs and node.kwonlyargs[-1].arg == "rngs":
            node.kwonlyargs.pop(), node.kw_defaults.pop()
        node.kwarg = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_Assign(self, node):
        spelling = ast.unparse(node) == "rngs = rngs or nnx.Rngs(0)"
        return None if spelling else self.generic_visit(node)

    def visit_AnnAssign(self, node):
        if not node.value:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_Call(self, node):
        node.args = [a for a in node.args if ast.unparse(a) != "F"]
        spelling = ("rngs=rngs", "**kwargs")
        node.keywords = [k for k in node.keywords if ast.unparse(k) not in spelling]
        return self.generic_visit(node)

    def visit_Attribute(self, node):
        if node.attr in self.FORWARD:
            node.attr = "forward"
        return self.generic_visit(node)


def folded(backend: str) -> ast.Module:
    return Fold().visit(tree(PACKAGE / backend / "model.py"))


def skeleton(source: str) -> str:
    return ast.unparse(Fold().visit(ast.parse(source)))


def model_source(backend: str) -> str:
    return (PACKAGE / backend / "model.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", TEXTS)
def test_every_model_is_the_same_text(folder):
    first = TEXTS[0]
    ours, theirs = (skeleton(model_source(name)).splitlines() for name in (first, folder))
    difference = difflib.unified_diff(
        ours, theirs, f"{first}/model.py", f"{folder}/model.py", lineterm="", n=2
    )
    text = "\n".join(difference)
    assert not text, f"expected the same change in every model.py, found:\n{text}"


def classes_of_tables(source: str) -> str:
    """The skeletons of the classes in a tabular.py; its functions are each framework's own."""
    module = ast.parse(source)
    module.body = [node for node in module.body if isinstance(node, ast.ClassDef)]
    return ast.unparse(Fold().visit(module))


@pytest.mark.parametrize("folder", BACKENDS)
def test_the_classes_for_tables_are_the_same_text(folder):
    expected = classes_of_tables(source(BACKENDS[0], "tabular"))
    assert classes_of_tables(source(folder, "tabular")) == expected
    for old, new in (
        ("concat(x, new)", "concat(new, x)"),
        ("self.linear(self.activation(x))", "self.activation(self.linear(x))"),
    ):
        assert old in source(folder, "tabular")
        assert classes_of_tables(source(folder, "tabular").replace(old, new)) != expected


@pytest.mark.parametrize("folder", BACKENDS)
def test_the_functions_for_tables_have_the_contracts_order_and_parameters(folder):
    _, expected = contract("TabularBackend")
    found = functions_in(PACKAGE / folder / "tabular.py")
    assert found.pop("fit") == "model, run"  # fit_with gives it the parameters of RowRun
    public = {name: text for name, text in found.items() if not name.startswith("_")}
    assert [*public.items()] == [(n, text) for n, text in expected.items() if n != "fit"]


@pytest.mark.parametrize("folder", BACKENDS)
def test_the_network_for_tables_is_short_and_calculates_no_widths(folder):
    assert len(source(folder, "tabular").splitlines()) <= 115
    module = ast.parse(source(folder, "tabular"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == ["TabularLayer", "TabularNet"]
    nodes = [node for each in classes for node in ast.walk(each)]
    operators = [n for n in nodes if isinstance(n, ast.BinOp | ast.AugAssign | ast.UnaryOp)]
    assert {type(node.op) for node in operators} <= {ast.BitOr}
    assert not set(re.split(r"[^a-z]+", " ".join(map(ast.unparse, classes)).lower())) & CONVENTIONS


REAL_DIFFERENCES = {
    "a ReLU dropped": ("relu(self.norm0(x))", "self.norm0(x)"),
    "another ReLU dropped": ("relu(self.features(x))", "self.features(x)"),
    "norm and convolution exchanged": (
        "self.conv1(relu(self.norm1(x)))", "relu(self.norm1(self.conv1(x)))"
    ),
    "new channels first": (
        "concat(x, getattr(self, layer.name)(x))", "concat(getattr(self, layer.name)(x), x)"
    ),
    "the block's input forgotten": (
        "x = concat(x, getattr(self, layer.name)(x))", "x = getattr(self, layer.name)(x)"
    ),
    "a transition skipped": (
        "                x = maps[transition.name] = getattr(self, transition.name)(x)",
        "                maps[transition.name] = getattr(self, transition.name)(x)",
    ),
    "no dropout": ("return self.dropout(x)", "return x"),
    "dropout inside the bottleneck": (
        "x = self.conv1(relu(self.norm1(x)))", "x = self.dropout(self.conv1(relu(self.norm1(x))))"
    ),
    "another layer's spec": ("batch_norm(spec.norm2", "batch_norm(spec.norm1"),
    "the last BatchNorm skipped": ('maps["norm5"] = self.norm5(x)', 'maps["norm5"] = x'),
    "a stage under another name": ('maps = {"stem": x}', 'maps = {"conv0": x}'),
    "max pooling for average pooling": ("avg_pool(spec.pool)", "max_pool(spec.pool)"),
    "a classifier always": (" if spec.classifier else None", ""),
    "a classifier never": ("if self.classifier is not None", "if self.classifier is None"),
    "no stem in the features": ("class Features(Stem)", "class Features(DenseBlock)"),
    "the stem's input passed on": ("x = super().", "super()."),
    "all blocks before all transitions": (
        "            if transition:\n                setattr",
        (
            "        for _, transition in spec.stages:\n            if transition:\n"
            "                setattr"
        ),
    ),
    "a layer under another name": ("self.norm5", "self.norm6"),
}  # fmt: skip


@pytest.mark.parametrize("folder", TEXTS)
@pytest.mark.parametrize("what", REAL_DIFFERENCES)
def test_folding_hides_no_real_difference(what, folder):
    old, new = REAL_DIFFERENCES[what]
    source = model_source(folder)
    assert old in source
    assert skeleton(source.replace(old, new, 1)) != skeleton(source)


def test_folding_an_annotation_keeps_what_is_assigned():
    assert skeleton("self.spec: Any = spec") == "self.spec = spec"
    assert skeleton("self.spec: Any = spec.stem") != "self.spec = spec"


def test_folding_keeps_arguments_with_defaults_and_calls_that_are_not_spelling():
    kept = "def stages(self, x, depth=3, *, rate=0.5):\n    return f(x, rngs=other, **options)"
    assert skeleton(kept) == kept


# --- The contract -------------------------------------------------------------------------------


def contract(which: str = "Backend") -> tuple[set[str], dict[str, str]]:
    """A protocol: its constants and classes, and its functions with their parameters."""
    (protocol,) = [n for n in tree(PACKAGE / "backends.py").body
                   if isinstance(n, ast.ClassDef) and n.name == which]  # fmt: skip
    values = {node.target.id for node in protocol.body if isinstance(node, ast.AnnAssign)}
    functions = {f.name: parameters(f) for f in protocol.body if isinstance(f, ast.FunctionDef)}
    return values, {name: text.removeprefix("self, ") for name, text in functions.items()}


def parameters(function: ast.FunctionDef) -> str:
    """Names, kinds and defaults, without annotations: ``spec, *, seed=0``."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.unparse(function.args)


def functions_in(path: Path) -> dict[str, str]:
    return {f.name: parameters(f) for f in tree(path).body if isinstance(f, ast.FunctionDef)}


def constants_in(path: Path) -> dict[str, object]:
    assigned = [node for node in tree(path).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned}


def re_exported(folder: str) -> dict[str, str]:
    """{name: file} of what a backend's ``__init__`` re-exports from its own files."""
    found = {}
    for name in imported_by(Path(folder, "__init__.py")):
        parts = name.split(".")
        if parts[:2] == ["densenet_multi", folder] and len(parts) == 4:
            found[parts[3]] = parts[2]
    return found


@pytest.mark.parametrize("folder", BACKENDS)
def test_a_backend_offers_exactly_the_contract(folder):
    values, functions = contract()
    offered = re_exported(folder).keys() | constants_in(PACKAGE / folder / "__init__.py").keys()
    assert {name for name in offered if name != "WHEELS"} == values | functions.keys()


@pytest.mark.parametrize("folder", BACKENDS)
def test_functions_of_the_contract_take_the_same_parameters_everywhere(folder):
    _, expected = contract()
    files = re_exported(folder)
    found = {
        name: functions_in(PACKAGE / folder / f"{files[name]}.py").get(name) for name in expected
    }
    assert found.pop("fit") == "model, run"  # fit_with gives it the parameters of Run
    assert found == {name: text for name, text in expected.items() if name != "fit"}


def test_fits_parameters_are_written_once_and_documented_in_the_contract():
    _, expected = contract()
    (run,) = [n for n in tree(PACKAGE / "training" / "run.py").body
              if isinstance(n, ast.ClassDef) and n.name == "Run"]  # fmt: skip
    (init,) = [n for n in run.body if getattr(n, "name", "") == "__init__"]
    assert parameters(init).removeprefix("self, ") == expected["fit"]


@pytest.mark.parametrize("folder", BACKENDS)
def test_a_backend_has_one_word_and_says_which_variance_it_keeps(folder):
    constants = constants_in(PACKAGE / folder / "__init__.py")
    assert constants["NAME"] == folder
    assert constants["RUNNING_VARIANCE"] in ("biased", "unbiased")


GLOSSARY = {
    "conv": "spec",
    "batch_norm": "spec",
    "max_pool": "spec",
    "avg_pool": "spec",
    "linear": "spec",
    "dropout": "rate",
    "relu": "x",
    "concat": "*maps",
    "global_avg_pool": "x",
    "global_max_pool": "x",
}


@pytest.mark.parametrize("folder", TEXTS)
def test_every_glossary_has_the_same_words_in_the_same_order(folder):
    words = functions_in(PACKAGE / folder / "layers.py")
    without_rngs = {word: text.removesuffix(", rngs") for word, text in words.items()}
    assert list(without_rngs.items())[: len(GLOSSARY)] == list(GLOSSARY.items())


@pytest.mark.parametrize("folder", TEXTS)
def test_every_model_uses_every_word_of_its_glossary(folder):
    names = {name.rpartition(".")[2] for name in imported_by(Path(folder, "model.py"))}
    assert names >= GLOSSARY.keys()
