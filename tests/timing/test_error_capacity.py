"""Capacity with errors against other solvers, differences, closed forms, and the published curves."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.timing.capacity import (
    CapacityError,
    capacity,
    chain,
    index_capacity,
    letters_capacity,
    theorem_rate,
)
from helix_jax.timing.error_capacity import (
    capacity_gradient,
    capacity_with_errors,
    channel_capacity,
    root,
    symmetric_channels,
)
from helix_jax.timing.graph import TALK, GraphError, TimeTable

LOG3 = math.log2(3)
RING = TimeTable.parse("A->C{1} C->G{2} G->T{1} T->A{3}")  # one cycle of 7 units: capacity 0


@st.composite
def time_tables(draw, longest=6, levels=3):
    """Irreducible tables, some transitions missing; periods other than 1 occur."""
    times = st.sets(st.integers(1, longest), max_size=levels).map(lambda s: tuple(sorted(s)))
    rows = [[() if a == b else draw(times) for a in range(4)] for b in range(4)]
    order = draw(st.permutations(range(4)))
    for b, a in zip(order, order[1:] + order[:1], strict=True):
        if not rows[b][a]:
            rows[b][a] = (draw(st.integers(1, longest)),)
    return TimeTable(tuple(tuple(row) for row in rows))


def entropy(p):
    p = np.asarray(p)[np.asarray(p) > 0]
    return float(-(p * np.log2(p)).sum())


def bisect(falling, low=0.0, high=20.0):
    """Root of a falling function."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low


def log_root(matrix):
    """log2 of the spectral radius."""
    return math.log2(abs(np.linalg.eigvals(matrix)).max())


def every_transition(times):
    """float64[4, 4, levels] with the same, possibly real, times for all 12 transitions."""
    out = np.zeros((4, 4, len(times)))
    out[~np.eye(4, dtype=bool)] = times
    return out


def poisson(means, most):
    """Poisson laws float64[..., most + 1] by recurrence on logarithms; what is left goes to the last count."""
    counts = np.arange(most + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    means = np.asarray(means)[..., None]
    law = np.where(means > 0, np.exp(counts * np.log(np.where(means > 0, means, 1)) - means - logs), 0)
    law[..., -1] += (means[..., 0] > 0) * (1 - law.sum(-1))
    return law


def binomial(trials, p, most):
    """Binomial laws float64[..., most + 1] of an integer array of trials."""
    laws = [[math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(most + 1)] for n in np.ravel(trials).tolist()]
    return np.reshape(laws, (*np.shape(trials), most + 1))


# ---- jitted root ---------------------------------------------------------------------------------


def padded(table, levels=3):
    return np.pad(table.array(), ((0, 0), (0, 0), (0, levels - table.levels)))


@settings(max_examples=60)
@given(time_tables())
def test_root_in_single_precision(table):
    got = root(padded(table))
    assert got.dtype == jnp.float32
    assert math.log2(float(got)) == pytest.approx(capacity(table), abs=3e-6)


def test_root_in_double_precision_batched_and_spread():
    tables = [TALK, RING, *(TimeTable.uniform(t) for t in [(1,), (2, 3), (1, 2, 4), (7, 9, 30), (5,), (1, 60)])]
    stack = np.stack([padded(table) for table in tables])
    want = [2 ** capacity(table) for table in tables]
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.vmap(root)(stack), want, rtol=1e-11)
    # two of them on each of the eight devices
    spread = parallel.map_batches(
        lambda _, times: jax.vmap(root)(times), np.zeros(1), np.tile(stack, (2, 1, 1, 1)), batch=16
    )
    np.testing.assert_allclose(spread, want * 2, rtol=1e-6)


@settings(max_examples=20)
@given(time_tables())
def test_slope_of_the_root(table):
    """A little more time in every round costs capacity * alpha; in one level, by the share of its rounds."""
    c = chain(table)
    with jax.enable_x64(True):
        slope = jax.grad(lambda times: jnp.log2(root(times)))(padded(table).astype(np.float64))
    share = c.stationary[:, None, None] * c.probability
    np.testing.assert_allclose(slope[..., : table.levels], -c.capacity * c.alpha * share, atol=1e-8)
    assert np.asarray(slope).sum() == pytest.approx(-c.capacity * c.alpha, abs=1e-8)


def test_root_of_real_times():
    """The same times for all transitions, from the one-line equation 3 sum 2^(-R t) = 1."""
    means = np.array([5.298, 24.145, 56.955, 102.62, 162.36, 235.03])
    for overhead, copies in itertools.product((0, 2, 10), (1, 5, 20)):
        times = overhead + means / copies
        bits = bisect(lambda r, times=times: 3 * (2.0 ** (-r * times)).sum() - 1)
        assert math.log2(root(every_transition(times))) == pytest.approx(bits, rel=1e-5)


