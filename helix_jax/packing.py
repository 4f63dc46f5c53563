"""Bytes -> pool of strands and back: the part of ``codec`` that needs, and imports, neither video nor nets."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError
from helix_jax.strands import fasta, packets
from helix_jax.strands.pool import PORTION, Draft, Pool, Received, Report, draft, read_pool, station, write
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing

Progress = Callable[[str, int, int], None]

_DEFAULTS = CodecConfig()
_MIXED = PORTION  # symbols that are mixed at once


def pack(
    data: bytes,
    *,
    config: CodecConfig = _DEFAULTS,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Encode bytes, of which there may be none, as a pool of strands.

    Args:
        data: The content.
        config: All options, of which constraints, strands and mixing count here.
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Raises:
        HelixError: With the reason.
    """
    return write(pack_draft(io.BytesIO(data), config=config, motifs=motifs, key=key, progress=progress))


def pack_draft(
    file: io.BufferedIOBase,
    *,
    config: CodecConfig = _DEFAULTS,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Draft:
    """Make a draft of the pool of a file of any size: ``pack`` without the content in memory.

    Args:
        file: An open binary file that can be rewound. The draft reads it again, in portions.
        config: As for ``pack``.
        motifs: As for ``pack``.
        key: As for ``pack``.
        progress: As for ``pack``.

    Raises:
        HelixError: With the reason.
    """
    chosen, table = station(config, motifs, progress)
    size = file.seek(0, os.SEEK_END)
    layout = packets.plan(table.bits, size, config.strands.redundancy_of("bytes"))
    key = key or content_key(_portions_of(file), (size,), None)

    def rows(begin: int, end: int) -> UInt8[np.ndarray, "_ _"]:
        width = layout.symbol_bytes
        file.seek(begin * width)
        data = file.read((end - begin) * width).ljust((end - begin) * width, b"\0")
        parts = [mixing.from_bytes(np.frombuffer(data, np.uint8)[a : a + _MIXED * width].reshape(-1, width))
                 for a in range(0, len(data), _MIXED * width)]  # fmt: skip
        mixed = [mixing.mix(part, key, config.mixing, begin + n * _MIXED) for n, part in enumerate(parts)]
        return np.concatenate(list(map(mixing.to_bytes, mixed)))

    return draft(rows, size, {"kind": "bytes"}, chosen, table, layout, config, key, progress)


def unpack(
    strands: dict[int, UInt8[np.ndarray, "_ _"]] | fasta.Strands,
    *,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[bytes, Report]:
    """Decode a pool of strands to the bytes that were packed.

    Args:
        strands: The strands by their length, as ``fasta.read`` gives them, or ``fasta.Strands``.
        motifs: The forbidden words that the pool was encoded with. They and the primers are needed only where the file
            of the strands does not name them.
        primers: The left and the right primer.
        primers_exempt: Whether GC windows leave the primers out.
        key: The 8 bytes that identify the pool. They are needed only where the strands belong to several pools.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Raises:
        DecodeError: A byte cannot be recovered, or the hash of the payload does not match.
    """
    parts, report = unpack_parts(
        strands, motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key, progress=progress
    )
    return b"".join(parts), report


def unpack_parts(
    strands: dict[int, UInt8[np.ndarray, "_ _"]] | fasta.Strands,
    *,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[Iterator[bytes], Report]:
    """Decode a pool of strands to bytes in parts: ``unpack`` for contents of any size.

    Args:
        strands: As for ``unpack``.
        motifs: As for ``unpack``.
        primers: As for ``unpack``.
        primers_exempt: As for ``unpack``.
        key: As for ``unpack``.
        progress: As for ``unpack``.

    Returns:
        The bytes, one part after the other, and the report.

    Raises:
        DecodeError: A byte cannot be recovered, or the hash of the payload does not match.
    """
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


def _contents(received: Received) -> Iterator[bytes]:
    """Yield the bytes of a pool that was recovered completely."""
    head, symbols, done = received.header, received.recovered.symbols, 0
    for begin in range(0, len(symbols), _MIXED):
        digits = mixing.from_bytes(symbols[begin : begin + _MIXED])
        data = mixing.to_bytes(mixing.unmix(digits, head.key, head.mixing, begin)).tobytes()
        yield data[: max(0, head.content_bytes - done)]
        done += len(data)


def _portions_of(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield the bytes of an open file from its start."""
    file.seek(0)
    yield from iter(lambda: file.read(1 << 24), b"")


def content_key(parts: Iterable[bytes], shape: tuple[int, ...], info: object) -> bytes:
    """Hash a pool's content: the 8 bytes that identify the pool.

    Args:
        parts: The content, in buffers that follow each other.
        shape: The shape of the content.
        info: The VideoInfo of a video, None for bytes.
    """
    digest = hashlib.sha256(repr((info, shape)).encode())
    for part in parts:
        digest.update(part)
    return digest.digest()[:8]
