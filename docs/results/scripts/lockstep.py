"""Measure in PyTorch why float32 runs diverge, for the page on lockstep.

In docs/results/data, a minute on two cores:

    python ../scripts/lockstep.py > lockstep-torch.json

``tables.py`` makes the page's tables of it. ``step`` compares the first step of `densenet-multi
lockstep --steps 20` with the same step after a small change; ``threads`` has the losses of one
float32 run with one thread and with two.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import densenet_multi as dm
import densenet_multi.torch as dt
from densenet_multi.backends import framework_versions
from densenet_multi.comparison.machine import processor
from densenet_multi.data import FashionMNIST, epoch_order, load_sample

IMAGE_SIZE, BATCH_SIZE, STEPS, FEW = 96, 32, 20, 6
CHANGES = (1e-7, 3e-7, 1e-6, 1e-5)  # relative, of all weights
STEM = ("features.conv0", "features.norm0")  # before the max pool
Array = npt.NDArray[Any]


class Step:
    """A step of training: loss, gradients, the signs of all ReLU inputs, the max pool's choices."""

    def __init__(self, weights: dict[str, Array], images: Array, labels: Array, dtype: str) -> None:
        self.signs: list[torch.Tensor] = []
        model = dt.build(dm.get_spec("d2l"), dtype=dtype)
        dt.import_weights(model, {name: array.astype(dtype) for name, array in weights.items()})
        model.features.pool0.register_forward_pre_hook(self._pooled)
        with Signs(self.signs):
            self.loss, self.gradients = dt.loss_and_gradients(model, images.astype(dtype), labels)

    def _pooled(self, pool: torch.nn.MaxPool2d, inputs: tuple[torch.Tensor]) -> None:
        sizes = (pool.kernel_size, pool.stride, pool.padding)
        _, self.chosen = torch.nn.functional.max_pool2d(*inputs, *sizes, return_indices=True)

    def compared(self, other: "Step") -> dict[str, float]:
        """Return how far this step is from another, relative to the other."""
        # a BatchNorm follows each convolution: the true gradient of its bias is 0
        names = [n for n in other.gradients if "conv" not in n or not n.endswith(".bias")]
        norm = np.sqrt(sum((other.gradients[n] ** 2).sum() for n in names))
        squares = {
            n: ((self.gradients[n].astype(float) - other.gradients[n]) ** 2).sum() for n in names
        }
        beyond = [square for n, square in squares.items() if not n.startswith(STEM)]
        flips = (int((a != b).sum()) for a, b in zip(self.signs, other.signs, strict=True))
        return {
            "loss": abs(self.loss - other.loss) / abs(other.loss),
            "gradients": float(np.sqrt(sum(squares.values())) / norm),
            "gradients_after_max_pool": float(np.sqrt(sum(beyond)) / norm),
            "flips": sum(flips),
            "windows": int((self.chosen != other.chosen).sum()),
        }


class Signs(torch.overrides.TorchFunctionMode):
    """Inside the ``with`` block, keep which inputs of each ReLU are positive."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
        """Call the function; note its input if it is a ReLU."""
        if function is torch.nn.functional.relu:
            self.kept.append(args[0].detach() > 0)
        return function(*args, **(kwargs or {}))


def first_step() -> dict[str, Any]:
    """Return what five changes do to the first step in float64."""
    weights = dm.init_weights(dm.get_spec("d2l"), 0)
    pixels, labels = (array[: STEPS * BATCH_SIZE] for array in load_sample("train"))
    chosen = epoch_order(len(labels), 0, 0)[:BATCH_SIZE]
    images = FashionMNIST(pixels, labels, IMAGE_SIZE).take(chosen)
    labels = labels[chosen].astype(np.int64)
    exact = Step(weights, images, labels, "float64")
    found = {}
    for change in CHANGES:
        rng = np.random.default_rng(0)
        near = {n: a * (1 + change * rng.standard_normal(a.shape)) for n, a in weights.items()}
        found[f"{change:.0e}"] = Step(near, images, labels, "float64").compared(exact)
    found["float32"] = Step(weights, images, labels, "float32").compared(exact)
    inputs = sum(signs.numel() for signs in exact.signs)
    return {"loss": exact.loss, "relu_inputs": inputs, "changed": found}


def losses(threads: int) -> list[float]:
    """Return the losses of a few float32 steps, computed with this many threads."""
    torch.set_num_threads(threads)
    pixels, labels = (array[: FEW * BATCH_SIZE] for array in load_sample("train"))
    model = dt.build(dm.get_spec("d2l"), seed=0)
    recipe = dm.Recipe(epochs=1, batch_size=BATCH_SIZE, learning_rate=0.1)
    history = dt.fit(model, FashionMNIST(pixels, labels, IMAGE_SIZE), recipe)
    return [step.loss for step in history.steps]


def main() -> None:
    """Measure, and print the result as JSON."""
    result = {
        "processor": processor(),
        "versions": framework_versions("torch"),
        "batch_size": BATCH_SIZE,
        "step": first_step(),
        "threads": {str(count): losses(count) for count in (1, 2)},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
