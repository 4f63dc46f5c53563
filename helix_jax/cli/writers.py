"""The files of the two writers: FASTA of strands or of reads, and the schedules of `--writer timing`."""

import contextlib
import dataclasses
import os
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from helix_jax.cli.console import left_out_of
from helix_jax.cli.options import warn_of_primers
from helix_jax.errors import DecodeError, HelixError

if typing.TYPE_CHECKING:  # imports JAX, for which the refusals of options do not wait
    from helix_jax.writer import Writer

Step = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Source:
    """What came back of a pool, ready for ``codec.decode`` or ``packing.unpack``.

    Attributes:
        pool: The strands or reads.
        figures: Turns the report of the decoder into the figures to show.
        reads: What became of the reads, a ``ReadReport``; None where the file holds strands, and with timing.
    """

    pool: Any
    figures: Callable[[Any], dict[str, Any]]
    reads: Any = None


class Files(Protocol):
    """How a writer's pools are kept in files."""

    @property
    def writer(self) -> "Writer":
        """The writer."""
        ...

    @property
    def foreign(self) -> tuple[str, ...]:
        """The parameters of commands that mean nothing to this writer, whatever their value."""
        ...

    def save(self, output: Path, made: Any, pixels: int = 0) -> dict[str, Any]:
        """Write a pool or a draft of one to a file, and return the figures to show.

        Args:
            output: the file.
            made: the pool.
            pixels: of the clip, over all frames; 0 for bytes.
        """
        ...

    def opened(
        self, path: Path, *, reads: bool, plot: Path | None, agreed: dict[str, Any], step: Step
    ) -> contextlib.AbstractContextManager[Source]:
        """Open a file of what came back.

        Args:
            path: the file, or ``-`` for standard input.
            reads: value of --reads.
            plot: value of --plot.
            agreed: keyword arguments of ``codec.decode`` that the caller stated.
            step: called as step(station, done, total).
        """
        ...


# ---- bases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fasta:
    """FASTA and FASTQ files of the writer of bases."""

    foreign = ("scheme",)

    @property
    def writer(self) -> "Writer":
        """The writer of bases."""
        from helix_jax.packing import BASES

        return BASES

    def save(self, output: Path, made: Any, pixels: int = 0) -> dict[str, Any]:
        """Write strands, and warn of primers that nearly occur in them (``Files.save``)."""
        from helix_jax.strands import fasta, inspection, primers

        watch = primers.Watch(made.constraints)
        fasta.write_pool(output, made, watch)
        warn_of_primers(watch.near_strands)
        figures = inspection.figures(made, output)
        return figures | ({"nt_per_pixel": round(made.nucleotides / pixels, 5)} if pixels else {})

    @contextlib.contextmanager
    def opened(
        self, path: Path, *, reads: bool, plot: Path | None, agreed: dict[str, Any], step: Step
    ) -> Iterator[Source]:
        """Open strands, or recover them from reads (``Files.opened``).

        Raises:
            HelixError: A plot is requested for a file of strands.
            DecodeError: The reads give no strands.
        """
        from helix_jax.cli import reads_figure
        from helix_jax.strands import fasta, records

        with records.opened(path, again=not reads) as source:
            if not reads and source.kind != "fastq":
                if plot:
                    raise HelixError(
                        f"--plot {plot}: {source.name} holds strands, and only reads make a picture; add --reads"
                    )
                strands = fasta.Strands(source)
                yield Source(strands, lambda report: left_out_of(strands) | dataclasses.asdict(report))
                return
            recovered, about_reads = _recovered(source, agreed, step)
            yield Source(recovered, lambda report: reads_figure.merged(report, about_reads, plot), about_reads)


def _recovered(source: Any, agreed: dict[str, Any], step: Step) -> tuple[Any, Any]:
    """Recover strands from reads; the error of paired reads says how to merge them."""
    from helix_jax.reads import fastq, recover

    try:
        return recover.recover(fastq.chunks(source), left_out=source.left_out, progress=step, **agreed)
    except DecodeError as error:
        if not source.second or "merge" in str(error):
            raise
        raise DecodeError(
            f"{error}; {source.second:,} of them are the second read of a pair by name: merge the two reads of "
            "each pair first, for example with fastp --merge or bbmerge",
            error.report,
        ) from error


# ---- timing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedules:
    """Schedule files of the timing writer, and FASTA or FASTQ files of its reads.

    Attributes:
        writer: The writer, a ``timing.pool.Timing``.
    """

    writer: Any
    foreign = (
        "constraints", "strand_length", "survive", "coverage", "read_errors", "failure", "forbid", "left_primer",
        "right_primer", "exempt_primers", "primers", "pair", "screen", "reads", "plot", "report",
    )  # fmt: skip

    def save(self, output: Path, made: Any, pixels: int = 0) -> dict[str, Any]:
        """Write a schedule (``Files.save``)."""
        from helix_jax.strands import inspection
        from helix_jax.timing import capacity, schedule

        pool, scheme = made.written(), self.writer.scheme
        schedule.write(output, pool.schedule)
        figures = {
            "output": str(output),
            "scheme": scheme.name,
            "strands": pool.count,
            "rounds_per_strand": pool.schedule.letters.shape[1],
            "time_units": round(pool.time, 6),
            "content_bytes": pool.header.content_bytes,
            "net_bits_per_time_unit": round(8 * pool.header.content_bytes / pool.time, 4),
            "capacity": round(capacity.capacity(scheme.table, overhead=scheme.overhead), 4),
            "key": pool.header.key.hex(),
        } | inspection.contents(pool.header, pool.layout)
        return figures | ({"time_units_per_pixel": round(pool.time / pixels, 5)} if pixels else {})

    @contextlib.contextmanager
    def opened(
        self, path: Path, *, reads: bool, plot: Path | None, agreed: dict[str, Any], step: Step
    ) -> Iterator[Source]:
        """Read the bases of all reads into memory (``Files.opened``).

        Its files hold reads in any case, and there is neither a picture nor a page of them: ``reads``, ``plot`` and
        ``report`` are ``foreign``.

        Raises:
            RecordsError: The file holds no reads.
        """
        copies, left_out = _read(path)
        yield Source(copies, lambda report: left_out | dataclasses.asdict(report))


def _read(path: str | os.PathLike) -> tuple[list[np.ndarray], dict[str, dict[str, int]]]:
    """Read a FASTA or FASTQ file of reads: a uint8 array of bases 0..3 for each, and a figure of those left out."""
    from helix_jax.reads import fastq
    from helix_jax.strands import records

    copies = []
    with records.opened(path) as source:
        for bases, lengths, _ in fastq.chunks(source):
            rows = [row[:length] for row, length in zip(bases, lengths, strict=True)]
            whole = [row for row in rows if row.max() < records.UNKNOWN]
            if len(whole) < len(rows):
                source.left_out[records.LETTERS] += len(rows) - len(whole)
            copies += whole
        if not copies:
            raise records.RecordsError(f"{source.name} holds no reads: {source.reasons() or 'it is empty'}")
    return copies, {"left_out": dict(source.left_out)} if source.left_out else {}


def timing(scheme: str) -> Files:
    """Return the files of the timing writer. ``scheme`` is the name of a scheme, or a JSON file."""
    from helix_jax.timing import pool
    from helix_jax.timing import scheme as schemes

    return Schedules(pool.Timing(schemes.named(scheme)))
