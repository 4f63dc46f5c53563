"""The command line that all training programs share, and the dry run."""

import argparse
import math
import runpy
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from helix_jax import config as configuration
from train import loop, sharding
from train.config import Training
from train.metrics import peak_flops


def main(
    description: str | None,
    kind: type[Training],
    task_of: Callable[[Any], loop.Task],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line, join the other hosts, and train.

    Exit status: 0 done, or stopped by SIGTERM with a checkpoint; 1 the loss is not a number; 2 wrong use.

    Args:
        description: the text above the options of ``--help``.
        kind: class of the configuration.
        task_of: builds the task from the configuration.
        argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="configuration file, for example configs/tokenizer_cpu.py")
    add("--data", metavar="FOLDER", help="shards from train.prepare, or a folder of videos")
    add("--run", metavar="FOLDER", help="folder of the run; repeat the command to resume the run")
    add("--validation", metavar="FOLDER", help="like --data, for sample pictures and the best checkpoint")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change an option of the configuration, for example steps=100",
    )
    add("--dry_run", action="store_true", help="only compile a step, print memory and FLOP, and stop")
    add("--devices", type=int, metavar="N", help="simulate N CPU devices in this process, for dry runs and tests")
    hosts = parser.add_argument_group(
        "several hosts",
        "Under a cluster manager, jax.distributed finds the hosts. Otherwise pass all three options on each host.",
    )
    hosts.add_argument("--coordinator", metavar="ADDRESS:PORT", help="address and port of host 0")
    hosts.add_argument("--hosts", type=int, metavar="N", help="number of hosts")
    hosts.add_argument("--host", type=int, metavar="I", help="number of this host, 0 to N - 1")
    args = parser.parse_args(argv)
    if not args.dry_run and not (args.data and args.run):
        parser.error("give --data and --run (or --dry_run)")
    if "://" in (args.run or ""):
        parser.error(f"--run {args.run}: not an address but a folder, which all hosts see (NFS, or a mounted bucket)")
    try:
        get = runpy.run_path(args.config).get("get")
        if get is None:
            raise ValueError(f"{args.config} has no function get() that returns a configuration")
        built = get()
        if not isinstance(built, kind):
            raise ValueError(f"{args.config} builds a {type(built).__name__}, this program needs a {kind.__name__}")
        cfg = configuration.override(built, args.set)
        if args.devices:
            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_num_cpu_devices", args.devices)
        sharding.initialize(args.coordinator, args.hosts, args.host)
        if args.dry_run:
            print("\n".join(dry_run(cfg, task_of(cfg))))
        else:
            loop.run(cfg, task_of(cfg), args.data, args.run, validation=args.validation)
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))


def dry_run(cfg: Training, task: loop.Task) -> list[str]:
    """Describe a run in lines of text: parameters, memory of each device, FLOP, and the time of a step at peak speed.

    The real step is compiled for the whole mesh, but no array is allocated.
    """
    grid = sharding.training_mesh(cfg.parallel.fsdp)
    _, step, abstract, places = loop.build(cfg, task, grid)
    where = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, places
    )
    clips = (cfg.batch, cfg.data.frames, cfg.data.size, cfg.data.size, 3)
    batch = jax.ShapeDtypeStruct(clips, jnp.uint8, sharding=sharding.batch_sharding(grid))
    memory = step.lower(where, batch).compile().memory_analysis()
    on_top = f"{memory.temp_size_in_bytes / 2**20:,.1f} MiB a device on top" if memory else "memory not known"
    flops = loop.step_flops(cfg, task, grid, abstract)
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract["params"]))
    kind = jax.devices()[0].device_kind
    peak = peak_flops(kind)
    at_peak = f", {flops / peak / grid.size:.4f} s at the peak of {kind}" if peak else ""
    state = sum(
        leaf.dtype.itemsize * math.prod(place.shard_shape(leaf.shape))
        for leaf, place in zip(jax.tree.leaves(abstract), jax.tree.leaves(places), strict=True)
    )
    return [
        f"{task.name}: {count / 1e6:,.2f} M parameters, batch {cfg.batch} of {'x'.join(map(str, clips[1:4]))}",
        f"mesh: {grid.shape['data']} x {grid.shape['fsdp']} (data x fsdp), {jax.process_count()} hosts, {kind}",
        f"state: {state / 2**20:,.1f} MiB a device (parameters, average, optimiser)",
        f"step: {on_top}, as compiled for {jax.default_backend()}",
        f"work: {flops / 1e9:,.1f} GFLOP a step, {flops / grid.size / 1e9:,.2f} a device{at_peak}",
    ]
