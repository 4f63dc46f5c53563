"""--mode, --prior and --no-verify at the command line: what goes in comes out, and wrong priors are named."""

import json

import numpy as np
import pytest

from helix_jax import codec, video
from helix_jax.coding import modes
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import fasta
from helix_jax.tokenizer import weights

CHEAP = ("--constraints", "strand", "--strand-length", "100")
DONE, WRONG_USE, WITH_LOSS, UNDECODABLE = 0, 2, 3, 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory, make_clip):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 36, 17, 24)  # two segments in time


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, clip, run_cli, weights_file, prior_file):
    """Mode -> (path of the pool, its figures)."""
    folder, found = tmp_path_factory.mktemp("pools"), {}
    for mode, more in (
        ("raw", ()),
        ("context", ("--redundancy", 0)),
        ("unverified", ("--redundancy", 0, "--no-verify")),
    ):
        path = folder / f"{mode}.fasta"
        options = (
            "--mode",
            "context" if mode == "unverified" else mode,
            "--prior",
            prior_file,
            "--model",
            weights_file,
        )
        result = run_cli("encode", clip, "-o", path, *options, *more, "--json", *CHEAP)
        assert (result.exit_code, result.stderr) == (DONE, "")
        found[mode] = (path, json.loads(result.stdout))
    return found


@pytest.fixture(scope="module")
def other_prior(tmp_path_factory, prior_file, weights_file):
    """Another prior of the same tokenizer, and one of another tokenizer."""
    kept = prior_weights.load(prior_file)
    folder = tmp_path_factory.mktemp("priors")
    params = kept.params | {"phase": kept.params["phase"] + 1}
    prior_weights.save(folder / "other.safetensors", params, kept.config, kept.tokenizer, {})
    prior_weights.save(folder / "foreign.safetensors", kept.params, kept.config, bytes(32), {})
    return folder / "other.safetensors", folder / "foreign.safetensors"


@pytest.fixture
def refused(run_cli, tmp_path):
    """refused(status, words, command, source, *options): fails in one line that holds all the words, writes nothing."""

    def check(status, words, command, source, *options):
        output = tmp_path / ("out.fasta" if command == "encode" else "out.mp4")
        result = run_cli(command, source, "-o", output, *options)
        assert result.exit_code == status, (result.exit_code, result.stderr)
        assert result.stdout == ""
        assert result.stderr.startswith("helix-jax: ")
        assert result.stderr.count("\n") == 1
        for word in words:
            assert str(word) in result.stderr
        assert not output.exists()

    return check


def decoded(run_cli, pool, output, *options):
    result = run_cli("decode", pool, "-o", output, *options, "--json")
    assert result.exit_code == DONE, result.stderr
    return np.concatenate(list(video.open_video(output).blocks()))


def test_both_modes_give_the_same_video(tmp_path, encoded, run_cli, weights_file, prior_file):
    options = ("--model", weights_file, "--prior", prior_file, "--lossless")
    raw, context = (decoded(run_cli, encoded[m][0], tmp_path / f"{m}.mp4", *options) for m in ("raw", "context"))
    # the same tokens; a pixel on the edge between two levels falls either way, as threads share the sums
    differences = np.abs(raw.astype(int) - context)
    assert differences.max() <= 8
    assert (differences > 0).mean() < 0.01
    assert encoded["context"][0].read_bytes() == encoded["unverified"][0].read_bytes()
    assert encoded["context"][1]["nucleotides"] != encoded["raw"][1]["nucleotides"]
    decoded(run_cli, encoded["raw"][0], tmp_path / "no_prior.mp4", "--model", weights_file)


def test_verification_is_the_default(clip, run_cli, weights_file, prior_file, refused, monkeypatch):
    monkeypatch.setattr(modes.proof, "clip_reads", lambda *_: np.zeros(1, bool))
    options = ("--model", weights_file, "--prior", prior_file, "--mode", "context", *CHEAP)
    refused(WRONG_USE, ["please report this"], "encode", clip, *options)
    refused(WRONG_USE, ["please report this"], "encode", clip, *options, "--verify")


def test_modes_that_are_not_possible(clip, refused, run_cli, weights_file, encoded):
    """The shipped prior is another tokenizer's, so that there is none."""
    refused(
        WRONG_USE,
        ["mode context needs a prior", "--prior"],
        "encode",
        clip,
        "--model",
        weights_file,
        "--mode",
        "context",
    )
    words = ["coded in mode context with prior", "none was given", "--prior"]
    refused(UNDECODABLE, words, "decode", encoded["context"][0], "--model", weights_file)
    result = run_cli("encode", clip, "-o", "never.fasta", "--mode", "best")
    assert result.exit_code == WRONG_USE
    assert "'best'" in result.stderr


def test_priors_that_cannot_be_read(tmp_path, clip, encoded, refused, weights_file, prior_file):
    (tmp_path / "text.safetensors").write_text("no weights")
    half = tmp_path / "half.safetensors"
    half.write_bytes(prior_file.read_bytes()[:5000])
    for command, source in (("encode", clip), ("decode", encoded["context"][0]), ("decode", encoded["raw"][0])):
        for path, word in (
            (tmp_path / "gone.safetensors", "--prior"),
            (tmp_path / "text.safetensors", "not a weights file of helix_jax's prior"),
            (half, "not a weights file of helix_jax's prior"),
            (weights_file, "not a weights file of helix_jax's prior"),
            (tmp_path, tmp_path.name),
        ):
            refused(WRONG_USE, [path.name, word], command, source, "--model", weights_file, "--prior", path)


