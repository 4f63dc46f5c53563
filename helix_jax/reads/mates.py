"""Reads in any order -> the two reads of each pair, found by their names.

The names say which read of its pair each is, as Illumina writes them (`` 1:N:0:1``) or as older files and `samtools`
do (``/1``); of two files of pairs the files say it. A read waits for its mate until ``MOST_WAITING`` letters of reads
wait, and what has no mate, or one that is further behind, is a read of its own.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from helix_jax.reads.pairs import Ends
from helix_jax.strands.portions import PAD, Portion

MOST_WAITING = 1 << 27  # letters of reads that wait for their mates
SPARSE = 4  # a portion is cut down to the reads that wait where they are fewer than one in so many
_MARKS = (b"/1", b"/2", b" 1:", b" 2:")
_NAME = re.compile(rb"^([^ \t\n]*?)(?:/([12]))?(?:[ \t]+([12]):[YN]:.*|[ \t].*)?$", re.MULTILINE)


@dataclass(eq=False)
class _Held:
    """A portion with reads that wait for their mates: how many, and the names of all its reads (``_read_names``)."""

    portion: Portion
    names: list[bytes]
    waiting: int


@dataclass(eq=False)
class Mates:
    """Sorts reads into pairs.

    Attributes:
        pairs: Pairs found so far.
        alone: Reads that are one of a pair by their name, and whose mate is not in the files or too far away.
        of_two_files: Whether files said which reads are the first and the second.
    """

    pairs: int = 0
    alone: int = 0
    of_two_files: bool = False
    _held: dict[int, _Held] = field(default_factory=dict)  # by the number of the portion, in ascending order
    _waiting: dict = field(default_factory=dict)  # name of a read: (number of its portion, row, 1 or 2)
    _letters: int = 0  # of reads that wait
    _later: list = field(default_factory=list)  # (number, portion) of those whose names were not looked at yet
    _gave_up: bool = False  # first reads alone, or second ones, wait no longer

    def found(self, portions: Iterable[Portion]) -> Iterator[Portion | tuple[Ends, Ends]]:
        """Yield the reads of their own as portions, and pairs as (first reads, second reads)."""
        for number, portion in enumerate(portions):
            kinds = _kinds(portion)
            self.of_two_files |= bool(kinds and portion.end)
            if not kinds or (self._gave_up and len(kinds) == 1 and not portion.end):
                yield portion
                continue
            # As long as there are first reads alone, or second ones, none is another's mate.
            wait = len(kinds) == 1 and not self._waiting and all(_kinds(late) == kinds for _, late in self._later[:1])
            self._later.append((number, portion))
            if wait:
                self._letters += len(portion.letters)
            else:
                self._letters -= sum(len(late.letters) for _, late in self._later[:-1])
                for late in self._later:
                    yield from self._sorted(*late)
                self._later.clear()
            if self._letters > MOST_WAITING:
                self._gave_up |= not self.pairs
                yield from self._released(MOST_WAITING if self.pairs else 0)
        yield from self._released(0)

    def _sorted(self, number, portion):
        """Take the reads of a portion, and yield the pairs that are complete with them."""
        names, ends = _read_names(portion)
        if not ends.all():
            yield portion.taken(np.flatnonzero(ends == 0))
        self._held[number] = _Held(portion, names, int((ends > 0).sum()))
        self._letters += int(portion.lengths[ends > 0].sum())
        complete, doubled = {}, []
        for row in np.flatnonzero(ends).tolist():
            name, end = names[row], int(ends[row])
            mate = self._waiting.pop(name, None)
            if mate is not None and mate[2] == end:  # a name that is no read's own
                doubled.append(mate)
                mate = None
            if mate is None:
                self._waiting[name] = number, row, end
                continue
            key = (number, mate[0]) if end == 1 else (mate[0], number)
            complete.setdefault(key, []).append((row, mate[1]) if end == 1 else (mate[1], row))
        touched = {number, *(held for held, _, _ in doubled)}
        for (first, second), rows in complete.items():
            self.pairs += len(rows)
            touched |= {first, second}
            one, two = np.array(rows, np.int64).T
            self._let_go(first, one)
            self._let_go(second, two)
            yield _ends(self._held[first].portion, one), _ends(self._held[second].portion, two)
        for other in {mate[0] for mate in doubled}:
            rows = np.array([row for held, row, _ in doubled if held == other], np.int64)
            self.alone += len(rows)
            self._let_go(other, rows)
            yield self._held[other].portion.taken(rows)
        for other in touched:  # last, as the numbers of rows change
            self._cut_down(other)

    def _let_go(self, number, rows):
        """Count reads of a portion that no longer wait."""
        held = self._held[number]
        held.waiting -= len(rows)
        self._letters -= int(held.portion.lengths[rows].sum())

    def _cut_down(self, number):
        """Forget the reads of a portion that do not wait where they are many, and the portion where none waits."""
        held = self._held[number]
        if not held.waiting:
            del self._held[number]
        elif SPARSE * held.waiting < len(held.names):
            rows = self._rows(number)
            names = [held.names[row] for row in rows.tolist()]
            self._held[number] = _Held(held.portion.taken(rows), names, held.waiting)
            for row, name in enumerate(names):
                self._waiting[name] = number, row, self._waiting[name][2]

    def _rows(self, number):
        """Return the rows of a portion that wait."""
        names = enumerate(self._held[number].names)
        return np.array([row for row, name in names if self._waiting.get(name, ())[:2] == (number, row)], np.int64)

    def _released(self, most):
        """Yield the reads that wait longest, until those that still wait have at most so many letters."""
        while self._held and self._letters > most:
            number = next(iter(self._held))
            rows, held = self._rows(number), self._held[number]
            self.alone += len(rows)
            self._let_go(number, rows)
            for row in rows.tolist():
                del self._waiting[held.names[row]]
            del self._held[number]
            yield held.portion.taken(rows)
        while self._later and self._letters > most:
            _, portion = self._later.pop(0)
            self.alone += int((_read_names(portion)[1] > 0).sum()) if self.pairs else len(portion.lengths)
            self._letters -= len(portion.letters)
            yield portion


def _kinds(portion: Portion) -> set[int]:
    """Return which reads of pairs, 1 and 2, a portion may hold by its names or its file; empty where it holds none."""
    if portion.names is None or portion.qualities is None:
        return set()
    if portion.end:
        return {portion.end}
    text = b"\n".join(portion.names)
    return {int(mark[1:2]) for mark in _MARKS if mark in text}


def _read_names(portion: Portion) -> tuple[list[bytes], UInt8[np.ndarray, " n"]]:
    """Return the names of reads without what tells the two of a pair apart, and 1, 2 or 0 (neither) for each."""
    count = len(portion.lengths)
    found = _NAME.findall(b"\n".join(portion.names or []))
    names = [name for name, _, _ in found]
    if not portion.end:
        return names, np.array([int(slash or word or 0) for _, slash, word in found], np.uint8)
    mark = b".%d" % portion.end  # as the sequence archives write
    if all(name.endswith(mark) for name in names):
        names = [name[: -len(mark)] for name in names]
    return names, np.full(count, portion.end, np.uint8)


def _ends(portion, rows):
    """Return reads of a portion as rows."""
    reads = portion.taken(rows)
    real = np.arange(reads.lengths.max())[None] < reads.lengths[:, None]
    bases, qualities = np.full(real.shape, PAD, np.uint8), np.zeros(real.shape, np.uint8)
    bases[real], qualities[real] = reads.letters, reads.qualities
    return Ends(bases, reads.lengths, qualities)
