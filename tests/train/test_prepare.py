"""Videos -> shards: cuts, stillness, broken clips, and the same records whoever works."""

import contextlib
import itertools
import json
import sys
import tracemalloc

import av
import numpy as np
import pytest

from helix_jax import video
from helix_jax.video import open_video
from tests.video.test_video import turned
from train import cutting, prepare, shards
from train.data import halve

SMALL = {"frames": 8, "size": 16, "pieces": 3, "workers": 1}


def y4m(path, luma, broken_at=None):
    """Write uint8[T, H, W] as grey video without loss; broken_at: a frame that cannot be read."""
    frames = [b"FRAME\n" + picture.tobytes() + b"\x80" * (2 * picture.size) for picture in luma]
    if broken_at is not None:
        frames[broken_at] = frames[broken_at].replace(b"FRAME", b"BROKE")
    path.write_bytes(b"YUV4MPEG2 W%d H%d F25:1 C444\n" % luma.shape[:0:-1] + b"".join(frames))
    return path


def levels(values, side=32):
    """Grey pictures, uint8[T, side, side], one level each."""
    return np.repeat(np.asarray(values, np.uint8), side * side).reshape(-1, side, side)


def run(videos, out, **options):
    return prepare.prepare([videos], out, **{**SMALL, **options})


def rows(out):
    return shards.open_shards(out).rows


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_clip):
    """Three clips, one of them in a folder."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "deep").mkdir()
    make_clip(folder / "a.mp4", 21, 40, 50)
    make_clip(folder / "b.mkv", 9, 24, 34)
    make_clip(folder / "deep" / "c.mp4", 16, 32, 32)
    (folder / "notes.txt").write_text("no video")
    return folder


# ---- pieces --------------------------------------------------------------------------------


def test_pieces_are_crops_of_the_video(tmp_path, videos):
    """At both scales, where the index says, at many places; the rest of a scene is kept from --smallest on."""
    summary = run(videos / "a.mp4", tmp_path / "out", pieces=6)
    whole = np.concatenate(list(open_video(videos / "a.mp4").blocks()))
    opened = shards.open_shards(tmp_path / "out")
    places = set()
    for index, (clip, start, scale, t, h, w) in enumerate(opened.rows):
        assert (clip, h, w) == ("a.mp4", 16, 16)
        frames = opened.read(index).frames
        for y, x in itertools.product(range(40 - scale * h + 1), range(50 - scale * w + 1)):
            part = whole[start : start + t, y : y + scale * h, x : x + scale * w]
            if np.array_equal(part if scale == 1 else halve(part), frames):
                places.add((index, y, x))
                break
    assert len(places) == len(opened) == 18
    assert len({place[1:] for place in places}) > 12
    assert [row[1:4] for row in opened.rows] == [[s, k, t] for s, t in ((0, 8), (8, 8), (16, 5)) for k in (1, 2) * 3]
    assert (summary["pieces"], summary["frames"], summary["scenes"], summary["short"]) == (18, 21, 1, 0)
    assert summary["bytes"] == 21 * 6 * 16 * 16 * 3
    assert summary["seconds"] == pytest.approx(21 * 1001 / 30000)


def test_a_rotated_video_is_cut_upright(tmp_path, make_clip):
    """A phone's clip, which is stored sideways, is trained on as it is encoded; its cuts stay where they are."""
    sideways = run(make_clip(tmp_path / "a.mp4", 21, 16, 40), tmp_path / "stored", size=40, smallest=(4, 16))
    path = turned(tmp_path / "a.mp4", (0, 1, -1, 0))
    summary = run(path, tmp_path / "out", size=40, smallest=(4, 16))
    whole = np.concatenate(list(open_video(path).blocks()))
    assert whole.shape == (21, 40, 16, 3)
    opened = shards.open_shards(tmp_path / "out")
    times = [[0, 8], [8, 8], [16, 5]]
    assert [row[1:] for row in opened.rows] == [[start, 1, t, 40, 16] for start, t in times for _ in range(3)]
    for index, (_, start, _, t, _, _) in enumerate(opened.rows):
        np.testing.assert_array_equal(opened.read(index).frames, whole[start : start + t])
    (clip,), (stored,) = summary["each"], sideways["each"]
    assert (clip["height"], clip["width"]) == (40, 16)
    assert {**clip, "height": 16, "width": 40} == stored


