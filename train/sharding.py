"""Training on all devices of all hosts: the mesh, who holds which part of the parameters, and gradients over both.

The mesh has two axes: ``data`` holds copies of the parameters, ``fsdp`` shares them out. A batch is split over both.
"""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from helix_jax.errors import HelixError
from helix_jax.parallel import place_told

BATCH_AXES = ("data", "fsdp")  # a batch is split over both; parameters over the second only


class ParallelError(HelixError):
    """Devices, batch or sharding rules that do not fit each other; the message says which and what would fit."""


def initialize(coordinator: str | None = None, hosts: int | None = None, host: int | None = None):
    """Join the other hosts of a run, before anything touches a device. Returns (this host's number, hosts).

    coordinator ("address:port" of host 0), hosts and host are given by hand, all three, or found by ``jax.distributed``
    where SLURM, Open MPI, Kubernetes or a TPU slice says that there are several; else there is one host.
    Raises ParallelError where only some of the three are given, or the cluster's hosts are not found.
    """
    if coordinator is not None and hosts is not None and host is not None:
        if not 0 <= host < hosts:
            raise ParallelError(f"host {host} of {hosts}: hosts are numbered from 0 to {hosts - 1}")
        if hosts > 1:
            # peers that die are noticed after this long; the default is 100 s
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


def _in_cluster(environment=os.environ):
    """Whether a cluster manager started more than one process of this program."""
    slices = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    pod = any("," in environment.get(name, "") for name in slices) or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    kubernetes = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return place_told(environment)[1] > 1 or pod or kubernetes


def training_mesh(fsdp=1, devices=None):
    """Mesh of axes ``data`` and ``fsdp`` over all devices of all hosts (or those given).

    Raises ParallelError where ``fsdp`` does not divide their number.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ParallelError(f"fsdp={fsdp} does not divide {len(devices)} devices")
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def shardings(tree, rules, grid):
    """NamedSharding of every leaf of ``tree`` by the first rule whose pattern is found in its path.

    tree: pytree of arrays or shapes; a path is "average.decoder.0.spatial.w". rules: (pattern, axes) pairs, axes with
    one entry per dimension, "fsdp" for the one that is shared out and None for the others. Without a rule, and for an
    axis of one device, a leaf is replicated.
    Raises ParallelError naming a rule with any other axis, or a leaf whose dimensions do not fit its rule.
    """
    for pattern, axes in rules:
        named = [axis for axis in axes if axis is not None]
        if named not in ([], ["fsdp"]):
            raise ParallelError(
                f"sharding rule {pattern!r} names {', '.join(map(repr, named))}: write 'fsdp' for the one dimension "
                "that is shared out and None for the others; the mesh's axis 'data' only holds further copies"
            )

    def one(path, leaf):
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

    return jax.tree_util.tree_map_with_path(one, tree)


def path_name(path):
    """Key path of a pytree -> "encoder.0.spatial.w"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def batch_sharding(grid):
    """Sharding of a batch: its first axis over all devices."""
    return NamedSharding(grid, PartitionSpec(BATCH_AXES))


def replicated(grid):
    """Sharding of what every device holds whole."""
    return NamedSharding(grid, PartitionSpec())


def to_global(rows, grid):
    """This host's rows of a batch, NumPy [B / hosts, ...] -> the global array [B, ...], split over all devices."""
    return jax.make_array_from_process_local_data(batch_sharding(grid), rows)


def to_host(tree, grid):
    """Pytree of sharded arrays -> NumPy arrays on every host, whole. All hosts must call it."""
    return jax.tree.map(np.asarray, _whole(tree, replicated(grid)))


@functools.partial(jax.jit, static_argnames="sharding")
def _whole(tree, sharding):
    return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, sharding), tree)


def sum_over_hosts(number):
    """The sum of every host's number. All hosts must call it."""
    return int(multihost_utils.process_allgather(np.int32(number)).sum()) if jax.process_count() > 1 else number


def barrier(name):
    """Wait until all hosts are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gradients(loss_fn, grid, specs, micro=0, deterministic=False):
    """Function of (params, batch, key, *same) -> ((loss, aux), gradients): means over the global batch.

    The batch is cut in ``micro`` equal parts (0: one per device), which each device takes one after the other
    (gradient accumulation). loss_fn(params, rows, key, *same) -> (loss, aux), means over the rows of a part; part v
    gets ``fold_in(key, v)``, so the result depends on ``micro`` and not on the devices, and ``same`` as it is. specs:
    pytree of NamedSharding of the parameters; the gradients have the same.
    deterministic: add the parts in their order, so that any number of devices gives the same bits. That gathers all
    parts' gradients on every device: for tests and small nets.
    Raises ParallelError where the batch cannot be cut so.
    """
    parts = micro or grid.size
    places = jax.tree.map(lambda sharding: sharding.spec, specs)

    def local(params, rows, key, *same):
        # the parameters are whole only here; outside each device holds and updates its share
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
        # gradients here are of this device's parts alone: the sum over devices is taken once, by hand
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
            check_vma=False,  # with it, gradients of replicated parameters would come summed, once for each part
        )
        return mapped(params, rows, key, *same)

    return call


def check_parts(batch, parts, grid):
    """Raise ParallelError where a batch cannot be cut in so many equal parts, or the devices cannot share them."""
    if parts % grid.size:
        raise ParallelError(f"{parts} micro-batches cannot be shared evenly among {grid.size} devices: use a multiple")
    if batch % parts:
        raise ParallelError(f"a batch of {batch} cannot be cut in {parts} equal micro-batches: use a multiple")


def _fold(function, items, like):
    """Sum of function(item) over the first axis of ``items``, from first to last."""
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    add = lambda total, item: (jax.tree.map(jnp.add, total, function(item)), None)  # noqa: E731
    return lax.scan(add, zero, items, unroll=_unrolled())[0]


def _unrolled():
    """Turns of a loop that are written out: XLA runs the body of a loop on one core of a CPU, ten times slower."""
    return 8 if jax.default_backend() == "cpu" else 1


def _shared_axis(spec):
    """Which dimension of a parameter is split over ``fsdp``; None: none."""
    return next((dimension for dimension, axis in enumerate(spec) if axis == "fsdp"), None)


def _gather(share, spec):
    axis = _shared_axis(spec)
    return share if axis is None else lax.all_gather(share, "fsdp", axis=axis, tiled=True)


def _scatter(gradient, spec):
    """Sum over all devices; of a shared parameter each keeps its share."""
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


def pmap_gradients(loss_fn):
    """The data-parallel case of ``gradients`` by ``jax.pmap``, for tests: params replicated,
    batch [devices, rows, ...].

    In ``pmap`` each device's gradient is its own, and their mean is right.
    """

    def local(params, rows, key):
        key = jax.random.fold_in(key, lax.axis_index("data"))
        return lax.pmean(jax.value_and_grad(loss_fn, has_aux=True)(params, rows, key), "data")

    return jax.pmap(local, axis_name="data", in_axes=(None, 0, None), out_axes=None)
