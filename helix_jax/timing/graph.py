"""Time table -> the timing graph G, and its ordinary graph G'.

G has the four bases as vertices and, for each allowed time of a transition b -> a, one edge of that length. G' replaces
an edge of length t by t edges of one time unit through t - 1 auxiliary vertices, so that paths of G' count time
(ISIT 2020, "Framework").
"""

import itertools
import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from helix_jax.errors import HelixError

BASES = "ACGT"


class GraphError(HelixError):
    """A time table or graph that cannot be used; the message names the transition or the vertices."""


@dataclass(frozen=True)
class TimeTable:
    """Allowed times of each transition.

    times: times[b][a] is the ascending tuple of integer times (>= 1, in time units) for which base a may be written
    after base b; level i of the transition is times[b][a][i]. () where the transition is not used, always for b == a.
    Raises GraphError for a time table that breaks these rules, or in which some base cannot be followed.
    """

    times: tuple[tuple[tuple[int, ...], ...], ...]

    def __post_init__(self):
        shape = [len(row) for row in self.times]
        if shape != [4, 4, 4, 4]:
            raise GraphError(f"time table: rows of {shape} transitions, not 4 x 4")
        for b, a in np.ndindex(4, 4):
            times = self.times[b][a]
            name = f"{BASES[b]}->{BASES[a]}"
            if b == a and times:
                raise GraphError(f"time table: {name} {times}: a base cannot follow itself, the runs would merge")
            if any(not isinstance(t, int) or t < 1 for t in times):
                raise GraphError(f"time table: {name} {times}: times are whole numbers of units, at least 1")
            if any(t >= u for t, u in itertools.pairwise(times)):
                raise GraphError(f"time table: {name} {times}: times must ascend")
        for b in range(4):
            if not any(self.times[b]):
                raise GraphError(f"time table: nothing may follow {BASES[b]}")

    @classmethod
    def parse(cls, text):
        """'A->C{1,2} A->G{1,3} ...' (as the talk's slide has it) -> TimeTable. Raises GraphError for anything else."""
        times: list[list[tuple[int, ...]]] = [[() for _ in BASES] for _ in BASES]
        for word in text.split():
            match = re.fullmatch(r"([ACGT])->([ACGT])\{(\d+(?:,\d+)*)\}", word)
            if not match:
                raise GraphError(f"time table: {word!r} is not of the form A->C{{1,2}}")
            b, a, numbers = match.groups()
            if times[BASES.index(b)][BASES.index(a)]:
                raise GraphError(f"time table: {b}->{a} is given twice")
            times[BASES.index(b)][BASES.index(a)] = tuple(int(n) for n in numbers.split(","))
        return cls(tuple(tuple(row) for row in times))

    @classmethod
    def uniform(cls, times):
        """The same tuple of times for all 12 transitions."""
        return cls(tuple(tuple(() if a == b else tuple(times) for a in range(4)) for b in range(4)))

    def __str__(self):
        return " ".join(
            f"{BASES[b]}->{BASES[a]}{{{','.join(map(str, self.times[b][a]))}}}"
            for b, a in np.ndindex(4, 4)
            if self.times[b][a]
        )

    @property
    def levels(self):
        """Most levels of any transition."""
        return max(len(times) for row in self.times for times in row)

    @property
    def longest(self):
        """Longest time."""
        return max(t for row in self.times for times in row for t in times)

    def array(self):
        """int32[4, 4, levels], 0 where there is no such level."""
        out = np.zeros((4, 4, self.levels), np.int32)
        for b, a in np.ndindex(4, 4):
            out[b, a, : len(self.times[b][a])] = self.times[b][a]
        return out

    def edges(self):
        """Edges of G in a fixed order (by b, a, level): int32[E, 4] of (b, a, level, time)."""
        table = self.array()
        return np.array([(*where, table[where]) for where in np.ndindex(table.shape) if table[where]], np.int32)


TALK = TimeTable.parse(
    "A->C{1,2} A->G{1,3} A->T{1,3} C->A{1,2} C->G{1,2} C->T{1,3} "
    "G->A{1,2} G->C{1,3} G->T{1,2} T->A{1,4} T->C{1,2} T->G{1,4}"
)  # the example of the ISIT 2020 talk


