"""Reads <-> FASTQ files, and reads of FASTA files, in chunks: memory is bounded by the chunk, not by the file."""

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from helix_jax.files import atomic
from helix_jax.strands import records
from helix_jax.strands.records import MOST_PHRED, PAD, UNKNOWN

CHUNK = 4096  # reads in a chunk
Chunk = tuple[UInt8[np.ndarray, "n W"], Int32[np.ndarray, " n"], UInt8[np.ndarray, "n W"] | None]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # bases, lengths and qualities, as ``write`` takes them
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)


def write(
    path: str | os.PathLike,
    bases: np.ndarray,
    lengths: np.ndarray | Sequence[int],
    qualities: np.ndarray,
    names: Iterable[str] | None = None,
) -> None:
    """Write reads as FASTQ, Phred+33, all or nothing (``files.atomic``).

    Values past the length of a read are ignored.

    Args:
        path: The file, compressed with gzip if its name ends in ``.gz``.
        bases: uint8[n, W], 0..3 = A C G T and 4 = N.
        lengths: int[n], in 1..W.
        qualities: uint8[n, W], Phred 0..93.
        names: n names without line breaks, the first word of each its id; by default ``read_0000000`` upwards.

    Raises:
        ValueError: For arrays or names that do not fit.
        files.OutputError: When the file cannot be written.
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


def read(path: str | os.PathLike, chunk: int = CHUNK) -> Iterator[Chunk]:
    """Yield the reads of a FASTQ or FASTA file in chunks of file order.

    They are the ``chunks`` of ``records.opened``, which is closed at the end.
    """
    if chunk < 1:
        raise ValueError(f"chunk: {chunk}; give at least 1 read")

    def chunks_of_file():
        with records.opened(path) as source:
            yield from chunks(source, chunk)

    return chunks_of_file()


@runtime_checkable
class Source(Protocol):
    """Reads in portions, as ``records.Records`` and ``inserts.Inserts`` give them."""

    def portions(self) -> Iterator[tuple]:
        """Yield (letters, lengths, qualities or None), with the reads one after the other."""
        ...


def chunks(source: Source, chunk: int = CHUNK) -> Iterator[Chunk]:
    """Yield the reads of an open file in chunks of file order: (bases, lengths, qualities or None).

    A chunk has at most ``chunk`` reads, fewer where reads are long, and W is its longest read. Bases are 0..3 = A C G T
    in either case, 4 = N, and 255 past the length. Qualities are Phred, 0 past the length, and None for FASTA. A file
    without reads yields nothing. Reads that cannot be used are counted in ``source.left_out``. Raises RecordsError for
    damaged compressed data.
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
    """Arrange reads that follow each other as one row each."""
    if (lengths == lengths[0]).all():
        shape, lengths = (len(lengths), int(lengths[0])), lengths.astype(np.int32)
        return letters.reshape(shape), lengths, marks if marks is None else marks.reshape(shape)
    real = np.arange(lengths.max())[None] < lengths[:, None]
    bases = np.full(real.shape, PAD, np.uint8)
    bases[real] = letters
    if marks is None:
        return bases, lengths.astype(np.int32), None
    qualities = np.zeros(real.shape, np.uint8)
    qualities[real] = marks
    return bases, lengths.astype(np.int32), qualities
