"""The powers of a labelled graph, whose edges are the paths of q edges, and their approximate eigenvectors.

These are steps 2 and 3 of ``state_splitting``. All decisions are made with whole numbers and in a fixed order.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Shaped

from helix_jax.errors import HelixError
from helix_jax.timing.graph import Graph, GraphError

MOST_EDGES = 1 << 22  # the largest number of edges of a power graph
SEARCH = 16  # the number of approximate eigenvectors that are followed at a time


class SplittingError(HelixError):
    """There is no such encoder; the message says why, and what is possible."""


# ---- the power graph ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PowerGraph:
    """The paths of q edges between some vertices of a deterministic graph.

    Attributes:
        vertices: The numbers of the vertices in the graph, ascending.
        blocks: The distinct label blocks, in lexicographic order.
        source: The vertex at which each path begins, as an index of ``vertices``; paths ascend by (source, block).
        target: The vertex at which each path ends, as an index of ``vertices``.
        block: The block of each path, as a row of ``blocks``.
    """

    vertices: Int[np.ndarray, " V"]
    blocks: Int32[np.ndarray, "W q"]
    source: Int[np.ndarray, " E"]
    target: Int[np.ndarray, " E"]
    block: Int[np.ndarray, " E"]


def require_deterministic(graph: Graph) -> None:
    """Raise GraphError unless the edges of every vertex differ in label."""
    pairs, count = np.unique(np.stack([graph.source, graph.label]), axis=1, return_counts=True)
    if (count > 1).any():
        vertex, label = pairs[:, count.argmax()]
        raise GraphError(
            f"the graph is not deterministic: {graph.name(vertex)} has {count.max()} edges with label {label}; "
            "give a presentation whose edges differ in label at each vertex"
        )


def power_matrix(graph: Graph, q: int) -> Shaped[np.ndarray, "V V"]:
    """Return A^q, the number of paths of q edges from u to v, as an array of exact Python integers."""
    return np.linalg.matrix_power(graph.adjacency.astype(object), q)


def principal_component(matrix: Shaped[np.ndarray, "V V"]) -> Int[np.ndarray, " n"]:
    """Return the vertices, ascending, of the strongly connected component with the largest Perron root.

    Of components with equal roots, it is the one with the first vertex. Raises GraphError when there is no cycle.
    """
    source, target = np.nonzero(matrix > 0)
    component = Graph(len(matrix), source, target, np.zeros(len(source), np.int32)).components()
    parts = [np.flatnonzero(component == number) for number in range(component.max() + 1)]
    roots = np.array([root(matrix[np.ix_(part, part)]) for part in parts])
    if not roots.max() > 0:
        raise GraphError("the graph has no cycle, so no path goes on for ever: add edges")
    return min((parts[n] for n in np.flatnonzero(roots > roots.max() * (1 - 1e-9))), key=lambda part: part[0])


def root(matrix: Shaped[np.ndarray, "V V"]) -> float:
    """Return the largest absolute value of an eigenvalue, in floating point."""
    return np.abs(np.linalg.eigvals(matrix.astype(np.float64))).max()


def power_graph(graph: Graph, q: int, vertices: np.ndarray | Sequence[int]) -> PowerGraph:
    """Return the graph of all paths of q edges of a deterministic graph between some of its vertices.

    Args:
        graph: The deterministic graph.
        q: The number of edges of a path.
        vertices: The vertices at which paths may begin and end, ascending.

    Returns:
        The power graph.

    Raises:
        SplittingError: There are more than MOST_EDGES paths.
    """
    vertices = np.asarray(vertices, np.int64)
    ways = power_matrix(graph, q)[np.ix_(vertices, vertices)].sum()
    if ways > MOST_EDGES:
        raise SplittingError(f"the power graph has {ways} paths of {q} edges, more than {MOST_EDGES}: use a smaller q")
    order = np.lexsort([graph.label, graph.source])
    after, label = graph.target[order].astype(np.int64), graph.label[order]
    degree = np.bincount(graph.source, minlength=graph.vertices)
    first = np.cumsum(degree) - degree
    onward = np.ones((q + 1, graph.vertices), bool)  # at [k, v]: k more edges can lead from v to `vertices`
    onward[0] = np.isin(np.arange(graph.vertices), vertices)
    for k in range(1, q + 1):
        onward[k] = (graph.adjacency @ onward[k - 1].astype(np.int64)) > 0
    source, end = np.arange(len(vertices)), vertices
    prefix, blocks = np.zeros(len(vertices), np.int64), np.zeros((1, 0), np.int32)
    for k in range(q, 0, -1):
        edge = np.repeat(first[end], degree[end]) + ranks(degree[end])
        origin = np.repeat(np.arange(len(end)), degree[end])
        keep = onward[k - 1][after[edge]]
        edge, origin = edge[keep], origin[keep]
        source, end = source[origin], after[edge]
        pairs = np.stack([prefix[origin], label[edge]])
        distinct, prefix = np.unique(pairs, axis=1, return_inverse=True)
        blocks = np.concatenate([blocks[distinct[0]], distinct[1][:, None].astype(np.int32)], axis=1)
    order = np.lexsort([prefix, source])
    target = np.searchsorted(vertices, end)
    return PowerGraph(vertices, blocks, source[order], target[order], prefix[order])


def ranks(counts: Int[np.ndarray, " groups"]) -> Int[np.ndarray, " members"]:
    """Return 0..c-1 for each c of ``counts``, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


