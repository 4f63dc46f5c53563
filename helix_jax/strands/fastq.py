"""Reads <-> FASTQ files, and reads of FASTA files, in chunks: memory is bounded by the chunk, not by the file."""

import gzip
import io
import zlib
from pathlib import Path

import dnaio
import numpy as np

from helix_jax.files import atomic
from helix_jax.strands.fasta import opened

UNKNOWN, PAD = 4, 255  # N, and what follows the last base of a read
CHUNK = 4096  # reads
LONGEST_READ = 100_000  # letters
MOST_LETTERS = 1 << 25  # of a chunk, its padding counted
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)
_BASE = np.full(256, 255, np.uint8)
_BASE[_LETTERS] = _BASE[np.frombuffer(b"acgtn", np.uint8)] = np.arange(5)
_MOST_PHRED = 93


class FastqError(ValueError):
    """A file does not hold reads of A, C, G, T and N."""


def write(path, bases, lengths, qualities, names=None):
    """Write reads as FASTQ, Phred+33, all or nothing (``files.atomic``); gzip if named ``.gz``.

    bases: uint8[n, W], 0..3 = A C G T and 4 = N; lengths: int[n], in 1..W; qualities: uint8[n, W], Phred 0..93. What
    lies past the length is not looked at. names: n str without line breaks, the first word of each its id; default:
    ``read_0000000`` upwards. Raises ValueError for arrays or names that do not fit, ``files.OutputError`` when the file
    cannot be written.
    """
    bases, qualities, lengths = np.asarray(bases), np.asarray(qualities), np.asarray(lengths)
    if bases.ndim != 2 or bases.shape != qualities.shape or lengths.shape != bases.shape[:1]:
        shapes = f"bases {list(bases.shape)}, qualities {list(qualities.shape)}, lengths {list(lengths.shape)}"
        raise ValueError(f"{shapes}; give [n, W], [n, W] and [n]")
    n, longest = bases.shape
    if n and not (lengths.min() >= 1 and lengths.max() <= longest):
        raise ValueError(f"lengths {lengths.min()}..{lengths.max()}; reads have 1 to {longest} bases here")
    real = np.arange(longest)[None] < lengths[:, None]
    if (bases[real] > UNKNOWN).any():
        raise ValueError(f"base {bases[real].max()} in reads; bases are 0..3 = A C G T, and 4 = N")
    if (qualities[real] > _MOST_PHRED).any():
        raise ValueError(f"quality {qualities[real].max()} in reads; FASTQ holds Phred 0..{_MOST_PHRED}")
    names = [f"read_{i:07d}" for i in range(n)] if names is None else list(names)
    if len(names) != n or any("\n" in name or "\r" in name for name in names):
        raise ValueError(f"{len(names)} names for {n} reads; give one for each, without line breaks")
    letters, marks = _LETTERS[bases[real]].tobytes().decode(), (qualities[real] + 33).tobytes().decode()
    ends = np.cumsum([0, *lengths.tolist()]).tolist()
    text = "".join(
        f"@{name}\n{letters[ends[i] : ends[i + 1]]}\n+\n{marks[ends[i] : ends[i + 1]]}\n"
        for i, name in enumerate(names)
    ).encode("ascii", "backslashreplace")
    if Path(path).suffix == ".gz":
        text = gzip.compress(text, compresslevel=6, mtime=0)
    with atomic(path) as temporary:
        temporary.write_bytes(text)


def is_fastq(path):
    """Whether a file, plain or gzip, begins like FASTQ. False for one that cannot be read."""
    try:
        with opened(path) as plain:
            return plain.peek(1)[:1] == b"@"
    except (EOFError, OSError, zlib.error):
        return False


