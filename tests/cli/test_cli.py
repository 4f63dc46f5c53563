"""The command line: what goes in comes out, the promised JSON fields, and every exit status, each produced for real."""

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import typer.main

from helix_jax import video
from helix_jax.cli import app, demonstration
from helix_jax.strands import fasta

CHEAP = ("--constraints", "strand", "--strand-length", 100)
POOL_FIELDS = {
    "output",
    "constraints",
    "strands",
    "nucleotides",
    "gross_bits_per_nt",
    "net_bits_per_nt",
    "capacity",
    "key",
}
REPORT_FIELDS = {"strands", "unreadable", "lost_packets", "source_packets", "rejected", "lost_tokens", "verified"}
DONE, CHECK_FAILED, WRONG_USE, WITH_LOSS, UNDECODABLE = range(5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, make_clip):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 6, 17, 24)


@pytest.fixture(scope="module")
def movie_pool(tmp_path_factory, make_clip, run_cli, weights_file):
    """Records (name, sequence) of a pool of about 40 data strands, and how many of them are header strands."""
    folder = tmp_path_factory.mktemp("movie")
    make_clip(folder / "movie.mp4", 16, 64, 72)
    result = run_cli("encode", folder / "movie.mp4", "-o", folder / "pool.fasta", "--model", weights_file, *CHEAP)
    assert result.exit_code == DONE, result.stderr
    lines = (folder / "pool.fasta").read_text().splitlines()
    records = list(zip(lines[::2], lines[1::2], strict=True))
    return records, sum(" header" in name for name, _ in records)


def write_records(path, records):
    path.write_text("".join(f"{name}\n{sequence}\n" for name, sequence in records))
    return path


def only_json(result):
    """The one JSON object on standard output; nothing else may be there, and no escape code anywhere."""
    assert result.stdout.count("\n") == 1
    assert result.stdout.endswith("\n")
    assert "\x1b" not in result.stdout + result.stderr
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


# ---- video ---------------------------------------------------------------------------------


def test_encode_and_decode(tmp_path, clip, run_cli, weights_file):
    pool, back = tmp_path / "pool.fasta", tmp_path / "back.mp4"
    encoded = run_cli("encode", clip, "-o", pool, "--model", weights_file, "--json", *CHEAP)
    assert (encoded.exit_code, encoded.stderr) == (DONE, "")
    figures = only_json(encoded)
    assert figures.keys() >= POOL_FIELDS | {"nt_per_pixel"}
    strands = fasta.read(pool)[100]
    assert (figures["strands"], figures["nucleotides"]) == (len(strands), strands.size)
    assert figures["net_bits_per_nt"] < figures["gross_bits_per_nt"] <= figures["capacity"]
    assert figures["nt_per_pixel"] == pytest.approx(strands.size / (6 * 17 * 24), abs=1e-5)

    decoded = run_cli("decode", pool, "-o", back, "--model", weights_file, "--json")
    assert (decoded.exit_code, decoded.stderr) == (DONE, "")
    figures = only_json(decoded)
    assert figures.keys() >= REPORT_FIELDS
    assert (figures["frames"], figures["height"], figures["width"], figures["fps"]) == (6, 17, 24, "30000/1001")
    assert figures["verified"]
    assert figures["lost_packets"] == figures["lost_tokens"] == 0
    assert video.open_video(back).info == video.open_video(clip).info
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back.mp4", "pool.fasta"]


