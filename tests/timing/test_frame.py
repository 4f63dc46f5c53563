"""Layout of a strand: lawful, invertible, bit for bit that of a plain twin written from the docstring."""

import functools
import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax import parallel
from helix_jax.timing import frame
from helix_jax.timing.frame import CHECK, DATA, DIGIT, Frame, FrameError

TALK_LIKE = Frame(201, 12, 6, 8, 8)
TAGGED = Frame(201, 12, 6, 8, 8, index_first=True, shared=11, tags=8)
BOTH = pytest.mark.parametrize("layout", [TALK_LIKE, TAGGED], ids=["index last", "index first"])
# first 16 hex digits of SHA-256 of letters, then levels: a difference here means that old strands cannot be read
GOLDEN = "8e6e9e929931952f"
TAGGED_GOLDEN = "b37d2c783726abf8"  # the same, then the tags

numbers = st.integers(1, 40), st.integers(1, 15), st.integers(0, 5), st.integers(1, 5), st.integers(1, 6)
layouts = st.one_of(
    st.builds(Frame, *numbers),
    st.builds(Frame, *numbers, st.just(True)),
    st.builds(Frame, *numbers, st.just(True), st.integers(1, 6), st.integers(1, 2)),
)


@functools.cache
def jitted(layout):
    functions = (frame.write, frame.read, frame.tags)
    return tuple(jax.jit(functools.partial(function, frame=layout)) for function in functions)


def parts(layout, seed, count=8, levels=3):
    """Random letters and levels of paths from A, and digits."""
    rng = np.random.default_rng(seed)
    letters = (np.cumsum(rng.integers(1, 4, (count, layout.data)), axis=1) % 4).astype(np.uint8)
    shape = (count, layout.parity + layout.index + layout.shared)
    return (
        letters,
        rng.integers(0, levels, letters.shape).astype(np.uint8),
        rng.integers(0, 3, shape).astype(np.uint8),
    )


# ---- from the docstring ----------------------------------------------------------------------------------------------


def twin_hash(strand):
    """32-bit FNV-1a over some letters (1 to 4), mixed."""
    state = 2166136261
    for letter in strand:
        state = (state ^ (letter + 1)) * 16777619 % 2**32
    state = (state ^ state >> 15) * 0x2C1B3C6D % 2**32
    return (state ^ state >> 12) * 0x297A2D39 % 2**32


def twin_check_letter(strand):
    """The hash of all letters before it, without its last byte, modulo 3 picks one of the other bases."""
    return ((strand[-1] if strand else 0) + 1 + (twin_hash(strand) >> 8) % 3) % 4


def twin_tag(strand):
    """Of the last byte of the hash, the lowest two bits, xored with those three places higher."""
    low = twin_hash(strand) % 256
    return (low ^ low >> 3) % 4


