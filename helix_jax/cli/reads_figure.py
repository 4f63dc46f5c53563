"""A picture of what became of a sequencer's reads: coverage, strands and errors."""

import dataclasses
import os
import typing

import numpy as np

from helix_jax import files

if typing.TYPE_CHECKING:  # as in ``options``
    import helix_jax.reads.recover
    import helix_jax.strands.received


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
        numbers, read, unread = np.array(report.coverage, int).reshape(-1, 3).T
        coverage.bar(numbers, read, color="tab:green", label="strand found")
        coverage.bar(numbers, unread, bottom=read, color="tab:red", label="no strand found")
        coverage.set(xlabel="reads of a cluster", ylabel="clusters", title=f"{report.reads:,} reads")
        coverage.legend()
        missing = found.packets - found.packets_received
        bars = {
            "read at once": (report.at_once, "tab:green"),
            "repaired": (report.repaired, "tab:olive"),
            "missing": (missing, "tab:orange"),
            "lost past repair": (found.lost_packets, "tab:red"),
        }
        strands.barh(list(bars), [n for n, _ in bars.values()], color=[color for _, color in bars.values()])
        strands.bar_label(strands.containers[0], padding=3)
        strands.margins(x=0.15)
        strands.invert_yaxis()
        strands.set(title=f"strands; {found.source_packets:,} of {found.packets:,} packets are needed")
        kinds = {kind: 100 * getattr(report, kind) for kind in ("substitutions", "insertions", "deletions")}
        errors.bar(list(kinds), list(kinds.values()), color="tab:blue")
        errors.set(ylabel="% of bases", title=f"errors of the reads: {sum(kinds.values()):.2f} %")
        with files.atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def merged(
    found: "helix_jax.strands.received.Report",
    about_reads: "helix_jax.reads.recover.ReadReport | None",
    plot: str | os.PathLike | None,
) -> dict[str, typing.Any]:
    """Merge the reports of strands and reads into one dict of figures, and draw them if requested.

    Args:
        found: what became of the strands.
        about_reads: what became of the reads; None for a file of strands.
        plot: where to draw the picture; None for nowhere.
    """
    if about_reads is None:
        return dataclasses.asdict(found)
    if plot:
        draw(plot, about_reads, found)
    return dataclasses.asdict(about_reads) | dataclasses.asdict(found) | ({"plot": str(plot)} if plot else {})
