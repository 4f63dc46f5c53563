"""What N copies of a run can show, and how well it separates two times: the sums behind ``quantizer``.

There are three ways to sum, all over the run lengths r_1..r_N of one round:
    ``of_sums``   is for the Poisson law: every value of S = r_1 + ... + r_N, which is sufficient.
    ``of_runs``   is for any other law: every multiset of run lengths, except those with probability below 1e-15 at
                  every time, which count as errors. If more than 100 000 are left, each pair of times is treated alone,
                  by convolving the scores of the copies, rounded to 1/64 nat. This is exact for two levels. For more
                  levels, the errors against each of the others are added, which is an upper bound.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64

from helix_jax.timing.channel import poisson_pmf

SCALE = 1 << 14  # scores are in units of 1/SCALE nats
COARSE = 1 << 8  # scores that are convolved are multiples of this
IMPOSSIBLE = -60.0  # the score of an impossible run length, in nats
MOST_COPIES = 1000  # the sum of so many scores and a weight fits in 32 bits
WEIGHT_LIMIT = (1 << 30) - 1
CASES_LIMIT = 100_000
NEGLIGIBLE = 1e-15


class Cuts(NamedTuple):
    """The ways to separate two levels by g, the score of the higher one less that of the lower one.

    Cut k calls the first k values of g the lower level. Rounds that are lost in all copies are not included.

    Attributes:
        values: All values of g, ascending.
        above: The probability of an error of each cut at the lower level.
        below: The probability of an error of each cut at the higher level.
    """

    values: Int64[np.ndarray, " n"]
    above: Float64[np.ndarray, " cuts"]
    below: Float64[np.ndarray, " cuts"]

    def position(self, k: int | np.integer) -> int:
        """Return cut k as a threshold: it chooses the higher level if g exceeds it."""
        if not len(self.values):
            return 0
        if 0 < k < len(self.values):
            return int(self.values[k - 1] + self.values[k]) // 2
        return int(self.values[-1]) if k else int(self.values[0]) - SCALE


def _cuts(gaps, low, high):
    """Return the cuts of gaps int64[cases] with probabilities float64[cases] at the lower and at the higher level."""
    values, where = np.unique(gaps, return_inverse=True)
    low, high = np.bincount(where, low, len(values)), np.bincount(where, high, len(values))
    return Cuts(values, np.append(np.cumsum(low[::-1])[::-1], 0.0), np.append(0.0, np.cumsum(high)))


@dataclass(frozen=True, eq=False)
class Cases:
    """Everything that N copies can show, except the loss of all, at each of some times.

    Attributes:
        scores: The score of each run length of one copy, by time.
        totals: The sum of the scores of all copies, by case and time.
        chances: The probability of each case, by case and time.
        cache: The cuts that were computed before.
    """

    scores: Int64[np.ndarray, "times runs"]
    totals: Int64[np.ndarray, "cases times"]
    chances: Float64[np.ndarray, "cases times"]
    cache: dict = field(default_factory=dict)
    exact = True

    def lost(self, i: int) -> float:
        """Return the probability at time i (a column) that all copies lose the run."""
        return 1 - self.chances[:, i].sum()

    def cuts(self, i: int, j: int) -> Cuts:
        """Return the cuts between times i and j."""
        if (i, j) not in self.cache:
            possible = (self.chances[:, [i, j]] > 0).any(axis=1)
            gaps, chances = self.totals[possible, j] - self.totals[possible, i], self.chances[possible]
            self.cache[i, j] = _cuts(gaps, chances[:, i], chances[:, j])
        return self.cache[i, j]

    def errors(self, columns: Sequence[int], weights: Int[np.ndarray, " levels"]) -> list[float]:
        """Return the probability that each level is lost or misread.

        Level i is time ``columns[i]``, and the rule has the given weights.
        """
        level = (self.totals[:, columns] + weights).argmax(axis=1)
        return [max(0.0, 1 - float(self.chances[level == i, column].sum())) for i, column in enumerate(columns)]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The same as ``Cases`` where these are too many to list.

    Attributes:
        scores: The score of each run length of one copy, by time; a multiple of COARSE.
        pmfs: The probability of each run length, by time.
        copies: The number N of copies.
        cache: The cuts that were computed before.
    """

    scores: Int64[np.ndarray, "times runs"]
    pmfs: Float64[np.ndarray, "times runs"]
    copies: int
    cache: dict = field(default_factory=dict)
    exact = False

    def lost(self, i: int) -> float:
        """Return the probability at time i (a column) that all copies lose the run."""
        return self.pmfs[i, 0] ** self.copies

    def cuts(self, i: int, j: int) -> Cuts:
        """Return the cuts between times i and j."""
        if (i, j) not in self.cache:
            self.cache[i, j] = self._convolved(i, j)
        return self.cache[i, j]

    def _convolved(self, i, j):
        steps = (self.scores[j] - self.scores[i]) // COARSE
        least = int(steps.min())
        size = self.copies * int(steps.max() - least) + 1
        chances = []
        for column in (i, j):
            one_copy = np.bincount(steps - least, self.pmfs[column])
            points = 1 << size.bit_length()  # no wrap: all sums of the copies lie in 0..size - 1
            all_copies = np.fft.irfft(np.fft.rfft(one_copy, points) ** self.copies, points)[:size]
            all_copies[self.copies * (steps[0] - least)] -= self.lost(column)
            chances.append(np.where(all_copies > NEGLIGIBLE, all_copies, 0.0))
        possible = np.flatnonzero(chances[0] + chances[1])
        return _cuts((possible + self.copies * least) * COARSE, chances[0][possible], chances[1][possible])

    def errors(self, columns: Sequence[int], weights: Int[np.ndarray, " levels"]) -> list[float]:
        """Return upper bounds of the probabilities that ``Cases.errors`` returns; they are exact for two levels."""
        out = [self.lost(column) for column in columns]
        for i, j in itertools.combinations(range(len(columns)), 2):
            cuts = self.cuts(columns[i], columns[j])
            k = np.searchsorted(cuts.values, weights[i] - weights[j], side="right")
            out[i] += cuts.above[k]
            out[j] += cuts.below[k]
        return [min(float(error), 1.0) for error in out]


