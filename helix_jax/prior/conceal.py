"""Lost tokens -> what the masked prior expects in their place.

The decoder of the tokenizer takes values between levels, so a lost digit becomes its mean under the prior, which is the
best guess for the squared error. In a fixed number of passes the most certain tokens come first, and what they most
probably are is known to the passes after (MaskGIT: Chang et al. 2022); ``mask_ratio`` says how many are left.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from helix_jax.prior import net

PASSES = 4


def mask_ratio(step, passes):
    """Share of the lost tokens that is still open after pass ``step`` of ``passes``, from 1 on: cosine schedule."""
    return np.cos(np.pi / 2 * step / passes) if step < passes else 0.0


def fill_lost(prior, tokens, lost, *, passes=PASSES, progress=None):
    """Tokens with gaps -> levels for the tokenizer's decoder.

    prior: prior.weights.Prior. tokens: uint8[t, h, w, k]. lost: bool[t, h, w]. progress: called with the number of
    latent frames just done. Returns float32[t, h, w, k]: the digits where they are known, else real values in [0, 3].

    The clip is taken in windows of as many latent frames as the prior sees; what is missing of the last one counts as
    lost. Floats, and so not the same on every machine: pixels only ever depend on it.
    """
    length = prior.config.frames
    levels = tokens.astype(np.float32)
    for begin in range(0, len(tokens), length):
        part = slice(begin, begin + length)
        if lost[part].any():
            pad = [(0, length - len(tokens[part])), (0, 0), (0, 0)]
            digits, gone = np.pad(tokens[part], [*pad, (0, 0)]), np.pad(lost[part], pad, constant_values=True)
            filled = np.asarray(_window(prior.params, digits, gone, prior.config, passes))[: len(tokens[part])]
            levels[part] = np.where(lost[part][..., None], filled, levels[part])
        if progress:
            progress(len(tokens[part]))
    return levels


@functools.partial(jax.jit, static_argnames=("config", "passes"))
def _window(params, digits, lost, config, passes):
    known, levels, total = ~lost, digits.astype(jnp.float32), jnp.sum(lost)
    for step in range(1, passes + 1):
        shown = jnp.broadcast_to(known[..., None], digits.shape)
        logits = net.both_logits(params, digits[None], shown[None], config)[0][0]
        chances = net.probabilities(logits)
        sure = jnp.sum(jnp.log(jnp.max(chances, axis=-1)), axis=-1)
        sure = jnp.where(known, -jnp.inf, sure)
        left = jnp.floor(total * mask_ratio(step, passes)).astype(jnp.int32)
        ranked = jnp.sort(sure.reshape(-1))[::-1]  # the open tokens first, the surest of them in front
        settle = ~known & (sure >= ranked[jnp.maximum(jnp.sum(~known) - left - 1, 0)])
        settle = ~known if step == passes else settle
        levels = jnp.where(settle[..., None], net.expectation(logits), levels)
        digits = jnp.where(settle[..., None], jnp.argmax(chances, axis=-1).astype(digits.dtype), digits)
        known |= settle
    return levels
