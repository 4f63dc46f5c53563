"""The steps of ``both_ways``: the likeliest strings of (letter, level), gathered by the place that they have reached.

A place is the last letter of a string with the exact forward probabilities of all copies. Strings of one place have the
same future, whatever their past, so that they are ranked and moved on together; they differ in the state of their hash,
by which the check letters tell them apart. A beam of so many places follows many more strings than one of single
strings: two strings that differ in an old level, or in the order of two letters, soon share a place.

The forward probabilities include the worth of what remains of each copy (``window.log_remainders``), so that one
product of matrices scores all extensions.

``extend`` is one step, in either direction. Backwards, copies are read from their end, and the last letter of a string
has no run yet: its law depends on the letter before it, which the next step chooses.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt8, UInt32

from helix_jax.timing import frame, reversible
from helix_jax.timing.beam import Copies
from helix_jax.timing.window import LEAST, NOTHING, Model, base_likelihoods, cut, likeliest_position

STRINGS = 16  # strings of each place
FAMILIES = 12  # extensions that may reach one place; those past it are dropped
KEPT = 32  # places of each round in which strings from both ends may meet
KEPT_STRINGS = 8  # strings of each of these
_FINENESS = 16.0  # places are equal if all their probabilities, in such parts, round to equal numbers

Arrayish = Array | np.ndarray


class Places(NamedTuple):
    """The places that are followed, the likeliest first, and their strings, the likeliest first.

    Attributes:
        forward: The forward probabilities of each copy by its position in the window, with the worth of its remainder.
        letter: The last letter of each place.
        score: The log probability of each string and of its copies, with the worth of their remainders; ``NOTHING``
            where there is no string.
        state: The state of the hash of each string.
        offset: The first position of each copy's window.
    """

    forward: Float32[Array, "N places W"]
    letter: Int32[Array, " places"]
    score: Float32[Array, "places strings"]
    state: UInt32[Array, "places strings"]
    offset: Int32[Array, " N"]


class Round(NamedTuple):
    """A round of the layout; ``lax.scan`` takes an array of them.

    Attributes:
        kind: Its kind.
        worth: The worth of the digit that it writes, as in ``frame.Frame.places``.
    """

    kind: Int32[Arrayish, "*rounds"]
    worth: UInt32[Arrayish, "*rounds"]


class Trace(NamedTuple):
    """Where the strings of a round come from.

    Attributes:
        parent: The number of the string that each continues.
        symbol: letter * levels + level of the extension, where backwards the level is that of the letter after it.
    """

    parent: Int32[Array, "*rounds places strings"]
    symbol: UInt8[Array, "*rounds places strings"]


def start(copies: int, places: int, window: int, letters: int, state: int) -> Places:
    """Return the strings before the first step: one for each of so many last letters, all of the same state."""
    first = (jnp.arange(places, dtype=jnp.int32)[:, None] < letters) & (jnp.arange(STRINGS, dtype=jnp.int32) == 0)[None]
    return Places(
        forward=jnp.zeros((copies, places, window), jnp.float32).at[..., 0].set(1.0),
        letter=jnp.arange(places, dtype=jnp.int32) % letters,
        score=jnp.where(first, 0.0, jnp.float32(NOTHING)),
        state=jnp.full((places, STRINGS), state, jnp.uint32),
        offset=jnp.zeros(copies, jnp.int32),
    )


def kept(places: Places) -> Places:
    """Return the likeliest places and strings alone, for the meeting."""
    return Places(
        places.forward[:, :KEPT],
        places.letter[:KEPT],
        places.score[:KEPT, :KEPT_STRINGS],
        places.state[:KEPT, :KEPT_STRINGS],
        places.offset,
    )


def extend(
    places: Places, each: Round, *, model: Model, copies: Copies, bits: int, backwards: bool
) -> tuple[Places, Trace]:
    """Append a letter and a level to the strings: the body of the scan along the strand.

    Args:
        places: The places.
        each: The round of the new letter; backwards, that of the last letter, whose run is read now.
        model: The model of the channel.
        copies: The copies.
        bits: The number of bits of the hash.
        backwards: Whether the strand is read from its end.

    Returns:
        The new places, and where their strings come from.
    """
    levels, longest = model.emission.shape[2], model.emission.shape[3] - 1
    count, window = places.letter.shape[0], places.forward.shape[-1]
    cuts = jax.vmap(cut, in_axes=(0, 0, None))
    forward, offset = _follow(places.forward, places.offset)
    reach = _reach(model, cuts(copies.reads, offset, window), cuts(copies.future, offset, window), longest)
    emission = model.emission.swapaxes(0, 1) if backwards else model.emission  # [last letter, new letter, level, run]
    prior = model.prior[jnp.minimum(each.kind, 1)]
    prior = prior.swapaxes(0, 1) if backwards else prior
    if backwards:
        own = reach[:, places.letter]
        runs = (forward[:, :, None] * own).sum(-1)[:, :, None]  # the run is that of the last letter, whatever comes
    else:
        own = reach
        runs = jnp.einsum("npw,narw->npar", forward, reach, precision=lax.Precision.HIGHEST)
    total = (runs[:, :, :, None] * emission[places.letter][None]).sum(-1)  # [N, places, 4, levels]
    logs = jnp.where(copies.present[:, None, None, None], jnp.log(jnp.maximum(total, LEAST)), 0.0).sum(0)
    gain = logs + prior[places.letter]

    allowed = _allowed(places, each, bits, backwards)
    best = jnp.where(allowed, places.score[..., None], NOTHING).max(1)
    priority, chosen = lax.top_k((best[..., None] + gain).reshape(-1), count)
    parent, symbol = chosen // (4 * levels), chosen % (4 * levels)
    letter, level = symbol // levels, symbol % levels
    exists = priority > NOTHING / 2
    forward = _advance(
        forward[:, parent], own[:, parent if backwards else letter], emission[places.letter[parent], letter, level]
    )
    follows = jnp.take_along_axis(allowed[parent], letter[:, None, None], 2)[..., 0] & exists[:, None]
    score = jnp.where(follows, places.score[parent] + gain[parent, letter, level][:, None], NOTHING)
    state = _state_after(places.state[parent], places.letter[parent][:, None], letter[:, None], each, bits, backwards)
    score, state, family, member = _gathered(score, state, _families(forward, letter, exists))
    trace = Trace(parent[family] * STRINGS + member, symbol[family].astype(jnp.uint8))
    return Places(forward, letter, score, state, offset), trace


def _follow(forward, offset):
    """Move the windows on to the likeliest position of each copy in the best place: (forward, offset)."""
    window = forward.shape[-1]
    middle = likeliest_position(forward[:, 0], jnp.arange(window, dtype=jnp.int32)[None])
    shift = jnp.maximum(middle - window // 3, 0)
    wide = jnp.pad(forward, ((0, 0), (0, 0), (0, window)))
    return jax.vmap(lambda rows, at: lax.dynamic_slice_in_dim(rows, at, window, axis=1))(wide, shift), offset + shift


def _reach(model, bases, rest, longest):
    """Return the likelihood that a run of each letter and length begins at each position: float32[N, 4, runs, W].

    It includes the worth of the position that the run reaches, relative to where it begins, and is 0 past the window.
    """
    window = bases.shape[-1]
    match = jnp.pad(base_likelihoods(model, bases), ((0, 0), (0, 0), (0, longest)))
    rest = jnp.pad(rest, ((0, 0), (0, longest)))
    likelihood, runs = jnp.ones_like(match[..., :window]), []
    for run in range(longest + 1):
        worth = jnp.exp(jnp.clip(rest[:, run : run + window] - rest[:, :window], -60, 60))
        runs.append(likelihood * worth[None])
        likelihood = likelihood * match[..., run : run + window]
    return jnp.stack(runs).transpose(2, 1, 0, 3)


def _allowed(places, each, bits, backwards):
    """Return the mask of the letters that may come next, by the check letters: bool[places, strings, 4]."""
    four, last = jnp.arange(4, dtype=jnp.int32)[None, None], places.letter[:, None, None]
    if backwards:  # the last letter is held against the state before it, after each letter that may be before it
        before = reversible.undo(places.state, jnp.broadcast_to(places.letter[:, None], places.state.shape), bits)
        return (each.kind != frame.CHECK) | ((four + 1 + reversible.digit(before)[..., None]) % 4 == last)
    ends = each.kind == frame.END
    step = jnp.where(ends, frame.end_digit(places.state, each.worth), reversible.digit(places.state))
    return (each.kind != frame.CHECK) & ~ends | ((last + 1 + step[..., None]) % 4 == four)


def _state_after(state, last, letter, each, bits, backwards):
    """Return the states after one more letter, or backwards before the last one: uint32[extensions, strings]."""
    shape = state.shape
    if backwards:
        written = ((last - letter - 1) % 4).astype(jnp.uint32) * each.worth
        return jnp.where(
            each.kind == frame.END, state + written, reversible.undo(state, jnp.broadcast_to(last, shape), bits)
        )
    return jnp.where(each.kind == frame.END, state, reversible.absorb(state, jnp.broadcast_to(letter, shape), bits))


def _advance(forward, runs, law):
    """Return the forward probabilities after one more run, float32[N, extensions, W], normalised.

    forward: float32[N, extensions, W]. runs: ``_reach`` of the letter of the run, float32[N, extensions, runs, W].
    law: the probability of each run length, float32[extensions, runs].
    """
    after = jnp.zeros_like(forward)
    for run in range(law.shape[1]):
        moved = forward * runs[:, :, run] * law[None, :, run, None]
        after += jnp.pad(moved[..., : moved.shape[-1] - run], ((0, 0), (0, 0), (run, 0)))
    return after / jnp.maximum(after.sum(-1, keepdims=True), LEAST)


def _families(forward, letter, exists):
    """Return the numbers of the extensions that reach each place, the likeliest first: int32[places, FAMILIES].

    All that reach one place are listed at the first of them. What is no extension has the number past the last one.
    """
    count = len(letter)
    number = jnp.arange(count, dtype=jnp.int32)
    parts = jnp.floor(forward * _FINENESS + 0.5).astype(jnp.uint32)
    key = (parts * jnp.asarray(_salt(forward.shape[0], forward.shape[2]))[:, None]).sum((0, 2), dtype=jnp.uint32)
    key += letter.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    same = (key[:, None] == key[None]) & exists[:, None] & exists[None]
    first = jnp.where(exists, lax.argmax(same, 1, jnp.int32), count)
    rank = (same & (number[None] < number[:, None])).sum(1, dtype=jnp.int32)
    return jnp.full((count, FAMILIES), count, jnp.int32).at[first, rank].set(number, mode="drop")


@functools.cache
def _salt(copies, window):
    return np.random.default_rng(0).integers(0, 1 << 32, (copies, window), np.uint32) | np.uint32(1)


def _gathered(score, state, families):
    """Return the best strings of each place: (score, state, number of the extension, number of the string in it).

    score, state: of the strings of each extension, [extensions, STRINGS]. Of strings with the same state, the likeliest
    stands for all: they have the same future.
    """
    count, strings = score.shape
    row = jnp.minimum(families, count - 1)
    score = jnp.where((families < count)[..., None], score[row], NOTHING).reshape(count, -1)
    state = state[row].reshape(count, -1)
    score = jnp.where(_repeated(score, state), NOTHING, score)
    score, at = lax.top_k(score, strings)
    family = jnp.take_along_axis(row, at // strings, 1)
    return score, jnp.take_along_axis(state, at, 1), family, at % strings


def _repeated(score, state):
    """Return the mask of the strings that another one of the same row and state stands for, as it is likelier.

    It looks in a hash table, in which a few of them may hide behind strings of another state.
    """
    size = 1 << (2 * score.size - 1).bit_length()
    row = jnp.arange(len(score), dtype=jnp.uint32)[:, None] * jnp.uint32(0x9E3779B1)
    slot = (state ^ row) * jnp.uint32(0x2C1B3C6D)
    slot = (((slot ^ (slot >> 15)) >> 3) & jnp.uint32(size - 1)).astype(jnp.int32)
    exists = score > NOTHING / 2
    top = jnp.full((size,), NOTHING, jnp.float32).at[slot.reshape(-1)].max(score.reshape(-1))[slot]
    best = exists & (score >= top)
    table = jnp.zeros((size,), jnp.uint32)
    table = table.at[jnp.where(best, slot, size).reshape(-1)].set(state.reshape(-1), mode="drop")
    return exists & ~best & (table[slot] == state)
