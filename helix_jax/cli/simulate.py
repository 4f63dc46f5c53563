"""The command `helix-jax simulate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import options
from helix_jax.cli.console import Json, left_out_of, problems, progress, show
from helix_jax.errors import HelixError


def simulate(
    pool: options.PoolIn,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The FASTQ file of reads to write, compressed if its name ends in .gz."),
    ],
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The channel to simulate. clean: no errors. illumina: 0.3 % errors per base. nanopore: 5 % errors per "
            "base, fitted to real reads. enzymatic: deletions in the synthesis, read by nanopore. aged: illumina after "
            "a time in storage, with lost strands.",
        ),
    ] = "nanopore",
    coverage: Annotated[float, typer.Option(help="Number of reads of each strand, on average.")] = 10.0,
    seed: options.Seed = 0,
    as_json: Json = False,
) -> None:
    """Simulate synthesis, storage and sequencing of a pool: noisy reads with qualities, in random order.

    The reads do not say which strand they come from. A strand may get no read at
    all; such strands are counted as lost.
    """
    import jax
    import numpy as np

    from helix_jax.channel import model
    from helix_jax.channel import simulate as channels
    from helix_jax.reads import fastq
    from helix_jax.strands import fasta

    with problems(), progress(as_json) as step:
        files.check_paths((pool,), (output,))
        files.check_sequences(output, "FASTQ")
        channel = model.named(preset)
        if not 0 <= seed < 1 << 32:
            raise HelixError(f"--seed {seed}: give 0 to {(1 << 32) - 1}")
        if not 0 < coverage <= 1e6:
            raise HelixError(f"--coverage {coverage}: give more than 0, and at most 1e6 reads per strand")
        with fasta.opened(pool) as source:
            groups = fasta.together(source)
            left_out = left_out_of(source)
        strands = sum(map(len, groups.values()))
        key, parts = jax.random.key(seed), []
        for length, group in groups.items():
            parts.append(
                channels.reads_of(
                    channel, group, coverage, jax.random.fold_in(key, length),
                    progress=lambda done: step("reads", done, round(coverage * strands)),
                )
            )  # fmt: skip
        bases, lengths, qualities = _together(parts, jax.random.fold_in(key, 0))
        fastq.write(output, bases, lengths, qualities)
        reads, seen = len(lengths), sum(np.unique(part.origin[part.origin >= 0]).size for part in parts)
        figures = left_out | {
            "output": str(output),
            "preset": channel.name,
            "source": channel.source,
            "reads": reads,
            "strands": strands,
            "lost_strands": strands - seen,
            "mean_coverage": round(reads / strands, 4),
            "reversed": sum(int(part.reversed.sum()) for part in parts),
            "chimeras": sum(int((part.origin < 0).sum()) for part in parts),
        }
        for name in ("substitution", "insertion", "deletion"):
            figures[f"{name}_rate"] = round(getattr(channel.synthesis, name) + getattr(channel.sequencing, name), 6)
        figures["error_rate"] = round(channel.total, 6)
    show(figures, as_json)


def _together(parts: Sequence[Any], key: Any) -> tuple[Any, Any, Any]:
    """Join the reads of strands of several lengths into (bases, lengths, qualities), shuffled among one another."""
    import jax
    import numpy as np

    from helix_jax.channel.simulate import PAD

    if len(parts) == 1:
        return parts[0].bases, parts[0].lengths, parts[0].qualities
    longest = max(part.bases.shape[1] for part in parts)

    def stacked(name, fill):
        rows = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.pad(row, ((0, 0), (0, longest - row.shape[1])), constant_values=fill) for row in rows]
        )

    lengths = np.concatenate([part.lengths for part in parts])
    order = np.asarray(jax.random.permutation(key, len(lengths)))
    return stacked("bases", PAD)[order], lengths[order], stacked("qualities", 0)[order]
