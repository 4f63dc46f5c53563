"""Reads at the command line: `simulate`, then `unpack` and `decode` of FASTQ; --reads, --plot and their refusals."""

import gzip
import json

import matplotlib.image
import numpy as np
import pytest

from helix_jax import video
from helix_jax.reads import fastq, portions
from helix_jax.strands import fasta

CHEAP = ("--constraints", "strand", "--strand-length", "100")
DONE, WRONG_USE, UNDECODABLE = 0, 2, 4
BLOB = np.random.default_rng(7).bytes(600)
READ_FIELDS = {
    "reads", "unusable", "left_out", "without_quality", "clusters", "at_once", "repaired", "unread", "coverage",
    "strand_length", "substitutions", "insertions", "deletions", "by_position", "used_reads", "duplicate_reads",
    "unread_reads", "enough_reads", "more_reads", "gone", "reads_left", "advice",
}  # fmt: skip
POOL_FIELDS = {"output", "strands", "packets_received", "source_packets", "lost_packets", "verified"}


pytestmark = pytest.mark.usefixtures("one_shape")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, run_cli):
    """(file, its pool in FASTA, simulated reads in FASTQ, figures of the simulation)."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "file").write_bytes(BLOB)
    assert run_cli("pack", folder / "file", "-o", folder / "p.fasta", "--redundancy", 0.3, *CHEAP).exit_code == DONE
    result = run_cli(
        *("simulate", folder / "p.fasta", "-o", folder / "r.fastq", "--preset", "illumina", "--coverage", 6, "--json")
    )
    assert (result.exit_code, result.stderr) == (DONE, "")
    return folder / "file", folder / "p.fasta", folder / "r.fastq", json.loads(result.stdout)


@pytest.fixture
def refused(run_cli, tmp_path):
    """refused(status, words, command, source, *options): fails in one line that holds all words; no file is left."""

    def check(status, words, command, source, *options):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        result = run_cli(command, source, "-o", out / "a.mp4", *options)
        assert (result.exit_code, result.stdout) == (status, ""), result.stderr
        assert result.stderr.startswith("helix-jax: ")
        assert result.stderr.count("\n") == 1
        for word in words:
            assert str(word) in result.stderr
        assert list(out.iterdir()) == []

    return check


def reads_of(strands, copies, seed=0):
    """Copies of strands, each with one base substituted, half of them reverse complements: (bases, lengths, doubts)."""
    draw = np.random.default_rng(seed)
    rows = np.repeat(strands, copies, axis=0)
    place = draw.integers(0, rows.shape[1], len(rows))
    rows[np.arange(len(rows)), place] ^= draw.integers(1, 4, len(rows)).astype(np.uint8)
    turned = draw.random(len(rows)) < 0.5
    rows = np.where(turned[:, None], 3 - rows[:, ::-1], rows)[draw.permutation(len(rows))]
    return rows, np.full(len(rows), rows.shape[1]), np.full(rows.shape, 20, np.uint8)


def only_json(result):
    assert (result.exit_code, result.stderr) == (DONE, "")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


# ---- there and back -----------------------------------------------------------------------------------------


def test_simulate_and_unpack(run_cli, tmp_path, packed):
    file, pool, reads, simulated = packed
    figures = only_json(run_cli("unpack", reads, "-o", tmp_path / "back", "--json"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes() == BLOB
    assert figures.keys() >= READ_FIELDS | POOL_FIELDS
    assert figures["reads"] == simulated["reads"]
    assert (figures["bytes"], figures["verified"], figures["lost_packets"]) == (600, True, 0)
    assert figures["strand_length"] == 100
    written = len(fasta.read(pool)[100])
    found = figures["at_once"] + figures["repaired"]
    assert found == figures["strands"] <= written
    assert sum(read for _, read, _ in figures["coverage"]) == found
    assert sum(unread for *_, unread in figures["coverage"]) == figures["unread"]
    assert written - simulated["lost_strands"] - found <= figures["unread"] + 2
    total = figures["substitutions"] + figures["insertions"] + figures["deletions"]
    assert 0 < total < 3 * simulated["error_rate"]
    assert "plot" not in figures


def test_reads_that_are_left(run_cli, tmp_path, packed, monkeypatch):
    """They are counted, and where N are to be taken, no others are seen."""
    monkeypatch.setattr(portions, "FIRST", 150)
    file, _, reads, simulated = packed
    figures = only_json(run_cli("unpack", reads, "-o", tmp_path / "back", "--json"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert figures["reads"] + figures["reads_left"] == simulated["reads"]
    limits = ("--max-reads", simulated["reads"] - 10)
    figures = only_json(run_cli("unpack", reads, "-o", tmp_path / "back", "--json", *limits))
    assert figures["reads"] <= limits[1]
    assert figures["reads_left"] is None


def test_options_that_divide_reads(tmp_path, packed, refused):
    _, pool, reads, _ = packed
    both = ("--workers", 2, "--scheduler", "tcp://127.0.0.1:9")
    refused(WRONG_USE, ["--workers 2", "--scheduler tcp://127.0.0.1:9", "give one"], "unpack", reads, *both)
    refused(WRONG_USE, ["--workers 0", "give 1 or more"], "unpack", reads, "--workers", 0)
    refused(WRONG_USE, ["--max-reads 0", "give 1 or more"], "unpack", reads, "--max-reads", 0)
    refused(WRONG_USE, ["--max-reads", "holds strands", "--reads"], "unpack", pool, "--max-reads", 9)
    refused(WRONG_USE, ["--workers", "not for --writer timing"], "unpack", reads, "--writer", "timing", "--workers", 2)


def test_table_and_histogram(run_cli, tmp_path, packed):
    result = run_cli("unpack", packed[2], "-o", tmp_path / "back")
    assert (result.exit_code, result.stderr) == (DONE, "")
    assert "reads of a strand" in result.stdout
    assert "at once" in result.stdout
    assert "###" in result.stdout
    plain = run_cli("unpack", packed[1], "-o", tmp_path / "back")
    assert "reads of a strand" not in plain.stdout


def test_gzip_fastq_by_any_name(run_cli, tmp_path, packed):
    path = tmp_path / "reads.fasta"
    path.write_bytes(gzip.compress(packed[2].read_bytes()))
    assert only_json(run_cli("unpack", path, "-o", tmp_path / "back", "--json"))["reads"] == packed[3]["reads"]
    assert (tmp_path / "back").read_bytes() == BLOB


def test_reads_in_a_fasta_file(run_cli, tmp_path, packed, refused):
    """With --reads; without it every read is a strand, and most fail their check."""
    rows, _, _ = reads_of(fasta.read(packed[1])[100], 5)
    path = tmp_path / "reads.fasta"
    fasta.write(path, rows, lambda i: "")
    figures = only_json(run_cli("unpack", path, "-o", tmp_path / "back", "--reads", "--json"))
    assert (tmp_path / "back").read_bytes() == BLOB
    assert figures["reads"] == len(rows)
    assert figures["substitutions"] == pytest.approx(0.01, rel=0.05)
    assert figures["insertions"] + figures["deletions"] < 5e-4
    refused(UNDECODABLE, ["no header strand"], "unpack", path)


def test_decode_a_video(run_cli, tmp_path, make_clip, weights_file):
    make_clip(tmp_path / "clip.mp4", 12, 16, 24)
    model = ("--model", weights_file)
    options = ("--mode", "raw", "--redundancy", 0.5, *model, *CHEAP)
    result = run_cli("encode", tmp_path / "clip.mp4", "-o", tmp_path / "v.fasta", *options)
    assert result.exit_code == DONE, result.stderr
    fastq.write(tmp_path / "v.fastq", *reads_of(fasta.read(tmp_path / "v.fasta")[100], 5))
    plain = only_json(run_cli("decode", tmp_path / "v.fasta", "-o", tmp_path / "a.mp4", *model, "--json"))
    told = only_json(
        run_cli(
            *("decode", tmp_path / "v.fastq", "-o", tmp_path / "b.mp4", *model, "--json", "--plot", tmp_path / "p.png")
        )
    )
    assert told.keys() == plain.keys() | READ_FIELDS | {"plot"}
    assert (told["frames"], told["height"], told["width"], told["lost_tokens"]) == (12, 16, 24, 0)
    assert told["verified"]
    pictures = [np.concatenate(list(video.open_video(tmp_path / name).blocks())) for name in ("a.mp4", "b.mp4")]
    np.testing.assert_array_equal(*pictures)
    check_picture(tmp_path / "p.png")


# ---- the picture --------------------------------------------------------------------------------------------


def check_picture(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)[..., :3]
    height, width, _ = picture.shape
    assert (height, width) == (374, 1430)  # 3.4 x 13 inches of 110 dots
    green = (picture[..., 1] > picture[..., 0] + 0.2) & (picture[..., 1] > picture[..., 2] + 0.2)
    assert green[:, : width // 2].sum() > 1000  # bars of clusters that gave a strand


def test_plot(run_cli, tmp_path, packed):
    figures = only_json(run_cli("unpack", packed[2], "-o", tmp_path / "a", "--plot", tmp_path / "p.png", "--json"))
    assert figures["plot"] == str(tmp_path / "p.png")
    check_picture(tmp_path / "p.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "p.png"]


def test_plot_of_strands_is_refused(tmp_path, packed, refused):
    refused(
        WRONG_USE,
        ["--plot", "p.png", "holds strands", "add --reads"],
        "unpack",
        packed[1],
        "--plot",
        tmp_path / "p.png",
    )
    assert not (tmp_path / "p.png").exists()


def test_plot_that_cannot_be_written(tmp_path, packed, refused):
    refused(WRONG_USE, ["create it first"], "unpack", packed[2], "--plot", tmp_path / "nowhere" / "p.png")


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["unpack", "decode"])
def test_options_for_reads_are_for_strands_alone(tmp_path, refused, command):
    path = tmp_path / "a.fasta"
    path.write_text(">a\nACGT\n")
    refused(WRONG_USE, ["--reads", "not for --writer timing"], command, path, "--writer", "timing", "--reads")
    refused(
        WRONG_USE,
        ["--plot", "not for --writer timing"],
        *(command, path, "--writer", "timing", "--plot", tmp_path / "p.png"),
    )


def test_junk_reads(tmp_path, refused, weights_file):
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 4, (40, 100), dtype=np.uint8)
    fastq.write(tmp_path / "junk.fastq", rows, np.full(40, 100), np.full(rows.shape, 30, np.uint8))
    words = ["no header strand", "40 reads"]
    refused(UNDECODABLE, words, "unpack", tmp_path / "junk.fastq")
    refused(UNDECODABLE, words, "decode", tmp_path / "junk.fastq", "--model", weights_file)
    refused(
        UNDECODABLE, ["none of 40 reads", "primers"], "unpack", tmp_path / "junk.fastq", "--left-primer", "ACGT" * 8
    )


def test_files_cut_short(tmp_path, packed, refused, weights_file):
    whole = gzip.compress(packed[2].read_bytes())
    (tmp_path / "cut.fastq.gz").write_bytes(whole[:10])
    refused(WRONG_USE, ["cut.fastq.gz", "get it again"], "unpack", tmp_path / "cut.fastq.gz")
    refused(WRONG_USE, ["cut.fastq.gz", "get it again"], "decode", tmp_path / "cut.fastq.gz", "--model", weights_file)
    refused(WRONG_USE, ["gone.fastq", "no such file"], "unpack", tmp_path / "gone.fastq", "--reads")
    (tmp_path / "empty.fastq").write_bytes(b"")
    refused(UNDECODABLE, ["none of 0 reads"], "unpack", tmp_path / "empty.fastq", "--reads")


def test_too_few_reads(tmp_path, packed, refused):
    """The header, and half of what it needs: the strands that are there have four reads each; the others are gone."""
    strands = fasta.read(packed[1])[100][:44]
    fastq.write(tmp_path / "few.fastq", *reads_of(strands, 4))
    refused(
        UNDECODABLE,
        ["more reads alone would not be enough", "missing from the sample"],
        "unpack",
        tmp_path / "few.fastq",
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("a")] == []
