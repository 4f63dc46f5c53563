"""Constant rates behind rounded timestamps, the rate that a variable one is resampled to, and the resampling."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest

from helix_jax.video import frame_rate

MS, MPEG = Fraction(1, 1000), Fraction(1, 90000)
NTSC = Fraction(30000, 1001)
OTHERS = [Fraction(rate) for rate in ("1/60", "1/2", "1", "7", "10", "13", "15/2", "19", "37/2", "144")]


def stamps(rate, tick, frames=60, first=0, rounded=round, skip=()):
    """Timestamps of frames at a constant rate in whole ticks."""
    return [rounded((first + Fraction(n) / rate) / tick) for n in range(frames) if n not in skip]


@pytest.mark.parametrize("rounded", [round, math.floor])
@pytest.mark.parametrize("tick", [MS, MPEG, Fraction(1, 12800)])
@pytest.mark.parametrize("rate", [*frame_rate.STANDARD, *OTHERS], ids=str)
def test_rounded_timestamps_have_the_rate_behind_them(rate, tick, rounded):
    """Whatever the container announces: nothing, the right rate, twice it, or its tick."""
    pts = stamps(rate, tick, first=Fraction(7, 5), rounded=rounded)
    for announced in ([], [rate], [2 * rate, rate], [1 / tick, None, Fraction(0)]):
        assert frame_rate.constant(pts, tick, announced) == rate


@pytest.mark.parametrize(
    ("rate", "announced"),
    [
        ("60000/1001", "959/16"),  # FLV
        ("60000/1001", "19001/317"),  # Matroska
        ("24000/1001", "983/41"),
        ("60000/1001", "60000/1001"),
        ("60", "60"),
        ("119", "119"),
        ("120", "120"),
    ],
)
def test_what_is_announced_decides_between_rates_that_ms_cannot_tell_apart(rate, announced):
    for frames in (3, 12):
        pts = stamps(Fraction(rate), MS, frames)
        assert frame_rate.constant(pts, MS, [Fraction(announced)]) == Fraction(rate)


def test_exact_timestamps_keep_a_rate_that_is_nearly_a_standard_one():
    rate = Fraction(959, 16)
    assert frame_rate.constant([16 * n for n in range(12)], Fraction(1, 959), [rate]) == rate
    assert frame_rate.constant([7 * n for n in range(5)], Fraction(1, 100), [Fraction(100, 7)]) == Fraction(
        100, 7
    )  # GIF


def test_ms_in_finer_ticks():
    """Matroska copied into MP4 or MPEG-TS."""
    for tick in (MPEG, Fraction(1, 16000)):
        pts = [round(n * MS / tick) for n in stamps(NTSC, MS)]
        assert frame_rate.constant(pts, tick, [Fraction(1800000, 60061)]) == NTSC


@pytest.mark.parametrize("tick", [MS, MPEG])
@pytest.mark.parametrize("rate", ["12", "24000/1001", "25", "30000/1001", "30", "50", "60", "19"])
def test_variable_rates_and_what_to_resample_them_to(rate, tick):
    rate, generator = Fraction(rate), np.random.default_rng(1)
    jitter = [pts + round(float(wander / tick)) for pts, wander in zip(
        stamps(rate, tick, 90), generator.uniform(-1.5e-3, 1.5e-3, 90), strict=True)]  # fmt: skip
    one = stamps(rate, tick, skip=[30])
    many = stamps(rate, tick, 200, skip=set(generator.choice(199, 40, replace=False) + 1))
    paused = stamps(rate, tick, 300, skip={*range(60, 200), *range(210, 260)})
    for pts in (jitter, one, many, paused):
        assert frame_rate.constant(pts, tick, [rate, Fraction(30), 1 / tick]) is None
        assert frame_rate.nearest(pts, tick) == rate


def test_jitter_that_leaves_the_rate_open():
    """A whole rate then, unless the other is announced: for any of fifty phones."""
    generator = np.random.default_rng(2)
    for frames in (20, 60):
        for _ in range(50):
            wander = generator.uniform(-1e-3, 1e-3, frames)
            pts = [round((n / 30 + w) * 90000) for n, w in enumerate(wander)]
            assert frame_rate.constant(pts, MPEG, [Fraction(30)]) is None
            assert frame_rate.nearest(pts, MPEG) == 30
            assert frame_rate.nearest(pts, MPEG, [None, Fraction(3000, 101), Fraction(30)]) == 30
    assert frame_rate.nearest([3000 * n + 90 * (n % 3) for n in range(20)], MPEG, [NTSC]) == NTSC


def test_a_missing_frame_is_found_wherever_it_is():
    for missing in range(1, 11):
        assert frame_rate.constant(stamps(Fraction(25), MS, 12, skip=[missing]), MS, [Fraction(25)]) is None
        assert frame_rate.constant(stamps(NTSC, MS, 12, skip=[missing]), MS, [NTSC]) is None


def test_what_to_resample_odd_clips_to():
    telecine = np.cumsum([0, *[3003, 4504] * 400]).tolist()  # film on television: frames of two fields, then of three
    assert frame_rate.nearest(telecine, MPEG) == Fraction(24000, 1001)
    gif = np.cumsum([0, *[3, 3, 4] * 20]).tolist()
    assert frame_rate.nearest(gif, Fraction(1, 100)) == 30
    assert frame_rate.nearest([0, 2000, 4000, 8000, 10000], MS) == Fraction(1, 2)
    assert frame_rate.nearest([0, 0, 0], MS) == 25
    assert frame_rate.nearest([0, 40, 30, 80, 120], MS) == 25  # out of order
    assert frame_rate.constant([0, 40, 30, 80, 120], MS, [Fraction(25)]) is None
    assert frame_rate.constant([5, 5, 5], MS, [Fraction(25)]) is None
    assert frame_rate.constant([120, 80, 40], MS, [Fraction(25)]) is None


@pytest.mark.parametrize(
    ("announced", "tick", "length", "rate"),
    [
        ([Fraction(25)], MS, 40, 25),
        ([None, Fraction(50)], MPEG, 0, 50),
        ([Fraction(19001, 317)], MS, 16, Fraction(60000, 1001)),
        ([Fraction(18728, 625)], Fraction(1, 18728), 625, Fraction(18728, 625)),
        ([None, Fraction(1000)], MS, 0, 25),
        ([Fraction(90000)], MPEG, 3003, NTSC),
        ([], MS, 0, 25),
    ],
)
def test_one_frame(announced, tick, length, rate):
    assert frame_rate.of_one(announced, tick, length) == rate


def by_ffmpeg(pts, tick, last, rate):
    """Counts of ``shown`` by FFmpeg's filter fps, told by the grey of each frame."""
    graph = av.filter.Graph()
    source = graph.add("buffer", f"video_size=16x16:pix_fmt=gray:time_base={tick.numerator}/{tick.denominator}")
    graph.link_nodes(source, graph.add("fps", f"fps={rate}:round=near"), graph.add("buffersink")).configure()
    counts = [0] * len(pts)
    for number, time in enumerate(pts):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
        frame.pts, frame.time_base, frame.duration = time - pts[0], tick, last
        graph.vpush(frame)
    graph.vpush(None)
    while True:
        try:
            counts[graph.vpull().to_ndarray()[0, 0]] += 1
        except (av.EOFError, av.BlockingIOError):
            return counts


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(24), NTSC, Fraction(60), Fraction(1, 2)])
def test_resampling_is_that_of_ffmpeg(rate):
    generator = np.random.default_rng(0)
    for tick, gap in ((MS, 40), (MPEG, 3000)):
        pts = (500 + np.cumsum(generator.integers(1, 2 * gap, 40))).tolist()
        counts = frame_rate.shown(pts, tick, gap, rate)
        assert counts == by_ffmpeg(pts, tick, gap, rate)
        assert abs(sum(counts) - (pts[-1] + gap - pts[0]) * tick * rate) <= 1