# ---- with errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "syndrome", "side", "decoder", "best"),
    [(0.02, 1.687, 1.724, 1.731, 1.733), (0.05, 1.574, 1.649, None, 1.668)],
)
def test_what_the_theorem_leaves_on_the_table(delta, syndrome, side, decoder, best):
    """Better and better ways to spend parity on one and the same chain, and the capacity above them."""
    c = chain(TALK)
    got = [theorem_rate(TALK, delta)]
    got.append(c.capacity / (1 + c.alpha * (1 - index_capacity(delta, 2)) / LOG3))
    # entropy of the level given what is read of it, in bits per round
    share = c.stationary[:, None, None] * c.probability
    read = share[..., None] * symmetric_channels(TALK, delta)
    unknown = entropy(read) - entropy(read.sum(2))
    got.append(c.capacity / (1 + c.alpha * unknown / LOG3))
    got.append(c.alpha * (c.bits_per_round - unknown))
    got.append(capacity_with_errors(TALK, symmetric_channels(TALK, delta)))
    assert got == sorted(got)
    assert got[-1] < c.capacity
    assert got[1] == pytest.approx(syndrome, abs=6e-4)
    assert got[2] == pytest.approx(side, abs=6e-4)
    assert decoder is None or got[3] == pytest.approx(decoder, abs=6e-4)
    assert got[4] == pytest.approx(best, abs=6e-4)
    if delta == 0.02:
        assert unknown == pytest.approx(0.0989, abs=6e-5)


@settings(max_examples=20)
@given(time_tables(levels=2), st.sampled_from([0.0, 1.5]))
def test_without_errors_it_is_the_capacity(table, overhead):
    """Any channel whose outputs tell the levels apart."""
    levels = table.levels
    apart = np.zeros((4, 4, levels, 2 * levels))
    apart[..., np.arange(levels), np.arange(levels)] = 0.3
    apart[..., np.arange(levels), 2 * levels - 1 - np.arange(levels)] = 0.7
    got = capacity_with_errors(table, apart, overhead=overhead)
    assert got == pytest.approx(capacity(table, overhead=overhead), abs=1e-9)


def test_levels_that_say_nothing_are_not_used():
    """Then only letters are left, each in its shortest time."""
    for table in (TALK, TimeTable.parse("A->C{2,3} A->G{1} C->A{1,4} G->A{5} G->T{1} T->A{1}")):
        nothing = np.full((4, 4, table.levels, 4), 0.25)
        assert capacity_with_errors(table, nothing) == pytest.approx(letters_capacity(table), abs=1e-9)


def best_of_two(times, channel, bits):
    """max over x of I(x; W) - bits * mean time for two levels, by ternary search in the probability of the second."""

    def gain(x):
        inputs = np.array([1 - x, x])
        output = inputs @ channel
        terms = channel * np.log2(np.where(channel > 0, channel / output, 1))
        return inputs @ terms.sum(1) - bits * inputs @ times

    low, high = 1e-15, 1 - 1e-15
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if gain(left) < gain(right) else (low, right)
    return gain((low + high) / 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_another_solver(seed):
    """Bisection in R around a ternary search for each pair: random channels, missing transitions, overhead."""
    draw = np.random.Generator(np.random.PCG64(seed))
    sparse = TimeTable.parse("A->C{1,2} C->G{1,4} G->T{2,3} T->A{1,2} A->G{2,5} G->A{1,3}")
    table = (TALK, sparse, TimeTable.uniform((2, 3)))[seed]
    overhead = float(seed)
    times = np.where(table.array() > 0, table.array() + overhead, 0.0)
    channels = draw.dirichlet(np.full(4, 0.4), size=(4, 4, 2))

    def growth(bits):
        weight = np.zeros((4, 4))
        for b, a in np.argwhere(times[..., 0] > 0):
            weight[b, a] = 2 ** best_of_two(times[b, a], channels[b, a], bits)
        return log_root(weight)

    low, high = 0.0, 3.0
    for _ in range(36):
        middle = (low + high) / 2
        low, high = (middle, high) if growth(middle) > 0 else (low, middle)
    assert capacity_with_errors(table, channels, overhead=overhead) == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize(
    ("law", "bits"),
    [
        (("poisson", 5), 1.647),
        (("poisson", 10), 1.752),
        (("poisson", 20), 1.887),
        (("poisson", 40), 1.972),
        (("poisson", 80), 1.997),
        ((0.7, 1), 1.633),
        ((0.7, 5), 1.828),
        ((0.7, 20), 1.984),
        ((0.9, 1), 1.791),
        ((0.9, 5), 1.989),
    ],
)
def test_unquantised_capacity(law, bits):
    """All times up to 8, the sum of the run lengths seen: timing.md, section 2.1."""
    table = TimeTable.uniform(range(1, 9))
    if law[0] == "poisson":
        channels = poisson(law[1] * table.array(), 1023)
    else:
        p, copies = law
        channels = binomial(copies * table.array(), p, 160)
        channels = np.pad(channels, [(0, 0)] * 3 + [(0, 1024 - 161)])  # one shape, one compilation
    assert capacity_with_errors(table, channels) == pytest.approx(bits, abs=6e-4)
    if law == ("poisson", 5):
        assert capacity_gradient(table, np.full((4, 4), law[1] / 5), 5)[0] == pytest.approx(bits, abs=6e-4)


def test_single_precision_batched_and_spread():
    deltas = [0.0, 0.005, 0.02, 0.05, 0.2, 0.5, 0.9, 1.0]
    channels = np.stack([symmetric_channels(TALK, delta) for delta in deltas])
    want = [capacity_with_errors(TALK, w) for w in channels]
    assert want[0] == pytest.approx(want[-1], abs=1e-9)
    got = parallel.map_batches(  # two of them on each of the eight devices
        lambda times, w: jax.vmap(functools.partial(channel_capacity, times))(w),
        TALK.array(), np.tile(channels, (2, 1, 1, 1, 1)), batch=16,
    )  # fmt: skip
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want * 2, atol=1e-5)


