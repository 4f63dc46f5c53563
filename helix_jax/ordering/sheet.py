"""Pools -> an order: one table with the strands of all of them, in a vendor's columns.

What the comments of the pools say (``strands.written``) goes along, so that a pool is decoded from its order alone:
into the column of comments, where the vendor has one, into comment lines of a text file, or into a second sheet of an
Excel file. ``strands.sheets`` reads it back.
"""

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helix_jax import files
from helix_jax.errors import HelixError
from helix_jax.ordering.vendors import Vendor
from helix_jax.strands import sheets
from helix_jax.strands.fasta import Strands
from helix_jax.strands.written import Written

MOST_ROWS = (1 << 20) - 1  # of an Excel sheet, below the titles
MOST_CHARACTERS = 32_767  # of an Excel cell
_LETTERS = np.frombuffer(b"ACGT", np.uint8)


class OrderError(HelixError):
    """Pools that cannot be ordered; the message names the limits that they break."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """A pool in an order.

    Attributes:
        label: What the names of its strands begin with.
        strands: Its strands, in portions.
        count: Number of strands.
        length: Bases of each, primers included.
        notes: What its comments say: key, motifs and primers.
    """

    label: str
    strands: Strands
    count: int
    length: int
    notes: tuple[str, ...]


def gathered(pools: Sequence[tuple[str, Strands]], vendor: Vendor) -> list[Ordered]:
    """Count the strands of pools, and give each pool a label of its own that its vendor takes.

    Args:
        pools: (name, strands) of each pool; the labels are made of the names.
        vendor: The vendor.

    Returns:
        The pools.

    Raises:
        OrderError: The file of a pool is damaged, a pool has strands of several lengths, or strands break limits of
            the vendor; all are named.
    """
    found, broken, labels = [], [], []
    for name, strands in pools:
        lengths: dict[int, int] = {}
        for part in strands.portions():
            lengths[part.shape[1]] = lengths.get(part.shape[1], 0) + len(part)
            broken += [(strands.name, reason, number) for reason, number in vendor.broken(part).items()]
        if strands.source.warnings:  # what was lost is not to be ordered
            raise OrderError(f"{strands.source.warnings[0]}; get it again before you order")
        if len(lengths) > 1:
            which = ", ".join(f"{number:,} of {length} nt" for length, number in sorted(lengths.items()))
            raise OrderError(
                f"{strands.name} has strands of several lengths ({which}), and a pool has one: give the file of each"
            )
        (length, count), notes = (
            next(iter(lengths.items())),
            [f"key={key}{own.comment()}" for key, own in strands.notes],
        )
        labels.append(_label(name, vendor, labels))
        found.append(Ordered(labels[-1], strands, count, length, tuple(notes)))
    total = sum(pool.count for pool in found)
    if not vendor.strands_at and (reason := vendor.many(total)):
        broken.append(("the order", reason, total))
    if broken:
        summed: dict[tuple[str, str], int] = {}
        for name, reason, number in broken:
            summed[name, reason] = summed.get((name, reason), 0) + number
        which = "; ".join(f"{name}: {number:,} strands {reason}" for (name, reason), number in summed.items())
        raise OrderError(
            f"{vendor.title}: {which} ({vendor.limits_read}); "
            "write other strands, choose another --vendor, or state newer limits with --vendors FILE.toml"
        )
    return found


def _label(name: str, vendor: Vendor, taken: Sequence[str]) -> str:
    """Return the beginning of the names of a pool's strands, which no other pool of the order has."""
    # eight places are left for a number, and two for one that tells pools of a name apart
    plain = re.sub(f"[^{vendor.names}]", "_", name)[: vendor.longest_name - 10].strip("_.-") or "pool"
    label = next((label for label in (plain, *(f"{plain}{n}" for n in range(2, 100))) if label not in taken), None)
    if label is None:
        raise OrderError(f"more than 99 pools are called {plain}: order them in parts")
    return label


def write(path: Path, pools: Sequence[Ordered], vendor: Vendor) -> dict[str, Written]:
    """Write an order, all or nothing (``files.atomic``), as CSV or Excel by the suffix of its name.

    Args:
        path: The file.
        pools: The pools.
        vendor: The vendor.

    Returns:
        What the table has no room for, by the label of the pool: {} where nothing is lost.

    Raises:
        OrderError: There are more strands than an Excel sheet has rows, or longer ones than its cells take.
        files.OutputError: The file cannot be written.
    """
    excel = path.suffix.lower() == ".xlsx"
    total = sum(pool.count for pool in pools)
    if excel and total > MOST_ROWS:
        raise OrderError(f"{total:,} strands do not go into a sheet of {MOST_ROWS:,} rows: write the order as .csv")
    longest = max((pool.length for pool in pools), default=0)
    if excel and longest > MOST_CHARACTERS:
        raise OrderError(
            f"strands of {longest:,} nt: an Excel cell has room for {MOST_CHARACTERS:,} characters: write the order as "
            ".csv"
        )
    titles = [title for title, _ in vendor.columns]
    notes = [f"pool {pool.label}: {note}" for pool in pools for note in pool.notes]
    with files.atomic(path) as temporary:
        if excel:
            _write_book(temporary, titles, _rows(pools, vendor), notes)
        else:
            with open(temporary, "w", encoding="utf-8", newline="") as out:
                out.writelines(f"{vendor.comments} {note}\r\n" for note in notes if vendor.comments)
                table = csv.writer(out)
                table.writerow(titles)
                table.writerows(_rows(pools, vendor))
    if excel or vendor.comments or any(field == "comment" for _, field in vendor.columns):
        return {}
    given = ((pool.label, own) for pool in pools for _, own in pool.strands.notes)
    return {label: own for label, own in given if own != Written()}


def _write_book(path: Path, titles: Sequence[str], rows: Iterator[list[Any]], notes: Sequence[str]) -> None:
    import openpyxl  # takes a while to import

    book = openpyxl.Workbook(write_only=True)
    with contextlib.closing(book):
        sheet = book.create_sheet("Order")
        sheet.append(list(titles))
        for row in rows:
            sheet.append(row)
        if notes:
            sheet = book.create_sheet(sheets.NOTES)
            for note in notes:
                sheet.append([note])
        book.save(path)


def _rows(pools: Sequence[Ordered], vendor: Vendor) -> Iterator[list[Any]]:
    """Yield the cells of each strand. Several notes of a pool take turns, as a comment has room for one."""
    for pool in pools:
        digits, number = len(str(pool.count - 1)), 0
        for part in pool.strands.portions():
            for letters in _LETTERS[part]:
                cells = {
                    "name": f"{pool.label}_{number:0{digits}d}",
                    "pool": pool.label,
                    "sequence": letters.tobytes().decode("ascii"),
                    "comment": pool.notes[number % len(pool.notes)] if pool.notes else "",
                    "copies": 1,
                }
                yield [cells[field] for _, field in vendor.columns]
                number += 1
