"""Which digits are hidden: the mixture of mask patterns that the prior is trained on.

A mask is True where a digit is known. All functions are pure functions of a key, for one example (``vmap`` maps them).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key

from helix_jax.config import MixingConfig
from helix_jax.tk_scone import mixing

PRNGKey = Key[Array, ""]
Mask = Bool[Array, "t h w"]

TOKENS_PER_STRAND = 4  # in a crop; the others of the 16 that 150 nt carry lie elsewhere in the picture


def _uniform(key: PRNGKey, shape: Sequence[int] = ()) -> Float32[Array, "..."]:
    return jax.random.uniform(key, shape, jnp.float32)


def _integer(key: PRNGKey, low: Int32[Array, ""] | int, high: Int32[Array, ""] | int) -> Int32[Array, ""]:
    return jax.random.randint(key, (), low, high, jnp.int32)


def cosine_ratio(key: PRNGKey) -> Float32[Array, ""]:
    """Draw a mask ratio in (0, 1) by the cosine schedule of MaskGIT (Chang et al. 2022), which favours high ratios."""
    return jnp.cos(jnp.pi / 2 * _uniform(key))


def tokens(key: PRNGKey, shape: Sequence[int]) -> Mask:
    """Hide single tokens; their share is a cosine ratio."""
    key_ratio, key_which = jax.random.split(key)
    return _uniform(key_which, shape) >= cosine_ratio(key_ratio)


def strands(key: PRNGKey, shape: Sequence[int], least: float = 0.0, most: float = 0.7) -> Mask:
    """Hide the tokens of whole strands, as the mixing distributes the tokens among them.

    Args:
        key: is consumed.
        shape: shape of the mask.
        least: least share of the strands that is lost.
        most: greatest share of the strands that is lost.
    """
    order = mixing.token_order(tuple(shape), TOKENS_PER_STRAND, MixingConfig())
    strand = np.argsort(order.reshape(-1))[: np.prod(shape)] // TOKENS_PER_STRAND
    key_ratio, key_which = jax.random.split(key)
    lost = _uniform(key_which, (len(order),)) < jax.random.uniform(key_ratio, (), jnp.float32, least, most)
    return ~lost[strand].reshape(shape)


def tiles(key: PRNGKey, shape: Sequence[int]) -> Mask:
    """Hide a box in space and time."""
    known = jnp.zeros(shape, bool)
    for axis, size in enumerate(shape):
        key, key_length, key_start = jax.random.split(key, 3)
        length = _integer(key_length, max(1, size // 4), max(2, size * 3 // 4) + 1)
        start = _integer(key_start, 0, size - length + 1)
        index = jnp.arange(size, dtype=jnp.int32).reshape([-1 if a == axis else 1 for a in range(3)])
        known |= (index < start) | (index >= start + length)
    return known


def frames(key: PRNGKey, shape: Sequence[int]) -> Mask:
    """Hide whole latent frames, each with probability one half."""
    return jnp.broadcast_to(jax.random.bernoulli(key, jnp.float32(0.5), (shape[0], 1, 1)), shape)


PATTERNS = (tokens, strands, tiles, frames)
SHARES = (0.4, 0.25, 0.15, 0.2)  # probability of each pattern


def mixture(
    key: PRNGKey, shape: Sequence[int], *, full_share: float = 0.8, min_digits: int = 1
) -> tuple[Bool[Array, "t h w k"], Bool[Array, " k"]]:
    """Draw one of the patterns, each with its share of the probability.

    In three of ten examples the hidden tokens keep a random number of their first digits.

    Args:
        key: is consumed.
        shape: shape of the mask.
        full_share: share of the examples whose tokens have all digits; those of the others lack a random number of
            their last digits.
        min_digits: least number of digits that they have.

    Returns:
        The mask of the known digits for a grid of tokens of ``shape`` = (t, h, w, k), and the mask of the digits that
        the tokens have at all.
    """
    *grid, k = shape
    key_which, key_pattern, key_first, key_number, key_last, key_count = jax.random.split(key, 6)
    which = jax.random.choice(key_which, len(PATTERNS), p=jnp.asarray(SHARES, jnp.float32))
    # Only one pattern is used, but under vmap JAX selects operands for each, and its check for reused keys counts all.
    patterns = [lambda raw, f=f: f(jax.random.wrap_key_data(raw), tuple(grid)) for f in PATTERNS]
    known = jax.lax.switch(which, patterns, jax.random.key_data(key_pattern))
    index = jnp.arange(k, dtype=jnp.int32)
    first = jnp.where(_uniform(key_first) < 0.3, _integer(key_number, 1, k), 0)
    count = jnp.where(_uniform(key_last) < 1 - full_share, _integer(key_count, min_digits, k), k)
    sent = index < count
    return (known[..., None] | (index < first)[None, None, None]) & sent[None, None, None], sent