def test_smaller_videos_give_smaller_pieces(tmp_path, videos):
    """b is 34 x 24: half of it has 12 rows, and one frame of it is left over."""
    summary = run(videos / "b.mkv", tmp_path / "out", size=24, smallest=(2, 12))
    assert [row[2:] for row in rows(tmp_path / "out")] == [[1, 8, 24, 24], [2, 8, 12, 17], [1, 8, 24, 24]]
    assert summary["short"] == 1
    run(videos / "b.mkv", tmp_path / "one", size=24, smallest=(1, 13))
    assert [row[1:] for row in rows(tmp_path / "one")] == [[0, 1, 8, 24, 24]] * 3 + [[8, 1, 1, 24, 24]] * 3
    with pytest.raises(ValueError, match=r"no piece in any of 1 videos \(b\.mkv: 34x24 pixels, smaller than 25x25\)"):
        run(videos / "b.mkv", tmp_path / "none", size=32, smallest=(2, 25))
    assert not (tmp_path / "none").exists()


def test_same_records_whatever_the_workers(tmp_path, videos):
    """And another seed cuts others."""
    for name, options in (("one", {}), ("two", {"workers": 2}), ("seed", {"seed": 1})):
        run(videos, tmp_path / name, files=3, **options)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two", "seed")
    ]
    assert len(contents[0]) == 5
    assert contents[0] == contents[1]
    assert contents[0].keys() == contents[2].keys()
    assert all(contents[0][name] != contents[2][name] for name in contents[0] if name.startswith("pieces"))
    assert {row[0] for row in rows(tmp_path / "one")} == {"a.mp4", "b.mkv", "deep/c.mp4"}


def test_other_videos_change_nothing(tmp_path, videos):
    run(videos, tmp_path / "all", files=2)
    run(videos / "b.mkv", tmp_path / "alone")
    opened, alone = shards.open_shards(tmp_path / "all"), shards.open_shards(tmp_path / "alone")
    of_b = [index for index, row in enumerate(opened.rows) if row[0] == "b.mkv"]
    assert len(of_b) == len(alone) == 3
    for index, other in zip(of_b, range(3), strict=True):
        np.testing.assert_array_equal(opened.read(index).frames, alone.read(other).frames)


def test_every_clip_has_its_own_places(tmp_path, videos):
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(videos / "a.mp4")
    run(tmp_path / "in", tmp_path / "out", files=1, frames=7)
    opened = shards.open_shards(tmp_path / "out")
    pieces = [opened.read(index).frames for index in range(len(opened))]
    assert len(pieces) == 18
    assert all((one != two).any() for one, two in zip(pieces[:9:2], pieces[9::2], strict=True))


# ---- scenes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "starts"),
    [
        ([*range(10, 23), *range(60, 77)], [0, 8, 13, 21]),  # slow, a jump of 38 before frame 13, slow: 5 and 9 frames
        ([*range(10, 23), *range(32, 49)], [0, 8, 16, 24]),  # a jump of 10 is none
        ([10 + 14 * (k % 2) for k in range(24)], [0, 8, 16]),  # fast all the time
        ([10 + 14 * (k % 2) for k in range(12)] + [200 - 14 * (k % 2) for k in range(12)], [0, 8, 12, 20]),
    ],
)
def test_hard_cuts(tmp_path, values, starts):
    summary = run(y4m(tmp_path / "v.y4m", levels(values)), tmp_path / "out", pieces=1, smallest=(4, 16))
    assert [row[1] for row in rows(tmp_path / "out")] == starts
    cut = {13: 2, 12: 2}.get(starts[2], 1)
    assert summary["scenes"] == cut
    for index in range(len(starts)):  # no piece has both scenes
        assert np.ptp(shards.open_shards(tmp_path / "out").read(index).frames.astype(int)) < 40


def test_motion_is_no_cut(tmp_path):
    """Dark and bright change places: a great difference, the same histogram. At frame 16 both change: a cut."""
    left = np.arange(32) < 16
    pictures = np.where(left, 60, 160) + np.arange(24)[:, None, None] + np.zeros((24, 32, 1), int)
    pictures[4:16] = pictures[4:16, :, ::-1]
    pictures[16:] += 60
    summary = run(y4m(tmp_path / "v.y4m", pictures.astype(np.uint8)), tmp_path / "out", pieces=1)
    assert [row[1] for row in rows(tmp_path / "out")] == [0, 8, 16]
    assert summary["scenes"] == 2


def test_still_stretches_are_left_out(tmp_path):
    """The first 8 of 24 frames stand still; in the last 8 one frame in eight moves by two levels."""
    (tmp_path / "in").mkdir()
    y4m(tmp_path / "in" / "part.y4m", levels([50] * 8 + list(range(50, 58)) + [58] * 4 + [60] * 4))
    y4m(tmp_path / "in" / "still.y4m", levels([50] * 16))
    summary = run(tmp_path / "in", tmp_path / "out", pieces=1)
    assert [row[:2] for row in rows(tmp_path / "out")] == [["part.y4m", 8], ["part.y4m", 16]]
    assert (summary["clips"], summary["dropped"], summary["still"]) == (1, 1, 24)
    assert [clip["dropped"] for clip in summary["each"]] == [None, "nothing moves"]


