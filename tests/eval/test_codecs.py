"""Ordinary codecs: colours, order and size of what comes back, bare streams, and what losses leave."""

import dataclasses
import re
from fractions import Fraction

import av
import numpy as np
import pytest

from eval import metrics
from eval.report import codecs

FRAMES, FPS = 20, Fraction(25)
KINDS = pytest.mark.parametrize("kind", codecs.CODECS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def moving():
    """uint8[FRAMES, 64, 96, 3]: smooth and coloured, moving."""
    t, y, x = np.mgrid[:FRAMES, :64, :96]
    waves = [128 + 70 * np.sin((x + (1 + c) * y + 2 * t) / (17 + 5 * c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def stream(moving):
    return codecs.compress(moving, FPS, 22)


# ---- H.265 ---------------------------------------------------------------------------------------------


def test_h265_comes_back_in_the_right_colours_and_order(moving):
    back, came = codecs.expand(codecs.compress(moving, FPS, 8), moving.shape[:3])
    assert came == FRAMES
    assert metrics.psnr(moving, back) > 36
    assert np.abs(moving.astype(float).mean(axis=(1, 2)) - back.mean(axis=(1, 2))).max() < 1.5


def test_h265_of_odd_sizes(moving):
    odd = moving[:5, :51, :75]
    back, came = codecs.expand(codecs.compress(odd, FPS, 8), odd.shape[:3])
    assert came == 5
    assert metrics.psnr(odd, back) > 36


def test_h265_takes_the_bytes_it_may(moving):
    whole = codecs.compress(moving, FPS, 20).size
    fitted = codecs.fit(moving, FPS, whole)
    assert 0.9 * whole < fitted.size <= whole
    again = codecs.compress(moving, FPS, fitted.crf)
    assert again == fitted
    with pytest.raises(ValueError, match="and there are 50: give a longer"):
        codecs.fit(moving, FPS, 50)


def test_h265_without_losses_is_whole(stream):
    assert codecs.damaged(stream, np.zeros(10_000, bool), 32) == [stream] * 2


@pytest.mark.parametrize("last", [False, True])
def test_h265_with_losses(stream, moving, last):
    """One byte, the last or the first of the fourth picture, takes that picture and no other."""
    sizes = [len(data) for _, data in stream.pictures]
    lost = np.zeros(stream.size, bool)
    lost[sum(sizes[:4]) - 1 if last else sum(sizes[:3])] = True
    before, others = codecs.damaged(stream, lost, 1)
    assert before.pictures == stream.pictures[:3]
    assert others.pictures == stream.pictures[:3] + stream.pictures[4:]
    shown, came = codecs.expand(before, moving.shape[:3])
    assert came == 3
    whole, numbers = codecs.expand(stream, moving.shape[:3])[0], {number for number, _ in before.pictures}
    for n in range(FRAMES):  # the last one that came
        np.testing.assert_array_equal(shown[n], whole[max(number for number in numbers if number <= n)])


def test_h265_packets_are_laid_over_the_pictures(stream):
    """A packet of 32 bytes takes every picture of which it holds a byte."""
    ends = np.cumsum([len(data) for _, data in stream.pictures])
    for packet in (0, int(ends[1]) // 32, -(-int(ends[-1]) // 32) - 1):
        lost = np.arange(1000) == packet
        gone = {number for number, _ in stream.pictures} - {n for n, _ in codecs.damaged(stream, lost, 32)[1].pictures}
        begins = ends - [len(data) for _, data in stream.pictures]
        hit = (begins < 32 * packet + 32) & (ends > 32 * packet)
        assert gone == {number for (number, _), is_hit in zip(stream.pictures, hit, strict=True) if is_hit}


def test_h265_of_which_nothing_is_left_is_grey(stream, moving):
    for left in codecs.damaged(stream, np.ones(10_000, bool), 32):
        shown, came = codecs.expand(left, moving.shape[:3])
        assert came == 0
        assert (shown == 128).all()


# ---- all of them -----------------------------------------------------------------------------------------


@KINDS
def test_comes_back_in_the_right_colours_and_order(moving, kind):
    stream = codecs.compress(moving, FPS, 12, kind, kind.presets[0])
    back, came = codecs.expand(stream, moving.shape[:3])
    assert came == FRAMES
    assert metrics.psnr(moving, back) > 34
    assert np.abs(moving.astype(float).mean(axis=(1, 2)) - back.mean(axis=(1, 2))).max() < 1.5


@KINDS
def test_presets_are_heard(moving, kind):
    quick, thorough = (codecs.compress(moving, FPS, 30, kind, preset) for preset in kind.presets)
    assert quick.pictures != thorough.pictures


@KINDS
def test_one_group_of_pictures(moving, kind):
    """A cut in the middle makes no second key frame: the codecs are asked for one group."""
    cut = np.concatenate([moving[:10], 255 - moving[10:]])
    stream = codecs.compress(cut, FPS, 30, kind, kind.presets[0])
    sizes = [len(data) for number, data in stream.pictures]
    assert stream.pictures[0][0] == 0
    assert len(sizes) == FRAMES
    left = dataclasses.replace(stream, pictures=stream.pictures[1:])
    assert codecs.expand(left, cut.shape[:3])[1] == 0  # nothing without the first picture


@KINDS
def test_scaled_pictures_come_back_whole(moving, kind):
    large = np.tile(moving[:4], (1, 2, 2, 1))[:, :126, :190]
    stream = codecs.compress(large, FPS, 15, kind, kind.presets[0], 0.5)
    back, came = codecs.expand(stream, large.shape[:3])
    assert came == 4
    assert back.shape == large.shape
    assert metrics.psnr(large, back) > 24
    assert stream.size < codecs.compress(large, FPS, 15, kind, kind.presets[0]).size


@KINDS
def test_fits(moving, kind):
    most = codecs.compress(moving, FPS, 30, kind, kind.presets[0]).size
    stream = codecs.fit(moving, FPS, most, kind, kind.presets[0])
    assert 0.85 * most < stream.size <= most
    assert 4 * stream.crf == round(4 * stream.crf) or kind.step < 0.25


def test_scales_that_a_picture_is_large_enough_for():
    for kind in codecs.CODECS:
        assert [scale for scale, _ in kind.scales(288, 352)] == [1, 0.5, 0.25]
        assert [scale for scale, _ in kind.scales(144, 176)] == [1, 0.5]
        assert [scale for scale, _ in kind.scales(40, 48)] == [1]
        assert all(0 < crf <= kind.largest for _, crfs in kind.ladder for crf in crfs)


# ---- bare streams ----------------------------------------------------------------------------------------


def as_encoded(moving, kind):
    """With all that FFmpeg's encoder gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs.Codec, "bare", lambda _, data: data)
        return codecs.compress(moving, FPS, 30, kind, kind.presets[0])


def test_h264_without_the_options_that_x264_writes(moving):
    plain, bare = as_encoded(moving, codecs.H264), codecs.compress(moving, FPS, 30, codecs.H264, "medium")
    assert b"x264 - core" in plain.to_bytes()
    assert b"x264" not in bare.to_bytes()
    assert 500 < plain.size - bare.size < 900
    units = [data[0] & 31 for data in re.split(rb"\x00?\x00\x00\x01", bare.to_bytes()) if data]
    assert set(units) <= {1, 5, 7, 8}  # slices, parameter sets
    assert units[:3] == [7, 8, 5]


def test_h265_without_messages(moving):
    stream = codecs.compress(moving, FPS, 30, codecs.H265, "medium")
    units = [data[0] >> 1 & 63 for data in re.split(rb"\x00?\x00\x00\x01", stream.to_bytes()) if data]
    assert units[:3] == [32, 33, 34]
    assert 39 not in units
    assert 40 not in units


def test_sei_goes_and_nothing_else():
    unit = lambda first, n: b"\0\0\1" + bytes([first]) + bytes(range(7, 7 + n))  # noqa: E731
    data = unit(0x67, 3) + b"\0" + unit(0x06, 9) + unit(0x65, 20)
    assert codecs.H264.bare(data) == unit(0x67, 3) + unit(0x65, 20)
    data = unit(78, 5) + unit(2, 20) + unit(80, 5)  # 39 << 1, 1 << 1, 40 << 1
    assert codecs.H265.bare(data) == unit(2, 20)
    assert codecs.H264.bare(b"") == b""


def test_av1_without_delimiters(moving):
    plain, bare = as_encoded(moving, codecs.AV1), codecs.compress(moving, FPS, 30, codecs.AV1, "8")
    assert all(data[:2] == b"\x12\0" for _, data in plain.pictures)  # OBU type 2, no bytes
    assert [data[2:] for _, data in plain.pictures] == [data for _, data in bare.pictures]
    assert bare.pictures[0][1][0] >> 3 & 15 == 1  # the sequence header


def test_obus_go_by_their_type():
    def obu(kind, size):
        length = [size] if size < 128 else [size & 127 | 128, size >> 7]
        return bytes([kind << 3 | 2, *length]) + bytes(size)

    data = obu(2, 0) + obu(1, 11) + obu(5, 300) + obu(6, 1000) + obu(15, 2)
    assert codecs.AV1.bare(data) == obu(1, 11) + obu(6, 1000)


@pytest.mark.parametrize(("kind", "format"), [(codecs.H264, "h264"), (codecs.H265, "hevc"), (codecs.AV1, "obu")],
                         ids=["h264", "h265", "av1"])  # fmt: skip
def test_other_readers_take_the_stream(moving, tmp_path, kind, format):
    """As a file of its own: FFmpeg's demuxer finds the pictures without being told where they begin."""
    stream = codecs.compress(moving, FPS, 30, kind, kind.presets[0])
    if kind is codecs.AV1:  # FFmpeg's demuxer wants the delimiters
        data = b"".join(b"\x12\0" + picture for _, picture in stream.pictures)
    else:
        data = stream.to_bytes()
    path = tmp_path / "clip"
    path.write_bytes(data)
    with av.open(str(path), format=format) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == FRAMES
    assert metrics.psnr(np.stack(shown), codecs.expand(stream, moving.shape[:3])[0]) > 27  # other ways to RGB


# ---- losses ----------------------------------------------------------------------------------------------


@KINDS
def test_losses_never_raise(moving, kind):
    stream = codecs.compress(moving, FPS, 30, kind, kind.presets[0])
    whole = metrics.psnr(moving, codecs.expand(stream, moving.shape[:3])[0])
    generator = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.5, 1.0):
        lost = generator.random(stream.size) < share / 8
        for left in codecs.damaged(stream, lost, 1):
            shown, came = codecs.expand(left, moving.shape[:3])
            assert shown.shape == moving.shape
            assert came <= FRAMES
            assert metrics.psnr(moving, shown) <= whole + 0.01
