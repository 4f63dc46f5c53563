"""Data through the simulated timing channel: error correction, and end to end. For ``eval.timing``."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Key

from helix_jax import packing
from helix_jax.errors import DecodeError
from helix_jax.timing import (
    block_coder,
    capacity,
    channel,
    ecc,
    error_capacity,
    frame,
    paths,
    pool,
    quantizer,
    scheme,
    synthesis,
)
from helix_jax.timing import correction as correction_codes
from helix_jax.timing.graph import TimeTable

CROSSOVER = 0.02

Step = Callable[[str, int, int], None]
PRNGKey = Key[Array, ""]


# ---- error correction ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correction:
    """Blocks through a code of n level bits and m parity bits.

    Attributes:
        channel: name of the channel.
        n: level bits of a block.
        m: parity bits of a block.
        entropy: bits of a level bit, given what was read.
        share_wrong: share of the level bits that were read wrong.
        failures: blocks that failed.
        blocks: number of blocks.
    """

    channel: str
    n: int
    m: int
    entropy: float
    share_wrong: float
    failures: int
    blocks: int

    @property
    def rate(self) -> float:
        """n / (n + m)."""
        return self.n / (self.n + self.m)

    @property
    def limit(self) -> float:
        """The rate with only as much parity as the entropy, which no code can exceed."""
        return 1 / (1 + self.entropy)


def correction(key: PRNGKey, n: int, rates: Sequence[float], blocks: int, step: Step | None = None) -> list[Correction]:
    """Measure codes on the symmetric channel of CROSSOVER.

    Args:
        key: PRNG key.
        n: level bits of a block.
        rates: n / (n + m) of the codes.
        blocks: number of blocks for each code.
        step: reports the progress.
    """
    entropy = -(CROSSOVER * math.log2(CROSSOVER) + (1 - CROSSOVER) * math.log2(1 - CROSSOVER))
    certain = math.log(1 / CROSSOVER - 1)
    rows = []
    for number, rate in enumerate(rates):
        m = round(n * (1 / rate - 1))
        code = ecc.design(n, m)
        failures = wrong = 0
        for block in range(blocks):
            draw, flip = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), block))
            bits = np.asarray(jax.random.bernoulli(draw, 0.5, (n,))).astype(np.uint8)
            flips = np.asarray(jax.random.bernoulli(flip, CROSSOVER, (n,)))
            llr = np.where(flips ^ (bits > 0), -certain, certain).astype(np.float32)
            decoded, ok = ecc.decode(code, llr, ecc.encode(code, bits))
            failures += not (ok and np.array_equal(decoded, bits))
            wrong += int(flips.sum())
            if step:
                step("parity", 1, blocks * len(rates))
        rows.append(Correction(f"symmetric, {CROSSOVER}", n, m, entropy, wrong / (n * blocks), failures, blocks))
    return rows


def correction_of(key: PRNGKey, known: scheme.Scheme, blocks: int) -> Correction | None:
    """Measure the code of a scheme, on the runs of random paths through its channel; None without parity.

    The letters are assumed to be read correctly. Lost runs are included.

    Args:
        key: PRNG key.
        known: the scheme.
        blocks: number of blocks.
    """
    if not (known.parity and known.level_bits):
        return None
    n, m, group = known.group * known.data * known.level_bits, known.group * known.parity, known.group
    code, coder = correction_codes.code_of(known, group), paths.coder(known)
    rule = quantizer.quantizer(known.law, known.table, known.copies).arrays()
    probability = capacity.chain(known.counted).probability
    pmfs = channel.pmf_table(known.law, known.table)
    failures = wrong = doubt = 0
    for block in range(blocks):
        payload, writing = jax.random.split(jax.random.fold_in(key, block))
        symbols = np.asarray(jax.random.bits(payload, (group, pool.symbol_bytes(known)), np.uint8))
        letters, levels = paths.write(coder, symbols)
        runs = np.asarray(synthesis.simulate(writing, letters, levels, pmfs, known.copies)).swapaxes(1, 2)
        before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
        likelihood = np.asarray(quantizer.log_likelihoods(runs, before, letters, rule), np.float64)
        likelihood += np.log(np.maximum(probability[before, letters], 1e-300))
        likelihood -= np.logaddexp.reduce(likelihood, axis=-1, keepdims=True)
        doubt -= np.take_along_axis(likelihood, levels[..., None].astype(int), axis=-1).sum() / math.log(2)
        wrong += int((likelihood.argmax(axis=-1) != levels).sum())
        bits = ecc.level_bits(levels, known.levels).reshape(-1)
        decoded, ok = ecc.decode(code, ecc.bit_llr(likelihood).reshape(-1), ecc.encode(code, bits))
        failures += not (ok and np.array_equal(decoded, bits))
    rounds = group * known.data * blocks
    return Correction(
        f"{known.name}, N = {known.copies}", n, m, doubt / rounds / known.level_bits, wrong / rounds, failures, blocks
    )


# ---- end to end ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One pool, written and read.

    Attributes:
        scheme: name of the scheme.
        mended: whether each run that was lost in all copies was given one base in one of them.
        bits: bits of the payload.
        bits_per_time: bits per time unit, everything included.
        parts: (name, bits per time unit with this part and those before it), from the capacity to ``bits_per_time``.
        theorem: the theorem's bits per time unit at the scheme's delta.
        with_errors: capacity with index errors of delta.
        letters: capacity of the letters alone.
        lost: share of the runs that are lost in a copy.
        lost_in_all: share of the runs that are lost in all copies.
        strands: strands of the pool, including repair strands.
        repairs: number of repair strands.
        failed: strands that were not aligned; None if not even the header came back.
        back: whether the payload came back exactly.
        message: why it did not.
        encode_s: seconds to encode.
        decode_s: seconds to decode.
    """

    scheme: str
    mended: bool
    bits: int
    bits_per_time: float
    parts: tuple[tuple[str, float], ...]
    theorem: float
    with_errors: float
    letters: float
    lost: float
    lost_in_all: float
    strands: int
    repairs: int
    failed: int | None
    back: bool
    message: str
    encode_s: float
    decode_s: float

    @property
    def pool_fails(self) -> float | None:
        """Probability that more strands fail than there are repair strands, if each fails as often as here."""
        return None if self.failed is None else _tail(self.strands, self.failed / self.strands, self.repairs)


