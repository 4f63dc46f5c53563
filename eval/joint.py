"""Is it worth training tokenizer and prior together? The same nets both ways, at equal compute, over seeds and rates.

    python -m eval.joint VIDEOS --data SHARDS --out FOLDER [--config configs/joint_cpu.py] [--digits 4 6 8] [--seeds 3]

    separate        the tokenizer for distortion alone, then a prior for its tokens: so many steps each
    joint           both at once, all terms as configured: so many steps, which are as many FLOP (printed)
    no rate, no masked, no concealment, constraint     joint with one term left out, or the penalty switched on, at the
                    middle number of digits (--ablate)

Every run is measured on all clips of VIDEOS: the first 32 frames, pictures of 240 lines and more at half size. Quality:
PSNR and MS-SSIM of all digits. Nucleotides per pixel: bytes of mode `prior` (the real coder, its counts without
knowledge) by the capacity of the constraint set; index, check and repair packets, alike for all, left out. Concealment:
PSNR of mode `raw` after 10 and 30 % of the strands are lost and the prior has filled the gaps, no outer code; there
nucleotides follow from the number of digits alone. Means over clips, then mean and standard deviation over seeds.
BD-rate of each seed by itself, separate being the anchor.

Runs that are done are not done again, and one that was stopped goes on, so FOLDER can be filled little by little. It
gets results.json, joint.png and a folder for each run. Losses over the last tenth of the steps against the tenth before
tell whether a run had come to rest.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
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

LOST = (0.1, 0.3)
TOKENS_PER_STRAND = 16
LINES = 240  # from so many on a clip is taken at half size
ABLATED = ("no rate", "no masked", "no concealment", "constraint")
CONSTRAINT = 0.01  # its weight where it is switched on
NO_TERMS = {"rate": 0.0, "masked": 0.0, "concealment": 0.0, "constraint": 0.0}


# ---- runs --------------------------------------------------------------------------------------------------


def phases(arm, cfg, folder):
    """[(folder, config)] of the runs that make an arm, one after the other."""
    if arm == "separate":
        frozen = [dataclasses.replace(cfg.optimiser, frozen=(part,)) for part in ("^prior", "^tokenizer")]
        first = dataclasses.replace(cfg, optimiser=frozen[0], **NO_TERMS)
        start = str(folder / "tokenizer" / "tokenizer.safetensors")
        return [
            (folder / "tokenizer", first),
            (folder / "prior", dataclasses.replace(first, optimiser=frozen[1], init_from=start)),
        ]
    change = {"constraint": CONSTRAINT} if arm == "constraint" else {}
    if arm.startswith("no "):
        change = {arm.removeprefix("no "): 0.0}
    return [(folder / "joint", dataclasses.replace(cfg, **change))]


def with_digits(cfg, digits, seed):
    """The configuration with both nets for so many digits, and a seed."""
    return dataclasses.replace(
        cfg, model=dataclasses.replace(cfg.model, digits=digits),
        prior=dataclasses.replace(cfg.prior, digits=digits), seed=seed,
    )  # fmt: skip


def settled(folder):
    """Loss over the last tenth of a run's log lines less that over the tenth before; None with too few lines."""
    losses = [json.loads(line).get("loss") for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    tenth = len(losses) // 10
    if not tenth:
        return None
    return float(np.mean(losses[-tenth:]) - np.mean(losses[-2 * tenth : -tenth]))


def trained(arm, cfg, shards, folder):
    """Train an arm, where it is not done, and return (tokenizer, prior, [settled of each phase])."""
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


def small(path, frames):
    """clips.Clip of a file, at half size where it has LINES lines or more."""
    clip = clips_module.load(path, frames)
    return clips_module.load(path, frames, half=True) if clip.info.height >= LINES else clip


# ---- measures ----------------------------------------------------------------------------------------------


def lost_tokens(grid, share, generator):
    """bool[t, h, w]: what is missing when ``share`` of the strands of TOKENS_PER_STRAND tokens are lost."""
    order = mixing.token_order(grid, TOKENS_PER_STRAND, MixingConfig())
    missing = np.zeros(order.size, bool)
    missing[order[generator.permutation(len(order))[: round(share * len(order))]].reshape(-1)] = True
    return missing[: np.prod(grid)].reshape(grid)


def measure(clip, model, prior, unit, seed):
    """Figures of one clip: {"psnr", "ms_ssim", "bits", "nt_per_pixel", "lost 10%", "lost 30%"}.

    clip: clips.Clip. unit: bits per nucleotide."""
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


def settings_of(cfg, shards, clips):
    """What a result depends on, as JSON keeps it: configuration, shards, and clips by name and content."""
    index = hashlib.sha256((Path(shards) / "index.json").read_bytes()).hexdigest()[:16]
    frames = {clip.name: hashlib.sha256(clip.frames.tobytes()).hexdigest()[:16] for clip in clips}
    return {"config": json.loads(json.dumps(dataclasses.asdict(cfg))), "shards": index, "clips": frames}


def result_of(arm, cfg, args, clips):
    """Figures of one arm, digits and seed; from its file where that is there and of the same settings."""
    folder = args.out / f"{arm.replace(' ', '_')}-{cfg.model.digits}-{cfg.seed}"
    path, settings = folder / "result.json", settings_of(cfg, args.data, clips)
    if path.exists():
        found = json.loads(path.read_text())
        other = [name for name in settings if found["settings"].get(name) != settings[name]]
        if other:
            sys.exit(f"{path} is of another {', '.join(other)}: take another --out, or remove {folder}")
        return found
    model, prior, rest = trained(arm, cfg, args.data, folder)
    unit = joint.bits_per_unit(cfg)
    rows = {clip.name: measure(clip, model, prior, unit, cfg.seed) for clip in clips}
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in next(iter(rows.values()))}
    found = {
        "arm": arm, "digits": cfg.model.digits, "seed": cfg.seed, "settings": settings, "settled": rest, "mean": mean,
        "clips": rows,
    }  # fmt: skip
    path.write_text(json.dumps(found, indent=1))
    return found


