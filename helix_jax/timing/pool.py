"""The timing writer: payload -> schedule of a synthesiser, and reads -> payload (the seam is ``helix_jax.writer``).

    header, payload uint8[sources, bytes of a packet]
      | arrangement         which strand holds what
      | strands.outer       repair strands
    symbols uint8[n, s]
      | keyed               made uniform
      | paths               K bits -> a path of G: data letters and levels
    letters, levels uint8[n, data]
      | correction          parity of the level bits of a group of strands
      | frame               check letters, parity and index as letters
      | tags                a share in the code of the hashes of all strands, where the scheme has tags
    letters, durations uint8[n, R] -> schedule

The way back is: reads -> ``reading`` (clusters, ``search``, likelihoods of the levels) -> correction -> paths ->
strands.outer. The code of the levels is decoded before the constrained coder, as in the paper's pipeline (ISIT 2020).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax import parallel, writer
from helix_jax.config import CodecConfig, MixingConfig, StrandConfig, Survival
from helix_jax.errors import HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer
from helix_jax.strands.heading import header_of
from helix_jax.strands.written import Written
from helix_jax.timing import arrangement, correction, frame, paths, reading, recovery, search
from helix_jax.timing.arrangement import symbol_bytes
from helix_jax.timing.front import NAME, front_of, packed
from helix_jax.timing.schedule import Schedule
from helix_jax.timing.scheme import Scheme
from helix_jax.writer import Progress, Rows, Share

_BATCH = 4096  # strands per call of the frame
_EXCESS = 1e-9  # probability that a pool takes longer than its cost


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
        found, strands = recovery.first(
            self.scheme, reading.read(pool, self.scheme, progress), len(pool), key, progress
        )
        recovered = found.recovered
        report = Report(
            reads=len(pool),
            clusters=strands.clusters,
            aligned=strands.aligned,
            strands=arrangement.count(self.scheme, found.layout),
            header_strands=found.header_strands,
            packets=found.layout.packets,
            packets_received=found.received,
            source_packets=found.layout.sources,
            lost_packets=int((recovered.lost | recovered.suspect).sum()),
            rejected=len(recovered.rejected),
            corrected=found.corrected,
            broken_groups=found.broken_groups,
            verified=recovered.verified,
        )
        return writer.Received(found.header, recovered, report, recovery.REMEDY)


def _refuse(*options):
    """Raise HelixError for those of the pairs (option, value) that have a value: the scheme settles them."""
    names = [name for name, value in options if value]
    if names:
        raise HelixError(
            f"{', '.join(names)}: not for the timing writer, whose scheme settles the strands; leave it out"
        )


# ---- writing -----------------------------------------------------------------------------------------


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
        return arrangement.plan(self.scheme, size, mode, self.redundancy, multiple, sections)

    def cost(self, layout: layouts.PacketLayout) -> int:
        """Return the time that all strands take at most, in time units, header strands included.

        The time of the data rounds is fixed, unless the scheme has costs, and that of the other rounds depends on
        letters that are pseudo-random, as that of all rounds does with costs:
        the bound on their sum (Hoeffding's inequality) fails for one pool in 10^9. The letters of the index count with
        the longest time.
        """
        scheme, strands = self.scheme, arrangement.count(self.scheme, layout)
        times = scheme.table.array()[~np.eye(4, dtype=bool)]
        drift = scheme.data * np.ptp(times) ** 2 if scheme.costs else 0  # the time of the data rounds is not fixed
        kinds, shortest = scheme.frame.kinds, times[:, 0]
        turned = np.count_nonzero((kinds[1:] == frame.DATA) & (kinds[:-1] != frame.DATA))
        spread = drift + turned * np.ptp(times) ** 2 + (scheme.frame.rounds - scheme.data) * np.ptp(shortest) ** 2
        late = scheme.table.longest if scheme.splitting else 0  # the last data round begins in time and may end late
        most = scheme.strand_time + scheme.index * (shortest.max() - shortest.mean()) + late
        more = 0.0  # what the header takes more, where it has strands of letters alone
        if scheme.version > 1 and front_of(layout) is None:
            heads = strands - layout.packets
            more = heads * max(0.0, paths.plain_coder(scheme).units - scheme.path_time)
        return math.ceil(strands * most + more + math.sqrt(strands * spread / 2 * -math.log(_EXCESS)))

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
        arrangement.check_index(self.scheme, layout, content_bytes)  # now that the size of the header is known
        front = front_of(layout)
        if front is not None and front.tail:  # what fills the last symbol is not written
            symbols = symbols.copy()
            symbols[-1, front.tail :] = 0
        head = header_of(
            lambda begin, end: symbols[begin:end], fields, layout, constraints=NAME,
            tables_hash=arrangement.digest(self.scheme)[:8], content_bytes=content_bytes, mixing=mixing, key=key,
        )  # fmt: skip
        if front is None:
            layout = dataclasses.replace(layout, payload_bytes=symbols.size)
        return Draft(head, layout, self, symbols)


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
        plain, symbols, index, groups, heads = _arranged(scheme, self.header, self.layout, self.symbols)
        step = None if progress is None else lambda done: progress("strands", done, len(symbols))
        rest = slice(len(plain), None)  # the strands that share codes
        letters, levels = paths.write(paths.coder(scheme), arrangement.whitened(symbols, index[rest]), step)
        parity = [correction.parity(scheme, levels[start : start + size]) for start, size in groups]
        if len(plain):
            first, _ = paths.write(paths.plain_coder(scheme), arrangement.whitened(plain, index[: len(plain)]))
            letters = np.concatenate([first, letters])
            levels = np.concatenate([np.full_like(first, paths.plain_level(scheme)), levels])
        digits = np.zeros((len(letters), len(scheme.frame.digit_rounds)), np.uint8)
        parts = scheme.frame.digit_parts
        digits[:, parts["index"]] = index[:, None] // 3 ** np.arange(scheme.index) % 3
        digits[rest, parts["parity"]] = frame.bits_to_trits(np.concatenate(parity))
        write = functools.partial(parallel.map_batches, _write, np.zeros(1), batch=_BATCH, layout=scheme.frame)
        if scheme.tags:  # the tags are those of letters before the shared digits
            shared = search.shared_bytes(scheme, index[rest], write(letters[rest], levels[rest], digits[rest])[0])
            digits[rest, parts["shared"]] = frame.bits_to_trits(np.unpackbits(shared, axis=1))
        strands, levels = write(letters, levels, digits)
        before = np.concatenate([np.zeros_like(strands[:, :1]), strands[:, :-1]], axis=1)
        durations = scheme.table.array()[before, strands, levels].astype(np.uint8)
        return TimedPool(Schedule(strands, durations, scheme.name), self.header, self.layout, scheme, heads)


def _arranged(scheme, header, layout, payload):
    """Return what the strands hold.

    Returns (symbols of strands of letters alone, symbols of the other strands, the numbers of both, the groups of the
    others as (start, size), how many strands hold the header).
    """
    front = front_of(layout)
    if front is not None:
        rows = front.join(packed(header.to_bytes()), payload)
        rows, heads = outer.encode(front.layout, rows.tobytes()), front.rows
        return rows[:0], _padded(scheme, rows), np.arange(len(rows)), arrangement.groups(scheme, len(rows)), heads
    data = header.to_bytes()
    first = outer.encode(arrangement.header_layout(scheme, len(data)), data)
    rows, heads = _padded(scheme, outer.encode(layout, payload.tobytes())), len(first)
    groups, numbers = arrangement.groups(scheme, len(rows)), arrangement.header_numbers(scheme, heads)
    if scheme.version > 1:
        return first, rows, np.concatenate([numbers, np.arange(len(rows))]), groups, heads
    groups = [(0, heads), *((heads + start, size) for start, size in groups)]
    symbols = np.concatenate([_padded(scheme, first), rows])
    return first[:0], symbols, np.arange(len(symbols)), groups, heads


def _padded(scheme, symbols):
    return np.pad(symbols, ((0, 0), (0, symbol_bytes(scheme) - symbols.shape[1])))


def _write(_, letters, levels, digits, *, layout):
    return frame.write(letters, levels, digits, frame=layout)
