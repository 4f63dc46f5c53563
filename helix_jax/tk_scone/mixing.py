"""Mixing: token digits -> payload digits whose order and values tell nothing of the picture.

HELIX (abstract) mixes with Kronecker-structured matrices before its finite-state machine; the matrices are not
public. Ours has three parts, each invertible and each with its own switch:

    1. interleave  P_t x P_h x P_w, one fixed permutation per token axis, then dealing the tokens out to the
                   strands in turn, each round from another strand on: neighbours in time and space go to different
                   strands, so a lost strand is a scatter of single tokens.
    2. kronecker   A (x) B over Z4 on blocks of digits inside one strand: spreads each digit's value, and
                   so a substituted digit's damage, over its block.
    3. offset      a keyed, position-dependent digit added mod 4: the only one that makes the digits uniform
                   for every source (a linear map keeps zero blocks zero).

Entropy coding, where it is on, comes before. ``mix``, ``unmix`` and the interleaver work on NumPy arrays, and on JAX
arrays under jit with the same result; permutations, matrices and offsets are constants there.
"""

import math

import numpy as np

from helix_jax import keyed
from helix_jax.config import MixingConfig

# ---- interleaving ---------------------------------------------------------------------------------


def axis_permutation(n):
    """int64[n]: steps around the axis by the odd-one-out nearest to n / golden ratio that is coprime to n.

    Successive entries are far apart on the axis, for every n (a Kronecker sequence on the integers).
    """
    step = max(1, round(n * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, n) != 1:
        step += 1
    return np.arange(n) * step % n


def token_order(grid, per_strand, config: MixingConfig):
    """Which token stands where in the payload.

    grid: (t, h, w). per_strand: tokens per strand. Returns int64[strands, per_strand]: number of the token
    (row-major in the grid); numbers past the last token are padding.
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
    # Each round of dealing begins at another strand. Else, where h * w is a multiple of the number of strands, a strand
    # would get one place in all frames. The turns grow as triangular numbers, so that no step in the grid repeats.
    turn = np.arange(per_strand) * np.arange(1, per_strand + 1) // 2 * axis_permutation(strands)[1 % strands]
    return np.take_along_axis(rounds, (np.arange(strands) - turn[:, None]) % strands, axis=1).T


# ---- Kronecker matrix over Z4 -----------------------------------------------------------------------


def z4_matrix(n):
    """(matrix, inverse), int32[n, n] mod 4: lower times upper triangle of ones, determinant 1."""
    lower = np.tril(np.ones((n, n), np.int64))
    unit = np.eye(n, dtype=np.int64) - np.eye(n, k=-1, dtype=np.int64)  # inverse of `lower`
    return (lower @ lower.T % 4).astype(np.int32), (unit.T @ unit % 4).astype(np.int32)


def _kronecker(digits, inverse):
    """Blocks of 4 x g digits X -> A X B^T mod 4, with g as large as fits the strand (at most 8)."""
    columns = math.gcd(digits.shape[1] // 4, 8)
    a, b = z4_matrix(4)[inverse], z4_matrix(columns)[inverse]
    xp = digits.__array_namespace__()
    blocks = digits.astype(np.int32).reshape(digits.shape[0], -1, 4, columns)
    mixed = xp.einsum("ij,nbjk,lk->nbil", a, blocks, b) & 3
    return mixed.reshape(digits.shape).astype(np.uint8)


# ---- keyed offset -------------------------------------------------------------------------------------


def offset_digits(key, shape, first=0):
    """Pseudo-random digits uint8 of ``shape``: 32 from each word of the keyed stream, first digit most significant.

    key: 8 bytes. first: digits of the stream that are passed over. The offset makes digits uniform; it does not hide
    them.
    """
    skipped, size = first % 32, math.prod(shape)
    words = keyed.stream(key, np.arange(first // 32, -(-(first + size) // 32)))
    digits = (words[:, None] >> np.arange(62, -2, -2).astype(np.uint64)) & np.uint64(3)
    return digits.astype(np.uint8).reshape(-1)[skipped : skipped + size].reshape(shape)


# ---- all three ----------------------------------------------------------------------------------------


def mix(digits, key, config: MixingConfig, first=0):
    """Strand digits -> mixed digits: the Kronecker matrix, then the offset. uint8[strands, digits per strand].

    first: number of the first of these strands, where they are a part of all.
    """
    if config.kronecker:
        digits = _kronecker(digits, inverse=0)
    if config.offset:
        digits = (digits + offset_digits(key, digits.shape, first * digits.shape[1])) & 3
    return digits


def unmix(digits, key, config: MixingConfig, first=0):
    """Inverse of ``mix``."""
    if config.offset:
        digits = (digits - offset_digits(key, digits.shape, first * digits.shape[1])) & 3
    if config.kronecker:
        digits = _kronecker(digits, inverse=1)
    return digits


def interleave(tokens, per_strand, config: MixingConfig):
    """Tokens uint8[t, h, w, k] -> uint8[strands, per_strand * k], zeros as padding."""
    t, h, w, k = tokens.shape
    order = token_order((t, h, w), per_strand, config)
    xp = tokens.__array_namespace__()
    padding = np.zeros((order.size - t * h * w, k), np.uint8)
    flat = xp.concatenate([tokens.reshape(-1, k), padding])
    return flat[order].reshape(len(order), per_strand * k)


def deinterleave(strands, grid, digits, config: MixingConfig):
    """Inverse of ``interleave``. strands: [strands, per_strand * k] of any dtype. Returns [t, h, w, k]."""
    order = token_order(grid, strands.shape[1] // digits, config)
    place = np.argsort(order.reshape(-1))[: math.prod(grid)]
    return strands.reshape(-1, digits)[place].reshape(*grid, digits)


def to_bytes(digits):
    """Digits uint8[n, 4 m] -> uint8[n, m], first digit most significant."""
    quads = digits.reshape(len(digits), -1, 4)
    return (quads[..., 0] << 6) | (quads[..., 1] << 4) | (quads[..., 2] << 2) | quads[..., 3]


def from_bytes(data):
    """Inverse of ``to_bytes``."""
    shifts = np.array([6, 4, 2, 0], np.uint8)
    return ((data[:, :, None] >> shifts) & 3).reshape(len(data), -1)