@pytest.mark.parametrize(
    ("frames", "height", "width", "fps"),
    [(1, 7, 9, "24000/1001"), (1, 16, 16, "25"), (5, 33, 31, "25"), (9, 15, 40, "15/2"), (4, 8, 8, "60")],
)
def test_rate_size_and_frames_come_back_exactly(tmp_path, make_clip, run_cli, weights_file, frames, height, width, fps):
    """Odd sizes and clips of one frame included."""
    make_clip(tmp_path / "a.mp4", frames, height, width, fps)
    info = video.VideoInfo(frames, height, width, Fraction(fps))
    assert video.open_video(tmp_path / "a.mp4").info == info
    run_cli("encode", tmp_path / "a.mp4", "-o", tmp_path / "a.fasta", "--model", weights_file, *CHEAP)
    result = run_cli("decode", tmp_path / "a.fasta", "-o", tmp_path / "b.mp4", "--model", weights_file)
    assert result.exit_code == DONE, result.stderr
    reader = video.open_video(tmp_path / "b.mp4")
    assert reader.info == info
    assert sum(len(block) for block in reader.blocks()) == frames


def test_sound_comes_back_with_tokens(tmp_path, make_clip, run_cli, weights_file):
    make_clip(tmp_path / "loud.mp4", 4, 16, 16, sound=True)
    result = run_cli(
        "encode", tmp_path / "loud.mp4", "-o", tmp_path / "a.fasta", "--model", weights_file, "--json", *CHEAP
    )
    assert result.exit_code == DONE
    assert result.stderr == ""
    assert [section["kind"] for section in only_json(result)["sections"]] == ["tokens", "sound"]
    back = run_cli("decode", tmp_path / "a.fasta", "-o", tmp_path / "b.mp4", "--model", weights_file)
    assert back.exit_code == DONE
    assert back.stderr == ""
    assert video.open_video(tmp_path / "b.mp4").has_audio
    silent = ("--no-sound", "--json", "--model", weights_file, *CHEAP)
    assert "sections" not in only_json(run_cli("encode", tmp_path / "loud.mp4", "-o", tmp_path / "c.fasta", *silent))


def test_the_clip_is_prepared_as_asked(tmp_path, make_clip, run_cli, weights_file):
    """A variable rate is refused with its remedy, which works; what else is lost is told, and the film plays."""
    clip, pool = tmp_path / "odd.mkv", tmp_path / "a.fasta"
    make_clip(clip, 8, 16, 24, "25", times=[0, 1, 2, 3, 5, 6, 7, 8], aspect=Fraction(16, 11))
    refused = run_cli("encode", clip, "-o", pool, "--model", weights_file, *CHEAP)
    assert refused.exit_code == WRONG_USE
    assert f"{clip}: variable frame rate" in refused.stderr
    assert refused.stderr.rstrip().endswith("--fps 25")
    bad = run_cli("encode", clip, "-o", pool, "--model", weights_file, "--fps", "fast", *CHEAP)
    assert (bad.exit_code, bad.stderr.count("\n")) == (WRONG_USE, 1)
    assert "frame rate 'fast': give" in bad.stderr
    assert not pool.exists()
    given = ("--fps", "25", "--deinterlace", "--tone-map")
    encoded = run_cli("encode", clip, "-o", pool, "--model", weights_file, *given, *CHEAP)
    assert encoded.exit_code == DONE, encoded.stderr
    assert encoded.stderr.count("\n") == 1
    assert "odd.mkv has pixels of 16:11" in encoded.stderr

    early = run_cli("decode", tmp_path / "none.fasta", "-o", tmp_path / "b.avi", "--model", weights_file)
    assert (early.exit_code, early.stderr.count("\n")) == (WRONG_USE, 1)
    assert "b.avi: videos are written as MP4" in early.stderr
    film = tmp_path / "a.mp4"
    for pixel_format, more in (("yuv420p", ()), ("yuv444p", ("--lossless",))):
        figures = only_json(run_cli("decode", pool, "-o", film, "--model", weights_file, "--json", *more))
        assert (figures["frames"], figures["fps"], figures["pixel_format"]) == (9, "25", pixel_format)
        assert video.open_video(film).info == video.VideoInfo(9, 16, 24, Fraction(25))


