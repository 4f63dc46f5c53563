"""Data-parallel map: any number of rows, at most two compilations, and the same result as a plain call."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import parallel

DEVICES = 8
OFFSET = np.arange(5, dtype=np.int32)


def scaled(offset, x, y, *, factor):
    """A pytree out: int32[B, 5] and its row sums."""
    z = factor * x + y[:, None] + offset[None]
    return {"z": z, "sums": (z.sum(axis=1, dtype=np.int32), jnp.abs(y))}


def rows(n, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(-9, 9, (n, 5), dtype=np.int32), generator.integers(-9, 9, n, dtype=np.int32)


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def test_eight_devices():
    assert len(jax.local_devices()) == DEVICES
    assert parallel.mesh().shape == {"data": DEVICES}
    assert parallel.mesh(tuple(jax.local_devices()[:2])).shape == {"data": 2}


@pytest.mark.parametrize("n", [0, 1, 7, 8, 100, parallel.SMALL_BATCH, parallel.SMALL_BATCH + 1, 5000])
def test_any_number_of_rows(n):
    x, y = rows(n)
    result = parallel.map_batches(scaled, OFFSET, x, y, batch=2048, factor=3)
    assert_same(result, jax.tree.map(np.asarray, scaled(OFFSET, x, y, factor=3)))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result))


def test_two_compilations_serve_every_number():
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(scaled, n=2)
    for n in (0, 1, 9, 500, 1024, 1025, 3000, 9000):
        parallel.map_batches(counted, OFFSET, *rows(n), batch=2048, factor=2)


def test_one_compilation_for_a_small_batch():
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(scaled, n=1)
    for n in (1, 30, 1024, 1025, 3000):
        parallel.map_batches(counted, OFFSET, *rows(n), batch=100, factor=2)


def test_batch_is_rounded_up_to_the_devices():
    """A batch of 3 on 8 devices."""
    x, y = rows(20)
    assert_same(
        parallel.map_batches(scaled, OFFSET, x, y, batch=3, factor=1),
        jax.tree.map(np.asarray, scaled(OFFSET, x, y, factor=1)),
    )


def test_progress_counts_every_row_once():
    done = []
    parallel.map_batches(scaled, OFFSET, *rows(5000), batch=2048, progress=done.append, factor=1)
    assert done == [2048, 2048, 904]
    done.clear()
    parallel.map_batches(scaled, OFFSET, *rows(0), batch=2048, progress=done.append, factor=1)
    assert sum(done) == 0


def test_spread_is_the_pmap_twin():
    x, y = rows(4 * DEVICES)
    spread = parallel.spread(scaled, factor=5)(OFFSET, x, y)
    assert len(spread["z"].sharding.device_set) == DEVICES
    twin = parallel.pmap_twin(scaled, OFFSET, x.reshape(DEVICES, 4, 5), y.reshape(DEVICES, 4), factor=5)
    joined = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), twin)
    assert_same(jax.tree.map(np.asarray, spread), joined)
    assert_same(joined, jax.tree.map(np.asarray, scaled(OFFSET, x, y, factor=5)))


def test_spread_over_some_devices():
    x, y = rows(6)
    result = parallel.spread(scaled, tuple(jax.local_devices()[:2]), factor=1)(OFFSET, x, y)
    assert len(result["z"].sharding.device_set) == 2
    assert_same(jax.tree.map(np.asarray, result), jax.tree.map(np.asarray, scaled(OFFSET, x, y, factor=1)))


def test_replicate_puts_everything_everywhere():
    tree = parallel.replicate({"a": OFFSET, "b": (np.ones((2, 3)).astype(np.float32),)})
    for leaf in jax.tree.leaves(tree):
        assert len(leaf.sharding.device_set) == DEVICES
        assert leaf.sharding.is_fully_replicated
