"""THE MAP: video (or bytes) -> strands of DNA and back, in the order of the data.

    clip uint8[T, H, W, 3]
      | tokenizer.tiles      Haar patches -> causal conv net -> FSQ: k base-4 digits per token
      | coding.ladder        which digits are worth their nucleotides
      | coding.search        with `effort`: better digits, and a small change of the decoder
    tokens uint8[t, h, w, k]
      | coding.modes         raw digits, or digits that are entropy-coded under an exact integer model (the prior)
      | tk_scone.mixing      raw digits: neighbours go to different strands; all digits are made uniform
    payload bytes
      | strands.pool         calls the next four stations, in both directions
      | strands.outer        RaptorQ: repair packets
      | strands.packets      index + payload + check
      | strands.header       what the decoder must know, in strands of its own
    words uint32[n, ceil(K / 32)]
      | tk_scone.coder       constraint automaton + range coder: bits -> bases
    strands uint8[n, L] -> FASTA

``encode`` and ``decode`` do this for video, and ``pack`` and ``unpack`` (in ``packing``) for bytes.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from helix_jax.coding import conceal, ladder, modes, search
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import DecodeError, HelixError
from helix_jax.nets import Nets, load
from helix_jax.packing import content_key, pack, unpack
from helix_jax.prior.weights import Prior
from helix_jax.strands import fasta, packets
from helix_jax.strands import header as headers
from helix_jax.strands.pool import Pool, Report, densities, draft, read_pool, station, write
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing, tables
from helix_jax.tokenizer import tiles, update
from helix_jax.tokenizer.weights import Model
from helix_jax.video import VideoInfo

Progress = Callable[[str, int, int], None]

_DEFAULTS = CodecConfig()

# ---- video -----------------------------------------------------------------------------------------


def encode(
    video: update.Video,
    nets: Nets,
    *,
    config: CodecConfig = _DEFAULTS,
    motifs: Sequence[str] = (),
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Encode a video as a pool of strands.

    Args:
        video: The clip, as ``video.open_video`` or ``video.Clip`` gives it.
        nets: The tokenizer and its prior, as ``load`` gives them.
        config: All options, among them quality, rate and budget.
        motifs: Words that no strand may contain.
        key: The 8 bytes that identify the pool. By default they are a hash of the content, so that the same clip gives
            the same pool.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Raises:
        HelixError: With the reason, for example as a ConstraintError or a VideoError.
    """
    _check_rate(config)
    model, prior, info = nets.tokenizer, nets.prior, video.info
    chosen, table = station(config, motifs, progress)
    step = _at(progress, "tokens", info.frames)
    positions = tiles.encode(model.params, model.config, video.blocks(), info.height, info.width, step, positions=True)
    coded, layout = _within_rate(positions, video, config, model, prior, table, progress)
    if config.verify:
        modes.verify(coded, prior, progress=progress)
    key = key or content_key([coded.tokens.tobytes(), coded.update], coded.tokens.shape, info)
    payload = mixing.to_bytes(mixing.mix(coded.symbols(layout, config.mixing), key, config.mixing))
    fields = {
        "kind": "video",
        "mode": coded.mode,
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": info.fps,
        "digits": coded.tokens.shape[-1],
        "model_hash": model.digest[:8],
        "prior_hash": prior.digest[:6] if prior and coded.mode != "raw" else bytes(6),
        "update": coded.code,
    }
    return write(draft(payload, coded.content_bytes, fields, chosen, table, layout, config, key, progress))


def _check_rate(config: CodecConfig) -> None:
    """Raise HelixError for a quality, effort, rate or budget out of range, or for two that exclude each other."""
    if not 0 <= config.quality <= ladder.BEST:
        raise HelixError(f"quality {config.quality}: give 0 to {ladder.BEST}")
    if not 0 <= config.effort < len(search.STEPS):
        raise HelixError(f"effort {config.effort}: give 0 to {len(search.STEPS) - 1}")
    if config.rate < 0 or config.budget < 0:
        raise HelixError(f"rate {config.rate:g}, budget {config.budget}: give more than 0 nucleotides")
    if config.quality < ladder.BEST and (config.rate or config.budget):
        raise HelixError("quality, or a rate or budget of nucleotides: give one of them")


