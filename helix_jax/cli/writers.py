"""The files of the two writers: FASTA of strands or of reads, and the schedules of `--writer timing`."""

import contextlib
import dataclasses
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from helix_jax.cli import reads_figure
from helix_jax.cli.console import files_of, left_out_of, warn, warn_of_files
from helix_jax.cli.options import Cut, Taking, warn_of_primers
from helix_jax.errors import DecodeError, HelixError

if typing.TYPE_CHECKING:  # imports JAX, for which the refusals of options do not wait
    from helix_jax.strands.layouts import PacketLayout
    from helix_jax.writer import Writer

Step = Callable[[str, int, int | None], None]
Paths = Sequence[str | os.PathLike | tuple[str | os.PathLike, str | os.PathLike]]


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

    def size(self, station: Any, layout: "PacketLayout") -> dict[str, int]:
        """Return what a pool takes before it is written: strands, nucleotides and, of the timing writer, time units.

        Args:
            station: what will write it (``writer.Writer.open``).
            layout: its layout.
        """
        ...

    def opened(
        self,
        paths: Paths,
        *,
        reads: bool,
        cut: Cut,
        taking: Taking,
        plot: Path | None,
        agreed: dict[str, Any],
        step: Step,
    ) -> contextlib.AbstractContextManager[Source]:
        """Open the files of what came back.

        Args:
            paths: the files, as ``records.opened`` takes them.
            reads: value of --reads.
            cut: values of --adapter and --umi.
            taking: how many reads are taken, and who works on them.
            plot: value of --plot.
            agreed: keyword arguments of ``codec.decode`` that the caller stated.
            step: called as step(station, done, total).
        """
        ...


