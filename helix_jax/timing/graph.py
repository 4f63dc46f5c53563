"""From a time table to the timing graph G, and to its ordinary graph G'.

G has the four bases as vertices, and one edge of length t for each allowed time t of a transition b -> a. G' replaces
an edge of length t by t edges of one time unit, which pass through t - 1 auxiliary vertices, so that the length of a
path of G' is its time (ISIT 2020, "Framework").
"""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int, Int32, Int64

from helix_jax.errors import HelixError

BASES = "ACGT"


class GraphError(HelixError):
    """A time table or graph cannot be used; the message names the transition or the vertices."""


@dataclass(frozen=True)
class TimeTable:
    """The allowed times of each transition.

    Attributes:
        times: ``times[b][a]`` is the ascending tuple of the integer times (at least 1, in time units) for which base a
            may be written after base b; level i of the transition is ``times[b][a][i]``. The tuple is empty where the
            transition is not used, and always for b == a.

    Raises:
        GraphError: The table breaks these rules, or some base cannot be followed by any other.
    """

    times: tuple[tuple[tuple[int, ...], ...], ...]

    def __post_init__(self) -> None:
        shape = [len(row) for row in self.times]
        if shape != [4, 4, 4, 4]:
            raise GraphError(f"time table: rows of {shape} transitions, not 4 x 4")
        for b, a in np.ndindex(4, 4):
            times = self.times[b][a]
            name = f"{BASES[b]}->{BASES[a]}"
            if b == a and times:
                raise GraphError(f"time table: {name} {times}: a base cannot follow itself, the runs would merge")
            if any(t < 1 for t in times):
                raise GraphError(f"time table: {name} {times}: times are whole numbers of units, at least 1")
            if any(t >= u for t, u in itertools.pairwise(times)):
                raise GraphError(f"time table: {name} {times}: times must ascend")
        for b in range(4):
            if not any(self.times[b]):
                raise GraphError(f"time table: nothing may follow {BASES[b]}")

    @classmethod
    def parse(cls, text: str) -> "TimeTable":
        """Parse a text such as 'A->C{1,2} A->G{1,3} ...', the notation of the talk's slide.

        Raises GraphError for anything else.
        """
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
    def uniform(cls, times: Iterable[int]) -> "TimeTable":
        """Make the table that has the same times for all 12 transitions. Raises GraphError for times that are wrong."""
        return cls(tuple(tuple(() if a == b else tuple(times) for a in range(4)) for b in range(4)))

    def __str__(self) -> str:
        return " ".join(
            f"{BASES[b]}->{BASES[a]}{{{','.join(map(str, self.times[b][a]))}}}"
            for b, a in np.ndindex(4, 4)
            if self.times[b][a]
        )

    @property
    def levels(self) -> int:
        """The largest number of levels of any transition."""
        return max(len(times) for row in self.times for times in row)

    @property
    def longest(self) -> int:
        """The longest time."""
        return max(t for row in self.times for times in row for t in times)

    def array(self) -> Int32[np.ndarray, "4 4 levels"]:
        """Return the times by (b, a, level), with 0 where there is no such level."""
        out = np.zeros((4, 4, self.levels), np.int32)
        for b, a in np.ndindex(4, 4):
            out[b, a, : len(self.times[b][a])] = self.times[b][a]
        return out

    def edges(self) -> Int32[np.ndarray, "E 4"]:
        """Return the edges of G as rows (b, a, level, time), in a fixed order: by b, then a, then level."""
        table = self.array()
        return np.array([(*where, table[where]) for where in np.ndindex(table.shape) if table[where]], np.int32)


TALK = TimeTable.parse(
    "A->C{1,2} A->G{1,3} A->T{1,3} C->A{1,2} C->G{1,2} C->T{1,3} "
    "G->A{1,2} G->C{1,3} G->T{1,2} T->A{1,4} T->C{1,2} T->G{1,4}"
)  # the example of the ISIT 2020 talk


