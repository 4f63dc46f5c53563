"""Digits of tokens -> the inputs of the prior's network: one-hot digits, and which of them are the same.

In all shapes, ``k`` is the number of digits of a token.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, UInt8

from helix_jax.prior.stored import AROUND, KEPT

LEVELS = 4  # of a digit; the value LEVELS stands for an unknown one

Arrayish = Array | np.ndarray


def one_hot(digits: Integer[Arrayish, "*axes"], mask: Bool[Arrayish, "*axes"]) -> Float32[Array, "*axes 4"]:
    """Encode digits one-hot, with zeros where they are not known."""
    return jax.nn.one_hot(jnp.where(mask, digits, LEVELS), LEVELS, dtype=jnp.float32)


def same(left: Float[Array, "*axes 4"], right: Float[Array, "*axes 4"]) -> Float[Array, "*axes"]:
    """Probability that two digits are the same."""
    return jnp.sum(left * right, axis=-1)


def joined(*parts: Float[Array, "B t h w ..."]) -> Float[Array, "B t h w n"]:
    """Concatenate the parts [B, t, h, w, ...] along one last axis."""
    return jnp.concatenate([part.reshape(*part.shape[:4], -1) for part in parts], axis=-1)


def given(digits: Integer[Arrayish, "B t h w k"], mask: Bool[Arrayish, "B t h w k"]) -> Bool[Array, "B t h w n"]:
    """Inputs of the net for each position, 15 for each digit.

    These are the digit itself, the last known digit before it in time and the next known one after it, each one-hot;
    whether the digit is the same as each of these two; and whether the last known digit is the same as the one known
    before that. In a still picture a lost token is the same as the one before it, and comparing tokens is hard for a
    small net, so it is done here.
    """
    own = jnp.where(mask, digits, LEVELS).astype(jnp.uint8)
    none = jnp.full_like(own[:, 0], LEVELS)
    before, after, still = [], [], []
    last = second = none
    for t in range(digits.shape[1]):
        before.append(last)
        still.append((last == second) & (last < LEVELS))
        second = jnp.where(mask[:, t], last, second)
        last = jnp.where(mask[:, t], digits[:, t], last)
    last = none
    for t in reversed(range(digits.shape[1])):
        after.append(last)
        last = jnp.where(mask[:, t], digits[:, t], last)
    before, after, still = (jnp.stack(frames, axis=1) for frames in (before, after[::-1], still))
    return _all_of(own, before, after, still)


def inputs_before(
    before: UInt8[Arrayish, "B t h w k"], earlier: UInt8[Arrayish, "B t h w k"]
) -> Bool[Array, "B t h w n"]:
    """The same inputs if only the two frames before are known."""
    none = jnp.full_like(before, LEVELS)
    return _all_of(none, before, none, (before == earlier) & (before < LEVELS))


def _all_of(
    own: Integer[Arrayish, "B t h w k"],
    before: Integer[Arrayish, "B t h w k"],
    after: Integer[Arrayish, "B t h w k"],
    still: Bool[Arrayish, "B t h w k"],
) -> Bool[Array, "B t h w n"]:
    hot = [jax.nn.one_hot(state, LEVELS, dtype=bool) for state in (own, before, after)]
    same = [(own < LEVELS) & (own == state) for state in (before, after)]
    return jnp.concatenate([*(h.reshape(*own.shape[:-1], -1) for h in hot), *same, still], axis=-1)


def around_of(hot: Float[Arrayish, "B t h w k 4"]) -> Float[Array, "B t h w n"]:
    """Make the causal head's inputs from the tokens to the left and above, ``around`` of every token."""
    reach = max(abs(step) for place in AROUND for step in place)
    _, t, h, w, *_ = hot.shape
    wide = jnp.pad(hot, ((0, 0), (1, 0), (reach, reach), (reach, reach), (0, 0), (0, 0)))

    def at(back, y, x):
        return wide[:, 1 - back : 1 - back + t, reach + y : reach + y + h, reach + x : reach + x + w]

    return joined(*(at(0, *place) for place in AROUND), *(same(at(0, *AROUND[n]), at(1, *AROUND[n])) for n in KEPT))


def around(
    tokens: Sequence[Integer[Arrayish, "*axes k"]], before: Sequence[Integer[Arrayish, "*axes k"]]
) -> Bool[Array, "*axes n"]:
    """Make the causal head's inputs of a token: the digits around it, one-hot, and which of them stayed the same.

    ``tokens`` are those at the positions AROUND, and ``before`` those at the positions KEPT, one frame earlier. LEVELS
    stands for an unknown digit.
    """
    hot = [jax.nn.one_hot(token, LEVELS, dtype=bool).reshape(*token.shape[:-1], -1) for token in tokens]
    stayed = [(tokens[n] == token) & (token < LEVELS) for n, token in zip(KEPT, before, strict=True)]
    return jnp.concatenate([*hot, *stayed], axis=-1)
