"""Bases <-> FASTA files.

Record names and comments are for people: a reader needs the letters alone.
"""

import contextlib
import gzip
import zlib
from pathlib import Path

import dnaio
import numpy as np

from helix_jax.files import atomic

_LETTERS = np.frombuffer(b"ACGT", np.uint8)
_BASE = np.full(256, 255, np.uint8)
_BASE[_LETTERS] = _BASE[np.frombuffer(b"acgt", np.uint8)] = np.arange(4)


class FastaError(ValueError):
    """A file is not a FASTA pool of A, C, G and T."""


def write(path, strands, describe, *, name="strand"):
    """Write strands as FASTA, one line per strand, all or nothing (``files.atomic``); gzip if named ``.gz``.

    strands: uint8[n, L], or n arrays uint8[L_i]; bases 0..3 = A C G T. describe: the comment of each record, a callable
    index -> str or a sequence of n str; written as ASCII, other characters escaped.
    Records are named ``strand_0000000`` upwards (``name``: another word).
    Raises ValueError for other bases, a strand without any, a wrong number of comments or a line break in one;
    ``files.OutputError`` when the file cannot be written.
    """
    rows = [np.asarray(row) for row in (strands if isinstance(strands, list) else np.asarray(strands))]
    for row in rows:
        if row.ndim != 1 or row.dtype != np.uint8 or not len(row):
            raise ValueError(f"strands must be uint8[n, L] with L >= 1; one is {row.dtype}{list(row.shape)}")
    bases = np.concatenate([np.zeros(0, np.uint8), *rows])
    if bases.size and bases.max() > 3:
        raise ValueError(f"base {bases.max()} in strands; bases are 0..3 = A C G T")
    n, ends = len(rows), np.cumsum([0, *map(len, rows)]).tolist()
    comments = [describe(i) for i in range(n)] if callable(describe) else describe
    if len(comments) != n:
        raise ValueError(f"{len(comments)} comments for {n} strands; give one for each")
    letters = _LETTERS[bases].tobytes().decode("ascii")
    text = "".join(
        f">{name}_{i:07d} {comment}\n{letters[ends[i] : ends[i + 1]]}\n" for i, comment in enumerate(comments)
    ).encode("ascii", "backslashreplace")
    if text.count(b"\n") != 2 * n or b"\r" in text:
        raise ValueError("a comment contains a line break; FASTA comments are one line")
    if Path(path).suffix == ".gz":
        text = gzip.compress(text, compresslevel=6, mtime=0)
    with atomic(path) as temporary:
        temporary.write_bytes(text)


def write_pool(path, pool):
    """Write a ``codec.Pool``; the comments say what each strand carries. Otherwise as ``write``."""

    def describe(i):
        if i < pool.header_strands:
            return f"header key={pool.header.key.hex()}"
        i -= pool.header_strands
        return f"source {i}" if i < pool.layout.sources else f"repair {i - pool.layout.sources}"

    write(path, pool.strands, describe)


@contextlib.contextmanager
def opened(path):
    """The bytes of a plain or gzip file, told apart by content; by Python's gzip, whose errors are OSError and such."""
    with open(path, "rb") as raw, gzip.open(raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw as plain:
        yield plain


def read(path):
    """Read a FASTA file (gzip too): any letter case, wrapped lines, records in any order.

    Returns dict length L -> uint8[n, L], bases 0..3 = A C G T: the strands of that length in file order,
    duplicates kept; lengths in order of first appearance.
    Raises FastaError naming file, record and letter for anything but A, C, G and T (N and U included), and
    for a file that is missing, empty, damaged or not FASTA.
    """
    strands, records = {}, {}
    try:
        # pyrefly: ignore[no-matching-overload]  (it takes any binary file)
        with opened(path) as plain, dnaio.open(plain, fileformat="fasta", open_threads=0) as reader:
            for number, record in enumerate(reader, start=1):
                if not record.sequence:
                    raise FastaError(f"{path}: record {number} ({record.id}) has no letters")
                strands.setdefault(len(record.sequence), []).append(record.sequence)
                records.setdefault(len(record.sequence), []).append((number, record.id))
    except FileNotFoundError as error:
        raise FastaError(f"{path}: no such file") from error
    except (dnaio.FileFormatError, dnaio.UnknownFileFormat, UnicodeDecodeError) as error:
        raise FastaError(f"{path} is not a FASTA file of DNA: {error}") from error
    except (EOFError, OSError, zlib.error) as error:
        raise FastaError(f"{path} cannot be read: {error}") from error
    if not strands:
        raise FastaError(f"{path} holds no strands: it is empty")
    pool, wrong = {}, []
    for length, sequences in strands.items():
        letters = np.frombuffer("".join(sequences).encode("ascii"), np.uint8).reshape(-1, length)
        pool[length] = _BASE[letters]
        bad = np.flatnonzero((pool[length] == 255).any(axis=1))
        if bad.size:
            position = int(np.argmax(pool[length][bad[0]] == 255))
            number, name = records[length][bad[0]]
            wrong.append((number, name, chr(letters[bad[0], position]), position + 1))
    if wrong:
        number, name, letter, position = min(wrong)
        raise FastaError(
            f"{path}: record {number} ({name}) has the letter {letter!r} at position {position}; "
            "strands are made of A, C, G and T only, so remove or correct this record"
        )
    return pool
