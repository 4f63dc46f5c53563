"""Clusters and consensus of reads on many processes or machines: Dask does the work of ``searching.Hands``.

Copies are partitioned by content, so that those of one strand meet: each copy goes to the partitions of the ``MEET``
words of it with the lowest hash, which a copy without an error there has too. Copies that any partition joins are one
cluster. Then the clusters are searched, some hundred in a task, with only those copies that are used. Header, checks
and outer code are the business of the process that reads the file, and are little work.

A task carries its data, and tasks are sent a few ahead of the workers: none has to find the data of another, so that
Dask gives those of a worker that dies to others.
"""

import collections
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8
from scipy import sparse
from scipy.sparse import csgraph

from helix_jax import cache
from helix_jax.errors import HelixError
from helix_jax.reads import clustering, searching
from helix_jax.reads.searching import Clusters, Question, Step
from helix_jax.reads.trimming import Copies

if TYPE_CHECKING:
    import distributed

SIZE, THIN = 8, 6  # bases of the words whose hashes decide, and one of so many is looked at
MEET = 4  # partitions that a copy goes to, at most
PART = 1 << 15  # copies of a partition, about
TASK = 512  # clusters of a task
AHEAD = 2  # tasks sent for each thread of a worker
DEATHS = 5  # workers that may die at one task
PATIENCE = 60  # seconds for which workers are waited for


def parts_of(
    bases: UInt8[np.ndarray, "n R"], lengths: Int[np.ndarray, " n"], count: int
) -> list[Int64[np.ndarray, " _"]]:
    """Partition copies by content.

    Args:
        bases: Bases 0..3, padded.
        lengths: The number of bases of each copy.
        count: The number of partitions.

    Returns:
        The copies of each partition, ascending; a copy is in one at least and in ``MEET`` at most.
    """
    pairs = []
    for begin in range(0, len(bases), clustering.PART):
        rows = slice(begin, begin + clustering.PART)
        word, owner, _ = clustering.thinned(bases[rows], lengths[rows], SIZE, THIN)
        order = (word * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(40)
        ranked = np.unique(owner.astype(np.uint64) << np.uint64(24) | order)
        owner, order = (ranked >> np.uint64(24)).astype(np.int64), (ranked & np.uint64(0xFFFFFF)).astype(np.int64)
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        lowest = place < MEET
        wordless = np.setdiff1d(np.arange(len(bases[rows])), owner)
        pairs.append((order[lowest] % count) << 40 | (owner[lowest] + begin))
        pairs.append(wordless + begin)  # these are like no other, wherever they go
    both = np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, np.int64)
    return np.split(both & ((1 << 40) - 1), np.searchsorted(both >> 40, np.arange(1, count)))


def united(parts: Iterable[tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]], count: int) -> Clusters:
    """Unite the clusters of partitions that share copies.

    Args:
        parts: The copies of each partition, and the labels of their clusters 0, 1, ..
        count: The number of copies.

    Returns:
        The clusters, in order of their first copies.
    """
    rows, heads, nodes = [], [], count
    for copies, labels in parts:
        rows.append(copies)
        heads.append(labels + nodes)
        nodes += int(labels.max(initial=-1)) + 1
    edges = tuple(np.concatenate([np.zeros(0, np.int64), *some]) for some in (rows, heads))
    graph = sparse.coo_array((np.ones(len(edges[0]), bool), edges), (nodes, nodes))
    label = csgraph.connected_components(graph, directed=False)[1][:count]
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return searching.grouped(np.argsort(np.argsort(first))[number])


def _clustered(bases, lengths):
    """Return the labels of the copies of a partition: a task."""
    return clustering.cluster(bases, lengths)


def _listed(question, copies, clusters):
    """Return the lists of strands of some clusters: a task."""
    return question.lists(copies, clusters)


