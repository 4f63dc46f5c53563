"""The exact counts against the checker's verdict on every strand, and against each other."""

import itertools

import numpy as np
import pytest

from eval import count
from helix_jax.strands import checker
from helix_jax.tk_scone.constraints import NAMED, Constraints


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(longest_run=1),
        Constraints(longest_run=2, window=4, window_gc=(0.25, 0.75)),
        Constraints(longest_run=3, window=5, window_gc=(0.2, 0.6)),
        Constraints(longest_run=5, window=3, window_gc=(0.0, 0.7)),
        Constraints(longest_run=2, balance=2),
        Constraints(longest_run=3, balance=2, strand_gc=(0.4, 0.5)),
        Constraints(longest_run=3, strand_gc=(0.3, 0.6)),
    ],
)
def test_every_small_strand(constraints):
    lengths = range(1, 8)
    got = count.strands(constraints, lengths)
    for length in lengths:
        every = np.array(list(itertools.product(range(4), repeat=length)), np.uint8)
        lawful = len(every) - checker.check(every, constraints).violations
        assert got[length] == lawful


def test_large_counts_are_whole():
    """4 * 3^(L - 1) strands without repeats, beyond any float; so too by arrays, with a window that lets all pass."""
    assert count.strands(NAMED["goldman"], [200]) == {200: 4 * 3**199}
    free = Constraints(longest_run=1, window=4, window_gc=(0.0, 1.0))
    assert count.strands(free, [3, 200]) == {3: 36, 200: 4 * 3**199}


def test_primes():
    numbers = range(41, 2000, 2)
    assert [n for n in numbers if count._is_prime(n)] == [n for n in numbers if all(n % d for d in range(3, n, 2))]
    assert not count._is_prime(3215031751)  # passes the test for the bases 2, 3, 5 and 7
    assert not count._is_prime((2**31 - 1) * (2**19 - 1))
    assert np.prod([float(p) for p in count._primes(400)]) > 2.0**400


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(motifs=("GAT",)),
        Constraints(left="A"),
        Constraints(window=6, balance=3),
        Constraints(longest_run=16),
    ],
)
def test_what_is_not_counted_is_refused(constraints):
    with pytest.raises(ValueError, match="counted"):
        count.strands(constraints, [10])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bits"), [("helix", 288.13), ("strict", 272.15)])
def test_published_limits(name, bits):
    number = count.strands(NAMED[name], [150])[150]
    assert number.bit_length() - 1 == int(bits)
    assert np.log2(float(number)) == pytest.approx(bits, abs=0.005)
