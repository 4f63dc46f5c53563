"""helix_jax beside what one would use instead: nucleotides, quality, losses and times, as a page to read.

    python -m eval.report VIDEOS --out FOLDER [--frames 32] [--clips NAME ...] [--half CLIP ...] [--lpips FILE]

What is measured of each clip is in ``eval.report.compare``; how codecs are asked and strands are written in
``eval.report.codecs`` and ``eval.report.writers``. Clips are told apart by whether they are clean
(``eval.clips.load``); --half measures clips at half size too, which counts as clean.

FOLDER gets report.html (everything in one file: tables, plots, pictures, a video of each clip), report.csv (a row for
each clip, method, writer and point), losses.csv, report.md (the tables for a README) and clips/, where each finished
clip is kept. Run again, finished clips are not measured again; results of other settings are refused.
"""

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

from eval import clips, lpips
from eval.report import codecs, compare, page, tables
from helix_jax import parallel
from helix_jax.cli import console
from helix_jax.files import atomic
from helix_jax.prior import weights as prior_weights
from helix_jax.tokenizer import weights

FIRST = ("clip", "source", "frames", "height", "width", "method", "writer", "preset", "scale", "setting")  # of a row
IN_VIDEO = ("original", "helix_jax prior", "H.265")
GAP = 4  # white columns between the pictures of a video


def settings_of(args, nets):
    """What the figures depend on besides the clip: dict of name -> JSON value."""
    found = {
        "frames": args.frames,
        "redundancy": args.redundancy,
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "shares": compare.SHARES,
        "ways": [dataclasses.asdict(way) for way in compare.WAYS],
        "codecs": [dataclasses.asdict(kind) for kind in codecs.CODECS],
        "tokenizer": nets.tokenizer.digest.hex(),
        "prior": nets.prior.digest.hex(),
        "lpips": _digest(args.lpips) if args.lpips else None,
        "PyAV": av.__version__,
    }
    return json.loads(json.dumps(found))


def _digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def finished(folder, path, half, settings):
    """Result of a clip that was measured before, or None. Exits where it was with other settings."""
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


def measure(path, half, args, nets, settings, step):
    """Measure a clip and keep it in args.out/clips: the result, last, as JSON. Returns the result."""
    clip = clips.load(path, args.frames, half)
    figures, pictures, videos = compare.measure(clip, nets, args.redundancy, settings["seeds"], step)
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


def write_video(path, shown, fps):
    """Clips uint8[T, H, W, 3] side by side -> H.264 as browsers play it."""
    gap = np.full((*shown[0].shape[:2], GAP, 3), 255, np.uint8)
    frames = np.concatenate([part for one in shown for part in (one, gap)][:-1], axis=2)
    height, width = (side + side % 2 for side in frames.shape[1:3])
    frames = np.pad(frames, ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "medium", "crf": "20"}
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode())


def table_of(rows):
    """Dicts -> CSV text; the columns are theirs, those of FIRST in front."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def rows_of(results, part):
    """The rows of "points" or "losses", each with what says which clip it is of."""
    about = ("clip", "source", "frames", "height", "width")
    return [{name: result[name] for name in about} | row for result in results for row in result[part]]


def write_report(results, out, settings):
    """All files but clips/ from the results of the clips."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips (.mp4, .y4m)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--frames", type=int, default=32, help="use the first N frames only (0: all; default 32)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="these clips of the folder only")
    parser.add_argument("--half", nargs="+", default=[], metavar="NAME", help="clips to measure at half size too")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights for LPIPS: see eval/lpips.py")
    parser.add_argument("--model", default=weights.DEFAULT, help="tokenizer; default: the shipped one")
    parser.add_argument("--prior", default=prior_weights.DEFAULT, help="prior; default: the shipped one")
    parser.add_argument("--redundancy", type=float, default=0.1, help="repair packets as a share of the source packets")
    parser.add_argument("--seed", type=int, default=0, help="of losses (default 0)")
    parser.add_argument("--seeds", type=int, default=1, help="losses drawn at each share of strands (default 1)")
    args = parser.parse_args()
    parallel.use_all_cores()
    parallel.keep_compiled()
    try:
        nets = compare.Judged(
            weights.load(args.model), prior_weights.load(args.prior), lpips.load(args.lpips) if args.lpips else None
        )
        run(args, nets)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def run(args, nets):
    settings = settings_of(args, nets)
    halved = [(path, True) for path in clips.clips_of(args.folder, args.half)] if args.half else []
    jobs = [(path, False) for path in clips.clips_of(args.folder, args.clips)] + halved
    (args.out / "clips").mkdir(parents=True, exist_ok=True)
    have = [finished(args.out / "clips", *job, settings) for job in jobs]  # refused before anything is measured
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
