"""Data through the simulated timing channel: error correction, alignment, and all of it. For ``eval.timing``."""

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import lax

from helix_jax import parallel
from helix_jax.strands import packets
from helix_jax.timing import (
    alignment,
    block_coder,
    capacity,
    channel,
    codec,
    ecc,
    error_capacity,
    frame,
    paths,
    quantizer,
    scheme,
)
from helix_jax.timing.graph import GraphError, TimeTable

BEAM = 64  # of the alignment grid
ALIGNED = 8  # strands per call and device
CROSSOVER = 0.02


# ---- error correction ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correction:
    """Blocks through a code of n level bits and m parity bits. entropy: bits of a level bit, given what was read."""

    channel: str
    n: int
    m: int
    entropy: float
    share_wrong: float
    failures: int
    blocks: int

    @property
    def rate(self):
        """n / (n + m)."""
        return self.n / (self.n + self.m)

    @property
    def limit(self):
        """The same with parity of the entropy alone, which no code falls short of."""
        return 1 / (1 + self.entropy)


def correction(key, n, rates, blocks, step=None):
    """Corrections on the symmetric channel of CROSSOVER, one for each n / (n + m) in ``rates``."""
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
            found, ok = ecc.decode(code, llr, ecc.encode(code, bits))
            failures += not (ok and np.array_equal(found, bits))
            wrong += int(flips.sum())
            if step:
                step("parity", 1, blocks * len(rates))
        rows.append(Correction(f"symmetric, {CROSSOVER}", n, m, entropy, wrong / (n * blocks), failures, blocks))
    return rows


def correction_of(key, known, blocks):
    """The Correction of a scheme: runs of random paths through its channel, the letters taken as read; None without
    parity. Lost runs are in."""
    if not (known.parity and known.level_bits):
        return None
    n, m, group = known.group * known.data * known.level_bits, known.group * known.parity, known.group
    code, coder = ecc.design(n, m), paths.coder(known)
    rule = quantizer.quantizer(known.law, known.table, known.copies).arrays()
    probability = capacity.chain(known.table).probability
    pmfs = channel.pmf_table(known.law, known.table)
    failures = wrong = doubt = 0
    for block in range(blocks):
        payload, writing = jax.random.split(jax.random.fold_in(key, block))
        symbols = np.asarray(jax.random.bits(payload, (group, codec.symbol_bytes(known)), np.uint8))
        letters, levels = paths.write(coder, symbols)
        runs = np.asarray(channel.simulate(writing, letters, levels, pmfs, known.copies)).swapaxes(1, 2)
        before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
        likelihood = np.asarray(quantizer.log_likelihoods(runs, before, letters, rule), np.float64)
        likelihood += np.log(np.maximum(probability[before, letters], 1e-300))
        likelihood -= np.logaddexp.reduce(likelihood, axis=-1, keepdims=True)
        doubt -= np.take_along_axis(likelihood, levels[..., None].astype(int), axis=-1).sum() / math.log(2)
        wrong += int((likelihood.argmax(axis=-1) != levels).sum())
        bits = ecc.level_bits(levels, known.levels).reshape(-1)
        found, ok = ecc.decode(code, ecc.bit_llr(likelihood).reshape(-1), ecc.encode(code, bits))
        failures += not (ok and np.array_equal(found, bits))
    rounds = group * known.data * blocks
    return Correction(
        f"{known.name}, N = {known.copies}", n, m, doubt / rounds / known.level_bits, wrong / rounds, failures, blocks
    )


# ---- alignment -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aligned:
    """Strands of which all letters came back, of those aligned. loss: chance that a copy loses a run of time 1."""

    copies: int
    loss: float
    right: int
    strands: int


def _align(known, copies, lengths, *, layout, window):
    """Strands one after the other, as the codec does it."""

    def one(pair):
        return alignment.align(known, *pair, layout=layout, beam=BEAM, window=window)

    return lax.map(one, (copies, lengths))


def alignments(key, known, copies, losses, strands, step=None):
    """``Aligned`` for each number of copies and loss, binomial laws, on the strand layout of a scheme."""
    draw, digits, key = jax.random.split(key, 3)
    symbols = np.asarray(jax.random.bits(draw, (strands, codec.symbol_bytes(known)), np.uint8))
    places = len(known.frame.digit_rounds)
    digits = np.asarray(jax.random.randint(digits, (strands, places), 0, 3)).astype(np.uint8)
    letters, levels = paths.write(paths.coder(known), symbols)
    letters, levels = frame.write(letters, levels, digits, frame=known.frame)
    letters, rows = np.asarray(letters), []
    for number, count in enumerate(copies):
        for loss in losses:
            law = channel.Binomial.uniform(1 - loss)
            writing, reading = jax.random.split(jax.random.fold_in(key, 1000 * number + round(1000 * loss)))
            runs = channel.simulate(writing, letters, levels, channel.pmf_table(law, known.table), count)
            reads, lengths = (np.asarray(part) for part in channel.to_reads(reading, letters, runs))
            reads = np.pad(reads, ((0, 0), (0, 0), (0, -reads.shape[2] % 512)))
            found = parallel.map_batches(
                _align, alignment.model(law, known.table), reads, lengths, batch=ALIGNED * len(jax.local_devices()),
                layout=known.frame, window=known.window,
            )  # fmt: skip
            rows.append(Aligned(count, loss, int((found[0] == letters).all(axis=1).sum()), strands))
            if step:
                step("alignment", 1, len(copies) * len(losses))
    return rows


