"""Sound: in step with the picture through every container, and bytes that hostile ones cannot stand for."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_jax.errors import HelixError
from helix_jax.video import VideoError, open_video, sound
from helix_jax.video.sound import RATE, Sound, SoundError

FPS = Fraction(25)
FLASH = 20  # the frame with the flash, and when it is shown the click


def click(seconds=2.0, at=FLASH / FPS, rate=44100, channels=2, begin=0.0):
    """A hum with a click: float32[channels, n]. begin: when it starts."""
    time = begin + np.arange(int(seconds * rate)) / rate
    hum = 0.02 * np.sin(2 * np.pi * 220 * time)
    return np.tile(hum + 0.9 * (abs(time - float(at) - 0.01) < 0.01) * np.sin(2 * np.pi * 1000 * time), (channels, 1))


def film(path, frames=50, audio=None, codec="aac", rate=44100, begin=0.0, picture=0.0, form="fltp"):
    """Write a black clip with one white frame, and the sound from ``begin`` seconds on; the picture from ``picture``
    seconds on."""
    video = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        layout = "mono" if audio is not None and len(audio) == 1 else "stereo"
        track = None
        if audio is not None:
            track = container.add_stream(codec, rate=rate, layout=layout)
        for number in range(frames):
            grey = np.full((32, 32, 3), 255 * (number == FLASH), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round((number / FPS + Fraction(picture)) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if track:
            size = track.codec_context.frame_size or 1024
            for start in range(0, audio.shape[1], size):
                part = np.ascontiguousarray(audio[:, start : start + size], np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, start + round(begin * rate), Fraction(1, rate)
                for converted in av.AudioResampler(format=form, layout=layout, rate=rate).resample(frame):
                    container.mux(track.encode(converted))
            container.mux(track.encode())
    return path


def heard(samples):
    """When the click begins, in seconds."""
    return np.argmax(np.abs(samples).max(axis=1) > 0.3) / RATE


def flashes(reader):
    return int(np.argmax(np.concatenate(list(reader.blocks())).mean(axis=(1, 2, 3)))) / reader.info.fps


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "form"),
    [(".mp4", "aac", 44100, "fltp"), (".mkv", "pcm_s16le", 22050, "s16"), (".webm", "libopus", 48000, "flt"),
     (".ts", "mp2", 48000, "s16"), (".mov", "aac", 48000, "fltp")],
)  # fmt: skip
@pytest.mark.parametrize("kbit", [12, 64])
def test_a_click_stays_with_its_flash(tmp_path, suffix, codec, rate, form, kbit):
    reader = open_video(film(tmp_path / f"a{suffix}", audio=click(rate=rate), codec=codec, rate=rate, form=form))
    assert reader.has_audio
    found = reader.sound(kbit)
    assert found.channels == 1 + (kbit >= 24)
    samples = sound.decode(found)
    assert samples.shape == (found.samples, found.channels)
    assert 1.9 * RATE < found.samples <= 2 * RATE
    assert flashes(reader) == FLASH / FPS
    assert heard(samples) == pytest.approx(float(FLASH / FPS), abs=0.015)
    assert len(found.to_bytes()) < 1.4 * 1000 * kbit / 8 * 2
    assert Sound.from_bytes(found.to_bytes(), 2 * RATE) == found


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(("begin", "picture"), [(0.5, 0.0), (0.0, 0.4), (0.7, 0.72)])
def test_late_sound_and_late_pictures(tmp_path, suffix, begin, picture):
    """The click is heard with the flash, whichever of the two streams begins later."""
    at = FLASH / FPS + Fraction(picture)
    path = film(tmp_path / f"a{suffix}", audio=click(2, at, begin=begin), begin=begin, picture=picture)
    found = open_video(path).sound(32)
    assert heard(sound.decode(found)) == pytest.approx(float(FLASH / FPS), abs=0.015)
    assert found.samples <= 2 * RATE


def test_what_the_picture_does_not_last_for_is_cut(tmp_path):
    found = open_video(film(tmp_path / "a.mkv", frames=25, audio=click(5))).sound(16)
    assert found.samples == RATE
    assert open_video(film(tmp_path / "b.mkv", frames=25, audio=click(0.5))).sound(16).samples < 0.6 * RATE
    assert open_video(film(tmp_path / "c.mkv")).sound(16) is None


def test_one_channel_stays_one(tmp_path):
    path = film(tmp_path / "a.mkv", audio=click(channels=1))
    assert open_video(path).sound(64).channels == 1
    for kbit in (5, 511):
        with pytest.raises(HelixError, match=f"{kbit} kbit/s: give 6 to 510"):
            open_video(path).sound(kbit)


def test_damaged_sound_is_told(tmp_path):
    path = film(tmp_path / "a.mkv", audio=click(), codec="flac", form="s16")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    for place in places[5:]:
        data[place + 8 : place + 40] = bytes(32)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.mkv: its sound is damaged after .*-c:a flac"):
        sound.read(path, 16, begin=Fraction(0), duration=Fraction(2))


# ---- bytes ---------------------------------------------------------------------------------


def small():
    return Sound(1, 312, 5000, 960, (b"\x08" + bytes(5),) * 5 + (b"",))


def test_the_format():
    assert small().to_bytes() == bytes([0b110, 184, 2, 136, 39, 6, 6, 6, 6, 6, 0]) + (b"\x08" + bytes(5)) * 5
    assert Sound.from_bytes(small().to_bytes(), 5000) == small()


def test_what_is_forged_is_refused():
    data = small().to_bytes()

    def refused(forged, match, most=5000):
        with pytest.raises(SoundError, match=match):
            Sound.from_bytes(forged, most)

    refused(b"", "no valid first byte")
    refused(b"\x0c" + data[1:], "no valid first byte")
    refused(data, "room for 4,999", most=4999)
    refused(data[:3], "ends after 3 bytes")
    refused(data[:-1], "packets of 30 bytes in 29")
    refused(data + b"x", "packets of 30 bytes in 31")
    refused(b"\x04" + data[1:], "cannot have|packet")
    refused(data.replace(b"\x08", b"\x10", 1), "of 1920 samples among those of 960")
    refused(bytes([6, 0, 255, 255, 255, 15]), "cannot have 34,953 packets", most=1 << 40)
    refused(bytes([6, 0, *[255] * 9]), "without an end")


@given(data=st.binary(max_size=200), first=st.integers(0, 11))
def test_any_bytes_are_refused_or_safe(data, first):
    try:
        found = Sound.from_bytes(bytes([first]) + data, RATE)
    except SoundError:
        return
    assert sound.decode(found).shape == (found.samples, found.channels)


def test_a_packet_that_fails_is_silent():
    generator = np.random.default_rng(0)
    for toc in (0x08, 0x0B, 0x7C, 0xFB, 0x1B):
        junk = tuple(bytes([toc]) + generator.bytes(int(generator.integers(0, 60))) for _ in range(30))
        found = sound.decode(Sound(2, 0, 28000, 960, junk))
        assert found.shape == (28000, 2)
        assert np.isfinite(found).all()
