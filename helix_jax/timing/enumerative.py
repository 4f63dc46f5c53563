"""Bits <-> paths of the timing graph G that take exactly T time units, by enumeration.

The paths from a base b that take exactly t units number W_t(b) = sum over the edges (b -> a, time u) of W_(t - u)(a),
with W_0 = 1. In a fixed order of the edges, the number of a path (its rank) is the sum, over its rounds, of the paths
that part from it there by an earlier edge. A payload of K bits is such a rank, so the time carries K = floor(log2 W_T)
bits. The number of rounds varies from path to path.

Numbers cut short
    W is kept as a mantissa of at most 24 bits in units of 2^unit(t), one unit for all bases, never smaller for a
    longer time. An edge's share, W of its end *rounded down* to the unit of its start, is what the sum for its start
    adds up: so the ranks that go through an edge are at most as many as the paths behind it, and no two payloads
    share a path. All that a step compares or subtracts then lies in the top bits of the rank, in one 32-bit
    register; the bits below enter as the unit falls. There is no multiplication and no long number, and the loss is
    below 2^-20 bits a round for up to 16 edges (as long as W grows with the time).

    Reading adds up the shares before each edge from the last round *backwards*: there the low bits are final at once,
    and no carry can be pending (as in ``range_coder``).

Edges that leave a base b are numbered (d - 1) * levels + i: base ``b XOR d`` (d = 1..3) at level i. The tables are made
of integers alone; their SHA-256 is ``digest``. (Enumerative coding: Cover, IEEE Trans. IT 19(1), 1973; timing.md 3.1.)
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax.timing.graph import BASES, GraphError

MANTISSA = 24  # bits; the shift of one round fits in a 32-bit register with it
LARGEST_TABLE = 1 << 25  # words (128 MiB)


# ---- edges as symbols ---------------------------------------------------------------------------------


def edge_times(table):
    """int64[3 levels, 4]: time of each symbol after each base, 0 where there is no such edge."""
    times = table.array()
    bases = np.arange(4)
    return np.stack([times[bases, bases ^ d, i] for d in (1, 2, 3) for i in range(table.levels)]).astype(np.int64)


def edge_targets(table):
    """int64[3 levels, 4]: the base that each symbol writes after each base."""
    return np.arange(4)[None] ^ np.repeat([1, 2, 3], table.levels)[:, None]


def shortest_time(table):
    """Shortest time of any edge."""
    return min(t for row in table.times for times in row for t in times)


def check_first_base(first_base):
    """Raise GraphError unless it is one of 0..3."""
    if first_base not in range(4):
        raise GraphError(f"first base {first_base!r}: give 0, 1, 2 or 3 for {', '.join(BASES)}")


def symbols_to_path(symbols, count, first_base):
    """Symbols int32[B, R] -> (letters, levels), uint8[B, R]; count: most levels of a transition."""
    differences = (symbols // count + 1).astype(jnp.uint8)
    letters = lax.associative_scan(jnp.bitwise_xor, differences, axis=1) ^ jnp.uint8(first_base)
    return letters, (symbols % count).astype(jnp.uint8)


def path_to_symbols(letters, levels, count, first_base):
    """Inverse of ``symbols_to_path``: (symbols int32[B, R], legal bool[B, R]); where not legal the symbol is 0."""
    first = jnp.full_like(letters[:, :1], first_base)
    differences = (letters ^ jnp.concatenate([first, letters[:, :-1]], axis=1)).astype(jnp.int32)
    legal = (differences > 0) & (differences < 4) & (levels < count)
    symbols = (differences - 1) * count + levels.astype(jnp.int32)
    return jnp.where(legal, symbols, 0), legal


# ---- tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """What the coder needs for paths of ``duration`` time units from ``first_base``.

    ends: uint32[(T + 1) * 4, 3 levels], row t * 4 + b for t units left after base b: the sums of the shares of symbols
        0..n, in units of 2^units[t]; the last is W' itself, the paths counted. At t = 0 all are 1.
    units: uint32[T + 1]. step: uint32[4, 3 levels], what a symbol takes from the number of the row (modulo 2^32), by
        last base.
    levels: most levels of a transition. longest: most rounds of a path. bits: payload bits (K).
    digest: SHA-256 over all of the above.
    """

    ends: np.ndarray
    units: np.ndarray
    step: np.ndarray
    duration: int
    levels: int
    first_base: int
    longest: int
    bits: int
    digest: bytes


def build(table, duration, first_base=0):
    """TimeTable -> Tables for paths of exactly ``duration`` time units; first_base: the base before them, 0..3.

    Raises GraphError when fewer than two paths take that time, or when the table would be too large.
    """
    check_first_base(first_base)
    times, targets = edge_times(table), edge_targets(table)
    name = f"paths of {duration} time units from {BASES[first_base]}"
    if duration < 1:
        raise GraphError(f"{name}: the time must be at least 1")
    if times.size * (duration + 1) > LARGEST_TABLE:
        raise GraphError(
            f"{name} need a table of {times.size * (duration + 1)} words, more than {LARGEST_TABLE}: use shorter blocks"
        )
    units = np.zeros(duration + 1, np.int64)
    ends = np.ones((duration + 1, len(times), 4), np.int64)
    for t in range(1, duration + 1):
        before = t - times
        there = (times > 0) & (before >= 0)
        before = np.where(there, before, 0)
        ways = np.where(there, ends[before, -1, targets], 0)
        unit = units[t - 1]
        while (shares := ways >> np.minimum(unit - units[before], 63)).sum(axis=0).max() >> MANTISSA:
            unit += 1
        units[t], ends[t] = unit, np.cumsum(shares, axis=0)
    top = int(ends[duration, -1, first_base])
    bits = int(units[duration]) + top.bit_length() - 1
    if not top or bits < 1:
        raise GraphError(f"there are fewer than two {name}, which carry no bit: choose another time")
    step = (times * 4 - targets + np.arange(4)[None]).T.astype(np.uint32)
    rows = np.ascontiguousarray(ends.transpose(0, 2, 1).reshape(-1, len(times)), np.uint32)
    longest = duration // shortest_time(table)
    digest = hashlib.sha256(repr(("enumerative", duration, table.levels, first_base, longest, bits)).encode())
    for array in (rows, units, step):
        digest.update(array.astype("<u4").tobytes())
    return Tables(
        rows, units.astype(np.uint32), step, duration, table.levels, first_base, longest, bits, digest.digest()
    )


# ---- bits <-> paths -----------------------------------------------------------------------------------


class DeviceTables(NamedTuple):
    """The arrays of ``Tables`` on the device, flat."""

    ends: jax.Array
    units: jax.Array
    step: jax.Array


class Shape(NamedTuple):
    """The numbers of ``Tables``: static under jit. top: bits of a rank at or above the first unit."""

    duration: int
    levels: int
    first_base: int
    longest: int
    bits: int
    top: int


def on_device(tables):
    """Tables -> (DeviceTables, Shape)."""
    arrays = DeviceTables(*(jnp.asarray(a.reshape(-1)) for a in (tables.ends, tables.units, tables.step)))
    top = tables.bits - int(tables.units[-1])
    return arrays, Shape(tables.duration, tables.levels, tables.first_base, tables.longest, tables.bits, top)


def _look_up(array, index):
    # clip, not "in bounds": a path that is read may take more time than there is
    return array.at[index].get(mode="clip")


def encode(arrays, words, *, shape):
    """Payloads -> paths.

    words: uint32[B, ceil(K / 32)], first bit most significant, zeros after bit K. Returns (letters uint8[B, R],
    levels uint8[B, R], rounds int32[B]) with R = ``shape.longest``: the base that each round writes, and its level;
    past a path's own number of rounds both are 0.
    """
    chex.assert_shape(words, (None, -(-shape.bits // 32)))
    chex.assert_type(words, jnp.uint32)
    symbols, inside = jax.vmap(lambda payload: _unrank(arrays, payload, shape))(words)
    letters, levels = symbols_to_path(symbols, shape.levels, shape.first_base)
    letters, levels = (jnp.where(inside, array, jnp.uint8(0)) for array in (letters, levels))
    return letters, levels, inside.sum(axis=1, dtype=jnp.int32)


def _unrank(arrays, words, shape):
    """One payload -> (symbols int32[R], inside bool[R]: the rounds that the path has)."""
    count = 3 * shape.levels
    words = jnp.concatenate([words, words[:1] & 0])

    def step(carry, _):
        row, rank, position = carry
        inside = row >= 4
        ends = jnp.stack([_look_up(arrays.ends, row * count + n) for n in range(count - 1)])
        passed = rank >= ends
        symbol = jnp.sum(passed, dtype=jnp.uint32)
        low = jnp.max(jnp.where(passed, ends, 0))
        after = row - jnp.where(inside, _look_up(arrays.step, (row & 3) * count + symbol), 0)
        shift = _look_up(arrays.units, row >> 2) - _look_up(arrays.units, after >> 2)
        place, offset = position >> 5, position & 31
        window = (_look_up(words, place) << offset) | ((_look_up(words, place + 1) >> 1) >> (31 - offset))
        rank = ((rank - low) << shift) | ((window >> 1) >> (31 - shift))
        return (after, rank, position + shift), (symbol.astype(jnp.int32), inside)

    zero = words[0] & 0  # not a constant: a constant first carry would fail under shard_map
    carry = (zero + (shape.duration * 4 + shape.first_base), (words[0] >> 1) >> (31 - shape.top), zero + shape.top)
    return lax.scan(step, carry, None, length=shape.longest)[1]


def decode(arrays, letters, levels, rounds, *, shape):
    """Paths -> payloads.

    letters, levels: uint8[B, R], rounds: int32[B], any values; what lies past the rounds of a path is not looked at.
    Returns (words uint32[B, ceil(K / 32)], ok bool[B]); ok is True for exactly the paths that ``encode`` writes, and
    the words of others mean nothing.
    """
    chex.assert_shape([letters, levels], (None, shape.longest))
    chex.assert_type([letters, levels], jnp.uint8)
    chex.assert_type(rounds, jnp.int32)
    symbols, legal = path_to_symbols(letters, levels, shape.levels, shape.first_base)
    inside = jnp.arange(shape.longest, dtype=jnp.int32)[None, :] < rounds[:, None]
    words, ok = jax.vmap(lambda path, here: _rank(arrays, path, here, shape))(symbols, inside)
    return words, ok & (legal | ~inside).all(axis=1) & (rounds >= 0) & (rounds <= shape.longest)


def _rank(arrays, symbols, inside, shape):
    """One path -> (payload uint32[ceil(K / 32)], ok)."""
    count = 3 * shape.levels

    def forward(row, item):
        symbol, inside = item
        end = _look_up(arrays.ends, row * count + symbol)
        low = jnp.where(symbol > 0, _look_up(arrays.ends, row * count + symbol - 1), 0)
        after = row - _look_up(arrays.step, (row & 3) * count + symbol)
        # nothing after the end: there the share is 1 and the unit stays
        low, share = jnp.where(inside, low, 0), jnp.where(inside, end - low, 1)
        after = jnp.where(inside, after, row)
        unit = _look_up(arrays.units, row >> 2)
        return after, (low, share, unit - _look_up(arrays.units, after >> 2), shape.bits - unit)

    zero = (symbols[0] & 0).astype(jnp.uint32)  # as in _unrank
    start = zero + (shape.duration * 4 + shape.first_base)
    last, steps = lax.scan(forward, start, (symbols.astype(jnp.uint32), inside))
    # before them, one that brings in the first bits: it leaves nothing if the rank is below 2^K
    steps = [
        jnp.append(first, array) for first, array in zip((zero, zero + 1, zero + shape.top, zero), steps, strict=True)
    ]

    def backward(carry, item):
        rank, ok, pending = carry
        low, share, shift, position = item
        chunk = rank & ((jnp.uint32(1) << shift) - 1)
        rank = rank >> shift
        end = position + shift
        gap = (0 - end) & 31
        word = pending | (chunk << gap)
        # the word that holds the bit before `end` is complete when it starts at or after `position`
        complete = (shift > 0) & (position <= ((end - 1) & ~jnp.uint32(31)))
        pending = jnp.where(complete, (chunk >> 1) >> (31 - gap), word)
        return (rank + low, ok & (rank < share), pending), word

    (_, ok, _), words = lax.scan(backward, (zero, last < 4, zero), steps, reverse=True)
    start = 32 * jnp.arange(-(-shape.bits // 32), dtype=jnp.uint32)
    where = jnp.searchsorted(steps[3], start, side="right", method="scan_unrolled") - 1
    return words[where], ok
