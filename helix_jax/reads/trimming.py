"""Reads -> copies of strands: cut at their primers, turned into one direction, with the error probability of each base.

Without primers the direction of a read is unknown. Each read is then taken both ways (``both_ways``).

A base takes two bytes: the base, and a mark of its quality. What a mark is worth is looked up where it is needed.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from helix_jax.reads import orient
from helix_jax.strands import header as headers
from helix_jax.strands.records import MOST_PHRED, PAD

NEAR = 0.3  # share by which a read may be shorter or longer than the commonest length
LONGEST = 4096  # bases; longer reads are not of strands
STEP = 64  # bases by which rows get wider, so that portions of reads share what is compiled
SHORTEST = headers.SHORTEST // 4  # bases, of at most two bits each: half of the shortest strand that carries a header
DOUBT = 0.02  # probability that a base is wrong, where no quality states it
LOWEST_QUALITY = 2  # Phred up to which a read's qualities are a placeholder
UNSTATED, UNKNOWN = MOST_PHRED + 1, MOST_PHRED + 2  # marks of a base without a quality, and of N
TOO_LONG, TOO_SHORT = f"longer than {LONGEST:,} bases", f"shorter than {SHORTEST} bases without primers"
NO_PRIMER, FAR = "without a primer", "far from the usual length"


def _stated():
    """Return the probability that a base is wrong by its mark, float32[96]."""
    doubt = np.full(UNKNOWN + 1, DOUBT, np.float32)
    doubt[:UNSTATED] = (10.0 ** (-np.arange(UNSTATED, dtype=np.float32) / 10)).clip(1e-4, 0.75)
    doubt[UNKNOWN] = 0.75
    return doubt


@dataclass(frozen=True, eq=False)
class Copies:
    """Reads cut to their strands.

    Attributes:
        bases: 0..3 = A C G T, padded with ``PAD``.
        lengths: The number of bases of each.
        marks: The quality of each base: Phred, ``UNSTATED``, or ``UNKNOWN`` for an N.
        read: The number of the read, which occurs twice where the read is taken both ways.
        usual: The commonest length, which is not always that of the strands.
        whole: Share of the reads that reach from one primer to the other; 1 without primers.
        doubts: The probability that a base is wrong, by its mark.
    """

    bases: UInt8[np.ndarray, "n R"]
    lengths: Int[np.ndarray, " n"]
    marks: UInt8[np.ndarray, "n R"]
    read: Int64[np.ndarray, " n"]
    usual: int = 0
    whole: float = 1.0
    doubts: Float32[np.ndarray, " 96"] = field(default_factory=_stated)

    def __len__(self) -> int:
        """Return the number of copies."""
        return len(self.lengths)

    def doubt(self, rows: Any) -> Float32[np.ndarray, "..."]:
        """Return the probability that each base of some copies is wrong: float32[R], or [n, R], or [n, m, R]."""
        return self.doubts[self.marks[rows]]

    def chosen(self, rows: Any) -> "Copies":
        """Return some of the copies; ``rows`` is a mask, an array of numbers, or a slice."""
        return dataclasses.replace(
            self, bases=self.bases[rows], lengths=self.lengths[rows], marks=self.marks[rows], read=self.read[rows]
        )


@dataclass
class Tally:
    """Counts of reads.

    Attributes:
        reads: Reads in the chunks.
        left_out: Unusable reads, by reason, including those that are not in the chunks once they are known.
        placeholders: Reads whose qualities were taken as unknown.
        outside: Reads that are not in the chunks.
    """

    reads: int = 0
    left_out: collections.Counter = field(default_factory=collections.Counter)
    placeholders: int = 0
    outside: int = 0

    @property
    def total(self) -> int:
        """All reads, in the chunks or not."""
        return self.reads + self.outside


def cut(
    chunks: Iterable[tuple],
    primers: Sequence[str],
    progress: Callable[[str, int, int | None], None] | None,
    *,
    tally: Tally | None = None,
    usual: int = 0,
) -> tuple[Copies, Tally]:
    """Cut reads to their strands.

    Args:
        chunks: Chunks of reads, as ``fastq.chunks`` yields them.
        primers: The left and the right primer.
        progress: Called as progress("reads", reads newly processed, None), or None.
        tally: The counts of the reads before these, to which these are added; by default there are none before.
        usual: The commonest length of the reads before these; 0 where these decide it.

    Returns:
        The copies, each read once, and the counts of the reads.
    """
    parts, tally, whole = [], Tally() if tally is None else tally, []
    left, right = (p.upper().encode() for p in primers)
    for bases, lengths, qualities in chunks:
        numbers = np.arange(tally.reads, tally.reads + len(lengths))
        tally.reads += len(lengths)
        if progress:
            progress("reads", len(lengths), None)
        marks, placeholders = _marks(bases, lengths, qualities)
        tally.placeholders += placeholders
        bases = np.where(bases > 3, 0, bases).astype(np.uint8)
        keep = (lengths >= SHORTEST) & (lengths <= LONGEST)
        tally.left_out[TOO_SHORT] += int((lengths < SHORTEST).sum())
        tally.left_out[TOO_LONG] += int((lengths > LONGEST).sum())
        part = Copies(bases[keep, :LONGEST], lengths[keep], marks[keep, :LONGEST], numbers[keep])
        if left or right:
            part, both = _between(part, left, right)
            tally.left_out[NO_PRIMER] += int(keep.sum()) - len(part)
            # Primers that were joined without a strand are left out here, lest they decide what length is usual.
            keep = part.lengths >= SHORTEST
            tally.left_out[TOO_SHORT] += int((~keep).sum())
            part = part.chosen(keep)
            whole.append(both[keep])
        if usual:  # reads that are too long do not widen the others
            near = _near(part.lengths, usual)
            tally.left_out[FAR] += int((~near).sum())
            part = part.chosen(near)
            part = _of_width(part, int(part.lengths.max(initial=1)))
        parts.append(part)
    tally.left_out = +tally.left_out
    if not any(map(len, parts)):
        none = np.zeros((0, 1), np.uint8)
        return Copies(none, np.zeros(0, np.int32), none, np.zeros(0, int), usual), tally
    if not usual:
        lengths = np.concatenate([part.lengths for part in parts])
        usual = _commonest(lengths)
        tally.left_out[FAR] += int((~_near(lengths, usual)).sum())
        tally.left_out = +tally.left_out
        parts = [part.chosen(_near(part.lengths, usual)) for part in parts]
    reach = float(np.concatenate(whole).mean()) if left and right else 1.0
    return dataclasses.replace(joined(parts), usual=usual, whole=reach), tally


def joined(parts: Sequence[Copies]) -> Copies:
    """Return all copies of several parts; usual length, share and doubts are those of the first."""
    width = -(-max(int(part.lengths.max(initial=1)) for part in parts) // STEP) * STEP
    parts = [_of_width(part, width) for part in parts]
    bases, lengths, marks, read = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("bases", "lengths", "marks", "read")
    )
    return dataclasses.replace(parts[0], bases=bases, lengths=lengths, marks=marks, read=read)


def of_one_length(former: Copies, latter: Copies, tally: Tally) -> Copies:
    """Join copies of reads whose commonest length was found apart: of two lengths that of the more copies is right.

    The others are counted as left out in ``tally``.
    """
    if not len(former) or not len(latter):
        return former if len(former) else latter
    usual = (former if len(former) >= len(latter) else latter).usual
    near = [part.chosen(_near(part.lengths, usual)) for part in (former, latter)]
    tally.left_out[FAR] += len(former) + len(latter) - sum(map(len, near))
    tally.left_out = +tally.left_out
    return dataclasses.replace(joined(near), usual=usual)


def both_ways(copies: Copies) -> Copies:
    """Return each copy twice, as it is and as its reverse complement. ``read`` is the number of its row in ``copies``.

    All copies come as they are first, and then all the others.
    """
    return dataclasses.replace(
        copies,
        bases=np.concatenate([copies.bases, orient.turned(copies.bases, copies.lengths)]),
        lengths=np.tile(copies.lengths, 2),
        marks=np.concatenate([copies.marks, orient.backwards(copies.marks, copies.lengths)]),
        read=np.tile(np.arange(len(copies)), 2),
    )


def _marks(bases, lengths, qualities):
    """Return the mark of each base, uint8[n, R], and the number of reads without real qualities.

    Files that lost their qualities have placeholders: the lowest ones throughout, or one and the same in every read. A
    read of Q0 to Q2 from end to end would be wrong in most bases, and no sequencer produces it.
    """
    marks, placeholders = np.full(bases.shape, UNSTATED, np.uint8), 0
    if qualities is not None:
        real = np.arange(bases.shape[1])[None] < lengths[:, None]
        highest = np.where(real, qualities, 0).max(axis=1, initial=0)
        flat = np.where(real, qualities, 255).min(axis=1, initial=255) == highest
        unknown = (highest <= LOWEST_QUALITY) | flat.all()
        placeholders = int(unknown.sum())
        marks = np.where(unknown[:, None], np.uint8(UNSTATED), np.minimum(qualities, MOST_PHRED).astype(np.uint8))
    return np.where(bases > 3, np.uint8(UNKNOWN), marks), placeholders  # values above 3 are N


def _near(lengths, usual):
    """Return the mask of the lengths that a copy of a strand may have."""
    return (lengths >= (1 - NEAR) * usual) & (lengths <= (1 + NEAR) * usual)


def _commonest(lengths):
    """Return the commonest length, among the five adjacent ones that most reads have.

    Neither fragments nor joined reads decide it. The sum of five has its peak up to two beside the commonest length.
    """
    counts = np.bincount(lengths)
    first = max(0, int(np.convolve(counts, np.ones(5), mode="same").argmax()) - 2)
    return first + int(counts[first : first + 5].argmax())


def _of_width(copies, width):
    """Return the copies in rows of ``width`` bases, padded; a copy that is longer loses its end."""
    spare = ((0, 0), (0, max(0, width - copies.bases.shape[1])))
    bases = np.pad(copies.bases[:, :width], spare)
    bases[np.arange(width)[None] >= copies.lengths[:, None]] = PAD
    return dataclasses.replace(copies, bases=bases, marks=np.pad(copies.marks[:, :width], spare))


def _between(part, left, right):
    """Return the part of each read between the primers, in their direction; reads without primers are left out.

    Returns (Copies, bool[n]: whether the read goes on past the strand at both ends).
    """
    rows = []
    letters = np.frombuffer(b"ACGT", np.uint8)[part.bases]
    for number, (row, length) in enumerate(zip(letters, part.lengths, strict=True)):
        span = orient.between(row[:length].tobytes(), left, right)
        if span:
            rows.append((number, *span))
    number, begin, end, turned = np.array(rows, np.int64).reshape(-1, 4).T
    bases, lengths, marks = part.bases[number], part.lengths[number], part.marks[number]
    both = (begin > 0) & (end < lengths)
    turned = turned.astype(bool)[:, None]
    bases = np.where(turned, orient.turned(bases, lengths), bases)
    marks = np.where(turned, orient.backwards(marks, lengths), marks)
    position = np.clip(begin[:, None] + np.arange(bases.shape[1])[None], 0, bases.shape[1] - 1)
    return Copies(
        np.take_along_axis(bases, position, axis=1),
        (end - begin).astype(np.int32),
        np.take_along_axis(marks, position, axis=1),
        part.read[number],
    ), both


def shortness(copies: Copies, primers: Sequence[str]) -> str:
    """Return what to say of reads that may be shorter than their strands.

    The text is empty where nothing indicates that.
    """
    if all(primers):
        if copies.whole >= 0.5:  # a read that goes on past the strand at both ends is not too short
            return ""
        return (
            f"; {1 - copies.whole:.0%} of the reads hold one primer only and end before the other: they are shorter "
            "than the strands; of pairs, give both files of reads, which are merged then"
        )
    same = float((copies.lengths == copies.usual).mean())
    if same > 0.9:
        return (
            f"; {same:.0%} of the reads have {copies.usual} bases: if the strands are longer, give both files of "
            "the reads of pairs, which are merged then"
        )
    return ""
