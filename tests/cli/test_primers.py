"""Primer libraries at the command line: `primers`, a pair by its name, and several files in one tube."""

import csv
import gzip
import json

import numpy as np
import pytest

from helix_jax.strands import fasta, library

CHEAP = ("--constraints", "strand", "--strand-length", "100", "--redundancy", "0.3")
DONE, WRONG_USE, UNDECODABLE = 0, 2, 4
FILES = {name: np.random.default_rng(n).bytes(300 + 100 * n) for n, name in enumerate(("P0001", "P0002", "P0003"))}

pytestmark = pytest.mark.usefixtures("one_shape", "cheap_sets")


@pytest.fixture(scope="module")
def tube(tmp_path_factory, run_cli):
    """A folder with library.csv, a packed file for each of three pairs, and tube.fasta, which holds all strands."""
    folder = tmp_path_factory.mktemp("tube")
    made = run_cli("primers", "--count", 4, "--constraints", "strand", "-o", folder / "library.csv")
    assert (made.exit_code, made.stderr) == (DONE, "")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        chosen = ("--primers", folder / "library.csv", "--pair", name)
        assert run_cli("pack", folder / name, "-o", folder / f"{name}.fasta", *chosen, *CHEAP).exit_code == DONE
    everything = b"".join((folder / f"{name}.fasta").read_bytes() for name in FILES)
    (folder / "tube.fasta").write_bytes(everything)
    return folder


@pytest.fixture
def refused(run_cli, tmp_path):
    """refused(status, words, *arguments): fails in one line that holds all the words, and writes nothing."""

    def check(status, words, *arguments):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        suffix = {"primers": "csv", "decode": "mp4"}.get(arguments[0], "fasta")
        result = run_cli(*arguments, "-o", out / f"out.{suffix}")
        assert (result.exit_code, result.stdout) == (status, ""), result.stderr
        assert result.stderr.startswith("helix-jax: ")
        assert result.stderr.count("\n") == 1
        for word in words:
            assert word in result.stderr
        assert list(out.iterdir()) == []

    return check


# ---- the library -------------------------------------------------------------------------------------------


def test_a_library_and_its_figures(tmp_path, tube, run_cli):
    pairs = library.read(tube / "library.csv")
    assert list(pairs) == ["P0001", "P0002", "P0003", "P0004"]
    result = run_cli("primers", "--count", 2, "--constraints", "strand", "-o", tmp_path / "two.csv", "--json")
    figures = json.loads(result.stdout)
    assert (figures["pairs"], figures["output"]) == (2, str(tmp_path / "two.csv"))
    assert figures["candidates"] > 4
    assert {"gc", "tm", "fold", "distance"} <= figures["rejected"].keys()
    assert all(0 <= share <= 1 for share in figures["rejected"].values())
    assert list(library.read(tmp_path / "two.csv").values()) == list(pairs.values())[:2]
    away = run_cli(
        *("primers", "--count", 2, "--away-from", tube / "P0001.fasta", "-o", tmp_path / "away.csv"),
        *("--constraints", "strand", "--json"),
    )
    assert away.exit_code == DONE
    assert pairs["P0001"] not in library.read(tmp_path / "away.csv").values()


def test_a_damaged_pool_is_told(tube, tmp_path, run_cli):
    whole, path = (tube / "P0001.fasta").read_bytes(), tmp_path / "cut.fasta.gz"
    path.write_bytes(gzip.compress(whole, mtime=0)[:-1000])
    asked = ("primers", "--count", 1, "--constraints", "strand", "--near", 0.1, "-o", tmp_path / "a.csv")
    result = run_cli(*asked, "--away-from", path)
    assert result.exit_code == DONE
    assert "is damaged" in result.stderr


def test_progress(tmp_path, on_terminal):
    status, _, shown = on_terminal("primers", "--count", 3, "-o", tmp_path / "a.csv")
    assert status == DONE
    assert b"pairs" in shown
    assert b"3/3" in shown


