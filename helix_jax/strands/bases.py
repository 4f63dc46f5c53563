"""The writer of strands of letters under constraints: the first of the library's two writers (``helix_jax.writer``)."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helix_jax.config import CodecConfig, MixingConfig, StrandConfig
from helix_jax.errors import HelixError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, pool, received, screening
from helix_jax.strands.header_search import AnyStrands, as_written
from helix_jax.strands.strand_coder import Constrained, StrandCoder
from helix_jax.strands.written import Written
from helix_jax.tk_scone import constraints, tables
from helix_jax.writer import Progress, Received, Rows, Share


@dataclass(frozen=True, eq=False)
class Station:
    """The bases writer with its tables at hand.

    Attributes:
        coder: What writes the words as bases.
        strands: How packets become strands.
        over: Share of the strands, as an upper estimate, that exceed ``strands.stem``.
        progress: Called as progress(station, done, total), or None.
    """

    coder: StrandCoder
    strands: StrandConfig
    over: float = 0.0
    progress: Progress | None = None
    unit = "nucleotides"

    def plan(self, size: int, mode: str, multiple: int = 1, sections: Sequence[Share] = ()) -> layouts.PacketLayout:
        """Put as many payload bytes as possible into each strand. Raises HelixError where the payload is too large."""
        own = self.strands.redundancy_of(mode)
        shares = [(size, own if redundancy is None else redundancy) for size, redundancy in sections]
        numbered = None if self.strands.stem is None else functools.partial(screening.spare, self.over)
        return layouts.plan(self.coder.bits, size, own, multiple, shares, numbered)

    def cost(self, layout: layouts.PacketLayout) -> int:
        """Return the nucleotides of all strands, header strands and primers included."""
        whole = self.coder.length + len(self.coder.constraints.left) + len(self.coder.constraints.right)
        return (layout.written + headers.header_strands(self.coder.bits, layout.header_bytes)) * whole

    def draft(
        self,
        rows: Rows,
        fields: Mapping[str, Any],
        layout: layouts.PacketLayout,
        *,
        content_bytes: int,
        mixing: MixingConfig,
        key: bytes,
    ) -> pool.Draft:
        """Make a payload ready for writing (``writer.Station.draft``)."""
        return pool.draft(
            self.coder, rows, fields, layout,
            content_bytes=content_bytes, mixing=mixing, key=key, stem=self.strands.stem, progress=self.progress,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bases:
    """Strands of A, C, G and T: outer code, packets with an index and a check, and a coder that makes words bases.

    Attributes:
        coder: What makes words bases. None stands for TK-SCONE with the set, the length, the motifs and the primers of
            the configuration; when reading, the header says which.
    """

    coder: StrandCoder | None = None

    def open(self, config: CodecConfig, motifs: Sequence[str] = (), progress: Progress | None = None) -> Station:
        """Settle the options, and load or build the tables, which takes seconds where there are motifs or primers.

        Args:
            config: The configuration.
            motifs: Forbidden words.
            progress: Called as progress(station, done, total), or None.

        Raises:
            HelixError: The set is unknown or cannot be met, too many strands would exceed the longest stem, or
                ``coder`` leaves no room for an option.
        """
        if self.coder is not None:
            plain = StrandConfig(redundancy=config.strands.redundancy, stem=config.strands.stem)
            if motifs or config.strands != plain or config.constraints != CodecConfig.constraints:
                raise HelixError(
                    f"coder {self.coder.name} settles the length of the strands and their constraints: leave out the "
                    "constraint set, length, primers and motifs"
                )
            return _station(self.coder, config.strands, progress)
        if progress:
            progress("tables", 0, 1)
        strands = config.strands
        written = Written(tuple(motifs), strands.left_primer, strands.right_primer, strands.primers_exempt)
        chosen = as_written(constraints.named(config.constraints), written)
        table = tables.load(chosen, strands.length)
        if progress:
            progress("tables", 1, 1)
        return _station(Constrained(chosen, table), strands, progress)

    def read(
        self,
        pool: AnyStrands | received.Decoded,
        *,
        written: Written | None = None,
        key: bytes | None = None,
        progress: Progress | None = None,
    ) -> Received:
        """Read strands (``received.read_pool``)."""
        if self.coder is not None and written is None:
            chosen = self.coder.constraints
            written = Written(chosen.motifs, chosen.left, chosen.right, chosen.primers_exempt)
        return received.read_pool(pool, written=written, key=key, coder=self.coder, progress=progress)


def _station(coder: StrandCoder, strands: StrandConfig, progress: Progress | None) -> Station:
    """Return the station; the share of strands that exceed is estimated where a screen is asked for."""
    over = 0.0 if strands.stem is None else screening.expected(coder, strands.stem)
    return Station(coder, strands, over, progress)
