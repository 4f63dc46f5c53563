"""Compare helix_jax with what one would use instead: nucleotides, quality, losses and times, as a page to read.

    python -m eval.report VIDEOS --out FOLDER [--frames 32] [--clips NAME ...] [--half CLIP ...] [--lpips FILE]
    python -m eval.report VIDEOS --out LONG --seconds 10 --sound 24 --ways "av1, effort 0" "av1, effort 3"

``eval.report.compare`` says what is measured of each clip; ``eval.report.codecs`` and ``eval.report.writers`` say how
the codecs are used and how strands are written. The clips are grouped by whether they are clean (``eval.clips.load``);
--half measures clips at half size too, which counts as clean. --seconds measures so much of those clips that last so
long, and --sound gives them a synthetic voice, as the classic clips are silent. --quick measures curves of few points
and nothing else.

FOLDER gets report.html (everything in one file: tables, plots, pictures, and a video of each clip), report.csv (a row
for each clip, method, writer and point), losses.csv, report.md (the tables for a README) and clips/, where each
finished clip is kept. If the program is run again, finished clips are not measured again; results of other settings are
refused.
"""

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from eval import clips, lpips
from eval.report import codecs, compare, page, tables, ways, writers
from helix_jax import parallel, video
from helix_jax.cli import console
from helix_jax.config import CODED
from helix_jax.files import atomic
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import weights

FIRST = ("clip", "source", "frames", "height", "width", "method", "writer", "preset", "scale", "setting")  # columns
IN_VIDEO = ("original", "helix_jax av1, effort 3", "helix_jax prior", "H.265")
GAP = 4  # white columns between the pictures of a video

Result = dict[str, Any]


def settings_of(args: argparse.Namespace, nets: ways.Judged) -> dict[str, Any]:
    """Return what the figures depend on besides the clip, as JSON values by name."""
    assert nets.prior is not None
    settings = {
        "frames": args.frames,
        "seconds": args.seconds,
        "sound": args.sound,
        "quick": args.quick,
        "redundancy": args.redundancy,
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "shares": compare.SHARES,
        "ways": [dataclasses.asdict(way) for way in ways.chosen(args.ways)],
        "writers": [writer.name for writer in compare.CODERS],
        "codecs": [dataclasses.asdict(kind) for kind in codecs.CODECS],
        "tokenizer": nets.tokenizer.digest.hex(),
        "prior": nets.prior.digest.hex(),
        "lpips": _digest(args.lpips) if args.lpips else None,
        "PyAV": av.__version__,
    }
    return json.loads(json.dumps(settings))


def _digest(path: str | os.PathLike) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def finished(folder: Path, path: Path, half: bool, settings: dict[str, Any]) -> Result | None:
    """Return the result of a clip that was measured before, or None.

    The program exits if the clip was measured with other settings.

    Args:
        folder: folder of the results.
        path: the clip.
        half: whether it is measured at half size.
        settings: the settings of this run.
    """
    kept = folder / f"{clips.name_of(path, half)}.json"
    if not kept.exists():
        return None
    result = json.loads(kept.read_text())
    other = [key for key in settings if result["settings"].get(key) != settings[key]]
    if other:
        sys.exit(
            f"{kept} was measured with other settings ({', '.join(other)}): give another --out, or remove that file to "
            "measure the clip again"
        )
    if result["content"] != _digest(path):
        print(f"{path} has changed: measured again", file=sys.stderr)
        return None
    return result


def measure(
    path: Path,
    half: bool,
    args: argparse.Namespace,
    nets: ways.Judged,
    settings: dict[str, Any],
    step: Callable[[str, int, int], Any],
) -> Result:
    """Measure a clip, write its files to args.out/clips, with the result as JSON last, and return the result.

    Args:
        path: the clip.
        half: whether to measure it at half size.
        args: the program's arguments.
        nets: the nets.
        settings: the settings of this run.
        step: called as step(station, done, total).
    """
    count = args.frames
    if args.seconds:
        count = round(args.seconds * video.open_video(path).info.fps)
    clip = clips.load(path, count, half, args.sound)
    chosen = ways.chosen(args.ways)
    figures, pictures, videos = compare.measure(
        clip, nets, chosen, args.redundancy, settings["seeds"], step, args.quick
    )
    folder = args.out / "clips"
    shown = []
    for number, (title, picture) in enumerate(pictures.items()):
        file = f"{clip.name}-{number}.jpg"
        with atomic(folder / file) as temporary:
            Image.fromarray(picture).save(temporary, "JPEG", quality=90)
        shown.append({"title": title, "file": file})
    beside = [videos[name] for name in IN_VIDEO if name in videos]
    with atomic(folder / f"{clip.name}.mp4") as temporary:
        write_video(temporary, beside, clip.info.fps)
    about = {
        "clip": clip.name, "source": "clean" if clip.clean else "compressed", "frames": clip.info.frames,
        "height": clip.info.height, "width": clip.info.width,
    }  # fmt: skip
    result = {
        "settings": settings, "content": _digest(path), **about, **figures, "pictures": shown,
        "video": f"{clip.name}.mp4", "in_video": [name for name in IN_VIDEO if name in videos],
    }  # fmt: skip
    with atomic(folder / f"{clip.name}.json") as temporary:
        temporary.write_text(json.dumps(result))
    return result


