"""Primers that nobody stated: beginnings and ends that many strands of a mixture share, and the pools that have them.

A reader that was given no primers cannot cut the reads at them. What it can do is say which primers there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from helix_jax.errors import DecodeError
from helix_jax.strands import header_search
from helix_jax.strands.header_search import turned
from helix_jax.strands.primers import BASES, reverse_complement
from helix_jax.strands.written import Written

SEED = 10  # bases in which the beginnings of a pool's strands agree
AGREED = 0.85  # share of the strands that have the commonest base, inside a primer
LEAST = 6  # strands that a pool has at least
MOST = 16  # pools that are looked for
MARK = 8  # bases after a left primer in which the header strands of a pool agree


@dataclass(frozen=True)
class Ends:
    """The primers that some strands share.

    Attributes:
        left: The beginning.
        right: The end.
        strands: How many strands have them.
        key: The key of the pool, or None where its header cannot be read.
    """

    left: str
    right: str
    strands: int
    key: bytes | None = None


def shared(strands: UInt8[np.ndarray, "n L"]) -> list[Ends]:
    """Return the primers of pools among strands, those of the most strands first, in the direction of writing.

    Args:
        strands: Strands with their primers, in both directions; bases are 0..3 = A C G T.
    """
    both = np.unique(np.concatenate([strands, turned(strands)]), axis=0)
    _, group, counts = np.unique(both[:, :SEED], axis=0, return_inverse=True, return_counts=True)
    found: dict[frozenset, tuple[int, Ends]] = {}
    for number in np.argsort(-counts, kind="stable")[: 4 * MOST]:
        rows = both[group.reshape(-1) == number]
        left, right = _agreed(rows), _agreed(rows[:, ::-1])[::-1]
        if len(rows) < LEAST or min(len(left), len(right)) < SEED or len(left) + len(right) >= rows.shape[1]:
            continue
        # Header strands begin alike after the left primer; the other way round, checks follow, which are random.
        marks = rows[:, len(left) : len(left) + MARK]
        alike = int(np.unique(marks, axis=0, return_counts=True)[1].max())
        either = frozenset((left, reverse_complement(right)))
        if either not in found or alike > found[either][0]:
            found[either] = alike, Ends(left, right, len(rows))
    return sorted((ends for _, ends in found.values()), key=lambda ends: -ends.strands)[:MOST]


def _agreed(rows):
    """Return the bases that nearly all rows begin with, as letters."""
    share = np.stack([(rows == base).mean(axis=0) for base in range(4)])
    length = int(np.append(share.max(axis=0) < AGREED, True).argmax())
    return BASES[share[:, :length].argmax(axis=0)].tobytes().decode()


def pools(strands: UInt8[np.ndarray, "n L"], motifs: Sequence[str]) -> list[Ends]:
    """Return the ``shared`` primers, with the key of each pool whose header can be read.

    Args:
        strands: As for ``shared``.
        motifs: Forbidden words of the pools.
    """
    named = []
    for ends in shared(strands):
        key = None
        for exempt in (False, True):
            written = Written(tuple(motifs), ends.left, ends.right, exempt)
            try:
                key = header_search.find_header({strands.shape[1]: strands}, written).header.key
                break
            except DecodeError:
                continue
        named.append(Ends(ends.left, ends.right, ends.strands, key))
    return named


def advice(found: Sequence[Ends]) -> str:
    """Return what to say of pools whose primers were not given; the text is empty where there are none."""
    if not found:
        return ""
    what = "several pools are mixed, and each has primers" if len(found) > 1 else "the strands have primers"
    which = " or ".join(
        f"--left-primer {ends.left} --right-primer {ends.right}" + (f" (key {ends.key.hex()})" if ends.key else "")
        for ends in found
    )
    return f"{what}: give {which}"
