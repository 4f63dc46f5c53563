"""Reads of primed strands -> the part between the primers, all in one direction (edlib)."""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from helix_jax.strands.primers import COMPLEMENT

UNLIKE = 0.3  # edits per base up to which a piece is taken for a primer; 0.35 finds most primers in any read
# The same where the other primer is not found: a primer of 20 bases is within UNLIKE of some piece of a quarter of the
# reads of other pools in the same tube, and within this of one in 400.
ALONE = 0.2


def between(read: bytes, left: bytes, right: bytes) -> tuple[int, int, bool] | None:
    """Find where the strand lies in a read, and in which direction it was read.

    Args:
        read: Letters over ACGTN.
        left: The left primer over ACGT, which may be empty if the other is not.
        right: The right primer over ACGT, likewise.

    Returns:
        (begin, end, turned): the strand is read[begin:end] of the read, or of its reverse complement where turned; None
        where no primer is found. With one of two primers found, the strand reaches to the read's other end.
    """
    best, fewest = None, len(left) + len(right)
    for turned in (False, True):
        text = complement(read) if turned else read
        begin, end, edits, shares = 0, len(text), 0, []
        if left:
            distance, span = find(left, text)
            begin = span[1] if span else 0
            edits += distance
            shares.append(distance / len(left))
        if right:
            distance, span = find(right, text[begin:])
            end = begin + span[0] if span else len(text)
            edits += distance
            shares.append(distance / len(right))
        both = len(shares) == 2 and max(shares) < 1
        if edits < fewest and (both or min(shares) <= ALONE):
            best, fewest = (begin, end, turned), edits
    return best


def complement(letters: bytes) -> bytes:
    """Return the reverse complement of letters over ACGTN."""
    return letters.translate(COMPLEMENT)[::-1]


def turned(reads: UInt8[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n R"]:
    """Return the reverse complements of reads of the given lengths (0..3 = A C G T, other values unchanged)."""
    back = backwards(reads, lengths)
    return np.where(back < 4, 3 - back, back).astype(np.uint8)


def backwards(rows: Shaped[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "n R"]:
    """Reverse the first lengths[i] entries of each row, and leave what follows them where it was."""
    position = np.arange(rows.shape[1])[None]
    mirrored = lengths[:, None] - 1 - position
    return np.take_along_axis(rows, np.where(mirrored >= 0, mirrored, position), axis=1)


def find(primer: bytes, text: bytes) -> tuple[int, tuple[int, int] | None]:
    """Return the edits and the (begin, end) of the primer's most likely position in the text.

    The result is (the primer's length, None) where the primer is not in the text.
    """
    if not text:
        return len(primer), None
    most = int(UNLIKE * len(primer))
    hit = edlib.align(primer, text, mode="HW", task="locations", k=most)
    if hit["editDistance"] < 0:
        return len(primer), None
    begin, last = hit["locations"][0]
    return hit["editDistance"], (begin, last + 1)
