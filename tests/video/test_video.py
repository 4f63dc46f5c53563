"""Every clip is made here with PyAV: damaged, turned and odd ones included."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_jax
from helix_jax import video
from helix_jax.video import Preparation, VideoError, VideoInfo, VideoWriter, check_output, open_video

NTSC = Fraction(30000, 1001)


def ramp(frames=8, height=48, width=64, seed=0):
    """Smooth coloured frames that move, so that lossy codecs keep them: uint8[n, H, W, 3]."""
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([40 + 3 * t + x, 60 + y + seed, 200 - x - 2 * t], axis=-1).clip(0, 255).astype(np.uint8)


def make(path, clip, *, rate=NTSC, codec="libx264", pix_fmt="yuv444p", pts=None, lasts=None, prepare=None, sound=False):
    """Write a clip by PyAV alone. pts: timestamps in units of 1/1000 s; lasts: how long each frame is shown, likewise.
    prepare: called with the stream."""
    container_options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", container_options=container_options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt, stream.options = pix_fmt, {"crf": "4"} if codec == "libx264" else {}
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare:
            prepare(stream)
        audio = container.add_stream("aac", rate=48000) if sound else None
        for number, rgb in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (number, 1 / rate) if pts is None else (pts[number], Fraction(1, 1000))
            packets = stream.encode(frame)
            for packet in packets if lasts else ():
                packet.duration = lasts[number]
            container.mux(packets)
        container.mux(stream.encode())
        if audio:
            mux_silence(container, audio)
    return path


def mux_silence(container, stream):
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    silence.rate, silence.pts = 48000, 0
    container.mux(stream.encode(silence))
    container.mux(stream.encode())


def make_sound(path):
    with av.open(str(path), "w") as container:
        mux_silence(container, container.add_stream("aac", rate=48000))
    return path


def read(reader, frames=32):
    return np.concatenate(list(reader.blocks(frames)))


def write(path, clip, rate=NTSC, lossless=False):
    with VideoWriter(path, VideoInfo(len(clip), *clip.shape[1:3], rate), lossless) as out:
        out.write(clip)
    return path


def close(clip, other, most):
    return clip.shape == other.shape and np.abs(clip.astype(int) - other).max() <= most


# ---- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "most"),
    [
        ("a.mp4", "libx264", "yuv420p", 12),
        ("a.mkv", "libx264", "yuv444p", 8),
        ("a.avi", "ffv1", "bgr0", 0),
        ("a.mov", "qtrle", "argb", 0),
        ("a.y4m", "wrapped_avframe", "yuv444p", 4),
        ("a.webm", "libvpx-vp9", "yuv420p", 24),
        ("a.h264", "libx264", "yuv444p", 8),
        ("a.ts", "libx264", "yuv444p", 8),
    ],
)
def test_containers(tmp_path, name, codec, pix_fmt, most):
    clip = ramp()
    reader = open_video(make(tmp_path / name, clip, codec=codec, pix_fmt=pix_fmt))
    assert reader.info == VideoInfo(8, 48, 64, NTSC)
    assert not reader.has_audio
    assert close(read(reader), clip, most)


def test_gif_and_alpha(tmp_path):
    reader = open_video(make(tmp_path / "a.gif", ramp(), rate=Fraction(10), codec="gif", pix_fmt="rgb8"))
    assert reader.info == VideoInfo(8, 48, 64, Fraction(10))
    assert read(reader).shape == (8, 48, 64, 3)


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), NTSC, Fraction(25), Fraction(60), Fraction(15, 2), Fraction(1, 60)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rates_are_exact_also_where_timestamps_are_rounded(tmp_path, rate, suffix):
    path = make(tmp_path / f"a{suffix}", ramp(40, 16, 16), rate=Fraction(rate))
    assert open_video(path).info == VideoInfo(40, 16, 16, rate)


@pytest.mark.parametrize("rate", [Fraction(60000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(19), NTSC])
@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [(".flv", "flv1", "yuv420p"), (".webm", "libvpx-vp9", "yuv420p"), (".ts", "libx264", "yuv420p"),
     (".wmv", "wmv2", "yuv420p"), (".gif", "gif", "rgb8")],
)  # fmt: skip
def test_rates_that_containers_round(tmp_path, suffix, codec, pix_fmt, rate):
    """Also where what they announce is rounded: FLV says 959/16 for 60000/1001."""
    if suffix == ".gif" and rate > 50:
        pytest.skip("hundredths of a second cannot tell")
    path = make(tmp_path / f"a{suffix}", ramp(24, 16, 16), rate=rate, codec=codec, pix_fmt=pix_fmt)
    assert open_video(path).info == VideoInfo(24, 16, 16, rate)


def test_timestamps_count_more_than_what_is_announced(tmp_path):
    path = make(tmp_path / "a.mkv", ramp(25), rate=Fraction(25), pts=[80 * n for n in range(25)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
    assert open_video(path).info == VideoInfo(25, 48, 64, Fraction(25, 2))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_resampling(tmp_path, suffix):
    """One frame is missing, and repeated; jitter goes; the rate that is there changes nothing."""
    clip = ramp(20, 16, 16)
    dropped = make(tmp_path / f"a{suffix}", clip, rate=Fraction(25), pts=[40 * n for n in range(21) if n != 9])
    wander = [0, 1, -1, 1, 0, -1, 1, -1, 0, 1] * 2
    shaky = make(
        tmp_path / f"b{suffix}", clip, rate=Fraction(30), pts=[round(n * 100 / 3) + w for n, w in enumerate(wander)]
    )
    steady = make(tmp_path / f"c{suffix}", clip, rate=Fraction(25))
    refused(dropped, "variable frame rate.*--fps 25$")
    refused(shaky, "variable frame rate.*--fps 30$")
    reader = open_video(dropped, Preparation(fps=Fraction(25)))
    assert reader.info == VideoInfo(21, 16, 16, Fraction(25))
    order = [*range(9), 8, *range(9, 20)]
    assert close(read(reader, 4), clip[order], 8)
    reader = open_video(shaky, Preparation(fps=Fraction(30)))
    assert reader.info == VideoInfo(20, 16, 16, Fraction(30))
    assert close(read(reader), clip, 8)
    np.testing.assert_array_equal(read(open_video(steady, Preparation(fps=Fraction(25)))), read(open_video(steady)))
    for rate, frames in ((Fraction(50), 40), (Fraction(25, 2), 10)):
        reader = open_video(steady, Preparation(fps=rate))
        assert (reader.info.frames, len(read(reader)), reader.info.fps) == (frames, frames, rate)


def test_raw_streams_are_resampled_from_their_guessed_rate(tmp_path):
    path = make(tmp_path / "a.h264", ramp(10), rate=Fraction(25))
    assert open_video(path, Preparation(fps=Fraction(50))).info == VideoInfo(20, 48, 64, Fraction(50))


def test_a_last_frame_that_stays_is_no_missing_end(tmp_path):
    """Matroska: a screen recording with pauses, and a clip whose header announces 1000 frames per second."""
    plain = {"codec": "ffv1", "pix_fmt": "bgr0"}
    pts, lasts = [0, 40, 80, 800, 840], [40, 40, 720, 40, 600]
    path = make(tmp_path / "a.mkv", ramp(5), rate=Fraction(25), pts=pts, lasts=lasts, **plain)
    assert open_video(path, Preparation(fps=Fraction(25))).shown == (1, 1, 18, 1, 15)
    path = make(tmp_path / "b.mkv", ramp(5), rate=Fraction(1000), pts=[0, 40, 80, 120, 160], lasts=[40] * 5, **plain)
    assert open_video(path).info == VideoInfo(5, 48, 64, Fraction(25))


def test_blocks_have_the_size_asked_for(tmp_path):
    clip = ramp(11, 13, 17)
    reader = open_video(make(tmp_path / "a.mkv", clip, codec="ffv1", pix_fmt="bgr0"))
    assert [len(block) for block in reader.blocks(4)] == [4, 4, 3]
    assert close(read(reader, 4), clip, 0)  # a second time, from the start


def test_sound_is_reported(tmp_path):
    assert open_video(make(tmp_path / "a.mp4", ramp(), sound=True)).has_audio


TURNS = {  # display matrix (a, b, c, d): what a viewer sees of the stored frames
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1, (1, 2)),  # a phone held upright: turned clockwise
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2, (1, 2)),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1, (1, 2)),
    (-1, 0, 0, 1): lambda x: x[:, :, ::-1],
    (1, 0, 0, -1): lambda x: x[:, ::-1],
    (0, 1, 1, 0): lambda x: x.transpose(0, 2, 1, 3),
    (0, -1, -1, 0): lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1, 3),
}


def turned(path, matrix):
    """Patch the display matrix of an MP4: 9 int32 at the end of the track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", TURNS)
