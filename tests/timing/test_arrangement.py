"""Pools of schemes of version 2: one lost strand costs one, the header stands in front, old pools stay readable."""

import dataclasses
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest

from helix_jax import packing
from helix_jax.config import CODED, CodecConfig, StrandConfig
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import header, layouts
from helix_jax.timing import arrangement, channel, correction, frame, front, paths, reading, recovery, scheme
from helix_jax.timing import pool as timing
from helix_jax.timing.graph import TALK
from helix_jax.timing.scheme import POISSON_SCHEME, TALK_SCHEME, Scheme

P = 0.98
# The layout of test_pool.py, less of the parity.
SCHEME = Scheme(
    name="test", law=channel.Binomial.uniform(P), table=TALK, copies=2, delta=0.1, duration=72, data=61, spacing=24,
    parity=12, index=5, check=8, group=255, beams=(4, 32), version=2, loss=0.05,
)  # fmt: skip
WIDTH = timing.symbol_bytes(SCHEME)
BYTES = 300


def content(size, seed=0):
    return np.random.default_rng([size, seed]).bytes(size)


def made(size, redundancy=None, **others):
    config = CodecConfig(strands=StrandConfig(redundancy=redundancy))
    return packing.pack(content(size), config=config, writer=timing.Timing(SCHEME), compress=False, **others)


def strands_of(pool, gone=(), scheme=SCHEME):
    """The strands of a pool but for those that are gone, as alignment hands them over: one level in 200 looks wrong."""
    levels = pool.schedule.levels(TALK)
    letters, levels, digits = (
        np.asarray(part) for part in frame.read(pool.schedule.letters, levels, frame=scheme.frame)
    )
    likelihood = np.where(np.arange(2) == levels[..., None], 0, -9).astype(np.float32)
    odd = np.random.default_rng(7).random(levels.shape) < 0.005
    likelihood[odd] = np.where(likelihood[odd] == 0, -2, 0)
    parts = scheme.frame.digit_parts
    index = digits[:, parts["index"]].astype(np.int64) @ 3 ** np.arange(scheme.index)
    kept = np.array([i for i in np.argsort(index) if i not in set(gone)])
    parity = frame.trits_to_bits(digits[:, parts["parity"]], scheme.parity)[0]
    doubt, odds, count = np.zeros(len(kept), np.float32), np.full(len(kept), 9, np.float32), len(kept)
    return reading.Strands(index[kept], letters[kept], likelihood[kept], parity[kept], doubt, odds, count, count, 0)


@pytest.fixture
def decode(monkeypatch):
    """Decode a pool of strands without their alignment, which is the costly part and another module's."""

    def decoded(strands, scheme=SCHEME):
        monkeypatch.setattr(reading, "read", lambda reads, scheme, progress: iter([strands]))
        return packing.unpack([np.zeros(1, np.uint8)] * len(strands.index), writer=timing.Timing(scheme))

    return decoded


# ---- which strands there are -----------------------------------------------------------------------------


def test_strands_of_a_pool():
    """The header takes 61 of 75 bytes, 5 strands; the content 20; 4 of 29 are lost in 1 pool of 100 at the most."""
    pool = made(BYTES)
    assert WIDTH == 15
    assert (pool.header_strands, pool.layout.sources, pool.layout.repairs) == (5, 20, 5)
    assert pool.count == arrangement.count(SCHEME, pool.layout) == 5 + 20 + 5
    shared = made(BYTES - 5)  # the last strand has 10 bytes, which fit behind the header
    assert (shared.header_strands, shared.layout.sources, shared.count) == (5, 20, 5 + 19 + 5)
    assert made(BYTES, redundancy=0.0).count == 25
    assert made(BYTES, redundancy=0.2).count == 30


@pytest.mark.parametrize("size", [0, 14, BYTES])
def test_the_repair_strands_bear_the_loss(size):
    layout = timing.Timing(SCHEME).open(CodecConfig()).plan(size, "bytes")
    total, drawn = arrangement.count(SCHEME, layout), np.random.default_rng(0)
    assert (drawn.binomial(total, SCHEME.loss, 100_000) > layout.repairs).mean() < 1.1 * arrangement.FAILURE
    # and one strand less would be too few
    assert (drawn.binomial(total - 1, SCHEME.loss, 100_000) >= layout.repairs).mean() > 0.9 * arrangement.FAILURE


