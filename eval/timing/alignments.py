"""Strands through the simulated timing channel and their alignment: how many are read, and at what rate.

For ``eval.timing``.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float64, Integer, Key, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_jax import parallel
from helix_jax.timing import alignment, block_coder, channel, ecc, frame, local, paths, pool, reading, scheme, synthesis

BEAM = 64  # beam width of the grid of losses
ALIGNED = 8  # strands per call and device

Step = Callable[[str, int, int], None]
PRNGKey = Key[Array, ""]


@dataclass(frozen=True, eq=False)
class Sample:
    """Strands of random data that went through a channel, and what their alignment made of the copies.

    Attributes:
        letters: The letters as written.
        levels: The levels as written.
        right: Mask of the strands whose letters all came back.
        copies: The copies, padded.
        lengths: Their lengths.
        model: The model of the channel (``alignment.model``).
    """

    letters: UInt8[np.ndarray, "strands rounds"]
    levels: UInt8[np.ndarray, "strands rounds"]
    right: Bool[np.ndarray, " strands"]
    copies: UInt8[np.ndarray, "strands N L"]
    lengths: Integer[np.ndarray, "strands N"]
    model: Any


def _align(known, copies, lengths, *, layout, beam, window):
    """Align the strands one after the other, as the codec does."""

    def align(pair):
        return alignment.align(known, *pair, layout=layout, beam=beam, window=window)

    return lax.map(align, (copies, lengths))


def sample(key: PRNGKey, known: scheme.Scheme, copies: int, strands: int, beam: int) -> Sample:
    """Write random strands of a scheme, and align so many copies of each without tags.

    Args:
        key: PRNG key.
        known: The scheme, whose law is that of the channel.
        copies: Number of copies of each strand.
        strands: Number of strands.
        beam: Number of strings that are followed.
    """
    data, extra, writing, reading = jax.random.split(key, 4)
    symbols = np.asarray(jax.random.bits(data, (strands, pool.symbol_bytes(known)), np.uint8))
    digits = np.asarray(jax.random.randint(extra, (strands, len(known.frame.digit_rounds)), 0, 3)).astype(np.uint8)
    written = frame.write(*paths.write(paths.coder(known), symbols), digits, frame=known.frame)
    letters, levels = (np.asarray(part) for part in written)
    runs = synthesis.simulate(writing, letters, levels, channel.pmf_table(known.law, known.table), copies)
    reads, lengths = (np.asarray(part) for part in synthesis.to_reads(reading, letters, runs))
    reads = np.pad(reads, ((0, 0), (0, 0), (0, -reads.shape[2] % 512)))
    model = alignment.model(known.law, known.table, costs=known.costs, overhead=known.overhead)
    found = parallel.map_batches(
        _align, model, reads, lengths, batch=ALIGNED * len(jax.local_devices()),
        layout=known.frame, beam=beam, window=known.window,
    )  # fmt: skip
    return Sample(letters, levels, (found[0] == letters).all(axis=1), reads, lengths, model)


# ---- the grid of copies and losses --------------------------------------------------------------------------


@dataclass(frozen=True)
class Aligned:
    """One cell of the alignment grid.

    Attributes:
        copies: number of copies.
        loss: probability that a copy loses a run of time 1.
        right: strands whose letters all came back.
        strands: number of strands.
    """

    copies: int
    loss: float
    right: int
    strands: int


def grid(
    key: PRNGKey,
    known: scheme.Scheme,
    copies: Sequence[int],
    losses: Sequence[float],
    strands: int,
    step: Step | None = None,
) -> list[Aligned]:
    """Measure the alignment for each number of copies and loss, with binomial laws, on the strand layout of a scheme.

    Args:
        key: PRNG key.
        known: the scheme.
        copies: numbers of copies.
        losses: probabilities that a copy loses a run of time 1.
        strands: number of strands in each cell.
        step: reports the progress.
    """
    rows = []
    for number, (count, loss) in enumerate(itertools.product(copies, losses)):
        lossy = dataclasses.replace(known, law=channel.Binomial.uniform(1 - loss))
        one = sample(jax.random.fold_in(key, number), lossy, count, strands, BEAM)
        rows.append(Aligned(count, loss, int(one.right.sum()), strands))
        if step:
            step("alignment", 1, len(copies) * len(losses))
    return rows


# ---- the rate by length and copies ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Length:
    """Strands of one length, with one number of copies and one distance between check letters.

    Attributes:
        scheme: name of the scheme whose times and costs they have.
        copies: number of copies.
        spacing: rounds before each check letter.
        bits: data bits of a strand.
        parity: parity bits of a strand, as ``local.planned_parity`` asks for them where no strand of a group is lost;
            None if no strand was read. The strands that were read have a share of the scheme's parity.
        time: mean time of a strand with that parity, in time units; None if no strand was read.
        right: strands whose letters all came back.
        strands: number of strands.
        rate: bits per time unit that an ideal code over strands leaves, which pays one strand for each that is lost.
    """

    scheme: str
    copies: int
    spacing: int
    bits: int
    parity: int | None
    time: float | None
    right: int
    strands: int
    rate: float


@dataclass(frozen=True)
class Series:
    """What is measured of a scheme.

    Attributes:
        name: name of the scheme.
        copies: numbers of copies, one curve each.
        durations: durations of the data rounds (``scheme.Scheme.duration``).
        spacings: distances between check letters, of which each curve has the best one.
        beam: number of strings that are followed.
        strands: number of strands in each cell.
    """

    name: str
    copies: tuple[int, ...]
    durations: tuple[int, ...]
    spacings: tuple[int, ...]
    beam: int
    strands: int


SERIES = (
    Series("talk-fast", (3, 5, 8, 12), (128, 256, 512, 768, 1152), (5, 8, 13, 24), 512, 64),
    Series("poisson-fast", (5, 10, 20, 40), (128, 256, 512, 1024, 1536), (32, 256), 64, 32),
)


def lengths(key: PRNGKey, series: Series, step: Step | None = None) -> list[Length]:
    """Measure strands of each length, with each number of copies and each distance between check letters.

    Args:
        key: PRNG key.
        series: what is measured.
        step: reports the progress.
    """
    cells = list(itertools.product(series.copies, series.durations, series.spacings))
    rows = []
    for number, (copies, duration, spacing) in enumerate(cells):
        known = resized(scheme.NAMED[series.name], duration, spacing)
        one = sample(jax.random.fold_in(key, number), known, copies, series.strands, series.beam)
        right, coded = int(one.right.sum()), paths.coder(known).bits
        parity, time, rate = None, None, 0.0
        if right:
            bits = known.data * known.level_bits
            doubt = doubts(known, one)
            parity = local.planned_parity(known.group, bits, doubt.mean() / bits, doubt.var() / bits, 0, known.span)
            time = dataclasses.replace(known, parity=parity).strand_time
            rate = coded / time * right / series.strands
        rows.append(Length(series.name, copies, spacing, coded, parity, time, right, series.strands, rate))
        jax.clear_caches()  # each cell has programs of its own: hundreds of them exhaust a process
        if step:
            step(series.name, 1, len(cells))
    return rows


def resized(known: scheme.Scheme, duration: int, spacing: int) -> scheme.Scheme:
    """Return a scheme with strands of another length, without tags."""
    data = block_coder.best_rounds(known.counted, duration)
    parity = max(1, round(known.parity * data / known.data))
    return dataclasses.replace(known, duration=duration, data=data, spacing=spacing, parity=parity, tags=0, shared=0)


def doubts(known: scheme.Scheme, one: Sample) -> Float64[np.ndarray, " right"]:
    """Return the doubt of the levels of each strand whose letters came back, in bits."""
    letters, levels = one.letters[one.right], one.levels[one.right]
    likelihood = reading.likelihoods(known, one.model, letters, one.copies[one.right], one.lengths[one.right])
    bits = ecc.level_bits(levels[:, known.frame.data_rounds], known.levels)
    return np.asarray(ecc.surprisal(ecc.bit_llr(likelihood), bits)).sum(axis=(1, 2))


def draw(path: str | os.PathLike, rows: Sequence[Length]) -> None:
    """Draw the rate against the time of a strand into a file: a panel for each scheme, a curve for each N."""
    names = list(dict.fromkeys(row.scheme for row in rows))
    picture = Figure(figsize=(5.5 * len(names), 4.6), layout="constrained")
    for axis, name in zip(picture.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _panel(axis, [row for row in rows if row.scheme == name])
    picture.savefig(path, dpi=110)


def _panel(axis: Axes, rows: Sequence[Length]) -> None:
    for copies in sorted({row.copies for row in rows}):
        best = {}
        for row in (row for row in rows if row.copies == copies):
            best[row.bits] = max(best.get(row.bits, row), row, key=lambda row: row.rate)
        shown = [(row.time, row.rate) for _, row in sorted(best.items()) if row.time]
        axis.plot([time for time, _ in shown], [rate for _, rate in shown], "o-", label=f"N = {copies}")
    known = scheme.NAMED[rows[0].scheme]
    axis.axhline(math.log2(3), color="#999999", lw=0.8, ls="--")
    axis.text(axis.get_xlim()[1], math.log2(3), " log2 3", va="center", size=8, color="#999999")
    axis.set(title=f"{known.name}, designed for N = {known.copies}", xlabel="time units of a strand")
    axis.set(ylabel="bits per time unit", ylim=(0, None))
    axis.legend(title="copies", fontsize=8)
    axis.grid(alpha=0.3)
