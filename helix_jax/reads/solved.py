"""Lists of likely strands -> the strands that pass their check, portion of reads by portion.

``Solved`` holds what all portions gave, and the clusters of the present one until they are ``settled``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt32

from helix_jax.reads import searching
from helix_jax.reads.searching import IMPOSSIBLE, Clusters
from helix_jax.reads.trimming import Copies
from helix_jax.strands import header as headers
from helix_jax.strands import packets
from helix_jax.strands.header_search import Found
from helix_jax.strands.layouts import SPARE, PacketLayout
from helix_jax.strands.strand_coder import Constrained

# Packets of a block beyond its source packets that are enough: no further strand is searched for. Beside those that
# RaptorQ needs there is one for each so many source packets, up to SURPLUS in all, since some may be wrong ones.
SURPLUS, FOR_ONE = 4, 64
GAP = 15.0  # log probability by which a strand of the list may be less likely than its first
EXAMPLES, READS = 500, 4  # strands, about, and reads of each, whose errors are counted in a portion


@dataclass(eq=False)
class Strands:
    """Strands that passed their check, one for each packet and each header strand.

    Attributes:
        index: The index of the packet, ascending; header strands have numbers past all packets.
        rank: The position in the list of the search, 0 for the most likely strand.
        strand: The strands, without primers.
        words: Their words.
        reads: The number of reads of each.
    """

    index: Int64[np.ndarray, " n"]
    rank: Int64[np.ndarray, " n"]
    strand: UInt8[np.ndarray, "n L"]
    words: UInt32[np.ndarray, "n W"]
    reads: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        """Return the number of strands."""
        return len(self.index)

    def chosen(self, rows: np.ndarray) -> "Strands":
        """Return some of the strands."""
        return Strands(self.index[rows], self.rank[rows], self.strand[rows], self.words[rows], self.reads[rows])

    def joined(self, more: "Strands") -> "Strands":
        """Return these strands and others.

        Of two strands for one packet the one with more reads is taken; equal ones have the reads of both.
        """
        _, mine, theirs = np.intersect1d(self.index, more.index, assume_unique=True, return_indices=True)
        same = (self.strand[mine] == more.strand[theirs]).all(axis=1)
        self.reads[mine[same]] += more.reads[theirs[same]]
        better = ~same & (more.reads[theirs] > self.reads[mine])
        old, new = np.ones(len(self), bool), np.ones(len(more), bool)
        old[mine[better]], new[theirs[~better]] = False, False
        parts = self.chosen(old), more.chosen(new)
        names = ("index", "rank", "strand", "words", "reads")
        both = Strands(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
        return both.chosen(np.argsort(both.index, kind="stable"))


class Solved:
    """The strands of a pool whose header is known, as far as they have been found.

    Attributes:
        found: The header.
        coder: What reads the strands.
        layout: The layout of the pool.
        strands: The strands of the clusters that are settled.
        errors: int64[3, L], substitutions, insertions and deletions of some reads of these at each base of a strand.
        compared: The number of these reads.
        used: Reads of the clusters that the strands were taken from, or are like.
        duplicates: Reads of further clusters of the same strands.
        copies: The copies of the present clusters.
        clusters: The present clusters.
        index: int64[n], of each present cluster, as in ``Strands``, -1 without a strand.
        rank: int64[n], likewise.
        strand: uint8[n, L], likewise.
        words: uint32[n, W], likewise.
    """

    def __init__(self, found: Found, copies: Copies, clusters: Clusters) -> None:
        """Begin without any strand, with clusters of copies as the present ones."""
        assert isinstance(found.coder, Constrained)  # no other coder was asked for
        self.found, self.coder = found, found.coder
        self.layout = found.header.layout(self.coder.bits)
        self.errors, self.compared = np.zeros((3, self.coder.length), np.int64), 0
        self.used = self.duplicates = 0
        self.strands = Strands(*self._nothing(0), np.zeros(0, np.int64))
        self.begin(copies, clusters)

    def _nothing(self, count):
        strand = np.zeros((count, self.coder.length), np.uint8)
        words = np.zeros((count, -(-self.coder.bits // 32)), np.uint32)
        return np.full(count, -1, np.int64), np.zeros(count, np.int64), strand, words

    def begin(self, copies: Copies, clusters: Clusters) -> None:
        """Take clusters of copies as the present ones; those before are ``settled``."""
        self.copies, self.clusters = copies, clusters
        self.index, self.rank, self.strand, self.words = self._nothing(len(clusters))

    def take(
        self,
        numbers: Int64[np.ndarray, " m"],
        strands: UInt8[np.ndarray, "m k L"],
        score: Float32[np.ndarray, "m k"],
        wide: bool = False,
    ) -> None:
        """Take the first strand that passes from the list of each of the present clusters ``numbers``.

        ``wide`` says that this is the second try.
        """
        likely = (score > IMPOSSIBLE) & (score > score[:, :1] - GAP)
        cluster, rank = np.nonzero(likely)
        flat = strands[cluster, rank]
        index, words = self._check(flat)
        good = np.flatnonzero(index >= 0)
        first = good[np.unique(cluster[good], return_index=True)[1]]
        fresh = numbers[cluster[first]]
        self.index[fresh], self.strand[fresh], self.words[fresh] = index[first], flat[first], words[first]
        self.rank[fresh] = rank[first] + wide

    def _check(self, strands):
        words, ok = self.coder.read(strands)
        index, _, good = packets.unpack(self.layout, self.found.header.key, words)
        header = headers.is_header(words, self.coder.bits)
        # The number of a header strand follows from its words, so that copies of it get the same number.
        number = self.layout.packets + packets.crc32(words.view(np.uint8)).astype(np.int64)
        index = np.where(good, index, np.where(header, number, -1))
        return np.where(ok, index, -1), words

    def enough(self) -> bool:
        """Return whether every block of the outer code can be solved (``wanted``)."""
        index = np.unique(np.concatenate([self.strands.index, self.index]))
        index = index[(index >= 0) & (index < self.layout.packets)]
        received = np.bincount(self.layout.locate(index)[0], minlength=self.layout.blocks)
        return bool((received >= wanted(self.layout)).all())

    def read(self) -> Bool[np.ndarray, " reads"]:
        """Return the mask of the present reads of which a strand was found."""
        return self._reads_of(np.flatnonzero(self.index >= 0))

    def _reads_of(self, numbers):
        mask = np.zeros(int(self.copies.read.max(initial=-1)) + 1, bool)
        for number in numbers.tolist():
            mask[self.copies.read[self.clusters[number]]] = True
        return mask

    def left(self) -> list[int]:
        """Return the present clusters without a strand in which some reads are of no strand, the largest first."""
        read, reads = self.read(), self.copies.read
        left = [n for n in np.flatnonzero(self.index < 0).tolist() if not read[reads[self.clusters[n]]].all()]
        return sorted(left, key=lambda n: -len(self.clusters[n]))

    def unread(self) -> Int64[np.ndarray, " n"]:
        """Return the sizes in reads of the present clusters of which no strand and no read is known."""
        return unread(self.copies, self.clusters, np.flatnonzero(self.index < 0).tolist(), self.read())

    def settle(self) -> None:
        """Add the strands of the present clusters to ``strands``, and count errors of their reads."""
        sizes = np.array([len(np.unique(self.copies.read[cluster])) for cluster in self.clusters], int)
        solved = np.flatnonzero(self.index >= 0)
        solved = solved[np.lexsort((self.rank[solved], -sizes[solved], self.index[solved]))]
        solved = solved[np.unique(self.index[solved], return_index=True)[1]]
        pairs = [
            (self.strand[n], read)
            for n in solved[:: max(1, len(solved) // EXAMPLES)]
            for read in self.clusters[n][:READS]
        ]
        self.errors += searching.count_errors(self.copies, pairs, self.coder.length)
        self.compared += len(pairs)
        used, all_read = self._reads_of(solved), self.read()
        self.used += int(used.sum())
        self.duplicates += int((all_read & ~used).sum())
        self.strands = self.strands.joined(
            Strands(self.index[solved], self.rank[solved], self.strand[solved], self.words[solved], sizes[solved])
        )

    def count(self, numbers: Int64[np.ndarray, " n"]) -> None:
        """Count reads of settled strands; ``numbers`` are those of ``matching.match``, -1 for none."""
        self.used += int((numbers >= 0).sum())
        self.strands.reads += np.bincount(numbers[numbers >= 0], minlength=len(self.strands))


def wanted(layout: PacketLayout) -> Int64[np.ndarray, " blocks"]:
    """Return how many packets of each block are enough.

    They are SPARE more than its source packets, and up to SURPLUS in large blocks, but no more than the block has. A
    writer that leaves packets out has SPARE of them left.
    """
    sources, repairs = np.array(layout.block_sources), np.array(layout.block_repairs)
    return sources + np.minimum(np.clip(sources // FOR_ONE, SPARE, SURPLUS), repairs)


def unread(
    copies: Copies, clusters: Clusters, numbers: Iterable[int], used: Bool[np.ndarray, " reads"]
) -> Int64[np.ndarray, " n"]:
    """Return the sizes in reads of those clusters of ``numbers`` that hold no read ``used``, nor one of one before.

    Reads that are taken both ways are thus counted once. ``used`` is changed.
    """
    sizes = []
    for number in numbers:
        rows = np.unique(copies.read[clusters[number]])
        if not used[rows].any():
            sizes.append(len(rows))
            used[rows] = True
    return np.array(sizes, np.int64)
