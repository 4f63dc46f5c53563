"""Other codes beside ours: a fake peer and ours through the same way, peers that are missing, hang or crash."""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from eval.peers import command, measure, protocol, rows
from eval.peers.adapters import ours
from helix_jax.channel import model as channels
from helix_jax.channel import simulate

# two bits a base, a number of one byte before four bytes of content; strands of other lengths are not read
FAKE = """
from eval.peers import protocol

def letters(data):
    return "".join("ACGT"[byte >> shift & 3] for byte in data for shift in (6, 4, 2, 0))

def encode(request, data):
    parts = [data[at : at + 4] for at in range(0, len(data), 4)]
    return [letters(bytes([number]) + part) for number, part in enumerate(parts)], len(parts), None

def decode(request, state, received):
    found = {}
    for each in received:
        digits = ["ACGT".index(letter) for letter in each.strand]
        if len(digits) == 20:
            values = [64 * a + 16 * b + 4 * c + d for a, b, c, d in zip(*[iter(digits)] * 4)]
            found[values[0]] = bytes(values[1:])
    return b"".join(found[number] for number in range(state)), None

protocol.serve(protocol.Peer(lambda request: ("fake 1", 4), encode, decode, decode))
"""
OPTIONS = measure.Options(bytes=40, coverage_bytes=16, errors=(), trials=1, limit=60)


def row_of(tmp_path, script, checkout=False):
    path = tmp_path / "fake.py"
    path.write_text(script)
    return rows.Row(rows.Peer("fake", "nowhere", path, "pip install fake", checkout), "its setting")


def measured(tmp_path, script, options=OPTIONS, place=None, checkout=False):
    folder = tmp_path / "folder"
    folder.mkdir()
    return measure.measure(row_of(tmp_path, script, checkout), place or measure.Place(), folder, options)


def test_fake_peer_is_measured(tmp_path):
    options = measure.Options(bytes=43, coverage_bytes=16, errors=(0.0,), trials=2, limit=60)
    result = measured(tmp_path, FAKE, options)
    data = measure.content(43, 4, options.seed)
    assert (result.version, result.bytes, result.strands, result.length) == ("fake 1", 40, 10, 20)
    assert len(data) == 40
    assert result.net == pytest.approx(1.6)
    assert result.encode > 0
    assert result.decode > 0
    strands = [
        "".join("ACGT"[byte >> shift & 3] for byte in bytes([n, *data[4 * n : 4 * n + 4]]) for shift in (6, 4, 2, 0))
        for n in range(10)
    ]
    shares = [sum(letter in "CG" for letter in strand) / 20 for strand in strands]
    runs = max(len(run) for strand in strands for run in _runs(strand))
    assert (result.longest_run, result.gc_low, result.gc_high) == (runs, min(shares), max(shares))
    assert result.coverage[0.0] in measure.GRID


def _runs(strand):
    runs = [strand[0]]
    for letter in strand[1:]:
        if letter == runs[-1][0]:
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs


def test_coverage_is_the_smallest_that_comes_back(tmp_path, monkeypatch):
    tried = []

    def comes_back(_row, _place, _folder, _options, _bases, _data, _errors, coverage, seed, _own):
        tried.append((coverage, seed))
        return coverage >= 5 or seed == 1

    monkeypatch.setattr(measure, "_comes_back", comes_back)
    arguments = row_of(tmp_path, FAKE), measure.Place(), tmp_path
    options = measure.Options(trials=2, seed=1)
    assert measure.smallest_coverage(*arguments, options, ["ACGT"], b"", 0.05, False) == 5
    assert {(5, 1), (5, 2), (4, 2)} <= set(tried)  # both draws, and the second one decides at 4
    monkeypatch.setattr(measure, "_comes_back", lambda *_: False)
    assert measure.smallest_coverage(*arguments, options, ["ACGT"], b"", 0.05, False) == "not at 30"
    assert measure.smallest_coverage(*arguments, options, ["ACGT", "A"], b"", 0.05, False) == (
        "strands of several lengths"
    )


def test_missing_peer_is_skipped_with_its_reason(tmp_path):
    assert "--checkout fake" in measured(tmp_path, FAKE, checkout=True).skipped
    (tmp_path / "folder").rmdir()
    lacking = "import no_such_package\n" + FAKE
    assert measured(tmp_path, lacking).skipped == "ModuleNotFoundError: No module named 'no_such_package'"
    for path in (tmp_path / "folder").iterdir():
        path.unlink()
    (tmp_path / "folder").rmdir()
    nowhere = measure.Place(python=str(tmp_path / "python"))
    assert measured(tmp_path, FAKE, place=nowhere).skipped == f"{tmp_path / 'python'}: No such file or directory"


def test_crash_is_a_cell_with_the_reason(tmp_path):
    result = measured(tmp_path, FAKE.replace("parts = [", "raise ValueError('too short'); parts = ["))
    assert not result.skipped
    assert (result.encode, result.net, result.decode) == ("ValueError: too short", "-", "-")


def test_wrong_content_is_a_cell_with_the_reason(tmp_path):
    result = measured(tmp_path, FAKE.replace("return b", "return b'x' + b"))
    assert result.decode == "other bytes came back"
    assert result.net == pytest.approx(1.6)


def test_hanging_peer_is_stopped_with_what_it_started(tmp_path):
    hang = "import subprocess; subprocess.run(['sh', '-c', 'sleep 4; touch outlived'])"
    result = measured(
        tmp_path, FAKE.replace("    found = {}", f"    {hang}"), measure.Options(bytes=40, errors=(), limit=2)
    )
    assert result.decode == "not done in 2 s"
    assert not isinstance(result.encode, str)
    time.sleep(2.5)
    assert not (tmp_path / "folder" / "outlived").exists()


