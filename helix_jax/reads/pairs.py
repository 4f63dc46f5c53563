"""The two reads of a pair -> the piece of DNA that both were read from, its insert, by their overlap and qualities.

The second read is read backwards from the other end of the insert. If the insert has I bases, base p of the first read
is opposite base I - 1 - p of the second. For each I, the reads' likelihood under an overlap is compared with that of
unrelated letters. Strands of a pool have one length, so nearly all inserts have, too: how often each I occurs among the
first pairs is the prior for all pairs of the file, which makes short overlaps certain. The probabilities of the merged
bases are those of Edgar & Flyvbjerg (Bioinformatics 2015, 31:3476), equations 8 and 9, derived here from Bayes' rule.

A pair of reads that do not reach each other becomes one read with N between them where the length of inserts is known,
and stays two reads otherwise.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from helix_jax.strands.portions import MOST_PHRED, PAD, UNKNOWN

SURE = 0.99  # probability from which on a pair is merged
USUAL = 0.9  # share of inserts of one length from which on reads that do not overlap are joined to that length
FEWEST, LEAST = 20, 0.05  # inserts that tell a usual length: so many, and so large a share of all pairs
PLACEHOLDER = 2  # Phred up to which the qualities of a whole read say nothing
UNSTATED = 17  # Phred that is assumed instead: 2 % errors
LONGEST = 1024  # bases; longer reads are no pairs of a sequencer of short reads

_ERROR = (10.0 ** (-np.arange(MOST_PHRED + 1) / 10)).clip(max=0.75)
_E1, _E2 = _ERROR[:, None], _ERROR[None]
_EQUAL = 1 - _E1 - _E2 + 4 / 3 * _E1 * _E2  # probability that two reads of one base agree
# log probability of a base that agrees, or differs, in reads of one base, over that in unrelated reads
_AGREE = np.log(4 * _EQUAL).astype(np.float32)
_DIFFER = np.log(4 / 3 * (1 - _EQUAL)).astype(np.float32)


def _phred(error):
    return np.clip(np.round(-10 * np.log10(error)), 0, MOST_PHRED).astype(np.uint8)


_SAME_QUALITY = _phred(_E1 * _E2 / 3 / _EQUAL)
_LIKELIER, _OTHER = np.minimum(_E1, _E2), np.maximum(_E1, _E2)
_OTHER_QUALITY = _phred(_LIKELIER * (1 - _OTHER / 3) / (1 - _EQUAL))


class Ends(NamedTuple):
    """Reads from one end of their inserts.

    Attributes:
        bases: 0..3 = A C G T, 4 = N, ``PAD`` past the length.
        lengths: The number of bases of each.
        qualities: Phred, 0 past the length.
    """

    bases: UInt8[np.ndarray, "n W"]
    lengths: Int[np.ndarray, " n"]
    qualities: UInt8[np.ndarray, "n W"]


@dataclass(frozen=True, eq=False)
class Prior:
    """How long the inserts of a file are.

    Attributes:
        log: The log probability of each number of bases I = 0, 1, ..; of longer inserts as of the last.
        log_apart: The log probability that the reads of a pair do not show their insert.
        usual: The length of nearly all inserts, or 0 where there is none.
    """

    log: Float32[np.ndarray, " I"]
    log_apart: float
    usual: int


def flat(longest: int) -> Prior:
    """Return the prior under which every insert of up to ``longest`` bases is equally likely."""
    return Prior(np.full(longest + 1, np.log(0.5 / longest), np.float32), float(np.log(0.5)), 0)


def learned(inserts: Int64[np.ndarray, " n"], longest: int) -> Prior:
    """Return the prior that follows from inserts of other pairs, 0 where one could not be told."""
    counts = np.bincount(inserts, minlength=longest + 1)[: longest + 1]
    apart, told = counts[0], counts[1:].sum()
    doubt = 1 + len(inserts) / 100  # pairs, over all lengths
    shares = (counts + doubt / longest) / (len(inserts) + 2 * doubt)
    usual = int(counts[1:].argmax()) + 1
    enough = told >= max(FEWEST, LEAST * len(inserts)) and counts[usual] >= USUAL * told
    return Prior(
        np.log(shares).astype(np.float32),
        float(np.log((apart + doubt) / (len(inserts) + 2 * doubt))),
        usual if enough else 0,
    )


def inserts(first: Ends, second: Ends, prior: Prior) -> Int64[np.ndarray, " n"]:
    """Return the number of bases of each pair's insert, 0 where it cannot be told.

    It may be larger than the lengths of both reads together, where all inserts have that length.

    Args:
        first: The first reads.
        second: The second reads, as they were read.
        prior: How long inserts are.
    """
    first, second = _stated(first), _stated(second)
    score = _scores(first, second, prior)
    best = score.argmax(axis=0)
    score[best, np.arange(len(best))] = -np.inf
    most = np.maximum(score.max(axis=0), prior.log_apart)
    others = most + np.log(np.exp(score - most).sum(axis=0) + np.exp(prior.log_apart - most))
    # The score takes the errors of a read to be spread evenly; here they count where they lie.
    exact = _exact(first, second, best) + prior.log[np.minimum(best, len(prior.log) - 1)]
    sure = exact - others > np.log(SURE / (1 - SURE))
    found = np.where(sure, best, 0)
    reach = first.lengths + second.lengths
    return np.where((found == 0) & (prior.usual >= reach), prior.usual, found).astype(np.int64)


def merge(first: Ends, second: Ends, insert: Int64[np.ndarray, " n"]) -> Ends:
    """Return the inserts of pairs, in the direction of the first reads; bases that no read shows are N.

    Args:
        first: The first reads.
        second: The second reads, as they were read.
        insert: The number of bases of each insert, at least 1.
    """
    first, second = _stated(first), _stated(second)
    position = np.arange(int(insert.max(initial=1)))[None]
    within = position < insert[:, None]
    a, qa = _at(first, np.broadcast_to(position, within.shape), within)
    b, qb = _at(second, insert[:, None] - 1 - position, within)
    b = np.where(b < UNKNOWN, 3 - b, b).astype(np.uint8)
    better = np.where(a == UNKNOWN, True, (b != UNKNOWN) & (qb > qa))
    both = (a != UNKNOWN) & (b != UNKNOWN)
    quality = np.where(better, qb, qa)
    quality = np.where(both, np.where(a == b, _SAME_QUALITY[qa, qb], _OTHER_QUALITY[qa, qb]), quality)
    bases = np.where(within, np.where(better, b, a), np.uint8(PAD))
    return Ends(bases, insert.astype(np.int32), np.where(within, quality, 0).astype(np.uint8))


def _stated(ends):
    """Return reads with an assumed quality in place of those that say nothing."""
    unstated = ends.qualities.max(axis=1, initial=0) <= PLACEHOLDER
    return ends._replace(qualities=np.where(unstated[:, None], np.uint8(UNSTATED), ends.qualities))


def _at(ends, position, within):
    """Return (bases, qualities) at positions of reads; N of quality 0 outside of a read."""
    inside = within & (position >= 0) & (position < ends.lengths[:, None])
    place = np.where(inside, position, 0)
    bases, qualities = (np.take_along_axis(rows, place, axis=1) for rows in (ends.bases, ends.qualities))
    inside &= bases < UNKNOWN
    return np.where(inside, bases, np.uint8(UNKNOWN)), np.where(inside, qualities, np.uint8(0))


def _scores(first, second, prior):
    """Return the log of prior and likelihood of every insert, float32[I, n], as if errors were spread evenly."""
    n, width = first.bases.shape
    other = second.bases.shape[1]
    # by columns, so that sums over positions run along the pairs; the second read backwards and complemented
    a = np.where(first.bases < UNKNOWN, first.bases, 253).T.copy()
    b = np.where(second.bases < UNKNOWN, 3 - second.bases, 254).astype(np.uint8)[:, ::-1].T.copy()
    e1, e2 = (_mean_error(ends) for ends in (first, second))
    equal = 1 - e1 - e2 + 4 / 3 * e1 * e2
    agree, differ = np.log(4 * equal), np.log(4 / 3 * (1 - equal))
    count = np.uint8 if min(width, other) < 256 else np.uint16
    scores = np.full((width + other + 1, n), -np.inf, np.float32)
    for insert in range(1, width + other):
        begin, end = max(0, insert - other), min(width, insert)
        same = a[begin:end] == b[other - insert + begin : other - insert + end]
        matches = np.add.reduce(same.view(np.uint8), axis=0, dtype=count).astype(np.float32)
        overlap = np.minimum(first.lengths, insert) - np.maximum(0, insert - second.lengths)
        score = matches * agree + (overlap - matches) * differ + prior.log[min(insert, len(prior.log) - 1)]
        scores[insert] = np.where(overlap > 0, score, -np.inf)
    return scores


def _mean_error(ends):
    """Return the mean probability of an error of each read's bases, float32[n]."""
    real = np.arange(ends.bases.shape[1])[None] < ends.lengths[:, None]
    errors = np.where(real, _ERROR.astype(np.float32)[ends.qualities], 0).sum(axis=1) / ends.lengths
    return errors.clip(1e-3).astype(np.float32)


def _exact(first, second, insert):
    """Return the log likelihood of an overlap at the given inserts over that of unrelated letters, float32[n]."""
    position = np.arange(first.bases.shape[1])[None]
    within = np.broadcast_to(position < insert[:, None], first.bases.shape)
    a, qa = _at(first, np.broadcast_to(position, within.shape), within)
    b, qb = _at(second, insert[:, None] - 1 - position, within)
    both = (a != UNKNOWN) & (b != UNKNOWN)
    return np.where(both, np.where(a == 3 - b, _AGREE[qa, qb], _DIFFER[qa, qb]), 0).sum(axis=1)
