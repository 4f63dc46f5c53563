"""Format 2: a header that describes sections, and parts of the payload with a redundancy of their own."""

import dataclasses
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.config import MixingConfig
from helix_jax.strands import header as headers
from helix_jax.strands import layouts, outer, sections
from helix_jax.strands.sections import HeaderError, Section

BITS = 287  # of 150 nt in the set helix
SECTIONS = (
    Section.of("preview", 120, sections.numbers(4, 36, 44)),
    Section.of("sound", 700),
    Section.of("av1", 3000, sections.numbers(75, 288, 360)),
)


def header(described=SECTIONS, symbol_bytes=31, **changes):
    values = {
        "kind": "video",
        "constraints": "helix",
        "tables_hash": bytes(range(8)),
        "key": b"12345678",
        "content_bytes": sum(section.size for section in described),
        "digest": bytes(16),
        "sources": sum(section.part(symbol_bytes).sources for section in described),
        "symbol_bytes": symbol_bytes,
        "index_bits": 9,
        "check_bits": 24,
        "repairs": 0,
        "mixing": MixingConfig(),
        "frames": 75,
        "height": 288,
        "width": 360,
        "fps": Fraction(25),
        "sections": described,
    }
    return headers.Header(**(values | changes))


def with_crc(data):
    return data + zlib.crc32(data).to_bytes(4, "big")


@given(
    described=st.lists(
        st.builds(
            Section,
            number=st.integers(1, 255),
            size=st.integers(0, 1 << 24),
            repairs=st.integers(0, 1000),
            digest=st.binary(min_size=8, max_size=8),
            details=st.binary(max_size=12),
        ),
        min_size=1,
        max_size=20,
    ),
    aspect=st.fractions(min_value=Fraction(1, 100), max_value=100, max_denominator=1000),
    colours=st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 1)),
    measured=st.sampled_from([(), (3512, 2420)]),
    frames=st.integers(1, 1 << 31),
)
def test_a_header_comes_back(described, aspect, colours, measured, frames):
    described = tuple(described)
    before = header(described, aspect=aspect, colours=colours, measured=measured, frames=frames)
    data = before.to_bytes()
    assert len(data) in headers.SIZES
    assert headers.intact(data)
    assert headers.Header.from_bytes(data) == before
    assert before.format == 2
    before = dataclasses.replace(before, index_bits=32)
    layout = before.layout(8 * 31 + 32 + 24)
    assert [part.repairs for part in layout.sections] == [section.repairs for section in described]
    assert layout.header_bytes == len(data)


def test_three_sections_fit_the_shortest_header():
    assert header().size == headers.SIZE
    tokens = {"mode": "prior", "digits": 8, "model_hash": b"m" * 8, "prior_hash": b"p" * 6, "update": 4}
    both = (Section.of("tokens", 900), Section.of("sound", 700))
    assert header(both, **tokens).size == headers.SIZE
    assert headers.Header.from_bytes(header(both, **tokens).to_bytes()) == header(both, **tokens)


def test_what_is_unknown_is_skipped_or_refused():
    data = header((*SECTIONS, Section(99, 10))).to_bytes()
    read = headers.Header.from_bytes(data)
    assert read.sections[-1].kind == "unknown 99"
    assert read.layout(BITS).sections[-1] == layouts.Part(1, 0)
    body = header().to_bytes()[:-4].rstrip(b"\0")  # the last section ends with details that are not zero
    optional = (body + sections.field(200, b"later")).ljust(headers.SIZES[1] - 4, b"\0")
    assert headers.Header.from_bytes(with_crc(optional)) == header()
    needed = (body + sections.field(100, b"later")).ljust(headers.SIZES[1] - 4, b"\0")
    with pytest.raises(HeaderError, match="field 100 is unknown: use a newer release"):
        headers.Header.from_bytes(with_crc(needed))


@given(st.binary(max_size=108), st.integers(0, 1 << 32))
def test_any_bytes_are_a_header_or_an_error(data, seed):
    """Both garbage and true headers with wrong bytes give a header or a HeaderError."""
    rng = np.random.default_rng(seed)
    true = np.frombuffer(header().to_bytes()[:-4], np.uint8).copy()
    places = rng.integers(0, len(true), 3)
    true[places] = rng.integers(0, 256, 3)
    for body in ((b"\2" + data).ljust(108, b"\0")[:108], true.tobytes()):
        try:
            read = headers.Header.from_bytes(with_crc(body))
            read.layout(BITS)
        except HeaderError:
            pass


