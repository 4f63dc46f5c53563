"""Whole commands as a user runs them: seconds, where they go, and memory.

    python -m eval.commands [--baseline CHECKOUT] [--runs 5] [--only NAME ...] [--clip FILE] [--large BYTES]

Each command is a process of its own. A warm run comes after one that is not counted, and uses the cache that the first
one left; a cold run has an empty cache. All figures are medians. The seconds are divided into the time of Python and
imports until the command line is ready ("start"), the time until the last step of each station (including its
compilation), and the rest. Memory is the peak of the command's own process; the proof of coded tokens has processes of
its own. With --baseline the same runs are made with the helix_jax of another checkout, in turns; otherwise the last
column compares with the start of the bare interpreter.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

import helix_jax

OURS = Path(helix_jax.__file__).parents[1]
FLOWER = OURS / "helix_jax" / "assets" / "flower.mp4"
FRAMES, HEIGHT, WIDTH, RATE = 300, 288, 352, Fraction(30000, 1001)  # 10 s of CIF
BYTES = 20_000_000
COMMANDS = {  # name -> (arguments, seconds that a warm run should take on two cores; None for no target)
    "help": (("--help",), 0.5),
    "version": (("--version",), 0.5),
    "pack-100": (("pack", "100.bin", "-o", "100.fasta", "--json"), None),
    "unpack-100": (("unpack", "100.fasta", "-o", "100.out", "--json"), None),
    "encode": (("encode", "clip.mp4", "-o", "clip.fasta", "--json"), 35),
    "encode-no-verify": (("encode", "clip.mp4", "-o", "other.fasta", "--no-verify", "--json"), None),
    "encode-raw": (("encode", "clip.mp4", "-o", "other.fasta", "--mode", "raw", "--json"), None),
    "encode-prior": (("encode", "clip.mp4", "-o", "other.fasta", "--mode", "prior", "--json"), None),
    "encode-prior-no-verify": (
        ("encode", "clip.mp4", "-o", "other.fasta", "--mode", "prior", "--no-verify", "--json"),
        None,
    ),
    "decode": (("decode", "clip.fasta", "-o", "back.mp4", "--json"), 12),
    "pack-20M": (("pack", "20M.bin", "-o", "20M.fasta", "--json"), None),
    "unpack-20M": (("unpack", "20M.fasta", "-o", "20M.out", "--json"), None),
}
LARGE = {
    "pack-large": (("pack", "large.bin", "-o", "large.fasta", "--json"), None),
    "unpack-large": (("unpack", "large.fasta", "-o", "large.out", "--json"), None),
}
MADE_BY = {"decode": "encode", "unpack-100": "pack-100", "unpack-20M": "pack-20M", "unpack-large": "pack-large"}

# runs the command of the helix_jax that is on the path, and writes when each station made its last step
CHILD = """
import json, sys, time
out, begun = sys.argv[1], float(sys.argv[2])
from helix_jax import cli
try:
    from helix_jax.cli import console
except ImportError:  # an older checkout
    from helix_jax import console
marks = [("start", time.time() - begun)]
plain = console.progress.step
def step(bars, station, done, total):
    now = time.time() - begun
    if marks[-1][0] == station:
        marks.pop()
    marks.append((station, now))
    plain(bars, station, done, total)
console.progress.step = step
sys.argv = ["helix-jax", *sys.argv[3:]]
try:
    cli.main()
finally:
    with open(out, "w") as file:
        json.dump(marks, file)
"""


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        seconds: time from before its process to after it.
        stations: name of a station to its part of these seconds.
        peak: peak of the resident memory in bytes.
    """

    seconds: float
    stations: dict[str, float]
    peak: int


@dataclass(frozen=True)
class Row:
    """The figures of a command.

    Attributes:
        command: name of the command.
        cache: "cold" or "warm".
        seconds: median time.
        least: shortest time.
        most: longest time.
        target: time that the command should take, or None.
        beside: median time of the baseline, or of the bare interpreter.
        peak: peak of the memory over all runs, in bytes.
        stations: seconds of each station, in the run of median time.
    """

    command: str
    cache: str
    seconds: float
    least: float
    most: float
    target: float | None
    beside: float
    peak: int
    stations: dict[str, float]


