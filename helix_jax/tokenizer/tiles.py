"""Clips of any size through the tokenizer: tiles of one padded shape, streamed.

In time, a clip is cut into groups of ``config.tile[0]`` latent frames, as long as the clips of training. The net codes
each group on its own (a group of pictures): a damaged group harms no other, and no context is computed twice. The
length of a group is part of the model. Repeated frames fill up the last group.

In space, a tile is a core of ``config.tile[1:]`` latents and a border on each side that its network can see
(``model.receptive_halo``). Where the picture ends within the tile, every layer repeats the picture's edge. Only the
core is kept, and the effect of a tile's own end reaches no further than the border, so the result is that of the whole
picture at once, however it is cut: there are no seams, and no token is stored twice. Tokens are always made with tiles
of the model's shape, so that float ties are always decided in the same way; this takes one compilation for every clip,
and memory for one group. Pictures are made with tiles that share the frame evenly (``_evenly``), so that less is
computed twice or discarded: this takes three fifths of the time in CIF, and a compilation for each size of frame.

On CPUs, one device with all cores works on one tile at a time: two tiles on two devices take 1.2 times as much CPU time
and four take 1.4 times as much, since they do not fit into the cache. Each accelerator takes several tiles at a time,
over all local devices and across groups. In both directions the next tiles are started before a result is awaited.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, Int, Num, Shaped, UInt8

from helix_jax import parallel
from helix_jax.config import TokenizerConfig
from helix_jax.errors import HelixError
from helix_jax.tokenizer import model
from helix_jax.tokenizer.haar import PATCH
from helix_jax.video import VideoInfo

Arrayish = Array | np.ndarray

ON_ACCELERATOR = 8  # tiles per device and call; not measured yet


def grid_shape(frames: int, height: int, width: int) -> tuple[int, ...]:
    """Return the latent grid (t, h, w) of a clip, rounded up at the edges. Height and width are in pixels."""
    return tuple(math.ceil(size / patch) for size, patch in zip((frames, height, width), PATCH, strict=True))


def encode(
    params: dict,
    config: TokenizerConfig,
    blocks: Iterable[np.ndarray],
    height: int,
    width: int,
    progress: Callable[[int], None] | None = None,
    batch: int | None = None,
    spread: bool | None = None,
    positions: bool = False,
) -> UInt8[np.ndarray, "t h w k"] | Float32[np.ndarray, "t h w k"]:
    """Encode the frames of a clip as token digits.

    The last frame and the right and bottom edges are repeated to fill whole tokens. By default, CPUs encode one tile at
    a time on one device, and accelerators ON_ACCELERATOR tiles on each device. ``batch`` and ``spread`` change no
    result except for float ties.

    Args:
        params: Parameters from ``model.init`` or a weights file.
        config: Configuration of the net.
        blocks: The clip in pieces uint8[n, H, W, 3] of any length, which are read once and not kept.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        progress: Called with the number of frames that have just been read.
        batch: Tiles per call of the network and device.
        spread: Whether to use all local devices instead of one.
        positions: Whether to return positions, which have not been rounded to digits.

    Returns:
        Digits from 0 to 3, or positions in (-0.5, 3.5), where (t, h, w) is the ``grid_shape``.

    Raises:
        HelixError: The clip is empty, or frames are of another size or type than stated.
    """
    network, batch = _on_devices(_encode_tiles, params, batch, spread, config=config, positions=positions)
    core = config.tile[0] * PATCH[0]
    h, w = grid_shape(1, height, width)[1:]
    done, digits = 0, []

    def cut():
        nonlocal done
        for chunk in regrouped(_checked(blocks, height, width), core):
            group = np.concatenate([chunk, np.repeat(chunk[-1:], core - len(chunk), axis=0)])
            digits.append(np.empty((config.tile[0], h, w, config.digits), np.float32 if positions else np.uint8))
            yield from _tiles(config, group, digits[-1])
            done += len(chunk)
            if progress:
                progress(len(chunk))

    for places, cores in parallel.one_ahead(_started(network, cut(), batch)):
        for (out, y, x), one in zip(places, np.asarray(cores), strict=False):
            _paste(out, one, y, x)
    if not done:
        raise HelixError("the clip has no frames: give at least one")
    return np.concatenate(digits)[: math.ceil(done / PATCH[0])]


def decode(
    params: dict,
    config: TokenizerConfig,
    levels: Num[Arrayish, "t h w k"],
    frames: int,
    height: int,
    width: int,
    progress: Callable[[int], None] | None = None,
    batch: int | None = None,
    spread: bool | None = None,
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Decode token digits to frames: yield blocks that together are exactly the clip.

    Args:
        params: Parameters from ``model.init`` or a weights file.
        config: Configuration of the net.
        levels: Digits, or real values between them for tokens that are guessed.
        frames: Number of frames of the clip.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        progress: Called with the number of frames that have just been decoded.
        batch: As for ``encode``.
        spread: As for ``encode``.

    Raises:
        HelixError: ``levels`` does not fit the clip or the model.
    """
    expected = (*grid_shape(frames, height, width), config.digits)
    if frames < 1 or levels.shape != expected:
        raise HelixError(
            f"tokens of shape {list(levels.shape)} do not fit: {frames} frames of {width}x{height} pixels and "
            f"{config.digits} digits per token need {list(expected)}"
        )
    config = _evenly(config, *levels.shape[1:3])
    return _decode_blocks(params, config, levels, frames, height, width, progress, batch, spread)


