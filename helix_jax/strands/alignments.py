"""SAM, BAM and CRAM files -> portions of reads, as the sequencer saw them (BAM and CRAM with pysam).

A read that was aligned to the other strand of a reference is turned back. Further alignments of a read (secondary and
supplementary ones) and reads that failed the sequencer's own quality check are left out and counted. SAM is text, of
which an odd line costs only itself.
"""

import contextlib
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pysam  # pyrefly: ignore [missing-import]

from helix_jax.strands import compression
from helix_jax.strands.formats import RecordsError
from helix_jax.strands.portions import CUT, LONGEST, Portion, Tally

PART = 1 << 13  # reads of a portion
AGAIN, FAILED = "secondary or supplementary alignments", "that failed the sequencer's quality check"
_PAIRED, _REVERSED, _SECOND, _FAILED, _AGAIN = 0x1, 0x10, 0x80, 0x200, 0x900  # flags, SAM specification, section 1.4
_CODES = bytes(min(phred + 33, 255) for phred in range(256))  # those that no text has are refused read by read
_COMPLEMENT = bytes.maketrans(b"ACGTacgt", b"TGCAtgca")


def sam(blocks: Iterator[bytes], tally: Tally) -> Iterator[Portion]:
    """Yield the reads of SAM text; those that are left out are counted."""
    yield from _portions(_lines(blocks, tally), tally)


def binary(path: Path, name: str, tally: Tally) -> Iterator[Portion]:
    """Yield the reads of a BAM or CRAM file; those that are left out are counted.

    A damaged end costs what comes after it, and counts as one read.

    Args:
        path: A regular file.
        name: Its name, for messages.
        tally: Where reads are counted, and where damage is told.

    Raises:
        RecordsError: Where not a single record can be read.
    """
    yield from _portions(_records(path, name, tally), tally)


def _portions(rows: Iterable[tuple[bytes, int, bytes, bytes]], tally: Tally) -> Iterator[Portion]:
    """Yield portions of rows (name, flag, letters, qualities + 33 or nothing)."""
    names, letters, marks = [], [], []

    def portion():
        texts = b"".join(letters), [len(row) for row in letters], b"".join(marks) if any(marks) else None
        found = tally.kept(*texts, names.copy())
        for rows in (names, letters, marks):
            rows.clear()
        return found

    for name, flag, row, codes in rows:
        if flag & (_AGAIN | _FAILED):
            tally.skip(AGAIN if flag & _AGAIN else FAILED)
            continue
        # where some reads have no qualities, they are in portions of their own
        if names and (len(names) == PART or bool(codes) != bool(marks[-1])) and (found := portion()):
            yield found
        if flag & _REVERSED:
            row, codes = row.translate(_COMPLEMENT)[::-1], codes[::-1]
        names.append(name + ((b"/2" if flag & _SECOND else b"/1") if flag & _PAIRED else b""))
        letters.append(row)
        marks.append(codes)
    if found := portion():
        yield found


def _lines(blocks, tally):
    """Yield the rows of SAM text."""
    rest = b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[: 4 * LONGEST]
        yield from _rows(lines, tally)
    yield from _rows([rest], tally)


def _rows(lines, tally):
    for line in lines:
        if line[:1] == b"@" or not line.strip():  # a line of the header
            continue
        cells = line.rstrip(b"\r").split(b"\t", 11)
        if len(cells) < 11 or not cells[1].isdigit():
            tally.skip(CUT)
            continue
        letters, codes = (b"" if cell == b"*" else cell for cell in cells[9:11])
        if codes and len(codes) != len(letters):
            tally.skip(CUT)
            continue
        yield cells[0], int(cells[1]), letters, codes


def _records(path, name, tally):
    """Yield the rows of a BAM or CRAM file."""
    seen = 0
    with _quiet():
        try:
            _check_header(path)
            with _open(path) as source:
                for read in source.fetch(until_eof=True):
                    seen += 1
                    try:
                        row = _row(read)
                    except ValueError:  # letters or marks that are none
                        tally.skip(CUT)
                        continue
                    yield row
        except (OSError, ValueError, compression.Damaged) as error:
            if not seen:
                raise RecordsError(f"{name} cannot be read: {_reason(path, error)}") from error
            tally.skip(CUT)
            tally.warnings.append(f"{name} is damaged after {seen:,} records ({error}): what follows them is lost")
            return
    with open(path, "rb") as source:
        head = source.read(len(compression.BGZF_END))
        source.seek(max(0, path.stat().st_size - len(compression.BGZF_END)))
        if compression.is_bgzf(head) and source.read() != compression.BGZF_END:
            tally.warnings.append(f"{name} has no end marker: it may have been cut short; get it again to be sure")


def _row(read):
    codes = read.query_qualities
    codes = b"" if codes is None else codes.tobytes().translate(_CODES)
    return (read.query_name or "").encode(), read.flag, (read.query_sequence or "").encode(), codes


@contextlib.contextmanager
def _open(path):
    """Open a BAM or CRAM file. What pysam says of closing a damaged one would hide what it says of the damage."""
    with warnings.catch_warnings(action="ignore"):  # of a missing end, which is told otherwise
        source = pysam.AlignmentFile(str(path), check_sq=False, ignore_truncation=True)
    try:
        yield source
    finally:
        with contextlib.suppress(OSError):
            source.close()


def _check_header(path):
    """Raise Damaged where the header of a BAM file is not whole: pysam would write of it to standard error."""
    with open(path, "rb") as stream:
        if not compression.is_bgzf(stream.read(18)):
            return
        stream.seek(0)
        blocks, data = _bgzf(stream), bytearray()

        def taken(count):
            while len(data) < count:
                block = next(blocks, None)
                if block is None:
                    raise compression.Damaged("a header that is cut short")
                data.extend(block)
            part = bytes(data[:count])
            del data[:count]
            return part

        def number():
            return int.from_bytes(taken(4), "little")

        if taken(4) != b"BAM\1":
            return
        taken(number())  # text; then the name of each reference, and its length (SAM specification, section 4.2)
        for _ in range(number()):
            taken(number() + 4)


def _bgzf(stream):
    """Yield the plain bytes of the blocks of BGZF, of which the last two bytes before the data are the size less 1."""
    while head := stream.read(18):
        try:
            yield zlib.decompress(head + stream.read(int.from_bytes(head[16:], "little") + 1 - 18), wbits=31)
        except zlib.error as error:
            raise compression.Damaged(f"damaged gzip data ({error})") from error


@contextlib.contextmanager
def _quiet():
    """Keep htslib from writing to standard error, as our messages say the same."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def _reason(path, error):
    with open(path, "rb") as source:
        if source.read(4) == b"CRAM":
            return (
                f"{error}; where its reads were aligned, it needs their reference: name its folder in the environment "
                "variable REF_PATH, or make FASTQ of it with: samtools fastq --reference REFERENCE.fasta"
            )
    return f"{error}; get it again"
