"""Reads of strands -> clusters of reads that copy one strand, in time nearly linear in their number.

Copies share words at similar positions. Of all words one in ``THIN`` is used, the same ones in every read (their hash
decides which). Reads that share a word within ``DRIFT`` bases of each other are nominated, each with the next one in
the order of positions, so that no word costs more than its occurrences; the edit distance (edlib) decides. Clusters are
the connected components of the pairs that it joins.

``timing.clustering`` does the same for the timing channel, whose copies lose whole runs and are hardly nearer to each
other than to strangers: it compares every read with many others and takes averages, which would be five times slower
here.
"""

from collections.abc import Callable

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Int, Int64, UInt8
from scipy import sparse
from scipy.sparse import csgraph

THIN = 3
CHANCE = 0.3  # words that a word meets by chance, on average, which sets the length of words
DRIFT = 8  # the most bases by which copies of one strand are out of step
PART = 1 << 16  # reads whose words are computed at once
ROUNDS = 3  # nominations: the next in order, the one after it, and so on
ALIKE = 0.36  # edits per base up to which two reads copy one strand; unrelated ones differ by about 0.5


def cluster(
    reads: UInt8[np.ndarray, "n R"],
    lengths: Int[np.ndarray, " n"],
    *,
    progress: Callable[[int], None] | None = None,
) -> Int64[np.ndarray, " n"]:
    """Group reads by the strand that they copy.

    Args:
        reads: Bases 0..3 = A C G T, padded.
        lengths: The number of bases of each read.
        progress: Called with how many reads are newly processed, n in all.

    Returns:
        Labels 0, 1, .. in order of first appearance; a read that resembles no other is a cluster of its own.
    """
    count = len(reads)
    if not count:
        return np.zeros(0, np.int64)
    word, owner, position = _words(reads, lengths)
    texts = [row[:length].tobytes() for row, length in zip(reads, lengths, strict=True)]
    label = np.arange(count)
    for ahead in range(1, ROUNDS + 1):
        pairs = _nominate(word, owner, position, label, ahead)
        near = np.array([_alike(texts[i], texts[j]) for i, j in pairs.tolist()], bool)
        heads = label[pairs[near]]
        graph = sparse.coo_array((np.ones(len(heads), bool), tuple(heads.T)), (count, count))
        label = csgraph.connected_components(graph, directed=False)[1][label]
        if progress:
            progress(count // ROUNDS if ahead < ROUNDS else count - (ROUNDS - 1) * (count // ROUNDS))
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _words(reads, lengths):
    """Return the words in use, in order of (word, position): (word int64[m], index of the read, position in it)."""
    count = len(reads)
    drawn = count * float(lengths.mean()) / THIN
    size = 6
    while size < 24 and drawn * 2 * DRIFT / max(1.0, float(lengths.mean())) > CHANCE * 4**size:
        size += 1
    parts = [_thinned(reads[rows : rows + PART], lengths[rows : rows + PART], size) for rows in range(0, count, PART)]
    word, owner, position = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    owner += PART * np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    order = np.lexsort((position, word))
    return word[order], owner[order], position[order]


def _thinned(reads, lengths, size):
    """Return the words of ``size`` bases in use, in order of reads: int64[m] of word, index of the read, position."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(reads, ((0, 0), (0, size))), size, axis=1)
    word = np.zeros(windows.shape[:2], np.int64)
    for step in range(size):
        word = word * 4 + windows[:, :, step]
    mixed = (word.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    whole = np.arange(word.shape[1])[None] + size <= lengths[:, None]
    owner, position = np.nonzero(whole & (mixed % np.uint64(THIN) == 0))
    return word[owner, position], owner, position


def _nominate(word, owner, position, label, ahead):
    """Return pairs int64[m, 2] of reads of different clusters whose words are ``ahead`` positions apart in order."""
    first, second = owner[:-ahead], owner[ahead:]
    meet = (
        (word[:-ahead] == word[ahead:])
        & (position[ahead:] - position[:-ahead] <= DRIFT)
        & (label[first] != label[second])
    )
    pairs = np.sort(np.stack([first[meet], second[meet]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _alike(first, second):
    """Return whether two reads copy one strand.

    Their halves are compared too: a chimera of two strands resembles each of them in part, and would join the clusters
    of both.
    """
    if edlib.align(first, second, k=int(ALIKE * (len(first) + len(second)) / 2))["editDistance"] < 0:
        return False
    half = min(len(first), len(second)) // 2
    ends = (first[:half], second[: half + DRIFT]), (first[::-1][:half], second[::-1][: half + DRIFT])
    return all(edlib.align(a, b, mode="SHW", k=int(ALIKE * half))["editDistance"] >= 0 for a, b in ends if a)
