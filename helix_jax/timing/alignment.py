"""Alignment: from noisy copies of one strand to its letters, its levels, and the likelihood of each level.

The hidden state is the strand. Given the strand, each copy is an independent hidden Markov chain, whose position is the
number of the copy's bases that are consumed. A run that a copy lost consumes nothing. Where the run between two equal
letters is lost, the two merge without further rules, since positions count bases and not runs.

``align`` follows the most likely strings of (letter, level), round by round (beam search). For each string it keeps the
exact forward probabilities of every copy, in a window of positions. A round that is lost in all copies is one more
string to follow. The check letters of ``frame`` drop wrong strings. Strings are ranked by their probability times that
of each copy's remaining bases under letters drawn at random, so that strings that are ahead and strings that are behind
compare fairly. ``soft_levels`` then passes over the letters of the result, forwards and backwards.

Nothing after a round gives more evidence of its level, so strings that have the same letters and differ only in old
levels would fill the beam, twice as many for each uncertain level. The likeliest of them therefore stands for all.

A string consists of letters with levels. Following letters alone, with the level mixed or chosen on the way, finds far
fewer strands at equal beam: the copies share the level, and a level that is wrong now rules out the right letters
later.

The paper leaves alignment open ("alignment of N copies", ISIT 2020, pipeline); this method is ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Float64, Int32, Integer, UInt8

from helix_jax.errors import HelixError
from helix_jax.timing import capacity, frame
from helix_jax.timing.channel import Law, pmf_table
from helix_jax.timing.graph import TimeTable

NOTHING = -1e9  # log probability of the impossible
PAD = 9  # fills the positions past the end of a read; it is no base
_LEAST = 1e-30
_DOUBT = 0.03  # probability given to other levels than those that alignment chose
_RARE = 1e-7  # run lengths are ignored if runs at least as long are rarer than this, per round and copy
_NOISE = 1e-4  # least probability of a run length where the sequencer errs
_MEMORY = 16  # rounds (32 bits at most): strings of the same letters whose levels differ only before these are merged

Arrayish = Array | np.ndarray


class AlignmentError(HelixError):
    """A beam or window is too small; the message gives the least that works."""


class Model(NamedTuple):
    """The channel as alignment sees it; ``model`` makes it.

    Attributes:
        emission: The probability of each run length, by (b, a, level).
        prior: The log probability of (a, level) after b, in data rounds [0] and in the rounds of letters alone [1].
        run: The log probability of a run of a copy, whatever its round, with its share of the probability of the runs
            that are lost.
        match: The probability that a base is read as itself.
        foreign: The probability that a base is read as a certain other base.
        merge: The log probability that a letter goes on in its run.
    """

    emission: Float32[Array, "4 4 levels runs"]
    prior: Float32[Array, "2 4 4 levels"]
    run: Float32[Array, " both_runs"]
    match: Float32[Array, ""]
    foreign: Float32[Array, ""]
    merge: Float32[Array, ""]


def emissions(law: Law, table: TimeTable) -> Float64[np.ndarray, "4 4 levels runs"]:
    """Return ``channel.pmf_table`` without the run lengths that are too rare to follow.

    A run that is longer than the last column is regarded as impossible.
    """
    pmf = pmf_table(law, table)
    tail = pmf[..., ::-1].cumsum(axis=-1)[..., ::-1].max(axis=(0, 1, 2))
    return pmf[..., tail > _RARE]


def model(law: Law, table: TimeTable, *, overhead: float | int = 0.0, substitution: float | int = 0.0) -> Model:
    """Make the model of a channel.

    Args:
        law: The law of the run lengths.
        table: The time table.
        overhead: The time of a round beside that of its run. With a greater one, writers prefer longer runs.
        substitution: The share of bases that the sequencer misreads, which may be 0.

    Returns:
        The model.
    """
    pmf = emissions(law, table)
    levels = table.array() > 0
    if substitution:
        pmf = np.where(levels[..., None], np.maximum(pmf, _NOISE), 0.0)
    chain = capacity.chain(table, overhead=overhead)
    letters = np.zeros_like(chain.probability)
    letters[..., 0] = levels[..., 0] / levels[..., 0].sum(axis=1, keepdims=True)
    weight = (chain.stationary[:, None, None] * chain.probability)[..., None] * pmf
    marginal = weight.sum(axis=(0, 1, 2))
    keep = 1 - marginal[0]
    run = np.append(np.zeros(1), marginal[1:]) / keep
    merge = keep * (1 - keep) / 3  # the next run is lost, and the run after it has the same letter
    runs = np.zeros(2 * len(run) - 1)
    runs[: len(run)] = (1 - merge) * run
    runs += merge * np.convolve(run, run)
    with np.errstate(divide="ignore"):
        prior = np.maximum(np.log(np.stack([chain.probability, letters])), NOTHING)
        loss = -np.log(keep) - (1 - keep) / keep * np.log(max(1 - keep, 1e-12))
        run = np.maximum(np.log(runs), -40.0) - loss
        merge = np.maximum(np.log(merge), -40.0)  # where no run is ever lost
    values = (pmf, prior, run, 1 - substitution, substitution / 3, merge)
    return Model(*(jnp.asarray(value, jnp.float32) for value in values))


def _window(row, start, width):
    """Return entries start..start + width - 1 of an array that is padded by ``width`` entries at its beginning.

    Entries before the beginning of the unpadded array are included, and mean nothing.
    """
    return lax.dynamic_slice(row, (start + width,), (width,))


def _matches(known, window):
    """Return the probability of each base of a window as read, if it is A, C, G or T in truth: float32[4, ..., W]."""
    bases = jnp.arange(4, dtype=window.dtype).reshape(4, *([1] * window.ndim))
    return jnp.where(window[None] == bases, known.match, jnp.where(window[None] == PAD, 0.0, known.foreign))


def _future(known, reads):
    """Return the log probability of the remainder of a read, by the bases consumed: float32[..., L + 1].

    The letters themselves count for nothing, as the other copies tell them. (One strand in ten more is lost if they are
    counted in full.)
    """

    def of_read(read):
        def step(carry, item):
            run, after, following = carry
            base, before = item
            run = jnp.where(base == following, run + 1, 1)
            after_run = jnp.where(base == following, after[0], after[1])
            rest = known.run[jnp.minimum(run, len(known.run) - 1)] + after_run
            inside = jnp.where(base == before, known.merge, 0.0)
            rest, output = jnp.where(base == PAD, 0.0, rest), jnp.where(base == PAD, 0.0, rest + inside)
            return (run, jnp.stack([after_run, rest]), base), output

        start = (jnp.int32(0), jnp.zeros(2, jnp.float32), jnp.uint8(PAD + 1))
        before = jnp.concatenate([jnp.full_like(read[:1], PAD + 2), read[:-1]])
        rest = lax.scan(step, start, (read, before), reverse=True)[1]
        return jnp.concatenate([rest, jnp.zeros(1, jnp.float32)])

    return jax.vmap(of_read)(reads)


def _padded(reads, lengths):
    """Return the reads with ``PAD`` at all positions past their end."""
    return jnp.where(jnp.arange(reads.shape[1], dtype=jnp.int32)[None] < lengths[:, None], reads, jnp.uint8(PAD))


def _tails(match, longest):
    """Return the probability that the last n bases before each position are the letter, for n = 0..longest.

    The result is a list of arrays like ``match``.
    """
    tails = [jnp.ones_like(match)]
    for run in range(longest):
        shifted = jnp.pad(match[..., : match.shape[-1] - run], ((0, 0),) * (match.ndim - 1) + ((run, 0),))
        tails.append(tails[-1] * shifted)
    return tails


def _worth(rest, position):
    """Return the exponential of ``_future`` in a window, relative to that at one position."""
    return jnp.exp(jnp.clip(rest - rest[position], -60.0, 60.0))


def _merged(letters, levels):
    """Return the mask of the strings that equal a likelier (earlier) one in letters and late levels: bool[beam].

    letters, levels: uint32[beam], the hash of all letters, and the levels of the last rounds.
    """
    letters, levels, rank = lax.sort(
        (letters, levels, jnp.arange(len(letters), dtype=jnp.int32)), num_keys=2, is_stable=True
    )
    same = (letters[1:] == letters[:-1]) & (levels[1:] == levels[:-1])
    return jnp.zeros(len(letters), bool).at[rank[1:]].set(same)


def align(
    known: Model,
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    beam: int,
    window: int,
) -> tuple[UInt8[Array, " R"], UInt8[Array, " R"], Float32[Array, ""], Float32[Array, ""]]:
    """Find the letters and levels of one strand from its copies; pure.

    Args:
        known: The model of the channel.
        reads: The bases of the copies; what lies past their end is ignored.
        lengths: The lengths of the copies; a copy of length 0 counts as absent.
        layout: The layout of the strand.
        beam: The number of strings that are followed at once.
        window: The number of positions that are kept of each copy, which is more than the longest run.

    Returns:
        The letters; the levels; the score; and the doubt. The score is the log probability of letters, levels and
        copies, or ``NOTHING`` where no string was found that explains all copies, or where there is no copy. The doubt
        says how much likelier other letters were at the positions of the check letters (in nats, summed): it is small
        for the right string, and large for a wrong one, whose hash demands random letters.

    Raises:
        AlignmentError: The beam or the window is too small.
    """
    copies, levels = len(reads), known.emission.shape[2]
    longest = known.emission.shape[3] - 1
    if beam < 1 or window <= longest:
        raise AlignmentError(f"beam {beam}, window {window}: give at least 1, and {longest + 1} for the longest run")
    level_bits = (levels - 1).bit_length()
    memory = (1 << min(_MEMORY * level_bits, 32)) - 1
    behind = window // 3
    present = lengths > 0
    reads = _padded(reads, lengths)
    padded = jnp.pad(reads, ((0, 0), (window, 2 * window)), constant_values=PAD)
    future = jnp.pad(_future(known, reads), ((0, 0), (window, 2 * window)))
    bases, positions = jnp.arange(4, dtype=jnp.int32), jnp.arange(window, dtype=jnp.int32)
    over_copies = jax.vmap(_window, in_axes=(0, 0, None))
    worth_of = jax.vmap(_worth)

    def step(carry, kind):
        forward, past, before, state, late, doubt, offset = carry
        # move the windows along with the best string, to its most likely position given the whole of each copy
        likely = forward[:, 0] * worth_of(over_copies(future, offset, window), jnp.full_like(lengths, behind))
        mean = (likely * positions[None]).sum(-1) / jnp.maximum(likely.sum(-1), _LEAST)
        middle = jnp.round(mean).astype(jnp.int32)
        shift = jnp.maximum(middle - behind, 0)
        wide = jnp.pad(forward, ((0, 0), (0, 0), (0, window)))
        forward = jax.vmap(lambda rows, at: lax.dynamic_slice_in_dim(rows, at, window, axis=1))(wide, shift)
        offset = offset + shift
        match = _matches(known, over_copies(padded, offset - 1, window))  # the base that takes a copy to this position
        tails = _tails(match.swapaxes(0, 1), longest)  # [N, 4, W] each
        rest = worth_of(over_copies(future, offset, window), middle - shift)
        worth = jnp.stack([jnp.ones_like(rest), rest])[:, :, None]  # the worth of a position

        # what a copy at each position contributes to each (b, a, level), with and without the worth of the position
        # that it reaches; this is the same for all strings, so their sums over positions are one matrix product
        runs = [jnp.pad((worth * tail[None])[..., run:], ((0, 0),) * 3 + ((0, run),)) for run, tail in enumerate(tails)]
        gives = jnp.einsum("balr,rknaw->nbkalw", known.emission, jnp.stack(runs), precision=lax.Precision.HIGHEST)
        total = jnp.einsum("niw,nbkalw->nibkal", forward, gives, precision=lax.Precision.HIGHEST)
        total = jnp.take_along_axis(total, before[None, :, None, None, None, None], axis=2)[:, :, 0]
        logs = jnp.log(jnp.maximum(total, _LEAST))  # [N, beam, 2, 4, levels]
        gain, ahead = jnp.where(present[:, None, None, None, None], logs, 0.0).sum(0).swapaxes(0, 1)

        now = past[:, None, None] + gain + known.prior[jnp.minimum(kind, 1)][before]
        check, best = kind == frame.CHECK, (now + (ahead - gain)).max(axis=-1)
        wrong = check & (bases[None] != frame.demanded(state, before)[:, None])
        doubt = doubt[:, None] + jnp.where(check, best.max(axis=-1, keepdims=True) - best, 0.0)
        now = jnp.where(wrong[..., None], NOTHING, now)
        _, chosen = lax.top_k((now + (ahead - gain)).reshape(-1), beam)
        parent, letter, level = chosen // (4 * levels), chosen // levels % 4, chosen % levels

        emission = known.emission[before[parent], letter, level]
        start = jnp.pad(forward[:, parent], ((0, 0), (0, 0), (longest, 0)))
        after = jnp.zeros_like(forward)
        for run, tail in enumerate(tails):
            after += start[..., longest - run : longest - run + window] * tail[:, letter] * emission[None, :, run, None]
        forward = after / jnp.maximum(after.sum(-1, keepdims=True), _LEAST)
        state = frame.absorb(state[parent], letter)
        late = late[parent] << level_bits & jnp.uint32(memory) | level.astype(jnp.uint32)
        past = jnp.where(_merged(state, late), NOTHING, jnp.maximum(now.reshape(-1)[chosen], NOTHING))
        carry = (forward, past, letter, state, late, doubt[parent, letter], offset)
        return carry, (parent, letter * levels + level)

    forward = jnp.zeros((copies, beam, window), jnp.float32).at[..., 0].set(1.0)
    past = jnp.full((beam,), NOTHING, jnp.float32).at[0].set(0.0)
    before = jnp.zeros((beam,), jnp.int32)
    state = jnp.full((beam,), frame.HASH_START, jnp.uint32)
    carry = (forward, past, before, state, jnp.zeros_like(state), jnp.zeros_like(past), jnp.zeros_like(lengths))
    carry, (parents, symbols) = lax.scan(step, carry, jnp.asarray(layout.kinds))
    forward, past, doubt, offset = carry[0], carry[1], carry[5], carry[6]
    end = lengths - offset
    mass = jnp.where(positions[None, None] == end[:, None, None], forward, 0.0).sum(-1)
    arrived = jnp.where(mass > 0, jnp.log(jnp.maximum(mass, _LEAST)), NOTHING)
    score = (
        past + jnp.where(present[:, None], arrived, 0.0).sum(0) + jnp.where(present.any(), 0.0, jnp.float32(NOTHING))
    )
    winner = lax.argmax(score, 0, jnp.int32)

    def back(string, item):
        parents, symbols = item
        return parents[string], symbols[string]

    strand = lax.scan(back, winner, (parents, symbols), reverse=True)[1].astype(jnp.uint8)
    return strand // levels, strand % levels, jnp.maximum(score[winner], NOTHING), doubt[winner]


def soft_levels(
    known: Model,
    letters: Integer[Arrayish, " R"],
    levels: Integer[Arrayish, " R"],
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    window: int,
) -> tuple[Float32[Array, "R levels"], Int32[Array, "N R"]]:
    """Return the log-likelihoods of the levels of each round, and its run lengths, given the letters; pure.

    For the level of one round, those of the other rounds are taken as found, except for a share of ``_DOUBT``.

    Args:
        known: As for ``align``.
        letters: The letters that ``align`` found.
        levels: The levels that ``align`` found.
        reads: As for ``align``.
        lengths: As for ``align``.
        layout: As for ``align``.
        window: As for ``align``.

    Returns:
        The log-likelihoods, whose mean over the levels that exist is zero, and which are ``NOTHING`` for the others;
        and the most likely run length of each round in each copy, which is -1 in a copy of length 0.

    Raises:
        AlignmentError: The window is too small.
    """
    count, longest = known.emission.shape[2], known.emission.shape[3] - 1
    if window <= longest:
        raise AlignmentError(f"window {window}: give at least {longest + 1} for the longest run")
    behind = window // 3
    before = jnp.concatenate([jnp.zeros_like(letters[:1]), letters[:-1]]).astype(jnp.int32)
    letters = letters.astype(jnp.int32)
    prior = jnp.exp(known.prior[np.minimum(layout.kinds, 1), before, letters])  # [R, levels]
    prior = _DOUBT * prior / jnp.maximum(prior.sum(-1, keepdims=True), _LEAST)
    weight = prior + (1 - _DOUBT) * jax.nn.one_hot(levels, count, dtype=jnp.float32)
    emission = known.emission[before, letters]  # [R, levels, r + 1]
    mixed = (weight[..., None] * emission).sum(1)

    reads = _padded(reads, lengths)

    def of_copy(read, length, future):
        padded = jnp.pad(read, (window, 2 * window), constant_values=PAD)
        positions = jnp.arange(window, dtype=jnp.int32)

        def advance(carry, item):
            forward, offset = carry
            letter, mixed = item
            likely = forward * _worth(_window(future, offset, window), behind)
            mean = (likely * positions).sum() / jnp.maximum(likely.sum(), _LEAST)
            shift = jnp.maximum(jnp.round(mean).astype(jnp.int32) - behind, 0)
            source = positions + shift
            forward = jnp.where(source < window, forward[jnp.minimum(source, window - 1)], 0.0)
            offset = offset + shift
            match = _matches(known, _window(padded, offset - 1, window))[letter]
            after, shifted = forward * mixed[0], forward
            for run in range(1, longest + 1):
                shifted = jnp.pad(shifted[:-1], (1, 0)) * match
                after = after + shifted * mixed[run]
            return (after / jnp.maximum(after.sum(), _LEAST), offset), (forward, offset)

        start = (jnp.zeros(window, jnp.float32).at[0].set(1.0), jnp.zeros_like(length))
        (_, final), (forward, offset) = lax.scan(advance, start, (letters, mixed))

        def retreat(carry, item):
            backward, after_offset = carry  # by the position after the round, in the window of ``after_offset``
            letter, mixed, emission, forward, offset = item
            source = positions - (after_offset - offset)
            inside = (source >= 0) & (source < window)
            backward = jnp.where(inside, backward[jnp.clip(source, 0, window - 1)], 0.0)
            match = _matches(known, _window(padded, offset - 1, window))[letter]
            shifted, reach = forward, []
            for _ in range(longest + 1):
                reach.append((shifted * backward).sum())
                shifted = jnp.pad(shifted[:-1], (1, 0)) * match
            reach = jnp.stack(reach)  # by run length, the probability of everything but this round's run length itself
            summed, pulled = backward * mixed[0], backward
            for run in range(1, longest + 1):
                pulled = jnp.pad((pulled * match)[1:], (0, 1))
                summed = summed + pulled * mixed[run]
            log_likelihood = jnp.log(jnp.maximum((emission * reach[None]).sum(-1), _LEAST))
            scale = jnp.maximum(summed.max(), _LEAST)
            return (summed / scale, offset), (log_likelihood, lax.argmax(mixed * reach, 0, jnp.int32))

        end = jnp.zeros(window, jnp.float32)
        end = jnp.where(positions == length - final, 1.0, end)
        back = (letters, mixed, emission, forward, offset)
        log_likelihood, runs = lax.scan(retreat, (end, final), back, reverse=True)[1]
        present = length > 0
        return jnp.where(present, log_likelihood, 0.0), jnp.where(present, runs, -1)

    log_likelihood, runs = jax.vmap(of_copy)(
        reads, lengths, jnp.pad(_future(known, reads), ((0, 0), (window, 2 * window)))
    )
    exists = emission.sum(-1) > 0
    total = jnp.where(exists, log_likelihood.sum(0), 0.0)
    total = total - total.sum(-1, keepdims=True) / jnp.maximum(exists.sum(-1, keepdims=True, dtype=jnp.int32), 1)
    return jnp.where(exists, total, NOTHING), runs.astype(jnp.int32)
