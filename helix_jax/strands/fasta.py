"""Strands <-> FASTA files, in portions, so that memory does not grow with the pool.

Decoding needs the letters alone and, for a pool with motifs or primers, what ``written.Written`` says. The comments of
the header strands state that, so that a reader finds it again; the other comments are for people.
"""

import collections
import contextlib
import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from helix_jax.files import atomic
from helix_jax.strands import records
from helix_jax.strands.records import RecordsError
from helix_jax.strands.written import AnyPool, Written

KEPT = 1 << 27  # letters of a file that are kept in memory, so that all but large pools are parsed only once
PART = 1 << 14  # strands written at once
_LETTERS = np.frombuffer(b"ACGT", np.uint8)


# ---- writing -------------------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike,
    strands: np.ndarray | Sequence[np.ndarray],
    describe: Callable[[int], str] | Sequence[str],
    *,
    name: str = "strand",
) -> None:
    """Write strands as FASTA, one line per strand, all or nothing (``files.atomic``).

    Args:
        path: The file, compressed with gzip if its name ends in ``.gz``.
        strands: uint8[n, L], or n arrays uint8[L_i]; bases 0..3 = A C G T.
        describe: The comment of each record, as a function of its index or as a sequence of n; written as ASCII, with
            other characters escaped.
        name: The word before the number in the names of the records, which are ``strand_0000000`` upwards.

    Raises:
        ValueError: For other bases, a strand without bases, a wrong number of comments or a line break in one.
        files.OutputError: When the file cannot be written.
    """
    rows = strands if isinstance(strands, list) else np.asarray(strands)
    if not isinstance(rows, list) and rows.ndim != 2:
        raise ValueError(f"strands must be uint8[n, L] with L >= 1; they are {rows.dtype}{list(rows.shape)}")
    if not callable(describe) and len(describe) != len(rows):
        raise ValueError(f"{len(describe)} comments for {len(rows)} strands; give one for each")
    comment = describe if callable(describe) else describe.__getitem__
    with _written(path) as out:
        for begin in range(0, len(rows), PART):
            part = rows[begin : begin + PART]
            out.write(_text(part, begin, [comment(begin + i) for i in range(len(part))], name))


def write_pool(
    path: str | os.PathLike, pool: AnyPool, watch: Callable[[UInt8[np.ndarray, "n L"]], None] | None = None
) -> None:
    """Write a ``pool.Pool`` or ``pool.Draft``; the comments say what each strand carries. Otherwise as ``write``.

    The comments of header strands state the pool's key and, where it has any, its motifs and primers.

    Args:
        path: The file.
        pool: The pool.
        watch: Called with each part of the strands before it is written.
    """
    note = Written(
        pool.constraints.motifs, pool.constraints.left, pool.constraints.right, pool.constraints.primers_exempt
    ).comment()

    sources = pool.layout.sources

    def describe(packet):
        if packet < 0:
            return f"header key={pool.header.key.hex()}{note}"
        return f"source {packet}" if packet < sources else f"repair {packet - sources}"

    done = 0
    with _written(path) as out:
        for part, numbers in pool.numbered():
            if watch:
                watch(part)
            for begin in range(0, len(part), PART):
                comments = list(map(describe, numbers[begin : begin + PART].tolist()))
                out.write(_text(part[begin : begin + PART], done, comments, "strand"))
                done += len(comments)


@contextlib.contextmanager
def _written(path):
    """Open a binary stream into the file that ``path`` becomes."""
    with atomic(path) as temporary, open(temporary, "wb") as raw:
        if Path(path).suffix.lower() != ".gz":
            yield raw
            return
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield packed


