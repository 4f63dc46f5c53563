"""Measure the prior: bits per token, calibration, guesses under masks, and concealment compared with H.265.

    python -m eval.prior VIDEOS [--frames 96] [--clips NAME ...] [--out FOLDER] [--prior FILE]

The program prints, over all clips of a folder or those that are named:
  bits         payload bits per token of each mode, with everything that the packets carry: in the coded modes the bits
               of the segments, their CRCs, the copies of the directory, and what fills the last packet. Seconds are
               those of coding (without verification), once compiled.
  calibration  calibration of the causal head: its binary decisions (two for each digit), in bins of the predicted
               probability of a one, compared with the frequency of ones. ECE is the mean distance of the two over the
               decisions, in bins of each digit. The bits of a digit are those under the head alone; the coder mixes it
               with adaptive counts.
  masks        top-1 accuracy and bits of hidden digits by the share of tokens that are hidden at random, in one pass of
               the masked head over windows of as many latent frames as it sees; and, for comparison, the accuracy of
               copying the nearest token.
  concealment  PSNR and MS-SSIM (of every 8th frame) by the share of lost strands: see ``eval.concealment``.
--out writes the figures as results.json, and calibration.png, masks.png, concealment.png and pictures.png. All random
numbers come from --seed; the floats of the nets may differ between machines.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import concealment
from eval.clips import clips_of, frames_of, generator
from helix_jax import parallel, video
from helix_jax.cli import console
from helix_jax.coding import conceal, modes, segments
from helix_jax.config import CodecConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import layouts
from helix_jax.tk_scone import constraints, tables
from helix_jax.tokenizer import tiles, weights

BINS = 20  # bins of a probability, all of the same width
ENOUGH = 50  # least number of decisions in a bin that is drawn
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COUNTED = ("right", "bits", "copied")  # what ``guesses`` counts for hidden digits
SHEET = 2  # clips in pictures.png
WIDTH = 130  # width of the tables without a terminal

Tokens = UInt8[np.ndarray, "t h w k"]
Row = dict[str, Any]


# ---- bits ----------------------------------------------------------------------------------------------


def bits(name: str, tokens: Tokens, prior: prior_weights.Prior, strands: tuple[int, float]) -> Row:
    """Return the figures of one clip in each mode.

    Args:
        name: name of the clip.
        tokens: its tokens.
        prior: the prior.
        strands: (bits of a strand, redundancy).

    Returns:
        {"clip", "tokens", mode: {"bytes", "bits_per_token", "share_of_raw", "seconds"}}.

    Raises:
        CodingError: if a mode cannot code the clip.
    """
    number = tokens[..., 0].size
    row: dict[str, Any] = {"clip": name, "tokens": number}
    for mode in modes.MODES:
        for _ in range(2):  # the first run compiles
            begin = time.perf_counter()
            coded = modes.encode(tokens, mode, prior)
            seconds = time.perf_counter() - begin
        size = coded.layout(layouts.planner(*strands)).payload_bytes
        share = size / modes.Coding("raw", tokens).content_bytes
        row[mode] = {"bytes": size, "bits_per_token": 8 * size / number, "share_of_raw": share, "seconds": seconds}
    return row


# ---- calibration ---------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="config")
def _causal(params, digits, known, config):
    return net.causal_logits(params, digits, known, config)


def calibration(prior: prior_weights.Prior, tokens: Tokens) -> Float64[np.ndarray, "4 k bins"]:
    """Return the statistics of the binary decisions of all digits, in the order of the coder.

    They are, for each digit and bin of the predicted probability of a one: the number of decisions, the sum of the
    probabilities, the number of ones, and the bits of the decisions.
    """
    plan, k = segments.plan(tokens.shape[:3]), tokens.shape[-1]
    totals = np.zeros((4, k, BINS))
    for digits, valid in zip(segments.cut(plan, tokens), segments.valid(plan), strict=True):
        known = np.broadcast_to(valid[..., None], digits.shape)
        logits = np.asarray(_causal(prior.params, digits[None], known[None], prior.config))[0]
        logits, digits = logits[valid].astype(np.float64), digits[valid]  # [n, k, 3], [n, k]
        high, low = digits >> 1, digits & 1
        second = np.where(high == 1, logits[..., 2], logits[..., 1])
        for n in range(k):
            chance = 1 / (1 + np.exp(-np.concatenate([logits[:, n, 0], second[:, n]])))
            decision = np.concatenate([high[:, n], low[:, n]])
            cost = -np.log2(np.where(decision, chance, 1 - chance))
            bin_of = np.minimum((chance * BINS).astype(int), BINS - 1)
            for total, values in zip(totals, (np.ones_like(chance), chance, decision, cost), strict=True):
                total[n] += np.bincount(bin_of, values, BINS)
    return totals


def calibration_error(totals: Float64[np.ndarray, "4 *k bins"]) -> float:
    """Return the mean of |probability - frequency| of a decision, by the bins of each digit.

    ``totals`` are the statistics that ``calibration`` returns.
    """
    decisions, chances, ones, _ = totals
    return float(np.abs(ones - chances).sum() / decisions.sum())


# ---- masks ---------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="config")
def _masked(params, digits, known, config):
    return net.probabilities(net.masked_logits(params, digits, known, config))


def guesses(prior: prior_weights.Prior, tokens: Tokens, share: float, generator: np.random.Generator) -> Row:
    """Hide a share of the tokens, and guess each of their digits from the other tokens.

    Args:
        prior: the prior.
        tokens: the tokens.
        share: share of the tokens that is hidden.
        generator: source of the random numbers.

    Returns:
        {"hidden": number of tokens, "right": [k], "bits": [k], "copied": [k]}: for each digit, how often the most
        probable value is right, its cost in bits, and how often the nearest known token has the right value.
    """
    hidden, length = generator.random(tokens.shape[:3]) < share, prior.config.frames
    right, cost = np.zeros((2, tokens.shape[-1]))
    for begin in range(0, len(tokens), length):
        digits, missing = tokens[begin : begin + length], hidden[begin : begin + length]
        pad = [(0, length - len(digits)), (0, 0), (0, 0)]
        known = np.pad(~missing, pad)[..., None] & np.ones(tokens.shape[-1], bool)
        padded = np.pad(digits, [*pad, (0, 0)])
        chances = np.asarray(_masked(prior.params, padded[None], known[None], prior.config))[0, : len(digits)][missing]
        truth = digits[missing]
        right += (chances.argmax(axis=-1) == truth).sum(axis=0)
        cost -= np.log2(np.take_along_axis(chances, truth[..., None].astype(int), axis=-1)[..., 0]).sum(axis=0)
    copied = (conceal.fill_lost(tokens, hidden) == tokens)[hidden].sum(axis=0)
    return {"hidden": int(hidden.sum()), "right": right, "bits": cost, "copied": copied}


def guesses_by_ratio(prior: prior_weights.Prior, clips: Sequence[tuple[str, Tokens]], seed: int) -> list[Row]:
    """Return a row {"ratio", "accuracy": [k], "bits": [k], "copied": [k]} for each of RATIOS.

    Args:
        prior: the prior.
        clips: (name, tokens) of each clip; the figures are means over the hidden tokens of all clips.
        seed: seed of the masks.
    """
    rows = []
    for ratio in RATIOS:
        guessed = [guesses(prior, tokens, ratio, generator(seed, name)) for name, tokens in clips]
        hidden = sum(each["hidden"] for each in guessed)
        right, cost, copied = ((np.sum([each[n] for each in guessed], axis=0) / hidden).tolist() for n in COUNTED)
        rows.append({"ratio": ratio, "accuracy": right, "bits": cost, "copied": copied})
    return rows


# ---- tables --------------------------------------------------------------------------------------------


def show(out: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is flush left, the others are flush right.

    Args:
        out: where to print.
        title: the title.
        columns: names of the columns.
        rows: the cells of each row.
    """
    table = Table(title=title)
    for n, column in enumerate(columns):
        table.add_column(column, justify="right" if n else "left", no_wrap=not n)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def show_bits(out: Console, rows: Sequence[Row]) -> None:
    """Print the results of ``bits`` for each clip, and their mean."""
    names = modes.MODES
    keys = ("bytes", "bits_per_token", "share_of_raw", "seconds")
    mean: dict[str, Any] = {m: {key: np.mean([row[m][key] for row in rows]) for key in keys} for m in names}
    mean |= {"clip": "mean", "tokens": round(np.mean([row["tokens"] for row in rows]))}
    cells = []
    for row in [*rows, mean]:
        against = row["prior"]["bits_per_token"] / row["context"]["bits_per_token"]
        cells.append(
            (
                row["clip"], f"{row['tokens']:,}", *(f"{row[m]['bits_per_token']:.2f}" for m in names),
                *(f"{row[m]['share_of_raw']:.1%}" for m in names[1:]), f"{against - 1:+.1%}",
                *(f"{row[m]['seconds']:.1f}" for m in names[1:]),
            )
        )  # fmt: skip
    columns = (
        "clip", "tokens", *names, "context / raw", "prior / raw", "prior to context", "context, s", "prior, s",
    )  # fmt: skip
    show(out, "payload bits per token", columns, cells)


