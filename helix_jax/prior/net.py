"""The masked prior's network: token digits with gaps -> what the missing digits may be. Exact by construction.

One net, one set of weights, two ways to read a clip:

    masked   any digits are hidden, and every place sees past, present and future: concealment
    causal   a place sees the latent frames before its own (``past_features``), then the tokens to its left and above,
             then the earlier digits of its token (``Net.begin``, ``logits``, ``tell``): dropping and entropy coding

All that it computes are integers carried in float32, so that its logits are the same bits in any batch, jitted or not,
on any device, with bfloat16 operands, and in NumPy:

    weights      int8 times a power of two, one for each output channel
    activations  8 bits (magnitude at most 127) times a fixed power of two
    sums         below 2^24 in the unit of their channel: ``prior.weights`` proves it of a file, channel by channel
    rounding     floor(x + 1/2), of numbers that float32 holds

Convolutions are shifts and matrix products, since a convolution's algorithm (Winograd, FFT) may be inexact. There is no
normalisation, no softmax, no division. Training runs the same functions on weights rounded with straight-through
gradients, so nothing is lost at export (Balle et al., "Integer Networks for Data Compression with Latent-Variable
Models", 2019). The causal head is a NADE (Larochelle and Murray 2011): a running sum over what is known already, and
for each digit a few outputs of it.

A digit is a tree of three binary decisions: node 0, digit >= 2; node 1, digit = 1 of 0 and 1; node 2, digit = 3 of
2 and 3. A logit is ln(p / (1 - p)).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from helix_jax import layers
from helix_jax.prior.stored import ACTIVATION_BITS, AROUND, KEPT, LOGIT_BITS, STREAM_BITS

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


def _stream(x):
    return _requantised(x, STREAM_BITS, -STREAM_LIMIT, STREAM_LIMIT)


class Block(nnx.Module):
    """Residual block: 3x3 in space, ReLU, 3 taps in time (past, present, future); zeros beyond the borders."""

    def __init__(self, width, rngs):
        self.spatial = layers.Linear(9 * width, width, rngs)
        self.temporal = layers.Linear(3 * width, width, rngs)
        self.temporal.w[...] = self.temporal.w[...] * 0.25

    def __call__(self, stream, causal):
        """float32[B, t, h, w, d] -> the same. causal: without the future's tap."""
        b = self.within_frame(stream)
        t = stream.shape[1]
        b = jnp.pad(b, ((0, 0), (1, 0 if causal else 1), (0, 0), (0, 0), (0, 0)))
        return self.over_time(stream, [b[:, i : i + t] for i in range(2 if causal else 3)])

    def within_frame(self, stream):
        *_, h, w, _ = stream.shape
        a = jnp.pad(_activation(stream), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        b = _taps(self.spatial, [a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], 9)
        return _requantised(b, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)

    def over_time(self, stream, frames):
        change = _stream(_taps(self.temporal, frames, 3))
        limit = STREAM_LIMIT / 2**STREAM_BITS
        return checkpoint_name(jnp.clip(stream + change, -limit, limit), "block")  # kept by training with less memory


def _taps(layer, shifted, count):
    """Sum of one matrix product for each shifted copy: three times as fast as one product of them side by side."""
    parts = jnp.split(layer.w[...], count)[: len(shifted)]
    return sum(x @ w for x, w in zip(shifted, parts, strict=True)) + layer.b[...].reshape(1, 1, 1, 1, -1)


class Net(nnx.Module):
    def __init__(self, config, rngs):
        k = config.digits
        self.embed = layers.Linear((3 * LEVELS + 3) * k, config.width, rngs)
        self.phase = nnx.Param(jnp.zeros((PHASES, config.width), jnp.float32))
        self.blocks = nnx.List([Block(config.width, rngs) for _ in range(config.blocks)])
        self.alone = layers.Linear(config.width, k * NODES, rngs)
        self.begun = layers.Linear(config.width + (LEVELS * len(AROUND) + len(KEPT)) * k, config.hidden, rngs)
        self.earlier = nnx.Param(jnp.zeros((LEVELS * k, config.hidden), jnp.float32))
        self.after = layers.Linear(config.hidden, k * NODES, rngs)

    # ---- masked ----

    def masked(self, digits, known):
        """What each digit may be, whatever the other missing digits are: [B, t, h, w, k, 3]."""
        x = self._entered(_given(digits, known))
        for block in self.blocks:
            x = block(x, False)
        return _logits(self.alone(_activation(x)))

    # ---- causal ----

    def past_features(self, hot):
        """What the frames before each one say of it: float32[B, t, h, w, k, LEVELS] -> float32[B, t, h, w, d]."""
        before, earlier = (jnp.pad(hot, ((0, 0), (n, 0), *[(0, 0)] * 4))[:, : hot.shape[1]] for n in (1, 2))
        none = jnp.zeros_like(hot)
        x = self._entered(_joined(none, before, none, *[none[..., 0]] * 2, _same(before, earlier)))
        for block in self.blocks:
            x = block(x, True)
        return _activation(x)

    def next_features(self, before, earlier, frame, memory):
        """The same of one frame. before, earlier: uint8[B, h, w, k], the last two frames (LEVELS: unknown).
        memory: float32[blocks, B, h, w, d], of the frame before; zeros for the first. Returns (features, memory)."""
        told = _told_before(before[:, None], earlier[:, None])
        x = _stream(self.embed(told.astype(jnp.float32)) + self.phase[...][frame % PHASES].reshape(1, 1, 1, 1, -1))
        kept = []
        for n, block in enumerate(self.blocks):
            b = block.within_frame(x)
            x = block.over_time(x, [memory[n][:, None], b])
            kept.append(b[:, 0])
        return _activation(x)[:, 0], jnp.stack(kept)

    def begin(self, features, around):
        """The running sum before a token's first digit: float32[..., hidden]. around: [..., n], as ``around``."""
        return self.begun(jnp.concatenate([features, around.astype(features.dtype)], axis=-1))

    def logits(self, total, digit):
        """Of one digit, its place in the token an int32: total float32[..., hidden] -> float32[..., 3]."""
        hidden = _requantised(total, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)
        k = self.after.b[...].shape[0] // NODES
        w = jax.lax.dynamic_index_in_dim(self.after.w[...].reshape(-1, k, NODES), digit, 1, keepdims=False)
        b = jax.lax.dynamic_index_in_dim(self.after.b[...].reshape(k, NODES), digit, 0, keepdims=False)
        return _requantised(
            hidden @ w + b.reshape((1,) * (total.ndim - 1) + (-1,)), LOGIT_BITS, -LOGIT_LIMIT, LOGIT_LIMIT
        )

    def tell(self, total, digit, value):
        """The running sum once a digit of the token is known. value: int[...]."""
        return total + self.earlier[...][LEVELS * digit + value.astype(jnp.int32)]

    def causal(self, hot):
        """Logits of every digit, all before it in the coder's order being known: [B, t, h, w, k, 3].

        hot: float32[B, t, h, w, k, LEVELS], digits one-hot, zeros where unknown. Distributions over the levels work
        too: then a digit is told as so much of each, and two digits are the same with so much probability."""
        total, found = self.begin(self.past_features(hot), around_of(hot)), []
        for j in range(hot.shape[-2]):
            found.append(self.logits(total, j))
            rows = self.earlier[...][LEVELS * j : LEVELS * (j + 1)].reshape(LEVELS, 1, 1, 1, 1, -1)
            for n in range(LEVELS):  # no matrix product: these are not of 8 bits
                total = total + hot[..., j, n, None] * rows[n]
        return jnp.stack(found, axis=-2)

    def both(self, digits, known, sent):
        return self.masked(digits, known), self.causal(one_hot(digits, sent))

    def _entered(self, told):
        """Embedding of what each place is told, and the phase of its frame."""
        t = told.shape[1]
        phase = jnp.tile(self.phase[...], (-(-t // PHASES), 1))[:t]
        return _stream(self.embed(told.astype(jnp.float32)) + phase[None, :, None, None])


def one_hot(digits, known):
    """float32[..., LEVELS], one-hot; zeros where not known."""
    return jax.nn.one_hot(jnp.where(known, digits, LEVELS), LEVELS, dtype=jnp.float32)


def _same(one, other):
    """How probably two digits are the same: [..., LEVELS] twice -> [...]."""
    return jnp.sum(one * other, axis=-1)


def _joined(*parts):
    """[B, t, h, w, ...] each -> side by side, float32[B, t, h, w, n]."""
    return jnp.concatenate([part.reshape(*part.shape[:4], -1) for part in parts], axis=-1)


def _given(digits, known):
    """What the net is told of each place, as 0 and 1: its digits, those last known there before and next known after,
    each one-hot; whether its own are the same as these; whether the last known are the same as those known before them.
    bool[B, t, h, w, 15 k].

    A lost token of a still picture is the one before it: comparing tokens is hard for a small net, so it is done here.
    """
    own = jnp.where(known, digits, LEVELS).astype(jnp.uint8)
    none = jnp.full_like(own[:, 0], LEVELS)
    before, after, still = [], [], []
    last = second = none
    for t in range(digits.shape[1]):
        before.append(last)
        still.append((last == second) & (last < LEVELS))
        second = jnp.where(known[:, t], last, second)
        last = jnp.where(known[:, t], digits[:, t], last)
    last = none
    for t in reversed(range(digits.shape[1])):
        after.append(last)
        last = jnp.where(known[:, t], digits[:, t], last)
    before, after, still = (jnp.stack(frames, axis=1) for frames in (before, after[::-1], still))
    return _told(own, before, after, still)


def _told_before(before, earlier):
    none = jnp.full_like(before, LEVELS)
    return _told(none, before, none, (before == earlier) & (before < LEVELS))


def _told(own, before, after, still):
    hot = [jax.nn.one_hot(state, LEVELS, dtype=bool) for state in (own, before, after)]
    same = [(own < LEVELS) & (own == state) for state in (before, after)]
    return jnp.concatenate([*(h.reshape(*own.shape[:-1], -1) for h in hot), *same, still], axis=-1)


def around_of(hot):
    """What the causal head is told of the tokens to the left and above: float32[B, t, h, w, n], ``around`` of each."""
    reach = max(abs(step) for place in AROUND for step in place)
    _, t, h, w, *_ = hot.shape
    wide = jnp.pad(hot, ((0, 0), (1, 0), (reach, reach), (reach, reach), (0, 0), (0, 0)))

    def at(back, y, x):
        return wide[:, 1 - back : 1 - back + t, reach + y : reach + y + h, reach + x : reach + x + w]

    return _joined(*(at(0, *place) for place in AROUND), *(_same(at(0, *AROUND[n]), at(1, *AROUND[n])) for n in KEPT))


def around(tokens, before):
    """tokens: uint8[..., k] at each place of AROUND; before: those at the places of KEPT, one frame earlier. LEVELS:
    unknown. Returns one-hot digits, and which of them stayed the same."""
    hot = [jax.nn.one_hot(token, LEVELS, dtype=bool).reshape(*token.shape[:-1], -1) for token in tokens]
    stayed = [(tokens[n] == token) & (token < LEVELS) for n, token in zip(KEPT, before, strict=True)]
    return jnp.concatenate([*hot, *stayed], axis=-1)


def _logits(x):
    x = _requantised(x, LOGIT_BITS, -LOGIT_LIMIT, LOGIT_LIMIT)
    return x.reshape(*x.shape[:-1], -1, NODES)


@functools.lru_cache(maxsize=8)
def _functional(config):
    return layers.functional(lambda rngs: Net(config, rngs))


def init(key, config):
    """Random parameters: nested dict of float32 arrays, not yet rounded. The key is consumed."""
    return _functional(config)[0](key)


def exponents(w):
    """Power of two of each output channel (last axis), so that the largest weight takes 7 bits: int32[d_out]."""
    largest = jnp.maximum(jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1))), 1e-6)
    # no logarithm and no division, which may fall short of a whole number: what is rounded must keep its exponent
    mantissa, exponent = jnp.frexp(largest)
    return jnp.clip(6 - exponent + (128 * mantissa <= WEIGHT_LIMIT), 0, SHIFT_LIMIT).astype(jnp.int32)


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
    return {
        "embed": linear(params["embed"], 0),
        "phase": rounded(params["phase"] * 2.0**STREAM_BITS) / 2.0**STREAM_BITS,
        "blocks": blocks,
        "alone": linear(params["alone"], ACTIVATION_BITS),
        "begun": linear(params["begun"], ACTIVATION_BITS),
        "earlier": rounded(params["earlier"] * 2.0**STREAM_BITS) / 2.0**STREAM_BITS,
        "after": linear(params["after"], ACTIVATION_BITS),
    }


def masked_logits(params, digits, known, config):
    """float32[B, t, h, w, k, 3], of rounded parameters. digits: uint8[B, t, h, w, k], known: bool of the same shape."""
    return _functional(config)[1](params, digits, known, method="masked")


def causal_logits(params, digits, known, config):
    """float32[B, t, h, w, k, 3]: of each digit, from those before it in the coder's order alone. known: False where a
    token is not there, or a digit is never sent."""
    return expected_logits(params, one_hot(digits, known), config)


def expected_logits(params, hot, config):
    """``causal_logits`` of digits that are not settled yet, with gradients. hot: float32[B, t, h, w, k, LEVELS],
    distributions over the levels, zeros where a token is not there, or a digit is never sent. Exact where one-hot; what
    is not is for searches, never for the coder."""
    return _functional(config)[1](params, hot, method="causal")


def both_logits(params, digits, known, sent, config):
    """(``masked_logits`` of known, ``causal_logits`` of sent)."""
    return _functional(config)[1](params, digits, known, sent, method="both")


def next_features(params, before, earlier, frame, memory, config):
    """See ``Net.next_features``; for the decoder, frame by frame."""
    return _functional(config)[1](params, before, earlier, frame, memory, method="next_features")


def begin(params, features, told, config):
    return _functional(config)[1](params, features, told, method="begin")


def digit_logits(params, total, digit, config):
    return _functional(config)[1](params, total, digit, method="logits")


def tell(params, total, digit, value, config):
    return _functional(config)[1](params, total, digit, value, method="tell")


def probabilities(logits):
    """Of digits 0 to 3: float32[..., 3] -> float32[..., 4]. For concealment and people, never for the coder."""
    high, one, three = (jax.nn.sigmoid(logits[..., n]) for n in range(NODES))
    return jnp.stack([(1 - high) * (1 - one), (1 - high) * one, high * (1 - three), high * three], axis=-1)


def code_lengths(logits):
    """Bits that each value of a digit would cost: float32[..., 3] -> float32[..., 4]. For searches and losses, never
    for the coder."""
    zero, one = ([jax.nn.softplus(sign * logits[..., n]) / math.log(2) for n in range(NODES)] for sign in (1, -1))
    return jnp.stack([zero[0] + zero[1], zero[0] + one[1], one[0] + zero[2], one[0] + one[2]], axis=-1)


def expectation(logits):
    """Mean level of a digit, a real number in [0, 3]: float32[..., 3] -> float32[...]."""
    return probabilities(logits) @ jnp.arange(LEVELS, dtype=jnp.float32)
