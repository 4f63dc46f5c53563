"""Bytes through schedule and reads: exact or refused, whatever becomes of copies, strands, levels and neighbours.

Copies are drawn here, by NumPy, and not by the simulator. One scheme and one number of copies for (nearly) all tests:
the kernels are compiled once.
"""

import dataclasses
import functools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from helix_jax.timing import channel, codec, ecc, frame, paths
from helix_jax.timing.codec import DecodeError
from helix_jax.timing.graph import TALK
from helix_jax.timing.scheme import Scheme

P = 0.98
SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(P), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=14, index=5, check=8, group=16, redundancy=0.3, beams=(4, 32),
)  # fmt: skip
# data: the same rounds as above, so that the layout is the same
SPLIT = dataclasses.replace(SCHEME, name="split 9:5", splitting=(9, 5))
SHORT = dataclasses.replace(SCHEME, name="split 5:3", splitting=(5, 3), duration=66)
SCHEMES = pytest.mark.parametrize("scheme", [SCHEME, SPLIT, SHORT], ids=lambda scheme: scheme.name)
COPIES = 4  # what the decoder looks at most, 2 * SCHEME.copies: more only where a test is about them


def content(size, seed=0):
    return np.random.default_rng([size, seed]).bytes(size)


@functools.cache
def plan_of(size, scheme=SCHEME, seed=0):
    return codec.encode(content(size, seed), scheme)


def copies_of(plan, copies=COPIES, seed=0, p=P):
    """Reads of each strand: a list of lists of uint8 arrays."""
    generator = np.random.default_rng(seed)
    return [
        [np.repeat(row, generator.binomial(times, p)) for _ in range(copies)]
        for row, times in zip(plan.letters, plan.durations, strict=True)
    ]


def shuffled(pool, seed=0):
    """All reads of a pool without their labels."""
    reads = [read for copies in pool for read in copies]
    return [reads[i] for i in np.random.default_rng(seed).permutation(len(reads))]


def before(letters):
    return np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)


def digits_of(plan, scheme):
    """The base-3 digits in front of the last check letters, parity and index: by the differences of letters."""
    tail = (plan.letters - before(plan.letters) - 1) & 3
    assert tail.max() == 2  # no letter follows itself
    end = plan.letters.shape[1] - scheme.check
    return tail[:, end - scheme.index - frame.trits(scheme.parity) : end - scheme.index], tail[
        :, end - scheme.index : end
    ]


# ---- the schedule ----------------------------------------------------------------------------------------


@SCHEMES
def test_strands_are_legal_and_take_the_promised_time(scheme):
    """Walks the time table base by base."""
    plan = plan_of(300, scheme)
    rounds = scheme.frame.rounds
    assert plan.letters.shape == plan.durations.shape == (len(plan.letters), rounds)
    assert (plan.letters.dtype, plan.durations.dtype, plan.scheme) == (np.uint8, np.uint8, scheme.name)
    levels = np.zeros_like(plan.letters)
    for s, (row, times) in enumerate(zip(plan.letters.tolist(), plan.durations.tolist(), strict=True)):
        last = 0
        for j, (a, time) in enumerate(zip(row, times, strict=True)):
            allowed = TALK.times[last][a]
            assert time in allowed
            levels[s, j] = allowed.index(time)
            last = a
    kinds = scheme.frame.kinds
    assert not levels[:, kinds != frame.DATA].any()  # letters alone: shortest time
    path, path_levels, _ = (np.asarray(part) for part in frame.read(plan.letters, levels, frame=scheme.frame))
    spent = np.array(
        [
            [TALK.times[b][a][level] for b, a, level in zip(*rows, strict=True)]
            for rows in zip(before(path), path, path_levels, strict=True)
        ]
    )
    if scheme.splitting:  # the last round begins in time and may end late
        units = scheme.duration // scheme.splitting[1] * scheme.splitting[1]
        assert (spent.sum(axis=1) >= units).all()
        assert (spent[:, :-1].sum(axis=1) < units).all()
    else:
        assert (spent.sum(axis=1) == scheme.duration).all()
    assert plan.time() == plan.durations.sum()
    assert plan.time(1.5) == plan.durations.sum() + 1.5 * plan.letters.size
    assert plan.time() / len(plan.letters) == pytest.approx(scheme.strand_time, rel=0.03)


