"""Reads are cut between their primers and turned: places known from how the read was made, or from a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.reads import orient

LEFT, RIGHT = b"ACACGACGCTCTTCCGATCT", b"AGATCGGAAGAGCACACGTC"
OTHER = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}


def back(letters):
    """Reverse complement, one letter at a time."""
    return "".join(OTHER[letter] for letter in reversed(letters.decode())).encode()


def strand_of(length, seed=0):
    return bytes(np.random.default_rng(seed).choice(list(b"ACGT"), length).tolist())


STRAND = strand_of(60)


def strand_in(read, left, right):
    """What ``between`` cuts out, in the strand's direction, and whether it was turned; None where it finds nothing."""
    place = orient.between(read, left, right)
    if place is None:
        return None
    begin, end, turned = place
    assert 0 <= begin <= end <= len(read)
    return (back(read) if turned else read)[begin:end], turned


def damaged(primer, seed, errors):
    """The primer with that many errors inside, away from its ends, so that its place is beyond doubt."""
    letters, draw = list(primer), np.random.default_rng(seed)
    for place in sorted(draw.choice(np.arange(4, 15, 3), errors, replace=False).tolist(), reverse=True):
        kind = draw.integers(3)
        if kind == 0:
            letters[place] = ord("ACGT"["ACGT".index(chr(letters[place])) - 1])
        elif kind == 1:
            del letters[place]
        else:
            letters.insert(place, letters[place])
    return bytes(letters)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("errors", [0, 1, 3])
def test_both_primers(turned, errors):
    for seed in range(6):
        strand = strand_of(60, seed)
        for more in (b"", b"GATTACA"):  # an adapter outside
            read = more + damaged(LEFT, seed, errors) + strand + damaged(RIGHT, seed + 9, errors) + more
            assert strand_in(back(read) if turned else read, LEFT, RIGHT) == (strand, turned)


@pytest.mark.parametrize("turned", [False, True])
def test_one_primer_given(turned):
    left, right = damaged(LEFT, 1, 2) + STRAND, STRAND + damaged(RIGHT, 2, 2)
    if turned:
        left, right = back(left), back(right)
    assert strand_in(left, LEFT, b"") == (STRAND, turned)
    assert strand_in(right, b"", RIGHT) == (STRAND, turned)


@pytest.mark.parametrize("turned", [False, True])
def test_one_of_two_destroyed(turned):
    """The strand then reaches to the read's end."""
    for seed in range(5):
        gone = strand_of(20, 50 + seed)
        first, last = gone + STRAND + RIGHT, LEFT + STRAND + gone
        if turned:
            first, last = back(first), back(last)
        assert strand_in(first, LEFT, RIGHT) == (gone + STRAND, turned)
        assert strand_in(last, LEFT, RIGHT) == (STRAND + gone, turned)


def noisy(letters, rate, draw):
    """A third of the errors each substituted, inserted and deleted."""
    out = bytearray()
    for letter in letters:
        while draw.random() < rate / 3:
            out.append(draw.choice(list(b"ACGT")))
        kind = draw.random()
        if kind >= rate / 3:
            out.append(draw.choice([other for other in b"ACGT" if other != letter]) if kind < 2 * rate / 3 else letter)
    return bytes(out)


def test_noisy_reads():
    """At 10 % errors: with both primers 97 % of the reads are cut within 5 bases of the right places. With one of
    them gone 80 %: a primer of 20 bases is found by chance in some reads, and here in the strand."""
    draw = np.random.default_rng(0)
    both = one = 0
    for seed in range(200):
        strand = strand_of(100, seed)
        read = noisy(LEFT, 0.1, draw) + strand + noisy(RIGHT, 0.1, draw)
        begin, end, turned = orient.between(read, LEFT, RIGHT) or (99, 99, True)
        both += not turned and abs(begin - 20) <= 5 and abs(len(read) - end - 20) <= 5
        read = noisy(LEFT, 0.1, draw) + strand
        begin, end, turned = orient.between(read, LEFT, RIGHT) or (99, 99, True)
        one += not turned and abs(begin - 20) <= 5 and end == len(read)
    assert both >= 194
    assert one >= 160


