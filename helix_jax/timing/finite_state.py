"""Finite-state encoder and its sliding-block decoder: tags of p bits <-> paths of a labelled graph.

``state_splitting.build`` makes the tables. Writing is a walk: the state and a tag give a block of q labels and the next
state. Reading needs no walk when the memory is finite: a tag follows from a window of ``memory`` blocks before its own
and ``anticipation`` blocks after it. So all blocks are looked up at once, and a wrong label garbles the tags whose
windows hold it, no others.

For timing graphs a label is a time unit (see ``graph.ordinary_graph``); the module ``rounds`` goes between labels and
rounds (letters and levels).
"""

import hashlib
import itertools
from dataclasses import dataclass, fields
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax.timing.graph import GraphError

LARGEST_TRIE = 1 << 26  # entries


# ---- tables ---------------------------------------------------------------------------------------


class Base(NamedTuple):
    """The deterministic graph that is split: blocks int32[W, q], distinct, in lexicographic order; source, target
    (vertices) and block: int64[E], ascending by (source, block)."""

    blocks: np.ndarray
    source: np.ndarray
    target: np.ndarray
    block: np.ndarray


class Round(NamedTuple):
    """One round of splitting. Edges and children are counted from 1 here; 0 is none.

    part: int32[E + 1], for each edge before the round the child of its source that it belongs to.
    copy: int32[E + 1, C + 1], the edge after the round that goes from there to child c of its target.
    """

    part: np.ndarray
    copy: np.ndarray


class Split(NamedTuple):
    """The graph after the last round. edge: int64[E'], numbers of its edges, as in ``Round.copy``. origin: int64[E'],
    the edge of ``Base`` that each copies. source, target: int64[E'], ascending by source. parent: int64[S'], the vertex
    of ``Base`` that each vertex is a child of."""

    edge: np.ndarray
    origin: np.ndarray
    source: np.ndarray
    target: np.ndarray
    parent: np.ndarray


@dataclass(frozen=True, eq=False)
class Encoder:
    """Integer tables of an encoder of p bits per q edges.

    p, q: bits and edges per block. states: S. anticipation: blocks ahead that reading needs. memory: blocks before
    that it needs; None when no number is enough, and reading then follows the path from its start.
    starts: for each vertex of the graph a state from which every path starts at that vertex; -1 where there is none.
    next: int32[S * 2^p], the state after each (state << p | tag). block: int32[S * 2^p], its block, 1..W.
    blocks: int32[W + 1, q], the labels of each block; row 0 is not used.

    For reading (0 stands for none throughout):
    lowest: smallest label; ``trie`` counts labels from it. trie: int32[nodes, labels], from node 1 the next node, or
    after q labels the block. places: for each vertex of the graph its set. anywhere: the set of all vertices.
    step: int32[sets, W + 1], where a block leads from a set of vertices. edge: int32[sets, W + 1], the only edge that a
    block can be from a set. rounds: the splitting of edges by what follows. tag: int32[edges + 1], after the last
    round; -1 for an edge without a tag.
    """

    p: int
    q: int
    states: int
    anticipation: int
    memory: int | None
    starts: tuple[int, ...]
    next: np.ndarray
    block: np.ndarray
    blocks: np.ndarray
    lowest: int
    trie: np.ndarray
    places: tuple[int, ...]
    anywhere: int
    step: np.ndarray
    edge: np.ndarray
    rounds: tuple[Round, ...]
    tag: np.ndarray

    @property
    def entries(self):
        """Entries of the writing table: states x 2^p."""
        return len(self.next)

    @property
    def window(self):
        """Blocks that reading one tag looks at; None when it is not a fixed number."""
        return None if self.memory is None else self.memory + 1 + self.anticipation

    @property
    def digest(self):
        """SHA-256 over the writing tables: encoders of one digest write the same labels."""
        blob = hashlib.sha256(repr((self.p, self.q, self.starts)).encode())
        for array in (self.next, self.block, self.blocks):
            blob.update(array.astype("<i4").tobytes())
        return blob.digest()


