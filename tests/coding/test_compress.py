"""``range_coder.compress``: symbols -> the fewest bits, and back; lanes side by side; decoding in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import range_coder
from helix_jax.arithmetic import TOTAL
from helix_jax.reference import kernels

LANES, STEPS, ROOM = 8, 48, 1024  # 48 symbols take at most 15 bits each
ROWS = 3


def random_edges(generator, symbols, least=1):
    """int64[ROWS, A + 1] cumulative counts, from even to very skewed, each at least ``least``."""
    weights = generator.dirichlet(np.full(symbols, 10.0 ** generator.uniform(-1.5, 1)), ROWS)
    counts = least + (weights * (TOTAL - least * symbols)).astype(np.int64)
    counts[:, generator.integers(symbols)] += TOTAL - counts.sum(axis=1)
    return np.concatenate([np.zeros((ROWS, 1), np.int64), np.cumsum(counts, axis=1)], axis=1)


def device_model(edges, zero):
    """The row of edges is the sum of all symbols so far. xs: whether the symbol is there; else it has all of TOTAL."""

    def cumulative(state, there):
        return jnp.where(there, edges[state % ROWS, 1:-1], TOTAL)

    return range_coder.Model(zero.astype(jnp.int32), cumulative, lambda state, there, symbol: state + symbol)


def host_model(edges):
    return 0, lambda state, i: edges[state % ROWS], lambda state, i, symbol: state + symbol


def compress_one(edges, symbols, there, most):
    return range_coder.compress(device_model(edges, symbols[0] * 0), symbols, xs=there, most=most)


def expand_one(edges, words, there):
    model = device_model(edges, words[0] & 0)
    return range_coder.bits_to_symbols(model, words, xs=there, length=len(there))


@functools.partial(jax.jit, static_argnames="most")
def compress(edges, symbols, there, most=ROOM):
    return jax.vmap(functools.partial(compress_one, most=most))(edges, symbols, there)


expand = jax.jit(jax.vmap(expand_one))


def lanes(seed, symbols, least=1):
    """Edges of every lane, symbols drawn evenly or by the model's own odds, and how many of them are there."""
    generator = np.random.default_rng(seed)
    edges = np.stack([random_edges(generator, symbols, least) for _ in range(LANES)])
    drawn = generator.integers(0, symbols, (LANES, STEPS))
    for lane in range(0, LANES, 2):
        state = 0
        for i in range(STEPS):
            drawn[lane, i] = np.searchsorted(edges[lane, state % ROWS], generator.integers(TOTAL), side="right") - 1
            state += drawn[lane, i]
    lengths = generator.integers(0, STEPS + 1, LANES)
    lengths[:2] = 0, STEPS
    there = np.arange(STEPS) < lengths[:, None]
    return edges, np.where(there, drawn, 0).astype(np.int32), there


def on_device(edges):
    return jnp.asarray(edges, jnp.uint32)


def spent(edges, symbols):
    """-log2 of the probability of these symbols."""
    state, bits = 0, 0.0
    for symbol in symbols:
        row = edges[state % ROWS]
        bits -= np.log2((row[symbol + 1] - row[symbol]) / TOTAL)
        state += int(symbol)
    return bits


@pytest.mark.parametrize("symbols", [2, 4])
def test_round_trip_at_the_price_of_the_model(symbols):
    @given(st.integers(0, 2**32))
    @settings(max_examples=40)
    def check(seed):
        edges, string, there = lanes(seed, symbols)
        words, bits, ok = map(np.asarray, compress(on_device(edges), string, there))
        assert ok.all()
        np.testing.assert_array_equal(expand(on_device(edges), words, there), string)
        for lane, length in enumerate(there.sum(axis=1)):
            _, width, places = kernels.interval(host_model(edges[lane]), string[lane, :length])
            exact = places - np.log2(float(width))
            assert exact - 1e-6 <= bits[lane] <= exact + 1  # the fewest, to within one
            assert abs(bits[lane] - spent(edges[lane], string[lane, :length])) < 2
            payload = kernels.words_to_int(words[lane], ROOM)
            assert not payload & ((1 << (ROOM - int(bits[lane]))) - 1)  # zeros after the last bit

    check()