def test_no_pool_takes_longer_than_its_cost():
    for size in (0, 10, BYTES, BYTES - 5):
        pool = made(size)
        station = timing.Timing(SCHEME).open(CodecConfig())
        planned = station.plan(size, "bytes")
        assert station.cost(planned) == station.cost(pool.layout)
        assert pool.time <= station.cost(planned) <= 1.15 * pool.time


def test_a_coded_video_has_more_repair_strands():
    plans = [timing.Timing(SCHEME).open(CodecConfig()).plan(100 * WIDTH, mode) for mode in ("raw", "context")]
    assert all(front.front_of(plan) for plan in plans)
    loose, coded = (plan.repairs / (arrangement.count(SCHEME, plan) - plan.repairs) for plan in plans)
    assert loose < 0.15 < CODED <= coded < CODED + 0.01


def test_strands_too_short_to_state_their_bytes_at_once():
    """The header then has strands of its own."""
    for width, fits in ((8, False), (9, True)):
        layout = layouts.wide(width, (layouts.Part(5, 1),), False)
        layout = dataclasses.replace(layout, reed_solomon=True, header_bytes=front.packed_bytes(True))
        assert (front.front_of(layout) is not None) == fits
    assert front.width_of(np.zeros(8, np.uint8)) == 0


def test_more_strands_than_a_reed_solomon_code_has():
    """RaptorQ takes over, with two repair strands more, and the header has strands of its own."""
    wide = dataclasses.replace(SCHEME, index=6)
    small, large = (timing.Timing(wide).open(CodecConfig()).plan(n * WIDTH, "bytes") for n in (228, 240))
    assert front.front_of(small).layout.packets <= layouts.MOST_EXACT < large.packets
    assert not large.exact(large.sources, large.repairs)
    assert large.header_bytes == header.SIZE
    assert arrangement.count(wide, large) == large.packets + arrangement.header_layout(wide).packets
    assert large.repairs >= small.repairs


# ---- there and back --------------------------------------------------------------------------------------


def test_bytes_come_back_from_reads():
    pool, generator = made(50), np.random.default_rng(0)
    reads = [
        np.repeat(row, generator.binomial(times, P))
        for row, times in zip(pool.schedule.letters, pool.schedule.durations, strict=True)
        for _ in range(4)
    ]
    shuffled = [reads[i] for i in generator.permutation(len(reads))]
    data, report = packing.unpack(shuffled, writer=timing.Timing(SCHEME))
    assert (data, report.verified, report.strands) == (content(50), True, pool.count)


@pytest.mark.parametrize("size", [0, BYTES - 5])
def test_bytes_come_back(size, decode):
    pool = made(size)
    data, report = decode(strands_of(pool))
    assert data == content(size)
    assert report.verified
    assert report.strands == pool.count
    assert (report.lost_packets, report.broken_groups, report.rejected) == (0, 0, 0)
    assert (report.header_strands, report.packets_received) == (pool.header_strands, pool.layout.packets)
    assert report.corrected > 0


@pytest.mark.parametrize("gone", [(), (0, 1, 2, 3, 4), (0, 3, 12, 20, 28), (29, 28)])
def test_each_lost_strand_costs_one(gone, decode):
    """Five repair strands replace any five, those of the header among them."""
    data, report = decode(strands_of(made(BYTES), gone))
    assert data == content(BYTES)
    assert report.aligned == 30 - len(gone)


def test_one_more_is_refused(decode):
    pool = made(BYTES)
    with pytest.raises(DecodeError, match=r"2 of 20 source packets are lost"):
        decode(strands_of(pool, (7, 8, 25, 26, 27, 28)))
    with pytest.raises(DecodeError, match="header cannot be read, nor repaired"):
        decode(strands_of(pool, (0, 7, 8, 26, 27, 28)))


@pytest.mark.parametrize("wrong", [2, 9])
def test_a_wrong_strand_is_found(wrong, decode):
    """It passes all of its own checks, and holds other bytes: a strand of another pool under its number."""
    strands = strands_of(made(BYTES))
    foreign = strands_of(packing.pack(content(BYTES, 5), writer=timing.Timing(SCHEME), compress=False))
    for field in ("letters", "likelihood", "parity"):
        getattr(strands, field)[wrong] = getattr(foreign, field)[wrong]
    data, report = decode(strands)
    assert data == content(BYTES)
    assert report.packets_received >= 20


