"""Layout of a strand: lawful, invertible, bit for bit that of a plain twin written from the docstring."""

import dataclasses
import functools
import hashlib
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.timing import frame
from helix_jax.timing.frame import CHECK, DATA, DIGIT, END, Frame, FrameError

TALK_LIKE = Frame(201, 12, 6, 8, 8)
# first 16 hex digits of SHA-256 of letters, then levels: a difference here means that old strands cannot be read
GOLDEN = "8e6e9e929931952f"

REVERSIBLE_GOLDEN = "d412910c4e831109"

layouts = st.builds(
    Frame,
    st.integers(1, 40),
    st.integers(1, 15),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(2, 6),
    reversible=st.booleans(),
)


@functools.cache
def jitted(layout):
    return tuple(jax.jit(functools.partial(function, frame=layout)) for function in (frame.write, frame.read))


def parts(layout, seed, count=8, levels=3):
    """Random letters and levels of paths from A, and digits."""
    rng = np.random.default_rng(seed)
    letters = (np.cumsum(rng.integers(1, 4, (count, layout.data)), axis=1) % 4).astype(np.uint8)
    shape = (count, layout.parity + layout.index)
    return (
        letters,
        rng.integers(0, levels, letters.shape).astype(np.uint8),
        rng.integers(0, 3, shape).astype(np.uint8),
    )


# ---- from the docstring ----------------------------------------------------------------------------------------------


def twin_check_letter(strand):
    """32-bit FNV-1a over all letters before it (1 to 4), mixed; the result modulo 3 picks one of the other bases."""
    state = 2166136261
    for letter in strand:
        state = (state ^ (letter + 1)) * 16777619 % 2**32
    state = (state ^ state >> 15) * 0x2C1B3C6D % 2**32
    state = (state ^ state >> 12) * 0x297A2D39 % 2**32
    return ((strand[-1] if strand else 0) + 1 + (state >> 8) % 3) % 4


def twin_state(layout, strand):
    """The state of the reversible hash after some letters."""
    bits = int(np.log2(3**layout.check))
    state = 2166136261 % 2**bits
    for letter in strand:
        state = (state ^ (letter + 1)) * 0x01001D35 % 2**bits
        state ^= state >> (bits + 1) // 2
    return state


def twin_reversible_letter(layout, strand):
    state = twin_state(layout, strand)
    state = (state ^ state >> 5) * 0x2C1B3C6D % 2**32
    state = (state ^ state >> 12) * 0x297A2D39 % 2**32
    return ((strand[-1] if strand else 0) + 1 + (state >> 8) % 3) % 4


