"""The masked prior's network: token digits with gaps -> what the missing digits may be. Exact by construction.

One net serves concealment, dropping and entropy coding. All that it computes are integers carried in float32, so that
its logits are the same bits in any batch, jitted or not, on any device, with bfloat16 operands, and in NumPy:

    weights      int8 times a power of two, one for each output channel
    activations  8 bits (magnitude at most 127) times a fixed power of two
    sums         below 2^24 in the unit of their channel: ``prior.weights`` proves it of a file, channel by channel
    rounding     floor(x + 1/2), of numbers that float32 holds

Convolutions are shifts and matrix products, since a convolution's algorithm (Winograd, FFT) may be inexact. There is no
normalisation, no softmax, no division. Training runs the same functions on weights rounded with straight-through
gradients, so nothing is lost at export (Balle et al., "Integer Networks for Data Compression with Latent-Variable
Models", 2019).

A digit is a tree of three binary decisions: node 0, digit >= 2; node 1, digit = 1 of 0 and 1; node 2, digit = 3 of
2 and 3. A logit is ln(p / (1 - p)).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from helix_jax import nets
from helix_jax.prior.stored import ACTIVATION_BITS, LOGIT_BITS, STREAM_BITS

LEVELS = 4
NODES = 3
PHASES = 4  # latent frames in a group of the tokenizer: the first of each was coded without a past
LOGIT_LIMIT = 3071  # in steps of a logit: e^-12, less than the coder can tell from zero
ACTIVATION_LIMIT = 127
STREAM_LIMIT = 2**15
WEIGHT_LIMIT = 127
SHIFT_LIMIT = 14  # of a channel's power of two


@jax.custom_jvp
def rounded(x):
    """floor(x + 1/2), with the gradient of the identity."""
    return jnp.floor(x + 0.5)


@rounded.defjvp
def _(primals, tangents):
    return rounded(*primals), tangents[0]


def _requantised(x, bits, low, high):
    """x in steps of 2^-bits, from low to high steps."""
    return jnp.clip(rounded(x * 2.0**bits), low, high) * 2.0**-bits


def _activation(x):
    return _requantised(x, ACTIVATION_BITS, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class Block(nnx.Module):
    """Residual block: 3x3 in space, ReLU, 3 taps in time (past, present, future); zeros beyond the borders."""

    def __init__(self, width, rngs):
        self.spatial = nets.Linear(9 * width, width, rngs)
        self.temporal = nets.Linear(3 * width, width, rngs)
        self.temporal.w[...] = self.temporal.w[...] * 0.25

    def __call__(self, stream):
        """float32[B, t, h, w, d] -> the same."""
        _, t, h, w, _ = stream.shape
        a = jnp.pad(_activation(stream), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        b = _taps(self.spatial, [a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)])
        b = _requantised(b, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)
        b = jnp.pad(b, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        b = _requantised(
            _taps(self.temporal, [b[:, i : i + t] for i in range(3)]), STREAM_BITS, -STREAM_LIMIT, STREAM_LIMIT
        )
        return jnp.clip(stream + b, -STREAM_LIMIT / 2**STREAM_BITS, STREAM_LIMIT / 2**STREAM_BITS)


def _taps(layer, shifted):
    """Sum of one matrix product for each shifted copy: three times as fast as one product of them side by side."""
    parts = jnp.split(layer.w[...], len(shifted))
    return sum(x @ w for x, w in zip(shifted, parts, strict=True)) + layer.b[...].reshape(1, 1, 1, 1, -1)


class Net(nnx.Module):
    def __init__(self, config, rngs):
        k = config.digits
        self.embed = nets.Linear((3 * LEVELS + 2) * k, config.width, rngs)
        self.phase = nnx.Param(jnp.zeros((PHASES, config.width)))
        self.blocks = nnx.List([Block(config.width, rngs) for _ in range(config.blocks)])
        self.alone = nets.Linear(config.width, k * NODES, rngs)
        self.after = nets.Linear(config.width, k * NODES, rngs)
        self.within = nnx.Param(jnp.zeros((LEVELS * k, k * NODES)))

    def features(self, digits, known):
        """digits uint8[B, t, h, w, k] -> float32[B, t, h, w, d], what the heads take."""
        x = self.embed(_given(digits, known).astype(jnp.float32))
        phase = jnp.tile(self.phase[...], (-(-digits.shape[1] // PHASES), 1))[: digits.shape[1]]
        x = _requantised(x + phase[None, :, None, None], STREAM_BITS, -STREAM_LIMIT, STREAM_LIMIT)
        for block in self.blocks:
            x = block(x)
        return _activation(x)

    def alone_logits(self, features):
        """What each digit may be, whatever the other missing digits of its token are: [..., k, 3]."""
        return _logits(self.alone(features))

    def after_logits(self, features, digits):
        """What each digit may be, given the digits before it in its token: [..., k, 3]."""
        k = digits.shape[-1]
        place = jnp.arange(k)
        earlier = jnp.repeat(jnp.repeat(place[:, None] < place[None, :], LEVELS, axis=0), NODES, axis=1)
        given = jax.nn.one_hot(digits, LEVELS).reshape(*digits.shape[:-1], -1)
        return _logits(self.after(features) + given @ (self.within[...] * earlier))

    def before(self, digits, known, frame):
        """``after_logits`` of one frame, nothing of its tokens being known."""
        x = jax.lax.dynamic_index_in_dim(self.features(digits, known), frame, 1, keepdims=False)
        return _logits(self.after(x))

    def both(self, digits, known):
        x = self.features(digits, known)
        return self.alone_logits(x), self.after_logits(x, digits)


def _given(digits, known):
    """What the net is told of each place, as 0 and 1: its digits, those last known there before and next known after,
    each one-hot, and whether its own are the same as these. bool[B, t, h, w, 14 k].

    A lost token of a still picture is the one before it: comparing tokens is hard for a small net, so it is done here.
    """
    states = [jnp.where(known, digits, LEVELS).astype(jnp.uint8)]
    for order in (range(digits.shape[1]), reversed(range(digits.shape[1]))):
        seen, frames = jnp.full_like(states[0][:, 0], LEVELS), {}
        for t in order:
            frames[t] = seen
            seen = jnp.where(known[:, t], digits[:, t], seen)
        states.append(jnp.stack([frames[t] for t in sorted(frames)], axis=1))
    hot = [jax.nn.one_hot(state, LEVELS, dtype=bool) for state in states]
    same = [known & (states[0] == state) for state in states[1:]]
    return jnp.concatenate([*(h.reshape(*digits.shape[:-1], -1) for h in hot), *same], axis=-1)


def _logits(x):
    x = _requantised(x, LOGIT_BITS, -LOGIT_LIMIT, LOGIT_LIMIT)
    return x.reshape(*x.shape[:-1], -1, NODES)


@functools.lru_cache(maxsize=8)
def _functional(config):
    return nets.functional(lambda rngs: Net(config, rngs))


def init(key, config):
    """Random parameters: nested dict of float32 arrays, not yet rounded. The key is consumed."""
    return _functional(config)[0](key)


def exponents(w):
    """Power of two of each output channel (last axis), so that the largest weight takes 7 bits: int32[d_out]."""
    largest = jnp.maximum(jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1))), 1e-6)
    # frexp and not log2, which may fall short of a whole number: what is rounded already must keep its exponent
    return jnp.clip(jnp.frexp(WEIGHT_LIMIT / largest)[1] - 1, 0, SHIFT_LIMIT).astype(jnp.int32)


def quantise(params):
    """Parameters -> the nearest that the integer net can have, gradients straight through.

    Matrices become int8 times 2^-exponent of each channel; biases and ``phase`` go along with what they are added to.
    """

    def linear(layer, input_bits):
        shift = jax.lax.stop_gradient(exponents(layer["w"]))
        unit = jnp.ldexp(jnp.float32(1), shift)
        w = jnp.clip(rounded(layer["w"] * unit[None]), -WEIGHT_LIMIT, WEIGHT_LIMIT) / unit[None]
        unit = unit * 2.0**input_bits
        return {"w": w, "b": rounded(layer["b"] * unit) / unit}

    blocks = {
        n: {name: linear(layer, ACTIVATION_BITS) for name, layer in block.items()}
        for n, block in params["blocks"].items()
    }
    embed = linear(params["embed"], 0)
    return {
        "embed": embed,
        "phase": rounded(params["phase"] * 2.0**STREAM_BITS) / 2.0**STREAM_BITS,
        "blocks": blocks,
        "alone": linear(params["alone"], ACTIVATION_BITS),
        "after": linear(params["after"], ACTIVATION_BITS),
        "within": rounded(params["within"] * 2.0**LOGIT_BITS) / 2.0**LOGIT_BITS,
    }


def both_logits(params, digits, known, config):
    """(alone, after), each float32[B, t, h, w, k, 3], of rounded parameters. known: bool[B, t, h, w, k]."""
    return _functional(config)[1](params, digits, known, method="both")


def next_frame_logits(params, digits, known, frame, config):
    """For the coder: logits of one latent frame, each digit's before the digits ahead of it in its token are known.

    digits uint8[B, t, h, w, k], known bool of the same shape, frame int32. Returns int32[B, h, w, k, 3] in units of
    2^-LOGIT_BITS, to which the coder adds ``within`` of the digits as they come.
    """
    logits = _functional(config)[1](params, digits, known, frame, method="before")
    return (logits * 2.0**LOGIT_BITS).astype(jnp.int32)


def probabilities(logits):
    """Of digits 0 to 3: float32[..., 3] -> float32[..., 4]. For concealment and people, never for the coder."""
    high, one, three = (jax.nn.sigmoid(logits[..., n]) for n in range(NODES))
    return jnp.stack([(1 - high) * (1 - one), (1 - high) * one, high * (1 - three), high * three], axis=-1)


def expectation(logits):
    """Mean level of a digit, a real number in [0, 3]: float32[..., 3] -> float32[...]."""
    return probabilities(logits) @ jnp.arange(LEVELS, dtype=jnp.float32)
