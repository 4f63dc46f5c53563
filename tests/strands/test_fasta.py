"""FASTA: whatever people and tools do to the text, the same strands come back, or a clear error."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helix_jax.files import OutputError
from helix_jax.strands import fasta


def text_of(strand):
    return "".join("ACGT"[base] for base in strand)


@given(strands=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 90)), elements=st.integers(0, 3)))
def test_round_trip(tmp_path_factory, strands):
    path = tmp_path_factory.mktemp("fasta") / "pool.fasta"
    fasta.write(path, strands, lambda i: f"packet {i}")
    lines = path.read_text().splitlines()
    assert lines[0] == ">strand_0000000 packet 0"
    assert lines[1::2] == [text_of(strand) for strand in strands]
    pool = fasta.read(path)
    assert list(pool) == [strands.shape[1]]
    np.testing.assert_array_equal(pool[strands.shape[1]], strands)


def test_wrapped_lower_case_dos_blank_and_lengths(tmp_path):
    path = tmp_path / "pool.fasta"
    path.write_bytes(b"\r\n>a\r\nac\r\nGT\r\n\r\n>b x y\nTT\n>\nacgt\n>d\nA\n\nC\nG\nT")
    pool = fasta.read(path)
    assert {length: [text_of(s) for s in group] for length, group in pool.items()} == {4: ["ACGT"] * 3, 2: ["TT"]}
    assert list(pool) == [4, 2]
    assert all(group.dtype == np.uint8 for group in pool.values())


def test_gzip_both_ways(tmp_path):
    strands = np.array([[0, 1, 2, 3]], np.uint8)
    fasta.write(tmp_path / "a.fasta.gz", strands, ["x"])
    np.testing.assert_array_equal(fasta.read(tmp_path / "a.fasta.gz")[4], strands)
    first = (tmp_path / "a.fasta.gz").read_bytes()
    assert gzip.decompress(first) == b">strand_0000000 x\nACGT\n"
    (tmp_path / "cut.fasta.gz").write_bytes(first[:-9])
    with pytest.raises(fasta.FastaError, match=r"cut\.fasta\.gz cannot be read"):
        fasta.read(tmp_path / "cut.fasta.gz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b">a\nAC\n>b\nACGN\n>c\nNN\n", r"record 2 \(b\) has the letter 'N' at position 4"),
        (b">a\nAC\n>b\nAUG\n", r"record 2 \(b\) has the letter 'U' at position 2"),
        (b">a\nA C\n", r"the letter ' '"),
        (b">a\nACGT\n>b\nAN\n>c\nACGR\n", r"record 2 \(b\) has the letter 'N' at position 2"),
        (b">a\nACGR\n>b\nAN\n", r"record 1 \(a\) has the letter 'R' at position 4"),
        (b">a\nA-C\n", r"the letter '-'"),
        (b">a\nACGT\n>b\n>c\nAC\n", r"record 2 \(b\) has no letters"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"ACGT\n", "not a FASTA file"),
        (b"@a\nACGT\n+\nIIII\n", "not a FASTA file"),
        (b">a\nAC\xc3\xa9T\n", "not a FASTA file"),
        (bytes(range(256)), "not a FASTA file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "not a FASTA file"),
        (b">a\n" + bytes(range(128, 256)), "not a FASTA file"),
    ],
)
def test_bad_files_are_named(tmp_path, content, words):
    path = tmp_path / "bad.fasta"
    path.write_bytes(content)
    with pytest.raises(fasta.FastaError, match=words) as caught:
        fasta.read(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(fasta.FastaError, match="no such file"):
        fasta.read(tmp_path / "none.fasta")
    with pytest.raises(fasta.FastaError, match="cannot be read"):
        fasta.read(tmp_path)


def test_write_refuses(tmp_path):
    good = np.zeros((2, 5), np.uint8)
    path = tmp_path / "pool.fasta"
    for strands, describe, words in [
        (good + 4, ["", ""], "base 4"),
        (good.astype(int), ["", ""], "uint8"),
        (good[0], [""], "uint8"),
        (good, ["one"], "1 comments for 2 strands"),
        (good, ["a", "b\n>c"], "line break"),
    ]:
        with pytest.raises(ValueError, match=words):
            fasta.write(path, strands, describe)
    with pytest.raises(OutputError):
        fasta.write(tmp_path / "none" / "pool.fasta", good, ["", ""])
    assert not path.exists()


def test_comment_of_other_letters_stays_readable(tmp_path):
    fasta.write(tmp_path / "pool.fasta", np.zeros((1, 5), np.uint8), ["caf\xe9"])
    assert fasta.read(tmp_path / "pool.fasta")[5].shape == (1, 5)
