"""Reads are matched to the strands that they copy, in either direction, and to no others."""

import jax
import numpy as np
import pytest

from helix_jax.channel import model, simulate
from helix_jax.reads import matching


@pytest.fixture(scope="module")
def drawn():
    """300 strands of 100 bases, and about 2,400 reads of them at 5 %, half of them reverse complements."""
    strands = np.random.default_rng(0).integers(0, 4, (300, 100), dtype=np.uint8)
    return strands, simulate.reads_of(model.uniform(0.05, reverse=0.5), strands, 8, jax.random.key(1))


def test_reads_of_known_strands(drawn, monkeypatch):
    """Nearly all reads of the 200 known strands, and none of the other 100."""
    strands, reads = drawn
    number = matching.match(strands[:200], reads.bases, reads.lengths, turned=True)
    known = reads.origin < 200
    assert (number[~known] == -1).all()
    assert (number[known] == reads.origin[known]).mean() > 0.97
    assert np.isin(number[known], [-1, *range(200)]).all()
    wrong = known & (number >= 0) & (number != reads.origin)
    assert not wrong.any()
    monkeypatch.setattr(matching, "PART", 7)
    np.testing.assert_array_equal(matching.match(strands[:200], reads.bases, reads.lengths, turned=True), number)


def test_one_direction_only(drawn):
    strands, reads = drawn
    number = matching.match(strands, reads.bases, reads.lengths, turned=False)
    assert (number[reads.reversed] == -1).all()
    assert (number[~reads.reversed] == reads.origin[~reads.reversed]).mean() > 0.97


def test_parts_of_a_strand_are_no_copy(drawn):
    """Neither a chimera, nor a read of another strand with the same beginning."""
    strands, _ = drawn
    chimeras = np.concatenate([strands[:50, :50], strands[50:100, 50:]], axis=1)
    number = matching.match(strands[:50], chimeras, np.full(50, 100), turned=True)
    assert (number == -1).all()


def test_nothing_known_and_nothing_read(drawn):
    strands, _ = drawn
    np.testing.assert_array_equal(matching.match(strands[:0], strands, np.full(300, 100), turned=True), -1)
    assert matching.match(strands, strands[:0], np.zeros(0, np.int32), turned=True).shape == (0,)
    twice = np.concatenate([strands, strands])  # no word is of one strand alone
    np.testing.assert_array_equal(matching.match(twice, strands, np.full(300, 100), turned=False), -1)
