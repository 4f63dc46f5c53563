"""Encoder-side search for tokens that make a better picture, or take fewer nucleotides.

A nucleotide costs far more than computing, so `encode --effort` spends computing time: the encoder's net only proposes
tokens, and a digit may move to the level above or below, by stochastic Gumbel annealing (Yang, Bamler, Mandt,
"Improving Inference for Neural Image Compression", 2020) on

    squared error of the decoded picture  +  damage * bits of the digits under the causal head of the prior

``damage`` has the units of ``coding.drop``. In mode raw all digits cost the same, so damage is 0 and the picture gets
better at no cost. In the other modes, a digit counts with its own bits and with the bits of the digits that are
predicted from it. The result is kept only if it is better by the bytes of the real coder. The search computes in floats
from a fixed seed: the same machine finds the same tokens.

The highest effort also changes the decoder a little (``tokenizer.update``). Another search for the changed decoder
gains almost nothing (0.03 dB in twice the time).

A digit that the net put beyond the ends of the level axis stays. These are 23 % of the digits where a token has four,
and letting them move gained nothing.

A clip is taken in windows of a segment's frames, each on its own and with whole pictures: 25 to 30 kB for each token,
8 GB at 1080p.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float32, Key, Shaped, UInt8

from helix_jax.coding import ladder, modes, segments
from helix_jax.config import PriorConfig, TokenizerConfig
from helix_jax.prior import net
from helix_jax.prior.weights import Prior
from helix_jax.tokenizer import fsq, model, tiles, update
from helix_jax.tokenizer.haar import PATCH
from helix_jax.tokenizer.weights import Model

Progress = Callable[[str, int, int], None]

STEPS = (0, 12, 40, 120)  # for each effort
TUNED = 3  # the lowest effort that tunes the decoder too
PRICE = 30.0  # least damage, in mean squared errors of the picture (8-bit levels); mostly picture and bits both gain
SLOPE = 60.0  # in the same unit, what a bit buys once tokens are searched (foreman: 44 raw, 65 prior)
DROPPING = 8_000.0  # least damage at which digits of the result are dropped
THRIFT = {1: (1,), 3: (1, 1.5), 9: (1, 1.5)}  # factors of PRICE and of DROPPING, tried until no more bytes are taken
LEARNING_RATE = 0.08  # of Adam, in levels
OPTIMISER = optax.adam(LEARNING_RATE)
TEMPERATURE = (0.6, 0.1)  # of the annealing, at the first step and at the last
SCALE = 127.5  # 8-bit levels in the unit of the net's pixels


class Window(NamedTuple):
    """What stays the same while a window is searched.

    Attributes:
        pixels: Frames of the window.
        shown: 1 for frames of the clip, 0 for padding.
        valid: Mask of the tokens of each segment that are not padding.
        damage: As for ``refine``.
    """

    pixels: UInt8[Array, "T H W 3"]
    shown: Float32[Array, " T"]
    valid: Bool[Array, "n t h w"]
    damage: Float32[Array, ""]


def best(
    coded: modes.Coding,
    positions: Float32[np.ndarray, "t h w k"],
    video: update.Video,
    tokenizer: Model,
    prior: Prior | None,
    *,
    effort: int,
    damage: float | int,
    fits: Callable[[modes.Coding], bool] = lambda coded: True,
    progress: Progress | None = None,
) -> tuple[modes.Coding, Model]:
    """Find the best coding of a clip that an effort allows.

    Args:
        coded: The coding without a search.
        positions: As for ``improve``.
        video: As for ``improve``.
        tokenizer: As for ``improve``.
        prior: As for ``improve``.
        effort: From 0 (no search) to 3.
        damage: As for ``improve``.
        fits: Whether a coding is small enough. It is called before the decoder is tuned, with a coding that has an
            update.
        progress: As for ``improve``.

    Returns:
        The coding, and the tokenizer as the decoder will have it.
    """
    if not effort:
        return coded, tokenizer
    improved = improve(
        coded, positions, video, tokenizer, prior, effort=effort, damage=damage, progress=progress
    )  # fmt: skip
    if effort < TUNED:
        return improved, tokenizer
    empty = bytes(update.size(tokenizer.config, improved.tokens.shape[-1]))
    if not fits(dataclasses.replace(improved, update=empty)):
        return improved, tokenizer
    return tune(improved, video, tokenizer, damage=damage, progress=progress)


def refine(
    positions: Float32[np.ndarray, "t h w d"],
    blocks: Iterable[UInt8[np.ndarray, "_ H W 3"]],
    tokenizer: Model,
    prior: Prior | None,
    *,
    damage: float | int,
    steps: int,
    key: Key[Array, ""],
    progress: Callable[[int], None] | None = None,
) -> Float32[np.ndarray, "t h w d"]:
    """Search for better positions, none of which is further than a level from where the digit was.

    Args:
        positions: Positions as ``tiles.encode`` gives them, of the first d digits of each token, which are those that
            are sent.
        blocks: The frames of the clip again.
        tokenizer: The tokenizer.
        prior: The prior, or None in mode raw.
        damage: Squared error (in 8-bit levels, summed over samples) that is accepted for a bit. With 0, bits do not
            count.
        steps: Number of steps of the search in each window.
        key: Random key, which is consumed.
        progress: Called after each step.

    Returns:
        Positions from 0 to 3.
    """
    begun = np.asarray(fsq.digits(positions), np.float32)
    start = begun + np.clip(positions - begun, -0.45, 0.45)
    length = _length(tokenizer.config, len(positions))
    plan = segments.plan((length, *positions.shape[1:3]))
    params = (tokenizer.params, prior.params if prior and damage else None)
    configs = (tokenizer.config, prior.config if prior and damage else None, plan)
    windows = []
    for number, pixels in enumerate(tiles.regrouped(blocks, length * PATCH[0])):
        part = slice(number * length, (number + 1) * length)
        here = math.ceil(len(pixels) / PATCH[0])
        fill = [(0, length - here), (0, 0), (0, 0), (0, 0)]
        frames = np.pad(pixels, [(0, length * PATCH[0] - len(pixels)), *fill[1:]], mode="edge")
        shown, valid = np.arange(len(frames)) < len(pixels), np.arange(length) < here
        valid = segments.cut(plan, np.broadcast_to(valid[:, None, None], plan.grid))
        window = Window(
            jnp.asarray(frames), jnp.asarray(shown, jnp.float32), jnp.asarray(valid), jnp.float32(damage)
        )  # fmt: skip
        places = jnp.asarray(np.pad(start[part], fill, mode="edge"))
        middle = jnp.asarray(np.pad(begun[part], fill, mode="edge"))
        state, key_window = update.counted_in_floats(OPTIMISER.init(places)), jax.random.fold_in(key, number)
        for step in range(steps):
            cooled = TEMPERATURE[0] * (TEMPERATURE[1] / TEMPERATURE[0]) ** (step / max(1, steps - 1))
            places, state = _step(
                params, window, places, middle, state, jnp.float32(cooled), jax.random.fold_in(key_window, step),
                configs=configs,
            )  # fmt: skip
            if progress:
                progress(1)
        windows.append(np.asarray(places)[:here])
    return np.concatenate(windows)


def improve(
    coded: modes.Coding,
    positions: Float32[np.ndarray, "t h w k"],
    video: update.Video,
    tokenizer: Model,
    prior: Prior | None,
    *,
    effort: int,
    damage: float | int,
    progress: Progress | None = None,
) -> modes.Coding:
    """Search for a better coding, and return it, or the same one if there is none.

    A coding is better if it takes no more bytes as they are written, and has less squared error + damage * bits, where
    the error is that of the decoded pixels and the damage is PRICE at least. Digits of what the search finds are
    dropped in the coder's order. If the result takes more bytes, more is dropped, or the search is repeated at a higher
    price (THRIFT).

    Args:
        coded: The coding, without an update.
        positions: Positions of all digits, as ``tiles.encode(positions=True)`` gives them.
        video: The clip, which is read again.
        tokenizer: The tokenizer.
        prior: The prior, or None in mode raw.
        effort: From 1 to 3.
        damage: The damage of the rung that the tokens belong to.
        progress: Called as ``progress(station, done, total)``, where ``done`` is how many more are done.
    """
    info, sent = video.info, coded.tokens.shape[-1]

    def error(tokens):
        levels = ladder.whole_tokens(tokens, tokenizer.config)
        return tiles.squared_error(tokenizer.params, tokenizer.config, levels, video.blocks(), info)

    before, raw = error(coded.tokens), coded.mode == "raw"
    price = max(damage, PRICE * before / (info.frames * info.height * info.width * 3))
    frames, steps = len(coded.tokens), STEPS[effort]
    windows = -(-frames // _length(tokenizer.config, frames))
    step = None if progress is None else lambda done: progress("search", done, windows * steps)
    for thrift, droppings in ({1: (1,)} if raw else THRIFT).items():
        dearer = 0.0 if raw else thrift * price
        places = refine(
            positions[..., :sent], video.blocks(), tokenizer, prior, damage=dearer, steps=steps,
            key=jax.random.key(0), progress=step,
        )  # fmt: skip
        for dropping in droppings:
            rung = ladder.Rung(sent, min(dearer, dropping * max(damage, DROPPING)))
            tokens, _ = ladder.tokens_at(rung, places, prior, progress=progress)
            try:
                other = modes.encode(tokens, coded.mode, prior, progress=progress)
            except modes.CodingError:  # a segment cannot be coded any more
                continue
            saved = coded.content_bytes - other.content_bytes
            if saved >= 0 and error(tokens) < before + 8 * price * saved:
                return other
    return coded


def tune(
    coded: modes.Coding,
    video: update.Video,
    tokenizer: Model,
    *,
    damage: float | int,
    progress: Progress | None = None,
) -> tuple[modes.Coding, Model]:
    """Add an update of the decoder to a coding if the update is worth its bits.

    Args:
        coded: The coding.
        video: The clip, which is read again.
        tokenizer: The tokenizer.
        damage: As for ``improve``, but SLOPE at least.
        progress: As for ``improve``.

    Returns:
        The coding with or without an update, and the tokenizer as the decoder will have it.
    """
    config, info, sent = tokenizer.config, video.info, coded.tokens.shape[-1]
    levels = ladder.whole_tokens(coded.tokens, config)
    step = None if progress is None else lambda done, total: progress("tuning", done, total)
    before = tiles.squared_error(tokenizer.params, config, levels, video.blocks(), info)
    data, code, after = update.fit(levels, sent, video, tokenizer, step)
    price = max(damage, SLOPE * before / (info.frames * info.height * info.width * 3))
    if before - after <= 8 * price * len(data):
        return coded, tokenizer
    params = update.applied(tokenizer.params, config, sent, data, np.ones(len(data), bool), code)
    return dataclasses.replace(coded, update=data.tobytes(), code=code), dataclasses.replace(tokenizer, params=params)


def _length(config: TokenizerConfig, frames: int) -> int:
    """Latent frames of a window: whole segments and whole groups of the tokenizer, but no more groups than the clip
    has."""
    group = config.tile[0]
    return min(math.lcm(segments.FRAMES, group), -(-frames // group) * group)


@functools.partial(jax.jit, static_argnames="configs")
def _step(
    params: tuple[dict, dict | None],
    window: Window,
    places: Float32[Array, "t h w d"],
    middle: Float32[Array, "t h w d"],
    state: Any,
    temperature: Float32[Array, ""],
    key: Key[Array, ""],
    configs: tuple[TokenizerConfig, PriorConfig | None, segments.Plan],
) -> tuple[Float32[Array, "t h w d"], Any]:
    """One step of the search: new positions and the state of the optimiser."""
    slope = jax.grad(_cost)(places, params, window, temperature, key, configs)
    updated: Any = OPTIMISER.update(slope, state)
    change, state = updated
    places = jnp.clip(places + change, middle - 1, middle + 1)
    return jnp.clip(places, 0, fsq.LEVELS - 1), state


def _cost(
    places: Float32[Array, "t h w d"],
    params: tuple[dict, dict | None],
    window: Window,
    temperature: Float32[Array, ""],
    key: Key[Array, ""],
    configs: tuple[TokenizerConfig, PriorConfig | None, segments.Plan],
) -> Float32[Array, ""]:
    """Squared error and bits of a window at these positions, divided by the number of tokens."""
    (tokenizer, prior), (config, prior_config, plan) = params, configs
    below = jnp.clip(jnp.floor(jax.lax.stop_gradient(places)), 0, fsq.LEVELS - 2)
    part = jnp.clip(places - below, 1e-4, 1 - 1e-4)
    logits = jnp.stack([-jnp.arctanh(part), -jnp.arctanh(1 - part)]) / temperature
    down, up = jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape, jnp.float32)) / temperature, axis=0)
    levels = below + up
    t, h, w, d = places.shape
    whole = jnp.pad(levels, ((0, 0), (0, 0), (0, 0), (0, config.digits - d)), constant_values=config.silence)
    groups = whole.reshape(-1, config.tile[0], h, w, config.digits)
    decoded = model.pixels(tokenizer, fsq.centre(groups, config.silence), config)
    decoded = decoded.reshape(t * PATCH[0], h * PATCH[1], w * PATCH[2], 3)
    _, height, width, _ = window.pixels.shape
    error = decoded[:, :height, :width] - model.to_float(window.pixels)
    cost = SCALE**2 * jnp.sum(jnp.square(error) * window.shown[:, None, None, None])
    if prior is not None and prior_config is not None:
        at, every = below.astype(jnp.int32)[..., None], jnp.arange(fsq.LEVELS, dtype=jnp.int32).reshape(1, 1, 1, 1, -1)
        chances = down[..., None] * (every == at) + up[..., None] * (every == at + 1)
        # the digits as they are now, with the gradient of the chances: so the bits of digits that are predicted from
        # them count too
        hot = jax.nn.one_hot(fsq.digits(jax.lax.stop_gradient(places)), fsq.LEVELS, dtype=jnp.float32)
        hot = _cut(plan, hot + chances - jax.lax.stop_gradient(chances))
        unsent = [*[(0, 0)] * 4, (0, prior_config.digits - d), (0, 0)]

        @jax.checkpoint  # memory for one segment at a time
        def bits(segment):
            hot, valid = segment
            logits = net.expected_logits(prior, jnp.pad(hot[None], unsent), prior_config)[0, ..., :d, :]
            return jnp.sum(jnp.sum(net.code_lengths(logits) * hot, axis=(-2, -1)) * valid)

        cost += window.damage * jnp.sum(jax.lax.map(bits, (hot, window.valid)))
    return cost / (t * h * w)


def _cut(plan: segments.Plan, values: Shaped[Array, "T H W *rest"]) -> Shaped[Array, "n t h w *rest"]:
    """``segments.cut`` of a traced array. The padding is zeros."""
    index = segments.cut(plan, 1 + np.arange(math.prod(plan.grid)).reshape(plan.grid))
    flat = values.reshape(-1, *values.shape[3:])
    return jnp.concatenate([jnp.zeros_like(flat[:1]), flat])[index]
