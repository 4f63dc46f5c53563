"""Records: what laboratories' files hold besides plain reads costs nothing but itself, and is counted."""

import gzip
import io
import os
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.errors import HelixError
from helix_jax.reads import fastq
from helix_jax.strands import formats, records

GOOD = b"@good\nACGT\n+\nIIII\n"


def seen(path):
    """(reads as text, what was left out) of a file."""
    with records.opened(path) as source:
        reads = [
            "".join("ACGTN"[base] for base in row[:length])
            for bases, lengths, _ in fastq.chunks(source)
            for row, length in zip(bases, lengths, strict=True)
        ]
        assert source.records == len(reads) + sum(source.left_out.values())
        return reads, dict(source.left_out)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (b"@b\n\n+\n\n", records.EMPTY),
        (b"@b\n%b\n+\n%b\n" % (b"A" * 100_001, b"I" * 100_001), records.LONG),
        (b"@b\nACRT\n+\nIIII\n", records.LETTERS),
        (b"@b\nAC.T\n+\nIIII\n", records.LETTERS),
        (b"@b\nA*\n+\nII\n", records.LETTERS),
        (b"@b\nAUG\n+\nIII\n", records.LETTERS),
        (b"@b\nAC T\n+\nIIII\n", records.LETTERS),
        (b"@b\nA\xc3\xa9T\n+\nIIII\n", records.LETTERS),
        (b"@b\nACGT\n+\nII\x1fI\n", records.LETTERS),
        (b"@b\nACGT\n+\nIII\n", records.CUT),
        (b"@b\nACGT\nIIII\n", records.CUT),
        (b"stray line\n", records.CUT),
        (b"@b\nACGT\n+\n@@@\n", records.CUT),
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_odd_read_costs_only_itself(tmp_path, odd, reason, place):
    if odd[:1] != b"@" and place == "first":
        return
    path = tmp_path / "reads.fastq"
    path.write_bytes({"first": odd + GOOD * 2, "middle": GOOD + odd + GOOD, "last": GOOD * 2 + odd}[place])
    assert seen(path) == (["ACGT"] * 2, {reason: 1})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (b">b\n", records.EMPTY),
        (b">b\n\n", records.EMPTY),
        (b">b\n" + b"A" * 100_001 + b"\n", records.LONG),
        (b">b\n" + b"ACGT\n" * 30_000, records.LONG),
        (b">b\nAC\nRT\n", records.LETTERS),
        (b">b\nA*\n", records.LETTERS),
        (b">b\nAC-T\n", records.LETTERS),
        (b">b > c\n.\n", records.LETTERS),
    ],
)
@pytest.mark.parametrize("block", [1 << 20, 64])
def test_one_odd_fasta_record_costs_only_itself(tmp_path, odd, reason, block, monkeypatch):
    """Wherever it stands, and twice in a row."""
    monkeypatch.setattr(records, "BLOCK", block)
    path, good = tmp_path / "reads.fasta", b">good\nAC\nGT\n"
    for content, count in (
        (odd + good * 40, 1), (good * 20 + odd + good * 20, 1), (good * 40 + odd, 1), (good * 40 + odd * 2, 2)
    ):  # fmt: skip
        path.write_bytes(content)
        assert seen(path) == (["ACGT"] * 40, {reason: count})


def test_damaged_neighbours_are_counted_each(tmp_path):
    path = tmp_path / "reads.fastq"
    path.write_bytes(GOOD + b"@b\nACGT\n+\nIII\n" * 3 + GOOD)
    assert seen(path) == (["ACGT"] * 2, {records.CUT: 3})


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD * 2,
        b"\n\r\n" + GOOD * 2,
        GOOD + b"\n\n" + GOOD + b"\n \n\n",
        (GOOD * 2).replace(b"\n", b"\r\n"),
        (GOOD * 2)[:-1],
        GOOD + b"@b c d\nacgt\n+b c d\nIIII\n",
        gzip.compress(GOOD, mtime=0) + gzip.compress(b"\n" + GOOD, mtime=0),
        gzip.compress(b"", mtime=0) + gzip.compress(GOOD * 2, mtime=0),
        b"\xef\xbb\xbf>a\n\nAC\n\nGT\n>b\r\nACGT",
    ],
)
def test_marks_blank_lines_and_line_ends_are_passed_over(tmp_path, content):
    path = tmp_path / "reads"
    path.write_bytes(content)
    assert seen(path) == (["ACGT"] * 2, {})


