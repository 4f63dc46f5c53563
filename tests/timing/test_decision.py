"""The rule of one transition against sums over all run lengths, and the figures of the design."""

import functools
import itertools
import math

import numpy as np
import pytest

from helix_jax.timing import capacity, decision
from helix_jax.timing.channel import TALK_LAW, Binomial, Poisson
from helix_jax.timing.graph import TALK, TimeTable

# ---- figures of the design (timing.md, section 2) ----------------------------------------------------------------


@functools.cache
def poisson_at_least(mean, threshold):
    """P(Poisson(mean) >= threshold), summed over whichever side is the smaller."""
    term, below = math.exp(-mean), []
    for r in range(threshold):
        below.append(term)
        term *= mean / (r + 1)
    if threshold <= mean:
        return 1 - math.fsum(below)
    above, r = [], threshold
    while term > 0 and (not above or term > 1e-20 * above[0]):
        above.append(term)
        r += 1
        term *= mean / r
    return math.fsum(above)


def binomial_at_least(n, p, threshold):
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(threshold, n + 1))


def sum_rule_errors(at_least, thresholds):
    """Errors of thresholds on S, the first being 1 (all copies lost); at_least(i, threshold) = P(S >= it | level i)."""
    ends = [*thresholds, None]
    return [
        1 - at_least(i, low) + (at_least(i, high) if high else 0.0)
        for i, (low, high) in enumerate(itertools.pairwise(ends))
    ]


POISSON_DESIGN = {
    0.01: ([5.298, 24.145, 56.955, 102.62, 162.36, 235.03], [13, 39, 78, 131, 197, 276]),
    0.02: ([4.605, 20.145, 46.608, 84.067, 132.52, 191.98], [11, 32, 64, 107, 161, 226]),
    0.05: ([3.689, 15.763, 35.710, 63.641, 99.567, 143.49], [9, 25, 49, 81, 121, 168]),
}


