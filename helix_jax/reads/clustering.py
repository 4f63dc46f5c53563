"""Reads of strands -> clusters of reads that copy one strand, in time nearly linear in their number.

Copies share words at like places. Of all words one in ``THIN`` is looked at, the same ones in every read (their hash
says which). Reads that share a word within ``DRIFT`` bases of each other are nominated, each with the next one in the
order of places, so that no word costs more than its occurrences; edit distance (edlib) decides. Clusters are the
connected parts of what it joins.

``timing.clustering`` does the same for the timing channel, whose copies lose whole runs and are hardly nearer than
strangers: it compares every read with many others and takes averages, five times slower here.
"""

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

THIN = 3
CHANCE = 0.3  # words that a word meets by chance, on average; sets their length
DRIFT = 8  # bases by which copies of one strand are out of step, at most
PART = 1 << 16  # reads whose words are made at once
ROUNDS = 3  # nominations: the next in order, the one after it, and so on
ALIKE = 0.36  # edits per base up to which two reads copy one strand; unrelated ones differ by about 0.5


def cluster(reads, lengths, *, progress=None):
    """Group reads by the strand that they copy.

    reads: uint8[n, R], bases 0..3 = A C G T, padded. lengths: int32[n]. progress: called with how many reads are newly
    dealt with, n in all.
    Returns labels int64[n]: 0, 1, .. in order of first appearance; a read like no other is a cluster of its own.
    """
    count = len(reads)
    if not count:
        return np.zeros(0, np.int64)
    word, owner, place = _words(reads, lengths)
    texts = [row[:length].tobytes() for row, length in zip(reads, lengths, strict=True)]
    label = np.arange(count)
    for ahead in range(1, ROUNDS + 1):
        pairs = _nominate(word, owner, place, label, ahead)
        near = np.array([_alike(texts[i], texts[j]) for i, j in pairs.tolist()], bool)
        heads = label[pairs[near]]
        graph = sparse.coo_array((np.ones(len(heads), bool), tuple(heads.T)), (count, count))
        label = csgraph.connected_components(graph, directed=False)[1][label]
        if progress:
            progress(count // ROUNDS if ahead < ROUNDS else count - (ROUNDS - 1) * (count // ROUNDS))
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _words(reads, lengths):
    """Words that are looked at, in order of (word, place): (word int64[m], number of the read, place in it)."""
    count = len(reads)
    drawn = count * float(lengths.mean()) / THIN
    size = 6
    while size < 24 and drawn * 2 * DRIFT / max(1.0, float(lengths.mean())) > CHANCE * 4**size:
        size += 1
    parts = [_thinned(reads[rows : rows + PART], lengths[rows : rows + PART], size) for rows in range(0, count, PART)]
    word, owner, place = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    owner += PART * np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    order = np.lexsort((place, word))
    return word[order], owner[order], place[order]


def _thinned(reads, lengths, size):
    """Words of ``size`` bases that are looked at, in order of reads: (word, number of the read, place), int64[m]."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(reads, ((0, 0), (0, size))), size, axis=1)
    word = np.zeros(windows.shape[:2], np.int64)
    for step in range(size):
        word = word * 4 + windows[:, :, step]
    mixed = (word.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    whole = np.arange(word.shape[1])[None] + size <= lengths[:, None]
    owner, place = np.nonzero(whole & (mixed % np.uint64(THIN) == 0))
    return word[owner, place], owner, place


def _nominate(word, owner, place, label, ahead):
    """Pairs int64[m, 2] of reads not yet of one cluster whose words are ``ahead`` places apart in the order."""
    one, two = owner[:-ahead], owner[ahead:]
    meet = (word[:-ahead] == word[ahead:]) & (place[ahead:] - place[:-ahead] <= DRIFT) & (label[one] != label[two])
    pairs = np.sort(np.stack([one[meet], two[meet]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _alike(one, two):
    """Whether two reads copy one strand. Their halves are looked at too: a chimera of two strands is like each in part,
    and would join the clusters of both."""
    if edlib.align(one, two, k=int(ALIKE * (len(one) + len(two)) / 2))["editDistance"] < 0:
        return False
    half = min(len(one), len(two)) // 2
    ends = (one[:half], two[: half + DRIFT]), (one[::-1][:half], two[::-1][: half + DRIFT])
    return all(edlib.align(a, b, mode="SHW", k=int(ALIKE * half))["editDistance"] >= 0 for a, b in ends if a)