def of_sums(mean: float | int, times: Sequence[int], copies: float | int) -> Cases:
    """Return the cases of a Poisson law, for which the sum of the run lengths is as informative as all of them.

    Args:
        mean: The mean run length per time unit.
        times: The times, ascending.
        copies: The number N of copies.

    Returns:
        The cases.
    """
    rows = [poisson_pmf(copies * mean * t) for t in times]
    sums = np.arange(1, max(map(len, rows)))
    chances = np.array([np.pad(row, (0, len(sums) + 1 - len(row)))[1:] for row in rows]).T
    run, time = np.arange(len(poisson_pmf(mean * times[-1]))), np.array(times, np.float64)
    most = max(run[-1] * math.log(time[-1]), mean * time[-1], 1.0)
    scale = min(SCALE, WEIGHT_LIMIT / 2 / (copies * most))
    slope, start = (np.round(scale * x).astype(np.int64) for x in (np.log(time), mean * time))
    scores = slope[:, None] * run[None, :] - start[:, None]
    return Cases(scores, sums[:, None] * slope[None, :] - copies * start[None, :], chances)


def of_runs(pmfs: Float64[np.ndarray, "times runs"], copies: int) -> Cases | Pairs:
    """Return the cases over multisets of the run lengths of N copies, or Pairs if they are too many."""
    scores = np.round(SCALE * np.log(np.maximum(pmfs, math.exp(IMPOSSIBLE)))).astype(np.int64)
    counts = _multisets(pmfs, copies)
    if counts is None:
        return Pairs(scores // COARSE * COARSE, pmfs, copies)
    counts = counts[counts[:, 0] < copies]
    log_factorial = _log_factorial(copies)
    ways = log_factorial[copies] - log_factorial[counts].sum(axis=1)
    logs = counts @ np.log(np.where(pmfs > 0, pmfs, 1.0)).T
    possible = counts @ (pmfs == 0).T.astype(np.int64) == 0
    return Cases(scores, counts @ scores.T, np.where(possible, np.exp(ways[:, None] + logs), 0.0))


def _multisets(pmfs, copies):
    """Return the multisets of N run lengths as counts of each length: int64[cases, r_max + 1]; None if too many.

    They grow run length by run length. A beginning, the counts of lengths 0..r, has an exact probability of its own;
    beginnings with a probability below NEGLIGIBLE at every time are dropped.
    """
    log_factorial = _log_factorial(copies)
    with np.errstate(divide="ignore"):
        log_pmfs, log_rest = np.log(pmfs), np.log(np.maximum(1 - np.cumsum(pmfs, axis=1), 0.0))
    counts, left = np.zeros((1, 0), np.int64), np.array([copies])
    chance = np.full((1, len(pmfs)), log_factorial[copies])
    for r in range(pmfs.shape[1]):
        if (left + 1).sum() > 20 * CASES_LIMIT:
            return None
        source = np.repeat(np.arange(len(left)), left + 1)
        count = np.arange(len(source)) - (np.cumsum(left + 1) - (left + 1))[source]
        chance = chance[source] + _log_power(log_pmfs[:, r], count) - log_factorial[count][:, None]
        left = left[source] - count
        start = chance + _log_power(log_rest[:, r], left) - log_factorial[left][:, None]
        keep = (start >= math.log(NEGLIGIBLE)).any(axis=1)
        if np.count_nonzero(keep) > CASES_LIMIT:
            return None
        counts = np.concatenate([counts[source[keep]], count[keep, None]], axis=1)
        chance, left = chance[keep], left[keep]
    return counts[left == 0]


def _log_factorial(n):
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _log_power(log, count):
    """Return count[k] * log[t] as float64[k, t], with 0 * -inf = 0."""
    return np.where(count[:, None] == 0, 0.0, np.maximum(count, 1)[:, None] * log[None, :])
