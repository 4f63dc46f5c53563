"""From time units to rounds and back: labels of a path of the ordinary graph G', and letters with levels.

A label says what happens in one time unit (see ``graph.ordinary_graph``): it is the number of the edge whose round
begins there, or says that a run goes on. A path may end inside a run; that round is written in full, up to M - 1 units
longer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8

from helix_jax.timing.graph import RUNNING, TimeTable

Arrayish = Array | np.ndarray


class Edges(NamedTuple):
    """The edges of a time table, by their number and by what they write.

    Attributes:
        letter: The letter that each edge writes, with 0 in one further place.
        level: The level of each edge, with 0 in one further place.
        number: The number of the edge, by (base, letter, level) in a flattened array; -1 where there is none.
        time: The time of the edge in time units, likewise.
    """

    letter: UInt8[Arrayish, " edges"]
    level: UInt8[Arrayish, " edges"]
    number: Int32[Arrayish, " triples"]
    time: Int32[Arrayish, " triples"]


def edges_of(table: TimeTable) -> Edges:
    """Return the edges of a time table."""
    times, edges = table.array(), table.edges()
    number = np.full(times.shape, -1, np.int32)
    number[edges[:, 0], edges[:, 1], edges[:, 2]] = np.arange(len(edges))
    letter, level = np.append(edges[:, 1:3], [[0, 0]], axis=0).T.astype(np.uint8)
    return Edges(letter, level, number.reshape(-1), times.reshape(-1))


def to_rounds(
    edges: Edges, labels: Int32[Arrayish, "B units"]
) -> tuple[UInt8[Array, "B units"], UInt8[Array, "B units"], Int32[Array, " B"]]:
    """Convert valid labels of ``graph.ordinary_graph`` into rounds.

    The results are the letters, the levels, and the number of rounds. Only that many columns count, and the others are
    0. All rounds are whole; the last one may end after the last unit.
    """
    none = len(edges.letter) - 1

    def of_strand(strand):
        begins = strand != RUNNING
        at = jnp.where(begins, jnp.cumsum(begins, dtype=jnp.int32) - 1, len(strand))
        number = jnp.full_like(strand, none).at[at].set(strand, mode="drop")
        return number, begins.sum(dtype=jnp.int32)

    number, rounds = jax.vmap(of_strand)(labels)
    return jnp.asarray(edges.letter)[number], jnp.asarray(edges.level)[number], rounds


def from_rounds(
    edges: Edges,
    letters: UInt8[Arrayish, "B R"],
    levels: UInt8[Arrayish, "B R"],
    rounds: Int32[Arrayish, " B"],
    *,
    units: int,
    base: int = 0,
) -> tuple[Int32[Array, "B units"], Bool[Array, " B"]]:
    """Convert rounds into labels, as the inverse of ``to_rounds``.

    Args:
        edges: The edges of the time table.
        letters: The letter of each round.
        levels: The level of each round.
        rounds: The number of rounds that count.
        units: The number of labels.
        base: The base before the first round.

    Returns:
        The labels, and whether they are valid. They are not, and mean nothing, when a round is not in the time table,
        or when the last round does not begin before ``units`` and end there or later.
    """
    per_pair = len(edges.number) // 16

    def of_strand(letters, levels, rounds):
        counts = jnp.arange(len(letters), dtype=jnp.int32) < rounds
        letters, levels = letters.astype(jnp.int32), levels.astype(jnp.int32)
        before = jnp.concatenate([jnp.full_like(letters[:1], base), letters[:-1]])
        valid = (letters < 4) & (before < 4) & (levels < per_pair)
        at = jnp.where(valid, (before * 4 + letters) * per_pair + levels, 0)
        number = jnp.where(valid, jnp.asarray(edges.number)[at], -1)
        time = jnp.where(counts, jnp.asarray(edges.time)[at], 0)
        end = jnp.cumsum(time, dtype=jnp.int32)
        labels = jnp.full((units,), RUNNING, jnp.int32)
        labels = labels.at[jnp.where(counts, end - time, units)].set(number, mode="drop")
        last = end[-1] - time[jnp.clip(rounds, 1, len(time)) - 1]
        ok = ((number >= 0) | ~counts).all() & (rounds <= len(time)) & (last < units) & (end[-1] >= units)
        return labels, ok

    return jax.vmap(of_strand)(letters, levels, rounds)
