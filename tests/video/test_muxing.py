"""AV1 and Opus copied into files: what comes back is what was coded, with its size, rate, colours and length."""

import dataclasses
import os
from fractions import Fraction

os.environ.setdefault("SVT_LOG", "1")

import av
import numpy as np
import pytest

from helix_jax.video import VideoError, VideoInfo, VideoWriter, check_output, open_video, planes, sound
from helix_jax.video.clip import Clip
from helix_jax.video.muxing import remux
from helix_jax.video.signal import Signal
from helix_jax.video.sound import RATE, Sound
from tests.video.test_sound import FLASH, FPS, click, film, heard

NTSC = Fraction(30000, 1001)
HLG = Signal(Fraction(4, 3), 9, 18, 9)
SVT = {"preset": "10", "svtav1-params": "keyint=-1:tune=1:scd=0:lp=2:crf=40"}


def without_delimiters(data):
    """A temporal unit without the OBU that begins it, which is 12 00."""
    assert data[:2] == b"\x12\x00"
    return data[2:]


def coded(clip):
    """The temporal units of a clip, and its frames as they are decoded from them."""
    info, signal = clip.info, clip.signal
    context = av.CodecContext.create("libsvtav1", "w")
    context.width, context.height, context.pix_fmt = info.width, info.height, planes.FORMAT
    context.time_base, context.framerate, context.options = 1 / info.fps, info.fps, dict(SVT)
    context.colorspace, context.color_primaries = signal.matrix, signal.primaries
    context.color_trc, context.color_range = signal.transfer, 1 + signal.full_range
    packets = [packet for frame in [*clip.yuv(), None] for packet in context.encode(frame)]
    units = [(without_delimiters(bytes(packet)), packet.is_keyframe) for packet in packets]
    decoder = av.CodecContext.create("libdav1d", "r")
    decoder.thread_count = 1
    frames = [f for unit in [*(av.Packet(unit) for unit, _ in units), None] for f in decoder.decode(unit)]
    return units, frames


class Moving(Clip):
    """A few frames in memory, with colours of their own."""

    def __init__(self, frames, height, width, fps, signal):
        t, y, x = np.mgrid[:frames, :height, :width]
        rgb = np.stack([40 + 5 * t + x, 60 + y, 200 - x - 2 * t], axis=-1)
        super().__init__(rgb.clip(0, 255).astype(np.uint8), fps)
        self.signal = signal


def opus(seconds=2.0, channels=2, kbit=32, tmp=None):
    path = film(tmp / "sound.mkv", audio=click(seconds), codec="pcm_s16le", form="s16")
    return sound.read(path, kbit, begin=Fraction(0), duration=Fraction(seconds))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize(
    ("size", "fps", "signal"),
    [((64, 96), NTSC, HLG), ((65, 67), Fraction(25), Signal(full_range=True)), ((64, 64), Fraction(37, 2), Signal())],
)
def test_av1_is_copied(tmp_path, suffix, size, fps, signal):
    clip = Moving(9, *size, fps, signal)
    units, frames = coded(clip)
    path = tmp_path / f"a{suffix}"
    remux(path, units, clip.info, signal)
    reader = open_video(path)
    assert reader.info == clip.info
    assert reader.signal == signal
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name in ("libdav1d", "av1")
        found = list(container.decode(video=0))
    for frame, decoded in zip(found, frames, strict=True):
        for plane, other in zip(planes._planes(frame), planes._planes(decoded), strict=True):
            np.testing.assert_array_equal(plane, other)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    if suffix == ".mp4":
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")
        assert b"av1C" in data


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_stays_in_step(tmp_path, suffix):
    frames = np.zeros((50, 32, 64, 3), np.uint8)
    frames[FLASH] = 255
    clip = Clip(frames, FPS)
    heard_before = opus(tmp=tmp_path)
    path = tmp_path / f"a{suffix}"
    remux(path, coded(clip)[0], clip.info, clip.signal, heard_before)
    with VideoWriter(tmp_path / f"b{suffix}", clip.info, sound=heard_before) as out:
        out.write(frames)
    for name in (path, tmp_path / f"b{suffix}"):
        with av.open(str(name)) as container:
            packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
            assert abs(container.duration / av.time_base - 2) < 0.07
        assert packets == list(heard_before.packets)
        again = open_video(name).sound(64)
        assert heard(sound.decode(again)) == pytest.approx(float(FLASH / FPS), abs=0.015)
        assert again.samples == pytest.approx(2 * RATE, abs=RATE // 500)


def test_what_is_wrong_is_told(tmp_path):
    clip = Moving(3, 64, 64, FPS, Signal())
    units, _ = coded(clip)
    more = VideoInfo(4, 64, 64, FPS)
    for given, info, match in (
        (units, more, "3 frames written, 4 promised"),
        ([], more, "0 frames to write, 4 promised"),
        ([(b"\x0a\x01\x00" * 4, True)], more, "no AV1 that begins a video"),
    ):
        with pytest.raises(VideoError, match=match):
            remux(tmp_path / "a.mp4", given, info, Signal())
    with pytest.raises(VideoError, match=r"a\.avi: .* ends in"):
        remux(tmp_path / "a.avi", units, clip.info, Signal())
    assert list(tmp_path.iterdir()) == []
    for name in ("a.MP4", "a.mkv", "a.webm", "-"):
        check_output(name)


def test_a_lost_packet_is_silence(tmp_path):
    whole = opus(tmp=tmp_path)
    lost = Sound(whole.channels, whole.pre_skip, whole.samples, whole.duration, (b"",) * len(whole.packets))
    clip = Moving(50, 64, 64, FPS, Signal())
    remux(tmp_path / "a.mp4", coded(clip)[0], clip.info, clip.signal, lost)
    assert np.abs(sound.decode(open_video(tmp_path / "a.mp4").sound(32))).max() < 1e-3


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mkv", "h264"), (".webm", "vp9")])
@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (17, 31)])
def test_frames_are_written_to_each_kind_of_file(tmp_path, suffix, codec, lossless, size):
    clip = Moving(5, *size, NTSC, Signal())
    with VideoWriter(tmp_path / f"a{suffix}", clip.info, lossless, signal=HLG) as out:
        out.write(clip.frames)
    reader = open_video(tmp_path / f"a{suffix}")
    assert reader.info == clip.info
    # The matrix is that of BT.709, but the levels are those of HLG, which the tags say.
    assert dataclasses.replace(reader.signal, aspect=Fraction(1)) == Signal(
        primaries=HLG.primaries, transfer=HLG.transfer
    )
    assert abs(round(reader.signal.aspect * size[1]) - size[1] * HLG.aspect) < 1  # WebM has whole pixels
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        assert container.streams.video[0].codec_context.name.endswith(codec)
    found = next(reader.blocks())
    assert np.abs(found.astype(int) - clip.frames).max() <= (3 if lossless else 14)
