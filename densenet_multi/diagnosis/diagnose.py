"""Compare a port with the reference, and name the convention that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import integer, listed, one_of
from .._inputs import ImageError, check_images
from ..checkpoint import Usage
from ..manifest import min_image_size
from ..spec import DenseNetSpec, check_spec
from ..weights import check_weights
from .conventions import CONVENTIONS, ROUNDED, Pixels, Suspect, suspects
from .network import OUTPUT, Array, Network
from .port import Port, arranged
from .search import Evidence, Explanation, deviation, explanations

TOLERANCES = {"float32": 1e-5, "float64": 1e-11}
SIZES = (68, 65)  # 68: SAME pads its stem and pool otherwise, and its maps become odd
FALLBACKS = (224, 96, 64, 32)  # what a port of one size usually has
EXACT = 1e-14  # a deviation that float64 does not show either
BESIDES = 20  # how much larger a deviation may be that cannot be told from the best one
MOST = 3  # conventions that are broken at once

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Finding:
    """A broken convention.

    Attributes:
        convention: the identifier, a key of ``CONVENTIONS``.
        stage: where it bites first: a stage of ``shape_trace``, ``"input"`` or ``"output"``.
        text: what the port does, and what the weights expect.
        before: the deviation of the port from the reference, relative to the largest value.
        after: the deviation that remains if this, and all other findings, are imitated. NaN for
            randomness and half precision, whose deviations cannot be repeated exactly.
        remedy: {framework: what to write there}; ``""`` stands for any framework.
        or_else: texts of what cannot be told from this with the given evidence.
    """

    convention: str
    stage: str
    text: str
    before: float
    after: float
    remedy: Mapping[str, str]
    or_else: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What a port does differently.

    Attributes:
        deviation: of the port's outputs from the reference, relative to the largest value.
        tolerance: up to which a deviation is rounding.
        findings: the broken conventions, the best explained first; empty if nothing is wrong.
        unexplained: where no known convention explains the deviation, why; otherwise None.
        asked: what the port was asked, in words.
        notes: what this evidence could not show.
        unit: what the deviation is relative to.
    """

    deviation: float
    tolerance: float
    findings: tuple[Finding, ...] = ()
    unexplained: str | None = None
    asked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unit: str = "the largest logit"

    @property
    def same(self) -> bool:
        """Whether the port is the same function, as far as this evidence shows."""
        return not self.findings and self.unexplained is None


def diagnose(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[Any]],
    model: Callable[[Any], Any],
    *,
    usage: Usage | None = None,
    dtype: str = "float32",
    most: int = MOST,
    advance: Advance = lambda _: None,
) -> Diagnosis:
    """Ask a port for its outputs, and name the conventions that it breaks.

    Raises ``ImageError`` if the port cannot be asked, and ``ConfigError`` or ``WeightsError``.

    Arguments:
        spec: the network that the port should be.
        weights: its weights.
        model: a function from images to logits, NumPy arrays or tensors of any framework, in NCHW
            or NHWC. It may return a dictionary instead, with maps of stages and ``"output"``.
        usage: has the mean and std with which the images for ``model`` are normalized.
        dtype: of the images: "float32" or "float64".
        most: how many broken conventions to look for at once.
        advance: called with a line of text after every trial.

    >>> spec = dm.get_spec("d2l", block_config=(1, 1))
    >>> weights = dm.init_weights(spec)
    >>> port = lambda images: dm.reference.predict(spec, weights, images).clip(0)
    >>> dm.diagnose(spec, weights, port).same
    False
    """
    one_of("dtype", dtype, tuple(TOLERANCES))
    most = integer("most", most, 1)
    network = Network(check_spec(spec), check_weights(spec, weights))
    port = Port(spec, model, dtype)
    pixels = _pixels(spec, usage)
    first, found = _first_answer(port, pixels, usage)
    change = deviation(port(first)[OUTPUT], found[OUTPUT])
    if change > TOLERANCES[dtype]:
        return _random(change, TOLERANCES[dtype], port)
    asked, notes = [(first, found)], []
    size = first.shape[2]
    other = images(spec, pixels, SIZES[1] if size == SIZES[0] else size, 1)
    try:
        asked.append((other.astype(dtype).astype(np.float64), port(other)))
    except ImageError:
        port.calls.append(f"{len(other)} images of {other.shape[2]}x{other.shape[3]}: refused")
    if len({x.shape for x, _ in asked}) == 1:
        notes.append(f"what shows at other image sizes than {size}x{size}, which the port refuses")
    how: dict[str, Any] = {"pixels": pixels, "most": most, "advance": advance}
    dtype = _computed_in([found], dtype, notes)
    return _diagnosed(network, asked, dtype=dtype, calls=_once(port.calls), notes=notes, **how)


