"""Dropping: nothing at no damage, all that the net would choose at any, and in between the bargain that it claims."""

import functools

import jax
import numpy as np
import pytest

from helix_jax.coding import coder, drop, segments
from helix_jax.prior import net

GRID = (9, 5, 7)  # two segments, the second nearly empty
DIGITS = 4


@pytest.fixture(scope="module")
def prior(prior_of):
    return prior_of(DIGITS)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(0).uniform(-0.5, 3.5, (*GRID, DIGITS)).astype(np.float32)


def chances(prior, tokens):
    """Probabilities of the causal head before each digit of ``tokens``: float64[t, h, w, k, 4]."""
    plan, config = segments.plan(GRID), prior.config
    known = np.broadcast_to(segments.valid(plan)[..., None], (*segments.valid(plan).shape, DIGITS))
    call = jax.jit(functools.partial(net.causal_logits, config=config))
    logits = np.asarray(call(prior.params, segments.cut(plan, tokens), known), np.float64)
    return segments.join(plan, np.asarray(net.probabilities(logits.astype(np.float32)), np.float64))


def dropped(prior, positions, damage):
    return drop.drop(prior, segments.plan(GRID), positions, damage)


def rounded(positions):
    return np.clip(np.rint(positions), 0, 3).astype(np.uint8)


def test_no_damage_is_rounding(prior, positions):
    done = []
    tokens, left, bits = drop.drop(prior, segments.plan(GRID), positions, 0.0, progress=done.append)
    np.testing.assert_array_equal(tokens, rounded(positions))
    assert tokens.dtype == np.uint8
    assert sum(done) == 2
    p = chances(prior, tokens)
    price = -np.log2(np.take_along_axis(p, tokens[..., None], axis=-1)).clip(max=20)
    assert bits == pytest.approx(price.sum(), rel=1e-3)
    first = (p.argmax(axis=-1) == tokens).all(axis=-1)
    assert left == pytest.approx(first.mean(), abs=0.01)


def test_any_damage_is_what_the_net_would_choose(prior, positions):
    """All tokens are then predicted, whatever the clip was; and they cost less than any others."""
    tokens, left, bits = dropped(prior, positions, 1e9)
    assert left == 1
    np.testing.assert_array_equal(tokens, dropped(prior, 3 - positions, 1e9)[0])
    np.testing.assert_array_equal(chances(prior, tokens).argmax(axis=-1), tokens)
    assert bits < dropped(prior, positions, 0.0)[2]


def test_each_digit_is_the_best_bargain(prior, positions):
    """Against its three rivals, given what was chosen before it; a digit that counts more gives way less."""
    plain, damage = rounded(positions), 0.4
    weights = np.array([8, 1, 1, 1], np.int32)
    weighed = type(prior)(**{**vars(prior), "importance": weights})
    tokens, *_ = dropped(weighed, positions, damage)
    price = -np.log2(chances(prior, tokens)).clip(max=20)
    cost = weights[:, None] * np.square(np.arange(4) - positions[..., None].astype(np.float64)) + damage * price
    paid = np.take_along_axis(cost, tokens[..., None], axis=-1)[..., 0]
    assert (paid <= cost.min(axis=-1) + 1e-4).all()
    changed = (tokens != plain).mean(axis=(0, 1, 2))
    assert 0 < changed[0] < changed[1:].min()


def test_more_damage_costs_fewer_bits(prior, positions):
    """In the coder's bytes, too; the first digits alone are priced as such."""
    plan, bits, sizes = segments.plan(GRID), [], []
    for damage in (0.0, 0.5, 2.0, 20.0):
        tokens, _, price = dropped(prior, positions, damage)
        bits.append(price)
        sizes.append(sum(map(len, coder.compress(prior, "prior", plan, tokens))))
    assert bits == sorted(bits, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]
    tokens, *_ = dropped(prior, positions[..., :2], 0.0)
    np.testing.assert_array_equal(tokens, rounded(positions)[..., :2])
