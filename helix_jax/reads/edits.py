"""A strand and a read of it -> the fewest edits between them, column by column (edlib)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import edlib  # pyrefly: ignore [missing-import]
import numpy as np
from jaxtyping import Int32, Int64, UInt8

from helix_jax.errors import HelixError

SAME, SUBSTITUTED, INSERTED, DELETED = range(4)
_OPS = np.full(128, 255, np.uint8)
_OPS[np.frombuffer(b"=XID", np.uint8)] = np.arange(4)
_LETTERS = np.frombuffer(b"ACGT", np.uint8)


@dataclass(frozen=True)
class Edits:
    """An alignment, column by column.

    Attributes:
        op: SAME, SUBSTITUTED, INSERTED or DELETED.
        position: Position in the strand; for an insertion, the base that it stands before.
        read: Position in the read; for a deletion, the base that it stands before.
    """

    op: UInt8[np.ndarray, " c"]
    position: Int32[np.ndarray, " c"]
    read: Int32[np.ndarray, " c"]


def edits(strand: np.ndarray, read: np.ndarray) -> Edits:
    """Return the fewest edits that turn a strand into a read, both uint8[n] of bases 0..3.

    Raises HelixError for other bases, or where one of the two has none.
    """
    for name, row in (("strand", strand), ("read", read)):
        if row.dtype != np.uint8 or row.ndim != 1 or not len(row):
            raise HelixError(f"{name}: {row.dtype}{list(row.shape)}; give uint8[n] with n at least 1")
        if row.max() > 3:
            raise HelixError(f"{name}: base {row.max()}; bases are 0..3 = A C G T, so leave reads with N out")
    cigar = edlib.align(_LETTERS[read].tobytes(), _LETTERS[strand].tobytes(), task="path")["cigar"]
    counts = np.array([int(count) for count in re.findall(r"\d+", cigar)])
    op = np.repeat(_OPS[np.frombuffer(re.sub(r"\d", "", cigar).encode(), np.uint8)], counts)
    on_strand, in_read = op != INSERTED, op != DELETED
    position, where = np.cumsum(on_strand) - on_strand, np.cumsum(in_read) - in_read
    return Edits(op, position.astype(np.int32), where.astype(np.int32))


def by_position(pairs: Iterable[tuple[np.ndarray, np.ndarray]], length: int) -> Int64[np.ndarray, "3 {length}"]:
    """Count the edits of reads by kind and by where they are along the strand.

    Args:
        pairs: (strand, read), each uint8[n] of bases 0..3; the strands have one length.
        length: Bases of a strand.

    Returns:
        Substitutions, insertions and deletions at each base. An insertion counts at the base that it stands before, one
        behind the strand at its last base.
    """
    counts = np.zeros((4, length), np.int64)
    for strand, read in pairs:
        found = edits(strand, read)
        np.add.at(counts, (found.op, np.minimum(found.position, length - 1)), 1)
    return counts[[SUBSTITUTED, INSERTED, DELETED]]