def _tail(n: int, p: float, most: int) -> float:
    """Return the probability that Binomial(n, p) exceeds ``most``."""
    if p in (0, 1):
        return float(p)
    log = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(most + 1, n + 1)
    ]
    return math.fsum(map(math.exp, log))


def trial(key: PRNGKey, known: scheme.Scheme, count: int, *, mended: bool = False, step: Step | None = None) -> Trial:
    """Send random bytes through a scheme and its channel, with unlabelled and shuffled reads.

    Args:
        key: PRNG key.
        known: the scheme.
        count: number of bytes.
        mended: whether each run that is lost in all copies gets one base in one of them.
        step: reports the progress.
    """
    drawing, key = jax.random.split(key)
    data = np.asarray(jax.random.bits(drawing, (count,), np.uint8)).tobytes()
    begin = time.perf_counter()
    timing = pool.Timing(known)
    made = packing.pack(data, writer=timing, progress=step, compress=False)
    schedule, written = made.schedule, time.perf_counter()
    reads, lost, lost_in_all = _reads(key, known, schedule, mended)
    simulated = time.perf_counter()
    failed, back, message = None, False, ""
    try:
        received = timing.read(reads, progress=step)
    except DecodeError as error:
        message = str(error)
    else:
        report = received.report
        assert isinstance(report, pool.Report)
        failed, back = report.strands - report.aligned, b"".join(packing.contents(received)) == data
        message = "" if back else f"{report.lost_packets} of {report.source_packets} strands lost"
    read = time.perf_counter()
    parts = waterfall(made)
    return Trial(
        known.name, mended, 8 * count, parts[-1][1], parts,
        theorem=capacity.theorem_rate(known.table, known.delta, overhead=known.overhead),
        with_errors=error_capacity.capacity_with_errors(
            known.table, error_capacity.symmetric_channels(known.table, known.delta), overhead=known.overhead
        ),
        letters=capacity.letters_capacity(known.table, overhead=known.overhead),
        lost=lost, lost_in_all=lost_in_all, strands=made.count, repairs=made.layout.packets - made.layout.sources,
        failed=failed, back=back, message=message, encode_s=written - begin, decode_s=read - simulated,
    )  # fmt: skip