def _text(rows, first, comments, name):
    """Return the records of strands from number ``first`` on, as bytes."""
    rows = [np.asarray(row) for row in rows] if isinstance(rows, list) else rows
    for row in rows if isinstance(rows, list) else rows[:1]:
        if row.ndim != 1 or row.dtype != np.uint8 or not len(row):
            raise ValueError(f"strands must be uint8[n, L] with L >= 1; one is {row.dtype}{list(row.shape)}")
    bases = np.concatenate([np.zeros(0, np.uint8), *rows]) if isinstance(rows, list) else rows.reshape(-1)
    if bases.size and bases.max() > 3:
        raise ValueError(f"base {bases.max()} in strands; bases are 0..3 = A C G T")
    letters, ends = _LETTERS[bases].tobytes().decode("ascii"), np.cumsum([0, *map(len, rows)]).tolist()
    text = "".join(
        f">{name}_{first + i:07d} {comments[i]}\n{letters[ends[i] : ends[i + 1]]}\n" for i in range(len(rows))
    ).encode("ascii", "backslashreplace")
    if text.count(b"\n") != 2 * len(rows) or b"\r" in text:
        raise ValueError("a comment contains a line break; FASTA comments are one line")
    return text


# ---- reading -------------------------------------------------------------------------------------------------


class Strands:
    """The strands of an open FASTA file, which ``pool`` reads in portions, as often as it needs. Made by ``opened``.

    A record that is no strand (because it holds other letters than A, C, G, T, none at all, or far too many) is an
    erasure: it is left out and counted by reason in ``left_out``.
    """

    def __init__(self, source: records.Records):
        self.source = source
        self._kept: list[np.ndarray] | None = None

    @property
    def name(self) -> str:
        """The name of the file, for messages."""
        return self.source.name

    @property
    def left_out(self) -> collections.Counter:
        """Number of records read so far that are no strands, by reason."""
        return self.source.left_out

    @property
    def notes(self) -> list[tuple[str, Written]]:
        """What header comments say, the most frequent first: (key as hexadecimal, Written)."""
        return [(key, Written.from_comment(text)) for (key, text), _ in self.source.notes.most_common()]

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield strands of one length in the order of the file; bases are 0..3 = A C G T.

        Raises RecordsError where the file holds no strand at all, or is damaged.
        """
        if self._kept is not None:
            yield from self._kept
            return
        kept, size, seen = [], 0, False
        for letters, lengths, _ in self.source.portions():
            for group in self._groups(letters, lengths):
                seen = True
                size += group.size
                kept.append(group)
                if size > KEPT:
                    kept.clear()
                yield group
        if not seen:
            reasons = self.source.reasons()
            raise RecordsError(
                f"{self.name} holds no strands: " + (f"its records are {reasons}" if reasons else "it is empty")
            )
        if size <= KEPT:
            self._kept = kept

    def _groups(self, letters, lengths):
        """Yield portions of one length each, without rows that hold an N."""
        ends = np.cumsum(lengths)
        for length in dict.fromkeys(lengths.tolist()):
            if (lengths == length).all():
                group = letters.reshape(-1, length)
            else:
                group = letters[(ends[lengths == length] - length)[:, None] + np.arange(length)]
            unknown = (group == records.UNKNOWN).any(axis=1)
            if unknown.any():
                self.source.left_out[records.LETTERS] += int(unknown.sum())
                group = group[~unknown]
            if len(group):
                yield group


@contextlib.contextmanager
def opened(
    paths: records.PathLike | Sequence[records.PathLike | tuple[records.PathLike, records.PathLike]],
) -> Iterator[Strands]:
    """Open FASTA files, plain or compressed, a pipe, or standard input (``-``), and give their ``Strands``.

    This is a context manager. It raises RecordsError for files of another format, also for reads.
    """
    with records.opened(paths, again=True) as source:
        if source.kind in (records.READS, records.BOTH):
            raise RecordsError(f"{source.name}: it holds reads, and strands in FASTA are needed here")
        yield Strands(source)


def together(strands: Strands) -> dict[int, UInt8[np.ndarray, "_ _"]]:
    """Read all strands into memory, by their length.

    The strands of a length keep the order of the file, duplicates included, and the lengths that of their first
    appearance.
    """
    groups = {}
    for group in strands.portions():
        groups.setdefault(group.shape[1], []).append(group)
    return {length: np.concatenate(parts) for length, parts in groups.items()}


def read(path: str | os.PathLike) -> dict[int, UInt8[np.ndarray, "_ _"]]:
    """Read all strands of a FASTA file, as ``together`` gives them: letters of either case, wrapped or not.

    Records that are no strands are left out. Raises what ``opened`` raises, and RecordsError for a file without
    strands.
    """
    with opened(path) as strands:
        return together(strands)
