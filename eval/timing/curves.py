"""Bits per time unit of the timing channel against delta, copies and the fixed time of a round. For ``eval.timing``.

There are two laws of run lengths, both with one strength per transition, on the transitions of the talk's example:
binomial (p = .85, .70, .58) and Poisson (mean 6, 2.5, 1.3 bases per time unit). The times are designed anew for each
point.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from helix_jax.timing import capacity, channel, error_capacity, quantizer
from helix_jax.timing.graph import TALK, TimeTable

POISSON = channel.Poisson(
    tuple(tuple({2: 6.0, 3: 2.5, 4: 1.3}[times[-1]] if times else 0.0 for times in row) for row in TALK.times)
)
LAWS = {"binomial": channel.TALK_LAW, "Poisson": POISSON}
LONGEST, LEVELS = 6, 3  # longest time and most levels of a design
AT = {"delta": 0.02, "copies": 5, "overhead": 0.0}  # values of the quantities that a curve does not vary
GRID = {
    "delta": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    "copies": (1, 2, 3, 5, 8, 12),
    "overhead": (0.0, 0.5, 1.0, 2.0, 5.0, 10.0),
}
QUICK = {"delta": (0.005, 0.05), "copies": (3, 5), "overhead": (0.0, 2.0)}
AXES = {"delta": "delta", "copies": "copies", "overhead": "fixed time of a round, time units"}
CURVES = {
    "capacity": ("capacity of the times, levels read without error", "k:"),
    "with_errors": ("capacity with the index errors", "C0-"),
    "achieved": ("theorem, achieved errors", "C1o-"),
    "theorem": ("theorem, delta charged in full", "C2s--"),
    "common": ("one time set for all transitions, achieved errors", "C4^-"),
    "letters": ("letters alone", "C3-"),
}


@dataclass(frozen=True)
class Point:
    """Bits per time unit at one setting, as described in ``CURVES``; NaN if no times keep delta.

    ``times`` is the designed table.
    """

    law: str
    delta: float
    copies: int
    overhead: float
    times: str
    capacity: float
    with_errors: float
    achieved: float
    theorem: float
    common: float
    letters: float


def measure(
    grid: Mapping[str, Sequence[float]], step: Callable[[str, int, int], None] | None = None
) -> dict[str, list[Point]]:
    """Return the points of all curves, law by law, by the quantity that is varied."""
    total = len(LAWS) * sum(map(len, grid.values()))
    out = {}
    for varied, values in grid.items():
        out[varied] = []
        for law, value in itertools.product(LAWS, values):
            out[varied].append(_point(law, **(AT | {varied: value})))
            if step:
                step("curves", 1, total)
    return out


@functools.cache
def _point(name: str, delta: float, copies: int, overhead: float) -> Point:
    law, nan = LAWS[name], float("nan")
    letters = capacity.letters_capacity(TimeTable.uniform((1,)), overhead=overhead)
    common = _common(law, delta, copies, overhead)
    try:
        chosen = quantizer.design(law, copies, delta, LONGEST, LEVELS, overhead=overhead)
    except quantizer.QuantizerError:
        return Point(name, delta, copies, overhead, "none keep delta", nan, nan, nan, nan, common, letters)
    table = chosen.table
    channels = np.zeros((4, 4, table.levels, table.levels))
    for b, a in np.argwhere(table.array().any(axis=2)):
        channels[b, a] = error_capacity.symmetric_channels(table, chosen.decisions[b][a].error)[b, a]
    return Point(
        name, delta, copies, overhead, str(table),
        capacity=capacity.capacity(table, overhead=overhead),
        with_errors=error_capacity.capacity_with_errors(table, channels, overhead=overhead),
        achieved=quantizer.achieved_rate(table, chosen.decisions, overhead=overhead),
        theorem=capacity.theorem_rate(table, delta, overhead=overhead),
        common=common,
        letters=letters,
    )  # fmt: skip


def _common(law: channel.Law, delta: float, copies: int, overhead: float) -> float:
    """Return the precision-resolution baseline: the best times that all transitions share; NaN if none keep delta."""
    sets = (s for n in range(1, LEVELS + 1) for s in itertools.combinations(range(1, LONGEST + 1), n))
    fits = [fit for fit in (_quantizer(law, copies, times) for times in sets) if fit.error <= delta]
    # each is charged with its largest error, as one rule serves all transitions without memory
    return max(
        (capacity.precision_resolution_rate(q.table.times[0][1], q.error, overhead=overhead) for q in fits),
        default=float("nan"),
    )


@functools.cache
def _quantizer(law: channel.Law, copies: int, times: tuple[int, ...]) -> quantizer.Quantizer:
    return quantizer.quantizer(law, TimeTable.uniform(times), copies)


def plot(curves: Mapping[str, Iterable[Point]], folder: Path) -> list[Path]:
    """Draw a PNG file for each varied quantity into ``folder``, and return their paths."""
    out = []
    for varied, points in curves.items():
        figure = Figure(figsize=(11, 5), layout="constrained")
        for axis, law in zip(figure.subplots(1, 2, sharey=True), LAWS, strict=True):
            mine = [p for p in points if p.law == law]
            for curve, (label, style) in CURVES.items():
                axis.plot([getattr(p, varied) for p in mine], [getattr(p, curve) for p in mine], style, label=label)
            fixed = ", ".join(f"{name} {value:g}" for name, value in AT.items() if name != varied)
            axis.set(title=f"{law}; {fixed}", xlabel=AXES[varied])
            if varied == "delta":
                axis.set_xscale("log")
            axis.grid(alpha=0.3)
        figure.axes[0].set_ylabel("bits per time unit")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        out.append(folder / f"timing_{varied}.png")
        figure.savefig(out[-1], dpi=110)
    return out
