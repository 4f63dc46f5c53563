"""How much a constraint set allows: its capacity (for long strands) and its limit at a length, as figures for people.

Both count the paths of the automaton in float64, and are good to about nine decimals. What a strand carries is proven
in integers by ``tables``, and may never exceed the limit.
"""

import dataclasses
import math
import zipfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from helix_jax import cache
from helix_jax.tk_scone import constraints as constraint_sets
from helix_jax.tk_scone import tables
from helix_jax.tk_scone.automaton import GC, ConstraintError
from helix_jax.tk_scone.constraints import Constraints

STORED = 1  # part of the cache key: raise it when the computation of a capacity changes
PRECISION = 1e-9  # of a capacity, in bit/nt
SETTLED = 64  # bases after which no set's automaton reaches new states (a window has at most 24)
LONGEST_POWER = 20_000  # steps of the power iteration, which takes a few hundred
STEEPEST = 60.0  # the largest tilt tried for a GC band, in bits per base


def limit(constraints: Constraints, length: int) -> float:
    """Return log2 of the number of strands of ``length`` bases that obey the set: no code carries more bits.

    The unit is bits per strand (divide by ``length`` for bit/nt). Raises ConstraintError, with the reason, when the set
    cannot be met.
    """
    automaton = constraint_sets.build(constraints, length)
    reached = tables.positions(automaton, length)
    ways, exponent, columns = automaton.accept[reached[length]].astype(np.float64), 0, None
    for i in range(length - 1, -1, -1):
        same = i + 2 <= length and reached[i] is reached[i + 1] is reached[i + 2]
        if columns is None or not same:
            columns = _columns(automaton.next[reached[i]], reached[i + 1], automaton.states)
        ways = _over_bases(ways, columns)
        if not ways.any():
            raise ConstraintError(f"no strand of {length} nt obeys {constraints.describe()}: use another length or set")
        shift = int(np.frexp(ways.max())[1])
        ways, exponent = ways * 2.0**-shift, exponent + shift
    return math.log2(ways[0]) + exponent


def load(constraints: Constraints) -> float:
    """Return the ``capacity`` of the set from the user's cache, or compute it (seconds) and keep it there."""
    path = tables.cached(_unending(constraints), "capacity", STORED)
    try:
        with open(path, "rb") as source, np.load(source) as stored:
            bits = float(stored["bits"])
            cache.touch(path)
            return bits
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # it is not cached yet, or cannot be read
    bits = capacity(constraints)
    tables.keep(path, bits=np.float64(bits))
    return bits


def capacity(constraints: Constraints) -> float:
    """Return Shannon's capacity of the set in bit/nt: what ``limit(constraints, L) / L`` tends to as L grows.

    It is log2 of the greatest eigenvalue of the automaton's transfer matrix (Perron and Frobenius; Marcus, Roth and
    Siegel, "Constrained systems and coding for recording channels", 1998). Power iteration finds it to PRECISION, for
    periodic and reducible automata too. A band for the GC share of the whole strand costs nothing where it holds the
    share that the other rules lead to (one half for `strand`). Where it does not, the capacity is the least of log2
    growth(t) - share * t over tilts t, where each G or C counts 2^t times and ``share`` is the band's edge (Cramer).
    Lengths at which the band holds no whole number of bases are left out of that limit.

    Raises ConstraintError, with the reason, when the set is contradictory or allows no long strands.
    """
    c = _unending(constraints)
    automaton = constraint_sets.build(dataclasses.replace(c, strand_gc=None), SETTLED)
    reached = tables.positions(automaton, SETTLED)
    # A periodic automaton alternates between sets of states: in that case all states are kept.
    settled = c.strand_gc is None and reached[-1] is reached[-2]
    states = reached[-1] if settled else np.arange(automaton.states)
    columns = _columns(automaton.next[states], states, automaton.states)
    valid = np.ones(columns.shape[1], bool)
    if c.strand_gc is not None:
        columns = _with_gc_class(columns)
        first_class = c.left[-1:].upper() in ("C", "G")
        # A state that knows its last base exists with one class only.
        valid = _ahead(columns, 2 * automaton.start + first_class, np.ones(columns.shape[1], bool))
    classes = _recurrent(columns, valid)
    if not classes:
        raise ConstraintError(f"no strand of unlimited length obeys {c.describe()}: its capacity is 0")
    parts = []
    for members in classes:
        index = np.full(columns.shape[1] + 1, len(members), np.int32)
        index[members] = np.arange(len(members))
        parts.append((index[columns[:, members]], members % 2))
    if c.strand_gc is None:
        return max(math.log2(_growth(part)) for part, _ in parts)
    low, high = c.strand_gc
    if low > high or low > 1 or high < 0:
        raise ConstraintError(f"no share of G or C lies in the strand's band {low:.0%} to {high:.0%}: give 0 to 100 %")

    def tilted(bits):
        growth = max(math.log2(_growth(part, np.where(is_gc, 2.0**bits, 1.0))) for part, is_gc in parts)
        return growth - bits * (low if bits > 0 else high)

    bits = _least(tilted)
    if bits < -1e-6:
        raise ConstraintError(
            f"no long strand obeys {c.describe()}: its GC band and its other rules exclude each other"
        )
    return max(bits, 0.0)


