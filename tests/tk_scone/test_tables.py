"""Tables: their sums, the proof of K against every strand of small lengths, golden hashes, and the cache."""

import itertools
import logging
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.arithmetic import TOTAL
from helix_jax.reference import kernels
from helix_jax.strands import checker
from helix_jax.tk_scone import constraints as sets
from helix_jax.tk_scone import tables
from helix_jax.tk_scone.constraints import NAMED, Constraints

SMALL = {
    "runs": Constraints(longest_run=2),
    "window": Constraints(longest_run=2, window=4, window_gc=(0.25, 0.75)),
    "lopsided": Constraints(longest_run=3, window=5, window_gc=(0.2, 0.6)),
    "tight": Constraints(longest_run=1, window=2, window_gc=(0.5, 0.5)),
    "balance": Constraints(longest_run=3, balance=2),
    "strand": Constraints(longest_run=2, strand_gc=(0.4, 0.6)),
    "motifs": Constraints(longest_run=3, motifs=("GAT", "CC")),
    "primers": Constraints(longest_run=2, window=4, window_gc=(0.25, 0.75), left="ACGG", right="TTCA"),
    "everything": Constraints("all", 2, 6, (0.3, 0.7), (0.4, 0.6), 4, ("GTA", "AAC"), "CTG", "GA"),
}

# K and the first 16 hex digits of the hash: a difference here means that old pools cannot be read
GOLDEN = {
    ("helix", 150): (287, "b60e76e3d532c735"),
    ("strict", 150): (271, "ae08a8b6baeaae12"),
    ("strand", 150): (297, "45b12574dda4162f"),
    ("goldman", 150): (238, "8498956e493ff967"),
    ("wide", 150): (290, "e35a7f5ac08ba84b"),
}

# log2 of the number of strands, from `python -m eval.density` (exact integers)
LIMIT = {
    ("helix", 150): 288.13, ("helix", 200): 383.85, ("strict", 150): 272.15, ("strict", 200): 362.04,
    ("strand", 150): 297.09, ("strand", 200): 396.35, ("goldman", 150): 238.16, ("goldman", 200): 317.41,
    ("wide", 150): 290.92, ("wide", 200): 387.77,
}  # fmt: skip


def spied(monkeypatch):
    """Build with the proof's Bound returned beside the tables."""
    bounds = []
    true = tables.widest_interval
    monkeypatch.setattr(tables, "widest_interval", lambda *args: bounds.append(true(*args)) or bounds[-1])

    def build(constraints, length):
        return tables.build(constraints, length), bounds[-1]

    return build


def every_interval(table):
    """Every allowed strand of a small length, in the coder's order, with its interval as a pair of fractions."""
    model = kernels.strand_model(table)
    for steps in itertools.product(range(4), repeat=table.length):
        low, width, places = kernels.interval(model, steps)
        if width:
            bases = np.bitwise_xor.accumulate(np.array([table.first_base, *steps], np.uint8))[1:]
            yield bases, Fraction(low, 1 << places), Fraction(width, 1 << places)


@pytest.mark.parametrize("tail", [2, 8])
@pytest.mark.parametrize("name", SMALL)
def test_bound_against_every_strand(name, tail, monkeypatch):
    """All strands of 6 nt: the intervals tile [0, 1); none is wider than proven; K is not needlessly small.

    With a tail of 2, four of the six positions have stationary weights; with 8 all weights are exact.
    """
    monkeypatch.setattr(tables, "TAIL", tail)
    table, bound = spied(monkeypatch)(SMALL[name], 6)
    assert table.head == (0 if tail == 8 or SMALL[name].positional else 4)
    end, widest, written = Fraction(0), Fraction(0), []
    for bases, low, width in every_interval(table):
        assert low == end
        end += width
        widest = max(widest, width)
        written.append(bases)
    assert end == 1
    proven = Fraction(bound.fraction) * Fraction(2) ** bound.exponent
    assert widest <= proven <= Fraction(1, 1 << table.bits)
    assert proven <= widest * (1 + Fraction(1, 10**6))  # the bound is tight
    assert widest > Fraction(1, 4 << table.bits)  # K + 2 bits cannot fit every payload
    assert checker.check(np.stack(written), SMALL[name]).violations == 0
    every = np.stack(np.meshgrid(*[np.arange(4, dtype=np.uint8)] * 6, indexing="ij"), -1).reshape(-1, 6)
    lawful = sum(checker.check(every[n : n + 1], SMALL[name]).violations == 0 for n in range(0, 4096, 16))
    kept = {tuple(bases) for bases in written}
    # with exact weights every lawful strand has its interval; stationary ones may drop strands that end soon
    reached = sum(tuple(bases) in kept for bases in every[::16].tolist())
    assert reached == lawful if tail == 8 else reached <= lawful


