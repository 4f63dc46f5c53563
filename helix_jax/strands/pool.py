"""Payload -> pool of strands: repair packets, header, packets, bases.

``draft`` makes a payload ready for writing, in portions, so that memory holds one copy of the payload at most. The way
back is ``strands.received``.
"""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from helix_jax.config import MixingConfig
from helix_jax.errors import HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer, packets, screening
from helix_jax.strands.heading import header_of
from helix_jax.strands.layouts import PORTION
from helix_jax.strands.strand_coder import StrandCoder, molecules
from helix_jax.tk_scone import constraints
from helix_jax.writer import Progress, Rows

SPILL = 1 << 26  # bytes of repair packets that wait in memory; more wait in a temporary file


@dataclass(frozen=True, eq=False)
class Draft:
    """A pool that is ready to be written, strand by strand.

    Attributes:
        header: What the decoder will read.
        layout: How the bits of a strand are shared out.
        coder: What writes the words as bases.
        header_words: The words of the strands that carry the header.
        rows: Function (begin, end) -> payload symbols uint8[end - begin, symbol_bytes].
        stem: The longest hairpin stem that a strand may have (``screening``), None for any.
        progress: Called as progress(station, done, total), or None.
    """

    header: headers.Header
    layout: layouts.PacketLayout
    coder: StrandCoder
    header_words: UInt32[np.ndarray, "m W"]
    rows: Callable
    stem: int | None = None
    progress: Callable | None = None

    @property
    def constraints(self) -> constraints.Constraints:
        """The set that the strands obey."""
        return self.coder.constraints

    @property
    def header_strands(self) -> int:
        """How many strands carry the header."""
        return len(self.header_words)

    @property
    def count(self) -> int:
        """Number of strands."""
        return self.header_strands + self.layout.written

    @property
    def nucleotides(self) -> int:
        """Bases of all strands, primers included."""
        return self.count * (self.coder.length + len(self.constraints.left) + len(self.constraints.right))

    def written(self) -> "Pool":
        """Return the pool with all of its strands in memory."""
        strands, numbers = (np.concatenate(parts) for parts in zip(*self.numbered(), strict=True))
        return Pool(strands, self.header, self.layout, self.constraints, numbers)

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands with primers: header strands, source strands in payload order, repair strands."""
        for strands, _ in self.numbered():
            yield strands

    def numbered(self) -> Iterator[tuple[UInt8[np.ndarray, "n L"], Int64[np.ndarray, " n"]]]:
        """Yield the same with the global index of the packet of each strand, -1 for header strands.

        Raises ScreenError, at the end, where too few strands of a block pass the screen.
        """
        sieve = None if self.stem is None else screening.Sieve(self.layout, self.stem)
        total = self.header_strands + self.layout.packets
        step = self.progress and (lambda done: self.progress("strands", done, total))
        for words, numbers in self._together():
            strands = molecules(self.coder, words, step)
            if sieve:
                keep = sieve.keep(strands, numbers)
                strands, numbers = strands[keep], numbers[keep]
            yield strands, numbers
        if sieve:
            sieve.check()

    def _together(self):
        """Yield what ``_words`` does, in portions of PORTION rows at least."""
        waiting, rows = [], 0
        for words in self._words():
            waiting, rows = [*waiting, words], rows + len(words[0])
            if rows >= PORTION:
                yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
                waiting, rows = [], 0
        if rows:
            yield tuple(map(np.concatenate, zip(*waiting, strict=True)))

    def _words(self):
        """Yield words uint32[n, W], PORTION rows at most, and the global indices of their packets."""
        layout, digest = self.layout, _Digests(self.layout)
        yield self.header_words, np.full(self.header_strands, -1)
        with tempfile.SpooledTemporaryFile(max_size=SPILL) as repairs:
            for start, size, blocks, number in outer.groups(layout):
                symbols = self.rows(start, start + size * blocks)
                digest.update(start, symbols)
                repairs.write(outer.repairs(symbols, blocks, number).tobytes())
                for begin in range(0, len(symbols), PORTION):
                    yield self._packets(start + begin, symbols[begin : begin + PORTION])
            if not digest.agree(self.header):
                raise HelixError("the input changed while it was read: nothing is written; try again")
            repairs.seek(0)
            for start in range(layout.sources, layout.packets, PORTION):
                rows = min(PORTION, layout.packets - start)
                symbols = np.frombuffer(repairs.read(rows * layout.symbol_bytes), np.uint8)
                yield self._packets(start, symbols.reshape(rows, -1))

    def _packets(self, first, symbols):
        numbers = np.arange(first, first + len(symbols))
        return packets.pack(self.layout, self.header.key, numbers, symbols), numbers


@dataclass(frozen=True, eq=False)
class Pool:
    """A written pool.

    Attributes:
        strands: The strands with their primers, header strands first.
        header: What the decoder will read.
        layout: How the bits of a strand are shared out.
        constraints: The set that the strands obey.
        numbers: The global index of the packet of each strand, -1 for header strands.
    """

    strands: UInt8[np.ndarray, "n L"]
    header: headers.Header
    layout: layouts.PacketLayout
    constraints: constraints.Constraints
    numbers: Int64[np.ndarray, " n"]

    @property
    def header_strands(self) -> int:
        """How many of the strands carry the header."""
        return int((self.numbers < 0).sum())

    @property
    def count(self) -> int:
        """Number of strands."""
        return len(self.strands)

    @property
    def nucleotides(self) -> int:
        """Bases of all strands, primers included."""
        return self.strands.size

    def written(self) -> "Pool":
        """Return the pool itself: a ``Draft`` that is written already."""
        return self

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands, as ``Draft.portions`` does."""
        yield self.strands

    def numbered(self) -> Iterator[tuple[UInt8[np.ndarray, "n L"], Int64[np.ndarray, " n"]]]:
        """Yield the strands and their numbers, as ``Draft.numbered`` does."""
        yield self.strands, self.numbers


