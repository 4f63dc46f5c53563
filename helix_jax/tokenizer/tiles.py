"""Clips of any size through the tokenizer: tiles of one padded shape, streamed.

In time a clip is cut into groups of ``config.tile[0]`` latent frames, as long as the clips of training, which the net
codes on their own (a group of pictures): a damaged group harms no other, and no context is computed twice. The
length of a group is part of the model. Frames fill up the last group.

In space a tile is a core of ``config.tile[1:]`` latents plus a border on each side that its network can see
(``model.receptive_halo``); where the picture ends within the tile, every layer repeats the picture's edge. Only the
core is kept, and a tile's own end reaches no further than the border, so the result is that of the whole picture at
once, however it is cut: no seams, and no token is stored twice. Tokens are always made with tiles of the model's shape,
so that no float tie decides otherwise on another day: one compilation for every clip, and memory for one group.
Pictures are made with tiles that share the frame evenly (``_evenly``), where less is computed twice or thrown away: in
CIF three fifths of the time, for a compilation for each size of frame.

On CPUs one tile at a time is worked on, by one device with all cores: two tiles on two devices take 1.2 times as much
CPU time, four 1.4 times, since they leave the cache. Accelerators take several tiles each at a time, over all local
devices, across groups. Both ways, encoding and decoding, the next tiles are at work while one result is waited for.
"""

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np

from helix_jax import parallel
from helix_jax.errors import HelixError
from helix_jax.tokenizer import model
from helix_jax.tokenizer.haar import PATCH

ON_ACCELERATOR = 8  # tiles per device and call; not measured yet


def grid_shape(frames, height, width):
    """Latent grid (t, h, w) of a clip of ``frames`` x ``height`` x ``width`` pixels, edges rounded up."""
    return tuple(math.ceil(size / patch) for size, patch in zip((frames, height, width), PATCH, strict=True))


def encode(params, config, blocks, height, width, progress=None, batch=None, spread=None, positions=False):
    """Frames -> token digits.

    params: from ``model.init`` or a weights file. config: TokenizerConfig. blocks: iterable of
    uint8[n, H, W, 3], the clip in pieces of any length, read once and not kept. progress: called
    with the number of frames just taken in. batch: tiles per call of the network and device; spread: over all local
    devices instead of one. By default one tile on one device on CPUs, else ON_ACCELERATOR on all. They change no
    result but for float ties.
    positions: before rounding to digits.
    Returns uint8[t, h, w, k] in 0..3, or positions float32[t, h, w, k] in (-0.5, 3.5), with (t, h, w) =
    ``grid_shape``; the last frame and the right and bottom edges repeat to fill whole tokens.
    Raises ValueError for an empty clip, or frames of another size or type than stated.
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


def decode(params, config, levels, frames, height, width, progress=None, batch=None, spread=None):
    """Token digits -> frames, a generator of uint8[n, H, W, 3] blocks that cover exactly the clip.

    levels: [t, h, w, k], uint8 digits or float values between them (for tokens that are guessed).
    frames, height, width: of the clip in pixels. progress: called with the number of frames just done.
    batch, spread: as for ``encode``.
    Raises ValueError where ``levels`` does not fit the clip or the model.
    """
    expected = (*grid_shape(frames, height, width), config.digits)
    if frames < 1 or levels.shape != expected:
        raise HelixError(
            f"tokens of shape {list(levels.shape)} do not fit: {frames} frames of {width}x{height} pixels and "
            f"{config.digits} digits per token need {list(expected)}"
        )
    config = _evenly(config, *levels.shape[1:3])
    return _decode_blocks(params, config, levels, frames, height, width, progress, batch, spread)


def squared_error(params, config, levels, blocks, info):
    """Of the decoded clip, over all samples, in 8-bit levels: float. levels: as for ``decode``. blocks: the clip's
    frames. info: video.VideoInfo. What is written may depend on it, so tiles have the model's shape."""
    decoded = _decode_blocks(params, config, levels, info.frames, info.height, info.width)
    return sum(
        float(np.square(one.astype(np.float64) - other).sum())
        for one, other in zip(regrouped(blocks, config.tile[0] * PATCH[0]), decoded, strict=True)
    )


def _decode_blocks(params, config, levels, frames, height, width, progress=None, batch=None, spread=None):
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
        for (out, y, x, count), one in zip(places, np.asarray(cores), strict=False):
            _paste(out, one, y, x)
            if count:  # that was the last tile of a group
                yield out[:count]
                if progress:
                    progress(count)


