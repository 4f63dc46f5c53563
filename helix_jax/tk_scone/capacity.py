"""How much a constraint set allows: its capacity (long strands) and its limit at a length, for people.

Both count the paths of the automaton in float64, and are good to about nine decimals. What a strand carries is
proven in integers by ``tables``, and may never exceed the limit.
"""

import dataclasses
import math
import zipfile

import numpy as np

from helix_jax import cache
from helix_jax.tk_scone import constraints as constraint_sets
from helix_jax.tk_scone import tables
from helix_jax.tk_scone.automaton import GC, ConstraintError

STORED = 1  # part of the cache key: raise it when the way a capacity is worked out changes
PRECISION = 1e-9  # of a capacity, in bit/nt
SETTLED = 64  # bases after which no set's automaton sees new states (a window has at most 24)
LONGEST_POWER = 20_000  # steps of the power iteration, which takes a few hundred
STEEPEST = 60.0  # largest tilt tried for a GC band, in bits per base


def limit(constraints, length):
    """log2 of the number of strands of ``length`` bases that obey the set: no code carries more bits.

    Returns a float in bits per strand (divide by ``length`` for bit/nt). Raises ConstraintError, with the reason, when
    the set cannot be met.
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


def load(constraints):
    """``capacity`` of the set: from the user's cache, or worked out (seconds) and kept there."""
    path = tables.cached(constraints, "capacity", STORED)
    try:
        with open(path, "rb") as source, np.load(source) as stored:
            bits = float(stored["bits"])
            cache.touch(path)
            return bits
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not cached yet, or unreadable
    bits = capacity(constraints)
    tables.keep(path, bits=np.float64(bits))
    return bits


def capacity(constraints):
    """Shannon's capacity of the set in bit/nt: what ``limit(constraints, L) / L`` tends to as L grows.

    It is log2 of the greatest eigenvalue of the automaton's transfer matrix (Perron and Frobenius; Marcus, Roth
    and Siegel, "Constrained systems and coding for recording channels", 1998), found by power iteration
    to PRECISION, for periodic and reducible automata too. A band for the GC share of the whole strand costs nothing
    where it holds the share that the other rules lead to (one half for `strand`). Where it does not, the
    capacity is the least of log2 growth(t) - share * t over tilts t, each G or C counting 2^t times and ``share``
    being the band's edge (Cramer). Lengths at which the band holds no whole number of bases are left out of that limit.
    Raises ConstraintError, with the reason, when the set is contradictory or allows no long strands.
    """
    c = constraints
    automaton = constraint_sets.build(dataclasses.replace(c, strand_gc=None), SETTLED)
    reached = tables.positions(automaton, SETTLED)
    # a periodic automaton alternates between sets of states: then all are kept
    settled = c.strand_gc is None and reached[-1] is reached[-2]
    states = reached[-1] if settled else np.arange(automaton.states)
    columns = _columns(automaton.next[states], states, automaton.states)
    lawful = np.ones(columns.shape[1], bool)
    if c.strand_gc is not None:
        columns = _with_gc_class(columns)
        first_class = c.left[-1:].upper() in ("C", "G")
        # a state that knows its last base is real with one class only
        lawful = _ahead(columns, 2 * automaton.start + first_class, np.ones(columns.shape[1], bool))
    classes = _recurrent(columns, lawful)
    if not classes:
        raise ConstraintError(f"no strand of unlimited length obeys {c.describe()}: its capacity is 0")
    parts = []
    for members in classes:
        place = np.full(columns.shape[1] + 1, len(members), np.int32)
        place[members] = np.arange(len(members))
        parts.append((place[columns[:, members]], members % 2))
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


def _columns(after, following, states):
    """int32[4, n]: next states as positions in ``following``; len(following) where forbidden."""
    place = np.full(states + 1, len(following), np.int32)
    place[following] = np.arange(len(following), dtype=np.int32)
    place[-1] = len(following)
    return np.ascontiguousarray(place[after].T)


def _over_bases(values, columns):
    """Sum of the next states' values over the four differences."""
    extended = np.append(values, 0.0)
    return ((extended[columns[0]] + extended[columns[1]]) + extended[columns[2]]) + extended[columns[3]]


def _with_gc_class(columns):
    """Each state twice: 2 * state + 1 after G or C, 2 * state after A or T."""
    count = columns.shape[1]
    both = 2 * columns[:, :, None] + (np.arange(2)[None, None, :] ^ GC[:, None, None])
    return np.where(columns[:, :, None] == count, 2 * count, both).reshape(4, 2 * count).astype(np.int32)


def _ahead(columns, seed, allowed):
    """bool[n]: the allowed states that can be reached from ``seed``, itself among them."""
    allowed = np.append(allowed, False)
    seen = np.zeros(len(allowed), bool)
    frontier = np.array([seed])
    while len(frontier):
        seen[frontier] = True
        after = np.unique(columns[:, frontier])
        frontier = after[allowed[after] & ~seen[after]]
    return seen[:-1]


def _recurrent(columns, lawful):
    """Classes of lawful states that reach each other: list of int arrays (strongly connected, with a cycle)."""
    count = columns.shape[1]
    left = np.append(lawful, False)
    classes = []
    while True:
        while True:  # states before or after which nothing is left are in no cycle
            entered = np.zeros(count + 1, bool)
            entered[columns[:, left[:-1]]] = True
            kept = left[:-1] & entered[:-1] & left[columns].any(axis=0)
            if kept.sum() == left.sum():
                break
            left[:-1] = kept
        if not left.any():
            return classes
        seed = int(np.argmax(left))
        behind = np.zeros(count + 1, bool)
        behind[seed] = grown = True
        while grown:
            before = left[:-1] & ~behind[:-1] & behind[columns].any(axis=0)
            behind[:-1] |= before
            grown = before.any()
        members = np.flatnonzero(_ahead(columns, seed, left[:-1]) & behind[:-1])
        if len(members) > 1 or (columns[:, seed] == seed).any():
            classes.append(members)
        left[members] = False


def _growth(columns, weights=None):
    """Greatest eigenvalue of an irreducible transfer matrix, whose state s counts ``weights[s]`` times on entry.

    Half the identity is added: it breaks every period. The ratios of one step bracket the eigenvalue (Collatz
    and Wielandt).
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


def _least(function):
    """Least value of a convex function on [-STEEPEST, STEEPEST], at 0 first, then by golden section."""
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
