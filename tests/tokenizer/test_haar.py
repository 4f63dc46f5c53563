import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.tokenizer import haar


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_matrix_is_orthonormal_with_the_mean_first(n):
    matrix = haar.haar_matrix(n).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-6)
    np.testing.assert_allclose(matrix[0], 1 / np.sqrt(n), atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_inverse_and_energy(seed):
    pixels = np.random.default_rng(seed).normal(size=(2, 8, 16, 24, 3)).astype(np.float32)
    coefficients = haar.to_patches(pixels)
    assert coefficients.shape == (2, 2, 2, 3, haar.CHANNELS)
    np.testing.assert_allclose(haar.from_patches(coefficients), pixels, atol=1e-5)
    np.testing.assert_allclose(np.sum(np.square(coefficients)), np.sum(np.square(pixels)), rtol=1e-5)


def test_flat_patch_has_only_its_three_means():
    colour = np.array([0.25, -0.5, 1.0], np.float32)
    coefficients = np.asarray(haar.to_patches(np.broadcast_to(colour, (1, 4, 8, 8, 3))))[0, 0, 0, 0]
    np.testing.assert_allclose(coefficients[:3], colour * 16, rtol=1e-6)  # sqrt(4 * 8 * 8) times the mean
    np.testing.assert_allclose(coefficients[3:], 0, atol=1e-6)


def test_patches_stay_in_their_place():
    pixels = np.zeros((1, 8, 16, 24, 3), np.float32)
    pixels[0, 5, 9, 17, 1] = 1
    energy = np.sum(np.square(haar.to_patches(pixels)), axis=-1)
    assert np.argwhere(energy > 1e-6).tolist() == [[0, 1, 1, 2]]


def test_band_scale_falls_with_the_level():
    scale = haar.band_scale().reshape(*haar.PATCH, 3)
    assert scale[0, 0, 0, 0] == 4.0
    assert scale[1, 0, 0, 0] == 2.0
    assert scale[0, 7, 7, 2] == 4.0 / 2**6


def test_grad_passes_through():
    grad = jax.grad(lambda x: haar.to_patches(x).sum())(np.ones((1, 4, 8, 8, 3), np.float32))
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 0
