"""How many of a sequencer's reads are taken at once: a sample first, then as many as the pool seems to need.

A run often has many more reads of each strand than its pool needs. Reads are therefore taken in portions, in the order
of the file, until every block of the outer code can be solved.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

FIRST = 8192  # reads of the first portion; a run with no more is taken as a whole
HEADER_COVERAGE = 1.5  # mean reads of a strand from which the header is sought
COVERAGE = 3.0  # mean reads of a strand that the second portion brings, with the first
GROWTH = 1.4  # reads taken after each further portion, as a multiple of those taken before
LEAP = 16  # the same where the number of strands is guessed from a sample, at most
MOST_UNLIKE = 1 << 19  # reads that hardly ever resemble each other in which a header is still sought


class Source:
    """Reads of which a number is taken at a time.

    Attributes:
        taken: Reads that have been taken.
    """

    def __init__(self, chunks: Iterable[tuple], most: int | None = None) -> None:
        """Take reads of ``chunks`` (see ``fastq.chunks``), and of those the first ``most`` at most."""
        self._chunks, self._most = iter(chunks), most
        self._next: tuple | None = None
        self.taken = 0

    def until(self, total: float) -> Iterator[tuple]:
        """Yield whole chunks until ``total`` reads have been taken in all, or more, or there are no others."""
        while self.taken < total and not self.ended():
            chunk, self._next = self._next, None
            assert chunk is not None  # as it has not ended
            self.taken += len(chunk[1])
            yield chunk

    def ended(self) -> bool:
        """Return whether all reads have been taken."""
        if self._next is None:
            room = None if self._most is None else self._most - self.taken
            chunk = None if room == 0 else next(self._chunks, None)
            self._next = chunk if chunk is None else tuple(rows if rows is None else rows[:room] for rows in chunk)
        return self._next is None

    def left(self) -> int:
        """Return how many reads have not been taken. They are gone afterwards."""
        return sum(len(lengths) for _, lengths, *_ in self.until(float("inf")))


def strands_of(sizes: Int[np.ndarray, " clusters"], ways: int) -> float:
    """Return about how many strands a sample of reads is of, from the sizes of its clusters.

    Of n reads of m strands, n^2 / 2m pairs are of one strand. Where strands are read unequally often, the result is
    smaller than their number; where reads are of no strand, or not recognised as copies, it is larger.

    Args:
        sizes: Copies in each cluster.
        ways: Copies of each read: 2 where each is taken in both directions, which makes two clusters of a strand.
    """
    copies = sizes.astype(np.float64)
    reads, pairs = copies.sum() / ways, (copies * (copies - 1)).sum() / 2 / ways
    return float(reads**2 / 2 / pairs) if pairs else float("inf")


def headed(taken: int, strands: float) -> bool:
    """Return whether a header can be expected among ``taken`` reads of about ``strands`` strands."""
    return taken >= min(HEADER_COVERAGE * strands, MOST_UNLIKE if strands > taken * LEAP else float("inf"))


def hopeless(taken: int, strands: float) -> bool:
    """Return whether no header is to be expected, where ``taken`` reads of about ``strands`` strands showed none."""
    return taken >= max(MOST_UNLIKE, 4 * COVERAGE * strands if strands <= LEAP * taken else 0)


def total_without_header(taken: int, strands: float) -> float:
    """Return how many reads are to be taken in all, where ``taken`` are not enough to look for the header."""
    return min(max(COVERAGE * strands, 2 * taken), LEAP * taken)


def total_with_header(taken: int, strands: int) -> float:
    """Return how many reads are to be taken in all, where ``taken`` do not suffice for a pool of so many strands."""
    return max(COVERAGE * strands, GROWTH * taken)
