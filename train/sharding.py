"""Training on all devices of all hosts: the mesh, the sharding of the parameters, and the gradients.

The mesh has two axes: along ``data`` the parameters are replicated, along ``fsdp`` they are split. A batch is split
over both.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from helix_jax.errors import HelixError
from helix_jax.parallel import place_told

BATCH_AXES = ("data", "fsdp")  # a batch is split over both; parameters over the second only


class ParallelError(HelixError):
    """Devices, batch or sharding rules do not fit each other; the message says which, and what would fit."""


def initialize(coordinator: str | None = None, hosts: int | None = None, host: int | None = None) -> tuple[int, int]:
    """Join the other hosts of a run; this must be called before anything touches a device.

    Either all three parameters are passed, or ``jax.distributed`` finds the hosts if SLURM, Open MPI, Kubernetes or a
    TPU slice says that there are several. Otherwise there is one host.

    Args:
        coordinator: "address:port" of host 0.
        hosts: number of hosts.
        host: number of this host.

    Returns:
        The number of this host, and the number of hosts.

    Raises:
        ParallelError: if only some of the three are passed, or if the hosts of the cluster are not found.
    """
    if coordinator is not None and hosts is not None and host is not None:
        if not 0 <= host < hosts:
            raise ParallelError(f"host {host} of {hosts}: hosts are numbered from 0 to {hosts - 1}")
        if hosts > 1:
            # the death of another host is noticed after this time; the default is 100 s
            jax.distributed.initialize(coordinator, hosts, host, heartbeat_timeout_seconds=30)
    elif (coordinator, hosts, host) != (None, None, None):
        raise ParallelError("give all of coordinator, hosts and host, or none where a cluster manager tells them")
    elif _in_cluster():
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ParallelError(
                f"the other hosts of this cluster are not found ({error}): install what jax.distributed asks with (the "
                "package kubernetes, or requests on Cloud TPU), or give coordinator, hosts and host"
            ) from error
    return jax.process_index(), jax.process_count()


def _in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a cluster manager started more than one process of this program."""
    slices = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    pod = any("," in environment.get(name, "") for name in slices) or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    kubernetes = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return place_told(environment)[1] > 1 or pod or kubernetes


def training_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh of axes ``data`` and ``fsdp`` over ``devices``, or over all devices of all hosts.

    Raises ParallelError if ``fsdp``, the size of the second axis, does not divide their number.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ParallelError(f"fsdp={fsdp} does not divide {len(devices)} devices")
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def shardings(tree: PyTree, rules: Iterable[tuple[str, Sequence[str | None]]], grid: Mesh) -> PyTree:
    """Return the NamedSharding of every leaf, by the first rule whose pattern is found in its path.

    A leaf without a rule is replicated.

    Args:
        tree: pytree of arrays or shapes; a path is, for example, "average.decoder.0.spatial.w".
        rules: pairs (pattern, axes), where axes has one entry per dimension: "fsdp" for the one that is split, and None
            for the others.
        grid: the mesh.

    Raises:
        ParallelError: naming a rule with any other axis, or a leaf whose dimensions do not fit its rule.
    """
    rules = list(rules)
    for pattern, axes in rules:
        named = [axis for axis in axes if axis is not None]
        if named not in ([], ["fsdp"]):
            raise ParallelError(
                f"sharding rule {pattern!r} names {', '.join(map(repr, named))}: write 'fsdp' for the one dimension "
                "that is shared out and None for the others; the mesh's axis 'data' only holds further copies"
            )

    def sharding_of(path, leaf):
        name = path_name(path)
        axes = next((axes for pattern, axes in rules if re.search(pattern, name)), ())
        if not axes or leaf.ndim == 0:
            return NamedSharding(grid, PartitionSpec())
        sizes = [grid.shape.get(axis, 0) if axis else 1 for axis in axes]
        if len(axes) != leaf.ndim or any(not n or size % n for n, size in zip(sizes, leaf.shape, strict=True)):
            raise ParallelError(
                f"{name} of shape {leaf.shape} does not divide over {axes} of mesh {dict(grid.shape)}: change its "
                "sharding rule, the width or fsdp"
            )
        return NamedSharding(grid, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def path_name(path: tuple) -> str:
    """Return the name of a key path of a pytree, for example "encoder.0.spatial.w"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def batch_sharding(grid: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose first axis is split over all devices."""
    return NamedSharding(grid, PartitionSpec(BATCH_AXES))


def replicated(grid: Mesh) -> NamedSharding:
    """Return the sharding of an array of which every device holds a copy."""
    return NamedSharding(grid, PartitionSpec())


def to_global(rows: Shaped[np.ndarray, "n ..."], grid: Mesh) -> Shaped[Array, "B ..."]:
    """Return the global batch, split over all devices, from the rows of this host."""
    return jax.make_array_from_process_local_data(batch_sharding(grid), rows)


def to_host(tree: PyTree, grid: Mesh) -> PyTree:
    """Return a pytree of sharded arrays as complete NumPy arrays on every host. All hosts must call it."""
    return jax.tree.map(np.asarray, _whole(tree, replicated(grid)))


@functools.partial(jax.jit, static_argnames="sharding")
def _whole(tree, sharding):
    return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, sharding), tree)


def sum_over_hosts(number: int) -> int:
    """Return the sum of the numbers of all hosts. All hosts must call it."""
    return int(multihost_utils.process_allgather(np.int32(number)).sum()) if jax.process_count() > 1 else number