@pytest.mark.parametrize("changes", [{"repairs": 3}, {"digest": b"1" * 16}, {"sources": 5}, {"aspect": Fraction(0)}])
def test_a_header_that_contradicts_itself_is_refused(changes):
    with pytest.raises(HeaderError):
        header(**changes)
    with pytest.raises(HeaderError, match="format 1"):
        header(sections=(), content_bytes=1, digits=8, aspect=Fraction(4, 3))


@pytest.mark.parametrize("count", [1, 3, 5, 12, 60])
@pytest.mark.parametrize("bits", [100, BITS, 2000])
def test_header_strands_of_any_size_are_found(bits, count):
    described = tuple(Section.of("av1", 1000 + n, sections.numbers(25, 288, 360)) for n in range(count))
    made = header(described)
    if bits == 100 and count > 12:
        with pytest.raises(HeaderError, match="fewer sections"):
            headers.header_packets(made, bits)
        return
    words = headers.header_packets(made, bits)
    assert len(words) == headers.header_strands(bits, made.size)
    rng = np.random.default_rng(count)
    kept = rng.permutation(words)[: len(words) // 2]
    noise = rng.integers(0, 1 << 32, (50, words.shape[1]), np.uint32)
    (found,), mask = headers.find_headers(np.concatenate([noise, kept]), bits)
    assert found == made
    assert mask.sum() == len(kept)
    assert not mask[:50].any()


@pytest.fixture(scope="module")
def pool():
    layout = layouts.plan(BITS, 0, 0, sections=[(120, 3.0), (700, 0.5), (3000, 0.1), (0, 0)])
    rng = np.random.default_rng(3)
    payload = rng.bytes(layout.payload_bytes)
    ends = np.cumsum([part.sources for part in layout.parts]) * layout.symbol_bytes
    own = [
        payload[end - part.sources * layout.symbol_bytes : end] for part, end in zip(layout.parts, ends, strict=True)
    ]
    tests = [outer.matching(outer.payload_digest(data)[:8]) for data in own]
    return layout, own, tests, outer.encode(layout, payload)


def test_each_part_has_its_redundancy(pool):
    layout, _, _, symbols = pool
    assert [part.repairs for part in layout.parts] == [
        layouts.repairs_of(share, part.sources) for share, part in zip((3.0, 0.5, 0.1, 0), layout.parts, strict=True)
    ]
    assert layout.sources == sum(layout.block_sources)
    assert len(symbols) == layout.packets
    block, symbol = layout.locate(np.arange(layout.packets))
    np.testing.assert_array_equal(layout.index_of(block, symbol), np.arange(layout.packets))
    assert np.bincount(block).tolist() == [
        a + b for a, b in zip(layout.block_sources, layout.block_repairs, strict=True)
    ]


def test_a_part_comes_back_as_far_as_its_own_redundancy_reaches(pool):
    layout, own, tests, symbols = pool
    block, _ = layout.locate(np.arange(layout.packets))
    rng = np.random.default_rng(5)
    kept = []
    for number in range(layout.blocks):  # of the first parts more is lost than of the third, which fails all the same
        rows = rng.permutation(np.flatnonzero(block == number))
        kept.append(rows[: len(rows) - (layout.block_repairs[number] - 2 if number < 2 else 20)])
    index = rng.permutation(np.concatenate(kept))
    result = outer.decode(layout, index, symbols[index], tests)
    assert result.parts_verified == (True, True, False, False)
    assert not result.verified
    first, second = (layout.parts[n].sources for n in (0, 1))
    assert not result.lost[: first + second].any()
    assert result.lost[first + second :].any()
    data = result.symbols.tobytes()
    assert data.startswith(own[0] + own[1])


def test_a_wrong_packet_of_one_part_harms_no_other(pool):
    layout, own, tests, symbols = pool
    wrong = symbols.copy()
    wrong[layout.parts[0].sources + 3] ^= 7  # of the second part
    result = outer.decode(layout, np.arange(layout.packets), wrong, tests)
    assert result.parts_verified == (True,) * 4
    assert result.symbols.tobytes() == b"".join(own)
    assert result.rejected.tolist() == [layout.parts[0].sources + 3]


def test_sections_are_whole_symbols():
    layout = layouts.plan(BITS, 0, 0, sections=[(120, 0.1)])
    for changes in ({"payload_bytes": 119}, {"repairs": 1}, {"sections": (layouts.Part(0, 0),)}):
        with pytest.raises(ValueError, match=r"sections|repair"):
            dataclasses.replace(layout, **changes)
