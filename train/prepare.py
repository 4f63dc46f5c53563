"""Cut videos into shards of training pieces: python -m train.prepare VIDEOS... --out SHARDS

Each video is decoded once, one frame at a time, whatever its length. A hard cut starts a new scene. A scene is divided
into stretches of --frames frames, and each stretch gives --pieces crops of --size x --size pixels at random positions,
every other one at half size (means of 2 x 2 pixels). Nothing is lost silently: still stretches, and clips that are
broken, too small or too short, are listed with their reasons in SHARDS/summary.json and in the table at the end. A clip
that breaks half way keeps the frames before. A piece is smaller where its scene or its video is, but never smaller than
--smallest, so that training crops of that size always fit.

The same videos, options and seed give the same records, whatever --workers is. A file MANIFEST.csv (columns file,
licence, source) beside the videos gives their licences. Frames are those that the encoder is given: turned as the
metadata say, and with what is transparent over black.
"""

import argparse
import concurrent.futures
import concurrent.futures.process
import csv
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from helix_jax.video import SUFFIXES
from train import shards
from train.cutting import Cutting, Report, cut


class Stopped(Exception):
    """The parent process has asked the workers to stop."""


Clips = Sequence[tuple[str, Path]]


def _write_shard(
    path: Path, clips: Clips, cutting: Cutting, tick: Callable[[bool], Any]
) -> tuple[dict[str, Any] | None, list[Report]]:
    """Cut clips into one shard.

    Args:
        path: the file to write.
        clips: names and files of the clips.
        cutting: what to cut.
        tick: called often as tick(done), with True when a clip is done.

    Returns:
        The entry of the index, or None without any piece, and a report for each clip.
    """
    reports = []

    def pieces():
        for name, video in clips:
            reports.append(Report(name))
            for piece in cut(video, name, cutting, reports[-1]):
                tick(False)
                yield piece
            tick(True)

    entry = shards.write(path, pieces())
    return entry, reports


_shared: Any = None  # in a worker process: (number of finished clips, event that ends the work)


def _start_worker(done: Any, stop: Any) -> None:
    global _shared
    _shared = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets the event


def _in_worker(path: Path, clips: Clips, cutting: Cutting) -> tuple[dict[str, Any] | None, list[Report]]:
    assert _shared, "set by _start_worker"
    done, stop = _shared

    def tick(finished):
        if stop.is_set():
            raise Stopped
        if finished:
            with done.get_lock():
                done.value += 1

    return _write_shard(path, clips, cutting, tick)


