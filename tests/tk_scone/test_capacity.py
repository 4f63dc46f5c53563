"""Capacity and limits against closed forms, published values, the exact counts, and the coder's own payload."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import count
from helix_jax.strands import checker
from helix_jax.tk_scone.automaton import ConstraintError
from helix_jax.tk_scone.capacity import capacity, limit
from helix_jax.tk_scone.constraints import NAMED, Constraints


def entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@pytest.mark.parametrize(
    ("constraints", "bits"),
    [
        (NAMED["goldman"], math.log2(3)),
        (NAMED["helix"], 1.91454988),
        (NAMED["strand"], 1.98235405),
        (Constraints(longest_run=2), math.log2((3 + math.sqrt(21)) / 2)),
        (Constraints(longest_run=1, window=2, window_gc=(0.5, 0.5)), 1.0),  # strictly alternating classes: period 2
        (Constraints(longest_run=60, balance=1), 1.5),  # classes free at every other base, bases free within the class
    ],
)
def test_closed_forms(constraints, bits):
    assert capacity(constraints) == pytest.approx(bits, abs=2e-8)


def test_reducible_automaton():
    """With every step between {A, T} and {C, G} forbidden, two binary worlds remain, each with runs up to 3."""
    apart = tuple(a + b for a in "AT" for b in "CG") + tuple(b + a for a in "AT" for b in "CG")
    tribonacci = 1.8392867552141612  # greatest root of x^3 = x^2 + x + 1
    assert capacity(Constraints(longest_run=3, motifs=apart)) == pytest.approx(math.log2(tribonacci), abs=1e-8)


@pytest.mark.parametrize("band", [(0.2, 0.3), (0.7, 0.9), (0.1, 0.1)])
def test_strand_band_without_one_half(band):
    """Long free runs: the share nearest one half is taken, entropy(p) bits for the class and one within it."""
    nearest = min(band, key=lambda p: abs(p - 0.5))
    got = capacity(Constraints(longest_run=80, strand_gc=band))
    assert got == pytest.approx(1 + entropy(nearest), abs=1e-7)


def test_strand_band_around_the_natural_share_costs_nothing():
    assert capacity(Constraints(strand_gc=(0.45, 0.55))) == capacity(Constraints())
    # a motif rich in G and C moves the natural share below one half
    assert capacity(Constraints(strand_gc=(0.5, 0.6), motifs=("GG",))) < capacity(Constraints(motifs=("GG",)))
    assert capacity(Constraints(strand_gc=(0.3, 0.6), motifs=("GG",))) == capacity(Constraints(motifs=("GG",)))


@pytest.mark.parametrize("name", ["strand", "goldman", "wide"])
@pytest.mark.parametrize("length", [2, 20, 150])
def test_limit_equals_the_exact_count(name, length):
    exact = math.log2(count.strands(NAMED[name], [length])[length])
    assert limit(NAMED[name], length) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("name", "bits"), [("helix", 288.132731), ("strict", 272.150401)])
def test_limit_of_the_windowed_sets(name, bits):
    assert limit(NAMED[name], 150) == pytest.approx(bits, abs=1e-6)


@given(
    st.builds(
        Constraints,
        longest_run=st.integers(1, 3),
        window=st.sampled_from([0, 3, 4]),
        window_gc=st.sampled_from([(0.25, 0.75), (0.3, 0.7)]),
        motifs=st.sampled_from([(), ("GAT",), ("CC", "TA")]),
        left=st.sampled_from(["", "ACA"]),
        right=st.sampled_from(["", "GT"]),
    )
)
@settings(max_examples=20)
def test_limit_counts_every_strand(constraints):
    every = [f"{n:010b}" for n in range(1024)]
    strands = ["".join("ACGT"[int(bits[i : i + 2], 2)] for i in range(0, 10, 2)) for bits in every]
    try:
        lawful = 1024 - checker.check(strands, constraints).violations
        assert 2 ** limit(constraints, 5) == pytest.approx(lawful, rel=1e-12)
    except ConstraintError:
        assert lawful == 0


def test_payload_stays_below_the_limit_which_nears_the_capacity(tables_of):
    for name in ("strand", "goldman", "wide"):
        assert tables_of(name, 150).bits <= limit(NAMED[name], 150)
        assert limit(NAMED[name], 3000) / 3000 == pytest.approx(capacity(NAMED[name]), abs=3e-3)


@pytest.mark.parametrize(
    ("constraints", "reason"),
    [
        (Constraints(motifs=("A", "C")), "no strand of unlimited length"),
        (Constraints(strand_gc=(0.0, 0.4), motifs=("A",)), "exclude each other"),
        (Constraints(strand_gc=(0.6, 0.5)), "no share of G or C lies in"),
        (Constraints(window=15, window_gc=(0.48, 0.52)), "no whole number"),
    ],
)
def test_refused_with_the_reason(constraints, reason):
    with pytest.raises(ConstraintError, match=reason):
        capacity(constraints)


def test_limit_of_what_cannot_be_met():
    with pytest.raises(ConstraintError, match="no strand of 10 nt obeys"):
        limit(Constraints(motifs=("A", "C")), 10)
