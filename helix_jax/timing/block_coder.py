"""Blocks: payloads of K bits to paths of exactly R rounds and exactly T time units, and back, by the range coder.

Every payload has its own path of the timing graph G. The state is (rounds left, time left, base), and a symbol is
chosen in proportion to the number of ways to finish after it (``coder_counts`` says how, and proves K). Strands then
agree in rounds as well as in time, so the durations of all of them fill one rectangle. Symbols are the edges that leave
a base, numbered as in ``enumerative``. The tables are bit-identical on every machine, and their SHA-256 is ``digest``.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8, UInt32

from helix_jax import range_coder
from helix_jax.timing import capacity
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
from helix_jax.timing.graph import BASES, GraphError, TimeTable

Arrayish = Array | np.ndarray

# ---- tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Block:
    """The tables of the coder for paths of ``rounds`` rounds and ``duration`` time units from ``first_base``.

    Attributes:
        rows: There are rounds * width * 4 rows. Row (n * width + e) * 4 + b is the state after n rounds whose last base
            is b, with e time units left (0 <= e < width) beyond the shortest time for each round that is left. It holds
            the 3 levels - 1 inner cumulative counts (out of 2^15), two in a word, the first in the low half.
        step: What each symbol adds to the number of the row (modulo 2^32), by the last base.
        rounds: The number of rounds of every path.
        duration: The time of every path.
        levels: The largest number of levels of a transition.
        width: The number of values of e.
        first_base: The base before the first round.
        bits: The payload bits K that every path carries, proven for every payload.
        digest: SHA-256 over all of the above but ``bits``.
    """

    rows: UInt32[np.ndarray, "rows words"]
    step: UInt32[np.ndarray, "4 symbols"]
    rounds: int
    duration: int
    levels: int
    width: int
    first_base: int
    bits: int
    digest: bytes


def _after(table, width):
    """Return the state (e * 4 + b) one round later, for each symbol and state; width * 4 where there is no such edge.

    The result is int64[3 levels, width * 4].
    """
    times, target = edge_times(table)[:, None, :], edge_targets(table)[:, None, :]
    left = np.arange(width)[:, None] - (times - shortest_time(table))
    return np.where((times > 0) & (left >= 0), left * 4 + target, width * 4).reshape(len(times), -1)


def best_rounds(table: TimeTable, duration: int, first_base: int = 0) -> int:
    """Return the number of rounds that most paths of exactly ``duration`` time units have.

    It is the smaller one of two such numbers. For long times it is close to alpha * duration.

    Args:
        table: The time table.
        duration: The time of the paths, in time units.
        first_base: The base before the first round, 0..3.

    Returns:
        The number of rounds.

    Raises:
        GraphError: No path takes exactly that time.
    """
    check_first_base(first_base)
    shortest = shortest_time(table)
    width = max(duration, 0) + 1
    after = _after(table, width)
    # by the excess e, counted from the end: a path of n rounds takes n * shortest + e
    fraction, exponent = np.zeros(width * 4 + 1), np.full(width * 4 + 1, NOTHING)
    fraction[:4], exponent[:4] = 0.5, 1
    best, best_number = (NOTHING, 0.0), 0
    for rounds in range(1, duration // shortest + 1):
        reach = min((table.longest - shortest) * rounds, duration - rounds * shortest) + 1
        columns = after[:, : reach * 4]
        values, top = align(fraction[columns], exponent[columns])
        fraction[: reach * 4], exponent[: reach * 4] = split(add(values), top)
        end = (duration - rounds * shortest) * 4 + first_base
        if end < reach * 4 and (exponent[end], fraction[end]) > best:
            best, best_number = (exponent[end], fraction[end]), rounds
    if not best_number:
        raise GraphError(f"no path from {BASES[first_base]} takes exactly {duration} time units: choose another time")
    return best_number


def nearest_block(table: TimeTable, rounds: int) -> Block:
    """Build the tables for paths of ``rounds`` rounds, all of the possible time nearest to that of most such paths.

    Args:
        table: The time table.
        rounds: The number of rounds.

    Returns:
        The tables.

    Raises:
        GraphError: No such path carries a bit.
    """
    mean = round(rounds * capacity.chain(table).mean_time)
    for duration in sorted(range(1, 2 * mean), key=lambda duration: abs(duration - mean)):
        with contextlib.suppress(GraphError):  # there may be no path of so many rounds that takes this time
            return build_block(table, rounds, duration)
    raise GraphError(f"no paths of {rounds} rounds carry a bit: use more rounds, or more times")


def build_block(table: TimeTable, rounds: int, duration: int, first_base: int = 0) -> Block:
    """Build the tables of the coder.

    Args:
        table: The time table.
        rounds: The number of rounds of every path.
        duration: The time of every path, in time units.
        first_base: The base before the first round, 0..3, which takes no time.

    Returns:
        The tables.

    Raises:
        GraphError: No such path exists, a path carries no bit, or the table would be too large.
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
    # the number of payloads that is proven for each state (e * 4 + b); the last entry, 0, stands for no state
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
    bits = int(exponent[start]) - 1  # fraction >= 0.5, so there are at least 2^bits payloads
    if bits < 1:
        raise GraphError(f"{name} carry no bit: use longer ones")
    step = _steps(table, width)
    digest = hashlib.sha256(repr(("block", rounds, duration, table.levels, width, first_base)).encode())
    digest.update(rows.astype("<u4").tobytes())
    digest.update(step.astype("<u4").tobytes())
    rows = rows.reshape(-1, halves)
    return Block(rows, step, rounds, duration, table.levels, width, first_base, bits, digest.digest())


