"""Train the chapter's network on the packaged sample, at a constant and a falling learning rate.

In docs/results/data, for each backend:

    python ../scripts/sample_curves.py torch > sample-curves-torch.json

The images have 32x32 pixels. ``chapter.py`` draws the curves of the four files.
"""

import json
import sys
from dataclasses import asdict
from importlib.metadata import version

import densenet_multi as dm
from densenet_multi.data import FashionMNIST, load_sample

SCHEDULES = ("constant", "linear")
EPOCHS, BATCH_SIZE, LEARNING_RATE, IMAGE_SIZE = 8, 50, 0.1, 32
DISTRIBUTIONS = {
    "torch": ("torch",),
    "keras": ("keras", "tensorflow"),
    "gluon": ("mxnet",),
    "flax": ("flax", "jax"),
}


def main(name: str) -> None:
    """Train in one backend, once for each schedule, and print the epochs as JSON."""
    b = dm.load_backend(name)
    train, test = (FashionMNIST(*load_sample(split), IMAGE_SIZE) for split in ("train", "test"))
    epochs = {}
    for schedule in SCHEDULES:
        recipe = dm.Recipe(
            image_size=IMAGE_SIZE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            schedule=schedule,
        )
        model = b.build(dm.get_spec("d2l"), seed=0)
        history = b.fit(model, train, recipe, validation=test)
        epochs[schedule] = [asdict(epoch) for epoch in history.epochs]
        print(f"{name} {schedule}: {epochs[schedule][-1]}", file=sys.stderr)
    result = {
        "backend": name,
        "framework": b.FRAMEWORK,
        "versions": {found: version(found) for found in DISTRIBUTIONS[name]},
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "image_size": IMAGE_SIZE,
        "epochs": epochs,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
