"""Codes made by state splitting, against walks of the graph and of the table."""

import functools
import itertools
import math
import re

import jax
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.reference import kernels
from helix_jax.timing import finite_state, powers, state_splitting
from helix_jax.timing.graph import RUNNING, GraphError, TimeTable, ordinary_graph
from tests.timing.graphs import GOLDEN, TALK_GRAPH, deterministic_graphs, graph_of, run_length_limited

encode = jax.jit(finite_state.encode, static_argnames="shape")
decode = jax.jit(finite_state.decode, static_argnames="shape")
to_tags = jax.jit(finite_state.to_tags, static_argnames=("shape", "length"))
from_tags = jax.jit(finite_state.from_tags, static_argnames=("shape", "bits"))

EVEN = graph_of([(0, 0, 1), (0, 1, 0), (1, 0, 0)])  # runs of zeros between ones have even length


@functools.cache
def talk_code(p, q):
    return state_splitting.build(TALK_GRAPH, p, q)


def capacity_of(graph):
    root = np.abs(np.linalg.eigvals(graph.adjacency.astype(float))).max()
    return math.log2(root) if root > 0 else -math.inf


# ---- oracles ---------------------------------------------------------------------------------------


def walk(graph, vertex, labels):
    """The vertex where a label sequence leads in a deterministic graph; fails if it is not a path."""
    edges = {(int(s), int(a)): int(t) for s, t, a in zip(graph.source, graph.target, graph.label, strict=True)}
    for label in labels:
        vertex = edges[vertex, int(label)]
    return vertex


def plain_encode(code, tags, vertex):
    """The encoder, from its format: a table walk."""
    state, out = code.starts[vertex], []
    for tag in [*tags, *[0] * code.anticipation]:
        at = state * 2**code.p + int(tag)
        out += code.blocks[code.block[at]].tolist()
        state = int(code.next[at])
    return out


def plain_decode(code, labels, vertex):
    """The decoder, from the definition of anticipation: of the tags at the state one alone can have been meant, given
    the block and as many blocks after it. Knows nothing of the reading tables."""
    number = {tuple(block): n for n, block in enumerate(code.blocks.tolist()) if n}
    blocks = [number[tuple(labels[i : i + code.q])] for i in range(0, len(labels), code.q)]

    def follow(state, ahead):
        """Tags of the state that write the first of these blocks and go on to the others."""
        row = slice(state << code.p, (state + 1) << code.p)
        return [
            int(tag)
            for tag in np.flatnonzero(code.block[row] == ahead[0])
            if len(ahead) == 1 or follow(int(code.next[row][tag]), ahead[1:])
        ]

    state, tags = code.starts[vertex], []
    for k in range(len(blocks) - code.anticipation):
        (tag,) = follow(state, blocks[k : k + code.anticipation + 1])
        tags.append(tag)
        state = int(code.next[(state << code.p) + tag])
    return tags


def comes_back(graph, code, vertex, seed=0, strands=4, length=12):
    """Write, walk the graph, read: all by the oracles too. Returns the labels."""
    arrays, shape = finite_state.on_device(code, vertex)
    tags = np.random.default_rng(seed).integers(0, 1 << code.p, (strands, length)).astype(np.int32)
    labels = np.asarray(encode(arrays, tags, shape=shape))
    assert labels.shape == (strands, (length + code.anticipation) * code.q)
    for row, given_tags in zip(labels, tags, strict=True):
        walk(graph, vertex, row)
        assert row.tolist() == plain_encode(code, given_tags, vertex)
        assert plain_decode(code, row.tolist(), vertex) == given_tags.tolist()
    back, ok = decode(arrays, labels, shape=shape)
    assert np.asarray(ok).all()
    np.testing.assert_array_equal(back, tags)
    return labels


# ---- the talk's example --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "q", "states", "anticipation", "weights"),
    [
        (1, 1, 3, 0, {"A": 1, "C": 1, "G": 1}),
        (3, 2, 3, 0, {"A": 1, "C": 1, "G": 1}),
        (5, 3, 4, 0, {"A": 1, "C": 1, "G": 1, "T": 1}),
        (7, 4, 17, 1, {"A": 4, "C": 4, "G": 4, "T": 4, "C~1": 1}),  # another of sum 17: 3 4 4 3 and C~1 G~1 T~1 1
        (9, 5, 58, 1, {"A": 11, "C": 12, "G": 12, "T": 11, "A~1": 3, "C~1": 3, "G~1": 3, "T~1": 3}),
    ],
)
def test_codes_of_the_talk(p, q, states, anticipation, weights):
    x = powers.approximate_eigenvector(powers.power_matrix(TALK_GRAPH, q), 1 << p)
    found = {TALK_GRAPH.name(v): int(x[v]) for v in np.flatnonzero(x)}
    assert found == weights
    code = talk_code(p, q)
    assert (code.states, code.anticipation, code.entries) == (states, anticipation, states << p)
    assert (code.memory, code.window) == (0, 1 + anticipation)
    comes_back(TALK_GRAPH, code, 0, strands=8, length=40)