def _reads(key, known, schedule, mended):
    """Return (reads, share of the runs that are lost in a copy, share of those that are lost in all copies)."""
    writing, reading, order = jax.random.split(key, 3)
    pmfs = channel.pmf_table(known.law, known.table)
    runs = synthesis.simulate(writing, schedule.letters, schedule.levels(known.table), pmfs, known.copies)
    missing = np.asarray(runs) == 0
    in_all = missing.all(axis=1)
    if mended:
        runs = runs.at[:, 0].add(in_all)
    bases, lengths = (np.asarray(part) for part in synthesis.to_reads(reading, schedule.letters, runs))
    rows = bases.reshape(-1, bases.shape[-1])
    reads = [row[:length] for row, length in zip(rows, lengths.reshape(-1).tolist(), strict=True) if length]
    order = np.asarray(jax.random.permutation(order, len(reads)))
    return [reads[i] for i in order], float(missing.mean()), float(in_all.mean())


def waterfall(made: pool.TimedPool) -> tuple[tuple[str, float], ...]:
    """Return what each part of a schedule costs, as pairs (name, bits per time unit); see ``Trial.parts``."""
    known, schedule, count = made.scheme, made.schedule, made.header.content_bytes
    layout = known.frame
    each = schedule.durations.mean(axis=0) + known.overhead  # mean time of each round
    data, digits = layout.data_rounds, layout.digit_rounds
    parity, index = (each[digits[layout.digit_parts[name]]].sum() for name in ("parity", "index"))
    coded = _path_time(known, schedule)
    checked = each[data].sum() + each[layout.kinds == frame.CHECK].sum() + parity  # a check letter changes the next one
    whole = each.sum()
    bits, size = paths.coder(known).bits, 8 * pool.symbol_bytes(known)
    return (
        ("capacity", capacity.capacity(known.table, overhead=known.overhead)),
        ("coder", float(bits / coded)),
        ("parity letters", float(bits / (coded + parity))),
        ("check letters", float(bits / checked)),
        ("index letters", float(bits / (checked + index))),
        ("shared letters of the tags", float(bits / whole)),
        ("whole bytes", float(size / whole)),
        ("repair strands", float(size * made.layout.sources / (whole * made.layout.packets))),
        ("header and padding", 8 * count / made.time),
    )


def _path_time(known, schedule):
    """Return the mean time of the paths, without what check letters between their rounds make longer."""
    levels = schedule.levels(known.table)
    letters, levels, _ = (np.asarray(part) for part in frame.read(schedule.letters, levels, frame=known.frame))
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    return known.table.array()[before, letters, levels].sum(axis=1).mean() + known.overhead * known.data


def letters_only(known: scheme.Scheme) -> scheme.Scheme:
    """Return a scheme of the same layout and number of rounds whose transitions only have their shortest time."""
    table = TimeTable(tuple(tuple(times[:1] for times in row) for row in known.table.times))
    duration = block_coder.nearest_block(table, known.data).duration
    return dataclasses.replace(
        known, name=f"{known.name}, letters alone", table=table, costs=None, parity=0, duration=duration,
        splitting=None,
    )  # fmt: skip


def trials(key: PRNGKey, schemes: Sequence[scheme.Scheme], count: int, step: Step | None = None) -> list[Trial]:
    """Try each scheme as it is, with mended runs, and with its letters alone.

    Args:
        key: PRNG key.
        schemes: the schemes.
        count: bytes of the payload.
        step: reports the progress.
    """
    rows = []
    for number, known in enumerate(schemes):
        run = partial(trial, jax.random.fold_in(key, number), count=count, step=step)
        rows += [run(known), run(known, mended=True), run(letters_only(known))]
    return rows
