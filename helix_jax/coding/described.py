"""What a clip is, in the fields of the header <-> the clip and the nets that a decoder needs for it."""

import math
from typing import Any

from helix_jax.coding import modes
from helix_jax.errors import DecodeError
from helix_jax.nets import Nets
from helix_jax.strands.header import Header
from helix_jax.tokenizer import tiles, update
from helix_jax.video import VideoInfo

# The longest description of tokens, for which a plan leaves room in the header.
ROOM = {"mode": "prior", "digits": 1, "model_hash": b"\1" * 8, "prior_hash": b"\1" * 6}


def fields(info: VideoInfo, coded: modes.Coding, nets: Nets) -> dict[str, Any]:
    """Return the fields of the header that describe a clip, its coding, and the nets that decode it."""
    return {
        "kind": "video",
        "mode": coded.mode,
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": info.fps,
        "digits": coded.tokens.shape[-1],
        "model_hash": nets.tokenizer.digest[:8],
        "prior_hash": nets.prior.digest[:6] if nets.prior and coded.mode != "raw" else bytes(6),
        "update": coded.code,
    }


def info_of(head: Header, nets: Nets, sources: int) -> VideoInfo:
    """Return the facts about the clip of a header, whose tokens have so many source symbols.

    Raises DecodeError for a header of other contents or other nets, or whose numbers contradict each other.
    """
    model, prior = nets.tokenizer, nets.prior
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
    room = 4 * head.symbol_bytes // head.digits * (sources - tuned)
    if head.mode == "raw" and (tokens > room or 4 * head.symbol_bytes % head.digits):
        raise DecodeError(
            f"the header says {head.frames} frames of {head.width}x{head.height} pixels, {tokens:,} tokens of "
            f"{head.digits} digits, and the payload has room for {room:,}: forged?"
        )
    if tuned >= sources:
        raise DecodeError(f"the header says that {tuned} of {sources} packets hold an update: forged?")
    if head.mode != "raw" and (prior is None or prior.digest[:6] != head.prior_hash):
        given = "none was given" if prior is None else f"not {prior.digest[:6].hex()}"
        raise DecodeError(
            f"this pool was coded in mode {head.mode} with prior {head.prior_hash.hex()}, {given}: "
            "give that one with --prior"
        )
    return VideoInfo(frames=head.frames, height=head.height, width=head.width, fps=head.fps)
