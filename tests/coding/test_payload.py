"""Segments in packets: what a lost or a changed packet costs, and that forged payloads are refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helix_jax.coding import payload
from helix_jax.coding.payload import COPIES, CodingError


def some_pieces(seed, number, longest=200):
    generator = np.random.default_rng(seed)
    return [generator.bytes(int(n)) for n in generator.integers(0, longest, number)]


def rows_of(pieces, width):
    return payload.to_rows([payload.seal(piece) for piece in pieces], width).copy()


def directory_rows(number, width):
    return -(-2 * number // width)


def touched(pieces, width):
    """The packets of every segment, by the text of the module: a set for each."""
    begin, found = COPIES * directory_rows(len(pieces), width) * width, []
    for piece in pieces:
        end = begin + len(piece) + 4
        found.append({at // width for at in range(begin, end)})
        begin = end
    return found


def read(rows, lost, number):
    mask = np.zeros(len(rows), bool)
    mask[list(lost)] = True
    rows = rows.copy()
    rows[mask] = 0
    return payload.read_pieces(rows, mask, number)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 64))
@settings(max_examples=60)
def test_round_trip(seed, number, width):
    pieces = some_pieces(seed, number)
    rows = rows_of(pieces, width)
    assert (rows.dtype, rows.shape[1]) == (np.uint8, width)
    assert len(rows) == COPIES * directory_rows(number, width) + -(-sum(len(p) + 4 for p in pieces) // width)
    assert read(rows, [], number) == pieces
    assert [payload.opened(payload.seal(piece)) for piece in pieces] == pieces
    more = np.concatenate([rows, np.zeros((3, width), np.uint8)])
    assert read(more, [], number) == pieces


def test_bytes_are_frozen():
    """Written pools depend on the places of the fields."""
    rows = rows_of([b"abc", b""], 6)
    data = rows.tobytes()
    assert data[: 5 * 6] == bytes.fromhex("0007 0004 0000") * 5
    assert data[30:] == b"abc" + bytes.fromhex("352441c2 00000000") + b"\0"


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=60)
def test_a_lost_packet_costs_the_segments_that_touch_it(seed, data):
    number, width = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 40))
    pieces = some_pieces(seed, number)
    rows = rows_of(pieces, width)
    first = COPIES * directory_rows(number, width)
    lost = data.draw(st.sets(st.integers(first, len(rows) - 1), max_size=4))
    expected = [
        None if lost & rows_there else piece for piece, rows_there in zip(pieces, touched(pieces, width), strict=True)
    ]
    assert read(rows, lost, number) == expected


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=60)
def test_the_directory_survives_in_any_one_copy(seed, data):
    """Of each of its packets one copy is left, not of the same copy of the directory."""
    number, width = data.draw(st.integers(1, 60)), data.draw(st.integers(2, 40))
    pieces = some_pieces(seed, number, 30)
    rows, each = rows_of(pieces, width), directory_rows(number, width)
    kept = data.draw(st.lists(st.integers(0, COPIES - 1), min_size=each, max_size=each))
    lost = {copy * each + n for copy in range(COPIES) for n in range(each) if kept[n] != copy}
    assert read(rows, lost, number) == pieces
    gone = data.draw(st.integers(0, each - 1))
    with pytest.raises(CodingError, match="directory of segments are lost"):
        read(rows, lost | {copy * each + gone for copy in range(COPIES)}, number)


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=60)
def test_a_changed_byte_is_seen(seed, data):
    """In a segment or its CRC: that segment is lost, and never returned with other bytes."""
    number, width = data.draw(st.integers(1, 20)), data.draw(st.integers(2, 40))
    pieces = some_pieces(seed, number)
    rows = rows_of(pieces, width)
    flat, first = rows.reshape(-1), COPIES * directory_rows(number, width) * width
    lengths = np.cumsum([len(piece) + 4 for piece in pieces])
    at = data.draw(st.integers(0, int(lengths[-1]) - 1))
    flat[first + at] ^= data.draw(st.integers(1, 255))
    hurt = int(np.searchsorted(lengths, at, side="right"))
    assert read(rows, [], number) == [None if n == hurt else piece for n, piece in enumerate(pieces)]


@given(st.data())
@settings(max_examples=200)
def test_any_payload_is_read_or_refused_by_name(data):
    """Forged and short ones included: no other error, and bytes only where the CRC matches."""
    height, width = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 20))
    rows = data.draw(arrays.arrays(np.uint8, (height, width), elements=st.sampled_from([0, 0, 1, 4, 5, 255])))
    lost = data.draw(arrays.arrays(bool, height))
    number = data.draw(st.one_of(st.integers(1, 50), st.sampled_from([10**6, 2**40])))
    try:
        pieces = payload.read_pieces(rows, lost, number)
    except CodingError:
        return
    assert len(pieces) == number
    for piece in pieces:
        assert piece is None or payload.seal(piece) in rows.tobytes()


def test_a_short_payload_is_refused():
    rows = rows_of(some_pieces(0, 20), 8)
    for keep in (0, 1, COPIES * directory_rows(20, 8) - 1):
        with pytest.raises(CodingError, match="does not fit the payload"):
            payload.read_pieces(rows[:keep], np.zeros(keep, bool), 20)
    cut = payload.read_pieces(rows[:-1], np.zeros(len(rows) - 1, bool), 20)
    assert cut[0] is not None
    assert cut[-1] is None
