"""Packets: the layout wastes little, the fields lie where stated, and the check fails as often as stated."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.strands import layouts, packets

KEY = b"pool key"


def test_plan_of_the_default_pool():
    layout = layouts.plan(287, 256 * 1024, 0)
    assert (layout.symbol_bytes, layout.index_bits, layout.check_bits, layout.unused_bits) == (32, 13, 18, 0)
    assert (layout.sources, layout.blocks, layout.packets, layout.repairs) == (8192, 1, 8192, 0)
    assert 8 * layout.payload_bytes / (150 * layout.packets) > 1.70


@given(
    bits=st.integers(20, 700),
    payload_bytes=st.integers(0, 1 << 24),
    redundancy=st.one_of(st.just(0), st.floats(0, 3)),
    multiple=st.sampled_from([1, 1, 2, 3]),
)
def test_plan_fits_and_is_the_widest(bits, payload_bytes, redundancy, multiple):
    def fits(symbol_bytes):
        sources = max(1, -(-payload_bytes // symbol_bytes))
        blocks = -(-sources // 8192)
        repairs = 0 if redundancy == 0 else np.ceil(redundancy * -(-sources // blocks) - 1e-9) + 2
        index_bits = max(1, int(np.ceil(np.log2(sources + blocks * repairs))))
        return index_bits <= 32 and 8 * symbol_bytes + index_bits + 16 <= bits, blocks, sources, repairs, index_bits

    widths = [s for s in range(multiple, 1 + bits // 8, multiple) if fits(s)[0]]
    if not widths:
        with pytest.raises(ValueError, match="longer strands"):
            layouts.plan(bits, payload_bytes, redundancy, multiple)
        return
    layout = layouts.plan(bits, payload_bytes, redundancy, multiple)
    assert layout.symbol_bytes == widths[-1]
    _, blocks, sources, repairs, index_bits = fits(widths[-1])
    assert (layout.blocks, layout.sources, layout.repairs) == (blocks, sources, repairs)
    assert layout.packets == sources + blocks * repairs
    assert layout.index_bits == index_bits
    assert layout.check_bits == min(32, bits - index_bits - 8 * layout.symbol_bytes) >= 16
    assert sum(layout.block_sources) == sources
    assert max(layout.block_sources) <= 8192
    assert max(layout.block_sources) - min(layout.block_sources) <= 1


def test_plan_counts_repairs_without_binary_hair():
    layout = layouts.plan(287, 33 * 100, 0.07)
    assert (layout.sources, layout.repairs) == (100, 9)
    assert layouts.plan(287, 0, 0.1).repairs == 3
    assert layouts.plan(287, 0, 0.1).packets == 4


def test_plan_refuses():
    for bits in (0, 16, 24):
        with pytest.raises(ValueError, match="longer strands"):
            layouts.plan(bits, 1, 0)
    assert layouts.plan(25, 1, 0).symbol_bytes == 1
    with pytest.raises(ValueError, match="longer strands"):
        layouts.plan(60, 1 << 40, 0)
    for redundancy in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a share"):
            layouts.plan(287, 100, redundancy)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"index_bits": 2, "payload_bytes": 50}, "do not fit an index"),
        ({"index_bits": 33}, "field widths"),
        ({"symbol_bytes": 0}, "field widths"),
        ({"check_bits": 80}, "field widths"),
        ({"repairs": -1}, "negative"),
        ({"bits": 50}, "a strand has 50"),
        ({"index_bits": 32, "bits": 200, "repairs": 1 << 25}, "2\\^24"),
    ],
)
def test_layout_refuses_contradictions(fields, words):
    good = {"bits": 100, "symbol_bytes": 8, "index_bits": 10, "check_bits": 16, "payload_bytes": 5, "repairs": 0}
    assert layouts.PacketLayout(**good).unused_bits == 10
    with pytest.raises(ValueError, match=words):
        layouts.PacketLayout(**{**good, **fields})


@pytest.mark.parametrize(("payload_bytes", "redundancy"), [(0, 0), (10, 0), (10, 1.0), (60_000, 0.01), (50_000, 0)])
def test_locate_follows_the_stated_order(payload_bytes, redundancy):
    layout = layouts.plan(50, payload_bytes, redundancy)
    sizes = layout.block_sources
    expected = [(block, symbol) for block, size in enumerate(sizes) for symbol in range(size)]
    expected += [(block, size + r) for block, size in enumerate(sizes) for r in range(layout.repairs)]
    block, symbol = layout.locate(np.arange(layout.packets))
    assert list(zip(block.tolist(), symbol.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(layout.index_of(block, symbol), np.arange(layout.packets))
    for index in (-1, layout.packets):
        with pytest.raises(ValueError, match="out of range"):
            layout.locate([index])


@given(data=st.data(), bits=st.integers(25, 330), payload_bytes=st.integers(0, 5000), seed=st.integers(0, 1 << 32))
def test_fields_lie_where_stated(data, bits, payload_bytes, seed):
    try:
        layout = layouts.plan(bits, payload_bytes, data.draw(st.sampled_from([0, 0.3])))
    except ValueError:
        return
    rng = np.random.default_rng(seed)
    index = rng.integers(0, layout.packets, 3)
    symbols = rng.integers(0, 256, (3, layout.symbol_bytes), np.uint8)
    words = packets.pack(layout, KEY, index, symbols)
    assert words.dtype == np.uint32
    check = packets.packet_check(KEY, index, symbols)
    for row, i, symbol, c in zip(words, index, symbols, check, strict=True):
        text = "".join(f"{word:032b}" for word in row)
        wanted = f"{i:0{layout.index_bits}b}" + "".join(f"{byte:08b}" for byte in symbol)
        wanted += f"{c:032b}"[: layout.check_bits]
        assert text == wanted.ljust(32 * -(-bits // 32), "0")
    back, symbols_back, ok = packets.unpack(layout, KEY, words)
    assert ok.all()
    np.testing.assert_array_equal(back, index)
    np.testing.assert_array_equal(symbols_back, symbols)
    flipped = data.draw(st.integers(0, 32 * words.shape[1] - 1))
    words[:, flipped // 32] ^= np.uint32(1 << (31 - flipped % 32))
    back, _, ok = packets.unpack(layout, KEY, words)
    in_index = flipped < layout.index_bits  # there the mask changes too: caught as often as any garbage
    assert in_index or not ok.any()
    assert in_index or (back == -1).all()


def test_many_packets_at_once():
    layout = layouts.plan(287, 32 * 70_000, 0)
    symbols = np.random.default_rng(1).integers(0, 256, (70_000, layout.symbol_bytes), np.uint8)
    words = packets.pack(layout, KEY, np.arange(70_000), symbols)
    index, back, ok = packets.unpack(layout, KEY, words)
    assert ok.all()
    np.testing.assert_array_equal(index, np.arange(70_000))
    np.testing.assert_array_equal(back, symbols)


def test_index_out_of_range_and_unused_bits():
    layout = layouts.PacketLayout(100, 4, 8, 32, 4 * 200, 0)
    symbols = np.ones((3, 4), np.uint8)
    words = packets.pack_fields(100, 8, 32, KEY, np.array([199, 200, 255]), symbols)
    index, _, ok = packets.unpack(layout, KEY, words)
    assert ok.tolist() == [True, False, False]
    assert index.tolist() == [199, 200, 255]
    for bit in (72, 73, 79, 80, 99, 100, 127):  # unused bits of the strand, and those of the word after it
        changed = words.copy()
        changed[:, bit // 32] ^= np.uint32(1 << (31 - bit % 32))
        index, _, ok = packets.unpack(layout, KEY, changed)
        assert not ok.any()
        assert (index == -1).all()


def test_bad_arguments():
    layout = layouts.plan(100, 50, 0)
    symbols = np.zeros((1, layout.symbol_bytes), np.uint8)
    for index in (-1, layout.packets):
        with pytest.raises(ValueError, match="out of range"):
            packets.pack(layout, KEY, [index], symbols)
    with pytest.raises(ValueError, match="symbols"):
        packets.pack(layout, KEY, [0, 1], symbols)
    with pytest.raises(ValueError, match="8 bytes"):
        packets.pack(layout, b"short", [0], symbols)
    with pytest.raises(ValueError, match=r"uint32\[n, 4\]"):
        packets.unpack(layout, KEY, np.zeros((1, 3), np.uint32))
    index, _, ok = packets.unpack(layout, KEY, np.zeros((0, 4), np.uint32))
    assert index.shape == ok.shape == (0,)


@given(rows=st.lists(st.binary(min_size=7, max_size=7), min_size=1, max_size=5), start=st.integers(0, 2**32 - 1))
def test_crc_is_zlibs(rows, start):
    data = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 7)
    assert packets.crc32(data, start).tolist() == [zlib.crc32(row, start) for row in rows]


def test_check_values_are_frozen():
    """Written pools depend on them."""
    symbols = np.arange(6, dtype=np.uint8).reshape(2, 3)
    mask = packets.packet_check(KEY, [5, 5], symbols) ^ np.uint32(
        [zlib.crc32(KEY + bytes([0, 0, 0, 5]) + bytes(row)) for row in symbols.tolist()]
    )
    assert mask[0] == mask[1] == 0x7BD99FC7


def test_garbage_passes_as_rarely_as_stated():
    layout = layouts.plan(285, 256 * 1024, 0)
    assert (layout.check_bits, layout.unused_bits, layout.packets) == (16, 0, 1 << layout.index_bits)
    words = np.random.default_rng(7).integers(0, 1 << 32, (1 << 20, 9), np.uint32)
    words[:, 8] &= np.uint32(0xFFFFFFFF << (288 - 285) & 0xFFFFFFFF)
    passed = packets.unpack(layout, KEY, words)[2].sum()
    assert 4 <= passed <= 36  # 16 expected; outside with probability 1e-4 for an honest check


def test_strands_of_another_pool_fail_one_by_one():
    rng = np.random.default_rng(3)
    index, symbols = np.arange(8192), rng.integers(0, 256, (8192, 30), np.uint8)
    words = packets.pack_fields(261, 13, 8, KEY, index, symbols)
    for _ in range(20):
        passed = packets.unpack_fields(261, 13, 30, 8, rng.bytes(8), words)[2].sum()
        assert 8 <= passed <= 64  # 32 of 8192 expected; a plain keyed CRC gives 0 or 8192
