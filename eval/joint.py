"""Compare joint and separate training of tokenizer and prior: the same nets, at equal compute, over seeds and rates.

    python -m eval.joint VIDEOS --data SHARDS --out FOLDER [--config configs/joint_cpu.py] [--digits 4 6 8] [--seeds 3]

    separate        the tokenizer for distortion alone, then a prior for its tokens, with the configured steps each
    joint           both at once, with all terms as configured, and the configured steps, which take as many FLOP
    no rate, no masked, no concealment, constraint     joint training with one term left out, or with the penalty
                    switched on, at the middle number of digits (--ablate)

Every run is measured on all clips of VIDEOS: the first 32 frames, at half size for pictures of 240 lines or more.
Quality is PSNR and MS-SSIM with all digits. Nucleotides per pixel are the bytes of mode `prior` (the real coder, whose
counts start without knowledge) divided by the capacity of the constraint set; index, check and repair packets, which
are alike for all, are left out. Concealment is the PSNR of mode `raw` after 10 and 30 % of the strands are lost and the
prior has filled the gaps, without an outer code; there the nucleotides follow from the number of digits alone. Figures
are means over clips, then mean and standard deviation over seeds. BD-rates are computed for each seed on its own, with
separate training as the anchor.

Finished runs are not repeated, and a run that was stopped is resumed, so that FOLDER can be filled step by step. It
gets results.json, joint.png and a folder for each run. The loss over the last tenth of the steps, compared with the
tenth before, shows whether a run had converged.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import clips as clips_module
from eval import metrics
from eval.bd_rate import bd_rate
from helix_jax import parallel
from helix_jax.coding import conceal, modes
from helix_jax.config import MixingConfig, override
from helix_jax.prior import weights as prior_weights
from helix_jax.tk_scone import mixing
from helix_jax.tokenizer import tiles, weights
from train import joint, loop
from train.config import JointTraining

LOST = (0.1, 0.3)
TOKENS_PER_STRAND = 16
LINES = 240  # clips of at least this height are measured at half size
ABLATED = ("no rate", "no masked", "no concealment", "constraint")
CONSTRAINT = 0.01  # weight of the penalty, when it is switched on
NO_TERMS = {"rate": 0.0, "log_rate": 0.0, "dropping": 0.0, "masked": 0.0, "concealment": 0.0, "constraint": 0.0}

Results = Sequence[dict[str, Any]]


# ---- runs --------------------------------------------------------------------------------------------------


def phases(arm: str, cfg: JointTraining, folder: Path) -> list[tuple[Path, JointTraining]]:
    """Return the runs of an arm, one after the other, as (folder, configuration).

    Args:
        arm: "separate", "joint" or one of ABLATED.
        cfg: configuration of the joint run.
        folder: folder of the arm.
    """
    if arm == "separate":
        frozen = [dataclasses.replace(cfg.optimiser, frozen=(part,)) for part in ("^prior", "^tokenizer")]
        first = dataclasses.replace(cfg, optimiser=frozen[0], **NO_TERMS)
        start = str(folder / "tokenizer" / "tokenizer.safetensors")
        return [
            (folder / "tokenizer", first),
            (folder / "prior", dataclasses.replace(first, optimiser=frozen[1], init_from=start)),
        ]
    change: dict[str, Any] = {"constraint": CONSTRAINT} if arm == "constraint" else {}
    if arm.startswith("no "):
        change = {arm.removeprefix("no "): 0.0}
    return [(folder / "joint", dataclasses.replace(cfg, **change))]


def with_digits(cfg: JointTraining, digits: int, seed: int) -> JointTraining:
    """Return the configuration with another number of digits for both nets, and another seed."""
    return dataclasses.replace(
        cfg, model=dataclasses.replace(cfg.model, digits=digits),
        prior=dataclasses.replace(cfg.prior, digits=digits), seed=seed,
    )  # fmt: skip


def settled(folder: Path) -> float | None:
    """Return the loss over the last tenth of a run's log minus that over the tenth before; None with too few lines."""
    losses = [json.loads(line).get("loss") for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    tenth = len(losses) // 10
    if not tenth:
        return None
    return float(np.mean(losses[-tenth:]) - np.mean(losses[-2 * tenth : -tenth]))


def trained(
    arm: str, cfg: JointTraining, shards: str | os.PathLike, folder: Path
) -> tuple[weights.Model, prior_weights.Prior, list[float | None]]:
    """Train an arm unless it is done, and return its tokenizer, its prior, and ``settled`` for each phase.

    Args:
        arm: the arm.
        cfg: configuration of the joint run.
        shards: folder of shards to train on.
        folder: folder of the arm.
    """
    runs = phases(arm, cfg, folder)
    for run, each in runs:
        done, wanted = run / "done.json", json.loads(json.dumps(dataclasses.asdict(each)))
        if not done.exists():
            loop.run(each, joint.task(each), shards, run)
            done.write_text(json.dumps(wanted))
        elif json.loads(done.read_text()) != wanted:
            sys.exit(f"{run} is of another configuration: take another --out, or remove it")
    last = runs[-1][0]
    return (
        weights.load(last / "tokenizer.safetensors"), prior_weights.load(last / "prior.safetensors"),
        [settled(run) for run, _ in runs],
    )  # fmt: skip


def small(path: Path, frames: int) -> clips_module.Clip:
    """Load the first frames of a clip, at half size if it has LINES lines or more."""
    clip = clips_module.load(path, frames)
    return clips_module.load(path, frames, half=True) if clip.info.height >= LINES else clip


# ---- measures ----------------------------------------------------------------------------------------------


def lost_tokens(grid: tuple[int, ...], share: float, generator: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
    """Return the mask of the missing tokens when a share of the strands is lost, with TOKENS_PER_STRAND tokens each.

    Args:
        grid: (t, h, w).
        share: share of the strands that is lost.
        generator: source of the random numbers.
    """
    order = mixing.token_order(grid, TOKENS_PER_STRAND, MixingConfig())
    missing = np.zeros(order.size, bool)
    missing[order[generator.permutation(len(order))[: round(share * len(order))]].reshape(-1)] = True
    return missing[: np.prod(grid)].reshape(grid)


def measure(
    clip: clips_module.Clip, model: weights.Model, prior: prior_weights.Prior, unit: float, seed: int
) -> dict[str, float]:
    """Return the figures of one clip.

    Args:
        clip: the clip.
        model: the tokenizer.
        prior: the prior.
        unit: bits per nucleotide.
        seed: seed of the losses.

    Returns:
        "raw_nt_per_pixel", "psnr", "ms_ssim", "bits" (per token), "nt_per_pixel", "lost 10%" and "lost 30%" (PSNR).
    """
    shape = clip.frames.shape[:3]
    tokens = tiles.encode(model.params, model.config, [clip.frames], *shape[1:])

    def shown(levels):
        return np.concatenate(list(tiles.decode(model.params, model.config, levels, *shape)))

    whole, bits = shown(tokens), 8 * modes.encode(tokens, "prior", prior).content_bytes
    row = {
        "raw_nt_per_pixel": 2 * tokens.size / unit / np.prod(shape),
        "psnr": metrics.psnr(clip.frames, whole), "ms_ssim": metrics.ms_ssim(clip.frames[::8], whole[::8]),
        "bits": bits / tokens[..., 0].size, "nt_per_pixel": bits / unit / np.prod(shape),
    }  # fmt: skip
    for share in LOST:
        missing = lost_tokens(tokens.shape[:3], share, clips_module.generator(seed, clip.name))
        row[f"lost {share:.0%}"] = metrics.psnr(clip.frames, shown(conceal.fill_lost(tokens, missing, prior)))
    return {name: float(value) for name, value in row.items()}


def settings_of(cfg: JointTraining, shards: str | os.PathLike, clips: Sequence[clips_module.Clip]) -> dict[str, Any]:
    """Return what a result depends on, as JSON keeps it: configuration, shards, and clips by name and content.

    Args:
        cfg: configuration of the run.
        shards: folder of shards.
        clips: the clips.
    """
    index = hashlib.sha256((Path(shards) / "index.json").read_bytes()).hexdigest()[:16]
    frames = {clip.name: hashlib.sha256(clip.frames.tobytes()).hexdigest()[:16] for clip in clips}
    return {"config": json.loads(json.dumps(dataclasses.asdict(cfg))), "shards": index, "clips": frames}


def result_of(
    arm: str, cfg: JointTraining, args: argparse.Namespace, clips: Sequence[clips_module.Clip]
) -> dict[str, Any]:
    """Return the figures of one arm, number of digits and seed, from its file if that has the same settings.

    Args:
        arm: the arm.
        cfg: configuration of the joint run.
        args: the program's arguments.
        clips: the clips to measure.
    """
    folder = args.out / f"{arm.replace(' ', '_')}-{cfg.model.digits}-{cfg.seed}"
    path, settings = folder / "result.json", settings_of(cfg, args.data, clips)
    if path.exists():
        kept = json.loads(path.read_text())
        other = [name for name in settings if kept["settings"].get(name) != settings[name]]
        if other:
            sys.exit(f"{path} is of another {', '.join(other)}: take another --out, or remove {folder}")
        return kept
    model, prior, rest = trained(arm, cfg, args.data, folder)
    unit = joint.bits_per_unit(cfg)
    rows = {clip.name: measure(clip, model, prior, unit, cfg.seed) for clip in clips}
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in next(iter(rows.values()))}
    result = {
        "arm": arm, "digits": cfg.model.digits, "seed": cfg.seed, "settings": settings, "settled": rest, "mean": mean,
        "clips": rows,
    }  # fmt: skip
    path.write_text(json.dumps(result, indent=1))
    return result


# ---- results -------------------------------------------------------------------------------------------------


COLUMNS = ("nt_per_pixel", "bits", "psnr", "ms_ssim", *(f"lost {share:.0%}" for share in LOST))


def spread(results: Results, arm: str, digits: int) -> tuple[dict[str, tuple[float, float]], int] | None:
    """Return {column: (mean, standard deviation over seeds)} and the number of seeds; None without a run.

    Args:
        results: all results.
        arm: the arm.
        digits: the number of digits.
    """
    rows = [result["mean"] for result in results if result["arm"] == arm and result["digits"] == digits]
    if not rows:
        return None
    values = {name: [row[name] for row in rows] for name in COLUMNS}
    return {name: (np.mean(each), np.std(each, ddof=len(each) > 1)) for name, each in values.items()}, len(rows)


def gains(results: Results, key: str) -> list[tuple[int, float, float]]:
    """Return the dB of joint minus separate at equal digits, as (digits, mean, standard deviation over seeds)."""
    rows = []
    for digits in sorted({each["digits"] for each in results}):
        both = [
            {each["seed"]: each["mean"][key] for each in results if (each["arm"], each["digits"]) == (arm, digits)}
            for arm in ("separate", "joint")
        ]
        apart = [both[1][seed] - both[0][seed] for seed in both[0].keys() & both[1].keys()]
        if apart:
            rows.append((digits, float(np.mean(apart)), float(np.std(apart, ddof=len(apart) > 1))))
    return rows


def bd_rates(results: Results, key: str) -> dict[int, float]:
    """Return the BD-rate of joint against separate by the quality ``key``, by seed.

    Only the seeds that have both at two or more numbers of digits are included.
    """
    rates = {}
    for seed in sorted({each["seed"] for each in results}):
        separate, both = (
            [
                each["mean"] | {"preset": arm, "scale": 1}
                for each in results
                if (each["arm"], each["seed"]) == (arm, seed)
            ]
            for arm in ("separate", "joint")
        )
        rate = bd_rate(separate, both, key) if separate and both else None
        if rate is not None:
            rates[seed] = rate
    return rates


def show(out: Console, results: Results) -> None:
    """Print all results."""
    table = Table(
        "", "digits", "seeds", "nt/pixel", "bit/token", "PSNR dB", "MS-SSIM", *(f"{s:.0%} lost, dB" for s in LOST)
    )
    for digits, arm in itertools.product(sorted({each["digits"] for each in results}), ("separate", "joint", *ABLATED)):
        figures = spread(results, arm, digits)
        if figures:
            cells = [f"{mean:.{4 if name == 'ms_ssim' else 5 if name == 'nt_per_pixel' else 2}f} ± {deviation:.2g}"
                     for name, (mean, deviation) in figures[0].items()]  # fmt: skip
            table.add_row(arm, str(digits), str(figures[1]), *cells)
    out.print(table)
    for key in ("psnr", "ms_ssim"):
        rates = bd_rates(results, key)
        if rates:
            each, mean = ", ".join(f"{rate:+.1f}" for rate in rates.values()), np.mean(list(rates.values()))
            out.print(f"BD-rate of joint against separate by {key}: {mean:+.1f} % (seeds: {each})")
    for share in LOST:
        each = ", ".join(
            f"{digits} digits {mean:+.2f} ± {deviation:.2f} dB"
            for digits, mean, deviation in gains(results, f"lost {share:.0%}")
        )
        out.print(f"mode raw, {share:.0%} of strands lost, joint less separate: {each}")
    rest = {arm: [result["settled"] for result in results if result["arm"] == arm] for arm in ("separate", "joint")}
    for arm, each in rest.items():
        if each and all(value is not None for changes in each for value in changes):
            out.print(
                f"{arm}: loss of the last tenth less the tenth before, by phase: {np.mean(each, axis=0).round(4)}"
            )


def draw(path: str | os.PathLike, results: Results) -> None:
    """Draw quality, and quality after losses, against nucleotides per pixel, with a point for each seed."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "nt_per_pixel", "psnr", "mode prior, nothing lost"),
        (right, "raw_nt_per_pixel", f"lost {LOST[-1]:.0%}", f"mode raw, {LOST[-1]:.0%} of strands lost"),
    )
    for axis, rate, key, title in panels:
        for arm, colour in (("separate", "#888888"), ("joint", "#cc3311")):
            rows = [result for result in results if result["arm"] == arm]
            axis.plot([r["mean"][rate] for r in rows], [r["mean"][key] for r in rows], ".", color=colour, alpha=0.6)
            means = [
                [np.mean([r["mean"][name] for r in rows if r["digits"] == digits]) for name in (rate, key)]
                for digits in sorted({r["digits"] for r in rows})
            ]
            axis.plot([x for x, _ in means], [y for _, y in means], "-", color=colour, label=arm)
        axis.set(xlabel="nucleotides per pixel, tokens alone", ylabel="PSNR dB", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ``argv`` replaces the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips to measure on")
    parser.add_argument("--data", required=True, metavar="SHARDS", help="shards to train on, from train.prepare")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="folder for runs and results, which is continued"
    )
    parser.add_argument(
        "--config", default="configs/joint_cpu.py", help="configuration of the joint runs (%(default)s)"
    )
    parser.add_argument("--digits", type=int, nargs="+", default=[4, 6, 8], help="numbers of digits per token (4 6 8)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each run (%(default)s)")
    parser.add_argument(
        "--ablate", action="store_true", help="also leave out each term, at the middle number of digits"
    )
    parser.add_argument("--frames", type=int, default=32, help="frames of each clip (%(default)s)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change an option, for example steps=100"
    )
    args = parser.parse_args(argv)
    parallel.use_all_cores()
    cfg = override(runpy.run_path(args.config)["get"](), args.set)
    clips = [small(path, args.frames) for path in clips_module.clips_of(args.folder, args.clips)]
    args.out.mkdir(parents=True, exist_ok=True)
    middle = sorted(args.digits)[len(args.digits) // 2]
    todo = [
        (arm, digits, seed) for seed in range(args.seeds) for digits in args.digits for arm in ("separate", "joint")
    ]
    todo += [(arm, middle, seed) for seed in range(args.seeds) for arm in ABLATED] if args.ablate else []
    results = []
    for number, (arm, digits, seed) in enumerate(todo):
        print(f"[{number + 1} of {len(todo)}] {arm}, {digits} digits, seed {seed}", flush=True)
        results.append(result_of(arm, with_digits(cfg, digits, seed), args, clips))
        (args.out / "results.json").write_text(json.dumps(results, indent=1))
    show(Console(width=None if sys.stdout.isatty() else 130, highlight=False), results)
    draw(args.out / "joint.png", results)


if __name__ == "__main__":
    main()
