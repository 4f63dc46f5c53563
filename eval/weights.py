"""Compare pairs of weights: nucleotides of mode prior against the PSNR, along the ladder of qualities.

    python -m eval.weights VIDEOS --clips NAME ... --nets old.safetensors old_prior.safetensors \\
        --nets new.safetensors new_prior.safetensors [--frames 32] [--half] [--middle 144 176] [--out FILE]

Each clip is written at all qualities with each pair of nets. Nucleotides per pixel are the bytes of the real coder
divided by the capacity of the constraint set `helix`; index, check and repair packets, which are alike for all, are
left out. PSNR is that of RGB, averaged over frames. The program prints the means over the clips at each quality, and
how many more nucleotides each pair takes at the same PSNR than the first one (BD-rate over the common range of each
clip). --out writes the points as JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from eval import clips, metrics
from eval.bd_rate import bd_rate
from eval.prior import WIDTH
from eval.rate import means
from helix_jax import nets, parallel
from helix_jax.cli import console
from helix_jax.coding import ladder, modes
from helix_jax.tk_scone import capacity, constraints
from helix_jax.tokenizer import tiles

Points = list[dict[str, Any]]


def middle(clip: clips.Clip, height: int, width: int) -> clips.Clip:
    """Return the middle of a clip, which is as large as the clip or smaller."""
    top, left = (max(0, (have - some) // 2) for have, some in zip(clip.frames.shape[1:3], (height, width), strict=True))
    frames = clip.frames[:, top : top + height, left : left + width]
    return clips.Clip(clip.name, np.ascontiguousarray(frames), clip.info.fps, clip.clean)


def curve(clip: clips.Clip, pair: nets.Nets, rungs: Sequence[ladder.Rung], unit: float) -> Points:
    """Return the points of one clip, [{"label", "nt_per_pixel", "bits_per_token", "psnr"}], one for each rung.

    Args:
        clip: the clip.
        pair: the nets.
        rungs: rungs of the ladder.
        unit: bits per nucleotide.
    """
    model, prior, points = pair.tokenizer, pair.prior, []
    frames, height, width, _ = clip.frames.shape
    positions = tiles.encode(model.params, model.config, [clip.frames], height, width, positions=True)
    for rung in rungs:
        tokens, _ = ladder.tokens_at(rung, positions, prior)
        bits = 8 * modes.encode(tokens, "prior", prior).content_bytes
        levels = ladder.whole_tokens(tokens, model.config)
        back = np.concatenate(list(tiles.decode(model.params, model.config, levels, frames, height, width)))
        points.append({
            "label": f"{rung.digits} digits, {rung.damage:,.0f}",
            "nt_per_pixel": bits / unit / clip.frames[..., 0].size,
            "bits_per_token": bits / tokens[..., 0].size,
            "psnr": float(np.mean(metrics.psnr(clip.frames, back))),
        })  # fmt: skip
    return points


def against(anchor: dict[str, Points], other: dict[str, Points]) -> dict[str, float | None]:
    """Return the BD-rate in percent of each clip, None where the qualities do not overlap."""
    rates = {}
    for name, points in other.items():
        both = [[point | {"preset": "", "scale": 1} for point in some] for some in (anchor[name], points)]
        rates[name] = bd_rate(both[0], both[1], "psnr")
    return rates


def show(out: Console, results: dict[str, dict[str, Points]]) -> None:
    """Print the means of each pair, and its BD-rate against the first pair."""
    for title, curves in results.items():
        table = Table("", "nt/pixel", "bits per token", "PSNR dB", title=title)
        for point in means(list(curves.values())):
            table.add_row(
                point["label"], f"{point['nt_per_pixel']:.5f}", f"{point['bits_per_token']:.2f}", f"{point['psnr']:.2f}"
            )
        out.print(table)
    anchor, *others = results
    for title in others:
        rates = against(results[anchor], results[title])
        known = [rate for rate in rates.values() if rate is not None]
        if known:
            out.print(f"{title}: {np.mean(known):+.1f} % nucleotides at equal PSNR against {anchor}")
        for name, rate in rates.items():
            best = [max(point["psnr"] for point in results[pair][name]) for pair in (anchor, title)]
            percent = "no common range" if rate is None else f"{rate:+.1f} %"
            out.print(f"  {name}: {percent}; best PSNR {best[0]:.2f} and {best[1]:.2f} dB")


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument(
        "--nets", nargs=2, action="append", required=True, metavar=("MODEL", "PRIOR"), help="weights of both nets"
    )
    parser.add_argument("--frames", type=int, default=32, help="use only the first N frames (0: all; default 32)")
    parser.add_argument("--half", action="store_true", help="use the clips at half size")
    parser.add_argument(
        "--middle", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="use only the middle of the frames"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use every Nth rung of the ladder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the points to FILE")
    args = parser.parse_args()
    parallel.use_all_cores()
    unit = capacity.capacity(constraints.named("helix"))
    pairs = {f"{model}, {prior}": nets.load(model, prior) for model, prior in args.nets}
    paths = clips.clips_of(args.folder, args.clips)
    results: dict[str, dict[str, Points]] = {name: {} for name in pairs}
    with console.progress(False) as step:
        for path in paths:
            clip = clips.load(path, args.frames, half=args.half)
            clip = middle(clip, *args.middle) if args.middle else clip
            for name, pair in pairs.items():
                rungs = ladder.ladder(pair.tokenizer.config.digits, True)[:: args.every]
                results[name][path.name] = curve(clip, pair, rungs, unit)
                step("curves", 1, len(paths) * len(pairs))
    show(Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False), results)
    if args.out:
        args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
