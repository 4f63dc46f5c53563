"""`helix-jax simulate`: reads of a pool in a FASTQ file, its figures, and every refusal in one line."""

import gzip
import json

import jax
import numpy as np
import pysam
import pytest

from helix_jax.channel import preset, simulate
from helix_jax.channel.model import PRESETS
from helix_jax.reads import fastq
from helix_jax.strands import fasta

DONE, WRONG_USE = 0, 2


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A FASTA file of 60 strands of 50 bases and 40 of 30, and the strands."""
    path = tmp_path_factory.mktemp("pool") / "pool.fasta"
    draw = np.random.default_rng(4)
    strands = [*draw.integers(0, 4, (60, 50), dtype=np.uint8), *draw.integers(0, 4, (40, 30), dtype=np.uint8)]
    fasta.write(path, strands, [""] * 100)
    return path, strands


def reads_in(path):
    return [row[:length].tobytes() for bases, lengths, _ in fastq.read(path) for row, length in zip(bases, lengths)]  # noqa: B905


def test_clean_reads_of_two_lengths(run_cli, tmp_path, pool):
    path, strands = pool
    result = run_cli("simulate", path, "-o", tmp_path / "r.fastq", "--preset", "clean", "--coverage", "3", "--json")
    assert (result.exit_code, result.stderr) == (DONE, "")
    figures = json.loads(result.stdout)
    reads = reads_in(tmp_path / "r.fastq")
    known = {row.tobytes() for row in strands}
    assert set(reads) <= known
    assert figures["reads"] == len(reads)
    assert figures["strands"] == 100
    assert figures["lost_strands"] == len(known - set(reads)) > 0
    assert figures["mean_coverage"] == pytest.approx(len(reads) / 100)
    assert (figures["error_rate"], figures["reversed"], figures["chimeras"]) == (0, 0, 0)
    lengths = [len(read) for read in reads]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_nanopore_is_the_default_and_repeats(run_cli, tmp_path, pool):
    fasta.write(tmp_path / "one.fasta", pool[1][:60], [""] * 60)
    outputs = []
    for name, seed in (("a.fastq.gz", 1), ("b.fastq", 1), ("c.fastq", 2)):
        result = run_cli(
            "simulate", tmp_path / "one.fasta", "-o", tmp_path / name, "--coverage", "2", "--seed", seed, "--json"
        )
        assert (result.exit_code, result.stderr) == (DONE, "")
        outputs.append(reads_in(tmp_path / name))
    assert outputs[0] == outputs[1] != outputs[2]
    figures = json.loads(result.stdout)
    channel = PRESETS["nanopore"]
    assert (figures["preset"], figures["source"]) == ("nanopore", channel.source)
    assert figures["deletion_rate"] == pytest.approx(channel.sequencing.deletion, abs=1e-6)
    assert figures["error_rate"] == pytest.approx(channel.total, abs=1e-6)
    assert 0.3 < figures["reversed"] / figures["reads"] < 0.7


def test_table(run_cli, tmp_path, pool):
    result = run_cli("simulate", pool[0], "-o", tmp_path / "r.fastq", "--preset", "clean")
    assert result.exit_code == DONE
    assert "lost strands" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "pacbio"], "preset 'pacbio': neither a file nor one of the presets clean"),
        (["--substitutions", "0.6"], "--substitutions 0.6: give 0 to 0.5 errors per base"),
        (["--insertions", "-0.1"], "--insertions -0.1: give 0 to 0.5 errors per base"),
        (["--deletions", "nan"], "--deletions nan: give 0 to 0.5 errors per base"),
        (["--paired", "0"], "--paired 0: give the bases of a read, at least 1"),
        (["--coverage", "0"], "--coverage 0.0: give more than 0"),
        (["--seed", "-1"], "--seed -1: give 0 to 4294967295"),
    ],
)
def test_wrong_use(run_cli, tmp_path, pool, options, said):
    result = run_cli("simulate", pool[0], "-o", tmp_path / "r.fastq", *options)
    assert result.exit_code == WRONG_USE
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_pool_and_folder(run_cli, tmp_path, pool):
    result = run_cli("simulate", tmp_path / "none.fasta", "-o", tmp_path / "r.fastq")
    assert (result.exit_code, "no such file" in result.stderr) == (WRONG_USE, True)
    result = run_cli("simulate", pool[0], "-o", tmp_path / "no" / "r.fastq", "--preset", "clean")
    assert (result.exit_code, "there is no folder" in result.stderr) == (WRONG_USE, True)


def test_without_new_options_the_reads_are_those_of_the_library(run_cli, tmp_path, pool):
    """The key of each length is the one that it always was, so that a seed keeps its reads."""
    strands = np.stack(pool[1][:60])
    fasta.write(tmp_path / "one.fasta", strands, [""] * 60)
    assert run_cli("simulate", tmp_path / "one.fasta", "-o", tmp_path / "a.fastq", "--seed", 7).exit_code == DONE
    reads = simulate.reads_of(PRESETS["nanopore"], strands, 10, jax.random.fold_in(jax.random.key(7), 50))
    fastq.write(tmp_path / "b.fastq", reads.bases, reads.lengths, reads.qualities)
    assert (tmp_path / "a.fastq").read_bytes() == (tmp_path / "b.fastq").read_bytes()


def test_rates_and_a_preset_of_ones_own(run_cli, tmp_path, pool):
    rates = ("--substitutions", 0.1, "--insertions", 0, "--deletions", 0)
    result = run_cli("simulate", pool[0], "-o", tmp_path / "a.fastq", "--preset", "clean", *rates, "--json")
    figures = json.loads(result.stdout)
    assert (figures["substitution_rate"], figures["error_rate"]) == (0.1, 0.1)
    preset.write(tmp_path / "mine.json", preset.with_rates(PRESETS["clean"], substitution=0.1))
    own = run_cli("simulate", pool[0], "-o", tmp_path / "b.fastq", "--preset", tmp_path / "mine.json", "--json")
    assert (own.exit_code, own.stderr) == (DONE, "")
    assert (tmp_path / "a.fastq").read_bytes() == (tmp_path / "b.fastq").read_bytes()
    known = {row.tobytes() for row in pool[1]}
    assert np.mean([read in known for read in reads_in(tmp_path / "a.fastq")]) < 0.05
    (tmp_path / "bad.toml").write_text("skew = 1")
    refused = run_cli("simulate", pool[0], "-o", tmp_path / "c.fastq", "--preset", tmp_path / "bad.toml")
    assert refused.exit_code == WRONG_USE
    assert "bad.toml: no channel" in refused.stderr
    over = run_cli("simulate", pool[0], "-o", tmp_path / "mine.json", "--preset", tmp_path / "mine.json")
    assert (over.exit_code, "which would be destroyed" in over.stderr) == (WRONG_USE, True)
    assert not (tmp_path / "c.fastq").exists()


def test_pairs_in_two_files(run_cli, tmp_path, pool):
    options = ("--preset", "clean", "--coverage", 3, "--paired", 35, "--json")
    figures = json.loads(run_cli("simulate", pool[0], "-o", tmp_path / "a.b.fastq.gz", *options).stdout)
    names = [tmp_path / f"a.b_R{number}.fastq.gz" for number in (1, 2)]
    assert sorted(tmp_path.iterdir()) == names
    assert [figures["output"], figures["output_2"]] == list(map(str, names))
    first, second = (gzip.decompress(name.read_bytes()).decode().splitlines() for name in names)
    assert figures["reads"] == len(first[::4]) + len(second[::4])
    assert figures["mean_coverage"] == pytest.approx(figures["reads"] / 200)
    assert [name.split() for name in first[:1] + second[:1]] == [
        ["@read_0000000", "1:N:0:1"],
        ["@read_0000000", "2:N:0:1"],
    ]
    assert [name.split()[0] for name in first[::4]] == [name.split()[0] for name in second[::4]]
    known = {"".join("ACGT"[base] for base in row) for row in pool[1]}
    for one, two in zip(first[1::4], second[1::4], strict=True):
        other = two[::-1].translate(str.maketrans("ACGT", "TGCA"))
        assert any(strand.startswith(one) and strand.endswith(other) for strand in known)
        assert len(one) == len(other) == min(35, len(one))
    assert {len(one) for one in first[1::4]} == {30, 35}


def test_unaligned_bam(run_cli, tmp_path, pool):
    """The same reads as in FASTQ, single and in pairs."""
    options = ("--preset", "nanopore", "--coverage", 2, "--seed", 3)
    for name in ("a.bam", "b.bam", "a.fastq"):
        assert run_cli("simulate", pool[0], "-o", tmp_path / name, *options).exit_code == DONE
    assert (tmp_path / "a.bam").read_bytes() == (tmp_path / "b.bam").read_bytes()
    with pysam.AlignmentFile(tmp_path / "a.bam", check_sq=False) as bam, pysam.FastxFile(tmp_path / "a.fastq") as plain:
        records, expected = list(bam), list(plain)
        assert all(record.is_unmapped and not record.is_paired for record in records)
        assert [(read.query_name, read.query_sequence, list(read.query_qualities)) for read in records] == [
            (read.name, read.sequence, list(read.get_quality_array())) for read in expected
        ]
        assert len(records) > 150
    assert run_cli("simulate", pool[0], "-o", tmp_path / "p.bam", *options, "--paired", 20).exit_code == DONE
    with pysam.AlignmentFile(tmp_path / "p.bam", check_sq=False) as bam:
        pairs = list(bam)
    assert [record.is_read1 for record in pairs] == [True, False] * (len(pairs) // 2)
    assert all(record.is_paired and record.is_unmapped and record.mate_is_unmapped for record in pairs)
    assert [one.query_name for one in pairs[::2]] == [two.query_name for two in pairs[1::2]]
    assert max(record.query_length for record in pairs) == 20


def test_pairs_need_two_files(run_cli, pool):
    result = run_cli("simulate", pool[0], "-o", "-", "--paired", 20)
    assert (result.exit_code, result.stdout) == (WRONG_USE, "")
    assert "standard output is one" in result.stderr
