"""The net is exact: the same bits on every road, and those of a twin that knows nothing but whole numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from helix_jax import parallel
from helix_jax.prior import inputs as net_inputs
from helix_jax.prior import net, weights
from helix_jax.reference import token_coder

SHAPE = (6, 5, 4)  # a group of the tokenizer and a half
NEAR = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # tokens that the causal head is told of: (y, x)
KEPT = 4  # so many of them are compared with one frame before


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


CALLS = {"masked": net.masked_logits, "causal": net.causal_logits}


@functools.cache
def jitted(way, config):
    return jax.jit(functools.partial(CALLS[way], config=config))


def logits(way, prior, levels, known):
    return np.asarray(jitted(way, prior.config)(prior.params, levels, known))


def whole(values):
    """Logits as the whole numbers that they are."""
    found = np.asarray(values, np.float64) * 256
    assert (found == np.round(found)).all()
    return found.astype(np.int64)


# ---- the twin, from the text of net.py and of the file format ---------------------------------------------


def halved(values, shift):
    """floor(values / 2^shift + 1/2)."""
    return values if (np.asarray(shift) == 0).all() else (2 * values + (1 << shift)) >> (shift + 1)


def limits(values, low, high):
    return np.minimum(np.maximum(values, low), high)


def hot(digits):
    """-1 for unknown: all zeros."""
    return (digits[..., None] == np.arange(4)).reshape(*digits.shape[:-1], -1)


def told_masked(levels, known):
    """Own digits, those last known before, those next known after; whether own ones equal these; whether the last known
    equals the one known before that."""
    t = levels.shape[1]
    own, before, after, still = (np.full(levels.shape, -1) for _ in range(4))
    for at in np.ndindex(levels.shape):
        n, f, *place = at
        earlier = [levels[n, g, *place] for g in range(f) if known[n, g, *place]]
        later = [levels[n, g, *place] for g in range(f + 1, t) if known[n, g, *place]]
        own[at] = levels[at] if known[at] else -1
        before[at] = earlier[-1] if earlier else -1
        after[at] = later[0] if later else -1
        still[at] = len(earlier) > 1 and earlier[-1] == earlier[-2]
    same = [known & (own == other) for other in (before, after)]
    return np.concatenate([*map(hot, (own, before, after)), *same, still], axis=-1).astype(np.int64)


def told_causal(levels, known):
    """The same where nothing is known but the two frames before."""
    own = np.where(known, levels.astype(np.int64), -1)
    nothing = np.full_like(own[:, :1], -1)
    last, second = (np.concatenate([*[nothing] * n, own], axis=1)[:, : own.shape[1]] for n in (1, 2))
    none, still = np.full_like(own, -1), (last == second) & (last >= 0)
    return np.concatenate([*map(hot, (none, last, none)), none >= 0, none >= 0, still], axis=-1).astype(np.int64)


def told_around(levels, known):
    """Digits of the tokens at the left and above, and which of the first four are as in the frame before."""
    _, t, h, w, _ = levels.shape
    own = np.where(known, levels.astype(np.int64), -1)
    own = np.pad(own, ((0, 0), (1, 0), (2, 2), (2, 2), (0, 0)), constant_values=-1)
    now, then = ([own[:, f : f + t, 2 + y : 2 + y + h, 2 + x : 2 + x + w] for y, x in NEAR] for f in (1, 0))
    stayed = [(a == b) & (a >= 0) for a, b in zip(now[:KEPT], then, strict=False)]
    return np.concatenate([*map(hot, now), *stayed], axis=-1).astype(np.int64)


class Twin:
    """Of the tensors of a weights file, in int64 alone."""

    def __init__(self, path):
        self.flat = {name: array.astype(np.int64) for name, array in safetensors.numpy.load(path.read_bytes()).items()}

    def sums(self, name, x):
        """(x @ w + b, its fractional bits less those of x)."""
        total = x @ self.flat[f"{name}.w"] + self.flat[f"{name}.b"]
        assert np.abs(total).max() < 2**24
        return total, self.flat[f"{name}.shift"]

    def features(self, told, taps):
        """int64[B, t, h, w, width] in steps of 1 / 32. taps: of the three in time, past, present and future."""
        _, t, h, w, _ = told.shape
        total, shift = self.sums("embed", told)
        phase = self.flat["phase"][np.arange(t) % 4].reshape(1, t, 1, 1, -1)
        stream = limits(halved((total << 10) + (phase << shift), shift), -(2**15), 2**15)
        for number in range(sum(name.endswith("spatial.w") for name in self.flat)):
            a = np.pad(limits(halved(stream, 5), -127, 127), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
            near = np.concatenate([a[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)
            b = limits(halved(*self.sums(f"blocks.{number}.spatial", near)), 0, 127)
            b = np.pad(b, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
            frames = [b[:, i : i + t] * (i < taps) for i in range(3)]
            total, shift = self.sums(f"blocks.{number}.temporal", np.concatenate(frames, axis=-1))
            stream = limits(stream + limits(halved(total << 5, shift), -(2**15), 2**15), -(2**15), 2**15)
        return limits(halved(stream, 5), -127, 127)

    def logit(self, name, x):
        total, shift = self.sums(name, x)
        return limits(halved(total << 3, shift), -3071, 3071)

    def masked(self, levels, known):
        """int64[B, t, h, w, k, 3] in units of 1 / 256."""
        return self.logit("alone", self.features(told_masked(levels, known), 3)).reshape(*levels.shape, 3)

    def causal(self, levels, known):
        features = self.features(told_causal(levels, known), 2)
        total, shift = self.sums("begun", np.concatenate([features, told_around(levels, known) << 5], axis=-1))
        unit = shift + 15  # of a sum to which both bits of 2^-(shift + 5) and of 2^-10 are added
        total, found = total << 10, []
        for j in range(levels.shape[-1]):
            assert np.abs(total >> np.minimum(shift + 5, 10)).max() < 2**24  # in the finer of the two
            hidden = limits(halved(total, unit - 5), 0, 127)
            found.append(self.logit("after", hidden)[..., 3 * j : 3 * j + 3])
            told = self.flat["earlier"][4 * j + levels[..., j]] << (shift + 5)
            total = np.where(known[..., j, None], total + told, total)
        return np.stack(found, axis=-2)


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("digits", [4, 8])
def test_logits_equal_whole_numbers(net_files, way, digits):
    prior, levels, known = make_case(net_files, digits)
    theirs = getattr(Twin(net_files[digits]), way)(levels, known)
    np.testing.assert_array_equal(whole(logits(way, prior, levels, known)), theirs)
    share = np.mean(np.abs(theirs) == 3071)
    assert 0.01 < share < 0.5  # the limits are reached, and are not all there is


def test_the_shipped_net_equals_whole_numbers(walk):
    """Both ways, of tokens that change slowly and of even ones."""
    prior, twin = weights.load(), Twin(weights.DEFAULT)
    grid, k = (5, 3, 4), prior.config.digits
    even = np.random.default_rng(0).integers(0, 4, (*grid, k), dtype=np.uint8)
    levels = np.stack([walk(grid, k), even])
    known = np.random.default_rng(1).random(levels.shape) < 0.7
    call = jax.jit(functools.partial(net.both_logits, config=prior.config))
    for found, way in zip(call(prior.params, levels, known, known), (twin.masked, twin.causal), strict=True):
        np.testing.assert_array_equal(whole(found), way(levels, known))


# ---- one result on every road ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", CALLS)
def test_batch_of_one_equals_batch_of_16(case, way):
    prior, levels, known = case
    together = logits(way, prior, levels, known)
    for n in (0, 5, 15):
        np.testing.assert_array_equal(logits(way, prior, levels[n : n + 1], known[n : n + 1])[0], together[n])


@pytest.mark.parametrize("way", CALLS)
def test_jit_equals_eager(case, way):
    prior, levels, known = case
    with jax.disable_jit():
        eager = CALLS[way](prior.params, levels, known, prior.config)
    np.testing.assert_array_equal(eager, logits(way, prior, levels, known))


def _both(params, levels, known, sent, *, config):
    return net.both_logits(params, levels, known, sent, config)


def test_eight_devices_equal_one(case):
    """And both ways at once equal each by itself, with what it is told."""
    prior, levels, known = case
    assert len(jax.devices()) == 8
    sent = np.roll(known, 3, axis=0)
    eight = parallel.spread(_both, config=prior.config)(prior.params, levels, known, sent)
    for way, told, found in zip(CALLS, (known, sent), eight, strict=True):
        assert len(found.devices()) == 8
        np.testing.assert_array_equal(found, logits(way, prior, levels, told))


def in_bfloat16(jaxpr, consts, *args):
    """What a jaxpr computes when every matrix product takes bfloat16 operands, its sums in float32: (results, number of
    products). Asserts that the operands lose nothing."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    products = 0
    for eqn in jaxpr.eqns:
        given = [atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom] for atom in eqn.invars]
        params = dict(eqn.params)
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if inner is not None:
            found, more = in_bfloat16(inner.jaxpr, inner.consts, *given)
            products += more
        else:
            if eqn.primitive is jax.lax.dot_general_p:
                narrow = [jnp.asarray(operand).astype(jnp.bfloat16) for operand in given]
                for operand, cut in zip(given, narrow, strict=True):
                    np.testing.assert_array_equal(operand, cut.astype(jnp.float32))
                given, products = narrow, products + 1
                params["preferred_element_type"] = jnp.dtype(jnp.float32)
            found = eqn.primitive.bind(*given, **params)
            found = found if eqn.primitive.multiple_results else [found]
        values |= zip(eqn.outvars, found, strict=True)
    results = [atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom] for atom in jaxpr.outvars]
    return results, products


