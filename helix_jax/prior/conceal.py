"""Lost tokens -> what the masked prior expects in their place.

The decoder of the tokenizer takes values between levels, so a lost digit becomes its mean under the prior, which is the
best guess for the squared error. One pass tells all: settling the surest tokens first, for later passes to know
(MaskGIT: Chang et al. 2022), makes no better pictures (docs/prior.md).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from helix_jax.prior import net


def fill_lost(prior, tokens, lost, *, progress=None):
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
    tokens, known = np.pad(tokens, [*pad, (0, prior.config.digits - digits)]), np.pad(~lost, pad)
    for begin in range(0, t, length):
        part, window = slice(begin, begin + length), slice(begin, begin + length + 2 * net.PHASES)
        here = lost[part]
        if here.any():
            expected = _expected(prior.params, tokens[window], known[window], prior.config, digits)
            expected = np.asarray(expected)[net.PHASES :][: len(here), ..., :digits]
            levels[part] = np.where(here[..., None], expected, levels[part])
        if progress:
            progress(len(here))
    return levels


@functools.partial(jax.jit, static_argnames=("config", "sent"))
def _expected(params, digits, known, config, sent):
    """Mean of every digit: float32[t, h, w, k], given the first ``sent`` digits of the tokens that are known."""
    known = known[..., None] & (jnp.arange(config.digits, dtype=jnp.int32) < sent)[None, None, None]
    return net.expectation(net.masked_logits(params, digits[None], known[None], config)[0])
