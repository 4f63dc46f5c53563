"""Pictures of what became of a sequencer's reads: coverage, strands and errors."""

import dataclasses
import io
import os
import typing

import numpy as np

from helix_jax import files

if typing.TYPE_CHECKING:  # as in ``options``
    import matplotlib.axes

    import helix_jax.reads.recover
    import helix_jax.strands.received

KINDS = ("substitutions", "insertions", "deletions")


def draw(
    path: str | os.PathLike, report: "helix_jax.reads.recover.ReadReport", found: "helix_jax.strands.received.Report"
) -> None:
    """Write the picture as a PNG file, completely or not at all.

    Args:
        path: the file to write.
        report: what became of the reads.
        found: what became of the strands of the same pool.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(13, 3.4), layout="constrained")
        coverage, strands, errors = figure.subplots(1, 3, width_ratios=(3, 2, 2))
        _coverage(coverage, report)
        _strands(strands, report, found)
        _errors(errors, report)
        with files.atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def drawings(
    report: "helix_jax.reads.recover.ReadReport", found: "helix_jax.strands.received.Report | None"
) -> dict[str, str]:
    """Return the pictures as SVG, by what they show, as far as there is something to show.

    Args:
        report: what became of the reads.
        found: what became of the strands of the same pool; None where no strand is known.
    """
    shown = {}
    if report.coverage:
        shown["Coverage"] = _svg(_coverage, report)
    if found is not None:
        shown["Strands"] = _svg(_strands, report, found)
    if report.by_position:
        shown["Errors by kind"] = _svg(_errors, report)
        shown["Errors along the strand"] = _svg(_positions, report)
    return shown


def _svg(panel: typing.Callable[..., None], *reports: typing.Any) -> str:
    """Draw one panel, and return it as an SVG element without anything that is not drawn."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    out = io.StringIO()
    # The same figures give the same bytes; letters stay letters.
    with rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": panel.__name__}):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        panel(figure.subplots(), *reports)
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    return text[text.index("<svg") :]


def _coverage(axes: "matplotlib.axes.Axes", report: typing.Any) -> None:
    numbers, read, unread = np.array(report.coverage, int).reshape(-1, 3).T
    axes.bar(numbers, read, color="tab:green", label="strand found")
    axes.bar(numbers, unread, bottom=read, color="tab:red", label="no strand found")
    axes.set(xlabel="reads of a cluster", ylabel="clusters", title=f"{report.reads:,} reads")
    axes.legend()


def _strands(axes: "matplotlib.axes.Axes", report: typing.Any, found: typing.Any) -> None:
    missing = found.packets - found.packets_received
    bars = {
        "read at once": (report.at_once, "tab:green"),
        "repaired": (report.repaired, "tab:olive"),
        "missing or left out": (missing, "tab:orange"),
        "lost past repair": (found.lost_packets, "tab:red"),
    }
    drawn = axes.barh(list(bars), [n for n, _ in bars.values()], color=[color for _, color in bars.values()])
    axes.bar_label(drawn, padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(title=f"strands; {found.source_packets:,} of {found.packets:,} packets are needed")


def _errors(axes: "matplotlib.axes.Axes", report: typing.Any) -> None:
    kinds = {kind: 100 * getattr(report, kind) for kind in KINDS}
    axes.bar(list(kinds), list(kinds.values()), color="tab:blue")
    axes.set(ylabel="% of bases", title=f"errors of the reads: {sum(kinds.values()):.2f} %")


def _positions(axes: "matplotlib.axes.Axes", report: typing.Any) -> None:
    rates = 100 * np.array(report.by_position)
    for kind, row, colour in zip(KINDS, rates.T, ("tab:blue", "tab:orange", "tab:purple"), strict=True):
        axes.plot(np.arange(1, len(rates) + 1), row, color=colour, label=kind, linewidth=1)
    axes.set(xlabel="base of the strand", ylabel="% of the reads", title="errors along the strand, as written")
    axes.set_ylim(bottom=0)
    axes.legend()


def merged(
    found: "helix_jax.strands.received.Report",
    about_reads: "helix_jax.reads.recover.ReadReport | None" = None,
    plot: str | os.PathLike | None = None,
) -> dict[str, typing.Any]:
    """Merge the reports of strands and reads into one dict of figures, and draw them if requested.

    Args:
        found: what became of the strands.
        about_reads: what became of the reads; None for a file of strands.
        plot: where to draw the picture; None for nowhere.
    """
    # Whether it is the pool that was meant is a warning, and no figure.
    of_strands = {name: value for name, value in dataclasses.asdict(found).items() if name != "as_stated"}
    if about_reads is None:
        return of_strands
    if plot:
        draw(plot, about_reads, found)
    return dataclasses.asdict(about_reads) | of_strands | ({"plot": str(plot)} if plot else {})