def test_resampling():
    assert frame_rate.shown(stamps(Fraction(25), MS, 12, skip=[5]), MS, 40, Fraction(25)) == [1] * 4 + [2] + [1] * 6
    assert frame_rate.shown(stamps(Fraction(25), MS, 4), MS, 40, Fraction(50)) == [2] * 4
    assert sum(frame_rate.shown(stamps(Fraction(50), MS, 10), MS, 20, Fraction(25))) == 5
    assert frame_rate.shown([0], MS, 1, Fraction(1)) == [1]  # never none
    assert sum(frame_rate.shown([0, 40, 20, 120], MS, 40, Fraction(25))) == 4  # out of order


def test_rates_in_words():
    for text in ("29.97", "29.970", "30000/1001", "60000/2002", " 29.97 "):
        assert frame_rate.parse(text) == NTSC
    for text, rate in (("23.976", 24), ("23.98", 24), ("47.95", 48), ("59.94", 60), ("119.88", 120)):
        assert frame_rate.parse(text) == Fraction(1000 * rate, 1001)
    for text in ("30", "30.0", "24.00", "12.5", "0.5", "18.7", "29.9", "1000", "1/60"):
        assert frame_rate.parse(text) == Fraction(text)
    for text in ("", "0", "0.0", "-5", "fast", "nan", "inf", "1e3", "1/0", "1/00", "30fps", "30,5", "1001", "2/3/4"):
        with pytest.raises(ValueError, match=r"for example 30, 29\.97 or 30000/1001"):
            frame_rate.parse(text)
    with pytest.raises(ValueError, match="frame rate"):
        frame_rate.parse("1/5000000000")


def test_times_that_turn_back_and_lengths_that_are_not_told():
    assert frame_rate.constant([0, -10, 5, 0], Fraction(1, 1000), [25]) is None
    times = [0, 40, 80, 120, 200, 240]
    assert frame_rate.shown(times, Fraction(1, 1000), 0, Fraction(25)) == [1, 1, 1, 2, 1, 1]
    assert frame_rate.shown(times, Fraction(1, 1000), 40, Fraction(25)) == [1, 1, 1, 2, 1, 1]
