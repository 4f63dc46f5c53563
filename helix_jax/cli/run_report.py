"""The page about a run of `decode` or `unpack`: one HTML file with text, tables and pictures, which needs nothing else.

It is written also where decoding fails, with what is known by then.
"""

import datetime
import html
import platform
import shlex
import sys
import time
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import helix_jax
from helix_jax import files
from helix_jax.cli import reads_figure
from helix_jax.errors import DecodeError

if typing.TYPE_CHECKING:  # as in ``options``
    from helix_jax.reads.recover import ReadReport
    from helix_jax.writer import Report

REST = "the rest"  # the stage of what happens after the last step that is reported
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 62rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.good, .loss, .bad { padding: .6rem .9rem; border-left: .4rem solid; overflow-wrap: anywhere }
.good { border-color: #2a8a3e; background: #edf7ee } .loss { border-color: #c77700; background: #fdf4e3 }
.bad { border-color: #c22; background: #fdeeee }
table { border-collapse: collapse; width: 100%; max-width: 40rem }
td { padding: .2rem .5rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; vertical-align: top }
td + td { text-align: right } code { overflow-wrap: anywhere }
figure { margin: 0 } .pictures { display: grid; gap: 1rem }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)) }
svg { width: 100%; height: auto }
"""


class Run:
    """A run as it goes on, and its page at the end; a context manager.

    Attributes:
        path: The page; None where none is asked for.
        reads: What became of the reads, once it is known.
        found: What became of the strands, once it is known.
        whole: Whether everything came back that a command warns of otherwise.
        figures: All figures, once the run is done.
        seconds: The time that passed before each step, summed up by stations.
    """

    def __init__(self, path: Path | None, step: Callable[[str, int, int | None], None]) -> None:
        self.path, self._step, self._last = path, step, time.perf_counter()
        self.reads: ReadReport | None = None
        self.found: Any = None
        self.whole = True
        self.figures: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Write the page, unless the command was used wrongly or something else went wrong."""
        if isinstance(error, DecodeError):
            self._take(error.report)
            self._passed(REST)
        elif error is not None:
            return
        if self.path is not None:
            with files.atomic(self.path) as temporary:
                temporary.write_text(page(self, str(error or "")), encoding="utf-8")

    def step(self, station: str, done: int, total: int | None) -> None:
        """Take the time, and report the step on (``console.progress.step``)."""
        self._passed(station)
        self._step(station, done, total)

    def done(self, figures: Mapping[str, Any], found: Any, whole: bool = True) -> dict[str, Any]:
        """Return the figures with those of the run itself: advice, seconds, command and versions.

        Args:
            figures: The figures.
            found: What became of the strands.
            whole: Whether the exit status is 0.
        """
        self.found, self.whole = found, whole
        self._passed(REST)
        said = advice(self.reads, found, whole)
        self.figures = dict(figures) | ({"advice": said} if said else {})
        self.figures |= {"seconds": {name: round(spent, 2) for name, spent in self.seconds.items()}}
        self.figures |= {"command": command(), "versions": versions()}
        return self.figures

    def _passed(self, station):
        now = time.perf_counter()
        self.seconds[station] = self.seconds.get(station, 0.0) + now - self._last
        self._last = now

    def _take(self, report):
        """Keep what is known of a run that failed."""
        from helix_jax.reads.recover import ReadReport
        from helix_jax.writer import Report

        if isinstance(report, ReadReport):
            self.reads = report
        elif isinstance(report, Report):
            self.found = report