def show_calibration(out: Console, totals: Float64[np.ndarray, "4 k bins"]) -> None:
    """Print the calibration of each digit and of all."""
    cells = []
    for name, part in [*((str(n), totals[:, n]) for n in range(totals.shape[1])), ("all", totals)]:
        decisions, chances, ones, cost = part.reshape(4, -1).sum(axis=1)
        error = calibration_error(part)
        cells.append(
            (name, f"{decisions:,.0f}", f"{2 * cost / decisions:.3f}", f"{chances / decisions:.4f}",
             f"{ones / decisions:.4f}", f"{error:.4f}")
        )  # fmt: skip
    columns = ("digit", "decisions", "bits of a digit", "mean chance of a one", "ones", "ECE")
    show(out, "causal head alone: calibration of its binary decisions", columns, cells)


def show_guesses(out: Console, rows: Sequence[Row]) -> None:
    """Print the results of ``guesses_by_ratio``."""
    digits = range(len(rows[0]["accuracy"]))
    cells = [
        (
            f"{row['ratio']:.0%}", *(f"{value:.1%}" for value in row["accuracy"]), f"{np.mean(row['accuracy']):.1%}",
            f"{np.mean(row['copied']):.1%}", f"{np.mean(row['bits']):.3f}",
        )
        for row in rows
    ]  # fmt: skip
    columns = ("hidden", *map(str, digits), "all", "copied", "bits")
    show(out, "masked head: hidden digits right (0 to k - 1, all, all when copied), bits of one", columns, cells)