@pytest.mark.parametrize(
    ("way", "products"),
    [
        ("masked", 1 + 2 * (9 + 3) + 1),  # embedding, two blocks of 9 and 3 taps, head
        ("causal", 1 + 2 * (9 + 2) + 1 + 4),  # no future; the head's beginning, and each digit's end of it
    ],
)
def test_bfloat16_operands_give_the_same_bits(case, way, products):
    """Weights and activations have no more than eight significant bits; sums are kept in float32."""
    prior, levels, known = case
    leaves, tree = jax.tree.flatten((prior.params, jnp.asarray(levels), jnp.asarray(known)))
    traced = jax.make_jaxpr(lambda *leaves: CALLS[way](*jax.tree.unflatten(tree, leaves), prior.config))(*leaves)
    (found,), count = in_bfloat16(traced.jaxpr, traced.consts, *leaves)
    assert count == products
    np.testing.assert_array_equal(found, logits(way, prior, levels, known))


# ---- from frame to frame, and from digit to digit, as the decoder goes ----------------------------------------


@pytest.fixture(scope="module")
def features(case):
    """Of all frames at once: float32[16, t, h, w, width]."""
    prior, levels, known = case
    call = jax.jit(functools.partial(net._functional(prior.config)[1], method="past_features"))
    return np.asarray(call(prior.params, net_inputs.one_hot(levels, known)))


