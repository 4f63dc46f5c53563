"""What the commands share: exit statuses, errors in one line, progress bars, and figures as a table or as JSON.

Exit status: 0 done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, 3 done with loss
(concealed), 4 cannot be decoded.
"""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

CHECK_FAILED, WRONG_USE, WITH_LOSS, UNDECODABLE = 1, 2, 3, 4

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
    """Turn every foreseen error into one line on standard error and an exit status."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None or not issubclass(kind, (ValueError, OSError)):
            return
        from helix_jax import codec
        from helix_jax.timing import codec as timing_codec

        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}; check the path"
        warn(" ".join(text.split()))
        undecodable = isinstance(error, (codec.DecodeError, timing_codec.DecodeError))
        raise typer.Exit(UNDECODABLE if undecodable else WRONG_USE) from error


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


def read(path):
    """Strands of a FASTA file: see ``strands.fasta.read``."""
    from helix_jax.strands import fasta

    return fasta.read(path)


def read_any(path, *, reads, plot, motifs, primers, key, progress):
    """Strands of a FASTA file, or those found in reads: (strands as ``read`` gives, recover.ReadReport or None).

    reads: take a FASTA file for reads; FASTQ always is. plot: a picture of the reads is asked for. Others: see
    ``recover.recover``. Raises ValueError for a plot of strands.
    """
    from helix_jax.strands import fastq, recover

    if not (reads or fastq.is_fastq(path)):
        if plot:
            raise ValueError(f"--plot {plot}: {path} holds strands, and only reads make a picture; add --reads")
        return read(path), None
    return recover.recover(fastq.read(path), motifs=motifs, primers=primers, key=key, progress=progress)


def warn(text):
    """One line on standard error."""
    Console(stderr=True, soft_wrap=True).print(f"helix-jax: {text}", markup=False, highlight=False)


def show(figures, as_json):
    """Print a dict of figures, as a table or as one JSON object."""
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        if name != "coverage":
            table.add_row(name.replace("_", " "), escape(str(value)))
    Console(soft_wrap=True).print(table)
    if figures.get("coverage"):
        top = max(read + lost for _, read, lost in figures["coverage"])
        bar = lambda read, lost: "#" * round(40 * read / top) + "." * round(40 * lost / top)  # noqa: E731
        rows = [(str(n), str(read), str(lost), bar(read, lost)) for n, read, lost in figures["coverage"]]
        show_rows("reads of a strand", ("reads", "read", "unread", ""), rows)


def show_rows(title, columns, rows):
    """Print a table: columns are names; rows hold strings, the last column flush left where its name is empty."""
    table = Table(title=title, box=None)
    for column in columns[:-1]:
        table.add_column(column, justify="right")
    table.add_column(columns[-1], justify="right" if columns[-1] else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(soft_wrap=True).print(table)
