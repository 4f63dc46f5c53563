"""Bytes -> pool and back: the part of ``codec`` that needs, and imports, neither video nor nets."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError
from helix_jax.strands.bases import Bases
from helix_jax.strands.layouts import PORTION
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing
from helix_jax.writer import Received, Writer

Progress = Callable[[str, int, int], None]

BASES: Writer = Bases()  # the writer unless another one is given
_DEFAULTS = CodecConfig()
_MIXED = PORTION  # symbols that are mixed at once


def pack(
    data: bytes,
    *,
    config: CodecConfig = _DEFAULTS,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Any:
    """Encode bytes, of which there may be none, as a pool.

    Args:
        data: The content.
        config: All options, of which constraints, strands and mixing count here.
        writer: How the payload is written (``helix_jax.writer``).
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The pool of the writer: for bases a ``Pool``, for timing a ``timing.pool.TimedPool``.

    Raises:
        HelixError: With the reason.
    """
    made = pack_draft(io.BytesIO(data), config=config, writer=writer, motifs=motifs, key=key, progress=progress)
    return made.written()


def pack_draft(
    file: io.BufferedIOBase,
    *,
    config: CodecConfig = _DEFAULTS,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Any:
    """Make a draft of the pool of a file of any size: ``pack`` without the content in memory.

    Args:
        file: An open binary file that can be rewound. The draft reads it again, in portions.
        config: As for ``pack``.
        writer: As for ``pack``.
        motifs: As for ``pack``.
        key: As for ``pack``.
        progress: As for ``pack``.

    Raises:
        HelixError: With the reason.
    """
    station = writer.open(config, motifs, progress)
    size = file.seek(0, os.SEEK_END)
    layout = station.plan(size, "bytes")
    key = key or content_key(_portions_of(file), (size,), None)

    def rows(begin: int, end: int) -> UInt8[np.ndarray, "_ _"]:
        width = layout.symbol_bytes
        file.seek(begin * width)
        data = file.read((end - begin) * width).ljust((end - begin) * width, b"\0")
        parts = [mixing.from_bytes(np.frombuffer(data, np.uint8)[a : a + _MIXED * width].reshape(-1, width))
                 for a in range(0, len(data), _MIXED * width)]  # fmt: skip
        mixed = [mixing.mix(part, key, config.mixing, begin + n * _MIXED) for n, part in enumerate(parts)]
        return np.concatenate(list(map(mixing.to_bytes, mixed)))

    return station.draft(rows, {"kind": "bytes"}, layout, content_bytes=size, mixing=config.mixing, key=key)


def unpack(
    pool: Any,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[bytes, Any]:
    """Decode a pool, or what came back of it, to the bytes that were packed.

    Args:
        pool: As for ``codec.decode``.
        writer: What wrote the pool.
        motifs: The forbidden words that the pool was encoded with. They and the primers are needed only where the file
            of the strands does not name them.
        primers: The left and the right primer.
        primers_exempt: Whether GC windows leave the primers out.
        key: The 8 bytes that identify the pool. They are needed only where the strands belong to several pools.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The bytes, and the writer's report (``writer.Report``).

    Raises:
        DecodeError: A byte cannot be recovered, or the hash of the payload does not match.
    """
    parts, report = unpack_parts(
        pool, writer=writer, motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key, progress=progress
    )
    return b"".join(parts), report


def unpack_parts(
    pool: Any,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[Iterator[bytes], Any]:
    """Decode a pool to bytes in parts: ``unpack`` for contents of any size.

    Args:
        pool: As for ``unpack``.
        writer: As for ``unpack``.
        motifs: As for ``unpack``.
        primers: As for ``unpack``.
        primers_exempt: As for ``unpack``.
        key: As for ``unpack``.
        progress: As for ``unpack``.

    Returns:
        The bytes, one part after the other, and the writer's report.

    Raises:
        DecodeError: A byte cannot be recovered, or the hash of the payload does not match.
    """
    written = Written.given(motifs, primers, primers_exempt)
    received = writer.read(pool, written=written, key=key, progress=progress)
    if received.header.kind != "bytes":
        raise DecodeError("this pool holds video, not bytes: use `helix-jax decode`")
    report = received.report
    if [section.kind for section in received.header.sections] not in ([], ["file"]):
        raise DecodeError(
            "this pool holds several things, or of a kind that this release does not know: use a newer one"
        )
    if report.lost_packets:
        raise DecodeError(
            f"{report.lost_packets} of {report.source_packets} source packets are lost or doubtful, "
            f"past the repair packets: {received.remedy}",
            report,
        )
    if not report.verified:
        raise DecodeError(
            "the bytes do not match their hash, and the wrong packet cannot be located: nothing is returned", report
        )
    return contents(received), report


def contents(received: Received) -> Iterator[bytes]:
    """Yield the bytes of a pool, one part after the other; those of a lost packet have no meaning."""
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
