"""A small change of the decoder's net that is made for one clip and sent with it (`encode --effort 3`).

The first matrix of the decoder changes (``from_digits``, the rows of the digits that are sent), and so do the gains of
its blocks. These are 1,536 parameters of the shipped net where all digits are sent; changing biases too would gain
little more. Each change is a number from -8 to 7, which takes half a byte, times 2^-code. The code, from 1 to 255, is
in the header, where 0 means that there is no update. Parameters whose change is lost stay as they are.

The numbers are in this order: ``from_digits`` b and w, row by row, then the gains from the first block to the last. The
first number of a byte is its high half, and each is stored as itself + 8. The update has no check of its own, since
packets have one, and the payload has a hash. (Instance-adaptive coding: van Rozendaal, Huijben, Cohen, "Overfitting for
Fun and Profit", ICLR 2021.)
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float32, Num, UInt8

from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import fsq, model, tiles
from helix_jax.tokenizer.haar import PATCH
from helix_jax.tokenizer.weights import Model
from helix_jax.video import VideoInfo

STEPS = 120  # of Adam, at least; a long clip takes one step for each group of the tokenizer
LEARNING_RATE = 0.01  # at the first step, falling to 0 on a cosine
CODES = (3, 4, 5)  # the codes that are tried
LOW, HIGH = -8, 7
# Bytes of a clip that a fit keeps in memory at most, instead of decoding its file in each of up to STEPS passes. It is
# half of what a fit takes anyway (0.6 GiB for the shipped clip), so that memory still has a bound that no clip exceeds.
# A clip that is larger takes fewer passes, for each of which the file is decoded.
KEPT = 1 << 28


@runtime_checkable
class Video(Protocol):
    """A clip that can be read several times, such as ``video.VideoReader`` and ``video.Clip``."""

    @property
    def info(self) -> VideoInfo:
        """The facts about the clip."""
        ...

    def blocks(self) -> Iterable[np.ndarray]:
        """Read the clip from its start, in blocks uint8[n, H, W, 3] of any length."""
        ...


def size(config: TokenizerConfig, digits: int) -> int:
    """Number of bytes of an update, where ``digits`` is the number of digits of each token that are sent."""
    return -(-_count(config, digits) // 2)


def applied(
    params: dict,
    config: TokenizerConfig,
    digits: int,
    data: UInt8[np.ndarray, " size"],
    valid: Bool[np.ndarray, " size"],
    code: int,
) -> dict:
    """Apply an update to the parameters of a tokenizer, and return the new ones.

    Args:
        params: Parameters of the tokenizer.
        config: Configuration of its net.
        digits: Number of digits of each token that are sent.
        data: The update.
        valid: Mask of the bytes of the update that are not lost.
        code: The code in the header.
    """
    halves = np.stack([data >> 4, data & 15], axis=-1).astype(np.float32) + LOW
    values = np.where(valid[:, None], halves, 0).reshape(-1)[: _count(config, digits)]
    return _moved(params, config, digits, jnp.asarray(values * np.float32(2.0**-code)))


def fit(
    levels: Num[np.ndarray, "t h w k"],
    digits: int,
    video: Video,
    tokenizer: Model,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[UInt8[np.ndarray, " size"], int, float]:
    """Search for the update with which a clip is decoded best.

    Nothing is random, so the same machine finds the same update.

    Args:
        levels: Levels as the decoder will have them, of which the first ``digits`` are sent.
        digits: Number of digits of each token that are sent.
        video: The clip, which is read several times if it is larger than ``KEPT``.
        tokenizer: The tokenizer.
        progress: Called as ``progress(done, total)`` after each group of each reading, where ``done`` is how many more
            are done.

    Returns:
        The update, its code, and the squared error of the clip with it.
    """
    config, info = tokenizer.config, video.info
    length = config.tile[0]
    groups = -(-len(levels) // length)
    passes = max(1, -(-STEPS // groups))
    total = passes * groups
    change = jnp.zeros(_count(config, digits), jnp.float32)
    state = counted_in_floats(optax.scale_by_adam().init(change))
    read = _groups(video, length * PATCH[0])
    for turn in range(passes):
        for number, pixels in enumerate(read()):
            part = levels[number * length : (number + 1) * length]
            part = np.pad(part, [(0, length - len(part)), *[(0, 0)] * 3], mode="edge")
            frames = np.pad(pixels, [(0, length * PATCH[0] - len(pixels)), *[(0, 0)] * 3], mode="edge")
            shown = np.arange(len(frames)) < len(pixels)
            pace = LEARNING_RATE * (1 + math.cos(math.pi * (turn * groups + number) / total)) / 2
            change, state = _step(
                tokenizer.params, change, state, jnp.float32(pace), jnp.asarray(part, jnp.float32), jnp.asarray(frames),
                jnp.asarray(shown, jnp.float32), config=config, digits=digits,
            )  # fmt: skip
            if progress:
                progress(1, total)
    tried = []
    for code in CODES:
        data = quantised(np.asarray(change), code)
        params = applied(tokenizer.params, config, digits, data, np.ones(len(data), bool), code)
        tried.append((data, code, tiles.squared_error(params, config, levels, read(), info)))
    return min(tried, key=lambda attempt: attempt[2])


def _groups(video: Video, size: int) -> Callable[[], Iterable[np.ndarray]]:
    """Return a function that reads the clip in groups of ``size`` frames: from memory if it is small, else again."""
    info = video.info
    if info.frames * info.height * info.width * 3 > KEPT:
        return lambda: tiles.regrouped(video.blocks(), size)
    groups = list(tiles.regrouped(video.blocks(), size))
    return lambda: groups


def counted_in_floats(state: Any) -> Any:
    """Make the count of steps in a state of Adam a float32.

    Optax raises its decay rates to the power of that count. Where the count is an integer, optax takes the default
    float type, which is float64 where 64 bits are enabled, and the results differ.
    """
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), state)


def quantised(change: Float32[np.ndarray, " n"], code: int) -> UInt8[np.ndarray, " size"]:
    """Quantise changes to an update, of which each takes half a byte."""
    values = np.clip(np.round(change * 2.0**code), LOW, HIGH).astype(np.int64) - LOW
    values = np.pad(values, (0, len(values) % 2), constant_values=-LOW).reshape(-1, 2)
    return (values[:, 0] << 4 | values[:, 1]).astype(np.uint8)


def _shapes(config: TokenizerConfig, digits: int) -> dict[tuple, tuple[int, ...]]:
    """Path and shape of the parameters that change, in the order of an update."""
    first: dict[tuple, tuple[int, ...]] = {
        ("from_digits", "b"): (config.width,),
        ("from_digits", "w"): (digits, config.width),
    }
    return first | {("decoder", n, "gain"): (config.width,) for n in range(config.decoder_blocks)}


def _count(config: TokenizerConfig, digits: int) -> int:
    """Number of parameters that change."""
    return sum(math.prod(shape) for shape in _shapes(config, digits).values())


def _moved(params: dict, config: TokenizerConfig, digits: int, change: Float32[Array, " n"]) -> dict:
    """Add changes to parameters."""
    begin, moved = 0, {}
    for path, shape in _shapes(config, digits).items():
        end = begin + math.prod(shape)
        moved[path], begin = change[begin:end].reshape(shape), end

    def leaf(path, value):
        part: Any = moved.get(tuple(getattr(step, "key", getattr(step, "idx", None)) for step in path))
        if part is None:
            return value
        return value + jnp.pad(part, [(0, have - some) for have, some in zip(value.shape, part.shape, strict=True)])

    return jax.tree_util.tree_map_with_path(leaf, params)


@functools.partial(jax.jit, static_argnames=("config", "digits"))
def _step(
    params: dict,
    change: Float32[Array, " n"],
    state: Any,
    pace: Float32[Array, ""],
    levels: Float32[Array, "t h w k"],
    frames: UInt8[Array, "T H W 3"],
    shown: Float32[Array, " T"],
    config: TokenizerConfig,
    digits: int,
) -> tuple[Float32[Array, " n"], Any]:
    """One step of Adam on a group. ``shown`` is 1 for frames of the clip, and 0 for padding."""

    def cost(change):
        _, height, width, _ = frames.shape
        decoded = model.pixels(
            _moved(params, config, digits, change), fsq.centre(levels[None], config.silence), config
        )[0]
        error = jnp.square(decoded[:, :height, :width] - model.to_float(frames))
        return jnp.sum(error * shown[:, None, None, None]) / (jnp.sum(shown) * height * width * 3)

    updated: Any = optax.scale_by_adam().update(jax.grad(cost)(change), state)
    step, state = updated
    return change - pace * step, state
