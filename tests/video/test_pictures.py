"""What becomes of colours, alpha, fields and HDR, on clips of a few samples; and what is told of each loss."""

from fractions import Fraction

import av
import numpy as np
import pytest

from helix_jax.video import Preparation, VideoError, not_kept, open_video, pictures
from helix_jax.video.pictures import Traits

LOSSLESS = {"qp": "0"}
PLAIN = Preparation()
WEIGHTS = {"709": (0.2126, 0.7152, 0.0722), "601": (0.299, 0.587, 0.114), "2020": (0.2627, 0.678, 0.0593)}


def record(path, planes, pix_fmt, codec="libx264", options=LOSSLESS, **tags):
    """Write samples as they are. planes: for each frame an array as ``VideoFrame.from_ndarray`` takes it. tags: of the
    codec context."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.pix_fmt, stream.options = pix_fmt, dict(options)
        for number, samples in enumerate(planes):
            frame = frame_of(np.ascontiguousarray(samples), pix_fmt)
            if number == 0:
                stream.height, stream.width = frame.height, frame.width
                for name, value in tags.items():
                    setattr(stream.codec_context, name, value)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_of(samples, pix_fmt):
    if samples.dtype == np.uint8:
        return av.VideoFrame.from_ndarray(samples, format=pix_fmt)
    frame = av.VideoFrame(*samples.shape[:0:-1], pix_fmt)
    for plane, values in zip(frame.planes, samples, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    return frame


def yuv(rgb, standard="709", full=False, bits=8, size=16):
    """A colour, 0..1, as uint[3, size, size] samples of yuv444p."""
    red, green, blue = WEIGHTS[standard]
    luma = np.dot(rgb, (red, green, blue))
    scaled = np.array([luma, (rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red)])
    gain, offset = ((255, 255, 255), (0, 128, 128)) if full else ((219, 224, 224), (16, 128, 128))
    values = np.round((scaled * gain + offset) * 2 ** (bits - 8)).astype(np.uint8 if bits == 8 else np.uint16)
    return np.broadcast_to(values[:, None, None], (3, size, size))


def colour(path, prepare=PLAIN):
    """The colour of the middle pixel of the first frame, and the reader."""
    reader = open_video(path, prepare)
    frame = next(reader.blocks(1))[0]
    return frame[frame.shape[0] // 2, frame.shape[1] // 2].astype(int), reader


# ---- colours -------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("tag", "standard"),
    [(1, "709"), (5, "601"), (6, "601"), (9, "2020"), (2, "601")],  # 2: unspecified
)
def test_colours_follow_the_tagged_matrix_and_range(tmp_path, tag, standard, full):
    rgb = np.array([220, 30, 40])
    samples = yuv(rgb / 255, standard, full)
    path = record(tmp_path / "a.mp4", [samples] * 2, "yuv444p", colorspace=tag, color_range=1 + full)
    found, reader = colour(path)
    assert np.abs(found - rgb).max() <= 2
    assert reader.not_kept.keys() == ({"gamut"} if tag == 9 else set())


def test_a_reserved_matrix_is_none():
    frames = [frame_of(np.ascontiguousarray(yuv((0.5, 0.2, 0.1))), "yuv444p") for _ in range(2)]
    frames[1].colorspace = 3
    unstated, reserved = pictures.pictures(iter(frames), pictures.Look())
    np.testing.assert_array_equal(unstated, reserved)


@pytest.mark.parametrize("tag", [8, 10, 14])  # YCgCo, BT.2020 constant luminance, ICtCp
def test_other_matrices_are_refused_by_number(tmp_path, tag):
    path = record(tmp_path / "a.mp4", [yuv((0.5, 0.2, 0.1))] * 2, "yuv444p", colorspace=tag)
    for prepare in (Preparation(), Preparation(tone_map=True)):
        with pytest.raises(VideoError, match=rf"a\.mp4: its colours \(yuv444p, matrix {tag} .*libplacebo=.*a-new\.mp4"):
            open_video(path, prepare)


# ---- alpha ---------------------------------------------------------------------------------


def see_through(alpha):
    picture = np.full((16, 16, 4), (200, 100, 50, 255), np.uint8)
    picture[4:, :, 3] = alpha
    return picture


@pytest.mark.parametrize("codec", ["png", "qtrle"])
def test_alpha_is_put_over_black_and_told(tmp_path, codec):
    pix_fmt = {"png": "rgba", "qtrle": "argb"}[codec]
    order = [0, 1, 2, 3] if codec == "png" else [3, 0, 1, 2]

    def clip(name, *alphas):
        return record(
            tmp_path / name, [see_through(alpha)[..., order] for alpha in alphas], pix_fmt, codec=codec, options={}
        )

    for alphas in ((76, 76), (255, 76)):  # also where it begins late
        reader = open_video(clip("a.mov", *alphas))
        frames = next(reader.blocks())
        np.testing.assert_array_equal(frames[-1, 8, 8], np.round(np.array([200, 100, 50]) * 76 / 255))
        np.testing.assert_array_equal(frames[-1, 0, 0], [200, 100, 50])
        assert reader.not_kept.keys() == {"alpha"}
        assert "over black" in reader.not_kept["alpha"]
        assert "overlay" in reader.not_kept["alpha"]
    opaque = open_video(clip("b.mov", 255, 255))
    assert opaque.not_kept == {}
    np.testing.assert_array_equal(next(opaque.blocks())[1, 8, 8], [200, 100, 50])


def test_alpha_of_webm(tmp_path):
    """It lies beside the picture, and FFmpeg's own decoder passes over it."""
    frame = av.VideoFrame.from_ndarray(see_through(0), format="rgba").reformat(format="yuva420p")
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuva420p"
        for number in range(2):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found, reader = colour(tmp_path / "a.webm")
    assert found.max() <= 8
    assert reader.not_kept.keys() == {"alpha"}


