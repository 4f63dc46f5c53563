"""Dropping: digits of tokens give way to what the prior predicts, where that costs the picture less than it saves.

HELIX leaves out tokens that the masked prior predicts and writes rank corrections where it is wrong. Here the range
coder does both: a digit that is the net's choice costs next to nothing, and any other costs as many bits as its rank
under the prior is improbable. So what is left to decide is which digits to write, digit by digit in the coder's order:

    least  importance[j] * (level - position)^2  +  damage * bits(level | all before)

``position`` is where the encoder's net put the digit before it was rounded, ``importance`` what the picture suffers
from an error in digit j (measured: ``train.context``), and ``damage`` the rate knob: squared error of the picture that
is accepted for a bit. The choice is greedy and may be made in floats: whatever it is, it is coded exactly.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax import parallel
from helix_jax.coding import coder, segments
from helix_jax.prior import net


def drop(prior, plan, positions, damage, *, progress=None):
    """Positions of a clip's digits -> tokens that cost less.

    prior: prior.weights.Prior. plan: segments.Plan. positions: float32[t, h, w, digits] in (-0.5, 3.5), of all digits
    that are sent, as ``tiles.encode(positions=True)`` gives them. damage: squared error (8-bit levels, summed over the
    samples) accepted for a bit; 0 rounds and drops nothing. progress: called with the number of segments just done.
    Returns (tokens uint8[t, h, w, digits]; share of the tokens that are wholly the net's choice; bits of all, as the
    net alone would code them).
    """
    constants = (prior.params, jnp.asarray(prior.importance, jnp.float32), jnp.float32(damage))
    constants = (*constants, coder.steps(plan.shape, positions.shape[-1]))
    tokens, left, bits = parallel.map_batches(
        _drop, constants, segments.cut(plan, positions), segments.there(plan),
        batch=coder.batch_of(plan), progress=progress, net_config=prior.config,
    )  # fmt: skip
    return segments.join(plan, tokens), float(left.sum() / np.prod(plan.grid)), float(bits.sum())


def _drop(constants, positions, there, *, net_config):
    params, importance, damage, shared = constants
    n, digits = len(positions), positions.shape[-1]
    flat = positions.reshape(n, -1, digits)

    def step(carry, x, here, logits):
        position = flat[:, x.place, x.digit]
        p = net.probabilities(logits.astype(jnp.float32) / 2.0**net.LOGIT_BITS)
        bits = -jnp.log2(jnp.maximum(p, 2.0**-20))
        error = jnp.square(jnp.arange(net.LEVELS, dtype=jnp.float32)[None] - position[:, None])
        symbol = lax.argmin(importance[x.digit] * error + damage * bits, 1, jnp.int32)
        rank = jnp.sum(p > jnp.take_along_axis(p, symbol[:, None], axis=1), axis=1, dtype=jnp.int32)
        cost = jnp.take_along_axis(bits, symbol[:, None], axis=1)[:, 0]
        strayed, left, total = carry
        strayed = jnp.where(x.digit == 0, 0, strayed) + (rank > 0)
        left += here & (x.digit == digits - 1) & (strayed == 0)
        return (strayed, left, total + jnp.where(here, cost, 0)), symbol

    zero = jnp.zeros(n, jnp.int32) + (there[:, 0, 0, 0] & False)
    (_, left, bits), tokens = coder.walk(
        params, net_config, step, (zero, zero, zero.astype(jnp.float32)), shared, there, digits
    )
    return tokens, left, bits
