"""PSNR and MS-SSIM of the tokenizer on every clip of a folder, with all digits and with fewer.

python -m eval.quality VIDEOS [--model FILE] [--frames N] [--digits 8 4] [--json FILE]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from eval import clips, metrics
from helix_jax import parallel
from helix_jax.tokenizer import tiles, weights


def measure(
    path: Path, model: weights.Model, digits: Sequence[int], frames: int, half: bool = False
) -> list[dict[str, Any]]:
    """Return the figures of one clip, one dict for each number of digits.

    Args:
        path: the clip.
        model: the tokenizer.
        digits: how many of the first digits of each token to decode from; the others are set to the middle level.
        frames: number of frames; 0 means all.
        half: whether to halve the size by means of 2 x 2 pixels, which removes most traces of an earlier coder.
    """
    original = clips.load(path, frames, half).frames
    _, height, width, _ = original.shape
    tokens = tiles.encode(model.params, model.config, [original], height, width)
    figures = []
    for kept in digits:
        levels = tokens.astype(np.float32)
        levels[..., kept:] = 1.5
        decoded = np.concatenate(list(tiles.decode(model.params, model.config, levels, len(original), height, width)))
        figures.append(
            {
                "clip": clips.name_of(path, half),
                "digits": kept,
                "bits_per_pixel": 2 * kept * tokens[..., 0].size / original[..., 0].size,
                "psnr": metrics.psnr(original, decoded),
                "ms_ssim": metrics.ms_ssim(original[::8], decoded[::8]),
            }
        )
    return figures


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument(
        "--model", default=weights.DEFAULT, help="weights file of the tokenizer (default: the shipped one)"
    )
    parser.add_argument("--frames", type=int, default=0, help="use only the first N frames (default 0: all)")
    parser.add_argument(
        "--digits", type=int, nargs="+", default=[8], help="numbers of digits per token to decode from (default 8)"
    )
    parser.add_argument("--half", nargs="*", default=[], metavar="CLIP", help="clips to measure at half size too")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    parallel.use_all_cores()
    model = weights.load(args.model)
    paths = clips.clips_of(args.folder, [])
    figures = []
    for path in track(paths, description="clips", console=Console(stderr=True)):
        figures += measure(path, model, args.digits, args.frames)
        if path.name in args.half:
            figures += measure(path, model, args.digits, args.frames, half=True)
    table = Table(title="tokenizer (MS-SSIM on every 8th frame)")
    for name in ("clip", "digits", "bit/pixel", "PSNR dB", "MS-SSIM"):
        table.add_column(name, justify="left" if name == "clip" else "right")
    for digits in args.digits:
        rows = [f for f in figures if f["digits"] == digits]
        mean = {key: float(np.mean([f[key] for f in rows])) for key in ("bits_per_pixel", "psnr", "ms_ssim")}
        for row in [*rows, {"clip": "mean", "digits": digits, **mean}]:
            table.add_row(
                str(row["clip"]),
                str(digits),
                f"{row['bits_per_pixel']:.4f}",
                f"{row['psnr']:.2f}",
                f"{row['ms_ssim']:.4f}",
            )
        table.add_section()
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
