"""Devices: the only file that names them. A batch is split over all local devices along its first axis."""

import functools
import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

SMALL_BATCH = 1024  # rows up to which ``map_batches`` takes the small shape


def use_all_cores():
    """Give JAX one CPU device per core. Call before anything touches a device; no effect on GPU and TPU."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def mesh(devices=None):
    """One axis, "data", over the given devices (default: all local ones)."""
    devices = jax.local_devices() if devices is None else devices
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
        return jax.shard_map(body, mesh=grid, in_specs=specs, out_specs=data)(constants, *batched)

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
    small n); two compilations serve every n. progress: called with the number of rows done after each batch.
    Returns a pytree of NumPy arrays [n, ...].
    """
    count = len(jax.local_devices())
    rows = len(batched[0])
    batch = min(batch, SMALL_BATCH) if rows <= SMALL_BATCH else batch
    batch = -(-batch // count) * count
    call = spread(function, **static)
    constants = replicate(constants)
    pieces = []
    for begin in range(0, max(rows, 1), batch):
        part = [np.asarray(a[begin : begin + batch]) for a in batched]
        used = len(part[0])
        padded = [np.concatenate([p, np.zeros((batch - used, *p.shape[1:]), p.dtype)]) for p in part]
        result = call(constants, *padded)
        pieces.append(jax.tree.map(lambda leaf, used=used: np.asarray(leaf)[:used], result))
        if progress:
            progress(used)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)
