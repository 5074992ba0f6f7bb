"""docs/conventions.md: entries are complete, and their sentences agree with the outputs."""

import json
import re
from importlib import import_module
from pathlib import Path
from runpy import run_path

import pytest

from densenet_multi.comparison.probes import PROBES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "conventions.md").read_text("utf-8")
FRAMEWORKS = ["torch", "keras", "gluon", "flax"]
PARTS = ["What you see.", "Rule.", "How to write it.", "Who does it differently."]
LABEL = re.compile(r"^\(([\w-]+)\)=\n", re.MULTILINE)
_, *LABELED = LABEL.split(PAGE)
ENTRIES = dict(zip(LABELED[::2], LABELED[1::2], strict=True))  # {label: text}
WITHOUT_A_DEMONSTRATION = ["float32-on-a-gpu"]  # it needs a GPU
WITHOUT_A_FRAMEWORK = ["transition-width"]

# what each entry says about the numbers below it: a regular expression for the output in every
# framework, or in one
SAID = {
    "stem-padding": r"96 .* by [1-9].*\n97 .* by 0%\n98 .* by [1-9].*\n99 .* by [1-9]",
    "max-pool-padding": r"corner 0.0 with zeros, -1.0 .*\n.* corner 0.0 with zeros, 0.0",
    "rounding-in-pooling": r"up: \(4, 4\), last value 1.0\n.*: \(3, 3\), last value 0.0",
    "rounding-in-pooling, flax": r"up: \(4, 4\), last value 0.5\n.*: \(3, 3\), last value 0.0",
    "pooling-first": r"max .* by [1-9].*\naverage .* by 0%\n.* 1152 pooling last, 288",
    "bn-epsilon": r" 1: 1.0000 1.0000 0.9995\n.*\n.* 0.0001: 0.9535 0.9534 0.3015",
    "bn-momentum": r"=0.9: running mean 1.0\n.*=0.1: running mean 9.0",
    "bn-momentum, torch": r"=0.9: running mean 9.0\n.*=0.1: running mean 1.0",
    "running-variance": r"\(biased\): 1.300\n.* unbiased: 1.433",
    "running-variance, torch": r"\(unbiased\): 1.433\n.* biased: 1.300",
    "evaluation-mode": r"evaluation .*'1.00', '1.00'.*\ntraining .*'-1.22', '1.22'",
    "image-layout": r"B: 0.34 0.33 0.33\n.* B: 1.0 0.0 0.0",
    "kernel-layout": r"by [1-9].*\n.* by 0%",
    "linear-weights": r"as it is: (.*), right (?!\1).*\ntransposed: (.*), right \2",
    "concatenation-order": r"new first: 3 channels, .* 15\nold first: 3 channels, .* 33",
    "pixel-range": r"training .* 1.00 right, 1.00 wrong\nevaluation .* 1.00 right, 255 wrong",
    "softmax-or-logits": r"probabilities: class 0, loss 0.57\n.* logits: class 0, loss 0.04",
    "nan-in-a-relu": r"ReLU of NaN: nan",
    "nan-in-a-relu, gluon": r"ReLU of NaN: 0.0",
    "transition-width": r"before: 100\n.* floor: 28\nkept: 29",
}


@pytest.mark.parametrize("label", ENTRIES)
def test_an_entry_has_its_five_parts_in_order(label):
    text = ENTRIES[label].split("\n### The rest")[0].split("\n## What")[0]
    assert re.findall(r"^\*\*(.*?)\*\*", text, re.MULTILINE) == PARTS
    blocks = re.findall(r"^```\{run\} (\w+)", text, re.MULTILINE)
    if label in WITHOUT_A_DEMONSTRATION:
        assert blocks == []
    else:
        assert blocks == (["python"] if label in WITHOUT_A_FRAMEWORK else FRAMEWORKS)
        assert text.index("What you see.") < text.index("```{run}") < text.index("Rule.")


def test_a_reader_finds_every_entry_by_its_symptom():
    table = PAGE.partition("## Find your symptom")[2].partition("```")[0]
    assert sorted(re.findall(r"\(#([\w-]+)\)", table)) == sorted(ENTRIES)


def test_every_demonstration_has_an_expectation():
    labels = {label.partition(",")[0] for label in SAID}
    assert ENTRIES.keys() - set(WITHOUT_A_DEMONSTRATION) == labels


@pytest.mark.parametrize("framework", [*FRAMEWORKS, "python"])
def test_the_sentences_are_true_of_the_stored_outputs(framework):
    stored = json.loads((DOCS / "outputs" / f"conventions-{framework}.json").read_text("utf-8"))
    blocks, labels = stored["blocks"], WITHOUT_A_FRAMEWORK
    if framework in FRAMEWORKS:
        _, *blocks = blocks  # the first only imports
        labels = [each for each in ENTRIES if each in SAID and each not in WITHOUT_A_FRAMEWORK]
    for label, block in zip(labels, blocks, strict=True):
        text = "\n".join(output["text"] for output in block["outputs"])
        pattern = SAID.get(f"{label}, {framework}", SAID[label])
        assert re.search(pattern, text), (label, text)


def test_the_measured_table_is_that_of_the_stored_answers():
    tables = run_path(str(DOCS / "results" / "scripts" / "tables.py"))
    assert tables["conventions"]() in PAGE


# MXNet's nd.array asks whether its argument is one of SciPy's sparse matrices
@pytest.mark.filterwarnings("ignore:Please import .csr_matrix.:DeprecationWarning")
@pytest.mark.backend
def test_this_framework_does_what_the_page_says(backend):
    """In a release that does something else, the page and ``conventions.json`` need an update."""
    framework = import_module(f"densenet_multi.comparison.probes.{backend.NAME}")
    stored = json.loads((DOCS / "results" / "data" / "conventions.json").read_text("utf-8"))
    answers = {name: probe.answer(framework) for name, probe in PROBES.items()}
    assert answers == stored["backends"][backend.NAME]["answers"]