def test_strands_are_left_out_by_their_suspicion():
    """First those that a check contradicts, then one more each time, then as many as can be replaced, in other sets."""
    nobody = np.zeros((6, 1), np.uint8)
    good, sound = np.array([1, 1, 0, 1, 1, 1], bool), np.array([1, 1, 1, 0, 1, 1], bool)
    suspicion = np.array([0, 3, 9, 1, 0.5, 2], np.float32)
    rows = recovery._Rows(np.arange(6), nobody, good, sound, suspicion, 0, 0)
    left_out = [tuple(np.flatnonzero(good & ~mask).tolist()) for mask in recovery._choices(rows, good, 3)]
    assert left_out == [(3,), (1,), (1, 5), *itertools.chain(
        [(1, 5), (1, 3), (1, 4), (0, 1)], [(3, 5), (4, 5), (0, 5)], [(3, 4), (0, 3)], [(0, 4)]
    )]  # fmt: skip
    assert not list(recovery._choices(rows._replace(sound=good | True), good, 1))


@pytest.mark.parametrize("wrong", [0, 9])
def test_a_wrong_strand_is_found_where_only_one_can_be_replaced(wrong, decode):
    """Four of the five repair strands are used up, and the fifth can replace a strand, but not find it."""
    strands = strands_of(made(BYTES), gone=(12, 17, 18, 24))
    foreign = strands_of(packing.pack(content(BYTES, 5), writer=timing.Timing(SCHEME), compress=False))
    for field in ("letters", "likelihood", "parity"):
        getattr(strands, field)[wrong] = getattr(foreign, field)[wrong]
    strands.odds[wrong] = 0.1
    assert decode(strands)[0] == content(BYTES)


def test_strands_with_wrong_levels_are_suspicious():
    """Half of the strands have a level that looks wrong, and the parity is not enough to mend all of them."""
    weak = dataclasses.replace(SCHEME, parity=4)
    drawn = np.random.default_rng(0)
    levels = (drawn.random((40, weak.data)) < 0.2).astype(np.uint8)
    likelihood = np.where(np.arange(2) == levels[..., None], 0, -9).astype(np.float32)
    for strand in range(0, 40, 2):
        for place in drawn.choice(weak.data, 3, replace=False):
            likelihood[strand, place] = [0, -1.5] if levels[strand, place] else [-1.5, 0]
    doubt = np.where(np.arange(40) % 10 == 5, np.inf, 0).astype(np.float32)
    found = correction.correct(weak, likelihood, correction.parity(weak, levels), doubt)
    read = ~np.isinf(doubt) & ~np.isinf(found.suspicion)
    wrong = (found.levels != levels).any(axis=1)
    assert (wrong & read).sum() >= 5
    assert (~wrong & read).sum() >= 5
    assert np.median(found.suspicion[wrong & read]) > 4 * np.median(found.suspicion[~wrong & read])


def test_other_ratios_settle_where_the_right_ones_do_not(monkeypatch):
    """Small groups whose parity is hardly enough: more of them come back, and none of those is wrong."""
    tight = dataclasses.replace(SCHEME, data=240, duration=283, parity=18, span=8, group=190, tags=4, shared=1)
    scales, once, again = correction._SCALES, 0, 0
    for seed in range(1, 10):
        drawn = np.random.default_rng(seed)
        levels = (drawn.random((17, tight.data)) < 0.2).astype(np.uint8)
        ratio = drawn.normal(10, np.sqrt(20), levels.shape) * (1 - 2.0 * levels)
        likelihood = np.stack([ratio / 2, -ratio / 2], axis=-1).astype(np.float32)
        parity = correction.parity(tight, levels)
        monkeypatch.setattr(correction, "_SCALES", ())
        first = correction.correct(tight, likelihood, parity, np.zeros(17, np.float32))
        monkeypatch.setattr(correction, "_SCALES", scales)
        second = first if first.ok else correction.correct(tight, likelihood, parity, np.zeros(17, np.float32))
        once, again = once + first.ok, again + second.ok
        assert not second.ok or np.array_equal(second.levels, levels)
    assert 0 < once < again


