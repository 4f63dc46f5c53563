"""Clustering of unlabelled reads: each step against brute force, the whole against a simulator of its own."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.timing import clustering

TALK_LOSS = (0.15,) * 7 + (0.30,) * 3 + (0.42,) * 2  # of the twelve transitions, in some order


def simulate(strands, rounds, copies, seed, *, loss=TALK_LOSS, substituted=0.0, split=0.0):
    """Shuffled noisy reads, runs included, and the strand of each.

    copies: reads of each strand, or (least, most). loss: chance of a lost run, one or twelve numbers. substituted: of a
    letter of the read; split: of a run that another letter cuts in two.
    """
    random = np.random.default_rng(seed)
    step = random.integers(1, 4, (strands, rounds))
    letters = np.cumsum(step, axis=1) % 4
    table = np.zeros((4, 4))
    table[~np.eye(4, dtype=bool)] = random.permutation(np.broadcast_to(loss, 12))
    lost = table[np.roll(letters, 1, axis=1), letters]
    reads, owner = [], []
    for strand in range(strands):
        count = copies if isinstance(copies, int) else random.integers(copies[0], copies[1] + 1)
        for _ in range(count):
            read = letters[strand][random.random(rounds) >= lost[strand]]
            read = np.repeat(read, random.integers(1, 4, len(read)))
            wrong = random.random(len(read)) < substituted
            read = np.where(wrong, (read + random.integers(1, 4, len(read))) % 4, read)
            cut = np.flatnonzero(random.random(len(read)) < split)
            read = np.insert(read, cut, (read[cut] + 1) % 4)
            reads.append(read.astype(np.uint8))
            owner.append(strand)
    shuffle = random.permutation(len(reads))
    return [reads[i] for i in shuffle], np.array(owner)[shuffle]


def judge(label, owner):
    """(strands whose cluster is exactly right, clusters with reads of several strands)."""
    pairs = set(zip(label.tolist(), owner.tolist(), strict=True))
    of_label = [a for a, _ in pairs]
    of_owner = [b for _, b in pairs]
    right = sum(of_label.count(a) == 1 and of_owner.count(b) == 1 for a, b in pairs)
    return right, sum(of_label.count(a) > 1 for a in set(of_label))


def texts_of(reads):
    return [clustering.collapse(read).tobytes() for read in reads]


def edits(one, two):
    """Edit distance by the definition."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_collapse_keeps_one_letter_of_each_run(letters):
    read = np.array(letters, np.uint8)
    assert clustering.collapse(read).tolist() == [letter for letter, _ in itertools.groupby(letters)]


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 3), np.uint8), np.zeros(3, np.int32), np.array([0, 4], np.uint8), np.zeros(3)]
)
def test_a_bad_read_is_refused_by_number(bad):
    good = np.array([0, 1, 2], np.uint8)
    with pytest.raises(clustering.ClusteringError, match=r"read 2 is .* give uint8\[length\] of bases 0..3"):
        clustering.cluster([good, good, bad])


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_distance_is_edits_per_letter_of_the_mean_length(one, two):
    mean = (len(one) + len(two)) / 2
    assert clustering._distance(one, two) == pytest.approx(edits(one, two) / mean if mean else 0)


