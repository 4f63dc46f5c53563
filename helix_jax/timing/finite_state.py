"""A finite-state encoder and its sliding-block decoder: from tags of p bits to paths of a labelled graph, and back.

``state_splitting.build`` makes the tables. Writing is a walk: the state and a tag give a block of q labels and the next
state. Reading needs no walk when the memory is finite: a tag follows from its own block, from ``memory`` blocks before
it, and from ``anticipation`` blocks after it. All blocks can therefore be looked up at once, and a wrong label garbles
only the tags whose windows contain it.

For timing graphs, a label is a time unit (see ``graph.ordinary_graph``); the module ``rounds`` converts between labels
and rounds (letters and levels).
"""

import hashlib
import itertools
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, UInt32

from helix_jax.timing.graph import GraphError

LARGEST_TRIE = 1 << 26  # in entries

Arrayish = Array | np.ndarray


# ---- tables ---------------------------------------------------------------------------------------


class Base(NamedTuple):
    """The deterministic graph that is split.

    Attributes:
        blocks: The distinct label blocks, in lexicographic order.
        source: The vertex at which each edge begins; the edges ascend by (source, block).
        target: The vertex at which each edge ends.
        block: The number of the block of each edge.
    """

    blocks: Int32[np.ndarray, "W q"]
    source: Int[np.ndarray, " E"]
    target: Int[np.ndarray, " E"]
    block: Int[np.ndarray, " E"]


class Round(NamedTuple):
    """One round of splitting. Edges and children are counted from 1 here, and 0 stands for none.

    Attributes:
        part: For each edge before the round (E + 1 entries), the child of its source that it belongs to.
        copy: The edge after the round that goes from a given edge before it to child c of its target, at [edge, c].
    """

    part: Int32[Arrayish, " edges"]
    copy: Int32[Arrayish, "edges children"]