def read(path, chunk=CHUNK):
    """Reads of a FASTQ or FASTA file, plain or gzip (told apart by content, not by name), in chunks of file order.

    Yields (bases uint8[n, W], lengths int32[n], qualities uint8[n, W] or None), n at most ``chunk``, fewer where reads
    are long, and W the longest read of the chunk: 0..3 = A C G T in either case, 4 = N, 255 past the length; qualities
    are Phred, 0 past the length, and None for FASTA. A file without reads yields nothing.
    Raises FastqError, naming file, record and letter or cause, once it comes to a read with other letters, without any
    or with more than 100,000, and for a file that is missing, cut off, damaged or neither FASTQ nor FASTA; ValueError
    for a chunk below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk: {chunk}; give at least 1 read")
    return _chunks(path, chunk)


def _chunks(path, chunk):
    done = 0
    try:
        with opened(path) as plain:
            first = plain.peek(1)[:1]
            if not first:
                return
            if first not in b"@>":
                raise FastqError(f"{path} begins with {first!r}, not '@' or '>'; give a FASTQ or FASTA file")
            kind = "fastq" if first == b"@" else "fasta"
            lines = io.BufferedReader(_Limited(path, plain, b"\n" if kind == "fastq" else b">"))
            with dnaio.open(lines, fileformat=kind, open_threads=0) as reader:
                records, longest = [], 0
                for record in reader:
                    records.append(_checked(path, done + len(records) + 1, record))
                    longest = max(longest, len(record.sequence))
                    if len(records) == chunk or len(records) * longest > MOST_LETTERS:
                        yield _arrays(path, done + 1, records)
                        done, records, longest = done + len(records), [], 0
                if records:
                    yield _arrays(path, done + 1, records)
    except FileNotFoundError as error:
        raise FastqError(f"{path}: no such file; check the path") from error
    except (dnaio.FileFormatError, dnaio.UnknownFileFormat, UnicodeDecodeError) as error:
        raise FastqError(f"{path} is not a whole FASTQ or FASTA file of reads: {error}; get it again") from error
    except (EOFError, OSError, zlib.error) as error:
        raise FastqError(f"{path} cannot be read: {error}; get it again") from error


def _checked(path, number, record):
    if not 1 <= len(record.sequence) <= LONGEST_READ:
        raise FastqError(
            f"{path}: record {number} ({record.id}) has {len(record.sequence)} letters; reads have 1 to "
            f"{LONGEST_READ}, so remove this record"
        )
    return record


def _arrays(path, first, records):
    """Records of dnaio -> (bases, lengths, qualities or None)."""
    lengths = np.array([len(record.sequence) for record in records], np.int32)
    real = np.arange(lengths.max())[None] < lengths[:, None]
    letters = np.frombuffer("".join(record.sequence for record in records).encode("ascii"), np.uint8)
    bases = np.full(real.shape, PAD, np.uint8)
    bases[real] = _BASE[letters]
    if (_BASE[letters] == 255).any():
        at = int(np.argmax(_BASE[letters] == 255))
        row = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        position = at - int(lengths[:row].sum()) + 1
        raise FastqError(
            f"{path}: record {first + row} ({records[row].id}) has the letter {chr(letters[at])!r} at position "
            f"{position}; reads are made of A, C, G, T and N only, so remove or correct this record"
        )
    if records[0].qualities is None:
        return bases, lengths, None
    marks = np.frombuffer("".join(record.qualities for record in records).encode("ascii"), np.uint8)
    if ((marks < 33) | (marks > 33 + _MOST_PHRED)).any():
        at = int(np.argmax((marks < 33) | (marks > 33 + _MOST_PHRED)))
        row = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        raise FastqError(
            f"{path}: record {first + row} ({records[row].id}) has the quality {chr(marks[at])!r}; "
            "Phred+33 runs from '!' to '~', so get it again"
        )
    qualities = np.zeros(real.shape, np.uint8)
    qualities[real] = marks - 33
    return bases, lengths, qualities


class _Limited(io.RawIOBase):
    """A stream that refuses more than a few reads' worth of bytes without ``mark``: dnaio would hold them all."""

    def __init__(self, path, stream, mark):
        self.path, self.stream, self.mark, self.since = path, stream, mark, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.stream.read(min(len(buffer), 1 << 16))
        buffer[: len(data)] = data
        last = data.rfind(self.mark)
        self.since = self.since + len(data) if last < 0 else len(data) - last - 1
        if self.since > 4 * LONGEST_READ:
            raise FastqError(f"{self.path}: a record of more than {LONGEST_READ} letters; reads are shorter, remove it")
        return len(data)
