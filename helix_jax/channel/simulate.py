"""Strands -> noisy reads with qualities: ``corrupt`` is one pass of errors, ``reads_of`` the whole channel.

These are pure functions of a key, one row at a time under vmap. No scan is needed, since bursts are a running maximum
of where they end, and positions in the read a running sum. Bases are 0..3 = A C G T, and 255 past the length.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Int64, Integer, Key, PRNGKeyArray, UInt8

from helix_jax import parallel
from helix_jax.channel.model import FACTOR_REACH, LONGEST_RUN, Channel, ChannelError, Errors, homopolymer_mean

PAD = 255
RIGHT, WRONG, BESIDE = range(3)  # kinds of bases of a read
BATCH = 4096  # reads per call
_SCORE_REACH, _SCORE_STEPS = 4.0, 1024  # reach and size of the table from normal scores to qualities
_MOST = 0.95  # the highest probability of an event at one base


@dataclass(frozen=True)
class Reads:
    """Reads in random order, in NumPy arrays.

    Attributes:
        bases: 0..3 = A C G T and 255 past the length; the width is the greatest length.
        lengths: Number of bases of each read, never 0.
        qualities: Phred, 0 past the length.
        origin: The strand that a read comes from; -1 for a chimera.
        reversed: Whether a read is a reverse complement.
    """

    bases: UInt8[np.ndarray, "N W"]
    lengths: Int32[np.ndarray, " N"]
    qualities: UInt8[np.ndarray, "N W"]
    origin: Int64[np.ndarray, " N"]
    reversed: Bool[np.ndarray, " N"]


# ---- one pass of errors -----------------------------------------------------------------------------------


def width(errors: Errors, longest: int) -> int:
    """Return the columns that ``corrupt`` gives for strands of at most ``longest`` bases.

    They have room for the worst possible read, and six standard deviations of its insertions.
    """
    if not errors.insertion:
        return longest
    worst = math.exp(FACTOR_REACH * errors.spread - errors.spread**2 / 2)
    mean = longest * min(_MOST, errors.insertion * worst) * min(max(errors.position), 2)
    variance = mean * (1 + errors.insertion_run) / (1 - errors.insertion_run)
    if errors.bad_share:  # each stretch has such a length and so many insertions
        variance += mean * errors.bad_errors * 2 * errors.bad_length * errors.insertion / errors.bad_share
    deviation = math.sqrt(variance)
    return longest + 8 * math.ceil((mean + 6 * deviation + 8 / (1 - errors.insertion_run)) / 8)


def draw_factor(errors: Errors, key: PRNGKeyArray) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Draw the error factor of a read, of mean 1, and its standard normal deviate, which is clipped at 4.5 sigma."""
    deviate = jnp.clip(jax.random.normal(key, (), jnp.float32), -FACTOR_REACH, FACTOR_REACH)
    return jnp.exp(errors.spread * deviate - errors.spread**2 / 2), deviate


@functools.partial(jax.jit, static_argnames="errors")
def corrupt(
    errors: Errors,
    bases: UInt8[Array, "B W"],
    lengths: Integer[Array, " B"],
    factor: Float32[Array, " B"],
    keys: Key[Array, " B"],
) -> tuple[UInt8[Array, "B room"], Int32[Array, " B"], UInt8[Array, "B room"]]:
    """Pass over B molecules once and make errors. Rows do not depend on one another.

    Args:
        errors: The error process, which is static.
        bases: The bases of the molecules.
        lengths: The number of bases of each.
        factor: The factor on all rates of a row.
        keys: One key for each row.

    Returns:
        The new bases, their lengths and the kind of each base, in ``width`` columns. The kind is RIGHT, WRONG
        (substituted or inserted) or BESIDE (right, and next to an error). What would exceed the width is cut off, which
        practically never happens.
    """
    return jax.vmap(functools.partial(_corrupt, errors))(bases, lengths, factor, keys)


