"""The commands `helix-jax inspect` and `capacity`: what a pool holds, and what a constraint set allows."""

import json
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import (
    CHECK_FAILED,
    Json,
    files_of,
    left_out_of,
    problems,
    progress,
    show,
    show_rows,
    warn_of_files,
)
from helix_jax.config import CodecConfig, StrandConfig

HISTOGRAMS = {
    "runs": "longest run of a strand",
    "gc": "GC share of a strand",
    "hairpins": "longest hairpin stem",
    "dimers": "longest self-dimer",
    "repeats": "longest repeat",
}


@fields.expanded
def inspect(
    context: typer.Context,
    pool: options.PoolIn,
    *,
    constraints: Annotated[
        str | None,
        typer.Option(
            "--constraints",
            help="The set of constraints to check the strands against. The default is the set that the pool's header "
            "names.",
        ),
    ] = None,
    agreed: options.Agreed,
    config: Annotated[StrandConfig, fields.Only(("stem",))],
    as_json: Json = False,
) -> None:
    """Check every strand of a pool with an independent checker, and compare its densities with the capacity.

    It also shows what vendors look at: hairpins, self-dimers and repeats of all
    strands, words that strands share, folding energies of a few strands, and how
    the primers melt. With --screen, strands with longer stems are counted. The
    exit status is 1 if a strand breaks a constraint, or the screen.
    """
    from helix_jax.strands import fasta, inspection

    with problems(), progress(as_json) as step:
        options.check_effect(context, ("key", "constraints"))
        named = options.found(pool)
        files.check_paths((*named.paths, agreed.library.primers))
        with fasta.opened(named.files) as strands:
            report = inspection.inspect(strands, name=constraints, stem=config.stem, progress=step, **agreed.arguments)
            report = files_of(strands.source) | left_out_of(strands.source) | report
            warn_of_files(strands.source)
    if as_json:
        print(json.dumps(report))
    else:
        _inspection_tables(report)
    if report["violations"] or report.get("strands_over_screen"):
        raise typer.Exit(CHECK_FAILED)


@fields.expanded
def capacity(
    context: typer.Context,
    *,
    config: Annotated[CodecConfig, fields.Only(("constraints", "length", *options.PRIMERS))],
    agreed: Annotated[options.Agreed, fields.Only(("forbid",))],
    as_json: Json = False,
) -> None:
    """Show the capacity of a constraint set, its exact limit at a strand length, and what the coder achieves there.

    All three are in bits per nucleotide: `capacity` for strands of unlimited
    length, `limit` = log2(number of valid strands) / length, and `carried` = K /
    length, where K is the number of bits that the coder writes into a strand.
    """
    from helix_jax.tk_scone import capacity as rates
    from helix_jax.tk_scone import constraints as sets
    from helix_jax.tk_scone import tables

    with problems():
        options.check_effect(context)
        strands = config.strands
        chosen = sets.custom(
            sets.named(config.constraints), motifs=agreed.forbid, left=strands.left_primer, right=strands.right_primer,
            primers_exempt=strands.primers_exempt,
        )  # fmt: skip
        table = tables.load(chosen, strands.length)
        limit = rates.limit(chosen, strands.length)
        figures = {
            "constraints": chosen.describe(),
            "length": strands.length,
            "capacity": round(rates.load(chosen), 6),
            "limit": round(limit / strands.length, 6),
            "carried": round(table.bits / strands.length, 6),
            "bits_per_strand": table.bits,
            "share_of_limit": round(table.bits / limit, 6),
        }
    show(figures, as_json)


def _inspection_tables(report: dict) -> None:
    shown = {name: value for name, value in report.items() if not isinstance(value, (dict, list))}
    show(shown | {name: report[name] for name in ("needs", "note", "sections") if name in report}, as_json=False)
    if report.get("folding_kcal_per_mol"):
        values = ", ".join(map(str, report["folding_kcal_per_mol"]))
        show({f"kcal/mol with which {len(report['folding_kcal_per_mol'])} strands fold": values}, as_json=False)
    for name, title in HISTOGRAMS.items():
        top = max(report[name].values(), default=1)
        rows = [(str(value), str(count), "#" * round(40 * count / top)) for value, count in report[name].items()]
        show_rows(title, ("", "strands", ""), rows)
    for example in report["examples"]:
        print(example)
