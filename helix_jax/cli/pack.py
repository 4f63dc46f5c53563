"""The commands `helix-jax pack` and `unpack`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import Json, Scheme, left_out_of, problems, progress, show, strands_of
from helix_jax.cli.options import (
    Coverage,
    ExemptPrimers,
    Failure,
    Key,
    LeftPrimer,
    Length,
    Motif,
    Plot,
    PoolOut,
    ReadErrors,
    Reads,
    ReadsIn,
    Redundancy,
    RightPrimer,
    Set,
    Survive,
    Writer,
    WriterKind,
    codec_config,
    parse_key,
    start,
    warn_of_primers,
    written_options,
)


def pack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")],
    output: PoolOut,
    writer: WriterKind = Writer.BASES,
    scheme: Scheme = "talk",
    constraints: Set = "helix",
    strand_length: Length = 150,
    redundancy: Redundancy = None,
    survive: Survive = None,
    coverage: Coverage = 10.0,
    read_errors: ReadErrors = 0.04,
    failure: Failure = 1e-6,
    key: Key = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    exempt_primers: ExemptPrimers = False,
    as_json: Json = False,
):
    """Write any file as strands of DNA, bit for bit."""
    from helix_jax import packing
    from helix_jax.strands import fasta, inspection, primers

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        start(writer, context, reads=(file,), writes=(output,), strands=output)
        content = stack.enter_context(files.opened(stack.enter_context(files.local(file))))
        if writer is Writer.TIMING:
            from helix_jax.cli import timed_files

            figures = timed_files.pack(output, content.read(), scheme, progress=step)
        else:
            config = codec_config(
                constraints, strand_length, redundancy, left_primer, right_primer, exempt=exempt_primers,
                survive=survive, coverage=coverage, read_errors=read_errors, failure=failure,
            )  # fmt: skip
            pool = packing.pack_draft(content, config=config, motifs=tuple(forbid), key=parse_key(key), progress=step)
            watch = primers.Watch(pool.constraints)
            fasta.write_pool(output, pool, watch)
            warn_of_primers(watch.found)
            figures = inspection.figures(pool, output)
    show(figures, as_json)


def unpack(
    context: typer.Context,
    pool: ReadsIn,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    writer: WriterKind = Writer.BASES,
    scheme: Scheme = "talk",
    key: Key = None,
    reads: Reads = False,
    plot: Plot = None,
    forbid: Motif = [],  # noqa: B006
    left_primer: LeftPrimer = "",
    right_primer: RightPrimer = "",
    exempt_primers: ExemptPrimers = False,
    as_json: Json = False,
):
    """Read a packed file back from strands or reads. Bytes are returned exactly or not at all (exit status 4)."""
    from helix_jax import packing
    from helix_jax.cli import reads_figure

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        start(writer, context, reads=(pool,), writes=(output, plot), plot=plot)
        if writer is Writer.TIMING:
            from helix_jax.cli import timed_files

            copies, left_out = timed_files.read(pool)
            data, found = timed_files.unpack(copies, scheme, progress=step)
            parts, report = [data], left_out | dataclasses.asdict(found)
        else:
            chosen = written_options(forbid, left_primer, right_primer, exempt_primers, key) | {"progress": step}
            strands, about_reads = stack.enter_context(strands_of(pool, reads=reads, plot=plot, **chosen))
            parts, found = packing.unpack_parts(strands, **chosen)
            report = left_out_of(strands) | reads_figure.merged(found, about_reads, plot)
        size = 0
        with files.atomic(output) as temporary, open(temporary, "wb") as out:
            for part in parts:
                size += out.write(part)
    show({"output": str(output), "bytes": size} | report, as_json)
