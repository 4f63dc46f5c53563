"""Measure scaling: the speed and efficiency of training over 1, 2, 4, 8 devices, and where the time of a step goes.

    python -m eval.scaling --config configs/tokenizer_cpu.py [--data SHARDS] [--devices 1 2 4 8] [--json FILE]

The step is that of training (``loop.build``), on random parameters. In weak scaling each device has the configuration's
batch, in strong scaling all devices share it. Efficiency is the images/s of N devices divided by N times those of one.
On CPU each number of devices has a process of its own, and the devices share the cores, so that N of them on C cores
can reach min(N, C) / N. On GPU and TPU the first N devices of this machine are used.

"data" is the time to read a batch, alone and as fast as possible. "waits" is the share of its time that the training
loop waits for data. "compute" is the time of the same step, on the same devices, without its collectives, and
"communication" is the rest of the step's time, at least 0; neither is traced, and communication that overlaps with
compute is not counted. The bytes are the operands of the collectives in the compiled program, for one device and step.
Collectives that the compiler itself adds to the optimiser under fsdp stay in compute. Times are the best of --steps
after one that is not counted; data and waits are means.
"""

import argparse
import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from eval import collectives
from helix_jax import config as configuration
from helix_jax import video
from train import data, loop, sharding, tokenizer
from train.config import TokenizerTraining, Training
from train.metrics import peak_flops

TASKS = {TokenizerTraining: tokenizer.task}
SCALINGS = ("weak", "strong")
BATCHES = 12  # batches that are read to measure the time of one; more than are read ahead


@dataclass(frozen=True)
class Row:
    """The figures of one number of devices. Seconds and bytes are those of one step.

    Attributes:
        scaling: "weak" or "strong".
        devices: number of devices.
        mesh: size of the mesh's axes, data and fsdp.
        batch: rows of the global batch.
        step_seconds: time of a step.
        steps_per_second: its inverse.
        images_per_second: frames per second.
        efficiency: images per second and device, as a share of those of the fewest devices.
        ceiling: the efficiency that the cores allow.
        compute_seconds: time of a step without collectives.
        communication_seconds: the rest of the time.
        collectives: bytes of one device, by kind of collective.
        left_bytes: bytes of the collectives that the compute program still has.
        data_seconds: time to read a batch.
        wait_share: share of the time that the loop waits for data.
        loop_images_per_second: frames per second of the loop.
        flops: FLOP of a step.
        flops_per_second: FLOP per second.
        mfu: model FLOP utilisation; None if the peak is not known.
        cores: CPU time divided by time; None on GPU and TPU.
    """

    scaling: str
    devices: int
    mesh: tuple[int, int]
    batch: int
    step_seconds: float
    steps_per_second: float
    images_per_second: float
    efficiency: float
    ceiling: float
    compute_seconds: float
    communication_seconds: float
    collectives: dict[str, int]
    left_bytes: int
    data_seconds: float
    wait_share: float
    loop_images_per_second: float
    flops: float
    flops_per_second: float
    mfu: float | None
    cores: float | None


# ---- measuring -------------------------------------------------------------------------------------


def configured(path: str, assignments: Sequence[str] = ()) -> tuple[Training, loop.Task]:
    """Return the configuration and the task of a file in ``configs/``, with ``path=value`` assignments applied.

    Raises ValueError if the file gives no configuration, or if an assignment is wrong.
    """
    get = runpy.run_path(path).get("get")
    if get is None:
        raise ValueError(f"{path} has no function get() that returns a configuration")
    built = get()
    if type(built) not in TASKS:
        known = ", ".join(kind.__name__ for kind in TASKS)
        raise ValueError(f"{path} builds a {type(built).__name__}, this program needs one of {known}")
    cfg = configuration.override(built, assignments)
    return cfg, TASKS[type(built)](cfg)


def cut(cfg: Training, scaling: str, count: int) -> Training:
    """Return the configuration for a number of devices.

    Its fsdp is the greatest common divisor of the configuration's and of that number.

    Args:
        cfg: the configuration.
        scaling: "weak" for its ``batch`` and ``micro`` on each device, "strong" for them over all devices.
        count: number of devices.

    Raises:
        ParallelError: if the devices cannot share the batch.
    """
    times = count if scaling == "weak" else 1
    split = dataclasses.replace(cfg.parallel, fsdp=math.gcd(cfg.parallel.fsdp, count), micro=times * cfg.parallel.micro)
    cfg = dataclasses.replace(cfg, batch=times * cfg.batch, parallel=split)
    try:
        sharding.check_parts(cfg.batch, split.micro or count, jax.sharding.AbstractMesh((count,), ("data",)))
    except sharding.ParallelError as error:
        raise sharding.ParallelError(f"{scaling} scaling on {count} devices: {error}") from None
    return cfg


