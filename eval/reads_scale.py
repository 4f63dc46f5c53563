"""Measure time and memory of recovering a pool from a sequencer's reads, by their number.

    python -m eval.reads_scale [--reads 10000 100000 1000000 10000000] [--strands 100000] [--out FILE]

The pools are packed bytes in `helix`, 150 nt, without primers, so that each read is taken in both directions; they have
a tenth of the number of reads in strands, and at most ``--strands``. The reads are those of the preset illumina, in
portions with errors of their own; they are written to a FASTQ file in a temporary folder, 300 bytes a read. There are
two ways, each measured in a process of its own:
  stop  every strand is read, and reading stops when every block can be solved
  all   a fifth of the strands is never read, more than the redundancy of a tenth can repair: all reads are taken, and
        all that can be done for the missing strands is done
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from eval.recovery import comes_back, pool_of
from eval.throughput import peak_memory
from helix_jax import parallel
from helix_jax.channel import model as channels
from helix_jax.channel import simulate
from helix_jax.cli import console
from helix_jax.reads import fastq, recover

PORTION = 1 << 17  # reads that are simulated at once
MISSING = 0.2  # share of the strands that are never read, where all reads are to be taken
WAYS = ("stop", "all")


def write_reads(
    path: Path, strands: np.ndarray, count: int, lost: np.ndarray, progress: Callable[[int], None] | None = None
) -> None:
    """Write reads of the preset illumina to a FASTQ file, in random order.

    Args:
        path: the file.
        strands: uint8[n, L], the strands of the pool.
        count: number of reads.
        lost: bool[n], the strands that are never read.
        progress: called with the number of reads that are newly written.
    """
    channel, kept = channels.named("illumina"), np.flatnonzero(~lost)
    with open(path, "wb") as out, tempfile.TemporaryDirectory() as folder:
        for begin in range(0, count, PORTION):
            size = min(PORTION, count - begin)
            copies = np.zeros(len(strands), np.int64)
            copies[kept] = np.random.default_rng(begin).multinomial(size, np.full(len(kept), 1 / len(kept)))
            reads = simulate.read_copies(channel, strands, copies, jax.random.key(begin))
            part = Path(folder) / "part.fastq"
            names = [f"read_{begin + i}" for i in range(len(reads.lengths))]
            fastq.write(part, reads.bases, reads.lengths, reads.qualities, names)
            out.write(part.read_bytes())
            if progress:
                progress(len(reads.lengths))


def measure(path: Path, size: int) -> dict[str, Any]:
    """Recover the pool of ``size`` bytes from the reads of a FASTQ file.

    Returns {"taken", "strands_found", "seconds", "cpu_seconds", "memory_bytes", "whole"}; the seconds include
    compilation and the repair by the outer code.
    """
    data = np.random.default_rng(0).bytes(size)
    begin, work = time.perf_counter(), time.process_time()
    strands, report = recover.recover(fastq.read(path))
    whole = comes_back(data, strands)
    return {
        "taken": report.reads, "strands_found": len(strands),
        "seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - work,
        "memory_bytes": peak_memory(), "whole": whole,
    }  # fmt: skip


def rows(args: argparse.Namespace, step: Callable[[str, int, int | None], None]) -> list[dict[str, Any]]:
    """Return the results of ``measure`` for each number of reads and each way, with {"reads", "strands", "way"}."""
    results = []
    for count in args.reads:
        size = round(29 * min(count / 10, args.strands) / 1.1)
        _, pool = pool_of(size, 0.1)
        for way in args.ways:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                path, lost = Path(folder) / "reads.fastq", np.zeros(len(pool.strands), bool)
                if way == "all":
                    rest = lost[pool.header_strands :]
                    rest[:] = np.random.default_rng(1).random(len(rest)) < MISSING
                write_reads(path, pool.strands, count, lost, lambda done, count=count: step("simulated", done, None))
                command = [sys.executable, "-m", "eval.reads_scale", "--one", str(path), str(size)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append({"reads": count, "strands": len(pool.strands), "way": way} | json.loads(done.stdout))
            step("measured", 1, len(args.reads) * len(args.ways))
            if args.out:
                args.out.write_text(json.dumps(results, indent=2))
    return results


def show(out: Console, results: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("reads", "strands", "way", "taken", "found", "seconds", "of a core", "memory, GB", "whole")
    for row in results:
        table.add_row(
            f"{row['reads']:,}", f"{row['strands']:,}", row["way"], f"{row['taken']:,}",
            f"{row['strands_found']:,}", f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}",
            f"{row['memory_bytes'] / 1e9:.2f}", "yes" if row["whole"] else "no",
        )  # fmt: skip
    out.print(table)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7], help="numbers of reads")
    parser.add_argument("--strands", type=int, default=100_000, help="strands of a pool at most (default 100,000)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="measure only these ways")
    parser.add_argument("--folder", type=Path, help="folder for the reads, by default that of temporary files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to FILE as JSON")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "BYTES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    parallel.use_all_cores()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), int(args.one[1]))))
        return
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    with console.progress(False) as step:
        results = rows(args, step)
    show(out, results)


if __name__ == "__main__":
    main()
