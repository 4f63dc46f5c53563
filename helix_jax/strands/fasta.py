"""Strands <-> FASTA files, in portions, so that memory does not grow with the pool.

Decoding needs the letters alone, and for a pool with motifs or primers what ``written.Written`` says. That stands in
the comments of the header strands, where a reader finds it again; the other comments are for people.
"""

import contextlib
import gzip
from pathlib import Path

import numpy as np

from helix_jax.files import atomic
from helix_jax.strands import records
from helix_jax.strands.records import RecordsError
from helix_jax.strands.written import Written

KEPT = 1 << 27  # letters of a file that are kept in memory, so that all but large pools are parsed once
PART = 1 << 14  # strands written at once
_LETTERS = np.frombuffer(b"ACGT", np.uint8)


# ---- writing -------------------------------------------------------------------------------------------------


def write(path, strands, describe, *, name="strand"):
    """Write strands as FASTA, one line per strand, all or nothing (``files.atomic``); gzip if named ``.gz``.

    strands: uint8[n, L], or n arrays uint8[L_i]; bases 0..3 = A C G T. describe: the comment of each record, a callable
    index -> str or a sequence of n str; written as ASCII, other characters escaped.
    Records are named ``strand_0000000`` upwards (``name``: another word).
    Raises ValueError for other bases, a strand without any, a wrong number of comments or a line break in one;
    ``files.OutputError`` when the file cannot be written.
    """
    rows = strands if isinstance(strands, list) else np.asarray(strands)
    if not isinstance(rows, list) and rows.ndim != 2:
        raise ValueError(f"strands must be uint8[n, L] with L >= 1; they are {rows.dtype}{list(rows.shape)}")
    if not callable(describe) and len(describe) != len(rows):
        raise ValueError(f"{len(describe)} comments for {len(rows)} strands; give one for each")
    comment = describe if callable(describe) else describe.__getitem__
    parts = (rows[begin : begin + PART] for begin in range(0, len(rows), PART))
    with _written(path) as out:
        _write_parts(out, parts, comment, name)


def write_pool(path, pool, watch=None):
    """Write a ``pool.Pool`` or ``pool.Draft``; the comments say what each strand carries. Otherwise as ``write``.

    Comments of header strands tell the pool's key and, where there are any, its motifs and primers.
    watch: called with each part of the strands, uint8[n, L], before it is written.
    """
    note = Written(
        pool.constraints.motifs, pool.constraints.left, pool.constraints.right, pool.constraints.primers_exempt
    ).comment()

    def describe(i):
        if i < pool.header_strands:
            return f"header key={pool.header.key.hex()}{note}"
        i -= pool.header_strands
        return f"source {i}" if i < pool.layout.sources else f"repair {i - pool.layout.sources}"

    with _written(path) as out:
        _write_parts(out, pool.portions(), describe, "strand", watch)


@contextlib.contextmanager
def _written(path):
    """A binary stream into the file that ``path`` becomes."""
    with atomic(path) as temporary, open(temporary, "wb") as raw:
        if Path(path).suffix.lower() != ".gz":
            yield raw
            return
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield packed


def _write_parts(out, parts, comment, name, watch=None):
    number = 0
    for part in parts:
        if watch:
            watch(part)
        for begin in range(0, len(part), PART):
            rows = part[begin : begin + PART]
            out.write(_text(rows, number, comment, name))
            number += len(rows)


