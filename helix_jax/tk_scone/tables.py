"""Integer tables of the constrained coder, and the proof of how many bits a strand carries.

A strand has a head and a tail. All but the last bases of a strand are coded with stationary max-entropic (Parry)
weights: base b is chosen in proportion to the number of ways to go on after it. For the last ``tail`` bases (all of
them when the rules depend on the position) the weights are the exact numbers of ways to finish the strand, on the
minimal automaton of what is still allowed: states with the same future are merged, so these tables are small.

Every float here is an IEEE float64 computed element by element in a fixed order (no BLAS, no log, no exp) and scaled by
powers of two, so the tables are bit-identical on every machine. Their SHA-256 is in the pool's header.
"""

import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, UInt32

from helix_jax import cache, files
from helix_jax.arithmetic import TOTAL
from helix_jax.tk_scone import constraints as constraint_sets
from helix_jax.tk_scone.automaton import Automaton, ConstraintError
from helix_jax.tk_scone.constraints import Constraints

FORMAT = 1  # part of the tables' hash: raise it when their computation changes
STORED = 2  # part of the cache key: raise it when the form of the cached file changes
USED = 6  # columns of ``rows`` that are in use; the cache keeps these
LONGEST_POWER = 512  # the most steps of the power iteration for the stationary weights
TAIL = 8  # bases at the end with exact weights
LARGEST_TAIL = 1 << 22


@dataclass(frozen=True, eq=False)
class Tables:
    """What the coder needs for one constraint set and one strand length.

    Attributes:
        rows: One row per state: [c1 | c2 << 16, c3, next0, next1, next2, next3, 0, 0], where c are the inner cumulative
            counts (out of 2^15) of the differences 0..3, and next the rows after them.
        joint: Row of the tail for each row of the head (the identity is never used: head states only).
        head: Number of bases coded with head rows.
        length: Bases per strand (L).
        start: The first row.
        first_base: The base before the strand (0 without a primer).
        bits: Payload bits that every strand carries (K), proven for every payload.
        digest: SHA-256 over all of the above but ``bits``.
    """

    rows: UInt32[np.ndarray, "R 8"]
    joint: Int32[np.ndarray, " S"]
    head: int
    length: int
    start: int
    first_base: int
    bits: int
    digest: bytes


