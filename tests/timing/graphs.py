"""Labelled graphs for the tests of state splitting: by hand, and as a Hypothesis strategy."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from helix_jax.timing.graph import TALK, Graph, ordinary_graph


def graph_of(rows):
    """Rows (source, target, label) -> Graph."""
    source, target, label = np.array(rows, np.int32).T
    return Graph(int(max(source.max(), target.max())) + 1, source, target, label)


def run_length_limited(d, k):
    """(d, k): d to k zeros between two ones. Vertex i: i zeros since the last one."""
    return graph_of([(i, i + 1, 0) for i in range(k)] + [(i, 0, 1) for i in range(d, k + 1)])


GOLDEN = graph_of([(0, 0, 0), (0, 1, 1), (1, 0, 0)])  # no two ones in a row
TALK_GRAPH = ordinary_graph(TALK)


@st.composite
def deterministic_graphs(draw, vertices=5, labels=3, fewest_labels=1):
    """Any target, or none, for each vertex and label. One label alone may carry no bit (``fewest_labels``)."""
    size, alphabet = draw(st.integers(1, vertices)), draw(st.integers(fewest_labels, labels))
    target = st.one_of(st.none(), st.integers(0, size - 1), st.integers(0, size - 1), st.integers(0, size - 1))
    rows = [(v, t, 10 * a - 3) for v in range(size) for a in range(alphabet) if (t := draw(target)) is not None]
    assume(rows)
    source, target, label = np.array(rows, np.int32).T
    return Graph(size, source, target, label)