def barrier(name: str) -> None:
    """Wait until all hosts have called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gradients(
    loss_fn: Callable, grid: Mesh, specs: PyTree, micro: int = 0, deterministic: bool = False
) -> Callable[..., Any]:
    """Return a function of (params, batch, key, *same) that gives ((loss, aux), gradients), means over the batch.

    The global batch is cut into equal parts, which each device processes one after the other (gradient accumulation).
    Part v gets the key ``fold_in(key, v)``, so that the result depends on the number of parts and not on the devices.
    ``same`` is passed to all parts as it is.

    Args:
        loss_fn: loss_fn(params, rows, key, *same) gives (loss, aux), means over the rows of a part.
        grid: the mesh.
        specs: pytree of the NamedSharding of the parameters; the gradients have the same.
        micro: number of parts; 0 for one per device.
        deterministic: whether the parts are added in their order, so that any number of devices gives the same bits.
            This gathers the gradients of all parts on every device, and is meant for tests and small nets.

    Raises:
        ParallelError: when the function is called with a batch that cannot be cut into that many parts.
    """
    parts = micro or grid.size
    places = jax.tree.map(lambda sharding: sharding.spec, specs)

    def local(params, rows, key, *same):
        # the parameters are complete only here; outside, each device holds and updates its share
        params = jax.tree.map(_gather, params, places)
        first = lax.axis_index(BATCH_AXES) * len(rows)

        def part(number, some):
            mine = jax.random.fold_in(key, first + number)
            return jax.value_and_grad(loss_fn, has_aux=True)(params, some, mine, *same)

        numbered = (jnp.arange(len(rows), dtype=jnp.int32), rows)
        if deterministic:
            each = lax.scan(lambda _, item: (None, part(*item)), None, numbered, unroll=_unrolled())[1]
            each = jax.tree.map(lambda leaf: lax.all_gather(leaf, BATCH_AXES, tiled=True), each)
            total = _fold(lambda item: item, each, jax.tree.map(lambda leaf: leaf[0], each))
            (loss, aux), grads = jax.tree.map(lambda leaf: leaf / parts, total)
            return (loss, aux), jax.tree.map(_own_share, grads, places)
        total = _fold(lambda item: part(*item), numbered, jax.eval_shape(part, 0, rows[0]))
        # these gradients are of this device's parts only: the sum over the devices is taken once, explicitly
        (loss, aux), grads = jax.tree.map(lambda leaf: leaf / parts, total)
        return lax.psum((loss, aux), BATCH_AXES), jax.tree.map(_scatter, grads, places)

    def call(params, batch, key, *same):
        check_parts(len(batch), parts, grid)
        rows = batch.reshape(parts, len(batch) // parts, *batch.shape[1:])
        mapped = jax.shard_map(
            local,
            mesh=grid,
            in_specs=(places, PartitionSpec(BATCH_AXES), *[PartitionSpec()] * (1 + len(same))),
            out_specs=(PartitionSpec(), places),
            check_vma=False,  # with it, gradients of replicated parameters would be summed for each part
        )
        return mapped(params, rows, key, *same)

    return call


def check_parts(batch: int, parts: int, grid: Mesh | AbstractMesh) -> None:
    """Raise ParallelError if a batch cannot be cut into equal parts, or if the devices cannot share the parts evenly.

    Args:
        batch: number of rows.
        parts: number of parts.
        grid: the mesh.
    """
    if parts % grid.size:
        raise ParallelError(f"{parts} micro-batches cannot be shared evenly among {grid.size} devices: use a multiple")
    if batch % parts:
        raise ParallelError(f"a batch of {batch} cannot be cut in {parts} equal micro-batches: use a multiple")


def _fold(function, items, like):
    """Return the sum of function(item) over the first axis of ``items``, added from first to last."""
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    add = lambda total, item: (jax.tree.map(jnp.add, total, function(item)), None)  # noqa: E731
    return lax.scan(add, zero, items, unroll=_unrolled())[0]


def _unrolled() -> int:
    """Return how many iterations of a loop to unroll: XLA runs a loop's body on one core of a CPU, ten times slower."""
    return 8 if jax.default_backend() == "cpu" else 1


def _shared_axis(spec: PartitionSpec) -> int | None:
    """Return the dimension of a parameter that is split over ``fsdp``, or None."""
    return next((dimension for dimension, axis in enumerate(spec) if axis == "fsdp"), None)


def _gather(share, spec):
    axis = _shared_axis(spec)
    return share if axis is None else lax.all_gather(share, "fsdp", axis=axis, tiled=True)


def _scatter(gradient, spec):
    """Sum over all devices; for a split parameter, each device keeps its share of the sum."""
    axis = _shared_axis(spec)
    if axis is None:
        return lax.psum(gradient, BATCH_AXES)
    return lax.psum(lax.psum_scatter(gradient, "fsdp", scatter_dimension=axis, tiled=True), "data")


def _own_share(gradient, spec):
    axis = _shared_axis(spec)
    if axis is None:
        return gradient
    size = gradient.shape[axis] // lax.axis_size("fsdp")
    return lax.dynamic_slice_in_dim(gradient, lax.axis_index("fsdp") * size, size, axis)


def pmap_gradients(loss_fn: Callable) -> Callable[..., Any]:
    """Return the data-parallel case of ``gradients`` by ``jax.pmap``, for tests.

    The parameters are replicated, and the batch has the shape [devices, rows, ...]. In ``pmap`` each device has its own
    gradient, and their mean is the right one.
    """

    def local(params, rows, key):
        key = jax.random.fold_in(key, lax.axis_index("data"))
        return lax.pmean(jax.value_and_grad(loss_fn, has_aux=True)(params, rows, key), "data")

    return jax.pmap(local, axis_name="data", in_axes=(None, 0, None), out_axes=None)
