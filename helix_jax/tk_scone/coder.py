"""Bits <-> bases: the constraint automaton's tables driving the range coder. Pure and batched; the caller jits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax import parallel, range_coder
from helix_jax.tk_scone.tables import Tables


class DeviceTables(NamedTuple):
    """The arrays of ``Tables`` on the device: rows uint32[8 R] (flat: a row shares a cache line), joint uint32[S]."""

    rows: jax.Array
    joint: jax.Array


class Shape(NamedTuple):
    """The numbers of ``Tables``: static under jit."""

    start: int
    first_base: int
    head: int
    length: int
    bits: int


def on_device(tables: Tables):
    """Tables -> (DeviceTables, Shape). Raises parallel.DeviceError where there is no device."""
    parallel.local_devices()  # asked first: JAX's own error would not say what is missing
    arrays = DeviceTables(jnp.asarray(tables.rows.reshape(-1)), jnp.asarray(tables.joint.view(np.uint32)))
    return arrays, Shape(tables.start, tables.first_base, tables.head, tables.length, tables.bits)


def _model(arrays, shape, zero):
    """Model of one strand for the range coder; x is True at the step that ends the head. zero: uint32 scalar 0."""

    def look_up(index):
        return arrays.rows.at[index].get(mode="promise_in_bounds")

    def cumulative(row, _):
        pair = look_up(row * 8)
        return jnp.stack([pair & 0xFFFF, pair >> 16, look_up(row * 8 + 1)])

    def advance(row, last_of_head, symbol):
        row = look_up(row * 8 + 2 + symbol.astype(jnp.uint32))
        joint = arrays.joint
        return lax.cond(last_of_head, lambda r: joint.at[r].get(mode="promise_in_bounds"), lambda r: r, row)

    return range_coder.Model(zero + jnp.uint32(shape.start), cumulative, advance)


def _last_of_head(shape):
    return np.arange(1, shape.length + 1) == shape.head


def _check(array, dtype, width):
    """By hand: every command would wait for chex, and nothing else here needs it."""
    found = (array.ndim, array.shape[-1], array.dtype)
    assert found == (2, width, dtype), f"{array.dtype}{list(array.shape)}: {dtype.__name__}[B, {width}] is needed"


def write(arrays, words, *, shape):
    """Payloads -> strands.

    words: uint32[B, ceil(K / 32)], first bit most significant, zeros after bit K. Returns bases uint8[B, L].
    Every payload has its own strand, and every strand obeys the constraints (DESIGN promise 1).
    """
    _check(words, jnp.uint32, -(-shape.bits // 32))

    def one(payload):
        model = _model(arrays, shape, payload[0] & 0)
        steps = range_coder.bits_to_symbols(model, payload, xs=_last_of_head(shape), length=shape.length)

        def integrate(base, difference):
            base = base ^ difference
            return base, base

        first = (payload[0] & 0).astype(jnp.uint8) + jnp.uint8(shape.first_base)
        return lax.scan(integrate, first, steps.astype(jnp.uint8))[1]

    return jax.vmap(one)(words)


def read(arrays, bases, *, shape):
    """Strands -> payloads.

    bases: uint8[B, L] in 0..3. Returns (words uint32[B, ceil(K / 32)], ok bool[B]); ok is False for a strand
    that breaks the constraints, whose words mean nothing.
    """
    _check(bases, jnp.uint8, shape.length)

    def one(strand):
        previous = jnp.concatenate([jnp.full((1,), shape.first_base, jnp.uint8), strand[:-1]])
        model = _model(arrays, shape, (strand[0] & 0).astype(jnp.uint32))
        symbols = (strand ^ previous).astype(jnp.int32)
        return range_coder.symbols_to_bits(model, symbols, xs=_last_of_head(shape), bits=shape.bits)

    return jax.vmap(one)(bases)