class Spread:
    """The workers of a Dask cluster (``searching.Hands``).

    Attributes:
        client: The connection to the cluster's scheduler.
        part: See ``Hands``.
    """

    def __init__(self, client: "distributed.Client") -> None:
        """Work on the workers that a client is connected to."""
        self.client = client
        self.part = TASK * self._threads()

    def _threads(self) -> int:
        return max(1, sum(self.client.ncores().values()))

    @property
    def warnings(self) -> list[str]:
        """What is doubtful about the workers, as sentences without a full stop."""
        several = sum(threads > 1 for threads in self.client.ncores().values())
        return [
            f"{several:,} of the workers have several threads, which hold each other up: start them with --nthreads 1, "
            "and as many of them as there are cores"
        ] * bool(several)

    def clusters(self, copies: Copies, progress: Step = None) -> list[Int64[np.ndarray, " _"]]:
        """See ``Hands``."""
        parts = parts_of(copies.bases, copies.lengths, -(-MEET * len(copies) // PART) or 1)
        jobs = ((copies.bases[rows], copies.lengths[rows]) for rows in parts)
        labels, done, most = [], 0, sum(map(len, parts))
        for rows, found in zip(parts, self._each(_clustered, jobs), strict=True):
            labels.append(found)
            share = len(copies) * (done + len(rows)) // most - len(copies) * done // most if most else 0
            done += len(rows)
            if progress:
                progress(share)
        return list(united(zip(parts, labels, strict=True), len(copies)))

    def lists(
        self, question: Question, copies: Copies, clusters: Clusters, progress: Step = None
    ) -> tuple[UInt8[np.ndarray, "n k L"], Float32[np.ndarray, "n k"]]:
        """See ``Hands``."""
        strands, scores = [], []
        jobs = ((question, *_packed(copies, part, question.most)) for part in _tasks(clusters))
        for strand, score in self._each(_listed, jobs):
            strands.append(strand)
            scores.append(score)
            if progress:
                progress(len(strand))
        return np.concatenate(strands), np.concatenate(scores)

    def _each(self, function: Callable[..., Any], jobs: Iterable[tuple]) -> Iterator[Any]:
        """Yield function(*job) of each job, in their order."""
        import distributed

        waiting, ahead = collections.deque(), AHEAD * self._threads()
        try:
            for job in jobs:
                waiting.append(self.client.submit(function, *job, pure=False))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except distributed.KilledWorker as error:
            raise HelixError(
                f"{DEATHS} workers died at one part of the reads: give them more memory, or fewer of them a machine"
            ) from error
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            raise HelixError(f"the connection to Dask's scheduler was lost ({error}): is it still running?") from error


def _tasks(clusters):
    return (clusters[begin : begin + TASK] for begin in range(0, len(clusters), TASK))


def _packed(copies, clusters, most):
    """Return only those copies of clusters that are used, and the clusters as their numbers."""
    used = [searching.nearest(copies, cluster, most) for cluster in clusters]
    ends = np.cumsum([0, *map(len, used)])
    return copies.chosen(np.concatenate(used)), [np.arange(*pair) for pair in itertools.pairwise(ends)]


@contextlib.contextmanager
def started(workers: int | None = None, scheduler: str | None = None) -> Iterator[Spread]:
    """Start processes on this machine, or join a cluster that is there; a context manager.

    Args:
        workers: Processes to start. They share the cores, and leave a GPU to the process that starts them.
        scheduler: Address of the scheduler of a Dask cluster, as ``tcp://host:8786``, whose workers have helix_jax; in
            place of ``workers``.

    Raises:
        HelixError: Without Dask, or where no cluster or no worker answers.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise HelixError(
            f"reads on several processes need Dask, which is not installed ({error}): pip install 'helix-jax[cluster]'"
        ) from error
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.comm.timeouts.connect": f"{PATIENCE}s",
        "distributed.admin.large-graph-warning-threshold": "1GB",  # tasks carry their data on purpose
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        try:
            if scheduler is None:
                scheduler = stack.enter_context(_local(workers or 1))
            client = stack.enter_context(distributed.Client(scheduler, timeout=PATIENCE))
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            raise HelixError(
                f"no Dask cluster with workers answers at {scheduler} within {PATIENCE} s ({error}): check the "
                "address, and whether its workers are running"
            ) from error
        yield Spread(client)


def _cores():
    """Return how many cores this process may use, which a batch system or a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(workers):
    """Return a cluster of processes on this machine that share its cores between them."""
    import distributed

    cores = str(max(1, _cores() // workers))
    threads = {f"{name}_NUM_THREADS": cores for name in ("OMP", "OPENBLAS", "MKL")}
    own = {"JAX_NUM_CPU_DEVICES": cores, "JAX_PLATFORMS": "cpu"}
    compiled = {name.upper(): str(value) for name, value in cache.compiler_settings().items()}
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL,
        env=compiled | threads | own,
    )  # fmt: skip
