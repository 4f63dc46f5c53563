"""A hash of letters that can be undone letter by letter, so that a strand can be searched from both ends.

The state has a few bits. ``absorb`` takes one more letter, and ``undo`` takes the last one back: both are one-to-one.
The state after the last letter is written at the end of the strand (``frame``), which is where a search that goes
backwards reads it. The hash guards against accidents and has no key.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Integer, UInt32

START = 0x811C9DC5  # its low bits are the state before the first letter
_FACTOR = 0x01001D35  # odd, so that it has an inverse modulo every power of two

Arrayish = Array | np.ndarray


def absorb(
    state: UInt32[Arrayish, "*strings"], letter: Integer[Arrayish, "*strings"], bits: int
) -> UInt32[Arrayish, "*strings"]:
    """Return the state of ``bits`` bits (3 to 32) after one more letter."""
    state = (state ^ (letter.astype(jnp.uint32) + 1)) * jnp.uint32(_FACTOR) & jnp.uint32((1 << bits) - 1)
    return state ^ (state >> _shift(bits))


def undo(
    state: UInt32[Arrayish, "*strings"], letter: Integer[Arrayish, "*strings"], bits: int
) -> UInt32[Arrayish, "*strings"]:
    """Return the state before the last letter, as the inverse of ``absorb``."""
    state = state ^ (state >> _shift(bits))  # its own inverse, as what it shifts out is at least half of the bits
    inverse = jnp.uint32(pow(_FACTOR, -1, 1 << bits))
    return (state * inverse & jnp.uint32((1 << bits) - 1)) ^ (letter.astype(jnp.uint32) + 1)


def digit(state: UInt32[Arrayish, "*strings"]) -> Int32[Arrayish, "*strings"]:
    """Return which of the three other letters (0..2) must come next as a check letter."""
    state = (state ^ (state >> 5)) * jnp.uint32(0x2C1B3C6D)
    state = (state ^ (state >> 12)) * jnp.uint32(0x297A2D39)
    return ((state >> 8) % jnp.uint32(3)).astype(jnp.int32)


def _shift(bits):
    return (bits + 1) // 2
