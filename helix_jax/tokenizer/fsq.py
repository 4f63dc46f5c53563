"""Finite scalar quantisation with 4 levels per channel: each channel is exactly one base-4 digit.

FSQ: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (2023). Four equal bins per
channel make a token k base-4 digits, so no radix conversion stands between tokens and nucleotides.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num, UInt8

Arrayish = Array | np.ndarray

LEVELS = 4


def bound(z: Float[Arrayish, "*axes"]) -> Float[Array, "*axes"]:
    """Map an unbounded channel to its position on the level axis, (-0.5, 3.5); level n owns [n - 0.5, n + 0.5)."""
    return LEVELS * jax.nn.sigmoid(z) - 0.5


def quantise(z: Float[Arrayish, "*axes"]) -> UInt8[Array, "*axes"]:
    """Quantise unbounded channels to digits from 0 to 3."""
    return digits(bound(z))


def digits(position: Float[Arrayish, "*axes"]) -> UInt8[Array, "*axes"]:
    """Round positions on the level axis to the nearest digits, from 0 to 3."""
    return jnp.clip(jnp.round(position), 0, LEVELS - 1).astype(jnp.uint8)


def straight_through(z: Float[Arrayish, "*axes"]) -> Float[Array, "*axes"]:
    """Map unbounded channels to levels, whose values are rounded and whose gradients are those of ``bound``."""
    position = bound(z)
    rounded = jnp.clip(jnp.round(position), 0, LEVELS - 1)
    return position + jax.lax.stop_gradient(rounded - position)


def centre(levels: Num[Arrayish, "*axes"], silence: float) -> Float32[Arrayish, "*axes"]:
    """Shift levels (digits, or real values between them) so that ``silence`` becomes zero, for the decoder."""
    return levels.astype(jnp.float32) - silence
