"""Tags: a part of the hash of every strand, protected over all strands, for those that cannot be read without it.

A check letter helps its own strand alone, and most strands could do with fewer of them. So a strand has few, and its
hash is tagged along the way (``frame.Frame.tag_rounds``). The tags are not written: they are bytes of a Reed-Solomon
code over the strands of a group, of which each strand writes a ``shared`` part. The strands that are read give their
own tags, which are thus known for nothing, and the code fills in those of the others. With them, these others are
aligned again, as if they had many more check letters. The code also finds strands that were misread.

    column c     tag byte c of the strands 0, 1, ... of the group | repair symbols 0, 1, ...
    strand s     writes the shared bytes s * n, ..., s * n + n - 1: byte i is repair symbol i // C of column i % C

A group has ``Tagging.strands`` strands. Those that a pool does not have count as strands whose tags are zero, and
nobody writes their repair symbols.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from helix_jax.strands import reed_solomon
from helix_jax.strands.layouts import MOST_EXACT
from helix_jax.timing.frame import TAG_BITS

PER_BYTE = 8 // TAG_BITS
_SPARE = 2  # repair symbols that are left must agree before a strand is called misread, or the last strand another one
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

    @property
    def repairs(self) -> int:
        """The repair symbols of a column of a full group."""
        return -(-self.strands * self.shared // self.columns)

    @property
    def fits(self) -> bool:
        """Whether a group is not too large for the code."""
        return self.strands + self.repairs <= MOST_EXACT


class Known(NamedTuple):
    """The tags of the strands of a group.

    Attributes:
        tags: The tag bytes.
        sure: Mask of the columns in which they are known.
        wrong: Mask of the strands whose own tags were found to be wrong.
    """

    tags: UInt8[np.ndarray, "strands columns"]
    sure: Bool[np.ndarray, " columns"]
    wrong: Bool[np.ndarray, " strands"]


def to_bytes(tags: Int[np.ndarray, "n tags"]) -> UInt8[np.ndarray, "n columns"]:
    """Return tags as bytes, four in a byte, the first one lowest."""
    parts = np.asarray(tags, np.int64).reshape(len(tags), -1, PER_BYTE)
    return (parts << TAG_BITS * np.arange(PER_BYTE)).sum(axis=-1).astype(np.uint8)


def from_bytes(rows: UInt8[np.ndarray, "n columns"], sure: Bool[np.ndarray, "n columns"]) -> Int[np.ndarray, "n tags"]:
    """Return bytes as tags, -1 where they are not known: the inverse of ``to_bytes``."""
    parts = rows[..., None].astype(np.int32) >> TAG_BITS * np.arange(PER_BYTE, dtype=np.int32) & (1 << TAG_BITS) - 1
    return np.where(sure[..., None], parts, -1).reshape(len(rows), -1).astype(np.int32)


def parity(code: Tagging, tags: UInt8[np.ndarray, "n columns"]) -> UInt8[np.ndarray, "n shared"]:
    """Return the shared bytes of the strands of one group, which has n strands."""
    full = np.zeros((code.strands, code.columns), np.uint8)
    full[: len(tags)] = tags
    repair = reed_solomon.ReedSolomon(code.repairs).repair_symbols(full, code.repairs)
    return repair.reshape(-1)[: len(tags) * code.shared].reshape(len(tags), code.shared)


def known(
    code: Tagging,
    position: Int[np.ndarray, " n"],
    tags: UInt8[np.ndarray, "n columns"],
    shared: UInt8[np.ndarray, "n shared"],
    valid: Bool[np.ndarray, " n"],
) -> Known:
    """Return the tags of all strands of a group.

    How many strands the group has is not known. It is tried: as many as the highest position says, or a few more where
    the last ones are missing, or fewer where the highest ones are those of misread strands.

    Args:
        code: The code.
        position: The positions in the group of the strands that were read.
        tags: Their tags.
        shared: Their shared bytes.
        valid: Mask of those whose shared bytes can be used.
    """
    highest = np.unique(position)[::-1][: 1 + _GHOSTS].tolist()
    ends = dict.fromkeys(min(last + 1 + n, code.strands) for last in highest for n in range(1 + _BEYOND))
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
    full = np.zeros((code.strands + code.repairs, code.columns), np.uint8)
    missing = np.zeros(full.shape, bool)
    missing[:end] = True
    missing[code.strands :] = True
    full[position], missing[position] = tags, False
    number = (position[valid, None] * code.shared + np.arange(code.shared)).reshape(-1)
    row, column = code.strands + number // code.columns, number % code.columns
    full[row, column], missing[row, column] = shared[valid].reshape(-1), False
    wrong, sure = np.zeros(code.strands, bool), np.zeros(code.columns, bool)
    result = np.zeros((code.strands, code.columns), np.uint8)
    for c in range(code.columns):
        erased = np.flatnonzero(missing[:, c])
        fixed = reed_solomon.corrected(full[:, c], erased, code.repairs)
        if fixed is None or fixed[end : code.strands].any():
            continue
        changed = (fixed != full[:, c]) & ~missing[:, c]
        if (guessed or changed.any()) and code.repairs - len(erased) - 2 * changed.sum() < _SPARE:
            continue
        result[:, c], sure[c] = fixed[: code.strands], True
        wrong |= changed[: code.strands]
    return Known(result, sure, wrong)
