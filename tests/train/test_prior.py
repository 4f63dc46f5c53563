"""The prior's loss: bits per digit by the definition, of hidden digits and no others; and it can be learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helix_jax.config import PriorConfig
from helix_jax.prior import net
from train import masks, prior
from train.config import DataConfig, PriorTraining

CFG = PriorTraining(
    model=PriorConfig(width=8, blocks=1, hidden=8, digits=3, frames=4),
    data=DataConfig(frames=16, size=32, speeds=(1,)),
)
SHAPE = (4, 4, 5, 3)


def test_cross_entropy_is_minus_log2_of_the_probability():
    """Of every digit, to where a logit ends."""
    generator = np.random.default_rng(0)
    logits = np.concatenate([generator.normal(0, 3, (200, 3)), generator.choice([-12, 0, 12], (50, 3))])
    digits = np.tile(np.arange(4, dtype=np.uint8), (len(logits), 1))
    found = prior.cross_entropy(np.repeat(logits[:, None], 4, axis=1).astype(np.float32), digits)
    assert found.shape == digits.shape
    p = np.asarray(net.probabilities(logits.astype(np.float32)), np.float64)
    # float32 keeps a probability near one to 2^-24 of it, and a factor that comes as 1 - x no better
    np.testing.assert_allclose(2.0 ** -np.asarray(found, np.float64), p, rtol=1e-4, atol=2e-7)
    exact = [1 / (1 + np.exp(-logits[:, n])) for n in range(3)]
    tree = [(1 - exact[0]) * (1 - exact[1]), (1 - exact[0]) * exact[1], exact[0] * (1 - exact[2]), exact[0] * exact[2]]
    np.testing.assert_allclose(found, -np.log2(np.stack(tree, axis=1)), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def case():
    """Parameters as no training has made them, tokens of 24 examples, and a key."""
    params = jax.jit(lambda key: net.init(key, CFG.model))(jax.random.key(2))
    params["earlier"] = np.random.default_rng(3).normal(0, 1, params["earlier"].shape).astype(np.float32)
    digits = np.random.default_rng(1).integers(0, 4, (24, *SHAPE), dtype=np.uint8)
    return params, digits, jax.random.key(11)


def told(params, digits, key):
    """As ``told_once``, of a key that is used again, as the same masks are wanted again."""
    return told_once(params, digits, jax.random.clone(key))


@jax.jit
def told_once(params, digits, key):
    """(known, sent, probabilities float32[..., 4] masked, causal), each of all digits; and what the loss is."""
    known, sent = jax.vmap(functools.partial(masks.mixture, shape=SHAPE))(
        jax.random.split(jax.random.clone(key), len(digits))  # the loss draws the same masks
    )
    sent, rounded = jnp.broadcast_to(sent[:, None, None, None], known.shape), net.quantise(params)
    logits = net.masked_logits(rounded, digits, known, CFG.model), net.causal_logits(rounded, digits, sent, CFG.model)
    return known, sent, *map(net.probabilities, logits), prior.loss_of_tokens(params, digits, key, CFG)


def loss(params, digits, key):
    return told(params, digits, key)[-1]


def test_hidden_digits_are_counted_and_no_others(case):
    """Masked: of the sent digits those that are hidden; causal: all that are sent. Each example weighs alike."""
    params, digits, key = case
    known, sent, *both = map(np.asarray, told(params, digits, key)[:-1])
    wanted = {}
    for name, p, counted in zip(("masked", "causal"), both, (sent & ~known, sent), strict=True):
        bits = -np.log2(np.take_along_axis(p.astype(np.float64), digits[..., None].astype(int), axis=-1)[..., 0])
        each = [one[which].mean() if which.any() else 0 for one, which in zip(bits, counted, strict=True)]
        wanted[name] = np.mean(each)
        assert abs(wanted[name] - bits[counted].mean()) > 1e-3  # some examples count more digits than others
        assert abs(wanted[name] - bits.mean()) > 1e-3
    total, parts = loss(params, digits, key)
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(wanted, rel=1e-4)
    assert float(total) == pytest.approx(sum(wanted.values()), rel=1e-4)


def test_digits_that_are_not_sent_do_not_count(case):
    """Nor do they tell anything: with others in their place the loss is the same to the bit."""
    params, digits, key = case
    sent = np.asarray(told(params, digits, key)[1])
    assert not sent.all()
    before = float(loss(params, digits, key)[0])
    assert float(loss(params, np.where(sent, digits, 3 - digits), key)[0]) == before
    assert float(loss(params, 3 - digits, key)[0]) != before


def moving(key):
    """Tokens uint8[24, t, h, w, k] with structure: still, each place by itself, the second digit told by the first, and
    the third by the token to the left."""
    t, h, w, _ = SHAPE
    first = jax.random.randint(key, (24, 1, h, w), 0, 4)
    tokens = jnp.stack([first, (first + 1) % 4, jnp.roll(first, 1, axis=3)], axis=-1)
    return jnp.broadcast_to(tokens, (24, t, h, w, 3)).astype(jnp.uint8)


@pytest.mark.slow
def test_the_loss_falls():
    """Of tokens with structure, in sixty steps, both ways; every parameter is trained. Even tokens cost what they
    are."""
    optimiser = optax.adam(0.02)

    @jax.jit
    def step(params, state, key):
        key_tokens, key_loss = jax.random.split(key)
        (_, parts), grads = jax.value_and_grad(prior.loss_of_tokens, has_aux=True)(
            params, moving(key_tokens), key_loss, CFG
        )
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, parts

    start = params = jax.jit(lambda key: net.init(key, CFG.model))(jax.random.key(0))
    state, course = optimiser.init(params), []
    for key in jax.random.split(jax.random.key(1), 60):
        params, state, parts = step(params, state, key)
        course.append([float(parts["masked"]), float(parts["causal"])])
    begin, end = np.mean(course[:5], axis=0), np.mean(course[-10:], axis=0)
    assert (begin > 1.5).all()
    assert (end < 0.6).all()
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(params), strict=True):
        assert (np.asarray(before) != np.asarray(after)).any()
    even = np.random.default_rng(0).integers(0, 4, (24, *SHAPE), dtype=np.uint8)
    assert all(float(part) > 1.95 for part in loss(params, even, jax.random.key(5))[1].values())
