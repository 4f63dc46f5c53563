"""What `helix-jax demo` does: it sends a shipped clip to strands and back, and draws a picture of the result."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from helix_jax import codec, video
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.nets import load
from helix_jax.strands import fasta, inspection

CLIP = Path(__file__).parents[1] / "assets" / "flower.mp4"


def run(out: str | os.PathLike, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Write pool.fasta, decoded.mp4, damaged.mp4 and demo.png to the folder ``out``, and return the figures.

    The clip is decoded twice: without a tenth of the strands, which the repair strands restore, and from 70 % of the
    strands, which is too few for the repair strands, so that the lost tokens are concealed. ``progress`` is called as
    progress(station, done, total).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    reader, nets = video.open_video(CLIP), load()
    config = CodecConfig(strands=StrandConfig(redundancy=0.15), mode="raw")
    pool = codec.encode(reader, nets, config=config, progress=progress)
    fasta.write(out / "pool.fasta", pool.strands, lambda i: "header" if i < pool.header_strands else "data")
    strands = fasta.read(out / "pool.fasta")
    checked = inspection.inspect(strands)
    original = np.concatenate(list(reader.blocks()))

    generator = np.random.default_rng(0)
    pictures, figures = {}, {}
    for name, share in (("decoded", 0.9), ("damaged", 0.7)):
        kept = {n: group[generator.random(len(group)) < share] for n, group in strands.items()}
        info, blocks, report = codec.decode(kept, nets)
        pictures[name] = np.concatenate(list(blocks))
        with video.VideoWriter(out / f"{name}.mp4", info) as writer:
            writer.write(pictures[name])
        error = np.square(original.astype(float) - pictures[name]).mean(axis=(1, 2, 3))
        figures[name] = {
            "strands_lost": round(1 - share, 2),
            "psnr": round(float(np.mean(10 * np.log10(255.0**2 / error))), 2),
            "tokens_concealed": round(report.lost_tokens, 4),
        }
    summary = {
        "clip": f"{info.frames} frames of {info.width}x{info.height}",
        "strands": checked["strands"],
        "violations": checked["violations"],
        "gross_bits_per_nt": checked["gross_bits_per_nt"],
        "net_bits_per_nt": checked["net_bits_per_nt"],
        "capacity": checked["capacity"],
        "nt_per_pixel": round(pool.strands.size / original[..., 0].size, 4),
    }
    _picture(out / "demo.png", original, pictures, figures, summary, checked)
    flat = {f"{name} {key}".replace("_", " "): value for name, group in figures.items() for key, value in group.items()}
    return summary | flat | {"folder": str(out)}


def _picture(path: Path, original: np.ndarray, pictures: dict, figures: dict, summary: dict, checked: dict) -> None:
    """Draw frames of the original and of the decoded clips, and the constraints that the strands obey."""
    rows = [("original", original, "")]
    for name, title in (("decoded", "after losing 10 % of the strands"), ("damaged", "after losing 30 %, past repair")):
        f = figures[name]
        rows.append((title, pictures[name], f"{f['psnr']:.1f} dB, {f['tokens_concealed']:.1%} of tokens concealed"))
    columns = np.linspace(0, len(original) - 1, 4).astype(int)
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    axes = figure.subplots(len(rows) + 1, len(columns))
    for line, (title, clip, note) in zip(axes, rows, strict=False):
        for axis, frame in zip(line, columns, strict=True):
            axis.imshow(clip[frame])
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{title}, frame {frame}" if frame == columns[0] else f"frame {frame}", fontsize=9)
        line[0].set_xlabel(note, fontsize=9)
    grid = axes[-1, 0].get_gridspec()
    for axis in axes[-1]:
        axis.remove()
    runs, gc, text = (figure.add_subplot(grid[-1, k]) for k in (slice(0, 1), slice(1, 2), slice(2, 4)))
    runs.bar(list(checked["runs"]), list(checked["runs"].values()), color="tab:green")
    runs.set_title("longest run of each strand (nt)", fontsize=9)
    gc.bar([float(k) for k in checked["gc"]], list(checked["gc"].values()), width=0.008, color="tab:blue")
    gc.set_title("GC share of each strand", fontsize=9)
    text.axis("off")
    lines = [
        f"{summary['strands']} strands of 150 nt, {summary['violations']} constraint violations",
        f"gross {summary['gross_bits_per_nt']:.3f} bit/nt of a capacity of {summary['capacity']:.3f}",
        f"net {summary['net_bits_per_nt']:.3f} bit/nt with header, index, check and 15 % repair strands",
        f"{summary['nt_per_pixel']:.4f} nucleotides per pixel",
    ]
    text.text(0.02, 0.5, "\n\n".join(lines), fontsize=11, va="center")
    figure.savefig(path, dpi=90)
