"""Compressed files -> plain bytes, in blocks: gzip and BGZF, bzip2, xz, and zstd, recognised by their first bytes.

The readers of files in the libraries lose what a damaged file gives up to the damage, or take a zstd file that was cut
short for a whole one. So the decompressors themselves are driven here: what can be read comes first, then the error.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import zstandard

PIECE = 1 << 10  # compressed bytes that are decompressed at once, which may become thousands of times as many
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")  # SAM specification, 4.1.2
_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_LONGEST_WINDOW = 1 << 31  # of `zstd --long=31`


class Damaged(Exception):
    """Compressed data cannot be read any further; the message says why, as "damaged gzip data (..)"."""


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes, open for reading, which gives as many bytes as it is asked for until its end."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, fewer at the end of the stream alone."""
        ...


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()


_MAGIC: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(wbits=31)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", "xz", lzma.LZMADecompressor),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    *((bytes([kind]) + b"\x2a\x4d\x18", "zstd", _zstd) for kind in range(0x50, 0x60)),  # a skippable frame comes first
)


def recognise(head: bytes) -> str | None:
    """Return what compressed a file that begins with ``head``, in a word; None for plain bytes."""
    return next((name for magic, name, _ in _MAGIC if head.startswith(magic)), None)


def is_bgzf(head: bytes) -> bool:
    """Return whether a file is BGZF: gzip in blocks, the last of which is ``BGZF_END``."""
    return head[:4] == BGZF_END[:4] and head[12:14] == b"BC"


def blocks(stream: Readable, size: int) -> Iterator[bytes]:
    """Yield the bytes of a stream, decompressed where they are compressed, in blocks of about ``size`` bytes.

    Several compressed streams after one another count as one, and zero bytes between and after them are passed over.

    Raises:
        Damaged: After the last block that can be read.
    """
    parts, room = [], size
    try:
        for part in _parts(stream, size):
            parts.append(part)
            room -= len(part)
            if room <= 0:
                yield b"".join(parts)
                parts, room = [], size
    except Damaged:
        if parts:
            yield b"".join(parts)
        raise
    if parts:
        yield b"".join(parts)


def _parts(stream, size):
    """Yield the plain bytes in parts of any length, none of them empty."""
    data = stream.read(PIECE)
    name, start = next(((name, start) for magic, name, start in _MAGIC if data.startswith(magic)), ("", None))
    if start is None:
        while data:
            yield data
            data = stream.read(size)
        return
    while data:
        reader = start()
        while not reader.eof:
            if not data:
                raise Damaged(f"{name} data that are cut short")
            try:
                plain = reader.decompress(data)
            except _ERRORS as error:
                raise Damaged(f"damaged {name} data ({error})") from error
            if plain:
                yield plain
            data = b"" if reader.eof else stream.read(PIECE)
        data = reader.unused_data.lstrip(b"\0")
        while not data and (more := stream.read(PIECE)):
            data = more.lstrip(b"\0")
