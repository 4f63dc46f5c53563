"""The timing channel: the laws of the run lengths (``synthesis`` simulates copies).

A round writes base a after base b for time t. In every copy, independently, the run of a gets a length drawn from the
law D_{b->a}(t) (ISIT 2020, "Framework"); a run of length 0 is lost in that copy. The paper leaves the law open, and we
offer three: binomial, Poisson, or a table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from helix_jax.errors import HelixError
from helix_jax.timing.graph import BASES, TALK, TimeTable

TAIL = 1e-12  # the probability that is cut off the end of an unbounded law
LONGEST_MEAN = 100.0  # in bases per time unit; keeps the tables small


class ChannelError(HelixError):
    """A law, a sequencer or a schedule is impossible; the message names the transition, the value and the range."""


# ---- laws ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Binomial:
    """The run length is Binomial(t, p[b][a]): in each time unit a copy gains a base with that probability.

    Attributes:
        p: 4 x 4 probabilities in 0..1, with 0 where b == a.

    Raises:
        ChannelError: The probabilities break these rules.
    """

    p: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", _square(self.p, "p", 1.0))

    @classmethod
    def uniform(cls, p: float | int) -> "Binomial":
        """Make the law that has the same probability for all transitions."""
        return cls(_off_diagonal(p, 0.0))

    def pmf(self, b: int | np.integer, a: int | np.integer, time: float | int) -> Float64[np.ndarray, " runs"]:
        """Return the probability of each run length 0..time of base a after base b.

        Args:
            b: The base before.
            a: The base that is written.
            time: The time of the round, in time units.

        Returns:
            The probabilities.

        Raises:
            ChannelError: b -> a is no transition, or the time is not a whole number of at least 1.
        """
        _check_transition(b, a, time)
        p, time = self.p[b][a], int(time)
        return np.array([math.comb(time, r) * p**r * (1 - p) ** (time - r) for r in range(time + 1)])


@dataclass(frozen=True)
class Poisson:
    """The run length is Poisson(mean[b][a] * t).

    Attributes:
        mean: 4 x 4 mean run lengths per time unit, in 0..100, with 0 where b == a.

    Raises:
        ChannelError: The means break these rules.
    """

    mean: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _square(self.mean, "mean", LONGEST_MEAN))

    @classmethod
    def uniform(cls, mean: float | int) -> "Poisson":
        """Make the law that has the same mean run length per time unit for all transitions."""
        return cls(_off_diagonal(mean, 0.0))

    def pmf(self, b: int | np.integer, a: int | np.integer, time: float | int) -> Float64[np.ndarray, " runs"]:
        """Return the probability of each run length 0..r_max of base a after base b.

        The probability of longer runs, which is below 1e-12, is counted at r_max.

        Args:
            b: The base before.
            a: The base that is written.
            time: The time of the round, in time units.

        Returns:
            The probabilities.

        Raises:
            ChannelError: b -> a is no transition, or the time is not a whole number of at least 1.
        """
        _check_transition(b, a, time)
        return poisson_pmf(self.mean[b][a] * time)


@dataclass(frozen=True)
class Tabulated:
    """The law of the run length is given by a table, for example a measured one.

    Attributes:
        pmfs: ``pmfs[b][a][t - 1]`` is the tuple of the probabilities of run lengths 0, 1, ... at time t. It is empty
            where that time was not measured, and always for b == a. Each tuple sums to 1 within 1e-6 and is kept
            normalised.

    Raises:
        ChannelError: The table breaks these rules.
    """

    pmfs: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.pmfs] != [4, 4, 4, 4]:
            raise ChannelError("pmfs: not 4 x 4; give one tuple of tables for each base after each base")
        pmfs = [[() for _ in BASES] for _ in BASES]
        for b, a in np.ndindex(4, 4):
            if b == a and any(self.pmfs[b][a]):
                raise ChannelError(f"pmfs: {BASES[b]}->{BASES[a]} is no transition; give () for it")
            named = ((f"{BASES[b]}->{BASES[a]} time {t}", pmf) for t, pmf in enumerate(self.pmfs[b][a], 1))
            pmfs[b][a] = tuple(_normalised(name, pmf) for name, pmf in named)
        object.__setattr__(self, "pmfs", tuple(map(tuple, pmfs)))

    @classmethod
    def uniform(cls, pmfs: Sequence[Sequence[float]]) -> "Tabulated":
        """Make the law that has the same table for all transitions: ``pmfs[t - 1][r]``."""
        return cls(_off_diagonal(tuple(map(tuple, pmfs)), ()))

    def pmf(self, b: int | np.integer, a: int | np.integer, time: float | int) -> Float64[np.ndarray, " runs"]:
        """Return the probability of each run length 0..r_max of base a after base b.

        Args:
            b: The base before.
            a: The base that is written.
            time: The time of the round, in time units.

        Returns:
            The probabilities.

        Raises:
            ChannelError: b -> a is no transition, or the table lacks the time.
        """
        _check_transition(b, a, time)
        rows, time = self.pmfs[b][a], int(time)
        if time > len(rows) or not rows[time - 1]:
            times = [t for t, row in enumerate(rows, 1) if row]
            raise ChannelError(f"{BASES[b]}->{BASES[a]} time {time}: the table has times {times}; add this one to it")
        return np.array(rows[time - 1])


Law = Binomial | Poisson | Tabulated


def _off_diagonal(value, nothing):
    return tuple(tuple(nothing if a == b else value for a in range(4)) for b in range(4))


def _square(values, name, most):
    rows = tuple(tuple(float(value) for value in row) for row in values)
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise ChannelError(f"{name}: rows of {[len(row) for row in rows]} numbers, not 4 x 4")
    for b, a in np.ndindex(4, 4):
        if not 0 <= rows[b][a] <= most:
            raise ChannelError(f"{name} of {BASES[b]}->{BASES[a]} is {rows[b][a]}; it lies in 0..{most:g}")
        if b == a and rows[b][a]:
            raise ChannelError(f"{name} of {BASES[b]}->{BASES[a]} is {rows[b][a]}: no transition; give 0")
    return rows


def _normalised(name, pmf):
    if not pmf:
        return ()
    row = np.array(pmf, np.float64)
    if row.ndim != 1 or not (row >= 0).all() or not abs(row.sum() - 1) <= 1e-6:
        raise ChannelError(f"pmfs of {name}: {pmf} sums to {row.sum()}; give chances of at least 0 that sum to 1")
    return tuple((row / row.sum()).tolist())


def _check_transition(b, a, time):
    if not (0 <= b < 4 and 0 <= a < 4 and b != a):
        raise ChannelError(f"{b}->{a} is no transition; bases are 0..3 and differ")
    if time != int(time) or time < 1:
        raise ChannelError(f"{BASES[b]}->{BASES[a]}: time {time}; times are whole numbers of units, at least 1")


def poisson_pmf(mean: float | int) -> Float64[np.ndarray, " runs"]:
    """Return the probabilities of 0..r_max under Poisson(mean).

    r_max is the least number whose tail is below 1e-12, and that tail is counted at it.
    """
    if mean == 0:
        return np.ones(1)
    run = np.arange(int(mean + 12 * math.sqrt(mean) + 40))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(run[1:]))])
    pmf = np.exp(run * math.log(mean) - mean - log_factorial)
    tail = np.cumsum(pmf[::-1])[::-1]  # P(run >= r)
    keep = int(np.count_nonzero(tail >= TAIL))
    pmf = np.append(pmf[: keep - 1], tail[keep - 1])
    return pmf / pmf.sum()


def pmf_table(law: Law, table: TimeTable) -> Float64[np.ndarray, "4 4 levels runs"]:
    """Return the probability of each run length 0..r_max, by (b, a, level, run length).

    There are zeros past the end of a shorter pmf, and only zeros where the time table has no such level.
    Raises ChannelError for a time that the law lacks.
    """
    rows = {(b, a, level): law.pmf(b, a, time) for b, a, level, time in table.edges().tolist()}
    out = np.zeros((4, 4, table.levels, max(map(len, rows.values()))))
    for where, row in rows.items():
        out[where][: len(row)] = row
    return out


TALK_LAW = Binomial(
    tuple(tuple({2: 0.85, 3: 0.70, 4: 0.58}[times[-1]] if times else 0.0 for times in row) for row in TALK.times)
)  # with N = 5 and delta = 0.02, these give the talk's second times 2, 3, 4