def test_slow_decoding_of_reads_is_a_cell_with_the_reason(tmp_path, monkeypatch):
    def slow(*_arguments, **_options):
        raise measure.TooSlow("not done in 2 s")

    monkeypatch.setattr(measure, "read_back", slow)
    strands = ["ACGTACGTACGTACGTACGT"] * 4
    cell = measure.smallest_coverage(
        row_of(tmp_path, FAKE), measure.Place(), tmp_path, OPTIONS, strands, b"", 0.0, own_reads=True
    )
    assert cell == "not at 30 (not done in 2 s at 30)"


def test_consensus_for_peers_finds_the_strands():
    rng = np.random.default_rng(3)
    strands = rng.integers(0, 4, (12, 60), dtype=np.uint8)
    reads = simulate.reads_of(channels.uniform(0.05), strands, 12, jax.random.key(0))
    lines = [line.split() for line in measure.consensus_lines(reads.bases, reads.lengths, strands.shape, 0.05)]
    written = {"".join("ACGT"[base] for base in strand) for strand in strands}
    assert len(lines) == 12
    assert {strand for strand, _, _ in lines} == written
    assert sum(int(copies) for _, copies, _ in lines) == len(reads.lengths)
    copies = [int(copies) for _, copies, _ in lines]
    assert copies == sorted(copies, reverse=True)
    texts = {
        "".join("ACGT"[base] for base in row[:length]) for row, length in zip(reads.bases, reads.lengths, strict=True)
    }
    assert {read for _, _, read in lines} <= texts


def test_ours_goes_the_same_way(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    row = rows.ours("goldman", 100, 0.1)
    result = measure.measure(row, measure.Place(), folder, measure.Options(bytes=300, errors=(), limit=200))
    assert not result.skipped
    assert result.version.startswith("helix_jax ")
    assert (result.bytes, result.length, result.longest_run, result.own_reads) == (300, 100, 1, True)
    assert 0 < result.net < 1.5850
    assert result.net == pytest.approx(2400 / (100 * result.strands))
    assert result.decode > 0


@pytest.mark.slow
def test_ours_reads_reads(tmp_path, cheap_sets):
    setting = {"constraints": "strand", "length": 100, "redundancy": 0.5}
    request = protocol.Request(tmp_path, setting, None)
    data = bytes(range(200))
    strands, state, _ = ours.encode(request, data)
    bases = np.array([["ACGT".index(letter) for letter in strand] for strand in strands], np.uint8)
    reads = simulate.reads_of(channels.uniform(0.01), bases, 8, jax.random.key(1))
    texts = measure._texts(reads.bases, reads.lengths)
    received = [protocol.Received(text, 1, text) for text in texts]
    assert ours.reads(request, state, received)[0] == data


def test_ours_as_dense_has_the_repair_strands_of_that_density(monkeypatch):
    monkeypatch.setattr(measure, "written", lambda row, _place, _folder, _options, data: (["A" * 100] * 50, 1.0))
    options = measure.Options(bytes=1000)  # so 1.6 bit/nt without repair strands
    row = command.as_dense(measure.Result("fake", "", net=0.8, length=120), "helix", options)
    assert row.setting == {"constraints": "helix", "length": 120, "redundancy": 1.0}
    row = command.as_dense(measure.Result("fake", "", net=1.9, length=120), "helix", options)
    assert row.setting["redundancy"] == 0


def test_a_row_of_ours_that_fails_is_told(tmp_path, monkeypatch):
    row = row_of(tmp_path, FAKE)
    first = rows.Row(row.peer, "first", rules="helix")
    monkeypatch.setattr(rows, "ROWS", (first, row))

    def slow(*_arguments):
        raise measure.TooSlow("not done in 3600 s")

    monkeypatch.setattr(command, "as_dense", slow)
    found = list(command.results(["fake", rows.OURS], {}, OPTIONS))
    assert [(each.peer, each.skipped) for each in found] == [
        ("fake", ""), (rows.OURS, "not done in 3600 s"), ("fake", "")
    ]  # fmt: skip
    assert "helix_jax, `helix`, beside fake, was skipped: not done in 3600 s" in command.page(found, OPTIONS, "")


def test_command_writes_table_and_figures(tmp_path, monkeypatch, capsys):
    row = row_of(tmp_path, FAKE)
    gone = rows.Row(rows.Peer("gone", "a repository", row.peer.script, "git clone gone", checkout=True), "any")
    monkeypatch.setattr(rows, "PEERS", {"fake": row.peer, "gone": gone.peer})
    monkeypatch.setattr(rows, "ROWS", (row, gone))
    out, figures = tmp_path / "a.md", tmp_path / "a.json"
    monkeypatch.setattr(command.parallel, "use_all_cores", lambda: None)
    words = ["--out", str(out), "--json", str(figures), "--bytes", "40", "--coverage-bytes", "16", "--errors", "0"]
    monkeypatch.setattr(sys, "argv", ["peers", *words, "--interpreter", "fake", sys.executable])
    command.main()
    text = out.read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "| fake | its setting | 1.600 |" in text
    assert "gone, any, was skipped: no checkout was named (--checkout gone FOLDER)" in text
    assert "pip install fake" in text
    assert "git clone gone" in text
    first, second = json.loads(figures.read_text())
    assert (first["peer"], first["net"], second["skipped"] != "") == ("fake", 1.6, True)
    monkeypatch.setattr(sys, "argv", ["peers", *words, "--checkout", "nobody", "x"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no peer 'nobody'; there are fake, gone" in capsys.readouterr().err


def test_scripts_of_all_peers_are_there():
    assert all(Path(peer.script).exists() for peer in rows.PEERS.values())
    assert {row.peer.name for row in rows.ROWS} == set(rows.PEERS)
