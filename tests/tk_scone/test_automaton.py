"""Each part of the automaton against every strand of a small length, judged by plain string rules."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.tk_scone import automaton
from helix_jax.tk_scone.automaton import ConstraintError


def all_strands(length):
    """uint8[4^length, length], every strand."""
    return np.stack(np.meshgrid(*[np.arange(4, dtype=np.uint8)] * length, indexing="ij"), -1).reshape(-1, length)


def accepted(machine, strands, first=0):
    """bool[n]: the strands that the automaton accepts, ``first`` being the base before them."""
    table = np.concatenate([machine.next, np.full((1, 4), -1)])
    states, previous = np.full(len(strands), machine.start), np.full(len(strands), first)
    for base in strands.T:
        states, previous = table[states, base ^ previous], base
    return (states >= 0) & machine.accept[states]


def as_text(strand):
    return "".join("ACGT"[base] for base in strand)


def agree(machine, rule, length, first=0):
    strands = all_strands(length)
    want = [rule(as_text(strand)) for strand in strands]
    np.testing.assert_array_equal(accepted(machine, strands, first), want)


def gc(text):
    return text.count("G") + text.count("C")


@pytest.mark.parametrize("longest", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 3, 6])
def test_run_limit(longest, length):
    agree(automaton.run_limit(longest), lambda s: not any(b * (longest + 1) in s for b in "ACGT"), length)


@pytest.mark.parametrize(("width", "low", "high"), [(2, 1, 1), (3, 1, 2), (4, 2, 2), (4, 1, 2), (5, 2, 3), (5, 0, 3)])
@pytest.mark.parametrize("length", [1, 4, 7])
def test_gc_window(width, low, high, length):
    """Symmetric bands (half the states) and lopsided ones; strands shorter than the window are free."""

    def rule(text):
        return all(low <= gc(text[i : i + width]) <= high for i in range(len(text) - width + 1))

    agree(automaton.gc_window(width, low, high), rule, length)


def test_symmetric_window_has_half_the_states():
    assert automaton.gc_window(8, 3, 5).states == 2**7
    assert automaton.gc_window(8, 3, 4).states == 2**8


@pytest.mark.parametrize("bound", [1, 2, 3])
def test_gc_balance(bound):
    def rule(text):
        return all(abs(2 * gc(text[:i]) - i) <= bound for i in range(len(text) + 1))

    agree(automaton.gc_balance(bound), rule, 6)


@given(st.integers(1, 30), st.integers(0, 2**64))
def test_balance_bounds_every_window(bound, seed):
    """The words of the rule: any window of any length w holds w/2 +- bound."""
    machine = automaton.gc_balance(bound)
    generator = np.random.default_rng(seed)
    state, bits = machine.start, [0]
    previous = 0
    for number in generator.integers(0, 4, 200):
        x = int(number) if machine.next[state, number] >= 0 else int(np.argmax(machine.next[state] >= 0))
        state, previous = machine.next[state, x], previous ^ x
        bits.append(bits[-1] + int(previous in (1, 2)))
    total = np.array(bits)
    for width in range(1, 200, 7):
        assert (np.abs(2 * (total[width:] - total[:-width]) - width) <= 2 * bound).all()


@pytest.mark.parametrize(("low", "high"), [(0, 6), (3, 3), (2, 3), (5, 6)])
@pytest.mark.parametrize("first", [0, 1])
def test_strand_gc(low, high, first):
    machine = automaton.strand_gc(6, low, high, int(automaton.GC[first]))
    agree(machine, lambda s: low <= gc(s) <= high, 6, first)


@given(st.lists(st.text("ACGT", min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=30)
def test_forbid(motifs):
    complement = str.maketrans("ACGT", "TGCA")
    words = [w for m in motifs for w in (m, m[::-1].translate(complement))]
    machine = automaton.forbid([["ACGT".index(letter) for letter in m] for m in motifs])
    agree(machine, lambda s: not any(w in s for w in words), 5)


def test_forbid_overlapping_motifs():
    """A motif inside another, and one that begins with another's end: the failure links."""
    motifs = ["ACAC", "CA", "GGTTG"]
    words = ["ACAC", "GTGT", "CA", "TG", "GGTTG", "CAACC"]
    machine = automaton.forbid([["ACGT".index(letter) for letter in m] for m in motifs])
    agree(machine, lambda s: not any(w in s for w in words), 6)


def test_last_base():
    machine = automaton.last_base()
    for text in itertools.product(range(4), repeat=3):
        assert machine.walk(np.array([machine.start]), text, 0)[0] == text[-1]


def test_reverse_complement():
    assert as_text(automaton.reverse_complement([0, 0, 1, 2])) == "CGTT"


PARTS = {
    "runs": lambda: automaton.run_limit(2),
    "window": lambda: automaton.gc_window(4, 1, 3),
    "balance": lambda: automaton.gc_balance(2),
    "motif": lambda: automaton.forbid([[2, 0, 3]]),
    "strand": lambda: automaton.strand_gc(6, 2, 4, 0),
}


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(PARTS, 2)))
def test_product_is_the_intersection(one, two):
    a, b = PARTS[one](), PARTS[two]()
    both = automaton.product(a, b)
    strands = all_strands(6)
    np.testing.assert_array_equal(accepted(both, strands), accepted(a, strands) & accepted(b, strands))


def test_product_keeps_reachable_states_only():
    both = automaton.product(automaton.run_limit(3), automaton.gc_window(6, 2, 4))
    reached = {both.start}
    frontier = [both.start]
    while frontier:
        fresh = {int(n) for state in frontier for n in both.next[state] if n >= 0} - reached
        reached |= fresh
        frontier = list(fresh)
    assert reached == set(range(both.states))


def test_product_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(automaton, "LARGEST_PRODUCT", 100)
    with pytest.raises(ConstraintError, match="automaton of 32 x 4 states: use a shorter window"):
        automaton.product(automaton.gc_window(6, 2, 4), automaton.run_limit(3))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda: automaton.gc_window(15, 8, 7), "no whole number of G or C fits the GC band in a window of 15"),
        (lambda: automaton.gc_window(25, 10, 15), "use at most 24"),
        (lambda: automaton.gc_window(1, 0, 1), "use a window of at least 2"),
        (lambda: automaton.strand_gc(7, 4, 3, 0), "no whole number of G or C fits the strand's GC band at length 7"),
    ],
)
def test_refused_with_the_reason(part, reason):
    with pytest.raises(ConstraintError, match=reason):
        part()
