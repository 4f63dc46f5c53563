"""Packed files in zstd: where it is smaller, in portions, and forged frames that do not grow without limit."""

import contextlib
import io
import json
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from helix_jax import compression, contents, packing
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.contents import Content
from helix_jax.errors import DecodeError, HelixError
from helix_jax.reference import archive
from helix_jax.strands import fasta
from helix_jax.strands.bases import Bases
from helix_jax.strands.sections import Section, numbers

CONFIG = CodecConfig(constraints="goldman", strands=StrandConfig(length=100))
TEXT = b"".join(b"line %d of the tale\n" % n for n in range(400))
NOISE = np.random.default_rng(0).bytes(2000)


def back(pool):
    return {pool.strands.shape[1]: pool.strands}


def expanded(data, size, step=7):
    return b"".join(compression.expanded((data[a : a + step] for a in range(0, len(data), step)), size))


@given(st.binary(max_size=3000), st.integers(1, 300))
def test_it_comes_back(data, step):
    with compression.compressed(io.BytesIO(data)) as file:
        file.seek(0)
        assert expanded(file.read(), len(data), step) == data


def test_what_gets_smaller_is_compressed():
    small, large = packing.pack(TEXT, config=CONFIG), packing.pack(TEXT, config=CONFIG, compress=False)
    assert small.count < large.count / 2
    (section,) = small.header.sections
    assert compression.original_size(section) == len(TEXT)
    assert large.header.format == 1
    assert packing.unpack(back(small))[0] == packing.unpack(back(large))[0] == TEXT
    assert small.header.key != large.header.key  # as their packets contradict each other


@pytest.mark.parametrize("data", [b"", b"a", NOISE])
def test_what_does_not_get_smaller_is_a_pool_of_format_1(data):
    pool = packing.pack(data, config=CONFIG)
    assert pool.header.format == 1
    np.testing.assert_array_equal(pool.strands, packing.pack(data, config=CONFIG, compress=False).strands)


def test_in_portions(monkeypatch):
    """A few symbols at once, and a compressed file that does not stay in memory: the same strands and bytes."""
    whole = packing.pack(TEXT, config=CONFIG, name="tale").strands
    monkeypatch.setattr(packing, "_MIXED", 5)
    monkeypatch.setattr(compression, "SPILL", 10)
    pool = packing.pack(TEXT, config=CONFIG, name="tale")
    np.testing.assert_array_equal(pool.strands, whole)
    assert packing.unpack(back(pool))[0] == TEXT


def test_memory_does_not_grow_with_what_is_expanded():
    """100 MB of zeros are 3 kB in zstd; beyond what is stated, it ends."""
    frame = zstandard.ZstdCompressor(level=19).compress(bytes(100 << 20))
    tracemalloc.start()
    try:
        for part in compression.expanded(iter([frame]), 100 << 20):
            assert len(part) <= compression.PART
        with pytest.raises(DecodeError, match="more than the 1,000 bytes that the pool states"):
            b"".join(compression.expanded(iter([frame]), 1000))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_forged_frames():
    frame = zstandard.ZstdCompressor().compress(TEXT)
    for data, size, words in (
        (frame, len(TEXT) + 1, "1 of the 8,"),
        (frame[:-9], len(TEXT), "do not come out"),
        (b"no zstd at all", 10, "no zstd"),
        (b"", 3, "3 of the 3 bytes"),
    ):
        with pytest.raises(DecodeError, match=words):
            expanded(data, size)
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27),
    ).compress(bytes(200 << 20))
    with pytest.raises(DecodeError, match="no zstd"):
        expanded(wide, 200 << 20)


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_any_bytes_expand_or_are_refused(data, size):
    frame = bytearray(zstandard.ZstdCompressor().compress(TEXT[:300]))
    frame[len(data) % len(frame)] ^= 1 + size % 255
    for forged in (data, bytes(frame)):
        with contextlib.suppress(DecodeError):
            assert len(expanded(forged, size)) == size


def test_what_is_not_known_is_refused_by_name():
    assert compression.original_size(Section.of("file", 9)) is None
    assert compression.original_size(Section.of("file", 9, numbers(1, 300) + b"later")) == 300
    with pytest.raises(DecodeError, match="compression 2, which this release does not know: use a newer one"):
        compression.original_size(Section.of("file", 9, numbers(2, 300)))
    with pytest.raises(DecodeError, match="forged"):
        compression.original_size(Section.of("file", 9, b"\x81"))


def test_a_file_that_changes_gives_no_pool(tmp_path, monkeypatch):
    """Else its note would say the SHA-256 of other bytes than the pool's, and they could never be unpacked."""
    plan, path = packing.plan_sections, tmp_path / "tale"

    def changing(*arguments):
        path.write_bytes(TEXT.replace(b"tale", b"joke"))
        return plan(*arguments)

    monkeypatch.setattr(packing, "plan_sections", changing)
    path.write_bytes(TEXT)
    with open(path, "rb") as file, pytest.raises(HelixError, match="changed while it was read"):
        packing.pack_draft(file, config=CONFIG, name="tale")


def stored(data, details):
    """A pool of a file that is stored in any way, as a later release or somebody else may do it."""
    station, about = Bases().open(CONFIG), {"kind": "bytes"}
    content = Content("file", data, details=details)
    layout = contents.plan(station, [(content.section, None)], about, "bytes")
    rows = contents.symbols([content], layout, b"12345678", CONFIG.mixing)
    about |= {"sections": (content.section,)}
    draft = station.draft(
        rows, about, layout, content_bytes=len(data), mixing=CONFIG.mixing, key=b"12345678"
    )  # fmt: skip
    return draft.written()


def test_a_forged_size_fills_neither_memory_nor_disk(tmp_path, run_cli):
    size = 1 << 50
    pool, section = stored(b"no zstd", numbers(1, size)), Section.of("file", 7, numbers(1, size))
    with pytest.raises(DecodeError, match=r"the pool states 1,125,899,906,842,624 bytes, .*: use unpack_parts"):
        packing.unpack(back(pool))
    with pytest.raises(DecodeError, match="use `helix-jax unpack`"):
        archive._file([(section, b"no zstd")])
    fasta.write_pool(tmp_path / "a.fasta", pool)
    for output in (tmp_path / "a", "-"):
        result = run_cli("unpack", tmp_path / "a.fasta", "-o", output)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "it has 1,125,899,906,842,624 bytes as the input states" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.fasta"]


@pytest.mark.parametrize(
    ("details", "words"),
    [(numbers(2, 300), "compression 2, which this release does not know"), (numbers(1, 7), "no zstd")],
)
def test_what_cannot_be_unpacked_is_listed_and_inspected(tmp_path, run_cli, details, words):
    fasta.write_pool(tmp_path / "a.fasta", stored(b"no zstd", details))
    (figures,) = json.loads(run_cli("list", tmp_path / "a.fasta", "--json").stdout)["pools"]
    assert figures["decodable"] == "no"
    page = tmp_path / "a.html"
    result = run_cli("unpack", tmp_path / "a.fasta", "-o", tmp_path / "a", "--report", page)
    assert (result.exit_code, words in result.stderr) == (4, True)
    assert "packets that came back" in page.read_text()
    shown = json.loads(run_cli("inspect", tmp_path / "a.fasta", "--json").stdout)["compressed"]
    assert shown == "zstd, 7 bytes before" or words in shown
