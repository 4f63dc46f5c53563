"""Blocks: payloads of K bits <-> paths of exactly R rounds and exactly T time units, by the range coder.

Every payload has its own path of the timing graph G. The state is (rounds left, time left, base); a symbol is chosen in
proportion to the number of ways to finish after it (``coder_counts`` says how, and proves K). Strands then agree in
rounds as well as in time, so all of them fill one rectangle of durations. Symbols are the edges that leave a base,
numbered as in ``enumerative``. The tables are bit-identical on every machine; their SHA-256 is ``digest``.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from helix_jax import range_coder
from helix_jax.timing.coder_counts import (
    NOTHING,
    add,
    align,
    pack_counts,
    payloads_proven,
    read_counts,
    share_counts,
    split,
)
from helix_jax.timing.enumerative import (
    LARGEST_TABLE,
    check_first_base,
    edge_targets,
    edge_times,
    path_to_symbols,
    shortest_time,
    symbols_to_path,
)
from helix_jax.timing.graph import BASES, GraphError

# ---- tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Block:
    """What the coder needs for paths of ``rounds`` rounds and ``duration`` time units from ``first_base``.

    rows: uint32[N, H], N = rounds * width * 4 and H = ceil((3 levels - 1) / 2). Row (n * width + e) * 4 + b is the
        state after n rounds whose last base is b, with e time units left beyond the shortest time for each round
        left (0 <= e < width). It holds the 3 levels - 1 inner cumulative counts (out of 2^15), two in a word, the
        first in the low half.
    step: uint32[4, 3 levels], what to add to the number of the row (modulo 2^32) after each symbol, by last base.
    levels: most levels of a transition. bits: payload bits that every path carries (K), proven for every payload.
    digest: SHA-256 over all of the above but ``bits``.
    """

    rows: np.ndarray
    step: np.ndarray
    rounds: int
    duration: int
    levels: int
    width: int
    first_base: int
    bits: int
    digest: bytes


def _after(table, width):
    """int64[3 levels, width * 4]: state (e * 4 + b) one round later, for each symbol; width * 4 where there is none."""
    times, target = edge_times(table)[:, None, :], edge_targets(table)[:, None, :]
    left = np.arange(width)[:, None] - (times - shortest_time(table))
    return np.where((times > 0) & (left >= 0), left * 4 + target, width * 4).reshape(len(times), -1)


def best_rounds(table, duration, first_base=0):
    """The number of rounds that the most paths of exactly ``duration`` time units have (the fewer, of two).

    For long times this is close to alpha * duration. Raises GraphError when no path takes exactly that time.
    """
    check_first_base(first_base)
    shortest = shortest_time(table)
    width = max(duration, 0) + 1
    after = _after(table, width)
    # a path of n rounds takes n * shortest and, from its end, an excess of e
    fraction, exponent = np.zeros(width * 4 + 1), np.full(width * 4 + 1, NOTHING)
    fraction[:4], exponent[:4] = 0.5, 1
    best, found = (NOTHING, 0.0), 0
    for rounds in range(1, duration // shortest + 1):
        reach = min((table.longest - shortest) * rounds, duration - rounds * shortest) + 1
        columns = after[:, : reach * 4]
        values, top = align(fraction[columns], exponent[columns])
        fraction[: reach * 4], exponent[: reach * 4] = split(add(values), top)
        end = (duration - rounds * shortest) * 4 + first_base
        if end < reach * 4 and (exponent[end], fraction[end]) > best:
            best, found = (exponent[end], fraction[end]), rounds
    if not found:
        raise GraphError(f"no path from {BASES[first_base]} takes exactly {duration} time units: choose another time")
    return found


def build_block(table, rounds, duration, first_base=0):
    """TimeTable -> Block.

    rounds, duration: of every path. first_base: the base before the first round, 0..3, written with no time.
    Raises GraphError when no such path exists, when a path carries no bit, or when the table would be too large.
    """
    check_first_base(first_base)
    width = duration - rounds * shortest_time(table) + 1
    symbols = 3 * table.levels
    halves = symbols // 2  # words per row: ceil((symbols - 1) / 2)
    name = f"paths of {rounds} rounds and {duration} time units from {BASES[first_base]}"
    if rounds < 1 or width < 1:
        raise GraphError(
            f"no {name}: a round takes at least {shortest_time(table)} time units; "
            f"give 1 to {duration // shortest_time(table)} rounds, or more time"
        )
    if rounds * width * 4 * halves > LARGEST_TABLE:
        raise GraphError(
            f"{name} need a table of {rounds * width * 4 * halves} words, more than {LARGEST_TABLE}: use shorter blocks"
        )
    after = _after(table, width)
    rows = np.zeros((rounds, width * 4, halves), np.uint32)
    # number of payloads proven for each state (e * 4 + b), and 0 for no state
    fraction, exponent = np.zeros(width * 4 + 1), np.full(width * 4 + 1, NOTHING)
    fraction[:4], exponent[:4] = 0.5, 1
    for n in reversed(range(rounds)):
        values, top = align(fraction[after], exponent[after])
        counts = share_counts(values)
        fraction[:-1], exponent[:-1] = split(payloads_proven(counts, values), top)
        rows[n] = pack_counts(counts)
    start = (width - 1) * 4 + first_base
    if not fraction[start]:
        raise GraphError(f"no {name}: choose another time, or the number of rounds that best_rounds gives for it")
    bits = int(exponent[start]) - 1  # fraction >= 0.5, so at least 2^bits payloads
    if bits < 1:
        raise GraphError(f"{name} carry no bit: use longer ones")
    step = _steps(table, width)
    digest = hashlib.sha256(repr(("block", rounds, duration, table.levels, width, first_base)).encode())
    digest.update(rows.astype("<u4").tobytes())
    digest.update(step.astype("<u4").tobytes())
    rows = rows.reshape(-1, halves)
    return Block(rows, step, rounds, duration, table.levels, width, first_base, bits, digest.digest())


def _steps(table, width):
    """See Block.step. Edges that do not exist add as if they took the shortest time: no path takes them."""
    extra = np.maximum(edge_times(table) - shortest_time(table), 0)
    return ((width - extra) * 4 + edge_targets(table) - np.arange(4)[None]).T.astype(np.uint32)


# ---- bits <-> paths -----------------------------------------------------------------------------------


class DeviceBlock(NamedTuple):
    """The arrays of a Block on the device, flat: rows uint32[N H] and step uint32[4 * 3 levels]."""

    rows: jax.Array
    step: jax.Array


class BlockShape(NamedTuple):
    """The numbers of a Block: static under jit."""

    rounds: int
    levels: int
    width: int
    first_base: int
    bits: int


def block_on_device(block):
    """Block -> (DeviceBlock, BlockShape)."""
    arrays = DeviceBlock(jnp.asarray(block.rows.reshape(-1)), jnp.asarray(block.step.reshape(-1)))
    return arrays, BlockShape(block.rounds, block.levels, block.width, block.first_base, block.bits)


def _block_model(arrays, shape, zero):
    """Model of one path for the range coder. zero: uint32 scalar 0."""
    symbols = 3 * shape.levels

    def advance(row, _, symbol):
        # clip, not "in bounds": a path that is read may go where none is written
        return row + arrays.step.at[(row & 3) * symbols + symbol.astype(jnp.uint32)].get(mode="clip")

    start = (shape.width - 1) * 4 + shape.first_base
    return range_coder.Model(zero + jnp.uint32(start), lambda row, _: read_counts(arrays.rows, row, symbols), advance)


def encode_block(arrays, words, *, shape):
    """Payloads -> paths.

    words: uint32[B, ceil(K / 32)], first bit most significant, zeros after bit K.
    Returns (letters uint8[B, R], levels uint8[B, R]): the base that each round writes, and its level. Every path
    takes exactly the block's duration, and every payload has its own.
    """
    chex.assert_shape(words, (None, -(-shape.bits // 32)))
    chex.assert_type(words, jnp.uint32)

    def one(payload):
        model = _block_model(arrays, shape, payload[0] & 0)
        return range_coder.bits_to_symbols(model, payload, length=shape.rounds)

    return symbols_to_path(jax.vmap(one)(words), shape.levels, shape.first_base)


def decode_block(arrays, letters, levels, *, shape):
    """Paths -> payloads.

    letters, levels: uint8[B, R], any values. Returns (words uint32[B, ceil(K / 32)], ok bool[B]); ok is False for what
    is no path of G, takes another time than the block's, or has a transition that is never written there; its words
    mean nothing. A path with ok may still be one that no payload has: it reads as the payload before it.
    """
    chex.assert_shape([letters, levels], (None, shape.rounds))
    chex.assert_type([letters, levels], jnp.uint8)
    symbols, legal = path_to_symbols(letters, levels, shape.levels, shape.first_base)

    def one(path):
        model = _block_model(arrays, shape, (path[0] & 0).astype(jnp.uint32))
        return range_coder.symbols_to_bits(model, path, bits=shape.bits)

    words, ok = jax.vmap(one)(symbols)
    return words, ok & legal.all(axis=1)
