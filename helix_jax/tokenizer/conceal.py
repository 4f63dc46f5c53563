"""Fill lost tokens from what is left: the previous latent frame first, then later frames, then neighbours.

A stand-in until the masked prior predicts them.
"""

import numpy as np


def fill_lost(tokens, lost):
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
