"""How many reads of a pool would be enough, judged by those that came.

Each strand gets a number of reads from a negative binomial law (Poisson numbers about a gamma-distributed rate), except
for a share of the strands that is gone from the sample. n reads of a strand give it with a probability that
``strands.survival`` tells for the error rate, and this run's own clusters correct. Dispersion and share are those of
maximum likelihood. More reads raise the mean; a block of the outer code comes back once few enough of its packets are
missing, which is a binomial tail.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

from helix_jax.strands import survival
from helix_jax.strands.layouts import SPARE, PacketLayout

SURE = 0.9  # probability with which the whole pool comes back
MOST = 100.0  # times as many reads: beyond that no number is named
PRIOR = 4.0  # clusters that the measured table counts as, beside those of this run
DIGITS = 2  # of the number of reads that is named
_SHAPES = np.geomspace(0.3, 300, 40)  # of the gamma law; 300 is almost Poisson
_SHARES = 24  # shares of strands gone that are tried
_GAIN = 4.0  # nats by which strands that are gone must explain the numbers better than none do
_FINE = 400  # numbers of reads that are tried, a geometric series


@dataclass(frozen=True)
class Estimate:
    """How many reads would be enough.

    Attributes:
        reads: Reads of this kind with which the pool comes back in nine of ten cases; None where no number would do.
        gone: Share of the strands that seem to be missing from the sample, however much of it is read.
    """

    reads: int | None
    gone: float

    def remedy(self, came: int) -> str:
        """Return what to say where ``came`` reads were too few, for error messages."""
        if self.reads is None:
            return (
                f"more reads alone would not be enough: about {self.gone:.0%} of the strands seem to be missing from "
                "the sample, so sequence another sample, or what is left of the pool"
                if self.gone
                else "many more reads are needed, or reads with fewer errors"
            )
        if not self.more(came):
            return "a few more reads are needed: by their number these would usually have been enough"
        return f"about {self.more(came):,} more reads would be enough"

    def more(self, came: int) -> int:
        """Return how many reads are missing beside ``came`` ones, rounded up; 0 where ``reads`` is None."""
        if self.reads is None or self.reads <= came:
            return 0
        step = 10 ** max(0, len(str(self.reads - came)) - DIGITS)
        return -(-(self.reads - came) // step) * step


def estimate(
    layout: PacketLayout,
    read: Integer[np.ndarray, " n"] | Sequence[int],
    unread: Integer[np.ndarray, " m"] | Sequence[int],
    *,
    reads: int,
    errors: float,
    complete: bool,
) -> Estimate:
    """Estimate how many reads would be enough for every block of a pool.

    Args:
        layout: The layout of the pool.
        read: The reads of each packet that came back.
        unread: The reads of each cluster that gave no strand.
        reads: All reads, the unusable ones too.
        errors: Errors per base of the reads.
        complete: Whether everything was tried with the clusters that gave no strand; otherwise more of them might
            give one.

    Returns:
        The estimate.
    """
    solved, failed = (np.bincount(np.asarray(sizes, np.int64)).astype(float) for sizes in (read, unread))
    size = max(len(solved), len(failed), max(map(len, survival.UNREAD.values())) + 1)
    solved, failed = (np.pad(counts, (0, size - len(counts))) for counts in (solved, failed))
    missing = max(layout.packets - solved.sum(), 0.0)
    failed *= min(1.0, missing / max(failed.sum(), 1e-9))  # what is more than the strands that are missing is no strand
    chance = _chance(errors, size)
    own = (solved + PRIOR * chance) / (solved + failed + PRIOR)
    chance = np.maximum.accumulate(own if complete else np.maximum(own, chance))
    if not complete:
        solved, failed = solved + failed * chance, failed * (1 - chance)
    if not solved.sum():
        return Estimate(None, 0.0)
    mean = float(np.sum((solved + failed) * np.arange(size)) / layout.packets)
    shape, gone, others = _fitted(solved, layout.packets, mean, chance)
    seen = 1 - solved.sum() / layout.packets
    told = max(seen / max(_missing(others, shape, gone, chance), 1e-12), 1.0) if complete else 1.0
    blocks = np.array([layout.block_sources, layout.block_repairs])
    factors = np.geomspace(1 / MOST, MOST, _FINE).tolist()
    first = bisect.bisect_left(
        factors, True, key=lambda factor: _sure(blocks, min(1.0, told * _missing(factor * others, shape, gone, chance)))
    )
    return Estimate(math.ceil(factors[first] * reads) if first < _FINE else None, gone)


def _chance(errors: float, size: int) -> Float64[np.ndarray, " {size}"]:
    """Return the probability that n reads give their strand, n = 0, 1, .. size - 1.

    It was measured at some error rates, and is linear in their logarithm between them.
    """
    rates = sorted(survival.UNREAD)
    rows = [np.array(survival.UNREAD[rate][:size]) for rate in rates]
    table = np.array([np.pad(row, (0, size - len(row)), mode="edge") for row in rows])
    at = np.interp(np.log(max(errors, rates[0])), np.log(rates), np.arange(len(rates)))
    low = min(int(at), len(rates) - 2)
    return 1 - (table[low] + (at - low) * (table[low + 1] - table[low]))


def _law(mean, shape, numbers):
    """Return the probability of these numbers of reads of a strand that is not gone; arrays of laws broadcast."""
    from scipy import stats  # as in ``survival``

    return stats.nbinom.pmf(numbers, shape, shape / (shape + mean))


def _missing(others, shape, gone, chance):
    """Return the probability that a packet is missing: gone, or read too few times at a mean of ``others`` reads."""
    few = np.flatnonzero(chance < chance[-1])
    return gone + (1 - gone) * (np.sum(_law(others, shape, few) * (chance[-1] - chance[few]), axis=-1) + 1 - chance[-1])


def _fitted(solved, packets, mean, chance):
    """Return the shape of the gamma law, the share of strands gone, and the mean reads of the others.

    They are those of maximum likelihood on a grid. ``mean`` counts the strands that are gone.
    """
    missing = packets - solved.sum()
    most = 0.98 * missing / packets
    shares = np.linspace(0, most, _SHARES) if most > 0 else np.zeros(1)
    gone, shape = (grid[..., None] for grid in np.meshgrid(shares, _SHAPES, indexing="ij"))
    others = np.broadcast_to(mean / (1 - gone), shape.shape)
    came = np.flatnonzero(solved)
    law = np.log(np.maximum(_law(others, shape, came) * chance[came] * (1 - gone), 1e-300))
    lost = _missing(others, shape, gone[..., 0], chance)
    likely = np.sum(law * solved[came], axis=-1) + missing * np.log(np.maximum(lost, 1e-300))
    best = np.unravel_index(np.argmax(likely), likely.shape)
    if likely[best] - likely[0].max() < _GAIN:
        best = (0, int(np.argmax(likely[0])))
    return float(_SHAPES[best[1]]), float(shares[best[0]]), float(others[*best, 0])


def _sure(blocks: Int64[np.ndarray, "2 b"], missing: float) -> bool:
    """Return whether all blocks of (sources, repairs) come back with probability ``SURE``."""
    from scipy import stats

    sources, repairs = blocks
    return bool(np.prod(stats.binom.cdf(np.maximum(repairs - SPARE, 0), sources + repairs, missing)) >= SURE)
