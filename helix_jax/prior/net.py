"""The masked prior's network, which predicts missing digits of tokens from known ones. It is exact by construction.

There is one net with one set of weights, and two ways to use it:

    masked   Any digits are masked, and every token sees past, present and future. Concealment uses this way.
    causal   A token sees the earlier latent frames (``past_features``), then the tokens to its left and above, then its
             own earlier digits (``Net.begin``, ``logits``, ``tell``). Dropping and entropy coding use this way.

All that it computes are integers in float32, so that its logits are the same bits in any batch, jitted or not, on any
device, with bfloat16 operands, and in NumPy:

    weights      int8 times a power of two, one for each output channel
    activations  8 bits (magnitude at most 127) times a fixed power of two
    sums         below 2^24 in the unit of their channel, as ``prior.weights`` proves of a file for every channel
    rounding     floor(x + 1/2), of numbers that float32 represents exactly

Convolutions are shifts and matrix products, since a convolution's algorithm (Winograd, FFT) may be inexact. There is no
normalisation, no softmax and no division. Training runs the same functions on weights that are rounded with
straight-through gradients, so nothing is lost at export (Balle et al., "Integer Networks for Data Compression with
Latent-Variable Models", 2019). The causal head is a NADE (Larochelle and Murray 2011): a running sum over what is known
so far, and a few outputs of it for each digit.

A digit is a tree of three binary decisions: node 0 says whether the digit is 2 or 3, node 1 says which of 0 and 1 it
is, and node 2 says which of 2 and 3. A logit is ln(p / (1 - p)). In all shapes, ``k`` is the number of digits of a
token, and ``d`` the number of channels.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int32, Integer, Key, Shaped, UInt8

from helix_jax import layers
from helix_jax.config import PriorConfig
from helix_jax.prior import inputs as net_inputs
from helix_jax.prior.inputs import LEVELS
from helix_jax.prior.stored import ACTIVATION_BITS, AROUND, KEPT, LOGIT_BITS, STREAM_BITS

Arrayish = Array | np.ndarray

NODES = 3
PHASES = 4  # latent frames in a group of the tokenizer; the first of each was coded without a past
LOGIT_LIMIT = 3071  # in steps of a logit: e^-12, which the coder cannot distinguish from zero
ACTIVATION_LIMIT = 127
STREAM_LIMIT = 2**15
WEIGHT_LIMIT = 127
SHIFT_LIMIT = 14  # largest power of two of a channel


@jax.custom_jvp
def rounded(x: Float[Arrayish, "*axes"]) -> Float[Array, "*axes"]:
    """Compute floor(x + 1/2), with the gradient of the identity."""
    return jnp.floor(x + 0.5)


@rounded.defjvp
def _(primals, tangents):
    return rounded(*primals), tangents[0]


def _requantised(x: Float[Arrayish, "*axes"], bits: int, low: int, high: int) -> Float[Array, "*axes"]:
    """Round x to steps of 2^-bits, and clip it to ``low`` and ``high`` steps."""
    return jnp.clip(rounded(x * 2.0**bits), low, high) * 2.0**-bits


def _activation(x):
    return _requantised(x, ACTIVATION_BITS, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def _stream(x):
    return _requantised(x, STREAM_BITS, -STREAM_LIMIT, STREAM_LIMIT)


class Block(nnx.Module):
    """Residual block: 3x3 in space, ReLU, 3 taps in time (past, present, future); zeros beyond the borders."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.spatial = layers.Linear(9 * width, width, rngs)
        self.temporal = layers.Linear(3 * width, width, rngs)
        self.temporal.w[...] = self.temporal.w[...] * 0.25

    def __call__(self, stream: Float[Arrayish, "B t h w d"], causal: bool) -> Float[Array, "B t h w d"]:
        """Apply the block to whole clips. If ``causal``, the tap of the future is left out."""
        b = self.within_frame(stream)
        t = stream.shape[1]
        b = jnp.pad(b, ((0, 0), (1, 0 if causal else 1), (0, 0), (0, 0), (0, 0)))
        return self.over_time(stream, [b[:, i : i + t] for i in range(2 if causal else 3)])

    def within_frame(self, stream: Float[Arrayish, "B t h w d"]) -> Float[Array, "B t h w d"]:
        """Apply the first half of the block, which is within frames."""
        *_, h, w, _ = stream.shape
        a = jnp.pad(_activation(stream), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        b = _taps(self.spatial, [a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], 9)
        return _requantised(b, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)

    def over_time(
        self, stream: Float[Arrayish, "B t h w d"], frames: Sequence[Float[Arrayish, "B t h w d"]]
    ) -> Float[Array, "B t h w d"]:
        """Apply the second half of the block to ``frames``, which are the first half's results for each tap."""
        change = _stream(_taps(self.temporal, frames, 3))
        limit = STREAM_LIMIT / 2**STREAM_BITS
        return checkpoint_name(jnp.clip(stream + change, -limit, limit), "block")  # kept by training with less memory


def _taps(
    layer: layers.Linear, shifted: Sequence[Float[Arrayish, "B t h w d"]], count: int
) -> Float[Array, "B t h w d"]:
    """Sum of one matrix product for each shifted copy: three times as fast as one product of all copies together."""
    parts = jnp.split(layer.w[...], count)[: len(shifted)]
    products: Any = sum(x @ w for x, w in zip(shifted, parts, strict=True))
    return products + layer.b[...].reshape(1, 1, 1, 1, -1)


class Net(nnx.Module):
    """The network. Its methods are called through ``layers.functional``."""

    def __init__(self, config: PriorConfig, rngs: nnx.Rngs):
        k = config.digits
        self.embed = layers.Linear((3 * LEVELS + 3) * k, config.width, rngs)
        self.phase = nnx.Param(jnp.zeros((PHASES, config.width), jnp.float32))
        self.blocks = nnx.List([Block(config.width, rngs) for _ in range(config.blocks)])
        self.alone = layers.Linear(config.width, k * NODES, rngs)
        self.begun = layers.Linear(config.width + (LEVELS * len(AROUND) + len(KEPT)) * k, config.hidden, rngs)
        self.earlier = nnx.Param(jnp.zeros((LEVELS * k, config.hidden), jnp.float32))
        self.after = layers.Linear(config.hidden, k * NODES, rngs)

    # ---- masked ----

    def masked(
        self, digits: Integer[Arrayish, "B t h w k"], mask: Bool[Arrayish, "B t h w k"]
    ) -> Float[Array, "B t h w k 3"]:
        """Predict each digit from the known ones, independently of the other missing digits."""
        x = self._entered(net_inputs.given(digits, mask))
        for block in self.blocks:
            x = block(x, False)
        return _logits(self.alone(_activation(x)))

    # ---- causal ----

    def past_features(self, hot: Float[Arrayish, "B t h w k 4"]) -> Float[Array, "B t h w d"]:
        """Compute features of every frame from the earlier frames, whose digits are one-hot."""
        before, earlier = (jnp.pad(hot, ((0, 0), (n, 0), *[(0, 0)] * 4))[:, : hot.shape[1]] for n in (1, 2))
        none = jnp.zeros_like(hot)
        x = self._entered(net_inputs.joined(none, before, none, *[none[..., 0]] * 2, net_inputs.same(before, earlier)))
        for block in self.blocks:
            x = block(x, True)
        return _activation(x)

    def next_features(
        self,
        before: UInt8[Arrayish, "B h w k"],
        earlier: UInt8[Arrayish, "B h w k"],
        frame: int | Integer[Arrayish, ""],
        memory: Float[Arrayish, "blocks B h w d"],
    ) -> tuple[Float[Array, "B h w d"], Float[Array, "blocks B h w d"]]:
        """Compute the same features frame by frame.

        Args:
            before: Digits of the previous frame, LEVELS where unknown.
            earlier: Digits of the frame before that one.
            frame: Index of the frame.
            memory: What this function returned for the previous frame; zeros for the first frame.

        Returns:
            The features, and the memory for the next frame.
        """
        inputs = net_inputs.inputs_before(before[:, None], earlier[:, None])
        x = _stream(self.embed(inputs.astype(jnp.float32)) + self.phase[...][frame % PHASES].reshape(1, 1, 1, 1, -1))
        kept = []
        for n, block in enumerate(self.blocks):
            b = block.within_frame(x)
            x = block.over_time(x, [memory[n][:, None], b])
            kept.append(b[:, 0])
        return _activation(x)[:, 0], jnp.stack(kept)

    def begin(
        self, features: Float[Arrayish, "*axes d"], around: Shaped[Arrayish, "*axes n"]
    ) -> Float[Array, "*axes hidden"]:
        """Compute the running sum before a token's first digit.

        ``features`` are those of the token's position, and ``around`` is what the function ``around`` returns.
        """
        return self.begun(jnp.concatenate([features, around.astype(features.dtype)], axis=-1))

    def logits(self, total: Float[Arrayish, "*axes hidden"], digit: int | Int32[Array, ""]) -> Float[Array, "*axes 3"]:
        """Compute the logits of a digit, of which ``digit`` is the index in its token, from the running sum."""
        hidden = _requantised(total, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)
        k = self.after.b[...].shape[0] // NODES
        w = jax.lax.dynamic_index_in_dim(self.after.w[...].reshape(-1, k, NODES), digit, 1, keepdims=False)
        b = jax.lax.dynamic_index_in_dim(self.after.b[...].reshape(k, NODES), digit, 0, keepdims=False)
        return _requantised(
            hidden @ w + b.reshape((1,) * (total.ndim - 1) + (-1,)), LOGIT_BITS, -LOGIT_LIMIT, LOGIT_LIMIT
        )

    def tell(
        self, total: Float[Arrayish, "*axes hidden"], digit: int | Int32[Array, ""], value: Integer[Arrayish, "*axes"]
    ) -> Float[Array, "*axes hidden"]:
        """Add a digit of the token to the running sum, once its value is known."""
        return jnp.asarray(total) + self.earlier[...][LEVELS * digit + value.astype(jnp.int32)]

    def causal(self, hot: Float[Arrayish, "B t h w k 4"]) -> Float[Array, "B t h w k 3"]:
        """Compute the logits of every digit from all digits before it in the coder's order.

        The digits are one-hot, and zeros where they are unknown. Distributions over the levels work too: then a digit
        enters as a mixture of the levels, and two digits are the same with a probability.
        """
        total, logits = self.begin(self.past_features(hot), net_inputs.around_of(hot)), []
        for j in range(hot.shape[-2]):
            logits.append(self.logits(total, j))
            rows = self.earlier[...][LEVELS * j : LEVELS * (j + 1)].reshape(LEVELS, 1, 1, 1, 1, -1)
            for n in range(LEVELS):  # no matrix product: these are not of 8 bits
                total = total + hot[..., j, n, None] * rows[n]
        return jnp.stack(logits, axis=-2)

    def both(
        self,
        digits: Integer[Arrayish, "B t h w k"],
        mask: Bool[Arrayish, "B t h w k"],
        sent: Bool[Arrayish, "B t h w k"],
    ) -> tuple[Float[Array, "B t h w k 3"], Float[Array, "B t h w k 3"]]:
        """Compute the logits in both ways: masked with ``mask``, causal with ``sent``."""
        return self.masked(digits, mask), self.causal(net_inputs.one_hot(digits, sent))

    def _entered(self, inputs: Shaped[Arrayish, "B t h w n"]) -> Float[Array, "B t h w d"]:
        """Embed the inputs of each position, and add the phase of its frame."""
        t = inputs.shape[1]
        phase = jnp.tile(self.phase[...], (-(-t // PHASES), 1))[:t]
        return _stream(self.embed(inputs.astype(jnp.float32)) + phase[None, :, None, None])


def _logits(x: Float[Array, "*axes n"]) -> Float[Array, "*axes k 3"]:
    x = _requantised(x, LOGIT_BITS, -LOGIT_LIMIT, LOGIT_LIMIT)
    return x.reshape(*x.shape[:-1], -1, NODES)


@functools.lru_cache(maxsize=8)
def _functional(config: PriorConfig) -> tuple[Callable, Callable]:
    return layers.functional(lambda rngs: Net(config, rngs))


def init(key: Key[Array, ""], config: PriorConfig) -> dict:
    """Draw random parameters: a nested dict of float32 arrays, not yet rounded. The key is consumed."""
    return _functional(config)[0](key)


def exponents(w: Float[Arrayish, "*axes d_out"]) -> Int32[Array, " d_out"]:
    """Choose the power of two of each output channel (last axis), so that its largest weight takes 7 bits."""
    largest = jnp.maximum(jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1))), 1e-6)
    # no logarithm and no division, which may be just below an integer: rounded weights must keep their exponent
    mantissa, exponent = jnp.frexp(largest)
    return jnp.clip(6 - exponent + (128 * mantissa <= WEIGHT_LIMIT), 0, SHIFT_LIMIT).astype(jnp.int32)


def quantise(params: dict) -> dict:
    """Round parameters to the nearest ones that the integer net can have, with straight-through gradients.

    Matrices become int8 times 2^-exponent of each channel. Biases, ``phase`` and ``earlier`` get the unit of what they
    are added to.
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


def masked_logits(
    params: dict,
    digits: Integer[Arrayish, "B t h w k"],
    mask: Bool[Arrayish, "B t h w k"],
    config: PriorConfig,
) -> Float[Array, "B t h w k 3"]:
    """Predict each digit from the known ones, wherever they are.

    Args:
        params: Rounded parameters.
        digits: The digits, of any value where unknown.
        mask: Mask of the known digits.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, digits, mask, method="masked")


