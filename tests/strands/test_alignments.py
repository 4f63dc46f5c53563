"""SAM, BAM and CRAM: reads come as the sequencer saw them, whatever was done with them since."""

import io
import os
import threading

import numpy as np
import pysam
import pytest

from helix_jax.strands import alignments, compression, records
from helix_jax.strands.portions import CUT, EMPTY, LETTERS

REFERENCE = "".join("ACGT"[base] for base in np.random.default_rng(5).integers(0, 4, 400))
HEADER = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr", "LN": 400}]}
TURN = str.maketrans("ACGT", "TGCA")
# name, flag, bases as they are in the file, qualities as they are in the file
ROWS = [
    ("a", 4, "ACGTT", "!+5?I"),
    ("b", 0, REFERENCE[10:40], "5" * 29 + "I"),
    ("c", 16, REFERENCE[50:90], "I" + "5" * 39),
    ("c", 256 + 16, REFERENCE[60:90], "5" * 30),
    ("c", 2048, REFERENCE[60:90], "5" * 30),
    ("d", 512 + 4, "ACGT", "IIII"),
    ("p", 77, "AACC", "IIII"),
    ("p", 141, "GGTT", "IIII"),
    ("q", 4, "ACGTA", None),
]
READS = [
    ("a", "ACGTT", "!+5?I"),
    ("b", REFERENCE[10:40], "5" * 29 + "I"),
    ("c", REFERENCE[50:90].translate(TURN)[::-1], "5" * 39 + "I"),
    ("p/1", "AACC", "IIII"),
    ("p/2", "GGTT", "IIII"),
    ("q", "ACGTA", None),
]


def write(path, mode, rows=ROWS, **options):
    with pysam.AlignmentFile(str(path), mode, header=HEADER, **options) as out:
        for name, flag, bases, qualities in rows:
            read = pysam.AlignedSegment(out.header)
            read.query_name, read.flag, read.query_sequence = name, flag, bases
            if qualities is not None:
                read.query_qualities_str = qualities
            if not flag & 4:
                read.reference_id, read.cigarstring = 0, f"{len(bases)}M"
                read.reference_start = REFERENCE.find(bases)
            out.write(read)
    return path


def seen(path):
    """([(name, bases, qualities)], what was left out, warnings)."""
    with records.opened(path) as source:
        assert source.kind == "fastq"
        reads = []
        for portion in source.named():
            ends = np.cumsum(portion.lengths)
            for name, begin, end in zip(portion.names, ends - portion.lengths, ends, strict=True):
                bases = "".join("ACGTN"[base] for base in portion.letters[begin:end])
                marks = None
                if portion.qualities is not None:
                    marks = (portion.qualities[begin:end] + 33).tobytes().decode()
                reads.append((name.decode(), bases, marks))
        assert source.records == len(reads) + sum(source.left_out.values())
        return reads, dict(source.left_out), list(source.warnings)


@pytest.mark.parametrize("mode", ["w", "wb", "wb0", "wc"])
def test_reads_come_as_the_sequencer_saw_them(tmp_path, mode):
    if mode == "wc":
        (tmp_path / "r.fa").write_text(f">chr\n{REFERENCE}\n")
        path = write(tmp_path / "a", mode, reference_filename=str(tmp_path / "r.fa"))
    else:
        path = write(tmp_path / "a", mode)
    assert seen(path) == (READS, {alignments.AGAIN: 2, alignments.FAILED: 1}, [])


def test_sam_without_a_header_and_with_odd_lines(tmp_path):
    path = write(tmp_path / "a", "w")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("@")]
    odd = [
        "x\tfour\t*",
        "stray",
        "y\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIII",
        "z\t4\t*\t0\t0\t*\t*\t0\t0\t*\t*",
        "",
        "@CO\tnote",
    ]
    path.write_text("\r\n".join([*lines[:2], *odd, *lines[2:]]))
    reads, left_out, _ = seen(path)
    assert reads == READS
    assert left_out == {alignments.AGAIN: 2, alignments.FAILED: 1, CUT: 3, EMPTY: 1}


@pytest.mark.parametrize("mode", ["w", "wb", "wc"])
@pytest.mark.parametrize("pack", ["", "bz2", "xz", "zst"])
def test_through_pipes_and_compressed_again(tmp_path, mode, pack, monkeypatch):
    from tests.strands.test_compression import KINDS

    rows = [row for row in ROWS if row[1] & 4]
    content = write(tmp_path / "a", mode, rows).read_bytes()
    whole = seen(tmp_path / "a")[0]
    assert len(whole) == 4
    if pack:
        content = KINDS[{"bz2": "bzip2", "xz": "xz", "zst": "zstd"}[pack]](content)
        (tmp_path / "b").write_bytes(content)
        assert seen(tmp_path / "b")[0] == whole
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert seen("-")[0] == whole
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert seen(tmp_path / "pipe")[0] == whole
    writer.join()