def test_reads_of_other_pools_are_left_out():
    """Two primers of 20 bases, each within 6 edits of a piece of many reads, are rarely both; one alone has 4."""
    taken = 0
    for seed in range(1000):
        other = [strand_of(20, 10000 + 2 * seed), strand_of(20, 10001 + 2 * seed)]
        taken += orient.between(other[0] + strand_of(150, seed) + other[1], LEFT, RIGHT) is not None
    assert taken <= 20
    letters = damaged(LEFT, 1, 0)
    for edits, found in ((4, True), (5, False)):
        alone = bytearray(letters)
        for place in range(1, 4 * edits, 4):
            alone[place] = ord({"A": "G", "C": "T", "G": "A", "T": "C"}[chr(alone[place])])
        assert (orient.between(bytes(alone) + b"A" * 40, LEFT, RIGHT) is not None) == found
        assert orient.between(bytes(alone) + b"A" * 40 + RIGHT, LEFT, RIGHT) is not None


def test_no_primer():
    for base in (b"A", b"C", b"G", b"T", b"N"):
        assert orient.between(base * 100, LEFT, RIGHT) is None
        assert orient.between(base * 100, LEFT, b"") is None
    found = [orient.between(strand_of(100, 100 + seed), LEFT, RIGHT) for seed in range(100)]
    assert found.count(None) >= 98  # a primer in the others by chance


def test_short_reads():
    for read in (b"", b"A", b"ACG", b"N"):
        for left, right in ((LEFT, RIGHT), (LEFT, b""), (b"", RIGHT)):
            assert orient.between(read, left, right) is None
    assert strand_in(LEFT, LEFT, RIGHT) == (b"", False)
    assert strand_in(LEFT[:-2], LEFT, b"") == (b"", False)  # most of it is there
    assert strand_in(LEFT + RIGHT, LEFT, RIGHT) == (b"", False)
    assert strand_in(back(LEFT + b"ACG" + RIGHT), LEFT, RIGHT) == (b"ACG", True)


def test_unknown_bases():
    strand = STRAND[:10] + b"N" + STRAND[11:]
    left, right = LEFT[:8] + b"NN" + LEFT[10:], RIGHT[:5] + b"N" + RIGHT[6:]
    assert strand_in(left + strand + right, LEFT, RIGHT) == (strand, False)
    assert strand_in(back(left + strand + right), LEFT, RIGHT) == (strand, True)


@settings(max_examples=40)
@given(length=st.integers(0, 30), width=st.integers(1, 9), seed=st.integers(0, 1 << 30))
def test_turned_and_backwards_by_a_loop(length, width, seed):
    """Rows of any lengths, N (4) and what lies past the end (255) among them."""
    draw = np.random.default_rng(seed)
    rows = draw.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (length, width))
    lengths = draw.integers(0, width + 1, length).astype(np.int32)
    expected, mirrored = rows.copy(), rows.copy()
    for i in range(length):
        for j in range(lengths[i]):
            mirrored[i, j] = rows[i, lengths[i] - 1 - j]
    for i in range(length):
        for j in range(width):
            expected[i, j] = {0: 3, 1: 2, 2: 1, 3: 0}.get(int(mirrored[i, j]), mirrored[i, j])
    np.testing.assert_array_equal(orient.backwards(rows, lengths), mirrored)
    inside = np.arange(width)[None] < lengths[:, None]
    got = orient.turned(rows, lengths)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[inside], expected[inside])
    assert (got[~inside & (rows == 255)] == 255).all()
    doubt = draw.random((length, width)).astype(np.float32)
    turned_twice = orient.backwards(orient.backwards(doubt, lengths), lengths)
    np.testing.assert_array_equal(turned_twice, doubt)


def test_complement():
    assert orient.complement(b"AACGTN") == b"NACGTT" == back(b"AACGTN")
    assert orient.complement(b"") == b""
