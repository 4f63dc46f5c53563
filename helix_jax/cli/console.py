"""What the commands share: exit statuses, errors in one line, progress bars, and figures as a table or as JSON.

Exit status: 0 done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, 3 done with loss
(concealed), 4 cannot be decoded, 70 a fault of helix_jax itself, which shows its traceback.
"""

import contextlib
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from helix_jax import files
from helix_jax.errors import DecodeError, HelixError

CHECK_FAILED, WRONG_USE, WITH_LOSS, UNDECODABLE, FAULT = 1, 2, 3, 4, 70

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output instead of a table.")]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        metavar="NAME|FILE.json",
        help="Timing scheme: talk (the example of the ISIT 2020 talk, 5 copies), poisson (20 copies), "
        "or a file of `timing design`.",
    ),
]


class problems:
    """Turn every foreseen error into one line on standard error and an exit status. Any other passes, traceback and
    all: it is a fault of ours (``cli.main``)."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, (RuntimeError, AssertionError)):
            error = _missing_device() or error
        if not isinstance(error, (HelixError, OSError)) or isinstance(error, BrokenPipeError):
            return
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}; check the path"
        warn(" ".join(text.split()))
        raise typer.Exit(UNDECODABLE if isinstance(error, DecodeError) else WRONG_USE) from error


def _missing_device():
    """The parallel.DeviceError that JAX's own error on first touching a device stands for, or None: there are devices.

    Which line of a command touches them first is chance, so they are asked for again here.
    """
    from helix_jax import parallel

    try:
        parallel.local_devices()
    except parallel.DeviceError as missing:
        return missing


class progress:
    """Progress bars on standard error while it is a terminal, else nothing. Enters as step(station, done, total)."""

    def __init__(self, as_json):
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal or as_json)
        self.tasks = {}

    def __enter__(self):
        self.bars.start()
        return self.step

    def __exit__(self, *_):
        self.bars.stop()

    def step(self, station, done, total):
        """done: how many more are done now."""
        if station not in self.tasks:
            self.tasks[station] = self.bars.add_task(station, total=total)
        self.bars.update(self.tasks[station], advance=done, total=total)


@contextlib.contextmanager
def strands_of(path, *, reads, plot, motifs, primers, primers_exempt, key, progress):
    """Context manager: (strands as ``codec.decode`` takes them, what is to be said of reads) of a FASTA or FASTQ file.

    The second is a recover.ReadReport, or None for a file of strands. reads: take a FASTA file for reads; FASTQ always
    is. plot: a picture of the reads is asked for. Others: see ``recover.recover``. Raises HelixError for a plot of
    strands.
    """
    from helix_jax.reads import fastq
    from helix_jax.strands import fasta, records

    with records.opened(path, again=not reads) as source:
        if not reads and source.kind != "fastq":
            if plot:
                raise HelixError(
                    f"--plot {plot}: {source.name} holds strands, and only reads make a picture; add --reads"
                )
            yield fasta.Strands(source), None
            return
        from helix_jax.reads import recover

        try:
            found = recover.recover(
                fastq.chunks(source), motifs=motifs, primers=primers, primers_exempt=primers_exempt, key=key,
                left_out=source.left_out, progress=progress,
            )  # fmt: skip
        except DecodeError as error:
            if not source.second or "merge" in str(error):
                raise
            raise DecodeError(
                f"{error}; {source.second:,} of them are the second read of a pair by name: merge the two reads of "
                "each pair first, for example with fastp --merge or bbmerge"
            ) from error
        yield found


def left_out_of(strands):
    """Figures of the records of ``fasta.Strands`` that are no strands, {} where there are none."""
    left_out = getattr(strands, "left_out", None)
    return {"left_out": dict(left_out)} if left_out else {}


def warn(text):
    """One line on standard error."""
    Console(stderr=True, soft_wrap=True).print(f"helix-jax: {text}", markup=False, highlight=False)


def show(figures, as_json):
    """Print a dict of figures, as a table or as one JSON object; on standard error where the output goes to standard
    output."""
    to_stderr = figures.get("output") == files.STANDARD
    if as_json:
        print(json.dumps(figures), file=sys.stderr if to_stderr else sys.stdout)
        return
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count:,} {reason}" for reason, count in value.items()) or "none"
        if name != "coverage":
            table.add_row(name.replace("_", " "), escape(str(value)))
    Console(soft_wrap=True, stderr=to_stderr).print(table)
    if figures.get("coverage"):
        top = max(read + lost for _, read, lost in figures["coverage"])
        bar = lambda read, lost: "#" * round(40 * read / top) + "." * round(40 * lost / top)  # noqa: E731
        rows = [(str(n), str(read), str(lost), bar(read, lost)) for n, read, lost in figures["coverage"]]
        show_rows("reads of a strand", ("reads", "read", "unread", ""), rows, to_stderr)


def show_rows(title, columns, rows, to_stderr=False):
    """Print a table: columns are names; rows hold strings, the last column flush left where its name is empty."""
    table = Table(title=title, box=None)
    for column in columns[:-1]:
        table.add_column(column, justify="right")
    table.add_column(columns[-1], justify="right" if columns[-1] else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(soft_wrap=True, stderr=to_stderr).print(table)
