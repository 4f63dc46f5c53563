"""Packets <-> strand words: index, payload symbol and keyed check in the K bits of a strand.

Bit 0 of a strand is the most significant bit of word 0 of its uint32[ceil(K/32)]. The fields follow each other: index,
symbol, check, unused bits (zero). The bits of the last word after K are zero too.

A packet is accepted when its check matches, its unused bits are zero and its index is in range. The check is a CRC-32
over key, index and symbol, xored with a mask hashed from (key, index). A garbled strand, or one of another pool,
matches it with probability 2**-check_bits (2**-16 at the least, before range and unused bits are examined). The mask
makes that true for each strand by itself: two pools' plain keyed CRCs differ by one constant, so that all strands of a
foreign pool would pass together or fail together.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8, UInt32

from helix_jax import keyed
from helix_jax.strands.layouts import PacketLayout

_CHUNK = 1 << 16  # strands handled at once, so that memory does not grow with the pool


def pack(
    layout: PacketLayout,
    key: bytes,
    index: Integer[np.ndarray, "..."] | Sequence[int],
    symbols: np.ndarray,
) -> UInt32[np.ndarray, "n W"]:
    """Pack packets into strand words.

    Args:
        layout: The layout of the pool.
        key: 8 bytes, the pool's id.
        index: Global indices, int[n].
        symbols: The symbols, uint8[n, symbol_bytes].

    Returns:
        The words, ceil(bits / 32) of each strand.

    Raises:
        ValueError: For wrong shapes or an index out of range.
    """
    index, symbols = np.asarray(index, np.int64), np.asarray(symbols)
    if symbols.shape != (index.size, layout.symbol_bytes) or symbols.dtype != np.uint8 or index.ndim != 1:
        raise ValueError(
            f"{index.shape} indices and {symbols.dtype}{list(symbols.shape)} symbols; "
            f"the layout wants int[n] and uint8[n, {layout.symbol_bytes}]"
        )
    if index.size and not 0 <= index.min() <= index.max() < layout.packets:
        raise ValueError(f"packet index out of range: {index.min()}..{index.max()} of {layout.packets} packets")
    return pack_fields(layout.bits, layout.index_bits, layout.check_bits, key, index, symbols)


def unpack(
    layout: PacketLayout, key: bytes, words: np.ndarray
) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "n s"], Bool[np.ndarray, " n"]]:
    """Unpack strand words into packets. For undetected errors see the module's docstring.

    Args:
        layout: The layout of the pool.
        key: 8 bytes, the pool's id.
        words: The words, uint32[n, ceil(bits / 32)].

    Returns:
        The index of each packet, its symbol, and whether it is valid: its check matches, its unused bits are zero and
        its index is in range. The index is -1 where check or unused bits are wrong. An index of ``layout.packets`` or
        more is one that passed the check but is out of range, which means that the layout is not the one the pool was
        written with.
    """
    index, symbols, ok = unpack_fields(
        layout.bits, layout.index_bits, layout.symbol_bytes, layout.check_bits, key, words
    )
    return np.where(ok, index, -1), symbols, ok & (index < layout.packets)


def pack_fields(
    bits: int,
    index_bits: int,
    check_bits: int,
    key: bytes,
    index: Integer[np.ndarray, " n"],
    symbols: UInt8[np.ndarray, "n s"],
) -> UInt32[np.ndarray, "n W"]:
    """Lay out indices, symbols and their check in words. The values are not checked.

    Args:
        bits: Bits carried by a strand (K).
        index_bits: Width of the index.
        check_bits: Width of the check.
        key: 8 bytes, the pool's id.
        index: The indices.
        symbols: The symbols.

    Returns:
        The words, ceil(bits / 32) of each strand.
    """
    words = np.zeros((len(index), -(-bits // 32)), np.uint32)
    for start in range(0, len(index), _CHUNK):
        part = slice(start, start + _CHUNK)
        check = packet_check(key, index[part], symbols[part]) >> np.uint32(32 - check_bits)
        buffer = np.zeros((len(check), 4 * words.shape[1] + 5), np.uint8)
        _put(buffer, 0, _left_aligned(index[part].astype(np.uint32), index_bits))
        _put(buffer, index_bits, symbols[part])
        _put(buffer, index_bits + 8 * symbols.shape[1], _left_aligned(check, check_bits))
        words[part] = np.ascontiguousarray(buffer[:, : 4 * words.shape[1]]).view(">u4")
    return words


def unpack_fields(
    bits: int, index_bits: int, symbol_bytes: int, check_bits: int, key: bytes, words: np.ndarray
) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "n {symbol_bytes}"], Bool[np.ndarray, " n"]]:
    """Invert ``pack_fields``.

    Args:
        bits: Bits carried by a strand (K).
        index_bits: Width of the index.
        symbol_bytes: Bytes of a symbol.
        check_bits: Width of the check.
        key: 8 bytes, the pool's id.
        words: The words, uint32[n, ceil(bits / 32)].

    Returns:
        The indices, the symbols, and whether the check matches and every bit after it is zero.

    Raises:
        ValueError: For words of another shape or dtype.
    """
    words = np.asarray(words)
    width = -(-bits // 32)
    if words.ndim != 2 or words.shape[1] != width or words.dtype != np.uint32:
        raise ValueError(
            f"strand words {words.dtype}{list(words.shape)}; strands of {bits} bits are uint32[n, {width}]"
        )
    n = len(words)
    index, symbols, ok = np.zeros(n, np.int64), np.zeros((n, symbol_bytes), np.uint8), np.zeros(n, bool)
    check_at = index_bits + 8 * symbol_bytes
    end = check_at + check_bits
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        rows = words[part].astype(">u4").view(np.uint8)
        buffer = np.pad(rows, ((0, 0), (0, 5)))
        index[part] = _number(_get(buffer, 0, 4), index_bits)
        symbols[part] = _get(buffer, index_bits, symbol_bytes)
        check = packet_check(key, index[part], symbols[part]) >> np.uint32(32 - check_bits)
        tail = rows[:, end // 8 :].copy()
        tail[:, :1] &= 0xFF >> end % 8
        ok[part] = (_number(_get(buffer, check_at, 4), check_bits) == check) & ~tail.any(axis=1)
    return index, symbols, ok


def packet_check(
    key: bytes, index: Integer[np.ndarray, " n"] | Sequence[int], symbols: UInt8[np.ndarray, "n s"]
) -> UInt32[np.ndarray, " n"]:
    """Return the keyed check of packets, of which a layout keeps the leading bits.

    It is the CRC-32 of key (8 bytes), index (4 bytes, big-endian) and symbol, xored with a 32-bit hash of (key, index).
    It guards against accidents, not against forgery.

    Args:
        key: 8 bytes, the pool's id.
        index: Indices below 2**32.
        symbols: The symbols.

    Returns:
        One check for each packet.
    """
    index = np.asarray(index, np.int64)
    return crc32(symbols, crc32(_bytes_of(index), zlib.crc32(key))) ^ (
        keyed.stream(key, index) >> np.uint64(32)
    ).astype(np.uint32)


def crc32(data: UInt8[np.ndarray, "n m"], start: int | UInt32[np.ndarray, " n"] = 0) -> UInt32[np.ndarray, " n"]:
    """Return the CRC-32 (as ``zlib.crc32``) of each row; ``start`` is the checksum so far."""
    crc = np.broadcast_to(np.asarray(start, np.uint32), len(data)) ^ np.uint32(0xFFFFFFFF)
    for column in np.ascontiguousarray(np.asarray(data, np.uint8).T):
        crc = _CRC_TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def _crc_table():
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1)
    return table


_CRC_TABLE = _crc_table()


def _bytes_of(numbers):
    return np.asarray(numbers).astype(">u4")[:, None].view(np.uint8)


def _left_aligned(numbers, bits):
    """Return uint32[n] numbers below 2**bits as bytes uint8[n, 4], with the bits leading and zeros after them."""
    return _bytes_of(numbers << np.uint32(32 - bits))


def _number(aligned, bits):
    """Return the leading bits of uint8[n, 4] as uint32[n]."""
    return np.ascontiguousarray(aligned).view(">u4")[:, 0].astype(np.uint32) >> np.uint32(32 - bits)


def _put(buffer, offset, data):
    """Or the bytes uint8[n, m] into rows of bits at a bit offset; trailing zeros of the data leave no trace."""
    byte, shift = divmod(offset, 8)
    width = data.shape[1]
    buffer[:, byte : byte + width] |= data >> shift
    if shift:
        buffer[:, byte + 1 : byte + 1 + width] |= data << (8 - shift)


def _get(buffer, offset, width):
    """Return ``width`` bytes of each row from a bit offset on, as uint8[n, width]."""
    byte, shift = divmod(offset, 8)
    data = buffer[:, byte : byte + width] << shift
    if shift:
        data |= buffer[:, byte + 1 : byte + 1 + width] >> (8 - shift)
    return data
