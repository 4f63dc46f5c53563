"""Tables of sequences -> FASTA: orders of strands as CSV, TSV or Excel sheets, as we or laboratories make them.

Nothing is expected of a table but one column of sequences, which is found by what is in it. All other cells of a row
become the comment of its record, so that what the columns say of key, motifs and primers (``written``) is found, and
so is what an order says beside its rows: in lines that begin with ``#``, or in a sheet of its own named NOTES.
"""

import contextlib
import csv
import io
import itertools
import re
import tempfile
import typing
import warnings
import zipfile
from collections.abc import Iterable, Iterator

from helix_jax.strands import formats
from helix_jax.strands.formats import RecordsError

NOTES = "helix_jax"  # title of the Excel sheet that keeps what an order has no column for
SEPARATORS = (",", ";", "\t")
MOST_HEAD = 64  # rows from which the column is determined; titles and addresses may stand above the table
_DNA = re.compile(r"[ACGTN]{20,}", re.IGNORECASE)
_MARKS = re.compile("\\s|^5['\u2032\u2019]?[-\u2013]?|[-\u2013]?3['\u2032\u2019]?$")  # 5'-ACGT ACGT-3'
_TEMPORARY = 1 << 26  # bytes in memory; larger tables go to a temporary file
_ZIP = b"PK\3\4"

Row = list[str]


def is_table(head: bytes) -> bool:
    """Return whether a file begins like a table of sequences, or like an archive that may be an Excel sheet.

    Args:
        head: Its first bytes, decompressed.
    """
    if head.startswith(_ZIP):
        return True
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    known = text[:1] in b">@" or formats.is_sam(text) or formats.recognise(head) is not None
    return not known and separator(text.decode("latin-1")) is not None


