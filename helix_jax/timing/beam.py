"""The beam search of ``alignment.align``: strings of (letter, level), one round longer at each step.

``extend`` is one step: ``follow`` moves the windows of the copies along, ``run_gains`` and ``log_gains`` score the next
(letter, level), ``disprove`` holds the letters against the check letters of ``frame``, ``rank`` keeps the best strings,
``advance`` moves the copies on, and ``repeated`` finds strings that another one stands for. Then ``close`` scores
each string as a whole strand, and ``trace_back`` reads the best one off.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8, UInt32

from helix_jax.timing import frame
from helix_jax.timing.window import (
    LEAST,
    NOTHING,
    Model,
    base_likelihoods,
    cut,
    likeliest_position,
    relative_worth,
    run_likelihoods,
)

Arrayish = Array | np.ndarray
_PART = 512  # strings that ``advance`` takes at once on a CPU: those of a wide beam do not fit into its cache
_SLOTS = 16  # of a hash table, for each string
_PLACES = 2  # per base: strings of the same letters are merged where the copies' mean positions round to the same place


class Strings(NamedTuple):
    """The strings that are followed, and where the windows of the copies are.

    Attributes:
        forward: The forward probabilities of each copy by its position in the window.
        score: The log probability of each string and of what the copies have consumed.
        letter: The last letter of each string.
        state: The hash of its letters.
        doubt: How much likelier other letters were at its check letters.
        offset: The first position of each copy's window.
    """

    forward: Float32[Array, "N beam W"]
    score: Float32[Array, " beam"]
    letter: Int32[Array, " beam"]
    state: UInt32[Arrayish, " beam"]
    doubt: Float32[Array, " beam"]
    offset: Int32[Array, " N"]


class Copies(NamedTuple):
    """The copies, which stay the same from step to step.

    Attributes:
        reads: Their bases, with a padding of one window before and two behind.
        future: ``window.log_remainders`` with the same padding.
        present: The mask of the copies that exist.
    """

    reads: UInt8[Array, "N padded"]
    future: Float32[Array, "N padded_positions"]
    present: Bool[Arrayish, " N"]


def start(copies: int, beam: int, window: int) -> Strings:
    """Return the empty string, in a beam that has room for others."""
    return Strings(
        forward=jnp.zeros((copies, beam, window), jnp.float32).at[..., 0].set(1.0),
        score=jnp.full((beam,), NOTHING, jnp.float32).at[0].set(0.0),
        letter=jnp.zeros((beam,), jnp.int32),
        state=jnp.full((beam,), frame.HASH_START, jnp.uint32),
        doubt=jnp.zeros((beam,), jnp.float32),
        offset=jnp.zeros((copies,), jnp.int32),
    )


def extend(
    strings: Strings, item: tuple[Int32[Arrayish, ""], Int32[Arrayish, ""]], *, model: Model, copies: Copies
) -> tuple[Strings, tuple[Int32[Array, " beam"], Int32[Array, " beam"]]]:
    """Append a letter and a level to the strings: the body of the scan along the strand.

    Args:
        strings: The strings.
        item: The kind of the round (``frame``), and the tag that the letters must have after it, or -1 for any.
        model: The model of the channel.
        copies: The copies.

    Returns:
        The longer strings; and of each the number of the string that it continues, and letter * levels + level.
    """
    kind, tag = item
    levels, longest = model.emission.shape[2], model.emission.shape[3] - 1
    window = strings.forward.shape[-1]
    cuts = jax.vmap(cut, in_axes=(0, 0, None))

    forward, offset, middle = follow(strings.forward, strings.offset, copies.future)
    match = base_likelihoods(model, cuts(copies.reads, offset - 1, window))  # of the base that leads there
    tails = run_likelihoods(match.swapaxes(0, 1), longest)  # [N, 4, W] each
    rest = jax.vmap(relative_worth)(cuts(copies.future, offset, window), middle)
    ahead = log_gains(forward, run_gains(model, tails, rest), strings.letter, copies.present)

    score = strings.score[:, None, None] + model.prior[jnp.minimum(kind, 1)][strings.letter]
    priority, doubt = disprove(
        score + ahead, strings.doubt, frame.demanded(strings.state, strings.letter), kind == frame.CHECK
    )
    parent, letter, level = rank(priority)
    emission = model.emission[strings.letter[parent], letter, level]

    def advanced(strings):
        parent, letter, emission = strings
        return advance(forward[:, parent], [tail[:, letter] for tail in tails], emission)

    forward, gain = in_parts(advanced, (parent, letter, emission))
    score = score[parent, letter, level] + jnp.where(copies.present[:, None], gain, 0.0).sum(0)
    state = frame.absorb(strings.state[parent], letter)
    wrong = priority[parent, letter, level] <= NOTHING  # no demanded letter
    wrong |= (tag >= 0) & (frame.tag(state) != tag) | repeated(state, places(forward))
    score = jnp.where(wrong, NOTHING, jnp.maximum(score, NOTHING))
    return Strings(forward, score, letter, state, doubt[parent, letter], offset), (
        parent,
        letter * levels + level,
    )


def follow(
    forward: Float32[Array, "N beam W"], offset: Int32[Array, " N"], future: Float32[Array, "N padded"]
) -> tuple[Float32[Array, "N beam W"], Int32[Array, " N"], Int32[Array, " N"]]:
    """Move the windows along with the best string, to its likeliest position given the whole of each copy.

    Args:
        forward: The forward probabilities, those of the best string first.
        offset: The first position of each window.
        future: ``Copies.future``.

    Returns:
        The forward probabilities in the new windows; their first positions; and the likeliest positions in them, which
        are a third of the window or less.
    """
    window = forward.shape[-1]
    behind = window // 3
    rest = jax.vmap(cut, in_axes=(0, 0, None))(future, offset, window)
    likelihood = forward[:, 0] * jax.vmap(relative_worth)(rest, jnp.full_like(offset, behind))
    middle = likeliest_position(likelihood, jnp.arange(window, dtype=jnp.int32)[None])
    shift = jnp.maximum(middle - behind, 0)
    wide = jnp.pad(forward, ((0, 0), (0, 0), (0, window)))
    forward = jax.vmap(lambda rows, at: lax.dynamic_slice_in_dim(rows, at, window, axis=1))(wide, shift)
    return forward, offset + shift, middle - shift


def run_gains(
    model: Model, tails: list[Float32[Array, "N 4 W"]], rest: Float32[Array, "N W"]
) -> Float32[Array, "N 4 4 levels W"]:
    """Return what a copy at each position contributes to each (b, a, level): the same for all strings.

    It is the probability of the run that a round of this level writes with letter a after b, weighted by the worth of
    the position that the run reaches, and summed over its lengths.

    Args:
        model: The model of the channel.
        tails: ``window.run_likelihoods`` of each letter.
        rest: The worth of each position.
    """
    runs = [jnp.pad((rest[:, None] * tail)[..., run:], ((0, 0), (0, 0), (0, run))) for run, tail in enumerate(tails)]
    return jnp.einsum("balr,rnaw->nbalw", model.emission, jnp.stack(runs), precision=lax.Precision.HIGHEST)


def log_gains(
    forward: Float32[Array, "N beam W"],
    gives: Float32[Array, "N 4 4 levels W"],
    before: Int32[Array, " beam"],
    present: Bool[Arrayish, " N"],
) -> Float32[Array, "beam 4 levels"]:
    """Return the log probability that the copies give to each (letter, level), weighted by the worth of what follows.

    Args:
        forward: The forward probabilities.
        gives: ``run_gains``; sums over positions are one product of matrices for all strings.
        before: The last letter of each string.
        present: The mask of the copies that exist; the others count for nothing.
    """
    total = jnp.einsum("niw,nbalw->nibal", forward, gives, precision=lax.Precision.HIGHEST)
    total = jnp.take_along_axis(total, before[None, :, None, None, None], axis=2)[:, :, 0]
    logs = jnp.log(jnp.maximum(total, LEAST))  # [N, beam, 4, levels]
    return jnp.where(present[:, None, None, None], logs, 0.0).sum(0)


def disprove(
    priority: Float32[Array, "beam 4 levels"],
    doubt: Float32[Array, " beam"],
    demanded: Int32[Arrayish, " beam"],
    check: Bool[Array, ""],
) -> tuple[Float32[Array, "beam 4 levels"], Float32[Array, "beam 4"]]:
    """Hold the next letters against the hash of those before, in a round that is a check letter.

    Args:
        priority: The score of each extension by which they are ranked.
        doubt: The doubt of each string.
        demanded: The letter that the hash demands.
        check: Whether the round is a check letter. If not, priority and doubt stay.

    Returns:
        The priority, which is ``NOTHING`` for letters that are not demanded; and the doubt after each letter.
    """
    best = priority.max(axis=-1)
    wrong = check & (jnp.arange(4, dtype=jnp.int32)[None] != demanded[:, None])
    doubt_of = doubt[:, None] + jnp.where(check, best.max(axis=-1, keepdims=True) - best, 0.0)
    return jnp.where(wrong[..., None], NOTHING, priority), doubt_of


def rank(
    priority: Float32[Array, "beam 4 levels"],
) -> tuple[Int32[Array, " beam"], Int32[Array, " beam"], Int32[Array, " beam"]]:
    """Return string, letter and level of the extensions of the highest priority, one for each string."""
    beam, _, levels = priority.shape
    _, chosen = lax.top_k(priority.reshape(-1), beam)
    return chosen // (4 * levels), chosen // levels % 4, chosen % levels


def advance(
    forward: Float32[Array, "N beam W"], tails: list[Float32[Array, "N beam W"]], emission: Float32[Array, "beam runs"]
) -> tuple[Float32[Array, "N beam W"], Float32[Array, "N beam"]]:
    """Return the forward probabilities after one more run, normalised, and the log of what they summed to before.

    Args:
        forward: The forward probabilities before it.
        tails: ``window.run_likelihoods`` of the letter of each string.
        emission: The probability of each run length in each string.
    """
    window, longest = forward.shape[-1], len(tails) - 1
    wide = jnp.pad(forward, ((0, 0), (0, 0), (longest, 0)))
    after = jnp.zeros_like(forward)
    for run, tail in enumerate(tails):
        after += wide[..., longest - run : longest - run + window] * tail * emission[None, :, run, None]
    total = jnp.maximum(after.sum(-1, keepdims=True), LEAST)
    return after / total, jnp.log(total[..., 0])


def places(forward: Float32[Array, "N beam W"]) -> UInt32[Array, " beam"]:
    """Return a hash of the mean positions of all copies, rounded to 1 / ``_PLACES`` bases, for each string."""
    mean = (forward * jnp.arange(forward.shape[-1], dtype=jnp.float32)[None, None]).sum(-1)
    factors = jnp.asarray([pow(frame.HASH_START, n + 1, 1 << 32) for n in range(len(forward))], jnp.uint32)
    return (jnp.round(_PLACES * mean).astype(jnp.uint32) * factors[:, None]).sum(0, dtype=jnp.uint32)


def repeated(state: UInt32[Arrayish, " beam"], place: UInt32[Array, " beam"]) -> Bool[Array, " beam"]:
    """Return the mask of the strings that equal a likelier (earlier) one in letters and places.

    They are compared with the first string in their slot of a hash table, which takes a fifth of the time of a sort. So
    a few are missed, whose slot belongs to another string.

    Args:
        state: The hash of all letters.
        place: A hash of where the copies are (``places``).
    """
    slots = _SLOTS * len(state)
    slot = (frame.mixed(state + place * jnp.uint32(frame.HASH_START)) >> 8) % slots
    numbers = jnp.arange(len(state), dtype=jnp.int32)
    first = jnp.full(slots, len(state), jnp.int32).at[slot].min(numbers)[slot]
    return (first < numbers) & (state[first] == state) & (place[first] == place)


def in_parts(function, strings):
    """Apply a function of strings to ``_PART`` of them at a time, along the second axis of its results."""
    beam = len(jax.tree.leaves(strings)[0])
    if beam <= _PART or beam % _PART:
        return function(strings)
    parts = lax.map(function, jax.tree.map(lambda x: x.reshape(-1, _PART, *x.shape[1:]), strings))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], beam, *x.shape[3:]), parts)


def close(strings: Strings, lengths: Int32[Arrayish, " N"], present: Bool[Arrayish, " N"]) -> Float32[Array, " beam"]:
    """Return the score of each string as the whole strand, which is ``NOTHING`` or less where a copy does not end here,
    or where there is no copy.

    Args:
        strings: The strings after the last round.
        lengths: The lengths of the copies.
        present: The mask of the copies that exist.
    """
    return strings.score + arrived(strings.forward, lengths - strings.offset, present)


def arrived(
    forward: Float32[Array, "N beam W"], end: Int32[Arrayish, " N"], present: Bool[Arrayish, " N"]
) -> Float32[Array, " beam"]:
    """Return the log probability that all copies end where they do, ``NOTHING`` or less where that is impossible.

    Args:
        forward: The forward probabilities of each copy by its position in the window.
        end: The position in the window at which each copy ends.
        present: The mask of the copies that exist.
    """
    positions = jnp.arange(forward.shape[-1], dtype=jnp.int32)
    mass = jnp.where(positions[None, None] == end[:, None, None], forward, 0.0).sum(-1)
    logs = jnp.where(mass > 0, jnp.log(jnp.maximum(mass, LEAST)), NOTHING)
    return jnp.where(present[:, None], logs, 0.0).sum(0) + jnp.where(present.any(), 0.0, jnp.float32(NOTHING))


def trace_back(
    string: Int32[Array, ""], parents: Int32[Array, "R beam"], symbols: Int32[Array, "R beam"]
) -> UInt8[Array, " R"]:
    """Return the symbols of the string with this number at the end, from what ``extend`` returned for each step."""

    def back(string, item):
        parents, symbols = item
        return parents[string], symbols[string]

    return lax.scan(back, string, (parents, symbols), reverse=True)[1].astype(jnp.uint8)