def squared_error(
    params: dict,
    config: TokenizerConfig,
    levels: Num[Arrayish, "t h w k"],
    blocks: Iterable[np.ndarray],
    info: VideoInfo,
) -> float:
    """Sum the squared error of the decoded clip over all samples, in 8-bit levels.

    What is written may depend on it, so tiles have the model's shape.

    Args:
        params: As for ``decode``.
        config: As for ``decode``.
        levels: As for ``decode``.
        blocks: The frames of the clip.
        info: The facts about the clip.
    """
    decoded = _decode_blocks(params, config, levels, info.frames, info.height, info.width)
    return sum(
        float(np.square(one.astype(np.float64) - other).sum())
        for one, other in zip(regrouped(blocks, config.tile[0] * PATCH[0]), decoded, strict=True)
    )


def _decode_blocks(
    params: dict,
    config: TokenizerConfig,
    levels: Num[Arrayish, "t h w k"],
    frames: int,
    height: int,
    width: int,
    progress: Callable[[int], None] | None = None,
    batch: int | None = None,
    spread: bool | None = None,
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    network, batch = _on_devices(_decode_tiles, params, batch, spread, config=config)
    core, halo, corners = (
        config.tile[0],
        model.receptive_halo(config.decoder_blocks),
        _corners(config, *levels.shape[1:3]),
    )

    def cut():
        for start in range(0, len(levels), core):
            group = levels[np.minimum(np.arange(start, start + core), len(levels) - 1)].astype(np.float32)
            out = np.empty((core * PATCH[0], height, width, 3), np.uint8)
            count = min(len(out), frames - start * PATCH[0])
            for y, x in corners:
                last = (y, x) == corners[-1]
                yield *_levels_of_tile(config, halo, group, y, x), (out, y * PATCH[1], x * PATCH[2], last and count)

    for places, cores in parallel.one_ahead(_started(network, cut(), batch)):
        for (out, y, x, count), pixels in zip(places, np.asarray(cores), strict=False):
            _paste(out, pixels, y, x)
            if count:  # that was the last tile of a group
                yield out[:count]
                if progress:
                    progress(count)


def _on_devices(
    function: Callable, params: dict, batch: int | None, spread: bool | None, **static: Any
) -> tuple[Callable, int]:
    """function(params, tiles, bounds, **static) -> (the same of tiles and bounds, how many tiles a call takes)."""
    on_cpu = parallel.mesh().devices.flat[0].platform == "cpu"
    batch = batch or (1 if on_cpu else ON_ACCELERATOR)
    if spread if spread is not None else not on_cpu:
        mapped = functools.partial(parallel.spread(function, **static), parallel.replicate(params))
        return mapped, batch * parallel.mesh().size
    return functools.partial(function, params, **static), batch


# ---- one step in time: all tiles of a group -----------------------------------------------


def _tiles(config: TokenizerConfig, frames: UInt8[np.ndarray, "T H W 3"], out: np.ndarray) -> Iterator[tuple]:
    """Cut a group into tiles: yield (pixels, bounds, (out, y, x)), where the last is the place of the tile's core."""
    halo = model.receptive_halo(config.encoder_blocks)
    _, height, width, _ = frames.shape
    _, h, w, _ = out.shape
    for y, x in _corners(config, h, w):
        rows = _clamped((y - halo) * PATCH[1], (config.tile[1] + 2 * halo) * PATCH[1], height)
        columns = _clamped((x - halo) * PATCH[2], (config.tile[2] + 2 * halo) * PATCH[2], width)
        yield frames[:, rows[:, None], columns], _bounds(config, halo, (y, x), h, w), (out, y, x)


def _levels_of_tile(
    config: TokenizerConfig, halo: int, group: Float32[Arrayish, "t h w k"], y: int, x: int
) -> tuple[Float32[Arrayish, "t H W k"], Int[np.ndarray, "4"]]:
    """Return (levels, bounds) of the tile at (y, x) of a group."""
    _, h, w, _ = group.shape
    rows = _clamped(y - halo, config.tile[1] + 2 * halo, h)
    columns = _clamped(x - halo, config.tile[2] + 2 * halo, w)
    return group[:, rows[:, None], columns], _bounds(config, halo, (y, x), h, w)


def _started(network: Callable, tiles: Iterator[tuple], batch: int) -> Iterator[tuple]:
    """Start ``batch`` tiles at a time, each (input, bounds, where its result belongs): yield (where each belongs, the
    results). The last tile is repeated to fill up a batch."""
    while waiting := list(itertools.islice(tiles, batch)):
        inputs, bounds, places = zip(*waiting, strict=True)
        spare = batch - len(waiting)
        yield places, network(np.stack(inputs + inputs[-1:] * spare), np.stack(bounds + bounds[-1:] * spare))


@functools.partial(jax.jit, static_argnames=("config", "positions"))
def _encode_tiles(
    params: dict,
    pixels: UInt8[Array, "n T H W 3"],
    bounds: Int[Array, "n 4"],
    config: TokenizerConfig,
    positions: bool,
) -> Num[Array, "n t h w k"]:
    side = model.receptive_halo(config.encoder_blocks)
    call = model.positions if positions else model.encode
    grid = jax.vmap(lambda one, its: call(params, one[None], config, its)[0])(pixels, bounds)
    return _core(grid, (side, side), config.tile[1:])


@functools.partial(jax.jit, static_argnames="config")
def _decode_tiles(
    params: dict, levels: Float32[Array, "n t h w k"], bounds: Int[Array, "n 4"], config: TokenizerConfig
) -> UInt8[Array, "n T H W 3"]:
    side = model.receptive_halo(config.decoder_blocks)
    start = (side * PATCH[1], side * PATCH[2])
    size = (config.tile[1] * PATCH[1], config.tile[2] * PATCH[2])
    pixels = jax.vmap(lambda one, its: model.decode(params, one[None], config, its)[0])(levels, bounds)
    return _core(pixels, start, size)


def _core(grid: Shaped[Array, "n t H W k"], start: Any, size: Any) -> Shaped[Array, "n t h w k"]:
    """Cut the core out of a batch of tiles."""
    (h, w), (nh, nw) = start, size
    return grid[:, :, h : h + nh, w : w + nw]


def _evenly(config: TokenizerConfig, h: int, w: int) -> TokenizerConfig:
    """The same configuration with cores about a quarter larger, which share a frame of h x w latents evenly."""
    length, *sides = config.tile
    height, width = (-(-size // max(1, round(size / (1.25 * side)))) for size, side in zip((h, w), sides, strict=True))
    return dataclasses.replace(config, tile=(length, height, width))


def _corners(config: TokenizerConfig, h: int, w: int) -> list[tuple[int, int]]:
    """Top left corners (y, x) of the cores of all tiles."""
    return [(y, x) for y in range(0, h, config.tile[1]) for x in range(0, w, config.tile[2])]


def _bounds(config: TokenizerConfig, halo: int, corner: tuple[int, int], h: int, w: int) -> Int[np.ndarray, "4"]:
    """Where the picture of h x w latents lies in the tile whose core begins at ``corner`` (``layers.CausalBlock``)."""
    limits = []
    for start, core, size in zip(corner, config.tile[1:], (h, w), strict=True):
        limits += [max(0, halo - start), min(core + 2 * halo, size + halo - start) - 1]
    return np.array(limits, np.int32)


def _paste(out: Shaped[np.ndarray, "T H W k"], core: Shaped[np.ndarray, "t h w k"], y: int, x: int) -> None:
    """Write a core into the picture at (y, x), cropped at the picture's edges."""
    part = out[:, y : y + core.shape[1], x : x + core.shape[2]]
    part[...] = core[:, : part.shape[1], : part.shape[2]]


def _clamped(start: int, count: int, size: int) -> Int[np.ndarray, " {count}"]:
    """The indices from ``start``, of which those outside are replaced by that of the nearest edge."""
    return np.clip(np.arange(start, start + count), 0, size - 1)


# ---- frames in, frames of the right number out ---------------------------------------------


def _checked(blocks: Iterable[np.ndarray], height: int, width: int) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield the blocks. Raise HelixError for frames of another size or type."""
    for block in blocks:
        if block.dtype != np.uint8 or block.shape[1:] != (height, width, 3):
            raise HelixError(
                f"frames are {block.dtype}{list(block.shape)}; the clip was announced as uint8[n, {height}, {width}, 3]"
            )
        yield block


def regrouped(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the frames of blocks of any lengths in blocks of ``size`` frames; the last block may be shorter."""
    held, count = [], 0
    for block in blocks:
        while len(block):
            take = block[: size - count]
            held.append(take)
            block, count = block[len(take) :], count + len(take)
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)
