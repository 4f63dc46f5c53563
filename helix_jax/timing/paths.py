"""The coder of a scheme, range coder or state splitting, behind one pair of functions: from bits to paths, and back.

Every path has the scheme's number of data rounds. The blocks of the range coder have it by construction. The
state-splitting coder fixes the time and not the rounds. A strand therefore begins with a salt of 8 bits, and what
follows is xored with a stream of that salt; the writer takes the first salt for which the number of rounds is right.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax import keyed, parallel
from helix_jax.errors import HelixError
from helix_jax.timing import block_coder, finite_state, rounds, state_splitting
from helix_jax.timing.graph import TimeTable, ordinary_graph

_BATCH = 4096
_SALT_BITS = 8
_KEY = b"salt.001"
_SAMPLE = 2048


class PathError(HelixError):
    """Payloads cannot be written; the message says what to change."""


class Coder(NamedTuple):
    """The coder of a scheme.

    Attributes:
        bits: The payload bits of a strand.
        data: The number of data rounds.
        splitting: True for the state-splitting coder.
        arrays: The tables of the coder: a ``block_coder.DeviceBlock`` or ``finite_state.Arrays``.
        shape: Their numbers: a ``block_coder.BlockShape`` or ``finite_state.Shape``.
        edges: The ``rounds.Edges`` of the time table (state splitting), or None.
        units: The time units of the coded part (state splitting, ``plain_coder``), or 0.
    """

    bits: int
    data: int
    splitting: bool
    arrays: Any
    shape: Any
    edges: rounds.Edges | None
    units: int


@functools.lru_cache(maxsize=8)
def coder(scheme: Any) -> Coder:  # a scheme.Scheme, whose module imports this one
    """Return the coder of a ``scheme.Scheme``.

    Raises GraphError, SplittingError or PathError where the scheme has no coder.
    """
    if scheme.splitting is None:
        block = block_coder.build_block(scheme.counted, scheme.data, scheme.duration)
        if block.bits < 8:
            raise PathError(f"scheme {scheme.name}: {scheme.duration} time units hold no byte; use longer strands")
        arrays, shape = block_coder.block_on_device(block)
        return Coder(block.bits, scheme.data, False, arrays, shape, None, 0)
    p, q = scheme.splitting
    encoder = state_splitting.build(ordinary_graph(scheme.table), p, q)
    blocks = scheme.duration // q - encoder.anticipation
    bits = p * blocks - _SALT_BITS
    if bits < 8:
        raise PathError(
            f"scheme {scheme.name}: {scheme.duration} time units hold no byte at {p}:{q}; use longer strands"
        )
    if scheme.data > scheme.duration // q * q:
        raise PathError(f"scheme {scheme.name}: {scheme.data} data rounds do not fit {scheme.duration} time units")
    arrays, shape = finite_state.on_device(encoder)
    edges = rounds.edges_of(scheme.table)
    return Coder(bits, scheme.data, True, arrays, shape, edges, scheme.duration // q * q)


@functools.lru_cache(maxsize=8)
def plain_coder(scheme: Any) -> Coder:  # as for ``coder``
    """Return the coder of strands of letters alone: all of their data rounds have the level ``plain_level``.

    What such a strand says does not depend on the code of the levels, and few of its runs are lost. Its paths have as
    many rounds as those of ``coder``, and all take the same time, which is near the mean of all such paths.

    Raises:
        PathError: The strands have no room for a byte.
        GraphError: They have none for a bit.
    """
    level = plain_level(scheme)
    table = TimeTable(tuple(tuple(times[level : level + 1] for times in row) for row in scheme.table.times))
    block = block_coder.nearest_block(table, scheme.data)
    if block.bits < 8:
        raise PathError(f"scheme {scheme.name}: {scheme.data} letters hold no byte; use longer strands")
    return Coder(block.bits, scheme.data, False, *block_coder.block_on_device(block), None, block.duration)


def plain_level(scheme: Any) -> int:  # as for ``coder``
    """Return the level of the data rounds of ``plain_coder``: the second, where runs are lost far less often."""
    return min(1, scheme.levels - 1)


def typical_rounds(table: TimeTable, splitting: tuple[int, int], duration: int) -> int:
    """Return the most frequent number of rounds of the paths of a state-splitting coder.

    Args:
        table: The time table.
        splitting: (p, q) of the coder.
        duration: The time of the paths, in time units.

    Returns:
        The number of rounds.

    Raises:
        PathError: The time is too short.
        GraphError: The table cannot be used.
        SplittingError: p:q is above the capacity, or too large.
    """
    p, q = splitting
    encoder = state_splitting.build(ordinary_graph(table), p, q)
    arrays, shape = finite_state.on_device(encoder)
    blocks = duration // q - encoder.anticipation
    if blocks < 1:
        raise PathError(f"{duration} time units are too short for {p}:{q} with anticipation {encoder.anticipation}")
    tags = keyed.stream(_KEY, np.arange(_SAMPLE * blocks)).reshape(_SAMPLE, blocks) % np.uint64(1 << p)
    edges = rounds.edges_of(table)
    count = rounds.to_rounds(edges, finite_state.encode(arrays, tags.astype(np.int32), shape=shape))[2]
    return int(np.bincount(np.asarray(count)).argmax())


def write(
    coder: Coder, symbols: UInt8[np.ndarray, "n s"], step: Callable[[int], None] | None = None
) -> tuple[UInt8[np.ndarray, "n data"], UInt8[np.ndarray, "n data"]]:
    """Encode payloads into paths.

    Args:
        coder: The coder.
        symbols: The payload bytes of each strand, 8 s <= ``coder.bits``.
        step: Called with the number of strands that are newly done.

    Returns:
        The letters and the levels.

    Raises:
        PathError: No salt gives a strand the right number of rounds.
    """
    if not coder.splitting:
        words = _words(symbols, coder.bits)
        return parallel.map_batches(_write_block, coder.arrays, words, batch=_BATCH, progress=step, shape=coder.shape)
    letters = np.zeros((len(symbols), coder.data), np.uint8)
    levels = np.zeros_like(letters)
    todo = np.arange(len(symbols))
    for salt in range(1 << _SALT_BITS):
        if not len(todo):
            break
        rows = np.concatenate([np.full((len(todo), 1), salt, np.uint8), _salted(symbols[todo], salt)], axis=1)
        words = _words(rows, coder.bits + _SALT_BITS)
        salted_letters, salted_levels, count = parallel.map_batches(
            _write_split, (coder.arrays, coder.edges), words, batch=_BATCH, shape=coder.shape,
            blocks=(coder.bits + _SALT_BITS) // coder.shape.p,
        )  # fmt: skip
        good = count == coder.data
        letters[todo[good]] = salted_letters[good][:, : coder.data]
        levels[todo[good]] = salted_levels[good][:, : coder.data]
        todo = todo[~good]
        if step:
            step(int(good.sum()))
    if not len(todo):
        return letters, levels
    raise PathError(f"no salt gives {len(todo)} strands {coder.data} rounds: choose another number of data rounds")


def read(
    coder: Coder, letters: UInt8[np.ndarray, "n data"], levels: UInt8[np.ndarray, "n data"]
) -> tuple[UInt8[np.ndarray, "n s"], Bool[np.ndarray, " n"]]:
    """Decode paths into payloads, as the inverse of ``write``.

    Args:
        coder: The coder.
        letters: The letters of each path.
        levels: The levels of each path.

    Returns:
        The ``coder.bits // 8`` payload bytes of each strand, and whether it is a path of the coder.
    """
    if not coder.splitting:
        words, ok = parallel.map_batches(_read_block, coder.arrays, letters, levels, batch=_BATCH, shape=coder.shape)
        return _bytes(words)[:, : coder.bits // 8], ok
    words, ok = parallel.map_batches(
        _read_split, (coder.arrays, coder.edges), letters, levels, batch=_BATCH, shape=coder.shape, units=coder.units,
        bits=coder.bits + _SALT_BITS,
    )  # fmt: skip
    rows = _bytes(words)[:, : 1 + coder.bits // 8]
    return np.stack([_salted(row[None, 1:], row[0])[0] for row in rows]) if len(rows) else rows[:, 1:], ok


def _salted(symbols, salt):
    count = -(-symbols.shape[1] // 8)
    stream = keyed.stream(_KEY, int(salt) * count + np.arange(count)).astype(">u8").view(np.uint8)
    return symbols ^ stream[None, : symbols.shape[1]]


def _words(rows, bits):
    """Convert bytes uint8[n, s] into uint32[n, ceil(bits / 32)], first bit most significant, zeros after them."""
    padded = np.pad(rows, ((0, 0), (0, 4 * -(-bits // 32) - rows.shape[1])))
    return np.ascontiguousarray(padded).view(">u4").astype(np.uint32)


def _bytes(words):
    return np.ascontiguousarray(words.astype(">u4")).view(np.uint8).reshape(len(words), 4 * words.shape[1])


def _write_block(arrays, words, *, shape):
    return block_coder.encode_block(arrays, words, shape=shape)


def _read_block(arrays, letters, levels, *, shape):
    return block_coder.decode_block(arrays, letters, levels, shape=shape)


def _write_split(constants, words, *, shape, blocks):
    arrays, edges = constants
    tags = finite_state.to_tags(words, shape=shape, length=blocks)
    return rounds.to_rounds(edges, finite_state.encode(arrays, tags, shape=shape))


def _read_split(constants, letters, levels, *, shape, units, bits):
    arrays, edges = constants
    count = jnp.full(len(letters), letters.shape[1], jnp.int32)
    labels, valid = rounds.from_rounds(edges, letters, levels, count, units=units)
    tags, ok = finite_state.decode(arrays, labels, shape=shape)
    return finite_state.from_tags(tags, shape=shape, bits=bits), ok & valid