def _steps(table, width):
    """Return ``Block.step``. Edges that do not exist count as if they took the shortest time; no path takes them."""
    extra = np.maximum(edge_times(table) - shortest_time(table), 0)
    return ((width - extra) * 4 + edge_targets(table) - np.arange(4)[None]).T.astype(np.uint32)


# ---- bits <-> paths -----------------------------------------------------------------------------------


class DeviceBlock(NamedTuple):
    """The arrays of a Block on the device, flattened."""

    rows: UInt32[Array, " rows"]
    step: UInt32[Array, " steps"]


class BlockShape(NamedTuple):
    """The numbers of a Block, which are static under jit."""

    rounds: int
    levels: int
    width: int
    first_base: int
    bits: int


def block_on_device(block: Block) -> tuple[DeviceBlock, BlockShape]:
    """Move the tables to the device: the arrays, and the static numbers."""
    arrays = DeviceBlock(jnp.asarray(block.rows.reshape(-1)), jnp.asarray(block.step.reshape(-1)))
    return arrays, BlockShape(block.rounds, block.levels, block.width, block.first_base, block.bits)


def _block_model(arrays, shape):
    """Return the model of one path for the range coder."""
    symbols = 3 * shape.levels

    def advance(row, _, symbol):
        # clip, rather than promise indices in bounds: a path that is read may go where none is written
        return row + arrays.step.at[(row & 3) * symbols + symbol.astype(jnp.uint32)].get(mode="clip")

    start = (shape.width - 1) * 4 + shape.first_base
    return range_coder.Model(jnp.uint32(start), lambda row, _: read_counts(arrays.rows, row, symbols), advance)


def encode_block(
    arrays: DeviceBlock, words: UInt32[Arrayish, "B {-(-shape.bits//32)}"], *, shape: BlockShape
) -> tuple[UInt8[Array, "B {shape.rounds}"], UInt8[Array, "B {shape.rounds}"]]:
    """Encode payloads into paths.

    Every path takes exactly the time of the block, and every payload has its own path.

    Args:
        arrays: The tables.
        words: The payloads of K bits, with the first bit most significant, and zeros after bit K.
        shape: The numbers of the tables.

    Returns:
        The base that each round writes, and its level.
    """
    model = _block_model(arrays, shape)

    def to_symbols(payload):
        return range_coder.bits_to_symbols(model, payload, length=shape.rounds)

    return symbols_to_path(jax.vmap(to_symbols)(words), shape.levels, shape.first_base)


def decode_block(
    arrays: DeviceBlock,
    letters: UInt8[Arrayish, "B {shape.rounds}"],
    levels: UInt8[Arrayish, "B {shape.rounds}"],
    *,
    shape: BlockShape,
) -> tuple[UInt32[Array, "B {-(-shape.bits//32)}"], Bool[Array, " B"]]:
    """Decode paths into payloads.

    Args:
        arrays: The tables.
        letters: The base of each round, of any value.
        levels: The level of each round, of any value.
        shape: The numbers of the tables.

    Returns:
        The payloads, and whether each path is valid. It is not if it is no path of G, takes another time than the
        block's, or has a transition that is never written at that position; its words then mean nothing. A valid path
        may still be one that no payload has: it is read as the payload before it.
    """
    symbols, valid = path_to_symbols(letters, levels, shape.levels, shape.first_base)
    model = _block_model(arrays, shape)

    def to_bits(path):
        return range_coder.symbols_to_bits(model, path, bits=shape.bits)

    words, ok = jax.vmap(to_bits)(symbols)
    return words, ok & valid.all(axis=1)
