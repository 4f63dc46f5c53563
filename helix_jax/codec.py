"""THE MAP: video (or bytes) -> strands of DNA and back, in the order of the data, the same for every writer.

    clip uint8[T, H, W, 3]                                    or in its own YUV, 10 bits
      | tokenizer.tiles    Haar patches -> causal conv          | stream.groups    closed groups of pictures
      |                    net -> FSQ: digits of tokens         | stream.fit       AV1: size and CRF that the
      | coding.choice      the ladder of qualities, rate,       |                  nucleotides pay for
      |                    budget, `effort`                     | stream.preview   a small stream that outlives losses
      | coding.modes       raw digits, or entropy-coded under   |
      |                    an exact integer model (the prior)   |            sound: video.sound   Opus
      | tk_scone.mixing    neighbours to different strands      |
    tokens                                                    groups, preview
      | contents           sections with a redundancy of their own (format 2), or one content (format 1)
      | tk_scone.mixing    all digits are made uniform
    payload uint8[sources, bytes of a packet], and a header
      | writer               the seam: everything below is one of two writers
      |
      |   strands.bases                                       timing.pool
      |     outer      RaptorQ: repair packets                  strands.outer     RaptorQ: repair strands
      |     packets    index + payload + check                  paths             bits -> letters and levels
      |     header     in strands of its own                    correction        parity of the levels
      |     tk_scone.coder   constraint automaton +             frame             check letters, parity, index
      |                range coder: bits -> bases
      |
    strands uint8[n, L] -> FASTA                              letters, durations uint8[n, R] -> schedule

``encode`` and ``decode`` do this for video, and ``pack`` and ``unpack`` (in ``packing``) for bytes.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax import contents, notes
from helix_jax.coding import choice, described, tokens
from helix_jax.config import CodecConfig
from helix_jax.contents import Content
from helix_jax.errors import BudgetError, DecodeError, HelixError
from helix_jax.nets import Nets, load, released
from helix_jax.notes import Note
from helix_jax.packing import BASES, content_key, pack, unpack
from helix_jax.strands.pool import Pool, densities
from helix_jax.strands.received import Report, read_pool
from helix_jax.strands.written import Written
from helix_jax.stream import auto, pictures, showing
from helix_jax.stream.film import Film
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import update
from helix_jax.video import Complete, VideoInfo, sound
from helix_jax.video.signal import Signal
from helix_jax.video.sound import Sound, SoundError
from helix_jax.writer import Received, Writer

Progress = Callable[[str, int, int], None]

_DEFAULTS = CodecConfig()


def encode(
    video: update.Video,
    nets: Nets | Callable[[], Nets] | None = None,
    *,
    config: CodecConfig = _DEFAULTS,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    note: Note | None = None,
    progress: Progress | None = None,
) -> Any:
    """Encode a video as a pool.

    Args:
        video: The clip, as ``video.open_video`` or ``video.Clip`` gives it.
        nets: The tokenizer and its prior, as ``load`` gives them, or a function that loads them. Only tokens need them,
            and by default they are the shipped ones.
        config: All options, among them codec, quality, rate and budget.
        writer: How the payload is written (``helix_jax.writer``).
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content, so that the same clip gives
            the same pool.
        note: What the pool may know of the video's file; ``config.note`` settles whether it is written.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The pool of the writer: for bases a ``Pool``, for timing a ``timing.pool.TimedPool``.

    Raises:
        HelixError: With the reason, for example as a ConstraintError or a VideoError.
    """
    choice.check(config)
    station, video = writer.open(config, motifs, progress), Complete(video)
    first, later = _noted(note, video, config, station)
    heard, taken = None if config.silent else video.sound(config.sound), 0
    if heard:  # refused before anything is coded
        about = pictures.fields(video.info, video.signal, None)
        taken = pictures.check_sound(video.info, pictures.sound(heard, config), about, config, station)
    loaded = _once(nets)

    def made(noted):
        beside = pictures.sound(heard, config) + noted
        which, measured, refused = auto.chosen(video, beside, loaded, config, station, progress)
        if which == "av1":
            return _encode_av1(video, beside, later, measured, config, station, key, progress)
        try:
            return _encode_tokens(video, beside, later, measured, loaded(), config, station, key, progress)
        except BudgetError as error:
            if refused is None:
                raise
            raise refused.beside(error) from error

    if first and not config.note:
        with contextlib.suppress(HelixError):  # the rate or the budget may pay for the picture alone
            return made(first)
        first = ()
    try:
        return made(first)
    except BudgetError as error:
        if not heard:
            raise
        raise error.with_sound(f"{taken:,}", config.sound) from error


def _noted(note, video, config, station):
    """Return the note as contents that the picture has to leave room for, and as those that come after it if they may.

    One that is asked for, or is small beside the limit of the pool, is of the former.
    """
    if note is None or config.note is False:
        return (), ()
    content, most = notes.content(note), pictures.limit(video.info, config)
    if config.note:
        return (content,), ()
    if most is None:
        return (), (content,)
    about = pictures.fields(video.info, video.signal, None)
    return ((content,) if notes.alone(content, about, station) <= notes.SHARE * most else ()), ()


def _encode_tokens(video, beside, later, measured, nets, config, station, key, progress):
    """Write tokens: alone in a pool of format 1, with sound or a note in one of format 2."""
    info = video.info
    clip = pictures.fields(info, Signal(), measured)

    def among(others):
        several = others or measured  # what a pool of format 1 cannot hold
        return contents.Beside(station, others, "tokens", clip | described.ROOM) if several else station

    coded, layout = tokens.encode(video, nets, config, among(beside), progress)
    if later:
        with contextlib.suppress(HelixError):  # the writer has no room for it
            noted = coded.layout(among(beside + later).plan)
            if notes.worth(config, station.cost(layout), station.cost(noted)):
                layout, beside = noted, beside + later
    several = bool(beside or measured)
    layout, digits = tokens.symbols(coded, layout, config)
    fields = described.fields(info, coded, nets)
    if not several:
        key = key or content_key([coded.tokens.tobytes(), coded.update], coded.tokens.shape, info)
        payload = mixing.to_bytes(mixing.mix(digits, key, config.mixing))
        made = station.draft(payload, fields, layout, content_bytes=coded.content_bytes, mixing=config.mixing, key=key)
        return made.written()
    every = [Content("tokens", tokens.data_of(digits)), *beside]
    return _written(every, fields | clip, layout, info, config, station, key)


def _encode_av1(video, beside, later, measured, config, station, key, progress):
    """Write AV1: its groups, the preview, the sound and the note are sections."""
    fields = pictures.fields(video.info, video.signal, measured)
    every, layout = pictures.encode(video, beside, fields, config, station, progress)
    for content in later:
        with contextlib.suppress(HelixError):  # the header or the writer has no room for one more
            sections = [(one.section, one.redundancy) for one in [*every, content]]
            noted = contents.plan(station, sections, fields, "av1")
            if notes.worth(config, station.cost(layout), station.cost(noted)):
                every, layout = [*every, content], noted
    return _written(every, fields, layout, video.info, config, station, key)


def _written(every, fields, layout, info, config, station, key):
    """Write contents as a pool of format 2."""
    key = key or content_key([content.data for content in every], (), info)
    made = station.draft(
        contents.symbols(every, layout, key, config.mixing),
        fields | {"sections": tuple(content.section for content in every)},
        layout,
        content_bytes=sum(len(content.data) for content in every),
        mixing=config.mixing,
        key=key,
    )
    return made.written()


def decode(
    pool: Any,
    nets: Nets | Callable[[], Nets] | None = None,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, "n H W 3"]], Any]:
    """Decode a pool, or what came back of it, to pictures; ``film`` gives the sound too.

    Args:
        pool: For bases, the strands by their length, as ``fasta.read`` gives them, or ``fasta.Strands``, or what
            ``recover`` returns. For timing, the bases of each read.
        nets: The nets that the pool was encoded with, or a function that loads them. Only tokens need them. By default
            they are those among all released ones that the header names.
        writer: What wrote the pool.
        motifs: The forbidden words that the pool was encoded with. They and the primers are needed only where the file
            of the strands does not name them.
        primers: The left and the right primer.
        primers_exempt: Whether GC windows leave the primers out.
        key: The 8 bytes that identify the pool. They are needed only where the strands belong to several pools.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The facts about the clip, its frames in blocks, and the writer's report (``writer.Report``). Lost tokens are
        concealed, lost groups of pictures are shown from the preview, and the report says which.

    Raises:
        DecodeError: Nothing can be shown.
    """
    shown = film(
        pool, nets, writer=writer, motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key,
        progress=progress,
    )  # fmt: skip
    return shown.info, shown.blocks, shown.report


def film(
    pool: Any,
    nets: Nets | Callable[[], Nets] | None = None,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Film:
    """Decode a pool, or what came back of it, to pictures and sound.

    Args:
        pool: As for ``decode``.
        nets: As for ``decode``.
        writer: As for ``decode``.
        motifs: As for ``decode``.
        primers: As for ``decode``.
        primers_exempt: As for ``decode``.
        key: As for ``decode``.
        progress: As for ``decode``.

    Returns:
        The film.

    Raises:
        DecodeError: Nothing can be shown.
    """
    written = Written.given(motifs, primers, primers_exempt)
    received = writer.read(pool, written=written, key=key, progress=progress)
    if received.header.kind != "video":
        raise DecodeError("this pool holds bytes, not video: use `helix-jax unpack`")
    try:
        return _film(received, nets, progress)
    except DecodeError as error:
        error.report = received.report
        raise


def _film(received, nets, progress):
    parts = contents.parts(received)
    heard, lost_sound = _heard(received, parts)
    if any(part.section.kind == "av1" for part in parts):
        info, signal, blocks, groups, lost = showing.decode(received, parts, progress)
        return Film(info, signal, blocks, heard, groups, _report(received, lost | lost_sound), _note(received))
    part = next((part for part in parts if part.section.kind == "tokens"), None)
    if part is None:
        kinds = ", ".join(part.section.kind for part in parts)
        raise DecodeError(f"this pool has no picture that this release knows, but {kinds}: use a newer release")
    _check(received, part)
    head, remedy = received.header, received.remedy
    given = released(head.model_hash, head.prior_hash) if nets is None else _once(nets)()
    info, blocks, lost = tokens.decode(head, part.symbols, part.lost, given, remedy, progress)
    return Film(info, Signal(), blocks, heard, None, _report(received, dict(lost) | lost_sound), _note(received))


def _once(nets: Nets | Callable[[], Nets] | None) -> Callable[[], Nets]:
    """Return a function that gives the nets, and loads them when it is first called."""
    if isinstance(nets, Nets):
        return lambda: nets
    return functools.cache(nets or load)


def _report(received: Received, lost: dict[str, Any]) -> Any:
    return dataclasses.replace(received.report, **lost)


def _heard(received: Received, parts: list[contents.Part]) -> tuple[Sound | None, dict[str, bool]]:
    """Return the sound, and what the report says of it."""
    part = next((part for part in parts if part.section.kind == "sound"), None)
    if part is None or part.data is None:
        return None, {"lost_sound": part is not None}
    head = received.header
    try:
        return Sound.from_bytes(part.data, math.ceil(head.frames / head.fps * sound.RATE)), {}
    except SoundError:  # forged, or of a later release; the picture may be good all the same
        return None, {"lost_sound": True}


def _note(received: Received) -> Note | None:
    """Return the note, or None where there is none or it makes no sense; the picture may be good all the same."""
    with contextlib.suppress(DecodeError):
        return notes.received(received)
    return None


def _check(received: Received, part: contents.Part) -> None:
    """Refuse tokens of which nothing is left, or that may be wrong without a sign of where."""
    remedy = received.remedy
    if part.lost.all():
        raise DecodeError(
            f"the payload does not match its hash, and no surplus of strands tells which packet is wrong: {remedy}"
            if part.suspect
            else f"none of the {len(part.lost)} source packets can be recovered: {remedy}"
        )
    if part.data is None and not part.lost.any():
        raise DecodeError("the payload does not match its hash, and the wrong packet cannot be located")


__all__ = [
    "DecodeError",
    "Pool",
    "Report",
    "decode",
    "densities",
    "encode",
    "film",
    "load",
    "pack",
    "read_pool",
    "unpack",
]