@pytest.mark.parametrize("tail", [2, 8])
@pytest.mark.parametrize("name", SMALL)
def test_every_payload_has_its_strand(name, tail, monkeypatch):
    monkeypatch.setattr(tables, "TAIL", tail)
    table = tables.build(SMALL[name], 6)
    strands = [kernels.write_strand(table, payload) for payload in range(1 << table.bits)]
    assert [kernels.read_strand(table, s) for s in strands] == [(p, True) for p in range(1 << table.bits)]
    assert checker.check(np.stack(strands), SMALL[name]).violations == 0


@pytest.mark.parametrize("name", NAMED)
def test_rows_on_every_path(name, tables_of):
    """Walk all paths at once, from the start to the last base: sums are exact; a base has counts if and only
    if it is allowed and the strand can go on after it."""
    table = tables_of(name, 150)
    counts, following = raw_counts(table.rows)
    automaton = sets.build(NAMED[name], 150)
    levels = tables._tail_levels(automaton, tables.positions(automaton, 150), 150 - table.head)
    endless = np.append(np.ones(automaton.states, bool), False)  # states that can go on for ever
    while (endless[:-1] != endless[automaton.next].any(axis=1)).any():
        endless[:-1] = endless[automaton.next].any(axis=1)
    rows = np.array([table.start])
    settled = False
    for i in range(table.length):
        if settled and i + 1 < table.head:
            continue  # the same rows as at the position before
        assert (counts[rows].sum(axis=1) == TOTAL).all()
        assert (counts[rows] >= 0).all()
        if i < table.head:
            np.testing.assert_array_equal(counts[rows] >= 1, endless[automaton.next[rows]])
        else:
            level = levels[150 - i]
            first = rows_of_level(table, levels, 150 - i)
            alive = levels[150 - i - 1].count[level.next[rows - first]] > 0
            np.testing.assert_array_equal(counts[rows] >= 1, alive)
        mark = np.zeros(len(table.rows), bool)
        mark[following[rows][counts[rows] > 0]] = True
        after = np.flatnonzero(mark)
        settled = np.array_equal(after, rows)
        rows = after
        if i + 1 == table.head:
            rows = np.unique(table.joint[rows])


def raw_counts(rows):
    """Counts and next rows as the coder reads them, apart from ``tables.unpack``."""
    c1, c2, c3 = rows[:, 0] & 0xFFFF, rows[:, 0] >> 16, rows[:, 1]
    edges = np.stack([0 * c1, c1, c2, c3, 0 * c1 + TOTAL], axis=1).astype(np.int64)
    return np.diff(edges, axis=1), rows[:, 2:6].astype(np.int64)


def rows_of_level(table, levels, j):
    """First row of the level j bases before the end: levels stand in the table from the farthest to the nearest."""
    return len(table.rows) - sum(len(level.count) for level in levels[1 : j + 1])


@pytest.mark.parametrize(("name", "length"), GOLDEN)
def test_golden(name, length, tables_of):
    table = tables_of(name, length)
    assert (table.bits, table.digest.hex()[:16]) == GOLDEN[name, length]


