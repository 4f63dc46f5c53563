"""Labels <-> rounds: all the way from bits by the state-splitting coder, against walks of the time table."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.reference import kernels
from helix_jax.timing import finite_state, state_splitting
from helix_jax.timing.graph import RUNNING, TALK, ordinary_graph
from helix_jax.timing.rounds import edges_of, from_rounds, to_rounds

encode = jax.jit(finite_state.encode, static_argnames="shape")
decode = jax.jit(finite_state.decode, static_argnames="shape")
labels_to_rounds = jax.jit(to_rounds)
rounds_to_labels = jax.jit(from_rounds, static_argnames=("units", "base"))
to_tags = jax.jit(finite_state.to_tags, static_argnames=("shape", "length"))
from_tags = jax.jit(finite_state.from_tags, static_argnames=("shape", "bits"))


@functools.cache
def talk_code(p, q):
    return state_splitting.build(ordinary_graph(TALK), p, q)


def check_rounds(table, base, letters, levels, units):
    """Walk the time table: every round is allowed, and the last one begins before ``units`` and ends there or later."""
    time = 0
    for letter, level in zip(letters.tolist(), levels.tolist(), strict=True):
        assert time < units
        assert level < len(table.times[base][letter])
        time += table.times[base][letter][level]
        base = letter
    assert time >= units
    return time


@pytest.mark.parametrize(("p", "q"), [(5, 3), (7, 4), (9, 5)])
def test_bits_to_rounds_and_back(p, q):
    """Payload words all the way to letters and levels, from each first base; random and hostile payloads."""
    code, edges = talk_code(p, q), edges_of(TALK)
    bits, tags = 200, -(-200 // p)
    units = (tags + code.anticipation) * q
    full = (1 << bits) - 1
    hostile = [0, full, 1, full - 1, full >> 1, int("10" * bits, 2) & full, int("01" * bits, 2) & full, 1 << 100]

    @given(st.lists(st.integers(0, full), min_size=8, max_size=8), st.integers(0, 3))
    @example(hostile, 0)
    @example(hostile, 3)
    @settings(max_examples=15)
    def check(payloads, base):
        arrays, shape = finite_state.on_device(code, base)
        words = np.stack([kernels.int_to_words(payload, bits) for payload in payloads])
        labels = encode(arrays, to_tags(words, shape=shape, length=tags), shape=shape)
        letters, levels, rounds = (np.asarray(part) for part in labels_to_rounds(edges, labels))
        assert (letters.dtype, levels.dtype, rounds.dtype) == (np.uint8, np.uint8, np.int32)
        for n in range(8):
            time = check_rounds(TALK, base, letters[n, : rounds[n]], levels[n, : rounds[n]], units)
            assert units <= time < units + TALK.longest
            assert not letters[n, rounds[n] :].any()
            assert not levels[n, rounds[n] :].any()
        again, lawful = rounds_to_labels(edges, letters, levels, rounds, units=units, base=base)
        np.testing.assert_array_equal(again, labels)
        back, ok = decode(arrays, again, shape=shape)
        assert np.asarray(lawful).all()
        assert np.asarray(ok).all()
        np.testing.assert_array_equal(from_tags(back, shape=shape, bits=bits), words)

    check()


def test_every_road_gives_the_same():
    code, edges = talk_code(9, 5), edges_of(TALK)
    arrays, shape = finite_state.on_device(code)
    tags = np.random.default_rng(1).integers(0, 512, (16, 9)).astype(np.int32)
    labels = np.asarray(encode(arrays, tags, shape=shape))
    rounds = [np.asarray(part) for part in labels_to_rounds(edges, labels)]
    np.testing.assert_array_equal(encode(arrays, tags[3:4], shape=shape), labels[3:4])
    on_all, units = parallel.replicate((arrays, edges)), labels.shape[1]
    np.testing.assert_array_equal(parallel.spread(write, shape=shape)(on_all, tags)[0], rounds[0])
    got = parallel.spread(read, shape=shape, units=units)(on_all, *rounds)
    for part, wanted in zip(got, (tags, np.ones(16, bool)), strict=True):
        np.testing.assert_array_equal(part, wanted)


def write(constants, tags, *, shape):
    arrays, edges = constants
    return to_rounds(edges, finite_state.encode(arrays, tags, shape=shape))


def read(constants, letters, levels, rounds, *, shape, units):
    arrays, edges = constants
    labels, lawful = from_rounds(edges, letters, levels, rounds, units=units)
    tags, ok = finite_state.decode(arrays, labels, shape=shape)
    return tags, ok & lawful


def test_rounds_that_break_the_time_table():
    edges = edges_of(TALK)
    letters = np.array([[1, 0, 2, 0]], np.uint8)  # from A: C{1} A{2} G{3} A{1}
    levels = np.array([[0, 1, 1, 0]], np.uint8)

    def read(letters=letters, levels=levels, rounds=4, units=7):
        labels, ok = rounds_to_labels(edges, letters, levels, np.array([rounds], np.int32), units=units)
        return np.asarray(labels)[0].tolist(), bool(ok[0])

    number = {tuple(edge[:3]): n for n, edge in enumerate(TALK.edges().tolist())}
    units = [number[0, 1, 0], number[1, 0, 1], RUNNING, number[0, 2, 1], RUNNING, RUNNING, number[2, 0, 0]]
    assert read() == (units, True)
    assert read(rounds=3, units=6) == (units[:6], True)
    assert read(rounds=3, units=4) == (units[:4], True)  # ends inside the run
    for change in [
        {"units": 8}, {"units": 6}, {"rounds": 3}, {"rounds": 0}, {"rounds": 5}, {"rounds": -1},
        {"levels": np.array([[0, 1, 2, 0]], np.uint8)}, {"letters": np.array([[1, 1, 2, 0]], np.uint8)},
        {"letters": np.array([[1, 0, 4, 0]], np.uint8)}, {"letters": np.array([[1, 255, 2, 0]], np.uint8)},
        {"levels": np.array([[255, 1, 1, 0]], np.uint8)},
    ]:  # fmt: skip
        assert not read(**change)[1], change
