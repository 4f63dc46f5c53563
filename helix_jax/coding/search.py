"""Encoder-side search: tokens that make a better picture, or take fewer nucleotides.

A nucleotide costs far more than computing, so `encode --effort` spends some: the encoder's net only proposes tokens,
and a digit may move to the level above or below, by stochastic Gumbel annealing (Yang, Bamler, Mandt, "Improving
Inference for Neural Image Compression", 2020) on

    squared error of the decoded picture  +  damage * bits of the digits under the causal head of the prior

``damage`` has the units of ``coding.drop``. In mode raw digits cost alike whatever they are, so damage is 0 and the
picture gets better for nothing. In the others a digit counts with its own bits and with those of the digits that are
predicted from it. What is found is kept only where it is better by the real coder's bytes. Floats decide, and a fixed
seed: the same machine finds the same tokens.

The highest effort changes the decoder as well, a little (``tokenizer.update``). Another search for that one gains next
to nothing (0.03 dB in twice the time).

A digit that the net put beyond the ends of the level axis stays (of four 23 %; letting them go brought nothing).

A clip is taken in windows of a segment's frames, each by itself, whole pictures: 25 to 30 kB a token, 8 GB at 1080p.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from helix_jax.coding import ladder, modes, segments
from helix_jax.prior import net
from helix_jax.tokenizer import fsq, model, tiles, update
from helix_jax.tokenizer.haar import PATCH

STEPS = (0, 12, 40, 120)  # by effort
TUNED = 3  # effort from which on the decoder is tuned too
PRICE = 30.0  # least damage, in mean squared errors of the picture (8-bit levels); mostly picture and bits both gain
SLOPE = 60.0  # in the same unit, what a bit buys once tokens are searched (foreman: 44 raw, 65 prior)
DROPPING = 8_000.0  # least damage to which what is found is dropped from
THRIFT = {1: (1,), 3: (1, 1.5), 9: (1, 1.5)}  # times PRICE, times DROPPING: tried until no more bytes are taken
LEARNING_RATE = 0.08  # of Adam, in levels
TEMPERATURE = (0.6, 0.1)  # of the annealing, from the first step to the last
SCALE = 127.5  # 8-bit levels in the unit of the net's pixels


class Window(NamedTuple):
    """What stays the same while a window is searched. pixels: uint8[T, H, W, 3]. shown: float32[T], 1 where a frame is
    there. there: bool[n, t, h, w], tokens of its segments. damage: float32[]."""

    pixels: jax.Array
    shown: jax.Array
    there: jax.Array
    damage: jax.Array


def best(coded, positions, video, tokenizer, prior, *, effort, damage, fits=lambda coded: True, progress=None):
    """modes.Coding -> (the best that is found with an effort, tokenizer.weights.Model as the decoder will have it).

    positions, video, tokenizer, prior, damage, progress: as for ``improve``. effort: 0 to 3. fits: whether a Coding is
    small enough; asked before the decoder is tuned, of one with an update.
    """
    if not effort:
        return coded, tokenizer
    options = {"damage": damage, "progress": progress}
    found = improve(coded, positions, video, tokenizer, prior, effort=effort, **options)
    if effort < TUNED:
        return found, tokenizer
    empty = bytes(update.size(tokenizer.config, found.tokens.shape[-1]))
    if not fits(dataclasses.replace(found, update=empty)):
        return found, tokenizer
    return tune(found, video, tokenizer, **options)


def refine(positions, blocks, tokenizer, prior, *, damage, steps, key, progress=None):
    """Positions -> positions in 0 to 3, no digit of which is further than a level from where it was.

    positions: float32[t, h, w, d] as ``tiles.encode`` gives them, of the first d digits of each token, those that are
    sent. blocks: the clip's frames again, iterable of uint8[n, H, W, 3]. tokenizer: tokenizer.weights.Model. prior:
    prior.weights.Prior, or None in mode raw. damage: squared error (8-bit levels, summed over samples) accepted for a
    bit; 0: bits do not count. steps: of the search, in each window. key: jax key, consumed. progress: called after each
    step.
    """
    begun = np.asarray(fsq.digits(positions), np.float32)
    start = begun + np.clip(positions - begun, -0.45, 0.45)
    length = _length(tokenizer.config, len(positions))
    plan = segments.plan((length, *positions.shape[1:3]))
    params = (tokenizer.params, prior.params if prior and damage else None)
    configs = (tokenizer.config, prior.config if prior and damage else None, plan)
    found, optimiser = [], optax.adam(LEARNING_RATE)
    for number, pixels in enumerate(tiles.regrouped(blocks, length * PATCH[0])):
        part = slice(number * length, (number + 1) * length)
        here = math.ceil(len(pixels) / PATCH[0])
        fill = [(0, length - here), (0, 0), (0, 0), (0, 0)]
        frames = np.pad(pixels, [(0, length * PATCH[0] - len(pixels)), *fill[1:]], mode="edge")
        shown, there = np.arange(len(frames)) < len(pixels), np.arange(length) < here
        there = segments.cut(plan, np.broadcast_to(there[:, None, None], plan.grid))
        window = Window(
            jnp.asarray(frames), jnp.asarray(shown, jnp.float32), jnp.asarray(there), jnp.float32(damage)
        )  # fmt: skip
        places = jnp.asarray(np.pad(start[part], fill, mode="edge"))
        middle = jnp.asarray(np.pad(begun[part], fill, mode="edge"))
        state, key_window = update.counted_in_floats(optimiser.init(places)), jax.random.fold_in(key, number)
        for step in range(steps):
            cooled = TEMPERATURE[0] * (TEMPERATURE[1] / TEMPERATURE[0]) ** (step / max(1, steps - 1))
            places, state = _step(
                params, window, places, middle, state, jnp.float32(cooled), jax.random.fold_in(key_window, step),
                configs=configs,
            )  # fmt: skip
            if progress:
                progress(1)
        found.append(np.asarray(places)[:here])
    return np.concatenate(found)


def improve(coded, positions, video, tokenizer, prior, *, effort, damage, progress=None):
    """modes.Coding -> a better one, or the same where none was found.

    coded: without an update. positions: as in ``refine``, of all digits. tokenizer, prior: as there. video: the clip's
    reader, read again. effort: 1 to 3. damage: of the rung that the tokens are of. progress: called as
    progress(station, done, total).

    Better is what takes no more bytes, as they are written, and has less squared error + damage * bits, of pixels as
    they are decoded, with a damage of PRICE at least. What the search finds is dropped from, digit by digit in the
    coder's order. If that takes more bytes, more is dropped, or all is done again at a higher price (THRIFT).
    """
    info, digits, sent = video.info, tokenizer.config.digits, coded.tokens.shape[-1]

    def error(tokens):
        levels = ladder.whole_tokens(tokens, digits)
        return tiles.squared_error(tokenizer.params, tokenizer.config, levels, video.blocks(), info)

    before, raw = error(coded.tokens), coded.mode == "raw"
    price = max(damage, PRICE * before / (info.frames * info.height * info.width * 3))
    frames, steps = len(coded.tokens), STEPS[effort]
    windows = -(-frames // _length(tokenizer.config, frames))
    step = progress and (lambda done: progress("search", done, windows * steps))
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
                found = modes.encode(tokens, coded.mode, prior, progress=progress)
            except modes.CodingError:  # a segment that cannot be coded any more
                continue
            saved = coded.content_bytes - found.content_bytes
            if saved >= 0 and error(tokens) < before + 8 * price * saved:
                return found
    return coded


def tune(coded, video, tokenizer, *, damage, progress=None):
    """modes.Coding -> the same with an update of the decoder where that is worth its bits, else as it was.

    damage: as in ``improve``, SLOPE at least. tokenizer: tokenizer.weights.Model. Returns (modes.Coding,
    tokenizer.weights.Model as the decoder will have it)."""
    config, info, sent = tokenizer.config, video.info, coded.tokens.shape[-1]
    levels = ladder.whole_tokens(coded.tokens, config.digits)
    step = progress and (lambda done, total: progress("tuning", done, total))
    before = tiles.squared_error(tokenizer.params, config, levels, video.blocks(), info)
    data, code, after = update.fit(levels, sent, video, tokenizer, step)
    price = max(damage, SLOPE * before / (info.frames * info.height * info.width * 3))
    if before - after <= 8 * price * len(data):
        return coded, tokenizer
    params = update.applied(tokenizer.params, config, sent, data, np.ones(len(data), bool), code)
    return dataclasses.replace(coded, update=data.tobytes(), code=code), dataclasses.replace(tokenizer, params=params)


def _length(config, frames):
    """Latent frames of a window: whole segments, and whole groups of the tokenizer; fewer where the clip is shorter."""
    group = config.tile[0]
    return min(math.lcm(segments.FRAMES, group), -(-frames // group) * group)


@functools.partial(jax.jit, static_argnames="configs")
def _step(params, window, places, middle, state, temperature, key, configs):
    slope = jax.grad(_cost)(places, params, window, temperature, key, configs)
    change, state = optax.adam(LEARNING_RATE).update(slope, state)
    places = jnp.clip(places + change, middle - 1, middle + 1)
    return jnp.clip(places, 0, fsq.LEVELS - 1), state


def _cost(places, params, window, temperature, key, configs):
    """Squared error and bits of a window at places float32[t, h, w, d], in mean squared errors of a token."""
    (tokenizer, prior), (config, prior_config, plan) = params, configs
    below = jnp.clip(jnp.floor(jax.lax.stop_gradient(places)), 0, fsq.LEVELS - 2)
    part = jnp.clip(places - below, 1e-4, 1 - 1e-4)
    logits = jnp.stack([-jnp.arctanh(part), -jnp.arctanh(1 - part)]) / temperature
    down, up = jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape, jnp.float32)) / temperature, axis=0)
    levels = below + up
    t, h, w, d = places.shape
    whole = jnp.pad(levels, ((0, 0), (0, 0), (0, 0), (0, config.digits - d)), constant_values=(fsq.LEVELS - 1) / 2)
    groups = whole.reshape(-1, config.tile[0], h, w, config.digits)
    decoded = model.pixels(tokenizer, fsq.centre(groups), config)
    decoded = decoded.reshape(t * PATCH[0], h * PATCH[1], w * PATCH[2], 3)
    _, height, width, _ = window.pixels.shape
    error = decoded[:, :height, :width] - model.to_float(window.pixels)
    cost = SCALE**2 * jnp.sum(jnp.square(error) * window.shown[:, None, None, None])
    if prior is not None:
        at, every = below.astype(jnp.int32)[..., None], jnp.arange(fsq.LEVELS, dtype=jnp.int32).reshape(1, 1, 1, 1, -1)
        chances = down[..., None] * (every == at) + up[..., None] * (every == at + 1)
        # the digits as they are now, with the gradient of the chances: so what their neighbours cost then counts too
        hot = jax.nn.one_hot(fsq.digits(jax.lax.stop_gradient(places)), fsq.LEVELS, dtype=jnp.float32)
        hot = _cut(plan, hot + chances - jax.lax.stop_gradient(chances))
        unsent = [*[(0, 0)] * 4, (0, prior_config.digits - d), (0, 0)]

        @jax.checkpoint  # memory for one segment at a time
        def bits(segment):
            hot, there = segment
            logits = net.expected_logits(prior, jnp.pad(hot[None], unsent), prior_config)[0, ..., :d, :]
            return jnp.sum(jnp.sum(net.code_lengths(logits) * hot, axis=(-2, -1)) * there)

        cost += window.damage * jnp.sum(jax.lax.map(bits, (hot, window.there)))
    return cost / (t * h * w)


def _cut(plan, values):
    """``segments.cut`` of a traced array [t, h, w, ...], zeros where no token is."""
    place = segments.cut(plan, 1 + np.arange(math.prod(plan.grid)).reshape(plan.grid))
    flat = values.reshape(-1, *values.shape[3:])
    return jnp.concatenate([jnp.zeros_like(flat[:1]), flat])[place]