def load(constraints: Constraints, length: int) -> Tables:
    """Return the tables for strands of ``length`` bases from the user's cache, or build them (which takes about 2 s).

    Sets that differ only in how they are written (``Constraints.canonical``) have the same tables. Raises
    ConstraintError, with the reason, when the set cannot be met at this length.
    """
    path = cached(constraints, "tables", FORMAT, STORED, length)
    try:
        with open(path, "rb") as source, np.load(source) as stored:
            head, _, start, first_base, bits = (int(n) for n in stored["numbers"])
            columns, joint = stored["rows"], stored["joint"]
            rows = np.zeros((len(columns), 8), np.uint32)
            rows[:, :USED] = columns
            digest = _digest(rows, joint, head, length, start, first_base)
            if digest == stored["digest"].tobytes():
                cache.touch(path)
                return Tables(rows, joint, head, length, start, first_base, bits, digest)
            logging.warning("%s is damaged: building the tables again", path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # it is not cached yet, or cannot be read: build the tables
    tables = build(constraints, length)
    keep(
        path,
        rows=tables.rows[:, :USED],
        joint=tables.joint,
        numbers=np.array([tables.head, length, tables.start, tables.first_base, tables.bits]),
        digest=np.frombuffer(tables.digest, np.uint8),
    )
    cache.trim(cache.TABLES, keep=path)
    return tables


def cached(constraints: Constraints, what: str, *more: int) -> Path:
    """Return the path in the user's cache of a result for a constraint set.

    Args:
        constraints: The set.
        what: The kind of the result.
        *more: Numbers that tell it from other results of that kind.

    Returns:
        The path, whether a file is there or not.

    Raises:
        ConstraintError: For words that hold letters other than A, C, G, T.
    """
    key = hashlib.sha256(repr((*more, constraints.canonical)).encode()).hexdigest()[:32]
    return cache.folder() / f"{what}-{key}.npz"


def keep(path: Path, **arrays: np.ndarray | np.generic) -> None:
    """Write a file of the user's cache; a failure is only logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(path) as temporary, open(temporary, "wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
    except OSError as error:
        logging.info("%s is not kept: %s", path, error)


def _digest(rows, joint, head, length, start, first_base):
    blob = hashlib.sha256(repr((FORMAT, head, length, start, first_base)).encode())
    blob.update(np.ascontiguousarray(rows, "<u4").data)  # no copy: the tables may take hundreds of megabytes
    blob.update(np.ascontiguousarray(joint, "<i4").data)
    return blob.digest()


def build(constraints: Constraints, length: int) -> Tables:
    """Build the tables and prove ``bits`` (see the module's docstring).

    Raises ConstraintError, with the reason, when the set cannot be met at this length.
    """
    automaton = constraint_sets.build(constraints, length)
    reached = positions(automaton, length)
    if not len(reached[-1]):
        raise ConstraintError(f"no strand of {length} nt obeys {constraints.describe()}: use another length or set")
    tail = length if constraints.positional else min(TAIL, length)
    while True:
        head = length - tail
        levels = _tail_levels(automaton, reached, tail)
        finish = levels[-1].count[levels[-1].state_class] > 0
        if not levels[-1].count.any():
            raise ConstraintError(f"no strand of {length} nt obeys {constraints.describe()}: use another length or set")
        ways = _stationary_ways(automaton, reached, head, finish)
        if not head or ways[automaton.start] > 0:
            break
        tail = min(2 * tail, length)
    rows, joint = _assemble(automaton, levels, ways, head)
    left = constraints.left.upper()
    first_base = int(constraint_sets.to_bases(left, "left primer")[-1]) if left else 0
    start = automaton.start if head else int(joint[automaton.start])
    bits = -widest_interval(rows, automaton, reached[: head + 1], levels).exponent  # width <= 2^exponent
    if bits < 1:
        raise ConstraintError(
            f"a strand of {length} nt under {constraints.describe()} carries no bit: use a longer one"
        )
    return Tables(
        rows, joint, head, length, start, first_base, bits, _digest(rows, joint, head, length, start, first_base)
    )


def positions(automaton: Automaton, length: int) -> list[Int[np.ndarray, " _"]]:
    """Return the states that can occur after 0, 1, ..., length bases.

    Once the states no longer change, the entries are one and the same array.
    """
    reached = [np.array([automaton.start])]
    for _ in range(length):
        seen = np.zeros(automaton.states + 1, bool)
        seen[automaton.next[reached[-1]]] = True  # -1 marks the extra last entry
        following = np.flatnonzero(seen[:-1])
        if np.array_equal(following, reached[-1]):
            return reached + [reached[-1]] * (length + 1 - len(reached))
        reached.append(following)
    return reached


@dataclass(frozen=True, eq=False)
class _Level:
    """Classes of states with the same future, ``j`` bases before the end.

    Attributes:
        state_class: Class of each state (0: it cannot finish, or is not reached here).
        count: Number of ways to finish from each class, over a power of two common to the level.
        next: The classes one level nearer the end.
    """

    state_class: Int64[np.ndarray, " S"]
    count: Float64[np.ndarray, " n"]
    next: Int64[np.ndarray, "n 4"]


def _tail_levels(automaton: Automaton, reached: list[Int[np.ndarray, " _"]], tail: int) -> list[_Level]:
    """Return the levels from 0 (the end) to ``tail``. Class 0 of each level is the dead one, whose count is 0."""
    length = len(reached) - 1
    levels = [_Level(automaton.accept.astype(np.int64), np.array([0.0, 1.0]), np.zeros((2, 4), np.int64))]
    total = 0
    for j in range(1, tail + 1):
        below = levels[-1]
        states = reached[length - j]
        after = automaton.next[states]
        keys = np.where(after >= 0, below.state_class[after], 0)
        # Each row of four classes gets one number, in two steps so that it stays below 2^63.
        base = len(below.count)
        left, lefts = _number(keys[:, 0] * base + keys[:, 1], base * base)
        right, rights = _number(keys[:, 2] * base + keys[:, 3], base * base)
        both, classes = _number(left * rights + right, lefts * rights)
        # Class 0 is the dead one: the row of four dead classes is in every level, whether it occurs or not.
        alive = keys.any(axis=1)
        inverse = np.where(alive, both + 1, 0)
        rows = np.zeros((classes + 1, 4), np.int64)
        rows[inverse] = keys
        count = _sum4(below.count[rows].T)
        state_class = np.zeros(automaton.states, np.int64)
        state_class[states] = inverse
        levels.append(_Level(state_class, count * 2.0 ** -_exponent(count), rows))
        total += len(rows)
        if total > LARGEST_TAIL:
            raise ConstraintError(
                f"the exact tables need more than {LARGEST_TAIL} rows: "
                "use shorter strands, or drop the window or the strand's GC"
            )
    return levels


def _number(values, size):
    """Number the distinct values (0 <= value < size) in order: (number of each value, count of distinct values)."""
    if size > 1 << 26:
        distinct, number = np.unique(values, return_inverse=True)
        return number, len(distinct)
    seen = np.zeros(size, bool)
    seen[values] = True
    number = np.cumsum(seen) - 1
    return number[values], int(number[-1]) + 1


def _stationary_ways(automaton, reached, head, finish):
    """Return the ways to go on for ever from each state, up to a factor (Perron vector): float64[S + 1], ending in 0.

    A state that cannot finish from the joint (``finish``; a right primer may cause that) would be a trap there. It is
    avoided all along the head, so that the same weights serve every position.
    """
    ways = np.zeros(automaton.states + 1)
    if not head:
        return ways
    stationary = reached[head - 1] is reached[head]
    core = reached[head] if stationary else np.arange(automaton.states)
    columns = _columns(automaton, core, core)
    safe = np.ones(automaton.states, bool)
    safe[reached[head]] = finish[reached[head]]
    alive = np.append(safe[core], False)
    while True:  # states that cannot go on for ever have no ways
        after = alive[columns].any(axis=0) & alive[:-1]
        if np.array_equal(after, alive[:-1]):
            break
        alive[:-1] = after
    vector, dead = alive.astype(np.float64), np.flatnonzero(~alive[:-1])
    growth = 2.0
    for step in range(LONGEST_POWER):
        new = _sum4(vector[columns])
        new[dead] = 0.0
        if step % 16 == 15 and alive.any():
            ratio = new[alive[:-1]] / vector[:-1][alive[:-1]]
            growth = float(ratio.max())
            if growth < 1.0001 * ratio.min():
                break
        vector[:-1] = new * 2.0 ** -_exponent(new)
    ways[core] = vector[:-1]
    outside = np.append(np.ones(automaton.states, bool), False)
    outside[core] = False
    for states in reversed(reached[:head]):  # the first positions, where fewer bases are remembered
        early = states[outside[states]]
        if len(early):
            ways[early] = _sum4(ways[automaton.next[early].T]) / growth
    return ways


def _columns(automaton, states, following):
    """Return the next states of ``states`` as indices into ``following``; len(following) where they are forbidden."""
    index = np.full(automaton.states + 1, len(following), np.int32)
    index[following] = np.arange(len(following), dtype=np.int32)
    index[-1] = len(following)
    return np.ascontiguousarray(index[automaton.next[states]].T)


def _sum4(columns):
    return ((columns[0] + columns[1]) + columns[2]) + columns[3]


def _exponent(values):
    return int(np.frexp(values.max())[1])


def counts_of(weights: Float64[np.ndarray, "n 4"]) -> Int64[np.ndarray, "n 4"]:
    """Turn each row of weights into integer counts with the sum TOTAL by the method of the largest remainder.

    Every positive weight keeps at least one count, and a zero weight gets none. A row of zeros stays zero.
    """
    columns = np.ascontiguousarray(weights.T)
    total = _sum4(columns)
    share = columns / np.where(total > 0, total, 1.0) * TOTAL
    counts = np.where(columns > 0, np.maximum(np.floor(share), 1.0), 0.0)
    missing = np.where(total > 0, TOTAL - _sum4(counts), 0.0)
    remainder = np.where(columns > 0, share - counts, -2.0)
    for n in range(4):  # the `missing` largest remainders get one more count each; ties go to the first
        larger = sum(
            (remainder[m] >= remainder[n]) if m < n else (remainder[m] > remainder[n]) for m in range(4) if m != n
        )
        counts[n] += larger < missing
    largest = np.argmax(counts, axis=0)
    counts[largest, np.arange(counts.shape[1])] += np.minimum(missing, 0.0)
    return counts.T.astype(np.int64)


def _assemble(automaton, levels, ways, head):
    """Return the rows of the head (one per state), then of the tail, level by level, and the joint between them."""
    blocks = []
    size = 0
    if head:
        blocks.append(_pack(counts_of(ways[automaton.next]), np.maximum(automaton.next, 0)))
        size = automaton.states
    starts = {}
    for j in range(len(levels) - 1, 0, -1):
        starts[j] = size
        size += len(levels[j].count)
    starts[0] = 0  # after the last base the row is not used
    for j in range(len(levels) - 1, 0, -1):
        weights = levels[j - 1].count[levels[j].next]
        after = levels[j].next + starts[j - 1] if j > 1 else np.zeros_like(levels[j].next)
        blocks.append(_pack(counts_of(weights), after))
    joint = levels[-1].state_class + starts[len(levels) - 1]
    return np.concatenate(blocks), joint.astype(np.int32)


def _pack(counts, after):
    cumulative = np.cumsum(counts, axis=1).astype(np.uint32)
    rows = np.zeros((len(counts), 8), np.uint32)
    rows[:, 0] = cumulative[:, 0] | (cumulative[:, 1] << 16)
    rows[:, 1] = cumulative[:, 2]
    rows[:, 2:6] = after
    return rows


def unpack(rows: UInt32[np.ndarray, "n 8"]) -> tuple[Int64[np.ndarray, "n 4"], Int64[np.ndarray, "n 4"]]:
    """Return the counts and the next rows that the rows hold.

    A dead row, which no path enters, cannot be told from one that allows difference 3 alone, and reads as such a row.
    """
    c1, c2, c3 = rows[:, 0] & 0xFFFF, rows[:, 0] >> 16, rows[:, 1]
    edges = np.stack([np.zeros_like(c1), c1, c2, c3, np.full_like(c1, TOTAL)], axis=1).astype(np.int64)
    return np.diff(edges, axis=1), rows[:, 2:6].astype(np.int64)


@dataclass(frozen=True)
class Bound:
    """A width of at most ``fraction`` * 2^``exponent``, fraction in (0.5, 1]."""

    fraction: float
    exponent: int


def widest_interval(
    rows: UInt32[np.ndarray, "R 8"],
    automaton: Automaton,
    reached: list[Int[np.ndarray, " _"]],
    levels: list[_Level],
) -> Bound:
    """Return an upper bound on the width of the coder's interval over *all* strands.

    One step narrows ``range`` r >= 2^31 to at most r * w / TOTAL + 1 (both ends are rounded down), that is by a factor
    of at most w / TOTAL + 2^-31. The greatest product of these factors over all paths is found from the end backwards;
    every product is inflated by 2^-50 to cover float64 rounding.

    Args:
        rows: The rows of the tables.
        automaton: The automaton of the head.
        reached: The states possible at each position of the head, and at the joint.
        levels: The levels of the tail.

    Returns:
        The bound.
    """
    widest, exponent = np.where(levels[0].count > 0, 1.0, 0.0), 0
    end = len(rows)
    for level in levels[1:]:
        counts, _ = unpack(rows[end - len(level.count) : end])
        end -= len(level.count)
        widest, exponent = _step(_factors(counts), widest[level.next.T], exponent)
    widest = np.append(widest[levels[-1].state_class[reached[-1]]], 0.0)
    columns = factors = None
    for i in range(len(reached) - 2, -1, -1):
        if columns is None or reached[i] is not reached[i + 1] or reached[i + 1] is not reached[i + 2]:
            columns = _columns(automaton, reached[i], reached[i + 1])
            factors = _factors(unpack(rows[reached[i]])[0])
        widest, exponent = _step(factors, widest[columns], exponent)
        widest = np.append(widest, 0.0)
    fraction, shift = np.frexp(widest[0])
    return Bound(float(fraction), exponent + int(shift))


def _factors(counts):
    return np.ascontiguousarray(np.where(counts > 0, counts / TOTAL + 2.0**-31, 0.0).T)


def _step(factors, after, exponent):
    """Return the greatest factor * after over the four symbols, over a power of two, and the new exponent."""
    reach = factors * after
    widest = np.maximum(np.maximum(reach[0], reach[1]), np.maximum(reach[2], reach[3])) * (1 + 2.0**-50)
    shift = _exponent(widest)
    return widest * 2.0**-shift, exponent + shift
