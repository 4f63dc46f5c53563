"""Nucleotides against quality: what dropping and fewer digits cost, in each mode.

    python -m eval.rate VIDEOS [--frames 32] [--clips NAME ...] [--half] [--effort 1 2 3] [--out FOLDER]

Each clip is written at several qualities (`encode --quality`), in mode raw (fewer digits) and in mode prior (first
dropping, then fewer digits), and in mode prior with fewer digits alone, to show what dropping brings. With --effort the
modes raw and prior are also measured with those efforts, at every other quality. The program then prints how many more
or fewer nucleotides each takes than without effort at the same PSNR (BD-rate over the common range of each clip, mean
and range over the clips). Nucleotides are all those of a pool (helix, 150 nt, redundancy 0.1, including header strands,
which cost short clips much). PSNR is that of RGB, averaged over frames. --out writes rate.json and rate.png.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import clips, metrics
from eval.bd_rate import bd_rate
from eval.clips import clips_of
from eval.prior import WIDTH
from helix_jax import parallel
from helix_jax.cli import console
from helix_jax.coding import ladder, modes, search
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import header, layouts
from helix_jax.tk_scone import constraints, tables
from helix_jax.tokenizer import tiles, weights

QUALITIES = (10, 9, 8, 7, 6, 5, 4, 2, 0)
WAYS = {"raw": "raw, fewer digits", "digits": "prior, fewer digits", "prior": "prior, dropping"}

COLOURS = {"raw": "#888888", "digits": "#4477aa", "prior": "#cc3311"}

Points = list[dict[str, Any]]
Results = dict[str, dict[str, Points]]


def rungs_of(way: str, digits: int) -> list[tuple[str, ladder.Rung]]:
    """Return (label, rung) of a way for tokens with so many digits, the best first."""
    if way == "prior":
        rungs = ladder.ladder(digits, True)
        return [(f"quality {quality}", ladder.rung_of(rungs, quality)) for quality in QUALITIES]
    return [(f"{rung.digits} digits", rung) for rung in ladder.ladder(digits, False) if rung.digits > 2]


def curve(
    way: str,
    effort: int,
    clip: clips.Clip,
    positions: Float32[np.ndarray, "t h w k"],
    model: weights.Model,
    prior: prior_weights.Prior,
    table: tables.Tables,
    config: CodecConfig,
) -> Points:
    """Return the points of one clip, [{"label", "nt_per_pixel", "bits_per_token", "psnr", "dropped"}].

    Args:
        way: a key of WAYS.
        effort: 0 to 3.
        clip: the clip.
        positions: positions of its tokens, from ``tiles.encode(positions=True)``.
        model: the tokenizer.
        prior: the prior.
        table: tables of the coder.
        config: configuration of the codec.
    """
    points, original, redundancy = [], clip.frames, config.strands.redundancy
    assert redundancy is not None
    frames, height, width, _ = original.shape
    for label, rung in rungs_of(way, positions.shape[-1])[:: 2 if effort else 1]:
        tokens, dropped = ladder.tokens_at(rung, positions, prior)
        coded = modes.encode(tokens, "raw" if way == "raw" else "prior", prior)
        coded, decoder = search.best(coded, positions, clip, model, prior, effort=effort, damage=rung.damage)
        layout = coded.layout(layouts.planner(table.bits, redundancy))
        strands = layout.packets + header.header_strands(table.bits)
        levels = ladder.whole_tokens(coded.tokens, model.config)
        back = np.concatenate(list(tiles.decode(decoder.params, model.config, levels, frames, height, width)))
        points.append({
            "label": label,
            "nt_per_pixel": strands * config.strands.length / original[..., 0].size,
            "bits_per_token": 8 * coded.content_bytes / tokens[..., 0].size,
            "psnr": float(np.mean(metrics.psnr(original, back))),
            "dropped": dropped,
        })  # fmt: skip
    return points


def means(curves: Sequence[Points]) -> Points:
    """Return the points, averaged over clips."""
    return [
        {"label": points[0]["label"]}
        | {key: float(np.mean([p[key] for p in points])) for key in points[0] if key != "label"}
        for points in zip(*curves, strict=True)
    ]


def title_of(way: str) -> str:
    """Return the title of a way, or of a way with its effort ("raw 2")."""
    return WAYS[way] if way in WAYS else "{}, effort {}".format(*way.split(" "))


def saved(results: Results, way: str) -> list[float]:
    """Return the BD-rate in percent of a way with effort against the same way without, for each clip."""
    plain, percents = results[way.split(" ")[0]], []
    for name, points in results[way].items():
        both = [[point | {"preset": "", "scale": 1} for point in some] for some in (plain[name], points)]
        percent = bd_rate(both[0], both[1], "psnr")
        percents += [] if percent is None else [percent]
    return percents


def show(out: Console, results: Results) -> None:
    """Print a table for each way, and what effort saves."""
    for way in results:
        title = title_of(way)
        table = Table("", "nt/pixel", "bits per token", "PSNR dB", "left to the prior", title=title)
        for point in means(list(results[way].values())):
            table.add_row(
                str(point["label"]), f"{point['nt_per_pixel']:.5f}", f"{point['bits_per_token']:.2f}",
                f"{point['psnr']:.2f}", f"{point['dropped']:.1%}",
            )  # fmt: skip
        out.print(table)
    for way in results:
        if way not in WAYS and (percents := saved(results, way)):
            out.print(
                f"{title_of(way)}: {np.mean(percents):+.1f} % nucleotides at equal PSNR against none "
                f"({min(percents):+.1f} to {max(percents):+.1f} over {len(percents)} clips)"
            )


def draw(path: str | os.PathLike, results: Results) -> None:
    """Draw PSNR against nucleotides per pixel, with a line for the mean of each way, and thin lines for the clips."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for way in results:
        title, searched = title_of(way), way not in WAYS
        colour, line = COLOURS[way.split(" ")[0]], "o:" if searched else "o-"
        for points in results[way].values():
            axis.plot([p["nt_per_pixel"] for p in points], [p["psnr"] for p in points], color=colour, lw=0.6, alpha=0.4)
        points = means(list(results[way].values()))
        axis.plot([p["nt_per_pixel"] for p in points], [p["psnr"] for p in points], line, color=colour, label=title)
    axis.set(xlabel="nucleotides per pixel, everything counted", ylabel="PSNR dB", xscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument("--frames", type=int, default=32, help="use only the first N frames (0: all; default 32)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument("--half", action="store_true", help="use the clips at half size")
    parser.add_argument("--effort", type=int, nargs="+", default=[], choices=(1, 2, 3), help="also with these efforts")
    parser.add_argument("--model", default=weights.DEFAULT, help="weights of the tokenizer (default: the shipped ones)")
    parser.add_argument(
        "--prior", default=prior_weights.DEFAULT, help="weights of the prior (default: the shipped ones)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write rate.json and rate.png into FOLDER")
    args = parser.parse_args()
    parallel.use_all_cores()
    model, prior = weights.load(args.model), prior_weights.load(args.prior)
    config = CodecConfig(strands=StrandConfig(redundancy=0.1))  # the same for all modes
    table = tables.load(constraints.named(config.constraints), config.strands.length)
    paths = clips_of(args.folder, args.clips)
    ways = {way: (way, 0) for way in WAYS} | {
        f"{way} {effort}": (way, effort) for way in ("raw", "prior") for effort in args.effort
    }
    results = {way: {} for way in ways}
    with console.progress(False) as step:
        for path in paths:
            clip = clips.load(path, args.frames, half=args.half)
            size = clip.info.height, clip.info.width
            positions = tiles.encode(model.params, model.config, clip.blocks(), *size, positions=True)
            for name, way in ways.items():
                results[name][path.name] = curve(*way, clip, positions, model, prior, table, config)
                step("curves", 1, len(paths) * len(ways))
    show(Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False), results)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "rate.json").write_text(json.dumps(results, indent=2))
        draw(args.out / "rate.png", results)


if __name__ == "__main__":
    main()
