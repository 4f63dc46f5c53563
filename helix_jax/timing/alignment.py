"""Noisy copies of one strand -> its letters, its levels, and how likely each level is.

The hidden state is the strand; each copy is an independent hidden Markov chain given it, whose position is how many of
the copy's bases are consumed. A run that a copy lost consumes nothing, and where the run between two equal letters is
lost the two merge by themselves, since positions count bases, not runs.

``align`` follows the most likely strings of (letter, level), round by round (beam search): for each it keeps the exact
forward probabilities of every copy, in a window of positions. A round lost in all copies is one more string to follow.
The check letters of ``frame`` drop wrong strings. Strings are ranked by their probability times that of each copy's
remaining bases under letters drawn at random, so that those ahead and those behind compare fairly. ``soft_levels`` then
goes over the letters that were found, forwards and backwards.

Nothing after a round tells its level better, so strings of the same letters that differ in old levels alone would fill
the beam, twice as many for each level in doubt; the likeliest of them stands for all.

A string is letters with levels. To follow letters alone, with the level mixed or chosen as one goes, finds far fewer
strands at equal beam: the copies share the level, and one that is wrong now rules out the right letters later.

The paper leaves alignment open ("alignment of N copies", ISIT 2020, pipeline); all of this is ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helix_jax.errors import HelixError
from helix_jax.timing import capacity, frame
from helix_jax.timing.channel import pmf_table

NOTHING = -1e9  # log probability of what cannot be
PAD = 9  # no base: what stands past the end of a read
_LEAST = 1e-30
_DOUBT = 0.03  # chance given to the levels that alignment did not choose
_RARE = 1e-7  # probability of so long a run, per round and copy, that is left out of account
_NOISE = 1e-4  # least probability of a run length where the sequencer errs
_MEMORY = 16  # rounds, 32 bits at most: strings of the same letters whose levels differ before these are one


class AlignmentError(HelixError):
    """A beam or window that cannot work; the message gives the least that does."""


class Model(NamedTuple):
    """What alignment knows of the channel; see ``model``.

    emission: float32[4, 4, levels, r_max + 1], probability of each run length by (b, a, level). prior: float32[2, 4, 4,
    levels], log probability of (a, level) after b, in data rounds and in letter rounds. run: float32[2 r_max + 1], log
    probability of a run of a copy, whatever the round, with its share of that of the runs lost. match, foreign:
    float32, probability that a base is read as itself, and as a certain other one. merge: float32, log probability that
    a letter goes on in its run.
    """

    emission: jax.Array
    prior: jax.Array
    run: jax.Array
    match: jax.Array
    foreign: jax.Array
    merge: jax.Array


def emissions(law, table):
    """``channel.pmf_table`` without what is too rare to follow: a run past the last column counts as impossible."""
    pmf = pmf_table(law, table)
    tail = pmf[..., ::-1].cumsum(axis=-1)[..., ::-1].max(axis=(0, 1, 2))
    return pmf[..., tail > _RARE]


def model(law, table, *, overhead=0.0, substitution=0.0):
    """Law and time table -> Model.

    overhead: time of a round beside its run (writers then prefer longer runs). substitution: share of bases that the
    sequencer misreads (0 if it does not).
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
    merge = keep * (1 - keep) / 3  # the next run is lost, and the one after has the same letter
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
    """Entries start..start + width - 1 of an array, those before its beginning included (they mean nothing)."""
    return lax.dynamic_slice(row, (start + width,), (width,))


def _matches(known, window):
    """float32[4, ..., W]: probability that the base at each place of the window is read so if it is A, C, G, T."""
    bases = jnp.arange(4, dtype=window.dtype).reshape(4, *([1] * window.ndim))
    return jnp.where(window[None] == bases, known.match, jnp.where(window[None] == PAD, 0.0, known.foreign))


