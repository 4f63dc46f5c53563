"""A small change of the decoder's net, made for one clip and sent with it (`encode --effort 3`).

What changes are the first matrix of the decoder (``from_digits``, the rows of the digits that are sent) and the gains
of its blocks: 1,536 parameters of the shipped net where all digits are sent; biases too would gain little more. Each is
a number from -8 to 7, half a byte, times 2^-code. The code, 1 to 255, stands in the header, where 0 means that nothing
is sent. What is lost on the way stays unchanged.

Order of the numbers: row by row, ``from_digits`` b and w, then the gains from the first block to the last. The first of
a byte is its high half; each is stored as itself + 8. No check of its own: packets have one, and the payload's hash.
(Instance-adaptive coding: van Rozendaal, Huijben, Cohen, "Overfitting for Fun and Profit", ICLR 2021.)
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from helix_jax.tokenizer import fsq, model, tiles
from helix_jax.tokenizer.haar import PATCH

STEPS = 120  # of Adam at least; a long clip takes one for each group of the tokenizer
LEARNING_RATE = 0.01  # at first, falling to 0 on a cosine
CODES = (3, 4, 5)  # tried
LOW, HIGH = -8, 7


def size(config, digits):
    """Bytes of an update. config: TokenizerConfig. digits: of each token that are sent."""
    return -(-_count(config, digits) // 2)


def applied(params, config, digits, data, there, code):
    """Parameters with an update.

    params: of the tokenizer. data: uint8[size]. there: bool[size], False where a byte is lost. code: from the header.
    """
    halves = np.stack([data >> 4, data & 15], axis=-1).astype(np.float32) + LOW
    values = np.where(there[:, None], halves, 0).reshape(-1)[: _count(config, digits)]
    return _moved(params, config, digits, jnp.asarray(values * np.float32(2.0**-code)))


def fit(levels, digits, video, tokenizer, progress=None):
    """The change that shows a clip best -> (data uint8[size], code, squared error of the clip with it).

    levels: [t, h, w, k], as the decoder will have them, of which the first ``digits`` are sent. video: the clip's
    reader, read some times. tokenizer: tokenizer.weights.Model. progress: called after each group of each reading, as
    (done, total). Nothing is drawn: the same machine finds the same change."""
    config, info = tokenizer.config, video.info
    length = config.tile[0]
    groups = -(-len(levels) // length)
    passes = max(1, -(-STEPS // groups))
    total = passes * groups
    change = jnp.zeros(_count(config, digits), jnp.float32)
    state = counted_in_floats(optax.scale_by_adam().init(change))
    for turn in range(passes):
        for number, pixels in enumerate(tiles.regrouped(video.blocks(), length * PATCH[0])):
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
    found = []
    for code in CODES:
        data = quantised(np.asarray(change), code)
        params = applied(tokenizer.params, config, digits, data, np.ones(len(data), bool), code)
        found.append((data, code, tiles.squared_error(params, config, levels, video.blocks(), info)))
    return min(found, key=lambda one: one[2])


def counted_in_floats(state):
    """State of Adam whose count of steps is float32. Optax raises its decay rates to that power, and takes the default
    float type where the count is an integer: float64 with 64 bits on, which then finds other numbers."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), state)


def quantised(change, code):
    """Changes float32[n] -> data uint8[ceil(n / 2)]."""
    values = np.clip(np.round(change * 2.0**code), LOW, HIGH).astype(np.int64) - LOW
    values = np.pad(values, (0, len(values) % 2), constant_values=-LOW).reshape(-1, 2)
    return (values[:, 0] << 4 | values[:, 1]).astype(np.uint8)


def _shapes(config, digits):
    """{path: shape} of what changes, in the order of an update."""
    first = {("from_digits", "b"): (config.width,), ("from_digits", "w"): (digits, config.width)}
    return first | {("decoder", n, "gain"): (config.width,) for n in range(config.decoder_blocks)}


def _count(config, digits):
    return sum(math.prod(shape) for shape in _shapes(config, digits).values())


def _moved(params, config, digits, change):
    """Parameters + change float32[n]."""
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
def _step(params, change, state, pace, levels, frames, shown, config, digits):
    """One step of Adam on a group. levels: float32[t, h, w, k]. frames: uint8[T, H, W, 3]. shown: float32[T]."""

    def cost(change):
        _, height, width, _ = frames.shape
        decoded = model.pixels(_moved(params, config, digits, change), fsq.centre(levels[None]), config)[0]
        error = jnp.square(decoded[:, :height, :width] - model.to_float(frames))
        return jnp.sum(error * shown[:, None, None, None]) / (jnp.sum(shown) * height * width * 3)

    step, state = optax.scale_by_adam().update(jax.grad(cost)(change), state)
    return change - pace * step, state