def own_and_none(levels, known, f):
    """The frames f - 1 and f - 2, with NONE where a digit is unknown."""
    own = np.where(known, levels, net.LEVELS).astype(np.uint8)
    none = np.full_like(own[:, 0], net.LEVELS)
    return own[:, f - 1] if f > 0 else none, own[:, f - 2] if f > 1 else none


def test_frame_by_frame_equals_all_at_once(case, features):
    """In the net and in NumPy's twin of it."""
    prior, levels, known = case
    plain = token_coder.Net(prior.params)
    call = jax.jit(functools.partial(net.next_features, config=prior.config))
    memory = jnp.zeros((prior.config.blocks, *levels[:, 0].shape[:-1], prior.config.width))
    for f in range(SHAPE[0]):
        before, earlier = own_and_none(levels, known, f)
        found, memory = call(prior.params, before, earlier, f, memory)
        np.testing.assert_array_equal(found, features[:, f])
        plain.next_frame(before.astype(int), earlier.astype(int), f)
        np.testing.assert_array_equal(plain.features, features[:, f])
    assert len(np.unique(features)) > 100


def tokens_around(levels, known, f, y, x):
    """[digits of the tokens of NEAR in frame f, those of the first four in the frame before], NONE: unknown."""

    def at(f, y, x):
        inside = f >= 0 and 0 <= y < SHAPE[1] and 0 <= x < SHAPE[2]
        return np.where(known[:, f, y, x], levels[:, f, y, x], 4) if inside else np.full_like(levels[:, 0, 0, 0], 4)

    return [at(f, y + dy, x + dx) for dy, dx in NEAR], [at(f - 1, y + dy, x + dx) for dy, dx in NEAR[:KEPT]]


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 2, 3), (3, 0, 1), (4, 1, 0), (5, 4, 2)])
def test_digit_by_digit_equals_all_at_once(case, features, place):
    """The same in the net and in NumPy's twin of it."""
    prior, levels, known = case
    wanted = whole(logits("causal", prior, levels, known))[:, *place]
    plain, near = token_coder.Net(prior.params), tokens_around(levels, known, *place)
    other = plain.begin(features[:, *place], *([token.astype(int) for token in part] for part in near))
    told = net_inputs.around(*([jnp.asarray(token) for token in part] for part in near))
    total = net.begin(prior.params, features[:, *place], told, prior.config)
    digits, there = levels[:, *place], known[:, *place]
    for j in range(4):
        found = net.digit_logits(prior.params, total, jnp.int32(j), prior.config)
        np.testing.assert_array_equal(whole(found), wanted[:, j])
        np.testing.assert_array_equal(plain.logits(other, j), wanted[:, j])
        after = net.tell(prior.params, total, jnp.int32(j), digits[:, j], prior.config)
        total = jnp.where(there[:, j, None], after, total)  # what is not known is not told
        other_after = plain.tell(other, j, digits[:, j].astype(int))
        np.testing.assert_array_equal(other_after[there[:, j]], np.asarray(after)[there[:, j]])
        other = np.where(there[:, j, None], other_after, other)


