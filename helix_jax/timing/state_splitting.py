"""State splitting: the construction of a finite-state encoder of p bits per q edges into a labelled graph.

The method is that of Adler, Coppersmith and Hassner (IEEE Trans. Inf. Theory 29(1), 1983), and the approximate
eigenvector comes from Franaszek's algorithm; see Lind and Marcus, "Symbolic Dynamics and Coding", ch. 5, and Marcus,
Roth and Siegel, "Introduction to Coding for Constrained Systems", ch. 4 and 5. The steps of ``build`` are these, of
which ``powers`` has the first three:

1. The graph must be deterministic: the edges of a vertex differ in label.
2. The power graph has one edge per path of q edges, labelled with its block of q labels. A component with the largest
   root is taken; when gcd(q, period) > 1, the power graph of an irreducible graph has several, all with the same root.
3. The approximate eigenvector consists of whole numbers x, not all 0, with A^q x >= 2^p x. It exists up to the
   capacity, p/q = capacity included.
4. A vertex whose followers are among those of another vertex of the same weight stands in for the other.
5. Rounds of x-consistent splitting follow until all weights are 1. A part of weight y of the edges of a vertex has
   targets of total weight 2^p y or more. Each edge keeps its block, and is copied to all children of its target.
6. Now at least 2^p edges leave every state, and 2^p of them get tags. The tag follows from the state and the blocks up
   to one block ahead for each round of splitting; this number of blocks is the anticipation.

All decisions are made with whole numbers and in a fixed order, so the tables are the same on every machine.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from helix_jax.timing import finite_state, powers
from helix_jax.timing.graph import Graph
from helix_jax.timing.powers import MOST_EDGES, SplittingError

# ---- merging and splitting ------------------------------------------------------------------------


def merge(
    source: Int[np.ndarray, " E"],
    block: Int[np.ndarray, " E"],
    target: Int[np.ndarray, " E"],
    x: Int[np.ndarray, " V"],
    n: int,
) -> Int[np.ndarray, " V"]:
    """Find vertices that can stand in for others.

    u takes the place of v when they have the same weight and each edge of u has its like (same block, same target) at
    v, as long as the targets of unlike edges still weigh n x or more everywhere. Everything that u leads to, v leads to
    as well; so the labels that are written remain valid, and can be read as if v were still in the graph.

    Args:
        source: The vertex at which each edge begins, ascending.
        block: The block of each edge.
        target: The vertex at which each edge ends.
        x: The weights of the vertices, at least 1.
        n: The factor that the weights must satisfy.

    Returns:
        For each vertex the one that takes its place, which is the vertex itself if none does.
    """
    cuts = np.searchsorted(source, np.arange(1, len(x)))

    def unlike_edges(substitute):
        return [set(keys.tolist()) for keys in np.split(block * len(x) + substitute[target], cuts)]

    substitute, changed = np.arange(len(x)), True
    edges = unlike_edges(substitute)
    while changed:
        changed = False
        for u, v in itertools.permutations(np.unique(substitute), 2):
            if substitute[u] == u and substitute[v] == v and x[u] == x[v] and edges[u] <= edges[v]:
                trial = np.where(substitute == v, u, substitute)
                fewer = unlike_edges(trial)
                if all(x[np.array([*fewer[w]], int) % len(x)].sum() >= n * x[w] for w in np.unique(trial)):
                    substitute, edges, changed = trial, fewer, True
    return substitute


def split_edges(
    weights: Int[np.ndarray, " E"], n: int, x: int | np.integer
) -> tuple[Int[np.ndarray, " E"], tuple[int, ...]]:
    """Partition the out-edges of a vertex of weight x into parts with weights y of sum x, x-consistently.

    The targets of every part have a sum of at least n y. Small parts are split off one after the other, by subset sums:
    first as many of weight 1 as possible, then of weight 2, and so on.

    Args:
        weights: The weights of the targets of the edges, at least 1, with a sum of at least n x.
        n: The factor that the weights must satisfy.
        x: The weight of the vertex.

    Returns:
        The part of each edge, and y; y is (x,) when there is only the trivial partition.
    """
    part, children, left, size = np.full(len(weights), -1), [], int(x), 1
    slack = int(weights.sum()) - n * left
    while size <= left // 2:
        chosen = _subset(weights, np.flatnonzero(part < 0), n * size, n * size + slack)
        if chosen is None:
            size += 1
            continue
        part[chosen] = len(children)
        children.append(size)
        left -= size
        slack -= int(weights[chosen].sum()) - n * size
    part[part < 0] = len(children)
    return part, (*children, left)


def _subset(weights, edges, low, high):
    """Choose some of ``edges`` with the smallest possible sum of weights in [low, high]; None if that is impossible.

    Each weight is chosen in its proportion. The sums that edges of the first few weights can make are represented as
    the set bits of a Python integer.
    """
    distinct, counts = np.unique(weights[edges], return_counts=True)
    pairs = [(int(w), int(c)) for w, c in zip(distinct, counts, strict=True)]
    reach = [1]
    for weight, count in pairs:
        sums, step = reach[-1], 1
        while count:
            step = min(step, count)
            sums |= sums << weight * step & (2 << high) - 1
            count -= step
            step *= 2
        reach.append(sums)
    if not reach[-1] >> low:
        return None
    above = reach[-1] >> low
    total = low + (above & -above).bit_length() - 1
    chosen, available = [], int(weights[edges].sum())
    for (weight, count), sums in reversed(list(zip(pairs, reach, strict=False))):
        fair = count * total // available
        possible = (k for d in range(count + 1) for k in (fair - d, fair + d) if 0 <= k <= min(count, total // weight))
        take = next(k for k in possible if sums >> (total - k * weight) & 1)
        chosen.append(edges[weights[edges] == weight][:take])
        total -= take * weight
        available -= count * weight
    return np.concatenate(chosen)


def split_all(
    source: Int[np.ndarray, " E"], target: Int[np.ndarray, " E"], x: Int[np.ndarray, " V"], n: int
) -> tuple[tuple[finite_state.Round, ...], finite_state.Split]:
    """Split vertices, in rounds, until all weights are 1.

    Args:
        source: The vertex at which each edge begins, ascending.
        target: The vertex at which each edge ends. The targets of u's edges weigh n x_u or more together, for all u.
        x: The weights of the vertices, at least 1.
        n: The factor.

    Returns:
        The rounds, and the graph after the last one.
    """
    rounds, origin, parent = [], np.arange(len(source)), np.arange(len(x))
    needed = np.ones(len(x), bool)
    while x.max() > 1:
        top = x == x.max()
        if top[target[top[source]]].all():  # closed and of one weight, so weight 1 suffices for them
            needed = top
            break
        edges = np.split(np.arange(len(source)), np.searchsorted(source, np.arange(1, len(x))))
        splits = [split_edges(x[target[own]], n, x[u]) for u, own in enumerate(edges)]
        part = np.concatenate([piece for piece, _ in splits])
        children = np.array([len(weights) for _, weights in splits])
        first = np.cumsum(children) - children
        edge = np.repeat(np.arange(len(source)), children[target])
        child = powers.ranks(children[target])
        new_source = first[source[edge]] + part[edge]
        order = np.argsort(new_source, kind="stable")
        edge, child, new_source = edge[order], child[order], new_source[order]
        copy = np.zeros((len(source) + 1, children.max() + 1), np.int32)
        copy[edge + 1, child + 1] = np.arange(1, len(edge) + 1)
        rounds.append(finite_state.Round(np.append(0, part + 1).astype(np.int32), copy))
        origin, source, target = origin[edge], new_source, first[target[edge]] + child
        x = np.concatenate([weights for _, weights in splits]).astype(np.int64)
        parent, needed = np.repeat(parent, children), np.ones(len(x), bool)
    number = np.cumsum(needed) - 1
    edge = np.flatnonzero(needed[source] & needed[target])
    ends = number[source[edge]], number[target[edge]]
    return tuple(rounds), finite_state.Split(edge + 1, origin[edge], *ends, parent[needed])


# ---- the encoder ----------------------------------------------------------------------------------


def build(graph: Graph, p: int, q: int) -> finite_state.Encoder:
    """Build the finite-state encoder of p bits per q edges.

    Args:
        graph: A deterministic graph.
        p: The bits of a block, at least 1.
        q: The edges of a block, at least 1.

    Returns:
        The encoder.

    Raises:
        GraphError: The graph cannot be used.
        SplittingError: p:q is above the capacity (the message has the nearest that is not), or too large.
    """
    if min(p, q) < 1:
        raise SplittingError(f"p:q = {p}:{q}: bits and edges are whole numbers, at least 1")
    powers.require_deterministic(graph)
    weights = _weights(graph, p, q)
    if weights is None:
        raise SplittingError(_above_capacity(graph, p, q))
    vertices, x = weights
    if sum(x) << p > MOST_EDGES:
        raise SplittingError(f"p:q = {p}:{q}: {sum(x)} states with 2^{p} edges each are too many: use a smaller p")
    power, x, n = powers.power_graph(graph, q, vertices[x > 0]), x[x > 0].astype(np.int64), 1 << p
    substitute = merge(power.source, power.block, power.target, x, n)
    stay, number = np.unique(substitute, return_inverse=True)
    keep = np.isin(power.source, stay)
    base = finite_state.Base(power.blocks, number[power.source[keep]], number[power.target[keep]], power.block[keep])
    rounds, split = split_all(base.source, base.target, x[stay], n)
    state = merge(split.source, base.block[split.origin], split.target, np.ones_like(split.parent), n)
    home = np.full(graph.vertices, -1)
    home[power.vertices] = number
    return finite_state.assemble(p, base, rounds, split, state, home)


def _weights(graph, p, q, largest=None):
    """Return (vertices of a component of the power graph, x on them); None when there is no x (within 0..largest)."""
    matrix = powers.power_matrix(graph, q)
    vertices = powers.principal_component(matrix)
    x = powers.approximate_eigenvector(matrix[np.ix_(vertices, vertices)], 1 << p, largest)
    return None if x is None else (vertices, x)


def _fits(graph, p, q):
    return powers.reaches(powers.power_matrix(graph, q), 1 << p)


def _capacity(graph):
    return math.log2(max(1.0, powers.root(graph.adjacency)))


def _above_capacity(graph, p, q):
    capacity = _capacity(graph)
    claim = f"p:q = {p}:{q} is {p / q:.6f} bits per edge, above the capacity {capacity:.6f}"
    if capacity < 1e-6:
        return f"{claim}: no two cycles of the graph meet, add edges"
    fewer, more = min(p - 1, int(q * capacity) + 1), max(q + 1, int(p / capacity) - 1)
    while not _fits(graph, fewer, q):
        fewer -= 1
    while not _fits(graph, p, more):
        more += 1
    return f"{claim}: use {fewer}:{q}" if fewer * more >= p * q else f"{claim}: use {p}:{more}"


def best(graph: Graph, limit: int) -> tuple[int, int]:
    """Return the (p, q) of most bits per edge whose table has at most ``limit`` entries (states x 2^p).

    Of equal ones, it is the smallest. States are counted before a vertex may stand in for another, so the table that is
    built may be smaller.
    Raises GraphError for a graph that cannot be used, and SplittingError when no p:q fits.
    """
    powers.require_deterministic(graph)
    capacity = _capacity(graph)
    if capacity < 1e-6:
        raise SplittingError("no p:q: no two cycles of the graph meet, so its capacity is 0: add edges")
    top = None  # (bits per edge, -entries, p, q)
    for p in range(1, max(limit, 1).bit_length()):
        for q in itertools.count(max(1, int(p / capacity))):
            if top and Fraction(p, q) < top[0]:
                break
            weights = _weights(graph, p, q, limit >> p)
            if weights and (entries := int(sum(weights[1])) << p) <= limit:
                rank = (Fraction(p, q), -entries, p, q)
                top = max(top or rank, rank)
                break
    if top is None:
        raise SplittingError(f"no p:q has a table of at most {limit} entries: use a larger limit")
    return top[2:]
