"""Bjontegaard's differences on curves whose difference is known."""

import numpy as np
import pytest

from eval.bd_rate import bd_quality, bd_rate, front


def points(rates, qualities, preset="", scale=1.0):
    return [
        {"nt_per_pixel": rate, "psnr": quality, "preset": preset, "scale": scale, "other": "kept out"}
        for rate, quality in zip(rates, qualities, strict=True)
    ]


RATES = np.geomspace(0.01, 0.16, 5)


def test_a_curve_at_twice_the_rate():
    anchor = points(RATES, 30 + 3 * np.log2(RATES))
    assert bd_rate(anchor, anchor, "psnr") == pytest.approx(0)
    assert bd_rate(anchor, points(2 * RATES, 30 + 3 * np.log2(RATES)), "psnr") == pytest.approx(100, rel=1e-6)
    assert bd_rate(anchor, points(0.75 * RATES, 30 + 3 * np.log2(RATES)), "psnr") == pytest.approx(-25, rel=1e-6)


def test_only_where_both_have_the_quality():
    """Twice the rate over the lower half, and nowhere else measured; the anchor's upper half does not matter."""
    anchor = points(RATES, [20, 22, 24, 30, 40])
    assert bd_rate(anchor, points(2 * RATES[:3], [20, 22, 24]), "psnr") == pytest.approx(100, abs=5)
    assert bd_rate(anchor, points(RATES, [1, 2, 3, 4, 19.9]), "psnr") is None
    assert bd_rate(anchor, points(RATES, [1, 2, 3, 4, 20.5]), "psnr") is None  # hardly
    assert bd_rate(anchor, points(RATES[:1], [25]), "psnr") is None
    assert bd_rate(anchor, [], "psnr") is None


def test_front_leaves_out_what_is_never_chosen():
    """At 3, where 11 was measured, a CRF between the points at 2 and 4 does better."""
    kept = front(points([1, 2, 3, 4, 2], [10, 12, 11, 13, 11]), "psnr")
    assert [point["nt_per_pixel"] for point in kept] == pytest.approx([1, 2, 3, 4])
    assert [point["psnr"] for point in kept] == pytest.approx([10, 12, 12 + np.log(1.5) / np.log(2), 13])


def test_front_is_the_best_preset_at_every_rate():
    """Two lines that cross: small pictures win at low rates; between points of one line there are others."""
    small = points([1, 4], [20, 22], scale=0.5)
    large = points([2, 8], [18, 30])
    kept = front(small + large, "psnr")
    found = {round(point["nt_per_pixel"], 6): point["psnr"] for point in kept}
    assert found == {1: 20, 2: 21, 4: pytest.approx(24), 8: 30}
    assert front([], "psnr") == []


def test_quality_at_equal_nucleotides():
    """2 dB better at each rate, over the rates that both reach."""
    rates = (0.01, 0.02, 0.04, 0.08)
    anchor = [{"nt_per_pixel": rate, "psnr": 30 + 3 * np.log2(rate / 0.01)} for rate in rates]
    other = [{"nt_per_pixel": 2 * p["nt_per_pixel"], "psnr": p["psnr"] + 5} for p in anchor]
    assert bd_quality(anchor, other, "psnr") == pytest.approx(2)
    assert bd_quality(anchor, anchor, "psnr") == pytest.approx(0)
    far = [{"nt_per_pixel": 100 * p["nt_per_pixel"], "psnr": p["psnr"]} for p in anchor]
    assert bd_quality(anchor, far, "psnr") is None
