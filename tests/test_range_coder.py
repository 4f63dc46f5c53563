"""The range coder against big integers, exact fractions, and itself on every road to the device."""

import functools
import itertools
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helix_jax import parallel, range_coder
from helix_jax.arithmetic import FIRST_BITS, TOTAL
from helix_jax.reference import kernels

STEPS = 24  # one padded length for all property tests: one compilation per alphabet
BITS = 100
READ_STEPS = 80


# ---- models: one table of edges per position, chosen among rows by the last symbol ---------------


def counts_to_edges(counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def host_model(edges):
    """edges int[rows, A + 1] -> model of reference.py; the row is the last symbol modulo the number of rows."""
    return 0, lambda row, i: edges[(row + i) % len(edges)], lambda row, i, symbol: (row + symbol) % len(edges)


def device_model(edges, zero):
    """The same for range_coder, with xs = arange(length)."""

    def cumulative(row, i):
        return edges[(row + i) % len(edges), 1:-1]

    def advance(row, i, symbol):
        return (row + symbol) % len(edges)

    return range_coder.Model(zero.astype(jnp.int32), cumulative, advance)


def write_one(edges, words, length):
    model = device_model(edges, words[0] & 0)
    return range_coder.bits_to_symbols(model, words, xs=np.arange(length), length=length)


def read_one(edges, symbols, bits):
    model = device_model(edges, symbols[0] * 0)
    return range_coder.symbols_to_bits(model, symbols, xs=np.arange(len(symbols)), bits=bits)


write_jit = jax.jit(write_one, static_argnames="length")
read_jit = jax.jit(read_one, static_argnames="bits")


def write_batch(edges, words, *, length=STEPS):
    return jax.vmap(lambda w: write_one(edges, w, length))(words)


def read_batch(edges, symbols, *, bits):
    return jax.vmap(lambda s: read_one(edges, s, bits))(symbols)


@st.composite
def tables_of_counts(draw, symbols, rows=3):
    """int64[rows, A + 1] edges: skewed counts, some of 0 and of 1, summing to TOTAL."""
    out = []
    for _ in range(rows):
        small = [draw(st.sampled_from([0, 0, 1, 1, 2, 77, 4096, 11000])) for _ in range(symbols - 1)]
        while sum(small) > TOTAL:
            small[small.index(max(small))] = 1
        at = draw(st.integers(0, symbols - 1))
        out.append(counts_to_edges([*small[:at], TOTAL - sum(small), *small[at:]]))
    return np.stack(out)


@st.composite
def payloads(draw, bits=BITS):
    """Any, all zeros, all ones, and runs of ones or zeros ending in the other, which provoke carries."""
    full = (1 << bits) - 1
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.integers(0, full))
    at = draw(st.integers(0, bits))
    ones, single = full >> at, (1 << at) & full
    return [0, full, ones, full ^ ones, single][kind] if kind < 3 else draw(st.sampled_from([full ^ ones, single]))


def longest_payload(edges, length):
    """A number of bits that surely fits: by the greatest factor of each row at each step."""
    worst = np.diff(edges, axis=1).max() / TOTAL + 2.0**-FIRST_BITS
    return int(np.floor(-length * np.log2(worst))) if worst < 1 else 0


def allowed_walk(edges, numbers):
    """A string that the model allows, steered by any numbers."""
    row, string = 0, []
    for i, number in enumerate(numbers):
        allowed = np.flatnonzero(np.diff(edges[(row + i) % len(edges)]))
        string.append(int(allowed[number % len(allowed)]))
        row += string[-1]
    return string


# ---- against big integers -------------------------------------------------------------------------


@pytest.mark.parametrize("symbols", [2, 3, 4, 5])
def test_symbols_equal_the_reference(symbols):
    @given(tables_of_counts(symbols), payloads(), st.integers(1, STEPS))
    @settings(max_examples=60)
    def check(edges, payload, length):
        words = kernels.int_to_words(payload, BITS)
        got = np.asarray(write_jit(jnp.asarray(edges, jnp.uint32), words, STEPS))
        # symbols do not depend on what follows, so one padded length serves all
        want = kernels.bits_to_symbols(host_model(edges), payload, BITS, length)
        assert got[:length].tolist() == want

    check()


@pytest.mark.parametrize(
    ("symbols", "bits"), [(2, 33), (3, 64), (5, 100), *((4, bits) for bits in (1, 16, 17, 31, 32, 33, 64, 100))]
)
def test_bits_equal_the_reference(symbols, bits):
    """Any string, whether it came from a payload or not: forbidden ones are seen, others give the same bits."""

    @given(tables_of_counts(symbols), st.integers(0, 2**64), st.booleans())
    @settings(max_examples=25)
    def check(edges, seed, lawful):
        string = np.random.default_rng(seed).integers(0, symbols, READ_STEPS)
        if lawful:
            string = allowed_walk(edges, string)
        words, ok = read_jit(jnp.asarray(edges, jnp.uint32), jnp.asarray(string, jnp.int32), bits)
        _, width, places = kernels.interval(host_model(edges), string)
        want, want_ok = kernels.symbols_to_bits(host_model(edges), string, bits)
        assert bool(ok) == want_ok
        assert want_ok >= lawful
        if want_ok and width << bits <= 1 << places:  # otherwise several payloads share the string
            assert kernels.words_to_int(np.asarray(words), bits) == want
            assert not int(words[-1]) & ((1 << (-bits % 32)) - 1)

    check()