def test_memory_does_not_grow_with_the_video(monkeypatch):
    """400 frames are 92 MB."""

    def long_video(path):
        for number in range(400):
            rgb = np.full((240, 320, 3), number % 256, np.uint8)
            yield video.Frame(rgb, av.VideoFrame.from_ndarray(rgb, format="rgb24"), number / 25)

    monkeypatch.setattr(cutting.video, "frames", long_video)
    report = cutting.Report("film")
    tracemalloc.start()
    count = sum(1 for _ in cutting.cut(None, "film", cutting.Cutting(8, 32, (4, 16), 2, 0), report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 90
    assert peak < 4e6


# ---- broken and unwanted clips ---------------------------------------------------------------


def test_broken_clips(tmp_path, videos, capsys):
    """What comes before the break is kept; what cannot be opened is dropped; both are named with the reason."""
    folder = tmp_path / "in"
    folder.mkdir()
    y4m(folder / "half.y4m", levels(range(30, 90, 2)), broken_at=19)
    (folder / "no_video.mp4").write_bytes(b"no video")
    (folder / "empty.mkv").write_bytes(b"")
    whole = (videos / "a.mp4").read_bytes()
    (folder / "no_end.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    summary = run(folder, tmp_path / "out", pieces=1, smallest=(2, 16))
    assert [row[:2] + row[3:4] for row in rows(tmp_path / "out")] == [
        ["half.y4m", 0, 8],
        ["half.y4m", 8, 8],
        ["half.y4m", 16, 3],
    ]
    assert (summary["clips"], summary["dropped"], summary["broken"]) == (1, 4, 5)
    each = {clip["clip"]: clip for clip in summary["each"]}
    assert each["half.y4m"]["broken"].startswith("broken after 19 frames: ")
    assert each["half.y4m"]["dropped"] is None
    assert each["sound.mkv"]["dropped"] == "broken after 0 frames: no picture"
    text = capsys.readouterr().out
    assert "kept in part half.y4m: broken after 19 frames" in text
    for name in ("no_video.mp4", "no_end.mp4", "empty.mkv"):
        assert f"dropped {name}: broken after 0 frames: Invalid data" in text


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_compressed_clip(tmp_path, make_clip, share):
    """Matroska, cut anywhere: the frames before are those of the whole clip."""
    whole = make_clip(tmp_path / "whole.mkv", 60, 48, 64).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(share * len(whole))])
    summary = run(tmp_path / "cut.mkv", tmp_path / "out")
    (clip,) = summary["each"]
    assert 8 <= clip["frames"] < 60
    assert clip["broken"].startswith(f"broken after {clip['frames']} frames: ")


def test_mp4_that_ends_between_two_frames(tmp_path, make_clip):
    """Nothing is damaged in what is there: only the header tells that frames are missing."""
    path = make_clip(tmp_path / "whole.mp4", 30, 48, 64)
    faststart = av.open(str(tmp_path / "first.mp4"), "w", options={"movflags": "faststart"})
    with av.open(str(path)) as whole, faststart as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with av.open(str(tmp_path / "first.mp4")) as container:
        end = [packet.pos for packet in container.demux(video=0) if packet.size][20]
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "first.mp4").read_bytes()[:end])
    (clip,) = run(tmp_path / "cut.mp4", tmp_path / "out")["each"]
    assert 8 <= clip["frames"] <= 20
    assert clip["broken"] == f"broken after {clip['frames']} frames: the header announces 30 frames"


