"""Bjontegaard's differences: nucleotides for the same quality, and quality for the same nucleotides, on average.

Bjontegaard, "Calculation of average PSNR differences between RD-curves" (VCEG-M33, 2001), with monotone cubics (pchip)
for the logarithm of the rate over the quality, by the package of Herglotz et al. Only the qualities that both curves
reach are compared; nothing is ever extrapolated.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import bjontegaard
import numpy as np

# Least overlap, as a share of the span of both ranges. With less, a few hundredths of a dB would decide for the curve.
LEAST_OVERLAP = 0.1

Points = Sequence[Mapping[str, Any]]


def front(points: Points, key: str) -> list[dict[str, float]]:
    """Return the best points of a method, as [{"nt_per_pixel", key}], in which both values rise.

    The points have "nt_per_pixel", the quality ``key``, of which more is better, and optionally "preset" and "scale".
    Between two points of the same preset and scale there are others (with another CRF), which are assumed to lie on a
    straight line over the logarithm of the rate. At each rate the best of the presets and scales counts.
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


def _rising(curve: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the pairs (rate, quality) whose quality no cheaper one reaches, by rising rate."""
    kept = []
    for rate, value in sorted(curve, key=lambda pair: (pair[0], -pair[1])):
        if not kept or value > kept[-1][1]:
            kept.append((float(rate), float(value)))
    return kept


def bd_rate(anchor: Points, other: Points, key: str) -> float | None:
    """Return how many percent more nucleotides ``other`` takes than ``anchor`` at the same quality.

    Args:
        anchor: points as for ``front``.
        other: likewise.
        key: the quality.

    Returns:
        The percentage, or None if their ranges of quality overlap by less than LEAST_OVERLAP.
    """
    curves = [front(points, key) for points in (anchor, other)]
    if not _overlap(curves, lambda point: point[key]):
        return None
    with warnings.catch_warnings(action="ignore"):  # about an overlap below 75 %, which we accept
        percent: Any = bjontegaard.bd_rate(*_values(curves, key), method="pchip", require_matching_points=False)
    return float(percent)


def bd_quality(anchor: Points, other: Points, key: str) -> float | None:
    """Return by how much the quality of ``other`` is better than that of ``anchor`` for the same nucleotides.

    The arguments are those of ``bd_rate``. For PSNR this is the BD-PSNR in dB.

    Returns:
        The difference, or None if the logarithms of their rates overlap by less than LEAST_OVERLAP.
    """
    curves = [front(points, key) for points in (anchor, other)]
    if not _overlap(curves, lambda point: np.log(point["nt_per_pixel"])):
        return None
    with warnings.catch_warnings(action="ignore"):
        difference: Any = bjontegaard.bd_psnr(*_values(curves, key), method="pchip", require_matching_points=False)
    return float(difference)


def _overlap(curves, value):
    """Return whether the ranges of a value of two curves overlap enough."""
    if min(map(len, curves)) < 2:
        return False
    ranges = [(value(curve[0]), value(curve[-1])) for curve in curves]
    common = min(high for _, high in ranges) - max(low for low, _ in ranges)
    return bool(common >= LEAST_OVERLAP * (max(high for _, high in ranges) - min(low for low, _ in ranges)))


def _values(curves, key):
    return [[point[name] for point in curve] for curve in curves for name in ("nt_per_pixel", key)]
