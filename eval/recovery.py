"""From reads back to bits: how many reads it takes, at which error rates and redundancies, how long, and how it looks.

    python -m eval.recovery [--part unread coverage aims scale video] [--trials 3] [--out FOLDER]

Simulated reads (``helix_jax.channel``) of pools in `helix`, 150 nt, no primers, both directions; errors are a third
each substituted, inserted and deleted unless said, qualities flat: the reader learns nothing from them.
  unread    share of strands that n reads leave unread, n = 0, 1, 2, ..: what ``strands.survival`` plans with
  coverage  smallest mean coverage (Poisson) that returns every bit, by error rate and redundancy: where the model of
            ``strands.survival`` first says 99 %, and how many of the trials there and at 0.7 of it do return them
  aims      5 % errors at coverage 10 above 1.4 bit/nt; 1 % substitutions at coverage 5 above 1.6; Poisson and
            log-normal; everything counted but primers. Beside them what peers report (research of others, by name)
  scale     seconds and peak memory by the number of reads, one process each
  video     a shipped clip at low coverage, nanopore preset: what comes back, and the PSNR
With --out results.json and recovery.png.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import metrics
from eval.throughput import peak_memory
from helix_jax import codec, parallel, video
from helix_jax.channel import model as channels
from helix_jax.channel import simulate
from helix_jax.cli import console
from helix_jax.cli.demonstration import CLIP
from helix_jax.config import CodecConfig, StrandConfig, Survival
from helix_jax.nets import Nets
from helix_jax.prior import weights as prior_weights
from helix_jax.reads import recover
from helix_jax.strands import survival
from helix_jax.tokenizer import weights

ERRORS = (0.001, 0.01, 0.02, 0.05, 0.1)
REDUNDANCIES = (0.05, 0.1, 0.2, 0.5)
COPIES = range(15)
PARTS = ("unread", "coverage", "aims", "scale", "video")
AIMS = (  # name, errors per base, share of substitutions, coverage, redundancy, net bit/nt asked
    ("5 % errors, coverage 10", 0.05, 1 / 3, 10, 0.1, 1.4),
    ("1 % substitutions, coverage 5", 0.01, 1.0, 5, 0.05, 1.6),
)
# net bit/nt and what was survived, as measured or reported elsewhere: see docs/recovery.md for the sources
PEERS = (
    ("Wukong, 150 nt", 1.800, "no errors, no losses"),
    ("SPIDER-WEB 07", 1.680, "1 edit in 45 to 60 % of single reads"),
    ("DNA Fountain, RS 2 B", 1.571, "losses, one substitution"),
    ("HEDGES 0.75, RS(255,223)", 1.184, "1 % errors, one read a strand"),
    ("HEDGES 0.5, RS(255,223)", 0.744, "5.4 % errors, one read a strand"),
    ("DNA-Aeon, sync 8", 1.380, "losses; 1 % errors and 5 % loss not done in 400 s"),
    ("arXiv 2410.04886, wet", 1.815, "coverage 6.0"),
    ("arXiv 2410.04886, wet", 1.731, "coverage 4.5"),
)


# ---- a pool, its reads, and back --------------------------------------------------------------------------


def pool_of(size, redundancy, seed=0):
    """(random bytes, codec.Pool of them)."""
    data = np.random.default_rng(seed).bytes(size)
    return data, codec.pack(data, config=CodecConfig(strands=StrandConfig(redundancy=redundancy)))


def chunks_of(reads, rows=slice(None)):
    """simulate.Reads -> what ``recover.recover`` takes."""
    return [(reads.bases[rows], reads.lengths[rows], reads.qualities[rows])]


def comes_back(data, strands):
    """Whether strands unpack to the bytes; other bytes are an error of ours."""
    try:
        back, _ = codec.unpack(strands)
    except codec.DecodeError:
        return False
    if back != data:
        raise AssertionError("wrong bytes were returned")
    return True


def trial(data, pool, channel, coverage, seed, progress=None):
    """(every bit came back, seconds, recover.ReadReport or None)."""
    reads = simulate.reads_of(channel, pool.strands, coverage, jax.random.key(seed))
    begin = time.perf_counter()
    try:
        strands, report = recover.recover(chunks_of(reads), progress=progress)
    except codec.DecodeError:
        return False, time.perf_counter() - begin, None
    return comes_back(data, strands), time.perf_counter() - begin, report


# ---- parts -----------------------------------------------------------------------------------------------


def unread(args, step):
    """{errors: [share left unread by n reads]}; header strands are read often enough."""
    strands, results = args.strands, {}
    _, pool = pool_of(32 * strands, 0.0)
    written = {row.tobytes() for row in pool.strands[pool.header_strands :]}
    for errors in ERRORS:
        channel = channels.uniform(errors, reverse=0.5)
        found = [1.0]
        for copies in COPIES[1:]:
            step("unread", 1, len(ERRORS) * (len(COPIES) - 1))
            if found[-1] <= 1 / (strands + 1):  # more reads leave no more unread
                found.append(found[-1])
                continue
            numbers = np.where(np.arange(len(pool.strands)) < pool.header_strands, 20, copies)
            reads = simulate.read_copies(channel, pool.strands, numbers, jax.random.key(copies))
            back, _ = recover.recover(chunks_of(reads))
            right = sum(row.tobytes() in written for row in back[pool.strands.shape[1]])
            found.append((strands - right + 1) / (strands + 1))
        results[errors] = found
    return results


def smallest_coverage(redundancy, errors, sources, chance=0.99):
    """Least coverage, in tenths, at which a block comes back with that probability by the model of ``survival``."""
    for tenths in range(1, 1000):
        target = Survival(coverage=tenths / 10, errors=errors, failure=1 - chance)
        try:
            if survival.repairs(target, sources) <= redundancy * sources:
                return tenths / 10
        except ValueError:  # too few reads for any redundancy
            continue
    return 100.0


def coverage(args, step):
    """[{errors, redundancy, coverage, returned, below}]: of args.trials at that coverage and at 0.7 of it."""
    results = []
    for redundancy in REDUNDANCIES:
        data, pool = pool_of(args.bytes, redundancy)
        for errors in ERRORS:
            needed = smallest_coverage(redundancy, errors, pool.layout.sources)
            row = {"errors": errors, "redundancy": redundancy, "coverage": needed}
            channel = channels.uniform(errors, reverse=0.5)
            for name, share in (("returned", 1.0), ("below", 0.7)):
                trials = [trial(data, pool, channel, share * needed, seed)[0] for seed in range(args.trials)]
                row[name] = sum(trials)
            results.append(row)
            step("coverage", 1, len(REDUNDANCIES) * len(ERRORS))
    return results


def aims(args, step):
    """[{name, skew, net, asked, returned, trials, missing}]."""
    results = []
    for name, errors, share, mean, redundancy, asked in AIMS:
        data, pool = pool_of(args.large, redundancy)
        net = codec.densities(pool.nucleotides, 1, 1, len(data))[1]
        for skew in (0.0, 0.4):
            channel = channels.uniform(errors, substitution_share=share, reverse=0.5, skew=skew)
            returned, found = 0, []
            for seed in range(args.trials):
                whole, _, report = trial(data, pool, channel, mean, seed)
                returned += whole
                found.append(report.at_once + report.repaired if report else 0)
                step("aims", 1, 2 * len(AIMS) * args.trials)
            missing = 1 - float(np.mean(found)) / len(pool.strands)
            results.append({
                "name": name, "skew": skew, "redundancy": redundancy, "net": net, "asked": asked, "returned": returned,
                "trials": args.trials, "missing": missing,
            })  # fmt: skip
    return results


def scale(args, step):
    """[{reads, seconds, memory_bytes, whole}], each in a process of its own."""
    results = []
    for reads in args.reads:
        command = [sys.executable, "-m", "eval.recovery", "--one", str(reads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
        step("scale", 1, len(args.reads))
    return results


def one_size(reads):
    """{reads, seconds, memory_bytes, whole} of nanopore reads at coverage 10, compiling included."""
    data, pool = pool_of(round(29 * reads / 10 / 1.1), 0.1)
    simulated = simulate.reads_of(channels.named("nanopore"), pool.strands, 10, jax.random.key(0))
    before, begin = peak_memory(), time.perf_counter()
    strands, _ = recover.recover(chunks_of(simulated))
    seconds = time.perf_counter() - begin
    return {
        "reads": len(simulated.lengths), "strands": len(pool.strands), "seconds": seconds,
        "memory_bytes": peak_memory(), "memory_before_bytes": before, "whole": comes_back(data, strands),
    }  # fmt: skip


def pictures(args, step):
    """[{mode, coverage, shown, psnr, concealed}], means over args.trials; psnr None where nothing was shown."""
    model = weights.load(weights.DEFAULT)
    prior = prior_weights.load(prior_weights.DEFAULT)
    reader = video.open_video(CLIP)
    original = np.concatenate(list(reader.blocks()))
    results = []
    for mode in ("raw", "context"):
        pool = codec.encode(reader, Nets(model, prior), config=CodecConfig(mode=mode))
        for mean in args.coverages:
            shown, guessed = [], []
            for seed in range(args.trials):
                reads = simulate.reads_of(channels.named("nanopore"), pool.strands, mean, jax.random.key(seed))
                step("video", 1, 2 * len(args.coverages) * args.trials)
                try:
                    strands, _ = recover.recover(chunks_of(reads))
                    _, blocks, report = codec.decode(strands, Nets(model, prior))
                except codec.DecodeError:
                    continue
                shown.append(float(np.mean(metrics.psnr(original, np.concatenate(list(blocks))))))
                guessed.append(report.lost_tokens)
            some = bool(shown)
            results.append({
                "mode": mode, "coverage": mean, "shown": len(shown), "psnr": float(np.mean(shown)) if some else None,
                "concealed": float(np.mean(guessed)) if some else None,
            })  # fmt: skip
    return results


# ---- what is shown ------------------------------------------------------------------------------------------


def show(out, results):
    if "unread" in results:
        table = Table("errors", *map(str, COPIES), title="share of strands left unread by so many reads")
        for errors, shares in results["unread"].items():
            table.add_row(f"{float(errors):.1%}", *(f"{share:.3f}" for share in shares))
        out.print(table)
    if "coverage" in results:
        table = Table("errors", *(f"{r:.0%}" for r in REDUNDANCIES), title="smallest coverage that returns every bit")
        for errors in ERRORS:
            rows = [row for row in results["coverage"] if row["errors"] == errors]
            table.add_row(f"{errors:.1%}", *(f"{r['coverage']:.1f} ({r['returned']}, {r['below']})" for r in rows))
        table.caption = "by redundancy; in brackets: trials that came back there, and at 0.7 of it"
        out.print(table)
    if "aims" in results:
        table = Table("", "net bit/nt", "asked", "every bit back", "strands missing", title="aims")
        for row in results["aims"]:
            law = f"log-normal {row['skew']}" if row["skew"] else "Poisson"
            table.add_row(
                f"{row['name']}, {law}", f"{row['net']:.3f}", f"{row['asked']}",
                f"{row['returned']} of {row['trials']}", f"{row['missing']:.2%}",
            )  # fmt: skip
        for name, net, survived in PEERS:
            table.add_row(f"[dim]{name}", f"[dim]{net:.3f}", "", f"[dim]{survived}", "")
        out.print(table)
    if "scale" in results:
        table = Table("reads", "strands", "seconds", "peak memory, MB", "every bit back", title="scale")
        for row in results["scale"]:
            memory = f"{row['memory_bytes'] / 1e6:,.0f}"
            table.add_row(
                f"{row['reads']:,}", f"{row['strands']:,}", f"{row['seconds']:.1f}", memory, str(row["whole"])
            )
        out.print(table)
    if "video" in results:
        table = Table("mode", "coverage", "shown", "PSNR dB", "tokens guessed", title="a clip, nanopore preset")
        for row in results["video"]:
            figures = ("", "") if row["psnr"] is None else (f"{row['psnr']:.2f}", f"{row['concealed']:.1%}")
            table.add_row(row["mode"], f"{row['coverage']:g}", str(row["shown"]), *figures)
        out.print(table)


def draw(path, results):
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for errors, shares in results.get("unread", {}).items():
        left.plot(list(COPIES), shares, "o-", label=f"{float(errors):.1%} errors")
    left.set(xlabel="reads of a strand", ylabel="share of strands left unread", yscale="log")
    for redundancy in REDUNDANCIES:
        rows = [row for row in results.get("coverage", []) if row["redundancy"] == redundancy]
        if rows:
            errors = [100 * row["errors"] for row in rows]
            middle.plot(errors, [row["coverage"] for row in rows], "o-", label=f"redundancy {redundancy:.0%}")
    middle.set(xlabel="errors per base, %", ylabel="smallest coverage for every bit, by the model", xscale="log")
    for mode in ("raw", "context"):
        rows = [row for row in results.get("video", []) if row["mode"] == mode and row["psnr"] is not None]
        if not rows:
            continue
        right.plot([row["coverage"] for row in rows], [row["psnr"] for row in rows], "o-", label=f"mode {mode}")
    right.set(xlabel="coverage, nanopore preset", ylabel="PSNR dB")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="these parts only")
    parser.add_argument("--trials", type=int, default=3, help="pools or reads drawn for each figure (default 3)")
    parser.add_argument("--strands", type=int, default=1000, help="of part unread")
    parser.add_argument("--bytes", type=int, default=20_000, help="of the pools of part coverage")
    parser.add_argument("--large", type=int, default=200_000, help="bytes of the pools of part aims")
    parser.add_argument("--reads", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="of part scale")
    parser.add_argument("--coverages", type=float, nargs="+", default=[2, 3, 4, 5, 6, 8], help="of part video")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write results.json and recovery.png into FOLDER")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    parallel.use_all_cores()
    if args.one:
        print(json.dumps(one_size(args.one)))
        return
    parts = {"unread": unread, "coverage": coverage, "aims": aims, "scale": scale, "video": pictures}
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in args.part:  # each is shown and kept as soon as it is there
        with console.progress(False) as step:
            results[name] = parts[name](args, step)
        show(out, {name: results[name]})
        if args.out:
            (args.out / "results.json").write_text(json.dumps(results, indent=2))
            draw(args.out / "recovery.png", results)


if __name__ == "__main__":
    main()
