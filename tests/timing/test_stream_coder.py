"""Streams by the range coder: exact, lawful, at capacity, and bit-identical on every road."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from helix_jax import parallel
from helix_jax.arithmetic import REGISTER_BITS, TOTAL
from helix_jax.reference import kernels
from helix_jax.timing import stream_coder
from helix_jax.timing.graph import TALK, GraphError, TimeTable, ordinary_graph

CAPACITY = 1.815179438097  # TALK, bits per time unit
ALPHA = 0.8495642593  # TALK, rounds per time unit
STREAMS = 64  # one size for most tests: one compilation each way
EVEN = TimeTable.uniform((2, 4))  # period 2
EIGHT = TimeTable.uniform((1, 2, 3, 4, 5, 6, 7, 8))


@st.composite
def time_tables(draw, levels=3, longest=9):
    """Any time table of at most so many levels: missing transitions, reducible ones among them."""
    number = st.sets(st.integers(1, longest), max_size=draw(st.integers(1, levels)))
    rows = [[() if a == b else tuple(sorted(draw(number))) for a in range(4)] for b in range(4)]
    for b, row in enumerate(rows):
        if not any(row):
            row[b ^ draw(st.integers(1, 3))] = (draw(st.integers(1, longest)),)
    return TimeTable(tuple(tuple(row) for row in rows))


# ---- from the definition ------------------------------------------------------------------------------


def time_of(table, letters, levels, first=0):
    """Time units of a path, None if it is no path of G."""
    total, base = 0, first
    for letter, level in zip(np.asarray(letters).tolist(), np.asarray(levels).tolist(), strict=True):
        if letter > 3 or level >= len(table.times[base][letter]):
            return None
        total, base = total + table.times[base][letter][level], letter
    return total


def edges_in_order(table, base):
    """(symbol, base written, level, time) of every edge that leaves a base."""
    return [
        ((d - 1) * table.levels + level, base ^ d, level, time)
        for d in (1, 2, 3)
        for level, time in enumerate(table.times[base][base ^ d])
    ]


def unpacked(row, symbols):
    """A row of packed counts -> cumulative counts 0..TOTAL."""
    inner = [int(half) for word in row for half in (word & 0xFFFF, word >> 16)]
    return [0, *inner[: symbols - 1], TOTAL]


def stream_model(stream):
    """Model for reference.py over the last base, from the docstring of Stream."""
    return (
        stream.first_base,
        lambda base, _: unpacked(stream.rows[base], 3 * stream.levels),
        lambda base, _, symbol: base ^ (symbol // stream.levels + 1),
    )


def to_path(symbols, count, first=0):
    """Symbols -> (letters, levels) as uint8 arrays."""
    letters = first ^ np.bitwise_xor.accumulate(np.array(symbols) // count + 1)
    return letters.astype(np.uint8), (np.array(symbols) % count).astype(np.uint8)


def holds(model, symbols, payload, bits):
    """Whether the interval of a path holds the payload: if not, the path is never written for it."""
    low, width, places = kernels.interval(model, symbols)
    return low << bits <= payload << places < (low + width) << bits


def random_words(bits, count, seed=0):
    """uint32[count, ceil(bits / 32)] of random payloads; the first two are all zeros and all ones."""
    words = np.random.default_rng(seed).integers(0, 1 << 32, (count, -(-bits // 32)), dtype=np.uint32)
    words[0] = 0
    words[1:2] = 0xFFFFFFFF
    words[:, -1] &= np.uint32((0xFFFFFFFF << (-bits % 32)) & 0xFFFFFFFF)
    return words


# ---- coding ------------------------------------------------------------------------------------------


@functools.cache
def roads(stream, bits, spread):
    """(shape, encode, decode) of a stream for payloads of ``bits`` bits, jitted; spread: over all eight devices."""
    rows, shape = stream_coder.stream_on_device(stream, bits)
    road = parallel.spread if spread else lambda function, shape: jax.jit(functools.partial(function, shape=shape))
    calls = [road(function, shape=shape) for function in (stream_coder.encode_stream, stream_coder.decode_stream)]
    return shape, *(functools.partial(call, rows) for call in calls)


def comes_back(table, stream, bits, words, spread=False):
    """Encode, check by the definition, decode: (letters, levels, rounds, time units of each path)."""
    shape, encode, decode = roads(stream, bits, spread)
    letters, levels, rounds = (np.asarray(a) for a in encode(words))
    assert letters.shape == levels.shape == (len(words), shape.rounds)
    times = []
    for path, level, n in zip(letters, levels, rounds, strict=True):
        assert not path[n:].any()
        assert not level[n:].any()
        times.append(time_of(table, path[:n], level[:n], stream.first_base))
    assert all(times)
    # what lies past the rounds is not looked at
    past = np.arange(shape.rounds) >= rounds[:, None]
    back, ok = decode(np.where(past, 7, letters).astype(np.uint8), np.where(past, 9, levels).astype(np.uint8), rounds)
    assert np.asarray(ok).all()
    np.testing.assert_array_equal(back, words)
    return letters, levels, rounds, np.array(times)


build = functools.cache(stream_coder.build_stream)  # a stream built twice would be compiled twice


@pytest.fixture(scope="module")
def talk_stream():
    return build(TALK, 0)


def test_stream_is_the_max_entropic_chain(talk_stream):
    """The probabilities of timing.md 1.1, which are shares of the joint of base and edge (pi times p)."""
    assert talk_stream.digest.hex()[:16] == "42397571de478793"
    pi = [0.212587, 0.224636, 0.211959, 0.200382]
    golden = {
        "AC": (0.2967, 0.0843), "AG": (0.2959, 0.0239), "AT": (0.2769, 0.0224), "CA": (0.2722, 0.0773),
        "CG": (0.2834, 0.0805), "CT": (0.2652, 0.0214), "GA": (0.2729, 0.0776), "GC": (0.2850, 0.0230),
        "GT": (0.2659, 0.0756), "TA": (0.2916, 0.0067), "TC": (0.3045, 0.0865), "TG": (0.3036, 0.0070),
    }  # fmt: skip
    chain = np.zeros((4, 4))
    for b in range(4):
        counts = np.diff(unpacked(talk_stream.rows[b], 6))
        assert counts.sum() == TOTAL
        for symbol, a, level, _ in edges_in_order(TALK, b):
            share = counts[symbol] / TOTAL
            assert share == pytest.approx(golden["ACGT"[b] + "ACGT"[a]][level], abs=1.2e-4)
            chain[b, a] += share
    stationary = np.linalg.matrix_power(chain, 200)[0] * ALPHA
    np.testing.assert_allclose(stationary, pi, atol=2e-4)


@given(time_tables())
@settings(max_examples=40)
def test_stream_weights_of_any_table(table):
    """Root and right vector against the eigenvalues of the ordinary graph; the counts follow them within one."""
    graph = ordinary_graph(table)
    if graph.components().max() or max(np.abs(np.linalg.eigvals(graph.adjacency.astype(float)))) < 1.0001:
        with pytest.raises(GraphError, match=r"reducible|carry no bit"):
            stream_coder.build_stream(table)
        return
    stream = stream_coder.build_stream(table)
    values, vectors = np.linalg.eig(graph.adjacency.astype(float))
    leading = np.argmax(values.real)
    right = vectors[:4, leading].real / vectors[0, leading].real
    for b in range(4):
        counts = np.diff(unpacked(stream.rows[b], 3 * table.levels))
        share = np.zeros(3 * table.levels)
        for symbol, a, _, time in edges_in_order(table, b):
            share[symbol] = values[leading].real ** -time * right[a] / right[b]
        assert share.sum() == pytest.approx(1, abs=1e-6)
        assert (np.abs(counts - TOTAL * share) <= 3 * table.levels).all()


def equals_the_reference(stream, bits, word, letters, levels, rounds):
    """The symbols of the reference, up to where the interval is below 2^-K wide; at most a bit past."""
    model = stream_model(stream)
    payload = kernels.words_to_int(word, bits)
    symbols = kernels.bits_to_symbols(model, payload, bits, int(rounds))
    for got, want in zip((letters, levels), to_path(symbols, stream.levels, stream.first_base), strict=True):
        np.testing.assert_array_equal(got[:rounds], want)
    _, _, places = kernels.interval(model, symbols)
    _, _, before = kernels.interval(model, symbols[:-1])
    assert before < bits + REGISTER_BITS <= places
    assert kernels.symbols_to_bits(model, symbols, bits) == (payload, True)


@pytest.mark.parametrize(
    ("table", "first", "bits"),
    [(TALK, 0, 930), (EVEN, 3, 1), pytest.param(EIGHT, 3, 100, marks=pytest.mark.slow)],
    ids=["talk", "even", "eight"],
)
def test_stream_ends_as_soon_as_the_payload_is_whole(table, first, bits):
    stream = build(table, first)
    words = random_words(bits, STREAMS)
    letters, levels, rounds, _ = comes_back(table, stream, bits, words)
    for n in range(0, STREAMS, 8 if bits == 930 else 4):
        equals_the_reference(stream, bits, words[n], letters[n], levels[n], rounds[n])


def test_stream_of_one_strand(talk_stream):
    """K near 512 time units: what the end of a stream costs."""
    bits = 930
    *_, times = comes_back(TALK, talk_stream, bits, random_words(bits, STREAMS))
    assert 0.998 * CAPACITY < bits / times.mean() < CAPACITY


def test_long_streams_reach_capacity_on_all_devices(talk_stream):
    """At least 99.99 % of it at K = 65536 bits."""
    assert len(jax.devices()) == 8
    bits = 1 << 16
    words = random_words(bits, 10)[2:]
    shape, *_ = roads(talk_stream, bits, True)
    letters, levels, rounds, times = comes_back(TALK, talk_stream, bits, words, spread=True)
    assert 0.9999 * CAPACITY < bits / times.mean() <= CAPACITY
    assert abs(rounds.mean() / times.mean() - ALPHA) < 0.004
    assert rounds.max() <= shape.rounds < 1.25 * rounds.mean()
    equals_the_reference(talk_stream, bits, words[5], letters[5], levels[5], rounds[5])


def test_longest_streams_fit(talk_stream):
    """Payloads along the likeliest edges, which need the most rounds."""
    bits = 930
    model, symbols, state = stream_model(talk_stream), [], 0
    while kernels.interval(model, symbols)[2] < bits + REGISTER_BITS:
        symbols.append(int(np.argmax(np.diff(model[1](state, 0)))))
        state = model[2](state, 0, symbols[-1])
    payload, ok = kernels.symbols_to_bits(model, symbols, bits)
    assert ok
    words = np.tile(kernels.int_to_words(payload, bits), (STREAMS, 1))
    *_, rounds, _ = comes_back(TALK, talk_stream, bits, words)
    assert rounds[0] == len(symbols) > 1.05 * bits / CAPACITY * ALPHA
    assert rounds[0] <= talk_stream.longest(bits)


def test_corrupted_streams(talk_stream):
    """A round more or fewer and edges that do not exist are seen; whatever is read, the reference reads too."""
    bits = 930
    words = random_words(bits, STREAMS)
    shape, encode, decode = roads(talk_stream, bits, False)
    letters, levels, rounds = (np.array(a) for a in encode(words))
    for wrong in (rounds - 1, rounds + 1, 0 * rounds, -rounds, 0 * rounds + shape.rounds, rounds + (2**31 - 2000)):
        assert not np.asarray(decode(letters, levels, wrong)[1]).any()
    generator = np.random.default_rng(4)
    rows, where = np.arange(STREAMS), generator.integers(rounds - 20, rounds)
    levels[rows[::2], where[::2]] ^= 1
    letters[rows[1::2], where[1::2]] ^= generator.integers(1, 4, STREAMS // 2).astype(np.uint8)
    back, ok = (np.asarray(a) for a in decode(letters, levels, rounds))
    assert 0 < ok.sum() < STREAMS
    model = stream_model(talk_stream)
    for n in np.flatnonzero(ok):
        path = letters[n][: rounds[n]]
        assert time_of(TALK, path, levels[n][: rounds[n]])
        symbols = (((path ^ np.append(0, path[:-1])) - 1) * 2 + levels[n][: rounds[n]]).tolist()
        payload, lawful = kernels.symbols_to_bits(model, symbols, bits)
        assert lawful
        assert kernels.words_to_int(back[n], bits) == payload
        assert not np.array_equal(back[n], words[n]) or not holds(model, symbols, payload, bits)
    letters[:], levels[:, 0] = 2, 5
    assert not np.asarray(decode(letters, levels, rounds)[1]).any()


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: stream_coder.build_stream(TALK, 9), "first base 9"),
        (lambda: stream_coder.build_stream(TimeTable.parse("A->C{1} C->A{1,2} G->T{1} T->A{1}")), "reducible"),
        (lambda: stream_coder.build_stream(TimeTable.parse("A->C{1} C->G{2} G->T{1} T->A{1}")), "carry no bit"),
    ],
)
def test_impossible_demands_are_refused(build, message):
    with pytest.raises(GraphError, match=message):
        build()


@pytest.mark.parametrize(
    "words",
    [np.zeros((4, 29), np.uint32), np.zeros((4, 30), np.int32), np.zeros(30, np.uint32)],
    ids=["width", "type", "rank"],
)
def test_wrong_words_are_refused(words, talk_stream):
    rows, shape = stream_coder.stream_on_device(talk_stream, 930)
    with pytest.raises(TypeCheckError):
        stream_coder.encode_stream(rows, words, shape=shape)