def diagnose_outputs(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[Any]],
    inputs: npt.ArrayLike,
    outputs: Mapping[str, Any],
    *,
    usage: Usage | None = None,
    most: int = MOST,
    advance: Advance = lambda _: None,
) -> Diagnosis:
    """Name the conventions that a port breaks, from images and what it returned for them.

    ``inputs`` are normalized images, NCHW or NHWC. ``outputs`` has ``"output"`` (or ``"logits"``)
    and possibly maps of stages. Otherwise as ``diagnose``.
    """
    most = integer("most", most, 1)
    network = Network(check_spec(spec), check_weights(spec, weights))
    x, layout = channels_first(spec, inputs)
    notes: list[str] = []
    dtype = "float64" if x.dtype == np.float64 and _is_exact(outputs) else "float32"
    x = check_images(spec, x).astype(np.float64)
    if len(x) and np.ptp(x) == 0:
        raise ImageError(
            f"inputs: expected images, found {x.flat[0]:g} in every pixel, where most mistakes do "
            "not show; use real images, or noise"
        )
    found = arranged(spec, outputs, layout, len(x), "outputs")
    dtype = _computed_in([found], dtype, notes)
    asked = f"{len(x)} images of {x.shape[2]}x{x.shape[3]}, {layout}, from a file"
    how: dict[str, Any] = {"pixels": _pixels(spec, usage), "most": most, "advance": advance}
    return _diagnosed(network, [(x, found)], dtype=dtype, calls=(asked,), notes=notes, **how)


def suspicion(
    spec: DenseNetSpec,
    weights: Mapping[str, npt.NDArray[Any]],
    inputs: npt.ArrayLike,
    logits: npt.ArrayLike,
) -> str:
    """Return what explains some logits: a broken convention, where, and a sentence; "" if nothing.

    For the messages of other commands: it looks for one broken convention, with two images.
    """
    x, found = np.asarray(inputs)[:2], np.asarray(logits)[:2]
    diagnosis = diagnose_outputs(spec, weights, x, {OUTPUT: found}, most=1)
    return "; ".join(f"{f.convention} in {f.stage}: {f.text}" for f in diagnosis.findings)


def _is_exact(outputs: Mapping[str, Any]) -> bool:
    return all(getattr(each, "dtype", None) == np.float64 for each in outputs.values())


def _computed_in(answers: Sequence[Mapping[str, Array]], dtype: str, notes: list[str]) -> str:
    """Return the precision of the answers: float32 if all are float32 numbers; add a note then."""
    arrays = [array for answer in answers for array in answer.values()]
    with np.errstate(over="ignore"):
        exact = all(np.array_equal(a.astype(np.float32), a, equal_nan=True) for a in arrays)
    if dtype == "float32" or not exact:
        return dtype
    notes.append("what float64 would show: the port read float64, but its outputs are float32")
    return "float32"


def _once(calls: Sequence[str]) -> tuple[str, ...]:
    """Return each call once, with how often it was made."""
    counts = {call: calls.count(call) for call in calls}
    return tuple(f"{call} (twice)" if count == 2 else call for call, count in counts.items())


