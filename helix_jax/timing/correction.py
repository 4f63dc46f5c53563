"""Error correction of the levels: one low-density parity-check code over the level bits of a group of strands.

In version 1 of the schemes every check looks at the whole group (``ecc``), and in version 2 at a few strands
(``local``): there it is known which strands have checks that are not fulfilled, and only these are in doubt.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from helix_jax.timing import capacity, ecc, local
from helix_jax.timing.scheme import Scheme

_ATTEMPTS = 8  # with one strand less each
_FEW = 1 / 8  # of the checks of a strand are broken: a misread strand breaks half of them
_ITERATIONS = 500  # where strands are lost: of two pools of right letters, one settled between 100 and 200
_SCALES = 1.2, 1.6  # times all ratios: where belief propagation goes astray, it may settle with other ratios
_SMALL = 64  # strands of a group up to which ``_SCALES`` are tried: larger ones fail for strands that are not read yet
_SUREST = 12.0  # largest ratio of a level bit, before ``_SCALES``: a misread strand must not be certain of itself


class Corrected(NamedTuple):
    """The levels of a group of strands.

    Attributes:
        levels: The levels.
        sound: Mask of the strands that no known check contradicts.
        suspicion: How many bits of each strand are likely wrong, by what its checks left of their doubt; infinite for a
            strand that was left out.
        ok: Whether the code succeeded.
        changed: The number of level bits that it changed.
    """

    levels: UInt8[np.ndarray, "g data"]
    sound: Bool[np.ndarray, " g"]
    suspicion: Float32[np.ndarray, " g"]
    ok: bool
    changed: int


def parity(scheme: Scheme, levels: UInt8[np.ndarray, "n data"]) -> UInt8[np.ndarray, "n parity"]:
    """Return the parity bits of the strands of one group."""
    if not (scheme.parity and scheme.level_bits):
        return np.zeros((len(levels), scheme.parity), np.uint8)
    bits = ecc.level_bits(levels, scheme.levels).reshape(-1)
    return np.asarray(ecc.encode(code_of(scheme, len(levels)), bits)).reshape(len(levels), -1)


def correct(
    scheme: Scheme,
    likelihood: Float32[np.ndarray, "g data levels"],
    parity: UInt8[np.ndarray, "g parity"],
    doubt: Float32[np.ndarray, " g"],
) -> Corrected:
    """Decode the error-correcting code of one group of strands.

    Where the code fails, some strands are regarded as misread and left out, more of them at each attempt: in version 1
    the most doubtful ones, as wrong parity bits would spoil the whole group, and in version 2 those that many checks
    contradict. A few contradictions are no reason there: a few bits are wrong, and ``suspicion`` says where. With tags,
    what does not settle is tried again with other ratios; whether the result is right is for the outer code to say.

    Args:
        scheme: The scheme.
        likelihood: The log-likelihoods of the levels, which include the prior.
        parity: The parity bits that were read.
        doubt: The doubt of the alignment of each strand, which is infinite for a strand that was not read.

    Returns:
        The levels. If every attempt fails, those of version 1 are as read, and those of version 2 are of the attempt
        that leaves the most strands sound.
    """
    guess = likelihood.argmax(axis=-1).astype(np.uint8)
    was_read, nobody = ~np.isinf(doubt), np.zeros(len(doubt), np.float32)
    if not (scheme.parity and scheme.level_bits):
        return Corrected(guess, was_read, nobody, True, 0)
    code = code_of(scheme, len(likelihood))
    llr = np.clip(ecc.bit_llr(likelihood), -_SUREST, _SUREST)
    if scheme.version > 1:
        return _correct_locally(scheme, code, llr, parity, was_read)
    order = np.argsort(-np.where(np.isinf(doubt), -1, doubt))
    for dropped in (0, 1, 2, 4, 8):
        if dropped > was_read.sum() // 4:
            break
        kept = was_read.copy()
        kept[order[:dropped]] = False
        bits, _, ok = _decoded(scheme, code, llr, parity, kept, kept, _prior_llr(scheme))
        if ok:
            return Corrected(ecc.levels(bits, scheme.levels), was_read, nobody, True, _changes(llr, bits, kept))
    return Corrected(guess, was_read, nobody, False, 0)


def _correct_locally(scheme, code, llr, parity, was_read):
    """Decode a code of ``local``; where it fails, leave out the strand that the most checks contradict, and again.

    Where that does not help, or none is contradicted so much, the code is decoded with all strands and greater ratios.
    Only in small groups, where chance decides, and where the scheme has tags: without them the number of strands is not
    known but tried, and wrong numbers, which never settle, should fail soon.
    """
    kept, attempts = was_read.copy(), []
    for _ in range(_ATTEMPTS):
        attempt, broken = _attempt(scheme, code, llr, parity, was_read, kept)
        attempts.append(attempt)
        contradictions = np.where(kept, local.contradictions(broken, scheme.span), -1)
        if contradictions.max() <= _FEW * scheme.parity * scheme.span:
            break
        kept[np.argmax(contradictions)] = False
    if scheme.tags and len(was_read) <= _SMALL and not attempts[-1].ok:
        for scale in _SCALES:
            attempt, _ = _attempt(scheme, code, np.float32(scale) * llr, parity, was_read, was_read)
            if attempt.ok:
                return attempt
    return max(attempts, key=lambda attempt: attempt.sound.sum())


def _attempt(scheme, code, llr, parity, was_read, kept):
    """Decode a code of ``local`` with the strands ``kept``.

    Returns (Corrected, how many checks of each strand are broken).
    """
    # No check can be used that sees a strand which was not read: its bits may be anything.
    known = local.visible(kept, scheme.span)
    bits, suspicion, ok = _decoded(scheme, code, llr, parity, kept, known, _SUREST)
    broken = np.zeros(len(parity), int)
    if not ok:
        computed = np.asarray(ecc.encode(code, bits.reshape(-1))).reshape(parity.shape)
        broken = (computed != parity).sum(axis=1) * known
    sound = kept & ~local.seen(broken > 0, scheme.span)
    suspicion = np.where(was_read & ~kept, np.float32(np.inf), suspicion)
    levels = ecc.levels(bits, scheme.levels)
    return Corrected(levels, sound, suspicion, ok, _changes(llr, bits, kept)), broken


def _decoded(scheme, code, llr, parity, kept, known, unknown):
    """Decode the code with the strands ``kept`` and the checks of the strands ``known``.

    Returns (bits uint8[g, data, level bits], how many of them are likely wrong float32[g], whether it succeeded).
    """
    llr = np.where(kept[:, None, None], llr, np.float32(unknown)).astype(np.float32)
    total, ok = ecc.beliefs(
        code, llr.reshape(-1), parity.reshape(-1), np.repeat(known, scheme.parity), iterations=_ITERATIONS
    )
    total = np.asarray(total).reshape(llr.shape)
    wrong = np.exp(-np.logaddexp(0, np.abs(total))).sum(axis=(1, 2), dtype=np.float32)
    return (total < 0).astype(np.uint8), wrong, bool(ok)


def _changes(llr, bits, kept):
    return int(((llr < 0) != bits)[kept].sum())


def code_of(scheme: Scheme, strands: int) -> ecc.Code:
    """Return the error-correcting code of a group of so many strands, whose bits stand strand by strand."""
    if scheme.version > 1:
        return local.design(strands, scheme.data * scheme.level_bits, scheme.parity, scheme.span)
    return ecc.design(strands * scheme.data * scheme.level_bits, strands * scheme.parity)


def _prior_llr(scheme):
    """Return the prior log-likelihood ratios of the bits of a level: float32[level bits]."""
    return ecc.bit_llr(np.log(np.maximum(capacity.chain(scheme.counted, overhead=scheme.overhead).level_share, 1e-9)))
