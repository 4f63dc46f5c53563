"""Sequencing adapters and UMIs, which are not the strands': cut off reads before anything else (cutadapt).

An adapter is stated as it follows a strand in a read. There it goes with all that follows it. Its reverse complement
may come before a strand, and goes with all that precedes it.

The bases of UMIs are cut off and not used to count molecules: two reads of one molecule share its errors of synthesis
and amplification, but not those of sequencing, so that a consensus gains from both.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helix_jax.errors import HelixError
from helix_jax.strands.portions import Portion

# What reads of short inserts run into, as seen on 2026-11-29. illumina: what both adapters of TruSeq begin with, in
# https://knowledge.illumina.com/library-preparation/general/library-preparation-general-reference_material-list/000007122
# nextera: the end of the transposon, https://thesequencingcenter.com/knowledge-base/illumina-adapter-sequences/
KNOWN = {"illumina": "AGATCGGAAGAGC", "nextera": "CTGTCTCTTATACACATCT"}
ERRORS = 0.2  # errors per base of a whole adapter; with more, whole ones are found in random reads
ERRORS_AT_END = 0.1  # of a part of one at an end of a read
LEAST = 3  # bases of such a part; one read in 20 loses as many by chance, which hardly matters
NOTHING = "without bases beside an adapter or a UMI"
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True)
class Trim:
    """What is cut off each read.

    Attributes:
        adapters: Letters over A, C, G, T, as they follow a strand.
        umi: Bases at the beginning of every read.
    """

    adapters: tuple[str, ...] = ()
    umi: int = 0

    def __post_init__(self) -> None:
        """Raise HelixError for adapters that are none, and for a negative number of bases."""
        for adapter in self.adapters:
            if not re.fullmatch("[ACGT]{8,}", adapter):
                raise HelixError(
                    f"adapter {adapter!r}: give at least 8 letters over A, C, G, T, or a name: {', '.join(KNOWN)}"
                )
        if self.umi < 0:
            raise HelixError(f"--umi {self.umi}: give the number of bases, 0 or more")

    def __bool__(self) -> bool:
        """Return whether anything is cut off."""
        return bool(self.adapters or self.umi)

    def check_primers(self, primers: Sequence[str]) -> None:
        """Raise HelixError for a primer that would be cut off as an adapter."""
        for primer in filter(None, primers):
            text = primer.upper()
            for adapter in self.adapters:
                if adapter in text or adapter in text.translate(_COMPLEMENT)[::-1]:
                    raise HelixError(
                        f"adapter {adapter} is part of primer {primer}, which ends the strands: leave the adapter out"
                    )


def named(adapter: str) -> str:
    """Return the letters of an adapter that is given by name, and capital letters for letters."""
    return KNOWN.get(adapter.lower(), adapter.upper())


def trimmed(portion: Portion, trim: Trim) -> Portion:
    """Return the same reads without UMIs and adapters; nothing may be left of some."""
    from cutadapt.adapters import BackAdapter, FrontAdapter  # pyrefly: ignore [missing-import]

    ends = np.cumsum(portion.lengths)
    begin = np.minimum(trim.umi, portion.lengths)
    end = portion.lengths.copy()
    if trim.adapters:
        text = _LETTERS[portion.letters].tobytes().decode()
        before, after = [], []
        for adapter in trim.adapters:
            for errors, least in ((ERRORS, len(adapter)), (ERRORS_AT_END, LEAST)):
                turned = adapter.translate(_COMPLEMENT)[::-1]
                before.append(FrontAdapter(turned, max_errors=errors, min_overlap=least))
                after.append(BackAdapter(adapter, max_errors=errors, min_overlap=least))
        spans = []
        for first, last in zip((ends - portion.lengths + begin).tolist(), ends.tolist(), strict=True):
            read, skipped = text[first:last], 0
            for adapter in before:
                if match := adapter.match_to(read):
                    read, skipped = read[match.rstop :], skipped + match.rstop
            for adapter in after:
                if match := adapter.match_to(read):
                    read = read[: match.rstart]
            spans.append((skipped, len(read)))
        skipped, left = np.array(spans, np.int64).reshape(-1, 2).T
        begin, end = begin + skipped, begin + skipped + left
    return portion.taken(np.arange(len(portion.lengths)), begin, end - begin)
