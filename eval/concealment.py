"""Strands lost: what is left of a clip as tokens, and as H.265 in the same strands. For ``eval.prior``.

Tokens go out in mode raw with RaptorQ, as ``helix_jax.codec`` writes them. A loss takes whole strands, drawn at random
from source and repair packets alike (header strands are taken to survive); what the outer code makes of the others is
asked of ``strands.outer``. At redundancy r it repairs everything up to a share of r / (1 + r), and two packets; beyond
that the source packets that are gone stay gone.

H.265 is x265 by PyAV (``eval.report.codecs``): preset medium, tune psnr (0.2 dB better than without), one group of
pictures (an I picture, then P and B), 4:2:0, no SEI, its CRF searched until the stream is just no longer than the raw
tokens. The stream and zeros after it fill the same packets, so the same strands are lost. The decoder is FFmpeg's, and
it is helped: the parameter sets are never lost, it is told where the bytes of each picture begin and when to show it,
and of two ways the one with the better PSNR counts: nothing from the first damaged picture on, or all pictures but the
damaged ones. A picture that does not come, or that the decoder calls corrupt, is replaced by the last one that did,
grey where none did. Damaged pictures are not decoded, with zeros for the bytes that are gone or without them: past the
outer code's reach that gave 4 to 13 dB on three clips where grey gives 11, and not the same twice, as FFmpeg then shows
memory that it has not written. Nothing is added that a lossy channel would make one add to H.265 (slices, intra
refresh).
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval import metrics
from eval.clips import generator
from eval.report.codecs import damaged, expand, fit
from helix_jax.coding import conceal, modes
from helix_jax.config import MixingConfig
from helix_jax.strands import outer
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
METHODS = {"prior": "masked prior", "copy": "nearest token copied", "mean": "mean level", "h265": "H.265, same bytes"}
KINDS = ("tokens", "h265")
PICTURED = (0.2, 0.4)  # shares of which ``measure`` keeps a picture
EVERY = 8  # frames from one MS-SSIM to the next, as eval.quality


# ---- losses --------------------------------------------------------------------------------------------


def lost_packets(layout, packets, genuine, share, generator):
    """Source packets that stay lost, bool[sources], when ``share`` of all strands is lost.

    packets: uint8[packets, symbol bytes] as ``outer.encode`` gives them; genuine: as ``outer.decode`` takes it. From
    generators of one seed, what a smaller share loses is among what a larger one loses.
    """
    order = generator.permutation(layout.packets)
    index = np.sort(order[round(share * layout.packets) :])
    recovered = outer.decode(layout, index, packets[index], genuine)
    return recovered.lost | recovered.suspect


def concealed(method, tokens, missing, prior):
    """Levels for the tokenizer's decoder [t, h, w, k]; method: "prior", "copy" or "mean". missing: bool[t, h, w]."""
    if method == "prior":
        return conceal.fill_lost(tokens, missing, prior)
    if method == "copy":
        return conceal.fill_lost(tokens, missing)
    return np.where(missing[..., None], np.float32(1.5), tokens.astype(np.float32))


def measure(name, original, fps, tokens, model, prior, strands, seeds, progress=None):
    """What is left of a clip at every share of SHARES.

    name: of the clip; the losses depend on it. original: uint8[T, H, W, 3]. fps: Fraction. tokens: uint8[t, h, w, k].
    model: tokenizer.weights.Model. prior: prior.weights.Prior. strands: (bits of a strand, redundancy). seeds: list of
    int. progress: called after each loss. Returns (facts, rows, pictures). facts: dict of the clip's figures with
    nothing lost. rows: list of dicts, one for each seed, share and method. pictures: dict of title -> uint8[H, W, 3],
    of the middle frame. Raises ValueError where H.265 cannot be made as small as the tokens."""
    shape, digits = original.shape[:3], tokens.shape[-1]
    coded = modes.Coding("raw", tokens)
    layout = coded.layout(*strands)
    symbols = coded.symbols(layout, MixingConfig())
    payload = mixing.to_bytes(symbols).tobytes()
    layout = dataclasses.replace(layout, payload_bytes=len(payload))  # the last packet filled up, as codec.encode does
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
            if not lost.any():  # the outer code gave everything back
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


def means(rows):
    """Over clips and seeds: list of {"share", "tokens_lost", method: {"psnr", "ms_ssim", "pictures"}}."""
    found = []
    for share in SHARES:
        here = [row for row in rows if row["share"] == share]
        mean: dict[str, Any] = {"share": share, "tokens_lost": float(np.mean([row["tokens_lost"] for row in here]))}
        for method in METHODS:
            of = [row for row in here if row["method"] == method]
            mean[method] = {key: float(np.mean([row[key] for row in of])) for key in ("psnr", "ms_ssim", "pictures")}
        found.append(mean)
    return found


# ---- tables and figures ----------------------------------------------------------------------------------


def show_streams(out, show, facts):
    """Nothing lost: tokens and H.265 of each clip. show: as ``eval.prior.show``."""
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


def show_losses(out, show, means, redundancy):
    """Means over clips and seeds at every share of strands lost."""
    for key, unit, form in (("psnr", "PSNR, dB", ".2f"), ("ms_ssim", "MS-SSIM", ".4f")):
        cells = [
            (f"{mean['share']:.0%}", f"{mean['tokens_lost']:.1%}", *(f"{mean[m][key]:{form}}" for m in METHODS),
             f"{mean['h265']['pictures']:.0f}")
            for mean in means
        ]  # fmt: skip
        columns = ("strands lost", "tokens lost", *METHODS.values(), "H.265 pictures")
        show(out, f"{unit}, RaptorQ with redundancy {redundancy:g} before", columns, cells)


def draw_losses(path, means, redundancy):
    """Quality against the share of strands lost."""
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


def draw_sheet(path, clips):
    """A row of pictures for each clip. clips: list of (name, dict of title -> uint8[H, W, 3])."""
    columns = max(len(pictures) for _, pictures in clips)
    figure = Figure(figsize=(3.2 * columns, 2.8 * len(clips)), layout="constrained")
    for axes, (name, pictures) in zip(figure.subplots(len(clips), columns, squeeze=False), clips, strict=True):
        for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
            axis.imshow(picture)
            axis.set_title(f"{name}: {title}" if title == "original" else title, fontsize=9)
        for axis in axes:
            axis.set_axis_off()
    figure.savefig(path, dpi=110)
