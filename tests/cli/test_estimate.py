"""What a clip or a file would take: exact for files, near for clips, with the user's prices and no others."""

import itertools
import json

import numpy as np
import pytest

from helix_jax.config import Prices
from helix_jax.errors import HelixError

CHEAP = ("--constraints", "goldman", "--strand-length", 100)
PRICES = ("--price-per-nt", 0.01, "--price-per-strand", 2, "--nt-per-second", 50)


def estimated(run_cli, *arguments):
    result = run_cli("estimate", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)["estimates"]


@pytest.mark.parametrize("content", [b"", np.random.default_rng(0).bytes(900), b"the same words, " * 99], ids=len)
def test_a_file_takes_what_is_said(tmp_path, run_cli, content):
    (tmp_path / "a.bin").write_bytes(content)
    (figures,) = estimated(run_cli, tmp_path / "a.bin", *CHEAP)
    assert figures.keys() == {"as", "strands", "nucleotides"}  # no price is made up
    assert figures["as"] == "pack"
    packed = json.loads(run_cli("pack", tmp_path / "a.bin", "-o", tmp_path / "a.fasta", *CHEAP, "--json").stdout)
    assert (figures["strands"], figures["nucleotides"]) == (packed["strands"], packed["nucleotides"])
    (priced,) = estimated(run_cli, tmp_path / "a.bin", *CHEAP, *PRICES)
    assert priced["cost"] == pytest.approx(0.01 * figures["nucleotides"] + 2 * figures["strands"])
    assert priced["seconds"] == pytest.approx(figures["nucleotides"] / 50)


@pytest.mark.parametrize("name", ["notes.txt", "notes.nfo"])
def test_a_text_is_no_video(tmp_path, run_cli, name):
    (tmp_path / name).write_bytes(b"What was pipetted today, in which wells, by whom.\n" * 9)  # FFmpeg would draw it
    (figures,) = estimated(run_cli, tmp_path / name, *CHEAP)
    assert figures["as"] == "pack"
    result = run_cli("encode", tmp_path / name, "-o", tmp_path / "a.fasta", *CHEAP)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "not a video, as FFmpeg would only draw its bytes as text" in result.stderr
    assert "helix-jax pack" in result.stderr
    assert not (tmp_path / "a.fasta").exists()


def test_the_timing_writer_takes_time(tmp_path, run_cli):
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(100))
    (figures,) = estimated(run_cli, tmp_path / "a.bin", "--writer", "timing", "--units-per-second", 4)
    packed = json.loads(
        run_cli("pack", tmp_path / "a.bin", "-o", tmp_path / "a.tsv", "--writer", "timing", "--json").stdout
    )
    assert figures["strands"] == packed["strands"]
    assert figures["nucleotides"] == packed["strands"] * packed["rounds_per_strand"]
    assert 0.9 * figures["time_units"] < packed["time_units"] <= figures["time_units"]
    assert figures["seconds"] == pytest.approx(figures["time_units"] / 4, abs=0.1)
    for writer, option in (("timing", "--nt-per-second"), ("bases", "--units-per-second")):
        result = run_cli("estimate", tmp_path / "a.bin", "--writer", writer, option, 3)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert option in result.stderr


def test_a_clip_takes_about_what_is_said(tmp_path, make_clip, run_cli):
    clip = make_clip(tmp_path / "a.mp4", 12, 48, 64)
    rungs = estimated(run_cli, clip, *CHEAP, *PRICES)
    assert [figures["quality"] for figures in rungs] == [0, 2, 4, 6, 8, 10]
    for lower, higher in itertools.pairwise(rungs):
        # of so few bytes those of SVT-AV1 do not quite rise with the quality, as those of `encode` do not
        assert lower["nucleotides"] <= 1.05 * higher["nucleotides"]
        assert lower["psnr"] <= higher["psnr"] + 0.5
    assert rungs[-1]["cost"] == pytest.approx(0.01 * rungs[-1]["nucleotides"] + 2 * rungs[-1]["strands"])
    made = run_cli("encode", clip, "-o", tmp_path / "a.fasta", "--codec", "av1", "--no-note", *CHEAP, "--json")
    real = json.loads(made.stdout)["nucleotides"]
    assert 0.8 * real < rungs[-1]["nucleotides"] < 1.4 * real
    (packed,) = estimated(run_cli, clip, "--packed", *CHEAP)
    assert "quality" not in packed
    assert ({figures["as"] for figures in rungs}, packed["as"]) == ({"av1"}, "pack")
    other = clip.rename(tmp_path / "a.film")  # a clip all the same
    assert estimated(run_cli, other, *CHEAP, *PRICES) == rungs
    for option in (("--sound", 12), ("--no-sound",), ("--preview", 0), ("--fps", 5), ("--tone-map",)):
        result = run_cli("estimate", other, "--packed", *option, *CHEAP)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"{option[0]}: " in result.stderr
    table = run_cli("estimate", other, *CHEAP).stdout
    assert "cost" not in table
    assert "psnr" in table


def test_nothing_to_estimate(tmp_path, run_cli):
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name, words in (("empty.mp4", "the file is empty"), ("gone.txt", "no such file"), ("gone.mp4", "no such file")):
        result = run_cli("estimate", tmp_path / name, *CHEAP)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert words in result.stderr


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ({"per_nt": -0.1}, "--price-per-nt -0.1: give a price of 0 or more"),
        ({"per_strand": float("inf")}, "--price-per-strand inf"),
        ({"nt_per_second": 0}, "--nt-per-second 0: give more than 0"),
        ({"units_per_second": float("nan")}, "--units-per-second nan"),
    ],
)
def test_prices_that_make_no_sense(prices, words):
    with pytest.raises(HelixError, match=words):
        Prices(**prices)
