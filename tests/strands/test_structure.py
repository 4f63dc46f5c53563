"""What ``inspect`` says of hairpins, repeats, energies and primers."""

import numpy as np
import pytest

from helix_jax.strands import stems, structure
from helix_jax.strands.written import Written

LEFT = "ACACGACGCTCTTCCGATCT"


@pytest.fixture
def strands():
    return np.random.default_rng(0).integers(0, 4, (300, 60), dtype=np.uint8)


def test_counts_are_those_of_the_stems(strands):
    counted = structure.Structure(Written(), 5)
    counted.add(strands[:100])
    counted.add(strands[100:])
    figures = counted.figures()
    longest = stems.longest_hairpins(strands)
    assert figures["hairpins"] == {str(n): int((longest == n).sum()) for n in np.unique(longest)}
    assert sum(figures["dimers"].values()) == sum(figures["repeats"].values()) == 300
    assert figures["strands_over_screen"] == (longest > 5).sum() > 0
    assert "strands_over_screen" not in structure.Structure(Written()).figures()
    assert figures["of_strands_compared"] == 300
    assert figures["strands_sharing_a_word"] == 0
    assert len(figures["folding_kcal_per_mol"]) == structure.FOLDED
    assert min(figures["folding_kcal_per_mol"]) < 0


def test_shared_words(strands):
    """Twenty bases that two strands share, at any place, and not nineteen, nor those that one strand has twice."""
    strands[7, 30:50] = strands[3, 5:25]
    strands[9, 10:29] = strands[11, 10:29]
    strands[9, [9, 29]] = strands[11, [9, 29]] ^ 1
    strands[20, :20] = strands[20, 30:50]
    assert np.flatnonzero(structure.sharing([strands])).tolist() == [3, 7]
    assert np.flatnonzero(structure.sharing([strands[:5], strands[5:, :55]])).tolist() == [3, 7]


def test_primers_are_left_out_of_what_is_shared_and_melt(strands):
    strands[:, :20] = ["ACGT".index(letter) for letter in LEFT]
    counted = structure.Structure(Written(left=LEFT))
    counted.add(strands)
    figures = counted.figures()
    assert figures["strands_sharing_a_word"] == 0
    assert figures["left_primer_melts_at"] == 59.7  # as `helix-jax primers` has it: 250 nM of primer, 50 mM sodium
    assert figures["melting_for"] == "250 nM of primer, 50 mM Na+"
    assert "right_primer_melts_at" not in figures


def test_only_short_strands_are_folded(strands):
    counted = structure.Structure(Written())
    counted.add(np.zeros((2, structure.LONGEST_FOLDED + 1), np.uint8))
    assert "folding_kcal_per_mol" not in counted.figures()
    counted.add(strands)
    assert len(counted.figures()["folding_kcal_per_mol"]) == structure.FOLDED


def test_a_strand_that_cannot_fold_has_no_energy():
    assert structure.folding("A" * 20) == 0.0
    assert structure.folding("GGGGGGAAAACCCCCC") < -5


def test_long_strands_are_left_out():
    counted = structure.Structure(Written())
    counted.add(np.zeros((2, structure.LONGEST + 1), np.uint8))
    assert (counted.examined, counted.figures()["hairpins"]) == (0, {})
