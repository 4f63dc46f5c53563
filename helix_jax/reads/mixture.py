"""Every pool of a mixture: strands of several files, perhaps with primers of their own, in one test tube or file.

One pool after the other is found (``header_search``), read, and taken out of the strands; what is left in the end
belongs to no pool that can be found. The strands are held in memory, a byte for each base.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt32

from helix_jax import compression, notes, packing
from helix_jax.errors import DecodeError
from helix_jax.reads import recover
from helix_jax.reads.report import ReadReport
from helix_jax.strands import header as headers
from helix_jax.strands import header_search, packets, received
from helix_jax.strands.header_search import Found
from helix_jax.strands.layouts import PORTION
from helix_jax.strands.written import Written
from helix_jax.writer import Progress, Received

WHOLE, LOSS, NOT = "yes", "with loss", "no"


@dataclass(frozen=True, eq=False)
class Member:
    """One pool of a mixture.

    Attributes:
        found: Its header, and how its strands are read.
        pool: The pool as far as it came back, or None where its header is forged or nothing else can be read of it.
        strands: Its strands that are there, each counted once, header strands included.
    """

    found: Found
    pool: Received | None
    strands: int

    @property
    def numbered(self) -> int:
        """The strands that the pool numbers: those that were written, and those that a screen left out."""
        head, bits = self.found.header, self.found.coder.bits
        return head.layout(bits).packets + headers.header_strands(bits, head.size)

    @property
    def decodable(self) -> str:
        """Whether its content comes back: WHOLE, LOSS (a picture with holes) or NOT."""
        if self.pool is None:
            return NOT
        head, recovered = self.found.header, self.pool.recovered
        kinds = [section.kind for section in head.sections] or ["tokens" if head.kind == "video" else "file"]
        whole = dict(zip(kinds, recovered.parts_verified, strict=True))
        if head.kind == "bytes":
            try:
                for _ in packing.unpacked(self.pool).parts:
                    pass
            except DecodeError:
                return NOT
            return WHOLE
        if all(good for kind, good in zip(kinds, recovered.parts_verified, strict=True) if kind != notes.KIND):
            return WHOLE
        some = any(whole.get(kind) for kind in ("preview", "av1"))
        return LOSS if some or ("tokens" in kinds and not recovered.lost.all()) else NOT

    @property
    def figures(self) -> dict[str, Any]:
        """What `list` shows of it."""
        head, written = self.found.header, self.found.written
        note = None
        if self.pool is not None:
            try:
                note = notes.received(self.pool)
            except DecodeError:
                note = None
        figures: dict[str, Any] = {"key": head.key.hex(), "kind": head.codec or "file"}
        if head.kind == "video":
            figures |= {"frames": head.frames, "height": head.height, "width": head.width, "fps": str(head.fps)}
        else:
            figures["size"] = note.size if note else _size(head)
        return figures | {
            "name": note.name if note else "",
            "constraints": head.constraints,
            "length": self.found.total,
            "left_primer": written.left,
            "right_primer": written.right,
            "forbid": list(written.motifs),
            "strands": self.strands,
            "strands_numbered": self.numbered,
            "decodable": self.decodable,
        }


def _size(head: headers.Header) -> int:
    """Return the bytes of a packed file."""
    stored = next((section for section in head.sections if section.kind == "file"), None)
    try:
        return head.content_bytes if stored is None else compression.original_size(stored) or stored.size
    except DecodeError:  # stored in a way that this release does not know
        return head.content_bytes


# ---- strands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rest:
    """The strands that no pool has claimed yet.

    Attributes:
        groups: The strands by their length.
        notes: What the comments of their file say (``fasta.Strands.notes``).
    """

    groups: dict[int, UInt8[np.ndarray, "_ _"]]
    notes: Sequence[tuple[str, Written]]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.groups.values()))

    def portions(self) -> Iterator[UInt8[np.ndarray, "n L"]]:
        """Yield the strands, those of one length at once."""
        yield from filter(len, self.groups.values())


def of_strands(
    strands: header_search.AnyStrands, written: Written | None = None, progress: Progress | None = None
) -> tuple[list[Member], int]:
    """Find every pool among strands.

    Args:
        strands: See ``header_search.portions``.
        written: Motifs and primers of pools of which the file says nothing.
        progress: Called as progress(station, done, total).

    Returns:
        The pools, in the order in which they are found, and the number of strands that belong to none of them.

    Raises:
        DecodeError: There is no pool.
    """
    groups: dict[int, list[np.ndarray]] = {}
    for part in header_search.portions(strands):
        groups.setdefault(part.shape[1], []).append(part)
    rest = _Rest({total: np.concatenate(parts) for total, parts in groups.items()}, list(getattr(strands, "notes", ())))
    everything, members = rest.count, []
    while True:
        try:
            heads = header_search.find_headers(rest, written, progress=progress)
        except DecodeError:
            if not members:
                raise
            return members, rest.count
        before = rest.count
        for alike in _alike(heads):
            more, rest.groups[alike[0].total] = _claimed(rest.groups[alike[0].total], alike)
            members += more
        told = {head.header.key.hex() for head in heads}
        rest = dataclasses.replace(rest, notes=[note for note in rest.notes if note[0] not in told])
        if progress:
            progress("strands", before - rest.count, everything)


def _alike(heads: Iterable[Found]) -> list[list[Found]]:
    """Return headers in groups of those whose strands are read in the same way."""
    ways: dict[Any, list[Found]] = {}
    for head in heads:
        ways.setdefault((head.total, head.coder.name, head.written), []).append(head)
    return list(ways.values())


def _claimed(rows: UInt8[np.ndarray, "n L"], heads: Sequence[Found]) -> tuple[list[Member], UInt8[np.ndarray, "m L"]]:
    """Return the pools of headers whose strands are read in one way, and the strands that belong to none of them."""
    owned: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in heads]
    left = []
    for begin in range(0, len(rows), PORTION):
        part = rows[begin : begin + PORTION]
        for turn in (False, True):
            bases = header_search.turned(part) if turn else part
            words, ok = heads[0].coder.read(header_search.core(bases, heads[0].written))
            taken = np.zeros(len(part), bool)
            for head, own in zip(heads, owned, strict=True):
                mine = ok & _is_of(head, words) & ~taken
                own.append((bases[mine], words[mine]))
                taken |= mine
            part = part[~taken]
        left.append(part)
    members = []
    for head, own in zip(heads, owned, strict=True):
        bases, words = map(np.concatenate, zip(*own, strict=True))
        words, first = np.unique(words, axis=0, return_index=True)
        members.append(of_decoded(received.Decoded(head, bases[first], words)))
    return members, np.concatenate(left)


def _is_of(head: Found, words: UInt32[np.ndarray, "n W"]) -> np.ndarray:
    """Return a mask of the words that are a packet or a header strand of a pool."""
    try:
        layout = head.header.layout(head.coder.bits)
    except headers.HeaderError:
        packet = np.zeros(len(words), bool)
    else:
        packet = packets.unpack(layout, head.header.key, words)[2]
    return packet | headers.is_header(words, head.coder.bits, head.header.key)


def of_decoded(decoded: received.Decoded) -> Member:
    """Return the pool of strands that have been decoded."""
    try:
        pool = received.read_pool(decoded, key=decoded.found.header.key)
    except DecodeError:  # the header claims what cannot be
        return Member(decoded.found, None, len(decoded))
    assert isinstance(pool.report, received.Report)  # of the writer of bases
    return Member(decoded.found, pool, pool.report.header_strands + pool.report.packets_received)


# ---- reads -----------------------------------------------------------------------------------------------------


def of_reads(
    chunks: Sequence[tuple], *, progress: Callable[[str, int, int | None], None] | None = None, **agreed: Any
) -> tuple[list[Member], int, int]:
    """Find the pools among a sequencer's reads that have the same primers, or none.

    They are pools of one strand length and one constraint set whose headers can be read from the reads that tell the
    first of them. The reads of others count as those that belong to none.

    Args:
        chunks: As for ``recover.recover``.
        progress: As for ``recover.recover``.
        **agreed: As for ``recover.recover``.

    Returns:
        The pools, the reads in all, and how many of them belong to none of the pools.

    Raises:
        DecodeError: There is no pool.
    """
    agreed["at_once"] = True  # or the first portion might show only some of the pools
    try:
        decoded, report = recover.recover(chunks, progress=progress, **agreed)
        members, reports = [of_decoded(decoded)], [report]
    except DecodeError as error:
        mixed = error.__cause__
        if not isinstance(mixed, header_search.MixedError):
            raise
        members, reports = [], []
        for head in mixed.heads:
            try:
                decoded, report = recover.recover(chunks, progress=progress, **(agreed | {"key": head.header.key}))
            except DecodeError:  # which says nothing of the others
                members.append(Member(head, None, 0))
                continue
            members.append(of_decoded(decoded))
            reports.append(report)
        if not reports:
            if not isinstance(error.report, ReadReport):
                raise
            reports.append(error.report)
    used = sum(report.used_reads + report.duplicate_reads for report in reports)
    return members, reports[0].reads, max(0, reports[0].reads - used)
