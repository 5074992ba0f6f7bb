"""Name what a port does differently in a training step: what evaluation cannot show.

A step of stochastic gradient descent changes a network in three ways, each judged alone: the loss,
the running statistics and the weights. Everything that a port may do differently there is a number
or a choice, so it is computed from the step instead of searched for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import ConfigError, listed, number, one_of
from .._inputs import check_images, check_labels
from ..checkpoint import ESTIMATORS
from ..reference import cross_entropy, forward
from ..spec import DenseNetSpec, check_spec
from ..weights import check_weights
from .diagnose import Diagnosis, Finding
from .network import INPUT, OUTPUT, Array

STATISTICS = ("running_mean", "running_var")
TOLERANCES = {  # relative to the size of the right change
    "float32": {"loss": 1e-5, "statistics": 1e-3, "weights": 1e-2},
    # MXNet rounds BatchNorm's decay to float32
    "float64": {"loss": 1e-11, "statistics": 1e-6, "weights": 1e-7},
}
DECAYS = {0.99: "Keras and Flax, by default", 0.9: "PyTorch and Gluon, by default", 0.999: ""}
CHANGES = {"loss": "loss", "statistics": "change of the statistics", "weights": "change of weights"}
KINDS = ("kernels", "BatchNorms", "biases")
DECAYED = {  # which weights a port decays -> in words, and the kinds
    "all": ("every weight", KINDS),
    "kernels": ("kernels and linear weights only", KINDS[:1]),
    "without-biases": ("every weight except biases", KINDS[:2]),
    "without-norms": ("every weight except BatchNorms", KINDS[::2]),
    "none": ("no weight", ()),
}
RULES: dict[str, tuple[str, Mapping[str, str]]] = {
    "loss_sum": (
        "The loss of a batch is the mean over its examples.",
        {
            "torch": 'nn.CrossEntropyLoss(reduction="mean")',
            "keras": 'SparseCategoricalCrossentropy(from_logits=True), without reduction="sum"',
            "gluon": "loss.mean().backward() with trainer.step(1), or trainer.step(batch_size)",
            "flax": "optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()",
        },
    ),
    "bn_momentum": (
        "A running statistic keeps {decay:g} of its old value, and takes {rest:g} from the batch.",
        {
            "torch": "nn.BatchNorm2d(channels, momentum={rest:g})",
            "keras": "BatchNormalization(momentum={decay:g})",
            "gluon": "nn.BatchNorm(momentum={decay:g})",
            "flax": "nnx.BatchNorm(channels, momentum={decay:g})",
        },
    ),
    "running_variance": (
        "PyTorch keeps a batch's unbiased variance (divided by n - 1), the others the biased one.",
        {"": "multiply a batch's variance by n / (n - 1), or do not, as the weights' file states"},
    ),
    "statistics_twice": (
        "A step updates the running statistics once.",
        {"": "run the network once per step; recomputation (checkpointing) must not update again"},
    ),
    "statistics_frozen": (
        "In training, BatchNorm normalizes with the batch, and updates the running statistics.",
        {
            "torch": "model.train()",
            "keras": "model(x, training=True), and layer.trainable = True",
            "gluon": "call the model inside of autograd.record()",
            "flax": "model.train()",
        },
    ),
    "weight_decay": (
        "Weight decay adds weight_decay * w to the gradient of these weights w: {decayed}.",
        {"": "check which weights the optimizer decays; torch's decays all, many recipes do not"},
    ),
    "learning_rate": (
        "A step subtracts the learning rate times the gradient.",
        {"": "check the rate, Nesterov's momentum, gradient clipping, and a scaled loss"},
    ),
    "update_missing": (
        "A step updates every weight.",
        {"": "check that the optimizer holds these weights, and that they are not frozen"},
    ),
}


FROZEN = "normalizes with the running statistics in training"
UPDATED = {
    "torch": "F.batch_norm(x, mean, variance, ...) with the running statistics, not with copies",
    "keras": "assign the new moving statistics, or use layers.BatchNormalization",
    "gluon": "call the model inside of autograd.record(), and then backward()",
    "flax": "nnx.update(model, state) with the state that the step returns",
}


@dataclass(frozen=True)
class Step:
    """A step of stochastic gradient descent without momentum, and what it should be.

    Attributes:
        images: the batch (N, C, H, W), normalized.
        labels: its classes, integers (N,).
        weights: all tensors after the step, {canonical name: array}.
        gradients: what the gradients of the mean cross entropy are: {canonical name: array}.
        learning_rate: of the step.
        weight_decay: of the step.
        loss: what the port reported; None if it did not.
        variance: how the running variance is estimated: "biased", "unbiased" or None, either.
        decayed: which weights are decayed: a key of ``DECAYED``.
        dtype: in which the port computed.
    """

    images: Any
    labels: Any
    weights: Mapping[str, npt.NDArray[Any]]
    gradients: Mapping[str, npt.NDArray[Any]]
    learning_rate: float
    weight_decay: float = 0.0
    loss: float | None = None
    variance: str | None = None
    decayed: str = "all"
    dtype: str = "float32"


def diagnose_step(
    spec: DenseNetSpec, weights: Mapping[str, npt.NDArray[Any]], step: Step
) -> Diagnosis:
    """Name what a port does differently in a training step that starts from ``weights``.

    Raises ``ConfigError``, ``ImageError`` or ``WeightsError``.
    """
    one_of("dtype", step.dtype, tuple(TOLERANCES))
    one_of("decayed", step.decayed, tuple(DECAYED))
    if step.variance is not None:
        one_of("variance", step.variance, ESTIMATORS)
    number("learning_rate", step.learning_rate)
    number("weight_decay", step.weight_decay)
    before = check_weights(check_spec(spec), weights)
    after = check_weights(spec, step.weights)
    if missing := [name for name in before if _is_trained(name) and name not in step.gradients]:
        raise ConfigError(f"gradients: expected one for every weight, found none of {missing[0]}")
    return _Comparison(spec, _exact(before), _exact(after), step).diagnosis()


def _exact(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _is_trained(name: str) -> bool:
    return not name.endswith(STATISTICS)


def _kind(name: str, array: Array) -> str:
    if array.ndim > 1:
        return "kernels"
    return "BatchNorms" if "norm" in name.rpartition(".")[0].rpartition(".")[2] else "biases"


def _stage_of(name: str) -> str:
    """Return the stage of a tensor."""
    part = name.removeprefix("features.").split(".")[0]
    return {"conv0": "stem", "norm0": "stem", "classifier": OUTPUT}.get(part, part)


def _norm(arrays: Sequence[Array]) -> float:
    return float(np.sqrt(sum(float(np.sum(array**2)) for array in arrays)))


def _times(arrays: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return how many times as large as expected some arrays are, as well as one number can say."""
    size = sum(float(np.sum(expected[name] ** 2)) for name in arrays)
    along = sum(float(np.sum(array * expected[name])) for name, array in arrays.items())
    return along / size if size else 1.0


