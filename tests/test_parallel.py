"""Data-parallel map: any number of rows, at most two compilations, and the same result as a plain call."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_jax import parallel
from train import sharding

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


# ---- training --------------------------------------------------------------------------------------


def loss_fn(params, rows, key):
    """Has noise, an aux value and a matrix that can be shared out."""
    noisy = rows + 0.1 * jax.random.normal(key, rows.shape)
    error = jnp.tanh(noisy @ params["in"]) @ params["out"] - rows
    return jnp.mean(jnp.square(error)), {"largest": jnp.mean(jnp.max(jnp.abs(error), axis=1))}


@pytest.fixture(scope="module")
def problem():
    generator = np.random.default_rng(0)
    params = {name: generator.normal(0, 0.1, shape).astype(np.float32) for name, shape in
              (("in", (24, 64)), ("out", (64, 24)))}  # fmt: skip
    return params, generator.normal(0, 1, (32, 24)).astype(np.float32), jax.random.key(5)


def on_one_device(problem, parts):
    """Means over the parts, in a plain loop."""
    params, batch, key = problem
    call = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    each = [call(params, rows, jax.random.fold_in(key, n)) for n, rows in enumerate(np.split(batch, parts))]
    return jax.tree.map(lambda *leaves: sum(np.asarray(leaf, np.float64) for leaf in leaves) / parts, *each)


def on_mesh(problem, devices, fsdp, parts, deterministic=False):
    params, batch, key = problem
    grid = sharding.training_mesh(fsdp, jax.devices()[:devices])
    places = sharding.shardings(params, [("^in$", (None, "fsdp")), ("^out$", ("fsdp", None))], grid)
    call = jax.jit(sharding.gradients(loss_fn, grid, places, parts, deterministic))
    return call(jax.device_put(params, places), sharding.to_global(batch, grid), key), places


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("devices", "fsdp", "parts"), [(1, 1, 8), (8, 1, 8), (8, 1, 16), (8, 4, 8), (4, 4, 8), (8, 8, 0)]
)
def test_gradients_are_those_of_one_device(problem, devices, fsdp, parts, deterministic):
    """To 1e-6. A mean that is taken of sums, or a sum of means, is off by the number of devices."""
    got, places = on_mesh(problem, devices, fsdp, parts, deterministic)
    want = on_one_device(problem, parts or devices)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.abs(other).max() > 1e-3
    for gradient, place in zip(jax.tree.leaves(got[1]), jax.tree.leaves(places), strict=True):
        assert gradient.sharding.is_equivalent_to(place, gradient.ndim)


def test_the_trap(problem):
    """What ``gradients`` avoids: ``pmean(grad(loss))`` in shard_map as it is by default is too large, N times."""
    params, batch, key = problem
    grid = sharding.training_mesh(1)

    def local(params, rows):
        mine = jax.random.clone(key)
        return jax.lax.pmean(jax.grad(loss_fn, has_aux=True)(params, rows, mine)[0], ("data", "fsdp"))

    data = jax.sharding.PartitionSpec(("data", "fsdp"))
    whole = jax.sharding.PartitionSpec()
    wrong = jax.jit(jax.shard_map(local, mesh=grid, in_specs=(whole, data), out_specs=whole))(params, batch)
    grad = jax.grad(loss_fn, has_aux=True)
    parts = [grad(params, rows, jax.random.clone(key))[0] for rows in np.split(batch, 8)]
    for one, *others in zip(jax.tree.leaves(wrong), *map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_allclose(one, DEVICES * sum(others) / 8, rtol=1e-4, atol=1e-6)


def test_deterministic_gradients_are_the_same_bits_everywhere(problem):
    """Any number of devices, parameters shared out or not."""
    results = [on_mesh(problem, *shape, 8, True)[0] for shape in ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2))]
    for other in results[1:]:
        assert_same(jax.tree.map(np.asarray, results[0]), jax.tree.map(np.asarray, other))


def test_gradients_are_the_pmap_twin(problem):
    params, batch, key = problem
    got, _ = on_mesh(problem, 8, 1, 8)
    twin = sharding.pmap_gradients(loss_fn)(params, batch.reshape(8, 4, -1), key)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(twin), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_shardings_follow_the_rules():
    grid = sharding.training_mesh(4)
    assert dict(grid.shape) == {"data": 2, "fsdp": 4}
    tree = {"a": {"w": np.zeros((8, 3)), "b": np.zeros(3)}, "moments": ({"a": {"w": np.zeros((8, 3))}}, np.zeros(()))}
    rules = [(r"a\.w$", ("fsdp", None)), ("moments", ("fsdp",))]
    places = sharding.shardings(tree, rules, grid)
    assert places["a"]["w"].spec == places["moments"][0]["a"]["w"].spec == jax.sharding.PartitionSpec("fsdp", None)
    assert places["a"]["b"].spec == places["moments"][1].spec == jax.sharding.PartitionSpec()
    for rule, words in (
        (("a.w", (None, "fsdp")), r"a\.w of shape \(8, 3\) does not divide over \(None, 'fsdp'\)"),
        (("a.b", ("fsdp", None)), r"a\.b of shape \(3,\) does not divide"),
        (("a.w", ("fsdp",)), r"a\.w of shape \(8, 3\) does not divide over \('fsdp',\)"),
    ):
        with pytest.raises(sharding.ParallelError, match=words):
            sharding.shardings(tree, [rule], grid)


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        (("data", None), "'data'"),
        ((None, "data"), "'data'"),
        (("data", "fsdp"), "'data', 'fsdp'"),
        (("fsdp", "fsdp"), "'fsdp', 'fsdp'"),
        (("tensor", None), "'tensor'"),
    ],
)
def test_rules_name_fsdp_alone(axes, names):
    """What is split over ``data`` would never be gathered: refused, also where no leaf matches."""
    grid = sharding.training_mesh(4)
    for tree in ({"w": np.zeros((8, 8))}, {"b": np.zeros(8)}):
        with pytest.raises(sharding.ParallelError, match=rf"sharding rule 'w\$' names {names}: write 'fsdp'"):
            sharding.shardings(tree, [("w$", axes)], grid)


def test_the_first_rule_that_matches_decides():
    """Without an axis it keeps a leaf whole that a later rule would share out."""
    grid = sharding.training_mesh(4)
    tree = {name: np.zeros((8, 8)) for name in ("a", "b", "c")}
    places = sharding.shardings(tree, [("a", ()), ("b", (None, None)), ("", ("fsdp", None))], grid)
    assert [places[name].is_fully_replicated for name in tree] == [True, True, False]


def test_meshes_and_batches_that_do_not_fit(problem):
    with pytest.raises(sharding.ParallelError, match="fsdp=3 does not divide 8 devices"):
        sharding.training_mesh(3)
    with pytest.raises(sharding.ParallelError, match="12 micro-batches cannot be shared evenly among 8 devices"):
        on_mesh(problem, 8, 1, 12)
    with pytest.raises(sharding.ParallelError, match="a batch of 32 cannot be cut in 24 equal micro-batches"):
        on_mesh(problem, 8, 1, 24)


def test_hosts_by_hand():
    assert sharding.initialize() == (0, 1)
    assert sharding.initialize("localhost:1", 1, 0) == (0, 1)
    for arguments, words in (
        (("localhost:1", 2, 2), "host 2 of 2: hosts are numbered from 0 to 1"),
        (("localhost:1", None, None), "give all of coordinator, hosts and host"),
        ((None, 2, 0), "give all of coordinator, hosts and host"),
    ):
        with pytest.raises(sharding.ParallelError, match=words):
            sharding.initialize(*arguments)


@pytest.mark.parametrize(
    ("environment", "place", "cluster"),
    [
        ({}, (0, 1), False),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "16", "SLURM_STEP_NODELIST": "n[1-2]"}, (3, 16), True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, (0, 1), False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, (0, 1), False),  # a script of sbatch, not a task of srun
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, (0, 1), True),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2), True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, (0, 1), True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, (0, 1), False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}, (0, 1), True),
    ],
)
def test_clusters(environment, place, cluster):
    assert parallel.place_told(environment) == place
    assert sharding._in_cluster(environment) == cluster
