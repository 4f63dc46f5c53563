"""How the packets of a pool share out the bits of a strand, and how many of them repair.

``plan`` chooses the layout of a payload, ``PacketLayout`` says which packet is which, and ``check_claim`` refuses what
a forged header claims.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from helix_jax.config import Survival
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import survival

HEADER_BYTES = 112  # of format 1, and the least of format 2 (``strands.header``)
CHECK_BITS = (16, 32)  # the narrowest and the widest check of a planned layout
BLOCK_SYMBOLS = 8192  # the most source symbols in one block of the outer code
# RaptorQ (outer.py) cuts a block above 10 MiB into sub-blocks; smaller blocks keep one symbol = one packet.
BLOCK_BYTES = 8 << 20
PORTION = 1 << 16  # strands processed at once
MOST_EXACT = 255  # packets of a block of a Reed-Solomon code over bytes
SPARE = 2  # packets with which RaptorQ practically never fails
SMALL_POOL = 1 << 25  # bytes of packets that a header may always claim
MOST_MISSING = 256  # packets that a header may claim for each strand received, where the pool is larger
Numbered = Callable[[int], int]
_SYMBOL_BYTES = 65528  # the widest symbol of RFC 6330, a multiple of 8 in 16 bits


@dataclass(frozen=True)
class Part:
    """A stretch of whole source symbols with a redundancy of its own.

    Attributes:
        sources: Source symbols.
        repairs: Repair packets of each of its source blocks.
        unwritten: How many packets of each of its blocks the writer leaves out (``screening``). No header says this.
    """

    sources: int
    repairs: int
    unwritten: int = 0


@dataclass(frozen=True)
class PacketLayout:
    """Widths and counts of a pool's packets.

    The global index counts the source symbols of all blocks in payload order, then the repair symbols block by block.
    The payload of format 1 is one part. That of format 2 has a part for each section, which is divided into blocks by
    itself. Raises ValueError when the numbers contradict each other.

    Attributes:
        bits: Bits carried by a strand (K).
        symbol_bytes: Payload bytes in one packet.
        index_bits: Width of the index.
        check_bits: Width of the check.
        payload_bytes: Bytes stored in the pool.
        repairs: Repair packets of each source block; 0 where ``sections`` say it.
        sections: The parts of format 2, which hold whole symbols; empty for format 1.
        header_bytes: Bytes of the header, which has strands of its own.
        unwritten: Packets of each source block that the writer leaves out; 0 where ``sections`` say it.
        reed_solomon: Whether blocks of up to 255 packets are Reed-Solomon codes, and not RaptorQ (``exact``).
    """

    bits: int
    symbol_bytes: int
    index_bits: int
    check_bits: int
    payload_bytes: int
    repairs: int
    sections: tuple[Part, ...] = ()
    header_bytes: int = HEADER_BYTES
    unwritten: int = 0
    reed_solomon: bool = False

    def __post_init__(self):
        if not (1 <= self.symbol_bytes <= _SYMBOL_BYTES and 1 <= self.index_bits <= 32 and 1 <= self.check_bits <= 32):
            raise ValueError(f"impossible field widths in {self}")
        if self.payload_bytes < 0 or any(part.sources < 0 or part.repairs < 0 for part in self.parts):
            raise ValueError(f"negative count in {self}")
        if not all(0 <= part.unwritten <= part.repairs for part in self.parts):
            raise ValueError(f"more packets left out than there are repair packets in {self}")
        total = sum(part.sources for part in self.sections)
        if self.sections and (self.repairs or self.payload_bytes != total * self.symbol_bytes or not total):
            raise ValueError(f"sections of {total} symbols in {self}")
        if self.unused_bits < 0:
            raise ValueError(f"fields take {self.bits - self.unused_bits} bits, a strand has {self.bits}")
        if self.packets > 1 << self.index_bits:
            raise ValueError(f"{self.packets} packets do not fit an index of {self.index_bits} bits")
        for part in self.parts:
            if -(-part.sources // max(1, self._blocks_of(part))) + part.repairs > 1 << 24:
                raise ValueError(f"{part.repairs} repair packets per block are more than RaptorQ's 2^24 symbols allow")

    @property
    def unused_bits(self) -> int:
        """Bits of a strand that carry nothing."""
        return self.bits - self.index_bits - 8 * self.symbol_bytes - self.check_bits

    @property
    def sources(self) -> int:
        """Source packets over all blocks; an empty payload takes one symbol of zeros."""
        return max(1, -(-self.payload_bytes // self.symbol_bytes))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the payload, one in format 1."""
        return self.sections or (Part(self.sources, self.repairs, self.unwritten),)

    @property
    def blocks(self) -> int:
        """Source blocks of the outer code."""
        return sum(map(self._blocks_of, self.parts))

    @property
    def block_sources(self) -> tuple[int, ...]:
        """Source symbols of each block; those of a part differ by at most one, the larger ones first."""
        sizes = []
        for part in self.parts:
            if part.sources:
                size, larger = divmod(part.sources, self._blocks_of(part))
                sizes += [size + 1] * larger + [size] * (self._blocks_of(part) - larger)
        return tuple(sizes)

    @property
    def block_repairs(self) -> tuple[int, ...]:
        """Repair packets of each block."""
        return tuple(itertools.chain(*([part.repairs] * self._blocks_of(part) for part in self.parts)))

    @property
    def block_written(self) -> tuple[int, ...]:
        """Packets of each block that are written."""
        unwritten = itertools.chain(*([part.unwritten] * self._blocks_of(part) for part in self.parts))
        return tuple(
            sources + repairs - out
            for sources, repairs, out in zip(self.block_sources, self.block_repairs, unwritten, strict=True)
        )

    @property
    def block_parts(self) -> tuple[int, ...]:
        """The part that each block belongs to."""
        return tuple(itertools.chain(*([n] * self._blocks_of(part) for n, part in enumerate(self.parts))))

    @property
    def packets(self) -> int:
        """Packets of the pool, source and repair."""
        return self.sources + sum(self._blocks_of(part) * part.repairs for part in self.parts)

    @property
    def written(self) -> int:
        """Packets that are written: all of them, unless the writer leaves some out."""
        return self.packets - sum(self._blocks_of(part) * part.unwritten for part in self.parts)

    def exact(self, sources: int, repairs: int) -> bool:
        """Return whether a block of so many symbols is a Reed-Solomon code, of which any ``sources`` suffice."""
        return self.reed_solomon and sources + repairs <= MOST_EXACT

    def _blocks_of(self, part):
        return blocks_of(part, self.symbol_bytes)

    def locate(
        self, index: Integer[np.ndarray, " n"] | Sequence[int]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Return the block of each global index, and its symbol id within the block.

        Source symbols of a block of s have the ids 0..s-1, and repair symbols s, s+1 and so on (RFC 6330). Raises
        ValueError for an index out of range.
        """
        index = np.asarray(index, np.int64)
        if index.size and not 0 <= index.min() <= index.max() < self.packets:
            raise ValueError(f"packet index out of range: {index.min()}..{index.max()} of {self.packets} packets")
        sizes, starts, repair_starts = self._starts()
        source = index < self.sources
        block = np.where(
            source,
            np.searchsorted(starts, index, side="right") - 1,
            np.searchsorted(repair_starts, index, side="right") - 1,
        )
        symbol = np.where(source, index - starts[block], sizes[block] + index - repair_starts[block])
        return block, symbol

    def index_of(
        self,
        block: Integer[np.ndarray, "..."] | Sequence[int] | int | np.integer,
        symbol: Integer[np.ndarray, "..."] | Sequence[int] | int | np.integer,
    ) -> Int64[np.ndarray, "..."]:
        """Return the global indices of symbol ids within blocks: the inverse of ``locate``."""
        sizes, starts, repair_starts = self._starts()
        block, symbol = np.asarray(block, np.int64), np.asarray(symbol, np.int64)
        repair = symbol - sizes[block]
        return np.where(repair < 0, starts[block] + symbol, repair_starts[block] + repair)

    def _starts(self):
        """Return of each block its source symbols, the index of the first, and that of its first repair symbol."""
        sizes, repairs = (np.asarray(counts, np.int64) for counts in (self.block_sources, self.block_repairs))
        return sizes, np.cumsum(sizes) - sizes, self.sources + np.cumsum(repairs) - repairs


def blocks_of(part: Part, symbol_bytes: int) -> int:
    """Return the number of source blocks of a part of a payload of symbols of that many bytes."""
    padded = -(-symbol_bytes // 8) * 8
    return -(-part.sources // min(BLOCK_SYMBOLS, BLOCK_BYTES // padded))


def check_claim(layout: PacketLayout, strands: int) -> None:
    """Refuse a header that claims far more packets than ``strands`` that came back, since memory follows its claim.

    Raises DecodeError.
    """
    if layout.packets > max(SMALL_POOL // layout.symbol_bytes, MOST_MISSING * strands):
        raise DecodeError(
            f"the header speaks of {layout.packets:,} packets, and {strands:,} strands are there: forged, or nearly "
            "all of the strands are missing"
        )


def plan(
    bits: int,
    payload_bytes: int,
    redundancy: float | int | Survival,
    multiple: int = 1,
    sections: Sequence[tuple[int, float | int | Survival]] = (),
    numbered: Numbered | None = None,
) -> PacketLayout:
    """Choose the layout that puts the most payload bytes into each strand of ``bits`` bits.

    The index is as wide as the number of packets needs, and the check has at least 16 bits; what is left after whole
    payload bytes widens the check to at most 32 bits.

    Args:
        bits: Bits carried by a strand (K).
        payload_bytes: Bytes to store.
        redundancy: Repair packets as a share of the source packets of a block, at least 0, or what the pool must
            outlive. Above 0 every block gets two packets more, as RaptorQ fails about once in 300 with exactly as many
            packets as sources.
        multiple: ``symbol_bytes`` is a multiple of it, so that packets carry whole tokens.
        sections: (bytes, redundancy) of each section of format 2, in place of the two above.
        numbered: How many more packets of a block must be numbered so that some may be left out; None for none.

    Returns:
        The layout.

    Raises:
        HelixError: When a strand is too short for ``multiple`` payload bytes, or the payload too large for a pool.
    """
    wanted = list(sections) or [(payload_bytes, redundancy)]
    for size, share in wanted:
        if not isinstance(share, Survival) and not (math.isfinite(share) and share >= 0):
            raise HelixError(f"redundancy {share} is not a share >= 0; 0.1 adds one repair packet to ten")
        if size < 0:
            raise HelixError(f"payload of {size} bytes")
    total, least = sum(size for size, _ in wanted), CHECK_BITS[0]
    widest = min(_SYMBOL_BYTES, (bits - least - 1) // 8) // multiple * multiple
    for symbol_bytes in range(widest, 0, -multiple):
        parts = tuple(part_of(size, share, symbol_bytes, numbered) for size, share in wanted)
        sources = max(1, sum(part.sources for part in parts))
        # An index of 32 and a check of 1 only serve to count the packets; the widths are set below.
        most = min(sources, 1 << 32) * symbol_bytes
        if sources < 1 << 32:
            trial = wide(symbol_bytes, parts, bool(sections))
            index_bits = max(1, (trial.packets - 1).bit_length())
            room = bits - 8 * symbol_bytes - index_bits
            if room >= least and index_bits <= 32:
                size = most if sections else payload_bytes
                return dataclasses.replace(
                    trial, bits=bits, index_bits=index_bits, check_bits=min(CHECK_BITS[1], room), payload_bytes=size
                )
    raise HelixError(
        f"strands of {bits} bits cannot hold {total} payload bytes at redundancy {redundancy}: no room for "
        f"{multiple} payload byte(s), an index (of at most 32 bits) and a check of {least} bits; "
        "use longer strands, or split the payload"
    )


def wide(symbol_bytes: int, parts: Sequence[Part], sections: bool) -> PacketLayout:
    """Return a layout for the outer code alone, whose index is as wide as any.

    Args:
        symbol_bytes: Payload bytes in one packet.
        parts: The parts of the payload.
        sections: Whether they are sections of format 2; without, there is one part.
    """
    size = sum(part.sources for part in parts) * symbol_bytes
    alone = Part(0, 0) if sections else parts[0]
    return PacketLayout(
        8 * symbol_bytes + 33, symbol_bytes, 32, 1, size, alone.repairs, tuple(parts) if sections else (),
        unwritten=alone.unwritten,
    )  # fmt: skip


def part_of(size: int, redundancy: float | int | Survival, symbol_bytes: int, numbered: Numbered | None = None) -> Part:
    """Return the part that ``size`` bytes, one symbol at least, take in packets of ``symbol_bytes`` bytes.

    With ``numbered`` (as for ``plan``) each block has SPARE repair packets at the least, as any source packet may be
    left out.
    """
    sources = max(1, -(-size // symbol_bytes))
    trial = PacketLayout(8 * symbol_bytes + 64, symbol_bytes, 32, 1, min(sources, 1 << 32) * symbol_bytes, 0)
    repairs = repairs_of(redundancy, trial.block_sources[0], trial.blocks)
    if numbered is None:
        return Part(sources, repairs)
    repairs = max(repairs, SPARE)
    more = numbered(trial.block_sources[0] + repairs)
    return Part(sources, repairs + more, more)


def planner(bits: int, redundancy: float | int | Survival) -> Callable[[int, str, int], PacketLayout]:
    """Return ``plan`` for strands of one size as a function (payload bytes, mode, multiple), as a writer has it."""
    return lambda size, mode, multiple: plan(bits, size, redundancy, multiple)


def repairs_of(redundancy: float | int | Survival, sources: int, blocks: int = 1) -> int:
    """Return the repair packets of each of ``blocks`` blocks of ``sources`` source packets, as ``plan`` counts them."""
    if isinstance(redundancy, Survival):
        return survival.repairs(redundancy, sources, blocks) + SPARE
    # The 1e-9: 0.07 * 100 is a hair above 7 in binary, and would be rounded up to 8.
    return math.ceil(redundancy * sources - 1e-9) + SPARE if redundancy > 0 else 0