@dataclass
class _Comparison:
    """What a step did, beside what it should do.

    Attributes:
        findings: what was found so far.
        notes: what this step could not show.
        judged: every deviation so far, and of what: a key of ``CHANGES``.
    """

    spec: DenseNetSpec
    old: dict[str, Array]
    new: dict[str, Array]
    step: Step
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judged: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, "weights")])

    def diagnosis(self) -> Diagnosis:
        step = self.step
        images = np.asarray(check_images(self.spec, step.images), np.float64)
        labels: Any = check_labels(step.labels, len(images), self.spec.config.num_classes)
        tolerances = TOLERANCES[step.dtype]
        why = self.loss(images, labels, tolerances["loss"])
        if why is None and not self.frozen:
            why = self.statistics(images, tolerances["statistics"])
            why = why or self.update(len(images), tolerances["weights"])
        size = f"{images.shape[2]}x{images.shape[3]}"
        asked = (f"one step on {len(images)} images of {size}, {step.dtype}",)
        largest, what = max(self.judged, key=lambda each: each[0] / tolerances[each[1]])
        return Diagnosis(
            largest,
            tolerances[what],
            tuple(self.findings),
            why,
            asked,
            tuple(self.notes),
            f"the right {CHANGES[what]}",
        )

    @property
    def frozen(self) -> bool:
        """Whether the port trained with the running statistics: then nothing else can be judged."""
        return any(each.convention == "statistics_frozen" for each in self.findings)

    def found(
        self,
        convention: str,
        stage: str,
        text: str,
        before: float,
        after: float,
        *,
        remedy: Mapping[str, str] | None = None,
    ) -> None:
        decay = self.spec.config.bn_decay
        decayed, _ = DECAYED[self.step.decayed]
        values = {"decay": decay, "rest": round(1 - decay, 12), "decayed": decayed}
        rule, usual = RULES[convention]
        lines = {name: line.format(**values) for name, line in (remedy or usual).items()}
        what = f"the port {text}. {rule.format(**values)}"
        self.findings.append(Finding(convention, stage, what, before, after, lines))

    # --- Loss -----------------------------------------------------------------------------------

    def loss(self, images: Array, labels: Any, tolerance: float) -> str | None:
        """Judge the loss; return why it is not explained, or None."""
        found = self.step.loss
        if found is None:
            self.notes.append("the loss, which was not given")
            return None
        own: float = cross_entropy(
            forward(self.spec, self.old, images, training=True).logits, labels
        )
        evaluated = cross_entropy(forward(self.spec, self.old, images).logits, labels)
        before = abs(found - own) / own
        self.judged.append((before, "loss"))
        if before <= tolerance:
            return None
        count = len(images)
        for convention, stage, value, text in (
            ("loss_sum", OUTPUT, own * count, f"sums the loss over the {count} examples"),
            ("statistics_frozen", "stem", evaluated, FROZEN),
        ):
            after = abs(found - value) / value
            if after <= tolerance:
                self.found(convention, stage, text, before, after)
                return None
        return (
            f"the loss is {found:.6g} instead of {own:.6g}: compare the logits without a step "
            "first, and then the labels"
        )

    # --- Running statistics ---------------------------------------------------------------------

    def statistics(self, images: Array, tolerance: float) -> str | None:
        """Judge the running statistics; return why they are not explained, or None."""
        names = [name for name in self.old if not _is_trained(name)]
        decay = self.spec.config.bn_decay
        if not names or decay == 1:
            return None
        batch = {
            each: {
                name: (array - decay * self.old[name]) / (1 - decay)
                for name, array in forward(
                    self.spec, self.old, images, training=True, variance=each
                ).statistics.items()
            }
            for each in ESTIMATORS
        }
        estimators = [self.step.variance] if self.step.variance else list(ESTIMATORS)
        right = {each: self._kept(decay, batch[each]) for each in estimators}
        deviations = {each: self._apart(right[each], right[each]) for each in estimators}
        expected = min(estimators, key=lambda each: deviations[each])
        before = deviations[expected]
        self.judged.append((before, "statistics"))
        if before <= tolerance:
            self._say_estimator(expected, deviations)
            return None
        own = right[expected]
        changed = [name for name in names if self._apart(own, own, [name]) > tolerance]
        for kept, estimator in product(self._decays(decay, batch["biased"], changed), ESTIMATORS):
            other = self._kept(kept, batch[estimator])
            after = self._apart(own | {name: other[name] for name in changed}, own)
            if after <= tolerance:
                self._name(kept, estimator, expected, changed, (before, after))
                return None
        stages = list(dict.fromkeys(map(_stage_of, changed)))
        return (
            f"the running statistics of {listed(stages)} are not what any known way to update them "
            f"gives (deviation {before:.1e}); check the momentum of each BatchNorm"
        )

    def _kept(self, decay: float, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {name: decay * self.old[name] + (1 - decay) * batch[name] for name in batch}

    def _apart(
        self,
        expected: Mapping[str, Array],
        right: Mapping[str, Array],
        names: Sequence[str] | None = None,
    ) -> float:
        """Return how far the port's statistics are, relative to how far the right ones move."""
        values = []
        for leaf in STATISTICS:
            chosen = [name for name in (names or expected) if name.endswith(leaf)]
            moved = _norm([right[name] - self.old[name] for name in chosen])
            apart = _norm([self.new[name] - expected[name] for name in chosen])
            if chosen and moved:
                values.append(apart / moved)
        return max(values, default=0.0)

    def _decays(
        self, decay: float, batch: Mapping[str, Array], changed: Sequence[str]
    ) -> Iterator[float]:
        """Yield the shares of the old value that a port may keep: the likely ones, then its own."""
        yield from (decay, 1 - decay, decay**2, 1.0, *DECAYS)
        means = [name for name in changed if name.endswith("running_mean")]
        away = np.concatenate([batch[name] - self.old[name] for name in means] or [np.zeros(1)])
        moved = np.concatenate([self.new[n] - self.old[n] for n in means] or [np.zeros(1)])
        if away.any():
            yield round(1 - float(moved @ away / (away @ away)), 6)

    def _name(
        self,
        kept: float,
        estimator: str,
        expected: str,
        changed: Sequence[str],
        deviations: tuple[float, float],
    ) -> None:
        decay = self.spec.config.bn_decay
        stages = list(dict.fromkeys(map(_stage_of, changed)))
        everywhere = len(changed) == sum(not _is_trained(name) for name in self.old)
        where = "" if everywhere or kept == decay else f" in {listed(stages)}"
        texts = {
            1 - decay: ("bn_momentum", "exchanges what is kept and what is taken from the batch"),
            decay**2: ("statistics_twice", "updates the running statistics twice"),
            1.0: ("statistics_frozen", "normalizes with the batch, but keeps the old statistics"),
        }
        if kept != decay:
            who = f" (as in {DECAYS[kept]})" if DECAYS.get(kept) else ""
            usual = ("bn_momentum", f"keeps {kept:g} of a running statistic's old value{who}")
            convention, text = texts.get(kept, usual)
            remedy = UPDATED if kept == 1 else None
            self.found(convention, stages[0], text + where, *deviations, remedy=remedy)
        if estimator != expected and kept != 1:
            text = f"keeps the {estimator} variance of a batch, where {expected} was expected"
            self.found("running_variance", stages[0], text, *deviations)

    def _say_estimator(self, used: str, deviations: Mapping[str, float]) -> None:
        if len(deviations) > 1 and max(deviations.values()) > 2 * min(deviations.values()):
            self.notes.append(
                "whether the running variance should be biased or unbiased, which the weights' "
                f"file does not state; the port's is {used}"
            )

    # --- Weights --------------------------------------------------------------------------------

    def update(self, count: int, tolerance: float) -> str | None:
        """Judge the weights; return why they are not explained, or None."""
        names = [name for name in self.old if _is_trained(name)]
        right = self._update(self.step.decayed)
        before = self._off(right, right, names)
        self.judged.append((before, "weights"))
        if before <= tolerance:
            self._say_hidden(right, tolerance)
            return None
        still = [n for n in names if np.array_equal(self.new[n], self.old[n]) and right[n].any()]
        if len(still) == len(names):
            self.found("update_missing", INPUT, "changes no weight", before, 0.0)
            return None
        moved = [name for name in names if name not in still]
        for decayed in self._schemes():
            for sizes in self._sizes(decayed, moved, count):
                after = self._off(self._update(decayed, *sizes), right, moved)
                if after <= tolerance:
                    self._name_update(decayed, sizes, still, count, (before, after))
                    return None
        apart = {name: _norm([self.new[name] - self.old[name] - right[name]]) for name in names}
        worst = max(apart, key=lambda name: apart[name])
        return (
            f"the weights after the step are not what any known rule gives: deviation {before:.1e} "
            f"of the right step, most in {worst}; check momentum, clipping and rates of single "
            "weights in the optimizer"
        )

    def _schemes(self) -> list[str]:
        others = [name for name in DECAYED if name != self.step.decayed]
        return [self.step.decayed, *(others if self.step.weight_decay else [])]

    def _sizes(
        self, decayed: str, names: Sequence[str], count: int
    ) -> Iterator[tuple[float, float]]:
        """Yield how many times as large as told the step and its gradient may be.

        The likely sizes come first, then those that fit best.
        """
        yield from ((1.0, 1.0), (1.0, float(count)))
        moved = {name: self.new[name] - self.old[name] for name in names}
        yield _times(moved, self._update(decayed)), 1.0
        decay = self._update(decayed, 1.0, 0.0)
        rest = {name: moved[name] - decay[name] for name in names}
        yield 1.0, _times(rest, self._update("none"))

    def _update(self, decayed: str, size: float = 1.0, gradient: float = 1.0) -> dict[str, Array]:
        """Return the change of every weight by a step, if it and its gradient have these sizes."""
        (_, kinds), rate = DECAYED[decayed], self.step.learning_rate * size
        found = {}
        for name, old in self.old.items():
            if _is_trained(name):
                slope = gradient * np.asarray(self.step.gradients[name], np.float64)
                if _kind(name, old) in kinds:
                    slope = slope + self.step.weight_decay * old
                found[name] = -rate * slope
        return found

    def _off(
        self, update: Mapping[str, Array], right: Mapping[str, Array], names: Sequence[str]
    ) -> float:
        """Return how far the port's update is, relative to the right one, in the worst kind.

        What rounding the weights in the port's precision may change is subtracted.
        """
        epsilon = float(np.finfo(self.step.dtype).eps)
        values = []
        for kind in KINDS:
            chosen = [name for name in names if _kind(name, self.old[name]) == kind]
            apart = _norm([self.new[n] - self.old[n] - update[n] for n in chosen])
            rounding = epsilon * _norm([self.old[n] for n in chosen])
            moved = _norm([right[n] for n in chosen])
            if chosen and moved:
                values.append(max(0.0, apart - rounding) / moved)
        return max(values, default=0.0)

    def _name_update(
        self,
        decayed: str,
        sizes: tuple[float, float],
        still: Sequence[str],
        count: int,
        deviations: tuple[float, float],
    ) -> None:
        size, gradient = sizes
        if still:
            text = f"does not change {listed(still)}"
            self.found("update_missing", _stage_of(still[0]), text, *deviations)
        if size != 1:
            text = f"takes a step that is {size:.4g} times as large as the right one"
            self.found("learning_rate", OUTPUT, text, *deviations)
        if gradient == count and not any(f.convention == "loss_sum" for f in self.findings):
            text = f"takes the gradient of the sum over the {count} examples"
            self.found("loss_sum", OUTPUT, text, *deviations)
        elif gradient not in (1.0, count):
            text = f"takes a gradient that is {gradient:.4g} times as large as the right one"
            self.found("learning_rate", OUTPUT, text, *deviations)
        if decayed != self.step.decayed:
            self.found("weight_decay", INPUT, f"decays {DECAYED[decayed][0]}", *deviations)

    def _say_hidden(self, right: Mapping[str, Array], tolerance: float) -> None:
        if not self.step.weight_decay:
            self.notes.append("weight decay, which is 0 in this step")
            return
        for decayed in self._schemes()[1:]:
            other = self._update(decayed)
            if max(self._share(other, right, kind) for kind in KINDS) <= tolerance:
                what = DECAYED[decayed][0]
                self.notes.append(f"whether {what} is decayed: the difference is rounding here")

    def _share(self, other: Mapping[str, Array], right: Mapping[str, Array], kind: str) -> float:
        names = [name for name in right if _kind(name, self.old[name]) == kind]
        moved = _norm([right[name] for name in names])
        return _norm([other[name] - right[name] for name in names]) / moved if moved else 0.0