def _text(rows, first, comment, name):
    """Records of strands from number ``first`` on, as bytes."""
    rows = [np.asarray(row) for row in rows] if isinstance(rows, list) else rows
    for row in rows if isinstance(rows, list) else rows[:1]:
        if row.ndim != 1 or row.dtype != np.uint8 or not len(row):
            raise ValueError(f"strands must be uint8[n, L] with L >= 1; one is {row.dtype}{list(row.shape)}")
    bases = np.concatenate([np.zeros(0, np.uint8), *rows]) if isinstance(rows, list) else rows.reshape(-1)
    if bases.size and bases.max() > 3:
        raise ValueError(f"base {bases.max()} in strands; bases are 0..3 = A C G T")
    letters, ends = _LETTERS[bases].tobytes().decode("ascii"), np.cumsum([0, *map(len, rows)]).tolist()
    text = "".join(
        f">{name}_{first + i:07d} {comment(first + i)}\n{letters[ends[i] : ends[i + 1]]}\n" for i in range(len(rows))
    ).encode("ascii", "backslashreplace")
    if text.count(b"\n") != 2 * len(rows) or b"\r" in text:
        raise ValueError("a comment contains a line break; FASTA comments are one line")
    return text


# ---- reading -------------------------------------------------------------------------------------------------


class Strands:
    """The strands of an open FASTA file, which ``pool`` reads in portions, as often as it needs.

    A record that is no strand (other letters than A, C, G, T; none; far too many) is an erasure: it is left out and
    counted in ``left_out``, by reason. Made by ``opened``.
    """

    def __init__(self, source):
        self._source = source
        self._kept: list[np.ndarray] | None = None

    @property
    def name(self):
        """Of the file, for messages."""
        return self._source.name

    @property
    def left_out(self):
        """Number of records that are no strands, by reason; of what was read so far."""
        return self._source.left_out

    @property
    def notes(self):
        """What header comments say, the most frequent first: list of (key as hexadecimal, Written)."""
        return [(key, Written.from_comment(text)) for (key, text), _ in self._source.notes.most_common()]

    def portions(self):
        """Yield uint8[n, L], strands of one length in the order of the file; bases 0..3 = A C G T.

        Raises RecordsError where the file holds no strand at all, or is damaged.
        """
        if self._kept is not None:
            yield from self._kept
            return
        kept, size, seen = [], 0, False
        for letters, lengths, _ in self._source.portions():
            for group in self._groups(letters, lengths):
                seen = True
                size += group.size
                kept.append(group)
                if size > KEPT:
                    kept.clear()
                yield group
        if not seen:
            told = self._source.told()
            raise RecordsError(
                f"{self.name} holds no strands: " + (f"its records are {told}" if told else "it is empty")
            )
        if size <= KEPT:
            self._kept = kept

    def _groups(self, letters, lengths):
        """Portions of one length each, without rows that hold an N."""
        ends = np.cumsum(lengths)
        for length in dict.fromkeys(lengths.tolist()):
            if (lengths == length).all():
                group = letters.reshape(-1, length)
            else:
                group = letters[(ends[lengths == length] - length)[:, None] + np.arange(length)]
            unknown = (group == records.UNKNOWN).any(axis=1)
            if unknown.any():
                self._source.left_out[records.LETTERS] += int(unknown.sum())
                group = group[~unknown]
            if len(group):
                yield group


@contextlib.contextmanager
def opened(path):
    """Context manager: ``Strands`` of a FASTA file, plain or gzip, of a pipe, or of standard input (``-``).

    Raises RecordsError for a file of another format, FASTQ among them.
    """
    with records.opened(path, again=True) as source:
        if source.kind == "fastq":
            raise RecordsError(f"{source.name} is FASTQ, a file of reads, and strands in FASTA are needed here")
        yield Strands(source)


def together(strands):
    """``Strands`` -> dict of length L -> uint8[n, L], all in memory.

    Strands of a length keep the order of the file, duplicates among them, and lengths that of their first appearance.
    """
    groups = {}
    for group in strands.portions():
        groups.setdefault(group.shape[1], []).append(group)
    return {length: np.concatenate(parts) for length, parts in groups.items()}


def read(path):
    """All strands of a FASTA file, as ``together`` gives them: letters of either case, wrapped or not.

    Records that are no strands are left out. Raises as ``opened`` does, and for a file without strands.
    """
    with opened(path) as strands:
        return together(strands)
