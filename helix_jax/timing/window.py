"""What one copy says in a window of its positions, for ``alignment``.

A position of a copy is the number of its bases that are consumed. Copies are padded before their beginning and past
their end, so that windows may reach beyond both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, Shaped, UInt8

NOTHING = -1e9  # log probability of the impossible
PAD = 9  # fills the positions past the end of a read; it is no base
LEAST = 1e-30  # lower bound of a probability whose logarithm is taken, and of a divisor

Arrayish = Array | np.ndarray


class Model(NamedTuple):
    """The channel as alignment sees it; ``model`` makes it.

    Attributes:
        emission: The probability of each run length, by (b, a, level).
        prior: The log probability of (a, level) after b, in data rounds [0] and in the rounds of letters alone [1].
        run: The log probability of a run of a copy, whatever its round, with its share of the probability of the runs
            that are lost.
        match: The probability that a base is read as itself.
        foreign: The probability that a base is read as a certain other base.
        merge: The log probability that a letter goes on in its run.
    """

    emission: Float32[Array, "4 4 levels runs"]
    prior: Float32[Array, "2 4 4 levels"]
    run: Float32[Array, " both_runs"]
    match: Float32[Array, ""]
    foreign: Float32[Array, ""]
    merge: Float32[Array, ""]


def pad_reads(reads: UInt8[Arrayish, "N L"], lengths: Int32[Arrayish, " N"]) -> UInt8[Array, "N L"]:
    """Return the reads with ``PAD`` at all positions past their end."""
    return jnp.where(jnp.arange(reads.shape[1], dtype=jnp.int32)[None] < lengths[:, None], reads, jnp.uint8(PAD))


def cut(row: Shaped[Array, " padded"], start: Int32[Arrayish, ""], width: int) -> Shaped[Array, " {width}"]:
    """Return entries start..start + width - 1 of an array that is padded by ``width`` entries at its beginning.

    Entries before the beginning of the unpadded array are included, and mean nothing.
    """
    return lax.dynamic_slice(row, (start + width,), (width,))


def base_likelihoods(model: Model, bases: UInt8[Array, "*axes W"]) -> Float32[Array, "4 *axes W"]:
    """Return the probability of each base of a window as read, if it is A, C, G or T in truth."""
    letters = jnp.arange(4, dtype=bases.dtype).reshape(4, *([1] * bases.ndim))
    return jnp.where(bases[None] == letters, model.match, jnp.where(bases[None] == PAD, 0.0, model.foreign))


def run_likelihoods(match: Float32[Array, "*axes W"], longest: int) -> list[Float32[Array, "*axes W"]]:
    """Return the probability that the last n bases before each position are the letter, for n = 0..longest.

    Args:
        match: The probability that the base before each position is the letter, as it was read.
        longest: The longest run.
    """
    tails = [jnp.ones_like(match)]
    for run in range(longest):
        shifted = jnp.pad(match[..., : match.shape[-1] - run], ((0, 0),) * (match.ndim - 1) + ((run, 0),))
        tails.append(tails[-1] * shifted)
    return tails


def log_remainders(model: Model, reads: UInt8[Array, "N L"]) -> Float32[Array, "N positions"]:
    """Return the log probability of the remainder of each read, by the number of bases consumed, 0..L.

    The letters themselves count for nothing, as the other copies tell them. (One strand in ten more is lost if they are
    counted in full.)
    """

    def of_read(read):
        def step(carry, item):
            run, after, following = carry
            base, before = item
            run = jnp.where(base == following, run + 1, 1)
            after_run = jnp.where(base == following, after[0], after[1])
            rest = model.run[jnp.minimum(run, len(model.run) - 1)] + after_run
            inside = jnp.where(base == before, model.merge, 0.0)
            rest, output = jnp.where(base == PAD, 0.0, rest), jnp.where(base == PAD, 0.0, rest + inside)
            return (run, jnp.stack([after_run, rest]), base), output

        start = (jnp.int32(0), jnp.zeros(2, jnp.float32), jnp.uint8(PAD + 1))
        before = jnp.concatenate([jnp.full_like(read[:1], PAD + 2), read[:-1]])
        rest = lax.scan(step, start, (read, before), reverse=True)[1]
        return jnp.concatenate([rest, jnp.zeros(1, jnp.float32)])

    return jax.vmap(of_read)(reads)


def relative_worth(rest: Float32[Array, " W"], position: Int32[Arrayish, ""] | int) -> Float32[Array, " W"]:
    """Return the exponential of ``log_remainders`` in a window, relative to that at one position."""
    return jnp.exp(jnp.clip(rest - rest[position], -60.0, 60.0))


def likeliest_position(
    likelihood: Float32[Array, "*axes W"], positions: Int32[Array, "*ones W"]
) -> Int32[Array, "*axes"]:
    """Return the mean of the positions of each window by their likelihoods, rounded."""
    mean = (likelihood * positions).sum(-1) / jnp.maximum(likelihood.sum(-1), LEAST)
    return jnp.round(mean).astype(jnp.int32)