@pytest.mark.parametrize(("name", "length"), LIMIT)
def test_payload_against_the_limit(name, length, tables_of):
    """At least 99.5 % of the exact limit of the set's own language, and never above it."""
    bits = tables_of(name, length).bits
    targets = {("helix", 150): 287, ("helix", 200): 382, ("strict", 150): 271, ("strict", 200): 361}
    assert bits >= targets.get((name, length), 0)
    assert 0.995 * LIMIT[name, length] <= bits <= LIMIT[name, length]


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1 / 3, 0.5, 1.0, 2.0**60])] * 4), min_size=1))
def test_counts_of(weights):
    """The sum is exact, allowed bases keep a count, forbidden ones have none, and shares are met to within 4 counts."""
    weights = np.array(weights)
    counts = tables.counts_of(weights)
    some = weights.sum(axis=1) > 0
    assert (counts.sum(axis=1) == np.where(some, TOTAL, 0)).all()
    assert ((counts > 0) == (weights > 0)).all()
    share = weights / np.where(some, weights.sum(axis=1), 1)[:, None] * TOTAL
    assert (np.abs(counts - share) <= 4).all()


def test_unpack_inverts_the_packed_rows():
    """The last row is that of a last base which may only be difference 3: its cumulative counts and next rows are 0."""
    counts = np.array([[TOTAL, 0, 0, 0], [0, TOTAL, 0, 0], [1, 2, 3, TOTAL - 6], [0, 0, 0, TOTAL]])
    after = np.array([[1, 0, 0, 0], [0, 2, 0, 0], [1, 2, 3, 0], [0, 0, 0, 0]])
    got, following = tables.unpack(tables._pack(counts, after))
    np.testing.assert_array_equal(got, counts)
    np.testing.assert_array_equal(following, after)


# ---- the cache ------------------------------------------------------------------------------------

CACHED = Constraints(longest_run=2, balance=3)


def same(a, b):
    assert a.digest == b.digest
    assert a.bits == b.bits
    assert (a.head, a.length, a.start, a.first_base) == (b.head, b.length, b.start, b.first_base)
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.joint, b.joint)


def test_cache_gives_the_same_tables(own_cache, monkeypatch):
    first = tables.load(CACHED, 40)
    assert len(list(own_cache.rglob("tables-*.npz"))) == 1
    monkeypatch.setattr(tables, "build", None)  # a second load must not build
    same(tables.load(CACHED, 40), first)


def test_other_length_or_set_is_another_file(own_cache):
    tables.load(CACHED, 40)
    assert tables.load(CACHED, 41).length == 41
    assert tables.load(Constraints(longest_run=2, balance=4), 40).bits > tables.load(CACHED, 40).bits
    assert len(list(own_cache.rglob("tables-*.npz"))) == 3


def flip(blob, at):
    return blob[:at] + bytes([blob[at] ^ 0x10]) + blob[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    {
        "empty": lambda blob: b"",
        "truncated": lambda blob: blob[: len(blob) // 2],
        "other": lambda blob: b"not a table at all",
        "first byte": lambda blob: flip(blob, 0),
        "in the rows": lambda blob: flip(blob, 400),
        "in a name": lambda blob: flip(blob, blob.rindex(b"rows")),
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_cache_is_rebuilt(damage, own_cache):
    first = tables.load(CACHED, 40)
    [path] = own_cache.rglob("tables-*.npz")
    path.write_bytes(damage[1](path.read_bytes()))
    same(tables.load(CACHED, 40), first)
    same(tables.load(CACHED, 40), first)


def test_altered_rows_are_noticed(own_cache, caplog):
    """A well-formed file with one count changed: only the hash can tell."""
    first = tables.load(CACHED, 40)
    [path] = own_cache.rglob("tables-*.npz")
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["rows"][3, 0] += 1
    np.savez(path, **arrays)
    with caplog.at_level(logging.WARNING):
        same(tables.load(CACHED, 40), first)
    assert "damaged" in caplog.text


def test_unwritable_cache_still_gives_tables(own_cache):
    (own_cache / "helix_jax").write_text("a file where the folder should be")
    assert tables.load(CACHED, 40).bits > 0


def test_bits_grow_with_the_capacity():
    """Long strands approach the capacity from below: the error of 15-bit counts is small."""
    bits = [tables.build(Constraints(longest_run=1), length).bits for length in (500, 1000)]
    assert (bits[1] - bits[0]) / 500 == pytest.approx(math.log2(3), abs=3e-3)