def test_lanes_of_different_lengths_are_what_each_is_alone():
    """What is not there costs nothing, and changes nothing."""
    edges, string, there = lanes(7, 4)
    words, bits, _ = map(np.asarray, compress(on_device(edges), string, there))
    assert bits[0] == 0  # nothing to say
    assert not words[0].any()
    alone = jax.jit(compress_one, static_argnames="most")
    for lane in (1, 2):
        length = int(there[lane].sum())
        some, count, ok = alone(on_device(edges[lane]), string[lane, :length], there[lane, :length], ROOM)
        assert (int(count), bool(ok)) == (bits[lane], True)
        np.testing.assert_array_equal(some, words[lane])


@pytest.mark.parametrize("most", [1, 31, 32, 33, 64, 95])
def test_room_too_small_is_told(most):
    edges, string, there = lanes(11, 4)
    there[:, 32:] = False
    string[:, 32:] = 0
    words, bits, _ = map(np.asarray, compress(on_device(edges), string, there))
    found = [np.asarray(a) for a in compress(on_device(edges), string, there, most)]
    fits = bits <= most
    assert {True, False} == set(fits.tolist())
    np.testing.assert_array_equal(found[1], bits)
    np.testing.assert_array_equal(found[2], fits)
    assert found[0].shape == (LANES, -(-most // 32))
    np.testing.assert_array_equal(found[0][fits], words[fits, : -(-most // 32)])


def test_room_to_the_bit():
    """Every number of bits around the end of a word."""
    generator = np.random.default_rng(3)
    edges, there = random_edges(generator, 4), np.ones(STEPS, bool)
    alone = jax.jit(compress_one, static_argnames="most")
    seen = set()
    for _ in range(40):
        string = generator.integers(0, 4, STEPS).astype(np.int32)
        bits = int(alone(on_device(edges), string, there, ROOM)[1])
        if bits % 32 in (0, 1, 31) and bits % 32 not in seen:
            seen.add(bits % 32)
            assert bool(alone(on_device(edges), string, there, bits)[2])
            assert not bool(alone(on_device(edges), string, there, bits - 1)[2])
    assert seen


def test_forbidden_symbols_are_told():
    edges = np.array([[0, 16384, 16384, 20000, TOTAL]] * ROWS)
    string = np.zeros((1, STEPS), np.int32)
    there = np.ones((1, STEPS), bool)
    assert compress(on_device(edges)[None], string, there)[2]
    string[0, -1] = 1
    assert not compress(on_device(edges)[None], string, there)[2]


@pytest.mark.parametrize("cut", [0, 1, 23, STEPS])
def test_decoding_goes_on_where_it_stood(cut):
    edges, string, _ = lanes(5, 4)
    there = np.ones_like(string, bool)
    string = np.random.default_rng(5).integers(0, 4, string.shape).astype(np.int32)
    words = compress(on_device(edges), string, there)[0]

    def halves(edges, words, there):
        model = device_model(edges, words[0] & 0)
        decoder = range_coder.start(model.state, words)
        decoder, first = range_coder.read_on(model, decoder, words, xs=there[:cut])
        unused = model._replace(state=model.state + 1)  # the decoder carries its own
        _, second = range_coder.read_on(unused, decoder, words, xs=there[cut:])
        return jnp.concatenate([first, second])

    np.testing.assert_array_equal(jax.jit(jax.vmap(halves))(on_device(edges), words, there), string)


def test_long_streams():
    """Far more bits than a segment has, at both ends of the price."""
    generator = np.random.default_rng(9)
    for counts in ([1, 1, 1, TOTAL - 3], [8192] * 4):
        edges = np.array([[0, *np.cumsum(counts)]] * ROWS)
        string = generator.integers(0, 4, 20_000).astype(np.int32)
        there = np.ones(len(string), bool)
        words, bits, ok = jax.jit(compress_one, static_argnames="most")(on_device(edges), string, there, 1 << 19)
        assert ok
        assert abs(int(bits) - spent(edges, string)) < 2
        np.testing.assert_array_equal(jax.jit(expand_one)(on_device(edges), words, there), string)
