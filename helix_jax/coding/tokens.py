"""A clip <-> tokens on the source symbols of a pool: the picture of ``encode --codec tokens``."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from helix_jax.coding import choice, conceal, described, ladder, modes
from helix_jax.config import CodecConfig
from helix_jax.errors import DecodeError
from helix_jax.nets import Nets
from helix_jax.strands.header import Header
from helix_jax.strands.layouts import PacketLayout
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles, update
from helix_jax.video import VideoInfo
from helix_jax.writer import Progress, Station


def encode(
    video: update.Video, nets: Nets, config: CodecConfig, station: Station, progress: Progress | None = None
) -> tuple[modes.Coding, PacketLayout]:
    """Turn a clip into tokens with the quality, rate or budget that is requested.

    Args:
        video: The clip.
        nets: The tokenizer and its prior.
        config: The configuration.
        station: What will write the pool. It says what a coding costs.
        progress: As for ``codec.encode``.

    Returns:
        The coded tokens, and the layout of their packets.

    Raises:
        HelixError: The rate or budget does not pay for the lowest quality, or the mode is not possible.
    """
    info, model = video.info, nets.tokenizer
    step = _at(progress, "tokens", info.frames)
    positions = tiles.encode(model.params, model.config, video.blocks(), info.height, info.width, step, positions=True)
    coded, layout = choice.choose(positions, video, config, nets, station, progress)
    if config.verify:
        modes.verify(coded, nets.prior, progress=progress)
    return coded, layout


def decode(
    head: Header,
    symbols: UInt8[np.ndarray, "sources d"],
    lost: Bool[np.ndarray, " sources"],
    nets: Nets,
    remedy: str,
    progress: Progress | None = None,
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, "n H W 3"]], Mapping[str, Any]]:
    """Turn the source symbols of tokens into the clip; lost tokens are concealed.

    Args:
        head: The header of the pool.
        symbols: The digits of the symbols, unmixed, four for each byte.
        lost: Mask of the symbols that are lost or doubtful.
        nets: The nets that the pool was encoded with.
        remedy: What would bring more of the pool back, for error messages.
        progress: As for ``codec.decode``.

    Returns:
        The facts about the clip, its frames in blocks, and the fields of the report that say what is lost.

    Raises:
        DecodeError: No token is left, or the header belongs to other nets.
    """
    model, prior = nets.tokenizer, nets.prior
    info = described.info_of(head, nets, len(lost))
    grid = tiles.grid_shape(info.frames, info.height, info.width)
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
    tokens, params, whole = ladder.whole_tokens(tokens, model.config), model.params, 1.0
    if head.update:
        data, valid = modes.read_update(update.size(model.config, head.digits), symbols, lost)
        params, whole = update.applied(params, model.config, head.digits, data, valid, head.update), valid.mean()
    step = _at(progress, "pictures", info.frames)
    blocks = tiles.decode(params, model.config, tokens, info.frames, info.height, info.width, step)
    return info, blocks, {"lost_tokens": float(missing.mean()), "lost_update": 1.0 - float(whole)}


def symbols(
    coded: modes.Coding, layout: PacketLayout, config: CodecConfig
) -> tuple[PacketLayout, UInt8[np.ndarray, "sources d"]]:
    """Return the digits of the tokens' source symbols, not yet mixed, and the layout with the room that they take.

    In a pool of format 2 the tokens are its first section.
    """
    digits = coded.symbols(layout, config.mixing)
    if layout.sections:
        first, *others = layout.sections
        parts = (dataclasses.replace(first, sources=len(digits)), *others)
        size = sum(part.sources for part in parts) * layout.symbol_bytes
        layout = dataclasses.replace(layout, sections=parts, payload_bytes=size)
    return layout, digits


def data_of(digits: UInt8[np.ndarray, "sources d"]) -> bytes:
    """Return source symbols as the bytes of a section."""
    return mixing.to_bytes(digits).tobytes()


def _at(progress: Progress | None, station: str, total: int) -> Callable[[int], None] | None:
    """The progress callback of one station, which is called with how many more of ``total`` are done."""
    return None if progress is None else lambda done: progress(station, done, total)