def measure(
    config: str, assignments: Sequence[str], scalings: Sequence[str], count: int, shards: Path, steps: int
) -> list[Row]:
    """Measure each scaling on the first devices; efficiency and ceiling are left at 1.

    Args:
        config: file of the configuration.
        assignments: ``path=value`` assignments to it.
        scalings: of SCALINGS.
        count: number of devices.
        shards: folder of shards.
        steps: number of steps to measure.
    """
    cfg, task = configured(config, assignments)
    rows, state = [], None
    for scaling in scalings:
        if count == 1 and rows:  # both scalings have the same batch
            rows.append(dataclasses.replace(rows[0], scaling=scaling))
            continue
        tell(f"{count} device{'s' * (count > 1)}, {scaling}: compiling")
        row, state = _row(cut(cfg, scaling, count), task, scaling, count, shards, steps, state)
        tell(f"{count} device{'s' * (count > 1)}, {scaling}: {row.step_seconds:.3f} s a step")
        rows.append(row)
    return rows


def _row(cfg, task, scaling, count, shards, steps, state):
    """Return the row, and the state for another row with as many devices; ``state`` is such a state, or None."""
    devices = jax.local_devices()[:count]
    grid = sharding.training_mesh(cfg.parallel.fsdp, devices)
    create, step, abstract, _ = loop.build(cfg, task, grid)
    state = create(jax.random.key(cfg.seed)) if state is None else state
    shape = (cfg.batch, cfg.data.frames, cfg.data.size, cfg.data.size, 3)
    noise = sharding.to_global(np.random.default_rng(0).integers(0, 256, shape, np.uint8), grid)
    real = step.lower(state, noise).compile()
    moved, left, local = collectives.operand_bytes(real.as_text()), {}, None
    if count > 1:
        with collectives.left_out():
            local = loop.build(cfg, task, grid)[1].lower(state, noise).compile()
        left = collectives.operand_bytes(local.as_text())
        if left and cfg.parallel.fsdp == 1:
            raise RuntimeError(f"collectives are left in the compute program: {left}; has helix_jax.parallel changed?")
    best = {real: math.inf, local: math.inf}
    busy = spent = 0.0
    for turn in range(steps + 1):
        for program in (real, local) if local else (real,):
            begin, before = time.perf_counter(), time.process_time()
            state, metrics = program(state, noise)
            jax.block_until_ready((state, metrics))
            elapsed = time.perf_counter() - begin
            if turn:
                best[program] = min(best[program], elapsed)
            if turn and program is real:
                busy, spent = busy + time.process_time() - before, spent + elapsed
    state, reading, waited, looped = _loop(cfg, real, state, grid, shards, steps)
    flops, seconds = loop.step_flops(cfg, task, grid, abstract), best[real]
    compute, peak, images = best[local] if local else seconds, peak_flops(devices[0].device_kind), shape[0] * shape[1]
    row = Row(
        scaling=scaling, devices=count, mesh=(grid.shape["data"], grid.shape["fsdp"]), batch=cfg.batch,
        step_seconds=seconds, steps_per_second=1 / seconds, images_per_second=images / seconds,
        efficiency=1.0, ceiling=1.0,
        compute_seconds=compute, communication_seconds=max(seconds - compute, 0.0), collectives=moved,
        left_bytes=sum(left.values()), data_seconds=reading, wait_share=waited / looped,
        loop_images_per_second=images * steps / looped, flops=flops, flops_per_second=flops / seconds,
        mfu=flops / seconds / peak / count if peak else None, cores=busy / spent if on_cpu() else None,
    )  # fmt: skip
    return row, state