def causal_logits(
    params: dict,
    digits: Integer[Arrayish, "B t h w k"],
    mask: Bool[Arrayish, "B t h w k"],
    config: PriorConfig,
) -> Float[Array, "B t h w k 3"]:
    """Predict each digit from those before it in the coder's order.

    Args:
        params: Rounded parameters.
        digits: The digits.
        mask: Mask of the digits that are not padding and that are sent.
        config: Configuration of the net.
    """
    return expected_logits(params, net_inputs.one_hot(digits, mask), config)


def expected_logits(
    params: dict, hot: Float[Arrayish, "B t h w k 4"], config: PriorConfig
) -> Float[Array, "B t h w k 3"]:
    """Compute ``causal_logits`` of digits that are not decided yet, with gradients.

    The result is exact where the digits are one-hot. Other distributions are for searches, never for the coder.

    Args:
        params: Rounded parameters.
        hot: Distributions over the levels, zeros for padding and for digits that are not sent.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, hot, method="causal")


def both_logits(
    params: dict,
    digits: Integer[Arrayish, "B t h w k"],
    mask: Bool[Arrayish, "B t h w k"],
    sent: Bool[Arrayish, "B t h w k"],
    config: PriorConfig,
) -> tuple[Float[Array, "B t h w k 3"], Float[Array, "B t h w k 3"]]:
    """Predict each digit in both ways.

    Args:
        params: Rounded parameters.
        digits: The digits.
        mask: Mask for ``masked_logits``.
        sent: Mask for ``causal_logits``.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, digits, mask, sent, method="both")