def test_manifest_gives_licences(tmp_path, videos, capsys):
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / name).symlink_to(videos / name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.mp4").symlink_to(videos / "deep" / "c.mp4")
    (tmp_path / "MANIFEST.csv").write_text('file,licence,source\na.mp4,"CC0, or so",here\nc.mp4,wrong folder,\n')
    (tmp_path / "deep" / "MANIFEST.csv").write_text("source,file\nthere,c.mp4\n")
    summary = run(tmp_path, tmp_path / "out")
    assert {name: share["clips"] for name, share in summary["licences"].items()} == {"CC0, or so": 1, "not stated": 2}
    assert summary["licences"]["CC0, or so"]["seconds"] == pytest.approx(21 * 1001 / 30000)
    found = {clip["clip"]: (clip["licence"], clip["source"]) for clip in summary["each"]}
    assert found == {"a.mp4": ("CC0, or so", "here"), "b.mkv": (None, None), "deep/c.mp4": (None, "there")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["licences"] == summary["licences"]
    assert "1 clips        1 s  CC0, or so" in capsys.readouterr().out


def test_find(tmp_path, videos):
    assert list(prepare.find([videos])) == ["a.mp4", "b.mkv", "deep/c.mp4"]
    assert list(prepare.find([videos], exclude=["c", "b."])) == ["a.mp4"]
    assert list(prepare.find([videos / "notes.txt", videos / "deep"])) == ["c.mp4", "notes.txt"]
    assert list(prepare.find([videos / "deep", videos / "deep" / "c.mp4"])) == ["c.mp4"]
    (tmp_path / "A.MP4").touch()
    (tmp_path / "c.mp4").touch()
    assert list(prepare.find([tmp_path])) == ["A.MP4", "c.mp4"]
    with pytest.raises(ValueError, match=r"have the same name; give the folder that holds both"):
        prepare.find([tmp_path, videos / "deep"])


# ---- the output folder and the command -------------------------------------------------------


def test_finished_output_is_not_made_again(tmp_path, videos, monkeypatch, capsys):
    first = run(videos, tmp_path / "out")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write_all", None)
        assert run(videos, tmp_path / "out", workers=2) == json.loads(json.dumps(first))
        assert "there already, from the same videos" in capsys.readouterr().out
        for options, words in (
            ({"pieces": 4}, "pieces 3, not 4"),
            ({"seed": 3}, "seed 0, not 3"),
            ({"exclude": ["b"]}, "videos"),
            ({"smallest": (2, 8)}, r"smallest \[4, 8\], not \[2, 8\]"),
        ):
            with pytest.raises(shards.ShardError, match=words):
                run(videos, tmp_path / "out", **options)
    (tmp_path / "other").mkdir()
    with pytest.raises(shards.ShardError, match="other is there and no finished folder of shards"):
        run(videos, tmp_path / "other")


def test_all_or_nothing(tmp_path, videos, monkeypatch):
    def full(folder, **index):
        assert list(folder.iterdir())
        raise OSError("disk full")

    monkeypatch.setattr(shards, "write_index", full)
    with pytest.raises(OSError, match="disk full"):
        run(videos, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_error_in_a_worker_process_ends_the_work(tmp_path, videos):
    """The temporary folder does not survive either."""
    bad = cutting.Cutting(8, 16, (4, 8), 3, -1)  # a negative seed is refused by NumPy, in the worker
    found = prepare.find([videos])
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(ValueError, match="non-negative"))
        folder = stack.enter_context(shards.staging(tmp_path / "out"))
        jobs = [(folder / f"{number}", [clip]) for number, clip in enumerate(found.items())]
        prepare._write_all(jobs, bad, 2, prepare.tqdm(disable=True))
    assert not list(tmp_path.iterdir())


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    prepare.main()


def test_command(tmp_path, videos, monkeypatch, capsys):
    out = tmp_path / "out"
    command(
        monkeypatch, videos, "--out", out, "--frames", 8, "--size", 16, "--smallest", 2, 12, "--pieces", 2,
        "--shards", 2, "--workers", 1, "--seed", 4, "--exclude", "a", "c",
    )  # fmt: skip
    assert "clips            1 used, 0 dropped, 0 broken" in capsys.readouterr().out
    assert {row[0] for row in rows(out)} == {"b.mkv"}
    settings = shards.read_index(out)["settings"]
    settings.pop("videos")
    assert settings == {"frames": 8, "size": 16, "smallest": [2, 12], "pieces": 2, "seed": 4, "shards": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--out", "o"], "nothing: no such file or folder"),
        (["empty", "--out", "o"], "no video in empty (looked for .3gp"),
        (["videos", "--out", "o", "--exclude", "a", "b", "c"], "; without a, b, c)"),
        (["videos", "--out", "o", "--size", "15"], "8 to --size pixels a side"),
        (["videos", "--out", "o", "--smallest", "33", "64"], "must have 1 to --frames frames"),
        (["videos", "--out", "o", "--pieces", "0"], "--pieces 0: must be 1 or more"),
        (["videos", "--out", "o", "--workers", "0"], "--workers 0: must be 1 or more"),
        (["videos", "--out", "o", "--seed", "-1"], "--seed -1: must be 0 or more"),
        (["videos", "--out", "empty"], "empty is there and no finished folder of shards"),
        (["videos", "--out", "no/o"], "there is no folder"),
        (["videos"], "required: --out"),
    ],
)
def test_wrong_use(tmp_path, videos, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").symlink_to(videos)
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "videos"]


def test_help_ends_with_an_example(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, "--help")
    assert caught.value.code == 0
    assert "python -m train.prepare videos/ --out shards/" in capsys.readouterr().out.strip().splitlines()[-1]
