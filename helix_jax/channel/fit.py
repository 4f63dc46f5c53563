"""Real reads -> a channel: alignment, statistics, the fit, and real errors laid over other strands.

Strands and reads are uint8 arrays of bases 0..3 = A C G T. A read is aligned to its strand from end to end with the
fewest edits (edlib), so that a substitution beside an indel may count as something cheaper. ``fit`` undoes that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

from helix_jax.channel import simulate, stretches
from helix_jax.channel.model import LONGEST_RUN, MOST_PHRED, Channel, ChannelError, Errors, Quality, homopolymer_mean
from helix_jax.reads.edits import DELETED, INSERTED, SAME, SUBSTITUTED, edits

Rows = np.ndarray | Sequence[np.ndarray]
BURSTS = 16  # the longest burst that is counted separately
PLACES = 64  # equal parts of a strand in which errors are counted
KNOTS = 9  # knots of the fitted position profile
FAR = range(20, 30)  # distances in bases at which two qualities share nothing but their read


# ---- real errors on other strands ---------------------------------------------------------------------------------


def transplant(
    strand: np.ndarray, read: np.ndarray, quality: Shaped[np.ndarray, " q"], ours: UInt8[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, " m"], Shaped[np.ndarray, " m"]]:
    """Lay the errors and qualities of a real read over another strand.

    The edits are repeated column by column: what was right gives our base, a substitution shifts ours by (read -
    strand) mod 4, an insertion puts in the same base, and a deletion takes ours out. Where ours is longer than the real
    strand, the edits go on from their beginning; where it is shorter, the rest is left out.

    Args:
        strand: The real strand, uint8[...].
        read: The real read of it, uint8[...].
        quality: The Phred of each base of the read.
        ours: The other strand.

    Returns:
        The bases of the new read, and their qualities.

    Raises:
        ChannelError: For another number of qualities than bases.
    """
    if len(quality) != len(read):
        raise ChannelError(f"quality: {len(quality)} values for a read of {len(read)}; give one for each base")
    script = edits(strand, read)
    rounds = -(-len(ours) // len(strand))
    op, where = np.tile(script.op, rounds), np.tile(script.read, rounds)
    begin = np.repeat(np.arange(rounds) * len(strand), len(script.op))
    cycle_place = np.tile(script.position, rounds)
    position = cycle_place + begin
    used = (op != DELETED) & (position < len(ours) + (op == INSERTED))
    op, where, position, cycle_place = op[used], where[used], position[used], cycle_place[used]
    shift = np.where(op == SUBSTITUTED, read[where] - strand[np.minimum(cycle_place, len(strand) - 1)], 0).astype(
        np.uint8
    )
    bases = np.where(op == INSERTED, read[where], (ours[np.minimum(position, len(ours) - 1)] + shift) & 3)
    return bases, quality[where]


# ---- statistics ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """What pairs of strands and reads show, in NumPy arrays; ``rates``, ``spread`` and others sum it up.

    Without qualities, ``histograms``, ``near``, ``far`` and ``levels`` are zeros.

    Attributes:
        reads: Number of pairs.
        bases: Number of bases of their strands.
        exposed: How often each base occurs in the strands.
        substitutions: Substitutions by [true][read].
        inserted: Inserted bases.
        deleted: Deleted bases.
        insertion_runs: Bursts of insertions by length; the last number counts longer ones too.
        deletion_runs: The same of deletions.
        by_run: (deletion bursts that start in, bases of) homopolymer runs of that length, 8 for longer ones.
        by_place: (errors, bases) in equal parts of the strand.
        errors: Wrong bases of each read.
        events: Bursts of each read.
        shares: Wrong bases of each read over the bases of its strand.
        run: Length of the homopolymer run that each base of a strand lies in, 8 for longer ones, 0 past the end.
        begun: Whether a burst begins at each base of a strand.
        histograms: Qualities of right, wrong and beside bases (``simulate.RIGHT``...), none past 60.
        near: Covariance of normal scores of the qualities of right bases next to each other.
        far: The same of bases 20 to 29 apart.
        levels: Mean score of each read.
    """

    reads: int
    bases: int
    exposed: Int64[np.ndarray, "4"]
    substitutions: Int64[np.ndarray, "4 4"]
    inserted: int
    deleted: int
    insertion_runs: Int64[np.ndarray, "17"]
    deletion_runs: Int64[np.ndarray, "17"]
    by_run: Int64[np.ndarray, "2 9"]
    by_place: Int64[np.ndarray, "2 64"]
    errors: Int64[np.ndarray, " n"]
    events: Int64[np.ndarray, " n"]
    shares: Float64[np.ndarray, " n"]
    run: UInt8[np.ndarray, "n W"]
    begun: Bool[np.ndarray, "n W"]
    histograms: Int64[np.ndarray, "3 94"]
    near: float
    far: float
    levels: Float64[np.ndarray, " n"]

    @property
    def rates(self) -> Float64[np.ndarray, "3"]:
        """Substituted, inserted and deleted bases per base of the strand."""
        return np.array([self.substitutions.sum(), self.inserted, self.deleted]) / self.bases

    @property
    def spread(self) -> float:
        """Sigma of a log-normal factor that explains how events vary between reads, beyond chance (by moments)."""
        mean, variance = self.events.mean(), self.events.var()
        return float(np.sqrt(np.log1p(max(0.0, variance - mean) / mean**2))) if mean else 0.0

    @property
    def free(self) -> float:
        """Share of reads without any error."""
        return float(np.mean(self.errors == 0))

    def quantiles(self, shares: float | Sequence[float] | np.ndarray) -> Float64[np.ndarray, "..."] | np.float64:
        """Return quantiles of the error share of a read."""
        return np.quantile(self.shares, shares)

    def followed(self, within: int) -> float:
        """Return the share of bases with an error that have the next one of their read at most ``within`` bases on."""
        read, position = np.nonzero(self.begun)
        near = (np.diff(read) == 0) & (np.diff(position) <= within)
        return float(near.sum() / len(read)) if len(read) else 0.0


def statistics(strands: Rows, reads: Rows, qualities: Rows | None = None) -> Statistics:
    """Compute the statistics of pairs of strands and reads.

    Args:
        strands: n strands uint8[L_i].
        reads: Their n reads uint8[M_i], in the same direction.
        qualities: The Phred of their bases, uint8[M_i], or None.

    Returns:
        The statistics.

    Raises:
        ChannelError: For different numbers of them, none at all, or qualities out of range.
    """
    if not len(strands) or len(strands) != len(reads) or (qualities is not None and len(qualities) != len(reads)):
        given = f"{len(strands)} strands, {len(reads)} reads, {'no' if qualities is None else len(qualities)} qualities"
        raise ChannelError(f"pairs: {given}; give as many of each, at least 1")
    scripts = [edits(strand, read) for strand, read in zip(strands, reads, strict=True)]
    columns = np.array([len(script.op) for script in scripts])
    long, wide = (np.array([len(row) for row in rows]) for rows in (strands, reads))
    pair = np.repeat(np.arange(len(scripts)), columns)
    op = np.concatenate([script.op for script in scripts])
    position = np.concatenate([script.position for script in scripts])
    where = np.concatenate([script.read for script in scripts])
    strand, read = np.concatenate(strands), np.concatenate(reads)
    owner = np.repeat(np.arange(len(scripts)), long)
    at = (np.cumsum(long) - long)[pair] + np.minimum(position, long[pair] - 1)
    on = (np.cumsum(wide) - wide)[pair] + np.minimum(where, wide[pair] - 1)

    starts = np.ones(len(op), bool)
    starts[1:] = (op[1:] != op[:-1]) | (pair[1:] != pair[:-1])
    begins = np.flatnonzero(starts)
    lengths, kinds = np.diff(np.append(begins, len(op))), op[begins]
    bursts = [np.bincount(np.minimum(lengths[kinds == kind], BURSTS), minlength=BURSTS + 1)
              for kind in (INSERTED, DELETED)]  # fmt: skip

    changes = np.ones(len(strand), bool)
    changes[1:] = (strand[1:] != strand[:-1]) | (owner[1:] != owner[:-1])
    sizes = np.diff(np.append(np.flatnonzero(changes), len(strand)))
    run = np.minimum(np.repeat(sizes, sizes), LONGEST_RUN)
    inside = owner, np.arange(len(strand)) - (np.cumsum(long) - long)[owner]
    run_of = np.zeros((len(long), long.max()), np.uint8)
    run_of[inside] = run
    deleting = begins[kinds == DELETED]
    by_run = np.stack([np.bincount(run[at[deleting]], minlength=9), np.bincount(run, minlength=9)])

    wrong = op != SAME
    part = inside[1] * PLACES // long[owner]
    by_place = np.stack([np.bincount(part[at[wrong]], minlength=PLACES), np.bincount(part, minlength=PLACES)])

    swapped = op == SUBSTITUTED
    matrix = np.bincount(strand[at[swapped]] * 4 + read[on[swapped]].astype(np.int64), minlength=16).reshape(4, 4)
    errors = np.bincount(pair[wrong], minlength=len(scripts))
    event = swapped | (starts & wrong)
    begun = np.zeros(run_of.shape, bool)
    begun[inside] |= np.bincount(at[event], minlength=len(strand)) > 0
    histograms, near, far, levels = np.zeros((3, 94), np.int64), 0.0, 0.0, np.zeros(len(scripts))
    if qualities is not None:
        kind = _kinds(op, pair, on, len(read))
        histograms, near, far, levels = _quality_statistics(qualities, wide, kind)
    return Statistics(
        reads=len(scripts), bases=len(strand), exposed=np.bincount(strand, minlength=4), substitutions=matrix,
        inserted=int(np.sum(op == INSERTED)), deleted=int(np.sum(op == DELETED)),
        insertion_runs=bursts[0], deletion_runs=bursts[1], by_run=by_run, by_place=by_place, errors=errors,
        events=np.bincount(pair[event], minlength=len(scripts)), shares=errors / long, run=run_of, begun=begun,
        histograms=histograms, near=near, far=far, levels=levels,
    )  # fmt: skip


def _kinds(op, pair, on, total):
    """Return the kind of each base of the reads, as ``simulate.corrupt`` states them: uint8[total]."""
    wrong = op != SAME
    touched = np.zeros(len(op), bool)
    touched[1:] |= wrong[:-1] & (pair[1:] == pair[:-1])
    touched[:-1] |= wrong[1:] & (pair[1:] == pair[:-1])
    in_read = op != DELETED
    kind = np.zeros(total, np.uint8)
    value = np.where(wrong, simulate.WRONG, np.where(touched, simulate.BESIDE, simulate.RIGHT))
    kind[on[in_read]] = value[in_read]
    return kind


def _quality_statistics(qualities, wide, kind):
    quality = np.concatenate(qualities).astype(np.int64)
    if len(quality) != len(kind):
        raise ChannelError(f"qualities: {len(quality)} values for {len(kind)} bases; give one for each base")
    if quality.max() > 93:
        raise ChannelError(f"qualities: {quality.max()}; Phred values lie in 0..93, so take 33 off FASTQ characters")
    histograms = np.bincount(kind * 94 + quality, minlength=3 * 94).reshape(3, 94)
    # A Phred past 60 is a mark of the software, not a probability.
    right = (kind == simulate.RIGHT) & (quality <= MOST_PHRED)
    histograms[:, MOST_PHRED + 1 :] = 0
    share = histograms[0] / max(1, histograms[0].sum())
    middle = np.clip(np.cumsum(share) - share / 2, 1e-6, 1 - 1e-6)
    score = np.array([NormalDist().inv_cdf(value) for value in middle.tolist()])[quality]
    owner = np.repeat(np.arange(len(wide)), wide)
    levels = np.bincount(owner[right], score[right], len(wide)) / np.maximum(
        1, np.bincount(owner[right], minlength=len(wide))
    )
    variance = max(np.mean(score[right] ** 2), 1e-9) if right.any() else 1.0

    def covariance(lag):
        both = right[lag:] & right[:-lag] & (owner[lag:] == owner[:-lag])
        return np.mean((score[lag:] * score[:-lag])[both]) / variance if both.any() else 0.0

    return histograms, float(covariance(1)), float(np.mean([covariance(lag) for lag in FAR])), levels


# ---- fit ---------------------------------------------------------------------------------------------------------


def fit(
    strands: Rows,
    reads: Rows,
    qualities: Rows | None,
    name: str,
    source: str,
    *,
    rounds: int = 2,
    copies: float | int = 4,
) -> Channel:
    """Fit the channel that real pairs come from; all errors are attributed to sequencing.

    Bad stretches are those of maximum likelihood (``stretches.estimate``), and so is ``spread``, until rounds match the
    variance of events per read; everything else is estimated by moments.

    Args:
        strands: See ``statistics``. They must be of one length unless ``rounds`` is 0.
        reads: See ``statistics``.
        qualities: See ``statistics``; None gives a flat quality.
        name: The name of the channel.
        source: The source of the channel.
        rounds: How often reads of the channel are simulated, aligned like the real ones, and the channel corrected by
            what differs: the shortest alignment hides errors, and chance joins bursts. 0 leaves the channel
            uncorrected.
        copies: Mean reads that are simulated of each strand.

    Returns:
        The channel.

    Raises:
        ChannelError: For pairs that do not fit together.
    """
    real = statistics(strands, reads, qualities)
    first = _estimate(real)
    channel = Channel(name, source, sequencing=first, quality=_quality(real, first))
    lengths = {len(strand) for strand in strands}
    if rounds and len(lengths) > 1:
        raise ChannelError(f"strands: lengths {sorted(lengths)}; give strands of one length, or rounds=0")
    pool = np.stack(list(strands)) if rounds else np.zeros((0, 0), np.uint8)
    for number in range(rounds):
        made = simulate.reads_of(channel, pool, copies, jax.random.key(number))
        rows = [made.bases[i, :length] for i, length in enumerate(made.lengths.tolist())]
        simulated_qualities = [made.qualities[i, :length] for i, length in enumerate(made.lengths.tolist())]
        seen = statistics(
            [pool[i] for i in made.origin.tolist()], rows, None if qualities is None else simulated_qualities
        )
        again, quality = _estimate(seen), channel.quality
        # The variance of the error counts has the last word: a log-normal law of the most likely sigma varies less.
        spread = max(0.0, channel.sequencing.spread**2 + real.spread**2 - seen.spread**2) ** 0.5
        errors = _corrected(channel.sequencing, first, again, spread)
        if qualities is not None:
            quality = _corrected_quality(quality, _quality(real, first), _quality(seen, again))
        channel = replace(channel, sequencing=errors, quality=quality)
    return channel


def _estimate(seen):
    """Return the ``Errors`` that statistics show as they are."""
    substitution, insertion, deletion = seen.rates.tolist()
    ratio = seen.substitutions / np.maximum(1, seen.exposed)[:, None]
    shares = 4 * ratio / ratio.sum() if ratio.any() else np.asarray(Errors().substitutions)
    homopolymer = _homopolymer(*seen.by_run)
    # The strands here are not uniformly random, as the definition of the rate assumes.
    run = np.arange(9)
    here = np.sum(seen.by_run[1] * homopolymer ** (run - 1.0)) / seen.by_run[1].sum()
    deletion *= homopolymer_mean(homopolymer) / float(here)
    position = _profile(seen.by_place)
    deleting = seen.deletion_runs.sum() / max(1, seen.events.sum())
    stretch = stretches.estimate(seen.begun, stretches.exposure(seen.run, position, homopolymer, deleting))
    most = max(substitution, insertion, deletion)
    stretch = stretches.of(stretch.bad_share, stretch.bad_errors, stretch.bad_length, stretch.spread, most)
    return Errors(
        substitution=min(substitution, 0.5), insertion=min(insertion, 0.5), deletion=min(deletion, 0.5),
        substitutions=tuple(map(tuple, shares.tolist())), homopolymer=homopolymer, position=position,
        deletion_run=_going_on(seen.deletion_runs, seen.deleted),
        insertion_run=_going_on(seen.insertion_runs, seen.inserted), **asdict(stretch),
    )  # fmt: skip


def _going_on(bursts, bases):
    """Return the parameter of geometric burst lengths: maximum likelihood."""
    return float(min(0.9, 1 - bursts.sum() / bases)) if bases else 0.0


def _homopolymer(events, exposed):
    """Return the factor per further base of a run.

    It is the maximum likelihood of Poisson counts, in the logarithm, by bisection.
    """
    further = np.arange(9) - 1.0
    further[0] = 0
    if not events.sum() or not exposed[2:].any():
        return 1.0
    mean = np.sum(events * further) / events.sum()
    low, high = np.log(0.1), np.log(3.0)
    for _ in range(50):
        middle = (low + high) / 2
        weight = exposed * np.exp(middle * further)
        low, high = (middle, high) if np.sum(weight * further) < mean * weight.sum() else (low, middle)
    return float(np.exp((low + high) / 2))


def _profile(by_place):
    """Return the multipliers at ``KNOTS`` positions: least squares of the error rates with a broken line."""
    errors, bases = by_place
    used = bases > 0
    if not errors.sum() or used.sum() < KNOTS:
        return (1.0,)
    where = (np.arange(PLACES) + 0.5) / PLACES * (KNOTS - 1)
    hats = np.maximum(0, 1 - abs(where[:, None] - np.arange(KNOTS)[None]))
    knots = np.linalg.lstsq(hats[used], errors[used] / bases[used], rcond=None)[0]
    return tuple(np.maximum(knots, 0.05 * errors.sum() / bases.sum()).tolist())


def _quality(seen, errors):
    """Return the ``Quality`` that statistics show as they are."""
    if not seen.histograms.any():
        return Quality.flat(min(40, max(1, round(-10 * np.log10(max(errors.total, 1e-4))))))
    rows = seen.histograms[:, : MOST_PHRED + 1].astype(float)
    # A kind that never occurs takes the qualities of the nearest kind that does.
    rows = [row if row.any() else rows[0] if rows[0].any() else rows[1] for row in rows]
    top = 1 + max(int(np.flatnonzero(row)[-1]) for row in rows)
    together = min(max(seen.far, 0.0), 0.99)
    link = 0.0
    if errors.spread > 0.05 and seen.events.mean():
        link = -np.mean((seen.levels - seen.levels.mean()) * seen.events) / (seen.events.mean() * errors.spread)
    link = float(min(max(link, 0.0), together**0.5))
    return Quality(
        *(tuple((row[:top] / row.sum()).tolist()) for row in rows),
        factor=link,
        read=float(max(0.0, together - link**2) ** 0.5),
        neighbour=float(min(max((seen.near - together) / (1 - together), 0.0), 0.95)),
    )


def _corrected(now, wanted, got, spread):
    """Return the errors ``now``, moved by the difference between two estimates, and with that ``spread``.

    The estimates are the ``wanted`` one and the one from reads of the channel itself, ``got``.
    """

    def scaled(name, most):
        return min(most, getattr(now, name) * getattr(wanted, name) / getattr(got, name)) if getattr(got, name) else 0.0

    def shifted(name, most):
        return min(most, max(0.0, getattr(now, name) + getattr(wanted, name) - getattr(got, name)))

    changes = {name: scaled(name, 0.5) for name in ("substitution", "insertion", "deletion")}
    before, aim, again = (np.array(errors.substitutions) for errors in (now, wanted, got))
    shares = np.maximum(aim / 4, before + aim - again)  # no kind vanishes altogether by chance
    stretched = stretches.of(0.0, 0.0, 1.0, spread)
    if wanted.bad_share:
        share, length = now.bad_share, now.bad_length
        if share and got.bad_share:
            share, length = share * wanted.bad_share / got.bad_share, length * wanted.bad_length / got.bad_length
        errors = now.bad_errors + wanted.bad_errors - got.bad_errors
        stretched = stretches.of(share, errors, length, spread, max(changes.values()))
    return replace(
        now,
        **changes,
        **{name: shifted(name, 0.9) for name in ("deletion_run", "insertion_run")},
        **asdict(stretched),
        substitutions=tuple(map(tuple, 4 * shares / shares.sum())),
        homopolymer=min(3.0, max(0.1, now.homopolymer * wanted.homopolymer / got.homopolymer)),
    )


def _corrected_quality(now, wanted, got):
    link = min(max(now.factor + wanted.factor - got.factor, 0.0), 1.0)
    shared = now.factor**2 + now.read**2 + wanted.factor**2 + wanted.read**2 - got.factor**2 - got.read**2
    return replace(
        now,
        factor=link,
        read=min(max(shared - link**2, 0.0), 1 - link**2) ** 0.5,
        neighbour=min(max(now.neighbour + wanted.neighbour - got.neighbour, 0.0), 0.95),
    )
