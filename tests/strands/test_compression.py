"""Compressed files: every kind gives its bytes, up to where it is damaged, and never more memory than it should."""

import bz2
import gzip
import io
import lzma
import tracemalloc

import numpy as np
import pytest
import zstandard

from helix_jax.strands import compression

PLAIN = np.random.default_rng(0).integers(65, 69, 300_000, np.uint8).tobytes()
SKIPPED = b"\x52\x2a\x4d\x18\x03\0\0\0abc"  # a frame that zstd passes over


def bgzf(data):
    """The data in blocks of their own, as samtools writes them, with the end marker."""
    parts = []
    for begin in range(0, len(data), 60_000):
        packed = gzip.compress(data[begin : begin + 60_000], mtime=0)
        body = packed[10:]
        size = len(body) + 18 - 1
        parts.append(b"\x1f\x8b\x08\4\0\0\0\0\0\xff\6\0BC\2\0" + size.to_bytes(2, "little") + body)
    return b"".join(parts) + compression.BGZF_END


KINDS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bgzf": bgzf,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstandard.compress,
    "skippable": lambda data: SKIPPED + zstandard.compress(data),
    "long": zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=31)).compress,
}


def read(data, size=1 << 16):
    """(what can be read, the error or None)."""
    parts = []
    try:
        for block in compression.blocks(io.BytesIO(data), size):
            parts.append(block)
    except compression.Damaged as error:
        return b"".join(parts), error
    return b"".join(parts), None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_bytes(kind):
    packed = KINDS[kind](PLAIN)
    assert compression.recognise(packed) in ("gzip", "bzip2", "xz", "zstd")
    assert compression.is_bgzf(packed) == (kind == "bgzf")
    for data, plain in (
        (packed, PLAIN),
        (packed * 2, PLAIN * 2),
        (packed + bytes(10_000), PLAIN),
        (KINDS[kind](b""), b""),
    ):
        assert read(data) == (plain, None)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_costs_what_comes_after_it(kind):
    packed = KINDS[kind](PLAIN)
    plain, error = read(packed[:-40] if kind == "bgzf" else packed[:-9])
    assert "cut short" in str(error)
    assert PLAIN.startswith(plain)
    plain, error = read(packed[: len(packed) // 2])
    assert "cut short" in str(error)
    assert PLAIN.startswith(plain)
    if kind not in ("bzip2", "long"):  # whose blocks are larger than this
        assert len(plain) > 100_000
    plain, error = read(packed + b"garbage")
    assert (plain, error is not None) == (PLAIN, True)


def test_plain_bytes_pass():
    assert compression.recognise(PLAIN) is None
    for size in (1, 1000, 1 << 20):
        assert read(PLAIN[:20_000], size) == (PLAIN[:20_000], None)
    assert read(b"") == (b"", None)


@pytest.mark.parametrize(("kind", "size"), [("gzip", 20), ("xz", 64), ("zstd", 300)])
def test_memory_does_not_follow_what_expands(kind, size):
    """Megabytes of zeros in a few kilobytes."""
    packed = KINDS[kind](bytes(size << 20))
    tracemalloc.start()
    try:
        assert sum(len(block) for block in compression.blocks(io.BytesIO(packed), 1 << 20)) == size << 20
        assert tracemalloc.get_traced_memory()[1] < size / 2 * (1 << 20)
    finally:
        tracemalloc.stop()