def _pixels(spec: DenseNetSpec, usage: Usage | None) -> Pixels:
    if usage is None or usage.mean is None or usage.std is None:
        return Pixels()
    usage.fits(spec)
    largest = (usage.value_range or (0, 1))[1]
    return Pixels(
        tuple(value / largest for value in usage.mean), tuple(v / largest for v in usage.std)
    )


def images(spec: DenseNetSpec, pixels: Pixels, size: int, seed: int = 0) -> Array:
    """Return two images that separate the suspects, normalized: (2, C, size, size).

    Their channels have unequal means. The first is noise; the second is darker, with a bright
    border and a gradient that differs in height and width.
    """
    rng = np.random.default_rng(seed)
    channels = spec.config.in_channels
    means = np.linspace(0.25, 0.75, channels) if channels > 1 else np.array([0.5])
    noise = rng.random((2, channels, size, size))
    x = 0.5 * noise + 0.5 * means[:, None, None]
    slope = np.linspace(0, 1, size)
    x[1] = 0.2 * x[1] + 0.4 * slope[:, None] + 0.2 * slope**2
    x[1, :, :2] = x[1, :, -2:] = x[1, :, :, :2] = x[1, :, :, -2:] = 1
    return pixels.normalized(x)


def channels_first(spec: DenseNetSpec, inputs: npt.ArrayLike) -> tuple[npt.NDArray[Any], str]:
    """Return images as NCHW, and the layout that they had: "NCHW" or "NHWC"."""
    x, channels = np.asarray(inputs), spec.config.in_channels
    if x.ndim == 4 and x.shape[1] != channels and x.shape[3] == channels:
        return x.transpose(0, 3, 1, 2), "NHWC"
    return x, "NCHW"