def _corrupt(errors, bases, length, factor, key):
    """Do the work of ``corrupt`` for one row: bases uint8[W], length int32[], factor float32[], key."""
    longest, room = len(bases), width(errors, len(bases))
    if not errors.total:
        return bases, length, jnp.zeros((longest,), jnp.uint8)
    events, filling, stretching = jax.random.split(key, 3)
    # These are drawn in one call, which compiles faster.
    deleting, substituting, inserting = jax.random.uniform(events, (3, longest), jnp.float32)
    index = jnp.arange(longest, dtype=jnp.int32)
    inside = index < length
    rate = factor * _profile(errors.position, index, length)
    if errors.bad_share:
        rate = rate * _stretches(errors, index, factor, stretching)

    deleted = jnp.zeros((longest,), bool)
    share = jnp.zeros((longest,), jnp.float32)
    if errors.deletion:
        share = rate * errors.deletion
        if errors.homopolymer != 1:
            runs = jnp.minimum(_runs(bases, index), LONGEST_RUN)
            share = share * errors.homopolymer ** (runs - 1).astype(jnp.float32) / homopolymer_mean(errors.homopolymer)
        share = jnp.minimum(share, _MOST)
        # Bursts overlap: this many must start for that share of the bases to be lost.
        covered = -jnp.log1p(-share) * (1 - errors.deletion_run)
        started, burst = _bursts(deleting, covered - covered**2 / (2 + 2 * errors.deletion_run), errors.deletion_run)
        deleted = lax.cummax(jnp.where(started, index + burst, 0)) > index

    chance = errors.substitutions  # only what is not deleted can show a substitution
    hit = np.sum(chance, axis=1, dtype=np.float32)
    chance = np.cumsum(chance, axis=1, dtype=np.float32) / np.maximum(hit, 1e-9)[:, None]
    base = bases & 3
    limit = jnp.minimum(rate * errors.substitution * jnp.asarray(hit)[base] / (1 - share), _MOST)
    substituted = substituting < limit
    # Given a hit, the ratio is uniform again, and picks the base.
    other = jnp.sum(
        (substituting / jnp.maximum(limit, 1e-20))[:, None] >= jnp.asarray(chance[:, :3])[base], axis=1, dtype=jnp.uint8
    )
    base = jnp.where(substituted, other, base)

    extra = jnp.zeros((longest,), jnp.int32)
    if errors.insertion:
        started, burst = _bursts(inserting, rate * errors.insertion * (1 - errors.insertion_run), errors.insertion_run)
        extra = jnp.where(started & inside, burst, 0)

    kept = inside & ~deleted
    ends = jnp.cumsum(extra + kept, dtype=jnp.int32)
    position = ends - kept
    coded = jax.random.bits(filling, (room,), jnp.uint8) & 3 | 4 if errors.insertion else jnp.zeros((room,), jnp.uint8)
    coded = coded.at[jnp.where(kept, position, room)].set(base | substituted.astype(jnp.uint8) << 2, mode="drop")
    gap = jnp.zeros((room + 1,), bool).at[jnp.where(deleted & inside, position, room + 1)].set(True, mode="drop")
    length = jnp.minimum(ends[-1], room)
    real = jnp.arange(room, dtype=jnp.int32) < length
    wrong = real & (coded >= 4)
    near = jnp.pad(wrong[1:], (0, 1)) | jnp.pad(wrong[:-1], (1, 0)) | gap[:-1] | gap[1:]
    kind = jnp.where(wrong, jnp.uint8(WRONG), jnp.where(near & real, jnp.uint8(BESIDE), jnp.uint8(RIGHT)))
    return jnp.where(real, coded & 3, PAD), length, kind


def _bursts(drawn, chance, again):
    """Return whether a burst starts at each base, bool[W], and its length, int32[W].

    Args:
        drawn: float32[W], uniform.
        chance: float32[W], probability that a burst starts.
        again: Probability that a burst goes on.
    """
    limit = jnp.minimum(chance, _MOST)
    if not again:
        return drawn < limit, jnp.ones(chance.shape, jnp.int32)
    remainder = jnp.clip(drawn / jnp.maximum(limit, 1e-20), 1e-6, 1.0)  # uniform, given that a burst starts
    return drawn < limit, 1 + jnp.floor(jnp.log(remainder) / math.log(again)).astype(jnp.int32)


def _stretches(errors, index, factor, key):
    """Return the relative rate at each base by the stretch that it lies in, of mean 1: float32[W]."""
    share = jnp.clip(errors.bad_share * factor, 1e-6, 0.5)
    # A base draws its state anew now and then, and otherwise keeps that of the base before: a two-state Markov chain.
    renewing, drawn = jax.random.uniform(key, (2, len(index)), jnp.float32)
    begin = lax.cummax(jnp.where(renewing * errors.bad_length * (1 - share) < 1, index, 0))
    return 1 - errors.bad_errors + jnp.where(drawn[begin] < share, errors.bad_errors / share, 0.0)