@dataclass(frozen=True, eq=False)
class Graph:
    """A finite labelled directed graph, in which parallel edges are allowed.

    Attributes:
        vertices: The number of vertices, which are numbered from 0.
        source: The vertex at which each edge begins.
        target: The vertex at which each edge ends.
        label: The label of each edge, which may be any number; edges with equal labels are indistinguishable.
        names: One string per vertex, for messages; or empty.

    Raises:
        GraphError: An edge ends at no vertex, or the names do not fit the vertices.
    """

    vertices: int
    source: Int[np.ndarray, " E"]
    target: Int[np.ndarray, " E"]
    label: Int[np.ndarray, " E"]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ends = np.concatenate([self.source, self.target]).astype(np.int64)
        if ends.size and not 0 <= ends.min() <= ends.max() < self.vertices:
            wrong = ends[(ends < 0) | (ends >= self.vertices)][0]
            raise GraphError(f"graph: an edge ends at vertex {wrong}, and there are {self.vertices}")
        if self.names and len(self.names) != self.vertices:
            raise GraphError(f"graph: {len(self.names)} names for {self.vertices} vertices")

    @cached_property
    def adjacency(self) -> Int64[np.ndarray, "V V"]:
        """The number of edges from u to v, at [u, v]."""
        out = np.zeros((self.vertices, self.vertices), np.int64)
        np.add.at(out, (self.source, self.target), 1)
        return out

    def name(self, vertex: int | np.integer) -> str:
        """Return the name of a vertex: its number where the graph has no names."""
        return self.names[vertex] if self.names else str(vertex)

    def components(self) -> Int[np.ndarray, " V"]:
        """Return the number of the strongly connected component of each vertex. A component may lack a cycle."""
        reach = self.adjacency > 0
        for _ in range(max(1, self.vertices.bit_length())):
            # float32 matrices multiply many times faster than integer ones, and no sum of ones vanishes
            reach = reach | (reach.astype(np.float32) @ reach.astype(np.float32) > 0)
        both = (reach & reach.T) | np.eye(self.vertices, dtype=bool)
        return np.unique(both.argmax(axis=1), return_inverse=True)[1]

    def require_irreducible(self) -> None:
        """Raise GraphError, naming two vertices, unless every vertex can be reached from every other."""
        component = self.components()
        if component.max(initial=0):
            other = int(np.flatnonzero(component != component[0])[0])
            raise GraphError(
                f"the graph is reducible: {self.name(0)} and {self.name(other)} do not lead to each other; "
                "give the transitions that close the way"
            )

    def period(self) -> int:
        """Return the greatest common divisor of the lengths, in edges, of all cycles of an irreducible graph.

        Raises GraphError for a reducible graph.
        """
        self.require_irreducible()
        distance = np.full(self.vertices, -1)
        distance[0], frontier = 0, np.array([0])
        while len(frontier):
            neighbours = np.unique(self.target[np.isin(self.source, frontier)])
            frontier = neighbours[distance[neighbours] < 0]
            distance[frontier] = distance.max() + 1
        return math.gcd(*(int(d) for d in distance[self.source] + 1 - distance[self.target]))

    def restrict(self, vertices: Int[np.ndarray, " kept"]) -> "Graph":
        """Return the subgraph on the given vertices, an ascending array, which it numbers anew from 0."""
        new_number = np.full(self.vertices, -1)
        new_number[vertices] = np.arange(len(vertices))
        keep = (new_number[self.source] >= 0) & (new_number[self.target] >= 0)
        source, target = (new_number[end[keep]].astype(np.int32) for end in (self.source, self.target))
        return Graph(len(vertices), source, target, self.label[keep], tuple(self.name(v) for v in vertices))


RUNNING = -1  # the label of a unit edge inside a run


def timing_graph(table: TimeTable) -> Graph:
    """Return G itself, with each edge labelled by its number in ``table.edges()``.

    The lengths of the edges are ``table.edges()[:, 3]``.
    """
    edges = table.edges()
    return Graph(4, edges[:, 0], edges[:, 1], np.arange(len(edges), dtype=np.int32), tuple(BASES))


def ordinary_graph(table: TimeTable, *, merged: bool = True) -> Graph:
    """Return G', in which every edge is one time unit.

    The first unit of edge e of G has the label e (its number in ``table.edges()``) and the other units have the label
    ``RUNNING``, so the presentation is deterministic. Vertices 0..3 are the bases. With ``merged``, the auxiliary
    vertices on the way to one base share a delay line: "a~k" leads to base a after k more units. Without it, every edge
    of G has auxiliary vertices of its own.
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
