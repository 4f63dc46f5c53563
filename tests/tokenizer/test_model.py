import jax
import numpy as np
import pytest

from helix_jax.config import TokenizerConfig
from helix_jax.tokenizer import model

SMALL = TokenizerConfig(width=16)
encode = jax.jit(model.encode, static_argnames="config")
decode = jax.jit(model.decode, static_argnames="config")


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), SMALL)


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 256, (1, 16, 64, 64, 3), dtype=np.uint8)


def test_parameters_are_plain_arrays_and_follow_the_key(params):
    def containers(tree):
        yield type(tree)
        for child in tree.values() if isinstance(tree, dict) else ():
            yield from containers(child)

    assert all(kind is dict or issubclass(kind, jax.Array) for kind in containers(params))
    again, other = model.init(jax.random.key(0), SMALL), model.init(jax.random.key(1), SMALL)
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(again)))
    assert not all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(other)))


def test_shapes_and_types(params, clip):
    digits = encode(params, clip, SMALL)
    assert digits.shape == (1, 4, 8, 8, SMALL.digits)
    assert digits.dtype == np.uint8
    assert len(np.unique(digits)) == 4
    pixels = decode(params, digits, SMALL)
    assert pixels.shape == clip.shape
    assert pixels.dtype == np.uint8


def test_pixels_survive_the_conversion_to_float():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(model.to_uint8(model.to_float(levels)), levels)
    np.testing.assert_array_equal(model.to_uint8(np.float32([-3, 3])), [0, 255])


def test_causal_both_ways(params, clip):
    changed = clip.copy()
    changed[:, 8:] = 255 - changed[:, 8:]
    first, second = encode(params, clip, SMALL), encode(params, changed, SMALL)
    np.testing.assert_array_equal(first[:, :2], second[:, :2])
    assert not np.array_equal(first[:, 2], second[:, 2])
    mixed = np.concatenate([first[:, :2], (first[:, 2:] + 1) % 4], axis=1)
    one, two = decode(params, first, SMALL), decode(params, mixed, SMALL)
    np.testing.assert_array_equal(one[:, :8], two[:, :8])
    assert not np.array_equal(one[:, 8], two[:, 8])


def test_receptive_halo_is_exact(params, clip):
    """A change reaches as far to each side as ``receptive_halo`` says, and no further."""
    side = model.receptive_halo(SMALL.encoder_blocks)
    latents = jax.jit(model.latents, static_argnames="config")
    changed = clip.copy()
    changed[:, :4, 32:40, 32:40] ^= 255
    diff = np.asarray(latents(params, model.to_float(changed), SMALL) != latents(params, model.to_float(clip), SMALL))
    reached = np.argwhere(diff.any(axis=(0, -1)))
    np.testing.assert_array_equal(reached.min(axis=0)[1:], [4 - side, 4 - side])
    np.testing.assert_array_equal(reached.max(axis=0)[1:], [4 + side, 4 + side])
