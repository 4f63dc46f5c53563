"""Mixing: token digits -> payload digits whose order and values tell nothing of the picture.

HELIX (abstract) mixes with Kronecker-structured matrices before its finite-state machine; the matrices are not
public. Our mixing has three parts, each of which is invertible and has its own switch:

    1. interleave  Applies P_t x P_h x P_w, one fixed permutation per token axis, then deals the tokens out to the
                   strands in turn, beginning each round at another strand. Neighbours in time and space go to
                   different strands, so a lost strand is a scatter of single tokens.
    2. kronecker   Applies A (x) B over Z4 to blocks of digits inside one strand. It spreads each digit's value, and
                   so a substituted digit's damage, over its block.
    3. offset      Adds a keyed, position-dependent digit mod 4. Only this part makes the digits uniform for every
                   source (a linear map keeps zero blocks zero).

Entropy coding, where it is on, comes before. ``mix``, ``unmix`` and the interleaver work on NumPy arrays, and on JAX
arrays under jit with the same result; permutations, matrices and offsets are constants there.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8

from helix_jax import keyed
from helix_jax.config import MixingConfig

Arrayish = Any  # np.ndarray or jax.Array: this module does not import JAX

# ---- interleaving ---------------------------------------------------------------------------------


def axis_permutation(n: int) -> Int64[np.ndarray, " {n}"]:
    """Permute an axis of n entries so that successive entries are far apart on it.

    The steps around the axis are the number nearest to n / golden ratio that is coprime to n (a Kronecker sequence on
    the integers). It works for every n.
    """
    step = max(1, round(n * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, n) != 1:
        step += 1
    return np.arange(n) * step % n


def token_order(grid: Sequence[int], per_strand: int, config: MixingConfig) -> Int64[np.ndarray, "strands per_strand"]:
    """Return which token stands where in the payload.

    Args:
        grid: The token grid (t, h, w).
        per_strand: Tokens per strand.
        config: The switches of the mixing.

    Returns:
        The number of the token (row-major in the grid) at each position; numbers past the last token are padding.
    """
    t, h, w = grid
    tokens = t * h * w
    strands = -(-tokens // per_strand)
    padding = np.arange(tokens, strands * per_strand)
    if not config.interleave:
        return np.arange(strands * per_strand).reshape(strands, per_strand)
    pt, ph, pw = axis_permutation(t), axis_permutation(h), axis_permutation(w)
    order = ((pt[:, None, None] * h + ph[None, :, None]) * w + pw[None, None, :]).reshape(-1)
    rounds = np.concatenate([order, padding]).reshape(per_strand, strands)
    # Each round of dealing begins at another strand. Otherwise, where h * w is a multiple of the number of strands, a
    # strand would get the same position in all frames. The turns grow as triangular numbers, so that no step in the
    # grid repeats.
    turn = np.arange(per_strand) * np.arange(1, per_strand + 1) // 2 * axis_permutation(strands)[1 % strands]
    return np.take_along_axis(rounds, (np.arange(strands) - turn[:, None]) % strands, axis=1).T


# ---- Kronecker matrix over Z4 -----------------------------------------------------------------------


def z4_matrix(n: int) -> tuple[Int32[np.ndarray, "{n} {n}"], Int32[np.ndarray, "{n} {n}"]]:
    """Return a matrix mod 4 and its inverse: lower times upper triangle of ones, with determinant 1."""
    lower = np.tril(np.ones((n, n), np.int64))
    unit = np.eye(n, dtype=np.int64) - np.eye(n, k=-1, dtype=np.int64)  # inverse of `lower`
    return (lower @ lower.T % 4).astype(np.int32), (unit.T @ unit % 4).astype(np.int32)


def _kronecker(digits, inverse):
    """Map blocks X of 4 x g digits to A X B^T mod 4, with g as large as fits the strand (at most 8)."""
    columns = math.gcd(digits.shape[1] // 4, 8)
    a, b = z4_matrix(4)[inverse], z4_matrix(columns)[inverse]
    xp = digits.__array_namespace__()
    blocks = digits.astype(np.int32).reshape(digits.shape[0], -1, 4, columns)
    mixed = xp.einsum("ij,nbjk,lk->nbil", a, blocks, b) & 3
    return mixed.reshape(digits.shape).astype(np.uint8)


# ---- keyed offset -------------------------------------------------------------------------------------


def offset_digits(key: bytes, shape: Sequence[int], first: int = 0) -> UInt8[np.ndarray, "..."]:
    """Return pseudo-random digits: 32 from each word of the keyed stream, the first digit most significant.

    The offset makes digits uniform; it does not hide them.

    Args:
        key: The pool's key, 8 bytes.
        shape: The shape of the result.
        first: How many digits of the stream are passed over.

    Returns:
        Digits 0..3 of that shape.
    """
    skipped, size = first % 32, math.prod(shape)
    words = keyed.stream(key, np.arange(first // 32, -(-(first + size) // 32)))
    digits = (words[:, None] >> np.arange(62, -2, -2).astype(np.uint64)) & np.uint64(3)
    return digits.astype(np.uint8).reshape(-1)[skipped : skipped + size].reshape(shape)


# ---- all three ----------------------------------------------------------------------------------------


def mix(
    digits: UInt8[Arrayish, "strands digits"], key: bytes, config: MixingConfig, first: int = 0
) -> UInt8[Arrayish, "strands digits"]:
    """Mix the digits of strands: first the Kronecker matrix, then the offset.

    Args:
        digits: The digits 0..3 of each strand.
        key: The pool's key, 8 bytes.
        config: The switches of the mixing.
        first: The number of the first of these strands, where they are a part of all.

    Returns:
        The mixed digits.
    """
    if config.kronecker:
        digits = _kronecker(digits, inverse=0)
    if config.offset:
        digits = (digits + offset_digits(key, digits.shape, first * digits.shape[1])) & 3
    return digits


def unmix(
    digits: UInt8[Arrayish, "strands digits"], key: bytes, config: MixingConfig, first: int = 0
) -> UInt8[Arrayish, "strands digits"]:
    """Invert ``mix``, whose arguments it takes."""
    if config.offset:
        digits = (digits - offset_digits(key, digits.shape, first * digits.shape[1])) & 3
    if config.kronecker:
        digits = _kronecker(digits, inverse=1)
    return digits


def interleave(
    tokens: UInt8[Arrayish, "t h w k"], per_strand: int, config: MixingConfig
) -> UInt8[Arrayish, "strands digits"]:
    """Deal tokens out to strands.

    Args:
        tokens: The digits of the token grid.
        per_strand: Tokens per strand.
        config: The switches of the mixing.

    Returns:
        The ``per_strand * k`` digits of each strand, with zeros as padding.
    """
    t, h, w, k = tokens.shape
    order = token_order((t, h, w), per_strand, config)
    xp = tokens.__array_namespace__()
    padding = np.zeros((order.size - t * h * w, k), np.uint8)
    flat = xp.concatenate([tokens.reshape(-1, k), padding])
    return flat[order].reshape(len(order), per_strand * k)


def deinterleave(
    strands: Shaped[Arrayish, "strands values"], grid: Sequence[int], digits: int, config: MixingConfig
) -> Shaped[Arrayish, "t h w {digits}"]:
    """Invert ``interleave``.

    Args:
        strands: The values of each strand, of any dtype.
        grid: The token grid (t, h, w).
        digits: Values per token.
        config: The switches of the mixing.

    Returns:
        The values in the token grid.
    """
    order = token_order(grid, strands.shape[1] // digits, config)
    place = np.argsort(order.reshape(-1))[: math.prod(grid)]
    return strands.reshape(-1, digits)[place].reshape(*grid, digits)


def to_bytes(digits: UInt8[Arrayish, "n digits"]) -> UInt8[Arrayish, "n m"]:
    """Join each four digits into a byte, the first digit most significant."""
    quads = digits.reshape(len(digits), -1, 4)
    return (quads[..., 0] << 6) | (quads[..., 1] << 4) | (quads[..., 2] << 2) | quads[..., 3]


def from_bytes(data: UInt8[Arrayish, "n m"]) -> UInt8[Arrayish, "n digits"]:
    """Invert ``to_bytes``."""
    shifts = np.array([6, 4, 2, 0], np.uint8)
    return ((data[:, :, None] >> shifts) & 3).reshape(len(data), -1)
