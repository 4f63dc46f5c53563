"""What the commands share: exit statuses, one-line error messages, progress bars, and figures as a table or as JSON.

Exit status: 0 the command is done, 1 a check or a clip of a batch failed, 2 wrong use or unreadable input, 3 done with
loss (concealed tokens, a preview, or no sound), 4 the pool cannot be decoded, 70 a fault of helix_jax itself, which
shows its traceback.
"""

import json
import sys
import threading
import time
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from helix_jax import files
from helix_jax.errors import DecodeError, HelixError

if typing.TYPE_CHECKING:  # as in ``options``
    import helix_jax.parallel
    import helix_jax.strands.records

QUIET = 30.0  # seconds after which a command without a terminal says what it does
_UNCUT = 1 << 16  # characters of a line of a table, where there is no terminal
_SLOW = {"tables": " of the constraint set, which take long with primers or motifs, and are kept for the next time"}

CHECK_FAILED, WRONG_USE, WITH_LOSS, UNDECODABLE, FAULT = 1, 2, 3, 4, 70

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the figures as one JSON object instead of a table: on standard output, or on standard error if "
        "-o - uses standard output for the data.",
    ),
]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        metavar="NAME|FILE.json",
        help="With --writer timing: the scheme. talk is the example of the ISIT 2020 talk, for 5 copies of each "
        "strand; poisson is for 20 copies; talk-fast and poisson-fast carry more through the same channels, with "
        "less to spare (talk-fast for pools of a hundred strands or more); or a file that `helix-jax timing design` "
        "wrote.",
    ),
]


class problems:
    """Context manager that turns every foreseen error into one line on standard error and an exit status.

    Any other error passes with its traceback: it is a fault of ours, which ``app.main`` reports.
    """

    def __enter__(self) -> "problems":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if isinstance(error, (RuntimeError, AssertionError)):
            error = _missing_device() or error
        if not isinstance(error, (HelixError, OSError)) or isinstance(error, BrokenPipeError):
            return
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}; check the path"
        warn(" ".join(text.split()))
        raise typer.Exit(UNDECODABLE if isinstance(error, DecodeError) else WRONG_USE) from error


def _missing_device() -> "helix_jax.parallel.DeviceError | None":
    """Return the DeviceError that explains JAX's own error on first touching a device; None if there are devices.

    Any line of a command may be the first that touches the devices, so they are requested again here.
    """
    from helix_jax import parallel

    try:
        parallel.local_devices()
    except parallel.DeviceError as missing:
        return missing


class progress:
    """Context manager with progress bars on standard error.

    Without a terminal, a command that takes longer than QUIET seconds has a line for the station that it is at, and for
    each further one as it begins, for logs. With --json it shows nothing.

    Entering it gives the function ``step(station, done, total)`` that the library reports its progress to.
    """

    def __init__(self, as_json: bool) -> None:
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
        self._begun, self._told = time.monotonic(), False
        self._waiting: threading.Timer | None = None
        if not console.is_terminal and not as_json:
            self._waiting = threading.Timer(QUIET, self._tell_on)
            self._waiting.daemon = True

    def __enter__(self) -> Callable[[str, int, int | None], None]:
        self.bars.start()
        if self._waiting:
            self._waiting.start()
        return self.step

    def __exit__(self, *_: object) -> None:
        self.bars.stop()
        if self._waiting:
            self._waiting.cancel()

    def _tell_on(self) -> None:
        """Name the station that the command is at, and from now on each one that begins."""
        self._tell(list(self.tasks)[-1] if self.tasks else "at work")
        self._told = True

    def _tell(self, station: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._begun), 60)
        warn(f"{minutes}:{seconds:02d} {station}{_SLOW.get(station, '')}")

    def step(self, station: str, done: int, total: int | None) -> None:
        """Advance the bar of a station, which appears with its first step.

        Args:
            station: the name beside the bar.
            done: the number of items done since the last call.
            total: the number of items in all, as far as it is known, or None.
        """
        if station not in self.tasks:
            self.tasks[station] = self.bars.add_task(station, total=total)
            if self._told:
                self._tell(station)
        self.bars.update(self.tasks[station], advance=done, total=total)