# ---- the approximate eigenvector ------------------------------------------------------------------


def reaches(matrix: Shaped[np.ndarray, "V V"], n: int) -> bool:
    """Return whether the Perron root of a matrix of whole numbers, at least 0, is at least n; the answer is exact.

    The root is less than n if and only if all leading principal minors of n I - matrix are positive (M-matrices). These
    are the pivots of Bareiss's fraction-free elimination.
    """
    rest = np.asarray(n * np.eye(len(matrix), dtype=int).astype(object) - matrix)
    last = 1
    while len(rest):
        pivot = rest[0, 0]
        if pivot <= 0:
            return True
        rest = (pivot * rest[1:, 1:] - np.outer(rest[1:, 0], rest[0, 1:])) // last
        last = pivot
    return False


def approximate_eigenvector(
    matrix: Shaped[np.ndarray, "V V"], n: int, largest: int | np.integer | None = None
) -> Shaped[np.ndarray, " V"] | None:
    """Find small whole numbers x, at least 0 and not all 0, with matrix x >= n x.

    This is Franaszek's algorithm: it takes the greatest such x within 0..L, for the first L that has one. Then it
    lowers entries one by one, each time down to the greatest x below; of all ways, the SEARCH smallest sums are
    followed.

    Args:
        matrix: Exact Python integers, at least 0.
        n: The factor.
        largest: The search ends without a result when an entry above this one is needed.

    Returns:
        The vector of Python integers; None when the Perron root is less than n, or when ``largest`` is exceeded.
    """
    if not reaches(matrix, n):
        return None
    for bound in itertools.count(1):
        if largest is not None and bound > largest:
            return None
        x = _greatest(matrix, n, np.full(len(matrix), bound, object))
        if x.any():
            break
    level, smallest = [x], x
    while level:
        smallest = min(smallest, level[0], key=sum)
        below = [_lowered(matrix, n, x, vertex) for x in level for vertex in np.flatnonzero(x)]
        distinct = {tuple(x): x for x in below if x.any()}
        # of equal sums, those come first that keep the first vertices: paths may then start there
        level = sorted(distinct.values(), key=lambda x: (sum(x), *-x))[:SEARCH]
    return smallest


def _greatest(matrix, n, x):
    """Return the greatest y <= x with matrix y >= n y."""
    while True:
        y = np.minimum(x, matrix @ x // n)
        if np.array_equal(x, y):
            return x
        x = y


def _lowered(matrix, n, x, vertex):
    x = x.copy()
    x[vertex] -= 1
    return _greatest(matrix, n, x)
