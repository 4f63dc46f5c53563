"""Density of every named set, compared with its exact limit, its capacity, and published figures.

    python -m eval.density [--json FILE]

K is the number of bits that the coder carries in each strand, including index and check. The limit is log2 N(L), where
``eval.count``, which shares no code with the coder, counts N(L) in exact integers. The capacity is for long strands. No
K may exceed its limit; the program fails if one does.
"""

import argparse
import dataclasses
import json
import math
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from eval import count
from helix_jax.tk_scone import tables
from helix_jax.tk_scone.capacity import capacity
from helix_jax.tk_scone.constraints import NAMED

LENGTHS = [150, 200]

PUBLISHED = [
    {
        "name": "HELIX (arXiv 2604.13667)",
        "bits_per_nt": 1.91,
        "note": "abstract; constraint set, strand length and overhead not stated",
    },
    {
        "name": "SCONE, as printed by its README",
        "bits_per_nt": 1.864,
        "note": "window 20, 45-55 %, runs <= 3: above that capacity of 1.798; bits that describe a strand",
    },
    {
        "name": "SCONE, payload it truly carries",
        "bits_per_nt": 1.703,
        "note": "same set, measured: random payload through its coder, strands of 1000 nt",
    },
    {
        "name": "window of 50, 40-60 %, runs <= 3",
        "bits_per_nt": 1.9698,
        "note": "capacity of the rule itself (particle estimate), which `wide` meets by a stronger, cheaper rule",
    },
]


@dataclass(frozen=True)
class Density:
    """The density of one set at one length.

    Attributes:
        set: name of the set.
        rules: the set in words.
        length: nucleotides of a strand.
        bits: K, the bits of a strand.
        gross_bits_per_nt: K / length.
        limit_bits: log2 N(L), in bits per strand.
        limit_bits_per_nt: the same per nucleotide.
        share_of_limit: K as a share of it.
        capacity: capacity of the set, in bits per nucleotide.
    """

    set: str
    rules: str
    length: int
    bits: int
    gross_bits_per_nt: float
    limit_bits: float
    limit_bits_per_nt: float
    share_of_limit: float
    capacity: float


def measure() -> list[Density]:
    """Return the density of each named set at each length."""
    rows = []
    for name, constraints in NAMED.items():
        asymptotic, rules = capacity(constraints), constraints.describe()
        for length, number in count.strands(constraints, LENGTHS).items():
            bits, limit = tables.load(constraints, length).bits, math.log2(number)
            shares = bits / length, limit, limit / length, bits / limit
            rows.append(Density(name, rules, length, bits, *shares, asymptotic))
    return rows


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Bits per nucleotide of each constraint set, and its limits.")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    options = parser.parse_args()
    rows = measure()
    table = Table("set", "L", "K", "K/L", "log2 N(L)", "log2 N(L)/L", "K / limit", "capacity")
    for row in rows:
        table.add_row(
            row.set, str(row.length), str(row.bits), f"{row.gross_bits_per_nt:.4f}", f"{row.limit_bits:.2f}",
            f"{row.limit_bits_per_nt:.4f}", f"{row.share_of_limit:.2%}", f"{row.capacity:.4f}",
        )  # fmt: skip
    published = Table("published", "bit/nt", "what it is")
    for row in PUBLISHED:
        published.add_row(str(row["name"]), str(row["bits_per_nt"]), str(row["note"]))
    console = Console()
    console.print(table)
    for constraints in NAMED.values():
        console.print(constraints.describe(), highlight=False)
    console.print(published)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"sets": [dataclasses.asdict(row) for row in rows], "published": PUBLISHED}, out, indent=2)
    above = [row for row in rows if row.share_of_limit > 1]
    if above:
        sys.exit(f"K is above the limit for {above[0].set} at {above[0].length} nt: tables and counts disagree")


if __name__ == "__main__":
    main()
