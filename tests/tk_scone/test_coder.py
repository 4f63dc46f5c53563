"""Bits <-> bases: exact, lawful and bit-identical on every road, for any payload, the hostile ones included."""

import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from helix_jax import parallel
from helix_jax.arithmetic import TOTAL
from helix_jax.reference import kernels
from helix_jax.strands import checker
from helix_jax.tk_scone import coder, tables
from helix_jax.tk_scone.constraints import NAMED, Constraints

LENGTH = 150
MILLION = 1_000_000
PART = 100_000

CUSTOM = {
    "primers": Constraints(longest_run=2, window=6, window_gc=(0.3, 0.7), left="ACGTTG", right="CCATGA"),
    "motifs": Constraints(longest_run=3, motifs=("GAATTC", "GGTCTC", "TATA"), balance=4),
    "lopsided": Constraints(longest_run=4, window=8, window_gc=(0.2, 0.5)),
    "everything": Constraints("all", 2, 6, (0.3, 0.7), (0.4, 0.6), 4, ("GTA", "AAC"), "CTG", "GA"),
}


def masked(words, bits):
    """Payload words with zeros after bit K."""
    words = np.array(words, np.uint32)
    if bits % 32:
        words[:, -1] &= np.uint32((0xFFFFFFFF << (32 - bits % 32)) & 0xFFFFFFFF)
    return words


