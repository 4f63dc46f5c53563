"""Noisy copies of one strand -> the strand, and the next likely ones: a beam search along the strand.

The hidden state is the strand; given it, each copy is an independent hidden Markov chain whose position is how many of
the copy's bases are consumed. ``candidates`` follows the most likely beginnings of the strand, base by base, and keeps
for each beginning the exact forward probabilities of every copy, in a band about the copy's diagonal. The constraint
automaton says which base may follow and how likely it is (its max-entropic weights), so that a beginning which leaves
the automaton is never followed; the strand's length settles where all copies must end. Beginnings are ranked by their
probability and by how much of the copies they have consumed (``WORTH``): the rest of the copies must still be paid for.

The result is a list, the most likely strand first. Its reader tries one strand after the other against the packet's
check (``recover``): the check bits of a strand serve as its inner code.

``timing.alignment`` does for the timing channel what this does here; there runs are consumed, and levels followed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt8

from helix_jax.tk_scone.coder import DeviceTables, Shape

Arrayish = Array | np.ndarray

PAD = 255  # the value past the end of a read, which is no base
_NOTHING = -1e9  # log probability of the impossible
# What a consumed base is worth when beginnings are ranked. Without it a beginning that has consumed less of the copies
# looks better than the right one. log 4 would be the price of a base under random letters; less turned out to be best
# (5 % errors, 3 copies: the strand is in the list of 32 in 45 % of cases at 0, 88 % at 1.0, 90 % at log 4, and 93 % at
# 1.2).
WORTH = 1.1
_AMISS = -1e4  # the same, for a copy of which another length of the strand would make sense
_LEAST = 1e-30


class Rates(NamedTuple):
    """What the search knows of the channel.

    Attributes:
        deletion: Deleted bases per base.
        insertion: Share of a read's wrong bases that were inserted; the others were substituted.
    """

    deletion: Float32[Array, ""] | np.float32
    insertion: Float32[Array, ""] | np.float32


def unconstrained(length: int) -> tuple[DeviceTables, Shape]:
    """Return an automaton that allows everything, in the form of ``tk_scone.coder.on_device``."""
    quarter = 1 << 13
    rows = np.array([quarter | 2 * quarter << 16, 3 * quarter, 0, 0, 0, 0, 0, 0], np.uint32)
    return DeviceTables(jnp.asarray(rows), jnp.zeros(1, jnp.uint32)), Shape(0, 0, length, length, 2 * length)


def candidates(
    constants: tuple[DeviceTables, Rates],
    reads: UInt8[Arrayish, "B N R"],
    lengths: Int32[Arrayish, "B N"],
    doubt: Float32[Arrayish, "B N R"],
    *,
    shape: Shape,
    beam: int,
    band: int,
) -> tuple[UInt8[Array, "B {beam} L"], Float32[Array, "B {beam}"], Float32[Array, "B L"]]:
    """Return the most likely strands of each group of copies. The function is pure and batched; the caller jits it.

    Args:
        constants: The tables of the automaton, and what is known of the channel.
        reads: Copies in the strand's direction.
        lengths: The length of each copy; a copy of length 0 is absent.
        doubt: The probability that each base is wrong.
        shape: The numbers of the automaton; its length is the strands'.
        beam: Beginnings followed at once.
        band: Positions kept of each copy, about as many to either side of its diagonal.

    Returns:
        The strands, their scores, and the score of the best strand of each shorter length 1..L, from which the length
        can be told. Scores are log probabilities of strand and copies, in falling order; below -1e8 there is no strand.
    """
    tables, rates = constants
    length = shape.length
    worth = jnp.exp(WORTH * (jnp.arange(band + 1, dtype=jnp.float32) - band // 2))
    letters = jnp.arange(4, dtype=jnp.int32)

    def look_up(index):
        return tables.rows.at[index].get(mode="promise_in_bounds")

    def search_one(reads, lengths, doubt):
        copies = len(lengths)
        present = lengths > 0
        # The band follows the straight line from the copy's beginning to its end.
        steps = jnp.arange(length + 1, dtype=jnp.float32)
        offset = jnp.round(steps[:, None] * (lengths.astype(jnp.float32) / length)[None]).astype(jnp.int32) - band // 2
        position = offset[:, :, None] + jnp.arange(band, dtype=jnp.int32)[None, None]
        inside = (position >= 0) & (position < lengths[None, :, None])
        clipped = jnp.clip(position, 0, reads.shape[1] - 1)
        base = jnp.take_along_axis(reads[None], clipped, axis=2)
        wrong = jnp.take_along_axis(doubt[None], clipped, axis=2)
        right = jnp.where(inside, (1 - rates.deletion) * (1 - wrong), 0.0)
        other = jnp.where(inside, (1 - rates.deletion) * (1 - rates.insertion) / 3 * wrong, 0.0)
        inserted = jnp.where(inside, rates.insertion / 4 * wrong, 0.0)

        def insert(forward, inserted):
            """Allow up to two bases that are none of the strand's."""
            once = jnp.pad((forward * inserted)[..., :-1], ((0, 0), (0, 0), (1, 0)))
            twice = jnp.pad((once * inserted)[..., :-1], ((0, 0), (0, 0), (1, 0)))
            return forward + once + twice

        def step(carry, item):
            forward, past, previous, row = carry  # [N, beam, W], [beam], [beam], [beam]
            base, right, other, inserted, shift, last_of_head, end = item
            match = jnp.where(base[:, None] == letters[None, :, None], right[:, None], other[:, None])  # [N, 4, W]
            moving = forward[:, :, None] * match[:, None]  # [N, beam, 4, W]

            def gain_of(worth):
                """Return the log probability of each base, weighted by what each position that it leads to is worth."""
                stay = rates.deletion * (forward * worth[None, None, :-1]).sum(-1)
                total = jnp.log(jnp.maximum(stay[..., None] + (moving * worth[None, None, None, 1:]).sum(-1), _LEAST))
                return jnp.where(present[:, None, None], total, 0.0).sum(0)

            gain, ahead = gain_of(jnp.ones(band + 1, jnp.float32)), gain_of(worth)

            counts = jnp.stack([look_up(8 * row) & 0xFFFF, look_up(8 * row) >> 16, look_up(8 * row + 1)], axis=-1)
            edges = jnp.pad(counts.astype(jnp.float32), ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1 << 15)))
            share = jnp.diff(edges, axis=-1)  # shares of the differences 0..3
            difference = letters[None] ^ previous[:, None]
            share = jnp.take_along_axis(share, difference, axis=-1)
            prior = jnp.where(share > 0, jnp.log(jnp.maximum(share, 1.0) / (1 << 15)), _NOTHING)
            now = past[:, None] + gain + prior
            _, chosen = lax.top_k((now + ahead - gain).reshape(-1), beam)
            score = now.reshape(-1)[chosen]
            parent, letter = chosen // 4, chosen % 4

            mine = forward[:, parent]
            moved = jnp.pad((mine * match[:, letter])[..., :-1], ((0, 0), (0, 0), (1, 0)))
            after = rates.deletion * mine + moved
            after = after / jnp.maximum(after.sum(-1, keepdims=True), _LEAST)
            after = insert(after, inserted)
            # The band moves on by 0, 1 or more positions.
            wide = jnp.pad(after, ((0, 0), (0, 0), (0, band)))
            after = jax.vmap(lambda rows, by: lax.dynamic_slice_in_dim(rows, by, band, axis=1))(wide, shift)
            at_end = jnp.take_along_axis(after, jnp.clip(end, 0, band - 1)[:, None, None], axis=-1)[..., 0]
            at_end = ((end >= 0) & (end < band)).astype(jnp.float32)[:, None] * at_end
            # A copy that does not end here weighs little in the score, where it may be no copy at all, and decides
            # where the length is sought.
            closing = jnp.log(jnp.maximum(at_end, _LEAST))
            finished = score + jnp.where(present[:, None], closing, 0.0).sum(0)
            ended = score + jnp.where(present[:, None], jnp.where(at_end > _LEAST, closing, _AMISS), 0.0).sum(0)

            symbol = (letter ^ previous[parent]).astype(jnp.uint32)
            row = look_up(row[parent] * 8 + 2 + symbol)
            row = jnp.where(last_of_head, tables.joint.at[row].get(mode="clip"), row)
            return (after, jnp.maximum(score, _NOTHING), letter, row), (parent, letter, finished, ended.max())

        start = jnp.zeros((copies, beam, band), jnp.float32).at[..., band // 2].set(1.0)
        start = insert(start, inserted[0][:, None])
        past = jnp.full((beam,), _NOTHING, jnp.float32).at[0].set(0.0)
        previous = jnp.full((beam,), shape.first_base, jnp.int32)
        row = jnp.full((beam,), shape.start, jnp.uint32)
        last_of_head = jnp.asarray(np.arange(1, length + 1) == shape.head)
        # Bases inserted after step i lie in the band of that step, before the band moves on.
        after_step = inserted[:-1][:, :, None]
        items = (base[:-1], right[:-1], other[:-1], after_step, jnp.diff(offset, axis=0), last_of_head)
        begin = (start, past, previous, row)
        parents, chosen, finished, ends = lax.scan(step, begin, (*items, lengths[None] - offset[1:]))[1]
        order = jnp.argsort(-finished[-1]).astype(jnp.int32)

        def back(where, item):
            parent, letter = item
            return parent[where], letter[where]

        strands = lax.scan(back, order, (parents, chosen), reverse=True)[1].T.astype(jnp.uint8)
        return strands, finished[-1][order], ends

    return jax.vmap(search_one)(reads, lengths, doubt)
