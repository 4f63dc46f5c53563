"""The hash that can be undone: one-to-one, that of a plain twin, and as good as random for the check letters."""

import jax
import numpy as np
import pytest

from helix_jax.timing import reversible


def twin_absorb(state, letter, bits):
    """With plain integers: exclusive or, product modulo 2^bits, and the upper half folded into the lower one."""
    state = (state ^ (letter + 1)) * 0x01001D35 % 2**bits
    return state ^ (state >> (bits + 1) // 2)


@pytest.mark.parametrize("bits", [3, 12, 17, 31, 32])
def test_undo_takes_back_what_absorb_did(bits):
    rng = np.random.default_rng(bits)
    state = np.unique(np.append(rng.integers(0, 2**bits, 500), [0, 2**bits - 1])).astype(np.uint32)
    for letter in range(4):
        letters = np.full(state.shape, letter, np.uint8)
        after = np.asarray(reversible.absorb(state, letters, bits))
        assert after.dtype == np.uint32
        assert [twin_absorb(int(s), letter, bits) for s in state] == after.tolist()
        np.testing.assert_array_equal(reversible.undo(after, letters, bits), state)


def test_every_state_has_one_follower_for_each_letter():
    state = np.arange(1 << 10, dtype=np.uint32)
    for letter in range(4):
        after = np.asarray(reversible.absorb(state, np.full(state.shape, letter, np.int32), 10))
        assert len(np.unique(after)) == len(state)


@pytest.mark.parametrize("apart", [1, 5, 40])
def test_strings_of_other_letters_pass_a_check_as_often_as_by_chance(apart):
    """Two strings that differ in one letter, the given number of letters before the check letter."""
    rng, bits = np.random.default_rng(apart), 17
    letters = rng.integers(0, 4, (2, apart, 6000)).astype(np.uint8)
    letters[1] = letters[0]
    letters[1, 0] = (letters[0, 0] + rng.integers(1, 4, 6000)) % 4
    state = np.broadcast_to(rng.integers(0, 1 << bits, 6000).astype(np.uint32), (2, 6000))
    step = jax.jit(lambda state, letter: reversible.absorb(state, letter, bits))
    for each in range(apart):
        state = np.asarray(step(state, letters[:, each]))
    digit = np.asarray(reversible.digit(state))
    assert set(np.unique(digit)) == {0, 1, 2}
    np.testing.assert_allclose(np.bincount(digit[0]) / 6000, 1 / 3, atol=0.03)
    np.testing.assert_allclose((digit[0] == digit[1]).mean(), 1 / 3, atol=0.03)
