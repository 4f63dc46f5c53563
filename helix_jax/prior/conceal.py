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

    prior: prior.weights.Prior. tokens: uint8[t, h, w, digits], all digits that the prior knows or the first of them.
    lost: bool[t, h, w]. progress: called with the number of latent frames just done.
    Returns float32[t, h, w, digits]: the digits where they are known, else real values in [0, 3].

    The clip is taken in windows of as many latent frames as the prior sees, with a group on either side, so that it
    knows something of a segment that is lost whole; what lies beyond the clip counts as lost. Floats, and so not the
    same on every machine: pixels only ever depend on it.
    """
    length, (t, *_, digits) = prior.config.frames, tokens.shape
    levels = tokens.astype(np.float32)
    pad = [(net.PHASES, -t % length + net.PHASES), (0, 0), (0, 0)]
    tokens, gone = np.pad(tokens, [*pad, (0, prior.config.digits - digits)]), np.pad(lost, pad, constant_values=True)
    for begin in range(0, t, length):
        part, window = slice(begin, begin + length), slice(begin, begin + length + 2 * net.PHASES)
        here = lost[part]
        if here.any():
            filled = _window(prior.params, tokens[window], gone[window], prior.config, passes, digits)
            filled = np.asarray(filled)[net.PHASES :][: len(here), ..., :digits]
            levels[part] = np.where(here[..., None], filled, levels[part])
        if progress:
            progress(len(here))
    return levels


def _window(params, digits, lost, config, passes, sent):
    known, levels, total = ~lost, digits.astype(np.float32), int(lost.sum())
    for step in range(1, passes + 1):
        left = int(total * mask_ratio(step, passes))
        digits, known, levels = _pass(params, digits, known, levels, left, config, sent)
    return levels


@functools.partial(jax.jit, static_argnames=("config", "sent"))
def _pass(params, digits, known, levels, left, config, sent):
    """All open tokens but the ``left`` least certain ones are settled."""
    place = (jnp.arange(config.digits) < sent)[None, None, None]
    logits = net.masked_logits(params, digits[None], (known[..., None] & place)[None], config)[0]
    chances = net.probabilities(logits)
    sure = jnp.sum(jnp.log(jnp.max(chances, axis=-1)) * place, axis=-1)
    sure = jnp.where(known, -jnp.inf, sure)
    ranked = jnp.sort(sure.reshape(-1))[::-1]  # the open tokens first, the surest of them in front
    settle = ~known & (sure >= ranked[jnp.maximum(jnp.sum(~known) - left - 1, 0)])
    levels = jnp.where(settle[..., None], net.expectation(logits), levels)
    digits = jnp.where(settle[..., None], jnp.argmax(chances, axis=-1).astype(digits.dtype), digits)
    return digits, known | settle, levels
