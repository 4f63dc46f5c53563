"""What became of a sequencer's reads, in numbers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from helix_jax.reads import enough
from helix_jax.reads.searching import Clusters
from helix_jax.reads.solved import Solved, unread
from helix_jax.reads.trimming import Copies, Tally


@dataclass(frozen=True)
class ReadReport:
    """What became of the reads.

    Attributes:
        reads: All reads that were taken.
        unusable: How many are of no use.
        left_out: Why they are of no use: number by reason.
        without_quality: Reads whose qualities are a placeholder (all the same, or impossibly low) and were taken as
            unknown.
        clusters: Clusters of reads that copy one strand, as far as one can tell.
        at_once: Strands whose most likely reading passed the check.
        repaired: Strands of which a later reading passed.
        unread: Clusters that gave no strand.
        coverage: (reads of a cluster, clusters that gave a strand, clusters that gave none), in ascending order.
        strand_length: Bases of a strand, primers not counted.
        substitutions: Errors per base of the reads, by comparison with the strands.
        insertions: Likewise.
        deletions: Likewise.
        by_position: (substitutions, insertions, deletions) for each base of the strand as it was written, as shares of
            the reads compared.
        used_reads: Reads of the clusters whose strands were taken. These, the next two and ``unusable`` are all reads.
        duplicate_reads: Reads of further clusters of the same strands.
        unread_reads: Reads of clusters that gave no strand.
        enough_reads: Reads of this kind with which the whole pool comes back in nine of ten cases, by estimate; None
            where it cannot be estimated, or no number would do.
        more_reads: How many reads are missing to that, rounded up.
        gone: Share of the strands that seem to be missing from the sample, however much of it is read.
        reads_left: Reads of the files that were left, as those taken were enough; None where nobody counted them.
    """

    reads: int
    unusable: int
    left_out: dict[str, int]
    without_quality: int
    clusters: int
    at_once: int
    repaired: int
    unread: int
    coverage: tuple[tuple[int, int, int], ...]
    strand_length: int
    substitutions: float
    insertions: float
    deletions: float
    by_position: tuple[tuple[float, float, float], ...] = ()
    used_reads: int = 0
    duplicate_reads: int = 0
    unread_reads: int = 0
    enough_reads: int | None = None
    more_reads: int = 0
    gone: float = 0.0
    reads_left: int | None = None


def of_strands(solved: Solved, tally: Tally, usable: int) -> tuple[ReadReport, enough.Estimate]:
    """Return the report, and how many reads would be enough.

    Args:
        solved: The strands, all clusters of which are settled but for those that gave none.
        tally: The counts of the reads.
        usable: Reads that could be used.
    """
    strands, sizes = solved.strands, solved.unread()
    by_position = solved.errors / max(solved.compared, 1)
    substitutions, insertions, deletions = (round(float(share), 6) for share in by_position.mean(axis=1))
    few = enough.estimate(
        solved.layout,
        strands.reads[strands.index < solved.layout.packets],
        sizes,
        reads=tally.total,
        errors=float(by_position.mean(axis=1).sum()),
        complete=not solved.enough(),
    )
    report = ReadReport(
        reads=tally.total,
        unusable=tally.total - usable,
        left_out=dict(tally.left_out),
        without_quality=tally.placeholders,
        clusters=len(strands) + len(sizes),
        at_once=int((strands.rank == 0).sum()),
        repaired=int((strands.rank > 0).sum()),
        unread=len(sizes),
        coverage=_coverage(strands.reads, sizes),
        strand_length=solved.coder.length,
        substitutions=substitutions,
        insertions=insertions,
        deletions=deletions,
        by_position=tuple(map(tuple, by_position.T.round(5).tolist())),
        used_reads=solved.used,
        duplicate_reads=solved.duplicates,
        unread_reads=usable - solved.used - solved.duplicates,
        enough_reads=few.reads,
        more_reads=few.more(tally.total),
        gone=round(few.gone, 4),
    )
    return report, few


def without_strands(copies: Copies, clusters: Clusters, tally: Tally, usable: int) -> ReadReport:
    """Return what is known of the reads while no strand of theirs is; ``usable`` of them can be used."""
    sizes = unread(copies, clusters, range(len(clusters)), np.zeros(int(copies.read.max(initial=-1)) + 1, bool))
    return ReadReport(
        reads=tally.total, unusable=tally.total - usable, left_out=dict(tally.left_out),
        without_quality=tally.placeholders, clusters=len(sizes), at_once=0, repaired=0, unread=len(sizes),
        coverage=_coverage(np.zeros(0, int), sizes), strand_length=0, substitutions=0.0, insertions=0.0, deletions=0.0,
        unread_reads=usable,
    )  # fmt: skip


def _coverage(read: Int[np.ndarray, " n"], unread: Int[np.ndarray, " m"]) -> tuple[tuple[int, int, int], ...]:
    """Return (reads of a cluster, clusters that gave a strand, clusters that gave none), in ascending order."""
    most = max(read.max(initial=0), unread.max(initial=0)) + 1
    solved, lost = (np.bincount(sizes, minlength=most) for sizes in (read, unread))
    return tuple((int(n), int(solved[n]), int(lost[n])) for n in np.flatnonzero(solved + lost))
