"""Constraint automata over {A, C, G, T}, composed from parts, as integer tables.

Symbols are *differences*: x = base XOR previous base, with A, C, G, T = 0, 1, 2, 3. XOR with a constant
permutes the bases in a way that keeps runs (x = 0), and, for the constant 3 (complement), keeps every
GC content too. So runs and GC windows need not know which base came last, and their automata are up to four times
smaller than over bases; parts that must know (motifs, fixed context on the right) carry it themselves.

A part is an ``Automaton``; ``product`` intersects two of them.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from helix_jax.errors import HelixError

A, C, G, T = range(4)
BASES = "ACGT"

# GC class of a base, and of a difference: gc(prev ^ x) = gc(prev) ^ gc(x).
GC = np.array([0, 1, 1, 0], np.int64)

# One product automaton may have this many (state, state) pairs before trimming: 256 MiB of marks.
LARGEST_PRODUCT = 1 << 28


class ConstraintError(HelixError):
    """The constraint set cannot be met, or is too large to be built."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """Deterministic automaton over differences.

    next: int32[S, 4], the state after difference x; -1 where it is forbidden.
    start: state before the first base. accept: bool[S], states a strand may end in.
    """

    next: np.ndarray
    start: int
    accept: np.ndarray

    @property
    def states(self):
        return len(self.next)

    def walk(self, states, bases, previous):
        """States after writing ``bases`` from each of ``states`` (int array; -1 stays -1)."""
        table = np.concatenate([self.next, np.full((1, 4), -1, np.int32)])
        for base in bases:
            states = table[states, base ^ previous]
            previous = base
        return states


def _all_accepting(table, start):
    return Automaton(table.astype(np.int32), start, np.ones(len(table), bool))


def run_limit(longest):
    """Homopolymer runs of at most ``longest``. State: length of the current run, 0 before the first base."""
    table = np.ones((longest + 1, 4), np.int64)
    table[1:, 0] = np.arange(2, longest + 2)
    table[longest, 0] = -1
    return _all_accepting(table, 0)


def gc_window(length, low, high):
    """Every window of ``length`` bases inside the strand holds low..high of G or C.

    State: the GC classes of the last length - 1 bases (fewer near the start) behind a marker bit. When
    the band is symmetric only their relation to the newest class matters, which halves the states.
    """
    if low > high:
        raise ConstraintError(
            f"no whole number of G or C fits the GC band in a window of {length}: widen the band or the window"
        )
    if length > 24:
        raise ConstraintError(f"a GC window of {length} needs 2^{length - 1} states: use at most 24")
    if length == 1:
        raise ConstraintError("a GC window of 1 base fixes its class: use a window of at least 2")
    symmetric = low + high == length
    full_marker = 1 << (length - 1)
    code = np.arange(full_marker if symmetric else 2 * full_marker, dtype=np.int64)
    # history: marker bit, then one GC bit per base, newest last; 1 = nothing written yet
    history = np.where(code == 0, 1, code << 1) if symmetric else np.maximum(code, 1)
    newest = np.where(history > 1, history & 1, 0)
    columns = []
    for x in range(4):
        bit = newest ^ GC[x]
        if symmetric:
            bit = np.where(history > 1, bit, 0)
        after = (history << 1) | bit
        full = after >= 2 * full_marker
        count = np.bitwise_count(after) - 1
        dead = full & ((count < low) | (count > high))
        after = np.where(full, (after & (full_marker - 1)) | full_marker, after)
        if symmetric:
            marker = np.int64(1) << (np.frexp(after.astype(np.float64))[1] - 1)
            after = np.where(bit == 1, (after ^ (marker - 1)), after) >> 1
        columns.append(np.where(dead, -1, after))
    return _all_accepting(np.stack(columns, axis=1), 0 if symmetric else 1)


def gc_balance(bound, first_class=0):
    """Count of G + C minus count of A + T stays in [-bound, bound] from the start to any base.

    A window's imbalance is a difference of two such counts, so it is at most 2 * bound: every window of
    any length w holds w / 2 +- bound of G + C. This is a sufficient condition with 4 * bound + 2 states where
    the window itself would need 2^(w - 1). State: 2 * (imbalance + bound) + class of the last base; ``first_class`` is
    the class of the base before the start.
    """
    imbalance, last = np.divmod(np.arange(2 * (2 * bound + 1)), 2)
    columns = []
    for x in range(4):
        bit = last ^ GC[x]
        after = imbalance + 2 * bit - 1
        columns.append(np.where((after < 0) | (after > 2 * bound), -1, 2 * after + bit))
    return _all_accepting(np.stack(columns, axis=1), 2 * bound + first_class)


def strand_gc(length, low, high, first_class):
    """The whole strand of ``length`` bases holds low..high of G or C.

    State: 2 * count + class of the last base; ``first_class`` is the class of the base before the strand.
    """
    if low > high:
        raise ConstraintError(f"no whole number of G or C fits the strand's GC band at length {length}")
    count, last = np.divmod(np.arange(2 * (high + 1)), 2)
    columns = []
    for x in range(4):
        bit = last ^ GC[x]
        after = count + bit
        columns.append(np.where(after > high, -1, 2 * after + bit))
    return Automaton(np.stack(columns, axis=1).astype(np.int32), int(first_class), count >= low)


def last_base():
    """No constraint; the state is the last base (A before the first)."""
    return _all_accepting(np.arange(4)[:, None] ^ np.arange(4)[None, :], A)


def reverse_complement(bases):
    """uint8[n] -> uint8[n]."""
    return 3 - np.asarray(bases)[::-1]


def forbid(motifs):
    """None of the motifs, nor their reverse complements, occurs (Aho-Corasick).

    motifs: sequences of bases. State: 4 * trie node + last base.
    """
    words = {tuple(int(b) for b in w) for m in motifs for w in (m, reverse_complement(m))}
    goto: list[dict[int, int]] = [{}]
    bad = [False]
    for word in sorted(words):
        node = 0
        for base in word:
            if base not in goto[node]:
                goto[node][base] = len(goto)
                goto.append({})
                bad.append(False)
            node = goto[node][base]
        bad[node] = True
    fail = [0] * len(goto)
    step = np.zeros((len(goto), 4), np.int64)
    queue = deque([0])
    while queue:
        node = queue.popleft()
        for base in range(4):
            child = goto[node].get(base)
            fallback = int(step[fail[node], base]) if node else 0
            if child is None:
                step[node, base] = fallback
                continue
            fail[child] = fallback
            bad[child] = bad[child] or bad[fallback]
            step[node, base] = child
            queue.append(child)
    node, last = np.divmod(np.arange(4 * len(goto)), 4)
    columns = []
    for x in range(4):
        base = last ^ x
        after = step[node, base]
        columns.append(np.where(np.asarray(bad)[after], -1, 4 * after + base))
    return _all_accepting(np.stack(columns, axis=1), A)


def product(a, b):
    """Automaton of the strands that both allow, trimmed to the states that can be reached."""
    size = a.states * b.states
    if size > LARGEST_PRODUCT:
        raise ConstraintError(
            f"the constraints need an automaton of {a.states} x {b.states} states: use a shorter window or fewer motifs"
        )
    seen, mark = np.zeros(size, bool), np.zeros(size, bool)
    frontier = np.array([a.start * b.states + b.start], np.int64)
    seen[frontier] = True
    while len(frontier):
        left, right = np.divmod(frontier, b.states)
        after = _pair(a.next[left], b.next[right], b.states)
        fresh = after[(after >= 0) & ~seen[after]]
        seen[fresh] = mark[fresh] = True
        frontier = np.flatnonzero(mark)
        mark[frontier] = False
    codes = np.flatnonzero(seen)
    number = np.cumsum(seen, dtype=np.int32) - 1
    left, right = np.divmod(codes, b.states)
    after = _pair(a.next[left], b.next[right], b.states)
    table = np.where(after >= 0, number[after], -1).astype(np.int32)
    start = int(number[a.start * b.states + b.start])
    return Automaton(table, start, a.accept[left] & b.accept[right])


def _pair(left, right, width):
    """Pairs of next states as one number, -1 where either is forbidden."""
    both = left.astype(np.int64) * width + right
    return np.where((left < 0) | (right < 0), -1, both)