def test_last_record_may_be_cut_off(tmp_path):
    path = tmp_path / "reads.fastq"
    for end in (b"@b", b"@b\nAC", b"@b\nACGT\n+\n", b"@b\nACGT\n+\nII"):
        path.write_bytes(GOOD + end)
        assert seen(path) == (["ACGT"], {records.CUT: 1})


@pytest.mark.parametrize("start", [b"@long\n", b">long\n"])
def test_memory_does_not_follow_a_record_without_end(tmp_path, start, monkeypatch):
    """Twelve megabytes in one line or in many; what follows is read."""
    monkeypatch.setattr(records, "BLOCK", 1 << 16)
    lines = (b"A" * 12_000_000, b"ACGT\n" * 2_400_000)
    for line in lines if start[:1] == b">" else lines[:1]:
        tail = GOOD if start[:1] == b"@" else b">good\nACGT\n"
        path = tmp_path / "reads"
        path.write_bytes(start + line + b"\n" + tail)
        tracemalloc.start()
        try:
            reads, left_out = seen(path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        assert reads == ["ACGT"]
        assert sum(left_out.values()) == 1


@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from([GOOD, b"@b\nAC\n+\nI\n", b"@e\n\n+\n\n", b"\n", b"@n\nNN\n+\n!!\n"]), max_size=30),
    block=st.integers(1, 40),
)
def test_block_borders_do_not_matter(tmp_path_factory, kinds, block):
    path = tmp_path_factory.mktemp("records") / "reads.fastq"
    path.write_bytes(GOOD + b"".join(kinds))
    whole, before = seen(path), records.BLOCK
    try:
        records.BLOCK = block
        assert seen(path) == whole
    finally:
        records.BLOCK = before
    reads = ["ACGT"] + [
        {GOOD: "ACGT", b"@n\nNN\n+\n!!\n": "NN"}[kind] for kind in kinds if kind in (GOOD, b"@n\nNN\n+\n!!\n")
    ]
    assert whole[0] == reads


@pytest.mark.parametrize("content", [GOOD * 3000, b">a\nACGT\n" * 3000, gzip.compress(GOOD * 3000, mtime=0)])
def test_pipes_are_opened_once_and_lose_nothing(tmp_path, content, monkeypatch):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert len(seen(path)[0]) == 3000
    writer.join()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert len(seen("-")[0]) == 3000


