"""From video to the schedule of the timing writer, and from reads back to video: the second writer for the same tokens.

    tokens -> mixing (neighbours to different strands) -> header, payload -> timing.codec

The header (``strands.header``) precedes the payload and fills whole strands. A lost strand is then a set of scattered
tokens, which are concealed as with the first writer (``codec``).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from helix_jax.coding import conceal
from helix_jax.config import MixingConfig
from helix_jax.strands import header as headers
from helix_jax.strands import outer
from helix_jax.timing import codec
from helix_jax.timing.codec import DecodeError
from helix_jax.timing.schedule import Schedule
from helix_jax.timing.scheme import Scheme
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model
from helix_jax.video import VideoInfo

_CONSTRAINTS = "timing"  # stands in the header in place of the name of a constraint set
_MIXING = MixingConfig()


def encode(video: Any, model: Model, scheme: Scheme, *, progress: codec.Progress = None) -> Schedule:
    """Encode a video into a schedule.

    Args:
        video: A clip, as ``video.open_video`` or ``video.Clip`` gives it (``info`` and ``blocks()``).
        model: The tokenizer.
        scheme: The scheme, which the reader must know too.
        progress: Called as progress(station, done, total).

    Returns:
        The schedule of all strands.

    Raises:
        HelixError: The video cannot be encoded; the message has the reason.
    """
    info, digits = video.info, model.config.digits
    step = None if progress is None else lambda done: progress("tokens", done, info.frames)
    tokens = tiles.encode(model.params, model.config, video.blocks(), info.height, info.width, step)
    size = _symbol_bytes(scheme, digits)
    symbols = mixing.interleave(tokens, 4 * size // digits, _MIXING)
    payload = mixing.to_bytes(symbols)
    head = headers.Header(
        kind="video",
        constraints=_CONSTRAINTS,
        tables_hash=bytes(8),
        key=bytes(8),
        content_bytes=tokens.size // 4,
        digest=outer.payload_digest(payload.tobytes()),
        sources=len(payload),
        symbol_bytes=size,
        index_bits=1,
        check_bits=1,
        repairs=0,
        mixing=_MIXING,
        frames=info.frames,
        height=info.height,
        width=info.width,
        fps=info.fps,
        digits=digits,
        model_hash=model.digest[:8],
    )
    return codec.encode(head.to_bytes() + payload.tobytes(), scheme, progress=progress)


def decode(
    reads: codec.Reads, model: Model, scheme: Scheme, *, progress: codec.Progress = None
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, "n H W 3"]], codec.Report, float]:
    """Decode reads into a video.

    Args:
        reads: The bases (0..3) of copies of all strands, in any order.
        model: The tokenizer that the video was encoded with.
        scheme: The scheme that the video was encoded with.
        progress: Called as progress(station, done, total).

    Returns:
        The properties of the video; its frames, in blocks; the report on the reads; and the share of the tokens that
        are concealed.

    Raises:
        DecodeError: No picture can be decoded.
    """
    received = codec.recover(reads, scheme, progress=progress)
    data = np.frombuffer(received.data, np.uint8)
    if received.lost[: headers.SIZE].any():
        raise DecodeError("the strands that hold the header are lost: more copies of each strand are needed")
    try:
        head = headers.Header.from_bytes(received.data[: headers.SIZE])
    except headers.HeaderError as error:
        raise DecodeError("this pool holds no video: use `helix-jax unpack --writer timing`") from error
    if head.model_hash != model.digest[:8]:
        raise DecodeError(
            f"this pool was encoded with model {head.model_hash.hex()}, not {model.digest[:8].hex()}: "
            "give that one with --model"
        )
    shape = (head.sources, head.symbol_bytes)
    if len(data) != headers.SIZE + math.prod(shape):
        raise DecodeError("the header does not fit the content: reads of several pools are mixed")
    symbols = mixing.from_bytes(data[headers.SIZE :].reshape(shape))
    lost = np.repeat(received.lost[headers.SIZE :].reshape(shape), 4, axis=1)
    if not received.report.verified and not lost.any():
        raise DecodeError("the payload does not match its digest, and the wrong strand cannot be located")
    info = VideoInfo(frames=head.frames, height=head.height, width=head.width, fps=head.fps)
    grid = tiles.grid_shape(info.frames, info.height, info.width)
    tokens = mixing.deinterleave(symbols, grid, head.digits, head.mixing)
    missing = mixing.deinterleave(lost, grid, head.digits, head.mixing).any(axis=-1)
    if missing.all():
        raise DecodeError("no token came back: more copies of each strand are needed")
    if missing.any():
        tokens = conceal.fill_lost(tokens, missing)
    step = None if progress is None else lambda done: progress("pictures", done, info.frames)
    blocks = tiles.decode(model.params, model.config, tokens, info.frames, info.height, info.width, step)
    return info, blocks, received.report, float(missing.mean())


def refuse_video(data: bytes) -> None:
    """Raise DecodeError when the bytes of a pool are those of a video."""
    try:
        head = headers.Header.from_bytes(data[: headers.SIZE])
    except (headers.HeaderError, ValueError):
        return
    if head.constraints == _CONSTRAINTS and len(data) == headers.SIZE + head.sources * head.symbol_bytes:
        raise DecodeError("this pool holds video, not bytes: use `helix-jax decode --writer timing`")


def _symbol_bytes(scheme, digits):
    """Return the bytes of an interleaving symbol: whole tokens, about one strand."""
    multiple = digits // math.gcd(digits, 4)
    return max(multiple, codec.symbol_bytes(scheme) // multiple * multiple)
