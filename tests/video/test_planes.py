"""Frames as AV1 pools store them: the samples of a clip in its own colours, upright, and the pictures they show."""

from fractions import Fraction

import av
import numpy as np
import pytest

from helix_jax import video
from helix_jax.video import Preparation, VideoError, VideoInfo, open_video, pictures, planes
from helix_jax.video.clip import Clip
from helix_jax.video.signal import Signal

RATE = Fraction(25)
PQ = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}


def record(path, frames, codec="libx264", options=None, prepare=None, **tags):
    """Write frames (av.VideoFrame) losslessly, at 25 per second: by default as H.264, which says where the chroma lies.
    tags: of the codec context."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, frames[0].format.name
        stream.options = options or ({"qp": "0"} if codec == "libx264" else {})
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if prepare:
            prepare(stream)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def smooth(frames=3, height=18, width=32):
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([40 + 3 * t + 4 * x, 60 + 6 * y, 200 - 3 * x - 2 * t], axis=-1).clip(0, 255).astype(np.uint8)


def made(clip, pix_fmt, full=False):
    """RGB frames in a format of samples, BT.709."""
    return [
        av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format=pix_fmt, dst_colorspace=1, dst_color_range=1 + full, interpolation=pictures.PRECISE
        )
        for rgb in clip
    ]


def luma(frame):
    deep = max(component.bits for component in frame.format.components) > 8
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)
    return rows[:, : plane.width].astype(int)


def shown(reader):
    """The pictures that the frames for AV1 show, after what they say of themselves was compared with the clip."""
    found = list(reader.yuv())
    assert [frame.pts for frame in found] == list(range(reader.info.frames))
    for frame in found:
        assert (frame.format.name, frame.time_base) == (planes.FORMAT, 1 / reader.info.fps)
        assert (frame.height, frame.width) == (reader.info.height, reader.info.width)
        tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range == 2)
        stated = reader.signal
        assert tags == (stated.primaries, stated.transfer, stated.matrix, stated.full_range)
        assert frame.pict_type == 0  # an encoder decides itself
    return np.stack([planes.rgb(frame, reader.signal) for frame in found])


def blocks(reader):
    return np.concatenate(list(reader.blocks()))


def off(reader):
    """The largest difference between the pictures of AV1's frames and those of tokens."""
    return np.abs(shown(reader).astype(int) - blocks(reader)).max()


# ---- its own colours -----------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("pix_fmt", "most"), [("yuv420p", 1), ("yuv422p", 4), ("yuv444p", 6), ("yuv420p10le", 1)])
def test_only_depth_and_chroma_change(tmp_path, pix_fmt, most, full):
    frames = made(smooth(), pix_fmt, full)
    path = record(tmp_path / "a.mkv", frames, color_range=1 + full, colorspace=1, color_primaries=1, color_trc=13)
    reader = open_video(path)
    assert reader.signal == Signal(transfer=13, full_range=full)
    for frame, stored in zip(reader.yuv(), frames, strict=True):
        was = luma(stored)
        if pix_fmt != "yuv420p10le":
            was = 4 * was + (was >> 6) * full  # white is 255 and 1023 in full range
        np.testing.assert_array_equal(luma(frame), was)
    assert off(reader) <= most
    assert reader.losses["av1"] == {}


@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 9])
def test_matrices_are_kept_and_shown_alike(tmp_path, matrix):
    path = record(tmp_path / "a.mkv", made(smooth(), "yuv420p"), "libx264", colorspace=matrix)
    reader = open_video(path)
    assert reader.signal == Signal(primaries=2, transfer=2, matrix=matrix)
    assert off(reader) == 0


def test_a_reserved_matrix_is_none_and_colours_may_not_change():
    def signal(frame):
        return planes.signal(frame, pictures.Look())

    frames = made(smooth(2), "yuv420p")
    frames[0].colorspace = 3
    frames[1].colorspace = 2
    assert signal(frames[0]) == signal(frames[1]) == Signal(primaries=2, transfer=2, matrix=2)
    first, second = planes.samples(iter(frames), pictures.Look(), signal(frames[1]))
    assert first[0].shape == second[0].shape
    frames = made(smooth(2), "yuv420p")
    frames[1].colorspace = 6
    found = planes.samples(iter(frames), pictures.Look(), signal(frames[0]))
    next(found)
    with pytest.raises(pictures.PictureError, match=r"change from matrix 1 \(limited range\) to 6"):
        next(found)


def test_hdr_keeps_its_samples(tmp_path):
    generator = np.random.default_rng(0)
    frame = av.VideoFrame(32, 16, planes.FORMAT)
    for plane in planes._planes(frame):
        plane[:] = generator.integers(64, 940, plane.shape)
    reader = open_video(record(tmp_path / "a.mkv", [frame] * 2, **PQ))
    assert reader.signal == Signal(primaries=9, transfer=16, matrix=9)
    assert off(reader) == 0
    for found in reader.yuv():
        for kept, was in zip(planes._planes(found), planes._planes(frame), strict=True):
            np.testing.assert_array_equal(kept, was)
    assert reader.not_kept.keys() == {"hdr"}
    assert reader.losses["av1"] == {}
    assert planes.signal(frame, pictures.Look(tone_map="perceptual")) == Signal()


