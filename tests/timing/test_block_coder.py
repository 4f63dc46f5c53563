"""Blocks by the range coder: exact, lawful, close to the number of paths, and bit-identical on every road."""

import functools
import math
from fractions import Fraction

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from helix_jax import parallel
from helix_jax.arithmetic import TOTAL
from helix_jax.reference import kernels
from helix_jax.timing import block_coder
from helix_jax.timing.graph import TALK, GraphError, TimeTable

CAPACITY = 1.815179438097  # TALK, bits per time unit
ALPHA = 0.8495642593  # TALK, rounds per time unit

# rounds, K and the first 16 hex digits of the hash: a difference here means that old strands cannot be read
GOLDEN = {
    64: (55, 113, "857275e593070bc2"),
    512: (435, 924, "df5f3225d0eca2be"),
    1024: (870, 1853, "4da56c97a9bc4770"),
}

BATCH = 400  # one size for most tests: one compilation each way

TABLES = {
    "one level": TimeTable.uniform((1,)),
    "even": TimeTable.uniform((2, 4)),  # period 2
    "sides": TimeTable.parse("A->G{1,2} A->T{3} C->G{2} C->T{1,4} G->A{1,2} G->C{3} T->A{1} T->C{2,5}"),
    "bare": TimeTable.parse("A->C{1,2} C->G{2} G->T{1,3} T->A{5}"),
    "long": TimeTable.parse("A->C{1,40} A->G{2} C->A{1,2,3} G->A{7} G->T{1} T->G{1,2} T->C{3,19}"),
    "eight": TimeTable.uniform((1, 2, 3, 4, 5, 6, 7, 8)),
}


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


def path_counts(table, rounds, duration):
    """Exact numbers of paths (Python ints): counts[n][t][b] for n rounds that take t time units from base b."""
    counts = [np.zeros((duration + 1, 4), object)]
    counts[0][0] = 1
    for _ in range(rounds):
        row = np.zeros((duration + 1, 4), object)
        for b, a, _, time in table.edges().tolist():
            if time <= duration:
                row[time:, b] += counts[-1][: duration + 1 - time, a]
        counts.append(row)
    return counts


def log2(number):
    """log2 of a Python int of any size."""
    shift = max(number.bit_length() - 60, 0)
    return math.log2(number >> shift) + shift


def every_path(table, rounds, duration, base=0):
    """All paths, as tuples of symbols, in the coder's order."""
    if rounds == 0:
        return [()] if duration == 0 else []
    return [
        (symbol, *rest)
        for symbol, a, _, time in edges_in_order(table, base)
        if time <= duration
        for rest in every_path(table, rounds - 1, duration - time, a)
    ]


def unpacked(row, symbols):
    """A row of packed counts -> cumulative counts 0..TOTAL."""
    inner = [int(half) for word in row for half in (word & 0xFFFF, word >> 16)]
    return [0, *inner[: symbols - 1], TOTAL]