def separator(text: str) -> str | None:
    """Return what separates the columns of a text table that has a column of sequences, None for another text."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line, following in itertools.pairwise([*lines[:MOST_HEAD], ""]):
        if _named(line.strip(' "')) and _DNA.fullmatch(following.strip(' "')):
            return ","  # a single column
        for mark in SEPARATORS:
            cells = [_clean(cell.strip(' "')) for cell in line.split(mark)]
            if len(cells) > 1 and any(map(_DNA.fullmatch, cells)):
                return mark
    return None


@contextlib.contextmanager
def as_fasta(name: str, table: typing.Any) -> Iterator[typing.IO[bytes]]:
    """Give the rows of a table as FASTA, in a file that can be rewound; a context manager.

    Args:
        name: The name of the table, for messages.
        table: A binary stream of the table at its start, which can be rewound.

    Raises:
        RecordsError: It has no column of sequences, or several.
    """
    head = table.read(formats.HEAD)
    table.seek(0)
    with tempfile.SpooledTemporaryFile(max_size=_TEMPORARY) as fasta:
        try:
            rows, notes = _workbook(name, table) if head.startswith(_ZIP) else _text_rows(name, table, head)
            for line in _records(name, rows, notes):
                fasta.write(line.encode("ascii", "backslashreplace"))
        except (csv.Error, OSError) as error:
            raise RecordsError(f"{name} cannot be read: {error}; get it again, or save it as CSV") from error
        fasta.seek(0)
        yield fasta


# ---- the rows ------------------------------------------------------------------------------------------------


def _text_rows(name, plain, head):
    """Return the rows of a text table, and the list that gets its comment lines as they are read."""
    mark = separator(head.removeprefix(b"\xef\xbb\xbf").decode("latin-1"))
    if mark is None:
        raise RecordsError(f"{name} has no column of sequences in its first rows: give the sheet of the strands")
    notes: list[str] = []
    text = io.TextIOWrapper(plain, "utf-8-sig", "backslashreplace", newline=None)

    def lines():
        for line in text:
            if line.startswith("#"):
                notes.append(line)
            else:
                yield line

    return csv.reader(lines(), delimiter=mark), notes


def _workbook(name, file):
    """Return the rows of the sheet of an Excel workbook that has sequences, and the lines of the sheet NOTES."""
    import openpyxl  # takes a while to import, and few files are Excel's

    try:
        with warnings.catch_warnings(action="ignore"):  # of formats and styles that are not kept
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # the library raises whatever its parsers do
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
            if "xl/workbook.xml" in archive.namelist():
                raise RecordsError(
                    f"{name} is a damaged Excel sheet ({error}): save it again as .xlsx or .csv"
                ) from error
            if "content.xml" in archive.namelist():
                raise RecordsError(f"{name} is an OpenDocument file: save the sheet as .xlsx or .csv") from error
            inside = ", ".join(archive.namelist()[:3])
            raise RecordsError(
                f"{name} is a zip archive of {inside or 'nothing'}, not an Excel sheet: unzip it"
            ) from error
        raise RecordsError(f"{name} is a damaged zip archive or Excel sheet: get it again") from error
    notes = [str(cell) for row in (book[NOTES].values if NOTES in book.sheetnames else ()) for cell in row if cell]
    others = [sheet for sheet in book.worksheets if sheet.title != NOTES]
    for sheet in others:
        rows = _strings(name, sheet)
        first = list(itertools.islice(rows, MOST_HEAD))
        if any(_DNA.fullmatch(_clean(cell)) for row in first for cell in row):
            return itertools.chain(first, rows), notes
    return (_strings(name, others[0]) if others else iter(())), notes


def _strings(name, sheet):
    try:
        for row in sheet.values:
            yield ["" if cell is None else str(cell) for cell in row]
    except Exception as error:  # as above
        raise RecordsError(f"{name} is a damaged Excel sheet ({error}): save it again as .xlsx or .csv") from error


# ---- the column of sequences ---------------------------------------------------------------------------------


def _records(name: str, rows: Iterable[Row], notes: list[str]) -> Iterator[str]:
    """Yield the rows as records of FASTA; the notes are spread over the first ones."""
    rows = (row for row in rows if any(cell.strip() for cell in row))
    first = list(itertools.islice(rows, MOST_HEAD))
    column = _column(name, first)
    begin = next(n for n, row in enumerate(first) if _DNA.fullmatch(_cell(row, column)))
    kept = list(notes)  # those of lines further down come too late, as orders have them above their rows
    for number, row in enumerate(itertools.chain(first[begin:], rows)):
        others = [" ".join(cell.split()) for n, cell in enumerate(row) if n != column and cell.strip()]
        note = " ".join(kept.pop(0).split()) if kept else ""
        letters = re.sub(r"[^A-Za-z]", "?", _cell(row, column))
        yield f">{' '.join([*others, note] if others else [f'row_{number}', note])}\n{letters}\n"


def _column(name, rows):
    """Return the number of the column of sequences."""
    found = [n for n in range(max(map(len, rows), default=0)) if any(_DNA.fullmatch(_cell(row, n)) for row in rows)]
    if len(found) > 1:
        named = [n for n in found if any(len(row) > n and _named(row[n]) for row in rows)]
        if len(named) != 1:
            which = " and ".join(_title(rows, n) for n in found[:3])
            raise RecordsError(f"{name}: columns {which} hold sequences; name the one with the strands Sequence")
        found = named
    if not found:
        titles = ", ".join(cell.strip() for cell in (rows[0] if rows else ()) if cell.strip())
        raise RecordsError(
            f"{name} is a table without a column of sequences of A, C, G and T; it has "
            f"{titles[:80] or 'nothing'}: give the sheet of the strands"
        )
    return found[0]


def _title(rows, column):
    title = next((row[column].strip() for row in rows if len(row) > column and row[column].strip()), "")
    return str(column + 1) if _DNA.fullmatch(_clean(title)) else f"{column + 1} ({title[:20]})"


def _cell(row, column):
    return _clean(row[column]) if len(row) > column else ""


def _clean(cell):
    """Return a sequence without spaces and the marks of its ends."""
    return _MARKS.sub("", cell.strip())


def _named(cell):
    """Return whether a cell is the title of a column of sequences."""
    title = cell.strip().lower()
    return title in ("seq", "oligo", "strand") or (title.startswith(("sequence", "oligo seq", "dna seq"))
                                                  and "name" not in title and len(title) < 40)  # fmt: skip
