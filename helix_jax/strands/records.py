"""Files of strands or reads -> arrays of bases, in portions; odd records are left out and counted.

One file or several, regular files, pipes and standard input, are read one after the other as if they were one: FASTA,
FASTQ, SAM, BAM and CRAM, plain or compressed (``compression``). Their content determines the format. Tables of
sequences, such as orders, are read as FASTA (``sheets``). A pipe is opened once. The formats are read by ``texts`` and
``alignments``.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from helix_jax import files
from helix_jax.strands import alignments, compression, formats, sheets, texts
from helix_jax.strands.formats import RecordsError
from helix_jax.strands.portions import (
    CUT,
    EMPTY,
    LETTERS,
    LONG,
    LONGEST,
    MOST_PHRED,
    OTHER,
    PAD,
    UNKNOWN,
    Portion,
    Tally,
)

BLOCK = 1 << 20  # bytes read at once
MOST_BLANK = 1 << 24  # bytes of blank lines at the beginning of a file
MOST_LETTERS = 1 << 25  # letters of a portion, padding included
STRANDS, READS, BOTH = "fasta", "fastq", "both"

PathLike = str | os.PathLike


@dataclass(eq=False, kw_only=True)
class Records(Tally):
    """Open files of records, made by ``opened``.

    Attributes:
        name: Name of the file, for messages; of several files the first, and their number.
        kind: "fasta" for files of strands (FASTA), "fastq" for files of reads (FASTQ, SAM, BAM, CRAM), "both" where
            there are some of each, or None where all are empty.
        passed_over: Files that cannot be read at all or are empty, and why, where there are others that can.
    """

    name: str
    kind: str | None
    passed_over: dict[str, str] = field(default_factory=dict)
    _groups: list = field(default_factory=list)  # of one _File each, or of two with the reads of pairs

    @property
    def files(self) -> int:
        """The number of files, without those that were passed over at once."""
        return sum(file.form is not None for group in self._groups for file in group)

    def portions(
        self,
    ) -> Iterator[tuple[UInt8[np.ndarray, " m"], Int64[np.ndarray, " n"], UInt8[np.ndarray, " m"] | None]]:
        """Yield (letters, lengths, qualities or None), with the records one after the other.

        Letters are 0..3 = A C G T, 4 = N and OTHER; qualities are Phred. The method may be called again: the file is
        then read from its start, and counted anew. Raises RecordsError where compressed data are damaged.
        """
        for portion in self.named():
            yield portion[:3]

    def named(self) -> Iterator[Portion]:
        """Yield the same with the names of the records. Of two files of pairs, each takes its turn."""
        self.left_out.clear()
        self.notes.clear()
        self.warnings.clear()
        self.records = 0
        for group in self._groups:
            yield from self._of(group)

    def _of(self, group):
        sides, seen = {end: file.portions(self) for end, file in enumerate(group, 1)}, dict.fromkeys((1, 2), 0)
        while sides:
            end = min(sides, key=seen.__getitem__)
            try:
                portion = next(sides[end], None)
            except RecordsError as error:
                if self.files == 1:
                    raise
                self.passed_over[group[end - 1].name] = str(error)
                portion = None
            if portion is None:
                del sides[end]
                continue
            seen[end] += len(portion.lengths)
            yield portion if len(group) == 1 else portion._replace(end=end)

    def reasons(self) -> str:
        """Say what was left out, in words for people; the text is empty if nothing was."""
        return ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))


@contextlib.contextmanager
def opened(paths: PathLike | Sequence[PathLike | tuple[PathLike, PathLike]], again: bool = False) -> Iterator[Records]:
    """Open files, pipes, or standard input (``-``), and give their ``Records``; a context manager.

    Args:
        paths: One file, or several; two in a tuple hold the first and the second reads of pairs.
        again: Whether FASTA will be read more than once, so that a pipe is copied to memory or to a temporary file.

    Raises:
        RecordsError: For a file of another format or damage from its beginning, unless another file can be read; the
            message names it and the remedy.
        HelixError: For a missing file or a folder.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with contextlib.ExitStack() as stack:
        groups, failures = [], {}
        for entry in several:
            group = []
            for path in entry if isinstance(entry, tuple) else (entry,):
                try:
                    group.append(_File.recognised(path, stack, again))
                except RecordsError as error:
                    failures[_name(path)] = error
            groups += [tuple(group)] if group else []
        if not groups and failures:
            raise next(iter(failures.values()))
        found = [file for group in groups for file in group]
        kinds = {file.kind for file in found} - {None}
        if kinds:
            failures |= {file.name: RecordsError(f"{file.name} is empty") for file in found if file.form is None}
        yield Records(
            name=found[0].name + (f" and {len(found) - 1:,} more" if len(found) > 1 else "") if found else "no file",
            kind=(BOTH if len(kinds) > 1 else kinds.pop()) if kinds else None,
            passed_over={name: str(error) for name, error in failures.items()},
            _groups=groups,
        )


