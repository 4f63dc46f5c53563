"""Reads -> copies of strands: cut at their primers, turned into one direction, with the error probability of each base.

Without primers the direction of a read is unknown. Each read is then taken both ways.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from helix_jax.reads import orient
from helix_jax.strands import header as headers
from helix_jax.strands.records import PAD

NEAR = 0.3  # share by which a read may be shorter or longer than the commonest length
LONGEST = 4096  # bases; longer reads are not of strands
SHORTEST = headers.SHORTEST // 4  # bases, of at most two bits each: half of the shortest strand that carries a header
DOUBT = 0.02  # probability that a base is wrong, where no quality states it
LOWEST_QUALITY = 2  # Phred up to which a read's qualities are a placeholder
TOO_LONG, TOO_SHORT = f"longer than {LONGEST:,} bases", f"shorter than {SHORTEST} bases without primers"
NO_PRIMER, FAR = "without a primer", "far from the usual length"


@dataclass(frozen=True, eq=False)
class Copies:
    """Reads cut to their strands.

    Attributes:
        bases: 0..3 = A C G T, padded with ``PAD``.
        lengths: The number of bases of each.
        doubt: The probability that each base is wrong.
        read: The number of the read, which occurs twice where the read is taken both ways.
        usual: The commonest length, which is not always that of the strands.
        whole: Share of the reads that reach from one primer to the other; 1 without primers.
    """

    bases: UInt8[np.ndarray, "n R"]
    lengths: Int[np.ndarray, " n"]
    doubt: Float32[np.ndarray, "n R"]
    read: Int64[np.ndarray, " n"]
    usual: int = 0
    whole: float = 1.0


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
    chunks: Iterable[tuple], primers: Sequence[str], progress: Callable[[str, int, int | None], None] | None
) -> tuple[Copies, Tally]:
    """Cut reads to their strands.

    Args:
        chunks: Chunks of reads, as ``fastq.chunks`` yields them.
        primers: The left and the right primer.
        progress: Called as progress("reads", reads newly processed, None), or None.

    Returns:
        The copies, and the counts of the reads.
    """
    parts, tally, whole = [], Tally(), []
    left, right = (p.upper().encode() for p in primers)
    for bases, lengths, qualities in chunks:
        numbers = np.arange(tally.reads, tally.reads + len(lengths))
        tally.reads += len(lengths)
        if progress:
            progress("reads", len(lengths), None)
        doubt, placeholders = _doubt(bases, lengths, qualities)
        tally.placeholders += placeholders
        bases = np.where(bases > 3, 0, bases).astype(np.uint8)
        keep = (lengths >= SHORTEST) & (lengths <= LONGEST)
        tally.left_out[TOO_SHORT] += int((lengths < SHORTEST).sum())
        tally.left_out[TOO_LONG] += int((lengths > LONGEST).sum())
        part = Copies(bases[keep], lengths[keep], doubt[keep], numbers[keep])
        if left or right:
            part, both = _between(part, left, right)
            tally.left_out[NO_PRIMER] += int(keep.sum()) - len(part.read)
            # Primers that were joined without a strand are left out here, lest they decide what length is usual.
            keep = part.lengths >= SHORTEST
            tally.left_out[TOO_SHORT] += int((~keep).sum())
            part = Copies(part.bases[keep], part.lengths[keep], part.doubt[keep], part.read[keep])
            whole.append(both[keep])
        parts.append(part)
    if not any(len(part.read) for part in parts):
        none = Copies(np.zeros((0, 1), np.uint8), np.zeros(0, np.int32), np.zeros((0, 1), np.float32), np.zeros(0, int))
        tally.left_out = +tally.left_out
        return none, tally
    lengths = np.concatenate([part.lengths for part in parts])
    usual = _commonest(lengths)
    near = (lengths >= (1 - NEAR) * usual) & (lengths <= (1 + NEAR) * usual)
    tally.left_out[FAR] += int((~near).sum())
    tally.left_out = +tally.left_out
    width = -(-int(lengths[near].max()) // 32) * 32
    copies = Copies(
        np.concatenate([_resized(part.bases, width) for part in parts])[near],
        lengths[near],
        np.concatenate([_resized(part.doubt, width) for part in parts])[near],
        np.concatenate([part.read for part in parts])[near],
        usual,
        float(np.concatenate(whole).mean()) if left and right else 1.0,
    )
    copies = dataclasses.replace(
        copies, bases=np.where(np.arange(width)[None] < copies.lengths[:, None], copies.bases, np.uint8(PAD))
    )
    if left or right:
        return copies, tally
    turned = orient.turned(copies.bases, copies.lengths)
    return Copies(
        np.concatenate([copies.bases, turned]),
        np.concatenate([copies.lengths] * 2),
        np.concatenate([copies.doubt, orient.backwards(copies.doubt, copies.lengths)]),
        np.concatenate([copies.read] * 2),
        usual,
    ), tally


def _doubt(bases, lengths, qualities):
    """Return the probability that each base is wrong, float32[n, R], and the number of reads without real qualities.

    Files that lost their qualities have placeholders: the lowest ones throughout, or one and the same in every read. A
    read of Q0 to Q2 from end to end would be wrong in most bases, and no sequencer produces it.
    """
    unknown, placeholders = np.full(len(lengths), qualities is None), 0
    doubt = np.full(bases.shape, DOUBT, np.float32)
    if qualities is not None:
        real = np.arange(bases.shape[1])[None] < lengths[:, None]
        highest = np.where(real, qualities, 0).max(axis=1, initial=0)
        flat = np.where(real, qualities, 255).min(axis=1, initial=255) == highest
        unknown = (highest <= LOWEST_QUALITY) | flat.all()
        placeholders = int(unknown.sum())
        stated = (10.0 ** (-qualities.astype(np.float32) / 10)).clip(1e-4, 0.75)
        doubt = np.where(unknown[:, None], doubt, stated)
    return np.where(bases > 3, np.float32(0.75), doubt), placeholders  # values above 3 are N


def _commonest(lengths):
    """Return the commonest length, among the five adjacent ones that most reads have.

    Neither fragments nor joined reads decide it. The sum of five has its peak up to two beside the commonest length.
    """
    counts = np.bincount(lengths)
    first = max(0, int(np.convolve(counts, np.ones(5), mode="same").argmax()) - 2)
    return first + int(counts[first : first + 5].argmax())


def _resized(rows, width):
    return np.pad(rows[:, :width], ((0, 0), (0, max(0, width - rows.shape[1]))))


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
    bases, lengths, doubt = part.bases[number], part.lengths[number], part.doubt[number]
    both = (begin > 0) & (end < lengths)
    turned = turned.astype(bool)[:, None]
    bases = np.where(turned, orient.turned(bases, lengths), bases)
    doubt = np.where(turned, orient.backwards(doubt, lengths), doubt)
    position = np.clip(begin[:, None] + np.arange(bases.shape[1])[None], 0, bases.shape[1] - 1)
    return Copies(
        np.take_along_axis(bases, position, axis=1),
        (end - begin).astype(np.int32),
        np.take_along_axis(doubt, position, axis=1),
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
