"""The commands `helix-jax pack` and `unpack`."""

import contextlib
import io
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, Scheme, problems, progress, show
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
    agreed: Annotated[options.Agreed, fields.Only(("key", "forbid", "library"))],
    as_json: Json = False,
) -> None:
    """Write any file as strands of DNA, from which `unpack` restores it bit for bit."""
    from helix_jax import packing

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        way = options.start(writer, context, reads=(file, agreed.library.primers), writes=(output,), strands=output)
        config = agreed.library.settled(config)
        content = stack.enter_context(files.opened(stack.enter_context(files.local(file))))
        assert isinstance(content, io.BufferedIOBase)  # ``local`` gives the path of a regular file
        draft = packing.pack_draft(
            content, config=config, writer=way.writer, motifs=agreed.forbid, key=agreed.key, progress=step
        )
        figures = way.save(output, draft)
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
    cut: options.Cut,
    reads: options.Reads = False,
    plot: options.Plot = None,
    report: options.RunReport = None,
    as_json: Json = False,
) -> None:
    """Read a packed file back from its strands or from a sequencer's reads of them.

    The bytes come back exactly or not at all (exit status 4). Pass the same
    forbidden words and primers as for packing; the comments of a FASTA file
    record them too.
    """
    from helix_jax import packing
    from helix_jax.cli import run_report

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        named = options.found(pool)
        inputs = (*named.paths, agreed.library.primers)
        way = options.start(writer, context, reads=inputs, writes=(output,), plot=plot, report=report)
        stated = agreed.arguments
        run = stack.enter_context(run_report.Run(report, step))
        source = stack.enter_context(
            way.opened(named.files, reads=reads, cut=cut, plot=plot, agreed=stated, step=run.step)
        )
        run.reads = source.reads
        parts, about_pool = packing.unpack_parts(source.pool, writer=way.writer, progress=run.step, **stated)
        about = source.figures(about_pool)
        size = 0
        with files.atomic(output) as temporary, open(temporary, "wb") as out:
            for part in parts:
                size += out.write(part)
        figures = run.done({"output": str(output), "bytes": size} | about, about_pool)
    show(figures, as_json)
