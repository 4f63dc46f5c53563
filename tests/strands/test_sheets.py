"""Tables of sequences, as laboratories and vendors make them, read as FASTA."""

import gzip
import io
import os
import threading
import zipfile

import openpyxl
import pytest

from helix_jax.strands import fasta, sheets
from helix_jax.strands.records import RecordsError
from helix_jax.strands.written import Written

ONE, TWO = "ACGTACGTTGCATGCATTGGCCAA", "TTGGCCAATGCATGCAACGTACGT"
KEY = "0123456789abcdef"


def read(path):
    """(strands as letters, {key: Written}, counts of what is left out) of a file."""
    with fasta.opened(path) as strands:
        rows = ["".join("ACGT"[base] for base in row) for part in strands.portions() for row in part]
        return rows, dict(strands.notes), dict(strands.left_out)


def book(*tables):
    """The bytes of an Excel file with sheets (title, rows)."""
    made, out = openpyxl.Workbook(write_only=True), io.BytesIO()
    for title, rows in tables:
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(out)
    return out.getvalue()


TABLES = {
    "commas": f"Name,Sequence\ns1,{ONE}\ns2,{TWO}\n",
    "no titles": f"s1,{ONE}\ns2,{TWO}\n",
    "semicolons and quotes": f'Well;Name;Sequence\r\nA1;s1;"{ONE.lower()}"\r\nA2;"s;2";"{TWO}"\r\n',
    "tabs": f"s1\t{ONE}\tpure\ns2\t{TWO}\n",
    "carriage returns": f"Name,Sequence\rs1,{ONE}\rs2,{TWO}\r",
    "a mark, and blank lines": f"\ufeff\n\nName,Sequence\n\ns1,{ONE}\n,\ns2,{TWO}\n\n",
    "many blank lines": "\n \n" * 70 + f"Name,Sequence\ns1,{ONE}\ns2,{TWO}\n",
    "many comment lines": "# from the lab\n" * 70 + f"Name,Sequence\ns1,{ONE}\ns2,{TWO}\n",
    "one column": f"Sequence\n{ONE}\n{TWO}\n",
    "ends and groups": f"Name,Sequence\ns1,5'-{ONE[:10]} {ONE[10:]}-3'\ns2,5\u2032{TWO}3\u2032\n",
    "titles above": f"Order of 3 May,,\nLab,X,\nName,Scale,Sequence\ns1,50,{ONE}\ns2,50,{TWO}\n",
    "comment lines": f"# from the lab\nSequenceName,Sequence,Replication\ns1,{ONE},1\ns2,{TWO},1\n",
    "primers in columns": f"Forward primer,Sequence,Name\n{TWO},{ONE},s1\n{TWO},{TWO},s2\n",
    "one name": f"Pool name,Sequence\npool,{ONE}\npool,{TWO}\n",
    "other letters": f"Name,Sequence\nGr\u00f6\u00dfe,{ONE}\n\u9ed2,{TWO}\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_text_tables(tmp_path, kind):
    path = tmp_path / "order"
    for content in (TABLES[kind].encode(), gzip.compress(TABLES[kind].encode(), mtime=0)):
        path.write_bytes(content)
        assert read(path) == ([ONE, TWO], {}, {})


def test_rows_that_are_no_strands_are_counted(tmp_path):
    path = tmp_path / "order.csv"
    path.write_text(f"Name,Sequence\ns1,{ONE}\ns2,\ns3,see below\ns4,>{ONE}\ns5,{TWO}\nTotal: 5,\n")
    rows, _, left_out = read(path)
    assert rows == [ONE, TWO]
    assert sum(left_out.values()) == 4


def test_excel(tmp_path):
    """Any sheet may have the strands; numbers, empty cells and several sheets do no harm."""
    path = tmp_path / "order.xlsx"
    rows = [["Lab"], [None, 3.5], ["Pool name", "Sequence", "n"], ["p", ONE, 1], [None, None, None], ["p", TWO, 2]]
    path.write_bytes(book(("Prices", [["Name", "EUR"], ["p", 3]]), ("Order", rows)))
    assert read(path) == ([ONE, TWO], {}, {})


def test_what_an_order_says_of_its_pools_is_found(tmp_path):
    """In a column, in comment lines, and in a sheet of its own."""
    said, path = f"key={KEY} forbid=GAATTC left=ACGTT", tmp_path / "order"
    expected = {KEY: Written(("GAATTC",), "ACGTT")}
    for content in (
        f"Name,Sequence,Comment\ns1,{ONE},{said}\ns2,{TWO},{said}\n".encode(),
        f"# pool p: {said}\nName,Sequence\ns1,{ONE}\ns2,{TWO}\n".encode(),
        book(("Order", [["Name", "Sequence"], ["s1", ONE], ["s2", TWO]]), (sheets.NOTES, [[f"pool p: {said}"]])),
    ):
        path.write_bytes(content)
        assert read(path) == ([ONE, TWO], expected, {})
    other = f"key={KEY[::-1]}"
    path.write_text(f"# pool p: {said}\n# pool q: {other}\n# thanks\nName,Sequence\np1,{ONE}\nq1,{TWO}\n")
    assert read(path)[1] == expected | {KEY[::-1]: Written()}


def test_a_pipe(tmp_path):
    for content in (TABLES["commas"].encode(), book(("Order", [["s1", ONE], ["s2", TWO]]))):
        pipe = tmp_path / f"pipe{len(content)}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert read(pipe)[0] == [ONE, TWO]
        writer.join()


def zipped(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def damaged():
    """An Excel file, in the middle of which bytes are lost."""
    whole = bytearray(book(("Order", [["s1", ONE]] * 50)))
    begin = whole.index(b"xl/worksheets/sheet1.xml") + 40
    whole[begin : begin + 40] = bytes(40)
    return bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            book(("Prices", [["Name", "EUR"], ["p", 3]])),
            "without a column of sequences of A, C, G and T; it has Name, EUR",
        ),
        (book(("Empty", [])), "without a column of sequences .*; it has nothing"),
        (b"PK\3\4 no zip", "a damaged zip archive or Excel sheet"),
        (zipped("pool.fasta", f">a\n{ONE}\n"), "a zip archive of pool.fasta, not an Excel sheet: unzip it"),
        (zipped("content.xml", "<x/>"), "an OpenDocument file: save the sheet as .xlsx"),
        (zipped("xl/workbook.xml", "<x/>"), "a damaged Excel sheet"),
        (damaged(), "a damaged Excel sheet"),
        (book(("Order", [["s1", ONE]]))[:-200], "damaged"),
        (f"Forward,Backward\n{ONE},{TWO}\n".encode(), r"columns 1 \(Forward\) and 2 \(Backward\) hold sequences"),
        (f"{ONE},{TWO}\n".encode(), "columns 1 and 2 hold sequences"),
        (gzip.compress(f"Name,Sequence\ns1,{ONE}\n".encode() * 9000, mtime=0)[:-20], "cannot be read"),
        (f"Name,Sequence\ns1,{ONE}\n".encode() + b"s2," + b"A" * 200_000 + b"\n", "cannot be read: field larger"),
    ],
)
def test_what_is_no_order_is_named(tmp_path, content, message):
    path = tmp_path / "order.xlsx"
    path.write_bytes(content)
    with pytest.raises(RecordsError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [f">a,b\n{ONE}\n", f"@a,b\n{ONE}\n+\n{'I' * len(ONE)}\n", "", "hello, you\n"])
def test_other_files_are_no_tables(content):
    assert not sheets.is_table(content.encode())
