"""The command `helix-jax simulate`."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from helix_jax import files
from helix_jax.cli import options
from helix_jax.cli.console import Json, files_of, left_out_of, problems, progress, show, warn_of_files
from helix_jax.errors import HelixError

BAM = ".bam"


def simulate(
    pool: options.PoolIn,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The FASTQ file of reads to write, compressed if its name ends in .gz, or an unaligned BAM file if it "
            "ends in .bam.",
        ),
    ],
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="The channel to simulate. clean: no errors. illumina: 0.3 % errors per base. nanopore: 5 % errors per "
            "base, fitted to real reads. enzymatic: deletions in the synthesis, read by nanopore. aged: illumina after "
            "a time in storage, with lost strands. Or a JSON or TOML file with a channel of your own "
            "(docs/recovery.md has the format).",
        ),
    ] = "nanopore",
    coverage: Annotated[float, typer.Option(help="Number of reads of each strand, on average.")] = 10.0,
    substitutions: Annotated[
        float | None,
        typer.Option(metavar="P", help="Substitutions per base, 0 to 0.5, in place of the preset's rate."),
    ] = None,
    insertions: Annotated[
        float | None, typer.Option(metavar="P", help="Insertions per base, 0 to 0.5, in place of the preset's rate.")
    ] = None,
    deletions: Annotated[
        float | None, typer.Option(metavar="P", help="Deletions per base, 0 to 0.5, in place of the preset's rate.")
    ] = None,
    paired: Annotated[
        int | None,
        typer.Option(
            metavar="CYCLES",
            help="Read each molecule from both ends, with that many bases at most. For -o reads.fastq.gz the files are "
            "reads_R1.fastq.gz and reads_R2.fastq.gz; a BAM file holds both reads of each pair.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: Json = False,
) -> None:
    """Simulate synthesis, storage and sequencing of a pool: noisy reads with qualities, in random order.

    The reads do not say which strand they come from. A strand may get no read at
    all; such strands are counted as lost. Other error rates keep all else of the
    preset, as where along the strand its errors are.
    """
    import jax
    import numpy as np

    from helix_jax.channel import preset as channels
    from helix_jax.channel.simulate import pairs_of, reads_of
    from helix_jax.strands import fasta

    rates = {"substitutions": substitutions, "insertions": insertions, "deletions": deletions}
    with problems(), progress(as_json) as step:
        outputs, named = _outputs(output, paired), options.found(pool)
        files.check_paths((*named.paths, preset if Path(preset).is_file() else None), outputs)
        if not 0 <= seed < 1 << 32:
            raise HelixError(f"--seed {seed}: give 0 to {(1 << 32) - 1}")
        if not 0 < coverage <= 1e6:
            raise HelixError(f"--coverage {coverage}: give more than 0, and at most 1e6 reads per strand")
        for name, rate in rates.items():
            if rate is not None and not 0 <= rate <= channels.MOST:
                raise HelixError(f"--{name} {rate}: give 0 to {channels.MOST:g} errors per base")
        channel = channels.with_rates(
            channels.named(preset), substitution=substitutions, insertion=insertions, deletion=deletions
        )
        with fasta.opened(named.files) as strands_in:
            groups = fasta.together(strands_in)
            left_out = files_of(strands_in.source) | left_out_of(strands_in.source)
            warn_of_files(strands_in.source)
        strands = sum(map(len, groups.values()))
        expected = round(coverage * strands) * (2 if paired else 1)
        key, parts = jax.random.key(seed), []
        for length, group in groups.items():
            own, at = jax.random.fold_in(key, length), lambda done: step("reads", done, expected)
            if paired:
                parts.append(pairs_of(channel, group, coverage, paired, own, progress=at))
            else:
                parts.append((reads_of(channel, group, coverage, own, progress=at),))
        order = _order(sum(len(mates[0].lengths) for mates in parts), jax.random.fold_in(key, 0), len(parts))
        _written(outputs, [_together(mates, order) for mates in zip(*parts, strict=True)])
        first = [mates[0] for mates in parts]
        molecules, seen = len(order), sum(np.unique(part.origin[part.origin >= 0]).size for part in first)
        figures = left_out | dict(zip(("output", "output_2"), map(str, outputs), strict=False))
        figures |= {
            "preset": channel.name,
            "source": channel.source,
            "reads": molecules * (2 if paired else 1),
            "strands": strands,
            "lost_strands": strands - seen,
            "mean_coverage": round(molecules / strands, 4),
            "reversed": sum(int(part.reversed.sum()) for part in first),
            "chimeras": sum(int((part.origin < 0).sum()) for part in first),
        }
        for name in channels.RATES:
            figures[f"{name}_rate"] = round(getattr(channel.synthesis, name) + getattr(channel.sequencing, name), 6)
        figures["error_rate"] = round(channel.total, 6)
    show(figures, as_json)


def _outputs(output: Path, cycles: int | None) -> list[Path]:
    """Return the files to write: one, or two where pairs become FASTQ. Raises HelixError for options that do not fit.

    They are ``name_R1.fastq.gz`` and ``name_R2.fastq.gz`` for ``name.fastq.gz``, as sequencers name them.
    """
    if cycles is not None and cycles < 1:
        raise HelixError(f"--paired {cycles}: give the bases of a read, at least 1")
    if output.suffix.lower() == BAM:
        return [output]
    files.check_sequences(output, "FASTQ")
    if cycles is None:
        return [output]
    if files.is_standard(output):
        raise HelixError("--paired writes two FASTQ files, and standard output is one: give a file with -o, or a .bam")
    ends = output.suffixes[-2:] if output.suffix.lower() == ".gz" else output.suffixes[-1:]
    stem = output.name.removesuffix("".join(ends))
    return [output.with_name(f"{stem}_R{number}{''.join(ends)}") for number in (1, 2)]


def _written(outputs: Sequence[Path], mates: Sequence[tuple[Any, Any, Any]]) -> None:
    """Write reads or pairs to one file or to two, all or nothing."""
    from helix_jax.reads import fastq, unaligned

    names = [f"read_{number:07d}" for number in range(len(mates[0][1]))]
    if outputs[0].suffix.lower() == BAM:
        unaligned.write(outputs[0], mates, names)
    elif len(mates) == 1:
        fastq.write(outputs[0], *mates[0], names)
    else:
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(files.atomic(path)) for path in outputs]
            for number, (path, reads) in enumerate(zip(paths, mates, strict=True), start=1):
                fastq.write(path, *reads, [f"{name} {number}:N:0:1" for name in names])


def _order(reads: int, key: Any, lengths: int) -> Any:
    """Return the order in which reads are written: reads of several lengths are shuffled among one another."""
    import jax
    import numpy as np

    return np.arange(reads) if lengths == 1 else np.asarray(jax.random.permutation(key, reads))


def _together(parts: Sequence[Any], order: Any) -> tuple[Any, Any, Any]:
    """Join the reads of strands of several lengths into (bases, lengths, qualities), in that order."""
    import numpy as np

    from helix_jax.channel.simulate import PAD

    if len(parts) == 1:
        return parts[0].bases, parts[0].lengths, parts[0].qualities
    longest = max(part.bases.shape[1] for part in parts)

    def stacked(name, fill):
        rows = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.pad(row, ((0, 0), (0, longest - row.shape[1])), constant_values=fill) for row in rows]
        )[order]

    return stacked("bases", PAD), np.concatenate([part.lengths for part in parts])[order], stacked("qualities", 0)
