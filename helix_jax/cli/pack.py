"""The commands `helix-jax pack` and `unpack`."""

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, Scheme, left_out_of, problems, progress, show, strands_of
from helix_jax.config import CodecConfig


@fields.expanded
def pack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to store, of any kind.")],
    output: options.PoolOut,
    *,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    config: Annotated[CodecConfig, fields.Only(("constraints", "strands"))],
    agreed: Annotated[options.Agreed, fields.Only(("key", "forbid"))],
    as_json: Json = False,
) -> None:
    """Write any file as strands of DNA, from which `unpack` restores it bit for bit."""
    from helix_jax import packing
    from helix_jax.strands import fasta, inspection, primers

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        options.start(writer, context, reads=(file,), writes=(output,), strands=output)
        content = stack.enter_context(files.opened(stack.enter_context(files.local(file))))
        if writer is options.Writer.TIMING:
            from helix_jax.cli import timed_files

            figures = timed_files.pack(output, content.read(), scheme, progress=step)
        else:
            assert isinstance(content, io.BufferedIOBase)  # ``local`` gives the path of a regular file
            pool = packing.pack_draft(content, config=config, motifs=agreed.forbid, key=agreed.key, progress=step)
            watch = primers.Watch(pool.constraints)
            fasta.write_pool(output, pool, watch)
            options.warn_of_primers(watch.found)
            figures = inspection.figures(pool, output)
    show(figures, as_json)


@fields.expanded
def unpack(
    context: typer.Context,
    pool: options.ReadsIn,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    *,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    agreed: options.Agreed,
    reads: options.Reads = False,
    plot: options.Plot = None,
    as_json: Json = False,
) -> None:
    """Read a packed file back from its strands or from a sequencer's reads of them.

    The bytes come back exactly or not at all (exit status 4). Pass the same
    forbidden words and primers as for packing; the comments of a FASTA file
    record them too.
    """
    from helix_jax import packing
    from helix_jax.cli import reads_figure

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        options.start(writer, context, reads=(pool,), writes=(output, plot), plot=plot)
        if writer is options.Writer.TIMING:
            from helix_jax.cli import timed_files

            copies, left_out = timed_files.read(pool)
            data, pool_report = timed_files.unpack(copies, scheme, progress=step)
            parts, report = [data], left_out | dataclasses.asdict(pool_report)
        else:
            chosen = agreed.arguments | {"progress": step}
            strands, about_reads = stack.enter_context(strands_of(pool, reads=reads, plot=plot, **chosen))
            parts, pool_report = packing.unpack_parts(strands, **chosen)
            report = left_out_of(strands) | reads_figure.merged(pool_report, about_reads, plot)
        size = 0
        with files.atomic(output) as temporary, open(temporary, "wb") as out:
            for part in parts:
                size += out.write(part)
    show({"output": str(output), "bytes": size} | report, as_json)