def test_places_around_are_found(case):
    """``around_of`` of a clip is ``around`` of each token's neighbours."""
    _, levels, known = case
    found = np.asarray(net_inputs.around_of(net_inputs.one_hot(levels, known)))
    for place in np.ndindex(SHAPE):
        told = net_inputs.around(
            *([jnp.asarray(token) for token in part] for part in tokens_around(levels, known, *place))
        )
        np.testing.assert_array_equal(found[:, *place], told)


def test_undecided_digits_have_gradients(case):
    """A distribution in place of a digit: what a token costs depends on the tokens before it, in time and to the left,
    and on its own earlier digits; not on those after it, nor on itself."""
    prior, levels, known = case
    hot = net_inputs.one_hot(levels, known)
    b, t, y, x = 1, 2, 1, 2
    digit = levels.shape[-1] - 1

    def bits(hot):
        return net.code_lengths(net.expected_logits(prior.params, hot, prior.config))[b, t, y, x, digit, 0]

    slope = np.abs(np.asarray(jax.grad(bits)(hot)))[b].max(axis=(-2, -1))
    assert slope[t - 1, y, x] > 0
    assert slope[t, y, x - 1] > 0
    assert (slope[t + 1 :] == 0).all()
    assert (slope[t, y, x + 1 :] == 0).all()
    own = np.abs(np.asarray(jax.grad(bits)(hot)))[b, t, y, x].max(axis=-1)
    assert (own[:digit] > 0).any()
    assert own[digit] == 0


