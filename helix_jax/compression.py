"""A packed file <-> the same file compressed with zstd, in portions, so that memory does not grow with the file.

The section of a compressed file says in its details which compression it is and how many bytes come out. What is read
back may be forged: no more bytes are taken out of it than it says, and no more memory than WINDOW.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from typing import IO, cast

import zstandard

from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands.sections import HeaderError, Section, numbers, read_numbers

LEVEL = 19  # the highest whose window, and with it the memory of readers, is WINDOW
WINDOW = 1 << 23  # bytes that a reader keeps
SPILL = 1 << 26  # bytes of a compressed file that are kept in memory; more are kept in a temporary file
PART = 1 << 20  # bytes taken out at once
MOST = 1 << 32  # bytes that come out into memory at most; a small pool may state any number
ZSTD = 1  # the number in the details


@contextlib.contextmanager
def compressed(file: io.BufferedIOBase) -> Iterator[IO[bytes]]:
    """Give an open file of the bytes of another one, compressed; a context manager.

    Args:
        file: An open file that can be rewound.

    Raises:
        HelixError: The file changes while it is read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tempfile.SpooledTemporaryFile(max_size=SPILL) as out:
        try:
            zstandard.ZstdCompressor(level=LEVEL).copy_stream(cast(IO[bytes], file), out, size=size)
        except zstandard.ZstdError as error:
            raise HelixError(f"the file cannot be compressed ({error}): did it change while it was read?") from error
        yield out


def section(size: int, original: int) -> Section:
    """Return the section of a file of ``original`` bytes that takes ``size`` bytes compressed."""
    return Section.of("file", size, numbers(ZSTD, original))


def original_size(stored: Section) -> int | None:
    """Return the bytes that come out of the section of a file, None where it is not compressed.

    What a later release adds to the details is skipped. Raises DecodeError for a compression that is not known.
    """
    if not stored.details:
        return None
    try:
        (how, size), _ = read_numbers(stored.details, 2)
    except HeaderError as error:
        raise DecodeError(f"{error}: forged?") from error
    if how != ZSTD:
        raise DecodeError(f"the file has compression {how}, which this release does not know: use a newer one")
    return size


def check_memory(size: int, remedy: str) -> None:
    """Refuse more than MOST bytes of a file in memory. Raises DecodeError, which ends in the remedy."""
    if size > MOST:
        raise DecodeError(f"the pool states {size:,} bytes, more than the {MOST:,} that are put into memory: {remedy}")


def expanded(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the bytes of a compressed file.

    Args:
        parts: The compressed bytes, one part after the other.
        size: How many bytes have to come out.

    Raises:
        DecodeError: It is no zstd, or another number of bytes comes out of it: forged.
    """
    left = size
    try:
        source = cast(IO[bytes], _Reader(parts))
        for part in zstandard.ZstdDecompressor(max_window_size=WINDOW).read_to_iter(source, write_size=PART):
            left -= len(part)
            if left < 0:
                raise DecodeError(f"more than the {size:,} bytes that the pool states come out of the file: forged?")
            yield part
    except zstandard.ZstdError as error:
        raise DecodeError(f"the file is compressed, and its bytes are no zstd ({error}): forged?") from error
    if left:
        raise DecodeError(f"{left:,} of the {size:,} bytes that the pool states do not come out of the file: forged?")


class _Reader:
    """Parts of a file as what zstandard reads from."""

    def __init__(self, parts: Iterator[bytes]):
        self.parts = parts

    def read(self, size: int) -> bytes:
        """Return the next part, whatever the size; b"" at the end."""
        return next(filter(None, self.parts), b"")
