"""Reads <-> FASTQ files, and reads of FASTA files, in chunks: memory is bounded by the chunk, not by the file."""

import gzip
from pathlib import Path

import numpy as np

from helix_jax.files import atomic
from helix_jax.strands import records
from helix_jax.strands.records import MOST_PHRED, PAD, UNKNOWN

CHUNK = 4096  # reads
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)


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
    if (qualities[real] > MOST_PHRED).any():
        raise ValueError(f"quality {qualities[real].max()} in reads; FASTQ holds Phred 0..{MOST_PHRED}")
    names = [f"read_{i:07d}" for i in range(n)] if names is None else list(names)
    if len(names) != n or any("\n" in name or "\r" in name for name in names):
        raise ValueError(f"{len(names)} names for {n} reads; give one for each, without line breaks")
    letters, marks = _LETTERS[bases[real]].tobytes().decode(), (qualities[real] + 33).tobytes().decode()
    ends = np.cumsum([0, *lengths.tolist()]).tolist()
    text = "".join(
        f"@{name}\n{letters[ends[i] : ends[i + 1]]}\n+\n{marks[ends[i] : ends[i + 1]]}\n"
        for i, name in enumerate(names)
    ).encode("ascii", "backslashreplace")
    if Path(path).suffix.lower() == ".gz":
        text = gzip.compress(text, compresslevel=6, mtime=0)
    with atomic(path) as temporary:
        temporary.write_bytes(text)


def read(path, chunk=CHUNK):
    """Reads of a FASTQ or FASTA file in chunks of file order: ``chunks`` of ``records.opened``, closed at the end."""
    if chunk < 1:
        raise ValueError(f"chunk: {chunk}; give at least 1 read")

    def each():
        with records.opened(path) as source:
            yield from chunks(source, chunk)

    return each()


def chunks(source, chunk=CHUNK):
    """Reads of an open file (``records.Records``) in chunks of file order.

    Yields (bases uint8[n, W], lengths int32[n], qualities uint8[n, W] or None), n at most ``chunk``, fewer where reads
    are long, and W the longest read of the chunk: 0..3 = A C G T in either case, 4 = N, 255 past the length; qualities
    are Phred, 0 past the length, and None for FASTA. A file without reads yields nothing. Reads that cannot be used are
    counted in ``source.left_out``. Raises RecordsError for damaged compressed data.
    """
    for letters, lengths, marks in source.portions():
        ends = np.cumsum(lengths)
        first = 0
        while first < len(lengths):
            most = np.arange(1, len(lengths) - first + 1)[:chunk]
            fits = most * np.maximum.accumulate(lengths[first : first + chunk]) <= records.MOST_LETTERS
            last = first + max(1, int(fits.sum()))
            part = slice(ends[first] - lengths[first], ends[last - 1])
            yield _padded(letters[part], lengths[first:last], marks if marks is None else marks[part])
            first = last


def _padded(letters, lengths, marks):
    """Reads one after the other -> one row each."""
    real = np.arange(lengths.max())[None] < lengths[:, None]
    bases = np.full(real.shape, PAD, np.uint8)
    bases[real] = letters
    if marks is None:
        return bases, lengths.astype(np.int32), None
    qualities = np.zeros(real.shape, np.uint8)
    qualities[real] = marks
    return bases, lengths.astype(np.int32), qualities
