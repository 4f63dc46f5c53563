"""What N copies of a run can show, and how well two times are told apart by it: the sums behind ``quantizer``.

Three ways to sum, all over the run lengths r_1..r_N of one round:
    ``of_sums``   Poisson: every value of S = r_1 + ... + r_N, which is sufficient.
    ``of_runs``   any other law: every multiset of run lengths, but those with chance below 1e-15 at every time, which
                  count as errors. If that leaves over 100 000: each pair of times alone, by convolving the scores of
                  the copies, rounded to 1/64 nat; exact for two levels; for more, the errors against each of the
                  others are added, which is an upper bound.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from helix_jax.timing.channel import poisson_pmf

SCALE = 1 << 14  # scores are in units of 1/SCALE nats
COARSE = 1 << 8  # scores that are convolved are multiples of this
IMPOSSIBLE = -60.0  # score of an impossible run length, in nats
MOST_COPIES = 1000  # so many scores, and a weight, add up in 32 bits
WEIGHT_LIMIT = (1 << 30) - 1
CASES_LIMIT = 100_000
NEGLIGIBLE = 1e-15


class Cuts(NamedTuple):
    """The ways to part two levels by g, the score of the higher one less that of the lower one.

    values: int64[n], all values of g, ascending. Cut k calls the first k of them the lower level: it errs with above[k]
    at the lower level, below[k] at the higher one (float64[n + 1]; rounds lost in all copies are not in them).
    """

    values: np.ndarray
    above: np.ndarray
    below: np.ndarray

    def place(self, k):
        """Cut k as an int: "the higher level if g exceeds it"."""
        if not len(self.values):
            return 0
        if 0 < k < len(self.values):
            return int(self.values[k - 1] + self.values[k]) // 2
        return int(self.values[-1]) if k else int(self.values[0]) - SCALE


def _cuts(gaps, low, high):
    """Cuts of gaps int64[cases], with their chances float64[cases] at the lower and the higher level."""
    values, where = np.unique(gaps, return_inverse=True)
    low, high = np.bincount(where, low, len(values)), np.bincount(where, high, len(values))
    return Cuts(values, np.append(np.cumsum(low[::-1])[::-1], 0.0), np.append(0.0, np.cumsum(high)))


@dataclass(frozen=True, eq=False)
class Cases:
    """All that N copies can show, but the loss of all, at each of some times.

    scores: int64[times, r_max + 1] of one copy. totals: int64[cases, times] of all; chances: float64[cases, times].
    known: cuts asked for before.
    """

    scores: np.ndarray
    totals: np.ndarray
    chances: np.ndarray
    known: dict = field(default_factory=dict)
    exact = True

    def lost(self, i):
        """Chance at time i (a column) that all copies lose the run."""
        return 1 - self.chances[:, i].sum()

    def cuts(self, i, j):
        """Cuts between times i and j."""
        if (i, j) not in self.known:
            seen = (self.chances[:, [i, j]] > 0).any(axis=1)
            gaps, chances = self.totals[seen, j] - self.totals[seen, i], self.chances[seen]
            self.known[i, j] = _cuts(gaps, chances[:, i], chances[:, j])
        return self.known[i, j]

    def errors(self, columns, weights):
        """Chance of each level to be lost or misread, if level i is time columns[i] and the rule has these weights."""
        level = (self.totals[:, columns] + weights).argmax(axis=1)
        return [max(0.0, 1 - float(self.chances[level == i, column].sum())) for i, column in enumerate(columns)]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The same where the cases are too many to list. pmfs: float64[times, r_max + 1]; scores multiples of COARSE."""

    scores: np.ndarray
    pmfs: np.ndarray
    copies: int
    known: dict = field(default_factory=dict)
    exact = False

    def lost(self, i):
        return self.pmfs[i, 0] ** self.copies

    def cuts(self, i, j):
        if (i, j) not in self.known:
            self.known[i, j] = self._convolved(i, j)
        return self.known[i, j]

    def _convolved(self, i, j):
        steps = (self.scores[j] - self.scores[i]) // COARSE
        least = int(steps.min())
        size = self.copies * int(steps.max() - least) + 1
        chances = []
        for column in (i, j):
            one = np.bincount(steps - least, self.pmfs[column])
            points = 1 << size.bit_length()  # no wrap: all sums of the copies lie in 0..size - 1
            all_copies = np.fft.irfft(np.fft.rfft(one, points) ** self.copies, points)[:size]
            all_copies[self.copies * (steps[0] - least)] -= self.lost(column)
            chances.append(np.where(all_copies > NEGLIGIBLE, all_copies, 0.0))
        seen = np.flatnonzero(chances[0] + chances[1])
        return _cuts((seen + self.copies * least) * COARSE, chances[0][seen], chances[1][seen])

    def errors(self, columns, weights):
        out = [self.lost(column) for column in columns]
        for i, j in itertools.combinations(range(len(columns)), 2):
            cuts = self.cuts(columns[i], columns[j])
            k = np.searchsorted(cuts.values, weights[i] - weights[j], side="right")
            out[i] += cuts.above[k]
            out[j] += cuts.below[k]
        return [min(float(error), 1.0) for error in out]


def of_sums(mean, times, copies):
    """Cases of a Poisson law: the sum of the run lengths tells as much as all of them."""
    rows = [poisson_pmf(copies * mean * t) for t in times]
    sums = np.arange(1, max(map(len, rows)))
    chances = np.array([np.pad(row, (0, len(sums) + 1 - len(row)))[1:] for row in rows]).T
    run, time = np.arange(len(poisson_pmf(mean * times[-1]))), np.array(times, np.float64)
    most = max(run[-1] * math.log(time[-1]), mean * time[-1], 1.0)
    scale = min(SCALE, WEIGHT_LIMIT / 2 / (copies * most))
    slope, start = (np.round(scale * x).astype(np.int64) for x in (np.log(time), mean * time))
    scores = slope[:, None] * run[None, :] - start[:, None]
    return Cases(scores, sums[:, None] * slope[None, :] - copies * start[None, :], chances)


def of_runs(pmfs, copies):
    """Cases over multisets of run lengths, or Pairs if they are too many; pmfs: float64[times, r_max + 1]."""
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
    """Multisets of N run lengths as counts of each length: int64[cases, r_max + 1]; None if there are too many.

    They grow run length by run length. A start, the counts of lengths 0..r, has an exact chance of its own; those below
    NEGLIGIBLE at every time are dropped.
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
    """count[k] * log[t] as float64[k, t], with 0 * -inf = 0."""
    return np.where(count[:, None] == 0, 0.0, np.maximum(count, 1)[:, None] * log[None, :])
