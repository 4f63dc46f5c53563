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
_MEMORY = 16  # rounds (32 bits at most): strings of the same letters whose levels differ only before these are merged


class Strings(NamedTuple):
    """The strings that are followed, and where the windows of the copies are.

    Attributes:
        forward: The forward probabilities of each copy by its position in the window.
        score: The log probability of each string and of what the copies have consumed.
        letter: The last letter of each string.
        state: The hash of its letters.
        late: The levels of its last rounds.
        doubt: How much likelier other letters were at its check letters.
        offset: The first position of each copy's window.
    """

    forward: Float32[Array, "N beam W"]
    score: Float32[Array, " beam"]
    letter: Int32[Array, " beam"]
    state: UInt32[Arrayish, " beam"]
    late: UInt32[Array, " beam"]
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
    zeros = jnp.zeros((beam,), jnp.uint32)
    return Strings(
        forward=jnp.zeros((copies, beam, window), jnp.float32).at[..., 0].set(1.0),
        score=jnp.full((beam,), NOTHING, jnp.float32).at[0].set(0.0),
        letter=jnp.zeros((beam,), jnp.int32),
        state=jnp.full((beam,), frame.HASH_START, jnp.uint32),
        late=zeros,
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
    level_bits = (levels - 1).bit_length()
    memory = (1 << min(_MEMORY * level_bits, 32)) - 1
    cuts = jax.vmap(cut, in_axes=(0, 0, None))

    forward, offset, middle = follow(strings.forward, strings.offset, copies.future)
    match = base_likelihoods(model, cuts(copies.reads, offset - 1, window))  # of the base that leads there
    tails = run_likelihoods(match.swapaxes(0, 1), longest)  # [N, 4, W] each
    rest = jax.vmap(relative_worth)(cuts(copies.future, offset, window), middle)
    gain, ahead = log_gains(forward, run_gains(model, tails, rest), strings.letter, copies.present)

    score = strings.score[:, None, None] + gain + model.prior[jnp.minimum(kind, 1)][strings.letter]
    score, doubt = disprove(
        score, score + (ahead - gain), strings.doubt, frame.demanded(strings.state, strings.letter), kind == frame.CHECK
    )
    parent, letter, level, score = rank(score, score + (ahead - gain))
    emission = model.emission[strings.letter[parent], letter, level]
    forward = advance(forward[:, parent], [tail[:, letter] for tail in tails], emission)
    state = frame.absorb(strings.state[parent], letter)
    late = strings.late[parent] << level_bits & jnp.uint32(memory) | level.astype(jnp.uint32)
    contradicted = (tag >= 0) & (frame.tag(state) != tag)
    score = jnp.where(repeated(state, late) | contradicted, NOTHING, jnp.maximum(score, NOTHING))
    return Strings(forward, score, letter, state, late, doubt[parent, letter], offset), (
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
) -> Float32[Array, "N 4 2 4 levels W"]:
    """Return what a copy at each position contributes to each (b, k, a, level): the same for all strings.

    It is the probability of the run that a round of this level writes with letter a after b, summed over its lengths:
    as it is (k = 0), and weighted by the worth of the position that the run reaches (k = 1).

    Args:
        model: The model of the channel.
        tails: ``window.run_likelihoods`` of each letter.
        rest: The worth of each position.
    """
    worth = jnp.stack([jnp.ones_like(rest), rest])[:, :, None]
    runs = [jnp.pad((worth * tail[None])[..., run:], ((0, 0),) * 3 + ((0, run),)) for run, tail in enumerate(tails)]
    return jnp.einsum("balr,rknaw->nbkalw", model.emission, jnp.stack(runs), precision=lax.Precision.HIGHEST)


def log_gains(
    forward: Float32[Array, "N beam W"],
    gives: Float32[Array, "N 4 2 4 levels W"],
    before: Int32[Array, " beam"],
    present: Bool[Arrayish, " N"],
) -> Float32[Array, "2 beam 4 levels"]:
    """Return the log probability that the copies give to each (letter, level), as it is and weighted by worth.

    Args:
        forward: The forward probabilities.
        gives: ``run_gains``; sums over positions are one product of matrices for all strings.
        before: The last letter of each string.
        present: The mask of the copies that exist; the others count for nothing.
    """
    total = jnp.einsum("niw,nbkalw->nibkal", forward, gives, precision=lax.Precision.HIGHEST)
    total = jnp.take_along_axis(total, before[None, :, None, None, None, None], axis=2)[:, :, 0]
    logs = jnp.log(jnp.maximum(total, LEAST))  # [N, beam, 2, 4, levels]
    return jnp.where(present[:, None, None, None, None], logs, 0.0).sum(0).swapaxes(0, 1)


def disprove(
    score: Float32[Array, "beam 4 levels"],
    priority: Float32[Array, "beam 4 levels"],
    doubt: Float32[Array, " beam"],
    demanded: Int32[Arrayish, " beam"],
    check: Bool[Array, ""],
) -> tuple[Float32[Array, "beam 4 levels"], Float32[Array, "beam 4"]]:
    """Hold the next letters against the hash of those before, in a round that is a check letter.

    Args:
        score: The score of each extension.
        priority: The score by which extensions are ranked.
        doubt: The doubt of each string.
        demanded: The letter that the hash demands.
        check: Whether the round is a check letter. If not, score and doubt stay.

    Returns:
        The score, which is ``NOTHING`` for letters that are not demanded; and the doubt after each letter.
    """
    best = priority.max(axis=-1)
    wrong = check & (jnp.arange(4, dtype=jnp.int32)[None] != demanded[:, None])
    doubt_of = doubt[:, None] + jnp.where(check, best.max(axis=-1, keepdims=True) - best, 0.0)
    return jnp.where(wrong[..., None], NOTHING, score), doubt_of


def rank(
    score: Float32[Array, "beam 4 levels"], priority: Float32[Array, "beam 4 levels"]
) -> tuple[Int32[Array, " beam"], Int32[Array, " beam"], Int32[Array, " beam"], Float32[Array, " beam"]]:
    """Return string, letter, level and score of the extensions of the highest priority, one for each string."""
    beam, _, levels = score.shape
    _, chosen = lax.top_k(priority.reshape(-1), beam)
    return chosen // (4 * levels), chosen // levels % 4, chosen % levels, score.reshape(-1)[chosen]


def advance(
    forward: Float32[Array, "N beam W"], tails: list[Float32[Array, "N beam W"]], emission: Float32[Array, "beam runs"]
) -> Float32[Array, "N beam W"]:
    """Return the forward probabilities after one more run, normalised.

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
    return after / jnp.maximum(after.sum(-1, keepdims=True), LEAST)


def repeated(state: UInt32[Arrayish, " beam"], late: UInt32[Array, " beam"]) -> Bool[Array, " beam"]:
    """Return the mask of the strings that equal a likelier (earlier) one in letters and late levels.

    Args:
        state: The hash of all letters.
        late: The levels of the last rounds.
    """
    numbers = jnp.arange(len(state), dtype=jnp.int32)
    state, late, numbers = lax.sort((jnp.asarray(state), late, numbers), num_keys=2, is_stable=True)
    same = (state[1:] == state[:-1]) & (late[1:] == late[:-1])
    return jnp.zeros(len(state), bool).at[numbers[1:]].set(same)


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
