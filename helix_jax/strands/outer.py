"""Outer erasure code: payload bytes <-> packet symbols, RaptorQ (RFC 6330) over source blocks, or Reed-Solomon.

The code is systematic: source symbols are the payload itself. A block of RaptorQ comes back from any packets, as many
as it has source symbols, except in about 1 case in 300; with two more the code practically never fails. A layout may
want Reed-Solomon codes for its blocks of up to 255 packets, which never fail with as many packets as source symbols.

Packets that reach ``decode`` have passed their own check, yet one in 2**check_bits garbled strands does so by chance,
and one wrong packet spoils every symbol solved from it. The digest of the payload catches that. The packets that a
block has beyond its source symbols (its surplus) then tell which ones are wrong: see ``audit``.
"""

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from helix_jax.strands import audit, raptor
from helix_jax.strands.layouts import BLOCK_BYTES, PacketLayout
from helix_jax.strands.reed_solomon import ReedSolomon

Buffer = bytes | bytearray | memoryview
Genuine = Callable[[Buffer], bool] | Sequence[Callable[[Buffer], bool]]  # of the one part, or of each

DIGEST_BYTES = 16
_PROVEN = 3  # surplus at which a consistent block is beyond doubt: a wrong packet hides with probability 256**-surplus


@dataclass(frozen=True, eq=False)
class Recovered:
    """What ``decode`` made of the packets.

    When ``verified`` is False, the payload may hold wrong bytes even where neither ``lost`` nor ``suspect`` is set,
    each symbol with the probability that a wrong packet passed its own check.

    Attributes:
        symbols: The payload with zeros behind it; lost source symbols are zeros.
        payload_bytes: Length of the payload.
        lost: Mask of the source symbols that were neither received nor recovered.
        suspect: Mask of the source symbols that were received, but in a block that holds a wrong packet which could not
            be found.
        rejected: Indices, in ascending order, of which a received copy was found wrong or contradicted by another copy.
        parts_verified: Whether the digest of each part of the payload matches.
    """

    symbols: UInt8[np.ndarray, "sources symbol_bytes"]
    payload_bytes: int
    lost: Bool[np.ndarray, " sources"]
    suspect: Bool[np.ndarray, " sources"]
    rejected: Int64[np.ndarray, " r"]
    parts_verified: tuple[bool, ...]

    @property
    def verified(self) -> bool:
        """Whether the digests of all parts match."""
        return all(self.parts_verified)

    @property
    def payload(self) -> bytes:
        """The payload as bytes, which is a copy."""
        return self.symbols.tobytes()[: self.payload_bytes]


def payload_digest(payload: Buffer) -> bytes:
    """Return the first DIGEST_BYTES bytes of the SHA-256 of a payload."""
    return hashlib.sha256(payload).digest()[:DIGEST_BYTES]


def matching(digest: bytes) -> Callable[[Buffer], bool]:
    """Return the test "``payload_digest`` begins with ``digest``" of a part of the payload, for ``decode``."""
    return lambda payload: payload_digest(payload)[: len(digest)] == digest


def encode(layout: PacketLayout, payload: Buffer) -> UInt8[np.ndarray, "packets symbol_bytes"]:
    """Return the symbols of all packets in the order of the global index.

    Raises ValueError when the payload has not the length that the layout was planned for.
    """
    if len(payload) != layout.payload_bytes:
        raise ValueError(f"payload of {len(payload)} bytes; the layout was planned for {layout.payload_bytes}")
    symbols = np.zeros((layout.packets, layout.symbol_bytes), np.uint8)
    symbols[: layout.sources].reshape(-1)[: len(payload)] = np.frombuffer(payload, np.uint8)
    repaired = layout.sources
    for start, size, count, repair in groups(layout):
        coded = repairs(symbols[start : start + size * count], count, repair, code_of(layout, size, repair))
        symbols[repaired : repaired + len(coded)] = coded
        repaired += len(coded)
    return symbols


