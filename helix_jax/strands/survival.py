"""How many repair packets a pool needs to outlive what is expected of it.

The model: a strand is lost outright with probability ``loss``; what is left is read a Poisson number of times, and n
reads do not suffice with a probability that ``eval.recovery`` measures for each error rate (``UNREAD``). So packets are
erased independently with one probability, and a block comes back unless more are missing than it has repair packets,
but for ``packets.SPARE`` that RaptorQ wants on top.
"""

from dataclasses import dataclass

from scipy import stats

from helix_jax.errors import HelixError

# share of strands that n = 0, 1, 2, .. reads leave unread, by the reads' errors per base (a third each substituted,
# inserted, deleted; no qualities): (k + 1) / 1001 for k of 1000 strands of 150 nt in `helix`. python -m eval.recovery
UNREAD = {
    0.001: (1.0, 0.033, 0.001),
    0.01: (1.0, 0.4945, 0.008, 0.001),
    0.02: (1.0, 0.8172, 0.0969, 0.001),
    0.05: (1.0, 0.998, 0.8392, 0.036, 0.001),
    0.1: (1.0, 1.0, 0.999, 0.6164, 0.1099, 0.03, 0.001),
}
MOST_COPIES = 1000


@dataclass(frozen=True)
class Survival:
    """What a pool must outlive. loss: share of strands lost outright. coverage: mean reads of a strand that is left.
    errors: per base of a read. failure: probability that it does not come back, at most.

    Raises ValueError, naming the value, for what cannot be.
    """

    loss: float = 0.0
    coverage: float = 10.0
    errors: float = 0.04
    failure: float = 1e-6

    def __post_init__(self):
        for name, low, high in (("loss", 0, 0.9), ("coverage", 0.1, MOST_COPIES), ("errors", 0, max(UNREAD))):
            if not low <= getattr(self, name) <= high:
                raise HelixError(f"{name} {getattr(self, name):g}: give {low:g} to {high:g}")
        if not 1e-15 <= self.failure < 1:
            raise HelixError(f"failure {self.failure:g}: a probability, 1e-15 at least, for example 1e-6")

    @property
    def erasure(self):
        """Probability that a packet is missing. Error rates between those measured count as the next higher one."""
        unread = UNREAD[min(rate for rate in UNREAD if rate >= self.errors - 1e-12)]
        few = sum(stats.poisson.pmf(n, self.coverage) * share for n, share in enumerate(unread))
        many = stats.poisson.sf(len(unread) - 1, self.coverage) * unread[-1]
        return float(self.loss + (1 - self.loss) * (few + many))

    def repairs(self, sources, blocks=1):
        """Repair packets of each of ``blocks`` blocks of ``sources`` source packets, those for RaptorQ left out.

        Raises ValueError where more than a hundred times the sources would be needed.
        """
        erasure, allowed = self.erasure, self.failure / blocks
        low, high = 0, 100 * sources + 100
        if stats.binom.sf(high, sources + high, erasure) > allowed:
            raise HelixError(
                f"{erasure:.0%} of the strands would be missing at coverage {self.coverage:g}, {self.errors:.1%} "
                f"errors and {self.loss:.0%} lost: no redundancy outlives that; more reads are needed"
            )
        while low < high:
            middle = (low + high) // 2
            if stats.binom.sf(middle, sources + middle, erasure) > allowed:
                low = middle + 1
            else:
                high = middle
        return low
