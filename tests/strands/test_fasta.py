"""FASTA: whatever people and tools do to the text, the same strands come back, or a clear error."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helix_jax.errors import HelixError
from helix_jax.files import OutputError
from helix_jax.strands import fasta, records
from helix_jax.strands.written import Written


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
    (tmp_path / "cut.fasta.gz").write_bytes(first[:10])
    with pytest.raises(fasta.RecordsError, match=r"cut\.fasta\.gz cannot be read"):
        fasta.read(tmp_path / "cut.fasta.gz")
    fasta.write(tmp_path / "A.FASTA.GZ", strands, ["x"])
    assert (tmp_path / "A.FASTA.GZ").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no strands: it is empty"),
        (b"\n\n", "holds no strands: it is empty"),
        (b">a\n>b\nACN\n>c\nACR\n", r"holds no strands: its records are 2 with other letters than bases, 1 without"),
        (b"ACGT\n", "neither FASTA nor FASTQ: it begins with 'ACGT"),
        (b"@a\nACGT\n+\nIIII\n", "it holds reads, and strands in FASTA are needed here"),
        (bytes(range(256)), "neither FASTA nor FASTQ"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "neither FASTA nor FASTQ"),
        (b">a\n" + bytes(range(128, 256)), "1 with other letters than bases"),
    ],
)
def test_files_without_strands_are_refused(tmp_path, content, words):
    path = tmp_path / "bad.fasta"
    path.write_bytes(content)
    with pytest.raises(fasta.RecordsError, match=words) as caught:
        fasta.read(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(HelixError, match="no such file"):
        fasta.read(tmp_path / "none.fasta")
    with pytest.raises(HelixError, match="it is a folder"):
        fasta.read(tmp_path)


def test_records_that_are_no_strands_are_erasures(tmp_path):
    path = tmp_path / "odd.fasta"
    path.write_bytes(b">a\nACGT\n>b\nACNT\n>c\n\n>d\nAC-T\n>e\nAC*T\n>f\nTTTT\n>g\nACG\n")
    with fasta.opened(path) as strands:
        groups = fasta.together(strands)
        assert {n: [text_of(row) for row in rows] for n, rows in groups.items()} == {4: ["ACGT", "TTTT"], 3: ["ACG"]}
        assert strands.left_out == {records.LETTERS: 3, records.EMPTY: 1}


def test_large_files_are_read_again_and_small_ones_kept(tmp_path, monkeypatch):
    """In portions of any size, as often as asked for, the same strands come."""
    path, draw = tmp_path / "pool.fasta", np.random.default_rng(5)
    rows = draw.integers(0, 4, (300, 40), dtype=np.uint8)
    fasta.write(path, rows, lambda i: f"source {i}")
    for block, kept in ((1 << 22, 1 << 27), (100, 1 << 27), (37, 0)):
        monkeypatch.setattr(records, "BLOCK", block)
        monkeypatch.setattr(fasta, "KEPT", kept)
        with fasta.opened(path) as strands:
            for _ in range(2):
                np.testing.assert_array_equal(np.concatenate(list(strands.portions())), rows)


@given(
    motifs=st.lists(st.text("ACGT", min_size=1, max_size=8), max_size=3),
    left=st.text("ACGT", max_size=20),
    right=st.text("ACGT", max_size=20),
    exempt=st.booleans(),
)
def test_comments_tell_how_strands_were_written(motifs, left, right, exempt):
    one = Written(tuple(motifs), left, right, exempt)
    assert Written.from_comment(one.comment() + " more=words here") == one
    assert Written.from_comment("source 12") == Written()


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