def test_rotation_is_applied(tmp_path, matrix):
    clip = ramp(3, 18, 31)
    stored = read(open_video(make(tmp_path / "a.mp4", clip)))
    reader = open_video(turned(tmp_path / "a.mp4", matrix))
    shown = TURNS[matrix](stored)
    assert (reader.info.height, reader.info.width) == shown.shape[1:3]
    np.testing.assert_array_equal(read(reader), shown)


def test_rotation_written_by_ffmpeg(tmp_path):
    """The same, by FFmpeg's own idea of a rotation (degrees counterclockwise)."""
    clip = ramp(3, 18, 31)
    stored = read(open_video(make(tmp_path / "a.mp4", clip)))
    path = make(tmp_path / "b.mp4", clip, prepare=lambda stream: stream.set_display_rotation(90))
    with av.open(str(path)) as container:
        rotation = next(container.decode(video=0)).rotation
    np.testing.assert_array_equal(read(open_video(path)), np.rot90(stored, rotation // 90, (1, 2)))
    assert rotation % 180 == 90


# ---- read once -----------------------------------------------------------------------------


def once(path):
    """The frames that ``video.frames`` gives, and the VideoError that it ends with, or None."""
    found = []
    try:
        for frame in video.frames(path):
            found.append(frame)
    except VideoError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("matrix", TURNS)
def test_frames_that_are_read_once_are_those_of_the_blocks(tmp_path, matrix):
    path = turned(make(tmp_path / "a.mp4", ramp(5, 18, 31)), matrix)
    found, error = once(path)
    assert error is None
    np.testing.assert_array_equal([frame.rgb for frame in found], read(open_video(path)))
    assert {(frame.decoded.height, frame.decoded.width) for frame in found} == {(18, 31)}
    assert [frame.seconds for frame in found] == pytest.approx([n / NTSC for n in range(1, 6)])


@pytest.mark.parametrize(("pix_fmt", "codec"), [("argb", "qtrle"), ("yuva420p", "libvpx-vp9"), ("rgb8", "gif")])
@pytest.mark.parametrize("alphas", [(255, 255), (255, 76)])
def test_frames_that_are_read_once_have_the_same_alpha(tmp_path, pix_fmt, codec, alphas):
    """Put over black where something is transparent, although later frames are not known yet."""
    path = tmp_path / {"qtrle": "a.mov", "gif": "a.gif"}.get(codec, "a.webm")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        for number, (rgb, alpha) in enumerate(zip(ramp(2), alphas, strict=True)):
            rgba = np.concatenate([rgb, np.full((48, 64, 1), alpha, np.uint8)], axis=-1)
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found, error = once(path)
    assert error is None
    np.testing.assert_array_equal([frame.rgb for frame in found], read(open_video(path)))
    assert (found[1].rgb.max() < 100) == (alphas[1] == 76 and codec != "gif")


def test_what_is_wrong_comes_when_it_is_met_and_in_a_few_words(tmp_path):
    """The frames before it are good, and the rate may vary."""
    late = make(tmp_path / "late.mkv", ramp(20), rate=Fraction(25), pts=[40 * n + 20 * (n > 6) for n in range(20)])
    found, error = once(late)
    assert (len(found), error) == (20, None)
    whole = make(tmp_path / "a.mkv", ramp(60)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(0.6 * len(whole))])
    found, error = once(tmp_path / "cut.mkv")
    assert 0 < len(found) < 60
    assert len(error.reason) < 60
    assert f"cut.mkv: damaged or cut short after {len(found)} frames ({error.reason}); copy it again" in str(error)
    found, error = once(make_sound(tmp_path / "sound.m4a"))
    assert (found, error.reason) == ([], "no picture")
    found, error = once(turned(make(tmp_path / "b.mp4", ramp()), (0.8, 0.6, -0.6, 0.8)))
    assert found == []
    assert error.reason.startswith("turned by ")
    assert "ffmpeg" not in error.reason


def test_an_error_without_a_shorter_reason_is_its_own():
    assert VideoError("a.mp4: no such file").reason == "a.mp4: no such file"


# ---- refused -------------------------------------------------------------------------------


def refused(path, match):
    with pytest.raises(VideoError, match=match) as caught:
        open_video(path)
    assert str(path) in str(caught.value)


def test_not_a_video(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    refused(text, "not a readable video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    refused(empty, "is empty")
    refused(tmp_path / "nothing.mp4", "no such file")
    refused(tmp_path, "this folder has no image")
    refused(make_sound(tmp_path / "sound.m4a"), "sound but no picture")


def test_a_name_is_never_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.mkv", ramp())
    (tmp_path / "a.mkv").rename(tmp_path / "http:a.mkv")
    assert open_video("http:a.mkv").info.frames == 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
def test_cut_short(tmp_path, suffix, share):
    codec = ("mpeg4", "yuv420p") if suffix == ".avi" else ("libx264", "yuv420p")
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    path = make(tmp_path / f"a{suffix}", noise, codec=codec[0], pix_fmt=codec[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "cut short|not a readable video|no frame")


def test_variable_rate(tmp_path):
    steady = [40 * n for n in range(20)]
    assert open_video(make(tmp_path / "a.mkv", ramp(20), rate=Fraction(25), pts=steady)).info.fps == 25
    late = [pts + (20 if n == 7 else 0) for n, pts in enumerate(steady)]
    refused(
        make(tmp_path / "b.mkv", ramp(20), rate=Fraction(25), pts=late),
        "variable frame rate.*resample it with --fps 25$",
    )
    dropped = [40 * n for n in range(21) if n != 9]
    refused(make(tmp_path / "c.mkv", ramp(20), rate=Fraction(25), pts=dropped), "variable frame rate")
    refused(make(tmp_path / "d.mp4", ramp(20), rate=Fraction(25), pts=dropped), "0.04 to 0.08 s")
    slower = [40 * n + max(0, n - 10) * 10 for n in range(20)]
    refused(make(tmp_path / "e.mkv", ramp(20), rate=Fraction(25), pts=slower), "variable frame rate")


def test_messages_call_the_file_what_the_user_does(tmp_path):
    path = tmp_path / "spooled"
    path.write_text("not a video\n" * 100)
    with pytest.raises(VideoError, match=r"^-: not a readable video"):
        open_video(path, name="-")
    make(tmp_path / "a.mp4", ramp(20), rate=Fraction(25), pts=[40 * n + n % 3 for n in range(20)])
    with pytest.raises(VideoError, match=r"^-: variable frame rate"):
        open_video(tmp_path / "a.mp4", name="-")
    turned(make(tmp_path / "b.mp4", ramp()), (0.8, 0.6, -0.6, 0.8))
    with pytest.raises(VideoError, match=r"^-: turned by .*ffmpeg -i - video-new\.mp4"):
        open_video(tmp_path / "b.mp4", name="-")


def test_oblique_rotation(tmp_path):
    path = turned(make(tmp_path / "a.mp4", ramp()), (0.8, 0.6, -0.6, 0.8))
    refused(path, "not a multiple of 90")


def test_changed_between_the_passes(tmp_path):
    path = make(tmp_path / "a.mkv", ramp(8))
    reader = open_video(path)
    make(path, ramp(6))
    with pytest.raises(VideoError, match="changed while it was read"):
        read(reader)


# ---- writing -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 13), (5, 13, 17), (9, 48, 64)])
@pytest.mark.parametrize("rate", [NTSC, Fraction(25), Fraction(37, 2), Fraction(18728, 625)])
def test_size_count_and_rate_come_back(tmp_path, shape, rate):
    reader = open_video(write(tmp_path / "a.mp4", ramp(*shape), rate))
    assert reader.info == VideoInfo(*shape, rate)


@given(rate=st.fractions(Fraction(1, 10), 240, max_denominator=1001), frames=st.integers(1, 12))
@settings(deadline=None, max_examples=15)
def test_any_rate_comes_back(tmp_path_factory, rate, frames):
    path = tmp_path_factory.mktemp("rate") / "a.mp4"
    assert open_video(write(path, ramp(frames, 16, 16), rate)).info.fps == rate


def top_boxes(path):
    """Names of an MP4's boxes, in order."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


BARS = [(255, 255, 255), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (255, 0, 0), (0, 0, 255), (0, 0, 0)]


@pytest.mark.parametrize(
    ("height", "lossless", "pix_fmt", "profile"),
    [(32, False, "yuv420p", "High"), (32, True, "yuv444p", "High 4:4:4 Predictive"),
     (33, False, "yuv444p", "High 4:4:4 Predictive")],
)  # fmt: skip
def test_colour_bars_survive(tmp_path, height, lossless, pix_fmt, profile):
    """Also what players ask for: 4:2:0 where the size is even, and the index before the pictures."""
    clip = np.broadcast_to(np.repeat(np.array(BARS, np.uint8), 10, axis=0)[None, None], (6, height, 80, 3))
    path = write(tmp_path / "a.mp4", clip, lossless=lossless)
    inside = np.arange(80) % 10 // 2 % 4 > 0  # 4:2:0 blends the colours of neighbouring bars
    compared = inside if pix_fmt == "yuv420p" else slice(None)
    assert close(read(open_video(path))[:, :, compared], clip[:, :, compared], 3)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.profile, frame.format.name) == ("h264", profile, pix_fmt)
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
    assert top_boxes(path).index("moov") < top_boxes(path).index("mdat")


def test_lossless_keeps_noise_within_the_colour_conversion(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    assert close(read(open_video(write(tmp_path / "a.mp4", noise, lossless=True))), noise, 2)
    assert not close(read(open_video(write(tmp_path / "b.mp4", noise))), noise, 2)


def test_near_lossless_by_default(tmp_path):
    demo = open_video(Path(helix_jax.__file__).parent / "assets" / "flower.mp4")
    clip = next(demo.blocks(8))
    error = read(open_video(write(tmp_path / "a.mp4", clip, demo.info.fps))).astype(float) - clip
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


def test_demo_clip():
    folder = Path(helix_jax.__file__).parent / "assets"
    reader = open_video(folder / "flower.mp4")
    assert reader.info == VideoInfo(48, 180, 320, NTSC)
    assert not reader.has_audio
    assert (folder / "flower.mp4").stat().st_size < 300_000
    assert "CC0" in (folder / "CREDITS.md").read_text()


def test_nothing_is_left_after_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("precious")
    info = VideoInfo(8, 48, 64, NTSC)

    def write_from(blocks):
        with VideoWriter(path, info) as out:
            for block in blocks:
                out.write(block)

    def stop():
        yield ramp(4)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_from(stop())
    with pytest.raises(VideoError, match="4 frames written, 8 promised"):
        write_from([ramp(4)])
    with pytest.raises(VideoError, match="float32"):
        write_from([ramp().astype(np.float32)])
    with pytest.raises(VideoError, match=r"\[8, 48, 32, 3\]"):
        write_from([ramp(8, 48, 32)])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_text() == "precious"


def test_only_three_kinds_of_file_are_written(tmp_path):
    with pytest.raises(VideoError, match=r"a\.mov: .* ends in \.mp4, \.mkv or \.webm"):
        check_output("a.mov")
    with pytest.raises(VideoError, match=r"ends in \.mp4"):
        VideoWriter(tmp_path / "a.avi", VideoInfo(1, 2, 2, NTSC))
    with pytest.raises(VideoError, match="nothing to write"):
        VideoWriter(tmp_path / "a.mp4", VideoInfo(0, 2, 2, NTSC))
