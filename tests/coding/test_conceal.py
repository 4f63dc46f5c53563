"""Concealment by the prior: what is known stays, what is lost becomes what the net expects."""

import functools

import jax
import numpy as np
import pytest

from helix_jax.coding import conceal
from helix_jax.config import PriorConfig
from helix_jax.prior import net, weights
from helix_jax.prior.weights import Prior


@pytest.fixture(scope="module")
def prior(net_files):
    return weights.load(net_files[4])


def some(shape, seed=0, share=0.4):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 4, (*shape, 4), dtype=np.uint8), generator.random(shape) < share


def constant(logits):
    """A prior that says the same of every digit."""
    config = PriorConfig(width=4, blocks=1, hidden=4, digits=4)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), config))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params["alone"]["b"] = np.tile(np.array(logits, np.float32), 4)
    context, mixed = weights.fresh_starts(4)
    return Prior(params, config, context, mixed, np.ones(4, np.int32), tokenizer=bytes(32), digest=bytes(32))


@pytest.mark.parametrize("frames", [1, 7, 8, 19])
def test_known_tokens_stay_and_lost_ones_are_between_levels(prior, frames):
    """In windows of eight frames, the last one filled up; progress counts all frames."""
    tokens, lost = some((frames, 3, 5), frames)
    lost[8:16] = False  # a window without loss
    done = []
    levels = conceal.fill_lost(tokens, lost, prior, progress=done.append)
    assert (levels.dtype, levels.shape) == (np.float32, tokens.shape)
    np.testing.assert_array_equal(levels[~lost], tokens[~lost])
    assert ((levels[lost] >= 0) & (levels[lost] <= 3)).all()
    assert sum(done) == frames


def test_nothing_lost_and_everything_lost(prior):
    tokens, lost = some((5, 3, 5))
    np.testing.assert_array_equal(conceal.fill_lost(tokens, lost & False, prior), tokens)
    everything = conceal.fill_lost(tokens, lost | True, prior)
    np.testing.assert_array_equal(conceal.fill_lost(3 - tokens, lost | True, prior), everything)


def test_what_stood_in_lost_places_does_not_matter(prior):
    tokens, lost = some((9, 3, 5), 3)
    other = np.where(lost[..., None], 3 - tokens, tokens)
    np.testing.assert_array_equal(conceal.fill_lost(other, lost, prior), conceal.fill_lost(tokens, lost, prior))


@pytest.mark.parametrize(
    ("logits", "mean"),
    [((0, 0, 0), 1.5), ((12, 0, 12), 3), ((-12, -12, 0), 0), ((0, 12, -12), 1.5), ((-12, 0, 0), 0.5)],
)
def test_lost_digits_become_their_mean(logits, mean):
    """The best guess for the squared error, not the likeliest level."""
    tokens, lost = some((8, 4, 4))
    levels = conceal.fill_lost(tokens, lost, constant(logits))
    np.testing.assert_allclose(levels[lost], mean, atol=1e-3)


@functools.cache
def asked(config):
    return jax.jit(functools.partial(net.masked_logits, config=config))


@pytest.mark.parametrize("digits", [4, 2])
def test_levels_are_what_the_net_says(prior, digits):
    """Asked with a group of frames on either side, here beyond the clip, of which nothing is known; nor is anything of
    digits that are not sent."""
    tokens, lost = some((8, 3, 5), 5)
    around = [(4, 4), (0, 0), (0, 0)]
    known = ~np.pad(lost, around, constant_values=True)[..., None] & (np.arange(4) < digits)
    logits = asked(prior.config)(prior.params, np.pad(tokens, [*around, (0, 0)])[None], known[None])[0, ..., :digits, :]
    levels = conceal.fill_lost(tokens[..., :digits], lost, prior)
    assert levels.shape == (8, 3, 5, digits)
    np.testing.assert_allclose(levels[lost], np.asarray(net.expectation(logits))[4:-4][lost], atol=1e-5)


def test_a_segment_that_is_lost_whole_is_seen_from_both_sides(prior):
    """A group of frames before it, and one after; none further off."""
    tokens, lost = some((24, 3, 5), 7, share=0)
    lost[8:16] = True
    levels = conceal.fill_lost(tokens, lost, prior)
    for frames, matters in ((slice(0, 4), False), (slice(4, 8), True), (slice(16, 20), True), (slice(20, 24), False)):
        other = tokens.copy()
        other[frames] = 3 - other[frames]
        changed = conceal.fill_lost(other, lost, prior)[8:16] != levels[8:16]
        assert changed.any() == matters
