"""The rule that decides the level of one transition from the run lengths of N copies.

The rule is to sum a score of each copy's run length, log f(r | b, a, t^(i)), to add a weight w_i, and to take the
largest sum. The weights make the largest error of any level as small as cuts between neighbouring levels can. Under a
Poisson law this is a rule on the sum S of the run lengths, which is sufficient. Under other laws S is not sufficient,
and the rule is maximum likelihood on the whole vector. Scores and weights are integers, so every device makes the same
decisions. The errors that are stated are those of this rule, and are computed, not simulated (see ``evidence``). A
round that every copy lost counts as an error of its level.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from helix_jax.errors import HelixError
from helix_jax.timing import evidence
from helix_jax.timing.channel import Law, Poisson, Tabulated
from helix_jax.timing.graph import BASES

BISECTIONS = 50


class QuantizerError(HelixError):
    """No quantiser meets a demand; the message names the transition, the level, and the delta that is possible."""


@dataclass(frozen=True, eq=False)
class Decision:
    """The rule for one transition: the level with the largest sum of scores over the copies, plus its weight.

    Attributes:
        times: The times, ascending, one per level.
        scores: The score of each run length, by level.
        weights: The weight of each level.
        errors: The probability that each level is misread, or lost in all copies.
        lost: The probability that all copies lose a run of each level.
        exact: False where the errors are upper bounds.
    """

    times: tuple[int, ...]
    scores: Int32[np.ndarray, "levels runs"]
    weights: Int32[np.ndarray, " levels"]
    errors: tuple[float, ...]
    lost: tuple[float, ...]
    exact: bool

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return max(self.errors)


class Transition:
    """Makes the decisions for one transition, and remembers what its copies can show."""

    def __init__(self, law: Law, b: int | np.integer, a: int | np.integer, copies: int) -> None:
        self.law, self.b, self.a, self.copies = law, b, a, copies
        self.cases = {}

    def times(self, longest: int) -> list[int]:
        """Return the times up to ``longest`` that the law has."""
        rows = self.law.pmfs[self.b][self.a] if isinstance(self.law, Tabulated) else itertools.repeat(True, longest)
        return [t for t, row in enumerate(rows, 1) if row and t <= longest]

    def evidence_on(self, times: tuple[int, ...]) -> tuple[evidence.Cases | evidence.Pairs, list[int]]:
        """Return the evidence on the given times, and the column of each time in it."""
        if isinstance(self.law, Poisson):
            return evidence.of_sums(self.law.mean[self.b][self.a], times, self.copies), list(range(len(times)))
        # take all times up to the longest: then one list serves many sets, and ``design`` and ``decide`` agree
        columns = self.times(times[-1])
        if times[-1] not in self.cases:
            rows = [self.law.pmf(self.b, self.a, t) for t in columns]
            pmfs = np.array([np.pad(row, (0, max(map(len, rows)) - len(row))) for row in rows])
            self.cases[times[-1]] = evidence.of_runs(pmfs, self.copies)
        return self.cases[times[-1]], [columns.index(t) for t in times]

    def decide(self, times: tuple[int, ...]) -> Decision:
        """Return the ``Decision`` for ascending times."""
        for t in times:
            self.law.pmf(self.b, self.a, t)  # refuses a time that the law lacks
        cases, columns = self.evidence_on(times)
        cuts = [cases.cuts(i, j) for i, j in itertools.pairwise(columns)]
        lost = tuple(float(cases.lost(i)) for i in columns)
        weights = _weights(lost, cuts)
        errors = cases.errors(columns, weights)
        scores = cases.scores[columns].astype(np.int32)
        return Decision(times, scores, weights.astype(np.int32), tuple(errors), lost, cases.exact or len(times) <= 2)


def _weights(lost, cuts):
    """Return the weights int64[levels] that minimise the largest error, as far as neighbouring levels cause it.

    This is a bisection on that error. A trial error is possible if, from the highest level down, each level can take
    the highest cut that it tolerates, which leaves the next level the most room. Of the cuts that keep the best error,
    those with the least sum of errors are taken, and of these the middle.
    """

    def highest(most):
        out, spent = [], lost[-1]
        for pair, lost_below in zip(cuts[::-1], lost[-2::-1], strict=True):
            k = int(np.searchsorted(pair.below, most - spent, side="right")) - 1
            if k < 0:
                return None
            out.append(k)
            spent = lost_below + pair.above[k]
        return out[::-1] if spent <= most else None

    low, high, best = 0.0, 2.0, [len(pair.values) for pair in cuts]
    for _ in range(BISECTIONS if cuts else 0):
        middle = (low + high) / 2
        trial = highest(middle)
        if trial is None:
            low = middle
        else:
            high, best = middle, trial
    weights, spent = [0], lost[0]
    for pair, top, lost_above in zip(cuts, best, lost[1:], strict=True):
        bottom = min(int(np.searchsorted(-pair.above, spent - high)), top)
        total = (pair.above + pair.below)[bottom : top + 1]
        least = bottom + np.flatnonzero(total <= total.min() + evidence.NEGLIGIBLE)
        cut = (pair.position(least[0]) + pair.position(least[-1])) // 2
        weights.append(weights[-1] - cut)
        spent = lost_above + pair.below[np.searchsorted(pair.values, cut, side="right")]
    return np.clip(weights, -evidence.WEIGHT_LIMIT, evidence.WEIGHT_LIMIT)


def decide(law: Law, b: int | np.integer, a: int | np.integer, times: Sequence[int], copies: float | int) -> Decision:
    """Return the decision rule for the transition b -> a.

    Args:
        law: The law of the run lengths.
        b: The base before.
        a: The base that is written.
        times: The allowed times, ascending, at least one.
        copies: The number N of copies.

    Returns:
        The rule.

    Raises:
        QuantizerError: The number of copies or the times are wrong.
        channel.ChannelError: The law lacks a time.
    """
    check_copies(copies)
    if not times or any(t >= u for t, u in itertools.pairwise(times)):
        raise QuantizerError(f"{BASES[b]}->{BASES[a]}: times {times}; give at least one, ascending")
    return Transition(law, b, a, int(copies)).decide(tuple(times))


def check_copies(copies: float | int) -> None:
    """Raise QuantizerError unless the number of copies is a whole number that the tables have room for."""
    if copies != int(copies) or not 1 <= copies <= evidence.MOST_COPIES:
        raise QuantizerError(f"copies: {copies}; give a whole number in 1..{evidence.MOST_COPIES}")


def transitions(law: Law, copies: int, longest: int) -> dict[tuple[int, int], Transition]:
    """Return the ``Transition`` of each pair b != a as a dict; pairs that the law treats alike share one."""
    out, alike = {}, {}
    for b, a in np.ndindex(4, 4):
        if b != a:
            new = Transition(law, b, a, copies)
            times = new.times(longest)
            key = (*times, *(law.pmf(b, a, t).tobytes() for t in times))
            out[b, a] = alike.setdefault(key, new)
    return out
