"""Picture metrics against closed forms and scikit-image, and the evaluations on a tiny clip."""

import json
import sys

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from eval import metrics
from eval import mixing as mixing_eval
from eval import quality as quality_eval
from helix_jax.tokenizer import weights


def smooth(frames=2, height=64, width=96):
    t, y, x = np.mgrid[:frames, :height, :width]
    waves = [128 + 60 * np.sin((x + c * y + 5 * t) / (9 + c)) + 30 * np.cos(y / 5) for c in range(3)]
    return np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8)


def noisy(clip, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, clip.shape)
    return (clip + noise).round().clip(0, 255).astype(np.uint8)


# ---- metrics -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 10, 255])
def test_psnr_of_a_constant_difference(step):
    black = np.zeros((3, 8, 8, 3), np.uint8)
    assert metrics.psnr(black, black + np.uint8(step)) == pytest.approx(20 * np.log10(255 / step))


def test_psnr_is_the_mean_over_frames():
    """Not the PSNR of the mean error."""
    black = np.zeros((2, 8, 8, 3), np.uint8)
    other = black.copy()
    other[0] += 1
    other[1] += 10
    assert metrics.psnr(black, other) == pytest.approx((20 * np.log10(255) + 20 * np.log10(25.5)) / 2)
    assert metrics.psnr(black, black) == pytest.approx(100)


def test_ms_ssim_of_equal_clips_is_one():
    for shape in ((2, 200, 180), (1, 64, 96), (1, 16, 24), (1, 11, 11)):
        assert metrics.ms_ssim(smooth(*shape), smooth(*shape)) == pytest.approx(1, abs=1e-6)


def test_metrics_fall_with_noise():
    clip = smooth()
    for metric in (metrics.psnr, metrics.ms_ssim):
        values = [metric(clip, noisy(clip, sigma)) for sigma in (1, 4, 12, 40)]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 4
    assert 0 <= values[-1] < values[0] <= 1


def test_one_scale_is_plain_ssim():
    """A picture too small for a second scale: the SSIM of Wang et al. 2004 on the luma."""
    clip = smooth(1, 20, 40)
    other = noisy(clip, 10)
    luma = [picture[0] @ metrics.LUMA for picture in (clip, other)]
    expected = structural_similarity(
        *luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.ms_ssim(clip, other) == pytest.approx(expected, abs=1e-9)


def test_contrast_structure_ignores_the_mean():
    """At every scale but the coarsest: a brighter picture loses by its luminance once, not five times."""
    clip = smooth(1, 200, 200) // 2 + np.uint8(60)
    a = clip[0] @ metrics.LUMA
    assert metrics._contrast_structure(a, a + 30) == pytest.approx(1, abs=1e-3)
    assert structural_similarity(a, a + 30, **metrics._GAUSSIAN) < 0.99
    # by hand: 2 cov + c over var + var + c, with the Gaussian window left to scikit-image
    b = a + np.random.default_rng(0).normal(0, 15, a.shape)
    plain = structural_similarity(a, b, full=True, **metrics._GAUSSIAN)[1]
    assert metrics._contrast_structure(a, b) == pytest.approx(plain[5:-5, 5:-5].mean(), abs=0.02)


# ---- evaluations ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def devices_stay(monkeypatch):
    """The modules ask for one device per core; a test session has eight."""
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)


def test_quality(tmp_path, make_clip, weights_file, monkeypatch, capsys):
    make_clip(tmp_path / "a.mp4", 9, 24, 40)
    make_clip(tmp_path / "b.mp4", 5, 16, 16)
    (tmp_path / "notes.txt").write_text("not a clip")
    out = tmp_path / "figures.json"
    arguments = [str(tmp_path), "--model", str(weights_file), "--frames", "8", "--digits", "8", "2", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments])
    quality_eval.main()
    figures = json.loads(out.read_text())
    assert {(f["clip"], f["digits"]) for f in figures} == {(c, d) for c in ("a.mp4", "b.mp4") for d in (8, 2)}
    for f in figures:
        assert np.isfinite(f["psnr"])
        assert 0 <= f["ms_ssim"] <= 1
    # 8 frames of 24x40 are 2 x 3 x 5 tokens, 2 bits a digit
    assert next(f for f in figures if f["clip"] == "a.mp4" and f["digits"] == 8)["bits_per_pixel"] == pytest.approx(
        2 * 8 * 30 / (8 * 24 * 40)
    )
    printed = capsys.readouterr().out
    assert printed.count("mean") == 2
    assert "a.mp4" in printed


def test_mixing(tmp_path, make_clip, weights_file, monkeypatch, capsys):
    make_clip(tmp_path / "a.mp4", 16, 64, 72)
    monkeypatch.setattr(weights, "DEFAULT", weights_file)
    monkeypatch.setattr(weights.load, "__defaults__", (weights_file,))
    monkeypatch.setattr(sys, "argv", ["mixing", str(tmp_path / "a.mp4"), "--json", str(tmp_path / "figures.json")])
    mixing_eval.main()
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert len(rows) == 8
    assert len({(r["interleave"], r["kronecker"], r["offset"]) for r in rows}) == 8
    for row in rows:
        assert 0 <= row["runs"] <= 1
        assert 0 <= row["windows"] <= 1
        if not row["kronecker"]:
            assert row["damaged_digits"] == row["damaged_tokens"] == 1
        else:
            assert row["damaged_digits"] > 1
    with_offset, without = ([r["windows"] for r in rows if r["offset"] is on] for on in (True, False))
    assert max(with_offset) < max(without)
    scattered, together = ([r["touching"] for r in rows if r["interleave"] is on] for on in (True, False))
    assert max(scattered) < min(together)
    assert "mixing on a.mp4, 288 tokens" in capsys.readouterr().out
