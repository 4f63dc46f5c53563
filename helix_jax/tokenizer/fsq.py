"""Finite scalar quantisation with 4 levels per channel: each channel is exactly one base-4 digit.

FSQ: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (2023). Four equal bins per
channel make a token k base-4 digits, so no radix conversion stands between tokens and nucleotides.
"""

import jax
import jax.numpy as jnp

LEVELS = 4


def bound(z):
    """Unbounded channel -> position on the level axis, (-0.5, 3.5); level n owns [n - 0.5, n + 0.5)."""
    return LEVELS * jax.nn.sigmoid(z) - 0.5


def quantise(z):
    """float32[..., k] -> digits uint8[..., k] in 0..3."""
    return digits(bound(z))


def digits(position):
    """Positions on the level axis -> the nearest digits, uint8 in 0..3."""
    return jnp.clip(jnp.round(position), 0, LEVELS - 1).astype(jnp.uint8)


def straight_through(z):
    """float32[..., k] -> levels float32[..., k]: rounded forward, identity of ``bound`` backward."""
    position = bound(z)
    rounded = jnp.clip(jnp.round(position), 0, LEVELS - 1)
    return position + jax.lax.stop_gradient(rounded - position)


def centre(levels):
    """Levels (digits, or real values between them) -> decoder input centred on zero, +-1.5 at the ends."""
    return levels.astype(jnp.float32) - (LEVELS - 1) / 2