class Split(NamedTuple):
    """The graph after the last round.

    Attributes:
        edge: The numbers of its edges, as in ``Round.copy``.
        origin: The edge of ``Base`` that each edge copies.
        source: The vertex at which each edge begins, ascending.
        target: The vertex at which each edge ends.
        parent: The vertex of ``Base`` that each vertex is a child of.
    """

    edge: Int[np.ndarray, " E"]
    origin: Int[np.ndarray, " E"]
    source: Int[np.ndarray, " E"]
    target: Int[np.ndarray, " E"]
    parent: Int[np.ndarray, " S"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """The integer tables of an encoder of p bits per q edges.

    The tables from ``lowest`` on are for reading. In them, 0 stands for none throughout.

    Attributes:
        p: The bits of a block.
        q: The edges of a block.
        states: The number S of states.
        anticipation: The number of blocks ahead that reading needs.
        memory: The number of blocks before that reading needs. It is None when no number is enough; reading then
            follows the path from its start.
        starts: For each vertex of the graph, a state from which every path starts at that vertex; -1 where there is
            none.
        next: The state after each (state << p | tag).
        block: The block of each (state << p | tag), counted from 1.
        blocks: The labels of each block; row 0 is not used.
        lowest: The smallest label, from which ``trie`` counts the labels.
        trie: The tree of the blocks, by (node, label): from node 1 on the next node, and after q labels the block.
        vertex_sets: For each vertex of the graph, the index of its set.
        anywhere: The set of all vertices.
        step: The set to which a block leads from a set of vertices, by (set, block).
        edge: The only edge that a block can be from a set of vertices, by (set, block).
        rounds: The rounds in which edges are split by what follows.
        tag: The tag of each edge after the last round; -1 for an edge without a tag.
    """

    p: int
    q: int
    states: int
    anticipation: int
    memory: int | None
    starts: tuple[int, ...]
    next: Int32[np.ndarray, " entries"]
    block: Int32[np.ndarray, " entries"]
    blocks: Int32[np.ndarray, "blocks q"]
    lowest: int
    trie: Int32[np.ndarray, "nodes labels"]
    vertex_sets: tuple[int, ...]
    anywhere: int
    step: Int32[np.ndarray, "sets blocks"]
    edge: Int32[np.ndarray, "sets blocks"]
    rounds: tuple[Round, ...]
    tag: Int32[np.ndarray, " edges"]

    @property
    def entries(self) -> int:
        """The number of entries of the writing table: states x 2^p."""
        return len(self.next)

    @property
    def window(self) -> int | None:
        """The number of blocks that determine one tag when it is read; None when it is not a fixed number."""
        return None if self.memory is None else self.memory + 1 + self.anticipation

    @property
    def digest(self) -> bytes:
        """SHA-256 over the writing tables; encoders of equal digests write the same labels."""
        blob = hashlib.sha256(repr((self.p, self.q, self.starts)).encode())
        for array in (self.next, self.block, self.blocks):
            blob.update(array.astype("<i4").tobytes())
        return blob.digest()


def assemble(
    p: int,
    base: Base,
    rounds: tuple[Round, ...],
    split: Split,
    substitute: Int[np.ndarray, " S"],
    home: Int[np.ndarray, " V"],
) -> Encoder:
    """Keep 2^p edges of each state, tag them in the order of their blocks, and make all tables.

    Args:
        p: The bits of a block.
        base: The graph that was split.
        rounds: The rounds of splitting.
        split: The graph after the last round.
        substitute: For each vertex after the last round, the vertex that stands in for it.
        home: For each vertex of the original graph, its vertex in ``base``, or -1.

    Returns:
        The encoder.
    """
    stay, state = np.unique(substitute, return_inverse=True)
    size, block = len(stay), base.block[split.origin]
    key = (state[split.source] * len(base.blocks) + block) * size + state[split.target]
    kept = np.unique(key[substitute[split.source] == split.source])
    degree = np.bincount(kept // size // len(base.blocks))
    rank = np.arange(len(kept)) - np.repeat(np.cumsum(degree) - degree, degree)
    kept = kept[rank < 1 << p]  # 2^p edges of each state
    at = np.minimum(np.searchsorted(kept, key), len(kept) - 1)
    tagged = kept[at] == key
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
        next=(kept % size).astype(np.int32),
        block=(np.searchsorted(chosen, kept // size % len(base.blocks)) + 1).astype(np.int32),
        blocks=np.concatenate([np.zeros_like(blocks[:1]), blocks]),
        lowest=lowest,
        trie=trie,
        vertex_sets=tuple(int(vertex) + 1 for vertex in home),
        anywhere=sets.index(frozenset(range(len(leads)))) if memory is not None else 0,
        step=step,
        edge=np.stack([edge[sorted(members)].max(axis=0, initial=0) for members in sets]).astype(np.int32),
        rounds=rounds,
        tag=tag,
    )


def _memory(edge, leads):
    """Return the smallest number of blocks after which the next block determines its edge, wherever the path started.

    The result is None if there is no such number. Two paths that share their blocks so far, and have not yet met at one
    vertex, are followed as pairs of vertices.
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
    """Return the sets of vertices, and the set to which each block leads from each of them: int32[sets, W + 1].

    The first sets are the empty one and the single vertices. When the memory is finite, these are followed by the set
    of all vertices and by the sets that are reached from there.
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
    """Return ``lowest`` and ``trie`` of an Encoder."""
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
    """The tables of an Encoder as the kernels take them: a pytree, to be replicated over devices.

    ``start`` is the state at which every path starts, and ``start_set`` is the set of its vertex. The other fields are
    those of Encoder.
    """

    start: Int32[Array, ""]
    start_set: Int32[Array, ""]
    next: Int32[Array, " entries"]
    block: Int32[Array, " entries"]
    blocks: Int32[Array, "blocks q"]
    trie: Int32[Array, "nodes labels"]
    step: Int32[Array, "sets blocks"]
    edge: Int32[Array, "sets blocks"]
    rounds: tuple[Round, ...]
    tag: Int32[Array, " edges"]


@dataclass(frozen=True)
class Shape:
    """The numbers of an Encoder that shape the kernels; ``Encoder`` explains them."""

    p: int
    q: int
    anticipation: int
    memory: int | None
    lowest: int
    anywhere: int


def on_device(encoder: Encoder, vertex: int = 0) -> tuple[Arrays, Shape]:
    """Move the tables to the device, for paths that start at a vertex of the graph: the arrays, and the static numbers.

    Raises GraphError when no state starts at that vertex.
    """
    if not 0 <= vertex < len(encoder.starts) or encoder.starts[vertex] < 0:
        possible = [v for v, state in enumerate(encoder.starts) if state >= 0]
        raise GraphError(f"no path of the {encoder.p}:{encoder.q} encoder starts at vertex {vertex}: use {possible}")
    start = np.array([encoder.starts[vertex], encoder.vertex_sets[vertex]], np.int32)
    tables = [getattr(encoder, name) for name in Arrays._fields[2:]]
    shape = Shape(*(getattr(encoder, field.name) for field in fields(Shape)))
    return jax.tree.map(jnp.asarray, Arrays(*start, *tables)), shape


def encode(arrays: Arrays, tags: Int32[Arrayish, "B n"], *, shape: Shape) -> Int32[Array, "B labels"]:
    """Encode tags into the labels of a path.

    Blocks of tag 0 come last, so that the reader sees far enough ahead.

    Args:
        arrays: The tables.
        tags: The tags, 0..2^p - 1.
        shape: The numbers of the tables.

    Returns:
        The (n + anticipation) * q labels.
    """
    tags = jnp.pad(tags, ((0, 0), (0, shape.anticipation)))

    def walk(strand):
        def step(state, tag):
            at = state << shape.p | tag
            return arrays.next[at], at

        return lax.scan(step, arrays.start, strand)[1]

    return arrays.blocks[arrays.block[jax.vmap(walk)(tags)]].reshape(len(tags), -1)


def decode(
    arrays: Arrays, labels: Int32[Arrayish, "B labels"], *, shape: Shape
) -> tuple[Int32[Array, "B n"], Bool[Array, " B"]]:
    """Decode the labels of a path into tags.

    Args:
        arrays: The tables.
        labels: The (n + anticipation) * q labels.
        shape: The numbers of the tables.

    Returns:
        The n tags, and whether ``encode`` makes these labels from these tags. If not, a tag whose window is wrong may
        have any value; the other tags are right.
    """
    blocks = _look_up_blocks(arrays.trie, labels, shape)
    edges = arrays.edge.reshape(-1)[_sets_before(arrays, blocks, shape) * arrays.edge.shape[1] + blocks]
    for part, copy in arrays.rounds:
        edges = copy.reshape(-1)[edges[:, :-1] * copy.shape[1] + part[edges[:, 1:]]]
    tags = jnp.maximum(arrays.tag[edges], 0)
    return tags, (encode(arrays, tags, shape=shape) == labels).all(axis=1)


def _look_up_blocks(trie, labels, shape):
    """Return the number of each block of q labels, or 0 for an unknown block: int32[B, n]."""
    width = trie.shape[1]
    code = labels.reshape(len(labels), -1, shape.q) - shape.lowest
    valid = (code >= 0) & (code < width)
    node = jnp.ones_like(code[:, :, 0])
    for k in range(shape.q):
        node = trie.reshape(-1)[jnp.where(valid[:, :, k], node * width + code[:, :, k], 0)]
    return node


def _sets_before(arrays, blocks, shape):
    """Return the set of vertices at which each block can start, given the ``memory`` blocks before it: int32[B, n]."""
    step, width = arrays.step.reshape(-1), arrays.step.shape[1]
    if shape.memory is None:

        def walk(strand):
            def follow(vertices, block):
                return step[vertices * width + block], vertices

            return lax.scan(follow, arrays.start_set, strand)[1]

        return jax.vmap(walk)(blocks)
    number = lax.broadcasted_iota(jnp.int32, blocks.shape, 1)
    vertices = jnp.where(number <= shape.memory, arrays.start_set, shape.anywhere)
    for back in range(shape.memory, 0, -1):
        before = jnp.pad(blocks, ((0, 0), (back, 0)))[:, : blocks.shape[1]]
        vertices = jnp.where(number >= back, step[vertices * width + before], vertices)
    return vertices


# ---- bits <-> tags --------------------------------------------------------------------------------


def to_tags(words: UInt32[Arrayish, "B words"], *, shape: Shape, length: int) -> Int32[Array, "B {length}"]:
    """Convert payload words into tags.

    Args:
        words: The payloads, with the first bit most significant.
        shape: The numbers of the tables.
        length: The number of tags; the bits past the last word are 0.

    Returns:
        The tags.
    """
    return _regroup(words, 32, shape.p, length).astype(jnp.int32)


def from_tags(tags: Int32[Arrayish, "B n"], *, shape: Shape, bits: int) -> UInt32[Array, "B {-(-bits//32)}"]:
    """Convert tags into payload words.

    Args:
        tags: The tags.
        shape: The numbers of the tables.
        bits: The number of payload bits; zeros follow them in the last word.

    Returns:
        The payloads, with the first bit most significant.
    """
    words = _regroup(tags.astype(jnp.uint32), shape.p, 32, -(-bits // 32))
    last = np.uint32((0xFFFFFFFF << (-bits % 32)) & 0xFFFFFFFF)
    return words.at[:, -1:].set(words[:, -1:] & last)


def _regroup(numbers, size, new, length):
    """Regroup uint32[B, n] of ``size`` bits each into uint32[B, length] of ``new`` bits each, zeros past the end."""
    shifts = np.arange(size - 1, -1, -1, dtype=np.uint32)
    bits = ((numbers[:, :, None] >> shifts[None, None]) & 1).reshape(len(numbers), -1)
    bits = jnp.pad(bits, ((0, 0), (0, max(0, length * new - bits.shape[1]))))[:, : length * new]
    weights = np.uint32(1) << np.arange(new - 1, -1, -1, dtype=np.uint32)
    return (bits.reshape(len(numbers), length, new) * weights[None, None]).sum(axis=2, dtype=jnp.uint32)
