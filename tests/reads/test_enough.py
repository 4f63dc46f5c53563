"""How many reads would be enough: the advice is taken, in draws of the model and from real recovery (slow)."""

import numpy as np
import pytest

from helix_jax.reads import enough
from helix_jax.strands import layouts, survival

HIGH, LOW = 0.05, 0.001  # errors per base, of which survival has a row each


def layout_of(sources, redundancy):
    return layouts.plan(250, sources * 27, redundancy)


class Sample:
    """A pool of which each strand has its own rate, some none; reads are added to those that came."""

    def __init__(self, layout, errors, skew=0.0, gone=0.0, seed=0):
        self.draw, self.layout, self.errors = np.random.default_rng(seed), layout, errors
        self.rate = np.exp(skew * self.draw.normal(size=layout.packets) - skew**2 / 2)
        self.rate *= self.draw.random(layout.packets) >= gone
        self.luck = self.draw.random(layout.packets)
        self.copies = np.zeros(layout.packets, int)

    def add(self, reads):
        self.copies += self.draw.poisson(reads / self.rate.sum() * self.rate)

    @property
    def read(self):
        unread = np.array(survival.unread(self.errors))
        return self.luck >= unread[np.minimum(self.copies, len(unread) - 1)]

    @property
    def whole(self):
        return np.sum(~self.read) <= self.layout.block_repairs[0]

    def estimate(self, complete=True):
        unread = self.copies[~self.read & (self.copies > 0)]
        # reads that joined no cluster, as there are always some
        strays = np.ones(len(self.rate) // 20, int)
        return enough.estimate(
            self.layout, self.copies[self.read], np.append(unread, strays), reads=int(self.copies.sum()),
            errors=self.errors, complete=complete,
        )  # fmt: skip


@pytest.mark.parametrize(("sources", "redundancy"), [(60, 0.3), (600, 0.1), (3000, 0.2)])
@pytest.mark.parametrize(("errors", "skew", "coverage"), [(LOW, 0.3, 1), (LOW, 0.8, 1.2), (HIGH, 0.3, 2.5)])
def test_the_advice_is_enough_in_most_draws_and_half_of_it_is_not(sources, redundancy, errors, skew, coverage):
    layout, done, half = layout_of(sources, redundancy), [], []
    for seed in range(16):
        samples = [Sample(layout, errors, skew, seed=seed) for _ in range(2)]
        for sample in samples:
            sample.add(coverage * layout.packets)
        if samples[0].whole:
            continue
        came = int(samples[0].copies.sum())
        more = samples[0].estimate().more(came)
        assert more > 0
        samples[0].add(more)
        samples[1].add(more / 2)
        done.append(samples[0].whole)
        half.append(samples[1].whole)
    assert len(done) >= 8
    assert np.mean(done) >= 0.7
    assert np.mean(half) < np.mean(done) - 0.2


def test_strands_that_are_gone_are_found_out():
    sample = Sample(layout_of(300, 0.1), HIGH, skew=0.3, gone=0.2)
    sample.add(3000)
    few = sample.estimate()
    assert few.reads is None
    assert few.gone == pytest.approx(np.mean(sample.rate == 0), abs=0.03)
    assert "more reads alone would not be enough" in few.remedy(3000)
    assert f"{few.gone:.0%} of the strands" in few.remedy(3000)
    # what the repair packets replace is no hindrance
    spared = Sample(layout_of(300, 0.5), HIGH, skew=0.3, gone=0.2)
    spared.add(3000)
    assert spared.whole
    assert spared.estimate().reads < 3000


def test_a_pool_that_came_back_tells_how_many_would_have_been_enough():
    layout = layout_of(300, 0.2)
    deep, narrow = (Sample(layout, HIGH) for _ in range(2))
    deep.add(20 * layout.packets)
    narrow.add(5.2 * layout.packets)
    assert deep.whole
    told = deep.estimate(complete=False).reads
    assert deep.estimate(complete=False).more(int(deep.copies.sum())) == 0
    # so many are enough, as ``survival`` plans them too, and two thirds of them are not
    for share, expected in ((1.0, True), (0.67, False)):
        again = [Sample(layout, HIGH, seed=seed) for seed in range(20)]
        for sample in again:
            sample.add(share * told)
        assert bool(np.mean([sample.whole for sample in again]) >= 0.7) is expected
    assert narrow.estimate(complete=False).reads == pytest.approx(told, rel=0.15)


def test_reads_of_something_else_do_not_make_it_hopeless():
    """Clusters of another pool give no strand, however many reads they have."""
    sample = Sample(layout_of(300, 0.1), HIGH)
    sample.add(3 * sample.layout.packets)
    unread = sample.copies[~sample.read & (sample.copies > 0)]
    few = enough.estimate(
        sample.layout, sample.copies[sample.read], np.append(unread, np.full(2000, 8)),
        reads=int(sample.copies.sum()) + 16_000, errors=HIGH, complete=True,
    )  # fmt: skip
    assert few.reads is not None


def test_nothing_is_known_without_strands():
    none = np.zeros(0, int)
    few = enough.estimate(layout_of(50, 0.1), none, np.ones(80, int), reads=80, errors=0.1, complete=True)
    assert few == enough.Estimate(None, 0.0)
    assert few.remedy(80) == "many more reads are needed, or reads with fewer errors"


def test_no_redundancy_and_one_packet():
    for sources in (1, 40):
        sample = Sample(layout_of(sources, 0), LOW)
        sample.copies[: sources // 2] = 3
        sample.copies[0] = 3
        few = sample.estimate(complete=False)
        assert few.reads is None or few.reads > 0


@pytest.mark.parametrize(
    ("reads", "came", "more"),
    [(1000, 1000, 0), (900, 1000, 0), (1001, 1000, 1), (1349, 1000, 350), (23_456, 1, 24_000)],
)
def test_the_number_is_rounded_up(reads, came, more):
    few = enough.Estimate(reads, 0.0)
    assert few.more(came) == more
    number = f"about {more:,} more reads would be enough"
    few_more = "a few more reads are needed: by their number these would usually have been enough"
    assert few.remedy(came) == (number if more else few_more)