def _within_rate(
    positions: Float32[np.ndarray, "t h w k"],
    video: update.Video,
    config: CodecConfig,
    model: Model,
    prior: Prior | None,
    table: tables.Tables,
    progress: Progress | None,
) -> tuple[modes.Coding, packets.PacketLayout]:
    """Code the tokenizer's positions with the requested quality (or within the requested rate) and effort."""
    info = video.info
    rungs = ladder.ladder(positions.shape[-1], config.mode != "raw" and prior is not None)

    def laid_out(coded):
        layout = coded.layout(table.bits, config.strands.redundancy_of(coded.mode))
        return layout, (layout.packets + headers.header_strands(table.bits)) * _total_length(config.strands)

    def attempt(rung):
        tokens, _ = ladder.tokens_at(rung, positions, prior, progress=progress)
        coded = modes.encode(tokens, config.mode, prior, progress=progress)
        layout, nucleotides = laid_out(coded)
        return (coded, layout, rung), nucleotides

    def searched(coded, layout, rung, most=math.inf):
        better, _ = search.best(
            coded, positions, video, model, prior, effort=config.effort, damage=rung.damage,
            fits=lambda coded: laid_out(coded)[1] <= most, progress=progress,
        )  # fmt: skip
        return better, layout if better is coded else laid_out(better)[0]

    if not config.rate and not config.budget:
        return searched(*attempt(ladder.rung_of(rungs, config.quality))[0])
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    budget = min(limit for limit in limits if limit)
    affordable, least = ladder.best_within(rungs, attempt, int(budget))
    if affordable is None:
        raise HelixError(
            f"{int(budget):,} nucleotides are too few: this clip takes {least:,} at the lowest quality of mode "
            f"{config.mode}; give more, or less redundancy, or a smaller picture"
        )
    return searched(*affordable, most=budget)


def decode(
    strands: dict[int, UInt8[np.ndarray, "_ _"]] | fasta.Strands,
    nets: Nets,
    *,
    motifs: Sequence[str] = (),
    primers: tuple[str, str] = ("", ""),
    primers_exempt: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, "n H W 3"]], Report]:
    """Decode a pool of strands to a video.

    Args:
        strands: The strands by their length, as ``fasta.read`` gives them, or ``fasta.Strands``.
        nets: The nets that the pool was encoded with.
        motifs: The forbidden words that the pool was encoded with. They and the primers are needed only where the file
            of the strands does not name them.
        primers: The left and the right primer.
        primers_exempt: Whether GC windows leave the primers out.
        key: The 8 bytes that identify the pool. They are needed only where the strands belong to several pools.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.

    Returns:
        The facts about the clip, its frames in blocks, and the report. Lost tokens are concealed, and the report counts
        them.

    Raises:
        DecodeError: Nothing can be shown.
    """
    model, prior = nets.tokenizer, nets.prior
    written = Written.given(motifs, primers, primers_exempt)
    received = read_pool(strands, written=written, key=key, progress=progress)
    head, recovered = received.header, received.recovered
    _check_header(head, model, prior)
    lost = recovered.lost | recovered.suspect
    if lost.all():
        raise DecodeError(
            "the payload does not match its hash, and no surplus of strands tells which packet is wrong: "
            "more strands are needed"
            if recovered.suspect.any()
            else f"none of the {len(lost)} source packets can be recovered: more strands are needed"
        )
    info = VideoInfo(frames=head.frames, height=head.height, width=head.width, fps=head.fps)
    grid = tiles.grid_shape(info.frames, info.height, info.width)
    symbols = mixing.unmix(mixing.from_bytes(received.recovered.symbols), head.key, head.mixing)
    try:
        tokens, missing = modes.decode(
            head.mode, grid, head.digits, symbols, lost, head.mixing, prior, progress=progress
        )
    except modes.CodingError as error:
        raise DecodeError(str(error)) from error
    if missing.all():
        every = "no token of the video is left" if head.mode == "raw" else "every segment has lost some of its packets"
        raise DecodeError(f"{every}: more strands are needed")
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


def _check_header(head: headers.Header, model: Model, prior: Prior | None) -> None:
    """Raise DecodeError for a header of other contents or other nets, or whose numbers contradict each other."""
    if head.kind != "video":
        raise DecodeError("this pool holds bytes, not video: use `helix-jax unpack`")
    if head.model_hash != model.digest[:8]:
        raise DecodeError(
            f"this pool was encoded with model {head.model_hash.hex()}, not {model.digest[:8].hex()}: "
            "give that one with --model"
        )
    if not 1 <= head.digits <= model.config.digits:
        raise DecodeError(f"the header says {head.digits} digits a token, the model has {model.config.digits}: forged?")
    tokens = math.prod(tiles.grid_shape(head.frames, head.height, head.width))
    size = update.size(model.config, head.digits) if head.update else 0
    tuned = modes.update_packets(size, head.symbol_bytes)
    room = 4 * head.symbol_bytes // head.digits * (head.sources - tuned)
    if head.mode == "raw" and (tokens > room or 4 * head.symbol_bytes % head.digits):
        raise DecodeError(
            f"the header says {head.frames} frames of {head.width}x{head.height} pixels, {tokens:,} tokens of "
            f"{head.digits} digits, and the payload has room for {room:,}: forged?"
        )
    if tuned >= head.sources:
        raise DecodeError(f"the header says that {tuned} of {head.sources} packets hold an update: forged?")
    if head.mode != "raw" and (prior is None or prior.digest[:6] != head.prior_hash):
        given = "none was given" if prior is None else f"not {prior.digest[:6].hex()}"
        raise DecodeError(
            f"this pool was coded in mode {head.mode} with prior {head.prior_hash.hex()}, {given}: "
            "give that one with --prior"
        )


def _total_length(strands: StrandConfig) -> int:
    """Nucleotides of a strand, its primers included."""
    return strands.length + len(strands.left_primer) + len(strands.right_primer)


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