def _profile(position, index, length):
    """Return the relative rate at each position: float32[W]."""
    if len(position) == 1:
        return jnp.ones(index.shape, jnp.float32)
    where = index.astype(jnp.float32) / jnp.maximum(length - 1, 1) * (len(position) - 1)
    return jnp.interp(where, jnp.arange(len(position), dtype=jnp.float32), jnp.asarray(position, jnp.float32))


def _runs(bases, index):
    """Return the length of the homopolymer run that each base is in: int32[W]."""
    changes = bases[1:] != bases[:-1]
    starts = jnp.concatenate([jnp.ones((1,), bool), changes])
    stops = jnp.concatenate([changes, jnp.ones((1,), bool)])
    first = lax.cummax(jnp.where(starts, index, 0))
    last = lax.cummin(jnp.where(stops, index, len(bases)), reverse=True)
    return last - first + 1


# ---- qualities -----------------------------------------------------------------------------------------------


def _quality_table(quality):
    """Return the quality of each kind at each normal score: uint8[3, steps]."""
    score = (np.arange(_SCORE_STEPS) + 0.5) / _SCORE_STEPS * 2 * _SCORE_REACH - _SCORE_REACH
    share = [NormalDist().cdf(value) for value in score.tolist()]
    kinds = (quality.right, quality.wrong, quality.beside)
    return np.stack([np.searchsorted(np.cumsum(row)[:-1], share, side="right") for row in kinds]).astype(np.uint8)


def _qualities(channel, table, kind, deviate, key):
    """Return the Phred of each base of one read, uint8[W], by its kind uint8[W] and the read's deviate float32[]."""
    quality = channel.quality
    if quality.right == quality.wrong == quality.beside and max(quality.right) == 1:
        return jnp.full(kind.shape, quality.right.index(1), jnp.uint8)
    taps = 1 + math.ceil(math.log(0.01) / math.log(quality.neighbour)) if quality.neighbour else 1
    drawn = jax.random.normal(key, (len(kind) + taps,), jnp.float32)
    level, noise = drawn[0], drawn[1:]
    weights = quality.neighbour ** np.arange(taps)
    weights = (weights / np.sqrt(np.sum(weights**2))).tolist()
    score = sum(weight * noise[taps - 1 - lag : taps - 1 - lag + len(kind)] for lag, weight in enumerate(weights))
    score = math.sqrt(max(0.0, 1 - quality.factor**2 - quality.read**2)) * score + quality.read * level
    # Errors are drawn mostly in bad reads: among errors the deviate has mean sigma. Subtracting it leaves the pooled
    # distributions as the channel states them.
    centred = deviate - jnp.where(kind == RIGHT, 0.0, jnp.float32(channel.sequencing.spread))
    score = score - quality.factor * centred
    step = jnp.floor((score + _SCORE_REACH) * (_SCORE_STEPS / (2 * _SCORE_REACH))).astype(jnp.int32)
    return table[kind, jnp.clip(step, 0, _SCORE_STEPS - 1)]


# ---- reads ---------------------------------------------------------------------------------------------------


def draw_copies(
    channel: Channel, strands: int, coverage: float | int, key: PRNGKeyArray
) -> Int64[np.ndarray, " {strands}"]:
    """Draw the number of reads that each strand gets.

    Args:
        channel: The channel.
        strands: The number of strands.
        coverage: Mean reads per strand over all strands, the lost ones included.
        key: The random key.

    Returns:
        The number of reads of each strand.
    """
    numbers = np.array([coverage / (1 - channel.dropout), channel.dropout, channel.skew], np.float32)
    return parallel.map_batches(
        _copies, (key, jnp.asarray(numbers)), np.arange(strands, dtype=np.int32), batch=BATCH
    ).astype(np.int64)  # fmt: skip


def _copies(constants, number):
    key, (coverage, dropout, skew) = constants

    def copies_of_one(number):
        losing, favouring, counting = jax.random.split(jax.random.fold_in(key, number), 3)
        favour = jnp.exp(skew * jax.random.normal(favouring, (), jnp.float32) - skew**2 / 2)
        kept = jax.random.uniform(losing, (), jnp.float32) >= dropout
        return jax.random.poisson(counting, jnp.where(kept, coverage * favour, 0.0), dtype=jnp.int32)

    return jax.vmap(copies_of_one)(number)


def _place(drawn, length):
    """Return a uniform cut that leaves something on both sides: int32[] in 1..length - 1."""
    return 1 + jnp.floor(drawn * jnp.maximum(length - 1, 1)).astype(jnp.int32)


