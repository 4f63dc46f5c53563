"""The page of the report: plots, pictures and videos, all inside one HTML file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float64
from matplotlib import ticker
from matplotlib.figure import Figure

from eval.bd_rate import Points, front
from eval.report import codecs, compare, ways, writers
from eval.report.tables import (
    BETTER_LESS,
    GROUPS,
    QUALITIES,
    Results,
    Table,
    curve,
    groups_of,
    qualities_of,
)

OF_OURS = (
    ("#f0a040", "o"), ("#e06030", "s"), ("#c09000", "P"), ("#801080", "*"), ("#b01020", "D"), ("#e060c0", "<"),
    ("#000000", "o"),
)  # fmt: skip
STYLES = {  # ours in warm colours and black, and solid lines
    **{way.name: {"color": color, "marker": marker} for way, (color, marker) in zip(ways.WAYS, OF_OURS, strict=True)},
    codecs.H264.title: {"color": "#80b1d3", "marker": "v", "ls": "--"},
    codecs.H265.title: {"color": "#2070b0", "marker": "^", "ls": "--"},
    codecs.AV1.title: {"color": "#20804a", "marker": "x", "ls": "--"},
    compare.SAFE: {"color": "#2070b0", "marker": "s", "ls": ":"},
}
COLUMNS = 3  # columns of panels
GRID = 30  # number of rates at which clips are averaged

Plot = dict[str, str]


def page(
    results: Results, tables: Sequence[Table], sentences: Sequence[str], settings: dict[str, Any], folder: Path
) -> str:
    """Return the report as HTML text that loads nothing from outside.

    Args:
        results: results of the clips.
        tables: the tables.
        sentences: what the figures say, in words.
        settings: the settings of the run.
        folder: folder with the pictures and videos of the clips.
    """
    plots = [mean_curves(results)]
    plots += [clip_curves(results, key) for key in qualities_of(results)]
    if results[0]["losses"]:
        plots.append(loss_curves(results))
    clips = [
        {
            "name": result["clip"],
            "pictures": [
                {"title": one["title"], "data": inline(folder / one["file"], "image/jpeg")}
                for one in result["pictures"]
            ],
            "in_video": result["in_video"],
            "video": inline(folder / result["video"], "video/mp4"),
        }
        for result in results
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        results=results, tables=tables, sentences=sentences, settings=settings, plots=plots, clips=clips
    )


def inline(path: Path, kind: str) -> str:
    """Return a file as a data URI of this media type."""
    return _uri(path.read_bytes(), kind)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _plot(title: str, note: str, figure: Figure) -> Plot:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return {"title": title, "note": note, "data": _uri(out.getvalue(), "image/png")}


def _front(points: Points, key: str) -> list[dict[str, float]]:
    """Return ``bd_rate.front``, also for LPIPS, of which less is better."""
    if key not in BETTER_LESS:
        return front(points, key)
    return [{**p, key: -p[key]} for p in front([{**p, key: -p[key]} for p in points], key)]


def clip_curves(results: Results, key: str) -> Plot:
    """Plot a quality against nucleotides, with a panel for each clip."""
    columns = min(COLUMNS, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(max(8, 4 * columns), 3.2 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, result in zip(axes, results, strict=False):
        for method, style in STYLES.items():
            points = _front(curve(result, method, writers.OURS.name), key)
            axis.plot(
                [p["nt_per_pixel"] for p in points], [p[key] for p in points], ms=4, lw=1.2, label=method, **style
            )
        axis.set_title(f"{result['clip']} ({result['source']})", fontsize=9)
        _rate_axis(axis, QUALITIES[key][0])
    for axis in axes[len(results) :]:
        axis.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    note = (
        "All written by TK-SCONE. The line of a codec is the best of its presets and sizes, marks are measured points."
    )
    return _plot(f"{QUALITIES[key][0]} of each clip", note, figure)


def _rate_axis(axis, label):
    axis.set(xlabel="nucleotides per pixel", ylabel=label, xscale="log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())  # minor labels would overlap
    axis.grid(alpha=0.3, which="both")


def mean_curves(results: Results) -> Plot:
    """Plot the mean quality against nucleotides, with a row for each measure and a column for each group."""
    groups, keys = groups_of(results), qualities_of(results)
    figure = Figure(figsize=(5.5 * len(groups), 3.8 * len(keys) + 0.5), layout="constrained")
    axes = figure.subplots(len(keys), len(groups), squeeze=False)
    for key, row in zip(keys, axes, strict=True):
        for (group, some), axis in zip(groups.items(), row, strict=True):
            for method, style in STYLES.items():
                rates, means = mean_curve([_front(curve(r, method, writers.OURS.name), key) for r in some], key)
                style = {name: value for name, value in style.items() if name != "marker"}
                axis.plot(rates, means, label=method, **style)
            axis.set_title(f"{GROUPS[group]} ({len(some)})", fontsize=10)
            _rate_axis(axis, QUALITIES[key][0])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    note = (
        "Means over clips at equal nucleotides per pixel, between points in a straight line over the logarithm, where "
        "every clip of the group has a value."
    )
    return _plot("Quality against nucleotides", note, figure)


def mean_curve(fronts: Sequence[Points], key: str) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return rates, and the mean quality of several clips at them; empty if no rate is on the fronts of all clips."""
    if not all(fronts):
        return np.array([]), np.array([])
    low = max(points[0]["nt_per_pixel"] for points in fronts)
    high = min(points[-1]["nt_per_pixel"] for points in fronts)
    if low > high:
        return np.array([]), np.array([])
    rates = np.geomspace(low, high, GRID)
    values = [np.interp(np.log(rates), np.log([p["nt_per_pixel"] for p in f]), [p[key] for p in f]) for f in fronts]
    return rates, np.mean(values, axis=0)


def loss_curves(results: Results) -> Plot:
    """Plot the quality against the share of lost strands, as means over all clips."""
    keys = qualities_of(results)
    figure = Figure(figsize=(5.5 * len(keys), 4.2), layout="constrained")
    rows = [row for result in results for row in result["losses"]]
    shares = sorted({row["share"] for row in rows})
    for key, axis in zip(keys, figure.subplots(1, len(keys), squeeze=False)[0], strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            values = [[r[key] for r in rows if (r["method"], r["share"]) == (method, share)] for share in shares]
            axis.plot([100 * share for share in shares], [np.mean(v) for v in values], label=method, **STYLES[method])
        axis.set(xlabel="strands lost, %", ylabel=QUALITIES[key][0])
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=9)
    note = "Means over all clips, in as many strands (mode prior: fewer); a grey picture where nothing can be shown."
    return _plot("Strands lost", note, figure)
