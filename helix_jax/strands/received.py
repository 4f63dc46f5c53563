"""Pool of strands -> payload: the header among the strands, their packets, and what the outer code repairs.

``read_pool`` finds the header (``header_search``), reads the packets in portions, so that memory holds one copy of the
payload at most, and repairs what the outer code can.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8, UInt32

from helix_jax import writer
from helix_jax.errors import DecodeError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer, packets
from helix_jax.strands.header_search import AnyStrands, Found, agrees, check_alone, core, find_header, portions, turned
from helix_jax.strands.layouts import PORTION
from helix_jax.strands.strand_coder import StrandCoder
from helix_jax.strands.written import Written
from helix_jax.tk_scone.constraints import to_bases
from helix_jax.writer import Progress

OTHER = 0.3  # share of wrong bases in both primers above which they are others; of random ones, 0.75 differ


@dataclass(frozen=True, kw_only=True)
class Report(writer.Report):
    """What became of a pool's strands.

    Each strand is one of ``header_strands``, ``packets_received``, ``duplicates`` and ``unreadable``.

    Attributes:
        strands: All strands.
        header_strands: Distinct header strands.
        unreadable: Strands of another length, not in the constraint set, or failing their check (damaged, or of another
            pool).
        as_stated: Whether the pool has the motifs and primers that the caller stated, and not others that comments say.
        other_primers: Those of the unreadable that have other primers than the pool's, so that they are of other pools.
        reversed: Strands read as reverse complements.
        duplicates: Repeated copies of header strands or packets.
        rejected: Packets that passed their check and were found to be wrong by the payload's hash.
        repaired_packets: Source packets that did not come back, or that a screen left out, and that the outer code
            computed from the others.
    """

    strands: int
    header_strands: int
    unreadable: int
    other_primers: int = 0
    as_stated: bool = True
    reversed: int
    duplicates: int
    rejected: int
    repaired_packets: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """Strands that have been decoded once, as ``reads.recover`` gives them: they are not decoded again.

    Attributes:
        found: The header of their pool.
        bases: The strands with their primers, distinct and as they were written.
        words: Their words; each strand is a header strand or a packet of the pool.
        remedy: What would bring more of the payload back.
    """

    found: Found
    bases: UInt8[np.ndarray, "n L"]
    words: UInt32[np.ndarray, "n W"]
    remedy: str = writer.Received.remedy

    def __len__(self) -> int:
        """Return the number of strands."""
        return len(self.bases)

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands."""
        yield self.bases


