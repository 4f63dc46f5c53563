import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.tokenizer import fsq


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=16))
@settings(deadline=None, max_examples=30)
def test_digits_are_base_4_for_any_input(values):
    digits = fsq.quantise(np.array(values, np.float32))
    assert digits.dtype == np.uint8
    assert np.max(digits) <= 3


def test_four_bins_of_equal_width():
    share = np.array([0.01, 0.24, 0.26, 0.49, 0.51, 0.74, 0.76, 0.99])  # of the sigmoid's range
    z = np.log(share / (1 - share)).astype(np.float32)
    np.testing.assert_array_equal(fsq.quantise(z), [0, 0, 1, 1, 2, 2, 3, 3])


def test_straight_through_rounds_forward_and_passes_gradients():
    z = np.linspace(-4, 4, 41, dtype=np.float32)
    np.testing.assert_allclose(fsq.straight_through(z), fsq.quantise(z), atol=1e-6)
    grad = jax.grad(lambda z: fsq.straight_through(z).sum())(z)
    np.testing.assert_allclose(grad, jax.grad(lambda z: fsq.bound(z).sum())(z), rtol=1e-6)
    assert np.min(grad) > 0


def test_silence_is_zero():
    digits = np.arange(4, dtype=np.uint8)
    np.testing.assert_array_equal(fsq.centre(digits, 1.5), [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_array_equal(fsq.centre(digits, 1.0), [-1, 0, 1, 2])
    np.testing.assert_array_equal(fsq.centre(np.float32([1.5]), 1.5), [0.0])  # a level between two digits is allowed