def test_tables_are_the_same_everywhere():
    assert [talk_code(p, q).digest.hex()[:16] for p, q in [(5, 3), (7, 4), (9, 5)]] == [
        "275753531e1d533b",
        "15f702a4f24fe65f",
        "7e5e9d03d5bb054b",
    ]


def test_a_vertex_where_no_path_starts():
    with pytest.raises(GraphError, match=r"no path of the 3:2 encoder starts at vertex 3: use \[0, 1, 2\]"):
        finite_state.on_device(talk_code(3, 2), 3)


@pytest.mark.parametrize(
    ("graph", "p", "q", "memory", "anticipation"),
    [(TALK_GRAPH, 7, 4, 0, 1), (TALK_GRAPH, 9, 5, 0, 1), (run_length_limited(1, 7), 2, 3, 2, 2)],
    ids=["7:4", "9:5", "(1, 7)"],
)
def test_a_wrong_label_garbles_its_window_only(graph, p, q, memory, anticipation):
    code = state_splitting.build(graph, p, q)
    assert (code.memory, code.anticipation, code.window) == (memory, anticipation, memory + 1 + anticipation)
    arrays, shape = finite_state.on_device(code)
    generator = np.random.default_rng(3)
    tags = generator.integers(0, 1 << p, (2000, 12)).astype(np.int32)
    labels = np.array(encode(arrays, tags, shape=shape))
    at = generator.integers(0, labels.shape[1], len(tags))
    wrong = labels.copy()
    wrong[np.arange(len(tags)), at] = generator.choice(graph.label, len(tags))
    back, ok = (np.asarray(part) for part in decode(arrays, wrong, shape=shape))
    damaged = back != tags
    distance = (at // q)[:, None] - np.arange(12)[None]  # from the tag's block to the wrong label's
    assert not (damaged & ((distance < -memory) | (distance > anticipation))).any()
    for within in range(-memory, anticipation + 1):
        assert (damaged & (distance == within)).any()
    for n in range(200):
        try:
            lawful = plain_encode(code, plain_decode(code, wrong[n].tolist(), 0), 0) == wrong[n].tolist()
        except (KeyError, ValueError):  # no such block, no such tag
            lawful = False
        assert ok[n] == lawful


# ---- textbook systems and random graphs ------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "p", "q", "capacity", "states", "lawful"),
    [
        (run_length_limited(1, 7), 2, 3, 0.6793, 5, "0*(10{1,7})*1?"),
        (run_length_limited(2, 7), 1, 2, 0.5174, 7, "0*(10{2,7})*(10?)?"),
        (run_length_limited(1, 3), 1, 2, 0.5515, 2, "0*(10{1,3})*1?"),  # MFM
        (EVEN, 2, 3, 0.6942, 3, "0*(1(00)*)*0?"),
        (GOLDEN, 2, 3, 0.6942, 3, "0*(10+)*1?"),
        (GOLDEN, 9, 13, 0.6942, 8, "0*(10+)*1?"),  # 99.7 % of capacity
        (graph_of([(0, 0, 0), (0, 0, 1)]), 1, 1, 1.0, 1, "[01]*"),  # at capacity
    ],
)
def test_textbook(graph, p, q, capacity, states, lawful):
    assert capacity_of(graph) == pytest.approx(capacity, abs=5e-5)
    code = state_splitting.build(graph, p, q)
    assert code.states <= states
    assert (code.memory is None) == (graph is EVEN)  # all others have finite memory
    for vertex in range(graph.vertices):
        if code.starts[vertex] >= 0:
            for row in comes_back(graph, code, vertex, length=20):
                assert re.fullmatch(lawful, "".join(map(str, row)))


