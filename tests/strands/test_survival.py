"""How much redundancy a target takes: the model against counting, and against pools that lose strands at random."""

import itertools
import math

import numpy as np
import pytest

from helix_jax.config import Survival
from helix_jax.strands import layouts, outer, survival
from helix_jax.strands.survival import UNREAD


def failing(sources, repairs, erasure):
    """Probability that more packets are missing than there are repairs, summed term by term."""
    n = sources + repairs
    return sum(math.comb(n, k) * erasure**k * (1 - erasure) ** (n - k) for k in range(repairs + 1, n + 1))


def test_the_table_is_of_probabilities_that_fall_with_reads_and_rise_with_errors():
    rates = sorted(UNREAD)
    assert rates == list(UNREAD)
    for rate in rates:
        shares = UNREAD[rate]
        assert shares[0] == 1.0
        assert all(0 < after <= before <= 1 for before, after in itertools.pairwise(shares))
    for low, high in itertools.pairwise(rates):
        assert survival.erasure(Survival(coverage=3, errors=low)) < survival.erasure(Survival(coverage=3, errors=high))


def test_erasure_by_drawing():
    target = Survival(loss=0.1, coverage=4, errors=0.05)
    generator = np.random.default_rng(0)
    reads = np.where(generator.random(200_000) < 0.1, 0, generator.poisson(4, 200_000))
    shares = np.array(UNREAD[0.05])
    drawn = shares[np.minimum(reads, len(shares) - 1)].mean()
    assert survival.erasure(target) == pytest.approx(drawn, abs=0.003)


def test_error_rates_between_those_measured_count_as_the_next_higher():
    low, high = sorted(UNREAD)[-2:]
    between = (low + high) / 2
    assert survival.erasure(Survival(errors=between)) == survival.erasure(Survival(errors=high))
    assert survival.erasure(Survival(errors=low)) < survival.erasure(Survival(errors=high))


@pytest.mark.parametrize("sources", [1, 10, 100])
@pytest.mark.parametrize("failure", [0.5, 1e-2, 1e-6])
def test_the_fewest_repairs_that_do(sources, failure):
    target = Survival(loss=0.05, coverage=8, errors=0.05, failure=failure)
    repairs = survival.repairs(target, sources)
    assert failing(sources, repairs, survival.erasure(target)) <= failure
    assert repairs == 0 or failing(sources, repairs - 1, survival.erasure(target)) > failure


def test_blocks_share_the_failure():
    target = Survival(loss=0.05, failure=1e-3)
    repairs = survival.repairs(target, 200, blocks=50)
    assert failing(200, repairs, survival.erasure(target)) <= 1e-3 / 50
    assert repairs > survival.repairs(target, 200)


def test_a_planned_pool_fails_as_seldom_as_asked_and_one_with_less_oftener():
    target = Survival(loss=0.2, coverage=6, errors=0.05, failure=0.05)
    layout = layouts.plan(287, 3000, target)
    repairs = layout.repairs - layouts.SPARE
    assert layout.repairs == layouts.repairs_of(target, layout.sources)
    generator = np.random.default_rng(1)
    payload = generator.bytes(layout.payload_bytes)
    symbols = outer.encode(layout, payload)
    failed = []
    for _ in range(200):
        kept = np.flatnonzero(generator.random(layout.packets) >= survival.erasure(target))
        found = outer.decode(layout, kept, symbols[kept], outer.matching(outer.payload_digest(payload)))
        failed.append(not found.verified)
    # 5 % of 200 are 10; twice as many are drawn once in 500
    assert sum(failed) <= 20
    half = repairs // 2
    assert np.mean(generator.binomial(layout.sources + half, survival.erasure(target), 200) > half) > 0.2


def test_what_cannot_be_is_refused():
    for fields, words in (
        ({"loss": 1.0}, "loss 1: give 0 to 0.9"),
        ({"coverage": 0.0}, "coverage 0: give 0.1"),
        ({"errors": 0.5}, "errors 0.5: give 0 to"),
        ({"failure": 0.0}, "failure 0: a probability"),
        ({"failure": 1.0}, "failure 1: a probability"),
        ({"coverage": math.nan}, "coverage nan"),
    ):
        with pytest.raises(ValueError, match=words):
            Survival(**fields)
    with pytest.raises(ValueError, match="more reads are needed"):
        survival.repairs(Survival(coverage=0.1, errors=0.05), 10)
