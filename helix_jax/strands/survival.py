"""How many repair packets a pool needs to outlive what is expected of it.

The model: a strand is lost outright with probability ``loss``; the remaining strands are read a Poisson number of
times, and n reads do not suffice with a probability that ``eval.recovery`` measures for each error rate (``UNREAD``).
So packets are erased independently with one probability, and a block comes back unless more packets are missing than it
has repair packets, apart from the ``layouts.SPARE`` that RaptorQ needs on top.
"""

from helix_jax.config import MOST_ERRORS, Survival
from helix_jax.errors import HelixError

# The share of strands that n = 0, 1, 2, .. reads leave unread, by the reads' errors per base (a third each substituted,
# inserted, deleted; no qualities): (k + 1) / 1001 for k of 1000 strands of 150 nt in `helix`. It is measured by
# python -m eval.recovery.
UNREAD = {
    0.001: (1.0, 0.033, 0.001),
    0.01: (1.0, 0.4945, 0.008, 0.001),
    0.02: (1.0, 0.8172, 0.0969, 0.001),
    0.05: (1.0, 0.998, 0.8392, 0.036, 0.001),
    MOST_ERRORS: (1.0, 1.0, 0.999, 0.6164, 0.1099, 0.03, 0.001),
}


def unread(errors: float | int) -> tuple[float, ...]:
    """Return the share of strands that n = 0, 1, 2, .. reads leave unread; further reads leave as many as the last.

    An error rate between those measured counts as the next higher one.
    """
    return UNREAD[min(rate for rate in UNREAD if rate >= errors - 1e-12)]


def erasure(survival: Survival) -> float:
    """Return the probability that a packet is missing."""
    from scipy import stats  # the import takes over a second, and few pools need it

    shares = unread(survival.errors)
    few = sum(stats.poisson.pmf(n, survival.coverage) * share for n, share in enumerate(shares))
    many = stats.poisson.sf(len(shares) - 1, survival.coverage) * shares[-1]
    return float(survival.loss + (1 - survival.loss) * (few + many))


def repairs(survival: Survival, sources: int, blocks: int = 1) -> int:
    """Return the repair packets of each block, apart from those that RaptorQ needs on top.

    Args:
        survival: What the pool must outlive.
        sources: Source packets of a block.
        blocks: Number of blocks.

    Returns:
        The number of repair packets.

    Raises:
        HelixError: Where more than a hundred times the sources would be needed.
    """
    missing = erasure(survival)
    try:
        return enough(missing, survival.failure / blocks, sources)
    except HelixError as error:
        raise HelixError(
            f"{missing:.0%} of the strands would be missing at coverage {survival.coverage:g}, {survival.errors:.1%} "
            f"errors and {survival.loss:.0%} lost: no redundancy outlives that; more reads are needed"
        ) from error


def enough(missing: float | int, allowed: float | int, sources: int) -> int:
    """Return the least number of repair packets with which a block outlives the loss of its packets.

    Args:
        missing: The probability that a packet is missing.
        allowed: The highest probability that more packets are missing than there are repair packets.
        sources: Source packets of the block.

    Returns:
        The number of repair packets.

    Raises:
        HelixError: Where more than a hundred times the sources would be needed.
    """
    from scipy import stats

    low, high = 0, 100 * sources + 100
    if stats.binom.sf(high, sources + high, missing) > allowed:
        raise HelixError(f"no redundancy outlives the loss of {missing:.0%} of the packets")
    while low < high:
        middle = (low + high) // 2
        if stats.binom.sf(middle, sources + middle, missing) > allowed:
            low = middle + 1
        else:
            high = middle
    return low
