"""Time tables, G and G' against counts by hand, searches over paths, and what must be refused."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from helix_jax.timing.graph import RUNNING, TALK, Graph, GraphError, TimeTable, ordinary_graph, timing_graph

EMPTY = ((),) * 4


@st.composite
def time_tables(draw, longest=6, levels=3):
    """Any valid table, reducible ones among them."""
    times = st.sets(st.integers(1, longest), max_size=levels).map(lambda s: tuple(sorted(s)))
    rows = [[() if a == b else draw(times) for a in range(4)] for b in range(4)]
    for b in range(4):
        if not any(rows[b]):
            rows[b][(b + 1) % 4] = (draw(st.integers(1, longest)),)
    return TimeTable(tuple(tuple(row) for row in rows))


def graph_of(vertices, edges):
    source, target = np.array(edges, np.int32).reshape(-1, 2).T
    return Graph(vertices, source, target, np.arange(len(edges), dtype=np.int32))


def reached(graph, start):
    """Vertices that paths of at least one edge lead to, by search."""
    seen, stack = set(), [start]
    while stack:
        u = stack.pop()
        for v in graph.target[graph.source == u].tolist():
            if v not in seen:
                seen.add(v)
                stack.append(v)
    return seen


# ---- time tables ---------------------------------------------------------------------------------


def test_talk():
    assert str(TALK) == (
        "A->C{1,2} A->G{1,3} A->T{1,3} C->A{1,2} C->G{1,2} C->T{1,3} "
        "G->A{1,2} G->C{1,3} G->T{1,2} T->A{1,4} T->C{1,2} T->G{1,4}"
    )
    assert (TALK.levels, TALK.longest) == (2, 4)
    assert TALK.array()[3, 0].tolist() == [1, 4]
    assert TALK.edges().shape == (24, 4)
    assert TALK.edges()[:3].tolist() == [[0, 1, 0, 1], [0, 1, 1, 2], [0, 2, 0, 1]]


@given(time_tables())
def test_text_and_arrays(table):
    assert TimeTable.parse(str(table)) == table
    assert hash(TimeTable.parse(str(table))) == hash(table)
    for b, a, level, time in table.edges().tolist():
        assert table.times[b][a][level] == time == table.array()[b, a, level]
    assert len(table.edges()) == (table.array() > 0).sum() == sum(len(t) for row in table.times for t in row)


def test_uniform():
    table = TimeTable.uniform([1, 3])
    assert all(table.times[b][a] == (() if a == b else (1, 3)) for b in range(4) for a in range(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A->C{1,2} A-G{1}", r"'A-G\{1\}' is not of the form"),
        ("A->C{1,} C->A{1}", "not of the form"),
        ("A->C{1} A->C{2} C->A{1}", "A->C is given twice"),
        ("A->A{1}", "A->A .* cannot follow itself"),
        ("A->C{2,1}", r"A->C \(2, 1\): times must ascend"),
        ("A->C{2,2}", "ascend"),
        ("A->C{0,1}", r"A->C \(0, 1\): times are whole numbers of units, at least 1"),
        ("A->C{1} C->A{1} G->A{1}", "nothing may follow T"),
        ("", "nothing may follow A"),
    ],
)
def test_refused_by_name(text, message):
    with pytest.raises(GraphError, match=message):
        TimeTable.parse(text)


def test_refused_shapes():
    with pytest.raises(GraphError, match=r"rows of .* not 4 x 4"):
        TimeTable((EMPTY, EMPTY, EMPTY))
    with pytest.raises(GraphError, match="whole numbers"):
        TimeTable.uniform((0,))


# ---- G and G' ------------------------------------------------------------------------------------


def test_sizes_of_the_talk():
    """24 vertices, 20 of them auxiliary, and 44 edges; with shared delay lines 14 and 34."""
    plain, merged = ordinary_graph(TALK, merged=False), ordinary_graph(TALK)
    assert (plain.vertices, len(plain.source)) == (24, 44)
    assert (merged.vertices, len(merged.source)) == (14, 34)
    assert plain.names[:4] == merged.names[:4] == tuple("ACGT")
    assert plain.period() == merged.period() == 1
    assert "A~3" in merged.names
    assert timing_graph(TALK).vertices == 4


def test_characteristic_polynomial_of_the_talk():
    """Leverrier's recursion in exact integers."""
    matrix = ordinary_graph(TALK).adjacency.astype(object)
    size = len(matrix)
    coefficients, power = [1], np.eye(size, dtype=int).astype(object)
    for k in range(1, size + 1):
        power = matrix @ power
        trace = sum(power[i, i] for i in range(size))
        assert trace % k == 0
        coefficients.append(-trace // k)
        power = power + coefficients[-1] * np.eye(size, dtype=int).astype(object)
    assert not power.any()  # Cayley and Hamilton
    assert coefficients == [1, 0, -6, -14, -20, -26, -24, -15, -15, -8, -3, -4, 0, -1, 0]


@given(time_tables(), st.booleans())
def test_ordinary_graph(table, merged):
    graph = ordinary_graph(table, merged=merged)
    edges = table.edges()
    assert len(set(graph.names)) == graph.vertices
    if merged:
        lines = [max((t for row in table.times for t in row[a]), default=1) - 1 for a in range(4)]
        assert graph.vertices == 4 + sum(lines)
    else:
        assert graph.vertices == 4 + (edges[:, 3] - 1).sum()
        assert len(graph.source) == edges[:, 3].sum()
    assert np.bincount(graph.label[graph.label != RUNNING], minlength=len(edges)).tolist() == [1] * len(edges)
    # deterministic: a state and a label give the next state; auxiliary vertices have one way out
    pairs = set(zip(graph.source.tolist(), graph.label.tolist(), strict=True))
    assert len(pairs) == len(graph.source)
    assert (np.bincount(graph.source)[4:] == 1).all()
    # every edge of G, followed to the next base, takes its time
    rows = np.stack([graph.source, graph.label, graph.target], axis=1).tolist()
    after = {(u, e): v for u, e, v in rows}
    for number, (b, a, _, time) in enumerate(edges.tolist()):
        vertex, steps = after[b, number], 1
        while vertex >= 4:
            vertex, steps = after[vertex, RUNNING], steps + 1
        assert (vertex, steps) == (a, time)


def test_very_long_times():
    assert ordinary_graph(TimeTable.uniform((1, 3000))).vertices == 4 + 4 * 2999


# ---- irreducible, period -------------------------------------------------------------------------


@given(time_tables(), st.booleans())
def test_components_and_irreducibility(table, merged):
    graph = ordinary_graph(table, merged=merged)
    ahead = [reached(graph, u) for u in range(graph.vertices)]
    component = graph.components()
    for u, v in itertools.combinations(range(graph.vertices), 2):
        assert (component[u] == component[v]) == (v in ahead[u] and u in ahead[v])
    if all(len(vertices) == graph.vertices for vertices in ahead):
        graph.require_irreducible()
    else:
        with pytest.raises(GraphError, match="reducible"):
            graph.require_irreducible()


def test_reducible_is_refused_by_name():
    """Nothing leads back to A; then two worlds apart."""
    table = TimeTable.parse("A->C{1} C->G{1,2} G->T{1} T->C{2}")
    for graph in (timing_graph(table), ordinary_graph(table)):
        with pytest.raises(GraphError, match="reducible: A and C do not lead to each other; give the transitions"):
            graph.require_irreducible()
        with pytest.raises(GraphError, match="reducible"):
            graph.period()
    with pytest.raises(GraphError, match="A and G do not lead"):
        timing_graph(TimeTable.parse("A->C{1} C->A{1} G->T{1} T->G{1}")).require_irreducible()


@pytest.mark.parametrize(
    ("table", "period"),
    [
        (TimeTable.uniform((1,)), 1),
        (TimeTable.uniform((2,)), 2),  # letters may go round in 2 or 3
        (TimeTable.uniform((3, 6)), 3),
        (TimeTable.uniform((2, 3)), 1),
        (TimeTable.parse("A->C{1} C->G{1} G->T{1} T->A{1}"), 4),
        (TimeTable.parse("A->C{1,3} C->G{1} G->T{2} T->A{2}"), 2),  # cycles of 6 and 8
        (TimeTable.parse("A->C{5} C->A{1} C->G{2} G->A{5} A->T{1} T->A{5}"), 6),
    ],
)
def test_period(table, period):
    assert ordinary_graph(table).period() == ordinary_graph(table, merged=False).period() == period


@given(time_tables(longest=4, levels=2))
def test_period_is_the_common_divisor_of_closed_paths(table):
    graph = ordinary_graph(table)
    if graph.components().max():
        return
    step = graph.adjacency > 0
    walk, lengths = np.eye(graph.vertices, dtype=bool), []
    for length in range(1, 3 * graph.vertices):
        walk = walk.astype(int) @ step.astype(int) > 0
        if walk[0, 0]:
            lengths.append(length)
    assert graph.period() == math.gcd(*lengths)


# ---- any graph -----------------------------------------------------------------------------------


def test_parallel_edges_and_restriction():
    graph = graph_of(4, [(0, 1), (0, 1), (1, 2), (2, 0), (3, 0), (2, 2)])
    assert graph.adjacency[0, 1] == 2
    assert graph.components().tolist() == [0, 0, 0, 1]
    part = graph.restrict(np.array([0, 1, 2]))
    assert part.names == ("0", "1", "2")
    assert part.adjacency.tolist() == [[0, 2, 0], [0, 0, 1], [1, 0, 1]]
    assert part.label.tolist() == [0, 1, 2, 3, 5]
    part.require_irreducible()
    assert part.period() == 1
    tail = graph.restrict(np.array([2, 3]))
    assert tail.names == ("2", "3")
    assert tail.adjacency.tolist() == [[1, 0], [0, 0]]


def test_long_path_is_closed_in_components():
    """A ring of 300 is one component, the same ring cut open 300."""
    ring = [(i, (i + 1) % 300) for i in range(300)]
    assert graph_of(300, ring).components().max() == 0
    assert graph_of(300, ring).period() == 300
    assert len(set(graph_of(300, ring[:-1]).components().tolist())) == 300


def test_broken_graphs():
    one = np.zeros(1, np.int32)
    with pytest.raises(GraphError, match="an edge ends at vertex 2, and there are 2"):
        graph_of(2, [(0, 2)])
    with pytest.raises(GraphError, match="vertex -1"):
        graph_of(2, [(-1, 1)])
    with pytest.raises(GraphError, match="1 names for 2 vertices"):
        Graph(2, one, one, one, ("only",))
    with pytest.raises(TypeCheckError):
        Graph(2, one, one, np.zeros(2, np.int32))
