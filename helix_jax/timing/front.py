"""A header of format 1 in front of the payload, in one Reed-Solomon code with it.

    header, packed | end of the payload        the first strands; the end only where there is room for it
    payload, row by row, but for that end
    repair

So the header costs as many strands as it has bytes for, less what the last strand of the payload would leave empty, and
it survives as well as the payload does. The reader needs it before anything is known of the pool. It stands at the
beginning of the first strand; where that is lost, Reed-Solomon codes fill it in without being told how many of the
strands are repair strands (``strands.reed_solomon``).
"""

import dataclasses
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer
from helix_jax.strands.layouts import PacketLayout

NAME = "timing"  # stands in the header in place of the name of a constraint set
_NAMED = NAME.encode().ljust(16, b"\0")
# Places in the header: the kind (0 for bytes), and what is not written: the name, and in a pool of bytes all that
# describes a video
KIND, _WIDTH, _NAME, _VIDEO = 1, slice(7, 9), slice(9, 25), slice(73, 108)
_NO_VIDEO = struct.pack(">5I8s6sB", 0, 0, 0, 0, 1, b"", b"", 0)


def packed_bytes(plain: bool) -> int:
    """Return the size of a packed header, of a pool of bytes (``plain``) or of a video."""
    return headers.SIZE - len(_NAMED) - (len(_NO_VIDEO) if plain else 0)


def packed(data: bytes) -> bytes:
    """Leave out of a header of format 1 what the reader knows anyway."""
    video = b"" if data[KIND] == 0 else data[_VIDEO]
    short = data[: _NAME.start] + data[_NAME.stop : _VIDEO.start] + video + data[_VIDEO.stop :]
    assert unpacked(short) == data  # what is left out is as expected
    return short


def unpacked(data: bytes) -> bytes:
    """Invert ``packed``; what follows the packed header is left out. Damage shows in the header's CRC."""
    plain = data[KIND : KIND + 1] == b"\0"
    data = data[: packed_bytes(plain)]
    if plain:
        data = data[:-4] + _NO_VIDEO + data[-4:]
    return data[: _NAME.start] + _NAMED + data[_NAME.start :]


def width_of(strand: UInt8[np.ndarray, " width"]) -> int:
    """Return the bytes of a packet that the header at the beginning of a strand states; 0 if it is too short for it."""
    return int.from_bytes(strand[_WIDTH].tobytes()) if len(strand) >= _WIDTH.stop else 0


@dataclass(frozen=True)
class Front:
    """Where header and payload stand in their common code.

    Attributes:
        rows: Strands that the header begins, ends or fills.
        tail: Bytes of the end of the payload that stand behind the header, or 0.
        layout: The layout of header and payload together.
    """

    rows: int
    tail: int
    layout: PacketLayout

    def join(self, header: bytes, symbols: UInt8[np.ndarray, "sources width"]) -> UInt8[np.ndarray, "all width"]:
        """Return the source symbols of the common code: a packed header and the payload."""
        width = symbols.shape[1]
        first = np.zeros(self.rows * width, np.uint8)
        end = symbols[-1, : self.tail].tobytes() if self.tail else b""
        first[: len(header) + len(end)] = np.frombuffer(header + end, np.uint8)
        return np.concatenate([first.reshape(self.rows, width), symbols[: len(symbols) - bool(self.tail)]])

    def split(self, symbols: UInt8[np.ndarray, "all width"], header_bytes: int) -> UInt8[np.ndarray, "sources width"]:
        """Return the payload: the inverse of ``join``."""
        if not self.tail:
            return symbols[self.rows :]
        last = np.zeros((1, symbols.shape[1]), np.uint8)
        last[0, : self.tail] = symbols[: self.rows].reshape(-1)[header_bytes : header_bytes + self.tail]
        return np.concatenate([symbols[self.rows :], last])

    def mask(self, mask: Bool[np.ndarray, " all"]) -> Bool[np.ndarray, " sources"]:
        """Return a mask of the payload's symbols from one of all symbols."""
        return np.concatenate([mask[self.rows :], mask[self.rows - 1 : self.rows] if self.tail else mask[:0]])

    def decode(self, header: headers.Header, index, symbols) -> outer.Recovered:
        """Recover the payload from the strands of the pool (``outer.decode``)."""
        size, test = packed_bytes(header.kind == "bytes"), header.genuine()[0]

        def genuine(payload):
            rows = np.frombuffer(payload, np.uint8).reshape(self.layout.sources, -1)
            return test(np.ascontiguousarray(self.split(rows, size)).data)

        found = outer.decode(self.layout, index, symbols, genuine)
        payload = self.split(found.symbols, size)
        return dataclasses.replace(
            found, symbols=payload, payload_bytes=payload.size, lost=self.mask(found.lost),
            suspect=self.mask(found.suspect),
        )  # fmt: skip


def front_of(layout: PacketLayout) -> Front | None:
    """Return where the header stands in a pool of that layout, or None where it has strands of its own.

    The header's size is that of a packed one (``packed_bytes``); the bytes of the payload say how much of its last
    symbol is in use. The first strand must be long enough to say how many bytes of the others to put together.
    """
    width = layout.symbol_bytes
    if not layout.reed_solomon or layout.sections or layout.header_bytes >= headers.SIZE or width < _WIDTH.stop:
        return None
    rows = -(-layout.header_bytes // width)
    tail = layout.payload_bytes - (layout.sources - 1) * width
    tail = tail if layout.header_bytes + tail <= rows * width else 0
    sources = rows + layout.sources - bool(tail)
    if sources + layout.repairs > layouts.MOST_EXACT:
        return None
    return Front(
        rows, tail,
        PacketLayout(8 * width + 33, width, 32, 1, sources * width, layout.repairs, reed_solomon=True),
    )  # fmt: skip
