"""Bits <-> bases: the range coder driven by the constraint automaton's tables.

The functions are pure and batched, and the caller jits them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, UInt8, UInt32

from helix_jax import parallel, range_coder
from helix_jax.tk_scone.tables import Tables


class DeviceTables(NamedTuple):
    """The arrays of ``Tables`` on the device; ``rows`` is flat (8 numbers a row), so that a row shares a cache line."""

    rows: UInt32[Array, " n"]
    joint: UInt32[Array, " S"]


class Shape(NamedTuple):
    """The numbers of ``Tables``, which are static under jit."""

    start: int
    first_base: int
    head: int
    length: int
    bits: int


def on_device(tables: Tables) -> tuple[DeviceTables, Shape]:
    """Put the tables on the device. Raises parallel.DeviceError where there is no device."""
    parallel.local_devices()  # called first: JAX's own error would not say what is missing
    arrays = DeviceTables(jnp.asarray(tables.rows.reshape(-1)), jnp.asarray(tables.joint.view(np.uint32)))
    return arrays, Shape(tables.start, tables.first_base, tables.head, tables.length, tables.bits)


def _model(arrays: DeviceTables, shape: Shape) -> range_coder.Model:
    """Return the model of one strand for the range coder, whose x is True at the step that ends the head."""

    def look_up(index):
        return arrays.rows.at[index].get(mode="promise_in_bounds")

    def cumulative(row, _):
        pair = look_up(row * 8)
        return jnp.stack([pair & 0xFFFF, pair >> 16, look_up(row * 8 + 1)])

    def advance(row, last_of_head, symbol):
        row = look_up(row * 8 + 2 + symbol.astype(jnp.uint32))
        joint = arrays.joint
        return lax.cond(last_of_head, lambda r: joint.at[r].get(mode="promise_in_bounds"), lambda r: r, row)

    return range_coder.Model(jnp.uint32(shape.start), cumulative, advance)


def _last_of_head(shape):
    return np.arange(1, shape.length + 1) == shape.head


def write(
    arrays: DeviceTables, words: UInt32[Array | np.ndarray, "B {(shape.bits+31)//32}"], *, shape: Shape
) -> UInt8[Array, "B {shape.length}"]:
    """Write payloads as strands.

    Every payload has its own strand, and every strand obeys the constraints (DESIGN promise 1).

    Args:
        arrays: The tables on the device.
        words: The payloads, with the first bit most significant and zeros after bit K.
        shape: The numbers of the tables.

    Returns:
        The bases of each strand, 0..3.
    """

    def write_one(payload):
        model = _model(arrays, shape)
        steps = range_coder.bits_to_symbols(model, payload, xs=_last_of_head(shape), length=shape.length)

        def integrate(base, difference):
            base = base ^ difference
            return base, base

        return lax.scan(integrate, jnp.uint8(shape.first_base), steps.astype(jnp.uint8))[1]

    return jax.vmap(write_one)(words)


def read(
    arrays: DeviceTables, bases: UInt8[Array | np.ndarray, "B {shape.length}"], *, shape: Shape
) -> tuple[UInt32[Array, "B {(shape.bits+31)//32}"], Bool[Array, " B"]]:
    """Read the payloads of strands.

    Args:
        arrays: The tables on the device.
        bases: The bases of each strand, 0..3.
        shape: The numbers of the tables.

    Returns:
        The payloads, and whether each is valid: a strand that breaks the constraints is not, and its words mean
        nothing.
    """

    def read_one(strand):
        previous = jnp.concatenate([jnp.full((1,), shape.first_base, jnp.uint8), strand[:-1]])
        model = _model(arrays, shape)
        symbols = (strand ^ previous).astype(jnp.int32)
        return range_coder.symbols_to_bits(model, symbols, xs=_last_of_head(shape), bits=shape.bits)

    return jax.vmap(read_one)(bases)
