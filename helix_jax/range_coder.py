"""The one range coder: scan-based, integer only, shared by every station that codes.

A *model* is two pure functions over a small state (any pytree of scalars), and a first state:

    cumulative(state, x) -> uint32[A - 1], the inner cumulative counts c_1 <= ... <= c_(A-1) of A symbols,
                            out of TOTAL; equal neighbours forbid the symbol between them
    advance(state, x, symbol) -> the next state

Here ``x`` is the slice of ``xs`` for this step (or None). All functions of this module are for one stream, and ``vmap``
maps them over streams. Every operation is on 32-bit integers, so the result is bit-identical in any batch, on any
device, and in ``reference.kernels``.

The arithmetic
    A 32-bit register holds ``range`` in [2^31, 2^32) after normalisation by ``clz``. Symbol n owns
    [scale(c_n), scale(c_(n+1))) with scale(c) = floor(range * c / TOTAL), computed exactly. The first
    interval is 2^31 wide and stands for [0, 1): a stream of K bits is the number 0.b1 b2 ... bK.
    The intervals of all symbol strings of one length tile [0, 1). If none is wider than 2^-K, each holds at
    most one K-bit number, so every payload of K bits has its own string (``tk_scone.tables`` proves
    that bound), and neither an end symbol nor a length field is needed.

    The way from bits to symbols needs no carry. The way from symbols to bits sums the lower ends in a second scan that
    runs *backwards*: there the low bits come first and are final at once, so no carry can be pending.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, UInt32

from helix_jax.arithmetic import FIRST_BITS, TOTAL_BITS


class Model(NamedTuple):
    """The probabilities of a stream's symbols, as the module's docstring describes.

    Attributes:
        state: Pytree of scalars, the state before the first symbol.
        cumulative: Counts of the next symbol.
        advance: The state after a symbol.
    """

    state: Any
    cumulative: Callable
    advance: Callable


class Decoder(NamedTuple):
    """A decoder between two symbols, as ``start`` makes it.

    Attributes:
        state: State of the model.
        value: The number that the bits say, relative to the interval of the symbols so far.
        width: Width of that interval.
        position: Number of bits taken in so far.
    """

    state: Any
    value: UInt32[Array, ""]
    width: UInt32[Array, ""]
    position: UInt32[Array, ""]


def scale(width: UInt32[Array, ""], count: UInt32[Array, "*counts"]) -> UInt32[Array, "*counts"]:
    """Compute floor(width * count / TOTAL) without overflow, for counts up to TOTAL."""
    high, low = width >> 16, width & 0xFFFF
    return ((high * count) << 1) + ((low * count) >> TOTAL_BITS)


def windows(words: UInt32[Array, " W"]) -> UInt32[Array, " 2*W+1"]:
    """List the 32 bits that start at each multiple of 16 of a bit stream, with zeros past its end."""
    halves = jnp.stack([words >> 16, words & 0xFFFF], axis=-1).reshape(-1)
    following = jnp.concatenate([halves[1:], jnp.zeros_like(halves[:1])])
    return jnp.concatenate([(halves << 16) | following, jnp.zeros_like(halves[:1])])


def start(state: Any, words: UInt32[Array, " W"]) -> Decoder:
    """Make the decoder that stands before the first symbol, for ``read_on``.

    ``state`` is the model's first state, and the first bit of ``words`` is the most significant one.
    """
    return Decoder(state, words[0] >> 1, jnp.uint32(1 << FIRST_BITS), jnp.uint32(FIRST_BITS))


def read_on(
    model: Model, decoder: Decoder, words: UInt32[Array, " W"], *, xs: Any = None, length: int | None = None
) -> tuple[Decoder, Int32[Array, " n"]]:
    """Decode symbols from where a decoder stands.

    Args:
        model: The model. Its ``state`` is not used, since the decoder carries its own.
        decoder: As ``start`` or an earlier call returned it.
        words: The words that ``start`` was given. Zeros follow them.
        xs: Pytree of arrays with one slice for each step, or None.
        length: Number of symbols, where ``xs`` does not tell it.

    Returns:
        The decoder after these symbols, and the symbols.
    """
    every = windows(words)
    return lax.scan(lambda decoder, x: read_one(model, decoder, every, x), decoder, xs, length=length)


def read_one(model: Model, decoder: Decoder, windows: UInt32[Array, " n"], x: Any) -> tuple[Decoder, Int32[Array, ""]]:
    """Decode one symbol: one step of ``read_on``.

    Args:
        model: As for ``read_on``.
        decoder: As for ``read_on``.
        windows: What the function ``windows`` makes of the words.
        x: This step's slice of ``xs``.
    """
    state, value, width, position = decoder
    bounds = scale(width, model.cumulative(state, x))
    symbol = jnp.sum(value >= bounds, dtype=jnp.int32)
    low = jnp.max(jnp.where(value >= bounds, bounds, 0))
    high = jnp.min(jnp.where(value >= bounds, width, bounds))
    width = high - low
    shift = lax.clz(width)
    window = windows.at[position >> 4].get(mode="clip")
    fresh = ((window << (position & 15)) >> 1) >> (31 - shift)
    value = ((value - low) << shift) | fresh
    return Decoder(model.advance(state, x, symbol), value, width << shift, position + shift), symbol


def bits_to_symbols(
    model: Model, words: UInt32[Array, " W"], *, xs: Any = None, length: int
) -> Int32[Array, " {length}"]:
    """Write a stream of bits as ``length`` symbols (arithmetic *decoding* of the payload).

    Args:
        model: The model.
        words: The payload, whose first bit is the most significant one. Zeros follow its last bit.
        xs: Pytree of arrays with one slice for each step, or None.
        length: Number of symbols.
    """
    return read_on(model, start(model.state, words), words, xs=xs, length=length)[1]


def symbols_to_bits(
    model: Model, symbols: Int[Array, " L"], *, xs: Any = None, bits: int
) -> tuple[UInt32[Array, " W"], Bool[Array, ""]]:
    """Read back what ``bits_to_symbols`` wrote.

    Args:
        model: The model.
        symbols: The symbols.
        xs: Pytree of arrays with one slice for each step, or None.
        bits: Length of the payload, K.

    Returns:
        The ceil(K / 32) words of the payload, and whether the model allows all of the symbols.
    """
    words, _, ok = _number(model, symbols, xs, bits)
    return _first_bits(words, bits), ok


def compress(
    model: Model, symbols: Int[Array, " L"], *, xs: Any = None, most: int
) -> tuple[UInt32[Array, " W"], Int32[Array, ""], Bool[Array, ""]]:
    """Entropy coding: find the fewest bits, to within one, from which ``bits_to_symbols`` makes these symbols again.

    The interval of the symbols is at least 2^31 wide at the last ``position``, so the last number below the interval's
    end stays inside it when it is cut off after position - 31 bits.

    Args:
        model: The model.
        symbols: The symbols.
        xs: Pytree of arrays with one slice for each step, or None.
        most: Room in bits.

    Returns:
        The ceil(most / 32) words, which are zero after the last bit; the number of bits; and whether the model allows
        the symbols and they fit.
    """
    words, position, ok = _number(model, symbols, xs, -(-most // 32) * 32)
    bits = position.astype(jnp.int32) - FIRST_BITS
    return _first_bits(words, bits), bits, ok & (bits <= most)


def _first_bits(words: UInt32[Array, " W"], bits: int | Int32[Array, ""]) -> UInt32[Array, " W"]:
    """Set all bits after the first ``bits`` bits to zero."""
    left = jnp.clip(bits - 32 * jnp.arange(len(words), dtype=jnp.int32), 0, 32).astype(jnp.uint32)
    return words & jnp.where(left == 0, 0, jnp.uint32(0xFFFFFFFF) << ((32 - left) & 31))


def _number(
    model: Model, symbols: Int[Array, " L"], xs: Any, bits: int
) -> tuple[UInt32[Array, " W"], UInt32[Array, ""], Bool[Array, ""]]:
    """The last ``bits``-bit number before the end of the interval of ``symbols``.

    Returns its words, the final position, and whether the model allows the symbols.
    """

    def forward(carry, item):
        state, width, position, ok = carry
        x, symbol = item
        bounds = scale(width, model.cumulative(state, x))
        index = jnp.arange(len(bounds), dtype=jnp.int32)
        low = jnp.max(jnp.where(index < symbol, bounds, 0))
        high = jnp.min(jnp.where(index < symbol, width, bounds))
        ok &= high > low
        narrow = jnp.where(high > low, high - low, 1)
        shift = lax.clz(narrow)
        carry = (model.advance(state, x, symbol), narrow << shift, position + shift, ok)
        return carry, (low, shift, position)

    carry = (model.state, jnp.uint32(1 << FIRST_BITS), jnp.uint32(FIRST_BITS), jnp.bool_(True))
    (_, width, last, ok), (low, shift, position) = lax.scan(forward, carry, (xs, symbols))

    def backward(carry, item):
        tail, pending = carry
        low, shift, position = item
        chunk = tail & ((jnp.uint32(1) << shift) - 1)
        end = position + shift
        pending |= chunk << ((0 - end) & 15)
        # the 16-bit unit that holds the bit before `end` is complete when it starts at or after `position`
        complete = (shift > 0) & (position <= ((end - 1) & ~jnp.uint32(15)))
        return (low + (tail >> shift), jnp.where(complete, pending >> 16, pending)), pending

    (first, pending), units = lax.scan(backward, (width - 1, jnp.uint32(0)), (low, shift, position), reverse=True)
    count = -(-bits // 16)
    starts = 16 * jnp.arange(2, count, dtype=jnp.uint32)
    steps = jnp.searchsorted(position, starts, side="right", method="scan_unrolled") - 1
    head = jnp.stack([first >> 15, ((first & 0x7FFF) << 1) | (pending & 1)])
    units = jnp.concatenate([head, units[steps] & 0xFFFF])[:count]
    units = jnp.concatenate([units, jnp.zeros((count % 2,), jnp.uint32)]).reshape(-1, 2)
    return (units[:, 0] << 16) | units[:, 1], last, ok
