"""Designed primers obey each rule as a plain loop or another library reads it; the same seed, the same library."""

import csv
import dataclasses
import itertools

import edlib
import numpy as np
import pytest
import seqfold
from Bio.SeqUtils import MeltingTemp, gc_fraction
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.config import PrimerRules
from helix_jax.errors import HelixError
from helix_jax.strands import checker, primer_design, primers
from helix_jax.strands.library import read
from helix_jax.tk_scone import constraints

HELIX = constraints.named("helix")
RULES = PrimerRules()
COUNT = 25
OTHER = {"A": "T", "C": "G", "G": "C", "T": "A"}


def back(word):
    """Reverse complement, one letter at a time."""
    return "".join(OTHER[letter] for letter in reversed(word))


def pairing_by_hand(first, second):
    """(longest run, longest that holds a last base) of bases that pair, over all shifts, by a loop."""
    longest = at_end = 0
    for shift in range(-len(second) + 1, len(first)):
        run = 0
        for i, letter in enumerate(first):
            j = len(second) - 1 - (i - shift)
            run = run + 1 if 0 <= j < len(second) and OTHER[letter] == second[j] else 0
            longest = max(longest, run)
            # the run covers first[i - run + 1 : i + 1], and second[j : j + run]
            if run and (i == len(first) - 1 or j + run == len(second)):
                at_end = max(at_end, run)
    return longest, at_end


@pytest.fixture(scope="module")
def designed():
    return primer_design.design(COUNT, rules=RULES, constraints=HELIX)


@settings(max_examples=60)
@given(
    first=st.text("ACGT", min_size=1, max_size=12),
    second=st.text("ACGT", min_size=1, max_size=12),
)
def test_pairing_by_a_loop(first, second):
    rows = [np.array([["ACGT".index(letter) for letter in word]], np.uint8) for word in (first, second)]
    assert tuple(int(n[0]) for n in primer_design.pairing(*rows)) == pairing_by_hand(first, second)


def test_pairing_of_known_primers():
    def runs(first, second):
        rows = [np.array([["ACGT".index(letter) for letter in word]], np.uint8) for word in (first, second)]
        return tuple(int(n[0]) for n in primer_design.pairing(*rows))

    assert runs("ACCAGGCC", "TTGGCC") == (4, 4)  # both ends are GGCC, which pairs with itself
    assert runs("GGCCAAAAA", "AAAAGGCCAAAA") == (4, 0)
    assert runs("AAAA", "AAAA") == (0, 0)
    assert runs("CCAAAAGG", "CCAAAAGG") == (2, 2)


def test_every_primer_obeys_the_rules(designed):
    assert [pair.name for pair in designed.pairs] == [f"P{n:04d}" for n in range(1, COUNT + 1)]
    oligos = [word for pair in designed.pairs for word in (pair.left, back(pair.right))]
    for word in oligos:
        assert len(word) == RULES.length
        assert RULES.min_tm <= MeltingTemp.Tm_NN(word, dnac1=250, dnac2=0, Na=50) <= RULES.max_tm
        assert RULES.min_gc <= gc_fraction(word) <= RULES.max_gc
        assert max(len(list(run)) for _, run in itertools.groupby(word)) <= RULES.longest_run
        assert word[-1] in "GC"
        assert sum(map(word[-5:].count, "GC")) <= RULES.end_gc
        assert seqfold.dg(word, temp=37.0) >= RULES.fold
    for first, second in itertools.combinations_with_replacement(range(2 * COUNT), 2):
        together = first // 2 == second // 2
        run, at_end = pairing_by_hand(oligos[first], oligos[second])
        assert run <= (RULES.dimer_run if together else RULES.cross_run)
        assert at_end <= (RULES.dimer_end if together else RULES.cross_end)
        for other in {oligos[second], back(oligos[second])} - ({oligos[first]} if first == second else set()):
            assert edlib.align(oligos[first], other)["editDistance"] >= RULES.distance
    for pair in designed.pairs:
        assert not checker.check([pair.left, pair.right], HELIX).violations


def test_the_same_seed_the_same_library(designed):
    again = primer_design.design(COUNT, rules=RULES, constraints=HELIX)
    assert again == designed
    fewer = primer_design.design(10, rules=RULES, constraints=HELIX)
    assert fewer.pairs == designed.pairs[:10]
    assert primer_design.design(5, rules=RULES, constraints=HELIX, seed=1).pairs != designed.pairs[:5]