def _unending(constraints: Constraints) -> Constraints:
    """Return the set without its right primer, which no endless strand reaches, and which costs four times the states.

    The left primer stays: where a window allows a single number of G and C, it settles the pattern for ever.
    """
    return dataclasses.replace(constraints, right="")


def _columns(after: Int[np.ndarray, "n 4"], following: Int[np.ndarray, " m"], states: int) -> Int32[np.ndarray, "4 n"]:
    """Return the next states as indices into ``following``; the index is len(following) where they are forbidden."""
    index = np.full(states + 1, len(following), np.int32)
    index[following] = np.arange(len(following), dtype=np.int32)
    index[-1] = len(following)
    return np.ascontiguousarray(index[after].T)


def _over_bases(values: Float64[np.ndarray, " m"], columns: Int32[np.ndarray, "4 n"]) -> Float64[np.ndarray, " n"]:
    """Sum the values of the next states over the four differences."""
    extended = np.append(values, 0.0)
    return ((extended[columns[0]] + extended[columns[1]]) + extended[columns[2]]) + extended[columns[3]]


def _with_gc_class(columns: Int32[np.ndarray, "4 n"]) -> Int32[np.ndarray, "4 2*n"]:
    """Split each state in two: 2 * state + 1 after G or C, and 2 * state after A or T."""
    count = columns.shape[1]
    both = 2 * columns[:, :, None] + (np.arange(2)[None, None, :] ^ GC[:, None, None])
    return np.where(columns[:, :, None] == count, 2 * count, both).reshape(4, 2 * count).astype(np.int32)


def _ahead(columns: Int32[np.ndarray, "4 n"], seed: int, allowed: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Mark the allowed states that can be reached from ``seed``, which is one of them."""
    allowed = np.append(allowed, False)
    seen = np.zeros(len(allowed), bool)
    frontier = np.array([seed])
    while len(frontier):
        seen[frontier] = True
        after = np.unique(columns[:, frontier])
        frontier = after[allowed[after] & ~seen[after]]
    return seen[:-1]


def _recurrent(columns: Int32[np.ndarray, "4 n"], valid: Bool[np.ndarray, " n"]) -> list[Int[np.ndarray, " _"]]:
    """Return the classes of valid states that reach each other (strongly connected, with a cycle)."""
    count = columns.shape[1]
    remaining = np.append(valid, False)
    classes = []
    while True:
        while True:  # states without a predecessor or without a successor are in no cycle
            entered = np.zeros(count + 1, bool)
            entered[columns[:, remaining[:-1]]] = True
            kept = remaining[:-1] & entered[:-1] & remaining[columns].any(axis=0)
            if kept.sum() == remaining.sum():
                break
            remaining[:-1] = kept
        if not remaining.any():
            return classes
        seed = int(np.argmax(remaining))
        behind = np.zeros(count + 1, bool)
        behind[seed] = grown = True
        while grown:
            predecessors = remaining[:-1] & ~behind[:-1] & behind[columns].any(axis=0)
            behind[:-1] |= predecessors
            grown = predecessors.any()
        members = np.flatnonzero(_ahead(columns, seed, remaining[:-1]) & behind[:-1])
        if len(members) > 1 or (columns[:, seed] == seed).any():
            classes.append(members)
        remaining[members] = False


def _growth(columns: Int32[np.ndarray, "4 n"], weights: Float64[np.ndarray, " n"] | None = None) -> float:
    """Return the greatest eigenvalue of an irreducible transfer matrix.

    State s counts ``weights[s]`` times on entry. Half the identity is added, which breaks every period. The ratios of
    one step bracket the eigenvalue (Collatz and Wielandt).
    """
    vector = np.ones(columns.shape[1])
    for _ in range(LONGEST_POWER):
        new = _over_bases(vector if weights is None else vector * weights, columns)
        ratio = new / vector
        low, high = ratio.min(), ratio.max()
        if high <= low * (1 + PRECISION / 2):
            break
        vector = new + vector * (0.5 * high)
        vector /= vector.max()
    return math.sqrt(low * high)


def _least(function: Callable[[float], float]) -> float:
    """Return the least value of a convex function on [-STEEPEST, STEEPEST].

    The value at 0 is tried first, and then golden sections.
    """
    middle, step = function(0.0), 1e-4
    if function(step) >= middle and function(-step) >= middle:
        return middle
    low, high = (0.0, STEEPEST) if function(step) < middle else (-STEEPEST, 0.0)
    golden = (math.sqrt(5) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = function(a), function(b)
    while high - low > 1e-4:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = function(b)
    return min(at_a, at_b)
