"""`helix-jax simulate`: reads of a pool in a FASTQ file, its figures, and every refusal in one line."""

import json

import numpy as np
import pytest

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
        (["--preset", "pacbio"], "preset 'pacbio': there is none; the presets are clean"),
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
