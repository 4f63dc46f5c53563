import itertools
import math

import numpy as np
import pytest

from helix_jax.stream import av1, coded, fit, groups, obus
from helix_jax.video import planes


@pytest.fixture(scope="module")
def clip(yuv_clip, scene):
    """Two scenes of 15 and 17 frames of 48x64."""
    return yuv_clip(np.concatenate([scene(15, 48, 64, 0), scene(17, 48, 64, 1)]))


def whole(fitted, clip):
    """uint8[T, H, W, 3] of the units one after the other."""
    frames, size = [], (clip.info.height, clip.info.width)
    for unit in fitted.units:
        decoded = av1.decode(unit.data, size=fitted.size, frames=unit.frames, signal=clip.signal)
        frames += [planes.rgb(frame, clip.signal) for frame in av1.resize(decoded, size)]
    return np.stack(frames)


@pytest.mark.parametrize("most", [900, 4000])
def test_fills_the_bytes(clip, most):
    stations = []
    fitted = fit.fit(clip, most, effort=0, progress=lambda *news: stations.append(news))
    assert 0.93 * most <= fitted.bytes <= most  # a quarter of a step is much for such a small clip
    assert [unit.frames for unit in fitted.units] == [15, 17]
    assert all(crf == av1.STEP * round(crf / av1.STEP) for unit in fitted.units for crf in unit.crfs)
    error = np.square(whole(fitted, clip).astype(float) - clip.shown()).mean()
    assert fitted.psnr == pytest.approx(10 * math.log10(255**2 / error), abs=0.05)
    assert {station for station, _, _ in stations} == {"cuts", "size", "encode", "compare"}
    assert all(0 <= done <= total for _, done, total in stations)


def test_the_same_again(clip):
    assert fit.fit(clip, 900, effort=0) == fit.fit(clip, 900, effort=0)


def test_smaller_sizes_for_few_bytes(clip):
    assert math.prod(fit.fit(clip, 800, effort=0).size) < math.prod(fit.fit(clip, 9000, effort=0).size) == 48 * 64
    assert fit.fit(clip, 900, effort=0, scales=(0.5,)).size == (24, 32)


def test_too_few_bytes(clip):
    with pytest.raises(fit.FitError, match="give more bytes"):
        fit.fit(clip, 60, effort=0)


def test_few_units_hold_several_groups(clip):
    fitted = fit.fit(clip, 2500, effort=0, most_units=1)
    (unit,) = fitted.units
    assert (unit.frames, len(unit.crfs)) == (32, 2)
    assert [is_key for _, is_key in obus.units(unit.data)].count(True) == 2
    assert unit.psnr == pytest.approx(fitted.psnr)


def test_quality(clip):
    best, middle = (fit.at_quality(clip, quality, effort=0) for quality in (10, 5))
    assert (best.crf, middle.crf) == (28, 45.5)
    assert best.size == (48, 64)
    assert best.psnr > middle.psnr + 2
    assert fit.at_quality(clip, 0, effort=0).bytes < middle.bytes


def test_long_clips_are_searched_on_a_sample(clip, monkeypatch, yuv_clip):
    long = yuv_clip(np.concatenate([np.roll(clip.frames, 20 * turn, axis=2) for turn in range(3)]))
    assert groups.lengths(long) == (15, 17) * 3
    monkeypatch.setattr(fit, "_SAMPLE", 15)
    passes = []
    encode = coded.encode_groups

    def counted(clip, lengths, crfs, *rest):
        passes.append(sum(crf is not None for crf in crfs))
        return encode(clip, lengths, crfs, *rest)

    monkeypatch.setattr(coded, "encode_groups", counted)
    fitted = fit.fit(long, 4000, effort=0)
    assert 0.95 * 4000 <= fitted.bytes <= 4000
    assert passes.count(1) + passes.count(6) == len(passes)
    assert passes.count(6) <= 6


def test_finer_groups_fill_what_is_left():
    def group(size, crf):
        return coded.Group(bytes(size), 1, crf)

    coarse, fine = [group(100, 41) for _ in range(3)], [group(size, 40) for size in (130, 104, 109)]
    assert [found.crf for found in fit._mixed(coarse, fine, 315)] == [41, 40, 40]


# ---- the search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("halving", [4.0, 8.0, 14.0])
@pytest.mark.parametrize("most", [90, 3000, 50_000])
def test_search_takes_few_attempts(halving, most):
    attempts = itertools.count()

    def attempt(crf):
        next(attempts)
        return 10_000 * 2 ** ((40 - crf) / halving)

    crf, found = fit.search(attempt, int, most, 50.0)
    if attempt(av1.COARSEST) > most:
        assert (crf, found) == (av1.COARSEST, None)
    elif attempt(0.0) > most:
        assert found <= most
        assert attempt(crf - 0.25) > most or found >= fit.FILLED * most
    else:
        assert crf == 0
    assert next(attempts) <= 9


def test_search_where_the_bytes_leap():
    """At 44 the bytes fall by a factor of 10: what fits is the largest that does."""

    def attempt(crf):
        return (10_000 if crf < 44 else 1000) - crf

    assert fit.search(attempt, int, 5000, 20.0)[0] == 44
    assert fit.search(attempt, int, 5000, 69.0)[0] == 44
