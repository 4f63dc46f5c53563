"""The capacity of the timing channel if letters are read exactly and levels through noisy channels.

The equation is that of ``capacity``, with the weight 2^(g_ba(R)) of a transition b -> a given by

    g_ba(R) = max_x [ I(x; W_ba) - R sum_i x_i t_i ]

for the channel W_ba through which its level is read. Without errors, this is log2 sum_i 2^(-R t_i) again.

``root`` (without errors) and ``channel_capacity`` are jitted, differentiable, and mapped over batches by vmap. The
other functions are meant to be called by people: they check their arguments and work in float64, to 1e-9. Rates are in
bits per time unit.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Float64, Real

from helix_jax.timing.capacity import NEWTON_STEPS, CapacityError, checked_times
from helix_jax.timing.graph import BASES, TimeTable

SQUARINGS = 16  # how often a matrix is squared for its Perron vectors, which gives the power 65536
BLAHUT_STEPS = 100_000  # the largest number of steps; a level at the edge of use leaves a gap of 1 / steps^2 bits
MOST_COUNTS = 1 << 16  # the largest number of outputs of a Poisson channel

Arrayish = Array | np.ndarray


# ---- for people: float64 -----------------------------------------------------------------------------------------


def symmetric_channels(table: TimeTable, delta: float | int) -> Float64[np.ndarray, "4 4 levels levels"]:
    """Return channels that misread each level with probability ``delta``, as any wrong level with equal probability.

    Entries are 0 where there is no such level, and a transition of one level is read exactly.
    Raises CapacityError unless 0 <= delta <= 1.
    """
    if not 0 <= delta <= 1:
        raise CapacityError(f"delta {delta}: a probability of error lies in 0 to 1")
    used = table.array() > 0
    others = used.sum(2)[..., None, None] - 1
    channels = np.where(np.eye(table.levels, dtype=bool), np.where(others, 1 - delta, 1), delta / np.maximum(others, 1))
    return np.where(used[..., None] & used[..., None, :], channels, 0)


def capacity_with_errors(table: TimeTable, channels: Real[Arrayish, "..."], *, overhead: float | int = 0.0) -> float:
    """Return the capacity if letters are read exactly and levels through noisy channels.

    Args:
        table: The time table.
        channels: Probabilities [4, 4, levels, outputs] as for ``channel_capacity``: for instance
            ``symmetric_channels``, or the distributions of what is seen of a round in all copies.
        overhead: The time units that are added to every round.

    Returns:
        The capacity in bits per time unit, to 1e-9.

    Raises:
        GraphError: The table is reducible.
        CapacityError: The overhead is wrong, or the probabilities of a channel, which is named, do not sum to 1.
    """
    times = checked_times(table, overhead)
    channels = np.asarray(channels, np.float64)
    if channels.ndim != 4 or channels.shape[:3] != times.shape:
        raise CapacityError(f"channels of shape {channels.shape}: give {(*times.shape, 'outputs')}")
    for b, a, i in np.argwhere(times > 0):
        law = channels[b, a, i]
        if not ((law > -1e-9).all() and abs(law.sum() - 1) < 1e-6):
            raise CapacityError(
                f"channel of {BASES[b]}->{BASES[a]} level {i}: least probability {law.min():.9g}, sum {law.sum():.9g}; "
                "give numbers of at least 0 that sum to 1"
            )
    with jax.enable_x64(True):
        return float(channel_capacity(times, np.maximum(channels, 0)))


def capacity_gradient(
    table: TimeTable,
    mean: np.ndarray | Sequence,
    copies: float | int | np.integer,
    *,
    overhead: float | int = 0.0,
) -> tuple[float, Float64[np.ndarray, "4 4"]]:
    """Return what longer runs are worth: the capacity with Poisson run lengths, and its gradient in their means.

    Of a round, the reader sees the letter and the sum of its N run lengths, Poisson(N mean t), which is as informative
    as the N lengths themselves; N zeros are seen like any other sum. The overhead of a round adds no bases.

    Args:
        table: The time table.
        mean: 4 x 4 mean run lengths of a copy per time unit of b -> a, which are positive where the transition is in
            use.
        copies: The number N of copies.
        overhead: The time units that are added to every round.

    Returns:
        The capacity in bits per time unit; and its gradient in bits per time unit per base per time unit, 0 for
        transitions that are not in use. An entry is alpha times the share of b -> a times the slope of its mutual
        information, at the best inputs.

    Raises:
        GraphError: The table is reducible.
        CapacityError: A number, which is named, is wrong.
    """
    times, runs = checked_times(table, overhead), table.array().astype(np.float64)
    mean = np.asarray(mean, np.float64)
    if mean.shape != (4, 4):
        raise CapacityError(f"mean run lengths of shape {mean.shape}: give (4, 4)")
    if not isinstance(copies, int | np.integer) or copies < 1:
        raise CapacityError(f"{copies} copies: give a whole number, at least 1")
    used = (runs > 0).any(2)
    for b, a in np.argwhere(used):
        if not 0 < mean[b, a] * copies * runs[b, a].max() < MOST_COUNTS / 2:
            raise CapacityError(
                f"mean run length {mean[b, a]} of {BASES[b]}->{BASES[a]}: give a number over 0, for {copies} copies "
                f"at most {MOST_COUNTS / 2 / copies / runs[b, a].max():.6g}; longer runs are hardly ever misread"
            )
    mean = np.where(used, mean, 1.0)
    most = float((copies * mean * runs.max(2)).max())
    # Bernstein's inequality: less than 1e-12 lies beyond. Powers of two, so that few shapes are compiled
    counts = 1 << math.ceil(math.log2(most + 10 * math.sqrt(most) + 40))
    with jax.enable_x64(True):
        value, gradient = _poisson_gradient(mean, runs, times, float(copies), counts)
        return float(value), np.array(gradient)


# ---- jitted, differentiable --------------------------------------------------------------------------------------


@jax.jit
def root(times: Real[Arrayish, "4 4 levels"]) -> Float[Array, ""]:
    """Return lambda, whose base-2 logarithm is the capacity; differentiable in the times.

    The ``times`` include the overhead and are 0 where there is no such level. The transitions must be irreducible,
    which is not checked. The result has the dtype of the times, and in float32 a precision of about 1e-6.
    """
    times = jnp.asarray(times, jnp.result_type(times, float))
    used = times > 0

    def improve(bits, times):
        weight = jnp.where(used, jnp.exp2(-bits * times), 0)
        return _newton(bits, weight.sum(-1), (weight * times).sum(-1))

    def step(carry):
        bits, _, count = carry
        return improve(bits, fixed), bits, count + 1

    def more(carry):
        bits, before, count = carry
        return (bits - before > 16 * jnp.finfo(times.dtype).eps * bits) & (count < NEWTON_STEPS)

    fixed = lax.stop_gradient(times)
    start = (jnp.zeros((), times.dtype), jnp.full((), -1, times.dtype), jnp.int32(0))
    bits, _, _ = lax.while_loop(more, step, start)
    return jnp.exp2(improve(lax.stop_gradient(bits), times))


@jax.jit
def channel_capacity(
    times: Real[Arrayish, "4 4 levels"], channels: Real[Arrayish, "4 4 levels outputs"]
) -> Float[Array, ""]:
    """Return the capacity if letters are read exactly and levels through noisy channels; differentiable in both.

    The best inputs come from the iteration of Blahut and Arimoto (1972) with a cost of time, for all transitions at
    once, while Newton's steps move R. By the envelope theorem, the derivative is that at the best inputs, held fixed.
    An output of probability 0 counts as impossible, and not as one that could become possible (the slope there is
    infinite).

    Args:
        times: As for ``root``.
        channels: W[b, a, i, y], the probability of output y for level i of b -> a; rows without a time are ignored.

    Returns:
        Bits per time unit, in the dtype of the arguments. In float32 they are precise to about 1e-5, and the
        derivatives to about 1 % of the greatest where no probability is minute.
    """
    dtype = jnp.result_type(times, channels, float)
    times = jnp.asarray(times, dtype)
    channels = jnp.where((times > 0)[..., None], jnp.asarray(channels, dtype), 0)
    inputs, bits = _best_inputs(lax.stop_gradient(times), lax.stop_gradient(channels))
    return _round(inputs, bits, times, channels)[1]


def _newton(bits, weight, moment):
    """Take one step of Newton's method for the equation: Perron root of weight = 1.

    weight: float[4, 4] at ``bits``. moment: the weight times the mean time of the transition. Differentiating the
    result at the root differentiates the root, as the vectors and the slope are held fixed.
    """
    left, right = _perron(lax.stop_gradient(weight))
    value = (left[:, None] * weight * right[None, :]).sum()
    slope = (left[:, None] * moment * right[None, :]).sum() / value
    return bits + jnp.log2(value) / lax.stop_gradient(slope)


def _perron(matrix):
    """Return the left and right Perron vectors, float[4] each, with left @ right = 1."""

    def square(_, power):
        power = jnp.matmul(power, power, precision=lax.Precision.HIGHEST)
        return power / power.max()

    # the identity makes a periodic matrix aperiodic and does not change the vectors
    power = lax.fori_loop(0, SQUARINGS, square, matrix + jnp.eye(4, dtype=matrix.dtype))
    left, right = power.sum(0), power.sum(1)
    return left / (left * right).sum(), right


def _round(inputs, bits, times, channels):
    """Return the worth of each level at given inputs, and better bits.

    The worth is D(W_i || output law) - bits * time, float[4, 4, levels].
    """
    output = (inputs[..., None] * channels).sum(-2, keepdims=True)
    possible = channels > 0
    # the output law is 0 only where an input has died out
    output = jnp.maximum(output, jnp.finfo(times.dtype).tiny)
    ratio = jnp.log2(jnp.where(possible, channels, 1)) - jnp.log2(output)
    worth = jnp.where(possible, channels * ratio, 0).sum(-1) - bits * times
    weight = jnp.where((times > 0).any(-1), jnp.exp2((inputs * worth).sum(-1)), 0)
    return worth, _newton(bits, weight, weight * (inputs * times).sum(-1))


def _best_inputs(times, channels):
    """Return the best inputs, float[4, 4, levels], and the capacity.

    The capacity is too low by at most ``precise`` / shortest time.
    """
    used = times > 0
    eps = jnp.finfo(times.dtype).eps
    precise = 1e-10 if times.dtype == jnp.float64 else 1e-5

    def step(carry):
        inputs, bits, _, _, count = carry
        worth, better = _round(inputs, bits, times, channels)
        best = jnp.where(used, worth, -jnp.inf).max(-1, keepdims=True)
        best = jnp.where(used.any(-1, keepdims=True), best, 0)
        gap = (best[..., 0] - (inputs * worth).sum(-1)).max()
        following = jnp.where(used, inputs * jnp.exp2(worth - best), 0)
        following = following / jnp.maximum(following.sum(-1, keepdims=True), eps)
        return following, better, bits, gap, count + 1

    def more(carry):
        _, bits, before, gap, count = carry
        limit = precise + 8 * eps * bits * times.max()  # for the rounding of the worths
        moved = jnp.abs(bits - before) * times.max()
        return (jnp.maximum(gap, moved) > limit) & (count < BLAHUT_STEPS)

    inputs = used.astype(times.dtype)
    inputs = inputs / jnp.maximum(inputs.sum(-1, keepdims=True), 1)
    bits, before, gap = (jnp.full((), value, times.dtype) for value in (0, -1, 1))
    inputs, bits, *_ = lax.while_loop(more, step, (inputs, bits, before, gap, jnp.int32(0)))
    return inputs, bits


@functools.partial(jax.jit, static_argnames="counts")
@jax.value_and_grad
def _poisson_gradient(mean, runs, times, copies, counts):
    """Return ``channel_capacity`` for sums of run lengths 0 .. counts - 1; the last output includes the tail."""
    expected = jnp.where(runs > 0, copies * mean[..., None] * runs, 1)[..., None]
    count = jnp.arange(counts - 1, dtype=mean.dtype)[None, None, None]
    law = jnp.exp(count * jnp.log(expected) - expected - gammaln(count + 1))
    tail = jnp.maximum(1 - law.sum(-1, keepdims=True), 0)
    return channel_capacity(times, jnp.concatenate([law, tail], axis=-1))