def _future(known, reads):
    """Log probability of what is left of a read: float32[..., L + 1], by bases consumed.

    The letters count nothing, as the other copies tell them (to count them in full loses one strand in ten more).
    """

    def one(read):
        def step(carry, item):
            run, after, following = carry
            base, before = item
            run = jnp.where(base == following, run + 1, 1)
            after_run = jnp.where(base == following, after[0], after[1])
            rest = known.run[jnp.minimum(run, len(known.run) - 1)] + after_run
            inside = jnp.where(base == before, known.merge, 0.0)
            rest, shown = jnp.where(base == PAD, 0.0, rest), jnp.where(base == PAD, 0.0, rest + inside)
            return (run, jnp.stack([after_run, rest]), base), shown

        zero = read[0] * 0
        start = (zero.astype(jnp.int32), jnp.zeros(2, jnp.float32) + zero, zero + jnp.uint8(PAD + 1))
        before = jnp.concatenate([jnp.full_like(read[:1], PAD + 2), read[:-1]])
        rest = lax.scan(step, start, (read, before), reverse=True)[1]
        return jnp.concatenate([rest, jnp.zeros(1, jnp.float32) + zero])

    return jax.vmap(one)(reads)


def _padded(reads, lengths):
    """Reads with ``PAD`` past their end, whatever stood there."""
    return jnp.where(jnp.arange(reads.shape[1], dtype=jnp.int32)[None] < lengths[:, None], reads, jnp.uint8(PAD))


def _tails(match, longest):
    """That the last 0, 1, .. longest bases before each position are the letter: list of arrays like ``match``."""
    tails = [jnp.ones_like(match)]
    for run in range(longest):
        shifted = jnp.pad(match[..., : match.shape[-1] - run], ((0, 0),) * (match.ndim - 1) + ((run, 0),))
        tails.append(tails[-1] * shifted)
    return tails


def _worth(rest, place):
    """exp of ``_future`` in a window, relative to that at one place."""
    return jnp.exp(jnp.clip(rest - rest[place], -60.0, 60.0))


def _merged(letters, levels):
    """Which strings are told apart from a likelier one (earlier) neither by letters nor by late levels: bool[beam].

    letters, levels: uint32[beam], hashes of all letters and the levels of the last rounds.
    """
    letters, levels, place = lax.sort(
        (letters, levels, jnp.arange(len(letters), dtype=jnp.int32)), num_keys=2, is_stable=True
    )
    same = (letters[1:] == letters[:-1]) & (levels[1:] == levels[:-1])
    return jnp.zeros(len(letters), bool).at[place[1:]].set(same)


