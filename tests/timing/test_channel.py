"""The timing channel against exact fractions, recurrences, a plain twin of the simulator, and counts."""

import dataclasses
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.timing import channel, synthesis
from helix_jax.timing.channel import TALK_LAW, Binomial, ChannelError, Poisson, Tabulated
from helix_jax.timing.graph import TALK, TimeTable
from helix_jax.timing.synthesis import Sequencer

FIRST = 0  # base before the first round


def random_strands(seed, strands, rounds, table=TALK):
    """Letters and levels uint8[strands, rounds] that the table allows, the first base being A."""
    stream = np.random.default_rng(seed)
    letters = (np.cumsum(stream.integers(1, 4, (strands, rounds)), axis=1) % 4).astype(np.uint8)
    before = np.concatenate([np.zeros((strands, 1), np.uint8), letters[:, :-1]], axis=1)
    count = (table.array() > 0).sum(axis=2)[before, letters]
    return letters, (stream.random((strands, rounds)) * count).astype(np.uint8)


# ---- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", ["0", "1", "0.5", "0.85", "0.001"])
@pytest.mark.parametrize("time", [1, 2, 7])
def test_binomial_is_a_sum_of_coins(p, time):
    share = Fraction(p)
    exact = [Fraction(0)] * (time + 1)
    for coins in itertools.product((0, 1), repeat=time):
        exact[sum(coins)] += math.prod(share if coin else 1 - share for coin in coins)
    pmf = Binomial.uniform(float(p)).pmf(2, 3, time)
    np.testing.assert_allclose(pmf, [float(x) for x in exact], rtol=1e-12)


@pytest.mark.parametrize("mean", [0.001, 0.3, 1.0, 6.5, 90.0])
def test_poisson_by_its_recurrence(mean):
    time = 3
    pmf = Poisson.uniform(mean).pmf(1, 0, time)
    exact = [math.exp(-mean * time)]
    while len(exact) < len(pmf) + 200:
        exact.append(exact[-1] * mean * time / len(exact))
    np.testing.assert_allclose(pmf[:-1], exact[: len(pmf) - 1], rtol=1e-10)
    # the end holds the tail; it is cut as soon as less than 1e-12 is left
    assert abs(pmf[-1] - math.fsum(exact[len(pmf) - 1 :])) < 1e-13
    assert math.fsum(exact[len(pmf) :]) < 1e-12 <= math.fsum(exact[len(pmf) - 1 :])
    assert abs(pmf.sum() - 1) < 1e-15 * len(pmf)


def test_poisson_of_mean_zero_writes_nothing():
    np.testing.assert_array_equal(Poisson.uniform(0.0).pmf(0, 1, 4), [1.0])


def test_tabulated():
    law = Tabulated.uniform([[0.2, 0.8], [], [0.05, 0.15, 0.8000001]])
    np.testing.assert_allclose(law.pmf(0, 1, 1), [0.2, 0.8])
    np.testing.assert_allclose(law.pmf(3, 2, 3), np.array([0.05, 0.15, 0.8000001]) / 1.0000001, rtol=1e-15)
    for time in (2, 4):
        with pytest.raises(ChannelError, match=rf"T->C time {time}: the table has times \[1, 3\]"):
            law.pmf(3, 1, time)


