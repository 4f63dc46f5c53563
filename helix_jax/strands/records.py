"""Records of a FASTA or FASTQ file -> arrays of bases, in portions; odd records are left out and counted.

A file is opened once, whether it is a regular file, a pipe or standard input, plain or gzip; its content determines the
format. Tables of sequences, such as orders, are read as FASTA (``sheets``). Files from laboratories have odd records,
which must not cost the others: a record that is empty, longer than ``LONGEST``, holds other letters or is cut short is
skipped, and its reason is counted in ``Records.left_out``. A byte order mark, blank lines and carriage returns are
skipped too. The libraries that read FASTQ stop at the first odd record, so the reader is our own.
"""

import collections
import contextlib
import gzip
import io
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, UInt8

from helix_jax import files
from helix_jax.strands import formats, sheets
from helix_jax.strands.formats import RecordsError

UNKNOWN, OTHER, PAD = 4, 254, 255  # N; a letter that is no base; what follows the last base of a row
LONGEST = 100_000  # letters of a record
BLOCK = 1 << 20  # bytes read at once
MOST_BLANK = 1 << 24  # bytes of blank lines at the beginning of a file
MOST_NOTES = 64  # notes kept of a file; more are no pool's, or too many to try
MOST_LETTERS = 1 << 25  # letters of a portion, padding included
EMPTY, LONG, LETTERS, CUT = (
    "without letters",
    f"longer than {LONGEST:,} letters",
    "with other letters than bases",
    "cut short or damaged",
)
_BASE = np.full(256, OTHER, np.uint8)
_BASE[np.frombuffer(b"ACGTN", np.uint8)] = _BASE[np.frombuffer(b"acgtn", np.uint8)] = np.arange(5)
MOST_PHRED = 93
_BLANK = np.zeros(256, bool)
_BLANK[np.frombuffer(b" \t\r\n\v\f", np.uint8)] = True
_BOM, _GZIP = b"\xef\xbb\xbf", b"\x1f\x8b"
_NOTE = re.compile(rb"^>[^\n]*? key=([0-9a-f]{16})\b([^\r\n]*)", re.MULTILINE)
_SECOND = re.compile(rb"^@\S+(?:/2\s*$|\s2:[YN]:)")  # the name of the second read of a pair


