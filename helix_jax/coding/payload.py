"""Coded segments <-> the bytes of packets. NumPy only: ``helix_jax.reference`` reads them too.

The payload begins with the directory, which holds the size of every segment in bytes (2 bytes each) and whose packets
are written COPIES times. The segments follow one after the other, each with its CRC-32. Zeros fill up the last packet
of each part.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.errors import HelixError

COPIES = 5  # of the directory: with a fifth of all strands lost, one of its packets is lost in 1 of 3,000 pools
MOST = (1 << 16) - 1  # bytes of a segment, its CRC included
_CRC = 4


class CodingError(HelixError):
    """Tokens cannot be coded or read back; the message says why."""


def seal(coded: bytes) -> bytes:
    """Append the CRC to the bytes of a segment."""
    return coded + zlib.crc32(coded).to_bytes(_CRC, "big")


def opened(piece: bytes) -> bytes:
    """Remove the CRC from a sealed segment without checking it: the inverse of ``seal``."""
    return piece[:-_CRC]


def to_rows(pieces: Sequence[bytes], width: int) -> UInt8[np.ndarray, "sources {width}"]:
    """Lay sealed segments, of at most MOST bytes each, out in source packets of ``width`` bytes."""
    sizes = np.array([len(piece) for piece in pieces], ">u2")
    parts = [sizes.tobytes().ljust(-(-2 * len(sizes) // width) * width, b"\0")] * COPIES + list(pieces)
    data = b"".join(parts)
    return np.frombuffer(data.ljust(-(-len(data) // width) * width, b"\0"), np.uint8).reshape(-1, width)


def read_pieces(
    rows: UInt8[np.ndarray, "sources width"], lost: Bool[np.ndarray, " sources"], number: int
) -> list[bytes | None]:
    """Find the segments in the bytes of the source packets: the inverse of ``to_rows``.

    Args:
        rows: Bytes of the source packets.
        lost: Which packets are lost.
        number: Number of segments.

    Returns:
        The bytes of each segment without its CRC, or None for a segment that has lost a packet, or whose CRC does not
        match.

    Raises:
        CodingError: All copies of a part of the directory are lost.
    """
    width = rows.shape[1]
    each = -(-2 * number // width)
    if len(rows) < COPIES * each:
        raise CodingError("the header does not fit the payload: the pool is not whole, or forged")
    gone = lost[: COPIES * each].reshape(COPIES, each)
    if gone.all(axis=0).any():
        raise CodingError("all copies of a part of the directory of segments are lost")
    copies = rows[: COPIES * each].reshape(COPIES, each, width)
    directory = copies[np.argmin(gone, axis=0), np.arange(each)].tobytes()
    sizes = np.frombuffer(directory[: 2 * number], ">u2").astype(np.int64)
    ends = COPIES * each * width + np.cumsum(sizes)
    data, pieces = rows.tobytes(), []
    for begin, end in zip(ends - sizes, ends, strict=True):
        piece = data[begin : end - _CRC]
        whole = end <= len(data) and end - begin >= _CRC and not lost[begin // width : -(-end // width)].any()
        pieces.append(piece if whole and zlib.crc32(piece).to_bytes(_CRC, "big") == data[end - _CRC : end] else None)
    return pieces
