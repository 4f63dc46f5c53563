"""Stems, self-dimers and repeats against a search that follows their definitions base by base."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.strands import stems

LETTERS = "ACGT"


def complement(word):
    return word[::-1].translate(str.maketrans(LETTERS, LETTERS[::-1]))


def words(strand):
    """(start, word) of every word of a strand."""
    for start in range(len(strand)):
        for end in range(start + 1, len(strand) + 1):
            yield start, strand[start:end]


def hairpin(strand):
    return max(
        (len(word) for start, word in words(strand) if complement(word) in strand[start + len(word) + stems.LOOP :]),
        default=0,
    )


def dimer(strand):
    return max((len(word) for _, word in words(strand) if complement(word) in strand), default=0)


def repeat(strand):
    return max((len(word) for start, word in words(strand) if word in strand[start + 1 :]), default=0)


CASES = [(stems.longest_hairpins, hairpin), (stems.longest_dimers, dimer), (stems.longest_repeats, repeat)]


def row(strand):
    return np.array([[LETTERS.index(letter) for letter in strand]], np.uint8)


@given(st.text(LETTERS, min_size=1, max_size=28) | st.text("AT", min_size=1, max_size=24))
def test_as_defined(strand):
    for fast, plain in CASES:
        assert fast(row(strand)).tolist() == [plain(strand)]


@pytest.mark.parametrize(
    ("strand", "longest"),
    [("GGGGCAAAGCCCC", 5), ("GGGGCAAGCCCC", 4), ("GGGGC" + "GCCCC", 3), ("AAAAAA", 0), ("GTCAAATAC", 2)],
)
def test_the_loop_has_three_bases_or_more(strand, longest):
    """Without room for a loop, the innermost pairs stay open."""
    assert stems.longest_hairpins(row(strand)).tolist() == [longest]


def test_strands_are_independent_and_may_be_long():
    """More strands than are examined at once, and more bases than a byte counts to."""
    generator = np.random.default_rng(0)
    many = generator.integers(0, 4, (1500, 30), dtype=np.uint8)
    alone = [stems.longest_hairpins(many[n : n + 1])[0] for n in (0, 511, 512, 1499)]
    np.testing.assert_array_equal(stems.longest_hairpins(many)[[0, 511, 512, 1499]], alone)
    arm = generator.integers(0, 4, 300, dtype=np.uint8)
    long = np.concatenate([arm, [0, 0, 0], 3 - arm[::-1]]).astype(np.uint8)[None]
    assert stems.longest_hairpins(long).tolist() == [300]
    assert stems.longest_repeats(np.concatenate([arm, arm])[None]).tolist() == [300]
    assert stems.longest_hairpins(many[:0]).shape == (0,)
