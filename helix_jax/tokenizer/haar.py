"""Orthonormal 3D Haar patches: pixels <-> one vector of 768 coefficients per 4 x 8 x 8 patch.

Squared error in coefficients equals squared error in pixels, so a loss may be computed on either side.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

PATCH = (4, 8, 8)
CHANNELS = 3 * PATCH[0] * PATCH[1] * PATCH[2]


@functools.lru_cache(maxsize=4)
def haar_matrix(n: int) -> Float32[np.ndarray, "{n} {n}"]:
    """Make the orthonormal Haar basis of size n, a power of two. Row 0 is the mean."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        fine = np.kron(np.eye(len(matrix)), [1.0, -1.0])
        matrix = np.concatenate([np.kron(matrix, [1.0, 1.0]), fine]) / np.sqrt(2.0)
    return matrix.astype(np.float32)


def to_patches(pixels: Float[Array | np.ndarray, "B T H W 3"]) -> Float[Array, "B t h w 768"]:
    """Transform pixels to coefficients. T, H and W are multiples of the patch's sides."""
    batch, frames, height, width, _ = pixels.shape
    t, h, w = frames // PATCH[0], height // PATCH[1], width // PATCH[2]
    blocks = pixels.reshape(batch, t, PATCH[0], h, PATCH[1], w, PATCH[2], 3)
    ht, hs = haar_matrix(PATCH[0]), haar_matrix(PATCH[1])
    out = jnp.einsum("btihjwkc,pi,qj,rk->bthwpqrc", blocks, ht, hs, hs)
    return out.reshape(batch, t, h, w, CHANNELS)


def from_patches(coefficients: Float[Array | np.ndarray, "B t h w 768"]) -> Float[Array, "B T H W 3"]:
    """Transform coefficients to pixels: the inverse of ``to_patches``."""
    batch, t, h, w, _ = coefficients.shape
    blocks = coefficients.reshape(batch, t, h, w, *PATCH, 3)
    ht, hs = haar_matrix(PATCH[0]), haar_matrix(PATCH[1])
    out = jnp.einsum("bthwpqrc,pi,qj,rk->btihjwkc", blocks, ht, hs, hs)
    return out.reshape(batch, t * PATCH[0], h * PATCH[1], w * PATCH[2], 3)


@functools.lru_cache(maxsize=1)
def band_scale() -> Float32[np.ndarray, "768"]:
    """Return the typical size of each coefficient in natural video, which halves with each finer level.

    The output of the net is multiplied by it, as a preconditioner; the loss stays on pixels.
    """

    def level(n):
        return np.ceil(np.log2(np.arange(n) + 1)).astype(np.int64)

    t, s = level(PATCH[0]), level(PATCH[1])
    total = t[:, None, None] + s[None, :, None] + s[None, None, :]
    return np.repeat(4.0 * 0.5 ** total.reshape(-1), 3).astype(np.float32)
