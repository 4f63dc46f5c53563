"""Constraint automata over {A, C, G, T}, composed from parts, as integer tables.

The symbols are *differences*: x = base XOR previous base, with A, C, G, T = 0, 1, 2, 3. XOR with a constant permutes
the bases in a way that keeps runs (x = 0) and, for the constant 3 (the complement), every GC content too. Runs and GC
windows therefore need not know which base came last, and their automata are up to four times smaller than automata
over bases. Parts that must know the last base (motifs, and the fixed context on the right) carry it themselves.

A part is an ``Automaton``, and ``product`` intersects two of them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Integer

from helix_jax.errors import HelixError

A, C, G, T = range(4)
BASES = "ACGT"

# The GC class of a base, and of a difference: gc(prev ^ x) = gc(prev) ^ gc(x).
GC = np.array([0, 1, 1, 0], np.int64)

# A product automaton may have this many pairs of states before it is trimmed, which takes 256 MiB of marks.
LARGEST_PRODUCT = 1 << 28


class ConstraintError(HelixError):
    """The constraint set cannot be met, or its automaton is too large to be built."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton over differences.

    Attributes:
        next: State after each difference; -1 where the difference is forbidden.
        start: State before the first base.
        accept: Whether a strand may end in each state.
    """

    next: Int32[np.ndarray, "S 4"]
    start: int
    accept: Bool[np.ndarray, " S"]

    @property
    def states(self) -> int:
        """The number of states."""
        return len(self.next)

    def walk(
        self, states: Int[np.ndarray, " n"], bases: Iterable[int | np.integer], previous: int | np.integer
    ) -> Int[np.ndarray, " n"]:
        """Return the states reached by writing bases from each of the given states.

        Args:
            states: Where to begin; -1 stays -1.
            bases: The bases to write.
            previous: The base before the first of them.

        Returns:
            One state for each beginning, -1 where the bases are forbidden.
        """
        table = np.concatenate([self.next, np.full((1, 4), -1, np.int32)])
        for base in bases:
            states = table[states, base ^ previous]
            previous = base
        return states


def _all_accepting(table, start):
    return Automaton(table.astype(np.int32), start, np.ones(len(table), bool))


def run_limit(longest: int) -> Automaton:
    """Allow homopolymer runs of at most ``longest`` bases.

    The state is the length of the current run, which is 0 before the first base.
    """
    table = np.ones((longest + 1, 4), np.int64)
    table[1:, 0] = np.arange(2, longest + 2)
    table[longest, 0] = -1
    return _all_accepting(table, 0)


def gc_window(length: int, low: int, high: int) -> Automaton:
    """Require that every window of ``length`` bases inside the strand holds ``low`` to ``high`` of G or C.

    The state holds the GC classes of the last length - 1 bases (fewer near the start) behind a marker bit. When the
    band is symmetric, only their relation to the newest class matters, which halves the number of states.

    Args:
        length: Bases in a window, 2 to 24.
        low: The fewest G or C that a window may hold.
        high: The most G or C that a window may hold.

    Returns:
        The automaton, all of whose states accept.

    Raises:
        ConstraintError: If the band is empty, or the window too short or too long.
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
    # The history is a marker bit, then one GC bit per base, the newest last; 1 means that nothing is written yet.
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


def gc_balance(bound: int, first_class: int = 0) -> Automaton:
    """Keep the count of G + C minus that of A + T, from the start to any base, in [-bound, bound].

    A window's imbalance is a difference of two such counts, so it is at most 2 * bound: every window of any length w
    holds w / 2 +- bound of G + C. This is a sufficient condition with 4 * bound + 2 states, where the window itself
    would need 2^(w - 1). The state is 2 * (imbalance + bound) + class of the last base; ``first_class`` is the class of
    the base before the start.
    """
    imbalance, last = np.divmod(np.arange(2 * (2 * bound + 1)), 2)
    columns = []
    for x in range(4):
        bit = last ^ GC[x]
        after = imbalance + 2 * bit - 1
        columns.append(np.where((after < 0) | (after > 2 * bound), -1, 2 * after + bit))
    return _all_accepting(np.stack(columns, axis=1), 2 * bound + first_class)


def strand_gc(length: int, low: int, high: int, first_class: int) -> Automaton:
    """Require that the whole strand holds ``low`` to ``high`` of G or C.

    The state is 2 * count + class of the last base.

    Args:
        length: Bases in the strand, for the error message.
        low: The fewest G or C that the strand may hold.
        high: The most G or C that the strand may hold.
        first_class: GC class of the base before the strand.

    Returns:
        The automaton, which accepts the states that have counted at least ``low``.

    Raises:
        ConstraintError: If the band is empty.
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


def last_base() -> Automaton:
    """Allow everything; the state is the last base, which is A before the first."""
    return _all_accepting(np.arange(4)[:, None] ^ np.arange(4)[None, :], A)


def reverse_complement(bases: Iterable[int | np.integer]) -> Integer[np.ndarray, " n"]:
    """Return the reverse complement of a word of bases."""
    return 3 - np.array([*bases], np.int64)[::-1]


def forbid(motifs: Iterable[Iterable[int | np.integer]]) -> Automaton:
    """Forbid the motifs and their reverse complements (an Aho-Corasick automaton).

    ``motifs`` are sequences of bases. The state is 4 * trie node + last base.
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


def product(a: Automaton, b: Automaton) -> Automaton:
    """Return the automaton of the strands that both allow, trimmed to the states that can be reached."""
    size = a.states * b.states
    if size > LARGEST_PRODUCT:
        raise ConstraintError(
            f"the constraints need an automaton of {a.states} x {b.states} states: use a shorter window or fewer motifs"
        )
    seen, new_mark = np.zeros(size, bool), np.zeros(size, bool)
    frontier = np.array([a.start * b.states + b.start], np.int64)
    seen[frontier] = True
    while len(frontier):
        left, right = np.divmod(frontier, b.states)
        following = _pair(a.next[left], b.next[right], b.states)
        fresh = following[(following >= 0) & ~seen[following]]
        seen[fresh] = new_mark[fresh] = True
        frontier = np.flatnonzero(new_mark)
        new_mark[frontier] = False
    codes = np.flatnonzero(seen)
    number = np.cumsum(seen, dtype=np.int32) - 1
    left, right = np.divmod(codes, b.states)
    following = _pair(a.next[left], b.next[right], b.states)
    table = np.where(following >= 0, number[following], -1).astype(np.int32)
    start = int(number[a.start * b.states + b.start])
    return Automaton(table, start, a.accept[left] & b.accept[right])


def _pair(left, right, width):
    """Number pairs of next states; -1 where either is forbidden."""
    both = left.astype(np.int64) * width + right
    return np.where((left < 0) | (right < 0), -1, both)