# ---- fields --------------------------------------------------------------------------------


def combed(frames=6, height=32, width=64):
    """A bar that moves 8 pixels per field, the upper lines first: uint8[3, height, width] for each frame."""
    lines, x = np.mgrid[:height, :width]
    moments = [2 * n + lines % 2 for n in range(frames)]
    bars = [np.where((x >= 4 + 4 * moment) & (x < 12 + 4 * moment), 200, 40) for moment in moments]
    return [np.stack([bar, np.full_like(bar, 128), np.full_like(bar, 128)]).astype(np.uint8) for bar in bars]


def combs(clip):
    """Mean difference of neighbouring lines."""
    return np.abs(np.diff(clip.astype(float), axis=1)).mean()


@pytest.mark.parametrize("frames", [1, 6])
def test_fields_are_told_and_made_frames(tmp_path, frames):
    interlaced = LOSSLESS | {"x264-params": "tff=1"}
    path = record(tmp_path / "a.mp4", combed(frames), "yuv444p", options=interlaced)
    reader = open_video(path)
    assert reader.not_kept.keys() == {"interlaced"}
    assert "--deinterlace" in reader.not_kept["interlaced"]
    plain = np.concatenate(list(reader.blocks()))
    reader = open_video(path, Preparation(deinterlace=True))
    assert reader.not_kept == {}
    assert (reader.info.frames, reader.info.fps) == (frames, 25)
    whole = np.concatenate(list(reader.blocks(4)))
    assert whole.shape == plain.shape
    if frames > 1:  # one frame does not move
        assert combs(whole) < 0.5 * combs(plain)


def test_what_is_not_interlaced_stays(tmp_path):
    path = record(tmp_path / "a.mp4", combed(), "yuv444p")
    plain, asked = open_video(path), open_video(path, Preparation(deinterlace=True, tone_map=True))
    assert plain.not_kept == {}
    np.testing.assert_array_equal(next(plain.blocks()), next(asked.blocks()))


def test_too_small_to_deinterlace(tmp_path):
    samples = [np.full((3, 2, 2), 100, np.uint8)] * 2
    path = record(tmp_path / "a.mp4", samples, "yuv444p", options=LOSSLESS | {"x264-params": "tff=1"})
    with pytest.raises(VideoError, match=r"a\.mp4: its frames \(yuv444p, 2x2\) cannot be deinterlaced"):
        open_video(path, Preparation(deinterlace=True))


# ---- HDR -----------------------------------------------------------------------------------


def pq(nits):
    """Signal, 0..1, of a luminance (SMPTE ST 2084)."""
    power = (nits / 10000) ** (1305 / 8192)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


