import resource
from fractions import Fraction

import numpy as np
import pytest

from helix_jax.stream import av1, obus
from helix_jax.stream.obus import StreamError
from helix_jax.video.signal import Signal

FPS = Fraction(25)


def coded(clip, size, **options):
    fixed = {"crf": 30.0, "preset": 10, "signal": clip.signal, "fps": clip.info.fps}
    return av1.encode(clip.yuv(), size=size, **(fixed | options))


def luma(frames):
    return np.stack([np.frombuffer(f.planes[0], np.uint16).reshape(f.height, -1)[:, : f.width] for f in frames])


@pytest.mark.parametrize("size", [(48, 64), (36, 48), (24, 32), (37, 51), (17, 16), (5, 4)])
def test_there_and_back(yuv_clip, scene, colours, size):
    clip = yuv_clip(scene(9, 48, 64))
    data = coded(clip, size)
    frames = list(av1.decode(data, size=size, frames=9, signal=colours))
    assert [frame.pts for frame in frames] == list(range(9))
    assert {(frame.height, frame.width, frame.format.name) for frame in frames} == {(*size, av1.PIXELS)}
    if min(size) >= 24:
        shown = luma(av1.resize(frames, (48, 64))).astype(int)
        assert np.abs(shown - luma(clip.yuv())).mean() < 20  # of 1023


def test_one_picture(yuv_clip, scene, colours):
    clip = yuv_clip(scene(1, 32, 32))
    data = coded(clip, (32, 32))
    assert obus.frames_of(data) == 1
    assert len(list(av1.decode(data, size=(32, 32), frames=1, signal=colours))) == 1


def test_same_bytes_again_and_quarter_steps(yuv_clip, scene):
    clip = yuv_clip(scene(9, 48, 64))
    assert coded(clip, (48, 64)) == coded(clip, (48, 64))
    assert len({coded(clip, (48, 64), crf=crf) for crf in (40, 40.25, 40.5, 40.75)}) == 4


def test_frames_may_be_coded_again(yuv_clip, scene, colours):
    """The pictures of a decoder state their type, which does not make key frames of them."""
    clip = yuv_clip(scene(9, 48, 64))
    frames = list(av1.decode(coded(clip, (48, 64)), size=(48, 64), frames=9, signal=colours))
    for _ in range(2):
        data = av1.encode(frames, size=(48, 64), crf=30, preset=10, signal=colours, fps=FPS)
        assert [is_key for _, is_key in obus.units(data)] == [True] + [False] * 8


def test_colours(yuv_clip, scene):
    signal = Signal(primaries=9, transfer=16, matrix=9, full_range=True)
    data = coded(yuv_clip(scene(2, 16, 16)), (16, 16), signal=signal)
    frame = next(av1.decode(data, size=(16, 16), frames=2, signal=signal))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, 16, 9, 2)


def test_refused_sizes(yuv_clip, scene):
    with pytest.raises(av1.EncodeError, match="3x2"):
        coded(yuv_clip(scene(1, 16, 16)), (2, 3))


# ---- hostile bytes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stream(yuv_clip, scene):
    return coded(yuv_clip(scene(12, 48, 64)), (48, 64))


def attempt(data, signal, size=(48, 64), frames=12):
    """The number of pictures that are decoded, whether or not there is an error; one of another class is raised."""
    count = 0
    try:
        for frame in av1.decode(data, size=size, frames=frames, signal=signal):
            assert (frame.height, frame.width) == size
            count += 1
    except StreamError:
        pass
    assert count <= frames
    return count


def test_damage(stream, colours):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = np.random.default_rng(0)
    whole = np.frombuffer(stream, np.uint8)
    for number in range(200):
        data = whole.copy()
        places = generator.integers(0 if number % 4 == 0 else 13, len(data), 1 + number % 5)
        data[places] ^= (1 << generator.integers(0, 8, len(places))).astype(np.uint8)
        attempt(data.tobytes(), colours)
        attempt(stream[: generator.integers(len(stream))], colours)
        attempt(generator.bytes(100), colours)
        begin, end = sorted(generator.integers(13, len(stream), 2))
        attempt(stream[:begin] + stream[end:], colours)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_forged_sizes(stream, colours):
    large = "000" + "0" + "0" + 19 * "0" + "00000" + 2 * "1111" + 2 * 16 * "1"  # 65536 x 65536
    rest = bytes(8)
    header = int(large.ljust(72, "0"), 2).to_bytes(9, "big") + rest
    with pytest.raises(StreamError, match="65536x65536"):
        list(
            av1.decode(
                bytes([0x0A, len(header)]) + header + stream[2 + stream[1] :], size=(48, 64), frames=12, signal=colours
            )
        )
    # also where the size that is stated is as large, or another one of this stream
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt(bytes([0x0A, len(header)]) + header + stream[2 + stream[1] :], colours, size=(65536, 65536))
    assert attempt(stream, colours, size=(64, 48)) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_thousands_of_frames_in_few_bytes(stream, colours):
    """A picture is shown again by 3 bytes."""
    units = [unit for unit, _ in obus.units(stream)]
    again = units[0] + 100_000 * next(unit for unit in units if len(unit) == 3)
    assert attempt(again, colours) <= 12
    assert attempt(again[: len(units[0]) + 3 * 99], colours, frames=100) <= 100
