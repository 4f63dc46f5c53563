"""Concealment: lost tokens become what the masked prior expects or, without a prior, copies of the nearest tokens.

The decoder of the tokenizer accepts values between levels, so a lost digit becomes its mean under the prior, which is
the best guess for the squared error. One pass is enough: filling in the surest tokens first, so that later passes can
use them (MaskGIT: Chang et al. 2022), makes no better pictures (docs/prior.md).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, UInt8

from helix_jax.config import PriorConfig
from helix_jax.prior import net
from helix_jax.prior.weights import Prior


def fill_lost(
    tokens: UInt8[np.ndarray, "t h w k"],
    lost: Bool[np.ndarray, "t h w"],
    prior: Prior | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> UInt8[np.ndarray, "t h w k"] | Float32[np.ndarray, "t h w k"]:
    """Fill lost tokens with values for the tokenizer's decoder.

    Args:
        tokens: All digits that the prior has, or the first of them.
        lost: Mask of the lost tokens.
        prior: If there is one, the values are those of ``expected``, else those of ``copied``.
        progress: Called with the number of latent frames that have just been filled in, by ``expected`` alone.
    """
    return copied(tokens, lost) if prior is None else expected(tokens, lost, prior, progress=progress)


def expected(
    tokens: UInt8[np.ndarray, "t h w k"],
    lost: Bool[np.ndarray, "t h w"],
    prior: Prior,
    *,
    progress: Callable[[int], None] | None = None,
) -> Float32[np.ndarray, "t h w k"]:
    """Fill lost tokens with what the prior expects.

    The clip is taken in windows of as many latent frames as the prior sees, with a group on either side, so that the
    prior has something to go by where a whole segment is lost. What lies beyond the clip counts as lost. The results
    are floats, and so not the same on every machine; only pixels depend on them.

    Args:
        tokens: All digits that the prior has, or the first of them.
        lost: Mask of the lost tokens.
        prior: The prior.
        progress: Called with the number of latent frames that have just been filled in.

    Returns:
        Levels for the tokenizer's decoder: the digits of the tokens that are not lost, and real values in [0, 3].
    """
    length, (t, *_, digits) = prior.config.frames, tokens.shape
    levels = tokens.astype(np.float32)
    pad = [(net.PHASES, -t % length + net.PHASES), (0, 0), (0, 0)]
    tokens, mask = np.pad(tokens, [*pad, (0, prior.config.digits - digits)]), np.pad(~lost, pad)
    for begin in range(0, t, length):
        part, window = slice(begin, begin + length), slice(begin, begin + length + 2 * net.PHASES)
        here = lost[part]
        if here.any():
            means = _expected(prior.params, tokens[window], mask[window], prior.config, digits)
            means = np.asarray(means)[net.PHASES :][: len(here), ..., :digits]
            levels[part] = np.where(here[..., None], means, levels[part])
        if progress:
            progress(len(here))
    return levels


@functools.partial(jax.jit, static_argnames=("config", "sent"))
def _expected(
    params: dict, digits: UInt8[Array, "t h w k"], mask: Bool[Array, "t h w"], config: PriorConfig, sent: int
) -> Float32[Array, "t h w k"]:
    """Mean of every digit, given the first ``sent`` digits of the tokens in the mask."""
    mask = mask[..., None] & (jnp.arange(config.digits, dtype=jnp.int32) < sent)[None, None, None]
    return net.expectation(net.masked_logits(params, digits[None], mask[None], config)[0])


def copied(tokens: UInt8[np.ndarray, "t h w k"], lost: Bool[np.ndarray, "t h w"]) -> UInt8[np.ndarray, "t h w k"]:
    """Replace every lost token by the nearest kept one, along time first, then along rows, then along columns.

    If all tokens are lost, all digits of the new array are 1, which is mid grey as nearly as a digit can say it.
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


def _last_kept(kept: Bool[np.ndarray, "t h w"], axis: int, backwards: bool) -> Int[np.ndarray, "t h w"]:
    """Index along ``axis`` of the last kept token at or before each position (-1: none), or of the next one if
    ``backwards``."""
    index = np.arange(kept.shape[axis]).reshape([-1 if a == axis else 1 for a in range(kept.ndim)])
    if backwards:
        index = np.where(kept, index, kept.shape[axis])
        source = np.flip(np.minimum.accumulate(np.flip(index, axis), axis=axis), axis)
        return np.where(source == kept.shape[axis], -1, source)
    return np.maximum.accumulate(np.where(kept, index, -1), axis=axis)
