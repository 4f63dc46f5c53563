"""Send pools through the channels of `dt4dds` (Gimpel et al. 2023): photolithographic synthesis, decay by breakage.

    python -m eval.dt4dds_channels [--program PATH/dt4dds-scenario] [--redundancy 0.3] [--halflives 2] [--depth 50]

`dt4dds` is GPL, and therefore run as a separate program here: install it in another environment (`pip install dt4dds`)
and pass its `dt4dds-scenario`. It writes paired reads, of which the first ones are used, with the sequencing adapter
removed from their ends.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from rich.console import Console
from rich.table import Table

from eval import recovery
from helix_jax import codec, parallel
from helix_jax.reads import fastq, orient, recover

ADAPTER = b"GATCGGAAGAGCACACGTCT"  # what the scenarios ligate to the end of a strand
LEAST = 4  # least number of its first bases that are recognised as the adapter at the very end of a read


def scenarios(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the arguments of dt4dds-scenario after the two files, by the name of the scenario."""
    depth = ["-d", str(args.depth)]
    return {
        "photolithographic-synthesis": ["-c", "200", *depth],
        "breakage-aging": ["-c", "20", *depth, "-t", str(args.halflives)],
    }


def without_adapter(bases: UInt8[np.ndarray, "n W"], lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the lengths of reads up to the adapter."""
    letters, ends = np.frombuffer(b"ACGTN", np.uint8)[np.minimum(bases, fastq.UNKNOWN)], lengths.copy()
    for number, (row, length) in enumerate(zip(letters, lengths, strict=True)):
        text = row[:length].tobytes()
        place = orient.find(ADAPTER, text)[1]
        if place is None:
            sizes = (size for size in range(len(ADAPTER) - 1, LEAST - 1, -1) if text.endswith(ADAPTER[:size]))
            place = (length - next(sizes, 0), length)
        ends[number] = place[0]
    return ends


def run(
    program: str, name: str, arguments: Sequence[str], data: bytes, pool: codec.Pool
) -> tuple[int, bool, recover.ReadReport | None]:
    """Run one scenario.

    Args:
        program: the program dt4dds-scenario.
        name: name of the scenario.
        arguments: its arguments after the two files.
        data: the content of the pool.
        pool: the pool.

    Returns:
        The number of strands that were recovered, whether every bit came back, and the report of the reads, or None if
        they could not be decoded.
    """
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
    right = sum(row.tobytes() in written for row in strands.bases)
    return right, recovery.comes_back(data, strands), report


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--program", default="dt4dds-scenario", help="path of dt4dds-scenario (default: the one on the path)"
    )
    parser.add_argument("--bytes", type=int, default=20_000, help="content of the pool in bytes (default 20,000)")
    parser.add_argument("--redundancy", type=float, default=0.3)
    parser.add_argument("--depth", type=float, default=50, help="reads per strand (default 50)")
    parser.add_argument("--halflives", type=float, default=2, help="half-lives of decay (default 2)")
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
