"""Lost tokens: filled from the previous latent frame first, then later ones, then neighbours; kept tokens stay."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from helix_jax.coding import conceal


def numbered(t, h, w, k=2):
    """Every token another: its digits are those of its number."""
    number = np.arange(t * h * w).reshape(t, h, w)
    return np.stack([number >> 2 * digit & 3 for digit in range(k)], axis=-1).astype(np.uint8)


def test_previous_frame_then_later_frame():
    tokens = numbered(4, 1, 1, 1)
    for lost, expected in (
        ([0, 1, 0, 0], [0, 0, 2, 3]),
        ([0, 1, 1, 0], [0, 0, 0, 3]),  # two in a row: both from the last frame there was
        ([1, 1, 0, 0], [2, 2, 2, 3]),
        ([1, 0, 1, 0], [1, 1, 1, 3]),
        ([0, 0, 0, 1], [0, 1, 2, 2]),
    ):
        filled = conceal.fill_lost(tokens, np.array(lost, bool).reshape(4, 1, 1))
        assert filled.reshape(-1).tolist() == expected


def test_neighbours_where_no_frame_has_the_place():
    tokens = numbered(3, 2, 4)
    lost = np.zeros((3, 2, 4), bool)
    lost[:, 0, 1] = True  # from the left
    lost[:, 1, 0] = True  # nothing on the left: from the right
    filled = conceal.fill_lost(tokens, lost)
    np.testing.assert_array_equal(filled[:, 0, 1], tokens[:, 0, 0])
    np.testing.assert_array_equal(filled[:, 1, 0], tokens[:, 1, 1])
    lost[:, 0, :] = True  # a whole row: from below, as filled
    filled = conceal.fill_lost(tokens, lost)
    np.testing.assert_array_equal(filled[:, 0], filled[:, 1])


def test_all_lost_is_mid_grey():
    filled = conceal.fill_lost(numbered(2, 3, 3), np.ones((2, 3, 3), bool))
    assert (filled == 1).all()


@hypothesis.given(shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), data=st.data())
def test_any_loss(shape, data):
    """Kept tokens stay, filled ones are copies of kept ones, the input is untouched; static places follow in time."""
    tokens = numbered(*shape, k=4)
    lost = np.array(data.draw(st.lists(st.booleans(), min_size=tokens[..., 0].size, max_size=tokens[..., 0].size)))
    lost = lost.reshape(shape)
    before = tokens.copy()
    filled = conceal.fill_lost(tokens, lost)
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(filled[~lost], tokens[~lost])
    if not lost.all():
        kept = {tuple(token) for token in tokens[~lost]}
        assert all(tuple(token) in kept for token in filled[lost])
    seen = np.maximum.accumulate(np.where(lost, -1, np.arange(shape[0])[:, None, None]), axis=0)
    t, y, x = np.nonzero(lost & (seen >= 0))
    np.testing.assert_array_equal(filled[t, y, x], tokens[seen[t, y, x], y, x])


def test_still_picture_comes_back_whole():
    """A picture that does not move loses nothing while each place is seen once."""
    tokens = np.broadcast_to(numbered(1, 5, 6), (8, 5, 6, 2)).copy()
    lost = np.random.default_rng(0).random((8, 5, 6)) < 0.5
    lost[3] = False
    np.testing.assert_array_equal(conceal.fill_lost(tokens, lost), tokens)