def _on_devices(function, params, batch, spread, **static):
    """function(params, tiles, bounds, **static) -> (the same of tiles and bounds, how many tiles a call takes)."""
    on_cpu = parallel.mesh().devices.flat[0].platform == "cpu"
    batch = batch or (1 if on_cpu else ON_ACCELERATOR)
    if spread if spread is not None else not on_cpu:
        return functools.partial(parallel.spread(function, **static), parallel.replicate(params)), (
            batch * parallel.mesh().size
        )
    return functools.partial(function, params, **static), batch


# ---- one step in time: all tiles of a group -----------------------------------------------


def _tiles(config, frames, out):
    """Cut a group uint8[frames, H, W, 3] into tiles: yields (pixels, bounds, (out, y, x)), the last being where to."""
    halo = model.receptive_halo(config.encoder_blocks)
    _, height, width, _ = frames.shape
    _, h, w, _ = out.shape
    for y, x in _corners(config, h, w):
        rows = _clamped((y - halo) * PATCH[1], (config.tile[1] + 2 * halo) * PATCH[1], height)
        columns = _clamped((x - halo) * PATCH[2], (config.tile[2] + 2 * halo) * PATCH[2], width)
        yield frames[:, rows[:, None], columns], _bounds(config, halo, (y, x), h, w), (out, y, x)


def _levels_of_tile(config, halo, group, y, x):
    """(levels, bounds) of the tile at (y, x) of a group float32[t, h, w, k]."""
    _, h, w, _ = group.shape
    rows = _clamped(y - halo, config.tile[1] + 2 * halo, h)
    columns = _clamped(x - halo, config.tile[2] + 2 * halo, w)
    return group[:, rows[:, None], columns], _bounds(config, halo, (y, x), h, w)


def _started(network, tiles, batch):
    """Start ``batch`` tiles, (what the network is given, bounds, where the result belongs), at a time: yields (where
    each belongs, the results); the last tile repeats to fill."""
    while waiting := list(itertools.islice(tiles, batch)):
        given, bounds, places = zip(*waiting, strict=True)
        spare = batch - len(waiting)
        yield places, network(np.stack(given + given[-1:] * spare), np.stack(bounds + bounds[-1:] * spare))


@functools.partial(jax.jit, static_argnames=("config", "positions"))
def _encode_tiles(params, pixels, bounds, config, positions):
    side = model.receptive_halo(config.encoder_blocks)
    call = model.positions if positions else model.encode
    grid = jax.vmap(lambda one, its: call(params, one[None], config, its)[0])(pixels, bounds)
    return _core(grid, (side, side), config.tile[1:])


@functools.partial(jax.jit, static_argnames="config")
def _decode_tiles(params, levels, bounds, config):
    side = model.receptive_halo(config.decoder_blocks)
    start = (side * PATCH[1], side * PATCH[2])
    size = (config.tile[1] * PATCH[1], config.tile[2] * PATCH[2])
    pixels = jax.vmap(lambda one, its: model.decode(params, one[None], config, its)[0])(levels, bounds)
    return _core(pixels, start, size)


def _core(grid, start, size):
    (h, w), (nh, nw) = start, size
    return grid[:, :, h : h + nh, w : w + nw]


def _evenly(config, h, w):
    """The same with cores about a quarter larger, which share a frame of h x w latents evenly."""
    sides = [
        -(-size // max(1, round(size / (1.25 * side)))) for size, side in zip((h, w), config.tile[1:], strict=True)
    ]
    return dataclasses.replace(config, tile=(config.tile[0], *sides))


def _corners(config, h, w):
    return [(y, x) for y in range(0, h, config.tile[1]) for x in range(0, w, config.tile[2])]


def _bounds(config, halo, corner, h, w):
    """Where the picture of h x w latents lies in the tile whose core begins at ``corner``: int32[4], see the net."""
    limits = []
    for start, core, size in zip(corner, config.tile[1:], (h, w), strict=True):
        limits += [max(0, halo - start), min(core + 2 * halo, size + halo - start) - 1]
    return np.array(limits, np.int32)


def _paste(out, core, y, x):
    """Write a core into the picture at (y, x), cropped at its edges."""
    part = out[:, y : y + core.shape[1], x : x + core.shape[2]]
    part[...] = core[:, : part.shape[1], : part.shape[2]]


def _clamped(start, count, size):
    return np.clip(np.arange(start, start + count), 0, size - 1)


# ---- frames in, frames of the right number out ---------------------------------------------


def _checked(blocks, height, width):
    for block in blocks:
        if block.dtype != np.uint8 or block.shape[1:] != (height, width, 3):
            raise HelixError(
                f"frames are {block.dtype}{list(block.shape)}; the clip was announced as uint8[n, {height}, {width}, 3]"
            )
        yield block


def regrouped(blocks, size):
    """Blocks of any lengths -> the same frames as uint8[size, ...] each; the last may be shorter."""
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
