"""Search for the broken conventions that explain what a port returned.

An explanation is a set of suspects with which the network returns what the port returned, up to
rounding. Single suspects are tried first, then each one in a single stage, then pairs and triples
that begin with the most promising ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .conventions import Suspect
from .network import Array, Change, Network

WIDTH = 8  # how many of the most promising sets are extended by one more suspect
TOGETHER = (("same_padding", "pool_padding"),)  # broken together by a known project: tried first

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Explanation:
    """A set of suspects, and the deviation that remains with it, relative to the largest value."""

    suspects: tuple[Suspect, ...]
    after: float


class Evidence:
    """What a port read and what it returned: a deviation for every set of suspects.

    Outputs of stages are kept, so that a set of suspects costs only the stages after its first one.

    Arguments:
        network: what the port should be.
        asked: pairs of what the first of the stages reads, and what the port's last one returned.
        stages: consecutive stages of the network; by default all of them.
    """

    def __init__(
        self,
        network: Network,
        asked: Sequence[tuple[Array, Array]],
        stages: Sequence[str] | None = None,
    ) -> None:
        self.network, self.asked = network, asked
        self.names = list(stages or network.stages)
        self.kept: list[dict[tuple[Change, ...], dict[str, Array]]] = [{} for _ in asked]
        self.touches: dict[Change, frozenset[str]] = {}

    def touched(self, change: Change) -> frozenset[str]:
        """Return those of the stages in which a change applies."""
        if change not in self.touches:
            places = self.network.places(change.operation)
            found = {place.stage for place in places if change.where(place)}
            self.touches[change] = frozenset(found.intersection(self.names))
        return self.touches[change]

    def stages_of(self, suspect: Suspect) -> list[str]:
        """Return those of the stages in which a suspect changes something, in order."""
        found = frozenset[str]().union(*map(self.touched, suspect.changes))
        return [stage for stage in self.names if stage in found]

    def deviation(self, suspects: Sequence[Suspect]) -> float:
        """Return the largest deviation that remains with these suspects."""
        changes = tuple(change for suspect in suspects for change in suspect.changes)
        with np.errstate(all="ignore"):
            return max(
                deviation(found, self.outputs(number, changes))
                for number, (_, found) in enumerate(self.asked)
            )

    def outputs(self, number: int, changes: tuple[Change, ...]) -> Array:
        """Return what the last stage returns for what was asked, with these changes."""
        applied: tuple[Change, ...] = ()
        for before, stage in pairwise(["", *self.names]):
            active = tuple(c for c in changes if c in applied or stage in self.touched(c))
            kept = self.kept[number].setdefault(active, {})
            if stage not in kept:
                source = self.kept[number][applied][before] if before else self.asked[number][0]
                kept[stage] = self.network.stage(stage, source, active)
            applied = active
        return self.kept[number][applied][self.names[-1]]

    def forget(self) -> None:
        """Drop what was kept, except the outputs without any change."""
        for kept in self.kept:
            for key in [key for key in kept if key]:
                del kept[key]


def deviation(found: Array, expected: Array) -> float:
    """Return the largest deviation of an image's outputs, relative to its largest output.

    Two values that are not finite in the same way agree. Infinity, if the shapes differ.
    """
    if found.shape != expected.shape:
        return float("inf")
    odd = ~np.isfinite(found) | ~np.isfinite(expected)
    if odd.any() and not np.array_equal(found[odd], expected[odd], equal_nan=True):
        return float("inf")
    found, expected = np.where(odd, 0, found), np.where(odd, 0, expected)
    axes = tuple(range(1, found.ndim))
    scale = np.maximum(np.abs(expected).max(axis=axes), np.finfo(np.float64).tiny)
    value = float((np.abs(found - expected).max(axis=axes) / scale).max())
    return value if np.isfinite(value) else float("inf")


def explanations(
    evidence: Evidence,
    suspects: Sequence[Suspect],
    tolerance: float,
    *,
    most: int = 3,
    advance: Advance = lambda _: None,
) -> tuple[list[Explanation], Explanation]:
    """Return the smallest sets of suspects that leave at most ``tolerance``, best first.

    All returned sets have the same size. The list is empty if no set of up to ``most`` suspects
    explains the evidence. The last value is the single suspect that comes nearest, in the first
    answer.
    """
    first = Evidence(evidence.network, evidence.asked[:1], evidence.names)  # to search in

    def explained(sets: Iterable[tuple[Suspect, ...]]) -> list[Explanation]:
        ranked[:] = _tried(first, sets, advance)
        promising = [each.suspects for each in ranked if each.after <= tolerance]
        verified = _tried(evidence, promising, advance) if evidence.asked[1:] else ranked
        return [each for each in verified if each.after <= tolerance]

    ranked: list[Explanation] = []
    found = explained([(each,) for each in suspects])
    singles, nearest = list(ranked), ranked[0]
    together = [pair for names in TOGETHER for pair in _named(suspects, names)]
    if found or (found := explained(together)) or most == 1:
        return found, nearest
    if found := explained((each,) for whole in suspects for each in _narrowed(first, whole)):
        return found, nearest
    ranked[:] = singles
    for _ in range(most - 1):
        sets = {
            frozenset((*each.suspects, other)): (*each.suspects, other)
            for each in ranked[:WIDTH]
            for other in suspects
            if other not in each.suspects
        }
        if found := explained(list(sets.values())):
            return found, nearest
    return [], nearest


def _tried(
    evidence: Evidence, sets: Iterable[tuple[Suspect, ...]], advance: Advance
) -> list[Explanation]:
    tried = []
    for each in sets:
        tried.append(Explanation(each, evidence.deviation(each)))
        evidence.forget()
        advance(each[-1].convention)
    return sorted(tried, key=lambda found: found.after)


def _narrowed(evidence: Evidence, suspect: Suspect) -> Iterator[Suspect]:
    stages = evidence.stages_of(suspect)
    if len(stages) > 1:
        yield from map(suspect.within, stages)


def _named(suspects: Sequence[Suspect], names: tuple[str, ...]) -> Iterator[tuple[Suspect, ...]]:
    firsts = [next((s for s in suspects if s.convention == name), None) for name in names]
    found = tuple(each for each in firsts if each)
    if len(found) == len(names):
        yield found
