"""Reads on several processes: copies of a strand meet, their clusters are united, and a dead worker costs nothing."""

import os
import signal
import sys

import numpy as np
import pytest

from helix_jax import codec, parallel
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.errors import HelixError
from helix_jax.reads import clustering, recover, searching, spread, trimming
from helix_jax.reads.consensus import Rates

BLOB = np.random.default_rng(7).bytes(600)


@pytest.fixture(autouse=True)
def one_shape(monkeypatch):
    """Batches of 64 rows, so that the tests share what is compiled."""
    plain = parallel.map_batches

    def fixed(function, constants, *batched, batch, **options):
        return plain(function, constants, *batched, batch=64, **options)

    monkeypatch.setattr(parallel, "map_batches", fixed)


class Client:
    """Does at once, in this process, what is submitted. Tasks are pickled, as for another process."""

    def __init__(self, threads=1):
        self.threads, self.tasks, self.sent = threads, [], 0

    def ncores(self):
        return {"worker": self.threads, "another": 1}

    def submit(self, function, *job, pure):
        import pickle

        assert not pure
        self.tasks.append(function.__name__)
        self.sent = max(self.sent, len(pickle.dumps(job)))
        return Future(pickle.loads(pickle.dumps(function))(*pickle.loads(pickle.dumps(job))))


class Future:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


def reads_of(strands, times, errors, seed=0):
    """Copies with substitutions, in random order, and the strand of each."""
    draw = np.random.default_rng(seed)
    origin = draw.permutation(np.repeat(np.arange(len(strands)), times))
    rows = strands[origin]
    wrong = draw.random(rows.shape) < errors
    return rows ^ (wrong * draw.integers(1, 4, rows.shape)).astype(np.uint8), origin


def copies_of(rows):
    chunk = rows, np.full(len(rows), rows.shape[1], np.int32), None
    return trimming.cut([chunk], ("", ""), None)[0]


@pytest.fixture(scope="module")
def pool():
    config = CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100, redundancy=0.3))
    return codec.pack(BLOB, config=config)


# ---- partitions ----------------------------------------------------------------------------------------------


def test_copies_of_a_strand_meet():
    """In 50 partitions of 3,000 copies: each is in one to MEET, and those of a strand are joined through them."""
    strands = np.random.default_rng(0).integers(0, 4, (600, 100), np.uint8)
    rows, origin = reads_of(strands, 5, 0.02)
    parts = spread.parts_of(rows, np.full(len(rows), 100), 50)
    assert len(parts) == 50
    times = np.bincount(np.concatenate(parts), minlength=len(rows))
    assert 1 <= times.min() <= times.max() == spread.MEET
    assert max(map(len, parts)) < 3 * np.mean(list(map(len, parts)))
    graph = [(part, np.unique(origin[part], return_inverse=True)[1]) for part in parts]  # as if clustering were perfect
    clusters = spread.united(graph, len(rows))
    assert sum(map(len, clusters)) == len(rows)
    assert all(len(set(origin[cluster])) == 1 for cluster in clusters)
    largest = np.zeros(len(strands))
    for cluster in clusters:
        largest[origin[cluster[0]]] = max(largest[origin[cluster[0]]], len(cluster))
    assert largest.mean() > 4.9


def test_every_copy_is_somewhere():
    """Also those without a word, and where there is one partition or more than copies."""
    rows = np.random.default_rng(0).integers(0, 4, (20, 40), np.uint8)
    lengths = np.array([0, 1, 9, 10, *[40] * 16], np.int32)
    for count in (1, 7, 1000):
        parts = spread.parts_of(rows, lengths, count)
        assert len(parts) == count
        assert set(np.concatenate(parts).tolist()) == set(range(20))
    assert [part.tolist() for part in spread.parts_of(rows[:0], lengths[:0], 3)] == [[], [], []]


def test_clusters_that_share_copies_are_one():
    parts = [(np.array([0, 2, 3]), np.array([0, 0, 1])), (np.array([1, 2, 5]), np.array([0, 1, 1]))]
    assert [cluster.tolist() for cluster in spread.united(parts, 7)] == [[0, 2, 5], [1], [3], [4], [6]]
    assert spread.united([], 0) == []


