"""Masks of the training: what each pattern hides, how much, and how often, over thousands of keys."""

import functools

import jax
import numpy as np
import pytest

from helix_jax.config import MixingConfig
from helix_jax.tk_scone import mixing
from train import masks

SHAPE, DIGITS = (8, 5, 6), 4
MANY = 4000


@functools.cache
def drawn(name, shape=SHAPE):
    """What is hidden in MANY examples of a pattern: bool[MANY, t, h, w]."""
    call = jax.jit(jax.vmap(functools.partial(getattr(masks, name), shape=shape)))
    known = np.asarray(call(jax.random.split(jax.random.key(7), MANY)))
    assert (known.shape, known.dtype) == ((MANY, *shape), bool)
    return ~known


def shares(hidden):
    return hidden.reshape(len(hidden), -1).mean(axis=1)


def of_strands(hidden):
    """The same by strand, as the mixing deals tokens out: bool[n, strands], or None for an example that hides a part of
    one."""
    rows = np.stack([mixing.interleave(one[..., None].astype(np.uint8), 4, MixingConfig()) for one in hidden])
    filled = mixing.interleave(np.ones((*hidden.shape[1:], 1), np.uint8), 4, MixingConfig()) == 1
    lost = (rows == 1) & filled
    return [one.any(axis=1) if (one.any(axis=1)[:, None] & filled == one).all() else None for one in lost]


def box_of(hidden):
    """(first, length) of the box bool[t, h, w] along each axis; None for what is no box."""
    places = np.argwhere(hidden)
    if not len(places):
        return None
    first, length = places.min(axis=0), np.ptp(places, axis=0) + 1
    return (first, length) if len(places) == np.prod(length) else None


def test_cosine_schedule():
    """cos(pi u / 2): the median is the root of a half, the mean 2 / pi; most is hidden most of the time."""
    ratio = np.asarray(jax.vmap(masks.cosine_ratio)(jax.random.split(jax.random.key(1), MANY)))
    assert ((ratio > 0) & (ratio <= 1)).all()
    assert ratio.mean() == pytest.approx(2 / np.pi, abs=0.02)
    assert np.quantile(ratio, [0.1, 0.5, 0.9]) == pytest.approx(np.cos(np.pi / 2 * np.array([0.9, 0.5, 0.1])), abs=0.03)


def test_single_tokens():
    """A cosine ratio of them, each by itself: neighbours are hidden together as often as any two."""
    hidden = drawn("tokens")
    share = shares(hidden)
    assert share.mean() == pytest.approx(2 / np.pi, abs=0.02)
    assert np.quantile(share, [0.1, 0.5, 0.9]) == pytest.approx(np.cos(np.pi / 2 * np.array([0.9, 0.5, 0.1])), abs=0.04)
    for axis in (1, 2, 3):
        both = np.take(hidden, range(1, hidden.shape[axis]), axis) & np.take(
            hidden, range(hidden.shape[axis] - 1), axis
        )
        assert shares(both).mean() == pytest.approx((share**2).mean(), abs=0.01)


