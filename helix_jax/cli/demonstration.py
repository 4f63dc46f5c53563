"""What `helix-jax demo` does: it sends a shipped clip to strands and back, and draws a picture of the result."""

import dataclasses
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
from helix_jax.stream import film as videos

CLIP = Path(__file__).parents[1] / "assets" / "flower.mp4"


REDUNDANCY = StrandConfig(redundancy=0.15)
LOSSES = (("decoded", 0.1), ("damaged", 0.3))  # name, and share of the strands that is lost


def run(out: str | os.PathLike, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Write pools, decoded videos and demo.png to the folder ``out``, and return the figures.

    The clip is stored as tokens in mode raw, and as AV1 in as many nucleotides. Both are decoded twice: without a tenth
    of the strands, which the repair strands restore, and without three tenths, which is too many for the repair
    strands: AV1 then shows its preview, and the prior guesses the lost tokens. ``progress`` is called as
    progress(station, done, total).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    reader, nets = video.open_video(CLIP), load()
    original = np.concatenate(list(reader.blocks()))
    tokens = codec.encode(
        reader, nets, config=CodecConfig(codec="tokens", mode="raw", strands=REDUNDANCY), progress=progress
    )
    av1 = codec.encode(
        reader, nets, config=CodecConfig(codec="av1", budget=tokens.nucleotides, strands=REDUNDANCY), progress=progress
    )
    rows, figures = [("original", original, "")], {}
    for kind, title, pool in (("av1", "AV1", av1), ("tokens", "tokens", tokens)):
        path = out / ("pool.fasta" if pool is av1 else "tokens.fasta")
        fasta.write_pool(path, pool)
        strands = fasta.read(path)
        for name, share in LOSSES:
            generator = np.random.default_rng(0)
            kept = {n: group[generator.random(len(group)) >= share] for n, group in strands.items()}
            film = codec.film(kept, nets)
            shown = np.concatenate(list(film.blocks))
            videos.write(out / f"{name if pool is av1 else f'tokens-{name}'}.mp4", _again(film, shown))
            error = np.square(original.astype(float) - shown).mean()
            psnr = round(float(10 * np.log10(255.0**2 / error)), 2)
            lost = film.report.lost_tokens
            previewed = sum(end - begin for begin, end in film.report.preview_seconds)
            figures |= {f"{kind} {name} psnr": psnr, f"{kind} {name} strands lost": share}
            figures |= {f"{kind} {name} preview seconds": round(previewed, 2)} if kind == "av1" else {}
            figures |= {f"{kind} {name} tokens concealed": round(lost, 4)} if kind == "tokens" else {}
            note = f"{psnr:.1f} dB" + (", the preview" if previewed else "") + (f", {lost:.0%} guessed" if lost else "")
            rows.append((f"{title}, {share:.0%} of the strands lost", shown, note))
    checked = inspection.inspect(fasta.read(out / "pool.fasta"))
    info = reader.info
    summary = {
        "clip": f"{info.frames} frames of {info.width}x{info.height}",
        "strands": checked["strands"],
        "violations": checked["violations"],
        "gross_bits_per_nt": checked["gross_bits_per_nt"],
        "net_bits_per_nt": checked["net_bits_per_nt"],
        "capacity": checked["capacity"],
        "nt_per_pixel": round(av1.nucleotides / original[..., 0].size, 4),
    }
    _picture(out / "demo.png", rows, summary, checked)
    return summary | figures | {"folder": str(out)}


def _again(film: Any, shown: np.ndarray) -> Any:
    """Return a film whose frames can be written after they have been looked at."""
    return dataclasses.replace(film, blocks=iter([shown]))


def _picture(path: Path, rows: list[tuple[str, np.ndarray, str]], summary: dict, checked: dict) -> None:
    """Draw frames of (title, clip, note), the original first, and the constraints that the strands obey."""
    original = rows[0][1]
    columns = np.linspace(0, len(original) - 1, 4).astype(int)
    figure = Figure(figsize=(13, 13.5), layout="constrained")
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
    figure.savefig(path, dpi=72)
