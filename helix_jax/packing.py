"""Bytes -> pool and back: the part of ``codec`` that needs, and imports, neither video nor nets."""

import contextlib
import hashlib
import io
import itertools
import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax import compression, notes
from helix_jax.config import COMPRESS, CodecConfig
from helix_jax.contents import Content, places
from helix_jax.contents import plan as plan_sections
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands.bases import Bases
from helix_jax.strands.layouts import PORTION, PacketLayout
from helix_jax.strands.sections import Section
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing
from helix_jax.writer import Received, Station, Writer

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
    name: str | None = None,
    compress: bool = COMPRESS,
    progress: Progress | None = None,
) -> Any:
    """Encode bytes, of which there may be none, as a pool.

    Args:
        data: The content.
        config: All options, of which constraints, strands, mixing and note count here.
        writer: How the payload is written (``helix_jax.writer``).
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content.
        name: The file name for the pool's note (``helix_jax.notes``). Without one there is no note unless
            ``config.note`` asks for it.
        compress: Whether the content is compressed with zstd where it takes fewer strands then.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The pool of the writer: for bases a ``Pool``, for timing a ``timing.pool.TimedPool``.

    Raises:
        HelixError: With the reason.
    """
    made = pack_draft(
        io.BytesIO(data), config=config, writer=writer, motifs=motifs, key=key, name=name, compress=compress,
        progress=progress,
    )  # fmt: skip
    return made.written()


def pack_draft(
    file: io.BufferedIOBase,
    *,
    config: CodecConfig = _DEFAULTS,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    name: str | None = None,
    compress: bool = COMPRESS,
    progress: Progress | None = None,
) -> Any:
    """Make a draft of the pool of a file of any size: ``pack`` without the content in memory.

    What compression does not make smaller, and has no note, becomes a pool of format 1; else the note and the file are
    sections of format 2.

    Args:
        file: An open binary file that can be rewound. The draft reads it again, in portions.
        config: As for ``pack``.
        writer: As for ``pack``.
        motifs: As for ``pack``.
        key: As for ``pack``.
        name: As for ``pack``.
        compress: As for ``pack``.
        progress: As for ``pack``.

    Raises:
        HelixError: With the reason.
    """
    station, about = writer.open(config, motifs, progress), {"kind": "bytes"}
    size = file.seek(0, os.SEEK_END)
    digest = notes.sha256(file)
    with contextlib.ExitStack() as stack:
        stored, sections, layout = file, (), _Costed.of(station, lambda: station.plan(size, "bytes"))
        if compress:
            smaller: Any = stack.enter_context(compression.compressed(file))
            packed = compression.section(smaller.seek(0, os.SEEK_END), size)
            trial = _Costed.of(station, lambda: plan_sections(station, [(packed, None)], about, "bytes"))
            if trial.cost < layout.cost:
                stored, sections, layout = smaller, (packed,), trial
        front = b""
        if config.note or (config.note is None and name is not None):
            note = Content("note", notes.Note(notes.fitted(name or ""), size, digest).to_bytes())
            every = (note.section, *(sections or (Section.of("file", size),)))
            trial = _Costed.of(station, lambda: plan_sections(station, [(one, None) for one in every], about, "bytes"))
            if notes.worth(config, layout.cost, trial.cost):
                sections, layout, front = every, trial, note.data
        plan = layout.plan()
        content_bytes = sum(section.size for section in sections) if sections else size
        key = key or content_key(itertools.chain([front], _portions_of(stored)), (content_bytes,), None)
        fields = about | ({"sections": sections} if sections else {})
        draft = station.draft(
            _rows(front, stored, plan, key, config.mixing), fields, plan,
            content_bytes=content_bytes, mixing=config.mixing, key=key,
        )  # fmt: skip
        if sections and notes.sha256(file) != digest:
            raise HelixError("the input changed while it was read: nothing is written; try again")
        weakref.finalize(draft, stack.pop_all().close)  # what is compressed is read as long as there is the draft
    return draft


@dataclass(frozen=True)
class _Costed:
    """A layout, and what it takes: more than anything where the writer cannot number its packets."""

    plan: Callable[[], PacketLayout]
    cost: float

    @classmethod
    def of(cls, station: Station, plan: Callable[[], PacketLayout]) -> "_Costed":
        try:
            return cls(plan, station.cost(plan()))
        except HelixError:
            return cls(plan, math.inf)


