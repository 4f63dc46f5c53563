"""How large a preview should be, and what loss it should outlive: the expected picture at 0 to 60 % lost.

    python -m eval.preview VIDEOS [--clips NAME ...] [--frames 32] [--budgets 30000 75000 200000] [--keep FILE]

Two curves of each clip are measured: PSNR of the picture against its bytes (``stream.fit``), and that of the preview
(``stream.preview``). From these the expected PSNR of a pool follows for any share and any protection: the layout is the
one that ``encode`` would write, the number of lost strands in each block is hypergeometric, and each block comes back
or not (RaptorQ fails once in 256 with exactly as many packets as sources). Where the header is lost, or neither picture
nor preview is left, the PSNR of a grey picture counts. In a clip of several groups those that are lost are previewed.

A rule says how large the preview is: a share of the nucleotides, at least ``floor`` bytes, for which it may take a
share of ``ceiling``. Printed are, for each budget and rule, the mean PSNR over 0 to 60 % lost, what the rule costs at 0
to 10 % lost against a pool without a preview, and the PSNR at some losses, all as means over the clips. ``--keep``
stores the curves in a file, which is read again if it is there.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from eval import clips
from helix_jax import contents
from helix_jax.config import CODED, CodecConfig, StrandConfig, Survival
from helix_jax.packing import BASES
from helix_jax.strands import header, layouts
from helix_jax.strands.bases import Station
from helix_jax.strands.sections import Section, numbers
from helix_jax.stream import fit, groups, pictures, preview, showing
from helix_jax.video import VideoInfo
from helix_jax.video.signal import Signal

LOSSES = tuple(number / 20 for number in range(13))
FEW = 0.1  # losses up to here are those at which a preview should cost nearly nothing
ALLOWED = 0.2  # dB that it may cost there
SHARES = (0.0, 0.02, 0.03, 0.04, 0.05, 0.08, 0.12, 0.2)
OUTLIVED, FAILURES = (0.3, 0.4, 0.5, 0.6), (1e-2, 1e-3)
FLOORS = tuple(itertools.product((64, 128, 192, 256), (0.06, 0.08, 0.1, 0.12)))  # bytes, and ceilings
PREVIEWS = (48, 96, 200, 400, 900, 2200, 4000)  # bytes
PARTS = (1.0, 0.8)  # of the bytes that a budget pays for, of which pictures are measured
SHOWN = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)  # losses that have a column
_FAILS = 1 / 256  # how often RaptorQ fails without a packet to spare

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Rule:
    """How large a preview is and what it outlives.

    Attributes:
        share: Its share of the nucleotides.
        outlived: Share of lost strands that it outlives.
        failure: How often it may fail at that loss.
        floor: Bytes that it has at least.
        ceiling: Share of the nucleotides that it may take for these.
    """

    share: float
    outlived: float = pictures.PREVIEW.loss
    failure: float = pictures.PREVIEW.failure
    floor: int = 0
    ceiling: float = 0.0

    @property
    def survival(self) -> Survival:
        """The protection as the codec has it."""
        return dataclasses.replace(pictures.PREVIEW, loss=self.outlived, failure=self.failure)

    @property
    def name(self) -> str:
        """The name in tables."""
        if not self.share and not self.floor:
            return "no preview"
        size = f"{self.share:.0%}" + (f", or {self.floor} bytes for {self.ceiling:.0%}" if self.floor else "")
        return f"{size}; {self.outlived:.0%} lost, failure {self.failure:g}"


@dataclass(frozen=True)
class Pool:
    """A pool as far as losses matter.

    Attributes:
        picture: Bytes of the picture.
        small: Bytes of the preview, 0 without one.
        blocks: (source packets, repair packets) of the header, of the preview if there is one, and of each group.
    """

    picture: int
    small: int
    blocks: tuple[tuple[int, int], ...]


# ---- layouts -------------------------------------------------------------------------------------------------


@functools.cache
def _sizes(info: VideoInfo, frames: tuple[int, ...], budget: int, redundancy: float | None, small: bool):
    """Return the bytes of a packet, the header strands, and the strands of the budget, as ``encode`` has them."""
    station = BASES.open(CodecConfig(codec="av1", strands=StrandConfig(redundancy=redundancy)))
    assert isinstance(station, Station)
    size = budget // 7 // len(frames)  # about what there will be
    strings = [(Section.of("av1", size, numbers(count, info.height, info.width)), None) for count in frames]
    first = [(Section.of("preview", size // 20), pictures.PREVIEW)] if small else []
    layout = contents.plan(station, [*first, *strings], pictures.fields(info, Signal(), None), "av1")
    head = header.header_strands(station.coder.bits, layout.header_bytes)
    return layout.symbol_bytes, head, budget // station.coder.length


@functools.cache
def _repairs(redundancy: float | Survival, sources: int) -> int:
    return layouts.repairs_of(redundancy, sources)


def _most(strands: float, redundancy: float | Survival) -> int:
    """Return the most source packets that fit into so many strands with their repair packets."""
    low, high = 0, max(0, int(strands))
    while low < high:
        middle = (low + high + 1) // 2
        if middle + _repairs(redundancy, middle) <= strands:
            low = middle
        else:
            high = middle - 1
    return low


def pool_of(info: VideoInfo, frames: tuple[int, ...], budget: int, rule: Rule, redundancy: float | None = None) -> Pool:
    """Lay out the pool that a rule makes of a budget.

    Args:
        info: The facts about the clip.
        frames: Number of frames of each group.
        budget: Nucleotides.
        rule: The rule.
        redundancy: Repair packets of the picture as a share of its source packets; None means the default.
    """
    small = bool(rule.share or rule.floor)
    width, head, strands = _sizes(info, frames, budget, redundancy, small)
    room, ceiling = (_most(share * strands, rule.survival) for share in (rule.share, rule.ceiling))
    room = max(room, min(-(-rule.floor // width), ceiling))
    if room * width < pictures.LEAST:
        room, (width, head, strands) = 0, _sizes(info, frames, budget, redundancy, False)
    previewed = [(room, _repairs(rule.survival, room))] if room else []
    own = CODED if redundancy is None else redundancy
    each = _most((strands - head - sum(map(sum, previewed))) // len(frames), own)
    groups_ = [(each, _repairs(own, each))] * len(frames)
    return Pool(each * width * len(frames), room * width, ((head // 4, head - head // 4), *previewed, *groups_))


@functools.cache
def back(sources: int, repairs: int, strands: int, lost: int) -> float:
    """Return the probability that a block comes back where ``lost`` of all strands are lost."""
    more, exact = stats.hypergeom.cdf([repairs - 1, repairs], strands, sources + repairs, lost)
    return float(more + (exact - more) * (1 - _FAILS))


# ---- the expected picture ------------------------------------------------------------------------------------


def expected(pool: Pool, curves: dict[str, Any], loss: float) -> float:
    """Return the expected PSNR in dB of what is shown where a share of the strands is lost."""
    strands = sum(map(sum, pool.blocks))
    chances = [back(*block, strands, round(loss * strands)) for block in pool.blocks]
    grey, whole = curves["grey"], _at(curves["picture"], pool.picture)
    outcomes = [(1.0, grey)]
    if pool.small:
        outcomes = [(chances[1], _at(curves["preview"], pool.small)), (1 - chances[1], grey)]
    parts = chances[2:] if pool.small else chances[1:]
    mean = 0.0
    for (chance, instead), several in itertools.product(outcomes, range(len(parts) + 1)):
        one = float(np.mean(parts))
        these = math.comb(len(parts), several) * one**several * (1 - one) ** (len(parts) - several)
        share = several / len(parts)
        error = share * 10 ** (-whole / 10) + (1 - share) * 10 ** (-instead / 10)
        mean += chance * these * -10 * math.log10(error)
    return chances[0] * mean + (1 - chances[0]) * grey


def _at(curve: Curve, size: int) -> float:
    """Return the PSNR at a number of bytes, by straight lines over their logarithm, of which the last goes on."""
    sizes, values = np.transpose(sorted(curve))
    sizes, values = np.log(sizes), np.maximum.accumulate(values)
    beyond = max(0.0, math.log(size) - sizes[-1]) * (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return float(np.interp(math.log(size), sizes, values) + beyond)


# ---- measuring -----------------------------------------------------------------------------------------------


def measure(clip: clips.Clip, budgets: Sequence[int], effort: int) -> dict[str, Any]:
    """Return the curves of a clip: {"picture", "preview": [(bytes, PSNR)], "grey": PSNR, "frames": of each group}."""
    frames = tuple(map(sum, groups.merged(groups.lengths(clip))))
    picture, small = [], []
    for budget, part in itertools.product(sorted(budgets), PARTS):
        size = pool_of(clip.info, frames, budget, Rule(0.0)).picture
        made = fit.fit(clip, int(part * size), effort=effort)
        picture.append((made.bytes, made.psnr))
    for size in PREVIEWS:
        try:
            short = preview.preview(clip, size)
        except fit.FitError:
            continue
        small.append((len(short.data), short.psnr))
    error = np.mean([np.square(block.astype(np.float32) - showing.GREY).mean() for block in clip.blocks(1)])
    return {
        "picture": picture,
        "preview": small,
        "grey": float(10 * np.log10(255**2 / error)),
        "frames": frames,
        "info": [clip.info.frames, clip.info.height, clip.info.width, str(clip.info.fps)],
    }


def _info(curves):
    frames, height, width, fps = curves["info"]
    return VideoInfo(frames, height, width, Fraction(fps))


# ---- tables --------------------------------------------------------------------------------------------------


def summary(every: dict[str, Any], budget: int, rule: Rule, redundancy: float | None) -> dict[str, Any]:
    """Return the means over the clips of what a rule gives within a budget.

    Returns:
        {"bytes": of the preview, "nucleotides": its share of them, "psnr": by loss, "mean": over all losses, "cost":
        the greatest loss of dB at few lost strands against a pool without a preview, as the mean over the clips}
    """
    rows, costs, sizes, taken = [], [], [], []
    for curves in every.values():
        info, frames = _info(curves), tuple(curves["frames"])
        pools = [pool_of(info, frames, budget, one, redundancy) for one in (rule, Rule(0.0))]
        psnr, bare = ([expected(pool, curves, loss) for loss in LOSSES] for pool in pools)
        rows.append(psnr)
        costs.append(max(b - a for a, b, loss in zip(psnr, bare, LOSSES, strict=True) if loss <= FEW))
        sizes.append(pools[0].small)
        strands = sum(map(sum, pools[0].blocks))
        taken.append(sum(pools[0].blocks[1]) / strands if pools[0].small else 0.0)
    psnr = np.mean(rows, axis=0)
    means = {"bytes": np.mean(sizes), "nucleotides": np.mean(taken), "mean": psnr.mean(), "cost": np.mean(costs)}
    return {name: float(value) for name, value in means.items()} | {"psnr": dict(zip(LOSSES, psnr, strict=True))}


def rules() -> list[Rule]:
    """Return all rules that are compared."""
    fixed = [Rule(0.0)] + [
        Rule(share, *protection) for share in SHARES[1:] for protection in itertools.product(OUTLIVED, FAILURES)
    ]
    floors = [
        Rule(share, *protection, *floor)
        for share in (0.04,)
        for floor in FLOORS
        for protection in itertools.product((0.4, 0.5), FAILURES)
    ]
    return fixed + floors


def table(every: dict[str, Any], budgets: Sequence[int], redundancy: float | None, most: int) -> str:
    """Return the table of each budget: all fixed shares, and the ``most`` best rules with a floor, best first."""
    lines = []
    for budget in budgets:
        found = {rule: summary(every, budget, rule, redundancy) for rule in rules()}
        floors = sorted((rule for rule in found if rule.floor), key=lambda rule: -found[rule]["mean"])
        columns = " | ".join(f"{loss:.0%}" for loss in SHOWN)
        lines += [
            f"\n{budget:,} nucleotides, means over {len(every)} clips:\n",
            f"| preview | bytes | nucleotides | mean 0-60 % | cost at 0-10 % | {columns} |",
            "| --- |" + " ---: |" * (4 + len(SHOWN)),
        ]
        for rule in [rule for rule in found if not rule.floor] + floors[:most]:
            one = found[rule]
            cells = [
                rule.name, f"{one['bytes']:.0f}", f"{one['nucleotides']:.1%}", f"{one['mean']:.2f}",
                f"{one['cost']:.2f}", *(f"{one['psnr'][loss]:.1f}" for loss in SHOWN),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best(every: dict[str, Any], budgets: Sequence[int], redundancy: float | None, most: int) -> str:
    """Return the best rules over all budgets, those that cost at most ALLOWED at each budget first."""
    rows = []
    for rule in rules():
        found = [summary(every, budget, rule, redundancy) for budget in budgets]
        cost, mean = max(one["cost"] for one in found), float(np.mean([one["mean"] for one in found]))
        rows.append((cost > ALLOWED, -mean, cost, rule))
    lines = ["\nOver all budgets:\n", "| preview | mean 0-60 % | greatest cost at 0-10 % |", "| --- | ---: | ---: |"]
    for too_much in (False, True):
        some = sorted((row for row in rows if row[0] == too_much), key=lambda row: row[1])[:most]
        lines += [f"| {rule.name} | {-mean:.2f} | {cost:.2f} |" for _, mean, cost, rule in some]
    return "\n".join(lines)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of clips")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="use only these clips of the folder")
    parser.add_argument("--frames", type=int, default=32, help="use only the first N frames (0: all; default 32)")
    parser.add_argument("--budgets", type=int, nargs="+", default=[30_000, 75_000, 200_000], help="nucleotides")
    parser.add_argument("--effort", type=int, default=1, help="effort of the picture (default 1)")
    parser.add_argument("--redundancy", type=float, help="of the picture (default: that of encode)")
    parser.add_argument("--best", type=int, default=8, help="rules with a floor that are printed (default 8)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the curves of the clips in this file")
    args = parser.parse_args()
    every = json.loads(args.keep.read_text()) if args.keep and args.keep.exists() else {}
    chosen = clips.clips_of(args.folder, args.clips)
    for path in chosen:
        if path.name not in every:
            clip = clips.load(path, args.frames)
            every[path.name] = measure(clip, args.budgets, args.effort)
            print(f"{path.name}: {every[path.name]}", flush=True)
            if args.keep:
                args.keep.write_text(json.dumps(every))
    every = {path.name: every[path.name] for path in chosen}
    print(table(every, args.budgets, args.redundancy, args.best))
    print(best(every, args.budgets, args.redundancy, args.best))


if __name__ == "__main__":
    main()