slope_in_the_channel = jax.jit(jax.value_and_grad(channel_capacity, argnums=1))


def test_slope_in_the_channel():
    """jax.grad against differences of the float64 capacity, for moves that keep the rows' sums."""
    draw = np.random.Generator(np.random.PCG64(5))
    channels = 0.01 + 0.96 * draw.dirichlet(np.full(4, 0.5), size=(4, 4, 2))
    _, slope = slope_in_the_channel(TALK.array().astype(np.float32), channels.astype(np.float32))
    with jax.enable_x64(True):
        exact = np.asarray(slope_in_the_channel(TALK.array().astype(np.float64), channels)[1])
    np.testing.assert_allclose(slope, exact, atol=2e-3 * abs(exact).max())
    for _ in range(4):
        move = draw.dirichlet(np.full(4, 1.0), size=(4, 4, 2)) - channels
        ends = [capacity_with_errors(TALK, channels + step * move) for step in (1e-5, -1e-5)]
        assert (exact * move).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)
    assert (exact[np.arange(4), np.arange(4)] == 0).all()


def test_slope_at_impossible_outputs_is_finite():
    """Run lengths over t never occur: a probability of 0 that stays 0."""

    def at(p):
        one = [[1 - p, p, 0, 0], [(1 - p) ** 2, 2 * p * (1 - p), p * p, 0]]
        return np.tile(np.array(one), (4, 4, 1, 1))

    value, slope = slope_in_the_channel(TALK.array().astype(np.float32), at(0.9).astype(np.float32))
    assert np.isfinite(slope).all()
    moving = np.array([[-1, 1, 0, 0], [-0.2, -1.6, 1.8, 0]])  # at(p) differentiated, at 0.9
    assert value == pytest.approx(capacity_with_errors(TALK, at(0.9)), abs=1e-5)
    ends = [capacity_with_errors(TALK, at(p)) for p in (0.9001, 0.8999)]
    assert (slope * moving[None, None]).sum() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3)


# ---- worth of longer runs ------------------------------------------------------------------------


@pytest.mark.parametrize(("copies", "most", "overhead"), [(1, 19, 0.0), (3, 6, 2.0)])
def test_capacity_gradient(copies, most, overhead):
    draw = np.random.Generator(np.random.PCG64(copies))
    mean = draw.uniform(1, most, (4, 4))
    value, gradient = capacity_gradient(TALK, mean, copies, overhead=overhead)
    laws = poisson(copies * mean[..., None] * TALK.array(), 400)
    assert value == pytest.approx(capacity_with_errors(TALK, laws, overhead=overhead), abs=2e-9)
    assert (gradient > -1e-12).all()  # longer runs are no harder to tell apart
    assert (gradient > 1e-4).sum() >= 6
    assert (np.diag(gradient) == 0).all()
    for b, a in [(0, 1), (3, 0), (2, 1), (1, 1)]:
        ends = []
        for step in (1e-3, -1e-3):
            moved = mean.copy()
            moved[b, a] += step
            ends.append(capacity_gradient(TALK, moved, copies, overhead=overhead)[0])
        assert gradient[b, a] == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-4, abs=1e-7)


