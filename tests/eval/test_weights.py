"""Pairs of weights compared: what is compared, and that the program says it."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest

from eval import clips
from eval import weights as weights_eval


def test_the_middle_of_a_clip():
    frames = np.arange(2 * 6 * 9 * 3, dtype=np.uint8).reshape(2, 6, 9, 3)
    clip = clips.Clip("a", frames, Fraction(25), clean=True)
    small = weights_eval.middle(clip, 4, 20)  # wider than the clip
    np.testing.assert_array_equal(small.frames, frames[:, 1:5])
    assert (small.name, small.clean, small.info.height, small.info.width) == ("a", True, 4, 9)


def test_differences_are_at_equal_quality():
    """Of each clip; one whose qualities do not overlap has none."""
    plain = [{"nt_per_pixel": rate, "psnr": psnr} for rate, psnr in ((0.02, 25.0), (0.01, 23.0), (0.005, 21.0))]
    better = [point | {"nt_per_pixel": 0.9 * point["nt_per_pixel"]} for point in plain]
    far = [point | {"psnr": point["psnr"] + 9} for point in plain]
    found = weights_eval.against({"a": plain, "b": plain}, {"a": better, "b": far})
    assert found == {"a": pytest.approx(-10), "b": None}


@pytest.mark.slow
def test_command(tmp_path, make_clip, weights_file, prior_file, monkeypatch, capsys):
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)  # a test session has eight devices
    make_clip(tmp_path / "a.mp4", 12, 32, 48)
    pair, out = ("--nets", weights_file, prior_file), tmp_path / "points.json"
    options = (*pair, "--frames", 12, "--middle", 24, 32, "--every", 8, "--out", out)
    monkeypatch.setattr(sys, "argv", ["weights", *map(str, (tmp_path, *options))])
    weights_eval.main()
    assert "8 digits, 0" in capsys.readouterr().out
    (points,) = json.loads(out.read_text()).values()
    whole, *others = points["a.mp4"]
    assert [point["label"] for point in others] == ["8 digits, 4,000", "4 digits, 16,000"]
    assert whole["nt_per_pixel"] * 12 * 24 * 32 == pytest.approx(whole["bits_per_token"] * 3 * 3 * 4 / 1.9145, rel=1e-3)
    assert all(point["nt_per_pixel"] < whole["nt_per_pixel"] for point in others)
