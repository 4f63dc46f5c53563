"""Measure the way from reads back to bits: reads needed, error rates, redundancies, time, and picture quality.

    python -m eval.recovery [--part unread coverage aims scale video] [--trials 3] [--out FOLDER]

The reads are simulated (``helix_jax.channel``) from pools in `helix`, 150 nt, without primers, in both directions.
Unless stated otherwise, errors are a third each substitutions, insertions and deletions, and qualities are flat, so
that the reader learns nothing from them.
  unread    the share of strands that n reads leave unread, n = 0, 1, 2, ..., which ``strands.survival`` plans with
  coverage  the smallest mean coverage (Poisson) that returns every bit, by error rate and redundancy: where the model
            of ``strands.survival`` first gives 99 %, and how many trials return all bits there and at 0.7 of it
  aims      5 % errors at coverage 10 above 1.4 bit/nt; 1 % substitutions at coverage 5 above 1.6; Poisson and
            log-normal; everything counted but primers. Beside them, what others report (by name)
  scale     seconds and peak memory by the number of reads, in a process for each number
  video     a shipped clip at low coverage, with the preset nanopore: what comes back, and its PSNR
--out writes results.json and recovery.png.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
AIMS = (  # name, errors per base, share of substitutions, coverage, redundancy, required net bit/nt
    ("5 % errors, coverage 10", 0.05, 1 / 3, 10, 0.1, 1.4),
    ("1 % substitutions, coverage 5", 0.01, 1.0, 5, 0.05, 1.6),
)
# net bit/nt and the errors survived, as measured or reported elsewhere: see docs/recovery.md for the sources
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


Row = dict[str, Any]
Step = Callable[[str, int, int | None], None]

# ---- a pool, its reads, and back --------------------------------------------------------------------------


def pool_of(size: int, redundancy: float, seed: int = 0) -> tuple[bytes, codec.Pool]:
    """Return random bytes, and a pool that holds them."""
    data = np.random.default_rng(seed).bytes(size)
    return data, codec.pack(data, config=CodecConfig(codec="tokens", strands=StrandConfig(redundancy=redundancy)))


def chunks_of(reads: simulate.Reads, rows: Any = slice(None)) -> list[tuple[Any, Any, Any]]:
    """Return simulated reads, or some rows of them, as ``recover.recover`` takes them."""
    return [(reads.bases[rows], reads.lengths[rows], reads.qualities[rows])]


def comes_back(data: bytes, strands: Any) -> bool:
    """Return whether strands unpack to the bytes. Raises AssertionError for other bytes, which are a fault of ours."""
    try:
        back, _ = codec.unpack(strands)
    except codec.DecodeError:
        return False
    if back != data:
        raise AssertionError("wrong bytes were returned")
    return True


def trial(
    data: bytes, pool: codec.Pool, channel: channels.Channel, coverage: float, seed: int, progress: Step | None = None
) -> tuple[bool, float, recover.ReadReport | None]:
    """Simulate the reads of a pool, and decode them.

    Args:
        data: content of the pool.
        pool: the pool.
        channel: the channel.
        coverage: mean number of reads of a strand.
        seed: seed of the reads.
        progress: called as progress(station, done, total).

    Returns:
        Whether every bit came back, the seconds of decoding, and the report of the reads, or None if they could not be
        decoded.
    """
    reads = simulate.reads_of(channel, pool.strands, coverage, jax.random.key(seed))
    begin = time.perf_counter()
    try:
        strands, report = recover.recover(chunks_of(reads), progress=progress)
    except codec.DecodeError:
        return False, time.perf_counter() - begin, None
    return comes_back(data, strands), time.perf_counter() - begin, report


# ---- parts -----------------------------------------------------------------------------------------------


def unread(args: argparse.Namespace, step: Step) -> dict[float, list[float]]:
    """Return {errors: [share of the strands that n reads leave unread]}; header strands are read often enough."""
    strands, results = args.strands, {}
    _, pool = pool_of(32 * strands, 0.0)
    written = {row.tobytes() for row in pool.strands[pool.header_strands :]}
    for errors in ERRORS:
        channel = channels.uniform(errors, reverse=0.5)
        shares = [1.0]
        for copies in COPIES[1:]:
            step("unread", 1, len(ERRORS) * (len(COPIES) - 1))
            if shares[-1] <= 1 / (strands + 1):  # no strand is unread, and none will be with more reads
                shares.append(shares[-1])
                continue
            numbers = np.where(np.arange(len(pool.strands)) < pool.header_strands, 20, copies)
            reads = simulate.read_copies(channel, pool.strands, numbers, jax.random.key(copies))
            back, _ = recover.recover(chunks_of(reads))
            right = sum(row.tobytes() in written for row in back.bases)
            shares.append((strands - right + 1) / (strands + 1))
        results[errors] = shares
    return results


def smallest_coverage(redundancy: float, errors: float, sources: int, chance: float = 0.99) -> float:
    """Return the least coverage, in tenths, at which a block comes back by the model of ``survival``.

    Args:
        redundancy: redundancy of the pool.
        errors: errors per base.
        sources: number of source packets.
        chance: the probability with which the block must come back.
    """
    for tenths in range(1, 1000):
        target = Survival(coverage=tenths / 10, errors=errors, failure=1 - chance)
        try:
            if survival.repairs(target, sources) <= redundancy * sources:
                return tenths / 10
        except ValueError:  # too few reads for any redundancy
            continue
    return 100.0


def coverage(args: argparse.Namespace, step: Step) -> list[Row]:
    """Return [{"errors", "redundancy", "coverage", "returned", "below"}].

    The last two are the numbers of trials that come back at that coverage and at 0.7 of it.
    """
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


def aims(args: argparse.Namespace, step: Step) -> list[Row]:
    """Return [{"name", "skew", "redundancy", "net", "asked", "returned", "trials", "missing"}] for AIMS."""
    results = []
    for name, errors, share, mean, redundancy, asked in AIMS:
        data, pool = pool_of(args.large, redundancy)
        net = codec.densities(pool.nucleotides, 1, 1, len(data))[1]
        for skew in (0.0, 0.4):
            channel = channels.uniform(errors, substitution_share=share, reverse=0.5, skew=skew)
            returned, strands = 0, []
            for seed in range(args.trials):
                whole, _, report = trial(data, pool, channel, mean, seed)
                returned += whole
                strands.append(report.at_once + report.repaired if report else 0)
                step("aims", 1, 2 * len(AIMS) * args.trials)
            missing = 1 - float(np.mean(strands)) / len(pool.strands)
            results.append({
                "name": name, "skew": skew, "redundancy": redundancy, "net": net, "asked": asked, "returned": returned,
                "trials": args.trials, "missing": missing,
            })  # fmt: skip
    return results


def scale(args: argparse.Namespace, step: Step) -> list[Row]:
    """Return the results of ``one_size`` for each number of reads, each from a process of its own."""
    results = []
    for reads in args.reads:
        command = [sys.executable, "-m", "eval.recovery", "--one", str(reads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
        step("scale", 1, len(args.reads))
    return results


def one_size(reads: int) -> Row:
    """Return {"reads", "strands", "seconds", "memory_bytes", "memory_before_bytes", "whole"} for nanopore reads.

    The coverage is 10, and the seconds include compilation.
    """
    data, pool = pool_of(round(29 * reads / 10 / 1.1), 0.1)
    simulated = simulate.reads_of(channels.named("nanopore"), pool.strands, 10, jax.random.key(0))
    before, begin = peak_memory(), time.perf_counter()
    strands, _ = recover.recover(chunks_of(simulated))
    seconds = time.perf_counter() - begin
    return {
        "reads": len(simulated.lengths), "strands": len(pool.strands), "seconds": seconds,
        "memory_bytes": peak_memory(), "memory_before_bytes": before, "whole": comes_back(data, strands),
    }  # fmt: skip


def pictures(args: argparse.Namespace, step: Step) -> list[Row]:
    """Return [{"mode", "coverage", "shown", "psnr", "concealed"}], means over the trials.

    The last two are None if nothing could be shown.
    """
    model = weights.load(weights.DEFAULT)
    prior = prior_weights.load(prior_weights.DEFAULT)
    reader = video.open_video(CLIP)
    original = np.concatenate(list(reader.blocks()))
    results = []
    for mode in ("raw", "context"):
        pool = codec.encode(reader, Nets(model, prior), config=CodecConfig(codec="tokens", mode=mode))
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
            results.append({
                "mode": mode, "coverage": mean, "shown": len(shown),
                "psnr": float(np.mean(shown)) if shown else None,
                "concealed": float(np.mean(guessed)) if shown else None,
            })  # fmt: skip
    return results


# ---- output -------------------------------------------------------------------------------------------------


def show(out: Console, results: dict[str, Any]) -> None:
    """Print the parts that were measured."""
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


def draw(path: str | os.PathLike, results: dict[str, Any]) -> None:
    """Draw the parts that were measured."""
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


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--trials", type=int, default=3, help="pools or reads drawn for each figure (default 3)")
    parser.add_argument("--strands", type=int, default=1000, help="number of strands in part unread")
    parser.add_argument("--bytes", type=int, default=20_000, help="content of a pool in part coverage, in bytes")
    parser.add_argument("--large", type=int, default=200_000, help="content of a pool in part aims, in bytes")
    parser.add_argument(
        "--reads", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of reads in part scale"
    )
    parser.add_argument(
        "--coverages", type=float, nargs="+", default=[2, 3, 4, 5, 6, 8], help="coverages in part video"
    )
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
    for name in args.part:  # each part is shown and saved as soon as it is measured
        with console.progress(False) as step:
            results[name] = parts[name](args, step)
        show(out, {name: results[name]})
        if args.out:
            (args.out / "results.json").write_text(json.dumps(results, indent=2))
            draw(args.out / "recovery.png", results)


if __name__ == "__main__":
    main()