def test_twelve_bits_are_a_loss_and_ten_are_none(tmp_path):
    twelve = [frame.reformat(format="yuv422p12le") for frame in made(smooth(), "yuv422p")]
    reader = open_video(record(tmp_path / "a.mkv", twelve, "ffv1"))
    assert "12 bits per sample, of which 10" in reader.losses["av1"]["depth"]
    assert "12 bits per sample, of which 8" in reader.not_kept["depth"]
    assert off(reader) <= 6  # FFV1 does not say where the chroma lies


# ---- through RGB ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "most"),
    [("bgr0", "ffv1", 6), ("gbrp10le", "ffv1", 6), ("gray", "ffv1", 1), ("gray10le", "ffv1", 1), ("rgb8", "gif", 90)],
)
def test_other_samples_become_bt709(tmp_path, pix_fmt, codec, most):
    frames = [av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt) for rgb in smooth()]
    reader = open_video(record(tmp_path / ("a.gif" if codec == "gif" else "a.mkv"), frames, codec))
    assert reader.signal == Signal()
    assert off(reader) <= most


def test_ten_bits_of_rgb_are_not_cut_to_eight(tmp_path):
    """A ramp of 10 bits has more than 256 levels."""
    frame = av.VideoFrame(1024, 16, "gbrp10le")
    for plane in frame.planes:
        np.frombuffer(plane, np.uint16).reshape(16, -1)[:, :1024] = np.arange(1024)
    reader = open_video(record(tmp_path / "a.mkv", [frame] * 2, "ffv1"))
    assert len(np.unique(luma(next(reader.yuv())))) > 800
    assert reader.losses["av1"] == {}


def test_what_is_transparent_is_put_over_black(tmp_path):
    rgba = np.full((16, 16, 4), (200, 100, 50, 76), np.uint8)
    reader = open_video(record(tmp_path / "a.mov", [av.VideoFrame.from_ndarray(rgba, format="rgba")] * 2, "png"))
    assert reader.losses["av1"].keys() == {"alpha"}
    assert reader.signal == Signal()
    assert off(reader) <= 1
    yuva = [frame.reformat(format="yuva420p") for frame in made(smooth(), "yuv420p")]  # opaque: its own samples
    assert open_video(record(tmp_path / "b.mkv", yuva, "ffv1")).signal.matrix == 2


@pytest.mark.parametrize("size", [(18, 32), (17, 31), (1, 1)])
def test_a_clip_in_memory(size):
    clip = Clip(smooth(3, *size), "30000/1001")
    assert clip.signal == Signal()
    assert clip.sound(32) is None
    assert off(clip) <= 8


# ---- upright, resampled, deinterlaced ------------------------------------------------------


@pytest.mark.parametrize("size", [(18, 32), (17, 31)])
@pytest.mark.parametrize("turn", [(0, False), (90, False), (180, False), (270, False), (0, True), (90, True)])
def test_samples_are_turned(tmp_path, turn, size):
    degrees, flipped = turn
    frames, odd = made(smooth(2, *size), "yuv420p"), size[0] % 2
    path = record(
        tmp_path / "a.mkv", frames, "ffv1" if odd else "libx264", sample_aspect_ratio=Fraction(4, 3),
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=flipped),
    )  # fmt: skip
    reader = open_video(path)
    assert reader.signal.aspect == reader.pixel_aspect
    if not odd:  # FFV1 has square pixels, and no place of the chroma
        assert reader.signal.aspect == (Fraction(3, 4) if degrees % 180 else Fraction(4, 3))
    assert off(reader) <= 4 + 2 * odd
    for found, stored in zip(reader.yuv(), frames, strict=True):
        np.testing.assert_array_equal(luma(found), pictures.upright(4 * luma(stored), reader.look.orientation))


def test_frames_are_repeated_and_left_out(tmp_path):
    path = record(tmp_path / "a.mkv", made(smooth(6), "yuv420p"))
    for rate, frames in ((Fraction(50), 12), (Fraction(25, 2), 3)):
        reader = open_video(path, Preparation(fps=rate))
        assert reader.info == VideoInfo(frames, 18, 32, rate)
        assert off(reader) == 0
    first, second = list(open_video(path, Preparation(fps=Fraction(50))).yuv())[:2]
    luma_of_second = luma(second)
    planes._planes(first)[0][:] = 0  # a caller may change a frame
    np.testing.assert_array_equal(luma(second), luma_of_second)


def test_fields_become_frames(tmp_path):
    lines, x = np.mgrid[:32, :64]
    bars = [np.where((x >= 4 + 4 * m) & (x < 12 + 4 * m), 200, 40) for m in (2 * n + lines % 2 for n in range(6))]
    frames = made(np.stack([np.repeat(bar[..., None], 3, 2) for bar in bars]).astype(np.uint8), "yuv444p")
    path = record(tmp_path / "a.mp4", frames, "libx264", {"qp": "0", "x264-params": "tff=1"}, colorspace=1)
    plain, whole = open_video(path), open_video(path, Preparation(deinterlace=True))
    assert plain.losses["av1"].keys() == {"interlaced"}
    assert whole.losses["av1"] == {}
    combs = [np.abs(np.diff(shown(reader).astype(int), axis=1)).mean() for reader in (plain, whole)]
    assert combs[1] < 0.5 * combs[0]
    assert off(whole) <= 8


def test_a_clip_that_changes_is_refused(tmp_path):
    path = record(tmp_path / "a.mkv", made(smooth(4), "yuv420p"))
    reader = open_video(path)
    record(path, made(smooth(3), "yuv420p"))
    with pytest.raises(VideoError, match="changed while it was read"):
        list(reader.yuv())
    assert video.open_video(path).info.frames == 3
