"""Noisy copies of one strand -> the strand, and the next likely ones: a beam search along the strand.

The hidden state is the strand; given it, each copy is an independent hidden Markov chain whose position is how many of
the copy's bases are consumed. ``candidates`` follows the most likely beginnings of the strand, base by base, and keeps
for each beginning the exact forward probabilities of every copy, in a band about the copy's diagonal. The constraint
automaton says which base may follow and how likely it is (its max-entropic weights), so that a beginning which leaves
the automaton is never followed; the strand's length settles where all copies must end. Beginnings are ranked by their
probability and by how much of the copies they have consumed (``WORTH``): the rest of the copies must still be paid for.

``emissions`` says once what each copy shows in its band. ``extend`` is one step along the strand: ``base_gains`` and
``base_log_priors`` score the next base, ``rank`` keeps the best beginnings, ``advance_band`` moves the copies on, and
``close`` scores each beginning as a whole strand. ``trace_back`` reads the strands off at the end.

The result is a list, the most likely strand first. Its reader tries one strand after the other against the packet's
check (``recover``): the check bits of a strand serve as its inner code.

``timing.alignment`` does for the timing channel what this does here; there runs are consumed, and levels followed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8, UInt32

from helix_jax.tk_scone.coder import DeviceTables, Shape

Arrayish = Array | np.ndarray
Number = Float32[Array, ""] | np.float32

PAD = 255  # the value past the end of a read, which is no base
NOTHING = -1e9  # log probability of the impossible
# What a consumed base is worth when beginnings are ranked. Without it a beginning that has consumed less of the copies
# looks better than the right one. log 4 would be the price of a base under random letters; less turned out to be best
# (5 % errors, 3 copies: the strand is in the list of 32 in 45 % of cases at 0, 88 % at 1.0, 90 % at log 4, and 93 % at
# 1.2).
WORTH = 1.1
AMISS = -1e4  # the same, for a copy of which another length of the strand would make sense
_LEAST = 1e-30


class Rates(NamedTuple):
    """What the search knows of the channel.

    Attributes:
        deletion: Deleted bases per base.
        insertion: Share of a read's wrong bases that were inserted; the others were substituted.
    """

    deletion: Number
    insertion: Number


def unconstrained(length: int) -> tuple[DeviceTables, Shape]:
    """Return an automaton that allows everything, in the form of ``tk_scone.coder.on_device``."""
    quarter = 1 << 13
    rows = np.array([quarter | 2 * quarter << 16, 3 * quarter, 0, 0, 0, 0, 0, 0], np.uint32)
    return DeviceTables(jnp.asarray(rows), jnp.zeros(1, jnp.uint32)), Shape(0, 0, length, length, 2 * length)


class Emissions(NamedTuple):
    """What each copy shows in a band of its positions, after each number of the strand's bases.

    Position p of a copy means that p of its bases are consumed, so that base p is the next one.

    Attributes:
        offset: The first position of the band.
        base: The base at each position.
        match: The probability that the next base of the strand is read as this base if it is the same one.
        mismatch: The same if it is a certain other one.
        inserted: The probability that this base is none of the strand's.
    """

    offset: Int32[Array, "steps N"]
    base: UInt8[Array, "steps N W"]
    match: Float32[Array, "steps N W"]
    mismatch: Float32[Array, "steps N W"]
    inserted: Float32[Array, "steps N W"]


class Beam(NamedTuple):
    """The beginnings of the strand that are followed.

    Attributes:
        forward: The forward probabilities of each copy by its position in the band, which sum to about 1.
        score: The log probability of each beginning and of what the copies have consumed.
        base: The last base of each beginning.
        row: The row of the automaton's tables that each beginning has reached.
    """

    forward: Float32[Array, "N beam W"]
    score: Float32[Array, " beam"]
    base: Int32[Array, " beam"]
    row: UInt32[Array, " beam"]


class Step(NamedTuple):
    """What the step that appends one base to the beginnings needs to know. ``lax.scan`` takes an array of them.

    Attributes:
        base: As in ``Emissions``, before the step.
        match: As in ``Emissions``, before the step.
        mismatch: As in ``Emissions``, before the step.
        inserted: As in ``Emissions``, after the step, in the band of before.
        shift: The number of positions that the band moves on.
        last_of_head: Whether the step ends the automaton's head.
        end: The end of each copy as a position in the band after the step.
    """

    base: UInt8[Array, "N W"]
    match: Float32[Array, "N W"]
    mismatch: Float32[Array, "N W"]
    inserted: Float32[Array, "N 1 W"]
    shift: Int32[Array, " N"]
    last_of_head: Bool[Array, ""]
    end: Int32[Array, " N"]


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
        can be inferred. Scores are log probabilities of strand and copies, in falling order; below -1e8 there is no
        strand.
    """
    tables, rates = constants
    search = functools.partial(_search_one, tables, rates, shape=shape, beam=beam, band=band)
    return jax.vmap(search)(reads, lengths, doubt)


