"""Tags over the strands of a group: what some strands lack, the others know, and they find those that are wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.strands.reed_solomon import ReedSolomon
from helix_jax.timing import tags
from helix_jax.timing.tags import Tagging

CODE = Tagging(columns=3, shared=2, strands=20)  # 14 repair symbols, two of which nobody writes
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


def erased(code, end, gone, invalid=()):
    """How many symbols each column lacks, by the docstring of the module."""
    count = [0] * code.columns
    for s in range(end):
        for c in range(code.columns):
            count[c] += s in gone
    for i in range(code.repairs * code.columns):  # byte i is repair symbol i // C of column i % C
        writer = i // code.shared
        count[i % code.columns] += writer >= end or writer in gone or writer in invalid
    return np.array(count)


def full(code, own):
    return np.pad(own, ((0, code.strands - len(own)), (0, 0)))


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_four_tags_are_a_byte():
    assert tags.to_bytes(np.array([[1, 2, 3, 0, 0, 0, 0, 3]])).tolist() == [[1 + 2 * 4 + 3 * 16, 3 * 64]]
    rows, sure = np.array([[57, 192], [255, 0]], np.uint8), np.array([[True, True], [False, True]])
    found = tags.from_bytes(rows, sure)
    assert found.tolist() == [[1, 2, 3, 0, 0, 0, 0, 3], [-1, -1, -1, -1, 0, 0, 0, 0]]
    assert found.dtype == np.int32


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bytes_there_and_back(strands, columns, seed):
    generator = np.random.default_rng(seed)
    parts = generator.integers(0, 4, (strands, 4 * columns))
    rows = tags.to_bytes(parts)
    assert (rows.shape, rows.dtype) == ((strands, columns), np.uint8)
    np.testing.assert_array_equal(tags.from_bytes(rows, np.ones(rows.shape, bool)), parts)
    sure = generator.random(rows.shape) < 0.5
    np.testing.assert_array_equal(tags.from_bytes(rows, sure), np.where(np.repeat(sure, 4, axis=1), parts, -1))


# ---- the code --------------------------------------------------------------------------------------------------------


def test_the_shared_bytes_are_the_repair_symbols_of_the_columns():
    for strands in (20, 11, 1):
        own, shared = group(CODE, strands)
        repair = ReedSolomon(14).repair_symbols(full(CODE, own), 14)
        assert (shared.shape, shared.dtype) == ((strands, 2), np.uint8)
        for s, n in np.ndindex(strands, 2):
            assert shared[s, n] == repair[(2 * s + n) // 3, (2 * s + n) % 3]


def test_the_shared_bytes_stay():
    """A golden: pools hold them."""
    own = (np.arange(33).reshape(11, 3) ** 2 % 251).astype(np.uint8)
    assert tags.parity(CODE, own).tobytes().hex() == "faefe0e4fb79f9d25cf44fb92cc2b0ce434a5d11558b"


def test_repairs():
    assert [Tagging(3, 2, n).repairs for n in (1, 3, 20)] == [1, 2, 14]
    assert Tagging(4, 1, 204).fits
    assert not Tagging(4, 1, 205).fits
    assert Tagging(1, 1, 127).fits
    assert not Tagging(1, 1, 128).fits


@settings(max_examples=25)
@given(st.integers(1, 20), st.sets(st.integers(0, 19), max_size=12), st.sets(st.integers(0, 19), max_size=3))
def test_missing_tags_are_known_where_few_enough_symbols_are_missing(strands, gone, invalid):
    """The last strand is read here; of a full group that lost 8 strands, all tags are known."""
    gone = gone - {strands - 1}
    own, shared = group(CODE, strands, seed=strands)
    found = known(CODE, own, np.where(np.isin(np.arange(strands), list(invalid))[:, None], 7, shared), gone, invalid)
    enough = erased(CODE, strands, gone, invalid) <= CODE.repairs
    np.testing.assert_array_equal(found.sure, enough)
    np.testing.assert_array_equal(found.tags[:, enough], full(CODE, own)[:, enough])
    assert not found.wrong.any()
    assert (found.tags.shape, found.tags.dtype, found.wrong.shape) == ((20, 3), np.uint8, (20,))


@pytest.mark.parametrize(("gone", "sure"), [(7, [1, 1, 1]), (8, [1, 1, 1]), (9, [0, 0, 0])])
def test_how_many_missing_strands_a_full_group_bears(gone, sure):
    """Each lacks its tag and two thirds of a repair symbol of a column; and nobody writes the last two of 42 bytes."""
    own, shared = group(CODE, 20)
    found = known(CODE, own, shared, range(gone))
    assert found.sure.tolist() == sure
    assert (found.tags[:gone] == own[:gone]).all(axis=0).tolist() == sure


def test_columns_are_known_on_their_own():
    """With three strands gone of six, whose shared bytes are 6 of 12, the first column lacks one symbol less."""
    code = Tagging(columns=2, shared=3, strands=6)  # strand s writes bytes 3 s .. 3 s + 2: two of column s % 2
    own, shared = group(code, 6)
    for gone, invalid in (((0, 2, 4), ()), ((1, 3), (4, 2)), ((0, 3), (2, 4)), ((0,), (2, 4, 5))):
        enough = erased(code, 6, gone, invalid) <= code.repairs
        found = known(code, own, shared, gone, invalid)
        np.testing.assert_array_equal(found.sure, enough)
        np.testing.assert_array_equal(found.tags[:, enough], own[:, enough])


@pytest.mark.parametrize(
    ("strands", "last", "others"), [(20, 1, 5), (20, 2, 3), (11, 1, 2), (11, 3, 0), (14, 4, 0), (10, 1, 1)]
)
def test_the_last_strands_of_a_group_may_be_missing(strands, last, others):
    own, shared = group(CODE, strands)
    found = known(CODE, own, shared, [*range(others), *range(strands - last, strands)])
    assert found.sure.all()
    np.testing.assert_array_equal(found.tags, full(CODE, own))
    assert not found.wrong.any()


# ---- misread strands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strands", "wrong", "gone"),
    [(20, [3], []), (20, [3], [0, 1, 19]), (20, [19, 0, 7], []), (20, [19, 7], [4]), (11, [4], []), (11, [10], [])],
)
def test_misread_strands_are_found(strands, wrong, gone):
    """They have the tags and the shared bytes of other letters."""
    own, shared = group(CODE, strands)
    read, written = own.copy(), shared.copy()
    generator = np.random.default_rng(2)
    read[wrong] ^= generator.integers(1, 256, (len(wrong), 3), np.uint8)
    written[wrong] = generator.integers(0, 256, (len(wrong), 2), np.uint8)
    found = known(CODE, read, written, gone)
    assert found.sure.all()
    np.testing.assert_array_equal(found.tags, full(CODE, own))
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
    kept = [i for i in range(11) if i not in (1, 5)]
    position = np.array([*ghosts, *kept])
    read = np.concatenate([generator.integers(1, 256, (len(ghosts), 3), np.uint8), own[kept]])
    written = np.concatenate([generator.integers(1, 256, (len(ghosts), 2), np.uint8), shared[kept]])
    found = tags.known(CODE, position, read, written, np.ones(len(position), bool))
    assert found.sure.all()
    np.testing.assert_array_equal(found.tags[:11], own)
    assert not found.wrong[:11].any()