@dataclass(eq=False)
class Records:
    """An open file of records, made by ``opened``.

    Attributes:
        name: Name of the file, for messages.
        kind: "fasta" or "fastq", or None for an empty file.
        left_out: Number of records skipped so far, by reason.
        notes: How often the comments of FASTA header records say what: {(key as hexadecimal, text): number}.
        records: Records read so far, those left out included.
        second: How many are the second read of a pair by name.
    """

    name: str
    kind: str | None
    _restart: Callable
    left_out: collections.Counter = field(default_factory=collections.Counter)
    notes: collections.Counter = field(default_factory=collections.Counter)
    records: int = 0
    second: int = 0
    _broken: bool = False
    _carriage_returns: bool = False  # instead of line feeds, as old spreadsheets end lines

    def portions(
        self,
    ) -> Iterator[tuple[UInt8[np.ndarray, " m"], Int64[np.ndarray, " n"], UInt8[np.ndarray, " m"] | None]]:
        """Yield (letters, lengths, qualities or None), with the records one after the other.

        Letters are 0..3 = A C G T, 4 = N and OTHER; qualities are Phred. The method may be called again: the file is
        then read from its start, and counted anew. Raises RecordsError where compressed data are damaged.
        """
        self.left_out.clear()
        self.notes.clear()
        self.records, self.second, self._broken = 0, 0, False
        if self.kind is None:
            return
        with self._restart() as plain:
            blocks = _without_mark(self._blocks(plain))
            yield from (self._fasta if self.kind == "fasta" else self._fastq)(blocks)

    def _blocks(self, plain):
        """Yield blocks of bytes, as far as compressed data can be read; a damaged end costs what comes after it."""
        seen = False
        while True:
            try:
                block = plain.read1(BLOCK)
            except (EOFError, OSError, zlib.error) as error:
                if not seen:
                    raise RecordsError(f"{self.name} cannot be read: {error}; get it again") from error
                self.records += 1
                self.left_out[CUT] += 1
                return
            if not block:
                return
            seen = True
            yield block.replace(b"\r", b"\n") if self._carriage_returns else block

    # ---- FASTA

    def _fasta(self, blocks):
        rest = b""
        skipping = False  # inside a record that is longer than LONGEST
        for block, last in _with_last(blocks):
            data = rest + block + (b"\n>" if last else b"")  # the last record ends where another would begin
            if skipping:
                end = data.find(b"\n>")
                if end < 0:
                    rest = data[-1:]
                    continue
                data, skipping = data[end + 1 :], False
            cut = data.rfind(b"\n>") + 1
            whole, rest = data[:cut], data[cut:]
            if whole:
                yield from self._fasta_records(whole)
            if len(rest) > 4 * LONGEST:
                self.records += 1
                self.left_out[LONG] += 1
                rest, skipping = rest[-1:], True

    def _fasta_records(self, data):
        """Yield the records of whole lines, the first of which may be blank."""
        if b" key=" in data:
            for key, note in _NOTE.findall(data):
                comment = key.decode(), note.decode("ascii", "replace").strip()
                if comment in self.notes or len(self.notes) < MOST_NOTES:
                    self.notes[comment] += 1
        text = np.frombuffer(data, np.uint8)
        starts = np.append(0, np.flatnonzero(text == 10) + 1)
        starts = starts[starts < len(text)]
        first = text[starts]
        heads = starts[first == ord(">")]
        ends = np.append(starts[1:], len(text))[first == ord(">")]
        if not len(heads):
            return
        named = np.zeros(len(text) + 1, np.int8)
        named[heads] += 1
        named[ends] -= 1  # which may be the next head
        inside = np.cumsum(named[:-1], dtype=np.int8).astype(bool)
        letter = ~(inside | _BLANK[text])
        letter[: heads[0]] = False
        indices = np.flatnonzero(letter)
        lengths = np.diff(np.searchsorted(indices, np.append(heads, len(text))))
        yield from self._kept(_BASE[text[indices]], lengths, None)

    # ---- FASTQ

    def _fastq(self, blocks):
        lines, rest = [], b""
        for block, last in _with_last(blocks):
            parts = (rest + block + (b"\n" if last else b"")).split(b"\n")
            # A line without an end is cut: its record is too long, and memory must not grow with it.
            rest = parts.pop()[: 4 * LONGEST]
            lines += parts
            names, letters, marks, used = self._fastq_records(lines, last)
            lines = lines[used:]
            self.second += sum(_SECOND.match(name) is not None for name in names)
            lengths = np.array([len(line) for line in letters], np.int64)
            text, qualities = (np.frombuffer(b"".join(parts), np.uint8) for parts in (letters, marks))
            yield from self._kept(_BASE[text], lengths, qualities)

    def _fastq_records(self, lines, last):
        """Return the four-line records at the start of ``lines``: (names, letters, qualities, number of lines used)."""
        names, letters, marks, i = [], [], [], 0
        while i < len(lines):
            name = lines[i]
            if not name.strip():
                i += 1
                continue
            if i + 4 > len(lines) and not last:
                break
            if name[:1] == b"@" and i + 4 <= len(lines):
                bases, plus, quality = lines[i + 1].strip(), lines[i + 2], lines[i + 3].strip()
                if plus[:1] == b"+" and len(bases) == len(quality):
                    names.append(name)
                    letters.append(bases)
                    marks.append(quality)
                    i, self._broken = i + 4, False
                    continue
            if name[:1] == b"@":
                wrapped = _wrapped(lines, i)
                if wrapped is None and not last:
                    break
                if wrapped:
                    names.append(name)
                    letters.append(wrapped[0])
                    marks.append(wrapped[1])
                    i, self._broken = wrapped[2], False
                    continue
            begins = name[:1] == b"@" and i + 2 < len(lines) and lines[i + 2][:1] == b"+"
            if not self._broken or begins:  # count one record, up to the next that begins
                self.records += 1
                self.left_out[CUT] += 1
            i, self._broken = i + 1, True
        return names, letters, marks, i

    # ---- both

    def _kept(self, letters, lengths, marks):
        """Yield the same without records that are empty, too long or of other letters, which are counted."""
        self.records += len(lengths)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        wrong = np.zeros(len(lengths), bool)
        wrong[owner[letters == OTHER]] = True
        if marks is not None:
            wrong[owner[(marks < 33) | (marks > 33 + MOST_PHRED)]] = True
        keep = (lengths > 0) & (lengths <= LONGEST) & ~wrong
        for reason, mask in (
            (EMPTY, lengths == 0),
            (LONG, lengths > LONGEST),
            (LETTERS, wrong & (lengths <= LONGEST)),
        ):
            if mask.any():
                self.left_out[reason] += int(mask.sum())
        if not keep.all():
            rows = keep[owner]
            letters, marks = letters[rows], marks if marks is None else marks[rows]
            lengths = lengths[keep]
        if len(lengths):
            yield letters, lengths, marks if marks is None else marks - np.uint8(33)

    def reasons(self) -> str:
        """Say what was left out, in words for people; the text is empty if nothing was."""
        return ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))