def test_means_of_unused_transitions_are_not_read():
    table = TimeTable.parse("A->C{1,2} C->A{1,3} C->G{1,2} G->T{1} T->A{2,3}")
    mean = np.where(table.array().any(2), 4.0, np.nan)
    value, gradient = capacity_gradient(table, mean, 5)
    assert 0 < value < capacity(table)
    assert ((gradient > 1e-6) == (table.array() > 0).all(2)).all()  # a single level has nothing to tell apart
    assert (gradient > -1e-12).all()
    many, _ = capacity_gradient(table, 1000 * np.ones((4, 4)), 10)
    assert many == pytest.approx(capacity(table), abs=1e-9)


# ---- refused by name -----------------------------------------------------------------------------


def test_bad_numbers():
    with pytest.raises(GraphError, match="reducible: A and C do not lead to each other"):
        capacity_with_errors(TimeTable.parse("A->C{1,2} C->G{1,2} G->T{1} T->C{2}"), np.ones((4, 4, 2, 1)))
    for overhead in (-0.1, math.nan, math.inf):
        with pytest.raises(CapacityError, match=f"overhead {overhead}: give 0 or more"):
            capacity_with_errors(TALK, symmetric_channels(TALK, 0.1), overhead=overhead)
    with pytest.raises(CapacityError, match=r"delta 1\.1"):
        symmetric_channels(TALK, 1.1)


def test_bad_channels():
    good = symmetric_channels(TALK, 0.1)
    with pytest.raises(CapacityError, match=r"channels of shape \(4, 4, 2\): give \(4, 4, 2, 'outputs'\)"):
        capacity_with_errors(TALK, good[..., 0])
    for row in ([0.5, 0.4], [1.001, -0.001], [math.nan, 1.0]):
        bad = good.copy()
        bad[3, 2, 1] = row
        with pytest.raises(CapacityError, match="channel of T->G level 1: least probability"):
            capacity_with_errors(TALK, bad)
    rounded = good.copy()
    rounded[0, 1] = [[1 + 1e-16, -1e-16], [0, 1]]
    assert capacity_with_errors(TALK, rounded) > capacity_with_errors(TALK, good)
    ignored = good.copy()
    ignored[2, 2] = math.nan  # G->G is not in use
    assert capacity_with_errors(TALK, ignored) == capacity_with_errors(TALK, good)


def test_bad_run_lengths():
    with pytest.raises(CapacityError, match=r"shape \(4,\)"):
        capacity_gradient(TALK, np.ones(4), 5)
    for copies in (0, 2.5):
        with pytest.raises(CapacityError, match=f"{copies} copies"):
            capacity_gradient(TALK, np.ones((4, 4)), copies)
    for wrong in (0.0, -1.0, math.nan, math.inf, 1e9):
        mean = np.ones((4, 4))
        mean[1, 3] = wrong
        with pytest.raises(CapacityError, match=r"mean run length .* of C->T: give a number over 0"):
            capacity_gradient(TALK, mean, 5)


def test_symmetric_channels():
    table = TimeTable.parse("A->C{1,2,5} C->A{1} A->G{1,2} G->A{3}  C->T{1} T->A{1}")
    channels = symmetric_channels(table, 0.2)
    np.testing.assert_allclose(channels[0, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(channels[0, 2], [[0.8, 0.2, 0], [0.2, 0.8, 0], [0, 0, 0]])
    np.testing.assert_allclose(channels[1, 0], np.diag([1.0, 0, 0]))
    assert not channels[2, 3].any()


@pytest.mark.parametrize("overhead", [1000.0, 1e5])
def test_rounds_that_are_nearly_all_overhead(overhead):
    """Levels are free then: all of them alike, whatever their times. Precision is relative."""
    times = np.where(TALK.array() > 0, TALK.array() + overhead, 0)
    weights = TALK.array() > 0
    want = bisect(lambda bits: log_root(np.where(weights, 2.0 ** (-bits * times), 0).sum(2)), high=10 / overhead)
    assert want * overhead == pytest.approx(math.log2(6), rel=5 / overhead)
    assert capacity(TALK, overhead=overhead) == pytest.approx(want, rel=1e-11)
    assert capacity_with_errors(TALK, symmetric_channels(TALK, 0), overhead=overhead) == pytest.approx(want, rel=1e-10)
    got = channel_capacity(times.astype(np.float32), symmetric_channels(TALK, 0))
    assert got == pytest.approx(want, rel=1e-4)
