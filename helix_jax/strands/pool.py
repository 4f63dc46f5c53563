"""Payload <-> pool of strands: repair packets, header, packets, bases; and the report of what became of them.

``draft`` makes a payload ready for writing, and ``write`` puts it on strands. ``read_pool`` finds the header among
strands (``header_search``), reads the packets and repairs what the outer code can. All of them work in portions, so
that memory holds one copy of the payload at most.
"""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax import parallel
from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import outer, packets
from helix_jax.strands.header_search import (
    BATCH,
    PORTION,
    AnyStrands,
    as_written,
    check_alone,
    core,
    find_header,
    portions,
    turned,
    words_of,
)
from helix_jax.strands.written import Written
from helix_jax.tk_scone import coder, constraints, tables

SMALL_POOL = 1 << 25  # bytes of packets that a header may always claim
MOST_MISSING = 256  # packets that a header may claim for each strand received, where the pool is larger
SPILL = 1 << 26  # bytes of repair packets that wait in memory; more wait in a temporary file
Progress = Callable[[str, int, int], None]


# ---- writing -------------------------------------------------------------------------------------------------


def station(
    config: CodecConfig, motifs: Iterable[str], progress: Progress | None
) -> tuple[constraints.Constraints, tables.Tables]:
    """Return the constraint set of a configuration, and the tables of its strands.

    Args:
        config: The configuration.
        motifs: Forbidden words (see ``codec.encode``).
        progress: Called as progress(station, done, total), or None.

    Returns:
        The set and its tables.
    """
    if progress:
        progress("tables", 0, 1)  # this takes seconds where motifs or a right primer make the automaton large
    chosen = as_written(
        constraints.named(config.constraints),
        Written(tuple(motifs), config.strands.left_primer, config.strands.right_primer, config.strands.primers_exempt),
    )
    table = tables.load(chosen, config.strands.length)
    if progress:
        progress("tables", 1, 1)
    return chosen, table


@dataclass(frozen=True, eq=False)
class Draft:
    """A pool that is ready to be written, strand by strand.

    Attributes:
        header: What the decoder will read.
        layout: How the bits of a strand are shared out.
        constraints: The set that the strands obey.
        table: Its coder tables.
        header_strands: How many strands carry the header.
        rows: Function (begin, end) -> payload symbols uint8[end - begin, symbol_bytes].
        progress: Called as progress(station, done, total), or None.
    """

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    table: tables.Tables
    header_strands: int
    rows: Callable
    progress: Callable | None = None

    @property
    def count(self) -> int:
        """Number of strands."""
        return self.header_strands + self.layout.packets

    @property
    def nucleotides(self) -> int:
        """Bases of all strands, primers included."""
        return self.count * (self.table.length + len(self.constraints.left) + len(self.constraints.right))

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands with primers: header strands, source strands in payload order, repair strands."""
        waiting, rows = [], 0
        for words in self._words():
            waiting, rows = [*waiting, words], rows + len(words)
            if rows >= PORTION:
                yield self._bases(np.concatenate(waiting))
                waiting, rows = [], 0
        if rows:
            yield self._bases(np.concatenate(waiting))

    def _words(self):
        """Yield the same as bits: words uint32[n, W], PORTION rows at most."""
        layout, digest = self.layout, hashlib.sha256()
        yield headers.header_packets(self.header, self.table.bits)
        with tempfile.SpooledTemporaryFile(max_size=SPILL) as repairs:
            for start, size, blocks in outer.groups(layout):
                symbols = self.rows(start, start + size * blocks)
                digest.update(np.ascontiguousarray(symbols).data)
                repairs.write(outer.repairs(layout, symbols, blocks).tobytes())
                for begin in range(0, len(symbols), PORTION):
                    yield self._packets(start + begin, symbols[begin : begin + PORTION])
            if digest.digest()[: outer.DIGEST_BYTES] != self.header.digest:
                raise HelixError("the input changed while it was read: nothing is written; try again")
            repairs.seek(0)
            for start in range(layout.sources, layout.packets, PORTION):
                rows = min(PORTION, layout.packets - start)
                symbols = np.frombuffer(repairs.read(rows * layout.symbol_bytes), np.uint8)
                yield self._packets(start, symbols.reshape(rows, -1))

    def _packets(self, first, symbols):
        return packets.pack(self.layout, self.header.key, np.arange(first, first + len(symbols)), symbols)

    def _bases(self, words):
        arrays, shape = coder.on_device(self.table)
        step = self.progress and (lambda done: self.progress("strands", done, self.count))
        bases = parallel.map_batches(coder.write, arrays, words, batch=BATCH, progress=step, shape=shape)
        left, right = (
            constraints.to_bases(p, "primer").astype(np.uint8) for p in (self.constraints.left, self.constraints.right)
        )
        ends = [np.tile(p, (len(bases), 1)) for p in (left, right)]
        return np.concatenate([ends[0], bases, ends[1]], axis=1)


@dataclass(frozen=True, eq=False)
class Pool:
    """A written pool.

    Attributes:
        strands: The strands with their primers, header strands first.
        header: What the decoder will read.
        layout: How the bits of a strand are shared out.
        constraints: The set that the strands obey.
        header_strands: How many of the strands carry the header.
    """

    strands: UInt8[np.ndarray, "n L"]
    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    header_strands: int

    @property
    def count(self) -> int:
        """Number of strands."""
        return len(self.strands)

    @property
    def nucleotides(self) -> int:
        """Bases of all strands, primers included."""
        return self.strands.size

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands, as ``Draft.portions`` does."""
        yield self.strands


