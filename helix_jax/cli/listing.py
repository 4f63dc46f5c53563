"""The command `helix-jax list`: every pool of a mixture."""

import json
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import (
    Json,
    files_of,
    left_out_of,
    problems,
    progress,
    show,
    show_rows,
    warn,
    warn_of_files,
)


@fields.expanded
def list_pools(
    context: typer.Context,
    pool: options.ReadsIn,
    *,
    agreed: Annotated[options.Agreed, fields.Only(("forbid", "strands", "library"))],
    cut: options.Cut,
    reads: options.Reads = False,
    as_json: Json = False,
) -> None:
    """List every pool in files of strands or reads: its id, what it holds, its primers, and whether it can be decoded.

    Strands of several pools may be mixed, and have primers of their own if the
    comments of the files tell them. Of reads, the pools with one pair of primers,
    one length of strands and one constraint set are listed; the primers have to be
    given unless there are none. The strands of each are counted among those that it
    numbers; of a pool made with --screen, some of these were never written.
    """
    from helix_jax.reads import fastq, inserts, mixture
    from helix_jax.strands import fasta, records
    from helix_jax.strands.written import Written

    with problems(), progress(as_json) as step:
        options.check_effect(context)
        named = options.found(pool)
        files.check_paths((*named.paths, agreed.library.primers))
        stated = {name: value for name, value in agreed.arguments.items() if name != "key"}
        with records.opened(named.files, again=not reads) as source:
            if reads or source.kind in (records.READS, records.BOTH):
                reads_of = inserts.Inserts(source, cut.trim(stated["primers"]))
                found, count, rest = mixture.of_reads(list(fastq.chunks(reads_of)), progress=step, **stated)
                about: dict[str, Any] = {"reads": count, "reads_of_no_pool": rest}
            else:
                cut.check_strands(source.name)
                written = Written.given(**stated)
                found, rest = mixture.of_strands(fasta.Strands(source), written, step)
                about = {"strands_of_no_pool": rest}
            about |= files_of(source) | left_out_of(source)
            warn_of_files(source)
    pools = [member.figures for member in found]
    if rest:
        what = "reads" if "reads" in about else "strands"
        others = "" if what == "strands" else ", or with another strand length or constraint set"
        warn(
            f"{rest:,} {what} belong to no pool that is found: they are damaged, or of a pool with other primers or "
            f"motifs, which --left-primer, --right-primer and --forbid state{others}"
        )
    if as_json:
        print(json.dumps({"pools": pools} | about))
        return
    columns = ("key", "kind", "holds", "name", "primers", "strands", "decodable")
    show_rows("pools", columns, [_row(figures) for figures in pools], whole=("key", "strands", "decodable"))
    show(about, as_json=False)
    if any(one["decodable"] == mixture.WHOLE and one["strands"] < one["strands_numbered"] for one in pools):
        print(
            "strands: those that are there, of those that a pool numbers; of a pool made with --screen, some of these "
            "were never written, and are no loss"
        )


def _row(figures: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a pool."""
    if "size" in figures:
        holds = f"{figures['size']:,} bytes"
    else:
        holds = f"{figures['width']}x{figures['height']}, {figures['frames']} frames"
    primers = "/".join((figures["left_primer"] or "-", figures["right_primer"] or "-"))
    strands = f"{figures['strands']:,} of {figures['strands_numbered']:,}"
    return figures["key"], figures["kind"], holds, figures["name"], primers, strands, figures["decodable"]
