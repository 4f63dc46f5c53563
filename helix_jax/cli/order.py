"""The command `helix-jax order`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli.console import Json, problems, show, warn


def order(
    pools: Annotated[
        list[Path],
        typer.Argument(
            metavar="POOLS...", help="FASTA files of strands, as `encode` and `pack` write them. - is standard input."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The table to write: .xlsx or .csv, whichever the vendor takes.")
    ],
    *,
    vendor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose columns and limits count: plain (no limits), twist, idt, agilent, genscript, or one that "
            "--vendors adds.",
        ),
    ] = "plain",
    vendors: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Further vendors or newer limits, in the form of vendors.toml."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the strands of one or more pools as the table that a vendor of oligo pools takes.

    The vendor's limits on length and number are checked first; nothing is
    written if a strand breaks one. The names tell which pool a strand is of. An
    order is read wherever a pool is read: `decode order.xlsx`.
    """
    from helix_jax.ordering import sheet
    from helix_jax.ordering import vendors as known
    from helix_jax.strands import fasta

    with problems(), contextlib.ExitStack() as stack:
        files.check_paths((*pools, vendors), (output,))
        chosen = known.named(vendor, vendors)
        files.check_suffix(output, chosen.files, f"{chosen.title} is sent {' or '.join(chosen.files)}")
        opened = [("pool" if files.is_standard(path) else path.name.partition(".")[0], path) for path in pools]
        ordered = sheet.gathered([(name, stack.enter_context(fasta.opened(path))) for name, path in opened], chosen)
        lost = sheet.write(output, ordered, chosen)
        figures = {
            "output": str(output),
            "vendor": chosen.title,
            "strands": sum(pool.count for pool in ordered),
            "nucleotides": sum(pool.count * pool.length for pool in ordered),
            "pools": {pool.label: pool.count for pool in ordered},
            "left_out": {pool.label: sum(pool.strands.left_out.values()) for pool in ordered if pool.strands.left_out},
            "limits": chosen.limits_read if chosen.limited else "none",
        }
    show(figures, as_json)
    for label, number in figures["left_out"].items():
        warn(f"{label}: {number:,} records are no strands, and are not ordered")
    for label, written in lost.items():
        warn(
            f"{label}: this table has no room for{written.comment()}; keep the pool's FASTA file, or order as .xlsx, "
            "whose second sheet keeps it"
        )
    if many := chosen.many(figures["strands"]):
        warn(f"{chosen.title}: the order has {figures['strands']:,} strands {many}: ask the vendor, or order in parts")
    if chosen.unverified:
        warn(f"{chosen.title}: {chosen.unverified}")