def draft(
    coder: StrandCoder,
    rows: Rows,
    fields: Mapping[str, Any],
    layout: layouts.PacketLayout,
    *,
    content_bytes: int,
    mixing: MixingConfig,
    key: bytes,
    stem: int | None = None,
    progress: Progress | None = None,
) -> Draft:
    """Make a payload ready for writing.

    Args:
        coder: What writes the words as bases.
        rows: Function (begin, end) -> payload symbols uint8[end - begin, symbol bytes], or all of them as an array.
        fields: The other fields of the header.
        layout: The layout of the payload's symbols.
        content_bytes: Bytes of the content.
        mixing: The mixing that the payload has gone through.
        key: 8 bytes, the pool's id.
        stem: The longest hairpin stem that a strand may have, None for any.
        progress: Called as progress(station, done, total), or None.

    Returns:
        The draft.

    Raises:
        ScreenError: Too few header strands have stems of at most ``stem`` bases.
    """
    symbols: Callable = (lambda begin, end: rows[begin:end]) if isinstance(rows, np.ndarray) else rows
    layout = dataclasses.replace(layout, payload_bytes=layout.sources * layout.symbol_bytes)
    head = header_of(
        symbols, fields, layout, constraints=coder.name, tables_hash=coder.digest[:8], content_bytes=content_bytes,
        mixing=mixing, key=key,
    )  # fmt: skip
    words = headers.header_packets(head, coder.bits)
    if stem is not None:
        needed = headers.least_strands(coder.bits, head.size)
        words = words[screening.headers_that_pass(molecules(coder, words), stem, needed)]
    return Draft(head, layout, coder, words, symbols, stem, progress)


class _Digests:
    """The digests of the parts of a payload, as its blocks come by."""

    def __init__(self, layout: layouts.PacketLayout):
        self.ends = np.cumsum([part.sources for part in layout.parts])
        self.digests = [hashlib.sha256() for _ in self.ends]

    def update(self, start: int, symbols: UInt8[np.ndarray, "n s"]) -> None:
        """Take in symbols from number ``start`` on, which may be of several parts."""
        cuts = self.ends[(self.ends > start) & (self.ends < start + len(symbols))] - start
        first = int(np.searchsorted(self.ends, start, side="right"))
        for digest, rows in zip(self.digests[first:], np.split(symbols, cuts), strict=False):
            digest.update(np.ascontiguousarray(rows).data)

    def agree(self, header: headers.Header) -> bool:
        """Return whether they are those of a header."""
        stated = [section.digest for section in header.sections] or [header.digest]
        return all(own.digest()[: len(other)] == other for own, other in zip(self.digests, stated, strict=True))


def densities(nucleotides: int, bits: int, length: int, content_bytes: int) -> tuple[float, float]:
    """Return the gross and the net density in bits per nucleotide (DESIGN section 1, promise 3).

    Args:
        nucleotides: Nucleotides of all strands: header, index, check, repair and primers included.
        bits: Bits that a strand carries (K).
        length: Bases of a strand without primers (L).
        content_bytes: Bytes of the content.

    Returns:
        Gross, K / L of the constrained coder, and net, content bits over the nucleotides of all strands.
    """
    return bits / length, 8 * content_bytes / nucleotides if nucleotides else 0.0
