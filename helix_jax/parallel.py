"""Devices of the codec: a batch is split over all local devices along its first axis (``spread``, ``map_batches``).

``train.sharding`` handles what training does with the devices of all hosts.
"""

import functools
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from helix_jax import cache
from helix_jax.errors import HelixError

T = TypeVar("T")

SMALL_BATCH = 1024  # rows up to which ``map_batches`` takes the small shape


def use_all_cores() -> None:
    """Give JAX one CPU device per core. Call it before anything touches a device; it has no effect on GPU and TPU."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def keep_compiled() -> None:
    """Keep what XLA compiled in the user's cache for the next run: a first encoding compiles for half a minute.

    This has no effect where the user has set a folder for it (``cache.compiler_settings``).
    """
    for name, value in cache.compiler_settings().items():
        jax.config.update(name, value)
    cache.trim(cache.PROGRAMS)


class DeviceError(HelixError):
    """There is no device of the kind that JAX was told to use; the message says what would help."""


def local_devices() -> list[jax.Device]:
    """Return the devices of this host.

    Raises DeviceError where JAX finds none of the kind that JAX_PLATFORMS demands.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # an empty AssertionError: `cuda` without a graphics card
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


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh with one axis, "data", over the given devices (default: all local ones)."""
    devices = local_devices() if devices is None else devices
    # The axis type is Auto because explicit axes reject a table look-up inside a scan.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


@functools.lru_cache(maxsize=64)
def spread(
    function: Callable[..., Any], devices: tuple[jax.Device, ...] | None = None, **static: Hashable
) -> Callable[..., Any]:
    """Return ``jit(shard_map(function))`` over the first axis of everything but the first argument.

    Args:
        function: Called as function(constants, *batched, **static), it returns a pytree of batched arrays;
            ``constants`` is replicated. The batch must be a multiple of the number of devices (see ``map_batches``).
        devices: The devices, or None for all local ones.
        **static: Keywords for the function.

    Returns:
        A function of (constants, *batched).
    """
    grid = mesh(devices)
    data = PartitionSpec("data")

    def call(constants, *batched):
        body = functools.partial(function, **static)
        specs = (PartitionSpec(), *(data for _ in batched))
        # Rows are independent of each other, so there is no collective whose use could be checked, and a scan may start
        # from a constant.
        mapped = jax.shard_map(body, mesh=grid, in_specs=specs, out_specs=data, check_vma=False)
        return mapped(constants, *batched)

    return jax.jit(call)


def pmap_twin(function: Callable[..., Any], constants: PyTree, *batched: PyTree, **static: Any) -> PyTree:
    """Do the same by ``jax.pmap``, for tests.

    Args:
        function: See ``spread``.
        constants: The first argument of the function.
        *batched: The other arguments, with a leading axis of the device count.
        **static: Keywords for the function.

    Returns:
        A pytree with that leading axis.
    """
    return jax.pmap(functools.partial(function, **static), in_axes=(None, *(0 for _ in batched)))(constants, *batched)


def replicate(tree: PyTree) -> PyTree:
    """Put a pytree of arrays on all local devices."""
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec()))


def map_batches(
    function: Callable[..., Any],
    constants: PyTree,
    *batched: Shaped[Array | np.ndarray, "n ..."],
    batch: int,
    progress: Callable[[int], None] | None = None,
    **static: Hashable,
) -> PyTree:
    """Apply ``function`` (see ``spread``) to arrays of any length in batches of one padded shape.

    Args:
        function: Called as function(constants, *batched, **static).
        constants: A pytree, which is replicated.
        *batched: Arrays with one row for each item.
        batch: Rows per call, rounded up to a multiple of the device count (fewer for small n). Two compilations serve
            every n. Where rows fill up a batch, each device has its share of them.
        progress: Called with the number of rows done after each batch.
        **static: Keywords for the function.

    Returns:
        A pytree of NumPy arrays [n, ...].
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


def one_ahead(started: Iterable[T]) -> Iterator[T]:
    """Yield each item once the next one is there.

    The items are results of calls that are started by asking for them, so that devices have the next call to work on
    while the caller waits for one result and processes it.
    """
    waiting = []
    for item in started:
        yield from waiting
        waiting = [item]
    yield from waiting


def _dealt(rows, count):
    """Return the rows in the order 0, count, 2 count, ...; 1, 1 + count, ...: dealt to ``count`` devices in turns.

    Dealing with the number of rows to each device undoes it.
    """
    return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def _cloned_keys(tree):
    """Return the same tree with its random keys marked as not used.

    Rows fold their own numbers into a key, batch after batch, and JAX's check for keys used twice does not see that
    within shard_map.
    """
    is_key = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if is_key(leaf) else leaf, tree)


def place_told(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return this process's number and how many processes there are, as SLURM or Open MPI states them; else (0, 1).

    It is for work that hosts do apart, without ``initialize``: joined hosts wait for each other at the end, and die
    together.
    """
    # This looks for a step of SLURM, as jax.distributed does: a script of sbatch without srun has a number too, but
    # runs alone.
    for number, count, needed in (
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ):
        if {number, count, needed} <= environment.keys():
            return int(environment[number]), int(environment[count])
    return 0, 1
