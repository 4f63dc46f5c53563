"""The programs that measure recovery: their parts on pools of a few strands, and what they print."""

import gzip
import json

import numpy as np
import pytest
from rich.console import Console

from eval import dt4dds_channels, real_reads, recovery
from helix_jax.channel import model as channels
from helix_jax.reads import orient

OPTIMISED = True  # see tests/conftest.py


@pytest.fixture(scope="module")
def written():
    return recovery.pool_of(600, 0.2)


def test_comes_back_says_no_to_too_few_and_cries_out_at_wrong_bytes(written):
    data, pool = written
    whole = {pool.strands.shape[1]: pool.strands}
    assert recovery.comes_back(data, whole)
    assert not recovery.comes_back(data, {n: rows[: len(rows) // 2] for n, rows in whole.items()})
    with pytest.raises(AssertionError, match="wrong bytes"):
        recovery.comes_back(data[:-1] + bytes([data[-1] ^ 1]), whole)


@pytest.mark.slow
def test_trial(written):
    data, pool = written
    channel = channels.uniform(0.02, reverse=0.5)
    back, seconds, report = recovery.trial(data, pool, channel, 8, seed=1)
    assert back
    assert seconds > 0
    assert report.at_once + report.repaired <= len(pool.strands)
    back, _, report = recovery.trial(data, pool, channel, 1.5, seed=1)
    assert not back


def test_smallest_coverage_falls_with_redundancy_and_rises_with_errors():
    by_redundancy = [recovery.smallest_coverage(r, 0.05, 600) for r in recovery.REDUNDANCIES]
    assert by_redundancy == sorted(by_redundancy, reverse=True)
    assert by_redundancy[0] > by_redundancy[-1]
    by_errors = [recovery.smallest_coverage(0.1, errors, 600) for errors in recovery.ERRORS]
    assert by_errors == sorted(by_errors)
    assert by_errors[0] < by_errors[-1]


@pytest.mark.slow
def test_scale_of_one_size():
    row = recovery.one_size(400)
    assert 8 * row["strands"] < row["reads"] < 12 * row["strands"]
    assert row["whole"]
    assert row["memory_bytes"] >= row["memory_before_bytes"] > 0


def test_tables_and_picture(tmp_path):
    results = {
        "unread": {"0.01": [1.0] + [0.5] * (len(recovery.COPIES) - 1)},
        "coverage": [
            {"errors": e, "redundancy": r, "coverage": 5.5, "returned": 3, "below": 1}
            for r in recovery.REDUNDANCIES for e in recovery.ERRORS
        ],
        "aims": [{"name": "a", "skew": 0.4, "net": 1.5, "asked": 1.4, "returned": 2, "trials": 3, "missing": 0.0123}],
        "scale": [{"reads": 1000, "strands": 100, "seconds": 1.25, "memory_bytes": 2e9, "whole": True}],
        "video": [
            {"mode": "raw", "coverage": 2, "shown": 0, "psnr": None, "concealed": None},
            {"mode": "raw", "coverage": 3, "shown": 1, "psnr": 22.22, "concealed": 0.125},
        ],
    }  # fmt: skip
    out = Console(width=200, record=True, file=open(tmp_path / "log", "w"))  # noqa: SIM115
    recovery.show(out, results)
    text = out.export_text()
    for words in ("5.5 (3, 1)", "2 of 3", "1.23%", "log-normal 0.4", "2,000", "22.22", "12.5%", "HEDGES"):
        assert words in text
    recovery.draw(tmp_path / "a.png", results)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    out.file.close()


# ---- real reads, from files made here ------------------------------------------------------------------


def letters(bases):
    return "".join("ACGT"[base] for base in bases)


@pytest.fixture
def folder(tmp_path):
    """Two pairs: one without errors, one with a substitution, and a file of one untouched read each way."""
    strand = np.random.default_rng(0).integers(0, 4, 128).astype(np.uint8)
    wrong = strand.copy()
    wrong[60] ^= 1
    rows = ["read_id\tstrand\tread\tquality\tedit_distance"]
    rows += [f"r\t{letters(strand)}\t{letters(read)}\t{'I' * 128}\t0" for read in (strand, wrong)]
    (tmp_path / "nanopore_a.tsv.gz").write_bytes(gzip.compress("\n".join(rows).encode() + b"\n"))
    inner = letters(np.random.default_rng(1).integers(0, 4, real_reads.DESIGN))
    whole = real_reads.LEFT + inner.encode() + real_reads.RIGHT
    reads = [b"ACGTACGT" + whole + b"TTTT", orient.complement(whole), b"ACGT" * 40]
    text = b"".join(b"@r\n%s\n+\n%s\n" % (read, b"I" * len(read)) for read in reads)
    (tmp_path / "nanopore_raw.fastq.gz").write_bytes(gzip.compress(text))
    return tmp_path


def test_pairs(folder, tmp_path):
    pairs = real_reads.pairs_of(folder)
    assert [int((strand != read).sum()) for strand, read, _ in pairs] == [0, 1]
    assert all((quality == 40).all() for _, _, quality in pairs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no nanopore"):
        real_reads.pairs_of(tmp_path / "empty")


def test_errors_move_to_our_strands(folder):
    pairs = real_reads.pairs_of(folder)
    ours = np.random.default_rng(2).integers(0, 4, (3, 150)).astype(np.uint8)
    bases, lengths, qualities = real_reads.on_our_strands(pairs, ours, np.array([0, 2, 4]), seed=3)
    assert len(lengths) == 6
    assert (lengths == 150).all()
    assert (qualities == 40).all()
    ahead = np.where(_turned(bases, ours)[:, None], 3 - bases[:, ::-1], bases)
    distances = [min(int((row != one).sum()) for one in ours[1:]) for row in ahead]
    assert set(distances) <= {0, 1}
    assert len(set(distances)) == 2


def _turned(bases, ours):
    """Which reads are nearer to a strand when read backwards."""
    ahead = np.array([min((row != one).sum() for one in ours) for row in bases])
    back = np.array([min((3 - row[::-1] != one).sum() for one in ours) for row in bases])
    return back < ahead


def test_primers_of_untouched_reads(folder):
    assert real_reads.primers(folder) == {"reads": 3, "found": 2, "turned": 1, "right_length": 2}


def test_reads_end_where_the_adapter_begins():
    inner = letters(np.random.default_rng(5).integers(0, 4, 60))
    adapter = dt4dds_channels.ADAPTER.decode()
    texts = [
        inner + adapter + "ACGT",
        inner + adapter[:6],
        inner + adapter[:2],
        inner + adapter[:9] + "T" + adapter[10:],
    ]
    lengths = np.array([len(text) for text in texts], np.int32)
    bases = np.full((len(texts), lengths.max()), 255, np.uint8)
    for row, text in zip(bases, texts, strict=True):
        row[: len(text)] = ["ACGT".index(letter) for letter in text]
    # two letters are too few to be told from the strand
    assert dt4dds_channels.without_adapter(bases, lengths).tolist() == [60, 60, 62, 60]


@pytest.mark.slow
def test_commands(tmp_path, folder, monkeypatch, capsys):
    out = ["--trials", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["recovery", "--part", "aims", "--large", "3000", *out])
    recovery.main()
    assert {row["asked"] for row in json.loads((tmp_path / "results.json").read_text())["aims"]} == {1.4, 1.6}
    monkeypatch.setattr("sys.argv", ["real", str(folder), "--copies", "1", "--coverages", "3", *out])
    real_reads.main()
    found = json.loads((tmp_path / "real_reads.json").read_text())
    assert found["decode"][0]["found"] > 0.9
    assert "untouched" in capsys.readouterr().out
