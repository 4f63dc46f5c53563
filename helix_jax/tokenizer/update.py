"""A small change of the decoder's net, made for one clip and sent with it (`encode --effort 3`).

What changes are the first matrix of the decoder (``from_digits``) and the gains of its blocks, 1,536 parameters of the
shipped net; biases too would gain little more. Each is sent as a number from -8 to 7, half a byte, times 2^-code. The
code, 1 to 255, stands in the header, where 0 means that nothing is sent. What is lost on the way stays unchanged, so a
part of an update is worth a part of it.

Order of the numbers: row by row, ``from_digits`` b and w, then the gains from the first block to the last. The first of
a byte is its high half; each is stored as itself + 8. (Instance-adaptive coding: van Rozendaal, Huijben, Cohen,
"Overfitting for Fun and Profit", ICLR 2021.)
"""

import functools
import math

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


def size(config):
    """Bytes of an update. config: TokenizerConfig."""
    return -(-_count(config) // 2)


def applied(params, config, data, there, code):
    """Parameters with an update.

    params: of the tokenizer. data: uint8[size]. there: bool[size], False where a byte is lost. code: from the header.
    """
    halves = np.stack([data >> 4, data & 15], axis=-1).astype(np.float32) + LOW
    values = np.where(there[:, None], halves, 0).reshape(-1)[: _count(config)]
    return _moved(params, config, jnp.asarray(values * np.float32(2.0**-code)))


def fit(levels, video, tokenizer, progress=None):
    """The change that shows a clip best -> (data uint8[size], code).

    levels: [t, h, w, k], as the decoder will have them. video: the clip's reader, read some times. tokenizer:
    weights.Model. progress: called after each group of each reading, as (done, total). Nothing is drawn: the same
    machine finds the same change.
    """
    config, info = tokenizer.config, video.info
    length = config.tile[0]
    groups = -(-len(levels) // length)
    passes = max(1, -(-STEPS // groups))
    total = passes * groups
    change = jnp.zeros(_count(config), jnp.float32)
    state = optax.scale_by_adam().init(change)
    for turn in range(passes):
        for number, pixels in enumerate(tiles.regrouped(video.blocks(), length * PATCH[0])):
            part = levels[number * length : (number + 1) * length]
            part = np.pad(part, [(0, length - len(part)), *[(0, 0)] * 3], mode="edge")
            frames = np.pad(pixels, [(0, length * PATCH[0] - len(pixels)), *[(0, 0)] * 3], mode="edge")
            shown = np.arange(len(frames)) < len(pixels)
            pace = LEARNING_RATE * (1 + math.cos(math.pi * (turn * groups + number) / total)) / 2
            change, state = _step(
                tokenizer.params, change, state, jnp.float32(pace), jnp.asarray(part, jnp.float32), jnp.asarray(frames),
                jnp.asarray(shown, jnp.float32), config=config,
            )  # fmt: skip
            if progress:
                progress(1, total)
    found = [(quantised(np.asarray(change), code), code) for code in CODES]
    errors = []
    for data, code in found:
        params = applied(tokenizer.params, config, data, np.ones(len(data), bool), code)
        errors.append(tiles.squared_error(params, config, levels, video.blocks(), info))
    return found[int(np.argmin(errors))]


def quantised(change, code):
    """Changes float32[n] -> data uint8[ceil(n / 2)]."""
    values = np.clip(np.round(change * 2.0**code), LOW, HIGH).astype(np.int64) - LOW
    values = np.pad(values, (0, len(values) % 2), constant_values=-LOW).reshape(-1, 2)
    return (values[:, 0] << 4 | values[:, 1]).astype(np.uint8)


def _shapes(config):
    """{path: shape} of what changes, in the order of an update."""
    width = config.width
    first = {("from_digits", "b"): (width,), ("from_digits", "w"): (config.digits, width)}
    return first | {("decoder", n, "gain"): (width,) for n in range(config.decoder_blocks)}


def _count(config):
    return sum(math.prod(shape) for shape in _shapes(config).values())


def _moved(params, config, change):
    """Parameters + change float32[n]."""
    begin, moved = 0, _shapes(config)
    for path, shape in moved.items():
        end = begin + math.prod(shape)
        moved[path], begin = change[begin:end].reshape(shape), end

    def leaf(path, value):
        name = tuple(getattr(step, "key", getattr(step, "idx", None)) for step in path)
        return value + moved[name] if name in moved else value

    return jax.tree_util.tree_map_with_path(leaf, params)


@functools.partial(jax.jit, static_argnames="config")
def _step(params, change, state, pace, levels, frames, shown, config):
    """One step of Adam on a group. levels: float32[t, h, w, k]. frames: uint8[T, H, W, 3]. shown: float32[T]."""

    def cost(change):
        _, height, width, _ = frames.shape
        decoded = model.pixels(_moved(params, config, change), fsq.centre(levels[None]), config)[0]
        error = jnp.square(decoded[:, :height, :width] - model.to_float(frames))
        return jnp.sum(error * shown[:, None, None, None]) / (jnp.sum(shown) * height * width * 3)

    step, state = optax.scale_by_adam().update(jax.grad(cost)(change), state)
    return change - pace * step, state
