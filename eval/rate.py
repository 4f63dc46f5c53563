"""Nucleotides against quality: what dropping and fewer digits cost, in each mode.

    python -m eval.rate VIDEOS [--frames 32] [--clips NAME ...] [--out FOLDER]

Each clip is written at several qualities (`encode --quality`), in mode raw (fewer digits) and in mode prior (dropping
first, then fewer digits); beside them mode prior with fewer digits alone, to show what dropping brings. Nucleotides are
all of a pool's (helix, 150 nt, redundancy 0.1, header strands included); short clips pay much for those. PSNR of RGB,
mean over frames. With --out rate.json and rate.png.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import metrics
from eval.clips import clips_of, frames_of
from eval.prior import WIDTH
from helix_jax import coding, console, parallel, rate, video, weights
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import header
from helix_jax.tk_scone import constraints, tables
from helix_jax.tokenizer import tiles

QUALITIES = (10, 9, 8, 7, 6, 5, 4, 2, 0)
WAYS = {"raw": "raw, fewer digits", "digits": "prior, fewer digits", "prior": "prior, dropping"}

COLOURS = {"raw": "#888888", "digits": "#4477aa", "prior": "#cc3311"}


def rungs_of(way, digits):
    """(label, rate.Rung) of a way, best first."""
    if way == "prior":
        rungs = rate.ladder(digits, True)
        return [(f"quality {quality}", rate.rung_of(rungs, quality)) for quality in QUALITIES]
    return [(f"{rung.digits} digits", rung) for rung in rate.ladder(digits, False) if rung.digits > 2]


def curve(way, original, positions, model, prior, table, config):
    """Points of one clip: [{"label", "nt_per_pixel", "bits_per_token", "psnr", "dropped"}].

    original: uint8[T, H, W, 3]. positions: of its tokens, ``tiles.encode(positions=True)``. table: tables.Tables.
    """
    points = []
    frames, height, width, _ = original.shape
    for label, rung in rungs_of(way, positions.shape[-1]):
        tokens, dropped = rate.tokens_at(rung, positions, prior)
        coded = coding.encode(tokens, "raw" if way == "raw" else "prior", prior)
        layout = coded.layout(table.bits, config.strands.redundancy)
        strands = layout.packets + header.header_strands(table.bits)
        levels = rate.whole_tokens(tokens, model.config.digits)
        back = np.concatenate(list(tiles.decode(model.params, model.config, levels, frames, height, width)))
        points.append({
            "label": label,
            "nt_per_pixel": strands * config.strands.length / original[..., 0].size,
            "bits_per_token": 8 * coded.content_bytes / tokens[..., 0].size,
            "psnr": float(np.mean(metrics.psnr(original, back))),
            "dropped": dropped,
        })  # fmt: skip
    return points


def means(curves):
    """Points averaged over clips."""
    return [
        {"label": points[0]["label"]}
        | {key: float(np.mean([p[key] for p in points])) for key in points[0] if key != "label"}
        for points in zip(*curves, strict=True)
    ]


def show(out, results):
    for way, title in WAYS.items():
        table = Table("", "nt/pixel", "bits per token", "PSNR dB", "left to the prior", title=title)
        for point in means(list(results[way].values())):
            table.add_row(
                str(point["label"]), f"{point['nt_per_pixel']:.5f}", f"{point['bits_per_token']:.2f}",
                f"{point['psnr']:.2f}", f"{point['dropped']:.1%}",
            )  # fmt: skip
        out.print(table)


def draw(path, results):
    """PSNR against nucleotides per pixel, a line for each way: the mean, and thin ones for the clips."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for way, title in WAYS.items():
        colour = COLOURS[way]
        for points in results[way].values():
            axis.plot([p["nt_per_pixel"] for p in points], [p["psnr"] for p in points], color=colour, lw=0.6, alpha=0.4)
        points = means(list(results[way].values()))
        axis.plot([p["nt_per_pixel"] for p in points], [p["psnr"] for p in points], "o-", color=colour, label=title)
    axis.set(xlabel="nucleotides per pixel, everything counted", ylabel="PSNR dB", xscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips (.mp4, .y4m)")
    parser.add_argument("--frames", type=int, default=32, help="use the first N frames only (0: all; default 32)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="these clips of the folder only")
    parser.add_argument("--model", default=weights.DEFAULT, help="tokenizer; default: the shipped one")
    parser.add_argument("--prior", default=prior_weights.DEFAULT, help="prior; default: the shipped one")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write rate.json and rate.png into FOLDER")
    args = parser.parse_args()
    parallel.use_all_cores()
    model, prior = weights.load(args.model), prior_weights.load(args.prior)
    config = CodecConfig(strands=StrandConfig(redundancy=0.1))  # the same for all modes
    table = tables.load(constraints.named(config.constraints), config.strands.length)
    paths = clips_of(args.folder, args.clips)
    results = {way: {} for way in WAYS}
    with console.progress(False) as step:
        for path in paths:
            original = frames_of(video.open_video(path), args.frames)
            positions = tiles.encode(model.params, model.config, [original], *original.shape[1:3], positions=True)
            for way in WAYS:
                results[way][path.name] = curve(way, original, positions, model, prior, table, config)
                step("curves", 1, len(paths) * len(WAYS))
    show(Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False), results)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "rate.json").write_text(json.dumps(results, indent=2))
        draw(args.out / "rate.png", results)


if __name__ == "__main__":
    main()