@dataclass(frozen=True, eq=False)
class _File:
    """A file that was recognised.

    Attributes:
        path: Where to open it.
        name: Its name, for messages.
        form: "fasta", "fastq", "sam", "binary" (BAM or CRAM), or None if it is empty.
        carriage_returns: Whether its lines end in carriage returns alone, as old spreadsheets write them.
        packed: Whether a BAM or CRAM file was compressed as a whole, besides the blocks of BAM.
        stream: The open stream of a pipe or of standard input, None for a regular file, which is opened when needed.
    """

    path: PathLike
    name: str
    form: str | None
    carriage_returns: bool
    packed: bool
    stream: Any

    @property
    def kind(self) -> str | None:
        return self.form and (STRANDS if self.form == "fasta" else READS)

    @classmethod
    def recognised(cls, path: PathLike, stack: contextlib.ExitStack, again: bool) -> "_File":
        """Recognise a file; the stream of one that is no regular file stays open in the stack."""
        name = _name(path)
        with contextlib.ExitStack() as here:
            regular = not files.is_standard(path) and Path(path).is_file()
            source: Any = (here if regular else stack).enter_context(files.opened(path))
            recorder = None
            if not source.seekable():
                recorder = _Recorder(source)
                source = io.BufferedReader(recorder, BLOCK)
            compressed, plain = compression.recognise(_first(source)), _head(name, source)
            table = sheets.is_table(plain)
            form, carriage_returns = ("fasta", False) if table else _form(name, plain)
            if recorder:
                source.detach()  # or it would close the recorder
                source = io.BufferedReader(recorder.replay(), BLOCK)
            packed = compressed is not None and (compression.is_bgzf(plain) or plain.startswith(b"CRAM"))
            if table:
                source = stack.enter_context(sheets.as_fasta(name, here.enter_context(_copied(name, source))))
                return cls(path, name, form, False, False, source)
            if recorder and again and form == "fasta":
                copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=1 << 26))
                shutil.copyfileobj(source, copy, BLOCK)
                source = copy
        return cls(path, name, form, carriage_returns, packed, None if regular else source)

    def portions(self, tally: Tally) -> Iterator[Portion]:
        """Yield the records of the file."""
        if self.form is None:
            return
        if self.form == "binary":
            with self._local(tally) as path:
                yield from alignments.binary(path, self.name, tally)
            return
        read = {"fasta": texts.fasta, "fastq": texts.fastq, "sam": alignments.sam}[self.form]
        with self._opened() as stream:
            yield from read(self._blocks(stream, tally), tally)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        if self.stream is None:
            with files.opened(self.path) as stream:
                yield stream
            return
        if self.stream.seekable():
            self.stream.seek(0)
        yield self.stream

    def _blocks(self, stream, tally):
        """Yield blocks of bytes for a reader, as far as they can be read; a damaged end costs what comes after it."""
        as_it_is = self.form == "binary" and not self.packed  # the blocks of BAM are left to its reader
        try:
            for block in iter(lambda: stream.read(BLOCK), b"") if as_it_is else compression.blocks(stream, BLOCK):
                yield block.replace(b"\r", b"\n") if self.carriage_returns else block
        except (compression.Damaged, OSError) as error:  # not at the beginning, which was read before
            if self.form != "binary":  # or its reader finds the end missing, and counts it
                tally.skip(CUT)
            tally.warnings.append(f"{self.name} is damaged ({error}): what follows that place is lost")

    @contextlib.contextmanager
    def _local(self, tally):
        """Give the path of a regular file that pysam can read."""
        if self.stream is None and not self.packed:
            yield Path(self.path)
            return
        with self._opened() as stream, tempfile.NamedTemporaryFile(prefix="helix-jax-") as copy:
            copy.writelines(self._blocks(stream, tally))
            copy.flush()
            yield Path(copy.name)


