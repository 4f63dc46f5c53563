"""Schedules: the file is what its description says, bad ones are refused by line, and copies obey the law."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.errors import HelixError
from helix_jax.files import OutputError
from helix_jax.timing import channel, schedule, synthesis
from helix_jax.timing.graph import TALK, TimeTable
from helix_jax.timing.schedule import Schedule, ScheduleError

NOISELESS, SILENT = channel.Binomial.uniform(1.0), channel.Binomial.uniform(0.0)
PLAIN = synthesis.Sequencer()
TEXT = "# helix_jax timing schedule 1\n# scheme: talk\n# strand\tletters\tdurations\n0\tCGT\t1,2,3\n1\tTAC\t1,4,2\n"


def random_schedule(seed, strands, rounds, table=TALK):
    """Paths from base A, with times of the table."""
    generator = np.random.default_rng(seed)
    letters, durations = np.zeros((strands, rounds), np.uint8), np.zeros((strands, rounds), np.uint8)
    for s in range(strands):
        before = 0
        for j in range(rounds):
            a = generator.choice([a for a in range(4) if table.times[before][a]])
            letters[s, j], durations[s, j] = a, generator.choice(table.times[before][a])
            before = a
    return Schedule(letters, durations, "talk")


def written(row, times):
    """Bases of a copy that lost nothing."""
    return "".join("ACGT"[a] * int(t) for a, t in zip(row, times, strict=True))


def text_of(read):
    return "".join("ACGT"[a] for a in read)


# ---- the file ------------------------------------------------------------------------------------


def test_the_file_is_as_described(tmp_path):
    path = tmp_path / "pool.tsv"
    letters, durations = np.array([[1, 2, 3], [3, 0, 1]], np.uint8), np.array([[1, 2, 3], [1, 4, 2]], np.uint8)
    schedule.write(path, Schedule(letters, durations, "talk"))
    assert path.read_text() == TEXT
    back = schedule.read(path)
    assert (back.letters.dtype, back.durations.dtype, back.scheme) == (np.uint8, np.uint8, "talk")
    np.testing.assert_array_equal(back.letters, letters)
    np.testing.assert_array_equal(back.durations, durations)


@given(st.data())
def test_any_schedule_comes_back(tmp_path_factory, data):
    strands, rounds = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    numbers = st.lists(st.integers(0, 1019), min_size=strands * rounds, max_size=strands * rounds)
    numbers = np.array(data.draw(numbers)).reshape(strands, rounds)
    name = data.draw(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8))
    wanted = Schedule((numbers % 4).astype(np.uint8), (1 + numbers // 4).astype(np.uint8), name)
    path = tmp_path_factory.mktemp("schedule") / "a.tsv"
    schedule.write(path, wanted)
    back = schedule.read(path)
    np.testing.assert_array_equal(back.letters, wanted.letters)
    np.testing.assert_array_equal(back.durations, wanted.durations)
    assert back.scheme == name


def test_people_may_add_comments_and_other_line_ends(tmp_path):
    path = tmp_path / "pool.tsv"
    path.write_bytes((TEXT.replace("1\tTAC", "# a comment\n\n1\tTAC")).replace("\n", "\r\n").encode())
    assert schedule.read(path).durations.tolist() == [[1, 2, 3], [1, 4, 2]]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1,4,2\n", "1,4", "line 5"),
        ("\t1,4,2\n", "", "line 5"),
        ("TAC", "TA", "line 5"),
        ("CGT\t1,2,3", "CG\t1,2", "line 5"),  # unlike lengths
        ("CGT", "CNT", "line 4"),
        ("CGT", "cgt", "line 4"),
        ("1,2,3", "1,0,3", "line 4"),
        ("1,2,3", "1,256,3", "line 4"),
        ("1,2,3", "1,-2,3", "line 4"),
        ("1,2,3", "1,2.0,3", "line 4"),
        ("1,2,3", "1,2,", "line 4"),
        ("CGT\t1,2,3", "\t", "line 4"),
        ("0\tCGT\t1,2,3\n1\tTAC\t1,4,2\n", "", "no strands"),
        ("schedule 1", "schedule 2", "not a timing schedule"),
        ("# scheme: talk\n", "", "not a timing schedule"),
        (TEXT, "", "not a timing schedule"),
        (TEXT, ">read\nACGT\n", "not a timing schedule"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, old, new, words):
    path = tmp_path / "bad.tsv"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(ScheduleError, match=words) as caught:
        schedule.read(path)
    assert str(path) in str(caught.value)


def test_every_cut_inside_a_line_is_seen(tmp_path):
    """But one: a last time cut to fewer digits is a time."""
    path = tmp_path / "cut.tsv"
    for length in range(len(TEXT) - 7, len(TEXT) - 2):
        path.write_text(TEXT[:length])
        with pytest.raises(ScheduleError, match="line 5"):
            schedule.read(path)


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    with pytest.raises(ScheduleError, match="not a timing schedule"):
        schedule.read(tmp_path / "bytes")
    with pytest.raises(HelixError, match="no such file"):
        schedule.read(tmp_path / "none")
    with pytest.raises(OutputError):
        schedule.write(tmp_path / "none" / "a.tsv", random_schedule(0, 1, 2))


# ---- times and levels ----------------------------------------------------------------------------


def test_time():
    plan = Schedule(np.zeros((2, 3), np.uint8), np.array([[1, 2, 3], [250, 250, 250]], np.uint8), "talk")
    assert plan.time() == 756
    assert plan.time(0.5) == 759


def test_levels():
    plan = random_schedule(1, 20, 40)
    levels = plan.levels(TALK)
    assert levels.dtype == np.uint8
    for row, times, found in zip(plan.letters.tolist(), plan.durations.tolist(), levels.tolist(), strict=True):
        for b, a, t, level in zip([0, *row], row, times, found, strict=False):
            assert TALK.times[b][a][level] == t


@pytest.mark.parametrize(
    ("letters", "durations", "words"),
    [
        ([1, 2, 1], [1, 2, 2], "strand 0, round 2: G->C for 2 time units"),  # its times are 1 and 3
        ([0, 1, 2], [1, 1, 1], "strand 0, round 0: A->A"),
        ([1, 1, 2], [1, 1, 1], "strand 0, round 1: C->C"),
    ],
)
def test_a_schedule_of_another_scheme(letters, durations, words):
    plan = Schedule(np.array([letters], np.uint8), np.array([durations], np.uint8), "other")
    with pytest.raises(ScheduleError, match=words):
        plan.levels(TALK)


# ---- copies: one shape for most, as each is compiled -----------------------------------------------


PLAN = random_schedule(2, 20, 50)


def simulate(seed, law, sequencer=PLAIN, plan=PLAN, **options):
    reads, *lost = schedule.simulate(jax.random.key(seed), plan, law, TALK, 3, sequencer, **options)
    return list(map(text_of, reads)), *lost


def test_noiseless_copies_are_the_schedule():
    reads, lost, lost_in_all = simulate(0, NOISELESS)
    straight = [text for text in map(written, PLAN.letters, PLAN.durations) for _ in range(3)]
    assert Counter(reads) == Counter(straight)
    assert (lost, lost_in_all) == (0, 0)
    assert reads != straight
    assert sum(a == b for a, b in itertools.pairwise(reads)) < 12  # 40 in order, 2 by chance


def test_copies_follow_the_key():
    assert simulate(1, channel.TALK_LAW) == simulate(1, channel.TALK_LAW) != simulate(2, channel.TALK_LAW)


def test_copies_without_a_base_are_left_out():
    """One round each: a copy holds one base or none."""
    table = TimeTable.uniform((1,))
    plan = Schedule(np.tile(np.array([[1], [2], [3]], np.uint8), (100, 1)), np.ones((300, 1), np.uint8), "one")
    reads, lost, lost_in_all = schedule.simulate(
        jax.random.key(5), plan, channel.Binomial.uniform(0.6), table, 2, PLAIN
    )
    assert all(len(read) == 1 and read.dtype == np.uint8 for read in reads)
    assert len(reads) + lost == 600
    assert abs(lost / 600 - 0.4) < 5 * np.sqrt(0.24 / 600)
    assert abs(lost_in_all / 300 - 0.16) < 5 * np.sqrt(0.16 * 0.84 / 300)
    assert schedule.simulate(jax.random.key(0), plan, SILENT, table, 2, PLAIN) == ([], 600, 300)


def test_lost_runs_are_as_many_as_the_law_says():
    steps = []
    reads, lost, lost_in_all = simulate(9, channel.TALK_LAW, progress=steps.append)
    before = np.concatenate([np.zeros((20, 1), np.uint8), PLAN.letters[:, :-1]], axis=1)
    p = np.array(channel.TALK_LAW.p)[before, PLAN.letters]
    for found, expected in ((lost, 3 * (1 - p) ** PLAN.durations), (lost_in_all, (1 - p) ** (3 * PLAN.durations))):
        assert abs(found - expected.sum()) < 5 * np.sqrt(expected.sum())
    bases = 3 * (p * PLAN.durations).sum()
    assert abs(sum(map(len, reads)) - bases) < 5 * np.sqrt(bases)
    assert sum(steps) == 20


def test_batches_do_not_repeat_each_other(monkeypatch):
    """Like strands in different batches get different copies."""
    monkeypatch.setattr(schedule, "_BATCH", 20)
    one = random_schedule(6, 1, 50)
    plan = Schedule(np.tile(one.letters, (40, 1)), np.tile(one.durations, (40, 1)), "talk")
    reads, *_ = simulate(1, channel.TALK_LAW, plan=plan)
    assert len(set(reads)) == len(reads) == 120


def test_the_sequencer_has_its_say():
    exact = Counter(map(written, PLAN.letters, PLAN.durations))
    wrong, *_ = simulate(1, NOISELESS, synthesis.Sequencer(substitution=0.2))
    assert sorted(map(len, wrong)) == sorted(3 * list(map(len, exact)))
    assert not exact.keys() & set(wrong)
    longer, *_ = simulate(1, NOISELESS, synthesis.Sequencer(split=1.0))
    assert sum(map(len, longer)) == 3 * int(PLAN.durations.sum() + (PLAN.durations >= 2).sum())


def test_simulate_refuses():
    with pytest.raises(ScheduleError, match="not in the time table"):
        schedule.simulate(jax.random.key(0), PLAN, NOISELESS, TimeTable.uniform((7, 8)), 2, PLAIN)
    with pytest.raises(channel.ChannelError, match="copies: 0"):
        schedule.simulate(jax.random.key(0), PLAN, NOISELESS, TALK, 0, PLAIN)