def _read(channel, second, table, keys, strands, origin, number):
    """Return read ``number``, of strand ``origin`` of strands uint8[n, L].

    ``second`` says to read the molecule of that read once more, from its other end. The result is (bases, length,
    qualities, reversed, chimera, uint32[] that orders the reads when they are shuffled).
    """
    writing, reading = keys
    choosing, drawing, corrupting, telling, ordering = jax.random.split(jax.random.fold_in(reading, number), 5)
    joins, joint, partner, pick, cuts, cut, side, turns = jax.random.uniform(choosing, (8,), jnp.float32)
    strand = strands[origin]
    length = jnp.int32(len(strand))
    joined = jnp.bool_(False)
    if channel.chimera:
        joined = joins < channel.chimera
        further = 1 + jnp.floor(partner * max(len(strands) - 1, 1)).astype(jnp.int32)
        other = strands[(origin + further) % len(strands)]
        strand = jnp.where(joined & (jnp.arange(len(strand), dtype=jnp.int32) >= _place(joint, length)), other, strand)
    bases = strand
    if channel.synthesis.total:
        # Reads of a molecule share its errors; a chimera is a molecule of its own.
        shares = ~joined if channel.molecules else jnp.bool_(False)
        which = jnp.floor(pick * max(channel.molecules, 1)).astype(jnp.int32)
        molecule = jax.random.fold_in(writing, jnp.where(shares, 1 + origin, 0))
        molecule = jax.random.fold_in(molecule, jnp.where(shares, which, number))
        own = jax.random.split(molecule)
        factor, _ = draw_factor(channel.synthesis, own[0])
        bases, length, _ = _corrupt(channel.synthesis, bases, length, factor, own[1])
    if second:
        drawing, corrupting, telling = (jax.random.fold_in(key, 1) for key in (drawing, corrupting, telling))
    factor, deviate = draw_factor(channel.sequencing, drawing)
    bases, length, kind = _corrupt(channel.sequencing, bases, length, factor, corrupting)
    qualities = _qualities(channel, table, kind, deviate, telling)
    index = jnp.arange(len(bases), dtype=jnp.int32)
    if channel.truncated:
        short, head, cut = cuts < channel.truncated, side < 0.5, _place(cut, length)
        begin = jnp.where(short & ~head, cut, 0)
        length = jnp.where(short, jnp.where(head, jnp.minimum(cut, length), jnp.maximum(length - cut, 0)), length)
        bases, qualities = (jnp.roll(row, -begin) for row in (bases, qualities))
    turned = jnp.bool_(second)
    if channel.reverse or second:
        turned = (turns < channel.reverse) ^ turned
        back = jnp.where(turned, jnp.maximum(length - 1 - index, 0), index)
        bases, qualities = bases[back], qualities[back]
        bases = jnp.where(turned, 3 - bases, bases)
    real = index < length
    order = jax.random.bits(ordering, (), jnp.uint32)
    return jnp.where(real, bases, PAD), length, jnp.where(real, qualities, 0), turned, joined, order


def _reads(constants, origin, number, *, channel, second):
    keys, strands = constants
    table = jnp.asarray(_quality_table(channel.quality))
    return jax.vmap(functools.partial(_read, channel, second, table, keys, strands))(origin, number)


