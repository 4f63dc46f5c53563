"""Quantisers against sums over all run lengths, brute force over rules, simulation, and the figures of the design."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.timing import capacity, channel, evidence, quantizer, synthesis
from helix_jax.timing.channel import TALK_LAW, Binomial, ChannelError, Poisson, Tabulated
from helix_jax.timing.decision import QuantizerError, decide
from helix_jax.timing.graph import TALK, TimeTable


def all_vectors(pmfs, copies):
    """Every vector of run lengths int[n, N] and its chance at each level [levels, n]; pmfs [levels, r_max + 1]."""
    vectors = np.array(list(itertools.product(range(pmfs.shape[1]), repeat=copies)))
    return vectors, np.prod(pmfs[:, vectors], axis=2)


def pmfs_of(law, times, b=0, a=1):
    rows = [law.pmf(b, a, t) for t in times]
    return np.array([np.pad(row, (0, max(map(len, rows)) - len(row))) for row in rows])


def one_transition(law, times, copies):
    """Quantizer of a table in which all transitions have these times."""
    return quantizer.quantizer(law, TimeTable.uniform(times), copies)


def decision_of(made):
    """Decision for A -> C."""
    assert made.decisions[0][1] is not None
    return made.decisions[0][1]


def levels_of(made, vectors, b=0, a=1):
    bases = np.full(len(vectors), b, np.uint8), np.full(len(vectors), a, np.uint8)
    return np.asarray(quantizer.quantise(jnp.asarray(vectors, jnp.int32), *bases, made.arrays()))


def errors_by_hand(made, law, times, copies):
    """Errors of what ``quantise`` does, summed over all vectors; all copies lost is an error."""
    vectors, chances = all_vectors(pmfs_of(law, times), copies)
    level = levels_of(made, vectors)
    right = [(level == i) & vectors.any(axis=1) for i in range(len(times))]
    return [1 - chances[i, right[i]].sum() for i in range(len(times))]


LAWS = [
    (Binomial.uniform(0.8), (1, 2), 5),
    (Binomial.uniform(0.7), (1, 3), 4),
    (Binomial.uniform(0.9), (1, 2, 4), 5),
    (Binomial.uniform(1.0), (1, 2, 3), 2),
    (Binomial.uniform(0.5), (2, 3), 1),
    (Poisson.uniform(0.8), (1, 4), 3),
    (Poisson.uniform(1.2), (1, 4, 9), 2),
    (Poisson.uniform(3.0), (2,), 2),
    (Tabulated.uniform([[0.1, 0.7, 0.2], [], [0.05, 0.05, 0.3, 0.4, 0.2]]), (1, 3), 5),
    (Tabulated.uniform([[0.1, 0.5, 0.0, 0.4], [0.2, 0.0, 0.8], [0.3, 0.1, 0.1, 0.5]]), (1, 2, 3), 4),
]


@pytest.mark.parametrize(("law", "times", "copies"), LAWS)
def test_errors_are_those_of_the_rule_in_use(law, times, copies):
    made = one_transition(law, times, copies)
    decision = decision_of(made)
    assert decision.exact
    np.testing.assert_allclose(decision.errors, errors_by_hand(made, law, times, copies), atol=2e-11)
    np.testing.assert_allclose(made.errors()[2, 3], decision.errors)
    assert not made.errors()[2, 2].any()
    assert made.error == max(decision.errors)


@given(st.data())
@settings(max_examples=25)
def test_errors_of_any_law(data):
    levels, copies, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), 4
    weights = st.lists(st.integers(0, 9), min_size=width, max_size=width).filter(any)
    rows = [np.array(data.draw(weights), float) for _ in range(levels)]
    law = Tabulated.uniform([(row / row.sum()).tolist() for row in rows])
    times = tuple(range(1, levels + 1))
    made = one_transition(law, times, copies)
    np.testing.assert_allclose(decision_of(made).errors, errors_by_hand(made, law, times, copies), atol=1e-12)


@pytest.mark.parametrize(("law", "times", "copies"), [row for row in LAWS if not isinstance(row[0], Poisson)])
def test_too_many_cases_give_an_upper_bound(law, times, copies, monkeypatch):
    exact = decision_of(one_transition(law, times, copies))
    monkeypatch.setattr(evidence, "CASES_LIMIT", 0)
    made = one_transition(law, times, copies)
    decision = decision_of(made)
    assert decision.exact == (len(times) <= 2)
    by_hand = errors_by_hand(made, law, times, copies)
    if decision.exact:
        np.testing.assert_allclose(decision.errors, by_hand, atol=1e-11)
    assert (np.array(decision.errors) >= np.array(by_hand) - 1e-11).all()
    assert decision.error <= sum(exact.errors) + 1e-3  # and no loose one
    assert max(by_hand) <= exact.error * 1.3 + 1e-9


def test_bound_holds_in_simulation_at_twenty_copies():
    law, times = Binomial.uniform(0.55), (1, 3, 6, 12)
    made = one_transition(law, times, 20)
    decision = decision_of(made)
    assert not decision.exact
    stream = np.random.default_rng(0)
    for i, t in enumerate(times):
        runs = stream.binomial(t, 0.55, (50_000, 20))
        wrong = ((levels_of(made, runs) != i) | ~runs.any(axis=1)).mean()
        bound = decision.errors[i]
        assert wrong < bound + 5 * math.sqrt(bound / 50_000) + 1e-4
        assert wrong > 0.8 * bound - 5 * math.sqrt(bound / 50_000) - 1e-4


# ---- the best rule -----------------------------------------------------------------------------------------------


def best_of_all_rules(law, times, copies):
    """Least largest error of two levels over all rules "higher if the likelihood ratio is at least x"."""
    vectors, (low, high) = all_vectors(pmfs_of(law, times), copies)
    seen = vectors.any(axis=1) & (low + high > 0)
    low, high = low[seen], high[seen]
    ratio = high / np.where(low > 0, low, 1e-300)
    order = np.argsort(ratio)
    low, high, ratio = low[order], high[order], ratio[order]
    lost_low, lost_high = 1 - low.sum(), 1 - high.sum()
    above = np.append(np.cumsum(low[::-1])[::-1], 0.0) + lost_low
    below = np.append(0.0, np.cumsum(high)) + lost_high
    steps = np.flatnonzero(np.concatenate([[True], ratio[1:] > ratio[:-1] * (1 + 1e-9), [True]]))
    return np.maximum(above, below)[steps].min()


@pytest.mark.parametrize("copies", [1, 3, 5])
@pytest.mark.parametrize(("p", "times"), [(0.8, (1, 2)), (0.6, (1, 3)), (0.55, (2, 3)), (0.9, (3, 4))])
def test_two_levels_minimax(p, times, copies):
    law = Binomial.uniform(p)
    decision = decide(law, 0, 1, times, copies)
    # ties of the likelihood may be parted, which is no worse
    assert decision.error <= best_of_all_rules(law, times, copies) + 1e-12


@pytest.mark.parametrize(
    ("law", "copies"), [(Binomial.uniform(0.8), 3), (Binomial.uniform(0.6), 3), (Poisson.uniform(4.0), 1)]
)
def test_three_levels_against_all_weights(law, copies):
    times = (1, 2, 4)
    pmfs = pmfs_of(law, times)
    vectors, chances = all_vectors(pmfs, copies)
    seen = vectors.any(axis=1)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(chances[:, seen]), -300)
    chances = chances[:, seen]
    best = 1.0
    grid = np.arange(-6, 6, 0.15)
    for w1, w2 in itertools.product(grid, grid):
        level = (logs + np.array([[0.0], [w1], [w2]])).argmax(axis=0)
        best = min(best, max(1 - chances[i, level == i].sum() for i in range(3)))
    assert decide(law, 0, 1, times, copies).error <= best * (1 + 1e-3)


@pytest.mark.parametrize(("mean", "times", "copies"), [(6.0, (1, 2), 5), (2.5, (1, 3), 5), (1.0, (1, 3, 7), 20)])
def test_poisson_rule_is_thresholds_on_the_sum(mean, times, copies):
    made = one_transition(Poisson.uniform(mean), times, copies)
    stream = np.random.default_rng(0)
    runs = stream.poisson(mean * stream.choice(np.arange(0, times[-1] + 2), (20_000, 1)), (20_000, copies))
    level, sums = levels_of(made, runs), runs.sum(axis=1)
    thresholds = [sums[level >= i].min() for i in range(1, len(times))]
    np.testing.assert_array_equal(level, np.searchsorted(thresholds, sums, side="right"))


# ---- rate and design ---------------------------------------------------------------------------------------------


def test_achieved_rate_of_like_transitions():
    made = one_transition(Binomial.uniform(0.9), (1, 2, 3, 4), 5)
    expected = capacity.theorem_rate(made.table, made.error)
    assert quantizer.achieved_rate(made.table, made.decisions) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(1.946, abs=6e-4)
    late = quantizer.achieved_rate(made.table, made.decisions, overhead=2.0)
    assert late == pytest.approx(capacity.theorem_rate(made.table, made.error, overhead=2.0), rel=1e-12)


def test_lost_runs_have_their_price():
    """Twelve like transitions, by hand: the chance that all copies lose a run, and the doubt of rare events."""
    law, copies, price = Binomial.uniform(0.6), 3, 8.0
    made = one_transition(law, (1, 3), copies)
    lost = np.array([0.4**3, 0.4**9])
    assert made.decisions[0][1].lost == pytest.approx(lost, rel=1e-6)
    doubt = lost * (np.log2(1 / lost) + 1 / np.log(2))
    assert quantizer.letters_in_doubt(lost) == pytest.approx(doubt, rel=1e-12)
    assert quantizer.letters_in_doubt(np.zeros(2)).tolist() == [0, 0]
    chain = capacity.chain(made.table)
    free = quantizer.achieved_rate(made.table, made.decisions)
    paid = quantizer.achieved_rate(made.table, made.decisions, price=price)
    more = chain.alpha * price * (chain.level_share @ doubt) / np.log2(3)
    assert chain.capacity / paid == pytest.approx(chain.capacity / free + more, rel=1e-6)


def test_design_takes_longer_times_where_lost_runs_cost_more_than_time():
    """Of two shortest times, the one that pays for the lost runs: the rate with the price says which."""
    law, chosen = Binomial.uniform(0.55), []
    for price in (0.0, 5.0, 60.0):
        made = quantizer.design(law, 5, 0.05, 7, 2, fewest=2, price=price)
        chosen.append({times[0] for row in made.table.times for times in row if times})
    assert chosen == [{1}, {1}, {2}]


@pytest.mark.parametrize(
    ("p", "copies", "delta", "price"),
    [(0.5, 1, 0.4, 5), (0.35, 2, 0.2, 5), (0.7, 2, 0.1, 5), (0.55, 3, 0.1, 5), (0.55, 5, 0.05, 20), (0.7, 3, 0.1, 0)],
)
def test_no_common_times_are_better_than_the_design(p, copies, delta, price):
    """All pairs of times up to 8, which all transitions share: moving one transition alone would not get there."""
    made = quantizer.design(Binomial.uniform(p), copies, delta, 8, 2, fewest=2, price=price)
    ours = quantizer.achieved_rate(made.table, made.decisions, price=price)
    for times in itertools.combinations(range(1, 9), 2):
        other = one_transition(Binomial.uniform(p), times, copies)
        if other.error <= delta:
            assert ours >= quantizer.achieved_rate(other.table, other.decisions, price=price) - 1e-9


def test_a_price_is_a_number_of_bits():
    made = one_transition(Binomial.uniform(0.9), (1, 2), 5)
    for price in (-1.0, math.inf, math.nan):
        with pytest.raises(QuantizerError, match="price"):
            quantizer.achieved_rate(made.table, made.decisions, price=price)
        with pytest.raises(QuantizerError, match="price"):
            quantizer.design(Binomial.uniform(0.9), 5, 0.02, 8, 2, price=price)


def test_achieved_rate_of_the_talk():
    """From the definition, with the shares of the max-entropic chain."""
    made = quantizer.quantizer(TALK_LAW, TALK, 5)
    root = 3.519033963397
    right, share = (
        [1, 1.044093, 1.041139, 0.974349],
        [0.212587, 0.224636, 0.211959, 0.200382],
    )  # of time: their sum is alpha
    parity = 0.0
    for b, a in np.ndindex(4, 4):
        if b != a:
            e = made.decisions[b][a].error
            often = share[b] * sum(root**-t for t in TALK.times[b][a]) * right[a] / right[b]
            capacity_of_index = 1 + e * math.log2(e) + (1 - e) * math.log2(1 - e)
            parity += often * (1 / capacity_of_index - 1)
    expected = 1.815179438 / (1 + parity / math.log2(3))
    assert quantizer.achieved_rate(TALK, made.decisions) == pytest.approx(expected, rel=1e-5)
    assert expected > capacity.theorem_rate(TALK, 0.02)


def test_an_index_that_tells_nothing_is_worth_nothing():
    law = Tabulated.uniform([[0.1, 0.9], [0.1, 0.9]])
    made = one_transition(law, (1, 2), 1)
    assert made.error >= 0.5
    assert quantizer.achieved_rate(made.table, made.decisions) == 0


def brute_force(law, copies, delta, longest, levels, free, overhead=0.0, price=0.0):
    """Best rate over all choices for the transitions ``free`` (the others take {1}), without any shortcut."""
    sets = [s for n in range(1, levels + 1) for s in itertools.combinations(range(1, longest + 1), n)]
    options = []
    for b, a in free:
        decided = [decide(law, b, a, s, copies) for s in sets]
        options.append([d for d in decided if d.error <= delta])
    fixed = quantizer.quantizer(law, TimeTable.uniform((1,)), copies)
    best = 0.0
    for chosen in itertools.product(*options):
        decisions = [list(row) for row in fixed.decisions]
        for (b, a), decision in zip(free, chosen, strict=True):
            decisions[b][a] = decision
        times = [[d.times if d else () for d in row] for row in decisions]
        table = TimeTable(tuple(map(tuple, times)))
        best = max(best, quantizer.achieved_rate(table, decisions, overhead=overhead, price=price))
    return best


@pytest.mark.parametrize(("overhead", "price"), [(0.0, 0.0), (1.5, 0.0), (0.0, 8.0), (1.5, 20.0)])
def test_design_against_brute_force(overhead, price):
    """Three transitions can have two levels; the others write one base at any time, and so have one."""
    free = [(0, 1), (1, 3), (3, 2)]
    sure = ((0.05, 0.95),) * 3
    share = dict(zip(free, (0.95, 0.8, 0.7), strict=True))

    def pmfs(b, a):
        if (b, a) not in share:
            return () if b == a else sure
        return tuple(tuple(Binomial.uniform(share[b, a]).pmf(b, a, t)) for t in (1, 2, 3))

    law = Tabulated(tuple(tuple(pmfs(b, a) for a in range(4)) for b in range(4)))
    made = quantizer.design(law, 4, 0.08, 3, 2, overhead=overhead, price=price)
    ours = quantizer.achieved_rate(made.table, made.decisions, overhead=overhead, price=price)
    assert ours == pytest.approx(brute_force(law, 4, 0.08, 3, 2, free, overhead, price), rel=1e-9)
    assert made.error <= 0.08
    assert max(len(made.table.times[b][a]) for b, a in free) == 2


def test_design_of_like_transitions():
    """Each delta and overhead: no common set of times does better than what the search finds."""
    law, copies = Binomial.uniform(0.9), 5
    for delta, overhead in ((0.02, 0.0), (0.001, 0.0), (0.02, 5.0)):
        made = quantizer.design(law, copies, delta, 6, 3, overhead=overhead)
        ours = quantizer.achieved_rate(made.table, made.decisions, overhead=overhead)
        assert made.error <= delta
        assert made.table.longest <= 6
        assert made.table.levels <= 3
        for count in (1, 2, 3):
            for times in itertools.combinations(range(1, 7), count):
                decision = decide(law, 0, 1, times, copies)
                if decision.error <= delta:
                    rate = capacity.theorem_rate(
                        TimeTable.uniform(times), decision.error * (count > 1), overhead=overhead
                    )
                    assert ours >= rate - 1e-9


def test_design_for_the_talk():
    made = quantizer.design(TALK_LAW, 5, 0.02, 4, 2, fewest=2)
    again = quantizer.quantizer(TALK_LAW, made.table, 5)
    assert made.error <= 0.02
    assert [d.errors for row in made.decisions for d in row if d] == [
        d.errors for row in again.decisions for d in row if d
    ]
    assert all(len(times) == 2 for b, row in enumerate(made.table.times) for a, times in enumerate(row) if a != b)
    by_hand = quantizer.quantizer(TALK_LAW, TALK, 5)
    ours = quantizer.achieved_rate(made.table, made.decisions)
    assert ours >= quantizer.achieved_rate(TALK, by_hand.decisions)
    free = quantizer.design(TALK_LAW, 5, 0.02, 4, 2)
    assert quantizer.achieved_rate(free.table, free.decisions) >= ours


def weak_at(b, a, p):
    rows = [[0.0 if i == j else 0.9 for j in range(4)] for i in range(4)]
    rows[b][a] = p
    return Binomial(tuple(map(tuple, rows)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: quantizer.design(weak_at(2, 0, 0.3), 2, 0.02, 4, 2),
            r"G->A: .* of the best, \{4\}, level 0 is wrong with 0\.05765",
        ),
        (lambda: quantizer.design(weak_at(0, 3, 0.0), 2, 0.02, 4, 2), r"A->T: .* level 0 is wrong with 1"),
        (lambda: quantizer.design(weak_at(1, 2, 0.5), 5, 0.02, 3, 2, fewest=2), r"C->G: .* with 2 times up to 3"),
        (
            lambda: quantizer.design(Tabulated.uniform([[], [0.1, 0.9]]), 5, 0.02, 3, 2, fewest=2),
            "A->C: .* has 1 times",
        ),
        (
            lambda: quantizer.design(weak_at(0, 1, 0.3), 1, 0.95, 2, 2, fewest=2),
            "A->C: with delta 0.95 2 times carry no index",
        ),
        (lambda: quantizer.design(TALK_LAW, 5, 0.0, 4, 2), r"delta: 0\.0"),
        (lambda: quantizer.design(TALK_LAW, 5, 1.0, 4, 2), r"delta: 1\.0"),
        (lambda: quantizer.design(TALK_LAW, 5, math.nan, 4, 2), "delta: nan"),
        (lambda: quantizer.design(TALK_LAW, 0, 0.02, 4, 2), "copies: 0"),
        (lambda: quantizer.design(TALK_LAW, 1001, 0.02, 4, 2), r"copies: 1001; give a whole number in 1\.\.1000"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 0, 2), "longest: 0"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 4, 0), "levels: 0"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 4, 2, fewest=3), "fewest <= levels <= longest"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 4, 5), "fewest <= levels <= longest"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 4, 2, overhead=-1.0), r"overhead: -1\.0"),
        (lambda: quantizer.design(TALK_LAW, 5, 0.02, 100, 4), "4 of 100 times can be chosen in over 5000 ways"),
        (lambda: decide(TALK_LAW, 0, 1, (2, 1), 5), r"A->C: times \(2, 1\)"),
        (lambda: decide(TALK_LAW, 0, 1, (), 5), r"A->C: times \(\)"),
        (lambda: decide(TALK_LAW, 0, 1, (1,), 1.5), r"copies: 1\.5"),
        (lambda: one_transition(TALK_LAW, (1, 2), 5).arrays(misread=0.0), r"misread: 0\.0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(QuantizerError, match=message):
        make()


def test_delta_named_in_a_refusal_can_be_had():
    law = weak_at(2, 0, 0.3)
    with pytest.raises(QuantizerError, match="allow delta") as refusal:
        quantizer.design(law, 2, 0.02, 4, 2)
    delta = float(str(refusal.value).split("allow delta ")[1].split(",")[0])
    assert quantizer.design(law, 2, delta, 4, 2).table.times[2][0] == (4,)


def test_times_missing_from_a_law_are_refused_or_avoided():
    law = Tabulated.uniform([[0.01, 0.99], [], [0.0, 0.01, 0.99]])
    with pytest.raises(ChannelError, match="A->C time 2: the table has times"):
        decide(law, 0, 1, (1, 2), 3)
    assert quantizer.design(law, 3, 0.05, 3, 2).table.times[0][1] == (1, 3)


# ---- kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [TALK_LAW, Poisson.uniform(2.2)], ids=["binomial", "poisson"])
def test_errors_in_simulation(law):
    """Through the simulator, every transition and level at once."""
    stream = np.random.default_rng(1)
    letters = (np.cumsum(stream.integers(1, 4, (60, 1000)), axis=1) % 4).astype(np.uint8)
    levels = stream.integers(0, 2, letters.shape).astype(np.uint8)
    made = quantizer.quantizer(law, TALK, 5)
    runs = synthesis.simulate(jax.random.key(5), letters, levels, channel.pmf_table(law, TALK), 5)
    before = synthesis.previous(jnp.asarray(letters))
    runs = jnp.moveaxis(runs, 1, 2)
    read = quantizer.quantise(runs, before, letters, made.arrays())
    assert read.dtype == jnp.uint8
    wrong = (np.asarray(read) != levels) | ~np.asarray(runs).any(axis=2)
    errors = made.errors()
    for b, a, level in np.argwhere(TALK.array()):
        here = (np.asarray(before) == b) & (letters == a) & (levels == level)
        expected = errors[b, a, level]
        assert abs(wrong[here].mean() - expected) < 5 * math.sqrt((expected + 1e-4) / here.sum())


def test_missing_copies_have_no_say():
    made = one_transition(Binomial.uniform(0.85), (1, 2), 5)
    arrays = made.arrays()
    full = jnp.array([[2, 2, 1, 1, 1], [1, 1, 1, 0, 1]], jnp.int32)
    holed = jnp.array([[2, -1, 2, 1, 1, -1, 1], [1, 1, -1, 1, 0, -1, 1]], jnp.int32)
    b, a = jnp.zeros(2, jnp.uint8), jnp.ones(2, jnp.uint8)
    np.testing.assert_array_equal(quantizer.quantise(full, b, a, arrays), [1, 0])
    np.testing.assert_array_equal(quantizer.quantise(holed, b, a, arrays), [1, 0])
    np.testing.assert_allclose(
        quantizer.log_likelihoods(full, b, a, arrays), quantizer.log_likelihoods(holed, b, a, arrays), rtol=1e-6
    )
    nothing = quantizer.log_likelihoods(jnp.full((2, 5), -1), b, a, arrays)
    np.testing.assert_array_equal(nothing, np.zeros((2, 2)))


def test_log_likelihoods():
    table = TimeTable.parse("A->C{1,2,4} A->G{2} C->A{1,3} C->G{1} G->A{2,3} T->A{1}")
    law, copies = Binomial.uniform(0.7), 4
    made = quantizer.quantizer(law, table, copies)
    stream = np.random.default_rng(3)
    for b, a in ((0, 1), (0, 2), (1, 0), (2, 0)):
        times = table.times[b][a]
        runs = stream.integers(0, times[-1] + 1, (50, copies))
        bases = np.full(50, b, np.uint8), np.full(50, a, np.uint8)
        logs = np.asarray(quantizer.log_likelihoods(jnp.asarray(runs, jnp.int32), *bases, made.arrays(misread=1e-3)))
        assert logs.dtype == np.float32
        assert (logs[:, len(times) :] == quantizer.NO_LEVEL).all()
        for i, t in enumerate(times):
            pmf = np.pad(law.pmf(b, a, t), (0, 10)) + 1e-3
            np.testing.assert_allclose(logs[:, i], np.log(pmf[runs]).sum(axis=1), rtol=1e-5)
        level = np.asarray(quantizer.quantise(jnp.asarray(runs, jnp.int32), *bases, made.arrays()))
        assert (level < len(times)).all()


def test_a_run_longer_than_the_law_allows_counts_as_the_longest():
    made = one_transition(Binomial.uniform(0.85), (1, 2), 1)
    assert levels_of(made, np.array([[2], [3], [50]])).tolist() == [1, 1, 1]


def test_most_copies_do_not_overflow():
    """1000 copies, all of which rule out a level."""
    made = one_transition(Binomial.uniform(0.9), (1, 2), 1000)
    assert levels_of(made, np.array([[2] * 1000, [1] * 1000, [0] * 1000])).tolist() == [1, 0, 0]
    assert made.error < 1e-12
    sums = one_transition(Poisson.uniform(100.0), (1, 2, 3), 1000)
    assert levels_of(sums, np.array([[100] * 1000, [200] * 1000, [300] * 1000, [0] * 1000])).tolist() == [0, 1, 2, 0]
