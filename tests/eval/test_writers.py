"""Ways to write words as bases: there and back, what they claim, and pools that lose strands."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from eval.report import writers
from helix_jax.strands import checker, layouts
from helix_jax.tk_scone import constraints

SCREENED, TERNARY, OURS, _ = writers.WRITERS


def random_words(bits, count, seed=0):
    """uint32[count, ceil(bits / 32)], zeros after the last bit."""
    rows = np.random.default_rng(seed).integers(0, 2, (count, bits), np.uint8)
    return writers._words_of(rows)


def numbers(words, bits):
    """Words as whole numbers."""
    width = 32 * words.shape[1]
    return [int.from_bytes(row.astype(">u4").tobytes(), "big") >> width - bits for row in words]


@pytest.mark.parametrize("writer", writers.WRITERS, ids=lambda writer: writer.name)
def test_words_come_back_and_claims_hold(writer):
    words = random_words(writer.bits, 500)
    words[0], words[1] = 0, writers._words_of(np.ones((1, writer.bits), np.uint8))
    bases = writer.write(words)
    assert bases.shape == (500, 150)
    assert bases.dtype == np.uint8
    assert checker.check(bases, writer.constraints).violations == 0
    back, ok = writer.read(bases)
    assert ok.all()
    np.testing.assert_array_equal(back, words)
    assert back.dtype == np.uint32


def test_what_a_strand_carries():
    assert [writer.bits for writer in writers.WRITERS] == [292, 237, 287, 297]
    assert 3**150 >= 2**237 > 3**149  # no more bits would fit
    assert 2**238 > 3**150


@hypothesis.given(strategies.integers(1, 70), strategies.data())
@hypothesis.settings(max_examples=40)
def test_ternary_is_one_number_in_base_three(length, data):
    """Against whole numbers of Python, and the rotation written out as in the paper's figure 1."""
    writer = writers.Ternary(length)
    number = data.draw(strategies.integers(0, 2**writer.bits - 1))
    width = -(-writer.bits // 32)
    raw = (number << 32 * width - writer.bits).to_bytes(4 * width, "big")
    words = np.frombuffer(raw, ">u4").astype(np.uint32)[None]
    (bases,) = writer.write(words)
    follow = {"A": "CGT", "C": "GTA", "G": "TAC", "T": "ACG"}
    trits, rest = [], number
    for _ in range(length):
        rest, trit = divmod(rest, 3)
        trits.insert(0, trit)
    last, text = "A", ""
    for trit in trits:
        last = follow[last][trit]
        text += last
    assert "".join("ACGT"[base] for base in bases) == text
    back, ok = writer.read(bases[None])
    assert ok.all()
    np.testing.assert_array_equal(back, words)


def test_ternary_refuses_what_it_cannot_have_written():
    highest = np.array(
        [[("ACGT").index(letter) for letter in itertools.islice(itertools.cycle("TGCA"), 150)]], np.uint8
    )
    assert not TERNARY.read(highest)[1].any()  # 3^150 - 1
    bases = TERNARY.write(random_words(237, 1))
    bases[0, 70] = bases[0, 69]
    assert not TERNARY.read(bases)[1].any()


@hypothesis.given(strategies.integers(20, 120), strategies.integers(0, 2**32))
@hypothesis.settings(max_examples=25)
def test_screened_strands_of_any_length(length, seed):
    writer = writers.Screened(length)
    words = random_words(writer.bits, 5, seed)
    back, ok = writer.read(writer.write(words))
    assert ok.all()
    np.testing.assert_array_equal(back, words)


def test_screening_takes_the_first_good_seed():
    """About one strand in eight is good as it comes; the seed is the first whole strand that is, by the checker."""
    words = random_words(SCREENED.bits, 60)
    bases = SCREENED.write(words)
    payload = writers._bits_of(words, SCREENED.bits)
    seeds = bases[:, :4].astype(int) @ (64, 16, 4, 1)
    assert len(set(seeds)) > 5
    for row, seed in enumerate(seeds):
        tried = np.concatenate([SCREENED._with_seed(payload[row : row + 1], s) for s in range(seed + 1)])
        np.testing.assert_array_equal(tried[-1], bases[row])
        alone = [checker.check(strand[None], SCREENED.constraints).violations for strand in tried]
        assert alone == [1] * seed + [0]
    many = np.concatenate([SCREENED._with_seed(payload, seed) for seed in range(1, 200, 7)])
    assert 1 - checker.check(many, SCREENED.constraints).violations / len(many) == pytest.approx(0.125, abs=0.04)


def test_what_never_passes_is_counted(monkeypatch):
    """With two seeds most strands stay bad, are written, come back, and are counted."""
    monkeypatch.setattr(writers.Screened, "SEEDS", 2)
    words = random_words(SCREENED.bits, 200)
    bases = SCREENED.write(words)
    assert 100 < writers.violations(bases, SCREENED.constraints) < 195
    np.testing.assert_array_equal(SCREENED.read(bases)[0], words)


def test_only_ours_keeps_the_windows():
    """Of the set `helix`: nearly all screened strands break it, and most of Goldman's."""
    helix = constraints.named("helix")
    broken = {writer.name: writers.violations(writer.write(random_words(writer.bits, 300)), helix) for writer in (
        SCREENED, TERNARY, OURS)}  # fmt: skip
    assert broken["tk_scone_helix"] == 0
    assert broken["screened"] > 280
    assert broken["goldman"] > 200


# ---- pools -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", writers.WRITERS, ids=lambda writer: writer.name)
def test_pools_lose_strands(writer):
    data = np.random.default_rng(1).bytes(6000)
    pool = writers.pool_of(data, writer, 0.1)
    shuffled = np.random.default_rng(2).permutation(pool.strands)
    few = round(0.05 * len(shuffled))
    back, lost = writers.read_pool(shuffled[few:], writer)
    assert not lost.any()
    assert back == data
    back, lost = writers.read_pool(shuffled[len(shuffled) // 4 :], writer)
    assert len(back) == len(lost) == len(data)
    assert lost.mean() == pytest.approx(0.25, abs=0.08)
    back, wanted = (np.frombuffer(part, np.uint8) for part in (back, data))
    np.testing.assert_array_equal(back[~lost], wanted[~lost])


def test_pools_differ_in_nothing_but_what_a_strand_carries():
    data = np.random.default_rng(1).bytes(20_000)
    pools = {writer.name: writers.pool_of(data, writer, 0.1) for writer in writers.WRITERS}
    for writer in writers.WRITERS:
        pool = pools[writer.name]
        layout = layouts.plan(writer.bits, len(data), 0.1)
        assert len(pool.strands) == pool.header_strands + layout.packets
        assert pool.layout.repairs == layout.repairs
    sizes = {name: pool.strands.size for name, pool in pools.items()}
    assert sizes["tk_scone_strand"] <= sizes["screened"] <= sizes["tk_scone_helix"] < sizes["goldman"]


@pytest.mark.parametrize("writer", [SCREENED, TERNARY, OURS], ids=lambda writer: writer.name)
def test_the_most_that_strands_carry(writer):
    most = writers.most_bytes(writer, 300, 0.1)
    assert len(writers.pool_of(bytes(most), writer, 0.1).strands) <= 300
    assert len(writers.pool_of(bytes(most + 1), writer, 0.1).strands) > 300
