"""Draw the heatmaps of the page on training, by the code and the commands of that page.

In docs/results/data, with PyTorch (about a minute on two cores):

    python ../scripts/heatmaps.py

Tests compare the pictures and the page with the values, heatmaps.json.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from shutil import copyfile
from typing import Any

from densenet_multi.backends import framework_versions
from densenet_multi.comparison.machine import cpus, processor

HERE = Path(__file__).resolve().parents[1] / "data"
PAGE = HERE.parents[1] / "training.md"
PROGRAM = [sys.executable, "-P", "-m", "densenet_multi"]


def fences(language: str) -> list[str]:
    """Return the code of the page's fences in this language."""
    text = PAGE.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def fence(part: str) -> str:
    """Return the page's only Python fence that contains this text."""
    (found,) = (code for code in fences(r"(?:python|{run} python)") if part in code)
    return found


def commands() -> list[list[str]]:
    """Return the words of the page's commands on its photos, in order, without the program's."""
    lines = "".join(fences(r"(?:sh|{run} shell torch)")).replace("\\\n", "").splitlines()
    found = [shlex.split(line)[1:] for line in lines if line.startswith("densenet-multi")]
    return [words for words in found if "photos" in words or "--heatmap" in words]


def output_of(words: list[str]) -> str:
    """Run a command of ``densenet-multi``; return what it prints."""
    done = subprocess.run(PROGRAM + words, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return done.stdout


def main() -> None:
    """Train, evaluate and draw; write the pictures, what the command prints, and the values."""
    train, evaluate, *drawing = commands()
    as_json = ["--format", "json"]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for part in ("Image.fromarray(", "scene.paste("):
            exec(fence(part), {})  # noqa: S102  # the page's own code
        output_of(train)
        tested = json.loads(output_of(evaluate + as_json))
        report: dict[str, Any] = {
            "commands": [shlex.join(["densenet-multi", *words]) for words in commands()],
            "processor": processor(),
            "threads": len(cpus(None)),
            "versions": framework_versions("torch"),
            "evaluated": {key: tested[key] for key in ("examples", "accuracy")},
            "predicted": {},
        }
        for words in drawing:
            text = output_of(words)
            (found,) = json.loads(output_of(words + as_json))
            report["predicted"][found["heatmap"]["class"]] = found
            picture = Path(found["heatmap"]["file"])
            copyfile(picture, HERE / picture.name)
            (HERE / picture.name).with_suffix(".txt").write_text(text, encoding="utf-8")
    (HERE / "heatmaps.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