@pytest.mark.parametrize("delta", POISSON_DESIGN)
def test_greedy_poisson_design(delta):
    """The means lambda_i of the greedy design, one copy, recomputed; our rule keeps delta at them."""
    means, thresholds = [], [1]
    for _ in range(6):
        low, high = 0.0, 400.0
        for _ in range(60):
            mean = (low + high) / 2
            low, high = (mean, high) if 1 - poisson_at_least(mean, thresholds[-1]) > delta / 2 else (low, mean)
        lower = 1 - poisson_at_least(high, thresholds[-1])
        means.append(high)
        thresholds.append(next(t for t in itertools.count(1) if poisson_at_least(high, t) <= delta - lower))
    golden = POISSON_DESIGN[delta]
    np.testing.assert_allclose(means, golden[0], rtol=2e-4)
    assert thresholds[1:] == golden[1]
    times = tuple(math.ceil(1000 * mean) for mean in means)
    assert decision.decide(Poisson.uniform(0.001), 0, 1, times, 1).error <= delta
    # the sum of N copies is Poisson(N mean t): N copies need a time N times shorter
    assert decision.decide(Poisson.uniform(0.001), 0, 1, tuple(-(-t // 5) for t in times), 5).error <= delta


@pytest.mark.parametrize(
    ("p", "times", "golden"),
    [(0.85, (1, 2), (1e-4, 0.0099)), (0.7, (1, 3), (0.0024, 0.0037)), (0.58, (1, 4), (0.0131, 0.0029))],
)
def test_talk_transitions(p, times, golden):
    """By "second time iff S >= 6" the golden errors; by maximum likelihood less."""
    sums = sum_rule_errors(lambda i, t: binomial_at_least(5 * times[i], p, t), [1, 6])
    np.testing.assert_allclose(sums, golden, atol=5e-5)
    b, a = np.argwhere(np.array(TALK_LAW.p) == p)[0]
    assert TALK.times[b][a] == times
    rule = decision.decide(TALK_LAW, b, a, times, 5)
    assert rule.error <= max(sums) + 1e-12
    assert rule.errors[1] < sums[1] / 2


def test_maximum_likelihood_beats_the_sum():
    sums = sum_rule_errors(lambda i, t: binomial_at_least(5 * (i + 1), 0.8, t), [1, 6])
    assert max(sums) == pytest.approx(0.0328, abs=5e-5)
    assert decision.decide(Binomial.uniform(0.8), 0, 1, (1, 2), 5).error == pytest.approx(0.0060, abs=5e-5)
    four = decision.decide(Binomial.uniform(0.9), 0, 1, (1, 2, 3, 4), 5)
    assert four.error == pytest.approx(0.0048, abs=5e-5)


@pytest.mark.parametrize(
    ("mean", "times", "threshold", "golden"),
    [(6.0, (1, 2), 44, (0.0097, 0.0133)), (2.5, (1, 3), 23, (0.0049, 0.0044)), (1.3, (1, 4), 15, (0.0045, 0.0076))],
)
def test_poisson_transitions(mean, times, threshold, golden):
    rule = decision.decide(Poisson.uniform(mean), 0, 1, times, 5)
    np.testing.assert_allclose(rule.errors, golden, atol=5e-5)
    sums = sum_rule_errors(lambda i, t: poisson_at_least(5 * mean * times[i], t), [1, threshold])
    np.testing.assert_allclose(rule.errors, sums, atol=1e-12)


@pytest.mark.parametrize(
    ("law", "below", "above", "second"),
    [(Binomial, 0.735, 0.745, 2), (Binomial, 0.54, 0.55, 3), (Poisson, 5.0, 5.2, 2)],
)
def test_smallest_second_time_at_the_talks_setting(law, below, above, second):
    errors = [decision.decide(law.uniform(x), 0, 1, (1, second), 5).error for x in (below, above)]
    assert errors[0] > 0.02 >= errors[1]


def test_smallest_second_time_by_sums():
    """At N = 5, delta = 0.02, as the talk has them: p of 0.85, 0.70, 0.58 give 2, 3, 4."""

    def smallest(p):
        def keeps(second, threshold):
            times = (1, second)
            return max(sum_rule_errors(lambda i, t: binomial_at_least(5 * times[i], p, t), [1, threshold])) <= 0.02

        return next(t for t in range(2, 9) if any(keeps(t, threshold) for threshold in range(2, 5 * t)))

    golden = {0.85: 2, 0.825: 2, 0.82: 3, 0.7: 3, 0.63: 3, 0.625: 4, 0.58: 4, 0.545: 4}
    assert {p: smallest(p) for p in golden} == golden


# ---- rate curves (timing.md, section 2.1) ------------------------------------------------------------------------


@functools.cache
def sets_by_sums(law, parameter, copies):
    """{times: least largest error by thresholds on S} for up to 4 times up to 8."""
    most = 8 * copies if law is Binomial else int(8 * copies * parameter * 2 + 60)

    def at_least(time, threshold):
        if law is Binomial:
            return binomial_at_least(copies * time, parameter, threshold)
        return poisson_at_least(copies * parameter * time, threshold)

    tails = {t: np.array([at_least(t, s) for s in range(most + 2)]) for t in range(1, 9)}
    out = {}
    for count in range(1, 5):
        for times in itertools.combinations(range(1, 9), count):
            low, high = 0.0, 1.0
            for _ in range(40):
                trial, threshold, ok = (low + high) / 2, 1, True
                for t, following in itertools.zip_longest(times, times[1:]):
                    room = trial - (1 - tails[t][threshold])
                    ok &= room >= 0
                    if not ok:
                        break
                    if following:
                        threshold = max(threshold, int(np.argmax(tails[t] <= room)))
                low, high = (low, trial) if ok else (trial, high)
            out[times] = high
    return out


@functools.cache
def table_rate(times, delta):
    return capacity.theorem_rate(TimeTable.uniform(times), delta)


CURVES = [
    (Poisson, 1.0, 5, {0.001: (0.811, (2, 8)), 0.005: (0.810, (2, 7)), 0.01: (1.585, (1,)), 0.05: (1.585, (1,))}),
    (
        Poisson,
        1.0,
        20,
        {0.001: (1.705, (1, 3, 6)), 0.005: (1.670, (1, 3)), 0.01: (1.636, (1, 3)), 0.05: (1.594, (1, 2, 4))},
    ),
    (Poisson, 4.0, 20, {0.001: (1.928, (1, 2, 4, 6)), 0.005: (1.934, (1, 2, 3, 5)), 0.02: (1.830, (1, 2, 3, 4))}),
    (Binomial, 0.7, 5, {0.001: (0.851, (2, 6)), 0.005: (1.670, (1, 3)), 0.02: (1.585, (1,))}),
    (
        Binomial,
        0.9,
        5,
        {0.001: (1.711, (1, 3, 5)), 0.005: (1.890, (1, 2, 4)), 0.02: (1.822, (1, 2, 3)), 0.05: (1.644, (1, 2, 3, 4))},
    ),
    (Binomial, 0.95, 5, {0.001: (1.973, (1, 2, 3, 5)), 0.01: (1.903, (1, 2, 3, 4))}),
]


@pytest.mark.parametrize(("law", "parameter", "copies", "golden"), CURVES)
def test_rate_curves_by_sums(law, parameter, copies, golden):
    sets = sets_by_sums(law, parameter, copies)
    for delta, (best, times) in golden.items():
        allowed = [s for s, error in sets.items() if error <= delta]
        rates = {s: table_rate(s, delta) for s in allowed}
        assert max(rates.values()) == pytest.approx(best, abs=6e-4)
        assert rates[times] == pytest.approx(best, abs=6e-4)


@pytest.mark.parametrize(("law", "parameter", "copies", "golden"), CURVES)
def test_our_rule_is_at_least_as_good(law, parameter, copies, golden):
    sets = sets_by_sums(law, parameter, copies)
    for times in {times for _, times in golden.values()}:
        ours = decision.decide(law.uniform(parameter), 0, 1, times, copies).error
        if law is Poisson:
            assert ours == pytest.approx(sets[times], abs=1e-9)
        else:
            assert ours <= sets[times] + 1e-9