def block_model(table, block):
    """Model for reference.py over (rounds done, time left, base), from the docstring of Block."""
    shortest = min(t for row in table.times for times in row for t in times)
    symbols = 3 * block.levels

    def edges(state, _):
        done, left, base = state
        excess = left - (block.rounds - done) * shortest
        return unpacked(block.rows[(done * block.width + excess) * 4 + base], symbols)

    def advance(state, _, symbol):
        done, left, base = state
        times = table.times[base][base ^ (symbol // block.levels + 1)]
        level = symbol % block.levels
        return done + 1, left - (times[level] if level < len(times) else 0), base ^ (symbol // block.levels + 1)

    return (0, block.duration, block.first_base), edges, advance


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


@functools.cache
def block_roads(block):
    """(encode, decode) of a block, jitted."""
    arrays, shape = block_coder.block_on_device(block)
    encode = jax.jit(functools.partial(block_coder.encode_block, shape=shape))
    decode = jax.jit(functools.partial(block_coder.decode_block, shape=shape))
    return functools.partial(encode, arrays), functools.partial(decode, arrays)


def block_comes_back(table, block, words, roads=block_roads):
    """Encode, check by the definition, decode: (letters, levels)."""
    encode, decode = roads(block)
    letters, levels = (np.asarray(a) for a in encode(words))
    assert letters.dtype == levels.dtype == np.uint8
    assert letters.shape == levels.shape == (len(words), block.rounds)
    for path in zip(letters, levels, strict=True):
        assert time_of(table, *path, block.first_base) == block.duration
    back, ok = decode(letters, levels)
    assert np.asarray(ok).all()
    np.testing.assert_array_equal(back, words)
    return letters, levels


# ---- blocks: how many bits, and the proof ---------------------------------------------------------------


@pytest.fixture(scope="module")
def talk_block():
    """block(duration): of TALK with the best number of rounds."""
    return functools.cache(
        lambda duration: block_coder.build_block(TALK, block_coder.best_rounds(TALK, duration), duration)
    )


@pytest.mark.parametrize("duration", GOLDEN)
def test_golden_blocks(duration, talk_block):
    block = talk_block(duration)
    assert (block.rounds, block.bits, block.digest.hex()[:16]) == GOLDEN[duration]
    assert abs(block.rounds - ALPHA * duration) < 1
    assert block.rows.nbytes < 8e6


@pytest.mark.parametrize("duration", [64, 512])
def test_bits_against_the_number_of_paths(duration, talk_block):
    """K is proven, never above log2 of the number of paths, and close to it; best_rounds has the most paths."""
    block = talk_block(duration)
    counts = path_counts(TALK, block.rounds + 2, duration)
    paths = {n: counts[n][duration][0] for n in range(block.rounds - 2, block.rounds + 3)}
    assert max(paths, key=paths.get) == block.rounds
    limit = log2(paths[block.rounds])
    assert block.bits <= limit < block.bits + 1.5
    # what fixing the number of rounds costs beside fixing the time alone (timing.md: variance 0.129 T)
    assert abs(duration * CAPACITY - limit - math.log2(math.sqrt(2 * math.pi * 0.129 * duration))) < 0.5


@given(time_tables(), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=25)
def test_best_rounds_has_the_most_paths(table, duration, first):
    counts = path_counts(table, duration, duration)
    paths = [counts[n][duration][first] for n in range(duration + 1)]
    if max(paths) == 0:
        with pytest.raises(GraphError, match="no path"):
            block_coder.best_rounds(table, duration, first)
    else:
        assert block_coder.best_rounds(table, duration, first) == paths.index(max(paths))


SMALL = [
    ("talk", 6, 8), ("talk", 5, 5), ("talk", 4, 13), ("one level", 6, 6), ("even", 4, 12), ("sides", 6, 12),
    ("bare", 8, 21), ("long", 6, 48), ("eight", 4, 13),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rounds", "duration"), SMALL)
def test_bound_against_every_path(name, rounds, duration):
    """The intervals of all paths tile [0, 1); none is wider than 2^-K, and one is about as wide as K + 1 bits allow."""
    table = TALK if name == "talk" else TABLES[name]
    block = block_coder.build_block(table, rounds, duration)
    model = block_model(table, block)
    end, widest, paths = Fraction(0), Fraction(0), every_path(table, rounds, duration)
    assert len(paths) == path_counts(table, rounds, duration)[rounds][duration][0]
    for path in paths:
        low, width, places = kernels.interval(model, path)
        if width:
            assert Fraction(low, 1 << places) == end
            end += Fraction(width, 1 << places)
            widest = max(widest, Fraction(width, 1 << places))
    assert end == 1
    assert widest <= Fraction(1, 1 << block.bits)
    assert widest * (1 + Fraction(1, 10**6)) > Fraction(1, 2 << block.bits)
    assert 2**block.bits <= len(paths) < 2 ** (block.bits + 1.01)
    every = range(min(1 << block.bits, 600))
    written = [tuple(kernels.bits_to_symbols(model, n, block.bits, rounds)) for n in every]
    assert set(written) <= set(paths)
    assert [kernels.symbols_to_bits(model, path, block.bits) for path in written] == [(n, True) for n in every]


@given(time_tables(levels=4), st.integers(1, 12), st.integers(0, 60), st.integers(0, 3), st.integers(0, 2**64))
@settings(max_examples=60)
def test_any_block_by_the_reference(table, rounds, excess, first, seed):
    """Any table: K within 1.5 bits of the number of paths, payloads to lawful paths and back, by the reference."""
    shortest = min(t for row in table.times for times in row for t in times)
    duration = rounds * shortest + excess
    paths = path_counts(table, rounds, duration)[rounds][duration][first]
    if paths < 3:  # two paths are proven to carry not quite one bit
        with pytest.raises(GraphError, match=r"no paths|carry no bit"):
            block_coder.build_block(table, rounds, duration, first)
        return
    block = block_coder.build_block(table, rounds, duration, first)
    assert block.bits <= log2(paths) < block.bits + 1.5
    payload = seed % (1 << block.bits)
    model = block_model(table, block)
    for number in (0, payload, (1 << block.bits) - 1):
        symbols = kernels.bits_to_symbols(model, number, block.bits, rounds)
        assert time_of(table, *to_path(symbols, block.levels, first), first) == duration
        assert kernels.symbols_to_bits(model, symbols, block.bits) == (number, True)


# ---- blocks: round trips ---------------------------------------------------------------------------------


def all_devices(block):
    """(encode, decode) of a block, spread over all devices."""
    assert len(jax.devices()) == 8
    arrays, shape = block_coder.block_on_device(block)
    functions = block_coder.encode_block, block_coder.decode_block
    return [functools.partial(parallel.spread(function, shape=shape), arrays) for function in functions]


@pytest.mark.parametrize(("duration", "roads", "count"), [(64, block_roads, BATCH), (512, all_devices, 64)])
def test_block_equals_the_reference(duration, roads, count, talk_block):
    block = talk_block(duration)
    words = random_words(block.bits, count)
    letters, levels = block_comes_back(TALK, block, words, roads)
    model = block_model(TALK, block)
    for n in range(0, count, 5 if duration == 64 else 8):
        payload = kernels.words_to_int(words[n], block.bits)
        symbols = kernels.bits_to_symbols(model, payload, block.bits, block.rounds)
        for got, want in zip((letters[n], levels[n]), to_path(symbols, block.levels), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("name", "first"), [("one level", 0), pytest.param("sides", 2, marks=pytest.mark.slow), ("long", 1), ("eight", 3)]
)
def test_any_table_comes_back(name, first):
    table = TABLES[name]
    duration = 60
    block = block_coder.build_block(table, block_coder.best_rounds(table, duration, first), duration, first)
    paths = path_counts(table, block.rounds, duration)[block.rounds][duration][first]
    assert block.bits <= log2(paths) < block.bits + 1.5
    block_comes_back(table, block, random_words(block.bits, 200))


def test_hostile_block_payloads(talk_block):
    """Along the likeliest edges (where K is tight) and the least likely ones, with random deviations."""
    block = talk_block(64)
    model, generator = block_model(TALK, block), np.random.default_rng(1)
    payloads = []
    for n in range(BATCH // 2):
        state, symbols = model[0], []
        for i in range(block.rounds):
            counts = np.diff(model[1](state, i))
            liking = np.where(counts > 0, counts if n % 2 else -counts, -np.inf)
            if generator.random() < n / BATCH:
                liking = np.where(counts > 0, generator.random(len(counts)), -np.inf)
            symbols.append(int(np.argmax(liking)))
            state = model[2](state, i, symbols[-1])
        payload, ok = kernels.symbols_to_bits(model, symbols, block.bits)
        assert ok
        payloads += [payload, min(payload + 1, (1 << block.bits) - 1)]
    block_comes_back(TALK, block, np.stack([kernels.int_to_words(p, block.bits) for p in payloads]))


def test_corrupted_blocks_are_not_taken_for_others(talk_block):
    """ok only for paths of G of the right time; then the reference reads the same, and not what was written."""
    block = talk_block(64)
    encode, decode = block_roads(block)
    generator = np.random.default_rng(2)
    words = random_words(block.bits, BATCH)
    letters, levels = (np.array(a) for a in encode(words))
    rows, where = np.arange(150), generator.integers(0, block.rounds, 150)
    levels[rows, where] ^= 1
    letters[rows + 150, where] ^= generator.integers(1, 4, 150).astype(np.uint8)
    letters[300:340] = generator.integers(0, 256, letters[300:340].shape)
    levels[340:370] = generator.integers(0, 256, levels[340:370].shape)
    letters[370:, :-1] = letters[370:, 1:]
    back, ok = (np.asarray(a) for a in decode(letters, levels))
    assert 0 < ok.sum() < 200
    model = block_model(TALK, block)
    for n in range(BATCH):
        lawful = time_of(TALK, letters[n], levels[n]) == block.duration
        assert lawful or not ok[n]
        if lawful:
            symbols = ((letters[n] ^ np.append(0, letters[n][:-1])) - 1) * 2 + levels[n]
            payload, want = kernels.symbols_to_bits(model, symbols.tolist(), block.bits)
            assert ok[n] == want
            if ok[n]:
                assert kernels.words_to_int(back[n], block.bits) == payload
                assert not np.array_equal(back[n], words[n]) or not holds(model, symbols, payload, block.bits)


# ---- one result on every road ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def road(talk_block):
    """(block, payloads, letters, levels)."""
    block = talk_block(64)
    words = random_words(block.bits, BATCH, seed=3)
    return block, words, *(np.asarray(a) for a in block_roads(block)[0](words))


def test_batch_of_one(road):
    """One trace serves every payload."""
    block, words, letters, levels = road
    arrays, shape = block_coder.block_on_device(block)
    chex.clear_trace_counter()
    functions = block_coder.encode_block, block_coder.decode_block
    encode, decode = (jax.jit(chex.assert_max_traces(f, n=1), static_argnames="shape") for f in functions)
    for n in (0, 1, BATCH - 1):
        got = encode(arrays, words[n : n + 1], shape=shape)
        np.testing.assert_array_equal(got[0][0], letters[n])
        np.testing.assert_array_equal(got[1][0], levels[n])
        back, ok = decode(arrays, letters[n : n + 1], levels[n : n + 1], shape=shape)
        assert ok[0]
        np.testing.assert_array_equal(back[0], words[n])


@pytest.mark.slow
def test_pmap_twin(road):
    block, words, _, levels = road
    arrays, shape = block_coder.block_on_device(block)
    got = parallel.pmap_twin(block_coder.encode_block, arrays, words.reshape(8, BATCH // 8, -1), shape=shape)
    np.testing.assert_array_equal(np.asarray(got[1]).reshape(BATCH, -1), levels)


@pytest.mark.slow
def test_without_jit():
    block = block_coder.build_block(TALK, 3, 5)
    arrays, shape = block_coder.block_on_device(block)
    words = random_words(block.bits, 2)
    want = block_roads(block)[0](words)
    with jax.disable_jit():
        got = block_coder.encode_block(arrays, jax.numpy.asarray(words), shape=shape)
    np.testing.assert_array_equal(np.stack(got), np.stack(want))


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: block_coder.build_block(TALK, 10, 9), "10 rounds and 9 time units from A: a round takes at least 1"),
        (lambda: block_coder.build_block(TALK, 10, 41), "no paths of 10 rounds and 41 time units"),
        (lambda: block_coder.build_block(TALK, 0, 5), "give 1 to 5 rounds"),
        (lambda: block_coder.build_block(TABLES["even"], 4, 13), "choose another time"),
        (lambda: block_coder.build_block(TALK, 10_000, 20_000), "use shorter blocks"),
        (lambda: block_coder.build_block(TALK, 5, 8, 4), "first base 4: give 0, 1, 2 or 3"),
        (lambda: block_coder.build_block(TABLES["bare"], 1, 1), "carry no bit"),
        (lambda: block_coder.best_rounds(TABLES["even"], 7), "no path from A takes exactly 7"),
        (lambda: block_coder.best_rounds(TALK, -3), "no path from A takes exactly -3"),
    ],
)
def test_impossible_demands_are_refused(build, message):
    with pytest.raises(GraphError, match=message):
        build()


@pytest.mark.parametrize(
    "words",
    [np.zeros((4, 3), np.uint32), np.zeros((4, 4), np.int32), np.zeros(4, np.uint32)],
    ids=["width", "type", "rank"],
)
def test_wrong_words_are_refused(words, talk_block):
    arrays, shape = block_coder.block_on_device(talk_block(64))
    with pytest.raises(TypeCheckError):
        block_coder.encode_block(arrays, words, shape=shape)