def scores(texts, k):
    """{(i, j): score}, i != j, by comparing all words of all pairs of texts."""
    mean = max(1, round(sum(map(len, texts)) / len(texts)))
    drift = int(np.ceil(np.sqrt(mean)))
    out = {}
    for i, j in itertools.permutations(range(len(texts)), 2):
        one, two = texts[i], texts[j]
        for x, y in itertools.product(range(len(one) - k + 1), range(len(two) - k + 1)):
            apart = abs(x * mean // len(one) - y * mean // len(two))
            if one[x : x + k] == two[y : y + k] and apart <= drift:
                out[i, j] = out.get((i, j), 0) + drift + 1 - apart
    return out


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([60, 400, 1 << 22]))
def test_nominations_are_the_best_by_brute_force(seed, partners, block):
    random = np.random.default_rng(seed)
    # three letters of a small alphabet, so that words are shared often
    reads = [random.integers(0, 2, random.integers(0, 70)).astype(np.uint8) * 2 for _ in range(7)]
    texts = [read.tobytes() for read in reads]  # not collapsed: any bytes 0..3 will do
    small = np.flatnonzero(random.random(7) < 0.7)
    small = small if len(small) else np.array([3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "PARTNERS", partners)
        patch.setattr(clustering, "BLOCK", block)
        found = list(clustering.nominate(texts, small))
    assert sum(done for done, _ in found) == 7
    score = scores(texts, 5)
    expected = set()
    for i in small.tolist():
        ranked = sorted((-s, j) for (a, j), s in score.items() if a == i)
        expected |= {(min(i, j), max(i, j)) for _, j in ranked[: partners * 7 // len(small)]}
    assert {tuple(pair) for _, pairs in found for pair in pairs.tolist()} == expected


def test_levels_match_the_populations():
    reads, owner = simulate(30, 400, 4, 1)
    texts = texts_of(reads)
    related, unrelated = [], []
    for i, j in itertools.combinations(range(len(texts)), 2):
        (related if owner[i] == owner[j] else unrelated).append(clustering._distance(texts[i], texts[j]))
    levels = clustering.measure(texts, np.array(related + unrelated[:200]))
    assert levels.unrelated == pytest.approx(np.mean(unrelated), abs=0.003)
    assert levels.spread == pytest.approx(np.std(unrelated), rel=0.15)
    assert levels.related == pytest.approx(np.mean(related), abs=0.01)
    assert levels.scatter == pytest.approx(np.std(related), rel=0.3)
    alone = [text for text, strand in zip(texts, owner, strict=True) if strand == 0]  # four reads of one strand
    assert clustering.measure(alone, np.zeros(0)).unrelated == pytest.approx(np.mean(unrelated), abs=0.01)


def test_limit_knows_how_the_mean_of_many_pairs_spreads():
    reads, owner = simulate(60, 200, 5, 2)
    texts = texts_of(reads)
    reads_of = [np.flatnonzero(owner == strand) for strand in range(60)]
    pairs = [(a, b) for a, b in itertools.combinations(range(60), 2) if (a + b) % 4 == 0]

    def spread(m, n):
        means = [
            np.mean([clustering._distance(texts[i], texts[j]) for i in reads_of[a][:m] for j in reads_of[b][:n]])
            for a, b in pairs
        ]
        return np.mean(means), np.std(means)

    unrelated, single = spread(1, 1)
    levels = clustering.Levels(unrelated, single, unrelated, 0.0)
    for m, n in [(1, 4), (2, 2), (4, 4)]:
        claimed = (unrelated - levels.limit(m, n, 1)) / clustering.SIGMAS
        assert claimed == pytest.approx(spread(m, n)[1], rel=0.15)


def test_limit_is_halfway_at_most_and_strict_where_chances_are_many():
    levels = clustering.Levels(0.44, 0.01, 0.32, 0.03)
    assert levels.limit(8, 8, 1) == pytest.approx(0.44 - 0.12 / 4)  # one deviation of four lies on this side
    assert levels.limit(1, 1, 10**6) == pytest.approx(0.44 - 0.01 * np.sqrt(2.4 * np.log(10**6)))
    assert clustering.Levels(0.44, 0.03, 0.1, 0.001).limit(8, 8, 1) == pytest.approx(0.27)  # halfway
    assert clustering.Levels(0.44, 0.0, 0.44, 0.0).limit(1, 1, 1) <= 0.44


def test_one_chance_likeness_joins_no_clusters():
    levels = clustering.Levels(0.44, 0.01, 0.3, 0.02)
    table = np.full((6, 6), 0.44)
    table[:3, :3] = table[3:, 3:] = 0.3
    table[2, 3] = table[3, 2] = 0.31  # between the clusters, nearer than the limit
    pairs = sorted((table[i, j], i, j) for i, j in itertools.combinations(range(6), 2))

    def distance(i, j):
        return table[i, j]

    alone = [[i] for i in range(6)]
    assert clustering.link(alone, pairs, distance, levels) == [[0, 1, 2], [3, 4, 5]]
    assert clustering.link([[0, 1, 2], [3, 4, 5]], [(0.31, 0, 1)], distance, levels) == [[0, 1, 2], [3, 4, 5]]


def test_a_poor_read_is_taken_in_by_a_cluster_alone():
    levels = clustering.Levels(0.44, 0.015, 0.3, 0.05)
    poor = [(0.395, 0, 1)]
    assert clustering.link([[0], [1]], poor, lambda i, j: 0.395, levels) == [[0], [1]]
    assert clustering.link([[0], [1, 2, 3, 4]], poor, lambda i, j: 0.395, levels) == [[0, 1, 2, 3, 4]]
    # with hundreds of clusters of either size, chance brings some as near
    many = [[i] for i in range(300)] + [[300 + 4 * i + k for k in range(4)] for i in range(300)]
    assert len(clustering.link(many, [(0.395, 0, 300)], lambda i, j: 0.395, levels)) == 600


@pytest.mark.parametrize(
    "pool",
    [
        {"strands": 60, "rounds": 980, "copies": 5},
        {"strands": 40, "rounds": 980, "copies": (1, 10)},
        {"strands": 30, "rounds": 980, "copies": 5, "substituted": 0.005, "split": 0.005},
        {"strands": 60, "rounds": 300, "copies": 4, "loss": 0.05},
        {"strands": 40, "rounds": 500, "copies": 5, "loss": tuple(np.exp([-6.0, -2.5, -1.3] * 4))},  # Poisson
        {"strands": 6, "rounds": 980, "copies": 20},
        {"strands": 1, "rounds": 980, "copies": 5},
        {"strands": 150, "rounds": 980, "copies": 1},
        {"strands": 2, "rounds": 400, "copies": 1},
    ],
    ids=[
        "talk",
        "any copies",
        "sequencer",
        "low loss",
        "poisson",
        "many copies",
        "one strand",
        "one copy",
        "two reads",
    ],
)
def test_every_strand_is_right(pool):
    reads, owner = simulate(**pool, seed=5)
    done = []
    label = clustering.cluster(reads, progress=done.append)
    assert judge(label, owner) == (len(np.unique(owner)), 0)
    assert sum(done) == len(reads)
    first = label[np.sort(np.unique(label, return_index=True)[1])]
    assert first.tolist() == list(range(len(first))), "labels by first appearance"


def test_short_strands_are_split_rather_than_mixed():
    right = mixed = 0
    for seed in range(4):
        reads, owner = simulate(60, 200, 5, seed)
        got = clustering.cluster(reads)
        right, mixed = right + judge(got, owner)[0], mixed + judge(got, owner)[1]
    assert right >= 236  # of 240
    assert mixed == 0


def test_duplicates_share_a_cluster_and_change_nothing():
    reads, owner = simulate(12, 400, 4, 7)
    label = clustering.cluster(reads)
    again = clustering.cluster([*reads, *reads[:20], reads[0]])
    assert again.tolist() == [*label, *label[:20], label[0]]
    assert judge(label, owner) == (12, 0)


def test_runs_do_not_matter_and_order_names_only():
    reads, _ = simulate(12, 400, 4, 8)
    label = clustering.cluster(reads)
    assert clustering.cluster([clustering.collapse(read) for read in reads]).tolist() == label.tolist()
    order = np.random.default_rng(0).permutation(len(reads))
    moved = clustering.cluster([reads[i] for i in order])
    assert len(set(zip(moved.tolist(), label[order].tolist(), strict=True))) == len(set(label.tolist()))


def test_odd_reads_stand_alone():
    empty = np.zeros(0, np.uint8)
    assert clustering.cluster([]).shape == (0,)
    assert clustering.cluster([empty]).tolist() == [0]
    assert clustering.cluster([empty, empty, np.array([2], np.uint8)]).tolist() == [0, 0, 1]
    reads, owner = simulate(8, 400, 4, 9)
    tail = np.array([0, 0, 0], np.uint8)  # "A", and a read cut short
    label = clustering.cluster([*reads, empty, tail, reads[0][:80]])
    assert judge(label[:-3], owner) == (8, 0)
    assert label[-3:].tolist() == [8, 9, 10]


def test_the_work_grows_with_the_reads_not_with_their_square(monkeypatch):
    calls = []
    plain = clustering._distance
    monkeypatch.setattr(clustering, "_distance", lambda one, two: calls.append(1) or plain(one, two))
    for strands in (50, 200):
        calls.clear()
        clustering.cluster(simulate(strands, 250, 5, 3)[0])
        assert len(calls) < clustering.SAMPLE + 40 * 5 * strands  # all pairs: 125 and 500 a read


@pytest.mark.slow
def test_a_large_pool():
    reads, owner = simulate(500, 980, 5, 0)
    assert judge(clustering.cluster(reads), owner) == (500, 0)
    reads, owner = simulate(500, 200, 5, 0)
    right, mixed = judge(clustering.cluster(reads), owner)
    assert right >= 492
    assert mixed <= 1