@pytest.mark.parametrize("shape", [SHAPE, (3, 5, 7)])
def test_whole_strands(shape):
    """As the mixing deals tokens out, the last strand not full in the second shape; up to seven in ten of them."""
    lost = of_strands(drawn("strands", shape))
    assert all(one is not None for one in lost)
    assert len(lost[0]) == -(-np.prod(shape) // 4)
    share = np.mean(lost, axis=1)
    assert share.mean() == pytest.approx(0.35, abs=0.02)
    assert np.quantile(share, [0.1, 0.5, 0.9]) == pytest.approx([0.07, 0.35, 0.63], abs=0.05)
    together = np.corrcoef(np.array(lost).T - share[None])  # but for the share each goes by itself
    assert np.abs(together[~np.eye(len(together), dtype=bool)]).max() < 0.15


def test_a_box():
    """Of space and time: from a quarter to three quarters of each side, anywhere."""
    boxes = [box_of(one) for one in drawn("tiles")]
    assert all(box is not None for box in boxes)
    first, length = (np.array([box[n] for box in boxes]) for n in range(2))
    for axis, size in enumerate(SHAPE):
        least, most = max(1, size // 4), size * 3 // 4
        assert set(length[:, axis]) == set(range(least, most + 1))
        for each in range(least, most + 1):
            assert set(first[length[:, axis] == each, axis]) == set(range(size - each + 1))
    sides = np.array([0.5 * (max(1, size // 4) + size * 3 // 4) / size for size in SHAPE])
    assert shares(drawn("tiles")).mean() == pytest.approx(np.prod(sides), rel=0.05)


def test_whole_frames():
    """Each with even odds, whatever the others are."""
    hidden = drawn("frames")
    assert (hidden == hidden[:, :, :1, :1]).all()
    gone = hidden[:, :, 0, 0]
    assert gone.mean(axis=0) == pytest.approx(np.full(SHAPE[0], 0.5), abs=0.03)
    together = np.corrcoef(gone.T)
    assert np.abs(together[~np.eye(len(together), dtype=bool)]).max() < 0.06


# ---- the mixture ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed():
    """(known bool[n, t, h, w, k], sent bool[n, k]) of MANY examples."""
    call = jax.jit(jax.vmap(functools.partial(masks.mixture, shape=(*SHAPE, DIGITS))))
    known, sent = map(np.asarray, call(jax.random.split(jax.random.key(3), MANY)))
    assert (known.shape, known.dtype) == ((MANY, *SHAPE, DIGITS), bool)
    assert (sent.shape, sent.dtype) == ((MANY, DIGITS), bool)
    return known, sent


def test_digits_that_are_not_sent(mixed):
    """The last ones of all tokens alike, in two examples of ten; the first is always sent. None of them is known."""
    known, sent = mixed
    count = sent.sum(axis=1)
    np.testing.assert_array_equal(sent, np.arange(DIGITS) < count[:, None])
    assert np.mean(count < DIGITS) == pytest.approx(0.2, abs=0.03)
    for each in range(1, DIGITS):
        assert np.mean(count == each) == pytest.approx(0.2 / (DIGITS - 1), abs=0.015)
    assert not (known & ~sent[:, None, None, None]).any()


def test_any_number_of_digits_may_be_sent():
    """From none to all but one, each as often; and all of them in a quarter of the examples."""
    call = functools.partial(masks.mixture, shape=(*SHAPE, DIGITS), full_share=0.25, min_digits=0)
    known, sent = map(np.asarray, jax.jit(jax.vmap(call))(jax.random.split(jax.random.key(4), MANY)))
    count = sent.sum(axis=1)
    assert np.mean(count == DIGITS) == pytest.approx(0.25, abs=0.03)
    for each in range(DIGITS):
        assert np.mean(count == each) == pytest.approx(0.75 / DIGITS, abs=0.03)
    assert not (known & ~sent[:, None, None, None]).any()


def test_hidden_tokens_keep_their_first_digits(mixed):
    """The same number of them throughout an example: none in seven of ten, else any number."""
    known, sent = mixed
    count, have = sent.sum(axis=1), known.sum(axis=-1)
    np.testing.assert_array_equal(known, np.arange(DIGITS) < have[..., None])
    least = have.reshape(MANY, -1).min(axis=1)
    either = (have == least[:, None, None, None]) | (have == count[:, None, None, None])
    assert either.all()
    for some in (count == DIGITS, count < DIGITS):  # neither depends on the other
        assert np.mean(least[some] > 0) == pytest.approx(0.3, abs=0.03 if some.mean() > 0.5 else 0.06)
    whole = count == DIGITS
    for each in range(1, DIGITS):
        assert np.mean(least[whole] == each) == pytest.approx(0.3 / (DIGITS - 1), abs=0.02)


def test_each_pattern_has_its_share(mixed):
    """What an example hides tells which it was: whole frames, a box, whole strands, or none of these."""
    known, sent = mixed
    have, count = known.sum(axis=-1), sent.sum(axis=1)
    some = have.reshape(MANY, -1).min(axis=1) < count
    hidden = (have < count[:, None, None, None])[some]
    found = []
    for one, lost in zip(hidden, of_strands(hidden), strict=True):
        box = box_of(one)
        if (one == one[:, :1, :1]).all():
            found.append("frames")
        elif box is not None and (box[1] <= np.array(SHAPE) * 3 // 4).all() and box[1][0] > 1:
            found.append("tiles")
        else:
            found.append("tokens" if lost is None else "strands")
    for name, share in (("tokens", 0.4), ("strands", 0.25), ("tiles", 0.15), ("frames", 0.2)):
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.03)
