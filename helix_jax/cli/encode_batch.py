"""The command `helix-jax encode-batch`."""

from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import CHECK_FAILED, Json, problems, progress, show, warn
from helix_jax.config import CodecConfig, Preparation
from helix_jax.errors import HelixError

INTERRUPTED = 130


@fields.expanded
def encode_batch(
    context: typer.Context,
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEOS...", help="Video files, and folders that are searched for video files, with all subfolders."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the pools. The clip a/b.mp4 becomes a/b.mp4.fasta in it.")
    ],
    *,
    hosts: Annotated[
        int | None,
        typer.Option(
            help="Number of hosts that share the clips; pass the same VIDEOS on all of them. The default is the number "
            "from SLURM or Open MPI, and 1 without them."
        ),
    ] = None,
    host: Annotated[
        int | None, typer.Option(help="Number of this host, from 0. Pass it together with --hosts.")
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            help="Number of clips in work at the same time, so that some are read and written while others are "
            "computed. The default is one for each core, and 8 at most."
        ),
    ] = None,
    config: CodecConfig,
    weights: options.Weights,
    agreed: Annotated[options.Agreed, fields.Only(("forbid", "primers"))],
    prepare: Preparation,
    as_json: Json = False,
) -> None:
    """Write many videos as strands of DNA, each to a FASTA file of its own, on all devices of this host.

    Each file is what `encode` writes with the same options. If the command is
    run again, it skips the clips that are done: those whose FASTA file is
    present and complete, and was made from the same content with the same model
    and options, as a record beside it says (FILE.fasta.json). A clip that fails
    is named at the end and does not stop the others.

    With --primers each clip gets a pair of the library for itself, and keeps it
    when the command is run again, as the record says.

    Exit status: 0 all clips are done, 1 a clip failed, 2 wrong use, 130 stopped
    by Ctrl-C; what was done by then stays.
    """
    from helix_jax import batch
    from helix_jax.strands import library
    from helix_jax.video import not_kept

    with problems(), progress(as_json) as step:
        options.check_effect(context)
        files.check_paths(reads=(agreed.library.primers, *weights.paths), folders=(out,))
        number, count = _place(host, hosts)
        if at_once is not None and at_once < 1:
            raise HelixError(f"--at-once {at_once}: give 1 or more")
        found = batch.find_clips(videos)
        clips = batch.share(found, number, count)
        path = agreed.library.primers
        pairs = None if path is None else batch.pairs_of(found, out, library.read(path))
        task = batch.Task(out, weights.load(), weights.settled(config, context), agreed.forbid, prepare, pairs)
        summary = batch.run(clips, task, host=number, hosts=count, at_once=at_once, progress=step)
    for clip, reason in summary["failures"].items():
        warn(f"failed: {clip}: {reason}")
    for kind, count in summary["not_kept"].items():
        warn(f"{count} clips {not_kept.OF_MANY[kind]}")
    options.warn_of_primers(summary["near_primers"], summary["primed_strands"], remedy="")
    left_out = () if as_json else ("failures", "not_kept", "near_primers", "primed_strands", "settings")
    show({name: value for name, value in summary.items() if name not in left_out}, as_json)
    if summary["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    if summary["failed"]:
        raise typer.Exit(CHECK_FAILED)


def _place(host: int | None, hosts: int | None) -> tuple[int, int]:
    """Turn --host and --hosts into this host's number and the number of hosts."""
    from helix_jax import parallel

    if host is None and hosts is None:
        return parallel.place_told()
    if host is None or hosts is None:
        raise HelixError("--hosts and --host: give both, or neither")
    if not 0 <= host < hosts:
        raise HelixError(f"--host {host} of --hosts {hosts}: hosts are numbered from 0 to --hosts minus 1")
    return host, hosts
