"""Strands that were read -> the header and the payload of a timing pool, as far as its codes reach.

Where the header has strands of its own, it is read first. Where it stands in front of the payload (``front``), the
number of strands is not known beforehand, and the code of the levels depends on it. So that number is tried: one more
than the highest that was read, or a few more, or less where a misread strand bears a number that is too high. The
header's CRC tells which one is right.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from helix_jax.errors import DecodeError
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer, reed_solomon
from helix_jax.timing import arrangement, correction, paths
from helix_jax.timing.front import KIND, NAME, front_of, packed_bytes, unpacked, width_of
from helix_jax.timing.reading import Strands
from helix_jax.timing.scheme import Scheme

REMEDY = "more copies of each strand are needed"
_BEYOND = (4, 16)  # last strands that may all be missing, where the header stands in front: likely, and at the most
_LEFT_OUT = 1, 3  # strands that may be wrong, where the header is sought, for whose code the surplus is not known yet
_SUSPECTS, _CHOICES = 12, 40  # strands that may be wrong, and how many sets of them are tried
_WRONG_LETTERS = 20  # level bits that are wrong where letters are
_GHOSTS = 2  # misread strands with a number that is too high, likewise

Progress = Callable[[str, int, int], None] | None


@dataclass(frozen=True, eq=False)
class Found:
    """A pool as far as it came back.

    Attributes:
        header: Its header.
        layout: Its layout.
        recovered: The payload.
        received: The packets that were read, without those that hold nothing but the header.
        header_strands: The strands that were read of those that hold the header.
        corrected: The level bits that the code of the levels changed.
        broken_groups: The groups of strands in which that code failed.
    """

    header: headers.Header
    layout: layouts.PacketLayout
    recovered: outer.Recovered
    received: int
    header_strands: int
    corrected: int
    broken_groups: int


class _Rows(NamedTuple):
    """Strands after the code of their levels.

    Attributes:
        position: Their numbers within the header, or within the pool without it.
        symbols: Their bytes.
        good: Mask of those that are the strand of some bytes.
        sound: Mask of those which no check of the levels contradicts.
        suspicion: As for ``correction.Corrected``.
        corrected: As for ``Found``.
        broken: As for ``Found.broken_groups``.
    """

    position: Int64[np.ndarray, " n"]
    symbols: UInt8[np.ndarray, "n s"]
    good: Bool[np.ndarray, " n"]
    sound: Bool[np.ndarray, " n"]
    suspicion: Float32[np.ndarray, " n"]
    corrected: int
    broken: int


def first(
    scheme: Scheme,
    readings: Iterator[Strands],
    reads: int,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[Found, Strands]:
    """Recover the payload of a pool from the first reading that gives all of it, or else from the last one.

    Args:
        scheme: As for ``recover``.
        readings: Readings of the strands, with more strands each time (``reading.read``); at least one.
        reads: As for ``recover``.
        key: As for ``recover``.
        progress: As for ``recover``.

    Returns:
        What came back, and the reading that it is from.

    Raises:
        DecodeError: The header cannot be read from the last reading, or it is that of another pool or scheme.
    """
    found, strands, failure = None, None, None
    for strands in readings:
        try:
            found, failure = recover(scheme, strands, reads, key, progress), None
        except DecodeError as error:
            found, failure = None, error
        if found and found.recovered.verified:
            break
        progress = None  # strands count once
    if failure:
        raise failure
    assert found
    assert strands
    return found, strands


def recover(scheme: Scheme, strands: Strands, reads: int, key: bytes | None = None, progress: Progress = None) -> Found:
    """Recover the payload of a pool.

    Args:
        scheme: The scheme.
        strands: The strands that were read.
        reads: The number of reads, for ``layouts.check_claim``.
        key: The id that the pool must have, or None for any.
        progress: Called as progress(station, done, total).

    Raises:
        DecodeError: The header cannot be read, or it is that of another pool or scheme.
    """
    apart = _header(scheme, strands)
    if apart is None and scheme.version > 1:
        return _in_front(scheme, strands, key, progress)
    if apart is None:
        raise DecodeError(
            f"too few of the {arrangement.header_layout(scheme).packets} strands of the header can be read: {REMEDY}, "
            "and those of one pool alone"
        )
    head, found = apart
    _check(scheme, head, key)
    layout = _layout_of(scheme, head, reads)
    first = arrangement.header_layout(scheme, head.size).packets if scheme.version == 1 else 0
    rows = _read(scheme, strands, strands.index - first, layout.packets, progress)
    genuine = head.genuine()
    surplus = len(rows.position) - layout.sources if scheme.version > 1 else 0
    recovered, received = _outer(
        layout, rows, surplus, lambda index, symbols: outer.decode(layout, index, symbols, genuine)
    )
    return Found(
        head, layout, recovered, int(received.sum()), int(found.good.sum()), rows.corrected + found.corrected,
        rows.broken + found.broken,
    )  # fmt: skip


def _outer(layout, rows, surplus, decode):
    """Decode the outer code: with all strands, and if that fails without some of them.

    A strand beside a wrong one fails the same checks, and so the outer code had better find the wrong ones itself. It
    finds half as many as it could replace, though. So the strands that a check contradicts are left out next, then the
    most suspicious ones, one more each time, and then others as suspicious. The digest of the payload says when it is
    right.
    Returns (outer.Recovered, mask of the strands that were used).
    """
    good = rows.good & ~rows.symbols[:, layout.symbol_bytes :].any(axis=1)
    symbols = rows.symbols[:, : layout.symbol_bytes]
    first = decode(rows.position[good], symbols[good])
    if first.verified:
        return first, good
    for used in _choices(rows, good, surplus):
        recovered = decode(rows.position[used], symbols[used])
        if recovered.verified:
            return recovered, used
    return first, good


def _choices(rows, good, surplus) -> Iterator[Bool[np.ndarray, " n"]]:
    """Yield masks of strands that may all be right, without some of the ``good`` ones."""
    if not rows.sound[good].all():
        yield good & rows.sound
    order = np.flatnonzero(good)[np.argsort(-rows.suspicion[good], kind="stable")][:_SUSPECTS].tolist()
    surplus -= int(np.count_nonzero(~good))
    left_out = [order[:n] for n in range(1, 1 + min(surplus, len(order)))]
    if surplus > 0:
        left_out += itertools.islice(itertools.combinations(order, surplus), _CHOICES)
    for strands in left_out:
        mask = good.copy()
        mask[list(strands)] = False
        yield mask


def _check(scheme, head, key):
    """Raise DecodeError for a header of another scheme or pool."""
    if head.constraints != NAME or head.tables_hash != arrangement.digest(scheme)[:8]:
        raise DecodeError(f"this pool was written with another scheme than {scheme.name}: give that one with --scheme")
    if key is not None and key != head.key:
        raise DecodeError(f"these reads belong to the pool with key {head.key.hex()}, not to {key.hex()}")


# ---- the strands ---------------------------------------------------------------------------------------


def _read(scheme, strands, position, total, progress=None):
    """Read the strands with the numbers ``position`` of ``total`` strands; others are left out."""
    inside = np.flatnonzero((position >= 0) & (position < total))
    symbols = np.zeros((len(inside), arrangement.symbol_bytes(scheme)), np.uint8)
    good, sound, corrected, broken = np.zeros(len(inside), bool), np.zeros(len(inside), bool), 0, 0
    suspicion = np.zeros(len(inside), np.float32)
    position = position[inside]
    for start, size in arrangement.groups(scheme, total):
        own = np.flatnonzero((position >= start) & (position < start + size))
        if len(own):
            symbols[own], good[own], found = _read_group(scheme, strands, inside[own], position[own] - start, size)
            sound[own] = found.sound[position[own] - start]
            letters = _WRONG_LETTERS / (1 + np.exp(np.minimum(strands.odds[inside[own]], 50)))
            suspicion[own] = found.suspicion[position[own] - start] + letters
            corrected, broken = corrected + found.changed, broken + (not found.ok)
        if progress:
            progress("repair", size, total)
    return _Rows(position, symbols, good, sound, suspicion, corrected, broken)


def _read_group(scheme, strands, rows, position, size):
    """Read the strands ``rows``, which have these positions in a group of ``size`` strands.

    Returns (symbols, good bool[rows], correction.Corrected).
    """
    likelihood = np.zeros((size, scheme.data, scheme.levels), np.float32)
    parity, doubt = np.zeros((size, scheme.parity), np.uint8), np.full(size, np.inf, np.float32)
    likelihood[position], parity[position] = strands.likelihood[rows], strands.parity[rows]
    doubt[position] = strands.doubt[rows]
    found = correction.correct(scheme, likelihood, parity, doubt)
    symbols, good = paths.read(paths.coder(scheme), strands.letters[rows], found.levels[position])
    return arrangement.whitened(symbols, strands.index[rows]), good, found


# ---- a header in strands of its own ----------------------------------------------------------------------


def _header(scheme, strands):
    """Return (header, its _Rows), or None where it cannot be read, or stands in front of the payload.

    In version 2 a misread strand, or one of a pool with almost as many strands as the index can number, may look like
    one of the header.
    """
    number = strands.index if scheme.version == 1 else 3**scheme.index - 1 - strands.index
    for size in headers.SIZES:  # the usual one is the first
        layout = arrangement.header_layout(scheme, size)
        if np.count_nonzero((number >= 0) & (number < layout.packets)) < layout.sources:
            break
        rows = _read_header(scheme, strands, number, layout.packets)
        recovered = outer.decode(layout, rows.position[rows.good], rows.symbols[rows.good], headers.intact)
        if recovered.verified:
            return _parsed(recovered.payload), rows
    return None


def _read_header(scheme, strands, number, packets):
    """Read the strands of the header, which are one group, or of letters alone in version 2."""
    inside = np.flatnonzero((number >= 0) & (number < packets))
    if scheme.version > 1:
        letters = strands.letters[inside]
        symbols, good = paths.read(paths.plain_coder(scheme), letters, np.zeros_like(letters))
        symbols = arrangement.whitened(symbols, strands.index[inside])
        return _Rows(number[inside], symbols, good, good, np.zeros(len(inside), np.float32), 0, 0)
    symbols, good, found = _read_group(scheme, strands, inside, number[inside], packets)
    inside = number[inside]
    return _Rows(inside, symbols, good, found.sound[inside], found.suspicion[inside], found.changed, int(not found.ok))


def _parsed(data):
    try:
        return headers.Header.from_bytes(data)
    except headers.HeaderError as error:
        raise DecodeError(str(error)) from error


def _layout_of(scheme, head, reads):
    """Return the layout that a header in strands of its own states. Raises DecodeError where it makes no sense."""
    room = arrangement.symbol_bytes(scheme)
    most = 3**scheme.index - arrangement.header_layout(scheme, head.size).packets
    claimed = head.sources + head.repairs + sum(section.repairs for section in head.sections)
    if head.symbol_bytes > room or claimed > most:  # before anything grows with these numbers
        raise DecodeError(
            f"the header speaks of {claimed:,} strands with {head.symbol_bytes} bytes each, and scheme {scheme.name} "
            f"has {most:,} with {room}: forged?"
        )
    parts = tuple(section.part(head.symbol_bytes) for section in head.sections)
    layout = layouts.wide(head.symbol_bytes, parts or (layouts.Part(head.sources, head.repairs),), bool(parts))
    if layout.packets > most:
        raise DecodeError(f"the header speaks of {layout.packets:,} strands, and there are {most:,} at most: forged?")
    layouts.check_claim(layout, reads)
    layout = dataclasses.replace(layout, header_bytes=head.size, reed_solomon=scheme.version > 1)
    return arrangement.numbered(scheme, layout)


# ---- a header in front of the payload --------------------------------------------------------------------


def _in_front(scheme, strands, key, progress):
    """Recover a pool whose header stands in front of the payload."""
    for total in _totals(strands.index, strands.total):
        rows = _read(scheme, strands, strands.index, total, progress)
        progress = None  # the strands count once, however many numbers are tried
        for head in _headers(rows, total):
            _check(scheme, head, key)
            layout = arrangement.front_layout(scheme, head)
            front = None if layout is None else front_of(layout)
            if layout is None or front is None or front.layout.packets != total:
                continue
            surplus = len(rows.position) - front.layout.sources
            recovered, used = _outer(layout, rows, surplus, functools.partial(front.decode, head))
            held = rows.position[used] >= front.rows - bool(front.tail)
            return Found(
                head, layout, recovered, int(held.sum()), int((rows.position[used] < front.rows).sum()),
                rows.corrected, rows.broken,
            )  # fmt: skip
    raise DecodeError(f"the header cannot be read, nor repaired from the other strands: {REMEDY}, of one pool alone")


def _totals(index, known) -> Iterator[int]:
    """Yield the possible numbers of strands, the most likely ones first, or the one that the code of the tags found."""
    highest = np.unique(index)[::-1][: 1 + _GHOSTS].tolist()
    likely, most = (range(1, count + 1) for count in _BEYOND)
    totals = [
        number + n for numbers, beyond in ((highest, likely), (highest[:1], most)) for number in numbers for n in beyond
    ]
    totals = dict.fromkeys([known] if known else totals)
    yield from (total for total in totals if total <= layouts.MOST_EXACT)


def _headers(rows, total) -> Iterator[headers.Header]:
    """Yield the headers that stand in front of these strands: as read, and as the other strands repair it."""
    table = np.zeros((total, rows.symbols.shape[1]), np.uint8)
    lost = int(np.count_nonzero(~rows.good))
    for mask in itertools.chain([rows.good], *(_choices(rows, rows.good, lost + more) for more in _LEFT_OUT)):
        position = rows.position[mask]
        table[:] = 0
        table[position] = rows.symbols[mask]
        missing = np.setdiff1d(np.arange(total), position)
        yield from _header_at(table, missing)
        for gone in (missing, np.union1d(missing, [0])):  # the first strand itself may be wrong
            if 0 < len(gone) <= total // 2:
                yield from _header_at(reed_solomon.filled(table, gone.tolist()), gone[:0])


def _header_at(table, missing) -> Iterator[headers.Header]:
    """Yield the header at the beginning of a table of strands, if it is there and none of its strands is missing."""
    width = width_of(table[0])
    if not 0 < width <= table.shape[1]:
        return
    rows = -(-packed_bytes(bool(table[0, KIND] == 0)) // width)
    if rows <= len(table) and not (missing < rows).any():
        data = unpacked(table[:rows, :width].tobytes())
        if headers.intact(data):
            yield _parsed(data)