def next_features(
    params: dict,
    before: UInt8[Arrayish, "B h w k"],
    earlier: UInt8[Arrayish, "B h w k"],
    frame: int | Integer[Arrayish, ""],
    memory: Float[Arrayish, "blocks B h w d"],
    config: PriorConfig,
) -> tuple[Float[Array, "B h w d"], Float[Array, "blocks B h w d"]]:
    """Compute features of the next frame for the decoder.

    Args:
        params: Rounded parameters.
        before: As for ``Net.next_features``.
        earlier: As for ``Net.next_features``.
        frame: As for ``Net.next_features``.
        memory: As for ``Net.next_features``.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, before, earlier, frame, memory, method="next_features")


def begin(
    params: dict, features: Float[Arrayish, "*axes d"], near: Shaped[Arrayish, "*axes n"], config: PriorConfig
) -> Float[Array, "*axes hidden"]:
    """Compute the running sum before a token's first digit.

    Args:
        params: Rounded parameters.
        features: Features of the token's position.
        near: What ``around`` returns for the token.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, features, near, method="begin")


def digit_logits(
    params: dict, total: Float[Arrayish, "*axes hidden"], digit: int | Int32[Array, ""], config: PriorConfig
) -> Float[Array, "*axes 3"]:
    """Compute the logits of a digit.

    Args:
        params: Rounded parameters.
        total: The running sum.
        digit: Index of the digit in its token.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, total, digit, method="logits")


def tell(
    params: dict,
    total: Float[Arrayish, "*axes hidden"],
    digit: int | Int32[Array, ""],
    value: Integer[Arrayish, "*axes"],
    config: PriorConfig,
) -> Float[Array, "*axes hidden"]:
    """Add a digit to the running sum.

    Args:
        params: Rounded parameters.
        total: The running sum.
        digit: Index of the digit in its token.
        value: Value of the digit.
        config: Configuration of the net.
    """
    return _functional(config)[1](params, total, digit, value, method="tell")


def probabilities(logits: Float[Arrayish, "*axes 3"]) -> Float[Array, "*axes 4"]:
    """Compute the probabilities of the digits 0 to 3. They are for concealment and people, never for the coder."""
    high, one, three = (jax.nn.sigmoid(logits[..., n]) for n in range(NODES))
    return jnp.stack([(1 - high) * (1 - one), (1 - high) * one, high * (1 - three), high * three], axis=-1)


def code_lengths(logits: Float[Arrayish, "*axes 3"]) -> Float[Array, "*axes 4"]:
    """Compute how many bits each value of a digit would cost. This is for searches and losses, never for the coder."""
    zero, one = ([jax.nn.softplus(sign * logits[..., n]) / math.log(2) for n in range(NODES)] for sign in (1, -1))
    return jnp.stack([zero[0] + zero[1], zero[0] + one[1], one[0] + zero[2], one[0] + one[2]], axis=-1)


def expectation(logits: Float[Arrayish, "*axes 3"]) -> Float[Array, "*axes"]:
    """Compute the mean level of a digit, a real number in [0, 3]."""
    return probabilities(logits) @ jnp.arange(LEVELS, dtype=jnp.float32)
