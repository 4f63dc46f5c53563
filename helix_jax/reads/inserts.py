"""The reads of files as they come -> reads of strands: without UMIs and adapters, the two of each pair merged.

``Inserts`` stands between ``strands.records`` and ``fastq.chunks``, and gives portions as the former does.
"""

import collections
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, UInt8

from helix_jax.reads import adapters, pairs
from helix_jax.reads.mates import Mates
from helix_jax.strands.portions import Portion
from helix_jax.strands.records import Records

PART = 4096  # pairs that are merged at once, and that tell how long inserts are


@dataclass(eq=False)
class Inserts:
    """Reads of strands, made of the reads of files.

    Attributes:
        source: The files.
        trim: What is cut off each read.
        merged: Pairs that were merged by their overlap.
        joined: Pairs that do not overlap, and were joined to the length of the others with N between them.
        apart: Pairs of which neither was possible: their reads are used one by one.
        alone: Reads whose mate is not in the files or too far behind.
    """

    source: Records
    trim: adapters.Trim
    merged: int = 0
    joined: int = 0
    apart: int = 0
    alone: int = 0
    _records: Iterator = field(default_factory=lambda: iter(()))  # of the files, as far as they were not read

    @property
    def left_out(self) -> collections.Counter:
        """Number of reads skipped so far, by reason."""
        return self.source.left_out

    @property
    def figures(self) -> dict[str, dict[str, int]]:
        """What became of pairs; {} where there are none."""
        told = {name: getattr(self, name) for name in ("merged", "joined", "apart", "alone")}
        return {"pairs": told} if self.merged + self.joined + self.apart else {}

    def portions(
        self,
    ) -> Iterator[tuple[UInt8[np.ndarray, " m"], Int64[np.ndarray, " n"], UInt8[np.ndarray, " m"] | None]]:
        """Yield portions as ``Records.portions`` does; the method may be called again."""
        self.merged = self.joined = self.apart = self.alone = 0
        self._records = self.source.named()
        mates, prior = Mates(), None
        early, count = [], 0  # the first pairs, which wait until they are PART
        for found in mates.found(self._trimmed()):
            if isinstance(found, Portion):
                yield found[:3]
                continue
            early.append(found)
            count += len(found[0].lengths)
            if prior is None and count < PART:
                continue
            prior = prior or _prior(early)
            for first, second in early:
                yield from self._inserts(first, second, prior)
            early.clear()
        for first, second in early:
            prior = prior or _prior(early)
            yield from self._inserts(first, second, prior)
        if mates.pairs:
            self.alone = mates.alone
            if mates.alone:
                self.source.warnings.append(
                    f"{mates.alone:,} reads are one of a pair by their names, and their mates are not in the files "
                    "or too far behind: they are used on their own"
                )
        elif mates.of_two_files:
            self.source.warnings.append(
                "the reads of two files that should hold pairs have no names in common: they are used on their own; "
                "give two files that belong together"
            )

    def left(self, taken: int) -> int | None:
        """Return how many reads are left, without making inserts of them; they are gone afterwards.

        Args:
            taken: The reads that were taken of ``portions``, with those ``left_out``.

        Returns:
            The number, or None where reads are pairs, which only their names tell.
        """
        if self.figures:
            return None
        collections.deque(self._records, maxlen=0)
        return self.source.records - taken

    def _trimmed(self):
        for portion in self._records:
            if self.trim:
                portion = adapters.trimmed(portion, self.trim)
                kept = np.flatnonzero(portion.lengths)
                if len(kept) < len(portion.lengths):
                    self.left_out[adapters.NOTHING] += len(portion.lengths) - len(kept)
                    portion = portion.taken(kept)
            if len(portion.lengths):
                yield portion

    def _inserts(self, first, second, prior):
        """Yield the inserts of pairs, PART at once, and the reads of those that show none."""
        for begin in range(0, len(first.lengths), PART):
            rows = slice(begin, begin + PART)
            yield from self._merged(_rows(first, rows), _rows(second, rows), prior)

    def _merged(self, first, second, prior):
        short = np.maximum(first.lengths, second.lengths) <= pairs.LONGEST
        insert = np.zeros(len(short), np.int64)
        if short.any():
            insert[short] = pairs.inserts(_chosen(first, short), _chosen(second, short), prior)
        found = insert > 0
        joined = int((insert[found] >= (first.lengths + second.lengths)[found]).sum())
        self.joined, self.merged = self.joined + joined, self.merged + int(found.sum()) - joined
        self.apart += int((~found).sum())
        if found.any():
            yield _flat(pairs.merge(_chosen(first, found), _chosen(second, found), insert[found]))
        if not found.all():
            for side in (first, second):
                yield _flat(_chosen(side, ~found))


def _prior(parts):
    """Return how long inserts are, by the first PART pairs of the files."""
    chosen, room = [], PART
    for first, second in parts:
        short = np.flatnonzero(np.maximum(first.lengths, second.lengths)[:room] <= pairs.LONGEST)
        chosen.append((_chosen(first, short), _chosen(second, short)))
        room = max(0, room - len(first.lengths))
    longest = max(int((first.lengths + second.lengths).max(initial=1)) for first, second in chosen)
    told = [pairs.inserts(first, second, pairs.flat(longest)) for first, second in chosen]
    return pairs.learned(np.concatenate(told), longest)


def _rows(ends, rows):
    return pairs.Ends(ends.bases[rows], ends.lengths[rows], ends.qualities[rows])


def _chosen(ends, rows):
    """Return some reads, no wider than they are."""
    width = int(ends.lengths[rows].max(initial=1))
    return pairs.Ends(ends.bases[rows, :width], ends.lengths[rows], ends.qualities[rows, :width])


def _flat(ends):
    """Return reads one after the other."""
    real = np.arange(ends.bases.shape[1])[None] < ends.lengths[:, None]
    return ends.bases[real], ends.lengths.astype(np.int64), ends.qualities[real]