@contextlib.contextmanager
def opened(path: str | os.PathLike, again: bool = False) -> Iterator[Records]:
    """Open a file, a pipe, or standard input (``-``), and give its ``Records``; a context manager.

    Args:
        path: The file.
        again: Whether FASTA will be read more than once, so that a pipe is copied to memory or to a temporary file.

    Raises:
        RecordsError: For a file of another format; the message names it and the remedy.
        HelixError: For a missing file or a folder.
    """
    name = "standard input" if files.is_standard(path) else str(path)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(files.opened(path))
        head = source.read(formats.HEAD)
        while not head.strip() and len(head) < MOST_BLANK and (more := source.read(formats.HEAD)):
            head += more
        if sheets.is_table(head):
            source = stack.enter_context(sheets.as_fasta(name, head, source))
            head = source.read(formats.HEAD)
        kind, carriage_returns = _kind(name, head)
        if source.seekable():
            raw = source
        else:
            raw = io.BufferedReader(_Joined(head, source), BLOCK)
            if again and kind == "fasta":
                copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=1 << 26))
                shutil.copyfileobj(raw, copy, BLOCK)
                raw = copy

        @contextlib.contextmanager
        def restart():
            if raw.seekable():
                raw.seek(0)
            if head[:2] == _GZIP:
                with gzip.open(raw) as plain:
                    yield plain
            else:
                yield raw

        yield Records(name, kind, restart, _carriage_returns=carriage_returns)


def _wrapped(lines, i):
    """Return a FASTQ record over more than four lines, or with blank ones in it: (letters, qualities, next line).

    The result is () where line i begins no such record, and None where its end is not among the lines yet.
    """
    parts, size, j = [], 0, i + 1
    while j < len(lines) and lines[j][:1] != b"+":
        part = lines[j].strip()
        if not (part.isalpha() or not part) or size > LONGEST:
            return ()
        parts, size, j = [*parts, part] if part else parts, size + len(part), j + 1
    if j == len(lines):
        return None if j - i < 2 * LONGEST else ()
    if not size:
        return ()
    marks, j = b"", j + 1
    while j < len(lines) and len(marks) < size:
        marks, j = marks + lines[j].strip(), j + 1
    if len(marks) < size:
        return None
    return (b"".join(parts), marks, j) if len(marks) == size else ()


class _Joined(io.RawIOBase):
    """A stream of what was read of another stream already, and then the rest of it."""

    def __init__(self, head, stream):
        self.head, self.stream = head, stream

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.head:
            data, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        else:
            data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _with_last(blocks):
    """Yield (block, whether it is the last)."""
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        yield block, following is None
        block = following


def _without_mark(blocks):
    """Yield blocks of bytes without a byte order mark and without blank lines at the beginning."""
    begun = False
    for block in blocks:
        if not begun:
            block = block.lstrip().removeprefix(_BOM).lstrip()
            begun = bool(block)
        if block:
            yield block


def _kind(name, head):
    """Return the kind of a file by its first bytes, and whether its lines end in carriage returns.

    The kind is "fasta", "fastq", or None for an empty file. Raises RecordsError for anything else.
    """
    plain = head
    if head[:2] == _GZIP:
        try:
            plain, rest, whole = b"", head, True
            while not plain and rest:  # the first parts of a file of several may be empty
                part = zlib.decompressobj(wbits=31)
                plain, rest, whole = part.decompress(rest, formats.HEAD), part.unused_data, part.eof
        except zlib.error as error:
            raise RecordsError(f"{name} cannot be read: damaged gzip data ({error}); get it again") from error
        if not plain and not whole:
            raise RecordsError(f"{name} cannot be read: its gzip data are cut short; get it again")
    text = plain.lstrip().removeprefix(_BOM).lstrip()
    if not text:
        return None, False
    foreign = formats.recognise(plain)
    if foreign:
        raise RecordsError(f"{name} is {foreign.what}, not FASTA or FASTQ: {foreign.remedy(name)}")
    if text[:1] not in b"@>":
        raise RecordsError(
            f"{name} is neither FASTA nor FASTQ: it begins with {text[:12]!r}; give a file of strands or reads"
        )
    return "fastq" if text[:1] == b"@" else "fasta", b"\r" in plain and b"\n" not in plain
