"""Edits by kind and position, against edits that were made by hand."""

import numpy as np

from helix_jax.reads import edits

STRAND = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.uint8)


def test_edits_count_where_they_are_made():
    swapped = np.array([0, 1, 2, 0, 0, 1, 2, 3], np.uint8)
    lost = np.delete(STRAND, 5)
    more = np.insert(STRAND, 2, 3)
    behind = np.append(STRAND, np.uint8(0))
    counts = edits.by_position([(STRAND, read) for read in (STRAND, swapped, swapped, lost, more, behind)], 8)
    expected = np.zeros((3, 8), int)
    expected[0, 3], expected[1, 2], expected[1, 7], expected[2, 5] = 2, 1, 1, 1
    np.testing.assert_array_equal(counts, expected)
    assert edits.by_position([], 5).tolist() == [[0] * 5] * 3


def test_edits_of_one_position_add_up():
    read = np.insert(STRAND, [3, 3], [2, 1])  # two bases before the fourth
    assert edits.by_position([(STRAND, read)], 8)[1].sum() == 2
