"""THE MAP: video (or bytes) -> strands of DNA and back, in the order of the data, the same for every writer.

    clip uint8[T, H, W, 3]
      | tokenizer.tiles      Haar patches -> causal conv net -> FSQ: k base-4 digits per token
      | coding.choice        how much of them is worth its nucleotides: the ladder of qualities, rate, budget, and with
      |                      `effort` a search for better digits
    tokens uint8[t, h, w, k]
      | coding.modes         raw digits, or digits that are entropy-coded under an exact integer model (the prior)
      | tk_scone.mixing      raw digits: neighbours go to different strands; all digits are made uniform
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

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.coding import choice, conceal, described, ladder, modes
from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError
from helix_jax.nets import Nets, load
from helix_jax.packing import BASES, content_key, pack, unpack
from helix_jax.strands.pool import Pool, densities
from helix_jax.strands.received import Report, read_pool
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles, update
from helix_jax.video import VideoInfo
from helix_jax.writer import Writer

Progress = Callable[[str, int, int], None]

_DEFAULTS = CodecConfig()


def encode(
    video: update.Video,
    nets: Nets,
    *,
    config: CodecConfig = _DEFAULTS,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Any:
    """Encode a video as a pool.

    Args:
        video: The clip, as ``video.open_video`` or ``video.Clip`` gives it.
        nets: The tokenizer and its prior, as ``load`` gives them.
        config: All options, among them quality, rate and budget.
        writer: How the payload is written (``helix_jax.writer``).
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content, so that the same clip gives
            the same pool.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The pool of the writer: for bases a ``Pool``, for timing a ``timing.pool.TimedPool``.

    Raises:
        HelixError: With the reason, for example as a ConstraintError or a VideoError.
    """
    choice.check(config)
    info, model = video.info, nets.tokenizer
    station = writer.open(config, motifs, progress)
    step = _at(progress, "tokens", info.frames)
    positions = tiles.encode(model.params, model.config, video.blocks(), info.height, info.width, step, positions=True)
    coded, layout = choice.choose(positions, video, config, nets, station, progress)
    if config.verify:
        modes.verify(coded, nets.prior, progress=progress)
    key = key or content_key([coded.tokens.tobytes(), coded.update], coded.tokens.shape, info)
    payload = mixing.to_bytes(mixing.mix(coded.symbols(layout, config.mixing), key, config.mixing))
    fields = described.fields(info, coded, nets)
    made = station.draft(payload, fields, layout, content_bytes=coded.content_bytes, mixing=config.mixing, key=key)
    return made.written()


def decode(
    pool: Any,
    nets: Nets,
    *,
    writer: Writer = BASES,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, "n H W 3"]], Any]:
    """Decode a pool, or what came back of it, to a video.

    Args:
        pool: For bases, the strands by their length, as ``fasta.read`` gives them, or ``fasta.Strands``, or what
            ``recover`` returns. For timing, the bases of each read.
        nets: The nets that the pool was encoded with.
        writer: What wrote the pool.
        motifs: The forbidden words that the pool was encoded with. They and the primers are needed only where the file
            of the strands does not name them.
        primers: The left and the right primer.
        primers_exempt: Whether GC windows leave the primers out.
        key: The 8 bytes that identify the pool. They are needed only where the strands belong to several pools.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The facts about the clip, its frames in blocks, and the writer's report (``writer.Report``). Lost tokens are
        concealed, and the report counts them.

    Raises:
        DecodeError: Nothing can be shown.
    """
    model, prior = nets.tokenizer, nets.prior
    written = Written.given(motifs, primers, primers_exempt)
    received = writer.read(pool, written=written, key=key, progress=progress)
    head, recovered, remedy = received.header, received.recovered, received.remedy
    info = described.info_of(head, nets)
    lost = recovered.lost | recovered.suspect
    if lost.all():
        raise DecodeError(
            f"the payload does not match its hash, and no surplus of strands tells which packet is wrong: {remedy}"
            if recovered.suspect.any()
            else f"none of the {len(lost)} source packets can be recovered: {remedy}"
        )
    if not recovered.verified and not lost.any():
        raise DecodeError("the payload does not match its hash, and the wrong packet cannot be located")
    grid = tiles.grid_shape(info.frames, info.height, info.width)
    symbols = mixing.unmix(mixing.from_bytes(recovered.symbols), head.key, head.mixing)
    try:
        tokens, missing = modes.decode(
            head.mode, grid, head.digits, symbols, lost, head.mixing, prior, progress=progress
        )
    except modes.CodingError as error:
        raise DecodeError(f"{error}: {remedy}") from error
    if missing.all():
        every = "no token of the video is left" if head.mode == "raw" else "every segment has lost some of its packets"
        raise DecodeError(f"{every}: {remedy}")
    if missing.any():
        tokens = conceal.fill_lost(tokens, missing, prior)
    tokens, params, whole = ladder.whole_tokens(tokens, model.config.digits), model.params, 1.0
    if head.update:
        data, valid = modes.read_update(update.size(model.config, head.digits), symbols, lost)
        params, whole = update.applied(params, model.config, head.digits, data, valid, head.update), valid.mean()
    step = _at(progress, "pictures", info.frames)
    blocks = tiles.decode(params, model.config, tokens, info.frames, info.height, info.width, step)
    lost_of = {"lost_tokens": float(missing.mean()), "lost_update": 1.0 - float(whole)}
    return info, blocks, dataclasses.replace(received.report, **lost_of)


def _at(progress: Progress | None, station: str, total: int) -> Callable[[int], None] | None:
    """The progress callback of one station, which is called with how many more of ``total`` are done."""
    return None if progress is None else lambda done: progress(station, done, total)


__all__ = [
    "DecodeError",
    "Pool",
    "Report",
    "decode",
    "densities",
    "encode",
    "load",
    "pack",
    "read_pool",
    "unpack",
]
