"""Alignment: from noisy copies of one strand to its letters, its levels, and the likelihood of each level.

The hidden state is the strand. Given the strand, each copy is an independent hidden Markov chain, whose position is the
number of the copy's bases that are consumed. A run that a copy lost consumes nothing. Where the run between two equal
letters is lost, the two merge without further rules, since positions count bases and not runs.

``align`` follows the most likely strings of (letter, level), round by round (beam search). For each string it keeps the
exact forward probabilities of every copy, in a window of positions. A round that is lost in all copies is one more
string to follow. The check letters of ``frame`` drop wrong strings. Strings are ranked by their probability times that
of each copy's remaining bases under letters drawn at random, so that strings that are ahead and strings that are behind
compare fairly. ``soft_levels`` then passes over the letters of the result, forwards and backwards.

Strings that have the same letters and differ only in levels would fill the beam, twice as many for each uncertain
level. Once they are at the same position in every copy, nothing that follows can tell them apart, so the likeliest of
them stands for all.

A string consists of letters with levels. Following letters alone, with the level mixed or chosen on the way, finds far
fewer strands at equal beam: the copies share the level, and a level that is wrong now rules out the right letters
later.

The steps of ``align`` are in ``beam``, those of ``soft_levels`` in ``forward_backward``. Both look at a copy through a
``window``.

The paper leaves alignment open ("alignment of N copies", ISIT 2020, pipeline); this method is ours.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Float64, Int32, Integer, UInt8

from helix_jax.errors import HelixError
from helix_jax.timing import beam as strings
from helix_jax.timing import capacity, forward_backward, frame
from helix_jax.timing.channel import Law, pmf_table
from helix_jax.timing.graph import TimeTable
from helix_jax.timing.window import LEAST, NOTHING, PAD, Model, log_remainders, pad_reads

_RIVALS = 32  # the likeliest strings, which are held against the best one letter by letter
_RARE = 1e-7  # run lengths are ignored if runs at least as long are rarer than this, per round and copy
_NOISE = 1e-4  # least probability of a run length where the sequencer errs

Arrayish = Array | np.ndarray


class AlignmentError(HelixError):
    """A beam or window is too small; the message gives the least that works."""


def emissions(law: Law, table: TimeTable) -> Float64[np.ndarray, "4 4 levels runs"]:
    """Return ``channel.pmf_table`` without the run lengths that are too rare to follow.

    A run that is longer than the last column is regarded as impossible.
    """
    pmf = pmf_table(law, table)
    tail = pmf[..., ::-1].cumsum(axis=-1)[..., ::-1].max(axis=(0, 1, 2))
    return pmf[..., tail > _RARE]


def model(
    law: Law,
    table: TimeTable,
    *,
    costs: TimeTable | None = None,
    overhead: float | int = 0.0,
    substitution: float | int = 0.0,
) -> Model:
    """Make the model of a channel.

    Args:
        law: The law of the run lengths.
        table: The time table.
        costs: What each time counts in the coder, or None for the time itself: it says how frequent each is.
        overhead: The time of a round beside that of its run. With a greater one, writers prefer longer runs.
        substitution: The share of bases that the sequencer misreads, which may be 0.

    Returns:
        The model.
    """
    pmf = emissions(law, table)
    levels = table.array() > 0
    if substitution:
        pmf = np.where(levels[..., None], np.maximum(pmf, _NOISE), 0.0)
    chain = capacity.chain(costs or table, overhead=overhead)
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


def align(
    model: Model,
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    beam: int,
    window: int,
    tags: Int32[Arrayish, " R"] | None = None,
) -> tuple[UInt8[Array, " R"], UInt8[Array, " R"], Float32[Array, ""], Float32[Array, ""], Float32[Array, ""]]:
    """Find the letters and levels of one strand from its copies; pure.

    Args:
        model: The model of the channel.
        reads: The bases of the copies; what lies past their end is ignored.
        lengths: The lengths of the copies; a copy of length 0 counts as absent.
        layout: The layout of the strand.
        beam: The number of strings that are followed at once.
        window: The number of positions that are kept of each copy, which is more than the longest run.
        tags: The tag (``frame.tag``) of the letters up to each round, or -1 where it is not known; None if none is.

    Returns:
        The letters; the levels; the score; the doubt; and the odds. The score is the log probability of letters, levels
        and copies, or ``NOTHING`` where no string was found that explains all copies, or where there is no copy. The
        doubt says how much likelier other letters were at the positions of the check letters (in nats, summed): it is
        small for the right string, and large for a wrong one, whose hash demands random letters. The odds are the log
        probability of the string relative to that of all strings that are left with other letters, not counting those
        after ``Frame.settled``.

    Raises:
        AlignmentError: The beam or the window is too small.
    """
    levels = model.emission.shape[2]
    start, extend, copies = _begun(model, reads, lengths, beam, window)
    tags = jnp.full(layout.rounds, -1, jnp.int32) if tags is None else tags
    last, (parents, symbols) = lax.scan(extend, start, (jnp.asarray(layout.kinds), tags))
    score = strings.close(last, lengths, copies.present)
    best, ranked = lax.top_k(score, min(beam, _RIVALS))
    rivals = jax.vmap(strings.trace_back, in_axes=(0, None, None))(ranked, parents, symbols)
    winner, strand, letters = ranked[0], rivals[0], rivals // levels
    alike = (letters == letters[:1])[:, : layout.settled].all(axis=1)
    others = jax.nn.logsumexp(score.at[ranked].set(jnp.where(alike, NOTHING, best)))
    odds = jax.nn.logsumexp(jnp.where(alike, best, NOTHING)) - others
    return strand // levels, strand % levels, jnp.maximum(score[winner], NOTHING), last.doubt[winner], odds


def beginnings(
    model: Model,
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    beam: int,
    window: int,
    rounds: int,
    count: int,
) -> UInt8[Array, "count rounds"]:
    """Find the likeliest strings of letters of the first rounds of a strand, the likeliest one first; pure.

    Args:
        model: As for ``align``.
        reads: As for ``align``.
        lengths: As for ``align``.
        layout: As for ``align``.
        beam: As for ``align``.
        window: As for ``align``.
        rounds: The number of rounds.
        count: The number of strings, ``beam`` at most, which need not all differ.
    """
    first, steps = _begun(model, reads, lengths, beam, window)[:2]
    _, (parents, symbols) = lax.scan(
        steps, first, (jnp.asarray(layout.kinds[:rounds]), jnp.full(rounds, -1, jnp.int32))
    )
    numbers = jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(strings.trace_back, in_axes=(0, None, None))(numbers, parents, symbols) // model.emission.shape[2]


def _begun(model, reads, lengths, beam, window):
    """Return (the empty strings, the step that makes them longer, the copies). Raises AlignmentError."""
    longest = model.emission.shape[3] - 1
    if beam < 1 or window <= longest:
        raise AlignmentError(f"beam {beam}, window {window}: give at least 1, and {longest + 1} for the longest run")
    padding = (0, 0), (window, 2 * window)
    reads = pad_reads(reads, lengths)
    future = jnp.pad(log_remainders(model, reads), padding)
    copies = strings.Copies(jnp.pad(reads, padding, constant_values=PAD), future, lengths > 0)
    extend = functools.partial(strings.extend, model=model, copies=copies)
    return strings.start(len(reads), beam, window), extend, copies


def soft_levels(
    model: Model,
    letters: Integer[Arrayish, " R"],
    reads: UInt8[Arrayish, "N L"],
    lengths: Int32[Arrayish, " N"],
    *,
    layout: frame.Frame,
    window: int,
    sweeps: int = 1,
) -> tuple[Float32[Array, "R levels"], Int32[Array, "N R"]]:
    """Return the log-likelihoods of the levels of each round, and its run lengths, given the letters; pure.

    For the level of one round, those of the other rounds are as frequent as in general. The levels that ``align`` found
    are of no use here: those that are wrong together would support each other.

    Args:
        model: As for ``align``.
        letters: The letters that ``align`` found.
        reads: As for ``align``.
        lengths: As for ``align``.
        layout: As for ``align``.
        window: As for ``align``.
        sweeps: In all sweeps but the first, a copy takes the levels of the other rounds as the other copies have them
            after the sweep before.

    Returns:
        The log-likelihoods, whose mean over the levels that exist is zero, and which are ``NOTHING`` for the others;
        and the most likely run length of each round in each copy, which is -1 in a copy of length 0.

    Raises:
        AlignmentError: The window is too small.
    """
    longest = model.emission.shape[3] - 1
    if window <= longest:
        raise AlignmentError(f"window {window}: give at least {longest + 1} for the longest run")
    before = jnp.concatenate([jnp.zeros_like(letters[:1]), letters[:-1]]).astype(jnp.int32)
    letters = letters.astype(jnp.int32)
    prior = jnp.exp(model.prior[np.minimum(layout.kinds, 1), before, letters])  # [R, levels]
    prior = prior / jnp.maximum(prior.sum(-1, keepdims=True), LEAST)
    emission = model.emission[before, letters]  # [R, levels, r + 1]
    reads = pad_reads(reads, lengths)
    future = jnp.pad(log_remainders(model, reads), ((0, 0), (window, 2 * window)))

    def of_copy(weight, read, length, future):
        rounds = forward_backward.Round(letters, (weight[..., None] * emission).sum(1), emission)
        return forward_backward.of_copy(model, rounds, read, length, future, window=window)

    log_likelihood, runs = jax.vmap(of_copy, in_axes=(None, 0, 0, 0))(prior, reads, lengths, future)
    for _ in range(sweeps - 1):
        others = log_likelihood.sum(0)[None] - log_likelihood  # [N, R, levels]
        weight = jax.nn.softmax(jnp.log(jnp.maximum(prior, LEAST))[None] + others, axis=-1)
        log_likelihood, runs = jax.vmap(of_copy)(weight, reads, lengths, future)
    return combine(log_likelihood, emission), runs.astype(jnp.int32)


def combine(
    log_likelihood: Float32[Array, "N R levels"], emission: Float32[Array, "R levels runs"]
) -> Float32[Array, "R levels"]:
    """Return the sum over the copies, with a mean of zero over the levels that exist; the others are ``NOTHING``.

    Args:
        log_likelihood: The log-likelihood of each level by each copy.
        emission: The probability of each run length, which is 0 throughout for a level that does not exist.
    """
    exists = emission.sum(-1) > 0
    total = jnp.where(exists, log_likelihood.sum(0), 0.0)
    total = total - total.sum(-1, keepdims=True) / jnp.maximum(exists.sum(-1, keepdims=True, dtype=jnp.int32), 1)
    return jnp.where(exists, total, NOTHING)
