"""Primers that strands hold nearly, on either strand of the DNA, and the last edit that is near."""

import numpy as np
import pytest

from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.strands import primers

PRIMER = "ACACGACGCTCTTCCGATCT"  # 20 bases: 4 edits are near


def strand(middle):
    """uint8[60]: the letters amid a run of twos, which no window of the primer resembles."""
    letters = middle.center(60, "A")
    return np.array(["ACGT".index(letter) for letter in letters], np.uint8)


def substituted(word, count):
    """So many letters, spread over the word, turned to others."""
    letters = list(word)
    for place in range(1, 1 + 4 * count, 4):
        letters[place] = {"A": "G", "G": "A", "C": "T", "T": "C"}[letters[place]]
    return "".join(letters)


def backwards(word):
    return word[::-1].translate(str.maketrans("ACGT", "TGCA"))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("edits", "near"), [(0, True), (1, True), (4, True), (5, False)])
def test_near_up_to_a_fifth_of_its_bases(edits, near, turned):
    word = substituted(PRIMER, edits)
    rows = np.stack([strand(backwards(word) if turned else word), strand("C")])
    assert np.array(primers.alike(rows, PRIMER)).sum() == near
    assert np.array(primers.alike(rows, PRIMER.lower())).sum() == near


def test_an_indel_is_one_edit():
    rows = np.stack([strand(PRIMER[:7] + PRIMER[8:]), strand(PRIMER[:7] + "G" + PRIMER[7:])])
    assert np.array(primers.alike(rows, PRIMER)).sum() == 2


def test_no_primer_is_near_nothing():
    assert np.array(primers.alike(np.stack([strand("C")]), "")).sum() == 0


def test_the_primers_of_a_pool_do_not_count_themselves():
    config = CodecConfig(
        constraints="strand", strands=StrandConfig(length=60, redundancy=0.0, left_primer=PRIMER, right_primer="ACGTTC")
    )
    pool = codec.pack(b"helix" * 20, config=config)
    assert not primers.in_pool(pool)[PRIMER]