def read_pool(
    strands: AnyStrands | Decoded,
    *,
    written: Written | None = None,
    key: bytes | None = None,
    coder: StrandCoder | None = None,
    found: Found | None = None,
    progress: Progress | None = None,
) -> writer.Received:
    """Read the payload from strands, as far as the outer code reaches.

    Args:
        strands: See ``header_search.portions``, or ``Decoded``.
        written: See ``find_header``.
        key: See ``find_header``.
        coder: See ``find_header``.
        found: The header, where it has been looked for already; ``key`` is its key then.
        progress: See ``codec.decode``.

    Returns:
        The header, the payload and the report.

    Raises:
        DecodeError: If no header can be read, or several, or if the header is forged.
    """
    if isinstance(strands, dict) and not strands:
        raise DecodeError("no strands")
    if isinstance(strands, Decoded):
        found = strands.found
    found = found or find_header(strands, written, key, coder, progress)
    head = found.header
    if key is not None and key != head.key:
        raise DecodeError(f"these strands belong to the pool with key {head.key.hex()}, not to {key.hex()}")
    try:
        layout = head.layout(found.coder.bits)
    except headers.HeaderError as error:
        raise DecodeError(f"{error}: forged?") from error
    everything = len(strands) if isinstance(strands, Decoded) else sum(len(part) for part in portions(strands))
    layouts.check_claim(layout, everything)
    step = None if progress is None else lambda done: progress("strands", done, everything)
    tally = _Tally(found, layout)
    if isinstance(strands, Decoded):
        for begin in range(0, everything, PORTION):
            words = strands.words[begin : begin + PORTION]
            tally.take(words, np.ones(len(words), bool))
            if step:
                step(len(words))
    else:
        for part in portions(strands):
            tally.count(tally.read(part) if part.shape[1] == found.total else part)
            if step:
                step(len(part))
    if key is None:
        check_alone(found, tally.header_words | tally.others)
    received, collected = tally.collected.received, tally.collected
    missing = layout.sources - int(np.count_nonzero(collected.copies[: layout.sources]))
    at = None if progress is None else lambda _, blocks: progress("repair", 1, blocks)
    recovered = collected.recover(head.genuine(), at)
    report = Report(
        strands=everything,
        header_strands=len(tally.header_words),
        unreadable=everything - tally.good,
        other_primers=tally.other_primers,
        as_stated=written is None or agrees(found.written, written),
        reversed=tally.reversed,
        duplicates=tally.good - len(tally.header_words) - received,
        packets=layout.packets,
        packets_received=received,
        source_packets=layout.sources,
        lost_packets=int((recovered.lost | recovered.suspect).sum()),
        rejected=len(recovered.rejected),
        verified=recovered.verified,
        repaired_packets=max(0, missing - int(recovered.lost.sum())),
    )
    remedy = strands.remedy if isinstance(strands, Decoded) else writer.Received.remedy
    return writer.Received(head, recovered, report, remedy)


class _Tally:
    """The strands of one pool as they are read.

    Attributes:
        collected: Their packets.
        header_words: The words of the distinct header strands, as bytes.
        others: Likewise those of other pools.
        good: Strands that hold a packet or a part of the header.
        reversed: Those among them that were read as reverse complements.
        other_primers: Strands with other primers.
    """

    def __init__(self, found: Found, layout: layouts.PacketLayout):
        self.found, self.layout, self.collected = found, layout, outer.Packets(layout)
        self.header_words: set[bytes] = set()
        self.others: set[bytes] = set()
        self.good = self.reversed = self.other_primers = 0

    def read(self, part: UInt8[np.ndarray, "n L"]) -> UInt8[np.ndarray, "m L"]:
        """Decode strands of one length, and return those that cannot be read.

        One that cannot be read as it is may be a reverse complement.
        """
        for turn in (False, True):
            words, ok = self.found.coder.read(core(turned(part) if turn else part, self.found.written))
            good = self.take(words, ok)
            self.reversed += turn * int(good.sum())
            part = part[~good]
            if not len(part):
                break
        return part

    def count(self, part: UInt8[np.ndarray, "n L"]) -> None:
        """Count those of unreadable strands that have other primers than the pool's, in either direction."""
        written = self.found.written
        if not len(part) or not 0 < written.ends <= part.shape[1]:
            return
        primers = to_bases(written.left + written.right, "primer")
        wrong = [
            (np.delete(rows, np.s_[len(written.left) : rows.shape[1] - len(written.right)], axis=1) != primers).sum(1)
            for rows in (part, turned(part))
        ]
        self.other_primers += int((np.minimum(*wrong) > OTHER * written.ends).sum())

    def take(self, words: UInt32[np.ndarray, "n W"], ok: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Add the packets among valid words, and return the mask of packets and header strands."""
        index, symbols, good = packets.unpack(self.layout, self.found.header.key, words)
        good &= ok
        self.collected.add(index[good], symbols[good])
        rest = np.flatnonzero(ok & ~good)
        of_any, own = (
            headers.is_header(words[rest], self.found.coder.bits, key) for key in (None, self.found.header.key)
        )
        self.header_words.update(row.tobytes() for row in words[rest[own]])
        self.others.update(row.tobytes() for row in words[rest[of_any & ~own]])
        good[rest[own]] = True
        self.good += int(good.sum())
        return good
