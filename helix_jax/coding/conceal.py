"""Lost tokens -> what the masked prior expects in their place or, without a prior, copies of the nearest tokens.

The decoder of the tokenizer accepts values between levels, so a lost digit becomes its mean under the prior, which is
the best guess for the squared error. One pass is enough: settling the surest tokens first, so that later passes can use
them (MaskGIT: Chang et al. 2022), makes no better pictures (docs/prior.md).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from helix_jax.prior import net


def fill_lost(tokens, lost, prior=None, *, progress=None):
    """Tokens with gaps -> values for the tokenizer's decoder: ``expected`` of the prior, else those ``copied``."""
    return copied(tokens, lost) if prior is None else expected(tokens, lost, prior, progress=progress)


def expected(tokens, lost, prior, *, progress=None):
    """Tokens with gaps -> levels for the tokenizer's decoder.

    tokens: uint8[t, h, w, digits], all digits that the prior knows or the first of them. lost: bool[t, h, w]. prior:
    prior.weights.Prior. progress: called with the number of latent frames just done.
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
            means = _expected(prior.params, tokens[window], known[window], prior.config, digits)
            means = np.asarray(means)[net.PHASES :][: len(here), ..., :digits]
            levels[part] = np.where(here[..., None], means, levels[part])
        if progress:
            progress(len(here))
    return levels


@functools.partial(jax.jit, static_argnames=("config", "sent"))
def _expected(params, digits, known, config, sent):
    """Mean of every digit: float32[t, h, w, k], given the first ``sent`` digits of the tokens that are known."""
    known = known[..., None] & (jnp.arange(config.digits, dtype=jnp.int32) < sent)[None, None, None]
    return net.expectation(net.masked_logits(params, digits[None], known[None], config)[0])


def copied(tokens, lost):
    """Copy the nearest kept token into every lost place, along time first, then across, then down.

    tokens: uint8[t, h, w, k]. lost: bool[t, h, w]. Returns a new array; all tokens lost gives level 1 everywhere
    (mid grey, as near as a digit comes).
    """
    tokens, kept = tokens.copy(), ~lost
    for axis in (0, 2, 1):
        for backwards in (False, True):
            if kept.all():
                return tokens
            source = _last_kept(kept, axis, backwards)
            take = ~kept & (source >= 0)
            filled = np.take_along_axis(tokens, np.maximum(source, 0)[..., None], axis=axis)
            tokens[take] = filled[take]
            kept = kept | take
    if not kept.all():
        tokens[~kept] = 1
    return tokens


def _last_kept(kept, axis, backwards):
    """Index along ``axis`` of the last kept place at or before each place (-1: none); from the end if backwards."""
    place = np.arange(kept.shape[axis]).reshape([-1 if a == axis else 1 for a in range(kept.ndim)])
    if backwards:
        place = np.where(kept, place, kept.shape[axis])
        source = np.flip(np.minimum.accumulate(np.flip(place, axis), axis=axis), axis)
        return np.where(source == kept.shape[axis], -1, source)
    return np.maximum.accumulate(np.where(kept, place, -1), axis=axis)