@given(deterministic_graphs(fewest_labels=2), st.integers(2, 5), st.integers(0, 1), st.integers(0, 2**32 - 1))
@example(run_length_limited(1, 7), 3, 0, 0)
@example(graph_of([(0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 2, 1), (2, 1, 0)]), 2, 0, 0)  # period 2
@settings(max_examples=8)
def test_random_graphs(graph, q, fewer, seed):
    matrix = powers.power_matrix(graph, q)
    most = max((p for p in range(1, 2 * q + 1) if powers.reaches(matrix, 1 << p)), default=0)
    assume(most >= 1)
    p = max(1, most - fewer)
    code = state_splitting.build(graph, p, q)
    for n, tag in itertools.product(range(code.states), range(1 << p)):
        assert 0 <= code.next[n << p | tag] < code.states
    starts = [v for v, state in enumerate(code.starts) if state >= 0]
    comes_back(graph, code, starts[seed % len(starts)], seed=seed)


@st.composite
def time_tables(draw):
    """A cycle through all bases, and whatever else."""
    times = st.lists(st.integers(1, 4), unique=True, max_size=3).map(sorted)
    rows = [[tuple(draw(times)) if a != b else () for a in range(4)] for b in range(4)]
    for b in range(4):
        rows[b][(b + 1) % 4] = rows[b][(b + 1) % 4] or (draw(st.integers(1, 4)),)
    return TimeTable(tuple(map(tuple, rows)))


@given(
    st.one_of(deterministic_graphs(vertices=7, fewest_labels=2), time_tables().map(ordinary_graph)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_random_tables(graph, seed):
    """As before by the oracles alone, which need no compilation; time tables too."""
    generator = np.random.default_rng(seed)
    q = int(generator.integers(1, 5))
    matrix = powers.power_matrix(graph, q)
    most = max((p for p in range(1, 2 * q + 1) if powers.reaches(matrix, 1 << p)), default=0)
    assume(most >= 1)
    p = int(generator.integers(1, most, endpoint=True))
    code = state_splitting.build(graph, p, q)
    if RUNNING in graph.label:
        assert code.memory is not None  # an edge of G tells where it is
    for vertex in [v for v, state in enumerate(code.starts) if state >= 0][:4]:
        tags = generator.integers(0, 1 << p, 6).tolist()
        labels = plain_encode(code, tags, vertex)
        walk(graph, vertex, labels)
        assert plain_decode(code, labels, vertex) == tags


def test_periodic_timing_graphs():
    """With even times only, or two bases taking turns, some powers of the graph fall apart."""
    even_times = TimeTable.parse("A->C{2,4} A->G{2} C->A{2} C->G{2,4} G->A{4} G->C{2} T->A{2}")
    turns = TimeTable.parse("A->C{1,3} C->A{1,3} G->A{1} T->A{1}")
    for table, p, q, starts in [(even_times, 1, 2, "ACG"), (even_times, 2, 4, "ACG"), (turns, 2, 4, "A")]:
        graph = ordinary_graph(table)
        code = state_splitting.build(graph, p, q)
        possible = [v for v in range(4) if code.starts[v] >= 0]
        assert {"ACGT"[v] for v in possible} <= set(starts)
        assert possible
        for vertex in possible:
            comes_back(graph, code, vertex)
    with pytest.raises(GraphError, match=r"no path of the 2:4 encoder starts at vertex 1: use \[0, 5, 6\]"):
        finite_state.on_device(code, 1)


def test_reading_by_a_scan_on_all_devices():
    assert state_splitting.build(EVEN, 2, 3).memory is None
    tags = np.random.default_rng(1).integers(0, 4, (16, 9)).astype(np.int32)
    arrays, shape = finite_state.on_device(state_splitting.build(EVEN, 2, 3))
    labels = np.asarray(encode(arrays, tags, shape=shape))
    back, _ = parallel.spread(finite_state.decode, shape=shape)(parallel.replicate(arrays), labels)
    np.testing.assert_array_equal(back, tags)


# ---- bits <-> tags -------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "bits"), [(1, 1), (9, 287), (20, 64), (13, 128)])
def test_bits_to_tags(p, bits):
    generator = np.random.default_rng(p)
    payloads = [0, (1 << bits) - 1, *(int.from_bytes(generator.bytes(40), "big") % (1 << bits) for _ in range(20))]
    words, count = np.stack([kernels.int_to_words(payload, bits) for payload in payloads]), -(-bits // p)
    shape = finite_state.Shape(p, 1, 0, 0, 0, 0)
    tags = np.array(to_tags(words, shape=shape, length=count))
    extra = count * p - bits
    for payload, row in zip(payloads, tags.tolist(), strict=True):
        assert row == [payload << extra >> p * (count - 1 - n) & (1 << p) - 1 for n in range(count)]
    tags[:, -1] |= (1 << extra) - 1  # what follows the last bit is dropped
    np.testing.assert_array_equal(from_tags(tags, shape=shape, bits=bits), words)