def test_strands_in_a_pipe_can_be_read_twice(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b">a\nACGT\n" * 50_000,))
    writer.start()
    with records.opened(path, again=True) as source:
        for _ in range(2):
            assert sum(len(lengths) for _, lengths, _ in source.portions()) == 50_000
    writer.join()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"BAM\1\xff\xff", mtime=0), ["cannot be read", "get it again"]),
        (b"CRAM\3\0", ["cannot be read", "REF_PATH"]),
        (b"BZh91AY&SY", ["bzip2 data that are cut short", "get it again"]),
        (b"\xfd7zXZ\0\0", ["xz data that are cut short", "get it again"]),
        (b"\xfd7zXZ\0 no block", ["damaged xz data", "get it again"]),
        (b"\x28\xb5\x2f\xfd\0", ["zstd data that are cut short", "get it again"]),
        (b"PK\3\4\x14\0", ["zip archive", "Excel"]),
        (b"\xd0\xcf\x11\xe0\xa1", ["old Excel file", ".xlsx"]),
        (b"Name,Length\ns1,20\ns2,30\n", ["table without a column of sequences"]),
        (b"ACGT" * 20 + b"\n" + b"ACGT" * 20 + b"\n", ["bare sequences"]),
        (b"\x89HDF\r\n\x1a\n", ["FAST5", "dorado"]),
        (b"\0\0\0\x18ftypmp42", ["video", "encode"]),
        (b"\xff\xfe>\0a\0", ["UTF-16", "iconv"]),
        (b"# helix_jax timing schedule 1\n", ["schedule", "timing simulate"]),
        (b"hello\n", ["neither FASTA nor FASTQ", "begins with 'hello"]),
        (b"\x1f\x8bnot gzip", ["damaged gzip"]),
        (gzip.compress(gzip.compress(b">a\nACGT\n", mtime=0), mtime=0), ["compressed twice"]),
    ],
)
def test_other_formats_are_named_with_the_remedy(tmp_path, content, words):
    path = tmp_path / "reads.fastq"
    path.write_bytes(content)
    with pytest.raises(records.RecordsError) as caught:
        seen(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_many_empty_columns_take_no_time(tmp_path):
    path = tmp_path / "sheet.tsv"
    path.write_bytes(b"x" + b"\t" * 60_000 + b"\n")
    with pytest.raises(records.RecordsError, match="neither FASTA nor FASTQ"):
        seen(path)


def test_gzip_data_that_end_in_damage_give_what_comes_before(tmp_path):
    path, whole = tmp_path / "reads.fastq.gz", gzip.compress(GOOD * 5000, mtime=0)
    for damaged in (whole[:-8], whole + b"garbage", whole + gzip.compress(GOOD, mtime=0)[:12]):
        path.write_bytes(damaged)
        reads, left_out = seen(path)
        assert reads == ["ACGT"] * 5000
        assert left_out[records.CUT] in (1, 2)  # the damage, and a record that it cut
    for damaged in (b"\x1f\x8b", whole[:10], whole[:10] + b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises(records.RecordsError, match=r"cannot be read.*get it again"):
            seen(path)


@pytest.mark.parametrize(
    "content",
    [
        b"@a\nAC\nGT\n+\nII\nII\n" * 3,
        b"@a\n\nACGT\n\n+\n\nIIII\n\n" * 3,
        b"@a \nACGT \n+ \nIIII \n" * 3,
        b"@a\nACGT\n+\n@III\n" + b"@a\nA\nC\nGT\n+a\n@\nIII\n" + GOOD,
        GOOD.replace(b"\n", b"\r") * 3,
        b">a\rAC\rGT\r" * 3,
        b"\n" * 200_000 + b"\xef\xbb\xbf" + GOOD * 3,
    ],
)
@pytest.mark.parametrize("block", [1 << 20, 7])
def test_other_ways_to_lay_out_lines(tmp_path, content, block, monkeypatch):
    """Wrapped, with blank lines or spaces between, ended by carriage returns, after many blank lines."""
    monkeypatch.setattr(records, "BLOCK", block if len(content) < 1000 else 1 << 20)
    path = tmp_path / "reads"
    path.write_bytes(content)
    assert seen(path) == (["ACGT"] * 3, {})


def test_commands_of_remedies_hold_any_name():
    found = formats.recognise(b"7z\xbc\xaf\x27\x1c")
    assert found.remedy("two words.7z") == "convert it, for example with: 7z x -so 'two words.7z' | helix-jax ... -"
    assert "FILE" in found.remedy("standard input")


def test_notes_and_names(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b">s0 header key=0011223344556677 left=ACGT\nAC\n>s1 source 1 key=none\nAC\n")
    with records.opened(path) as source:
        list(source.portions())
        assert source.notes == {("0011223344556677", "left=ACGT"): 1}
    path.write_bytes(b"@r 1:N:0:1\nAC\n+\nII\n@r 2:N:0:1\nAC\n+\nII\n@q/2\nAC\n+\nII\n@q/1\nA\n+\nI\n")
    with records.opened(path) as source:
        np.testing.assert_array_equal(np.concatenate([lengths for _, lengths, _ in source.portions()]), [2, 2, 2, 1])
        names = [name for portion in source.named() for name in portion.names]
        assert names == [b"r 1:N:0:1", b"r 2:N:0:1", b"q/2", b"q/1"]
    path.write_bytes(b"@q/2\r\nAC\r\n+\r\nII\r\n@q/1\r\nA\r\nC\r\n+\r\nI\r\nI\r\n")
    with records.opened(path) as source:
        assert [name for portion in source.named() for name in portion.names] == [b"q/2", b"q/1"]


# ---- several files -----------------------------------------------------------------------------------------


def test_several_files_are_read_as_one(tmp_path):
    paths = [tmp_path / name for name in ("a.fastq", "b.gz", "empty", "c.fastq")]
    contents = (GOOD, gzip.compress(GOOD * 2 + b"@b\nACRT\n+\nIIII\n"), b"", GOOD + b"@b\nAC\n+\n")
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with records.opened(paths) as source:
        assert (source.kind, source.files, source.name) == ("fastq", 3, f"{paths[0]} and 3 more")
        for _ in range(2):
            assert sum(len(lengths) for _, lengths, _ in source.portions()) == 4
            assert (source.records, source.left_out) == (6, {records.LETTERS: 1, records.CUT: 1})


def test_strands_and_reads_are_told_apart(tmp_path):
    for name, content in (("a", b">a\nACGT\n"), ("b", GOOD), ("c", b"")):
        (tmp_path / name).write_bytes(content)
    for names, kind in (("a", "fasta"), ("ac", "fasta"), ("b", "fastq"), ("ab", "both"), ("c", None)):
        with records.opened([tmp_path / name for name in names]) as source:
            assert source.kind == kind
            assert sum(len(lengths) for _, lengths, _ in source.portions()) == len(names.replace("c", ""))
            empty = str(tmp_path / "c")
            assert source.passed_over == ({empty: f"{empty} is empty"} if names == "ac" else {})


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path):
    good, broken, late = (tmp_path / name for name in ("good", "broken", "late"))
    good.write_bytes(GOOD)
    broken.write_bytes(b"\x1f\x8b\x08")
    late.write_bytes(b"CRAM\3\0")  # recognised, and of no use
    with records.opened([broken, good, late]) as source:
        assert sum(len(lengths) for _, lengths, _ in source.portions()) == 1
        assert list(source.passed_over) == [str(broken), str(late)]
        assert "get it again" in source.passed_over[str(broken)]
    for paths in (broken, [broken], [broken, broken]):
        with pytest.raises(records.RecordsError, match="get it again"), records.opened(paths):
            pass
    with pytest.raises(HelixError, match="no such file"), records.opened([good, tmp_path / "none"]):
        pass


def test_a_damaged_end_is_told(tmp_path):
    path, other = tmp_path / "a.gz", tmp_path / "b"
    path.write_bytes(gzip.compress(GOOD * 5000, mtime=0)[:-8])
    other.write_bytes(GOOD)
    with records.opened([path, other]) as source:
        assert sum(len(lengths) for _, lengths, _ in source.portions()) == 5001
        assert source.left_out == {records.CUT: 1}
        (warning,) = source.warnings
        assert str(path) in warning
        assert "what follows that place is lost" in warning


def test_two_files_of_pairs_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK", 1 << 13)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(GOOD * 4000)
    two.write_bytes(GOOD * 4000)
    with records.opened([(one, two), one]) as source:
        ends = [(portion.end, len(portion.lengths)) for portion in source.named()]
    ahead = np.cumsum([{1: 1, 2: -1, 0: 0}[end] * count for end, count in ends])
    assert np.abs(ahead).max() < 1500
    assert [sum(count for end, count in ends if end == which) for which in (0, 1, 2)] == [4000] * 3
