"""Portions of the records of a file, and the count of those left out: what all formats of files have in common.

Files from laboratories have odd records, which must not cost the others: a record that is empty, longer than
``LONGEST``, holds other letters or is cut short is skipped, and its reason is counted.
"""

import collections
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

UNKNOWN, OTHER, PAD = 4, 254, 255  # N; a letter that is no base; what follows the last base of a row
LONGEST = 100_000  # letters of a record
MOST_PHRED = 93
MOST_NOTES = 64  # notes kept of a file; more are no pool's, or too many to try
EMPTY, LONG, LETTERS, CUT = (
    "without letters",
    f"longer than {LONGEST:,} letters",
    "with other letters than bases",
    "cut short or damaged",
)
_BASE = np.full(256, OTHER, np.uint8)
_BASE[np.frombuffer(b"ACGTN", np.uint8)] = _BASE[np.frombuffer(b"acgtn", np.uint8)] = np.arange(5)


class Portion(NamedTuple):
    """Records one after the other.

    Attributes:
        letters: 0..3 = A C G T, and 4 = N.
        lengths: The number of letters of each record.
        qualities: Phred, or None where there are none.
        names: The header lines, without the first character; None for FASTA.
        end: 1 or 2 where all of them are the first or the second reads of pairs, as the name of the file says; else 0.
    """

    letters: UInt8[np.ndarray, " m"]
    lengths: Int64[np.ndarray, " n"]
    qualities: UInt8[np.ndarray, " m"] | None
    names: list[bytes] | None = None
    end: int = 0

    def taken(
        self,
        rows: Int64[np.ndarray, " k"],
        begin: Int64[np.ndarray, " k"] | None = None,
        lengths: Int64[np.ndarray, " k"] | None = None,
    ) -> "Portion":
        """Return some records, or of each as many letters as ``lengths`` says, from letter ``begin`` on."""
        lengths = self.lengths[rows] if lengths is None else lengths
        starts = (np.cumsum(self.lengths) - self.lengths)[rows] + (0 if begin is None else begin)
        places = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return self._replace(
            letters=self.letters[places],
            lengths=lengths,
            qualities=None if self.qualities is None else self.qualities[places],
            names=self.names and [self.names[row] for row in rows.tolist()],
        )


@dataclass(eq=False)
class Tally:
    """What was counted while records were read.

    Attributes:
        left_out: Number of records skipped so far, by reason.
        notes: How often the comments of FASTA header records say what: {(key as hexadecimal, text): number}.
        records: Records read so far, those left out included.
        warnings: What else the user should know, as sentences without a full stop.
    """

    left_out: collections.Counter = field(default_factory=collections.Counter)
    notes: collections.Counter = field(default_factory=collections.Counter)
    records: int = 0
    warnings: list[str] = field(default_factory=list)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count records that are left out, and that were not seen before."""
        self.records += count
        self.left_out[reason] += count

    def kept(
        self, text: bytes, lengths: list[int] | Int64[np.ndarray, " n"], marks: bytes | None, names: list[bytes] | None
    ) -> Portion | None:
        """Return the records that can be used, and count the others; None where there are none.

        Args:
            text: The letters of all records in ASCII.
            lengths: The number of letters of each.
            marks: Their qualities in ASCII, Phred + 33, or None.
            names: Their header lines, or None.
        """
        letters, lengths = _BASE[np.frombuffer(text, np.uint8)], np.asarray(lengths, np.int64)
        codes = None if marks is None else np.frombuffer(marks, np.uint8)
        self.records += len(lengths)
        odd = letters == OTHER
        if codes is not None:
            odd |= (codes < 33) | (codes > 33 + MOST_PHRED)
        wrong = np.zeros(len(lengths), bool)
        if odd.any():
            wrong[np.searchsorted(np.cumsum(lengths), np.flatnonzero(odd), side="right")] = True
        keep = (lengths > 0) & (lengths <= LONGEST) & ~wrong
        if not keep.all():
            for reason, mask in (
                (EMPTY, lengths == 0),
                (LONG, lengths > LONGEST),
                (LETTERS, wrong & (lengths <= LONGEST)),
            ):
                if mask.any():
                    self.left_out[reason] += int(mask.sum())
            rows = np.repeat(keep, lengths)
            letters, codes = letters[rows], codes if codes is None else codes[rows]
            names = names and [name for name, kept in zip(names, keep.tolist(), strict=True) if kept]
            lengths = lengths[keep]
        if not len(lengths):
            return None
        return Portion(letters, lengths, codes if codes is None else codes - np.uint8(33), names)