@given(tables_of_counts(4), payloads(FIRST_BITS - 1), st.integers(8, STEPS))
@example(np.array([counts_to_edges([8192] * 4)] * 3), (1 << (FIRST_BITS - 1)) - 1, STEPS)
@settings(max_examples=60)
def test_reference_equals_exact_fractions(edges, payload, length):
    """reference.py itself against interval arithmetic on fractions, from the text of the module alone."""
    bits = FIRST_BITS - 1
    point = Fraction(payload, 1 << bits)
    low, width, unit, row, symbols = Fraction(0), 1 << 31, Fraction(1, 1 << 31), 0, []
    for i in range(length):
        cuts = [width * int(c) // TOTAL for c in edges[(row + i) % 3]]
        inside = [n for n in range(4) if low + cuts[n] * unit <= point < low + cuts[n + 1] * unit]
        assert len(inside) == 1
        low, width = low + cuts[inside[0]] * unit, cuts[inside[0] + 1] - cuts[inside[0]]
        while width < 1 << 31:
            width, unit = 2 * width, unit / 2
        symbols.append(inside[0])
        row = (row + inside[0]) % 3
    assert kernels.bits_to_symbols(host_model(edges), payload, bits, length) == symbols
    got_low, got_width, places = kernels.interval(host_model(edges), symbols)
    assert (Fraction(got_low, 1 << places), Fraction(got_width, 1 << places)) == (low, width * unit)


@pytest.mark.parametrize("symbols", [2, 3, 4, 5])
def test_round_trip_through_the_device(symbols):
    @given(tables_of_counts(symbols), st.data())
    @settings(max_examples=40)
    def check(edges, data):
        fits = min(longest_payload(edges, STEPS), 40)
        payload = data.draw(payloads(fits)) if fits else 0
        words = np.zeros(2, np.uint32)
        if fits:
            words[: -(-fits // 32)] = kernels.int_to_words(payload, fits)
        symbols = write_jit(jnp.asarray(edges, jnp.uint32), words, STEPS)
        back, ok = read_jit(jnp.asarray(edges, jnp.uint32), symbols, 40)
        assert ok
        # read as 40 bits, the payload is in the first `fits`
        if fits:
            assert kernels.words_to_int(np.asarray(back), 40) >> (40 - fits) == payload

    check()


# ---- tiling -----------------------------------------------------------------------------------------

SMALL = {
    "skewed": [[20000, 12000, 768], [1, 32766, 1], [10922, 10923, 10923]],
    "forbidding": [[0, 16384, 16384], [16384, 0, 16384], [16383, 16385, 0]],
    "binary": [[1, 32767], [32767, 1], [12345, 20423]],
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("length", [3, 7])
def test_intervals_tile_and_every_payload_returns(name, length):
    """All strings of one length, in order, cover [0, 1) without gap or overlap; so each payload has one string."""
    edges = np.stack([counts_to_edges(row) for row in SMALL[name]])
    model = host_model(edges)
    end, widest, strings = Fraction(0), Fraction(0), set()
    for string in itertools.product(range(edges.shape[1] - 1), repeat=length):
        low, width, places = kernels.interval(model, string)
        if width:
            assert Fraction(low, 1 << places) == end
            end += Fraction(width, 1 << places)
            widest = max(widest, Fraction(width, 1 << places))
            strings.add(string)
    assert end == 1
    bits = 0
    while Fraction(1, 2 << bits) >= widest:
        bits += 1
    if bits == 0:
        return
    words = np.stack([kernels.int_to_words(payload, bits) for payload in range(1 << bits)])
    table = jnp.asarray(edges, jnp.uint32)
    symbols = write_batch(table, words, length=length)
    written = [tuple(row) for row in np.asarray(symbols).tolist()]
    assert len(set(written)) == 1 << bits
    assert set(written) <= strings
    back, ok = read_batch(table, symbols, bits=bits)
    assert np.asarray(ok).all()
    np.testing.assert_array_equal(back, words)


@given(st.integers(1 << 31, (1 << 32) - 1), st.integers(0, TOTAL))
@example((1 << 32) - 1, TOTAL)
@example((1 << 32) - 1, TOTAL - 1)
def test_scale_is_exact(width, count):
    assert int(range_coder.scale(jnp.uint32(width), jnp.uint32(count))) == width * count // TOTAL


@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=5))
@settings(max_examples=20)
def test_windows_are_the_bits_from_every_16th_on(words):
    """Of 32 bits each, zeros past the end."""
    found = range_coder.windows(jnp.array(words, jnp.uint32))
    bits = "".join(f"{word:032b}" for word in words) + 64 * "0"
    assert (found.shape, found.dtype) == ((2 * len(words) + 1,), np.uint32)
    assert found.tolist() == [int(bits[16 * n : 16 * n + 32], 2) for n in range(2 * len(words) + 1)]


# ---- one result on every road --------------------------------------------------------------------

ROAD = np.stack([counts_to_edges(row) for row in ([9000, 1, 20000, 3767], [0, 16384, 1, 16383], [8192] * 4)])
ROAD_BITS = 64
ROAD_STEPS = 150


@pytest.fixture(scope="module")
def road():
    """Edges, 1000 payloads (uint32[1000, 2]) and their symbols from vmap under jit."""
    edges = jnp.asarray(ROAD, jnp.uint32)
    words = np.random.default_rng(0).integers(0, 1 << 32, (1000, 2), dtype=np.uint32)
    words[0], words[1] = 0, 0xFFFFFFFF
    return edges, words, np.asarray(jax.jit(functools.partial(write_batch, length=ROAD_STEPS))(edges, words))


def test_batch_equals_the_reference(road):
    _, words, symbols = road
    model = host_model(ROAD)
    for n in range(0, 1000, 25):
        payload = kernels.words_to_int(words[n], ROAD_BITS)
        assert kernels.bits_to_symbols(model, payload, ROAD_BITS, ROAD_STEPS) == symbols[n].tolist()


def test_batch_of_one_equals_batch_of_1000(road):
    edges, words, symbols = road
    call = jax.jit(functools.partial(write_batch, length=ROAD_STEPS))
    back = jax.jit(functools.partial(read_batch, bits=ROAD_BITS))
    everything = np.asarray(back(edges, symbols)[0])
    np.testing.assert_array_equal(everything, words)
    for n in (0, 1, 500, 999):
        np.testing.assert_array_equal(call(edges, words[n : n + 1])[0], symbols[n])
        np.testing.assert_array_equal(back(edges, symbols[n : n + 1])[0][0], words[n])


def test_in_parts_and_one_by_one(road):
    """Reading goes on where it stopped: after any number of symbols, and after each."""
    edges, words, symbols = road
    model = device_model(edges, jnp.uint32(0))

    @functools.partial(jax.jit, static_argnames="length")
    def part(decoder, words, places, length):
        return range_coder.read_on(model, decoder, words, xs=places, length=length)

    one = jax.jit(lambda decoder, windows, i: range_coder.read_one(model, decoder, windows, i))
    places = jnp.arange(ROAD_STEPS)
    for n in (0, 1, 7):
        decoder = range_coder.start(model.state, jnp.asarray(words[n]))
        first, found = part(decoder, words[n], places[:50], 50)
        second = part(first, words[n], places[50:], ROAD_STEPS - 50)[1]
        np.testing.assert_array_equal(np.concatenate([found, second]), symbols[n])
        windows, alone = range_coder.windows(jnp.asarray(words[n])), []
        for i in range(50):
            decoder, symbol = one(decoder, windows, i)
            alone.append(int(symbol))
        assert alone == symbols[n][:50].tolist()
        for left, right in zip(decoder, first, strict=True):
            assert int(left) == int(right)


def test_without_jit(road):
    edges, words, symbols = road
    with jax.disable_jit():
        np.testing.assert_array_equal(write_one(edges, jnp.asarray(words[7]), 5), symbols[7][:5])


def test_shard_map_over_eight_devices(road):
    edges, words, symbols = road
    assert len(jax.devices()) == 8
    np.testing.assert_array_equal(parallel.spread(write_batch, length=ROAD_STEPS)(edges, words), symbols)
    back, ok = parallel.spread(read_batch, bits=ROAD_BITS)(edges, symbols)
    np.testing.assert_array_equal(back, words)
    assert np.asarray(ok).all()


def test_pmap_twin(road):
    edges, words, symbols = road
    got = parallel.pmap_twin(write_batch, edges, words.reshape(8, 125, 2), length=ROAD_STEPS)
    np.testing.assert_array_equal(np.asarray(got).reshape(1000, ROAD_STEPS), symbols)
    back, ok = parallel.pmap_twin(read_batch, edges, symbols.reshape(8, 125, ROAD_STEPS), bits=ROAD_BITS)
    np.testing.assert_array_equal(np.asarray(back).reshape(1000, 2), words)
    assert np.asarray(ok).all()


def test_one_trace_serves_every_payload(road):
    edges, words, _ = road
    chex.clear_trace_counter()
    write = jax.jit(chex.assert_max_traces(write_batch, n=1), static_argnames="length")
    for begin in range(0, 40, 8):
        write(edges, words[begin : begin + 8], length=ROAD_STEPS)
