"""Reads -> copies: what primers leave of them, what is too short for a strand, and what is said of short reads."""

import numpy as np
import pytest

from helix_jax.errors import DecodeError
from helix_jax.reads import recover, trimming

LEFT, RIGHT = PRIMERS = ("ACACGACGCTCTTCCGATCT", "AGATCGGAAGAGCACACGTC")


def chunk(lengths, primers=("", ""), seed=0):
    """One chunk without qualities: random strands of these lengths, with their primers."""
    draw = np.random.default_rng(seed)
    left, right = (np.array(["ACGT".index(letter) for letter in primer], np.uint8) for primer in primers)
    rows = [np.concatenate([left, draw.integers(0, 4, length, np.uint8), right]) for length in lengths]
    bases = np.zeros((len(rows), max(map(len, rows))), np.uint8)
    for padded, row in zip(bases, rows, strict=True):
        padded[: len(row)] = row
    return bases, np.array(list(map(len, rows)), np.int32), None


def cut(*chunks, primers=("", "")):
    return trimming.cut(chunks, primers, None)


@pytest.mark.parametrize("primers", [("", ""), PRIMERS])
@pytest.mark.parametrize("length", range(1, 40))
def test_reads_of_any_length_are_copies_or_left_out(length, primers):
    copies, tally = cut(chunk([length] * 5, primers), primers=primers)
    if length < trimming.SHORTEST:
        assert (len(copies.read), tally.left_out) == (0, {trimming.TOO_SHORT: 5})
    else:
        assert (sorted(set(copies.read)), tally.left_out) == ([*range(5)], {})
        assert (copies.lengths == length).all()


@pytest.mark.parametrize("length", [0, 1, 3, 9, 15])
def test_joined_primers_do_not_hide_the_strands(length):
    """Although most reads are such: they are counted, and do not decide what length is usual."""
    copies, tally = cut(chunk([length] * 20, PRIMERS), chunk([100] * 7, PRIMERS, seed=1), primers=PRIMERS)
    np.testing.assert_array_equal(copies.read, np.arange(20, 27))
    np.testing.assert_array_equal(copies.lengths, [100] * 7)
    assert (tally.reads, tally.left_out) == (27, {trimming.TOO_SHORT: 20})


def test_primers_that_leave_too_little_are_an_error_that_says_so():
    reason = "none of 20 reads can be used: 20 shorter than 16 bases without primers"
    with pytest.raises(DecodeError, match=f"{reason}; give the primers that were written$"):
        recover.recover([chunk([3] * 20, PRIMERS)], primers=PRIMERS)
    with pytest.raises(DecodeError, match=f"{reason}$"):
        recover.recover([chunk([3] * 20)])


def test_every_other_reason_is_counted():
    lengths = [100] * 9 + [2 * 100, trimming.LONGEST + 1, trimming.SHORTEST]
    copies, tally = cut(chunk(lengths))
    assert (len(set(copies.read)), tally.left_out) == (9, {trimming.FAR: 2, trimming.TOO_LONG: 1})
    copies, tally = cut(chunk([100] * 9, PRIMERS), chunk([100] * 4), primers=PRIMERS)
    assert (len(copies.read), tally.left_out) == (9, {trimming.NO_PRIMER: 4})


@pytest.mark.parametrize("primers", [("", ""), (LEFT, ""), PRIMERS])
def test_the_commonest_length_is_that_of_most_reads(primers):
    """Whether they all have it, or some are a base or two shorter or longer, fragments, or joined."""
    for lengths in ([100] * 30, [100] * 20 + [98, 99, 101, 101, 102], [100] * 9 + [30] * 8 + [130] * 8):
        copies, _ = cut(chunk(lengths, primers), primers=primers)
        assert copies.usual == 100


def test_reads_of_one_length_may_be_halves_of_pairs():
    """Then they are shorter than the strands, unless they reach from primer to primer."""
    hint = "of the reads have 100 bases: if the strands are longer, give both files of the reads of pairs"
    for primers in (("", ""), (LEFT, "")):
        copies, _ = cut(chunk([100] * 30, primers), primers=primers)
        assert f"100% {hint}" in trimming.shortness(copies, primers)
    copies, _ = cut(chunk([100] * 38 + [99, 98]))
    assert f"95% {hint}" in trimming.shortness(copies, ("", ""))
    copies, _ = cut(chunk([100] * 30 + [99] * 10))
    assert trimming.shortness(copies, ("", "")) == ""
    copies, _ = cut(chunk([100] * 30, PRIMERS), primers=PRIMERS)
    assert trimming.shortness(copies, PRIMERS) == ""
    one_primer = cut(chunk([100] * 30, (LEFT, "")), primers=PRIMERS)[0]
    assert "of the reads hold one primer only" in trimming.shortness(one_primer, PRIMERS)


def test_what_cannot_be_read_is_refused_with_the_hint():
    reason = "; 40 reads in .* clusters; 100% of the reads have 100 bases: .*give both files .*merged then$"
    with pytest.raises(DecodeError, match=reason):
        recover.recover([chunk([100] * 40)])
