"""The two passes of ``alignment.soft_levels`` over one copy, along letters that are given.

``advance`` is one step forwards, ``retreat`` one step backwards, and ``of_copy`` does all of them.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt8

from helix_jax.timing.window import LEAST, PAD, Model, base_likelihoods, cut, likeliest_position, relative_worth

Arrayish = Array | np.ndarray


class Round(NamedTuple):
    """A round of the strand. ``lax.scan`` takes an array of them.

    Attributes:
        letter: Its letter.
        mixed: The probability of each run length, with the levels mixed as they are believed.
        emission: The probability of each run length by level.
    """

    letter: Int32[Arrayish, "*rounds"]
    mixed: Float32[Array, "*rounds runs"]
    emission: Float32[Array, "*rounds levels runs"]


class Position(NamedTuple):
    """Where a copy may be between two rounds.

    Attributes:
        forward: The forward (or backward) probabilities by the position in the window, up to a factor.
        offset: The first position of the window.
    """

    forward: Float32[Array, "*rounds W"]
    offset: Int32[Array, "*rounds"]


def of_copy(
    model: Model,
    rounds: Round,
    read: UInt8[Array, " L"],
    length: Int32[Arrayish, ""],
    future: Float32[Array, " padded"],
    *,
    window: int,
) -> tuple[Float32[Array, "R levels"], Int32[Array, " R"]]:
    """Return the log-likelihood of each level of each round by one copy, and the likeliest run lengths.

    Args:
        model: The model of the channel.
        rounds: The rounds of the strand.
        read: The copy, with ``window.PAD`` past its end.
        length: Its length; a copy of length 0 says nothing, and its run lengths are -1.
        future: ``window.log_remainders`` of it, with a padding of one window before and two behind.
        window: The number of positions that are kept.
    """
    positions = jnp.arange(window, dtype=jnp.int32)
    padded = jnp.pad(read, (window, 2 * window), constant_values=PAD)
    start = Position(jnp.zeros(window, jnp.float32).at[0].set(1.0), jnp.zeros_like(length))
    forth = functools.partial(advance, model=model, read=padded, future=future, positions=positions)
    last, before = lax.scan(forth, start, rounds)
    end = jnp.where(positions == length - last.offset, 1.0, jnp.zeros(window, jnp.float32))
    back = functools.partial(retreat, model=model, read=padded, positions=positions)
    log_likelihood, runs = lax.scan(back, Position(end, last.offset), (rounds, before), reverse=True)[1]
    present = length > 0
    return jnp.where(present, log_likelihood, 0.0), jnp.where(present, runs, -1)


def advance(
    position: Position,
    each: Round,
    *,
    model: Model,
    read: UInt8[Array, " padded"],
    future: Float32[Array, " padded_positions"],
    positions: Int32[Array, " W"],
) -> tuple[Position, Position]:
    """Go one round forwards.

    Args:
        position: Where the copy may be before the round.
        each: The round.
        model: The model of the channel.
        read: The padded copy.
        future: As for ``of_copy``.
        positions: The positions in the window, 0..W - 1.

    Returns:
        Where the copy may be after the round, with probabilities that sum to 1; and where it may be before the round,
        in the window of after, which has moved on to the likeliest position.
    """
    (forward, offset), window = position, len(positions)
    behind = window // 3
    middle = likeliest_position(forward * relative_worth(cut(future, offset, window), behind), positions)
    shift = jnp.maximum(middle - behind, 0)
    source = positions + shift
    forward = jnp.where(source < window, forward[jnp.minimum(source, window - 1)], 0.0)
    offset = offset + shift
    match = base_likelihoods(model, cut(read, offset - 1, window))[each.letter]
    after, shifted = forward * each.mixed[0], forward
    for run in range(1, len(each.mixed)):
        shifted = jnp.pad(shifted[:-1], (1, 0)) * match
        after = after + shifted * each.mixed[run]
    return Position(after / jnp.maximum(after.sum(), LEAST), offset), Position(forward, offset)


def retreat(
    after: Position,
    item: tuple[Round, Position],
    *,
    model: Model,
    read: UInt8[Array, " padded"],
    positions: Int32[Array, " W"],
) -> tuple[Position, tuple[Float32[Array, " levels"], Int32[Array, ""]]]:
    """Go one round backwards.

    Args:
        after: The backward probabilities after the round, in the window of the next round.
        item: The round; and where the copy may be before it, as ``advance`` says.
        model: The model of the channel.
        read: The padded copy.
        positions: The positions in the window, 0..W - 1.

    Returns:
        The backward probabilities before the round, of which the largest is 1; and the log-likelihood of each level of
        the round, and its likeliest run length.
    """
    each, (forward, offset) = item
    window = len(positions)
    source = positions - (after.offset - offset)
    inside = (source >= 0) & (source < window)
    backward = jnp.where(inside, after.forward[jnp.clip(source, 0, window - 1)], 0.0)
    match = base_likelihoods(model, cut(read, offset - 1, window))[each.letter]
    shifted, reach = forward, []
    for _ in range(len(each.mixed)):
        reach.append((shifted * backward).sum())
        shifted = jnp.pad(shifted[:-1], (1, 0)) * match
    reach = jnp.stack(reach)  # by run length, the probability of everything but this round's run length itself
    summed, pulled = backward * each.mixed[0], backward
    for run in range(1, len(each.mixed)):
        pulled = jnp.pad((pulled * match)[1:], (0, 1))
        summed = summed + pulled * each.mixed[run]
    log_likelihood = jnp.log(jnp.maximum((each.emission * reach[None]).sum(-1), LEAST))
    before = Position(summed / jnp.maximum(summed.max(), LEAST), offset)
    return before, (log_likelihood, lax.argmax(each.mixed * reach, 0, jnp.int32))