def many(path, mode):
    return write(path, mode, [(f"r{n}", 4, REFERENCE[n % 200 : n % 200 + 150], "5" * 150) for n in range(9000)])


def test_damaged_bam_gives_what_comes_before(tmp_path):
    path = many(tmp_path / "a.bam", "wb")
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(compression.BGZF_END)])
    reads, left_out, warnings = seen(path)
    assert (len(reads), left_out) == (9000, {})
    assert "no end marker" in warnings[0]
    path.write_bytes(whole[: len(whole) // 2])
    reads, left_out, warnings = seen(path)
    assert 2000 < len(reads) < 9000
    assert left_out == {CUT: 1}
    assert "damaged" in warnings[0]
    assert str(path) in warnings[0]
    assert "truncated" in warnings[0]
    assert "Closing" not in warnings[0]
    path.write_bytes(whole[:400])
    with pytest.raises(records.RecordsError, match=r"cannot be read.*get it again"):
        seen(path)


@pytest.mark.parametrize("references", [1, 4000])
def test_a_header_that_is_cut_short_is_said_by_us_alone(tmp_path, references, capfd):
    """Pysam writes a traceback to standard error when it closes such a file."""
    names = np.random.default_rng(1).integers(0, 1 << 40, references).tolist()
    path = tmp_path / "a.bam"
    with pysam.AlignmentFile(str(path), "wb", header={"SQ": [{"SN": f"c{name}", "LN": 9} for name in names]}):
        pass
    whole = path.read_bytes()
    for size in (40, len(whole) // 2, len(whole) - len(compression.BGZF_END) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            records.RecordsError, match=r"cannot be read: .*(cut short|truncated).*; get it again"
        ) as caught:
            seen(path)
        assert "Closing" not in str(caught.value)
    assert not capfd.readouterr().err


def test_a_read_with_impossible_qualities_costs_only_itself(tmp_path):
    path = tmp_path / "a.bam"
    with pysam.AlignmentFile(str(path), "wb", header=HEADER) as out:
        for number, quality in enumerate((30, 93, 94, 100, 254, 0)):
            read = pysam.AlignedSegment(out.header)
            read.query_name, read.flag, read.query_sequence = f"r{number}", 4, "ACGT"
            read.query_qualities = [30, 30, 30, quality]
            out.write(read)
    reads, left_out, warnings = seen(path)
    assert [(name, marks[-1]) for name, _, marks in reads] == [("r0", "?"), ("r1", "~"), ("r5", "!")]
    assert (left_out, warnings) == ({LETTERS: 3}, [])


@pytest.mark.parametrize(("mode", "kind"), [("wb", "xz"), ("wc", "gzip")])
def test_damage_of_what_was_compressed_around_a_file_gives_what_comes_before(tmp_path, mode, kind):
    from tests.strands.test_compression import KINDS

    if mode == "wc":  # CRAM keeps too many reads together for few of them to be lost
        bases = "".join(np.random.default_rng(2).choice(list("ACGT"), 11_060))
        rows = [(f"r{n}", 4, bases[n : n + 60], "5" * 60) for n in range(11_000)]
        packed = KINDS[kind](write(tmp_path / "b", mode, rows).read_bytes())
    else:
        packed = KINDS[kind](many(tmp_path / "b", mode).read_bytes())
    path, other = tmp_path / "a", tmp_path / "other"
    path.write_bytes(packed[: len(packed) * 97 // 100])
    other.write_text("@r\nACGT\n+\nIIII\n")
    with records.opened([path, other]) as source:
        assert sum(len(lengths) for _, lengths, _ in source.portions()) > 2000
        assert source.left_out == {CUT: 1}
        assert source.passed_over == {}
        assert f"{path} is damaged ({kind} data that are cut short)" in source.warnings[0]


def test_cram_without_its_reference_says_so(tmp_path, capfd):
    (tmp_path / "r.fa").write_text(f">chr\n{REFERENCE}\n")
    path = write(tmp_path / "a.cram", "wc", [ROWS[1]] * 3, reference_filename=str(tmp_path / "r.fa"))
    for name in ("r.fa", "r.fa.fai"):
        (tmp_path / name).unlink()
    with pytest.raises(records.RecordsError, match="REF_PATH"):
        seen(path)
    assert not capfd.readouterr().err  # what htslib says is said by us


def test_an_empty_bam_is_an_empty_file(tmp_path):
    assert seen(write(tmp_path / "a.bam", "wb", [])) == ([], {}, [])
