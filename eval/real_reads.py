"""Compare real reads of DNA strands with simulated ones, and measure whether they can be decoded.

    python -m eval.real_reads FOLDER [--copies 1 2 3 4 6 8 10] [--out FOLDER]

FOLDER holds pairs of strand and read, `nanopore_*.tsv.gz` with the columns strand, read and quality (Phred+33), and
`nanopore_raw.fastq.gz`, untouched reads with primers. None of it is shipped.
  pairs     errors by kind, their spread over reads, how close they are to each other, and reads without errors: for the
            pairs, and for the shipped preset `nanopore`, which was fitted to them
  decode    the errors and qualities of real reads, put on strands of ours (`helix`, 150 nt): the share of strands that
            come back from n reads, by all that ``recover.recover`` does, and by the most likely strand alone
  pools     whole pools at Poisson coverage, with redundancy 0.1
  primers   the untouched reads in which both primers of the design are found, by direction
"""

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8
from rich.console import Console
from rich.table import Table

from eval import recovery
from helix_jax import codec, parallel
from helix_jax.channel import fit, model, simulate
from helix_jax.cli import console
from helix_jax.reads import fastq, orient, recover

STRANDS = 500
NEAR = 1, 2, 3, 5  # distances from an error to the next, in bases
BASE = np.full(256, 0, np.uint8)
BASE[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
# the sequences on both sides of the design's 140 nt: Illumina's Nextera adapters
LEFT, RIGHT = b"TCGTCGGCAGCGTCAGATGTGTATAAGAGACAG", b"CTGTCTCTTATACACATCTCCGAGCCCACGAGAC"
DESIGN = 140

Pair = tuple[UInt8[np.ndarray, " L"], UInt8[np.ndarray, " m"], UInt8[np.ndarray, " m"]]
Step = Callable[[str, int, int], None]


def pairs_of(folder: str | os.PathLike) -> list[Pair]:
    """Return (strand, read, quality) for each line of all files of pairs."""
    pairs = []
    for path in sorted(Path(folder).glob("nanopore_*.tsv.gz")):
        with gzip.open(path, "rt") as lines:
            columns = next(lines).rstrip("\n").split("\t")
            for line in lines:
                row = dict(zip(columns, line.rstrip("\n").split("\t"), strict=True))
                strand, read = (BASE[np.frombuffer(row[name].encode(), np.uint8)] for name in ("strand", "read"))
                pairs.append((strand, read, np.frombuffer(row["quality"].encode(), np.uint8) - 33))
    if not pairs:
        raise SystemExit(f"{folder}: no nanopore_*.tsv.gz; give the folder of real reads")
    return pairs


def compare(pairs: Sequence[Pair], seed: int = 0) -> dict[str, fit.Statistics]:
    """Return the statistics of the "real" pairs, and of as many "simulated" ones."""
    strands = np.stack([strand for strand, _, _ in pairs])
    channel = model.named("nanopore")
    reads = simulate.read_copies(channel, strands, np.full(len(strands), 4), jax.random.key(seed))
    turned = reads.reversed[:, None]
    bases = np.where(turned, orient.turned(reads.bases, reads.lengths), reads.bases)
    qualities = np.where(turned, orient.backwards(reads.qualities, reads.lengths), reads.qualities)
    rows = [
        (strands[o], b[:n], q[:n]) for o, b, q, n in zip(reads.origin, bases, qualities, reads.lengths, strict=True)
    ]
    return {name: fit.statistics(*zip(*those, strict=True)) for name, those in (("real", pairs), ("simulated", rows))}


def on_our_strands(
    pairs: Sequence[Pair], strands: UInt8[np.ndarray, "n L"], copies: int | Int[np.ndarray, " n"], seed: int
) -> tuple[UInt8[np.ndarray, "m R"], Int[np.ndarray, " m"], UInt8[np.ndarray, "m R"]]:
    """Return (bases, lengths, qualities) for ``recover.recover``: our strands with the errors of real reads.

    Args:
        pairs: the real pairs.
        strands: our strands.
        copies: number of reads of each strand.
        seed: seed of the random numbers.
    """
    generator = np.random.default_rng(seed)
    origin = generator.permutation(np.repeat(np.arange(len(strands)), copies))
    picks = generator.integers(0, len(pairs), len(origin))
    rows = []
    for pick, number in zip(picks.tolist(), origin.tolist(), strict=True):
        strand, read, quality = pairs[pick]
        rows.append(fit.transplant(strand, read, quality, strands[number]))
    lengths = np.array([len(bases) for bases, _ in rows], np.int32)
    bases = np.full((len(rows), lengths.max()), fastq.PAD, np.uint8)
    qualities = np.zeros_like(bases)
    for place, (row, quality) in enumerate(rows):
        bases[place, : len(row)], qualities[place, : len(row)] = row, quality
    turned = generator.random(len(rows)) < 0.5
    back = turned[:, None]
    bases = np.where(back, orient.turned(bases, lengths), bases)
    return bases, lengths, np.where(back, orient.backwards(qualities, lengths), qualities)


def decode(pairs: Sequence[Pair], copies: Sequence[int], step: Step) -> list[dict[str, Any]]:
    """Return [{"copies", "found", "at_once", "wrong"}], shares of the strands by the number of real reads of each.

    Header strands are read 20 times, as nothing can be checked without a header.

    Args:
        pairs: the real pairs.
        copies: the numbers of reads to measure.
        step: reports the progress.
    """
    _, pool = recovery.pool_of(32 * STRANDS, 0.0)
    header = np.arange(len(pool.strands)) < pool.header_strands
    written = {row.tobytes() for row in pool.strands[~header]}
    every = {row.tobytes() for row in pool.strands}
    results = []
    for number in copies:
        reads = on_our_strands(pairs, pool.strands, np.where(header, 20, number), number)
        strands, report = recover.recover([reads])
        rows = strands.bases
        results.append({
            "copies": number,
            "found": sum(row.tobytes() in written for row in rows) / STRANDS,
            "at_once": max(0, report.at_once - pool.header_strands) / STRANDS,
            "wrong": sum(row.tobytes() not in every for row in rows) / STRANDS,
        })  # fmt: skip
        step("decode", 1, len(copies))
    return results


def pools(
    pairs: Sequence[Pair], coverages: Sequence[float], redundancy: float, trials: int, step: Step
) -> list[dict[str, Any]]:
    """Return [{"coverage", "net", "returned", "trials"}] for whole pools with the errors of real reads.

    Args:
        pairs: the real pairs.
        coverages: means of the Poisson-distributed number of reads of a strand.
        redundancy: redundancy of the pools.
        trials: number of pools at each coverage.
        step: reports the progress.
    """
    data, pool = recovery.pool_of(32 * STRANDS, redundancy)
    net, results = codec.densities(pool.nucleotides, 1, 1, len(data))[1], []
    for coverage in coverages:
        returned = 0
        for seed in range(trials):
            copies = np.random.default_rng([seed, 1]).poisson(coverage, len(pool.strands))
            try:
                strands, _ = recover.recover([on_our_strands(pairs, pool.strands, copies, seed)])
                returned += recovery.comes_back(data, strands)
            except codec.DecodeError:
                pass
            step("pools", 1, len(coverages) * trials)
        results.append({"coverage": coverage, "net": net, "returned": returned, "trials": trials})
    return results


def primers(folder: str | os.PathLike) -> dict[str, int]:
    """Count "reads", and those "found" between their adapters, "turned" (reversed) and of the "right_length"."""
    counts = {"reads": 0, "found": 0, "turned": 0, "right_length": 0}
    for bases, lengths, _ in fastq.read(Path(folder) / "nanopore_raw.fastq.gz"):
        for row, length in zip(np.frombuffer(b"ACGTN", np.uint8)[np.minimum(bases, 4)], lengths, strict=True):
            place = orient.between(row[:length].tobytes(), LEFT, RIGHT)
            counts["reads"] += 1
            if place is None:
                continue
            begin, end, turned = place
            counts["found"] += 1
            counts["turned"] += turned
            counts["right_length"] += abs(end - begin - DESIGN) <= DESIGN // 20
    return counts


def show(out: Console, results: dict[str, Any]) -> None:
    """Print all results."""
    table = Table("", "real", "simulated", title="pairs beside the preset `nanopore`")
    for name in results["pairs"]["real"]:
        table.add_row(name, *(results["pairs"][which][name] for which in ("real", "simulated")))
    out.print(table)
    table = Table("reads of a strand", "strands found", "at once", "wrong", title="real errors on our strands")
    for row in results["decode"]:
        table.add_row(str(row["copies"]), f"{row['found']:.1%}", f"{row['at_once']:.1%}", f"{row['wrong']:.1%}")
    out.print(table)
    table = Table("coverage", "net bit/nt", "every bit back", title="pools, real errors, redundancy 0.1")
    for row in results["pools"]:
        table.add_row(f"{row['coverage']:g}", f"{row['net']:.3f}", f"{row['returned']} of {row['trials']}")
    out.print(table)
    counts = results["primers"]
    out.print(
        f"{counts['found']:,} of {counts['reads']:,} untouched reads have their adapters, {counts['turned']:,} of them "
        f"backwards; {counts['right_length']:,} have {DESIGN} nt between them, 5 % more or less"
    )


def in_words(seen: fit.Statistics) -> dict[str, str]:
    """Return statistics as text, by their names."""
    substitutions, insertions, deletions = seen.rates
    quantiles = np.atleast_1d(seen.quantiles((0.25, 0.5, 0.75, 0.9)))
    ends = np.atleast_1d(seen.quantiles((0.1, 0.95, 0.99)))
    return {
        "substitutions, insertions, deletions": f"{substitutions:.2%}, {insertions:.2%}, {deletions:.2%}",
        "errors of a read, quartiles and 90 %": ", ".join(f"{q:.1%}" for q in quantiles),
        "reads without an error": f"{seen.free:.1%}",
        "errors of a read, 10, 95 and 99 %": ", ".join(f"{q:.1%}" for q in ends),
        "spread (sigma of the log-normal)": f"{seen.spread:.2f}",
        "errors with the next within 1, 2, 3, 5 nt": ", ".join(f"{seen.followed(n):.1%}" for n in NEAR),
    }


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of real reads")
    parser.add_argument(
        "--copies", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 8, 10], help="reads of each strand in part decode"
    )
    parser.add_argument("--coverages", type=float, nargs="+", default=[4, 5, 6, 8, 10], help="coverages in part pools")
    parser.add_argument("--trials", type=int, default=3, help="number of pools at each coverage (default 3)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write real_reads.json into FOLDER")
    args = parser.parse_args()
    parallel.use_all_cores()
    pairs = pairs_of(args.folder)
    with console.progress(False) as step:
        results = {
            "pairs": {name: in_words(seen) for name, seen in compare(pairs).items()},
            "decode": decode(pairs, args.copies, step),
            "pools": pools(pairs, args.coverages, 0.1, args.trials, step),
            "primers": primers(args.folder),
        }
    show(Console(width=None if sys.stdout.isatty() else 120, highlight=False), results)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "real_reads.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