@dataclass(frozen=True, eq=False)
class Graph:
    """A finite labelled directed graph; parallel edges are allowed.

    source, target: int32[E], vertices 0..vertices - 1. label: int32[E], any numbers; equal labels are
    indistinguishable. names: one string per vertex, for messages.
    """

    vertices: int
    source: np.ndarray
    target: np.ndarray
    label: np.ndarray
    names: tuple[str, ...] = ()

    def __post_init__(self):
        ends = np.concatenate([self.source, self.target]).astype(np.int64)
        if not len(self.source) == len(self.target) == len(self.label):
            raise GraphError("graph: source, target and label differ in length")
        if ends.size and not 0 <= ends.min() <= ends.max() < self.vertices:
            wrong = ends[(ends < 0) | (ends >= self.vertices)][0]
            raise GraphError(f"graph: an edge ends at vertex {wrong}, and there are {self.vertices}")
        if self.names and len(self.names) != self.vertices:
            raise GraphError(f"graph: {len(self.names)} names for {self.vertices} vertices")

    @cached_property
    def adjacency(self):
        """int64[V, V]: number of edges from u to v."""
        out = np.zeros((self.vertices, self.vertices), np.int64)
        np.add.at(out, (self.source, self.target), 1)
        return out

    def name(self, vertex):
        """Name of a vertex."""
        return self.names[vertex] if self.names else str(vertex)

    def components(self):
        """Number of the strongly connected component of each vertex: int64[V]. A component may lack a cycle."""
        reach = self.adjacency > 0
        for _ in range(max(1, self.vertices.bit_length())):
            # float32 is multiplied many times faster than integers, and no sum of ones vanishes
            reach = reach | (reach.astype(np.float32) @ reach.astype(np.float32) > 0)
        both = (reach & reach.T) | np.eye(self.vertices, dtype=bool)
        return np.unique(both.argmax(axis=1), return_inverse=True)[1]

    def require_irreducible(self):
        """Raise GraphError, naming two vertices, unless every vertex is reached from every other."""
        component = self.components()
        if component.max(initial=0):
            other = int(np.flatnonzero(component != component[0])[0])
            raise GraphError(
                f"the graph is reducible: {self.name(0)} and {self.name(other)} do not lead to each other; "
                "give the transitions that close the way"
            )

    def period(self):
        """Greatest common divisor of the lengths of all cycles of an irreducible graph (in edges)."""
        self.require_irreducible()
        distance = np.full(self.vertices, -1)
        distance[0], frontier = 0, np.array([0])
        while len(frontier):
            step = np.unique(self.target[np.isin(self.source, frontier)])
            frontier = step[distance[step] < 0]
            distance[frontier] = distance.max() + 1
        return math.gcd(*(int(d) for d in distance[self.source] + 1 - distance[self.target]))

    def restrict(self, vertices):
        """Subgraph on an ascending array of vertices, renumbered."""
        place = np.full(self.vertices, -1)
        place[vertices] = np.arange(len(vertices))
        keep = (place[self.source] >= 0) & (place[self.target] >= 0)
        source, target = (place[end[keep]].astype(np.int32) for end in (self.source, self.target))
        return Graph(len(vertices), source, target, self.label[keep], tuple(self.name(v) for v in vertices))


RUNNING = -1  # label of a unit edge inside a run


def timing_graph(table):
    """G itself: edges labelled by their number in ``table.edges()``; lengths are ``table.edges()[:, 3]``."""
    edges = table.edges()
    return Graph(4, edges[:, 0], edges[:, 1], np.arange(len(edges), dtype=np.int32), tuple(BASES))


def ordinary_graph(table, *, merged=True):
    """G': every edge is one time unit.

    The first unit of edge e of G has label e (its number in ``table.edges()``), the others ``RUNNING``; so the
    presentation is deterministic. Vertices 0..3 are the bases. merged: the auxiliary vertices on the way to one base
    share a delay line "a~k" (base a after k more units); else every edge of G has its own.
    """
    names: list[str] = list(BASES)
    rows, line = [], {}

    def vertex(a, k, own):
        fresh = []
        while k - len(fresh) and (a, k - len(fresh), own) not in line:
            left = k - len(fresh)
            line[a, left, own] = len(names)
            names.append(f"{BASES[a]}~{left}" if own is None else f"{BASES[a]}~{left}:{own}")
            fresh.append(left)
        rows.extend((line[a, left, own], line.get((a, left - 1, own), a), RUNNING) for left in reversed(fresh))
        return line.get((a, k, own), a)

    for number, (b, a, _, time) in enumerate(table.edges().tolist()):
        rows.append((b, vertex(a, time - 1, None if merged else number), number))
    source, target, label = np.array(rows, np.int32).T
    return Graph(len(names), source, target, label, tuple(names))