def random_words(table, count, seed=0):
    generator = np.random.default_rng(seed)
    return masked(generator.integers(0, 1 << 32, (count, -(-table.bits // 32)), dtype=np.uint32), table.bits)


def to_words(table, payloads):
    return np.stack([kernels.int_to_words(payload, table.bits) for payload in payloads])


def hostile_strands(table, count, seed=0):
    """Strands along the coder's least likely paths, and its likeliest (the widest intervals: where K is tight).

    Each takes the allowed difference with the fewest (or most) counts at every step, but for random
    deviations: none in the first of each kind, up to one step in four in the last.
    """
    generator = np.random.default_rng(seed)
    low, c3 = table.rows[:, 0], table.rows[:, 1]
    edges = np.stack([0 * low, low & 0xFFFF, low >> 16, c3, 0 * low + TOTAL], axis=1).astype(np.int64)
    counts = np.diff(edges, axis=1)
    rows, base = np.full(count, table.start), np.full(count, table.first_base)
    deviate = np.linspace(0, 0.25, count // 2).repeat(2)
    narrow = np.arange(count) % 2 == 0
    strands = np.empty((count, table.length), np.uint8)
    for i in range(table.length):
        here = counts[rows]
        liking = np.where(narrow[:, None], -here, here) + generator.random(here.shape)  # ties fall either way
        stray = generator.random(count) < deviate
        liking[stray] = generator.random((stray.sum(), 4))
        step = np.argmax(np.where(here > 0, liking, -np.inf), axis=1)
        base = base ^ step
        strands[:, i] = base
        rows = table.rows[rows, 2 + step]
        if i + 1 == table.head:
            rows = table.joint[rows]
    return strands


@functools.cache
def roads(table):
    """(write, read) of one table, jitted, as functions of NumPy arrays."""
    arrays, shape = coder.on_device(table)
    write = jax.jit(functools.partial(coder.write, shape=shape))
    read = jax.jit(functools.partial(coder.read, shape=shape))
    return functools.partial(write, arrays), functools.partial(read, arrays)


def comes_back(table, constraints, words):
    """Write, check, read: the strands."""
    write, read = roads(table)
    strands = np.asarray(write(words))
    assert strands.dtype == np.uint8
    assert strands.shape == (len(words), table.length)
    assert checker.check(strands, constraints).violations == 0
    back, ok = read(strands)
    assert np.asarray(ok).all()
    np.testing.assert_array_equal(back, words)
    return strands


@pytest.mark.parametrize("name", NAMED)
def test_round_trip_equals_the_reference(name, tables_of):
    table = tables_of(name, LENGTH)
    full = (1 << table.bits) - 1
    edge = st.integers(0, table.bits).flatmap(
        lambda at: st.sampled_from([full >> at, full ^ (full >> at), (1 << at) & full])
    )

    @given(st.lists(st.integers(0, full) | edge, min_size=4, max_size=4))
    @example([0, full, 1, full - 1])
    @example([int("10" * 150, 2) & full, int("01" * 150, 2) & full, full >> 1, 1 << (table.bits - 1)])
    @settings(max_examples=12)
    def check(payloads):
        strands = comes_back(table, NAMED[name], to_words(table, payloads))
        for payload, strand in zip(payloads, strands, strict=True):
            np.testing.assert_array_equal(kernels.write_strand(table, payload), strand)
            assert kernels.read_strand(table, strand) == (payload, True)

    check()


@pytest.mark.parametrize("length", [9, 40])
@pytest.mark.parametrize("name", CUSTOM)
def test_custom_sets(name, length):
    """Motifs, primers, a lopsided window and all rules at once; payloads that count up, and random ones."""
    table = tables.build(CUSTOM[name], length)
    count = min(1 << table.bits, 256)
    payloads = [n * ((1 << table.bits) - 1) // (count - 1) for n in range(count)]
    strands = comes_back(table, CUSTOM[name], to_words(table, payloads))
    assert len(np.unique(strands, axis=0)) == count
    for n in range(0, count, 50):
        np.testing.assert_array_equal(kernels.write_strand(table, payloads[n]), strands[n])


@pytest.mark.parametrize("name", NAMED)
def test_hostile_payloads(name, tables_of):
    table = tables_of(name, LENGTH)
    hostile = hostile_strands(table, 512)
    assert checker.check(hostile, NAMED[name]).violations == 0
    _write, read = roads(table)
    words, ok = read(hostile)
    assert np.asarray(ok).all()
    strands = comes_back(table, NAMED[name], np.asarray(words))
    # the likeliest path has the widest interval, which holds a payload whenever K is not wasteful by two bits
    model = kernels.strand_model(table)
    for n in (0, 1, 510, 511):
        previous = np.concatenate([[table.first_base], hostile[n][:-1]])
        low, width, places = kernels.interval(model, [int(x) for x in hostile[n] ^ previous])
        holds = ((low + width - 1) << table.bits >> places << places) >= low << table.bits
        assert np.array_equal(strands[n], hostile[n]) == holds


@pytest.mark.parametrize("name", ["strand", "wide"])
def test_unlawful_strands_are_not_read(name, tables_of):
    """ok agrees with the reference on written strands with one base substituted, and on random bases."""
    table = tables_of(name, LENGTH)
    write, read = roads(table)
    generator = np.random.default_rng(1)
    strands = np.array(write(random_words(table, 512)))
    where = generator.integers(0, LENGTH, 512)
    strands[np.arange(512), where] ^= generator.integers(1, 4, 512).astype(np.uint8)
    strands[400:] = generator.integers(0, 4, (112, LENGTH))
    words, ok = (np.asarray(a) for a in read(strands))
    lawful = np.array([checker.check(strands[n : n + 1], NAMED[name]).violations == 0 for n in range(512)])
    assert 0 < lawful.sum() < 512
    assert not (ok & ~lawful).any()
    for n in range(0, 512, 8):
        payload, reference_ok = kernels.read_strand(table, strands[n])
        assert ok[n] == reference_ok
        if ok[n]:
            assert kernels.words_to_int(words[n], table.bits) == payload


# ---- one result on every road --------------------------------------------------------------------


@pytest.fixture(scope="module")
def helix(tables_of):
    """(table, 1000 payloads, their strands)."""
    table = tables_of("helix", LENGTH)
    words = random_words(table, 1000)
    words[0] = 0
    words[1] = masked(np.full((1, words.shape[1]), 0xFFFFFFFF), table.bits)
    return table, words, np.asarray(roads(table)[0](words))


def test_1000_payloads_obey_and_return(helix):
    table, words, strands = helix
    np.testing.assert_array_equal(comes_back(table, NAMED["helix"], words), strands)


def test_batch_of_one(helix):
    table, words, strands = helix
    write, read = roads(table)
    for n in (0, 1, 999):
        np.testing.assert_array_equal(write(words[n : n + 1])[0], strands[n])
        np.testing.assert_array_equal(read(strands[n : n + 1])[0][0], words[n])


def test_shard_map_over_eight_devices(helix):
    table, words, strands = helix
    arrays, shape = coder.on_device(table)
    assert len(jax.devices()) == 8
    np.testing.assert_array_equal(parallel.spread(coder.write, shape=shape)(arrays, words), strands)
    back, ok = parallel.spread(coder.read, shape=shape)(arrays, strands)
    np.testing.assert_array_equal(back, words)
    assert np.asarray(ok).all()


def test_map_batches_of_any_length(helix):
    table, words, strands = helix
    arrays, shape = coder.on_device(table)
    np.testing.assert_array_equal(
        parallel.map_batches(coder.write, arrays, words[:77], batch=32, shape=shape), strands[:77]
    )


def test_pmap_twin(helix):
    table, words, strands = helix
    arrays, shape = coder.on_device(table)
    got = parallel.pmap_twin(coder.write, arrays, words.reshape(8, 125, -1), shape=shape)
    np.testing.assert_array_equal(np.asarray(got).reshape(1000, LENGTH), strands)
    back, ok = parallel.pmap_twin(coder.read, arrays, strands.reshape(8, 125, LENGTH), shape=shape)
    np.testing.assert_array_equal(np.asarray(back).reshape(1000, -1), words)
    assert np.asarray(ok).all()


def test_one_trace_serves_every_payload(tables_of):
    table = tables_of("goldman", LENGTH)
    arrays, shape = coder.on_device(table)
    chex.clear_trace_counter()
    write = jax.jit(chex.assert_max_traces(coder.write, n=1), static_argnames="shape")
    for seed in range(4):
        write(arrays, random_words(table, 8, seed), shape=shape)


@pytest.mark.parametrize(
    "words",
    [np.zeros((4, 7), np.uint32), np.zeros((4, 8), np.int32), np.zeros(8, np.uint32)],
    ids=["width", "type", "rank"],
)
def test_wrong_words_are_refused(words, tables_of):
    arrays, shape = coder.on_device(tables_of("goldman", LENGTH))
    with pytest.raises(TypeCheckError):
        coder.write(arrays, words, shape=shape)


@pytest.mark.parametrize("bases", [np.zeros((4, 149), np.uint8), np.zeros((4, 150), np.int32)], ids=["length", "type"])
def test_wrong_bases_are_refused(bases, tables_of):
    arrays, shape = coder.on_device(tables_of("goldman", LENGTH))
    with pytest.raises(TypeCheckError):
        coder.read(arrays, bases, shape=shape)


# ---- a million strands per set -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_million_strands(name, tables_of):
    """Random, all zero, all one, counting and hostile payloads: every strand obeys, every payload returns."""
    table = tables_of(name, LENGTH)
    arrays, shape = coder.on_device(table)
    write = functools.partial(parallel.map_batches, coder.write, arrays, batch=20_000, shape=shape)
    read = functools.partial(parallel.map_batches, coder.read, arrays, batch=20_000, shape=shape)
    counted = 0
    for part in range(MILLION // PART):
        words = random_words(table, PART, seed=part)
        if part == 0:
            words[:100] = 0
            words[100:200] = masked(np.full((100, words.shape[1]), 0xFFFFFFFF), table.bits)
        if part in (1, 2):  # counting up from 0 in the lowest bits, then in the highest
            words[:] = 0
            number = np.arange(PART, dtype=np.uint64)
            if part == 1:
                number <<= np.uint64(-table.bits % 32)
                words[:, -1], words[:, -2] = number & np.uint64(0xFFFFFFFF), number >> np.uint64(32)
            else:
                words[:, 0] = number << np.uint64(15)
        if part in (3, 4, 5):
            words = read(hostile_strands(table, PART, seed=part))[0]
        strands = write(words)
        report = checker.check(strands, NAMED[name])
        assert (report.strands, report.violations) == (PART, 0), report.findings
        back, ok = read(strands)
        assert ok.all()
        np.testing.assert_array_equal(back, words)
        counted += report.strands
    assert counted == MILLION