def reads_of(
    channel: Channel,
    strands: np.ndarray,
    coverage: float | int,
    key: PRNGKeyArray,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Reads:
    """Read strands of one length through a channel, in shuffled order.

    A read of which no base is left is dropped.

    Args:
        channel: The channel.
        strands: uint8[n, L], bases 0..3.
        coverage: Mean reads per strand, more than 0; the number of reads of each strand is drawn (``draw_copies``).
        key: The random key.
        batch: Reads per call; the reads do not depend on it, nor on the number of devices.
        progress: Called with the number of reads done after each batch.

    Returns:
        The reads.

    Raises:
        ChannelError: For a coverage out of range, or strands of another dtype or shape.
    """
    copies, reading = _drawn(channel, strands, coverage, key)
    return read_copies(channel, strands, copies, reading, batch=batch, progress=progress)


def pairs_of(
    channel: Channel,
    strands: np.ndarray,
    coverage: float | int,
    cycles: int,
    key: PRNGKeyArray,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> tuple[Reads, Reads]:
    """Read molecules from both ends, as ``reads_of`` reads them from one.

    The first reads are those that ``reads_of`` returns for the same key, cut after ``cycles`` bases. The second ones
    are read from the other ends of the same molecules: they share the errors of synthesis, and have their own errors of
    sequencing. Read i of the one belongs to read i of the other.

    Args:
        channel: See ``reads_of``.
        strands: See ``reads_of``.
        coverage: Mean pairs per strand, see ``reads_of``.
        cycles: The greatest number of bases of a read, at least 1; a read ends where its molecule ends.
        key: See ``reads_of``.
        batch: See ``reads_of``.
        progress: Called with the number of reads done after each batch; there are two of each molecule.

    Returns:
        The first and the second reads.

    Raises:
        ChannelError: See ``reads_of``, and for no cycles.
    """
    if cycles < 1:
        raise ChannelError(f"cycles: {cycles}; a read has at least 1 base")
    copies, reading = _drawn(channel, strands, coverage, key)
    keys = tuple(jax.random.split(reading))
    (first, order), (second, _) = (
        _sequenced(channel, strands, copies, keys, again, batch, progress) for again in (False, True)
    )
    order = order[(first.lengths[order] > 0) & (second.lengths[order] > 0)]
    return _cut(_chosen(first, order), cycles), _cut(_chosen(second, order), cycles)


def _drawn(channel, strands, coverage, key):
    """Return the number of reads of each strand, and the key for reading them."""
    if not 0 < coverage <= 1e6:
        raise ChannelError(f"coverage: {coverage}; it lies above 0 and up to 1e6 reads per strand")
    counting, reading = jax.random.split(key)
    return draw_copies(channel, len(strands), coverage, counting), reading


def read_copies(
    channel: Channel,
    strands: np.ndarray,
    copies: Integer[np.ndarray, " n"] | Sequence[int],
    key: PRNGKeyArray,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Reads:
    """Read strands as ``reads_of`` does, with the number of reads of each strand given.

    Args:
        channel: See ``reads_of``.
        strands: See ``reads_of``.
        copies: The number of reads of each strand.
        key: See ``reads_of``.
        batch: See ``reads_of``.
        progress: See ``reads_of``.

    Returns:
        The reads.

    Raises:
        ChannelError: For strands of another dtype or shape, or too many reads.
    """
    every, order = _sequenced(channel, strands, copies, tuple(jax.random.split(key)), False, batch, progress)
    return _chosen(every, order[every.lengths[order] > 0])


def _sequenced(channel, strands, copies, keys, second, batch, progress):
    """Return reads strand by strand, those without a base too, and a random order for them.

    ``second`` says to read the same molecules once more, from their other ends.
    """
    strands = np.asarray(strands)
    if strands.ndim != 2 or strands.dtype != np.uint8 or not strands.size:
        raise ChannelError(f"strands: {strands.dtype}{list(strands.shape)}; give uint8[n, L] with n and L at least 1")
    if strands.max() > 3:
        raise ChannelError(f"strands: base {strands.max()}; bases are 0..3 = A C G T")
    origin = np.repeat(np.arange(len(strands)), copies)
    if len(origin) >= 1 << 31:
        raise ChannelError(f"coverage: {len(origin)} reads of {len(strands)} strands; stay below 2^31")
    bases, lengths, qualities, turned, joined, order = parallel.map_batches(
        _reads,
        (keys, jnp.asarray(strands)),
        origin.astype(np.int32),
        np.arange(len(origin), dtype=np.int32),
        batch=batch,
        progress=progress,
        channel=channel,
        second=second,
    )
    origin = np.where(joined, -1, origin)
    return Reads(bases, lengths, qualities, origin, turned), np.argsort(order, kind="stable")


def _chosen(reads, rows):
    """Return some reads, in as many columns as the longest of all needs."""
    longest = int(reads.lengths.max(initial=0))
    return Reads(
        bases=reads.bases[rows, :longest],
        lengths=reads.lengths[rows],
        qualities=reads.qualities[rows, :longest],
        origin=reads.origin[rows],
        reversed=reads.reversed[rows],
    )


def _cut(reads, most):
    """Return the first ``most`` bases of each read."""
    lengths = np.minimum(reads.lengths, np.int32(most))
    real = np.arange(min(most, reads.bases.shape[1]))[None] < lengths[:, None]
    bases, qualities = (rows[:, : real.shape[1]] for rows in (reads.bases, reads.qualities))
    bases, qualities = np.where(real, bases, np.uint8(PAD)), np.where(real, qualities, np.uint8(0))
    return replace(reads, bases=bases, lengths=lengths, qualities=qualities)