def align(known, reads, lengths, *, layout, beam, window):
    """Copies of one strand -> its letters and levels; pure, for one strand.

    known: Model. reads: uint8[N, L], bases of the copies; what stands past their end is not looked at. lengths:
    int32[N]; a copy of length 0 is no copy. layout: frame.Frame. beam: strings followed at once. window: positions kept
    of each copy, more than the longest run.
    Returns (letters uint8[R], levels uint8[R], score float32, doubt float32). score: log probability of letters, levels
    and copies; ``NOTHING`` where no string was found that explains all copies, or where there is no copy. doubt: how
    much likelier other letters were where the check letters stand (nats, summed): little for the right string, much for
    a wrong one, whose hash demands letters at random.
    Raises AlignmentError.
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
    bases, places = jnp.arange(4, dtype=jnp.int32), jnp.arange(window, dtype=jnp.int32)
    over_copies = jax.vmap(_window, in_axes=(0, 0, None))
    worth_of = jax.vmap(_worth)

    def step(carry, kind):
        forward, past, before, state, late, doubt, offset = carry
        # move the windows along with the best string: to where it is most likely, given all of each copy
        likely = forward[:, 0] * worth_of(over_copies(future, offset, window), lengths * 0 + behind)
        mean = (likely * places[None]).sum(-1) / jnp.maximum(likely.sum(-1), _LEAST)
        middle = jnp.round(mean).astype(jnp.int32)
        shift = jnp.maximum(middle - behind, 0)
        wide = jnp.pad(forward, ((0, 0), (0, 0), (0, window)))
        forward = jax.vmap(lambda rows, at: lax.dynamic_slice_in_dim(rows, at, window, axis=1))(wide, shift)
        offset = offset + shift
        match = _matches(known, over_copies(padded, offset - 1, window))  # the base that takes a copy to this position
        tails = _tails(match.swapaxes(0, 1), longest)  # [N, 4, W] each
        rest = worth_of(over_copies(future, offset, window), middle - shift)
        worth = jnp.stack([jnp.ones_like(rest), rest])[:, :, None]  # of a position

        # what a copy at each position gives to each (b, a, level), with and without the worth of where it gets to:
        # the same for all strings, so their sums over positions are one product of matrices
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
        _, place = lax.top_k((now + (ahead - gain)).reshape(-1), beam)
        parent, letter, level = place // (4 * levels), place // levels % 4, place % levels

        emission = known.emission[before[parent], letter, level]
        start = jnp.pad(forward[:, parent], ((0, 0), (0, 0), (longest, 0)))
        after = jnp.zeros_like(forward)
        for run, tail in enumerate(tails):
            after += start[..., longest - run : longest - run + window] * tail[:, letter] * emission[None, :, run, None]
        forward = after / jnp.maximum(after.sum(-1, keepdims=True), _LEAST)
        state = frame.absorb(state[parent], letter)
        late = late[parent] << level_bits & jnp.uint32(memory) | level.astype(jnp.uint32)
        past = jnp.where(_merged(state, late), NOTHING, jnp.maximum(now.reshape(-1)[place], NOTHING))
        carry = (forward, past, letter, state, late, doubt[parent, letter], offset)
        return carry, (parent, letter * levels + level)

    zero = lengths[0] * 0
    forward = jnp.zeros((copies, beam, window), jnp.float32).at[..., 0].set(1.0) + zero
    past = jnp.full((beam,), NOTHING, jnp.float32).at[0].set(0.0) + zero
    before = jnp.zeros((beam,), jnp.int32) + zero
    state = jnp.full((beam,), frame.HASH_START, jnp.uint32) + zero.astype(jnp.uint32)
    carry = (forward, past, before, state, state * 0, past * 0, lengths * 0)
    carry, (parents, symbols) = lax.scan(step, carry, jnp.asarray(layout.kinds))
    forward, past, doubt, offset = carry[0], carry[1], carry[5], carry[6]
    end = lengths - offset
    mass = jnp.where(places[None, None] == end[:, None, None], forward, 0.0).sum(-1)
    arrived = jnp.where(mass > 0, jnp.log(jnp.maximum(mass, _LEAST)), NOTHING)
    score = (
        past + jnp.where(present[:, None], arrived, 0.0).sum(0) + jnp.where(present.any(), 0.0, jnp.float32(NOTHING))
    )
    winner = lax.argmax(score, 0, jnp.int32)

    def back(where, item):
        parents, symbols = item
        return parents[where], symbols[where]

    strand = lax.scan(back, winner, (parents, symbols), reverse=True)[1].astype(jnp.uint8)
    return strand // levels, strand % levels, jnp.maximum(score[winner], NOTHING), doubt[winner]


def soft_levels(known, letters, levels, reads, lengths, *, layout, window):
    """Log likelihoods of the levels of each round, and its run lengths, given the letters; pure, for one strand.

    letters, levels: uint8[R], as ``align`` found them. Others as there.
    Returns (log_likelihood float32[R, levels], zero mean over the levels that exist, ``NOTHING`` for the others; runs
    int32[N, R]: most likely run length of each round in each copy, -1 in a copy of length 0). For the level of one
    round the others are taken as found, but for a share of ``_DOUBT``.
    Raises AlignmentError.
    """
    count, longest = known.emission.shape[2], known.emission.shape[3] - 1
    if window <= longest:
        raise AlignmentError(f"window {window}: give at least {longest + 1} for the longest run")
    behind = window // 3
    before = jnp.concatenate([letters[:1] * 0, letters[:-1]]).astype(jnp.int32)
    letters = letters.astype(jnp.int32)
    prior = jnp.exp(known.prior[np.minimum(layout.kinds, 1), before, letters])  # [R, levels]
    prior = _DOUBT * prior / jnp.maximum(prior.sum(-1, keepdims=True), _LEAST)
    weight = prior + (1 - _DOUBT) * jax.nn.one_hot(levels, count, dtype=jnp.float32)
    emission = known.emission[before, letters]  # [R, levels, r + 1]
    mixed = (weight[..., None] * emission).sum(1)

    reads = _padded(reads, lengths)

    def one(read, length, future):
        padded = jnp.pad(read, (window, 2 * window), constant_values=PAD)
        places = jnp.arange(window, dtype=jnp.int32)

        def advance(carry, item):
            forward, offset = carry
            letter, mixed = item
            likely = forward * _worth(_window(future, offset, window), behind)
            mean = (likely * places).sum() / jnp.maximum(likely.sum(), _LEAST)
            shift = jnp.maximum(jnp.round(mean).astype(jnp.int32) - behind, 0)
            source = places + shift
            forward = jnp.where(source < window, forward[jnp.minimum(source, window - 1)], 0.0)
            offset = offset + shift
            match = _matches(known, _window(padded, offset - 1, window))[letter]
            after, shifted = forward * mixed[0], forward
            for run in range(1, longest + 1):
                shifted = jnp.pad(shifted[:-1], (1, 0)) * match
                after = after + shifted * mixed[run]
            return (after / jnp.maximum(after.sum(), _LEAST), offset), (forward, offset)

        zero = length * 0
        start = (jnp.zeros(window, jnp.float32).at[0].set(1.0) + zero, zero)
        (_, final), (forward, offset) = lax.scan(advance, start, (letters, mixed))

        def retreat(carry, item):
            backward, after_offset = carry  # over positions after the round, in the window of ``after_offset``
            letter, mixed, emission, forward, offset = item
            source = places - (after_offset - offset)
            inside = (source >= 0) & (source < window)
            backward = jnp.where(inside, backward[jnp.clip(source, 0, window - 1)], 0.0)
            match = _matches(known, _window(padded, offset - 1, window))[letter]
            shifted, reach = forward, []
            for _ in range(longest + 1):
                reach.append((shifted * backward).sum())
                shifted = jnp.pad(shifted[:-1], (1, 0)) * match
            reach = jnp.stack(reach)  # probability of all but this round's run length, by run length
            here, pulled = backward * mixed[0], backward
            for run in range(1, longest + 1):
                pulled = jnp.pad((pulled * match)[1:], (0, 1))
                here = here + pulled * mixed[run]
            log_likelihood = jnp.log(jnp.maximum((emission * reach[None]).sum(-1), _LEAST))
            scale = jnp.maximum(here.max(), _LEAST)
            return (here / scale, offset), (log_likelihood, lax.argmax(mixed * reach, 0, jnp.int32))

        end = jnp.zeros(window, jnp.float32) + zero
        end = jnp.where(places == length - final, 1.0, end)
        back = (letters, mixed, emission, forward, offset)
        log_likelihood, runs = lax.scan(retreat, (end, final), back, reverse=True)[1]
        present = length > 0
        return jnp.where(present, log_likelihood, 0.0), jnp.where(present, runs, -1)

    log_likelihood, runs = jax.vmap(one)(reads, lengths, jnp.pad(_future(known, reads), ((0, 0), (window, 2 * window))))
    exists = emission.sum(-1) > 0
    total = jnp.where(exists, log_likelihood.sum(0), 0.0)
    total = total - total.sum(-1, keepdims=True) / jnp.maximum(exists.sum(-1, keepdims=True, dtype=jnp.int32), 1)
    return jnp.where(exists, total, NOTHING), runs.astype(jnp.int32)