def twin_write(layout, letters, levels, digits):
    """One strand as lists of letters, levels and kinds."""
    strand, times, kinds = [], [], []

    def last():
        return strand[-1] if strand else 0

    def append(letter, level, kind):
        strand.append(int(letter))
        times.append(int(level))
        kinds.append(kind)

    for j, (letter, level) in enumerate(zip(letters, levels, strict=True)):
        if j and j % layout.spacing == 0:
            append(twin_reversible_letter(layout, strand) if layout.reversible else twin_check_letter(strand), 0, CHECK)
        append(letters[j - 1] if letter == last() else letter, level, DATA)
    for digit in digits:
        append((last() + 1 + digit) % 4, 0, DIGIT)
    state = twin_state(layout, strand)
    for place in range(layout.check):
        if layout.reversible:
            append((last() + 1 + state // 3**place % 3) % 4, 0, END)
        else:
            append(twin_check_letter(strand), 0, CHECK)
    return strand, times, kinds


def assert_as_twin(layout, seed):
    letters, levels, digits = parts(layout, seed)
    write, read = jitted(layout)
    strands, times = map(np.asarray, write(letters, levels, digits))
    twins = [twin_write(layout, *row) for row in zip(letters, levels, digits, strict=True)]
    np.testing.assert_array_equal(strands, [twin[0] for twin in twins])
    np.testing.assert_array_equal(times, [twin[1] for twin in twins])
    np.testing.assert_array_equal(layout.kinds, twins[0][2])
    assert strands.dtype == times.dtype == np.uint8
    assert strands.shape == times.shape == (len(letters), layout.rounds)
    assert (np.diff(strands.astype(int), axis=1, prepend=0) != 0).all()  # no base follows itself, nor the A before
    back = read(strands, times)
    for part, known in zip(back, (letters, levels, digits), strict=True):
        assert part.dtype == np.uint8
        np.testing.assert_array_equal(part, known)


@pytest.mark.parametrize(
    "layout",
    [
        TALK_LIKE,
        Frame(1, 1, 0, 1, 1),
        Frame(30, 1, 3, 2, 4),
        Frame(24, 12, 0, 1, 2),
        Frame(60, 10, 3, 2, 11, reversible=True),
    ],
)
def test_strands_are_those_of_the_twin_and_come_back(layout):
    assert_as_twin(layout, seed=layout.rounds)


@settings(max_examples=6)
@given(layouts, st.integers(0, 2**32 - 1))
def test_any_layout(layout, seed):
    assert_as_twin(layout, seed)


@pytest.mark.parametrize(("reversible", "golden"), [(False, GOLDEN), (True, REVERSIBLE_GOLDEN)])
def test_golden(reversible, golden):
    layout, digest = dataclasses.replace(TALK_LIKE, reversible=reversible), hashlib.sha256()
    for part in jitted(layout)[0](*parts_by_formula(layout)):
        digest.update(np.asarray(part).tobytes())
    assert digest.hexdigest()[:16] == golden


def parts_by_formula(layout, count=8):
    """Parts that need no random generator."""
    n = np.arange(count * layout.data).reshape(count, -1)
    letters = np.cumsum(n * n // 7 % 3 + 1, axis=1) % 4
    digits = np.arange(count * (layout.parity + layout.index)).reshape(count, -1) ** 2 // 5 % 3
    return letters.astype(np.uint8), (n // 3 % 2).astype(np.uint8), digits.astype(np.uint8)


def test_swaps_happen_and_may_last():
    """The rule after a check letter is used, for more than one round in a row: the round trip above covers it."""
    letters, levels, digits = parts(TALK_LIKE, seed=3, count=200)
    strands = np.asarray(jitted(TALK_LIKE)[0](letters, levels, digits)[0])
    swapped = strands[:, TALK_LIKE.data_rounds] != letters
    after_check = np.arange(TALK_LIKE.data) % TALK_LIKE.spacing == 0
    after_check[0] = False
    # the check letter is one of three that differ from the letter before, and so is the path's next letter
    assert 0.29 < swapped[:, after_check].mean() < 0.38
    assert (swapped[:, 1:] & swapped[:, :-1]).any()
    assert not swapped[:, : TALK_LIKE.spacing].any()


def test_a_wrong_letter_shows_in_each_later_check_letter_with_chance_two_thirds():
    letters, levels, digits = parts(TALK_LIKE, seed=4, count=1500)
    rng = np.random.default_rng(5)
    where, rows = rng.integers(0, 30, len(letters)), np.arange(len(letters))
    changed = letters.copy()
    for row, place in enumerate(where):  # neither of the neighbours, so that it is a path still
        taken = {int(letters[row, j]) if j >= 0 else 0 for j in (place - 1, place, place + 1)}
        changed[row, place] = rng.choice(sorted({0, 1, 2, 3} - taken))
    assert (changed[rows, where] != letters[rows, where]).all()
    strands = [np.asarray(jitted(TALK_LIKE)[0](part, levels, digits)[0]).astype(int) for part in (letters, changed)]
    hashes = [np.diff(strand, axis=1, prepend=0)[:, TALK_LIKE.kinds == CHECK] % 4 for strand in strands]
    checks = np.flatnonzero(TALK_LIKE.kinds == CHECK)
    after = checks[None] > TALK_LIKE.data_rounds[where][:, None]
    same = hashes[0] == hashes[1]
    assert same[~after].all()
    shares = np.array([same[after[:, j], j].mean() for j in range(len(checks)) if after[:, j].sum() > 1000])
    assert len(shares) > 15
    assert (abs(shares - 1 / 3) < 5 * np.sqrt(2 / 9 / 1000)).all()
    # all three check letters are used alike
    counts = np.bincount(hashes[0].ravel(), minlength=4)[1:] / hashes[0].size
    assert (abs(counts - 1 / 3) < 0.015).all()


def test_read_marks_repeats_and_ignores_check_letters():
    layout = TALK_LIKE
    letters, levels, digits = parts(layout, seed=6)
    write, read = jitted(layout)
    strands, times = map(np.array, write(letters, levels, digits))
    strands[:, -layout.check :] ^= 1  # the last check letters
    for part, known in zip(read(strands, times), (letters, levels, digits), strict=True):
        np.testing.assert_array_equal(part, known)
    place = layout.digit_rounds[4]
    strands[0, place] = strands[0, place - 1]
    found = np.asarray(read(strands, times)[2])
    assert found[0, 4] == 3
    np.testing.assert_array_equal(found[1:], digits[1:])


def test_same_alone_in_a_batch_and_over_devices():
    layout = Frame(30, 7, 2, 3, 4)
    letters, levels, digits = parts(layout, seed=7, count=16)
    write, read = jitted(layout)
    strands, times = map(np.asarray, write(letters, levels, digits))

    def both(_, letters, levels, digits, frame_):
        written = frame.write(letters, levels, digits, frame=frame_)
        return written, frame.read(*written, frame=frame_)

    spread = parallel.spread(both, frame_=layout)(np.zeros(1), letters, levels, digits)
    alone = [write(letters[i : i + 1], levels[i : i + 1], digits[i : i + 1]) for i in (0, 5)]
    for i, pair in zip((0, 5), alone, strict=True):
        np.testing.assert_array_equal(pair[0][0], strands[i])
        np.testing.assert_array_equal(pair[1][0], times[i])
    mapped = jax.jit(jax.vmap(functools.partial(frame.write, frame=layout)))
    mapped = mapped(*(part.reshape(4, 4, -1) for part in (letters, levels, digits)))
    np.testing.assert_array_equal(mapped[0].reshape(16, -1), strands)
    for one, other in zip(jax.tree.leaves(spread), (strands, times, *read(strands, times)), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- layout ----------------------------------------------------------------------------------------------------------


def test_layout_counts():
    layout = Frame(25, 12, 3, 4, 5)
    assert layout.rounds == 25 + 2 + 3 + 4 + 5  # no check letter after the last data round
    assert Frame(24, 12, 3, 4, 5).rounds == 24 + 1 + 12
    assert [len(layout.data_rounds), len(layout.digit_rounds)] == [25, 7]
    assert list(np.flatnonzero(layout.kinds == CHECK)[:2]) == [12, 25]
    assert layout == Frame(25, 12, 3, 4, 5)
    assert hash(layout) == hash(Frame(25, 12, 3, 4, 5))


@pytest.mark.parametrize("name", ["data", "spacing", "parity", "index", "check"])
def test_bad_layouts_are_refused_by_name(name):
    good = {"data": 10, "spacing": 5, "parity": 2, "index": 3, "check": 4}
    with pytest.raises(FrameError, match=f"{name} is -1"):
        Frame(**good | {name: -1})
    if name == "parity":
        assert Frame(**good | {name: 0}).rounds == 10 + 1 + 7
    else:
        with pytest.raises(FrameError, match=f"{name} is 0; give a whole number, at least 1"):
            Frame(**good | {name: 0})


def test_a_reversible_layout_writes_its_whole_state():
    for check in range(2, frame.MOST_ENDS + 1):
        layout = Frame(10, 5, 2, 3, check, reversible=True)
        assert 2**layout.state_bits <= 3**check < 2 ** (layout.state_bits + 1)
        assert layout.first_state < 2**layout.state_bits
        assert layout.places[layout.kinds == END].tolist() == [3**place for place in range(check)]
    for check in (1, frame.MOST_ENDS + 1):
        with pytest.raises(FrameError, match=f"check is {check}; give 2 to"):
            Frame(10, 5, 2, 3, check, reversible=True)


# ---- bits and base-3 digits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(10))
def test_every_string_of_digits(count):
    size = frame.trits(count)
    assert 3**size >= 2**count > (3 ** (size - 1) if size else 0)  # no digit to spare
    digits = np.array(list(itertools.product(range(3), repeat=size)), np.uint8).reshape(3**size, size)
    bits, ok = frame.trits_to_bits(digits, count)
    numbers = digits.astype(int) @ 3 ** np.arange(size)
    np.testing.assert_array_equal(ok, numbers < 2**count)
    assert len(np.unique(bits[ok], axis=0)) == 2**count
    np.testing.assert_array_equal(frame.bits_to_trits(bits[ok]), digits[ok])


@given(st.integers(0, 70), st.lists(st.integers(0, 2**70 - 1), min_size=1, max_size=4))
def test_bits_and_digits(count, numbers):
    bits = np.array([[number >> j & 1 for j in range(count)] for number in numbers], np.uint8)
    numbers = [number % 2**count for number in numbers]
    digits = frame.bits_to_trits(bits)
    assert digits.shape == (len(bits), frame.trits(count))
    assert frame.trits(count) == 12 * (count // 19) + frame.trits(count % 19)
    assert (digits < 3).all()
    # pieces of 19 bits and 12 digits, both with the lowest first
    for row, number in zip(digits, numbers, strict=True):
        for piece in range(-(-count // 19)):
            value = sum(int(digit) * 3**j for j, digit in enumerate(row[12 * piece : 12 * piece + 12]))
            assert value == number >> 19 * piece & (2 ** min(19, count - 19 * piece) - 1)
    back, ok = frame.trits_to_bits(digits, count)
    assert ok.all()
    np.testing.assert_array_equal(back, bits)


@given(st.integers(1, 60), st.data())
def test_illegal_digits_are_not_ok(count, data):
    size = frame.trits(count)
    digits = frame.bits_to_trits(np.ones((3, count), np.uint8))
    digits[1, data.draw(st.integers(0, size - 1))] = data.draw(st.integers(3, 255))
    first = frame.trits(min(count, 19))
    digits[2, :first] = 2  # the greatest number: 3^digits - 1
    found = frame.trits_to_bits(digits, count)[1]
    np.testing.assert_array_equal(found, [True, False, 3**first == 2 ** min(count, 19)])
