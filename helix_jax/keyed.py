"""Keyed hash of counters: the pool's key makes the checks its own and the mixed digits uniform. It hides nothing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt64

from helix_jax.errors import HelixError


def stream(key: bytes, counters: Integer[np.ndarray, "..."] | Sequence[int]) -> UInt64[np.ndarray, "..."]:
    """Return a pseudo-random number for each counter; ``key`` has 8 bytes.

    They come from two rounds of the SplitMix64 finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014) over the counter and the hashed key. Raises HelixError for another key length.
    """
    if not isinstance(key, bytes) or len(key) != 8:
        raise HelixError(f"a pool's key is 8 bytes, not {key!r}")
    seed = _splitmix(np.frombuffer(key, ">u8").astype(np.uint64))
    return _splitmix(_splitmix(seed ^ np.asarray(counters).astype(np.uint64)))


def _splitmix(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
