"""Payload <-> pool of strands: repair packets, header, packets, bases; and what became of them.

``draft`` makes a payload ready for writing, ``write`` puts it on strands. ``read_pool`` finds the header among strands
(``header_search``), reads the packets and repairs what the outer code can. All of them work in portions, so that memory
holds one copy of the payload at most.
"""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helix_jax import parallel
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import outer, packets
from helix_jax.strands.header_search import (
    BATCH,
    PORTION,
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

SMALL_POOL, MOST_MISSING = 1 << 25, 256  # bytes of packets, and of larger pools packets for each strand
SPILL = 1 << 26  # bytes of repair packets that wait in memory; more wait in a temporary file


# ---- writing -------------------------------------------------------------------------------------------------


def station(config, motifs, progress):
    """Configuration -> (Constraints, Tables of its strands). motifs, progress: see ``codec.encode``."""
    if progress:
        progress("tables", 0, 1)  # seconds where motifs or a right primer make the automaton large
    chosen = as_written(
        constraints.named(config.constraints),
        Written(motifs, config.strands.left_primer, config.strands.right_primer, config.strands.primers_exempt),
    )
    table = tables.load(chosen, config.strands.length)
    if progress:
        progress("tables", 1, 1)
    return chosen, table


@dataclass(frozen=True, eq=False)
class Draft:
    """A pool that is ready to be written, strand by strand.

    header: what the decoder will read. layout: how the bits of a strand are shared out. constraints: the set that
    strands obey; table: its coder tables. header_strands: how many carry the header. rows: function (begin, end) ->
    payload symbols uint8[end - begin, symbol_bytes]. progress: called as progress(station, done, total), or None.
    """

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    table: tables.Tables
    header_strands: int
    rows: Callable
    progress: Callable | None = None

    @property
    def count(self):
        """Number of strands."""
        return self.header_strands + self.layout.packets

    @property
    def nucleotides(self):
        """Bases of all strands, primers among them."""
        return self.count * (self.table.length + len(self.constraints.left) + len(self.constraints.right))

    def portions(self):
        """Yield uint8[n, L + primers]: header strands, source strands in the order of the payload, repair strands."""
        waiting, rows = [], 0
        for words in self._words():
            waiting, rows = [*waiting, words], rows + len(words)
            if rows >= PORTION:
                yield self._bases(np.concatenate(waiting))
                waiting, rows = [], 0
        if rows:
            yield self._bases(np.concatenate(waiting))

    def _words(self):
        """The same as bits: words uint32[n, W], PORTION rows at most."""
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

    strands: uint8[n, L + primers], header strands first. header: what the decoder will read.
    layout: how the bits of a strand are shared out. constraints: the set they obey.
    header_strands: how many of them carry the header.
    """

    strands: np.ndarray
    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    header_strands: int

    @property
    def count(self):
        """Number of strands."""
        return len(self.strands)

    @property
    def nucleotides(self):
        """Bases of all strands, primers among them."""
        return self.strands.size

    def portions(self):
        """Yield the strands, as ``Draft.portions`` does."""
        yield self.strands


def draft(rows, content_bytes, fields, chosen, table, layout, config, key, progress) -> Draft:
    """Payload -> Draft.

    rows: function (begin, end) -> payload symbols uint8[end - begin, symbol bytes], or all of them as an array.
    content_bytes: bytes of the content. fields: the rest of the Header's fields. chosen, table: see ``station``.
    layout: packets.PacketLayout of the payload's symbols. config: CodecConfig. key: 8 bytes.
    """
    array = rows
    rows = rows if callable(rows) else lambda begin, end: array[begin:end]
    layout = dataclasses.replace(layout, payload_bytes=layout.sources * layout.symbol_bytes)
    digest = hashlib.sha256()
    for begin in range(0, layout.sources, PORTION):
        digest.update(np.ascontiguousarray(rows(begin, min(begin + PORTION, layout.sources))).data)
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
    return Draft(head, layout, chosen, table, headers.header_strands(table.bits), rows, progress)


def write(made: Draft) -> Pool:
    """Draft -> Pool, all of its strands in memory."""
    strands = np.concatenate(list(made.portions()))
    return Pool(strands, made.header, made.layout, made.constraints, made.header_strands)


# ---- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What became of a pool's strands; counts of strands, packets and tokens.

    strands: all of them; each is one of header_strands (distinct ones), packets_received (distinct ones), duplicates
    (of either) and unreadable. unreadable: of another length, not in the constraint set, or failing their check
    (damaged, or of another pool). reversed: read as reverse complements.
    rejected: packets that passed their check and were found to be wrong by the payload's hash.
    lost_packets of source_packets: past the outer code's reach. lost_tokens: share of tokens concealed.
    lost_update: share of the decoder's update that is lost, 0 where there is none.
    verified: the hash of the whole payload matches.
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
    """What ``read_pool`` found: the header, the layout it implies, the payload as far as it goes, and the report."""

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    length: int
    recovered: outer.Recovered
    report: Report


def read_pool(strands, *, written=None, key=None, progress=None) -> Received:
    """Strands -> payload, as far as the outer code reaches.

    strands: see ``portions``. written, key: see ``find_header``. progress: see ``codec.decode``.
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
        # memory follows the header's claim, and a stranger's header may claim anything
        raise DecodeError(
            f"the header speaks of {layout.packets:,} packets, and {everything:,} strands are there: forged, or nearly "
            "all of the strands are missing"
        )
    step = progress and (lambda done: progress("strands", done, everything))
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
    at = progress and (lambda _, blocks: progress("repair", 1, blocks))
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
    """Packets of strands of one length into ``collected``.

    Returns (how many, words of header strands, how many strands were reverse complements).
    """
    readable, reverse, left, header_words = 0, 0, part, []
    for turn in (False, True):  # what cannot be read as it is may be a reverse complement
        words, ok = words_of(core(turned(left) if turn else left, found.written), found.table)
        index, symbols, good = packets.unpack(layout, found.header.key, words)
        good &= ok
        collected.add(index[good], symbols[good])
        rest = np.flatnonzero(ok & ~good)
        heads = rest[headers.is_header(words[rest], found.table.bits)]
        header_words.append(words[heads])
        good[heads] = True
        readable, reverse = readable + int(good.sum()) - len(heads), reverse + turn * int(good.sum())
        left = left[~good]
        if not len(left):
            break
    return readable, np.concatenate(header_words), reverse


# ---- figures -------------------------------------------------------------------------------------------------


def densities(nucleotides, bits, length, content_bytes):
    """(gross, net) in bits per nucleotide (DESIGN section 1, promise 3).

    gross: K / L of the constrained coder. net: content bits over the nucleotides of all strands, header, index, check,
    repair and primers included.
    """
    return bits / length, 8 * content_bytes / nucleotides if nucleotides else 0.0