# ---- bases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fasta:
    """FASTA and FASTQ files of the writer of bases."""

    foreign = ("scheme", "units_per_second")

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
        warn_of_primers(watch.near_strands, dict.fromkeys(watch.near_strands, made.count))
        figures = inspection.figures(made, output)
        return figures | ({"nt_per_pixel": round(made.nucleotides / pixels, 5)} if pixels else {})

    def size(self, station: Any, layout: "PacketLayout") -> dict[str, int]:
        """Return the strands and the nucleotides of a pool (``Files.size``)."""
        nucleotides, ends = station.cost(layout), station.coder.constraints
        length = station.coder.length + len(ends.left) + len(ends.right)
        return {"strands": nucleotides // length, "nucleotides": nucleotides}

    @contextlib.contextmanager
    def opened(
        self,
        paths: Paths,
        *,
        reads: bool,
        cut: Cut,
        taking: Taking,
        plot: Path | None,
        agreed: dict[str, Any],
        step: Step,
    ) -> Iterator[Source]:
        """Open strands, or recover them from reads (``Files.opened``).

        Raises:
            HelixError: A plot is requested for a file of strands.
            DecodeError: The reads give no strands.
        """
        from helix_jax.reads import inserts
        from helix_jax.strands import fasta, records

        with _opened(paths, again=not reads) as source:
            if not reads and source.kind == records.BOTH:
                raise HelixError(
                    f"{source.name}: some of the files hold strands (FASTA) and some hold reads; add --reads to "
                    "treat all as reads, or give one kind only"
                )
            if not reads and source.kind != records.READS:
                if plot:
                    raise HelixError(
                        f"--plot {plot}: {source.name} holds strands, and only reads make a picture; add --reads"
                    )
                cut.check_strands(source.name)
                if taking != Taking():
                    raise HelixError(
                        f"--max-reads, --workers and --scheduler are for reads, and {source.name} holds strands; add "
                        "--reads if they are reads"
                    )
                yield Source(fasta.Strands(source), lambda report: _of_strands(source, report))
                return
            reads_of = inserts.Inserts(source, cut.trim(agreed["primers"]))
            limits: dict[str, Any] = {"max_reads": taking.max_reads}
            with contextlib.ExitStack() as stack:
                if taking.workers or taking.scheduler:
                    from helix_jax.reads import spread

                    limits["hands"] = stack.enter_context(spread.started(taking.workers, taking.scheduler))
                    for warning in limits["hands"].warnings:
                        warn(warning)
                recovered, about_reads = _recovered(reads_of, agreed | limits, step)
            about_files = files_of(source) | reads_of.figures
            if taking.max_reads is None and _have_ends(paths):
                about_reads = dataclasses.replace(about_reads, reads_left=reads_of.left(about_reads.reads))
            yield Source(
                recovered, lambda report: about_files | reads_figure.merged(report, about_reads, plot), about_reads
            )


def _of_strands(source: Any, report: Any) -> dict[str, Any]:
    """Return the figures of strands, and warn where they are of another pool than the options say."""
    if not report.as_stated:
        warn(
            f"{source.name}: no pool has the motifs and primers that are given; this one has others, as its comments "
            "say"
        )
    return files_of(source) | left_out_of(source) | reads_figure.merged(report)


@contextlib.contextmanager
def _opened(paths: Paths, again: bool = False) -> Iterator[Any]:
    """Open the files of what came back (``records.opened``); at the end, warn of what could not be read."""
    from helix_jax.strands import records

    with records.opened(paths, again) as source:
        try:
            yield source
        finally:
            warn_of_files(source)


def _have_ends(paths: Paths) -> bool:
    """Return whether all inputs are files; the end of a stream may be far away, and need not be waited for."""
    return all(os.path.isfile(path) for some in paths for path in (some if isinstance(some, tuple) else (some,)))


def _recovered(source: Any, agreed: dict[str, Any], step: Step) -> tuple[Any, Any]:
    """Recover strands from reads; the error of pairs says which could not be merged."""
    from helix_jax.reads import fastq, recover

    try:
        return recover.recover(fastq.chunks(source), left_out=source.left_out, progress=step, **agreed)
    except DecodeError as error:
        if source.apart <= source.merged + source.joined:
            raise
        raise DecodeError(
            f"{error}; {source.apart:,} pairs of reads do not overlap: if the strands are longer than the two reads "
            "of a pair together, they have to be sequenced with longer reads",
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
        "right_primer", "exempt_primers", "primers", "pair", "screen", "reads", "max_reads", "workers", "scheduler",
        "plot", "report", "nt_per_second",
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

    def size(self, station: Any, layout: "PacketLayout") -> dict[str, int]:
        """Return the strands of a pool, their letters, and the time that they take at most (``Files.size``)."""
        from helix_jax.timing import arrangement

        strands = arrangement.count(self.writer.scheme, layout)
        letters = strands * self.writer.scheme.frame.rounds
        return {"strands": strands, "nucleotides": letters, "time_units": station.cost(layout)}

    @contextlib.contextmanager
    def opened(
        self,
        paths: Paths,
        *,
        reads: bool,
        cut: Cut,
        taking: Taking,
        plot: Path | None,
        agreed: dict[str, Any],
        step: Step,
    ) -> Iterator[Source]:
        """Read the bases of all reads into memory (``Files.opened``).

        Its files hold reads in any case, and there is neither a picture nor a page of them: ``reads``, those
        of ``taking``, ``plot`` and ``report`` are ``foreign``.

        Raises:
            RecordsError: The file holds no reads.
        """
        copies, about_files = _read(paths, cut)
        yield Source(copies, lambda report: about_files | dataclasses.asdict(report))


def _read(paths: Paths, cut: Cut) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Read files of reads: a uint8 array of bases 0..3 for each, and figures of the files and of those left out."""
    from helix_jax.reads import fastq, inserts
    from helix_jax.strands import records

    copies = []
    with _opened(paths) as source:
        reads = inserts.Inserts(source, cut.trim())
        for bases, lengths, _ in fastq.chunks(reads):
            rows = [row[:length] for row, length in zip(bases, lengths, strict=True)]
            whole = [row for row in rows if row.max() < records.UNKNOWN]
            if len(whole) < len(rows):
                source.left_out[records.LETTERS] += len(rows) - len(whole)
            copies += whole
        if not copies:
            raise records.RecordsError(f"{source.name} holds no reads: {source.reasons() or 'it is empty'}")
        return copies, files_of(source) | reads.figures | left_out_of(source)


def timing(scheme: str) -> Files:
    """Return the files of the timing writer. ``scheme`` is the name of a scheme, or a JSON file."""
    from helix_jax.timing import pool
    from helix_jax.timing import scheme as schemes

    return Schedules(pool.Timing(schemes.named(scheme)))
