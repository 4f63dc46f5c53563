"""Enumerative coding: bits to paths of the timing graph G that take exactly T time units, and back.

The number of the paths from a base b that take exactly t units is W_t(b), the sum of W_(t - u)(a) over the edges
(b -> a, time u), with W_0 = 1. In a fixed order of the edges, the number of a path (its rank) is the sum, over its
rounds, of the number of paths that branch off there by an earlier edge. A payload of K bits is such a rank, so the time
carries K = floor(log2 W_T) bits. The number of rounds varies from path to path.

Truncated numbers
    W is kept as a mantissa of at most 24 bits in units of 2^unit(t). The unit is the same for all bases, and never
    smaller for a longer time. The share of an edge is W of its end, *rounded down* to the unit of its start, and the
    sum for the start adds up these shares. So the ranks that go through an edge are at most as many as the paths behind
    it, and no two payloads share a path. Everything that a step compares or subtracts then lies in the top bits of the
    rank, in one 32-bit register; the bits below enter as the unit falls. There is no multiplication and no long number,
    and the loss is below 2^-20 bits a round for up to 16 edges (as long as W grows with the time).

    Reading adds up the shares before each edge from the last round *backwards*: in this direction the low bits are
    final at once, and no carry can be pending (as in ``range_coder``).

The edges that leave a base b are numbered (d - 1) * levels + i: this edge leads to base ``b XOR d`` (d = 1..3) at level
i. The tables are made from integers alone, and their SHA-256 is ``digest``. (Enumerative coding: Cover, IEEE Trans. IT
19(1), 1973; timing.md 3.1.)
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Int64, UInt8, UInt32

from helix_jax.timing.graph import BASES, GraphError, TimeTable

MANTISSA = 24  # in bits; a 32-bit register has room for it and for the shift of one round
LARGEST_TABLE = 1 << 25  # in words (128 MiB)

Arrayish = Array | np.ndarray


# ---- edges as symbols ---------------------------------------------------------------------------------


def edge_times(table: TimeTable) -> Int64[np.ndarray, "symbols 4"]:
    """Return the time of each of the 3 levels symbols after each base, 0 where there is no such edge."""
    times = table.array()
    bases = np.arange(4)
    return np.stack([times[bases, bases ^ d, i] for d in (1, 2, 3) for i in range(table.levels)]).astype(np.int64)


def edge_targets(table: TimeTable) -> Int64[np.ndarray, "symbols 4"]:
    """Return the base that each of the 3 levels symbols writes after each base."""
    return np.arange(4)[None] ^ np.repeat([1, 2, 3], table.levels)[:, None]


def shortest_time(table: TimeTable) -> int:
    """Return the shortest time of any edge."""
    return min(t for row in table.times for times in row for t in times)


def check_first_base(first_base: int) -> None:
    """Raise GraphError unless the base is one of 0..3."""
    if first_base not in range(4):
        raise GraphError(f"first base {first_base!r}: give 0, 1, 2 or 3 for {', '.join(BASES)}")


def symbols_to_path(
    symbols: Int32[Arrayish, "B R"], count: int, first_base: int
) -> tuple[UInt8[Array, "B R"], UInt8[Array, "B R"]]:
    """Convert symbols into letters and levels.

    Args:
        symbols: The edge of each round.
        count: The largest number of levels of a transition.
        first_base: The base before the first round.

    Returns:
        The letters and the levels.
    """
    differences = (symbols // count + 1).astype(jnp.uint8)
    letters = lax.associative_scan(jnp.bitwise_xor, differences, axis=1) ^ jnp.uint8(first_base)
    return letters, jnp.asarray(symbols % count).astype(jnp.uint8)


def path_to_symbols(
    letters: UInt8[Arrayish, "B R"], levels: UInt8[Arrayish, "B R"], count: int, first_base: int
) -> tuple[Int32[Array, "B R"], Bool[Array, "B R"]]:
    """Convert letters and levels into symbols, as the inverse of ``symbols_to_path``.

    Args:
        letters: The letter of each round.
        levels: The level of each round.
        count: The largest number of levels of a transition.
        first_base: The base before the first round.

    Returns:
        The symbols, and the mask of the valid ones; a symbol that is not valid is 0.
    """
    first = jnp.full_like(letters[:, :1], first_base)
    differences = (letters ^ jnp.concatenate([first, letters[:, :-1]], axis=1)).astype(jnp.int32)
    valid = (differences > 0) & (differences < 4) & (levels < count)
    symbols = (differences - 1) * count + levels.astype(jnp.int32)
    return jnp.where(valid, symbols, 0), jnp.asarray(valid)


# ---- tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of the coder for paths of ``duration`` time units from ``first_base``.

    Attributes:
        ends: Row t * 4 + b is for t units left after base b. It holds the sums of the shares of symbols 0..n, in units
            of 2^units[t]; the last sum is W' itself, the number of paths that are counted. At t = 0 all are 1.
        units: The exponent of the unit of each time 0..T.
        step: What a symbol subtracts from the number of the row (modulo 2^32), by the last base.
        duration: The time T of the paths.
        levels: The largest number of levels of a transition.
        first_base: The base before the first round.
        longest: The largest number of rounds of a path.
        bits: The payload bits K.
        digest: SHA-256 over all of the above.
    """

    ends: UInt32[np.ndarray, "rows symbols"]
    units: UInt32[np.ndarray, " times"]
    step: UInt32[np.ndarray, "4 symbols"]
    duration: int
    levels: int
    first_base: int
    longest: int
    bits: int
    digest: bytes


