"""What is left of a clip when strands are lost, as tokens and as H.265 in the same strands. For ``eval.prior``.

The tokens are written in mode raw with RaptorQ, as ``helix_jax.codec`` writes them. A loss removes whole strands, drawn
at random from source and repair packets alike (header strands are assumed to survive). ``strands.outer`` recovers what
it can from the others: at redundancy r it repairs everything up to a share of r / (1 + r), and two packets; beyond
that, lost source packets stay lost.

H.265 is x265 by PyAV (``eval.report.codecs``) with preset medium and tune psnr (0.2 dB better than without), one group
of pictures (an I picture, then P and B), 4:2:0, and no SEI. Its CRF is searched until the stream is just no longer than
the raw tokens. The stream, padded with zeros, fills the same packets, so that the same strands are lost. The decoder is
FFmpeg's, and it is helped: the parameter sets are never lost, and it is told where the bytes of each picture begin and
when to show it. Of two ways, the one with the better PSNR counts: to decode nothing from the first damaged picture on,
or all pictures but the damaged ones. A picture that is missing, or that the decoder calls corrupt, is replaced by the
last good one, or by grey if there is none. Damaged pictures are not decoded, neither with zeros for the missing bytes
nor without them: beyond the reach of the outer code that gave 4 to 13 dB on three clips where grey gives 11, and not
the same twice, as FFmpeg then shows memory that it has not written. Nothing is added to H.265 that one would add for a
lossy channel (slices, intra refresh).
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from matplotlib.figure import Figure
from rich.console import Console

from eval import metrics
from eval.clips import generator
from eval.report.codecs import damaged, expand, fit
from helix_jax.coding import conceal, modes
from helix_jax.config import MixingConfig
from helix_jax.prior.weights import Prior
from helix_jax.strands import outer
from helix_jax.strands.layouts import PacketLayout, planner
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles
from helix_jax.tokenizer.weights import Model

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
METHODS = {"prior": "masked prior", "copy": "nearest token copied", "mean": "mean level", "h265": "H.265, same bytes"}
KINDS = ("tokens", "h265")
PICTURED = (0.2, 0.4)  # shares for which ``measure`` keeps a picture
EVERY = 8  # MS-SSIM is measured on every 8th frame, as in eval.quality

Row = dict[str, Any]
Picture = UInt8[np.ndarray, "H W 3"]


# ---- losses --------------------------------------------------------------------------------------------


def lost_packets(
    layout: PacketLayout,
    packets: UInt8[np.ndarray, "n bytes"],
    genuine: Callable[..., Any],
    share: float,
    generator: np.random.Generator,
) -> Bool[np.ndarray, " sources"]:
    """Return which source packets stay lost when a share of all strands is lost.

    With generators of the same seed, the packets lost at a smaller share are among those lost at a larger one.

    Args:
        layout: layout of the packets.
        packets: the packets, as ``outer.encode`` gives them.
        genuine: as ``outer.decode`` takes it.
        share: share of the strands that is lost.
        generator: source of the random numbers.
    """
    order = generator.permutation(layout.packets)
    index = np.sort(order[round(share * layout.packets) :])
    recovered = outer.decode(layout, index, packets[index], genuine)
    return recovered.lost | recovered.suspect


def concealed(
    method: str, tokens: UInt8[np.ndarray, "t h w k"], missing: Bool[np.ndarray, "t h w"], prior: Prior
) -> Shaped[np.ndarray, "t h w k"]:
    """Return the levels for the tokenizer's decoder.

    Args:
        method: "prior", "copy" or "mean".
        tokens: the tokens.
        missing: mask of the missing tokens.
        prior: the prior.
    """
    if method == "prior":
        return conceal.fill_lost(tokens, missing, prior)
    if method == "copy":
        return conceal.fill_lost(tokens, missing)
    return np.where(missing[..., None], np.float32(1.5), tokens.astype(np.float32))


def measure(
    name: str,
    original: UInt8[np.ndarray, "T H W 3"],
    fps: Fraction,
    tokens: UInt8[np.ndarray, "t h w k"],
    model: Model,
    prior: Prior,
    strands: tuple[int, float],
    seeds: Sequence[int],
    progress: Callable[[], Any] | None = None,
) -> tuple[Row, list[Row], dict[str, Picture]]:
    """Measure what is left of a clip at each share of SHARES.

    Args:
        name: name of the clip, which the losses depend on.
        original: its frames.
        fps: its frame rate.
        tokens: its tokens.
        model: the tokenizer.
        prior: the prior.
        strands: (bits of a strand, redundancy).
        seeds: seeds of the losses.
        progress: called after each loss.

    Returns:
        The figures of the clip without losses, a row for each seed, share and method, and pictures of the middle frame
        by their titles.

    Raises:
        ValueError: if H.265 cannot be made as small as the tokens.
    """
    shape, digits = original.shape[:3], tokens.shape[-1]
    coded = modes.Coding("raw", tokens)
    layout = coded.layout(planner(*strands))
    symbols = coded.symbols(layout, MixingConfig())
    payload = mixing.to_bytes(symbols).tobytes()
    layout = dataclasses.replace(layout, payload_bytes=len(payload))  # fills the last packet, as codec.encode does
    packets, genuine = outer.encode(layout, payload), outer.matching(outer.payload_digest(payload))
    stream = fit(original, fps, coded.content_bytes)

    def shown(levels):
        return np.concatenate(list(tiles.decode(model.params, model.config, levels, *shape)))

    def figures(video, pictures):
        ms_ssim = metrics.ms_ssim(original[::EVERY], video[::EVERY])
        return {"psnr": metrics.psnr(original, video), "ms_ssim": ms_ssim, "pictures": pictures}

    lossless = shown(tokens)
    whole = {"tokens": figures(lossless, len(original)), "h265": figures(*expand(stream, shape))}
    facts = {"clip": name, "payload_bytes": coded.content_bytes, "h265_bytes": stream.size, "crf": stream.crf, **whole}
    middle = len(original) // 2
    pictures, rows = {"original": original[middle], "tokens, none lost": lossless[middle]}, []
    for seed, share in itertools.product(seeds, SHARES):
        lost = lost_packets(layout, packets, genuine, share, generator(seed, name))
        missing = modes.decode("raw", tokens.shape[:3], digits, symbols, lost, MixingConfig(), None)[1]
        same = {"clip": name, "seed": seed, "share": share, "tokens_lost": float(missing.mean())}
        for method in METHODS:
            if not lost.any():  # the outer code recovered everything
                row = whole["h265" if method == "h265" else "tokens"]
            elif method == "h265":
                tries = [expand(left, shape) for left in damaged(stream, lost, layout.symbol_bytes)]
                best = max(tries, key=lambda left: metrics.psnr(original, left[0]))
                row = figures(*best)
            else:
                video = shown(concealed(method, tokens, missing, prior))
                row = figures(video, len(original))
                if seed == seeds[0] and share in PICTURED and method in ("copy", "prior"):
                    pictures[f"{method}, {share:.0%} lost"] = video[middle]
            rows.append({**same, "method": method, **row})
        if progress:
            progress()
    return facts, rows, pictures


def means(rows: Sequence[Row]) -> list[Row]:
    """Return the means over clips and seeds: {"share", "tokens_lost", method: {"psnr", "ms_ssim", "pictures"}}."""
    result = []
    for share in SHARES:
        selected = [row for row in rows if row["share"] == share]
        mean: Row = {"share": share, "tokens_lost": float(np.mean([row["tokens_lost"] for row in selected]))}
        for method in METHODS:
            of = [row for row in selected if row["method"] == method]
            mean[method] = {key: float(np.mean([row[key] for row in of])) for key in ("psnr", "ms_ssim", "pictures")}
        result.append(mean)
    return result


# ---- tables and figures ----------------------------------------------------------------------------------


def show_streams(out: Console, show: Callable[..., None], facts: Sequence[Row]) -> None:
    """Print tokens and H.265 of each clip without losses.

    Args:
        out: where to print.
        show: prints a table, as ``eval.prior.show``.
        facts: the figures of each clip.
    """
    cells = [
        (
            f["clip"], f"{f['payload_bytes']:,}", f"{f['h265_bytes']:,}", f"{f['crf']:.2f}",
            *(f"{f[kind][key]:{form}}" for key, form in (("psnr", ".2f"), ("ms_ssim", ".4f")) for kind in KINDS),
        )
        for f in facts
    ]  # fmt: skip
    columns = (
        "clip", "raw tokens, bytes", "H.265, bytes", "CRF", "tokens, dB", "H.265, dB", "tokens, MS-SSIM",
        "H.265, MS-SSIM",
    )  # fmt: skip
    show(out, "nothing lost: H.265 in no more bytes than raw tokens take", columns, cells)


def show_losses(out: Console, show: Callable[..., None], means: Sequence[Row], redundancy: float) -> None:
    """Print the means over clips and seeds at each share of lost strands.

    Args:
        out: where to print.
        show: prints a table, as ``eval.prior.show``.
        means: the means.
        redundancy: redundancy of the outer code.
    """
    for key, unit, form in (("psnr", "PSNR, dB", ".2f"), ("ms_ssim", "MS-SSIM", ".4f")):
        cells = [
            (f"{mean['share']:.0%}", f"{mean['tokens_lost']:.1%}", *(f"{mean[m][key]:{form}}" for m in METHODS),
             f"{mean['h265']['pictures']:.0f}")
            for mean in means
        ]  # fmt: skip
        columns = ("strands lost", "tokens lost", *METHODS.values(), "H.265 pictures")
        show(out, f"{unit}, RaptorQ with redundancy {redundancy:g} before", columns, cells)


def draw_losses(path: str | os.PathLike, means: Sequence[Row], redundancy: float) -> None:
    """Draw the quality against the share of lost strands.

    Args:
        path: the file to write.
        means: the means.
        redundancy: redundancy of the outer code.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    styles = {"prior": "C0o-", "copy": "C2s--", "mean": "C7^:", "h265": "C3D-"}
    for axis, key, label in zip(figure.subplots(1, 2), ("psnr", "ms_ssim"), ("PSNR, dB", "MS-SSIM"), strict=True):
        for method, title in METHODS.items():
            values = [mean[method][key] for mean in means]
            axis.plot([100 * mean["share"] for mean in means], values, styles[method], label=title)
        axis.axvline(100 * redundancy / (1 + redundancy), color="#999999", lw=1, ls=":", label="outer code's reach")
        axis.set(xlabel="strands lost, %", ylabel=label)
    figure.axes[0].legend(fontsize=9)
    figure.savefig(path, dpi=110)


def draw_sheet(path: str | os.PathLike, clips: Sequence[tuple[str, dict[str, Picture]]]) -> None:
    """Draw a row of pictures for each clip, given as (name, pictures by their titles)."""
    columns = max(len(pictures) for _, pictures in clips)
    figure = Figure(figsize=(3.2 * columns, 2.8 * len(clips)), layout="constrained")
    for axes, (name, pictures) in zip(figure.subplots(len(clips), columns, squeeze=False), clips, strict=True):
        for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
            axis.imshow(picture)
            axis.set_title(f"{name}: {title}" if title == "original" else title, fontsize=9)
        for axis in axes:
            axis.set_axis_off()
    figure.savefig(path, dpi=110)
