"""Streams: payloads to paths of as many rounds as the payload needs, and back, by the range coder.

The weights are those of the stationary max-entropic chain of the timing graph G: the state is the base, and
p(a, i | b) = z^t r_a / r_b, where P(z) r = r for P(z)_ba = sum_i z^t_ba(i) (timing.md 1). Symbols are the edges that
leave a base, numbered as in ``enumerative``; ``coder_counts`` makes the counts and proves how many rounds suffice. The
tables are bit-identical on every machine, and their SHA-256 is ``digest``.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt8, UInt32

from helix_jax import range_coder
from helix_jax.arithmetic import FIRST_BITS, REGISTER_BITS, TOTAL
from helix_jax.timing.coder_counts import add, align, pack_counts, payloads_proven, read_counts, share_counts, split
from helix_jax.timing.enumerative import check_first_base, edge_targets, edge_times, path_to_symbols, symbols_to_path
from helix_jax.timing.graph import GraphError, TimeTable, timing_graph

PROOF_ROUNDS = 1024  # the bound on the number of rounds is proven for this many at a time

Arrayish = Array | np.ndarray


# ---- tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stream:
    """The table of the coder for paths of any length from ``first_base``.

    Attributes:
        rows: Rows that ``pack_counts`` has packed: one for each last base, and one in which symbol 0 is certain, for
            the rounds past the end.
        levels: The largest number of levels of a transition.
        first_base: The base before the first round.
        bits_proven: The bits that PROOF_ROUNDS rounds carry at least, whatever the payload.
        digest: SHA-256 over all of the above but ``bits_proven``.
    """

    rows: UInt32[np.ndarray, "5 words"]
    levels: int
    first_base: int
    bits_proven: int
    digest: bytes

    def longest(self, bits: int) -> int:
        """Return a number of rounds that suffices for every payload of ``bits`` bits."""
        return -(-(bits + 1) // self.bits_proven) * PROOF_ROUNDS


def build_stream(table: TimeTable, first_base: int = 0) -> Stream:
    """Build the table of the coder for paths that start from ``first_base`` (0..3).

    Raises GraphError for a reducible time table, and for one whose paths carry no bit.
    """
    check_first_base(first_base)
    timing_graph(table).require_irreducible()
    root = _root(table)
    right = _right_vector(table, root)
    times, target = edge_times(table), edge_targets(table)
    counts = share_counts(np.where(times > 0, _powers(root, table.longest)[times] * right[target], 0.0))
    fraction, exponent = np.full(4, 0.5), np.full(4, 1)
    for _ in range(PROOF_ROUNDS):
        values, top = align(fraction[target], exponent[target])
        fraction, exponent = split(payloads_proven(counts, values), top)
    bits = int(exponent.min()) - 1
    if bits < 1:
        raise GraphError(f"paths of {table} carry no bit: give some transition a second time, or more transitions")
    certain = np.where(np.arange(len(counts)) == 0, TOTAL, 0)[:, None]
    rows = pack_counts(np.concatenate([counts, certain], axis=1))
    digest = hashlib.sha256(repr(("stream", table.levels, first_base)).encode() + rows.astype("<u4").tobytes())
    return Stream(rows, table.levels, first_base, bits, digest.digest())


def _powers(z, longest):
    """Return z^t for t = 0..longest, by multiplication alone (a library's power may differ between machines)."""
    return np.multiply.accumulate(np.concatenate([[1.0], np.full(longest, z)]))


def _weights(table, z):
    """Return P(z), float64[4, 4]."""
    times = table.array()
    powers = np.where(times > 0, _powers(z, table.longest)[times], 0.0)
    return add(np.moveaxis(powers, -1, 0))


def _eliminate(matrix):
    """Eliminate in place without pivoting, from the last row up. Return False as soon as a pivot is not positive."""
    for k in (3, 2, 1):
        if not matrix[k, k] > 0:
            return False
        for row in range(k):
            matrix[row] -= matrix[row, k] / matrix[k, k] * matrix[k]
    return bool(matrix[0, 0] > 0)


def _root(table):
    """Return 1 / lambda: the greatest z, by bisection, for which the spectral radius of P(z) is below 1.

    It is below 1 if and only if all pivots of I - P(z) are positive (a nonsingular M-matrix).
    """
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return low
        if _eliminate(np.eye(4) - _weights(table, middle)):
            low = middle
        else:
            high = middle


def _right_vector(table, z):
    """Return r with P(z) r = r and r_A = 1, up to rounding: float64[4], positive for an irreducible table."""
    matrix = np.eye(4) - _weights(table, z)
    _eliminate(matrix)
    right = np.ones(4)
    for k in (1, 2, 3):  # row k now has only zeros to the right of its pivot
        right[k] = -add([matrix[k, j] * right[j] for j in range(k)]) / matrix[k, k]
    return right


# ---- bits <-> paths -----------------------------------------------------------------------------------


class StreamShape(NamedTuple):
    """The numbers of a Stream and of its payloads, static under jit; ``rounds`` is the largest number of rounds."""

    rounds: int
    levels: int
    first_base: int
    bits: int


def stream_on_device(stream: Stream, bits: int) -> tuple[UInt32[Array, " rows"], StreamShape]:
    """Move the table to the device: the flattened rows, and the static numbers for payloads of ``bits`` bits."""
    return jnp.asarray(stream.rows.reshape(-1)), StreamShape(
        stream.longest(bits), stream.levels, stream.first_base, bits
    )


def _stream_model(rows, shape):
    """Return the model of one path for the range coder; its x is True in the rounds of the path."""

    def cumulative(row, inside):
        return read_counts(rows, jnp.where(inside, row, jnp.uint32(4)), 3 * shape.levels)

    def advance(row, _, symbol):
        return row ^ (symbol // shape.levels + 1).astype(jnp.uint32)

    return range_coder.Model(jnp.uint32(shape.first_base), cumulative, advance)


def _rounds(model, symbols, shape):
    """Return the number of rounds after which the interval of a path is certainly less than 2^-K wide.

    The interval is a 32-bit register over 2^position.
    """

    def narrow(carry, symbol):
        row, width, position = carry
        bounds = range_coder.scale(width, model.cumulative(row, True))
        bounds = jnp.concatenate([jnp.zeros_like(width[None]), bounds, width[None]])
        width = bounds[symbol + 1] - bounds[symbol]
        shift = lax.clz(width)
        return (model.advance(row, None, symbol), width << shift, position + shift), position

    start = (model.state, jnp.uint32(1 << FIRST_BITS), jnp.uint32(FIRST_BITS))
    _, positions = lax.scan(narrow, start, symbols)
    return jnp.sum(positions < shape.bits + REGISTER_BITS, dtype=jnp.int32)


def encode_stream(
    rows: UInt32[Array, " rows"], words: UInt32[Arrayish, "B {-(-shape.bits//32)}"], *, shape: StreamShape
) -> tuple[UInt8[Array, "B {shape.rounds}"], UInt8[Array, "B {shape.rounds}"], Int32[Array, " B"]]:
    """Encode payloads into paths.

    Args:
        rows: The flattened rows of the table.
        words: The payloads of K bits, with the first bit most significant, and zeros after bit K.
        shape: The numbers of the table and of the payloads.

    Returns:
        The base that each round writes; its level; and the number of rounds of each path. Past that number, letters and
        levels are 0.
    """
    model = _stream_model(rows, shape)

    def to_symbols(payload):
        everywhere = np.ones(shape.rounds, bool)
        symbols = range_coder.bits_to_symbols(model, payload, xs=everywhere, length=shape.rounds)
        return symbols, _rounds(model, symbols, shape)

    symbols, rounds = jax.vmap(to_symbols)(words)
    letters, levels = symbols_to_path(symbols, shape.levels, shape.first_base)
    inside = _inside(rounds, shape)
    return jnp.where(inside, letters, jnp.uint8(0)), jnp.where(inside, levels, jnp.uint8(0)), rounds


def _inside(rounds, shape):
    return jnp.arange(shape.rounds, dtype=jnp.int32)[None, :] < rounds[:, None]


def decode_stream(
    rows: UInt32[Array, " rows"],
    letters: UInt8[Arrayish, "B {shape.rounds}"],
    levels: UInt8[Arrayish, "B {shape.rounds}"],
    rounds: Int32[Arrayish, " B"],
    *,
    shape: StreamShape,
) -> tuple[UInt32[Array, "B {-(-shape.bits//32)}"], Bool[Array, " B"]]:
    """Decode paths into payloads.

    Args:
        rows: The flattened rows of the table.
        letters: The base of each round, of any value; what lies past the rounds of a path is ignored.
        levels: The level of each round, likewise.
        rounds: The number of rounds of each path, of any value.
        shape: The numbers of the table and of the payloads.

    Returns:
        The payloads, and whether each path is valid. It is not if it is no path of G, has a transition that is never
        written, or has more or fewer rounds than its payload needs; its words then mean nothing.
    """
    inside = _inside(rounds, shape)
    symbols, valid = path_to_symbols(letters, levels, shape.levels, shape.first_base)
    model = _stream_model(rows, shape)

    def to_bits(path, inside):
        words, ok = range_coder.symbols_to_bits(model, path, xs=inside, bits=shape.bits)
        return words, ok, _rounds(model, path, shape)

    words, ok, needed = jax.vmap(to_bits)(jnp.where(inside, symbols, 0), inside)
    return words, ok & (valid | ~inside).all(axis=1) & (rounds == needed)
