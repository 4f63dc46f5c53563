"""The commands `helix-jax inspect` and `capacity`: what a pool holds, and what a constraint set allows."""

import json
from typing import Annotated

import typer

from helix_jax.cli import options
from helix_jax.cli.console import CHECK_FAILED, Json, left_out_of, problems, progress, show, show_rows


def inspect(
    context: typer.Context,
    pool: options.PoolIn,
    constraints: Annotated[
        str | None,
        typer.Option(
            "--constraints",
            help="The set of constraints to check the strands against. The default is the set that the pool's header "
            "names.",
        ),
    ] = None,
    key: options.Key = None,
    forbid: options.Motif = [],  # noqa: B006
    left_primer: options.LeftPrimer = "",
    right_primer: options.RightPrimer = "",
    exempt_primers: options.ExemptPrimers = False,
    as_json: Json = False,
) -> None:
    """Check every strand of a pool with an independent checker, and compare its densities with the capacity.

    The exit status is 1 if a strand breaks a constraint.
    """
    from helix_jax.strands import fasta, inspection

    with problems(), progress(as_json) as step:
        options.check_effect(context, ("key", "constraints"))
        chosen = options.written_options(forbid, left_primer, right_primer, exempt_primers, key)
        with fasta.opened(pool) as strands:
            report = inspection.inspect(strands, name=constraints, progress=step, **chosen)
            report = left_out_of(strands) | report
    if as_json:
        print(json.dumps(report))
    else:
        _inspection_tables(report)
    if report["violations"]:
        raise typer.Exit(CHECK_FAILED)


def capacity(
    context: typer.Context,
    constraints: options.Set = "helix",
    strand_length: options.Length = 150,
    forbid: options.Motif = [],  # noqa: B006
    left_primer: options.LeftPrimer = "",
    right_primer: options.RightPrimer = "",
    exempt_primers: options.ExemptPrimers = False,
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
        chosen = sets.custom(
            sets.named(constraints), motifs=tuple(forbid), left=left_primer, right=right_primer,
            primers_exempt=exempt_primers,
        )  # fmt: skip
        table = tables.load(chosen, strand_length)
        limit = rates.limit(chosen, strand_length)
        figures = {
            "constraints": chosen.describe(),
            "length": strand_length,
            "capacity": round(rates.load(chosen), 6),
            "limit": round(limit / strand_length, 6),
            "carried": round(table.bits / strand_length, 6),
            "bits_per_strand": table.bits,
            "share_of_limit": round(table.bits / limit, 6),
        }
    show(figures, as_json)


def _inspection_tables(report: dict) -> None:
    show({name: value for name, value in report.items() if not isinstance(value, (dict, list))}, as_json=False)
    for name, title in (("runs", "longest run of a strand"), ("gc", "GC share of a strand")):
        top = max(report[name].values(), default=1)
        rows = [(str(value), str(count), "#" * round(40 * count / top)) for value, count in report[name].items()]
        show_rows(title, ("", "strands", ""), rows)
    for example in report["examples"]:
        print(example)
