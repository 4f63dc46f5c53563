"""AV1 and sound on the command line: encode, inspect, decode, reads, and what is said of losses."""

import json

import av
import numpy as np
import pytest

from helix_jax import video
from helix_jax.strands import fasta

CHEAP = ("--constraints", "strand", "--strand-length", 100)
DONE, WITH_LOSS, UNDECODABLE, WRONG_USE = 0, 3, 4, 2


@pytest.fixture(scope="module")
def pool(tmp_path_factory, make_clip, run_cli):
    """A clip with sound as a pool with a large preview, and the figures of `encode`."""
    folder = tmp_path_factory.mktemp("av1")
    make_clip(folder / "clip.mp4", 12, 48, 64, sound=True)
    options = ("--codec", "av1", "--preview", 0.3, "--quality", 6, "--json", *CHEAP)
    result = run_cli("encode", folder / "clip.mp4", "-o", folder / "pool.fasta", *options)
    assert (result.exit_code, result.stderr) == (DONE, "")
    return folder / "pool.fasta", json.loads(result.stdout)


def test_encode_inspect_decode(tmp_path, pool, run_cli):
    path, figures = pool
    assert figures["codec"] == "av1"
    assert [section["kind"] for section in figures["sections"]] == ["preview", "sound", "av1"]
    seen = json.loads(run_cli("inspect", path, "--json").stdout)
    assert (seen["sections"], seen["needs"], seen["violations"]) == (figures["sections"], {}, 0)
    table = run_cli("inspect", path).stdout
    assert "nothing but the strands" in table
    assert "repair strands" in table
    info = video.open_video(path.with_name("clip.mp4")).info
    for suffix in (".mp4", ".mkv", ".webm"):
        result = run_cli("decode", path, "-o", tmp_path / f"back{suffix}", "--json")
        assert (result.exit_code, result.stderr) == (DONE, "")
        back = video.open_video(tmp_path / f"back{suffix}")
        assert (back.info, back.has_audio) == (info, True)
        with av.open(str(tmp_path / f"back{suffix}")) as container:
            assert container.streams.video[0].codec_context.name == "libdav1d"
    lossless = run_cli("decode", path, "-o", tmp_path / "all.mkv", "--lossless", "--json")
    assert json.loads(lossless.stdout)["pixel_format"] == "yuv444p"


def test_losses_are_told(tmp_path, pool, run_cli):
    """Without half of the strands of the picture, the preview is shown and the seconds are named."""
    path, figures = pool
    (strands,) = fasta.read(path).values()
    heads = len(strands) - sum(s["source_strands"] + s["repair_strands"] for s in figures["sections"])
    preview, sound, picture = figures["sections"]
    sources = preview["source_strands"] + sound["source_strands"]
    gone = np.arange(heads + sources, heads + sources + picture["source_strands"])
    fasta.write(tmp_path / "some.fasta", np.delete(strands, gone, axis=0), lambda i: "strand")
    result = run_cli("decode", tmp_path / "some.fasta", "-o", tmp_path / "back.mp4", "--json")
    assert result.exit_code == WITH_LOSS
    assert "are shown from the preview" in result.stderr
    told = json.loads(result.stdout)
    assert told["preview_seconds"] == [[0.0, pytest.approx(12 / 30000 * 1001, rel=0.2)]]
    assert video.open_video(tmp_path / "back.mp4").info.frames == 12
    none = np.delete(strands, np.arange(heads, heads + sources + picture["source_strands"]), axis=0)
    fasta.write(tmp_path / "none.fasta", none[: heads + 5], lambda i: "strand")
    refused = run_cli("decode", tmp_path / "none.fasta", "-o", tmp_path / "never.mp4")
    assert refused.exit_code == UNDECODABLE
    assert not (tmp_path / "never.mp4").exists()


def test_reads_of_an_av1_pool(tmp_path, pool, run_cli):
    path, _ = pool
    reads = tmp_path / "reads.fastq"
    assert run_cli("simulate", path, "-o", reads, "--preset", "clean", "--coverage", 6).exit_code == DONE
    result = run_cli("decode", reads, "-o", tmp_path / "back.mp4", "--json")
    assert (result.exit_code, result.stderr) == (DONE, "")
    assert json.loads(result.stdout)["verified"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sound", 5), "sound 5: give 6 to 510"),
        (("--preview", 0.7), "preview 0.7: give a share"),
        (("--budget", 200), "too few"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, pool, run_cli, options, words):
    clip = pool[0].with_name("clip.mp4")
    result = run_cli("encode", clip, "-o", tmp_path / "a.fasta", "--codec", "av1", *options, *CHEAP)
    assert result.exit_code == WRONG_USE
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