def test_strands_that_bear_the_numbers_of_a_header(decode):
    """With 3 index letters 27 strands can be told apart, and the last of this pool are where a header would be."""
    short = dataclasses.replace(SCHEME, index=3, loss=0.01)
    pool = packing.pack(content(BYTES), writer=timing.Timing(short), compress=False)
    alone = arrangement.header_layout(short)
    assert (pool.count, pool.header_strands) == (27, 5)
    assert np.count_nonzero(np.arange(27) >= 27 - alone.packets) >= alone.sources
    assert decode(strands_of(pool, scheme=short), short)[0] == content(BYTES)


def test_a_misread_strand_that_looks_like_one_of_a_header(decode):
    strands = strands_of(made(BYTES))
    strands.index[-1] = 3**SCHEME.index - 1
    assert decode(strands)[0] == content(BYTES)


def test_sections_have_a_header_of_their_own(decode):
    """A pool with a note: its header bears the highest numbers, and may lose as many strands as its code repairs."""
    config = CodecConfig(note=True)
    pool = packing.pack(content(BYTES), config=config, writer=timing.Timing(SCHEME), name="a.bin")
    own = pool.header_strands
    assert own == arrangement.header_layout(SCHEME, pool.header.size).packets > 8
    assert pool.count == arrangement.count(SCHEME, pool.layout)
    spare = arrangement.header_layout(SCHEME, pool.header.size).repairs
    data, report = decode(strands_of(pool, [*range(spare), own + 1]))
    assert data == content(BYTES)
    assert report.header_strands == own - spare


def test_a_header_of_its_own_needs_no_code_of_levels(decode):
    """Its strands have one level in all data rounds, few of whose runs are lost, and their letters say all."""
    pool = packing.pack(content(BYTES), config=CodecConfig(note=True), writer=timing.Timing(SCHEME), name="a.bin")
    heads, levels = pool.header_strands, pool.schedule.levels(TALK)
    assert (levels[:heads, SCHEME.frame.data_rounds] == 1).all()
    assert not (levels[heads:, SCHEME.frame.data_rounds] == 1).all()
    assert pool.time <= timing.Timing(SCHEME).open(CodecConfig()).cost(pool.layout) <= 1.1 * pool.time
    strands = strands_of(pool)
    mine = strands.index >= 3**SCHEME.index - heads
    assert mine.sum() == heads
    strands.likelihood[mine], strands.parity[mine] = 0, 1
    data, report = decode(strands)
    assert (data, report.header_strands) == (content(BYTES), heads)


