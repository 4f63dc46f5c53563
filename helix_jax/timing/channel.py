"""The timing channel: the laws of the run lengths, and a simulator of N copies.

A round writes base a after base b for time t. In every copy, independently, the run of a gets a length drawn from the
law D_{b->a}(t) (ISIT 2020, "Framework"); a run of length 0 is lost in that copy. The paper leaves the law open, and we
offer three: binomial, Poisson, or a table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float64, Int32, Integer, Key, Real, UInt8, UInt32

from helix_jax.errors import HelixError
from helix_jax.timing.graph import BASES, TALK, TimeTable

TAIL = 1e-12  # the probability that is cut off the end of an unbounded law
LONGEST_MEAN = 100.0  # in bases per time unit; keeps the tables small
CHANCE_BITS = 31  # random numbers are integers of so many bits

Arrayish = Array | np.ndarray


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


# ---- simulator -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequencer:
    """The errors that sequencing adds.

    Attributes:
        substitution: The probability that a base is read as one of the three others.
        split: The probability that a run of 2 or more bases is read with one foreign base inserted somewhere inside it.

    Raises:
        ChannelError: A number is no probability.
    """

    substitution: float | int = 0.0
    split: float | int = 0.0

    def __post_init__(self) -> None:
        for name in ("substitution", "split"):
            if not 0 <= getattr(self, name) <= 1:
                raise ChannelError(f"{name}: {getattr(self, name)} is no probability; it lies in 0..1")


def thresholds(pmfs: Float64[np.ndarray, "4 4 levels runs"]) -> UInt32[np.ndarray, "4 4 levels runs"]:
    """Return the table that ``draw_runs`` takes: P(run <= r) * 2^31 for each run length r.

    A pmf of zeros alone, which stands for a level that does not exist, becomes a run of length 0 for certain.
    """
    share = np.where(pmfs.sum(axis=-1, keepdims=True) > 0, np.cumsum(pmfs, axis=-1), 1.0)
    share[..., -1] = 1.0
    return np.round(np.minimum(share, 1.0) * 2.0**CHANCE_BITS).astype(np.uint32)


def previous(
    letters: Integer[Arrayish, "*strands R"], first_base: int | Integer[Array, ""] = 0
) -> Integer[Array, "*strands R"]:
    """Return the base before each round, which is ``first_base`` before the first."""
    return jnp.concatenate([jnp.full_like(letters[..., :1], first_base), letters[..., :-1]], axis=-1)


def draw_runs(
    key: Key[Array, ""],
    letters: Integer[Arrayish, " R"],
    levels: Integer[Arrayish, " R"],
    chances: UInt32[Arrayish, "4 4 levels runs"],
    copies: int,
    first_base: int | Integer[Array, ""] = 0,
) -> Int32[Array, "N R"]:
    """Draw the run lengths of the copies of one strand; pure, so that ``vmap`` maps it over strands.

    A copy depends on its number only, and not on how many copies there are. A round whose letter equals the one before
    it, or whose level does not exist, writes nothing: strands of unequal length can be padded that way.

    Args:
        key: The source of randomness.
        letters: The base that each round writes.
        levels: The level of each round.
        chances: The table that ``thresholds`` returns.
        copies: The number N of copies.
        first_base: The base (0..3) before the first round.

    Returns:
        The run length of each round in each copy, 0 where the run is lost.
    """
    rows = jnp.asarray(chances)[previous(letters, first_base), letters, levels]

    def runs_of(copy):
        drawn = jax.random.bits(jax.random.fold_in(key, copy), letters.shape, jnp.uint32) >> (32 - CHANCE_BITS)
        return jnp.sum(drawn[:, None] >= rows, axis=-1, dtype=jnp.int32)

    return jax.vmap(runs_of)(jnp.arange(copies, dtype=jnp.int32))


@partial(jax.jit, static_argnames=("copies",))
def _simulate(key, letters, levels, chances, copies, first_base):
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(letters), dtype=jnp.int32))
    return jax.vmap(draw_runs, in_axes=(0, 0, 0, None, None, None))(keys, letters, levels, chances, copies, first_base)


def simulate(
    key: Key[Array, ""],
    letters: Real[Arrayish, "B R"],
    levels: Real[Arrayish, "B R"],
    pmfs: Float64[np.ndarray, "4 4 levels runs"],
    copies: int,
    first_base: int = 0,
) -> Int32[Array, "B N R"]:
    """Draw the run lengths of N copies of B strands.

    Strand i uses the key folded with i, so it does not depend on the other strands. The same key gives the same runs on
    every device. ``draw_runs`` says how strands can be padded.

    Args:
        key: The source of randomness.
        letters: The base that each round writes, 0..3.
        levels: The level of each round.
        pmfs: The table that ``pmf_table`` returns.
        copies: The number N of copies.
        first_base: The base (0..3) before the first round.

    Returns:
        The run length of each round in each copy of each strand, 0 where the run is lost.

    Raises:
        ChannelError: There is less than one copy.
    """
    if copies < 1:
        raise ChannelError(f"copies: {copies}; give at least 1")
    letters, levels = jnp.asarray(letters, jnp.uint8), jnp.asarray(levels, jnp.uint8)
    return _simulate(key, letters, levels, thresholds(pmfs), copies, first_base)


@partial(jax.jit, static_argnames=("split",))
def _split(key, runs, split):
    """Split runs: (run lengths with the foreign bases, position of the foreign base in its run or -1), as ``runs``."""
    chance, position = jax.random.split(key)
    hit = jax.random.bernoulli(chance, jnp.float32(split), runs.shape) & (runs >= 2)
    inside = jax.random.randint(position, runs.shape, 1, jnp.maximum(runs, 2), jnp.int32)
    return runs + hit, jnp.where(hit, inside, -1)


def _read_one(letters, runs, positions, foreign, max_len):
    """Read one copy: letters uint8[R], runs, positions int32[R], foreign uint8[max_len] -> uint8[max_len]."""
    ends = jnp.cumsum(runs, dtype=jnp.int32)
    at = jnp.arange(max_len, dtype=jnp.int32)
    # the round of a base is the number of runs that end at or before it
    passed = jnp.zeros((max_len + 1,), jnp.int32).at[ends].add(1, mode="drop")
    number = jnp.minimum(jnp.cumsum(passed, dtype=jnp.int32)[:max_len], len(letters) - 1)
    base = letters[number]
    inserted = at - (ends - runs)[number] == positions[number]
    return jnp.where(at < ends[-1], jnp.where(inserted, (base + foreign) & 3, base), jnp.uint8(0))


@partial(jax.jit, static_argnames=("sequencer", "max_len"))
def _reads(key, letters, runs, positions, sequencer, max_len):
    shape = (*runs.shape[:2], max_len)
    foreign, chance, other = jax.random.split(key, 3)
    foreign = jax.random.randint(foreign, shape, 1, 4, jnp.uint8) if sequencer.split else jnp.ones(shape, jnp.uint8)
    over_copies = jax.vmap(_read_one, in_axes=(None, 0, 0, 0, None))
    reads = jax.vmap(over_copies, in_axes=(0, 0, 0, 0, None))(letters, runs, positions, foreign, max_len)
    if sequencer.substitution:
        wrong = jax.random.bernoulli(chance, jnp.float32(sequencer.substitution), shape)
        wrong &= lax.broadcasted_iota(jnp.int32, shape, 2) < jnp.sum(runs, axis=-1, dtype=jnp.int32)[..., None]
        reads = jnp.where(wrong, (reads + jax.random.randint(other, shape, 1, 4, jnp.uint8)) & 3, reads)
    return reads


def to_reads(
    key: Key[Array, ""],
    letters: Integer[Arrayish, "B R"],
    runs: Int32[Arrayish, "B N R"],
    sequencer: Sequencer = Sequencer(),
) -> tuple[UInt8[Array, "B N L"], Int32[Array, "B N"]]:
    """Read the bases of each copy as a sequencer gives them.

    Where the run between two runs of the same base is lost, these merge.

    Args:
        key: The source of randomness.
        letters: The base that each round writes.
        runs: The run lengths that ``simulate`` returns.
        sequencer: The errors of the sequencer.

    Returns:
        The reads and their lengths. L is the greatest length, rounded up to a multiple of 128; past its length, a read
        holds 0.
    """
    splitting, reading = jax.random.split(key)
    positions = jnp.full_like(runs, -1)
    if sequencer.split:
        runs, positions = _split(splitting, runs, sequencer.split)
    lengths = jnp.sum(runs, axis=-1, dtype=jnp.int32)
    max_len = max(1, -(-int(lengths.max()) // 128)) * 128
    return _reads(reading, jnp.asarray(letters, jnp.uint8), runs, positions, sequencer, max_len), lengths


# ---- time ------------------------------------------------------------------------------------------


def synthesis_time(
    letters: Integer[Arrayish, "*strands R"],
    levels: Integer[Arrayish, "*strands R"],
    table: TimeTable,
    overhead: float | int = 0.0,
    first_base: int = 0,
) -> Float64[np.ndarray, "*strands"] | float:
    """Return the time that it takes to write each strand, in time units.

    A round whose letter equals the one before it is padding and takes no time.

    Args:
        letters: The base that each round writes.
        levels: The level of each round.
        table: The time table.
        overhead: The time that a round takes beside that of its run, at least 0.
        first_base: The base (0..3) before the first round.

    Returns:
        The time of each strand.

    Raises:
        ChannelError: A level does not exist, or the overhead is negative.
    """
    if not 0 <= overhead < math.inf:
        raise ChannelError(f"overhead: {overhead}; the time that a round takes beside its run is at least 0")
    letters, levels = np.asarray(letters), np.asarray(levels)
    before = np.concatenate([np.full_like(letters[..., :1], first_base), letters[..., :-1]], axis=-1)
    written = letters != before
    times = table.array()
    missing = written & ((levels >= table.levels) | (times[before, letters, np.minimum(levels, table.levels - 1)] == 0))
    if missing.any():
        where = tuple(np.argwhere(missing)[0])
        name = f"{BASES[before[where]]}->{BASES[letters[where]]}"
        raise ChannelError(f"round {where[-1]}: {name} has no level {levels[where]}; the times are {table}")
    return np.where(written, times[before, letters, levels * written] + overhead, 0.0).sum(axis=-1)