def square(value, b=0, a=1, other=0.5):
    rows = [[0.0 if i == j else other for j in range(4)] for i in range(4)]
    rows[b][a] = value
    return tuple(map(tuple, rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Binomial(square(1.5)), r"p of A->C is 1\.5; it lies in 0\.\.1"),
        (lambda: Binomial(square(float("nan"), 3, 2)), r"p of T->G is nan"),
        (lambda: Binomial(square(0.5, 2, 2)), r"p of G->G is 0\.5: no transition"),
        (lambda: Binomial(((0.5,) * 4,) * 3), r"rows of \[4, 4, 4\] numbers, not 4 x 4"),
        (lambda: Poisson.uniform(-1.0), r"mean of A->C is -1\.0; it lies in 0\.\.100"),
        (lambda: Poisson.uniform(101.0), r"mean of A->C is 101\.0"),
        (lambda: Tabulated.uniform([[0.5, 0.4]]), r"A->C time 1: .* sums to 0\.9"),
        (lambda: Tabulated.uniform([[1.5, -0.5]]), r"A->C time 1: .* chances of at least 0"),
        (lambda: Tabulated(((),) * 4), "not 4 x 4"),
        (lambda: Tabulated(((((1.0,),),) * 4,) * 4), "A->A is no transition"),
        (lambda: TALK_LAW.pmf(1, 1, 2), "1->1 is no transition"),
        (lambda: TALK_LAW.pmf(1, 4, 2), "1->4 is no transition"),
        (lambda: TALK_LAW.pmf(1, 2, 0), "C->G: time 0"),
        (lambda: TALK_LAW.pmf(1, 2, 1.5), r"C->G: time 1\.5"),
        (lambda: Sequencer(substitution=1.5), r"substitution: 1\.5"),
        (lambda: Sequencer(split=-0.1), r"split: -0\.1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ChannelError, match=message):
        make()


@pytest.mark.parametrize(
    "law", [TALK_LAW, Poisson.uniform(2.5), Tabulated.uniform(((0.2, 0.8), (0.1, 0.3, 0.6)))], ids=lambda law: type(law)
)
def test_laws_are_values(law):
    again = type(law)(**dataclasses.asdict(law))
    assert again == law
    assert hash(again) == hash(law)
    assert again != Binomial.uniform(0.123)


def test_talk_law():
    by_time = {(1, 2): 0.85, (1, 3): 0.70, (1, 4): 0.58, (): 0.0}
    for b, a in np.ndindex(4, 4):
        assert TALK_LAW.p[b][a] == by_time[TALK.times[b][a]]


def test_pmf_table():
    table = TimeTable.parse("A->C{1,3} A->G{2} C->A{1} G->A{1,2,5} T->A{3}")
    law = Binomial.uniform(0.7)
    pmfs = channel.pmf_table(law, table)
    assert pmfs.shape == (4, 4, 3, 6)
    for b, a, level in np.ndindex(4, 4, 3):
        times = table.times[b][a]
        expected = np.zeros(6)
        if level < len(times):
            expected[: times[level] + 1] = law.pmf(b, a, times[level])
        np.testing.assert_array_equal(pmfs[b, a, level], expected)


# ---- simulator ---------------------------------------------------------------------------------------------------


def simulated_by_hand(key, letters, levels, pmfs, copies):
    """Run lengths of one strand, from the definition: the least r with P(run <= r) above the drawn number."""
    runs = np.zeros((copies, len(letters)), int)
    for copy in range(copies):
        drawn = np.asarray(jax.random.bits(jax.random.fold_in(key, copy), letters.shape, jnp.uint32)) >> 1
        base = FIRST
        for i, (letter, level) in enumerate(zip(letters, levels, strict=True)):
            total = 0.0
            for r, chance in enumerate(pmfs[base, letter, level]):
                total += chance
                if drawn[i] < round(total * 2**31):
                    runs[copy, i] = r
                    break
            base = letter
    return runs


@pytest.mark.parametrize("law", [TALK_LAW, Poisson.uniform(1.4)], ids=["binomial", "poisson"])
def test_simulator_equals_its_twin(law):
    letters, levels = random_strands(1, 3, 40)
    pmfs = channel.pmf_table(law, TALK)
    key = jax.random.key(3)
    runs = synthesis.simulate(key, letters, levels, pmfs, 4)
    assert runs.shape == (3, 4, 40)
    assert runs.dtype == jnp.int32
    for i in range(3):
        expected = simulated_by_hand(jax.random.fold_in(key, i), letters[i], levels[i], pmfs, 4)
        np.testing.assert_array_equal(runs[i], expected)


def test_strands_and_copies_do_not_depend_on_their_number():
    letters, levels = random_strands(2, 5, 30)
    pmfs = channel.pmf_table(TALK_LAW, TALK)
    key = jax.random.key(0)
    runs = synthesis.simulate(key, letters, levels, pmfs, 6)
    np.testing.assert_array_equal(synthesis.simulate(key, letters[:2], levels[:2], pmfs, 3), runs[:2, :3])
    assert (np.asarray(runs[:, 0]) != np.asarray(runs[:, 1])).any()


def draw_with(constants, keys, letters, levels):
    def one(key, letters, levels):
        return synthesis.draw_runs(key, letters, levels, constants, 4)

    return jax.vmap(one)(keys, letters, levels)


def test_simulator_on_many_devices():
    letters, levels = random_strands(3, 16, 25)
    pmfs = channel.pmf_table(TALK_LAW, TALK)
    key = jax.random.key(7)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(16))
    spread = parallel.spread(draw_with)(synthesis.thresholds(pmfs), keys, letters, levels)
    np.testing.assert_array_equal(spread, synthesis.simulate(key, letters, levels, pmfs, 4))


@pytest.mark.parametrize("law", [TALK_LAW, Poisson.uniform(2.0)], ids=["binomial", "poisson"])
def test_run_lengths_follow_the_law(law):
    letters, levels = random_strands(4, 40, 1000)
    pmfs = channel.pmf_table(law, TALK)
    runs = np.asarray(synthesis.simulate(jax.random.key(11), letters, levels, pmfs, 5))
    before = np.asarray(synthesis.previous(letters))
    for b, a, level in np.argwhere(pmfs.any(axis=3)):
        here = (before == b) & (letters == a) & (levels == level)
        seen = np.bincount(np.moveaxis(runs, 1, 2)[here].ravel(), minlength=pmfs.shape[3])
        expected = seen.sum() * pmfs[b, a, level]
        common = expected > 5
        chi2 = ((seen - expected)[common] ** 2 / expected[common]).sum()
        degrees = common.sum() - 1
        assert chi2 < degrees + 6 * math.sqrt(2 * degrees) + 10
        assert seen[~common].sum() <= expected[~common].sum() + 6 * math.sqrt(expected[~common].sum()) + 5
    spread = (runs - runs.mean(axis=(0, 2), keepdims=True)).reshape(40, 5, 1000)
    fixed = pmfs[before, letters, levels] @ np.arange(pmfs.shape[3])
    noise = runs - fixed[:, None]
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 5 * spread.var() / math.sqrt(40_000)


def test_padding_and_missing_levels_write_nothing():
    table = TimeTable.uniform((1, 2))
    letters, levels = random_strands(5, 2, 20, table)
    padded = np.concatenate([letters, np.repeat(letters[:, -1:], 7, axis=1)], axis=1)
    more = np.concatenate([levels, np.ones((2, 7), np.uint8)], axis=1)
    runs = np.asarray(
        synthesis.simulate(jax.random.key(0), padded, more, channel.pmf_table(Poisson.uniform(9.0), table), 3)
    )
    assert (runs[:, :, 20:] == 0).all()
    assert (runs[:, :, :20] > 0).any(axis=2).all()
    np.testing.assert_array_equal(
        synthesis.synthesis_time(padded, more, table, 0.5), synthesis.synthesis_time(letters, levels, table, 0.5)
    )


def test_no_copies_refused():
    with pytest.raises(ChannelError, match="copies: 0"):
        synthesis.simulate(jax.random.key(0), np.ones((1, 1)), np.zeros((1, 1)), channel.pmf_table(TALK_LAW, TALK), 0)


# ---- reads -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 30]), st.floats(0, 1))
@settings(max_examples=30)
def test_reads_are_the_runs(seed, rounds, loss):
    letters, _ = random_strands(seed, 2, rounds)
    stream = np.random.default_rng(seed)
    runs = stream.integers(1, 4, (2, 3, rounds)) * (stream.random((2, 3, rounds)) >= loss)
    reads, lengths = synthesis.to_reads(jax.random.key(0), letters, jnp.asarray(runs, jnp.int32))
    reads, lengths = np.asarray(reads), np.asarray(lengths)
    assert reads.dtype == np.uint8
    assert reads.shape == (2, 3, 128)
    for strand, copy in np.ndindex(2, 3):
        expected = np.repeat(letters[strand], runs[strand, copy])
        assert lengths[strand, copy] == len(expected)
        np.testing.assert_array_equal(reads[strand, copy, : len(expected)], expected)
        assert not reads[strand, copy, len(expected) :].any()


def test_neighbours_merge_over_a_lost_run():
    reads, lengths = synthesis.to_reads(
        jax.random.key(0), np.array([[1, 0, 1]], np.uint8), jnp.array([[[2, 0, 1], [0, 0, 0]]], jnp.int32)
    )
    assert reads[0, 0, :4].tolist() == [1, 1, 1, 0]
    assert lengths.tolist() == [[3, 0]]


def test_longer_reads_get_more_room():
    runs = jnp.full((1, 1, 1), 129, jnp.int32)
    reads, lengths = synthesis.to_reads(jax.random.key(0), np.array([[1]], np.uint8), runs)
    assert reads.shape == (1, 1, 256)
    assert int(lengths[0, 0]) == 129


def test_substitutions():
    letters, _ = random_strands(6, 8, 500)
    runs = jnp.full((8, 5, 500), 2, jnp.int32)
    plain, lengths = synthesis.to_reads(jax.random.key(1), letters, runs)
    reads, same_lengths = synthesis.to_reads(jax.random.key(1), letters, runs, Sequencer(substitution=0.03))
    np.testing.assert_array_equal(lengths, same_lengths)
    plain, reads = np.asarray(plain), np.asarray(reads)
    assert not reads[:, :, 1000:].any()
    wrong = reads[:, :, :1000] != plain[:, :, :1000]
    assert abs(wrong.mean() - 0.03) < 5 * math.sqrt(0.03 * 0.97 / wrong.size)
    shift = np.bincount(((reads - plain) & 3)[:, :, :1000][wrong], minlength=4)
    assert shift[0] == 0
    assert abs(shift[1:] / wrong.sum() - 1 / 3).max() < 5 * math.sqrt(2 / 9 / wrong.sum())


def test_split_runs():
    """Letters G A G A ... in runs of 1 to 3, taken apart by hand: every run is whole or has one stranger inside."""
    stream = np.random.default_rng(9)
    letters = np.tile(np.array([2, 0], np.uint8), (2, 250))
    runs = stream.integers(1, 4, (2, 4, 500))
    reads, lengths = synthesis.to_reads(jax.random.key(2), letters, jnp.asarray(runs, jnp.int32), Sequencer(split=0.25))
    reads, split, places, strangers = np.asarray(reads), [0, 0, 0, 0], [], []
    for strand, copy in np.ndindex(2, 4):
        at = 0
        for letter, run in zip(letters[strand], runs[strand, copy], strict=True):
            whole = reads[strand, copy, at : at + run + 1]
            found = np.flatnonzero(whole[:run] != letter)
            if len(found) == 0:
                at += run
                continue
            split[run] += 1
            assert (np.delete(whole, found[0]) == letter).all()
            assert whole[found[0]] != letter
            assert 1 <= found[0] <= run - 1
            at += run + 1
            strangers.append((int(whole[found[0]]) - int(letter)) & 3)
            if run == 3:
                places.append(found[0])
        assert at == lengths[strand, copy]
    assert split[1] == 0
    for run in (2, 3):
        of = (runs == run).sum()
        assert abs(split[run] / of - 0.25) < 5 * math.sqrt(0.1875 / of)
    assert abs(np.mean(np.array(places) == 1) - 0.5) < 5 * 0.5 / math.sqrt(len(places))
    assert (np.bincount(strangers, minlength=4)[1:] > len(strangers) / 4).all()


# ---- time --------------------------------------------------------------------------------------------------------


def test_synthesis_time():
    letters, levels = random_strands(8, 4, 50)
    for overhead in (0.0, 2.5):
        expected = []
        for row, row_levels in zip(letters.tolist(), levels.tolist(), strict=True):
            pairs = zip([FIRST, *row], row, row_levels, strict=False)
            expected.append(sum(TALK.times[b][a][level] + overhead for b, a, level in pairs))
        time = synthesis.synthesis_time(letters, levels, TALK, overhead)
        np.testing.assert_allclose(time, expected)
        np.testing.assert_allclose(synthesis.synthesis_time(letters[1], levels[1], TALK, overhead), expected[1])


def test_synthesis_time_from_another_first_base():
    one = np.array([0], np.uint8)
    assert synthesis.synthesis_time(one, one + 1, TALK, first_base=3) == 4
    with pytest.raises(ChannelError, match="round 0: T->A has no level 2"):
        synthesis.synthesis_time(one, one + 2, TALK, first_base=3)
    with pytest.raises(ChannelError, match="overhead: -1"):
        synthesis.synthesis_time(one, one, TALK, -1, first_base=3)
