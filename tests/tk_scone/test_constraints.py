"""Whole constraint sets: the automaton's language against the checker's verdict on every strand of a small length."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from helix_jax.strands import checker
from helix_jax.tk_scone import constraints as sets
from helix_jax.tk_scone import tables
from helix_jax.tk_scone.automaton import ConstraintError
from helix_jax.tk_scone.constraints import NAMED, Constraints

LENGTH = 5
EVERY = np.stack(np.meshgrid(*[np.arange(4, dtype=np.uint8)] * LENGTH, indexing="ij"), -1).reshape(-1, LENGTH)


def language(constraints):
    """bool[4^LENGTH]: the strands that the automaton accepts."""
    machine = sets.build(constraints, LENGTH)
    table = np.concatenate([machine.next, np.full((1, 4), -1)])
    states = np.full(len(EVERY), machine.start)
    previous = np.full(len(EVERY), "ACGT".index(constraints.left[-1]) if constraints.left else 0)
    for base in EVERY.T:
        states, previous = table[states, base ^ previous], base
    return (states >= 0) & machine.accept[states]


def verdict(constraints):
    """bool, for every ninth strand: the checker lets it pass."""
    return np.array([checker.check(EVERY[n : n + 1], constraints).violations == 0 for n in range(0, len(EVERY), 9)])


band = st.sampled_from([(0.25, 0.75), (0.4, 0.6), (0.0, 0.5), (0.2, 0.6), (0.5, 1.0), (0.5, 0.5)])
word = st.text("ACGT", max_size=4)
any_set = st.builds(
    Constraints,
    longest_run=st.integers(1, 3),
    window=st.sampled_from([0, 2, 4, 6, 7]),
    window_gc=band,
    strand_gc=st.none() | st.sampled_from([(0.2, 0.6), (0.4, 0.4), (0.0, 0.4)]),
    balance=st.sampled_from([0, 0, 2, 3]),
    motifs=st.lists(st.text("ACGT", min_size=2, max_size=4), max_size=2).map(tuple),
    left=word,
    right=word,
)


@given(any_set)
@example(Constraints(longest_run=2, left="GAA", right="AAT"))
@example(Constraints(longest_run=3, motifs=("GAATTC",), left="GAA", right="TTC"))
@example(Constraints(longest_run=1, window=6, window_gc=(0.5, 0.5), left="ACG", right="TGC"))
@example(Constraints(longest_run=3, balance=2, left="GC", right="AT"))
@example(Constraints(longest_run=2, strand_gc=(0.4, 0.4), left="C", right="C"))
@example(Constraints(longest_run=3, balance=2, right="AAA"))  # out of balance alone, but not after a strand rich in GC
@settings(max_examples=80)
def test_language_is_what_the_checker_lets_pass(constraints):
    try:
        accepted = language(constraints)
    except ConstraintError as refusal:
        # else it is refused for a primer: then no strand at all may pass
        assume("no whole number" not in str(refusal))
        accepted = np.zeros(len(EVERY), bool)
    np.testing.assert_array_equal(accepted[::9], verdict(constraints))
    if accepted.any():
        assert checker.check(EVERY[accepted], constraints).violations == 0


def test_joints_counted_by_hand():
    # walks of 6 steps from C to C on 4 letters, none repeated: (3^6 + 3) / 4
    assert language(Constraints(longest_run=1, left="C", right="C")).sum() == (3**6 + 3) // 4
    # after AAA no A; runs of four begin at the first base (3 * 4 strands) or at the second (4 * 3 less those above)
    runs = 3 * 4 + sum(second != first for first in "CGT" for second in "ACGT")
    assert language(Constraints(longest_run=3, left="AAA")).sum() == 3 * 4**4 - runs


@pytest.mark.parametrize(
    ("constraints", "length", "reason"),
    [
        (Constraints(window=15, window_gc=(0.48, 0.52)), 150, "no whole number of G or C .* window of 15"),
        (Constraints(window=21, window_gc=(0.48, 0.52)), 150, "no whole number of G or C .* window of 21"),
        (Constraints(window=25, window_gc=(0.49, 0.51)), 150, "no whole number of G or C .* window of 25"),
        (Constraints(window=25, window_gc=(0.4, 0.6)), 150, "GC window of 25 needs .* use at most 24"),
        (Constraints(window=1, window_gc=(0.4, 0.6)), 150, "no whole number .* window of 1:"),
        (Constraints(window=20, window_gc=(0.6, 0.4)), 150, "no whole number"),
        (Constraints(strand_gc=(0.45, 0.55)), 1, "no whole number .* strand's GC band at length 1"),
        (Constraints(strand_gc=(0.49, 0.51)), 7, "no whole number .* strand's GC band at length 7"),
        (Constraints(longest_run=0), 150, "longest run 0: at least 1"),
        (Constraints(), 0, "strand length 0: at least 1"),
        (Constraints(motifs=("GANTC",)), 150, "motif 'GANTC' holds letters other than A, C, G, T"),
        (Constraints(left="AC GT"), 150, "left primer 'AC GT' holds letters"),
        (Constraints(right="acgu"), 150, "right primer 'acgu' holds letters"),
        (Constraints(motifs=("GAT", "")), 150, "forbidden motif is empty"),
        (Constraints(left="ACGAAAA"), 150, "left primer 'ACGAAAA' itself breaks custom: runs <= 3"),
        (Constraints(right="GGGGA"), 150, "right primer 'GGGGA' itself breaks"),
        (Constraints(motifs=("GAATTC",), left="CGAATTCG"), 150, "left primer .* itself breaks .* without GAATTC"),
        (Constraints(window=4, window_gc=(0.5, 0.5), right="GGCA"), 150, "right primer 'GGCA' itself breaks"),
        (Constraints(motifs=("A", "C")), 10, "no strand of 10 nt obeys"),
        (Constraints(motifs=("A", "CC"), left="C"), 10, "carries no bit"),
        (Constraints(longest_run=3, window=2, window_gc=(0.5, 0.5), left="G", right="G"), 2, "no strand of 2 nt obeys"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(constraints, length, reason):
    with pytest.raises(ConstraintError, match=reason):
        tables.build(constraints, length)


def test_bands_round_inwards():
    assert sets.counts((0.45, 0.55), 20) == (9, 11)
    assert sets.counts((0.4, 0.6), 20) == (8, 12)
    assert sets.counts((0.45, 0.55), 150) == (68, 82)
    assert sets.counts((0.48, 0.52), 21) == (11, 10)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(2, 300))
def test_bands_agree_with_the_checker(low, high, length):
    """Two derivations of the whole numbers in a band, one in floats with a margin, one in exact fractions."""
    assert sets.counts((low / 100, high / 100), length) == checker._bounds((low / 100, high / 100), length)


def test_named_sets():
    assert set(NAMED) == {"helix", "strict", "strand", "goldman", "wide"}
    assert all(name == c.name and sets.named(name) is c for name, c in NAMED.items())
    assert [name for name, c in NAMED.items() if c.positional] == ["strand"]
    with pytest.raises(ConstraintError, match=r"no constraint set 'helx'; there are .*helix"):
        sets.named("helx")


def test_custom_sets():
    helix = NAMED["helix"]
    assert sets.custom(helix) is helix
    more = sets.custom(helix, motifs=["GAATTC"], left="ACG")
    assert (more.name, more.motifs, more.left, more.window) == ("helix+", ("GAATTC",), "ACG", 20)


@pytest.mark.parametrize("name", NAMED)
def test_description_names_every_rule(name):
    words = NAMED[name].describe()
    assert words.startswith(f"{name}: runs <= {NAMED[name].longest_run}")
    assert ("8..12" in words) == (name == "helix")
    assert ("45% to 55%" in words) == (name == "strand")