def batch(spec: DenseNetSpec, usage: Usage) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return eight images for a training step, normalized as the weights expect, and labels."""
    pixels, size = _pixels(spec, usage), max(SIZES[0], min_image_size(spec))
    x = np.concatenate([images(spec, pixels, size, seed) for seed in range(4)])
    return x, np.arange(len(x)) % max(1, spec.config.num_classes)


def _first_answer(
    port: Port, pixels: Pixels, usage: Usage | None
) -> tuple[Array, dict[str, Array]]:
    stated = usage.image_size if usage else None
    least = -(-min_image_size(port.spec) // 4) * 4
    sizes = dict.fromkeys([max(SIZES[0], least), *([stated] if stated else []), *FALLBACKS])
    failures = []
    for size in sizes:
        x = images(port.spec, pixels, size).astype(port.dtype).astype(np.float64)
        try:
            return x, port(x)
        except ImageError as error:
            failures.append(error)
    raise failures[0]


def _random(found: float, tolerance: float, port: Port) -> Diagnosis:
    finding = Finding(
        "dropout_active",
        OUTPUT,
        "the port returns something else when it is asked the same again: dropout or another "
        "source of randomness is active",
        found,
        float("nan"),
        {
            "torch": "model.eval()",
            "keras": "model(x, training=False)",
            "gluon": "call the model outside of autograd.record()",
            "flax": "model.eval()",
        },
    )
    return Diagnosis(found, tolerance, (finding,), None, _once(port.calls))


def _diagnosed(
    network: Network,
    asked: Sequence[tuple[Array, Mapping[str, Array]]],
    *,
    pixels: Pixels,
    dtype: str,
    most: int,
    advance: Advance,
    calls: tuple[str, ...],
    notes: Sequence[str],
) -> Diagnosis:
    known, tolerance = suspects(network.spec, pixels), TOLERANCES[dtype]
    whole = Evidence(network, [(x, found[OUTPUT]) for x, found in asked])
    before = whole.deviation(())
    odd = _not_finite(whole, asked, known)
    if odd and not any(np.isfinite(found[OUTPUT]).any() for _, found in asked):
        return Diagnosis(before, tolerance, (), odd, calls, tuple(notes))
    most = 1 if odd else most
    findings: list[Finding] = []
    for evidence in _parts(network, asked):
        part = evidence.deviation(())
        if part <= tolerance:
            continue
        relevant = [s for s in known if evidence.stages_of(s)]
        exact = [s for s in relevant if s.convention != "half_precision"]
        rounding = _rounding(evidence, relevant, part)
        sizes = 1 if rounding else most
        found, nearest = explanations(evidence, exact, tolerance, most=sizes, advance=advance)
        if found:
            findings += _findings(evidence, found, part)
        elif rounding:
            findings.append(rounding)
        else:
            why = odd or _unexplained(evidence, nearest, relevant, part, most)
            if not odd and evidence.names == network.stages:
                why += "; maps of stages would show where it begins"
            return Diagnosis(before, tolerance, _merged(findings), why, calls, tuple(notes))
    hidden = [] if findings else _hidden(whole, known, tolerance)
    return Diagnosis(before, tolerance, _merged(findings), None, calls, (*notes, *hidden))


def _not_finite(
    whole: Evidence, asked: Sequence[tuple[Array, Mapping[str, Array]]], known: Iterable[Suspect]
) -> str:
    """Return a sentence about the first output of the port that is not finite; "" if all are."""
    for x, found in asked:
        for stage, array in found.items():
            if wrong := np.count_nonzero(~np.isfinite(array)):
                return (
                    f"the port returns NaN or infinity in {stage}: in {wrong:,} of {array.size:,} "
                    f"values, for images of {x.shape[2]}x{x.shape[3]}; look for a division by 0, "
                    f"and for weights that were not loaded{_also_infinite(whole, known)}"
                )
    return ""


def _also_infinite(whole: Evidence, known: Iterable[Suspect]) -> str:
    """Return the end of a sentence: which known conventions have such outputs too."""
    texts = []
    for suspect in known:
        changes = suspect.changes
        with np.errstate(all="ignore"):
            if not np.isfinite(whole.outputs(0, changes)).all():
                texts.append(suspect.text)
        whole.forget()
    return f"; a port that {listed(texts)} does this too" if texts else ""


def _parts(
    network: Network, asked: Sequence[tuple[Array, Mapping[str, Array]]]
) -> Iterator[Evidence]:
    """Yield the parts of the network that can be judged alone, in order.

    Without maps of stages, this is the complete network. A part that follows a map of the port
    reads that map, so that a defect in an earlier part does not hide one in this part.
    """
    seen = [s for s in network.stages[1:-1] if all(s in found for _, found in asked)]
    begin, sources = 0, [x for x, _ in asked]
    for stage in [*seen, OUTPUT]:
        end = network.stages.index(stage) + 1
        returned = [found[stage] for _, found in asked]
        names = network.stages[begin:end]
        yield Evidence(network, list(zip(sources, returned, strict=True)), names)
        begin, sources = end, returned


def _merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return one finding for what is broken in the same way in several stages."""
    merged: dict[tuple[str, str], Finding] = {}
    for each in findings:
        key = each.convention, each.text
        if key not in merged:
            merged[key] = each
            continue
        first = merged[key]
        merged[key] = replace(
            first,
            stage=f"{first.stage}, {each.stage}",
            before=max(first.before, each.before),
            after=max(first.after, each.after),
        )
    return tuple(merged.values())


def _findings(evidence: Evidence, found: list[Explanation], before: float) -> Iterator[Finding]:
    best = found[0]
    equal = [each for each in found[1:] if each.after <= max(BESIDES * best.after, 1e-7)]
    others = tuple(f"the port {' and '.join(_where(s) for s in each.suspects)}" for each in equal)
    for number, suspect in enumerate(best.suspects):
        yield Finding(
            suspect.convention,
            suspect.stage or evidence.stages_of(suspect)[0],
            f"the port {_where(suspect)}{_everywhere(evidence, suspect)}. "
            f"{CONVENTIONS[suspect.convention].rule}",
            before,
            best.after,
            _remedy(evidence, suspect),
            () if number else others,
        )


