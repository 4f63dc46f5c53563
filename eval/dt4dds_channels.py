"""Pools through the channels of `dt4dds` (Gimpel et al. 2023): photolithographic synthesis, and decay by breakage.

    python -m eval.dt4dds_channels [--program PATH/dt4dds-scenario] [--redundancy 0.3] [--halflives 2] [--depth 50]

`dt4dds` is GPL, and so a program of its own here: install it in another environment (`pip install dt4dds`) and name its
`dt4dds-scenario`. It writes paired reads; the first ones are read, with the sequencing adapter cut off their ends.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from eval import recovery
from helix_jax import codec, parallel
from helix_jax.reads import fastq, orient, recover

ADAPTER = b"GATCGGAAGAGCACACGTCT"  # what the scenarios ligate to the end of a strand
LEAST = 4  # bases of the adapter that are taken for it at the very end of a read


def scenarios(args):
    """{name: arguments of dt4dds-scenario after the two files}."""
    depth = ["-d", str(args.depth)]
    return {
        "photolithographic-synthesis": ["-c", "200", *depth],
        "breakage-aging": ["-c", "20", *depth, "-t", str(args.halflives)],
    }


def without_adapter(bases, lengths):
    """Lengths int32[n] of reads uint8[n, W] up to the adapter."""
    letters, found = np.frombuffer(b"ACGTN", np.uint8)[np.minimum(bases, fastq.UNKNOWN)], lengths.copy()
    for number, (row, length) in enumerate(zip(letters, lengths, strict=True)):
        text = row[:length].tobytes()
        place = orient.find(ADAPTER, text)[1]
        if place is None:
            ends = (size for size in range(len(ADAPTER) - 1, LEAST - 1, -1) if text.endswith(ADAPTER[:size]))
            place = (length - next(ends, 0), length)
        found[number] = place[0]
    return found


def run(program, name, arguments, data, pool):
    """One scenario: (strands found, every bit came back, recover.ReadReport or None)."""
    with tempfile.TemporaryDirectory() as folder:
        design = Path(folder) / "design.txt"
        letters = np.frombuffer(b"ACGT", np.uint8)[pool.strands]
        design.write_text("".join(f"{row.tobytes().decode()}\n" for row in letters))
        command = [program, name, str(design), folder, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        chunks = [
            (bases, without_adapter(bases, lengths), qualities)
            for bases, lengths, qualities in fastq.read(Path(folder) / "R1.fq.gz")
        ]
    try:
        strands, report = recover.recover(chunks)
    except codec.DecodeError:
        return 0, False, None
    written = {row.tobytes() for row in pool.strands}
    right = sum(row.tobytes() in written for row in strands[pool.strands.shape[1]])
    return right, recovery.comes_back(data, strands), report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="dt4dds-scenario", help="default: the one on the path")
    parser.add_argument("--bytes", type=int, default=20_000, help="of the pool (default 20,000)")
    parser.add_argument("--redundancy", type=float, default=0.3)
    parser.add_argument("--depth", type=float, default=50, help="reads per strand (default 50)")
    parser.add_argument("--halflives", type=float, default=2, help="of decay (default 2)")
    args = parser.parse_args()
    if not shutil.which(args.program):
        sys.exit(f"{args.program}: no such program; `pip install dt4dds` in another environment and name it here")
    parallel.use_all_cores()
    data, pool = recovery.pool_of(args.bytes, args.redundancy)
    net = codec.densities(pool.nucleotides, 1, 1, len(data))[1]
    table = Table("scenario", "strands found", "every bit back", "errors of the reads", title=f"net {net:.3f} bit/nt")
    for name, arguments in scenarios(args).items():
        found, back, report = run(args.program, name, arguments, data, pool)
        kinds = (report.substitutions, report.insertions, report.deletions) if report else ()
        errors = ", ".join(f"{share:.2%}" for share in kinds)
        table.add_row(name, f"{found} of {len(pool.strands)}", str(back), errors)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)


if __name__ == "__main__":
    main()
