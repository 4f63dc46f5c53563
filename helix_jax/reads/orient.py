"""Reads of primed strands -> the part between the primers, all in one direction (edlib)."""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np

from helix_jax.strands.primers import COMPLEMENT

UNLIKE = 0.3  # edits per base of a primer up to which a place is taken for it; 0.35 finds most primers in any read


def between(read, left, right):
    """Where the strand lies in a read, and which way it was read.

    read: letters, bytes over ACGTN. left, right: primers, bytes over ACGT, one of which may be empty.
    Returns (begin, end, turned): the strand is read[begin:end] of the read, or of its reverse complement where turned;
    None where no primer is found. With one of two primers found, the strand reaches to the read's other end.
    """
    best, found = None, len(left) + len(right) + 1
    for turned in (False, True):
        text = complement(read) if turned else read
        begin, end, edits = 0, len(text), 0
        if left:
            distance, place = find(left, text)
            begin = place[1] if place else 0
            edits += distance
        if right:
            distance, place = find(right, text[begin:])
            end = begin + place[0] if place else len(text)
            edits += distance
        if edits < min(found, len(left) + len(right)):
            best, found = (begin, end, turned), edits
    return best


def complement(letters):
    """Reverse complement of bytes over ACGTN."""
    return letters.translate(COMPLEMENT)[::-1]


def turned(reads, lengths):
    """Reverse complements of reads uint8[n, R] of int[n] bases (0..3 = A C G T, others unchanged)."""
    back = backwards(reads, lengths)
    return np.where(back < 4, 3 - back, back).astype(np.uint8)


def backwards(rows, lengths):
    """Rows [n, R] with their first lengths[i] entries in reverse order, what follows them left where it was."""
    place = np.arange(rows.shape[1])[None]
    mirrored = lengths[:, None] - 1 - place
    return np.take_along_axis(rows, np.where(mirrored >= 0, mirrored, place), axis=1)


def find(primer, text):
    """(edits, (begin, end)) of the primer's most likely place in the text; (its length, None) where it is not there."""
    if not text:
        return len(primer), None
    most = int(UNLIKE * len(primer))
    hit = edlib.align(primer, text, mode="HW", task="locations", k=most)
    if hit["editDistance"] < 0:
        return len(primer), None
    begin, last = hit["locations"][0]
    return hit["editDistance"], (begin, last + 1)
