"""Header strands: found among anything, complete from a few, and refused by name when they make no sense."""

import dataclasses
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.config import MixingConfig
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, packets

VIDEO = headers.Header(
    kind="video",
    constraints="helix",
    tables_hash=b"tabletab",
    key=b"keykeyke",
    content_bytes=1000,
    digest=b"0123456789abcdef",
    sources=32,
    symbol_bytes=32,
    index_bits=13,
    check_bits=18,
    repairs=5,
    mixing=MixingConfig(interleave=True, kronecker=False, offset=True),
    frames=33,
    height=241,
    width=319,
    fps=Fraction(30000, 1001),
    digits=8,
    model_hash=b"modelmod",
)
CODED = dataclasses.replace(VIDEO, mode="context", prior_hash=b"prior1")


def with_crc(data):
    return data[:-4] + struct.pack(">I", zlib.crc32(data[:-4]))


@given(
    kind=st.sampled_from(["bytes", "video"]),
    constraints=st.sampled_from(["helix", "strand+", "sixteen-letters!"]),
    key=st.binary(min_size=8, max_size=8),
    sources=st.integers(1, 2**32 - 1),
    symbol_bytes=st.integers(1, 2**16 - 1),
    repairs=st.integers(0, 2**32 - 1),
    switches=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    sizes=st.tuples(*[st.integers(1, 2**32 - 1)] * 5),
    digits=st.integers(1, 255),
    share=st.fractions(0, 1),
    mode=st.sampled_from(["raw", "context", "prior"]),
    prior_hash=st.binary(min_size=6, max_size=6),
)
def test_bytes_round_trip(
    kind, constraints, key, sources, symbol_bytes, repairs, switches, sizes, digits, share, mode, prior_hash
):
    header = dataclasses.replace(
        VIDEO,
        kind=kind,
        constraints=constraints,
        key=key,
        content_bytes=int(share * sources * symbol_bytes),
        sources=sources,
        symbol_bytes=symbol_bytes,
        repairs=repairs,
        mixing=MixingConfig(*switches),
        frames=sizes[0],
        height=sizes[1],
        width=sizes[2],
        fps=Fraction(sizes[3], sizes[4]),
        digits=digits,
        mode=mode,
        prior_hash=prior_hash if mode != "raw" else bytes(6),
    )
    data = header.to_bytes()
    assert len(data) == headers.SIZE == 112
    assert headers.Header.from_bytes(data) == header


def test_bytes_are_frozen():
    """Written pools depend on the places of the fields."""
    data = VIDEO.to_bytes()
    assert data[:9].hex() == "010100080" + "50d120020"
    assert data[9:25] == b"helix".ljust(16, b"\0")
    assert data[25:41] == b"tabletabkeykeyke"
    assert data[41:65] == (1000).to_bytes(8, "big") + b"0123456789abcdef"
    assert struct.unpack(">7I", data[65:93]) == (32, 5, 33, 241, 319, 30000, 1001)
    assert data[93:108] == b"modelmod" + bytes(7)
    assert data == with_crc(data)
    coded = CODED.to_bytes()
    assert (coded[2], coded[93:108]) == (1, b"modelmodprior1" + b"\0")
    assert dataclasses.replace(CODED, mode="prior").to_bytes()[2] == 2


def test_header_of_bytes_needs_no_video_fields():
    header = dataclasses.replace(
        VIDEO, kind="bytes", frames=0, height=0, width=0, fps=Fraction(0), digits=0, model_hash=bytes(8)
    )
    assert headers.Header.from_bytes(header.to_bytes()) == header
    with pytest.raises(headers.HeaderError, match="update 4 in a pool of bytes"):
        dataclasses.replace(header, update=4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "sound"),
        ("mode", "smallest"),
        ("constraints", ""),
        ("constraints", "a name of 17 char"),
        ("constraints", "h\xe9lix"),
        ("key", b"short"),
        ("tables_hash", bytes(9)),
        ("digest", bytes(8)),
        ("model_hash", b"modelmo"),
        ("prior_hash", bytes(8)),
        ("prior_hash", b"prior1"),  # in mode raw
        ("content_bytes", 32 * 32 + 1),
        ("sources", 0),
        ("symbol_bytes", 1 << 16),
        ("repairs", 1 << 32),
        ("frames", 0),
        ("height", 1 << 32),
        ("fps", Fraction(0)),
        ("fps", Fraction(1, 1 << 32)),
        ("digits", 256),
        ("update", 256),
    ],
)
def test_values_without_sense(field, value):
    word = {"content_bytes": "bytes of content", "fps": "frames per second", "constraints": "set name"}.get(
        field, field
    )
    with pytest.raises(headers.HeaderError, match=word):
        dataclasses.replace(VIDEO, **{field: value})