def write_video(path: str | os.PathLike, shown: Sequence[UInt8[np.ndarray, "T H W 3"]], fps: Fraction) -> None:
    """Write clips side by side as H.264 that browsers play.

    Args:
        path: the file to write.
        shown: the clips, of the same height and number of frames.
        fps: the frame rate.
    """
    gap = np.full((*shown[0].shape[:2], GAP, 3), 255, np.uint8)
    frames = np.concatenate([part for clip in shown for part in (clip, gap)][:-1], axis=2)
    height, width = (side + side % 2 for side in frames.shape[1:3])
    frames = np.pad(frames, ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "medium", "crf": "20"}
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode())


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV text; the columns are their keys, those of FIRST first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def rows_of(results: Sequence[Result], part: str) -> list[dict[str, Any]]:
    """Return the rows of a part, "points" or "losses", each with the description of its clip."""
    about = ("clip", "source", "frames", "height", "width")
    return [{name: result[name] for name in about} | row for result in results for row in result[part]]


def write_report(results: Sequence[Result], out: Path, settings: dict[str, Any]) -> None:
    """Write all files except clips/.

    Args:
        results: results of the clips.
        out: the folder to write to.
        settings: the settings of this run.
    """
    made = tables.tables_of(results)
    sentences = tables.sentences(results)
    files = {
        "report.csv": table_of(rows_of(results, "points")),
        "losses.csv": table_of(rows_of(results, "losses")),
        "report.md": tables.markdown(made, sentences),
        "report.html": page.page(results, made, sentences, settings, out / "clips"),
    }
    for name, text in files.items():
        with atomic(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the report")
    parser.add_argument("--frames", type=int, default=32, help="use only the first N frames (0: all; default 32)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument("--half", nargs="+", default=[], metavar="NAME", help="clips to measure at half size too")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights for LPIPS: see eval/lpips.py")
    parser.add_argument("--model", default=weights.DEFAULT, help="weights of the tokenizer (default: the shipped ones)")
    parser.add_argument(
        "--prior", default=prior_weights.DEFAULT, help="weights of the prior (default: the shipped ones)"
    )
    names = ", ".join(repr(way.name.removeprefix("helix_jax ")) for way in ways.WAYS)
    parser.add_argument("--seconds", type=float, default=0, help="use the first N seconds of clips that have so much")
    parser.add_argument("--sound", type=float, default=0, metavar="KBIT", help="give clips a voice of so many kbit/s")
    parser.add_argument("--ways", nargs="+", default=[], metavar="WAY", help=f"use helix_jax so only, some of: {names}")
    parser.add_argument("--quick", action="store_true", help="curves only: thorough presets at full size, few points")
    known = [writer.name for writer in writers.WRITERS]
    parser.add_argument("--writers", nargs="+", default=known, choices=known, help="write the codecs so (default: all)")
    parser.add_argument("--redundancy", type=float, default=CODED, help=f"repair packets for one (default {CODED})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the losses (default 0)")
    parser.add_argument("--seeds", type=int, default=1, help="number of losses drawn at each share (default 1)")
    args = parser.parse_args()
    compare.CODERS = tuple(writer for writer in writers.WRITERS if writer.name in {*args.writers, writers.OURS.name})
    if args.quick:
        codecs.CODECS = tuple(codecs.quick(kind) for kind in codecs.CODECS)
        ways.WAYS = tuple(dataclasses.replace(way, qualities=way.qualities[-3:]) for way in ways.WAYS)
    parallel.use_all_cores()
    parallel.keep_compiled()
    try:
        nets = ways.Judged(
            weights.load(args.model), prior_weights.load(args.prior), lpips.load(args.lpips) if args.lpips else None
        )
        run(args, nets)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def lasts(path: Path, seconds: float) -> bool:
    """Return whether a clip has so many seconds."""
    if not seconds:
        return True
    info = video.open_video(path).info
    return info.frames >= round(seconds * info.fps)


def run(args: argparse.Namespace, nets: ways.Judged) -> None:
    """Measure the clips that are not finished, and write the report."""
    settings = settings_of(args, nets)
    long_enough = [path for path in clips.clips_of(args.folder, args.clips) if lasts(path, args.seconds)]
    halved = [(path, True) for path in clips.clips_of(args.folder, args.half)] if args.half else []
    jobs = [(path, False) for path in long_enough] + halved
    if not jobs:
        raise ValueError(f"no clip of {args.folder} has {args.seconds:g} seconds: give --seconds less")
    (args.out / "clips").mkdir(parents=True, exist_ok=True)
    have = [finished(args.out / "clips", *job, settings) for job in jobs]  # exits before anything is measured
    results, new = [], have.count(None)
    with console.progress(False) as step:
        for job, before in zip(jobs, have, strict=True):
            result = before or measure(
                *job, args, nets, settings, lambda name, done, all_: step(name, done, all_ * new)
            )
            results.append(result)
            step("clips", 1, len(jobs))
    write_report(results, args.out, settings)
    print(f"{len(results)} clips, {len(results) - new} of them measured before: {args.out / 'report.html'}")