def test_priors_of_others(clip, encoded, refused, weights_file, prior_file, other_prior):
    other, foreign = other_prior
    hashes = [prior_weights.load(path).digest[:6].hex() for path in (prior_file, other)]
    options = ("--model", weights_file, "--prior")
    refused(UNDECODABLE, [*hashes, "give that one with --prior"], "decode", encoded["context"][0], *options, other)
    for command, source in (("encode", clip), ("decode", encoded["context"][0])):
        words = ["belongs to tokenizer", weights.load(weights_file).digest[:8].hex(), "--model and --prior"]
        refused(WRONG_USE, words, command, source, *options, foreign)


def test_loss(tmp_path, encoded, run_cli, weights_file, prior_file):
    """Copies of the directory may go without a word; a segment may not."""
    pool = fasta.read(encoded["context"][0])[100]
    data = codec.read_pool({100: pool}).header.sources
    first = len(pool) - data
    for lost, status in ((range(4), DONE), ([5], WITH_LOSS)):
        kept = np.delete(pool, first + np.array(lost), axis=0)
        fasta.write(tmp_path / "kept.fasta", kept, lambda i: "")
        arguments = (tmp_path / "kept.fasta", "-o", tmp_path / "a.mp4", "--model", weights_file, "--prior", prior_file)
        result = run_cli("decode", *arguments, "--json")
        assert result.exit_code == status, result.stderr
        figures = json.loads(result.stdout)
        assert figures["lost_packets"] == len(lost)
        assert (figures["lost_tokens"] > 0) == (status == WITH_LOSS)
        assert (f"{figures['lost_tokens']:.1%} of the tokens were lost" in result.stderr) == (status == WITH_LOSS)


def test_batch(tmp_path, clip, run_cli, weights_file, prior_file, encoded, other_prior):
    """The same pools as one by one; another prior or mode makes them anew."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(clip.read_bytes())

    def run(*options):
        arguments = ("--out", tmp_path / "out", "--model", weights_file, "--redundancy", 0, *CHEAP, *options, "--json")
        result = run_cli("encode-batch", tmp_path / "videos", *arguments)
        assert result.exit_code == DONE, result.stderr
        summary = json.loads(result.stdout)
        return summary["done"], summary["skipped"]

    ours = ("--prior", prior_file, "--mode", "context")
    assert run(*ours) == (1, 0)
    assert (tmp_path / "out" / "a.mp4.fasta").read_bytes() == encoded["context"][0].read_bytes()
    assert run(*ours) == (0, 1)
    assert run(*ours, "--no-verify") == (1, 0)
    assert run("--prior", other_prior[0], "--mode", "context") == (1, 0)
    assert run("--prior", other_prior[0], "--mode", "raw") == (1, 0)
    assert run("--prior", other_prior[0], "--mode", "raw") == (0, 1)


# ---- how much is written ---------------------------------------------------------------------------------


def written(run_cli, clip, path, *options):
    """Figures of a pool that was encoded with these options."""
    result = run_cli("encode", clip, "-o", path, *options, "--json", *CHEAP)
    assert (result.exit_code, result.stderr) == (DONE, "")
    return json.loads(result.stdout)


def test_a_budget_is_kept(tmp_path, clip, encoded, run_cli, weights_file, prior_file):
    """In all nucleotides of the pool, or per pixel; what is left decodes, with the digits that were sent."""
    options = ("--model", weights_file, "--prior", prior_file, "--mode", "raw")
    whole = encoded["raw"][1]
    least = written(run_cli, clip, tmp_path / "least.fasta", *options, "--quality", 0)["nucleotides"]
    budget = (least + whole["nucleotides"]) // 2
    found = written(run_cli, clip, tmp_path / "a.fasta", *options, "--budget", budget)
    assert least < found["nucleotides"] <= budget
    rate = budget / whole["nucleotides"] * whole["nt_per_pixel"]
    again = written(run_cli, clip, tmp_path / "b.fasta", *options, "--rate", f"{rate:.5f}")
    assert again["nt_per_pixel"] <= rate
    assert abs(again["nucleotides"] - found["nucleotides"]) <= 200
    assert len(decoded(run_cli, tmp_path / "a.fasta", tmp_path / "a.mp4", *options[:4])) == 36


def test_qualities(tmp_path, clip, encoded, run_cli, weights_file, prior_file):
    """Less of it takes fewer nucleotides, and the video has as many frames as ever."""
    options = ("--model", weights_file, "--prior", prior_file)
    path = tmp_path / "low.fasta"
    found = written(run_cli, clip, path, *options, "--mode", "raw", "--quality", 0)
    assert found["nucleotides"] < encoded["raw"][1]["nucleotides"]
    assert len(decoded(run_cli, path, tmp_path / "low.mp4", *options)) == 36


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["quality 11", "0 to 10"], ("--quality", 11)),
        (["quality -1"], ("--quality", -1)),
        (["100 nucleotides are too few", "at the lowest quality"], ("--budget", 100)),
        (["rate -1", "more than 0"], ("--rate", -1)),
        (["one of them"], ("--rate", 1, "--quality", 3)),
    ],
)
def test_rates_that_are_not_possible(clip, refused, weights_file, prior_file, words, options):
    refused(
        WRONG_USE,
        words,
        "encode",
        clip,
        "--model",
        weights_file,
        "--prior",
        prior_file,
        "--mode",
        "raw",
        *options,
        *CHEAP,
    )