# ---- end to end ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One pool there and back.

    scheme, mended: whether runs lost in all copies were given one base. bits of the payload. bits_per_time: all in.
    parts: (name, bits per time unit with this part and those before it in), from the capacity to ``bits_per_time``.
    theorem: its bits per time unit at the scheme's delta. with_errors: capacity with index errors of delta. letters:
    capacity of the letters alone. lost, lost_in_all: share of runs in a copy, and in all of them.
    strands of the pool, repairs among them. failed: strands that were not aligned, None where not even the length came
    back; back: the payload came back exactly. encode_s, decode_s: seconds.
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
    def pool_fails(self):
        """Chance that more strands fail than there are repair strands, each failing as often as they did here."""
        return None if self.failed is None else _tail(self.strands, self.failed / self.strands, self.repairs)


def _tail(n, p, most):
    """Chance that Binomial(n, p) exceeds ``most``."""
    if p in (0, 1):
        return float(p)
    log = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(most + 1, n + 1)
    ]
    return math.fsum(map(math.exp, log))


def trial(key, known, count, *, mended=False, step=None):
    """``count`` random bytes through a scheme and its channel, the reads unlabelled and shuffled."""
    drawing, key = jax.random.split(key)
    data = np.asarray(jax.random.bits(drawing, (count,), np.uint8)).tobytes()
    begin = time.perf_counter()
    schedule = codec.encode(data, known, progress=step)
    written = time.perf_counter()
    reads, lost, lost_in_all = _reads(key, known, schedule, mended)
    simulated = time.perf_counter()
    failed, back, message = None, False, ""
    try:
        received = codec.recover(reads, known, progress=step)
    except codec.DecodeError as error:
        message = str(error)
    else:
        failed, back = received.report.strands - received.report.aligned, received.data == data
        message = "" if back else f"{received.report.lost_strands} of {received.report.source_strands} strands lost"
    read = time.perf_counter()
    strands, parts = len(schedule.letters), waterfall(known, schedule, count)
    return Trial(
        known.name, mended, 8 * count, parts[-1][1], parts,
        theorem=capacity.theorem_rate(known.table, known.delta, overhead=known.overhead),
        with_errors=error_capacity.capacity_with_errors(
            known.table, error_capacity.symmetric_channels(known.table, known.delta), overhead=known.overhead
        ),
        letters=capacity.letters_capacity(known.table, overhead=known.overhead),
        lost=lost, lost_in_all=lost_in_all, strands=strands, repairs=strands - _sources(known, strands),
        failed=failed, back=back, message=message, encode_s=written - begin, decode_s=read - simulated,
    )  # fmt: skip


def _reads(key, known, schedule, mended):
    """(reads, share of runs lost in a copy, share lost in all). mended: a run that all lost gets a base in one copy."""
    writing, reading, order = jax.random.split(key, 3)
    pmfs = channel.pmf_table(known.law, known.table)
    runs = channel.simulate(writing, schedule.letters, schedule.levels(known.table), pmfs, known.copies)
    missing = np.asarray(runs) == 0
    in_all = missing.all(axis=1)
    if mended:
        runs = runs.at[:, 0].add(in_all)
    bases, lengths = (np.asarray(part) for part in channel.to_reads(reading, schedule.letters, runs))
    rows = bases.reshape(-1, bases.shape[-1])
    reads = [row[:length] for row, length in zip(rows, lengths.reshape(-1).tolist(), strict=True) if length]
    order = np.asarray(jax.random.permutation(order, len(reads)))
    return [reads[i] for i in order], float(missing.mean()), float(in_all.mean())


def waterfall(known, schedule, count):
    """What each part of a schedule of ``count`` bytes costs: pairs (name, bits per time unit), as in ``Trial``."""
    layout, strands = known.frame, len(schedule.letters)
    each = schedule.durations.mean(axis=0) + known.overhead  # time of each round
    data, digits = layout.data_rounds, layout.digit_rounds
    parity, index = each[digits[: layout.parity]].sum(), each[digits[layout.parity :]].sum()
    coded = known.duration + known.overhead * known.data
    checked = each[data].sum() + each[layout.kinds == frame.CHECK].sum() + parity  # a check letter changes the next one
    whole = each.sum()
    bits, size = paths.coder(known).bits, 8 * codec.symbol_bytes(known)
    return (
        ("capacity", capacity.capacity(known.table, overhead=known.overhead)),
        ("coder", float(bits / coded)),
        ("parity letters", float(bits / (coded + parity))),
        ("check letters", float(bits / checked)),
        ("index letters", float(bits / (checked + index))),
        ("whole bytes", float(size / whole)),
        ("repair strands", float(size * _sources(known, strands) / (whole * strands))),
        ("header and padding", 8 * count / schedule.time(known.overhead)),
    )


def _sources(known, strands):
    """Source strands of a pool of so many."""
    return next(n for n in range(1, strands + 1) if n + packets.repairs_of(known.redundancy, n) >= strands)


def letters_only(known):
    """A scheme of the same layout and number of rounds whose transitions have their shortest time alone."""
    table = TimeTable(tuple(tuple(times[:1] for times in row) for row in known.table.times))
    best = round(known.data * capacity.chain(table).mean_time)
    for duration in sorted(range(1, 2 * best), key=lambda duration: abs(duration - best)):
        try:
            block_coder.build_block(table, known.data, duration)
        except GraphError:
            continue
        return dataclasses.replace(
            known, name=f"{known.name}, letters alone", table=table, parity=0, duration=duration, splitting=None
        )
    raise scheme.SchemeError(f"scheme {known.name}: its shortest times alone carry nothing")


def trials(key, schemes, count, step=None):
    """Each scheme as it is, without the runs that all copies lost, and its letters alone: list of Trial."""
    rows = []
    for number, known in enumerate(schemes):
        run = partial(trial, jax.random.fold_in(key, number), count=count, step=step)
        rows += [run(known), run(known, mended=True), run(letters_only(known))]
    return rows