@pytest.mark.parametrize(
    ("words", "arguments"),
    [  # the set helix is not there in these tests
        (["only 0 of 5", "--min-tm or --max-tm"], "--count 5 --min-tm 90 --max-tm 91 --constraints wide"),
        (["--count 0"], "--count 0"),
        (["--seed -1"], "--count 1 --seed -1"),
        (["--near has no effect without --away-from"], "--count 1 --near 0.1"),
        (["min_gc 0.7"], "--count 1 --min-gc 0.7"),
        (["no constraint set 'none'"], "--count 1 --constraints none"),
        (["no such file"], "--count 1 --away-from none.fasta --constraints wide"),
    ],
)
def test_libraries_that_cannot_be(monkeypatch, refused, words, arguments):
    from helix_jax.strands import primer_design

    monkeypatch.setattr(primer_design, "PATIENCE", 1 << 13)
    refused(WRONG_USE, words, "primers", *arguments.split())


def test_the_output_is_csv_and_no_input(tube, tmp_path, run_cli):
    for output, words in ((tmp_path / "a.xlsx", ".csv"), (tube / "tube.fasta", "the input")):
        before = (tube / "tube.fasta").read_bytes()
        result = run_cli("primers", "--count", 1, "--away-from", tube / "tube.fasta", "-o", output)
        assert result.exit_code == WRONG_USE
        assert words in result.stderr
        assert (tube / "tube.fasta").read_bytes() == before


# ---- a pair ------------------------------------------------------------------------------------------------


def test_a_pair_is_its_primers(tube, tmp_path, run_cli):
    pair = library.read(tube / "library.csv")["P0002"]
    ends = ("--left-primer", pair.left, "--right-primer", pair.right)
    assert run_cli("pack", tube / "P0002", "-o", tmp_path / "a.fasta", *ends, *CHEAP).exit_code == DONE
    assert (tmp_path / "a.fasta").read_bytes() == (tube / "P0002.fasta").read_bytes()
    [strands] = fasta.read(tube / "P0002.fasta").values()
    letters = ["".join("ACGT"[base] for base in row) for row in strands]
    assert all(row.startswith(pair.left) and row.endswith(pair.right) for row in letters)


@pytest.mark.parametrize("command", ["pack", "unpack", "encode", "decode"])
def test_pairs_that_cannot_be(tube, refused, command):
    source, path = tube / ("P0001" if command in ("pack", "encode") else "tube.fasta"), tube / "library.csv"
    one = ("--primers", path, "--pair", "P0001")
    for words, options in (
        (["has no pair 'Q'; there are P0001, P0002, P0003, P0004"], ("--primers", path, "--pair", "Q")),
        (["say which pair with --pair", "P0001, P0002"], ("--primers", path)),
        (["--pair has no effect without --primers"], ("--pair", "P0001")),
        (
            ["--left-primer has no effect beside --primers"],
            (*one, "--left-primer", "A"),
        ),
        (["--right-primer has no effect"], (*one, "--right-primer", "A")),
        (["no such file"], ("--primers", tube / "none.csv", "--pair", "P0001")),
        (["no column name, left, right"], ("--primers", tube / "tube.fasta", "--pair", "P0001")),
        (["--primers, --pair: not for --writer timing"], ("--primers", path, "--pair", "a", "--writer", "timing")),
    ):
        refused(WRONG_USE, words, command, source, *options)


def test_the_library_is_not_overwritten(tube, run_cli):
    before = (tube / "library.csv").read_bytes()
    chosen = ("--primers", tube / "library.csv", "--pair", "P0001")
    for command, source in (("pack", "P0001"), ("unpack", "tube.fasta")):
        result = run_cli(command, tube / source, "-o", tube / "library.csv", *chosen)
        assert result.exit_code == WRONG_USE
        assert (tube / "library.csv").read_bytes() == before


