"""A simulator of the timing channel: N copies of strands, their reads, and the time that synthesis takes."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float64, Int32, Integer, Key, Real, UInt8, UInt32

from helix_jax.timing.channel import ChannelError
from helix_jax.timing.graph import BASES, TimeTable

CHANCE_BITS = 31  # random numbers are integers of so many bits

Arrayish = Array | np.ndarray


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
