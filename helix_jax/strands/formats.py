"""Files that are mistaken for FASTA or FASTQ: what they are, and how to make FASTA or FASTQ of them."""

import re
import shlex
from dataclasses import dataclass

from helix_jax.errors import HelixError

HEAD = 1 << 16  # bytes examined
_SAM = re.compile(rb"@(HD|SQ|RG|PG|CO)\t")
_ALIGNED = re.compile(rb"[^\t\n]+\t\d+\t[^\t\n]+\t\d+\t\d+\t[^\t\n]+\t[^\t\n]+\t\d+\t-?\d+\t[A-Za-z=.*]+\t\S+")
_SEQUENCE = re.compile(rb"[ACGTNacgtn]{20,}")
_BARE = re.compile(rb"[ACGTNacgtn]{20,}\s*(\n|$)")


class RecordsError(HelixError):
    """A file that holds no records of bases; the message names the file and says what it seems to be."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        what: The format in words, with its article.
        command: The shell command that makes FASTA or FASTQ of FILE, or a sentence where there is no such command.
    """

    what: str
    command: str

    def remedy(self, name: str) -> str:
        """Say what to do about the file ``name``."""
        if "FILE" not in self.command:
            return self.command
        name = "FILE" if name == "standard input" else shlex.quote(name)
        if name.endswith(".gz") and self.command.startswith("awk"):
            return f"convert it, for example with: gzip -dc {name} | {self.command.replace(' FILE', '')}"
        return f"convert it, for example with: {self.command.replace('FILE', name)}"


_PICTURES = "`helix-jax encode` takes videos; give a file of strands or reads here"
_MAGIC = (
    (b"7z\xbc\xaf\x27\x1c", Format("a 7z archive", "7z x -so FILE | helix-jax ... -")),
    (b"\xd0\xcf\x11\xe0", Format("an old Excel file (.xls), or one with a password", "save it as .xlsx or .csv first")),
    (b"\x89HDF", Format("a FAST5 or HDF5 file of raw signals", "call its bases first, for example with dorado")),
    (b"\x8bPOD\r\n\x1a\n", Format("a POD5 file of raw signals", "call its bases first, for example with dorado")),
    (b".sff", Format("an SFF file", "convert it to FASTQ first, for example with sff2fastq")),
    (b"%PDF", Format("a PDF document", "give a file of strands or reads")),
    (b"\xff\xfe", Format("text in UTF-16", "iconv -f UTF-16 -t ASCII FILE > strands.fasta")),
    (b"\xfe\xff", Format("text in UTF-16", "iconv -f UTF-16 -t ASCII FILE > strands.fasta")),
    (b"\x1a\x45\xdf\xa3", Format("a Matroska or WebM video", _PICTURES)),
    (b"LOCUS ", Format("a GenBank file", "convert it to FASTA first")),
    (
        b"# helix_jax timing schedule",
        Format("a schedule of the timing writer", "helix-jax timing simulate FILE -o reads.fasta"),
    ),
)  # fmt: skip


def is_sam(text: bytes) -> bool:
    """Return whether text is SAM, with a header or without one, by its first bytes."""
    return bool(_SAM.match(text) or _ALIGNED.match(text))


def recognise(head: bytes) -> Format | None:
    """Recognise a format by the first bytes of a file, decompressed; None for an unknown one."""
    for magic, known_format in _MAGIC:
        if head.startswith(magic):
            return known_format
    if head[4:8] == b"ftyp":
        return Format("an MP4 or QuickTime video", _PICTURES)
    if head[257:262] == b"ustar":
        return Format("a tar archive", "tar -xf FILE, then give the files in it")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b">":
        return None
    if text[:1] == b"@":
        return None
    if _BARE.match(text):
        return Format("bare sequences without names", 'awk \'{print ">"NR"\\n"$1}\' FILE > strands.fasta')
    if _table(text):
        return Format("a table without a column of sequences", "give the one that has the strands")
    return None


def _table(text):
    """Return whether a text is a table without sequences (``sheets`` reads those with some)."""
    lines = [line for line in text.splitlines()[:8] if line.strip()]
    if b"\0" in text or any(_SEQUENCE.search(line) for line in lines):
        return False
    counts = ({line.count(mark) for line in lines} for mark in (b",", b";", b"\t"))
    return len(lines) > 1 and any(len(seen) == 1 and 0 not in seen for seen in counts)
