"""Orthonormal 3D Haar patches: pixels <-> one vector of 768 coefficients per 4 x 8 x 8 patch.

Squared error in coefficients equals squared error in pixels, so a loss may be taken on either side.
"""

import functools

import jax.numpy as jnp
import numpy as np

PATCH = (4, 8, 8)
CHANNELS = 3 * PATCH[0] * PATCH[1] * PATCH[2]


@functools.lru_cache(maxsize=4)
def haar_matrix(n):
    """Orthonormal Haar basis, float32[n, n], row 0 the mean; n a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        fine = np.kron(np.eye(len(matrix)), [1.0, -1.0])
        matrix = np.concatenate([np.kron(matrix, [1.0, 1.0]), fine]) / np.sqrt(2.0)
    return matrix.astype(np.float32)


def to_patches(pixels):
    """float32[B, T, H, W, 3] -> float32[B, T/4, H/8, W/8, 768]; T, H, W multiples of the patch."""
    batch, frames, height, width, _ = pixels.shape
    t, h, w = frames // PATCH[0], height // PATCH[1], width // PATCH[2]
    blocks = pixels.reshape(batch, t, PATCH[0], h, PATCH[1], w, PATCH[2], 3)
    ht, hs = haar_matrix(PATCH[0]), haar_matrix(PATCH[1])
    out = jnp.einsum("btihjwkc,pi,qj,rk->bthwpqrc", blocks, ht, hs, hs)
    return out.reshape(batch, t, h, w, CHANNELS)


def from_patches(coefficients):
    """Inverse of ``to_patches``: float32[B, t, h, w, 768] -> float32[B, 4t, 8h, 8w, 3]."""
    batch, t, h, w, _ = coefficients.shape
    blocks = coefficients.reshape(batch, t, h, w, *PATCH, 3)
    ht, hs = haar_matrix(PATCH[0]), haar_matrix(PATCH[1])
    out = jnp.einsum("bthwpqrc,pi,qj,rk->btihjwkc", blocks, ht, hs, hs)
    return out.reshape(batch, t * PATCH[0], h * PATCH[1], w * PATCH[2], 3)


@functools.lru_cache(maxsize=1)
def band_scale():
    """Typical size of each coefficient in natural video, float32[768]: halves with each finer level.

    The net's output is multiplied by it (a preconditioner); the loss stays on pixels.
    """

    def level(n):
        return np.ceil(np.log2(np.arange(n) + 1)).astype(np.int64)

    t, s = level(PATCH[0]), level(PATCH[1])
    total = t[:, None, None] + s[None, :, None] + s[None, None, :]
    return np.repeat(4.0 * 0.5 ** total.reshape(-1), 3).astype(np.float32)