def assemble(p, base, rounds, split, place, home):
    """Keep 2^p edges of each state, tag them in the order of their blocks, and make all tables.

    place: int64[S'], for each vertex after the last round the one that stands in for it. home: for each vertex of the
    graph its vertex in ``base``, or -1. Returns an Encoder.
    """
    stay, state = np.unique(place, return_inverse=True)
    size, block = len(stay), base.block[split.origin]
    key = (state[split.source] * len(base.blocks) + block) * size + state[split.target]
    like = np.unique(key[place[split.source] == split.source])
    degree = np.bincount(like // size // len(base.blocks))
    rank = np.arange(len(like)) - np.repeat(np.cumsum(degree) - degree, degree)
    like = like[rank < 1 << p]  # 2^p of each state
    at = np.minimum(np.searchsorted(like, key), len(like) - 1)
    tagged = like[at] == key
    edges = int(rounds[-1].copy.max()) if rounds else len(base.source)
    tag = np.full(edges + 1, -1, np.int32)
    tag[split.edge[tagged]] = at[tagged] & (1 << p) - 1

    used = np.unique(split.origin[tagged])
    chosen, which = np.unique(base.block[used], return_inverse=True)
    edge = np.zeros((int(base.source.max()) + 1, len(chosen) + 1), np.int32)
    leads = np.zeros_like(edge)
    edge[base.source[used], which + 1] = used + 1
    leads[base.source[used], which + 1] = base.target[used] + 1
    memory = _memory(edge, leads)
    sets, step = _sets(leads, memory)
    blocks = base.blocks[chosen]
    lowest, trie = _trie(blocks)
    return Encoder(
        p=p,
        q=blocks.shape[1],
        states=size,
        anticipation=len(rounds),
        memory=memory,
        starts=tuple(int(state[split.parent == vertex][0]) if vertex in split.parent else -1 for vertex in home),
        next=(like % size).astype(np.int32),
        block=(np.searchsorted(chosen, like // size % len(base.blocks)) + 1).astype(np.int32),
        blocks=np.concatenate([np.zeros_like(blocks[:1]), blocks]),
        lowest=lowest,
        trie=trie,
        places=tuple(int(vertex) + 1 for vertex in home),
        anywhere=sets.index(frozenset(range(len(leads)))) if memory is not None else 0,
        step=step,
        edge=np.stack([edge[sorted(members)].max(axis=0, initial=0) for members in sets]).astype(np.int32),
        rounds=rounds,
        tag=tag,
    )


def _memory(edge, leads):
    """Fewest blocks after which the next one is at most one edge, from wherever they started; None for no number.

    Two paths that share their blocks so far, and are not at one vertex yet, are followed as pairs of vertices.
    """
    after = {}
    for u, v in itertools.combinations(range(len(edge)), 2):
        both = (edge[u] > 0) & (edge[v] > 0)
        ends = np.unique(np.sort(np.stack([leads[u][both], leads[v][both]]) - 1, axis=0), axis=1).T.tolist()
        if both.any():
            after[u, v] = {(a, b) for a, b in ends if a != b}
    pairs = set(after)
    for memory in range(len(edge) ** 2):
        if not pairs:
            return memory
        pairs = {pair for old in pairs for pair in after[old] if pair in after}
    return None


def _sets(leads, memory):
    """Sets of vertices, and int32[sets, W + 1], where blocks lead from each.

    The first are the empty set and the single vertices; when the memory is finite, the set of all and those reached
    from there follow.
    """
    vertices, count = len(leads), leads.shape[1]
    number = {members: n for n, members in enumerate([frozenset(), *(frozenset([v]) for v in range(vertices))])}
    rows = [np.zeros_like(leads[0]), *leads]
    if memory is not None:
        number.setdefault(frozenset(range(vertices)), len(number))
    while len(rows) < len(number):
        members = list(number)[len(rows)]
        reached = np.zeros((count, vertices + 1), bool)
        for vertex in members:
            reached[np.arange(count), leads[vertex]] = True
        distinct, kind = np.unique(reached[:, 1:], axis=0, return_inverse=True)
        images = [frozenset(np.flatnonzero(row).tolist()) for row in distinct]
        rows.append(np.array([number.setdefault(image, len(number)) for image in images])[kind])
    return list(number), np.stack(rows).astype(np.int32)


def _trie(blocks):
    """(smallest label, int32[nodes, labels]); see Encoder."""
    lowest, labels = int(blocks.min()), int(blocks.max()) - int(blocks.min()) + 1
    node, count, entries = np.ones(len(blocks), np.int64), 2, []
    for column in blocks.T[:-1]:
        key, inverse = np.unique(node * labels + column - lowest, return_inverse=True)
        entries.append((key, count + np.arange(len(key))))
        node = count + inverse
        count += len(key)
    entries.append((node * labels + blocks[:, -1] - lowest, np.arange(1, len(blocks) + 1)))
    if count * labels > LARGEST_TRIE:
        raise GraphError(f"labels of {labels} numbers at {count} places make too large a table: number them from 0")
    trie = np.zeros(count * labels, np.int32)
    for key, value in entries:
        trie[key] = value
    return lowest, trie.reshape(count, labels)


# ---- tags <-> labels ------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """The tables of an Encoder as the kernels take them (a pytree; replicate it over devices), and where every path
    starts: ``start``, int32, is a state and ``place``, int32, the set of its vertex."""

    start: jax.Array
    place: jax.Array
    next: jax.Array
    block: jax.Array
    blocks: jax.Array
    trie: jax.Array
    step: jax.Array
    edge: jax.Array
    rounds: tuple[Round, ...]
    tag: jax.Array


@dataclass(frozen=True)
class Shape:
    """The numbers of an Encoder that shape the kernels; see there."""

    p: int
    q: int
    anticipation: int
    memory: int | None
    lowest: int
    anywhere: int


def on_device(encoder, vertex=0):
    """(Arrays, Shape) for paths that start at a vertex of the graph. Raises GraphError when no state starts there."""
    if not 0 <= vertex < len(encoder.starts) or encoder.starts[vertex] < 0:
        possible = [v for v, state in enumerate(encoder.starts) if state >= 0]
        raise GraphError(f"no path of the {encoder.p}:{encoder.q} encoder starts at vertex {vertex}: use {possible}")
    here = np.array([encoder.starts[vertex], encoder.places[vertex]], np.int32)
    tables = [getattr(encoder, name) for name in Arrays._fields[2:]]
    shape = Shape(*(getattr(encoder, field.name) for field in fields(Shape)))
    return jax.tree.map(jnp.asarray, Arrays(*here, *tables)), shape


def encode(arrays, tags, *, shape):
    """Tags -> labels of a path.

    tags: int32[B, n], 0..2^p - 1. Returns int32[B, (n + anticipation) * q]: blocks of tag 0 come last, so that the
    reader sees far enough.
    """
    chex.assert_rank(tags, 2)
    chex.assert_type(tags, jnp.int32)
    tags = jnp.pad(tags, ((0, 0), (0, shape.anticipation)))

    def one(strand):
        def step(state, tag):
            at = state << shape.p | tag
            return arrays.next[at], at

        return lax.scan(step, strand[0] * 0 + arrays.start, strand)[1]

    return arrays.blocks[arrays.block[jax.vmap(one)(tags)]].reshape(len(tags), -1)


def decode(arrays, labels, *, shape):
    """Labels -> tags.

    labels: int32[B, (n + anticipation) * q]. Returns (tags int32[B, n], ok bool[B]); ok is False unless ``encode``
    makes these labels of these tags. A tag whose window is wrong may then be any, the others are right.
    """
    chex.assert_rank(labels, 2)
    chex.assert_type(labels, jnp.int32)
    chex.assert_is_divisible(labels.shape[1], shape.q)
    blocks = _look_up_blocks(arrays.trie, labels, shape)
    edges = arrays.edge.reshape(-1)[_sets_before(arrays, blocks, shape) * arrays.edge.shape[1] + blocks]
    for part, copy in arrays.rounds:
        edges = copy.reshape(-1)[edges[:, :-1] * copy.shape[1] + part[edges[:, 1:]]]
    tags = jnp.maximum(arrays.tag[edges], 0)
    return tags, (encode(arrays, tags, shape=shape) == labels).all(axis=1)


def _look_up_blocks(trie, labels, shape):
    """Labels -> int32[B, n], the number of each block of q, or 0."""
    width = trie.shape[1]
    code = labels.reshape(len(labels), -1, shape.q) - shape.lowest
    known = (code >= 0) & (code < width)
    node = jnp.ones_like(code[:, :, 0])
    for k in range(shape.q):
        node = trie.reshape(-1)[jnp.where(known[:, :, k], node * width + code[:, :, k], 0)]
    return node


def _sets_before(arrays, blocks, shape):
    """The set of vertices at which each block can start, from ``memory`` blocks before it: int32[B, n]."""
    step, width = arrays.step.reshape(-1), arrays.step.shape[1]
    if shape.memory is None:

        def one(strand):
            def walk(place, block):
                return step[place * width + block], place

            return lax.scan(walk, strand[0] * 0 + arrays.place, strand)[1]

        return jax.vmap(one)(blocks)
    number = lax.broadcasted_iota(jnp.int32, blocks.shape, 1)
    place = jnp.where(number <= shape.memory, arrays.place, shape.anywhere)
    for back in range(shape.memory, 0, -1):
        before = jnp.pad(blocks, ((0, 0), (back, 0)))[:, : blocks.shape[1]]
        place = jnp.where(number >= back, step[place * width + before], place)
    return place


# ---- bits <-> tags --------------------------------------------------------------------------------


def to_tags(words, *, shape, length):
    """Payload words -> tags.

    words: uint32[B, W], first bit most significant. length: number of tags; bits past the last word are 0.
    Returns int32[B, length].
    """
    return _regroup(words, 32, shape.p, length).astype(jnp.int32)


def from_tags(tags, *, shape, bits):
    """Tags -> words: uint32[B, ceil(bits / 32)] of the first ``bits`` bits, zeros after them."""
    words = _regroup(tags.astype(jnp.uint32), shape.p, 32, -(-bits // 32))
    last = np.uint32((0xFFFFFFFF << (-bits % 32)) & 0xFFFFFFFF)
    return words.at[:, -1:].set(words[:, -1:] & last)


def _regroup(numbers, size, new, length):
    """uint32[B, n] of ``size`` bits each -> uint32[B, length] of ``new`` bits each, zeros past the end."""
    shifts = np.arange(size - 1, -1, -1, dtype=np.uint32)
    bits = ((numbers[:, :, None] >> shifts[None, None]) & 1).reshape(len(numbers), -1)
    bits = jnp.pad(bits, ((0, 0), (0, max(0, length * new - bits.shape[1]))))[:, : length * new]
    weights = np.uint32(1) << np.arange(new - 1, -1, -1, dtype=np.uint32)
    return (bits.reshape(len(numbers), length, new) * weights[None, None]).sum(axis=2, dtype=jnp.uint32)