def left_out_of(source: "helix_jax.strands.records.Records") -> dict[str, dict[str, int]]:
    """Return as a figure how many records were left out, by reason; {} if none were."""
    return {"left_out": dict(source.left_out)} if source.left_out else {}


def files_of(source: "helix_jax.strands.records.Records") -> dict[str, int | list[str]]:
    """Return as figures how many files were read, where they are several, and those that were passed over, if any."""
    files_passed = list(source.passed_over)
    return ({"files": source.files} if source.files > 1 else {}) | (
        {"passed_over": files_passed} if files_passed else {}
    )


def warn_of_files(source: "helix_jax.strands.records.Records") -> None:
    """Warn of files that were passed over, or are damaged."""
    for reason in source.passed_over.values():
        warn(f"passed over: {reason}")
    for warning in source.warnings:
        warn(warning)


def warn(text: str) -> None:
    """Print one line on standard error."""
    Console(stderr=True, soft_wrap=True).print(f"helix-jax: {text}", markup=False, highlight=False)


def show(figures: Mapping[str, Any], as_json: bool) -> None:
    """Print figures as a table or as one JSON object, on standard error if the command's output uses standard output.

    The figure ``coverage`` is shown as a bar chart of (reads of a cluster, clusters read, clusters not read). What is
    too long for a table is left to JSON.
    """
    to_stderr = figures.get("output") == files.STANDARD
    if as_json:
        print(json.dumps(figures), file=sys.stderr if to_stderr else sys.stdout)
        return
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in figures.items():
        if name in ("coverage", "sections", "by_position", "command", "versions"):
            continue
        if name == "needs":
            value = ", ".join(f"{what} {which}" for what, which in value.items()) or "nothing but the strands"
        elif name == "note" and isinstance(value, dict):
            value = f"{value['name'] or 'without a name'}, {value['size']:,} bytes, SHA-256 {value['sha256']}"
        elif isinstance(value, dict):
            value = ", ".join(f"{count:,} {reason}" for reason, count in value.items()) or "none"
        table.add_row(name.replace("_", " "), escape(str(value)))
    _print(table, to_stderr)
    if figures.get("sections"):
        columns = ("kind", "bytes", "source_strands", "repair_strands")
        rows = [
            tuple(f"{row[name]:,}" if name != "kind" else row[name] for name in columns) for row in figures["sections"]
        ]
        show_rows("sections", [name.replace("_", " ") for name in columns], rows, to_stderr)
    if figures.get("coverage"):
        top = max(read + lost for _, read, lost in figures["coverage"])
        bar = lambda read, lost: "#" * round(40 * read / top) + "." * round(40 * lost / top)  # noqa: E731
        rows = [(str(n), str(read), str(lost), bar(read, lost)) for n, read, lost in figures["coverage"]]
        show_rows("reads of a strand", ("reads", "read", "unread", ""), rows, to_stderr)


def show_rows(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    to_stderr: bool = False,
    whole: Collection[str] = (),
) -> None:
    """Print a table of strings, which are broken over lines where a terminal is too narrow, and never cut.

    Args:
        title: the title above the table.
        columns: names of the columns. All are flush right, but a last column without a name is flush left.
        rows: the cells of each row.
        to_stderr: whether the table goes to standard error.
        whole: the columns that stay on one line, as long as there is another one to break.
    """
    table = Table(title=title, box=None)
    for number, column in enumerate(columns, 1):
        justify = "right" if column or number < len(columns) else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*map(escape, row))
    _print(table, to_stderr)


def _print(table: Table, to_stderr: bool) -> None:
    """Print a table; in a file or a pipe, its lines are as long as they need to be."""
    console = Console(soft_wrap=True, stderr=to_stderr)
    if not console.is_terminal:
        console.width = _UNCUT
    console.print(table)
