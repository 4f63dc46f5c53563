"""Several files in one tube: does each come back from reads of all of them, by its pair of primers alone?

    python -m eval.tube [--files 2 4 8] [--bytes 2000] [--coverage 10] [--preset nanopore] [--constraints helix]

For each number of files a library of as many pairs is designed, and so many files of random bytes are packed, each with
a pair of its own. The reads of all strands are simulated together, in both directions and random order, and every file
is unpacked from all of them with nothing known but its pair.

The table has one line for each number of files. "recovered" is the share of the files that came back bit for bit;
"kept" the share of a file's own reads that its primers were found in, and "wrong" the reads of other files that were
taken for its own, as a share of those (means over the files). "seconds" is the time to read one file back.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from helix_jax import codec, parallel
from helix_jax.channel import model as channels
from helix_jax.channel import simulate
from helix_jax.cli import console
from helix_jax.config import CodecConfig, PrimerRules, StrandConfig
from helix_jax.reads import recover, trimming
from helix_jax.strands import primer_design
from helix_jax.tk_scone import constraints


@dataclass(frozen=True)
class Tube:
    """What came back of one tube.

    Attributes:
        files: Files in the tube, with a pair of primers each.
        strands: Strands of all files.
        reads: Reads of all strands.
        coverage: Mean number of reads of a strand.
        recovered: Share of the files that came back bit for bit.
        kept: Share of a file's own reads that were taken for its own, as a mean over the files.
        wrong: Reads of other files that were taken for a file's own, as a share of all those, as a mean over the files.
        seconds: Time to read one file back, as a mean over the files.
    """

    files: int
    strands: int
    reads: int
    coverage: float
    recovered: float
    kept: float
    wrong: float
    seconds: float


def measure(
    files: int,
    size: int,
    *,
    constraint_set: str,
    length: int,
    preset: str,
    coverage: float,
    seed: int,
    step: Any = None,
) -> Tube:
    """Write a tube of files, read it, and unpack each file by its pair.

    Args:
        files: The number of files.
        size: Bytes of each.
        constraint_set: The set of the strands.
        length: Nucleotides of a strand without its primers.
        preset: The channel.
        coverage: Reads of each strand, on average.
        seed: Of contents, library and reads.
        step: Called as step("files", 1, files).
    """
    library = primer_design.design(
        files, rules=PrimerRules(), constraints=constraints.named(constraint_set), seed=seed
    ).pairs
    draw = np.random.default_rng(seed)
    contents = [draw.bytes(size) for _ in library]
    pools = []
    for pair, content in zip(library, contents, strict=True):
        strands = StrandConfig(length=length, left_primer=pair.left, right_primer=pair.right)
        pools.append(codec.pack(content, config=CodecConfig(constraints=constraint_set, strands=strands)).strands)
    owner = np.repeat(np.arange(files), [len(pool) for pool in pools])
    reads = simulate.reads_of(channels.named(preset), np.concatenate(pools), coverage, jax.random.key(seed))
    of_file = np.where(reads.origin >= 0, owner[reads.origin], -1)
    chunks = [(reads.bases, reads.lengths, reads.qualities)]
    back, kept, wrong, seconds = [], [], [], []
    for number, (pair, content) in enumerate(zip(library, contents, strict=True)):
        primers = (pair.left, pair.right)
        own = np.zeros(len(reads.lengths), bool)
        own[trimming.cut(chunks, primers, None)[0].read] = True
        kept.append(own[of_file == number].mean())
        foreign = (of_file >= 0) & (of_file != number)  # some reads are of no strand at all
        wrong.append(own[foreign].mean() if foreign.any() else 0.0)
        begin = time.perf_counter()
        try:
            strands, _ = recover.recover(chunks, primers=primers)
            back.append(codec.unpack(strands, primers=primers)[0] == content)
        except codec.DecodeError:
            back.append(False)
        seconds.append(time.perf_counter() - begin)
        if step:
            step("files", 1, files)
    means = [float(np.mean(values)) for values in (back, kept, wrong, seconds)]
    return Tube(files, len(owner), len(reads.lengths), round(len(reads.lengths) / len(owner), 2), *means)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Files read back from one tube by their primers.")
    parser.add_argument("--files", type=int, nargs="+", default=[2, 4, 8], help="numbers of files in a tube")
    parser.add_argument("--bytes", type=int, default=2000, help="bytes of each file")
    parser.add_argument("--constraints", default="helix", help="constraint set of the strands")
    parser.add_argument("--length", type=int, default=StrandConfig.length, help="nucleotides of a strand")
    parser.add_argument("--preset", default="nanopore", help="channel, as for helix-jax simulate")
    parser.add_argument("--coverage", type=float, default=10, help="reads of each strand, on average")
    parser.add_argument("--seed", type=int, default=0, help="seed of files, primers and reads")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    options = parser.parse_args()
    parallel.use_all_cores()
    rows = []
    for files in options.files:
        with console.progress(False) as step:
            tube = measure(
                files, options.bytes, constraint_set=options.constraints, length=options.length, preset=options.preset,
                coverage=options.coverage, seed=options.seed, step=step,
            )  # fmt: skip
        rows.append(tube)
    table = Table("files", "strands", "reads", "coverage", "recovered", "kept", "wrong", "seconds")
    for row in rows:
        table.add_row(
            str(row.files), f"{row.strands:,}", f"{row.reads:,}", f"{row.coverage:.1f}", f"{row.recovered:.0%}",
            f"{row.kept:.1%}", f"{row.wrong:.2%}", f"{row.seconds:.1f}",
        )  # fmt: skip
    Console().print(table)
    if options.json:
        with open(options.json, "w") as out:
            json.dump([asdict(row) for row in rows], out, indent=2)


if __name__ == "__main__":
    main()