def twin_write(layout, letters, levels, digits):
    """One strand as lists of letters, levels, kinds and tags."""
    strand, times, kinds, tags = [], [], [], []
    first_shared, path = None, [0, *letters]  # each letter of the path behind the one before it

    def last():
        return strand[-1] if strand else 0

    def append(letter, level, kind):
        strand.append(int(letter))
        times.append(int(level))
        kinds.append(kind)

    def check():
        append(twin_check_letter(strand), 0, CHECK)

    data = [("data", j) for j in range(layout.data)]
    places = {name: list(range(part.start, part.stop)) for name, part in layout.digit_parts.items()}
    tails = {name: [(name, digits[place]) for place in part] for name, part in places.items()}
    names = ["index", "data", "parity", "shared"] if layout.index_first else ["data", "parity", "index"]
    rounds = [each for name in names for each in (data if name == "data" else tails[name])]
    for number, (name, content) in enumerate(rounds):
        if number and number % layout.spacing == 0 and (layout.index_first or name == "data"):
            check()
        if name == "data":
            append(path[content] if path[content + 1] == last() else path[content + 1], levels[content], DATA)
        else:
            first_shared = len(strand) if name == "shared" and first_shared is None else first_shared
            append((last() + 1 + content) % 4, 0, DIGIT)
    for _ in range(layout.check):
        check()
    for n in range(layout.tags):
        tags.append(twin_tag(strand[: first_shared * (n + 1) // layout.tags]))
    return strand, times, kinds, tags


def assert_as_twin(layout, seed):
    letters, levels, digits = parts(layout, seed)
    write, read, tags = jitted(layout)
    strands, times = map(np.asarray, write(letters, levels, digits))
    twins = [twin_write(layout, *row) for row in zip(letters, levels, digits, strict=True)]
    np.testing.assert_array_equal(strands, [twin[0] for twin in twins])
    np.testing.assert_array_equal(times, [twin[1] for twin in twins])
    np.testing.assert_array_equal(layout.kinds, twins[0][2])
    found = np.asarray(tags(strands))
    np.testing.assert_array_equal(found, np.array([twin[3] for twin in twins]).reshape(len(letters), layout.tags))
    assert found.dtype == np.int32
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
        TAGGED,
        Frame(1, 1, 0, 1, 1, index_first=True),
        Frame(30, 1, 3, 2, 4, index_first=True, shared=1, tags=1),
        Frame(21, 12, 0, 3, 2, index_first=True),
        Frame(9, 40, 2, 2, 3, index_first=True, shared=6, tags=13),
    ],
)
def test_strands_are_those_of_the_twin_and_come_back(layout):
    assert_as_twin(layout, seed=layout.rounds)


@settings(max_examples=6)
@given(layouts, st.integers(0, 2**32 - 1))
def test_any_layout(layout, seed):
    assert_as_twin(layout, seed)


@pytest.mark.parametrize(("layout", "golden"), [(TALK_LIKE, GOLDEN), (TAGGED, TAGGED_GOLDEN)])
def test_golden(layout, golden):
    write, _, tags = jitted(layout)
    letters, levels = write(*parts_by_formula(layout))
    digest = hashlib.sha256()
    for part in (letters, levels, *([np.asarray(tags(letters), np.uint8)] if layout.tags else [])):
        digest.update(np.asarray(part).tobytes())
    assert digest.hexdigest()[:16] == golden


def parts_by_formula(layout, count=8):
    """Parts that need no random generator."""
    n = np.arange(count * layout.data).reshape(count, -1)
    letters = np.cumsum(n * n // 7 % 3 + 1, axis=1) % 4
    digits = np.arange(count * len(layout.digit_rounds)).reshape(count, -1) ** 2 // 5 % 3
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


def test_the_first_letter_after_the_index_may_equal_it():
    letters, levels, digits = parts(TAGGED, seed=9, count=2000)
    strands = np.asarray(jitted(TAGGED)[0](letters, levels, digits)[0])
    first = TAGGED.data_rounds[0]
    same = strands[:, first - 1] == letters[:, 0]
    assert 0.2 < same.mean() < 0.3
    np.testing.assert_array_equal(strands[:, first], np.where(same, 0, letters[:, 0]))  # the path starts from A


@BOTH
def test_a_wrong_letter_shows_in_each_later_check_letter_with_chance_two_thirds(layout):
    letters, levels, digits = parts(layout, seed=4, count=1500)
    rng = np.random.default_rng(5)
    where, rows = rng.integers(0, 30, len(letters)), np.arange(len(letters))
    changed = letters.copy()
    for row, place in enumerate(where):  # neither of the neighbours, so that it is a path still
        taken = {int(letters[row, j]) if j >= 0 else 0 for j in (place - 1, place, place + 1)}
        changed[row, place] = rng.choice(sorted({0, 1, 2, 3} - taken))
    assert (changed[rows, where] != letters[rows, where]).all()
    strands = [np.asarray(jitted(layout)[0](part, levels, digits)[0]).astype(int) for part in (letters, changed)]
    hashes = [np.diff(strand, axis=1, prepend=0)[:, layout.kinds == CHECK] % 4 for strand in strands]
    checks = np.flatnonzero(layout.kinds == CHECK)
    after = checks[None] > layout.data_rounds[where][:, None]
    same = hashes[0] == hashes[1]
    assert same[~after].all()
    shares = np.array([same[after[:, j], j].mean() for j in range(len(checks)) if after[:, j].sum() > 1000])
    assert len(shares) > 15
    assert (abs(shares - 1 / 3) < 5 * np.sqrt(2 / 9 / 1000)).all()
    # all three check letters are used alike
    counts = np.bincount(hashes[0].ravel(), minlength=4)[1:] / hashes[0].size
    assert (abs(counts - 1 / 3) < 0.015).all()


@BOTH
def test_read_marks_repeats_and_ignores_check_letters(layout):
    letters, levels, digits = parts(layout, seed=6)
    write, read, _ = jitted(layout)
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
    layout = Frame(30, 7, 2, 3, 4, index_first=True, shared=2, tags=3)
    letters, levels, digits = parts(layout, seed=7, count=16)
    write, read, tags = jitted(layout)
    strands, times = map(np.asarray, write(letters, levels, digits))

    def both(_, letters, levels, digits, frame_):
        written = frame.write(letters, levels, digits, frame=frame_)
        return written, frame.read(*written, frame=frame_), frame.tags(written[0], frame=frame_)

    spread = parallel.spread(both, frame_=layout)(np.zeros(1), letters, levels, digits)
    alone = [write(letters[i : i + 1], levels[i : i + 1], digits[i : i + 1]) for i in (0, 5)]
    for i, pair in zip((0, 5), alone, strict=True):
        np.testing.assert_array_equal(pair[0][0], strands[i])
        np.testing.assert_array_equal(pair[1][0], times[i])
    mapped = jax.jit(jax.vmap(functools.partial(frame.write, frame=layout)))
    mapped = mapped(*(part.reshape(4, 4, -1) for part in (letters, levels, digits)))
    np.testing.assert_array_equal(mapped[0].reshape(16, -1), strands)
    expected = (strands, times, *read(strands, times), tags(strands))
    for one, other in zip(jax.tree.leaves(spread), expected, strict=True):
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


def test_layout_with_the_index_first():
    """Two letters of the index, seven of data, one of parity, three of the share: a check letter after every four."""
    layout = Frame(7, 4, 1, 2, 2, index_first=True, shared=3, tags=2)
    names = {"I": DIGIT, "D": DATA, "P": DIGIT, "S": DIGIT, "C": CHECK}
    assert layout.kinds.tolist() == [names[name] for name in "IIDDCDDDDCDPSSCSCC"]
    assert layout.data_rounds.tolist() == [2, 3, 5, 6, 7, 8, 10]
    assert layout.digit_rounds.tolist() == [0, 1, 11, 12, 13, 15]
    assert layout.tag_rounds.tolist() == [5, 11]
    whole = Frame(7, 13, 1, 2, 2, index_first=True, shared=3, tags=2)  # no check letter after the last of the others
    assert whole.kinds.tolist() == [names[name] for name in "IIDDDDDDDPSSSCC"]


def test_digit_parts():
    layout = Frame(7, 4, 2, 3, 2)
    assert layout.digit_parts == {"parity": slice(0, 2), "index": slice(2, 5), "shared": slice(5, 5)}
    layout = Frame(7, 4, 2, 3, 2, index_first=True, shared=4, tags=1)
    assert layout.digit_parts == {"index": slice(0, 3), "parity": slice(3, 5), "shared": slice(5, 9)}
    assert (layout.digit_rounds[layout.digit_parts["index"]] < layout.data_rounds[0]).all()
    assert (layout.digit_rounds[layout.digit_parts["parity"]] > layout.data_rounds[-1]).all()


# ---- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [1, 4, 7, 20])
def test_tag_rounds_are_evenly_spaced_and_before_the_shared_digits(tags):
    layout = Frame(61, 9, 4, 5, 6, index_first=True, shared=7, tags=tags)
    first = layout.digit_rounds[layout.digit_parts["shared"]][0]
    steps = np.diff(layout.tag_rounds, prepend=-1)
    assert len(steps) == tags
    assert layout.tag_rounds[-1] == first - 1
    assert steps.max() - steps.min() <= 1
    assert Frame(61, 9, 4, 5, 6, index_first=True).tag_rounds.tolist() == []


def test_tags_do_not_depend_on_the_shared_digits():
    """So that these can be made of them."""
    letters, levels, digits = parts(TAGGED, seed=10)
    write, _, tags = jitted(TAGGED)
    other = digits.copy()
    other[:, TAGGED.digit_parts["shared"]] = 2 - other[:, TAGGED.digit_parts["shared"]]
    one, two = (np.asarray(write(letters, levels, part)[0]) for part in (digits, other))
    assert (one != two).any()
    np.testing.assert_array_equal(tags(one), tags(two))


def test_a_wrong_letter_shows_in_each_later_tag_with_chance_three_quarters():
    """And whatever the check letter says that the same letters demand."""
    strands = np.random.default_rng(11).integers(0, 4, (6000, TAGGED.rounds)).astype(np.uint8)
    changed = strands.copy()
    changed[:, 50] = (changed[:, 50] + 1) % 4
    found, others = (np.asarray(jitted(TAGGED)[2](part)) for part in (strands, changed))
    after = TAGGED.tag_rounds >= 50
    assert 2 <= np.count_nonzero(after) < TAGGED.tags
    np.testing.assert_array_equal(found[:, ~after], others[:, ~after])
    alike = (found == others)[:, after].mean(axis=0)
    assert (abs(alike - 1 / 4) < 5 * np.sqrt(3 / 16 / 6000)).all()
    state = jax.numpy.asarray(np.arange(48000, dtype=np.uint32) * np.uint32(2654435761))
    pairs = 3 * np.asarray(frame.tag(state)) + (np.asarray(frame.demanded(state, state.astype(int) * 0)) - 1)
    shares = np.bincount(pairs, minlength=12) / 48000
    assert (abs(shares - 1 / 12) < 5 * np.sqrt(1 / 12 / 48000)).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", "spacing", "parity", "index", "check", "shared", "tags"])
def test_bad_layouts_are_refused_by_name(name):
    good = {"data": 10, "spacing": 5, "parity": 2, "index": 3, "check": 4}
    with pytest.raises(FrameError, match=f"{name} is -1"):
        Frame(**good | {name: -1})
    if name in ("parity", "shared", "tags"):
        assert Frame(**good | {name: 0}).rounds == 10 + 1 + 9 - 2 * (name == "parity")
    else:
        with pytest.raises(FrameError, match=f"{name} is 0; give a whole number, at least 1"):
            Frame(**good | {name: 0})


@pytest.mark.parametrize(
    "fields",
    [
        {"shared": 2, "tags": 3},
        {"index_first": True, "shared": 2},
        {"index_first": True, "tags": 3},
        {"tags": 3},
        {"shared": 2},
    ],
)
def test_tags_need_shared_digits_and_both_need_the_index_first(fields):
    with pytest.raises(FrameError, match=f"shared is {fields.get('shared', 0)} and tags {fields.get('tags', 0)};"):
        Frame(10, 5, 2, 3, 4, **fields)


def test_more_tags_than_rounds_are_refused():
    """Two letters of the index, three of data, a check letter: there are 6 rounds before the shared digits."""
    assert Frame(3, 5, 0, 2, 4, index_first=True, shared=2, tags=6).tag_rounds.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(FrameError, match="tags is 7; at most 6, one for each round before the shared digits"):
        Frame(3, 5, 0, 2, 4, index_first=True, shared=2, tags=7)


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


@pytest.mark.parametrize("first", [True, False])
def test_digits_are_those_that_were_written(first):
    """Of NumPy arrays and of JAX arrays of any type of integers; 3 is a letter that repeats the one before it."""
    layout = Frame(9, 4, 5, 3, 2, index_first=first, shared=4 if first else 0, tags=4 if first else 0)
    rng = np.random.default_rng(4)
    path = rng.integers(1, 4, (6, 9)).cumsum(axis=1) % 4
    digits = rng.integers(0, 3, (6, len(layout.digit_rounds))).astype(np.uint8)
    letters = np.array(frame.write(path.astype(np.uint8), np.zeros_like(path), digits, frame=layout)[0])
    for strands in (letters, jnp.asarray(letters), letters.astype(np.int64)):
        np.testing.assert_array_equal(frame.digits(strands, frame=layout), digits)
    place = layout.digit_rounds[-1]
    letters[:, place] = letters[:, place - 1]
    assert (np.asarray(frame.digits(letters, frame=layout))[:, -1] == 3).all()