def _rows(front, file, layout, key, mixing_config):
    """Return the function (begin, end) -> mixed symbols of the bytes ``front``, a section of its own, and of a file."""
    width = layout.symbol_bytes
    front = front.ljust(-(-len(front) // width) * width, b"\0")

    def rows(begin: int, end: int) -> UInt8[np.ndarray, "_ _"]:
        size = (end - begin) * width
        first = front[begin * width : end * width]
        file.seek(max(0, begin * width - len(front)))
        data = (first + file.read(size - len(first))).ljust(size, b"\0")
        parts = [mixing.from_bytes(np.frombuffer(data, np.uint8)[a : a + _MIXED * width].reshape(-1, width))
                 for a in range(0, len(data), _MIXED * width)]  # fmt: skip
        mixed = [mixing.mix(part, key, mixing_config, begin + n * _MIXED) for n, part in enumerate(parts)]
        return np.concatenate(list(map(mixing.to_bytes, mixed)))

    return rows


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
        DecodeError: A byte cannot be recovered, the hash of the payload does not match, or a compressed file has more
            than ``compression.MOST`` bytes, which are not put into memory.
    """
    unpacked = unpack_parts(
        pool, writer=writer, motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key, progress=progress
    )
    compression.check_memory(unpacked.size, "use unpack_parts, or `helix-jax unpack`")
    return b"".join(unpacked.parts), unpacked.report


@dataclass(frozen=True, eq=False)
class Unpacked:
    """A file that a pool gave back.

    Attributes:
        parts: Its bytes, one part after the other, which can be read once. The last one is followed by a DecodeError
            where they are not the bytes that the pool's note states: nothing of them may be kept then.
        size: How many there are, as the pool states, which may be forged where the file is compressed.
        note: The note, or None where the pool has none or has lost it.
        lost_note: Whether it is lost.
        report: What became of the pool (``writer.Report``).
    """

    parts: Iterator[bytes]
    size: int
    note: notes.Note | None
    lost_note: bool
    report: Any


def unpack_parts(
    pool: Any,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Unpacked:
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
        The file.

    Raises:
        DecodeError: A byte cannot be recovered, or the hash of the payload does not match.
    """
    written = Written.given(motifs, primers, primers_exempt)
    return unpacked(writer.read(pool, written=written, key=key, progress=progress))


def unpacked(received: Received) -> Unpacked:
    """Return the file of a pool that has been read. Raises DecodeError as ``unpack_parts`` does."""
    if received.header.kind != "bytes":
        raise DecodeError("this pool holds video, not bytes: use `helix-jax decode`")
    report = received.report
    kinds = [section.kind for section, _ in places(received.header)]
    if sorted(kinds) not in (["file"], ["file", "note"]):
        raise DecodeError(
            "this pool holds several things, or of a kind that this release does not know: use a newer one", report
        )
    (stored, place), recovered = places(received.header)[kinds.index("file")], received.recovered
    lost = int((recovered.lost | recovered.suspect)[place].sum())
    if lost:
        raise DecodeError(
            f"{lost} of {place.stop - place.start} source packets are lost or doubtful, "
            f"past the repair packets: {received.remedy}",
            report,
        )
    if not recovered.parts_verified[kinds.index("file")]:
        raise DecodeError(
            "the bytes do not match their hash, and the wrong packet cannot be located: nothing is returned", report
        )
    try:
        note = notes.received(received)
        parts, size = contents(received), compression.original_size(stored)
    except DecodeError as error:
        error.report = report
        raise
    size = stored.size if size is None else size
    return Unpacked(notes.checked(parts, note), size, note, note is None and "note" in kinds, report)


def contents(received: Received) -> Iterator[bytes]:
    """Yield the bytes of a packed file, one part after the other; those of a lost packet have no meaning.

    Raises DecodeError for a file that is stored compressed, and whose bytes cannot be taken out.
    """
    stored, place = next(pair for pair in places(received.header) if pair[0].kind == "file")
    parts, size = _stored(received, stored, place), compression.original_size(stored)
    return parts if size is None else compression.expanded(parts, size)


def _stored(received, stored, place):
    """Yield the bytes of a section."""
    head, symbols, left = received.header, received.recovered.symbols, stored.size
    for begin in range(place.start, place.stop, _MIXED):
        digits = mixing.from_bytes(symbols[begin : min(begin + _MIXED, place.stop)])
        data = mixing.to_bytes(mixing.unmix(digits, head.key, head.mixing, begin)).tobytes()
        yield data[:left]
        left = max(0, left - len(data))


def _portions_of(file: Any) -> Iterator[bytes]:
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