class _Recorder(io.RawIOBase):
    """A stream that keeps what is read of it, until ``replay`` gives it once more, and then the rest."""

    def __init__(self, stream):
        self.stream, self.kept, self.recording = stream, bytearray(), True

    def readable(self):
        return True

    def replay(self):
        self.recording = False
        return self

    def readinto(self, buffer):
        if not self.recording and self.kept:
            data, self.kept = self.kept[: len(buffer)], self.kept[len(buffer) :]
        else:
            data = self.stream.read(len(buffer) if not self.recording else min(len(buffer), formats.HEAD))
            if self.recording:
                self.kept += data
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _copied(name, stream):
    """Copy the plain bytes of a stream that was read already to a temporary file."""
    if stream.seekable():
        stream.seek(0)
    with tempfile.SpooledTemporaryFile(max_size=1 << 26) as copy:
        try:
            for block in compression.blocks(stream, BLOCK):
                copy.write(block)
        except (compression.Damaged, OSError) as error:
            raise RecordsError(f"{name} cannot be read: {error}; get it again, or save it as CSV") from error
        copy.seek(0)
        yield copy


def _name(path):
    return "standard input" if files.is_standard(path) else str(path)


def _first(stream):
    """Return the first bytes of a stream, and leave it at its start."""
    if not stream.seekable():
        return stream.peek(8)
    head = stream.read(8)
    stream.seek(0)
    return head


def _head(name, stream):
    """Return the first plain bytes of a file after blank lines."""
    blank = 0
    try:
        for block in compression.blocks(stream, formats.HEAD):
            blank += len(block)
            if block.strip() or blank >= MOST_BLANK:
                return block
    except (compression.Damaged, OSError) as error:
        raise RecordsError(f"{name} cannot be read: {error}; get it again") from error
    return b""


def _form(name, plain):
    """Return the form of a file by its first bytes, and whether its lines end in carriage returns.

    Raises RecordsError for a form that is not read.
    """
    text = plain.lstrip().removeprefix(texts.BOM).lstrip()
    if not text:
        return None, False
    if plain.startswith((b"BAM\1", b"CRAM")) or compression.is_bgzf(plain):
        return "binary", False
    if compression.recognise(plain):
        raise RecordsError(f"{name} is compressed twice: decompress it once")
    if formats.is_sam(text):
        return "sam", False
    foreign = formats.recognise(plain)
    if foreign:
        raise RecordsError(f"{name} is {foreign.what}, not FASTA or FASTQ: {foreign.remedy(name)}")
    if text[:1] not in b"@>":
        begins = text[:12].decode("utf-8", "replace")
        raise RecordsError(
            f"{name} is neither FASTA nor FASTQ: it begins with {begins!r}; give a file of strands or reads"
        )
    return "fastq" if text[:1] == b"@" else "fasta", b"\r" in plain and b"\n" not in plain


__all__ = [
    "BOTH", "CUT", "EMPTY", "LETTERS", "LONG", "LONGEST", "MOST_LETTERS", "MOST_PHRED", "OTHER", "PAD", "READS",
    "STRANDS", "UNKNOWN", "Portion", "Records", "RecordsError", "opened",
]  # fmt: skip