# ---- figures -------------------------------------------------------------------------------------------


def draw_calibration(path: str | os.PathLike, totals: Float64[np.ndarray, "4 k bins"]) -> None:
    """Draw the reliability of each digit and of all together, and the number of decisions in each bin."""
    figure = Figure(figsize=(6.4, 7.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], "k:", lw=1)
    digits = totals.shape[1]
    for n, part in enumerate([*totals.swapaxes(0, 1), totals.sum(axis=1)]):
        decisions, chances, ones, _ = part[:, part[0] >= ENOUGH]
        is_all = n == digits
        style = {"color": "black", "lw": 2, "marker": "o"} if is_all else {"color": _colour(n, digits), "lw": 1}
        top.plot(chances / decisions, ones / decisions, label="all" if is_all else f"digit {n}", **style)
    top.set(ylabel="how often it was one", xlim=(0, 1), ylim=(0, 1))
    top.set_title(f"causal head, ECE {calibration_error(totals):.4f}; bins of {ENOUGH} decisions and more", size=11)
    top.legend(fontsize=8)
    bottom.bar((np.arange(BINS) + 0.5) / BINS, totals[0].sum(axis=0), width=0.9 / BINS, color="#888888")
    bottom.set(yscale="log", ylabel="decisions", xlabel="predicted chance of a one")
    figure.savefig(path, dpi=110)