def command() -> str:
    """Return the command line of this process."""
    return shlex.join(["helix-jax", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Return the versions of what decides about figures and speed, and the devices."""
    import jax
    import numpy as np

    devices = [device.device_kind for device in jax.local_devices()]
    return {
        "helix_jax": helix_jax.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "devices": ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices)),
    }


def advice(reads: "ReadReport | None", found: "Report | None", whole: bool) -> str:
    """Return what to do next time, or now.

    The text is empty where nothing is known of reads, and where nothing came back of strands that are known: the error
    says then what would help.

    Args:
        reads: What became of the reads.
        found: What became of the strands, if anything came back.
        whole: Whether it came back without loss.
    """
    from helix_jax.reads import enough

    if reads is None or not reads.reads:
        return ""
    if not reads.strand_length:
        mean = (reads.reads - reads.unusable) / max(reads.clusters, 1)
        return (
            f"No header could be read, so it is not known how many strands are missing. There are {reads.clusters:,} "
            f"clusters of {mean:.1f} reads on average, and strands need 3 to 6 reads at 5 % errors."
        )
    estimate = enough.Estimate(reads.enough_reads, reads.gone)
    if found is None:
        return ""
    if not whole:
        said = estimate.remedy(reads.reads)
        return f"{said[0].upper()}{said[1:]}."
    if reads.reads_left:
        return f"{reads.reads:,} of {reads.reads + reads.reads_left:,} reads were enough; the others were left."
    if reads.more_reads:
        return f"This was narrow: about {reads.more_reads:,} more reads would make another such run safe."
    if estimate.reads is None:
        return ""
    return f"About {min(estimate.reads, reads.reads):,} of the {reads.reads:,} reads would have been enough."


# ---- the page ----------------------------------------------------------------------------------------------------


def page(run: Run, error: str = "") -> str:
    """Return the page of a run; ``error`` is the message where it failed."""
    reads, found = run.reads, run.found
    lossy = ("It came back", "good") if run.whole else ("It came back with loss", "loss")
    state, kind = ("It failed", "bad") if error else lossy
    said = [f"{state}." if not error else f"{state}: {error}", advice(reads, None if error else found, run.whole)]
    parts = [
        f"<h1>helix-jax: {state[0].lower()}{state[1:]}</h1>",
        f'<div class="{kind}">{"<br>".join(html.escape(text) for text in said if text)}</div>',
    ]
    if reads is not None:
        parts.append(_section("Reads", _table(_fates(reads))))
        drawn = reads_figure.drawings(reads, found).items()
        pictures = "".join(f'<figure role="img" aria-label="{title}">{svg}</figure>' for title, svg in drawn)
        parts.append(f'<div class="pictures">{pictures}</div>')
        if reads.by_position:
            errors = [(name, f"{100 * getattr(reads, name):.3f} %") for name in reads_figure.KINDS]
            parts.append(_section("Errors per base of the reads", _table(errors)))
    if reads is not None or found is not None:
        parts.append(_section("Strands", _table(_strands(reads, found))))
    if found is not None:
        parts.append(_section("Lost past repair", _table(_losses(found))))
    parts.append(_section("Seconds", _table([*((name, f"{spent:.2f}") for name, spent in run.seconds.items()),
                                             ("together", f"{sum(run.seconds.values()):.2f}")])))  # fmt: skip
    facts = [("written", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")), *versions().items()]
    parts.append(_section("Run", f"<p><code>{html.escape(command())}</code></p>" + _table(facts)))
    if reads is not None and reads.coverage:
        rows = [(f"{n:,}", f"{read:,} read, {lost:,} unread") for n, read, lost in reads.coverage]
        parts.append(f"<details><summary>Clusters by their reads</summary>{_table(rows)}</details>")
    every = run.figures.items()
    plain = [(name.replace("_", " "), value) for name, value in every if isinstance(value, str | int | float)]
    if plain:
        parts.append(f"<details><summary>All figures</summary>{_table(plain)}</details>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>helix-jax: {state.lower()}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _fates(reads: "ReadReport") -> Iterable[tuple[str, Any]]:
    """Yield the rows of the table of reads, which sum up to all of them."""
    yield "used: they gave a strand", reads.used_reads
    yield "duplicates: further clusters of the same strands", reads.duplicate_reads
    yield "unread: their clusters gave no strand", reads.unread_reads
    for reason, count in reads.left_out.items():
        yield f"unusable: {reason}", count
    other = reads.unusable - sum(reads.left_out.values())
    if other > 0:
        yield "unusable for other reasons", other
    yield "all reads", reads.reads
    if reads.reads_left:
        yield "reads left beside them, as they were enough", reads.reads_left
    if reads.without_quality:
        yield "of them without real qualities", reads.without_quality


def _strands(reads: "ReadReport | None", found: "Report | None") -> Iterable[tuple[str, Any]]:
    """Yield the rows of the table of strands."""
    if reads is not None:
        yield "clusters of reads", reads.clusters
        yield "strands whose most likely reading was right", reads.at_once
        yield "strands of which a later reading was right", reads.repaired
        yield "clusters that gave no strand", reads.unread
        yield "bases of a strand, without primers", reads.strand_length or "unknown"
    if found is not None:
        yield "packets that the pool numbers", found.packets
        yield "packets that came back", found.packets_received
        yield "erasures: packets that did not, or were never written", found.packets - found.packets_received
        yield "packets that are needed", found.source_packets
        yield "source packets computed by the outer code", getattr(found, "repaired_packets", 0)
        yield "packets found to be wrong", getattr(found, "rejected", 0)
    if reads is not None and reads.strand_length:
        yield "reads that would be enough (estimate)", "unknown" if reads.enough_reads is None else reads.enough_reads


def _losses(found: "Report") -> Iterable[tuple[str, Any]]:
    """Yield the rows of the table of losses."""
    yield "source packets lost", found.lost_packets
    yield "everything matches its digest", "yes" if found.verified else "no"
    if found.lost_tokens:
        yield "tokens guessed", f"{found.lost_tokens:.2%}"
    if found.lost_update:
        yield "decoder's update lost", f"{found.lost_update:.2%}"
    if found.lost_sound:
        yield "sound", "lost"
    for name, stretches in (("preview shown", found.preview_seconds), ("nothing left", found.missing_seconds)):
        for begin, end in stretches:
            yield f"{name}, seconds", f"{begin:.2f} to {end:.2f}"


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    """Return rows of (name, value) as a table; whole numbers get separators."""
    cells = ((name, f"{value:,}" if type(value) is int else str(value)) for name, value in rows)
    return f"<table>{''.join(f'<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>' for a, b in cells)}</table>"