@pytest.mark.parametrize("known", [scheme.TALK_FAST_SCHEME, scheme.POISSON_FAST_SCHEME])
def test_strands_of_letters_alone(known):
    """Of the schemes that are shipped: all data at one level, of a fixed time, and back from the letters."""
    coder, level = paths.plain_coder(known), paths.plain_level(known)
    symbols = np.random.default_rng(0).integers(0, 256, (5, coder.bits // 8)).astype(np.uint8)
    letters, levels = paths.write(coder, symbols)
    assert letters.shape == (5, known.data)
    assert level == 1
    assert not levels.any()
    before = np.concatenate([np.zeros_like(letters[:, :1]), letters[:, :-1]], axis=1)
    assert (before != letters)[:, 1:].all()
    assert known.table.array()[before, letters, level].sum(axis=1).tolist() == [coder.units] * 5
    assert coder.bits > 0.98 * np.log2(3) * known.data
    back, good = paths.read(coder, letters, levels)
    assert good.all()
    assert (back == symbols).all()


def test_the_other_version_is_refused(decode):
    old = dataclasses.replace(SCHEME, version=1)
    strands = strands_of(packing.pack(content(40), writer=timing.Timing(old), compress=False), scheme=old)
    with pytest.raises(DecodeError):
        decode(strands)
    assert decode(strands, old)[0] == content(40)


# ---- the header ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "video"])
def test_packed_header_there_and_back(kind):
    video = {"frames": 7, "height": 64, "width": 96, "fps": Fraction(30), "digits": 4, "model_hash": b"12345678"}
    head = header.Header(
        kind=kind, constraints=front.NAME, tables_hash=b"abcdefgh", key=b"87654321", content_bytes=40,
        digest=bytes(range(16)), sources=3, symbol_bytes=15, index_bits=8, check_bits=12, repairs=2,
        mixing=CodecConfig().mixing, **(video if kind == "video" else {}),
    )  # fmt: skip
    short = front.packed(head.to_bytes())
    assert len(short) == front.packed_bytes(kind == "bytes") == (61 if kind == "bytes" else 96)
    assert header.Header.from_bytes(front.unpacked(short + b"payload")) == head
    assert not header.intact(front.unpacked(bytes([*short[:20], short[20] ^ 1, *short[21:]])))


@pytest.mark.parametrize("forged", [{"sources": 4}, {"repairs": 1 << 30}, {"symbol_bytes": 16}, {"content_bytes": 14}])
def test_forged_headers_are_passed_over(forged):
    head = header.Header(
        kind="bytes", constraints=front.NAME, tables_hash=b"abcdefgh", key=b"87654321", content_bytes=40,
        digest=bytes(range(16)), sources=3, symbol_bytes=15, index_bits=8, check_bits=12, repairs=2,
        mixing=CodecConfig().mixing,
    )  # fmt: skip
    assert front.front_of(arrangement.front_layout(SCHEME, head)).layout.packets == 5 + 2 + 2
    assert arrangement.front_layout(SCHEME, dataclasses.replace(head, **forged)) is None


# ---- schemes ---------------------------------------------------------------------------------------------


def test_digests_of_earlier_schemes_stay():
    """Pools state them: another digest, and no release reads an old pool again."""
    assert arrangement.digest(TALK_SCHEME).hex()[:16] == "1a521af9c746a137"
    assert arrangement.digest(POISSON_SCHEME).hex()[:16] == "b024f0ba04de1853"
    new = dataclasses.replace(TALK_SCHEME, version=2)
    assert arrangement.digest(new) != arrangement.digest(TALK_SCHEME)
    assert arrangement.digest(dataclasses.replace(new, loss=0.1)) == arrangement.digest(new)
    assert arrangement.digest(dataclasses.replace(new, span=8)) != arrangement.digest(new)
    tagged = dataclasses.replace(new, tags=4, shared=1)
    others = [
        dataclasses.replace(tagged, **fields)
        for fields in ({"tags": 5}, {"shared": 2}, {"costs": TALK}, {"tags": 0, "shared": 0})
    ]
    assert len({arrangement.digest(each) for each in (tagged, *others)}) == 5


@pytest.mark.parametrize("made", [scheme.TALK_FAST_SCHEME, scheme.POISSON_FAST_SCHEME], ids=lambda made: made.name)
def test_fast_schemes_write_strands_that_can_be_taken_apart(made, monkeypatch):
    """They give the symbols that were coded, of which the first ones hold the header, and their numbers."""
    write, coded = paths.write, []

    def noted(coder, symbols, *others):
        coded.append(symbols)
        return write(coder, symbols, *others)

    monkeypatch.setattr(paths, "write", noted)
    pool = packing.pack(content(500), writer=timing.Timing(made), compress=False)
    plan, parts = pool.schedule, made.frame.digit_parts
    letters, levels, digits = map(np.asarray, frame.read(plan.letters, plan.levels(made.table), frame=made.frame))
    assert levels.max() == made.levels - 1
    assert digits.max() == 2  # no letter follows itself
    index = digits[:, parts["index"]].astype(np.int64) @ 3 ** np.arange(made.index)
    assert index.tolist() == list(range(pool.count))
    assert frame.trits_to_bits(digits[:, parts["parity"]], made.parity)[1].all()
    symbols, ok = paths.read(paths.coder(made), letters, levels)
    assert ok.all()
    np.testing.assert_array_equal(symbols, np.concatenate(coded))
    head = front.packed(pool.header.to_bytes())
    assert arrangement.whitened(symbols, index).tobytes()[: len(head)] == head


def test_files_of_earlier_releases_are_read(tmp_path):
    """And earlier releases read a scheme of version 1, as its file has no field that is new."""
    text = scheme.to_json(TALK_SCHEME)
    assert not json.loads(text).keys() & {"version", "loss", "span", "tags", "shared", "costs"}
    (tmp_path / "old.json").write_text(text)
    assert scheme.named(str(tmp_path / "old.json")) == TALK_SCHEME
    assert scheme.from_json(scheme.to_json(SCHEME)) == SCHEME


def test_index_too_short():
    with pytest.raises(HelixError, match="30 strands, more than 27"):
        packing.pack(content(BYTES), writer=timing.Timing(dataclasses.replace(SCHEME, index=3)), compress=False)
