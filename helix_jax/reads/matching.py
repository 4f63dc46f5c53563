"""Reads of strands that are known already -> which strand each of them copies, without clustering them again."""

import numpy as np
from jaxtyping import Int, Int64, UInt8

from helix_jax.reads import clustering
from helix_jax.reads.clustering import DRIFT

SIZE = 14  # bases of a word
THIN = 6  # one of so many words is used
PART = 1 << 14  # reads or strands whose words are computed at once


def match(
    strands: UInt8[np.ndarray, "m L"], reads: UInt8[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"], *, turned: bool
) -> Int64[np.ndarray, " n"]:
    """Find the strand that each read copies, by words that one strand alone has; edit distance decides.

    Args:
        strands: The known strands, 0..3 = A C G T.
        reads: Bases 0..3, padded.
        lengths: The number of bases of each read.
        turned: Whether a read may also be of a strand's reverse complement.

    Returns:
        The number of each read's strand; -1 where it copies none, or has too many errors for that to be seen.
    """
    known = np.concatenate([strands, 3 - strands[:, ::-1]]) if turned else strands
    found = np.full(len(reads), -1)
    if not len(known):
        return found
    words, owners, positions = _words(known)
    words, first, times = np.unique(words, return_index=True, return_counts=True)
    words, owners, positions = words[times == 1], owners[first[times == 1]], positions[first[times == 1]]
    for begin in range(0, len(reads) if len(words) else 0, PART):
        rows = slice(begin, begin + PART)
        word, read, position = clustering.thinned(reads[rows], lengths[rows], SIZE, THIN)
        order = np.argsort(word)  # neighbours in the table are looked up one after the other
        word, read, position = word[order], read[order], position[order]
        at = np.minimum(np.searchsorted(words, word), len(words) - 1)
        meet = (words[at] == word) & (np.abs(positions[at] - position) <= DRIFT)
        pairs, votes = np.unique(read[meet] * len(known) + owners[at[meet]], return_counts=True)
        read, strand = np.divmod(pairs, len(known))
        best = np.lexsort((-votes, read))
        best = best[np.unique(read[best], return_index=True)[1]]
        for number, candidate in zip((begin + read[best]).tolist(), strand[best].tolist(), strict=True):
            if clustering.alike(known[candidate], reads[number, : lengths[number]]):
                found[number] = candidate % len(strands)
    return found


def _words(strands):
    """Return the words of strands, the strand of each, and its position in it."""
    parts = []
    for begin in range(0, len(strands), PART):
        rows = strands[begin : begin + PART]
        words, owners, positions = clustering.thinned(rows, np.full(len(rows), rows.shape[1]), SIZE, THIN)
        parts.append((words, owners + begin, positions))
    return [np.concatenate(some) for some in zip(*parts, strict=True)]
