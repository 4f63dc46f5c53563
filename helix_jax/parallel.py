"""Devices of the codec: a batch is split over all local devices along its first axis (``spread``, ``map_batches``).

``train.sharding`` has what training does with the devices of all hosts.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from helix_jax import cache
from helix_jax.errors import HelixError

SMALL_BATCH = 1024  # rows up to which ``map_batches`` takes the small shape


def use_all_cores():
    """Give JAX one CPU device per core. Call before anything touches a device; no effect on GPU and TPU."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def keep_compiled():
    """Keep what XLA compiled in the user's cache, for the next run: a first encoding compiles for half a minute.

    No effect where the user has set a folder for it (``cache.compiler_settings``).
    """
    for name, value in cache.compiler_settings().items():
        jax.config.update(name, value)
    cache.trim(cache.PROGRAMS)


class DeviceError(HelixError):
    """There is no device of the kind that JAX was told to use; the message says what would help."""


def local_devices():
    """The devices of this host. Raises DeviceError where JAX finds none of the kind that JAX_PLATFORMS demands."""
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError, empty: `cuda` without a graphics card
        # pyrefly: ignore[missing-attribute]
        demanded, reason = jax.config.jax_platforms, str(error).split(" (set JAX_PLATFORMS")[0]
        why = f" ({reason})" if reason else ""
        if not demanded:
            raise DeviceError(f"JAX finds no device{why}; set JAX_PLATFORMS=cpu to do without others") from error
        raise DeviceError(
            f"JAX_PLATFORMS={demanded}: JAX finds no such device on this machine{why}; leave JAX_PLATFORMS unset to "
            "take what there is, or set it to cpu; a GPU also needs its driver and JAX's plugin for it, as in "
            "pip install 'jax[cuda13]'"
        ) from error


def mesh(devices=None):
    """One axis, "data", over the given devices (default: all local ones)."""
    devices = local_devices() if devices is None else devices
    # Auto: explicit axes reject a table look-up inside a scan
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


@functools.lru_cache(maxsize=64)
def spread(function, devices=None, **static):
    """``jit(shard_map(function))`` over the first axis of everything but the first argument.

    function(constants, *batched, **static) -> pytree of batched arrays; ``constants`` is replicated.
    The batch must be a multiple of the number of devices (see ``map_batches``). devices: tuple or None.
    """
    grid = mesh(devices)
    data = PartitionSpec("data")

    def call(constants, *batched):
        body = functools.partial(function, **static)
        specs = (PartitionSpec(), *(data for _ in batched))
        # rows know nothing of each other, so there is no collective whose use could be checked, and a scan may start
        # from a constant
        mapped = jax.shard_map(body, mesh=grid, in_specs=specs, out_specs=data, check_vma=False)
        return mapped(constants, *batched)

    return jax.jit(call)


def pmap_twin(function, constants, *batched, **static):
    """The same by ``jax.pmap``, for tests: batched arrays have a leading axis of the device count."""
    return jax.pmap(functools.partial(function, **static), in_axes=(None, *(0 for _ in batched)))(constants, *batched)


def replicate(tree):
    """Put a pytree of arrays on all local devices."""
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec()))


def map_batches(function, constants, *batched, batch, progress=None, **static):
    """Apply ``function`` (see ``spread``) to arrays of any length in batches of one padded shape.

    batched: NumPy arrays [n, ...]. batch: rows per call, rounded up to a multiple of the device count (fewer for
    small n); two compilations serve every n. Where rows fill up a batch, each device has its share of them. progress:
    called with the number of rows done after each batch.
    Returns a pytree of NumPy arrays [n, ...].
    """
    count = len(local_devices())
    rows = len(batched[0])
    batch = min(batch, SMALL_BATCH) if rows <= SMALL_BATCH else batch
    batch = -(-batch // count) * count
    call = spread(function, **static)
    constants = replicate(constants)

    def started():
        for begin in range(0, max(rows, 1), batch):
            part = [np.asarray(a[begin : begin + batch]) for a in batched]
            spare = batch - len(part[0])
            if spare:
                part = [_dealt(np.concatenate([p, np.zeros((spare, *p.shape[1:]), p.dtype)]), count) for p in part]
            yield batch - spare, call(_cloned_keys(constants), *part)

    pieces = []
    for used, result in one_ahead(started()):
        result = jax.tree.map(np.asarray, result)
        if used < batch:
            result = jax.tree.map(lambda leaf, used=used: _dealt(leaf, batch // count)[:used], result)
        pieces.append(result)
        if progress:
            progress(used)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)


def one_ahead(started):
    """Yield each of these once the next is there: results of calls that are started by asking for them, so that devices
    have the next call to work on while the caller waits for one and works on it."""
    waiting = []
    for now in started:
        yield from waiting
        waiting = [now]
    yield from waiting


def _dealt(rows, count):
    """Rows in the order 0, count, 2 count, ...; 1, 1 + count, ...: dealt to ``count`` devices in turns. The number of
    rows to each undoes it."""
    return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def _cloned_keys(tree):
    """The same tree, its random keys marked as not used: rows fold their own numbers into a key, batch after batch, and
    JAX's check for keys used twice does not see that within shard_map."""
    is_key = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if is_key(leaf) else leaf, tree)


def place_told(environment=os.environ):
    """(This process's number, how many there are) as SLURM or Open MPI told it; (0, 1) without them.

    For work that hosts do apart, without ``initialize``: joined hosts wait for each other at the end, and die together.
    """
    # a step of SLURM, as jax.distributed knows it: a script of sbatch without srun has a number too, but stands alone
    for number, count, needed in (
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ):
        if {number, count, needed} <= environment.keys():
            return int(environment[number]), int(environment[count])
    return 0, 1
