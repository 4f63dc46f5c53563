"""State splitting: each step against its definition, and the choice of bits and edges per block."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helix_jax.timing import powers, state_splitting
from helix_jax.timing.graph import TALK, GraphError, ordinary_graph
from helix_jax.timing.state_splitting import SplittingError
from tests.timing.graphs import GOLDEN, TALK_GRAPH, deterministic_graphs, graph_of, run_length_limited


def weights_of(graph, p, q):
    x = powers.approximate_eigenvector(powers.power_matrix(graph, q), 1 << p)
    assert x is not None
    return x


# ---- the steps, each against its definition --------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1, max_size=14), st.integers(1, 9), st.data())
@settings(max_examples=150)
def test_splits_are_consistent(weights, n, data):
    weights = np.array(weights)
    assume(weights.sum() >= n)
    x = data.draw(st.integers(1, int(weights.sum()) // n))
    part, children = state_splitting.split_edges(weights, n, x)
    assert sum(children) == x
    assert part.shape == weights.shape
    for number, weight in enumerate(children):
        assert weight >= 1
        assert weights[part == number].sum() >= n * weight
    if len(children) == 1 and x > 1:  # then no part of any weight can be split off
        sums = {sum(chosen) for size in range(len(weights)) for chosen in itertools.combinations(weights, size)}
        assert not any(n * y <= s <= int(weights.sum()) - n * (x - y) for y in range(1, x) for s in sums)


@given(deterministic_graphs(vertices=6, labels=2), st.integers(1, 3))
@settings(max_examples=60)
def test_merging_keeps_to_the_words(graph, q):
    """What a stand-in leads to is among what the replaced one leads to, all along."""
    power = powers.power_graph(graph, q, range(graph.vertices))
    substitute = state_splitting.merge(power.source, power.block, power.target, np.ones(graph.vertices, int), 1)
    assert (substitute[substitute] == substitute).all()
    table = {(int(s), int(b)): int(t) for s, b, t in zip(power.source, power.block, power.target, strict=True)}
    for first in range(graph.vertices):
        pairs, seen = [(int(substitute[first]), int(first))], set()
        while pairs:  # the merged graph beside the true one
            merged, true = pairs.pop()
            for block in {b for s, b in table if s == merged} if (merged, true) not in seen else ():
                pairs.append((int(substitute[table[merged, block]]), table[true, block]))  # KeyError: not lawful
            seen.add((merged, true))


def test_merging_finds_the_known_sizes():
    """(1, 7) has 17 states by its weights, 5 in the end; with stricter demands nobody is replaced."""
    graph = run_length_limited(1, 7)
    assert sum(weights_of(graph, 2, 3)) == 17
    assert state_splitting.build(graph, 2, 3).states == 5
    source, target, block = np.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 1], [0, 1, 0, 1, 2]])
    assert state_splitting.merge(source, block, target, np.array([1, 1]), 2).tolist() == [0, 0]
    assert state_splitting.merge(source, block, target, np.array([1, 2]), 1).tolist() == [0, 1]
    same, ends = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])  # merged, both edges are alike: 1 < n
    assert state_splitting.merge(same, np.zeros(4, int), ends, np.array([1, 1]), 2).tolist() == [0, 1]


# ---- choosing p:q --------------------------------------------------------------------------------


def test_weights_of_finer_codes():
    """Rows of the research table whose 2^p is too large to build, and the 24-state presentation."""
    for p, q, total in [(14, 8, 4), (16, 9, 4), (18, 10, 19), (29, 16, 76), (49, 27, 414)]:
        x = weights_of(TALK_GRAPH, p, q)
        assert (powers.power_matrix(TALK_GRAPH, q) @ x >= (1 << p) * x).all()
        assert sum(x) == total
    assert sum(weights_of(ordinary_graph(TALK, merged=False), 9, 5)) == 82


def test_best_within_a_limit():
    assert state_splitting.best(TALK_GRAPH, 29696) == (9, 5)
    assert state_splitting.best(TALK_GRAPH, 29695) == (7, 4)
    assert state_splitting.best(TALK_GRAPH, 2175) == (5, 3)
    assert state_splitting.best(GOLDEN, 1 << 14) == (9, 13)
    with pytest.raises(SplittingError, match="at most 1 entries: use a larger limit"):
        state_splitting.best(TALK_GRAPH, 1)


@pytest.mark.parametrize("graph", [GOLDEN, run_length_limited(1, 7), TALK_GRAPH], ids=["golden", "1,7", "talk"])
def test_best_by_trying_all(graph):
    sizes = {}
    for p, q in itertools.product(range(1, 8), range(1, 12)):
        x = powers.approximate_eigenvector(powers.power_matrix(graph, q), 1 << p, 8)
        if x is not None:
            sizes[p, q] = sum(x) << p
    for limit in (2, 7, 24, 60, 130):
        wanted = max(p / q for (p, q), size in sizes.items() if size <= limit)
        p, q = state_splitting.best(graph, limit)
        assert p / q == wanted
        assert sizes[p, q] == min(size for (i, j), size in sizes.items() if i / j == wanted)
        assert state_splitting.build(graph, p, q).entries <= limit


# ---- refusals --------------------------------------------------------------------------------------


def test_refusals():
    with pytest.raises(SplittingError, match=r"2:1 is 2\.000000 bits per edge, above the capacity 1\.815179: use 1:1"):
        state_splitting.build(TALK_GRAPH, 2, 1)
    with pytest.raises(SplittingError, match=r"11:6 .* use 10:6"):
        state_splitting.build(TALK_GRAPH, 11, 6)
    with pytest.raises(SplittingError, match=r"1:1 .* above the capacity 0\.694242: use 1:2"):
        state_splitting.build(GOLDEN, 1, 1)
    with pytest.raises(SplittingError, match="0:1: bits and edges are whole numbers"):
        state_splitting.build(TALK_GRAPH, 0, 1)
    with pytest.raises(SplittingError, match=r"2\^40 edges each are too many: use a smaller p"):
        state_splitting.build(TALK_GRAPH, 40, 23)
    with pytest.raises(SplittingError, match="more than 4194304: use a smaller q"):
        state_splitting.build(TALK_GRAPH, 1, 30)
    circle = graph_of([(0, 1, 0), (1, 0, 0)])
    for call in (lambda: state_splitting.build(circle, 1, 9), lambda: state_splitting.best(circle, 99)):
        with pytest.raises(SplittingError, match="no two cycles of the graph meet"):
            call()
    with pytest.raises(GraphError, match="no cycle"):
        state_splitting.build(graph_of([(0, 1, 0)]), 1, 1)
    with pytest.raises(SplittingError, match="its capacity is 0"):
        state_splitting.best(graph_of([(0, 1, 0)]), 99)
    with pytest.raises(GraphError, match="not deterministic: 0 has 2 edges with label 7"):
        state_splitting.build(graph_of([(0, 0, 7), (0, 1, 7), (1, 0, 7)]), 1, 2)
    with pytest.raises(GraphError, match="labels of 100000001 numbers at 2 places make too large a table"):
        state_splitting.build(graph_of([(0, 0, 0), (0, 0, 100_000_000)]), 1, 1)