def _loop(cfg, step, state, grid, shards, steps):
    """Return (state, seconds to read a batch alone, seconds waited in ``steps`` iterations, seconds of those).

    Reading alone leaves nothing read ahead, so that the few iterations after it wait as those of a long run do.
    """
    with data.batches(
        shards, seed=cfg.seed, batch=cfg.batch, frames=cfg.data.frames, size=cfg.data.size, speeds=cfg.data.speeds,
        start=0, workers=cfg.data.workers,
    ) as batches:  # fmt: skip
        next(batches)  # starts threads and processes
        begin = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        reading = (time.perf_counter() - begin) / BATCHES
        pending, waited, begin = None, 0.0, 0.0
        for turn in range(steps + 1):
            if turn == 1:  # the first is not counted
                jax.block_until_ready(pending)
                waited, begin = 0.0, time.perf_counter()
            requested = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - requested
            state, metrics = step(state, sharding.to_global(batch.clips, grid))
            jax.block_until_ready(pending)  # the step before, as the loop does
            pending = metrics
        jax.block_until_ready((state, pending))
        return state, reading, waited, time.perf_counter() - begin


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with their efficiency, relative to the fewest devices of each scaling, and its ceiling."""
    base, cores = {}, usable_cores()
    for row in rows:
        base.setdefault(row.scaling, row)
    return [
        dataclasses.replace(
            row,
            efficiency=row.images_per_second / row.devices * fewest.devices / fewest.images_per_second,
            ceiling=_share(row.devices, cores) / _share(fewest.devices, cores) if on_cpu() else 1.0,
        )
        for row, fewest in ((row, base[row.scaling]) for row in rows)
    ]


def _share(count: int, cores: int) -> float:
    return min(count, cores) / count


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_cpu() -> bool:
    """Return whether the devices are CPU cores."""
    return jax.default_backend() == "cpu"


def run(
    config: str, assignments: Sequence[str], scalings: Sequence[str], counts: Sequence[int], shards: Path, steps: int
) -> list[Row]:
    """Measure all numbers of devices, the smallest first.

    Args:
        config: file of the configuration.
        assignments: ``path=value`` assignments to it.
        scalings: of SCALINGS.
        counts: numbers of devices, ascending.
        shards: folder of shards.
        steps: number of steps to measure.

    Raises:
        OSError: if the process of a number of devices dies.
    """
    if not on_cpu():
        measured = (measure(config, assignments, scalings, count, shards, steps) for count in counts)
        return with_efficiency([row for rows in measured for row in rows])
    rows, spawn = [], multiprocessing.get_context("spawn")
    for count in counts:  # the number of CPU devices is fixed when the first of them is used
        with concurrent.futures.ProcessPoolExecutor(1, spawn, _start, (count,)) as process:
            try:
                rows += process.submit(measure, config, assignments, scalings, count, shards, steps).result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise OSError(f"the process of {count} devices died, perhaps out of memory: use fewer") from error
    return with_efficiency(rows)


def _start(count: int) -> None:
    jax.config.update("jax_num_cpu_devices", count)


def synthetic(folder: Path, cfg: Training) -> Path:
    """Write a moving picture from which pieces for ``cfg`` can be cut, and return its folder."""
    size, frames = 2 * cfg.data.size, 4 * cfg.data.frames * max(cfg.data.speeds)
    y, x = np.mgrid[:size, :size]
    with video.VideoWriter(folder / "waves.mp4", video.VideoInfo(frames, size, size, Fraction(25))) as out:
        for t in range(frames):
            waves = [128 + 50 * np.sin((x + 3 * t) / (7 + c)) + 40 * np.cos((y - 2 * t) / (5 + c)) for c in range(3)]
            out.write(np.stack(waves, axis=-1).astype(np.uint8)[None])
    return folder


def tell(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)


# ---- output ----------------------------------------------------------------------------------------


def speed_table(rows: Sequence[Row]) -> Table:
    """Return a table of steps and images per second, compared with the fewest devices."""
    work = "GFLOP/s" if rows[0].mfu is None else "MFU"
    table = Table("scaling", "devices", "mesh", "batch", "steps/s", "images/s", "ratio", "efficiency", "ceiling",
                  "of ceiling", work, *["cores"] * on_cpu())  # fmt: skip
    base = {}
    for row in rows:
        fewest = base.setdefault(row.scaling, row)
        table.add_row(
            row.scaling, str(row.devices), "x".join(map(str, row.mesh)), str(row.batch),
            f"{row.steps_per_second:.3g}", f"{row.images_per_second:,.1f}",
            f"{row.images_per_second / fewest.images_per_second:.2f}", f"{row.efficiency:.0%}", f"{row.ceiling:.0%}",
            f"{row.efficiency / row.ceiling:.0%}",
            f"{row.flops_per_second / 1e9:,.1f}" if row.mfu is None else f"{row.mfu:.1%}",
            *([] if row.cores is None else [f"{row.cores:.2f}"]),
        )  # fmt: skip
    return table


def time_table(rows: Sequence[Row]) -> Table:
    """Return a table of where the time of a step goes, and of the bytes of its collectives."""
    kinds = sorted({kind for row in rows for kind in row.collectives})
    table = Table("scaling", "devices", "step, ms", "compute, ms", "communication, ms", "data, ms", "waits",
                  *(f"{kind}, bytes" for kind in kinds or ["collectives"]))  # fmt: skip
    for row in rows:
        moved = [f"{row.collectives.get(kind, 0):,}" for kind in kinds] or ["0"]
        table.add_row(
            row.scaling, str(row.devices), f"{1e3 * row.step_seconds:,.1f}", f"{1e3 * row.compute_seconds:,.1f}",
            f"{1e3 * row.communication_seconds:,.1f} ({row.communication_seconds / row.step_seconds:.0%})",
            f"{1e3 * row.data_seconds:,.1f}", f"{row.wait_share:.1%}", *moved,
        )  # fmt: skip
    return table


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return lines that explain the figures and their limits."""
    lines = ["weak: the same batch on each device; strong: the same batch over all. images: frames of crops",
             "communication: step minus the same step without collectives, at least 0"]  # fmt: skip
    cores, most = usable_cores(), max(row.devices for row in rows)
    if on_cpu():
        lines.append(f"{most} devices share {cores} cores: the ceiling of efficiency is min(N, {cores}) / N")
    if rows[0].devices == 1 and (rows[0].cores or 0) > 1.1:
        lines.append(f"1 device keeps {rows[0].cores:.2f} of them busy already, so more cannot reach that ceiling")
    if any(row.left_bytes for row in rows):
        most = max(row.left_bytes for row in rows)
        lines.append(f"compute includes collectives of the optimiser, up to {most:,} bytes")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ``argv`` replaces the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="configuration file, for example configs/tokenizer_cpu.py")
    add("--data", metavar="FOLDER", help="shards from train.prepare, or videos (default: synthetic)")
    add(
        "--devices",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of devices (default: 1 2 4 8 on CPU, else powers of 2)",
    )
    add("--scaling", nargs="+", choices=SCALINGS, default=list(SCALINGS), help="which scaling (default: both)")
    add("--steps", type=int, default=5, metavar="N", help="steps to measure of each program (%(default)s)")
    add(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change an option, for example parallel.fsdp=2"
    )
    add("--json", metavar="FILE", help="write the same figures to FILE")
    args = parser.parse_args(argv)
    present = jax.local_device_count()
    powers = [1 << k for k in range(present.bit_length())]
    counts = sorted(set(args.devices or ([1, 2, 4, 8] if on_cpu() else powers)))
    try:
        if args.steps < 1 or counts[0] < 1:
            raise ValueError("--steps and --devices are 1 or more")
        if counts[-1] > present and not on_cpu():
            raise ValueError(f"--devices {counts[-1]}: there are {present} on this machine")
        cfg, task = configured(args.config, args.set)
        for count in counts:  # raises before minutes are spent on the others
            for scaling in args.scaling:
                cut(cfg, scaling, count)
        with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(sys.stderr):
            folder = Path(temporary)
            shards = loop.shards_of(args.data or synthetic(folder, cfg), folder / "shards", cfg)
            loop.probe_clips(cfg, shards)  # raises if the shards do not fit
            rows = run(args.config, args.set, args.scaling, counts, shards, args.steps)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))
    rows.sort(key=lambda row: SCALINGS.index(row.scaling))
    kind = jax.local_devices()[0].device_kind
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0))))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{task.name} of {args.config}: {count:,} parameters; {kind}", highlight=False)
    for table in (speed_table(rows), time_table(rows)):
        console.print(table)
    console.print("\n".join(remarks(rows)), highlight=False)
    if args.json:
        figures = {"config": args.config, "set": args.set, "parameters": count, "device": kind}
        figures |= {"cores": usable_cores(), "rows": [dataclasses.asdict(row) for row in rows]}
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
