"""Time units <-> rounds: labels of a path of the ordinary graph G' <-> letters and levels.

A label is what one time unit shows (see ``graph.ordinary_graph``): the number of the edge whose round begins there, or
that a run goes on. A path may end inside a run; the round is written whole, up to M - 1 units more.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from helix_jax.timing.graph import RUNNING


class Edges(NamedTuple):
    """The edges of a time table, by number and by what they write. letter, level: uint8[E + 1], 0 in the last place.
    number: int32[4 * 4 * levels], by (base, letter, level), -1 for none. time: int32 of the same shape, in units."""

    letter: np.ndarray
    level: np.ndarray
    number: np.ndarray
    time: np.ndarray


def edges_of(table):
    """The Edges of a ``graph.TimeTable``."""
    times, edges = table.array(), table.edges()
    number = np.full(times.shape, -1, np.int32)
    number[edges[:, 0], edges[:, 1], edges[:, 2]] = np.arange(len(edges))
    letter, level = np.append(edges[:, 1:3], [[0, 0]], axis=0).T.astype(np.uint8)
    return Edges(letter, level, number.reshape(-1), times.reshape(-1))


def to_rounds(edges, labels):
    """Labels of ``graph.ordinary_graph`` -> rounds.

    labels: int32[B, units], legal. Returns (letters uint8[B, units], levels uint8[B, units], rounds int32[B]): the
    first ``rounds`` columns count, the others are 0. All rounds are whole; the last may end after the last unit.
    """
    none = len(edges.letter) - 1

    def one(strand):
        begins = strand != RUNNING
        at = jnp.where(begins, jnp.cumsum(begins, dtype=jnp.int32) - 1, len(strand))
        number = jnp.full_like(strand, none).at[at].set(strand, mode="drop")
        return number, begins.sum(dtype=jnp.int32)

    number, rounds = jax.vmap(one)(labels)
    return jnp.asarray(edges.letter)[number], jnp.asarray(edges.level)[number], rounds


def from_rounds(edges, letters, levels, rounds, *, units, base=0):
    """Rounds -> labels: the inverse of ``to_rounds``.

    letters, levels: uint8[B, R]; rounds: int32[B], how many count. units: labels wanted. base: what was there before.
    Returns (labels int32[B, units], ok bool[B]); ok is False when a round is not in the time table, or when the last
    one does not begin before ``units`` and end there or later. Labels then mean nothing.
    """
    chex.assert_equal_shape([letters, levels])
    per_pair = len(edges.number) // 16

    def one(letters, levels, rounds):
        counts = jnp.arange(len(letters), dtype=jnp.int32) < rounds
        letters, levels = letters.astype(jnp.int32), levels.astype(jnp.int32)
        before = jnp.concatenate([letters[:1] * 0 + base, letters[:-1]])
        known = (letters < 4) & (before < 4) & (levels < per_pair)
        at = jnp.where(known, (before * 4 + letters) * per_pair + levels, 0)
        number = jnp.where(known, jnp.asarray(edges.number)[at], -1)
        time = jnp.where(counts, jnp.asarray(edges.time)[at], 0)
        end = jnp.cumsum(time, dtype=jnp.int32)
        labels = letters[:1] * 0 + jnp.full((units,), RUNNING, jnp.int32)
        labels = labels.at[jnp.where(counts, end - time, units)].set(number, mode="drop")
        last = end[-1] - time[jnp.clip(rounds, 1, len(time)) - 1]
        ok = ((number >= 0) | ~counts).all() & (rounds <= len(time)) & (last < units) & (end[-1] >= units)
        return labels, ok

    return jax.vmap(one)(letters, levels, rounds)
