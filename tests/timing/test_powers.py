"""Powers of graphs against their paths, and approximate eigenvectors against brute force."""

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helix_jax.timing import powers
from tests.timing.graphs import deterministic_graphs


@given(deterministic_graphs(), st.integers(1, 4), st.data())
@settings(max_examples=40)
def test_power_graph_holds_all_paths(graph, q, data):
    vertices = data.draw(st.lists(st.integers(0, graph.vertices - 1), min_size=1, unique=True).map(sorted))
    edges = list(zip(graph.source.tolist(), graph.target.tolist(), graph.label.tolist(), strict=True))
    paths = [(v, v, ()) for v in vertices]
    for _ in range(q):
        paths = [(first, t, (*word, a)) for first, here, word in paths for s, t, a in edges if s == here]
    wanted = sorted((first, word, last) for first, last, word in paths if last in vertices)
    power = powers.power_graph(graph, q, vertices)
    words = [tuple(word) for word in power.blocks.tolist()]
    got = [
        (vertices[s], words[b], vertices[t])
        for s, b, t in zip(power.source.tolist(), power.block.tolist(), power.target.tolist(), strict=True)
    ]
    assert got == wanted
    assert words == sorted({word for _, word, _ in wanted})
    matrix = powers.power_matrix(graph, q)[np.ix_(vertices, vertices)]
    assert len(got) == matrix.sum()


matrices = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.integers(0, 4), min_size=size**2, max_size=size**2).map(
        lambda entries: np.array(entries, object).reshape(size, size)
    )
)


@given(matrices, st.integers(1, 9))
@example(np.array([[0, 1], [4, 0]], object), 2)  # the root is 2, exactly
@example(np.array([[2, 1], [1, 2]], object), 3)
@settings(max_examples=150)
def test_root_is_compared_exactly(matrix, n):
    root = np.abs(np.linalg.eigvals(matrix.astype(float))).max()
    if abs(root - n) > 1e-3:  # a double root is computed to half the digits only
        assert powers.reaches(matrix, n) == (root > n)
    elif np.linalg.matrix_rank((matrix - n * np.eye(len(matrix), dtype=int)).astype(float)) < len(matrix):
        assert powers.reaches(matrix, n)


@given(matrices, st.integers(1, 6))
@settings(max_examples=150)
def test_approximate_eigenvector_by_brute_force(matrix, n):
    x = powers.approximate_eigenvector(matrix, n)
    every = [np.array(y, object) for y in itertools.product(range(4), repeat=len(matrix)) if any(y)]
    sound = [y for y in every if (matrix @ y >= n * y).all()]
    if x is None:
        assert not sound
        return
    assert x.any()
    assert (matrix @ x >= n * x).all()
    if not sound:
        assert max(x) > 3
        return
    largest = min(max(y) for y in sound)
    assert max(x) >= largest  # no vector has a smaller largest entry, and none within that bound a smaller sum
    if max(x) == largest:
        assert sum(x) == min(sum(y) for y in sound if max(y) == largest)
    assert powers.approximate_eigenvector(matrix, n, largest - 1) is None