# ---- what comes out ------------------------------------------------------------------------------------------


COLUMNS = ("nt_per_pixel", "bits", "psnr", "ms_ssim", *(f"lost {share:.0%}" for share in LOST))


def spread(results, arm, digits):
    """{column: (mean, standard deviation over seeds)}, and the number of seeds; None without a run."""
    rows = [found["mean"] for found in results if found["arm"] == arm and found["digits"] == digits]
    if not rows:
        return None
    values = {name: [row[name] for row in rows] for name in COLUMNS}
    return {name: (np.mean(each), np.std(each, ddof=len(each) > 1)) for name, each in values.items()}, len(rows)


def gains(results, key):
    """dB of joint less separate at equal digits, [(digits, mean, standard deviation over seeds)]."""
    found = []
    for digits in sorted({one["digits"] for one in results}):
        both = [
            {one["seed"]: one["mean"][key] for one in results if (one["arm"], one["digits"]) == (arm, digits)}
            for arm in ("separate", "joint")
        ]
        apart = [both[1][seed] - both[0][seed] for seed in both[0].keys() & both[1].keys()]
        if apart:
            found.append((digits, float(np.mean(apart)), float(np.std(apart, ddof=len(apart) > 1))))
    return found


def bd_rates(results, key):
    """BD-rate of joint against separate by ``key``, of each seed that has both at two numbers of digits or more."""
    found = {}
    for seed in sorted({one["seed"] for one in results}):
        separate, both = (
            [one["mean"] | {"preset": arm, "scale": 1} for one in results if (one["arm"], one["seed"]) == (arm, seed)]
            for arm in ("separate", "joint")
        )
        rate = bd_rate(separate, both, key) if separate and both else None
        if rate is not None:
            found[seed] = rate
    return found


def show(out, results):
    table = Table(
        "", "digits", "seeds", "nt/pixel", "bit/token", "PSNR dB", "MS-SSIM", *(f"{s:.0%} lost, dB" for s in LOST)
    )
    for digits, arm in itertools.product(sorted({one["digits"] for one in results}), ("separate", "joint", *ABLATED)):
        found = spread(results, arm, digits)
        if found:
            cells = [f"{mean:.{4 if name == 'ms_ssim' else 5 if name == 'nt_per_pixel' else 2}f} ± {deviation:.2g}"
                     for name, (mean, deviation) in found[0].items()]  # fmt: skip
            table.add_row(arm, str(digits), str(found[1]), *cells)
    out.print(table)
    for key in ("psnr", "ms_ssim"):
        rates = bd_rates(results, key)
        if rates:
            each, mean = ", ".join(f"{rate:+.1f}" for rate in rates.values()), np.mean(list(rates.values()))
            out.print(f"BD-rate of joint against separate by {key}: {mean:+.1f} % (seeds: {each})")
    for share in LOST:
        each = ", ".join(
            f"{digits} digits {mean:+.2f} ± {spread:.2f} dB"
            for digits, mean, spread in gains(results, f"lost {share:.0%}")
        )
        out.print(f"mode raw, {share:.0%} of strands lost, joint less separate: {each}")
    rest = {arm: [one["settled"] for one in results if one["arm"] == arm] for arm in ("separate", "joint")}
    for arm, each in rest.items():
        if each and all(value is not None for one in each for value in one):
            out.print(
                f"{arm}: loss of the last tenth less the tenth before, by phase: {np.mean(each, axis=0).round(4)}"
            )


def draw(path, results):
    """Quality, and quality after losses, against nucleotides per pixel: a line through the means, a point each seed."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "nt_per_pixel", "psnr", "mode prior, nothing lost"),
        (right, "raw_nt_per_pixel", f"lost {LOST[-1]:.0%}", f"mode raw, {LOST[-1]:.0%} of strands lost"),
    )
    for axis, rate, key, title in panels:
        for arm, colour in (("separate", "#888888"), ("joint", "#cc3311")):
            rows = [one for one in results if one["arm"] == arm]
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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips to measure on (.mp4, .y4m)")
    parser.add_argument("--data", required=True, metavar="SHARDS", help="to train on: shards of train.prepare")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="for runs and results; goes on there")
    parser.add_argument("--config", default="configs/joint_cpu.py", help="of the joint runs (%(default)s)")
    parser.add_argument("--digits", type=int, nargs="+", default=[4, 6, 8], help="digits per token: the rates (4 6 8)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument(
        "--ablate", action="store_true", help="also leave out each term, at the middle number of digits"
    )
    parser.add_argument("--frames", type=int, default=32, help="of each clip (%(default)s)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="these clips of the folder only")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override, for example steps=100"
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
