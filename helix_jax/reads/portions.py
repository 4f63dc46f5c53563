"""How many of a sequencer's reads are taken at once: a sample first, then as many as the pool seems to need.

A run often has many more reads of each strand than its pool needs. Reads are therefore taken in portions, in the order
of the file, until every block of the outer code can be solved.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int
from scipy import special

FIRST = 8192  # reads of the first portion; a run with no more is taken as a whole
HEADER_COVERAGE = 1.5  # mean reads of a strand from which the header is sought
COVERAGE = 3.0  # mean reads of a strand that the second portion brings, with the first
GROWTH = 1.4  # reads taken after each further portion, as a multiple of those taken before
LEAP = 16  # the same where the number of strands is guessed from a sample, at most
AT_LATEST = 1 << 19  # reads in which the header is sought, however seldom they resemble each other
SLICE = 1 << 19  # reads of a portion that are in memory at once, and of no known strand in a portion, before it ends
MOST_WAITING = 1 << 19  # reads that may wait for others of their strand, and 8 for each strand at least


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


def seen(sizes: Int[np.ndarray, " clusters"]) -> tuple[float, float]:
    """Estimate from the clusters of a sample how many reads there are of each strand, and how many clusters of copies.

    Only clusters of several reads count: single ones may be of no strand of the pool, as where most reads are of other
    DNA. If strands are read equally often, a reads in clusters of several and p pairs of copies have, with a mean of c
    reads of a strand, 2 p / a = c / (1 - exp(-c)). Where they are read unequally often, c is too large.

    Args:
        sizes: Copies in each cluster.

    Returns:
        The mean c, and the number of strands; (0, 0) where no cluster has three copies, which is too few to tell.
    """
    copies = sizes[sizes > 1].astype(np.float64)
    if not (copies > 2).any():
        return 0.0, 0.0
    pairs = (copies * (copies - 1)).sum()
    ratio = pairs / copies.sum()
    mean = float(ratio + special.lambertw(-ratio * np.exp(-ratio)).real)
    return mean, float(pairs / mean**2)


def headed(taken: int, coverage: float, sought: int) -> bool:
    """Return whether the header is worth seeking.

    Args:
        taken: Reads taken.
        coverage: The mean reads of a strand (``seen``).
        sought: Reads in which it was sought last, in vain.
    """
    return taken >= 2 * sought and (coverage >= HEADER_COVERAGE or taken >= AT_LATEST)


def most_waiting(strands: float) -> int:
    """Return how many reads may wait for others of their strand, in a pool of so many strands."""
    return max(MOST_WAITING, round(8 * strands))


def total_without_header(taken: int, usable: int, coverage: float, most: int) -> float:
    """Return how many reads are to be taken in all, where ``taken`` did not give the header.

    Args:
        taken: Reads taken.
        usable: How many of them are of any use.
        coverage: The mean reads of a strand (``seen``).
        most: Usable reads that are taken at once, at most.
    """
    wanted = taken * np.clip(COVERAGE / max(coverage, 1e-9), 2, LEAP)
    return min(wanted, taken + most * taken / max(usable, 1))


def total_with_header(taken: int, usable: int, strands: int) -> float:
    """Return how many reads are to be taken in all, where ``taken`` do not suffice for a pool of so many strands.

    ``usable`` is how many of them are of any use.
    """
    return max(COVERAGE * strands * taken / max(usable, 1), GROWTH * taken)