def draft(
    rows: Callable[[int, int], np.ndarray] | UInt8[np.ndarray, "n symbol_bytes"],
    content_bytes: int,
    fields: Mapping[str, Any],
    chosen: constraints.Constraints,
    table: tables.Tables,
    layout: packets.PacketLayout,
    config: CodecConfig,
    key: bytes,
    progress: Progress | None,
) -> Draft:
    """Make a payload ready for writing.

    Args:
        rows: Function (begin, end) -> payload symbols uint8[end - begin, symbol bytes], or all of them as an array.
        content_bytes: Bytes of the content.
        fields: The other fields of the header.
        chosen: The constraint set (see ``station``).
        table: The tables (see ``station``).
        layout: The layout of the payload's symbols.
        config: The configuration.
        key: 8 bytes, the pool's id.
        progress: Called as progress(station, done, total), or None.

    Returns:
        The draft.
    """
    symbols: Callable = (lambda begin, end: rows[begin:end]) if isinstance(rows, np.ndarray) else rows
    layout = dataclasses.replace(layout, payload_bytes=layout.sources * layout.symbol_bytes)
    digest = hashlib.sha256()
    for begin in range(0, layout.sources, PORTION):
        digest.update(np.ascontiguousarray(symbols(begin, min(begin + PORTION, layout.sources))).data)
    head = headers.Header(
        constraints=chosen.name,
        tables_hash=table.digest[:8],
        key=key,
        content_bytes=content_bytes,
        digest=digest.digest()[: outer.DIGEST_BYTES],
        sources=layout.sources,
        symbol_bytes=layout.symbol_bytes,
        index_bits=layout.index_bits,
        check_bits=layout.check_bits,
        repairs=layout.repairs,
        mixing=config.mixing,
        **fields,
    )
    return Draft(head, layout, chosen, table, headers.header_strands(table.bits), symbols, progress)


def write(made: Draft) -> Pool:
    """Write a draft to a pool, with all of its strands in memory."""
    strands = np.concatenate(list(made.portions()))
    return Pool(strands, made.header, made.layout, made.constraints, made.header_strands)


