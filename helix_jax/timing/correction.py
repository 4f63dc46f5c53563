"""Error correction of the levels: one low-density parity-check code over the level bits of a group of strands."""

import numpy as np
from jaxtyping import Float32, UInt8

from helix_jax.timing import capacity, ecc
from helix_jax.timing.scheme import Scheme

_SUREST = 12.0  # largest log-likelihood ratio of a level bit: a misread strand must not be certain of itself


def parity(scheme: Scheme, levels: UInt8[np.ndarray, "n data"]) -> UInt8[np.ndarray, "n parity"]:
    """Return the parity bits of the strands of one group."""
    if not (scheme.parity and scheme.level_bits):
        return np.zeros((len(levels), scheme.parity), np.uint8)
    bits = ecc.level_bits(levels, scheme.levels).reshape(-1)
    return np.asarray(ecc.encode(_code(scheme, len(levels)), bits)).reshape(len(levels), -1)


def correct(
    scheme: Scheme,
    likelihood: Float32[np.ndarray, "g data levels"],
    parity: UInt8[np.ndarray, "g parity"],
    doubt: Float32[np.ndarray, " g"],
) -> tuple[UInt8[np.ndarray, "g data"], bool, int]:
    """Decode the error-correcting code of one group of strands.

    Where the code fails, the most doubtful strands are regarded as misread and left out, more of them at each attempt:
    wrong parity bits would spoil the whole group.

    Args:
        scheme: The scheme.
        likelihood: The log-likelihoods of the levels, which include the prior.
        parity: The parity bits that were read.
        doubt: The doubt of the alignment of each strand, which is infinite for a strand that was not read.

    Returns:
        The levels, whether the code succeeded, and the number of level bits that it changed.
    """
    guess = likelihood.argmax(axis=-1).astype(np.uint8)
    if not (scheme.parity and scheme.level_bits):
        return guess, True, 0
    code = _code(scheme, len(likelihood))
    order = np.argsort(-np.where(np.isinf(doubt), -1, doubt))
    was_read = ~np.isinf(doubt)
    for dropped in (0, 1, 2, 4, 8):
        if dropped > was_read.sum() // 4:
            break
        kept = was_read.copy()
        kept[order[:dropped]] = False
        llr = np.clip(ecc.bit_llr(likelihood), -_SUREST, _SUREST)
        llr[~kept] = _prior_llr(scheme)
        bits, ok = ecc.decode(code, llr.reshape(-1), parity.reshape(-1), np.repeat(kept, scheme.parity))
        if ok:
            bits = np.asarray(bits).reshape(llr.shape)
            changed = int(((llr < 0) != bits)[kept].sum())
            return ecc.levels(bits, scheme.levels), True, changed
    return guess, False, 0


def _code(scheme, strands):
    """Return the error-correcting code of a group of so many strands."""
    return ecc.design(strands * scheme.data * scheme.level_bits, strands * scheme.parity)


def _prior_llr(scheme):
    """Return the prior log-likelihood ratios of the bits of a level: float32[level bits]."""
    return ecc.bit_llr(np.log(np.maximum(capacity.chain(scheme.table, overhead=scheme.overhead).level_share, 1e-9)))