def test_partitions_give_the_clusters(monkeypatch):
    monkeypatch.setattr(spread, "PART", 500)
    strands = np.random.default_rng(0).integers(0, 4, (300, 100), np.uint8)
    copies = trimming.both_ways(copies_of(reads_of(strands, 6, 0.01)[0]))
    client, done = Client(), []
    apart = spread.Spread(client).clusters(copies, done.append)
    whole = searching.grouped(clustering.cluster(copies.bases, copies.lengths))
    same = {cluster.tobytes() for cluster in map(np.sort, apart)} & {cluster.tobytes() for cluster in whole}
    assert len(same) > 0.98 * len(whole)
    assert len(client.tasks) > 10
    assert sum(done) == len(copies)


def test_searches_are_divided_and_take_only_what_they_use(pool, monkeypatch):
    """And their results are those of one process."""
    monkeypatch.setattr(spread, "TASK", 7)
    rows, _ = reads_of(pool.strands[:20], 60, 0.01)
    copies = copies_of(rows)
    clusters = searching.grouped(clustering.cluster(copies.bases, copies.lengths))
    question = searching.Question(100, Rates(np.float32(0.01), np.float32(0.3)))
    client = Client()
    strands, score = spread.Spread(client).lists(question, copies, clusters)
    plain = searching.Here().lists(question, copies, clusters)
    np.testing.assert_array_equal(strands, plain[0])
    np.testing.assert_array_equal(score, plain[1])
    assert client.tasks == ["_listed"] * 3
    assert client.sent < 7 * question.most * 2 * copies.bases.shape[1] + 20_000


@pytest.mark.parametrize("times", [4, 2], ids=["at-once", "with-the-wider-search"])
def test_the_whole_way(pool, times, monkeypatch):
    monkeypatch.setattr(spread, "PART", 300)
    monkeypatch.setattr(spread, "TASK", 40)
    rows, _ = reads_of(pool.strands, times, 0.01, seed=3)
    chunk = rows, np.full(len(rows), 100, np.int32), None
    client = Client()
    strands, report = recover.recover([chunk], hands=spread.Spread(client))
    assert codec.unpack(strands)[0] == BLOB
    assert report.reads == len(rows)
    assert {"_clustered", "_listed"} <= set(client.tasks)


def test_workers_with_several_threads_are_told():
    assert spread.Spread(Client(threads=1)).warnings == []
    (warning,) = spread.Spread(Client(threads=4)).warnings
    assert warning.startswith("1 of the workers")
    assert "--nthreads 1" in warning


def test_only_the_cores_that_may_be_used_are_shared(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: options)
    assert spread._local(2)["env"]["JAX_NUM_CPU_DEVICES"] == "3"


# ---- Dask ----------------------------------------------------------------------------------------------------


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HelixError, match=r"need Dask, .* pip install 'helix-jax\[cluster\]'"), spread.started(2):
        pass


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(spread, "PATIENCE", 0.3)
    with (
        pytest.raises(HelixError, match=r"no Dask cluster with workers answers at tcp://127\.0\.0\.1:9"),
        spread.started(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.slow
def test_a_worker_is_killed_in_the_middle(pool, monkeypatch):
    """Of two processes, one dies at its first task, with what it was told: the bytes come back all the same."""
    monkeypatch.setattr(spread, "PART", 300)
    monkeypatch.setattr(spread, "TASK", 20)
    rows, _ = reads_of(pool.strands, 5, 0.01, seed=3)
    chunk = rows, np.full(len(rows), 100, np.int32), None
    with spread.started(workers=2) as hands:
        assert len(hands.client.ncores()) == 2
        told = hands.client.run(lambda: {name: os.environ[name] for name in ("OMP_NUM_THREADS", "JAX_NUM_CPU_DEVICES")})
        share = str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert list(told.values()) == [{"OMP_NUM_THREADS": share, "JAX_NUM_CPU_DEVICES": share}] * 2
        processes, killed = hands.client.run(os.getpid), []

        def kill(station, done, total):
            if station == "consensus" and not killed:
                killed.append(next(iter(processes.values())))
                os.kill(killed[0], signal.SIGKILL)

        strands, report = recover.recover([chunk], hands=hands, progress=kill)
    assert killed
    assert codec.unpack(strands)[0] == BLOB
    alone, same = recover.recover([chunk])
    assert {row.tobytes() for row in strands.bases} == {row.tobytes() for row in alone.bases}
    assert report.reads == same.reads
