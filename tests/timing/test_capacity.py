"""Capacity and the theorem against path counts, eigenvalues of G', closed forms, and the talk's figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.timing.capacity import (
    CapacityError,
    capacity,
    chain,
    graph_capacity,
    index_capacity,
    letters_capacity,
    path_counts,
    precision_resolution_rate,
    rounds_in,
    synthesis_time,
    theorem_rate,
)
from helix_jax.timing.graph import TALK, GraphError, TimeTable, ordinary_graph

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


# ---- the talk's example --------------------------------------------------------------------------

TALK_PROBABILITIES = [  # of both times, from A, C, G, T to the three other bases
    [(0.2967, 0.0843), (0.2959, 0.0239), (0.2769, 0.0224)],
    [(0.2722, 0.0773), (0.2834, 0.0805), (0.2652, 0.0214)],
    [(0.2729, 0.0776), (0.2850, 0.0230), (0.2659, 0.0756)],
    [(0.2916, 0.0067), (0.3045, 0.0865), (0.3036, 0.0070)],
]


def test_talk_chain():
    c = chain(TALK)
    assert c.root == pytest.approx(3.519033963397, abs=1e-11)
    assert c.capacity == pytest.approx(1.815179438097, abs=1e-11)
    assert capacity(TALK) == c.capacity
    assert c.alpha == pytest.approx(0.8495642593, abs=1e-10)
    assert c.mean_time == pytest.approx(1.177074, abs=1e-6)
    assert c.bits_per_round == pytest.approx(2.136601, abs=1e-6)
    assert c.capacity / LOG3 == pytest.approx(1.145, abs=5e-4)
    np.testing.assert_allclose(c.right, [1, 1.044093, 1.041139, 0.974349], atol=1e-6)
    # timing.md gives the shares of time units of G' that start a round
    np.testing.assert_allclose(c.alpha * c.stationary, [0.212587, 0.224636, 0.211959, 0.200382], atol=1e-6)
    np.testing.assert_allclose(c.level_share, [1 - 0.14765, 0.14765], atol=1e-5)
    assert c.variance == pytest.approx(0.129, abs=5e-4)
    for b, rows in enumerate(TALK_PROBABILITIES):
        for a, row in zip([a for a in range(4) if a != b], rows, strict=True):
            np.testing.assert_allclose(c.probability[b, a], row, atol=5.1e-5)


def test_talk_path_counts():
    counts = path_counts(TALK, 20)
    assert counts[3] == (37, 38, 38, 35)
    assert counts[5] == (452, 472, 471, 439)
    assert counts[9] == (69271, 72323, 72109, 67493)
    assert counts[20] == (70987698669, 74117724958, 73908052908, 69166817154)


@pytest.mark.parametrize(
    ("delta", "c", "factor", "letters", "chained"),
    [
        (0.005, 0.95459, 1.02550, 1.7700, 1.7756),
        (0.01, 0.91921, 1.04711, 1.7335, 1.7435),
        (0.02, 0.85856, 1.08830, 1.6679, 1.6852),
        (0.05, 0.71360, 1.21512, 1.4938, 1.5281),
        (0.1, 0.53100, 1.47342, 1.2320, 1.2843),
    ],
)
def test_talk_theorem(delta, c, factor, letters, chained):
    assert index_capacity(delta, 2) == pytest.approx(c, abs=6e-6)
    got = theorem_rate(TALK, delta)
    assert capacity(TALK) / got == pytest.approx(factor, abs=6e-6)
    assert got == pytest.approx(letters, abs=6e-5)
    assert theorem_rate(TALK, delta, through_chain=True) == pytest.approx(chained, abs=6e-5)


def test_talk_against_the_baseline():
    assert letters_capacity(TALK) == pytest.approx(LOG3, abs=1e-12)
    assert synthesis_time(TALK, 1, 0.02) == pytest.approx(0.59956, abs=6e-6)
    assert synthesis_time(TimeTable.uniform((1,)), 1, 0.02) == pytest.approx(0.63093, abs=6e-6)
    assert synthesis_time(TALK, 100_000, 0.02) == pytest.approx(100_000 / theorem_rate(TALK, 0.02))
    assert theorem_rate(TALK, 0.02) / LOG3 == pytest.approx(1.052, abs=5e-4)
    assert theorem_rate(TALK, 0.0338) > LOG3 > theorem_rate(TALK, 0.0339)


# ---- paths ---------------------------------------------------------------------------------------


def paths(table, base, duration):
    """All paths, written out."""
    if duration == 0:
        return [()]
    steps = [(a, t) for a in range(4) for t in table.times[base][a] if t <= duration]
    return [((a, t), *rest) for a, t in steps for rest in paths(table, a, duration - t)]


@settings(max_examples=20)
@given(time_tables())
def test_path_counts(table):
    counts = path_counts(table, 12)
    for t in range(6):
        for b in range(4):
            found = paths(table, b, t)
            assert len(set(found)) == len(found) == counts[t][b]
    for merged in (True, False):
        step = ordinary_graph(table, merged=merged).adjacency.astype(object)
        power = np.eye(4, len(step), dtype=int).astype(object)
        for t in range(13):
            assert tuple(power[:, :4].sum(1)) == counts[t]
            power = power @ step


@settings(max_examples=40)
@given(time_tables())
def test_growth_of_path_counts(table):
    """lambda^t right_b bounds the paths from both sides, once they are counted over a window of the longest time."""
    c, longest = chain(table), table.longest
    counts = path_counts(table, 300)
    for b in range(4):
        window = math.log2(sum(counts[t][b] for t in range(301 - longest, 301)))
        # paths of G' of 300 units that end inside a run are continuations of those in the window
        below = 300 * c.capacity + math.log2(c.right[b] / c.right.max() / len(table.edges()))
        above = 300 * c.capacity + math.log2(c.right[b] / c.right.min() * longest)
        assert below - 1e-6 <= window <= above + 1e-6


# ---- capacity and chain --------------------------------------------------------------------------


@given(time_tables(), st.sampled_from([0.0, 0.25, 3.7]))
def test_chain_of_any_table(table, overhead):
    c = chain(table, overhead=overhead)
    if not overhead:
        assert graph_capacity(ordinary_graph(table)) == pytest.approx(c.capacity, abs=1e-9)
        assert graph_capacity(ordinary_graph(table, merged=False)) == pytest.approx(c.capacity, abs=1e-9)
    times = np.where(table.array() > 0, table.array() + overhead, 0)
    weight = np.where(times > 0, c.root**-times, 0).sum(2)
    assert log_root(weight) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(weight @ c.right, c.right, rtol=1e-9)
    np.testing.assert_allclose(c.probability.sum((1, 2)), 1, rtol=1e-12)
    np.testing.assert_allclose(c.stationary @ c.probability.sum(2), c.stationary, atol=1e-12)
    assert c.stationary.sum() == pytest.approx(1)
    assert c.level_share.sum() == pytest.approx(1)
    assert ((c.probability > 0) == (table.array() > 0)).all()
    share = c.stationary[:, None, None] * c.probability
    assert (share * times).sum() == pytest.approx(c.mean_time)
    assert c.alpha * c.mean_time == pytest.approx(1)
    bits = sum(c.stationary[b] * entropy(c.probability[b]) for b in range(4))
    assert bits == pytest.approx(c.bits_per_round, abs=1e-9)
    assert bits / c.mean_time == pytest.approx(c.capacity, abs=1e-9)


@given(time_tables(), st.integers(1, 4))
def test_overhead_is_time(table, extra):
    """A whole overhead is a longer table; doubled times halve the capacity."""

    def changed(change):
        return TimeTable(tuple(tuple(tuple(change(t) for t in times) for times in row) for row in table.times))

    longer = changed(lambda t: t + extra)
    assert capacity(table, overhead=extra) == pytest.approx(capacity(longer), abs=1e-11)
    assert capacity(changed(lambda t: 2 * t)) == pytest.approx(capacity(table) / 2, abs=1e-11)
    assert rounds_in(table, 50, overhead=extra) == pytest.approx(rounds_in(longer, 50))
    assert letters_capacity(table, overhead=extra) == pytest.approx(letters_capacity(longer), abs=1e-11)
    if letters_capacity(longer) > 0 and table.levels > 1:
        assert theorem_rate(table, 0.01, overhead=extra) == pytest.approx(theorem_rate(longer, 0.01))
        assert theorem_rate(longer, 0.01) < capacity(longer)


def test_capacity_closed_forms():
    assert capacity(TimeTable.uniform((1,))) == pytest.approx(LOG3, abs=1e-14)
    assert capacity(TimeTable.uniform((4,))) == pytest.approx(LOG3 / 4, abs=1e-14)
    # z + z^2 = 1/3
    assert capacity(TimeTable.uniform((1, 2))) == pytest.approx(math.log2(2 / (math.sqrt(7 / 3) - 1)), abs=1e-12)
    # the ceiling of the unit grid: every time allowed gives 3 z / (1 - z) = 1
    assert capacity(TimeTable.uniform(range(1, 60))) == pytest.approx(2, abs=1e-12)


def test_a_single_cycle_carries_nothing():
    c = chain(RING)
    assert (c.capacity, c.root) == (0, 1)
    assert c.alpha == pytest.approx(4 / 7)
    assert c.variance == pytest.approx(0, abs=1e-12)
    assert synthesis_time(RING, 8, 0.0) == math.inf


def moments_of_rounds(table, duration):
    """Exact mean and variance of the number of rounds over all paths from A of ``duration`` units or just under."""
    # ways[t][b]: (paths, sum of rounds, sum of squares) from b in exactly t units, exact integers
    ways = [[(1, 0, 0)] * 4]
    for t in range(1, duration + 1):
        row = []
        for b in range(4):
            n = s = q = 0
            for a in range(4):
                for u in table.times[b][a]:
                    if u <= t:
                        n1, s1, q1 = ways[t - u][a]
                        n, s, q = n + n1, s + s1 + n1, q + q1 + 2 * s1 + n1
            row.append((n, s, q))
        ways.append(row)
    n, s, q = ways[duration][0]
    return s / n, (q * n - s * s) / (n * n)


@pytest.mark.parametrize(
    "table",
    [TALK, TimeTable.uniform((1, 2, 5)), TimeTable.parse("A->C{1,4} C->G{2} G->A{1,2} C->T{3} T->C{1,5} A->T{2}")],
)
def test_rounds_in(table):
    """Slopes of the exact moments: the constants cancel."""
    (m1, v1), (m2, v2) = moments_of_rounds(table, 300), moments_of_rounds(table, 500)
    mean, variance = rounds_in(table, 200)
    assert m2 - m1 == pytest.approx(mean, rel=1e-7)
    assert v2 - v1 == pytest.approx(variance, rel=1e-6)


# ---- theorem and baselines -----------------------------------------------------------------------


CURVES = [
    # delta, times, bits per time unit (timing.md, section 2.1)
    (0.001, (2, 8), 0.811),
    (0.005, (2, 7), 0.810),
    (0.01, (1,), 1.585),
    (0.001, (1, 3, 6), 1.705),
    (0.005, (1, 3), 1.670),
    (0.01, (1, 3), 1.636),
    (0.05, (1, 2, 4), 1.594),
    (0.001, (1, 3, 5), 1.711),
    (0.005, (1, 2, 4), 1.890),
    (0.01, (1, 2, 4), 1.849),
    (0.02, (1, 2, 4), 1.778),
    (0.05, (1, 2, 3), 1.640),
    (0.001, (1, 2, 4, 6), 1.928),
    (0.005, (1, 2, 3, 5), 1.934),
    (0.01, (1, 2, 3, 4), 1.903),
    (0.02, (1, 2, 3, 4), 1.830),
    (0.05, (1, 2, 3, 4), 1.644),
    (0.001, (2, 6), 0.851),
    (0.02, (1, 2, 3), 1.822),
    (0.001, (1, 2, 3, 5), 1.973),
    (0.005, (1, 2, 3, 4), 1.945),
    (0.0048, (1, 2, 3, 4), 1.946),
]


def common_rate(times, delta):
    """The theorem for one set of real times, from the one-line equation 3 sum 2^(-R t) = 1."""
    times = np.asarray(times, float)
    bits = bisect(lambda r: 3 * (2.0 ** (-r * times)).sum() - 1)
    alpha = 1 / (3 * (2.0 ** (-bits * times)) @ times)
    levels = len(times)
    if levels == 1:
        return bits
    c = 1 + delta * math.log(delta / (levels - 1), levels) + (1 - delta) * math.log(1 - delta, levels)
    return bits / (1 + alpha * (1 / c - 1) * math.log(levels, 3) * times[0])


@pytest.mark.parametrize(("delta", "times", "bits"), CURVES)
def test_rate_curves(delta, times, bits):
    got = precision_resolution_rate(times, delta)
    assert got == pytest.approx(bits, abs=6e-4)
    assert got == pytest.approx(common_rate(times, delta), abs=1e-10)
    assert precision_resolution_rate(times, delta, overhead=2.5) == pytest.approx(
        common_rate(np.array(times) + 2.5, delta), abs=1e-10
    )
    assert got <= capacity(TimeTable.uniform(times))


@pytest.mark.parametrize(
    ("overhead", "gains"), [(0, [0, 0, 0, 0]), (2, [0, 12, 25, 41]), (10, [12, 47, 68, 90])]
)  # in percent, for 1, 5, 10 and 20 copies
def test_gain_over_letters_comes_from_the_overhead(overhead, gains):
    """Poisson means of the greedy design at delta = 0.01 as real times."""
    means = np.array([5.298, 24.145, 56.955, 102.62, 162.36, 235.03])
    for copies, gain in zip((1, 5, 10, 20), gains, strict=True):
        times = overhead + means / copies
        best = max(common_rate(times[:levels], 0.01) for levels in range(1, 7))
        assert best / (LOG3 / times[0]) - 1 == pytest.approx(gain / 100, abs=0.0055)


def test_parity_takes_the_letters_that_there_are():
    """Letters of unlike shortest times: their own capacity, not log_3, says how long parity takes."""
    table = TimeTable.parse("A->C{1,3} A->G{2,5} C->A{2,4} C->T{1,2} G->A{1,4} G->T{3,4} T->C{2,3} T->G{1,2}")
    letters = TimeTable.parse("A->C{1} A->G{2} C->A{2} C->T{1} G->A{1} G->T{3} T->C{2} T->G{1}")
    c = chain(table)
    assert letters_capacity(table) == capacity(letters)
    per_symbol = 1 / capacity(letters)
    want = c.capacity / (1 + c.alpha * (1 / index_capacity(0.03, 2) - 1) * per_symbol)
    assert theorem_rate(table, 0.03) == pytest.approx(want)
    forced = TimeTable.parse("A->C{1,2} C->G{1} G->T{1} T->A{1}")
    with pytest.raises(CapacityError, match=r"time table A->C.*parity has no place"):
        theorem_rate(forced, 0.02)
    assert theorem_rate(forced, 0.0) == capacity(forced) > 0
    assert 0 < theorem_rate(forced, 0.02, through_chain=True) < capacity(forced)


@pytest.mark.parametrize("levels", [2, 3, 8])
def test_index_capacity_is_that_of_the_symmetric_channel(levels):
    """log2 l minus the entropy of a row."""
    for delta in (0.0, 0.001, 0.1, 0.45):
        row = [1 - delta] + [delta / (levels - 1)] * (levels - 1)
        want = (math.log2(levels) - entropy(row)) / math.log2(levels)
        assert index_capacity(delta, levels) == pytest.approx(want, abs=1e-12)
    assert index_capacity(0.3, 1) == 1


# ---- refused by name -----------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [capacity, chain, letters_capacity, lambda t: theorem_rate(t, 0.02)])
def test_reducible_tables(compute):
    with pytest.raises(GraphError, match="reducible: A and C do not lead to each other"):
        compute(TimeTable.parse("A->C{1,2} C->G{1,2} G->T{1} T->C{2}"))


@pytest.mark.parametrize("overhead", [-0.1, math.nan, math.inf])
def test_overhead_out_of_range(overhead):
    with pytest.raises(CapacityError, match=f"overhead {overhead}: give 0 or more"):
        capacity(TALK, overhead=overhead)


@pytest.mark.parametrize(("levels", "delta"), [(2, 0.5), (2, -0.01), (2, math.nan), (3, 0.67), (1, 1.0)])
def test_delta_out_of_range(levels, delta):
    with pytest.raises(CapacityError, match=f"delta {delta}: the error of {levels} levels"):
        index_capacity(delta, levels)
    if levels == 2:
        with pytest.raises(CapacityError, match=f"delta {delta}"):
            synthesis_time(TALK, 1000, delta)


def test_other_bad_numbers():
    with pytest.raises(CapacityError, match="levels 0"):
        index_capacity(0.1, 0)
    with pytest.raises(CapacityError, match="-1 bits"):
        synthesis_time(TALK, -1, 0.02)
    with pytest.raises(CapacityError, match="duration -5"):
        rounds_in(TALK, -5)
    for duration in (-1, 2.5):
        with pytest.raises(CapacityError, match=f"duration {duration}: give a whole number"):
            path_counts(TALK, duration)
