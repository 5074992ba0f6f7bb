"""Profile one step on the CPU: milliseconds spent in each kind of operation.

In docs/results/data:

    python ../scripts/profiles.py torch > profile-torch.json
    python ../scripts/profiles.py torch inference 1 > profile-torch-1.json
    python ../scripts/profiles.py gluon > profile-gluon.json
    python ../scripts/profiles.py gluon inference 1 > profile-gluon-1.json
    python ../scripts/profiles.py gluon training > profile-gluon-training.json

The network is densenet121, with 8 images of 224x224; the last argument sets another number of
images. The cases take turns, each under the framework's own profiler. For PyTorch, the cases are
``optimize`` in float32 and in bfloat16; for Gluon, this package's network and the zoo's.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# Run one operation at a time; otherwise MXNet counts a segment of many operations as one.
os.environ |= {"MXNET_EXEC_BULK_EXEC_TRAIN": "0", "MXNET_EXEC_BULK_EXEC_INFERENCE": "0"}
os.environ |= {"MXNET_CPU_WORKER_NTHREADS": "1"}

import numpy as np

import densenet_multi as dm
from densenet_multi.data import Pixels, Preparation, load_sample

ROUNDS = 7


def with_torch(step: Callable[[], Any]) -> dict[str, float]:
    """Run one step in PyTorch; return the milliseconds of each kind of operation."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return {e.key: e.self_cpu_time_total / 1e3 for e in found.key_averages()}


def with_gluon(step: Callable[[], Any]) -> dict[str, float]:
    """Run one step in MXNet; return the milliseconds of each kind of operation."""
    import mxnet as mx

    mx.profiler.dumps(reset=True)
    mx.profiler.set_state("run")
    step()
    mx.nd.waitall()
    mx.profiler.set_state("stop")
    found = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    waits = {"WaitForVar", "DeleteVariable"}  # they wait for the other operations
    return {name: entry["Total"] for name, entry in found.items() if name not in waits}


def cases(name: str, work: str, count: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Return the compared cases as functions that return the milliseconds of each operation."""
    b: Any = dm.load_backend(name)
    model = b.build(dm.get_spec("densenet121"))
    x = np.random.default_rng(0).random((count, 3, 224, 224), np.float32)
    if name == "torch":
        narrow = b.optimize(model, bfloat16=True)
        ours = b.optimize(model)
        return {
            "float32": lambda: with_torch(partial(b.predict, ours, x)),
            "bfloat16": lambda: with_torch(partial(b.predict, narrow, x)),
        }
    import mxnet as mx

    from densenet_multi.comparison.rivals import gluon as rival

    # MXNet writes its profile to this file at exit; nothing reads it
    unread = str(Path(tempfile.mkdtemp()) / "profile.json")
    mx.profiler.set_config(profile_all=True, aggregate_stats=True, filename=unread)
    net = rival.framework_network("densenet121", 224)
    if work == "inference":
        ours = b.optimize(model)
        return {
            "ours": lambda: with_gluon(partial(b.predict, ours, x)),
            "zoo": lambda: with_gluon(partial(rival.logits, net, x)),
        }
    pixels, labels = load_sample("train")
    pixels, labels = pixels[:count, np.newaxis], labels[:count]
    data = Pixels(pixels, labels, Preparation(224, 3))
    recipe = dm.Recipe(epochs=1, batch_size=count)
    batch = data.take(np.arange(count)), labels.astype(np.int64)

    def fit() -> None:
        b.fit(model, data, recipe)

    return {
        "ours": lambda: with_gluon(fit),
        "zoo": lambda: with_gluon(partial(rival.train, net, [batch], 0.1, rival.finish)),
    }


def main(name: str, work: str = "inference", count: str = "8") -> None:
    """Print the medians of all rounds as JSON."""
    compared = cases(name, work, int(count))
    found: dict[str, list[dict[str, float]]] = {case: [] for case in compared}
    for number in range(ROUNDS + 1):
        for case, profiled in compared.items():
            times = profiled()
            if number:  # the first round compiles
                found[case].append(times)
    result = {
        case: {
            operation: round(median(times.get(operation, 0) for times in rounds), 2)
            for operation in rounds[0]
        }
        for case, rounds in found.items()
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
