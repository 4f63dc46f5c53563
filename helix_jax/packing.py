"""Bytes -> pool of strands and back: the part of ``codec`` that needs, and imports, neither video nor nets."""

import hashlib
import io
import os

import numpy as np

from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError
from helix_jax.strands import packets
from helix_jax.strands.pool import PORTION, Draft, Pool, draft, read_pool, station, write
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing

_DEFAULTS = CodecConfig()
_MIXED = PORTION  # symbols mixed at once


def pack(data, *, config=_DEFAULTS, motifs=(), key=None, progress=None) -> Pool:
    """Bytes -> pool of strands; 0 bytes and 1 byte work too.

    config: constraints, strands and mixing count here. motifs: forbidden words. key: 8 bytes, the pool's id; by default
    a hash of the content. progress: called as progress(station, done, total).
    Raises HelixError with the reason.
    """
    return write(pack_draft(io.BytesIO(data), config=config, motifs=motifs, key=key, progress=progress))


def pack_draft(file, *, config=_DEFAULTS, motifs=(), key=None, progress=None) -> Draft:
    """An open binary file that can be rewound -> Draft, which reads it in portions: for files of any size."""
    chosen, table = station(config, motifs, progress)
    size = file.seek(0, os.SEEK_END)
    layout = packets.plan(table.bits, size, config.strands.redundancy_of("bytes"))
    key = key or content_key(_portions_of(file), (size,), None)

    def rows(begin, end):
        width = layout.symbol_bytes
        file.seek(begin * width)
        data = file.read((end - begin) * width).ljust((end - begin) * width, b"\0")
        parts = [mixing.from_bytes(np.frombuffer(data, np.uint8)[a : a + _MIXED * width].reshape(-1, width))
                 for a in range(0, len(data), _MIXED * width)]  # fmt: skip
        mixed = [mixing.mix(part, key, config.mixing, begin + n * _MIXED) for n, part in enumerate(parts)]
        return np.concatenate(list(map(mixing.to_bytes, mixed)))

    return draft(rows, size, {"kind": "bytes"}, chosen, table, layout, config, key, progress)


def unpack(strands, *, motifs=(), primers=("", ""), primers_exempt=False, key=None, progress=None):
    """Pool -> (bytes, Report). Raises DecodeError unless every byte is recovered and the payload's hash matches."""
    parts, report = unpack_parts(
        strands, motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key, progress=progress
    )
    return b"".join(parts), report


def unpack_parts(strands, *, motifs=(), primers=("", ""), primers_exempt=False, key=None, progress=None):
    """Pool -> (iterator of bytes, Report): ``unpack`` for contents of any size."""
    written = Written.given(motifs, primers, primers_exempt)
    received = read_pool(strands, written=written, key=key, progress=progress)
    if received.header.kind != "bytes":
        raise DecodeError("this pool holds video, not bytes: use `helix-jax decode`")
    report = received.report
    if report.lost_packets:
        raise DecodeError(
            f"{report.lost_packets} of {report.source_packets} source packets are lost or doubtful, "
            "past the repair packets: more strands are needed"
        )
    if not report.verified:
        raise DecodeError(
            "the bytes do not match their hash, and the wrong packet cannot be located: nothing is returned"
        )
    return _contents(received), report


def _contents(received):
    """Yield the bytes of a pool that came back whole."""
    head, symbols, done = received.header, received.recovered.symbols, 0
    for begin in range(0, len(symbols), _MIXED):
        digits = mixing.from_bytes(symbols[begin : begin + _MIXED])
        data = mixing.to_bytes(mixing.unmix(digits, head.key, head.mixing, begin)).tobytes()
        yield data[: max(0, head.content_bytes - done)]
        done += len(data)


def _portions_of(file):
    """Yield the bytes of an open file from its start."""
    file.seek(0)
    yield from iter(lambda: file.read(1 << 24), b"")


def content_key(parts, shape, info):
    """The pool's id: a hash of its content. parts: buffers, one after the other. shape: of the content. info: of the
    video, or None."""
    digest = hashlib.sha256(repr((info, shape)).encode())
    for part in parts:
        digest.update(part)
    return digest.digest()[:8]