def build(table: TimeTable, duration: int, first_base: int = 0) -> Tables:
    """Build the tables for paths of exactly ``duration`` time units.

    Args:
        table: The time table.
        duration: The time of the paths, in time units.
        first_base: The base before the first round, 0..3.

    Returns:
        The tables.

    Raises:
        GraphError: Fewer than two paths take that time, or the table would be too large.
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
        valid = (times > 0) & (before >= 0)
        before = np.where(valid, before, 0)
        ways = np.where(valid, ends[before, -1, targets], 0)
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
    """The arrays of ``Tables`` on the device, flattened."""

    ends: UInt32[Array, " ends"]
    units: UInt32[Array, " times"]
    step: UInt32[Array, " steps"]


class Shape(NamedTuple):
    """The numbers of ``Tables``, which are static under jit; ``top``: the bits of a rank at or above the first unit."""

    duration: int
    levels: int
    first_base: int
    longest: int
    bits: int
    top: int


def on_device(tables: Tables) -> tuple[DeviceTables, Shape]:
    """Move tables to the device: the arrays, and the static numbers."""
    arrays = DeviceTables(*(jnp.asarray(a.reshape(-1)) for a in (tables.ends, tables.units, tables.step)))
    top = tables.bits - int(tables.units[-1])
    return arrays, Shape(tables.duration, tables.levels, tables.first_base, tables.longest, tables.bits, top)


def _look_up(array, index):
    # clip, rather than promise indices in bounds: a path that is read may take more time than the tables have
    return array.at[index].get(mode="clip")


def encode(
    arrays: DeviceTables, words: UInt32[Arrayish, "B {-(-shape.bits//32)}"], *, shape: Shape
) -> tuple[UInt8[Array, "B {shape.longest}"], UInt8[Array, "B {shape.longest}"], Int32[Array, " B"]]:
    """Encode payloads into paths.

    Args:
        arrays: The tables.
        words: The payloads of K bits, with the first bit most significant, and zeros after bit K.
        shape: The numbers of the tables.

    Returns:
        The base that each round writes; its level; and the number of rounds of each path. Past that number, letters and
        levels are 0.
    """
    symbols, inside = jax.vmap(lambda payload: _unrank(arrays, payload, shape))(words)
    letters, levels = symbols_to_path(symbols, shape.levels, shape.first_base)
    letters, levels = (jnp.where(inside, array, jnp.uint8(0)) for array in (letters, levels))
    return letters, levels, inside.sum(axis=1, dtype=jnp.int32)


def _unrank(arrays, words, shape):
    """Convert one payload into (symbols int32[R], mask of the rounds that the path has bool[R])."""
    count = 3 * shape.levels
    words = jnp.concatenate([words, jnp.zeros_like(words[:1])])

    def step(carry, _):
        row, rank, position = carry
        inside = row >= 4
        ends = jnp.stack([_look_up(arrays.ends, row * count + n) for n in range(count - 1)])
        passed = rank >= ends
        symbol = jnp.sum(passed, dtype=jnp.uint32)
        low = jnp.max(jnp.where(passed, ends, 0))
        after = row - jnp.where(inside, _look_up(arrays.step, (row & 3) * count + symbol), 0)
        shift = _look_up(arrays.units, row >> 2) - _look_up(arrays.units, after >> 2)
        word, offset = position >> 5, position & 31
        window = (_look_up(words, word) << offset) | ((_look_up(words, word + 1) >> 1) >> (31 - offset))
        rank = ((rank - low) << shift) | ((window >> 1) >> (31 - shift))
        return (after, rank, position + shift), (symbol.astype(jnp.int32), inside)

    first_row = jnp.uint32(shape.duration * 4 + shape.first_base)
    carry = (first_row, (words[0] >> 1) >> (31 - shape.top), jnp.uint32(shape.top))
    return lax.scan(step, carry, None, length=shape.longest)[1]


def decode(
    arrays: DeviceTables,
    letters: UInt8[Arrayish, "B {shape.longest}"],
    levels: UInt8[Arrayish, "B {shape.longest}"],
    rounds: Int32[Arrayish, " B"],
    *,
    shape: Shape,
) -> tuple[UInt32[Array, "B {-(-shape.bits//32)}"], Bool[Array, " B"]]:
    """Decode paths into payloads.

    Args:
        arrays: The tables.
        letters: The base of each round, of any value; what lies past the rounds of a path is ignored.
        levels: The level of each round, likewise.
        rounds: The number of rounds of each path, of any value.
        shape: The numbers of the tables.

    Returns:
        The payloads, and whether each path is one that ``encode`` writes. The words of other paths mean nothing.
    """
    symbols, valid = path_to_symbols(letters, levels, shape.levels, shape.first_base)
    inside = jnp.arange(shape.longest, dtype=jnp.int32)[None, :] < rounds[:, None]
    words, ok = jax.vmap(lambda path, inside: _rank(arrays, path, inside, shape))(symbols, inside)
    return words, ok & (valid | ~inside).all(axis=1) & (rounds >= 0) & (rounds <= shape.longest)


def _rank(arrays, symbols, inside, shape):
    """Convert one path into (payload uint32[ceil(K / 32)], ok)."""
    count = 3 * shape.levels

    def forward(row, item):
        symbol, inside = item
        end = _look_up(arrays.ends, row * count + symbol)
        low = jnp.where(symbol > 0, _look_up(arrays.ends, row * count + symbol - 1), 0)
        after = row - _look_up(arrays.step, (row & 3) * count + symbol)
        # past the end, nothing changes: the share is 1 and the unit stays
        low, share = jnp.where(inside, low, 0), jnp.where(inside, end - low, 1)
        after = jnp.where(inside, after, row)
        unit = _look_up(arrays.units, row >> 2)
        return after, (low, share, unit - _look_up(arrays.units, after >> 2), shape.bits - unit)

    start = jnp.uint32(shape.duration * 4 + shape.first_base)
    last, steps = lax.scan(forward, start, (symbols.astype(jnp.uint32), inside))
    # before these steps comes one that brings in the first bits: it leaves nothing if the rank is below 2^K
    steps = [jnp.append(jnp.uint32(first), array) for first, array in zip((0, 1, shape.top, 0), steps, strict=True)]

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

    (_, ok, _), words = lax.scan(backward, (jnp.uint32(0), last < 4, jnp.uint32(0)), steps, reverse=True)
    start = 32 * jnp.arange(-(-shape.bits // 32), dtype=jnp.uint32)
    where = jnp.searchsorted(steps[3], start, side="right", method="scan_unrolled") - 1
    return words[where], ok
