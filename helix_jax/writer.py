"""The seam of the library: a writer puts a payload into a pool, and reads a pool back into a payload.

Everything before the seam (tokens, modes, quality, budget, mixing) and everything after it (strands, schedules, reads)
know each other only through these four things. Two writers stand in the library:

    strands.bases.Bases   strands of letters that obey constraints
    timing.pool.Timing    letters and durations of terminator-free enzymatic synthesis

``docs/forking.md`` writes a third one. ``codec`` and ``packing`` use them in this order:

    station = writer.open(config, motifs, progress)       refuses the options that the writer lacks
    layout = station.plan(size, mode, multiple)           payload bytes of a strand, and how many repair strands
    station.cost(layout)                                  what the whole pool takes, in ``station.unit``
    pool = station.draft(rows, fields, layout, ...)       header and payload on strands
    received = writer.read(pool or its reads, ...)        header, payload, the mask of what is lost, and a report
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from helix_jax.config import CodecConfig, MixingConfig, Survival
from helix_jax.strands.header import Header
from helix_jax.strands.layouts import PacketLayout
from helix_jax.strands.outer import Recovered
from helix_jax.strands.written import Written

Progress = Callable[[str, int, int], None]
Rows = Callable[[int, int], np.ndarray] | UInt8[np.ndarray, "sources symbol_bytes"]
# Bytes of a section, and its redundancy; None stands for that of the whole pool.
Share = tuple[int, float | int | Survival | None]


# Fields of ``Report`` that say nothing of a packed file.
OF_VIDEO = ("lost_tokens", "lost_update", "lost_sound", "preview_seconds", "missing_seconds")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a pool, as far as every writer can say it; the writers add figures of their own.

    Attributes:
        packets: Packets of the pool, source and repair, the header apart.
        packets_received: Distinct packets that came back.
        source_packets: Source packets of the pool.
        lost_packets: Source packets past the outer code's reach, or doubtful.
        verified: Whether the digest of the whole payload matches.
        lost_tokens: Share of the tokens that were concealed.
        lost_update: Share of the decoder's update that is lost; 0 where there is none.
        lost_sound: Whether the clip's sound is lost.
        preview_seconds: (begin, end) of the stretches of the clip that are shown from the preview.
        missing_seconds: (begin, end) of those of which nothing is left, so that the picture before them stays.
    """

    packets: int
    packets_received: int
    source_packets: int
    lost_packets: int
    verified: bool
    lost_tokens: float = 0.0
    lost_update: float = 0.0
    lost_sound: bool = False
    preview_seconds: tuple[tuple[float, float], ...] = ()
    missing_seconds: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Received:
    """A pool as far as it came back.

    Where the payload does not match its digest, what may be wrong is marked as lost or doubtful.

    Attributes:
        header: The header.
        recovered: The source symbols of the payload, and the masks of those that are lost or doubtful.
        report: What became of the pool.
        remedy: What would bring more of the payload back, for error messages.
    """

    header: Header
    recovered: Recovered
    report: Report
    remedy: str = "more strands are needed"


@runtime_checkable
class Station(Protocol):
    """A writer whose options are settled."""

    @property
    def unit(self) -> str:
        """The unit of ``cost``, in the plural: "nucleotides" or "time units"."""
        ...

    def plan(self, size: int, mode: str, multiple: int = 1, sections: Sequence[Share] = ()) -> PacketLayout:
        """Choose how a payload is laid out.

        Args:
            size: Bytes of the payload.
            mode: One of ``coding.modes.MODES``, or "bytes"; it decides the redundancy where none was requested.
            multiple: The bytes of a packet are a multiple of it, so that packets carry whole tokens.
            sections: The sections of a payload of format 2, whose ``size`` is that of all of them.

        Raises:
            HelixError: The payload does not fit.
        """
        ...

    def cost(self, layout: PacketLayout) -> int:
        """Return what a pool of this layout takes at most, header included, in ``unit``."""
        ...

    def draft(
        self,
        rows: Rows,
        fields: Mapping[str, Any],
        layout: PacketLayout,
        *,
        content_bytes: int,
        mixing: MixingConfig,
        key: bytes,
    ) -> Any:
        """Make a pool that is ready to be written; its method ``written`` gives the whole pool in memory.

        Args:
            rows: The payload: a function (begin, end) -> symbols uint8[end - begin, symbol_bytes], or all of them.
            fields: What the header says of the content: ``kind``, and for video the fields of ``coding.described``.
            layout: As ``plan`` gave it.
            content_bytes: Bytes of the content, without the padding of the last symbol.
            mixing: The mixing of the payload, which the header records.
            key: The pool's id, 8 bytes.
        """
        ...


@runtime_checkable
class Writer(Protocol):
    """A way to write payloads, and to read them back."""

    def open(self, config: CodecConfig, motifs: Sequence[str] = (), progress: Progress | None = None) -> Station:
        """Settle the options.

        Args:
            config: The configuration, of which ``constraints`` and ``strands`` are the writer's.
            motifs: Forbidden words.
            progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

        Raises:
            HelixError: An option is out of range, or this writer does not have it.
        """
        ...

    def read(
        self, pool: Any, *, written: Written | None = None, key: bytes | None = None, progress: Progress | None = None
    ) -> Received:
        """Read a pool, or reads of it, as far as the outer code reaches.

        Args:
            pool: What came back, in the writer's own form.
            written: Motifs and primers that the pool was written with, where the caller states them.
            key: The pool's id. The bases writer picks it among the strands of several pools.
            progress: As for ``open``.

        Raises:
            DecodeError: No header can be read, or it is forged.
            HelixError: This writer does not have one of the options.
        """
        ...