# ---- several files in one tube -----------------------------------------------------------------------------


def test_each_file_from_the_strands_of_all(tube, tmp_path, run_cli):
    with open(tube / "library.csv", newline="") as table:
        lines = {line["name"]: line for line in csv.DictReader(table)}
    strands = {name: (tube / f"{name}.fasta").read_text().count(">") for name in FILES}
    for name, content in FILES.items():
        chosen = ("--primers", tube / "library.csv", "--pair", name)
        result = run_cli("unpack", tube / "tube.fasta", "-o", tmp_path / name, *chosen, "--json")
        assert (result.exit_code, result.stderr) == (DONE, "")
        told = json.loads(result.stdout)
        # The strands of the other pools are no damage, and nothing is said of a video.
        assert told["unreadable"] == told["other_primers"] == told["strands"] - strands[name]
        assert not {"lost_tokens", "lost_sound", "preview_seconds"} & told.keys()
        assert (tmp_path / name).read_bytes() == content
        inspected = run_cli("inspect", tube / f"{name}.fasta", *chosen, "--json")
        assert inspected.exit_code == DONE
        # The primers melt where the library says.
        told, told_by_library = json.loads(inspected.stdout), lines[name]
        for side in ("left", "right"):
            assert told[f"{side}_primer_melts_at"] == float(told_by_library[f"{side}_tm"])


def test_without_a_pair_the_pools_are_named(tube, tmp_path, run_cli):
    result = run_cli("unpack", tube / "tube.fasta", "-o", tmp_path / "out")
    assert result.exit_code == UNDECODABLE
    assert "several pools are mixed: pick one with its primers, or with --key" in result.stderr
    for name in FILES:
        text = (tube / f"{name}.fasta").read_text()
        assert text.partition("key=")[2][:16] in result.stderr
    # a pool with another pair than the one that is given is read, as its comments say, and not without a word
    other = ("--primers", tube / "library.csv", "--pair", "P0001")
    result = run_cli("unpack", tube / "P0002.fasta", "-o", tmp_path / "other", *other)
    assert (result.exit_code, result.stderr.count("\n")) == (DONE, 1)
    assert "no pool has the motifs and primers that are given" in result.stderr
    # the pair that no file has
    unused = ("--primers", tube / "library.csv", "--pair", "P0004")
    assert run_cli("unpack", tube / "tube.fasta", "-o", tmp_path / "out", *unused).exit_code == UNDECODABLE
    assert not (tmp_path / "out").exists()


def test_a_file_from_the_reads_of_all(tube, tmp_path, run_cli):
    reads = tmp_path / "reads.fastq"
    simulated = run_cli("simulate", tube / "tube.fasta", "-o", reads, "--coverage", 6, "--preset", "illumina")
    assert simulated.exit_code == DONE
    chosen = ("--primers", tube / "library.csv", "--pair", "P0002")
    result = run_cli("unpack", reads, "-o", tmp_path / "out", *chosen)
    assert result.exit_code == DONE, result.stderr
    assert (tmp_path / "out").read_bytes() == FILES["P0002"]


def test_reads_of_all_without_a_pair(tube, tmp_path, run_cli):
    """The error has the options that read each of the files."""
    reads = tmp_path / "reads.fastq"
    simulated = run_cli("simulate", tube / "tube.fasta", "-o", reads, "--coverage", 8, "--preset", "illumina")
    assert simulated.exit_code == DONE
    result = run_cli("unpack", reads, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (UNDECODABLE, 1)
    assert "several pools are mixed, and each has primers" in result.stderr
    for name, pair in library.read(tube / "library.csv").items():
        named = f"--left-primer {pair.left} --right-primer {pair.right}" in result.stderr
        assert named == (name in FILES)
        if named:
            text = (tube / f"{name}.fasta").read_text()
            assert f"{pair.right} (key {text.partition('key=')[2][:16]})" in result.stderr
    assert not (tmp_path / "out").exists()
