"""The one range coder: scan-based, integer only, shared by every station that codes.

A *model* is two pure functions over a small state (any pytree of scalars), and a first state:

    cumulative(state, x) -> uint32[A - 1], the inner cumulative counts c_1 <= ... <= c_(A-1) of A symbols,
                            out of TOTAL; equal neighbours forbid the symbol between them
    advance(state, x, symbol) -> the next state

with ``x`` the slice of ``xs`` for this step (or None). All functions here are for one stream; ``vmap``
maps them over streams, and since every operation is on 32-bit integers the result is bit-identical in
any batch, on any device, and in ``reference.kernels``.

The arithmetic
    A 32-bit register holds ``range`` in [2^31, 2^32) after normalisation by ``clz``; symbol n owns
    [scale(c_n), scale(c_(n+1))) with scale(c) = floor(range * c / TOTAL), computed exactly. The first
    interval is 2^31 wide and stands for [0, 1): a stream of K bits is the number 0.b1 b2 ... bK.
    The intervals of all symbol strings of one length tile [0, 1). If none is wider than 2^-K, each holds at
    most one K-bit number, so every payload of K bits has its own string (``tk_scone.tables`` proves
    that bound), and no end symbol and no length field is needed.

    bits -> symbols needs no carry. symbols -> bits sums the lower ends in a second scan that runs
    *backwards*: there the low bits come first and are final at once, so no carry can be pending.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from helix_jax.arithmetic import FIRST_BITS, TOTAL_BITS


class Model(NamedTuple):
    """See the module's docstring. ``state``: pytree of scalars, the state before the first symbol."""

    state: object
    cumulative: Callable
    advance: Callable


def scale(width, count):
    """floor(width * count / TOTAL) without overflow; uint32, count <= TOTAL."""
    high, low = width >> 16, width & 0xFFFF
    return ((high * count) << 1) + ((low * count) >> TOTAL_BITS)


def windows(words):
    """uint32[W] -> uint32[2W + 1]: the 32 bits that start at each multiple of 16, zeros past the end."""
    halves = jnp.stack([words >> 16, words & 0xFFFF], axis=-1).reshape(-1)
    following = jnp.concatenate([halves[1:], jnp.zeros_like(halves[:1])])
    return jnp.concatenate([(halves << 16) | following, jnp.zeros_like(halves[:1])])


def start(state, words):
    """Decoder before its first symbol, for ``read_on``. words: uint32[W], first bit most significant."""
    one = jnp.ones_like(words[0])  # not a constant: a constant first carry would fail under shard_map
    return state, words[0] >> 1, one << FIRST_BITS, one * FIRST_BITS


def read_on(model, decoder, words, *, xs=None, length=None):
    """Decode symbols, going on where ``decoder`` stands: (decoder, symbols int32[length]).

    model.state is not used: the decoder carries its own. words: as given to ``start``; zeros follow them.
    """
    found = windows(words)
    return lax.scan(lambda decoder, x: read_one(model, decoder, found, x), decoder, xs, length=length)


def read_one(model, decoder, windows, x):
    """One step of ``read_on``: (decoder, symbol int32). windows: ``windows`` of the words."""
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
    return (model.advance(state, x, symbol), value, width << shift, position + shift), symbol


def bits_to_symbols(model, words, *, xs=None, length):
    """Write a stream of bits as ``length`` symbols (arithmetic *decoding* of the payload).

    words: uint32[W], the payload, first bit most significant, zeros after its last bit.
    Returns symbols, int32[length].
    """
    return read_on(model, start(model.state, words), words, xs=xs, length=length)[1]


def symbols_to_bits(model, symbols, *, xs=None, bits):
    """Read back what ``bits_to_symbols`` wrote.

    symbols: int32[L]. bits: payload length K.
    Returns (words uint32[ceil(K / 32)], ok bool). ok is False if the model forbids one of the symbols.
    """
    words, _, ok = _number(model, symbols, xs, bits)
    return _first_bits(words, bits), ok


def compress(model, symbols, *, xs=None, most):
    """Entropy coding: the fewest bits, to within one, from which ``bits_to_symbols`` makes these symbols again.

    symbols: int32[L]. most: room in bits. Returns (words uint32[ceil(most / 32)], zeros after the last bit; bits int32;
    ok bool: the model allows the symbols, and they fit).

    The interval of the symbols is at least 2^31 wide at the last ``position``, so cutting the number before its end
    off after position - 31 bits leaves it inside.
    """
    words, position, ok = _number(model, symbols, xs, -(-most // 32) * 32)
    bits = position.astype(jnp.int32) - FIRST_BITS
    return _first_bits(words, bits), bits, ok & (bits <= most)


def _first_bits(words, bits):
    """Words with zeros after the first ``bits`` bits."""
    left = jnp.clip(bits - 32 * jnp.arange(len(words), dtype=jnp.int32), 0, 32).astype(jnp.uint32)
    return words & jnp.where(left == 0, 0, jnp.uint32(0xFFFFFFFF) << ((32 - left) & 31))


def _number(model, symbols, xs, bits):
    """The last ``bits``-bit number before the end of the interval of ``symbols``: (words, final position, ok)."""

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

    one = (symbols[0] * 0 + 1).astype(jnp.uint32)
    carry = (model.state, one << FIRST_BITS, one * FIRST_BITS, one == 1)
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

    (first, pending), units = lax.scan(backward, (width - 1, one * 0), (low, shift, position), reverse=True)
    count = -(-bits // 16)
    start = 16 * jnp.arange(2, count, dtype=jnp.uint32)
    where = jnp.searchsorted(position, start, side="right", method="scan_unrolled") - 1
    head = jnp.stack([first >> 15, ((first & 0x7FFF) << 1) | (pending & 1)])
    units = jnp.concatenate([head, units[where] & 0xFFFF])[:count]
    units = jnp.concatenate([units, jnp.zeros((count % 2,), jnp.uint32)]).reshape(-1, 2)
    return (units[:, 0] << 16) | units[:, 1], last, ok
