"""Clusters of reads are those of the strands that they copy, whatever the order, and whatever else lies among them."""

import jax
import numpy as np
import pytest

from helix_jax.channel import model, simulate
from helix_jax.reads import clustering
from helix_jax.reads.consensus import PAD


def rows(reads):
    """List of uint8 arrays -> (uint8[n, R] padded, int32[n])."""
    lengths = np.array([len(read) for read in reads], np.int32)
    padded = np.full((len(reads), max(1, lengths.max(initial=0))), PAD, np.uint8)
    for row, read in zip(padded, reads, strict=True):
        row[: len(read)] = read
    return padded, lengths


def partition(labels):
    """Labels -> set of frozensets of positions: clusters without their names."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def in_order_of_appearance(labels):
    seen = -1
    for label in labels.tolist():
        if label > seen + 1:
            return False
        seen = max(seen, label)
    return not len(labels) or labels.min() == 0


@pytest.fixture(scope="module")
def drawn():
    """300 strands of 100 bases, and about 2,400 reads of them at 5 %."""
    strands = np.random.default_rng(0).integers(0, 4, (300, 100), dtype=np.uint8)
    return strands, simulate.reads_of(model.uniform(0.05), strands, 8, jax.random.key(1))


def test_clusters_are_the_strands(drawn):
    _, reads = drawn
    done = []
    labels = clustering.cluster(reads.bases, reads.lengths, progress=done.append)
    assert labels.dtype == np.int64
    assert partition(labels) == partition(reads.origin)
    assert in_order_of_appearance(labels)
    assert sum(done) == len(labels)


def test_order_changes_the_names_alone(drawn):
    _, reads = drawn
    before = clustering.cluster(reads.bases, reads.lengths)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(before))
        after = clustering.cluster(reads.bases[order], reads.lengths[order])
        assert in_order_of_appearance(after)
        assert partition(before[order]) == partition(after)


def test_what_lies_past_the_length_is_not_looked_at(drawn):
    _, reads = drawn
    bases, lengths = reads.bases[:400], reads.lengths[:400]
    before = clustering.cluster(bases, lengths)
    past = np.arange(bases.shape[1])[None] >= lengths[:, None]
    noise = np.random.default_rng(0).integers(0, 4, bases.shape, dtype=np.uint8)
    np.testing.assert_array_equal(clustering.cluster(np.where(past, noise, bases), lengths), before)


def test_few_reads():
    empty = clustering.cluster(np.zeros((0, 7), np.uint8), np.zeros(0, np.int32))
    assert (empty.shape, empty.dtype) == ((0,), np.int64)
    strand = np.random.default_rng(0).integers(0, 4, 60, dtype=np.uint8)
    other = np.random.default_rng(1).integers(0, 4, 60, dtype=np.uint8)
    assert clustering.cluster(*rows([strand])).tolist() == [0]
    assert clustering.cluster(*rows([strand] * 50)).tolist() == [0] * 50
    assert clustering.cluster(*rows([other, strand, other, strand])).tolist() == [0, 1, 0, 1]


def test_reads_shorter_than_a_word():
    """They are like no other, and harm none."""
    strand = np.random.default_rng(0).integers(0, 4, 60, dtype=np.uint8)
    short = [np.array(read, np.uint8) for read in ([2], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 1])]
    labels = clustering.cluster(*rows([short[0], strand, *short[1:], strand, strand]))
    assert labels.tolist() == [0, 1, 2, 3, 4, 1, 1]
    assert clustering.cluster(*rows(short)).tolist() == [0, 1, 2, 3]
    assert clustering.cluster(*rows([np.zeros(0, np.uint8), strand, strand])).tolist() == [0, 1, 1]


def test_reads_of_one_base_repeated():
    """Every word of a poly-A read is the same: no more work for it, and no cluster with anything else."""
    draw = np.random.default_rng(0)
    tails = [np.zeros(length, np.uint8) for length in (80, 100, 100, 101, 99)]
    strands = [draw.integers(0, 4, 100, dtype=np.uint8) for _ in range(5)]
    half = np.concatenate([strands[0][:50], np.zeros(50, np.uint8)])
    labels = clustering.cluster(*rows([*strands, half, *tails, *strands]))
    assert labels[11:].tolist() == labels[:5].tolist() == [0, 1, 2, 3, 4]
    assert labels[5] == 5
    assert set(labels[6:11].tolist()).isdisjoint(range(6))
    assert clustering.cluster(*rows([np.zeros(100, np.uint8)] * 2000)).max() <= 1


def test_chimeras_join_no_clusters(drawn):
    """A chimera is like each of two strands in part, wherever the cut is."""
    strands, reads = drawn
    draw = np.random.default_rng(4)
    pairs = [draw.choice(300, 2, replace=False) for _ in range(60)]
    cuts = np.resize(np.arange(5, 100, 5), 60)
    chimeras = [np.concatenate([strands[a][:cut], strands[b][cut:]]) for (a, b), cut in zip(pairs, cuts, strict=True)]
    whole = [row[:length] for row, length in zip(reads.bases, reads.lengths, strict=True)]
    labels = clustering.cluster(*rows([*chimeras, *whole]))
    assert partition(labels[len(chimeras) :]) == partition(reads.origin)


def test_drawn_chimeras_join_no_clusters(drawn):
    strands, _ = drawn
    reads = simulate.reads_of(model.uniform(0.05, chimera=0.05), strands, 8, jax.random.key(2))
    whole = reads.origin >= 0
    assert 60 < (~whole).sum() < 200
    labels = clustering.cluster(reads.bases, reads.lengths)
    assert partition(labels[whole]) == partition(reads.origin[whole])


def test_unrelated_reads_stay_apart():
    """2,000 random ones, and as many that share their first 10 bases."""
    draw = np.random.default_rng(2)
    strangers = draw.integers(0, 4, (2000, 100), dtype=np.uint8)
    lengths = np.full(2000, 100, np.int32)
    np.testing.assert_array_equal(clustering.cluster(strangers, lengths), np.arange(2000))
    strangers[:, :10] = strangers[0, :10]
    np.testing.assert_array_equal(clustering.cluster(strangers, lengths), np.arange(2000))


def test_a_strand_and_its_reverse_complement_are_two_clusters():
    strand = np.random.default_rng(3).integers(0, 4, 100, dtype=np.uint8)
    back = (3 - strand)[::-1]
    assert clustering.cluster(*rows([strand, back, strand, back])).tolist() == [0, 1, 0, 1]
