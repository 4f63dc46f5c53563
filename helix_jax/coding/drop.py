"""Dropping: digits are replaced by what the prior predicts, where that damages the picture less than it is worth.

HELIX leaves out tokens that the masked prior predicts, and writes rank corrections where it is wrong. Here the range
coder does both: a digit that is the net's choice costs almost nothing, and any other costs more bits the less probable
its rank under the prior is. What is left to decide is which digits to write, digit by digit in the coder's order:

    minimise  importance[j] * (level - position)^2  +  damage * bits(level | all earlier digits)

``position`` is where the encoder's net put the digit before it was rounded, ``importance`` is the damage to the picture
by an error in digit j (measured by ``train.context``), and ``damage`` controls the rate: it is the squared error of the
picture that is accepted for a bit. The choice is greedy and may be made in floats: whatever it is, it is coded exactly.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8

from helix_jax import parallel
from helix_jax.coding import coder, segments
from helix_jax.config import PriorConfig
from helix_jax.prior import net
from helix_jax.prior.weights import Prior


def drop(
    prior: Prior,
    plan: segments.Plan,
    positions: Float32[np.ndarray, "t h w k"],
    damage: float | int,
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[UInt8[np.ndarray, "t h w k"], float, float]:
    """Choose tokens that cost fewer bits than the rounded positions.

    Args:
        prior: The prior.
        plan: How the clip is cut into segments.
        positions: Positions in (-0.5, 3.5) of all digits that are sent, as ``tiles.encode(positions=True)`` gives them.
        damage: Squared error (in 8-bit levels, summed over the samples) that is accepted for a bit. With 0 the
            positions are rounded and nothing is dropped.
        progress: Called with the number of segments that have just been done.

    Returns:
        The tokens, the share of them that are wholly the net's choice, and the number of bits of all of them, if the
        net alone coded them.
    """
    constants = (prior.params, jnp.asarray(prior.importance, jnp.float32), jnp.float32(damage))
    constants = (*constants, coder.steps(plan.shape, positions.shape[-1]))
    tokens, left, bits = parallel.map_batches(
        _drop, constants, segments.cut(plan, positions), segments.valid(plan),
        batch=coder.batch_of(plan), progress=progress, net_config=prior.config,
    )  # fmt: skip
    return segments.join(plan, tokens), float(left.sum() / np.prod(plan.grid)), float(bits.sum())


def _drop(
    constants: Any,
    positions: Float32[Array, "n t h w k"],
    valid: Bool[Array, "n t h w"],
    *,
    net_config: PriorConfig,
) -> tuple[UInt8[Array, "n t h w k"], Int32[Array, " n"], Float32[Array, " n"]]:
    params, importance, damage, shared = constants
    n, digits = len(positions), positions.shape[-1]
    flat = positions.reshape(n, -1, digits)

    def step(carry, x, here, logits):
        level = flat[:, x.position, x.digit]
        p = net.probabilities(logits.astype(jnp.float32) / 2.0**net.LOGIT_BITS)
        bits = -jnp.log2(jnp.maximum(p, 2.0**-20))
        error = jnp.square(jnp.arange(net.LEVELS, dtype=jnp.float32)[None] - level[:, None])
        symbol = lax.argmin(importance[x.digit] * error + damage * bits, 1, jnp.int32)
        rank = jnp.sum(p > jnp.take_along_axis(p, symbol[:, None], axis=1), axis=1, dtype=jnp.int32)
        cost = jnp.take_along_axis(bits, symbol[:, None], axis=1)[:, 0]
        strayed, left, total = carry
        strayed = jnp.where(x.digit == 0, 0, strayed) + (rank > 0)
        left += here & (x.digit == digits - 1) & (strayed == 0)
        return (strayed, left, total + jnp.where(here, cost, 0)), symbol

    zero = jnp.zeros(n, jnp.int32)
    (_, left, bits), tokens = coder.walk(
        params, net_config, step, (zero, zero, jnp.zeros(n, jnp.float32)), shared, valid, digits
    )
    return tokens, left, bits
