"""Nets of more digits begin where the old ones ended: by pictures, predictions, bytes and files."""

import dataclasses

import jax
import numpy as np
import pytest

from helix_jax import nets
from helix_jax.coding import coder, ladder, segments
from helix_jax.config import PriorConfig, TokenizerConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import fsq, model, weights
from train import widen

FEW = TokenizerConfig(width=12, encoder_blocks=1, decoder_blocks=1, digits=3)
MANY = dataclasses.replace(FEW, digits=7, silence=1.0)
PRIOR = PriorConfig(width=12, blocks=1, hidden=16, digits=3, frames=4)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 4, (2, 4, 3, 4, 7), dtype=np.uint8)


@pytest.fixture(scope="module")
def wide():
    """(old, new) parameters of a tokenizer."""
    old = model.init(jax.random.key(0), FEW)
    return old, widen.tokenizer(old, FEW, MANY, jax.random.key(1))


@pytest.fixture(scope="module")
def priors():
    """(old, new) parameters of a prior, rounded as the coder has them; the old one has opinions everywhere."""
    leaves, tree = jax.tree.flatten(net.init(jax.random.key(2), PRIOR))
    keys = jax.random.split(jax.random.key(3), len(leaves))
    drawn = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    old = jax.tree.unflatten(tree, drawn)
    return net.quantise(old), net.quantise(widen.prior(old, PRIOR, dataclasses.replace(PRIOR, digits=7)))


def test_the_picture_is_the_same_whatever_the_new_digits_are(wide, tokens):
    old, new = wide
    before = model.pixels(old, fsq.centre(tokens[..., :3], 1.5), FEW)
    np.testing.assert_allclose(model.pixels(new, fsq.centre(tokens, 1.0), MANY), before, atol=2e-5)
    assert np.std(before) > 0.01


def test_the_old_digits_stay_and_the_new_ones_are_mostly_silent(wide):
    old, new = wide
    clip = np.random.default_rng(1).integers(0, 256, (2, 16, 32, 32, 3), dtype=np.uint8)
    found = np.asarray(model.encode(new, clip, MANY))
    np.testing.assert_array_equal(found[..., :3], model.encode(old, clip, FEW))
    assert 0.4 < np.mean(found[..., 3:] == 1) < 0.95


def test_a_silent_digit_is_one_that_is_not_sent(wide, tokens):
    """To the bit: it adds nothing to the decoder's input."""
    _, new = wide
    leaves, tree = jax.tree.flatten(new)  # of which the new digits say something
    keys = jax.random.split(jax.random.key(6), len(leaves))
    some = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params, silent = jax.tree.unflatten(tree, some), tokens.copy()
    silent[..., 4:] = 1
    shown = [model.decode(params, levels, MANY) for levels in (silent, ladder.whole_tokens(tokens[..., :4], MANY))]
    np.testing.assert_array_equal(*shown)
    assert np.any(np.asarray(model.decode(params, tokens, MANY)) != shown[0])


def test_predictions_of_the_old_digits_stay_to_the_bit(priors, tokens):
    old, new = priors
    more, generator = dataclasses.replace(PRIOR, digits=7), np.random.default_rng(4)
    mask = generator.random(tokens.shape) < 0.7
    for way in (net.masked_logits, net.causal_logits):
        before = way(old, tokens[..., :3], mask[..., :3], PRIOR)
        after = way(new, tokens, mask, more)
        np.testing.assert_array_equal(after[..., :3, :], before)
        assert len(np.unique(before)) > 50
        chances = np.asarray(net.probabilities(after[..., 3:, :]))
        np.testing.assert_allclose(chances, np.broadcast_to(widen.FREQUENCIES, chances.shape), atol=0.005)


@pytest.mark.parametrize("mode", ["context", "prior"])
def test_the_old_digits_are_coded_as_they_were(tmp_path, wide, priors, any_start, mode):
    """By the files: the same bytes where only they are sent."""
    old_model, old_prior = tmp_path / "m.safetensors", tmp_path / "p.safetensors"
    weights.save(old_model, wide[0], FEW, {})
    starts = [any_start(each, 3, 1) for each in ("context", "prior")]
    weight = np.array([7, 5, 3], np.int32)
    digest = weights.load(old_model).digest
    prior_weights.save(old_prior, priors[0], PRIOR, digest, {}, (starts[0], starts[1]), weight)
    old = nets.load(old_model, old_prior)
    new = widen.written(old, 7, 1.0, 0, tmp_path / "out")
    some = np.random.default_rng(7).integers(0, 4, (8, 3, 4, 3), dtype=np.uint8)
    plan = segments.plan(some.shape[:3])
    assert coder.compress(new.prior, mode, plan, some) == coder.compress(old.prior, mode, plan, some)
    np.testing.assert_array_equal(new.prior.importance, [7, 5, 3, 1, 1, 1, 1])


def test_the_frequencies_are_those_of_new_digits():
    """Of a normal channel with the standard deviation SPREAD around the middle of level 1."""
    middle = np.log(1.5 / 2.5)
    found = np.bincount(fsq.quantise(np.random.default_rng(5).normal(middle, widen.SPREAD, 20_000)), minlength=4)
    np.testing.assert_allclose(found / 20_000, widen.FREQUENCIES, atol=0.01)


def test_the_program_writes_a_pair(tmp_path, wide, priors, capsys):
    old_model, old_prior = tmp_path / "m.safetensors", tmp_path / "p.safetensors"
    weights.save(old_model, wide[0], FEW, {})
    prior_weights.save(old_prior, priors[0], PRIOR, weights.load(old_model).digest, {})
    given = ["--tokenizer", str(old_model), "--prior", str(old_prior), "--out", str(tmp_path / "out")]
    widen.main(["--digits", "5", *given])
    pair = nets.load(tmp_path / "out" / "tokenizer.safetensors", tmp_path / "out" / "prior.safetensors")
    assert pair.prior is not None
    assert (pair.tokenizer.config.digits, pair.tokenizer.config.silence, pair.prior.config.digits) == (5, 1.0, 5)
    with pytest.raises(SystemExit):
        widen.main(["--digits", "2", *given])
    assert "give at least the 3 of before" in capsys.readouterr().err