# ---- what a logit may depend on ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", CALLS)
def test_hidden_digits_are_not_looked_at(case, way):
    """Nor, in the coder's way, those that are never sent."""
    prior, levels, known = case
    before = logits(way, prior, levels, known)
    np.testing.assert_array_equal(logits(way, prior, np.where(known, levels, 3 - levels), known), before)
    changed = logits(way, prior, np.where(known, 3 - levels, levels), known) != before
    assert changed[1:].any(axis=tuple(range(1, 6))).all()
    assert not changed[0].any()  # the example of which nothing is known


def test_masked_looks_both_ways(case):
    """A known token counts in frames before and after it, and in those of its own."""
    prior, levels, _ = case
    known = np.ones_like(levels, bool)
    known[:, :, 2, 2] = False
    moved = levels.copy()
    moved[:, 3, 2, 3] = 3 - moved[:, 3, 2, 3]
    changed = logits("masked", prior, levels, known) != logits("masked", prior, moved, known)
    assert changed.any(axis=(0, 2, 3, 4, 5)).all()
    # and so does the last of a place's own past, however long ago
    known[:, 1:, 2, 2], known[:, 0, 2, 2] = False, True
    moved = levels.copy()
    moved[:, 0, 2, 2] = 3 - moved[:, 0, 2, 2]
    assert (logits("masked", prior, levels, known) != logits("masked", prior, moved, known))[:, 5, 2, 2].any()


@pytest.mark.parametrize("sent", [4, 3])
def test_causal_looks_at_nothing_that_comes_later(case, sent):
    """In the coder's order: of frames, of rows, of tokens in a row, of digits. 128 digits changed, one at a time."""
    prior, levels, known = case
    there = known[..., :1].any(axis=-1, keepdims=True) | (np.arange(16) % 2 == 0).reshape(-1, 1, 1, 1, 1)
    known = np.broadcast_to(there & (np.arange(4) < sent), levels.shape)
    before = logits("causal", prior, levels, known).reshape(16, -1, 3)
    generator, later = np.random.default_rng(sent), 0
    for _ in range(8):
        moved, at = levels.copy().reshape(16, -1), generator.integers(0, levels[0].size, 16)
        moved[np.arange(16), at] ^= generator.integers(1, 4, 16, dtype=np.uint8)
        after = logits("causal", prior, moved.reshape(levels.shape), known).reshape(16, -1, 3)
        changed = (after != before).any(axis=-1)
        is_known = known.reshape(16, -1)[np.arange(16), at]
        assert not changed[np.arange(changed.shape[1]) <= at[:, None]].any()
        assert not changed[~is_known].any()
        later += changed[is_known].any(axis=1).sum() / max(1, is_known.sum())
    assert later > 0.9 * 8  # the last digits of a clip have none after them


@pytest.mark.parametrize("back", ["digit", "left", "up", "up left", "up right", "left 2", "up 2", "past", "past 2"])
def test_causal_looks_at_all_it_may(case, back):
    """Each road by which a digit is told to a later one is open: not one of them is without effect."""
    prior, levels, _ = case
    known, at = np.ones_like(levels, bool), (3, 3, 2, 1)
    steps = {
        "digit": (0, 0, 0, -1), "left": (0, 0, -1, 0), "up": (0, -1, 0, 0), "up left": (0, -1, -1, 0),
        "up right": (0, -1, 1, 0), "left 2": (0, 0, -2, 0), "up 2": (0, -2, 0, 0), "past": (-1, 0, 0, 0),
        "past 2": (-2, 0, 0, 0),
    }  # fmt: skip
    moved, place = levels.copy(), tuple(a + b for a, b in zip(at, steps[back], strict=True))
    moved[:, *place] ^= 1
    found = (logits("causal", prior, each, known)[:, *at] for each in (levels, moved))
    assert np.not_equal(*found).any()


# ---- rounding --------------------------------------------------------------------------------------------------


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
    again = jax.jit(net.quantise)(params)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = jax.tree.map(lambda leaf: leaf * 0.97 + 0.001, params)
    grads = jax.jit(jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(net.quantise(p)))))(moved)
    for leaf in jax.tree.leaves(grads):
        assert np.isin(leaf, (0, 0.5, 1)).all()  # less only at the limit of a weight
