"""THE MAP: video (or bytes) -> strands of DNA and back, in the order of the data.

    clip uint8[T, H, W, 3]
      | tokenizer.tiles      Haar patches -> causal conv net -> FSQ: k base-4 digits per token
      | coding.ladder        which digits are worth their nucleotides
      | coding.search        with effort: better digits, and a small change of the decoder
    tokens uint8[t, h, w, k]
      | coding.modes         raw digits, or entropy-coded under an exact integer model (prior)
      | tk_scone.mixing      raw: neighbours to different strands; digits made uniform
    payload bytes
      | strands.pool         the four that follow, both ways
      | strands.outer        RaptorQ: repair packets
      | strands.packets      index + payload + check
      | strands.header       what the decoder must know, in strands of its own
    words uint32[n, ceil(K / 32)]
      | tk_scone.coder       constraint automaton + range coder: bits -> bases
    strands uint8[n, L] -> FASTA

``encode`` and ``decode`` do this for video, ``pack`` and ``unpack`` (``packing``) for bytes.
"""

import dataclasses
import math

from helix_jax.coding import conceal, ladder, modes, search
from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError, HelixError
from helix_jax.nets import Nets, load
from helix_jax.packing import content_key, pack, unpack
from helix_jax.strands import header as headers
from helix_jax.strands.pool import Pool, Report, densities, draft, read_pool, station, write
from helix_jax.strands.written import Written
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles, update
from helix_jax.video import VideoInfo

_DEFAULTS = CodecConfig()

# ---- video -----------------------------------------------------------------------------------------


def encode(video, nets: Nets, *, config=_DEFAULTS, motifs=(), key=None, progress=None) -> Pool:
    """Video -> pool of strands.

    video: a clip, as ``video.open_video`` or ``video.Clip`` gives it (``info`` and ``blocks(n)``). nets: as ``load``
    gives them. config: quality, rate and budget among the rest. motifs: forbidden words. key: 8 bytes, the pool's id;
    by default a hash of the content, so that the same clip gives the same pool. progress: called as
    progress(station, done, total).
    Raises HelixError with the reason, such as ConstraintError or VideoError.
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


def _check_rate(config):
    if not 0 <= config.quality <= ladder.BEST:
        raise HelixError(f"quality {config.quality}: give 0 to {ladder.BEST}")
    if not 0 <= config.effort < len(search.STEPS):
        raise HelixError(f"effort {config.effort}: give 0 to {len(search.STEPS) - 1}")
    if config.rate < 0 or config.budget < 0:
        raise HelixError(f"rate {config.rate:g}, budget {config.budget}: give more than 0 nucleotides")
    if config.quality < ladder.BEST and (config.rate or config.budget):
        raise HelixError("quality, or a rate or budget of nucleotides: give one of them")


def _within_rate(positions, video, config, model, prior, table, progress):
    """Positions -> (modes.Coding, packets.PacketLayout) at the quality and with the effort that are asked for."""
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
        found, _ = search.best(
            coded, positions, video, model, prior, effort=config.effort, damage=rung.damage,
            fits=lambda coded: laid_out(coded)[1] <= most, progress=progress,
        )  # fmt: skip
        return found, layout if found is coded else laid_out(found)[0]

    if not config.rate and not config.budget:
        return searched(*attempt(ladder.rung_of(rungs, config.quality))[0])
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    budget = min(limit for limit in limits if limit)
    found, least = ladder.best_within(rungs, attempt, int(budget))
    if found is None:
        raise HelixError(
            f"{int(budget):,} nucleotides are too few: this clip takes {least:,} at the lowest quality of mode "
            f"{config.mode}; give more, or less redundancy, or a smaller picture"
        )
    return searched(*found, most=budget)


def decode(strands, nets: Nets, *, motifs=(), primers=("", ""), primers_exempt=False, key=None, progress=None):
    """Pool -> video.

    strands: dict of length -> uint8[n, length], as ``fasta.read`` gives, or ``fasta.Strands``. nets: those that
    the pool was encoded with. motifs, primers (left, right) and whether GC windows leave the primers out: likewise,
    unless the file of the strands says them.
    Returns (VideoInfo, iterator of uint8[n, H, W, 3] blocks, Report). Lost tokens are concealed and counted
    in the report. Raises DecodeError when nothing can be shown.
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
        data, there = modes.read_update(update.size(model.config, head.digits), symbols, lost)
        params, whole = update.applied(params, model.config, head.digits, data, there, head.update), there.mean()
    step = _at(progress, "pictures", info.frames)
    blocks = tiles.decode(params, model.config, tokens, info.frames, info.height, info.width, step)
    lost_of = {"lost_tokens": float(missing.mean()), "lost_update": 1.0 - float(whole)}
    return info, blocks, dataclasses.replace(received.report, **lost_of)


def _check_header(head, model, prior):
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


def _total_length(strands):
    return strands.length + len(strands.left_primer) + len(strands.right_primer)


def _at(progress, station, total):
    """The progress callback of one station: called with how many more of ``total`` are done."""
    return progress and (lambda done: progress(station, done, total))


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