def _write_all(
    jobs: Sequence[tuple[Path, Clips]], cutting: Cutting, workers: int, bar: tqdm
) -> list[tuple[dict[str, Any] | None, list[Report]]]:
    """Run the jobs (path, clips), and return their results in order."""
    if workers == 1:  # in this process, which saves the start-up and needs no __main__ guard
        return [_write_shard(path, clips, cutting, bar.update) for path, clips in jobs]
    context = multiprocessing.get_context("spawn")  # forking a process with JAX's threads may deadlock
    done, stop = context.Value("i", 0), context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(done, stop)
    ) as pool:
        try:
            futures = [pool.submit(_in_worker, path, clips, cutting) for path, clips in jobs]
            waiting = set(futures)
            while waiting:
                finished, waiting = concurrent.futures.wait(waiting, 0.2, concurrent.futures.FIRST_EXCEPTION)
                for future in finished:
                    future.result()  # raises an error of the worker at once
                bar.update(done.value - bar.n)
            return [future.result() for future in futures]
        except concurrent.futures.process.BrokenProcessPool as error:
            raise OSError("a worker process died, perhaps out of memory; try again with fewer --workers") from error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def find(videos: Iterable[str | os.PathLike], exclude: Sequence[str] = ()) -> dict[str, Path]:
    """Return the videos among files and folders by name, sorted; a name is the path within the folder.

    Folders are searched with all subfolders; ``exclude`` has prefixes of file names to leave out. Raises ValueError if
    a path does not exist, if there is no video, or if two have the same name.
    """
    found = {}
    for given in map(Path, videos):
        if given.is_dir():
            paths = [path for path in given.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        elif given.is_file():
            paths = [given]
        else:
            raise ValueError(f"{given}: no such file or folder")
        for path in paths:
            name = path.relative_to(given if given.is_dir() else given.parent).as_posix()
            if path.name.startswith(tuple(exclude)):
                continue
            if name in found and not found[name].samefile(path):
                raise ValueError(f"{found[name]} and {path} have the same name; give the folder that holds both")
            found[name] = path
    if not found:
        raise ValueError(
            f"no video in {', '.join(map(str, videos))} (looked for {' '.join(SUFFIXES)}"
            f"{'; without ' + ', '.join(exclude) if exclude else ''})"
        )
    return dict(sorted(found.items()))


def _manifest(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Return {file: (licence, source)} from the MANIFEST.csv of a folder; empty without one."""
    path = folder / "MANIFEST.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as lines:
        rows = list(csv.DictReader(lines))
    return {row["file"]: (row.get("licence") or None, row.get("source") or None) for row in rows if row.get("file")}


def _summary(
    reports: Sequence[Report], found: dict[str, Path], files: Sequence[dict[str, Any]], cutting: Cutting
) -> dict[str, Any]:
    """Return the content of summary.json.

    It has totals, licences {name: {"clips", "seconds"}}, and for each clip a dict of its report, licence and source.
    Clips without a piece are counted in ``dropped`` only.
    """
    manifests = {folder: _manifest(folder) for folder in {path.parent for path in found.values()}}
    clips: list[dict[str, Any]] = []
    licences: dict[str, dict[str, Any]] = {}
    for report in reports:
        path = found[report.clip]
        licence, source = manifests[path.parent].get(path.name, (None, None))
        clips.append({**asdict(report), "licence": licence, "source": source})
        if report.pieces:
            share = licences.setdefault(licence or "not stated", {"clips": 0, "seconds": 0.0})
            share["clips"] += 1
            share["seconds"] += report.seconds
    kept = [report for report in reports if report.pieces]
    totals = {name: sum(getattr(r, name) for r in kept) for name in ("frames", "seconds", "scenes", "pieces", "bytes")}
    still, short = (sum(getattr(r, name) for r in reports) for name in ("still", "short"))
    return {
        "clips": len(kept), "dropped": len(reports) - len(kept), "broken": sum(bool(r.broken) for r in reports),
        **totals, "still": still, "short": short, "disk": sum(entry["bytes"] for entry in files), "files": len(files),
        "cutting": asdict(cutting), "licences": licences, "each": clips,
    }  # fmt: skip


def table(summary: dict[str, Any]) -> str:
    """Return the summary as text."""
    gib = summary["disk"] / 2**30
    lines = [
        f"clips    {summary['clips']:>9,} used, {summary['dropped']:,} dropped, {summary['broken']:,} broken",
        f"seconds  {summary['seconds']:>9,.0f} ({summary['frames']:,} frames)",
        f"scenes   {summary['scenes']:>9,}",
        f"left out {summary['still']:>9,} frames where nothing moves, {summary['short']:,} of scenes too short",
        f"pieces   {summary['pieces']:>9,} in {summary['files']} files, {gib:,.2f} GiB",
        "licences",
    ]
    by_clips = sorted(summary["licences"].items(), key=lambda item: (-item[1]["clips"], item[0]))
    lines += [f"  {share['clips']:>6,} clips {share['seconds']:>8,.0f} s  {name}" for name, share in by_clips]
    for clip in summary["each"]:
        if clip["dropped"]:
            lines.append(f"dropped {clip['clip']}: {clip['dropped']}")
        elif clip["broken"]:
            lines.append(f"kept in part {clip['clip']}: {clip['broken']}")
    return "\n".join(lines)


def _fingerprint(found: dict[str, Path]) -> str:
    """Return a hash of the names and sizes of the videos, which is enough to notice that a folder has changed."""
    text = json.dumps([[name, path.stat().st_size] for name, path in found.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepare(
    videos: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    frames: int = 32,
    size: int = 128,
    smallest: Sequence[int] | None = None,
    pieces: int = 4,
    files: int = 16,
    workers: int | None = None,
    seed: int = 0,
    exclude: Sequence[str] = (),
) -> dict[str, Any]:
    """Cut videos into a folder of shards, print the table, and return the summary.

    The folder appears when it is complete. If it exists already, made from the same videos with the same options,
    nothing is done.

    Args:
        videos: files and folders.
        out: the folder to write.
        frames: frames of a piece.
        size: height and width of a piece, in pixels.
        smallest: (frames, size) of the smallest piece; None for half of each.
        pieces: number of pieces from each stretch of ``frames`` frames.
        files: number of shards; there is at most one for each video.
        workers: number of processes; None for one on each core, and 1 for this process.
        seed: seed of the positions of the pieces.
        exclude: prefixes of file names to leave out.

    Raises:
        ValueError: if there are no videos, no piece in any of them, or an option is out of range; as ShardError if
            ``out`` is something else.
        OSError: if ``out`` cannot be written.
    """
    least, smallest_size = smallest or (frames // 2, size // 2)
    for name, value in (("pieces", pieces), ("shards", files), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be 1 or more")
    if not (1 <= least <= frames and 8 <= smallest_size <= size):
        raise ValueError(
            f"--frames {frames} --size {size} --smallest {least} {smallest_size}: the smallest piece must have 1 to "
            f"--frames frames, and 8 to --size pixels a side"
        )
    if seed < 0:
        raise ValueError(f"--seed {seed}: must be 0 or more")
    found = find(videos, exclude)
    cutting = Cutting(frames, size, (least, smallest_size), pieces, seed)
    files = min(files, len(found))
    settings = {**asdict(cutting), "smallest": [least, smallest_size], "shards": files, "videos": _fingerprint(found)}
    out = Path(out)
    if out.exists():
        _check_same(out, settings)
        print(f"{out}: there already, from the same videos with the same options")
        return json.loads((out / "summary.json").read_text())
    clips = list(found.items())
    workers = min(workers or os.cpu_count() or 1, files)
    with shards.staging(out) as folder, tqdm(total=len(clips), desc="cutting videos", unit="clip", disable=None) as bar:
        # the shard of a clip depends on the names only, and so do the records
        jobs = [(folder / f"pieces-{number:05}.arrayrecord", clips[number::files]) for number in range(files)]
        results = _write_all(jobs, cutting, workers, bar)
        reports = sorted((report for _, reports in results for report in reports), key=lambda report: report.clip)
        entries = [entry for entry, _ in results if entry]
        if not entries:
            reasons = "; ".join(f"{report.clip}: {report.dropped}" for report in reports[:5])
            raise ValueError(f"no piece in any of {len(reports)} videos ({reasons}{'; ...' * (len(reports) > 5)})")
        summary = _summary(reports, found, entries, cutting)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        shards.write_index(folder, settings=settings, files=entries)
    print(table(summary))
    return summary


def _check_same(out: Path, settings: dict[str, Any]) -> None:
    """Raise ShardError unless ``out`` is a complete folder of shards with these settings."""
    try:
        old = shards.read_index(out)["settings"]
    except shards.ShardError as error:
        raise shards.ShardError(f"{out} is there and no finished folder of shards; choose another --out") from error
    changes = [f"{name} {old.get(name)}, not {value}" for name, value in settings.items() if old.get(name) != value]
    if changes:
        raise shards.ShardError(
            f"{out} is there, made with other videos or options ({'; '.join(changes)}); "
            f"choose another --out, or delete it"
        )


# ---- command line --------------------------------------------------------------------------


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A piece of 32 frames of 128x128 takes 1.5 MiB: with 4 pieces, about 12 MiB for each 2 seconds.\n\n"
        "example:\n  python -m train.prepare videos/ --out shards/ --pieces 6 --exclude holiday_",
    )  # fmt: skip
    parser.add_argument("videos", nargs="+", metavar="VIDEOS", help="video files, or folders that are searched")
    parser.add_argument("--out", required=True, metavar="SHARDS", help="folder to make; it appears when it is complete")
    parser.add_argument("--frames", type=int, default=32, metavar="N", help="frames of a piece (%(default)s)")
    parser.add_argument(
        "--size", type=int, default=128, metavar="N", help="height and width of a piece in pixels (%(default)s)"
    )
    parser.add_argument(
        "--smallest",
        type=int,
        nargs=2,
        metavar=("FRAMES", "SIZE"),
        help="the same of the smallest piece (half of them)",
    )
    parser.add_argument("--pieces", type=int, default=4, metavar="N", help="pieces from each stretch (%(default)s)")
    parser.add_argument("--shards", type=int, default=16, metavar="N", help="number of shard files (%(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (one on each core)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the positions of the pieces (%(default)s)"
    )
    parser.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        metavar="PREFIX",
        help="leave out files whose name starts so",
    )
    args = parser.parse_args()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished files are removed
    try:
        prepare(
            args.videos, args.out, frames=args.frames, size=args.size, smallest=args.smallest, pieces=args.pieces,
            files=args.shards, workers=args.workers, seed=args.seed, exclude=args.exclude,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        logging.error("stopped; nothing is left of it")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
