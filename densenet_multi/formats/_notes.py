"""Notes for the user: what a file does not store, and what a written file stores differently."""

from __future__ import annotations

from ..checkpoint import MAY_BE_ASSUMED, Checkpoint
from .recognize import implied_usage

ASSUMED = "no tensor shows its settings; assumed: "  # the start of the note by ``assumed``
FEATURES = (  # the end of a note on a head that no network of this package has
    "only its body was read, which computes features; for a new classifier: "
    "convert('SOURCE', 'NEW.safetensors', num_classes=N)"
)


def assumed(epsilon: float, decay: float, more: str = "average pooling") -> str:
    """Return the note on assumed settings, for a file that stores only weights.

    Arguments:
        epsilon: of BatchNorm.
        decay: of BatchNorm.
        more: other assumptions, in words; they must include the pooling.
    """
    return (
        f"{ASSUMED}an epsilon of {epsilon:g}, a decay of {decay:g}, "
        f"{more} (in Python, formats.read(PATH, bn_eps=NUMBER) overrides them)"
    )


def differences(
    checkpoint: Checkpoint,
    models: str,
    conventions: tuple[float, float],
    framework: str,
    variance: str,
    *,
    where: str = "",
) -> list[str]:
    """Return a note for each convention in which a format's models differ from these weights.

    Arguments:
        checkpoint: the weights.
        models: the format's models, in words.
        conventions: their epsilon and decay.
        framework: the possessive form of their framework's name, such as "Keras'".
        variance: how the framework estimates running variances, ``"biased"`` or ``"unbiased"``.
        where: the end of the note on variances.
    """
    epsilon, decay = conventions
    config = checkpoint.spec.config
    notes = []
    if config.bn_eps != epsilon:
        notes.append(f"{models} have an epsilon of {epsilon:g}, these weights {config.bn_eps:g}")
    if config.bn_decay != decay:
        notes.append(f"{models} have a decay of {decay:g}, these weights {config.bn_decay:g}")
    if checkpoint.usage.running_variance not in (None, variance):
        given = checkpoint.usage.running_variance
        notes.append(f"the running variances are {given}; {framework} own are {variance}{where}")
    return notes


def unstored(checkpoint: Checkpoint) -> list[str]:
    """Return the note on usage and settings that only a portable file stores; [] if none."""
    config = checkpoint.spec.config
    implied, activation = implied_usage(config), checkpoint.usage.activation
    lost = [
        field.replace("_", " ")
        for field in MAY_BE_ASSUMED
        if getattr(checkpoint.usage, field) not in (None, getattr(implied, field))
    ]
    usual = "softmax" if config.num_classes > 1 else "sigmoid"
    if activation not in (None, usual):  # the usual one is what ``predict`` assumes
        lost.append("activation")
    pools = ("transition_pool", "global_pool")
    lost += [pool.replace("_", " ") for pool in pools if getattr(config, pool) != "avg"]
    if config.drop_rate:
        lost.append("drop rate")
    return [f"only a portable file can store the weights' {', '.join(lost)}"] if lost else []
