"""The figure of docs/timing.md: rounds, copies that lost runs, and what a time unit carries. For ``eval.timing``."""

import os

import jax
import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_jax.timing import capacity, channel, error_capacity, paths, synthesis
from helix_jax.timing.graph import BASES
from helix_jax.timing.scheme import TALK_SCHEME, Scheme

ROUNDS = 14
COLOURS = ("#4c9f70", "#3b6fb6", "#e0a030", "#c8553d")  # A C G T
FADED = "#999999"


def draw(path: str | os.PathLike, seed: int = 20) -> None:
    """Draw the figure into a file, with random data and runs by the seed."""
    key, known = jax.random.key(seed), TALK_SCHEME
    symbols = np.asarray(jax.random.bits(key, (1, paths.coder(known).bits // 8), np.uint8))
    letters, levels = (array[:, :ROUNDS] for array in paths.write(paths.coder(known), symbols))
    pmfs = channel.pmf_table(known.law, known.table)
    runs = np.asarray(synthesis.simulate(key, letters, levels, pmfs, known.copies))[0]
    before = np.append(0, letters[0, :-1])
    times = known.table.array()[before, letters[0], levels[0]]
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(2.2, 1))
    _rounds(top, letters[0], levels[0], times, runs)
    _bars(bottom, known)
    figure.savefig(path, dpi=110)


def _rounds(
    axis: Axes,
    letters: Integer[np.ndarray, " n"],
    levels: Integer[np.ndarray, " n"],
    times: Integer[np.ndarray, " n"],
    runs: Integer[np.ndarray, "copies n"],
) -> None:
    """Draw the writer's rounds along time, and below each of them the runs of all copies."""
    starts = np.cumsum(times) - times
    for letter, level, start, time, column in zip(letters, levels, starts, times, runs.T, strict=True):
        colour, middle = COLOURS[letter], start + time / 2
        axis.barh(0, time, left=start, height=0.7, color=colour, edgecolor="white")
        name = BASES[letter] + ("", "'")[level]
        axis.text(middle, 0, name, ha="center", va="center", color="white", weight="bold")
        for copy, run in enumerate(column, 1):
            lost = run == 0
            axis.text(
                middle, copy + 0.2, "lost" if lost else BASES[letter] * run, ha="center", va="center",
                size=8 if lost else 11, color=FADED if lost else colour,
                family="monospace", style="italic" if lost else "normal",
            )  # fmt: skip
        axis.axvline(start, color=FADED, lw=0.4, zorder=0)
    for copy, row in enumerate(runs, 1):
        read = "".join(BASES[letter] * run for letter, run in zip(letters, row, strict=True))
        axis.text(times.sum() + 0.3, copy + 0.2, read, va="center", family="monospace", size=9)
    axis.text(times.sum() + 0.3, 0, "as read", va="center", size=9, color=FADED)
    copies = [f"copy {n}" for n in range(1, len(runs) + 1)]
    axis.set_yticks([0, *(n + 0.2 for n in range(1, len(runs) + 1))], ["written", *copies])
    axis.set(xlim=(0, times.sum() + 4.5), ylim=(len(runs) + 0.8, -0.6), xlabel="time units")
    axis.set_title("Rounds of the talk's example: a letter, written for a shorter or a longer (') time", size=11)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _bars(axis: Axes, known: Scheme) -> None:
    """Draw how much a time unit can carry, under several rules."""
    table, delta = known.table, known.delta
    values = {
        "letters alone, log2 3": capacity.letters_capacity(table),
        "theorem (ISIT 2020), delta = 0.02": capacity.theorem_rate(table, delta),
        "capacity, levels misread with delta": error_capacity.capacity_with_errors(
            table, error_capacity.symmetric_channels(table, delta)
        ),
        "capacity, levels read without error": capacity.capacity(table),
    }
    bars = axis.barh(list(values), list(values.values()), color=["#bbbbbb", "#e0a030", "#7fa8d8", "#3b6fb6"])
    axis.bar_label(bars, fmt="%.4f", padding=4)
    axis.invert_yaxis()
    axis.set(xlim=(0, 2), xlabel="bits per time unit")
    axis.spines[["top", "right"]].set_visible(False)
