"""Choose the sample of Fashion-MNIST that this package includes.

    python -m densenet_multi.data.make_sample FROM TO

FROM is the folder of the official files, such as /usr/share/datasets/fashion-mnist; TO is the
folder of the sample, densenet_multi/data/sample.

The official examples are shuffled with a fixed seed, and the first 100 of each class are kept, in
shuffled order. Every run writes the same four files. Another build of zlib (zlib-ng, for example)
may compress to different bytes: compare the decompressed content.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fashion_mnist import CLASSES, FILES, load_directory
from .idx import write_idx
from .order import epoch_order

SEED = 2017  # the year of the data set
PER_CLASS = 100


def choose(labels: NDArray[Any], order: NDArray[np.int64], per_class: int) -> NDArray[np.int64]:
    """Walk through ``order`` and keep the first ``per_class`` indices of each class.

    Raises ``ValueError`` if a class has fewer than ``per_class`` examples.

    Arguments:
        labels: integers of shape (N,), from 0 to 9.
        order: a permutation of 0 … N-1.
        per_class: the number of examples to keep of each class.

    Returns:
        Indices of shape (10 * per_class,), in the order of ``order``.
    """
    kept = [order[labels[order] == label][:per_class] for label in range(len(CLASSES))]
    for label, indices in enumerate(kept):
        if len(indices) < per_class:
            raise ValueError(
                f"class {label} ({CLASSES[label]}): expected at least {per_class} examples, "
                f"found {len(indices)}"
            )
    return order[np.isin(order, np.concatenate(kept))]


def make_sample(data_dir: Path, output: Path) -> list[Path]:
    """Write the four files of the sample.

    Raises ``ValueError`` and ``OSError`` as ``load_directory`` and ``choose`` do; ``OSError`` if a
    file cannot be written.

    Arguments:
        data_dir: the folder of the official files.
        output: the folder to write to; created if missing.

    Returns:
        The paths of the written files.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for stream, (split, names) in enumerate(FILES.items()):
        examples = load_directory(data_dir, split)
        labels = examples[1]
        chosen = choose(labels, epoch_order(len(labels), SEED, stream), PER_CLASS)
        for name, array in zip(names, examples, strict=True):
            path = output / f"{name}.gz"
            write_idx(path, array[chosen])
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit codes: 0 success, 2 wrong usage, 4 data cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m densenet_multi.data.make_sample",
        description="Choose the sample of Fashion-MNIST that this package includes.",
    )
    parser.add_argument(
        "data_dir", metavar="FROM", type=Path, help="the folder of the four official files"
    )
    parser.add_argument("output", metavar="TO", type=Path, help="the folder to write to")
    options = parser.parse_args(arguments)
    try:
        written = make_sample(options.data_dir, options.output)
    except (OSError, ValueError) as error:
        print(f"make_sample: {error}", file=sys.stderr)
        return 4
    for path in written:
        print(f"{path.stat().st_size:>9,}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
