"""Which digits are hidden: the mixture of patterns that the prior is trained on.

A mask is ``known``, bool[t, h, w, k]; pure functions of a key, one example at a time (``vmap`` maps them).
"""

import jax
import jax.numpy as jnp
import numpy as np

from helix_jax.config import MixingConfig
from helix_jax.tk_scone import mixing

TOKENS_PER_STRAND = 4  # in a crop: of the 16 that 150 nt carry, the others lie elsewhere in the picture


def _uniform(key, shape=()):
    return jax.random.uniform(key, shape, jnp.float32)


def _whole(key, low, high):
    return jax.random.randint(key, (), low, high, jnp.int32)


def cosine_ratio(key):
    """Mask ratio in (0, 1): the cosine schedule of MaskGIT (Chang et al. 2022), which favours much hidden."""
    return jnp.cos(jnp.pi / 2 * _uniform(key))


def tokens(key, shape):
    """Single tokens, a cosine ratio of them hidden: bool[t, h, w], True where known."""
    key_ratio, key_which = jax.random.split(key)
    return _uniform(key_which, shape) >= cosine_ratio(key_ratio)


def strands(key, shape, least=0.0, most=0.7):
    """Whole strands, as the mixing deals tokens out to them; the share that is lost lies between the two."""
    order = mixing.token_order(shape, TOKENS_PER_STRAND, MixingConfig())
    strand = np.argsort(order.reshape(-1))[: np.prod(shape)] // TOKENS_PER_STRAND
    key_ratio, key_which = jax.random.split(key)
    lost = _uniform(key_which, (len(order),)) < jax.random.uniform(key_ratio, (), jnp.float32, least, most)
    return ~lost[strand].reshape(shape)


def tiles(key, shape):
    """A box of space and time hidden."""
    known = jnp.zeros(shape, bool)
    for axis, size in enumerate(shape):
        key, key_length, key_start = jax.random.split(key, 3)
        length = _whole(key_length, max(1, size // 4), max(2, size * 3 // 4) + 1)
        start = _whole(key_start, 0, size - length + 1)
        place = jnp.arange(size, dtype=jnp.int32).reshape([-1 if a == axis else 1 for a in range(3)])
        known |= (place < start) | (place >= start + length)
    return known


def frames(key, shape):
    """Whole latent frames hidden, each with even odds."""
    return jnp.broadcast_to(jax.random.bernoulli(key, jnp.float32(0.5), (shape[0], 1, 1)), shape)


PATTERNS = (tokens, strands, tiles, frames)
SHARES = (0.4, 0.25, 0.15, 0.2)


def mixture(key, shape):
    """One pattern by its share: (known bool[t, h, w, k], sent bool[k], which digits tokens have at all).

    In three of ten examples the hidden tokens keep their first digits, any number of them; in two of ten all tokens
    lack their last digits.
    """
    *grid, k = shape
    key_which, key_pattern, key_first, key_number, key_last, key_count = jax.random.split(key, 6)
    which = jax.random.choice(key_which, len(PATTERNS), p=jnp.asarray(SHARES, jnp.float32))
    # Only one is taken, but under vmap JAX selects operands for each, which its check for keys used twice would count.
    patterns = [lambda raw, f=f: f(jax.random.wrap_key_data(raw), tuple(grid)) for f in PATTERNS]
    known = jax.lax.switch(which, patterns, jax.random.key_data(key_pattern))
    place = jnp.arange(k, dtype=jnp.int32)
    first = jnp.where(_uniform(key_first) < 0.3, _whole(key_number, 1, k), 0)
    count = jnp.where(_uniform(key_last) < 0.2, _whole(key_count, 1, k), k)
    sent = place < count
    return (known[..., None] | (place < first)[None, None, None]) & sent[None, None, None], sent
