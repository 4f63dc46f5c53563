"""Bits <-> data paths of strands: the coder of a scheme, range coder or state splitting, behind one pair of functions.

Every path has the scheme's number of rounds. The range coder's blocks have it by construction. The state-splitting
coder fixes the time and not the rounds, so a strand begins with a salt of 8 bits, and what follows is xored with a
stream of that salt; the writer takes the first salt for which the number of rounds is right.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from helix_jax import keyed, parallel
from helix_jax.errors import HelixError
from helix_jax.timing import block_coder, finite_state, rounds, state_splitting
from helix_jax.timing.graph import ordinary_graph

_BATCH = 4096
_SALT_BITS = 8
_KEY = b"salt.001"
_SAMPLE = 2048


class PathError(HelixError):
    """Payloads that cannot be written; the message says what to change."""


class Coder(NamedTuple):
    """bits: payload bits of a strand. data: rounds. splitting: True for the state-splitting coder. arrays, shape: of
    the coder; edges: of the time table. units: time units of the coded part (state splitting)."""

    bits: int
    data: int
    splitting: bool
    arrays: object
    shape: object
    edges: object
    units: int


@functools.lru_cache(maxsize=8)
def coder(scheme):
    """Scheme -> Coder. Raises GraphError or SplittingError where the scheme has no coder."""
    if scheme.splitting is None:
        block = block_coder.build_block(scheme.table, scheme.data, scheme.duration)
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


def typical_rounds(table, splitting, duration):
    """The most frequent number of rounds of a state-splitting coder's paths of so many time units."""
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


def write(coder, symbols, step=None):
    """Payload bytes uint8[n, s], 8 s <= bits -> (letters uint8[n, data], levels uint8[n, data]).

    Raises PathError where no salt gives a strand the right number of rounds.
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
        found = parallel.map_batches(
            _write_split, (coder.arrays, coder.edges), words, batch=_BATCH, shape=coder.shape,
            blocks=(coder.bits + _SALT_BITS) // coder.shape.p,
        )  # fmt: skip
        good = found[2] == coder.data
        letters[todo[good]], levels[todo[good]] = found[0][good][:, : coder.data], found[1][good][:, : coder.data]
        todo = todo[~good]
        if step:
            step(int(good.sum()))
    if not len(todo):
        return letters, levels
    raise PathError(f"no salt gives {len(todo)} strands {coder.data} rounds: choose another number of data rounds")


def read(coder, letters, levels):
    """Inverse of ``write``: (bytes uint8[n, bits // 8], ok bool[n]); ok is False for what is no path of the coder."""
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
    """Bytes uint8[n, s] -> uint32[n, ceil(bits / 32)], first bit most significant, zeros after them."""
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
    count = jax.numpy.full(len(letters), letters.shape[1], jax.numpy.int32)
    labels, legal = rounds.from_rounds(edges, letters, levels, count, units=units)
    tags, ok = finite_state.decode(arrays, labels, shape=shape)
    return finite_state.from_tags(tags, shape=shape, bits=bits), ok & legal
