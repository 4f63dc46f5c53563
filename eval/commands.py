"""Whole commands as a user runs them: seconds, where they go, and memory.

    python -m eval.commands [--baseline CHECKOUT] [--runs 5] [--only NAME ...] [--clip FILE] [--large BYTES]

Each command is a process of its own. Warm: after one run that is not counted, with all that it left in the cache. Cold:
with an empty cache. Figures are medians. Where the seconds go: Python and imports until the command line stands
("start"), then what passes until the last step of each station (its compilation included), then the rest. Memory is
the most that the command's own process held; the proof of coded tokens has processes of its own. With --baseline the
same runs are made with the helix_jax of another checkout, in turns; otherwise the last column compares with the start
of the bare interpreter.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

import helix_jax

OURS = Path(helix_jax.__file__).parents[1]
FLOWER = OURS / "helix_jax" / "assets" / "flower.mp4"
FRAMES, HEIGHT, WIDTH, RATE = 300, 288, 352, Fraction(30000, 1001)  # 10 s of CIF
BYTES = 20_000_000
COMMANDS = {  # name -> (arguments, seconds that a warm run should take on two cores; None: no aim)
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

# runs the command of whichever helix_jax is on the path, and writes when each station made its last step
CHILD = """
import json, sys, time
out, begun = sys.argv[1], float(sys.argv[2])
from helix_jax import cli, console
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
    """One run of a command. seconds: from before its process to after it. stations: name -> share of them in seconds.
    peak: most resident bytes."""

    seconds: float
    stations: dict[str, float]
    peak: int


@dataclass(frozen=True)
class Row:
    """Medians of a command. cache: "cold" or "warm". beside: median of the baseline, or of the bare interpreter."""

    command: str
    cache: str
    seconds: float
    least: float
    most: float
    target: float | None
    beside: float
    peak: int
    stations: dict[str, float]


def run(arguments, folder, cache, checkout):
    """One Run of helix-jax with these arguments, in ``folder``, with the package of ``checkout``.
    Raises RuntimeError with what it said where it fails."""
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


def bare():
    """Seconds of ``python -c pass``."""
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - clock


def rows_of(name, arguments, target, folder, checkouts, runs, cold):
    """Rows of one command: warm, and cold where asked for. checkouts: ours and, if there is one, the baseline."""
    for cache in ("cold", "warm") if cold else ("warm",):
        found = [[] for _ in checkouts]
        for number in range(runs + (cache == "warm")):
            for checkout, done in zip(checkouts, found, strict=True):
                with tempfile.TemporaryDirectory() as empty:
                    kept = folder / f"cache-{checkouts.index(checkout)}"
                    one = run(arguments, folder, empty if cache == "cold" else kept, checkout)
                if cache == "cold" or number:
                    done.append(one)
        middle = sorted(found[0], key=lambda one: one.seconds)[(runs - 1) // 2]
        seconds = [one.seconds for one in found[0]]
        others = [one.seconds for one in found[1]] if len(found) > 1 else [bare() for _ in range(runs)]
        yield Row(
            name, cache, statistics.median(seconds), min(seconds), max(seconds), target if cache == "warm" else None,
            statistics.median(others), max(one.peak for one in found[0]), middle.stations,
        )  # fmt: skip


def table(rows, baseline):
    """Rows -> Markdown."""
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


def write_clip(path, frames=FRAMES):
    """The shipped clip, forwards and backwards again and again, scaled to CIF."""
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


def prepare(folder, names, clip, large):
    """Write the inputs of these commands."""
    generator = np.random.default_rng(0)
    for name, size in (("100", 100), ("20M", BYTES), ("large", large)):
        if size and any(one.endswith(name) for one in names):
            (folder / f"{name}.bin").write_bytes(generator.bytes(size))
    if any(one.startswith(("encode", "decode")) for one in names):
        if clip:
            (folder / "clip.mp4").symlink_to(clip.resolve())
        else:
            write_clip(folder / "clip.mp4")


def main(arguments=None):
    known = COMMANDS | LARGE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--no-cold", action="store_true", help="with a warm cache only")
    parser.add_argument("--clip", type=Path, help="clip to encode; default: the shipped one, scaled to 10 s of CIF")
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="compare with the helix_jax of this folder")
    parser.add_argument("--large", type=int, default=0, metavar="BYTES", help="pack and unpack so many bytes too")
    parser.add_argument("--json", metavar="FILE", help="write the same figures to FILE")
    args = parser.parse_args(arguments)
    if args.baseline and not (args.baseline / "helix_jax" / "cli.py").is_file():
        parser.error(f"--baseline {args.baseline}: no helix_jax/cli.py there; give the folder of a checkout")
    chosen = args.only or [*COMMANDS, *(LARGE if args.large else ())]
    if not args.large and set(chosen) & set(LARGE):
        parser.error(f"{', '.join(LARGE)}: say how many bytes with --large")
    checkouts = [OURS] + ([args.baseline.resolve()] if args.baseline else [])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, chosen, args.clip, args.large)
        for one in chosen:
            maker = MADE_BY.get(one)
            if maker and maker not in chosen:
                run(known[maker][0], folder, folder / "cache-0", OURS)
            rows += rows_of(one, *known[one], folder, checkouts, args.runs, not args.no_cold)
    print(f"Medians of {args.runs} runs on {os.cpu_count()} cores; clip: {args.clip or 'flower.mp4 in CIF, 10 s'}\n")
    print(table(rows, args.baseline))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