def test_damaged_newer_and_foreign_bytes():
    data = VIDEO.to_bytes()
    for wrong in (b"", data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(headers.HeaderError, match="CRC"):
            headers.Header.from_bytes(wrong)
    with pytest.raises(headers.HeaderError, match="format version 3"):
        headers.Header.from_bytes(with_crc(b"\x03" + data[1:]))
    for place, value in [(1, 9), (2, 9), (4, 8), (9, 255), (92, 0)]:
        wrong = bytearray(data)
        wrong[place] = value
        wrong[89:92] = bytes(3) if place == 92 else wrong[89:92]
        with pytest.raises(headers.HeaderError):
            headers.Header.from_bytes(with_crc(bytes(wrong)))


def test_layout():
    plan = layouts.plan(287, 1000, 0.1)
    header = dataclasses.replace(
        VIDEO,
        **{name: getattr(plan, name) for name in ("sources", "symbol_bytes", "index_bits", "check_bits", "repairs")},
    )
    layout = header.layout(287)
    assert layout == dataclasses.replace(plan, payload_bytes=plan.sources * plan.symbol_bytes)
    assert (layout.packets, layout.block_sources) == (plan.packets, plan.block_sources)
    with pytest.raises(headers.HeaderError, match="200 bits"):
        header.layout(200)


@pytest.mark.parametrize(
    ("bits", "count"), [(64, 255), (71, 255), (72, 224), (100, 92), (287, 16), (361, 16), (3000, 16)]
)
def test_loss_of_header_strands(bits, count):
    words = headers.header_packets(VIDEO, bits)
    assert words.shape == (count, -(-bits // 32))
    assert words.dtype == np.uint32
    rng = np.random.default_rng(bits)
    kept = count - int((0.5 if bits < 72 else 0.7) * count)
    for _ in range(20):
        rows = rng.permutation(count)[:kept]
        found, is_header = headers.find_headers(words[rows], bits)
        assert found == (VIDEO,)
        assert is_header.all()
    sources = -(-112 // min(112, (bits - 56) // 8))
    found, is_header = headers.find_headers(words[: sources - 1], bits)
    assert found == ()
    assert is_header.all()


@pytest.mark.parametrize("bits", [0, 32, 63])
def test_short_strands_are_refused(bits):
    assert not headers.usable(bits)
    with pytest.raises(headers.HeaderError, match="needs 64: use longer"):
        headers.header_packets(VIDEO, bits)
    with pytest.raises(headers.HeaderError, match="needs 64: use longer"):
        headers.find_headers(np.zeros((0, 2), np.uint32), bits)
    assert headers.usable(64)


def test_headers_are_found_among_data_garbage_and_other_pools():
    rng = np.random.default_rng(0)
    other = dataclasses.replace(VIDEO, key=b"otherkey", frames=7)
    layout = VIDEO.layout(287)
    data = packets.pack(layout, VIDEO.key, np.arange(20), rng.integers(0, 256, (20, 32), np.uint8))
    garbage = rng.integers(0, 1 << 32, (5000, 9), np.uint32)
    first, second = headers.header_packets(VIDEO, 287), headers.header_packets(other, 287)
    broken = first[:4] ^ np.uint32(1 << 7)
    words = np.concatenate([data, first[:7], first[5:9], garbage, broken, second[3:]])
    truth = np.repeat([0, 1, 0, 1], [20, 11, 5004, 13]).astype(bool)
    order = rng.permutation(len(words))
    found, is_header = headers.find_headers(words[order], 287)
    assert set(found) == {VIDEO, other}
    assert len(found) == 2
    np.testing.assert_array_equal(is_header, truth[order])
    assert headers.find_headers(data, 287)[0] == ()
    assert headers.find_headers(data[:0], 287)[1].shape == (0,)


def test_one_wrong_chunk_is_passed_over():
    """A chunk that passes its check by chance (2**-32)."""
    words = headers.header_packets(VIDEO, 287)
    index, chunks, _ = packets.unpack_fields(287, 24, 28, 32, b"helixjax", words)
    chunks[1] ^= 77
    words[1:2] = packets.pack_fields(287, 24, 32, b"helixjax", index[1:2], chunks[1:2])
    found, is_header = headers.find_headers(words, 287)
    assert found == (VIDEO,)
    assert is_header.all()


def test_tag_must_be_the_keys():
    words = headers.header_packets(VIDEO, 287)
    index, chunks, _ = packets.unpack_fields(287, 24, 28, 32, b"helixjax", words)
    moved = packets.pack_fields(287, 24, 32, b"helixjax", index ^ 1 << 8, chunks)
    found, is_header = headers.find_headers(moved, 287)
    assert found == ()
    assert is_header.all()


def test_only_a_newer_header(monkeypatch):
    written = dataclasses.replace(VIDEO, key=b"newerkey")
    data = with_crc(b"\x03" + written.to_bytes()[1:])
    monkeypatch.setattr(headers.Header, "to_bytes", lambda _: data)
    newer = headers.header_packets(written, 287)
    monkeypatch.undo()
    with pytest.raises(headers.HeaderError, match="format version 3"):
        headers.find_headers(newer, 287)
    both = np.concatenate([newer, headers.header_packets(VIDEO, 287)])
    assert headers.find_headers(both, 287)[0] == (VIDEO,)
