"""The command `helix-jax primers`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from helix_jax import files
from helix_jax.cli import fields, options
from helix_jax.cli.console import Json, problems, progress, show, warn_of_files
from helix_jax.config import CodecConfig, PrimerRules
from helix_jax.errors import HelixError


@fields.expanded
def primers(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The CSV file to write: name, left, right, and facts about the primers."),
    ],
    *,
    count: Annotated[int, typer.Option(help="Number of pairs.")],
    seed: Annotated[int, typer.Option(help="Seed of the random numbers: the same seed gives the same library.")] = 0,
    away_from: Annotated[
        list[Path] | None,
        typer.Option(
            "--away-from",
            metavar="POOL",
            help="FASTA file of strands that no primer may be like. Repeat the option for several pools.",
        ),
    ] = None,
    rules: PrimerRules,
    config: Annotated[CodecConfig, fields.Only(("constraints",))],
    as_json: Json = False,
) -> None:
    """Design a library of primer pairs, of which each pool in a tube gets one.

    `left` and `right` are written before and after every strand; the primers to
    order for a PCR are `left` and `reverse_primer`. Give the file to `encode`,
    `encode-batch` and `pack` as --primers. A larger --count with the same seed and
    limits begins with the same pairs.
    """
    from helix_jax.strands import fasta, primer_design
    from helix_jax.tk_scone import constraints

    with problems(), progress(as_json) as step, contextlib.ExitStack() as stack:
        pools = away_from or []
        options.check_effect(context)
        files.check_paths(pools, (output,))
        files.check_suffix(output, (".csv",), "libraries are written as CSV")
        if count < 1:
            raise HelixError(f"--count {count}: give 1 or more")
        if seed < 0:
            raise HelixError(f"--seed {seed}: give 0 or more")
        strands = [stack.enter_context(fasta.opened(pool)) for pool in pools]
        library = primer_design.design(
            count,
            rules=rules,
            constraints=constraints.named(config.constraints),
            seed=seed,
            away_from=strands,
            progress=step,
        )
        primer_design.write(output, library.pairs)
        for opened in strands:
            warn_of_files(opened.source)
        figures = {
            "output": str(output),
            "pairs": count,
            "candidates": library.candidates,
            "rejected": library.rejected,
        }
    table = figures | {"rejected": ", ".join(f"{share:.1%} by {rule}" for rule, share in library.rejected.items())}
    show(figures if as_json else table, as_json)