def _search_one(tables, rates, reads, lengths, doubt, *, shape, beam, band):
    """``candidates`` of one group of copies: reads uint8[N, R], lengths int32[N], doubt float32[N, R]."""
    worth = jnp.exp(WORTH * (jnp.arange(band + 1, dtype=jnp.float32) - band // 2))
    present = lengths > 0
    shown = emissions(rates, reads, lengths, doubt, length=shape.length, band=band)
    start = jnp.zeros((len(lengths), beam, band), jnp.float32).at[..., band // 2].set(1.0)
    begin = Beam(
        forward=insert(start, shown.inserted[0][:, None]),
        score=jnp.full((beam,), NOTHING, jnp.float32).at[0].set(0.0),
        base=jnp.full((beam,), shape.first_base, jnp.int32),
        row=jnp.full((beam,), shape.start, jnp.uint32),
    )
    steps = Step(
        base=shown.base[:-1],
        match=shown.match[:-1],
        mismatch=shown.mismatch[:-1],
        inserted=shown.inserted[:-1][:, :, None],
        shift=jnp.diff(shown.offset, axis=0),
        last_of_head=jnp.asarray(np.arange(1, shape.length + 1) == shape.head),
        end=lengths[None] - shown.offset[1:],
    )
    step = functools.partial(extend, tables=tables, deletion=rates.deletion, present=present, worth=worth)
    parents, bases, finished, ends = lax.scan(step, begin, steps)[1]
    order = jnp.argsort(-finished[-1]).astype(jnp.int32)
    return trace_back(order, parents, bases), finished[-1][order], ends


def emissions(
    rates: Rates,
    reads: UInt8[Arrayish, "N R"],
    lengths: Int32[Arrayish, " N"],
    doubt: Float32[Arrayish, "N R"],
    *,
    length: int,
    band: int,
) -> Emissions:
    """Return what each copy shows in a band that follows the straight line from the copy's beginning to its end.

    Args:
        rates: What is known of the channel.
        reads: The copies.
        lengths: The length of each copy.
        doubt: The probability that each base is wrong.
        length: The number of the strand's bases, one less than that of the steps in the result.
        band: The number of positions of the band.

    Returns:
        The emissions. All probabilities are 0 outside the copy.
    """
    steps = jnp.arange(length + 1, dtype=jnp.float32)
    offset = jnp.round(steps[:, None] * (lengths.astype(jnp.float32) / length)[None]).astype(jnp.int32) - band // 2
    position = offset[:, :, None] + jnp.arange(band, dtype=jnp.int32)[None, None]
    inside = (position >= 0) & (position < lengths[None, :, None])
    clipped = jnp.clip(position, 0, reads.shape[1] - 1)
    base = jnp.take_along_axis(reads[None], clipped, axis=2)
    wrong = jnp.take_along_axis(doubt[None], clipped, axis=2)
    match = jnp.where(inside, (1 - rates.deletion) * (1 - wrong), 0.0)
    mismatch = jnp.where(inside, (1 - rates.deletion) * (1 - rates.insertion) / 3 * wrong, 0.0)
    return Emissions(offset, base, match, mismatch, jnp.where(inside, rates.insertion / 4 * wrong, 0.0))


def extend(
    beam: Beam,
    step: Step,
    *,
    tables: DeviceTables,
    deletion: Number,
    present: Bool[Arrayish, " N"],
    worth: Float32[Arrayish, " positions"],
) -> tuple[Beam, tuple[Int32[Array, " beam"], Int32[Array, " beam"], Float32[Array, " beam"], Float32[Array, ""]]]:
    """Append one base to the beginnings: the body of the scan along the strand.

    Args:
        beam: The beginnings.
        step: The step.
        tables: The tables of the automaton.
        deletion: The deleted bases per base.
        present: The mask of the copies that exist.
        worth: What each position of the band is worth when beginnings are ranked; one more than the band has.

    Returns:
        The longer beginnings; and of each the number of the beginning that it continues, its new base, and its score as
        a whole strand; and the best such score among copies that all end here.
    """
    letters = jnp.arange(4, dtype=jnp.int32)
    match = jnp.where(step.base[:, None] == letters[None, :, None], step.match[:, None], step.mismatch[:, None])
    moving = beam.forward[:, :, None] * match[:, None]
    gain, ahead = (
        base_gains(beam.forward, moving, deletion=deletion, present=present, worth=each)
        for each in (jnp.ones_like(worth), worth)
    )
    score = beam.score[:, None] + gain + base_log_priors(tables, beam.row, beam.base)
    parent, base, score = rank(score, score + ahead - gain)

    forward = advance_band(beam.forward[:, parent], match[:, base], step.inserted, step.shift, deletion=deletion)
    finished, ended = close(score, forward, step.end, present=present)
    row = advance_rows(tables, beam.row[parent], beam.base[parent], base, step.last_of_head)
    return Beam(forward, jnp.maximum(score, NOTHING), base, row), (parent, base, finished, ended.max())


def base_gains(
    forward: Float32[Arrayish, "N beam W"],
    moving: Float32[Arrayish, "N beam 4 W"],
    *,
    deletion: Number,
    present: Bool[Arrayish, " N"],
    worth: Float32[Arrayish, " positions"],
) -> Float32[Array, "beam 4"]:
    """Return the log probability that the copies give to each next base of each beginning.

    Args:
        forward: The forward probabilities.
        moving: Their products with the probability that each base is written and read as the next one of the copy.
        deletion: The deleted bases per base.
        present: The mask of the copies that exist; the others count for nothing.
        worth: The weight of the position that is reached, where ``moving`` reaches one further than the band.
    """
    stay = deletion * (forward * worth[None, None, :-1]).sum(-1)
    total = jnp.log(jnp.maximum(stay[..., None] + (moving * worth[None, None, None, 1:]).sum(-1), _LEAST))
    return jnp.where(present[:, None, None], total, 0.0).sum(0)


def base_log_priors(
    tables: DeviceTables, row: UInt32[Arrayish, " beam"], previous: Int32[Arrayish, " beam"]
) -> Float32[Array, "beam 4"]:
    """Return the log probability of each next base under the automaton; NOTHING for one that it forbids."""
    pair = _entry(tables, 8 * row)
    counts = jnp.stack([pair & 0xFFFF, pair >> 16, _entry(tables, 8 * row + 1)], axis=-1)
    edges = jnp.pad(counts.astype(jnp.float32), ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1 << 15)))
    share = jnp.diff(edges, axis=-1)  # shares of the differences 0..3
    difference = jnp.arange(4, dtype=jnp.int32)[None] ^ previous[:, None]
    share = jnp.take_along_axis(share, difference, axis=-1)
    return jnp.where(share > 0, jnp.log(jnp.maximum(share, 1.0) / (1 << 15)), NOTHING)


def advance_rows(
    tables: DeviceTables,
    row: UInt32[Arrayish, " beam"],
    previous: Int32[Arrayish, " beam"],
    base: Int32[Arrayish, " beam"],
    last_of_head: Bool[Array, ""] | np.bool_,
) -> UInt32[Array, " beam"]:
    """Return the rows of the automaton that follow.

    Args:
        tables: The tables of the automaton.
        row: The row of each beginning.
        previous: The last base of each beginning.
        base: The base that is appended to it.
        last_of_head: Whether this base is the last one that the head's rows write.
    """
    row = _entry(tables, row * 8 + 2 + (base ^ previous).astype(jnp.uint32))
    return jnp.where(last_of_head, tables.joint.at[row].get(mode="clip"), row)


def _entry(tables, index):
    return tables.rows.at[index].get(mode="promise_in_bounds")


def rank(
    score: Float32[Array, "beam 4"], priority: Float32[Array, "beam 4"]
) -> tuple[Int32[Array, " beam"], Int32[Array, " beam"], Float32[Array, " beam"]]:
    """Return beginning, base and score of the extensions with the highest priority, as many as there are beginnings."""
    _, chosen = lax.top_k(priority.reshape(-1), len(score))
    return chosen // 4, chosen % 4, score.reshape(-1)[chosen]


def advance_band(
    forward: Float32[Arrayish, "N beam W"],
    match: Float32[Arrayish, "N beam W"],
    inserted: Float32[Arrayish, "N 1 W"],
    shift: Int32[Arrayish, " N"],
    *,
    deletion: Number,
) -> Float32[Array, "N beam W"]:
    """Return the forward probabilities after one more base of the strand, in the band as it has moved on.

    Args:
        forward: The forward probabilities before it.
        match: The probability that this base is written and read as the next one of the copy.
        inserted: The probability that the next base of the copy is none of the strand's.
        shift: The number of positions that the band moves on.
        deletion: The deleted bases per base.

    Returns:
        The probabilities, which sum to 1 before insertions and before the band leaves positions behind.
    """
    band = forward.shape[-1]
    moved = jnp.pad((forward * match)[..., :-1], ((0, 0), (0, 0), (1, 0)))
    after = moved + deletion * forward
    after = insert(after / jnp.maximum(after.sum(-1, keepdims=True), _LEAST), inserted)
    wide = jnp.pad(after, ((0, 0), (0, 0), (0, band)))
    return jax.vmap(lambda rows, by: lax.dynamic_slice_in_dim(rows, by, band, axis=1))(wide, shift)


def insert(forward: Float32[Arrayish, "N beam W"], inserted: Float32[Arrayish, "N 1 W"]) -> Float32[Array, "N beam W"]:
    """Return the forward probabilities after up to two bases that are none of the strand's."""
    once = jnp.pad((forward * inserted)[..., :-1], ((0, 0), (0, 0), (1, 0)))
    twice = jnp.pad((once * inserted)[..., :-1], ((0, 0), (0, 0), (1, 0)))
    return once + forward + twice


def close(
    score: Float32[Arrayish, " beam"],
    forward: Float32[Arrayish, "N beam W"],
    end: Int32[Arrayish, " N"],
    *,
    present: Bool[Arrayish, " N"],
) -> tuple[Float32[Array, " beam"], Float32[Array, " beam"]]:
    """Return the score of each beginning if it is the whole strand, in two ways.

    Args:
        score: The score of the beginnings.
        forward: The forward probabilities of the copies.
        end: The end of each copy as a position in its band, which may lie outside.
        present: The mask of the copies that exist.

    Returns:
        The score where a copy that does not end here weighs little, as it may be no copy at all; and the score where
        such a copy decides, by which the length is sought.
    """
    band = forward.shape[-1]
    at_end = jnp.take_along_axis(forward, jnp.clip(end, 0, band - 1)[:, None, None], axis=-1)[..., 0]
    at_end = ((end >= 0) & (end < band)).astype(jnp.float32)[:, None] * at_end
    closing = jnp.log(jnp.maximum(at_end, _LEAST))
    finished, ended = (
        jnp.where(present[:, None], each, 0.0).sum(0) + score
        for each in (closing, jnp.where(at_end > _LEAST, closing, AMISS))
    )
    return finished, ended


def trace_back(
    order: Int32[Arrayish, " beam"], parents: Int32[Arrayish, "L beam"], bases: Int32[Arrayish, "L beam"]
) -> UInt8[Array, "beam L"]:
    """Return the strands that end as the numbers ``order`` say, from what ``extend`` returned for each step."""

    def back(beginning, step):
        parent, base = step
        return parent[beginning], base[beginning]

    return lax.scan(back, order, (parents, bases), reverse=True)[1].T.astype(jnp.uint8)
