"""Alignment of strands with a reversible hash: one way, and, where that fails, from both ends.

``one_way`` follows the strings from the beginning to the end of the strand. It fails where some runs are lost in all
copies, so that the right string is for a while less likely than too many others. ``both_ways`` also follows the strings
from the end to the beginning, and joins them at the round where their sum is likeliest: they must agree in the letter,
in the state of the hash and, by their forward probabilities, in the positions of all copies. So a strand is lost only
where each way fails, and the one fails before the other has got past its own failure.

The steps are in ``places``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt8

from helix_jax.timing import frame, places
from helix_jax.timing.beam import Copies, arrived
from helix_jax.timing.places import KEPT, KEPT_STRINGS, STRINGS, Places, Round
from helix_jax.timing.window import LEAST, NOTHING, PAD, Model, cut, log_remainders, pad_reads

_STRIDE = 2  # rounds from one meeting to the next
_FARTHEST = 30.0  # bounds the logarithm of the weight of a position at which two strings meet

Arrayish = Array | np.ndarray
Found = tuple[UInt8[Array, " R"], UInt8[Array, " R"], Float32[Array, ""], Float32[Array, ""]]


def one_way(
    model: Model,
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    count: int,
    window: int,
) -> Found:
    """Find the letters and levels of one strand from its copies, from the beginning to the end; pure.

    Args:
        model: The model of the channel.
        reads: The bases of the copies; what lies past their end is ignored.
        lengths: The lengths of the copies; a copy of length 0 counts as absent.
        layout: The layout of the strand, which is reversible.
        count: The number of places that are followed at once.
        window: The number of positions that are kept of each copy, which is more than the longest run.

    Returns:
        The letters; the levels; the score, which is ``NOTHING`` where no string was found; and a doubt of 0.
    """
    reads = pad_reads(reads, lengths)
    last, traces = _follow(model, reads, lengths, layout, count, window, backwards=False)[:2]
    score = (last.score + arrived(last.forward, lengths - last.offset, lengths > 0)[:, None]).reshape(-1)
    winner = lax.argmax(score, 0, jnp.int32)
    symbols = _back(traces, winner, layout.rounds - 1)
    levels = model.emission.shape[2]
    return symbols // levels, symbols % levels, jnp.maximum(score[winner], NOTHING), jnp.float32(0)


def both_ways(
    model: Model,
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    count: int,
    window: int,
) -> Found:
    """Find the letters and levels of one strand from both of its ends; pure.

    Args:
        model: As for ``one_way``.
        reads: As for ``one_way``.
        lengths: As for ``one_way``.
        layout: As for ``one_way``.
        count: As for ``one_way``.
        window: As for ``one_way``.

    Returns:
        The letters; the levels; the score; and the doubt, which says how much likelier strings would be that need not
        agree in the state of the hash where they meet (in nats). It is small for the right string.
    """
    reads = pad_reads(reads, lengths)
    from_end = lengths[:, None] - 1 - jnp.arange(reads.shape[1], dtype=jnp.int32)[None]
    mirrored = jnp.take_along_axis(reads, jnp.maximum(from_end, 0), 1)
    mirrored = jnp.where(from_end >= 0, mirrored, jnp.uint8(PAD))
    _, left, fore = _follow(model, reads, lengths, layout, count, window, backwards=False)
    _, right, back = _follow(model, mirrored, lengths, layout, count, window, backwards=True)
    weight = jnp.pad(_weight(model, reads, mirrored, lengths), ((0, 0), (window, 2 * window)))
    whole = int((layout.kinds != frame.END).sum())  # after these rounds, both ends know the whole state
    meet = functools.partial(_meet, lengths=lengths, weight=weight)
    pairs = jax.tree.map(lambda part: part[:whole:_STRIDE], (fore, back))
    score, pair, free = lax.scan(lambda _, pair: (None, meet(*pair)), None, pairs)[1]
    best = lax.argmax(score, 0, jnp.int32)
    at = best * _STRIDE
    first, second = jnp.divmod(pair[best], min(KEPT, count) * KEPT_STRINGS)
    levels = model.emission.shape[2]
    number = jnp.arange(layout.rounds, dtype=jnp.int32)
    begin = _back(left, _number(first), at)
    end, last = _on(right, _number(second), at)
    letters = jnp.where(number <= at, begin // levels, jnp.append(end // levels, last))
    level = jnp.where(number <= at, begin % levels, jnp.append(jnp.zeros_like(end[:1]), end % levels))
    found = score[best] > NOTHING / 2
    score = jnp.where(found, score[best], jnp.float32(NOTHING))
    return letters, level, score, jnp.where(found, jnp.maximum(free.max() - score, 0.0), jnp.float32(jnp.inf))


def _follow(model, reads, lengths, layout, count, window, *, backwards):
    """Follow the strings along the strand: (last Places, Trace and kept Places by round).

    Forwards, these are of the strings after each round. Backwards, they are of the strings of all later rounds and of
    the letter, without its run, of each; and the Trace has an entry less, as the last letter comes from nowhere.
    """
    padding = (0, 0), (window, 2 * window)
    future = jnp.pad(log_remainders(model, reads), padding)
    copies = Copies(jnp.pad(reads, padding, constant_values=PAD), future, lengths > 0)
    rounds = Round(jnp.asarray(layout.kinds), jnp.asarray(layout.places))
    extend = functools.partial(places.extend, model=model, copies=copies, bits=layout.state_bits, backwards=backwards)

    def step(at, each):
        at, trace = extend(at, each)
        return at, (trace, places.kept(at))

    if not backwards:
        start = places.start(len(reads), count, window, 1, layout.first_state)
        last, (traces, each) = lax.scan(step, start, rounds)
        return last, traces, each
    start = places.start(len(reads), count, window, 4, 0)
    last, (traces, each) = lax.scan(step, start, jax.tree.map(lambda part: part[1:], rounds), reverse=True)
    return last, traces, jax.tree.map(lambda part, end: jnp.append(part, end[None], axis=0), each, places.kept(start))


def _weight(model, reads, mirrored, lengths):
    """Return the factor that takes the worths of both sides out again where two strings meet: float32[N, positions]."""
    future, past = log_remainders(model, reads), log_remainders(model, mirrored)
    from_end = lengths[:, None] - jnp.arange(future.shape[1], dtype=jnp.int32)[None]
    past = jnp.where(from_end >= 0, jnp.take_along_axis(past, jnp.maximum(from_end, 0), 1), 0.0)
    return jnp.exp(jnp.clip(future[:, :1] - future - past, -_FARTHEST, _FARTHEST))


def _meet(fore: Places, back: Places, *, lengths, weight):
    """Return the best pair of strings that meet after a round: (score, its number, score without the states)."""
    window, present = fore.forward.shape[-1], lengths > 0
    opposite = (lengths - fore.offset - back.offset)[:, None] - jnp.arange(window, dtype=jnp.int32)[None]
    inside = (opposite >= 0) & (opposite < window)
    mirror = jnp.take_along_axis(back.forward, jnp.clip(opposite, 0, window - 1)[:, None], 2)
    mirror = jnp.where(inside[:, None], mirror, 0.0) * jax.vmap(cut, (0, 0, None))(weight, fore.offset, window)[:, None]
    mass = jnp.einsum("npw,nqw->npq", fore.forward, mirror, precision=lax.Precision.HIGHEST)
    logs = jnp.where(mass > 0, jnp.log(jnp.maximum(mass, LEAST)), NOTHING)
    logs = jnp.where(present[:, None, None], logs, 0.0).sum(0)
    logs = jnp.where(fore.letter[:, None] == back.letter[None], logs, NOTHING)
    free = (logs + fore.score[:, :1] + back.score[None, :, 0]).max()
    score = logs[:, None, :, None] + fore.score[:, :, None, None] + back.score[None, None]
    score = jnp.where(fore.state[:, :, None, None] == back.state[None, None], score, NOTHING).reshape(-1)
    best = lax.argmax(score, 0, jnp.int32)
    return score[best], best, free


def _number(kept):
    """Return the number of a string among all, by its number among those that are kept."""
    return kept // KEPT_STRINGS * STRINGS + kept % KEPT_STRINGS


def _back(traces, string, at):
    """Return the symbols of rounds 0..at that lead to a string after round ``at``; those after it mean nothing."""

    def step(string, item):
        trace, number = item
        parent, symbol = trace.parent.reshape(-1)[string], trace.symbol.reshape(-1)[string]
        return jnp.where(number <= at, parent, string), symbol

    numbers = jnp.arange(len(traces.symbol), dtype=jnp.int32)
    return lax.scan(step, string, (traces, numbers), reverse=True)[1]


def _on(traces, string, at):
    """Return the symbols from round ``at`` on of a string that begins there; and the last letter of the strand."""

    def step(string, item):
        trace, number = item
        parent, symbol = trace.parent.reshape(-1)[string], trace.symbol.reshape(-1)[string]
        return jnp.where(number >= at, parent, string), symbol

    numbers = jnp.arange(len(traces.symbol), dtype=jnp.int32)
    string, symbols = lax.scan(step, string, (traces, numbers))
    return symbols, (string // STRINGS % 4).astype(symbols.dtype)
