"""The report over tiny clips: what is counted, what is kept, and a page that needs nothing else."""

import csv
import dataclasses
import html.parser
import itertools
import json
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy

from eval import clips, lpips
from eval.report import codecs, command, compare, tables, ways, writers
from helix_jax import codec, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import Nets
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import checker
from helix_jax.tk_scone import constraints
from helix_jax.tokenizer import weights

FRAMES = 8
SAME = StrandConfig(redundancy=0.1)
NAME = "a<b&.mp4"  # what a page must escape


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer points, one preset; the devices of the session and its cache stay."""
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)
    monkeypatch.setattr("helix_jax.parallel.keep_compiled", lambda: None)
    few = (ways.Way("raw", (10, 6)), ways.Way("prior", (10,)), ways.Way("av1", (1,)))
    monkeypatch.setattr(ways, "WAYS", few)
    kinds = [dataclasses.replace(kind, presets=kind.presets[:1], ladder=((1.0, (20, 51)),)) for kind in codecs.CODECS]
    monkeypatch.setattr(codecs, "CODECS", tuple(kinds))
    monkeypatch.setattr(compare, "SHARES", (0.0, 0.05, 0.4))
    monkeypatch.setattr(compare, "MORE", 0.15)  # with more no H.265 is small enough for so small a clip


@pytest.fixture
def run(monkeypatch, weights_file, prior_file):
    """run(*arguments): the command with the tiny nets."""

    def go(*arguments):
        options = ("--frames", FRAMES, "--model", weights_file, "--prior", prior_file, "--redundancy", 0.1, *arguments)
        monkeypatch.setattr(sys, "argv", ["report", *map(str, options)])
        command.main()

    return go


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "alex.safetensors"
    generator = np.random.default_rng(0)
    tensors = {name: np.abs(generator.normal(0, 0.05, shape)) for name, shape in lpips.shapes().items()}
    safetensors.numpy.save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, path)
    return path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Links(html.parser.HTMLParser):
    """Everything that a page would load, and its text."""

    def __init__(self, page):
        super().__init__()
        self.links, self.text, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "poster", "srcset", "data")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.slow
def test_a_report(tmp_path, make_clip, run, lpips_file, weights_file, prior_file, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / NAME, FRAMES + 4, 64, 64)
    out, streams, compress = tmp_path / "out", {}, codecs.compress

    def recorded(frames, fps, crf, kind, preset, scale):
        stream = compress(frames, fps, crf, kind, preset, scale)
        return streams.setdefault((kind.title, f"CRF {crf:g}"), stream)

    monkeypatch.setattr(codecs, "compress", recorded)
    arguments = (tmp_path / "in", "--out", out, "--lpips", lpips_file)
    run(*arguments)
    points, losses = rows(out / "report.csv"), rows(out / "losses.csv")
    assert len(points) == 2 + 1 + 1 + 3 * 2 * len(writers.WRITERS)
    assert len(losses) == (2 + 1 + 3 + 1) * 3
    clip = clips.load(tmp_path / "in" / NAME, FRAMES)
    model, prior = weights.load(weights_file), prior_weights.load(prior_file)

    for row in points:  # every row against strands made again, and an ordinary pool's
        if row["method"].startswith("helix_jax"):
            quality = int(row["setting"].split()[1])
            kind = row["method"].split()[1].rstrip(",")
            mode = {"codec": "av1"} if kind == "av1" else {"codec": "tokens", "mode": kind}
            asked = CodecConfig(**mode, preview=0.0, quality=quality, verify=False, strands=SAME)
            strands = codec.encode(clip, Nets(model, prior), config=asked).strands
            claims = constraints.named("helix")
        else:
            stream = streams[row["method"], row["setting"]]
            assert int(row["content_bytes"]) == stream.size
            writer = next(writer for writer in writers.WRITERS if writer.name == row["writer"])
            strands, claims = writers.pool_of(stream.to_bytes(), writer, 0.1).strands, writer.constraints
            if writer == writers.OURS:
                assert strands.shape == codec.pack(stream.to_bytes(), config=CodecConfig(strands=SAME)).strands.shape
        assert int(row["nucleotides"]) == strands.shape[0] * 150
        assert float(row["nt_per_pixel"]) == pytest.approx(strands.size / (FRAMES * 64 * 64))
        assert float(row["net_bit_per_nt"]) == pytest.approx(8 * int(row["content_bytes"]) / strands.size)
        assert int(row["break_claims"]) == checker.check(strands, claims).violations == 0
        broken = checker.check(strands, constraints.named("helix")).violations
        assert int(row["break_helix"]) == broken
        assert (broken == 0) == (row["writer"] == "tk_scone_helix")
        assert float(row["lpips"]) >= 0
    timed = {row["setting"] for row in points if row["method"] == "helix_jax raw" and row["encode_s"]}
    assert timed == {"quality 10"}

    for row in losses:
        best = {r["psnr"] for r in losses if r["method"] == row["method"] and r["share"] == "0.0"}
        if row["share"] != "0.4":
            assert row["whole"] == "True"
            assert {row["psnr"]} == best
        else:
            assert row["whole"] == "False"
    page = (out / "report.html").read_text()
    seen = Links(page)
    assert seen.links
    assert all(link.startswith("data:") for link in seen.links)
    written = re.sub(r";base64,[A-Za-z0-9+/=]*", "", page)  # chance puts any four letters into a picture
    assert "http" not in written.replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page
    assert "script" not in seen.tags
    assert NAME in seen.text
    assert "<b&" not in page
    assert {"video", "img", "table"} <= set(seen.tags)
    assert str(tmp_path) not in page
    text = (out / "report.md").read_text()
    assert "LPIPS" in text
    assert all(line.count("|") == text_line.count("|") for line, text_line in _pairs(text))

    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(compare, "measure", None)  # nothing is measured again
    run(*arguments)
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert "1 clips, 1 of them measured before" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"measured with other settings \(redundancy, lpips\): give another --out"):
        run(*arguments[:3], "--redundancy", 0.2)


def _pairs(text):
    """Lines of a table, each with the one before."""
    lines = text.splitlines()
    return [(a, b) for a, b in itertools.pairwise(lines) if a.startswith("|") and b.startswith("|")]


def test_a_killed_run_goes_on(tmp_path, make_clip, run, one_shape, monkeypatch, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(folder / name, FRAMES, 64, 64)
    # a small report: of every kind one, for which alone a thing is compiled
    monkeypatch.setattr(ways, "WAYS", (ways.Way("raw", (10,)), ways.Way("prior", (10,))))
    monkeypatch.setattr(codecs, "CODECS", codecs.CODECS[:2])
    monkeypatch.setattr(compare, "SHARES", (0.0, 0.4))
    measured, whole = [], compare.measure

    def one_only(clip, *rest):
        if measured:
            raise KeyboardInterrupt
        measured.append(clip.name)
        return whole(clip, *rest)

    monkeypatch.setattr(compare, "measure", one_only)
    with pytest.raises(KeyboardInterrupt):
        run(folder, "--out", out)
    assert measured == ["a.mp4"]
    assert not (out / "report.html").exists()
    kept = (out / "clips" / "a.mp4.json").read_bytes()

    def second(clip, *_):
        measured.append(clip.name)
        return *_parts(json.loads(kept)), {"original": clip.frames}

    monkeypatch.setattr(compare, "measure", second)
    run(folder, "--out", out)
    assert measured == ["a.mp4", "b.mp4"]
    assert (out / "clips" / "a.mp4.json").read_bytes() == kept
    assert {row["clip"] for row in rows(out / "report.csv")} == {"a.mp4", "b.mp4"}
    assert "lpips" not in (out / "report.csv").read_text()
    assert "LPIPS" not in (out / "report.html").read_text().replace("--lpips", "")
    assert "LPIPS" not in (out / "report.md").read_text()

    make_clip(folder / "b.mp4", FRAMES, 64, 72)
    run(folder, "--out", out)
    assert measured == ["a.mp4", "b.mp4", "b.mp4"]
    assert "b.mp4 has changed: measured again" in capsys.readouterr().err


def _parts(result):
    figures = {part: result[part] for part in ("points", "equal", "losses")}
    return figures, {"original": np.zeros((64, 64, 3), np.uint8)}


def test_clean_clips_are_told_apart(tmp_path, make_clip):
    """Noise takes more than a bit per pixel in its file; a smooth clip, and half of it, does not."""
    make_clip(tmp_path / "smooth.mp4", 8, 64, 96)
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)
    info = video.VideoInfo(8, 64, 96, Fraction(25))
    with video.VideoWriter(tmp_path / "noise.mp4", info) as writer:
        writer.write(noise)
    assert clips.load(tmp_path / "noise.mp4", 4).clean
    smooth, half = (clips.load(tmp_path / "smooth.mp4", 4, half) for half in (False, True))
    assert (smooth.clean, half.clean) == (False, True)
    assert half.frames.shape == (4, 32, 48, 3)
    assert (half.info.frames, half.info.height, half.info.width) == (4, 32, 48)
    assert half.name == "smooth.mp4 (half size)"
    np.testing.assert_array_equal(np.concatenate(list(smooth.blocks(3))), smooth.frames)


def test_tables_say_where_nothing_overlaps():
    point = {"writer": "tk_scone_helix", "preset": "", "scale": 1.0}
    both = [("helix_jax prior", range(15, 18)), ("H.265", range(30, 40))]
    points = [
        point | {"method": method, "nt_per_pixel": 0.01 * quality, "psnr": quality, "ms_ssim": quality / 100}
        for method, qualities in both
        for quality in qualities
    ]
    table = tables.rates([{"source": "clean", "points": points}])
    cells = {row[:2]: row[2:] for row in table.rows}
    assert cells["helix_jax prior", "TK-SCONE, helix"] == ("no overlap",) * 3
    assert cells["H.265", "TK-SCONE, helix"] == ("anchor",) * 3
