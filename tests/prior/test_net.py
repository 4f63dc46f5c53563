"""The net is exact: the same bits on every road, and those of a twin that knows nothing but whole numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from helix_jax import nets, parallel
from helix_jax.prior import net, reference, weights

SHAPE = (6, 5, 3)  # a group of the tokenizer and a half


@pytest.fixture(scope="module")
def case(net_files):
    return make_case(net_files, 4)


def make_case(net_files, k):
    """(Prior, digits uint8[16, t, h, w, k], known of the same shape): frames, tokens and last digits are hidden."""
    generator = np.random.default_rng(k)
    levels = generator.choice(4, (16, *SHAPE, k), p=[0.4, 0.4, 0.1, 0.1]).astype(np.uint8)
    known = generator.random(levels.shape[:-1]) < generator.random((16, 1, 1, 1))
    known &= generator.random((16, SHAPE[0], 1, 1)) < 0.8
    known = known[..., None] & (np.arange(k) < generator.integers(1, k + 1, known.shape)[..., None])
    known[0], known[1] = False, True
    return weights.load(net_files[k]), levels, known


def logits(prior, levels, known):
    return [np.asarray(a) for a in net.both_logits(prior.params, levels, known, prior.config)]


def whole(values):
    """Logits as the whole numbers that they are."""
    found = np.asarray(values, np.float64) * 256
    assert (found == np.round(found)).all()
    return found.astype(np.int64)


# ---- the twin, from the text of net.py and of the file format ---------------------------------------------


def halved(values, shift):
    """floor(values / 2^shift + 1/2)."""
    return values if (np.asarray(shift) == 0).all() else (2 * values + (1 << shift)) >> (shift + 1)


def told(levels, known):
    """0 and 1: own digits, those last known before, those next known after, and whether own ones equal these."""
    count, t, h, w, k = levels.shape
    own, before, after = (np.full(levels.shape, -1) for _ in range(3))
    for f in range(t):
        own[:, f] = np.where(known[:, f], levels[:, f], -1)
        for g in range(f):
            before[:, f] = np.where(known[:, g], levels[:, g], before[:, f])
        for g in range(t - 1, f, -1):
            after[:, f] = np.where(known[:, g], levels[:, g], after[:, f])
    hot = [(digits[..., None] == np.arange(4)).reshape(count, t, h, w, 4 * k) for digits in (own, before, after)]
    same = [known & (own == digits) for digits in (before, after)]
    return np.concatenate([*hot, *same], axis=-1).astype(np.int64)


def twin(flat, levels, known):
    """(alone, after), int64[B, t, h, w, k, 3] in units of 1 / 256."""
    flat = {name: array.astype(np.int64) for name, array in flat.items()}
    count, t, h, w, k = levels.shape
    limits = lambda x, low, high: np.minimum(np.maximum(x, low), high)  # noqa: E731

    def sums(name, x):
        """In units of 2^-(shift + bits of the input)."""
        total = x @ flat[f"{name}.w"] + flat[f"{name}.b"]
        assert np.abs(total).max() < 2**24
        return total, flat[f"{name}.shift"]

    total, shift = sums("embed", told(levels, known))
    phase = flat["phase"][np.arange(t) % 4].reshape(1, t, 1, 1, -1)
    stream = limits(halved((total << 10) + (phase << shift), shift), -(2**15), 2**15)
    for number in range(2):
        a = np.pad(limits(halved(stream, 5), -127, 127), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        around = np.concatenate([a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)
        b = limits(halved(*sums(f"blocks.{number}.spatial", around)), 0, 127)
        b = np.pad(b, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        total, shift = sums(f"blocks.{number}.temporal", np.concatenate([b[:, i : i + t] for i in range(3)], axis=-1))
        stream = limits(stream + limits(halved(total << 5, shift), -(2**15), 2**15), -(2**15), 2**15)
    features = limits(halved(stream, 5), -127, 127)
    given = np.zeros((count, t, h, w, 3 * k), np.int64)
    for i in range(k):
        later = np.arange(3 * k) // 3 > i
        given += np.where(later, flat["within"][4 * i + levels[..., i]], 0)
    found = []
    for name, more in (("alone", 0), ("after", given)):
        total, shift = sums(name, features)
        value = halved((total << 3) + (more << shift), shift)
        found.append(limits(value, -3071, 3071).reshape(count, t, h, w, k, 3))
    return found


@pytest.mark.parametrize("digits", [4, 8])
def test_logits_equal_whole_numbers(net_files, digits):
    prior, levels, known = make_case(net_files, digits)
    flat = safetensors.numpy.load(net_files[digits].read_bytes())
    for ours, theirs in zip(logits(prior, levels, known), twin(flat, levels, known), strict=True):
        np.testing.assert_array_equal(whole(ours), theirs)
        share = np.mean(np.abs(theirs) == 3071)
        assert 0 < share < 0.5  # the limits are reached, and are not all there is


# ---- one result on every road ------------------------------------------------------------------------------


def test_batch_of_one_equals_batch_of_16(case):
    prior, levels, known = case
    together = logits(prior, levels, known)
    for n in (0, 5, 15):
        alone = logits(prior, levels[n : n + 1], known[n : n + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[n])


def test_jit_equals_eager(case):
    prior, levels, known = case
    jitted = jax.jit(functools.partial(net.both_logits, config=prior.config))(prior.params, levels, known)
    for one, other in zip(jitted, logits(prior, levels, known), strict=True):
        np.testing.assert_array_equal(one, other)


def _logits(params, levels, known, *, config):
    return net.both_logits(params, levels, known, config)


def test_eight_devices_equal_one(case):
    prior, levels, known = case
    assert len(jax.devices()) == 8
    one = parallel.spread(_logits, (jax.devices()[0],), config=prior.config)(prior.params, levels, known)
    eight = parallel.spread(_logits, config=prior.config)(prior.params, levels, known)
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_operands_give_the_same_bits(case, monkeypatch):
    """Weights and activations have no more than eight significant bits; sums are kept in float32."""
    prior, levels, known = case
    wanted = logits(prior, levels, known)
    seen = []

    def product(x, w):
        for operand in (x, w):
            seen.append(np.array_equal(operand, operand.astype(jnp.bfloat16).astype(jnp.float32)))
        return jnp.matmul(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    def linear(layer, x):
        return product(x, layer.w[...]) + layer.b[...].reshape((1,) * (x.ndim - 1) + (-1,))

    def taps(layer, shifted):
        return linear(layer, jnp.concatenate(shifted, axis=-1))

    monkeypatch.setattr(nets.Linear, "__call__", linear)
    monkeypatch.setattr(net, "_taps", taps)
    for one, other in zip(logits(prior, levels, known), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(seen) == 2 * 7  # embed, two blocks of two, two heads
    assert all(seen)


@pytest.mark.parametrize("frame", [0, 1, 5])
def test_one_frame_for_the_coder(case, frame):
    """``next_frame_logits`` is ``after`` without the digits' own part; NumPy's twin has the same whole numbers."""
    prior, levels, _ = case
    known = np.broadcast_to(np.arange(SHAPE[0]).reshape(1, -1, 1, 1, 1) < frame, levels.shape)
    found = np.asarray(net.next_frame_logits(prior.params, levels, known, frame, prior.config))
    without = prior.params | {"within": jnp.zeros_like(prior.params["within"])}
    after = net.both_logits(without, levels, known, prior.config)[1]
    np.testing.assert_array_equal(found, whole(after)[:, frame])
    numbers = np.where(known, levels, reference.NONE).astype(np.int64)
    np.testing.assert_array_equal(reference.Net(prior.params).logits(numbers, frame), found)


# ---- what a logit may depend on ------------------------------------------------------------------------------


def test_hidden_digits_are_not_looked_at(case):
    prior, levels, known = case
    other = np.where(known, levels, 3 - levels)
    alone, after = logits(prior, levels, known)
    again = logits(prior, other, known)
    np.testing.assert_array_equal(again[0], alone)
    assert (again[1] != after).any()
    # with all digits but the last one changed back, that one's logits are the same: only those before it count
    same = other.copy()
    same[..., :-1] = levels[..., :-1]
    hidden = np.zeros_like(known)
    np.testing.assert_array_equal(logits(prior, same, hidden)[1], logits(prior, levels, hidden)[1])


def test_probabilities_follow_the_tree():
    values = np.random.default_rng(0).normal(0, 3, (50, 3)).astype(np.float32)
    p = np.asarray(net.probabilities(values), np.float64)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-6)
    for n, (upper, under) in enumerate([((2, 3), (0, 1)), ((1,), (0,)), ((3,), (2,))]):
        odds = np.log(p[:, upper].sum(axis=-1) / p[:, under].sum(axis=-1))
        np.testing.assert_allclose(odds, values[:, n], atol=1e-4)
    np.testing.assert_allclose(net.expectation(values), p @ np.arange(4), rtol=1e-5)


def test_rounding():
    x = jnp.array([-1.5, -0.75, -0.5, 0.0, 0.49, 0.5, 2.5])
    assert net.rounded(x).tolist() == [-1, -1, 0, 0, 0, 1, 3]
    assert jax.grad(lambda x: net.rounded(x).sum())(x).tolist() == [1] * 7  # straight through


@pytest.mark.parametrize("call", [net.exponents, jax.jit(net.exponents)])
def test_exponents_are_exact(call):
    """The largest weight of a channel takes seven bits, at every power of two; what is rounded keeps its exponent."""
    largest = np.ldexp(np.float32(127), -np.arange(15)).astype(np.float32)
    np.testing.assert_array_equal(call(jnp.stack([largest, -largest / 2])), np.arange(15))
    np.testing.assert_array_equal(call(jnp.stack([largest * np.float32(0.51), largest * 0])), np.arange(15))
    assert call(jnp.array([[500.0, 1e-9, 0.0]])).tolist() == [0, 14, 14]


def test_rounded_parameters_stay(case):
    """Rounding twice changes nothing, and gradients pass as if it were not there."""
    params = case[0].params
    for one, other in zip(jax.tree.leaves(net.quantise(params)), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = jax.tree.map(lambda leaf: leaf * 0.97 + 0.001, params)
    grads = jax.jit(jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(net.quantise(p)))))(moved)
    for leaf in jax.tree.leaves(grads):
        assert np.isin(leaf, (0, 0.5, 1)).all()  # less only at the limit of a weight
