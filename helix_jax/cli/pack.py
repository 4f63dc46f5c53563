"""The commands `helix-jax pack` and `unpack`."""

import contextlib
import io
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, Scheme, problems, progress, show, warn
from helix_jax.cli.targets import Target
from helix_jax.config import COMPRESS, CodecConfig


@fields.expanded
def pack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to store, of any kind.")],
    output: options.PoolOut,
    *,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    config: Annotated[CodecConfig, fields.Only(("constraints", "note", "strands"))],
    compress: Annotated[
        bool,
        typer.Option(
            "--compress/--no-compress",
            help="Compress the file with zstd, where it takes fewer strands then. The reader needs zstd too.",
        ),
    ] = COMPRESS,
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
            content, config=config, writer=way.writer, motifs=agreed.forbid, key=agreed.key,
            name=None if files.is_standard(file) else file.name, compress=compress, progress=step,
        )  # fmt: skip
        figures = way.save(output, draft)
    show(figures, as_json)


@fields.expanded
def unpack(
    context: typer.Context,
    pool: options.ReadsIn,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|FOLDER/",
            help="The file to write, or a folder, in which the file gets the name that the pool knows.",
        ),
    ],
    *,
    writer: options.WriterKind = options.Writer.BASES,
    scheme: Scheme = "talk",
    agreed: options.Agreed,
    cut: options.Cut,
    taking: options.Taking,
    reads: options.Reads = False,
    plot: options.Plot = None,
    report: options.RunReport = None,
    as_json: Json = False,
) -> None:
    """Read a packed file back from its strands or from a sequencer's reads of them.

    The bytes come back exactly or not at all (exit status 4); where the pool has
    a note of the file, they are compared with its SHA-256 too. Pass the same
    forbidden words and primers as for packing; the comments of a FASTA file
    record them too.
    """
    from helix_jax import packing
    from helix_jax.cli import run_report
    from helix_jax.writer import OF_VIDEO

    target = Target(output)
    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        named = options.found(pool)
        inputs = (*named.paths, agreed.library.primers)
        way = options.start(writer, context, reads=inputs, writes=(target.file,), plot=plot, report=report)
        target.check()
        stated = agreed.arguments
        run = stack.enter_context(run_report.Run(report, step))
        source = stack.enter_context(
            way.opened(named.files, reads=reads, cut=cut, taking=taking, plot=plot, agreed=stated, step=run.step)
        )
        run.reads = source.reads
        unpacked = packing.unpack_parts(source.pool, writer=way.writer, progress=run.step, **stated)
        run.found = unpacked.report
        path, size = target.path(unpacked.note, others=(plot, report)), 0
        files.check_room(path, unpacked.size)
        about = {name: value for name, value in source.figures(unpacked.report).items() if name not in OF_VIDEO}
        with files.atomic(path) as temporary, open(temporary, "wb") as out:
            for part in unpacked.parts:
                size += out.write(part)
        known = {"note": unpacked.note.figures} if unpacked.note else {}
        figures = run.done({"output": str(path), "bytes": size} | known | about, unpacked.report)
    show(figures, as_json)
    if unpacked.lost_note:
        warn("the note of the file is lost past repair: its name and its SHA-256 are not known")
