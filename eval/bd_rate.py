"""Bjontegaard's difference of rates: how many more nucleotides the same quality takes, on average.

Bjontegaard, "Calculation of average PSNR differences between RD-curves" (VCEG-M33, 2001), with monotone cubics (pchip)
for the logarithm of the rate over the quality, by the package of Herglotz et al. Only where both curves have the
quality; nothing is ever extrapolated.
"""

import warnings
from typing import Any

import bjontegaard
import numpy as np

LEAST_OVERLAP = 0.1  # of the span of both ranges: with less, a few hundredths of a dB would speak for the curve


def front(points, key):
    """The best that a method does, by rising nucleotides: [{"nt_per_pixel", key}], both rising.

    points: dicts with "nt_per_pixel", the quality ``key``, of which more is better, and maybe "preset" and "scale".
    Between two points of one preset and scale there are others (of another CRF), taken to lie on a straight line over
    the logarithm of the rate; of presets and scales the best counts at every rate.
    """
    curves = {}
    for point in points:
        curves.setdefault((point.get("preset"), point.get("scale")), []).append((point["nt_per_pixel"], point[key]))
    rates = np.log(sorted({rate for curve in curves.values() for rate, _ in curve}))
    best = np.full(len(rates), -np.inf)
    for curve in curves.values():
        kept = _rising(curve)
        at = np.interp(rates, np.log([rate for rate, _ in kept]), [value for _, value in kept], left=-np.inf)
        best = np.maximum(best, np.where(rates > np.log(kept[-1][0]) + 1e-12, -np.inf, at))
    return [{"nt_per_pixel": rate, key: value} for rate, value in _rising(zip(np.exp(rates), best, strict=True))]


def _rising(curve):
    """The pairs (rate, quality) that no cheaper one equals, by rising rate."""
    kept = []
    for rate, value in sorted(curve, key=lambda pair: (pair[0], -pair[1])):
        if not kept or value > kept[-1][1]:
            kept.append((float(rate), float(value)))
    return kept


def bd_rate(anchor, other, key):
    """How many percent more nucleotides ``other`` takes than ``anchor`` at the same quality; None where their ranges of
    quality overlap by less than LEAST_OVERLAP. Both: points as for ``front``."""
    curves = [front(points, key) for points in (anchor, other)]
    if min(map(len, curves)) < 2:
        return None
    ranges = [(curve[0][key], curve[-1][key]) for curve in curves]
    common = min(high for _, high in ranges) - max(low for low, _ in ranges)
    span = max(high for _, high in ranges) - min(low for low, _ in ranges)
    if common < LEAST_OVERLAP * span:
        return None
    values = [[point[name] for point in curve] for curve in curves for name in ("nt_per_pixel", key)]
    with warnings.catch_warnings(action="ignore"):  # of an overlap below 75 %, which it counts as we do
        percent: Any = bjontegaard.bd_rate(*values, method="pchip", require_matching_points=False)
    return float(percent)