def run(arguments: Sequence[str], folder: Path, cache: str | os.PathLike, checkout: Path) -> Run:
    """Run helix-jax once.

    Args:
        arguments: its arguments.
        folder: the working folder.
        cache: folder of the user's cache.
        checkout: folder of the package.

    Raises:
        RuntimeError: if the command fails, with its standard error.
    """
    marks, begun = folder / "marks.json", time.time()
    environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", CHILD, str(marks), str(begun), *arguments]
    clock = time.perf_counter()
    with (
        open(folder / "said", "w+") as said,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said) as child,
    ):
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - clock
        said.seek(0)
        if child.returncode:
            raise RuntimeError(f"helix-jax {' '.join(arguments)}: exit status {child.returncode}: {said.read()}")
    stations, before = {}, 0.0
    for name, at in json.loads(marks.read_text()):
        stations[name] = stations.get(name, 0.0) + at - before
        before = at
    stations["rest"] = seconds - before
    return Run(seconds, stations, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def bare() -> float:
    """Return the seconds of ``python -c pass``."""
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - clock


def rows_of(
    name: str,
    arguments: Sequence[str],
    target: float | None,
    folder: Path,
    checkouts: Sequence[Path],
    runs: int,
    cold: bool,
) -> Iterator[Row]:
    """Yield the rows of one command.

    Args:
        name: name of the command.
        arguments: its arguments.
        target: seconds that a warm run should take, or None.
        folder: the working folder.
        checkouts: our checkout and, if there is one, the baseline.
        runs: number of runs.
        cold: whether to measure with an empty cache too.
    """
    for cache in ("cold", "warm") if cold else ("warm",):
        measured = [[] for _ in checkouts]
        for number in range(runs + (cache == "warm")):
            for checkout, done in zip(checkouts, measured, strict=True):
                with tempfile.TemporaryDirectory() as empty:
                    kept = folder / f"cache-{checkouts.index(checkout)}"
                    latest = run(arguments, folder, empty if cache == "cold" else kept, checkout)
                if cache == "cold" or number:
                    done.append(latest)
        middle = sorted(measured[0], key=lambda each: each.seconds)[(runs - 1) // 2]
        seconds = [each.seconds for each in measured[0]]
        others = [each.seconds for each in measured[1]] if len(measured) > 1 else [bare() for _ in range(runs)]
        yield Row(
            name, cache, statistics.median(seconds), min(seconds), max(seconds), target if cache == "warm" else None,
            statistics.median(others), max(each.peak for each in measured[0]), middle.stations,
        )  # fmt: skip


def table(rows: Sequence[Row], baseline: object) -> str:
    """Return the rows as a Markdown table, compared with the baseline if there is one."""
    beside = "baseline s | of baseline" if baseline else "bare Python s | times bare"
    lines = [
        f"| command | cache | s | least to most | target s | {beside} | peak MB | where the seconds go |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        stations = ", ".join(f"{name} {part:.1f}" for name, part in row.stations.items() if part >= 0.05)
        cells = [
            row.command, row.cache, f"{row.seconds:.2f}", f"{row.least:.2f} to {row.most:.2f}", f"{row.target or ''}",
            f"{row.beside:.2f}", f"{row.seconds / row.beside:.2f}", f"{row.peak / 1e6:.0f}", stations,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_clip(path: str | os.PathLike, frames: int = FRAMES) -> None:
    """Write the shipped clip, repeated forwards and backwards and scaled to CIF, with this number of frames."""
    from av.video.frame import VideoFrame

    from helix_jax import video

    once = np.concatenate(list(video.open_video(FLOWER).blocks()))
    scaled = [
        VideoFrame.from_ndarray(rgb, format="rgb24").reformat(WIDTH, HEIGHT, interpolation="BICUBIC").to_ndarray()
        for rgb in once
    ]
    round_trip = scaled + scaled[-2:0:-1]
    with video.VideoWriter(path, video.VideoInfo(frames, HEIGHT, WIDTH, RATE)) as film:
        film.write(np.stack([round_trip[n % len(round_trip)] for n in range(frames)]))


def prepare(folder: Path, names: Sequence[str], clip: Path | None, large: int) -> None:
    """Write the inputs of the commands.

    Args:
        folder: the folder to write to.
        names: names of the commands.
        clip: the clip to encode; None for the shipped one.
        large: size of the large file in bytes; 0 for none.
    """
    generator = np.random.default_rng(0)
    for name, size in (("100", 100), ("20M", BYTES), ("large", large)):
        if size and any(command.endswith(name) for command in names):
            (folder / f"{name}.bin").write_bytes(generator.bytes(size))
    if any(command.startswith(("encode", "decode")) for command in names):
        if clip:
            (folder / "clip.mp4").symlink_to(clip.resolve())
        else:
            write_clip(folder / "clip.mp4")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; ``arguments`` replaces those of the process."""
    known = COMMANDS | LARGE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument(
        "--only", nargs="+", choices=known, metavar="NAME", help=f"only these commands, of {', '.join(known)}"
    )
    parser.add_argument("--no-cold", action="store_true", help="measure with a warm cache only")
    parser.add_argument("--clip", type=Path, help="clip to encode (default: the shipped one, as 10 s of CIF)")
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="compare with the helix_jax of this folder")
    parser.add_argument("--large", type=int, default=0, metavar="BYTES", help="pack and unpack a file of this size too")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    args = parser.parse_args(arguments)
    places = [args.baseline / "helix_jax" / name for name in ("cli/app.py", "cli.py")] if args.baseline else []
    if places and not any(path.is_file() for path in places):
        parser.error(f"--baseline {args.baseline}: no helix_jax/cli there; give the folder of a checkout")
    chosen = args.only or [*COMMANDS, *(LARGE if args.large else ())]
    if not args.large and set(chosen) & set(LARGE):
        parser.error(f"{', '.join(LARGE)}: say how many bytes with --large")
    checkouts = [OURS] + ([args.baseline.resolve()] if args.baseline else [])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, chosen, args.clip, args.large)
        for command in chosen:
            maker = MADE_BY.get(command)
            if maker and maker not in chosen:
                run(known[maker][0], folder, folder / "cache-0", OURS)
            rows += rows_of(command, *known[command], folder, checkouts, args.runs, not args.no_cold)
    print(f"Medians of {args.runs} runs on {os.cpu_count()} cores; clip: {args.clip or 'flower.mp4 in CIF, 10 s'}\n")
    print(table(rows, args.baseline))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
