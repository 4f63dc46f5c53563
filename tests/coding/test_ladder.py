"""Qualities and budgets: the ladder, the search in it, and tokens that end early."""

import itertools

import numpy as np
import pytest

from helix_jax.coding import ladder
from helix_jax.config import TokenizerConfig


@pytest.mark.parametrize("digits", [1, 4, 8, 15])
@pytest.mark.parametrize("coded", [False, True])
def test_ladders_go_down(digits, coded):
    """From everything to at least one digit; no rung keeps more than the one above it."""
    rungs = ladder.ladder(digits, coded)
    assert rungs[0] == ladder.Rung(digits, 0.0)
    assert rungs[-1].digits == (max(1, round(3 * digits / 8)) if coded else 1)
    for above, below in itertools.pairwise(rungs):
        assert above.digits >= below.digits >= 1
        assert above.damage <= below.damage
        assert (above.digits, above.damage) != (below.digits, below.damage) or digits < 8
    assert any(rung.damage for rung in rungs) == coded


def test_qualities_span_the_ladder():
    rungs = ladder.ladder(8, True)
    places = [rungs.index(ladder.rung_of(rungs, quality)) for quality in range(ladder.BEST, -1, -1)]
    assert places[0] == 0
    assert places[-1] == len(rungs) - 1
    assert places == sorted(set(places))
    digits = [ladder.rung_of(ladder.ladder(8, False), quality).digits for quality in range(ladder.BEST, -1, -1)]
    assert digits == sorted(digits, reverse=True)
    assert (digits[0], digits[-1]) == (8, 1)


@pytest.mark.parametrize("budget", [*range(95, 130), 1000])
def test_the_best_rung_that_is_paid_for(budget):
    """Against trying all of them, in a few attempts."""
    costs = [127, 126, 120, 119, 118, 118, 111, 105, 104, 103, 102, 101, 100]
    rungs, tried = list(range(len(costs))), []

    def attempt(rung):
        tried.append(rung)
        return f"rung {rung}", costs[rung]

    found, least = ladder.best_within(rungs, attempt, budget)
    affordable = [rung for rung in rungs if costs[rung] <= budget]
    if affordable:
        assert (found, least) == (f"rung {affordable[0]}", None)
    else:
        assert (found, least) == (None, 100)
    assert len(tried) <= 5


def test_tokens_at_a_rung_without_damage():
    positions = np.random.default_rng(0).uniform(-0.5, 3.5, (2, 3, 4, 8)).astype(np.float32)
    tokens, dropped = ladder.tokens_at(ladder.Rung(5, 0.0), positions, None)
    np.testing.assert_array_equal(tokens, np.clip(np.rint(positions), 0, 3)[..., :5])
    assert (tokens.dtype, dropped) == (np.uint8, 0.0)


@pytest.mark.parametrize("silence", [1.5, 1.0])
def test_digits_that_were_not_sent_are_silent(silence):
    tokens = np.random.default_rng(0).integers(0, 4, (2, 3, 4, 5), dtype=np.uint8)
    whole = ladder.whole_tokens(tokens, TokenizerConfig(digits=8, silence=silence))
    np.testing.assert_array_equal(whole[..., :5], tokens)
    assert whole.dtype == np.float32
    assert (whole[..., 5:] == silence).all()
    assert ladder.whole_tokens(tokens, TokenizerConfig(digits=5, silence=silence)) is tokens