def test_a_stricter_set_is_obeyed():
    goldman = constraints.named("goldman")
    pairs = primer_design.design(3, rules=RULES, constraints=goldman).pairs
    assert not checker.check([word for pair in pairs for word in (pair.left, pair.right)], goldman).violations


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dimer_run": 1}, "relax --dimer-run or --dimer-end"),
        ({"min_tm": 90.0, "max_tm": 91.0}, "only 0 of 50 .* relax --min-tm or --max-tm, which rejected 100.00%"),
        ({"min_gc": 0.0, "max_gc": 0.01}, "relax --min-gc or --max-gc"),
        ({"distance": 11}, "relax --distance"),
        ({"fold": 9.0}, "relax --fold"),
        ({"length": 10, "min_tm": 0.0, "cross_run": 1}, "relax --cross-run or --cross-end"),
    ],
)
def test_too_few_pairs_are_told_with_the_limit(monkeypatch, change, words):
    monkeypatch.setattr(primer_design, "BATCH", 1 << 10)
    monkeypatch.setattr(primer_design, "PATIENCE", 1 << 12)
    with pytest.raises(HelixError, match=words) as caught:
        primer_design.design(50, rules=dataclasses.replace(RULES, **change), constraints=HELIX)
    found = int(str(caught.value).split()[1])
    assert (f"or ask for --count {found}" in str(caught.value)) == (found > 0)


class Held:
    """Strands as ``fasta.Strands`` gives them."""

    def __init__(self, *parts):
        self.parts = parts

    def portions(self):
        yield from self.parts


def test_away_from_pools(monkeypatch, designed):
    """Strands that hold the first pair's left primer, one base changed, and the second's backwards."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 4, (40, 80), np.uint8)
    near = designed.pairs[0].left
    near = near[:9] + OTHER[near[9]] + near[10:]
    for row, word in ((3, near), (4, back(designed.pairs[1].left))):
        rows[row, 30:50] = ["ACGT".index(letter) for letter in word]
    pools = [Held(rows[:10], rows[10:20, :60]), Held(rows[20:])]
    library = primer_design.design(10, rules=RULES, constraints=HELIX, away_from=pools)
    words = [word for pair in library.pairs for word in (pair.left, pair.right)]
    assert designed.pairs[0].left not in words
    assert designed.pairs[1].left not in words
    assert not any(primers.alike(part, word).any() for pool in pools for part in pool.portions() for word in words)
    monkeypatch.setattr(primer_design, "BATCH", 1 << 8)
    monkeypatch.setattr(primer_design, "PATIENCE", 1 << 9)
    loose = dataclasses.replace(RULES, near=0.5)
    with pytest.raises(HelixError, match="relax --near"):
        primer_design.design(1, rules=loose, constraints=HELIX, away_from=pools)


def test_a_strand_that_is_near_ends_the_search(monkeypatch):
    """The strands after it are not aligned."""
    seen = []

    def alike(strands, word, near):
        seen.append(len(strands))
        return primers.alike(strands, word, near)

    monkeypatch.setattr(primer_design, "alike", alike)
    monkeypatch.setattr(primer_design, "PART", 3)
    word, rows = "ACCAGGCATTGACCAGTTCA", np.random.default_rng(0).integers(0, 4, (20, 60), np.uint8)
    rows[4, 10:30] = ["ACGT".index(letter) for letter in word]
    assert primer_design._occurs(word, [Held(rows)], 0.1)
    assert seen == [3, 3]
    assert not primer_design._occurs(word, [Held(np.delete(rows, 4, axis=0))], 0.1)
    assert seen == [3] * 8 + [1]


def test_the_file(tmp_path, designed):
    path = tmp_path / "library.csv"
    primer_design.write(path, designed.pairs)
    assert tuple(read(path).values()) == designed.pairs
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    for line, pair in zip(lines, designed.pairs, strict=True):
        assert line["reverse_primer"] == back(pair.right)
        for side, word in (("left", pair.left), ("right", back(pair.right))):
            expected = MeltingTemp.Tm_NN(word, dnac1=250, dnac2=0, Na=50)
            assert float(line[f"{side}_tm"]) == pytest.approx(expected, abs=0.051)
            assert float(line[f"{side}_gc"]) == pytest.approx(gc_fraction(word), abs=0.0051)
            assert float(line[f"{side}_fold"]) == pytest.approx(seqfold.dg(word, temp=37.0), abs=0.051)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": 9}, "length 9"),
        ({"min_tm": 61.0}, "min_tm 61: it is above max_tm 60"),
        ({"max_gc": 0.3}, "min_gc 0.4: it is above max_gc 0.3"),
        ({"distance": 0}, "distance 0"),
        ({"distance": 21}, "distance 21"),
        ({"near": 0.6}, "near 0.6"),
        ({"dimer_end": 0}, "dimer_end 0"),
        ({"end_gc": 6}, "end_gc 6"),
    ],
)
def test_limits_out_of_range(change, words):
    with pytest.raises(HelixError, match=words):
        PrimerRules(**change)