def test_number_of_strands():
    """16 bytes of header, then the content; two and three tenths more for repair."""
    size = codec.symbol_bytes(SCHEME)
    assert size == paths.coder(SCHEME).bits // 8 == 15
    for content_bytes in (0, 17, 300):
        sources = -(-(16 + content_bytes) // size)
        assert len(plan_of(content_bytes).letters) == sources + math.ceil(0.3 * sources) + 2


@SCHEMES
def test_index_and_parity_stand_in_the_letters(scheme):
    plan = plan_of(300, scheme)
    levels = plan.levels(TALK)[:, scheme.frame.data_rounds]
    parity, index = digits_of(plan, scheme)
    assert [int("".join(map(str, row[::-1])), 3) for row in index.tolist()] == list(range(len(plan.letters)))
    bits, ok = frame.trits_to_bits(parity, scheme.parity)
    assert ok.all()
    for start in range(0, len(levels), scheme.group):
        group = levels[start : start + scheme.group]
        code = ecc.design(group.size, len(group) * scheme.parity)
        wide = np.append(group.reshape(-1)[code.order], 0)  # two levels: the level is its bit
        wanted = np.bitwise_xor.reduce(wide[code.column], axis=1)
        np.testing.assert_array_equal(bits[start : start + len(group)].reshape(-1), wanted)


def test_same_bytes_same_schedule(monkeypatch):
    first = plan_of(300)
    monkeypatch.setattr(codec, "_BATCH", 8)
    monkeypatch.setattr(paths, "_BATCH", 8)
    second = codec.encode(content(300), SCHEME)
    np.testing.assert_array_equal(first.letters, second.letters)
    np.testing.assert_array_equal(first.durations, second.durations)


def test_a_strand_depends_on_its_own_bytes():
    """Length and digest, the last byte and repair differ: the data rounds of the source strands between do not."""
    changed = bytearray(content(300))
    changed[-1] ^= 1
    one, two = plan_of(300), codec.encode(bytes(changed), SCHEME)
    sources = -(-316 // codec.symbol_bytes(SCHEME))
    data = SCHEME.frame.digit_rounds[0]
    alike = ((one.letters == two.letters) & (one.durations == two.durations))[:, :data].all(axis=1)
    assert alike.tolist() == [False, False] + [True] * (sources - 3) + [False] * (len(alike) - sources + 1)


def test_payload_is_made_uniform():
    """Zeros give no two strands that begin alike."""
    plan = codec.encode(bytes(300), SCHEME)
    assert len(np.unique(plan.letters[:, :12], axis=0)) == len(plan.letters)


def test_more_bytes_than_the_index_numbers():
    scheme = dataclasses.replace(SCHEME, index=2)
    assert len(codec.encode(bytes(44), scheme).letters) == 4 + 2 + 2
    with pytest.raises(ValueError, match=r"300 bytes need 31 strands, more than 9, .* longer index"):
        codec.encode(bytes(300), scheme)


# ---- there and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 17, 300])
def test_bytes_come_back(size):
    plan = plan_of(size)
    data, report = codec.decode(shuffled(copies_of(plan)), SCHEME)
    assert data == content(size)
    assert report.verified
    assert (report.lost_strands, report.broken_groups) == (0, 0)
    assert report.reads == COPIES * len(plan.letters)
    assert report.clusters == report.aligned == report.strands == len(plan.letters)
    assert report.source_strands == -(-(16 + size) // codec.symbol_bytes(SCHEME))


@pytest.mark.parametrize("scheme", [SPLIT, SHORT], ids=lambda scheme: scheme.name)
def test_bytes_come_back_by_state_splitting(scheme):
    data, report = codec.decode(shuffled(copies_of(plan_of(300, scheme))), scheme)
    assert data == content(300)
    assert (report.lost_strands, report.broken_groups) == (0, 0)


@hypothesis.given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=5)
def test_any_bytes_come_back(data, seed):
    reads = shuffled(copies_of(codec.encode(data, SCHEME), seed=seed), seed)
    assert codec.decode(reads, SCHEME)[0] == data


def test_progress_is_told():
    told = []
    plan = codec.encode(content(300), SCHEME, progress=lambda *args: told.append(args))
    codec.decode(shuffled(copies_of(plan)), SCHEME, progress=lambda *args: told.append(args))
    for station, total in (("strands", 31), ("clusters", 124), ("align", 31), ("repair", 31)):
        assert {t for name, _, t in told if name == station} == {total}
        assert sum(done for name, done, _ in told if name == station) == total


# ---- copies ----------------------------------------------------------------------------------------------


def test_fewer_copies_than_the_scheme_expects():
    """Single copies, but for two strands: levels are wrong, and the code puts them right."""
    pool = copies_of(plan_of(300), seed=3)
    pool = [copies if i % 16 == 3 else copies[:1] if i % 3 == 0 else copies[:2] for i, copies in enumerate(pool)]
    data, report = codec.decode(shuffled(pool), SCHEME)
    assert data == content(300)
    assert report.corrected > 0


def test_more_copies_than_are_looked_at():
    """Of 12 copies some are left aside; repeats of a read do no harm."""
    pool = copies_of(plan_of(17), copies=12)
    assert codec.decode(shuffled(pool), SCHEME)[0] == content(17)
    assert codec.decode(shuffled([copies[:2] * 5 for copies in pool]), SCHEME)[0] == content(17)


def test_strands_without_a_read_are_repaired():
    pool = copies_of(plan_of(300))
    for i in (0, 7, 20):
        pool[i] = []
    data, report = codec.decode(shuffled(pool), SCHEME)
    assert data == content(300)
    assert (report.aligned, report.strands, report.lost_strands) == (28, 31, 0)


def test_past_repair_nothing_is_returned():
    """31 strands, 22 of them source: with 20 left there are no bytes, but ``recover`` says which are known."""
    pool = copies_of(plan_of(300))
    gone = [*range(3, 14), 22]
    reads = shuffled([copies for i, copies in enumerate(pool) if i not in gone])
    with pytest.raises(DecodeError, match=r"11 of 22 source strands are lost.*more copies"):
        codec.decode(reads, SCHEME)
    received = codec.recover(reads, SCHEME)
    assert not received.report.verified
    assert (received.report.lost_strands, received.report.strands) == (11, 31)
    lost = np.zeros(22 * 15, bool)
    lost[3 * 15 : 14 * 15] = True
    np.testing.assert_array_equal(received.lost, lost[16:316])
    data, wanted = np.frombuffer(received.data, np.uint8), np.frombuffer(content(300), np.uint8)
    np.testing.assert_array_equal(data[~received.lost], wanted[~received.lost])


def test_the_strand_that_tells_the_length_is_lost():
    pool = copies_of(plan_of(300))
    with pytest.raises(DecodeError, match="the first among them"):
        codec.recover(shuffled(pool[12:]), SCHEME)


@pytest.mark.parametrize("last", [1, 2, 5, 8])
def test_the_last_strands_are_missing(last):
    """How many strands there are is written nowhere but in the first."""
    data, report = codec.decode(shuffled(copies_of(plan_of(300))[:-last]), SCHEME)
    assert data == content(300)
    assert (report.aligned, report.strands, report.source_strands) == (31 - last, 31, 22)


def test_the_last_strands_are_missing_past_repair():
    """All repair strands and one source strand: what else was read is known."""
    pool = copies_of(plan_of(300))
    received = codec.recover(shuffled(pool[:5] + pool[6:22]), SCHEME)
    assert (received.report.strands, received.report.lost_strands) == (31, 1)
    np.testing.assert_array_equal(np.flatnonzero(received.lost), np.arange(5 * 15 - 16, 6 * 15 - 16))


# ---- levels ----------------------------------------------------------------------------------------------


def misread(plan, share, seed=0):
    """The plan with that share of the data rounds at its other level, one round of a strand at least."""
    generator = np.random.default_rng(seed)
    durations, where = plan.durations.copy(), SCHEME.frame.data_rounds
    last = before(plan.letters)
    for s in range(len(durations)):
        for j in generator.choice(where, max(1, round(share * len(where))), replace=False):
            durations[s, j] = sum(TALK.times[last[s, j]][plan.letters[s, j]]) - durations[s, j]
    return dataclasses.replace(plan, durations=durations)


def test_wrong_levels_are_corrected():
    """One level of each strand is read wrong by all copies: the code changes those, and nothing else."""
    plan = plan_of(300)
    data, report = codec.decode(shuffled(copies_of(misread(plan, 0.0), p=1.0)), SCHEME)
    assert data == content(300)
    assert (report.corrected, report.broken_groups) == (31, 0)


def test_wrong_levels_past_the_code_are_refused():
    with pytest.raises(DecodeError):
        codec.decode(shuffled(copies_of(misread(plan_of(300), 0.3), p=1.0)), SCHEME)


def test_a_poor_channel_is_refused():
    with pytest.raises(DecodeError):
        codec.decode(shuffled(copies_of(plan_of(17), p=0.6)), SCHEME)


def foreign_strand(index, seed):
    """A strand of correct layout, with an index: random path and parity."""
    generator = np.random.default_rng(seed)
    symbols = generator.integers(0, 256, (1, codec.symbol_bytes(SCHEME)), np.uint8)
    letters, levels = paths.write(paths.coder(SCHEME), symbols)
    parity = frame.bits_to_trits(generator.integers(0, 2, (1, SCHEME.parity)))
    number = np.array([[index // 3**k % 3 for k in range(SCHEME.index)]])
    digits = np.concatenate([parity, number], axis=1).astype(np.uint8)
    letters, levels = (np.asarray(part) for part in frame.write(letters, levels, digits, frame=SCHEME.frame))
    durations = TALK.array()[before(letters), letters, levels].astype(np.uint8)
    return dataclasses.replace(plan_of(300), letters=letters, durations=durations)


def test_a_misread_strand_does_not_spoil_the_others():
    """In place of strand 5 come reads of another path: the parity of its group contradicts the levels."""
    pool = copies_of(plan_of(300))
    pool[5] = copies_of(foreign_strand(5, seed=1), seed=1)[0]
    data, report = codec.decode(shuffled(pool), SCHEME)
    assert data == content(300)
    assert report.aligned == 31


@pytest.mark.parametrize("index", [40, 240])
def test_a_strand_numbered_past_the_last(index):
    pool = copies_of(plan_of(300)) + copies_of(foreign_strand(index, seed=2))
    data, report = codec.decode(shuffled(pool), SCHEME)
    assert data == content(300)
    assert report.strands == 31


# ---- what does not belong there --------------------------------------------------------------------------


def test_reads_of_another_pool_are_not_returned():
    """With fewer copies they lose; with as many, one of the two comes back whole or nothing does."""
    pool, other = copies_of(plan_of(300)), copies_of(plan_of(300, seed=9), seed=9)
    few = [copies[:2] for copies in other]
    assert codec.decode(shuffled(pool + few), SCHEME)[0] == content(300)
    try:
        assert codec.decode(shuffled(pool + other), SCHEME)[0] in (content(300), content(300, seed=9))
    except DecodeError as error:
        assert "lost" in str(error) or "digest" in str(error)  # noqa: PT017


def test_reads_of_another_layout_are_no_strands():
    """Another spacing of the check letters: their hashes do not match."""
    other = codec.encode(content(300), dataclasses.replace(SCHEME, spacing=15))
    foreign = copies_of(other, seed=4)
    data, report = codec.decode(shuffled(copies_of(plan_of(17)) + foreign), SCHEME)
    assert data == content(17)
    assert (report.clusters, report.aligned) == (6 + 31, 6)
    with pytest.raises(DecodeError, match=r"scheme test .*another scheme"):
        codec.decode(shuffled(foreign), SCHEME)


def test_garbage_is_left_out():
    generator = np.random.default_rng(5)
    lengths = [0, 0, 1, 2, 10, 50, 90, 97, 98, 99, 120]
    garbage = [generator.integers(0, 4, n, np.uint8) for n in lengths] + [np.full(100, 2, np.uint8)]
    pool = copies_of(plan_of(300))
    halves = [[copies[0][:50]] for copies in pool[::4]]  # cut short
    data, report = codec.decode(shuffled([*pool, garbage, *halves]), SCHEME)
    assert data == content(300)
    assert report.aligned >= 31


@pytest.mark.parametrize("reads", [[], [np.zeros(90, np.uint8), np.zeros(0, np.uint8)] * 4])
def test_nothing_to_read(reads):
    with pytest.raises(DecodeError):
        codec.decode(reads, SCHEME)


def test_bytes_that_do_not_match_their_digest_are_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(codec, "_header", lambda data: len(data).to_bytes(6, "big") + bytes(10))
        plan = codec.encode(content(40), SCHEME)
    with pytest.raises(DecodeError, match=r"digest|lost"):
        codec.decode(shuffled(copies_of(plan)), SCHEME)


def test_a_length_that_makes_no_sense_is_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(codec, "_header", lambda data: bytes([255]) * 16)
        plan = codec.encode(content(40), SCHEME)
    with pytest.raises(DecodeError, match=r"length|lost"):
        codec.recover(shuffled(copies_of(plan)), SCHEME)