def draw_guesses(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Draw the accuracy of each digit and the bits of a hidden digit against the share of hidden tokens."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratios = [row["ratio"] for row in rows]
    digits = len(rows[0]["accuracy"])
    for axis, key in ((left, "accuracy"), (right, "bits")):
        for n in range(digits):
            axis.plot(ratios, [row[key][n] for row in rows], color=_colour(n, digits), label=f"digit {n}")
        axis.plot(ratios, [np.mean(row[key]) for row in rows], "ko-", label="all")
        axis.set(xlabel="share of tokens hidden")
    left.plot(ratios, [np.mean(row["copied"]) for row in rows], "k--", label="all, nearest token copied")
    left.set(ylabel="right at first guess", ylim=(0, 1))
    right.set(ylabel="bits of a hidden digit", ylim=(0, None))
    left.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)


def _colour(n: int, count: int) -> tuple[float, ...]:
    """Return the colour of a digit, from dark for the first one to light."""
    return colormaps["viridis"](0.95 * n / max(1, count - 1))


# ---- all of it -----------------------------------------------------------------------------------------


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument("--frames", type=int, default=96, help="use only the first N frames (0: all; default 96)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument("--model", default=weights.DEFAULT, help="weights of the tokenizer (default: the shipped ones)")
    parser.add_argument(
        "--prior", default=prior_weights.DEFAULT, help="weights of the prior (default: the shipped ones)"
    )
    parser.add_argument("--redundancy", type=float, default=0.1, help="repair packets as a share of the source packets")
    parser.add_argument("--seed", type=int, default=0, help="seed of masks and losses (default 0)")
    parser.add_argument("--seeds", type=int, default=2, help="number of losses drawn at each share (default 2)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write results.json and figures into FOLDER")
    args = parser.parse_args()
    parallel.use_all_cores()
    model, prior = weights.load(args.model), prior_weights.load(args.prior)
    if prior.tokenizer != model.digest:
        sys.exit(
            f"{args.prior} belongs to tokenizer {prior.tokenizer[:8].hex()}, not to {model.digest[:8].hex()}: give the "
            "two that were trained together, with --model and --prior"
        )
    paths = clips_of(args.folder, args.clips)
    config = CodecConfig()
    table = tables.load(constraints.named(config.constraints), config.strands.length)
    strands = (table.bits, args.redundancy)
    seeds = list(range(args.seed, args.seed + args.seeds))
    coded, totals, clips, facts, rows, sheet = [], [], [], [], [], []
    with console.progress(False) as step:
        losses = len(paths) * len(seeds) * len(concealment.SHARES)
        for path in paths:
            reader = video.open_video(path)
            original = frames_of(reader, args.frames)
            _, height, width, _ = original.shape
            tokens = tiles.encode(model.params, model.config, [original], height, width)
            clips.append((path.name, tokens))
            coded.append(bits(path.name, tokens, prior, strands))
            totals.append(calibration(prior, tokens))
            step("coding", 1, len(paths))
            whole, lost, pictures = concealment.measure(
                path.name, original, reader.info.fps, tokens, model, prior, strands, seeds,
                lambda: step("losses", 1, losses),
            )  # fmt: skip
            facts.append(whole)
            rows += lost
            sheet = [*sheet, (path.name, pictures)][:SHEET]
        guessed = guesses_by_ratio(prior, clips, args.seed)
    out = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    total = np.sum(totals, axis=0)
    show_bits(out, coded)
    show_calibration(out, total)
    show_guesses(out, guessed)
    means = concealment.means(rows)
    concealment.show_streams(out, show, facts)
    concealment.show_losses(out, show, means, args.redundancy)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        names = ("decisions", "chances", "ones", "bits")
        results = {
            "frames": args.frames,
            "redundancy": args.redundancy,
            "seeds": seeds,
            "prior": prior.digest.hex(),
            "bits": coded,
            "calibration": dict(zip(names, total.tolist(), strict=True)) | {"ece": calibration_error(total)},
            "masks": guessed,
            "streams": facts,
            "concealment": rows,
            "concealment_means": means,
        }  # fmt: skip
        (args.out / "results.json").write_text(json.dumps(results, indent=2))
        draw_calibration(args.out / "calibration.png", total)
        draw_guesses(args.out / "masks.png", guessed)
        concealment.draw_losses(args.out / "concealment.png", means, args.redundancy)
        concealment.draw_sheet(args.out / "pictures.png", sheet)


if __name__ == "__main__":
    main()
