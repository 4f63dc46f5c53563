"""The timing channel: laws of run lengths, and a simulator of N copies.

A round writes base a after base b for time t; in every copy, independently, the run of a gets a length drawn from the
law D_{b->a}(t) (ISIT 2020, "Framework"). Length 0 loses the run in that copy. The laws are ours to choose: Binomial,
Poisson, or a table.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax.errors import HelixError
from helix_jax.timing.graph import BASES, TALK

TAIL = 1e-12  # probability cut off the end of an unbounded law
LONGEST_MEAN = 100.0  # bases per time unit; keeps the tables small
CHANCE_BITS = 31  # chances are drawn as integers of so many bits


class ChannelError(HelixError):
    """A law, a sequencer or a schedule that cannot be; the message names the transition, the value and the range."""


# ---- laws ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Binomial:
    """Run length ~ Binomial(t, p[b][a]): in each time unit a copy gains a base with that probability.

    p: 4 x 4 probabilities in 0..1, 0 where b == a. Lists are taken and kept as tuples. Raises ChannelError.
    """

    p: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "p", _square(self.p, "p", 1.0))

    @classmethod
    def uniform(cls, p):
        """The same p for all transitions."""
        return cls(_off_diagonal(p, 0.0))

    def pmf(self, b, a, time):
        """float64[time + 1]: probability of each run length."""
        _check_transition(b, a, time)
        p = self.p[b][a]
        return np.array([math.comb(time, r) * p**r * (1 - p) ** (time - r) for r in range(time + 1)])


@dataclass(frozen=True)
class Poisson:
    """Run length ~ Poisson(mean[b][a] * t).

    mean: 4 x 4 mean run lengths per time unit, in 0..100, 0 where b == a. Lists are taken and kept as tuples. Raises
    ChannelError.
    """

    mean: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "mean", _square(self.mean, "mean", LONGEST_MEAN))

    @classmethod
    def uniform(cls, mean):
        """The same mean run length per time unit for all transitions."""
        return cls(_off_diagonal(mean, 0.0))

    def pmf(self, b, a, time):
        """float64[r_max + 1]: probability of each run length; what lies past r_max (below 1e-12) is counted at it."""
        _check_transition(b, a, time)
        return poisson_pmf(self.mean[b][a] * time)


@dataclass(frozen=True)
class Tabulated:
    """Run length by a table, for example a measured one.

    pmfs: pmfs[b][a][t - 1] is the tuple of probabilities of run lengths 0, 1, ... at time t; () where that time was not
    measured, and always for b == a. Each sums to 1 within 1e-6 and is kept normalised. Lists are taken and kept as
    tuples. Raises ChannelError.
    """

    pmfs: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]

    def __post_init__(self):
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
    def uniform(cls, pmfs):
        """The same table for all transitions: pmfs[t - 1][r]."""
        return cls(_off_diagonal(pmfs, ()))

    def pmf(self, b, a, time):
        """float64[r_max + 1]: probability of each run length. Raises ChannelError where the table lacks the time."""
        _check_transition(b, a, time)
        rows = self.pmfs[b][a]
        if time > len(rows) or not rows[time - 1]:
            known = [t for t, row in enumerate(rows, 1) if row]
            raise ChannelError(f"{BASES[b]}->{BASES[a]} time {time}: the table has times {known}; add this one to it")
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


def poisson_pmf(mean):
    """float64[r_max + 1] of Poisson(mean): r_max the least with a tail below 1e-12, and that tail counted at it."""
    if mean == 0:
        return np.ones(1)
    run = np.arange(int(mean + 12 * math.sqrt(mean) + 40))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(run[1:]))])
    pmf = np.exp(run * math.log(mean) - mean - log_factorial)
    tail = np.cumsum(pmf[::-1])[::-1]  # P(run >= r)
    keep = int(np.count_nonzero(tail >= TAIL))
    pmf = np.append(pmf[: keep - 1], tail[keep - 1])
    return pmf / pmf.sum()


def pmf_table(law, table):
    """Probabilities of all run lengths: float64[4, 4, levels, r_max + 1] by (b, a, level, run length).

    Zeros past the end of a shorter pmf, and all zeros where ``table`` (graph.TimeTable) has no such level.
    """
    rows = {(b, a, level): law.pmf(b, a, time) for b, a, level, time in table.edges().tolist()}
    out = np.zeros((4, 4, table.levels, max(map(len, rows.values()))))
    for where, row in rows.items():
        out[where][: len(row)] = row
    return out


TALK_LAW = Binomial(
    tuple(tuple({2: 0.85, 3: 0.70, 4: 0.58}[times[-1]] if times else 0.0 for times in row) for row in TALK.times)
)  # the talk's second times 2, 3, 4 are what these give with N = 5, delta = 0.02


# ---- simulator -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequencer:
    """What the reader adds. Raises ChannelError.

    substitution: chance of each base to be read as one of the three others.
    split: chance of each run of 2 or more bases to be read with one foreign base put in somewhere inside it.
    """

    substitution: float = 0.0
    split: float = 0.0

    def __post_init__(self):
        for name in ("substitution", "split"):
            if not 0 <= getattr(self, name) <= 1:
                raise ChannelError(f"{name}: {getattr(self, name)} is no probability; it lies in 0..1")


def thresholds(pmfs):
    """Table for ``draw_runs``: pmfs float64[4, 4, levels, r_max + 1] -> uint32 of that shape, P(run <= r) * 2^31.

    An all-zero pmf (no such level) becomes a run of length 0 for sure.
    """
    share = np.where(pmfs.sum(axis=-1, keepdims=True) > 0, np.cumsum(pmfs, axis=-1), 1.0)
    share[..., -1] = 1.0
    return np.round(np.minimum(share, 1.0) * 2.0**CHANCE_BITS).astype(np.uint32)


def previous(letters, first_base=0):
    """Base before each round: letters uint8[..., R] -> uint8[..., R]; ``first_base`` before the first."""
    return jnp.concatenate([jnp.full_like(letters[..., :1], first_base), letters[..., :-1]], axis=-1)


def draw_runs(key, letters, levels, chances, copies, first_base=0):
    """Run lengths of the copies of one strand; pure, vmap it over strands.

    letters, levels: uint8[R]. chances: uint32[4, 4, levels, r_max + 1] of ``thresholds``.
    Returns int32[copies, R]. A copy depends on its number only, not on how many there are. A round whose letter is the
    one before it, or whose level does not exist, writes nothing: pad strands of unequal length that way.
    """
    rows = jnp.asarray(chances)[previous(letters, first_base), letters, levels]

    def one(copy):
        drawn = jax.random.bits(jax.random.fold_in(key, copy), letters.shape, jnp.uint32) >> (32 - CHANCE_BITS)
        return jnp.sum(drawn[:, None] >= rows, axis=-1, dtype=jnp.int32)

    return jax.vmap(one)(jnp.arange(copies, dtype=jnp.int32))


@partial(jax.jit, static_argnames=("copies",))
def _simulate(key, letters, levels, chances, copies, first_base):
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(letters), dtype=jnp.int32))
    return jax.vmap(draw_runs, in_axes=(0, 0, 0, None, None, None))(keys, letters, levels, chances, copies, first_base)


def simulate(key, letters, levels, pmfs, copies, first_base=0):
    """Run lengths of N copies of B strands: int32[B, N, R], 0 where the run is lost.

    letters, levels: uint8[B, R]; pmfs: float64[4, 4, levels, r_max + 1] of ``pmf_table``; copies: N; first_base: the
    base (0..3) before the first round. Strand i uses the key folded with i, so it does not depend on the others. The
    same key gives the same runs on every device. See ``draw_runs`` for padding. Raises ChannelError.
    """
    if copies < 1:
        raise ChannelError(f"copies: {copies}; give at least 1")
    letters, levels = jnp.asarray(letters, jnp.uint8), jnp.asarray(levels, jnp.uint8)
    return _simulate(key, letters, levels, thresholds(pmfs), copies, first_base)


@partial(jax.jit, static_argnames=("split",))
def _split(key, runs, split):
    """Runs as read: (lengths with the foreign bases, place of the foreign base in its run or -1), as ``runs``."""
    chance, place = jax.random.split(key)
    hit = jax.random.bernoulli(chance, jnp.float32(split), runs.shape) & (runs >= 2)
    inside = jax.random.randint(place, runs.shape, 1, jnp.maximum(runs, 2), jnp.int32)
    return runs + hit, jnp.where(hit, inside, -1)


def _read_one(letters, runs, places, foreign, max_len):
    """One copy: letters uint8[R], runs, places int32[R], foreign uint8[max_len] -> uint8[max_len]."""
    ends = jnp.cumsum(runs, dtype=jnp.int32)
    at = jnp.arange(max_len, dtype=jnp.int32)
    # the round of a base is the number of runs that end at or before it
    passed = jnp.zeros((max_len + 1,), jnp.int32).at[ends].add(1, mode="drop")
    number = jnp.minimum(jnp.cumsum(passed, dtype=jnp.int32)[:max_len], len(letters) - 1)
    base = letters[number]
    strange = at - (ends - runs)[number] == places[number]
    return jnp.where(at < ends[-1], jnp.where(strange, (base + foreign) & 3, base), jnp.uint8(0))


@partial(jax.jit, static_argnames=("sequencer", "max_len"))
def _reads(key, letters, runs, places, sequencer, max_len):
    shape = (*runs.shape[:2], max_len)
    foreign, chance, other = jax.random.split(key, 3)
    foreign = jax.random.randint(foreign, shape, 1, 4, jnp.uint8) if sequencer.split else jnp.ones(shape, jnp.uint8)
    over_copies = jax.vmap(_read_one, in_axes=(None, 0, 0, 0, None))
    reads = jax.vmap(over_copies, in_axes=(0, 0, 0, 0, None))(letters, runs, places, foreign, max_len)
    if sequencer.substitution:
        wrong = jax.random.bernoulli(chance, jnp.float32(sequencer.substitution), shape)
        wrong &= lax.broadcasted_iota(jnp.int32, shape, 2) < jnp.sum(runs, axis=-1, dtype=jnp.int32)[..., None]
        reads = jnp.where(wrong, (reads + jax.random.randint(other, shape, 1, 4, jnp.uint8)) & 3, reads)
    return reads


def to_reads(key, letters, runs, sequencer=Sequencer()):
    """Bases of each copy, as a sequencer gives them.

    letters: uint8[B, R]; runs: int32[B, N, R] of ``simulate``.
    Returns (reads uint8[B, N, L], lengths int32[B, N]); L is the greatest length rounded up to a multiple of 128, and
    past its length a read holds 0. Where the run between two runs of the same base is lost, they merge.
    """
    splitting, reading = jax.random.split(key)
    places = jnp.full_like(runs, -1)
    if sequencer.split:
        runs, places = _split(splitting, runs, sequencer.split)
    lengths = jnp.sum(runs, axis=-1, dtype=jnp.int32)
    max_len = max(1, -(-int(lengths.max()) // 128)) * 128
    return _reads(reading, jnp.asarray(letters, jnp.uint8), runs, places, sequencer, max_len), lengths


# ---- time ------------------------------------------------------------------------------------------


def synthesis_time(letters, levels, table, overhead=0.0, first_base=0):
    """Time to write each strand, in time units: float64[...].

    letters, levels: uint8[..., R]; table: graph.TimeTable; overhead: time of a round beside that of its run. A round
    whose letter is the one before it is padding and takes no time. Raises ChannelError for a level that does not exist
    or a negative overhead.
    """
    if not 0 <= overhead < math.inf:
        raise ChannelError(f"overhead: {overhead}; the time that a round takes beside its run is at least 0")
    letters, levels = np.asarray(letters), np.asarray(levels)
    before = np.concatenate([np.full_like(letters[..., :1], first_base), letters[..., :-1]], axis=-1)
    real = letters != before
    times = table.array()
    missing = real & ((levels >= table.levels) | (times[before, letters, np.minimum(levels, table.levels - 1)] == 0))
    if missing.any():
        where = tuple(np.argwhere(missing)[0])
        name = f"{BASES[before[where]]}->{BASES[letters[where]]}"
        raise ChannelError(f"round {where[-1]}: {name} has no level {levels[where]}; the times are {table}")
    return np.where(real, times[before, letters, levels * real] + overhead, 0.0).sum(axis=-1)