def test_past_the_redundancy_status_3(tmp_path, movie_pool, run_cli, weights_file):
    """The video comes back, its loss is told in the report and on standard error."""
    records, headers = movie_pool
    data = len(records) - headers
    pool = write_records(tmp_path / "pool.fasta", records[: headers + data // 2])
    result = run_cli("decode", pool, "-o", tmp_path / "b.mp4", "--model", weights_file, "--json")
    assert result.exit_code == WITH_LOSS
    figures = only_json(result)
    assert 0 < figures["lost_packets"] < figures["source_packets"]
    assert 0.1 < figures["lost_tokens"] < 0.8
    assert not figures["verified"]
    assert f"{figures['lost_tokens']:.1%}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert video.open_video(tmp_path / "b.mp4").info == video.VideoInfo(16, 64, 72, Fraction(30000, 1001))


def test_within_the_redundancy_status_0(tmp_path, movie_pool, run_cli, weights_file):
    records, headers = movie_pool
    pool = write_records(tmp_path / "pool.fasta", records[: headers // 2] + records[headers + 2 :])
    result = run_cli("decode", pool, "-o", tmp_path / "b.mp4", "--model", weights_file, "--json")
    assert result.exit_code == DONE
    assert only_json(result)["verified"]


def test_too_few_strands_status_4(tmp_path, movie_pool, run_cli, weights_file):
    records, headers = movie_pool
    for name, few, words in (
        ("a", records[:3], "too few strands"),
        ("b", records[:headers], "more strands are needed"),
    ):
        pool = write_records(tmp_path / f"{name}.fasta", few)
        result = run_cli("decode", pool, "-o", tmp_path / f"{name}.mp4", "--model", weights_file)
        assert result.exit_code == UNDECODABLE
        assert result.stdout == ""
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / f"{name}.mp4").exists()


# ---- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 21, 22, 23, 3000])
def test_pack_and_unpack(tmp_path, run_cli, size):
    blob = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(blob)
    packed = run_cli("pack", tmp_path / "file", "-o", tmp_path / "a.fasta.gz", "--redundancy", 0.2, "--json", *CHEAP)
    assert (packed.exit_code, packed.stderr) == (DONE, "")
    assert only_json(packed).keys() >= POOL_FIELDS
    unpacked = run_cli("unpack", tmp_path / "a.fasta.gz", "-o", tmp_path / "back", "--json")
    assert (unpacked.exit_code, unpacked.stderr) == (DONE, "")
    figures = only_json(unpacked)
    assert figures.keys() >= REPORT_FIELDS - {"lost_tokens"}
    assert figures["bytes"] == size
    assert (tmp_path / "back").read_bytes() == blob


@pytest.mark.usefixtures("cheap_sets")
def test_key_motifs_and_primers(tmp_path, run_cli):
    (tmp_path / "file").write_bytes(b"with options")
    options = ("--forbid", "gaattc", "--forbid", "GGATCC", "--left-primer", "ACGTTGCA", "--right-primer", "TGACCTGA")
    pool, back = tmp_path / "a.fasta", tmp_path / "back"
    settings = ("--constraints", "wide", "--strand-length", 100, "--key", "0011223344556677")
    packed = run_cli("pack", tmp_path / "file", "-o", pool, *settings, *options, "--json")
    assert packed.exit_code == DONE, packed.stderr
    assert only_json(packed)["key"] == "0011223344556677"
    strands = pool.read_text().splitlines()[1::2]
    assert all("GAATTC" not in strand and strand.startswith("ACGTTGCA") for strand in strands)
    assert run_cli("unpack", pool, "-o", back, *options, "--key", "0011223344556677").exit_code == DONE
    assert back.read_bytes() == b"with options"
    assert run_cli("inspect", pool, *options).exit_code == DONE
    other = run_cli("unpack", pool, "-o", tmp_path / "none", *options, "--key", "ff11223344556677")
    assert other.exit_code == UNDECODABLE
    assert "ff11223344556677" in other.stderr


# ---- inspect, capacity ---------------------------------------------------------------------


def test_inspect(tmp_path, movie_pool, run_cli):
    records, headers = movie_pool
    figures = only_json(run_cli("inspect", write_records(tmp_path / "a.fasta", records), "--json"))
    assert figures.keys() >= {
        "strands",
        "violations",
        "gross_bits_per_nt",
        "net_bits_per_nt",
        "capacity",
        "wasted_bits",
    }
    assert (figures["strands"], figures["violations"]) == (len(records), 0)
    assert figures["source_strands"] + figures["repair_strands"] == len(records) - headers
    assert figures["net_bits_per_nt"] == pytest.approx(8 * 2 * (4 * 8 * 9) / (100 * len(records)), abs=1e-4)
    fields = ("payload_bits", "index_bits", "check_bits", "wasted_bits")
    assert sum(figures[name] for name in fields) == figures["bits_per_strand"]
    assert figures["gross_bits_per_nt"] == pytest.approx(figures["bits_per_strand"] / 100, abs=1e-4)
    assert sum(figures["runs"].values()) == sum(figures["gc"].values()) == len(records)
    assert max(figures["runs"]) == "3"
    shown = run_cli("inspect", tmp_path / "a.fasta")
    assert shown.exit_code == DONE
    for words in ("violations", "capacity", "net bits per nt", "longest run", "GC share", "###"):
        assert words in shown.stdout


def test_inspect_status_1(tmp_path, movie_pool, run_cli):
    """One strand edited to hold a run of five."""
    records, headers = movie_pool
    name, sequence = records[headers + 4]
    hurt = list(records)
    hurt[headers + 4] = (name, sequence[:40] + "GGGGG" + sequence[45:])
    pool = write_records(tmp_path / "a.fasta", hurt)
    result = run_cli("inspect", pool, "--json")
    assert result.exit_code == CHECK_FAILED
    figures = only_json(result)
    assert figures["violations"] == 1
    assert figures["violations_by_rule"]["no run longer than 3"] == 1
    assert max(figures["runs"], key=int) >= "5"
    assert f"strand {headers + 4}" in figures["examples"][0]
    shown = run_cli("inspect", pool)
    assert shown.exit_code == CHECK_FAILED
    assert f"strand {headers + 4}" in shown.stdout
    assert run_cli("inspect", pool, "--constraints", "goldman").exit_code == CHECK_FAILED


def test_inspect_without_header(tmp_path, movie_pool, run_cli):
    records, headers = movie_pool
    pool = write_records(tmp_path / "a.fasta", records[headers:])
    refused = run_cli("inspect", pool)
    assert refused.exit_code == UNDECODABLE  # as for `decode`
    assert "--constraints" in refused.stderr
    assert only_json(run_cli("inspect", pool, "--constraints", "strand", "--json"))["violations"] == 0


def test_capacity(run_cli):
    result = run_cli("capacity", "--constraints", "goldman", "--strand-length", 100, "--json")
    assert (result.exit_code, result.stderr) == (DONE, "")
    figures = only_json(result)
    assert figures["length"] == 100
    assert figures["capacity"] == pytest.approx(np.log2(3), abs=1e-5)
    assert figures["limit"] == pytest.approx((2 + 99 * np.log2(3)) / 100, abs=1e-5)
    assert figures["carried"] == figures["bits_per_strand"] / 100 <= figures["limit"]
    motif = only_json(
        run_cli("capacity", "--constraints", "goldman", "--strand-length", 100, "--forbid", "ACG", "--json")
    )
    assert motif["limit"] < figures["limit"]
    assert motif["capacity"] < figures["capacity"]
    assert "capacity" in run_cli("capacity", *CHEAP).stdout


# ---- demo ----------------------------------------------------------------------------------


def test_demo(tmp_path, make_clip, run_cli, weights_file, monkeypatch):
    """The whole demonstration with the shipped weights, on a shorter clip."""
    monkeypatch.setattr(demonstration, "CLIP", make_clip(tmp_path / "short.mp4", 8, 64, 96))
    result = run_cli("demo", "--out", tmp_path / "demo", "--json")
    assert (result.exit_code, result.stderr) == (DONE, "")
    figures = only_json(result)
    assert figures["violations"] == 0
    assert figures["clip"] == "8 frames of 96x64"
    assert figures["net_bits_per_nt"] < figures["gross_bits_per_nt"] <= figures["capacity"]
    assert figures["tokens decoded tokens concealed"] == 0
    assert figures["av1 decoded preview seconds"] == 0
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == [
        "damaged.mp4",
        "decoded.mp4",
        "demo.png",
        "pool.fasta",
        "tokens-damaged.mp4",
        "tokens-decoded.mp4",
        "tokens.fasta",
    ]
    assert video.open_video(tmp_path / "demo" / "decoded.mp4").info == video.open_video(demonstration.CLIP).info
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")


# ---- the process ---------------------------------------------------------------------------


def process(*arguments, **options):
    command = [sys.executable, "-m", "helix_jax.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_and_wrong_use_of_the_process():
    shown = process("--help")
    assert shown.returncode == DONE
    assert shown.stderr == ""
    for command in ("encode", "encode-batch", "decode", "pack", "unpack", "inspect", "capacity", "demo"):
        assert command in shown.stdout
    assert "Exit status" in shown.stdout
    refused = process("pack", "--nonsense")
    assert refused.returncode == WRONG_USE
    assert refused.stdout == ""
    assert "--nonsense" in refused.stderr


def test_no_word_of_the_help_is_taken_for_markup(run_cli):
    """Brackets of an extra, as in helix-jax[cluster], stay, and apart from [bold] nothing else is in brackets."""
    shown = "".join(run_cli("unpack", "--help").stdout.replace("│", "").split())
    assert "pipinstall'helix-jax[cluster]'" in shown

    def helps(command):
        yield from (parameter.help for parameter in command.params if getattr(parameter, "help", None))
        yield from filter(None, (command.help, command.epilog))
        for inner in getattr(command, "commands", {}).values():
            yield from helps(inner)

    texts = list(helps(typer.main.get_command(app.app)))
    assert len(texts) > 100
    for text in texts:
        assert set(re.findall(r"(?<!\\)\[[^\]]*\]", text)) <= {"[bold]", "[/bold]"}, text


def test_status_and_streams_of_the_process(tmp_path, movie_pool):
    """Quiet, no escape code; status 1 reaches the shell."""
    records, _ = movie_pool
    name, sequence = records[-1]
    pool = write_records(tmp_path / "a.fasta", [*records[:-1], (name, "AAAAA" + sequence[5:])])
    result = process("inspect", pool, "--json")
    assert (result.returncode, result.stderr) == (CHECK_FAILED, "")
    assert json.loads(result.stdout)["violations"] == 1


def test_progress_on_a_terminal(tmp_path, on_terminal):
    """Bars on standard error where it is a terminal; standard output stays what it is."""
    (tmp_path / "file").write_bytes(bytes(500))
    status, printed, shown = on_terminal("pack", tmp_path / "file", "-o", tmp_path / "a.fasta", *CHEAP)
    assert status == DONE
    assert b"strands" in shown
    assert b"\x1b[" in shown
    assert b"\x1b" not in printed


def test_every_command_has_help(run_cli):
    for command in app.app.registered_commands:
        result = run_cli(command.name or command.callback.__name__.replace("_", "-"), "--help")
        assert result.exit_code == DONE
        assert command.callback.__doc__.split()[0] in result.stdout


def test_module_is_the_installed_command():
    text = (Path(app.__file__).parents[2] / "pyproject.toml").read_text()
    assert 'helix-jax = "helix_jax.cli:main"' in text
