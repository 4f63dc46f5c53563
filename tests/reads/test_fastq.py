"""FASTQ: reads come back as they were written, in chunks, or a clear error."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.errors import HelixError
from helix_jax.files import OutputError
from helix_jax.reads import fastq
from helix_jax.strands import records


def reads_of(n, longest, seed=0):
    """Bases uint8[n, W], N among them and rubbish past the length, lengths and qualities."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest + 1, n)
    return (
        draw.integers(0, 5, (n, longest), dtype=np.uint8),
        lengths,
        draw.integers(0, 94, (n, longest), dtype=np.uint8),
    )


def all_of(path, **options):
    return list(fastq.read(path, **options))


@settings(max_examples=25)
@given(n=st.integers(1, 30), longest=st.integers(1, 60), chunk=st.integers(1, 31), seed=st.integers(0, 99))
def test_round_trip_in_chunks(tmp_path_factory, n, longest, chunk, seed):
    path = tmp_path_factory.mktemp("fastq") / "reads.fastq"
    bases, lengths, qualities = reads_of(n, longest, seed)
    fastq.write(path, bases, lengths, qualities)
    done = 0
    for got, long, told in fastq.read(path, chunk=chunk):
        assert (got.dtype, long.dtype, told.dtype) == (np.uint8, np.int32, np.uint8)
        assert len(got) == min(chunk, n - done)
        assert got.shape == told.shape == (len(long), long.max())
        np.testing.assert_array_equal(long, lengths[done : done + len(got)])
        real = np.arange(got.shape[1])[None] < long[:, None]
        np.testing.assert_array_equal(got[real], bases[done : done + len(got), : got.shape[1]][real])
        np.testing.assert_array_equal(told[real], qualities[done : done + len(got), : got.shape[1]][real])
        assert (got[~real] == records.PAD).all()
        assert not told[~real].any()
        done += len(got)
    assert done == n


def test_text_names_and_gzip(tmp_path):
    plain, packed = tmp_path / "a.fastq", tmp_path / "a.fastq.gz"
    bases, qualities = np.array([[0, 1, 4], [3, 2, 9]], np.uint8), np.array([[0, 40, 93], [1, 2, 200]], np.uint8)
    for path in (plain, packed):
        fastq.write(path, bases, [3, 2], qualities, names=["one of é", "two"])
    assert plain.read_bytes() == b'@one of \\xe9\nACN\n+\n!I~\n@two\nTG\n+\n"#\n'
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    fastq.write(packed, bases, [3, 2], qualities)
    assert gzip.decompress(packed.read_bytes()).startswith(b"@read_0000000\n")
    packed.rename(tmp_path / "named_otherwise.fasta")
    ((got, lengths, _),) = all_of(tmp_path / "named_otherwise.fasta")
    assert got.tolist() == [[0, 1, 4], [3, 2, 255]]
    assert lengths.tolist() == [3, 2]
    fastq.write(plain, np.zeros((0, 0), np.uint8), [], np.zeros((0, 0), np.uint8))
    assert all_of(plain) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_fasta_by_content(tmp_path, pack):
    path = tmp_path / "reads.fastq"
    path.write_bytes(pack(b">a\nacgtn\nNN\n>b\r\nTT\r\n"))
    ((bases, lengths, qualities),) = all_of(path)
    assert bases.tolist() == [[0, 1, 2, 3, 4, 4, 4], [3, 3, 255, 255, 255, 255, 255]]
    assert lengths.tolist() == [7, 2]
    assert qualities is None


def test_long_reads_make_smaller_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_LETTERS", 100)
    path = tmp_path / "reads.fastq"
    fastq.write(path, np.zeros((12, 30), np.uint8), np.full(12, 30), np.zeros((12, 30), np.uint8))
    assert [len(chunk[0]) for chunk in fastq.read(path)] == [3, 3, 3, 3]


def test_chunks_stream(tmp_path, monkeypatch):
    """A file is read as the chunks are asked for, not at once."""
    monkeypatch.setattr(records, "BLOCK", 1 << 16)
    path = tmp_path / "reads.fastq"
    path.write_bytes(b"@a\nACGT\n+\nIIII\n" * 50_000 + b"@broken\nAC\n+\n")
    with records.opened(path) as source:
        chunks = fastq.chunks(source, chunk=1000)
        assert next(chunks)[0].shape == (1000, 4)
        assert source.records < 10_000
        assert sum(len(chunk[0]) for chunk in chunks) == 49_000
        assert source.left_out == {records.CUT: 1}


def test_missing_empty_and_wrong_use(tmp_path):
    with pytest.raises(HelixError, match=r"none\.fastq: no such file"):
        all_of(tmp_path / "none.fastq")
    (tmp_path / "empty.fastq").write_bytes(b"")
    assert all_of(tmp_path / "empty.fastq") == []
    with pytest.raises(ValueError, match="chunk: 0"):
        fastq.read(tmp_path / "empty.fastq", chunk=0)
    with pytest.raises(OutputError):
        fastq.write(tmp_path / "no" / "a.fastq", *reads_of(1, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bases": np.zeros((2, 4), np.uint8)}, r"bases \[2, 4\], qualities \[2, 3\]"),
        ({"lengths": [3]}, r"lengths \[1\]"),
        ({"lengths": [0, 3]}, r"lengths 0\.\.3"),
        ({"lengths": [1, 4]}, r"lengths 1\.\.4; reads have 1 to 3"),
        ({"bases": np.full((2, 3), 5, np.uint8)}, "base 5"),
        ({"qualities": np.full((2, 3), 94, np.uint8)}, "quality 94"),
        ({"names": ["a"]}, "1 names for 2 reads"),
        ({"names": ["a", "b\nc"]}, "without line breaks"),
    ],
)
def test_write_refuses(tmp_path, change, said):
    zeros = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=said):
        fastq.write(tmp_path / "a.fastq", **{"bases": zeros, "lengths": [3, 3], "qualities": zeros} | change)
    assert not list(tmp_path.iterdir())
