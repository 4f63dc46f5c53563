"""Bytes through schedule and reads: exact or refused, whatever becomes of copies, strands, levels and neighbours.

Copies are drawn here, by NumPy, and not by the simulator. One scheme and one number of copies for (nearly) all tests:
the kernels are compiled once.
"""

import dataclasses
import functools
import itertools
import math
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from helix_jax import packing
from helix_jax.config import CodecConfig, StrandConfig, Survival
from helix_jax.errors import DecodeError, HelixError
from helix_jax.strands import header, layouts
from helix_jax.timing import arrangement, channel, ecc, frame, paths, reading, recovery, search
from helix_jax.timing import pool as timing
from helix_jax.timing import tags as tagging
from helix_jax.timing.graph import TALK, TimeTable
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


SIZE = timing.symbol_bytes(SCHEME)
FIRST = 2 * -(-header.SIZE // SIZE)  # strands of the header


def encode(data, scheme=SCHEME, **others):
    return packing.pack(data, writer=timing.Timing(scheme), compress=False, **others).schedule


def decode(reads, scheme=SCHEME, **others):
    return packing.unpack(reads, writer=timing.Timing(scheme), **others)


@functools.cache
def plan_of(size, scheme=SCHEME, seed=0):
    return encode(content(size, seed), scheme)


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
    """The header twice, then the content; three tenths and two more for repair."""
    assert SIZE == paths.coder(SCHEME).bits // 8 == 15
    assert FIRST == 2 * 8
    for content_bytes in (0, 17, 300):
        sources = max(1, -(-content_bytes // SIZE))
        assert len(plan_of(content_bytes).letters) == FIRST + sources + math.ceil(0.3 * sources) + 2


@SCHEMES
def test_index_and_parity_stand_in_the_letters(scheme):
    plan = plan_of(300, scheme)
    levels = plan.levels(TALK)[:, scheme.frame.data_rounds]
    parity, index = digits_of(plan, scheme)
    assert [int("".join(map(str, row[::-1])), 3) for row in index.tolist()] == list(range(len(plan.letters)))
    bits, ok = frame.trits_to_bits(parity, scheme.parity)
    assert ok.all()
    header_strands = 2 * -(-header.SIZE // timing.symbol_bytes(scheme))
    starts = [0, *range(header_strands, len(levels), scheme.group)]
    for start, end in itertools.pairwise([*starts, len(levels)]):
        group = levels[start:end]
        code = ecc.design(group.size, len(group) * scheme.parity)
        wide = np.append(group.reshape(-1)[code.order], 0)  # two levels: the level is its bit
        wanted = np.bitwise_xor.reduce(wide[code.column], axis=1)
        np.testing.assert_array_equal(bits[start : start + len(group)].reshape(-1), wanted)


def test_same_bytes_same_schedule(monkeypatch):
    first = plan_of(300)
    monkeypatch.setattr(timing, "_BATCH", 8)
    monkeypatch.setattr(paths, "_BATCH", 8)
    second = encode(content(300))
    np.testing.assert_array_equal(first.letters, second.letters)
    np.testing.assert_array_equal(first.durations, second.durations)


def test_a_strand_depends_on_its_own_bytes():
    """With the same key, the header (its digest), the last byte and repair differ: no other source strand does."""
    changed = bytearray(content(300))
    changed[-1] ^= 1
    one, two = (encode(data, key=bytes(8)) for data in (content(300), bytes(changed)))
    data = SCHEME.frame.digit_rounds[0]
    alike = ((one.letters == two.letters) & (one.durations == two.durations))[:, :data].all(axis=1)
    assert not alike[:FIRST].all()
    assert alike[FIRST:].tolist() == [True] * 19 + [False] * (len(alike) - FIRST - 19)


def test_payload_is_made_uniform():
    """Zeros give no two strands that begin alike."""
    plan = encode(bytes(300))
    assert len(np.unique(plan.letters[:, :12], axis=0)) == len(plan.letters)


def test_more_bytes_than_the_index_numbers():
    scheme = dataclasses.replace(SCHEME, index=3)
    assert len(encode(bytes(60), scheme).letters) == FIRST + 4 + 2 + 2 == 24
    with pytest.raises(HelixError, match=r"75 bytes need 25 strands, more than 9, .* longer index"):
        encode(bytes(75), dataclasses.replace(SCHEME, index=2))
    with pytest.raises(HelixError, match=r"120 bytes need 29 strands, more than 27"):
        encode(bytes(120), scheme)


@pytest.mark.parametrize(
    ("config", "motifs", "named"),
    [
        (CodecConfig(constraints="strict"), (), "--constraints"),
        (CodecConfig(strands=StrandConfig(length=100)), (), "--strand-length"),
        (CodecConfig(strands=StrandConfig(left_primer="ACGT")), (), "--left-primer"),
        (CodecConfig(), ("GAATTC",), "--forbid"),
        (CodecConfig(strands=StrandConfig(redundancy=Survival(0.1))), (), "--survive"),
    ],
)
def test_options_that_the_scheme_settles_are_refused(config, motifs, named):
    with pytest.raises(HelixError, match=f"{named}.*not for the timing writer"):
        packing.pack(b"abc", config=config, motifs=motifs, writer=timing.Timing(SCHEME))
    with pytest.raises(HelixError, match="--forbid: not for the timing writer"):
        decode([np.zeros(90, np.uint8)], motifs=("GAATTC",))


def test_redundancy_of_the_caller_goes_before_that_of_the_scheme():
    none = CodecConfig(strands=StrandConfig(redundancy=0.0))
    assert len(encode(content(300), config=none).letters) == FIRST + 20
    station = timing.Timing(SCHEME).open(CodecConfig())
    assert station.plan(300, "raw").repairs == station.plan(300, "context").repairs == 8  # the scheme has more than 0.2
    cheap = timing.Timing(dataclasses.replace(SCHEME, redundancy=0.05)).open(CodecConfig())
    assert (cheap.plan(300, "raw").repairs, cheap.plan(300, "prior").repairs) == (3, 6)


def test_packets_hold_whole_multiples():
    station = timing.Timing(SCHEME).open(CodecConfig())
    assert [station.plan(300, "raw", multiple).symbol_bytes for multiple in (1, 2, 4, 15)] == [15, 14, 12, 15]
    with pytest.raises(HelixError, match="room for 15 bytes, and whole tokens take 16"):
        station.plan(300, "raw", 16)


TAGGED = dataclasses.replace(SCHEME, name="tags", version=2, loss=0.05, tags=4, shared=2, beams=(2, 2))
# a run of time 1 counts as 3, so that longer ones are more frequent
COSTS = TimeTable.parse(
    "A->C{3,4} A->G{3,6} A->T{3,6} C->A{3,4} C->G{3,4} C->T{3,6} "
    "G->A{3,4} G->C{3,6} G->T{3,4} T->A{3,8} T->C{3,4} T->G{3,8}"
)
COSTLY = dataclasses.replace(TAGGED, name="costs", costs=COSTS, duration=211)


def test_strands_that_cannot_be_read_at_first_are_read_with_their_tags(monkeypatch):
    """The beam is as narrow the second time, so that nothing but the tags helps."""
    plan = plan_of(120, TAGGED)
    reads = shuffled(copies_of(plan, p=0.91, seed=3))
    tagged, taken = search._tagged, []

    def tags_of(*args):
        taken.append(tagged(*args))
        return taken[-1]

    monkeypatch.setattr(search, "_tagged", tags_of)
    data, report = decode(reads, TAGGED)
    assert data == content(120)
    targets, *more = taken
    assert not more
    once = len(plan.letters) - len(set(targets.clusters.tolist()))  # strands that were read without tags
    assert (targets.tags[:, TAGGED.frame.tag_rounds] >= 0).any()
    assert (targets.number >= 0).any()
    monkeypatch.setattr(search, "_tagged", lambda *args: search._untagged(targets.clusters, TAGGED.frame))
    assert last_reading(reads, TAGGED).aligned == once < report.aligned


def last_reading(reads, scheme):
    return list(reading.read(reads, scheme))[-1]


def strings_of(plan, odds, scheme=TAGGED):
    """What alignment returns of the first strands of a plan, with these odds."""
    count = len(odds)
    nothing = np.zeros(count, np.float32)
    return plan.letters[:count], np.zeros_like(plan.letters[:count]), nothing, nothing, np.array(odds, np.float32)


@pytest.mark.parametrize(("least", "taken"), [(3.0, [False, False, False, True]), (1.0, [False, True, True, True])])
def test_strands_are_taken_where_their_odds_exceed_the_least(least, taken):
    for scheme, expected in ((TAGGED, taken), (SCHEME, [True] * 4)):
        found = search.Found.nothing(4, scheme.frame)
        targets = search._untagged(np.arange(4), scheme.frame)
        strings = strings_of(plan_of(120, scheme), [1.0, 1.1, 3.0, 3.1], scheme)
        found.take(targets, strings, scheme, np.full(4, least, np.float32))
        assert found.done.tolist() == expected


def test_a_string_found_with_the_tags_of_a_strand_must_bear_its_number():
    found = search.Found.nothing(3, TAGGED.frame)
    plan = plan_of(120, TAGGED)
    own = [int(digits @ 3 ** np.arange(5)) for digits in frame.digits(plan.letters[:3], frame=TAGGED.frame)[:, :5]]
    targets = search._untagged(np.arange(3), TAGGED.frame)._replace(number=np.array([own[0], own[0], -1]))
    found.take(targets, strings_of(plan, [9, 9, 9]), TAGGED, np.zeros(3, np.float32))
    assert found.number.tolist() == [own[0], -1, own[2]]


def test_of_two_clusters_with_one_number_the_surer_counts():
    """In version 1, which has no odds, it is the larger one, which comes first."""
    for scheme, chosen in ((TAGGED, 1), (SCHEME, 0)):
        found, plan = search.Found.nothing(3, scheme.frame), plan_of(120, scheme)
        letters, levels, score, doubt, odds = strings_of(plan, [4, 5, 6], scheme)
        letters = letters[[0, 0, 1]]
        found.take(
            search._untagged(np.arange(3), scheme.frame), (letters, levels, score, doubt, odds), scheme,
            np.zeros(3, np.float32),
        )  # fmt: skip
        assert sorted(found.surest().tolist()) == [chosen, 2]


def test_tags_do_not_count_the_strands_of_a_header():
    """A header in strands of its own has the highest numbers, and the last group of the others is known to be short."""
    pool = packing.pack(
        content(240), config=CodecConfig(note=True), writer=timing.Timing(TAGGED), name="a", compress=False
    )
    heads = pool.header_strands
    assert heads > 0
    count = pool.count - heads
    number = search.numbers(TAGGED, pool.schedule.letters)[0]
    assert sorted(number.tolist()) == [*range(count), *range(3**TAGGED.index - heads, 3**TAGGED.index)]
    found = search.Found.nothing(pool.count, TAGGED.frame)
    found.letters[:], found.number[:] = pool.schedule.letters, number
    found.number[[heads + 2, heads + 5]] = -1  # two that were not read
    tags, forgotten = search._code(TAGGED, found)
    assert not forgotten
    assert found.total == count
    assert tags.keys() == set(range(count))
    own = np.asarray(frame.tags(pool.schedule.letters[heads:], frame=TAGGED.frame))
    for missing in (2, 5):
        known = tags[missing] >= 0
        assert known.any()
        assert (tags[missing][known] == own[missing][known]).all()


@pytest.mark.parametrize(
    ("numbers", "heads"),
    [
        ([0, 1, 2, 3, 240, 241, 242], 3),
        ([0, 1, 2, 3, 240], 1),
        ([*range(243)], 0),
        ([0, 1, 2, 3], 0),
        ([0, 1, 100], 0),
        ([*range(230), 240, 242], 2),
        ([*range(234), 235, 242], 0),
    ],
)
def test_numbers_of_a_header_follow_a_gap(numbers, heads):
    five = dataclasses.replace(TAGGED, index=5)
    mask = search._of_header(five, np.array(numbers, np.int64))
    assert np.flatnonzero(mask).tolist() == [*range(len(numbers) - heads, len(numbers))]


def test_strings_that_the_tags_disprove_are_forgotten():
    """One strand bears the hash of other letters: its own tags are wrong, and its cluster is free again."""
    plan, count = plan_of(120, TAGGED), len(plan_of(120, TAGGED).letters)
    letters, place = plan.letters.copy(), TAGGED.frame.data_rounds[2]
    others = {0, 1, 2, 3} - set(letters[3, place - 1 : place + 2].tolist())
    letters[3, place] = others.pop()
    found = search.Found.nothing(count, TAGGED.frame)
    found.letters[:], found.number[:] = letters, np.arange(count)
    tags, forgotten = search._code(TAGGED, found)
    assert forgotten == {3: 3}
    assert np.flatnonzero(~found.done).tolist() == [3]
    assert found.total == count
    assert tags.keys() == set(range(count))


def test_what_was_tried_is_not_tried_again(monkeypatch):
    """The second and the third beam are as wide as the first, and a strand without tags was aligned with it."""
    scheme = dataclasses.replace(TAGGED, beams=(2, 2, 2))
    reads = shuffled(copies_of(plan_of(120, scheme), p=0.91, seed=3))
    aligned, wanted = [], []
    map_batches, take = search.parallel.map_batches, search.Found.take

    def counted(function, *args, **others):
        if function is search._align_batch:
            aligned.append(len(args[1]))
        return map_batches(function, *args, **others)

    def noted(found, targets, *args):
        wanted.append([(cluster, tags.tobytes()) for cluster, tags in zip(*targets[::2], strict=True)])
        take(found, targets, *args)

    monkeypatch.setattr(search.parallel, "map_batches", counted)
    monkeypatch.setattr(search.Found, "take", noted)
    last_reading(reads, scheme)
    assert len(wanted) > 1
    assert sum(aligned) == len(set().union(*wanted))


def test_the_last_search_alone_accepts_lower_odds_and_only_with_all_tags(monkeypatch):
    """The last by its place, even where the beams are equally wide."""
    take, asked, tagged = search.Found.take, [], search._tagged

    def but_one(*args):
        targets = tagged(*args)
        targets.tags[0, TAGGED.frame.tag_rounds[0]] = -1
        return targets

    def noted(found, targets, aligned, scheme, least):
        asked.append((targets.tags[:, scheme.frame.tag_rounds], least))
        take(found, targets, aligned, scheme, least)

    monkeypatch.setattr(search.Found, "take", noted)
    monkeypatch.setattr(search, "_tagged", but_one)
    last_reading(shuffled(copies_of(plan_of(120, TAGGED), p=0.91, seed=3)), TAGGED)
    (_, first), (tags, last) = asked
    assert (first == 3).all()
    assert (last == np.where((tags >= 0).all(axis=1), 0, 3)).all()
    assert set(last.tolist()) == {0.0, 3.0}


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_pool_comes_from_the_first_reading_that_gives_all_of_it(wrong):
    """Readings without most of the strands come first; those after a good one are not asked for."""
    whole = last_reading(shuffled(copies_of(plan_of(120, TAGGED))), TAGGED)
    half = dataclasses.replace(
        whole,
        **{
            name: getattr(whole, name)[::2] for name in ("index", "letters", "likelihood", "parity", "doubt", "odds")
        },
    )  # fmt: skip
    asked = []

    def readings():
        for reading_ in [*[half] * wrong, whole, None]:
            asked.append(reading_)
            yield reading_

    found, strands = recovery.first(TAGGED, readings(), 100)
    assert found.recovered.verified
    assert strands is whole
    assert asked == [*[half] * wrong, whole]
    with pytest.raises(DecodeError, match="the header cannot be read"):
        recovery.first(TAGGED, iter([half, half]), 100)


def test_what_is_written_of_tags_is_agreed_upon():
    plan = plan_of(120, TAGGED)
    assert decode(shuffled(copies_of(plan)), TAGGED)[0] == content(120)
    plain = dataclasses.replace(TAGGED, tags=0, shared=0)
    assert plan_of(120, plain).letters.shape[1] < plan.letters.shape[1]
    digests = {arrangement.digest(scheme) for scheme in (TAGGED, plain, dataclasses.replace(TAGGED, tags=5))}
    assert len(digests) == 3
    letters, parts = plan.letters, TAGGED.frame.digit_parts
    digits = ((letters - before(letters) - 1) & 3)[:, TAGGED.frame.digit_rounds]
    bits, valid = frame.trits_to_bits(digits[:, parts["shared"]], 16)
    assert valid.all()
    own = tagging.to_bytes(np.asarray(frame.tags(letters, frame=TAGGED.frame)))
    assert len(letters) == TAGGED.group
    np.testing.assert_array_equal(np.packbits(bits, axis=1), tagging.parity(TAGGED.tagging, own))


def test_costs_take_the_place_of_times():
    """Every strand costs the same, in other times; the promised time is right on average, and the cost a bound."""
    made = packing.pack(content(900), writer=timing.Timing(COSTLY), compress=False)
    plan = made.schedule
    path, levels, _ = (np.asarray(part) for part in frame.read(plan.letters, plan.levels(TALK), frame=COSTLY.frame))
    spent = {table: table.array()[before(path), path, levels].sum(axis=1) for table in (COSTS, TALK)}
    assert (spent[COSTS] == COSTLY.duration).all()
    assert len(np.unique(spent[TALK])) > 1
    cost = timing.Timing(COSTLY).open(CodecConfig()).cost(made.layout)
    assert made.time == plan.durations.sum() <= cost <= 1.15 * made.time
    assert made.time / len(plan.letters) == pytest.approx(COSTLY.strand_time, rel=0.03)


def test_bytes_come_back_from_strands_of_equal_cost():
    plan = plan_of(120, COSTLY)
    data, report = decode(shuffled(copies_of(plan)), COSTLY)
    assert data == content(120)
    assert report.verified
    with pytest.raises(DecodeError):
        decode(shuffled(copies_of(plan)), dataclasses.replace(COSTLY, costs=None, duration=72))


@SCHEMES
@pytest.mark.parametrize("size", [0, 300])
def test_no_pool_takes_longer_than_its_cost(scheme, size):
    """The cost is a bound, and not a loose one."""
    made = packing.pack(content(size), writer=timing.Timing(scheme))
    cost = timing.Timing(scheme).open(CodecConfig()).cost(made.layout)
    assert made.time == made.schedule.durations.sum() <= cost <= 1.15 * made.time


# ---- there and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 300])
def test_bytes_come_back(size):
    plan = plan_of(size)
    data, report = decode(shuffled(copies_of(plan)))
    assert data == content(size)
    assert report.verified
    assert (report.lost_packets, report.broken_groups) == (0, 0)
    assert report.reads == COPIES * len(plan.letters)
    assert report.clusters == report.aligned == report.strands == len(plan.letters)
    assert report.header_strands == FIRST
    assert report.packets == report.packets_received == len(plan.letters) - FIRST
    assert report.source_packets == max(1, -(-size // SIZE))


@pytest.mark.parametrize("scheme", [SPLIT, SHORT], ids=lambda scheme: scheme.name)
def test_bytes_come_back_by_state_splitting(scheme):
    data, report = decode(shuffled(copies_of(plan_of(300, scheme))), scheme)
    assert data == content(300)
    assert (report.lost_packets, report.broken_groups) == (0, 0)


@hypothesis.given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=5)
def test_any_bytes_come_back(data, seed):
    reads = shuffled(copies_of(encode(data), seed=seed), seed)
    assert decode(reads)[0] == data


def test_progress_is_told():
    told = []
    plan = encode(content(300), progress=lambda *args: told.append(args))
    decode(shuffled(copies_of(plan)), progress=lambda *args: told.append(args))
    for station, total in (("strands", 44), ("clusters", 176), ("align", 44), ("repair", 28)):
        assert {t for name, _, t in told if name == station} == {total}
        assert sum(done for name, done, _ in told if name == station) == total


# ---- copies ----------------------------------------------------------------------------------------------


def test_fewer_copies_than_the_scheme_expects():
    """Single copies, but for two strands: levels are wrong, and the code puts them right."""
    pool = copies_of(plan_of(300), seed=5)
    pool = [copies if i % 16 == 3 else copies[:1] if i % 3 == 0 else copies[:2] for i, copies in enumerate(pool)]
    data, report = decode(shuffled(pool))
    assert data == content(300)
    assert report.corrected > 0 == report.broken_groups


def test_more_copies_than_are_looked_at():
    """Of 12 copies some are left aside; repeats of a read do no harm."""
    pool = copies_of(plan_of(17), copies=12)
    assert decode(shuffled(pool))[0] == content(17)
    assert decode(shuffled([copies[:2] * 5 for copies in pool]))[0] == content(17)


def test_strands_without_a_read_are_repaired():
    pool = copies_of(plan_of(300))
    for i in (0, 7, 20, 30, 43):
        pool[i] = []
    data, report = decode(shuffled(pool))
    assert data == content(300)
    assert (report.aligned, report.strands, report.lost_packets, report.header_strands) == (39, 44, 0, 14)


def test_past_repair_nothing_is_returned():
    """28 strands beside the header, 20 of them source: with 18 left no bytes come back, but it is known which are."""
    pool = copies_of(plan_of(300))
    gone = [*range(FIRST + 3, FIRST + 12), FIRST + 20]
    reads = shuffled([copies for i, copies in enumerate(pool) if i not in gone])
    with pytest.raises(DecodeError, match=r"9 of 20 source packets are lost.*more copies of each strand"):
        decode(reads)
    received = timing.Timing(SCHEME).read(reads)
    assert not received.report.verified
    assert (received.report.lost_packets, received.report.strands, received.report.packets_received) == (9, 44, 18)
    np.testing.assert_array_equal(np.flatnonzero(received.recovered.lost), np.arange(3, 12))
    data, wanted = b"".join(packing.contents(received)), content(300)
    assert (data[: 3 * SIZE], data[12 * SIZE :]) == (wanted[: 3 * SIZE], wanted[12 * SIZE :])


@pytest.mark.parametrize("left", [8, 7])
def test_half_of_the_header_suffices(left):
    """It takes 8 symbols, and 16 are written; with one more than 8, 1 in 65,000 headers is not solved."""
    pool = copies_of(plan_of(300))
    kept = np.random.default_rng(0).permutation(FIRST)[: left + 1 if left == 8 else left]
    reads = shuffled([copies for i, copies in enumerate(pool) if i >= FIRST or i in kept])
    if left < 8:
        with pytest.raises(DecodeError, match="too few of the 16 strands of the header"):
            decode(reads)
    else:
        data, report = decode(reads)
        assert data == content(300)
        assert report.header_strands == len(kept)


def test_the_last_strands_are_missing():
    data, report = decode(shuffled(copies_of(plan_of(300))[:-8]))
    assert data == content(300)
    assert (report.aligned, report.strands, report.source_packets) == (36, 44, 20)


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
    data, report = decode(shuffled(copies_of(misread(plan, 0.0), p=1.0)))
    assert data == content(300)
    assert (report.corrected, report.broken_groups) == (44, 0)


def test_wrong_levels_past_the_code_are_refused():
    with pytest.raises(DecodeError):
        decode(shuffled(copies_of(misread(plan_of(300), 0.3), p=1.0)))


def test_a_poor_channel_is_refused():
    with pytest.raises(DecodeError):
        decode(shuffled(copies_of(plan_of(17), p=0.6)))


def foreign_strand(index, seed):
    """A strand of correct layout, with an index: random path and parity."""
    generator = np.random.default_rng(seed)
    symbols = generator.integers(0, 256, (1, SIZE), np.uint8)
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
    pool[FIRST + 5] = copies_of(foreign_strand(FIRST + 5, seed=2), seed=2)[0]
    data, report = decode(shuffled(pool))
    assert data == content(300)
    assert report.aligned == 44


@pytest.mark.parametrize("index", [44, 240])
def test_a_strand_numbered_past_the_last(index):
    pool = copies_of(plan_of(300)) + copies_of(foreign_strand(index, seed=2))
    data, report = decode(shuffled(pool))
    assert data == content(300)
    assert report.strands == 44


# ---- what does not belong there --------------------------------------------------------------------------


def test_reads_of_another_pool_are_not_returned():
    """With fewer copies they lose; with as many, one of the two comes back whole or nothing does."""
    pool, other = copies_of(plan_of(300)), copies_of(plan_of(300, seed=9), seed=9)
    few = [copies[:2] for copies in other]
    assert decode(shuffled(pool + few))[0] == content(300)
    try:
        assert decode(shuffled(pool + other))[0] in (content(300), content(300, seed=9))
    except DecodeError as error:
        assert "lost" in str(error) or "hash" in str(error) or "header" in str(error)  # noqa: PT017


def test_reads_of_another_layout_are_no_strands():
    """Another spacing of the check letters: their hashes do not match.

    Three strands of the two headers say the same, so that they lie in one cluster, and are lost.
    """
    other = encode(content(300), dataclasses.replace(SCHEME, spacing=15))
    foreign = copies_of(other, seed=4)
    data, report = decode(shuffled(copies_of(plan_of(17)) + foreign))
    assert data == content(17)
    assert (report.clusters, report.aligned) == (FIRST + 5 + 44 - 3, FIRST + 5 - 3)
    with pytest.raises(DecodeError, match=r"scheme test .*another scheme"):
        decode(shuffled(foreign))


def test_garbage_is_left_out():
    generator = np.random.default_rng(5)
    lengths = [0, 0, 1, 2, 10, 50, 90, 97, 98, 99, 120]
    garbage = [generator.integers(0, 4, n, np.uint8) for n in lengths] + [np.full(100, 2, np.uint8)]
    pool = copies_of(plan_of(300))
    halves = [[copies[0][:50]] for copies in pool[::4]]  # cut short
    data, report = decode(shuffled([*pool, garbage, *halves]))
    assert data == content(300)
    assert report.aligned >= 44


@pytest.mark.parametrize("reads", [[], [np.zeros(90, np.uint8), np.zeros(0, np.uint8)] * 4])
def test_nothing_to_read(reads):
    with pytest.raises(DecodeError):
        decode(reads)


def written(data, **fields):
    """Reads of a pool whose header states other values in some fields."""
    station = timing.Timing(SCHEME).open(CodecConfig())
    layout = station.plan(len(data), "bytes")
    rows = np.frombuffer(data.ljust(layout.payload_bytes, b"\0"), np.uint8).reshape(-1, layout.symbol_bytes)
    mixing = CodecConfig().mixing
    draft = station.draft(rows, {"kind": "bytes"}, layout, content_bytes=len(data), mixing=mixing, key=bytes(8))
    forged = dataclasses.replace(draft, header=dataclasses.replace(draft.header, **fields))
    return shuffled(copies_of(forged.written().schedule))


def test_bytes_that_do_not_match_their_digest_are_refused():
    with pytest.raises(DecodeError, match=r"hash|lost or doubtful"):
        decode(written(content(40), digest=bytes(16)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": 300}, "speaks of 303 strands .* has 227"),
        ({"symbol_bytes": 16}, "16 bytes each, and scheme test has 227 with 15"),
        ({"repairs": 1 << 25}, "speaks of 33,554,435 strands"),
        ({"symbol_bytes": 65528, "sources": (1 << 32) - 1}, "speaks of 4,294,967,298 strands with 65528 bytes"),
        ({"tables_hash": bytes(8)}, "another scheme than test"),
        ({"constraints": "helix"}, "another scheme than test"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(DecodeError, match=message):
        decode(written(content(40), **fields))


def test_a_header_of_a_later_format_is_refused(monkeypatch):
    plain = header.Header.to_bytes

    def later(head):
        data = b"\x09" + plain(head)[1:-4]
        return data + zlib.crc32(data).to_bytes(4, "big")

    with monkeypatch.context() as patch:
        patch.setattr(header.Header, "to_bytes", later)
        reads = shuffled(copies_of(encode(content(17))))
    with pytest.raises(DecodeError, match="format version 9"):
        decode(reads)


def test_key():
    """The key is the pool's id: a hash of the content unless one is given."""
    reads = shuffled(copies_of(encode(content(17), key=b"a pool's")))
    assert decode(reads, key=b"a pool's")[0] == content(17)
    with pytest.raises(DecodeError, match=f"pool with key {b'a pool'.hex()}.*, not to {bytes(8).hex()}"):
        decode(reads, key=bytes(8))


def test_a_header_of_a_stranger_takes_no_memory(monkeypatch):
    """Memory follows the header's claim only as far as what came back makes it likely."""
    monkeypatch.setattr(layouts, "SMALL_POOL", 0)
    monkeypatch.setattr(layouts, "MOST_MISSING", 0)
    with pytest.raises(DecodeError, match="forged, or nearly all"):
        decode(written(content(40)))
