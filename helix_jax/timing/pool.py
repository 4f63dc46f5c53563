"""The timing writer: payload -> schedule of a synthesiser, and reads -> payload (the seam is ``helix_jax.writer``).

    header, payload uint8[sources, bytes of a packet]
      | strands.outer       RaptorQ: repair strands, for the header by itself and for the payload
    symbols uint8[n, s]     the header's strands come first
      | keyed               made uniform
      | paths               K bits -> a path of G: data letters and levels
    letters, levels uint8[n, data]
      | correction          parity of the level bits of a group of strands
      | frame               check letters, parity and index as letters
    letters, durations uint8[n, R] -> schedule

The way back is: reads -> ``reading`` (clusters, alignment, likelihoods of the levels) -> correction -> paths ->
strands.outer. The code of the levels is decoded before the constrained coder, as in the paper's pipeline (ISIT 2020).

The header's strands are a group of their own. Their number depends on the scheme alone, so that they are read before
anything is known of the pool, and half of them suffice.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from helix_jax import keyed, parallel, writer
from helix_jax.config import CODED, CodecConfig, MixingConfig, StrandConfig, Survival
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer
from helix_jax.strands.heading import header_of
from helix_jax.strands.written import Written
from helix_jax.timing import correction, frame, paths, reading
from helix_jax.timing.schedule import Schedule
from helix_jax.timing.scheme import Scheme
from helix_jax.writer import Progress, Rows, Share

NAME = "timing"  # stands in the header in place of the name of a constraint set
_KEY = b"timing.1"  # the key of the whitening, which makes strands uniform and hides nothing
_BATCH = 4096  # strands per call of the frame
_EXCESS = 1e-9  # probability that a pool takes longer than its cost
_REMEDY = "more copies of each strand are needed"
_AGREED = ("table", "duration", "data", "spacing", "parity", "splitting", "index", "check", "group")


@dataclass(frozen=True, kw_only=True)
class Report(writer.Report):
    """What became of the reads, as counts.

    Attributes:
        reads: The number of reads.
        clusters: The number of their clusters.
        aligned: The clusters whose letters pass their checks.
        strands: The strands of the pool, header included.
        header_strands: The strands of the header that were read.
        rejected: The strands that passed their checks and were found to be wrong by the payload's digest.
        corrected: The level bits that the error-correcting code changed.
        broken_groups: The groups of strands in which that code failed.
    """

    reads: int
    clusters: int
    aligned: int
    strands: int
    header_strands: int
    rejected: int
    corrected: int
    broken_groups: int


@dataclass(frozen=True, eq=False)
class TimedPool:
    """A written pool.

    Attributes:
        schedule: The letters and durations of all strands, those of the header first.
        header: What the decoder will read.
        layout: How the payload is laid out.
        scheme: The scheme.
        header_strands: How many of the strands carry the header.
    """

    schedule: Schedule
    header: headers.Header
    layout: layouts.PacketLayout
    scheme: Scheme
    header_strands: int

    @property
    def count(self) -> int:
        """Number of strands."""
        return len(self.schedule.letters)

    @property
    def time(self) -> float:
        """Time that all strands together take, in time units."""
        return self.schedule.time(self.scheme.overhead)

    def written(self) -> "TimedPool":
        """Return the pool itself: a ``Draft`` that is written already."""
        return self


@dataclass(frozen=True)
class Timing:
    """Letters and durations of terminator-free enzymatic synthesis.

    Attributes:
        scheme: What the writer and the reader agree on beforehand.
    """

    scheme: Scheme

    def open(self, config: CodecConfig, motifs: Sequence[str] = (), progress: Progress | None = None) -> "Station":
        """Settle the options.

        Args:
            config: The configuration. Of the options for strands, only a share of repair strands means something here.
            motifs: Forbidden words; none are possible.
            progress: Called as progress(station, done, total), or None.

        Raises:
            HelixError: The scheme settles an option.
        """
        strands, plain = config.strands, StrandConfig()
        _refuse(
            ("--constraints", config.constraints != CodecConfig.constraints),
            ("--strand-length", strands.length != plain.length),
            ("--survive", isinstance(strands.redundancy, Survival)),
            ("--forbid", motifs),
            ("--left-primer", strands.left_primer),
            ("--right-primer", strands.right_primer),
            ("--exempt-primers", strands.primers_exempt),
            ("--screen", strands.stem is not None),
        )
        assert not isinstance(strands.redundancy, Survival)
        return Station(self.scheme, strands.redundancy, progress)

    def read(
        self,
        pool: reading.Reads,
        *,
        written: Written | None = None,
        key: bytes | None = None,
        progress: Progress | None = None,
    ) -> writer.Received:
        """Read the payload from reads, as far as the outer code reaches.

        Args:
            pool: The bases (0..3) of copies of all strands, in any order.
            written: Motifs and primers, which are not possible here.
                key: The id that the pool must have, or None for any. It does not tell the reads of mixed pools apart.
            progress: Called as progress(station, done, total).

        Raises:
            DecodeError: The header cannot be read, or it is that of another pool or scheme.
            HelixError: ``written`` states something.
        """
        if written is not None:
            _refuse(
                ("--forbid", written.motifs),
                ("--left-primer", written.left),
                ("--right-primer", written.right),
                ("--exempt-primers", written.primers_exempt),
            )
        scheme = self.scheme
        strands = reading.read(pool, scheme, progress)
        head, header_strands, corrected, broken = _read_header(scheme, strands)
        if key is not None and key != head.key:
            raise DecodeError(f"these reads belong to the pool with key {head.key.hex()}, not to {key.hex()}")
        layout = _layout_of(scheme, head, len(pool))
        first = _header_layout(scheme, head.size).packets
        index = strands.index - first
        symbols, good = np.zeros((len(index), symbol_bytes(scheme)), np.uint8), np.zeros(len(index), bool)
        for start in range(0, layout.packets, scheme.group):
            size = min(scheme.group, layout.packets - start)
            rows = np.flatnonzero((index >= start) & (index < start + size))
            if len(rows):
                symbols[rows], good[rows], ok, changed = _read_group(scheme, strands, rows, first + start, size)
                corrected, broken = corrected + changed, broken + (not ok)
            if progress:
                progress("repair", size, layout.packets)
        good &= ~symbols[:, layout.symbol_bytes :].any(axis=1)
        recovered = outer.decode(layout, index[good], symbols[good, : layout.symbol_bytes], head.genuine())
        report = Report(
            reads=len(pool),
            clusters=strands.clusters,
            aligned=strands.aligned,
            strands=first + layout.packets,
            header_strands=header_strands,
            packets=layout.packets,
            packets_received=int(good.sum()),
            source_packets=layout.sources,
            lost_packets=int((recovered.lost | recovered.suspect).sum()),
            rejected=len(recovered.rejected),
            corrected=corrected,
            broken_groups=broken,
            verified=recovered.verified,
        )
        return writer.Received(head, recovered, report, _REMEDY)


def _refuse(*options):
    """Raise HelixError for those of the pairs (option, value) that have a value: the scheme settles them."""
    names = [name for name, value in options if value]
    if names:
        raise HelixError(
            f"{', '.join(names)}: not for the timing writer, whose scheme settles the strands; leave it out"
        )


# ---- writing -----------------------------------------------------------------------------------------


def symbol_bytes(scheme: Scheme) -> int:
    """Return the number of payload bytes that a strand has room for."""
    return paths.coder(scheme).bits // 8


@dataclass(frozen=True, eq=False)
class Station:
    """The timing writer with its options settled.

    Attributes:
        scheme: The scheme.
        redundancy: Repair strands as a share of the source strands; None stands for the scheme's, or for more where the
            video is entropy-coded.
        progress: Called as progress(station, done, total), or None.
    """

    scheme: Scheme
    redundancy: float | int | None = None
    progress: Progress | None = None
    unit = "time units"

    def plan(self, size: int, mode: str, multiple: int = 1, sections: Sequence[Share] = ()) -> layouts.PacketLayout:
        """Fill each strand with as many whole multiples of bytes as it holds.

        Args:
            size: Bytes of the payload.
            mode: One of ``coding.modes.MODES``, or "bytes".
            multiple: The bytes of a packet are a multiple of it.
            sections: The sections of format 2 (``writer.Station.plan``).

        Raises:
            HelixError: The strands are too short, or more than the index of the scheme can number.
        """
        scheme = self.scheme
        width = symbol_bytes(scheme) // multiple * multiple
        if not width:
            raise HelixError(
                f"scheme {scheme.name}: a strand has room for {symbol_bytes(scheme)} bytes, and whole tokens take "
                f"{multiple}: use a scheme of longer strands"
            )
        redundancy = self.redundancy
        if redundancy is None:
            redundancy = scheme.redundancy if mode in ("raw", "bytes") else max(scheme.redundancy, CODED)
        shares = [(size, _at_least(redundancy, own)) for size, own in sections]
        parts = tuple(layouts.part_of(*share, width) for share in shares or [(size, redundancy)])
        layout = layouts.wide(width, parts, bool(sections))
        _check_index(scheme, layout, size)
        return _layout(scheme, layout)

    def cost(self, layout: layouts.PacketLayout) -> int:
        """Return the time that all strands take at most, in time units, header strands included.

        The time of the data rounds is fixed, and that of the other rounds depends on letters that are pseudo-random:
        the bound on their sum (Hoeffding's inequality) fails for one pool in 10^9. The letters of the index count with
        the longest time.
        """
        scheme, strands = self.scheme, layout.packets + _header_layout(self.scheme, layout.header_bytes).packets
        times = scheme.table.array()[~np.eye(4, dtype=bool)]
        kinds, shortest = scheme.frame.kinds, times[:, 0]
        turned = np.count_nonzero((kinds[1:] == frame.DATA) & (kinds[:-1] == frame.CHECK))
        spread = turned * np.ptp(times) ** 2 + (scheme.frame.rounds - scheme.data) * np.ptp(shortest) ** 2
        late = scheme.table.longest if scheme.splitting else 0  # the last data round begins in time and may end late
        most = scheme.strand_time + scheme.index * (shortest.max() - shortest.mean()) + late
        return math.ceil(strands * most + math.sqrt(strands * spread / 2 * -math.log(_EXCESS)))

    def draft(
        self,
        rows: Rows,
        fields: Mapping[str, Any],
        layout: layouts.PacketLayout,
        *,
        content_bytes: int,
        mixing: MixingConfig,
        key: bytes,
    ) -> "Draft":
        """Make a payload ready for writing (``writer.Station.draft``)."""
        symbols = np.ascontiguousarray(rows if isinstance(rows, np.ndarray) else rows(0, layout.sources))
        _check_index(self.scheme, layout, content_bytes)  # now that the size of the header is known
        head = header_of(
            lambda begin, end: symbols[begin:end], fields, layout, constraints=NAME,
            tables_hash=digest(self.scheme)[:8], content_bytes=content_bytes, mixing=mixing, key=key,
        )  # fmt: skip
        return Draft(head, dataclasses.replace(layout, payload_bytes=symbols.size), self, symbols)


@dataclass(frozen=True, eq=False)
class Draft:
    """A pool that is ready to be written.

    Attributes:
        header: What the decoder will read.
        layout: How the payload is laid out.
        station: The writer.
        symbols: The payload.
    """

    header: headers.Header
    layout: layouts.PacketLayout
    station: Station
    symbols: UInt8[np.ndarray, "sources symbol_bytes"]

    def written(self) -> TimedPool:
        """Return the schedule of all strands."""
        scheme, progress = self.station.scheme, self.station.progress
        data = self.header.to_bytes()
        first = outer.encode(_header_layout(scheme, len(data)), data)
        rows = outer.encode(self.layout, self.symbols.tobytes())
        symbols = np.concatenate([first, np.pad(rows, ((0, 0), (0, first.shape[1] - rows.shape[1])))])
        step = None if progress is None else lambda done: progress("strands", done, len(symbols))
        index = np.arange(len(symbols))
        letters, levels = paths.write(paths.coder(scheme), _whitened(symbols, index), step)
        groups = [levels[: len(first)], *_groups(levels[len(first) :], scheme.group)]
        parity = np.concatenate([correction.parity(scheme, group) for group in groups])
        numbers = (index[:, None] // 3 ** np.arange(scheme.index) % 3).astype(np.uint8)
        digits = np.concatenate([frame.bits_to_trits(parity), numbers], axis=1)
        strands, levels = parallel.map_batches(
            _write, np.zeros(1), letters, levels, digits, batch=_BATCH, layout=scheme.frame
        )
        before = np.concatenate([np.zeros_like(strands[:, :1]), strands[:, :-1]], axis=1)
        durations = scheme.table.array()[before, strands, levels].astype(np.uint8)
        return TimedPool(Schedule(strands, durations, scheme.name), self.header, self.layout, scheme, len(first))


def digest(scheme: Scheme) -> bytes:
    """Return a hash of what the writer and the reader must agree on, which the header states."""
    agreed = {field: str(getattr(scheme, field)) for field in _AGREED}
    if scheme.reversible:
        agreed["reversible"] = "True"
    return hashlib.sha256(repr(agreed).encode()).digest()


def _check_index(scheme, layout, size):
    """Raise HelixError where the index cannot number the strands of a pool of so many bytes."""
    strands, most = layout.packets + _header_layout(scheme, layout.header_bytes).packets, 3**scheme.index
    if strands > most:
        raise HelixError(
            f"{size} bytes need {strands} strands, more than {most}, which {scheme.index} index letters of the scheme "
            "can number: use a scheme with a longer index"
        )


def _at_least(redundancy, own):
    """Return the redundancy of a section: its own, but that of the pool where it has none or a lower one."""
    return own if isinstance(own, Survival) else max(own or 0, redundancy)


def _groups(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _layout(scheme, layout):
    """Return a layout with the index and the check of the frame's letters, as the bits that these are worth."""
    index_bits = (3**scheme.index - 1).bit_length()
    check_bits = min(32, math.floor(scheme.check * math.log2(3)))
    bits = index_bits + 8 * layout.symbol_bytes + check_bits
    return dataclasses.replace(layout, bits=bits, index_bits=index_bits, check_bits=check_bits)


def header_strands(scheme: Scheme, size: int) -> int:
    """Return how many strands a header of ``size`` bytes takes."""
    return _header_layout(scheme, size).packets


def _header_layout(scheme, size=headers.SIZE):
    """Return the layout of the strands of a header of ``size`` bytes: twice as many as it takes."""
    width = symbol_bytes(scheme)
    sources = -(-size // width)
    return layouts.PacketLayout(8 * width + 33, width, 32, 1, size, sources)


def _whitened(symbols: UInt8[np.ndarray, "n s"], index: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n s"]:
    """Xor the symbols of the strands with these numbers with a fixed stream; this is its own inverse."""
    words = -(-symbols.shape[1] // 8)
    stream = keyed.stream(_KEY, (index[:, None] * words + np.arange(words)).reshape(-1))
    return symbols ^ stream.astype(">u8").view(np.uint8).reshape(len(symbols), 8 * words)[:, : symbols.shape[1]]


def _write(_, letters, levels, digits, *, layout):
    return frame.write(letters, levels, digits, frame=layout)


# ---- reading -----------------------------------------------------------------------------------------


def _read_header(scheme, strands):
    """Return (header, number of its strands that were read, level bits corrected, groups that failed)."""
    lost = DecodeError(
        f"too few of the {_header_layout(scheme).packets} strands of the header can be read: {_REMEDY}, and those of "
        "one pool alone"
    )
    for size in headers.SIZES:  # the usual one is the first
        layout = _header_layout(scheme, size)
        rows = np.flatnonzero(strands.index < layout.packets)
        if len(rows) < layout.sources:
            raise lost
        symbols, good, ok, corrected = _read_group(scheme, strands, rows, 0, layout.packets)
        recovered = outer.decode(layout, strands.index[rows][good], symbols[good], headers.intact)
        if recovered.verified:
            break
    else:
        raise lost
    try:
        head = headers.Header.from_bytes(recovered.payload)
    except headers.HeaderError as error:
        raise DecodeError(str(error)) from error
    if head.constraints != NAME or head.tables_hash != digest(scheme)[:8]:
        raise DecodeError(f"this pool was written with another scheme than {scheme.name}: give that one with --scheme")
    return head, int(good.sum()), corrected, int(not ok)


def _layout_of(scheme, head, reads):
    """Return the layout that a header states. Raises DecodeError where it makes no sense."""
    room, most = symbol_bytes(scheme), 3**scheme.index - _header_layout(scheme, head.size).packets
    claimed = head.sources + head.repairs + sum(section.repairs for section in head.sections)
    if head.symbol_bytes > room or claimed > most:  # before anything grows with these numbers
        raise DecodeError(
            f"the header speaks of {claimed:,} strands with {head.symbol_bytes} bytes each, and scheme {scheme.name} "
            f"has {most:,} with {room}: forged?"
        )
    parts = tuple(section.part(head.symbol_bytes) for section in head.sections)
    layout = layouts.wide(head.symbol_bytes, parts or (layouts.Part(head.sources, head.repairs),), bool(parts))
    if layout.packets > most:
        raise DecodeError(f"the header speaks of {layout.packets:,} strands, and there are {most:,} at most: forged?")
    layouts.check_claim(layout, reads)
    return dataclasses.replace(_layout(scheme, layout), header_bytes=head.size)


def _read_group(scheme, strands, rows, first, size):
    """Read the strands ``rows`` of the group of ``size`` strands that begins with number ``first``.

    Returns (symbols, good bool[rows], whether the code succeeded, the number of level bits that it changed).
    """
    position = strands.index[rows] - first
    likelihood = np.zeros((size, scheme.data, scheme.levels), np.float32)
    parity, doubt = np.zeros((size, scheme.parity), np.uint8), np.full(size, np.inf, np.float32)
    likelihood[position], parity[position] = strands.likelihood[rows], strands.parity[rows]
    doubt[position] = strands.doubt[rows]
    levels, ok, changed = correction.correct(scheme, likelihood, parity, doubt)
    symbols, good = paths.read(paths.coder(scheme), strands.letters[rows], levels[position])
    return _whitened(symbols, strands.index[rows]), good, ok, changed