def groups(layout: PacketLayout) -> Iterator[tuple[int, int, int, int]]:
    """Yield neighbouring blocks of one size that are coded side by side.

    Each item is (first source symbol, source symbols of each block, number of blocks, repair symbols of each block).
    Columns are coded independently, so blocks of one size share an encoder, which is ten times faster.
    """
    start = 0
    shapes = zip(layout.block_sources, layout.block_repairs, strict=True)
    for (size, repair), same in itertools.groupby(shapes):
        remaining = len(list(same))
        side_by_side = max(1, BLOCK_BYTES // (size * layout.symbol_bytes) - 1)
        while remaining:
            count = min(side_by_side, remaining)
            yield start, size, count, repair
            start, remaining = start + count * size, remaining - count


def code_of(layout: PacketLayout, sources: int, repairs: int) -> Any:
    """Return the code of a block of so many symbols: it has the functions of ``raptor``."""
    return ReedSolomon(repairs) if layout.exact(sources, repairs) else raptor


def repairs(
    symbols: UInt8[np.ndarray, "n width"], blocks: int, number: int, code: Any = raptor
) -> UInt8[np.ndarray, "r width"]:
    """Return the repair symbols of neighbouring blocks.

    Args:
        symbols: The source symbols of the blocks, block by block.
        blocks: Number of blocks, which have one size.
        number: Repair symbols of each block.
        code: Their code.

    Returns:
        The repair symbols, block by block.
    """
    if not number:
        return symbols[:0]
    width = symbols.shape[1]
    data = symbols.reshape(blocks, -1, width).transpose(1, 0, 2)
    coded = code.repair_symbols(data.reshape(len(data), blocks * width), number)
    return coded.reshape(number, blocks, width).transpose(1, 0, 2).reshape(-1, width)


def decode(
    layout: PacketLayout,
    index: Integer[np.ndarray, " n"],
    symbols: UInt8[np.ndarray, "m width"],
    genuine: Genuine,
    progress: Callable[[int, int], None] | None = None,
) -> Recovered:
    """Recover the payload from packets that passed their check.

    Args:
        layout: The layout of the pool.
        index: Global indices, in any order; repeats are allowed.
        symbols: The symbol of each packet.
        genuine: See ``Packets.recover``, which also says what is done about wrong packets.
        progress: See ``Packets.recover``.

    Returns:
        The payload, as far as it can be recovered.

    Raises:
        ValueError: For wrong shapes or an index out of range.
    """
    packets = Packets(layout)
    packets.add(index, symbols)
    return packets.recover(genuine, progress)


class Packets:
    """The packets of one pool as they come in, in any order: one copy of each in memory, whatever their number.

    Attributes:
        layout: The layout of the pool.
        symbols: uint8[packets, symbol_bytes], in the order of the global index.
        copies: uint16[packets], how many equal copies of each packet came, 0 for none.
    """

    def __init__(self, layout: PacketLayout):
        self.layout = layout
        self.symbols = np.zeros((layout.packets, layout.symbol_bytes), np.uint8)
        self.copies = np.zeros(layout.packets, np.uint16)
        self._others = collections.defaultdict(collections.Counter)  # index -> other symbols that claim it

    def add(self, index: Integer[np.ndarray, " n"], symbols: UInt8[np.ndarray, "m width"]) -> None:
        """Take in packets that passed their check: their global indices and their symbols.

        Raises ValueError for wrong shapes or an index out of range.
        """
        index, symbols = np.asarray(index, np.int64), np.asarray(symbols)
        if symbols.shape != (index.size, self.layout.symbol_bytes) or symbols.dtype != np.uint8 or index.ndim != 1:
            raise ValueError(
                f"{index.shape} indices and {symbols.dtype}{list(symbols.shape)} symbols; "
                f"the layout wants int[n] and uint8[n, {self.layout.symbol_bytes}]"
            )
        if index.size and not 0 <= index.min() <= index.max() < self.layout.packets:
            raise ValueError(
                f"packet index out of range: {index.min()}..{index.max()} of {self.layout.packets} packets"
            )
        first = np.unique(index, return_index=True)[1]
        first = first[self.copies[index[first]] == 0]
        self.symbols[index[first]] = symbols[first]
        same = (self.symbols[index] == symbols).all(axis=1)
        seen, counts = np.unique(index[same], return_counts=True)
        self.copies[seen] = np.minimum(self.copies[seen] + counts, 0xFFFF)
        for row in np.flatnonzero(~same):
            self._others[int(index[row])][symbols[row].tobytes()] += 1

    @property
    def received(self) -> int:
        """Number of distinct packets."""
        return int(np.count_nonzero(self.copies))

    def recover(self, genuine: Genuine, progress: Callable[[int, int], None] | None = None) -> Recovered:
        """Repair what can be repaired. The packets are used up.

        Copies of an index that differ are settled by the majority; without a majority, all of them are left out. Wrong
        packets are found and left out as long as a block has two surplus packets more than wrong ones (and no more than
        symbol_bytes or 64 wrong ones); with one more, by trying against the digest. Beyond that the block's recovered
        symbols count as lost and its received ones as suspect.

        Args:
            genuine: Tells of the bytes of a whole part (a buffer) whether they are the true ones (see ``matching``);
                where there are several parts, one function for each.
            progress: Called as progress(blocks done, blocks in all) after each block. Where no payload is genuine then,
                a second pass of about a second per damaged block looks for wrong packets.

        Returns:
            The payload, as far as it can be recovered.
        """
        tests = [genuine] if callable(genuine) else genuine
        contradicted = self._settle()
        blocks, found = _blocks(self), []
        for done, block in enumerate(blocks, start=1):
            found.append([block.solved()])
            if progress is not None:
                progress(done, len(blocks))
        settled, doubtful, verified = [], set(), []
        for part, test in enumerate(tests):
            numbers = [n for n, owner in enumerate(self.layout.block_parts) if owner == part]
            own, readings = [blocks[n] for n in numbers], [found[n] for n in numbers]
            chosen = self._choose(part, own, readings, test)
            if chosen is None:
                readings = [block.audited() for block in own]
                chosen = self._choose(part, own, readings, test)
            verified.append(chosen is not None)
            settled += chosen if chosen is not None else [findings[0] for findings in readings]
            doubtful |= {numbers[n] for n in _doubtful(readings)} if chosen is None else set()
        return self._assemble(blocks, settled, doubtful, contradicted, tuple(verified))

    def _settle(self):
        """Keep the most frequent of the copies that differ, and return the contradicted indices in ascending order."""
        for index, others in self._others.items():
            variants = others + collections.Counter({self.symbols[index].tobytes(): int(self.copies[index])})
            (best, most), *rest = variants.most_common()
            self.symbols[index] = np.frombuffer(best, np.uint8)
            if rest and rest[0][1] == most:
                self.symbols[index], self.copies[index] = 0, 0
        return np.array(sorted(self._others), np.int64)

    def _payload(self, part):
        """Return a part of the payload as a buffer, without a copy."""
        begin = sum(before.sources for before in self.layout.parts[:part])
        own = self.symbols[begin : begin + self.layout.parts[part].sources].reshape(-1).data
        return own if self.layout.sections else own[: self.layout.payload_bytes]

    def _choose(self, part, blocks, found, genuine):
        """Return the findings, one of each block of a part, whose payload has the digest; None without such findings.

        ``symbols`` is left with them in place, or as it was.
        """
        if any(finding.data is None for findings in found for finding in findings):
            return None
        for choice in itertools.islice(itertools.product(*found), 4 * audit.ATTEMPTS):
            before = [block.put(finding) for block, finding in zip(blocks, choice, strict=True)]
            if genuine(self._payload(part)):
                return list(choice)
            for block, finding, rows in zip(blocks, choice, before, strict=True):
                block.put(finding, rows)
        return None

    def _assemble(self, blocks, settled, doubtful, contradicted, verified):
        """Put the blocks together; where one is unsolved or doubtful, keep what was received and no more."""
        layout = self.layout
        lost, suspect = np.zeros(layout.sources, bool), np.zeros(layout.sources, bool)
        rejected = [contradicted]
        for number, (block, finding) in enumerate(zip(blocks, settled, strict=True)):
            # The rejects of a contradictory block are guesses, unless the digest bears them out.
            wrong = finding.rejected if number not in doubtful else ()
            if len(wrong):
                rejected.append(layout.index_of(np.full(len(wrong), number), wrong))
            if finding.data is not None and number not in doubtful:
                block.put(finding)
                continue
            own = block.ids[block.ids < block.sources]
            is_wrong = np.isin(own, np.asarray(wrong, np.int64))
            self.symbols[block.start + own[is_wrong]] = 0  # the missing ones are zero already
            gone = np.ones(block.sources, bool)
            gone[own[~is_wrong]] = False
            rows = slice(block.start, block.start + block.sources)
            lost[rows] = gone
            suspect[rows] = ~gone if number in doubtful else False
        return Recovered(
            self.symbols[: layout.sources], layout.payload_bytes, lost, suspect, np.unique(np.concatenate(rejected)),
            verified,
        )  # fmt: skip


def _blocks(packets):
    """Return the blocks of the packets received, in order."""
    layout, start, repair = packets.layout, 0, packets.layout.sources
    blocks = []
    for sources, repairs in zip(layout.block_sources, layout.block_repairs, strict=True):
        blocks.append(_Block(packets, sources, start, repairs, repair))
        start, repair = start + sources, repair + repairs
    return blocks


class _Block:
    """One block of the packets received.

    Attributes:
        sources: Number of its source symbols.
        start: The first of them among all source symbols.
        repair: Global index of the first of its repair symbols.
        code: Its code.
        ids: int64[n], the ids within the block of the packets received, in ascending order.
    """

    def __init__(self, packets, sources, start, repairs, repair):
        self.store, self.sources, self.start, self.repair = packets.symbols, sources, start, repair
        self.code = code_of(packets.layout, sources, repairs)
        parts = (slice(start, start + sources), slice(repair, repair + repairs))
        self.ids = np.flatnonzero(np.concatenate([packets.copies[part] for part in parts]))

    @property
    def received(self):
        """The symbols of the packets received: uint8[n, width]."""
        own = self.ids < self.sources
        return self.store[np.where(own, self.start, self.repair - self.sources) + self.ids]

    def solved(self):
        """Return the plain reading, of which nothing is checked."""
        if len(self.ids) >= self.sources and self.ids[self.sources - 1] == self.sources - 1:
            return _Finding(self.store[:0], np.zeros(0, np.int64))  # every source symbol was received
        return self._finding(self.code.solve(self.sources, self.ids, self.received)[0])

    def audited(self):
        """Return the readings after a search for wrong packets, the most likely one first."""
        readings = audit.audit(self.sources, self.ids, self.received, self.store.shape[1], self.code)
        return [self._finding(*reading) for reading in readings]

    def _finding(self, data, rejected=(), surplus=0):
        """Return a reading as a finding, which keeps only the symbols that differ from what the block holds."""
        if data is None:
            return _Finding(None, np.zeros(0, np.int64), rejected, surplus)
        rows = np.flatnonzero((data != self.store[self.start : self.start + self.sources]).any(axis=1))
        return _Finding(data[rows], rows, rejected, surplus)

    def put(self, finding, data=None):
        """Write a finding's symbols (or ``data`` in their place) into the block, and return what it held before."""
        rows = self.start + finding.rows
        before = self.store[rows]
        self.store[rows] = finding.data if data is None else data
        return before


@dataclass(frozen=True, eq=False)
class _Finding:
    """An ``audit.Reading`` as a change.

    Attributes:
        data: The symbols that replace what was received, or None if the block cannot be solved.
        rows: Which of the block's source symbols they replace.
        rejected: Symbol ids left out.
        surplus: As in ``audit.Reading``.
    """

    data: UInt8[np.ndarray, "n width"] | None
    rows: Int64[np.ndarray, " n"]
    rejected: tuple[int, ...] = ()
    surplus: int = 0


def _doubtful(findings_of):
    """Return the blocks to distrust.

    These are the blocks that contradict themselves or else, if only the digest fails, the least proven ones.
    """
    contradictory = {number for number, findings in enumerate(findings_of) if findings[0].surplus < 0}
    if contradictory or any(findings[0].data is None for findings in findings_of):
        return contradictory
    unproven = {number for number, findings in enumerate(findings_of) if findings[0].surplus < _PROVEN}
    return unproven or set(range(len(findings_of)))
