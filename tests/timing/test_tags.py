"""Tags over the strands of a group: what some strands lack, the others know, and they find those that are wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.strands.reed_solomon import ReedSolomon
from helix_jax.timing import tags
from helix_jax.timing.tags import Tagging

CODE = Tagging(columns=3, shared=2, strands=20)  # 17, 13 and 10 repair symbols
WIDE = Tagging(columns=3, shared=4, strands=20)  # twice as many
APART = Tagging(columns=4, shared=2, strands=9)  # 6, 5, 4 and 3 of them
NARROW = Tagging(columns=1, shared=1, strands=10)


def group(code, strands, seed=0):
    """The tags and the shared bytes of a group of so many strands."""
    own = np.random.default_rng(seed).integers(1, 256, (strands, code.columns), np.uint8)  # none is zero by chance
    return own, tags.parity(code, own)


def known(code, own, shared, gone=(), invalid=()):
    """What is known when some strands were not read, and some have shared bytes that mean nothing."""
    position = np.array([i for i in range(len(own)) if i not in gone])
    order = np.random.default_rng(1).permutation(len(position))  # strands come in any order
    position = position[order]
    return tags.known(code, position, own[position], shared[position], ~np.isin(position, list(invalid)))


def symbols(code, strands):
    """The column and the number of the repair symbols that strands write, by the docstring of the module.

    All columns have their next symbols in turn, three times, then all but the last one, and so on.
    """
    order = [*range(code.columns)] * 2
    for last in range(code.columns, 0, -1):
        order += range(last)
    written, count = [], [0] * code.columns
    for i in range(strands * code.shared):
        column = order[i % len(order)]
        written.append((column, count[column]))
        count[column] += 1
    return written


def spare(code, end, gone, invalid=()):
    """How many repair symbols each column has beyond the symbols that it lacks, where no symbol is wrong."""
    left = [0] * code.columns
    for i, (column, _) in enumerate(symbols(code, end)):
        left[column] += i // code.shared not in {*gone, *invalid}
    return np.array(left) - len(set(gone) & set(range(end)))


def full(code, own):
    return np.pad(own, ((0, code.strands - len(own)), (0, 0)))


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_four_tags_are_a_byte():
    """The first tags are the lowest two bits of all columns, the next ones the two bits above these."""
    assert tags.to_bytes(np.array([[1, 0, 2, 0, 3, 0, 0, 3]])).tolist() == [[1 + 2 * 4 + 3 * 16, 3 * 64]]
    rows, sure = np.array([[57, 192], [255, 0]], np.uint8), np.array([[True, True], [False, True]])
    found = tags.from_bytes(rows, sure)
    assert found.tolist() == [[1, 0, 2, 0, 3, 0, 0, 3], [-1, 0, -1, 0, -1, 0, -1, 0]]
    assert found.dtype == np.int32


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bytes_there_and_back(strands, columns, seed):
    generator = np.random.default_rng(seed)
    parts = generator.integers(0, 4, (strands, 4 * columns))
    rows = tags.to_bytes(parts)
    assert (rows.shape, rows.dtype) == ((strands, columns), np.uint8)
    for s, t in np.ndindex(parts.shape):
        assert rows[s, t % columns] >> 2 * (t // columns) & 3 == parts[s, t]
    np.testing.assert_array_equal(tags.from_bytes(rows, np.ones(rows.shape, bool)), parts)
    sure = generator.random(rows.shape) < 0.5
    np.testing.assert_array_equal(tags.from_bytes(rows, sure), np.where(np.tile(sure, 4), parts, -1))


# ---- the code --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [CODE, WIDE, APART, NARROW, Tagging(2, 1, 7)])
def test_the_order_of_the_repair_symbols(code):
    np.testing.assert_array_equal(code.symbols.T, symbols(code, code.strands))
    assert code.repairs == tuple(
        sum(c == column for c, _ in symbols(code, code.strands)) for column in range(code.columns)
    )


@pytest.mark.parametrize("code", [CODE, WIDE, APART, NARROW])
def test_the_shared_bytes_are_the_repair_symbols_of_the_columns(code):
    for strands in (code.strands, code.strands // 2 + 1, 1):
        own, shared = group(code, strands)
        columns = full(code, own).T[..., None]
        repair = [ReedSolomon(n).repair_symbols(column, n) for n, column in zip(code.repairs, columns, strict=True)]
        assert (shared.shape, shared.dtype) == ((strands, code.shared), np.uint8)
        expected = [repair[column][number, 0] for column, number in symbols(code, strands)]
        assert shared.reshape(-1).tolist() == expected


def test_the_shared_bytes_stay():
    """A golden: pools hold them."""
    own = (np.arange(33).reshape(11, 3) ** 2 % 251).astype(np.uint8)
    assert tags.parity(CODE, own).tobytes().hex() == "e21c5c9bef517cfcea3a767ce9ba025a1cb386693150"


def test_repairs():
    assert [Tagging(3, 2, n).repairs for n in (1, 3, 20)] == [(1, 1, 0), (2, 2, 2), (17, 13, 10)]
    assert Tagging(4, 1, 192).repairs == (63, 53, 43, 33)
    assert Tagging(4, 1, 192).fits
    assert not Tagging(4, 1, 193).fits
    assert Tagging(1, 1, 127).fits
    assert not Tagging(1, 1, 128).fits


def test_a_column_without_repair_symbols_is_not_known():
    """A group of one strand, which writes one symbol of two of its three columns."""
    code = Tagging(3, 2, 1)
    found = known(code, *group(code, 1))
    assert found.sure.tolist() == [True, True, False]


@settings(max_examples=25)
@given(st.integers(1, 20), st.sets(st.integers(0, 19), max_size=12), st.sets(st.integers(0, 19), max_size=3))
def test_missing_tags_are_known_where_few_enough_symbols_are_missing(strands, gone, invalid):
    """The last strand is read here; one repair symbol must be left over."""
    gone = gone - {strands - 1}
    own, shared = group(CODE, strands, seed=strands)
    found = known(CODE, own, np.where(np.isin(np.arange(strands), list(invalid))[:, None], 7, shared), gone, invalid)
    enough = spare(CODE, strands, gone, invalid) >= 1
    np.testing.assert_array_equal(found.sure, enough)
    np.testing.assert_array_equal(found.tags[:, enough], full(CODE, own)[:, enough])
    assert not found.wrong.any()
    assert (found.tags.shape, found.tags.dtype, found.wrong.shape) == ((20, 3), np.uint8, (20,))


@pytest.mark.parametrize(("gone", "sure"), [(6, [1, 1, 1]), (7, [1, 1, 0]), (9, [1, 0, 0]), (10, [0, 0, 0])])
def test_how_many_missing_strands_a_full_group_bears(gone, sure):
    """Each lacks its tag, and of ten strands those of the columns lack 8, 7 and 5 repair symbols."""
    own, shared = group(CODE, 20)
    found = known(CODE, own, shared, range(gone))
    assert found.sure.tolist() == sure
    assert (found.tags[:gone] == own[:gone]).all(axis=0).tolist() == sure


@pytest.mark.parametrize(
    ("gone", "invalid", "sure"),
    [
        ((0,), (), [1, 1, 1, 1]), ((0, 2), (), [1, 1, 1, 1]), ((0, 1), (), [1, 1, 1, 0]), ((2, 5), (7,), [1, 1, 0, 0]),
        ((0, 4), (2,), [1, 0, 1, 1]), ((3, 4, 6), (), [1, 0, 0, 0]), ((1, 2, 6), (8,), [0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_columns_are_known_on_their_own(gone, invalid, sure):
    """They have 6, 5, 4 and 3 repair symbols, and it depends on the strands which of these are lost."""
    own, shared = group(APART, 9)
    assert (spare(APART, 9, gone, invalid) >= 1).tolist() == sure
    found = known(APART, own, shared, gone, invalid)
    assert found.sure.tolist() == sure
    np.testing.assert_array_equal(found.tags[:, found.sure], own[:, found.sure])


@pytest.mark.parametrize(
    ("strands", "last", "others", "sure"),
    [
        (20, 1, 4, [1, 1, 1]), (20, 1, 5, [1, 1, 0]), (20, 2, 3, [1, 1, 1]), (20, 2, 6, [1, 0, 0]),
        (11, 1, 1, [1, 1, 1]), (11, 1, 2, [1, 1, 0]), (11, 2, 0, [1, 1, 1]), (11, 3, 0, [1, 1, 0]),
        (16, 4, 0, [1, 1, 1]), (14, 4, 0, [1, 1, 0]), (10, 1, 1, [1, 1, 1]), (12, 4, 0, [1, 0, 0]),
    ],
)  # fmt: skip
def test_the_last_strands_of_a_group_may_be_missing(strands, last, others, sure):
    """How many strands there are is then a guess, and two repair symbols must be left over."""
    own, shared = group(CODE, strands)
    gone = [*range(others), *range(strands - last, strands)]
    assert (spare(CODE, strands, gone) >= 2).tolist() == sure
    found = known(CODE, own, shared, gone)
    assert found.sure.tolist() == sure
    np.testing.assert_array_equal(found.tags[:, found.sure], full(CODE, own)[:, found.sure])
    assert not found.wrong.any()


@pytest.mark.parametrize(
    ("gone", "invalid", "sure"),
    [
        ((0, 1, 2, 3), (5,), True), ((0, 1, 2, 3), (5, 6), False), ((0, 1, 2, 9), (), True), ((0, 1, 2, 9), (5,), False)
    ],
)  # fmt: skip
def test_repair_symbols_that_must_be_left_over(gone, invalid, sure):
    """One, and two where the last strand is gone: of 10, one that is gone takes two, an illegible share one."""
    own, shared = group(NARROW, 10)
    found = known(NARROW, own, shared, gone, invalid)
    assert found.sure.tolist() == [sure]
    assert not sure or (found.tags == own).all()


# ---- misread strands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "strands", "wrong", "gone"),
    [
        (CODE, 20, [3], []), (CODE, 20, [3], [0, 2, 19]), (CODE, 20, [19, 0], [4]), (CODE, 20, [19, 7], []),
        (CODE, 11, [4], []), (CODE, 11, [10], []), (WIDE, 20, [19, 0, 7, 8], [4]), (WIDE, 20, [19, 0, 7], [1, 4, 18]),
    ],
)  # fmt: skip
def test_misread_strands_are_found(code, strands, wrong, gone):
    """They have the tags and the shared bytes of other letters. Each takes twice what a strand takes that is gone."""
    assert (spare(code, strands, gone) - 2 * (spare(code, strands, ()) - spare(code, strands, wrong)) >= 2).all()
    own, shared = group(code, strands)
    read, written = own.copy(), shared.copy()
    generator = np.random.default_rng(2)
    read[wrong] ^= generator.integers(1, 256, (len(wrong), 3), np.uint8)
    written[wrong] = generator.integers(0, 256, (len(wrong), code.shared), np.uint8)
    found = known(code, read, written, gone)
    assert found.sure.all()
    np.testing.assert_array_equal(found.tags, full(code, own))
    assert np.flatnonzero(found.wrong).tolist() == sorted(wrong)


def test_wrong_shared_bytes_alone_make_no_strand_wrong():
    own, shared = group(CODE, 20)
    shared[[2, 9]] ^= 0x55
    found = known(CODE, own, shared, [5])
    assert found.sure.all()
    assert not found.wrong.any()
    np.testing.assert_array_equal(found.tags, own)


@pytest.mark.parametrize(
    ("wrong", "gone", "invalid", "sure"),
    [(4, 0, 0, True), (5, 0, 0, False), (3, 1, 0, True), (4, 1, 0, False), (3, 1, 1, False), (2, 1, 1, True)],
)
def test_two_spare_symbols_must_agree_that_a_strand_is_wrong(wrong, gone, invalid, sure):
    """Of 10 repair symbols a wrong strand takes two, one that is gone two, and one whose share is illegible one."""
    own, shared = group(NARROW, 10)
    read = own.copy()
    read[:wrong] ^= 0x33
    found = known(NARROW, read, shared, range(8, 8 + gone), range(7, 7 + invalid))
    assert found.sure.tolist() == [sure]
    assert np.flatnonzero(found.wrong).tolist() == list(range(wrong)) * sure
    assert not sure or (found.tags == own).all()


@pytest.mark.parametrize("ghosts", [[19], [12], [17, 19]])
def test_a_misread_strand_with_too_high_a_number_does_not_spoil_the_others(ghosts):
    own, shared = group(CODE, 11)
    generator = np.random.default_rng(4)
    kept = [i for i in range(11) if i not in (2, 4)]
    position = np.array([*ghosts, *kept])
    read = np.concatenate([generator.integers(1, 256, (len(ghosts), 3), np.uint8), own[kept]])
    written = np.concatenate([generator.integers(1, 256, (len(ghosts), 2), np.uint8), shared[kept]])
    found = tags.known(CODE, position, read, written, np.ones(len(position), bool))
    assert found.sure.all()
    np.testing.assert_array_equal(found.tags[:11], own)
    assert not found.wrong[:11].any()


@pytest.mark.parametrize("last", [True, False])
def test_a_group_that_is_not_the_last_one_is_full(last):
    """Its last five strands are missing, which is more than are tried for the last group."""
    own, shared = group(CODE, 20)
    position = np.arange(15)
    found = tags.known(CODE, position, own[:15], shared[:15], np.ones(15, bool), last=last)
    assert found.sure.all() == (not last)
    if not last:
        assert found.strands == 20
        np.testing.assert_array_equal(found.tags, own)


@pytest.mark.parametrize(("strands", "gone"), [(11, []), (11, [10]), (13, [0, 11, 12])])
def test_how_many_strands_there_are_is_known_with_the_tags(strands, gone):
    own, shared = group(CODE, strands)
    assert known(CODE, own, shared, gone).strands == strands