@pytest.mark.parametrize(("transfer", "name", "darker"), [(16, "PQ", 5), (18, "HLG", 1)])
def test_hdr_is_told_and_tone_mapped(tmp_path, transfer, name, darker):
    """Greys stay grey and in order, and get the contrast that they lack where HDR is shown as it is."""
    greys = np.linspace(pq(0.0), pq(10000.0), 9)
    samples = np.concatenate([yuv([grey] * 3, "2020", bits=10) for grey in greys], axis=2)
    path = record(
        tmp_path / "a.mp4", [samples] * 3, "yuv444p10le", colorspace=9, color_range=1, color_primaries=9,
        color_trc=transfer,
    )  # fmt: skip
    reader = open_video(path)
    assert reader.not_kept.keys() == {"hdr"}
    assert f"HDR ({name}, BT.2020, 10 bits per sample)" in reader.not_kept["hdr"]
    assert "--tone-map" in reader.not_kept["hdr"]
    reader_mapped = open_video(path, Preparation(tone_map=True))
    assert reader_mapped.not_kept == {}
    plain, mapped = (next(r.blocks())[0, 8, 8::16].astype(int) for r in (reader, reader_mapped))
    assert np.ptp(mapped, axis=1).max() <= 1
    assert (np.diff(mapped[:, 0]) > 0).all()
    assert mapped[0, 0] <= 2
    assert mapped[-1, 0] >= 252
    np.testing.assert_allclose(plain[:, 0], 255 * greys, atol=2)
    assert mapped[2, 0] < plain[2, 0] - darker  # HLG is made to look right without


def test_wide_colours_are_told_and_converted(tmp_path):
    """A red of BT.709, written in the colours of BT.2020, comes back as itself."""
    to_wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
    linear = np.array([0.5, 0.1, 0.05])

    def signal(light):
        return light ** (1 / 2.4)  # the light of a screen, BT.1886

    samples = yuv(signal(to_wide @ linear), "2020", bits=10)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14}
    path = record(tmp_path / "a.mp4", [samples] * 2, "yuv444p10le", **tags)
    dull, reader = colour(path)
    assert reader.not_kept.keys() == {"gamut", "depth"}
    assert "BT.2020" in reader.not_kept["gamut"]
    assert "10 bits" in reader.not_kept["depth"]
    found, reader = colour(path, Preparation(tone_map=True))
    assert reader.not_kept == {}
    expected = 255 * signal(linear)
    assert np.abs(found - expected).max() <= 4  # FFmpeg interpolates in a table
    assert np.abs(dull - expected).max() > 20


def test_ten_bits_alone(tmp_path):
    path = record(tmp_path / "a.mp4", [yuv((0.5, 0.2, 0.1), bits=10)] * 2, "yuv444p10le", colorspace=1)
    assert open_video(path).not_kept.keys() == {"depth"}


# ---- shape, streams, everything at once ----------------------------------------------------


def test_pixel_aspect_is_told_with_its_value_and_two_remedies(tmp_path):
    samples = [np.full((3, 64, 96), 100, np.uint8)] * 2
    path = record(tmp_path / "my clip.mp4", samples, "yuv444p", sample_aspect_ratio=Fraction(16, 11))
    assert open_video(path).pixel_aspect == Fraction(16, 11)
    told = open_video(path).not_kept["aspect"]
    for words in ("16:11", "narrow", "my clip.mp4' -vf scale=140:64,setsar=1", "-aspect 24:11"):
        assert words in told
    path = record(tmp_path / "b.mp4", samples, "yuv444p", sample_aspect_ratio=Fraction(8, 9))
    assert "wide" in open_video(path).not_kept["aspect"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_of_several_streams_the_default_one(tmp_path, suffix):
    with av.open(str(tmp_path / f"a{suffix}"), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(3)]
        for number, stream in enumerate(streams):
            stream.height = stream.width = 16 * (1 + number)
            stream.disposition = av.stream.Disposition.default if number == 1 else av.stream.Disposition(0)
        for number, stream in enumerate(streams):
            for time in range(4):
                grey = np.full((stream.height, stream.width, 3), 60 * (1 + number), np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    reader = open_video(tmp_path / f"a{suffix}")
    assert (reader.info.frames, reader.info.height, reader.info.width) == (4, 32, 32)
    assert abs(int(next(reader.blocks())[0, 16, 16, 0]) - 120) < 4
    assert reader.not_kept.keys() == {"streams"}
    assert "3 video streams, of which only number 1" in reader.not_kept["streams"]


def test_every_loss_is_told_of_many_clips_too(tmp_path):
    info = open_video(record(tmp_path / "a.mp4", combed(), "yuv444p")).info
    traits = {"alpha": True, "bits": 10}
    told = [
        not_kept.of_clip(
            "-", info, Traits(**traits, transfer=transfer, primaries="BT.2020"), streams=(2, 0),
            aspect=Fraction(4, 3), alpha=True, interlaced=True,
        )
        for transfer in ("PQ", "")
    ]  # fmt: skip
    assert {*told[0], *told[1]} == not_kept.OF_MANY.keys()
    assert all("\n" not in text for losses in told for text in losses.values())