def _everywhere(evidence: Evidence, suspect: Suspect) -> str:
    several = len(evidence.stages_of(suspect)) > 1 and not suspect.stage
    return ", in every stage that has one" if several else ""


def _where(suspect: Suspect) -> str:
    where = f", in {suspect.stage} only" if suspect.stage else ""
    return suspect.text + where + (f" (as in {suspect.who})" if suspect.who else "")


def _remedy(evidence: Evidence, suspect: Suspect) -> dict[str, str]:
    eps = evidence.network.spec.config.bn_eps
    remedy = CONVENTIONS[suspect.convention].remedy
    return {key: text.replace("{eps:g}", f"{eps:g}") for key, text in remedy.items()}


def _hidden(evidence: Evidence, known: Iterable[Suspect], tolerance: float) -> list[str]:
    """Return what would not have shown, if the port did it."""
    notes, imitated = [], _own(evidence)
    for suspect in known:
        if suspect.convention in ("half_precision", "features_after_relu"):
            continue
        effect = imitated.deviation((suspect,))
        imitated.forget()
        if effect <= tolerance:
            how = f"by {effect:.0e} only, which is rounding in float32; float64 shows it"
            if effect < EXACT:
                how = "in nothing, with these weights at this image size"
            notes.append(f"{suspect.convention}: a port that {suspect.text} would differ {how}")
    return notes


def _own(evidence: Evidence) -> Evidence:
    """Return what the port would have returned if it broke no convention."""
    asked = [(x, evidence.outputs(number, ())) for number, (x, _) in enumerate(evidence.asked)]
    return Evidence(evidence.network, asked, evidence.names)


def _rounding(evidence: Evidence, known: Iterable[Suspect], before: float) -> Finding | None:
    """Return the lower precision in which the port computes, if its outputs show one.

    Its rounding errors cannot be imitated one by one. But numbers that come out of a layer in half
    precision have few digits, and the deviation has the size of such rounding.
    """
    for suspect, size in _half_precisions(evidence, known):
        rounded = ROUNDED[suspect.kind]
        few = all(np.array_equal(rounded(y), y, equal_nan=True) for _, y in evidence.asked)
        if few and before <= 4 * size:
            return Finding(
                suspect.convention,
                evidence.names[-1],
                f"the port {suspect.text}: every output is a {suspect.kind} number, and no other "
                f"known convention explains the deviation, which is as large as such rounding "
                f"({size:.0e}). {CONVENTIONS[suspect.convention].rule}",
                before,
                float("nan"),
                _remedy(evidence, suspect),
            )
    return None


def _half_precisions(
    evidence: Evidence, known: Iterable[Suspect]
) -> Iterator[tuple[Suspect, float]]:
    """Yield each half precision, and how large the deviation would be that it causes here."""
    own = _own(evidence)
    for suspect in known:
        if suspect.convention == "half_precision":
            yield suspect, own.deviation((suspect,))


def _unexplained(
    evidence: Evidence, nearest: Explanation, known: Iterable[Suspect], before: float, most: int
) -> str:
    first, last = evidence.names[0], evidence.names[-1]
    where = f"in {last}" if first == last else f"between {first} and {last}"
    several = f", nor up to {most} of them together," if most > 1 else ""
    (_, returned), own = evidence.asked[0], evidence.outputs(0, ())
    what = f"the deviation of {before:.1e} {where}"
    if returned.shape != own.shape:
        what = f"that {last} has the shape {returned.shape} instead of {own.shape}"
    alike = [
        s.kind for s, size in _half_precisions(evidence, known) if size / 2 < before < 2 * size
    ]
    hint = f"; computing in {alike[0]} would cause one of this size" if alike else ""
    suspect = nearest.suspects[0]
    if nearest.after < before / 2:
        hint += (
            f"; the nearest ({suspect.convention}: the port {_where(suspect)}) leaves "
            f"{nearest.after:.1e}"
        )
    return f"none of the known conventions{several} explains {what}{hint}"