# ---- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What became of a pool's strands: counts of strands, packets and tokens.

    Each strand is one of ``header_strands``, ``packets_received``, ``duplicates`` and ``unreadable``.

    Attributes:
        strands: All strands.
        header_strands: Distinct header strands.
        unreadable: Strands of another length, not in the constraint set, or failing their check (damaged, or of another
            pool).
        reversed: Strands read as reverse complements.
        duplicates: Repeated copies of header strands or packets.
        packets: Packets of the pool.
        packets_received: Distinct packets received.
        source_packets: Source packets of the pool.
        lost_packets: Source packets past the outer code's reach.
        rejected: Packets that passed their check and were found to be wrong by the payload's hash.
        lost_tokens: Share of tokens concealed.
        verified: Whether the hash of the whole payload matches.
        lost_update: Share of the decoder's update that is lost; 0 where there is none.
    """

    strands: int
    header_strands: int
    unreadable: int
    reversed: int
    duplicates: int
    packets: int
    packets_received: int
    source_packets: int
    lost_packets: int
    rejected: int
    lost_tokens: float
    verified: bool
    lost_update: float = 0.0


@dataclass(frozen=True, eq=False)
class Received:
    """What ``read_pool`` recovered.

    Attributes:
        header: The header.
        layout: The layout that it implies.
        constraints: The set that the strands obey.
        length: Bases of a strand without primers.
        recovered: The payload, as far as it could be recovered.
        report: What became of the strands.
    """

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    length: int
    recovered: outer.Recovered
    report: Report


def read_pool(
    strands: AnyStrands, *, written: Written | None = None, key: bytes | None = None, progress: Progress | None = None
) -> Received:
    """Read the payload from strands, as far as the outer code reaches.

    Args:
        strands: See ``portions``.
        written: See ``find_header``.
        key: See ``find_header``.
        progress: See ``codec.decode``.

    Returns:
        The header, the payload and the report.

    Raises:
        DecodeError: If no header can be read, or several, or if the header is forged.
    """
    if isinstance(strands, dict) and not strands:
        raise DecodeError("no strands")
    found = find_header(strands, written, key)
    head, table = found.header, found.table
    try:
        layout = head.layout(table.bits)
    except headers.HeaderError as error:
        raise DecodeError(f"{error}: forged?") from error
    everything = sum(len(part) for part in portions(strands))
    if layout.packets > max(SMALL_POOL // layout.symbol_bytes, MOST_MISSING * everything):
        # The memory needed follows the header's claim, and a stranger's header may claim anything.
        raise DecodeError(
            f"the header speaks of {layout.packets:,} packets, and {everything:,} strands are there: forged, or nearly "
            "all of the strands are missing"
        )
    step = None if progress is None else lambda done: progress("strands", done, everything)
    collected = outer.Packets(layout)
    first, unreadable, reverse, good = set(), 0, 0, 0
    for part in portions(strands):
        if part.shape[1] == found.total:
            readable, header_words, back = _read_part(part, found, layout, collected)
            first.update(row.tobytes() for row in header_words)
            unreadable, reverse = unreadable + len(part) - readable - len(header_words), reverse + back
            good += readable + len(header_words)
        else:
            unreadable += len(part)
        if step:
            step(len(part))
    received = collected.received
    if key is None:
        check_alone(found, first)
    at = None if progress is None else lambda _, blocks: progress("repair", 1, blocks)
    recovered = collected.recover(outer.matching(head.digest), at)
    report = Report(
        strands=everything,
        header_strands=len(first),
        unreadable=unreadable,
        reversed=reverse,
        duplicates=good - len(first) - received,
        packets=layout.packets,
        packets_received=received,
        source_packets=layout.sources,
        lost_packets=int((recovered.lost | recovered.suspect).sum()),
        rejected=len(recovered.rejected),
        lost_tokens=0.0,
        verified=recovered.verified,
    )
    return Received(head, layout, found.constraints, table.length, recovered, report)


def _read_part(part, found, layout, collected):
    """Add the packets of strands of one length to ``collected``.

    Returns (number of packets, words of header strands, number of strands that were reverse complements).
    """
    readable, reverse, remaining, header_words = 0, 0, part, []
    for turn in (False, True):  # a strand that cannot be read as it is may be a reverse complement
        words, ok = words_of(core(turned(remaining) if turn else remaining, found.written), found.table)
        index, symbols, good = packets.unpack(layout, found.header.key, words)
        good &= ok
        collected.add(index[good], symbols[good])
        rest = np.flatnonzero(ok & ~good)
        heads = rest[headers.is_header(words[rest], found.table.bits)]
        header_words.append(words[heads])
        good[heads] = True
        readable, reverse = readable + int(good.sum()) - len(heads), reverse + turn * int(good.sum())
        remaining = remaining[~good]
        if not len(remaining):
            break
    return readable, np.concatenate(header_words), reverse


# ---- figures -------------------------------------------------------------------------------------------------


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
