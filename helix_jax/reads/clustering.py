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
from jaxtyping import Int, Int64, UInt8, UInt64
from scipy import sparse
from scipy.sparse import csgraph

THIN = 3
CHANCE = 0.3  # words that a word meets by chance, on average, which sets the length of words
DRIFT = 8  # the most bases by which copies of one strand are out of step
PART = 1 << 16  # reads whose words are computed at once
SLICE = 1 << 22  # words that are compared with the next at once
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
    words = _words(reads, lengths)
    label = np.arange(count)
    for ahead in range(1, ROUNDS + 1):
        pairs = _nominate(*words, label, ahead)
        near = np.array([alike(reads[i, : lengths[i]], reads[j, : lengths[j]]) for i, j in pairs.tolist()], bool)
        heads = label[pairs[near]]
        graph = sparse.coo_array((np.ones(len(heads), bool), tuple(heads.T)), (count, count))
        label = csgraph.connected_components(graph, directed=False)[1][label]
        if progress:
            progress(count // ROUNDS if ahead < ROUNDS else count - (ROUNDS - 1) * (count // ROUNDS))
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _words(reads, lengths):
    """Return the words in use, in order of (word, position, read), as numbers of three fields and the fields' widths.

    A number has word, position and read from its highest bits down, so that a word takes 8 bytes and one sort orders
    all of them: uint64[m], (bits of the position, bits of the read).
    """
    count = len(reads)
    widths = int(reads.shape[1]).bit_length(), count.bit_length()
    drawn = count * float(lengths.mean()) / THIN
    size = 6
    while size < (64 - sum(widths)) // 2 and drawn * 2 * DRIFT / max(1.0, float(lengths.mean())) > CHANCE * 4**size:
        size += 1
    parts = []
    for begin in range(0, count, PART):
        word, owner, position = thinned(reads[begin : begin + PART], lengths[begin : begin + PART], size, THIN)
        owner = (owner + begin).astype(np.uint64)
        parts.append(word << np.uint64(sum(widths)) | position.astype(np.uint64) << np.uint64(widths[1]) | owner)
    words = np.concatenate(parts)
    words.sort()
    return words, widths


def thinned(
    reads: UInt8[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"], size: int, thin: int
) -> tuple[UInt64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return the words of ``size`` bases in use, in order of reads.

    Args:
        reads: Bases 0..3, padded.
        lengths: The number of bases of each read.
        size: Bases of a word, at most 32.
        thin: One of so many words is used.

    Returns:
        The words as numbers, the read of each, and its position in it.
    """
    count, width = reads.shape
    bases = np.zeros((count, width + size), np.uint64)
    bases[:, :width] = reads & 3
    word, have = bases, 1
    while have < size:  # words twice as long, until the rest is an overlap
        step = min(have, size - have)
        word = word[:, :-step] << np.uint64(2 * step) | (word[:, step:] & np.uint64(4**step - 1))
        have += step
    word = word[:, :width]
    mixed = (word * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    whole = np.arange(width)[None] + size <= lengths[:, None]
    owner, position = np.nonzero(whole & (mixed % np.uint64(thin) == 0))
    return word[owner, position], owner, position


def _nominate(words, widths, label, ahead):
    """Return pairs int64[m, 2] of reads of different clusters whose words are ``ahead`` positions apart in order."""
    of_position, of_read = (np.uint64(bits) for bits in widths)
    parts = [np.zeros(0, np.int64)]
    for begin in range(0, len(words) - ahead, SLICE):
        part = words[begin : begin + SLICE + ahead]
        former, latter = part[:-ahead] >> of_read, part[ahead:] >> of_read
        # The positions are the lowest bits now: two of one word differ by no more than their positions do.
        near = (former >> of_position == latter >> of_position) & (latter - former <= np.uint64(DRIFT))
        read = np.uint64((1 << widths[1]) - 1)
        pairs = np.stack([part[:-ahead][near] & read, part[ahead:][near] & read], axis=1).astype(np.int64)
        pairs = np.sort(pairs[label[pairs[:, 0]] != label[pairs[:, 1]]], axis=1)
        parts.append(np.unique(pairs[:, 0] << 32 | pairs[:, 1]))
    pairs = np.unique(np.concatenate(parts))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1)


def alike(one: UInt8[np.ndarray, " n"], other: UInt8[np.ndarray, " m"]) -> bool:
    """Return whether two reads copy one strand.

    Their halves are compared too: a chimera of two strands resembles each of them in part, and would join the clusters
    of both.
    """
    first, second = one.tobytes(), other.tobytes()
    if edlib.align(first, second, k=int(ALIKE * (len(first) + len(second)) / 2))["editDistance"] < 0:
        return False
    half = min(len(first), len(second)) // 2
    ends = (first[:half], second[: half + DRIFT]), (first[::-1][:half], second[::-1][: half + DRIFT])
    return all(edlib.align(a, b, mode="SHW", k=int(ALIKE * half))["editDistance"] >= 0 for a, b in ends if a)
