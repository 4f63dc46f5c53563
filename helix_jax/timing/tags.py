"""Tags: a part of the hash of every strand, protected over all strands, for those that cannot be read without it.

A check letter helps its own strand alone, and most strands could do with fewer of them. So a strand has few, and its
hash is tagged along the way (``frame.Frame.tag_rounds``). The tags are not written: they are bytes of a Reed-Solomon
code over the strands of a group, of which each strand writes a ``shared`` part. The strands that are read give their
own tags, which are thus known for nothing, and the code fills in those of the others. With them, these others are
aligned again, as if they had many more check letters. The code also finds strands that were misread.

    column c     tag byte c of the strands 0, 1, ... of the group | repair symbols 0, 1, ...
    strand s     writes n bytes of the repair symbols, which follow each other in turns: three times the next symbols of
                 all columns, then once those of all but the last one, of all but the last two, and so on

So each column has more repair symbols than the next one, the first of four twice as many as the last. The first is
known where a quarter of the strands are not read yet, and shows which ones are misread; the next follow when fewer are
left. The tags of each column are spread over the whole strand.

A group has ``Tagging.strands`` strands. Those that a pool does not have count as strands whose tags are zero, and
nobody writes their repair symbols.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from helix_jax.strands import reed_solomon
from helix_jax.strands.layouts import MOST_EXACT
from helix_jax.timing.frame import TAG_BITS

PER_BYTE = 8 // TAG_BITS
_EVEN = 3  # parts of a turn in which all columns have a symbol
_SPARE = 1  # repair symbols beyond those that the lost and the wrong ones take, which must agree with the rest
_GHOSTS = 2  # the last strands of a group may be misread ones, whose numbers are too high
_BEYOND = 4  # last strands of a group that may all be missing


@dataclass(frozen=True)
class Tagging:
    """The code of the tags.

    Attributes:
        columns: The tag bytes of a strand.
        shared: The bytes that a strand writes.
        strands: The strands of a full group.
    """

    columns: int
    shared: int
    strands: int

    @cached_property
    def symbols(self) -> Int[np.ndarray, "2 bytes"]:
        """The column and the number of the repair symbol that each byte is, for the bytes of a full group."""
        sizes = [self.columns] * (_EVEN - 1) + list(range(self.columns, 0, -1))
        column, part = np.concatenate([np.arange(size) for size in sizes]), np.repeat(np.arange(len(sizes)), sizes)
        turn, place = np.divmod(np.arange(self.strands * self.shared), len(column))
        often = np.bincount(column)
        return np.stack([column[place], turn * often[column[place]] + part[place]])

    @cached_property
    def repairs(self) -> tuple[int, ...]:
        """The repair symbols of each column of a full group."""
        return tuple(np.bincount(self.symbols[0], minlength=self.columns).tolist())

    @property
    def fits(self) -> bool:
        """Whether a group is not too large for the code."""
        return self.strands + max(self.repairs) <= MOST_EXACT


class Known(NamedTuple):
    """The tags of the strands of a group.

    Attributes:
        strands: How many strands the group has, as far as it is known.
        tags: The tag bytes.
        sure: Mask of the columns in which they are known.
        wrong: Mask of the strands whose own tags were found to be wrong.
    """

    strands: int
    tags: UInt8[np.ndarray, "strands columns"]
    sure: Bool[np.ndarray, " columns"]
    wrong: Bool[np.ndarray, " strands"]


def to_bytes(tags: Int[np.ndarray, "n tags"]) -> UInt8[np.ndarray, "n columns"]:
    """Return tags as bytes: the first tags are the lowest bits of all columns."""
    parts = np.asarray(tags, np.int64).reshape(len(tags), PER_BYTE, -1)
    return (parts << TAG_BITS * np.arange(PER_BYTE)[:, None]).sum(axis=1).astype(np.uint8)


def from_bytes(rows: UInt8[np.ndarray, "n columns"], sure: Bool[np.ndarray, "n columns"]) -> Int[np.ndarray, "n tags"]:
    """Return bytes as tags, -1 where they are not known: the inverse of ``to_bytes``."""
    shift = TAG_BITS * np.arange(PER_BYTE, dtype=np.int32)[:, None]
    parts = rows[:, None].astype(np.int32) >> shift & (1 << TAG_BITS) - 1
    return np.where(sure[:, None], parts, -1).reshape(len(rows), -1).astype(np.int32)


def parity(code: Tagging, tags: UInt8[np.ndarray, "n columns"]) -> UInt8[np.ndarray, "n shared"]:
    """Return the shared bytes of the strands of one group, which has n strands."""
    full = np.zeros((code.strands, code.columns), np.uint8)
    full[: len(tags)] = tags
    repair = np.zeros((max(code.repairs), code.columns), np.uint8)
    for c, number in enumerate(code.repairs):
        repair[:number, c] = reed_solomon.ReedSolomon(number).repair_symbols(full[:, c : c + 1], number)[:, 0]
    column, symbol = code.symbols[:, : len(tags) * code.shared]
    return repair[symbol, column].reshape(len(tags), code.shared)


def known(
    code: Tagging,
    position: Int[np.ndarray, " n"],
    tags: UInt8[np.ndarray, "n columns"],
    shared: UInt8[np.ndarray, "n shared"],
    valid: Bool[np.ndarray, " n"],
    *,
    last: bool = True,
) -> Known:
    """Return the tags of all strands of a group.

    How many strands the last group has is not known. It is tried: as many as the highest position says, or a few more
    where the last ones are missing, or fewer where the highest ones are those of misread strands. Other groups are
    full, which is tried first, as the strand that says that there is another group may be a misread one.

    Args:
        code: The code.
        position: The positions in the group of the strands that were read.
        tags: Their tags.
        shared: Their shared bytes.
        valid: Mask of those whose shared bytes can be used.
        last: Whether it is the last group of the pool.
    """
    highest = np.unique(position)[::-1][: 1 + _GHOSTS].tolist()
    ends = [min(top + 1 + n, code.strands) for top in highest for n in range(1 + _BEYOND)]
    ends = dict.fromkeys(ends if last else [code.strands, *ends])
    attempts = []
    for end in ends:
        attempts.append(_known(code, end, position, tags, shared, valid, guessed=bool(attempts)))
        if attempts[-1].sure.all():
            break
    return max(attempts, key=lambda attempt: attempt.sure.sum())


def _known(code, end, position, tags, shared, valid, guessed):
    """Return the Known of a group whose strands are those before ``end``, which may be no more than a guess."""
    inside = position < end
    position, tags, shared, valid = position[inside], tags[inside], shared[inside], valid[inside]
    full = np.zeros((code.strands + max(code.repairs), code.columns), np.uint8)
    missing = np.zeros(full.shape, bool)
    missing[:end] = True
    missing[code.strands :] = True
    full[position], missing[position] = tags, False
    column, symbol = code.symbols[:, (position[valid, None] * code.shared + np.arange(code.shared)).reshape(-1)]
    full[code.strands + symbol, column], missing[code.strands + symbol, column] = shared[valid].reshape(-1), False
    wrong, sure = np.zeros(code.strands, bool), np.zeros(code.columns, bool)
    result = np.zeros((code.strands, code.columns), np.uint8)
    for c, repairs in enumerate(code.repairs):
        word, lost = full[: code.strands + repairs, c], missing[: code.strands + repairs, c]
        fixed = reed_solomon.corrected(word, np.flatnonzero(lost), repairs)
        if fixed is None or fixed[end : code.strands].any():
            continue
        changed = (fixed != word) & ~lost
        if repairs - lost.sum() - 2 * changed.sum() < _SPARE + (guessed or changed.any()):
            continue
        result[:, c], sure[c] = fixed[: code.strands], True
        wrong |= changed[: code.strands]
    return Known(end, result, sure, wrong)
